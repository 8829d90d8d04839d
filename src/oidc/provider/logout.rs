//! The logout at an IdP: RP-initiated (OpenID Connect RP-Initiated Logout 1.0), or a product's own.
//! Used by logins and by the check of the logout.

use url::Url;

use crate::model::connection::LogoutStyle;
use crate::oidc::idps::{auth0, cognito, okta};

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
pub(super) struct LogoutParameters<'a> {
    pub(super) client_id: &'a str,
    pub(super) post_logout_redirect_uri: &'a str,
    pub(super) id_token_hint: Option<&'a str>,
    pub(super) state: Option<&'a str>,
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
    pub(super) fn requires_id_token_hint(&self) -> bool {
        matches!(self, Self::RpInitiated(endpoint) if okta::requires_id_token_hint(endpoint))
    }

    pub(super) fn url(&self, parameters: &LogoutParameters<'_>) -> Url {
        let LogoutParameters { client_id, post_logout_redirect_uri: return_to, .. } = *parameters;
        match self {
            Self::Auth0(issuer) => auth0::logout_url(issuer, client_id, return_to),
            Self::Cognito(authorization) => {
                cognito::logout_url(authorization, client_id, return_to)
            }
            Self::RpInitiated(endpoint) => {
                let mut url = (*endpoint).clone();
                let hint = parameters.id_token_hint.map(|hint| ("id_token_hint", hint));
                let state = parameters.state.map(|state| ("state", state));
                let always = [("client_id", client_id), ("post_logout_redirect_uri", return_to)];
                url.query_pairs_mut().extend_pairs(hint.into_iter().chain(always).chain(state));
                url
            }
        }
    }
}

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
}
