//! The fault suite: users log in through two replicas of the program while stores, replicas and
//! IdPs die, hang and come back; then every login is accounted for. A login is *lost* if it was
//! refused though its state is still in the store: that must never happen.
//!
//! `tests/faults` runs it and prints the table.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use peerpanda_sso::clock::SystemClock;
use peerpanda_sso::pb::login_service_client::LoginServiceClient;
use sqlx::Connection as _;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tonic::{Request, Status};
use tonic_types::StatusExt;

use crate::fake_idp::{FakeIdp, locked};
use crate::harness::{channel, eventually, own_redis, refused};
use crate::redis_topologies::{fill, make_room};
use crate::rig::{Balancer, Rig, begin_at, complete_at};
use crate::servers::Postgres;

/// Whose logins a fault may touch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    /// The IdP of `acme`; logins at `other` are those of another account.
    IdpOfAcme,
    /// Something that all accounts share, or an account at which no user of the table logs in: all logins
    /// are those of other accounts.
    Elsewhere,
}

impl Rig {
    /// Logs a user in every [`USER_EVERY`] while `fault` happens, and waits for the last of them.
    async fn under_load(&mut self, at: At, fault: impl AsyncFnOnce(&mut Self)) -> Row {
        let stop = Arc::new(AtomicBool::new(false));
        let ended: Arc<Mutex<Vec<Ended>>> = Arc::default();
        let users = Users {
            balancer: Arc::clone(&self.balancer),
            accounts: [("acme", Arc::clone(&self.idp)), ("other", Arc::clone(&self.other_idp))],
            ended: Arc::clone(&ended),
        };
        let load = tokio::spawn(users.come_until(Arc::clone(&stop)));
        sleep(CALM).await;
        fault(self).await;
        sleep(CALM).await;
        stop.store(true, Ordering::Relaxed);
        load.await.expect("all users are done");
        let ended = std::mem::take(&mut *locked(&ended));
        let mut row = Row::default();
        for Ended { slug, state, outcome, repeated, was_in_flight } in ended {
            let is_other = at == At::Elsewhere || slug == "other";
            row.others += usize::from(is_other);
            row.repeated += repeated;
            let Some(state) = state else {
                *row.not_begun.entry(outcome.err().unwrap_or_default()).or_default() += 1;
                row.others_refused += usize::from(is_other);
                continue;
            };
            row.begun += 1;
            match outcome {
                Ok(()) => row.finished += 1,
                Err(reason) => {
                    if self.is_in_store(&state).await {
                        row.lost += 1;
                        row.others_refused += usize::from(is_other);
                    } else if reason == "STATE_USED" && was_in_flight {
                        row.in_flight += 1;
                    } else if reason == "STATE_USED" {
                        row.dropped += 1;
                    } else {
                        row.others_refused += usize::from(is_other);
                    }
                    *row.refused.entry(reason).or_default() += 1;
                }
            }
        }
        row
    }
}

/// How one user's login ended.
struct Ended {
    slug: &'static str,
    /// `None`: it never began.
    state: Option<String>,
    /// The reason of the final refusal.
    outcome: Result<(), String>,
    /// Calls that were repeated because their refusals allowed it.
    repeated: usize,
    /// Whether the connection broke while the callback was being completed.
    was_in_flight: bool,
}

