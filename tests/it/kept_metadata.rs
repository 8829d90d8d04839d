//! What IdPs published, kept in SQL: a restart while an IdP is away changes nothing, and of several
//! replicas one asks an IdP.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use peerpanda_sso::app::{Environment, reseal};
use peerpanda_sso::clock::{Clock, ManualClock};
use peerpanda_sso::config::{Config, Database};
use peerpanda_sso::pb;
use peerpanda_sso::store::seal::{Keyring, MasterKey};
use tempfile::TempDir;
use tokio::time::Instant;
use tonic::Status;

use crate::fake_idp::{FakeIdp, Signer};
use crate::harness::{
    Postgres, Service, begin_request, complete_request, config, eventually, key, postgres_url,
    reason, redis_url,
};

const METADATA: &str = "/.well-known/openid-configuration";

/// Replicas of one service over one database, and the IdP of its account `acme`.
struct World {
    config: Box<dyn Fn() -> Config>,
    clock: Arc<ManualClock>,
    idp: FakeIdp,
    /// With SQLite.
    data: Option<TempDir>,
    key: MasterKey,
}

impl World {
    /// Over a file; each replica keeps its pending logins by itself.
    async fn of_sqlite() -> Self {
        let (data, key) = (tempfile::tempdir().expect("a directory"), key());
        let (file, own) = (data.path().join("sso.db"), key.clone());
        let over = move || config(Database::Sqlite(file.clone()), None, &own);
        Self { data: Some(data), ..Self::over(Box::new(over), key).await }
    }

    async fn of_postgres() -> Self {
        let (postgres, key) = (postgres_url().await, key());
        let own = key.clone();
        let over =
            move || config(Database::Postgres(postgres.clone().into()), Some(redis_url()), &own);
        Self::over(Box::new(over), key).await
    }

    async fn over(config: Box<dyn Fn() -> Config>, key: MasterKey) -> Self {
        let clock = Arc::new(ManualClock::starting_now());
        let idp = FakeIdp::start(Arc::clone(&clock) as Arc<dyn Clock>).await;
        Self { config, clock, idp, data: None, key }
    }

    /// A replica that has just started.
    async fn replica(&self) -> Service {
        Service::over((self.config)(), Arc::clone(&self.clock)).await
    }

    /// The first replica, which sets `acme` up.
    async fn first(&self) -> Service {
        let mut service = self.replica().await;
        service.create(self.idp.connection("acme")).await.expect("created");
        service
    }

    async fn log_in(&self, replica: &mut Service) -> Result<pb::CompleteLoginResponse, Status> {
        let begun = replica.begin(begin_request()).await?;
        let callback = self.idp.approve(&begun.redirect_url, "alice");
        replica.complete(complete_request(&callback)).await
    }

    /// How often metadata and keys were requested.
    fn requests(&self) -> (usize, usize) {
        (self.idp.count(METADATA), self.idp.count("/keys"))
    }

    fn take_documents_away(&self) {
        for path in [METADATA, "/keys"] {
            self.idp.behave().answers.insert(path, (503, String::new(), String::new()));
        }
    }

    fn file(&self) -> std::path::PathBuf {
        self.data.as_ref().expect("SQLite").path().join("sso.db")
    }

    /// What is kept of an account's IdP, sealed.
    async fn kept(&self, slug: &str) -> Option<Vec<u8>> {
        let pool = open(&self.file()).await;
        let read = sqlx::query_scalar("SELECT documents FROM idp_documents WHERE slug = $1");
        let kept: Option<Option<Vec<u8>>> =
            read.bind(slug).fetch_optional(&pool).await.expect("read");
        pool.close().await;
        kept.flatten()
    }

    async fn until_kept(&self, slug: &str) -> Vec<u8> {
        eventually("the documents are kept", || async { self.kept(slug).await.is_some() }).await;
        self.kept(slug).await.expect("kept")
    }

    /// Replaces what is kept of `acme`'s IdP behind the service's back.
    async fn forge(&self, documents: Vec<u8>) {
        let pool = open(&self.file()).await;
        let forge = sqlx::query("UPDATE idp_documents SET documents = $1 WHERE slug = 'acme'");
        assert_eq!(forge.bind(documents).execute(&pool).await.expect("changed").rows_affected(), 1);
        pool.close().await;
    }
}

async fn open(file: &Path) -> sqlx::SqlitePool {
    sqlx::SqlitePool::connect(&format!("sqlite://{}", file.display())).await.expect("opened")
}

