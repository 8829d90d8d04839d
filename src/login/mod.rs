//! The product: a person logs in at the IdP of an account, and out again. A verb is a file.
//!
//! | step | `begin` | `complete` |
//! |---|---|---|
//! | before any I/O | the request's `return_to` | the state itself: ours, of this account and browser, in time |
//! | connection, IdP | cached | cached; what is away here costs the person a retry, not the login |
//! | store | `put`: the state is known | `take`: the state is spent, whatever happens from here |
//! | IdP | | the code for tokens; the ID token is verified; UserInfo where a required claim is missing |
//! | answer | where to send the browser | who came back |
//!
//! Must never know gRPC, Redis or SQL.

pub mod attempts;
mod begin;
mod complete;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod limiter;
mod limits;
mod logout;
mod state;

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::model::Violation;
use crate::model::connection::{Connection, ConnectionState};
use crate::model::login::IdpRefusal;
use crate::model::rate::Rate;
use crate::model::return_to::ReturnRule;
use crate::model::slug::Slug;
use crate::oidc::claims::ClaimsError;
use crate::oidc::error::{ExchangeError, IdTokenError, ProviderError, UserInfoError};
use crate::oidc::provider::Provider;
use crate::oidc::providers::Providers;
use crate::store::cache::KnownConnections;
use crate::store::seal::Keyring;
use crate::store::{PendingLogins, StoreError};
use crate::telemetry::Phases;

pub use begin::BegunLogin;
pub use complete::{CompleteError, CompletedLogin, LoginProgress};
pub use logout::{LogoutRequest, LogoutTarget};
pub use state::StateError;

use limits::BeginLimits;
use state::StateKeys;

/// How logins are done here.
#[derive(Clone, Debug)]
pub struct LoginPolicy {
    /// How long a person has between begin and complete.
    pub state_ttl: Duration,
    /// Whether every login must be bound to a browser.
    pub require_browser_binding: bool,
    /// How many logins one network may begin.
    pub begin_rate_per_client: Rate,
    /// How many logins may begin at one connection.
    pub begin_rate: Rate,
    /// Where a login may lead.
    pub return_rule: ReturnRule,
    /// Scheme, host and port of the customer-facing URIs.
    pub public_origin: String,
}

/// The verbs of a login; one for the process.
pub struct Login {
    policy: LoginPolicy,
    state_keys: StateKeys,
    limits: BeginLimits,
    connections: Arc<KnownConnections>,
    pending: Arc<dyn PendingLogins>,
    providers: Arc<Providers>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl Login {
    /// Wires the product to what it works with.
    pub fn new(
        policy: LoginPolicy,
        keyring: &Keyring,
        connections: Arc<KnownConnections>,
        pending: Arc<dyn PendingLogins>,
        providers: Arc<Providers>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        let state_keys = StateKeys::new(keyring, policy.state_ttl);
        let limits =
            BeginLimits::new(policy.begin_rate_per_client, policy.begin_rate, Arc::clone(&clock));
        Self { policy, state_keys, limits, connections, pending, providers, clock, entropy }
    }

    /// Frees what the limits remember of those who are idle: to be called now and then.
    pub fn forget_idle(&self) {
        self.limits.forget_idle();
    }

    /// The account's connection, enabled, with its issuer known, and its IdP.
    async fn resolve(
        &self,
        slug: &Slug,
        phases: &mut Phases,
    ) -> Result<(Arc<Connection>, Arc<Provider>), LoginError> {
        let connection = self.connection(slug).await?;
        let provider = phases
            .timed("metadata", self.providers.of(&connection))
            .await
            .map_err(LoginError::Provider)?;
        if connection.issuer().is_some() {
            return Ok((connection, provider));
        }
        // First use: from here on the issuer is part of each person's key, and no document can change it.
        let connection = self.connections.pin_issuer(&connection, provider.issuer()).await?;
        let connection = connection.ok_or(LoginError::ConnectionNotFound)?;
        match connection.issuer() {
            Some(pinned) if pinned == provider.issuer() => Ok((connection, provider)),
            // Another replica read another issuer, or the connection was edited just now.
            _ => Err(LoginError::ConnectionChanged),
        }
    }

    async fn connection(&self, slug: &Slug) -> Result<Arc<Connection>, LoginError> {
        let connection = self.connections.get(slug).await?.ok_or(LoginError::ConnectionNotFound)?;
        match connection.settings.state {
            ConnectionState::Disabled => Err(LoginError::ConnectionDisabled),
            ConnectionState::Testing | ConnectionState::Active => Ok(connection),
        }
    }
}

/// Bounds a verb's whole time.
async fn within_deadline<T>(
    verb: impl Future<Output = Result<T, LoginError>>,
) -> Result<T, LoginError> {
    tokio::time::timeout(RPC_DEADLINE, verb).await.unwrap_or(Err(LoginError::DeadlineExceeded))
}

/// Why a login was refused. The texts name what was expected and what came, never a secret.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// A field is missing or malformed.
    #[error("the request is malformed")]
    BadRequest(Vec<Violation>),
    /// Too many logins were begun by this network, or at this account.
    #[error("too many logins were begun")]
    RateLimited {
        /// How long to wait.
        retry_after: Duration,
    },
    /// No such account, or deleted.
    #[error("no connection is set up for this account")]
    ConnectionNotFound,
    /// Disabled by support.
    #[error("the account's connection is disabled")]
    ConnectionDisabled,
    /// Issuer or client changed between begin and complete.
    #[error("the account's connection changed since this login began")]
    ConnectionChanged,
    /// The state is not one of a login that can go on.
    #[error(transparent)]
    State(#[from] StateError),
    /// The state was ours and in time, but its login isn't in the store any more.
    #[error("this login was finished before, or the store has lost it")]
    StateUsed,
    /// `iss` of begin or of the callback is not the connection's.
    #[error("iss is {actual}, the connection's issuer is {expected:?}")]
    IssuerMismatch {
        /// The connection's issuer.
        expected: String,
        /// What came, quoted, or "missing".
        actual: String,
    },
    /// The IdP answered `error=…`.
    #[error("the IdP refused the login: {}", .0.error)]
    IdpRefused(IdpRefusal),
    /// The IdP's metadata or keys can't be had.
    #[error(transparent)]
    Provider(ProviderError),
    /// The code wasn't exchanged.
    #[error(transparent)]
    Exchange(ExchangeError),
    /// The ID token is no proof.
    #[error(transparent)]
    IdToken(IdTokenError),
    /// UserInfo was needed and can't be used.
    #[error(transparent)]
    UserInfo(UserInfoError),
    /// The claims are no Identity; beside it the issuer, for the advice.
    #[error("{error}")]
    Claims {
        /// What is wrong.
        error: ClaimsError,
        /// Whose claims they are.
        issuer: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The whole took too long.
    #[error("the login took longer than {RPC_DEADLINE:?}")]
    DeadlineExceeded,
}

/// Each call, whatever the IdP and the stores do.
pub const RPC_DEADLINE: Duration = Duration::from_secs(20);
