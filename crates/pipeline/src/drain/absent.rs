//! What of the journal is not there, though it should be: nobody passes over that in silence.
//!
//! | not there | at the start |
//! |---|---|
//! | the carry that `EPOCH` names | refused: it held acknowledged traces, and a backup may have it |
//! | `EPOCH` | found again from the carries |
//! | a segment, by the word of the one that followed it | set aside as damage of which no byte is left |
//! | every segment above the epoch that is noted, or the header of each of them | likewise: one was made before the epoch was sealed |
//!
//! # `EPOCH` found again
//!
//! Segments are deleted lowest first, when an epoch is noted; then the carries below its number. So with
//! `l` the lowest segment that is there, the noted epoch is `l - 1` or above, its carry is there, and every
//! carry from `l - 1` on is a true one: it holds what was open when all segments up to its number had been
//! committed, and the segments above it are there. The lowest of them is taken. It is not known how far
//! segments are done and what the plans stand for, so all that is there is taken in again behind the carry,
//! which adds nothing that is in a table already.

use std::path::PathBuf;

use tracelake_journal::{JournalFs, RecordBytes, Recovered, SegmentNumber};
use tracelake_lake::DataFolder;
use tracing::error;

use super::Pipeline;
use super::epoch_file::{Done, read_epoch};
use crate::parked::{self, Kind, Reason};

/// The epoch that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Noted {
    /// `None` when there never was one.
    pub(super) done: Option<Done>,
    /// Whether the file that says so is gone, and this is what the other files say.
    pub(super) is_rebuilt: bool,
}

/// The epoch that is noted, or the one that the journal's other files prove.
///
/// # Errors
/// When `EPOCH` cannot be read.
pub(super) fn find_epoch(
    fs: &dyn JournalFs,
    folder: &DataFolder,
    recovered: &Recovered,
) -> anyhow::Result<Noted> {
    if let Some(done) = read_epoch(fs, folder)? {
        return Ok(Noted { done: Some(done), is_rebuilt: false });
    }
    let first = recovered.segments.first().copied();
    // An epoch that was noted left its carry; a journal whose first epoch is not over has its first segment.
    let has_begun = first == Some(SegmentNumber::new(1));
    let fits = |carry: &&SegmentNumber| first.is_none_or(|first| first <= carry.next());
    let newest = recovered.carries.last().copied();
    let base =
        first.and_then(|first| recovered.base_carry(first)).or(newest.filter(|_| first.is_none()));
    // What came before the highest one below all segments counts no more.
    let mut counting =
        recovered.carries.iter().filter(|carry| base.is_none_or(|base| base <= **carry));
    // Numbers may be left out between a carry and the segment that followed.
    let carry = counting.find(fits).copied().or(newest);
    let Some(epoch) = carry.filter(|_| !has_begun) else {
        return Ok(Noted { done: None, is_rebuilt: false });
    };
    Ok(Noted { done: Some(Done { epoch, times: None }), is_rebuilt: true })
}

/// The carry of the last epoch is not there as a whole: it held acknowledged traces that are in no table.
/// Restore it from a backup, or give it up.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{}` is missing or incomplete: it holds acknowledged traces that are in no table\nhint: restore it from \
     a backup; `tracelake serve --accept-lost-carry {epoch}` goes on without what it held",
    .file.display()
)]
pub struct LostCarry {
    /// The file.
    pub file: PathBuf,
    /// Its epoch.
    pub epoch: u64,
}

/// Refuses to start when the carry that the epoch file relies on is not there as a whole: it holds
/// acknowledged traces that are in no table. `accepted` is the carry that the operator gave up.
///
/// # Errors
/// [`LostCarry`], or when the epoch file cannot be read.
pub fn check_carry(
    fs: &dyn JournalFs,
    folder: &DataFolder,
    recovered: &Recovered,
    accepted: Option<u64>,
) -> anyhow::Result<()> {
    let Some(done) = find_epoch(fs, folder, recovered)?.done.map(|done| done.epoch) else {
        return Ok(());
    };
    if recovered.carries.contains(&done) {
        return Ok(());
    }
    let file = folder.journal().join(format!("carry-{:020}.journal", done.get()));
    if accepted == Some(done.get()) {
        error!(file = %file.display(), "gone on without: what it held is lost, `tracelake verify` names it");
        return Ok(());
    }
    Err(LostCarry { file, epoch: done.get() }.into())
}

