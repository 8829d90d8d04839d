//! The discovery URL as people send it: the issuer, the domain of an IdP, an endpoint, or the URL of the
//! admin's console, where the metadata document's URL follows from it. Pure: nothing is called, so only
//! what is certain by its form is taken; everything else is refused with the URLs that it may stand for.
//!
//! A document is at its issuer with [`WELL_KNOWN`] (OIDC Discovery 4), so any URL may be an issuer, unless
//! it looks like something else. The products' own URLs stand here and not with the rest of what is known
//! of them, since the model imports nothing of `oidc`.

use std::fmt;

use url::Url;

use crate::model::endpoint_url::WELL_KNOWN;
use crate::model::text::{hidden_character, quotable};

/// A discovery URL, and what it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovered {
    /// Ends in [`WELL_KNOWN`], apart from a query.
    pub url: String,
    /// What was entered.
    pub form: Form,
}

/// What a text that stands for a discovery URL is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The URL itself.
    Document,
    /// The issuer, or the IdP's domain.
    Issuer,
    /// An endpoint of the IdP.
    Endpoint,
    /// A page of the IdP's console for admins.
    Console,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Document => "the discovery URL",
            Self::Issuer => "the issuer",
            Self::Endpoint => "an endpoint of the IdP",
            Self::Console => "the IdP's console",
        })
    }
}

/// Reads what was entered as a discovery URL.
///
/// # Errors
/// What it seems to be, and what it may stand for.
pub fn read(text: &str) -> Result<Discovered, String> {
    // What surrounds a URL in a mail or a chat.
    let is_around = |c: char| c.is_whitespace() || "<>\"'`,;".contains(c);
    let text = text.trim_matches(is_around);
    let with_scheme =
        if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let as_entered = |form| Ok(Discovered { url: with_scheme.clone(), form });
    // What isn't a URL is refused as one, by the rules of all URLs.
    let Ok(url) = Url::parse(&with_scheme) else { return as_entered(Form::Document) };
    let is_odd = hidden_character(text).is_some() || text.contains(['\\', ' ']);
    let has_user = !url.username().is_empty() || url.password().is_some();
    if is_odd || has_user || !matches!(url.scheme(), "https" | "http") || !url.has_host() {
        return as_entered(Form::Document);
    }
    let path = url.path().trim_end_matches('/');
    if path.ends_with(WELL_KNOWN) {
        // With a slash at its end, it would be another URL.
        if url.path() == path {
            return as_entered(Form::Document);
        }
        let mut document = url.clone();
        document.set_path(path);
        return Ok(Discovered { url: document.to_string(), form: Form::Document });
    }
    if let Some(issuer) = path.strip_suffix(OAUTH_METADATA) {
        return Ok(Discovered { url: below(&url, issuer), form: Form::Endpoint });
    }
    if let Some(found) = console(&url).or_else(|| endpoint(&url, path)) {
        return found;
    }
    let last = path.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    if NOT_ISSUERS.contains(&last.as_str()) {
        let shown = quotable(text);
        let parents = path.char_indices().filter(|(_, c)| *c == '/').map(|(at, _)| &path[..at]);
        let mut tried: Vec<String> = parents.map(|parent| below(&url, parent)).collect();
        tried.reverse();
        tried.truncate(MAX_TRIED);
        return Err(format!(
            "must be the URL of the metadata document, not of an endpoint or page: {shown:?}; try {}",
            tried.join(" or ")
        ));
    }
    Ok(Discovered { url: below(&url, path), form: Form::Issuer })
}

type Reading = Option<Result<Discovered, String>>;

