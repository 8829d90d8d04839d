//! The IdP products of the customer guide and some others: what each sends, and what the service
//! makes of it. The fake IdP serves their documents and tokens.

use std::path::Path;

use peerpanda_sso::pb;
use serde_json::{Value, json};
use tonic::Status;
use tonic_types::StatusExt;

use crate::fake_idp::merge;
use crate::harness::{Service, begin_request, complete_request, reason, refused};

/// A product's IdP from `tests/it/idps/*.json`. The documents are the product's own, except for the
/// endpoints that the service calls: they are on the fake IdP (`{fake}`), under the product's
/// paths.
pub(crate) struct Fixture {
    pub(crate) service: Service,
    pub(crate) is: Value,
}

impl Fixture {
    pub(crate) async fn of(name: &str) -> Self {
        let mut service = Service::start().await;
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/it/idps/{name}.json"));
        let now = peerpanda_sso::clock::Clock::unix_seconds(service.clock.as_ref()).0.to_string();
        let text = std::fs::read_to_string(path)
            .expect("a fixture")
            .replace("{fake}", &service.idp.issuer);
        let text = text.replace("{client_id}", &service.idp.client_id).replace("\"{now}\"", &now);
        let is: Value = serde_json::from_str(&text).expect("JSON");
        let mut keys = service.idp.published_keys(|kid| kid == "rsa");
        merge(&mut keys["keys"][0], &is["signing_key"]);
        let kid = keys["keys"][0]["kid"].clone();
        keys["keys"]
            .as_array_mut()
            .expect("an array")
            .extend(is["other_keys"].as_array().into_iter().flatten().cloned());
        let mut claims = json!({
            "iss": is["metadata"]["issuer"], "email": null, "email_verified": null, "given_name": null, "family_name": null,
            "amr": null, "sid": null, "tid": null,
        });
        for (name, value) in is["claims"].as_object().expect("claims") {
            claims[name] = value.clone();
        }
        let mut token_response =
            json!({ "expires_in": null, "ext_expires_in": null, "refresh_token": null });
        for (name, value) in is["token_response"].as_object().expect("a token response") {
            token_response[name] = value.clone();
        }
        let mut header = json!({ "kid": kid });
        merge(&mut header, &is["header"]);
        let texts = |value: &Value| -> std::collections::HashMap<String, String> {
            value
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, value)| (name.clone(), text_of(value)))
                .collect()
        };
        {
            let mut behaviour = service.idp.behave();
            (behaviour.document, behaviour.keys) = (Some(is["metadata"].clone()), Some(keys));
            (behaviour.claims, behaviour.header, behaviour.token_response) =
                (claims, header, token_response);
            behaviour.userinfo = is["userinfo"].clone();
            behaviour.at_hash = is["at_hash"] == json!(true);
            (behaviour.routes, behaviour.content_types) =
                (texts(&is["routes"]), texts(&is["content_types"]));
        }
        let mapping = &is["mapping"];
        let names =
            |name: &str| mapping[name].as_array().into_iter().flatten().map(text_of).collect();
        let claim_mapping = pb::ClaimMapping {
            email: names("email"),
            given_name: names("given_name"),
            family_name: names("family_name"),
            groups: mapping["groups"].as_str().unwrap_or_default().to_owned(),
        };
        let required = is["required_claims"].as_object().into_iter().flatten();
        let required_claims: Vec<_> = required
            .map(|(name, values)| pb::RequiredClaim {
                name: name.clone(),
                values: values.as_array().into_iter().flatten().map(text_of).collect(),
            })
            .collect();
        let authorization_params = texts(&is["authorization_params"]);
        let issuer = text_of(&is["metadata"]["issuer"]);
        let paths = ["issuer", "claim_mapping", "required_claims", "authorization_params"];
        let edited = service.edit(&paths, |connection| {
            connection.issuer = issuer;
            connection.claim_mapping = Some(claim_mapping);
            connection.required_claims = required_claims;
            connection.authorization_params = authorization_params.into_iter().collect();
        });
        edited.await.expect("edited");
        Self { service, is }
    }

    async fn log_in(&mut self) -> Result<pb::CompleteLoginResponse, Status> {
        let approved = self.service.approved().await;
        let iss = self.is["callback_iss"].as_str().map(str::to_owned);
        self.service.complete(pb::CompleteLoginRequest { iss, ..complete_request(&approved) }).await
    }

    /// Logs in and out, and compares the outcome with what the fixture expects.
    async fn logs_in_and_out(mut self) {
        let about = self.is["about"].clone();
        let completed = self.log_in().await.unwrap_or_else(|status| panic!("{about}: {status}"));
        let identity = completed.identity.expect("an Identity");
        let expected = self.is["identity"].clone();
        let verification = identity
            .email_verification()
            .as_str_name()
            .trim_start_matches("EMAIL_VERIFICATION_")
            .to_owned();
        let found = json!({
            "email": identity.email, "email_verification": verification, "given_name": identity.given_name,
            "family_name": identity.family_name, "groups": identity.groups, "amr": identity.amr, "acr": identity.acr,
            "session_id": identity.session_id,
        });
        for (name, value) in
            expected.as_object().expect("an object").iter().filter(|(name, _)| *name != "sources")
        {
            assert_eq!(&found[name], value, "{about}: {name}");
        }
        for (name, source) in expected["sources"].as_object().into_iter().flatten() {
            assert_eq!(identity.claim_sources[name], text_of(source), "{about}: source of {name}");
        }
        assert_eq!(identity.issuer, text_of(&self.is["metadata"]["issuer"]), "{about}");
        assert_eq!(identity.subject, text_of(&self.is["claims"]["sub"]), "{about}");

        let mut request =
            pb::LogoutUrlRequest { slug: "acme".to_owned(), ..pb::LogoutUrlRequest::default() };
        if self.is["logout_needs_hint"] == json!(true) {
            let refusal = refused(self.service.login.logout_url(request.clone()).await);
            assert_eq!(
                (refusal.reason.as_str(), refusal.fields),
                ("BAD_REQUEST", vec!["id_token_hint".to_owned()]),
                "{about}"
            );
            request.id_token_hint = Some(completed.id_token);
        }
        let logout = self.service.login.logout_url(request).await.expect("an URL").into_inner();
        match &self.is["logout"] {
            Value::Null => assert!(
                !logout.ends_idp_session && logout.redirect_url.ends_with("/login/"),
                "{about}"
            ),
            expected => {
                assert!(
                    logout.ends_idp_session && logout.redirect_url.starts_with(&text_of(expected)),
                    "{}",
                    logout.redirect_url
                );
            }
        }
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}

