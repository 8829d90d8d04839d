//! Limits on logins that begin and on calls to one IdP, and the isolation of accounts from an IdP
//! that fails.

use std::time::Duration;

use peerpanda_sso::model::rate::Rate;
use peerpanda_sso::pb;
use tonic_types::StatusExt;

use crate::harness::{Service, begin_request, complete_request, eventually, reason, refused};

fn from(client_key: &str) -> pb::BeginLoginRequest {
    pb::BeginLoginRequest { client_key: Some(client_key.to_owned()), ..begin_request() }
}

/// Bounds: floods of begun logins.
#[tokio::test]
async fn a_network_that_begins_too_many_logins_waits_and_nobody_else_does() {
    let mut service = Service::start_with(|config| {
        config.begin_rate_per_client = Rate::parse("3/1m").expect("a rate")
    })
    .await;
    for _ in 0..3 {
        service.begin(from("203.0.113.7")).await.expect("begun");
    }
    let status = service.begin(from("203.0.113.7")).await.expect_err("limited");
    let wait =
        status.get_details_retry_info().and_then(|info| info.retry_delay).expect("RetryInfo");
    assert!(wait > Duration::ZERO && wait <= Duration::from_secs(20), "{wait:?}");
    let limited = refused::<()>(Err(status));
    assert_eq!(
        (limited.code, limited.reason.as_str(), limited.retry.as_str()),
        (tonic::Code::ResourceExhausted, "RATE_LIMITED", "call")
    );
    let text =
        "too many logins began from this network: the limit is 3/1m (SSO_BEGIN_RATE_PER_CLIENT)";
    assert_eq!(limited.message, text, "also in the log");
    service.begin(from("203.0.113.8")).await.expect("another network");
    service.begin(begin_request()).await.expect("an unnamed one");
    service.clock.advance(wait);
    service.begin(from("203.0.113.7")).await.expect("after the wait");
}

/// Bounds: floods of begun logins.
#[tokio::test]
async fn an_account_has_a_ceiling_of_its_own() {
    let mut service =
        Service::start_with(|config| config.begin_rate = Rate::parse("2/1m").expect("a rate"))
            .await;
    service
        .create(pb::Connection { slug: "other".to_owned(), ..service.connection() })
        .await
        .expect("created");
    for _ in 0..2 {
        service.begin(begin_request()).await.expect("begun");
    }
    let limited = refused(service.begin(begin_request()).await);
    assert_eq!(limited.reason, "RATE_LIMITED");
    assert!(limited.message.ends_with("the limit is 2/1m (SSO_BEGIN_RATE)"), "{}", limited.message);
    service
        .begin(pb::BeginLoginRequest { slug: "other".to_owned(), ..begin_request() })
        .await
        .expect("another account");
}

#[tokio::test]
async fn a_full_store_in_memory_refuses_and_evicts_nobody() {
    let mut service = Service::start_with(|config| config.memory_pending_logins = 2).await;
    let first = service.approved().await;
    service.begin(begin_request()).await.expect("begun");
    let overloaded = refused(service.begin(begin_request()).await);
    assert_eq!(
        (overloaded.code, overloaded.reason.as_str()),
        (tonic::Code::ResourceExhausted, "OVERLOADED")
    );
    service.complete(complete_request(&first)).await.expect("the first is still there");
}

/// Bounds: a hung or dead IdP.
#[tokio::test(flavor = "multi_thread")]
async fn an_idp_that_hangs_holds_up_so_many_logins_and_no_other_account() {
    let mut service = Service::start().await;
    let other = service.with_another_account().await;
    service.idp.behave().token_delay = Duration::from_secs(60);
    let mut hanging = Vec::new();
    for _ in 0..500 {
        let callback = service.approved().await;
        let mut login = service.login.clone();
        hanging.push(tokio::spawn(async move {
            login.complete_login(complete_request(&callback)).await
        }));
    }
    eventually("the limit of waiting calls is reached", || async {
        service.idp.count("/token") == 64
    })
    .await;
    let surplus = service.approved().await;
    let refusal = refused(service.complete(complete_request(&surplus)).await);
    assert_eq!(
        (refusal.reason.as_str(), refusal.retry.as_str()),
        ("PROVIDER_UNAVAILABLE", "call"),
        "the state is not spent"
    );
    service.log_in_at_other(&other).await.expect("a login at the other account");
    hanging.iter().for_each(tokio::task::JoinHandle::abort);
    service.idp.behave().token_delay = Duration::ZERO;
    eventually("the calls of clients that left are cancelled", || {
        let mut login = service.login.clone();
        let request = complete_request(&surplus);
        async move { login.complete_login(request).await.is_ok() }
    })
    .await;
}

