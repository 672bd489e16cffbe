//! Tables that cannot be written for now, and what that does to intake.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tracelake_intake::{Admission, Overload};
use tracelake_model::TableName;

/// First wait after a table could not be written; it doubles each time.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// Longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// What a client is told to wait while open traces fill the memory.
const RETRY_AFTER: Duration = Duration::from_secs(2);

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

/// Bytes of spans in open traces, as intake sees them: past the limit requests are refused until
/// tables can be written again, so that a broken table costs no memory without bound. What an epoch
/// is committing counts for nobody's refusal: it is bounded by what was open, and records that come
/// meanwhile by the journal's queue. Requests and commits so run side by side.
#[derive(Debug)]
pub(crate) struct OpenBytes {
    open: AtomicUsize,
    in_commit: AtomicUsize,
    limit: usize,
}

impl OpenBytes {
    pub(crate) const fn new(limit: usize) -> Self {
        Self { open: AtomicUsize::new(0), in_commit: AtomicUsize::new(0), limit }
    }

    pub(crate) fn set(&self, open: usize, in_commit: usize) {
        self.in_commit.store(in_commit, Ordering::Relaxed);
        self.open.store(open, Ordering::Relaxed);
    }

    fn to_do(&self) -> usize {
        self.open.load(Ordering::Relaxed).saturating_add(self.in_commit.load(Ordering::Relaxed))
    }

    /// True when there is so much to do that other work should take a share only.
    pub(crate) fn is_busy(&self) -> bool {
        self.limit / 8 < self.to_do()
    }

    /// True when there is so much to do that other work should wait.
    pub(crate) fn is_full(&self) -> bool {
        self.limit / 2 < self.to_do()
    }
}

impl Admission for OpenBytes {
    fn admit(&self, _bytes: u64) -> Result<(), Overload> {
        if self.limit < self.open.load(Ordering::Relaxed) {
            Err(Overload { retry_after: RETRY_AFTER })
        } else {
            Ok(())
        }
    }
}
