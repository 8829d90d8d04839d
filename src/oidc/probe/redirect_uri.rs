//! The redirect URI: an IdP that treats it otherwise than one that surely isn't registered has it
//! registered. The request is the one of a login with `prompt=none`; where that tells nothing, also
//! with a `prompt` that OIDC Core 3.1.2.1 forbids, which many IdPs refuse at a registered URI before
//! they show a login page.

use url::Url;

use super::LOGOUT_REQUESTS;
use super::browse::{Callback, End, Page, Refused, asks_for_par};
use super::{Known, NoAnswer, Run, Verdict};
use crate::model::cause::Cause;
use crate::model::check::{CheckId, CheckOutcome};
use crate::model::login::{LoginHints, Nonce, PkceVerifier, Prompt};
use crate::oidc::error::{CallError, Defect, Document};
use crate::oidc::http::host_of;
use crate::oidc::idps::{callback_refusal, known_error};
use crate::oidc::provider::Authorization;
use crate::oidc::provider::authorization::AuthorizationEndpoint;

const ID: CheckId = CheckId::ClientRedirectUri;

/// What the authorization endpoint showed of the client id.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ClientSeen {
    Known,
    Nothing,
}

impl Run<'_, '_> {
    pub(super) async fn redirect_uri(&mut self, known: &Known) {
        let Some(authorization) = &known.authorization else { return };
        if self.has_failed(CheckId::MetadataCrossCheck) {
            return;
        }
        if self.is_par_demanded(known) {
            return self.settle_client_id(ClientSeen::Nothing);
        }
        let reserve = self.certificates_wanted(known) + LOGOUT_REQUESTS;
        let verdict = self.find_registration(authorization, reserve).await;
        let has_answered = !matches!(&verdict, Err(NoAnswer::Call(_) | NoAnswer::Silent(_)));
        let verdict = match verdict {
            Ok(verdict) => verdict,
            // The browser, and not this service, must reach it: it can resolve other names and trust
            // other CAs, but no certificate that has expired or is for another host.
            Err(NoAnswer::Call(error)) => match error.cause(Document::Metadata) {
                cause @ (Cause::TlsCertificateExpired | Cause::TlsNameMismatch) => {
                    self.failure(cause, &error.to_string())
                }
                _ => Verdict::inconclusive(self.redact(&error.to_string())),
            },
            Err(why) => self.no_answer(&why, Document::Metadata),
        };
        let seen = match verdict.is(CheckOutcome::Pass) {
            true => ClientSeen::Known,
            false => ClientSeen::Nothing,
        };
        self.settle_client_id(seen);
        self.settle_par(has_answered);
        let expected = format!("{} is registered with the client", self.probe.redirect_uri);
        self.report(ID, expected, verdict);
    }

    async fn find_registration(
        &mut self,
        authorization: &Url,
        reserve: usize,
    ) -> Result<Verdict, NoAnswer> {
        let none = [Prompt::None];
        let ours = self.authorize_ours(authorization, &none, reserve + 1).await?;
        let page = match ours {
            End::Callback(callback) => {
                let control = self.authorize_control(authorization, &none, reserve).await;
                return Ok(self.answered(&callback, control));
            }
            End::TooManyRedirects => {
                return Ok(Verdict::inconclusive(
                    "the IdP redirects more often than a check follows, so only a test login can prove it",
                ));
            }
            End::Page(page) => page,
        };
        // RFC 6749 4.1.2.1: only for a wrong client id or redirect URI does an IdP show an error itself.
        if let Some(refused) = page.refused() {
            return Ok(self.refused(refused, &page));
        }
        let control = self.authorize_control(authorization, &none, reserve).await;
        if let Some(verdict) = self.told_apart(&page, control) {
            return Ok(verdict);
        }
        // An invalid request, which no page for a person can answer.
        let invalid = [Prompt::None, Prompt::Login];
        if let Ok(End::Callback(callback)) =
            self.authorize_ours(authorization, &invalid, reserve + 1).await
        {
            let control = self.authorize_control(authorization, &invalid, reserve).await;
            if let Some(refusal) = is_page(control) {
                let said = self.said(&callback);
                return Ok(Verdict::pass(format!(
                    "to an invalid request the IdP answers there with {said}, and for an unregistered URI \
                     at a page of its own (HTTP {})",
                    refusal.status.as_u16()
                )));
            }
        }
        // As a person's login begins, where the IdP fails at prompt=none.
        if page.is_outage() {
            match self.authorize_ours(authorization, &[], reserve + 1).await? {
                End::Page(again) => {
                    if let Some(refused) = again.refused() {
                        return Ok(self.refused(refused, &again));
                    }
                    let control = self.authorize_control(authorization, &[], reserve).await;
                    if let Some(verdict) = self.told_apart(&again, control) {
                        return Ok(verdict);
                    }
                }
                End::Callback(callback) => {
                    let control = self.authorize_control(authorization, &[], reserve).await;
                    return Ok(self.answered(&callback, control));
                }
                End::TooManyRedirects => {}
            }
        }
        Ok(Verdict::inconclusive(format!(
            "the IdP shows a page (HTTP {}) where a person must continue, for an unregistered URI as well, so \
             only a test login can prove it",
            page.status.as_u16()
        )))
    }

