//! Traces that go over to another archiver, once the table has all that the first one was told.
//!
//! What the second one is told then comes after it, and no replay of the first one may undo that.
//! Merging hides a replay as long as spans are all that is said of a trace: handed over again they
//! change nothing. A deletion, a tag or an assessment in between shows it.

use super::World;
use crate::simulation::archiver::Archiver;
use crate::simulation::clients::{Request, change};
use crate::simulation::history::Said;

impl World<'_> {
    /// Tells this archiver to change a trace of any other one.
    pub(super) fn change_through_another(&mut self, at: usize) {
        let chosen = self.random.below(self.traces.len());
        let owner = self.traces.get(chosen).and_then(|trace| trace.owner);
        if owner.is_some_and(|owner| owner != at) {
            self.take_over(at, chosen);
        }
    }

    /// Tells another archiver to change a trace of one that has died, perhaps between a commit and
    /// its note of it, and mostly lets it commit that before the first one comes back.
    pub(super) fn change_through_survivor(&mut self, dead: usize) {
        let mut alive: Vec<usize> = (0..self.archivers.len()).collect();
        alive.retain(|at| self.archivers.get(*at).is_some_and(Archiver::is_alive));
        let mut left: Vec<usize> = (0..self.traces.len()).collect();
        left.retain(|index| self.traces.get(*index).is_some_and(|one| one.owner == Some(dead)));
        let (Some(at), Some(chosen)) = (self.random.pick(&alive), self.random.pick(&left)) else {
            return;
        };
        if self.take_over(at, chosen) && self.random.chance(80) {
            self.with(at, |archiver| drop(archiver.flush()));
            self.look_after(at);
        }
    }

    /// Makes `at` the owner of a trace and tells it a change, if the table has all that was ever
    /// said of it. Says whether it has.
    fn take_over(&mut self, at: usize, chosen: usize) -> bool {
        let Some(trace) = self.traces.get(chosen).copied() else { return false };
        let may_be_in = |history: &super::History| history.may_be_all_in(trace.id);
        if !self.histories.get(trace.table).is_some_and(may_be_in) {
            return false;
        }
        let (Ok(Some((_, rows))), Some(history)) =
            (self.read(trace.table), self.histories.get(trace.table))
        else {
            return false;
        };
        if !history.is_all_in(trace.id, &rows) {
            return false;
        }
        if let Some(trace) = self.traces.get_mut(chosen) {
            trace.owner = Some(at);
        }
        let deletes = self.random.chance(40);
        let said = if deletes { Said::Deleted } else { change(&mut self.random, false) };
        let requests = vec![Request { table: trace.table, said: vec![(trace.id, said)] }];
        let records = self.records(at, &requests);
        let Some(archiver) = self.archivers.get_mut(at) else { return false };
        let answers = archiver.append(records);
        self.note(at, requests, &answers);
        true
    }
}
