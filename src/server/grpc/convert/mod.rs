//! Converts between the messages of the contract and the model. Requests are parsed here, all
//! violations at once, and are never checked for form again. Called by the RPC implementations.

mod attempts;
mod connection_view;
mod connections;
mod identity;
mod login;

use crate::model::Violation;
use crate::model::slug::{SLUG_RULE, Slug};
use crate::model::time::{UnixMillis, UnixSeconds};
use crate::telemetry::call;

pub(in crate::server) use attempts::{attempt_to_pb, attempts_request};
pub(in crate::server) use connection_view::{
    connection_to_pb, found, stored_to_pb, summary_of_check,
};
pub(in crate::server) use connections::*;
pub(in crate::server) use login::logout_request;

/// A parsed request, or its violations.
pub(in crate::server) type Checked<T> = Result<T, Vec<Violation>>;

/// A request that is parsed from a message.
pub(in crate::server) trait Parsed<Message>: Sized {
    fn parse(message: Message) -> Checked<Self>;
}

/// Collects the violations of one request, so that all are reported at once.
#[derive(Default)]
struct Form {
    violations: Vec<Violation>,
}

impl Form {
    fn violation(&mut self, field: &'static str, description: impl Into<String>) {
        self.violations.push(Violation::new(field, description));
    }

    /// `needed` is `None` only if there is a violation.
    fn done<S, T>(self, needed: Option<S>, make: impl FnOnce(S) -> T) -> Checked<T> {
        match needed {
            Some(needed) if self.violations.is_empty() => Ok(make(needed)),
            _ => Err(self.violations),
        }
    }

    fn valid<T>(&mut self, checked: Checked<T>) -> Option<T> {
        match checked {
            Ok(value) => Some(value),
            Err(violations) => {
                self.violations.extend(violations);
                None
            }
        }
    }

    fn slug(&mut self, text: &str) -> Option<Slug> {
        let slug = Slug::parse(text);
        match &slug {
            // Parsed once: what is logged and refused from here on names the account.
            Some(slug) => call::set_account(slug),
            None => self.violation("slug", SLUG_RULE),
        }
        slug
    }

    fn revision(&mut self, field: &'static str, revision: u64) -> u64 {
        if revision == 0 {
            self.violation(field, "must be the revision that was read");
        }
        revision
    }

    fn time(&mut self, field: &'static str, time: prost_types::Timestamp) -> Option<UnixMillis> {
        // Up to the year 9999, as RFC 3339 has it.
        let seconds = u64::try_from(time.seconds).ok().filter(|seconds| *seconds < 253_402_300_800);
        if seconds.is_none() {
            self.violation(field, "must be a time from 1970 to 9999");
        }
        seconds.map(|seconds| UnixSeconds(seconds).into())
    }
}

/// A time beyond the range of i64, which no clock returns, becomes the latest time.
fn timestamp(time: UnixSeconds) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: i64::try_from(time.0).unwrap_or(i64::MAX), nanos: 0 }
}

fn timestamp_millis(time: UnixMillis) -> prost_types::Timestamp {
    let nanos = i32::try_from(time.0 % 1000).unwrap_or_default() * 1_000_000;
    prost_types::Timestamp { nanos, ..timestamp(time.seconds()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a request violates: the fields.
    pub(super) fn fields<T>(checked: Checked<T>) -> Vec<String> {
        let violations = checked.err().unwrap_or_default();
        violations.into_iter().map(|violation| violation.field.into_owned()).collect()
    }

    #[test]
    fn a_timestamp_is_of_the_years_1970_to_9999() {
        for (seconds, expected) in [
            (-1, None),
            (0, Some(0)),
            (1_700_000_000, Some(1_700_000_000_000)),
            (253_402_300_799, Some(253_402_300_799_000)),
            (253_402_300_800, None),
            (i64::MIN, None),
            (i64::MAX, None),
        ] {
            let mut form = Form::default();
            let time = form.time("x", prost_types::Timestamp { seconds, nanos: 999_999_999 });
            assert_eq!(time.map(|time| time.0), expected, "{seconds}");
            assert_eq!(form.violations.is_empty(), expected.is_some(), "{seconds}");
        }
    }

    #[test]
    fn a_time_is_sent_with_its_milliseconds() {
        let sent = timestamp_millis(UnixMillis(1_700_000_000_123));
        assert_eq!((sent.seconds, sent.nanos), (1_700_000_000, 123_000_000));
        assert_eq!(timestamp(UnixSeconds(u64::MAX)).seconds, i64::MAX);
    }

    #[tokio::test]
    async fn the_slug_is_known_to_the_call_even_if_another_field_is_invalid() {
        let call = call::Call::start(&http::HeaderMap::new(), "Test");
        let account = call.run(async {
            assert_eq!(fields(slug_and_revision("acme", 0)), ["revision"]);
            call::current(|call| call.account().cloned()).flatten()
        });
        assert_eq!(account.await, Slug::parse("acme"));
    }
}