    /// A page that lets a person continue, where the control is refused.
    fn told_apart(&self, page: &Page, control: Result<End, NoAnswer>) -> Option<Verdict> {
        if page.refused().is_some() || page.is_outage() {
            return None;
        }
        let refusal = is_page(control).filter(|control| control.refused().is_some())?;
        Some(Verdict::pass(format!(
            "the IdP shows a page where a person continues (HTTP {}), and an error page for an unregistered \
             URI (HTTP {}): {}",
            page.status.as_u16(),
            refusal.status.as_u16(),
            self.redact(&refusal.text)
        )))
    }

    /// The IdP refuses our request on a page of its own.
    fn refused(&mut self, refused: Refused, page: &Page) -> Verdict {
        let redirect_uri = self.probe.redirect_uri;
        let known = known_error(&page.text);
        let meaning = known.map(|error| error.meaning);
        let meaning = meaning.map_or_else(String::new, |meaning| format!(": {meaning}"));
        let (status, text) = (page.status.as_u16(), self.redact(&page.text));
        let found = format!("the IdP shows an error page (HTTP {status}): {text}{meaning}");
        match refused {
            Refused::Par => self.par_of_client(&text),
            Refused::Scope => {
                let verdict = self.failure(Cause::InvalidScope, &found);
                self.refute(CheckId::MetadataScopes, verdict);
                Verdict::depends_on(CheckId::MetadataScopes)
            }
            Refused::Client => {
                let cause = known.and_then(|error| error.callback);
                self.client_refused(cause.unwrap_or(Cause::ApplicationUnknown), &found)
            }
            Refused::Unclear if self.is_client_rejected() => {
                let verdict = Verdict::depends_on(CheckId::ClientCredentials);
                let found = format!("{}: {found}, which can be due to the same", verdict.found);
                Verdict { found, ..verdict }
            }
            Refused::RedirectUri | Refused::Unclear => self
                .failure(Cause::RedirectUriUnregistered, &found)
                .for_idp_admin(self.product.register_redirect_uri(redirect_uri)),
        }
    }

    /// Whether the token endpoint has refused the client: that is the finding already, under another id
    /// where the secret has expired.
    fn is_client_rejected(&self) -> bool {
        let credentials = self.outcomes.get(&CheckId::ClientCredentials);
        matches!(credentials, Some(CheckOutcome::Fail | CheckOutcome::Skipped))
    }

    /// The IdP refuses the client. Keycloak's token endpoint calls a disabled one by the name of a wrong
    /// secret, and only the page says what it is.
    fn client_refused(&mut self, cause: Cause, found: &str) -> Verdict {
        if !self.is_client_rejected() {
            let verdict = self.failure(cause, found);
            self.report(CheckId::ClientId, CheckId::ClientId.expected(), verdict);
            return Verdict::depends_on(CheckId::ClientId);
        }
        if cause == Cause::ApplicationDisabled
            && let Some(rejected) = self.rejected.take()
        {
            let found = format!("{found}; {}", rejected.found);
            self.rejected = Some(self.failure(Cause::ClientDisabled, &found));
        }
        Verdict::depends_on(CheckId::ClientCredentials)
    }

