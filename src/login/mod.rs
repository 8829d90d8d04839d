//! Logins: a person logs in at the IdP of an account, and out again. A verb is a file. Called by
//! `server`; independent of gRPC, Redis and SQL.
//!
//! | step | `begin` | `complete` |
//! |---|---|---|
//! | before any I/O | check `return_to` and the rate | check the state: issued here, for this account and browser, in time |
//! | connection, IdP | cached | cached; a failure here leaves the state usable |
//! | store | `put` | `take`: from here the state is spent, whatever happens |
//! | IdP | | exchange the code, verify the ID token, request UserInfo if a required claim is missing |
//! | answer | where to send the browser | who logged in |

pub mod attempts;
mod begin;
mod complete;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod limits;
mod logout;
mod progress;
mod remedy;
mod repeated;
mod state;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::connections::AutomaticChanges;
use crate::entropy::Entropy;
use crate::model::Violation;
use crate::model::cause::Cause;
use crate::model::connection::{Connection, ConnectionState};
use crate::model::login::IdpRefusal;
use crate::model::rate::Rate;
use crate::model::redact::Redactor;
use crate::model::return_to::ReturnRule;
use crate::model::slug::Slug;
use crate::model::text::{mask_emails, sanitize};
use crate::oidc::claims::ClaimsError;
use crate::oidc::error::{Document, ExchangeError, IdTokenError, ProviderError, UserInfoError};
use crate::oidc::provider::Provider;
use crate::oidc::providers::Providers;
use crate::store::cache::ConnectionCache;
use crate::store::seal::Keyring;
use crate::store::{PendingLogins, StoreError};
use crate::tasks::Tasks;
use crate::telemetry::Phases;

pub use begin::BegunLogin;
pub use complete::{CompleteError, CompletedLogin, Completion};
pub use logout::{LogoutRequest, LogoutTarget};
pub use remedy::RemedyTerms;
pub use repeated::AnswerKeeper;
pub use state::StateError;

use attempts::AttemptLog;
use limits::LoginLimits;
use repeated::MAX_KEEPING;
use state::StateKeys;

/// The operator's choices for logins.
#[derive(Clone, Debug)]
pub struct LoginPolicy {
    /// How long a person has between begin and complete.
    pub state_ttl: Duration,
    /// Whether every login must be bound to a browser.
    pub require_browser_binding: bool,
    /// How many logins one network may begin.
    pub begin_rate_per_client: Rate,
    /// How many logins may begin at one account.
    pub begin_rate: Rate,
    /// How long the answer of a login is kept for the same callback; zero: not at all.
    pub answer_ttl: Duration,
    /// Where `return_to` may lead.
    pub return_rule: ReturnRule,
    /// Scheme, host and port of the customer-facing URIs.
    pub public_origin: String,
}

/// The verbs of a login; one for the process.
pub struct Login {
    policy: LoginPolicy,
    state_keys: StateKeys,
    limits: LoginLimits,
    connections: Arc<ConnectionCache>,
    changes: Arc<AutomaticChanges>,
    attempts: Arc<AttemptLog>,
    pending: Arc<dyn PendingLogins>,
    providers: Arc<Providers>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    tasks: Tasks,
    /// Bounds the answers that are being kept.
    keeping: Arc<Semaphore>,
}

impl Login {
    /// Joins the verbs with the parts that they use.
    #[expect(clippy::too_many_arguments, reason = "each is a separate part of the service")]
    pub fn new(
        policy: LoginPolicy,
        keyring: &Keyring,
        connections: Arc<ConnectionCache>,
        changes: Arc<AutomaticChanges>,
        attempts: Arc<AttemptLog>,
        pending: Arc<dyn PendingLogins>,
        providers: Arc<Providers>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        tasks: Tasks,
    ) -> Self {
        let state_keys = StateKeys::new(keyring, policy.state_ttl);
        let limits =
            LoginLimits::new(policy.begin_rate_per_client, policy.begin_rate, Arc::clone(&clock));
        Self {
            policy,
            state_keys,
            limits,
            connections,
            changes,
            attempts,
            pending,
            providers,
            clock,
            entropy,
            tasks,
            keeping: Arc::new(Semaphore::new(MAX_KEEPING)),
        }
    }

    /// Frees what the limits remember of idle networks and accounts. Called periodically.
    pub fn forget_idle(&self) {
        self.limits.forget_idle();
        self.changes.forget_idle();
    }

    /// The account's connection, enabled, and its IdP.
    async fn resolve(
        &self,
        slug: &Slug,
        phases: &mut Phases,
    ) -> Result<(Arc<Connection>, Arc<Provider>), LoginError> {
        let connection = self.connection(slug).await?;
        self.provider_of(connection, phases).await
    }

