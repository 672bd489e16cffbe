//! Time comes in through [`Clock`], so that tests and replay can bring their own.
//!
//! There are two kinds. **Wall time** says which moment it is; it may step, back or ahead, by any
//! amount. **Monotonic time** says how long something took; every wait is measured by it.

use std::fmt::Debug;
use std::sync::LazyLock;
use std::time::{Instant, UNIX_EPOCH};

/// Where a room reads the time.
pub trait Clock: Debug + Send + Sync {
    /// Wall time: nanoseconds since the Unix epoch, UTC; 0 before it.
    fn now_unix_nano(&self) -> u64;

    /// Monotonic time: nanoseconds since some moment before, the same one for as long as the process
    /// lives. Never goes back, and has nothing to do with wall time.
    fn monotonic_nano(&self) -> u64;

    /// Wall time in microseconds: the resolution of Delta's `TIMESTAMP`.
    fn now_unix_micro(&self) -> i64 {
        i64::try_from(self.now_unix_nano() / 1_000).unwrap_or(i64::MAX)
    }

    /// The wall time by which something may be deleted for its age: no later than what this clock
    /// and another witness agree on. A clock that has no other witness says what it shows.
    fn proven_unix_nano(&self) -> u64 {
        self.now_unix_nano()
    }

    /// Another witness says that it was this time already: a sender.
    fn witness(&self, _unix_nano: u64) {}

    /// From here on wall time is not below `floor`: what was written with is known to be older.
    fn raise(&self, _floor: Times) {}

    /// What the clock would say after a restart.
    fn times(&self) -> Times {
        let now = self.now_unix_nano();
        Times { given_unix_nano: now, proven_unix_nano: now }
    }

    /// By how much the system's wall time differs from what this clock shows, nanoseconds; positive
    /// when the system is ahead. 0 when one follows the other.
    fn system_ahead_nano(&self) -> i64 {
        0
    }
}

/// What outlives a process of its [`Clock`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Times {
    /// The newest time that was given out, nanoseconds since the Unix epoch.
    pub given_unix_nano: u64,
    /// The newest time that two witnesses agreed on.
    pub proven_unix_nano: u64,
}

/// The operating system's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// What the system's monotonic time is counted from.
static FIRST_LOOK: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    fn now_unix_nano(&self) -> u64 {
        std::time::SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    fn monotonic_nano(&self) -> u64 {
        u64::try_from(FIRST_LOOK.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}
