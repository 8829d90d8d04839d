//! Seals stored secrets, and derives every other key of the service from the same master keys
//! (`SSO_ENCRYPTION_KEYS`). The first key seals, every key opens. Must never show or log a key.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::entropy::Entropy;

/// 256 random bits. The service's keys are derived from it by HKDF-SHA256 (RFC 5869), with one label per
/// purpose.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct MasterKey([u8; KEY_LEN]);

impl MasterKey {
    /// Generates a key.
    #[must_use]
    pub fn generate(entropy: &dyn Entropy) -> Self {
        let mut bytes = [0; KEY_LEN];
        entropy.fill(&mut bytes);
        Self(bytes)
    }

    /// Parses base64 (standard or URL-safe) of exactly 32 bytes; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let unpadded = text.trim().trim_end_matches('=').replace('+', "-").replace('/', "_");
        let bytes = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.decode(unpadded).ok()?);
        Some(Self(bytes.as_slice().try_into().ok()?))
    }

    /// Whether the bytes were not made by chance: few different ones, as in zeros or a repeated text, an
    /// arithmetic sequence, or printable text. Holds for one of 10^13 random keys.
    #[must_use]
    pub fn is_guessable(&self) -> bool {
        let mut occurs = [false; 256];
        self.0.iter().for_each(|byte| occurs[usize::from(*byte)] = true);
        let distinct = occurs.iter().filter(|occurs| **occurs).count();
        let step = self.0[1].wrapping_sub(self.0[0]);
        let is_sequence = self.0.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) == step);
        let is_text = self.0.iter().all(|byte| (b' '..=b'~').contains(byte));
        distinct < MIN_DISTINCT_BYTES || is_sequence || is_text
    }

    /// The key in base64, as [`MasterKey::parse`] accepts it.
    #[must_use]
    pub fn encoded(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE64_STANDARD.encode(self.0))
    }

    /// Derives the key for one purpose.
    #[must_use]
    pub fn derive(&self, label: &str) -> Zeroizing<[u8; KEY_LEN]> {
        let mut out = Zeroizing::new([0; KEY_LEN]);
        let prk = Salt::new(HKDF_SHA256, HKDF_SALT).extract(&self.0);
        let info = [label.as_bytes()];
        prk.expand(&info, HKDF_SHA256)
            .and_then(|okm| okm.fill(out.as_mut_slice()))
            .expect("HKDF-SHA256 can output 32 bytes");
        out
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey([redacted])")
    }
}

/// The configured master keys, the one that seals first; never empty.
#[derive(Clone, Debug)]
pub struct Keyring {
    keys: Vec<(MasterKey, SealingKey)>,
}

impl Keyring {
    /// `None` if there is no key.
    #[must_use]
    pub fn new(keys: Vec<MasterKey>) -> Option<Self> {
        let keys: Vec<_> = keys
            .into_iter()
            .map(|master| {
                let sealing = SealingKey::of(&master);
                (master, sealing)
            })
            .collect();
        (!keys.is_empty()).then_some(Self { keys })
    }

    /// The master keys, in order.
    pub fn masters(&self) -> impl Iterator<Item = &MasterKey> {
        self.keys.iter().map(|(master, _)| master)
    }

    /// Encrypts with the first key. The result is version, key id, nonce, AES-256-GCM ciphertext and tag.
    /// `context` is authenticated, so that the value opens only in the same place.
    #[must_use]
    pub fn seal(&self, entropy: &dyn Entropy, context: &str, plaintext: &[u8]) -> Vec<u8> {
        let (_, sealing) = &self.keys[0];
        let mut nonce = [0; NONCE_LEN];
        entropy.fill(&mut nonce);
        let mut sealed = self.newest_header();
        sealed.extend_from_slice(&nonce);
        let mut text = plaintext.to_vec();
        sealing
            .aead()
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(context),
                &mut text,
            )
            .expect("a stored value is below AES-GCM's limit");
        sealed.extend_from_slice(&text);
        sealed
    }

    /// Whether the first key sealed this value, so that it doesn't need the older keys.
    #[must_use]
    pub fn is_newest(&self, sealed: &[u8]) -> bool {
        sealed.starts_with(&self.newest_header())
    }

    /// How the values begin that the first key seals.
    #[must_use]
    pub fn newest_header(&self) -> Vec<u8> {
        [&[SEAL_VERSION], self.keys[0].1.id.as_slice()].concat()
    }

    /// Decrypts with the key that sealed the value.
    ///
    /// # Errors
    /// No configured key sealed it, it was sealed for another context, or it was altered.
    pub fn open(&self, context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, CannotOpen> {
        let (header, text) =
            sealed.split_at_checked(1 + KEY_ID_LEN + NONCE_LEN).ok_or(CannotOpen)?;
        let (version, rest) = header.split_at(1);
        let (id, nonce) = rest.split_at(KEY_ID_LEN);
        if version != [SEAL_VERSION] {
            return Err(CannotOpen);
        }
        for (_, sealing) in self.keys.iter().filter(|(_, sealing)| sealing.id == id) {
            let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| CannotOpen)?;
            let mut text = Zeroizing::new(text.to_vec());
            if let Ok(opened) = sealing.aead().open_in_place(nonce, Aad::from(context), &mut text) {
                let len = opened.len();
                text.truncate(len);
                return Ok(text);
            }
        }
        Err(CannotOpen)
    }
}

