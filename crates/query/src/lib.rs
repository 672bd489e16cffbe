//! The query room: SQL and ready-made analyses over archived traces.
//!
//! Comes in: SQL text, and tables behind [`TableSource`]. Goes out: Arrow batches and what it cost
//! to get them ([`ScanMetrics`]). Rows that are not committed yet join in as [`PendingRows`]. Only the leaves of nested columns that a statement uses are
//! read. This is the only room that says DataFusion, and its errors and results do not; it
//! writes no table and knows nothing of commits, files on disk or how rows are shown.
//!
//! `source` is what a table must offer; `leaves` finds what a statement needs of it; `tables`
//! reads it; `functions` adds names from Spark; `session` plans, limits and runs; `analyses` are
//! the two questions everybody asks, as SQL.

pub mod analyses;
mod error;
#[cfg(test)]
mod fixture;
mod functions;
mod lake_tables;
mod leaves;
mod session;
mod source;
mod tables;

pub use error::QueryError;
pub use lake_tables::LakeTables;
pub use leaves::payload_leaves;
pub use session::{QueryEngine, QueryLimits, QueryOptions, QueryOutput, ScanMetrics};
pub use source::{
    CreatedAtBounds, LiveFile, PendingRows, PendingSource, SourceError, TableLocation,
    TableResolver, TableSource,
};
