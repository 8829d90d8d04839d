//! Each class of failure at an IdP arrives with its cause: in the refusal, for programs, and in the
//! login attempts, for support. The unit tests of `oidc/` have the full tables.

use std::time::Duration;

use peerpanda_sso::pb;
use peerpanda_sso::pb::check_connection_response::Found;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tonic_types::StatusExt;

use crate::fake_idp::{Behaviour, Callback, random};
use crate::harness::{Refused, Service, begin_request, complete_request, refused};

type Adjust = fn(&mut Behaviour);

impl Service {
    /// Completes the login, which is refused; reason and cause, as the refusal and the latest
    /// attempt both have them.
    async fn cause_of(&mut self, callback: &Callback) -> (String, String) {
        // The latest is the first, also of attempts that fold with others.
        self.clock.advance(Duration::from_millis(1));
        let (refusal, _) = self.refusal_of(complete_request(callback)).await;
        (refusal.reason, refusal.metadata["cause"].clone())
    }

    /// The refusal of a login and its attempt, which have the same cause, owner and remedy.
    async fn refusal_of(
        &mut self,
        request: pb::CompleteLoginRequest,
    ) -> (Refused, pb::LoginAttempt) {
        let status = self.complete(request).await.expect_err("refused");
        let help = status.get_details_help().map(|help| help.links).unwrap_or_default();
        let refusal = refused(Err::<(), _>(status));
        let attempt = self.attempts().await.attempts.remove(0);
        let cause = &refusal.metadata["cause"];
        assert_eq!((&attempt.reason, &attempt.cause), (&refusal.reason, cause), "{refusal:?}");
        assert_eq!(attempt.trace_id, refusal.metadata["trace_id"]);
        assert_eq!(attempt.owner, refusal.owner, "{refusal:?}");
        assert!(!attempt.remedy.is_empty(), "{attempt:?}");
        let remedies: Vec<&str> = help.iter().map(|link| link.description.as_str()).collect();
        let expected = if refusal.owner == "transient" { vec![] } else { vec![&*attempt.remedy] };
        assert_eq!(remedies, expected, "{refusal:?}");
        (refusal, attempt)
    }

    /// Reads the documents of the IdP again, since the connection's revision changes.
    async fn forget_documents(&mut self) {
        let name = random();
        let edited = self.edit(&["display_name"], |connection| connection.display_name = name);
        edited.await.expect("edited");
    }
}

fn answer(behaviour: &mut Behaviour, path: &'static str, status: u16, body: &str) {
    let location = if status == 302 { "https://elsewhere.example/" } else { "" };
    behaviour.answers.insert(path, (status, body.to_owned(), location.to_owned()));
}

