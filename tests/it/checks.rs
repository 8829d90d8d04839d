//! What support sees and does without the customer: checks, activation, secrets, attempts, changes
//! and guides.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use peerpanda_sso::clock::ManualClock;
use peerpanda_sso::config::Database;
use peerpanda_sso::model::address::AddressPolicy;
use peerpanda_sso::pb;
use peerpanda_sso::pb::CheckOutcome::{self, Fail, Inconclusive, Pass, Skipped, Warn};
use peerpanda_sso::pb::check_connection_response::Found;
use tonic::Status;

use crate::fake_idp::FakeIdp;
use crate::harness::{
    PUBLIC, Service, begin_request, complete_request, config, eventually, key, postgres_url,
    reason, redis_url, refused,
};

/// What a check found, by id; and its summary.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) results: BTreeMap<String, pb::CheckResult>,
    pub(crate) summary: pb::CheckSummary,
}

impl Checked {
    pub(crate) fn outcome(&self, id: &str) -> CheckOutcome {
        self.results
            .get(id)
            .unwrap_or_else(|| panic!("no result {id}: {:?}", self.results.keys()))
            .outcome()
    }

    pub(crate) fn found(&self, id: &str) -> &str {
        &self.results[id].found
    }
}

impl Service {
    pub(crate) async fn check(&mut self, slug: &str) -> Result<Checked, Status> {
        self.check_with(pb::CheckConnectionRequest { slug: slug.to_owned(), ..Default::default() })
            .await
    }

    pub(crate) async fn check_with(
        &mut self,
        request: pb::CheckConnectionRequest,
    ) -> Result<Checked, Status> {
        // Keeps the checks of one test within the rate limit.
        self.clock.advance(Duration::from_secs(11));
        let before = self.idp.seen().len();
        let mut stream = self.admin.check_connection(request).await?.into_inner();
        let mut results = BTreeMap::new();
        let mut summary = None;
        while let Some(message) = stream.message().await? {
            match message.found.expect("something was found") {
                Found::Result(result) => {
                    assert!(!result.expected.is_empty() && !result.found.is_empty(), "{result:?}");
                    assert!(!format!("{result:?}").contains("CANARY"), "no secret: {result:?}");
                    if result.outcome() == Fail {
                        assert!(
                            result.actor() != pb::Party::Unspecified || result.remedy.is_empty(),
                            "{result:?}"
                        );
                    }
                    assert!(results.insert(result.id.clone(), result).is_none(), "each once");
                }
                Found::Summary(found) => summary = Some(found),
            }
        }
        let requests = self.idp.seen().len() - before;
        assert!(requests <= 20, "{requests} requests");
        Ok(Checked { results, summary: summary.expect("a summary at the end") })
    }

    pub(crate) async fn attempts(&mut self) -> pb::ListLoginAttemptsResponse {
        let request = pb::ListLoginAttemptsRequest {
            slug: "acme".to_owned(),
            page_size: 0,
            ..Default::default()
        };
        self.admin.list_login_attempts(request).await.expect("listed").into_inner()
    }

    pub(crate) async fn changes(&mut self) -> Vec<pb::ConnectionChange> {
        let request =
            pb::ListConnectionChangesRequest { slug: "acme".to_owned(), ..Default::default() };
        self.admin.list_connection_changes(request).await.expect("listed").into_inner().changes
    }

    pub(crate) async fn update(
        &mut self,
        paths: &[&str],
        connection: pb::Connection,
    ) -> Result<pb::UpdateConnectionResponse, Status> {
        let update_mask = Some(prost_types::FieldMask {
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        });
        let request = pb::UpdateConnectionRequest {
            connection: Some(connection),
            update_mask,
            force: false,
            validate_only: false,
        };
        Ok(self.admin.update_connection(request).await?.into_inner())
    }

    /// The account at a well-behaved IdP that knows its redirect URI, still TESTING.
    pub(crate) async fn testing() -> Self {
        let mut service = Self::start().await;
        service
            .edit(&["state"], |connection| connection.state = pb::ConnectionState::Testing.into())
            .await
            .expect("edited");
        service.idp.behave().registered_redirect =
            Some(format!("{PUBLIC}/app/accounts/oidc/acme/login/callback/"));
        service
    }
}

