//! The ledger's format. All integers are little endian, `v` is an unsigned LEB128 number, CRC is
//! CRC32C.
//!
//! A file is the 8 bytes `TLLEDGER`, the format version in 4 bytes, the CRC of these 12 bytes, and
//! blocks without gaps. An entry is one block, or several when it is long.
//!
//! | block: offset | bytes | |
//! |---|---|---|
//! | 0 | 4 | `TLB2` |
//! | 4 | 4 | length of the body |
//! | 8 | 16 | id of the journal |
//! | 24 | 8 | number of the segment through which it tells |
//! | 32 | 4 | bit 0: not the first block of its entry; bit 1: the chain begins anew here, since the link before was not to be found |
//! | 36 | 8 | ordinal: place in the chain, from 1 |
//! | 44 | 16 | hash of the block before, zeros for the first one |
//! | 60 | 4 | CRC of the 56 bytes from offset 4 on, and of the body |
//! | 64 | | body |
//!
//! The hash of a block is the first 16 bytes of the BLAKE3 hash of all its bytes. A block's
//! **link** is its ordinal and its hash.
//!
//! The body: `v` cells; each is hour since the Unix epoch `v`, way in (1 byte), table and
//! experiment, each as length `v` and text. Then `v` traces, in ascending order; each is its id in
//! 16 bytes, `v` sayings, and these: `v` with the kind in the lowest two bits and the cell above.
//!
//! | kind | follows |
//! |---|---|
//! | 0: spans | how many were sent `v`, how many are different `v`, the fingerprints of these, ascending, 8 bytes each |
//! | 1: `start_trace` | |
//! | 2: deleted by a client | |
//! | 3: changed by a client | what is changed in 1 byte: 1 a tag, 2 an assessment, 3 a link to a run; 1 byte: 1 it is there, 0 it is not; the hash of its key or id in 8 bytes, and that of its value in 8 bytes, zero when it has none |
//!
//! # Format 1
//!
//! Has zeros in the place of a file's CRC. Its blocks begin with `TLBK`; in the place of ordinal and
//! hash the CRC follows at once, of the 32 bytes from offset 4 on and of the body. It has no kind 3.
//! Such files are read, not written, and not chained.

use std::io;

use tracelake_decode::RecordKind;
use tracelake_model::{ExperimentId, TableName, TraceId};
use uuid::Uuid;

/// Bytes of a file's header.
pub(super) const FILE_HEADER_BYTES: u64 = 16;

/// The version that is written.
const FORMAT: u32 = 2;

const FILE_MAGIC: [u8; 8] = *b"TLLEDGER";
const CHAINED_MAGIC: [u8; 4] = *b"TLB2";
const CHAINED_HEADER_BYTES: usize = 64;
const UNCHAINED_MAGIC: [u8; 4] = *b"TLBK";
const UNCHAINED_HEADER_BYTES: usize = 40;

/// In a block's flags: an entry began before it.
const CONTINUES: u32 = 1;

/// In a block's flags: the chain begins anew with it.
const BEGINS_ANEW: u32 = 2;

/// Bytes of a body after which the next trace goes into another block.
const BLOCK_BYTES: usize = 4 << 20;

/// How spans or facts came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Way {
    /// OTLP as protobuf, over HTTP, gRPC or from a file.
    OtlpProtobuf,
    /// OTLP as JSON.
    OtlpJson,
    /// MLflow's `traces.json`.
    MlflowTracesJson,
    /// MLflow's `start_trace`.
    MlflowStartTrace,
    /// A client's later changes.
    Changes,
}

impl Way {
    /// The way of a record that a client sent; `None` for what the journal carries over.
    pub(super) const fn of(kind: RecordKind) -> Option<Self> {
        match kind {
            RecordKind::OtlpProtobuf => Some(Self::OtlpProtobuf),
            RecordKind::OtlpJson => Some(Self::OtlpJson),
            RecordKind::MlflowTracesJson => Some(Self::MlflowTracesJson),
            RecordKind::MlflowStartTrace => Some(Self::MlflowStartTrace),
            RecordKind::TraceChanges => Some(Self::Changes),
            RecordKind::CarriedTrace | RecordKind::CarriedUnnamed | RecordKind::CarriedWords => {
                None
            }
        }
    }

