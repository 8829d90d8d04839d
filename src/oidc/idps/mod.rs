//! What is known of each IdP product, one product a file: how it is recognized, what its admin does
//! there, what its error codes mean, and where it departs from the standard. A new product is a
//! file and a line in `products!`. Used for texts and checks; no login is accepted or refused by
//! it.

pub(super) mod auth0;
pub(super) mod cognito;
pub(super) mod okta;

mod adfs;
mod entra;
mod generic;
mod google;
mod keycloak;
mod known;
mod onelogin;
mod ping;

use url::Url;

use crate::model::cause::Remedy;
use crate::model::connection::{Connection, CustomerUris, MetadataSource};
use known::{Fault, KnownError};

pub(super) use known::{Refuses, known_error};
pub use known::{callback_refusal, explanation};

/// One product's file. Texts are for the product's admin, and name menus as the product does.
struct Facts {
    /// The product's name.
    name: &'static str,
    /// Whether an issuer or metadata URL is one of this product.
    is_at: fn(&Url) -> bool,
    /// How the admin sets up the application, in Markdown, with `{redirect_uri}` and `{login_uri}`.
    steps: &'static [&'static str],
    /// The form of the discovery URL, in Markdown.
    discovery_url: &'static str,
    /// Where redirect URIs are registered.
    redirect_uris: &'static str,
    /// Where the client secret and the authentication method are found.
    credentials: &'static str,
    /// How the authorization code grant is allowed.
    allow_code_flow: &'static str,
    /// Where people are assigned to the application.
    assign_people: &'static str,
    /// How the required claims are added.
    add_claims: &'static str,
    /// The product's documentation about claims.
    claims_help: &'static str,
    /// The product's documentation of applications.
    help: &'static str,
    /// Error texts with their meanings.
    errors: &'static [KnownError],
    /// Codes of `error` in a callback that the product has in addition to the registered ones.
    callback_errors: &'static [&'static str],
    /// What every error code begins with, if error pages hold it in a script only.
    scripted_error: Option<&'static str>,
    /// The scope of a token for the client itself, if the product requires one.
    client_credentials_scope: Option<fn(client_id: &str) -> String>,
}

macro_rules! products {
    ($($(#[$doc:meta])* $variant:ident = $module:ident;)*) => {
        /// An IdP product.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum IdpProduct {
            $($(#[$doc])* $variant,)*
        }

        impl IdpProduct {
            /// Every product, in the order in which they are recognized.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            fn facts(self) -> &'static Facts {
                match self {
                    $(Self::$variant => &$module::FACTS,)*
                }
            }
        }
    };
}

products! {
    /// Microsoft Entra ID (Azure AD).
    Entra = entra;
    /// Okta.
    Okta = okta;
    /// Google Workspace.
    Google = google;
    /// Auth0.
    Auth0 = auth0;
    /// Amazon Cognito.
    Cognito = cognito;
    /// Microsoft AD FS.
    Adfs = adfs;
    /// Keycloak.
    Keycloak = keycloak;
    /// PingOne and PingFederate.
    Ping = ping;
    /// OneLogin.
    OneLogin = onelogin;
    /// Any other product; every URL is recognized as one of it.
    Generic = generic;
}

impl IdpProduct {
    /// Recognizes the product by its issuer or by the URL of its metadata document.
    #[must_use]
    pub fn of(url: &str) -> Self {
        let Ok(url) = Url::parse(url) else { return Self::Generic };
        let is_at = |product: &&Self| (product.facts().is_at)(&url);
        Self::ALL.iter().find(is_at).copied().unwrap_or(Self::Generic)
    }

    /// The product of a connection's IdP.
    #[must_use]
    pub fn of_connection(connection: &Connection) -> Self {
        let source = match &connection.settings.source {
            MetadataSource::Discovery(url) => url.as_str(),
            MetadataSource::Manual(endpoints) => endpoints.authorization.as_str(),
        };
        Self::of(connection.issuer().map_or(source, |issuer| issuer.as_str()))
    }

    /// The product's name, for messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// How the admin sets up the application: steps in Markdown with the account's URIs.
    pub fn steps(self, uris: &CustomerUris<'_>) -> impl Iterator<Item = String> {
        let (redirect_uri, login_uri) = (uris.redirect_uri(), uris.login_uri());
        self.facts().steps.iter().map(move |step| {
            step.replace("{redirect_uri}", &redirect_uri).replace("{login_uri}", &login_uri)
        })
    }

    /// The form of the discovery URL, in Markdown.
    #[must_use]
    pub fn discovery_url(self) -> &'static str {
        self.facts().discovery_url
    }

    /// The codes that the product's error pages show most often.
    pub fn page_errors(self) -> impl Iterator<Item = &'static str> {
        let of = move |refused| {
            let errors = self.facts().errors.iter().filter(move |error| error.refuses == refused);
            errors.take(1).map(|error| error.code)
        };
        of(Refuses::RedirectUri).chain(of(Refuses::Login))
    }

    /// How the admin registers a redirect URI.
    pub(super) fn register_redirect_uri(self, redirect_uri: &str) -> String {
        let place = self.facts().redirect_uris;
        format!("add {redirect_uri} exactly as written, with the slash at the end, under: {place}")
    }

    /// How the admin allows the authorization code grant.
    pub(super) fn allow_code_flow(self) -> &'static str {
        self.facts().allow_code_flow
    }

    /// How the admin adds the required claims.
    pub(super) fn add_claims(self) -> &'static str {
        self.facts().add_claims
    }

    /// Where client id, secret and authentication method are compared.
    pub(super) fn compare_client(self, method: &str) -> String {
        let place = self.facts().credentials;
        format!(
            "compare client id, secret (its fingerprint, and whether it has expired) and \
             authentication method ({method}) with {place}"
        )
    }

    /// The scope of a token for the client itself, if one is required.
    pub(super) fn client_credentials_scope(self, client_id: &str) -> Option<String> {
        self.facts().client_credentials_scope.map(|scope| scope(client_id))
    }
}