/// Keycloak; OIDC Discovery 3, Core 3.1.3.3.
#[tokio::test]
async fn keycloak_logs_in_as_it_is() {
    Fixture::of("keycloak").await.logs_in_and_out().await;
}

/// Entra ID v2.
#[tokio::test]
async fn entra_v2_logs_in_as_it_is() {
    Fixture::of("entra_v2").await.logs_in_and_out().await;
}

/// Entra ID v1.
#[tokio::test]
async fn entra_v1_logs_in_as_it_is() {
    Fixture::of("entra_v1").await.logs_in_and_out().await;
}

/// Okta, org authorization server.
#[tokio::test]
async fn oktas_org_server_logs_in_as_it_is() {
    Fixture::of("okta_org").await.logs_in_and_out().await;
}

/// Okta, custom authorization server.
#[tokio::test]
async fn oktas_custom_server_logs_in_as_it_is() {
    Fixture::of("okta_custom").await.logs_in_and_out().await;
}

/// Google Workspace.
#[tokio::test]
async fn google_workspace_logs_in_as_it_is() {
    Fixture::of("google").await.logs_in_and_out().await;
}

/// Auth0.
#[tokio::test]
async fn auth0_logs_in_as_it_is() {
    Fixture::of("auth0").await.logs_in_and_out().await;
}

/// PingFederate.
#[tokio::test]
async fn pingfederate_logs_in_as_it_is() {
    Fixture::of("pingfederate").await.logs_in_and_out().await;
}

