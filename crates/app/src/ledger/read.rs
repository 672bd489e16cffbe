//! Reading the ledger, beside the process that writes it.

use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::format::{Block, FILE_HEADER, read_block};

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
pub(crate) struct Mark {
    file: u64,
    offset: u64,
}

/// What came of reading.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReadOutcome {
    /// Where the next reading goes on.
    pub mark: Mark,
    /// Files that cannot be read to their end, and the bytes that are lost of each.
    pub damaged: Vec<(PathBuf, u64)>,
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
pub(crate) fn newest_mark(folder: &Path) -> io::Result<Mark> {
    let Some(last) = files(folder)?.pop() else { return Ok(Mark::default()) };
    Ok(Mark { file: last.number, offset: std::fs::metadata(&last.path)?.len() })
}

/// Reads the blocks from `from` on, up to `until` if that is given, in the order in which they
/// were written. The last file may be in the making: it ends before a block that is not whole.
///
/// # Errors
/// When a file cannot be read, or what `visit` returns.
pub(crate) fn read_blocks(
    folder: &Path,
    from: Mark,
    until: Option<Mark>,
    visit: &mut dyn FnMut(Block) -> io::Result<()>,
) -> io::Result<ReadOutcome> {
    let mut outcome = ReadOutcome { mark: from, damaged: Vec::new() };
    let files = files(folder)?;
    let last = files.last().map(|file| file.number);
    for file in files {
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
        let offset = read_file(opened, begin, end, visit)?;
        outcome.mark = Mark { file: file.number, offset };
        let length = std::fs::metadata(&file.path).map_or(offset, |metadata| metadata.len());
        if offset < length && Some(file.number) != last {
            outcome.damaged.push((file.path, length - offset));
        }
    }
    Ok(outcome)
}

/// Reads the blocks of a file from `begin` on. Returns where it ended.
fn read_file(
    file: File,
    begin: u64,
    end: Option<u64>,
    visit: &mut dyn FnMut(Block) -> io::Result<()>,
) -> io::Result<u64> {
    let length = file.metadata()?.len().min(end.unwrap_or(u64::MAX));
    let mut reader = BufReader::with_capacity(1 << 18, file);
    let mut header = [0; FILE_HEADER.len()];
    let mut offset = FILE_HEADER.len() as u64;
    if length < offset || reader.read_exact(&mut header).is_err() || header != FILE_HEADER {
        return Ok(begin.min(length));
    }
    if offset < begin {
        reader.seek(SeekFrom::Start(begin))?;
        offset = begin;
    }
    while offset < length
        && let Some((block, bytes)) = read_block(&mut reader, length - offset)?
    {
        offset += bytes;
        visit(block)?;
    }
    Ok(offset)
}
