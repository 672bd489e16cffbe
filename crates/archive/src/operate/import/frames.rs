//! Cuts a stream into frames: pieces of a few MiB that end where reading can begin again.

use bytes::Bytes;
use tracelake_model::Limits;

use super::stream::{Kind, Stream};

/// A frame ends at the first border past this size.
const FRAME_BYTES: usize = 2 << 20;

/// Whole messages, lines or documents, and where in the file they end.
#[derive(Debug)]
pub(super) struct Frame {
    pub units: Vec<Unit>,
    /// Decompressed bytes up to the end of the frame, and their CRC32C.
    pub end: u64,
    pub crc: u32,
}

/// One message, line or document.
#[derive(Debug)]
pub(super) struct Unit {
    pub body: Bytes,
    /// For messages, such as `line 3`; empty for a whole file.
    pub place: String,
    /// JSON rather than protobuf.
    pub json: bool,
}

/// Why a file cannot be read any further. Frames before it stand.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameFault {
    #[error("{0}")]
    Read(#[from] std::io::Error),
    #[error("byte {offset}: {reason}")]
    Framing { offset: u64, reason: &'static str },
    #[error("byte {offset}: a piece of more than {limit} bytes")]
    TooLarge { offset: u64, limit: u64 },
}

/// Reads frames of one stream.
#[derive(Debug)]
pub(super) struct FrameReader {
    pub stream: Stream,
    kind: Kind,
    /// Bytes of the largest single message, line or document.
    limit: u64,
    /// Units read, over all frames.
    count: u64,
    /// A document over many lines; only whole does it mean anything.
    whole: bool,
    /// Met behind the frame that was given last.
    fault: Option<FrameFault>,
    /// Where reading began: lines are counted only from the start of a file.
    begun_at: u64,
}

impl FrameReader {
    pub(super) fn new(stream: Stream, kind: Kind, limits: &Limits) -> Self {
        let limit = limits.max_decompressed_bytes as u64;
        let begun_at = stream.offset;
        Self { stream, kind, limit, count: 0, whole: false, fault: None, begun_at }
    }

    /// Whether more of the same may be appended to the file later.
    pub(super) const fn grows(&self) -> bool {
        !self.whole
    }

    /// The next frame, `None` at the end.
    pub(super) fn next_frame(&mut self) -> Result<Option<Frame>, FrameFault> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        let mut units = Vec::new();
        let mut bytes = 0;
        while bytes < FRAME_BYTES {
            let (end, crc) = (self.stream.offset, self.stream.crc);
            let unit = match self.next_unit() {
                Ok(unit) => unit,
                Err(fault) if units.is_empty() => return Err(fault),
                Err(fault) => {
                    self.fault = Some(fault);
                    return Ok(Some(Frame { units, end, crc }));
                }
            };
            match unit {
                None if units.is_empty() => return Ok(None),
                None => break,
                Some(unit) => {
                    bytes += unit.body.len();
                    units.push(unit);
                }
            }
        }
        Ok(Some(Frame { units, end: self.stream.offset, crc: self.stream.crc }))
    }

    fn next_unit(&mut self) -> Result<Option<Unit>, FrameFault> {
        match self.kind {
            Kind::Empty => Ok(None),
            Kind::Json => self.json(),
            Kind::TracesData => self.resource_spans(),
            Kind::Delimited => self.delimited(),
            Kind::LengthPrefixed => self.length_prefixed(),
        }
    }

    /// A line, or the whole rest if the first line is no document by itself.
    fn json(&mut self) -> Result<Option<Unit>, FrameFault> {
        let begin = self.stream.offset;
        let mut body = Vec::new();
        while body.trim_ascii().is_empty() {
            let before = self.stream.offset;
            body.clear();
            if !self.stream.line_onto(&mut body, self.limit)? {
                return Err(self.too_large(begin));
            }
            if self.stream.offset == before {
                return Ok(None);
            }
            self.count += 1;
        }
        let first = begin == 0;
        if first && !is_complete(&body) {
            self.whole = true;
            let room = (self.limit + 1).saturating_sub(body.len() as u64);
            self.stream.read_onto(&mut body, room)?;
            if self.limit < body.len() as u64 {
                return Err(self.too_large(begin));
            }
        }
        let place = match (self.whole, self.begun_at) {
            (true, _) => String::new(),
            (false, 0) => format!("line {}", self.count),
            (false, _) => format!("line at byte {begin}"),
        };
        Ok(Some(Unit { body: body.into(), place, json: true }))
    }

    /// The next `ResourceSpans` as a `TracesData` of its own; other fields are passed over.
    fn resource_spans(&mut self) -> Result<Option<Unit>, FrameFault> {
        loop {
            let begin = self.stream.offset;
            let Some(key) = self.varint()? else { return Ok(None) };
            let length = match key & 7 {
                0 => {
                    self.length()?;
                    continue;
                }
                1 => 8,
                2 => self.length()?,
                5 => 4,
                _ => return Err(FrameFault::Framing { offset: begin, reason: "not protobuf" }),
            };
            if key >> 3 == 0 {
                return Err(FrameFault::Framing { offset: begin, reason: "field number zero" });
            }
            let mut body = Vec::new();
            if key == 0x0a {
                body.push(0x0a);
                push_varint(&mut body, length);
            }
            self.body_onto(&mut body, begin, length)?;
            if key == 0x0a {
                self.count += 1;
                let place = format!("resource spans {} at byte {begin}", self.count);
                return Ok(Some(Unit { body: body.into(), place, json: false }));
            }
        }
    }

    fn delimited(&mut self) -> Result<Option<Unit>, FrameFault> {
        let begin = self.stream.offset;
        let Some(length) = self.varint()? else { return Ok(None) };
        self.message(begin, length).map(Some)
    }

    fn length_prefixed(&mut self) -> Result<Option<Unit>, FrameFault> {
        let begin = self.stream.offset;
        let mut prefix = Vec::new();
        match self.stream.read_onto(&mut prefix, 4)? {
            0 => Ok(None),
            4 => {
                let length = prefix.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
                self.message(begin, length).map(Some)
            }
            _ => Err(FrameFault::Framing { offset: begin, reason: CUT }),
        }
    }

    /// A message of `length` bytes, which the Collector may have compressed by itself.
    fn message(&mut self, begin: u64, length: u64) -> Result<Unit, FrameFault> {
        let mut body = Vec::new();
        self.body_onto(&mut body, begin, length)?;
        let mut body = Bytes::from(body);
        if body.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
            let zstd = tracelake_decode::ContentEncoding::Zstd;
            body = tracelake_decode::content_encoding::decompress(zstd, &body, limit)
                .map_err(|error| std::io::Error::other(error.to_string()))?;
        }
        self.count += 1;
        let place = format!("message {} at byte {begin}", self.count);
        let json = body.first() == Some(&b'{');
        Ok(Unit { body, place, json })
    }

    fn body_onto(&mut self, body: &mut Vec<u8>, begin: u64, length: u64) -> Result<(), FrameFault> {
        if self.limit < length {
            return Err(self.too_large(begin));
        }
        if self.stream.read_onto(body, length)? < length {
            return Err(FrameFault::Framing { offset: begin, reason: CUT });
        }
        Ok(())
    }

    /// A number that must be there.
    fn length(&mut self) -> Result<u64, FrameFault> {
        let offset = self.stream.offset;
        self.varint()?.ok_or(FrameFault::Framing { offset, reason: CUT })
    }

    /// A number, `None` at the end of the stream.
    fn varint(&mut self) -> Result<Option<u64>, FrameFault> {
        let offset = self.stream.offset;
        let mut value = 0_u64;
        for shift in (0..63).step_by(7) {
            let Some(byte) = self.stream.byte()? else {
                let reason = CUT;
                return if shift == 0 {
                    Ok(None)
                } else {
                    Err(FrameFault::Framing { offset, reason })
                };
            };
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(Some(value));
            }
        }
        Err(FrameFault::Framing { offset, reason: "not protobuf" })
    }

    const fn too_large(&self, offset: u64) -> FrameFault {
        FrameFault::TooLarge { offset, limit: self.limit }
    }
}

