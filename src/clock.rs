//! The wall clock. Every module gets it as an argument, so that a test can set the time;
//! clippy.toml forbids reading the system's clock elsewhere.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::model::time::{UnixMillis, UnixSeconds, millis};

/// A wall clock.
pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch.
    fn unix_millis(&self) -> UnixMillis;

    /// Whole seconds since the Unix epoch, as JWT's NumericDate (RFC 7519 2) counts them.
    fn unix_seconds(&self) -> UnixSeconds {
        self.unix_millis().seconds()
    }
}

/// The operating system's clock.
#[derive(Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    fn unix_millis(&self) -> UnixMillis {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMillis(millis(since_epoch))
    }
}

/// A clock that only moves when a test advances it.
#[derive(Debug)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// Starts at the operating system's time.
    #[must_use]
    pub fn starting_now() -> Self {
        Self(AtomicU64::new(SystemClock.unix_millis().0))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(millis(by), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn unix_millis(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::SeqCst))
    }
}
