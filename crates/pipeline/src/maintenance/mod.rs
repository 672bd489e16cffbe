//! Maintenance: the lake's jobs over the tables of a data folder, one table after the other.

mod schedule;
mod state;

use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use tracelake_lake::maintain::compact::{
    CompactionGroup, CompactionReport, CompactionRules, compact, planned,
};
use tracelake_lake::maintain::vacuum::{ExpiredFile, VacuumReport, VacuumRules, expired, vacuum};
use tracelake_lake::{DataFolder, Lake, LakeError, Table};
use tracelake_model::{Clock, TableName};

pub use schedule::{MaintenanceParts, MaintenanceThread};
pub use state::{MaintenanceState, MaintenanceStatus, TableMaintenance};

/// The tables to keep healthy, and what they are reached with.
#[derive(Clone, Debug)]
pub struct Ground {
    /// The data folder.
    pub folder: DataFolder,
    /// The way to its tables.
    pub lake: Lake,
    /// What time it is there.
    pub clock: std::sync::Arc<dyn Clock>,
}

impl Ground {
    /// The moment before which files are old enough, milliseconds since the Unix epoch.
    #[must_use]
    pub fn older_than(&self, age: Duration) -> i64 {
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        (self.clock.now_unix_micro() / 1_000).saturating_sub(age)
    }

    /// What compaction of a table would do; `None` when there is no such table.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn plan(
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

    /// One round over a table: compaction, then vacuum unless it is left out.
    pub fn maintain(
        &self,
        name: &TableName,
        rules: &CompactionRules,
        vacuum: Option<&VacuumRules>,
        pace: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> TableRound {
        let compaction = self.compact(name, rules, pace);
        let stopped = compaction.as_ref().is_ok_and(|report| report.stopped);
        let vacuum = vacuum.filter(|_| !stopped).map(|rules| self.vacuum(name, rules, pace));
        let told = |error: LakeError| error.to_string();
        TableRound {
            compaction: compaction.map_err(told),
            vacuum: vacuum.map(|done| done.map_err(told)),
        }
    }

    /// What vacuum of a table would delete.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn expired(
        &self,
        name: &TableName,
        rules: &VacuumRules,
    ) -> Result<Vec<ExpiredFile>, LakeError> {
        let table = Table::at(&self.lake, self.folder.table(name))?;
        let go_on = &mut |_| ControlFlow::Continue(());
        Ok(expired(&table, &*self.clock, rules, go_on)?.unwrap_or_default())
    }

    /// Deletes what a table no longer needs.
    fn vacuum(
        &self,
        name: &TableName,
        rules: &VacuumRules,
        pace: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<VacuumReport, LakeError> {
        let table = Table::at(&self.lake, self.folder.table(name))?;
        contained(name, || vacuum(&table, &*self.clock, rules, pace))
    }

    /// Compacts a table.
    fn compact(
        &self,
        name: &TableName,
        rules: &CompactionRules,
        pace: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<CompactionReport, LakeError> {
        let table = Table::at(&self.lake, self.folder.table(name))?;
        contained(name, || compact(&table, &*self.clock, rules, pace))
    }
}

/// What came of a round over one table: of each job its report, or why it failed.
#[derive(Debug)]
pub struct TableRound {
    /// What compaction did.
    pub compaction: Result<CompactionReport, String>,
    /// `None` when it was not its turn.
    pub vacuum: Option<Result<VacuumReport, String>>,
}

impl TableRound {
    /// What was compacted; nothing when that failed.
    pub(crate) fn compaction(&self) -> CompactionReport {
        self.compaction.as_ref().copied().unwrap_or_default()
    }

    /// What was deleted; nothing when that failed.
    pub(crate) fn vacuum(&self) -> VacuumReport {
        self.vacuum.as_ref().and_then(|done| done.as_ref().ok()).copied().unwrap_or_default()
    }

    /// Why it failed.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let compaction = self.compaction.as_ref().err();
        let vacuum = self.vacuum.as_ref().and_then(|done| done.as_ref().err());
        match (compaction, vacuum) {
            // Mostly for one reason, such as a log that cannot be read.
            (Some(one), Some(other)) if one != other => Some(format!("{one}; {other}")),
            (one, other) => one.or(other).cloned(),
        }
    }
}

/// Does work on a table. A panic in it is that table's failure, not the end of the caller.
fn contained<T>(
    name: &TableName,
    work: impl FnOnce() -> Result<T, LakeError>,
) -> Result<T, LakeError> {
    std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(LakeError::Row {
            path: name.to_string(),
            reason: "a defect in tracelake, see the log".to_owned(),
        })
    })
}
