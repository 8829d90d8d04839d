//! The service as it runs in production, for the fault suite: two replicas of the program behind a
//! client-side balancer, with stores of their own and a customer's IdP, all of which can be stopped.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use peerpanda_sso::clock::{Clock, SystemClock};
use peerpanda_sso::model::time::{MonotonicMillis, UnixMillis};
use peerpanda_sso::pb;
use peerpanda_sso::pb::connection_service_client::ConnectionServiceClient;
use peerpanda_sso::pb::login_service_client::LoginServiceClient;
use peerpanda_sso::store::seal::MasterKey;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::binary::command;
use crate::fake_idp::{Callback, FakeIdp};
use crate::harness::{
    Postgres, Process, begin_request, complete_request, eventually, free_port, key, own_redis,
    reason,
};
use crate::redis_topologies::{Sentinels, sentinels};
use crate::servers::listening_ports;

/// One replica of the program, which is restarted on the same ports.
#[derive(Default)]
pub(crate) struct Replica {
    /// 0 before the first start: then the program chooses.
    pub(crate) login_port: u16,
    pub(crate) admin_port: u16,
    pub(crate) process: Option<Process>,
}

impl Replica {
    pub(crate) async fn run(&mut self, folder: &Path, settings: &[(&'static str, String)]) {
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

    pub(crate) async fn is_serving(&self) -> bool {
        let Ok(channel) = endpoint(self.login_port).connect().await else { return false };
        let request = HealthCheckRequest { service: LOGIN_SERVICE.to_owned() };
        HealthClient::new(channel)
            .check(request)
            .await
            .is_ok_and(|answer| answer.into_inner().status == 1)
    }

    /// Ends it as Kubernetes does: SIGTERM, and time to finish.
    pub(crate) async fn terminate(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.signal("TERM");
        let status = tokio::task::spawn_blocking(move || process.0.wait())
            .await
            .expect("ended")
            .expect("ended");
        assert_eq!(status.code(), Some(0));
    }
}

pub(crate) fn endpoint(port: u16) -> Endpoint {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).expect("a URL");
    endpoint
        .connect_timeout(Duration::from_secs(1))
        .http2_keep_alive_interval(Duration::from_millis(500))
        .keep_alive_timeout(Duration::from_secs(1))
        .keep_alive_while_idle(true)
}

/// As gRPC's round_robin with health checking: calls go in turn to the replicas that report
/// SERVING.
pub(crate) struct Balancer {
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

    pub(crate) fn next(&self) -> LoginServiceClient<Channel> {
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
pub(crate) struct Front {
    pub(crate) is_cut: watch::Sender<bool>,
}

impl Front {
    /// Starts it and an IdP behind it.
    async fn before_an_idp(clock: Arc<dyn Clock>) -> (Self, FakeIdp) {
        let front = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let behind = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let issuer = format!("http://localhost:{}", front.local_addr().expect("an address").port());
        let target = behind.local_addr().expect("an address");
        let idp = FakeIdp::serve(behind, issuer, clock, "client", "CANARYsecret");
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

/// The wall clock of the machine, which can be set back for the IdPs and, by libfaketime, for the replicas.
pub(crate) struct WallClock {
    /// libfaketime reads it; see its README.
    file: PathBuf,
    back_millis: AtomicU64,
}

impl WallClock {
    fn in_folder(folder: &Path) -> Self {
        let clock = Self { file: folder.join("faketime"), back_millis: AtomicU64::new(0) };
        std::fs::write(&clock.file, "+0").expect("written");
        clock
    }

    pub(crate) fn set_back(&self, by: Duration) {
        let next = self.file.with_extension("next");
        std::fs::write(&next, format!("-{}", by.as_secs())).expect("written");
        std::fs::rename(next, &self.file).expect("replaced");
        let millis = u64::try_from(by.as_millis()).expect("short");
        self.back_millis.store(millis, Ordering::Relaxed);
    }

    /// What makes a program follow it. The monotonic clock stays the machine's.
    pub(crate) fn settings(&self) -> Vec<(&'static str, String)> {
        let libraries = std::fs::read_dir("/usr/lib").expect("a directory").filter_map(Result::ok);
        let mut libraries = libraries.map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"));
        let library = libraries.find(|path| path.exists()).expect("tests/run installs libfaketime");
        vec![
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
        ]
    }
}

impl Clock for WallClock {
    fn unix_millis(&self) -> UnixMillis {
        UnixMillis(SystemClock.unix_millis().0 - self.back_millis.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> MonotonicMillis {
        SystemClock.monotonic()
    }
}

/// The service as it runs in production, and the IdPs of two customers.
pub(crate) struct Rig {
    pub(crate) folder: TempDir,
    key: MasterKey,
    pub(crate) settings: Vec<(&'static str, String)>,
    pub(crate) redis_port: u16,
    pub(crate) redis: Option<Process>,
    pub(crate) sentinels: Option<Sentinels>,
    pub(crate) postgres: Postgres,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) balancer: Arc<Balancer>,
    /// Of the account `acme`, behind `front`.
    pub(crate) idp: Arc<FakeIdp>,
    pub(crate) front: Front,
    /// Of the account `other`.
    pub(crate) other_idp: Arc<FakeIdp>,
    pub(crate) clock: Arc<WallClock>,
}

impl Rig {
    pub(crate) async fn start(has_sentinels: bool) -> Self {
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
        let clock = Arc::new(WallClock::in_folder(folder.path()));
        let idp_clock = Arc::clone(&clock) as Arc<dyn Clock>;
        let (front, idp) = Front::before_an_idp(Arc::clone(&idp_clock)).await;
        let other_idp = FakeIdp::start(idp_clock).await;
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
            other_idp: Arc::new(other_idp),
            clock,
        };
        for (slug, idp) in [("acme", &rig.idp), ("other", &rig.other_idp)] {
            rig.create(0, idp.connection(slug)).await.expect("created");
        }
        rig.warm_up().await;
        rig
    }

    /// Makes both replicas cache the accounts and their IdPs, and checks that [`Rig::is_in_store`]
    /// works.
    async fn warm_up(&self) {
        for (channel, _) in &self.balancer.backends {
            for (slug, idp) in [("acme", &self.idp), ("other", &self.other_idp)] {
                let mut client = LoginServiceClient::new(channel.clone());
                let begun = client.begin_login(begin_at(slug)).await.expect("begun").into_inner();
                assert!(
                    self.is_in_store(&begun.state).await,
                    "a state that is pending is seen in the store"
                );
                let callback = idp.approve(&begun.redirect_url, "alice");
                client.complete_login(complete_at(slug, &callback)).await.expect("a login");
                assert!(!self.is_in_store(&begun.state).await, "a spent one isn't");
            }
        }
        // Both replicas apply the pinned issuers at their next poll. The program's interval of 2 s
        // is not a setting, and nothing outside of the program shows a poll.
        sleep(Duration::from_millis(2500)).await;
    }

    /// Ends a replica as an upgrade does, and runs it again.
    pub(crate) async fn restart(&mut self, number: usize) {
        let replica = &mut self.replicas[number];
        replica.terminate().await;
        replica.run(self.folder.path(), &self.settings).await;
        let replica = &self.replicas[number];
        eventually("the replica serves again", || replica.is_serving()).await;
    }

    /// A client of one replica for support.
    pub(crate) async fn admin(&self, replica: usize) -> ConnectionServiceClient<Channel> {
        let endpoint = endpoint(self.replicas[replica].admin_port);
        ConnectionServiceClient::new(endpoint.connect().await.expect("connected"))
    }

    pub(crate) async fn create(
        &self,
        replica: usize,
        connection: pb::Connection,
    ) -> Result<(), Status> {
        let connection = Some(connection);
        let request = pb::CreateConnectionRequest { connection, validate_only: false };
        self.admin(replica).await.create_connection(request).await.map(|_| ())
    }

    /// Gives `acme` another display name.
    pub(crate) async fn rename(&self, replica: usize, name: &str) -> Result<(), Status> {
        let mut admin = self.admin(replica).await;
        let request = pb::GetConnectionRequest { slug: "acme".to_owned() };
        let got = admin.get_connection(request).await?.into_inner().connection;
        let connection = got.map(|got| pb::Connection { display_name: name.to_owned(), ..got });
        let update_mask = Some(prost_types::FieldMask { paths: vec!["display_name".to_owned()] });
        let request = pb::UpdateConnectionRequest {
            connection,
            update_mask,
            ..pb::UpdateConnectionRequest::default()
        };
        admin.update_connection(request).await.map(|_| ())
    }

    /// Begins a login at one replica; gives the refusal's reason.
    pub(crate) async fn begins(&self, replica: usize, slug: &str) -> Result<(), String> {
        let mut client = LoginServiceClient::new(self.balancer.backends[replica].0.clone());
        let begun = client.begin_login(begin_at(slug)).await;
        begun.map(|_| ()).map_err(|status| reason::<()>(Err(status)))
    }

    /// Whether Redis still holds the login of this state.
    pub(crate) async fn is_in_store(&self, state: &str) -> bool {
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
}

pub(crate) fn begin_at(slug: &str) -> pb::BeginLoginRequest {
    pb::BeginLoginRequest { slug: slug.to_owned(), ..begin_request() }
}

pub(crate) fn complete_at(slug: &str, callback: &Callback) -> pb::CompleteLoginRequest {
    pb::CompleteLoginRequest { slug: slug.to_owned(), ..complete_request(callback) }
}

const LOGIN_SERVICE: &str = "peerpanda.sso.v1.LoginService";
