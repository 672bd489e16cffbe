//! Encodes and decodes what stands in a journal file: names, file headers, record frames.
//!
//! Pure: bytes in, values out. The layout is specified in the documentation of the crate.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

/// Length of a file header in bytes.
pub(crate) const FILE_HEADER_LEN: usize = 60;
/// Length of what every version begins with, and all that version 1 has.
pub(crate) const COMMON_HEADER_LEN: usize = 40;
/// Length of a record frame (what precedes header and payload) in bytes.
pub(crate) const FRAME_LEN: usize = 32;
/// Length of the body of a footer in bytes.
pub(crate) const FOOTER_BODY_LEN: usize = 16;
/// The format version that this build writes, and the highest that it reads.
pub(crate) const FORMAT_VERSION: u32 = 2;
/// First bytes of every record frame; not ASCII, so that text never looks like one.
pub(crate) const FRAME_MAGIC: [u8; 4] = [0xf7, b'T', b'L', 0xa9];

/// No segment gets a higher number; a file with one is not ours.
pub(crate) const MAX_NUMBER: u64 = u64::MAX >> 2;
/// No record gets a higher sequence number, so sums of a position and a length never overflow.
pub(crate) const MAX_SEQUENCE: u64 = u64::MAX >> 1;
const SEGMENT_MAGIC: [u8; 8] = *b"TLSEGMNT";
const CARRY_MAGIC: [u8; 8] = *b"TLCARRY1";

/// What the journal stores: both parts are opaque to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordBytes {
    /// What the caller needs to know to decode the payload.
    pub header: Bytes,
    /// The raw bytes as received.
    pub payload: Bytes,
}

impl RecordBytes {
    /// Length of header and payload together, in bytes.
    #[must_use]
    pub fn body_len(&self) -> u64 {
        len_u64(self.header.len()).saturating_add(len_u64(self.payload.len()))
    }

    /// Bytes that the record takes in a file.
    #[must_use]
    pub fn stored_len(&self) -> u64 {
        self.body_len().saturating_add(len_u64(FRAME_LEN))
    }

    /// CRC32C of header and payload.
    pub(crate) fn body_crc(&self) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&self.header), &self.payload)
    }
}

/// Number of a segment. Ascending in time, never given twice within a journal folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentNumber(u64);

impl SegmentNumber {
    /// The segment with this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The plain number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for SegmentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Position of a record in the journal as a whole: strictly ascending in the order of appending,
/// also across segments and restarts. Not dense: it counts bytes, not records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(u64);

impl Sequence {
    /// The sequence number with this value.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The plain value.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The two kinds of journal files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    Segment,
    Carry,
}

impl FileKind {
    const fn magic(self) -> [u8; 8] {
        match self {
            Self::Segment => SEGMENT_MAGIC,
            Self::Carry => CARRY_MAGIC,
        }
    }

    const fn prefix(self) -> &'static str {
        match self {
            Self::Segment => "segment-",
            Self::Carry => "carry-",
        }
    }

    /// Path of file `number` of this kind in `dir`.
    pub(crate) fn path(self, dir: &Path, number: SegmentNumber) -> PathBuf {
        dir.join(format!("{}{:020}.journal", self.prefix(), number.get()))
    }

    /// Path under which a file is written before it takes its name.
    pub(crate) fn temporary_path(self, dir: &Path, number: SegmentNumber) -> PathBuf {
        dir.join(format!("{}{:020}.tmp", self.prefix(), number.get()))
    }

    /// The number in a file name of this kind, where it is one.
    pub(crate) fn parse_name(self, name: &OsStr) -> Option<SegmentNumber> {
        let digits = name.to_str()?.strip_prefix(self.prefix())?.strip_suffix(".journal")?;
        let canonical = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
        if !canonical {
            return None;
        }
        digits.parse().ok().filter(|number| *number <= MAX_NUMBER).map(SegmentNumber)
    }
}

/// Whether a name is one that [`FileKind::temporary_path`] gives.
pub(crate) fn is_temporary_name(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    name.ends_with(".tmp")
        && [FileKind::Segment, FileKind::Carry].iter().any(|kind| name.starts_with(kind.prefix()))
}

/// What stands at the begin of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileHeader {
    pub(crate) kind: FileKind,
    pub(crate) number: SegmentNumber,
    /// A record at offset `o` has the sequence number `base_sequence + o`.
    pub(crate) base_sequence: u64,
    /// No body in this file is longer.
    pub(crate) max_body_bytes: u32,
    /// Whether the file had another content before: behind the last record may be the rest of it.
    pub(crate) is_reused: bool,
    /// What a segment says of the one before it.
    pub(crate) predecessor: Option<Predecessor>,
}

/// The segment that took records before another one did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Predecessor {
    pub(crate) number: SegmentNumber,
    /// What is durable of it, in bytes, at the least: acknowledged records fill it up to here.
    pub(crate) end: u64,
}

/// Why bytes are no file header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    Damaged,
    Version(u32),
}

