//! Protobuf wire format: a cursor over bytes that allocates nothing and never panics.
//!
//! Source: <https://protobuf.dev/programming-guides/encoding/>. Groups (wire types 3 and 4) are
//! refused: OTLP has none.

/// Why bytes are not protobuf, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireError {
    /// Bytes before the fault, counted from the start of the message being read.
    pub offset: usize,
    /// What is wrong there.
    pub reason: &'static str,
}

/// The value of one field on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum WireValue<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2: string, bytes or embedded message.
    Bytes(&'a [u8]),
    /// Wire type 5.
    Fixed32(u32),
}

impl<'a> WireValue<'a> {
    /// The bytes of a length-delimited field; empty for another wire type.
    #[must_use]
    pub const fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Varint(_) | Self::Fixed64(_) | Self::Fixed32(_) => &[],
        }
    }

    /// The number of a varint or fixed field; zero for a length-delimited one.
    #[must_use]
    pub const fn number(self) -> u64 {
        match self {
            Self::Varint(number) | Self::Fixed64(number) => number,
            Self::Fixed32(number) => number as u64,
            Self::Bytes(_) => 0,
        }
    }
}

/// Iterates the fields of one message in wire order.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    bytes: &'a [u8],
    offset: usize,
    overlong: bool,
}

impl<'a> Fields<'a> {
    /// Starts at the first field of the message `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0, overlong: false }
    }

    /// True when a key, length or number that was read takes more bytes than it needs.
    #[must_use]
    pub const fn overlong(&self) -> bool {
        self.overlong
    }

    /// The next field's number and value, `None` at the end.
    ///
    /// # Errors
    /// [`WireError`] where the bytes are not protobuf; reading cannot go on after it.
    #[expect(clippy::inline_always, reason = "the walks over spans are loops around this")]
    #[inline(always)]
    pub fn next_field(&mut self) -> Result<Option<(u32, WireValue<'a>)>, WireError> {
        if self.offset == self.bytes.len() {
            return Ok(None);
        }
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).map_err(|_| self.fault("field number too large"))?;
        if number == 0 {
            return Err(self.fault("field number zero"));
        }
        let value = match key & 7 {
            0 => WireValue::Varint(self.varint()?),
            1 => WireValue::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = self.varint()?;
                let length =
                    usize::try_from(length).map_err(|_| self.fault("length past the end"))?;
                WireValue::Bytes(self.take(length)?)
            }
            5 => WireValue::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err(self.fault("unknown wire type")),
        };
        Ok(Some((number, value)))
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, WireError> {
        // Most keys and lengths take one byte.
        match self.bytes.get(self.offset) {
            Some(byte) if *byte < 0x80 => {
                self.offset += 1;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    #[inline(never)]
    fn long_varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let byte = *self.bytes.get(self.offset).ok_or(self.fault("truncated number"))?;
            self.offset += 1;
            if shift == 63 && 1 < byte {
                return Err(self.fault("number past 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                self.overlong |= byte == 0;
                return Ok(value);
            }
        }
        Err(self.fault("number past 64 bits"))
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| self.fault("truncated number"))
    }

    #[inline]
    fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let end = self.offset.checked_add(length).ok_or(self.fault("length past the end"))?;
        let bytes = self.bytes.get(self.offset..end).ok_or(self.fault("length past the end"))?;
        self.offset = end;
        Ok(bytes)
    }

    #[cold]
    const fn fault(&self, reason: &'static str) -> WireError {
        WireError { offset: self.offset, reason }
    }
}

/// Iterates the embedded messages of one repeated field; stops at a fault.
///
/// Only for bytes that were checked before: [`crate::request`] walks every span once.
#[derive(Clone, Copy, Debug)]
pub struct Repeated<'a> {
    fields: Fields<'a>,
    number: u32,
}

impl<'a> Repeated<'a> {
    /// The occurrences of field `number` in the message `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8], number: u32) -> Self {
        Self { fields: Fields::new(bytes), number }
    }
}

impl<'a> Iterator for Repeated<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        while let Ok(Some((number, value))) = self.fields.next_field() {
            if number == self.number
                && let WireValue::Bytes(bytes) = value
            {
                return Some(bytes);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(bytes: &[u8]) -> &'static str {
        let mut fields = Fields::new(bytes);
        loop {
            match fields.next_field() {
                Ok(Some(_)) => {}
                Ok(None) => return "none",
                Err(error) => return error.reason,
            }
        }
    }

    /// Scenario: bytes that break the format in each way it can be broken.
    /// Guarantees: each is reported, none panics or reads past the end.
    #[test]
    fn reports_each_kind_of_broken_bytes() {
        assert_eq!(fault(&[]), "none");
        assert_eq!(fault(&[0x08, 0x96, 0x01]), "none");
        assert_eq!(fault(&[0x08]), "truncated number");
        assert_eq!(fault(&[0x00, 0x01]), "field number zero");
        assert_eq!(fault(&[0x0a, 0x05, 1, 2]), "length past the end");
        assert_eq!(fault(&[0x0b]), "unknown wire type");
        assert_eq!(fault(&[0x09, 1, 2, 3]), "length past the end");
        assert_eq!(fault(&[0xff; 11]), "number past 64 bits");
        let huge = [0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(fault(&huge), "length past the end");
    }
}
