//! BeginLogin: where to send the browser. One write to the store; no call to the IdP once its metadata
//! is known. Counts a login that began, and records one that was refused, also if the caller cancels.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::progress::{LoginProgress, RecordOnDrop};
use super::state::{client_tag, relying_party};
use super::{Login, LoginError, RateLimitedBy, within_deadline};
use crate::model::Violation;
use crate::model::attempt::LoginStage;
use crate::model::login::{LoginRequest, Nonce, PendingLogin, PkceVerifier, StateParameter};
use crate::model::return_to::ReturnTo;
use crate::model::text::quotable;
use crate::model::time::UnixSeconds;
use crate::oidc::provider::Authorization;

/// A login that has begun.
#[derive(Debug)]
pub struct BegunLogin {
    /// The authorization request.
    pub redirect_url: String,
    /// Also part of `redirect_url`.
    pub state: StateParameter,
    /// From then on the state is refused.
    pub expire_time: UnixSeconds,
}

impl Login {
    /// Begins a login.
    ///
    /// # Errors
    /// See [`LoginError`].
    pub async fn begin(&self, request: LoginRequest) -> Result<BegunLogin, LoginError> {
        let mut guard = RecordOnDrop::new(self, request.slug.clone(), LoginStage::Begin);
        let begun = within_deadline(self.begin_login(request, &mut guard.progress)).await;
        if begun.is_ok() {
            guard.begun();
        }
        begun.map_err(|error| guard.refused(error))
    }

    async fn begin_login(
        &self,
        request: LoginRequest,
        progress: &mut LoginProgress,
    ) -> Result<BegunLogin, LoginError> {
        let return_to = self.check(&request)?;
        let limited =
            |by, limit| move |wait| LoginError::RateLimited { by, limit, retry_after: wait };
        let (per_client, per_account) = (self.policy.begin_rate_per_client, self.policy.begin_rate);
        let client = self.limits.admit_client(request.client_key.as_deref());
        client.map_err(limited(RateLimitedBy::Client, per_client))?;
        let connection = self.connection(&request.slug).await;
        progress.is_of_account =
            connection.as_ref().map_or_else(LoginError::is_of_account, |_| true);
        let connection = connection?;
        progress.connection = Some(Arc::clone(&connection));
        // Before it waits for the IdP.
        let account = self.limits.admit_account(&request.slug);
        account.map_err(limited(RateLimitedBy::Account, per_account))?;
        let (connection, provider) = self.provider_of(connection, &mut progress.phases).await?;
        progress.issuer = Some(provider.issuer().to_string());
        if let Some(iss) = &request.iss
            && !provider.admits_callback_issuer(Some(iss))
        {
            let expected = provider.issuer().to_string();
            return Err(LoginError::IssuerMismatch { expected, actual: Some(quotable(iss)) });
        }
        let hints = connection.settings.complete_hints(request.hints);
        let now = self.clock.unix_seconds();
        let entropy = self.entropy.as_ref();
        let binding = request.browser_binding.as_ref();
        let (state, ticket) = self.state_keys.issue(entropy, &request.slug, binding, now);
        let pending = PendingLogin {
            nonce: Nonce::new(self.unguessable()),
            verifier: PkceVerifier::new(self.unguessable()),
            incarnation: connection.incarnation,
            relying_party: relying_party(provider.issuer(), &connection),
            max_age: hints.max_age,
            client: request.client_key.as_deref().map(client_tag),
            return_to,
        };
        let value = ticket.seal(&request.slug, &pending);
        let ttl = self.policy.state_ttl + STORE_GRACE;
        let put = self.pending.put(&request.slug, &ticket.key, &value, ttl);
        progress.phases.timed("store", put).await?;
        let redirect_url = provider.authorization_url(&Authorization {
            state: state.expose(),
            nonce: &pending.nonce,
            verifier: &pending.verifier,
            hints: &hints,
        });
        Ok(BegunLogin { redirect_url, state, expire_time: now.after(self.policy.state_ttl) })
    }

    /// The rules that depend on the service's settings; the server has checked the form.
    fn check(&self, request: &LoginRequest) -> Result<Option<ReturnTo>, LoginError> {
        let mut violations = Vec::new();
        if self.policy.require_browser_binding && request.browser_binding.is_none() {
            let rule = "must be given (SSO_REQUIRE_BROWSER_BINDING is set)";
            violations.push(Violation::new("browser_binding", rule));
        }
        let return_to = match &request.return_to {
            None => None,
            Some(return_to) => match self.policy.return_rule.check(&return_to.text) {
                Ok(return_to) => Some(return_to),
                Err(rule) => {
                    violations.push(Violation::new(return_to.field, rule));
                    None
                }
            },
        };
        if violations.is_empty() { Ok(return_to) } else { Err(LoginError::BadRequest(violations)) }
    }

    /// 256 bits in 43 URL-safe characters: a nonce, or a PKCE verifier (RFC 7636 4.1).
    fn unguessable(&self) -> String {
        let mut bytes = [0; 32];
        self.entropy.fill(&mut bytes);
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }
}

/// The store forgets a login this much later than its state expires, so that the state alone decides
/// what has expired.
const STORE_GRACE: Duration = Duration::from_secs(60);