#[tokio::test]
async fn a_correct_connection_passes_and_the_check_is_recorded() {
    let mut service = Service::testing().await;
    let checked = service.check("acme").await.expect("checked");
    for id in [
        "metadata.document",
        "metadata.issuer",
        "metadata.endpoints",
        "jwks.keys",
        "client.credentials",
        "client.redirect_uri",
        "clock.skew",
    ] {
        assert_eq!(checked.outcome(id), Pass, "{id}: {}", checked.found(id));
    }
    assert!(checked.found("client.redirect_uri").contains("login_required"));
    assert!(
        checked.found("client.credentials").contains("invalid_grant"),
        "{}",
        checked.found("client.credentials")
    );
    assert_ne!(checked.summary.outcome(), Fail);
    let kept = service.get("acme").await.expect("there").last_check.expect("kept");
    assert!(kept.is_current && kept.passed.iter().any(|id| id == "client.credentials"));

    // If the IdP grants client_credentials, a token is proof enough, unless a wrong secret brings one, too.
    service.idp.behave().client_credentials = true;
    service.idp.behave().expects_post = true;
    let post = pb::TokenEndpointAuthMethod::ClientSecretPost.into();
    let edited = service.edit(&["token_endpoint_auth_method"], |connection| {
        connection.token_endpoint_auth_method = post;
    });
    edited.await.expect("edited");
    let tokens = service.idp.count("/token");
    let checked = service.check("acme").await.expect("checked");
    assert!(
        checked.found("client.credentials").contains("issued a token")
            && checked.found("client.credentials").contains("refuses a wrong secret"),
        "{}",
        checked.found("client.credentials")
    );
    assert_eq!(service.idp.count("/token"), tokens + 2);
    assert!(
        service.idp.seen().iter().all(|seen| !seen.path.contains("callback")),
        "our callback is never called"
    );
}

#[tokio::test]
async fn what_is_wrong_with_the_client_is_reported() {
    let mut service = Service::testing().await;
    let right = service.idp.client_secret.clone();
    service
        .edit(&["client_secret"], |connection| connection.client_secret = "CANARYwrong".to_owned())
        .await
        .expect("edited");
    let checked = service.check("acme").await.expect("checked");
    assert_eq!(
        checked.outcome("client.credentials"),
        Fail,
        "{}",
        checked.found("client.credentials")
    );
    assert!(checked.found("client.credentials").contains("invalid_client"));
    assert_eq!(checked.results["client.credentials"].actor(), pb::Party::Support);
    assert_eq!(checked.summary.failed, ["client.credentials"]);

    service
        .edit(&["client_secret"], |connection| connection.client_secret = right)
        .await
        .expect("edited");
    service.idp.behave().expects_post = true;
    let checked = service.check("acme").await.expect("checked");
    assert_eq!(checked.outcome("client.credentials"), Fail, "the wrong authentication method");
    service.idp.behave().expects_post = false;

    service.idp.behave().trusts_everybody = true;
    let checked = service.check("acme").await.expect("checked");
    assert_eq!(
        checked.outcome("client.credentials"),
        Inconclusive,
        "{}",
        checked.found("client.credentials")
    );
    assert_eq!(checked.summary.outcome(), Inconclusive, "neither proven nor disproven");
    service.idp.behave().trusts_everybody = false;

    service.idp.behave().registered_redirect = Some("https://elsewhere.example/".to_owned());
    let checked = service.check("acme").await.expect("checked");
    assert_eq!(checked.outcome("client.redirect_uri"), Fail);
    assert!(
        checked
            .found("client.redirect_uri")
            .contains("Error redirect_uri_mismatch: it is not registered")
    );
    assert!(
        checked.results["client.redirect_uri"]
            .remedy
            .contains("/app/accounts/oidc/acme/login/callback/")
    );
}