/// The products' consoles.
fn console(url: &Url) -> Reading {
    let host = url.host_str()?;
    let at = |issuer: String| {
        Some(Ok(Discovered { url: format!("https://{issuer}{WELL_KNOWN}"), form: Form::Console }))
    };
    let ask = |whose: &str, for_what: &str| {
        Some(Err(format!(
            "must be the URL of the metadata document, not of {whose}: ask for {for_what}"
        )))
    };
    match host {
        "portal.azure.com" | "entra.microsoft.com" | "aad.portal.azure.com" => ask(
            "a page of Microsoft's console",
            "the \"OpenID Connect metadata document\" under App registrations > Endpoints, or for the \
             tenant id: https://login.microsoftonline.com/TENANT/v2.0",
        ),
        "admin.google.com" | "console.cloud.google.com" | "console.developers.google.com" => {
            at("accounts.google.com".to_owned())
        }
        "console.pingone.com" | "console.pingone.eu" => ask(
            "a page of PingOne's console",
            "the \"OIDC Discovery Endpoint\" under Configuration > URLs of the application",
        ),
        "manage.auth0.com" => {
            // /dashboard/REGION/TENANT/…
            let mut segments = url.path_segments()?.skip_while(|segment| *segment != "dashboard");
            let page = "a page of Auth0's console";
            match (segments.nth(1), segments.next().filter(|tenant| !tenant.is_empty())) {
                // Tenants that were made before 2020 have no region in their domain.
                (Some("us"), Some(tenant)) => {
                    let domains = format!("{tenant}.us.auth0.com or {tenant}.auth0.com");
                    ask(page, &format!("the application's domain: {domains}"))
                }
                (Some(region), Some(tenant)) => at(format!("{tenant}.{region}.auth0.com")),
                (_, None) | (None, _) => ask(page, "the application's domain"),
            }
        }
        _ if host.contains("-admin.okta") => at(host.replacen("-admin.okta", ".okta", 1)),
        _ if host.ends_with(".onelogin.com") && url.path().starts_with("/admin") => {
            at(format!("{host}/oidc/2"))
        }
        _ => {
            // Keycloak: /admin/master/console/#/REALM/…, in older versions below /auth.
            let (start, rest) = url.path().split_once("/admin/")?;
            let (realm_of_admin, _) = rest.split_once("/console")?;
            let of_page =
                url.fragment().and_then(|page| page.trim_start_matches('/').split('/').next());
            let of_page = of_page.map(|page| page.strip_prefix("realms/").unwrap_or(page));
            let realm = match of_page.filter(|realm| !realm.is_empty() && *realm != "realms") {
                Some(realm) => realm,
                None if realm_of_admin == "master" => {
                    return ask("a page of Keycloak's console", "the realm's name: …/realms/REALM");
                }
                None => realm_of_admin,
            };
            let url = below(url, &format!("{start}/realms/{realm}"));
            Some(Ok(Discovered { url, form: Form::Console }))
        }
    }
}

/// The products' endpoints and short forms of their issuers.
fn endpoint(url: &Url, path: &str) -> Reading {
    let host = url.host_str()?;
    let at = |issuer: &str, form| Some(Ok(Discovered { url: below(url, issuer), form }));
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    if host == "login.microsoftonline.com" || host == "login.microsoftonline.us" {
        return match segments.as_slice() {
            [""] => Some(Err(format!(
                "must name the tenant: https://{host}/TENANT/v2.0, with the tenant's id or domain"
            ))),
            // Its own document is below it already.
            [_, "v2.0"] => None,
            [tenant] => at(&format!("/{tenant}/v2.0"), Form::Issuer),
            [tenant, "oauth2", ..] => at(&format!("/{tenant}/v2.0"), Form::Endpoint),
            _ => None,
        };
    }
    if host == "accounts.google.com" || host == "oauth2.googleapis.com" {
        let url = format!("https://accounts.google.com{WELL_KNOWN}");
        let form = if path.is_empty() { Form::Issuer } else { Form::Endpoint };
        return Some(Ok(Discovered { url, form }));
    }
    if host.ends_with(".onelogin.com") && path.is_empty() {
        return at("/oidc/2", Form::Issuer);
    }
    if host.ends_with(".amazoncognito.com") {
        return Some(Err(
            "must be the URL of the metadata document, not of Cognito's login page: ask for the user \
             pool's id and region: https://cognito-idp.REGION.amazonaws.com/POOL"
                .to_owned(),
        ));
    }
    // By the path: these products run on hosts of their own, too.
    if let Some((start, rest)) = path.split_once("/realms/")
        && let Some((realm, _)) = rest.split_once('/')
    {
        return at(&format!("{start}/realms/{realm}"), Form::Endpoint);
    }
    for (marker, end_of_issuer) in [
        ("/adfs/oauth2/", "/adfs"),
        ("/adfs/ls", "/adfs"),
        ("/oidc/2/", "/oidc/2"),
        ("/as/authorize", "/as"),
        ("/as/token", "/as"),
        ("/as/authorization.oauth2", ""),
        ("/as/token.oauth2", ""),
    ] {
        if let Some((start, rest)) = path.split_once(marker)
            && (marker.ends_with('/') || rest.is_empty())
        {
            return at(&format!("{start}{end_of_issuer}"), Form::Endpoint);
        }
    }
    // Okta: /oauth2/v1/authorize of the organization, /oauth2/SERVER/v1/authorize of a server.
    if let Some((issuer, end)) = path.split_once("/v1/")
        && matches!(end, "authorize" | "token" | "keys" | "userinfo" | "logout")
        && (issuer == "/oauth2" || issuer.starts_with("/oauth2/"))
    {
        let issuer = if issuer == "/oauth2" { "" } else { issuer };
        return at(issuer, Form::Endpoint);
    }
    // Nothing else at these hosts is an issuer.
    let is_okta = [".okta.com", ".oktapreview.com", ".okta-emea.com", ".okta-gov.com"]
        .iter()
        .any(|domain| host.ends_with(domain));
    if is_okta && !path.is_empty() && !path.starts_with("/oauth2/") {
        return at("", Form::Console);
    }
    if host.ends_with(".auth0.com") && !path.is_empty() {
        return at("", Form::Endpoint);
    }
    None
}

