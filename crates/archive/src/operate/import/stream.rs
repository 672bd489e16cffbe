//! A file as a stream of decompressed bytes that knows its place, and what kind of bytes they are.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes by which the kind is told.
const HEAD_BYTES: usize = 64 << 10;
const BUFFER_BYTES: usize = 256 << 10;
/// 2^27 = 128 MiB of window, the most that `zstd --long` asks for by default.
const ZSTD_WINDOW_LOG: u32 = 27;
/// Decompressed bytes per compressed one, past the first GiB, that no real trace reaches.
const MAX_RATIO: u64 = 2_000;
const FREE_BYTES: u64 = 1 << 30;

/// How the bytes of a file are framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing at all.
    Empty,
    /// JSON, one document; or one a line.
    Json,
    /// OTLP `TracesData`: resource spans one after the other.
    TracesData,
    /// Messages, each after its length as a varint: what `tracelake rebuild` writes.
    Delimited,
    /// Messages, each after its length as four bytes, big end first: the Collector's file exporter.
    LengthPrefixed,
}

/// The decompressed bytes of a file, read once from front to end.
pub(super) struct Stream {
    reader: Box<dyn BufRead + Send>,
    /// Decompressed bytes read so far.
    pub offset: u64,
    /// CRC32C of the bytes read so far.
    pub crc: u32,
    raw_bytes: Arc<AtomicU64>,
    compressed: bool,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Stream").field("offset", &self.offset).finish_non_exhaustive()
    }
}

impl Stream {
    /// Opens a file; `all_raw_bytes` counts the bytes read from the disk.
    pub(super) fn open(path: &Path, all_raw_bytes: &Arc<AtomicU64>) -> io::Result<(Kind, Self)> {
        Self::new(File::open(path)?, all_raw_bytes)
    }

