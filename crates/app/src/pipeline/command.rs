//! What the pipeline is told, and what it answers.

use std::collections::HashMap;

use serde::Serialize;
use tokio::sync::oneshot;
use tracelake_intake::FoundTrace;
use tracelake_lake::{EpochOutcome, Preview};
use tracelake_model::{TableName, TraceId};

use super::PipelineStatus;

/// What the pipeline is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// Settle and commit all that was acknowledged; answer when it is in the tables.
    Flush(oneshot::Sender<Result<FlushOutcome, String>>),
    /// Answer with the rows of a table that are not committed yet; `None` when there are none.
    Preview(TableName, oneshot::Sender<Result<Option<Preview>, String>>),
    /// Answer with those of these traces that there are, archived or open.
    Find(Vec<TraceId>, oneshot::Sender<Result<Vec<FoundTrace>, String>>),
    /// Answer with the traces that are not wholly in their table yet.
    OpenTraces(oneshot::Sender<Vec<TraceId>>),
    /// Answer with how it goes.
    Status(oneshot::Sender<PipelineStatus>),
    /// Commit what has settled and end.
    Stop,
}

/// What a flush did.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct FlushOutcome {
    /// Traces that got a row.
    pub appended: usize,
    /// Traces whose row was replaced.
    pub amended: usize,
    /// Traces whose row is gone: a client deleted them.
    pub deleted: usize,
    /// Late pieces that were in already.
    pub unchanged: usize,
    /// Late pieces that wait because their table takes new rows alone (`delta.appendOnly`).
    pub kept: usize,
    /// Version of each table that was written.
    pub tables: HashMap<TableName, u64>,
    /// Tables that could not be written, and why; their traces wait in the journal.
    #[serde(skip_serializing_if = "HashMap::is_empty")]
    pub failed: HashMap<TableName, String>,
    /// Late pieces that memory had no room for: the next epoch takes them.
    #[serde(skip)]
    pub(crate) deferred: usize,
}

impl FlushOutcome {
    pub(super) fn add(&mut self, table: &TableName, done: &EpochOutcome) {
        self.appended += done.appended;
        self.amended += done.amended;
        self.deleted += done.deleted;
        self.unchanged += done.unchanged;
        self.tables.insert(table.clone(), done.version);
    }

    /// This, and then another.
    pub(super) fn then(mut self, later: Self) -> Self {
        self.appended += later.appended;
        self.amended += later.amended;
        self.deleted += later.deleted;
        self.unchanged += later.unchanged;
        self.kept = later.kept;
        self.tables.extend(later.tables);
        self.failed.extend(later.failed);
        self
    }

    /// An error that names the tables that could not be written, if there are any.
    pub(super) fn complete(self) -> Result<Self, String> {
        if self.failed.is_empty() {
            return Ok(self);
        }
        let failed: Vec<String> =
            self.failed.iter().map(|(table, fault)| format!("table `{table}`: {fault}")).collect();
        Err(failed.join("; "))
    }
}
