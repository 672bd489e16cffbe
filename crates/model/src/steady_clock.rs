//! A clock whose wall time never runs back, and that does not follow every step ahead.
//!
//! What an archiver writes down (arrival, `created_at`, versions of tables) should be in order, and
//! what it deletes for its age should be old. The system's wall time promises neither: it is set
//! back and ahead, by minutes or by decades. So it is believed as far as a second witness agrees.
//!
//! | the system's wall time | what this clock shows |
//! |---|---|
//! | goes with monotonic time | the same |
//! | is behind | goes on at half the speed until both meet: never back |
//! | is ahead by more than [`STEP_NANO`] | goes on with monotonic time, until a witness has seen a later time |
//!
//! A **witness** is whoever says what time it is by a clock of its own: a span that ended, a
//! request of that time. What it says counts up to what the system shows and not beyond, so a witness
//! whose clock is ahead moves nothing by itself.
//!
//! **After a restart** the clock goes on from where the one before ended, and the time in which no
//! process ran looks like a step ahead. Up to [`DOWNTIME_NANO`] it is taken for that at once; more, when
//! wall and monotonic time of the new process have agreed for [`AGREED_NANO`], or by a witness. A machine that
//! came up with a date before this program was made is followed at once when it is set.
//!
//! **Proven** time is what deletions by age go by: it moves with monotonic time and by witnesses
//! alone, and is never later than the system's wall time. A sender on the same machine shares its clock, so a
//! witness proves at once no more than [`DOWNTIME_NANO`] beyond what was counted since; what is further
//! ahead, when the system and witnesses have said so for [`DOUBT_NANO`] of monotonic time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::{Clock, Times};

/// 2026-01-01: there was no such program before, so a clock that shows less is wrong.
const EARLIEST_NANO: u64 = 1_767_225_600_000_000_000;

/// What the system may be ahead and be followed at once: more than a leap second, or than a daemon that
/// sets the time now and then sets it by.
const STEP_NANO: u64 = 2_000_000_000;

/// Time between two processes that is believed at once.
const DOWNTIME_NANO: u64 = 86_400_000_000_000;

/// How long a date far ahead is shown and witnessed before it is proof.
const DOUBT_NANO: u64 = 86_400_000_000_000;

/// How long wall and monotonic time agree after a start before any downtime is believed.
const AGREED_NANO: u64 = 300_000_000_000;

/// Wall time that never runs back, over another clock.
#[derive(Debug)]
pub struct SteadyClock {
    source: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Monotonic time of the last look.
    looked_nano: u64,
    /// Shown at the last look.
    given_unix_nano: u64,
    proven_unix_nano: u64,
    /// How far a witness may move what is proven; grows with monotonic time up to a bound.
    credit_nano: u64,
    /// Monotonic time since which a witness agrees with a system that is further ahead than that.
    doubted_since_nano: Option<u64>,
    /// What the system showed then.
    system_unix_nano: u64,
    /// Monotonic time since which the system's two clocks agree, while they have always done so.
    agreed_since_nano: Option<u64>,
}

impl SteadyClock {
    /// Goes on from `floor`, where an earlier process ended; none: the system's word stands.
    #[must_use]
    pub fn new(source: Arc<dyn Clock>, floor: Option<Times>) -> Self {
        let (now, looked_nano) = (source.now_unix_nano(), source.monotonic_nano());
        let floor = floor.unwrap_or(Times { given_unix_nano: now, proven_unix_nano: now });
        let ahead = now.saturating_sub(floor.given_unix_nano);
        let given_unix_nano = match ahead <= DOWNTIME_NANO {
            true => now.max(floor.given_unix_nano),
            false => floor.given_unix_nano,
        };
        let state = State {
            looked_nano,
            given_unix_nano,
            proven_unix_nano: floor.proven_unix_nano,
            credit_nano: DOWNTIME_NANO,
            doubted_since_nano: None,
            system_unix_nano: now,
            agreed_since_nano: Some(looked_nano),
        };
        Self { source, state: Mutex::new(state) }
    }