/// OneLogin.
#[tokio::test]
async fn onelogin_logs_in_as_it_is() {
    Fixture::of("onelogin").await.logs_in_and_out().await;
}

/// JumpCloud.
#[tokio::test]
async fn jumpcloud_logs_in_as_it_is() {
    Fixture::of("jumpcloud").await.logs_in_and_out().await;
}

/// AD FS.
#[tokio::test]
async fn adfs_logs_in_as_it_is() {
    Fixture::of("adfs").await.logs_in_and_out().await;
}

/// AWS Cognito.
#[tokio::test]
async fn cognito_logs_in_as_it_is() {
    Fixture::of("cognito").await.logs_in_and_out().await;
}

/// GitLab.
#[tokio::test]
async fn gitlab_logs_in_as_it_is() {
    Fixture::of("gitlab").await.logs_in_and_out().await;
}

/// Salesforce.
#[tokio::test]
async fn salesforce_logs_in_as_it_is() {
    Fixture::of("salesforce").await.logs_in_and_out().await;
}

/// The help for a missing claim names the menus of the product.
#[tokio::test]
async fn a_missing_claim_is_explained_for_the_idp_that_left_it_out() {
    for (name, missing, link, words) in [
        ("entra_v2", "email", "learn.microsoft.com", "Add optional claim"),
        ("okta_org", "email", "developer.okta.com", "Okta"),
        ("google", "email", "support.google.com", "Admin console"),
        ("auth0", "email", "auth0.com", "Action"),
        ("keycloak", "email", "keycloak.org", "Client scopes"),
        ("cognito", "email", "docs.aws.amazon.com", "Attribute permissions"),
        ("adfs", "email", "learn.microsoft.com", "Issuance Transform Rules"),
        ("gitlab", "email", "openid.net", "scopes email and profile"),
    ] {
        let mut fixture = Fixture::of(name).await;
        fixture
            .service
            .edit(&["claim_mapping"], |connection| connection.claim_mapping = None)
            .await
            .expect("edited");
        fixture.service.idp.behave().claims["email"] = Value::Null;
        fixture.service.idp.behave().userinfo =
            json!({ "sub": fixture.is["claims"]["sub"], "given_name": "Ada" });
        let status = fixture.log_in().await.expect_err("no e-mail");
        let help = status.get_details_help().expect("Help").links;
        assert!(
            help[0].url.contains(link) && help[0].description.contains(words),
            "{name}: {help:?}"
        );
        let refusal = refused::<()>(Err(status));
        assert_eq!(
            (refusal.reason.as_str(), refusal.owner.as_str()),
            ("CLAIM_MISSING", "customer_idp_admin"),
            "{name}"
        );
        assert!(
            refusal.metadata["claim"].split(", ").any(|claim| claim == missing),
            "{name}: {:?}",
            refusal.metadata
        );
    }
}

/// Entra leaves out more than 200 groups and marks it by `_claim_names` or `hasgroups`. The
/// Identity marks it too.
#[tokio::test]
async fn entras_group_overage_is_said() {
    for overage in [
        json!({ "_claim_names": { "groups": "src1" }, "_claim_sources": { "src1": { "endpoint": "https://graph.windows.net/x" } } }),
        json!({ "hasgroups": true }),
    ] {
        let mut fixture = Fixture::of("entra_v2").await;
        let mapped = fixture.service.edit(&["claim_mapping"], |connection| {
            connection.claim_mapping.get_or_insert_default().groups = "groups".to_owned();
        });
        mapped.await.expect("edited");
        merge(&mut fixture.service.idp.behave().claims, &overage);
        let identity = fixture.log_in().await.expect("a login").identity.expect("an Identity");
        assert_eq!(identity.groups, Vec::<String>::new());
        assert!(
            identity.claim_sources["groups"].starts_with("overage"),
            "{:?}",
            identity.claim_sources
        );
        merge(
            &mut fixture.service.idp.behave().claims,
            &json!({ "groups": ["g1", "g2"], "_claim_names": null, "hasgroups": null }),
        );
        let identity = fixture.log_in().await.expect("a login").identity.expect("an Identity");
        assert_eq!(
            (identity.groups.len(), identity.claim_sources["groups"].as_str()),
            (2, "id_token.groups")
        );
    }
}

