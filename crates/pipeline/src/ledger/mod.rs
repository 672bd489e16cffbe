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
//! a deletion takes out what came before it, of changes to one thing the last one holds. So an epoch
//! that is replayed, whole and in order, may be written again.
//!
//! | durable step | the process dies before it | it dies after it |
//! |---|---|---|
//! | entry of epoch `k` written, synced | what stands of it does not count: segment `k` stands, its replay writes the entry | the same, since its link is not noted; what is said twice adds nothing |
//! | link of that entry noted in `journal/LEDGER` | as above | `k` is replayed and written again |
//! | `commit_epoch(k)` | as above | as above; the ledger says no less than the tables hold |
//! | note `k` in `EPOCH` | as above | the entry of `k` is durable: what leaves the journal is in the ledger |
//! | anchor noted in `journal/LEDGER`, with the link | files past the retention stay, and go later | as above |
//! | files past the retention deleted | as above | the chain begins at the anchor |
//!
//! An entry that cannot be written, or whose link cannot be noted, fails its epoch, whose segment
//! then stands; what was told goes with the next entry.
//!
//! How often a span was sent is counted as well. An entry that a later one repeats (the same
//! journal, the same segment or a lower one, or behind the same link) counts for its set alone.
//!
//! # The chain
//!
//! Each block names the link of the noted one: its ordinal and its hash. So between the anchor and
//! the noted link nothing can be missing without a finding ([`chain`]), at every moment of the table
//! above: the noted link is never that of an entry that may vanish, since the entry is synced first,
//! and a process that starts goes on from the noted link and from nothing else, whatever stands
//! behind it. A ledger without blocks beside a noted link is lost; without one, and without `EPOCH`,
//! it is young. A ledger of format 1 is read and not chained: the first process that finds one notes
//! an empty chain, which goes on behind it.
//!
//! # Files
//!
//! `ledger/<10 digits>-<yyyymmdd>.ledger`: a number that ascends, and the day (UTC) on which the
//! file was begun. A process begins a file of its own, and another one past 64 MiB or at midnight. Files
//! of days longer ago than the retention are deleted then. The format is in [`format`].

mod chain;
mod format;
mod hashes;
mod link_file;
mod read;
mod scan;
mod told;

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tracelake_decode::DecodedRecord;
use tracelake_journal::{JournalFile, JournalFs, RealFs, SegmentNumber, create_folder};
use tracelake_lake::DataFolder;
use tracing::{error, info, warn};
use uuid::Uuid;

use format::{Entry, FILE_HEADER_BYTES, FileFormat, encode_blocks, file_header};
use link_file::{LinkFile, Noted};
use read::LedgerFile;
use scan::{Part, Scan, read_format};
use told::Told;

pub use chain::{ChainCheck, ChainFindings};
pub use format::{Block, Cell, Link, Linked, Said, Subject, Way};
pub use hashes::{assessment_hash, text_hash};
pub use read::{Mark, Seen, UnreadableBytes, newest_mark, read_blocks, read_ledger};

/// Bytes after which a file is ended.
const MAX_FILE_BYTES: u64 = 64 << 20;

const NANOS_PER_HOUR: u64 = 3_600_000_000_000;
const NANOS_PER_DAY: u64 = 24 * NANOS_PER_HOUR;

/// What was told and is not written yet, and the file at hand.
#[derive(Debug)]
pub struct Ledger {
    fs: Arc<dyn JournalFs>,
    folder: PathBuf,
    link_path: PathBuf,
    journal: Uuid,
    retention: Duration,
    told: Told,
    file: Option<Open>,
    chain: Option<Chain>,
}

/// The file that is written to.
#[derive(Debug)]
struct Open {
    file: Box<dyn JournalFile>,
    path: PathBuf,
    bytes: u64,
    day: u64,
}

/// The chain as it is noted.
#[derive(Clone, Copy, Debug)]
struct Chain {
    noted: Noted,
    /// The newest link is not to be found: the next entry says so.
    begins_anew: bool,
}

impl Ledger {
    /// The ledger in `folder`, whose newest link is noted at `link_path`, of the journal with this
    /// id.
    fn new(
        fs: Arc<dyn JournalFs>,
        folder: PathBuf,
        link_path: PathBuf,
        journal: Uuid,
        retention: Duration,
    ) -> Self {
        let told = Told::default();
        Self { fs, folder, link_path, journal, retention, told, file: None, chain: None }
    }

