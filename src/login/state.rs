//! The `state` parameter and what is derived from it. The state itself shows, before any I/O, whether
//! it was issued here, for this account and browser, and is in time. From its random bytes come the
//! store's key and the key that seals the value.
//!
//! ```text
//! base64url( random 16 | issued at, seconds 8 | tag of all and the slug 16 | tag of the browser binding 16 )
//! ```

use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce as AeadNonce, UnboundKey};
use aws_lc_rs::{constant_time, digest, hmac};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use prost::Message;

use crate::entropy::Entropy;
use crate::model::connection::{Connection, Issuer};
use crate::model::login::{
    AuthorizationCode, BrowserBinding, ClientTag, Nonce, PendingLogin, PkceVerifier, StateParameter,
};
use crate::model::return_to::ReturnTo;
use crate::model::slug::Slug;
use crate::model::time::UnixSeconds;
use crate::store::PendingKey;
use crate::store::seal::{Keyring, MasterKey};

/// Why a state is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Never issued here, changed, or of another account.
    #[error("the state was not issued here for this account")]
    Invalid,
    /// Issued here, but too long ago.
    #[error("the login took longer than it may")]
    Expired,
    /// The browser binding is missing or different.
    #[error("the login was begun in another browser")]
    BrowserMismatch,
}

/// Issues states with the first master key, and reads states of every master key.
pub(super) struct StateKeys {
    keys: Vec<DerivedKeys>,
    ttl: Duration,
}

struct DerivedKeys {
    state_tag: hmac::Key,
    binding_tag: hmac::Key,
    pending_id: hmac::Key,
    pending_seal: hmac::Key,
    answer_id: hmac::Key,
    answer_seal: hmac::Key,
}

/// What is derived from a state that was issued here.
pub(super) struct Ticket {
    random: [u8; RANDOM_LEN],
    /// Which master key the state is of.
    master: usize,
    seal: LessSafeKey,
    /// The key of the pending login in the store.
    pub(super) key: PendingKey,
}

impl StateKeys {
    pub(super) fn new(keyring: &Keyring, ttl: Duration) -> Self {
        Self { keys: keyring.masters().map(DerivedKeys::of).collect(), ttl }
    }

    /// A new state from `entropy`.
    pub(super) fn issue(
        &self,
        entropy: &dyn Entropy,
        slug: &Slug,
        binding: Option<&BrowserBinding>,
        now: UnixSeconds,
    ) -> (StateParameter, Ticket) {
        let mut random = [0; RANDOM_LEN];
        entropy.fill(&mut random);
        let (master, keys) = (0, &self.keys[0]);
        let issued_at = now.0.to_be_bytes();
        let binding_tag = keys.binding_tag(&random, binding);
        let tag = keys.state_tag(&random, issued_at, slug, &binding_tag);
        let bytes = [random.as_slice(), &issued_at, &tag, &binding_tag].concat();
        (StateParameter::new(BASE64_URL_SAFE_NO_PAD.encode(bytes)), keys.ticket(master, random))
    }

    /// Checks a state that was received.
    pub(super) fn admit(
        &self,
        state: &StateParameter,
        slug: &Slug,
        binding: Option<&BrowserBinding>,
        now: UnixSeconds,
    ) -> Result<Ticket, StateError> {
        let bytes =
            BASE64_URL_SAFE_NO_PAD.decode(state.expose()).map_err(|_| StateError::Invalid)?;
        let bytes: [u8; STATE_LEN] = bytes.try_into().map_err(|_| StateError::Invalid)?;
        let (random, rest) = bytes.split_first_chunk::<RANDOM_LEN>().ok_or(StateError::Invalid)?;
        let (issued_at, rest) = rest.split_at(TIME_LEN);
        let (tag, binding_tag) = rest.split_at(TAG_LEN);
        let issued_at: [u8; TIME_LEN] = issued_at.try_into().map_err(|_| StateError::Invalid)?;
        let is_ours = |(_, keys): &(usize, &DerivedKeys)| {
            is_equal(&keys.state_tag(random, issued_at, slug, binding_tag), tag)
        };
        let found = self.keys.iter().enumerate().find(is_ours);
        let (master, keys) = found.ok_or(StateError::Invalid)?;
        let issued_at = UnixSeconds(u64::from_be_bytes(issued_at));
        // One from the future is in time: it was issued before the clock was set back. Nobody else can
        // make one, and it doesn't live longer than its pending login in the store.
        if now >= issued_at.after(self.ttl) {
            return Err(StateError::Expired);
        }
        if !is_equal(&keys.binding_tag(random, binding), binding_tag) {
            return Err(StateError::BrowserMismatch);
        }
        Ok(keys.ticket(master, *random))
    }

