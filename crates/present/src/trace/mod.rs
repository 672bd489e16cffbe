//! One trace for people: what it is, then a tree of its spans with bars of time.
//!
//! Whoever sent the trace wrote nearly all of it, so nothing is believed: spans may lack parents,
//! times or ids, and every text is made safe before it is shown.

mod details;
mod header;
mod spans;
mod tree;
mod units;
mod view;

use std::io::Write;

use arrow::array::RecordBatch;

use crate::error::PresentError;
use crate::hostile::escaped;
use crate::options::RenderOptions;
use crate::style::{Line, Tone};
use view::Columns as _;

/// Columns of a trace's row that are shown.
const TRACE_COLUMNS: [&str; 22] = [
    "trace_id",
    "experiment_id",
    "run_id",
    "trace_info",
    "created_at",
    "trace_name",
    "execution_duration_ms",
    "client_request_id",
    "session_id",
    "user_id",
    "tags",
    "assessments",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "total_cost",
    "models",
    "span_count",
    "updated_at",
    "revision",
];

/// Columns that are shown only in full.
const FULL_TRACE_COLUMNS: [&str; 1] = ["trace_metadata"];

/// Fields of a span that are shown.
const SPAN_FIELDS: [&str; 16] = [
    "span_id",
    "name",
    "span_type",
    "start_time",
    "end_time",
    "status",
    "inputs",
    "outputs",
    "parent_span_id",
    "status_message",
    "start_time_unix_nano",
    "end_time_unix_nano",
    "events",
    "input_tokens",
    "output_tokens",
    "total_tokens",
];

/// Fields that are shown only in full.
const FULL_SPAN_FIELDS: [&str; 15] = [
    "tags",
    "metadata",
    "kind",
    "dropped_events_count",
    "links",
    "dropped_links_count",
    "trace_state",
    "flags",
    "dropped_attributes_count",
    "scope",
    "model",
    "model_provider",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "total_cost",
];

/// Columns of the table that [`render_trace`] looks at besides `spans`. One that is missing is not
/// shown.
#[must_use]
pub fn needed_trace_columns(full: bool) -> Vec<&'static str> {
    let more: &[&str] = if full { &FULL_TRACE_COLUMNS } else { &[] };
    TRACE_COLUMNS.iter().chain(more).copied().collect()
}

/// Fields of `spans` that [`render_trace`] looks at. One that is missing is not shown.
#[must_use]
pub fn needed_span_fields(full: bool) -> Vec<&'static str> {
    let more: &[&str] = if full { &FULL_SPAN_FIELDS } else { &[] };
    SPAN_FIELDS.iter().chain(more).copied().collect()
}

/// What the row of a trace does not say itself.
#[derive(Clone, Debug, Default)]
pub struct TraceContext {
    /// Name of the table that it was found in.
    pub table: String,
    /// Name of its experiment, if it is known.
    pub experiment_name: Option<String>,
    /// Whether to show all text uncut, with attributes, events and links.
    pub full: bool,
}

/// How lines are laid out.
#[derive(Clone, Copy, Debug)]
struct Layout {
    /// Columns of a line; bars and cut texts fit into them.
    width: usize,
    color: bool,
    full: bool,
}

/// Columns of a line where there is no terminal.
const DEFAULT_WIDTH: usize = 120;

impl Layout {
    /// Writes one line, cut to the width.
    fn write(&self, line: &Line, out: &mut dyn Write) -> Result<(), PresentError> {
        writeln!(out, "{}", line.text(Some(self.width), self.color))?;
        Ok(())
    }

    /// Writes a label and a text: on one line and cut, or in full with all its lines.
    fn write_labelled(
        &self,
        indent: usize,
        label: &str,
        text: (Tone, &str),
        out: &mut dyn Write,
    ) -> Result<(), PresentError> {
        let mut line = Line::default();
        line.push(Tone::Plain, " ".repeat(indent));
        line.push(Tone::Faint, label);
        line.pad_to(indent + LABEL_COLUMNS);
        if !self.full {
            line.push(text.0, escaped(text.1, |_| false));
            return self.write(&line, out);
        }
        for (number, part) in text.1.split('\n').enumerate() {
            if 0 < number {
                line = Line::default();
                line.pad_to(indent + LABEL_COLUMNS);
            }
            line.push(text.0, escaped(part, |character| character == '\t'));
            writeln!(out, "{}", line.text(None, self.color))?;
        }
        Ok(())
    }
}

/// Columns of a label and the space behind it.
const LABEL_COLUMNS: usize = 12;

/// Writes the trace at `row` of `batch`, whose columns are those of the traces table or some of
/// them.
///
/// # Errors
/// [`PresentError::Write`] if `out` fails; [`PresentError::MissingColumn`] without `trace_id`.
pub fn render_trace(
    batch: &RecordBatch,
    row: usize,
    context: &TraceContext,
    out: &mut dyn Write,
    options: &RenderOptions,
) -> Result<(), PresentError> {
    if batch.named("trace_id").is_none() {
        return Err(PresentError::MissingColumn { column: "trace_id" });
    }
    let layout = Layout {
        width: options.width.unwrap_or(DEFAULT_WIDTH),
        color: options.color,
        full: context.full,
    };
    header::write_header(batch, row, context, &layout, out)?;
    spans::write_spans(batch, row, &layout, out)
}

#[cfg(test)]
mod tests;
