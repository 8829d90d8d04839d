//! An IdP's signing keys (RFC 7517): fetched, and parsed by aws-lc-rs when they are first used. A key
//! that can't verify a signature which this service accepts is left out. [`super::verify`] is the only
//! one that decides by them whether a token is good.

use std::sync::{Arc, OnceLock};

use aws_lc_rs::digest;
use aws_lc_rs::signature::{self, ParsedPublicKey, RsaPublicKeyComponents, UnparsedPublicKey};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use url::Url;

use super::error::{Document, Problem, ProviderError};
use super::http::{Answer, HttpClient};
use super::json;
use super::metadata::{MAX_DOCUMENT, document_problem};
use crate::model::cause::Cause;
use crate::model::signing_alg::SigningAlg;

/// The usable keys of a JWKS document.
#[derive(Clone, Debug, Default)]
pub(super) struct KeySet {
    keys: Arc<[VerificationKey]>,
    left_out: usize,
}

/// Fetches and reads a key set. Logins and checks both use this.
pub(super) async fn fetch(url: &Url, http: &HttpClient) -> Result<(KeySet, Answer), ProviderError> {
    let document = Document::KeySet;
    let answer = http.get(url, "application/jwk-set+json, application/json", MAX_DOCUMENT).await;
    let answer = answer.map_err(|error| ProviderError::Call { document, error })?;
    if !answer.status.is_success() {
        let text = format!("HTTP {}", answer.status.as_u16());
        let problem = Problem::new(Cause::KeysStatus, text);
        return Err(ProviderError::Invalid(document_problem(document, url, problem)));
    }
    Ok((read(url, &answer.body)?, answer))
}

/// Reads the key set that was fetched from `url`.
pub(super) fn read(url: &Url, document: &[u8]) -> Result<KeySet, ProviderError> {
    KeySet::parse(document)
        .map_err(|problem| ProviderError::Invalid(document_problem(Document::KeySet, url, problem)))
}

impl KeySet {
    /// Reads a JWKS document. Keys that this service can't use are skipped (RFC 7517 5).
    pub(super) fn parse(document: &[u8]) -> Result<Self, Problem> {
        let malformed = |text| Problem::new(Cause::KeysMalformed, text);
        let cause = if json::is_page(document) { Cause::KeysNotJson } else { Cause::KeysMalformed };
        let document = json::parse_object(document).map_err(|text| Problem::new(cause, text))?;
        let Some(Value::Array(entries)) = document.get("keys") else {
            return Err(malformed("it has no \"keys\" array".to_owned()));
        };
        if entries.len() > MAX_KEYS {
            return Err(malformed(format!("it has {} keys, more than {MAX_KEYS}", entries.len())));
        }
        let usable = entries.iter().filter_map(|entry| VerificationKey::parse(entry.as_object()?));
        let (mut keys, mut size, mut left_out) = (Vec::new(), 0, 0);
        for key in usable {
            if size + key.size() <= MAX_KEYS_SIZE {
                size += key.size();
                keys.push(key);
            } else {
                left_out += 1;
            }
        }
        if keys.is_empty() {
            let text =
                format!("none of its {} keys can verify an accepted signature", entries.len());
            return Err(Problem::new(Cause::NoUsableKey, text));
        }
        Ok(Self { keys: keys.into(), left_out })
    }

    /// How many usable keys were left out, since all together have more than [`MAX_KEYS_SIZE`] bytes.
    pub(super) fn left_out(&self) -> usize {
        self.left_out
    }

    /// The keys that may have signed under this header, at most [`MAX_TRIED`].
    pub(super) fn candidates(
        &self,
        alg: SigningAlg,
        kid: Option<&str>,
    ) -> impl Iterator<Item = &VerificationKey> {
        let fits = move |key: &&VerificationKey| {
            key.is_for(alg) && kid.is_none_or(|kid| key.id.as_deref() == Some(kid))
        };
        self.keys.iter().filter(fits).take(MAX_TRIED)
    }
}

/// A public key (RFC 7517 4). Parsed for the algorithm that it is first used with, and kept so: a
/// parsed key takes several times the memory, and an IdP signs with few of its keys.
#[derive(Debug)]
pub(super) struct VerificationKey {
    id: Option<String>,
    /// Entra states whose tokens a key signs.
    pub(super) issuer: Option<String>,
    /// The one algorithm that the key names for itself (RFC 8725 3.1).
    named: Option<SigningAlg>,
    material: Material,
    parsed: OnceLock<(SigningAlg, Option<ParsedPublicKey>)>,
}

