//! Bounds log lines that a stranger can cause.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets through 10 lines a second, and counts the others.
#[derive(Debug, Default)]
pub struct LogThrottle(Mutex<Option<Window>>);

#[derive(Debug)]
struct Window {
    began: Instant,
    lines: u32,
    suppressed: u64,
}

impl LogThrottle {
    /// Nothing was logged yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Calls `log` with the number of lines that were suppressed since the last one, unless too many
    /// were logged lately.
    #[expect(clippy::disallowed_methods, reason = "telemetry measures time itself")]
    pub fn warn(&self, log: impl FnOnce(u64)) {
        if let Some(suppressed) = self.admit(Instant::now()) {
            log(suppressed);
        }
    }

    fn admit(&self, now: Instant) -> Option<u64> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let current = window.get_or_insert(Window { began: now, lines: 0, suppressed: 0 });
        if now.duration_since(current.began) >= WINDOW {
            (current.began, current.lines) = (now, 0);
        }
        if current.lines >= LINES {
            current.suppressed += 1;
            return None;
        }
        current.lines += 1;
        Some(std::mem::take(&mut current.suppressed))
    }
}

const LINES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant serves")]
    fn lines_beyond_the_limit_are_counted_and_told_later() {
        let (throttle, now) = (LogThrottle::new(), Instant::now());
        let admitted: Vec<_> = (0..25).filter_map(|_| throttle.admit(now)).collect();
        assert_eq!(admitted, [0; 10]);
        assert_eq!(throttle.admit(now + WINDOW), Some(15));
        assert_eq!(throttle.admit(now + WINDOW), Some(0));
    }
}
