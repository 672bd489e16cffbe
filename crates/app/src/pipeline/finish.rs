//! The end of an epoch: what is in no table is carried over, the epoch is noted, and what it stands
//! for is forgotten.

use tracelake_journal::{JournalError, RecordBytes, SegmentNumber};

use super::careful::Undone;
use super::{Pipeline, epoch_file};

impl Pipeline {
    /// Carries over what is in no table, notes the epoch, and forgets what it stands for.
    pub(super) fn finish(&mut self, segment: SegmentNumber) -> anyhow::Result<()> {
        self.carried = self.write_carry(segment)?;
        self.note_done(segment)?;
        self.noted = Some(segment);
        match self.undone {
            None => {
                self.journal.delete_through(segment)?;
                self.plans.forget_through(segment);
            }
            Some(Undone { position, first_part, .. }) => {
                self.journal.delete_done(segment, SegmentNumber::new(position.segment))?;
                self.plans.forget(|epoch| {
                    let number = epoch.get();
                    number < position.segment || (first_part <= number && epoch <= segment)
                });
            }
        }
        self.mark.noted(segment)
    }

    /// Notes that the epoch is done; durable when this returns.
    pub(super) fn note_done(&self, epoch: SegmentNumber) -> anyhow::Result<()> {
        epoch_file::write_epoch(self.fs.as_ref(), &self.archive.folder, epoch, self.clock.times())
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