/// The numbers of a key, whose sizes are those of its kind.
#[derive(Debug)]
enum Material {
    Rsa(RsaPublicKeyComponents<Vec<u8>>),
    /// An uncompressed point of the algorithm's curve.
    Ec(SigningAlg, Vec<u8>),
    Ed25519(Vec<u8>),
}

impl VerificationKey {
    /// `None` for a key that can't verify a signature which this service accepts.
    fn parse(jwk: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let is_for_signatures = text("use").is_none_or(|key_use| key_use == "sig")
            && match jwk.get("key_ops") {
                Some(Value::Array(ops)) => ops.iter().any(|op| op == "verify"),
                Some(_) => false,
                None => true,
            };
        if !is_for_signatures {
            return None;
        }
        let named = match jwk.get("alg") {
            None => None,
            Some(alg) => Some(SigningAlg::parse(alg.as_str()?)?),
        };
        let key = Self {
            id: text("kid").map(str::to_owned),
            issuer: text("issuer").map(str::to_owned),
            named,
            material: Material::read(jwk)?,
            parsed: OnceLock::new(),
        };
        let alg = SigningAlg::ALL.into_iter().find(|alg| key.is_for(*alg))?;
        key.material.parse(alg).map(|_| key)
    }

    fn is_for(&self, alg: SigningAlg) -> bool {
        let is_of_kind = match &self.material {
            Material::Rsa(_) => rsa_parameters(alg).is_some(),
            Material::Ec(of_curve, _) => *of_curve == alg,
            Material::Ed25519(_) => alg == SigningAlg::EdDSA,
        };
        is_of_kind && self.named.is_none_or(|named| named == alg)
    }

    /// Bytes that it takes until it is parsed.
    fn size(&self) -> usize {
        let material = match &self.material {
            Material::Rsa(components) => components.n.len() + components.e.len(),
            Material::Ec(_, point) => point.len(),
            Material::Ed25519(key) => key.len(),
        };
        let texts = [&self.id, &self.issuer].into_iter().flatten();
        texts.map(String::len).sum::<usize>() + material
    }

    /// Whether this is the signature of `message` by this key.
    pub(super) fn verifies(&self, alg: SigningAlg, message: &[u8], signature: &[u8]) -> bool {
        if !self.is_for(alg) {
            return false;
        }
        let verify = |key: &ParsedPublicKey| key.verify_sig(message, signature).is_ok();
        let (parsed_for, parsed) = self.parsed.get_or_init(|| (alg, self.material.parse(alg)));
        if *parsed_for == alg {
            return parsed.as_ref().is_some_and(verify);
        }
        // The IdP changed the algorithm and kept the key.
        self.material.parse(alg).as_ref().is_some_and(verify)
    }
}

impl Material {
    fn read(jwk: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes =
            |name: &str| BASE64_URL_SAFE_NO_PAD.decode(text(name)?.trim_end_matches('=')).ok();
        match text("kty")? {
            "RSA" => {
                let unpadded = |bytes: Vec<u8>| {
                    bytes.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<_>>()
                };
                let (n, e) = (unpadded(bytes("n")?), unpadded(bytes("e")?));
                // The modulus has 2048 to 8192 bits.
                let is_short = n.first()?.leading_zeros() > 0 && n.len() == MIN_RSA_BYTES;
                let fits = (MIN_RSA_BYTES..=MAX_RSA_BYTES).contains(&n.len())
                    && !is_short
                    && e.len() <= MAX_RSA_BYTES;
                fits.then_some(Self::Rsa(RsaPublicKeyComponents { n, e }))
            }
            "EC" => {
                let (alg, len) = match text("crv")? {
                    "P-256" => (SigningAlg::ES256, 32),
                    "P-384" => (SigningAlg::ES384, 48),
                    "P-521" => (SigningAlg::ES512, 66),
                    _ => return None,
                };
                let (x, y) = (bytes("x")?, bytes("y")?);
                let is_point = x.len() == len && y.len() == len;
                is_point.then(|| Self::Ec(alg, [&[0x04], &*x, &*y].concat()))
            }
            "OKP" if text("crv")? == "Ed25519" => {
                bytes("x").filter(|x| x.len() == ED25519_BYTES).map(Self::Ed25519)
            }
            _ => None,
        }
    }

    /// `None` if the numbers are not those of a key, or `alg` is of another kind of keys.
    fn parse(&self, alg: SigningAlg) -> Option<ParsedPublicKey> {
        match self {
            Self::Rsa(components) => components.to_parsed_public_key(rsa_parameters(alg)?).ok(),
            Self::Ec(_, point) => UnparsedPublicKey::new(ec_algorithm(alg)?, point).parse().ok(),
            Self::Ed25519(key) => UnparsedPublicKey::new(&signature::ED25519, key).parse().ok(),
        }
    }
}

