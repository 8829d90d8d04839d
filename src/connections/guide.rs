//! Texts for customers, in Markdown: the integration guide with an account's own values and its IdP's own steps, and the note
//! that a connection is ready to test. Nothing in them is secret.

use std::fmt::Write;

use super::{ConnectionAdmin, ConnectionError, MissingProof, is_checked};
use crate::model::check::CheckId;
use crate::model::connection::{Connection, CustomerUris, MetadataSource};
use crate::model::slug::Slug;
use crate::oidc::idps::vendor::Vendor;

impl ConnectionAdmin {
    /// The guide; `None`: the product is told from the connection's issuer, where there is one.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn guide(
        &self,
        slug: &Slug,
        vendor: Option<Vendor>,
    ) -> Result<String, ConnectionError> {
        let connection = match self.get(slug).await {
            Ok(connection) => Some(connection),
            // It is for whoever is about to set the account up, too.
            Err(ConnectionError::NotFound) => None,
            Err(error) => return Err(error),
        };
        let vendor =
            vendor.or_else(|| connection.as_ref().map(vendor_of)).unwrap_or(Vendor::Generic);
        let scopes = connection
            .as_ref()
            .map_or_else(|| "openid, email, profile".to_owned(), |c| c.settings.scopes.join(", "));
        Ok(guide(
            slug,
            vendor,
            &CustomerUris::new(&self.public_origin, slug),
            &scopes,
            connection.as_ref(),
        ))
    }

    /// The note that the connection is ready to test, with what was proven.
    ///
    /// # Errors
    /// [`ConnectionError::CheckRequired`] where that isn't so.
    pub async fn ready_note(&self, slug: &Slug) -> Result<String, ConnectionError> {
        let connection = self.get(slug).await?;
        let check = connection.latest_check().filter(|_| is_checked(&connection));
        let Some(check) = check else {
            return Err(ConnectionError::ProofMissing(MissingProof::Check));
        };
        let proven = check.passed.iter().filter_map(|id| in_words(*id));
        let proven: String = proven.fold(String::new(), |mut text, line| {
            let _ = writeln!(text, "- {line}");
            text
        });
        let uris = CustomerUris::new(&self.public_origin, slug);
        let account = shown_name(&connection);
        Ok(format!(
            "# {account}: single sign-on is ready to test\n\n\
             We have set your OpenID Connect connection up and checked it from our side:\n\n{proven}\n\
             **Please test it now:** open <{}> in a private window and log in as somebody who is assigned to the application. \
             The page shows what we received. Nobody's way to log in has changed yet; tell us when the test has worked, and we switch \
             it on.\n",
            uris.login_uri()
        ))
    }
}

fn vendor_of(connection: &Connection) -> Vendor {
    let source = match &connection.settings.source {
        MetadataSource::Discovery(url) => url.as_str(),
        MetadataSource::Manual(endpoints) => endpoints.authorization.as_str(),
    };
    Vendor::of(connection.issuer().map_or(source, |issuer| issuer.as_str()))
}

fn shown_name(connection: &Connection) -> &str {
    match connection.settings.display_name.as_str() {
        "" => connection.slug.as_str(),
        name => name,
    }
}

/// What a check that has passed means to a customer.
fn in_words(id: CheckId) -> Option<&'static str> {
    Some(match id {
        CheckId::MetadataDocument => "your IdP's configuration can be read",
        CheckId::MetadataIssuer => "its issuer is the one that we expect",
        CheckId::JwksKeys => "its signing keys are published",
        CheckId::ClientCredentials => "it accepts the client id and the client secret",
        CheckId::ClientRedirectUri => "our redirect URI is registered with the application",
        CheckId::LogoutEndpoint => "people can be logged out at your IdP, too",
        _ => return None,
    })
}

fn guide(
    slug: &Slug,
    vendor: Vendor,
    uris: &CustomerUris<'_>,
    scopes: &str,
    connection: Option<&Connection>,
) -> String {
    let mut text = String::new();
    let method = connection
        .map_or("client_secret_basic or client_secret_post", |c| c.settings.auth_method.name());
    let _ = write!(
        text,
        "# Log in with single sign-on: {}\n\n\
         For the account `{slug}`. Set up an OpenID Connect application at your IdP with these values, then send us what is listed at the \
         end.\n\n\
         | setting | value |\n|---|---|\n\
         | Redirect URI | `{}` |\n\
         | Initiate login URI | `{login}` |\n\
         | Post-logout redirect URI | `{login}` |\n\
         | Grant types | Authorization Code; Client Credentials, by which we can prove the secret without you |\n\
         | Client authentication | client secret ({method}) |\n\
         | PKCE | S256 |\n\
         | Scopes | {scopes} |\n\
         | ID token signature | RS256 (not HS256) |\n\
         | Claims in the ID token | email, given_name, family_name |\n\n\
         The URIs must be registered exactly as they stand, with the slash at the end.\n\n## Steps\n\n",
        if vendor == Vendor::Generic { "OpenID Connect" } else { vendor.name() },
        uris.redirect_uri(),
        login = uris.login_uri(),
    );
    for (number, step) in steps(vendor, uris).into_iter().enumerate() {
        let _ = writeln!(text, "{}. {step}", number + 1);
    }
    let discovery = match vendor {
        Vendor::Entra => {
            "`https://login.microsoftonline.com/TENANT-ID/v2.0/.well-known/openid-configuration`, with your tenant's id"
        }
        Vendor::Okta => "`https://YOUR-DOMAIN.okta.com/.well-known/openid-configuration`",
        Vendor::Google => "`https://accounts.google.com/.well-known/openid-configuration`",
        Vendor::Auth0 => "`https://YOUR-TENANT.auth0.com/.well-known/openid-configuration`",
        Vendor::Keycloak => "`https://HOST/realms/REALM/.well-known/openid-configuration`",
        Vendor::Generic => {
            "ending in `/.well-known/openid-configuration`; or authorization, token and JWKS endpoints and the issuer"
        }
    };
    let _ = write!(
        text,
        "\n## What to send us\n\n\
         - the account slug: `{slug}`\n\
         - Client ID\n\
         - Client Secret, and when it expires\n\
         - Discovery URL: {discovery}\n\
         - Token endpoint authentication method: client_secret_basic or client_secret_post\n\n\
         Through the in-app chat of your PeerPanda dashboard. We check the connection, and tell you when it is ready to test.\n"
    );
    text
}

