//! The logout at an IdP: RP-initiated (OpenID Connect RP-Initiated Logout 1.0), or a product's own.
//! Used by logins and by the check of the logout.

use url::Url;

use crate::model::connection::LogoutStyle;
use crate::oidc::idps::{auth0, cognito, okta};
use crate::oidc::provider::with_parameters;

/// What a logout URL is made from.
pub(in crate::oidc) struct Logout<'a> {
    pub(in crate::oidc) style: LogoutStyle,
    pub(in crate::oidc) issuer: &'a str,
    pub(in crate::oidc) authorization: &'a Url,
    pub(in crate::oidc) end_session: Option<&'a Url>,
}

/// Which logout an IdP has.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::oidc) enum LogoutKind<'a> {
    RpInitiated(&'a Url),
    /// At the issuer.
    Auth0(Url),
    /// At the host of this authorization endpoint.
    Cognito(&'a Url),
}

/// Where the browser comes back to, and with what.
pub(in crate::oidc) struct LogoutParameters<'a> {
    pub(in crate::oidc) client_id: &'a str,
    pub(in crate::oidc) post_logout_redirect_uri: &'a str,
    pub(in crate::oidc) id_token_hint: Option<&'a str>,
    pub(in crate::oidc) state: Option<&'a str>,
}

impl<'a> Logout<'a> {
    /// `None`: the IdP has no logout, or the connection doesn't use it.
    pub(in crate::oidc) fn kind(&self) -> Option<LogoutKind<'a>> {
        let standard = || self.end_session.map(LogoutKind::RpInitiated);
        let issuer = || Url::parse(self.issuer).ok();
        let cognito = || Some(LogoutKind::Cognito(self.authorization));
        let is_cognito = || {
            cognito::is_at(self.authorization) || issuer().is_some_and(|url| cognito::is_at(&url))
        };
        match self.style {
            LogoutStyle::RpInitiated => standard(),
            LogoutStyle::Auth0V2 => issuer().map(LogoutKind::Auth0),
            LogoutStyle::Cognito => cognito(),
            LogoutStyle::None => None,
            // Cognito advertises its own logout as if it were the standard's.
            LogoutStyle::Auto if is_cognito() => cognito(),
            LogoutStyle::Auto => {
                standard().or_else(|| issuer().filter(auth0::is_at).map(LogoutKind::Auth0))
            }
        }
    }
}

impl LogoutKind<'_> {
    /// Whether the IdP refuses a logout without the session's ID token.
    pub(in crate::oidc) fn requires_id_token_hint(&self) -> bool {
        matches!(self, Self::RpInitiated(endpoint) if okta::requires_id_token_hint(endpoint))
    }

    pub(in crate::oidc) fn url(&self, parameters: &LogoutParameters<'_>) -> Url {
        let LogoutParameters { client_id, post_logout_redirect_uri: return_to, .. } = *parameters;
        match self {
            Self::Auth0(issuer) => auth0::logout_url(issuer, client_id, return_to),
            Self::Cognito(authorization) => {
                cognito::logout_url(authorization, client_id, return_to)
            }
            Self::RpInitiated(endpoint) => {
                let hint = parameters.id_token_hint;
                let fits = |hint: &&str| hint.len() <= MAX_HINT || self.requires_id_token_hint();
                let hint = hint.filter(fits).map(|hint| ("id_token_hint", hint));
                let state = parameters.state.map(|state| ("state", state));
                let always = [("client_id", client_id), ("post_logout_redirect_uri", return_to)];
                let sent = hint.into_iter().chain(always).chain(state);
                with_parameters(without_our_parameters(endpoint), sent)
            }
        }
    }
}

/// The endpoint without parameters of the request in its own query, which would be there twice.
fn without_our_parameters(endpoint: &Url) -> Url {
    let is_ours = |name: &str| OUR_PARAMETERS.contains(&name);
    let mut url = endpoint.clone();
    if endpoint.query_pairs().any(|(name, _)| is_ours(&name)) {
        let others = endpoint.query_pairs().filter(|(name, _)| !is_ours(name));
        url.query_pairs_mut().clear().extend_pairs(others);
    }
    url
}

