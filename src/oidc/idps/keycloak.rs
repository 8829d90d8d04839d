//! Keycloak, which customers run on host names of their own.

use super::{Facts, Fault, KnownError};

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
    assign_people: "Users, and the policies of the client or of the authentication flow",
    add_claims: "Keycloak: Clients > the client > Client scopes: set email and profile to Default, \
                 and complete the user's profile",
    claims_help: "https://www.keycloak.org/docs/latest/server_admin/#_client_scopes",
    help: "https://www.keycloak.org/docs/latest/server_admin/#_oidc_clients",
    errors: &[
        KnownError::new(
            "Invalid client or Invalid client credentials",
            Fault::SecretWrong,
            "the client id or the client secret is wrong, or the client is disabled",
            "https://github.com/keycloak/keycloak/blob/main/services/src/main/java/org/keycloak/authentication/AuthenticationProcessor.java",
        ),
        KnownError::new(
            "Client secret not provided in request",
            Fault::AuthMethodWrong,
            "a client secret is required and none was received",
            "https://github.com/keycloak/keycloak/blob/main/services/src/main/java/org/keycloak/authentication/authenticators/client/ClientIdAndSecretAuthenticator.java",
        ),
        KnownError::new(
            "Parameter client_assertion_type is missing",
            Fault::ClientAuthUnsupported,
            "the client authenticates by a signed JWT: choose the Client Authenticator Client Id and Secret",
            "https://github.com/keycloak/keycloak/blob/main/services/src/main/java/org/keycloak/authentication/authenticators/client/JWTClientAuthenticator.java",
        ),
        KnownError::new(
            "Client not found",
            Fault::ClientUnknown,
            "the realm has no such client: the client id, or the realm in the discovery URL, is wrong",
            "https://github.com/keycloak/keycloak/blob/main/themes/src/main/resources/theme/base/login/messages/messages_en.properties",
        ),
        KnownError::new(
            "Client not enabled",
            Fault::ClientDisabled,
            "the client is disabled",
            "https://github.com/keycloak/keycloak/blob/main/themes/src/main/resources/theme/base/login/messages/messages_en.properties",
        ),
        KnownError::new(
            "Client disabled",
            Fault::ClientDisabled,
            "the client is disabled",
            "https://github.com/keycloak/keycloak/blob/main/themes/src/main/resources/theme/base/login/messages/messages_en.properties",
        ),
        KnownError::new(
            "Invalid parameter: redirect_uri",
            Fault::RedirectUri,
            "the redirect URI is not among the Valid redirect URIs",
            "https://github.com/keycloak/keycloak/blob/main/services/src/main/java/org/keycloak/protocol/oidc/endpoints/AuthorizationEndpoint.java",
        ),
        KnownError::new(
            "code challenge method is not matching the configured one",
            Fault::Pkce,
            "the client demands another PKCE method than S256",
            "https://github.com/keycloak/keycloak/blob/main/services/src/main/java/org/keycloak/protocol/oidc/endpoints/AuthorizationEndpointChecker.java",
        ),
        KnownError::new(
            "Pushed Authorization Request is only allowed",
            Fault::PushedRequest,
            "the client demands pushed authorization requests",
            "https://github.com/keycloak/keycloak/blob/main/services/src/main/java/org/keycloak/protocol/oidc/endpoints/AuthorizationEndpointChecker.java",
        ),
    ],
    callback_errors: &[],
    scripted_error: None,
    client_credentials_scope: None,
};