/// GitLab sends one name. It is never split, and the refusal names the claims to be mapped.
#[tokio::test]
async fn one_name_is_not_split() {
    let mut fixture = Fixture::of("gitlab").await;
    fixture
        .service
        .edit(&["claim_mapping"], |connection| connection.claim_mapping = None)
        .await
        .expect("edited");
    assert_eq!(refused(fixture.log_in().await).metadata["claim"], "given_name, family_name");
}

fn map_email(connection: &mut pb::Connection, names: &[&str]) {
    let email = names.iter().map(|name| (*name).to_owned()).collect();
    connection.claim_mapping = Some(pb::ClaimMapping { email, ..pb::ClaimMapping::default() });
}

/// Entra ID v2: no `email` by default, never `email_verified`, PKCE not advertised, and further
/// members in the token response.
#[tokio::test]
async fn entra_sends_no_email_until_it_is_told_to() {
    let mut service = Service::start().await;
    service.idp.behave().metadata = json!({
        "code_challenge_methods_supported": null, "authorization_response_iss_parameter_supported": null,
        "tenant_region_scope": "EU", "cloud_instance_name": "microsoftonline.com", "rbac_url": "https://pas.windows.net",
    });
    service.idp.behave().token_response =
        json!({ "token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599 });
    let managed = json!({
        "email": null, "email_verified": null, "preferred_username": "ada@contoso.com", "oid": "7d4a", "tid": "9188",
        "ver": "2.0", "rh": "0.A", "uti": "x",
    });
    service.idp.behave().claims = managed.clone();
    let status = service.log_in().await.expect_err("no e-mail");
    let help = status.get_details_help().expect("Help").links;
    assert!(help.iter().all(|link| link.url.starts_with("https://")), "{help:?}");
    assert_eq!(refused::<()>(Err(status)).metadata["claim"], "email");

    service
        .edit(&["claim_mapping"], |connection| {
            map_email(connection, &["email", "preferred_username"])
        })
        .await
        .expect("edited");
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

/// Entra ID v2.
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
        (json!(2), unverified),
        (json!("0"), unverified),
        (Value::Null, pb::EmailVerification::NotStated as i32),
    ] {
        service.idp.behave().claims = json!({ "email_verified": null, "xms_edov": edov });
        let identity = service.log_in().await.expect("a login").identity.expect("an Identity");
        assert_eq!(identity.email_verification, expected, "{edov}");
    }
}

/// Entra's multi-tenant documents: `{tenantid}` in the issuer, and keys of single tenants among
/// those of all tenants.
#[tokio::test]
async fn entras_template_passes_the_listed_tenants_alone() {
    const OURS: &str = "11111111-2222-3333-4444-555555555555";
    const OTHER: &str = "99999999-2222-3333-4444-555555555555";
    let mut service = Service::start().await;
    let template = format!("{}/{{tenantid}}/v2.0", service.idp.issuer);
    let issuer_of = |tenant: &str| template.replace("{tenantid}", tenant);
    service.idp.behave().metadata =
        json!({ "issuer": template, "authorization_response_iss_parameter_supported": null });
    let refusal = refused(service.begin(begin_request()).await);
    assert_eq!(refusal.reason, "PROVIDER_METADATA_INVALID", "a template needs pinned tenants");
    let pinned = service.edit(&["issuer", "allowed_tenant_ids"], |connection| {
        connection.issuer.clone_from(&template);
        connection.allowed_tenant_ids = vec![OURS.to_owned()];
    });
    pinned.await.expect("edited");
    let callback = |callback: crate::fake_idp::Callback| pb::CompleteLoginRequest {
        iss: None,
        ..complete_request(&callback)
    };
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
            (Ok(completed), None) => {
                assert_eq!(completed.identity.expect("an Identity").issuer, issuer_of(OURS))
            }
            (completed, expected) => {
                assert_eq!(Some(reason(completed).as_str()), expected, "{claims}")
            }
        }
    }
    let mut keys = service.idp.published_keys(|kid| kid == "rsa");
    keys["keys"][0]["issuer"] = json!(issuer_of(OTHER));
    service.idp.behave().answers.insert("/keys", (200, keys.to_string(), String::new()));
    service.idp.behave().claims = json!({ "iss": issuer_of(OURS), "tid": OURS });
    service
        .edit(&["display_name"], |connection| connection.display_name = "read again".to_owned())
        .await
        .expect("edited");
    let approved = service.approved().await;
    let refusal = refused(service.complete(callback(approved)).await);
    assert_eq!(
        (refusal.reason.as_str(), refusal.metadata["cause"].as_str()),
        ("ID_TOKEN_SIGNATURE_INVALID", "key_of_other_tenant")
    );
}

