//! Client secrets, authentication methods, clients and their registration that are wrong, in the words of
//! real IdPs (`tests/matrix` has their answers).

use super::walk::{CALLBACK, Fault, IDP_ADMIN, SUPPORT, fault, token_error};
use super::*;
use crate::fake_idp::Login as LoginPage;

pub(super) fn credentials() -> Vec<Fault> {
    vec![
        fault("wrong secret", |c, _| c.client_secret = wrong())
            .fails("client.credentials")
            .refused("CLIENT_REJECTED")
            .told("invalid_client", SUPPORT, "compare client id, secret"),
        fault("Entra: the secret's id in place of its value", |_, idp| {
            let words = "AADSTS7000215: Invalid client secret provided. Ensure the secret being sent in the \
                         request is the client secret value, not the client secret ID.";
            idp.token_answer = token_error(401, "invalid_client", words);
        })
        .at(At::Product("entra_v2"))
        .fails("client.credentials")
        .refused("CLIENT_REJECTED")
        .told("secret_wrong", SUPPORT, "compare"),
        fault("Entra: the secret has expired", |_, idp| {
            let words = "AADSTS7000222: The provided client secret keys for app 'x' are expired.";
            idp.token_answer = token_error(401, "invalid_client", words);
        })
        .at(At::Product("entra_v2"))
        .fails("client.credentials")
        .refused("CLIENT_REJECTED")
        .told("secret_expired", IDP_ADMIN, "create a new one"),
        fault("the secret has expired by its date", |c, _| {
            c.client_secret = wrong();
            c.client_secret_expire_time = Some(at(1_600_000_000));
        })
        .fails("client.secret_expiry")
        .refused("CLIENT_REJECTED")
        .told("secret_expired", IDP_ADMIN, "create a new one"),
        fault("the secret expires in two days", |c, _| {
            c.client_secret_expire_time = Some(in_days(2));
        })
        .warns("client.secret_expiry")
        .told("", IDP_ADMIN, "create a new client secret in time"),
        fault("wrong standby secret", |c, _| c.standby_client_secret = wrong())
            .warns("client.standby_secret")
            .told("invalid_client", SUPPORT, "compare"),
        fault("the IdP takes client_secret_post alone", |_, idp| idp.expects_post = true)
            .fails("client.credentials")
            .refused("CLIENT_REJECTED")
            .told("auth_method_wrong", SUPPORT, "token_endpoint_auth_method to client_secret_post")
            .told_at_login("invalid_client", SUPPORT, "authentication method"),
        fault("the IdP takes client_secret_basic alone", |c, _| {
            c.token_endpoint_auth_method = pb::TokenEndpointAuthMethod::ClientSecretPost.into();
        })
        .fails("client.credentials")
        .refused("CLIENT_REJECTED")
        .told("auth_method_wrong", SUPPORT, "token_endpoint_auth_method to client_secret_basic")
        .told_at_login("invalid_client", SUPPORT, "authentication method"),
        fault("Canaille: Basic credentials are not decoded", |_, idp| idp.decodes_no_basic = true)
            .fails("client.credentials")
            .refused("CLIENT_REJECTED")
            .told("invalid_client", SUPPORT, "letters and digits only")
            .told_at_login("invalid_client", SUPPORT, "compare client id, secret"),
        fault("Keycloak: signed JWT in place of a secret", |_, idp| {
            let words = "Parameter client_assertion_type is missing";
            idp.token_answer = token_error(400, "invalid_client", words);
        })
        .at(At::Product("keycloak"))
        .fails("client.credentials")
        .refused("CLIENT_REJECTED")
        .told("client_auth_unsupported", IDP_ADMIN, "allow it a client secret"),
        fault("Entra: registered as a single-page application", |_, idp| {
            let words = "AADSTS9002327: Tokens issued for the 'Single-Page Application' client-type may only \
                         be redeemed via cross-origin requests.";
            idp.token_answer = token_error(400, "invalid_request", words);
        })
        .at(At::Product("entra_v2"))
        .fails("client.credentials")
        .refused("CLIENT_REJECTED")
        .told("client_public", IDP_ADMIN, "register it as a web application"),
    ]
}