    /// The state as of now.
    fn look(&self) -> MutexGuard<'_, State> {
        // Whoever panicked meanwhile left whole numbers behind.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock, so that looks are in order.
        state.advance(self.source.monotonic_nano(), self.source.now_unix_nano());
        state
    }
}

impl State {
    fn advance(&mut self, monotonic_nano: u64, system_unix_nano: u64) {
        let passed = monotonic_nano.saturating_sub(self.looked_nano);
        let expected = self.system_unix_nano.saturating_add(passed);
        self.looked_nano = self.looked_nano.max(monotonic_nano);
        self.system_unix_nano = system_unix_nano;
        self.proven_unix_nano = self.proven_unix_nano.saturating_add(passed);
        self.credit_nano = self.credit_nano.saturating_add(passed).min(DOWNTIME_NANO);
        if system_unix_nano <= self.proven_unix_nano.saturating_add(self.credit_nano) {
            self.doubted_since_nano = None;
        }
        if STEP_NANO < expected.abs_diff(system_unix_nano) {
            self.agreed_since_nano = None;
        }
        let agreed = self.agreed_since_nano.map(|since| self.looked_nano.saturating_sub(since));
        let known_wrong = self.given_unix_nano < EARLIEST_NANO;
        let believed = known_wrong || agreed.is_some_and(|agreed| AGREED_NANO <= agreed);
        if known_wrong {
            self.proven_unix_nano = self.proven_unix_nano.max(system_unix_nano);
        }
        let steady = self.given_unix_nano.saturating_add(passed);
        self.given_unix_nano = if steady.saturating_add(STEP_NANO) < system_unix_nano && !believed {
            steady
        } else {
            system_unix_nano.max(self.given_unix_nano.saturating_add(passed / 2))
        };
    }

    /// A witness agrees with the system up to `agreed`.
    fn prove(&mut self, agreed: u64) {
        let ahead = agreed.saturating_sub(self.proven_unix_nano);
        let since = match ahead <= self.credit_nano {
            true => None,
            false => Some(*self.doubted_since_nano.get_or_insert(self.looked_nano)),
        };
        let doubted =
            since.is_some_and(|since| self.looked_nano.saturating_sub(since) < DOUBT_NANO);
        if !doubted {
            self.credit_nano = self.credit_nano.saturating_sub(ahead);
            self.proven_unix_nano = self.proven_unix_nano.max(agreed);
        }
    }
}

impl Clock for SteadyClock {
    fn now_unix_nano(&self) -> u64 {
        self.look().given_unix_nano
    }

    fn monotonic_nano(&self) -> u64 {
        self.source.monotonic_nano()
    }

    fn proven_unix_nano(&self) -> u64 {
        let state = self.look();
        state.proven_unix_nano.min(state.system_unix_nano)
    }

    fn witness(&self, unix_nano: u64) {
        let mut state = self.look();
        let agreed = unix_nano.min(state.system_unix_nano);
        state.given_unix_nano = state.given_unix_nano.max(agreed);
        state.prove(agreed);
    }

    fn raise(&self, floor: Times) {
        let mut state = self.look();
        state.given_unix_nano = state.given_unix_nano.max(floor.given_unix_nano);
        state.proven_unix_nano = state.proven_unix_nano.max(floor.proven_unix_nano);
    }

    fn times(&self) -> Times {
        let State { given_unix_nano, proven_unix_nano, .. } = *self.look();
        Times { given_unix_nano, proven_unix_nano }
    }