    /// The ledger of a data folder, of the journal with this id.
    #[must_use]
    pub fn of(
        fs: Arc<dyn JournalFs>,
        folder: &DataFolder,
        journal: Uuid,
        retention: Duration,
    ) -> Self {
        Self::new(fs, folder.ledger(), folder.ledger_link_file(), journal, retention)
    }

    /// Takes down what a record acknowledges.
    pub fn note(&mut self, record: &DecodedRecord) {
        self.told.note(record);
    }

    /// Writes what was told since the last call as the entry of the epochs through `segment`, and
    /// notes its link; both are durable when this returns. Files past the retention go by the time
    /// that is proven.
    ///
    /// # Errors
    /// When it cannot be written. What was told goes with the next call.
    pub fn write(
        &mut self,
        segment: SegmentNumber,
        now_unix_nano: u64,
        proven_unix_nano: u64,
    ) -> anyhow::Result<()> {
        let chain = match self.chain {
            Some(chain) => chain,
            None => *self.chain.insert(self.open_chain()?),
        };
        if self.told.is_empty() {
            return Ok(());
        }
        let traces = self.told.by_trace();
        let entry = Entry {
            journal: self.journal,
            through: segment.get(),
            begins_anew: chain.begins_anew,
            cells: self.told.cells(),
            traces: &traces,
        };
        let (bytes, newest) = encode_blocks(entry, chain.noted.newest);
        let day = now_unix_nano / NANOS_PER_DAY;
        let begun = self.append(&bytes, day);
        if begun.is_err()
            && let Some(Open { mut file, bytes, .. }) = self.file.take()
        {
            // Only for the sake of room: the next entry does not follow what stands there.
            file.truncate(bytes).and_then(|()| file.sync_data()).ok();
        }
        let fail = || format!("write the ledger in `{}`", self.folder.display());
        let proven = proven_unix_nano / NANOS_PER_DAY;
        let old = if begun.with_context(fail)? { self.old_files(proven) } else { Vec::new() };
        let anchor = self.anchor_without(&old).unwrap_or(chain.noted.anchor);
        let noted = Noted { newest, anchor };
        noted.write(self.fs.as_ref(), &self.link_path)?;
        self.chain = Some(Chain { noted, begins_anew: false });
        self.told.clear();
        self.forget(&old);
        Ok(())
    }

    /// The chain that an earlier process left, noted so that a ledger that is lost is told from one
    /// that never was.
    fn open_chain(&self) -> anyhow::Result<Chain> {
        let fs = self.fs.as_ref();
        let noted = match LinkFile::read(fs, &self.link_path)? {
            LinkFile::Noted(noted) => return Ok(Chain { noted, begins_anew: false }),
            LinkFile::Missing if !self.has_chained_files()? => {
                let noted = Noted::default();
                self.cut_torn_end();
                noted.write(fs, &self.link_path)?;
                return Ok(Chain { noted, begins_anew: false });
            }
            LinkFile::Missing => Noted::default(),
            LinkFile::Damaged => {
                fs.rename(&self.link_path, &self.link_path.with_extension("damaged"))
                    .with_context(|| format!("move `{}` aside", self.link_path.display()))?;
                Noted::default()
            }
        };
        error!(
            link = %self.link_path.display(),
            "the newest link of the ledger is not to be found; `verify` says what that means"
        );
        Ok(Chain { noted, begins_anew: true })
    }

    /// Appends an entry, durably. Returns whether a file was begun for it.
    fn append(&mut self, bytes: &[u8], day: u64) -> io::Result<bool> {
        let fits = |open: &Open| open.day == day && open.bytes < MAX_FILE_BYTES;
        let begins = !self.file.as_ref().is_some_and(fits);
        if begins {
            self.file = Some(self.begin(day)?);
        }
        let Some(open) = &mut self.file else { return Ok(begins) };
        write_all(open.file.as_mut(), bytes)?;
        open.file.sync_data()?;
        open.bytes += bytes.len() as u64;
        Ok(begins)
    }

    fn begin(&self, day: u64) -> io::Result<Open> {
        create_folder(self.fs.as_ref(), &self.folder)?;
        let number =
            files(self.fs.as_ref(), &self.folder)?.last().map_or(1, |last| last.number + 1);
        let path = self.folder.join(read::file_name(number, day));
        let mut file = self.fs.create(&path)?;
        write_all(file.as_mut(), &file_header())?;
        file.sync_data()?;
        self.fs.sync_dir(&self.folder)?;
        Ok(Open { file, path, bytes: FILE_HEADER_BYTES, day })
    }

