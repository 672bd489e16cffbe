//! A table for people.

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use comfy_table::presets::ASCII_FULL_CONDENSED;
use comfy_table::{Attribute, Cell, CellAlignment, ColumnConstraint, ContentArrangement, Table};

use crate::error::PresentError;
use crate::hostile::escaped;
use crate::options::RenderOptions;
use crate::records;
use crate::shown_row::{ShownValue, shown_row};

/// Columns below which a cell is no longer readable.
const MIN_CELL: usize = 6;

/// Columns of border and padding for each cell.
const CELL_FRAME: usize = 3;

/// A header, the rows, and a line that counts them. On a terminal that is too narrow for all
/// columns side by side, each row is a block of its own, one column a line.
pub(crate) fn write_table(
    schema: &Schema,
    batches: &[RecordBatch],
    out: &mut dyn Write,
    options: &RenderOptions,
) -> Result<(), PresentError> {
    let header: Vec<String> =
        schema.fields().iter().map(|field| escaped(field.name(), |_| false)).collect();
    let least = header.len() * (MIN_CELL + CELL_FRAME) + 1;
    if options.width.is_some_and(|width| width < least) && 1 < header.len() {
        records::write_records(&header, batches, out, options)?;
    } else if !header.is_empty() {
        write_grid(&header, batches, out, options)?;
    }
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    writeln!(out, "{rows} {}", if rows == 1 { "row" } else { "rows" })?;
    Ok(())
}

fn write_grid(
    header: &[String],
    batches: &[RecordBatch],
    out: &mut dyn Write,
    options: &RenderOptions,
) -> Result<(), PresentError> {
    let mut table = Table::new();
    table.load_preset(ASCII_FULL_CONDENSED);
    if options.color {
        // The caller has decided, with the environment in view; the library would ask it again.
        crossterm::style::force_color_output(true);
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
    table.set_header(header.iter().map(|name| {
        let cell = Cell::new(name);
        if options.color { cell.add_attribute(Attribute::Bold) } else { cell }
    }));
    for batch in batches {
        for row in 0..batch.num_rows() {
            let values = shown_row(batch, row, options)?;
            table.add_row(values.into_iter().map(|value| cell(value, options)));
        }
    }
    keep_first_column_whole(&mut table, header.len(), options);
    writeln!(out, "{table}")?;
    Ok(())
}

/// The first column says which row it is, mostly by an id that people copy: it is not broken over
/// lines as long as the others keep their least.
fn keep_first_column_whole(table: &mut Table, columns: usize, options: &RenderOptions) {
    let first = usize::from(table.column_max_content_widths().first().copied().unwrap_or(0));
    let others = columns.saturating_sub(1) * (MIN_CELL + CELL_FRAME);
    let whole = first + CELL_FRAME + others + 1;
    if options.width.is_some_and(|width| whole <= width)
        && let Some(column) = table.column_mut(0)
    {
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
}

fn cell(value: ShownValue, options: &RenderOptions) -> Cell {
    let mut cell = Cell::new(value.text);
    if value.is_number {
        cell = cell.set_alignment(CellAlignment::Right);
    }
    match value.tone.color() {
        Some(color) if options.color => cell.fg(color),
        _ => cell,
    }
}
