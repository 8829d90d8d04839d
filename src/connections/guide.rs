//! Texts for customers, in Markdown: the integration guide with the account's values and the steps
//! of its IdP's product, and the note that a connection is ready to test. Nothing in them is
//! secret.

use std::fmt::Write;

use super::{ConnectionAdmin, ConnectionError, MissingProof, is_checked};
use crate::model::check::CheckId;
use crate::model::connection::{Connection, CustomerUris, MetadataSource};
use crate::model::slug::Slug;
use crate::oidc::idps::IdpProduct;

impl ConnectionAdmin {
    /// The guide. Without a product, the connection's issuer decides, if there is a connection.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn guide(
        &self,
        slug: &Slug,
        product: Option<IdpProduct>,
    ) -> Result<String, ConnectionError> {
        let connection = match self.stored(slug).await {
            Ok(stored) => stored.map_or_else(|unreadable| unreadable.without_secrets, Some),
            // The guide also helps before the account has a connection.
            Err(ConnectionError::NotFound) => None,
            Err(error) => return Err(error),
        };
        let product = product.or_else(|| connection.as_ref().map(product_of));
        let product = product.unwrap_or(IdpProduct::Generic);
        let scopes = connection
            .as_ref()
            .map_or_else(|| "openid, email, profile".to_owned(), |c| c.settings.scopes.join(", "));
        Ok(guide(
            slug,
            product,
            &CustomerUris::new(&self.public_origin, slug),
            &scopes,
            connection.as_ref(),
        ))
    }

    /// The note that the connection is ready to test, with what the check has proven.
    ///
    /// # Errors
    /// [`ConnectionError::ProofMissing`] without a check that has passed.
    pub async fn ready_note(&self, slug: &Slug) -> Result<String, ConnectionError> {
        let connection = self.get(slug).await?;
        let check = connection.latest_check().filter(|_| is_checked(&connection));
        let Some(check) = check else {
            return Err(ConnectionError::ProofMissing(MissingProof::Check));
        };
        let is_read = matches!(connection.settings.source, MetadataSource::Discovery(_));
        let proven = check.passed.iter().filter(|id| check.proves(**id));
        // Endpoints that were entered by hand are not read from the IdP.
        let proven = proven.filter(|id| is_read || **id != CheckId::MetadataDocument);
        let proven = proven.filter_map(|id| in_words(*id));
        let proven: String = proven.fold(String::new(), |mut text, line| {
            let _ = writeln!(text, "- {line}");
            text
        });
        let uris = CustomerUris::new(&self.public_origin, slug);
        let account = shown_name(&connection);
        Ok(format!(
            "# {account}: single sign-on is ready to test\n\n\
             We have set up your OpenID Connect connection and checked it from our side:\n\n{proven}\n\
             **Please test it now:** open <{}> in a private window and log in as a user who is \
             assigned to the application. The page shows what we received. Nothing has changed for \
             your users yet. Tell us once the test works, and we will enable it.\n",
            uris.login_uri()
        ))
    }
}

fn product_of(connection: &Connection) -> IdpProduct {
    let source = match &connection.settings.source {
        MetadataSource::Discovery(url) => url.as_str(),
        MetadataSource::Manual(endpoints) => endpoints.authorization.as_str(),
    };
    IdpProduct::of(connection.issuer().map_or(source, |issuer| issuer.as_str()))
}

fn shown_name(connection: &Connection) -> &str {
    match connection.settings.display_name.as_str() {
        "" => connection.slug.as_str(),
        name => name,
    }
}

/// What a passed check means to the customer.
fn in_words(id: CheckId) -> Option<&'static str> {
    Some(match id {
        CheckId::MetadataDocument => "your IdP's configuration can be read",
        CheckId::MetadataIssuer => "its issuer is the expected one",
        CheckId::JwksKeys => "its signing keys are published",
        CheckId::ClientCredentials => "it accepts the client id and the client secret",
        CheckId::ClientRedirectUri => "our redirect URI is registered with the application",
        CheckId::LogoutEndpoint => {
            "users can be logged out at your IdP as well, and come back to us"
        }
        _ => return None,
    })
}

fn guide(
    slug: &Slug,
    product: IdpProduct,
    uris: &CustomerUris<'_>,
    scopes: &str,
    connection: Option<&Connection>,
) -> String {
    let mut text = String::new();
    let method = connection
        .map_or("client_secret_basic or client_secret_post", |c| c.settings.auth_method_text());
    let _ = write!(
        text,
        "# Log in with single sign-on: {}\n\n\
         This guide is for the account `{slug}`. Please set up an OpenID Connect application at your \
         IdP with the values below, then send us what is listed at the end.\n\n\
         | setting | value |\n|---|---|\n\
         | Redirect URI | `{}` |\n\
         | Initiate login URI | `{login}` |\n\
         | Post-logout redirect URI | `{login}` |\n\
         | Grant types | Authorization Code; also Client Credentials, if possible, so that we can \
         check the secret without your help |\n\
         | Client authentication | client secret ({method}) |\n\
         | PKCE | S256 |\n\
         | Scopes | {scopes} |\n\
         | ID token signature | RS256 (not HS256) |\n\
         | Claims in the ID token | email, given_name, family_name |\n\n\
         Please register the URIs exactly as written, with the slash at the end.\n\n## Steps\n\n",
        if product == IdpProduct::Generic { "OpenID Connect" } else { product.name() },
        uris.redirect_uri(),
        login = uris.login_uri(),
    );
    for (number, step) in product.steps(uris).enumerate() {
        let _ = writeln!(text, "{}. {step}", number + 1);
    }
    let _ = write!(
        text,
        "\n## What to send us\n\n\
         - the account slug: `{slug}`\n\
         - Client ID\n\
         - Client Secret, and when it expires\n\
         - Discovery URL: {}\n\
         - Token endpoint authentication method: client_secret_basic or client_secret_post\n\n\
         Please send it through the in-app chat of your PeerPanda dashboard. We will check the \
         connection and tell you when it is ready to test.\n",
        product.discovery_url()
    );
    text
}
