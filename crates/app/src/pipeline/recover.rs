//! Replay of what an earlier process left in the journal.
//!
//! Let `d` be the last epoch noted as done. Its deletion is finished first, so that carry `d` and
//! the segments above `d` are left. What carry `d` and these segments say, in this order, is all
//! that was acknowledged and is not in a table by the word of the epoch file.
//!
//! Of it, the epoch that the process died in may be in some tables already, in whole or in part.
//! It is handed over again whole: what is in is found by its content and changes nothing (the proof
//! is in `tracelake_lake::commit`). That is safe because no later epoch can have begun: nothing
//! younger is in a table that an older piece could undo.
//!
//! A carry is written before its epoch is committed anywhere. So with `c` the highest carry, no
//! table has an epoch above `c`: segments up to `c` are only taken in, and each one above it is an
//! epoch of its own, committed and deleted before the next is read, so that memory holds one.

use bytes::Bytes;
use tracelake_decode::{RecordHeader, decode_record};
use tracelake_journal::{RecordReader, Recovered, SegmentNumber};
use tracing::{error, info, warn};

use super::{Pipeline, Scope, read_epoch};

/// What a file of the journal holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replayed {
    /// What was acknowledged.
    Segment,
    /// What is still unsettled of that.
    Carry,
}

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
        let highest_carry = recovered.carries.iter().copied().max();
        let first = segments.first().copied().unwrap_or_else(|| self.journal.active_segment());
        let carry = recovered.base_carry(first);
        if segments.is_empty() && carry.is_none() {
            return Ok(());
        }
        info!(segments = segments.len(), "replaying the journal");
        let mut replayed_until = 0;
        if let Some(carry) = carry {
            let reader = self.journal.read_carry(carry)?;
            replayed_until = self.replay_file(reader, Replayed::Carry)?;
        }
        for segment in segments {
            let reader = self.journal.read_segment(segment)?;
            replayed_until = replayed_until.max(self.replay_file(reader, Replayed::Segment)?);
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

    /// Takes in the records of a file. Returns when the last of them arrived.
    fn replay_file(&mut self, reader: RecordReader, file: Replayed) -> anyhow::Result<u64> {
        let mut until = 0;
        for record in reader {
            let record = record?;
            let decoded = RecordHeader::from_bytes(&record.header)
                .and_then(|header| decode_record(header, &record.payload));
            match decoded {
                Ok(decoded) => {
                    let received_at = decoded.header.received_at_unix_nano;
                    until = until.max(received_at);
                    if file == Replayed::Segment {
                        self.ledger.note(&decoded);
                    }
                    self.assembler.push(decoded, received_at);
                }
                Err(fault) => self.park(&record.header, &record.payload, &fault)?,
            }
        }
        Ok(until)
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
