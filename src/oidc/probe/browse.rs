//! What a browser without a session would meet at an IdP: cookies, redirects and pages, up to our
//! callback, which is never called. Redirects are followed here only, each under the address
//! policy.

use std::collections::HashMap;

use http::header::{ACCEPT, COOKIE, LOCATION, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use hyper::body::Bytes;
use url::{Url, form_urlencoded};

use super::{NoAnswer, Run};
use crate::model::check::CheckId;
use crate::model::endpoint_url::check_endpoint_url;
use crate::oidc::error::{CallError, Defect};
use crate::oidc::http::host_of;
use crate::oidc::idps::{Refuses, known_error, scripted_errors};
use crate::oidc::metadata::MAX_DOCUMENT;

/// Where browsing ends.
pub(super) enum End {
    /// At our callback.
    Callback(Callback),
    /// At a page.
    Page(Page),
    /// Not within the redirects or requests that a check makes.
    TooManyRedirects,
}

/// What an IdP sends to our callback, which is not called.
pub(super) struct Callback {
    pub(super) error: Option<String>,
    pub(super) description: Option<String>,
}

/// A page that a browser shows.
pub(super) struct Page {
    pub(super) status: StatusCode,
    /// What a person reads, after the error that its URL names.
    pub(super) text: String,
    /// The OAuth error in its URL: some IdPs have a page of their own for all errors.
    pub(super) error: Option<String>,
}

/// What an error page refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Client,
    RedirectUri,
    /// A request that was not pushed (RFC 9126).
    Par,
    Scope,
    /// The page doesn't say.
    Unclear,
}

/// One step of a browser.
pub(super) enum Step {
    /// To this URL, which the address policy has not seen.
    Redirect(Url),
    Page(Page),
}

impl Run<'_, '_> {
    /// Browses from `url` until the callback `redirect_uri`, or until a page. Leaves `reserve` requests
    /// for what comes after.
    pub(super) async fn browse(
        &mut self,
        id: CheckId,
        url: Url,
        redirect_uri: &str,
        reserve: usize,
    ) -> Result<End, NoAnswer> {
        let mut cookies = Cookies::default();
        let mut url = url;
        for _ in 0..=MAX_REDIRECTS {
            if self.requests_left <= reserve {
                break;
            }
            let target = match self.step(id, &url, &mut cookies).await? {
                Step::Redirect(target) => target,
                Step::Page(page) => return Ok(End::Page(page)),
            };
            if is_at(&target, redirect_uri) {
                let (error, description) =
                    (parameter(&target, "error"), parameter(&target, "error_description"));
                return Ok(End::Callback(Callback { error, description }));
            }
            if target.origin().ascii_serialization() == self.probe.public_origin {
                // A page of ours too, so it is not called.
                let text = "a redirect to another of our pages".to_owned();
                return Ok(End::Page(Page { status: StatusCode::FOUND, text, error: None }));
            }
            check_endpoint_url(target.as_str(), self.probe.http.addresses()).map_err(|_| {
                let target = format!("{}, which is not allowed", host_of(&target));
                unusable(&url, Defect::Redirect { status: 302, target })
            })?;
            url = target;
        }
        Ok(End::TooManyRedirects)
    }

    /// Fetches one page as a browser does.
    pub(super) async fn step(
        &mut self,
        id: CheckId,
        url: &Url,
        cookies: &mut Cookies,
    ) -> Result<Step, NoAnswer> {
        let mut request = Request::get(url.as_str()).header(ACCEPT, "text/html");
        if let Some(cookie) = cookies.header(url) {
            request = request.header(COOKIE, cookie);
        }
        let request = request.body(Bytes::new()).map_err(|_| unusable(url, Defect::Url))?;
        let answer = self.send(id, url, request, MAX_DOCUMENT, true).await?;
        cookies.keep(url, &answer.headers);
        if answer.status.is_redirection() {
            let location = answer.header(LOCATION).unwrap_or_default();
            let status = answer.status.as_u16();
            let target = "an invalid URL".to_owned();
            let target = url
                .join(location)
                .map_err(|_| unusable(url, Defect::Redirect { status, target }))?;
            return Ok(Step::Redirect(target));
        }
        let (error, description) = (parameter(url, "error"), parameter(url, "error_description"));
        let named = [error.clone(), description].into_iter().flatten();
        let text: Vec<String> = named.chain([visible_text(&answer.body)]).collect();
        Ok(Step::Page(Page { status: answer.status, text: text.join(" "), error }))
    }
}

