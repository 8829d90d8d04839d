//! How often an account's IdP may be asked for its documents again because of a login: a few times in a
//! row, then once in a while. Used by [`super::providers`].

use std::fmt;
use std::time::Duration;

use crate::model::time::MonotonicMillis;

/// A token bucket: [`IN_A_ROW`] fetches, one more each [`INTERVAL`].
#[derive(Debug, Default)]
pub(super) struct RefetchLimit {
    /// When all fetches are available again. `None`: none was made yet.
    full_at: Option<MonotonicMillis>,
}

impl RefetchLimit {
    /// How long to wait for the next fetch.
    pub(super) fn wait(&self, now: MonotonicMillis) -> Duration {
        let until_full = self.full_at.map_or(Duration::ZERO, |full_at| full_at.since(now));
        until_full.saturating_sub(INTERVAL * (IN_A_ROW - 1))
    }

    /// Takes a fetch, if there is one.
    pub(super) fn take(&mut self, now: MonotonicMillis) -> bool {
        let is_available = self.wait(now).is_zero();
        if is_available {
            let full_at = self.full_at.filter(|full_at| *full_at > now).unwrap_or(now);
            self.full_at = Some(full_at.after(INTERVAL));
        }
        is_available
    }

    /// Gives a fetch back for which the IdP was not asked.
    pub(super) fn give_back(&mut self) {
        self.full_at = self.full_at.map(|full_at| full_at.before(INTERVAL));
    }
}

/// How old an IdP's keys are, for the refusal of a token that none of them verifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeysAge {
    pub(super) read_ago: Duration,
    pub(super) again_in: Duration,
}

impl fmt::Display for KeysAge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (read_ago, again_in) = (self.read_ago.as_secs(), self.again_in.as_secs_f64().ceil());
        write!(f, "the IdP's keys were last read {read_ago} s ago, and may be read again ")?;
        if self.again_in.is_zero() {
            f.write_str("by the next login")
        } else {
            write!(f, "in {again_in} s")
        }
    }
}

/// An IdP that publishes a key too late, or moves twice, must not cost logins for half a minute.
const IN_A_ROW: u32 = 3;
const INTERVAL: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_fetches_in_a_row_then_one_per_interval() {
        let mut limit = RefetchLimit::default();
        let mut taken = |at| limit.take(MonotonicMillis(at));
        assert!(taken(0) && taken(1) && taken(2));
        assert!(!taken(3) && !taken(29_999));
        assert!(taken(30_000) && !taken(30_001));
        assert!(taken(60_000) && !taken(60_000));
        assert!(taken(1_000_000) && taken(1_000_000) && taken(1_000_000) && !taken(1_000_000));
        assert_eq!(limit.wait(MonotonicMillis(1_010_000)), Duration::from_secs(20));
        limit.give_back();
        assert!(limit.take(MonotonicMillis(1_010_000)) && !limit.take(MonotonicMillis(1_010_000)));
    }

    #[test]
    fn the_age_of_keys_is_put_into_words() {
        for (again_in, expected) in [(0, "by the next login"), (17_500, "in 18 s")] {
            let again_in = Duration::from_millis(again_in);
            let age = KeysAge { read_ago: Duration::from_secs(12), again_in };
            let expected =
                format!("the IdP's keys were last read 12 s ago, and may be read again {expected}");
            assert_eq!(age.to_string(), expected);
        }
    }
}
