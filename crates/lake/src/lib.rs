//! The lake room: turns settled traces into committed Delta versions and keeps tables healthy.
//!
//! Comes in: decoded spans. Goes out: table versions, and traces read back from rows. This room
//! owns the Delta kernel and every path name; it never sees HTTP, SQL or the journal.

pub mod assemble;
pub mod commit;
mod data_file;
pub mod error;
#[cfg(test)]
mod histories;
pub mod layout;
mod log;
pub mod maintain;
pub mod rows;
mod shared_tables;
mod storage;
pub mod table;

pub use commit::{
    EpochOutcome, FoundRows, LargeMove, LocatedTraces, NextRow, Preview, TableWriter, current_trace,
};
pub use error::{LakeError, Retry};
pub use layout::{DataFolder, TableLocation};
pub use log::DamagedCheckpoint;
pub use rows::{LARGE_ROW_BYTES, TraceDraft};
pub use shared_tables::TABLES_MARKER;
pub use storage::{Fill, OpenedFile, PutOutcome, TableFiles};
pub use table::{
    ChangedVersion, EpochMark, FeedReach, Lake, LiveFile, RowChange, Table, TableFeatures,
    TableSnapshot, create_or_accept,
};
