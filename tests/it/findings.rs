//! What a check finds at IdPs of all kinds: each fault once, with its cause and its owner, nothing wrong
//! where nothing is, and nothing claimed that was not proven.

use std::sync::atomic::Ordering;

use peerpanda_sso::model::check::CheckId;
use peerpanda_sso::oidc::probe::{MAX_REJECTIONS, MAX_REQUESTS};
use peerpanda_sso::pb;
use peerpanda_sso::pb::CheckOutcome::{Fail, Inconclusive, Pass, Skipped, Warn};
use peerpanda_sso::pb::Party;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::checks::Checked;
use crate::fake_idp::{Behaviour, Login, Logout};
use crate::harness::{PUBLIC, Service, begin_request, eventually, reason};
use crate::tls::{idp_over_tls, idp_until};

const LOGIN_URI: &str = "https://getpeerpanda.example/app/accounts/oidc/acme/login/";

impl Service {
    /// [`Service::testing`] with a change to the connection.
    async fn testing_with(paths: &[&str], change: impl FnOnce(&mut pb::Connection)) -> Self {
        let mut service = Self::testing().await;
        if !paths.is_empty() {
            service.edit(paths, change).await.expect("edited");
        }
        service
    }

    /// Checks `acme`, and that the IdP rejected no more secrets than a check may have rejected.
    async fn checked(&mut self) -> Checked {
        let before = self.idp.rejections();
        let checked = self.check("acme").await.expect("checked");
        let rejections = self.idp.rejections() - before;
        assert!(rejections <= MAX_REJECTIONS, "{rejections} rejections");
        checked
    }

    async fn note(&mut self) -> String {
        let request =
            pb::GetSetupGuideRequest { slug: "acme".to_owned(), ready: true, ..Default::default() };
        self.admin.get_setup_guide(request).await.expect("a note").into_inner().markdown
    }
}

fn post() -> i32 {
    pb::TokenEndpointAuthMethod::ClientSecretPost.into()
}

fn at(seconds: u64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: i64::try_from(seconds).expect("in range"), nanos: 0 }
}

/// One fault: how it comes about, and what a check must say of it.
struct Fault {
    paths: &'static [&'static str],
    change: fn(&mut pb::Connection),
    behave: fn(&mut Behaviour),
    id: &'static str,
    cause: &'static str,
    actor: Party,
    skipped: &'static [&'static str],
}

const FAULT: Fault = Fault {
    paths: &[],
    change: |_| {},
    behave: |_| {},
    id: "",
    cause: "",
    actor: Party::CustomerIdpAdmin,
    skipped: &[],
};

fn metadata(patch: Value) -> impl FnOnce(&mut Behaviour) {
    move |behaviour| behaviour.metadata = patch
}

