//! The pipeline: drains the journal into the lake, epoch by epoch.
//!
//! One thread owns the assembler and the table writers. An epoch is
//!
//! | step | durable when it returns | the process dies before it | after it |
//! |---|---|---|---|
//! | `rotate` seals segment `k` | the segment, the next one | replay ends with an unsealed tail | `k` is replayed |
//! | drain to `Sealed(k)`, settle, place | nothing | replay settles anew | the same |
//! | `write_carry(k)` | what stays unsettled after `k` | carry and segments before `k` stand | the same: carry `k` counts once `k` is noted |
//! | ledger entry of `k` | what was acknowledged | replay writes it | replay writes it again, which adds nothing |
//! | `commit_epoch(k)` for each table | rows, with `txn = k` | replay commits | replay finds what is in by its content |
//! | note `k` in the epoch file | that what was settled is in its table, or in carry `k` | as the row above | the deletion below is finished at start |
//! | `delete_through(k)` | the space | is repeated | nothing left to do |
//!
//! A table that cannot be written keeps its traces among the open ones, and carry `k` is written
//! again with them in it: one broken table holds up no other. Which table a trace belongs to is
//! decided when it settles ([`homes`]); until then its pieces are one, whatever they came for.
//!
//! Replay is in [`recover`]; why a commit happens once is in `tracelake_lake::commit`.

mod blocked;
mod epoch_file;
mod find;
mod homes;
mod moves;
mod recover;
mod status;
mod writers;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tracelake_decode::DecodedRecord;
use tracelake_intake::FoundTrace;
use tracelake_journal::{
    Event, Journal, JournalError, Receiver, RecordBytes, Recovered, SegmentNumber,
};
use tracelake_lake::assemble::{Assembler, SettleRules, Take};
use tracelake_lake::{Preview, Retry, TraceDraft};
use tracelake_model::{Clock, TableName, TraceId};
use tracing::{debug, error, warn};

use uuid::Uuid;

use crate::archive::Archive;
use crate::ledger::Ledger;
use crate::maintenance::MaintenanceState;
use blocked::BlockedTables;
use moves::Mover;
use writers::Writers;

pub(crate) use blocked::OpenBytes;
pub(crate) use epoch_file::{journal_id, read_epoch};
pub(crate) use status::{PipelineStatus, TableStatus};

/// How often the pipeline looks whether something has settled.
const TICK_UNIX_NANO: u64 = 100_000_000;
const TICK: Duration = Duration::from_nanos(TICK_UNIX_NANO);

/// Wait after an epoch that failed before its commit, such as for a full disk.
const RETRY_AFTER_UNIX_NANO: u64 = 1_000_000_000;

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
    /// Version of each table that was written.
    pub tables: HashMap<TableName, u64>,
    /// Tables that could not be written, and why; their traces wait in the journal.
    #[serde(skip_serializing_if = "HashMap::is_empty")]
    pub failed: HashMap<TableName, String>,
}

impl FlushOutcome {
    /// An error that names the tables that could not be written, if there are any.
    fn complete(self) -> Result<Self, String> {
        if self.failed.is_empty() {
            return Ok(self);
        }
        let failed: Vec<String> =
            self.failed.iter().map(|(table, fault)| format!("table `{table}`: {fault}")).collect();
        Err(failed.join("; "))
    }
}

/// When the pipeline commits.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    pub settle: SettleRules,
    pub commit_every: Duration,
    pub commit_bytes: usize,
    pub amend_every: Duration,
}

/// What an epoch takes along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// What has settled by the rules.
    Settled,
    /// Everything, and the late pieces of archived traces.
    Everything,
}

/// Drains a journal into the tables of an archive.
pub(crate) struct Pipeline {
    handle: Handle,
    journal: Arc<Journal<DecodedRecord>>,
    events: Receiver<DecodedRecord>,
    commands: mpsc::UnboundedReceiver<Command>,
    archive: Archive,
    writers: Writers,
    assembler: Assembler,
    default_table: TableName,
    schedule: Schedule,
    clock: Arc<dyn Clock>,
    last_commit_unix_nano: u64,
    last_amendment_unix_nano: u64,
    not_before_unix_nano: u64,
    blocked: BlockedTables,
    open_bytes: Arc<OpenBytes>,
    maintenance: Arc<MaintenanceState>,
    mover: Mover,
    ledger: Ledger,
    stopping: bool,
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Pipeline")
            .field("assembler", &self.assembler)
            .finish_non_exhaustive()
    }
}