/// The users of two accounts, and their web tier.
#[derive(Clone)]
struct Users {
    balancer: Arc<Balancer>,
    accounts: [(&'static str, Arc<FakeIdp>); 2],
    ended: Arc<Mutex<Vec<Ended>>>,
}

impl Users {
    async fn come_until(self, stop: Arc<AtomicBool>) {
        let mut logins = Vec::new();
        let mut ticks = tokio::time::interval(USER_EVERY);
        for number in 0.. {
            ticks.tick().await;
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let users = self.clone();
            logins.push(tokio::spawn(async move {
                let end = users.log_in(number).await;
                locked(&users.ended).push(end);
            }));
        }
        for login in logins {
            login.await.expect("no panic");
        }
    }

    /// Logs one user in as a web tier does: it repeats the calls whose refusals allow it, and no
    /// others.
    async fn log_in(&self, number: u64) -> Ended {
        let (slug, idp) = &self.accounts[usize::from(number.is_multiple_of(OTHERS_ONE_IN))];
        let mut ended =
            Ended { slug, state: None, outcome: Ok(()), repeated: 0, was_in_flight: false };
        let begun = loop_until_done(&mut ended, || {
            let (mut client, mut request) = (self.balancer.next(), Request::new(begin_at(slug)));
            request.set_timeout(CALL_TIMEOUT);
            async move { client.begin_login(request).await }
        });
        let begun = match begun.await {
            Ok(begun) => begun,
            Err(reason) => return Ended { outcome: Err(reason), ..ended },
        };
        // Only a connection that breaks during CompleteLogin can spend the state.
        ended.was_in_flight = false;
        ended.state = Some(begun.state.clone());
        // From a browser with a session at the IdP to a user who has to find a second factor.
        sleep(Duration::from_millis(20 + number % 16 * 200)).await;
        let callback = idp.approve(&begun.redirect_url, "alice");
        let completed = loop_until_done(&mut ended, || {
            let (mut client, mut request) =
                (self.balancer.next(), Request::new(complete_at(slug, &callback)));
            request.set_timeout(CALL_TIMEOUT);
            async move { client.complete_login(request).await }
        });
        ended.outcome = completed.await.map(|completed| assert!(completed.identity.is_some()));
        ended
    }
}

async fn loop_until_done<T, F: Future<Output = Result<tonic::Response<T>, Status>>>(
    ended: &mut Ended,
    mut call: impl FnMut() -> F,
) -> Result<T, String> {
    let patience = Instant::now() + PATIENCE;
    loop {
        let status = match call().await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) => status,
        };
        let info = status.get_details_error_info();
        let reason =
            info.as_ref().map_or_else(|| "NO_ANSWER".to_owned(), |info| info.reason.clone());
        // Without ErrorInfo the status is the client's own: the connection broke or can't be made.
        let may_repeat = info
            .as_ref()
            .is_none_or(|info| info.metadata.get("retry").is_some_and(|retry| retry == "call"));
        ended.was_in_flight |= info.is_none() && !status.message().contains("connect error");
        if !may_repeat || Instant::now() > patience {
            return Err(reason);
        }
        ended.repeated += 1;
        sleep(Duration::from_millis(150)).await;
    }
}

/// One line of the table.
#[derive(Debug, Default)]
struct Row {
    begun: usize,
    finished: usize,
    refused: BTreeMap<String, usize>,
    not_begun: BTreeMap<String, usize>,
    dropped: usize,
    in_flight: usize,
    repeated: usize,
    lost: usize,
    others: usize,
    others_refused: usize,
}

impl Row {
    fn refusals(&self) -> usize {
        self.refused.values().sum()
    }

    /// Without states that were taken by a command or a call whose answer was late: a load of thousands of
    /// callers on a few cores can do that, too.
    fn refused_by_fault(&self) -> usize {
        self.refusals() - self.dropped - self.in_flight
    }
}

/// Prints each row and checks what must be true of every fault.
struct Table;

impl Table {
    #[expect(clippy::print_stdout, reason = "tests/faults shows the table")]
    fn begin() -> Self {
        print!("\n{HEAD}");
        Self
    }

    #[expect(clippy::print_stdout, reason = "tests/faults shows the table")]
    fn add(&self, fault: &str, row: &Row) {
        let reasons = |counted: &BTreeMap<String, usize>| {
            let shown: Vec<String> =
                counted.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
            if shown.is_empty() { "none".to_owned() } else { shown.join(", ") }
        };
        let Row {
            begun, finished, dropped, in_flight, repeated, lost, others, others_refused, ..
        } = row;
        let (refused, not_begun) = (reasons(&row.refused), reasons(&row.not_begun));
        let line = format!(
            "| {fault} | {begun} | {finished} | {refused} | {dropped} | {in_flight} | {not_begun} | {repeated} | **{lost}** | **{others_refused}** of {others} |"
        );
        println!("{line}");
        assert_eq!(*lost, 0, "{fault}: {row:?}");
        assert_eq!(*others_refused, 0, "{fault}: no login at another account is refused: {row:?}");
        assert!(*others > 20, "{fault}: users log in at other accounts: {row:?}");
        assert_eq!(
            *begun,
            finished + row.refusals(),
            "{fault}: every login is accounted for: {row:?}"
        );
        assert!(*begun > 100, "{fault}: users log in: {row:?}");
    }
}