#[tokio::test(flavor = "multi_thread")]
async fn one_fault_is_one_finding_and_what_depends_on_it_is_skipped() {
    for fault in [
        Fault {
            behave: |idp| {
                let path = "/.well-known/openid-configuration";
                idp.answers.insert(path, (404, String::new(), String::new()));
            },
            id: "metadata.document",
            cause: "metadata_status",
            actor: Party::Support,
            skipped: &[
                "clock.skew",
                "metadata.issuer",
                "metadata.usable",
                "jwks.keys",
                "client.credentials",
                "client.id",
                "client.redirect_uri",
                "logout.endpoint",
                "tls.certificate",
            ],
            ..FAULT
        },
        Fault {
            paths: &["issuer"],
            change: |connection| connection.issuer = "https://other.example".to_owned(),
            id: "metadata.issuer",
            cause: "issuer_mismatch",
            actor: Party::Support,
            skipped: &["metadata.usable"],
            ..FAULT
        },
        Fault {
            behave: |idp| {
                metadata(json!({ "id_token_signing_alg_values_supported": ["HS256"] }))(idp);
            },
            id: "metadata.signing_algs",
            cause: "signing_alg_unsupported",
            skipped: &["metadata.usable", "jwks.keys"],
            ..FAULT
        },
        Fault {
            behave: |idp| metadata(json!({ "userinfo_endpoint": "ftp://nowhere" }))(idp),
            id: "metadata.endpoints",
            cause: "endpoint_invalid",
            skipped: &["metadata.usable", "metadata.hosts"],
            ..FAULT
        },
        Fault {
            behave: |idp| metadata(json!({ "token_endpoint": null, "jwks_uri": null }))(idp),
            id: "metadata.endpoints",
            cause: "endpoint_missing",
            skipped: &["metadata.usable", "jwks.keys", "client.credentials"],
            ..FAULT
        },
        Fault {
            behave: |idp| metadata(json!({ "response_types_supported": ["id_token"] }))(idp),
            id: "metadata.code_flow",
            cause: "unsupported_response_type",
            ..FAULT
        },
        Fault {
            behave: |idp| idp.keys = Some(json!({ "keys": [] })),
            id: "jwks.keys",
            cause: "no_usable_key",
            ..FAULT
        },
        Fault {
            paths: &["client_secret"],
            change: |connection| connection.client_secret = "CANARYwrong".to_owned(),
            id: "client.credentials",
            cause: "invalid_client",
            actor: Party::Support,
            ..FAULT
        },
        Fault {
            paths: &["client_secret", "client_secret_expire_time"],
            change: |connection| {
                connection.client_secret = "CANARYexpired".to_owned();
                connection.client_secret_expire_time = Some(at(1_600_000_000));
            },
            id: "client.secret_expiry",
            cause: "secret_expired",
            skipped: &["client.credentials"],
            ..FAULT
        },
        Fault {
            paths: &["client_secret"],
            change: |connection| connection.client_secret = "CANARYwrong".to_owned(),
            behave: |idp| {
                let methods = json!(["private_key_jwt", "tls_client_auth"]);
                metadata(json!({ "token_endpoint_auth_methods_supported": methods }))(idp);
            },
            id: "client.credentials",
            cause: "client_auth_unsupported",
            skipped: &["metadata.auth_method"],
            ..FAULT
        },
        Fault {
            behave: |idp| metadata(json!({ "require_pushed_authorization_requests": true }))(idp),
            id: "client.pushed_authorization",
            cause: "metadata_par_required",
            skipped: &["client.redirect_uri"],
            ..FAULT
        },
        Fault {
            behave: |idp| {
                let words = "Pushed Authorization Request must be used";
                idp.authorize_error = ("invalid_request", words);
            },
            id: "client.pushed_authorization",
            cause: "par_required",
            ..FAULT
        },
        Fault {
            behave: |idp| idp.authorize_error = ("invalid_scope", "unknown scope"),
            id: "metadata.scopes",
            cause: "invalid_scope",
            ..FAULT
        },
        Fault {
            behave: |idp| idp.authorize_error = ("unauthorized_client", ""),
            id: "metadata.code_flow",
            cause: "unauthorized_client",
            ..FAULT
        },
        Fault {
            behave: |idp| idp.registered_redirect = None,
            id: "client.redirect_uri",
            cause: "redirect_uri_unregistered",
            ..FAULT
        },
        Fault {
            behave: |idp| idp.clock_ahead = 61,
            id: "clock.skew",
            cause: "issued_in_future",
            ..FAULT
        },
    ] {
        let mut service = Service::testing_with(fault.paths, fault.change).await;
        (fault.behave)(&mut service.idp.behave());
        let checked = service.checked().await;
        let id = fault.id;
        assert_eq!(checked.summary.failed, [id], "{:?}", checked.results.values());
        let finding = &checked.results[id];
        assert_eq!(
            (finding.cause.as_str(), finding.actor()),
            (fault.cause, fault.actor),
            "{finding:?}"
        );
        assert!(!finding.remedy.is_empty(), "{finding:?}");
        for skipped in fault.skipped {
            assert_eq!(checked.outcome(skipped), Skipped, "{id}: {}", checked.found(skipped));
            assert!(checked.found(skipped).contains(id), "{}", checked.found(skipped));
        }
        // Nothing is left out: every check has a result, of which each is in one list.
        assert_eq!(checked.results.len(), CheckId::ALL.len() - 1, "{id}");
        let pb::CheckSummary { failed, passed, warned, inconclusive, skipped, .. } =
            checked.summary;
        let lists = [failed, passed, warned, inconclusive, skipped].concat();
        assert_eq!(lists.len(), checked.results.len(), "{id}");
    }
}

