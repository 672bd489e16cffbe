//! Attribute values as JSON text and back, without loss.
//!
//! The text is what the table holds: strings quoted, integers without a point, doubles always
//! with a point or an exponent, arrays, objects in the order sent. What JSON cannot say is an
//! object with one reserved member: `{"$bytes": "<base64>"}`, `{"$double": "NaN"}` (also
//! `Infinity`, `-Infinity`). A key of a sent map that would read as one of these gets one more `$`.
//! No value is `null`.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use tracelake_model::limits::MAX_NESTING_DEPTH;

use crate::view::ValueView;
use crate::writer::MessageWriter;

/// Appends the JSON text of `value` to `out`.
pub fn write_json(value: ValueView<'_>, out: &mut String) {
    match value {
        ValueView::Empty => out.push_str("null"),
        ValueView::String(text) => write_json_string(text, out),
        ValueView::Bool(true) => out.push_str("true"),
        ValueView::Bool(false) => out.push_str("false"),
        ValueView::Int(number) => {
            // Writing to a String cannot fail.
            write!(out, "{number}").ok();
        }
        ValueView::Double(number) => write_double(number, out),
        ValueView::Array(array) => {
            out.push('[');
            for (index, element) in array.iter().enumerate() {
                if 0 < index {
                    out.push(',');
                }
                write_json(element, out);
            }
            out.push(']');
        }
        ValueView::KeyValues(entries) => {
            out.push('{');
            for (index, entry) in entries.iter().enumerate() {
                if 0 < index {
                    out.push(',');
                }
                if is_reserved(entry.key) {
                    write_json_string(&format!("${}", entry.key), out);
                } else {
                    write_json_string(entry.key, out);
                }
                out.push(':');
                write_json(entry.value(), out);
            }
            out.push('}');
        }
        ValueView::Bytes(bytes) => {
            out.push_str("{\"$bytes\":\"");
            STANDARD.encode_string(bytes, out);
            out.push_str("\"}");
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

fn write_double(number: f64, out: &mut String) {
    let name = if number.is_nan() {
        "NaN"
    } else if number == f64::INFINITY {
        "Infinity"
    } else if number == f64::NEG_INFINITY {
        "-Infinity"
    } else {
        // `{:?}` is the shortest text that reads back as the same double, and marks it as one.
        write!(out, "{number:?}").ok();
        return;
    };
    write!(out, "{{\"$double\":\"{name}\"}}").ok();
}

/// Appends `text` as a JSON string, escaping only what JSON demands.
pub fn write_json_string(text: &str, out: &mut String) {
    out.push('"');
    let mut rest = text;
    while let Some(position) = rest.bytes().position(|b| b < 0x20 || b == b'"' || b == b'\\') {
        let (plain, tail) = rest.split_at(position);
        out.push_str(plain);
        let mut characters = tail.chars();
        match characters.next() {
            Some('"') => out.push_str("\\\""),
            Some('\\') => out.push_str("\\\\"),
            Some('\n') => out.push_str("\\n"),
            Some('\r') => out.push_str("\\r"),
            Some('\t') => out.push_str("\\t"),
            Some(control) => {
                write!(out, "\\u{:04x}", u32::from(control)).ok();
            }
            None => {}
        }
        rest = characters.as_str();
    }
    out.push_str(rest);
    out.push('"');
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

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Vec<u8>, E> {
        Ok(Vec::new())
    }

    fn visit_bool<E>(self, value: bool) -> Result<Vec<u8>, E> {
        Ok(scalar(|writer| writer.number(2, u64::from(value))))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Vec<u8>, E> {
        Ok(scalar(|writer| writer.number(3, value.cast_unsigned())))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Vec<u8>, E> {
        Ok(scalar(|writer| writer.number(3, value)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Vec<u8>, E> {
        Ok(scalar(|writer| writer.fixed64(4, value.to_bits())))
    }

    fn visit_str<E>(self, value: &str) -> Result<Vec<u8>, E> {
        Ok(scalar(|writer| writer.bytes(1, value.as_bytes())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<u8>, A::Error> {
        let mut array = MessageWriter::new();
        let inner = self.inner()?;
        while let Some(element) = elements.next_element_seed(inner)? {
            array.bytes(1, &element);
        }
        Ok(scalar(|writer| writer.bytes(5, array.as_bytes())))
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
                    return Ok(scalar(|writer| writer.bytes(7, &bytes)));
                }
                "$double" if first => {
                    let text: String = entries.next_value()?;
                    let number: f64 = text.parse().map_err(serde::de::Error::custom)?;
                    return Ok(scalar(|writer| writer.fixed64(4, number.to_bits())));
                }
                _ => {}
            }
            first = false;
            let value = entries.next_value_seed(inner)?;
            list.message(1, |entry| {
                let sent = key.strip_prefix('$').filter(|rest| is_reserved(rest)).unwrap_or(&key);
                entry.bytes(1, sent.as_bytes());
                entry.bytes_nonzero(2, &value);
            });
        }
        Ok(scalar(|writer| writer.bytes(6, list.as_bytes())))
    }
}

fn scalar(write: impl FnOnce(&mut MessageWriter)) -> Vec<u8> {
    let mut writer = MessageWriter::new();
    write(&mut writer);
    writer.into_bytes()
}

#[cfg(test)]
mod tests;
