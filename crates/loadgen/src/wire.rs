//! Protobuf with holes: messages whose ids, times and texts are filled in anew for every request.
//!
//! Every hole has a fixed width, so the lengths around it are right whatever is filled in.

/// Bytes of a message and the holes in them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    bytes: Vec<u8>,
    holes: Vec<Hole>,
}

/// Where something is filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hole {
    /// Offset of its first byte.
    pub(crate) at: usize,
    /// What goes there.
    pub(crate) what: Filling,
}

/// What a hole takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filling {
    /// 16 bytes.
    TraceId,
    /// 8 bytes.
    SpanId,
    /// 8 bytes.
    ParentId,
    /// 8 bytes, nanoseconds since 1970.
    Start,
    /// 8 bytes, nanoseconds since 1970.
    End,
    /// Words.
    Text {
        /// Bytes.
        length: usize,
    },
    /// Hex digits of the trace, so that its spans share them.
    TraceHex {
        /// Digits, 16 at the most.
        length: usize,
    },
    /// Hex digits of the span.
    SpanHex {
        /// Digits, 16 at the most.
        length: usize,
    },
    /// A number of 128 to 16,383: a varint of two bytes.
    Number,
}

impl Filling {
    /// Bytes that it takes.
    pub(crate) const fn length(self) -> usize {
        match self {
            Self::TraceId => 16,
            Self::SpanId | Self::ParentId | Self::Start | Self::End => 8,
            Self::Text { length } | Self::TraceHex { length } | Self::SpanHex { length } => length,
            Self::Number => 2,
        }
    }
}

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH_DELIMITED: u64 = 2;

impl Message {
    /// A message without fields.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Text with holes in it, for [`Message::message`] as the value of a string field.
    pub(crate) fn literal(mut self, text: &[u8]) -> Self {
        self.bytes.extend_from_slice(text);
        self
    }

    /// A hole here, without a tag.
    pub(crate) fn hole(mut self, what: Filling) -> Self {
        self.holes.push(Hole { at: self.bytes.len(), what });
        self.bytes.resize(self.bytes.len() + what.length(), b'0');
        self
    }

    /// A field of known bytes.
    pub(crate) fn bytes(self, field: u64, value: &[u8]) -> Self {
        self.tag(field, LENGTH_DELIMITED).varint(value.len() as u64).literal(value)
    }

    /// A field of bytes that are filled in.
    pub(crate) fn bytes_hole(self, field: u64, what: Filling) -> Self {
        self.tag(field, LENGTH_DELIMITED).varint(what.length() as u64).hole(what)
    }

    /// A fixed number that is filled in.
    pub(crate) fn fixed64_hole(self, field: u64, what: Filling) -> Self {
        self.tag(field, FIXED64).hole(what)
    }

    /// A number.
    pub(crate) fn number(self, field: u64, value: u64) -> Self {
        self.tag(field, VARINT).varint(value)
    }

    /// A number of two bytes that is filled in.
    pub(crate) fn number_hole(self, field: u64) -> Self {
        self.tag(field, VARINT).hole(Filling::Number)
    }

    /// A double.
    pub(crate) fn double(self, field: u64, value: f64) -> Self {
        self.tag(field, FIXED64).literal(&value.to_le_bytes())
    }

    /// A message within this one, or a string with holes.
    pub(crate) fn message(self, field: u64, inner: Self) -> Self {
        self.tag(field, LENGTH_DELIMITED).varint(inner.bytes.len() as u64).append(inner)
    }

    /// What another holds, after what this one holds.
    pub(crate) fn append(mut self, other: Self) -> Self {
        let shift = self.bytes.len();
        self.holes.extend(other.holes.iter().map(|hole| Hole { at: hole.at + shift, ..*hole }));
        self.bytes.extend_from_slice(&other.bytes);
        self
    }

    /// Bytes and holes, in the order of their offsets.
    pub(crate) fn into_parts(self) -> (Vec<u8>, Vec<Hole>) {
        (self.bytes, self.holes)
    }

    /// Length in bytes.
    pub(crate) const fn len(&self) -> usize {
        self.bytes.len()
    }

    fn tag(self, field: u64, wire_type: u64) -> Self {
        self.varint(field << 3 | wire_type)
    }

    fn varint(mut self, mut value: u64) -> Self {
        while value >= 0x80 {
            self.bytes.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push((value & 0x7f) as u8);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes are those of the protobuf documentation's examples.
    #[test]
    fn writes_fields_as_protobuf_does() {
        let inner = Message::new().number(1, 150);
        let (bytes, _) = Message::new().message(3, inner).bytes(2, b"testing").into_parts();
        assert_eq!(bytes, b"\x1a\x03\x08\x96\x01\x12\x07testing");
    }

    #[test]
    fn holes_keep_their_place_within_messages() {
        let inner = Message::new().bytes_hole(1, Filling::TraceId).number_hole(2);
        let (bytes, holes) = Message::new().bytes(1, b"ab").message(2, inner).into_parts();
        let expected =
            [Hole { at: 8, what: Filling::TraceId }, Hole { at: 25, what: Filling::Number }];
        assert_eq!(holes, expected);
        assert_eq!(bytes.len(), 27);
    }
}
