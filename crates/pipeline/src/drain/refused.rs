//! Late pieces that a table does not take: all of them when it is append-only, those of a trace whose row
//! cannot be read otherwise.
//!
//! They were acknowledged, and no commit takes them until an operator takes the property back or mends the
//! row. They stay open, and so in each carry, up to a part of the memory for open traces; what is beyond is
//! set aside in `parked/`, so that a table that takes no changes costs others no memory and no requests.

use std::collections::HashSet;

use tracelake_journal::{RecordBytes, SegmentNumber};
use tracelake_lake::{EpochOutcome, TraceDraft};
use tracelake_model::{TableName, TraceId};
use tracing::{error, warn};
use uuid::Uuid;

use super::Pipeline;
use crate::parked::{self, Kind, Reason};

/// Kept pieces hold one part of the memory for open traces out of so many.
const SHARE: usize = 4;

impl Pipeline {
    /// Notes for `status` how many pieces `table` does not take, and why. A commit without late pieces says
    /// nothing of those that wait.
    pub(super) fn note_kept(&mut self, table: &TableName, done: &EpochOutcome) {
        match refusal(done) {
            Some(reason) => self.blocked.keep(table, done.kept.is_empty(), reason),
            None if done.is_append_only => {}
            None => {
                let late = done.amended + done.deleted + done.unchanged;
                self.blocked.take_back(table, 0 < late);
            }
        }
    }

    /// Puts back what went into no version of `table`, as far as there is room for it; of the pieces
    /// that it does not take, the rest is set aside, the largest first, so that half of the room is free
    /// again. Those that memory had no room for wait: nobody has looked yet whether the table has them.
    pub(super) fn keep(
        &mut self,
        epoch: SegmentNumber,
        table: &TableName,
        done: &EpochOutcome,
        traces: Vec<TraceDraft>,
    ) {
        let kept: HashSet<TraceId> = done.kept.iter().chain(&done.unreadable).copied().collect();
        let why = refusal(done).unwrap_or_default();
        for trace in traces {
            if kept.contains(&trace.trace_id) {
                self.assembler.put_back_refused(table, trace);
            } else {
                self.assembler.put_back(table, trace, true);
            }
        }
        let size = |trace: &TraceId| (*trace, self.assembler.bytes_of(*trace));
        let pieces = kept.iter().map(size).collect();
        let room = self.schedule.settle.max_open_bytes / SHARE;
        let beyond = plan_aside(pieces, self.assembler.refused_bytes(), room);
        if beyond.is_empty() {
            return;
        }
        match self.set_aside(epoch, &beyond, &why) {
            Ok(()) => {
                drop(self.assembler.take_out(&beyond));
                error!(%table, pieces = beyond.len(), why, "late pieces that the table does not take are set aside in `parked`");
            }
            // They stay open.
            Err(error) => warn!(%table, error = format!("{error:#}"), "late pieces not set aside"),
        }
    }

    /// Writes what is open of traces as parked records; durable when this returns. The names keep the
    /// order of the records of a trace.
    fn set_aside(&self, epoch: SegmentNumber, traces: &[TraceId], why: &str) -> anyhow::Result<()> {
        let folder = self.stores.folder.parked();
        // Two tables of one epoch must not share names, nor two journals.
        let file = format!("not-taken-{:020}-{}", epoch.get(), Uuid::new_v4());
        for (number, (header, payload)) in self.assembler.carry_of(traces).enumerate() {
            let reason = Reason::new(Kind::Record, why.to_owned(), file.clone(), number as u64);
            let record = RecordBytes { header: header.to_bytes(), payload: payload.into() };
            parked::park(self.fs.as_ref(), &folder, &reason, &record)?;
        }
        Ok(())
    }
}

/// Why `table` does not take some of its pieces, and how many.
fn refusal(done: &EpochOutcome) -> Option<String> {
    let pieces = |count: usize| match count {
        1 => "1 late piece of an archived trace waits".to_owned(),
        more => format!("{more} late pieces of archived traces wait"),
    };
    if !done.kept.is_empty() {
        let pieces = pieces(done.kept.len() + done.unreadable.len());
        return Some(format!("the table takes new rows alone (`delta.appendOnly`): {pieces}"));
    }
    let fault = done.fault.as_ref().filter(|_| !done.unreadable.is_empty())?;
    Some(format!("a row cannot be read ({fault}): {}", pieces(done.unreadable.len())))
}

/// Which of `pieces`, of these bytes, are set aside so that all that tables refuse, `held`, takes half of `room`:
/// the largest first, and none while all fit.
fn plan_aside(mut pieces: Vec<(TraceId, usize)>, held: usize, room: usize) -> Vec<TraceId> {
    let here: usize = pieces.iter().map(|(_, bytes)| bytes).sum();
    let mut held = held.max(here);
    if held <= room {
        return Vec::new();
    }
    pieces.sort_unstable_by_key(|(trace_id, bytes)| (std::cmp::Reverse(*bytes), *trace_id));
    let mut beyond = Vec::new();
    for (trace_id, bytes) in pieces {
        if held <= room / 2 {
            break;
        }
        held -= bytes;
        beyond.push(trace_id);
    }
    beyond
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: pieces that a table refuses, alone and beside those that other tables refuse, within and beyond
    /// the room for all of them.
    /// Guarantees: within it all wait; beyond it the largest are set aside, as far as that is needed, for the sake
    /// of others too.
    #[test]
    fn what_all_tables_refuse_shares_one_room() {
        let id = |number: u8| TraceId([number; 16]);
        let pieces = || vec![(id(1), 10), (id(2), 30), (id(3), 20)];
        assert_eq!(plan_aside(pieces(), 60, 60), []);
        assert_eq!(plan_aside(pieces(), 60, 59), [id(2), id(3)]);
        assert_eq!(plan_aside(pieces(), 160, 160), []);
        assert_eq!(plan_aside(pieces(), 160, 159), [id(2), id(3), id(1)]);
        assert_eq!(plan_aside(vec![(id(1), 10)], 110, 10), [id(1)]);
    }
}
