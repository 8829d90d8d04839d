//! Microsoft Entra ID, formerly Azure AD. Sends no `email` claim unless it is configured to, never
//! `email_verified`, and names its errors by codes (AADSTS…) in descriptions and scripts of pages.

use super::{Facts, KnownError, Refuses, is_in};

pub(super) const FACTS: Facts = Facts {
    name: "Microsoft Entra ID",
    is_at: |url| {
        ["microsoftonline.com", "windows.net", "microsoftonline.us"]
            .iter()
            .any(|domain| is_in(url, domain))
    },
    steps: &[
        "Open **Microsoft Entra admin center > Identity > Applications > App registrations > New \
         registration**. Name it PeerPanda and choose *Accounts in this organizational directory \
         only*.",
        "**Redirect URI**: choose the platform *Web* and enter `{redirect_uri}`.",
        "**Authentication > Front-channel logout URL**: leave it empty. **Branding & properties > \
         Home page URL**: enter `{login_uri}`.",
        "**Certificates & secrets > New client secret**: copy its *Value* (not its Secret ID) and \
         note when it expires.",
        "**Token configuration > Add optional claim > ID**: add `email`, `given_name` and \
         `family_name`, and accept the Microsoft Graph permissions. Entra ID does not send `email` \
         otherwise, even when the scope is requested.",
        "**API permissions**: add `openid`, `email` and `profile` of Microsoft Graph and choose \
         *Grant admin consent*.",
        "**Enterprise applications > PeerPanda > Users and groups**: assign the people who may log \
         in.",
        "**Overview**: the Application (client) ID is the Client ID. The Directory (tenant) ID is \
         part of the discovery URL.",
    ],
    discovery_url: "`https://login.microsoftonline.com/TENANT-ID/v2.0/.well-known/\
                    openid-configuration`, with your tenant's ID",
    redirect_uris: "App registrations > the app > Authentication > Platform configurations > Web > \
                    Redirect URIs",
    credentials: "App registrations > the app > Certificates & secrets: send the secret's Value \
                  (not its Secret ID)",
    allow_code_flow: "allow the client the authorization code grant",
    add_claims: "Entra ID: App registrations > the app > Token configuration > Add optional claim > \
                 ID > email, given_name, family_name",
    claims_help: "https://learn.microsoft.com/entra/identity-platform/optional-claims",
    errors: &[
        KnownError {
            code: "AADSTS7000215",
            meaning: "the client secret is wrong: often its Secret ID was copied instead of its \
                      Value",
            refuses: Refuses::Client,
        },
        KnownError {
            code: "AADSTS7000222",
            meaning: "the client secret has expired: a new one is needed",
            refuses: Refuses::Client,
        },
        KnownError {
            code: "AADSTS7000218",
            meaning: "a client secret is required and none was received: the app is not a Web \
                      platform, or the authentication method is wrong",
            refuses: Refuses::Client,
        },
        KnownError {
            code: "AADSTS700016",
            meaning: "this tenant has no such application: the client id, or the tenant in \
                      the discovery URL, is wrong",
            refuses: Refuses::Client,
        },
        KnownError {
            code: "AADSTS90002",
            meaning: "no such tenant exists: the tenant ID in the discovery URL is wrong",
            refuses: Refuses::Client,
        },
        KnownError {
            code: "AADSTS50011",
            meaning: "the redirect URI is not registered with the app",
            refuses: Refuses::RedirectUri,
        },
        KnownError {
            code: "AADSTS50105",
            meaning: "the person is not assigned to the app",
            refuses: Refuses::Login,
        },
        KnownError {
            code: "AADSTS54005",
            meaning: "the authorization code was used before",
            refuses: Refuses::Login,
        },
        KnownError {
            code: "AADSTS65001",
            meaning: "consent is missing: an admin must grant it",
            refuses: Refuses::Login,
        },
        KnownError {
            code: "AADSTS700025",
            meaning: "the app is registered as a public client: register it as Web",
            refuses: Refuses::Login,
        },
        KnownError {
            code: "AADSTS53003",
            meaning: "a Conditional Access policy refused the login",
            refuses: Refuses::Login,
        },
        KnownError {
            code: "AADSTS50020",
            meaning: "the person's account is not in this tenant",
            refuses: Refuses::Login,
        },
    ],
    callback_errors: &["invalid_resource"],
    scripted_error: Some("AADSTS"),
    client_credentials_scope: Some(|client_id| format!("{client_id}/.default")),
};
