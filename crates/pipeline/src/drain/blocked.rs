//! Tables that cannot be written for now.

use std::collections::HashMap;
use std::time::Duration;

use tracelake_model::TableName;

/// First wait after a table could not be written; it doubles each time.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// Longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// When each table that failed may be tried again, by the monotonic clock.
#[derive(Clone, Debug, Default)]
pub(super) struct BlockedTables {
    waits: HashMap<TableName, Wait>,
    /// Tables that take some of what there is for them, and why not all; whether for a row of theirs.
    kept: HashMap<TableName, (bool, String)>,
}

#[derive(Clone, Debug)]
struct Wait {
    until_nano: u64,
    length: Duration,
    reason: String,
}

impl BlockedTables {
    /// True when the table may be written.
    pub(super) fn is_ready(&self, table: &TableName, now_nano: u64) -> bool {
        self.waits.get(table).is_none_or(|wait| wait.until_nano <= now_nano)
    }

    /// The tables that could not be written the last time they were tried, or not with all that there was
    /// for them, and why.
    pub(super) fn reasons(&self) -> impl Iterator<Item = (&TableName, &str)> {
        let waits = self.waits.iter().map(|(table, wait)| (table, wait.reason.as_str()));
        let kept = self.kept.iter().filter(|(table, _)| !self.waits.contains_key(table));
        waits.chain(kept.map(|(table, (_, reason))| (table, reason.as_str())))
    }

    /// Notes why a table does not take all that there is for it, and whether for a row of its own.
    pub(super) fn keep(&mut self, table: &TableName, for_row: bool, reason: String) {
        self.kept.insert(table.clone(), (for_row, reason));
    }

    /// A table took all that there was for it, late pieces too when `tried_late`.
    pub(super) fn take_back(&mut self, table: &TableName, tried_late: bool) {
        self.kept.retain(|kept, (for_row, _)| kept != table || (*for_row && !tried_late));
    }

    /// Notes a failure; returns how long the table is left alone.
    pub(super) fn block(&mut self, table: &TableName, now_nano: u64, reason: String) -> Duration {
        let last = self.waits.get(table).map(|wait| wait.length);
        let length = last.map_or(FIRST_WAIT, |last| (last * 2).min(LONGEST_WAIT));
        let nanos = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        let until_nano = now_nano.saturating_add(nanos);
        self.waits.insert(table.clone(), Wait { until_nano, length, reason });
        length
    }

    /// The table was written.
    pub(super) fn release(&mut self, table: &TableName) {
        self.waits.remove(table);
    }
}
