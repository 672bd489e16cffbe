//! Takes stock of a journal folder when it is opened.
//!
//! Opening is quick however much there is to replay: of the older segments only the headers are
//! read, and the newest one, which alone may end in an unfinished write, is bounded in length.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::JournalError;
use crate::fs::JournalFs;
use crate::replay::{Damage, DamageKind, RecordReader, carry_is_complete, read_header};
use crate::segment::{
    FILE_HEADER_LEN, FileKind, Predecessor, SegmentNumber, is_temporary_name, len_u64,
};

/// Name of the file whose lock says who owns the folder.
pub(crate) const LOCK_NAME: &str = "LOCK";

/// What an earlier owner left in the folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Segments older than the active one, ascending, to be replayed with
    /// [`Journal::read_segment`](crate::Journal::read_segment).
    pub segments: Vec<SegmentNumber>,
    /// Complete carry files, ascending. Which one counts, and that older ones go, is the consumer's to say:
    /// it knows what it had done.
    pub carries: Vec<SegmentNumber>,
    /// What was cut off the newest segment, skipped in it, or incomplete among the carries.
    /// Damage in older segments and inside carries is found when they are read.
    pub damage: Vec<Damage>,
    /// Segments that others follow and that are not there. Those that the consumer had done with were
    /// deleted; which ones these are, it knows.
    pub absent: Vec<AbsentSegment>,
    /// Segments that are there without a header that can be read. The newest one may have been made just
    /// when its process ended.
    pub headless: Vec<SegmentNumber>,
}

/// A segment that is not there, by the word of the one that followed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbsentSegment {
    /// Its number.
    pub number: SegmentNumber,
    /// Bytes of acknowledged records that it held, at the least; more than 0.
    pub bytes: u64,
}

impl Recovered {
    /// The carry file to start from when `first` is the lowest segment to be replayed: it holds
    /// what was unsettled when all segments below `first` had been replayed.
    #[must_use]
    pub fn base_carry(&self, first: SegmentNumber) -> Option<SegmentNumber> {
        self.carries.iter().rev().find(|carry| **carry < first).copied()
    }
}

/// What opening needs to know besides what the caller is told.
#[derive(Debug)]
pub(crate) struct Stock {
    pub(crate) recovered: Recovered,
    /// Above the number of every file.
    pub(crate) next_number: SegmentNumber,
    /// Above the sequence number of every record.
    pub(crate) next_sequence: u64,
    /// The newest segment, whose end is durable.
    pub(crate) newest: Option<Predecessor>,
    pub(crate) used_bytes: u64,
    /// Files without a use, with their lengths.
    pub(crate) garbage: Vec<(PathBuf, u64)>,
}

/// Examines `dir`, and cuts an unusable tail off its newest segment.
pub(crate) fn take_stock(fs: &dyn JournalFs, dir: &Path) -> Result<Stock, JournalError> {
    let mut segments = Vec::new();
    let mut carries = Vec::new();
    let mut garbage = Vec::new();
    let mut used_bytes: u64 = 0;
    for file in fs.list(dir).map_err(|error| JournalError::io("list", dir, error))? {
        if file.name != LOCK_NAME {
            used_bytes = used_bytes.saturating_add(file.len);
        }
        if let Some(number) = FileKind::Segment.parse_name(&file.name) {
            segments.push(number);
        } else if let Some(number) = FileKind::Carry.parse_name(&file.name) {
            carries.push((number, file.len));
        } else if is_temporary_name(&file.name) {
            garbage.push((dir.join(&file.name), file.len));
        }
    }
    segments.sort_unstable();
    carries.sort_unstable();

    let next_sequence = find_next_sequence(fs, dir, &segments, &carries)?;
    let highest = segments.last().copied().max(carries.last().map(|(number, _)| *number));
    let next_number = highest.map_or(SegmentNumber::new(1), SegmentNumber::next);
    let mut recovered = Recovered { segments, ..Recovered::default() };
    read_headers(fs, dir, &mut recovered)?;
    let mut newest = None;
    if let Some(number) = recovered.segments.last().copied() {
        let (end, cut) = repair(fs, dir, number, &mut recovered.damage)?;
        used_bytes = used_bytes.saturating_sub(cut);
        newest = Some(Predecessor { number, end });
    }
    sort_carries(fs, dir, &carries, &mut recovered)?;
    Ok(Stock { recovered, next_number, next_sequence, newest, used_bytes, garbage })
}