impl FileHeader {
    pub(crate) fn encode(&self) -> [u8; FILE_HEADER_LEN] {
        let mut out = [0; FILE_HEADER_LEN];
        put(&mut out, 0, &self.kind.magic());
        put(&mut out, 8, &FORMAT_VERSION.to_le_bytes());
        put(&mut out, 12, &self.max_body_bytes.to_le_bytes());
        put(&mut out, 16, &self.number.get().to_le_bytes());
        put(&mut out, 24, &self.base_sequence.to_le_bytes());
        put(&mut out, 32, &u32::from(self.is_reused).to_le_bytes());
        let crc = crc32c::crc32c(&out[..36]);
        put(&mut out, 36, &crc.to_le_bytes());
        // No segment has the number 0.
        let none = Predecessor { number: SegmentNumber::new(0), end: 0 };
        let predecessor = self.predecessor.unwrap_or(none);
        put(&mut out, 40, &predecessor.number.get().to_le_bytes());
        put(&mut out, 48, &predecessor.end.to_le_bytes());
        let crc = crc32c::crc32c(&out[..56]);
        put(&mut out, 56, &crc.to_le_bytes());
        out
    }

    /// The header that `bytes` begin with, and its length. `None` where the file ends within it:
    /// then it was never finished.
    pub(crate) fn decode(
        kind: FileKind,
        bytes: &[u8],
    ) -> Result<Option<(Self, usize)>, HeaderFault> {
        let Some(common) = bytes.first_chunk::<COMMON_HEADER_LEN>() else { return Ok(None) };
        let magic_and_crc = common.starts_with(&kind.magic())
            && u32_at(common, 36) == crc32c::crc32c(&common[..36]);
        if !magic_and_crc {
            return Err(HeaderFault::Damaged);
        }
        let header = Self {
            kind,
            number: SegmentNumber(u64_at(common, 16)),
            base_sequence: u64_at(common, 24),
            max_body_bytes: u32_at(common, 12),
            is_reused: u32_at(common, 32) == 1,
            predecessor: None,
        };
        match u32_at(common, 8) {
            1 => Ok(Some((header, COMMON_HEADER_LEN))),
            FORMAT_VERSION => {
                let Some(whole) = bytes.first_chunk::<FILE_HEADER_LEN>() else { return Ok(None) };
                if u32_at(whole, 56) != crc32c::crc32c(&whole[..56]) {
                    return Err(HeaderFault::Damaged);
                }
                let (number, end) = (SegmentNumber(u64_at(whole, 40)), u64_at(whole, 48));
                let predecessor = (number.get() != 0).then_some(Predecessor { number, end });
                Ok(Some((Self { predecessor, ..header }, FILE_HEADER_LEN)))
            }
            version => Err(HeaderFault::Version(version)),
        }
    }
}

/// What a record is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    Record,
    /// Last in a carry file.
    Footer,
}

/// What precedes the header and payload of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: FrameKind,
    pub(crate) header_bytes: u32,
    pub(crate) payload_bytes: u32,
    pub(crate) sequence: u64,
    pub(crate) body_crc: u32,
}

impl Frame {
    pub(crate) fn encode(&self) -> [u8; FRAME_LEN] {
        let kind: u32 = match self.kind {
            FrameKind::Record => 1,
            FrameKind::Footer => 2,
        };
        let mut out = [0; FRAME_LEN];
        put(&mut out, 0, &FRAME_MAGIC);
        put(&mut out, 4, &kind.to_le_bytes());
        put(&mut out, 8, &self.header_bytes.to_le_bytes());
        put(&mut out, 12, &self.payload_bytes.to_le_bytes());
        put(&mut out, 16, &self.sequence.to_le_bytes());
        put(&mut out, 24, &self.body_crc.to_le_bytes());
        let crc = crc32c::crc32c(&out[..28]);
        put(&mut out, 28, &crc.to_le_bytes());
        out
    }

    /// `None` unless magic, CRC, kind and the range of the sequence number are right. Lengths are
    /// still to be bounded.
    pub(crate) fn decode(bytes: &[u8; FRAME_LEN]) -> Option<Self> {
        if !bytes.starts_with(&FRAME_MAGIC) || u32_at(bytes, 28) != crc32c::crc32c(&bytes[..28]) {
            return None;
        }
        let kind = match u32_at(bytes, 4) {
            1 => FrameKind::Record,
            2 => FrameKind::Footer,
            _ => return None,
        };
        if MAX_SEQUENCE < u64_at(bytes, 16) {
            return None;
        }
        Some(Self {
            kind,
            header_bytes: u32_at(bytes, 8),
            payload_bytes: u32_at(bytes, 12),
            sequence: u64_at(bytes, 16),
            body_crc: u32_at(bytes, 24),
        })
    }

    /// Length of header and payload together, in bytes.
    pub(crate) fn body_len(&self) -> u64 {
        u64::from(self.header_bytes) + u64::from(self.payload_bytes)
    }
}

/// Frame of a record whose lengths are known to fit, with its sequence number.
pub(crate) fn frame_record(record: &RecordBytes, body_crc: u32, sequence: u64) -> Option<Frame> {
    Some(Frame {
        kind: FrameKind::Record,
        header_bytes: u32::try_from(record.header.len()).ok()?,
        payload_bytes: u32::try_from(record.payload.len()).ok()?,
        sequence,
        body_crc,
    })
}

