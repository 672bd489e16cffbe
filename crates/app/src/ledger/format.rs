//! The ledger's format. All integers are little endian, `v` is an unsigned LEB128 number, CRC is
//! CRC32C.
//!
//! A file is the 8 bytes `TLLEDGER`, the format version in 4 bytes, 4 zero bytes, and blocks
//! without gaps. An entry is one block, or several when it is long.
//!
//! | block: offset | bytes | |
//! |---|---|---|
//! | 0 | 4 | `TLBK` |
//! | 4 | 4 | length of the body |
//! | 8 | 16 | id of the journal |
//! | 24 | 8 | number of the segment through which it tells |
//! | 32 | 4 | 0 for the first block of an entry, 1 for the others |
//! | 36 | 4 | CRC of the 32 bytes from offset 4 on, and of the body |
//! | 40 | | body |
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

use std::io::{self, Read};

use tracelake_decode::RecordKind;
use tracelake_model::{ExperimentId, TableName, TraceId};
use uuid::Uuid;

/// What every file begins with.
pub(super) const FILE_HEADER: [u8; 16] = *b"TLLEDGER\x01\0\0\0\0\0\0\0";

const BLOCK_MAGIC: [u8; 4] = *b"TLBK";
const BLOCK_HEADER_BYTES: usize = 40;

/// Bytes of a body after which the next trace goes into another block.
const BLOCK_BYTES: usize = 4 << 20;

/// How spans or facts came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Way {
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
            RecordKind::CarriedTrace | RecordKind::CarriedWords => None,
        }
    }

    /// The word for it in every report.
    pub(crate) const fn as_str(self) -> &'static str {
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
pub(crate) struct Cell {
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
pub(crate) enum Said {
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
}

/// A part of an entry.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub journal: Uuid,
    /// Last segment that it tells of.
    pub through: u64,
    /// Whether an entry begins with it.
    pub is_first: bool,
    pub cells: Vec<Cell>,
    /// By trace, in the order in which it was said.
    pub traces: Vec<(TraceId, Vec<Said>)>,
}

/// An entry as blocks.
pub(super) fn encode_blocks(
    journal: Uuid,
    through: u64,
    cells: &[Cell],
    traces: &[(TraceId, Vec<Said>)],
) -> Vec<u8> {
    let mut cell_part = Vec::new();
    put_varint(&mut cell_part, cells.len() as u64);
    for cell in cells {
        put_varint(&mut cell_part, cell.hour);
        cell_part.push(cell.way.number());
        for text in [cell.table.to_string().as_str(), cell.experiment_id.as_str()] {
            put_varint(&mut cell_part, text.len() as u64);
            cell_part.extend_from_slice(text.as_bytes());
        }
    }
    let mut file = Vec::new();
    let mut rest = traces;
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
        put_block(&mut file, journal, through, &body);
        rest = rest.get(count..).unwrap_or_default();
    }
    file
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
        }
    }
}

fn put_block(file: &mut Vec<u8>, journal: Uuid, through: u64, body: &[u8]) {
    let is_first = file.is_empty();
    let mut header = Vec::with_capacity(BLOCK_HEADER_BYTES);
    header.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    header.extend_from_slice(journal.as_bytes());
    header.extend_from_slice(&through.to_le_bytes());
    header.extend_from_slice(&u32::from(!is_first).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header), body);
    file.extend_from_slice(&BLOCK_MAGIC);
    file.extend_from_slice(&header);
    file.extend_from_slice(&crc.to_le_bytes());
    file.extend_from_slice(body);
}

fn put_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while 0x80 <= number {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
}

/// The next block's header and body, `None` where there is no whole one. `left` bounds its length.
fn read_block_bytes(reader: &mut impl Read, left: u64) -> io::Result<Option<([u8; 40], Vec<u8>)>> {
    let mut header = [0; BLOCK_HEADER_BYTES];
    if !fill(reader, &mut header)? {
        return Ok(None);
    }
    let word = |at: usize| {
        let bytes = header.get(at..at + 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
        u32::from_le_bytes(bytes.unwrap_or_default())
    };
    let length = word(4);
    if !header.starts_with(&BLOCK_MAGIC) || left < u64::from(length) {
        return Ok(None);
    }
    let mut body = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    if !fill(reader, &mut body)? {
        return Ok(None);
    }
    let told = header.get(4..36).unwrap_or_default();
    let crc = crc32c::crc32c_append(crc32c::crc32c(told), &body);
    Ok((crc == word(36)).then_some((header, body)))
}

/// Reads all of `buffer`, or says that there is not that much left.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Bytes of the next block, `None` where there is no whole one.
pub(super) fn read_raw(reader: &mut impl Read, left: u64) -> io::Result<Option<u64>> {
    let block = read_block_bytes(reader, left)?;
    Ok(block.map(|(_, body)| (BLOCK_HEADER_BYTES + body.len()) as u64))
}

/// The next block and its bytes, `None` where there is no whole one.
pub(super) fn read_block(reader: &mut impl Read, left: u64) -> io::Result<Option<(Block, u64)>> {
    let Some((header, body)) = read_block_bytes(reader, left)? else { return Ok(None) };
    let bytes = (BLOCK_HEADER_BYTES + body.len()) as u64;
    let mut cursor = Cursor(&body);
    Ok(decode_block(&header, &mut cursor).map(|block| (block, bytes)))
}

fn decode_block(header: &[u8; 40], body: &mut Cursor<'_>) -> Option<Block> {
    let mut fields = Cursor(header.get(8..)?);
    let journal = Uuid::from_bytes(fields.array()?);
    let through = u64::from_le_bytes(fields.array()?);
    let is_first = fields.array::<4>()? == [0; 4];
    let cells = body.list(Cursor::cell)?;
    let traces = body.list(|body| Some((TraceId(body.array()?), body.list(Cursor::said)?)))?;
    body.0.is_empty().then_some(Block { journal, through, is_first, cells, traces })
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
            _ => None,
        }
    }
}
