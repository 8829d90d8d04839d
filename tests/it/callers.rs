//! Authenticating callers: TLS, certificates and bearer tokens; and what hostile clients and
//! overload do to other callers.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_lc_rs::digest;
use peerpanda_sso::clock::{Clock, ManualClock, SystemClock};
use peerpanda_sso::config::{Config, Database};
use peerpanda_sso::entropy::{Entropy, SystemEntropy};
use peerpanda_sso::pb;
use peerpanda_sso::pb::connection_service_client::ConnectionServiceClient;
use peerpanda_sso::pb::login_service_client::LoginServiceClient;
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair, SanType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use crate::binary::Program;
use crate::harness::{
    Service, begin_request, channel, complete_request, config, eventually, key, reason, refused,
};
use crate::operations::get as get_http;
use crate::tls::private_ca;

pub(crate) fn hash(token: &str) -> String {
    hex::encode(digest::digest(&digest::SHA256, token.as_bytes()))
}

pub(crate) fn caller(name: &str, role: &str, credential: &str) -> String {
    format!("[[caller]]\nname = \"{name}\"\nroles = [\"{role}\"]\n{credential}\n")
}

pub(crate) fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    let value = MetadataValue::try_from(format!("Bearer {token}")).expect("a header");
    request.metadata_mut().insert("authorization", value);
    request
}

pub(crate) fn get() -> pb::GetConnectionRequest {
    pb::GetConnectionRequest { slug: "nobody".to_owned() }
}

/// A leaf of `ca` for a server at localhost, or for a client of this name, as PEM.
fn leaf(ca: &CertifiedIssuer<'_, KeyPair>, uri: Option<&str>) -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    if let Some(uri) = uri {
        params.subject_alt_names = vec![SanType::URI(uri.try_into().expect("ASCII"))];
    }
    (params.signed_by(&key, ca).expect("signed").pem(), key.serialize_pem())
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let file = folder.join(name);
    // Atomically, as Kubernetes replaces mounted files.
    let new = folder.join(format!("{name}.new"));
    fs::write(&new, text).expect("written");
    fs::rename(new, &file).expect("renamed");
    file
}

