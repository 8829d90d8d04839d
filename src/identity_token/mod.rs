//! Who a person is, told to other backends: a JWT that this service signs (ES256), which any JWT library verifies by the
//! published keys, and which the service reads back for backends that only speak gRPC.
//!
//! Signing keys are made here, kept sealed in SQL, and shared by all replicas. A new one is published some time before it
//! signs, and an old one stays published until the last token that it signed has expired, so that nobody who keeps the key
//! set for a while meets a key that isn't in it.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
    ParsedPublicKey, UnparsedPublicKey,
};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::model::cause::Cause;
use crate::model::identity::Identity;
use crate::model::time::UnixSeconds;
use crate::store::{DeferredStore, SigningKeys, StoreError, StoredSigningKey};

/// For whom tokens are, and for how long.
#[derive(Clone, Debug)]
pub struct IdentityTokenPolicy {
    /// `iss`: the service's public URL.
    pub issuer: String,
    /// `aud`: the backends that accept them.
    pub audience: String,
    /// Between `iat` and `exp`.
    pub ttl: Duration,
    /// How long a key signs.
    pub key_lifetime: Duration,
}

/// Why there is no token, or why one tells nobody's identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityTokenError {
    /// The signing keys were not read yet, or can't be.
    #[error("no signing key is known yet")]
    NoKey,
    /// Not one of this service's tokens for this audience.
    #[error("{0}")]
    Invalid(&'static str),
    /// It was one.
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

/// Issues and reads identity tokens.
pub struct IdentityTokens {
    policy: IdentityTokenPolicy,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    stored: Arc<DeferredStore<dyn SigningKeys>>,
    keys: ArcSwap<Keys>,
    /// Seconds since the Unix epoch.
    read_at: AtomicU64,
}

#[derive(Default)]
struct Keys {
    signing: Option<Arc<Key>>,
    published: Vec<Arc<Key>>,
    jwks: String,
}

struct Key {
    generation: u64,
    created_at: UnixSeconds,
    kid: String,
    pair: EcdsaKeyPair,
    public: ParsedPublicKey,
    jwk: Value,
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'a str,
    typ: &'a str,
    kid: &'a str,
}

/// RFC 7519 4.1, and the Identity's fields beside.
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
    /// Without keys until [`IdentityTokens::keep_keys`] has found or made one.
    #[must_use]
    pub fn new(
        policy: IdentityTokenPolicy,
        stored: Arc<DeferredStore<dyn SigningKeys>>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        let keys = ArcSwap::from_pointee(Keys { jwks: jwks_of(&[]), ..Keys::default() });
        Self { policy, clock, entropy, stored, keys, read_at: AtomicU64::new(0) }
    }

    /// Whether a token could be issued now; to be asked before a login is spent for it.
    ///
    /// # Errors
    /// [`IdentityTokenError::NoKey`]
    pub fn ready(&self) -> Result<(), IdentityTokenError> {
        self.keys.load().signing.as_ref().map(|_| ()).ok_or(IdentityTokenError::NoKey)
    }

    /// A token that tells who this person is.
    ///
    /// # Errors
    /// [`IdentityTokenError::NoKey`]
    pub fn issue(&self, identity: &Identity) -> Result<String, IdentityTokenError> {
        let key = self.keys.load().signing.clone().ok_or(IdentityTokenError::NoKey)?;
        let now = self.clock.unix_seconds();
        let mut jti = [0; 16];
        self.entropy.fill(&mut jti);
        let payload = Payload {
            iss: self.policy.issuer.clone(),
            sub: stable_id(identity),
            aud: self.policy.audience.clone(),
            iat: now,
            exp: now.after(self.policy.ttl),
            jti: BASE64_URL_SAFE_NO_PAD.encode(jti),
            identity: Cow::Borrowed(identity),
        };
        let header = encoded(&Header { alg: ALG, typ: TYP, kid: &key.kid })?;
        let message = format!("{header}.{}", encoded(&payload)?);
        let signature = key
            .pair
            .sign(&SystemRandom::new(), message.as_bytes())
            .map_err(|_| IdentityTokenError::NoKey)?;
        Ok(format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
    }

    /// Whose identity a token tells.
    ///
    /// # Errors
    /// See [`IdentityTokenError`].
    pub async fn verify(&self, token: &str) -> Result<Identity, IdentityTokenError> {
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(IdentityTokenError::Invalid("it is no signed JWT"));
        };
        let read: Value = decoded(header)?;
        if read.get("alg").and_then(Value::as_str) != Some(ALG) {
            return Err(IdentityTokenError::Invalid("its alg is not ES256"));
        }
        // An ID token, or any other of the many things that are JWTs, says that it is something else (RFC 8725 3.11).
        if !read.get("typ").and_then(Value::as_str).is_some_and(|typ| typ.eq_ignore_ascii_case(TYP))
        {
            return Err(IdentityTokenError::Invalid("its typ is not identity+jwt"));
        }
        if read.get("crit").is_some() {
            return Err(IdentityTokenError::Invalid("it demands an extension (crit)"));
        }
        let kid = read
            .get("kid")
            .and_then(Value::as_str)
            .ok_or(IdentityTokenError::Invalid("it names no key (kid)"))?;
        let key = self
            .key(kid)
            .await?
            .ok_or(IdentityTokenError::Invalid("its key is not one of this service's"))?;
        let signature = BASE64_URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| IdentityTokenError::Invalid(BAD_SIGNATURE))?;
        let signed = format!("{header}.{payload}");
        key.public
            .verify_sig(signed.as_bytes(), &signature)
            .map_err(|_| IdentityTokenError::Invalid(BAD_SIGNATURE))?;
        let payload: Payload<'_> = decoded(payload)?;
        if payload.iss != self.policy.issuer {
            return Err(IdentityTokenError::Invalid("its iss is not this service"));
        }
        if payload.aud != self.policy.audience {
            return Err(IdentityTokenError::Invalid("its aud is another audience"));
        }
        let now = self.clock.unix_seconds();
        if now >= payload.exp {
            return Err(IdentityTokenError::Expired);
        }
        if payload.iat > now.after(REPLICA_SKEW) {
            return Err(IdentityTokenError::Invalid("it was issued in the future"));
        }
        Ok(payload.identity.into_owned())
    }

    /// The public keys: a JWK Set (RFC 7517 5).
    #[must_use]
    pub fn jwks(&self) -> String {
        self.keys.load().jwks.clone()
    }

    /// Reads the keys where that was long ago; makes one where one is due, and forgets those whose tokens have all expired.
    ///
    /// # Errors
    /// The store failed, or holds a key that can't be used; what is known stays in use.
    pub async fn keep_keys(&self) -> Result<(), IdentityTokenError> {
        let read_at = UnixSeconds(self.read_at.load(Ordering::Acquire));
        let age = self.clock.unix_seconds().since(read_at);
        if age < READ_INTERVAL && self.ready().is_ok() { Ok(()) } else { self.read_keys().await }
    }

    /// The key with this id; one that isn't known may have been made by another replica just now.
    async fn key(&self, kid: &str) -> Result<Option<Arc<Key>>, IdentityTokenError> {
        let find = || self.keys.load().published.iter().find(|key| key.kid == kid).cloned();
        if let Some(key) = find() {
            return Ok(Some(key));
        }
        let now = self.clock.unix_seconds();
        let read_at = UnixSeconds(self.read_at.load(Ordering::Acquire));
        if now < read_at.after(UNKNOWN_KEY_INTERVAL) {
            return Ok(None);
        }
        // A caller waits here, so the store has no longer than for everything else that callers wait for.
        self.read_keys().await?;
        Ok(find())
    }

    async fn read_keys(&self) -> Result<(), IdentityTokenError> {
        let now = self.clock.unix_seconds();
        self.read_at.store(now.0, Ordering::Release);
        let mut keys = self.stored_keys().await?;
        // Before anything is written, which can fail where the keys themselves are good.
        self.publish(&keys, now);
        if self.is_due(&keys, now) {
            let generation = keys.last().map_or(1, |newest| newest.generation.saturating_add(1));
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(
                &ECDSA_P256_SHA256_FIXED_SIGNING,
                &SystemRandom::new(),
            );
            let pkcs8 =
                Zeroizing::new(pkcs8.map_err(|_| IdentityTokenError::NoKey)?.as_ref().to_vec());
            // Of replicas that find at once that one is due, one's key is kept, and all read it.
            let key = StoredSigningKey { generation, created_at: now, pkcs8 };
            self.stored.call(|store| store.add_signing_key(&key)).await?;
            tracing::info!(generation, "a new key for identity tokens was made");
            keys = self.stored_keys().await?;
            self.publish(&keys, now);
        }
        let signing = self.signing_key(&keys, now);
        for key in keys.iter().filter(|key| self.is_over(key, signing.as_ref(), now)) {
            self.stored.call(|store| store.forget_signing_key(key.generation)).await?;
        }
        Ok(())
    }

    async fn stored_keys(&self) -> Result<Vec<Arc<Key>>, StoreError> {
        Ok(parsed(self.stored.call(|store| store.signing_keys()).await?))
    }

    fn publish(&self, keys: &[Arc<Key>], now: UnixSeconds) {
        let signing = self.signing_key(keys, now);
        let keys: Vec<_> =
            keys.iter().filter(|key| !self.is_over(key, signing.as_ref(), now)).cloned().collect();
        self.keys.store(Arc::new(Keys { jwks: jwks_of(&keys), signing, published: keys }));
    }

    fn is_due(&self, keys: &[Arc<Key>], now: UnixSeconds) -> bool {
        let lifetime = self.policy.key_lifetime;
        keys.last().is_none_or(|newest| now >= newest.created_at.after(lifetime - self.ahead()))
    }

    /// The newest that has been published for long enough; the oldest where none has.
    fn signing_key(&self, keys: &[Arc<Key>], now: UnixSeconds) -> Option<Arc<Key>> {
        let is_settled = |key: &&Arc<Key>| now >= key.created_at.after(self.ahead());
        keys.iter().rev().find(is_settled).or_else(|| keys.first()).cloned()
    }

    /// Whether every token that the key signed has expired.
    fn is_over(&self, key: &Key, signing: Option<&Arc<Key>>, now: UnixSeconds) -> bool {
        let in_use_since = |signing: &Arc<Key>| signing.created_at.after(self.ahead());
        signing.is_some_and(|signing| {
            key.generation < signing.generation
                && now >= in_use_since(signing).after(self.policy.ttl + READ_INTERVAL * 4)
        })
    }

    /// How long a key is published before it signs.
    fn ahead(&self) -> Duration {
        (self.policy.key_lifetime / 4).min(PUBLISHED_AHEAD)
    }
}

