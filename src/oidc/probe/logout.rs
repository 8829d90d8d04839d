//! The logout: does the IdP have one that this service can use, and does it send people back to us? An
//! IdP that refuses an unregistered URI, and not ours, has ours registered. The URLs are those of a
//! login's logout, without a session that they could end.

use http::StatusCode;
use url::Url;

use super::browse::{Cookies, Step, is_at, parameter};
use super::{Known, NoAnswer, Run, Verdict};
use crate::model::check::{CheckId, CheckOutcome};
use crate::model::connection::LogoutStyle;
use crate::oidc::http::host_of;
use crate::oidc::provider::logout::{Logout, LogoutKind, LogoutParameters};

const ID: CheckId = CheckId::LogoutEndpoint;

/// How the IdP answers a logout that is to come back somewhere.
enum Answer {
    /// It sends the browser there.
    SentBack,
    /// It shows something else, or asks first.
    Page(u16),
    /// It refuses, in these words.
    Refused(String),
    /// It is out of order.
    Outage,
}

impl Run<'_, '_> {
    pub(super) async fn logout(&mut self, known: &Known) {
        let Some(authorization) = &known.authorization else { return };
        let style = self.probe.connection.settings.logout_style;
        if style == LogoutStyle::None {
            return self.skip(ID, "logout at the IdP is switched off for this connection");
        }
        let (issuer, end_session) = (known.issuer.as_str(), known.end_session.as_ref());
        let Some(kind) = (Logout { style, issuer, authorization, end_session }).kind() else {
            return self
                .skip(ID, "the IdP has no logout, so a logout ends the session at PeerPanda only");
        };
        let place = match &kind {
            LogoutKind::RpInitiated(url) => {
                format!("the IdP has an end_session_endpoint at {}", host_of(url))
            }
            LogoutKind::Auth0(_) => "Auth0's own logout is used".to_owned(),
            LogoutKind::Cognito(_) => "Cognito's own logout is used".to_owned(),
        };
        let expected = format!(
            "users can be logged out at the IdP as well, and come back to {}",
            self.probe.post_logout_redirect_uri
        );
        let verdict = if kind.requires_id_token_hint() {
            Verdict::inconclusive(format!(
                "{place}, which demands the ID token of a login, so only a person's logout can prove it"
            ))
        } else {
            self.compare_logouts(&kind, &place).await.unwrap_or_else(|why| match why {
                // The browser, and not this service, must reach it.
                NoAnswer::Call(error) => {
                    Verdict::inconclusive(format!("{place}: {}", self.redact(&error.to_string())))
                }
                NoAnswer::Silent(id) => Verdict::depends_on(id),
                NoAnswer::Spent => Verdict::inconclusive(super::SPENT),
            })
        };
        // An IdP that doesn't know the client refuses every URI of it, and that is the finding.
        let verdict = match self.outcomes.get(&CheckId::ClientId) {
            None if verdict.is(CheckOutcome::Fail) => {
                Verdict::depends_on(CheckId::ClientCredentials)
            }
            Some(CheckOutcome::Fail) => Verdict::depends_on(CheckId::ClientId),
            Some(_) | None => verdict,
        };
        self.report(ID, expected, verdict);
    }

