//! The signing keys of identity tokens: read from the store, made when one is due, published as a key
//! set, and deleted once every token that they signed has expired. All replicas share them.
//!
//! A new key is published some time before it signs, so that a backend that caches the key set never
//! meets a token by a key that it doesn't know.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
    ParsedPublicKey, UnparsedPublicKey,
};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{ALG, IdentityTokenError, IdentityTokenPolicy, IdentityTokens, NEVER};
use crate::model::time::{MonotonicMillis, UnixSeconds};
use crate::store::{SigningKeyEntry, StoreError, StoredSigningKey};

/// The keys in use.
pub(super) struct Keys {
    pub(super) signing: Option<Arc<Key>>,
    pub(super) published: Vec<Arc<Key>>,
    pub(super) jwks: String,
}

/// A signing key, parsed.
pub(super) struct Key {
    generation: u64,
    created_at: UnixSeconds,
    pub(super) kid: String,
    pub(super) pair: EcdsaKeyPair,
    pub(super) public: ParsedPublicKey,
    jwk: Value,
}

impl IdentityTokens {
    /// Reads the keys again if the last time is [`IdentityTokenPolicy::read_interval`] ago, makes a new
    /// key when one is due, and deletes keys whose tokens have all expired. To be called regularly.
    ///
    /// # Errors
    /// The store failed. The keys that are known stay in use.
    pub async fn keep_keys(&self) -> Result<(), IdentityTokenError> {
        if self.was_read_within(self.policy.read_interval) && self.ready().is_ok() {
            Ok(())
        } else {
            self.read_keys().await
        }
    }

    /// The published key with this id. Another replica may just have made it, so an unknown one is looked
    /// for in the store, at most once per [`UNKNOWN_KEY_INTERVAL`].
    pub(super) async fn published_key(
        &self,
        kid: &str,
    ) -> Result<Option<Arc<Key>>, IdentityTokenError> {
        let find = || self.keys.load().published.iter().find(|key| key.kid == kid).cloned();
        if let Some(key) = find() {
            return Ok(Some(key));
        }
        if self.was_read_within(UNKNOWN_KEY_INTERVAL) {
            return Ok(None);
        }
        self.read_keys().await?;
        Ok(find())
    }

    fn was_read_within(&self, interval: Duration) -> bool {
        let read_at = self.read_at.load(Ordering::Acquire);
        read_at != NEVER && self.clock.monotonic().since(MonotonicMillis(read_at)) < interval
    }

    async fn read_keys(&self) -> Result<(), IdentityTokenError> {
        let now = self.clock.unix_seconds();
        self.read_at.store(self.clock.monotonic().0, Ordering::Release);
        let (mut keys, newest) = self.stored_keys().await?;
        // Published before anything is written: a failed write must not hold back good keys.
        self.publish(&keys, now);
        let ages: Vec<_> = keys.iter().map(|key| key.age()).collect();
        if is_due(&self.policy, &ages, now) {
            let generation = newest.saturating_add(1);
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(
                &ECDSA_P256_SHA256_FIXED_SIGNING,
                &SystemRandom::new(),
            );
            let pkcs8 =
                Zeroizing::new(pkcs8.map_err(|_| IdentityTokenError::NoKey)?.as_ref().to_vec());
            // If several replicas make a key at the same time, the store keeps one, and all read that.
            let key = StoredSigningKey { generation, created_at: now, pkcs8 };
            self.stored.call(|store| store.add_signing_key(&key)).await?;
            tracing::info!(generation, "created a signing key for identity tokens");
            (keys, _) = self.stored_keys().await?;
            self.publish(&keys, now);
        }
        let ages: Vec<_> = keys.iter().map(|key| key.age()).collect();
        for generation in expired(&self.policy, &ages, now) {
            self.stored.call(|store| store.forget_signing_key(generation)).await?;
        }
        Ok(())
    }

