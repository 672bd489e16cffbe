//! The pipeline: drains the journal into the lake, epoch by epoch.
//!
//! One thread owns the assembler and the table writers. An epoch is
//!
//! | step | durable when it returns | the process dies before it | after it |
//! |---|---|---|---|
//! | `rotate` seals segment `k` | the segment, the next one | replay ends with an unsealed tail | `k` is replayed |
//! | drain to `Sealed(k)`, settle, place | nothing | replay settles anew | the same |
//! | ledger entry of `k` | what was acknowledged | replay writes it | replay writes it again, which adds nothing |
//! | plan `k` | which traces `k` brings to which table | replay settles anew | replay asks each table for `txn = k` |
//! | `commit_epoch(k)` for each table | one version: rows, with `txn = k` | replay commits | replay leaves out what plan `k` says |
//! | `write_carry(k)` | what is in no table after `k` | as the row above | the same: carry `k` counts once `k` is noted |
//! | note `k` in the epoch file | that what was settled is in its table, or in carry `k` | as the row above | the deletion below is finished at start |
//! | `delete_through(k)` | the space | is repeated | nothing left to do |
//!
//! A table that cannot be written keeps its traces among the open ones, and so in carry `k`: one
//! broken table holds up no other. Which table a trace belongs to is decided when it settles
//! ([`placement`]); until then its pieces are one, whatever they came for.
//!
//! Replay is in [`replay`]; why a commit happens once is in `tracelake_lake::commit`.

mod absent;
mod arrival;
mod batches;
mod blocked;
mod by_parts;
#[cfg(all(test, debug_assertions))]
mod by_parts_tests;
mod command;
mod epoch_file;
mod find;
mod finish;
mod handle;
mod healing;
mod health;
mod identity;
mod in_doubt;
mod moves;
mod origin;
mod placement;
mod plans;
mod pulse;
mod refused;
mod replay;
mod replay_mark;
mod status;
#[cfg(all(test, debug_assertions))]
mod test_service;
mod writers;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tracelake_decode::DecodedRecord;
use tracelake_journal::{Event, Journal, JournalFs, Receiver, Recovered, SegmentNumber};
use tracelake_lake::assemble::{Assembler, LATE_AT_ONCE_BYTES, SettleRules, Take};
use tracelake_lake::{LARGE_ROW_BYTES, LakeError, Retry, TraceDraft};
use tracelake_model::{Clock, TableName, TraceId};
use tracing::{error, warn};

use crate::ledger::Ledger;
use crate::maintenance::MaintenanceState;
use crate::mutations::Broken;
use crate::open_bytes::OpenBytes;
use crate::stores::Stores;
use blocked::BlockedTables;
use by_parts::Undone;
use healing::Healing;
use in_doubt::{Doubt, Doubts};
use moves::Mover;
use plans::EpochPlans;
use pulse::Pulse;
use replay_mark::{ReplayMark, Stage};
use writers::{FailedCommit, Writers};

pub use absent::{LostCarry, check_carry};
pub(crate) use command::Command;
pub use command::FlushOutcome;
pub use epoch_file::clock_of;
#[cfg(all(test, debug_assertions))]
pub(crate) use epoch_file::read_epoch;
pub use find::Found;
pub use handle::{Commands, PipelineHandle};
pub use health::Health;
pub use identity::Identity;
pub use replay_mark::Stopper;
pub use status::{PipelineStatus, TableStatus};

/// How often the pipeline looks whether something has settled.
const TICK_NANO: u64 = 100_000_000;
const TICK: Duration = Duration::from_nanos(TICK_NANO);

/// Wait after an epoch that failed before its commit, such as for a full disk.
const RETRY_AFTER_NANO: u64 = 1_000_000_000;

