//! Asking the tables: the engine over a data folder, one trace wherever it is, and what a service has not
//! committed yet.

pub(crate) mod arrow_stream;
pub mod engine;
pub mod lookup;
pub(crate) mod uncommitted;
