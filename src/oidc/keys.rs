//! An IdP's signing keys (RFC 7517): fetched, and parsed once per key set by aws-lc-rs. A key that
//! can't verify a signature which this service accepts is left out. [`super::verify`] is the only
//! one that decides by them whether a token is good.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{self, ParsedPublicKey, RsaPublicKeyComponents, UnparsedPublicKey};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use url::Url;

use super::error::{Document, Problem, ProviderError};
use super::http::HttpClient;
use super::json;
use super::metadata::{MAX_DOCUMENT, document_problem};
use crate::model::cause::Cause;
use crate::model::signing_alg::SigningAlg;

/// The usable keys of a JWKS document.
#[derive(Clone, Debug, Default)]
pub(super) struct KeySet {
    keys: Arc<[VerificationKey]>,
}

/// Fetches a key set, and how long it may be used, if it says so. Logins and checks both use this.
pub(super) async fn fetch(
    url: &Url,
    http: &HttpClient,
) -> Result<(KeySet, Option<Duration>), ProviderError> {
    let document = Document::KeySet;
    let invalid = |problem| ProviderError::Invalid(document_problem(document, url, problem));
    let answer = http.get(url, "application/jwk-set+json, application/json", MAX_DOCUMENT).await;
    let answer = answer.map_err(|error| ProviderError::Call { document, error })?;
    if !answer.status.is_success() {
        let text = format!("HTTP {}", answer.status.as_u16());
        return Err(invalid(Problem::new(Cause::KeysStatus, text)));
    }
    let keys = KeySet::parse(&answer.body).map_err(invalid)?;
    Ok((keys, answer.max_age()))
}

impl KeySet {
    /// Reads a JWKS document. Keys that this service can't use are skipped (RFC 7517 5).
    pub(super) fn parse(document: &[u8]) -> Result<Self, Problem> {
        let malformed = |text| Problem::new(Cause::KeysMalformed, text);
        let document = json::parse_object(document).map_err(malformed)?;
        let Some(Value::Array(entries)) = document.get("keys") else {
            return Err(malformed("it has no \"keys\" array".to_owned()));
        };
        if entries.len() > MAX_KEYS {
            return Err(malformed(format!("it has {} keys, more than {MAX_KEYS}", entries.len())));
        }
        let keys: Vec<_> =
            entries.iter().filter_map(|entry| VerificationKey::parse(entry.as_object()?)).collect();
        if keys.is_empty() {
            let text =
                format!("none of its {} keys can verify an accepted signature", entries.len());
            return Err(Problem::new(Cause::NoUsableKey, text));
        }
        Ok(Self { keys: keys.into() })
    }

    /// The keys that may have signed under this header, at most [`MAX_TRIED`].
    pub(super) fn candidates(
        &self,
        alg: SigningAlg,
        kid: Option<&str>,
    ) -> impl Iterator<Item = &VerificationKey> {
        let fits = move |key: &&VerificationKey| {
            key.verifiers.iter().any(|(own, _)| *own == alg)
                && kid.is_none_or(|kid| key.id.as_deref() == Some(kid))
        };
        self.keys.iter().filter(fits).take(MAX_TRIED)
    }
}

/// A public key (RFC 7517 4), with a parsed verifier for each algorithm that it may be used with.
#[derive(Clone, Debug)]
pub(super) struct VerificationKey {
    id: Option<String>,
    /// Entra states whose tokens a key signs.
    pub(super) issuer: Option<String>,
    verifiers: Arc<[(SigningAlg, ParsedPublicKey)]>,
}

