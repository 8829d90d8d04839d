//! What support sees of an account's logins.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use peerpanda_sso::clock::{Clock, ManualClock, SystemClock};
use peerpanda_sso::config::{Config, Database};
use peerpanda_sso::model::cause::Cause;
use peerpanda_sso::model::reason::Reason;
use peerpanda_sso::pb;
use serde_json::json;

use crate::binary::Program;
use crate::fake_idp::FakeIdp;
use crate::harness::{
    Refused, Service, begin_request, complete_request, config, eventually, key, postgres_url,
    reason, redis_url, refused,
};

type Query = pb::ListLoginAttemptsRequest;

async fn attempts(service: &mut Service) -> Vec<pb::LoginAttempt> {
    of_query(service, Query { slug: "acme".to_owned(), ..Query::default() }).await
}

async fn of_query(service: &mut Service, query: Query) -> Vec<pb::LoginAttempt> {
    service.admin.list_login_attempts(query).await.expect("listed").into_inner().attempts
}

async fn logins(service: &mut Service) -> pb::LoginSummary {
    service.get("acme").await.expect("a connection").logins.expect("a summary")
}

impl Service {
    /// The IdP sends the person of a login at `acme` back with an error.
    async fn refused_by_idp(&mut self, error: &str, description: &str) -> Refused {
        let callback = self.approved().await;
        let request = pb::CompleteLoginRequest {
            code: String::new(),
            error: Some(error.to_owned()),
            error_description: Some(description.to_owned()),
            ..complete_request(&callback)
        };
        refused(self.complete(request).await)
    }

    async fn begin_several(&mut self, count: usize) {
        for _ in 0..count {
            self.begin(begin_request()).await.expect("begun");
        }
    }
}

#[tokio::test]
async fn a_missing_claim_is_shown_as_missing_whatever_name_it_is_mapped_from() {
    let mut service = Service::start().await;
    let map = |connection: &mut pb::Connection| {
        connection.claim_mapping = Some(pb::ClaimMapping {
            given_name: vec!["vorname".to_owned(), "rufname".to_owned()],
            ..pb::ClaimMapping::default()
        });
    };
    service.edit(&["claim_mapping"], map).await.expect("edited");
    let refused = refused(service.log_in().await);
    assert_eq!(refused.reason, "CLAIM_MISSING");
    assert_eq!(refused.metadata["claim"], "vorname or rufname");
    let attempt = attempts(&mut service).await.remove(0);
    assert_eq!(attempt.claims_missing, ["given_name"]);
    assert_eq!(attempt.claims_present, ["email", "family_name"]);
}

#[tokio::test]
async fn an_attempt_has_the_reason_the_cause_and_the_owner_of_its_refusal() {
    let mut service = Service::start().await;
    service.idp.behave().claims = json!({ "aud": "somebody-else" });
    let by_token = refused(service.log_in().await);
    let begun = service.begin(begin_request()).await.expect("begun");
    let callback = service.idp.approve(&begun.redirect_url, "alice");
    let by_callback = refused(
        service
            .complete(pb::CompleteLoginRequest {
                code: String::new(),
                error: Some("invalid_scope".to_owned()),
                ..complete_request(&callback)
            })
            .await,
    );
    assert_eq!(by_callback.metadata["cause"], "invalid_scope");
    let listed = attempts(&mut service).await;
    for (attempt, refused) in listed.iter().zip([by_callback, by_token]) {
        assert_eq!(attempt.reason, refused.reason);
        assert_eq!(attempt.cause, refused.metadata["cause"]);
        assert_eq!(attempt.owner, refused.owner);
        let cause = Cause::parse(&attempt.cause).expect("a known cause");
        assert_eq!(Some(cause.reason()), Reason::parse(&attempt.reason));
        assert!(!attempt.remedy.is_empty(), "{attempt:?}");
    }
}

#[tokio::test]
async fn a_callback_with_an_unrecognized_state_is_counted_and_takes_no_row() {
    let mut service = Service::start().await;
    let callback = service.approved().await;
    let made_up = pb::CompleteLoginRequest { state: "A".repeat(75), ..complete_request(&callback) };
    assert_eq!(reason(service.complete(made_up).await), "STATE_INVALID");
    assert_eq!(attempts(&mut service).await, []);
    let logins = service.get("acme").await.expect("a connection").logins.expect("a summary");
    assert_eq!(logins.unrecognized_callbacks, 1);
}

