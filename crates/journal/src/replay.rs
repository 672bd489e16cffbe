//! Reads journal files back, record by record, past whatever damage lies between.

use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::iter::FusedIterator;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::error::JournalError;
use crate::fs::{JournalFs, JournalRead, RealFs};
use crate::segment::{
    FILE_HEADER_LEN, FORMAT_VERSION, FRAME_LEN, FRAME_MAGIC, FileHeader, FileKind, Footer, Frame,
    FrameKind, HeaderFault, RecordBytes, SegmentNumber, Sequence, len_u64,
};

/// How much is read ahead, and searched at once after damage.
const READ_AHEAD_BYTES: usize = 256 << 10;

/// Bytes of a journal file that are no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// Where the damage begins, in bytes from the begin of the file.
    pub offset: u64,
    /// How many bytes were cut or skipped.
    pub bytes: u64,
    /// What it is.
    pub kind: DamageKind,
}

/// What kind of damage was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamageKind {
    /// The file ends in an unfinished write. Usual after a crash; nothing acknowledged was in it,
    /// unless the device lost or altered synced bytes.
    TornTail,
    /// The file ends in zeros where a length was durable before its bytes. As `TornTail`.
    ZeroTail,
    /// Unreadable bytes with readable records behind them: the device altered synced bytes, or a
    /// group that was being written when the machine stopped reached the device in part.
    CorruptMiddle,
    /// A segment ends, or its records do, before the position up to which the next one says that it
    /// was filled: the device lost or altered acknowledged records.
    CorruptEnd,
    /// A carry file without its footer, or with fewer records than that announces.
    IncompleteCarry,
}

/// Opens segment `segment` of the journal in `dir` for reading.
///
/// Reads one record at a time: memory is bounded by the longest record, not by the file.
///
/// # Errors
/// When the file cannot be read, or is of another format version or number.
pub fn read_segment(dir: &Path, segment: SegmentNumber) -> Result<RecordReader, JournalError> {
    RecordReader::open_sealed(&RealFs, dir, segment)
}

/// Opens the carry file of `segment` of the journal in `dir` for reading. As [`read_segment`].
///
/// # Errors
/// When the file cannot be read, or is of another format version or number.
pub fn read_carry(dir: &Path, segment: SegmentNumber) -> Result<RecordReader, JournalError> {
    RecordReader::open(&RealFs, dir, FileKind::Carry, segment)
}

/// The records of one file, in the order in which they were appended.
///
/// Damage does not end the iteration: it is logged, noted in [`RecordReader::damage`] and
/// skipped. An `Err` means that the device could not be read, and ends it.
pub struct RecordReader {
    kind: FileKind,
    path: PathBuf,
    file: BufReader<Box<dyn JournalRead>>,
    len: u64,
    position: u64,
    /// `None` while the file header is unreadable and no record was found yet.
    base_sequence: Option<u64>,
    max_body_bytes: u64,
    header_readable: bool,
    is_reused: bool,
    /// Up to where acknowledged records fill the file, as far as a later one says so.
    stated_end: u64,
    records: u64,
    body_bytes: u64,
    last_sequence: Option<Sequence>,
    damage: Vec<Damage>,
    tail: Option<u64>,
    done: bool,
}

impl std::fmt::Debug for RecordReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordReader")
            .field("path", &self.path)
            .field("position", &self.position)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// What stands at an offset.
enum Found {
    Record(Frame, Vec<u8>),
    /// The frame is whole and its body is not; `end` is where the body should end.
    BadBody {
        end: u64,
    },
    /// No frame.
    Nothing,
}

impl RecordReader {
    pub(crate) fn open(
        fs: &dyn JournalFs,
        dir: &Path,
        kind: FileKind,
        number: SegmentNumber,
    ) -> Result<Self, JournalError> {
        let path = kind.path(dir, number);
        let fail = |source| JournalError::io("open", &path, source);
        let len = fs.len(&path).map_err(fail)?;
        let file = fs.open_read(&path).map_err(fail)?;
        let mut reader = Self {
            kind,
            file: BufReader::with_capacity(READ_AHEAD_BYTES, file),
            len,
            position: 0,
            base_sequence: None,
            max_body_bytes: u64::from(u32::MAX),
            header_readable: false,
            is_reused: false,
            stated_end: 0,
            records: 0,
            body_bytes: 0,
            last_sequence: None,
            damage: Vec::new(),
            tail: None,
            done: false,
            path,
        };
        reader.read_header(number)?;
        Ok(reader)
    }

