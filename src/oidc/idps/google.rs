//! Google Workspace. Has neither a logout for applications nor the client credentials grant, and
//! sends `iss` with the callback without advertising it.

use super::{Facts, Fault, KnownError, is_in};

pub(super) const FACTS: Facts = Facts {
    name: "Google Workspace",
    is_at: |url| is_in(url, "google.com"),
    steps: &[
        "Open **Google Cloud console > APIs & Services > OAuth consent screen**. Choose *Internal* \
         and the scopes `openid`, `email` and `profile`.",
        "Open **Credentials > Create credentials > OAuth client ID** and choose *Web application*.",
        "**Authorized redirect URIs**: enter `{redirect_uri}`. Google has no logout to register.",
        "Tell us your Workspace domain, so that we accept only its accounts (`hd`).",
        "In the Admin console, give every user a first and a last name. Google does not offer the \
         Client Credentials grant, so we check the client secret in another way.",
    ],
    discovery_url: "`https://accounts.google.com/.well-known/openid-configuration`",
    redirect_uris: "Google Cloud console > APIs & Services > Credentials > the OAuth client > \
                    Authorized redirect URIs",
    credentials: "Google Cloud console > APIs & Services > Credentials > the OAuth client: Client \
                  secret",
    allow_code_flow: "allow the client the authorization code grant",
    assign_people: "Google Cloud console > APIs & Services > OAuth consent screen: choose Internal, of the organization of the people",
    add_claims: "Google Workspace: enter the user's first and last name in the Admin console",
    claims_help: "https://support.google.com/a/answer/1728857",
    help: "https://developers.google.com/identity/openid-connect/openid-connect",
    errors: &[
        KnownError::new(
            "redirect_uri_mismatch",
            Fault::RedirectUri,
            "the redirect URI is not registered with the OAuth client",
            "https://developers.google.com/identity/protocols/oauth2/web-server#authorization-errors",
        ),
        KnownError::new(
            "org_internal",
            Fault::OtherTenant,
            "the OAuth client is limited to accounts of its own Google Workspace organization",
            "https://developers.google.com/identity/protocols/oauth2/web-server#authorization-errors",
        ),
        KnownError::new(
            "deleted_client",
            Fault::ClientDisabled,
            "the OAuth client was deleted",
            "https://developers.google.com/identity/protocols/oauth2/web-server#authorization-errors",
        ),
        KnownError::new(
            "The OAuth client was deleted",
            Fault::ClientDisabled,
            "the OAuth client was deleted",
            "https://developers.google.com/identity/protocols/oauth2/web-server#authorization-errors",
        ),
        KnownError::new(
            "The OAuth client was not found",
            Fault::ClientUnknown,
            "no such OAuth client exists: the client id is wrong",
            "https://developers.google.com/identity/protocols/oauth2/web-server#authorization-errors",
        ),
        KnownError::new(
            "admin_policy_enforced",
            Fault::Policy,
            "the Workspace admin does not allow the app to the person",
            "https://developers.google.com/identity/protocols/oauth2/web-server#authorization-errors",
        ),
    ],
    callback_errors: &[],
    scripted_error: None,
    client_credentials_scope: None,
};