const CUT: &str = "the file ends in the middle of a message";

/// True when a line is a document by itself: its brackets close. What is in them is not looked at.
fn is_complete(line: &[u8]) -> bool {
    let (mut depth, mut in_text, mut escaped) = (0_i64, false, false);
    for byte in line {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => depth += 1,
            b'}' | b']' if !in_text => depth -= 1,
            _ => {}
        }
    }
    depth == 0
}

fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while 0x80 <= value {
        out.push(u8::try_from(value & 0x7f).unwrap_or_default() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn reader(bytes: &[u8]) -> FrameReader {
        let bytes = std::io::Cursor::new(bytes.to_vec());
        let (kind, stream) = Stream::new(bytes, &Arc::default()).unwrap();
        FrameReader::new(
            stream,
            kind,
            &Limits { max_decompressed_bytes: 1000, ..Limits::default() },
        )
    }

    fn bodies(bytes: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        let mut reader = reader(bytes);
        let mut found = Vec::new();
        while let Some(frame) = reader.next_frame().map_err(|fault| fault.to_string())? {
            found.extend(frame.units.into_iter().map(|unit| unit.body.to_vec()));
        }
        Ok(found)
    }

    /// Scenario: each framing with two pieces in it.
    /// Guarantees: the pieces come out one by one; a document over many lines is one piece.
    #[test]
    fn cuts_each_framing_at_its_borders() {
        let message = b"\x0a\x02\x0a\x00";
        let two = [&message[..], message].concat();
        assert_eq!(bodies(&two).unwrap(), [message, message]);
        let unknown = [&message[..], b"\x10\x05\x1a\x01x\x25abcd", message].concat();
        assert_eq!(bodies(&unknown).unwrap(), [message, message]);
        let delimited = [&b"\x04"[..], message, b"\x04", message].concat();
        assert_eq!(bodies(&delimited).unwrap(), [message, message]);
        let prefixed = [&b"\0\0\0\x04"[..], message, b"\0\0\0\x04", message].concat();
        assert_eq!(bodies(&prefixed).unwrap(), [message, message]);
        assert_eq!(bodies(b"{\"a\":1}\n\n{}\n").unwrap(), [&b"{\"a\":1}\n"[..], b"{}\n"]);
        assert_eq!(bodies(b"{\"a\":\n\"}\"\n}\n").unwrap().len(), 1);
        assert_eq!(bodies(b"").unwrap().len(), 0);
    }

    /// Scenario: streams cut at every byte, lengths that claim too much, lines that never end.
    /// Guarantees: a fault that names the place; the pieces before it are given first.
    #[test]
    fn faults_keep_what_came_before() {
        let message = b"\x0a\x02\x0a\x00";
        let two = [&message[..], message].concat();
        for cut in 5..8 {
            let mut reader = reader(&two[..cut]);
            let frame = reader.next_frame().unwrap().unwrap();
            assert_eq!((frame.units.len(), frame.end), (1, 4));
            assert_eq!(frame.crc, crc32c::crc32c(message));
            assert!(reader.next_frame().is_err());
        }
        assert!(bodies(b"\x0a\xff\xff\xff\xff\x0f").unwrap_err().contains("more than 1000"));
        assert!(bodies(&b"[".repeat(5_000)).unwrap_err().contains("more than 1000"));
        assert!(bodies(b"\x0a\x05abc").unwrap_err().contains("in the middle"));
    }
}