/// Oldest first. One that can't be used is told and passed over.
fn parsed(stored: Vec<StoredSigningKey>) -> Vec<Arc<Key>> {
    let mut keys: Vec<_> = stored.iter().filter_map(Key::parse).map(Arc::new).collect();
    keys.sort_by_key(|key| key.generation);
    keys
}

impl Key {
    fn parse(stored: &StoredSigningKey) -> Option<Self> {
        let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &stored.pkcs8)
        else {
            tracing::error!(
                generation = stored.generation,
                "a stored key for identity tokens is none"
            );
            return None;
        };
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key().as_ref())
            .parse()
            .ok()?;
        // The uncompressed point: 4, x, y (SEC 1 2.3.3).
        let (x, y) = pair.public_key().as_ref().get(1..)?.split_at_checked(32)?;
        let (x, y) = (BASE64_URL_SAFE_NO_PAD.encode(x), BASE64_URL_SAFE_NO_PAD.encode(y));
        // RFC 7638 3.1.
        let thumbprint = digest::digest(
            &digest::SHA256,
            format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#).as_bytes(),
        );
        let kid = BASE64_URL_SAFE_NO_PAD.encode(thumbprint);
        let jwk = json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y, "use": "sig", "alg": ALG, "kid": kid });
        Some(Self {
            generation: stored.generation,
            created_at: stored.created_at,
            kid,
            pair,
            public,
            jwk,
        })
    }
}

