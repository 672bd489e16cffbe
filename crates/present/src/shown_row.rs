//! The values of a row as they are shown: safe to print, on one line, cut.

use arrow::array::{Array, RecordBatch};
use arrow::error::ArrowError;

use crate::error::PresentError;
use crate::hostile::escaped;
use crate::options::RenderOptions;
use crate::style::Tone;
use crate::value::{is_nested, is_text, scalar_text, write_json};
use crate::width::cut;

/// How a null is shown. Empty text is shown as nothing.
const NULL: &str = "null";

/// One value as it is shown.
#[derive(Clone, Debug)]
pub(crate) struct ShownValue {
    /// Safe to print, on one line, cut.
    pub(crate) text: String,
    /// Its colour.
    pub(crate) tone: Tone,
    /// Whether it stands to the right.
    pub(crate) is_number: bool,
}

/// The values of one row, in the order of the columns.
pub(crate) fn shown_row(
    batch: &RecordBatch,
    row: usize,
    options: &RenderOptions,
) -> Result<Vec<ShownValue>, PresentError> {
    let mut values = Vec::with_capacity(batch.num_columns());
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let value = shown_value(column.as_ref(), row, options)
            .map_err(|source| PresentError::Value { column: field.name().clone(), source })?;
        values.push(value);
    }
    Ok(values)
}

fn shown_value(
    array: &dyn Array,
    row: usize,
    options: &RenderOptions,
) -> Result<ShownValue, ArrowError> {
    if array.is_null(row) {
        return Ok(ShownValue { text: NULL.into(), tone: Tone::Faint, is_number: false });
    }
    if is_nested(array.data_type()) {
        let mut json = String::new();
        write_json(&mut json, array, row)?;
        let text = cut(&escaped(&json, |_| false), options.nested_chars());
        return Ok(ShownValue { text, tone: Tone::Plain, is_number: false });
    }
    let text = cut(&escaped(&scalar_text(array, row)?, |_| false), options.max_cell);
    let is_word = is_text(array.data_type());
    let tone = if is_word { Tone::of_word(&text) } else { Tone::Plain };
    Ok(ShownValue { text, tone, is_number: array.data_type().is_numeric() })
}
