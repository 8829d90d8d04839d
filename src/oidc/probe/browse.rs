//! What a browser without a session would meet at an IdP: cookies, redirects and pages, up to our
//! callback, which is never called. Redirects are followed here only, each under the address
//! policy.

use std::collections::HashMap;

use http::header::{ACCEPT, COOKIE, LOCATION, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use hyper::body::Bytes;
use url::{Url, form_urlencoded};

use super::Run;
use crate::model::endpoint_url::check_endpoint_url;
use crate::oidc::error::{CallError, Defect};
use crate::oidc::http::host_of;
use crate::oidc::idps::{Refuses, known_error, scripted_errors};
use crate::oidc::metadata::MAX_DOCUMENT;

/// Where browsing ends.
pub(super) enum End {
    /// At our callback.
    Callback { error: Option<String> },
    /// At a page.
    Page { status: StatusCode, text: String },
    /// Not within the redirects or requests that a check makes.
    TooManyRedirects,
}

impl Run<'_, '_> {
    /// Browses from `url` until the callback `redirect_uri`, or until a page.
    pub(super) async fn browse(&mut self, url: Url, redirect_uri: &str) -> Result<End, CallError> {
        let mut cookies = Cookies::default();
        let mut url = url;
        for _ in 0..=MAX_REDIRECTS {
            let Some(left) = self.requests_left.checked_sub(1) else { break };
            self.requests_left = left;
            let mut request = Request::get(url.as_str()).header(ACCEPT, "text/html");
            if let Some(cookie) = cookies.header(&url) {
                request = request.header(COOKIE, cookie);
            }
            let unusable = |defect| CallError::Unusable { host: host_of(&url), defect };
            let request = request.body(Bytes::new()).map_err(|_| unusable(Defect::Url))?;
            let answer = self.probe.http.send_raw(request, MAX_DOCUMENT).await?;
            cookies.keep(&url, &answer.headers);
            if !answer.status.is_redirection() {
                return Ok(End::Page { status: answer.status, text: visible_text(&answer.body) });
            }
            let location = answer.header(LOCATION).unwrap_or_default();
            let redirect = |target: &str| {
                let (status, target) = (answer.status.as_u16(), target.to_owned());
                unusable(Defect::Redirect { status, target })
            };
            let target = url.join(location).map_err(|_| redirect("an invalid URL"))?;
            if is_at(&target, redirect_uri) {
                return Ok(End::Callback { error: error_in(&target) });
            }
            if target.origin().ascii_serialization() == self.probe.public_origin {
                // A page of ours too, so it is not called.
                let text = "a redirect to another of our pages".to_owned();
                return Ok(End::Page { status: answer.status, text });
            }
            check_endpoint_url(target.as_str(), self.probe.http.addresses())
                .map_err(|_| redirect(&format!("{}, which is not allowed", host_of(&target))))?;
            url = target;
        }
        Ok(End::TooManyRedirects)
    }
}

/// Cookies by host, without their attributes: a check is over before one expires.
#[derive(Default)]
struct Cookies(HashMap<String, Vec<(String, String)>>);

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
fn is_at(target: &Url, redirect_uri: &str) -> bool {
    let mut bare = target.clone();
    bare.set_query(None);
    bare.set_fragment(None);
    bare.as_str() == redirect_uri
}

/// The `error` of a callback, in its query or, by mistake of the IdP, in its fragment.
fn error_in(target: &Url) -> Option<String> {
    let in_fragment = form_urlencoded::parse(target.fragment().unwrap_or_default().as_bytes());
    let mut pairs = target.query_pairs().chain(in_fragment);
    let error = pairs.find(|(name, _)| name == "error")?.1.into_owned();
    (!error.is_empty()).then_some(error)
}

/// Whether a page refuses the request: by its status, or by an error that products show on pages
/// with status 200. HTTP 429 and server errors refuse nothing.
pub(super) fn is_error_page(status: StatusCode, text: &str) -> bool {
    let is_known = known_error(text).is_some_and(|error| error.refuses != Refuses::Login);
    is_known || status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS
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

    #[test]
    fn a_page_refuses_by_its_status_or_by_a_known_error() {
        for (status, text, expected) in [
            (StatusCode::BAD_REQUEST, "", true),
            (StatusCode::OK, "Error 400: redirect_uri_mismatch", true),
            (StatusCode::OK, "AADSTS700016: no such application", true),
            (StatusCode::OK, "AADSTS50105: not assigned", false),
            (StatusCode::OK, "Log in", false),
            (StatusCode::TOO_MANY_REQUESTS, "", false),
            (StatusCode::SERVICE_UNAVAILABLE, "", false),
        ] {
            assert_eq!(is_error_page(status, text), expected, "{status} {text}");
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
        let error = |end: &str| error_in(&Url::parse(&format!("{ours}{end}")).expect("a URL"));
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
