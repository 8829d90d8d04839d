//! The laws of the stores, each tested on every implementation.

use std::sync::Arc;
use std::time::Duration;

use peerpanda_sso::clock::{Clock, ManualClock, SystemClock};
use peerpanda_sso::entropy::SystemEntropy;
use peerpanda_sso::model::address::AddressPolicy;
use peerpanda_sso::model::attempt::{
    Attempt, AttemptQuery, LoginCounts, LoginEnd, LoginStage, LoginTally, TestLogin, Unreturned,
};
use peerpanda_sso::model::cause::Cause;
use peerpanda_sso::model::check::{CheckOutcome, CheckRecord};
use peerpanda_sso::model::connection::{Connection, ConnectionSettings, Issuer};
use peerpanda_sso::model::draft::Draft;
use peerpanda_sso::model::secret::{ClientSecret, ClientSecrets};
use peerpanda_sso::model::slug::Slug;
use peerpanda_sso::model::time::{UnixMillis, UnixSeconds};
use peerpanda_sso::model::unreadable::Unreadable;
use peerpanda_sso::store::memory::MemoryPendingLogins;
use peerpanda_sso::store::redis::RedisPendingLogins;
use peerpanda_sso::store::redis::url::RedisUrl;
use peerpanda_sso::store::seal::{Keyring, MasterKey};
use peerpanda_sso::store::sql::postgres::{PostgresConnections, PostgresUrl};
use peerpanda_sso::store::sql::rows::RowCodec;
use peerpanda_sso::store::sql::sqlite::SqliteConnections;
use peerpanda_sso::store::{
    AccountAttempt, AttemptBatch, ChangeDetails, ChangeError, Changes, ConnectionChange,
    Connections, LoginAttempts, PendingKey, PendingLogins, Position, ProvenLogin, Reseal,
    SigningKeyEntry, SigningKeys, SlugChange, StoreError, StoredSigningKey,
};

use sqlx::Connection as _;

use crate::fake_idp::random;
use crate::harness::{eventually, free_port, key, own_redis, postgres_url, redis_url};

fn redis_at(url: &str) -> RedisPendingLogins {
    RedisPendingLogins::lazy(&RedisUrl::parse(url).expect("a URL"), None).expect("a store")
}

fn details() -> ChangeDetails {
    ChangeDetails::new("tests", "test", Vec::new())
}

fn secrets(text: &str) -> ClientSecrets {
    ClientSecrets::one(ClientSecret::from_store(text.to_owned()))
}

fn account(slug: &str) -> Slug {
    Slug::parse(slug).expect("a slug")
}

async fn stored(store: &dyn Connections, slug: &Slug) -> Connection {
    store.get(slug).await.expect("answered").expect("there").expect("readable")
}

fn pending_key() -> PendingKey {
    PendingKey::new(random())
}

