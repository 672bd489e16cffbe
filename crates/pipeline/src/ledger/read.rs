//! Reading the ledger, beside the process that writes it.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::format::{Block, FILE_HEADER_BYTES, FileFormat};
use super::scan::{Part, Scan, read_format};

/// A file of the ledger, by its name.
#[derive(Clone, Debug)]
pub(super) struct LedgerFile {
    pub(super) number: u64,
    /// Days since the Unix epoch.
    pub(super) day: u64,
    pub(super) path: PathBuf,
}

impl LedgerFile {
    /// Those among `paths`, in the order in which they were written.
    pub(super) fn all(paths: impl IntoIterator<Item = PathBuf>) -> Vec<Self> {
        let file = |path: PathBuf| {
            let (number, day) = parse_name(path.file_name()?.to_str()?)?;
            Some(Self { number, day, path })
        };
        let mut files: Vec<Self> = paths.into_iter().filter_map(file).collect();
        files.sort_by_key(|file| file.number);
        files
    }
}

/// How far the ledger was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    file: u64,
    offset: u64,
}

/// What is found in a ledger, in order.
#[derive(Debug)]
pub enum Seen {
    /// A block, and where it begins.
    Block(u64, Box<Block>),
    /// The header of a file is not one.
    DamagedHeader,
    /// Bytes that are no block.
    Unreadable(UnreadableBytes),
}

/// Bytes of a file that are no block.
#[derive(Debug)]
pub struct UnreadableBytes {
    /// Where they are in the file.
    pub bytes: Range<u64>,
    /// Nothing of the file is behind them.
    pub is_end: bool,
    /// The file is of a format whose entries are chained.
    pub is_chained: bool,
}

/// The name of a file.
pub(super) fn file_name(number: u64, day: u64) -> String {
    let days = i64::try_from(day).unwrap_or(i64::MAX);
    let date = chrono::DateTime::from_timestamp(days.saturating_mul(86_400), 0).unwrap_or_default();
    format!("{number:010}-{}.ledger", date.format("%Y%m%d"))
}

fn parse_name(name: &str) -> Option<(u64, u64)> {
    let (number, date) = name.strip_suffix(".ledger")?.split_once('-')?;
    let date = chrono::NaiveDate::parse_from_str(date, "%Y%m%d").ok()?;
    let day = date.signed_duration_since(chrono::NaiveDate::default()).num_days();
    Some((number.parse().ok()?, u64::try_from(day).ok()?))
}

/// The files in the order in which they were written; none when there is no folder.
pub(super) fn files(folder: &Path) -> io::Result<Vec<LedgerFile>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    Ok(LedgerFile::all(paths))
}

/// The end of the ledger as it is.
///
/// # Errors
/// When its folder cannot be read.
pub fn newest_mark(folder: &Path) -> io::Result<Mark> {
    let Some(last) = files(folder)?.pop() else { return Ok(Mark::default()) };
    Ok(Mark { file: last.number, offset: std::fs::metadata(&last.path)?.len() })
}

/// Reads what is there from `from` on, up to `until` if that is given, in the order in which it was
/// written; damage hides nothing that is behind it. The last file may be in the making: it ends
/// with bytes that are no block. Returns where the next reading goes on.
///
/// # Errors
/// When a file cannot be read or is a newer program's, or what `visit` returns.
pub fn read_ledger(
    folder: &Path,
    from: Mark,
    until: Option<Mark>,
    visit: &mut dyn FnMut(&Path, Seen) -> io::Result<()>,
) -> io::Result<Mark> {
    let mut mark = from;
    for file in files(folder)? {
        let is_past = until.is_some_and(|until| until.file < file.number);
        if file.number < from.file || is_past {
            continue;
        }
        let opened = match File::open(&file.path) {
            // Its retention ended meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?,
        };
        let begin = if file.number == from.file { from.offset } else { 0 };
        let end = until.filter(|until| until.file == file.number).map(|until| until.offset);
        let offset = read_file(&file.path, opened, begin, end, visit)?;
        mark = Mark { file: file.number, offset };
    }
    Ok(mark)
}

/// The blocks alone.
///
/// # Errors
/// As [`read_ledger`].
pub fn read_blocks(
    folder: &Path,
    from: Mark,
    until: Option<Mark>,
    visit: &mut dyn FnMut(Block) -> io::Result<()>,
) -> io::Result<Mark> {
    read_ledger(folder, from, until, &mut |_, seen| match seen {
        Seen::Block(_, block) => visit(*block),
        Seen::DamagedHeader | Seen::Unreadable(_) => Ok(()),
    })
}

/// Reads a file from `begin` on. Returns where the last block ended.
fn read_file(
    path: &Path,
    mut file: File,
    begin: u64,
    end: Option<u64>,
    visit: &mut dyn FnMut(&Path, Seen) -> io::Result<()>,
) -> io::Result<u64> {
    let length = file.metadata()?.len().min(end.unwrap_or(u64::MAX));
    let format = read_format(&mut file, length)?;
    let is_chained = format != FileFormat::Unchained;
    match format {
        FileFormat::Unchained | FileFormat::Chained => {}
        // A process that begins a file may not have come to its header.
        FileFormat::Damaged if length < FILE_HEADER_BYTES => {
            let bytes = 0..length;
            visit(path, Seen::Unreadable(UnreadableBytes { bytes, is_end: true, is_chained }))?;
            return Ok(0);
        }
        FileFormat::Damaged if begin < FILE_HEADER_BYTES => visit(path, Seen::DamagedHeader)?,
        FileFormat::Damaged => {}
        FileFormat::Newer(version) => return Err(newer(path, version)),
    }
    let mut good = begin.max(FILE_HEADER_BYTES);
    let mut scan = Scan::new(file, good, length)?;
    while let Some(part) = scan.next_part()? {
        match part {
            Part::Block(offset, block) => {
                good = scan.offset;
                visit(path, Seen::Block(offset, block))?;
            }
            Part::Unreadable(bytes) => {
                let is_end = bytes.end == length;
                visit(path, Seen::Unreadable(UnreadableBytes { bytes, is_end, is_chained }))?;
            }
        }
    }
    Ok(good)
}

/// The fault of a file that a newer program wrote.
pub(super) fn newer(path: &Path, version: u32) -> io::Error {
    let message = format!("`{}` has format {version}: a newer program wrote it", path.display());
    io::Error::new(io::ErrorKind::Unsupported, message)
}