impl Page {
    /// Whether it is for want of an answer. It refuses nothing: neither HTTP 429 nor a server error does,
    /// unless it names an OAuth error, since some IdPs show those with HTTP 500.
    pub(super) fn is_outage(&self) -> bool {
        self.status == StatusCode::TOO_MANY_REQUESTS
            || self.status.is_server_error() && self.error.is_none() && !self.names_oauth_error()
    }

    fn names_oauth_error(&self) -> bool {
        OAUTH_ERRORS.iter().any(|error| self.text.contains(error))
    }

    /// What the page refuses: by its status, by the error in its URL, or by an error that products show
    /// on pages with status 200. `None`: it isn't an error page, or is about one login only.
    pub(super) fn refused(&self) -> Option<Refused> {
        let known = known_error(&self.text).map(|error| error.refuses);
        if known == Some(Refuses::Login) && !asks_for_par(&self.text) {
            return None;
        }
        let is_error = known.is_some()
            || self.status.is_client_error()
            || self.status.is_server_error()
            || self.error.is_some();
        // An answer to prompt=none, at the wrong place.
        let is_about_login = ANSWERS_TO_NONE.iter().any(|error| self.text.contains(error));
        if !is_error || is_about_login || self.is_outage() {
            return None;
        }
        let text: String = self.text.chars().filter(|c| !matches!(c, '\'' | '"')).collect();
        let text = text.to_ascii_lowercase();
        let says = |words: &[&str]| words.iter().any(|words| text.contains(words));
        Some(match known {
            _ if asks_for_par(&text) => Refused::Par,
            Some(Refuses::Client) => Refused::Client,
            Some(Refuses::RedirectUri) => Refused::RedirectUri,
            _ if self.error.as_deref() == Some("invalid_client") => Refused::Client,
            _ if self.error.as_deref() == Some("invalid_scope") => Refused::Scope,
            _ if says(&["redirect"]) => Refused::RedirectUri,
            _ if says(&UNKNOWN_CLIENT) => Refused::Client,
            _ => Refused::Unclear,
        })
    }
}

/// Whether an IdP's words demand a pushed authorization request.
pub(super) fn asks_for_par(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["pushed authorization", "pushed_authorization"].iter().any(|words| text.contains(words))
}

fn unusable(url: &Url, defect: Defect) -> NoAnswer {
    NoAnswer::Call(CallError::Unusable { host: host_of(url), defect })
}

/// Cookies by host, without their attributes: a check is over before one expires.
#[derive(Default)]
pub(super) struct Cookies(HashMap<String, Vec<(String, String)>>);

impl Cookies {
    fn header(&self, url: &Url) -> Option<HeaderValue> {
        let cookies = self.0.get(url.host_str()?)?.iter();
        let pairs: Vec<String> = cookies.map(|(name, value)| format!("{name}={value}")).collect();
        HeaderValue::from_str(&pairs.join("; ")).ok().filter(|header| !header.is_empty())
    }

    fn keep(&mut self, url: &Url, headers: &HeaderMap) {
        let kept = self.0.entry(url.host_str().unwrap_or_default().to_owned()).or_default();
        let set = headers.get_all(SET_COOKIE).iter().filter_map(|value| value.to_str().ok());
        for cookie in set.take(MAX_COOKIES) {
            let pair = cookie.split(';').next().unwrap_or_default();
            if let Some((name, value)) = pair.split_once('=') {
                kept.retain(|(known, _)| known != name.trim());
                kept.push((name.trim().to_owned(), value.trim().to_owned()));
                kept.truncate(MAX_COOKIES);
            }
        }
    }
}

/// Whether this is our callback, whatever its query is.
pub(super) fn is_at(target: &Url, redirect_uri: &str) -> bool {
    let mut bare = target.clone();
    bare.set_query(None);
    bare.set_fragment(None);
    bare.as_str() == redirect_uri
}

