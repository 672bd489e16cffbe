//! Writes OTLP protobuf: for transcoding JSON, for carrying spans over, for rebuilding rows.

use crate::wire::WireValue;

/// Appends the fields of one message to a buffer. Zero and empty values are left out by the
/// methods named `*_nonzero`, as proto3 writers do.
#[derive(Debug, Default)]
pub struct MessageWriter {
    buffer: Vec<u8>,
}

impl MessageWriter {
    /// An empty message.
    #[must_use]
    pub const fn new() -> Self {
        Self { buffer: Vec::new() }
    }

    /// The message's bytes.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.buffer
    }

    /// The bytes so far.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// Appends a length-delimited field, also when empty.
    pub fn bytes(&mut self, number: u32, value: &[u8]) {
        self.key(number, 2);
        self.varint(value.len() as u64);
        self.buffer.extend_from_slice(value);
    }

    /// Appends a length-delimited field unless it is empty.
    pub fn bytes_nonzero(&mut self, number: u32, value: &[u8]) {
        if !value.is_empty() {
            self.bytes(number, value);
        }
    }

    /// Appends an embedded message that `write` fills.
    pub fn message(&mut self, number: u32, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::new();
        write(&mut inner);
        self.bytes(number, &inner.buffer);
    }

    /// Appends a varint field, also when zero.
    pub fn number(&mut self, number: u32, value: u64) {
        self.key(number, 0);
        self.varint(value);
    }

    /// Appends a varint field unless it is zero.
    pub fn number_nonzero(&mut self, number: u32, value: u64) {
        if value != 0 {
            self.number(number, value);
        }
    }

    /// Appends a fixed64 field, also when zero.
    pub fn fixed64(&mut self, number: u32, value: u64) {
        self.key(number, 1);
        self.buffer.extend_from_slice(&value.to_le_bytes());
    }

    /// Appends a fixed64 field unless it is zero.
    pub fn fixed64_nonzero(&mut self, number: u32, value: u64) {
        if value != 0 {
            self.fixed64(number, value);
        }
    }

    /// Appends a fixed32 field unless it is zero.
    pub fn fixed32_nonzero(&mut self, number: u32, value: u32) {
        if value != 0 {
            self.key(number, 5);
            self.buffer.extend_from_slice(&value.to_le_bytes());
        }
    }

    /// Appends a field as it was read.
    pub fn value(&mut self, number: u32, value: WireValue<'_>) {
        match value {
            WireValue::Varint(value) => self.number(number, value),
            WireValue::Fixed64(value) => self.fixed64(number, value),
            WireValue::Bytes(value) => self.bytes(number, value),
            WireValue::Fixed32(value) => {
                self.key(number, 5);
                self.buffer.extend_from_slice(&value.to_le_bytes());
            }
        }
    }

    fn key(&mut self, number: u32, wire_type: u32) {
        self.varint(u64::from(number) << 3 | u64::from(wire_type));
    }

    fn varint(&mut self, mut value: u64) {
        while 0x80 <= value {
            self.buffer.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.buffer.push((value & 0x7f) as u8);
    }
}
