//! What a person does about something, in the words of the IdP that it is to be done at. For messages alone: decides nothing.

pub mod vendor;

use vendor::Vendor;

use crate::model::cause::Remedy;

/// How the admin has the required claims come; a link to the product's own documentation.
#[must_use]
pub fn add_claims(vendor: Vendor) -> (&'static str, &'static str) {
    match vendor {
        Vendor::Entra => (
            "Entra ID: App registrations > the app > Token configuration > Add optional claim > ID > email, given_name, family_name",
            "https://learn.microsoft.com/entra/identity-platform/optional-claims",
        ),
        Vendor::Okta => (
            "Okta: assign the email and profile scopes to the app, and fill the user's profile in",
            "https://developer.okta.com/docs/guides/customize-tokens-returned-from-okta/",
        ),
        Vendor::Google => (
            "Google Workspace: fill the user's first and last name in at the Admin console",
            "https://support.google.com/a/answer/1728857",
        ),
        Vendor::Auth0 => (
            "Auth0: fill the user's profile in, or add the claims with a post-login Action",
            "https://auth0.com/docs/secure/tokens/json-web-tokens/create-custom-claims",
        ),
        Vendor::Keycloak => (
            "Keycloak: Clients > the client > Client scopes: have email and profile as Default, and fill the user's profile in",
            "https://www.keycloak.org/docs/latest/server_admin/#_client_scopes",
        ),
        Vendor::Generic => (
            "Have the IdP put email, given_name and family_name into the ID token or UserInfo for the scopes email and profile",
            "https://openid.net/specs/openid-connect-core-1_0.html#ScopeClaims",
        ),
    }
}

/// How the admin registers the redirect URI.
#[must_use]
pub fn register_redirect_uri(vendor: Vendor, redirect_uri: &str) -> String {
    let place = match vendor {
        Vendor::Entra => {
            "App registrations > the app > Authentication > Platform configurations > Web > Redirect URIs"
        }
        Vendor::Okta => "Applications > the app > General > LOGIN > Sign-in redirect URIs",
        Vendor::Google => {
            "Google Cloud console > APIs & Services > Credentials > the OAuth client > Authorized redirect URIs"
        }
        Vendor::Auth0 => "Applications > the application > Settings > Allowed Callback URLs",
        Vendor::Keycloak => "Clients > the client > Settings > Valid redirect URIs",
        Vendor::Generic => "the client's redirect URIs",
    };
    format!("add {redirect_uri} exactly as it stands, with its slash at the end: {place}")
}

/// Where the admin finds the client's secret and its authentication method.
#[must_use]
pub fn client_credentials(vendor: Vendor, method: &str) -> String {
    let place = match vendor {
        Vendor::Entra => {
            "App registrations > the app > Certificates & secrets: send the secret's Value (not its Secret ID)"
        }
        Vendor::Okta => "Applications > the app > General > Client Credentials: Client secret",
        Vendor::Google => {
            "Google Cloud console > APIs & Services > Credentials > the OAuth client: Client secret"
        }
        Vendor::Auth0 => {
            "Applications > the application > Settings: Client Secret; Credentials: Authentication Method"
        }
        Vendor::Keycloak => {
            "Clients > the client > Credentials: Client Authenticator \"Client Id and Secret\", Client Secret"
        }
        Vendor::Generic => "the client's settings at the IdP",
    };
    format!(
        "compare client id, secret (its fingerprint, whether it has expired) and method ({method}) with {place}"
    )
}

/// How the admin grants what the credentials were tried with.
#[must_use]
pub fn allow_code_flow(vendor: Vendor) -> &'static str {
    match vendor {
        Vendor::Okta => "Applications > the app > General > Grant type: Authorization Code",
        Vendor::Auth0 => {
            "Applications > the application > Settings > Advanced > Grant Types: Authorization Code"
        }
        Vendor::Keycloak => "Clients > the client > Settings > Capability config: Standard flow",
        _ => "allow the client the authorization code grant",
    }
}

/// What Entra's error codes (AADSTS…) in a text mean, for those that a connection meets.
#[must_use]
pub fn explain_aadsts(text: &str) -> Option<&'static str> {
    const CODES: [(&str, &str); 12] = [
        (
            "AADSTS7000215",
            "the client secret is wrong: often its Secret ID was copied in place of its Value",
        ),
        ("AADSTS7000222", "the client secret has expired: a new one is needed"),
        (
            "AADSTS7000218",
            "a client secret is demanded and none came: the app is not a Web platform, or the method is wrong",
        ),
        (
            "AADSTS700016",
            "no such application in this tenant: the client id or the tenant in the discovery URL is wrong",
        ),
        ("AADSTS90002", "no such tenant: the tenant id in the discovery URL is wrong"),
        ("AADSTS50011", "the redirect URI is not registered with the app"),
        ("AADSTS50105", "the person is not assigned to the app"),
        ("AADSTS54005", "the authorization code was used already"),
        ("AADSTS65001", "consent was not given: an admin must grant it"),
        ("AADSTS700025", "the app is registered as a public client: register it as Web"),
        ("AADSTS53003", "a Conditional Access policy has refused the login"),
        ("AADSTS50020", "the person's account is not in this tenant"),
    ];
    CODES.into_iter().find(|(code, _)| text.contains(code)).map(|(_, meaning)| meaning)
}

/// A cause's remedy in the words of the IdP's product.
#[must_use]
pub fn remedy(remedy: Remedy, vendor: Vendor, redirect_uri: &str, method: &str) -> String {
    match remedy {
        Remedy::Text(text) => text.to_owned(),
        Remedy::CompareClient => client_credentials(vendor, method),
        Remedy::RegisterRedirectUri => {
            format!("if it stays: {}", register_redirect_uri(vendor, redirect_uri))
        }
        Remedy::AllowCodeFlow => allow_code_flow(vendor).to_owned(),
        Remedy::AddClaims => add_claims(vendor).0.to_owned(),
        Remedy::AddToIdToken => {
            "put email, given_name and family_name into the ID token, so that UserInfo isn't needed"
                .to_owned()
        }
    }
}
