//! Attribute values as JSON text and back, without loss.
//!
//! The text is what the table holds: strings quoted, integers without a point, doubles always
//! with a point or an exponent, arrays, objects in the order sent. What JSON cannot say is an
//! object with one reserved member: `{"$bytes": "<base64>"}`, `{"$double": "NaN"}` (also
//! `Infinity`, `-Infinity`). A key of a sent map that would read as one of these gets one more `$`.
//! No value is `null`.

use std::fmt;

use base64::Engine as _;
use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use tracelake_model::limits::MAX_NESTING_DEPTH;

use crate::otlp::fields::{any_value, array_value, key_value, key_value_list};
use crate::otlp::view::ValueView;
use crate::writer::MessageWriter;

/// Appends the JSON text of `value` to `out`, which is text in memory: writing to it cannot fail.
pub fn write_json<W: fmt::Write>(value: ValueView<'_>, out: &mut W) {
    write_value(value, out).ok();
}

fn write_value<W: fmt::Write>(value: ValueView<'_>, out: &mut W) -> fmt::Result {
    match value {
        ValueView::Empty => out.write_str("null"),
        ValueView::String(text) => write_string(text, out),
        ValueView::Bool(true) => out.write_str("true"),
        ValueView::Bool(false) => out.write_str("false"),
        ValueView::Int(number) => write!(out, "{number}"),
        ValueView::Double(number) => write_double(number, out),
        ValueView::Array(array) => {
            out.write_char('[')?;
            for (index, element) in array.iter().enumerate() {
                if 0 < index {
                    out.write_char(',')?;
                }
                write_value(element, out)?;
            }
            out.write_char(']')
        }
        ValueView::KeyValues(entries) => {
            out.write_char('{')?;
            for (index, entry) in entries.iter().enumerate() {
                if 0 < index {
                    out.write_char(',')?;
                }
                if is_reserved(entry.key) {
                    write_string(&format!("${}", entry.key), out)?;
                } else {
                    write_string(entry.key, out)?;
                }
                out.write_char(':')?;
                write_value(entry.value(), out)?;
            }
            out.write_char('}')
        }
        ValueView::Bytes(bytes) => {
            write!(out, "{{\"$bytes\":\"{}\"}}", Base64Display::new(bytes, &STANDARD))
        }
    }
}

/// The JSON text of `value`.
#[must_use]
pub fn to_json(value: ValueView<'_>) -> String {
    let mut out = String::new();
    write_json(value, &mut out);
    out
}

/// True for `$bytes`, `$double`, and these with more `$` before them.
fn is_reserved(key: &str) -> bool {
    key.starts_with('$') && matches!(key.trim_start_matches('$'), "bytes" | "double")
}

fn write_double<W: fmt::Write>(number: f64, out: &mut W) -> fmt::Result {
    let name = if number.is_nan() {
        "NaN"
    } else if number == f64::INFINITY {
        "Infinity"
    } else if number == f64::NEG_INFINITY {
        "-Infinity"
    } else {
        // `{:?}` is the shortest text that reads back as the same double, and marks it as one.
        return write!(out, "{number:?}");
    };
    write!(out, "{{\"$double\":\"{name}\"}}")
}

/// Appends `text` as a JSON string, escaping only what JSON demands.
pub fn write_json_string<W: fmt::Write>(text: &str, out: &mut W) {
    write_string(text, out).ok();
}

fn write_string<W: fmt::Write>(text: &str, out: &mut W) -> fmt::Result {
    out.write_char('"')?;
    let mut rest = text;
    while let Some((plain, tail)) = rest.split_at_checked(plain_bytes(rest.as_bytes()))
        && !tail.is_empty()
    {
        out.write_str(plain)?;
        let mut characters = tail.chars();
        match characters.next() {
            Some('"') => out.write_str("\\\"")?,
            Some('\\') => out.write_str("\\\\")?,
            Some('\n') => out.write_str("\\n")?,
            Some('\r') => out.write_str("\\r")?,
            Some('\t') => out.write_str("\\t")?,
            Some(control) => write!(out, "\\u{:04x}", u32::from(control))?,
            None => {}
        }
        rest = characters.as_str();
    }
    out.write_str(rest)?;
    out.write_char('"')
}

