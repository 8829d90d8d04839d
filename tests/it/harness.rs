//! A service in the test's process, with clients for it and a fake IdP. Background tasks run at
//! short intervals, so that no test waits for a real one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use peerpanda_sso::app::{App, Environment};
use peerpanda_sso::clock::{Clock, ManualClock};
use peerpanda_sso::config::{Config, Database, Intervals};
use peerpanda_sso::entropy::{Entropy, SystemEntropy};
use peerpanda_sso::model::address::AddressPolicy;
use peerpanda_sso::pb;
use peerpanda_sso::pb::connection_service_client::ConnectionServiceClient;
use peerpanda_sso::pb::login_service_client::LoginServiceClient;
use peerpanda_sso::store::redis::url::RedisUrl;
use peerpanda_sso::store::seal::{Keyring, MasterKey};
use sqlx::Connection as _;
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::fake_idp::{Callback, FakeIdp, random};
pub(crate) use crate::servers::{
    Postgres, Process, as_user_postgres, eventually, free_port, logged_port, own_redis,
    redis_server,
};

pub(crate) const PUBLIC: &str = "https://getpeerpanda.example";
pub(crate) const BINDING: &str = "CANARYbinding-0123456789";

/// A service in this process, clients for it, and a fake IdP.
pub(crate) struct Service {
    app: App,
    pub(crate) login: LoginServiceClient<Channel>,
    pub(crate) admin: ConnectionServiceClient<Channel>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) idp: FakeIdp,
    _data: Option<TempDir>,
}

/// An encryption key for all replicas of one test.
pub(crate) fn key() -> MasterKey {
    MasterKey::generate(&SystemEntropy)
}

pub(crate) fn config(database: Database, redis_url: Option<String>, key: &MasterKey) -> Config {
    Config {
        redis_url: redis_url.map(|url| RedisUrl::parse(&url).expect("a Redis URL")),
        allowed_return_origins: vec!["https://reports.example.com".to_owned()],
        memory_pending_logins: 1000,
        known_connections: 100,
        provider_addresses: AddressPolicy { allow_insecure: true, ..AddressPolicy::default() },
        intervals: Intervals {
            store_probe: Duration::from_millis(100),
            reload: Duration::from_millis(50),
            identity_keys_read: Duration::from_secs(30),
            maintenance: Duration::from_millis(500),
            attempts_write: Duration::from_millis(20),
            restart_pause: Duration::from_millis(10),
        },
        ..Config::local(
            PUBLIC.to_owned(),
            database,
            Keyring::new(vec![key.clone()]).expect("a key"),
        )
    }
}

