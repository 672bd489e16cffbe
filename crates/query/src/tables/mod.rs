//! The traces table as DataFusion sees it.

mod created_at;
mod deleted_rows;
mod pending_rows;
mod traces_table;

pub(crate) use traces_table::{ScanCounters, TracesTable};
