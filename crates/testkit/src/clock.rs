//! A clock that moves only when told to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tracelake_model::Clock;

/// Wall time starts at a fixed instant (2026-11-22 00:00:00 UTC), monotonic time at nothing. Both
/// move by [`FakeClock::advance`]; wall time alone steps by [`FakeClock::step_wall`].
#[derive(Debug)]
pub struct FakeClock {
    wall: AtomicU64,
    monotonic: AtomicU64,
}

impl Default for FakeClock {
    fn default() -> Self {
        Self { wall: AtomicU64::new(1_795_305_600_000_000_000), monotonic: AtomicU64::new(0) }
    }
}

impl FakeClock {
    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        for clock in [&self.wall, &self.monotonic] {
            change(clock, |now| now.saturating_add(nanos));
        }
    }

    /// Sets the wall clock ahead or back, no time passes.
    pub fn step_wall(&self, by_nanos: i64) {
        change(&self.wall, |now| now.saturating_add_signed(by_nanos));
    }
}

fn change(clock: &AtomicU64, to: impl Fn(u64) -> u64) {
    // The closure always has a value, so this cannot fail.
    clock.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| Some(to(now))).ok();
}

impl Clock for FakeClock {
    fn now_unix_nano(&self) -> u64 {
        self.wall.load(Ordering::SeqCst)
    }

    fn monotonic_nano(&self) -> u64 {
        self.monotonic.load(Ordering::SeqCst)
    }
}