async fn a_pending_login_is_taken_at_most_once(store: Arc<dyn PendingLogins>) {
    let ttl = Duration::from_secs(60);
    let key = pending_key();
    assert!(store.take(&key).await.expect("answered").is_none());
    store.put(&account("acme"), &key, b"value", ttl).await.expect("put");
    assert!(
        store.put(&account("acme"), &key, b"other", ttl).await.is_err(),
        "a key in use must not be overwritten"
    );
    let takes = (0..100).map(|_| {
        let (store, key) = (Arc::clone(&store), key.clone());
        tokio::spawn(async move { store.take(&key).await.expect("answered") })
    });
    let mut taken = Vec::new();
    for take in takes.collect::<Vec<_>>() {
        taken.extend(take.await.expect("ended"));
    }
    assert_eq!(taken, [b"value".to_vec()], "100 concurrent takes must return one value");
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_returns_a_pending_login_at_most_once() {
    a_pending_login_is_taken_at_most_once(Arc::new(MemoryPendingLogins::new(
        Arc::new(SystemClock),
        10,
    )))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_returns_a_pending_login_at_most_once() {
    a_pending_login_is_taken_at_most_once(Arc::new(redis_at(&redis_url()))).await;
}

#[tokio::test]
async fn memory_expires_by_the_clock_and_refuses_when_it_is_full() {
    let clock = Arc::new(ManualClock::starting_now());
    let store = MemoryPendingLogins::new(Arc::clone(&clock) as Arc<dyn Clock>, 2);
    let ttl = Duration::from_secs(60);
    let (first, second, third) = (pending_key(), pending_key(), pending_key());
    store.put(&account("acme"), &first, b"1", ttl).await.expect("put");
    store.put(&account("acme"), &second, b"2", ttl).await.expect("put");
    assert!(matches!(
        store.put(&account("acme"), &third, b"3", ttl).await,
        Err(StoreError::Full { limit: 2 })
    ));
    assert_eq!(
        store.take(&first).await.expect("answered"),
        Some(b"1".to_vec()),
        "a login under way must not be evicted"
    );
    clock.advance(Duration::from_secs(60));
    assert_eq!(store.take(&second).await.expect("answered"), None);
    store.put(&account("acme"), &third, b"3", ttl).await.expect("expired logins make room");
}

/// Bounds: floods of begun logins.
#[tokio::test]
async fn a_flooded_account_leaves_room_in_memory_for_all_others() {
    let clock = Arc::new(ManualClock::starting_now());
    let store = MemoryPendingLogins::new(Arc::clone(&clock) as Arc<dyn Clock>, 100);
    let ttl = Duration::from_secs(60);
    let begin = async |slug: &str| store.put(&account(slug), &pending_key(), b"1", ttl).await;
    let mut held = Vec::new();
    for flooded in ["acme", "beta", "gamma"] {
        let mut count = 0;
        let refused = loop {
            match begin(flooded).await {
                Ok(()) => count += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, StoreError::ShareFull { held, limit: 100 } if held == count));
        held.push(count);
    }
    assert_eq!(held, [51, 25, 13]);
    begin("delta").await.expect("others can begin");
    clock.advance(ttl);
    begin("acme").await.expect("expired logins make room");
}

#[tokio::test]
async fn redis_expires_pending_logins() {
    let store = redis_at(&redis_url());
    let key = pending_key();
    store.put(&account("acme"), &key, b"1", Duration::from_millis(100)).await.expect("put");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(store.take(&key).await.expect("answered"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unavailable_redis_fails_within_a_second_and_recovers() {
    let port = free_port();
    let store = redis_at(&format!("redis://127.0.0.1:{port}"));
    let fails_quickly = async || {
        let began = tokio::time::Instant::now();
        assert!(matches!(
            store.put(&account("acme"), &pending_key(), b"1", Duration::from_secs(9)).await,
            Err(StoreError::Unavailable { .. })
        ));
        assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
    };
    fails_quickly().await;
    let redis = own_redis(port);
    eventually("the first connection", || async { store.ping().await.is_ok() }).await;
    redis.signal("STOP");
    fails_quickly().await;
    redis.signal("CONT");
    eventually("after a pause", || async { store.ping().await.is_ok() }).await;
    drop(redis);
    fails_quickly().await;
    let _redis = own_redis(port);
    eventually("after a restart", || async { store.ping().await.is_ok() }).await;
}

fn options(url: &str) -> PostgresUrl {
    PostgresUrl::parse(url).expect("a URL")
}

fn codec(keyring: &Arc<Keyring>) -> RowCodec {
    RowCodec {
        keyring: Arc::clone(keyring),
        entropy: Arc::new(SystemEntropy),
        clock: Arc::new(SystemClock),
    }
}

fn settings(client_id: &str) -> ConnectionSettings {
    let draft = Draft {
        discovery_url: "https://idp.example.com/.well-known/openid-configuration".to_owned(),
        client_id: client_id.to_owned(),
        ..Draft::default()
    };
    draft.apply(None, &AddressPolicy::default()).expect("good settings")
}

async fn connections_obey_their_law(store: Arc<dyn Connections>) {
    let acme = Slug::parse("acme").expect("a slug");
    let (first, second) = (settings("first"), settings("second"));
    let secret = secrets("s3cret");
    let start = store.latest_change().await.expect("answered");
    assert!(store.get(&acme).await.expect("answered").is_none());

    // One of several concurrent creations succeeds.
    let creations = (0..10).map(|_| {
        let (store, acme, first, secret) =
            (Arc::clone(&store), acme.clone(), first.clone(), secret.clone());
        tokio::spawn(async move { store.create(&acme, &first, &secret, &details()).await })
    });
    let mut created = Vec::new();
    for creation in creations.collect::<Vec<_>>() {
        match creation.await.expect("ended") {
            Ok(connection) => created.push(connection),
            Err(error) => assert!(matches!(error, ChangeError::Exists), "{error}"),
        }
    }
    let [created] = created.as_slice() else { panic!("{} creations succeeded", created.len()) };
    let read = stored(&*store, &acme).await;
    assert_eq!(
        (read.settings, read.secrets.active.expose(), read.revision),
        (first, "s3cret", created.revision)
    );

    // One of several concurrent updates of the same revision succeeds.
    let updates = (0..10).map(|_| {
        let (store, acme, second, revision) =
            (Arc::clone(&store), acme.clone(), second.clone(), created.revision);
        tokio::spawn(async move {
            let change = ConnectionChange {
                slug: &acme,
                revision,
                settings: &second,
                secrets: &secrets("s3cret"),
                keep_pin: true,
                details: &details(),
            };
            store.update(&change).await
        })
    });
    let mut updated = Vec::new();
    for update in updates.collect::<Vec<_>>() {
        match update.await.expect("ended") {
            Ok(connection) => updated.push(connection),
            Err(error) => assert!(matches!(error, ChangeError::Conflict { .. }), "{error}"),
        }
    }
    let [updated] = updated.as_slice() else { panic!("{} updates succeeded", updated.len()) };
    assert!(updated.revision > created.revision);
    assert_eq!(
        (updated.secrets.active.expose(), updated.incarnation),
        ("s3cret", created.incarnation)
    );

    // An issuer is pinned once, without a new revision, and is reported as a change.
    let issuer = Issuer::new("https://idp.example.com".to_owned());
    store.pin_issuer(&acme, updated.revision, &issuer, &details()).await.expect("pinned");
    store
        .pin_issuer(
            &acme,
            updated.revision,
            &Issuer::new("https://evil.example".to_owned()),
            &details(),
        )
        .await
        .expect("answered");
    let pinned = stored(&*store, &acme).await;
    assert_eq!((pinned.issuer(), pinned.revision), (Some(&issuer), updated.revision));
    let changes = following(store.as_ref(), &start).await;
    let [SlugChange { position, slug }] = changes.as_slice() else { panic!("{changes:?}") };
    assert!(position.change > updated.revision && *slug == acme, "one row per slug");
    assert!(position.mark.is_some());

    // A connection that is deleted and created again is another one, with a new revision.
    assert!(matches!(
        store.delete(&acme, created.revision, &details()).await,
        Err(ChangeError::Conflict { .. })
    ));
    store.delete(&acme, updated.revision, &details()).await.expect("deleted");
    assert!(matches!(
        store.delete(&acme, updated.revision, &details()).await,
        Err(ChangeError::NotFound)
    ));
    let again = store.create(&acme, &second, &secret, &details()).await.expect("created");
    assert!(
        again.revision > position.change
            && again.incarnation == again.revision
            && again.pinned_issuer.is_none()
    );
    let end = store.latest_change().await.expect("answered");
    assert_eq!(end.change, again.revision);
    assert!(following(store.as_ref(), &end).await.is_empty());

    // A position of another history is told from its number, and from its mark.
    for other in [
        Position { change: end.change + 1, mark: None },
        Position { change: end.change, mark: Some("other".to_owned()) },
        Position { change: start.change, mark: Some("gone".to_owned()) },
    ] {
        let answer = store.changes_since(&other).await.expect("answered");
        assert!(matches!(&answer, Changes::OtherHistory(latest) if *latest == end), "{answer:?}");
    }
}

async fn following(store: &dyn Connections, seen: &Position) -> Vec<SlugChange> {
    match store.changes_since(seen).await.expect("answered") {
        Changes::Following(changes) => changes,
        Changes::OtherHistory(end) => panic!("{seen:?} is of another history than {end:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_obeys_the_law_of_connections() {
    let data = tempfile::tempdir().expect("a directory");
    let keyring = Arc::new(Keyring::new(vec![key()]).expect("a key"));
    let store = SqliteConnections::open(&data.path().join("sso.db"), codec(&keyring))
        .await
        .expect("opened");
    connections_obey_their_law(Arc::new(store)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_obeys_the_law_of_connections() {
    let keyring = Arc::new(Keyring::new(vec![key()]).expect("a key"));
    let store = PostgresConnections::open(options(&postgres_url().await), codec(&keyring))
        .await
        .expect("opened");
    connections_obey_their_law(Arc::new(store)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_start_together_migrate_once() {
    let url = postgres_url().await;
    let keyring = Arc::new(Keyring::new(vec![key()]).expect("a key"));
    let data = tempfile::tempdir().expect("a directory");
    let file = data.path().join("sso.db");
    let starts = (0..5).map(|_| {
        let (url, file, keyring) = (url.clone(), file.clone(), Arc::clone(&keyring));
        tokio::spawn(async move {
            PostgresConnections::open(options(&url), codec(&keyring))
                .await
                .expect("PostgreSQL opened");
            SqliteConnections::open(&file, codec(&keyring)).await.expect("SQLite opened");
        })
    });
    for start in starts.collect::<Vec<_>>() {
        start.await.expect("started");
    }
}

/// Every value is sealed under the newest key, including values written in the meantime, and nothing else
/// changes.
async fn sealed_values_move_to_the_newest_key<S: Connections + SigningKeys + Reseal + 'static>(
    open: impl AsyncFn(RowCodec) -> S,
) {
    let (old, new) = (key(), key());
    let ring = |keys: &[&MasterKey]| {
        Arc::new(Keyring::new(keys.iter().map(|key| (*key).clone()).collect()).expect("keys"))
    };
    let before = Arc::new(open(codec(&ring(&[&old]))).await);
    let slug = |number: usize| Slug::parse(&format!("a{number}")).expect("a slug");
    // More than one page.
    for number in 0..600 {
        let secret = secrets(&format!("secret {number}"));
        before.create(&slug(number), &settings("c"), &secret, &details()).await.expect("created");
    }
    let signing_key = StoredSigningKey {
        generation: 1,
        created_at: UnixSeconds(1),
        pkcs8: b"private".to_vec().into(),
    };
    before.add_signing_key(&signing_key).await.expect("added");
    let revision = stored(before.as_ref(), &slug(7)).await.revision;

    let both = open(codec(&ring(&[&new, &old]))).await;
    let resealed = both.reseal().await.expect("resealed");
    assert_eq!((resealed.changed, resealed.all, resealed.unreadable.len()), (601, 601, 0));
    assert_eq!(
        both.reseal().await.expect("resealed").changed,
        0,
        "the second run must find nothing to do"
    );
    let after = open(codec(&ring(&[&new]))).await;
    for number in [0, 7, 599] {
        let connection = stored(&after, &slug(number)).await;
        assert_eq!(connection.secrets.active.expose(), format!("secret {number}"));
    }
    assert_eq!(stored(&after, &slug(7)).await.revision, revision, "nothing else may change");
    match after.signing_keys().await.expect("read").as_slice() {
        [SigningKeyEntry::Key(key)] => assert_eq!(key.pkcs8.as_slice(), b"private"),
        entries => panic!("{} entries", entries.len()),
    }
    assert!(
        before.get(&slug(7)).await.expect("answered").expect("there").is_err(),
        "no value may be left under the old key"
    );

    // A value that a replica still seals under the old key, and one by an unknown key.
    before
        .create(&Slug::parse("late").expect("a slug"), &settings("c"), &secrets("s"), &details())
        .await
        .expect("created");
    let foreign = open(codec(&ring(&[&key()]))).await;
    foreign
        .create(&Slug::parse("lost").expect("a slug"), &settings("c"), &secrets("s"), &details())
        .await
        .expect("created");
    let resealed = both.reseal().await.expect("resealed");
    assert_eq!(
        (resealed.changed, resealed.unreadable.as_slice()),
        (1, ["a client secret of lost".to_owned()].as_slice())
    );
}

#[tokio::test]
async fn sqlite_reseals_under_the_newest_key() {
    let data = tempfile::tempdir().expect("a directory");
    let file = data.path().join("sso.db");
    sealed_values_move_to_the_newest_key(async |codec| {
        SqliteConnections::open(&file, codec).await.expect("opened")
    })
    .await;
}

#[tokio::test]
async fn postgresql_reseals_under_the_newest_key() {
    let url = postgres_url().await;
    let open = async |codec| PostgresConnections::open(options(&url), codec).await.expect("opened");
    sealed_values_move_to_the_newest_key(open).await;
}

#[tokio::test]
async fn a_stored_secret_is_sealed_and_bound_to_its_row() {
    let data = tempfile::tempdir().expect("a directory");
    let file = data.path().join("sso.db");
    let keyring = Arc::new(Keyring::new(vec![key()]).expect("a key"));
    let store = SqliteConnections::open(&file, codec(&keyring)).await.expect("opened");
    let (acme, evil) = (Slug::parse("acme").expect("a slug"), Slug::parse("evil").expect("a slug"));
    for slug in [&acme, &evil] {
        store
            .create(slug, &settings("c"), &secrets(&format!("CANARY-{slug}")), &details())
            .await
            .expect("created");
    }
    let pool =
        sqlx::SqlitePool::connect(&format!("sqlite://{}", file.display())).await.expect("opened");
    let stolen: Vec<u8> =
        sqlx::query_scalar("SELECT client_secret FROM connections WHERE slug = 'acme'")
            .fetch_one(&pool)
            .await
            .expect("read");
    assert!(!stolen.windows(6).any(|window| window == b"CANARY"));
    sqlx::query("UPDATE connections SET client_secret = $1 WHERE slug = 'evil'")
        .bind(stolen)
        .execute(&pool)
        .await
        .expect("swapped");
    let unreadable = store.get(&evil).await.expect("answered").expect("there").expect_err("moved");
    assert_eq!(unreadable.why, Unreadable::Secret);
    assert!(store.get(&acme).await.expect("answered").is_some());
}

/// A deletion locks the connection first and then its counts; so does a batch of attempts, or else each of
/// the two could wait for the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_attempts_locks_rows_in_the_order_of_a_deletion() {
    let url = postgres_url().await;
    let keyring = Arc::new(Keyring::new(vec![key()]).expect("a key"));
    let store = PostgresConnections::open(options(&url), codec(&keyring)).await.expect("opened");
    let store = Arc::new(store);
    let acme = Slug::parse("acme").expect("a slug");
    let created =
        store.create(&acme, &settings("c"), &secrets("s"), &details()).await.expect("created");
    let batch = || AttemptBatch {
        unrecognized: [(acme.clone(), 1)].into(),
        tested: vec![ProvenLogin {
            slug: acme.clone(),
            incarnation: created.incarnation,
            test_login: TestLogin { proof: "proof".to_owned(), time: UnixMillis(1) },
        }],
        ..AttemptBatch::default()
    };
    store.add_attempts(&batch()).await.expect("counted");

    let mut deletion = sqlx::PgConnection::connect(&url).await.expect("connected");
    let mut deletion = deletion.begin().await.expect("begun");
    sqlx::raw_sql("SELECT 1 FROM connections FOR UPDATE")
        .execute(&mut *deletion)
        .await
        .expect("locked");
    let adding = tokio::spawn({
        let (store, batch) = (Arc::clone(&store), batch());
        async move { store.add_attempts(&batch).await }
    });
    let mut watcher = sqlx::PgConnection::connect(&url).await.expect("connected");
    loop {
        let waiting = "SELECT COUNT(*) FROM pg_stat_activity \
                       WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let waiting: i64 =
            sqlx::query_scalar(waiting).fetch_one(&mut watcher).await.expect("answered");
        if waiting == 1 {
            break;
        }
        assert!(!adding.is_finished(), "the batch must wait for the connection's row");
    }
    sqlx::raw_sql("SELECT 1 FROM login_counts FOR UPDATE NOWAIT")
        .execute(&mut *deletion)
        .await
        .expect("the batch must not hold the counts while it waits for the connection");
    deletion.rollback().await.expect("released");
    adding.await.expect("ended").expect("counted");
}

#[tokio::test]
async fn checks_are_recorded_among_the_changes_and_push_none_out() {
    let data = tempfile::tempdir().expect("a directory");
    let keyring = Arc::new(Keyring::new(vec![key()]).expect("a key"));
    let file = data.path().join("sso.db");
    let store = SqliteConnections::open(&file, codec(&keyring)).await.expect("opened");
    let acme = Slug::parse("acme").expect("a slug");
    let created =
        store.create(&acme, &settings("c"), &secrets("s"), &details()).await.expect("created");
    let end = store.latest_change().await.expect("answered");
    for number in 0..60 {
        let check = CheckRecord {
            time: UnixMillis(number),
            revision: created.revision,
            proof: String::new(),
            outcome: CheckOutcome::Pass,
            failed: Vec::new(),
            passed: Vec::new(),
            warned: Vec::new(),
            inconclusive: Vec::new(),
            skipped: Vec::new(),
            hosts: Vec::new(),
        };
        let hosts = vec![format!("idp-{number}.example")];
        let details = ChangeDetails { hosts, ..ChangeDetails::new("support", "check", Vec::new()) };
        let recorded = store.record_check(&acme, created.incarnation, &check, false, &details);
        recorded.await.expect("recorded");
    }
    assert_eq!(store.latest_change().await.expect("answered"), end, "no login is affected");
    let changes = store.changes_of(&acme, None, 1000).await.expect("listed");
    assert_eq!(changes.len(), 51);
    assert_eq!(changes[0].record.hosts, ["idp-59.example"]);
    assert_eq!(changes[50].record.action, "test", "the creation is kept");
}

/// `cause: None`: completed. Attempts with the same `words` fold.
fn attempt(slug: &Slug, time: u64, cause: Option<Cause>, words: &str) -> AccountAttempt {
    let attempt = Attempt {
        time: UnixMillis(time),
        stage: Some(LoginStage::Complete),
        reason: cause.map(Cause::reason),
        cause,
        trace_id: format!("{time:032x}"),
        idp_error: None,
        idp_error_description: Some(words.to_owned()),
        document: None,
        detail: None,
        claims_present: None,
        issuer: None,
        phases: Vec::new(),
        is_test: false,
    };
    AccountAttempt { slug: slug.clone(), attempt }
}

fn batch(attempts: Vec<AccountAttempt>) -> AttemptBatch {
    let mut batch = AttemptBatch { attempts, ..AttemptBatch::default() };
    for AccountAttempt { slug, attempt } in &batch.attempts {
        let tally: &mut LoginTally = batch.tallies.entry(slug.clone()).or_default();
        let end = if attempt.reason.is_none() { LoginEnd::Completed } else { LoginEnd::Refused };
        tally.count_end(attempt.time, end);
    }
    batch
}

async fn attempts_obey_their_law<S: Connections + LoginAttempts>(store: S) {
    const HOUR: u64 = 3_600_000;
    let (acme, beta, nobody) = (account("acme"), account("beta"), account("nobody"));
    for slug in [&acme, &beta] {
        store.create(slug, &settings("c"), &secrets("s"), &details()).await.expect("created");
    }
    let of = |slug: &Slug| AttemptQuery {
        slug: Some(slug.clone()),
        limit: 1000,
        ..AttemptQuery::default()
    };
    let with_trace = |time: u64| AttemptQuery {
        trace_id: Some(format!("{time:032x}")),
        limit: 1000,
        ..AttemptQuery::default()
    };
    let read = async |query: AttemptQuery| store.attempts(&query).await.expect("read");
    let denied = Some(Cause::AccessDenied);

    // Refusals of one kind fold, within a batch and over batches, and each is found by its trace id.
    let first = [1, 2, 3].map(|time| attempt(&acme, HOUR + time, denied, "a"));
    store.add_attempts(&batch(first.into())).await.expect("added");
    let second = [attempt(&acme, HOUR + 4, denied, "a"), attempt(&nobody, HOUR, denied, "a")];
    store.add_attempts(&batch(second.into())).await.expect("added");
    let all = AttemptQuery { limit: 1000, ..AttemptQuery::default() };
    let listed = read(all.clone()).await;
    let [folded] = &*listed else { panic!("one, and none of an unknown account: {listed:?}") };
    assert_eq!((folded.count, folded.first_time.0, folded.last_time.0), (4, HOUR + 1, HOUR + 4));
    assert_eq!(folded.attempt, attempt(&acme, HOUR + 4, denied, "a").attempt, "the latest");
    for time in 1..=4 {
        let found = read(with_trace(HOUR + time)).await;
        assert_eq!(found.len(), 1, "{time}");
        assert_eq!(found[0].attempt.trace_id, format!("{:032x}", HOUR + time));
    }
    store.add_attempts(&batch(vec![attempt(&acme, 2 * HOUR, denied, "a")])).await.expect("added");
    let since = AttemptQuery { since: Some(UnixMillis(HOUR + 4)), ..of(&acme) };
    assert_eq!(read(since).await.len(), 2, "of another hour");
    let since = AttemptQuery { since: Some(UnixMillis(HOUR + 5)), ..all.clone() };
    assert_eq!(read(since).await.len(), 1);

    // What is kept is bounded: of each reason, and of all, but the last success is remembered.
    let success = vec![attempt(&acme, 3 * HOUR, None, ""), attempt(&beta, 3 * HOUR, None, "")];
    store.add_attempts(&batch(success)).await.expect("added");
    let causes = [
        Cause::AccessDenied,
        Cause::InvalidClient,
        Cause::InvalidGrant,
        Cause::Nonce,
        Cause::ClaimMissing,
    ];
    for (at, cause) in (1..).zip(causes) {
        for place in 0..60 {
            let time = 3 * HOUR + at * 1600 + place * 16;
            let words = "!".repeat(usize::try_from(place).expect("small"));
            let added = batch(vec![attempt(&acme, time, Some(cause), &words)]);
            store.add_attempts(&added).await.expect("added");
        }
    }
    let kept = read(of(&acme)).await;
    assert_eq!(kept.len(), 200);
    assert!(kept.is_sorted_by_key(|kept| std::cmp::Reverse(kept.last_time)));
    let missing = kept.iter().filter(|kept| kept.attempt.cause == Some(Cause::ClaimMissing));
    assert_eq!(missing.count(), 50, "the fair share of a reason");
    assert!(kept.iter().all(|kept| kept.attempt.reason.is_some()));
    assert_eq!(read(of(&beta)).await.len(), 1, "another account's stay");
    let flood: Vec<_> =
        (0..300).map(|at| attempt(&beta, 4 * HOUR + at * 16, denied, "a")).collect();
    for part in flood.chunks(100) {
        let part = part.iter().map(|it| attempt(&beta, it.attempt.time.0, denied, "a")).collect();
        store.add_attempts(&batch(part)).await.expect("added");
    }
    let found = async |at: u64| read(with_trace(4 * HOUR + at * 16)).await.len();
    assert_eq!((found(0).await, found(50).await, found(150).await, found(299).await), (1, 0, 1, 1));

    // Counters of 24 hours, of each account and of all.
    let now = UnixMillis(26 * HOUR);
    let summaries = store.login_summaries(&acme, &beta, now).await.expect("read");
    let (of_acme, of_beta) = (&summaries[&acme], &summaries[&beta]);
    assert_eq!(of_acme.last_success, Some(UnixMillis(3 * HOUR)));
    // That of two o'clock is the first, at 26 o'clock.
    let counts = |completed, refused| LoginCounts {
        begun: 0,
        returned: completed + refused,
        completed,
        refused,
    };
    assert_eq!((of_acme.day, of_beta.day), (counts(1, 301), counts(1, 300)));
    assert_eq!(of_beta.failures.values().copied().collect::<Vec<_>>(), [300]);
    let totals = store.login_totals(now).await.expect("read");
    assert_eq!(totals.day, counts(2, 601));
    assert_eq!(totals.failures.values().sum::<u32>(), 500);
    let later = store.login_totals(UnixMillis(29 * HOUR)).await.expect("read");
    assert_eq!((later.day, later.failures.len()), (counts(0, 0), 0));
    assert!(later.last_success.is_some());

    // A replica that writes a begin after the return of that login raises no count.
    let begun = |times: &[u64]| {
        let mut tally = LoginTally::default();
        times.iter().for_each(|time| tally.count_begun(UnixMillis(*time)));
        AttemptBatch { tallies: [(acme.clone(), tally)].into(), ..AttemptBatch::default() }
    };
    let unreturned = async || {
        let summaries = store.login_summaries(&acme, &acme, now).await.expect("read");
        summaries[&acme].unreturned
    };
    let (later, since) =
        (5 * HOUR, |count, since| Some(Unreturned { count, since: UnixMillis(since) }));
    store.add_attempts(&begun(&[later, later + 1])).await.expect("added");
    store.add_attempts(&begun(&[later + 2])).await.expect("added");
    assert_eq!(unreturned().await, since(3, later));
    let returned = batch(vec![attempt(&acme, later + 10, None, "")]);
    store.add_attempts(&returned).await.expect("added");
    assert_eq!(unreturned().await, None);
    store.add_attempts(&begun(&[later + 9])).await.expect("added");
    assert_eq!(unreturned().await, None);
    store.add_attempts(&begun(&[later + 20])).await.expect("added");
    let returned = batch(vec![attempt(&acme, later + 15, None, "")]);
    store.add_attempts(&returned).await.expect("added");
    assert_eq!(unreturned().await, since(1, later + 20), "it began after that return");

    // What is old is deleted, and all of an account with its connection.
    let forget = store.forget_attempts_before(UnixMillis(4 * HOUR), UnixMillis(5 * HOUR));
    forget.await.expect("forgotten");
    assert_eq!((read(of(&acme)).await.len(), read(of(&beta)).await.len()), (2, 1));
    assert_eq!(
        store.login_totals(now).await.expect("read").day,
        LoginCounts { begun: 5, ..counts(2, 0) }
    );
    let revision = stored(&store, &beta).await.revision;
    store.delete(&beta, revision, &details()).await.expect("deleted");
    assert_eq!((read(of(&beta)).await.len(), found(299).await), (0, 0));
    let summaries = store.login_summaries(&acme, &beta, now).await.expect("read");
    assert!(!summaries.contains_key(&beta), "{summaries:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_obeys_the_law_of_attempts() {
    let data = tempfile::tempdir().expect("a directory");
    let keyring = Arc::new(Keyring::new(vec![key()]).expect("a key"));
    let store = SqliteConnections::open(&data.path().join("sso.db"), codec(&keyring))
        .await
        .expect("opened");
    attempts_obey_their_law(store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_obeys_the_law_of_attempts() {
    let keyring = Arc::new(Keyring::new(vec![key()]).expect("a key"));
    let store = PostgresConnections::open(options(&postgres_url().await), codec(&keyring))
        .await
        .expect("opened");
    attempts_obey_their_law(store).await;
}

/// Several replicas fold the same refusals, in different orders, while one of the accounts is deleted.
#[tokio::test(flavor = "multi_thread")]
async fn batches_of_several_replicas_wait_for_no_deadlock() {
    let url = postgres_url().await;
    let keyring = Arc::new(Keyring::new(vec![key()]).expect("a key"));
    let store = PostgresConnections::open(options(&url), codec(&keyring)).await.expect("opened");
    let store = Arc::new(store);
    let accounts: Vec<Slug> = (0..4).map(|number| account(&format!("a{number}"))).collect();
    for slug in &accounts {
        store.create(slug, &settings("c"), &secrets("s"), &details()).await.expect("created");
    }
    let writers = (0..4).map(|writer| {
        let (store, accounts) = (Arc::clone(&store), accounts.clone());
        tokio::spawn(async move {
            for round in 0..20 {
                let mut attempts: Vec<_> = accounts
                    .iter()
                    .flat_map(|slug| ["a", "b", "c"].map(|words| (slug, words)))
                    .map(|(slug, words)| attempt(slug, 16, Some(Cause::AccessDenied), words))
                    .collect();
                attempts.rotate_left((writer * 5 + round) % 12);
                if writer % 2 == 0 {
                    attempts.reverse();
                }
                store.add_attempts(&batch(attempts)).await.expect("added, without a deadlock");
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let revision = stored(store.as_ref(), &accounts[3]).await.revision;
    store.delete(&accounts[3], revision, &details()).await.expect("deleted");
    for writer in writers {
        writer.await.expect("ended");
    }
    let query = AttemptQuery { limit: 100, ..AttemptQuery::default() };
    let listed = store.attempts(&query).await.expect("read");
    let of_kept = listed.iter().filter(|it| it.slug != accounts[3]).map(|it| it.count);
    assert_eq!(of_kept.collect::<Vec<_>>(), [80; 9]);
}

/// Rows as the version before wrote them, and writes while both versions run.
#[tokio::test]
async fn rows_of_the_version_before_are_read() {
    let data = tempfile::tempdir().expect("a directory");
    let file = data.path().join("sso.db");
    let keyring = Arc::new(Keyring::new(vec![key()]).expect("a key"));
    let store = SqliteConnections::open(&file, codec(&keyring)).await.expect("opened");
    let acme = account("acme");
    store.create(&acme, &settings("c"), &secrets("s"), &details()).await.expect("created");
    let pool =
        sqlx::SqlitePool::connect(&format!("sqlite://{}", file.display())).await.expect("opened");
    let trace_id = "0af7651916cd43dd8448eb211c80319c";
    sqlx::query("INSERT INTO login_attempts (slug, time, reason, attempt) VALUES ($1, $2, $3, $4)")
        .bind("acme")
        .bind(7)
        .bind("IDP_REFUSED")
        .bind(format!(
            r#"{{"time":7,"reason":"IDP_REFUSED","cause":"access_denied","trace_id":"{trace_id}",
                "idp_error":"access_denied","claims_present":null,"issuer":null,"phases":[],
                "is_test":false}}"#
        ))
        .execute(&pool)
        .await
        .expect("inserted");
    let count = "INSERT INTO login_counts (slug, last_success, foreign_callbacks)
                     SELECT slug, $2, $3 FROM connections WHERE slug = $1
                     ON CONFLICT (slug) DO UPDATE SET last_success = excluded.last_success";
    sqlx::query(count).bind("acme").bind(9).bind(0).execute(&pool).await.expect("counted");
    let query =
        AttemptQuery { trace_id: Some(trace_id.to_owned()), limit: 10, ..AttemptQuery::default() };
    let found = store.attempts(&query).await.expect("read");
    let [old] = &*found else { panic!("one: {found:?}") };
    assert_eq!((old.count, old.first_time, old.last_time), (1, UnixMillis(7), UnixMillis(7)));
    assert_eq!((old.attempt.stage, old.attempt.cause), (None, Some(Cause::AccessDenied)));
    // The newer version folds none of its own into it, and the other deletes what it knows.
    let new = attempt(&acme, 8, Some(Cause::AccessDenied), "");
    store.add_attempts(&batch(vec![new])).await.expect("added");
    let repeated = attempt(&acme, 9, Some(Cause::AccessDenied), "");
    store.add_attempts(&batch(vec![repeated])).await.expect("added");
    let summaries = store.login_summaries(&acme, &acme, UnixMillis(10)).await.expect("read");
    let summary = &summaries[&acme];
    assert_eq!(summary.last_success, Some(UnixMillis(9)));
    assert_eq!(summary.failures.values().copied().collect::<Vec<_>>(), [3]);
    let delete = "DELETE FROM login_attempts WHERE slug = 'acme'";
    sqlx::query(delete).execute(&pool).await.expect("deleted");
    let traces: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM attempt_traces")
        .fetch_one(&pool)
        .await
        .expect("counted");
    assert_eq!(traces, 0, "trace ids go with their attempt");
}
