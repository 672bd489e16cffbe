//! Rows: a settled trace as one row of the table, and back.
//!
//! [`encode`] writes traces into an Arrow batch of the table's schema. [`rebuild_traces`] gives the OTLP
//! spans of a row back, value for value; decode, encode, rebuild is the identity.

mod columns;
mod conform;
mod ordered;
pub(crate) mod parts;
mod rebuild;
mod row;
mod said;
mod spans;
mod traces;

pub use conform::conform;
pub use parts::{Beyond, LARGE_ROW_BYTES};
pub use rebuild::{RebuildError, rebuild_traces};
pub use traces::{ExperimentBy, RowEncoder, TraceDraft, encode};

#[cfg(test)]
mod tests;