    /// The store's key of the answer to this callback, and the key that seals it.
    pub(super) fn answer_keys(
        &self,
        ticket: &Ticket,
        code: &AuthorizationCode,
        binding: &BrowserBinding,
    ) -> (PendingKey, LessSafeKey) {
        let keys = &self.keys[ticket.master];
        let code = digest::digest(&digest::SHA256, code.expose().as_bytes());
        let parts: [&[u8]; 3] = [&ticket.random, code.as_ref(), binding.expose().as_bytes()];
        let id: [u8; TAG_LEN] = mac(&keys.answer_id, &parts);
        (store_key(&id), sealing_key(&mac(&keys.answer_seal, &parts)))
    }
}

impl DerivedKeys {
    fn of(master: &MasterKey) -> Self {
        let key = |label: &str| hmac::Key::new(hmac::HMAC_SHA256, master.derive(label).as_slice());
        Self {
            state_tag: key("state tag"),
            binding_tag: key("browser binding tag"),
            pending_id: key("pending login id"),
            pending_seal: key("pending login seal"),
            answer_id: key("answer id"),
            answer_seal: key("answer seal"),
        }
    }

    fn state_tag(
        &self,
        random: &[u8],
        issued_at: [u8; TIME_LEN],
        slug: &Slug,
        binding_tag: &[u8],
    ) -> [u8; TAG_LEN] {
        mac(&self.state_tag, &[random, &issued_at, binding_tag, slug.as_str().as_bytes()])
    }

    /// A login without a binding has a tag too, so that a state doesn't show whether it has one, and only
    /// the same is accepted.
    fn binding_tag(&self, random: &[u8], binding: Option<&BrowserBinding>) -> [u8; TAG_LEN] {
        match binding {
            Some(binding) => {
                mac(&self.binding_tag, &[random, b"\x01", binding.expose().as_bytes()])
            }
            None => mac(&self.binding_tag, &[random, b"\x00"]),
        }
    }

    fn ticket(&self, master: usize, random: [u8; RANDOM_LEN]) -> Ticket {
        let id: [u8; TAG_LEN] = mac(&self.pending_id, &[&random]);
        let seal = sealing_key(&mac(&self.pending_seal, &[&random]));
        Ticket { random, master, seal, key: store_key(&id) }
    }
}

impl Ticket {
    /// The value for the store.
    pub(super) fn seal(&self, slug: &Slug, pending: &PendingLogin) -> Vec<u8> {
        let record = PendingRecord {
            nonce: pending.nonce.expose().to_owned(),
            verifier: pending.verifier.expose().to_owned(),
            incarnation: pending.incarnation,
            relying_party: pending.relying_party.to_vec(),
            max_age: pending.max_age.map(|max_age| max_age.as_secs()),
            client: pending.client.map(|client| client.0),
            return_to: pending.return_to.as_ref().map(|return_to| return_to.as_str().to_owned()),
        };
        seal(&self.seal, slug, record.encode_to_vec())
    }

    /// `None`: the value was not sealed by this ticket for this account.
    pub(super) fn open(&self, slug: &Slug, value: Vec<u8>) -> Option<PendingLogin> {
        let record = PendingRecord::decode(&*open(&self.seal, slug, value)?).ok()?;
        Some(PendingLogin {
            nonce: Nonce::new(record.nonce),
            verifier: PkceVerifier::new(record.verifier),
            incarnation: record.incarnation,
            relying_party: record.relying_party.try_into().ok()?,
            max_age: record.max_age.map(Duration::from_secs),
            client: record.client.map(ClientTag),
            return_to: record.return_to.map(ReturnTo::from_store),
        })
    }
}