/// Entra v1: the issuer is on another host than the discovery URL, and ends in a slash.
#[tokio::test]
async fn an_issuer_elsewhere_is_accepted_where_it_is_entered() {
    let mut service = Service::start().await;
    let issuer = "https://sts.windows.example/9188/".to_owned();
    service.idp.behave().metadata =
        json!({ "issuer": issuer, "authorization_response_iss_parameter_supported": null });
    service.idp.behave().claims = json!({ "iss": issuer, "upn": "ada@contoso.com", "ver": "1.0" });
    let refusal = refused(service.begin(begin_request()).await);
    assert!(refusal.message.contains(&issuer), "both values are named: {}", refusal.message);
    let entered = issuer.clone();
    service.edit(&["issuer"], |connection| connection.issuer = entered).await.expect("edited");
    let approved = service.approved().await;
    let completed = service
        .complete(pb::CompleteLoginRequest { iss: None, ..complete_request(&approved) })
        .await
        .expect("a login");
    assert_eq!(completed.identity.expect("an Identity").issuer, issuer);
}

/// Okta: an ID token with few claims, names in UserInfo only, `updated_at` as a number.
#[tokio::test]
async fn oktas_thin_token_is_filled_in_from_userinfo() {
    let mut service = Service::start().await;
    service.idp.behave().at_hash = true;
    service.idp.behave().claims = json!({ "ver": 1, "jti": "ID.x", "amr": ["pwd", "mfa"], "idp": "00o1", "preferred_username": "ada@corp.com" });
    service.idp.behave().userinfo = json!({
        "name": "Ada Lovelace", "locale": "en_US", "email": "ada@corp.com", "email_verified": true, "given_name": "Ada",
        "family_name": "Lovelace", "zoneinfo": "Europe/London", "updated_at": 1_700_000_000,
    });
    let identity = service.log_in().await.expect("a login").identity.expect("an Identity");
    assert_eq!(
        (identity.email.as_str(), identity.email_verification),
        ("ada@corp.com", pb::EmailVerification::Verified as i32)
    );
    assert_eq!(
        (identity.amr, identity.locale.as_deref()),
        (vec!["pwd".to_owned(), "mfa".to_owned()], Some("en_US"))
    );
    // Okta's own error format, and HTTP 429.
    service
        .idp
        .behave()
        .answers
        .insert("/userinfo", (429, r#"{"errorCode":"E0000047"}"#.to_owned(), String::new()));
    assert_eq!(reason(service.log_in().await), "PROVIDER_UNAVAILABLE");
}

/// Google Workspace: `hd` required by the connection, `iss` in the callback though not advertised,
/// no logout, `azp`.
#[tokio::test]
async fn googles_hd_is_compared_and_its_callback_issuer_too() {
    let mut service = Service::start().await;
    service.idp.behave().metadata = json!({ "authorization_response_iss_parameter_supported": null, "end_session_endpoint": null });
    service
        .edit(&["authorization_params", "required_claims"], |connection| {
            connection.authorization_params = [("hd".to_owned(), "corp.com".to_owned())].into();
            connection.required_claims = vec![pb::RequiredClaim {
                name: "hd".to_owned(),
                values: vec!["corp.com".to_owned()],
            }];
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
        service.idp.behave().claims =
            json!({ "hd": hd, "azp": client_id, "email_verified": "true" });
        match (service.log_in().await, expected) {
            (Ok(completed), None) => {
                assert_eq!(
                    completed.identity.expect("an Identity").email_verification,
                    pb::EmailVerification::Verified as i32
                );
            }
            (completed, expected) => assert_eq!(Some(reason(completed).as_str()), expected, "{hd}"),
        }
    }
    let approved = service.approved().await;
    let foreign = pb::CompleteLoginRequest {
        iss: Some("https://accounts.evil.example".to_owned()),
        ..complete_request(&approved)
    };
    assert_eq!(reason(service.complete(foreign).await), "ISSUER_MISMATCH");
    service.idp.behave().claims = json!({ "hd": "corp.com", "iss": "accounts.google.com" });
    assert_eq!(reason(service.log_in().await), "ID_TOKEN_INVALID", "the legacy issuer");
}

/// Auth0: the issuer ends in a slash, `updated_at` is RFC 3339, claims are named by URLs.
#[tokio::test]
async fn auth0s_issuer_keeps_its_slash() {
    let mut service = Service::start().await;
    let issuer = format!("{}/", service.idp.issuer);
    service.idp.behave().metadata = json!({ "issuer": issuer, "end_session_endpoint": null, "authorization_response_iss_parameter_supported": null });
    service.idp.behave().claims = json!({
        "iss": issuer, "updated_at": "2026-01-02T03:04:05.678Z", "given_name": null, "https://corp.com/given_name": "Ada",
    });
    service
        .edit(&["claim_mapping", "logout_style"], |connection| {
            let given_name = vec!["https://corp.com/given_name".to_owned()];
            connection.claim_mapping =
                Some(pb::ClaimMapping { given_name, ..pb::ClaimMapping::default() });
            connection.logout_style = pb::LogoutStyle::Auth0V2.into();
        })
        .await
        .expect("edited");
    let approved = service.approved().await;
    let completed = service
        .complete(pb::CompleteLoginRequest { iss: None, ..complete_request(&approved) })
        .await
        .expect("a login");
    let identity = completed.identity.expect("an Identity");
    assert_eq!((identity.issuer, identity.given_name.as_str()), (issuer, "Ada"));
    let request =
        pb::LogoutUrlRequest { slug: "acme".to_owned(), ..pb::LogoutUrlRequest::default() };
    let logout = service.login.logout_url(request).await.expect("an URL").into_inner();
    assert!(
        logout.redirect_url.starts_with(&format!("{}/v2/logout?client_id=", service.idp.issuer)),
        "{}",
        logout.redirect_url
    );
}

/// Azure AD B2C without a subject sends a placeholder, which must not be taken for a person.
#[tokio::test]
async fn b2cs_placeholder_subject_is_refused() {
    let mut service = Service::start().await;
    service.idp.behave().claims = json!({ "sub": "Not supported currently. Use oid claim." });
    assert_eq!(reason(service.log_in().await), "ID_TOKEN_INVALID");
}

/// Booleans as strings (Cognito), numbers as booleans, `amr` as a string, and other claims of any
/// type.
#[tokio::test]
async fn oddly_typed_claims_fail_nobody() {
    let mut service = Service::start().await;
    service.idp.behave().claims = json!({
        "email_verified": "true", "amr": "pwd", "address": "a street", "phone_number_verified": "false", "updated_at": "soon",
        "name": 7, "locale": ["en"], "picture": null, "acr": 0, "sid": 1, "roles": { "a": [1, 2.5, null, true] },
    });
    let identity = service.log_in().await.expect("a login").identity.expect("an Identity");
    assert_eq!(
        (identity.name, identity.locale, identity.acr, identity.session_id),
        (None, None, None, None)
    );
    assert_eq!(identity.email_verification, pb::EmailVerification::Verified as i32);
}