async fn is_healthy(channel: Channel) -> bool {
    let request = HealthCheckRequest { service: "peerpanda.sso.v1.LoginService".to_owned() };
    HealthClient::new(channel)
        .check(request)
        .await
        .is_ok_and(|answer| answer.into_inner().status == 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_what_its_role_is_for_and_changes_without_a_restart() {
    let data = tempfile::tempdir().expect("a directory");
    let both = format!(
        "{}{}",
        caller(
            "web",
            "login",
            &format!("token_sha256 = [\"{}\", \"{}\"]", hash("CANARYweb1"), hash("CANARYweb2"))
        ),
        caller("support", "admin", &format!("token_sha256 = [\"{}\"]", hash("CANARYsupport"))),
    );
    let file = write(data.path(), "callers.toml", &both);
    let mut program =
        Program::serve(data.path(), &[("SSO_CALLERS_FILE", file.to_str().expect("UTF-8"))]).await;

    let stranger = refused(program.login.begin_login(begin_request()).await);
    assert_eq!(
        (stranger.code, stranger.reason.as_str()),
        (Code::Unauthenticated, "CALLER_UNKNOWN")
    );
    for token in ["CANARYwrong", "", "CANARYweb1 CANARYweb2", &hash("CANARYweb1")] {
        assert_eq!(
            reason(program.login.begin_login(with_token(begin_request(), token)).await),
            "CALLER_UNKNOWN",
            "{token:?}"
        );
    }
    let mut basic = Request::new(begin_request());
    basic.metadata_mut().insert("authorization", MetadataValue::from_static("Basic CANARYbasic"));
    assert_eq!(reason(program.login.begin_login(basic).await), "CALLER_UNKNOWN");
    for token in ["CANARYweb1", "CANARYweb2"] {
        assert_eq!(
            reason(program.login.begin_login(with_token(begin_request(), token)).await),
            "CONNECTION_NOT_FOUND"
        );
    }
    let other_role = refused(program.admin.get_connection(with_token(get(), "CANARYweb1")).await);
    assert_eq!(
        (other_role.code, other_role.reason.as_str()),
        (Code::PermissionDenied, "CALLER_NOT_ALLOWED")
    );
    assert_eq!(
        reason(program.login.begin_login(with_token(begin_request(), "CANARYsupport")).await),
        "CALLER_NOT_ALLOWED"
    );
    assert_eq!(
        reason(program.admin.get_connection(with_token(get(), "CANARYsupport")).await),
        "CONNECTION_NOT_FOUND"
    );
    assert!(is_healthy(channel(&program.login_url).await).await, "health needs no credentials");

    write(data.path(), "callers.toml", "not a callers file");
    has_logged(&program, "failed to reload callers file").await;
    assert_eq!(
        reason(program.login.begin_login(with_token(begin_request(), "CANARYweb1")).await),
        "CONNECTION_NOT_FOUND"
    );
    write(data.path(), "callers.toml", &both.replace(&hash("CANARYweb1"), &hash("CANARYweb3")));
    eventually("the new token works", || {
        let mut login = program.login.clone();
        async move {
            reason(login.begin_login(with_token(begin_request(), "CANARYweb3")).await)
                == "CONNECTION_NOT_FOUND"
        }
    })
    .await;
    assert_eq!(
        reason(program.login.begin_login(with_token(begin_request(), "CANARYweb1")).await),
        "CALLER_UNKNOWN"
    );
    let log = crate::fake_idp::locked(&program.log).join("\n");
    assert!(log.contains("CALLER_UNKNOWN") && !log.contains("CANARY"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_callers_file_lets_nobody_in_and_a_missing_one_is_reported() {
    let data = tempfile::tempdir().expect("a directory");
    let web = caller("web", "login", &format!("token_sha256 = [\"{}\"]", hash("CANARYweb")));
    let file = write(data.path(), "callers.toml", &web);
    let mut config = config(Database::Sqlite(data.path().join("sso.db")), None, &key());
    config.callers_file = Some(file.clone());
    config.metrics_listen = Some(([127, 0, 0, 1], 0).into());
    let clock = Arc::new(ManualClock::starting_now());
    let mut service = Service::over(config, Arc::clone(&clock)).await;
    let begin = || with_token(begin_request(), "CANARYweb");
    assert_eq!(reason(service.login.begin_login(begin()).await), "CONNECTION_NOT_FOUND");

    let port = service.metrics_port();
    let reports = async |expected: &str| {
        let line = format!("sso_reload_failing{{file=\"callers file\"}} {expected}");
        eventually("the metric reports it", || async {
            clock.advance(Duration::from_secs(60));
            get_http(port, "/metrics").await.1.contains(&line)
        })
        .await;
    };
    fs::remove_file(&file).expect("removed");
    reports("1").await;
    assert_eq!(
        reason(service.login.begin_login(begin()).await),
        "CONNECTION_NOT_FOUND",
        "the previous callers stay"
    );

    write(data.path(), "callers.toml", "# nobody\n");
    eventually("nobody may call", || {
        let mut login = service.login.clone();
        async move {
            reason(login.begin_login(with_token(begin_request(), "CANARYweb")).await)
                == "CALLER_UNKNOWN"
        }
    })
    .await;
    reports("0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_opens_what_its_role_is_for_and_certificates_change_without_a_restart()
{
    let data = tempfile::tempdir().expect("a directory");
    let (server_ca, client_ca, foreign_ca) = (private_ca(), private_ca(), private_ca());
    let (cert, server_key) = leaf(&server_ca, None);
    let file =
        |name: &str, text: &str| write(data.path(), name, text).to_str().expect("UTF-8").to_owned();
    let spiffe = "spiffe://prod/ns/web/sa/web";
    let callers = format!(
        "{}{}",
        caller("web", "login", &format!("san = [\"{spiffe}\"]")),
        caller("support", "admin", &format!("token_sha256 = [\"{}\"]", hash("CANARYsupport"))),
    );
    let (cert_file, key_file) = (file("tls.crt", &cert), file("tls.key", &server_key));
    let settings = [
        ("SSO_TLS_CERT_FILE", cert_file),
        ("SSO_TLS_KEY_FILE", key_file),
        ("SSO_TLS_CLIENT_CA_FILE", file("client-ca.crt", &client_ca.pem())),
        ("SSO_CALLERS_FILE", file("callers.toml", &callers)),
    ];
    let settings: Vec<(&str, &str)> =
        settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let program = Program::start(data.path(), &settings).await;
    let url = program.login_url.replace("http://127.0.0.1", "https://localhost");
    let connect = |trusted: String, identity: Option<(String, String)>, url: String| async move {
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(trusted));
        if let Some((cert, key)) = identity {
            tls = tls.identity(Identity::from_pem(cert, key));
        }
        Channel::from_shared(url).expect("a URL").tls_config(tls).expect("TLS").connect().await
    };
    let begin = |channel: Channel| async move {
        reason(LoginServiceClient::new(channel).begin_login(begin_request()).await)
    };

    eventually("the program answers over TLS", || async {
        connect(server_ca.pem(), None, url.clone()).await.is_ok()
    })
    .await;
    let anybody = connect(server_ca.pem(), None, url.clone())
        .await
        .expect("a handshake without a certificate");
    assert!(is_healthy(anybody.clone()).await);
    assert_eq!(begin(anybody).await, "CALLER_UNKNOWN");
    let web = connect(server_ca.pem(), Some(leaf(&client_ca, Some(spiffe))), url.clone())
        .await
        .expect("connected");
    assert_eq!(begin(web).await, "CONNECTION_NOT_FOUND");
    let unknown = connect(
        server_ca.pem(),
        Some(leaf(&client_ca, Some("spiffe://prod/ns/other"))),
        url.clone(),
    )
    .await;
    assert_eq!(begin(unknown.expect("connected")).await, "CALLER_UNKNOWN");
    let forged = connect(server_ca.pem(), Some(leaf(&foreign_ca, Some(spiffe))), url.clone()).await;
    // TLS 1.3: the client learns it from its first call.
    let is_refused = match forged {
        Err(_) => true,
        Ok(channel) => {
            let status = LoginServiceClient::new(channel)
                .begin_login(begin_request())
                .await
                .expect_err("refused");
            status.get_details_error_info().is_none()
        }
    };
    assert!(is_refused, "a certificate of another CA ends the handshake");
    let admin_url = program.admin_url.replace("http://127.0.0.1", "https://localhost");
    let web = connect(server_ca.pem(), Some(leaf(&client_ca, Some(spiffe))), admin_url.clone())
        .await
        .expect("connected");
    assert_eq!(
        reason(ConnectionServiceClient::new(web).get_connection(get()).await),
        "CALLER_NOT_ALLOWED"
    );
    let support = connect(server_ca.pem(), None, admin_url).await.expect("connected");
    let answer = ConnectionServiceClient::new(support)
        .get_connection(with_token(get(), "CANARYsupport"))
        .await;
    assert_eq!(reason(answer), "CONNECTION_NOT_FOUND");
    assert!(
        channel_without_tls(&program.login_url).await.is_err(),
        "no plaintext where TLS is configured"
    );

    // A new certificate by a new CA. Its key is written first: it doesn't match the old
    // certificate, and changes nothing.
    let new_ca = private_ca();
    let (new_cert, new_key) = leaf(&new_ca, None);
    file("tls.key", &new_key);
    has_logged(&program, "failed to reload TLS certificate").await;
    assert!(connect(server_ca.pem(), None, url.clone()).await.is_ok());
    file("tls.crt", &new_cert);
    eventually("the new certificate is served", || async {
        connect(new_ca.pem(), None, url.clone()).await.is_ok()
    })
    .await;
}

async fn has_logged(program: &Program, text: &str) {
    eventually(text, || async {
        crate::fake_idp::locked(&program.log).iter().any(|line| line.contains(text))
    })
    .await;
}

async fn channel_without_tls(url: &str) -> Result<(), tonic::Status> {
    let Ok(channel) = Channel::from_shared(url.to_owned()).expect("a URL").connect().await else {
        return Err(tonic::Status::unavailable("no connection"));
    };
    HealthClient::new(channel).check(HealthCheckRequest::default()).await.map(|_| ())
}

#[tokio::test]
async fn others_reach_no_listener_without_tls_and_callers() {
    let data = tempfile::tempdir().expect("a directory");
    let (cert, server_key) = leaf(&private_ca(), None);
    let file =
        |name: &str, text: &str| write(data.path(), name, text).to_str().expect("UTF-8").to_owned();
    let web = caller("web", "login", &format!("token_sha256 = [\"{}\"]", hash("x")));
    let by_certificate = caller("web", "login", "san = [\"web.example\"]");
    let (cert, server_key, callers) =
        (file("tls.crt", &cert), file("tls.key", &server_key), file("callers.toml", &web));
    let by_certificate = file("by-certificate.toml", &by_certificate);
    for (settings, expected) in [
        (vec![], "SSO_ALLOW_INSECURE_LISTEN"),
        (vec![("SSO_CALLERS_FILE", &callers)], "SSO_TLS_CERT_FILE"),
        (vec![("SSO_TLS_CERT_FILE", &cert), ("SSO_TLS_KEY_FILE", &server_key)], "SSO_CALLERS_FILE"),
        (
            vec![("SSO_TLS_CERT_FILE", &cert), ("SSO_CALLERS_FILE", &callers)],
            "SSO_TLS_KEY_FILE must be set",
        ),
        (
            vec![
                ("SSO_TLS_CERT_FILE", &cert),
                ("SSO_TLS_KEY_FILE", &cert),
                ("SSO_CALLERS_FILE", &callers),
            ],
            "no PEM private key",
        ),
        (
            vec![
                ("SSO_TLS_CERT_FILE", &cert),
                ("SSO_TLS_KEY_FILE", &server_key),
                ("SSO_CALLERS_FILE", &cert),
            ],
            "SSO_CALLERS_FILE",
        ),
        (
            vec![
                ("SSO_TLS_CERT_FILE", &cert),
                ("SSO_TLS_KEY_FILE", &server_key),
                ("SSO_CALLERS_FILE", &by_certificate),
            ],
            "SSO_TLS_CLIENT_CA_FILE",
        ),
    ] {
        let mut command = crate::binary::command(data.path());
        command.arg("serve").env("SSO_LISTEN", "0.0.0.0:0").env("SSO_ADMIN_LISTEN", "127.0.0.1:0");
        let output = command
            .envs(settings.iter().map(|(name, value)| (*name, value.as_str())))
            .output()
            .expect("the program runs");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && text.contains(expected), "{settings:?}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_house_refuses_at_once_and_still_says_how_it_is() {
    let mut service = Service::start_with(|config| config.max_in_flight = 2).await;
    service.idp.behave().metadata_delay = Duration::from_secs(3);
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let mut login = service.login.clone();
            tokio::spawn(async move { login.begin_login(begin_request()).await })
        })
        .collect();
    eventually("the limit is reached", || async {
        service.idp.count("/.well-known/openid-configuration") == 1
    })
    .await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let started = Instant::now();
    let refusal = refused(service.begin(begin_request()).await);
    assert!(started.elapsed() < Duration::from_secs(2), "without waiting");
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::ResourceExhausted, "OVERLOADED"));
    assert_eq!(refusal.retry, "call");
    assert!(is_healthy(channel(&service.login_url()).await).await);
    for call in waiting {
        call.await.expect("ended").expect("begun");
    }
    service.log_in().await.expect("calls are admitted again");
}

/// Panics while the flag is set.
struct Panicking(AtomicBool);

impl Entropy for Panicking {
    fn fill(&self, bytes: &mut [u8]) {
        assert!(!self.0.load(Ordering::SeqCst), "as the test demands");
        SystemEntropy.fill(bytes);
    }
}

#[tokio::test]
async fn a_defect_in_one_call_is_that_calls_alone() {
    let data = tempfile::tempdir().expect("a directory");
    let entropy = Arc::new(Panicking(AtomicBool::new(false)));
    let config: Config = config(Database::Sqlite(data.path().join("sso.db")), None, &key());
    let mut service = Service::over_with(
        config,
        Arc::new(ManualClock::starting_now()),
        Arc::clone(&entropy) as Arc<dyn Entropy>,
    )
    .await;
    let connection = service.connection();
    service.create(connection).await.expect("created");
    let under_way = service.approved().await;
    entropy.0.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        let refusal = refused(service.begin(begin_request()).await);
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::Internal, "INTERNAL"));
        assert!(!refusal.message.contains("demands"), "{}", refusal.message);
    }
    entropy.0.store(false, Ordering::SeqCst);
    service.complete(complete_request(&under_way)).await.expect("the same connection still works");
    service.log_in().await.expect("the service still works");
}

