//! A rate, such as 120 per minute.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

/// A number of calls per period; all of them may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Calls per period.
    pub count: NonZeroU32,
    /// 1 second to 1 hour.
    pub period: Duration,
}

impl fmt::Display for Rate {
    /// As [`Rate::parse`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, humantime::format_duration(self.period))
    }
}

impl Rate {
    /// Parses `120/1m` or `20/s`; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (count, period) = text.split_once('/')?;
        let period = if period.starts_with(|c: char| c.is_ascii_digit()) {
            period.to_owned()
        } else {
            format!("1{period}")
        };
        let period = humantime::parse_duration(&period).ok()?;
        let fits = (Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&period);
        let count: NonZeroU32 = count.trim().parse().ok()?;
        fits.then_some(Self { count, period })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_parsed_within_its_bounds() {
        let rate = |count, seconds| {
            Some(Rate {
                count: NonZeroU32::new(count).expect("not 0"),
                period: Duration::from_secs(seconds),
            })
        };
        assert_eq!(Rate::parse("120/1m"), rate(120, 60));
        assert_eq!(rate(120, 60).expect("a rate").to_string(), "120/1m");
        assert_eq!(Rate::parse("20/s"), rate(20, 1));
        for bad in ["", "1", "0/s", "-1/s", "1/0s", "1/2h", "1/week", "x/s", "1/"] {
            assert_eq!(Rate::parse(bad), None, "{bad}");
        }
    }
}
