//! Microsoft Entra ID, formerly Azure AD. Sends no `email` claim unless it is configured to, never
//! `email_verified`, and names its errors by codes (AADSTS…) in descriptions and scripts of pages.

use super::{Facts, Fault, KnownError, is_in};

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
    assign_people: "Enterprise applications > the app > Users and groups",
    add_claims: "Entra ID: App registrations > the app > Token configuration > Add optional claim > \
                 ID > email, given_name, family_name",
    claims_help: "https://learn.microsoft.com/entra/identity-platform/optional-claims",
    help: "https://learn.microsoft.com/entra/identity-platform/reference-error-codes",
    errors: &[
        KnownError::new(
            "AADSTS7000215",
            Fault::SecretWrong,
            "the client secret is wrong: often its Secret ID was copied instead of its Value",
            "https://login.microsoftonline.com/error?code=7000215",
        ),
        KnownError::new(
            "AADSTS7000222",
            Fault::SecretExpired,
            "the client secret has expired: a new one is needed",
            "https://login.microsoftonline.com/error?code=7000222",
        ),
        KnownError::new(
            "AADSTS7000218",
            Fault::AuthMethodWrong,
            "a client secret is required and none was received: the app is not a Web platform, or the authentication method is wrong",
            "https://login.microsoftonline.com/error?code=7000218",
        ),
        KnownError::new(
            "AADSTS700016",
            Fault::ClientUnknown,
            "this tenant has no such application: the client id, or the tenant in the discovery URL, is wrong",
            "https://login.microsoftonline.com/error?code=700016",
        ),
        KnownError::new(
            "AADSTS90002",
            Fault::ClientUnknown,
            "no such tenant exists: the tenant ID in the discovery URL is wrong",
            "https://login.microsoftonline.com/error?code=90002",
        ),
        KnownError::new(
            "AADSTS7000112",
            Fault::ClientDisabled,
            "the app is disabled in the tenant",
            "https://login.microsoftonline.com/error?code=7000112",
        ),
        KnownError::new(
            "AADSTS700025",
            Fault::ClientPublic,
            "the app is registered as a public client: register it as Web",
            "https://login.microsoftonline.com/error?code=700025",
        ),
        KnownError::new(
            "AADSTS9002327",
            Fault::ClientPublic,
            "the redirect URI is registered for the platform Single-page application: register it for Web",
            "https://login.microsoftonline.com/error?code=9002327",
        ),
        KnownError::new(
            "AADSTS50011",
            Fault::RedirectUri,
            "the redirect URI is not registered with the app",
            "https://login.microsoftonline.com/error?code=50011",
        ),
        KnownError::new(
            "AADSTS500113",
            Fault::RedirectUri,
            "no redirect URI is registered with the app",
            "https://login.microsoftonline.com/error?code=500113",
        ),
        KnownError::new(
            "AADSTS50105",
            Fault::PersonNotAssigned,
            "the person is not assigned to the app",
            "https://login.microsoftonline.com/error?code=50105",
        ),
        KnownError::new(
            "AADSTS65001",
            Fault::ConsentMissing,
            "consent is missing: an admin must grant it",
            "https://login.microsoftonline.com/error?code=65001",
        ),
        KnownError::new(
            "AADSTS90094",
            Fault::ConsentMissing,
            "only an admin may consent: an admin must grant it",
            "https://login.microsoftonline.com/error?code=90094",
        ),
        KnownError::new(
            "AADSTS53003",
            Fault::Policy,
            "a Conditional Access policy refused the login",
            "https://login.microsoftonline.com/error?code=53003",
        ),
        KnownError::new(
            "AADSTS53000",
            Fault::Policy,
            "a Conditional Access policy demands a compliant device",
            "https://login.microsoftonline.com/error?code=53000",
        ),
        KnownError::new(
            "AADSTS50076",
            Fault::Policy,
            "a policy demands multifactor authentication",
            "https://login.microsoftonline.com/error?code=50076",
        ),
        KnownError::new(
            "AADSTS50020",
            Fault::OtherTenant,
            "the person's account is not in this tenant",
            "https://login.microsoftonline.com/error?code=50020",
        ),
        KnownError::new(
            "AADSTS50034",
            Fault::OtherTenant,
            "the person's account does not exist in this tenant",
            "https://login.microsoftonline.com/error?code=50034",
        ),
        KnownError::new(
            "AADSTS54005",
            Fault::CodeSpent,
            "the authorization code was used before",
            "https://login.microsoftonline.com/error?code=54005",
        ),
        KnownError::new(
            "AADSTS70008",
            Fault::CodeSpent,
            "the authorization code has expired",
            "https://login.microsoftonline.com/error?code=70008",
        ),
    ],
    callback_errors: &["invalid_resource"],
    scripted_error: Some("AADSTS"),
    client_credentials_scope: Some(|client_id| format!("{client_id}/.default")),
};