/// When the pipeline commits.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// When a trace settles.
    pub settle: SettleRules,
    /// Time between commits.
    pub commit_every: Duration,
    /// Bytes of spans after which a commit does not wait.
    pub commit_bytes: usize,
    /// Time between rounds of late pieces.
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
pub struct Pipeline {
    handle: Handle,
    journal: Arc<Journal<DecodedRecord>>,
    events: Receiver<DecodedRecord>,
    commands: Commands,
    stores: Stores,
    fs: Arc<dyn JournalFs>,
    writers: Writers,
    assembler: Assembler,
    default_table: TableName,
    schedule: Schedule,
    clock: Arc<dyn Clock>,
    /// When an epoch was last committed, for people.
    last_commit_unix_nano: u64,
    /// Of the monotonic clock, as all that is waited for.
    last_commit_nano: u64,
    last_amendment_nano: u64,
    not_before_nano: u64,
    blocked: BlockedTables,
    plans: EpochPlans,
    doubts: Doubts,
    open_bytes: Arc<OpenBytes>,
    maintenance: Arc<MaintenanceState>,
    mover: Mover,
    ledger: Ledger,
    /// What a start is at, of what an earlier process left.
    mark: ReplayMark,
    /// What the epochs of a replay by parts leave undone; `None` once an ordinary one was noted.
    undone: Option<Undone>,
    /// The last epoch that was noted, and how many records it carried over.
    noted: Option<SegmentNumber>,
    carried: u64,
    /// Traces that were replayed and are not committed, while that matters.
    replayed: Option<HashSet<TraceId>>,
    health: Arc<Health>,
    healing: Healing,
    broken: Broken,
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
#[derive(Debug)]
pub struct PipelineParts {
    /// What was acknowledged.
    pub journal: Arc<Journal<DecodedRecord>>,
    /// Its records, as they are acknowledged.
    pub events: Receiver<DecodedRecord>,
    /// What it is told.
    pub commands: Commands,
    /// What it works on.
    pub stores: Stores,
    /// Where the journal is, with the epoch file, the plans and the ledger.
    pub fs: Arc<dyn JournalFs>,
    /// When it commits.
    pub schedule: Schedule,
    /// Traces of each table that are held to tell late pieces from new traces.
    pub index_limit: usize,
    /// Under which name it commits.
    pub identity: Identity,
    /// Table of experiments without a binding.
    pub default_table: TableName,
    /// Told how much there is to do.
    pub open_bytes: Arc<OpenBytes>,
    /// Asked how maintenance goes, for the status.
    pub maintenance: Arc<MaintenanceState>,
    /// Told what is wrong.
    pub health: Arc<Health>,
    /// How long it is kept what was acknowledged.
    pub ledger_retention: Duration,
    /// Where it is noted what a death is of; none where deaths are simulated.
    pub pulse: Option<PathBuf>,
    /// What the test build leaves out.
    pub broken: Broken,
}

/// What the pipeline waits for.
pub(crate) enum Wake {
    Event(Option<Event<DecodedRecord>>),
    Command(Option<Command>),
    Tick,
}

impl Pipeline {
    /// A pipeline that runs on the threads of `handle` where it waits for others.
    #[must_use]
    pub fn new(handle: Handle, parts: PipelineParts) -> Self {
        let PipelineParts {
            journal,
            events,
            commands,
            stores,
            fs,
            schedule,
            index_limit,
            identity,
            default_table,
            open_bytes,
            maintenance,
            health,
            ledger_retention,
            pulse,
            broken,
        } = parts;
        let mark = ReplayMark::new(Arc::clone(&fs), &stores.folder, pulse.map(Pulse::new));
        let journal_id = identity.journal();
        let ledger = Ledger::of(Arc::clone(&fs), &stores.folder, journal_id, ledger_retention);
        let clock = Arc::clone(&stores.clock);
        let active = journal.active_segment();
        let writers = Writers::new(&stores, identity, active, index_limit, mark.clone());
        Self {
            handle,
            journal,
            events,
            commands,
            writers,
            assembler: Assembler::default(),
            default_table,
            schedule,
            last_commit_unix_nano: clock.now_unix_nano(),
            last_commit_nano: clock.monotonic_nano(),
            last_amendment_nano: clock.monotonic_nano(),
            not_before_nano: 0,
            blocked: BlockedTables::default(),
            plans: EpochPlans::new(Arc::clone(&fs), stores.folder.clone()),
            doubts: Doubts::default(),
            open_bytes,
            maintenance,
            mover: Mover::default(),
            ledger,
            mark,
            undone: None,
            noted: None,
            carried: 0,
            replayed: None,
            health,
            healing: Healing::default(),
            clock,
            broken,
            stopping: false,
            stores,
            fs,
        }
    }