    /// Starts to read `input`: tells compression and kind from its first bytes.
    pub(super) fn new(
        input: impl Read + Send + 'static,
        all_raw_bytes: &Arc<AtomicU64>,
    ) -> io::Result<(Kind, Self)> {
        let raw_bytes = Arc::new(AtomicU64::new(0));
        let mut raw =
            Counting { inner: input, own: Arc::clone(&raw_bytes), all: Arc::clone(all_raw_bytes) };
        let magic = read_up_to(&mut raw, 4)?;
        let compression = compression_of(&magic);
        let raw = BufReader::with_capacity(BUFFER_BYTES, Cursor::new(magic).chain(raw));
        let mut decoded: Box<dyn Read + Send> = match compression {
            Compression::None => Box::new(raw),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(raw)),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(raw)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Box::new(decoder)
            }
        };
        let head = read_up_to(&mut decoded, HEAD_BYTES)?;
        let kind = kind_of(&head)?;
        let reader = BufReader::with_capacity(BUFFER_BYTES, Cursor::new(head).chain(decoded));
        let compressed = compression != Compression::None;
        Ok((kind, Self { reader: Box::new(reader), offset: 0, crc: 0, raw_bytes, compressed }))
    }

    /// Passes over the first `offset` bytes and says whether they are those that `crc` was made
    /// of. An uncompressed file that is `known` to be unchanged is not read again.
    pub(super) fn skip_to(
        &mut self,
        offset: u64,
        crc: u32,
        known: Option<(&Path, &Arc<AtomicU64>)>,
    ) -> io::Result<bool> {
        if let (false, Some((path, all_raw_bytes))) = (self.compressed, known) {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(offset))?;
            all_raw_bytes.fetch_add(offset, Ordering::Relaxed);
            let raw = Counting {
                inner: file,
                own: Arc::clone(&self.raw_bytes),
                all: Arc::clone(all_raw_bytes),
            };
            self.reader = Box::new(BufReader::with_capacity(BUFFER_BYTES, raw));
            (self.offset, self.crc) = (offset, crc);
            return Ok(true);
        }
        while self.offset < offset {
            let wanted = usize::try_from(offset - self.offset).unwrap_or(usize::MAX);
            let length = self.buffer()?.len().min(wanted);
            if length == 0 {
                return Ok(false);
            }
            self.advance(length)?;
        }
        Ok(self.crc == crc)
    }

    /// The next byte, `None` at the end.
    pub(super) fn byte(&mut self) -> io::Result<Option<u8>> {
        let Some(byte) = self.buffer()?.first().copied() else { return Ok(None) };
        self.advance(1)?;
        Ok(Some(byte))
    }

    /// Appends up to `length` bytes; fewer only at the end. Memory grows with what is there, not
    /// with what a length field claims.
    pub(super) fn read_onto(&mut self, out: &mut Vec<u8>, length: u64) -> io::Result<u64> {
        let mut left = length;
        while 0 < left {
            let wanted = usize::try_from(left).unwrap_or(usize::MAX);
            let piece = self.buffer()?;
            let take = piece.len().min(wanted);
            if take == 0 {
                break;
            }
            out.extend_from_slice(piece.get(..take).unwrap_or_default());
            self.advance(take)?;
            left -= take as u64;
        }
        Ok(length - left)
    }

    /// Appends up to and with the next line feed, or to the end. False when the line is longer
    /// than `limit` bytes; it is not read to its end then.
    pub(super) fn line_onto(&mut self, out: &mut Vec<u8>, limit: u64) -> io::Result<bool> {
        let start = out.len();
        loop {
            let piece = self.buffer()?;
            let found = piece.iter().position(|byte| *byte == b'\n');
            let take = found.map_or(piece.len(), |at| at + 1);
            out.extend_from_slice(piece.get(..take).unwrap_or_default());
            self.advance(take)?;
            if limit < (out.len() - start) as u64 {
                return Ok(false);
            }
            if found.is_some() || take == 0 {
                return Ok(true);
            }
        }
    }

    fn buffer(&mut self) -> io::Result<&[u8]> {
        let raw = self.raw_bytes.load(Ordering::Relaxed);
        if self.compressed && FREE_BYTES < self.offset && MAX_RATIO < self.offset / raw.max(1) {
            let reason = format!("decompresses to more than {MAX_RATIO} times its size");
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        loop {
            match self.reader.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(_) => break,
            }
        }
        self.reader.fill_buf()
    }

    /// Takes `length` bytes that are in the buffer.
    fn advance(&mut self, length: usize) -> io::Result<()> {
        let piece = self.reader.fill_buf()?;
        self.crc = crc32c::crc32c_append(self.crc, piece.get(..length).unwrap_or_default());
        self.offset += length as u64;
        self.reader.consume(length);
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Zstd,
}

fn compression_of(magic: &[u8]) -> Compression {
    match magic {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd] => Compression::Zstd,
        _ => Compression::None,
    }
}

/// Tells the kind from the first bytes.
fn kind_of(head: &[u8]) -> io::Result<Kind> {
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let first = text.iter().find(|byte| !byte.is_ascii_whitespace()).copied();
    // A line feed is also the key of resource spans, and a brace their length or the message's.
    let ambiguous = matches!(text, [b'\n', ..] | [b'{' | b'[', b'\n', ..]);
    match (head, first) {
        (_, None) => Ok(Kind::Empty),
        (_, Some(b'{' | b'[')) if !ambiguous || is_plain_text(text) => Ok(Kind::Json),
        ([0x0a, ..], _) => Ok(Kind::TracesData),
        ([0, ..], _) if starts_message(head.get(4..)) => Ok(Kind::LengthPrefixed),
        _ => {
            let length_bytes = head.iter().position(|byte| *byte < 0x80).map_or(0, |at| at + 1);
            if (1..=5).contains(&length_bytes) && starts_message(head.get(length_bytes..)) {
                return Ok(Kind::Delimited);
            }
            Err(io::Error::new(io::ErrorKind::InvalidData, NOT_TRACES))
        }
    }
}

