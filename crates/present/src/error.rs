//! Why a result could not be shown.

use arrow::error::ArrowError;

/// Why a result could not be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PresentError {
    /// The writer failed, for instance because the reader of a pipe went away. Rows before the
    /// failure may have been written.
    #[error("write result")]
    Write(#[from] std::io::Error),
    /// A value has a type that cannot be shown as text.
    #[error("show column `{column}`")]
    Value {
        /// The column.
        column: String,
        /// Why not.
        source: ArrowError,
    },
    /// The rows do not fit a binary format, for instance a type that Parquet does not have. Another
    /// format does; nothing useful was written.
    #[error("encode result as {format}")]
    Encode {
        /// Name of the format.
        format: &'static str,
        /// Why not.
        source: ArrowError,
    },
    /// A trace lacks a column without which it cannot be shown.
    #[error("no column `{column}` in the trace to show")]
    MissingColumn {
        /// The column.
        column: &'static str,
    },
    /// A format name that does not exist.
    #[error("unknown format `{name}`: expected table, json, jsonl, csv, arrow or parquet")]
    UnknownFormat {
        /// What was given.
        name: String,
    },
}