/// What a [`Pipeline`] is made of.
pub(crate) struct PipelineParts {
    pub journal: Arc<Journal<DecodedRecord>>,
    pub events: Receiver<DecodedRecord>,
    pub commands: mpsc::UnboundedReceiver<Command>,
    pub archive: Archive,
    pub schedule: Schedule,
    pub index_limit: usize,
    pub journal_id: Uuid,
    /// Table of experiments without a binding.
    pub default_table: TableName,
    pub open_bytes: Arc<OpenBytes>,
    pub maintenance: Arc<MaintenanceState>,
    /// How long it is kept what was acknowledged.
    pub ledger_retention: Duration,
}

enum Wake {
    Event(Option<Event<DecodedRecord>>),
    Command(Option<Command>),
    Tick,
}

impl Pipeline {
    pub(crate) fn new(handle: Handle, parts: PipelineParts) -> Self {
        let PipelineParts {
            journal,
            events,
            commands,
            archive,
            schedule,
            index_limit,
            journal_id,
            default_table,
            open_bytes,
            maintenance,
            ledger_retention,
        } = parts;
        let ledger = Ledger::open(archive.folder.ledger(), journal_id, ledger_retention);
        let clock = Arc::clone(&archive.clock);
        let writers = Writers::new(&archive, journal_id, journal.active_segment(), index_limit);
        Self {
            handle,
            journal,
            events,
            commands,
            archive,
            writers,
            assembler: Assembler::default(),
            default_table,
            schedule,
            last_commit_unix_nano: clock.now_unix_nano(),
            last_amendment_unix_nano: clock.now_unix_nano(),
            not_before_unix_nano: 0,
            blocked: BlockedTables::default(),
            open_bytes,
            maintenance,
            mover: Mover::default(),
            ledger,
            clock,
            stopping: false,
        }
    }

    /// Replays what an earlier process left, then runs until told to stop.
    ///
    /// # Errors
    /// When the journal fails for good; what was acknowledged is in it.
    pub(crate) fn run(mut self, recovered: &Recovered) -> anyhow::Result<()> {
        self.recover(recovered)?;
        let mut patience = TICK;
        while !self.stopping {
            match self.wait(patience) {
                Wake::Event(Some(event)) => {
                    self.take(event);
                    self.take_waiting();
                }
                Wake::Event(None) | Wake::Command(None | Some(Command::Stop)) => {
                    self.stopping = true;
                }
                Wake::Command(Some(Command::Flush(reply))) => {
                    let outcome = self
                        .run_epoch(Scope::Everything)
                        .map_err(|error| format!("{error:#}"))
                        .and_then(FlushOutcome::complete);
                    if reply.send(outcome).is_err() {
                        debug!("flush was not waited for");
                    }
                }
                Wake::Command(Some(Command::Preview(table, reply))) => {
                    self.take_waiting();
                    if reply.send(self.preview(&table)).is_err() {
                        debug!("uncommitted rows were not waited for");
                    }
                }
                Wake::Command(Some(Command::Find(traces, reply))) => {
                    self.take_waiting();
                    if reply.send(self.find(&traces)).is_err() {
                        debug!("traces were not waited for");
                    }
                }
                Wake::Command(Some(Command::OpenTraces(reply))) => {
                    self.take_waiting();
                    if reply.send(self.assembler.open_trace_ids().collect()).is_err() {
                        debug!("open traces were not waited for");
                    }
                }
                Wake::Command(Some(Command::Status(reply))) => {
                    self.take_waiting();
                    if reply.send(self.status()).is_err() {
                        debug!("status was not waited for");
                    }
                }
                Wake::Tick => {}
            }
            if !self.stopping
                && self.is_due()
                && let Err(error) = self.run_epoch(Scope::Settled)
            {
                error!(error = format!("{error:#}"), "epoch not committed");
                self.not_before_unix_nano =
                    self.clock.now_unix_nano().saturating_add(RETRY_AFTER_UNIX_NANO);
            }
            // Between two batches of a move, requests come first but nothing is waited for.
            let moving = !self.stopping && self.step_moves();
            patience = if moving { Duration::ZERO } else { TICK };
        }
        self.take_waiting();
        if let Err(error) = self.run_epoch(Scope::Settled) {
            // Everything is in the journal: the next start goes on from there.
            warn!(error = format!("{error:#}"), "last epoch left in the journal");
        }
        self.journal.close()?;
        Ok(())
    }