    /// Replays what an earlier process left, then runs until told to stop.
    ///
    /// # Errors
    /// When the journal fails for good; what was acknowledged is in it.
    pub fn run(mut self, recovered: &Recovered) -> anyhow::Result<()> {
        let _note = self.mark.panic_note();
        self.recover(recovered)?;
        let mut patience = TICK;
        while !self.stopping {
            let wake = self.wait(patience);
            patience = self.turn(wake);
        }
        self.end()
    }

    /// For who is told to stop this process.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper::new(self.mark.clone())
    }

    /// Commits what has settled and closes the journal.
    ///
    /// # Errors
    /// When the journal had failed.
    pub(crate) fn end(mut self) -> anyhow::Result<()> {
        self.take_waiting();
        if let Err(error) = self.run_epoch(Scope::Settled) {
            // Everything is in the journal: the next start goes on from there.
            warn!(error = format!("{error:#}"), "last epoch left in the journal");
        }
        // A stop that was asked for is no death.
        self.lay_mark_down();
        self.journal.close()?;
        Ok(())
    }

    /// Does what is due after `wake`; returns how long to wait for the next one.
    pub(crate) fn turn(&mut self, wake: Wake) -> Duration {
        match wake {
            Wake::Event(Some(event)) => {
                self.take(event);
                self.take_waiting();
            }
            Wake::Event(None) | Wake::Command(None) => self.stopping = true,
            Wake::Command(Some(command)) => self.answer(command),
            Wake::Tick => {}
        }
        self.heal();
        if !self.stopping
            && self.is_due()
            && let Err(error) = self.run_epoch(Scope::Settled)
        {
            error!(error = format!("{error:#}"), "epoch not committed");
            self.not_before_nano = self.clock.monotonic_nano().saturating_add(RETRY_AFTER_NANO);
        }
        self.say_health();
        // Between two batches of a move, requests come first but nothing is waited for.
        let moving = !self.stopping && self.step_moves();
        if moving { Duration::ZERO } else { TICK }
    }

    fn wait(&mut self, patience: Duration) -> Wake {
        let Self { handle, events, commands, .. } = self;
        handle.block_on(async {
            tokio::select! {
                biased;
                command = commands.0.recv() => Wake::Command(command),
                event = events.recv() => Wake::Event(event),
                () = tokio::time::sleep(patience) => Wake::Tick,
            }
        })
    }

    fn take(&mut self, event: Event<DecodedRecord>) -> Option<SegmentNumber> {
        match event {
            Event::Appended { attachment, record, .. } => {
                #[cfg(debug_assertions)]
                crate::failpoints::die_of_poison(&record.payload);
                // Its memory is the attachment's, or nobody's.
                drop(record);
                self.ledger.note(&attachment);
                arrival::bear_witness(&*self.clock, &attachment);
                self.assembler.push(attachment, self.clock.monotonic_nano());
                self.open_bytes.set(self.assembler.open_bytes(), 0);
                None
            }
            Event::Sealed { segment } => Some(segment),
        }
    }

    pub(crate) fn take_waiting(&mut self) {
        while let Some(event) = self.events.try_recv() {
            self.take(event);
        }
    }

    /// Whether an epoch should run now. Looks at every open trace, so at most once per tick.
    fn is_due(&mut self) -> bool {
        let now = self.clock.monotonic_nano();
        if now < self.not_before_nano {
            return false;
        }
        self.not_before_nano = now.saturating_add(TICK_NANO);
        let passed = |since: u64, interval: Duration| {
            interval <= Duration::from_nanos(now.saturating_sub(since))
        };
        let ready = |table: &TableName| self.blocked.is_ready(table, now);
        let status = self.assembler.status(&self.schedule.settle, now, &ready);
        // What piles up of a large trace is in memory until it is committed.
        let full = self.schedule.commit_bytes <= status.bytes
            || self.schedule.settle.max_open_bytes / 2 < status.late_bytes;
        let commit = full || passed(self.last_commit_nano, self.schedule.commit_every);
        let doubtful = self.doubts.tables().any(ready);
        doubtful
            || (commit && status.settled)
            || (passed(self.last_amendment_nano, self.schedule.amend_every) && status.late)
    }

