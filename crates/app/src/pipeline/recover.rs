//! Replay of what an earlier process left in the journal.
//!
//! Let `d` be the last epoch noted as done. Its deletion is finished first, so that carry `d` and
//! the segments above `d` are left, and carries of epochs that were not noted. For each table the
//! state to go on from is the carry of its own last committed epoch `e` among those (`d` if none
//! is committed), and the segments above `e`.
//!
//! A carry is written before its epoch is committed anywhere. So with `c` the highest carry, no
//! table has an epoch above `c`: segments up to `c` are only taken in, and each one above it is an
//! epoch of its own, committed and deleted before the next is read. What is taken in is never in
//! its table already by the transaction id, and what is committed has a number above the table's.

use std::collections::HashMap;

use bytes::Bytes;
use tracelake_decode::{RecordHeader, decode_record};
use tracelake_journal::{RecordReader, Recovered, SegmentNumber};
use tracelake_lake::TableWriter;
use tracelake_model::TableName;
use tracing::{error, info, warn};

use super::{Pipeline, Scope, read_epoch};

impl Pipeline {
    /// Replays and commits what is left of earlier epochs.
    pub(super) fn recover(&mut self, recovered: &Recovered) -> anyhow::Result<()> {
        for damage in &recovered.damage {
            warn!(?damage, "journal was damaged");
        }
        let done = read_epoch(&self.archive.folder)?;
        if let Some(done) = done {
            self.journal.delete_through(done)?;
        }
        let left = |number: &&SegmentNumber| done.is_none_or(|done| done < **number);
        let segments: Vec<SegmentNumber> =
            recovered.segments.iter().filter(left).copied().collect();
        let carries: Vec<SegmentNumber> = recovered
            .carries
            .iter()
            .filter(|carry| done.is_none_or(|done| done <= **carry))
            .copied()
            .collect();
        if segments.is_empty() && carries.is_empty() {
            return Ok(());
        }
        info!(segments = segments.len(), "replaying the journal");
        let highest_carry = carries.last().copied();
        let mut starts = Starts { done, carries: carries.clone(), by_table: HashMap::new() };
        let mut replayed_until = 0;
        for carry in carries {
            let reader = self.journal.read_carry(carry)?;
            let lets_in = |start: Option<SegmentNumber>| start == Some(carry);
            replayed_until = replayed_until.max(self.replay_file(reader, &mut starts, lets_in)?);
        }
        for segment in segments {
            let reader = self.journal.read_segment(segment)?;
            let lets_in = |start: Option<SegmentNumber>| start < Some(segment);
            replayed_until = replayed_until.max(self.replay_file(reader, &mut starts, lets_in)?);
            if highest_carry < Some(segment) {
                // Silence is counted by the time of arrival, as it was when the spans came.
                if let Err(fault) = self.settle_and_commit(segment, Scope::Settled, replayed_until)
                {
                    // Its traces are open again, and go with a later epoch.
                    error!(error = format!("{fault:#}"), "replayed epoch not committed");
                }
            }
        }
        // Senders that were cut off get the usual time to go on with their traces.
        self.assembler.touch(self.clock.now_unix_nano());
        Ok(())
    }

    /// Takes in the records of a file that belong to tables whose start lets them in. Returns when
    /// the last of them arrived.
    fn replay_file(
        &mut self,
        reader: RecordReader,
        starts: &mut Starts,
        lets_in: impl Fn(Option<SegmentNumber>) -> bool,
    ) -> anyhow::Result<u64> {
        let mut until = 0;
        for record in reader {
            let record = record?;
            let decoded = RecordHeader::from_bytes(&record.header)
                .and_then(|header| decode_record(header, &record.payload));
            let decoded = match decoded {
                Ok(decoded) => decoded,
                Err(fault) => {
                    self.park(&record.header, &record.payload, &fault)?;
                    continue;
                }
            };
            for route in &decoded.header.routes {
                if !starts.by_table.contains_key(&route.table) {
                    let start = self.start_of(&route.table, starts);
                    starts.by_table.insert(route.table.clone(), start);
                }
            }
            let by_table = &starts.by_table;
            let accept =
                |table: &TableName| by_table.get(table).is_some_and(|start| lets_in(*start));
            let received_at = decoded.header.received_at_unix_nano;
            until = until.max(received_at);
            self.assembler.push(decoded, received_at, &accept);
        }
        Ok(until)
    }

    /// The epoch whose carry a table goes on from.
    fn start_of(&mut self, table: &TableName, starts: &Starts) -> Option<SegmentNumber> {
        let committed = self.writers.get(table).and_then(TableWriter::committed_epoch);
        let committed = match committed {
            Ok(epoch) => epoch.and_then(|epoch| u64::try_from(epoch).ok()),
            Err(fault) => {
                // Everything since the last epoch that is done is taken in again; what is in the
                // table already is found there by its content once it can be read.
                warn!(%table, error = %fault, "table not readable, replaying all of its traces");
                None
            }
        };
        starts
            .carries
            .iter()
            .rev()
            .find(|carry| committed.is_some_and(|committed| carry.get() <= committed))
            .copied()
            .max(starts.done)
    }

    /// Sets a record aside that was accepted once and cannot be read now, for a person to see.
    fn park(
        &self,
        header: &Bytes,
        payload: &Bytes,
        fault: &tracelake_decode::DecodeError,
    ) -> anyhow::Result<()> {
        let folder = self.archive.folder.parked();
        std::fs::create_dir_all(&folder)?;
        let name = uuid::Uuid::now_v7();
        std::fs::write(folder.join(format!("{name}.header.json")), header)?;
        std::fs::write(folder.join(format!("{name}.payload")), payload)?;
        error!(error = %fault, parked = %name, "journal record cannot be decoded, parked");
        Ok(())
    }
}

/// Where each table starts in the journal.
struct Starts {
    done: Option<SegmentNumber>,
    carries: Vec<SegmentNumber>,
    by_table: HashMap<TableName, Option<SegmentNumber>>,
}