/// Bytes before the first that JSON escapes. Payloads are long and mostly plain: a chunk at a time is
/// looked at without a branch per byte.
fn plain_bytes(bytes: &[u8]) -> usize {
    const CHUNK: usize = 32;
    let is_special = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    let plain = bytes
        .chunks_exact(CHUNK)
        .take_while(|chunk| !chunk.iter().fold(false, |any, byte| any | is_special(*byte)))
        .count()
        * CHUNK;
    let rest = bytes.get(plain..).unwrap_or_default();
    plain + rest.iter().position(|byte| is_special(*byte)).unwrap_or(rest.len())
}

/// A value read back from the table's JSON text, as an `AnyValue` message.
///
/// # Errors
/// The parser's words when the text is not what [`write_json`] writes, or nested deeper than
/// anything that was ever accepted: others may write to the table as well.
pub fn json_to_message(text: &str) -> Result<Vec<u8>, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    // Ours instead: the parser's own is below what may have been accepted.
    deserializer.disable_recursion_limit();
    let message = deserializer.deserialize_any(ValueVisitor { levels_left: MAX_LEVELS })?;
    deserializer.end()?;
    Ok(message)
}

/// Levels of arrays and maps in a value's text: those of a value that may be accepted, and some.
const MAX_LEVELS: usize = MAX_NESTING_DEPTH + 8;

/// Reads one JSON value into an `AnyValue` message.
#[derive(Clone, Copy)]
struct ValueVisitor {
    levels_left: usize,
}

impl ValueVisitor {
    /// For the elements of an array or map.
    fn inner<E: serde::de::Error>(self) -> Result<Self, E> {
        let levels_left = self.levels_left.checked_sub(1);
        let levels_left = levels_left.ok_or_else(|| E::custom("nested too deep"))?;
        Ok(Self { levels_left })
    }
}

impl<'de> serde::de::DeserializeSeed<'de> for ValueVisitor {
    type Value = Vec<u8>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<u8>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Vec<u8>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Vec<u8>, E> {
        Ok(Vec::new())
    }

    fn visit_bool<E>(self, value: bool) -> Result<Vec<u8>, E> {
        Ok(scalar(|writer| writer.number(any_value::BOOL_VALUE, u64::from(value))))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Vec<u8>, E> {
        Ok(scalar(|writer| writer.number(any_value::INT_VALUE, value.cast_unsigned())))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Vec<u8>, E> {
        Ok(scalar(|writer| writer.number(any_value::INT_VALUE, value)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Vec<u8>, E> {
        Ok(scalar(|writer| writer.fixed64(any_value::DOUBLE_VALUE, value.to_bits())))
    }

    fn visit_str<E>(self, value: &str) -> Result<Vec<u8>, E> {
        Ok(scalar(|writer| writer.bytes(any_value::STRING_VALUE, value.as_bytes())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<u8>, A::Error> {
        let mut array = MessageWriter::new();
        let inner = self.inner()?;
        while let Some(element) = elements.next_element_seed(inner)? {
            array.bytes(array_value::VALUES, &element);
        }
        Ok(scalar(|writer| writer.bytes(any_value::ARRAY_VALUE, array.as_bytes())))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Vec<u8>, A::Error> {
        let mut list = MessageWriter::new();
        let inner = self.inner()?;
        let mut first = true;
        while let Some(key) = entries.next_key::<String>()? {
            match key.as_str() {
                "$bytes" if first => {
                    let text: String = entries.next_value()?;
                    let bytes = STANDARD.decode(text).map_err(serde::de::Error::custom)?;
                    return Ok(scalar(|writer| writer.bytes(any_value::BYTES_VALUE, &bytes)));
                }
                "$double" if first => {
                    let text: String = entries.next_value()?;
                    let number: f64 = text.parse().map_err(serde::de::Error::custom)?;
                    return Ok(scalar(|writer| {
                        writer.fixed64(any_value::DOUBLE_VALUE, number.to_bits())
                    }));
                }
                _ => {}
            }
            first = false;
            let value = entries.next_value_seed(inner)?;
            list.message(key_value_list::VALUES, |entry| {
                let sent = key.strip_prefix('$').filter(|rest| is_reserved(rest)).unwrap_or(&key);
                entry.bytes(key_value::KEY, sent.as_bytes());
                entry.bytes_nonzero(key_value::VALUE, &value);
            });
        }
        Ok(scalar(|writer| writer.bytes(any_value::KVLIST_VALUE, list.as_bytes())))
    }
}

fn scalar(write: impl FnOnce(&mut MessageWriter)) -> Vec<u8> {
    let mut writer = MessageWriter::new();
    write(&mut writer);
    writer.into_bytes()
}

#[cfg(test)]
mod tests;