/// Okta's org authorization server, Authlib: the grant is refused by the name of a wrong secret.
#[tokio::test]
async fn a_right_secret_passes_where_client_credentials_is_refused_as_invalid_client() {
    for method in [pb::TokenEndpointAuthMethod::ClientSecretBasic.into(), post()] {
        let paths = ["token_endpoint_auth_method"];
        let change =
            |connection: &mut pb::Connection| connection.token_endpoint_auth_method = method;
        let mut service = Service::testing_with(&paths, change).await;
        service.idp.behave().expects_post = method == post();
        service.idp.behave().client_credentials_error = Some("invalid_client");
        let checked = service.checked().await;
        let found = checked.found("client.credentials");
        assert_eq!(checked.outcome("client.credentials"), Pass, "{found}");
        assert!(found.contains("invalid_grant") && found.contains("invalid_client"), "{found}");
        assert_ne!(checked.summary.outcome(), Fail);
    }
}

#[tokio::test]
async fn the_method_that_the_idp_accepts_is_named() {
    let basic = pb::TokenEndpointAuthMethod::ClientSecretBasic.into();
    for (stated, expects_post, accepted) in
        [(basic, true, "client_secret_post"), (post(), false, "client_secret_basic")]
    {
        let paths = ["token_endpoint_auth_method"];
        let change =
            |connection: &mut pb::Connection| connection.token_endpoint_auth_method = stated;
        let mut service = Service::testing_with(&paths, change).await;
        service.idp.behave().expects_post = expects_post;
        let checked = service.checked().await;
        let result = &checked.results["client.credentials"];
        assert_eq!(
            (result.outcome(), result.cause.as_str(), result.actor()),
            (Fail, "auth_method_wrong", Party::Support),
            "{result:?}"
        );
        assert!(result.found.contains(&format!("by {accepted}")), "{result:?}");
        assert_eq!(result.remedy, format!("set token_endpoint_auth_method to {accepted}"));
        assert_eq!(checked.summary.failed, ["client.credentials"]);
    }
}

/// Four of twelve real IdPs don't decode Basic credentials.
#[tokio::test]
async fn a_secret_that_basic_must_encode_is_explained_by_its_characters() {
    let mut service = Service::testing().await;
    service.idp.behave().decodes_no_basic = true;
    let checked = service.checked().await;
    let result = &checked.results["client.credentials"];
    assert_eq!((result.outcome(), result.actor()), (Fail, Party::Support), "{result:?}");
    for words in ["does not decode", "(space % + / : = @ ü)"] {
        assert!(result.found.contains(words), "{words}: {result:?}");
    }
    assert!(result.remedy.contains("letters and digits"), "{result:?}");
}

/// Spring, Dex, django-oauth-toolkit and django-oidc-provider show pages of their own.
#[tokio::test]
async fn a_page_at_the_idp_for_an_unregistered_uri_proves_the_registered_one() {
    for (login, unregistered, expected, words) in [
        (Login::AtCallback, None, Pass, "login_required"),
        (Login::AtCallback, Some((200, "Log in")), Pass, "login_required"),
        (Login::AtCallback, Some((500, "Error: invalid_request")), Pass, "login_required"),
        (Login::AtCallback, Some((503, "")), Inconclusive, "login_required"),
        (Login::Page, None, Pass, "an error page for an unregistered URI"),
        (Login::Page, Some((200, "Log in")), Inconclusive, "a person must continue"),
        (Login::PageFirst, None, Pass, "to an invalid request"),
        (Login::FailsAtNone, None, Pass, "to an invalid request"),
    ] {
        let mut service = Service::testing().await;
        service.idp.behave().login = login;
        service.idp.behave().unregistered_page = unregistered;
        let checked = service.checked().await;
        let found = checked.found("client.redirect_uri");
        assert_eq!(checked.outcome("client.redirect_uri"), expected, "{login:?}: {found}");
        assert!(found.contains(words), "{login:?}: {found}");
    }
}