#[tokio::test]
async fn failures_of_the_token_endpoint_arrive_with_their_causes() {
    let mut service = Service::start().await;
    let long = "x".repeat(300_000);
    for (status, body, reason, cause) in [
        (401, r#"{"error":"invalid_client"}"#, "CLIENT_REJECTED", "invalid_client"),
        (400, r#"{"error":"unauthorized_client"}"#, "CLIENT_REJECTED", "client_not_authorized"),
        (401, "<html>", "CLIENT_REJECTED", "token_http_401"),
        (400, r#"{"error":"invalid_grant"}"#, "CODE_REJECTED", "invalid_grant"),
        (400, r#"{"error":"invalid_scope"}"#, "TOKEN_RESPONSE_INVALID", "token_oauth_error"),
        (404, "", "TOKEN_RESPONSE_INVALID", "token_http_status"),
        (302, "", "TOKEN_RESPONSE_INVALID", "token_redirect"),
        (200, long.as_str(), "TOKEN_RESPONSE_INVALID", "token_unreadable"),
        (200, "nothing", "TOKEN_RESPONSE_INVALID", "token_malformed"),
        (
            200,
            r#"{"id_token":"x","access_token":"x","error":"invalid_grant"}"#,
            "CODE_REJECTED",
            "invalid_grant",
        ),
        (
            200,
            r#"{"id_token":"x","access_token":"x","token_type":"DPoP"}"#,
            "TOKEN_RESPONSE_INVALID",
            "token_not_bearer",
        ),
        (200, r#"{"id_token":"x"}"#, "TOKEN_RESPONSE_INVALID", "access_token_missing"),
        (200, r#"{"access_token":"x"}"#, "TOKEN_RESPONSE_INVALID", "id_token_missing"),
        (429, "", "PROVIDER_UNAVAILABLE", "http_429"),
        (503, "", "PROVIDER_UNAVAILABLE", "http_5xx"),
    ] {
        let callback = service.approved().await;
        answer(&mut service.idp.behave(), "/token", status, body);
        let actual = service.cause_of(&callback).await;
        assert_eq!(actual, (reason.to_owned(), cause.to_owned()), "{status}");
        service.idp.behave().answers.clear();
    }
    // Five server errors without a success open the breaker, of which one was the last above.
    answer(&mut service.idp.behave(), "/token", 503, "");
    for _ in 0..4 {
        let callback = service.approved().await;
        assert_eq!(service.cause_of(&callback).await.1, "http_5xx");
    }
    let callback = service.approved().await;
    assert_eq!(service.cause_of(&callback).await.1, "circuit_open");
    service.idp.behave().answers.clear();
    service.clock.advance(Duration::from_secs(10));
    service.complete(complete_request(&callback)).await.expect("the state was not spent");
}

#[tokio::test]
async fn failures_of_the_id_token_and_of_userinfo_arrive_with_their_causes() {
    let mut service = Service::start().await;
    let cases: [(Adjust, &str, &str); 19] = [
        (|b| b.foreign_key = true, "ID_TOKEN_SIGNATURE_INVALID", "signature_mismatch"),
        (|b| b.header = json!({ "kid": "unknown" }), "ID_TOKEN_SIGNATURE_INVALID", "unknown_key"),
        (|b| b.header = json!({ "alg": null }), "ID_TOKEN_SIGNATURE_INVALID", "alg_missing"),
        (|b| b.header = json!({ "alg": "none" }), "ID_TOKEN_SIGNATURE_INVALID", "alg_none"),
        (|b| b.header = json!({ "alg": "HS256" }), "ID_TOKEN_SIGNATURE_INVALID", "alg_hmac"),
        (|b| b.header = json!({ "alg": "RS1" }), "ID_TOKEN_SIGNATURE_INVALID", "alg_not_allowed"),
        (|b| b.header = json!({ "typ": "at+jwt" }), "ID_TOKEN_INVALID", "token_type"),
        (|b| b.id_token = Some("a.b.c.d.e".to_owned()), "ID_TOKEN_INVALID", "encrypted"),
        (|b| b.id_token = Some("a.b".to_owned()), "ID_TOKEN_INVALID", "malformed"),
        (|b| b.claims = json!({ "iss": "https://other" }), "ID_TOKEN_INVALID", "issuer"),
        (|b| b.claims = json!({ "aud": "other" }), "ID_TOKEN_INVALID", "audience"),
        (|b| b.claims = json!({ "exp": 1 }), "ID_TOKEN_INVALID", "expired"),
        (|b| b.claims = json!({ "at_hash": "AAAA" }), "ID_TOKEN_INVALID", "at_hash"),
        (|b| b.claims = json!({ "sub": "" }), "ID_TOKEN_INVALID", "subject"),
        (|b| b.claims = json!({ "nonce": "other" }), "NONCE_MISMATCH", "nonce"),
        (|b| b.userinfo = json!({ "sub": "other" }), "USERINFO_INVALID", "userinfo_subject"),
        (
            |b| {
                b.userinfo = json!({});
                answer(b, "/userinfo", 403, "");
            },
            "USERINFO_INVALID",
            "userinfo_status",
        ),
        (
            |b| {
                b.userinfo = json!({});
                answer(b, "/userinfo", 302, "");
            },
            "USERINFO_INVALID",
            "userinfo_unreadable",
        ),
        (
            |b| {
                b.userinfo = json!({});
                answer(b, "/userinfo", 200, "<html>");
            },
            "USERINFO_INVALID",
            "userinfo_malformed",
        ),
    ];
    for (adjust, reason, cause) in cases {
        let callback = service.approved().await;
        adjust(&mut service.idp.behave());
        let actual = service.cause_of(&callback).await;
        assert_eq!(actual, (reason.to_owned(), cause.to_owned()));
        *service.idp.behave() = Behaviour::default();
    }
}

#[tokio::test]
async fn failures_of_the_documents_arrive_with_their_causes() {
    const METADATA: &str = "/.well-known/openid-configuration";
    let mut service = Service::start().await;
    let long = "x".repeat(1024 * 1024 + 1);
    for (path, status, body, cause) in [
        (METADATA, 404, "", "metadata_status"),
        (METADATA, 302, "", "metadata_redirect"),
        (METADATA, 200, long.as_str(), "metadata_unreadable"),
        (METADATA, 200, "<html>", "not_json"),
        ("/keys", 404, "", "keys_status"),
        ("/keys", 302, "", "keys_redirect"),
        ("/keys", 200, long.as_str(), "keys_unreadable"),
        ("/keys", 200, "nothing", "keys_malformed"),
        ("/keys", 200, r#"{"keys":[]}"#, "no_usable_key"),
    ] {
        let callback = service.approved().await;
        service.forget_documents().await;
        answer(&mut service.idp.behave(), path, status, body);
        let actual = service.cause_of(&callback).await;
        assert_eq!(actual, ("PROVIDER_METADATA_INVALID".to_owned(), cause.to_owned()));
        service.idp.behave().answers.clear();
        service.forget_documents().await;
    }
    for (metadata, cause) in [
        (json!({ "issuer": null }), "issuer_missing"),
        (json!({ "issuer": "https://other" }), "issuer_mismatch"),
        (json!({ "issuer": "https://idp.example/{tenantid}" }), "tenant_template"),
        (json!({ "token_endpoint": null }), "endpoint_missing"),
        (json!({ "token_endpoint": "ftp://nowhere" }), "endpoint_invalid"),
        (json!({ "id_token_signing_alg_values_supported": ["HS256"] }), "signing_alg_unsupported"),
    ] {
        let callback = service.approved().await;
        service.forget_documents().await;
        service.idp.behave().metadata = metadata;
        let actual = service.cause_of(&callback).await;
        assert_eq!(actual, ("PROVIDER_METADATA_INVALID".to_owned(), cause.to_owned()));
        service.idp.behave().metadata = Value::Null;
        service.forget_documents().await;
    }
}

/// A login page, a firewall or a misspelt URL answers with a page, whatever the content type says.
#[tokio::test]
async fn html_in_place_of_json_is_said_for_each_document() {
    const PAGE: &str = "\u{feff}\n <!DOCTYPE html><html>";
    let mut service = Service::start().await;
    for (path, document, cause) in [
        ("/.well-known/openid-configuration", "metadata", "not_json"),
        ("/keys", "keys", "keys_not_json"),
        ("/token", "token", "token_not_json"),
        ("/userinfo", "userinfo", "userinfo_malformed"),
    ] {
        let callback = service.approved().await;
        service.forget_documents().await;
        service.idp.behave().userinfo = json!({});
        answer(&mut service.idp.behave(), path, 200, PAGE);
        let (refusal, _) = service.refusal_of(complete_request(&callback)).await;
        assert_eq!(refusal.metadata["cause"], cause);
        assert_eq!(refusal.metadata["document"], document);
        assert!(refusal.message.contains("a page (HTML)"), "{}", refusal.message);
        *service.idp.behave() = Behaviour::default();
        service.forget_documents().await;
    }
    let callback = service.approved().await;
    answer(&mut service.idp.behave(), "/token", 403, PAGE);
    let (refusal, _) = service.refusal_of(complete_request(&callback)).await;
    assert_eq!(refusal.metadata["cause"], "token_http_status");
    assert!(refusal.message.contains("HTTP 403, and a page"), "{}", refusal.message);
}

/// One code for each place where it can appear; `oidc/idps/known.rs` tests all codes.
#[tokio::test]
async fn a_description_code_sharpens_owner_and_remedy_wherever_it_comes() {
    let mut service = Service::start().await;
    let cases = [
        (
            "access_denied",
            "AADSTS50105: x",
            "person_not_assigned",
            "customer_idp_admin",
            "assign the",
        ),
        (
            "invalid_request",
            "AADSTS50011: x",
            "redirect_uri_unregistered",
            "customer_idp_admin",
            "add http",
        ),
        (
            "invalid_client",
            "AADSTS700016: x",
            "application_unknown",
            "support",
            "compare client_id",
        ),
        (
            "invalid_request",
            "Client disabled.",
            "application_disabled",
            "customer_idp_admin",
            "enable the",
        ),
        (
            "consent_required",
            "AADSTS65001: x",
            "admin_consent_missing",
            "customer_idp_admin",
            "grant admin",
        ),
        ("access_denied", "The user said no", "access_denied", "end_user", "they cancelled"),
        ("other_one", "x", "other_error", "customer_idp_admin", "look the error code up"),
    ];
    for (error, description, cause, owner, remedy) in cases {
        let approved = service.approved().await;
        let request = pb::CompleteLoginRequest {
            code: String::new(),
            error: Some(error.to_owned()),
            error_description: Some(description.to_owned()),
            ..complete_request(&approved)
        };
        let (refusal, attempt) = service.refusal_of(request).await;
        assert_eq!((&*refusal.reason, &*attempt.cause), ("IDP_REFUSED", cause), "{description}");
        assert_eq!(attempt.owner, owner, "{description}");
        assert!(attempt.remedy.contains(remedy), "{}", attempt.remedy);
    }
    let cases = [
        (
            "invalid_client",
            "AADSTS7000222: x",
            "secret_expired",
            "customer_idp_admin",
            "create a new one",
        ),
        (
            "invalid_client",
            "AADSTS7000215: x",
            "secret_wrong",
            "support",
            "compare client id, secret",
        ),
        (
            "unauthorized_client",
            "AADSTS700016: x",
            "client_unknown",
            "support",
            "compare client_id",
        ),
        (
            "invalid_request",
            "AADSTS9002327: x",
            "client_public",
            "customer_idp_admin",
            "web application",
        ),
        (
            "invalid_grant",
            "AADSTS50105: x",
            "token_person_not_assigned",
            "customer_idp_admin",
            "assign the",
        ),
        ("invalid_grant", "AADSTS54005: x", "code_spent", "end_user", "begin a new login"),
        (
            "invalid_request",
            "AADSTS50011: x",
            "token_redirect_uri_unregistered",
            "customer_idp_admin",
            "add http",
        ),
        (
            "invalid_grant",
            "The code is bad",
            "invalid_grant",
            "end_user",
            "if it happens again: add http",
        ),
    ];
    for (error, description, cause, owner, remedy) in cases {
        let approved = service.approved().await;
        let body = json!({ "error": error, "error_description": description }).to_string();
        answer(&mut service.idp.behave(), "/token", 400, &body);
        let (refusal, attempt) = service.refusal_of(complete_request(&approved)).await;
        assert_eq!((&*attempt.cause, &*attempt.owner), (cause, owner), "{description}");
        assert_eq!(refusal.metadata["document"], "token");
        assert_eq!(refusal.metadata["idp_error"], error);
        assert!(attempt.remedy.contains(remedy), "{}", attempt.remedy);
    }
}

#[tokio::test]
async fn each_cause_has_its_remedy_in_refusal_attempt_and_check() {
    const METADATA: &str = "/.well-known/openid-configuration";
    let mut service = Service::start().await;
    for (path, status, body, cause, document) in [
        (METADATA, 404, "", "metadata_status", "metadata"),
        (METADATA, 302, "", "metadata_redirect", "metadata"),
        (METADATA, 200, "<html>", "not_json", "metadata"),
        ("/keys", 404, "", "keys_status", "keys"),
        ("/keys", 302, "", "keys_redirect", "keys"),
        ("/keys", 200, "<html>", "keys_not_json", "keys"),
    ] {
        let callback = service.approved().await;
        service.forget_documents().await;
        answer(&mut service.idp.behave(), path, status, body);
        let (refusal, attempt) = service.refusal_of(complete_request(&callback)).await;
        assert_eq!(refusal.metadata["cause"], cause);
        assert_eq!(refusal.metadata["document"], document);
        let request = pb::CheckConnectionRequest { slug: "acme".to_owned(), ..Default::default() };
        let mut found =
            service.admin.check_connection(request).await.expect("a check").into_inner();
        let mut failures = Vec::new();
        while let Some(message) = found.message().await.expect("a result") {
            if let Some(Found::Result(result)) = message.found
                && result.outcome() == pb::CheckOutcome::Fail
            {
                failures.push(result);
            }
        }
        let failure = failures.iter().find(|failure| failure.remedy == attempt.remedy);
        let failure = failure.unwrap_or_else(|| panic!("{}: {failures:?}", attempt.remedy));
        let owner = failure.actor().as_str_name().trim_start_matches("PARTY_").to_lowercase();
        assert_eq!(owner, attempt.owner, "{failure:?}");
        service.idp.behave().answers.clear();
        service.forget_documents().await;
        // A check may be run six times a minute.
        service.clock.advance(Duration::from_secs(30));
    }
}

#[tokio::test]
async fn failures_of_the_connection_to_the_idp_arrive_with_their_causes() {
    let mut service = Service::start().await;
    let plain = service.idp.issuer.replace("http://", "https://");
    let closing = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = closing.local_addr().expect("an address").port();
    tokio::spawn(async move { while closing.accept().await.is_ok() {} });
    for (origin, cause) in [
        ("http://nowhere.invalid".to_owned(), "dns"),
        ("http://127.0.0.1:1".to_owned(), "connect"),
        (plain, "tls"),
        (format!("http://127.0.0.1:{port}"), "connection_lost"),
    ] {
        let secret = service.idp.client_secret.clone();
        let edited = service.edit(&["discovery_url", "client_secret"], |connection| {
            connection.discovery_url = format!("{origin}/.well-known/openid-configuration");
            connection.client_secret = secret;
        });
        edited.await.expect("edited");
        let refusal = refused(service.begin(begin_request()).await);
        assert_eq!(
            (refusal.reason.as_str(), refusal.metadata["cause"].as_str()),
            ("PROVIDER_UNAVAILABLE", cause),
            "{}",
            refusal.message
        );
    }
}