/// The hash that `at_hash` is made with (OIDC Core 3.1.3.6). For EdDSA over Ed25519 it is SHA-512,
/// the hash inside the signature scheme.
pub(super) fn hash_of(alg: SigningAlg, bytes: &[u8]) -> Vec<u8> {
    let algorithm = match alg {
        SigningAlg::RS256 | SigningAlg::PS256 | SigningAlg::ES256 => &digest::SHA256,
        SigningAlg::RS384 | SigningAlg::PS384 | SigningAlg::ES384 => &digest::SHA384,
        SigningAlg::RS512 | SigningAlg::PS512 | SigningAlg::ES512 | SigningAlg::EdDSA => {
            &digest::SHA512
        }
    };
    digest::digest(algorithm, bytes).as_ref().to_vec()
}

fn rsa_parameters(alg: SigningAlg) -> Option<&'static signature::RsaParameters> {
    match alg {
        SigningAlg::RS256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
        SigningAlg::RS384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
        SigningAlg::RS512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
        SigningAlg::PS256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
        SigningAlg::PS384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
        SigningAlg::PS512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
        SigningAlg::ES256 | SigningAlg::ES384 | SigningAlg::ES512 | SigningAlg::EdDSA => None,
    }
}

fn ec_algorithm(alg: SigningAlg) -> Option<&'static signature::EcdsaVerificationAlgorithm> {
    match alg {
        SigningAlg::ES256 => Some(&signature::ECDSA_P256_SHA256_FIXED),
        SigningAlg::ES384 => Some(&signature::ECDSA_P384_SHA384_FIXED),
        SigningAlg::ES512 => Some(&signature::ECDSA_P521_SHA512_FIXED),
        SigningAlg::RS256
        | SigningAlg::RS384
        | SigningAlg::RS512
        | SigningAlg::PS256
        | SigningAlg::PS384
        | SigningAlg::PS512
        | SigningAlg::EdDSA => None,
    }
}

