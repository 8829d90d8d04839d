//! The customer guide's IdPs and some others as they are: what each sends, and what becomes of it. The documents and
//! tokens are served by the fake IdP, under its own issuer where theirs would stand.

use peerpanda_sso::pb;
use serde_json::{Value, json};
use tonic_types::StatusExt;

use crate::harness::{Service, begin_request, complete_request, reason, refused};

fn map_email(connection: &mut pb::Connection, names: &[&str]) {
    let email = names.iter().map(|name| (*name).to_owned()).collect();
    connection.claim_mapping = Some(pb::ClaimMapping { email, ..pb::ClaimMapping::default() });
}

/// Entra ID v2: no `email` by default, never `email_verified`, PKCE unadvertised, extra members in the token response.
#[tokio::test]
async fn entra_sends_no_email_until_it_is_told_to() {
    let mut service = Service::start().await;
    service.idp.behave().metadata = json!({
        "code_challenge_methods_supported": null, "authorization_response_iss_parameter_supported": null,
        "tenant_region_scope": "EU", "cloud_instance_name": "microsoftonline.com", "rbac_url": "https://pas.windows.net",
    });
    service.idp.behave().token_response = json!({ "token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599 });
    let managed = json!({
        "email": null, "email_verified": null, "preferred_username": "ada@contoso.com", "oid": "7d4a", "tid": "9188",
        "ver": "2.0", "rh": "0.A", "uti": "x",
    });
    service.idp.behave().claims = managed.clone();
    let status = service.log_in().await.expect_err("no e-mail");
    let help = status.get_details_help().expect("Help").links;
    assert!(help.iter().all(|link| link.url.starts_with("https://")), "{help:?}");
    assert_eq!(refused::<()>(Err(status)).metadata["claim"], "email");

    service.edit(&["claim_mapping"], |connection| map_email(connection, &["email", "preferred_username"])).await.expect("edited");
    let identity = service.log_in().await.expect("a login").identity.expect("an Identity");
    assert_eq!(
        (identity.email.as_str(), identity.email_verification),
        ("ada@contoso.com", pb::EmailVerification::NotStated as i32)
    );
    for not_an_address in ["+442071234567", "ada", "ada_gmail.com#EXT#@contoso.onmicrosoft.com"] {
        let mut claims = managed.clone();
        claims["preferred_username"] = json!(not_an_address);
        service.idp.behave().claims = claims;
        assert_eq!(reason(service.log_in().await), "CLAIM_MISSING", "{not_an_address}");
    }
}

#[tokio::test]
async fn entra_says_by_xms_edov_whether_the_domains_owner_is_verified() {
    let mut service = Service::start().await;
    let verified = pb::EmailVerification::Verified as i32;
    let unverified = pb::EmailVerification::Unverified as i32;
    for (edov, expected) in [
        (json!(true), verified),
        (json!("true"), verified),
        (json!("1"), verified),
        (json!(1), verified),
        (json!(false), unverified),
        (json!("0"), unverified),
        (Value::Null, pb::EmailVerification::NotStated as i32),
    ] {
        service.idp.behave().claims = json!({ "email_verified": null, "xms_edov": edov });
        let identity = service.log_in().await.expect("a login").identity.expect("an Identity");
        assert_eq!(identity.email_verification, expected, "{edov}");
    }
}

/// Entra's multi-tenant documents: `{tenantid}` in the issuer, and keys of single tenants beside those of all.
#[tokio::test]
async fn entras_template_passes_the_listed_tenants_alone() {
    const OURS: &str = "11111111-2222-3333-4444-555555555555";
    const OTHER: &str = "99999999-2222-3333-4444-555555555555";
    let mut service = Service::start().await;
    let template = format!("{}/{{tenantid}}/v2.0", service.idp.issuer);
    let issuer_of = |tenant: &str| template.replace("{tenantid}", tenant);
    service.idp.behave().metadata = json!({ "issuer": template, "authorization_response_iss_parameter_supported": null });
    let refusal = refused(service.begin(begin_request()).await);
    assert_eq!(refusal.reason, "PROVIDER_METADATA_INVALID", "a template needs pinned tenants");
    let pinned = service.edit(&["issuer", "allowed_tenant_ids"], |connection| {
        connection.issuer.clone_from(&template);
        connection.allowed_tenant_ids = vec![OURS.to_owned()];
    });
    pinned.await.expect("edited");
    let callback = |callback: crate::fake_idp::Callback| pb::CompleteLoginRequest { iss: None, ..complete_request(&callback) };
    for (claims, expected) in [
        (json!({ "iss": issuer_of(OURS), "tid": OURS }), None),
        (json!({ "iss": issuer_of(OTHER), "tid": OTHER }), Some("ID_TOKEN_INVALID")),
        (json!({ "iss": issuer_of(OTHER), "tid": OURS }), Some("ID_TOKEN_INVALID")),
        (json!({ "iss": issuer_of(OURS), "tid": OTHER }), Some("ID_TOKEN_INVALID")),
        (json!({ "iss": template, "tid": OURS }), Some("ID_TOKEN_INVALID")),
        (json!({ "iss": template, "tid": "{tenantid}" }), Some("ID_TOKEN_INVALID")),
        (json!({ "iss": issuer_of(OURS), "tid": null }), Some("ID_TOKEN_INVALID")),
    ] {
        service.idp.behave().claims = claims.clone();
        let approved = service.approved().await;
        match (service.complete(callback(approved)).await, expected) {
            (Ok(completed), None) => assert_eq!(completed.identity.expect("an Identity").issuer, issuer_of(OURS)),
            (completed, expected) => assert_eq!(Some(reason(completed).as_str()), expected, "{claims}"),
        }
    }
    let mut keys = service.idp.published_keys(|kid| kid == "rsa");
    keys["keys"][0]["issuer"] = json!(issuer_of(OTHER));
    service.idp.behave().answers.insert("/keys", (200, keys.to_string(), String::new()));
    service.idp.behave().claims = json!({ "iss": issuer_of(OURS), "tid": OURS });
    service.edit(&["display_name"], |connection| connection.display_name = "read anew".to_owned()).await.expect("edited");
    let approved = service.approved().await;
    assert_eq!(reason(service.complete(callback(approved)).await), "ID_TOKEN_SIGNATURE_INVALID", "another tenant's key");
}

/// Entra v1: an issuer of another host than the discovery URL's, with a slash at the end.
#[tokio::test]
async fn an_issuer_elsewhere_is_accepted_where_it_is_entered() {
    let mut service = Service::start().await;
    let issuer = "https://sts.windows.example/9188/".to_owned();
    service.idp.behave().metadata = json!({ "issuer": issuer, "authorization_response_iss_parameter_supported": null });
    service.idp.behave().claims = json!({ "iss": issuer, "upn": "ada@contoso.com", "ver": "1.0" });
    let refusal = refused(service.begin(begin_request()).await);
    assert!(refusal.message.contains(&issuer), "both values are named: {}", refusal.message);
    let entered = issuer.clone();
    service.edit(&["issuer"], |connection| connection.issuer = entered).await.expect("edited");
    let approved = service.approved().await;
    let completed =
        service.complete(pb::CompleteLoginRequest { iss: None, ..complete_request(&approved) }).await.expect("a login");
    assert_eq!(completed.identity.expect("an Identity").issuer, issuer);
}

/// Okta: a thin ID token, names at UserInfo alone, `updated_at` as a number.
#[tokio::test]
async fn oktas_thin_token_is_filled_in_from_userinfo() {
    let mut service = Service::start().await;
    service.idp.behave().at_hash = true;
    service.idp.behave().claims =
        json!({ "ver": 1, "jti": "ID.x", "amr": ["pwd", "mfa"], "idp": "00o1", "preferred_username": "ada@corp.com" });
    service.idp.behave().userinfo = json!({
        "name": "Ada Lovelace", "locale": "en_US", "email": "ada@corp.com", "email_verified": true, "given_name": "Ada",
        "family_name": "Lovelace", "zoneinfo": "Europe/London", "updated_at": 1_700_000_000,
    });
    let identity = service.log_in().await.expect("a login").identity.expect("an Identity");
    assert_eq!((identity.email.as_str(), identity.email_verification), ("ada@corp.com", pb::EmailVerification::Verified as i32));
    assert_eq!((identity.amr, identity.locale.as_deref()), (vec!["pwd".to_owned(), "mfa".to_owned()], Some("en_US")));
    // Its errors aren't OAuth's, and its limits are.
    service.idp.behave().answers.insert("/userinfo", (429, r#"{"errorCode":"E0000047"}"#.to_owned(), String::new()));
    assert_eq!(reason(service.log_in().await), "PROVIDER_UNAVAILABLE");
}

/// Google Workspace: `hd` pinned by the connection, `iss` in the callback unadvertised, no logout, `azp`.
#[tokio::test]
async fn googles_hd_is_compared_and_its_callback_issuer_too() {
    let mut service = Service::start().await;
    service.idp.behave().metadata =
        json!({ "authorization_response_iss_parameter_supported": null, "end_session_endpoint": null });
    service
        .edit(&["authorization_params", "required_claims"], |connection| {
            connection.authorization_params = [("hd".to_owned(), "corp.com".to_owned())].into();
            connection.required_claims = vec![pb::RequiredClaim { name: "hd".to_owned(), values: vec!["corp.com".to_owned()] }];
        })
        .await
        .expect("edited");
    let client_id = service.idp.client_id.clone();
    for (hd, expected) in [
        (json!("corp.com"), None),
        (Value::Null, Some("CLAIM_NOT_ALLOWED")),
        (json!("corp.com.evil"), Some("CLAIM_NOT_ALLOWED")),
        (json!("Corp.com"), Some("CLAIM_NOT_ALLOWED")),
    ] {
        service.idp.behave().claims = json!({ "hd": hd, "azp": client_id, "email_verified": "true" });
        match (service.log_in().await, expected) {
            (Ok(completed), None) => {
                assert_eq!(completed.identity.expect("an Identity").email_verification, pb::EmailVerification::Verified as i32);
            }
            (completed, expected) => assert_eq!(Some(reason(completed).as_str()), expected, "{hd}"),
        }
    }
    let approved = service.approved().await;
    let foreign =
        pb::CompleteLoginRequest { iss: Some("https://accounts.evil.example".to_owned()), ..complete_request(&approved) };
    assert_eq!(reason(service.complete(foreign).await), "ISSUER_MISMATCH");
    service.idp.behave().claims = json!({ "hd": "corp.com", "iss": "accounts.google.com" });
    assert_eq!(reason(service.log_in().await), "ID_TOKEN_INVALID", "the legacy issuer");
}

/// Auth0: the issuer has a slash at its end, `updated_at` is RFC 3339, claims have names like URLs, HS256 by default.
#[tokio::test]
async fn auth0s_issuer_keeps_its_slash() {
    let mut service = Service::start().await;
    let issuer = format!("{}/", service.idp.issuer);
    service.idp.behave().metadata =
        json!({ "issuer": issuer, "end_session_endpoint": null, "authorization_response_iss_parameter_supported": null });
    service.idp.behave().claims = json!({
        "iss": issuer, "updated_at": "2026-01-02T03:04:05.678Z", "given_name": null, "https://corp.com/given_name": "Ada",
    });
    service
        .edit(&["claim_mapping", "logout_style"], |connection| {
            let given_name = vec!["https://corp.com/given_name".to_owned()];
            connection.claim_mapping = Some(pb::ClaimMapping { given_name, ..pb::ClaimMapping::default() });
            connection.logout_style = pb::LogoutStyle::Auth0V2.into();
        })
        .await
        .expect("edited");
    let approved = service.approved().await;
    let completed =
        service.complete(pb::CompleteLoginRequest { iss: None, ..complete_request(&approved) }).await.expect("a login");
    let identity = completed.identity.expect("an Identity");
    assert_eq!((identity.issuer, identity.given_name.as_str()), (issuer, "Ada"));
    let request = pb::LogoutUrlRequest { slug: "acme".to_owned(), ..pb::LogoutUrlRequest::default() };
    let logout = service.login.logout_url(request).await.expect("an URL").into_inner();
    assert!(logout.redirect_url.starts_with(&format!("{}/v2/logout?client_id=", service.idp.issuer)), "{}", logout.redirect_url);
}

/// Azure AD B2C without a subject: its placeholder is nobody.
#[tokio::test]
async fn b2cs_placeholder_is_no_subject() {
    let mut service = Service::start().await;
    service.idp.behave().claims = json!({ "sub": "Not supported currently. Use oid claim." });
    assert_eq!(reason(service.log_in().await), "ID_TOKEN_INVALID");
}

/// Booleans as strings (Cognito), numbers as booleans, `amr` as a string, claims of any type beside those that count.
#[tokio::test]
async fn oddly_typed_claims_fail_nobody() {
    let mut service = Service::start().await;
    service.idp.behave().claims = json!({
        "email_verified": "true", "amr": "pwd", "address": "a street", "phone_number_verified": "false", "updated_at": "soon",
        "name": 7, "locale": ["en"], "picture": null, "acr": 0, "sid": 1, "roles": { "a": [1, 2.5, null, true] },
    });
    let identity = service.log_in().await.expect("a login").identity.expect("an Identity");
    assert_eq!((identity.name, identity.locale, identity.acr, identity.session_id), (None, None, None, None));
    assert_eq!(identity.email_verification, pb::EmailVerification::Verified as i32);
}
