//! Reads values out of a trace's row by name. What is not there, or has another type, is none.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StructArray};
use arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};

use crate::value::scalar_text;

/// Columns that are looked up by name: a batch's, or the fields of a struct.
pub(super) trait Columns {
    /// The column of that name.
    fn named(&self, name: &str) -> Option<&ArrayRef>;
}

impl Columns for RecordBatch {
    fn named(&self, name: &str) -> Option<&ArrayRef> {
        self.column_by_name(name)
    }
}

impl Columns for StructArray {
    fn named(&self, name: &str) -> Option<&ArrayRef> {
        self.column_by_name(name)
    }
}

/// The column, if it has a value at `row`.
fn present<'a>(columns: &'a dyn Columns, name: &str, row: usize) -> Option<&'a ArrayRef> {
    columns.named(name).filter(|column| row < column.len() && column.is_valid(row))
}

/// A scalar as text, without what is empty.
pub(super) fn text(columns: &dyn Columns, name: &str, row: usize) -> Option<String> {
    let column = present(columns, name, row).filter(|column| !column.data_type().is_nested())?;
    scalar_text(column.as_ref(), row).ok().filter(|text| !text.is_empty())
}

/// A whole number.
pub(super) fn integer(columns: &dyn Columns, name: &str, row: usize) -> Option<i64> {
    let column = present(columns, name, row)?;
    match column.data_type() {
        DataType::Int64 => Some(column.as_primitive::<Int64Type>().value(row)),
        DataType::Int32 => Some(i64::from(column.as_primitive::<Int32Type>().value(row))),
        _ => None,
    }
}

/// A number with fractions.
pub(super) fn float(columns: &dyn Columns, name: &str, row: usize) -> Option<f64> {
    let column = present(columns, name, row)?;
    column.as_primitive_opt::<Float64Type>().map(|floats| floats.value(row))
}

/// Yes or no.
pub(super) fn boolean(columns: &dyn Columns, name: &str, row: usize) -> Option<bool> {
    present(columns, name, row)?.as_boolean_opt().map(|booleans| booleans.value(row))
}

/// A timestamp in nanoseconds since the epoch.
pub(super) fn timestamp_nanos(columns: &dyn Columns, name: &str, row: usize) -> Option<i64> {
    let column = present(columns, name, row)?;
    let micros = column.as_primitive_opt::<TimestampMicrosecondType>()?.value(row);
    micros.checked_mul(1000)
}

/// The fields of a struct.
pub(super) fn fields<'a>(
    columns: &'a dyn Columns,
    name: &str,
    row: usize,
) -> Option<&'a StructArray> {
    present(columns, name, row)?.as_struct_opt()
}

/// The structs of a list; none when the list is null or empty.
pub(super) fn structs(columns: &dyn Columns, name: &str, row: usize) -> Option<StructArray> {
    let list = present(columns, name, row)?.as_list_opt::<i32>()?.value(row);
    list.as_struct_opt().filter(|structs| !structs.is_empty()).cloned()
}

/// The texts of a list.
pub(super) fn texts(columns: &dyn Columns, name: &str, row: usize) -> Vec<String> {
    let Some(list) = present(columns, name, row).and_then(|column| column.as_list_opt::<i32>())
    else {
        return Vec::new();
    };
    let values = list.value(row);
    let valid = (0..values.len()).filter(|index| values.is_valid(*index));
    valid.filter_map(|index| scalar_text(values.as_ref(), index).ok()).collect()
}

/// The entries of a map of texts, in their order.
pub(super) fn entries(columns: &dyn Columns, name: &str, row: usize) -> Vec<(String, String)> {
    let Some(map) = present(columns, name, row).and_then(|column| column.as_map_opt()) else {
        return Vec::new();
    };
    let entries = map.value(row);
    let [keys, values] = entries.columns() else { return Vec::new() };
    let text = |array: &ArrayRef, index: usize| match array.is_valid(index) {
        true => scalar_text(array.as_ref(), index).unwrap_or_default(),
        false => String::new(),
    };
    (0..entries.len()).map(|index| (text(keys, index), text(values, index))).collect()
}

/// A JSON text as people read it: a string without its quotes, anything else as it is.
pub(super) fn unquoted(json: &str) -> String {
    serde_json::from_str::<String>(json).unwrap_or_else(|_| json.to_owned())
}
