//! The program itself: settings, keys, health, reflection, signals, and
//! stores that become unreachable.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use peerpanda_sso::clock::SystemClock;
use peerpanda_sso::config::Setting;
use peerpanda_sso::pb;
use peerpanda_sso::pb::connection_service_client::ConnectionServiceClient;
use peerpanda_sso::pb::login_service_client::LoginServiceClient;
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::fake_idp::{FakeIdp, locked};
use crate::harness::{
    Process, begin_request, channel, complete_request, eventually, free_port, key, logged_port,
    own_redis, postgres_url, reason,
};

/// The running program, its log so far, and clients of it.
pub(crate) struct Program {
    pub(crate) process: Process,
    pub(crate) log: Arc<Mutex<Vec<String>>>,
    pub(crate) login: LoginServiceClient<Channel>,
    pub(crate) admin: ConnectionServiceClient<Channel>,
    pub(crate) login_url: String,
    pub(crate) admin_url: String,
}

impl Program {
    /// Runs `peerpanda-sso serve` in `data` on free ports with these settings, until it answers.
    pub(crate) async fn serve(data: &Path, settings: &[(&str, &str)]) -> Self {
        let program = Self::start(data, settings).await;
        eventually("the program answers", || async {
            Channel::from_shared(program.login_url.clone()).expect("a URL").connect().await.is_ok()
        })
        .await;
        program
    }

    /// The same, until it listens: for a program that only answers over TLS.
    pub(crate) async fn start(data: &Path, settings: &[(&str, &str)]) -> Self {
        Self::run(command(data), settings).await
    }

    /// The same, of what runs the program with the arguments and variables that are added.
    pub(crate) async fn run(mut command: Command, settings: &[(&str, &str)]) -> Self {
        command
            .arg("serve")
            .env("SSO_LISTEN", "127.0.0.1:0")
            .env("SSO_ADMIN_LISTEN", "127.0.0.1:0")
            .env("SSO_ALLOW_INSECURE_PROVIDERS", "true")
            .envs(settings.iter().copied())
            .stderr(Stdio::piped());
        if let Some((name, filter)) = settings.iter().find(|(name, _)| *name == "RUST_LOG") {
            // The addresses are read from the log.
            command.env(name, format!("{filter},peerpanda_sso::app=info"));
        }
        let mut child = command.spawn().expect("the program runs");
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, stderr) = (Arc::clone(&log), child.stderr.take().expect("piped"));
        std::thread::spawn(move || {
            BufReader::new(stderr)
                .lines()
                .map_while(Result::ok)
                .for_each(|line| locked(&lines).push(line))
        });
        let process = Process(child);
        eventually("the program listens", || async {
            logged_port(&locked(&log), "login.address").is_some()
        })
        .await;
        let url = |name: &str| {
            format!("http://127.0.0.1:{}", logged_port(&locked(&log), name).expect("logged"))
        };
        let (login_url, admin_url) = (url("login.address"), url("admin.address"));
        let lazily =
            |url: &str| Channel::from_shared(url.to_owned()).expect("a URL").connect_lazy();
        let (login, admin) = (
            LoginServiceClient::new(lazily(&login_url)),
            ConnectionServiceClient::new(lazily(&admin_url)),
        );
        Self { process, log, login, admin, login_url, admin_url }
    }

    /// Sets `acme` up at this IdP.
    pub(crate) async fn set_up(&mut self, idp: &FakeIdp) {
        let connection = Some(idp.connection("acme"));
        self.admin
            .create_connection(pb::CreateConnectionRequest { connection, validate_only: false })
            .await
            .expect("created");
    }

    pub(crate) async fn log_in(
        &mut self,
        idp: &FakeIdp,
    ) -> Result<pb::CompleteLoginResponse, tonic::Status> {
        let begun = self.login.begin_login(begin_request()).await?.into_inner();
        let callback = idp.approve(&begun.redirect_url, "alice");
        Ok(self.login.complete_login(complete_request(&callback)).await?.into_inner())
    }

    pub(crate) async fn health(&self, service: &str) -> i32 {
        let request = HealthCheckRequest { service: service.to_owned() };
        let mut client = HealthClient::new(channel(&self.login_url).await);
        client.check(request).await.expect("a status").into_inner().status
    }
}