    fn wait(&mut self, patience: Duration) -> Wake {
        let Self { handle, events, commands, .. } = self;
        handle.block_on(async {
            tokio::select! {
                biased;
                command = commands.recv() => Wake::Command(command),
                event = events.recv() => Wake::Event(event),
                () = tokio::time::sleep(patience) => Wake::Tick,
            }
        })
    }

    fn take(&mut self, event: Event<DecodedRecord>) -> Option<SegmentNumber> {
        match event {
            Event::Appended { attachment, .. } => {
                self.ledger.note(&attachment);
                self.assembler.push(attachment, self.clock.now_unix_nano());
                self.open_bytes.set(self.assembler.open_bytes());
                None
            }
            Event::Sealed { segment } => Some(segment),
        }
    }

    fn take_waiting(&mut self) {
        while let Some(event) = self.events.try_recv() {
            self.take(event);
        }
    }

    /// Whether an epoch should run now. Looks at every open trace, so at most once per tick.
    fn is_due(&mut self) -> bool {
        let now = self.clock.now_unix_nano();
        if now < self.not_before_unix_nano {
            return false;
        }
        self.not_before_unix_nano = now.saturating_add(TICK_UNIX_NANO);
        let passed = |since: u64, interval: Duration| {
            interval <= Duration::from_nanos(now.saturating_sub(since))
        };
        let ready = |table: &TableName| self.blocked.is_ready(table, now);
        let status = self.assembler.status(&self.schedule.settle, now, &ready);
        let full = self.schedule.commit_bytes <= status.bytes;
        let commit = full || passed(self.last_commit_unix_nano, self.schedule.commit_every);
        (commit && status.settled)
            || (passed(self.last_amendment_unix_nano, self.schedule.amend_every) && status.late)
    }

