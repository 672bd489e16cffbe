//! Rows one below the other, for terminals that are too narrow for a table.

use std::io::Write;

use arrow::array::RecordBatch;

use crate::error::PresentError;
use crate::options::RenderOptions;
use crate::shown_row::shown_row;
use crate::style::{Line, Tone};
use crate::width::columns;

/// Each row as a block: a line with its number, then one line a column.
pub(crate) fn write_records(
    header: &[String],
    batches: &[RecordBatch],
    out: &mut dyn Write,
    options: &RenderOptions,
) -> Result<(), PresentError> {
    let label_columns = header.iter().map(|name| columns(name)).max().unwrap_or_default();
    let mut number = 0_usize;
    for batch in batches {
        for row in 0..batch.num_rows() {
            number += 1;
            let mut title = Line::default();
            title.push(Tone::Strong, format!("--- row {number} ---"));
            writeln!(out, "{}", title.text(options.width, options.color))?;
            for (name, value) in header.iter().zip(shown_row(batch, row, options)?) {
                let mut line = Line::default();
                line.push(Tone::Faint, name.as_str());
                line.pad_to(label_columns + 2);
                line.push(value.tone, value.text);
                writeln!(out, "{}", line.text(options.width, options.color))?;
            }
        }
    }
    Ok(())
}
