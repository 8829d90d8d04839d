//! The records of each account's latest logins, for support. Must never contain a code, token, state or
//! the value of a claim.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::cause::Cause;
use super::identity::IdentityClaim;
use super::reason::Reason;
use super::time::UnixMillis;

/// A callback whose state was issued here, and its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it ended.
    pub time: UnixMillis,
    /// `None`: the login was completed.
    #[serde(deserialize_with = "known_reason", serialize_with = "reason_or_empty")]
    pub reason: Option<Reason>,
    /// What exactly happened; `None` also if an older version recorded the attempt.
    #[serde(default, deserialize_with = "known_cause")]
    pub cause: Option<Cause>,
    /// The trace id of the refusal and of the log lines.
    pub trace_id: String,
    /// The IdP's error code.
    pub idp_error: Option<String>,
    /// The required claims that were present; `None`: the claims were not reached.
    pub claims_present: Option<Vec<IdentityClaim>>,
    /// The IdP's issuer, if it was known when the attempt ended.
    pub issuer: Option<String>,
    /// How long each phase took, in the order in which they ended.
    pub phases: Vec<PhaseMicros>,
    /// Whether the connection was TESTING.
    pub is_test: bool,
}

/// How long a phase of a login took. Stored as a pair, as earlier versions did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(String, u64)", into = "(String, u64)")]
pub struct PhaseMicros {
    /// store, metadata, token, userinfo or verify.
    pub phase: String,
    /// Microseconds.
    pub micros: u64,
}

impl From<(String, u64)> for PhaseMicros {
    fn from((phase, micros): (String, u64)) -> Self {
        Self { phase, micros }
    }
}

impl From<PhaseMicros> for (String, u64) {
    fn from(PhaseMicros { phase, micros }: PhaseMicros) -> Self {
        (phase, micros)
    }
}

/// A test login that was completed: which settings and secret it proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestLogin {
    /// The [`proof_digest`](super::connection::proof_digest) at the time.
    pub proof: String,
    /// When it was completed.
    pub time: UnixMillis,
}

/// The outcome of an account's logins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoginSummary {
    /// When the last login was completed.
    pub last_success: Option<UnixMillis>,
    /// Refused logins of the last 24 hours, by reason.
    pub failures: BTreeMap<Reason, u32>,
    /// Callbacks with a state that was not issued here.
    pub unrecognized_callbacks: u64,
}

/// An empty reason stands for a completed login. A reason recorded by another version and unknown to this
/// one becomes INTERNAL: it stays visible, and lists that contain it can still be read.
fn known_reason<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Reason>, D::Error> {
    let name = String::deserialize(deserializer)?;
    Ok((!name.is_empty()).then(|| Reason::parse(&name).unwrap_or(Reason::Internal)))
}

fn reason_or_empty<S: serde::Serializer>(
    reason: &Option<Reason>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(reason.map_or("", Reason::name))
}

fn known_cause<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Cause>, D::Error> {
    let code = Option::<String>::deserialize(deserializer)?;
    Ok(code.and_then(|code| Cause::parse(&code)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_of_older_and_newer_versions_are_read() {
        let old = r#"{"time":1,"reason":"CLAIM_MISSING","owner":"customer_idp_admin","trace_id":"t",
            "idp_error":null,"claims_present":["email"],"issuer":null,"phases":[["token",5]],"is_test":false}"#;
        let attempt: Attempt = serde_json::from_str(old).expect("an attempt");
        assert_eq!((attempt.reason, attempt.cause), (Some(Reason::ClaimMissing), None));
        assert_eq!(attempt.claims_present, Some(vec![IdentityClaim::Email]));
        assert_eq!(attempt.phases, [PhaseMicros { phase: "token".to_owned(), micros: 5 }]);
        let new = old
            .replace("CLAIM_MISSING", "NEW_REASON")
            .replace("\"time\"", "\"cause\":\"new\",\"time\"");
        let attempt: Attempt = serde_json::from_str(&new).expect("an attempt");
        assert_eq!((attempt.reason, attempt.cause), (Some(Reason::Internal), None));
        let completed: Attempt =
            serde_json::from_str(&old.replace("CLAIM_MISSING", "")).expect("an attempt");
        assert_eq!(completed.reason, None);
        assert!(serde_json::to_string(&completed).expect("JSON").contains(r#""reason":"""#));
    }
}