/// The URL of the document of an issuer with this path.
fn below(url: &Url, path: &str) -> String {
    let mut url = url.clone();
    url.set_path(&format!("{}{WELL_KNOWN}", path.trim_end_matches('/')));
    // They belong to an endpoint or a page.
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

/// RFC 8414 3, in the form that OpenID Connect uses.
const OAUTH_METADATA: &str = "/.well-known/oauth-authorization-server";
/// Last parts of paths that no issuer has.
const NOT_ISSUERS: [&str; 22] = [
    "authorize",
    "authorization",
    "auth",
    "token",
    "userinfo",
    "jwks",
    "jwks.json",
    "keys",
    "certs",
    "logout",
    "login",
    "signin",
    "endsession",
    "end_session",
    "admin",
    "console",
    "dashboard",
    "callback",
    "openid-configuration",
    "metadata",
    "index.html",
    ".well-known",
];
/// URLs that a refusal names.
const MAX_TRIED: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_discovery_url_is_taken_or_explained() {
        use Form::{Console, Document, Endpoint, Issuer};
        let guid = "72f988bf-86f1-41af-91ab-2d7cd011db47";
        for (entered, form, issuer) in [
            (
                "https://acme.okta.com/.well-known/openid-configuration",
                Document,
                "https://acme.okta.com",
            ),
            ("acme.okta.com/.well-known/openid-configuration/", Document, "https://acme.okta.com"),
            (
                " <https://a.example/x/.well-known/openid-configuration>, ",
                Document,
                "https://a.example/x",
            ),
            ("https://acme.okta.com", Issuer, "https://acme.okta.com"),
            ("acme.okta.com", Issuer, "https://acme.okta.com"),
            (
                "https://acme.okta.com/oauth2/default/",
                Issuer,
                "https://acme.okta.com/oauth2/default",
            ),
            ("https://acme.okta.com/oauth2/v1/authorize", Endpoint, "https://acme.okta.com"),
            (
                "https://acme.okta.com/oauth2/aus1/v1/authorize?client_id=x",
                Endpoint,
                "https://acme.okta.com/oauth2/aus1",
            ),
            (
                "https://acme.okta.com/oauth2/aus1/.well-known/oauth-authorization-server",
                Endpoint,
                "https://acme.okta.com/oauth2/aus1",
            ),
            (
                "https://acme-admin.okta.com/admin/app/oidc_client/instance/0oa1#tab-general",
                Console,
                "https://acme.okta.com",
            ),
            ("https://acme.okta.com/app/UserHome", Console, "https://acme.okta.com"),
            (
                &format!("https://login.microsoftonline.com/{guid}"),
                Issuer,
                &format!("https://login.microsoftonline.com/{guid}/v2.0"),
            ),
            (
                &format!("login.microsoftonline.com/{guid}/v2.0"),
                Issuer,
                &format!("https://login.microsoftonline.com/{guid}/v2.0"),
            ),
            (
                &format!("https://login.microsoftonline.com/{guid}/oauth2/v2.0/authorize"),
                Endpoint,
                &format!("https://login.microsoftonline.com/{guid}/v2.0"),
            ),
            (
                &format!("https://sts.windows.net/{guid}/"),
                Issuer,
                &format!("https://sts.windows.net/{guid}"),
            ),
            ("accounts.google.com", Issuer, "https://accounts.google.com"),
            (
                "https://accounts.google.com/o/oauth2/v2/auth",
                Endpoint,
                "https://accounts.google.com",
            ),
            (
                "https://console.cloud.google.com/apis/credentials?project=x",
                Console,
                "https://accounts.google.com",
            ),
            ("acme.eu.auth0.com", Issuer, "https://acme.eu.auth0.com"),
            ("https://acme.eu.auth0.com/authorize", Endpoint, "https://acme.eu.auth0.com"),
            (
                "https://manage.auth0.com/dashboard/eu/acme/applications/x/settings",
                Console,
                "https://acme.eu.auth0.com",
            ),
            ("https://kc.example/realms/people", Issuer, "https://kc.example/realms/people"),
            (
                "https://kc.example:8443/auth/realms/people/protocol/openid-connect/auth",
                Endpoint,
                "https://kc.example:8443/auth/realms/people",
            ),
            (
                "https://kc.example/realms/people/account/#/",
                Endpoint,
                "https://kc.example/realms/people",
            ),
            (
                "https://kc.example/admin/master/console/#/people/clients/x/settings",
                Console,
                "https://kc.example/realms/people",
            ),
            (
                "https://kc.example/auth/admin/people/console/",
                Console,
                "https://kc.example/auth/realms/people",
            ),
            ("https://acme.onelogin.com", Issuer, "https://acme.onelogin.com/oidc/2"),
            ("https://acme.onelogin.com/oidc/2/auth", Endpoint, "https://acme.onelogin.com/oidc/2"),
            (
                "https://acme.onelogin.com/admin2/apps/1/edit",
                Console,
                "https://acme.onelogin.com/oidc/2",
            ),
            (
                "https://auth.pingone.eu/3b1c/as/authorize",
                Endpoint,
                "https://auth.pingone.eu/3b1c/as",
            ),
            (
                "https://sso.corp.example/as/authorization.oauth2",
                Endpoint,
                "https://sso.corp.example",
            ),
            ("https://fs.corp.example/adfs/ls/?x=1", Endpoint, "https://fs.corp.example/adfs"),
            ("fs.corp.example/adfs/oauth2/authorize", Endpoint, "https://fs.corp.example/adfs"),
            ("https://idp.example/tenant/one", Issuer, "https://idp.example/tenant/one"),
        ] {
            let found = read(entered).unwrap_or_else(|error| panic!("{entered}: {error}"));
            assert_eq!(
                (found.form, found.url),
                (form, format!("{issuer}{WELL_KNOWN}")),
                "{entered}"
            );
        }
        for (entered, words) in [
            (
                "https://idp.example/oauth/authorize?x=1",
                "try https://idp.example/oauth/.well-known/openid-configuration or https://idp.example/.well-known/",
            ),
            ("https://idp.example/login", "not of an endpoint or page"),
            ("https://portal.azure.com/#view/Microsoft_AAD_IAM", "the tenant id"),
            ("https://login.microsoftonline.com/", "must name the tenant"),
            ("https://manage.auth0.com/dashboard/us/acme/", "acme.us.auth0.com or acme.auth0.com"),
            ("https://kc.example/admin/master/console/", "the realm's name"),
            ("https://acme.auth.eu-west-1.amazoncognito.com/login", "user pool's id"),
            ("https://console.pingone.com/index.html?env=x", "OIDC Discovery Endpoint"),
        ] {
            let error = read(entered).expect_err(entered);
            assert!(error.starts_with("must ") && error.contains(words), "{entered}: {error}");
        }
        // The rules of all URLs refuse these; a secret is not quoted.
        for entered in [
            "",
            "ftp://nowhere",
            "https://user:CANARY@idp.example/login",
            "https://a\\@b/",
            "https://a b/",
        ] {
            let found = read(entered).unwrap_or_else(|error| panic!("{entered}: {error}"));
            assert_eq!(found.form, Document, "{entered}");
        }
    }
}
