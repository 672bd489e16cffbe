//! Late pieces that an append-only table does not take.
//!
//! They were acknowledged, and no commit takes them until an operator takes the property back. They
//! stay open, and so in each carry, up to a part of the memory for open traces; what is beyond is set
//! aside in `parked/`, so that a table that takes no changes costs others no memory and no requests.

use std::collections::HashMap;

use tracelake_journal::{RecordBytes, SegmentNumber};
use tracelake_lake::{EpochOutcome, TraceDraft};
use tracelake_model::{TableName, TraceId};
use tracing::{error, warn};
use uuid::Uuid;

use super::Pipeline;
use crate::parked::{self, Kind, Reason};

/// Kept pieces hold one part of the memory for open traces out of so many.
const SHARE: usize = 4;

/// What a piece takes beside its spans.
const PIECE_BYTES: usize = 1 << 10;

impl Pipeline {
    /// Notes for `status` how many pieces `table` does not take; true when there are any. A commit without
    /// late pieces says nothing of those that wait.
    pub(super) fn note_kept(&mut self, table: &TableName, done: &EpochOutcome) -> bool {
        if 0 < done.kept || !done.is_append_only {
            self.blocked.keep(table, done.kept);
        }
        0 < done.kept
    }

    /// Puts back what `table` does not take, as far as there is room for it; the rest is set aside, the
    /// largest pieces first, so that half of the room is free again. Returns how many there were.
    pub(super) fn keep(
        &mut self,
        epoch: SegmentNumber,
        table: &TableName,
        traces: Vec<TraceDraft>,
    ) -> usize {
        let pieces = traces.len();
        let mut bytes: HashMap<TraceId, usize> = HashMap::new();
        for trace in traces {
            let spans = trace.spans.iter().map(tracelake_decode::SpanRecord::weight_bytes);
            *bytes.entry(trace.trace_id).or_insert(PIECE_BYTES) += spans.sum::<usize>();
            self.assembler.put_back(table, trace, true);
        }
        let room = self.schedule.settle.max_open_bytes / SHARE;
        let mut held: usize = bytes.values().sum();
        if held <= room {
            return pieces;
        }
        let mut by_size: Vec<(TraceId, usize)> = bytes.into_iter().collect();
        by_size.sort_unstable_by_key(|(trace_id, bytes)| (std::cmp::Reverse(*bytes), *trace_id));
        let mut beyond = Vec::new();
        for (trace_id, bytes) in by_size {
            if held <= room / 2 {
                break;
            }
            held -= bytes;
            beyond.push(trace_id);
        }
        match self.set_aside(epoch, &beyond) {
            Ok(()) => {
                drop(self.assembler.take_out(&beyond));
                error!(%table, pieces = beyond.len(), "late pieces for an append-only table are set aside in `parked`");
            }
            // They stay open.
            Err(error) => warn!(%table, error = format!("{error:#}"), "late pieces not set aside"),
        }
        pieces
    }

    /// Writes what is open of traces as parked records; durable when this returns. The names keep the
    /// order of the records of a trace.
    fn set_aside(&self, epoch: SegmentNumber, traces: &[TraceId]) -> anyhow::Result<()> {
        let folder = self.archive.folder.parked();
        // Two tables of one epoch must not share names, nor two journals.
        let file = format!("append-only-{:020}-{}", epoch.get(), Uuid::new_v4());
        for (number, (header, payload)) in self.assembler.carry_of(traces).enumerate() {
            let why = "the table takes new rows alone (`delta.appendOnly`)".to_owned();
            let reason = Reason::new(Kind::Record, why, file.clone(), number as u64);
            let record = RecordBytes { header: header.to_bytes(), payload: payload.into() };
            parked::park(self.fs.as_ref(), &folder, &reason, &record)?;
        }
        Ok(())
    }
}