    async fn compare_logouts(
        &mut self,
        kind: &LogoutKind<'_>,
        place: &str,
    ) -> Result<Verdict, NoAnswer> {
        let uri = self.probe.post_logout_redirect_uri;
        let control_uri = self.unregistered(uri);
        let ours = self.log_out(self.logout_url(kind, uri), uri).await?;
        let control = self.log_out(self.logout_url(kind, &control_uri), &control_uri).await?;
        Ok(match (ours, control) {
            (Answer::SentBack, Answer::Refused(said)) => Verdict::pass(format!(
                "{place}, which sends people back to us, and refuses an unregistered URI ({said})"
            )),
            (Answer::SentBack, Answer::Page(status)) => Verdict::pass(format!(
                "{place}, which sends people back to us, and for an unregistered URI shows a page (HTTP \
                 {status})"
            )),
            (Answer::Page(status), Answer::Refused(said)) => Verdict::pass(format!(
                "{place}, which accepts our URI (HTTP {status}), and refuses an unregistered one ({said})"
            )),
            (Answer::Refused(said), Answer::Refused(_)) => {
                let without = self.log_out(without(&self.logout_url(kind, uri), uri), uri).await?;
                let is_refused = matches!(without, Answer::Refused(_) | Answer::Outage);
                if !is_refused && is_about_the_uri(&said) {
                    Verdict::fail(format!(
                        "{place}, which refuses our URI as it refuses an unregistered one, and not a logout \
                         without a URI: {said}"
                    ))
                    .for_idp_admin(format!(
                        "add {uri} exactly as written, with the slash at the end, to the client's \
                         post-logout redirect URIs"
                    ))
                } else {
                    Verdict::inconclusive(format!(
                        "{place}, which refuses both our URI and an unregistered one without the ID token of \
                         a login ({said}), so only a person's logout can prove it"
                    ))
                }
            }
            (
                Answer::SentBack | Answer::Page(_) | Answer::Refused(_) | Answer::Outage,
                Answer::SentBack | Answer::Page(_) | Answer::Refused(_) | Answer::Outage,
            ) => Verdict::inconclusive(format!(
                "{place}, which does not tell our URI from an unregistered one, so only a person's logout can \
                 prove it"
            )),
        })
    }

    fn logout_url(&self, kind: &LogoutKind<'_>, post_logout_redirect_uri: &str) -> Url {
        let client_id = &self.probe.connection.settings.client_id;
        kind.url(&LogoutParameters {
            client_id,
            post_logout_redirect_uri,
            id_token_hint: None,
            state: None,
        })
    }

    /// Follows no redirect, since what is there is the person's.
    async fn log_out(&mut self, url: Url, back_to: &str) -> Result<Answer, NoAnswer> {
        Ok(match self.step(ID, &url, &mut Cookies::default()).await? {
            Step::Redirect(target) if is_at(&target, back_to) => Answer::SentBack,
            Step::Redirect(target) => match parameter(&target, "error") {
                None => Answer::Page(StatusCode::FOUND.as_u16()),
                Some(error) => {
                    let description = parameter(&target, "error_description").unwrap_or_default();
                    Answer::Refused(self.redact(&format!("{error} {description}")))
                }
            },
            Step::Page(page) if page.is_outage() => Answer::Outage,
            Step::Page(page) => match page.refused() {
                None => Answer::Page(page.status.as_u16()),
                Some(_) => Answer::Refused(self.redact(&format!(
                    "HTTP {}: {}",
                    page.status.as_u16(),
                    page.text
                ))),
            },
        })
    }
}

/// The same logout without the URI to come back to.
fn without(url: &Url, uri: &str) -> Url {
    let mut rest = url.clone();
    let others = url.query_pairs().filter(|(_, value)| value != uri);
    rest.query_pairs_mut().clear().extend_pairs(others);
    rest
}

/// Whether a refusal is about the URI, and not for want of an ID token.
fn is_about_the_uri(said: &str) -> bool {
    let said = said.to_ascii_lowercase();
    said.contains("redirect") && !said.contains("id_token_hint")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keycloak, oidc-provider, django-oauth-toolkit; Hydra refuses every URI without an ID token.
    #[test]
    fn a_refusal_for_want_of_an_id_token_says_nothing_of_the_uri() {
        for (said, expected) in [
            ("HTTP 400: customer We are sorry... Invalid redirect uri", true),
            ("HTTP 400: oops! invalid_request post_logout_redirect_uri not registered", true),
            (
                "HTTP 400: Error: invalid_request This client does not have this redirect uri registered.",
                true,
            ),
            ("invalid_request post_logout_redirect_uri is set but id_token_hint is missing", false),
            ("HTTP 404: Not Found", false),
        ] {
            assert_eq!(is_about_the_uri(said), expected, "{said}");
        }
    }

    #[test]
    fn a_logout_without_a_uri_keeps_the_rest() {
        let url = Url::parse(
            "https://idp.example/end?t=1&client_id=c&post_logout_redirect_uri=https%3A%2F%2Fa%2F",
        );
        let rest = without(&url.expect("a URL"), "https://a/");
        assert_eq!(rest.as_str(), "https://idp.example/end?t=1&client_id=c");
    }
}