#[tokio::test]
async fn an_unknown_client_is_not_told_to_register_a_uri() {
    for (trusts_everybody, failed, skipped) in [
        (false, "client.credentials", &["client.id", "client.redirect_uri"][..]),
        (true, "client.id", &["client.redirect_uri"][..]),
    ] {
        let paths = ["client_id", "client_secret"];
        let mut service = Service::testing_with(&paths, |connection| {
            connection.client_id = "nobody".to_owned();
            connection.client_secret = "CANARYany".to_owned();
        })
        .await;
        service.idp.behave().trusts_everybody = trusts_everybody;
        service.idp.behave().logout = Logout::Compares;
        service.idp.behave().unknown_client_page = Some((400, "We are sorry... Client not found."));
        let checked = service.checked().await;
        assert_eq!(checked.summary.failed, [failed]);
        assert_eq!(checked.results[failed].actor(), Party::Support);
        for id in skipped {
            assert_eq!(checked.outcome(id), Skipped, "{}", checked.found(id));
        }
        assert_ne!(checked.outcome("logout.endpoint"), Fail, "whose URI is refused for it");
        let told = checked.results.values().filter(|result| result.remedy.starts_with("add https"));
        assert_eq!(told.count(), 0, "the redirect URI is not the fault");
    }
}

#[tokio::test]
async fn a_logout_uri_is_proven_by_the_difference_to_a_control() {
    for (logout, registered, expected, words) in [
        (Logout::Compares, Some(LOGIN_URI), Pass, "refuses an unregistered URI"),
        (Logout::Compares, None, Fail, "refuses our URI"),
        (Logout::Alike, Some(LOGIN_URI), Inconclusive, "does not tell"),
        (Logout::DemandsHint, Some(LOGIN_URI), Inconclusive, "without the ID token"),
        (Logout::Missing, None, Inconclusive, "without the ID token"),
    ] {
        let mut service = Service::testing().await;
        service.idp.behave().logout = logout;
        service.idp.behave().registered_logout = registered.map(str::to_owned);
        let checked = service.checked().await;
        let result = &checked.results["logout.endpoint"];
        assert_eq!(result.outcome(), expected, "{logout:?}: {result:?}");
        assert!(result.found.contains(words), "{logout:?}: {result:?}");
        if expected == Fail {
            assert_eq!(result.actor(), Party::CustomerIdpAdmin);
            assert!(result.remedy.contains(LOGIN_URI), "{result:?}");
        }
        assert!(
            service.idp.seen().iter().all(|seen| !seen.path.contains("/app/")),
            "our pages are not called"
        );
    }
    let mut service = Service::testing().await;
    service.idp.behave().metadata = json!({ "end_session_endpoint": null });
    assert_eq!(service.checked().await.outcome("logout.endpoint"), Skipped);
}

#[tokio::test]
async fn the_note_claims_no_logout_that_is_unproven() {
    let none = pb::LogoutStyle::None.into();
    for (logout, style, is_claimed) in [
        (Logout::Compares, None, true),
        (Logout::Alike, None, false),
        (Logout::Compares, Some(none), false),
    ] {
        let mut service = Service::testing().await;
        if let Some(style) = style {
            let edited =
                service.edit(&["logout_style"], |connection| connection.logout_style = style);
            edited.await.expect("edited");
        }
        service.idp.behave().logout = logout;
        service.idp.behave().registered_logout = Some(LOGIN_URI.to_owned());
        service.checked().await;
        let note = service.note().await;
        assert_eq!(note.contains("logged out"), is_claimed, "{logout:?} {style:?}: {note}");
        assert!(note.contains("redirect URI is registered"), "{note}");
    }
}

