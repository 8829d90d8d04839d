//! Which URLs can be an IdP's endpoints; used for what support enters and for what a metadata document
//! names.

use url::Url;

use super::address::AddressPolicy;
use super::text::quotable;

/// Why a URL can't be an IdP's endpoint; used for what support enters and for what a metadata document names.
///
/// # Errors
/// What was expected; `true` beside it: it is an address that the service must not call.
pub fn check_endpoint_url(text: &str, policy: &AddressPolicy) -> Result<Url, (String, bool)> {
    if text.len() > MAX_URL_LEN {
        return Err((format!("must be at most {MAX_URL_LEN} bytes"), false));
    }
    // What URL parsers mend, and not all alike: one of them would see another host than this one.
    if text.contains(|c: char| c == '\\' || c.is_whitespace() || c.is_control()) {
        return Err((
            "must not hold backslashes, white space or control characters".to_owned(),
            false,
        ));
    }
    let url = Url::parse(text).map_err(|error| {
        (format!("must be an absolute URL ({error}): {:?}", quotable(text)), false)
    })?;
    let shown = quotable(text);
    match url.scheme() {
        "https" => {}
        "http" if policy.allow_insecure => {}
        _ => return Err((format!("must be https: {shown:?}"), false)),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(("must not hold a user name or password".to_owned(), false));
    }
    if url.fragment().is_some() {
        return Err((format!("must not have a fragment: {shown:?}"), false));
    }
    if url.port() == Some(0) {
        return Err((format!("must not have port 0: {shown:?}"), false));
    }
    if let Some(kind) = policy.forbidden_host(&url) {
        return Err((
            format!("must be an address of the public internet, not a {kind} one: {shown:?}"),
            true,
        ));
    }
    Ok(url)
}

/// A parameter in an authorization endpoint's own query that would stand beside one of the protocol's.
#[must_use]
pub fn smuggled_parameter(authorization_endpoint: &Url) -> Option<String> {
    authorization_endpoint
        .query_pairs()
        .map(|(name, _)| name.into_owned())
        .find(|name| is_reserved_parameter(name))
}

/// Parameters of the authorization request that only the protocol sets. Names compare without case, since some IdPs do.
pub(super) fn is_reserved_parameter(name: &str) -> bool {
    RESERVED_PARAMETERS.iter().any(|reserved| name.eq_ignore_ascii_case(reserved))
}

/// OIDC Discovery 4.
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
    fn an_authorization_endpoint_smuggles_no_parameter() {
        let url = Url::parse(
            "https://idp.example.com/authorize?tenant=1&REDIRECT_URI=https%3A%2F%2Fevil",
        )
        .expect("a URL");
        assert_eq!(smuggled_parameter(&url).as_deref(), Some("REDIRECT_URI"));
    }
}