    /// Opens a segment that others followed, and heeds what they say of its end.
    pub(crate) fn open_sealed(
        fs: &dyn JournalFs,
        dir: &Path,
        number: SegmentNumber,
    ) -> Result<Self, JournalError> {
        let mut reader = Self::open(fs, dir, FileKind::Segment, number)?;
        reader.stated_end = stated_end(fs, dir, number)?;
        Ok(reader)
    }

    /// The damage met so far; whole once the iteration has ended.
    #[must_use]
    pub fn damage(&self) -> &[Damage] {
        &self.damage
    }

    /// Sequence number of the record returned last. Without meaning in a carry file.
    #[must_use]
    pub const fn last_sequence(&self) -> Option<Sequence> {
        self.last_sequence
    }

    /// Length of the file, in bytes, when it was opened.
    #[must_use]
    pub const fn file_len(&self) -> u64 {
        self.len
    }

    /// Where the records end once the iteration has: what is behind is what an unfinished write
    /// left, or what the file held before it became this segment.
    pub(crate) fn end_of_records(&self) -> u64 {
        self.tail.unwrap_or(self.len)
    }

    /// Sequence number of offset 0, as far as known: from the file header, or else a record.
    pub(crate) const fn base_sequence(&self) -> Option<u64> {
        self.base_sequence
    }

    pub(crate) const fn header_readable(&self) -> bool {
        self.header_readable
    }

    fn read_header(&mut self, number: SegmentNumber) -> Result<(), JournalError> {
        let mut bytes = [0; FILE_HEADER_LEN];
        let within = usize::try_from(self.len).unwrap_or(usize::MAX).min(FILE_HEADER_LEN);
        let bytes = &mut bytes[..within];
        self.read_exact(bytes)?;
        match FileHeader::decode(self.kind, bytes) {
            Ok(Some((header, _))) if header.number != number => {
                Err(JournalError::Mislabelled { path: self.path.clone(), found: header.number })
            }
            Ok(Some((header, header_len))) => {
                self.base_sequence = Some(header.base_sequence);
                self.max_body_bytes = u64::from(header.max_body_bytes);
                self.header_readable = true;
                self.is_reused = header.is_reused;
                self.seek(len_u64(header_len))
            }
            // Created and never finished: such a file never took a record.
            Ok(None) => self.seek(0),
            Err(HeaderFault::Version(found)) => Err(JournalError::UnsupportedVersion {
                path: self.path.clone(),
                found,
                supported: FORMAT_VERSION,
            }),
            // Position 0 is no frame, so the search for the first record starts there.
            Err(HeaderFault::Damaged) => self.seek(0),
        }
    }

    fn advance(&mut self) -> Result<Option<RecordBytes>, JournalError> {
        while !self.done {
            if self.position == self.len {
                self.finish_at_end();
                break;
            }
            let offset = self.position;
            let (frame, body) = match self.read_at_position()? {
                Found::Record(frame, body) => (frame, body),
                Found::BadBody { end } if self.len < end => {
                    self.end_in_tail(offset, false)?;
                    break;
                }
                Found::BadBody { end } => {
                    if !self.resync(offset, end)? {
                        self.end_in_tail(offset, false)?;
                    }
                    continue;
                }
                Found::Nothing => {
                    if self.resync(offset, offset + 1)? {
                        continue;
                    }
                    self.end_in_tail(offset, self.is_reused)?;
                    continue;
                }
            };
            self.base_sequence = Some(frame.sequence - offset);
            match frame.kind {
                FrameKind::Record => return Ok(Some(self.take_record(&frame, body))),
                FrameKind::Footer => self.finish_with_footer(&body),
            }
        }
        Ok(None)
    }

    fn take_record(&mut self, frame: &Frame, body: Vec<u8>) -> RecordBytes {
        self.records += 1;
        self.body_bytes += frame.body_len();
        self.last_sequence = Some(Sequence::new(frame.sequence));
        let mut payload = Bytes::from(body);
        let header_len = usize::try_from(frame.header_bytes).unwrap_or(usize::MAX);
        let header = payload.split_to(header_len.min(payload.len()));
        RecordBytes { header, payload }
    }

