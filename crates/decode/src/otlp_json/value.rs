//! `AnyValue`, attributes, resource and scope.

use super::document::Json;
use super::members::{Fault, Path, base64_bytes, boolean, double, integer, list, object, text};
use crate::otlp::fields::{any_value, array_value, key_value, key_value_list, resource, scope};
use crate::writer::MessageWriter;

/// Writes a list of `KeyValue` as the repeated field `number`.
pub(crate) fn attributes(
    out: &mut MessageWriter,
    number: u32,
    value: &Json<'_>,
    path: Path<'_>,
) -> Result<(), Fault> {
    for (index, entry) in list(value, path)?.iter().enumerate() {
        let path = path.element(index);
        let mut key_value = MessageWriter::new();
        for (name, value) in object(entry, path)? {
            match name.as_ref() {
                _ if matches!(value, Json::Null) => {}
                "key" => {
                    key_value.bytes(key_value::KEY, text(value, path.member("key"))?.as_bytes())
                }
                "value" => {
                    key_value.bytes(key_value::VALUE, &any_value(value, path.member("value"))?)
                }
                _ => {}
            }
        }
        out.bytes(number, key_value.as_bytes());
    }
    Ok(())
}

/// The message `AnyValue`; empty for null and `{}`.
pub(crate) fn any_value(value: &Json<'_>, path: Path<'_>) -> Result<Vec<u8>, Fault> {
    let mut out = MessageWriter::new();
    if matches!(value, Json::Null) {
        return Ok(Vec::new());
    }
    let members = object(value, path)?;
    let mut known = members.is_empty();
    for (name, value) in members {
        let path = path.member(name);
        match name.as_ref() {
            _ if matches!(value, Json::Null) => {}
            "stringValue" | "string_value" => {
                out.bytes(any_value::STRING_VALUE, text(value, path)?.as_bytes())
            }
            "boolValue" | "bool_value" => {
                out.number(any_value::BOOL_VALUE, u64::from(boolean(value, path)?))
            }
            "intValue" | "int_value" => {
                let number: i64 = integer(value, path, "an integer of 64 bits")?;
                out.number(any_value::INT_VALUE, number.cast_unsigned());
            }
            "doubleValue" | "double_value" => {
                out.fixed64(any_value::DOUBLE_VALUE, double(value, path)?.to_bits())
            }
            "arrayValue" | "array_value" => {
                let mut array = MessageWriter::new();
                for (values, path) in values_of(value, path)? {
                    for (index, value) in list(values, path)?.iter().enumerate() {
                        array.bytes(array_value::VALUES, &any_value(value, path.element(index))?);
                    }
                }
                out.bytes(any_value::ARRAY_VALUE, array.as_bytes());
            }
            "kvlistValue" | "kvlist_value" => {
                let mut entries = MessageWriter::new();
                for (values, path) in values_of(value, path)? {
                    attributes(&mut entries, key_value_list::VALUES, values, path)?;
                }
                out.bytes(any_value::KVLIST_VALUE, entries.as_bytes());
            }
            "bytesValue" | "bytes_value" => {
                let bytes = base64_bytes(text(value, path)?);
                out.bytes(
                    any_value::BYTES_VALUE,
                    &bytes.ok_or_else(|| path.expected("base64", value))?,
                );
            }
            _ => continue,
        }
        known = true;
    }
    // An object of unknown members would pass for an empty value.
    if known { Ok(out.into_bytes()) } else { Err(path.expected("a kind of AnyValue", value)) }
}

/// The members `values` of an `ArrayValue` or `KeyValueList`.
fn values_of<'j, 'a, 'p>(
    value: &'j Json<'a>,
    path: Path<'p>,
) -> Result<Vec<(&'j Json<'a>, Path<'p>)>, Fault> {
    let members = object(value, path)?.iter().filter(|(name, _)| name == "values");
    Ok(members.map(|(_, values)| (values, path)).collect())
}

/// The message `Resource`.
pub(super) fn resource(value: &Json<'_>, path: Path<'_>) -> Result<Vec<u8>, Fault> {
    let mut out = MessageWriter::new();
    for (name, value) in object(value, path)? {
        let path = path.member(name);
        match name.as_ref() {
            _ if matches!(value, Json::Null) => {}
            "attributes" => attributes(&mut out, resource::ATTRIBUTES, value, path)?,
            "droppedAttributesCount" | "dropped_attributes_count" => {
                out.number_nonzero(resource::DROPPED_ATTRIBUTES_COUNT, count(value, path)?);
            }
            _ => {}
        }
    }
    Ok(out.into_bytes())
}

/// The message `InstrumentationScope`.
pub(super) fn scope(value: &Json<'_>, path: Path<'_>) -> Result<Vec<u8>, Fault> {
    let mut out = MessageWriter::new();
    for (name, value) in object(value, path)? {
        let path = path.member(name);
        match name.as_ref() {
            _ if matches!(value, Json::Null) => {}
            "name" => out.bytes_nonzero(scope::NAME, text(value, path)?.as_bytes()),
            "version" => out.bytes_nonzero(scope::VERSION, text(value, path)?.as_bytes()),
            "attributes" => attributes(&mut out, scope::ATTRIBUTES, value, path)?,
            "droppedAttributesCount" | "dropped_attributes_count" => {
                out.number_nonzero(scope::DROPPED_ATTRIBUTES_COUNT, count(value, path)?);
            }
            _ => {}
        }
    }
    Ok(out.into_bytes())
}

/// A `uint32`.
pub(super) fn count(value: &Json<'_>, path: Path<'_>) -> Result<u64, Fault> {
    let number: u32 = integer(value, path, "an integer from 0 to 4294967295")?;
    Ok(u64::from(number))
}