/// What ends a carry file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    /// Records before the footer.
    pub(crate) records: u64,
    /// Sum of their bodies in bytes.
    pub(crate) body_bytes: u64,
}

impl Footer {
    /// Frame and body, for a file in which the footer has `sequence`.
    pub(crate) fn encode(&self, sequence: u64) -> [u8; FRAME_LEN + FOOTER_BODY_LEN] {
        let mut out = [0; FRAME_LEN + FOOTER_BODY_LEN];
        put(&mut out, FRAME_LEN, &self.records.to_le_bytes());
        put(&mut out, FRAME_LEN + 8, &self.body_bytes.to_le_bytes());
        let frame = Frame {
            kind: FrameKind::Footer,
            header_bytes: 0,
            payload_bytes: 16,
            sequence,
            body_crc: crc32c::crc32c(&out[FRAME_LEN..]),
        };
        put(&mut out, 0, &frame.encode());
        out
    }

    pub(crate) fn decode(body: &[u8]) -> Option<Self> {
        let body: &[u8; FOOTER_BODY_LEN] = body.try_into().ok()?;
        Some(Self { records: u64_at(body, 0), body_bytes: u64_at(body, 8) })
    }
}

/// A length in memory as a length on disk.
pub(crate) fn len_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

fn u32_at<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(value)
}

fn u64_at<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: each bit of a frame and of a file header is flipped in turn.
    /// Guarantees: no flipped one decodes.
    #[test]
    fn every_single_bit_flip_is_found() {
        let frame = Frame {
            kind: FrameKind::Record,
            header_bytes: 7,
            payload_bytes: 99,
            sequence: 1 << 40,
            body_crc: 0xdead_beef,
        };
        let header = FileHeader {
            kind: FileKind::Segment,
            number: SegmentNumber::new(12),
            base_sequence: 77,
            max_body_bytes: 1 << 20,
            is_reused: true,
            predecessor: Some(Predecessor { number: SegmentNumber::new(11), end: 4096 }),
        };
        assert_eq!(Frame::decode(&frame.encode()), Some(frame));
        let decoded = FileHeader::decode(FileKind::Segment, &header.encode());
        assert_eq!(decoded, Ok(Some((header, FILE_HEADER_LEN))));
        for bit in 0..FRAME_LEN * 8 {
            let mut bytes = frame.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Frame::decode(&bytes), None, "bit {bit}");
        }
        for bit in 0..FILE_HEADER_LEN * 8 {
            let mut bytes = header.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let decoded = FileHeader::decode(FileKind::Segment, &bytes);
            assert_eq!(decoded, Err(HeaderFault::Damaged), "bit {bit}");
        }
    }

    /// Scenario: a header of version 1; headers of version 2 that end early, and one of version 3.
    /// Guarantees: the first is read; a part is no header; a later version is named as such by its
    /// first bytes, which no version changes.
    #[test]
    fn versions_are_told_by_the_first_bytes() {
        let header = FileHeader {
            kind: FileKind::Segment,
            number: SegmentNumber::new(12),
            base_sequence: 77,
            max_body_bytes: 1 << 20,
            is_reused: false,
            predecessor: Some(Predecessor { number: SegmentNumber::new(11), end: 4096 }),
        };
        let with_version = |version: u32| {
            let mut bytes = header.encode();
            bytes[8..12].copy_from_slice(&version.to_le_bytes());
            let crc = crc32c::crc32c(&bytes[..36]);
            bytes[36..40].copy_from_slice(&crc.to_le_bytes());
            bytes
        };
        let decode = |bytes: &[u8]| FileHeader::decode(FileKind::Segment, bytes);
        let first = FileHeader { predecessor: None, ..header };
        assert_eq!(decode(&with_version(1)[..40]), Ok(Some((first, 40))));
        for len in 0..FILE_HEADER_LEN {
            assert_eq!(decode(&header.encode()[..len]), Ok(None), "length {len}");
        }
        assert_eq!(decode(&with_version(3)), Err(HeaderFault::Version(3)));
        assert_eq!(decode(&with_version(3)[..40]), Err(HeaderFault::Version(3)));
    }

    /// Scenario: names as the journal writes them, and near misses.
    /// Guarantees: only canonical names have a number.
    #[test]
    fn only_canonical_names_have_a_number() {
        let name = |text: &str| FileKind::Segment.parse_name(OsStr::new(text));
        let number = SegmentNumber::new(42);
        let path = FileKind::Segment.path(Path::new("j"), number);
        assert_eq!(path.file_name().and_then(|n| FileKind::Segment.parse_name(n)), Some(number));
        for bad in [
            "segment-42.journal",
            "segment-+0000000000000000042.journal",
            "segment-00000000000000000042.tmp",
            "carry-00000000000000000042.journal",
            "segment-18446744073709551615.journal",
            "segment-99999999999999999999.journal",
        ] {
            assert_eq!(name(bad), None, "{bad}");
        }
    }
}
