//! The records of each account's latest logins, for support. Must never contain a code, token, state or
//! the value of a claim.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use super::cause::Cause;
use super::identity::IdentityClaim;
use super::reason::Reason;
use super::slug::Slug;
use super::stable_names;
use super::time::UnixMillis;

/// A login that was completed or refused: at its begin, or at a callback whose state was issued here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it ended.
    pub time: UnixMillis,
    /// Where it ended; `None` if an older version recorded the attempt.
    #[serde(default, deserialize_with = "known_stage")]
    pub stage: Option<LoginStage>,
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
    /// The IdP's own words: sanitized, without secrets and e-mail addresses.
    #[serde(default)]
    pub idp_error_description: Option<String>,
    /// Which document of the IdP was at fault: metadata, keys, token or userinfo.
    #[serde(default)]
    pub document: Option<String>,
    /// What was expected and what was received. Never of an error about claims.
    #[serde(default)]
    pub detail: Option<String>,
    /// The required claims that were present; `None`: the claims were not reached.
    pub claims_present: Option<Vec<IdentityClaim>>,
    /// The IdP's issuer, if it was known when the attempt ended.
    pub issuer: Option<String>,
    /// How long each phase took, in the order in which they ended.
    pub phases: Vec<PhaseMicros>,
    /// Whether the connection was TESTING.
    pub is_test: bool,
}

/// Where a login ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LoginStage {
    /// Nobody was sent to the IdP.
    Begin,
    /// With a callback.
    Complete,
}

impl LoginStage {
    /// Every stage.
    pub const ALL: &[Self] = &[Self::Begin, Self::Complete];

    /// The name in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::Complete => "complete",
        }
    }
}

stable_names!(LoginStage, name);

/// A stored attempt. Logins at one account that are refused alike within an hour are one, with the details
/// of the latest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedAttempt {
    /// The account.
    pub slug: Slug,
    /// The latest of them.
    pub attempt: Attempt,
    /// How many there were.
    pub count: u64,
    /// When the first of them ended.
    pub first_time: UnixMillis,
    /// When the latest of them ended.
    pub last_time: UnixMillis,
}

/// Which attempts to list, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttemptQuery {
    /// Of this account; `None`: of all.
    pub slug: Option<Slug>,
    /// With this trace id.
    pub trace_id: Option<String>,
    /// Refused for this reason.
    pub reason: Option<Reason>,
    /// That ended at this time or later.
    pub since: Option<UnixMillis>,
    /// At most this many.
    pub limit: u32,
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

/// The outcome of the logins of an account, or of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoginSummary {
    /// When the last login was completed.
    pub last_success: Option<UnixMillis>,
    /// Refused logins of the last 24 hours, by reason.
    pub failures: BTreeMap<Reason, u32>,
    /// Callbacks with a state that was not issued here.
    pub unrecognized_callbacks: u64,
    /// What was counted in the last 24 hours, and in the part of an hour before them.
    pub day: LoginCounts,
    /// The logins that began since a person last came back from the IdP.
    pub unreturned: Option<Unreturned>,
}

/// How many logins went how far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoginCounts {
    /// Those that began: a person was sent to the IdP.
    pub begun: u64,
    /// Those whose person came back from the IdP.
    pub returned: u64,
    /// Those that were completed.
    pub completed: u64,
    /// Those that were refused, at their begin or at their end.
    pub refused: u64,
}

/// Logins that began, after which nobody has come back from the IdP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreturned {
    /// How many.
    pub count: u64,
    /// When the first of them began.
    pub since: UnixMillis,
}

impl LoginSummary {
    /// The logins of which nobody came back, if they are so many and so old that the IdP probably keeps the
    /// people. Only a hint: strangers can begin logins, too.
    #[must_use]
    pub fn suspicion(&self, now: UnixMillis) -> Option<Unreturned> {
        let unreturned = self.unreturned?;
        let is_telling = unreturned.count >= SUSPICIOUS_COUNT
            && now.since(unreturned.since) >= SUSPICIOUS_AGE
            && self.day.begun > 0
            // An older version, which counts no returns, has completed a login.
            && self.last_success.is_none_or(|time| time < unreturned.since);
        is_telling.then_some(unreturned)
    }
}

/// What is counted of an account's logins until it is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoginTally {
    /// When the first of them was counted: they all belong to its hour.
    pub time: UnixMillis,
    /// The numbers.
    pub counts: LoginCounts,
    /// The logins that began after `last_return`.
    pub unreturned: Option<Unreturned>,
    /// When a person last came back.
    pub last_return: Option<UnixMillis>,
    /// When a login was last completed.
    pub last_success: Option<UnixMillis>,
}

impl LoginTally {
    /// Counts a login that began.
    pub fn count_begun(&mut self, time: UnixMillis) {
        self.begin_at(time);
        self.counts.begun += 1;
        let first = Unreturned { count: 0, since: time };
        self.unreturned.get_or_insert(first).count += 1;
    }