/// Removes files without a use. That they stay is no reason not to start.
pub(crate) fn remove_garbage(fs: &dyn JournalFs, dir: &Path, garbage: &[(PathBuf, u64)]) -> u64 {
    let mut freed: u64 = 0;
    for (path, len) in garbage {
        match fs.remove(path) {
            Ok(()) => freed = freed.saturating_add(*len),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %path.display(), %error, "file not removed"),
        }
    }
    if !garbage.is_empty()
        && let Err(error) = fs.sync_dir(dir)
    {
        tracing::warn!(dir = %dir.display(), %error, "folder not synced");
    }
    freed
}

/// A sequence number above all that was ever given.
///
/// A record's number is that of the begin of its file plus its offset, so headers and lengths
/// are all that is needed. A file with an unreadable header counts with its length.
fn find_next_sequence(
    fs: &dyn JournalFs,
    dir: &Path,
    segments: &[SegmentNumber],
    carries: &[(SegmentNumber, u64)],
) -> Result<u64, JournalError> {
    let segments = segments.iter().map(|number| (FileKind::Segment, *number));
    let carries = carries.iter().map(|(number, _)| (FileKind::Carry, *number));
    let mut known: u64 = 0;
    let mut unknown: u64 = 0;
    for (kind, number) in segments.chain(carries) {
        let mut reader = RecordReader::open(fs, dir, kind, number)?;
        if !reader.header_readable() && kind == FileKind::Segment {
            // Its first record, if there is one, tells where the file begins.
            reader.next().transpose()?;
        }
        match reader.base_sequence() {
            Some(base) => known = known.max(base.saturating_add(reader.file_len())),
            None => unknown = unknown.saturating_add(reader.file_len()),
        }
    }
    Ok(known.saturating_add(unknown))
}

/// Notes segments of which another says that they held records, and that are not there.
fn read_headers(
    fs: &dyn JournalFs,
    dir: &Path,
    recovered: &mut Recovered,
) -> Result<(), JournalError> {
    let Recovered { segments, absent, headless, .. } = recovered;
    for segment in &*segments {
        let Some(header) = read_header(fs, &FileKind::Segment.path(dir, *segment))? else {
            headless.push(*segment);
            continue;
        };
        let Some(Predecessor { number, end }) = header.predecessor else { continue };
        let bytes = end.saturating_sub(len_u64(FILE_HEADER_LEN));
        let is_named = absent.iter().any(|one| one.number == number);
        if 0 < bytes && !is_named && segments.binary_search(&number).is_err() {
            absent.push(AbsentSegment { number, bytes });
        }
    }
    Ok(())
}

/// Reads the newest segment through, notes its damage, and cuts its tail. Returns its end, which is
/// durable then, and the bytes cut: a process that died between write and sync leaves records that
/// are read now and may be gone after a power cut.
fn repair(
    fs: &dyn JournalFs,
    dir: &Path,
    newest: SegmentNumber,
    damage: &mut Vec<Damage>,
) -> Result<(u64, u64), JournalError> {
    let mut reader = RecordReader::open(fs, dir, FileKind::Segment, newest)?;
    for record in reader.by_ref() {
        record?;
    }
    damage.extend_from_slice(reader.damage());
    let end = reader.end_of_records();
    let path = FileKind::Segment.path(dir, newest);
    fs.truncate(&path, end).map_err(|error| JournalError::io("cut", &path, error))?;
    Ok((end, reader.file_len() - end))
}

fn sort_carries(
    fs: &dyn JournalFs,
    dir: &Path,
    carries: &[(SegmentNumber, u64)],
    recovered: &mut Recovered,
) -> Result<(), JournalError> {
    for (number, len) in carries {
        if carry_is_complete(fs, dir, *number)? {
            recovered.carries.push(*number);
            continue;
        }
        let path = FileKind::Carry.path(dir, *number);
        tracing::warn!(path = %path.display(), "incomplete carry file");
        let kind = DamageKind::IncompleteCarry;
        recovered.damage.push(Damage { path, offset: 0, bytes: *len, kind });
    }
    Ok(())
}
