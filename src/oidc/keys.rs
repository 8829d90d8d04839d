//! An IdP's signing keys: parsed once per key set by aws-lc-rs, behind openidconnect's `JsonWebKey`. A key that can't
//! verify a signature which this service accepts is no key here.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{self, ParsedPublicKey, RsaPublicKeyComponents, UnparsedPublicKey};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use openidconnect::core::{CoreJsonWebKeyType, CoreJsonWebKeyUse, CoreJwsSigningAlgorithm};
use openidconnect::{JsonWebKey, JsonWebKeyAlgorithm, JsonWebKeyId, SignatureVerificationError};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::json;
use crate::model::signing_alg::SigningAlg;

/// The usable keys of a JWKS document (RFC 7517 5).
#[derive(Clone, Debug, Default)]
pub(super) struct KeySet {
    keys: Arc<[VerificationKey]>,
}

impl KeySet {
    /// Reads a JWKS document. Keys that this service can't use are passed over (RFC 7517 5).
    ///
    /// # Errors
    /// It is no key set, has too many keys, or no usable one.
    pub(super) fn parse(document: &[u8]) -> Result<Self, String> {
        let document = json::parse_object(document)?;
        let Some(Value::Array(entries)) = document.get("keys") else {
            return Err("it has no \"keys\" array".to_owned());
        };
        if entries.len() > MAX_KEYS {
            return Err(format!("it has {} keys, more than {MAX_KEYS}", entries.len()));
        }
        let keys: Vec<_> =
            entries.iter().filter_map(|entry| VerificationKey::parse(entry.as_object()?)).collect();
        if keys.is_empty() {
            return Err(format!(
                "none of its {} keys can verify a signature that is accepted",
                entries.len()
            ));
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
                && kid.is_none_or(|kid| key.id.as_ref().is_some_and(|id| id.as_str() == kid))
        };
        self.keys.iter().filter(fits).take(MAX_TRIED)
    }
}

/// A public key (RFC 7517 4), with a parsed verifier for each algorithm that it may be used with.
#[derive(Clone)]
pub(super) struct VerificationKey {
    id: Option<JsonWebKeyId>,
    /// Entra publishes whose tokens a key signs.
    pub(super) issuer: Option<String>,
    key_type: CoreJsonWebKeyType,
    key_use: Option<CoreJsonWebKeyUse>,
    alg: Option<CoreJwsSigningAlgorithm>,
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
        let (key_type, verifiers) = match text("kty")? {
            "RSA" => {
                let unpadded = |bytes: Vec<u8>| {
                    bytes.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<_>>()
                };
                let components =
                    RsaPublicKeyComponents { n: unpadded(bytes("n")?), e: unpadded(bytes("e")?) };
                (CoreJsonWebKeyType::RSA, rsa_verifiers(&components)?)
            }
            "EC" => (
                CoreJsonWebKeyType::EllipticCurve,
                vec![ec_verifier(text("crv")?, &bytes("x")?, &bytes("y")?)?],
            ),
            "OKP" if text("crv")? == "Ed25519" => {
                let key = UnparsedPublicKey::new(&signature::ED25519, bytes("x")?);
                (CoreJsonWebKeyType::OctetKeyPair, vec![(SigningAlg::EdDSA, key.parse().ok()?)])
            }
            _ => return None,
        };
        // A key that names its algorithm is used with that one alone (RFC 8725 3.1).
        let verifiers: Vec<_> = match jwk.get("alg") {
            None => verifiers,
            Some(Value::String(alg)) => {
                verifiers.into_iter().filter(|(own, _)| own.name() == alg).collect()
            }
            Some(_) => return None,
        };
        let alg = text("alg").and(verifiers.first()).map(|(alg, _)| to_crate(*alg));
        (!verifiers.is_empty()).then(|| Self {
            id: text("kid").map(|kid| JsonWebKeyId::new(kid.to_owned())),
            issuer: text("issuer").map(str::to_owned),
            key_type,
            key_use: text("use").map(|_| CoreJsonWebKeyUse::Signature),
            alg,
            verifiers: verifiers.into(),
        })
    }

    /// Verifies a signature.
    pub(super) fn verifies(&self, alg: SigningAlg, message: &[u8], signature: &[u8]) -> bool {
        let verifier = self.verifiers.iter().find(|(own, _)| *own == alg);
        verifier.is_some_and(|(_, key)| key.verify_sig(message, signature).is_ok())
    }
}

