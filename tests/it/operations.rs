//! Metrics and probes, as operators see them.

use std::sync::Arc;

use peerpanda_sso::clock::SystemClock;
use peerpanda_sso::pb;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::binary::Program;
use crate::fake_idp::{FakeIdp, locked};
use crate::harness::{
    begin_request, complete_request, eventually, free_port, key, logged_port, own_redis, reason,
};

pub(crate) fn metrics_port(program: &Program) -> u16 {
    logged_port(&locked(&program.log), "metrics.address").expect("logged")
}

pub(crate) async fn get(port: u16, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("connected");
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, answer)
}

/// The value of a series, which is given with its labels; 0 if it is missing.
fn value(metrics: &str, series: &str) -> f64 {
    let line = metrics
        .lines()
        .find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
    line.and_then(|line| line.rsplit(' ').next())
        .and_then(|value| value.parse().ok())
        .unwrap_or(0.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_what_happened_and_probes_how_it_is() {
    let data = tempfile::tempdir().expect("a directory");
    let (redis_port, key) = (free_port(), key().encoded());
    let redis_url = format!("redis://127.0.0.1:{redis_port}");
    let idp = FakeIdp::start(Arc::new(SystemClock)).await;
    let settings = [
        ("SSO_METRICS_LISTEN", "127.0.0.1:0"),
        ("SSO_METRICS_ACCOUNTS", "1"),
        ("SSO_REDIS_URL", redis_url.as_str()),
        ("SSO_ENCRYPTION_KEYS", key.as_str()),
    ];
    let mut program = Program::serve(data.path(), &settings).await;
    let port = metrics_port(&program);
    assert_eq!(get(port, "/livez").await.0, 200, "it is alive without any store");
    assert_eq!(get(port, "/readyz").await.0, 503);
    assert_eq!(get(port, "/elsewhere").await.0, 404);
    let redis = own_redis(redis_port);
    eventually("it is ready", || async { get(port, "/readyz").await.0 == 200 }).await;

    program.set_up(&idp).await;
    for _ in 0..3 {
        program.log_in(&idp).await.expect("a login");
    }
    let unknown = pb::BeginLoginRequest { slug: "unknown".to_owned(), ..begin_request() };
    assert_eq!(reason(program.login.begin_login(unknown).await), "CONNECTION_NOT_FOUND");
    idp.behave().foreign_key = true;
    assert_eq!(reason(program.log_in(&idp).await), "ID_TOKEN_SIGNATURE_INVALID");
    idp.behave().foreign_key = false;

    let (_, metrics) = get(port, "/metrics").await;
    for (series, expected) in [
        (r#"sso_logins_begun_total{account="acme"}"#, 4.0),
        (r#"sso_logins_completed_total{account="acme"}"#, 3.0),
        (
            r#"sso_refusals_total{method="BeginLogin",reason="CONNECTION_NOT_FOUND",owner="support"}"#,
            1.0,
        ),
        (
            r#"sso_refusals_total{method="CompleteLogin",reason="ID_TOKEN_SIGNATURE_INVALID",owner="customer_idp_admin"}"#,
            1.0,
        ),
        (r#"sso_provider_lookups_total{outcome="miss"}"#, 1.0),
        // For the first login, and for the token that no known key verifies.
        (r#"sso_provider_fetches_total{documents="whole",outcome="ok"}"#, 2.0),
        (r#"sso_provider_fetches_total{documents="keys",outcome="ok"}"#, 0.0),
        (r#"sso_phase_seconds_count{phase="token"}"#, 4.0),
        (r#"sso_phase_seconds_count{phase="verify"}"#, 4.0),
        (r#"sso_phase_seconds_count{phase="store"}"#, 8.0),
        (r#"sso_call_seconds_count{method="CompleteLogin"}"#, 4.0),
        ("sso_calls_in_flight", 0.0),
        (r#"sso_build_info{version="0.1.0"}"#, 1.0),
    ] {
        assert!(
            (value(&metrics, series) - expected).abs() < f64::EPSILON,
            "{series} is {}:\n{metrics}",
            value(&metrics, series)
        );
    }
    assert!(
        !metrics.contains("CANARY") && !metrics.contains("example.com"),
        "no secret and no personal data"
    );

    // The second account shares the label of those beyond the limit; the circuit breaker opens.
    let other = FakeIdp::start(Arc::new(SystemClock)).await;
    let connection = Some(other.connection("other"));
    program
        .admin
        .create_connection(pb::CreateConnectionRequest { connection, validate_only: false })
        .await
        .expect("created");
    let begin = pb::BeginLoginRequest { slug: "other".to_owned(), ..begin_request() };
    program.login.begin_login(begin.clone()).await.expect("begun");
    other.behave().token_answer = Some((503, String::new()));
    for _ in 0..5 {
        let begun = program.login.begin_login(begin.clone()).await.expect("begun").into_inner();
        let callback = other.approve(&begun.redirect_url, "bob");
        let request =
            pb::CompleteLoginRequest { slug: "other".to_owned(), ..complete_request(&callback) };
        assert_eq!(reason(program.login.complete_login(request).await), "PROVIDER_UNAVAILABLE");
    }
    let (_, metrics) = get(port, "/metrics").await;
    assert!(
        (value(&metrics, r#"sso_logins_begun_total{account="other"}"#) - 6.0).abs() < f64::EPSILON,
        "the shared label"
    );
    assert!((value(&metrics, "sso_breakers_open") - 1.0).abs() < f64::EPSILON, "{metrics}");

    drop(redis);
    eventually("it reports that it isn't ready", || async { get(port, "/readyz").await.0 == 503 })
        .await;
    assert_eq!(get(port, "/livez").await.0, 200);
    let (_, metrics) = get(port, "/metrics").await;
    assert!(value(&metrics, r#"sso_store_errors_total{store="redis"}"#) >= 1.0, "{metrics}");
}