impl Pipeline {
    /// Sets aside, as damage without bytes, each segment that is gone and was not done with.
    pub(super) fn name_absent(
        &self,
        recovered: &Recovered,
        done: Option<SegmentNumber>,
    ) -> anyhow::Result<()> {
        let first = recovered.segments.first();
        for one in &recovered.absent {
            // Deletions go lowest first, so what lies above one that is there was not deleted.
            let is_done = done.is_some_and(|done| one.number <= done);
            if is_done && first.is_some_and(|first| one.number < *first) {
                continue;
            }
            let why = format!("the file is gone with {} bytes of acknowledged records", one.bytes);
            self.name_lost(one.number, why)?;
        }
        let Some(epoch) = done else { return Ok(()) };
        let mut above = recovered.segments.iter().filter(|segment| epoch < **segment);
        match above.clone().next() {
            None => {
                let why = "no segment follows the last epoch: the one that took requests is gone";
                self.name_lost(epoch.next(), why.to_owned())
            }
            // One that others followed may have been made just when its process ended.
            Some(next) if above.all(|segment| recovered.headless.contains(segment)) => {
                self.name_lost(*next, "its begin is gone, perhaps with acknowledged records".into())
            }
            Some(_) => Ok(()),
        }
    }

    fn name_lost(&self, segment: SegmentNumber, why: String) -> anyhow::Result<()> {
        let file = format!("segment-{:020}.journal", segment.get());
        let reason = Reason::new(Kind::Damage, why, file, 0);
        let folder = self.stores.folder.parked();
        let name = parked::park(self.fs.as_ref(), &folder, &reason, &RecordBytes::default())?;
        error!(parked = %name, file = reason.file, reason = reason.reason, "a segment of the journal is lost");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tracelake_journal::RealFs;

    use super::*;

    /// Scenario: no `EPOCH`, or one; a carry that lies below another one, with and without segments.
    /// Guarantees: what the file says stands, though a younger carry is there; without it the lowest carry that
    /// the segments follow counts, and no older one.
    #[test]
    fn an_older_carry_counts_by_the_word_of_the_file_alone() {
        let held = tempfile::tempdir().unwrap();
        let folder = DataFolder::new(held.path()).unwrap();
        std::fs::create_dir_all(folder.journal()).unwrap();
        let numbers = |numbers: &[u64]| -> Vec<_> {
            numbers.iter().copied().map(SegmentNumber::new).collect()
        };
        let found = |segments: &[u64], carries: &[u64]| {
            let (segments, carries) = (numbers(segments), numbers(carries));
            let recovered = Recovered { segments, carries, ..Recovered::default() };
            let noted = find_epoch(&RealFs, &folder, &recovered).unwrap();
            (noted.done.map(|done| done.epoch.get()), noted.is_rebuilt)
        };
        assert_eq!(found(&[8, 9], &[5, 7]), (Some(7), true));
        assert_eq!(found(&[8, 9], &[5, 7, 8]), (Some(7), true));
        assert_eq!(found(&[6, 7, 8], &[5, 7]), (Some(5), true));
        assert_eq!(found(&[], &[5, 7]), (Some(7), true));
        assert_eq!(found(&[1, 2], &[]), (None, false));
        let times = tracelake_model::Times { given_unix_nano: 1, proven_unix_nano: 1 };
        super::super::epoch_file::write_epoch(&RealFs, &folder, SegmentNumber::new(5), times)
            .unwrap();
        assert_eq!(found(&[], &[5, 7]), (Some(5), false));
    }
}
