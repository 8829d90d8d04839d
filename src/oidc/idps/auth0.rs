//! Auth0. Its issuers end in a slash, and its own logout exists also where the metadata document
//! has no `end_session_endpoint`.

use url::Url;

use super::{Facts, Fault, KnownError, is_in};
use crate::oidc::provider::with_parameters;

pub(super) const FACTS: Facts = Facts {
    name: "Auth0",
    is_at,
    steps: &[
        "Open **Applications > Create Application** and choose *Regular Web Application*.",
        "**Settings > Allowed Callback URLs**: enter `{redirect_uri}`. **Allowed Logout URLs**: \
         enter `{login_uri}`.",
        "**Application Login URI**: enter `{login_uri}`.",
        "**Credentials > Authentication Method**: choose *Client Secret (Basic)* or *(Post)*.",
        "**Advanced Settings > Grant Types**: choose *Authorization Code* and *Client Credentials*. \
         **OAuth > JSON Web Token (JWT) Signature Algorithm**: choose *RS256*.",
        "Copy the Client ID and the Client Secret from **Settings**, and the discovery URL from \
         **Advanced Settings > Endpoints**.",
    ],
    discovery_url: "`https://YOUR-TENANT.auth0.com/.well-known/openid-configuration`",
    redirect_uris: "Applications > the application > Settings > Allowed Callback URLs",
    credentials: "Applications > the application > Settings: Client Secret; Credentials: \
                  Authentication Method",
    allow_code_flow: "Applications > the application > Settings > Advanced > Grant Types: choose \
                      Authorization Code",
    assign_people: "Organizations > the organization > Members, or the connection of the application",
    add_claims: "Auth0: complete the user's profile, or add the claims with a post-login Action",
    claims_help: "https://auth0.com/docs/secure/tokens/json-web-tokens/create-custom-claims",
    help: "https://auth0.com/docs/get-started/applications/application-settings",
    errors: &[
        KnownError::new(
            "Callback URL mismatch",
            Fault::RedirectUri,
            "the redirect URI is not among the Allowed Callback URLs",
            "https://support.auth0.com/center/s/article/Callback-URL-Mismatch-Error-Is-Not-in-the-List-of-Allowed-Callback-URLs",
        ),
        KnownError::new(
            "is not in the list of allowed callback URLs",
            Fault::RedirectUri,
            "the redirect URI is not among the Allowed Callback URLs",
            "https://support.auth0.com/center/s/article/Callback-URL-Mismatch-Error-Is-Not-in-the-List-of-Allowed-Callback-URLs",
        ),
        KnownError::new(
            "Grant type 'authorization_code' not allowed for the client",
            Fault::GrantNotAllowed,
            "the grant type Authorization Code is not allowed",
            "https://auth0.com/docs/get-started/applications/application-grant-types",
        ),
    ],
    callback_errors: &["unauthorized"],
    scripted_error: None,
    client_credentials_scope: None,
};

/// Whether an issuer is one of Auth0's.
pub(in crate::oidc) fn is_at(url: &Url) -> bool {
    is_in(url, "auth0.com")
}

/// Auth0's own logout.
pub(in crate::oidc) fn logout_url(issuer: &Url, client_id: &str, return_to: &str) -> Url {
    let mut url = issuer.clone();
    url.set_path("/v2/logout");
    url.set_query(None);
    let query = [("client_id", client_id), ("returnTo", return_to)];
    with_parameters(url, query.into_iter())
}
