//! How maintenance goes, for those who ask.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tracelake_model::TableName;

use super::TableRound;

/// What maintenance did since the service began.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct MaintenanceStatus {
    /// Time between rounds in seconds; zero when it is switched off.
    pub every_seconds: u64,
    /// End of the last round, nanoseconds since the Unix epoch.
    pub last_round_unix_nano: Option<u64>,
    /// Table that is worked on at this moment.
    pub running: Option<TableName>,
    /// Each table that something was done to, or whose round failed.
    pub tables: BTreeMap<TableName, TableMaintenance>,
}

/// What maintenance did to one table.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TableMaintenance {
    /// When it was last compacted, nanoseconds since the Unix epoch.
    pub compacted_unix_nano: Option<u64>,
    /// Files that were rewritten, over all rounds.
    pub files_before: u64,
    /// Files that took their place.
    pub files_after: u64,
    /// Bytes of the files that were rewritten.
    pub bytes_before: u64,
    /// Bytes of those that took their place.
    pub bytes_after: u64,
    /// Deleted rows that are gone from the files.
    pub purged_rows: u64,
    /// When files of it were last deleted, nanoseconds since the Unix epoch.
    pub vacuumed_unix_nano: Option<u64>,
    /// Files that were deleted, over all rounds.
    pub vacuumed_files: u64,
    /// Their bytes.
    pub vacuumed_bytes: u64,
    /// Why the last round failed.
    pub fault: Option<String>,
}

/// The same, shared between the thread that works and those who ask.
#[derive(Debug, Default)]
pub struct MaintenanceState(Mutex<MaintenanceStatus>);

impl MaintenanceState {
    pub(crate) fn status(&self) -> MaintenanceStatus {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut MaintenanceStatus)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Notes what a round did to a table.
    pub(super) fn note(&self, table: &TableName, round: &TableRound, now: u64) {
        self.change(|status| {
            status.running = None;
            let fault = round.fault();
            let did_something = round.compaction().files_before != 0 || round.vacuum().files != 0;
            if fault.is_none() && !did_something {
                if let Some(known) = status.tables.get_mut(table) {
                    known.fault = None;
                }
                return;
            }
            let entry = status.tables.entry(table.clone()).or_default();
            entry.fault = fault;
            let report = round.compaction();
            if report.files_before != 0 {
                entry.compacted_unix_nano = Some(now);
            }
            entry.files_before += report.files_before;
            entry.files_after += report.files_after;
            entry.bytes_before += report.bytes_before;
            entry.bytes_after += report.bytes_after;
            entry.purged_rows += report.purged_rows;
            let report = round.vacuum();
            if report.files != 0 {
                entry.vacuumed_unix_nano = Some(now);
            }
            entry.vacuumed_files += report.files;
            entry.vacuumed_bytes += report.bytes;
        });
    }
}