    /// One epoch over all that is in the journal now.
    fn run_epoch(&mut self, scope: Scope) -> anyhow::Result<FlushOutcome> {
        let done = self.try_epoch(scope);
        let fault = done.as_ref().err().map(|error| format!("epoch not committed: {error:#}"));
        self.health.say("epoch", fault);
        done
    }

    fn try_epoch(&mut self, scope: Scope) -> anyhow::Result<FlushOutcome> {
        self.handle.block_on(self.journal.heal())?;
        let sealed = self.handle.block_on(self.journal.rotate())?;
        self.drain_to(sealed)?;
        let now = self.clock.monotonic_nano();
        // It stands for all that there is.
        self.undone = None;
        self.settle_and_commit(sealed, scope, now)
    }

    /// Settles, commits, carries over, and deletes what is committed: epoch `segment`. Silence of
    /// traces is counted up to `silent_until_nano`.
    fn settle_and_commit(
        &mut self,
        segment: SegmentNumber,
        scope: Scope,
        silent_until_nano: u64,
    ) -> anyhow::Result<FlushOutcome> {
        let now = self.clock.monotonic_nano();
        let everything = scope == Scope::Everything;
        let since_amendment = Duration::from_nanos(now.saturating_sub(self.last_amendment_nano));
        let amend = everything
            || self.schedule.amend_every <= since_amendment
            || self.schedule.settle.max_open_bytes / 2 < self.assembler.late_bytes();
        let blocked = self.blocked.clone();
        // A replay by parts goes through many epochs, and waits for no table in each.
        let asks_all = everything && self.undone.is_none();
        let ready = |table: &TableName| asks_all || blocked.is_ready(table, now);
        self.resolve_doubts(&ready);
        let take = Take { everything, late: amend, ready: &ready };
        let open_before = self.assembler.open_bytes();
        let settled = self.assembler.settle(&self.schedule.settle, silent_until_nano, &take);
        let placement::Placed { traces: mut settled, mut failed } = self.place(settled, &ready);
        self.hold_back(&mut settled, &mut failed);
        let created_at_micros = self.clock.now_unix_micro();
        for trace in settled.values_mut().flatten() {
            trace.created_at_micros = created_at_micros;
            trace.updated_at_micros = created_at_micros;
        }
        if !amend {
            self.defer_late(&mut settled);
        }
        let open = self.assembler.open_bytes();
        self.open_bytes.set(open + self.doubts.bytes(), open_before.saturating_sub(open));
        let mut committed = self.commit_settled(segment, settled);
        if let Ok(outcome) = &mut committed {
            for (table, reason) in failed {
                self.blocked.block(&table, now, reason.clone());
                outcome.failed.entry(table).or_insert(reason);
            }
            self.last_commit_unix_nano = self.clock.now_unix_nano();
            self.last_commit_nano = now;
            if amend && outcome.deferred == 0 {
                self.last_amendment_nano = now;
            }
        }
        self.open_bytes.set(self.assembler.open_bytes() + self.doubts.bytes(), 0);
        self.forget_replayed();
        committed
    }

    fn put_back(&mut self, table: &TableName, traces: Vec<TraceDraft>, late: bool) {
        traces.into_iter().for_each(|trace| self.assembler.put_back(table, trace, late));
    }

    /// Plans, commits what is settled, carries over what is in no table, and forgets the segment.
    /// What does not get in is open again, also after an error: the next epoch deletes this one's
    /// segment, so it must hold that too.
    fn commit_settled(
        &mut self,
        segment: SegmentNumber,
        settled: HashMap<TableName, Vec<TraceDraft>>,
    ) -> anyhow::Result<FlushOutcome> {
        let (now, proven) = (self.clock.now_unix_nano(), self.clock.proven_unix_nano());
        self.mark_stage(Stage::Between);
        let ledger = self.ledger.write(segment, now, proven);
        if let Err(error) = ledger {
            for (table, traces) in settled {
                self.put_back(&table, traces, false);
            }
            return Err(error);
        }
        let mut outcome = FlushOutcome::default();
        let planned = self.plan(segment, settled, &mut outcome)?;
        self.mark_stage(Stage::AtWork);
        for (table, traces) in planned {
            self.commit(segment, &table, traces, &mut outcome);
        }
        self.mark_stage(Stage::Between);
        self.finish(segment, &mut outcome)?;
        Ok(outcome)
    }