/// Keycloak's and Entra's errors for a wrong, an expired and an unknown client.
#[tokio::test]
async fn errors_about_the_client_are_explained() {
    let mut service = Service::testing().await;
    for (answer, outcome, words) in [
        (
            r#"{"error":"unauthorized_client","error_description":"Invalid client or Invalid client credentials"}"#,
            Fail,
            "Invalid client",
        ),
        (
            r#"{"error":"invalid_client","error_description":"AADSTS7000222: The provided client secret keys are expired."}"#,
            Fail,
            "has expired",
        ),
        (
            r#"{"error":"unauthorized_client","error_description":"AADSTS700016: Application not found"}"#,
            Fail,
            "no such application",
        ),
        (r#"{"error":"unauthorized_client"}"#, Inconclusive, "the same to a wrong secret"),
        (r#"{"error":"invalid_grant"}"#, Inconclusive, "the same to a wrong secret"),
        ("<html>no JSON</html>", Inconclusive, "the same to a wrong secret"),
    ] {
        service.idp.behave().token_answer = Some((400, answer.to_owned()));
        let checked = service.check("acme").await.expect("checked");
        assert_eq!(
            checked.outcome("client.credentials"),
            outcome,
            "{answer}: {}",
            checked.found("client.credentials")
        );
        assert!(
            checked.found("client.credentials").contains(words),
            "{answer}: {}",
            checked.found("client.credentials")
        );
    }
    service.idp.behave().token_answer = Some((503, String::new()));
    assert_eq!(
        service.check("acme").await.expect("checked").outcome("client.credentials"),
        Fail,
        "the IdP is unavailable"
    );
}

#[tokio::test]
async fn what_is_wrong_in_the_metadata_is_reported_with_the_expected_value() {
    let mut service = Service::testing().await;
    let issuer = service.idp.issuer.clone();
    service
        .edit(&["issuer"], |connection| connection.issuer = format!("{issuer}/"))
        .await
        .expect("edited");
    let checked = service.check("acme").await.expect("checked");
    assert_eq!(checked.outcome("metadata.issuer"), Fail);
    assert!(
        checked.found("metadata.issuer").contains("only in the slash at the end"),
        "{}",
        checked.found("metadata.issuer")
    );
    assert!(
        checked.results["metadata.issuer"].remedy.contains(&format!("store the issuer {issuer:?}"))
    );
    service
        .edit(&["issuer"], |connection| connection.issuer = String::new())
        .await
        .expect("edited");

    service.idp.behave().metadata = serde_json::json!({
        "claims_supported": ["sub", "email"], "code_challenge_methods_supported": ["plain"],
        "token_endpoint_auth_methods_supported": ["private_key_jwt"], "end_session_endpoint": null,
        "scopes_supported": ["openid"], "id_token_signing_alg_values_supported": ["HS256"], "response_types_supported": ["id_token"],
    });
    let checked = service.check("acme").await.expect("checked");
    for (id, outcome, words) in [
        ("metadata.claims", Inconclusive, "given_name, family_name"),
        ("metadata.pkce", Warn, "plain"),
        ("metadata.auth_method", Pass, "only private_key_jwt, and the token endpoint accepts it"),
        ("metadata.scopes", Inconclusive, "email profile"),
        ("metadata.signing_algs", Fail, "HS256"),
        ("metadata.code_flow", Fail, "id_token"),
        ("logout.endpoint", Skipped, "the IdP has no logout"),
        ("jwks.keys", Skipped, "metadata.signing_algs"),
    ] {
        assert_eq!(checked.outcome(id), outcome, "{id}: {}", checked.found(id));
        assert!(checked.found(id).contains(words), "{id}: {}", checked.found(id));
    }
    // A stated authentication method is used whatever the document lists; otherwise it decides.
    let methods = serde_json::json!(["client_secret_post"]);
    service.idp.behave().metadata =
        serde_json::json!({ "token_endpoint_auth_methods_supported": methods });
    let (stated, unstated) =
        (pb::TokenEndpointAuthMethod::ClientSecretBasic, pb::TokenEndpointAuthMethod::Unspecified);
    for (method, words) in [
        (stated, "only client_secret_post, and the token endpoint accepts it nevertheless"),
        (unstated, "the document lists it"),
    ] {
        service.idp.behave().expects_post = method == unstated;
        service
            .edit(&["token_endpoint_auth_method"], |connection| {
                connection.token_endpoint_auth_method = method.into();
            })
            .await
            .expect("edited");
        let checked = service.check("acme").await.expect("checked");
        assert_eq!(checked.outcome("metadata.auth_method"), Pass, "{method:?}");
        assert!(checked.found("metadata.auth_method").contains(words), "{method:?}");
    }
    // Where the token endpoint's answers tell nothing, the difference is all that there is.
    service
        .edit(&["token_endpoint_auth_method"], |it| it.token_endpoint_auth_method = stated.into())
        .await
        .expect("edited");
    service.idp.behave().trusts_everybody = true;
    assert_eq!(service.check("acme").await.expect("checked").outcome("metadata.auth_method"), Warn);
    service.idp.behave().trusts_everybody = false;
    service.idp.behave().expects_post = false;
    // A check fails for whatever a login would refuse.
    service.idp.behave().metadata = serde_json::json!({ "userinfo_endpoint": "ftp://nowhere" });
    let checked = service.check("acme").await.expect("checked");
    assert_eq!(
        (checked.outcome("metadata.usable"), checked.outcome("metadata.endpoints")),
        (Skipped, Fail)
    );
    service.idp.behave().metadata =
        serde_json::json!({ "token_endpoint": "ftp://nowhere", "jwks_uri": null });
    let checked = service.check("acme").await.expect("checked");
    assert_eq!(checked.outcome("metadata.endpoints"), Fail);
    assert!(
        checked.found("metadata.endpoints").contains("jwks_uri is missing"),
        "{}",
        checked.found("metadata.endpoints")
    );

    service.idp.behave().answers.insert(
        "/.well-known/openid-configuration",
        (302, String::new(), "https://evil.example/x".to_owned()),
    );
    let checked = service.check("acme").await.expect("checked");
    assert_eq!(checked.outcome("metadata.document"), Fail);
    assert!(
        checked.found("metadata.document").contains("evil.example"),
        "the target is named and not called"
    );
}

#[tokio::test]
async fn an_idp_that_is_unavailable_or_private_fails_in_time() {
    let mut service = Service::testing().await;
    let began = tokio::time::Instant::now();
    service
        .edit(&["discovery_url", "client_secret"], |connection| {
            connection.discovery_url =
                "http://127.0.0.1:1/.well-known/openid-configuration".to_owned();
            connection.client_secret = "CANARYother".to_owned();
        })
        .await
        .expect("edited");
    let checked = service.check("acme").await.expect("checked");
    assert_eq!(checked.outcome("metadata.document"), Fail);
    assert!(began.elapsed() < Duration::from_secs(20));

    // The address was allowed when it was saved and is forbidden now: checks obey the guard too.
    let (data, key, clock) =
        (tempfile::tempdir().expect("a directory"), key(), Arc::new(ManualClock::starting_now()));
    let over = || config(Database::Sqlite(data.path().join("sso.db")), None, &key);
    let mut open = Service::over(over(), Arc::clone(&clock)).await;
    let inside = pb::Connection {
        discovery_url: "https://127.0.0.1:1/.well-known/openid-configuration".to_owned(),
        ..open.idp.connection("acme")
    };
    open.create(inside).await.expect("created");
    let mut strict = over();
    strict.provider_addresses = AddressPolicy::default();
    let mut guarded = Service::over(strict, clock).await;
    let checked = guarded.check("acme").await.expect("checked");
    assert_eq!(checked.outcome("metadata.document"), Fail);
    assert!(
        checked.found("metadata.document").contains("address"),
        "{}",
        checked.found("metadata.document")
    );
}

#[tokio::test]
async fn checks_are_limited_and_need_an_account() {
    let mut service = Service::testing().await;
    let request = || pb::CheckConnectionRequest { slug: "acme".to_owned(), ..Default::default() };
    for _ in 0..6 {
        let mut stream =
            service.admin.check_connection(request()).await.expect("checked").into_inner();
        while stream.message().await.expect("a message").is_some() {}
    }
    assert_eq!(reason(service.admin.check_connection(request()).await.map(|_| ())), "RATE_LIMITED");
    assert_eq!(reason(service.check("unknown").await.map(|_| ())), "CONNECTION_NOT_FOUND");
    assert_eq!(reason(service.check("no slug").await.map(|_| ())), "BAD_REQUEST");
}

#[tokio::test]
async fn a_connection_is_activated_when_it_is_proven_or_by_force() {
    let mut service = Service::start().await;
    let other =
        FakeIdp::start(Arc::clone(&service.clock) as Arc<dyn peerpanda_sso::clock::Clock>).await;
    let active =
        pb::Connection { state: pb::ConnectionState::Active.into(), ..other.connection("other") };
    let create = pb::CreateConnectionRequest { connection: Some(active), validate_only: false };
    assert_eq!(reason(service.admin.create_connection(create).await), "CHECK_REQUIRED");

    let mut service = Service::testing().await;
    let read = service.get("acme").await.expect("there");
    let to_active = pb::Connection { state: pb::ConnectionState::Active.into(), ..read.clone() };
    assert_eq!(reason(service.update(&["state"], to_active).await), "CHECK_REQUIRED");
    let refusal = refused(service.activate("acme", read.revision, false).await);
    assert!(
        refusal.reason == "CHECK_REQUIRED"
            && refusal.message.contains("a check")
            && refusal.message.contains("a test login")
    );
    service.check("acme").await.expect("checked");
    assert!(
        refused(service.activate("acme", read.revision, false).await)
            .message
            .contains("a test login")
    );
    let completed = service.log_in().await.expect("a test login");
    assert_eq!(completed.connection_state(), pb::ConnectionState::Testing);
    // Another secret must be proven first; then the right one is set again.
    let right = service.idp.client_secret.clone();
    let change = |secret: &str| {
        let secret = secret.to_owned();
        move |connection: &mut pb::Connection| connection.client_secret = secret
    };
    let revision =
        service.edit(&["client_secret"], change("CANARYother")).await.expect("edited").revision;
    assert_eq!(reason(service.activate("acme", revision, false).await), "CHECK_REQUIRED");
    service.edit(&["client_secret"], change(&right)).await.expect("edited");
    // A new display name does not invalidate the proof.
    let read = service.get("acme").await.expect("there");
    let renamed = pb::Connection { display_name: "Acme".to_owned(), ..read };
    let renamed = service
        .update(&["display_name"], renamed)
        .await
        .expect("renamed")
        .connection
        .expect("a connection");
    let activated = service.activate("acme", renamed.revision, false).await.expect("activated");
    assert_eq!(activated.state(), pb::ConnectionState::Active);
    assert!(activated.test_login_time.is_some());
    assert_eq!(reason(service.activate("acme", renamed.revision, true).await), "REVISION_CONFLICT");

    // Settings of an ACTIVE connection that affect logins need a check that passed.
    let scopes = pb::Connection { scopes: vec!["openid".to_owned()], ..activated.clone() };
    let refusal = refused(service.update(&["scopes"], scopes.clone()).await);
    assert!(
        refusal.reason == "CHECK_REQUIRED"
            && refusal.message.contains("every login that ends from now on"),
        "{refusal:?}"
    );
    let mask = Some(prost_types::FieldMask { paths: vec!["scopes".to_owned()] });
    let proposal = pb::CheckConnectionRequest {
        slug: "acme".to_owned(),
        proposal: Some(scopes.clone()),
        update_mask: mask,
    };
    let checked = service.check_with(proposal).await.expect("checked");
    assert_ne!(checked.summary.outcome(), Fail);
    assert_eq!(service.get("acme").await.expect("there").scopes.len(), 3, "nothing was changed");
    let updated = service.update(&["scopes"], scopes).await.expect("updated");
    assert!(updated.effect.contains("every login"), "{}", updated.effect);
    let client = pb::Connection {
        client_id: "another".to_owned(),
        client_secret: "CANARYanother".to_owned(),
        ..updated.connection.expect("a connection")
    };
    assert!(
        refused(service.update(&["client_id", "client_secret"], client).await)
            .message
            .contains("CONNECTION_CHANGED")
    );
    service
        .edit(&["client_id", "client_secret"], |connection| {
            connection.client_id = "another".to_owned();
            connection.client_secret = "CANARYanother".to_owned();
        })
        .await
        .expect("by force");

    let changes = service.changes().await;
    let actions: Vec<(&str, bool)> =
        changes.iter().rev().map(|change| (change.action.as_str(), change.is_forced)).collect();
    assert_eq!(
        actions,
        [
            ("create", false),
            ("activate", true),
            ("update", false),
            ("check", false),
            ("pin_issuer", false),
            ("update", false),
            ("update", false),
            ("update", false),
            ("activate", false),
            ("check_proposal", false),
            ("update", false),
            ("update", true)
        ]
    );
    let fields: Vec<_> = changes[0]
        .fields
        .iter()
        .map(|field| (field.field.as_str(), field.after.as_str()))
        .collect();
    assert_eq!(fields[0], ("client_id", "another"));
    assert_eq!(fields[1].0, "client_secret");
    assert!(!format!("{changes:?}").contains("CANARY"), "secrets are fingerprints");
    assert!(
        changes.iter().all(|change| change.actor == "anybody" || change.actor == "the service")
    );
}

#[tokio::test]
async fn a_rejected_secret_is_replaced_by_the_standby_and_back() {
    let mut service = Service::start().await;
    let right = service.idp.client_secret.clone();
    let expires = prost_types::Timestamp { seconds: 4_000_000_000, nanos: 0 };
    service
        .edit(
            &["client_secret", "client_secret_expire_time", "standby_client_secret"],
            |connection| {
                connection.client_secret = "CANARYold".to_owned();
                connection.client_secret_expire_time = Some(expires);
                connection.standby_client_secret = right;
            },
        )
        .await
        .expect("edited");
    let before = service.get("acme").await.expect("there");
    assert!(
        before.standby_client_secret.is_empty() && !before.standby_secret_fingerprint.is_empty()
    );
    let refusal = refused(service.log_in().await);
    assert_eq!((refusal.reason.as_str(), refusal.retry.as_str()), ("CLIENT_REJECTED", "login"));
    eventually("the secrets were switched", || {
        let mut admin = service.admin.clone();
        let slug = "acme".to_owned();
        async move {
            let read = admin
                .get_connection(pb::GetConnectionRequest { slug })
                .await
                .expect("there")
                .into_inner()
                .connection;
            read.expect("a connection").secret_switch_time.is_some()
        }
    })
    .await;
    service.log_in().await.expect("the next login uses the standby secret");
    let after = service.get("acme").await.expect("there");
    assert_eq!(after.secret_fingerprint, before.standby_secret_fingerprint);
    assert_eq!(
        after.standby_client_secret_expire_time,
        Some(expires),
        "its expiry was switched with it"
    );
    assert!(
        service
            .changes()
            .await
            .iter()
            .any(|change| change.action == "switch_secret" && change.actor == "the service")
    );

    // Each code was tried once: the standby secret was proven by made-up codes.
    let codes = service.idp.codes();
    let unique: std::collections::HashSet<_> = codes.iter().collect();
    assert_eq!(codes.len(), unique.len());

    // The IdP takes the old one again: they are switched back at once.
    service.idp.behave().accepted_secret = Some("CANARYold".to_owned());
    assert_eq!(refused(service.log_in().await).retry, "login");
    eventually("the secrets are switched back", || {
        let mut admin = service.admin.clone();
        let (slug, old) = ("acme".to_owned(), before.secret_fingerprint.clone());
        async move {
            let read = admin
                .get_connection(pb::GetConnectionRequest { slug })
                .await
                .expect("there")
                .into_inner()
                .connection;
            read.expect("a connection").secret_fingerprint == old
        }
    })
    .await;
    service.log_in().await.expect("by the secret that the IdP takes");
    service
        .edit(&["standby_client_secret"], |connection| {
            connection.standby_client_secret = String::new()
        })
        .await
        .expect("removed");
    assert!(service.get("acme").await.expect("there").standby_secret_fingerprint.is_empty());
}

/// A gateway's error and a stranger's code prove nothing about the secret, and the standby may not be
/// valid yet.
#[tokio::test]
async fn a_standby_secret_that_is_not_proven_is_not_put_into_use() {
    let mut service = Service::start().await;
    service
        .edit(&["standby_client_secret"], |connection| {
            connection.standby_client_secret = "CANARYearly".to_owned();
        })
        .await
        .expect("edited");
    let before = service.get("acme").await.expect("there").secret_fingerprint;
    for (status, body, retry) in [
        (401, "<html>", "never"),
        (400, r#"{"error":"unauthorized_client"}"#, "never"),
        (401, r#"{"error":"invalid_client"}"#, "login"),
    ] {
        service.idp.behave().token_answer = Some((status, body.to_owned()));
        let asked = service.idp.count("/token");
        let refusal = refused(service.log_in().await);
        assert_eq!((refusal.reason.as_str(), refusal.retry.as_str()), ("CLIENT_REJECTED", retry));
        let asks = if retry == "login" { 3 } else { 1 };
        eventually("both secrets are tried", || async {
            service.idp.count("/token") == asked + asks
        })
        .await;
        service.idp.behave().token_answer = None;
        service.log_in().await.expect("the active secret stays in use");
    }
    assert_eq!(service.get("acme").await.expect("there").secret_fingerprint, before);
    assert!(service.changes().await.iter().all(|change| change.action != "switch_secret"));
}

#[tokio::test]
async fn attempts_show_the_outcome_of_each_login_and_no_values() {
    let mut service = Service::testing().await;
    service.log_in().await.expect("a login");
    service.idp.behave().claims = serde_json::json!({ "given_name": null });
    service.idp.behave().userinfo = serde_json::json!({});
    let refusal = refused(service.log_in().await);
    assert_eq!(refusal.reason, "CLAIM_MISSING");
    service.idp.behave().claims = serde_json::json!({});
    service.idp.behave().userinfo = serde_json::Value::Null;
    service.idp.behave().token_answer = Some((
        400,
        r#"{"error":"invalid_grant","error_description":"of alice@b.example"}"#.to_owned(),
    ));
    assert_eq!(reason(service.log_in().await), "CODE_REJECTED");
    service.idp.behave().token_answer = None;
    // A state that was not issued here is counted, and does not replace an attempt.
    let mut foreign = complete_request(&service.approved().await);
    foreign.state = "A".repeat(75);
    assert_eq!(reason(service.complete(foreign).await), "STATE_INVALID");

    let listed = service.attempts().await;
    let reasons: Vec<&str> =
        listed.attempts.iter().map(|attempt| attempt.reason.as_str()).collect();
    assert_eq!(reasons, ["CODE_REJECTED", "CLAIM_MISSING", ""]);
    let [rejected, missing, good] = listed.attempts.as_slice() else { panic!("three") };
    assert_eq!(
        (rejected.idp_error.as_str(), rejected.owner.as_str()),
        ("invalid_grant", "end_user")
    );
    assert!(
        rejected.remedy.contains("/app/accounts/oidc/acme/login/callback/"),
        "{}",
        rejected.remedy
    );
    assert_eq!(rejected.idp_error_description, "of [e-mail]");
    assert_eq!(missing.trace_id, refusal.metadata["trace_id"]);
    assert!(missing.claims_missing.iter().any(|name| name == "given_name"), "{missing:?}");
    assert!(good.is_test && good.claims_present.len() == 3 && good.issuer == service.idp.issuer);
    let phases: Vec<&str> = good.phases.iter().map(|phase| phase.phase.as_str()).collect();
    assert_eq!(phases, ["metadata", "store", "token", "verify"]);
    assert!(!format!("{listed:?}").contains("CANARY") && !format!("{listed:?}").contains("alice"));
    let summary = listed.summary.expect("a summary");
    assert!(summary.last_success_time.is_some() && summary.unrecognized_callbacks == 1);
    assert_eq!(summary.failures["CLAIM_MISSING"], 1);
    assert_eq!(
        service.get("acme").await.expect("there").logins.expect("a summary").failures,
        summary.failures
    );

    // A login whose caller cancels is recorded as well.
    service.idp.behave().token_delay = Duration::from_secs(30);
    let callback = service.approved().await;
    let mut request = tonic::Request::new(complete_request(&callback));
    request.set_timeout(Duration::from_millis(300));
    service.login.complete_login(request).await.expect_err("cancelled");
    service.idp.behave().token_delay = Duration::ZERO;
    eventually("it is recorded", || {
        let mut admin = service.admin.clone();
        async move {
            let request = pb::ListLoginAttemptsRequest {
                slug: "acme".to_owned(),
                page_size: 1,
                ..Default::default()
            };
            let latest = admin
                .list_login_attempts(request)
                .await
                .expect("listed")
                .into_inner()
                .attempts
                .remove(0);
            latest.reason == "PROVIDER_UNAVAILABLE"
                && latest.phases.last().is_some_and(|phase| phase.phase == "token")
        }
    })
    .await;

    // Equal refusals are one attempt, and push no other out.
    for _ in 0..210 {
        let state = service.approved().await;
        let request = pb::CompleteLoginRequest {
            iss: Some("https://evil.example".to_owned()),
            ..complete_request(&state)
        };
        assert_eq!(reason(service.complete(request).await), "ISSUER_MISMATCH");
    }
    let listed = service.attempts().await;
    let latest = &listed.attempts[0];
    assert_eq!((latest.reason.as_str(), latest.count), ("ISSUER_MISMATCH", 210), "folded");
    assert_eq!(listed.attempts.len(), 5, "{listed:?}");
    let summary = listed.summary.expect("a summary");
    assert_eq!((summary.failures["ISSUER_MISMATCH"], summary.returned_24h), (210, 214));
    assert!(summary.last_success_time.is_some());
}

#[tokio::test]
async fn the_guide_has_the_values_of_the_account_and_the_steps_of_the_product() {
    let mut service = Service::testing().await;
    let mut guide = async |slug: &str, idp: pb::IdentityProvider, ready: bool| {
        let request = pb::GetSetupGuideRequest { slug: slug.to_owned(), idp: idp.into(), ready };
        service.admin.get_setup_guide(request).await.map(|answer| answer.into_inner().markdown)
    };
    for (idp, words) in [
        (pb::IdentityProvider::Entra, "Add optional claim"),
        (pb::IdentityProvider::Okta, "Sign-in redirect URIs"),
        (pb::IdentityProvider::Google, "OAuth client ID"),
        (pb::IdentityProvider::Auth0, "Allowed Callback URLs"),
        (pb::IdentityProvider::Keycloak, "Valid redirect URIs"),
        (pb::IdentityProvider::Generic, "confidential OpenID Connect client"),
        (pb::IdentityProvider::Unspecified, "confidential OpenID Connect client"),
    ] {
        // There is a guide before the account has a connection, too.
        for slug in ["acme", "newcomer"] {
            let text = guide(slug, idp, false).await.expect("a guide");
            assert!(text.contains(words), "{idp:?}: {text}");
            for value in [
                "login/callback/`",
                "openid, email, profile",
                "given_name",
                "S256",
                "client_secret_basic",
            ] {
                assert!(text.contains(value), "{idp:?} lacks {value}: {text}");
            }
            assert!(text.contains(&format!("{PUBLIC}/app/accounts/oidc/{slug}/login/")), "{text}");
        }
    }
    assert_eq!(
        reason(guide("acme", pb::IdentityProvider::Unspecified, true).await),
        "CHECK_REQUIRED"
    );
    assert_eq!(
        reason(guide("newcomer", pb::IdentityProvider::Unspecified, true).await),
        "CONNECTION_NOT_FOUND"
    );
    service.check("acme").await.expect("checked");
    let request =
        pb::GetSetupGuideRequest { slug: "acme".to_owned(), ready: true, ..Default::default() };
    let note = service.admin.get_setup_guide(request).await.expect("a note").into_inner().markdown;
    assert!(
        note.contains("ready to test")
            && note.contains("accepts the client id and the client secret"),
        "{note}"
    );
}

/// Two replicas share checks, attempts and changes.
#[tokio::test(flavor = "multi_thread")]
async fn what_one_replica_has_proven_is_known_to_the_other() {
    let (postgres, key) = (postgres_url().await, key());
    let clock = Arc::new(ManualClock::starting_now());
    let over = || config(Database::Postgres(postgres.clone().into()), Some(redis_url()), &key);
    let mut one = Service::over(over(), Arc::clone(&clock)).await;
    let mut two = Service::over(over(), clock).await;
    let created = one.create(one.idp.connection("acme")).await.expect("created");
    one.idp.behave().registered_redirect = Some(created.redirect_uri.clone());
    one.check("acme").await.expect("checked");
    let begun = one.begin(begin_request()).await.expect("begun");
    let callback = one.idp.approve(&begun.redirect_url, "alice");
    two.complete(complete_request(&callback)).await.expect("completed by the other");
    let revision = two.get("acme").await.expect("there").revision;
    two.activate("acme", revision, false).await.expect("proven by both replicas");
    assert_eq!(one.attempts().await.attempts.len(), 1);
    assert!(one.changes().await.len() >= 3);
}
