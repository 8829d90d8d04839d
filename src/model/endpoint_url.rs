//! Which URLs may be an endpoint of an IdP: used for what support enters and for what a metadata
//! document names. Pure: resolves no name and calls nothing.

use url::Url;

use super::address::AddressPolicy;
use super::text::{hidden_character, quotable};

/// Why a URL can't be an endpoint of an IdP. The text completes a sentence about the URL: "must be …".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointUrlError {
    /// It breaks a rule for the form of endpoint URLs.
    #[error("{0}")]
    Malformed(String),
    /// Its host is an address that the service must not call.
    #[error("must be an address of the public internet, not a {kind} one: {url:?}")]
    ForbiddenAddress {
        /// The kind of address: private, loopback, ….
        kind: &'static str,
        /// The URL, shortened for a message.
        url: String,
    },
}

/// Parses a URL that the service may call as an endpoint of an IdP.
///
/// # Errors
/// See [`EndpointUrlError`].
pub fn check_endpoint_url(text: &str, policy: &AddressPolicy) -> Result<Url, EndpointUrlError> {
    let malformed = |rule: String| Err(EndpointUrlError::Malformed(rule));
    if text.len() > MAX_URL_LEN {
        return malformed(format!("must be at most {MAX_URL_LEN} bytes"));
    }
    // URL parsers correct these, each in its own way: another parser could see another host.
    if text.contains(|c: char| c == '\\' || c.is_whitespace() || c.is_control()) {
        return malformed(
            "must not have backslashes, white space or control characters".to_owned(),
        );
    }
    if let Some(hidden) = hidden_character(text) {
        return malformed(format!("must not have invisible characters: {hidden}"));
    }
    let quoted = quotable(text);
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(error) => return malformed(format!("must be an absolute URL ({error}): {quoted:?}")),
    };
    match url.scheme() {
        "https" => {}
        "http" if policy.allow_insecure => {}
        _ => return malformed(format!("must be https: {quoted:?}")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return malformed("must not have a user name or password".to_owned());
    }
    if url.fragment().is_some() {
        return malformed(format!("must not have a fragment: {quoted:?}"));
    }
    if url.port() == Some(0) {
        return malformed(format!("must not have port 0: {quoted:?}"));
    }
    match policy.forbidden_host(&url) {
        Some(kind) => Err(EndpointUrlError::ForbiddenAddress { kind, url: quoted }),
        None => Ok(url),
    }
}

/// The name of a parameter in the authorization endpoint's own query that would repeat one of the
/// protocol's parameters.
#[must_use]
pub fn smuggled_parameter(authorization_endpoint: &Url) -> Option<String> {
    authorization_endpoint
        .query_pairs()
        .map(|(name, _)| name.into_owned())
        .find(|name| is_reserved_parameter(name))
}

/// Whether only the protocol may set this parameter of the authorization request. Compared without
/// case, as some IdPs do.
pub(super) fn is_reserved_parameter(name: &str) -> bool {
    RESERVED_PARAMETERS.iter().any(|reserved| name.eq_ignore_ascii_case(reserved))
}

/// The path of a metadata document below its issuer (OIDC Discovery 4).
pub const WELL_KNOWN: &str = "/.well-known/openid-configuration";

const MAX_URL_LEN: usize = 2048;
const RESERVED_PARAMETERS: [&str; 20] = [
    "response_type",
    "response_mode",
    "client_id",
    "client_secret",
    "redirect_uri",
    "scope",
    "state",
    "nonce",
    "code",
    "code_challenge",
    "code_challenge_method",
    "code_verifier",
    "request",
    "request_uri",
    "registration",
    "id_token_hint",
    "login_hint",
    "prompt",
    "max_age",
    "iss",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_https_url_of_a_public_host() {
        let policy = AddressPolicy::default();
        let long = format!("https://idp.example.com/{}", "x".repeat(MAX_URL_LEN));
        for (text, rule) in [
            ("", "must be an absolute URL"),
            ("/token", "must be an absolute URL"),
            ("http://idp.example.com/", "must be https"),
            ("ftp://idp.example.com/", "must be https"),
            ("https://idp.example.com\\@evil.example/", "must not have backslashes"),
            ("https://idp.example.com/ x", "must not have backslashes"),
            ("https://idp.exam\u{200b}ple.com/", "must not have invisible characters: U+200B"),
            ("https://user:CANARY@idp.example.com/", "must not have a user name"),
            ("https://idp.example.com/#x", "must not have a fragment"),
            ("https://idp.example.com:0/", "must not have port 0"),
            (&long, "must be at most 2048 bytes"),
        ] {
            let error = check_endpoint_url(text, &policy).expect_err(text);
            assert!(matches!(error, EndpointUrlError::Malformed(_)), "{error}");
            let shown = error.to_string();
            assert!(shown.starts_with(rule) && !shown.contains("CANARY"), "{text:?}: {shown}");
        }
        let private = check_endpoint_url("https://10.0.0.1/token", &policy).expect_err("refused");
        assert!(matches!(private, EndpointUrlError::ForbiddenAddress { kind: "private", .. }));
        check_endpoint_url("https://idp.example.com:8443/token?tenant=1", &policy).expect("passes");
        let insecure = AddressPolicy { allow_insecure: true, ..AddressPolicy::default() };
        check_endpoint_url("http://127.0.0.1:1/token", &insecure).expect("passes");
    }

    #[test]
    fn an_authorization_endpoint_smuggles_no_parameter() {
        let url = |query| Url::parse(&format!("https://idp.example.com/authorize?{query}"));
        let smuggled = |query| smuggled_parameter(&url(query).expect("a URL"));
        let attack = "tenant=1&REDIRECT_URI=https%3A%2F%2Fevil";
        assert_eq!(smuggled(attack).as_deref(), Some("REDIRECT_URI"));
        assert_eq!(smuggled("tenant=1&p=signin"), None);
    }
}
