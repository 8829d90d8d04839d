//! CompleteLogin: one take from the store, one call to the token endpoint. Records how the login ended,
//! also if the caller cancels.

use std::sync::Arc;
use std::time::Duration;

use super::progress::{LoginProgress, RecordOnDrop};
use super::state::relying_party;
use super::{AnswerKeeper, Login, LoginError, RPC_DEADLINE, StateError, within_deadline};
use crate::model::attempt::LoginStage;
use crate::model::cause::Cause;
use crate::model::connection::{Connection, ConnectionState, CustomerUris};
use crate::model::identity::Identity;
use crate::model::login::{Callback, PendingLogin, RawIdToken};
use crate::model::return_to::ReturnTo;
use crate::model::slug::Slug;
use crate::model::text::quotable;
use crate::oidc::breaker::CallOutcome;
use crate::oidc::claims::{self, ClaimsError, UserInfoNeed};
use crate::oidc::error::{ExchangeError, IdTokenError};
use crate::oidc::provider::{Provider, Tokens};
use crate::oidc::verify::VerifiedClaims;
use crate::telemetry::call::within_current;
use crate::telemetry::{BackgroundTask, secret_switched};

/// What a callback leads to.
#[derive(Debug)]
pub enum Completion {
    /// A finished login.
    Finished(Box<CompletedLogin>),
    /// The same callback finished a login a moment ago: its encoded answer.
    Again(Vec<u8>),
}

/// A finished login.
#[derive(Debug)]
pub struct CompletedLogin {
    /// Who logged in.
    pub identity: Identity,
    /// As validated at begin.
    pub return_to: Option<ReturnTo>,
    /// Verified.
    pub id_token: RawIdToken,
    /// Whether this was a test login.
    pub connection_state: ConnectionState,
    /// For [`Login::keep_answer`]; `None`: the answer isn't kept.
    pub keeper: Option<AnswerKeeper>,
}

/// A refused login.
#[derive(Debug)]
pub struct CompleteError {
    /// Why.
    pub error: LoginError,
    /// Whether the state is spent, so that only a new login helps.
    pub is_spent: bool,
}

impl Login {
    /// Finishes a login.
    ///
    /// # Errors
    /// See [`LoginError`]. From the moment at which the state is taken it is spent, whatever happens.
    pub async fn complete(&self, callback: Callback) -> Result<Completion, CompleteError> {
        let mut guard = RecordOnDrop::new(self, callback.slug.clone(), LoginStage::Complete);
        let completed = within_deadline(self.complete_login(callback, &mut guard.progress)).await;
        let is_spent = guard.progress.is_spent;
        match &completed {
            Ok(Completion::Finished(_)) => guard.completed(),
            Ok(Completion::Again(_)) => guard.answered_again(),
            Err(_) => {}
        }
        completed.map_err(|error| CompleteError { error: guard.refused(error), is_spent })
    }