/// What is said of bytes that are of no kind.
pub(super) const NOT_TRACES: &str = "neither OTLP nor traces in MLflow's JSON";

/// A message begins with resource spans, or is JSON or compressed.
fn starts_message(bytes: Option<&[u8]>) -> bool {
    matches!(bytes, Some([0x0a | b'{', ..] | [0x28, 0xb5, 0x2f, 0xfd, ..]))
}

/// Ids in protobuf are preceded by bytes that text does not have.
fn is_plain_text(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| 0x20 <= *byte || byte.is_ascii_whitespace())
}

fn read_up_to(reader: &mut impl Read, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(length as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Counts what goes through.
struct Counting<R> {
    inner: R,
    own: Arc<AtomicU64>,
    all: Arc<AtomicU64>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.own.fetch_add(length as u64, Ordering::Relaxed);
        self.all.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(bytes: &[u8]) -> io::Result<(Kind, Stream)> {
        Stream::new(Cursor::new(bytes.to_vec()), &Arc::default())
    }

    /// Scenario: the first bytes of every kind, and of other files.
    /// Guarantees: the kind is told by content; a line feed before a brace is JSON only in text.
    #[test]
    fn tells_the_kind_from_the_first_bytes() {
        for (bytes, kind) in [
            (&b""[..], Kind::Empty),
            (b" \n ", Kind::Empty),
            (b"{\"resourceSpans\":[]}", Kind::Json),
            (b"\xef\xbb\xbf[{}]", Kind::Json),
            (b"\n{\n \"spans\": []}", Kind::Json),
            (b"\n{\x0a\x10\x01\x02", Kind::TracesData),
            (b"\x0a\x02\x0a\x00", Kind::TracesData),
            (b"{\n \"spans\": []}", Kind::Json),
            (b"{\x0a\x79\x0a\x00\x12", Kind::Delimited),
            (b"\xac\x02\x0a\xa9\x02", Kind::Delimited),
            (b"\x00\x00\x01\x2c\x0a\xa9\x02", Kind::LengthPrefixed),
        ] {
            assert_eq!(open(bytes).unwrap().0, kind, "{bytes:?}");
        }
        for bytes in [&b"# readme"[..], b"\x89PNG\r\n", b"\x00\x00\x00\x00\x00", b"\xff\xff"] {
            assert!(open(bytes).is_err(), "{bytes:?}");
        }
    }

    /// Scenario: the same bytes plain, as gzip in two members, and as zstd; read again from the
    /// middle, with the right and a wrong checksum.
    /// Guarantees: the same bytes, places and checksums; the wrong one is noticed.
    #[test]
    fn a_place_is_found_again() {
        use std::io::Write as _;
        let body: Vec<u8> = b"{\"a\":1}\n".repeat(50_000);
        let mut gzip = Vec::new();
        for half in body.chunks(body.len() / 2) {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(half).unwrap();
            gzip.extend(encoder.finish().unwrap());
        }
        let zstd = zstd::encode_all(&body[..], 1).unwrap();
        for bytes in [&body, &gzip, &zstd] {
            let (_, mut stream) = open(bytes).unwrap();
            let mut read = Vec::new();
            assert_eq!(stream.read_onto(&mut read, 100_000).unwrap(), 100_000);
            let (offset, crc) = (stream.offset, stream.crc);
            stream.read_onto(&mut read, u64::MAX).unwrap();
            assert_eq!(read, body);
            let (_, mut again) = open(bytes).unwrap();
            assert!(again.skip_to(offset, crc, None).unwrap());
            let mut line = Vec::new();
            assert!(again.line_onto(&mut line, 100).unwrap());
            assert_eq!(line, b"{\"a\":1}\n");
            let (_, mut other) = open(bytes).unwrap();
            assert!(!other.skip_to(offset, crc ^ 1, None).unwrap());
        }
    }
}