    /// Reads what stands at `position`, and moves behind it if it is a whole record.
    fn read_at_position(&mut self) -> Result<Found, JournalError> {
        let offset = self.position;
        if self.len - offset < len_u64(FRAME_LEN) {
            return Ok(Found::Nothing);
        }
        let mut bytes = [0; FRAME_LEN];
        self.read_exact(&mut bytes)?;
        let Some(frame) = self.accept_frame(&bytes, offset) else { return Ok(Found::Nothing) };
        let end = offset + len_u64(FRAME_LEN) + frame.body_len();
        if self.len < end {
            return Ok(Found::BadBody { end });
        }
        let Ok(body_len) = usize::try_from(frame.body_len()) else { return Ok(Found::Nothing) };
        let mut body = vec![0; body_len];
        self.read_exact(&mut body)?;
        if crc32c::crc32c(&body) != frame.body_crc {
            return Ok(Found::BadBody { end });
        }
        self.position = end;
        Ok(Found::Record(frame, body))
    }

    /// The frame in `bytes`, if it is one that the journal wrote at `offset` of this very file.
    fn accept_frame(&self, bytes: &[u8; FRAME_LEN], offset: u64) -> Option<Frame> {
        let frame = Frame::decode(bytes)?;
        let base = frame.sequence.checked_sub(offset)?;
        let here = self.base_sequence.is_none_or(|known| known == base);
        let allowed = frame.kind == FrameKind::Record || self.kind == FileKind::Carry;
        (here && allowed && frame.body_len() <= self.max_body_bytes).then_some(frame)
    }

    /// Finds the next whole record from `search_from` on and notes the gap from `bad` to it; false if
    /// there is none.
    fn resync(&mut self, bad: u64, search_from: u64) -> Result<bool, JournalError> {
        let mut from = search_from;
        while let Some(candidate) = self.find_frame(from)? {
            self.seek(candidate)?;
            match self.read_at_position()? {
                Found::Record(..) => {
                    self.seek(candidate)?;
                    self.note(bad, candidate - bad, DamageKind::CorruptMiddle);
                    return Ok(true);
                }
                Found::BadBody { end } => from = end.min(self.len),
                Found::Nothing => from = candidate + 1,
            }
        }
        Ok(false)
    }

    /// Offset of the first acceptable frame at or behind `from`.
    fn find_frame(&mut self, from: u64) -> Result<Option<u64>, JournalError> {
        let mut window = vec![0; READ_AHEAD_BYTES];
        let mut start = from;
        while start < self.len && len_u64(FRAME_LEN) <= self.len - start {
            let remaining = usize::try_from(self.len - start).unwrap_or(usize::MAX);
            let filled = remaining.min(window.len());
            let bytes = &mut window[..filled];
            self.seek(start)?;
            self.read_exact(bytes)?;
            for index in memchr::memmem::find_iter(bytes, &FRAME_MAGIC) {
                let Some(frame) = bytes.get(index..).and_then(<[u8]>::first_chunk) else { break };
                let offset = start + len_u64(index);
                if self.accept_frame(frame, offset).is_some() {
                    return Ok(Some(offset));
                }
            }
            start += len_u64(filled - FRAME_LEN + 1);
        }
        Ok(None)
    }

    /// Nothing behind `offset` is a record. What lies before the stated end is damage; behind that,
    /// a zeroed tail is told from a torn one, unless it is what the file held before.
    fn end_in_tail(&mut self, offset: u64, held_before: bool) -> Result<(), JournalError> {
        self.done = true;
        let held_before = held_before || (self.is_reused && offset < self.stated_end);
        let offset = self.note_missing_end(offset).min(self.len);
        self.tail = Some(offset);
        if held_before || offset == self.len {
            return Ok(());
        }
        let kind = match (self.kind, self.is_zero_from(offset)?) {
            (FileKind::Carry, _) => DamageKind::IncompleteCarry,
            (FileKind::Segment, true) => DamageKind::ZeroTail,
            (FileKind::Segment, false) => DamageKind::TornTail,
        };
        self.note(offset, self.len - offset, kind);
        Ok(())
    }

    /// Notes what the stated end says is missing behind `offset`, where the records end. Returns
    /// where the file is explained up to.
    fn note_missing_end(&mut self, offset: u64) -> u64 {
        if self.stated_end <= offset {
            return offset;
        }
        self.note(offset, self.stated_end - offset, DamageKind::CorruptEnd);
        self.stated_end
    }