/// The product's documentation for a remedy.
#[must_use]
pub fn help(remedy: Remedy, product: IdpProduct) -> &'static str {
    match remedy {
        Remedy::AddClaims | Remedy::AddToIdToken => product.facts().claims_help,
        Remedy::Text(_)
        | Remedy::CompareClient
        | Remedy::RegisterRedirectUri
        | Remedy::BeginAgain
        | Remedy::AssignPerson
        | Remedy::AllowCodeFlow => product.facts().help,
    }
}

/// A cause's remedy in the words of the IdP's product.
#[must_use]
pub fn remedy(remedy: Remedy, product: IdpProduct, redirect_uri: &str, method: &str) -> String {
    match remedy {
        Remedy::Text(text) => text.to_owned(),
        Remedy::CompareClient => product.compare_client(method),
        Remedy::RegisterRedirectUri => product.register_redirect_uri(redirect_uri),
        Remedy::BeginAgain => {
            let register = product.register_redirect_uri(redirect_uri);
            format!("begin a new login; if it happens again: {register}")
        }
        Remedy::AssignPerson => {
            let place = product.facts().assign_people;
            format!("assign the person, or a group of theirs, to the application: {place}")
        }
        Remedy::AllowCodeFlow => product.allow_code_flow().to_owned(),
        Remedy::AddClaims => product.add_claims().to_owned(),
        Remedy::AddToIdToken => {
            "put email, given_name and family_name into the ID token, so that UserInfo is not needed"
                .to_owned()
        }
    }
}

/// Whether a callback's `error` is a code of any product.
#[must_use]
pub fn is_callback_error(code: &str) -> bool {
    IdpProduct::ALL.iter().map(|product| product.facts()).any(|facts| {
        facts.callback_errors.contains(&code) || facts.errors.iter().any(|known| known.code == code)
    })
}

/// What the error codes begin with that error pages hold in a script only.
pub(super) fn scripted_errors() -> impl Iterator<Item = &'static str> {
    IdpProduct::ALL.iter().filter_map(|product| product.facts().scripted_error)
}

/// Whether the URL's host is `domain` or a name in it.
fn is_in(url: &Url, domain: &str) -> bool {
    let host = url.host_str().unwrap_or_default();
    host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::slug::Slug;

    #[test]
    fn products_are_recognized_by_their_issuers() {
        for (issuer, expected) in [
            ("https://login.microsoftonline.com/0000/v2.0", IdpProduct::Entra),
            ("https://sts.windows.net/0000/", IdpProduct::Entra),
            ("https://acme.okta.com/oauth2/default", IdpProduct::Okta),
            ("https://accounts.google.com", IdpProduct::Google),
            ("https://acme.eu.auth0.com/", IdpProduct::Auth0),
            ("https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_x", IdpProduct::Cognito),
            ("https://acme.auth.eu-west-1.amazoncognito.com/", IdpProduct::Cognito),
            ("https://s3.amazonaws.com/x", IdpProduct::Generic),
            ("https://sts.acme.example/adfs", IdpProduct::Adfs),
            ("https://sso.acme.example/realms/staff", IdpProduct::Keycloak),
            ("https://auth.pingone.eu/0000/as", IdpProduct::Ping),
            ("https://acme.onelogin.com/oidc/2", IdpProduct::OneLogin),
            ("https://okta.com.evil.example", IdpProduct::Generic),
            ("https://notokta.com", IdpProduct::Generic),
            ("", IdpProduct::Generic),
        ] {
            assert_eq!(IdpProduct::of(issuer), expected, "{issuer}");
        }
    }

    #[test]
    fn every_product_has_its_texts() {
        let slug = Slug::parse("acme").expect("a slug");
        let uris = CustomerUris::new("https://sp.example", &slug);
        for product in IdpProduct::ALL {
            let steps: Vec<String> = product.steps(&uris).collect();
            let registers = |step: &String| step.contains(&format!("`{}`", uris.redirect_uri()));
            assert!(steps.iter().any(registers), "{product:?}: {steps:?}");
            assert!(steps.iter().all(|step| !step.contains("{")), "{product:?}: {steps:?}");
            assert!(product.facts().callback_errors.iter().all(|code| is_callback_error(code)));
            for known in [Remedy::AddClaims, Remedy::AssignPerson, Remedy::AllowCodeFlow] {
                assert!(!remedy(known, *product, "", "").is_empty(), "{product:?}");
                assert!(help(known, *product).starts_with("https://"), "{product:?}");
            }
        }
    }
}
