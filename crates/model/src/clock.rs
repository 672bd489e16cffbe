//! Time comes in through [`Clock`], so that tests and replay can bring their own.

use std::fmt::Debug;
use std::time::UNIX_EPOCH;

/// Where a room reads the time of day.
pub trait Clock: Debug + Send + Sync {
    /// Nanoseconds since the Unix epoch, UTC.
    fn now_unix_nano(&self) -> u64;

    /// Microseconds since the Unix epoch, UTC: the resolution of Delta's `TIMESTAMP`.
    fn now_unix_micro(&self) -> i64 {
        i64::try_from(self.now_unix_nano() / 1_000).unwrap_or(i64::MAX)
    }
}

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    fn now_unix_nano(&self) -> u64 {
        std::time::SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }
}