impl Service {
    /// Uses SQLite and memory; the account `acme` is set up at the fake IdP.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(adjust: impl FnOnce(&mut Config)) -> Self {
        let data = tempfile::tempdir().expect("a directory");
        let mut config = config(Database::Sqlite(data.path().join("sso.db")), None, &key());
        adjust(&mut config);
        let mut service = Self::over(config, Arc::new(ManualClock::starting_now())).await;
        service._data = Some(data);
        let connection = service.connection();
        service.create(connection).await.expect("created");
        service
    }

    /// Uses the stores of `config`; no account is set up.
    pub(crate) async fn over(config: Config, clock: Arc<ManualClock>) -> Self {
        Self::over_with(config, clock, Arc::new(SystemEntropy)).await
    }

    /// [`Service::over`] with a source of randomness.
    pub(crate) async fn over_with(
        config: Config,
        clock: Arc<ManualClock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        let environment = Environment { clock: Arc::clone(&clock) as Arc<dyn Clock>, entropy };
        let app = App::start(config, environment).await.expect("the service starts");
        let login = LoginServiceClient::connect(format!("http://{}", app.login_addr()))
            .await
            .expect("connected");
        let admin = ConnectionServiceClient::connect(format!("http://{}", app.admin_addr()))
            .await
            .expect("connected");
        let idp = FakeIdp::start(Arc::clone(&clock) as Arc<dyn Clock>).await;
        Self { app, login, admin, clock, idp, _data: None }
    }

    pub(crate) fn login_url(&self) -> String {
        format!("http://{}", self.app.login_addr())
    }

    pub(crate) fn admin_url(&self) -> String {
        format!("http://{}", self.app.admin_addr())
    }

    pub(crate) fn metrics_port(&self) -> u16 {
        self.app.metrics_addr().expect("SSO_METRICS_LISTEN is set").port()
    }

    /// The connection of `acme` to the fake IdP, by discovery.
    pub(crate) fn connection(&self) -> pb::Connection {
        pb::Connection { state: pb::ConnectionState::Active.into(), ..self.idp.connection("acme") }
    }

    /// Sets an account up. An ACTIVE one is activated by force: no check or test login is needed.
    pub(crate) async fn create(
        &mut self,
        mut connection: pb::Connection,
    ) -> Result<pb::Connection, Status> {
        let is_active = connection.state() == pb::ConnectionState::Active;
        if is_active {
            connection.state = pb::ConnectionState::Testing.into();
        }
        let request =
            pb::CreateConnectionRequest { connection: Some(connection), validate_only: false };
        let created = self
            .admin
            .create_connection(request)
            .await?
            .into_inner()
            .connection
            .expect("a connection");
        if is_active {
            self.activate(&created.slug, created.revision, true).await
        } else {
            Ok(created)
        }
    }

    pub(crate) async fn activate(
        &mut self,
        slug: &str,
        revision: u64,
        force: bool,
    ) -> Result<pb::Connection, Status> {
        let request = pb::ActivateConnectionRequest {
            slug: slug.to_owned(),
            revision,
            force,
            ..Default::default()
        };
        Ok(self
            .admin
            .activate_connection(request)
            .await?
            .into_inner()
            .connection
            .expect("a connection"))
    }

    pub(crate) async fn get(&mut self, slug: &str) -> Result<pb::Connection, Status> {
        let request = pb::GetConnectionRequest { slug: slug.to_owned() };
        Ok(self.admin.get_connection(request).await?.into_inner().connection.expect("a connection"))
    }

    /// Changes some fields of `acme` by force: no check is needed.
    pub(crate) async fn edit(
        &mut self,
        paths: &[&str],
        change: impl FnOnce(&mut pb::Connection),
    ) -> Result<pb::Connection, Status> {
        let mut connection = self.get("acme").await?;
        change(&mut connection);
        let update_mask = Some(prost_types::FieldMask {
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        });
        let request = pb::UpdateConnectionRequest {
            connection: Some(connection),
            update_mask,
            force: true,
            validate_only: false,
        };
        Ok(self
            .admin
            .update_connection(request)
            .await?
            .into_inner()
            .connection
            .expect("a connection"))
    }

    pub(crate) async fn begin(
        &mut self,
        request: pb::BeginLoginRequest,
    ) -> Result<pb::BeginLoginResponse, Status> {
        self.login.begin_login(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn complete(
        &mut self,
        request: pb::CompleteLoginRequest,
    ) -> Result<pb::CompleteLoginResponse, Status> {
        self.login.complete_login(request).await.map(tonic::Response::into_inner)
    }

    /// Begins a login at `acme` and lets `alice` approve it.
    pub(crate) async fn approved(&mut self) -> Callback {
        let begun = self.begin(begin_request()).await.expect("begun");
        self.idp.approve(&begun.redirect_url, "alice")
    }

    /// Sets up the account `other` at an IdP of its own.
    pub(crate) async fn with_another_account(&mut self) -> FakeIdp {
        let other = FakeIdp::start(Arc::clone(&self.clock) as Arc<dyn Clock>).await;
        self.create(other.connection("other")).await.expect("created");
        other
    }

    /// Logs `bob` in at `other`.
    pub(crate) async fn log_in_at_other(
        &mut self,
        idp: &FakeIdp,
    ) -> Result<pb::CompleteLoginResponse, Status> {
        let begun = self
            .begin(pb::BeginLoginRequest { slug: "other".to_owned(), ..begin_request() })
            .await?;
        let callback = idp.approve(&begun.redirect_url, "bob");
        self.complete(pb::CompleteLoginRequest {
            slug: "other".to_owned(),
            ..complete_request(&callback)
        })
        .await
    }

    /// Logs `alice` in at `acme`.
    pub(crate) async fn log_in(&mut self) -> Result<pb::CompleteLoginResponse, Status> {
        let callback = self.approved().await;
        self.complete(complete_request(&callback)).await
    }
}

pub(crate) fn begin_request() -> pb::BeginLoginRequest {
    pb::BeginLoginRequest {
        slug: "acme".to_owned(),
        browser_binding: Some(BINDING.to_owned()),
        ..pb::BeginLoginRequest::default()
    }
}

pub(crate) fn complete_request(callback: &Callback) -> pb::CompleteLoginRequest {
    pb::CompleteLoginRequest {
        slug: "acme".to_owned(),
        code: callback.code.clone(),
        state: callback.state.clone(),
        iss: Some(callback.iss.clone()),
        browser_binding: Some(BINDING.to_owned()),
        ..pb::CompleteLoginRequest::default()
    }
}

/// The content of a refusal.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) code: Code,
    pub(crate) reason: String,
    pub(crate) retry: String,
    pub(crate) owner: String,
    pub(crate) metadata: std::collections::HashMap<String, String>,
    pub(crate) fields: Vec<String>,
    pub(crate) message: String,
}

pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T, Status>) -> Refused {
    let status = result.expect_err("a refusal");
    let info = status
        .get_details_error_info()
        .unwrap_or_else(|| panic!("a refusal without ErrorInfo: {status:?}"));
    assert_eq!(info.domain, "sso.peerpanda.com");
    let violations = status
        .get_details_bad_request()
        .map(|details| details.field_violations)
        .unwrap_or_default();
    let metadata = info.metadata;
    Refused {
        code: status.code(),
        reason: info.reason,
        retry: metadata.get("retry").cloned().unwrap_or_default(),
        owner: metadata.get("owner").cloned().unwrap_or_default(),
        metadata,
        fields: violations.into_iter().map(|violation| violation.field).collect(),
        message: status.message().to_owned(),
    }
}

/// The reason of a refusal.
pub(crate) fn reason<T: std::fmt::Debug>(result: Result<T, Status>) -> String {
    refused(result).reason
}

/// A variable that `tests/run` sets: where a server is.
pub(crate) fn from_environment(variable: &str) -> String {
    #[expect(clippy::disallowed_methods, reason = "tests/run says where its servers are")]
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: run tests/run, which starts the servers that the tests need")
    })
}

pub(crate) fn redis_url() -> String {
    from_environment("SSO_TEST_REDIS_URL")
}

/// A fresh, empty database on the test run's PostgreSQL.
pub(crate) async fn postgres_url() -> String {
    let server = from_environment("SSO_TEST_POSTGRES_URL");
    let name = format!("t{}", random().replace(['-', '_'], "x").to_lowercase());
    let mut connection = sqlx::PgConnection::connect(&format!("{server}/postgres"))
        .await
        .expect("PostgreSQL answers");
    let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
    sqlx::query(create).execute(&mut connection).await.expect("a database");
    format!("{server}/{name}")
}

pub(crate) async fn channel(url: &str) -> Channel {
    Channel::from_shared(url.to_owned()).expect("a URL").connect().await.expect("connected")
}

/// An example program of this build.
pub(crate) fn example(name: &str) -> PathBuf {
    let test_binary = std::env::current_exe().expect("a path");
    let target = test_binary.parent().and_then(|deps| deps.parent()).expect("target/debug");
    target.join("examples").join(name)
}
