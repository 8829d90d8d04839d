//! The wall clock, for tokens, states and rows, and the monotonic clock, for intervals. Every module gets
//! them as an argument, so that a test can set the time; clippy.toml forbids reading the system's clocks
//! elsewhere.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::model::time::{MonotonicMillis, UnixMillis, UnixSeconds, millis};

/// A wall clock and a monotonic clock.
pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch.
    fn unix_millis(&self) -> UnixMillis;

    /// Whole seconds since the Unix epoch, as JWT's NumericDate (RFC 7519 2) counts them.
    fn unix_seconds(&self) -> UnixSeconds {
        self.unix_millis().seconds()
    }

    /// Never goes back, and isn't affected by changes of the wall clock.
    fn monotonic(&self) -> MonotonicMillis;
}

/// The operating system's clocks.
#[derive(Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    fn unix_millis(&self) -> UnixMillis {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMillis(millis(since_epoch))
    }

    fn monotonic(&self) -> MonotonicMillis {
        MonotonicMillis(millis(START.elapsed()))
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A clock that only moves when a test moves it.
#[derive(Debug)]
pub struct ManualClock {
    wall: AtomicU64,
    monotonic: AtomicU64,
}

impl ManualClock {
    /// Starts at the operating system's time.
    #[must_use]
    pub fn starting_now() -> Self {
        Self { wall: AtomicU64::new(SystemClock.unix_millis().0), monotonic: AtomicU64::default() }
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.wall.fetch_add(millis(by), Ordering::SeqCst);
        self.monotonic.fetch_add(millis(by), Ordering::SeqCst);
    }

    /// Sets the wall clock back, as an operator or NTP does.
    pub fn set_back(&self, by: Duration) {
        self.wall.fetch_sub(millis(by), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn unix_millis(&self) -> UnixMillis {
        UnixMillis(self.wall.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> MonotonicMillis {
        MonotonicMillis(self.monotonic.load(Ordering::SeqCst))
    }
}
