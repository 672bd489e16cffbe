//! The simulation as tests: a bounded run, the broken builds, one history per seed.

use super::ground::Ground;
use super::runner::run;
use super::world::run_schedule;
use crate::mutations::{Broken, Step};

/// Schedules of a run of all tests.
const SCHEDULES: u64 = 60;

/// Schedules within which each broken build is caught.
const CAUGHT_WITHIN: u64 = 300;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Scenario: schedules of all kinds of fault. `SCHEDULES` and `SEED` set how many, and the first.
/// Guarantees: nothing that was acknowledged is lost or doubled, nothing is there that was not
/// sent, no trace has two rows, and every kind of fault did happen.
#[test]
fn no_schedule_breaks_a_promise() {
    let asked = number("SCHEDULES");
    let first = number("SEED").unwrap_or(1);
    let summary = run(first, asked.unwrap_or(SCHEDULES), Broken::default(), false).unwrap();
    println!("{}", summary.report());
    assert!(summary.failures.is_empty());
    if 5_000 <= summary.schedules {
        assert_eq!(summary.missing(), [], "faults that no schedule met");
    }
}

/// Scenario: builds that leave out the sync, the look whether an epoch is in at a replay, the carry, the
/// syncs of the journal's folders, of tables' folders, of checkpoints, of
/// a log before something is believed to be gone, one that waits by wall time, and one in which a retry touches tags.
/// Guarantees: the simulation finds each of them, well within its normal run.
#[test]
fn broken_builds_are_caught() {
    for step in [
        Step::Sync,
        Step::Txn,
        Step::Carry,
        Step::FolderSync,
        Step::TableSync,
        Step::AbsenceSync,
        Step::CheckpointSync,
        Step::MonotonicWaits,
        Step::StartApart,
    ] {
        let broken = Broken::without(Some(step));
        let summary = run(1, CAUGHT_WITHIN, broken, true).unwrap();
        let caught = summary.failures.first();
        let Some((seed, how)) = caught else {
            panic!("{step:?} left out, and {} schedules found nothing", summary.schedules);
        };
        println!("{step:?} left out: caught by schedule {seed}\n{how}");
    }
}

/// Scenario: the same seeds, run twice.
/// Guarantees: they give the same histories, so that a seed that fails can be looked at.
#[test]
fn a_seed_gives_one_history() {
    let ground = Ground::new().unwrap();
    for seed in 1..=4 {
        let run = || run_schedule(&ground, seed, Broken::default()).digest;
        assert_eq!(run(), run(), "seed {seed}");
    }
}
