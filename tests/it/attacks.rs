//! Attacks of one IdP or account on another: mix-up, lookalikes, poisoned metadata, smuggled
//! parameters.

use peerpanda_sso::pb;
use serde_json::json;
use url::Url;

use crate::fake_idp::Signer;
use crate::harness::{PUBLIC, Service, begin_request, complete_request, reason, refused};

/// RFC 9207 2.4, RFC 3986 6.2: issuers are compared as strings, without normalization.
#[tokio::test]
async fn an_issuer_that_merely_looks_alike_is_another() {
    let mut service = Service::start().await;
    let issuer = service.idp.issuer.clone();
    let lookalikes = [
        format!("{issuer}/"),
        format!("{issuer}//"),
        format!("{issuer}?"),
        format!("{issuer}#"),
        format!("{issuer} "),
        format!(" {issuer}"),
        format!("{issuer}\u{0}"),
        issuer.replace("http:", "HTTP:"),
        issuer.replace("localhost", "LOCALHOST"),
        issuer.replace("localhost", "localhost."),
        issuer.replace("localhost", "l%6fcalhost"),
        issuer.replace("localhost", "l\u{43e}calhost"),
        issuer.replace("localhost", "user@localhost"),
        issuer.replace("http:", "https:"),
        format!("{issuer}.evil.example"),
        issuer[..issuer.len() - 1].to_owned(),
        String::new(),
    ];
    for lookalike in lookalikes {
        let callback = service.approved().await;
        let request = pb::CompleteLoginRequest {
            iss: Some(lookalike.clone()),
            ..complete_request(&callback)
        };
        assert_eq!(
            reason(service.complete(request).await),
            "ISSUER_MISMATCH",
            "{lookalike:?} in the callback"
        );
        service.idp.behave().claims = json!({ "iss": lookalike });
        assert_eq!(
            reason(service.log_in().await),
            "ID_TOKEN_INVALID",
            "{lookalike:?} in the ID token"
        );
        service.idp.behave().claims = json!({});
        let begin = pb::BeginLoginRequest { iss: Some(lookalike.clone()), ..begin_request() };
        assert_eq!(
            reason(service.begin(begin).await),
            "ISSUER_MISMATCH",
            "{lookalike:?} of a third party"
        );
    }
    service.log_in().await.expect("the exact issuer");
}

/// RFC 9700 4.4: the metadata of one account's IdP is never used for another account, even if both
/// name the same issuer.
#[tokio::test]
async fn metadata_of_one_account_never_serves_another() {
    let mut service = Service::start().await;
    let evil = service.with_another_account().await;
    let honest_issuer = service.idp.issuer.clone();
    // The evil IdP claims to be the honest one: its own keys, its own token endpoint, the honest
    // issuer.
    evil.behave().metadata =
        json!({ "issuer": honest_issuer, "authorization_response_iss_parameter_supported": null });
    let mut other = service.get("other").await.expect("there");
    let refusal = refused(
        service.begin(pb::BeginLoginRequest { slug: "other".to_owned(), ..begin_request() }).await,
    );
    assert_eq!(refusal.reason, "PROVIDER_METADATA_INVALID", "the issuer isn't the one of its URL");
    // Even if support has entered that issuer for the other account:
    other.issuer.clone_from(&honest_issuer);
    let update_mask = Some(prost_types::FieldMask { paths: vec!["issuer".to_owned()] });
    service
        .admin
        .update_connection(pb::UpdateConnectionRequest {
            connection: Some(other),
            update_mask,
            force: true,
            validate_only: false,
        })
        .await
        .expect("edited");
    evil.behave().signer = Signer::Es256;
    evil.behave().claims =
        json!({ "iss": honest_issuer, "sub": "sub-alice", "email": "alice@example.com" });
    let begun = service
        .begin(pb::BeginLoginRequest { slug: "other".to_owned(), ..begin_request() })
        .await
        .expect("begun");
    let callback = evil.approve(&begun.redirect_url, "alice");
    let request = pb::CompleteLoginRequest {
        slug: "other".to_owned(),
        iss: None,
        ..complete_request(&callback)
    };
    let identity = service
        .complete(request)
        .await
        .expect("a login at the other account")
        .identity
        .expect("an Identity");
    assert_eq!(identity.slug, "other", "a user is identified by slug, issuer and subject together");
    // The honest account's logins go to the honest IdP and are verified by its keys.
    let before = evil.seen().len();
    let identity = service.log_in().await.expect("a login").identity.expect("an Identity");
    assert_eq!((identity.slug.as_str(), evil.seen().len()), ("acme", before));
    service.idp.behave().id_token = Some(evil.last_id_token());
    assert_eq!(
        reason(service.log_in().await),
        "ID_TOKEN_SIGNATURE_INVALID",
        "a token by the evil IdP's key"
    );
}

