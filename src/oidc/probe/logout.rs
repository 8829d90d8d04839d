//! The logout: does the IdP have one that this service can use? Decided by the code of a login's
//! logout.

use super::{Known, Run, Verdict};
use crate::model::check::CheckId;
use crate::model::connection::LogoutStyle;
use crate::oidc::http::host_of;
use crate::oidc::provider::logout::{Logout, LogoutKind};

impl Run<'_, '_> {
    pub(super) fn logout(&mut self, known: &Known) {
        let style = self.probe.connection.settings.logout_style;
        let kind = known.authorization.as_ref().and_then(|authorization| {
            let (issuer, end_session) = (known.issuer.as_str(), known.end_session.as_ref());
            Logout { style, issuer, authorization, end_session }.kind()
        });
        let verdict = match kind {
            _ if style == LogoutStyle::None => {
                Verdict::pass("logout at the IdP is switched off for this connection")
            }
            Some(LogoutKind::RpInitiated(url)) => {
                Verdict::pass(format!("the IdP has an end_session_endpoint at {}", host_of(url)))
            }
            Some(LogoutKind::Auth0(_)) => Verdict::pass("Auth0's own logout is used"),
            Some(LogoutKind::Cognito(_)) => Verdict::pass("Cognito's own logout is used"),
            None => Verdict::warn(
                "the IdP has no end_session_endpoint, so a logout ends the session at PeerPanda only",
            ),
        };
        let expected = "users can be logged out at the IdP as well";
        self.report(CheckId::LogoutEndpoint, expected, verdict);
    }
}