/// A stranger can begin a login and send an error callback, as often as the rate limits allow.
#[tokio::test]
async fn refusals_of_one_kind_do_not_push_out_those_of_another() {
    let mut service = Service::start().await;
    service.idp.behave().claims = json!({ "given_name": null });
    service.idp.behave().userinfo = json!({});
    assert_eq!(reason(service.log_in().await), "CLAIM_MISSING");
    for number in 0..250 {
        service.clock.advance(Duration::from_millis(1));
        // Each of its own, so that they aren't folded.
        let words = format!("call n{number}");
        let refused = service.refused_by_idp("access_denied", &words).await;
        assert_eq!(refused.reason, "IDP_REFUSED");
    }
    let listed = attempts(&mut service).await;
    assert!(listed.iter().any(|attempt| attempt.reason == "CLAIM_MISSING"), "{}", listed.len());
    assert!(listed.len() < 100, "{} attempts", listed.len());
}

/// Whoever begins a login can complete it with any error.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_code_that_nobody_knows_is_in_the_log_alone() {
    let data = tempfile::tempdir().expect("a directory");
    let idp = FakeIdp::start(Arc::new(SystemClock)).await;
    let mut program = Program::serve(data.path(), &[]).await;
    program.set_up(&idp).await;
    for (error, shown) in [
        ("please_call_555", "other"),
        ("unsupported_response_mode", "unsupported_response_mode"),
        ("temporarily_unavailable", "temporarily_unavailable"),
    ] {
        let begun = program.login.begin_login(begin_request()).await.expect("begun").into_inner();
        let request = pb::CompleteLoginRequest {
            code: String::new(),
            error: Some(error.to_owned()),
            ..complete_request(&idp.approve(&begun.redirect_url, "alice"))
        };
        let refusal = refused(program.login.complete_login(request).await);
        assert_eq!(
            (refusal.reason.as_str(), &*refusal.metadata["idp_error"]),
            ("IDP_REFUSED", shown)
        );
        let trace_id = &refusal.metadata["trace_id"];
        eventually("it is shown to support", || {
            let mut admin = program.admin.clone();
            let request = pb::ListLoginAttemptsRequest {
                slug: "acme".to_owned(),
                page_size: 0,
                ..Default::default()
            };
            async move {
                let listed = admin.list_login_attempts(request).await.expect("listed").into_inner();
                let attempt = listed.attempts.first();
                attempt.is_some_and(|attempt| {
                    attempt.trace_id == *trace_id && attempt.idp_error == shown
                })
            }
        })
        .await;
        let log = program.log.lock().unwrap_or_else(PoisonError::into_inner).join("\n");
        let line = log.lines().find(|line| line.contains(trace_id)).expect("a line of the refusal");
        assert!(line.contains(error), "the operator finds what was sent: {line}");
    }
}

#[tokio::test]
async fn a_login_refused_at_its_begin_is_recorded_with_stage_and_cause() {
    let mut service = Service::start().await;
    let foreign = pb::BeginLoginRequest { iss: Some("https://x".to_owned()), ..begin_request() };
    let by_iss = refused(service.begin(foreign).await);
    service.idp.behave().metadata = json!({ "issuer": "https://other.example" });
    service.edit(&["display_name"], |it| it.display_name = "New".to_owned()).await.expect("edited");
    let by_issuer = refused(service.begin(begin_request()).await);
    service.idp.behave().metadata = json!({});
    service.idp.behave().answers.insert("/keys", (503, String::new(), String::new()));
    service.edit(&["display_name"], |it| it.display_name = "Now".to_owned()).await.expect("edited");
    let by_keys = refused(service.begin(begin_request()).await);
    service
        .edit(&["state"], |it| it.state = pb::ConnectionState::Disabled.into())
        .await
        .expect("disabled");
    let by_state = refused(service.begin(begin_request()).await);

    let listed = attempts(&mut service).await;
    assert_eq!(listed.len(), 4, "{listed:?}");
    for (attempt, (refused, cause, document, detail)) in listed.iter().rev().zip([
        (by_iss, "iss_differs", "", "iss is \"https://x\""),
        (by_issuer, "issuer_mismatch", "metadata", "issuer is \"https://other.example\""),
        (by_keys, "http_5xx", "keys", "HTTP 503"),
        (by_state, "disabled", "", "the account's connection is disabled"),
    ]) {
        assert_eq!(attempt.stage(), pb::LoginStage::Begin);
        assert_eq!((attempt.reason.as_str(), attempt.cause.as_str()), (&*refused.reason, cause));
        assert_eq!((&attempt.owner, &attempt.slug), (&refused.owner, &"acme".to_owned()));
        assert_eq!(attempt.trace_id, refused.metadata["trace_id"]);
        assert!(!attempt.remedy.is_empty(), "{attempt:?}");
        assert_eq!(attempt.document, document, "{attempt:?}");
        assert!(attempt.detail.contains(detail), "{attempt:?}");
        assert_eq!((attempt.count, attempt.time), (1, attempt.last_time));
    }
    let summary = logins(&mut service).await;
    assert_eq!((summary.begun_24h, summary.refused_24h), (0, 4));
    let failures = summary.failures.values().sum::<u32>();
    assert_eq!((failures, summary.failures["CONNECTION_DISABLED"]), (4, 1));
}

