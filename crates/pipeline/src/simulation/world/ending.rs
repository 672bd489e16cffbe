//! The end of a schedule: nothing goes wrong any more, and what clients were told is compared with
//! what the tables hold.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use tracelake_lake::TableSnapshot;

use super::{Outcome, World, rows};
use crate::simulation::archiver::Archiver;
use crate::simulation::fault_kinds::Fault;
use crate::simulation::store::SimulatedStore;

/// Starts, and flushes, that may fail once nothing goes wrong any more.
pub(super) const PATIENCE: usize = 8;

/// Turns, of two seconds each, within which everything settles and is committed; a table that failed
/// is tried again within 30 s.
const WAIT_TURNS: usize = 40;

impl World<'_> {
    /// Lets nothing more go wrong, commits everything, and compares.
    pub(super) fn end(mut self) -> Outcome {
        for at in 0..self.archivers.len() {
            if self.random.chance(40) {
                self.cut_power(at);
            }
            self.with(at, |archiver| archiver.heal());
        }
        if self.stepped || self.random.chance(5) {
            self.wait_for_all();
        }
        self.settle();
        if self.put_back_parked() {
            self.settle();
        }
        let mut outcome = self.compare();
        let again = if self.objects.folders().is_some() { 50 } else { 8 };
        if self.random.chance(again) {
            // Once more from what is durable: what is in stays as it is.
            for at in 0..self.archivers.len() {
                self.cut_power(at);
            }
            self.settle();
            outcome = self.compare();
        }
        outcome.archivers = self.archivers.len();
        outcome.happened = self.happened;
        for archiver in &self.archivers {
            outcome.happened.add(&archiver.happened());
        }
        if let Some(folders) = self.objects.folders() {
            outcome.happened.add(&folders.happened());
        }
        for history in &self.histories {
            outcome.acked_spans += history.acked_spans;
            outcome.unacked += history.unacked;
        }
        outcome.taken_over = self.taken_over;
        outcome.violations = self.violations;
        (outcome.versions, outcome.rows, outcome.amended).hash(&mut self.digest);
        outcome.digest = self.digest.finish();
        outcome
    }

    /// Lets time pass, in which all that was acknowledged gets into the tables without being asked to.
    pub(super) fn wait_for_all(&mut self) {
        for at in 0..self.archivers.len() {
            let started = (0..PATIENCE).any(|_| {
                let Some(archiver) = self.archivers.get_mut(at) else { return true };
                archiver.heal();
                archiver.is_alive() || archiver.start(None, None, Vec::new()).is_ok()
            });
            self.release_tables(at);
            for _ in 0..WAIT_TURNS {
                self.clock.advance(Duration::from_secs(2));
                self.with(at, Archiver::turn);
            }
            let waiting = self.archivers.get_mut(at).map_or(0, Archiver::open_traces);
            if started && 0 < waiting {
                writeln!(self.violations, "{waiting} traces wait although time passed").ok();
            }
        }
    }

    /// Has the tables opened again that an archiver set apart.
    fn release_tables(&mut self, at: usize) {
        let released =
            self.archivers.get_mut(at).map(|one| one.release_tables(&self.ground.tables));
        self.happened.note(Fault::SetApart, released.unwrap_or_default());
    }

    pub(super) fn settle(&mut self) {
        let store = SimulatedStore::new(Arc::clone(&self.objects), None, Arc::clone(&self.clock));
        self.ground.runtime.block_on(store.let_all_land());
        for archiver in &mut self.archivers {
            archiver.heal();
            let mut reason = String::new();
            let flushed = (0..PATIENCE).any(|_| {
                self.clock.advance(Duration::from_secs(5));
                if !archiver.is_alive()
                    && let Err(error) = archiver.start(None, None, Vec::new())
                {
                    reason = format!("{error:#}");
                    return false;
                }
                let released = archiver.release_tables(&self.ground.tables);
                self.happened.note(Fault::SetApart, released);
                let flushed = archiver.flush();
                archiver.bury();
                flushed.map_err(|error| reason = format!("{error:#}")).is_ok()
            });
            if !flushed {
                writeln!(self.violations, "does not come to rest: {reason}").ok();
            }
        }
        self.let_move_end();
    }

    pub(super) fn compare(&mut self) -> Outcome {
        let mut outcome = Outcome::default();
        let tables = if self.moving.is_some() { 1 } else { self.histories.len() };
        for at in 0..tables {
            match self.read(at) {
                Ok(Some((snapshot, mut rows))) => {
                    self.add_moved(&mut rows);
                    let history = self.histories.get(at);
                    let faults = history.map(|history| history.check(&rows)).unwrap_or_default();
                    self.violations.push_str(&faults);
                    outcome.versions += snapshot.version();
                    outcome.rows += rows.len() as u64;
                    outcome.amended += rows.iter().filter(|row| 1 < row.revision).count() as u64;
                    if self.random.chance(6) {
                        self.check_versions(&snapshot);
                    }
                }
                Ok(None) => {
                    let mut rows = Vec::new();
                    self.add_moved(&mut rows);
                    let faults = self.histories.get(at).map(|history| history.check(&rows));
                    self.violations.push_str(&faults.unwrap_or_default());
                }
                Err(error) => {
                    writeln!(self.violations, "table cannot be read: {error:#}").ok();
                }
            }
        }
        outcome
    }

    /// One row per trace in each version that there was.
    pub(super) fn check_versions(&mut self, newest: &TableSnapshot) {
        for version in 0..newest.version() {
            let read = newest.table().snapshot_at(version).map_err(anyhow::Error::from);
            match read.and_then(|snapshot| rows(&snapshot)) {
                Ok(rows) => {
                    let mut times: HashMap<_, usize> = HashMap::new();
                    rows.iter().for_each(|row| *times.entry(row.trace_id).or_default() += 1);
                    if times.values().any(|times| 1 < *times) {
                        writeln!(self.violations, "version {version}: two rows of a trace").ok();
                    }
                }
                Err(error) => {
                    writeln!(self.violations, "version {version}: {error:#}").ok();
                }
            }
        }
    }
}
