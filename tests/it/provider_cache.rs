//! The cache of metadata and keys: how often an IdP is called, and what happens while it fails.

use std::time::Duration;

use peerpanda_sso::pb;
use serde_json::json;
use tonic_types::StatusExt;

use crate::fake_idp::Signer;
use crate::harness::{Service, begin_request, complete_request, eventually, reason, refused};

const METADATA: &str = "/.well-known/openid-configuration";

/// A cold cache: concurrent callers share one fetch.
#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_cold_callers_make_one_fetch() {
    let service =
        Service::start_with(|config| config.begin_rate_per_client.period = Duration::from_secs(1))
            .await;
    service.idp.behave().metadata_delay = Duration::from_millis(300);
    let calls: Vec<_> = (0..64)
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
async fn a_storm_of_unknown_keys_makes_few_fetches() {
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
    for _ in 0..3 {
        assert_eq!(reason(service.log_in().await), "ID_TOKEN_SIGNATURE_INVALID");
    }
    assert_eq!(service.idp.count("/keys"), 4, "the first fetch, and three for all of the tokens");
    service.clock.advance(Duration::from_secs(30));
    for _ in 0..2 {
        assert_eq!(reason(service.log_in().await), "ID_TOKEN_SIGNATURE_INVALID");
    }
    assert_eq!(service.idp.count("/keys"), 5, "one more per half minute");
}

fn publish_only(service: &Service, kid: &str) {
    service.idp.behave().keys = None;
    let keys = service.idp.published_keys(|own| own == kid);
    service.idp.behave().keys = Some(keys);
}

/// Keys that change faster than once in half a minute.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_change_a_few_times_in_a_row_cost_no_login() {
    let mut service = Service::start().await;
    for (signer, kid) in [
        (Signer::Rs256, "rsa"),
        (Signer::Es256, "ec"),
        (Signer::Es384, "ec384"),
        (Signer::EdDsa, "ed"),
    ] {
        publish_only(&service, kid);
        service.idp.behave().signer = signer;
        service.log_in().await.unwrap_or_else(|error| panic!("{kid}: {error:?}"));
    }
    publish_only(&service, "ec521");
    service.idp.behave().signer = Signer::Es512;
    service.clock.advance(Duration::from_secs(5));
    let refusal = refused(service.log_in().await);
    assert_eq!(refusal.metadata["cause"], "unknown_key", "{refusal:?}");
    let age = "the IdP's keys were last read 5 s ago, and may be read again in 25 s";
    assert!(refusal.message.contains(age), "{refusal:?}");
    service.clock.advance(Duration::from_secs(25));
    service.log_in().await.expect("as the message says");
}