    /// Puts late pieces of archived traces back until the next amendment round. A table that
    /// cannot be asked now is asked again by the commit, which then amends at once.
    fn defer_late(&mut self, settled: &mut HashMap<TableName, Vec<TraceDraft>>) {
        let mut tables: Vec<_> = settled.iter_mut().collect();
        tables.sort_unstable_by_key(|(table, _)| *table);
        for (table, traces) in tables {
            let wanted = traces.iter().map(|trace| trace.trace_id).collect();
            let archived = self.writers.guarded(table, |writer| writer.archived(&wanted));
            let Ok(archived) = archived else { continue };
            let (late, fresh) = std::mem::take(traces).into_iter().partition(|trace| {
                archived.contains(&trace.trace_id) && trace.spans_bytes() < LATE_AT_ONCE_BYTES
            });
            *traces = fresh;
            let late: Vec<TraceDraft> = late;
            for trace in late {
                self.assembler.put_back(table, trace, true);
            }
        }
    }

    /// Commits to a table once; one that cannot be written is left alone for a while.
    fn commit(
        &mut self,
        segment: SegmentNumber,
        table: &TableName,
        traces: Vec<TraceDraft>,
        outcome: &mut FlushOutcome,
    ) {
        let mut deferred = HashSet::new();
        let Some(mark) = self.plans.mark(segment, table) else {
            self.put_back(table, traces, false);
            return;
        };
        let plans = &mut self.plans;
        let mut defer = |left: &HashSet<TraceId>| {
            deferred.clone_from(left);
            plans.leave_out(segment, table, left)
        };
        let tried = self.writers.commit_epoch(table, &mark, &traces, &mut defer);
        let mut refused = None;
        let is_in = match tried {
            Ok(done) => {
                self.blocked.release(table);
                self.note_kept(table, &done);
                outcome.add(table, &done);
                let large = traces.iter().filter(|one| LARGE_ROW_BYTES <= one.spans_bytes());
                large.for_each(|trace| self.assembler.note_large(trace.trace_id));
                refused = done.refuses().then_some(done);
                Ok(true)
            }
            Err(FailedCommit { fault: fault @ LakeError::EpochTaken { .. }, .. }) => {
                // What is left goes with an epoch of another name, at once.
                match self.writers.take_own_name(table) {
                    Ok(()) => outcome.deferred += traces.len(),
                    Err(error) => {
                        error!(error = format!("{error:#}"), "no other name taken");
                        self.note_fault(table, &fault, outcome);
                    }
                }
                Ok(false)
            }
            Err(FailedCommit { fault, in_doubt }) => {
                // Its view of the table may be wrong.
                self.writers.forget(table);
                let looked_up = match in_doubt {
                    true => self.writers.settle_epoch(table, &mark),
                    false => Ok(false),
                };
                if !matches!(looked_up, Ok(true)) {
                    self.note_fault(table, &fault, outcome);
                }
                looked_up.map_err(|_| mark)
            }
        };
        let (left, traces): (Vec<_>, Vec<_>) =
            traces.into_iter().partition(|trace| deferred.contains(&trace.trace_id));
        // What the table does not take now it does not take in the next epoch either.
        if let Some(done) = refused {
            if done.kept.is_empty() {
                // Others were left out for memory alone.
                outcome.deferred += left.len().saturating_sub(done.unreadable.len());
            }
            self.keep(segment, table, &done, left);
            return;
        }
        match is_in {
            Ok(true) => outcome.deferred += left.len(),
            Ok(false) => {
                self.plans.strike(segment, table);
                self.put_back(table, traces, false);
            }
            Err(mark) => {
                let table = table.clone();
                self.doubts.add(Doubt { table, epoch: segment, mark, traces });
            }
        }
        self.put_back(table, left, true);
    }

    fn note_fault(&mut self, table: &TableName, fault: &LakeError, outcome: &mut FlushOutcome) {
        let now = self.clock.monotonic_nano();
        let wait = self.blocked.block(table, now, fault.to_string());
        match fault.retry() {
            Retry::AfterBackoff => warn!(%table, error = %fault, ?wait, "commit failed"),
            Retry::Never => {
                error!(%table, error = %fault, ?wait, "commit refused: traces wait in the journal until the table is mended");
            }
        }
        outcome.failed.insert(table.clone(), fault.to_string());
    }
}
