//! The ledger: what was acknowledged, so that `verify` can say whether all of it is archived.
//!
//! The pipeline tells it every record as it passes, live and at replay; records that carry
//! unsettled traces over were told before and are left out. At the end of an epoch, before
//! anything of it is committed, what was told is written and synced as one **entry**: for each
//! trace which spans came, in which hour (UTC), by which way in, for which table and experiment;
//! that its `start_trace` came; that a client deleted it. A span is its fingerprint
//! ([`tracelake_decode::fingerprint`]). The order of what was said of one trace is kept.
//!
//! # Why it is right after a crash
//!
//! What an entry says of a trace is a sequence whose repetition changes nothing: spans are a set,
//! a deletion takes out what came before it. So an epoch that is replayed, whole and in order, may
//! be written again.
//!
//! | durable step | the process dies before it | it dies after it |
//! |---|---|---|
//! | entry of epoch `k` written, synced | its end is cut off at the next start; segment `k` stands, its replay writes the entry | `k` is replayed and written again, which adds nothing |
//! | `commit_epoch(k)` | as above | as above; the entry says no less than the tables hold |
//! | note `k` in `EPOCH` | as above | the entry of `k` is durable: what leaves the journal is in the ledger |
//!
//! An entry that cannot be written fails its epoch, whose segment then stands; what was told goes
//! with the next entry.
//!
//! How often a span was sent is counted as well. An entry that a later one repeats (the same
//! journal, the same segment or a lower one) counts for its set alone.
//!
//! # Files
//!
//! `ledger/<10 digits>-<yyyymmdd>.ledger`: a number that ascends, and the day (UTC) on which the
//! file was begun. A process begins a file of its own, and another one past 64 MiB or at midnight. Files
//! of days longer ago than the retention are deleted then. The format is in [`format`].

mod format;
mod read;