pub(super) fn clients() -> Vec<Fault> {
    vec![
        fault("Keycloak: unknown client id", |c, idp| {
            c.client_id = "nobody".to_owned();
            idp.unknown_client_page = Some((400, "We are sorry... Client not found."));
        })
        .at(At::Product("keycloak"))
        .fails("client.credentials")
        .never_returns()
        .told("invalid_client", SUPPORT, "compare"),
        fault("Entra: unknown client id", |c, idp| {
            c.client_id = "nobody".to_owned();
            let words = "AADSTS700016: Application with identifier 'nobody' was not found in the directory \
                         'Contoso'.";
            idp.token_answer = token_error(400, "unauthorized_client", words);
            idp.unknown_client_page = Some((200, "Sorry, but we're having trouble. AADSTS700016: x"));
        })
        .at(At::Product("entra_v2"))
        .fails("client.credentials")
        .never_returns()
        .told("client_unknown", SUPPORT, "compare client_id"),
        fault("Entra: the application is disabled", |_, idp| {
            let words = "AADSTS7000112: Application 'x'(y) is disabled.";
            idp.token_answer = token_error(401, "unauthorized_client", words);
            idp.login = LoginPage::Page;
            idp.registered_redirect = None;
            idp.unregistered_page = Some((200, "Sorry, but we're having trouble. AADSTS7000112: x"));
        })
        .at(At::Product("entra_v2"))
        .fails("client.credentials")
        .never_returns()
        .told("client_disabled", IDP_ADMIN, "enable the application"),
        fault("Keycloak: the client is disabled", |_, idp| {
            let words = "Invalid client or Invalid client credentials";
            idp.token_answer = token_error(401, "invalid_client", words);
            idp.registered_redirect = None;
            idp.unregistered_page = Some((400, "We are sorry... Client disabled."));
        })
        .at(At::Product("keycloak"))
        .fails("client.credentials")
        .never_returns()
        .told("client_disabled", IDP_ADMIN, "enable the application"),
        fault("Keycloak: unregistered redirect URI", |_, idp| {
            idp.registered_redirect = None;
            idp.unregistered_page = Some((400, "We are sorry... Invalid parameter: redirect_uri"));
        })
        .at(At::Product("keycloak"))
        .fails("client.redirect_uri")
        .never_returns()
        .told("redirect_uri_unregistered", IDP_ADMIN, CALLBACK),
        fault("Entra: unregistered redirect URI", |_, idp| {
            idp.registered_redirect = None;
            let page = "Sorry, but we're having trouble signing you in. AADSTS50011: The redirect URI x";
            idp.unregistered_page = Some((200, page));
        })
        .at(At::Product("entra_v2"))
        .fails("client.redirect_uri")
        .never_returns()
        .told("redirect_uri_unregistered", IDP_ADMIN, CALLBACK),
        fault("Hydra: unregistered redirect URI, on a page with HTTP 500", |_, idp| {
            idp.registered_redirect = None;
            let page = "Error: invalid_request Description: The 'redirect_uri' parameter does not match any \
                        of the OAuth 2.0 Client's pre-registered redirect urls.";
            idp.unregistered_page = Some((500, page));
        })
        .fails("client.redirect_uri")
        .never_returns()
        .told("redirect_uri_unregistered", IDP_ADMIN, CALLBACK),
        fault("Canaille: unregistered redirect URI, on a page that doesn't say so", |_, idp| {
            idp.registered_redirect = None;
            idp.unregistered_page = Some((400, "Bad request The request you made is invalid"));
        })
        .fails("client.redirect_uri")
        .never_returns()
        .told("redirect_uri_unregistered", IDP_ADMIN, CALLBACK),
        fault("Entra: the token endpoint refuses the redirect URI", |_, idp| {
            let words = "AADSTS50011: The redirect URI specified in the request does not match";
            idp.token_answer = token_error(400, "invalid_request", words);
        })
        .at(At::Product("entra_v2"))
        .undecided("client.credentials")
        .refused("CODE_REJECTED")
        .told("token_redirect_uri_unregistered", IDP_ADMIN, CALLBACK),
        fault("unregistered post-logout redirect URI", |_, idp| idp.registered_logout = None)
            .fails("logout.endpoint")
            .told("", IDP_ADMIN, "post-logout redirect URIs"),
        fault("pushed authorization requests are demanded of everybody", |_, idp| {
            idp.metadata = json!({ "require_pushed_authorization_requests": true });
            idp.authorize_error = ("invalid_request", "Pushed Authorization Request is only allowed.");
        })
        .fails("client.pushed_authorization")
        .refused("IDP_REFUSED")
        .told("metadata_par_required", IDP_ADMIN, "switch the demand off")
        .told_at_login("par_required", IDP_ADMIN, "switch the demand off"),
        fault("Keycloak: the client demands pushed authorization requests", |_, idp| {
            idp.authorize_error = ("invalid_request", "Pushed Authorization Request is only allowed.");
        })
        .at(At::Product("keycloak"))
        .fails("client.pushed_authorization")
        .refused("IDP_REFUSED")
        .told("par_required", IDP_ADMIN, "switch the demand off"),
        fault("Keycloak: the standard flow is off", |_, idp| {
            let words = "Client is not allowed to initiate browser login with given response_type. Standard \
                         flow is disabled for the client.";
            idp.authorize_error = ("unauthorized_client", words);
        })
        .at(At::Product("keycloak"))
        .fails("metadata.code_flow")
        .refused("IDP_REFUSED")
        .told("unauthorized_client", IDP_ADMIN, "tandard"),
        fault("the IdP has no code flow", |_, idp| {
            idp.metadata = json!({ "response_types_supported": ["id_token"] });
            idp.authorize_error = ("unsupported_response_type", "");
        })
        .fails("metadata.code_flow")
        .refused("IDP_REFUSED")
        .told("unsupported_response_type", IDP_ADMIN, "code"),
        fault("Hydra: a scope isn't granted to the client", |c, idp| {
            c.scopes = ["openid", "email", "made-up"].map(str::to_owned).to_vec();
            let words = "The requested scope is invalid, unknown, or malformed. The OAuth 2.0 Client is not \
                         allowed to request scope 'made-up'.";
            idp.authorize_error = ("invalid_scope", words);
        })
        .fails("metadata.scopes")
        .refused("IDP_REFUSED")
        .told("invalid_scope", IDP_ADMIN, "allow the client the scopes"),
        fault("Keycloak: another PKCE method is demanded", |_, idp| {
            let words = "Invalid parameter: code challenge method is not matching the configured one";
            idp.authorize_error = ("invalid_request", words);
        })
        .at(At::Product("keycloak"))
        .fails("metadata.pkce")
        .refused("IDP_REFUSED")
        .told("pkce_refused", IDP_ADMIN, "S256"),
        fault("another PKCE method is listed", |_, idp| {
            idp.metadata = json!({ "code_challenge_methods_supported": ["plain"] });
        })
        .warns("metadata.pkce")
        .told("", IDP_ADMIN, "allow PKCE with S256"),
        fault("the account is disabled", |c, _| {
            c.state = pb::ConnectionState::Disabled.into();
        })
        .warns("account.state")
        .no_begin("CONNECTION_DISABLED")
        .told("disabled", SUPPORT, "set")
    ]
}

fn wrong() -> String {
    "CANARYwrong".to_owned()
}

fn at(seconds: i64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds, nanos: 0 }
}

fn in_days(days: i64) -> prost_types::Timestamp {
    let now = peerpanda_sso::clock::SystemClock.unix_seconds().0;
    at(i64::try_from(now).expect("in range") + days * 24 * 60 * 60)
}