#[tokio::test]
async fn a_begin_that_the_caller_cancels_is_recorded() {
    let mut service = Service::start().await;
    service.idp.behave().metadata_delay = Duration::from_secs(30);
    let mut request = tonic::Request::new(begin_request());
    request.set_timeout(Duration::from_millis(100));
    service.login.begin_login(request).await.expect_err("cancelled");
    eventually("it is recorded", || {
        let mut admin = service.admin.clone();
        async move {
            let query = Query { slug: "acme".to_owned(), ..Query::default() };
            let listed = admin.list_login_attempts(query).await.expect("listed").into_inner();
            let [attempt] = &*listed.attempts else { return false };
            attempt.stage() == pb::LoginStage::Begin
                && attempt.cause == "canceled"
                && attempt.phases.iter().any(|phase| phase.phase == "metadata")
        }
    })
    .await;
}

#[tokio::test]
async fn an_unknown_account_leaves_no_attempt() {
    let one = peerpanda_sso::model::rate::Rate::parse("1/h").expect("a rate");
    let mut service = Service::start_with(|config| config.begin_rate_per_client = one).await;
    let unknown = pb::BeginLoginRequest { slug: "late".to_owned(), ..begin_request() };
    assert_eq!(reason(service.begin(unknown).await), "CONNECTION_NOT_FOUND");
    let malformed =
        pb::BeginLoginRequest { return_to: Some("//evil.example".to_owned()), ..begin_request() };
    assert_eq!(reason(service.begin(malformed).await), "BAD_REQUEST");
    // The limit of one network says nothing about the account.
    let stranger =
        pb::BeginLoginRequest { client_key: Some("network".to_owned()), ..begin_request() };
    service.begin(stranger.clone()).await.expect("begun");
    assert_eq!(reason(service.begin(stranger).await), "RATE_LIMITED");
    service.create(service.idp.connection("late")).await.expect("created");
    assert_eq!(of_query(&mut service, Query::default()).await, []);
    let logins = logins(&mut service).await;
    assert_eq!((logins.begun_24h, logins.refused_24h), (1, 0));
}

#[tokio::test]
async fn repeats_of_one_refusal_fold_and_keep_their_trace_ids() {
    let mut service = Service::start().await;
    // In the middle of an hour, so that it doesn't end in the middle of the test.
    let into_hour = service.clock.unix_millis().0 % 3_600_000;
    service.clock.advance(Duration::from_millis(3_600_000 + 1_800_000 - into_hour));
    let mut trace_ids = Vec::new();
    for number in 0..5 {
        service.clock.advance(Duration::from_secs(60));
        let words =
            format!("AADSTS50105: not assigned. Trace ID: 6f1ee4f5-0000-4c35-9a6f-{number:012}");
        let refused = service.refused_by_idp("access_denied", &words).await;
        trace_ids.push(refused.metadata["trace_id"].clone());
        if number == 2 {
            attempts(&mut service).await;
        }
    }
    service.refused_by_idp("access_denied", "AADSTS53003: by a policy").await;
    let listed = attempts(&mut service).await;
    let [other, folded] = &*listed else { panic!("two: {listed:?}") };
    assert_eq!((other.count, folded.count), (1, 5));
    let seconds = |time: &Option<prost_types::Timestamp>| time.expect("set").seconds;
    assert_eq!(seconds(&folded.last_time) - seconds(&folded.time), 4 * 60);
    assert_eq!(folded.trace_id, trace_ids[4], "the latest");
    for trace_id in &trace_ids {
        let query = Query { trace_id: trace_id.clone(), ..Query::default() };
        let found = of_query(&mut service, query).await;
        let [found] = &*found else { panic!("one: {found:?}") };
        assert_eq!((&found.trace_id, found.count), (trace_id, 5));
    }
    let logins_now = logins(&mut service).await;
    assert_eq!((logins_now.failures["IDP_REFUSED"], logins_now.refused_24h), (6, 6));
    service.clock.advance(Duration::from_secs(3600));
    service.refused_by_idp("access_denied", "AADSTS53003: by a policy").await;
    assert_eq!(attempts(&mut service).await.len(), 3, "an hour later it is another attempt");
}

