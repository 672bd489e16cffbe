//! One Arrow value as compact JSON, or as plain text where it is a scalar.

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::error::ArrowError;
use arrow::temporal_conversions::{
    timestamp_ms_to_datetime, timestamp_ns_to_datetime, timestamp_s_to_datetime,
    timestamp_us_to_datetime,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::hostile::is_dangerous;

/// Appends the value at `row` as JSON. Integers keep all their digits, timestamps are RFC 3339,
/// maps are objects, bytes are hexadecimal text, and what JSON has no number for is null.
pub(crate) fn write_json(
    json: &mut String,
    array: &dyn Array,
    row: usize,
) -> Result<(), ArrowError> {
    if array.is_null(row) {
        json.push_str("null");
        return Ok(());
    }
    match array.data_type() {
        DataType::Null => json.push_str("null"),
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::UInt64 => json.push_str(&scalar_text(array, row)?),
        DataType::Float16 | DataType::Float32 | DataType::Float64 => {
            let text = scalar_text(array, row)?;
            let finite = text.parse::<f64>().is_ok_and(f64::is_finite);
            json.push_str(if finite { &text } else { "null" });
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            json.push('{');
            for (index, (field, column)) in fields.iter().zip(columns).enumerate() {
                if 0 < index {
                    json.push(',');
                }
                push_string(json, field.name());
                json.push(':');
                write_json(json, column.as_ref(), row)?;
            }
            json.push('}');
        }
        DataType::List(_) => write_list(json, array.as_list::<i32>().value(row).as_ref())?,
        DataType::LargeList(_) => write_list(json, array.as_list::<i64>().value(row).as_ref())?,
        DataType::FixedSizeList(..) => {
            write_list(json, array.as_fixed_size_list().value(row).as_ref())?;
        }
        DataType::Map(..) => write_map(json, array, row)?,
        DataType::Dictionary(_, value_type) => {
            let plain = cast(&array.slice(row, 1), value_type)?;
            write_json(json, plain.as_ref(), 0)?;
        }
        _ => push_string(json, &scalar_text(array, row)?),
    }
    Ok(())
}

fn write_list(json: &mut String, elements: &dyn Array) -> Result<(), ArrowError> {
    json.push('[');
    for index in 0..elements.len() {
        if 0 < index {
            json.push(',');
        }
        write_json(json, elements, index)?;
    }
    json.push(']');
    Ok(())
}

fn write_map(json: &mut String, array: &dyn Array, row: usize) -> Result<(), ArrowError> {
    let entries = array.as_map().value(row);
    let [keys, values] = entries.columns() else {
        return Err(ArrowError::SchemaError("map entries are not pairs".into()));
    };
    json.push('{');
    for index in 0..entries.len() {
        if 0 < index {
            json.push(',');
        }
        push_string(json, &scalar_text(keys.as_ref(), index)?);
        json.push(':');
        write_json(json, values.as_ref(), index)?;
    }
    json.push('}');
    Ok(())
}

/// Appends `text` as a JSON string. Codes that a terminal may act on are written as escapes,
/// which mean the same to every JSON reader.
pub(crate) fn push_string(json: &mut String, text: &str) {
    json.push('"');
    for character in text.chars() {
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            _ if is_dangerous(character) => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    json.push_str(&format!("\\u{unit:04x}"));
                }
            }
            _ => json.push(character),
        }
    }
    json.push('"');
}

/// Whether a value of this type is shown as JSON rather than as plain text.
pub(crate) fn is_nested(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, value) => is_nested(value),
        _ => data_type.is_nested(),
    }
}

/// Whether values of this type are text that somebody wrote.
pub(crate) fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, value) => is_text(value),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        _ => false,
    }
}

/// The scalar at `row` as plain text, without quotes. Not for nulls.
pub(crate) fn scalar_text(array: &dyn Array, row: usize) -> Result<String, ArrowError> {
    Ok(match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(row).to_owned(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(row).to_owned(),
        DataType::Utf8View => array.as_string_view().value(row).to_owned(),
        DataType::Boolean => array.as_boolean().value(row).to_string(),
        DataType::Int8 => array.as_primitive::<Int8Type>().value(row).to_string(),
        DataType::Int16 => array.as_primitive::<Int16Type>().value(row).to_string(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::UInt8 => array.as_primitive::<UInt8Type>().value(row).to_string(),
        DataType::UInt16 => array.as_primitive::<UInt16Type>().value(row).to_string(),
        DataType::UInt32 => array.as_primitive::<UInt32Type>().value(row).to_string(),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().value(row).to_string(),
        DataType::Float16 => {
            float_text(f64::from(array.as_primitive::<Float16Type>().value(row).to_f32()))
        }
        // Through its own shortest digits: 0.1 stays 0.1.
        DataType::Float32 => format!("{:?}", array.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => float_text(array.as_primitive::<Float64Type>().value(row)),
        DataType::Timestamp(unit, zone) => timestamp_text(array, row, *unit, zone.is_some())?,
        DataType::Dictionary(_, value_type) => {
            let plain = cast(&array.slice(row, 1), value_type)?;
            return scalar_text(plain.as_ref(), 0);
        }
        _ => formatted(array, row)?,
    })
}

fn float_text(value: f64) -> String {
    format!("{value:?}")
}

fn formatted(array: &dyn Array, row: usize) -> Result<String, ArrowError> {
    let options = FormatOptions::default();
    ArrayFormatter::try_new(array, &options)?.value(row).try_to_string()
}

/// RFC 3339 in UTC with microseconds; with nanoseconds where the type has them. Without a zone
/// the text has none either.
fn timestamp_text(
    array: &dyn Array,
    row: usize,
    unit: TimeUnit,
    has_zone: bool,
) -> Result<String, ArrowError> {
    let (value, time) = match unit {
        TimeUnit::Second => {
            let value = array.as_primitive::<TimestampSecondType>().value(row);
            (value, timestamp_s_to_datetime(value))
        }
        TimeUnit::Millisecond => {
            let value = array.as_primitive::<TimestampMillisecondType>().value(row);
            (value, timestamp_ms_to_datetime(value))
        }
        TimeUnit::Microsecond => {
            let value = array.as_primitive::<TimestampMicrosecondType>().value(row);
            (value, timestamp_us_to_datetime(value))
        }
        TimeUnit::Nanosecond => {
            let value = array.as_primitive::<TimestampNanosecondType>().value(row);
            (value, timestamp_ns_to_datetime(value))
        }
    };
    let Some(time) = time else {
        // A year that no calendar text has room for.
        return Ok(value.to_string());
    };
    let pattern = if unit == TimeUnit::Nanosecond {
        "%Y-%m-%dT%H:%M:%S%.9f"
    } else {
        "%Y-%m-%dT%H:%M:%S%.6f"
    };
    let zone = if has_zone { "Z" } else { "" };
    Ok(format!("{}{zone}", time.format(pattern)))
}
