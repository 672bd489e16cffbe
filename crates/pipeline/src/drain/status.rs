//! How the pipeline goes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tracelake_model::TableName;

use super::Pipeline;
use crate::maintenance::MaintenanceStatus;

/// What waits, and since when.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PipelineStatus {
    /// The process: tells a service from another one that has its port meanwhile.
    #[serde(default)]
    pub pid: u32,
    /// Table of experiments without a binding.
    #[serde(default)]
    pub default_table: Option<TableName>,
    /// Bytes that the journal takes on disk.
    pub journal_bytes: u64,
    /// Bytes that it may take.
    #[serde(default)]
    pub journal_budget_bytes: u64,
    /// When an epoch was last committed, nanoseconds since the Unix epoch.
    pub last_commit_unix_nano: u64,
    /// Whether another data folder, of which this one is a copy or the other way round, commits under the
    /// name that this one had.
    #[serde(default)]
    pub has_copy: bool,
    /// By how many seconds the system's clock is ahead of the time that is written down, behind
    /// when negative; 0 when that follows it.
    #[serde(default)]
    pub clock_ahead_seconds: i64,
    /// What keeps the tables small.
    #[serde(default)]
    pub maintenance: MaintenanceStatus,
    /// Each table with open traces, and each that could not be written.
    pub tables: BTreeMap<TableName, TableStatus>,
}

/// What waits for one table.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TableStatus {
    /// Traces that are not committed.
    pub open_traces: usize,
    /// Of these, late pieces that wait for the next amendment round.
    pub late_traces: usize,
    /// Bytes that they hold.
    pub open_bytes: usize,
    /// When the first of them arrived, nanoseconds since the Unix epoch.
    pub oldest_unix_nano: Option<u64>,
    /// Why the table could not be written.
    pub blocked: Option<String>,
}

impl Pipeline {
    pub(super) fn status(&self) -> PipelineStatus {
        let mut tables: BTreeMap<TableName, TableStatus> = BTreeMap::new();
        for (table, open) in self.assembler.by_table() {
            let status = tables.entry(table).or_default();
            status.open_traces = open.traces;
            status.late_traces = open.late;
            status.open_bytes = open.bytes;
            status.oldest_unix_nano = open.oldest_unix_nano;
        }
        for (table, traces, bytes) in self.doubts.by_table() {
            let status = tables.entry(table.clone()).or_default();
            status.open_traces += traces;
            status.open_bytes += bytes;
        }
        for (table, reason) in self.blocked.reasons() {
            tables.entry(table.clone()).or_default().blocked = Some(reason.to_owned());
        }
        for (table, reason) in self.mark.tables_apart() {
            tables.entry(table).or_default().blocked = Some(reason);
        }
        PipelineStatus {
            pid: std::process::id(),
            default_table: Some(self.default_table.clone()),
            journal_bytes: self.journal.usage_bytes(),
            journal_budget_bytes: self.journal.budget_bytes(),
            last_commit_unix_nano: self.last_commit_unix_nano,
            has_copy: self.writers.has_own_name(),
            clock_ahead_seconds: self.clock.system_ahead_nano() / 1_000_000_000,
            maintenance: self.maintenance.status(),
            tables,
        }
    }
}
