//! The results of checking a connection at the customer's IdP, and the record that is stored of them.

use serde::{Deserialize, Deserializer, Serialize};

use super::reason::Owner;
use super::stable_names;
use super::time::UnixMillis;

/// How one check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckOutcome {
    /// As expected.
    Pass,
    /// Logins can work, but something should be looked at.
    Warn,
    /// Logins can't work.
    Fail,
    /// Only a test login can decide it.
    Inconclusive,
    /// It depends on a check that failed, or has nothing to check.
    Skipped,
}

macro_rules! check_ids {
    ($($variant:ident = $code:literal;)*) => {
        /// The checks, by their stable ids.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the ids name what is checked")]
        pub enum CheckId {
            $($variant,)*
        }

        impl CheckId {
            /// Every check, in the order in which they run.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The stable id, such as `client.credentials`.
            #[must_use]
            pub fn code(self) -> &'static str {
                match self {
                    $(Self::$variant => $code,)*
                }
            }
        }
    };
}

check_ids! {
    MetadataDocument = "metadata.document";
    ClockSkew = "clock.skew";
    MetadataIssuer = "metadata.issuer";
    MetadataCodeFlow = "metadata.code_flow";
    MetadataPkce = "metadata.pkce";
    MetadataScopes = "metadata.scopes";
    MetadataClaims = "metadata.claims";
    MetadataAuthMethod = "metadata.auth_method";
    MetadataSigningAlgs = "metadata.signing_algs";
    MetadataEndpoints = "metadata.endpoints";
    MetadataUsable = "metadata.usable";
    MetadataHosts = "metadata.hosts";
    JwksKeys = "jwks.keys";
    ClientCredentials = "client.credentials";
    ClientRedirectUri = "client.redirect_uri";
    LogoutEndpoint = "logout.endpoint";
    TlsCertificate = "tls.certificate";
    CheckDeadline = "check.deadline";
}

stable_names!(CheckId, code);

impl CheckId {
    /// Whether the whole check is INCONCLUSIVE if this one is.
    #[must_use]
    pub fn is_decisive(self) -> bool {
        matches!(self, Self::ClientCredentials | Self::ClientRedirectUri)
    }
}

/// The result of one check. The texts are for a person and contain no secret.
#[derive(Clone, Debug)]
pub struct CheckResult {
    /// Which check.
    pub id: CheckId,
    /// The outcome.
    pub outcome: CheckOutcome,
    /// What a working connection needs.
    pub expected: String,
    /// What was found.
    pub found: String,
    /// Who must act, and what to do.
    pub remedy: Option<CheckRemedy>,
}

/// Who must act on a check's result, and what to do.
#[derive(Clone, Debug)]
pub struct CheckRemedy {
    /// Support or the customer's IdP admin.
    pub owner: Owner,
    /// What to do, in the terms of the IdP's product.
    pub text: String,
}

/// The stored record of a whole check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckRecord {
    /// When the check ended.
    pub time: UnixMillis,
    /// The connection's revision.
    pub revision: u64,
    /// The [`proof_digest`](super::connection::proof_digest) of what was checked.
    pub proof: String,
    /// FAIL if any check failed, INCONCLUSIVE if a decisive one is, else WARN or PASS.
    pub outcome: CheckOutcome,
    /// The checks that failed.
    #[serde(deserialize_with = "known_ids")]
    pub failed: Vec<CheckId>,
    /// The checks that passed.
    #[serde(deserialize_with = "known_ids")]
    pub passed: Vec<CheckId>,
    /// The hosts of the IdP's endpoints at the last check without a failure.
    pub hosts: Vec<String>,
}

/// Ignores checks that another version recorded and this one doesn't know.
fn known_ids<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<CheckId>, D::Error> {
    let codes = Vec::<String>::deserialize(deserializer)?;
    Ok(codes.iter().filter_map(|code| CheckId::parse(code)).collect())
}

impl CheckRecord {
    /// Whether nothing failed. What is inconclusive is left to a test login.
    #[must_use]
    pub fn has_not_failed(&self) -> bool {
        self.outcome != CheckOutcome::Fail
    }

    /// Whether nothing failed, and the client's credentials and redirect URI are proven without a login.
    #[must_use]
    pub fn has_passed(&self) -> bool {
        matches!(self.outcome, CheckOutcome::Pass | CheckOutcome::Warn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_without_the_checks_of_other_versions() {
        let stored = r#"{"time":1,"revision":2,"proof":"p","outcome":"inconclusive","failed":[],
            "passed":["jwks.keys","added.later"],"hosts":[]}"#;
        let record: CheckRecord = serde_json::from_str(stored).expect("a record");
        assert_eq!(record.passed, [CheckId::JwksKeys]);
    }

    #[test]
    fn only_a_failure_fails_and_only_pass_and_warn_prove() {
        for (outcome, has_not_failed, has_passed) in [
            (CheckOutcome::Pass, true, true),
            (CheckOutcome::Warn, true, true),
            (CheckOutcome::Inconclusive, true, false),
            (CheckOutcome::Fail, false, false),
        ] {
            let record = CheckRecord {
                time: UnixMillis(0),
                revision: 1,
                proof: String::new(),
                outcome,
                failed: Vec::new(),
                passed: Vec::new(),
                hosts: Vec::new(),
            };
            assert_eq!(record.has_not_failed(), has_not_failed, "{outcome:?}");
            assert_eq!(record.has_passed(), has_passed, "{outcome:?}");
        }
    }
}
