//! The redirect URI: an IdP that answers `prompt=none` there has it registered, if it refuses
//! another one. The request is the one of a login, with `prompt=none`.

use url::Url;

use super::browse::{End, is_error_page};
use super::{Run, Verdict};
use crate::model::cause::Cause;
use crate::model::check::CheckId;
use crate::model::login::{LoginHints, Nonce, PkceVerifier, Prompt};
use crate::oidc::error::{CallError, Defect};
use crate::oidc::http::host_of;
use crate::oidc::idps::{callback_refusal, known_error};
use crate::oidc::provider::Authorization;
use crate::oidc::provider::authorization::AuthorizationEndpoint;

impl Run<'_, '_> {
    pub(super) async fn redirect_uri(&mut self, authorization: Option<&Url>) {
        let expected = format!("{} is registered with the client", self.probe.redirect_uri);
        let verdict = match authorization {
            None => Verdict::fail("the IdP has no usable authorization_endpoint"),
            Some(authorization) => self.find_registration(authorization).await,
        };
        self.report(CheckId::ClientRedirectUri, expected, verdict);
    }

    async fn find_registration(&mut self, authorization: &Url) -> Verdict {
        let redirect_uri = self.probe.redirect_uri;
        match self.authorize(authorization, redirect_uri).await {
            Err(error) => Verdict::inconclusive(self.redact(&error.to_string())),
            Ok(End::Callback { error }) => self.answered(authorization, error).await,
            Ok(End::Page { status, text }) => {
                let status_text = status.as_u16();
                if !is_error_page(status, &text) {
                    return Verdict::inconclusive(format!(
                        "the IdP shows a page (HTTP {status_text}) where a person must continue, \
                         so only a test login can prove it"
                    ));
                }
                let meaning = known_error(&text).map(|error| error.meaning);
                let meaning = meaning.map_or_else(String::new, |meaning| format!(": {meaning}"));
                let text = self.redact(&text);
                let found =
                    format!("the IdP shows an error page (HTTP {status_text}): {text}{meaning}");
                Verdict::fail(found).for_idp_admin(self.product.register_redirect_uri(redirect_uri))
            }
            Ok(End::TooManyRedirects) => Verdict::inconclusive(
                "the IdP redirects more often than a check follows, so only a test login can prove it",
            ),
        }
    }

    /// The IdP answered at the redirect URI: does it refuse one that surely isn't registered?
    async fn answered(&mut self, authorization: &Url, error: Option<String>) -> Verdict {
        let redirect_uri = self.probe.redirect_uri;
        let unregistered = format!("{redirect_uri}unregistered-{}/", &self.random()[..8]);
        let control = self.authorize(authorization, &unregistered).await;
        let is_refused =
            matches!(&control, Ok(End::Page { status, text }) if is_error_page(*status, text));
        let said = self.redact(error.as_deref().unwrap_or("neither a code nor an error"));
        let found = format!("the IdP answers there with {said}");
        let Some(error) = error.filter(|_| is_refused) else {
            return Verdict::inconclusive(format!(
                "{found}, and does not clearly refuse an unregistered URI, so only a test login can \
                 prove it"
            ));
        };
        let refusal = callback_refusal(&error, None);
        let cause = refusal.map_or(Cause::OtherIdpError, |refusal| refusal.cause());
        match cause {
            Cause::LoginRequired
            | Cause::InteractionRequired
            | Cause::ConsentRequired
            | Cause::AccountSelectionRequired => Verdict::pass(found),
            // The URI is registered, but every login would end like this.
            Cause::UnauthorizedClient
            | Cause::UnsupportedResponseType
            | Cause::InvalidScope
            | Cause::InvalidRequest => self.failure(cause, &found),
            _ => Verdict::warn(found),
        }
    }

    /// Sends the authorization request of a login, built as a login's, and browses to its end.
    /// State and nonce are made up: no callback with them is one of a login.
    async fn authorize(
        &mut self,
        authorization: &Url,
        redirect_uri: &str,
    ) -> Result<End, CallError> {
        let settings = &self.probe.connection.settings;
        let endpoint = AuthorizationEndpoint::new(settings, authorization, redirect_uri);
        let unusable =
            |_| CallError::Unusable { host: host_of(authorization), defect: Defect::Url };
        let url = endpoint.map_err(unusable)?.url(&Authorization {
            state: &self.random(),
            nonce: &Nonce::new(self.random()),
            verifier: &PkceVerifier::new(self.random()),
            hints: &LoginHints { prompt: vec![Prompt::None], ..LoginHints::default() },
        });
        self.browse(url, redirect_uri).await
    }
}
