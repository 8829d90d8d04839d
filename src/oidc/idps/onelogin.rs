//! OneLogin. Its error texts are those of node-oidc-provider, on which it is built.

use super::{Facts, Fault, KnownError, is_in};

pub(super) const FACTS: Facts = Facts {
    name: "OneLogin",
    is_at: |url| is_in(url, "onelogin.com"),
    steps: &[
        "Open **Administration > Applications > Applications > Add App**, search *OpenId Connect (OIDC)* \
         and save it.",
        "**Configuration > Redirect URI's**: enter `{redirect_uri}`. **Post Logout Redirect URIs** and \
         **Login Url**: enter `{login_uri}`.",
        "**SSO > Application Type**: choose *Web*. **Token Endpoint > Authentication Method**: choose \
         *Basic* or *POST*.",
        "**Users** or **Access**: assign the people and roles who may log in. Their profiles need a \
         first name, a last name and an e-mail address.",
        "**SSO**: copy the Client ID and the Client Secret.",
    ],
    discovery_url: "`https://YOUR-DOMAIN.onelogin.com/oidc/2/.well-known/openid-configuration`",
    redirect_uris: "Applications > the app > Configuration > Redirect URI's",
    credentials: "Applications > the app > SSO: Client Secret, Token Endpoint Authentication Method",
    allow_code_flow: "Applications > the app > SSO > Application Type: choose Web",
    assign_people: "Applications > the app > Access, or Users > the person > Applications",
    add_claims: "OneLogin: Applications > the app > Parameters, and complete the user's profile",
    claims_help: "https://developers.onelogin.com/openid-connect/scopes",
    help: "https://developers.onelogin.com/openid-connect",
    errors: &[
        KnownError::new(
            "registered redirect_uris",
            Fault::RedirectUri,
            "the redirect URI is not registered with the app",
            "https://docs.port.io/sso-rbac/sso-providers/oidc/one-login/",
        ),
        KnownError::new(
            "client is invalid",
            Fault::ClientUnknown,
            "no such app exists: the client id, or the domain in the discovery URL, is wrong",
            "https://docs.port.io/sso-rbac/sso-providers/oidc/one-login/",
        ),
    ],
    callback_errors: &[],
    scripted_error: None,
    client_credentials_scope: None,
};