#[tokio::test]
async fn a_skew_with_which_every_login_fails_fails() {
    for (ahead, age, expected, cause) in [
        (30, 0, Pass, ""),
        (-30, 0, Pass, ""),
        (61, 0, Fail, "issued_in_future"),
        (-120, 0, Warn, "expired"),
        (-661, 0, Fail, "issued_too_long_ago"),
        // A cache has kept the document for as long as its date is old.
        (0, 3000, Pass, ""),
        (-700, 3000, Fail, "issued_too_long_ago"),
    ] {
        let mut service = Service::testing().await;
        service.idp.behave().clock_ahead = ahead;
        service.idp.behave().age = age;
        let checked = service.checked().await;
        let result = &checked.results["clock.skew"];
        assert_eq!(
            (result.outcome(), result.cause.as_str()),
            (expected, cause),
            "{ahead}: {result:?}"
        );
        if expected == Fail {
            // As the check says.
            let now = peerpanda_sso::clock::Clock::unix_seconds(service.clock.as_ref()).0;
            let theirs = now.saturating_add_signed(ahead);
            service.idp.behave().claims = json!({ "iat": theirs, "exp": now + 300 });
            let refusal = crate::harness::refused(service.log_in().await);
            assert_eq!(refusal.metadata["cause"], cause);
        }
    }
}

#[tokio::test]
async fn a_standby_secret_that_the_idp_rejects_is_found() {
    let check = async |active: Option<&str>, standby: &str, second: Option<&str>| {
        let paths = match active {
            Some(_) => &["client_secret", "standby_client_secret"][..],
            None => &["standby_client_secret"][..],
        };
        let mut service = Service::testing_with(paths, |connection| {
            connection.client_secret = active.unwrap_or_default().to_owned();
            connection.standby_client_secret = standby.to_owned();
        })
        .await;
        service.idp.behave().second_secret = second.map(str::to_owned);
        service.checked().await
    };
    let checked = check(None, "CANARYnext", None).await;
    let result = &checked.results["client.standby_secret"];
    assert_eq!((result.outcome(), result.actor()), (Warn, Party::Support), "{result:?}");
    assert_eq!(checked.outcome("client.credentials"), Pass, "logins work");

    let checked = check(None, "CANARYnext", Some("CANARYnext")).await;
    let found = checked.found("client.standby_secret");
    assert_eq!(checked.outcome("client.standby_secret"), Pass, "{found}");

    let checked = check(Some("CANARYold"), "CANARYnext", Some("CANARYnext")).await;
    assert_eq!(checked.outcome("client.credentials"), Fail);
    let found = checked.found("client.credentials");
    assert!(found.contains("accepts the standby secret"), "{found}");
    assert_eq!(checked.outcome("client.standby_secret"), Pass);

    let checked = check(Some("CANARYold"), "CANARYnext", None).await;
    assert_eq!(checked.summary.failed, ["client.credentials"]);
    assert_eq!(checked.outcome("client.standby_secret"), Skipped);
    assert_eq!(Service::testing().await.checked().await.outcome("client.standby_secret"), Skipped);
}

#[tokio::test]
async fn the_expiry_of_a_secret_is_said_in_time() {
    const DAY: u64 = 24 * 60 * 60;
    let mut service = Service::testing().await;
    let now = peerpanda_sso::clock::Clock::unix_seconds(service.clock.as_ref()).0;
    assert_eq!(service.checked().await.outcome("client.secret_expiry"), Skipped);
    for (expiry, expected, actor) in [
        (now + 60 * DAY, Pass, Party::Unspecified),
        (now + 2 * DAY, Warn, Party::CustomerIdpAdmin),
        // The IdP accepts it.
        (now - DAY, Warn, Party::Support),
    ] {
        let edited = service.edit(&["client_secret_expire_time"], |connection| {
            connection.client_secret_expire_time = Some(at(expiry));
        });
        edited.await.expect("edited");
        let checked = service.checked().await;
        let result = &checked.results["client.secret_expiry"];
        assert_eq!((result.outcome(), result.actor()), (expected, actor), "{result:?}");
        assert_eq!(checked.outcome("client.credentials"), Pass);
    }
}

