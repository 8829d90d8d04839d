//! Microsoft AD FS, which customers run on host names of their own.

use super::{Facts, Fault, KnownError, generic};

pub(super) const FACTS: Facts = Facts {
    name: "Microsoft AD FS",
    is_at: |url| {
        let mut segments = url.path_segments().into_iter().flatten();
        segments.next().is_some_and(|first| first.eq_ignore_ascii_case("adfs"))
    },
    steps: &[
        "Open **AD FS Management > Application Groups > Add Application Group** and choose *Server \
         application accessing a web API*.",
        "**Server application > Redirect URI**: enter `{redirect_uri}`, and for the logout \
         `{login_uri}`. Note the Client Identifier.",
        "**Configure Application Credentials**: choose *Generate a shared secret* and copy it.",
        "**Web API > Identifier**: enter the Client Identifier. **Client permissions**: permit \
         `openid`, `email`, `profile` and `allatclaims`.",
        "**Web API > Issuance Transform Rules**: send the LDAP attributes as the claims `email`, \
         `given_name` and `family_name`.",
    ],
    discovery_url: "`https://HOST/adfs/.well-known/openid-configuration`",
    redirect_uris: "AD FS Management > Application Groups > the group > the server application > \
                    Redirect URI",
    credentials: "AD FS Management > Application Groups > the group > the server application: \
                  Credentials",
    assign_people: "AD FS Management > Application Groups > the group > the web API > Access control \
                    policy",
    add_claims: "AD FS: Application Groups > the group > the web API > Issuance Transform Rules: \
                 send email, given_name and family_name, and permit the scope allatclaims",
    claims_help: "https://learn.microsoft.com/windows-server/identity/ad-fs/development/\
                  custom-id-tokens-in-ad-fs",
    help: "https://learn.microsoft.com/windows-server/identity/ad-fs/development/\
           ad-fs-openid-connect-oauth-concepts",
    errors: &[
        KnownError::new(
            "MSIS9224",
            Fault::RedirectUri,
            "the redirect URI is not registered with the server application",
            "https://learn.microsoft.com/answers/questions/763044/\
             an-error-occurs-when-i-configure-the-second-adfs-c",
        ),
        KnownError::new(
            "MSIS9622",
            Fault::SecretWrong,
            "the client secret is wrong, or was not sent by a method that AD FS accepts",
            "https://github.com/AzureAD/microsoft-authentication-library-for-js/issues/6281",
        ),
        KnownError::new(
            "MSIS5007",
            Fault::PersonNotAssigned,
            "the access control policy does not permit the person",
            "https://learn.microsoft.com/answers/questions/366211/\
             adfs-4-0-third-relying-party-restrict-acces-by-ou",
        ),
    ],
    ..generic::FACTS
};
