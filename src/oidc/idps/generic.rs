//! Any other IdP.

use super::Facts;

pub(super) const FACTS: Facts = Facts {
    name: "the IdP",
    is_at: |_| true,
    steps: &[
        "Create a confidential OpenID Connect client (a *web application*) with a client secret.",
        "Register the redirect URI `{redirect_uri}` and, if there is a field for it, the \
         post-logout redirect URI `{login_uri}`.",
        "Allow the Authorization Code grant with PKCE and, if it is offered, Client Credentials.",
        "Put `email`, `given_name` and `family_name` into the ID token for the scopes `email` and \
         `profile`.",
        "Assign the people who may log in.",
    ],
    discovery_url: "ending in `/.well-known/openid-configuration`; or the authorization, token and \
                    JWKS endpoints and the issuer",
    redirect_uris: "the client's redirect URIs",
    credentials: "the client's settings at the IdP",
    allow_code_flow: "allow the client the authorization code grant",
    assign_people: "the application's settings at the IdP",
    add_claims: "have the IdP put email, given_name and family_name into the ID token or UserInfo \
                 for the scopes email and profile",
    claims_help: "https://openid.net/specs/openid-connect-core-1_0.html#ScopeClaims",
    help: "https://openid.net/specs/openid-connect-core-1_0.html",
    errors: &[],
    callback_errors: &[],
    scripted_error: None,
    client_credentials_scope: None,
};