#[tokio::test]
async fn a_disabled_account_is_said() {
    let mut service = Service::testing().await;
    assert_eq!(service.checked().await.outcome("account.state"), Pass);
    let disabled = pb::ConnectionState::Disabled.into();
    service.edit(&["state"], |connection| connection.state = disabled).await.expect("edited");
    let checked = service.checked().await;
    let result = &checked.results["account.state"];
    assert_eq!(
        (result.outcome(), result.cause.as_str(), result.actor()),
        (Warn, "disabled", Party::Support)
    );
    // The check that precedes its activation does not fail for it.
    assert_eq!(checked.summary.outcome(), Warn);
}

#[tokio::test]
async fn a_test_login_answers_a_warning() {
    let paths = ["claim_mapping", "scopes"];
    let mut service = Service::testing_with(&paths, |connection| {
        let email = vec!["upn".to_owned(), "email".to_owned()];
        connection.claim_mapping = Some(pb::ClaimMapping { email, ..Default::default() });
        connection.scopes = ["openid", "email", "profile", "custom"].map(str::to_owned).to_vec();
    })
    .await;
    service.idp.behave().metadata =
        json!({ "claims_supported": ["sub", "given_name"], "scopes_supported": ["openid"] });
    let checked = service.checked().await;
    assert_eq!(checked.outcome("metadata.claims"), Warn, "support has mapped it");
    assert_eq!(checked.outcome("metadata.scopes"), Inconclusive);
    service.log_in().await.expect("a test login");
    eventually("the test login is recorded", || {
        let mut admin = service.admin.clone();
        async move {
            let request = pb::GetConnectionRequest { slug: "acme".to_owned() };
            let read = admin.get_connection(request).await.expect("there").into_inner().connection;
            read.expect("a connection").test_login_time.is_some()
        }
    })
    .await;
    let checked = service.checked().await;
    for id in ["metadata.claims", "metadata.scopes"] {
        assert_eq!(checked.outcome(id), Pass, "{}", checked.found(id));
        assert!(checked.found(id).contains("a test login"), "{}", checked.found(id));
    }
    assert_eq!(checked.summary.outcome(), Pass);
}

fn by_hand(service: &Service, issuer: &str, paths: [&str; 3]) -> pb::Connection {
    let at = |path: &str| format!("{}{path}", service.idp.issuer);
    pb::Connection {
        slug: "manual".to_owned(),
        discovery_url: String::new(),
        issuer: at(issuer),
        endpoints: Some(pb::ProviderEndpoints {
            authorization_endpoint: at(paths[0]),
            token_endpoint: at(paths[1]),
            jwks_uri: at(paths[2]),
            ..Default::default()
        }),
        ..service.idp.connection("manual")
    }
}

#[tokio::test]
async fn endpoints_of_two_authorization_servers_are_found() {
    let mut service = Service::testing().await;
    let paths =
        ["/oauth2/default/v1/authorize", "/oauth2/aus1/v1/token", "/oauth2/default/v1/keys"];
    let okta = by_hand(&service, "/oauth2/default", paths);
    service.create(okta).await.expect("created");
    let asked = service.idp.count("/oauth2/aus1/v1/token");
    let checked = service.check("manual").await.expect("checked");
    let result = &checked.results["metadata.cross_check"];
    assert_eq!((result.outcome(), result.actor()), (Fail, Party::Support), "{result:?}");
    assert!(result.found.contains("default, aus1"), "{result:?}");
    for id in ["client.credentials", "client.redirect_uri"] {
        assert_eq!(checked.outcome(id), Skipped, "{}", checked.found(id));
        assert!(checked.found(id).contains("metadata.cross_check"), "{}", checked.found(id));
    }
    assert_eq!(service.idp.count("/oauth2/aus1/v1/token"), asked, "no secret is sent there");

    for (paths, expected) in
        [(["/authorize", "/token", "/keys"], Pass), (["/authorize", "/other/token", "/keys"], Warn)]
    {
        let revision = service.get("manual").await.expect("there").revision;
        let request = pb::DeleteConnectionRequest { slug: "manual".to_owned(), revision };
        service.admin.delete_connection(request).await.expect("deleted");
        let manual = by_hand(&service, "", paths);
        service.create(manual).await.expect("created");
        let checked = service.check("manual").await.expect("checked");
        let found = checked.found("metadata.cross_check");
        assert_eq!(checked.outcome("metadata.cross_check"), expected, "{found}");
        assert_eq!(checked.outcome("clock.skew"), Pass);
        assert_eq!(checked.outcome("metadata.issuer"), Skipped);
    }
}