#[tokio::test]
async fn a_callers_own_deadline_ends_its_call() {
    let mut service = Service::start().await;
    service.idp.behave().metadata_delay = Duration::from_secs(5);
    let mut request = Request::new(begin_request());
    request.set_timeout(Duration::from_millis(300));
    let started = Instant::now();
    let status = service.login.begin_login(request).await.expect_err("too late");
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status}");
    assert!(started.elapsed() < Duration::from_secs(3));
}

/// CVE-2023-44487 (rapid reset), garbage, silence, and headers without end.
#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_client_takes_nothing_from_the_others() {
    let mut service = Service::start().await;
    let address = service.login_url().replace("http://", "");
    // Silence: closed after some seconds.
    let mut silent = TcpStream::connect(&address).await.expect("connected");
    // Garbage, some of it after a valid preface.
    let preface: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for seed in 0..200_u8 {
        let mut stream = TcpStream::connect(&address).await.expect("connected");
        let noise: Vec<u8> =
            (0..512_u16).map(|n| (n as u8).wrapping_mul(seed | 1).wrapping_add(seed)).collect();
        if seed % 2 == 0 {
            let _ = stream.write_all(preface).await;
            let _ = stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
        }
        let _ = stream.write_all(&noise).await;
    }
    // Streams that are opened and reset as fast as possible.
    let stream = TcpStream::connect(&address).await.expect("connected");
    let (mut sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    let connection = tokio::spawn(connection);
    for _ in 0..20_000 {
        let request = http::Request::post(format!(
            "http://{address}/peerpanda.sso.v1.LoginService/BeginLogin"
        ))
        .header("content-type", "application/grpc")
        .body(())
        .expect("a request");
        let Ok(ready) = sender.clone().ready().await else { break };
        sender = ready;
        let Ok((_, mut send)) = sender.send_request(request, false) else { break };
        send.send_reset(h2::Reason::CANCEL);
    }
    drop(sender);
    connection.abort();
    // Headers beyond the limit.
    let mut long = Request::new(begin_request());
    long.metadata_mut().insert("x-long", "x".repeat(40_000).parse().expect("a header"));
    let mut another = LoginServiceClient::new(channel(&service.login_url()).await);
    assert!(another.begin_login(long).await.is_err());
    service.log_in().await.expect("other callers log in");
    let closed =
        tokio::time::timeout(Duration::from_secs(15), silent.read_to_end(&mut Vec::new())).await;
    assert!(closed.is_ok(), "the silent connection is closed");
}