    /// The IdP answered at the redirect URI: where does it answer for one that surely isn't registered?
    fn answered(&mut self, callback: &Callback, control: Result<End, NoAnswer>) -> Verdict {
        let said = self.said(callback);
        let found = format!("the IdP answers there with {said}");
        let refusal = is_page(control);
        let told_apart = refusal.map(|page| {
            let status = page.status.as_u16();
            format!("{found}, and for an unregistered URI at a page of its own (HTTP {status})")
        });
        let Callback { error, description } = callback;
        let description = description.as_deref();
        let refusal = error.as_deref().and_then(|error| callback_refusal(error, description));
        let Some(cause) = refusal.map(|refusal| refusal.cause()) else {
            return Verdict::inconclusive(format!("{found}, so only a test login can prove it"));
        };
        if cause == Cause::ParRequired || description.is_some_and(asks_for_par) {
            let verdict = self.par_of_client(&said);
            return told_apart.map_or(verdict, Verdict::pass);
        }
        let names_pkce = description.is_some_and(|text| {
            let text = text.to_ascii_lowercase();
            text.contains("code_challenge") || text.contains("pkce")
        });
        // The URI is registered where it is told apart, but every login would end like this.
        let refuted = match cause {
            Cause::UnauthorizedClient | Cause::UnsupportedResponseType => {
                Some(CheckId::MetadataCodeFlow)
            }
            Cause::InvalidScope => Some(CheckId::MetadataScopes),
            Cause::PkceRefused => Some(CheckId::MetadataPkce),
            Cause::InvalidRequest if names_pkce => Some(CheckId::MetadataPkce),
            Cause::InvalidRequest => return self.failure(cause, &found),
            Cause::ApplicationDisabled | Cause::ApplicationUnknown => {
                let verdict = self.client_refused(cause, &found);
                return told_apart.map_or(verdict, Verdict::pass);
            }
            Cause::IdpServerError | Cause::IdpTemporarilyUnavailable => {
                let verdict = self.failure(cause, &found);
                return Verdict { outcome: CheckOutcome::Warn, ..verdict };
            }
            _ => None,
        };
        if let Some(id) = refuted {
            let verdict = self.failure(cause, &found);
            self.refute(id, verdict);
            return told_apart.map_or(Verdict::depends_on(id), Verdict::pass);
        }
        told_apart.map_or_else(
            || {
                Verdict::inconclusive(format!(
                    "{found}, and does not clearly refuse an unregistered URI, so only a test login can \
                     prove it"
                ))
            },
            Verdict::pass,
        )
    }

    /// Reports the client id, unless an error page has shown already that the IdP doesn't know it.
    fn settle_client_id(&mut self, seen: ClientSeen) {
        const ID: CheckId = CheckId::ClientId;
        if self.outcomes.contains_key(&ID) {
            return;
        }
        let verdict = match self.outcomes.get(&CheckId::ClientCredentials) {
            Some(CheckOutcome::Pass | CheckOutcome::Warn) => {
                Verdict::pass("the token endpoint accepts it with the client secret")
            }
            _ if seen == ClientSeen::Known => {
                Verdict::pass("the authorization endpoint answers it as a client that it knows")
            }
            // Reported as dependent.
            Some(CheckOutcome::Fail | CheckOutcome::Skipped) => return,
            Some(CheckOutcome::Inconclusive) | None => Verdict::inconclusive(
                "neither endpoint's answers tell whether it does, so only a test login can",
            ),
        };
        self.report(ID, ID.expected(), verdict);
    }

    fn said(&self, callback: &Callback) -> String {
        let Callback { error, description } = callback;
        let error = error.as_deref().unwrap_or("neither a code nor an error");
        let text = description.as_deref().map_or_else(String::new, |text| format!(": {text}"));
        self.redact(&format!("{error}{text}"))
    }

    async fn authorize_ours(
        &mut self,
        authorization: &Url,
        prompt: &[Prompt],
        reserve: usize,
    ) -> Result<End, NoAnswer> {
        self.authorize(authorization, self.probe.redirect_uri, prompt, reserve).await
    }

    async fn authorize_control(
        &mut self,
        authorization: &Url,
        prompt: &[Prompt],
        reserve: usize,
    ) -> Result<End, NoAnswer> {
        let unregistered = self.unregistered(self.probe.redirect_uri);
        self.authorize(authorization, &unregistered, prompt, reserve).await
    }

    /// Sends the authorization request of a login, built as a login's, and browses to its end.
    /// State and nonce are made up: no callback with them is one of a login.
    async fn authorize(
        &mut self,
        authorization: &Url,
        redirect_uri: &str,
        prompt: &[Prompt],
        reserve: usize,
    ) -> Result<End, NoAnswer> {
        let settings = &self.probe.connection.settings;
        let endpoint = AuthorizationEndpoint::new(settings, authorization, redirect_uri);
        let unusable = |_| {
            let host = host_of(authorization);
            NoAnswer::Call(CallError::Unusable { host, defect: Defect::Url })
        };
        let url = endpoint.map_err(unusable)?.url(&Authorization {
            state: &self.random(),
            nonce: &Nonce::new(self.random()),
            verifier: &PkceVerifier::new(self.random()),
            hints: &LoginHints { prompt: prompt.to_vec(), ..LoginHints::default() },
        });
        self.browse(ID, url, redirect_uri, reserve).await
    }
}

/// The page at which the control ended, unless the IdP is out of order. It answers for a registered URI
/// elsewhere, so any page tells.
fn is_page(control: Result<End, NoAnswer>) -> Option<Page> {
    match control {
        Ok(End::Page(page)) if !page.is_outage() => Some(page),
        Ok(End::Page(_) | End::Callback(_) | End::TooManyRedirects) | Err(_) => None,
    }
}