/// Seals the one value that the key seals, so the nonce is constant.
pub(super) fn seal(key: &LessSafeKey, slug: &Slug, mut value: Vec<u8>) -> Vec<u8> {
    key.seal_in_place_append_tag(zero_nonce(), Aad::from(slug.as_str()), &mut value)
        .expect("a value is shorter than AES-GCM's limit");
    value
}

/// `None`: the value was not sealed under this key for this account.
pub(super) fn open(key: &LessSafeKey, slug: &Slug, mut value: Vec<u8>) -> Option<Vec<u8>> {
    let opened = key.open_in_place(zero_nonce(), Aad::from(slug.as_str()), &mut value).ok()?;
    let length = opened.len();
    value.truncate(length);
    Some(value)
}

fn sealing_key(bytes: &[u8; SEAL_KEY_LEN]) -> LessSafeKey {
    let key = UnboundKey::new(&AES_256_GCM, bytes).expect("32 bytes make an AES-256 key");
    LessSafeKey::new(key)
}

fn store_key(id: &[u8; TAG_LEN]) -> PendingKey {
    PendingKey::new(BASE64_URL_SAFE_NO_PAD.encode(id))
}

/// A digest of issuer and client id, by which a pending login remembers with which it began.
pub(super) fn relying_party(issuer: &Issuer, connection: &Connection) -> [u8; 16] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [issuer.as_str(), &connection.settings.client_id] {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    let mut out = [0; 16];
    out.copy_from_slice(&context.finish().as_ref()[..16]);
    out
}

/// A digest of a `client_key`.
pub(super) fn client_tag(client_key: &str) -> ClientTag {
    let digest = digest::digest(&digest::SHA256, client_key.as_bytes());
    let first = digest.as_ref().first_chunk().copied().unwrap_or_default();
    ClientTag(u32::from_be_bytes(first))
}

/// A pending login in the store. Fields are only ever added, so that two versions of the service can
/// share a Redis.
#[derive(Clone, PartialEq, Message)]
struct PendingRecord {
    #[prost(string, tag = "1")]
    nonce: String,
    #[prost(string, tag = "2")]
    verifier: String,
    #[prost(uint64, tag = "3")]
    incarnation: u64,
    #[prost(bytes = "vec", tag = "4")]
    relying_party: Vec<u8>,
    #[prost(uint64, optional, tag = "5")]
    max_age: Option<u64>,
    #[prost(string, optional, tag = "6")]
    return_to: Option<String>,
    #[prost(fixed32, optional, tag = "7")]
    client: Option<u32>,
}

/// HMAC-SHA256 over parts whose lengths are fixed except for the last, truncated to `N` bytes.
fn mac<const N: usize>(key: &hmac::Key, parts: &[&[u8]]) -> [u8; N] {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; N];
    out.copy_from_slice(&context.sign().as_ref()[..N]);
    out
}

fn is_equal(a: &[u8], b: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(a, b).is_ok()
}

fn zero_nonce() -> AeadNonce {
    AeadNonce::assume_unique_for_key([0; 12])
}