    /// The rows of `table` that are not committed yet.
    fn preview(&mut self, table: &TableName) -> Result<Option<Preview>, String> {
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

    /// One epoch over all that is in the journal now.
    fn run_epoch(&mut self, scope: Scope) -> anyhow::Result<FlushOutcome> {
        let sealed = self.handle.block_on(self.journal.rotate())?;
        self.drain_to(sealed)?;
        let now = self.clock.now_unix_nano();
        self.settle_and_commit(sealed, scope, now)
    }

    /// Takes every event up to the end of `sealed`.
    fn drain_to(&mut self, sealed: SegmentNumber) -> Result<(), JournalError> {
        loop {
            let event = {
                let Self { handle, events, .. } = self;
                handle.block_on(events.recv())
            };
            match event {
                Some(event) => {
                    if self.take(event) == Some(sealed) {
                        return Ok(());
                    }
                }
                None => return Err(JournalError::Closed),
            }
        }
    }

    /// Settles, carries over, commits, and deletes what is committed: epoch `segment`. Silence of
    /// traces is counted up to `silent_until_unix_nano`.
    fn settle_and_commit(
        &mut self,
        segment: SegmentNumber,
        scope: Scope,
        silent_until_unix_nano: u64,
    ) -> anyhow::Result<FlushOutcome> {
        let now = self.clock.now_unix_nano();
        let everything = scope == Scope::Everything;
        let since_amendment = Duration::from_nanos(now - self.last_amendment_unix_nano.min(now));
        let amend = everything || self.schedule.amend_every <= since_amendment;
        let ready = |table: &TableName| everything || self.blocked.is_ready(table, now);
        let take = Take { everything, late: amend, ready: &ready };
        let settled = self.assembler.settle(&self.schedule.settle, silent_until_unix_nano, &take);
        let blocked = std::mem::take(&mut self.blocked);
        let may_be_written = |table: &TableName| everything || blocked.is_ready(table, now);
        let homes::Placed { traces: mut settled, failed } = self.place(settled, &may_be_written);
        self.blocked = blocked;
        let created_at_micros = self.clock.now_unix_micro();
        for trace in settled.values_mut().flatten() {
            trace.created_at_micros = created_at_micros;
            trace.updated_at_micros = created_at_micros;
        }
        if !amend {
            self.defer_late(&mut settled);
        }
        let mut committed = self.commit_settled(segment, &mut settled);
        if let Ok(outcome) = &mut committed {
            for (table, reason) in failed {
                self.blocked.block(&table, now, reason.clone());
                outcome.failed.entry(table).or_insert(reason);
            }
        }
        if committed.is_ok() {
            self.last_commit_unix_nano = now;
            if amend {
                self.last_amendment_unix_nano = now;
            }
        } else {
            // The next epoch deletes this one's segment, so it must hold these traces too. What
            // is in a table already is found there by its content.
            self.put_back(settled);
        }
        self.open_bytes.set(self.assembler.open_bytes());
        committed
    }

    fn put_back(&mut self, traces: HashMap<TableName, Vec<TraceDraft>>) {
        for (table, traces) in traces {
            traces.into_iter().for_each(|trace| self.assembler.put_back(&table, trace, false));
        }
    }

    /// Carries over what is unsettled, commits what is settled, and forgets the segment. What is
    /// left in `settled` after an error is not committed.
    fn commit_settled(
        &mut self,
        segment: SegmentNumber,
        settled: &mut HashMap<TableName, Vec<TraceDraft>>,
    ) -> anyhow::Result<FlushOutcome> {
        self.write_carry(segment)?;
        self.ledger.write(segment, self.clock.now_unix_nano())?;
        let outcome = self.commit(segment, settled)?;
        if !outcome.failed.is_empty() {
            // Tables that could not be written keep their traces, which are then carried over
            // like unsettled ones: one broken table holds up no other.
            settled.retain(|table, _| outcome.failed.contains_key(table));
            let failed = std::mem::take(settled);
            self.put_back(failed);
            self.write_carry(segment)?;
        }
        settled.clear();
        epoch_file::write_epoch(&self.archive.folder, segment)?;
        self.journal.delete_through(segment)?;
        Ok(outcome)
    }

    fn write_carry(&self, segment: SegmentNumber) -> Result<(), JournalError> {
        let mut carried = self.assembler.carry().map(|(header, payload)| RecordBytes {
            header: header.to_bytes(),
            payload: payload.into(),
        });
        self.journal.write_carry(segment, &mut carried)
    }

    /// Puts late pieces of archived traces back until the next amendment round. A table that
    /// cannot be asked now is asked again by the commit, which then amends at once.
    fn defer_late(&mut self, settled: &mut HashMap<TableName, Vec<TraceDraft>>) {
        for (table, traces) in settled {
            let wanted = traces.iter().map(|trace| trace.trace_id).collect();
            let archived = self.writers.get(table).and_then(|writer| writer.archived(&wanted));
            let Ok(archived) = archived else { continue };
            let (late, fresh) = std::mem::take(traces)
                .into_iter()
                .partition(|trace| archived.contains(&trace.trace_id));
            *traces = fresh;
            let late: Vec<TraceDraft> = late;
            for trace in late {
                self.assembler.put_back(table, trace, true);
            }
        }
    }

    /// Commits to each table once; a table that cannot be written is left alone for a while.
    fn commit(
        &mut self,
        segment: SegmentNumber,
        settled: &HashMap<TableName, Vec<TraceDraft>>,
    ) -> anyhow::Result<FlushOutcome> {
        let epoch = i64::try_from(segment.get())?;
        let mut outcome = FlushOutcome::default();
        for (table, traces) in settled.iter().filter(|(_, traces)| !traces.is_empty()) {
            let tried = self.writers.guarded(table, |writer| writer.commit_epoch(epoch, traces));
            match tried {
                Ok(done) => {
                    self.blocked.release(table);
                    outcome.appended += done.appended;
                    outcome.amended += done.amended;
                    outcome.deleted += done.deleted;
                    outcome.unchanged += done.unchanged;
                    outcome.tables.insert(table.clone(), done.version);
                }
                Err(fault) => {
                    let now = self.clock.now_unix_nano();
                    let wait = self.blocked.block(table, now, fault.to_string());
                    match fault.retry() {
                        Retry::AfterBackoff => {
                            warn!(%table, error = %fault, ?wait, "commit failed")
                        }
                        Retry::Never => {
                            error!(%table, error = %fault, ?wait, "commit refused: traces wait in the journal until the table is mended")
                        }
                    }
                    // Its view of the table may be wrong.
                    self.writers.forget(table);
                    outcome.failed.insert(table.clone(), fault.to_string());
                }
            }
        }
        Ok(outcome)
    }
}
