//! Trace and span ids, as OpenTelemetry defines them: 16 and 8 bytes.
//!
//! MLflow writes a trace id as `tr-<32 lowercase hex digits>`; both forms are one identity.

use std::fmt;

use serde::{Deserialize as _, Deserializer, Serializer};

/// Identity of a trace: 16 bytes. Displays as 32 lowercase hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TraceId(pub [u8; 16]);

/// Identity of a span within its trace: 8 bytes. Displays as 16 lowercase hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SpanId(pub [u8; 8]);

impl TraceId {
    /// MLflow's spelling, `tr-<hex>`: the value of the table's `trace_id` column.
    #[must_use]
    pub fn to_mlflow(self) -> String {
        let mut text = String::with_capacity(35);
        text.push_str("tr-");
        push_hex(&mut text, &self.0);
        text
    }

    /// Reads MLflow's `tr-<hex>` or plain 32 hex digits, upper or lower case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        parse_hex(text.strip_prefix("tr-").unwrap_or(text)).map(Self)
    }

    /// An id of all zero bytes names no trace (OpenTelemetry specification, SpanContext).
    #[must_use]
    pub fn is_valid(self) -> bool {
        self.0 != [0; 16]
    }
}

impl SpanId {
    /// Reads 16 hex digits, upper or lower case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        parse_hex(text).map(Self)
    }

    /// An id of all zero bytes names no span.
    #[must_use]
    pub fn is_valid(self) -> bool {
        self.0 != [0; 8]
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "TraceId({self})")
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SpanId({self})")
    }
}

/// Lowercase hex digits of `bytes`.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    push_hex(&mut text, bytes);
    text
}

/// The lowercase hex digits of the first 16 of `bytes`, written into `digits`: for rows, where a string of
/// its own for every id costs more than the id.
#[must_use]
pub fn hex_in<'d>(bytes: &[u8], digits: &'d mut [u8; 32]) -> &'d str {
    let mut used = 0;
    for (byte, pair) in bytes.iter().zip(digits.chunks_exact_mut(2)) {
        pair[0] = HEX_DIGITS[usize::from(byte >> 4)];
        pair[1] = HEX_DIGITS[usize::from(byte & 15)];
        used += 2;
    }
    std::str::from_utf8(digits.get(..used).unwrap_or_default()).unwrap_or_default()
}

const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Appends the lowercase hex digits of `bytes` to `text`.
pub fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        text.push(char::from(HEX_DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(HEX_DIGITS[usize::from(byte & 15)]));
    }
}

/// Reads exactly `2 * N` hex digits.
#[must_use]
pub fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
    }
    Some(bytes)
}

/// The value of one hex digit, upper or lower case.
#[must_use]
pub const fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Writes a trace id as text, for serde.
pub(crate) fn write_trace_id<S: Serializer>(
    id: &TraceId,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

/// Reads a trace id from text, for serde.
pub(crate) fn read_trace_id<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<TraceId, D::Error> {
    let text = String::deserialize(deserializer)?;
    TraceId::parse(&text).ok_or_else(|| serde::de::Error::custom("not a trace id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: one id in MLflow's and in OpenTelemetry's spelling, and malformed ones.
    /// Guarantees: both spellings are one identity; wrong length or digits are refused.
    #[test]
    fn reads_both_spellings_of_a_trace_id() {
        let id = TraceId::parse("tr-0123456789abcdef0123456789ABCDEF").unwrap();
        assert_eq!(id, TraceId::parse("0123456789abcdef0123456789abcdef").unwrap());
        assert_eq!(id.to_mlflow(), "tr-0123456789abcdef0123456789abcdef");
        for wrong in ["", "tr-", "tr-12", "0123456789abcdef0123456789abcdeg", "tr-\u{e9}"] {
            assert_eq!(TraceId::parse(wrong), None, "{wrong}");
        }
    }
}
