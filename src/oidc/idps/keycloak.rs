//! Keycloak, which customers run on host names of their own.

use super::{Facts, KnownError, Refuses};

pub(super) const FACTS: Facts = Facts {
    name: "Keycloak",
    is_at: |url| url.path_segments().is_some_and(|mut segments| segments.any(|s| s == "realms")),
    steps: &[
        "Open **Clients > Create client** and choose *OpenID Connect*. Switch **Client \
         authentication** *On* and choose *Standard flow* and *Service accounts roles*.",
        "**Valid redirect URIs**: enter `{redirect_uri}`. **Valid post logout redirect URIs** and \
         **Home URL**: enter `{login_uri}`.",
        "**Advanced > Proof Key for Code Exchange Code Challenge Method**: choose *S256*.",
        "**Client scopes**: set `email` and `profile` to *Default*.",
        "**Credentials**: choose *Client Id and Secret* and copy the Client Secret.",
    ],
    discovery_url: "`https://HOST/realms/REALM/.well-known/openid-configuration`",
    redirect_uris: "Clients > the client > Settings > Valid redirect URIs",
    credentials: "Clients > the client > Credentials: Client Authenticator \"Client Id and \
                  Secret\", Client Secret",
    allow_code_flow: "Clients > the client > Settings > Capability config: choose Standard flow",
    add_claims: "Keycloak: Clients > the client > Client scopes: set email and profile to Default, \
                 and complete the user's profile",
    claims_help: "https://www.keycloak.org/docs/latest/server_admin/#_client_scopes",
    errors: &[KnownError {
        code: "Invalid client or Invalid client credentials",
        meaning: "the client id or the client secret is wrong",
        refuses: Refuses::Client,
    }],
    callback_errors: &[],
    scripted_error: None,
    client_credentials_scope: None,
};
