//! Which product an IdP is, told from its issuer: for advice in that product's own words. Never decides what is accepted.

use url::Url;

/// A product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    /// Microsoft Entra ID (Azure AD).
    Entra,
    /// Okta.
    Okta,
    /// Google Workspace.
    Google,
    /// Auth0.
    Auth0,
    /// Keycloak.
    Keycloak,
    /// Any other.
    Generic,
}

impl Vendor {
    /// Tells by the host of an issuer or metadata URL; Keycloak, which has no host of its own, by its path.
    #[must_use]
    pub fn of(url: &str) -> Self {
        let Ok(url) = Url::parse(url) else { return Self::Generic };
        let host = url.host_str().unwrap_or_default();
        let is_under = |domain: &str| {
            host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
        };
        if is_under("microsoftonline.com")
            || is_under("windows.net")
            || is_under("microsoftonline.us")
        {
            Self::Entra
        } else if is_under("okta.com") || is_under("oktapreview.com") || is_under("okta-emea.com") {
            Self::Okta
        } else if is_under("google.com") {
            Self::Google
        } else if is_under("auth0.com") {
            Self::Auth0
        } else if url.path_segments().is_some_and(|mut parts| parts.any(|part| part == "realms")) {
            Self::Keycloak
        } else {
            Self::Generic
        }
    }

    /// Its name, for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Entra => "Microsoft Entra ID",
            Self::Okta => "Okta",
            Self::Google => "Google Workspace",
            Self::Auth0 => "Auth0",
            Self::Keycloak => "Keycloak",
            Self::Generic => "the IdP",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_told_by_their_issuers() {
        for (issuer, expected) in [
            ("https://login.microsoftonline.com/0000/v2.0", Vendor::Entra),
            ("https://sts.windows.net/0000/", Vendor::Entra),
            ("https://acme.okta.com/oauth2/default", Vendor::Okta),
            ("https://accounts.google.com", Vendor::Google),
            ("https://acme.eu.auth0.com/", Vendor::Auth0),
            ("https://sso.acme.example/realms/staff", Vendor::Keycloak),
            ("https://okta.com.evil.example", Vendor::Generic),
            ("https://notokta.com", Vendor::Generic),
            ("", Vendor::Generic),
        ] {
            assert_eq!(Vendor::of(issuer), expected, "{issuer}");
        }
    }
}