    /// The connection, with a known issuer, and its IdP.
    async fn provider_of(
        &self,
        connection: Arc<Connection>,
        phases: &mut Phases,
    ) -> Result<(Arc<Connection>, Arc<Provider>), LoginError> {
        let provider = phases
            .timed("metadata", self.providers.of(&connection))
            .await
            .map_err(LoginError::Provider)?;
        if connection.issuer().is_none() {
            // First use: the issuer is part of each person's key, and no document shall change it.
            self.changes.pin_issuer(&connection, provider.issuer());
        }
        Ok((connection, provider))
    }

    async fn connection(&self, slug: &Slug) -> Result<Arc<Connection>, LoginError> {
        let connection = self.connections.get(slug).await?.ok_or(LoginError::ConnectionNotFound)?;
        match connection.settings.state {
            ConnectionState::Disabled => Err(LoginError::ConnectionDisabled),
            ConnectionState::Testing | ConnectionState::Active => Ok(connection),
        }
    }
}

/// Bounds the whole time of a verb.
async fn within_deadline<T>(
    verb: impl Future<Output = Result<T, LoginError>>,
) -> Result<T, LoginError> {
    tokio::time::timeout(RPC_DEADLINE, verb).await.unwrap_or(Err(LoginError::DeadlineExceeded))
}

/// Why a login was refused. The texts name what was expected and what was received, never a secret.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// A field is missing or malformed.
    #[error("the request is malformed")]
    BadRequest(Vec<Violation>),
    /// Too many logins began.
    #[error("too many logins began {by}: the limit is {limit} ({})", .by.setting())]
    RateLimited {
        /// Which limit is reached.
        by: RateLimitedBy,
        /// The limit.
        limit: Rate,
        /// How long to wait.
        retry_after: Duration,
    },
    /// No such account, or its connection was deleted.
    #[error("no connection is set up for this account")]
    ConnectionNotFound,
    /// Disabled by support.
    #[error("the account's connection is disabled")]
    ConnectionDisabled,
    /// Issuer or client changed between begin and complete.
    #[error("the account's connection changed since this login began")]
    ConnectionChanged,
    /// The state can't be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The state was issued here and is in time, but its login is no longer in the store.
    #[error("this login was finished before, or the store has lost it")]
    StateUsed,
    /// `iss` of begin or of the callback is not the connection's issuer.
    #[error(
        "iss is {}, expected {expected:?}",
        .actual.as_ref().map_or("missing, though the IdP advertises it".to_owned(), |iss| format!("{iss:?}"))
    )]
    IssuerMismatch {
        /// The connection's issuer.
        expected: String,
        /// The received value; `None`: missing.
        actual: Option<String>,
    },
    /// The IdP answered with an error.
    #[error("the IdP refused the login: {}", .0.error)]
    IdpRefused(IdpRefusal),
    /// The IdP's metadata or keys can't be used.
    #[error(transparent)]
    Provider(ProviderError),
    /// The code was not exchanged for tokens.
    #[error(transparent)]
    Exchange(ExchangeError),
    /// The active client secret was rejected, and the standby secret is being proven to take its place.
    #[error("{0}; the standby secret takes the place of the active one if the IdP accepts it")]
    SecretSwitch(ExchangeError),
    /// The ID token proves nothing.
    #[error(transparent)]
    IdToken(IdTokenError),
    /// UserInfo was needed and can't be used.
    #[error(transparent)]
    UserInfo(UserInfoError),
    /// The claims make no identity.
    #[error("{error}")]
    Claims {
        /// What is wrong with them.
        error: ClaimsError,
        /// The IdP's issuer, for the remedy.
        issuer: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The whole call took too long.
    #[error("the login took longer than {RPC_DEADLINE:?}")]
    DeadlineExceeded,
}

/// Which limit of begun logins is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RateLimitedBy {
    /// `client_key`'s.
    #[error("from this network")]
    Client,
    /// The account's.
    #[error("at this account")]
    Account,
}

impl RateLimitedBy {
    /// The setting that the operator raises.
    #[must_use]
    pub fn setting(self) -> &'static str {
        match self {
            Self::Client => "SSO_BEGIN_RATE_PER_CLIENT",
            Self::Account => "SSO_BEGIN_RATE",
        }
    }
}