    /// The files that are past the retention on a day that is proven: of the oldest ones as many as
    /// are.
    fn old_files(&self, day: u64) -> Vec<LedgerFile> {
        let kept = self.retention.as_secs().div_ceil(86_400);
        let Ok(files) = files(self.fs.as_ref(), &self.folder) else { return Vec::new() };
        let at_hand = self.file.as_ref().map(|open| &open.path);
        let is_past =
            |file: &LedgerFile| Some(&file.path) != at_hand && file.day.saturating_add(kept) < day;
        files.into_iter().take_while(is_past).collect()
    }

    /// The link before the first one that stays when `old` files go; `None` when there is none.
    fn anchor_without(&self, old: &[LedgerFile]) -> Option<Link> {
        let last = old.last()?;
        let files = files(self.fs.as_ref(), &self.folder).ok()?;
        files.iter().filter(|file| last.number < file.number).find_map(|file| {
            let length = self.fs.len(&file.path).ok()?;
            let reader = self.fs.open_read(&file.path).ok()?;
            let mut scan = Scan::new(reader, FILE_HEADER_BYTES, length).ok()?;
            while let Some(part) = scan.next_part().ok()? {
                if let Part::Block(_, block) = part {
                    return Some(block.linked?.before);
                }
            }
            None
        })
    }

    fn forget(&self, old: &[LedgerFile]) {
        for file in old {
            match self.fs.remove(&file.path) {
                Ok(()) => info!(file = %file.path.display(), "past the ledger's retention"),
                Err(error) => {
                    warn!(file = %file.path.display(), %error, "old ledger file not deleted");
                }
            }
        }
    }

    /// Whether a file is of a format whose entries are chained.
    fn has_chained_files(&self) -> anyhow::Result<bool> {
        let fs = self.fs.as_ref();
        for file in files(fs, &self.folder)? {
            if format_of(fs, &file.path)? == FileFormat::Chained {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Cuts off what a process that did not chain its entries was writing when it died: the epoch
    /// of such an entry is replayed, and its entry written again.
    fn cut_torn_end(&self) {
        let cut = || -> io::Result<()> {
            let fs = self.fs.as_ref();
            let Some(last) = files(fs, &self.folder)?.pop() else { return Ok(()) };
            let length = fs.len(&last.path)?;
            if format_of(fs, &last.path)? != FileFormat::Unchained {
                return Ok(());
            }
            let mut scan = Scan::new(fs.open_read(&last.path)?, FILE_HEADER_BYTES, length)?;
            let mut end = FILE_HEADER_BYTES;
            while let Some(part) = scan.next_part()? {
                if let Part::Block(..) = part {
                    end = scan.offset;
                }
            }
            if end < length && scan.is_torn(end)? {
                warn!(file = %last.path.display(), bytes = length - end, "unfinished end of the ledger cut off");
                fs.truncate(&last.path, end)?;
            }
            Ok(())
        };
        if let Err(error) = cut() {
            // It is a finding of `verify` then.
            warn!(folder = %self.folder.display(), %error, "end of the ledger not mended");
        }
    }
}

/// Refuses a ledger that a newer program wrote; changes nothing.
///
/// # Errors
/// When one is there, or when the ledger cannot be looked at.
pub fn refuse_newer(folder: &DataFolder) -> anyhow::Result<()> {
    LinkFile::read(&RealFs, &folder.ledger_link_file())?;
    for file in files(&RealFs, &folder.ledger())? {
        if let FileFormat::Newer(version) = format_of(&RealFs, &file.path)? {
            return Err(anyhow::Error::new(read::newer(&file.path, version))
                .context("look at the ledger\nhint: use the newer program"));
        }
    }
    Ok(())
}

/// Follows the chain of the ledger of a data folder, from its noted link.
///
/// # Errors
/// When the noted link cannot be read.
pub fn chain_check(folder: &DataFolder) -> anyhow::Result<ChainCheck> {
    let path = folder.ledger_link_file();
    Ok(ChainCheck::new(LinkFile::read(&RealFs, &path)?, &path))
}

fn format_of(fs: &dyn JournalFs, path: &Path) -> io::Result<FileFormat> {
    let length = fs.len(path)?;
    read_format(&mut fs.open_read(path)?, length)
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

#[cfg(test)]
mod tests;
