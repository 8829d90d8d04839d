//! Set-ups that are right, at IdPs that answer as real ones do (`tests/matrix` has their answers): nothing
//! is said against them, neither before nor after a test login, and they are activated without force.

use super::*;
use crate::fake_idp::Login;

/// How an IdP without a session answers what a check asks.
struct Right {
    name: &'static str,
    at: At,
    answers: fn(&mut Behaviour),
    method: pb::TokenEndpointAuthMethod,
}

fn right(name: &'static str, at: At, answers: fn(&mut Behaviour)) -> Right {
    Right { name, at, answers, method: pb::TokenEndpointAuthMethod::Unspecified }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_said_against_a_right_set_up() {
    let set_ups = set_ups();
    assert!(set_ups.len() >= 12, "{}", set_ups.len());
    let rows = set_ups.into_iter().map(|right| (right.name.to_owned(), right)).collect();
    for_each_row(rows, Right::walk).await;
}

fn set_ups() -> Vec<Right> {
    let mut set_ups = vec![
        right("Entra", At::Product("entra_v2"), |idp| {
            idp.authorize_error =
                ("login_required", "AADSTS50058: A silent sign-in request was sent");
            idp.unregistered_page = Some((200, "Sorry. AADSTS50011: The redirect URI"));
            idp.logout = Logout::Alike;
        }),
        right("Entra, version 1", At::Product("entra_v1"), |idp| {
            idp.authorize_error =
                ("login_required", "AADSTS50058: A silent sign-in request was sent");
            idp.unregistered_page = Some((200, "Sorry. AADSTS50011: The redirect URI"));
            idp.logout = Logout::Alike;
        }),
        right("Okta, custom server", At::Product("okta_custom"), |idp| {
            let words = "The client specified not to prompt, but the user is not logged in.";
            idp.authorize_error = ("login_required", words);
            let page = "400 Bad Request The 'redirect_uri' parameter must be a Login redirect URI in the \
                        client app settings";
            idp.unregistered_page = Some((400, page));
        }),
        right("Okta, org server", At::Product("okta_org"), |idp| {
            idp.client_credentials_error = Some("invalid_client");
        }),
        right("Auth0", At::Product("auth0"), |idp| {
            idp.authorize_error = ("login_required", "Login required");
            idp.unregistered_page = Some((403, "Callback URL mismatch."));
            idp.client_credentials_error = Some("unauthorized_client");
            idp.logout = Logout::Missing;
        }),
        right("Google", At::Product("google"), |idp| {
            idp.login = Login::Page;
            idp.unregistered_page = Some((400, "Access blocked Error 400: redirect_uri_mismatch"));
        }),
        right("Keycloak", At::Product("keycloak"), |idp| {
            idp.client_credentials_error = Some("unauthorized_client");
            idp.unregistered_page = Some((400, "We are sorry... Invalid parameter: redirect_uri"));
        }),
        right("AD FS", At::Product("adfs"), |idp| {
            idp.login = Login::Page;
            idp.unregistered_page = Some((400, "An error occurred. MSIS9224"));
            idp.logout = Logout::Alike;
        }),
        right("PingFederate", At::Product("pingfederate"), |idp| {
            idp.unregistered_page = Some((400, "Error - Redirect URI mismatch"));
            idp.logout = Logout::Alike;
        }),
        right("OneLogin", At::Product("onelogin"), |idp| {
            let page = "oops! invalid_redirect_uri redirect_uri did not match any of the client's \
                        registered redirect_uris";
            idp.unregistered_page = Some((400, page));
        }),
        right("Cognito", At::Product("cognito"), |idp| {
            idp.login = Login::Page;
            idp.unregistered_page =
                Some((302, "An error was encountered with the requested page."));
        }),
        right("Salesforce", At::Product("salesforce"), |idp| {
            let page = "error=redirect_uri_mismatch&error_description=redirect_uri%20must%20match%20configuration";
            idp.unregistered_page = Some((200, page));
        }),
        right("GitLab", At::Product("gitlab"), |idp| {
            idp.login = Login::PageFirst;
        }),
        right("JumpCloud", At::Product("jumpcloud"), |idp| {
            idp.client_credentials_error = Some("unauthorized_client");
            idp.logout = Logout::DemandsHint;
        }),
        right("oidc-provider", At::Generic, |idp| {
            let words = "End-User authentication is required";
            idp.authorize_error = ("login_required", words);
        }),
        right("Hydra", At::Generic, |idp| {
            idp.client_credentials_error = Some("unauthorized_client");
            let page =
                "Error: invalid_request Description: The 'redirect_uri' parameter does not match";
            idp.unregistered_page = Some((500, page));
            idp.logout = Logout::DemandsHint;
            idp.metadata = json!({
                "claims_supported": ["sub"],
                "scopes_supported": ["offline_access", "offline", "openid"],
            });
        }),
        right("Dex", At::Generic, |idp| {
            idp.login = Login::Page;
            idp.unregistered_page = Some((400, "Bad Request Unregistered redirect_uri (\"x\")."));
            idp.metadata = json!({ "end_session_endpoint": null });
        }),
        right("django-oauth-toolkit", At::Generic, |idp| {
            idp.login = Login::FailsAtNone;
            let page = "Error: invalid_request Mismatching redirect URI.";
            idp.unregistered_page = Some((400, page));
        }),
        right("Spring Authorization Server", At::Generic, |idp| {
            idp.login = Login::PageFirst;
            idp.logout = Logout::Alike;
        }),
        right("a cached document of a correct clock", At::Generic, |idp| idp.age = 3000),
        right("client credentials are granted", At::Generic, |idp| idp.client_credentials = true),
    ];
    set_ups.push(Right {
        method: pb::TokenEndpointAuthMethod::ClientSecretPost,
        ..right("Canaille, by post", At::Generic, |idp| {
            idp.expects_post = true;
            idp.client_credentials_error = Some("invalid_client");
            idp.unregistered_page = Some((400, "Bad request The request you made is invalid"));
            idp.logout = Logout::Alike;
        })
    });
    set_ups
}

impl Right {
    async fn walk(self) {
        let mut account = Account::at(self.at).await;
        account.connection.token_endpoint_auth_method = self.method.into();
        (self.answers)(&mut account.service.idp.behave());
        account.set_up(|_, _| {}).await;
        nothing_found(&mut account, "before").await;
        let ended = account.log_in(Person::LogsIn).await;
        if let Ended::Refused { status, .. } = &ended {
            panic!("login: {status:?}");
        }
        assert!(matches!(ended, Ended::LoggedIn));
        let (attempts, summary) = account.listed().await;
        assert_eq!((attempts.len(), &*attempts[0].reason), (1, ""), "{attempts:?}");
        assert!(summary.failures.is_empty() && summary.suspicion.is_none(), "{summary:?}");
        let checked = nothing_found(&mut account, "after").await;
        // The person's login has answered what only one can.
        for id in ["metadata.claims", "metadata.scopes", "metadata.auth_method"] {
            assert_eq!(checked.outcome(id), CheckOutcome::Pass, "{}", checked.found(id));
        }
        let revision = account.connection.revision;
        account.service.activate("acme", revision, false).await.expect("activated");
    }
}

async fn nothing_found(account: &mut Account, when: &str) -> Checked {
    let checked = account.service.check("acme").await.expect("checked");
    assert!(findings(&checked).is_empty(), "{when}: {:?}", findings(&checked));
    checked
}