/// Reads the text of a refusal, or says that there was none.
async fn begin_over(channel: &Channel) -> String {
    let status = LoginServiceClient::new(channel.clone()).begin_login(begin_request()).await;
    let status = status.expect_err("refused");
    let info = status.get_details_error_info();
    info.map_or_else(|| "no answer".to_owned(), |info| info.reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_connection_outlives_neither_its_certificate_nor_its_ca() {
    let data = tempfile::tempdir().expect("a directory");
    let (server_ca, client_ca) = (private_ca(), private_ca());
    let (cert, server_key) = leaf(&server_ca, None);
    let file =
        |name: &str, text: &str| write(data.path(), name, text).to_str().expect("UTF-8").to_owned();
    let settings = [
        ("SSO_TLS_CERT_FILE", file("tls.crt", &cert)),
        ("SSO_TLS_KEY_FILE", file("tls.key", &server_key)),
        ("SSO_TLS_CLIENT_CA_FILE", file("client-ca.crt", &client_ca.pem())),
        (
            "SSO_CALLERS_FILE",
            file("callers.toml", &caller("web", "login", "san = [\"spiffe://web\"]")),
        ),
    ];
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let program = Program::start(data.path(), &settings).await;
    let url = program.login_url.replace("http://127.0.0.1", "https://localhost");
    let connect = |lifetime: Duration| {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.subject_alt_names = vec![SanType::URI("spiffe://web".try_into().expect("ASCII"))];
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        params.not_after = epoch + Duration::from_secs(SystemClock.unix_seconds().0) + lifetime;
        let cert = params.signed_by(&key, &client_ca).expect("signed").pem();
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(server_ca.pem()))
            .identity(Identity::from_pem(cert, key.serialize_pem()));
        let endpoint = Channel::from_shared(url.clone()).expect("a URL").tls_config(tls);
        async move { endpoint.expect("TLS").connect().await.expect("connected") }
    };
    let short = connect(Duration::from_secs(4)).await;
    let long = connect(Duration::from_secs(3600)).await;
    assert_eq!(begin_over(&short).await, "CONNECTION_NOT_FOUND");
    assert_eq!(begin_over(&long).await, "CONNECTION_NOT_FOUND");
    // Refused on the open connection, or when the client connects again.
    eventually("the certificate has expired", || async {
        begin_over(&short).await != "CONNECTION_NOT_FOUND"
    })
    .await;
    assert_eq!(begin_over(&long).await, "CONNECTION_NOT_FOUND");

    file("client-ca.crt", &private_ca().pem());
    has_logged(&program, "reloaded TLS certificate").await;
    eventually("connections by the old CA end", || async {
        begin_over(&long).await != "CONNECTION_NOT_FOUND"
    })
    .await;
}