pub(crate) fn command(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peerpanda-sso"));
    command.current_dir(data).env_clear().stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

fn output(command: &mut Command) -> (Output, String) {
    let output = command.stderr(Stdio::piped()).output().expect("the program runs");
    let text = String::from_utf8(output.stderr.clone()).expect("UTF-8");
    (output, text)
}

#[test]
fn every_error_in_the_settings_is_reported_at_once_and_no_secret_with_it() {
    let data = tempfile::tempdir().expect("a directory");
    let (output, text) = output(command(data.path()).arg("serve").envs([
        ("SSO_LISTEN", "0.0.0.0:50051"),
        ("SSO_ADMIN_LISTEN", "localhost"),
        ("SSO_PUBLIC_URL", "http://getpeerpanda.com/app"),
        ("SSO_DATABASE_URL", "mysql://user:CANARY@host/db"),
        ("SSO_REDIS_URL", "http://user:CANARY@host"),
        ("SSO_ENCRYPTION_KEYS", "CANARY"),
        ("SSO_STATE_TTL", "15"),
        ("SSO_REQUIRE_BROWSER_BINDING", "maybe"),
        ("SSO_ALLOWED_RETURN_ORIGINS", "https://a.example/path"),
        ("SSO_PROVIDER_CA_FILE", "/nowhere/ca.pem"),
        ("SSO_LOG_FORMAT", "xml"),
        ("RUST_LOG", "=nonsense="),
    ]));
    assert_eq!(output.status.code(), Some(1));
    for name in [
        "SSO_LISTEN",
        "SSO_ADMIN_LISTEN",
        "SSO_PUBLIC_URL",
        "SSO_DATABASE_URL",
        "SSO_REDIS_URL",
        "SSO_ENCRYPTION_KEYS",
        "SSO_STATE_TTL",
        "SSO_REQUIRE_BROWSER_BINDING",
        "SSO_ALLOWED_RETURN_ORIGINS",
        "SSO_PROVIDER_CA_FILE",
        "SSO_LOG_FORMAT",
        "RUST_LOG",
        "SSO_ALLOW_INSECURE_LISTEN=true",
    ] {
        assert!(text.contains(name), "{name} in {text}");
    }
    assert!(!text.contains("CANARY"), "{text}");
}

#[test]
fn a_misspelt_variable_is_an_error_like_any_other() {
    let data = tempfile::tempdir().expect("a directory");
    let (output, text) = output(
        command(data.path())
            .arg("serve")
            .envs([("SSO_REDDIS_URL", "redis://:CANARY@host"), ("SSO_STATE_TTL", "15")]),
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text.contains("SSO_REDDIS_URL is not a setting: did you mean SSO_REDIS_URL?"),
        "{text}"
    );
    assert!(text.contains("SSO_STATE_TTL must be") && !text.contains("CANARY"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_variables_and_those_of_kubernetes_count_as_unset() {
    let data = tempfile::tempdir().expect("a directory");
    let variables = Setting::all().into_iter().map(|setting| setting.variable);
    let variables: Vec<String> = variables.filter(|name| !name.ends_with("LISTEN")).collect();
    let mut settings: Vec<_> = variables.iter().map(|name| (name.as_str(), "")).collect();
    // A Service `sso`, and variables of the client.
    settings.extend([
        ("SSO_SERVICE_HOST", "10.0.0.1"),
        ("SSO_PORT", "tcp://10.0.0.1:50051"),
        ("SSO_PORT_50051_TCP_ADDR", "10.0.0.1"),
        ("SSO_ENDPOINT", "http://127.0.0.1:1"),
        ("SSO_METRICS_LISTEN", ""),
    ]);
    Program::serve(data.path(), &settings).await;
    let client = ["SSO_ENDPOINT", "SSO_ENDPOINT_CA_FILE", "SSO_TOKEN_FILE", "SSO_CLIENT_CERT_FILE"];
    let (output, text) = output(
        command(data.path())
            .args(["connection", "list", "--timeout", "1s"])
            .envs(client.map(|name| (name, ""))),
    );
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("no answer from http://127.0.0.1:50052"), "{text}");
}

/// Secrets: flags of other processes are readable.
#[test]
fn a_secret_is_not_accepted_as_a_flag() {
    let data = tempfile::tempdir().expect("a directory");
    for (arguments, variable) in [
        (["serve", "--encryption-keys=CANARY"].as_slice(), "SSO_ENCRYPTION_KEYS_FILE"),
        (&["serve", "--redis-url", "redis://:CANARY@host"], "SSO_REDIS_URL_FILE"),
        (&["keys", "rotate", "--database-url", "postgres://u:CANARY@h/d"], "SSO_DATABASE_URL_FILE"),
    ] {
        let (output, text) = output(command(data.path()).args(arguments));
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(variable) && !text.contains("CANARY"), "{text}");
    }
}

/// Secrets: a bearer token on the wire (RFC 6750 5.3).
#[test]
fn a_token_is_sent_without_tls_to_this_machine_only() {
    let data = tempfile::tempdir().expect("a directory");
    std::fs::write(data.path().join("token"), "CANARY").expect("written");
    for (endpoint, code, expected) in [
        ("http://192.0.2.1:50052", 2, "a bearer token is not sent to http://192.0.2.1:50052"),
        ("http://sso-admin:50052", 2, "without TLS"),
        ("http://localhost@192.0.2.1:1", 2, "without TLS"),
        ("http://127.0.0.9:1", 3, "no answer"),
        ("http://localhost:1", 3, "no answer"),
        ("https://127.0.0.1:1", 3, "no answer"),
    ] {
        let (output, text) = output(
            command(data.path())
                .args(["connection", "list", "--timeout", "1s", "--token-file", "token"])
                .args(["--endpoint", endpoint]),
        );
        assert_eq!(output.status.code(), Some(code), "{endpoint}: {text}");
        assert!(text.contains(expected) && !text.contains("CANARY"), "{endpoint}: {text}");
    }
}

#[test]
fn the_limit_of_open_files_is_raised_and_a_low_one_warned_of() {
    let data = tempfile::tempdir().expect("a directory");
    // Ends since it can't open the database.
    let script = "ulimit -Sn 64; ulimit -Hn 200; exec \"$0\" serve";
    let (output, text) = output(
        Command::new("sh")
            .args(["-c", script, env!("CARGO_BIN_EXE_peerpanda-sso")])
            .current_dir(data.path())
            .env_clear()
            .env("SSO_DATABASE_URL", "sqlite://missing/sso.db")
            .env("SSO_ENCRYPTION_KEYS", key().encoded().as_str()),
    );
    assert_eq!(output.status.code(), Some(1), "{text}");
    let line = text.lines().find(|line| line.contains("limit of open files is too low"));
    let line = line.unwrap_or_else(|| panic!("{text}"));
    assert!(line.contains(" WARN ") && line.contains("limit=200 needed=12800"), "{line}");
}

/// Secrets: keys of too little entropy.
#[test]
fn keys_that_can_be_guessed_are_refused() {
    let data = tempfile::tempdir().expect("a directory");
    let weak = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let keys = format!("{},{weak}", key().encoded().as_str());
    let (output, text) = output(command(data.path()).arg("serve").env("SSO_ENCRYPTION_KEYS", keys));
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text.contains("a key that can be guessed (number 2)") && !text.contains(weak),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn insecure_settings_are_warned_of_and_insecure_idps_refused_beyond_loopback() {
    let data = tempfile::tempdir().expect("a directory");
    let open = [("SSO_LISTEN", "0.0.0.0:0"), ("SSO_ALLOW_INSECURE_LISTEN", "true")];
    let (output, text) = output(
        command(data.path()).arg("serve").envs(open).env("SSO_ALLOW_INSECURE_PROVIDERS", "true"),
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("SSO_ALLOW_INSECURE_PROVIDERS must not be true"), "{text}");
    let settings = [open[0], open[1], ("SSO_ALLOW_INSECURE_PROVIDERS", "false")];
    let program = Program::serve(data.path(), &settings).await;
    let log = locked(&program.log).join("\n");
    for expected in ["no TLS", "without SSO_CALLERS_FILE", "SSO_PUBLIC_URL is at localhost"] {
        let line = log.lines().find(|line| line.contains(expected)).expect("warned");
        assert!(line.contains(" WARN ") && line.contains("insecure setting: "), "{line}");
    }
}

#[test]
fn keys_and_tokens_are_made() {
    let data = tempfile::tempdir().expect("a directory");
    let made = |arguments: [&str; 2]| {
        let output = command(data.path()).args(arguments).output().expect("the program runs");
        assert!(output.status.success());
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let (first, second) = (made(["keys", "generate"]), made(["keys", "generate"]));
    assert!(first != second && peerpanda_sso::store::seal::MasterKey::parse(&first).is_some());
    let token = made(["tokens", "generate"]);
    assert!(token.contains("token_sha256: ") && token.lines().count() == 2, "one line each");
}

/// Runs `keys rotate`: whether it succeeded, and what it said.
async fn rotate(data: &Path, postgres: &str, keys: &str) -> (bool, String) {
    let mut program = command(data);
    program
        .args(["keys", "rotate"])
        .env("SSO_DATABASE_URL", postgres)
        .env("SSO_ENCRYPTION_KEYS", keys);
    let (output, errors) =
        tokio::task::spawn_blocking(move || output(&mut program)).await.expect("ended");
    (output.status.success(), String::from_utf8(output.stdout).expect("UTF-8") + &errors)
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_rotated_while_people_log_in() {
    let data = tempfile::tempdir().expect("a directory");
    let (postgres, idp) = (postgres_url().await, FakeIdp::start(Arc::new(SystemClock)).await);
    let (old, new) = (key().encoded().to_string(), key().encoded().to_string());
    let both = format!("{new},{old}");
    let settings = |keys| {
        [
            ("SSO_DATABASE_URL", postgres.as_str()),
            ("SSO_ENCRYPTION_KEYS", keys),
            ("SSO_IDENTITY_AUDIENCE", "a"),
        ]
    };
    let mut program = Program::serve(data.path(), &settings(&old)).await;
    program.set_up(&idp).await;
    program.log_in(&idp).await.expect("a login");
    drop(program);

    let mut program = Program::serve(data.path(), &settings(&both)).await;
    program.log_in(&idp).await.expect("a login by the old key");
    let (is_done, text) = rotate(data.path(), &postgres, &both).await;
    assert!(
        is_done && text.contains("sealed 2 of 2 values again"),
        "the secret and a signing key: {text}"
    );
    program.log_in(&idp).await.expect("a login while it serves");
    let (is_done, text) = rotate(data.path(), &postgres, &both).await;
    assert!(is_done && text.contains("sealed 0 of 2 values"), "{text}");
    drop(program);

    let mut program = Program::serve(data.path(), &settings(&new)).await;
    let completed = program.log_in(&idp).await.expect("a login without the old key");
    assert!(!completed.identity_token.is_empty());
    let (is_done, text) = rotate(data.path(), &postgres, &old).await;
    assert!(!is_done && text.contains("a client secret of acme") && !text.contains(&old), "{text}");
    let (is_done, text) = rotate(data.path(), "sqlite://nowhere.db", &old).await;
    assert!(!is_done && text.contains("nowhere.db, which does not exist"), "{text}");
}

#[test]
fn help_names_every_setting_and_shows_no_secret() {
    let data = tempfile::tempdir().expect("a directory");
    let secrets = [
        ("SSO_REDIS_URL", "CANARY"),
        ("SSO_ENCRYPTION_KEYS", "CANARY"),
        ("SSO_DATABASE_URL", "CANARY"),
    ];
    let output = command(data.path())
        .args(["serve", "--help"])
        .envs(secrets)
        .output()
        .expect("the program runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    for name in [
        "SSO_LISTEN",
        "SSO_ADMIN_LISTEN",
        "SSO_ENCRYPTION_KEYS_FILE",
        "SSO_ALLOW_INSECURE_PROVIDERS",
        "SSO_DRAIN_TIMEOUT",
        "RUST_LOG",
    ] {
        assert!(text.contains(name), "{name}");
    }
    assert!(!text.contains("CANARY"), "{text}");
}

#[test]
fn a_shared_store_needs_a_key() {
    let data = tempfile::tempdir().expect("a directory");
    for setting in [
        ("SSO_REDIS_URL", "redis://127.0.0.1:1"),
        ("SSO_DATABASE_URL", "postgres://u:p@127.0.0.1:1/d"),
    ] {
        let (output, text) = output(command(data.path()).arg("serve").envs([setting]));
        assert_eq!(output.status.code(), Some(1));
        assert!(text.contains("SSO_ENCRYPTION_KEYS must be set"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_no_settings_a_key_file_is_made_for_its_owner_alone() {
    let data = tempfile::tempdir().expect("a directory");
    let idp = FakeIdp::start(Arc::new(SystemClock)).await;
    let mut program = Program::serve(data.path(), &[]).await;
    program.set_up(&idp).await;
    let completed = program.log_in(&idp).await.expect("a login");
    assert_eq!(completed.connection_state, pb::ConnectionState::Testing as i32);
    let file = |suffix: &str| data.path().join(format!("peerpanda-sso.db{suffix}"));
    let mode =
        |suffix: &str| std::fs::metadata(file(suffix)).expect("made").permissions().mode() & 0o777;
    assert_eq!(["", "-wal", "-shm", ".key"].map(mode), [0o600; 4]);
    drop(program);
    let key_file = file(".key");
    std::fs::set_permissions(file(""), std::fs::Permissions::from_mode(0o644)).expect("changed");
    let mut again = Program::serve(data.path(), &[]).await;
    assert_eq!(mode(""), 0o600, "an older file is closed to others");
    again.log_in(&idp).await.expect("the same key opens the secret again");
    drop(again);
    std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(0o644)).expect("changed");
    let (output, text) = output(command(data.path()).arg("serve"));
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("chmod 600"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_come_from_files_too() {
    let data = tempfile::tempdir().expect("a directory");
    let file = data.path().join("keys");
    std::fs::write(&file, format!("{}\n{}\n", key().encoded().as_str(), key().encoded().as_str()))
        .expect("written");
    let idp = FakeIdp::start(Arc::new(SystemClock)).await;
    let mut program =
        Program::serve(data.path(), &[("SSO_ENCRYPTION_KEYS_FILE", file.to_str().expect("UTF-8"))])
            .await;
    program.set_up(&idp).await;
    program.log_in(&idp).await.expect("a login");
    assert!(!data.path().join("peerpanda-sso.db.key").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_says_not_serving_lets_calls_finish_and_exits_with_success() {
    let data = tempfile::tempdir().expect("a directory");
    let idp = FakeIdp::start(Arc::new(SystemClock)).await;
    let mut program = Program::serve(data.path(), &[]).await;
    program.set_up(&idp).await;
    program.log_in(&idp).await.expect("a login");
    let mut watcher = HealthClient::new(channel(&program.login_url).await);
    let service = "peerpanda.sso.v1.LoginService".to_owned();
    let mut watch =
        watcher.watch(HealthCheckRequest { service }).await.expect("watched").into_inner();
    assert_eq!(watch.next().await.expect("a status").expect("a status").status, 1);

    let begun = program.login.begin_login(begin_request()).await.expect("begun").into_inner();
    let callback = idp.approve(&begun.redirect_url, "alice");
    idp.behave().token_delay = Duration::from_secs(2);
    let mut login = program.login.clone();
    let in_flight =
        tokio::spawn(async move { login.complete_login(complete_request(&callback)).await });
    eventually("the call is in flight", || async { idp.count("/token") == 2 }).await;
    program.process.signal("TERM");
    assert_eq!(watch.next().await.expect("a status").expect("a status").status, 2);
    in_flight.await.expect("ended").expect("the call in flight finishes");
    let status = tokio::task::spawn_blocking(move || program.process.0.wait())
        .await
        .expect("ended")
        .expect("ended");
    assert_eq!(status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_process_at_once() {
    for (second, code) in [("TERM", 128 + 15), ("INT", 128 + 2)] {
        let data = tempfile::tempdir().expect("a directory");
        let idp = FakeIdp::start(Arc::new(SystemClock)).await;
        let mut program = Program::serve(data.path(), &[]).await;
        program.set_up(&idp).await;
        let begun = program.login.begin_login(begin_request()).await.expect("begun").into_inner();
        let callback = idp.approve(&begun.redirect_url, "alice");
        idp.behave().token_delay = Duration::from_secs(30);
        let mut login = program.login.clone();
        let in_flight =
            tokio::spawn(async move { login.complete_login(complete_request(&callback)).await });
        eventually("the call is in flight", || async { idp.count("/token") == 1 }).await;
        program.process.signal("TERM");
        eventually("the program takes no more calls", || async {
            Channel::from_shared(program.login_url.clone()).expect("a URL").connect().await.is_err()
        })
        .await;
        assert!(program.process.0.try_wait().expect("a status").is_none(), "it waits for the call");
        program.process.signal(second);
        let ended = Instant::now();
        let status = tokio::task::spawn_blocking(move || program.process.0.wait());
        let status = status.await.expect("ended").expect("ended");
        assert_eq!(status.code(), Some(code));
        assert!(ended.elapsed() < Duration::from_secs(5), "{:?}", ended.elapsed());
        in_flight.await.expect("ended").expect_err("the call is cut off");
    }
}

#[test]
fn a_reader_that_closes_the_pipe_is_not_an_error() {
    let data = tempfile::tempdir().expect("a directory");
    for arguments in [&["completions", "bash"][..], &["settings"], &["keys", "generate"]] {
        let mut child = command(data.path())
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("ended");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && errors.is_empty(), "{arguments:?}: {errors}");
    }
}

#[test]
fn health_offers_no_option_that_it_ignores() {
    let data = tempfile::tempdir().expect("a directory");
    let help = command(data.path()).args(["health", "--help"]).output().expect("the program runs");
    let help = String::from_utf8(help.stdout).expect("UTF-8");
    assert!(help.contains("--endpoint") && help.contains("--cert-file"), "{help}");
    assert!(!help.contains("--operator") && !help.contains("--token-file"), "{help}");
    let (refused, text) = output(command(data.path()).args(["health", "--operator", "ada"]));
    assert!(refused.status.code() == Some(2) && text.contains("--operator"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_lists_each_listeners_services() {
    let data = tempfile::tempdir().expect("a directory");
    let program = Program::serve(data.path(), &[]).await;
    for (url, own, foreign) in [
        (&program.login_url, "peerpanda.sso.v1.LoginService", "peerpanda.sso.v1.ConnectionService"),
        (&program.admin_url, "peerpanda.sso.v1.ConnectionService", "peerpanda.sso.v1.LoginService"),
    ] {
        for services in [listed_v1(url).await, listed_v1alpha(url).await] {
            assert!(services.iter().any(|service| service == own), "{services:?}");
            assert!(
                services.iter().any(|service| service == "grpc.health.v1.Health"),
                "{services:?}"
            );
            assert!(!services.iter().any(|service| service == foreign), "{services:?}");
        }
    }
}

macro_rules! listed {
    ($name:ident, $version:ident) => {
        async fn $name(url: &str) -> Vec<String> {
            use tonic_reflection::pb::$version::ServerReflectionRequest;
            use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
            use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
            use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;
            let mut client = ServerReflectionClient::new(channel(url).await);
            let request = ServerReflectionRequest {
                host: String::new(),
                message_request: Some(MessageRequest::ListServices(String::new())),
            };
            let mut answers = client
                .server_reflection_info(tokio_stream::once(request))
                .await
                .expect("answered")
                .into_inner();
            match answers.next().await.expect("an answer").expect("an answer").message_response {
                Some(MessageResponse::ListServicesResponse(list)) => {
                    list.service.into_iter().map(|service| service.name).collect()
                }
                other => panic!("{other:?}"),
            }
        }
    };
}
listed!(listed_v1, v1);
listed!(listed_v1alpha, v1alpha);

#[tokio::test(flavor = "multi_thread")]
async fn with_redis_away_logins_are_refused_at_once_and_health_says_so() {
    let data = tempfile::tempdir().expect("a directory");
    let (port, key) = (free_port(), key());
    let redis_url = format!("redis://127.0.0.1:{port}");
    let redis = own_redis(port);
    let idp = FakeIdp::start(Arc::new(SystemClock)).await;
    let encoded_key = key.encoded();
    let settings =
        [("SSO_REDIS_URL", redis_url.as_str()), ("SSO_ENCRYPTION_KEYS", encoded_key.as_str())];
    let mut program = Program::serve(data.path(), &settings).await;
    program.set_up(&idp).await;
    eventually("serving", || async { program.health("peerpanda.sso.v1.LoginService").await == 1 })
        .await;
    program.log_in(&idp).await.expect("a login");
    let begun = program.login.begin_login(begin_request()).await.expect("begun").into_inner();
    let callback = idp.approve(&begun.redirect_url, "alice");
    redis.signal("STOP");
    assert_eq!(reason(program.login.begin_login(begin_request()).await), "STORE_UNAVAILABLE");
    assert_eq!(
        reason(program.login.complete_login(complete_request(&callback)).await),
        "STORE_UNAVAILABLE"
    );
    eventually("not serving", || async {
        program.health("peerpanda.sso.v1.LoginService").await == 2
    })
    .await;
    assert_eq!(program.health("").await, 1, "the process itself is up");
    redis.signal("CONT");
    eventually("serving again", || async {
        program.health("peerpanda.sso.v1.LoginService").await == 1
    })
    .await;
    program.log_in(&idp).await.expect("a login");
}

/// Makes the database refuse connections and ends those that are open, or accept them again.
async fn allow_connections(postgres: &str, allowed: bool) {
    use sqlx::Connection as _;
    let (server, name) = postgres.rsplit_once('/').expect("a URL");
    let mut other =
        sqlx::PgConnection::connect(&format!("{server}/postgres")).await.expect("connected");
    for statement in [
        format!("ALTER DATABASE {name} WITH ALLOW_CONNECTIONS {allowed}"),
        format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"),
    ] {
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut other).await.expect("done");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_start_waits_for_sql_and_redis_and_says_so() {
    let data = tempfile::tempdir().expect("a directory");
    let (postgres, key, port) = (postgres_url().await, key(), free_port());
    let idp = FakeIdp::start(Arc::new(SystemClock)).await;
    allow_connections(&postgres, false).await;
    let (encoded_key, redis_url) = (key.encoded(), format!("redis://127.0.0.1:{port}"));
    let settings = [
        ("SSO_DATABASE_URL", postgres.as_str()),
        ("SSO_ENCRYPTION_KEYS", encoded_key.as_str()),
        ("SSO_REDIS_URL", redis_url.as_str()),
    ];
    let mut program = Program::serve(data.path(), &settings).await;
    assert_eq!(program.health("").await, 1, "the process is up");
    assert_eq!(program.health("peerpanda.sso.v1.LoginService").await, 2);
    assert_eq!(program.health("peerpanda.sso.v1.ConnectionService").await, 2);
    assert_eq!(reason(program.login.begin_login(begin_request()).await), "STORE_UNAVAILABLE");
    allow_connections(&postgres, true).await;
    eventually("support can work", || async {
        program.health("peerpanda.sso.v1.ConnectionService").await == 1
    })
    .await;
    assert_eq!(program.health("peerpanda.sso.v1.LoginService").await, 2, "Redis is still away");
    let _redis = own_redis(port);
    eventually("people can log in", || async {
        program.health("peerpanda.sso.v1.LoginService").await == 1
    })
    .await;
    program.set_up(&idp).await;
    program.log_in(&idp).await.expect("a login");
    let log = locked(&program.log).join("\n");
    assert!(
        log.matches("store unavailable").count() <= 2 && log.contains("store available again"),
        "logged once each: {log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn with_sql_away_known_connections_go_on_working() {
    let data = tempfile::tempdir().expect("a directory");
    let (postgres, key) = (postgres_url().await, key());
    let idp = FakeIdp::start(Arc::new(SystemClock)).await;
    let encoded_key = key.encoded();
    let settings =
        [("SSO_DATABASE_URL", postgres.as_str()), ("SSO_ENCRYPTION_KEYS", encoded_key.as_str())];
    let mut program = Program::serve(data.path(), &settings).await;
    program.set_up(&idp).await;
    program.log_in(&idp).await.expect("a login");
    allow_connections(&postgres, false).await;
    eventually("support's service says so", || async {
        program.health("peerpanda.sso.v1.ConnectionService").await == 2
    })
    .await;
    assert_eq!(program.health("peerpanda.sso.v1.LoginService").await, 1);
    program.log_in(&idp).await.expect("a login without SQL");
    let unknown = pb::BeginLoginRequest { slug: "unknown".to_owned(), ..begin_request() };
    assert_eq!(reason(program.login.begin_login(unknown).await), "STORE_UNAVAILABLE");
}
