//! The algorithms that may sign an ID token, by their names in the IANA registry.

use serde::{Deserialize, Serialize};

/// An asymmetric JWS algorithm (RFC 7518 3.1, RFC 8037 3.1). HS256 and `none` are left out on purpose:
/// they must never be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the registry's")]
pub enum SigningAlg {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    ES512,
    EdDSA,
}

impl SigningAlg {
    /// Every algorithm.
    pub const ALL: [Self; 10] = [
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::ES512,
        Self::EdDSA,
    ];

    /// The name in the IANA registry.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::ES512 => "ES512",
            Self::EdDSA => "EdDSA",
        }
    }

    /// Parses a registered name; `None` for any other algorithm. `Ed25519` (RFC 9864 2.2) is the new
    /// name of `EdDSA` over the only curve that is accepted with it.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        if name == "Ed25519" {
            return Some(Self::EdDSA);
        }
        Self::ALL.into_iter().find(|alg| alg.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_asymmetric_algorithms_are_parsed() {
        for alg in SigningAlg::ALL {
            assert_eq!(SigningAlg::parse(alg.name()), Some(alg));
            let json = serde_json::to_string(&alg).expect("JSON");
            assert_eq!(json, format!("{:?}", alg.name()), "stored by its registered name");
        }
        assert_eq!(SigningAlg::parse("Ed25519"), Some(SigningAlg::EdDSA));
        for bad in ["", "none", "HS256", "rs256", "RS1", "ES256K", "Ed448", "ed25519"] {
            assert_eq!(SigningAlg::parse(bad), None, "{bad}");
        }
    }
}