fn jwks_of(keys: &[Arc<Key>]) -> String {
    json!({ "keys": keys.iter().map(|key| key.jwk.clone()).collect::<Vec<_>>() }).to_string()
}

/// The same for the same person whenever and however often they log in: of (slug, issuer, subject), each with its length.
fn stable_id(identity: &Identity) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [identity.slug.as_str(), identity.issuer.as_str(), identity.subject.as_str()] {
        context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        context.update(part.as_bytes());
    }
    BASE64_URL_SAFE_NO_PAD.encode(context.finish())
}

fn encoded(part: &impl Serialize) -> Result<String, IdentityTokenError> {
    let json = serde_json::to_vec(part)
        .map_err(|_| IdentityTokenError::Invalid("the identity is no JSON"))?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(json))
}

fn decoded<T: for<'de> Deserialize<'de>>(part: &str) -> Result<T, IdentityTokenError> {
    let bytes = BASE64_URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| IdentityTokenError::Invalid("it is no JWT"))?;
    serde_json::from_slice(&bytes)
        .map_err(|_| IdentityTokenError::Invalid("it is no identity token"))
}

const ALG: &str = "ES256";
const TYP: &str = "identity+jwt";
const BAD_SIGNATURE: &str = "its signature is not this service's";
/// Between the clocks of two replicas, for which a token may seem to be issued in the future.
const REPLICA_SKEW: Duration = Duration::from_secs(60);
/// How often the keys are read.
const READ_INTERVAL: Duration = Duration::from_secs(30);
/// How often a token by an unknown key may have them read.
const UNKNOWN_KEY_INTERVAL: Duration = Duration::from_secs(5);
/// How long a key is published before it signs: longer than anybody keeps a key set.
const PUBLISHED_AHEAD: Duration = Duration::from_secs(24 * 60 * 60);