/// Entries of a key set.
const MAX_KEYS: usize = 200;
/// Bytes of the keys of a key set that are kept, in its order: 20 of the largest, or 70 of the usual
/// RSA keys. A replica keeps those of every account.
pub(super) const MAX_KEYS_SIZE: usize = 20 * 1024;
/// How many keys a token without a `kid` is tried with.
const MAX_TRIED: usize = 10;
const MIN_RSA_BYTES: usize = 256;
const MAX_RSA_BYTES: usize = 1024;
const ED25519_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
    use serde_json::json;

    use super::*;

    fn ed25519(extra: &Value) -> Value {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("32 bytes");
        let x = BASE64_URL_SAFE_NO_PAD.encode(pair.public_key());
        let mut key = json!({ "kty": "OKP", "crv": "Ed25519", "x": x });
        let extra = extra.as_object().expect("an object").clone();
        key.as_object_mut().expect("an object").extend(extra);
        key
    }

    fn cause(document: &Value) -> Option<Cause> {
        KeySet::parse(document.to_string().as_bytes()).err().map(|problem| problem.cause)
    }

    #[test]
    fn a_key_set_without_usable_keys_is_refused_by_its_cause() {
        let rsa = |bytes: usize| json!({ "kty": "RSA", "e": "AQAB", "n": BASE64_URL_SAFE_NO_PAD.encode(vec![0xff; bytes]) });
        for (document, expected) in [
            (json!([]), Some(Cause::KeysMalformed)),
            (json!({}), Some(Cause::KeysMalformed)),
            (json!({ "keys": {} }), Some(Cause::KeysMalformed)),
            (json!({ "keys": vec![json!({}); MAX_KEYS + 1] }), Some(Cause::KeysMalformed)),
            (json!({ "keys": [] }), Some(Cause::NoUsableKey)),
            (json!({ "keys": [7, {}, { "kty": "oct", "k": "AA" }] }), Some(Cause::NoUsableKey)),
            (json!({ "keys": [rsa(255)] }), Some(Cause::NoUsableKey)),
            (json!({ "keys": [rsa(1025)] }), Some(Cause::NoUsableKey)),
            (json!({ "keys": [rsa(256)] }), None),
            (json!({ "keys": [ed25519(&json!({ "use": "enc" }))] }), Some(Cause::NoUsableKey)),
            (
                json!({ "keys": [ed25519(&json!({ "key_ops": ["sign"] }))] }),
                Some(Cause::NoUsableKey),
            ),
            (json!({ "keys": [ed25519(&json!({ "alg": "RS256" }))] }), Some(Cause::NoUsableKey)),
            (json!({ "keys": [{}, ed25519(&json!({}))] }), None),
        ] {
            assert_eq!(cause(&document), expected, "{document}");
        }
    }

    #[test]
    fn candidates_fit_the_algorithm_and_the_kid() {
        let entries = [
            json!({ "kid": "a" }),
            json!({ "kid": "b", "alg": "EdDSA" }),
            json!({ "kid": "d", "alg": "Ed25519" }),
            json!({}),
        ];
        let document = json!({ "keys": entries.each_ref().map(ed25519) });
        let keys = KeySet::parse(document.to_string().as_bytes()).expect("a key set");
        let count = |alg, kid| keys.candidates(alg, kid).count();
        assert_eq!(count(SigningAlg::EdDSA, None), 4);
        assert_eq!(count(SigningAlg::EdDSA, Some("a")), 1);
        assert_eq!(count(SigningAlg::EdDSA, Some("c")), 0);
        assert_eq!(count(SigningAlg::RS256, None), 0);
    }

    #[test]
    fn the_keys_of_an_idp_are_bounded_by_their_size() {
        let rsa = |kid: usize| {
            let mut n = vec![0xff; 1024];
            n[1] = u8::try_from(kid).expect("a small number");
            json!({ "kty": "RSA", "e": "AQAB", "kid": kid.to_string(), "n": BASE64_URL_SAFE_NO_PAD.encode(n) })
        };
        let document = |keys: &[Value]| json!({ "keys": keys }).to_string();
        let many: Vec<_> = (0..200).map(rsa).collect();
        let keys = KeySet::parse(document(&many).as_bytes()).expect("a key set");
        let kept: usize = keys.keys.iter().map(VerificationKey::size).sum();
        assert!(kept <= MAX_KEYS_SIZE && keys.keys.len() == 19, "{kept} bytes");
        assert_eq!(keys.left_out(), 181);
        assert_eq!(keys.candidates(SigningAlg::PS512, Some("18")).count(), 1);
        // The name counts, too.
        let named = ed25519(&json!({ "kid": "x".repeat(MAX_KEYS_SIZE) }));
        assert_eq!(cause(&json!({ "keys": [named] })), Some(Cause::NoUsableKey));
        let mut usual = vec![ed25519(&json!({ "kid": "x".repeat(MAX_KEYS_SIZE) }))];
        usual.extend((0..60).map(|kid| ed25519(&json!({ "kid": kid.to_string() }))));
        let keys = KeySet::parse(document(&usual).as_bytes()).expect("a key set");
        assert_eq!((keys.keys.len(), keys.left_out()), (60, 1));
    }

    #[test]
    fn a_key_is_parsed_once_and_only_when_it_is_used() {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("32 bytes");
        let document = json!({ "keys": [ed25519(&json!({}))] }).to_string();
        let keys = KeySet::parse(document.as_bytes()).expect("a key set");
        let key = &keys.keys[0];
        assert!(key.parsed.get().is_none());
        let signature = pair.sign(b"message");
        assert!(key.verifies(SigningAlg::EdDSA, b"message", signature.as_ref()));
        let parsed = key.parsed.get().map(std::ptr::from_ref);
        assert!(parsed.is_some() && !key.verifies(SigningAlg::EdDSA, b"x", signature.as_ref()));
        assert_eq!(key.parsed.get().map(std::ptr::from_ref), parsed);
        assert!(!key.verifies(SigningAlg::RS256, b"message", signature.as_ref()));
    }

    #[test]
    fn one_rsa_key_verifies_with_each_of_its_algorithms() {
        use aws_lc_rs::rand::SystemRandom;
        use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
        // PKCS#1 DER of a 2048-bit key: 9 bytes of headers, the modulus, and the exponent 65537.
        let n = BASE64_URL_SAFE_NO_PAD.encode(&pair.public_key().as_ref()[9..265]);
        let document = json!({ "keys": [{ "kty": "RSA", "e": "AQAB", "n": n }] }).to_string();
        let keys = KeySet::parse(document.as_bytes()).expect("a key set");
        let encodings: [(SigningAlg, &'static dyn signature::RsaEncoding); 3] = [
            (SigningAlg::PS384, &signature::RSA_PSS_SHA384),
            (SigningAlg::RS256, &signature::RSA_PKCS1_SHA256),
            (SigningAlg::PS384, &signature::RSA_PSS_SHA384),
        ];
        for (alg, encoding) in encodings {
            let mut signed = vec![0; pair.public_modulus_len()];
            pair.sign(encoding, &SystemRandom::new(), b"message", &mut signed).expect("signed");
            assert!(keys.keys[0].verifies(alg, b"message", &signed), "{alg:?}");
            assert!(!keys.keys[0].verifies(SigningAlg::RS512, b"message", &signed), "{alg:?}");
        }
    }
}