impl LoginError {
    /// What exactly happened.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::BadRequest(_) => Cause::FieldInvalid,
            Self::RateLimited { by: RateLimitedBy::Client, .. } => Cause::ClientBeginRate,
            Self::RateLimited { by: RateLimitedBy::Account, .. } => Cause::AccountBeginRate,
            Self::ConnectionNotFound => Cause::ConnectionNotSetUp,
            Self::ConnectionDisabled => Cause::ConnectionDisabled,
            Self::ConnectionChanged => Cause::ConnectionChanged,
            Self::State(StateError::Invalid) => Cause::StateNotIssued,
            Self::State(StateError::Expired) => Cause::StateExpired,
            Self::State(StateError::BrowserMismatch) => Cause::BrowserMismatch,
            Self::StateUsed => Cause::StateSpent,
            Self::IssuerMismatch { actual: None, .. } => Cause::IssMissing,
            Self::IssuerMismatch { actual: Some(_), .. } => Cause::IssDiffers,
            Self::IdpRefused(refusal) => refusal.cause(),
            Self::Provider(error) => error.cause(),
            Self::Exchange(error) | Self::SecretSwitch(error) => error.cause(),
            Self::IdToken(error) => error.cause(),
            Self::UserInfo(error) => error.cause(),
            Self::Claims { error, .. } => error.cause(),
            Self::Store(error) => error.cause(),
            Self::DeadlineExceeded => Cause::Deadline,
        }
    }

    /// How long to wait before another attempt.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } => Some(*retry_after),
            Self::Provider(error) => error.retry_after(),
            Self::Exchange(ExchangeError::Call(error))
            | Self::UserInfo(UserInfoError::Call(error)) => error.retry_after(),
            _ => None,
        }
    }

    /// The IdP's error code.
    #[must_use]
    pub fn idp_error(&self) -> Option<&str> {
        match self {
            Self::IdpRefused(refusal) => Some(&refusal.error),
            Self::Exchange(error) | Self::SecretSwitch(error) => error.idp_error(),
            _ => None,
        }
    }

    /// The IdP's own words, sanitized and cut.
    #[must_use]
    pub fn idp_description(&self) -> Option<&str> {
        match self {
            Self::IdpRefused(refusal) => refusal.description.as_deref(),
            Self::Exchange(error) | Self::SecretSwitch(error) => error.idp_description(),
            _ => None,
        }
    }

    /// Which of the IdP's documents or answers could not be used.
    #[must_use]
    pub fn document(&self) -> Option<Document> {
        match self {
            Self::Provider(error) => error.document(),
            Self::Exchange(_) | Self::SecretSwitch(_) | Self::IdToken(_) => {
                Some(Document::TokenResponse)
            }
            Self::UserInfo(_) => Some(Document::UserInfo),
            _ => None,
        }
    }

    /// What was expected and what was received, to be kept with the attempt. `None`: the text could hold the
    /// value of a claim, or something of the service's own stores.
    pub(super) fn detail(&self) -> Option<String> {
        let text = match self {
            Self::Claims { .. } | Self::BadRequest(_) => return None,
            Self::Store(StoreError::ConnectionUnreadable { why, .. }) => why.to_string(),
            Self::Store(_) => return None,
            _ => self.to_string(),
        };
        Some(mask_emails(&sanitize(&text, MAX_DETAIL)))
    }

    /// Whether only an account with a connection is refused for this when its connection is looked up.
    fn is_of_account(&self) -> bool {
        matches!(
            self,
            Self::ConnectionDisabled | Self::Store(StoreError::ConnectionUnreadable { .. })
        )
    }

    /// Removes secrets from the texts of the IdP.
    pub(super) fn redact(&mut self, redactor: &Redactor) {
        match self {
            Self::IssuerMismatch { actual, .. } => {
                actual.iter_mut().for_each(|text| redactor.apply(text));
            }
            Self::IdpRefused(refusal) => refusal.redact(redactor),
            Self::Provider(error) => error.redact(redactor),
            Self::Exchange(error) | Self::SecretSwitch(error) => error.redact(redactor),
            Self::IdToken(error) => error.redact(redactor),
            Self::UserInfo(error) => error.redact(redactor),
            Self::Claims { error, .. } => error.redact(redactor),
            Self::BadRequest(_)
            | Self::RateLimited { .. }
            | Self::ConnectionNotFound
            | Self::ConnectionDisabled
            | Self::ConnectionChanged
            | Self::State(_)
            | Self::StateUsed
            | Self::Store(_)
            | Self::DeadlineExceeded => {}
        }
    }
}

/// Characters of a refusal's text that are kept with the attempt.
const MAX_DETAIL: usize = 300;
/// Each call, whatever the IdP and the stores do.
pub const RPC_DEADLINE: Duration = Duration::from_secs(20);