    /// The usable keys, and the newest generation, whether usable or not; 0: there is none.
    async fn stored_keys(&self) -> Result<(Vec<Arc<Key>>, u64), StoreError> {
        let stored = self.stored.call(|store| store.signing_keys()).await?;
        Ok((usable_keys(&stored), stored.iter().map(generation).max().unwrap_or_default()))
    }

    fn publish(&self, keys: &[Arc<Key>], now: UnixSeconds) {
        let ages: Vec<_> = keys.iter().map(|key| key.age()).collect();
        let expired = expired(&self.policy, &ages, now);
        let signing = signing_index(&self.policy, &ages, now).and_then(|index| keys.get(index));
        let published: Vec<_> =
            keys.iter().filter(|key| !expired.contains(&key.generation)).cloned().collect();
        self.keys.store(Arc::new(Keys::new(signing.cloned(), published)));
    }
}

impl Keys {
    pub(super) fn new(signing: Option<Arc<Key>>, published: Vec<Arc<Key>>) -> Self {
        let jwks = json!({ "keys": published.iter().map(|key| &key.jwk).collect::<Vec<_>>() });
        Self { signing, jwks: jwks.to_string(), published }
    }
}

/// What decides a key's use: its generation, and when it was made.
#[derive(Clone, Copy)]
struct KeyAge {
    generation: u64,
    created_at: UnixSeconds,
}

/// Whether a new key must be made. `keys`: oldest first, also below.
fn is_due(policy: &IdentityTokenPolicy, keys: &[KeyAge], now: UnixSeconds) -> bool {
    let lifetime = policy.key_lifetime - publication_lead(policy);
    keys.last().is_none_or(|newest| now >= newest.created_at.after(lifetime))
}

/// The newest key that has been published for long enough, or else the oldest.
fn signing_index(policy: &IdentityTokenPolicy, keys: &[KeyAge], now: UnixSeconds) -> Option<usize> {
    let may_sign = |key: &KeyAge| now >= key.created_at.after(publication_lead(policy));
    let oldest = (!keys.is_empty()).then_some(0);
    keys.iter().rposition(may_sign).or(oldest)
}

/// The generations of the keys whose tokens have all expired.
fn expired(policy: &IdentityTokenPolicy, keys: &[KeyAge], now: UnixSeconds) -> Vec<u64> {
    let Some(signing) = signing_index(policy, keys, now).map(|index| keys[index]) else {
        return Vec::new();
    };
    // A replica may sign with the previous key until it reads the keys again.
    let overlap = policy.ttl + policy.read_interval * 4;
    if now < signing.created_at.after(publication_lead(policy)).after(overlap) {
        return Vec::new();
    }
    let generations = keys.iter().map(|key| key.generation);
    generations.filter(|generation| *generation < signing.generation).collect()
}

/// How long a key is published before it signs.
fn publication_lead(policy: &IdentityTokenPolicy) -> Duration {
    (policy.key_lifetime / 4).min(MAX_PUBLICATION_LEAD)
}

/// The keys, oldest first. A key that can't be parsed is logged and left out.
fn generation(entry: &SigningKeyEntry) -> u64 {
    match entry {
        SigningKeyEntry::Key(key) => key.generation,
        SigningKeyEntry::Unreadable { generation } => *generation,
    }
}

fn usable_keys(stored: &[SigningKeyEntry]) -> Vec<Arc<Key>> {
    let parse = |entry: &SigningKeyEntry| match entry {
        SigningKeyEntry::Key(key) => Key::parse(key),
        SigningKeyEntry::Unreadable { .. } => None,
    };
    let mut keys: Vec<_> = stored.iter().filter_map(parse).map(Arc::new).collect();
    keys.sort_by_key(|key| key.generation);
    keys
}