    async fn complete_login(
        &self,
        callback: Callback,
        progress: &mut LoginProgress,
    ) -> Result<Completion, LoginError> {
        let Callback { slug, state, iss, browser_binding, answer } = callback;
        progress.redactor.add(state.expose());
        if let Ok(code) = &answer {
            progress.redactor.add(code.expose());
        }
        let now = self.clock.unix_seconds();
        let admitted = self.state_keys.admit(&state, &slug, browser_binding.as_ref(), now);
        progress.is_of_account = !matches!(admitted, Err(StateError::Invalid));
        let ticket = admitted?;
        let (connection, provider) = self.resolve(&slug, &mut progress.phases).await?;
        progress.connection = Some(Arc::clone(&connection));
        progress.issuer = Some(provider.issuer().to_string());
        let permit = provider.acquire_permit(self.clock.monotonic());
        let mut permit = permit.map_err(LoginError::Provider)?;
        let taken = progress.phases.timed("store", self.pending.take(&ticket.key)).await?;
        progress.is_spent = true;
        let pending = taken.and_then(|value| ticket.open(&slug, value));
        let binding = browser_binding.as_ref();
        let keeper = answer.as_ref().ok().and_then(|code| {
            self.answer_keeper(&ticket, &slug, code, binding, connection.revision)
        });
        let pending = match (pending, &keeper) {
            (Some(pending), _) => pending,
            (None, None) => return Err(LoginError::StateUsed),
            (None, Some(keeper)) => {
                let kept = progress.phases.timed("store", self.kept_answer(keeper)).await;
                return kept.map(Completion::Again).ok_or(LoginError::StateUsed);
            }
        };
        progress.redactor.add(pending.nonce.expose());
        progress.redactor.add(pending.verifier.expose());
        admit(&pending, &connection, &provider)?;
        admit_issuer(iss.as_deref(), answer.is_err(), &provider)?;
        let code = answer.map_err(LoginError::IdpRefused)?;
        let PendingLogin { nonce, verifier, max_age, client, return_to, .. } = pending;
        let exchange = provider.exchange(code, verifier);
        let exchanged = progress.phases.timed("token", exchange).await;
        permit.record_outcome(CallOutcome::of(&exchanged), client, self.clock.monotonic());
        if exchanged.as_ref().is_err_and(ExchangeError::is_endpoint_gone) {
            self.providers.endpoint_has_moved(&connection, &provider);
        }
        let tokens = exchanged.map_err(|error| {
            let expiry = connection.secrets.active_expire;
            let has_expired = expiry.is_some_and(|expiry| expiry <= self.clock.unix_millis());
            let error = if has_expired { error.of_expired_secret() } else { error };
            if error.rejects_secret() && self.switch_secret(&connection, &provider) {
                LoginError::SecretSwitch(error)
            } else {
                LoginError::Exchange(error)
            }
        })?;
        tokens.add_to(&mut progress.redactor);
        let verify = |provider: &Provider| {
            provider.verify(&tokens, &nonce, max_age, self.clock.unix_seconds())
        };
        let verified = progress.phases.timed_now("verify", || verify(&provider));
        let (verified, provider) = match verified {
            Ok(verified) => (verified, provider),
            Err(error) if error.needs_fresh_keys() => {
                let verified =
                    self.verify_by_fresh_keys(&connection, provider, error, verify).await;
                let age =
                    |error: IdTokenError| error.with_keys_age(self.providers.keys_age(&connection));
                verified.map_err(|error| LoginError::IdToken(age(error)))?
            }
            Err(error) => return Err(LoginError::IdToken(error)),
        };
        let identity = self.identify(&slug, &connection, &provider, verified, &tokens, progress);
        Ok(Completion::Finished(Box::new(CompletedLogin {
            identity: identity.await?,
            return_to,
            id_token: tokens.id_token,
            connection_state: connection.settings.state,
            keeper,
        })))
    }

    /// Once more with the keys that another replica has read since, and with those that the IdP publishes
    /// now.
    async fn verify_by_fresh_keys(
        &self,
        connection: &Arc<Connection>,
        mut provider: Arc<Provider>,
        mut error: IdTokenError,
        verify: impl Fn(&Provider) -> Result<VerifiedClaims, IdTokenError>,
    ) -> Result<(VerifiedClaims, Arc<Provider>), IdTokenError> {
        for _ in 0..KEY_SOURCES {
            let fresh = self.providers.with_fresh_keys(connection, &provider).await;
            let Some(fresh) = fresh else { return Err(error) };
            provider = fresh.provider;
            error = match verify(&provider) {
                Ok(verified) => return Ok((verified, provider)),
                Err(error) if fresh.are_shared && error.needs_fresh_keys() => error,
                Err(error) => return Err(error),
            };
        }
        Err(error)
    }

