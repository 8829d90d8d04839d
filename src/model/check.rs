//! The results of checking a connection at the customer's IdP, and the record that is stored of them.

use serde::{Deserialize, Deserializer, Serialize};

use super::cause::Cause;
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
    ($($variant:ident = $code:literal, $expected:literal, [$($need:ident),*];)*) => {
        /// The checks, by their stable ids.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "the ids name what is checked")]
        pub enum CheckId {
            $($variant,)*
        }

        impl CheckId {
            /// Every check, in the order in which they are reported.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The stable id, such as `client.credentials`.
            #[must_use]
            pub fn code(self) -> &'static str {
                match self {
                    $(Self::$variant => $code,)*
                }
            }

            /// What a working connection needs, in words without the connection's own values.
            #[must_use]
            pub fn expected(self) -> &'static str {
                match self {
                    $(Self::$variant => $expected,)*
                }
            }

            /// The checks of which one has failed if this one couldn't be made. One fault is then one
            /// finding: what depends on it is SKIPPED, and names it.
            #[must_use]
            pub fn needs(self) -> &'static [Self] {
                match self {
                    $(Self::$variant => &[$(Self::$need),*],)*
                }
            }
        }
    };
}

check_ids! {
    AccountState = "account.state", "the account's logins are not switched off", [];
    MetadataDocument = "metadata.document", "the metadata document can be fetched over https", [];
    ClockSkew = "clock.skew", "the IdP's clock differs by at most 60 s", [MetadataDocument];
    MetadataIssuer = "metadata.issuer", "the document's issuer is the expected one",
        [MetadataDocument];
    MetadataCodeFlow = "metadata.code_flow", "the IdP offers the authorization code flow",
        [MetadataDocument];
    MetadataPkce = "metadata.pkce", "the IdP supports PKCE with S256", [MetadataDocument];
    MetadataScopes = "metadata.scopes", "the IdP offers the connection's scopes",
        [MetadataDocument];
    MetadataClaims = "metadata.claims", "the IdP offers the mapped claims", [MetadataDocument];
    MetadataAuthMethod = "metadata.auth_method",
        "the token endpoint accepts the connection's authentication method",
        [MetadataDocument, ClientCredentials];
    MetadataSigningAlgs = "metadata.signing_algs",
        "ID tokens are signed with an accepted algorithm (RS, PS or ES 256-512, or EdDSA)",
        [MetadataDocument];
    MetadataEndpoints = "metadata.endpoints",
        "authorization_endpoint, token_endpoint and jwks_uri are https URLs of public hosts",
        [MetadataDocument];
    MetadataUsable = "metadata.usable", "a login can use the metadata document",
        [MetadataDocument, MetadataIssuer, MetadataSigningAlgs, MetadataEndpoints];
    MetadataCrossCheck = "metadata.cross_check",
        "the endpoints that were set by hand are those of the issuer's metadata document", [];
    MetadataHosts = "metadata.hosts",
        "the endpoints are on the same hosts as at the last check that passed",
        [MetadataDocument, MetadataEndpoints];
    JwksKeys = "jwks.keys", "a key for an accepted algorithm is published",
        [MetadataDocument, MetadataSigningAlgs, MetadataEndpoints];
    ClientSecretExpiry = "client.secret_expiry",
        "the client secret is valid for at least 30 days", [];
    ClientCredentials = "client.credentials", "the IdP accepts the client id and the client secret",
        [MetadataDocument, MetadataEndpoints, MetadataCrossCheck, ClientSecretExpiry];
    ClientStandbySecret = "client.standby_secret", "the IdP accepts the standby secret",
        [MetadataDocument, MetadataEndpoints, ClientSecretExpiry, ClientCredentials];
    ClientId = "client.id", "the IdP knows the client id",
        [MetadataDocument, MetadataEndpoints, ClientSecretExpiry, ClientCredentials];
    ClientPushedAuthorization = "client.pushed_authorization",
        "a login may begin without a pushed authorization request (RFC 9126)",
        [MetadataDocument, MetadataEndpoints];
    ClientRedirectUri = "client.redirect_uri",
        "the account's redirect URI is registered with the client",
        [MetadataDocument, MetadataEndpoints, MetadataCrossCheck, ClientId, ClientCredentials,
        ClientPushedAuthorization, MetadataCodeFlow, MetadataScopes, MetadataPkce];
    ClientSubjects = "client.subjects", "people keep their subjects", [MetadataDocument];
    LogoutEndpoint = "logout.endpoint", "users can be logged out at the IdP as well, and come back",
        [MetadataDocument, MetadataEndpoints, ClientId, ClientCredentials];
    TlsCertificate = "tls.certificate",
        "the certificates of the endpoints' hosts are valid for at least 14 days",
        [MetadataDocument, MetadataEndpoints];
    CheckDeadline = "check.deadline", "the IdP answers all requests in time", [];
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
    /// What a login would be refused with, if it is about a login.
    pub cause: Option<Cause>,
}

/// Who must act on a check's result, and what to do.
#[derive(Clone, Debug)]
pub struct CheckRemedy {
    /// Who must act.
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
    /// The checks that warned.
    #[serde(default, deserialize_with = "known_ids")]
    pub warned: Vec<CheckId>,
    /// The checks that only a person's login can decide.
    #[serde(default, deserialize_with = "known_ids")]
    pub inconclusive: Vec<CheckId>,
    /// The checks that depend on one that failed, or have nothing to check. An earlier version of the
    /// service recorded none.
    #[serde(default, deserialize_with = "known_ids")]
    pub skipped: Vec<CheckId>,
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

    /// Whether `id` was proven. A logout that passed in an earlier version was only advertised by the IdP;
    /// that version skipped nothing, and this one always skips something.
    #[must_use]
    pub fn proves(&self, id: CheckId) -> bool {
        self.passed.contains(&id) && (id != CheckId::LogoutEndpoint || !self.skipped.is_empty())
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
        assert!(record.skipped.is_empty() && record.proves(CheckId::JwksKeys));
        let logout = stored.replace("added.later", "logout.endpoint");
        let record: CheckRecord = serde_json::from_str(&logout).expect("a record");
        assert!(!record.proves(CheckId::LogoutEndpoint), "it was only advertised");
    }

    /// Every check that is made can be waited for: no check depends on itself, however indirectly.
    #[test]
    fn what_a_check_needs_is_in_no_circle() {
        fn depth(id: CheckId, above: &[CheckId]) -> usize {
            assert!(!above.contains(&id), "{above:?} {id:?}");
            let above = [above, &[id]].concat();
            1 + id.needs().iter().map(|need| depth(*need, &above)).max().unwrap_or(0)
        }
        let deepest = CheckId::ALL.iter().map(|id| depth(*id, &[])).max();
        assert!(deepest.is_some_and(|deepest| deepest < 8), "{deepest:?}");
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
                warned: Vec::new(),
                inconclusive: Vec::new(),
                skipped: Vec::new(),
                hosts: Vec::new(),
            };
            assert_eq!(record.has_not_failed(), has_not_failed, "{outcome:?}");
            assert_eq!(record.has_passed(), has_passed, "{outcome:?}");
        }
    }
}