use std::collections::HashMap;
use std::io::{self, IoSlice, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tracelake_decode::{DecodedRecord, Fingerprinter, RecordContent, RecordHeader};
use tracelake_journal::{JournalFile, JournalFs, SegmentNumber, create_folder};
use tracelake_model::{TraceChange, TraceId};
use tracing::{info, warn};
use uuid::Uuid;

use format::{FILE_HEADER, encode_blocks};
use read::LedgerFile;

pub(crate) use format::{Block, Cell, Said, Way};
pub(crate) use read::{Mark, newest_mark, read_blocks};

/// Bytes after which a file is ended.
const MAX_FILE_BYTES: u64 = 64 << 20;

const NANOS_PER_HOUR: u64 = 3_600_000_000_000;
const NANOS_PER_DAY: u64 = 24 * NANOS_PER_HOUR;

/// What was told and is not written yet, and the file at hand.
#[derive(Debug)]
pub(crate) struct Ledger {
    fs: Arc<dyn JournalFs>,
    folder: PathBuf,
    journal: Uuid,
    retention: Duration,
    told: Told,
    file: Option<Open>,
}

/// What was told, in the order in which it came.
#[derive(Debug, Default)]
pub(crate) struct Told {
    cells: Vec<Cell>,
    cell_numbers: HashMap<Cell, u32>,
    notes: Vec<Note>,
    fingerprints: Vec<u64>,
}

/// Something that was said of a trace.
#[derive(Clone, Copy, Debug)]
struct Note {
    trace_id: TraceId,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    /// Neighbours in [`Told::fingerprints`].
    Spans {
        cell: u32,
        start: usize,
        end: usize,
    },
    Started {
        cell: u32,
    },
    Deleted {
        cell: u32,
    },
}

/// The file that is written to.
#[derive(Debug)]
struct Open {
    file: Box<dyn JournalFile>,
    path: PathBuf,
    bytes: u64,
    day: u64,
}

impl Told {
    /// Takes down what a record acknowledges.
    pub(crate) fn note(&mut self, record: &DecodedRecord) {
        let DecodedRecord { header, content } = record;
        let Some(way) = Way::of(header.kind) else { return };
        match content {
            RecordContent::Spans(decoded) => {
                let mut cells: Vec<Option<u32>> = vec![None; header.routes.len()];
                let mut fingerprinter = Fingerprinter::default();
                for span in &decoded.spans {
                    let Some(route) = route_of(header, span.group.experiment_id.as_ref()) else {
                        continue;
                    };
                    let known = cells.get(route).copied().flatten();
                    let Some(cell) = known.or_else(|| self.cell(header, route, way)) else {
                        continue;
                    };
                    if let Some(known) = cells.get_mut(route) {
                        *known = Some(cell);
                    }
                    self.span(span.trace_id, cell, fingerprinter.span(span).0);
                }
            }
            RecordContent::TraceInfo(info) => {
                if let Some(cell) = self.cell(header, 0, way) {
                    let what = What::Started { cell };
                    self.notes.push(Note { trace_id: info.trace_id, what });
                }
            }
            RecordContent::Changes(changes) => {
                for change in changes {
                    if change.changes.contains(&TraceChange::Delete)
                        && let Some(cell) = self.cell(header, 0, way)
                    {
                        let what = What::Deleted { cell };
                        self.notes.push(Note { trace_id: change.trace_id, what });
                    }
                }
            }
            // It was acknowledged, and noted, as the requests that it is of.
            RecordContent::Words(_) => {}
        }
    }

    fn span(&mut self, trace_id: TraceId, cell: u32, fingerprint: u64) {
        let start = self.fingerprints.len();
        self.fingerprints.push(fingerprint);
        if let Some(Note { trace_id: last, what: What::Spans { cell: of, end, .. } }) =
            self.notes.last_mut()
            && *last == trace_id
            && *of == cell
            && *end == start
        {
            *end += 1;
            return;
        }
        self.notes.push(Note { trace_id, what: What::Spans { cell, start, end: start + 1 } });
    }

    fn cell(&mut self, header: &RecordHeader, route: usize, way: Way) -> Option<u32> {
        let route = header.routes.get(route)?;
        let cell = Cell {
            table: route.table.clone(),
            experiment_id: route.experiment_id.clone(),
            hour: header.received_at_unix_nano / NANOS_PER_HOUR,
            way,
        };
        if let Some(number) = self.cell_numbers.get(&cell) {
            return Some(*number);
        }
        let number = u32::try_from(self.cells.len()).ok()?;
        self.cells.push(cell.clone());
        self.cell_numbers.insert(cell, number);
        Some(number)
    }

    /// What was told, by trace: each trace once, what was said of it in order, the spans of one
    /// cell between two deletions together.
    fn by_trace(&self) -> Vec<(TraceId, Vec<Said>)> {
        let mut notes = self.notes.clone();
        notes.sort_by_key(|note| note.trace_id);
        notes
            .chunk_by(|left, right| left.trace_id == right.trace_id)
            .filter_map(|notes| Some((notes.first()?.trace_id, self.said(notes))))
            .collect()
    }

    fn said(&self, notes: &[Note]) -> Vec<Said> {
        let mut said: Vec<Said> = Vec::with_capacity(1);
        for note in notes {
            // What was said before a deletion stays apart from what was said after it.
            let since_deleted =
                said.iter_mut().rev().take_while(|said| !matches!(said, Said::Deleted { .. }));
            match note.what {
                What::Deleted { cell } => said.push(Said::Deleted { cell }),
                What::Started { cell } => {
                    let mut known = since_deleted;
                    if !known.any(|said| *said == Said::Started { cell }) {
                        said.push(Said::Started { cell });
                    }
                }
                What::Spans { cell, start, end } => {
                    let more = self.fingerprints.get(start..end).unwrap_or_default();
                    let known = since_deleted.into_iter().find_map(|said| match said {
                        Said::Spans { cell: of, fingerprints, .. } if *of == cell => {
                            Some(fingerprints)
                        }
                        Said::Spans { .. } | Said::Started { .. } | Said::Deleted { .. } => None,
                    });
                    match known {
                        Some(known) => known.extend_from_slice(more),
                        None => {
                            let fingerprints = more.to_vec();
                            said.push(Said::Spans { cell, sent: 0, fingerprints });
                        }
                    }
                }
            }
        }
        for said in &mut said {
            if let Said::Spans { sent, fingerprints, .. } = said {
                *sent = fingerprints.len() as u64;
                fingerprints.sort_unstable();
                fingerprints.dedup();
            }
        }
        said
    }

    fn clear(&mut self) {
        self.cells.clear();
        self.cell_numbers.clear();
        self.notes.clear();
        self.fingerprints.clear();
    }
}

/// The place of the route that [`RecordHeader::route`] chooses.
fn route_of(
    header: &RecordHeader,
    experiment: Option<&tracelake_model::ExperimentId>,
) -> Option<usize> {
    experiment
        .and_then(|id| header.routes.iter().position(|route| route.experiment_id == *id))
        .or((!header.routes.is_empty()).then_some(0))
}

impl Ledger {
    /// The ledger in `folder`, of the journal with this id. What a crash left unfinished at its
    /// end is cut off.
    pub(crate) fn open(
        fs: Arc<dyn JournalFs>,
        folder: PathBuf,
        journal: Uuid,
        retention: Duration,
    ) -> Self {
        if let Err(error) = cut_torn_end(fs.as_ref(), &folder) {
            // The reader stops at it as well.
            warn!(folder = %folder.display(), error = format!("{error:#}"), "end of the ledger not mended");
        }
        Self { fs, folder, journal, retention, told: Told::default(), file: None }
    }

    /// Takes down what a record acknowledges.
    pub(crate) fn note(&mut self, record: &DecodedRecord) {
        self.told.note(record);
    }

    /// Writes what was told since the last call as the entry of the epochs through `segment`;
    /// durable when this returns. Files past the retention go by the time that is proven.
    ///
    /// # Errors
    /// When it cannot be written. What was told goes with the next call.
    pub(crate) fn write(
        &mut self,
        segment: SegmentNumber,
        now_unix_nano: u64,
        proven_unix_nano: u64,
    ) -> anyhow::Result<()> {
        if self.told.notes.is_empty() {
            return Ok(());
        }
        let traces = self.told.by_trace();
        let bytes = encode_blocks(self.journal, segment.get(), &self.told.cells, &traces);
        let proven = proven_unix_nano / NANOS_PER_DAY;
        let written = self.append(&bytes, now_unix_nano / NANOS_PER_DAY, proven);
        if written.is_err()
            && let Some(Open { mut file, bytes, .. }) = self.file.take()
        {
            // What is behind the good entries would hide those that a reader looks for.
            file.truncate(bytes).and_then(|()| file.sync_data()).ok();
        }
        written.with_context(|| format!("write the ledger in `{}`", self.folder.display()))?;
        self.told.clear();
        Ok(())
    }

    fn append(&mut self, bytes: &[u8], day: u64, proven: u64) -> io::Result<()> {
        let fits = |open: &Open| open.day == day && open.bytes < MAX_FILE_BYTES;
        if !self.file.as_ref().is_some_and(fits) {
            self.file = Some(self.begin(day)?);
            self.forget_old(proven);
        }
        let Some(open) = &mut self.file else { return Ok(()) };
        write_all(open.file.as_mut(), bytes)?;
        open.file.sync_data()?;
        open.bytes += bytes.len() as u64;
        Ok(())
    }

    fn begin(&self, day: u64) -> io::Result<Open> {
        create_folder(self.fs.as_ref(), &self.folder)?;
        let number =
            files(self.fs.as_ref(), &self.folder)?.last().map_or(1, |last| last.number + 1);
        let path = self.folder.join(read::file_name(number, day));
        let mut file = self.fs.create(&path)?;
        write_all(file.as_mut(), &FILE_HEADER)?;
        file.sync_data()?;
        self.fs.sync_dir(&self.folder)?;
        Ok(Open { file, path, bytes: FILE_HEADER.len() as u64, day })
    }

    /// Deletes the files past the retention on a day that is proven.
    fn forget_old(&self, day: u64) {
        let kept = self.retention.as_secs().div_ceil(86_400);
        let Ok(files) = files(self.fs.as_ref(), &self.folder) else { return };
        let at_hand = self.file.as_ref().map(|open| &open.path);
        for file in files.iter().filter(|file| Some(&file.path) != at_hand) {
            if file.day.saturating_add(kept) < day {
                match self.fs.remove(&file.path) {
                    Ok(()) => info!(file = %file.path.display(), "past the ledger's retention"),
                    Err(error) => {
                        warn!(file = %file.path.display(), %error, "old ledger file not deleted");
                    }
                }
            }
        }
    }
}

fn write_all(file: &mut dyn JournalFile, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = file.write_vectored(&[IoSlice::new(bytes)])?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
}

/// The files in the order in which they were written; none when there is no folder.
fn files(fs: &dyn JournalFs, folder: &Path) -> io::Result<Vec<LedgerFile>> {
    let listed = match fs.list(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed?,
    };
    Ok(LedgerFile::all(listed.into_iter().map(|file| folder.join(file.name))))
}

/// Cuts what is behind the last good entry of the last file.
fn cut_torn_end(fs: &dyn JournalFs, folder: &Path) -> anyhow::Result<()> {
    let Some(last) = files(fs, folder)?.pop() else { return Ok(()) };
    let mut good = FILE_HEADER.len() as u64;
    let length = fs.len(&last.path)?;
    if length < good {
        // The process died while it began the file.
        return Ok(fs.remove(&last.path)?);
    }
    let mut file = fs.open_read(&last.path)?;
    file.seek(SeekFrom::Start(good))?;
    let mut reader = io::BufReader::new(file);
    while let Some(block) = format::read_raw(&mut reader, length - good)? {
        good += block;
    }
    if good < length {
        warn!(file = %last.path.display(), bytes = length - good, "unfinished end of the ledger cut off");
        fs.truncate(&last.path, good)?;
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