impl VerificationKey {
    fn parse(jwk: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes =
            |name: &str| BASE64_URL_SAFE_NO_PAD.decode(text(name)?.trim_end_matches('=')).ok();
        let is_for_signatures = text("use").is_none_or(|key_use| key_use == "sig")
            && match jwk.get("key_ops") {
                Some(Value::Array(ops)) => ops.iter().any(|op| op == "verify"),
                Some(_) => false,
                None => true,
            };
        if !is_for_signatures {
            return None;
        }
        let verifiers = match text("kty")? {
            "RSA" => {
                let unpadded = |bytes: Vec<u8>| {
                    bytes.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<_>>()
                };
                rsa_verifiers(&RsaPublicKeyComponents {
                    n: unpadded(bytes("n")?),
                    e: unpadded(bytes("e")?),
                })?
            }
            "EC" => vec![ec_verifier(text("crv")?, &bytes("x")?, &bytes("y")?)?],
            "OKP" if text("crv")? == "Ed25519" => {
                let key = UnparsedPublicKey::new(&signature::ED25519, bytes("x")?);
                vec![(SigningAlg::EdDSA, key.parse().ok()?)]
            }
            _ => return None,
        };
        // A key that names its algorithm is used with no other (RFC 8725 3.1).
        let verifiers: Vec<_> = match jwk.get("alg") {
            None => verifiers,
            Some(Value::String(alg)) => {
                let named = SigningAlg::parse(alg);
                verifiers.into_iter().filter(|(own, _)| Some(*own) == named).collect()
            }
            Some(_) => return None,
        };
        (!verifiers.is_empty()).then(|| Self {
            id: text("kid").map(str::to_owned),
            issuer: text("issuer").map(str::to_owned),
            verifiers: verifiers.into(),
        })
    }

    /// Whether this is the signature of `message` by this key.
    pub(super) fn verifies(&self, alg: SigningAlg, message: &[u8], signature: &[u8]) -> bool {
        let verifier = self.verifiers.iter().find(|(own, _)| *own == alg);
        verifier.is_some_and(|(_, key)| key.verify_sig(message, signature).is_ok())
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

/// All six RSA algorithms; `None` unless the modulus has 2048 to 8192 bits.
fn rsa_verifiers(
    components: &RsaPublicKeyComponents<Vec<u8>>,
) -> Option<Vec<(SigningAlg, ParsedPublicKey)>> {
    if !(MIN_RSA_BYTES..=MAX_RSA_BYTES).contains(&components.n.len())
        || components.n[0].leading_zeros() > 0 && components.n.len() == MIN_RSA_BYTES
    {
        return None;
    }
    let algorithms: [(SigningAlg, &'static signature::RsaParameters); 6] = [
        (SigningAlg::RS256, &signature::RSA_PKCS1_2048_8192_SHA256),
        (SigningAlg::RS384, &signature::RSA_PKCS1_2048_8192_SHA384),
        (SigningAlg::RS512, &signature::RSA_PKCS1_2048_8192_SHA512),
        (SigningAlg::PS256, &signature::RSA_PSS_2048_8192_SHA256),
        (SigningAlg::PS384, &signature::RSA_PSS_2048_8192_SHA384),
        (SigningAlg::PS512, &signature::RSA_PSS_2048_8192_SHA512),
    ];
    algorithms
        .into_iter()
        .map(|(alg, parameters)| Some((alg, components.to_parsed_public_key(parameters).ok()?)))
        .collect()
}

fn ec_verifier(curve: &str, x: &[u8], y: &[u8]) -> Option<(SigningAlg, ParsedPublicKey)> {
    let (alg, algorithm, len): (_, &'static signature::EcdsaVerificationAlgorithm, _) = match curve
    {
        "P-256" => (SigningAlg::ES256, &signature::ECDSA_P256_SHA256_FIXED, 32),
        "P-384" => (SigningAlg::ES384, &signature::ECDSA_P384_SHA384_FIXED, 48),
        "P-521" => (SigningAlg::ES512, &signature::ECDSA_P521_SHA512_FIXED, 66),
        _ => return None,
    };
    if x.len() != len || y.len() != len {
        return None;
    }
    let point = [&[0x04], x, y].concat();
    Some((alg, UnparsedPublicKey::new(algorithm, point).parse().ok()?))
}

const MAX_KEYS: usize = 200;
/// How many keys a token without a `kid` is tried with.
const MAX_TRIED: usize = 10;
const MIN_RSA_BYTES: usize = 256;
const MAX_RSA_BYTES: usize = 1024;

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
}
