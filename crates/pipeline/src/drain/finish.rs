//! The end of an epoch: what is in no table is carried over, the epoch is noted, and what it stands
//! for is forgotten.

use tracelake_journal::{JournalError, RecordBytes, SegmentNumber};

use super::by_parts::Undone;
use super::{FlushOutcome, Pipeline, epoch_file};

impl Pipeline {
    /// Carries over what is in no table, notes the epoch, and forgets what it stands for. Nothing of that
    /// while an epoch is in doubt, of which a flush tells, or before a part is through that is in one of its tables: a later
    /// epoch notes them all.
    pub(super) fn finish(
        &mut self,
        segment: SegmentNumber,
        outcome: &mut FlushOutcome,
    ) -> anyhow::Result<()> {
        for table in self.doubts.tables() {
            let reason = self.blocked.reasons().find(|(one, _)| *one == table);
            let reason = reason.map_or("its last commit is in doubt", |(_, reason)| reason);
            outcome.failed.entry(table.clone()).or_insert_with(|| reason.to_owned());
        }
        if !self.doubts.is_empty() || self.undone.is_some_and(|undone| undone.is_within_part) {
            return Ok(());
        }
        self.carried = self.write_carry(segment)?;
        self.note_done(segment)?;
        self.noted = Some(segment);
        match self.undone {
            None => {
                self.journal.delete_through(segment)?;
                self.plans.forget_through(segment);
            }
            Some(Undone { position, .. }) => {
                let left = SegmentNumber::new(position.segment);
                self.journal.delete_done(segment, left)?;
                let parts = self.mark.parts();
                let is_forgotten = self.plans.forget(|epoch| match parts.contains(&epoch) {
                    true => epoch <= segment,
                    false => epoch < left,
                });
                let journal = self.stores.folder.journal();
                if !is_forgotten || self.fs.sync_dir(&journal).is_err() {
                    // One that comes back must not be taken for that of an ordinary epoch: the mark goes on
                    // to say what it stands for.
                    return Ok(());
                }
            }
        }
        self.mark.noted(segment)
    }

    /// Notes that the epoch is done; durable when this returns.
    pub(super) fn note_done(&self, epoch: SegmentNumber) -> anyhow::Result<()> {
        epoch_file::write_epoch(self.fs.as_ref(), &self.stores.folder, epoch, self.clock.times())
    }

    /// Returns how many records are open traces, not counting what is not taken in yet.
    fn write_carry(&self, segment: SegmentNumber) -> Result<u64, JournalError> {
        if self.broken.leaves_out_carry() {
            self.journal.write_carry(segment, &mut std::iter::empty())?;
            return Ok(0);
        }
        let mut open = 0;
        let mut unreadable = None;
        let carried = self.assembler.carry().map(|(header, payload)| {
            open += 1;
            RecordBytes { header: header.to_bytes(), payload: payload.into() }
        });
        let untaken = self.untaken()?.into_iter().flatten().map_while(|record| match record {
            Ok(record) => Some(record),
            Err(error) => {
                unreadable = Some(error);
                None
            }
        });
        self.journal.write_carry(segment, &mut carried.chain(untaken))?;
        match unreadable {
            // The epoch is not noted, so the older carry counts.
            Some(error) => Err(error),
            None => Ok(open),
        }
    }
}
