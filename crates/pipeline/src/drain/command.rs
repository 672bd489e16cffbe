//! What the pipeline is told, and what it answers.

use std::collections::HashMap;

use serde::Serialize;
use tokio::sync::oneshot;
use tracelake_lake::{EpochOutcome, Preview};
use tracelake_model::{TableName, TraceId};
use tracing::debug;

use super::{Found, Pipeline, PipelineStatus, Scope};

/// What the pipeline is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// Settle and commit all that was acknowledged; answer when it is in the tables.
    Flush(oneshot::Sender<Result<FlushOutcome, String>>),
    /// Answer with the rows of a table that are not committed yet; `None` when there are none.
    Preview(TableName, oneshot::Sender<Result<Option<Preview>, String>>),
    /// Answer with those of these traces that there are, archived or open.
    Find(Vec<TraceId>, oneshot::Sender<Result<Vec<Found>, String>>),
    /// Answer with the traces that are not wholly in their table yet.
    OpenTraces(oneshot::Sender<Vec<TraceId>>),
    /// Have a table that is set apart opened again; answer whether it was.
    ReleaseTable(TableName, oneshot::Sender<Result<bool, String>>),
    /// Answer with how it goes.
    Status(oneshot::Sender<PipelineStatus>),
    /// Commit what has settled and end.
    Stop,
}

/// What a flush did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FlushOutcome {
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
    pub deferred: usize,
}

impl FlushOutcome {
    pub(super) fn add(&mut self, table: &TableName, done: &EpochOutcome) {
        self.appended += done.appended;
        self.amended += done.amended;
        self.deleted += done.deleted;
        self.unchanged += done.unchanged;
        self.kept += done.kept.len() + done.unreadable.len();
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

impl Pipeline {
    /// Does what it is told, and answers.
    pub(super) fn answer(&mut self, command: Command) {
        match command {
            Command::Flush(reply) => {
                if reply.send(self.flush()).is_err() {
                    debug!("flush was not waited for");
                }
            }
            Command::Preview(table, reply) => {
                self.take_waiting();
                if reply.send(self.preview(&table)).is_err() {
                    debug!("uncommitted rows were not waited for");
                }
            }
            Command::Find(traces, reply) => {
                self.take_waiting();
                if reply.send(self.find(&traces)).is_err() {
                    debug!("traces were not waited for");
                }
            }
            Command::OpenTraces(reply) => {
                self.take_waiting();
                let open = self.assembler.open_trace_ids().chain(self.doubts.traces());
                if reply.send(open.collect()).is_err() {
                    debug!("open traces were not waited for");
                }
            }
            Command::ReleaseTable(table, reply) => {
                let released = self.writers.release(&table).map_err(|error| format!("{error:#}"));
                self.blocked.release(&table);
                if reply.send(released).is_err() {
                    debug!("the release of a table was not waited for");
                }
            }
            Command::Status(reply) => {
                self.take_waiting();
                if reply.send(self.status()).is_err() {
                    debug!("status was not waited for");
                }
            }
            Command::Stop => self.stopping = true,
        }
    }

    /// The rows of `table` that are not committed yet.
    fn preview(&mut self, table: &TableName) -> Result<Option<Preview>, String> {
        self.resolve_doubts(&|_| true);
        let Some(table) = self.assembler.table_named(table) else { return Ok(None) };
        let mut traces = self.assembler.peek(&table);
        let now = self.clock.now_unix_micro();
        for trace in &mut traces {
            trace.created_at_micros = now;
            trace.updated_at_micros = now;
        }
        self.writers
            .guarded(&table, |writer| writer.preview(&traces))
            .map(Some)
            .map_err(|error| error.to_string())
    }

    /// Settles and commits everything, in as many epochs as memory asks for.
    fn flush(&mut self) -> Result<FlushOutcome, String> {
        let mut whole = FlushOutcome::default();
        loop {
            let done = self.run_epoch(Scope::Everything).map_err(|error| format!("{error:#}"))?;
            let is_rest = done.deferred == 0;
            whole = whole.then(done);
            if is_rest {
                return whole.complete();
            }
        }
    }
}