#[tokio::test]
async fn a_host_that_does_not_answer_is_asked_once() {
    let mut service = Service::testing().await;
    service.idp.behave().metadata =
        json!({ "token_endpoint": "http://127.0.0.1:1/t", "jwks_uri": "http://127.0.0.1:1/k" });
    let checked = service.checked().await;
    assert_eq!(checked.summary.failed, ["jwks.keys"]);
    assert_eq!(checked.results["jwks.keys"].cause, "connect");
    assert_eq!(checked.outcome("client.credentials"), Skipped);
    assert!(checked.found("client.credentials").contains("jwks.keys"));
}

/// Entra ID: another client id is another subject of everybody.
#[tokio::test]
async fn a_new_client_id_at_an_idp_with_pairwise_subjects_is_said() {
    let mut service = Service::start().await;
    service.idp.behave().metadata = json!({ "subject_types_supported": ["pairwise"] });
    service.log_in().await.expect("a login");
    service.attempts().await;
    assert_eq!(service.checked().await.outcome("client.subjects"), Pass);
    let proposal = pb::CheckConnectionRequest {
        slug: "acme".to_owned(),
        proposal: Some(pb::Connection {
            client_id: "another".to_owned(),
            client_secret: "CANARYother".to_owned(),
            ..service.get("acme").await.expect("there")
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["client_id".to_owned(), "client_secret".to_owned()],
        }),
    };
    let checked = service.check_with(proposal.clone()).await.expect("checked");
    let result = &checked.results["client.subjects"];
    assert_eq!((result.outcome(), result.actor()), (Warn, Party::Support), "{result:?}");
    service.idp.behave().metadata = json!({ "subject_types_supported": ["pairwise", "public"] });
    assert_eq!(
        service.check_with(proposal).await.expect("checked").outcome("client.subjects"),
        Pass
    );
    service.idp.behave().metadata = json!({ "subject_types_supported": ["pairwise"] });
    let edited = service.edit(&["client_id", "client_secret"], |connection| {
        connection.client_id = "another".to_owned();
        connection.client_secret = "CANARYother".to_owned();
    });
    edited.await.expect("edited");
    assert_eq!(service.checked().await.outcome("client.subjects"), Warn, "since the last login");
}

/// A file of proposals can be checked before the accounts have connections.
#[tokio::test]
async fn a_connection_is_checked_before_it_is_created() {
    let mut service = Service::testing().await;
    service.idp.behave().registered_redirect =
        Some(format!("{PUBLIC}/app/accounts/oidc/newcomer/login/callback/"));
    let request = |connection: pb::Connection| pb::CheckConnectionRequest {
        slug: "newcomer".to_owned(),
        proposal: Some(connection),
        update_mask: Some(prost_types::FieldMask {
            paths: vec![
                "discovery_url".to_owned(),
                "client_id".to_owned(),
                "client_secret".to_owned(),
            ],
        }),
    };
    let connection = service.idp.connection("newcomer");
    let checked = service.check_with(request(connection.clone())).await.expect("checked");
    for id in ["client.credentials", "client.redirect_uri"] {
        assert_eq!(checked.outcome(id), Pass, "{}", checked.found(id));
    }
    assert_eq!(reason(service.get("newcomer").await), "CONNECTION_NOT_FOUND");
    let incomplete = pb::Connection { client_id: String::new(), ..connection };
    assert_eq!(reason(service.check_with(request(incomplete)).await), "BAD_REQUEST");
}

