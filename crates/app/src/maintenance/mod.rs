//! Maintenance: the lake's jobs over the tables of a data folder, one table after the other.

mod schedule;
mod state;

use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use tracelake_lake::maintain::compact::{
    CompactionGroup, CompactionReport, CompactionRules, compact, planned,
};
use tracelake_lake::{DataFolder, Lake, LakeError, Table};
use tracelake_model::{Clock, TableName};

pub(crate) use schedule::{MaintenanceParts, MaintenanceThread};
pub(crate) use state::{MaintenanceState, MaintenanceStatus, TableMaintenance};

/// The tables to keep healthy, and what they are reached with.
#[derive(Clone, Debug)]
pub(crate) struct Ground {
    pub folder: DataFolder,
    pub lake: Lake,
    pub clock: std::sync::Arc<dyn Clock>,
}

impl Ground {
    /// The moment before which files are old enough, milliseconds since the Unix epoch.
    pub(crate) fn older_than(&self, age: Duration) -> i64 {
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        (self.clock.now_unix_micro() / 1_000).saturating_sub(age)
    }

    /// What compaction of a table would do; `None` when there is no such table.
    pub(crate) fn plan(
        &self,
        name: &TableName,
        rules: &CompactionRules,
    ) -> Result<Option<Vec<CompactionGroup>>, LakeError> {
        let table = Table::at(&self.lake, self.folder.table(name))?;
        if !table.exists()? {
            return Ok(None);
        }
        planned(&table, rules).map(Some)
    }

    /// Compacts a table. A panic in it is that table's failure, not the end of the caller.
    pub(crate) fn compact(
        &self,
        name: &TableName,
        rules: &CompactionRules,
        pace: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<CompactionReport, LakeError> {
        let table = Table::at(&self.lake, self.folder.table(name))?;
        let work = AssertUnwindSafe(|| compact(&table, &*self.clock, rules, pace));
        std::panic::catch_unwind(work).unwrap_or_else(|_| {
            Err(LakeError::Row {
                path: name.to_string(),
                reason: "a defect in tracelake, see the log".to_owned(),
            })
        })
    }
}
