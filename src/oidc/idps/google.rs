//! Google Workspace. Has neither a logout for applications nor the client credentials grant, and
//! sends `iss` with the callback without advertising it.

use super::{Facts, KnownError, Refuses, is_in};

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
    add_claims: "Google Workspace: enter the user's first and last name in the Admin console",
    claims_help: "https://support.google.com/a/answer/1728857",
    errors: &[KnownError {
        code: "redirect_uri_mismatch",
        meaning: "the redirect URI is not registered with the OAuth client",
        refuses: Refuses::RedirectUri,
    }],
    callback_errors: &[],
    scripted_error: None,
    client_credentials_scope: None,
};