/// A parameter of a callback or an error page, in its query or, by mistake of the IdP, in its fragment.
pub(super) fn parameter(target: &Url, wanted: &str) -> Option<String> {
    let in_fragment = form_urlencoded::parse(target.fragment().unwrap_or_default().as_bytes());
    let mut pairs = target.query_pairs().chain(in_fragment);
    let value = pairs.find(|(name, _)| name == wanted)?.1.into_owned();
    (!value.is_empty()).then_some(value)
}

/// The text of a page without its markup.
fn visible_text(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(MAX_PAGE)]);
    let mut out = String::new();
    // Scripts are not shown, apart from the errors that some products put there.
    for start in scripted_errors().filter_map(|prefix| text.find(prefix)) {
        let is_end = |c: &char| matches!(c, '"' | '<' | '\\' | '\n');
        out.extend(text[start..].chars().take_while(|c| !is_end(c)));
        out.push(' ');
    }
    let mut rest: &str = &text;
    while let Some(start) = rest.find('<') {
        out.push_str(&rest[..start]);
        out.push(' ');
        let tag = &rest[start..];
        // The content of these elements is not text.
        let silent = ["script", "style", "head"].into_iter().find(|name| {
            let ends =
                tag.as_bytes().get(name.len() + 1).is_none_or(|next| !next.is_ascii_alphanumeric());
            ends && tag.get(1..=name.len()).is_some_and(|own| own.eq_ignore_ascii_case(name))
        });
        let end = match silent {
            Some(name) => tag.to_ascii_lowercase().find(&format!("</{name}")),
            None => tag.find('>').map(|end| end + 1),
        };
        let Some(end) = end else { return out };
        rest = &tag[end.max(1)..];
    }
    out.push_str(rest);
    out
}

const MAX_REDIRECTS: usize = 5;
/// Cookies of one host.
const MAX_COOKIES: usize = 30;
/// Bytes of a page that are read as text.
const MAX_PAGE: usize = 64 * 1024;
/// What an IdP's error page has if it is one, also with HTTP 500.
const OAUTH_ERRORS: [&str; 5] =
    ["invalid_request", "invalid_client", "unauthorized_client", "invalid_scope", "redirect_uri"];
/// Errors of a request with `prompt=none` (OIDC Core 3.1.2.6).
const ANSWERS_TO_NONE: [&str; 4] =
    ["login_required", "interaction_required", "consent_required", "account_selection_required"];