    fn system_ahead_nano(&self) -> i64 {
        let state = self.look();
        let apart = state.system_unix_nano.abs_diff(state.given_unix_nano);
        let apart = i64::try_from(apart).unwrap_or(i64::MAX);
        if state.system_unix_nano < state.given_unix_nano { -apart } else { apart }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const DAY: u64 = 86_400 * SECOND;
    const START: u64 = 21_000 * DAY;

    /// Two clocks that are set by hand.
    #[derive(Debug)]
    struct Two {
        wall: AtomicU64,
        monotonic: AtomicU64,
    }

    impl Clock for Two {
        fn now_unix_nano(&self) -> u64 {
            self.wall.load(Ordering::SeqCst)
        }

        fn monotonic_nano(&self) -> u64 {
            self.monotonic.load(Ordering::SeqCst)
        }
    }

    impl Two {
        fn new(wall: u64) -> Arc<Self> {
            Arc::new(Self { wall: AtomicU64::new(wall), monotonic: AtomicU64::new(5) })
        }

        fn pass(&self, nanos: u64) {
            self.wall.fetch_add(nanos, Ordering::SeqCst);
            self.monotonic.fetch_add(nanos, Ordering::SeqCst);
        }

        fn set(&self, wall: u64) {
            self.wall.store(wall, Ordering::SeqCst);
        }
    }

    fn steady(two: &Arc<Two>, floor: Option<Times>) -> SteadyClock {
        SteadyClock::new(Arc::<Two>::clone(two), floor)
    }

    fn both(unix_nano: u64) -> Times {
        Times { given_unix_nano: unix_nano, proven_unix_nano: unix_nano }
    }

    /// Scenario: the wall clock goes as it should, then is set back an hour, before 1970, and to
    /// where it was.
    /// Guarantees: what is shown never runs back, goes on meanwhile, and meets the wall clock; what
    /// is proven is never later than the wall clock.
    #[test]
    fn a_step_back_is_never_followed_and_met_in_time() {
        let two = Two::new(START);
        let clock = steady(&two, None);
        two.pass(SECOND);
        assert_eq!(clock.now_unix_nano(), START + SECOND);
        two.set(START - 3_600 * SECOND);
        assert_eq!(clock.now_unix_nano(), START + SECOND);
        assert_eq!(clock.proven_unix_nano(), START - 3_600 * SECOND);
        assert_eq!(clock.system_ahead_nano(), -3_601_000_000_000);
        two.pass(2 * SECOND);
        assert_eq!(clock.now_unix_nano(), START + 2 * SECOND);
        two.pass(2 * 3_601 * SECOND);
        assert_eq!(clock.system_ahead_nano(), 0, "both have met");
        let before = clock.now_unix_nano();
        two.set(0);
        two.pass(2 * SECOND);
        assert_eq!(
            (clock.now_unix_nano(), clock.proven_unix_nano()),
            (before + SECOND, 2 * SECOND)
        );
        two.set(before);
        assert_eq!(clock.now_unix_nano(), before + SECOND);
    }

    /// Scenario: the wall clock steps a hundred days ahead, to the end of what it can say, and back; it
    /// steps ahead and a sender reports a time in between, then one beyond.
    /// Guarantees: a step ahead is followed as far as a second witness goes, and no witness moves
    /// the clock beyond the system's; a second is followed at once.
    #[test]
    fn a_step_ahead_is_followed_as_far_as_a_witness_goes() {
        let two = Two::new(START);
        let clock = steady(&two, None);
        for far in [START + 100 * DAY, u64::MAX, START] {
            two.set(far);
            assert_eq!((clock.now_unix_nano(), clock.proven_unix_nano()), (START, START), "{far}");
        }
        two.pass(SECOND);
        clock.witness(START + 50 * DAY);
        assert_eq!(clock.times(), both(START + SECOND), "a sender that is ahead");
        two.set(START + 100 * DAY);
        clock.witness(START + 50 * DAY);
        assert_eq!(clock.now_unix_nano(), START + 50 * DAY);
        clock.witness(START + 200 * DAY);
        assert_eq!(clock.now_unix_nano(), START + 100 * DAY);
        two.set(START + 100 * DAY + SECOND);
        assert_eq!(clock.now_unix_nano(), START + 100 * DAY + SECOND, "a leap second");
        two.set(u64::MAX);
        clock.witness(u64::MAX);
        two.pass(0);
        two.monotonic.store(u64::MAX, Ordering::SeqCst);
        assert_eq!(clock.now_unix_nano(), u64::MAX);
    }

    /// Scenario: the wall clock steps ahead, and a sender with the same clock says so: by half a day twice, by a
    /// hundred days for an hour and back, and for good.
    /// Guarantees: what is proven follows a day at once and no more; a hundred days when they are shown and
    /// witnessed for a day, counted from where they were last not.
    #[test]
    fn a_date_far_ahead_is_proof_after_a_day() {
        let two = Two::new(START);
        let clock = steady(&two, None);
        for (ahead, proven) in [(DAY / 2, DAY / 2), (DAY, DAY), (3 * DAY / 2, DAY)] {
            two.set(START + ahead);
            clock.witness(START + ahead);
            assert_eq!(clock.proven_unix_nano(), START + proven);
        }
        let two = Two::new(START);
        let clock = steady(&two, None);
        let right = |hours: u64| START + hours * 3_600 * SECOND;
        two.set(right(0) + 100 * DAY);
        clock.witness(u64::MAX);
        two.pass(3_600 * SECOND);
        clock.witness(u64::MAX);
        two.set(right(1));
        two.pass(3_600 * SECOND);
        clock.witness(right(2));
        two.set(right(2) + 100 * DAY);
        for hour in 2..26 {
            clock.witness(u64::MAX);
            assert_eq!(clock.proven_unix_nano(), right(hour));
            two.pass(3_600 * SECOND);
        }
        assert_eq!(clock.proven_unix_nano(), right(26));
        clock.witness(u64::MAX);
        assert_eq!(clock.proven_unix_nano(), right(26) + 100 * DAY);
    }

    /// Scenario: a restart an hour later, a hundred days later, and with a wall clock that is behind
    /// what the earlier process wrote; a first start in 1970.
    /// Guarantees: an hour is followed at once, a hundred days when the two clocks have agreed for a
    /// while; neither is proof; nothing runs back; from 1970 the first step is followed.
    #[test]
    fn downtime_is_told_from_a_wrong_date() {
        let two = Two::new(START + 3_600 * SECOND);
        let clock = steady(&two, Some(both(START)));
        assert_eq!(clock.now_unix_nano(), START + 3_600 * SECOND);
        assert_eq!(clock.proven_unix_nano(), START);

        let two = Two::new(START + 100 * DAY);
        let clock = steady(&two, Some(both(START)));
        two.pass(AGREED_NANO - SECOND);
        assert_eq!(clock.now_unix_nano(), START + AGREED_NANO - SECOND);
        two.pass(SECOND);
        assert_eq!(clock.now_unix_nano(), START + 100 * DAY + AGREED_NANO);
        assert_eq!(clock.proven_unix_nano(), START + AGREED_NANO);

        let two = Two::new(START + 100 * DAY);
        let clock = steady(&two, Some(both(START)));
        two.pass(SECOND);
        two.set(START + 50 * DAY);
        assert_eq!(clock.now_unix_nano(), START + SECOND);
        two.pass(2 * AGREED_NANO);
        assert_eq!(clock.now_unix_nano(), START + SECOND + 2 * AGREED_NANO, "it has stepped");

        let two = Two::new(0);
        let clock = steady(&two, None);
        two.pass(SECOND);
        assert_eq!(clock.times(), both(SECOND));
        two.set(START);
        assert_eq!(clock.times(), both(START), "it was wrong for sure");
        two.set(START + DAY);
        assert_eq!(clock.times(), both(START));

        let two = Two::new(0);
        let clock = steady(&two, Some(both(START)));
        assert_eq!((clock.now_unix_nano(), clock.proven_unix_nano()), (START, 0));
        clock.raise(both(START + DAY));
        assert_eq!(clock.now_unix_nano(), START + DAY);
    }
}