    /// The word for it in every report.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OtlpProtobuf => "otlp_protobuf",
            Self::OtlpJson => "otlp_json",
            Self::MlflowTracesJson => "mlflow_traces_json",
            Self::MlflowStartTrace => "mlflow_start_trace",
            Self::Changes => "changes",
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::OtlpProtobuf => 1,
            Self::OtlpJson => 2,
            Self::MlflowTracesJson => 3,
            Self::MlflowStartTrace => 4,
            Self::Changes => 5,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        use Way::{Changes, MlflowStartTrace, MlflowTracesJson, OtlpJson, OtlpProtobuf};
        [OtlpProtobuf, OtlpJson, MlflowTracesJson, MlflowStartTrace, Changes]
            .into_iter()
            .find(|way| way.number() == number)
    }
}

/// Where and when something came in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cell {
    /// Table that it came for.
    pub table: TableName,
    /// Experiment that it came for.
    pub experiment_id: ExperimentId,
    /// Hour of arrival since the Unix epoch.
    pub hour: u64,
    /// How.
    pub way: Way,
}

/// What was said of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Spans came.
    Spans {
        /// Index of the cell.
        cell: u32,
        /// How many, copies counted.
        sent: u64,
        /// The different ones, ascending.
        fingerprints: Vec<u64>,
    },
    /// Its `start_trace` came.
    Started {
        /// Index of the cell.
        cell: u32,
    },
    /// A client deleted it: what came before is void.
    Deleted {
        /// Index of the cell.
        cell: u32,
    },
    /// A client changed something of it. Of one subject the last one holds.
    Changed {
        /// Index of the cell.
        cell: u32,
        /// What.
        subject: Subject,
        /// The hash of its value; `None` when it is not there any more.
        value: Option<u64>,
    },
}

/// What of a trace a client changed beside its spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A tag, by the hash of its key.
    Tag(u64),
    /// An assessment, by the hash of its id.
    Assessment(u64),
    /// A link to a run, by the hash of the run's id.
    Run(u64),
}

impl Subject {
    const fn parts(self) -> (u8, u64) {
        match self {
            Self::Tag(key) => (1, key),
            Self::Assessment(id) => (2, id),
            Self::Run(id) => (3, id),
        }
    }

    const fn from_parts(kind: u8, hash: u64) -> Option<Self> {
        match kind {
            1 => Some(Self::Tag(hash)),
            2 => Some(Self::Assessment(hash)),
            3 => Some(Self::Run(hash)),
            _ => None,
        }
    }
}

/// Place in the chain and hash of a block; the default is that before the first one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Link {
    /// From 1.
    pub ordinal: u64,
    /// Of all its bytes.
    pub hash: [u8; 16],
}

/// How a block stands in the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linked {
    /// Its own.
    pub link: Link,
    /// That of the block that was the newest when it was written.
    pub before: Link,
    /// The newest link was not to be found then.
    pub begins_anew: bool,
}

/// A part of an entry.
#[derive(Clone, Debug)]
pub struct Block {
    /// The journal whose records it tells of.
    pub journal: Uuid,
    /// Last segment that it tells of.
    pub through: u64,
    /// Whether an entry begins with it.
    pub is_first: bool,
    /// `None` in format 1.
    pub linked: Option<Linked>,
    /// Where what it says belongs: its sayings name their places here.
    pub cells: Vec<Cell>,
    /// By trace, in the order in which it was said.
    pub traces: Vec<(TraceId, Vec<Said>)>,
}

/// What a file's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileFormat {
    /// Blocks are not chained.
    Unchained,
    Chained,
    /// A later program wrote it.
    Newer(u32),
    Damaged,
}

