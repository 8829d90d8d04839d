//! The fault suite: users log in through two replicas of the program while stores, replicas and
//! IdPs die, hang and come back; then every login is accounted for. A login is *lost* if it was
//! refused though its state is still in the store: that must never happen.
//!
//! `tests/faults` runs it and prints the table.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tonic::{Request, Status};
use tonic_types::StatusExt;

use crate::fake_idp::{FakeIdp, locked};
use crate::harness::{begin_request, complete_request, eventually, own_redis};
use crate::rig::{Balancer, Rig};

impl Rig {
    /// Logs a user in every [`USER_EVERY`] while `fault` happens, and waits for the last of them.
    async fn under_load(&mut self, fault: impl AsyncFnOnce(&mut Self)) -> Row {
        let stop = Arc::new(AtomicBool::new(false));
        let ended: Arc<Mutex<Vec<Ended>>> = Arc::default();
        let load = tokio::spawn(users(
            Arc::clone(&self.balancer),
            Arc::clone(&self.idp),
            Arc::clone(&stop),
            Arc::clone(&ended),
        ));
        sleep(CALM).await;
        fault(self).await;
        sleep(CALM).await;
        stop.store(true, Ordering::Relaxed);
        load.await.expect("all users are done");
        let ended = std::mem::take(&mut *locked(&ended));
        let mut row = Row::default();
        for Ended { state, outcome, repeated, was_in_flight } in ended {
            row.repeated += repeated;
            let Some(state) = state else {
                *row.not_begun.entry(outcome.err().unwrap_or_default()).or_default() += 1;
                continue;
            };
            row.begun += 1;
            match outcome {
                Ok(()) => row.finished += 1,
                Err(reason) => {
                    if self.is_in_store(&state).await {
                        row.lost += 1;
                    } else if reason == "STATE_USED" && was_in_flight {
                        row.in_flight += 1;
                    } else if reason == "STATE_USED" {
                        row.dropped += 1;
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
    /// `None`: it never began.
    state: Option<String>,
    /// The reason of the final refusal.
    outcome: Result<(), String>,
    /// Calls that were repeated because their refusals allowed it.
    repeated: usize,
    /// Whether the connection broke while the callback was being completed.
    was_in_flight: bool,
}

async fn users(
    balancer: Arc<Balancer>,
    idp: Arc<FakeIdp>,
    stop: Arc<AtomicBool>,
    ended: Arc<Mutex<Vec<Ended>>>,
) {
    let mut logins = Vec::new();
    let mut ticks = tokio::time::interval(USER_EVERY);
    for number in 0.. {
        ticks.tick().await;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (balancer, idp, ended) = (Arc::clone(&balancer), Arc::clone(&idp), Arc::clone(&ended));
        logins.push(tokio::spawn(async move {
            let end = log_in(&balancer, &idp, number).await;
            locked(&ended).push(end);
        }));
    }
    for login in logins {
        login.await.expect("no panic");
    }
}

/// Logs one user in as a web tier does: it repeats the calls whose refusals allow it, and no
/// others.
async fn log_in(balancer: &Balancer, idp: &FakeIdp, number: u64) -> Ended {
    let mut ended = Ended { state: None, outcome: Ok(()), repeated: 0, was_in_flight: false };
    let begun = loop_until_done(&mut ended, || {
        let (mut client, mut request) = (balancer.next(), Request::new(begin_request()));
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
            (balancer.next(), Request::new(complete_request(&callback)));
        request.set_timeout(CALL_TIMEOUT);
        async move { client.complete_login(request).await }
    });
    ended.outcome = completed.await.map(|completed| assert!(completed.identity.is_some()));
    ended
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
}

impl Row {
    fn refusals(&self) -> usize {
        self.refused.values().sum()
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
        let Row { begun, finished, dropped, in_flight, repeated, lost, .. } = row;
        let (refused, not_begun) = (reasons(&row.refused), reasons(&row.not_begun));
        let line = format!(
            "| {fault} | {begun} | {finished} | {refused} | {dropped} | {in_flight} | {not_begun} | {repeated} | **{lost}** |"
        );
        println!("{line}");
        assert_eq!(*lost, 0, "{fault}: {row:?}");
        assert_eq!(
            *begun,
            finished + row.refusals(),
            "{fault}: every login is accounted for: {row:?}"
        );
        assert!(*begun > 100, "{fault}: users log in: {row:?}");
    }
}

const HEAD: &str = "| fault | begun | finished | refused | of these dropped by the store | of these in flight | not begun | calls repeated | lost |\n\
                    |---|---|---|---|---|---|---|---|---|\n";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes two minutes and needs an idle machine: tests/run runs it after the other tests"]
async fn no_login_is_lost() {
    let table = Table::begin();

    let mut rig = Rig::start(false).await;
    let row = rig.under_load(async |_| sleep(Duration::from_secs(2)).await).await;
    assert_eq!((row.refusals(), row.not_begun.len(), row.repeated), (0, 0, 0), "{row:?}");
    table.add("none", &row);

    let row = rig
        .under_load(async |rig| {
            for number in 0..2 {
                rig.replicas[number].terminate().await;
                let Rig { folder, settings, replicas, .. } = rig;
                replicas[number].run(folder.path(), settings).await;
                let replica = &rig.replicas[number];
                eventually("the replica serves again", || replica.is_serving()).await;
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
        .under_load(async |rig| {
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
        .under_load(async |rig| {
            let replica = rig.replicas[0].process.as_ref().expect("it runs");
            replica.signal("STOP");
            sleep(Duration::from_secs(3)).await;
            replica.signal("CONT");
        })
        .await;
    assert_eq!(row.refusals(), row.in_flight, "only calls in flight at this replica: {row:?}");
    table.add("one of two replicas hangs for 3 s", &row);

    let row = rig
        .under_load(async |rig| {
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
        .under_load(async |rig| {
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
        .under_load(async |rig| {
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
        .under_load(async |rig| {
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
        .under_load(async |rig| {
            rig.idp.behave().token_delay = Duration::from_secs(2);
            sleep(Duration::from_secs(3)).await;
            rig.idp.behave().token_delay = Duration::ZERO;
        })
        .await;
    assert_eq!(row.refusals(), 0, "a slow IdP refuses no login: {row:?}");
    table.add("the IdP takes 2 s for each token", &row);

    let row = rig
        .under_load(async |rig| {
            rig.idp.behave().token_answer =
                Some((200, "<html>Down for maintenance</html>".to_owned()));
            sleep(Duration::from_secs(2)).await;
            rig.idp.behave().token_answer = None;
        })
        .await;
    assert_eq!(row.refused.keys().collect::<Vec<_>>(), ["TOKEN_RESPONSE_INVALID"], "{row:?}");
    table.add("the IdP's token endpoint answers with garbage for 2 s", &row);

    let row = rig
        .under_load(async |rig| {
            rig.front.is_cut.send_replace(true);
            sleep(Duration::from_secs(2)).await;
            rig.front.is_cut.send_replace(false);
        })
        .await;
    assert!(row.refused.keys().all(|reason| reason == "PROVIDER_UNAVAILABLE"), "{row:?}");
    assert!(row.refusals() + row.repeated > 0, "logins met the fault: {row:?}");
    table.add("connections to the IdP are reset for 2 s", &row);
    drop(rig);

    let mut rig = Rig::start(true).await;
    let row = rig
        .under_load(async |rig| {
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

const USER_EVERY: Duration = Duration::from_millis(25);
/// Before and after each fault.
const CALM: Duration = Duration::from_millis(1500);
/// How long a web tier repeats a call while the user waits.
const PATIENCE: Duration = Duration::from_secs(20);
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