impl Key {
    fn parse(stored: &StoredSigningKey) -> Option<Self> {
        let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &stored.pkcs8)
        else {
            let generation = stored.generation;
            tracing::error!(generation, "failed to parse a signing key for identity tokens");
            return None;
        };
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key().as_ref())
            .parse()
            .ok()?;
        // The uncompressed point: 4, x, y (SEC 1 2.3.3).
        let (x, y) = pair.public_key().as_ref().get(1..)?.split_at_checked(32)?;
        let (x, y) = (BASE64_URL_SAFE_NO_PAD.encode(x), BASE64_URL_SAFE_NO_PAD.encode(y));
        // The JWK thumbprint (RFC 7638 3.1).
        let thumbprint = digest::digest(
            &digest::SHA256,
            format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#).as_bytes(),
        );
        let kid = BASE64_URL_SAFE_NO_PAD.encode(thumbprint);
        let jwk = json!({
            "kty": "EC", "crv": "P-256", "x": x, "y": y, "use": "sig", "alg": ALG, "kid": kid
        });
        Some(Self {
            generation: stored.generation,
            created_at: stored.created_at,
            kid,
            pair,
            public,
            jwk,
        })
    }

    fn age(&self) -> KeyAge {
        KeyAge { generation: self.generation, created_at: self.created_at }
    }
}

/// How often a token with an unknown key id may cause a read of the store.
const UNKNOWN_KEY_INTERVAL: Duration = Duration::from_secs(5);
/// Longer than backends cache a key set.
const MAX_PUBLICATION_LEAD: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    fn policy() -> IdentityTokenPolicy {
        IdentityTokenPolicy {
            issuer: "https://sso.example".to_owned(),
            audience: "https://backends.example".to_owned(),
            ttl: Duration::from_secs(3600),
            key_lifetime: Duration::from_secs(30 * DAY),
            read_interval: Duration::from_secs(30),
        }
    }

    fn keys(created_at: &[u64]) -> Vec<KeyAge> {
        let key = |(generation, created_at): (u64, &u64)| KeyAge {
            generation,
            created_at: UnixSeconds(*created_at),
        };
        (1..).zip(created_at).map(key).collect()
    }

    #[test]
    fn a_key_is_published_a_day_before_it_signs_and_until_its_tokens_expire() {
        let second = 29 * DAY;
        let in_use = second + DAY;
        for (created_at, now, due, signing, gone) in [
            (&[][..], 0, true, None, &[][..]),
            (&[0], 0, false, Some(0), &[]),
            (&[0], second - 1, false, Some(0), &[]),
            (&[0], second, true, Some(0), &[]),
            (&[0, second], in_use - 1, false, Some(0), &[]),
            (&[0, second], in_use, false, Some(1), &[]),
            (&[0, second], in_use + 3600 + 119, false, Some(1), &[]),
            (&[0, second], in_use + 3600 + 120, false, Some(1), &[1]),
        ] {
            let (keys, now) = (keys(created_at), UnixSeconds(now));
            assert_eq!(is_due(&policy(), &keys, now), due, "{created_at:?} at {now:?}");
            assert_eq!(signing_index(&policy(), &keys, now), signing, "{created_at:?} at {now:?}");
            assert_eq!(expired(&policy(), &keys, now), gone, "{created_at:?} at {now:?}");
        }
    }

    #[test]
    fn an_unusable_key_is_left_out() {
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
                .expect("a key");
        let stored = |generation, pkcs8: &[u8]| {
            let (created_at, pkcs8) = (UnixSeconds(0), pkcs8.to_vec().into());
            SigningKeyEntry::Key(StoredSigningKey { generation, created_at, pkcs8 })
        };
        let entries = [
            stored(3, pkcs8.as_ref()),
            stored(2, b"x"),
            stored(1, pkcs8.as_ref()),
            SigningKeyEntry::Unreadable { generation: 4 },
        ];
        assert_eq!(entries.iter().map(generation).max(), Some(4), "the next key's comes after it");
        let keys = usable_keys(&entries);
        let generations: Vec<_> = keys.iter().map(|key| key.generation).collect();
        assert_eq!(generations, [1, 3]);
        assert_eq!(keys[0].kid, keys[1].kid, "the id is the thumbprint of the key");
    }
}
