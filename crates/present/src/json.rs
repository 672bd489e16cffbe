//! JSON for programs: one array of objects, or one object a line.

use std::io::Write;

use arrow::array::RecordBatch;

use crate::error::PresentError;
use crate::value::{push_string, write_json};

/// An array of objects, one row a line.
pub(crate) fn write_array(
    batches: &[RecordBatch],
    out: &mut dyn Write,
) -> Result<(), PresentError> {
    out.write_all(b"[")?;
    let mut first = true;
    for batch in batches {
        for row in 0..batch.num_rows() {
            out.write_all(if first { b"\n" } else { b",\n" })?;
            first = false;
            out.write_all(object(batch, row)?.as_bytes())?;
        }
    }
    out.write_all(if first { b"]\n" } else { b"\n]\n" })?;
    Ok(())
}

/// One object a line.
pub(crate) fn write_lines(
    batches: &[RecordBatch],
    out: &mut dyn Write,
) -> Result<(), PresentError> {
    for batch in batches {
        for row in 0..batch.num_rows() {
            let mut line = object(batch, row)?;
            line.push('\n');
            out.write_all(line.as_bytes())?;
        }
    }
    Ok(())
}

fn object(batch: &RecordBatch, row: usize) -> Result<String, PresentError> {
    let mut json = String::from("{");
    let schema = batch.schema_ref();
    for (index, (field, column)) in schema.fields().iter().zip(batch.columns()).enumerate() {
        if 0 < index {
            json.push(',');
        }
        push_string(&mut json, field.name());
        json.push(':');
        write_json(&mut json, column.as_ref(), row)
            .map_err(|source| PresentError::Value { column: field.name().clone(), source })?;
    }
    json.push('}');
    Ok(json)
}