const HEAD: &str = "| fault | begun | finished | refused | of these dropped by the store | of these in flight | not begun | calls repeated | lost | other accounts' logins refused |\n\
                    |---|---|---|---|---|---|---|---|---|---|\n";

/// Stops PostgreSQL, keeps a copy of its files, as a backup does, and runs it again.
async fn back_up(postgres: &mut Postgres) {
    postgres.kill();
    copy(&postgres.folder, &postgres.folder.with_extension("backup"));
    postgres.run().await;
}

/// Kills PostgreSQL and puts the files of the backup in the place of its own.
fn kill_and_restore(postgres: &mut Postgres) {
    postgres.kill();
    std::fs::remove_dir_all(&postgres.folder).expect("removed");
    copy(&postgres.folder.with_extension("backup"), &postgres.folder);
}

/// Copies a directory with the owners of its files.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
    assert!(copied.success());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes three minutes and needs an idle machine: tests/run runs it after the other tests"]
async fn no_login_is_lost() {
    let table = Table::begin();

    let mut rig = Rig::start(false).await;
    let row = rig.under_load(At::Elsewhere, async |_| sleep(Duration::from_secs(2)).await).await;
    assert_eq!((row.refusals(), row.not_begun.len(), row.repeated), (0, 0, 0), "{row:?}");
    table.add("none", &row);

    let row = rig
        .under_load(At::Elsewhere, async |rig| {
            for number in 0..2 {
                rig.restart(number).await;
                sleep(Duration::from_millis(500)).await;
            }
        })
        .await;
    assert_eq!(
        (row.refusals(), row.not_begun.len()),
        (0, 0),
        "a rolling restart refuses none: {row:?}"
    );
    table.add("rolling restart of both replicas", &row);

    let row = rig
        .under_load(At::Elsewhere, async |rig| {
            rig.replicas[0].process = None;
            sleep(Duration::from_secs(2)).await;
            let Rig { folder, settings, replicas, .. } = rig;
            replicas[0].run(folder.path(), settings).await;
            let replica = &rig.replicas[0];
            eventually("the replica serves again", || replica.is_serving()).await;
        })
        .await;
    assert_eq!(row.refusals(), row.in_flight, "only calls in flight at this replica: {row:?}");
    table.add("kill -9 of one of two replicas", &row);

    let row = rig
        .under_load(At::Elsewhere, async |rig| {
            let replica = rig.replicas[0].process.as_ref().expect("it runs");
            replica.signal("STOP");
            sleep(Duration::from_secs(3)).await;
            replica.signal("CONT");
        })
        .await;
    assert_eq!(row.refusals(), row.in_flight, "only calls in flight at this replica: {row:?}");
    table.add("one of two replicas hangs for 3 s", &row);

    let row = rig
        .under_load(At::Elsewhere, async |rig| {
            let redis = rig.redis.as_ref().expect("it runs");
            redis.signal("STOP");
            sleep(Duration::from_secs(3)).await;
            redis.signal("CONT");
        })
        .await;
    assert_eq!(
        row.refusals(),
        row.dropped + row.in_flight,
        "only states that Redis took without answering: {row:?}"
    );
    table.add("Redis hangs for 3 s", &row);

    let row = rig
        .under_load(At::Elsewhere, async |rig| {
            rig.redis = None;
            sleep(Duration::from_secs(2)).await;
            rig.redis = Some(own_redis(rig.redis_port));
        })
        .await;
    assert_eq!(
        row.refusals(),
        row.dropped + row.in_flight,
        "only states that Redis has forgotten: {row:?}"
    );
    assert!(row.dropped > 0, "a Redis without persistence loses states: {row:?}");
    table.add("kill -9 of Redis without persistence, back after 2 s", &row);

    let row = rig
        .under_load(At::Elsewhere, async |rig| {
            rig.postgres.kill();
            sleep(Duration::from_secs(3)).await;
            rig.postgres.run().await;
        })
        .await;
    assert_eq!(
        (row.refusals(), row.not_begun.len()),
        (0, 0),
        "cached connections need no SQL: {row:?}"
    );
    table.add("kill -9 of PostgreSQL, back after 3 s", &row);

    let row = rig
        .under_load(At::Elsewhere, async |rig| {
            rig.postgres.signal("STOP");
            sleep(Duration::from_secs(5)).await;
            rig.postgres.signal("CONT");
        })
        .await;
    assert_eq!(
        (row.refusals(), row.not_begun.len()),
        (0, 0),
        "cached connections need no SQL: {row:?}"
    );
    table.add("PostgreSQL hangs for 5 s", &row);

    let row = rig
        .under_load(At::IdpOfAcme, async |rig| {
            rig.idp.behave().token_delay = Duration::from_secs(2);
            sleep(Duration::from_secs(3)).await;
            rig.idp.behave().token_delay = Duration::ZERO;
        })
        .await;
    assert_eq!(row.refusals(), 0, "a slow IdP refuses no login: {row:?}");
    table.add("the IdP takes 2 s for each token", &row);

    let row = rig
        .under_load(At::IdpOfAcme, async |rig| {
            rig.idp.behave().token_answer =
                Some((200, "<html>Down for maintenance</html>".to_owned()));
            sleep(Duration::from_secs(2)).await;
            rig.idp.behave().token_answer = None;
        })
        .await;
    assert_eq!(row.refused.keys().collect::<Vec<_>>(), ["TOKEN_RESPONSE_INVALID"], "{row:?}");
    table.add("the IdP's token endpoint answers with garbage for 2 s", &row);

    let row = rig
        .under_load(At::IdpOfAcme, async |rig| {
            rig.front.is_cut.send_replace(true);
            sleep(Duration::from_secs(2)).await;
            rig.front.is_cut.send_replace(false);
        })
        .await;
    assert!(row.refused.keys().all(|reason| reason == "PROVIDER_UNAVAILABLE"), "{row:?}");
    assert!(row.refusals() + row.repeated > 0, "logins met the fault: {row:?}");
    table.add("connections to the IdP are reset for 2 s", &row);

    subtle_faults(&mut rig, &table).await;
    drop(rig);

    let mut rig = Rig::start(true).await;
    let row = rig
        .under_load(At::Elsewhere, async |rig| {
            let sentinels = rig.sentinels.as_mut().expect("Sentinels");
            sentinels.master = None;
            rig.redis_port = sentinels.replica_port;
            let replica = &rig.replicas[0];
            sleep(Duration::from_secs(1)).await;
            eventually("the service has found the new master", || replica.is_serving()).await;
        })
        .await;
    assert_eq!(
        row.refusals(),
        row.dropped + row.in_flight,
        "only states that were not replicated: {row:?}"
    );
    table.add("kill -9 of the Redis master, failover by Sentinels", &row);
}

