//! Amazon Cognito. Advertises its own logout as `end_session_endpoint`, though its parameters are
//! not those of RP-initiated logout.

use url::Url;

use super::{Facts, is_in};
use crate::oidc::provider::with_parameters;

pub(super) const FACTS: Facts = Facts {
    name: "Amazon Cognito",
    is_at,
    steps: &[
        "Open **Cognito > User pools > the pool > App clients > Create app client** and choose \
         *Traditional web application*, with a client secret.",
        "**Login pages > Allowed callback URLs**: enter `{redirect_uri}`. **Allowed sign-out \
         URLs**: enter `{login_uri}`.",
        "**OAuth grant types**: choose *Authorization code grant*. **OpenID Connect scopes**: \
         choose `openid`, `email` and `profile`.",
        "**Attribute permissions**: allow the app client to read `email`, `given_name` and \
         `family_name`, and make sure that every user has them.",
        "Copy the Client ID and the Client secret from the app client.",
    ],
    discovery_url: "`https://cognito-idp.REGION.amazonaws.com/USER-POOL-ID/.well-known/\
                    openid-configuration`",
    redirect_uris: "User pools > the pool > App clients > the client > Login pages > Allowed \
                    callback URLs",
    credentials: "User pools > the pool > App clients > the client: Client secret",
    allow_code_flow: "User pools > the pool > App clients > the client > Login pages > OAuth grant \
                      types: choose Authorization code grant",
    assign_people: "User pools > the pool > Users",
    add_claims: "Amazon Cognito: allow the app client to read email, given_name and family_name \
                 (Attribute permissions), and complete the user's attributes",
    claims_help: "https://docs.aws.amazon.com/cognito/latest/developerguide/\
                  user-pool-settings-attributes.html",
    help: "https://docs.aws.amazon.com/cognito/latest/developerguide/\
           user-pool-settings-client-apps.html",
    errors: &[],
    callback_errors: &[],
    scripted_error: None,
    client_credentials_scope: None,
};

/// Whether an issuer or an authorization endpoint is one of Cognito's.
pub(in crate::oidc) fn is_at(url: &Url) -> bool {
    let is_regional = url.host_str().is_some_and(|host| host.starts_with("cognito-idp."));
    is_regional && is_in(url, "amazonaws.com") || is_in(url, "amazoncognito.com")
}

/// Cognito's own logout, on the host of its login pages.
pub(in crate::oidc) fn logout_url(authorization: &Url, client_id: &str, return_to: &str) -> Url {
    let mut url = authorization.clone();
    url.set_path("/logout");
    url.set_query(None);
    let query = [("client_id", client_id), ("logout_uri", return_to)];
    with_parameters(url, query.into_iter())
}
