//! LogoutUrl, refusals first.

use std::time::Duration;

use peerpanda_sso::pb;
use serde_json::{Value, json};

use crate::harness::{PUBLIC, Service, reason, refused};

fn request() -> pb::LogoutUrlRequest {
    pb::LogoutUrlRequest { slug: "acme".to_owned(), ..pb::LogoutUrlRequest::default() }
}

async fn logout(
    service: &mut Service,
    request: pb::LogoutUrlRequest,
) -> Result<pb::LogoutUrlResponse, tonic::Status> {
    service.login.logout_url(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn a_foreign_address_or_a_malformed_token_is_refused() {
    let mut service = Service::start().await;
    let evil = pb::LogoutUrlRequest {
        post_logout_redirect_uri: Some("https://evil.example/".to_owned()),
        ..request()
    };
    assert_eq!(refused(logout(&mut service, evil).await).fields, ["post_logout_redirect_uri"]);
    let good = service.log_in().await.expect("a login").id_token;
    let (two_parts, _) = good.rsplit_once('.').expect("a JWT");
    for hint in [two_parts, &format!("{good}.AA"), "x", "a.b.c", &"x".repeat(65_537), "a b"] {
        let hint = pb::LogoutUrlRequest { id_token_hint: Some(hint.to_owned()), ..request() };
        assert_eq!(reason(logout(&mut service, hint).await), "BAD_REQUEST");
    }
    assert_eq!(
        reason(
            logout(&mut service, pb::LogoutUrlRequest { slug: "nobody".to_owned(), ..request() })
                .await
        ),
        "CONNECTION_NOT_FOUND"
    );
}

/// A person who logged in before the connection's client or issuer changed can still leave.
#[tokio::test]
async fn an_id_token_of_a_former_client_or_issuer_is_left_out() {
    const OKTA: &str = "/oauth2/v1/logout";
    let mut service = Service::start().await;
    for claims in [json!({ "iss": "https://former.example" }), json!({ "aud": "former" })] {
        service.idp.behave().claims = claims.clone();
        let _refused = service.log_in().await;
        let hint =
            pb::LogoutUrlRequest { id_token_hint: Some(service.idp.last_id_token()), ..request() };
        let answer = logout(&mut service, hint).await.expect("an URL");
        assert!(answer.ends_idp_session, "{claims}");
        assert!(answer.redirect_url.contains("client_id="), "{}", answer.redirect_url);
        assert!(!answer.redirect_url.contains("id_token_hint"), "{}", answer.redirect_url);
    }
    // An IdP that would refuse the logout without it is not asked.
    let former = service.idp.last_id_token();
    let end_session = format!("{}{OKTA}", service.idp.issuer);
    service.idp.behave().metadata = json!({ "end_session_endpoint": end_session });
    service
        .edit(&["display_name"], |connection| connection.display_name = "again".to_owned())
        .await
        .expect("edited");
    let hint = pb::LogoutUrlRequest { id_token_hint: Some(former), ..request() };
    let answer = logout(&mut service, hint).await.expect("an URL");
    assert_eq!(answer.redirect_url, format!("{PUBLIC}/app/accounts/oidc/acme/login/"));
    assert!(!answer.ends_idp_session);
    assert_eq!(refused(logout(&mut service, request()).await).fields, ["id_token_hint"]);
}

/// OIDC RP-Initiated Logout 2; oidcc-client-test-rp-init-logout.
#[tokio::test]
async fn the_logout_url_keeps_the_endpoints_query() {
    let mut service = Service::start().await;
    let id_token = service.log_in().await.expect("a login").id_token;
    let all = pb::LogoutUrlRequest {
        id_token_hint: Some(id_token.clone()),
        post_logout_redirect_uri: Some(format!("{PUBLIC}/app/accounts/oidc/acme/login/")),
        state: Some("s1".to_owned()),
        ..request()
    };
    let answer = logout(&mut service, all).await.expect("an URL");
    assert!(answer.ends_idp_session);
    let url = url::Url::parse(&answer.redirect_url).expect("an URL");
    let sent: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let expected = [
        ("tenant", "1"),
        ("id_token_hint", &id_token),
        ("client_id", &service.idp.client_id),
        ("post_logout_redirect_uri", &format!("{PUBLIC}/app/accounts/oidc/acme/login/")),
        ("state", "s1"),
    ];
    assert_eq!(sent, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

/// Google Workspace.
#[tokio::test]
async fn without_a_logout_at_the_idp_the_person_is_sent_back_at_once() {
    let mut service = Service::start().await;
    service.idp.behave().metadata = json!({ "end_session_endpoint": Value::Null });
    let answer = logout(&mut service, request()).await.expect("an URL");
    assert_eq!(answer.redirect_url, format!("{PUBLIC}/app/accounts/oidc/acme/login/"));
    assert!(!answer.ends_idp_session);

    service
        .edit(&["logout_style"], |connection| {
            connection.logout_style = pb::LogoutStyle::Auth0V2.into()
        })
        .await
        .expect("edited");
    let answer = logout(&mut service, request()).await.expect("an URL");
    assert!(
        answer.redirect_url.starts_with(&format!("{}/v2/logout?client_id=", service.idp.issuer)),
        "{}",
        answer.redirect_url
    );
    assert!(answer.ends_idp_session);
}

/// keycloak#15945. Nothing is known of the IdP, which fails or hangs.
#[tokio::test]
async fn a_person_can_leave_while_nothing_is_known_of_the_idp() {
    let mut service = Service::start().await;
    let metadata = "/.well-known/openid-configuration";
    service.idp.behave().answers.insert(metadata, (503, String::new(), String::new()));
    for is_hanging in [false, true] {
        if is_hanging {
            service.idp.behave().answers.clear();
            service.idp.behave().metadata_delay = Duration::from_secs(60);
            service.clock.advance(Duration::from_secs(2));
        }
        let began = tokio::time::Instant::now();
        let answer = logout(&mut service, request()).await.expect("an URL");
        assert_eq!(answer.redirect_url, format!("{PUBLIC}/app/accounts/oidc/acme/login/"));
        assert!(!answer.ends_idp_session);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
    assert_eq!(service.idp.count(metadata), 2);
}

#[tokio::test]
async fn a_person_can_log_out_at_a_disabled_connection() {
    let mut service = Service::start().await;
    service
        .edit(&["state"], |connection| connection.state = pb::ConnectionState::Disabled.into())
        .await
        .expect("disabled");
    assert!(logout(&mut service, request()).await.expect("an URL").ends_idp_session);
}