#[tokio::test]
async fn logins_that_never_return_raise_a_suspicion() {
    let mut service = Service::start().await;
    service.begin_several(3).await;
    service.clock.advance(Duration::from_secs(4 * 60));
    assert_eq!(logins(&mut service).await.suspicion, None, "people may still be at the IdP");
    service.clock.advance(Duration::from_secs(60));
    let summary = logins(&mut service).await;
    assert_eq!((summary.begun_24h, summary.returned_24h, summary.refused_24h), (3, 0, 0));
    let suspicion = summary.suspicion.expect("a suspicion");
    assert!(suspicion.text.starts_with("3 logins have begun since "), "{}", suspicion.text);
    assert!(suspicion.text.contains("the redirect URI isn't registered"), "{}", suspicion.text);
    assert_eq!(suspicion.owner, "customer_idp_admin");
    let query = Query { slug: "acme".to_owned(), ..Query::default() };
    let listed = service.admin.list_login_attempts(query).await.expect("listed").into_inner();
    assert_eq!(listed.summary.expect("a summary").suspicion, Some(suspicion));
    let request = pb::ListConnectionsRequest::default();
    let page = service.admin.list_connections(request).await.expect("listed").into_inner();
    assert!(page.connections[0].logins.as_ref().is_some_and(|it| it.suspicion.is_some()));
}

#[tokio::test]
async fn one_return_ends_the_suspicion() {
    let mut service = Service::start().await;
    service.begin_several(3).await;
    service.clock.advance(Duration::from_secs(5 * 60));
    assert!(logins(&mut service).await.suspicion.is_some());
    // Even one with an error.
    service.refused_by_idp("access_denied", "").await;
    let summary = logins(&mut service).await;
    assert_eq!(summary.suspicion, None);
    assert_eq!((summary.begun_24h, summary.returned_24h, summary.completed_24h), (4, 1, 0));
    service.begin_several(2).await;
    service.clock.advance(Duration::from_secs(10 * 60));
    assert_eq!(logins(&mut service).await.suspicion, None, "they are counted from the return on");
    service.begin_several(1).await;
    assert!(logins(&mut service).await.suspicion.is_some());
}

#[tokio::test]
async fn two_begun_logins_raise_no_suspicion() {
    let mut service = Service::start().await;
    service.begin_several(2).await;
    service.clock.advance(Duration::from_secs(60 * 60));
    assert_eq!(logins(&mut service).await.suspicion, None);
    // Nobody has tried for a day.
    service.begin_several(1).await;
    assert!(logins(&mut service).await.suspicion.is_some());
    service.clock.advance(Duration::from_secs(25 * 60 * 60));
    assert_eq!(logins(&mut service).await.suspicion, None);
}

