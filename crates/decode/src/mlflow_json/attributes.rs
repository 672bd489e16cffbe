//! Attributes of MLflow's span JSON as OTLP attributes.
//!
//! MLflow keeps every attribute value as JSON text in a string, and its OTLP export sends what the
//! text means: `"\"TOOL\""` becomes the string `TOOL`, `"{\"k\": 4}"` a map, `"20"` an integer. The
//! same is done here, so that both copies of a span say the same. A text that is not JSON is the
//! value itself, and so is one with an integer of more than 64 bits, which OTLP cannot say.
//!
//! Values of events and links are not encoded, and are taken as they are.

use std::borrow::Cow;

use crate::otlp::fields::{any_value, array_value, key_value, key_value_list};
use crate::otlp_json::document::{Json, parse};
use crate::otlp_json::members::{Fault, Path, double_of, exact_integer, object};
use crate::writer::MessageWriter;

/// How attribute values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// JSON text in a string.
    JsonText,
    /// As they are.
    Plain,
}

/// Writes a map of attributes as the repeated `KeyValue` field `number`.
pub(super) fn write(
    out: &mut MessageWriter,
    number: u32,
    value: &Json<'_>,
    path: Path<'_>,
    encoding: Encoding,
) -> Result<(), Fault> {
    for (key, value) in object(value, path)? {
        out.message(number, |key_value| {
            key_value.bytes(key_value::KEY, key.as_bytes());
            let message = match value {
                Json::Text(text) if encoding == Encoding::JsonText => from_json_text(text),
                value => any_value(value).unwrap_or_else(|| string(&value.to_text())),
            };
            if !message.is_empty() {
                key_value.bytes(key_value::VALUE, &message);
            }
        });
    }
    Ok(())
}

/// What the JSON text of an attribute means, as plain text where it is a JSON string.
pub(super) fn decoded_text<'a>(attributes: Option<&Json<'a>>, key: &str) -> Option<Cow<'a, str>> {
    let Some(Json::Text(text)) = attributes.and_then(|attributes| attributes.member(&[key])) else {
        return None;
    };
    match parse(text) {
        Ok(Json::Text(inner)) => Some(Cow::Owned(inner.into_owned())),
        _ => Some(text.clone()),
    }
}

fn from_json_text(text: &str) -> Vec<u8> {
    if text.is_empty() {
        // MLflow takes an empty text for no value.
        return Vec::new();
    }
    parse(text).ok().and_then(|value| any_value(&value)).unwrap_or_else(|| string(text))
}

/// The message `AnyValue`, `None` if a number in it does not fit.
fn any_value(value: &Json<'_>) -> Option<Vec<u8>> {
    let mut out = MessageWriter::new();
    match value {
        Json::Null => {}
        Json::Bool(value) => out.number(any_value::BOOL_VALUE, u64::from(*value)),
        Json::Number(digits) if is_integer(digits) => {
            let number = i64::try_from(exact_integer(digits)?).ok()?;
            out.number(any_value::INT_VALUE, number.cast_unsigned());
        }
        Json::Number(digits) => out.fixed64(any_value::DOUBLE_VALUE, double_of(digits)?.to_bits()),
        Json::Text(text) => out.bytes(any_value::STRING_VALUE, text.as_bytes()),
        Json::Array(elements) => {
            let mut array = MessageWriter::new();
            for element in elements {
                array.bytes(array_value::VALUES, &any_value(element)?);
            }
            out.bytes(any_value::ARRAY_VALUE, array.as_bytes());
        }
        Json::Object(members) => {
            let mut entries = MessageWriter::new();
            for (key, value) in members {
                let mut entry = MessageWriter::new();
                entry.bytes(key_value::KEY, key.as_bytes());
                entry.bytes_nonzero(key_value::VALUE, &any_value(value)?);
                entries.bytes(key_value_list::VALUES, entry.as_bytes());
            }
            out.bytes(any_value::KVLIST_VALUE, entries.as_bytes());
        }
    }
    Some(out.into_bytes())
}

/// Python reads a number without point and exponent as an integer.
fn is_integer(digits: &str) -> bool {
    digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
}

fn string(text: &str) -> Vec<u8> {
    let mut out = MessageWriter::new();
    out.bytes(any_value::STRING_VALUE, text.as_bytes());
    out.into_bytes()
}
