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
    /// A format name that does not exist.
    #[error("unknown format `{name}`: expected table, json, jsonl or csv")]
    UnknownFormat {
        /// What was given.
        name: String,
    },
}