/// Bounds: a hung or dead IdP.
#[tokio::test(flavor = "multi_thread")]
async fn an_idp_that_does_not_answer_is_left_alone_for_a_while() {
    let mut service = Service::start().await;
    let other = service.with_another_account().await;
    service.idp.behave().token_answer = Some((503, String::new()));
    for _ in 0..5 {
        let refusal = refused(service.log_in().await);
        assert_eq!(
            (refusal.reason.as_str(), refusal.retry.as_str()),
            ("PROVIDER_UNAVAILABLE", "login")
        );
    }
    service.idp.behave().token_answer = None;
    let callback = service.approved().await;
    let refusal = refused(service.complete(complete_request(&callback)).await);
    assert_eq!(
        (refusal.reason.as_str(), refusal.retry.as_str()),
        ("PROVIDER_UNAVAILABLE", "call"),
        "the state is not spent"
    );
    assert_eq!(service.idp.count("/token"), 5);
    service.log_in_at_other(&other).await.expect("a login at the other account");
    service.clock.advance(Duration::from_secs(10));
    service
        .complete(complete_request(&callback))
        .await
        .expect("the same callback, when the IdP is asked again");
    service.log_in().await.expect("and everybody else");
}

/// Intervals are measured on the monotonic clock: NTP or an operator may set the wall clock back.
#[tokio::test(flavor = "multi_thread")]
async fn a_wall_clock_that_is_set_back_refuses_nobody() {
    let mut service =
        Service::start_with(|config| config.begin_rate = Rate::parse("60/1m").expect("a rate"))
            .await;
    let other = service.with_another_account().await;
    for _ in 0..5 {
        service.idp.behave().token_answer = Some((503, String::new()));
        assert_eq!(reason(service.log_in().await), "PROVIDER_UNAVAILABLE");
    }
    service.idp.behave().token_answer = None;
    other
        .behave()
        .answers
        .insert("/.well-known/openid-configuration", (503, String::new(), String::new()));
    assert_eq!(reason(service.log_in_at_other(&other).await), "PROVIDER_UNAVAILABLE");
    other.behave().answers.clear();
    let under_way = service.approved().await;
    service.clock.set_back(Duration::from_secs(60 * 60));
    // The open breaker ends after 10 s, and the pause after a failed fetch of metadata after 1 s.
    service.clock.advance(Duration::from_secs(11));
    service.log_in().await.expect("neither a rate limit nor a breaker lasts longer");
    service.complete(complete_request(&under_way)).await.expect("nor is a login lost");
    service.log_in_at_other(&other).await.expect("nor the pause after a failed fetch");
}

/// An IdP that answers 5xx or 429 to unknown codes is not away: a stranger with made-up codes must not
/// have it taken for that. At the start nobody has logged in, later the last login is long ago.
#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_with_made_up_codes_takes_nobodys_login() {
    for status in [500, 503, 429] {
        let mut service = Service::start().await;
        service.idp.behave().unknown_code_status = status;
        let mut refused_callback = None;
        for round in 0..3 {
            for attempt in 0..30 {
                let begun = service.begin(from("203.0.113.66")).await.expect("begun");
                let mut made_up = service.idp.approve(&begun.redirect_url, "nobody");
                made_up.code = "made-up".to_owned();
                let made_up = complete_request(&made_up);
                let refusal = refused(service.complete(made_up.clone()).await);
                assert_eq!(refusal.reason, "PROVIDER_UNAVAILABLE", "{refusal:?}");
                assert_eq!(refusal.retry, "login", "the breaker is closed: {refusal:?}");
                let repeated = refused_callback.replace(made_up).unwrap_or_default();
                service.complete(repeated).await.expect_err("refused");
                if attempt % 10 == 9 {
                    let begun = service.begin(from("198.51.100.1")).await.expect("begun");
                    let callback = service.idp.approve(&begun.redirect_url, "alice");
                    let login = service.complete(complete_request(&callback)).await;
                    login.unwrap_or_else(|error| panic!("{status}, round {round}: {error:?}"));
                }
            }
            service.clock.advance(Duration::from_secs(600));
        }
    }
}

/// RFC 9110 10.2.3, RFC 6585 4: what the IdP asks for reaches the caller, and holds up no other login.
#[tokio::test(flavor = "multi_thread")]
async fn an_idp_that_limits_requests_says_how_long_to_wait() {
    let mut service = Service::start().await;
    service.log_in().await.expect("a login before");
    service.idp.behave().token_answer = Some((429, String::new()));
    service.idp.behave().retry_after = Some("30");
    for _ in 0..10 {
        let status = {
            let callback = service.approved().await;
            service.complete(complete_request(&callback)).await.expect_err("limited")
        };
        assert!(status.get_details_retry_info().is_none(), "the state is spent");
        let refusal = refused::<()>(Err(status));
        assert_eq!(refusal.retry, "login", "{refusal:?}");
        assert_eq!(refusal.metadata["cause"], "http_429", "{refusal:?}");
        assert_eq!(refusal.metadata["retry_after_seconds"], "30", "{refusal:?}");
    }
    service.idp.behave().token_answer = None;
    service.log_in().await.expect("the next login is not held up");
}