impl fmt::Debug for VerificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerificationKey")
            .field("id", &self.id)
            .field("key_type", &self.key_type)
            .finish_non_exhaustive()
    }
}

impl JsonWebKey for VerificationKey {
    type KeyUse = CoreJsonWebKeyUse;
    type SigningAlgorithm = CoreJwsSigningAlgorithm;

    fn key_id(&self) -> Option<&JsonWebKeyId> {
        self.id.as_ref()
    }

    fn key_type(&self) -> &CoreJsonWebKeyType {
        &self.key_type
    }

    fn key_use(&self) -> Option<&CoreJsonWebKeyUse> {
        self.key_use.as_ref()
    }

    fn signing_alg(&self) -> JsonWebKeyAlgorithm<&CoreJwsSigningAlgorithm> {
        self.alg.as_ref().map_or(JsonWebKeyAlgorithm::Unspecified, JsonWebKeyAlgorithm::Algorithm)
    }

    /// A key that verifies nothing: there are no symmetric keys here.
    fn new_symmetric(_key: Vec<u8>) -> Self {
        Self {
            id: None,
            issuer: None,
            key_type: CoreJsonWebKeyType::Symmetric,
            key_use: None,
            alg: None,
            verifiers: Arc::new([]),
        }
    }

    fn verify_signature(
        &self,
        signature_alg: &CoreJwsSigningAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureVerificationError> {
        let alg = from_crate(signature_alg).ok_or_else(|| {
            SignatureVerificationError::UnsupportedAlg(format!("{signature_alg:?}"))
        })?;
        let verified = self.verifies(alg, message, signature);
        verified
            .then_some(())
            .ok_or_else(|| SignatureVerificationError::CryptoError("bad signature".to_owned()))
    }

    fn hash_bytes(&self, bytes: &[u8], alg: &CoreJwsSigningAlgorithm) -> Result<Vec<u8>, String> {
        let alg = from_crate(alg).ok_or_else(|| format!("{alg:?} is not accepted"))?;
        Ok(hash_of(alg, bytes))
    }
}

/// openidconnect wants its keys to be documents too; this service reads them by [`KeySet::parse`] alone.
impl<'de> Deserialize<'de> for VerificationKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let jwk = Map::deserialize(deserializer)?;
        Self::parse(&jwk).ok_or_else(|| serde::de::Error::custom("not a key that is accepted"))
    }
}

impl Serialize for VerificationKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.id.serialize(serializer)
    }
}

/// The hash that goes with an algorithm, as `at_hash` uses it (OIDC Core 3.1.3.6). For EdDSA over Ed25519 it is SHA-512,
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

/// All six RSA algorithms; `None` where the modulus isn't of 2048 to 8192 bits.
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

fn to_crate(alg: SigningAlg) -> CoreJwsSigningAlgorithm {
    match alg {
        SigningAlg::RS256 => CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
        SigningAlg::RS384 => CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
        SigningAlg::RS512 => CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
        SigningAlg::PS256 => CoreJwsSigningAlgorithm::RsaSsaPssSha256,
        SigningAlg::PS384 => CoreJwsSigningAlgorithm::RsaSsaPssSha384,
        SigningAlg::PS512 => CoreJwsSigningAlgorithm::RsaSsaPssSha512,
        SigningAlg::ES256 => CoreJwsSigningAlgorithm::EcdsaP256Sha256,
        SigningAlg::ES384 => CoreJwsSigningAlgorithm::EcdsaP384Sha384,
        SigningAlg::ES512 => CoreJwsSigningAlgorithm::EcdsaP521Sha512,
        SigningAlg::EdDSA => CoreJwsSigningAlgorithm::EdDsa,
    }
}

fn from_crate(alg: &CoreJwsSigningAlgorithm) -> Option<SigningAlg> {
    SigningAlg::ALL.into_iter().find(|own| to_crate(*own) == *alg)
}

const MAX_KEYS: usize = 200;
/// How many keys a token without a `kid` is tried with.
const MAX_TRIED: usize = 10;
const MIN_RSA_BYTES: usize = 256;
const MAX_RSA_BYTES: usize = 1024;