/// Bounds: everything that reaches the IdP counts, also the connection that shows the certificate.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_makes_at_most_20_requests_at_the_worst_idp() {
    let (ca, idp) = idp_over_tls("localhost", "localhost", false).await;
    let ca = CertificateDer::from_pem_slice(ca.as_bytes()).expect("a certificate");
    let mut service = Service::start_with(|config| config.provider_cas = vec![ca]).await;
    let connection = pb::Connection {
        state: pb::ConnectionState::Active.into(),
        standby_client_secret: "CANARYnext".to_owned(),
        ..idp.connection("globex")
    };
    service.create(connection).await.expect("created");
    let request = pb::BeginLoginRequest { slug: "globex".to_owned(), ..begin_request() };
    service.begin(request).await.expect("begun, so that its documents are in use");
    {
        let mut worst = idp.behave();
        worst.registered_redirect =
            Some(format!("{PUBLIC}/app/accounts/oidc/globex/login/callback/"));
        worst.redirects_without_end = true;
        worst.client_credentials_error = Some("invalid_client");
        worst.logout = Logout::Compares;
    }
    for (login, secret) in [
        (Login::AtCallback, None),
        (Login::Page, None),
        (Login::FailsAtNone, None),
        (Login::FailsAtNone, Some("CANARYnot")),
    ] {
        idp.behave().login = login;
        idp.behave().accepted_secret = secret.map(str::to_owned);
        let before = idp.seen().len();
        let rejections = idp.rejections();
        let checked = service.check("globex").await.expect("checked");
        let certificate = &checked.results["tls.certificate"];
        assert_eq!(certificate.outcome(), Pass, "{certificate:?}");
        assert!(certificate.found.contains("localhost: ") && certificate.found.contains(" until "));
        let (requests, renewal) = (idp.seen().len() - before, 2);
        // The host has shown its certificate to the requests.
        let certificates = idp.unused_connections.load(Ordering::Relaxed);
        assert_eq!(certificates, 0);
        assert!(requests + certificates <= MAX_REQUESTS + renewal, "{login:?}: {requests}");
        let rejections = idp.rejections() - rejections;
        assert!(rejections <= MAX_REJECTIONS, "{login:?}: {rejections} rejections");
    }
    assert_eq!(MAX_REQUESTS, 20, "as the contract says");
}

/// The certificate is the finding of the check that met it first, with its date.
#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_one_finding() {
    let (ca, idp) = idp_over_tls("localhost", "localhost", true).await;
    let ca = CertificateDer::from_pem_slice(ca.as_bytes()).expect("a certificate");
    let mut service = Service::start_with(|config| config.provider_cas = vec![ca]).await;
    service.create(idp.connection("globex")).await.expect("created");
    let checked = service.check("globex").await.expect("checked");
    assert_eq!(checked.summary.failed, ["metadata.document"]);
    let result = &checked.results["metadata.document"];
    assert_eq!(
        (result.cause.as_str(), result.actor()),
        ("tls_certificate_expired", Party::CustomerIdpAdmin)
    );
    assert!(result.found.contains("2020-01-01"), "{result:?}");
    assert_eq!(checked.outcome("tls.certificate"), Skipped);
}

/// From two weeks before, and no login fails by it yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_expires_soon_is_a_warning_with_its_date() {
    for (days, outcome) in [(10, Warn), (20, Pass)] {
        let (ca, idp, day) = idp_until(days).await;
        let ca = CertificateDer::from_pem_slice(ca.as_bytes()).expect("a certificate");
        let mut service = Service::start_with(|config| config.provider_cas = vec![ca]).await;
        service.create(idp.connection("globex")).await.expect("created");
        let checked = service.check("globex").await.expect("checked");
        let result = &checked.results["tls.certificate"];
        assert_eq!(result.outcome(), outcome, "{result:?}");
        assert!(result.found.contains(&format!("until {day}")), "{result:?}");
        if outcome == Warn {
            assert_eq!(result.actor(), Party::CustomerIdpAdmin, "{result:?}");
        }
    }
}