/// Faults in which servers answer, but not as they did before.
async fn subtle_faults(rig: &mut Rig, table: &Table) {
    let row = rig
        .under_load(At::Elsewhere, async |rig| {
            let hanging = FakeIdp::start(Arc::new(SystemClock)).await;
            hanging.behave().metadata_delay = Duration::from_secs(60);
            rig.create(0, hanging.connection("hanging")).await.expect("created");
            let crowd = begin_at_hanging_idp(rig).await;
            sleep(Duration::from_secs(8)).await;
            let (waiting, ended) = crowd.leave();
            assert!(waiting > 4_500, "users wait to begin: {waiting}");
            // What a begin of one account alone is refused with, never OVERLOADED.
            let own = ["PROVIDER_UNAVAILABLE", "RATE_LIMITED"];
            assert!(ended.keys().all(|reason| own.contains(&reason.as_str())), "{ended:?}");
        })
        .await;
    assert_eq!(
        (row.refused_by_fault(), row.not_begun.len()),
        (0, 0),
        "others don't notice: {row:?}"
    );
    table.add("another account's IdP hangs, 5,000 users wait to begin there", &row);

    let row = rig
        .under_load(At::Elsewhere, async |rig| {
            fill(rig.redis_port);
            sleep(Duration::from_secs(3)).await;
            make_room(rig.redis_port);
        })
        .await;
    assert_eq!(
        (row.refusals(), row.not_begun.len()),
        (0, 0),
        "logins under way are completed, and new ones begin when there is room: {row:?}"
    );
    assert!(row.repeated > 0, "logins met the fault: {row:?}");
    table.add("Redis is full for 3 s", &row);

    back_up(&mut rig.postgres).await;
    let row = rig
        .under_load(At::Elsewhere, async |rig| {
            rig.create(0, rig.idp.connection("recent")).await.expect("created");
            for replica in 0..2 {
                rig.begins(replica, "recent").await.expect("known to the replica");
            }
            kill_and_restore(&mut rig.postgres);
            sleep(Duration::from_secs(1)).await;
            rig.postgres.run().await;
            for replica in 0..2 {
                eventually("the replica forgets what the database forgot", || async {
                    rig.begins(replica, "recent").await == Err("CONNECTION_NOT_FOUND".to_owned())
                })
                .await;
            }
        })
        .await;
    assert_eq!(
        (row.refusals(), row.not_begun.len()),
        (0, 0),
        "accounts of before the backup log in all the time: {row:?}"
    );
    table.add("PostgreSQL is killed and restored to an older state", &row);

    let row = rig.under_load(At::Elsewhere, freeze_in_a_transaction).await;
    assert_eq!(row.refusals(), row.in_flight, "only calls in flight at this replica: {row:?}");
    table.add("one of two replicas freezes in a transaction for 8 s", &row);

    let row = rig.under_load(At::Elsewhere, write_rows_of_a_newer_version).await;
    assert_eq!((row.refusals(), row.not_begun.len()), (0, 0), "rows of both are read: {row:?}");
    table.add("two versions write rows of one database for 4 s", &row);

    let settings = rig.clock.settings();
    rig.settings.extend(settings);
    for number in 0..2 {
        rig.restart(number).await;
    }
    let row = rig
        .under_load(At::Elsewhere, async |rig| {
            rig.clock.set_back(Duration::from_secs(60 * 60));
            sleep(Duration::from_secs(3)).await;
        })
        .await;
    assert_eq!(
        (row.refusals(), row.not_begun.len()),
        (0, 0),
        "neither logins under way nor new ones: {row:?}"
    );
    table.add("the clocks of replicas and IdPs are set back by an hour", &row);
}