fn steps(vendor: Vendor, uris: &CustomerUris<'_>) -> Vec<String> {
    let (redirect, login) = (uris.redirect_uri(), uris.login_uri());
    match vendor {
        Vendor::Entra => vec![
            "**Microsoft Entra admin center > Identity > Applications > App registrations > New registration**: name it PeerPanda, \
             *Accounts in this organizational directory only*."
                .to_owned(),
            format!("**Redirect URI**: platform *Web*, `{redirect}`."),
            format!("**Authentication > Front-channel logout URL** stays empty; **Branding & properties > Home page URL**: `{login}`."),
            "**Certificates & secrets > New client secret**: note its *Value* (not its Secret ID), and when it expires.".to_owned(),
            "**Token configuration > Add optional claim > ID**: `email`, `given_name`, `family_name`; accept the Microsoft Graph permissions. \
             Entra ID does not send `email` by itself, even when the scope is asked for."
                .to_owned(),
            "**API permissions**: `openid`, `email`, `profile` of Microsoft Graph, *Grant admin consent*.".to_owned(),
            "**Enterprise applications > PeerPanda > Users and groups**: assign the people.".to_owned(),
            "**Overview**: Application (client) ID is the Client ID, Directory (tenant) ID stands in the discovery URL.".to_owned(),
        ],
        Vendor::Okta => vec![
            "**Admin Console > Applications > Create App Integration**: *OIDC - OpenID Connect*, *Web Application*.".to_owned(),
            "**Grant type**: *Authorization Code* and *Client Credentials*.".to_owned(),
            format!("**Sign-in redirect URIs**: `{redirect}`; **Sign-out redirect URIs**: `{login}`."),
            format!("**General Settings > LOGIN > Login initiated by**: *Either Okta or App*; **Initiate login URI**: `{login}`."),
            "**Client Credentials > Client authentication**: *Client secret*; **Proof Key for Code Exchange (PKCE)**: require it.".to_owned(),
            "**Assignments**: the people and groups who may log in; their profiles need first name, last name and e-mail.".to_owned(),
            "**General > Client Credentials**: Client ID and Client Secret.".to_owned(),
        ],
        Vendor::Google => vec![
            "**Google Cloud console > APIs & Services > OAuth consent screen**: *Internal*, scopes `openid`, `email`, `profile`.".to_owned(),
            "**Credentials > Create credentials > OAuth client ID**: *Web application*.".to_owned(),
            format!("**Authorized redirect URIs**: `{redirect}`. Google has no logout of its own to register."),
            "Tell us your Workspace domain, so that we accept its accounts alone (`hd`).".to_owned(),
            "The people need a first and a last name in the Admin console. Google doesn't offer the Client Credentials grant: we prove the \
             secret otherwise."
                .to_owned(),
        ],
        Vendor::Auth0 => vec![
            "**Applications > Create Application**: *Regular Web Application*.".to_owned(),
            format!("**Settings > Allowed Callback URLs**: `{redirect}`; **Allowed Logout URLs**: `{login}`."),
            format!("**Application Login URI**: `{login}`."),
            "**Credentials > Authentication Method**: *Client Secret (Basic)* or *(Post)*.".to_owned(),
            "**Advanced Settings > Grant Types**: *Authorization Code*, *Client Credentials*; **OAuth > JSON Web Token (JWT) Signature \
             Algorithm**: *RS256*."
                .to_owned(),
            "Client ID and Client Secret stand in **Settings**; the discovery URL in **Advanced Settings > Endpoints**.".to_owned(),
        ],
        Vendor::Keycloak => vec![
            "**Clients > Create client**: *OpenID Connect*; **Client authentication** *On*; *Standard flow* and *Service accounts roles*.".to_owned(),
            format!("**Valid redirect URIs**: `{redirect}`; **Valid post logout redirect URIs**: `{login}`; **Home URL**: `{login}`."),
            "**Advanced > Proof Key for Code Exchange Code Challenge Method**: *S256*.".to_owned(),
            "**Client scopes**: `email` and `profile` as *Default*.".to_owned(),
            "**Credentials**: *Client Id and Secret*; copy the Client Secret.".to_owned(),
        ],
        Vendor::Generic => vec![
            "Create a confidential OpenID Connect client (a *web application*) with a client secret.".to_owned(),
            format!("Register the redirect URI `{redirect}` and, where it asks for one, the post-logout redirect URI `{login}`."),
            "Allow the Authorization Code grant with PKCE, and Client Credentials where it can be had.".to_owned(),
            "Have `email`, `given_name` and `family_name` in the ID token for the scopes `email` and `profile`.".to_owned(),
            "Allow the people who may log in.".to_owned(),
        ],
    }
}