/// RFC 9700 4.4.1: a code and state of one account's login at another account's callback.
#[tokio::test]
async fn a_callback_mixed_up_between_accounts_sends_no_code_anywhere() {
    let mut service = Service::start().await;
    let evil = service.with_another_account().await;
    let honest = service.approved().await;
    let begun = service
        .begin(pb::BeginLoginRequest { slug: "other".to_owned(), ..begin_request() })
        .await
        .expect("begun");
    let attacker = evil.approve(&begun.redirect_url, "mallory");
    for (slug, state, iss, expected) in [
        ("other", &honest.state, &honest.iss, "STATE_INVALID"),
        ("other", &honest.state, &evil.issuer, "STATE_INVALID"),
        ("acme", &attacker.state, &honest.iss, "STATE_INVALID"),
        ("other", &attacker.state, &honest.iss, "ISSUER_MISMATCH"),
    ] {
        let request = pb::CompleteLoginRequest {
            slug: slug.to_owned(),
            state: state.clone(),
            iss: Some(iss.clone()),
            ..complete_request(&honest)
        };
        assert_eq!(reason(service.complete(request).await), expected);
    }
    assert_eq!((evil.count("/token"), service.idp.count("/token")), (0, 0));
    service.complete(complete_request(&honest)).await.expect("the honest login still completes");
}

/// RFC 9700 2.1.1, 4.8: PKCE with S256 is used whatever the IdP claims to support.
#[tokio::test]
async fn pkce_is_never_downgraded() {
    for methods in [json!(null), json!([]), json!(["plain"]), json!("S256"), json!(["S256"])] {
        let mut service = Service::start().await;
        service.idp.behave().metadata = json!({ "code_challenge_methods_supported": methods });
        service.log_in().await.unwrap_or_else(|status| panic!("{methods}: {status}"));
        let seen = service.idp.seen();
        let token_request =
            seen.iter().find(|seen| seen.path == "/token").expect("a token request");
        assert!((43..=128).contains(&token_request.form["code_verifier"].len()), "{methods}");
    }
}

/// OIDC Core 3.1.2.1, RFC 6749 3.1: no parameter is repeated or injected through another.
#[tokio::test]
async fn hints_smuggle_no_parameter() {
    let mut service = Service::start().await;
    for hint in [
        "a&redirect_uri=https://evil.example/",
        "a%26redirect_uri=https%3A%2F%2Fevil.example",
        "a#&state=x",
        "a;prompt=none",
        "a+b c",
        "ä@example.com",
        "{\"a\":1}",
    ] {
        let request = pb::BeginLoginRequest {
            login_hint: Some(hint.to_owned()),
            acr_values: vec!["x&client_id=evil".to_owned()],
            ..begin_request()
        };
        let begun = service.begin(request).await.expect("begun");
        // It asserts that no parameter is repeated.
        service.idp.approve(&begun.redirect_url, "alice");
        let url = Url::parse(&begun.redirect_url).expect("a URL");
        assert_eq!(url.fragment(), None);
        let value = |name: &str| {
            url.query_pairs().find(|(own, _)| own == name).map(|(_, value)| value.into_owned())
        };
        assert_eq!(value("login_hint").as_deref(), Some(hint));
        assert_eq!(
            value("redirect_uri"),
            Some(format!("{PUBLIC}/app/accounts/oidc/acme/login/callback/"))
        );
        assert_eq!(value("client_id"), Some(service.idp.client_id.clone()));
    }
}

/// RFC 9700 4.9.1: endpoints that must not be used.
#[tokio::test]
async fn malicious_endpoints_are_refused() {
    for name in [
        "authorization_endpoint",
        "token_endpoint",
        "jwks_uri",
        "userinfo_endpoint",
        "end_session_endpoint",
    ] {
        for url in [
            "javascript:alert(1)",
            "data:text/html,x",
            "file:///etc/passwd",
            "ftp://idp.example/",
            "https://user:password@idp.example/",
            "https://idp.example/#fragment",
            "//idp.example/",
            "/relative",
            "https://",
            "https://idp.example:99999/",
            "https://idp.example\\@evil.example/",
            "https://idp.exa mple/",
        ] {
            let mut service = Service::start().await;
            service.idp.behave().metadata = json!({ name: url });
            let refusal = refused(service.begin(begin_request()).await);
            assert_eq!(refusal.reason, "PROVIDER_METADATA_INVALID", "{name} {url}");
            assert!(refusal.message.contains(name), "{}", refusal.message);
        }
    }
}