/// A sealed value that can't be opened.
#[derive(Debug, thiserror::Error)]
#[error("none of SSO_ENCRYPTION_KEYS opens this value")]
pub struct CannotOpen;

#[derive(Clone, Zeroize, ZeroizeOnDrop)]
struct SealingKey {
    id: [u8; KEY_ID_LEN],
    key: Zeroizing<[u8; KEY_LEN]>,
}

impl SealingKey {
    fn of(master: &MasterKey) -> Self {
        let mut id = [0; KEY_ID_LEN];
        id.copy_from_slice(&master.derive("column key id")[..KEY_ID_LEN]);
        Self { id, key: master.derive("column seal") }
    }

    fn aead(&self) -> LessSafeKey {
        LessSafeKey::new(
            UnboundKey::new(&AES_256_GCM, self.key.as_slice())
                .expect("an AES-256 key has 32 bytes"),
        )
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey([redacted])")
    }
}

const KEY_LEN: usize = 32;
/// 32 random bytes have 30 on average.
const MIN_DISTINCT_BYTES: usize = 16;
const KEY_ID_LEN: usize = 4;
const NONCE_LEN: usize = 12;
const SEAL_VERSION: u8 = 1;
const HKDF_SALT: &[u8] = b"peerpanda-sso/1";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SystemEntropy;

    fn keyring(keys: &[&MasterKey]) -> Keyring {
        Keyring::new(keys.iter().map(|key| (*key).clone()).collect()).expect("not empty")
    }

    #[test]
    fn a_value_opens_only_in_its_context_and_unaltered() {
        let ring = keyring(&[&MasterKey::generate(&SystemEntropy)]);
        let mut sealed = ring.seal(&SystemEntropy, "acme/client_secret", b"s3cret");
        assert_eq!(ring.open("acme/client_secret", &sealed).expect("opens").as_slice(), b"s3cret");
        assert!(ring.open("other/client_secret", &sealed).is_err());
        assert!(ring.open("acme/client_secret", &sealed[..10]).is_err());
        *sealed.last_mut().expect("not empty") ^= 1;
        assert!(ring.open("acme/client_secret", &sealed).is_err());
    }

    #[test]
    fn the_first_key_seals_and_every_key_opens() {
        let (old, new) = (MasterKey::generate(&SystemEntropy), MasterKey::generate(&SystemEntropy));
        let before = keyring(&[&old]).seal(&SystemEntropy, "c", b"x");
        let both = keyring(&[&new, &old]);
        assert!(both.open("c", &before).is_ok());
        let after = both.seal(&SystemEntropy, "c", b"x");
        assert!(keyring(&[&new]).open("c", &after).is_ok());
        assert!(keyring(&[&old]).open("c", &after).is_err());
        assert!(both.is_newest(&after) && !both.is_newest(&before) && !both.is_newest(&[]));
    }

    #[test]
    fn a_key_that_can_be_guessed_is_recognized() {
        let sequence = std::array::from_fn(|index| u8::try_from(3 * index).unwrap_or_default());
        let repeated = std::array::from_fn(|index| [0xde, 0xad, 0xbe, 0xef][index % 4]);
        let text = *b"correct-horse-battery-staple-12!";
        for bytes in [[0; 32], [0xff; 32], repeated, sequence, text] {
            assert!(MasterKey(bytes).is_guessable(), "{bytes:?}");
        }
        for _ in 0..1000 {
            assert!(!MasterKey::generate(&SystemEntropy).is_guessable());
        }
    }

    #[test]
    fn a_key_is_parsed_in_both_alphabets_and_in_one_length() {
        let key = MasterKey([0xfb; 32]);
        let standard = key.encoded();
        assert!(standard.contains('+') && standard.ends_with('='));
        assert_eq!(MasterKey::parse(&standard).expect("standard").0, key.0);
        let url_safe = BASE64_URL_SAFE_NO_PAD.encode([0xfb; 32]);
        assert_eq!(MasterKey::parse(&url_safe).expect("URL-safe").0, key.0);
        assert!(MasterKey::parse("c2hvcnQ=").is_none());
        assert_eq!(format!("{key:?}"), "MasterKey([redacted])");
    }
}