/// What every file begins with.
pub(super) fn file_header() -> [u8; 16] {
    let mut header = [0; 16];
    header[..8].copy_from_slice(&FILE_MAGIC);
    header[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    let crc = crc32c::crc32c(&header[..12]);
    header[12..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// The format by a file's header.
pub(super) fn file_format(header: [u8; 16]) -> FileFormat {
    let mut fields = Cursor(&header);
    let magic: Option<[u8; 8]> = fields.array();
    let version = fields.array().map(u32::from_le_bytes).unwrap_or_default();
    let crc = fields.array().map(u32::from_le_bytes).unwrap_or_default();
    let is_whole = crc == crc32c::crc32c(&header[..12]);
    match version {
        _ if magic != Some(FILE_MAGIC) => FileFormat::Damaged,
        1 if crc == 0 => FileFormat::Unchained,
        FORMAT if is_whole => FileFormat::Chained,
        version if is_whole && FORMAT < version => FileFormat::Newer(version),
        _ => FileFormat::Damaged,
    }
}

/// An entry to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub journal: Uuid,
    pub through: u64,
    pub begins_anew: bool,
    pub cells: &'a [Cell],
    pub traces: &'a [(TraceId, Vec<Said>)],
}

/// An entry as blocks behind the one that has the link `before`, and the link of the last of them.
pub(super) fn encode_blocks(entry: Entry<'_>, before: Link) -> (Vec<u8>, Link) {
    let mut cell_part = Vec::new();
    put_varint(&mut cell_part, entry.cells.len() as u64);
    for cell in entry.cells {
        put_varint(&mut cell_part, cell.hour);
        cell_part.push(cell.way.number());
        for text in [cell.table.to_string().as_str(), cell.experiment_id.as_str()] {
            put_varint(&mut cell_part, text.len() as u64);
            cell_part.extend_from_slice(text.as_bytes());
        }
    }
    let mut bytes = Vec::new();
    let mut newest = before;
    let mut rest = entry.traces;
    while !rest.is_empty() {
        let mut part = Vec::new();
        let mut count = 0_usize;
        for (trace_id, said) in rest {
            if BLOCK_BYTES < part.len() {
                break;
            }
            put_trace(&mut part, *trace_id, said);
            count += 1;
        }
        let mut body = cell_part.clone();
        put_varint(&mut body, count as u64);
        body.extend_from_slice(&part);
        newest = put_block(&mut bytes, entry, newest, &body);
        rest = rest.get(count..).unwrap_or_default();
    }
    (bytes, newest)
}

fn put_trace(part: &mut Vec<u8>, trace_id: TraceId, said: &[Said]) {
    part.extend_from_slice(&trace_id.0);
    put_varint(part, said.len() as u64);
    for said in said {
        match said {
            Said::Spans { cell, sent, fingerprints } => {
                put_varint(part, u64::from(*cell) << 2);
                put_varint(part, *sent);
                put_varint(part, fingerprints.len() as u64);
                for fingerprint in fingerprints {
                    part.extend_from_slice(&fingerprint.to_le_bytes());
                }
            }
            Said::Started { cell } => put_varint(part, u64::from(*cell) << 2 | 1),
            Said::Deleted { cell } => put_varint(part, u64::from(*cell) << 2 | 2),
            Said::Changed { cell, subject, value } => {
                put_varint(part, u64::from(*cell) << 2 | 3);
                let (kind, hash) = subject.parts();
                part.extend_from_slice(&[kind, u8::from(value.is_some())]);
                part.extend_from_slice(&hash.to_le_bytes());
                part.extend_from_slice(&value.unwrap_or_default().to_le_bytes());
            }
        }
    }
}

fn put_block(bytes: &mut Vec<u8>, entry: Entry<'_>, before: Link, body: &[u8]) -> Link {
    let mut flags = 0;
    if !bytes.is_empty() {
        flags |= CONTINUES;
    } else if entry.begins_anew {
        flags |= BEGINS_ANEW;
    }
    let ordinal = before.ordinal.saturating_add(1);
    let begin = bytes.len();
    bytes.extend_from_slice(&CHAINED_MAGIC);
    bytes.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(entry.journal.as_bytes());
    bytes.extend_from_slice(&entry.through.to_le_bytes());
    bytes.extend_from_slice(&flags.to_le_bytes());
    bytes.extend_from_slice(&ordinal.to_le_bytes());
    bytes.extend_from_slice(&before.hash);
    let told = bytes.get(begin + CHAINED_MAGIC.len()..).unwrap_or_default();
    let crc = crc32c::crc32c_append(crc32c::crc32c(told), body);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(body);
    Link { ordinal, hash: hash_of(&[bytes.get(begin..).unwrap_or_default()]) }
}

fn hash_of(parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    let mut hash = [0; 16];
    hash.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    hash
}

fn put_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while 0x80 <= number {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
}

/// The header of a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockHeader {
    bytes: [u8; CHAINED_HEADER_BYTES],
    /// Of the header: by the format of the block.
    pub length: usize,
    pub body_length: u32,
}

impl BlockHeader {
    /// Bytes that every header has.
    pub(super) const MIN_BYTES: usize = UNCHAINED_HEADER_BYTES;

    /// Whether a block of whichever format begins like this.
    pub(super) fn is_begin(bytes: &[u8]) -> bool {
        bytes.starts_with(&CHAINED_MAGIC) || bytes.starts_with(&UNCHAINED_MAGIC)
    }

    /// Takes the first [`BlockHeader::MIN_BYTES`] and reads the others, if there are, by `more`,
    /// which says whether there were as many.
    pub(super) fn read(
        first: &[u8; Self::MIN_BYTES],
        more: &mut dyn FnMut(&mut [u8]) -> io::Result<bool>,
    ) -> io::Result<Option<Self>> {
        let mut bytes = [0; CHAINED_HEADER_BYTES];
        bytes[..Self::MIN_BYTES].copy_from_slice(first);
        let length = match first.first_chunk::<4>() {
            Some(&CHAINED_MAGIC) => CHAINED_HEADER_BYTES,
            Some(&UNCHAINED_MAGIC) => UNCHAINED_HEADER_BYTES,
            _ => return Ok(None),
        };
        if Self::MIN_BYTES < length && !more(&mut bytes[Self::MIN_BYTES..])? {
            return Ok(None);
        }
        let mut fields = Cursor(&bytes[4..]);
        let body_length = fields.array().map(u32::from_le_bytes).unwrap_or_default();
        Ok(Some(Self { bytes, length, body_length }))
    }

    /// The block with this body; `None` when the two do not belong together.
    pub(super) fn with_body(&self, body: &[u8]) -> Option<Block> {
        let header = self.bytes.get(..self.length)?;
        let (told, crc) = header.split_last_chunk::<4>()?;
        let whole = crc32c::crc32c_append(crc32c::crc32c(told.get(4..)?), body);
        if whole != u32::from_le_bytes(*crc) {
            return None;
        }
        let mut fields = Cursor(told.get(8..)?);
        let journal = Uuid::from_bytes(fields.array()?);
        let through = u64::from_le_bytes(fields.array()?);
        let flags = u32::from_le_bytes(fields.array()?);
        let linked = if fields.0.is_empty() {
            None
        } else {
            let ordinal = u64::from_le_bytes(fields.array()?);
            let before = Link { ordinal: ordinal.checked_sub(1)?, hash: fields.array()? };
            let link = Link { ordinal, hash: hash_of(&[header, body]) };
            Some(Linked { link, before, begins_anew: flags & BEGINS_ANEW != 0 })
        };
        let mut body = Cursor(body);
        let cells = body.list(Cursor::cell)?;
        let traces = body.list(|body| Some((TraceId(body.array()?), body.list(Cursor::said)?)))?;
        let is_first = flags & CONTINUES == 0;
        body.0.is_empty().then_some(Block { journal, through, is_first, linked, cells, traces })
    }
}

/// What is left of a body. Its checksum was right; still nothing is taken for granted.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    /// As many as a number says. None takes less than a byte, so memory is bounded by the body.
    fn list<T>(&mut self, read: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = usize::try_from(self.varint()?).ok()?;
        if self.0.len() < count {
            return None;
        }
        (0..count).map(|_| read(self)).collect()
    }

    fn text(&mut self) -> Option<&str> {
        let length = usize::try_from(self.varint()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }

    fn cell(&mut self) -> Option<Cell> {
        let hour = self.varint()?;
        let way = Way::from_number(self.array::<1>()?[0])?;
        let table = self.text()?.parse().ok()?;
        let experiment_id = self.text()?.parse().ok()?;
        Some(Cell { table, experiment_id, hour, way })
    }

    fn said(&mut self) -> Option<Said> {
        let tag = self.varint()?;
        let cell = u32::try_from(tag >> 2).ok()?;
        match tag & 3 {
            0 => {
                let sent = self.varint()?;
                let fingerprints = self.list(|body| Some(u64::from_le_bytes(body.array()?)))?;
                Some(Said::Spans { cell, sent, fingerprints })
            }
            1 => Some(Said::Started { cell }),
            2 => Some(Said::Deleted { cell }),
            _ => {
                let [kind, is_there] = self.array()?;
                let subject = Subject::from_parts(kind, u64::from_le_bytes(self.array()?))?;
                let value = u64::from_le_bytes(self.array()?);
                Some(Said::Changed { cell, subject, value: (is_there == 1).then_some(value) })
            }
        }
    }
}
