//! What is known of a connection beside its settings: what a check found, what became of logins, what was changed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How one check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckOutcome {
    /// It is as it must be.
    Pass,
    /// Logins may work, and something should be looked at.
    Warn,
    /// Logins can't work.
    Fail,
    /// It can't be told without a person.
    Inconclusive,
}

/// Who can mend something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// What was entered here.
    Support,
    /// At the customer's IdP.
    CustomerIdpAdmin,
}

/// What one check found.
#[derive(Clone, Debug)]
pub struct CheckResult {
    /// Stable.
    pub id: &'static str,
    /// How it ended.
    pub outcome: CheckOutcome,
    /// What must be.
    pub expected: String,
    /// What is.
    pub found: String,
    /// Who must act, and how.
    pub remedy: Option<(Party, String)>,
}

/// What is kept of a whole check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckRecord {
    /// When it ended, in milliseconds since the Unix epoch.
    pub time: u64,
    /// The revision of the connection.
    pub revision: u64,
    /// What was checked; see [`proof_digest`](super::connection::proof_digest).
    pub proof: String,
    /// FAIL if any failed; INCONCLUSIVE if credentials or redirect URI are; else WARN or PASS.
    pub outcome: CheckOutcome,
    /// Ids of the checks that failed.
    pub failed: Vec<String>,
    /// Ids of the checks that passed.
    pub passed: Vec<String>,
    /// The hosts of the IdP's endpoints at the last check that passed.
    pub hosts: Vec<String>,
}

impl CheckRecord {
    /// Whether nothing failed, and what can't be told without a person is left to a test login.
    #[must_use]
    pub fn has_not_failed(&self) -> bool {
        self.outcome != CheckOutcome::Fail
    }

    /// Whether nothing failed, and credentials and redirect URI are proven without a person.
    #[must_use]
    pub fn has_passed(&self) -> bool {
        matches!(self.outcome, CheckOutcome::Pass | CheckOutcome::Warn)
    }
}

/// What is kept of a callback whose state was ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it ended, in milliseconds since the Unix epoch.
    pub time: u64,
    /// Empty: the login was completed.
    pub reason: String,
    /// Of the refusal.
    pub owner: String,
    /// As in the log.
    pub trace_id: String,
    /// The IdP's error code.
    pub idp_error: Option<String>,
    /// Names of the required claims that were there; `None`: it didn't come to that.
    pub claims_present: Option<Vec<String>>,
    /// Where it was known by then.
    pub issuer: Option<String>,
    /// Microseconds by phase, in the order in which they began.
    pub phases: Vec<(String, u64)>,
    /// Whether the connection was TESTING.
    pub is_test: bool,
}

/// How logins of an account went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoginSummary {
    /// Milliseconds since the Unix epoch.
    pub last_success: Option<u64>,
    /// Of the last 24 hours, by reason.
    pub failures: BTreeMap<String, u32>,
    /// Callbacks with a state that was not ours.
    pub unrecognized_callbacks: u64,
}

/// A change of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeRecord {
    /// Milliseconds since the Unix epoch.
    pub time: u64,
    /// Who.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// The revision from then on; 0: deleted.
    pub revision: u64,
    /// Name, before and after; secrets as fingerprints.
    pub fields: Vec<(String, String, String)>,
    /// Whether a check was skipped.
    pub is_forced: bool,
}

/// The claims without which nobody is logged in, by the names of the Identity's fields.
pub const REQUIRED_CLAIMS: [&str; 3] = ["email", "given_name", "family_name"];