    fn is_zero_from(&mut self, offset: u64) -> Result<bool, JournalError> {
        self.seek(offset)?;
        let mut window = vec![0; READ_AHEAD_BYTES];
        let mut left = self.len - offset;
        while 0 < left {
            let filled = usize::try_from(left).unwrap_or(usize::MAX).min(window.len());
            let bytes = &mut window[..filled];
            self.read_exact(bytes)?;
            if bytes.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            left -= len_u64(filled);
        }
        Ok(true)
    }

    fn finish_at_end(&mut self) {
        match self.kind {
            FileKind::Carry => self.note(self.len, 0, DamageKind::IncompleteCarry),
            FileKind::Segment => drop(self.note_missing_end(self.len)),
        }
        self.done = true;
    }

    fn finish_with_footer(&mut self, body: &[u8]) {
        let expected = Footer { records: self.records, body_bytes: self.body_bytes };
        let behind = self.len - self.position;
        if Footer::decode(body) != Some(expected) || behind != 0 {
            self.note(self.position, behind, DamageKind::IncompleteCarry);
        }
        self.done = true;
    }

    fn note(&mut self, offset: u64, bytes: u64, kind: DamageKind) {
        let path = self.path.clone();
        tracing::warn!(path = %path.display(), offset, bytes, ?kind, "damage in journal file");
        self.damage.push(Damage { path, offset, bytes, kind });
    }

    fn seek(&mut self, offset: u64) -> Result<(), JournalError> {
        let sought = self.file.seek(SeekFrom::Start(offset));
        self.position = sought.map_err(|source| JournalError::io("seek in", &self.path, source))?;
        Ok(())
    }

    fn read_exact(&mut self, out: &mut [u8]) -> Result<(), JournalError> {
        let read = self.file.read_exact(out);
        read.map_err(|source| JournalError::io("read", &self.path, source))
    }
}

impl Iterator for RecordReader {
    type Item = Result<RecordBytes, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance();
        if next.is_err() {
            self.done = true;
        }
        next.transpose()
    }
}

impl FusedIterator for RecordReader {}

/// Up to where `segment` was filled when the next one began, by the word of the files after it; 0
/// where none says so. Of several, such as when a segment could not be made at the first attempt,
/// the furthest counts: each was right when it was written.
fn stated_end(fs: &dyn JournalFs, dir: &Path, segment: SegmentNumber) -> Result<u64, JournalError> {
    let listed = fs.list(dir).map_err(|error| JournalError::io("list", dir, error))?;
    let mut later: Vec<SegmentNumber> = listed
        .iter()
        .filter_map(|file| FileKind::Segment.parse_name(&file.name))
        .filter(|number| segment < *number)
        .collect();
    later.sort_unstable();
    let mut furthest = 0;
    for number in later {
        let header = read_header(fs, &FileKind::Segment.path(dir, number))?;
        match header.and_then(|header| header.predecessor) {
            Some(predecessor) if predecessor.number == segment => {
                furthest = furthest.max(predecessor.end);
            }
            Some(predecessor) if segment < predecessor.number => break,
            _ => {}
        }
    }
    Ok(furthest)
}

/// The header of a segment; `None` where it cannot be read, or the file is gone.
pub(crate) fn read_header(
    fs: &dyn JournalFs,
    path: &Path,
) -> Result<Option<FileHeader>, JournalError> {
    let mut bytes = Vec::with_capacity(FILE_HEADER_LEN);
    let read = fs
        .open_read(path)
        .and_then(|file| file.take(len_u64(FILE_HEADER_LEN)).read_to_end(&mut bytes));
    match read {
        // Deleted since the folder was listed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|error| JournalError::io("read", path, error))?,
    };
    let header = FileHeader::decode(FileKind::Segment, &bytes).ok().flatten();
    Ok(header.map(|(header, _)| header))
}

/// Whether a carry file ends in a footer that fits its length. Reads its two ends only.
///
/// A carry takes its name after it is synced, so this finds what a crash can do to one; bytes
/// altered later are found when it is read.
pub(crate) fn carry_is_complete(
    fs: &dyn JournalFs,
    dir: &Path,
    number: SegmentNumber,
) -> Result<bool, JournalError> {
    let mut reader = RecordReader::open(fs, dir, FileKind::Carry, number)?;
    let footer_len = len_u64(FRAME_LEN + crate::segment::FOOTER_BODY_LEN);
    if !reader.header_readable || reader.len < reader.position + footer_len {
        return Ok(false);
    }
    reader.seek(reader.len - footer_len)?;
    let found = reader.read_at_position()?;
    Ok(matches!(found, Found::Record(Frame { kind: FrameKind::Footer, .. }, _)))
}
