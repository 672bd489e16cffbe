//! Replay of what an earlier process left in the journal.
//!
//! Let `d` be the last epoch noted as done. Its deletion is finished first, so that carry `d` and
//! the segments above `d` are left. What carry `d` and these segments say, in this order, is all
//! that was acknowledged and is not in a table by the word of the epoch file.
//!
//! Of it, epochs above `d` may have brought some to tables already. Which ones the plan of each
//! epoch says ([`super::plans`]), and whether it came to that the table's `txn`. A trace that
//! settled in epoch `k` settled with all that there was of it up to the end of segment `k`; so what
//! is in is taken out right there, and what comes after is a late piece, as it was then.
//!
//! A plan is written before its epoch is committed anywhere. So with `c` the highest plan, no table
//! has an epoch above `c`: segments up to `c` are only taken in, and each one above it is an epoch
//! of its own, committed and deleted before the next is read, so that memory holds one.

use std::collections::HashSet;
use std::sync::Arc;

use tracelake_decode::{RecordHeader, decode_record};
use tracelake_journal::{RecordBytes, RecordReader, Recovered, SegmentNumber};
use tracing::{error, info, warn};

use super::absent::{Noted, find_epoch};
use super::arrival::Arrival;
use super::batches::Care;
use super::by_parts::Backlog;
use super::origin::Origin;
use super::plans::EpochPlans;
use super::replay_mark::{At, LastWords, PartDone, Position, Stage};
use super::{Pipeline, Scope};

impl Care {
    /// What a start does that follows one which died, or `None` when none did.
    pub(super) fn after(died_at: Option<At>, done: Option<SegmentNumber>) -> Option<Self> {
        Some(match died_at? {
            At::Segments { through } => Self { through: Some(through), ..Self::default() },
            // All that was replayed is in the carry.
            At::Settling => {
                Self { through: Some(done.map_or(0, SegmentNumber::get)), ..Self::default() }
            }
            At::Records(records) => {
                let through = Some(records.through);
                Self { died_at: Some(records), through, ..Self::default() }
            }
        })
    }
}

impl Pipeline {
    /// Replays and commits what is left of earlier epochs.
    pub(crate) fn recover(&mut self, recovered: &Recovered) -> anyhow::Result<()> {
        let replayed = self.replay(recovered);
        self.health.say("replay", None);
        if replayed.is_err() {
            // It did not die of what it was at.
            self.lay_mark_down();
        }
        replayed
    }

    fn replay(&mut self, recovered: &Recovered) -> anyhow::Result<()> {
        for damage in &recovered.damage {
            warn!(?damage, "journal was damaged");
        }
        let Noted { done, is_rebuilt } =
            find_epoch(self.fs.as_ref(), &self.stores.folder, recovered)?;
        if is_rebuilt {
            let file = self.stores.folder.epoch_file();
            error!(file = %file.display(), "missing: found again from the carries; all that is left of the journal is taken in again");
        }
        match done.map(|done| (done.epoch, done.times)) {
            Some((_, Some(times))) => self.clock.raise(times),
            // An older program can read it no more, before there is a plan that it cannot read.
            Some((epoch, None)) if !is_rebuilt => self.note_done(epoch)?,
            _ => {}
        }
        let done = done.map(|done| done.epoch);
        self.name_absent(recovered, done)?;
        let LastWords { at, done: parts } = self.mark.read()?;
        // Whether deletions stopped half-way, or a replay by parts did, is not known then.
        let parts = parts.filter(|_| !is_rebuilt);
        let (backlog, pending) = self.take_stock(recovered, done, parts)?;
        self.clock.raise(self.plans.times());
        if backlog.segments.is_empty() && backlog.carry.is_none() {
            return self.mark.lay_down();
        }
        let care = Care::after(at, done);
        if care.is_some() || backlog.position.is_some() || !pending.is_empty() {
            self.recover_by_parts(backlog, care.unwrap_or_default(), &pending)?;
        } else {
            self.recover_whole(backlog, recovered)?;
        }
        // Senders that were cut off get the usual time to go on with their traces.
        self.assembler.touch(self.clock.monotonic_nano());
        self.watch_replayed()
    }

    /// Finishes the deletions of the epoch that is noted. Returns what is left, and which epochs of
    /// parts may be in tables and are not noted.
    fn take_stock(
        &mut self,
        recovered: &Recovered,
        done: Option<SegmentNumber>,
        parts: Option<Vec<PartDone>>,
    ) -> anyhow::Result<(Backlog, Vec<PartDone>)> {
        let (fs, folder) = (Arc::clone(&self.fs), self.stores.folder.clone());
        let carry = done.filter(|done| recovered.carries.contains(done));
        let mut segments = recovered.segments.clone();
        let Some(parts) = parts else {
            // Nobody knows how far the segments are done, nor what the plans stand for.
            self.plans = EpochPlans::load(fs, folder, None)?;
            self.clock.raise(self.plans.times());
            self.plans.forget(|_| true);
            let position = segments.first().map(|first| Position::at_segment(*first));
            return Ok((Backlog { carry, segments, position }, Vec::new()));
        };
        let noted = parts.iter().find(|part| Some(part.epoch) == done.map(SegmentNumber::get));
        let noted = noted.copied();
        let first_left = match (noted, done) {
            (Some(part), _) => SegmentNumber::new(part.position.segment),
            (None, Some(done)) => done.next(),
            (None, None) => SegmentNumber::new(0),
        };
        if let Some(done) = done {
            self.journal.delete_done(done, first_left)?;
        }
        self.plans = EpochPlans::load(fs, folder, None)?;
        let of_parts = self.mark.parts();
        self.plans.forget(|epoch| match of_parts.contains(&epoch) {
            true => Some(epoch) <= done,
            false => epoch < first_left,
        });
        segments.retain(|segment| first_left <= *segment);
        let position = noted.map(|part| part.position);
        let pending = parts.into_iter().filter(|part| Some(part.epoch) > done.map(|d| d.get()));
        let pending: Vec<PartDone> = pending.collect();
        Ok((Backlog { carry, segments, position }, pending))
    }

