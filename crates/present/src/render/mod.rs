//! Picks the writer for a format.

use std::fmt;
use std::io::Write;
use std::str::FromStr;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

use crate::error::PresentError;
use crate::options::RenderOptions;
use crate::{binary, csv, json, table};

/// How a result is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputFormat {
    /// A table for people, with a count of the rows. Cells may be cut.
    #[default]
    Table,
    /// One array of objects. Exact.
    Json,
    /// One object a line. Exact.
    Jsonl,
    /// A header and one line a row. Formulas and control codes are neutralised.
    Csv,
    /// An Arrow IPC stream. Exact, types included.
    Arrow,
    /// A Parquet file, compressed with zstd. Exact, types included.
    Parquet,
}

impl OutputFormat {
    /// Every format.
    pub const ALL: [Self; 6] =
        [Self::Table, Self::Json, Self::Jsonl, Self::Csv, Self::Arrow, Self::Parquet];

    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Json => "json",
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
            Self::Arrow => "arrow",
            Self::Parquet => "parquet",
        }
    }

    /// Whether the format is bytes for programs, which a terminal must not get.
    #[must_use]
    pub const fn is_binary(self) -> bool {
        matches!(self, Self::Arrow | Self::Parquet)
    }
}

impl fmt::Display for OutputFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for OutputFormat {
    type Err = PresentError;

    fn from_str(name: &str) -> Result<Self, PresentError> {
        let found = Self::ALL.into_iter().find(|format| format.name() == name);
        found.ok_or_else(|| PresentError::UnknownFormat { name: name.escape_debug().to_string() })
    }
}

/// Writes `batches`, which all have `schema`, to `out`.
///
/// # Errors
/// [`PresentError::Write`] if `out` fails; [`PresentError::Value`] for a value that has no text;
/// [`PresentError::Encode`] for a type that the binary format does not have.
pub fn render(
    schema: &Schema,
    batches: &[RecordBatch],
    format: OutputFormat,
    out: &mut dyn Write,
    options: &RenderOptions,
) -> Result<(), PresentError> {
    match format {
        OutputFormat::Table => table::write_table(schema, batches, out, options),
        OutputFormat::Json => json::write_array(batches, out),
        OutputFormat::Jsonl => json::write_lines(batches, out),
        OutputFormat::Csv => csv::write_csv(schema, batches, out),
        OutputFormat::Arrow => binary::write_arrow(schema, batches, out),
        OutputFormat::Parquet => binary::write_parquet(schema, batches, out),
    }
}

#[cfg(test)]
mod tests;