const OUR_PARAMETERS: [&str; 4] =
    ["id_token_hint", "client_id", "post_logout_redirect_uri", "state"];
/// Bytes of an `id_token_hint`. It is optional at most IdPs, and servers refuse long URLs (HTTP 414,
/// 431): with its hint left out, a logout asks the person at worst.
const MAX_HINT: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_style_and_the_product_decide_the_logout() {
        use LogoutStyle::{Auth0V2, Auto, Cognito, None as Off, RpInitiated};
        let (auth0, aws) = ("https://a.auth0.com/", "https://cognito-idp.eu-1.amazonaws.com/p");
        let (other, rp) = ("https://idp.example", Some("https://idp.example/end?t=1"));
        let standard = "https://idp.example/end?t=1&client_id=c&post_logout_redirect_uri=r";
        let at_auth0 = "https://a.auth0.com/v2/logout?client_id=c&returnTo=r";
        let at_cognito = "https://login.example/logout?client_id=c&logout_uri=r";
        for (style, issuer, end_session, expected) in [
            (Auto, other, rp, Some(standard)),
            (Auto, other, None, None),
            (Auto, auth0, rp, Some(standard)),
            (Auto, auth0, None, Some(at_auth0)),
            (Auto, aws, rp, Some(at_cognito)),
            (RpInitiated, aws, rp, Some(standard)),
            (RpInitiated, auth0, None, None),
            (Auth0V2, auth0, rp, Some(at_auth0)),
            (Cognito, other, None, Some(at_cognito)),
            (Off, other, rp, None),
        ] {
            let authorization = Url::parse("https://login.example/authorize?x=1").expect("a URL");
            let end_session = end_session.map(|url| Url::parse(url).expect("a URL"));
            let end_session = end_session.as_ref();
            let logout = Logout { style, issuer, authorization: &authorization, end_session };
            let parameters = LogoutParameters {
                client_id: "c",
                post_logout_redirect_uri: "r",
                id_token_hint: None,
                state: None,
            };
            let url = logout.kind().map(|kind| String::from(kind.url(&parameters)));
            assert_eq!(url.as_deref(), expected, "{style:?} at {issuer}");
        }
    }

    fn logout(endpoint: &str, hint: &str) -> String {
        let endpoint = Url::parse(endpoint).expect("a URL");
        let parameters = LogoutParameters {
            client_id: "a b",
            post_logout_redirect_uri: "r",
            id_token_hint: Some(hint),
            state: Some("s"),
        };
        LogoutKind::RpInitiated(&endpoint).url(&parameters).into()
    }

    #[test]
    fn parameters_of_the_endpoint_are_replaced_by_ours() {
        let sent = "id_token_hint=h&client_id=a%20b&post_logout_redirect_uri=r&state=s";
        for (query, kept) in [
            ("", ""),
            ("?t=a+b", "t=a+b&"),
            ("?client_id=x&t=1&state=y&post_logout_redirect_uri=z&id_token_hint=w", "t=1&"),
        ] {
            let url = logout(&format!("https://idp.example/end{query}"), "h");
            assert_eq!(url, format!("https://idp.example/end?{kept}{sent}"));
        }
    }

    #[test]
    fn a_long_hint_is_left_out_unless_the_idp_requires_it() {
        let (fits, long) = ("x".repeat(MAX_HINT), "x".repeat(MAX_HINT + 1));
        let (standard, okta) = ("https://idp.example/end", "https://idp.example/oauth2/v1/logout");
        for (endpoint, hint, is_sent) in
            [(standard, &fits, true), (standard, &long, false), (okta, &long, true)]
        {
            assert_eq!(logout(endpoint, hint).contains("id_token_hint"), is_sent, "{endpoint}");
        }
    }
}
