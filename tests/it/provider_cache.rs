//! The cache of metadata and keys: how often an IdP is called, and what happens while it fails.

use std::time::Duration;

use serde_json::json;

use crate::fake_idp::Signer;
use crate::harness::{Service, begin_request, complete_request, eventually, reason};

const METADATA: &str = "/.well-known/openid-configuration";

/// A cold cache: concurrent callers share one fetch.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_cold_callers_make_one_fetch() {
    let service =
        Service::start_with(|config| config.begin_rate_per_client.period = Duration::from_secs(1))
            .await;
    service.idp.behave().metadata_delay = Duration::from_millis(300);
    let calls: Vec<_> = (0..200)
        .map(|_| {
            let mut login = service.login.clone();
            tokio::spawn(async move { login.begin_login(begin_request()).await })
        })
        .collect();
    for call in calls {
        call.await.expect("ended").expect("begun");
    }
    assert_eq!((service.idp.count(METADATA), service.idp.count("/keys")), (1, 1));
}

/// A caller that cancels must not end the fetch of the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_does_not_fail_those_who_wait_with_it() {
    let service = Service::start().await;
    service.idp.behave().metadata_delay = Duration::from_millis(500);
    let call = || {
        let mut login = service.login.clone();
        tokio::spawn(async move { login.begin_login(begin_request()).await })
    };
    let leader = call();
    eventually("the fetch is running", || async { service.idp.count(METADATA) == 1 }).await;
    let follower = call();
    leader.abort();
    follower.await.expect("ended").expect("begun");
    assert_eq!(service.idp.count(METADATA), 1);
}

/// RFC 9111 5.2.2.1, bounded to 5 minutes and 24 hours; renewed in the last fifth of that time.
#[tokio::test(flavor = "multi_thread")]
async fn metadata_is_renewed_in_the_background_before_it_expires() {
    for (cache_control, fresh_seconds) in [
        ("public", 3600),
        ("max-age=1000", 1000),
        ("max-age=1", 300),
        ("no-store", 300),
        ("private, max-age=99999999", 86_400),
    ] {
        let mut service = Service::start().await;
        service.idp.behave().cache_control = cache_control;
        service.begin(begin_request()).await.expect("begun");
        service.clock.advance(Duration::from_secs(fresh_seconds / 5 * 4 - 1));
        service.begin(begin_request()).await.expect("begun");
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(service.idp.count(METADATA), 1, "{cache_control}: fresh");
        service.idp.behave().metadata_delay = Duration::from_millis(200);
        service.clock.advance(Duration::from_secs(1));
        service.begin(begin_request()).await.expect("begun");
        eventually("a renewal", || async { service.idp.count("/keys") == 2 }).await;
    }
}

/// An IdP that fails: what it published before stays in use for a day.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_good_serves_for_a_day_while_the_idp_fails_and_no_error_page_replaces_it() {
    let mut service = Service::start().await;
    service.log_in().await.expect("a login");
    for answer in [
        (503, String::new(), String::new()),
        (200, "<html>".to_owned(), String::new()),
        (200, r#"{"keys":[]}"#.to_owned(), String::new()),
    ] {
        service.idp.behave().answers.insert("/keys", answer);
        service.clock.advance(Duration::from_secs(7 * 3600));
        let fetched = service.idp.count("/keys");
        service.log_in().await.expect("a login with the old keys");
        eventually("a renewal was attempted", || async { service.idp.count("/keys") > fetched })
            .await;
        // Its outcome must be stored before the next renewal, which would join it.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    // 21 hours have passed; the keys' own hour and the day of grace end after 25.
    service.clock.advance(Duration::from_secs(4 * 3600 - 1));
    service.begin(begin_request()).await.expect("begun with the old keys");
    // Past the end of the day, and past the pause after the last failed fetch.
    service.clock.advance(Duration::from_secs(4));
    assert_eq!(reason(service.begin(begin_request()).await), "PROVIDER_METADATA_INVALID");
    service.idp.behave().answers.clear();
    service.clock.advance(Duration::from_secs(2));
    service.log_in().await.expect("the IdP is back");
}

/// A key that the IdP removed is not accepted after the renewal.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_the_idp_removed_is_gone_after_the_renewal() {
    let mut service = Service::start().await;
    service.log_in().await.expect("the RSA key");
    service.idp.behave().signer = Signer::Es256;
    service.log_in().await.expect("the EC key");
    let only_ec = service.idp.published_keys(|kid| kid == "ec");
    service.idp.behave().answers.insert("/keys", (200, only_ec.to_string(), String::new()));
    service.clock.advance(Duration::from_secs(3600));
    service.begin(begin_request()).await.expect("begun");
    eventually("a renewal", || async { service.idp.count("/keys") == 2 }).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    service.idp.behave().signer = Signer::Rs256;
    assert_eq!(reason(service.log_in().await), "ID_TOKEN_SIGNATURE_INVALID");
}

/// Tokens signed by an unknown key must not cause a fetch each.
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_unknown_keys_makes_one_fetch_per_half_minute() {
    let mut service = Service::start().await;
    service.log_in().await.expect("a login");
    service.idp.behave().header = json!({ "kid": "unknown" });
    let mut calls = Vec::new();
    for _ in 0..20 {
        let callback = service.approved().await;
        let mut login = service.login.clone();
        calls.push(tokio::spawn(
            async move { login.complete_login(complete_request(&callback)).await },
        ));
    }
    for call in calls {
        assert_eq!(reason(call.await.expect("ended")), "ID_TOKEN_SIGNATURE_INVALID");
    }
    assert_eq!(service.idp.count("/keys"), 2, "the first fetch, and one for all of the tokens");
    service.clock.advance(Duration::from_secs(30));
    assert_eq!(reason(service.log_in().await), "ID_TOKEN_SIGNATURE_INVALID");
    assert_eq!(service.idp.count("/keys"), 3);
}