    /// Maps the verified claims to an identity; requests UserInfo if a claim is missing.
    async fn identify(
        &self,
        slug: &Slug,
        connection: &Arc<Connection>,
        provider: &Arc<Provider>,
        verified: VerifiedClaims,
        tokens: &Tokens,
        progress: &mut LoginProgress,
    ) -> Result<Identity, LoginError> {
        let settings = &connection.settings;
        let need = claims::userinfo_need(&verified, settings);
        let (mut userinfo, mut groups_lost) = (None, None);
        if need != UserInfoNeed::Nothing && provider.has_userinfo() {
            let is_optional = need == UserInfoNeed::GroupsOnly;
            let wait = if is_optional { GROUPS_TIMEOUT } else { RPC_DEADLINE };
            let request = provider.userinfo(tokens, &verified, self.clock.unix_seconds());
            let request = tokio::time::timeout(wait, request);
            let answer = progress.phases.timed("userinfo", request).await;
            if matches!(&answer, Ok(Err(error)) if error.is_endpoint_gone()) {
                self.providers.endpoint_has_moved(connection, provider);
            }
            match answer {
                Ok(Ok(claims)) => userinfo = Some(claims),
                Ok(Err(error)) if is_optional => groups_lost = Some(error.cause()),
                Ok(Err(error)) => return Err(LoginError::UserInfo(error)),
                Err(_) if is_optional => groups_lost = Some(Cause::Timeout),
                Err(_) => return Err(LoginError::DeadlineExceeded),
            }
        }
        let mut identity = claims::identity(slug, verified, userinfo.as_ref(), settings);
        if let (Some(cause), Ok(identity)) = (groups_lost, &mut identity) {
            tracing::warn!(account.slug = %slug, cause = cause.code(), "left the groups out: UserInfo failed");
            let source = || format!("unavailable: UserInfo failed ({cause})");
            identity.claim_sources.entry("groups".into()).or_insert_with(source);
        }
        progress.claims_missing = Some(match &identity {
            Err(ClaimsError::Missing(missing)) => missing.iter().map(|claim| claim.claim).collect(),
            Ok(_) | Err(_) => Vec::new(),
        });
        let issuer = || provider.issuer().to_string();
        identity.map_err(|error| LoginError::Claims { error, issuer: issuer() })
    }

    /// Lets the connection's standby secret serve the next login if the IdP accepts it, in a task of its
    /// own: the code of this login is spent, so it is never tried again. Returns whether it is tried.
    fn switch_secret(&self, connection: &Arc<Connection>, provider: &Arc<Provider>) -> bool {
        let slug = &connection.slug;
        if connection.secrets.standby.is_none() || self.limits.admit_switch(slug).is_err() {
            return false;
        }
        let (changes, connection) = (Arc::clone(&self.changes), Arc::clone(connection));
        let (provider, entropy) = (Arc::clone(provider), Arc::clone(&self.entropy));
        let redirect_uri = CustomerUris::new(&self.policy.public_origin, slug).redirect_uri();
        self.tasks.spawn(
            BackgroundTask::SecretSwitch,
            within_current(async move {
                if !provider.accepts_standby(&connection, &redirect_uri, entropy.as_ref()).await {
                    return tracing::warn!(
                        "client rejected: the standby secret is not proven, so the active one stays"
                    );
                }
                match changes.switch_secret(&connection).await {
                    Ok(true) => {
                        secret_switched();
                        tracing::warn!("client rejected: switched to standby secret");
                    }
                    Ok(false) => {}
                    Err(error) => tracing::warn!(%error, "failed to switch to standby secret"),
                }
            }),
        );
        true
    }
}

/// Whether this connection is the one that began the login.
fn admit(
    pending: &PendingLogin,
    connection: &Connection,
    provider: &Provider,
) -> Result<(), LoginError> {
    let is_same = pending.incarnation == connection.incarnation
        && pending.relying_party == relying_party(provider.issuer(), connection);
    if is_same { Ok(()) } else { Err(LoginError::ConnectionChanged) }
}

/// Whether the callback is from the connection's IdP (RFC 9207 2.4). An error needs no `iss`: IdPs that
/// advertise it leave it out there, and no code is sent anywhere.
fn admit_issuer(iss: Option<&str>, is_error: bool, provider: &Provider) -> Result<(), LoginError> {
    if provider.admits_callback_issuer(iss) || iss.is_none() && is_error {
        return Ok(());
    }
    let expected = provider.issuer().to_string();
    Err(LoginError::IssuerMismatch { expected, actual: iss.map(quotable) })
}

/// Where keys are looked for that verify a token: at the other replicas, then at the IdP.
const KEY_SOURCES: u32 = 2;
/// How long a login waits for groups that it can do without.
const GROUPS_TIMEOUT: Duration = Duration::from_secs(3);
