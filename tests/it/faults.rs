//! The fault suite: users log in through two replicas of the program while stores, replicas and
//! IdPs die, hang and come back; then every login is accounted for. A login is *lost* if it was
//! refused though its state is still in the store: that must never happen.
//!
//! `tests/faults` runs it and prints the table.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use peerpanda_sso::clock::SystemClock;
use peerpanda_sso::pb;
use peerpanda_sso::pb::connection_service_client::ConnectionServiceClient;
use peerpanda_sso::pb::login_service_client::LoginServiceClient;
use peerpanda_sso::store::seal::MasterKey;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use crate::binary::command;
use crate::fake_idp::{FakeIdp, locked};
use crate::harness::{
    Postgres, Process, begin_request, complete_request, eventually, free_port, key, own_redis,
};
use crate::redis_topologies::{Sentinels, sentinels};
use crate::servers::listening_ports;

/// One replica of the program, which is restarted on the same ports.
#[derive(Default)]
struct Replica {
    /// 0 before the first start: then the program chooses.
    login_port: u16,
    admin_port: u16,
    process: Option<Process>,
}

impl Replica {
    async fn run(&mut self, folder: &Path, settings: &[(&'static str, String)]) {
        let mut command = command(folder);
        command
            .arg("serve")
            .env("SSO_LISTEN", format!("127.0.0.1:{}", self.login_port))
            .env("SSO_ADMIN_LISTEN", format!("127.0.0.1:{}", self.admin_port))
            .env("SSO_ALLOW_INSECURE_PROVIDERS", "true")
            .env("RUST_LOG", "error,peerpanda_sso::app=info")
            .envs(settings.iter().cloned())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program runs");
        (self.login_port, self.admin_port) = listening_ports(&mut child).await;
        self.process = Some(Process(child));
    }

    async fn is_serving(&self) -> bool {
        let Ok(channel) = endpoint(self.login_port).connect().await else { return false };
        let request = HealthCheckRequest { service: LOGIN_SERVICE.to_owned() };
        HealthClient::new(channel)
            .check(request)
            .await
            .is_ok_and(|answer| answer.into_inner().status == 1)
    }

    /// Ends it as Kubernetes does: SIGTERM, and time to finish.
    async fn terminate(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.signal("TERM");
        let status = tokio::task::spawn_blocking(move || process.0.wait())
            .await
            .expect("ended")
            .expect("ended");
        assert_eq!(status.code(), Some(0));
    }
}

fn endpoint(port: u16) -> Endpoint {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).expect("a URL");
    endpoint
        .connect_timeout(Duration::from_secs(1))
        .http2_keep_alive_interval(Duration::from_millis(500))
        .keep_alive_timeout(Duration::from_secs(1))
        .keep_alive_while_idle(true)
}

/// As gRPC's round_robin with health checking: calls go in turn to the replicas that report
/// SERVING.
struct Balancer {
    backends: Vec<(Channel, Arc<AtomicBool>)>,
    turn: AtomicUsize,
    watches: Vec<JoinHandle<()>>,
}

impl Balancer {
    fn over(replicas: &[Replica]) -> Self {
        let backends: Vec<_> = replicas
            .iter()
            .map(|replica| {
                (endpoint(replica.login_port).connect_lazy(), Arc::new(AtomicBool::new(false)))
            })
            .collect();
        let watches = backends
            .iter()
            .cloned()
            .map(|(channel, serves)| tokio::spawn(watch_health(channel, serves)))
            .collect();
        Self { backends, turn: AtomicUsize::new(0), watches }
    }

    fn next(&self) -> LoginServiceClient<Channel> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let count = self.backends.len();
        let in_turn = (0..count).map(|step| &self.backends[(turn + step) % count]);
        let serving = in_turn.clone().find(|(_, serves)| serves.load(Ordering::Relaxed));
        let (channel, _) = serving.unwrap_or(&self.backends[turn % count]);
        LoginServiceClient::new(channel.clone())
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.watches.iter().for_each(JoinHandle::abort);
    }
}

async fn watch_health(channel: Channel, serves: Arc<AtomicBool>) {
    loop {
        let request = HealthCheckRequest { service: LOGIN_SERVICE.to_owned() };
        if let Ok(answer) = HealthClient::new(channel.clone()).watch(request).await {
            let mut statuses = answer.into_inner();
            while let Ok(Some(status)) = statuses.message().await {
                serves.store(status.status == 1, Ordering::Relaxed);
            }
        }
        serves.store(false, Ordering::Relaxed);
        sleep(Duration::from_millis(50)).await;
    }
}

/// A proxy before the IdP, whose connections can be reset.
struct Front {
    is_cut: watch::Sender<bool>,
}

impl Front {
    /// Starts it and an IdP behind it.
    async fn before_an_idp() -> (Self, FakeIdp) {
        let front = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let behind = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let issuer = format!("http://localhost:{}", front.local_addr().expect("an address").port());
        let target = behind.local_addr().expect("an address");
        let idp = FakeIdp::serve(behind, issuer, Arc::new(SystemClock), "client", "CANARYsecret");
        let (is_cut, cut) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((outer, _)) = front.accept().await {
                tokio::spawn(forward(outer, target, cut.clone()));
            }
        });
        (Self { is_cut }, idp)
    }
}