#[tokio::test]
async fn attempts_of_all_accounts_are_found_by_trace_reason_and_time() {
    let mut service = Service::start().await;
    let other = service.with_another_account().await;
    service.log_in().await.expect("a login");
    let refused_at_acme = service.refused_by_idp("access_denied", "").await;
    let earlier = service.clock.unix_millis();
    service.clock.advance(Duration::from_secs(60));
    other.behave().token_answer = Some((401, r#"{"error":"invalid_client"}"#.to_owned()));
    let refused_at_other = refused(service.log_in_at_other(&other).await);

    let all = of_query(&mut service, Query::default()).await;
    let slugs: Vec<_> = all.iter().map(|attempt| attempt.slug.as_str()).collect();
    assert_eq!(slugs, ["other", "acme", "acme"]);
    assert!(all[0].remedy.contains("client_secret_basic"), "{}", all[0].remedy);
    let trace_id = refused_at_other.metadata["trace_id"].clone();
    let of = |slug: &str| Query { slug: slug.to_owned(), ..Query::default() };
    let since = |millis: u64| {
        let seconds = i64::try_from(millis / 1000).expect("a time");
        Some(prost_types::Timestamp { seconds, nanos: 0 })
    };
    for (query, expected) in [
        (Query { trace_id: trace_id.to_uppercase(), ..Query::default() }, vec!["other"]),
        (Query { trace_id: trace_id.clone(), ..of("acme") }, vec![]),
        (Query { trace_id: "0".repeat(32), ..Query::default() }, vec![]),
        (Query { reason: "IDP_REFUSED".to_owned(), ..Query::default() }, vec!["acme"]),
        (Query { reason: "IDP_REFUSED".to_owned(), ..of("other") }, vec![]),
        (Query { reason: "CLIENT_REJECTED".to_owned(), ..of("other") }, vec!["other"]),
        (Query { since: since(earlier.0 + 30_000), ..Query::default() }, vec!["other"]),
        (Query { since: since(earlier.0 + 30_000), ..of("acme") }, vec![]),
        (Query { page_size: 1, ..Query::default() }, vec!["other"]),
    ] {
        let found = of_query(&mut service, query.clone()).await;
        let slugs: Vec<_> = found.iter().map(|attempt| attempt.slug.as_str()).collect();
        assert_eq!(slugs, expected, "{query:?}");
    }
    let trace_id = refused_at_acme.metadata["trace_id"].clone();
    let query = Query { trace_id, reason: "IDP_REFUSED".to_owned(), ..of("acme") };
    assert_eq!(of_query(&mut service, query).await.len(), 1);
    let listed = service.admin.list_login_attempts(Query::default()).await.expect("listed");
    let summary = listed.into_inner().summary.expect("a summary");
    assert_eq!((summary.begun_24h, summary.completed_24h, summary.refused_24h), (3, 1, 2));
    assert_eq!(summary.failures.len(), 2);
    assert!(summary.last_success_time.is_some() && summary.suspicion.is_none());

    // Those of a deleted account are gone with it.
    let revision = service.get("other").await.expect("there").revision;
    let delete = pb::DeleteConnectionRequest { slug: "other".to_owned(), revision };
    service.admin.delete_connection(delete).await.expect("deleted");
    assert_eq!(of_query(&mut service, Query::default()).await.len(), 2);
    assert_eq!(
        reason(service.admin.list_login_attempts(of("other")).await),
        "CONNECTION_NOT_FOUND"
    );
}

/// With the interval at which a service writes.
#[tokio::test(flavor = "multi_thread")]
async fn the_other_replica_shows_an_attempt_within_5_seconds() {
    let (postgres, key, clock) =
        (postgres_url().await, key(), Arc::new(ManualClock::starting_now()));
    let replica = || {
        let mut config =
            config(Database::Postgres(postgres.clone().into()), Some(redis_url()), &key);
        config.intervals.attempts_write = Config::local(
            String::new(),
            Database::Postgres(postgres.clone().into()),
            peerpanda_sso::store::seal::Keyring::new(vec![key.clone()]).expect("a key"),
        )
        .intervals
        .attempts_write;
        config
    };
    let mut one = Service::over(replica(), Arc::clone(&clock)).await;
    let mut two = Service::over(replica(), clock).await;
    let connection = one.connection();
    one.create(connection).await.expect("created");
    one.begin_several(1).await;
    let refused = one.refused_by_idp("access_denied", "").await;
    let ended = tokio::time::Instant::now();
    loop {
        let listed = attempts(&mut two).await;
        let summary = logins(&mut two).await;
        if let [attempt] = &*listed {
            assert_eq!(attempt.trace_id, refused.metadata["trace_id"]);
            assert_eq!((summary.begun_24h, summary.refused_24h), (2, 1));
            break;
        }
        assert!(ended.elapsed() < Duration::from_secs(5), "{listed:?}");
    }
}

#[tokio::test]
async fn an_attempt_holds_the_idps_words_without_e_mail_addresses() {
    let mut service = Service::start().await;
    let words = "AADSTS50105: ada@example.com is not assigned to the application";
    let refused_login = service.refused_by_idp("access_denied", words).await;
    assert!(!refused_login.message.contains("example.com"), "{}", refused_login.message);
    let body = json!({
        "error": "invalid_client",
        "error_description": "AADSTS7000215: Invalid secret, asked by ada@example.com",
    });
    service.idp.behave().token_answer = Some((401, body.to_string()));
    assert_eq!(reason(service.log_in().await), "CLIENT_REJECTED");
    service.idp.behave().token_answer = None;
    // The values of claims are in no detail.
    service
        .edit(&["allowed_email_domains"], |it| {
            it.allowed_email_domains = vec!["b.example".to_owned()]
        })
        .await
        .expect("edited");
    let by_domain = refused(service.log_in().await);
    assert_eq!(by_domain.reason, "EMAIL_DOMAIN_NOT_ALLOWED");
    let listed = attempts(&mut service).await;
    let [domain, client, assigned] = &*listed else { panic!("three: {listed:?}") };
    assert_eq!(
        assigned.idp_error_description,
        "AADSTS50105: [e-mail] is not assigned to the application"
    );
    assert_eq!(assigned.stage(), pb::LoginStage::Complete);
    assert_eq!(client.idp_error_description, "AADSTS7000215: Invalid secret, asked by [e-mail]");
    assert_eq!((client.document.as_str(), domain.document.as_str()), ("token", ""));
    assert!(client.detail.contains("the token endpoint refused the client"), "{client:?}");
    assert_eq!(domain.detail, "");
    assert!(!format!("{listed:?}").contains("example.com"), "{listed:?}");
}

#[tokio::test]
async fn counters_are_of_the_last_24_hours() {
    let mut service = Service::start().await;
    service.log_in().await.expect("a login");
    service.refused_by_idp("access_denied", "").await;
    let counts = |summary: pb::LoginSummary| {
        [summary.begun_24h, summary.returned_24h, summary.completed_24h, summary.refused_24h]
    };
    assert_eq!(counts(logins(&mut service).await), [2, 2, 1, 1]);
    service.clock.advance(Duration::from_secs(23 * 60 * 60));
    service.begin_several(1).await;
    assert_eq!(counts(logins(&mut service).await), [3, 2, 1, 1]);
    service.clock.advance(Duration::from_secs(2 * 60 * 60));
    let summary = logins(&mut service).await;
    assert!(summary.failures.is_empty() && summary.last_success_time.is_some());
    assert_eq!(counts(summary), [1, 0, 0, 0]);
    // A callback that arrives again is another refusal, and not another return.
    let callback = complete_request(&service.approved().await);
    let without = pb::CompleteLoginRequest { iss: None, ..callback };
    assert_eq!(reason(service.complete(without.clone()).await), "ISSUER_MISMATCH");
    assert_eq!(reason(service.complete(without).await), "STATE_USED");
    assert_eq!(counts(logins(&mut service).await), [2, 1, 0, 2]);
}

#[tokio::test]
async fn a_flood_of_one_account_takes_no_room_of_another() {
    let mut service = Service::start().await;
    let other = service.with_another_account().await;
    other.behave().token_answer = Some((401, r#"{"error":"invalid_client"}"#.to_owned()));
    let at_other = refused(service.log_in_at_other(&other).await).metadata["trace_id"].clone();
    for number in 0..300 {
        service.clock.advance(Duration::from_millis(1));
        service.refused_by_idp("access_denied", &format!("n{}", number % 100)).await;
    }
    let kept = attempts(&mut service).await;
    assert!((50..100).contains(&kept.len()), "{} attempts", kept.len());
    let query = Query { slug: "other".to_owned(), ..Query::default() };
    let of_other = of_query(&mut service, query).await;
    let trace_ids: HashSet<_> = of_other.iter().map(|attempt| &*attempt.trace_id).collect();
    assert_eq!(trace_ids, [at_other.as_str()].into());
    let query = Query { trace_id: at_other, ..Query::default() };
    assert_eq!(of_query(&mut service, query).await.len(), 1);
}