    /// Takes in the carry and the segments one by one, each as a whole.
    fn recover_whole(&mut self, backlog: Backlog, recovered: &Recovered) -> anyhow::Result<()> {
        let Backlog { carry, segments, .. } = backlog;
        let highest_planned = self.plans.highest().max(recovered.carries.iter().copied().max());
        info!(segments = segments.len(), "replaying the journal");
        let mut arrival = Arrival::default();
        if let Some(carry) = carry {
            self.mark.take_on(At::Segments { through: carry.get() })?;
            let reader = self.journal.read_carry(carry)?;
            self.replay_file(reader, Origin::Carry(carry.get()), &mut arrival)?;
        }
        for segment in segments {
            self.mark.take_on(At::Segments { through: segment.get() })?;
            let reader = self.journal.read_segment(segment)?;
            let origin = Origin::Segment(segment.get());
            self.replay_file(reader, origin, &mut arrival)?;
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
        Ok(())
    }

    /// A process that dies before all that was replayed is committed, may have died of it.
    fn watch_replayed(&mut self) -> anyhow::Result<()> {
        let open: HashSet<_> =
            self.assembler.open_trace_ids().chain(self.doubts.traces()).collect();
        if open.is_empty() {
            return self.mark.lay_down();
        }
        self.mark.take_on(At::Settling)?;
        self.replayed = Some(open);
        Ok(())
    }

    /// Looks what of the replayed traces is still open, after an epoch.
    pub(super) fn forget_replayed(&mut self) {
        let Some(replayed) = &mut self.replayed else { return };
        let open: HashSet<_> =
            self.assembler.open_trace_ids().chain(self.doubts.traces()).collect();
        replayed.retain(|trace| open.contains(trace));
        if replayed.is_empty() {
            self.replayed = None;
            self.lay_mark_down();
        }
    }

    /// Notes what is being done with a record that is taken in alone.
    pub(super) fn mark_stage(&self, stage: Stage) {
        if let Err(error) = self.mark.enter(stage) {
            // A death counts as the stage before says.
            warn!(error = format!("{error:#}"), "stage of the replay not noted");
        }
    }

    /// This process does not die of what it was at.
    pub(super) fn lay_mark_down(&self) {
        if let Err(error) = self.mark.lay_down() {
            // The next start is careful without need.
            warn!(error = format!("{error:#}"), "mark of the replay not taken back");
        }
    }

    /// Takes out what an epoch brought to tables, now that all is taken in that it was about: it
    /// settled then with the same content.
    fn take_out_planned(&mut self, epoch: SegmentNumber) {
        for (table, planned) in self.plans.tables(epoch) {
            if self.may_have_planned(epoch, &table, &planned) {
                let traces = self.assembler.take_out(&planned.traces);
                self.doubts.collect(&table, epoch, traces);
            } else {
                self.plans.strike(epoch, &table);
            }
        }
    }

    /// Takes in the records of a file.
    fn replay_file(
        &mut self,
        mut reader: RecordReader,
        origin: Origin,
        arrival: &mut Arrival,
    ) -> anyhow::Result<()> {
        let mut place = 0;
        while let Some(record) = reader.next() {
            let record = record?;
            let in_segment = reader.last_sequence().map_or(0, |sequence| sequence.get());
            let at = if matches!(origin, Origin::Carry(_)) { place } else { in_segment };
            self.take_record(&record, origin, at, arrival)?;
            place += 1;
        }
        self.mark.note_record(None);
        self.set_damage_aside(reader.damage(), matches!(origin, Origin::Carry(_)))
    }

    /// Takes in a record, or sets it aside when it was accepted once and cannot be read now.
    pub(super) fn take_record(
        &mut self,
        record: &RecordBytes,
        origin: Origin,
        place: u64,
        arrival: &mut Arrival,
    ) -> anyhow::Result<()> {
        self.mark.note_record(Some((origin, place)));
        #[cfg(debug_assertions)]
        crate::failpoints::die_of_poison(&record.payload);
        let decoded = RecordHeader::from_bytes(&record.header)
            .and_then(|header| decode_record(header, &record.payload));
        match decoded {
            Ok(decoded) => {
                if matches!(origin, Origin::Segment(_)) {
                    arrival.next(decoded.header.received_at_unix_nano);
                    self.ledger.note(&decoded);
                }
                self.assembler.push(decoded, arrival.passed_nano);
                Ok(())
            }
            Err(fault) => {
                self.park(record, origin, place, format!("it cannot be decoded: {fault}"))
            }
        }
    }
}
