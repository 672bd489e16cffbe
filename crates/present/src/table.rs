//! A table for people.

use std::io::Write;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use comfy_table::presets::ASCII_FULL_CONDENSED;
use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table};

use crate::error::PresentError;
use crate::hostile::{cut, escaped};
use crate::render::RenderOptions;
use crate::value::{is_nested, is_text, scalar_text, write_json};

/// A header, the rows, and a line that counts them.
pub(crate) fn write_table(
    schema: &Schema,
    batches: &[RecordBatch],
    out: &mut dyn Write,
    options: &RenderOptions,
) -> Result<(), PresentError> {
    let mut table = Table::new();
    table.load_preset(ASCII_FULL_CONDENSED);
    if options.color {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    match options.width.and_then(|width| u16::try_from(width).ok()) {
        Some(width) => {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        }
        None => {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
    }
    table.set_header(schema.fields().iter().map(|field| {
        let cell = Cell::new(escaped(field.name(), |_| false));
        if options.color { cell.add_attribute(Attribute::Bold) } else { cell }
    }));
    let mut rows: usize = 0;
    for batch in batches {
        for row in 0..batch.num_rows() {
            let mut cells = Vec::with_capacity(batch.num_columns());
            for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
                let cell = cell(column.as_ref(), row, options).map_err(|source| {
                    PresentError::Value { column: field.name().clone(), source }
                })?;
                cells.push(cell);
            }
            table.add_row(cells);
            rows += 1;
        }
    }
    if !schema.fields().is_empty() {
        writeln!(out, "{table}")?;
    }
    writeln!(out, "{rows} {}", if rows == 1 { "row" } else { "rows" })?;
    Ok(())
}

fn cell(array: &dyn Array, row: usize, options: &RenderOptions) -> Result<Cell, ArrowError> {
    if array.is_null(row) {
        return Ok(Cell::new(""));
    }
    if is_nested(array.data_type()) {
        let mut json = String::new();
        write_json(&mut json, array, row)?;
        return Ok(Cell::new(cut(&escaped(&json, |_| false), options.nested_chars())));
    }
    let text = scalar_text(array, row)?;
    if is_text(array.data_type()) {
        let cell = Cell::new(cut(&escaped(&text, |_| false), options.max_cell));
        // A colour only underlines what the word already says.
        return Ok(if options.color && text == "ERROR" { cell.fg(Color::Red) } else { cell });
    }
    let cell = Cell::new(cut(&escaped(&text, |_| false), options.max_cell));
    let number = array.data_type().is_numeric();
    Ok(if number { cell.set_alignment(CellAlignment::Right) } else { cell })
}