    /// Counts the end of a login.
    pub fn count_end(&mut self, time: UnixMillis, end: LoginEnd) {
        self.begin_at(time);
        match end {
            LoginEnd::Completed => {
                self.counts.completed += 1;
                self.last_success = Some(time);
            }
            LoginEnd::RefusedAtBegin | LoginEnd::Refused | LoginEnd::RefusedAgain => {
                self.counts.refused += 1;
            }
        }
        match end {
            LoginEnd::Completed | LoginEnd::Refused => self.counts.returned += 1,
            LoginEnd::RefusedAtBegin | LoginEnd::RefusedAgain => {}
        }
        if end != LoginEnd::RefusedAtBegin {
            (self.unreturned, self.last_return) = (None, Some(time));
        }
    }

    fn begin_at(&mut self, time: UnixMillis) {
        if self.counts == LoginCounts::default() {
            self.time = time;
        }
    }
}

/// How a login ended, for the counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginEnd {
    /// Nobody was sent to the IdP.
    RefusedAtBegin,
    /// A person came back, and is logged in.
    Completed,
    /// A person came back.
    Refused,
    /// A person came back with a state that was spent before, and was counted then.
    RefusedAgain,
}

/// Hours since the Unix epoch: what one row of counters, or one of folded attempts, is of.
#[must_use]
pub fn hour_of(time: UnixMillis) -> u64 {
    time.seconds().0 / 3600
}

/// Fewer logins without a return say nothing.
const SUSPICIOUS_COUNT: u64 = 3;
/// A person needs some time at the IdP.
const SUSPICIOUS_AGE: Duration = Duration::from_secs(5 * 60);

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

fn known_stage<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<LoginStage>, D::Error> {
    let name = Option::<String>::deserialize(deserializer)?;
    Ok(name.and_then(|name| LoginStage::parse(&name)))
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
        assert_eq!((attempt.stage, attempt.idp_error_description), (None, None));
        assert_eq!(attempt.claims_present, Some(vec![IdentityClaim::Email]));
        assert_eq!(attempt.phases, [PhaseMicros { phase: "token".to_owned(), micros: 5 }]);
        let new = old
            .replace("CLAIM_MISSING", "NEW_REASON")
            .replace("\"time\"", "\"cause\":\"new\",\"stage\":\"new\",\"time\"");
        let attempt: Attempt = serde_json::from_str(&new).expect("an attempt");
        assert_eq!((attempt.reason, attempt.cause), (Some(Reason::Internal), None));
        assert_eq!(attempt.stage, None);
        let completed: Attempt =
            serde_json::from_str(&old.replace("CLAIM_MISSING", "")).expect("an attempt");
        assert_eq!(completed.reason, None);
        assert!(serde_json::to_string(&completed).expect("JSON").contains(r#""reason":"""#));
    }
    #[test]
    fn logins_that_never_return_are_suspicious_after_five_minutes() {
        let minutes = |count: u64| UnixMillis(1_800_000_000_000 + count * 60_000);
        let summary = |count, begun, last_success| LoginSummary {
            last_success,
            day: LoginCounts { begun, ..LoginCounts::default() },
            unreturned: Some(Unreturned { count, since: minutes(0) }),
            ..LoginSummary::default()
        };
        for (summary, now, expected) in [
            (summary(3, 3, None), minutes(5), true),
            (summary(3, 3, Some(UnixMillis(1))), minutes(5), true),
            (summary(2, 2, None), minutes(5), false),
            (summary(3, 3, None), UnixMillis(minutes(5).0 - 1), false),
            // Nobody has tried for a day.
            (summary(3, 0, None), minutes(3000), false),
            (summary(3, 3, Some(minutes(1))), minutes(5), false),
            (LoginSummary::default(), minutes(5), false),
        ] {
            assert_eq!(summary.suspicion(now).is_some(), expected, "{summary:?} at {now}");
        }
    }

    #[test]
    fn a_return_ends_the_count_of_those_that_never_return() {
        let mut tally = LoginTally::default();
        tally.count_begun(UnixMillis(1));
        tally.count_begun(UnixMillis(2));
        assert_eq!(tally.unreturned, Some(Unreturned { count: 2, since: UnixMillis(1) }));
        tally.count_end(UnixMillis(3), LoginEnd::Completed);
        assert_eq!((tally.unreturned, tally.last_return), (None, Some(UnixMillis(3))));
        tally.count_begun(UnixMillis(4));
        tally.count_end(UnixMillis(5), LoginEnd::RefusedAtBegin);
        assert_eq!(tally.unreturned, Some(Unreturned { count: 1, since: UnixMillis(4) }));
        tally.count_end(UnixMillis(6), LoginEnd::RefusedAgain);
        let counts = LoginCounts { begun: 3, returned: 1, completed: 1, refused: 2 };
        assert_eq!((tally.counts, tally.unreturned), (counts, None));
        assert_eq!((tally.time, tally.last_success), (UnixMillis(1), Some(UnixMillis(3))));
    }
}