/// The endpoint is first where `route` says, and then where the metadata says by default.
fn move_endpoint(service: &Service, member: &str, route: &str) {
    let url = format!("{}{route}", service.idp.issuer);
    service.idp.behave().metadata = json!({ member: url });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_moved_is_found_after_one_refused_login() {
    let mut service = Service::start().await;
    for (member, old, new, cause) in [
        ("token_endpoint", "/old-token", "/token", "token_http_status"),
        ("userinfo_endpoint", "/old-userinfo", "/userinfo", "userinfo_status"),
    ] {
        service.idp.behave().userinfo =
            json!({ "email": "alice@example.com", "given_name": "Alice", "family_name": "A" });
        service.idp.behave().routes.insert(old.to_owned(), new.to_owned());
        move_endpoint(&service, member, old);
        // So that the old place becomes known.
        service.clock.advance(Duration::from_secs(2 * 24 * 60 * 60));
        service.log_in().await.expect("a login before");
        service.idp.behave().routes.clear();
        service.idp.behave().metadata = json!({});
        let fetched = service.idp.count(METADATA);
        let refusal = refused(service.log_in().await);
        assert_eq!(refusal.metadata["cause"], cause, "{refusal:?}");
        eventually("the documents are fetched", || async { service.idp.count(METADATA) > fetched })
            .await;
        // Its outcome must be stored.
        tokio::time::sleep(Duration::from_millis(200)).await;
        service.log_in().await.unwrap_or_else(|error| panic!("{member}: {error:?}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_stays_away_is_looked_for_a_few_times() {
    let mut service = Service::start().await;
    service.idp.behave().answers.insert("/token", (404, String::new(), String::new()));
    for _ in 0..8 {
        assert_eq!(reason(service.log_in().await), "TOKEN_RESPONSE_INVALID");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(service.idp.count(METADATA), 4, "the first fetch, and three");
    service.idp.behave().answers.clear();
    service.idp.behave().header = json!({ "kid": "unknown" });
    assert_eq!(reason(service.log_in().await), "ID_TOKEN_SIGNATURE_INVALID");
    assert_eq!(service.idp.count(METADATA), 5, "an unknown key has a limit of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_moved_are_found_by_the_login_that_lacks_them() {
    let mut service = Service::start().await;
    service.idp.behave().routes.insert("/old-keys".to_owned(), "/keys".to_owned());
    move_endpoint(&service, "jwks_uri", "/old-keys");
    publish_only(&service, "rsa");
    service.log_in().await.expect("a login before");
    service.idp.behave().routes.clear();
    service.idp.behave().metadata = json!({});
    service.idp.behave().keys = None;
    service.idp.behave().signer = Signer::Es256;
    service.log_in().await.expect("a token by a key at the new place");
}

#[tokio::test(flavor = "multi_thread")]
async fn new_keys_are_found_while_the_metadata_is_away() {
    let mut service = Service::start().await;
    publish_only(&service, "rsa");
    service.log_in().await.expect("a login before");
    service.idp.behave().answers.insert(METADATA, (503, String::new(), String::new()));
    service.idp.behave().keys = None;
    service.idp.behave().signer = Signer::Es256;
    service.log_in().await.expect("a token by the new key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_replaces_what_is_cached() {
    let mut service = Service::start().await;
    service.idp.behave().routes.insert("/old-token".to_owned(), "/token".to_owned());
    move_endpoint(&service, "token_endpoint", "/old-token");
    service.log_in().await.expect("a login before");
    service.idp.behave().routes.clear();
    service.idp.behave().metadata = json!({});
    service.check("acme").await.expect("checked");
    service.log_in().await.expect("a login where the check has seen the endpoint");
}

/// Bounds: the cache is one of bytes. With room for hundreds of usual IdPs (8 MiB), it keeps few of those
/// whose documents are as large as is accepted.
#[tokio::test(flavor = "multi_thread")]
async fn large_documents_push_each_other_out_and_are_fetched_again() {
    const ACCOUNTS: usize = 12;
    let mut service = Service::start_with(|config| config.memory_pending_logins = 100_000).await;
    let slugs = |size: &str| (0..ACCOUNTS).map(|n| format!("{size}-{n}")).collect::<Vec<_>>();
    let (usual, large) = (slugs("usual"), slugs("large"));
    for slug in usual.iter().chain(&large) {
        let connection = pb::Connection { slug: slug.clone(), ..service.connection() };
        service.create(connection).await.expect("created");
    }
    let begin = |slug: &str| {
        let mut login = service.login.clone();
        let request = pb::BeginLoginRequest { slug: slug.to_owned(), ..begin_request() };
        async move { login.begin_login(request).await.expect("begun").into_inner() }
    };
    for slug in usual.iter().chain(&usual) {
        begin(slug).await;
    }
    assert_eq!(service.idp.count("/keys"), ACCOUNTS, "all are kept");

    let mut keys = service.idp.published_keys(|_| true);
    keys["x5c"] = "x".repeat(1000 * 1024).into();
    service.idp.behave().keys = Some(keys);
    for slug in &large {
        begin(slug).await;
    }
    // An entry weighs twice what its documents do, so that four fit.
    eventually("at least eight of twelve are fetched again", || async {
        let fetched = service.idp.count("/keys");
        for slug in &large {
            begin(slug).await;
        }
        service.idp.count("/keys") - fetched >= 8
    })
    .await;

    for slug in large {
        let begun = begin(&slug).await;
        let callback = service.idp.approve(&begun.redirect_url, "alice");
        let request = pb::CompleteLoginRequest { slug, ..complete_request(&callback) };
        service.login.clone().complete_login(request).await.expect("a login");
    }
}

/// Bounds: a hung IdP whose metadata is not known yet. Each caller would wait for its deadline, and all
/// together take the calls of the other accounts.
#[tokio::test(flavor = "multi_thread")]
async fn an_idp_that_hangs_before_its_first_login_takes_no_other_accounts_room() {
    let mut service = Service::start_with(|config| config.max_in_flight = 100).await;
    let other = service.with_another_account().await;
    service.idp.behave().metadata_delay = Duration::from_secs(60);
    let by_client = |n: u32| {
        let mut login = service.login.clone();
        let client_key = Some(format!("client-{n}"));
        let request = pb::BeginLoginRequest { client_key, ..begin_request() };
        async move { login.begin_login(request).await }
    };
    let waiting: Vec<_> = (0..65).map(|n| tokio::spawn(by_client(n))).collect();
    eventually("one of them is refused", || async {
        waiting.iter().any(tokio::task::JoinHandle::is_finished)
    })
    .await;
    let refusals: Vec<_> = futures_util::future::join_all((0..30).map(by_client)).await;
    assert_eq!(waiting.iter().filter(|call| !call.is_finished()).count(), 64);
    service.log_in_at_other(&other).await.expect("a login at the other account");
    for refusal in refusals {
        let refusal = refused(refusal);
        assert_eq!(refusal.metadata["cause"], "too_many_waiting", "{refusal:?}");
        assert_eq!(
            (refusal.reason.as_str(), refusal.retry.as_str()),
            ("PROVIDER_UNAVAILABLE", "call")
        );
        assert!(refusal.message.contains("this account"), "whose room is full: {refusal:?}");
    }
}

/// RFC 6585 4: an IdP that limits requests is not asked again before the time it names.
#[tokio::test(flavor = "multi_thread")]
async fn an_idp_that_limits_requests_is_asked_again_when_it_says() {
    let mut service = Service::start().await;
    service.idp.behave().answers.insert(METADATA, (429, String::new(), String::new()));
    service.idp.behave().retry_after = Some("20");
    let status = service.begin(begin_request()).await.expect_err("limited");
    let wait = status.get_details_retry_info().and_then(|info| info.retry_delay);
    assert_eq!(wait, Some(Duration::from_secs(20)));
    service.idp.behave().answers.clear();
    service.clock.advance(Duration::from_secs(19));
    assert_eq!(reason(service.begin(begin_request()).await), "PROVIDER_UNAVAILABLE");
    assert_eq!(service.idp.count(METADATA), 1);
    service.clock.advance(Duration::from_secs(1));
    service.begin(begin_request()).await.expect("begun");
}
