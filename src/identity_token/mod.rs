//! Identity tokens: JWTs signed by this service (ES256) that tell other backends who logged in. Any JWT
//! library can verify them with the published keys; the service verifies them for backends that only
//! speak gRPC. Called by `server`; must never contain a secret or a token of the IdP.

mod issue;
mod keys;
mod verify;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use self::keys::Keys;
use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::model::cause::Cause;
use crate::model::identity::Identity;
use crate::model::time::UnixSeconds;
use crate::store::{DeferredStore, SigningKeys, StoreError};

/// The claims and lifetimes of identity tokens and their keys.
#[derive(Clone, Debug)]
pub struct IdentityTokenPolicy {
    /// `iss`: the service's public URL.
    pub issuer: String,
    /// `aud`: the backends that accept the tokens.
    pub audience: String,
    /// From `iat` to `exp`.
    pub ttl: Duration,
    /// How long a key signs.
    pub key_lifetime: Duration,
    /// How often the keys are read from the store.
    pub read_interval: Duration,
}

/// Why a token can't be issued or is refused.
#[derive(Debug, thiserror::Error)]
pub enum IdentityTokenError {
    /// The signing keys have not been read yet, or can't be used.
    #[error("no signing key is known yet")]
    NoKey,
    /// Not a token of this service for this audience.
    #[error("{0}")]
    Invalid(&'static str),
    /// A valid token after its `exp`.
    #[error("the identity token has expired")]
    Expired,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl IdentityTokenError {
    /// What exactly happened.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::NoKey => Cause::SigningKeyUnavailable,
            Self::Invalid(_) => Cause::IdentityTokenInvalid,
            Self::Expired => Cause::IdentityTokenExpired,
            Self::Store(error) => error.cause(),
        }
    }
}

/// Issues and verifies identity tokens.
pub struct IdentityTokens {
    policy: IdentityTokenPolicy,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    stored: Arc<DeferredStore<dyn SigningKeys>>,
    keys: ArcSwap<Keys>,
    /// When the keys were last read, in [`MonotonicMillis`](crate::model::time::MonotonicMillis), or
    /// [`NEVER`].
    read_at: AtomicU64,
}

/// A time at which nothing was read.
const NEVER: u64 = u64::MAX;

/// The registered claims (RFC 7519 4.1) and the Identity's fields.
#[derive(Serialize, Deserialize)]
struct Payload<'a> {
    iss: String,
    sub: String,
    aud: String,
    iat: UnixSeconds,
    exp: UnixSeconds,
    jti: String,
    #[serde(flatten)]
    identity: Cow<'a, Identity>,
}

impl IdentityTokens {
    /// Has no keys until [`IdentityTokens::keep_keys`] has read or made one.
    #[must_use]
    pub fn new(
        policy: IdentityTokenPolicy,
        stored: Arc<DeferredStore<dyn SigningKeys>>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        let keys = ArcSwap::from_pointee(Keys::new(None, Vec::new()));
        Self { policy, clock, entropy, stored, keys, read_at: AtomicU64::new(NEVER) }
    }

    /// Whether a token can be issued now. Asked before a login is completed, so that no state is spent in
    /// vain.
    ///
    /// # Errors
    /// [`IdentityTokenError::NoKey`]
    pub fn ready(&self) -> Result<(), IdentityTokenError> {
        self.keys.load().signing.as_ref().map(|_| ()).ok_or(IdentityTokenError::NoKey)
    }

    /// The public keys: a JWK Set (RFC 7517 5).
    #[must_use]
    pub fn jwks(&self) -> String {
        self.keys.load().jwks.clone()
    }
}

const ALG: &str = "ES256";
/// Distinguishes identity tokens from every other kind of JWT (RFC 8725 3.11).
const TYP: &str = "identity+jwt";
/// How far the clocks of two replicas may differ.
const REPLICA_SKEW: Duration = Duration::from_secs(60);
