//! Many schedules on all cores, and what they came to.

use std::panic::AssertUnwindSafe;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::fault_kinds::{Fault, FaultCounts};
use super::ground::Ground;
use super::world::{Outcome, run_schedule};
use crate::mutations::Broken;

/// What the schedules came to.
#[derive(Debug, Default)]
pub(super) struct Summary {
    pub(super) schedules: u64,
    /// Schedules in which each kind of fault happened.
    pub(super) faults: FaultCounts,
    /// By number of archivers.
    pub(super) archivers: [u64; 3],
    pub(super) acked_spans: u64,
    pub(super) unacked: u64,
    pub(super) taken_over: u64,
    pub(super) versions: u64,
    pub(super) rows: u64,
    pub(super) amended: u64,
    /// Seeds that broke a promise, and how.
    pub(super) failures: Vec<(u64, String)>,
    pub(super) took: Duration,
}

impl Summary {
    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.schedules += 1;
        self.faults.add_schedule(&outcome.happened);
        if let Some(count) = self.archivers.get_mut(outcome.archivers.saturating_sub(1)) {
            *count += 1;
        }
        self.acked_spans += outcome.acked_spans;
        self.unacked += outcome.unacked;
        self.taken_over += outcome.taken_over;
        self.versions += outcome.versions;
        self.rows += outcome.rows;
        self.amended += outcome.amended;
        if !outcome.violations.is_empty() {
            self.failures.push((seed, outcome.violations));
        }
    }

    /// The kinds of fault that no schedule met.
    pub(super) fn missing(&self) -> Vec<Fault> {
        Fault::ALL.into_iter().filter(|fault| self.faults.of(*fault) == 0).collect()
    }

    /// A report for a person.
    pub(super) fn report(&self) -> String {
        let seconds = self.took.as_secs_f64();
        let [one, two, three] = self.archivers;
        let mut text = format!(
            "{} schedules in {seconds:.1} s ({:.1}/s): {one} with one archiver, {two} with two, \
             {three} with three\n{} spans acknowledged, {} orders not; {} changes through \
             another archiver than before; {} rows, {} of them amended, in {} versions\nschedules that met\n{}",
            self.schedules,
            self.schedules as f64 / seconds,
            self.acked_spans,
            self.unacked,
            self.taken_over,
            self.rows,
            self.amended,
            self.versions,
            self.faults,
        );
        for (seed, violations) in &self.failures {
            text.push_str(&format!(
                "seed {seed} BROKE A PROMISE:\n{violations}run it again: make simulate \
                 SCHEDULES=1 SEED={seed}\n"
            ));
        }
        text.push_str(&format!("{} schedules broke a promise\n", self.failures.len()));
        text
    }
}

/// Runs `schedules` schedules from `first_seed` on; ends with the first failure when asked to.
pub(super) fn run(
    first_seed: u64,
    schedules: u64,
    broken: Broken,
    until_failure: bool,
) -> anyhow::Result<Summary> {
    let started = Instant::now();
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let summary = Mutex::new(Summary::default());
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let work = || -> anyhow::Result<()> {
        let ground = Ground::new()?;
        while !stop.load(Ordering::SeqCst) {
            let number = next.fetch_add(1, Ordering::SeqCst);
            if schedules <= number {
                break;
            }
            let seed = first_seed.wrapping_add(number);
            let run = || run_schedule(&ground, seed, broken);
            let outcome = std::panic::catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
                Outcome { violations: "panicked\n".to_owned(), ..Outcome::default() }
            });
            let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
            summary.add(seed, outcome);
            if until_failure && !summary.failures.is_empty() {
                stop.store(true, Ordering::SeqCst);
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread panicked")))
        })
    })?;
    let mut summary = summary.into_inner().unwrap_or_else(PoisonError::into_inner);
    summary.took = started.elapsed();
    summary.failures.sort_by_key(|(seed, _)| *seed);
    Ok(summary)
}
