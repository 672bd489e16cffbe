//! CSV for spreadsheets.
//!
//! Nested values are JSON text in one cell. Null is an empty cell, empty text is `""`. Text that a
//! spreadsheet would run as a formula gets a leading `'`, and control codes other than tab and
//! line ends are written as escapes: whoever needs the text exactly takes JSON.

use std::io::Write;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::Schema;
use arrow::error::ArrowError;

use crate::error::PresentError;
use crate::hostile::{escaped, looks_like_formula};
use crate::value::{is_nested, is_text, scalar_text, write_json};

/// A header line, then one line a row. Lines end with a line feed.
pub(crate) fn write_csv(
    schema: &Schema,
    batches: &[RecordBatch],
    out: &mut dyn Write,
) -> Result<(), PresentError> {
    let header: Vec<String> = schema.fields().iter().map(|field| text_cell(field.name())).collect();
    writeln!(out, "{}", header.join(","))?;
    for batch in batches {
        for row in 0..batch.num_rows() {
            let mut line = String::new();
            let fields = batch.schema_ref().fields().iter().zip(batch.columns());
            for (index, (field, column)) in fields.enumerate() {
                if 0 < index {
                    line.push(',');
                }
                let cell = cell(column.as_ref(), row).map_err(|source| PresentError::Value {
                    column: field.name().clone(),
                    source,
                })?;
                line.push_str(&cell);
            }
            line.push('\n');
            out.write_all(line.as_bytes())?;
        }
    }
    Ok(())
}

fn cell(array: &dyn Array, row: usize) -> Result<String, ArrowError> {
    if array.is_null(row) {
        return Ok(String::new());
    }
    if is_nested(array.data_type()) {
        let mut json = String::new();
        write_json(&mut json, array, row)?;
        return Ok(quoted(&json));
    }
    let text = scalar_text(array, row)?;
    // Numbers may start with a minus; they are no formulas.
    Ok(if is_text(array.data_type()) { text_cell(&text) } else { quoted(&text) })
}

fn text_cell(text: &str) -> String {
    if text.is_empty() {
        return "\"\"".to_owned();
    }
    let guard = if looks_like_formula(text) { "'" } else { "" };
    let safe = escaped(text, |character| matches!(character, '\t' | '\n' | '\r'));
    quoted(&format!("{guard}{safe}"))
}

fn quoted(text: &str) -> String {
    let plain = !text.contains([',', '"', '\n', '\r', '\t'])
        && !text.starts_with(' ')
        && !text.ends_with(' ');
    if plain { text.to_owned() } else { format!("\"{}\"", text.replace('"', "\"\"")) }
}
