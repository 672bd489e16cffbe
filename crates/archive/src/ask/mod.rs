//! Asking the tables: the engine over a data folder, one trace wherever it is, and what a service has not
//! committed yet.

pub(crate) mod arrow_stream;
pub(crate) mod engine;
pub(crate) mod lookup;
pub(crate) mod uncommitted;