/// 5,000 users who begin at an IdP that hangs, each again and again while the refusals allow it.
struct Crowd {
    users: Vec<JoinHandle<()>>,
    /// Refusals by reason.
    ended: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Crowd {
    /// How many still wait, and the refusals so far.
    fn leave(self) -> (usize, BTreeMap<String, usize>) {
        let waiting = self.users.iter().filter(|user| !user.is_finished()).count();
        self.users.iter().for_each(JoinHandle::abort);
        (waiting, locked(&self.ended).clone())
    }
}

async fn begin_at_hanging_idp(rig: &Rig) -> Crowd {
    let ended: Arc<Mutex<BTreeMap<String, usize>>> = Arc::default();
    let mut clients = Vec::new();
    // A connection carries 512 calls.
    for replica in rig.replicas.iter().cycle().take(10) {
        let channel = channel(&format!("http://127.0.0.1:{}", replica.login_port)).await;
        clients.push(LoginServiceClient::new(channel));
    }
    let users = (0..5_000).map(|number| {
        let (mut client, ended) = (clients[number % clients.len()].clone(), Arc::clone(&ended));
        tokio::spawn(async move {
            sleep(Duration::from_micros(number as u64 * 400)).await;
            loop {
                let refusal = refused(client.begin_login(begin_at("hanging")).await);
                *locked(&ended).entry(refusal.reason).or_default() += 1;
                if refusal.retry != "call" {
                    return;
                }
                // Later than the refusal asks for: the users share 2 cores with the replicas.
                sleep(Duration::from_millis(2_000 + number as u64 % 2_000)).await;
            }
        })
    });
    Crowd { users: users.collect(), ended }
}

/// Stops a replica that has locked the change counter, for which every change waits.
async fn freeze_in_a_transaction(rig: &mut Rig) {
    let mut session = sqlx::PgConnection::connect(&rig.postgres.url).await.expect("connected");
    let lock = "BEGIN; SELECT 1 FROM connections WHERE slug = 'acme' FOR UPDATE";
    sqlx::raw_sql(lock).execute(&mut session).await.expect("locked");
    let (rig, url) = (&*rig, rig.postgres.url.as_str());
    let renamed = rig.rename(0, "Acme");
    let frozen = async {
        wait_for_session(url, "wait_event_type = 'Lock'").await;
        rig.replicas[0].process.as_ref().expect("it runs").signal("STOP");
        sqlx::raw_sql("ROLLBACK").execute(&mut session).await.expect("unlocked");
        wait_for_session(url, "state = 'idle in transaction'").await;
        let began = Instant::now();
        eventually("the other replica can make changes", || async {
            rig.create(1, rig.idp.connection("late")).await.is_ok()
        })
        .await;
        rig.begins(1, "late").await.expect("a first login");
        sleep(Duration::from_secs(8).saturating_sub(began.elapsed())).await;
        rig.replicas[0].process.as_ref().expect("it runs").signal("CONT");
    };
    let (renamed, ()) = tokio::join!(renamed, frozen);
    renamed.expect_err("its transaction was ended");
}

async fn wait_for_session(url: &str, condition: &str) {
    let mut database = sqlx::PgConnection::connect(url).await.expect("connected");
    let query = format!(
        "SELECT FROM pg_stat_activity WHERE application_name = 'peerpanda-sso' AND {condition}"
    );
    for _ in 0..200 {
        let query = sqlx::raw_sql(sqlx::AssertSqlSafe(query.clone()));
        if query.fetch_optional(&mut database).await.expect("answered").is_some() {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("no session with {condition}");
}

/// What a newer version adds: a column, and a member of the settings that this version doesn't know.
async fn write_rows_of_a_newer_version(rig: &mut Rig) {
    let mut newer = sqlx::PgConnection::connect(&rig.postgres.url).await.expect("connected");
    let column = "ALTER TABLE connections ADD COLUMN of_a_newer_version TEXT";
    sqlx::raw_sql(column).execute(&mut newer).await.expect("migrated");
    for round in 0..4 {
        for slug in ["acme", "other"] {
            let change = format!(
                "BEGIN; \
                 UPDATE change_counter SET latest = latest + 1; \
                 UPDATE connections SET \
                     settings = (settings::jsonb || '{{\"rule_of_a_newer_version\": [true]}}')::text, \
                     revision = (SELECT latest FROM change_counter) \
                 WHERE slug = '{slug}'; \
                 INSERT INTO connection_log (slug, record, change, mark) \
                     SELECT slug, (record::jsonb || '{{\"of_a_newer_version\": 1}}')::text, \
                         latest, 'newer' || latest \
                     FROM connection_log, change_counter WHERE slug = '{slug}' \
                     ORDER BY connection_log.id DESC LIMIT 1; \
                 UPDATE connection_changes SET change = (SELECT latest FROM change_counter) \
                 WHERE slug = '{slug}'; \
                 COMMIT"
            );
            let change = sqlx::raw_sql(sqlx::AssertSqlSafe(change));
            change.execute(&mut newer).await.expect("changed");
        }
        // The first time, longer than until the replicas have seen it.
        sleep(Duration::from_millis(if round == 0 { 2_500 } else { 250 })).await;
        rig.rename(round % 2, &format!("Acme {round}")).await.expect("renamed");
        sleep(Duration::from_millis(250)).await;
    }
    let rule = "SELECT FROM connections WHERE slug = 'acme' \
                AND settings::jsonb -> 'rule_of_a_newer_version' = '[true]'";
    let kept = sqlx::query(rule).fetch_optional(&mut newer).await.expect("answered");
    assert!(kept.is_some(), "an edit by this version keeps what the newer one added");
}

/// Every so many users log in at `other`.
const OTHERS_ONE_IN: u64 = 4;
const USER_EVERY: Duration = Duration::from_millis(25);
/// Before and after each fault.
const CALM: Duration = Duration::from_millis(1500);
/// How long a web tier repeats a call while the user waits.
const PATIENCE: Duration = Duration::from_secs(20);
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
