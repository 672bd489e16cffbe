//! Replay of what an earlier process left in the journal.
//!
//! Let `d` be the last epoch noted as done. Its deletion is finished first, so that carry `d` and
//! the segments above `d` are left. What carry `d` and these segments say, in this order, is all
//! that was acknowledged and is not in a table by the word of the epoch file.
//!
//! Of it, epochs above `d` may have brought some to tables already. Which ones the plan of each
//! epoch says ([`super::plans`]), and whether it came to that the table's `txn` with the plan's nonce. A trace that
//! settled in epoch `k` settled with all that there was of it up to the end of segment `k`; so what
//! is in is taken out right there, and what comes after is a late piece, as it was then.
//!
//! A plan is written before its epoch is committed anywhere. So with `c` the highest plan, no table
//! has an epoch above `c`: segments up to `c` are only taken in, and each one above it is an epoch
//! of its own, committed and deleted before the next is read, so that memory holds one.

use std::sync::Arc;

use bytes::Bytes;
use tracelake_decode::{RecordHeader, decode_record};
use tracelake_journal::{RecordReader, Recovered, SegmentNumber};
use tracing::{error, info, warn};

use super::arrival::Arrival;
use super::doubts::Doubt;
use super::epoch_file::{read_epoch, write_file};
use super::plans::EpochPlans;
use super::{Pipeline, Scope};

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
    pub(crate) fn recover(&mut self, recovered: &Recovered) -> anyhow::Result<()> {
        for damage in &recovered.damage {
            warn!(?damage, "journal was damaged");
        }
        let noted = read_epoch(self.fs.as_ref(), &self.archive.folder)?;
        let done = noted.map(|noted| noted.epoch);
        if let Some(done) = noted {
            if let Some(times) = done.times {
                self.clock.raise(times);
            } else {
                // An older program can read it no more, before there is a plan that it cannot read.
                self.note_done(done.epoch)?;
            }
            self.journal.delete_through(done.epoch)?;
        }
        self.plans = EpochPlans::load(Arc::clone(&self.fs), self.archive.folder.clone(), done)?;
        self.clock.raise(self.plans.times());
        let left = |number: &&SegmentNumber| done.is_none_or(|done| done < **number);
        let segments: Vec<SegmentNumber> =
            recovered.segments.iter().filter(left).copied().collect();
        let highest_planned = self.plans.highest().max(recovered.carries.iter().copied().max());
        let first = segments.first().copied().unwrap_or_else(|| self.journal.active_segment());
        let carry = recovered.base_carry(first);
        if segments.is_empty() && carry.is_none() {
            return Ok(());
        }
        info!(segments = segments.len(), "replaying the journal");
        let mut arrival = Arrival::default();
        if let Some(carry) = carry {
            let reader = self.journal.read_carry(carry)?;
            self.replay_file(reader, Replayed::Carry, &mut arrival)?;
        }
        for segment in segments {
            let reader = self.journal.read_segment(segment)?;
            self.replay_file(reader, Replayed::Segment, &mut arrival)?;
            self.take_out_planned(segment);
            if highest_planned < Some(segment) {
                // Silence is counted by the time of arrival, as it was when the spans came.
                if let Err(fault) =
                    self.settle_and_commit(segment, Scope::Settled, arrival.passed_nano)
                {
                    // Its traces are open again, and go with a later epoch.
                    error!(error = format!("{fault:#}"), "replayed epoch not committed");
                }
            }
        }
        // Senders that were cut off get the usual time to go on with their traces.
        self.assembler.touch(self.clock.monotonic_nano());
        Ok(())
    }

    /// Takes out what an epoch brought to tables, now that all is taken in that it was about: it
    /// settled then with the same content.
    fn take_out_planned(&mut self, epoch: SegmentNumber) {
        for (table, planned) in self.plans.tables(epoch) {
            let mark = planned.mark(epoch);
            let looked_up = match self.broken.leaves_out_txn() {
                true => Ok(false),
                false => self.writers.has_epoch(&table, &mark),
            };
            match looked_up {
                Ok(true) => drop(self.assembler.take_out(&planned.traces)),
                Ok(false) => self.plans.strike(epoch, &table),
                Err(fault) => {
                    let now = self.clock.monotonic_nano();
                    self.blocked.block(&table, now, fault.to_string());
                    warn!(%table, error = %fault, "not known yet whether an epoch is in");
                    let traces = self.assembler.take_out(&planned.traces);
                    self.doubts.add(Doubt { table, epoch, mark, traces });
                }
            }
        }
    }

    /// Takes in the records of a file.
    fn replay_file(
        &mut self,
        reader: RecordReader,
        file: Replayed,
        arrival: &mut Arrival,
    ) -> anyhow::Result<()> {
        for record in reader {
            let record = record?;
            let decoded = RecordHeader::from_bytes(&record.header)
                .and_then(|header| decode_record(header, &record.payload));
            match decoded {
                Ok(decoded) => {
                    if file == Replayed::Segment {
                        arrival.next(decoded.header.received_at_unix_nano);
                        self.ledger.note(&decoded);
                    }
                    self.assembler.push(decoded, arrival.passed_nano);
                }
                Err(fault) => self.park(&record.header, &record.payload, &fault)?,
            }
        }
        Ok(())
    }

    /// Sets a record aside that was accepted once and cannot be read now, for a person to see.
    fn park(
        &self,
        header: &Bytes,
        payload: &Bytes,
        fault: &tracelake_decode::DecodeError,
    ) -> anyhow::Result<()> {
        let folder = self.archive.folder.parked();
        let fs = self.fs.as_ref();
        fs.create_dir_all(&folder)?;
        let name = uuid::Uuid::now_v7();
        write_file(fs, &folder.join(format!("{name}.header.json")), header)?;
        write_file(fs, &folder.join(format!("{name}.payload")), payload)?;
        // Durable before the segment that it is in is deleted.
        fs.sync_dir(&folder)?;
        error!(error = %fault, parked = %name, "journal record cannot be decoded, parked");
        Ok(())
    }
}