async fn forward(
    mut outer: TcpStream,
    target: std::net::SocketAddr,
    mut cut: watch::Receiver<bool>,
) {
    let forwarded = async {
        let mut inner = TcpStream::connect(target).await?;
        tokio::io::copy_bidirectional(&mut outer, &mut inner).await
    };
    let was_cut = tokio::select! {
        _ = cut.wait_for(|cut| *cut) => true,
        _done = forwarded => false,
    };
    if was_cut {
        // With a linger of 0, closing sends a reset.
        socket2::SockRef::from(&outer).set_linger(Some(Duration::ZERO)).expect("set");
    }
}

/// The service as it runs in production, and a customer's IdP.
struct Rig {
    folder: TempDir,
    key: MasterKey,
    settings: Vec<(&'static str, String)>,
    redis_port: u16,
    redis: Option<Process>,
    sentinels: Option<Sentinels>,
    postgres: Postgres,
    replicas: Vec<Replica>,
    balancer: Arc<Balancer>,
    idp: Arc<FakeIdp>,
    front: Front,
}

impl Rig {
    async fn start(has_sentinels: bool) -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let key = key();
        let redis_port = free_port();
        let (redis, sentinels, redis_url) = if has_sentinels {
            let sentinels = sentinels(folder.path()).await;
            let url = sentinels.url.clone();
            (None, Some(sentinels), url)
        } else {
            (Some(own_redis(redis_port)), None, format!("redis://127.0.0.1:{redis_port}"))
        };
        let postgres = Postgres::start(&folder, &[]).await;
        let settings = vec![
            ("SSO_REDIS_URL", redis_url),
            ("SSO_DATABASE_URL", postgres.url.clone()),
            ("SSO_ENCRYPTION_KEYS", key.encoded().to_string()),
        ];
        let mut replicas = vec![Replica::default(), Replica::default()];
        for replica in &mut replicas {
            replica.run(folder.path(), &settings).await;
        }
        for replica in &replicas {
            eventually("the replica serves", || replica.is_serving()).await;
        }
        let (front, idp) = Front::before_an_idp().await;
        let admin = endpoint(replicas[0].admin_port).connect().await.expect("connected");
        let connection = Some(idp.connection("acme"));
        let request = pb::CreateConnectionRequest { connection, validate_only: false };
        ConnectionServiceClient::new(admin).create_connection(request).await.expect("created");
        let balancer = Arc::new(Balancer::over(&replicas));
        let rig = Self {
            redis_port: sentinels.as_ref().map_or(redis_port, |sentinels| sentinels.master_port),
            folder,
            key,
            settings,
            redis,
            sentinels,
            postgres,
            replicas,
            balancer,
            idp: Arc::new(idp),
            front,
        };
        rig.warm_up().await;
        rig
    }

    /// Makes both replicas cache the account and its IdP, and checks that [`Rig::is_in_store`]
    /// works.
    async fn warm_up(&self) {
        for (channel, _) in &self.balancer.backends {
            let mut client = LoginServiceClient::new(channel.clone());
            let begun = client.begin_login(begin_request()).await.expect("begun").into_inner();
            assert!(
                self.is_in_store(&begun.state).await,
                "a state that is pending is seen in the store"
            );
            let callback = self.idp.approve(&begun.redirect_url, "alice");
            client.complete_login(complete_request(&callback)).await.expect("a login");
            assert!(!self.is_in_store(&begun.state).await, "a spent one isn't");
        }
        // Both replicas apply the pinned issuer at their next poll. The program's interval of 2 s
        // is not a setting, and nothing outside of the program shows a poll.
        sleep(Duration::from_millis(2500)).await;
    }

    /// Whether Redis still holds the login of this state.
    async fn is_in_store(&self, state: &str) -> bool {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(state).expect("base64url");
        let id_key =
            hmac::Key::new(hmac::HMAC_SHA256, self.key.derive("pending login id").as_slice());
        let id = hmac::sign(&id_key, &bytes[..16]);
        let name = format!("sso:login:{}", BASE64_URL_SAFE_NO_PAD.encode(&id.as_ref()[..16]));
        let client =
            redis::Client::open(format!("redis://127.0.0.1:{}", self.redis_port)).expect("a URL");
        let mut connection =
            client.get_multiplexed_async_connection().await.expect("Redis answers at the end");
        redis::cmd("EXISTS").arg(name).query_async(&mut connection).await.expect("answered")
    }

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

const LOGIN_SERVICE: &str = "peerpanda.sso.v1.LoginService";
const USER_EVERY: Duration = Duration::from_millis(25);
/// Before and after each fault.
const CALM: Duration = Duration::from_millis(1500);
/// How long a web tier repeats a call while the user waits.
const PATIENCE: Duration = Duration::from_secs(20);
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
