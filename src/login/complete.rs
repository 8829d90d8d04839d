//! CompleteLogin: who came back. One take from the store, one call to the token endpoint.

use super::state::relying_party;
use super::{Login, LoginError, StateError, within_deadline};
use crate::model::connection::{Connection, ConnectionState};
use crate::model::identity::Identity;
use crate::model::login::{Callback, PendingLogin, RawIdToken};
use crate::model::return_to::ReturnTo;
use crate::model::shown;
use crate::oidc::claims::{self, ClaimsError};
use crate::oidc::error::{CallError, ExchangeError, IdTokenError};
use crate::oidc::provider::{Provider, Tokens};
use crate::oidc::verify::VerifiedClaims;
use crate::telemetry::{Phases, secret_switched};

use std::sync::Arc;

/// A finished login.
#[derive(Debug)]
pub struct CompletedLogin {
    /// Who logged in.
    pub identity: Identity,
    /// As validated at begin.
    pub return_to: Option<ReturnTo>,
    /// Verified.
    pub id_token: RawIdToken,
    /// Whether this was a trial.
    pub connection_state: ConnectionState,
}

/// A refused login, with whether its state is spent: then only a new login helps.
#[derive(Debug)]
pub struct CompleteError {
    /// Why.
    pub error: LoginError,
    /// Whether the state can't be used again.
    pub is_spent: bool,
}

/// How far a login came, whatever its end: for support.
#[derive(Debug, Default)]
pub struct LoginProgress {
    /// Whether the state can't be used again.
    is_spent: bool,
    /// Whether the state was one of ours.
    pub is_ours: bool,
    /// The account's.
    pub connection: Option<Arc<Connection>>,
    /// The IdP's.
    pub issuer: Option<String>,
    /// Names of the required claims that weren't there; `None`: it didn't come to that.
    pub claims_missing: Option<Vec<String>>,
    /// How long each phase took.
    pub phases: Phases,
}

impl Login {
    /// Finishes a login, and tells in `progress` how far it came, also where the caller gives up.
    ///
    /// # Errors
    /// See [`LoginError`]; from the moment at which the state is taken it is spent, whatever happens.
    pub async fn complete(
        &self,
        callback: Callback,
        progress: &mut LoginProgress,
    ) -> Result<CompletedLogin, CompleteError> {
        let completed = within_deadline(self.complete_login(callback, progress)).await;
        completed.map_err(|error| CompleteError { error, is_spent: progress.is_spent })
    }

    async fn complete_login(
        &self,
        callback: Callback,
        progress: &mut LoginProgress,
    ) -> Result<CompletedLogin, LoginError> {
        let Callback { slug, state, iss, browser_binding, answer } = callback;
        let now = self.clock.unix_seconds();
        let admitted = self.state_keys.admit(&state, &slug, browser_binding.as_ref(), now);
        progress.is_ours = !matches!(admitted, Err(StateError::Invalid));
        let ticket = admitted?;
        let (connection, provider) = self.resolve(&slug, &mut progress.phases).await?;
        progress.connection = Some(Arc::clone(&connection));
        progress.issuer = Some(provider.issuer().to_string());
        let mut permit =
            provider.acquire_permit(self.clock.unix_millis()).map_err(LoginError::Provider)?;
        let taken = progress.phases.timed("store", self.pending.take(&ticket.key)).await?;
        progress.is_spent = true;
        let pending =
            taken.and_then(|value| ticket.open(&slug, value)).ok_or(LoginError::StateUsed)?;
        admit(&pending, iss.as_deref(), &connection, &provider)?;
        let code = answer.map_err(LoginError::IdpRefused)?;
        let exchanged =
            progress.phases.timed("token", provider.exchange(code, pending.verifier.clone())).await;
        let has_answered =
            !matches!(exchanged, Err(ExchangeError::Call(CallError::Unavailable { .. })));
        permit.record_outcome(has_answered, self.clock.unix_millis());
        if matches!(exchanged, Err(ExchangeError::ClientRejected { .. }))
            && connection.secrets.standby.is_some()
        {
            self.switch_secret(&connection);
        }
        let tokens = exchanged.map_err(LoginError::Exchange)?;
        let (verified, provider) =
            self.verify(&connection, provider, &pending, &tokens, &mut progress.phases).await?;
        let settings = &connection.settings;
        let userinfo = if claims::needs_userinfo(&verified, settings) && provider.has_userinfo() {
            let now = self.clock.unix_seconds();
            Some(
                progress
                    .phases
                    .timed("userinfo", provider.userinfo(&tokens, &verified, now))
                    .await
                    .map_err(LoginError::UserInfo)?,
            )
        } else {
            None
        };
        let issuer = provider.issuer().to_string();
        let identity = claims::identity(&slug, verified, userinfo.as_ref(), settings);
        progress.claims_missing = Some(match &identity {
            Err(ClaimsError::Missing(names)) => names.clone(),
            Ok(_) | Err(_) => Vec::new(),
        });
        let identity = identity.map_err(|error| LoginError::Claims { error, issuer })?;
        Ok(CompletedLogin {
            identity,
            return_to: pending.return_to,
            id_token: tokens.id_token,
            connection_state: settings.state,
        })
    }

    /// Has the connection's other secret serve the next login, beside this one, whose code is spent: never a second try with it.
    fn switch_secret(&self, connection: &Arc<Connection>) {
        let (connections, connection) = (Arc::clone(&self.connections), Arc::clone(connection));
        tokio::spawn(async move {
            match connections.switch_secret(&connection).await {
                Ok(true) => {
                    secret_switched();
                    tracing::warn!(account.slug = %connection.slug, "the IdP rejected the client: the standby secret takes over");
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(account.slug = %connection.slug, %error, "the standby secret could not take over");
                }
            }
        });
    }

    /// Verifies the ID token; where no known key verifies it, once more with fresh keys.
    async fn verify(
        &self,
        connection: &Arc<Connection>,
        provider: Arc<Provider>,
        pending: &PendingLogin,
        tokens: &Tokens,
        phases: &mut Phases,
    ) -> Result<(VerifiedClaims, Arc<Provider>), LoginError> {
        let max_age = pending.max_age.map(|max_age| max_age.as_secs());
        let first = phases.timed_now("verify", || {
            provider.verify(tokens, &pending.nonce, max_age, self.clock.unix_seconds())
        });
        let error = match first {
            Ok(verified) => return Ok((verified, provider)),
            Err(error) => error,
        };
        if !matches!(error, IdTokenError::UnknownKey(_)) {
            return Err(LoginError::IdToken(error));
        }
        let fresh = self
            .providers
            .with_fresh_keys(connection, &provider)
            .await
            .ok_or(LoginError::IdToken(error))?;
        let verified = fresh.verify(tokens, &pending.nonce, max_age, self.clock.unix_seconds());
        Ok((verified.map_err(LoginError::IdToken)?, fresh))
    }
}

/// Whether this callback and this connection are those of the pending login.
fn admit(
    pending: &PendingLogin,
    iss: Option<&str>,
    connection: &Connection,
    provider: &Provider,
) -> Result<(), LoginError> {
    let is_same = pending.incarnation == connection.incarnation
        && pending.relying_party == relying_party(provider.issuer(), connection);
    if !is_same {
        return Err(LoginError::ConnectionChanged);
    }
    if !provider.admits_callback_issuer(iss) {
        let actual = iss.map_or_else(
            || "missing, though the IdP advertises it".to_owned(),
            |iss| format!("{:?}", shown(iss)),
        );
        return Err(LoginError::IssuerMismatch { expected: provider.issuer().to_string(), actual });
    }
    Ok(())
}
