//! Okta. Its ID tokens can lack names and e-mail address, which UserInfo has, and its logout
//! requires an ID token.

use url::Url;

use super::{Facts, Fault, KnownError, is_in};

pub(super) const FACTS: Facts = Facts {
    name: "Okta",
    is_at: |url| {
        ["okta.com", "oktapreview.com", "okta-emea.com"].iter().any(|domain| is_in(url, domain))
    },
    steps: &[
        "Open **Admin Console > Applications > Create App Integration** and choose *OIDC - OpenID \
         Connect*, then *Web Application*.",
        "**Grant type**: choose *Authorization Code* and *Client Credentials*.",
        "**Sign-in redirect URIs**: enter `{redirect_uri}`. **Sign-out redirect URIs**: enter \
         `{login_uri}`.",
        "**General Settings > LOGIN > Login initiated by**: choose *Either Okta or App*. **Initiate \
         login URI**: enter `{login_uri}`.",
        "**Client Credentials > Client authentication**: choose *Client secret*. **Proof Key for \
         Code Exchange (PKCE)**: require it.",
        "**Assignments**: assign the people and groups who may log in. Their profiles need a first \
         name, a last name and an e-mail address.",
        "**General > Client Credentials**: copy the Client ID and the Client Secret.",
    ],
    discovery_url: "`https://YOUR-DOMAIN.okta.com/.well-known/openid-configuration`",
    redirect_uris: "Applications > the app > General > LOGIN > Sign-in redirect URIs",
    credentials: "Applications > the app > General > Client Credentials: Client secret",
    allow_code_flow: "Applications > the app > General > Grant type: choose Authorization Code",
    assign_people: "Applications > the app > Assignments",
    add_claims: "Okta: assign the email and profile scopes to the app, and complete the user's \
                 profile",
    claims_help: "https://developer.okta.com/docs/guides/customize-tokens-returned-from-okta/",
    help: "https://help.okta.com/oie/en-us/content/topics/apps/apps_app_integration_wizard_oidc.htm",
    errors: &[
        KnownError::new(
            "User is not assigned to the client application",
            Fault::PersonNotAssigned,
            "the person is not assigned to the app",
            "https://support.okta.com/help/s/article/Why-am-I-redirected-back-to-my-app-instead-of-being-shown-the-OktaHosted-Error-Pages-when-my-OpenID-Connect-app-returns-an-error",
        ),
        KnownError::new(
            "Policy evaluation failed for this request",
            Fault::Policy,
            "no access policy of the authorization server allows the login",
            "https://developer.okta.com/docs/guides/configure-access-policy/main/",
        ),
        KnownError::new(
            "The client secret supplied for a confidential client is invalid",
            Fault::SecretWrong,
            "the client secret is wrong",
            "https://developer.okta.com/docs/reference/api/oidc/",
        ),
        KnownError::new(
            "Invalid value for 'client_id' parameter",
            Fault::ClientUnknown,
            "no such app exists, or it is inactive: the client id, or the domain in the discovery URL, is wrong",
            "https://developer.okta.com/docs/reference/api/oidc/",
        ),
        KnownError::new(
            "parameter must be a Login redirect URI in the client app settings",
            Fault::RedirectUri,
            "the redirect URI is not registered with the app",
            "https://developer.okta.com/docs/reference/api/oidc/",
        ),
    ],
    callback_errors: &["unsupported_response_mode"],
    scripted_error: None,
    client_credentials_scope: None,
};

/// Whether this logout endpoint refuses requests without an ID token. Recognized by its path, since
/// customers use host names of their own.
pub(in crate::oidc) fn requires_id_token_hint(end_session: &Url) -> bool {
    end_session.path().starts_with("/oauth2/") && end_session.path().ends_with("/v1/logout")
}

/// The authorization server of one of Okta's endpoints, by its path; `None`: it isn't Okta's.
pub(in crate::oidc) fn server_of_endpoint(url: &Url) -> Option<String> {
    let path: Vec<&str> = url.path_segments()?.collect();
    match path.as_slice() {
        ["oauth2", "v1", _] => Some(ORG_SERVER.to_owned()),
        ["oauth2", server, "v1", _] => Some((*server).to_owned()),
        _ => None,
    }
}

/// The authorization server of an issuer of Okta's.
pub(in crate::oidc) fn server_of_issuer(url: &Url) -> String {
    let path: Vec<&str> = url.path_segments().into_iter().flatten().collect();
    match path.as_slice() {
        ["oauth2", server] => (*server).to_owned(),
        _ => ORG_SERVER.to_owned(),
    }
}

const ORG_SERVER: &str = "the org server";
