//! Traces that go over to another archiver, once the table has all that the first one was told.
//!
//! What the second one is told then comes after it, and no replay of the first one may undo that.
//! Merging hides a replay as long as spans are all that is said of a trace: handed over again they
//! change nothing. A deletion, a tag or an assessment in between shows it.

use super::World;
use crate::simulation::archiver::Archiver;
use crate::simulation::clients::{Request, Trace, change};
use crate::simulation::fault_kinds::Fault;
use crate::simulation::history::Said;

/// Operations of the file system of one epoch, about.
const OPERATIONS: usize = 56;

impl World<'_> {
    /// Lets an archiver commit, perhaps die before it notes that, and tells another one to change
    /// what it committed; mostly that is committed before the first one comes back.
    pub(super) fn hand_over(&mut self) {
        let others = self.archivers.len() - 1;
        let owners: Vec<usize> = self
            .traces
            .iter()
            .filter(|trace| self.may_be_all_in(trace))
            .filter_map(|trace| trace.owner)
            .filter(|owner| self.archivers.get(*owner).is_some_and(Archiver::is_alive))
            .collect();
        let Some(at) = self.random.pick(&owners).filter(|_| 0 < others) else { return };
        let (count, choice) = (self.random.below(OPERATIONS) as u64, self.random.bits());
        match choice % 4 {
            0 => {}
            1 | 2 => self.with(at, |archiver| archiver.arm(Fault::KillAtVersion, 0, choice >> 8)),
            _ => self.arm_death(at, count, choice / 4),
        }
        self.with(at, |archiver| drop(archiver.flush()));
        self.look_after(at);
        let other = (at + 1 + self.random.below(others)) % self.archivers.len();
        if !self.archivers.get(other).is_some_and(Archiver::is_alive) {
            self.start(other);
        }
        if self.archivers.get(other).is_some_and(Archiver::is_alive)
            && self.take_over(other, at)
            && self.random.chance(80)
        {
            self.with(other, |archiver| drop(archiver.flush()));
            self.look_after(other);
        }
    }

    /// Makes `at` the owner of traces of `from`, of which the table has all that was ever said, and
    /// tells it a change of each. Says whether there were any.
    fn take_over(&mut self, at: usize, from: usize) -> bool {
        let mut taken = false;
        for table in 0..self.histories.len() {
            let mut chosen: Vec<usize> = (0..self.traces.len()).collect();
            chosen.retain(|index| {
                let trace = self.traces.get(*index).filter(|trace| trace.table == table);
                trace.is_some_and(|one| one.owner == Some(from) && self.may_be_all_in(one))
            });
            if chosen.is_empty() {
                continue;
            }
            let Ok(Some((_, rows))) = self.read(table) else { continue };
            for index in chosen {
                let Some(trace) = self.traces.get_mut(index) else { continue };
                let history = self.histories.get(table);
                if history.is_some_and(|history| history.is_all_in(trace.id, &rows)) {
                    trace.owner = Some(at);
                    let trace = *trace;
                    self.change(at, &trace);
                    taken = true;
                }
            }
        }
        taken
    }

    fn change(&mut self, at: usize, trace: &Trace) {
        let deletes = self.random.chance(40);
        let said = if deletes { Said::Deleted } else { change(&mut self.random, false) };
        let requests = vec![Request { table: trace.table, said: vec![(trace.id, said)] }];
        let records = self.records(at, &requests);
        let Some(archiver) = self.archivers.get_mut(at) else { return };
        let answers = archiver.append(records);
        self.note(at, requests, &answers);
        self.taken_over += 1;
    }

    fn may_be_all_in(&self, trace: &Trace) -> bool {
        let history = self.histories.get(trace.table);
        history.is_some_and(|history| history.may_be_all_in(trace.id))
    }
}