/// What error pages say about a client id that the IdP doesn't know, in lower case and without quotation
/// marks.
const UNKNOWN_CLIENT: [&str; 12] = [
    "invalid_client",
    "invalid client",
    "unknown client",
    "client is invalid",
    "client not found",
    "client was not found",
    "client does not exist",
    "no such client",
    "invalid client_id",
    "client_id is invalid",
    "invalid value for client_id",
    "client_id parameter",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_without_its_markup() {
        let page = b"<html><head><title>x</title><style>a{}</style></head><body><h1>Error</h1><script>var s</script><p>no &amp; way</p><";
        let text = visible_text(page).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(text, "Error no &amp; way");
        let entra = br#"<html><head></head><header>Sorry</header><script>$Config={"strServiceExceptionMessage":"AADSTS50011: The redirect URI is wrong."}</script>"#;
        let text = visible_text(entra);
        assert!(
            text.starts_with("AADSTS50011: The redirect URI is wrong. ") && text.contains("Sorry"),
            "{text}"
        );
        for page in ["", "<", "<script>", "</script", "<a<b>c", "\u{fffd}<\u{fffd}>", "<style"] {
            visible_text(page.as_bytes());
        }
    }

    fn page(status: u16, text: &str) -> Page {
        let status = StatusCode::from_u16(status).expect("a status");
        Page { status, text: text.to_owned(), error: None }
    }

    #[test]
    fn a_page_refuses_by_its_status_or_by_a_known_error() {
        for (status, text, expected) in [
            (400, "", true),
            (200, "Error 400: redirect_uri_mismatch", true),
            (200, "AADSTS700016: no such application", true),
            (200, "AADSTS50105: not assigned", false),
            (200, "Log in", false),
            (429, "", false),
            (503, "", false),
            (500, "Server Error (500)", false),
            (500, "Error: invalid_request", true),
            (400, "login_required: there is no session", false),
        ] {
            assert_eq!(page(status, text).refused().is_some(), expected, "{status} {text}");
        }
        let by_url = Page { error: Some("invalid_client".to_owned()), ..page(200, "Oh no") };
        assert_eq!(by_url.refused(), Some(Refused::Client));
    }

    /// The pages of Keycloak, oidc-provider, Hydra, Dex, django-oauth-toolkit, Canaille and Okta.
    #[test]
    fn error_pages_of_real_idps_say_what_they_refuse() {
        use Refused::{Client, Par, RedirectUri, Unclear};
        for (status, text, expected) in [
            (400, "customer We are sorry... Invalid parameter: redirect_uri", RedirectUri),
            (400, "customer We are sorry... Client not found.", Client),
            (
                400,
                "oops! error : invalid_redirect_uri error_description : redirect_uri did not match any of \
                 the client's registered redirect_uris",
                RedirectUri,
            ),
            (400, "oops! error : invalid_client error_description : client is invalid", Client),
            (
                500,
                "Error: invalid_request Description: The 'redirect_uri' parameter does not match any of \
                 the OAuth 2.0 Client's pre-registered redirect urls.",
                RedirectUri,
            ),
            (
                500,
                "Error: invalid_client Description: Client authentication failed (e.g., unknown client). \
                 The requested OAuth 2.0 Client does not exist.",
                Client,
            ),
            (400, "Bad Request Unregistered redirect_uri (\"http://localhost/x/\").", RedirectUri),
            (404, "Not Found Invalid client_id (\"nobody\").", Client),
            (400, "Error: invalid_request Mismatching redirect URI.", RedirectUri),
            (400, "Error: invalid_request Invalid client_id parameter value.", Client),
            (400, "Bad request The request you made is invalid", Unclear),
            (404, "Page not found The page you are looking for does not exist", Unclear),
            (400, "The 'redirect_uri' parameter must be a Login redirect URI", RedirectUri),
            (400, "Invalid value for 'client_id' parameter.", Client),
            (400, "invalid_request: Pushed Authorization Request must be used", Par),
        ] {
            assert_eq!(page(status, text).refused(), Some(expected), "{text}");
        }
    }

    #[test]
    fn our_callback_is_recognized_whatever_its_query() {
        let ours = "https://a.example/app/accounts/oidc/acme/login/callback/";
        for (target, expected) in [
            ("https://a.example/app/accounts/oidc/acme/login/callback/?error=login_required", true),
            ("https://a.example/app/accounts/oidc/acme/login/callback/#error=x", true),
            ("https://a.example/app/accounts/oidc/acme/login/callback", false),
            ("https://b.example/app/accounts/oidc/acme/login/callback/", false),
        ] {
            assert_eq!(is_at(&Url::parse(target).expect("a URL"), ours), expected, "{target}");
        }
        let error =
            |end: &str| parameter(&Url::parse(&format!("{ours}{end}")).expect("a URL"), "error");
        assert_eq!(error("?error=login_required&state=x").as_deref(), Some("login_required"));
        assert_eq!(error("#error=unauthorized_client").as_deref(), Some("unauthorized_client"));
        assert_eq!((error("?error="), error("?code=x")), (None, None));
    }

    #[test]
    fn cookies_are_sent_to_their_own_host_only() {
        let url = |text: &str| Url::parse(text).expect("a URL");
        let set = |text| HeaderMap::from_iter([(SET_COOKIE, HeaderValue::from_static(text))]);
        let mut cookies = Cookies::default();
        cookies.keep(&url("https://a.example/x"), &set("s=1; Path=/; HttpOnly"));
        cookies.keep(&url("https://a.example/y"), &set("s=2"));
        assert_eq!(cookies.header(&url("https://a.example/")).expect("a cookie"), "s=2");
        assert_eq!(cookies.header(&url("https://b.example/")), None);
    }
}