const RANDOM_LEN: usize = 16;
const TIME_LEN: usize = 8;
const TAG_LEN: usize = 16;
const SEAL_KEY_LEN: usize = 32;
const STATE_LEN: usize = RANDOM_LEN + TIME_LEN + 2 * TAG_LEN;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SystemEntropy;

    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

    fn slug(text: &str) -> Slug {
        Slug::parse(text).expect("a slug")
    }

    fn keys_of(masters: &[&MasterKey]) -> StateKeys {
        let ring = Keyring::new(masters.iter().map(|master| (*master).clone()).collect())
            .expect("not empty");
        StateKeys::new(&ring, Duration::from_secs(900))
    }

    fn pending() -> PendingLogin {
        PendingLogin {
            nonce: Nonce::new("n".repeat(43)),
            verifier: PkceVerifier::new("v".repeat(43)),
            incarnation: u64::MAX,
            relying_party: [7; 16],
            max_age: Some(Duration::from_secs(31_622_400)),
            client: Some(client_tag("203.0.113.7")),
            return_to: None,
        }
    }

    #[test]
    fn a_state_is_admitted_only_where_and_while_it_is_valid() {
        let keys = keys_of(&[&MasterKey::generate(&SystemEntropy)]);
        let binding = BrowserBinding::new("b".repeat(16));
        let (state, _) = keys.issue(&SystemEntropy, &slug("acme"), Some(&binding), NOW);
        let admit = |slug: &Slug, binding, now| keys.admit(&state, slug, binding, now).err();
        assert_eq!(admit(&slug("acme"), Some(&binding), NOW), None);
        assert_eq!(admit(&slug("acme"), Some(&binding), UnixSeconds(NOW.0 + 899)), None);
        assert_eq!(
            admit(&slug("acme"), Some(&binding), UnixSeconds(NOW.0 + 900)),
            Some(StateError::Expired)
        );
        assert_eq!(admit(&slug("acme"), Some(&binding), UnixSeconds(NOW.0 - 60)), None);
        let set_back = UnixSeconds(NOW.0 - 60 * 60);
        assert_eq!(admit(&slug("acme"), Some(&binding), set_back), None);
        assert_eq!(admit(&slug("other"), Some(&binding), set_back), Some(StateError::Invalid));
        assert_eq!(admit(&slug("other"), Some(&binding), NOW), Some(StateError::Invalid));
        assert_eq!(admit(&slug("acme"), None, NOW), Some(StateError::BrowserMismatch));
        let foreign = BrowserBinding::new("c".repeat(16));
        assert_eq!(admit(&slug("acme"), Some(&foreign), NOW), Some(StateError::BrowserMismatch));
        let (unbound, _) = keys.issue(&SystemEntropy, &slug("acme"), None, NOW);
        assert_eq!(
            keys.admit(&unbound, &slug("acme"), Some(&binding), NOW).err(),
            Some(StateError::BrowserMismatch)
        );
    }

    #[test]
    fn every_changed_bit_of_a_state_is_noticed() {
        let keys = keys_of(&[&MasterKey::generate(&SystemEntropy)]);
        let (state, _) = keys.issue(&SystemEntropy, &slug("acme"), None, NOW);
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(state.expose()).expect("base64url");
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let changed = StateParameter::new(BASE64_URL_SAFE_NO_PAD.encode(changed));
            assert_eq!(
                keys.admit(&changed, &slug("acme"), None, NOW).err(),
                Some(StateError::Invalid),
                "bit {bit}"
            );
        }
    }

    proptest::proptest! {
        /// Nothing that wasn't issued is admitted, and nothing panics.
        #[test]
        fn made_up_states_are_invalid(text in "[A-Za-z0-9_=+/ -]{0,120}", now in proptest::prelude::any::<u64>()) {
            let keys = keys_of(&[&MasterKey::generate(&SystemEntropy)]);
            let admitted = keys.admit(&StateParameter::new(text), &slug("acme"), None, UnixSeconds(now));
            proptest::prop_assert_eq!(admitted.err(), Some(StateError::Invalid));
        }
    }

    #[test]
    fn a_login_goes_on_while_keys_are_rotated() {
        let (old, new) = (MasterKey::generate(&SystemEntropy), MasterKey::generate(&SystemEntropy));
        let (state, ticket) = keys_of(&[&old]).issue(&SystemEntropy, &slug("acme"), None, NOW);
        let sealed = ticket.seal(&slug("acme"), &pending());
        let rotated =
            keys_of(&[&new, &old]).admit(&state, &slug("acme"), None, NOW).expect("admitted");
        assert!(rotated.key == ticket.key);
        assert!(rotated.open(&slug("acme"), sealed.clone()).is_some());
        assert!(rotated.open(&slug("other"), sealed.clone()).is_none());
        assert!(keys_of(&[&new]).admit(&state, &slug("acme"), None, NOW).is_err());
    }

    #[test]
    fn a_pending_login_takes_at_most_300_bytes_of_the_store() {
        let (_, ticket) = keys_of(&[&MasterKey::generate(&SystemEntropy)]).issue(
            &SystemEntropy,
            &slug("acme"),
            None,
            NOW,
        );
        assert!(ticket.seal(&slug(&"x".repeat(63)), &pending()).len() <= 300);
    }
}