async fn logout_ends_the_session(replica: &mut Service) -> bool {
    let request =
        pb::LogoutUrlRequest { slug: "acme".to_owned(), ..pb::LogoutUrlRequest::default() };
    replica.login.logout_url(request).await.expect("an URL").into_inner().ends_idp_session
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_while_the_idp_publishes_nothing_changes_nothing() {
    let world = World::of_sqlite().await;
    let mut before = world.first().await;
    world.log_in(&mut before).await.expect("a login");
    world.until_kept("acme").await;
    world.take_documents_away();

    let mut fresh = world.replica().await;
    world.log_in(&mut fresh).await.expect("a login by kept documents");
    assert!(logout_ends_the_session(&mut world.replica().await).await);
    assert_eq!(world.requests(), (1, 1), "they are fresh");

    // As without a restart, old documents serve at once while the IdP is asked in the background.
    world.clock.advance(Duration::from_secs(24 * 3600));
    let mut stale = world.replica().await;
    world.log_in(&mut stale).await.expect("a login by old documents");
    eventually("the IdP is asked", || async { world.requests().0 > 1 }).await;
    world.log_in(&mut stale).await.expect("a login by old documents");
    assert!(logout_ends_the_session(&mut world.replica().await).await);

    world.clock.advance(Duration::from_secs(3600));
    let mut expired = world.replica().await;
    assert_eq!(reason(expired.begin(begin_request()).await), "PROVIDER_UNAVAILABLE");
    assert!(!logout_ends_the_session(&mut expired).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_replicas_that_start_cold_ask_the_idp_once() {
    let world = World::of_postgres().await;
    let mut one = world.first().await;
    let (mut two, mut three) = (world.replica().await, world.replica().await);
    world.idp.behave().metadata_delay = Duration::from_millis(300);
    let begun = tokio::join!(
        one.begin(begin_request()),
        two.begin(begin_request()),
        three.begin(begin_request())
    );
    for begun in [begun.0, begun.1, begun.2] {
        begun.expect("begun");
    }
    assert_eq!(world.requests(), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_are_due_are_fetched_once_for_all_replicas() {
    let world = World::of_postgres().await;
    let mut replicas = [world.first().await, world.replica().await, world.replica().await];
    for replica in &mut replicas {
        world.log_in(replica).await.expect("a login");
    }
    assert_eq!(world.requests(), (1, 1));
    for fetches in 2..4 {
        world.clock.advance(Duration::from_secs(3600 / 5 * 4));
        world.idp.behave().metadata_delay = Duration::from_millis(200);
        let [one, two, three] = &mut replicas;
        let begun = tokio::join!(
            one.begin(begin_request()),
            two.begin(begin_request()),
            three.begin(begin_request())
        );
        for begun in [begun.0, begun.1, begun.2] {
            begun.expect("begun by the old documents");
        }
        eventually("a renewal", || async { world.requests().1 == fetches }).await;
        // The other replicas look for its outcome every 0.1 s.
        tokio::time::sleep(Duration::from_millis(500)).await;
        for replica in &mut replicas {
            world.log_in(replica).await.expect("a login");
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(world.requests(), (fetches, fetches));
    }
}

fn publish_only(world: &World, kid: &str, signer: Signer) {
    world.idp.behave().keys = None;
    let keys = world.idp.published_keys(|own| own == kid);
    world.idp.behave().keys = Some(keys);
    world.idp.behave().signer = signer;
    world.clock.advance(Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_one_replica_has_read_are_known_to_the_other() {
    let world = World::of_postgres().await;
    let mut replicas = [world.first().await, world.replica().await];
    publish_only(&world, "rsa", Signer::Rs256);
    for replica in &mut replicas {
        world.log_in(replica).await.expect("a login");
    }
    let [one, two] = &mut replicas;
    publish_only(&world, "ec", Signer::Es256);
    world.log_in(one).await.expect("the IdP was asked");
    assert_eq!(world.requests(), (2, 2));
    // It is kept once the login has its answer.
    tokio::time::sleep(Duration::from_millis(300)).await;
    world.log_in(two).await.expect("the other replica has the key");
    assert_eq!(world.requests(), (2, 2));

    // What the other replica has read is newer than this one's, and still too old for the token.
    publish_only(&world, "ed", Signer::EdDsa);
    world.log_in(one).await.expect("the IdP was asked");
    tokio::time::sleep(Duration::from_millis(300)).await;
    publish_only(&world, "ec384", Signer::Es384);
    world.log_in(two).await.expect("the IdP was asked");
    assert_eq!(world.requests(), (4, 4));
}

/// Whoever can write to the database must not choose the keys by which people are let in.
#[tokio::test(flavor = "multi_thread")]
async fn documents_of_another_account_or_revision_or_altered_ones_are_passed_over() {
    let world = World::of_sqlite().await;
    let mut service = world.first().await;
    service.create(world.idp.connection("twin")).await.expect("created");
    world.log_in(&mut service).await.expect("a login");
    let former = world.until_kept("acme").await;
    let at_twin = pb::BeginLoginRequest { slug: "twin".to_owned(), ..begin_request() };
    service.begin(at_twin).await.expect("begun");
    let foreign = world.until_kept("twin").await;
    service.edit(&["scopes"], |it| it.scopes = vec!["openid".to_owned()]).await.expect("edited");
    world.log_in(&mut service).await.expect("a login");
    eventually("they are kept for the new revision", || async {
        world.kept("acme").await.is_some_and(|kept| kept != former)
    })
    .await;
    let mut altered = world.until_kept("acme").await;
    *altered.last_mut().expect("not empty") ^= 1;

    world.log_in(&mut world.replica().await).await.expect("a login");
    let fetched = world.requests().0;
    for (number, forged) in [former, foreign, altered, b"x".to_vec()].into_iter().enumerate() {
        world.forge(forged.clone()).await;
        world.log_in(&mut world.replica().await).await.expect("a login");
        assert_eq!(world.requests().0, fetched + number + 1, "the IdP was asked");
        eventually("they are replaced", || async {
            world.kept("acme").await.is_some_and(|kept| kept != forged)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_are_too_large_are_used_and_not_kept() {
    let world = World::of_sqlite().await;
    world.idp.behave().metadata = serde_json::json!({ "padding": "x".repeat(128 * 1024) });
    let mut service = world.first().await;
    for fetches in 1..3 {
        let began = Instant::now();
        world.log_in(&mut service).await.expect("a login");
        assert_eq!(world.requests(), (fetches, fetches));
        assert!(began.elapsed() < Duration::from_secs(2), "nobody has the claim");
        service = world.replica().await;
    }
    assert_eq!(world.kept("acme").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_deleted_with_the_connection() {
    let world = World::of_sqlite().await;
    let mut service = world.first().await;
    service.begin(begin_request()).await.expect("begun");
    world.until_kept("acme").await;
    let revision = service.get("acme").await.expect("there").revision;
    let delete = pb::DeleteConnectionRequest { slug: "acme".to_owned(), revision };
    service.admin.delete_connection(delete).await.expect("deleted");
    let pool = open(&world.file()).await;
    let rows = async || -> i64 {
        let count = sqlx::query_scalar("SELECT COUNT(*) FROM idp_documents");
        count.fetch_one(&pool).await.expect("read")
    };
    assert_eq!(rows().await, 0);
    // A replica that was fetching them in that moment, or one of an earlier version, leaves some behind.
    let leave = "INSERT INTO idp_documents (slug, incarnation, revision, claimed_until) \
                 VALUES ('acme', 1, 1, 0)";
    sqlx::query(leave).execute(&pool).await.expect("left");
    eventually("they are deleted later", || async { rows().await == 0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_under_an_older_key_when_keys_are_rotated() {
    let world = World::of_sqlite().await;
    let mut service = world.first().await;
    service.begin(begin_request()).await.expect("begun");
    let kept = world.until_kept("acme").await;
    let database = Database::Sqlite(world.file());
    let rotate = async |keys: &[&MasterKey]| {
        let keyring = Keyring::new(keys.iter().map(|key| (*key).clone()).collect());
        let keyring = keyring.expect("not empty");
        reseal(&database, keyring, &Environment::default()).await.expect("resealed").unreadable
    };
    assert_eq!(rotate(&[&world.key]).await, Vec::<String>::new());
    assert_eq!(world.kept("acme").await, Some(kept), "it is the newest key");
    assert_eq!(rotate(&[&key(), &world.key]).await, Vec::<String>::new());
    assert_eq!(world.kept("acme").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_sql_away_the_idp_is_asked() {
    let (data, key) = (tempfile::tempdir().expect("a directory"), key());
    let mut postgres = Postgres::start(&data, &[]).await;
    let (url, own) = (postgres.url.clone(), key.clone());
    let over = move || Config {
        known_connections_max_age: Duration::from_secs(100 * 3600),
        ..config(Database::Postgres(url.clone().into()), Some(redis_url()), &own)
    };
    let world = World::over(Box::new(over), key).await;
    let mut service = world.first().await;
    // So that the connection is known, and nothing of its IdP.
    world.take_documents_away();
    assert_eq!(reason(service.begin(begin_request()).await), "PROVIDER_UNAVAILABLE");
    world.idp.behave().answers.clear();
    world.clock.advance(Duration::from_secs(2));
    for signal in ["STOP", "KILL"] {
        if signal == "KILL" {
            postgres.kill();
        } else {
            postgres.signal(signal);
        }
        let began = Instant::now();
        world.log_in(&mut service).await.expect("a login");
        assert!(began.elapsed() < Duration::from_secs(3), "{signal}: {:?}", began.elapsed());
        // Its documents have expired, and are not usable any more.
        world.clock.advance(Duration::from_secs(26 * 3600));
    }
    assert_eq!(world.requests().1, 2);
}
