//! Commits: settled traces become table versions, each exactly once.
//!
//! # The proof
//!
//! The journal hands traces over in **epochs**: numbered, ever larger. Traces whose epoch did not
//! end are handed over again, with all that was said of them since, in a later epoch. An epoch's
//! commits to one table are, in this order:
//!
//! 1. **amendments**: late pieces of traces that have a row already. Each is one atomic commit of
//!    the new rows, a deletion vector on each old row, and the change data of both; as many as
//!    memory asks for, mostly one;
//! 2. at most one **append** of traces that have no row.
//!
//! Whatever of this is in the table when the process dies, handing the traces over again completes
//! it: a trace that was appended is found by its id, and merging a piece that is in changes nothing
//! (`merge`), so nothing is written twice; what is missing is written then. The rows that no commit
//! names are in unreferenced files.
//!
//! Merging again changes nothing because a piece says what holds, never how that differs from
//! before: copies of spans are left out, and changes to tags, assessments and links end in the same
//! state when their whole sequence is applied once more. Only the last epoch can be handed over
//! again, whole and in order, so nothing younger of this archiver is in the table that an older piece
//! could undo. What another archiver did to the same trace between a commit and its replay can be
//! undone: its deletion, a tag that it set, and, where a deletion is replayed, spans that it added
//! after that.
//!
//! The last commit carries a Delta `txn` action (this archiver, the epoch): another call for the
//! epoch, after an answer that was lost, commits nothing.
//!
//! A version is written with put-if-absent, so of two writers one wins; the other reads what the
//! winner did and decides anew. Every decision is made against the version right before the one
//! that is written: a trace that another archiver has appended meanwhile is amended, not appended.
//! So no version has two rows for a trace, however many archivers got parts of it. What an amendment
//! merged stands when the winner left its traces alone (`rebase`).

pub(crate) mod actions;
mod amendment;
pub(crate) mod merge;
mod rebase;
mod relocation;

pub use amendment::Preview;
use amendment::RoundOutcome;
pub(crate) use amendment::loose_bounds;
use merge::Age;
pub use relocation::LocatedTraces;

/// The trace as it is, from its rows, older ones first, and what is open of it; `None` when it was
/// deleted, or there is nothing of it but changes.
#[must_use]
pub fn current_trace(rows: Vec<TraceDraft>, piece: Option<TraceDraft>) -> Option<TraceDraft> {
    merge::current(rows, piece)
}

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use delta_kernel::actions::Protocol as KernelProtocol;
use delta_kernel::schema::SchemaRef as KernelSchemaRef;
use tracelake_model::schema::traces_schema;
use tracelake_model::{Clock, TraceId};
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::commit::actions::{Action, Add, CommitInfo, ENGINE_INFO, Txn, to_lines};
use crate::data_file::{EncodedFile, encode_batches};
use crate::error::LakeError;
use crate::layout::{data_file, log_file};
use crate::rows::{RowEncoder, TraceDraft};
use crate::storage::PutOutcome;
use crate::table::{LiveFile, RowAddress, Table, TableSnapshot, TraceIndex, create_or_accept};

/// Times that a commit is tried again after another writer won.
pub(crate) const MAX_ATTEMPTS: usize = 50;

/// Versions between checkpoints.
pub(crate) const CHECKPOINT_INTERVAL: u64 = 50;

/// Bytes of spans that are encoded into one batch at the most, one trace at the least: so little that what
/// a batch takes beside its traces hardly counts, and that it is still in the cache when it is compressed.
const MAX_BATCH_BYTES: usize = 4 << 20;

/// `round_bytes` of every writer but those of tests.
const MAX_ROUND_BYTES: u64 = 128 << 20;

/// How much larger rows are in memory than in their file, about.
const EXPANSION: u64 = 10;

/// What an epoch did to a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EpochOutcome {
    /// Traces that got a row.
    pub appended: usize,
    /// Traces whose row was replaced.
    pub amended: usize,
    /// Traces whose row is gone: a client deleted them.
    pub deleted: usize,
    /// Late pieces that were in already.
    pub unchanged: usize,
    /// Version of the table afterwards.
    pub version: u64,
    /// True when an earlier attempt had committed this epoch.
    pub already_committed: bool,
}

/// Writes the epochs of one archiver to one table.
#[derive(Debug)]
pub struct TableWriter {
    table: Table,
    application_id: String,
    clock: Arc<dyn Clock>,
    snapshot: TableSnapshot,
    index: TraceIndex,
    /// Live files at a version.
    files: Option<(u64, Arc<Vec<LiveFile>>)>,
    /// Schema and protocol that were found fit to be written to.
    checked: (KernelSchemaRef, KernelProtocol),
    /// Bytes of rows, as they are in memory, that one amendment reads.
    round_bytes: u64,
}

/// Where the wanted traces have rows.
type Found = HashMap<TraceId, Vec<RowAddress>>;

impl TableWriter {
    /// Opens the table, creating or accepting it first.
    ///
    /// `application_id` is this archiver's own; `index_limit` bounds how many traces are held in
    /// memory to tell late pieces from new traces.
    ///
    /// # Errors
    /// As [`create_or_accept`].
    pub fn open(
        table: Table,
        application_id: String,
        clock: Arc<dyn Clock>,
        index_limit: usize,
    ) -> Result<Self, LakeError> {
        let snapshot = create_or_accept(&table, &*clock)?;
        let checked = requirements(&snapshot);
        let index = TraceIndex::new(index_limit);
        Ok(Self {
            table,
            application_id,
            clock,
            snapshot,
            index,
            files: None,
            checked,
            round_bytes: MAX_ROUND_BYTES,
        })
    }

    /// The last epoch that is in the table.
    ///
    /// # Errors
    /// [`LakeError::Kernel`] when the log cannot be read.
    pub fn committed_epoch(&mut self) -> Result<Option<i64>, LakeError> {
        self.refresh()?;
        self.snapshot.committed_epoch(&self.application_id)
    }

    /// The newest version this writer knows.
    #[must_use]
    pub const fn snapshot(&self) -> &TableSnapshot {
        &self.snapshot
    }

    /// Which of `traces` have a row.
    ///
    /// # Errors
    /// [`LakeError`] when the table cannot be read.
    pub fn archived(&mut self, traces: &HashSet<TraceId>) -> Result<HashSet<TraceId>, LakeError> {
        self.refresh()?;
        Ok(self.find(traces)?.into_keys().collect())
    }

    /// Commits an epoch's settled traces; returns when they are durable in the table.
    ///
    /// After an error hand the traces over again, in this epoch or a later one.
    ///
    /// # Errors
    /// [`LakeError`]; nothing of the epoch is lost, it may be in the table in part.
    pub fn commit_epoch(
        &mut self,
        epoch: i64,
        traces: &[TraceDraft],
    ) -> Result<EpochOutcome, LakeError> {
        self.refresh()?;
        if Some(epoch) <= self.snapshot.committed_epoch(&self.application_id)? {
            let version = self.snapshot.version();
            return Ok(EpochOutcome { already_committed: true, version, ..Default::default() });
        }
        self.commit(Some(epoch), traces, Age::Younger)
    }

    /// Takes rows of another table in. Where a trace has a row here, what that one says stands
    /// over what comes. Calling it again with the same traces changes nothing.
    ///
    /// # Errors
    /// [`LakeError`]; the traces may be in the table in part.
    pub fn absorb(&mut self, traces: &[TraceDraft]) -> Result<EpochOutcome, LakeError> {
        self.refresh()?;
        let mut by_trace: BTreeMap<TraceId, Vec<TraceDraft>> = BTreeMap::new();
        for trace in traces {
            by_trace.entry(trace.trace_id).or_default().push(trace.clone());
        }
        let traces: Vec<TraceDraft> = by_trace
            .into_values()
            .filter_map(|mut rows| {
                rows.sort_by_key(|row| (row.updated_at_micros, row.revision));
                merge::fold(rows)
            })
            .collect();
        self.commit(None, &traces, Age::Older)
    }

    /// Deletes the rows of traces that clients deleted, in no epoch. Calling it again changes
    /// nothing.
    ///
    /// # Errors
    /// [`LakeError`]; some of the rows may be deleted.
    pub fn delete_traces(&mut self, traces: &HashSet<TraceId>) -> Result<EpochOutcome, LakeError> {
        self.refresh()?;
        let gone = |trace: &TraceId| TraceDraft { replaces: true, ..TraceDraft::new(*trace) };
        let gone: Vec<TraceDraft> = traces.iter().map(gone).collect();
        self.commit(None, &gone, Age::Younger)
    }

    fn commit(
        &mut self,
        epoch: Option<i64>,
        traces: &[TraceDraft],
        age: Age,
    ) -> Result<EpochOutcome, LakeError> {
        let mut outcome = EpochOutcome::default();
        let mut written: Option<(HashSet<TraceId>, String, EncodedFile)> = None;
        for attempt in 0..MAX_ATTEMPTS {
            if 0 < attempt {
                self.refresh()?;
                if epoch.is_some()
                    && epoch <= self.snapshot.committed_epoch(&self.application_id)?
                {
                    outcome.version = self.snapshot.version();
                    return Ok(outcome);
                }
            }
            let wanted: HashSet<TraceId> = traces.iter().map(|trace| trace.trace_id).collect();
            let found = self.find(&wanted)?;
            let (late, mut fresh): (Vec<&TraceDraft>, Vec<&TraceDraft>) =
                traces.iter().partition(|trace| found.contains_key(&trace.trace_id));
            // Changes to a trace that is nowhere: it was deleted, and they with it.
            fresh.retain(|trace| age == Age::Older || !trace.is_blank());
            let txn = epoch.map(|epoch| self.txn(epoch));
            if !late.is_empty() {
                let carried = txn.clone().filter(|_| fresh.is_empty());
                match self.amend_in_rounds(&late, &found, age, carried)? {
                    Step::Lost => continue,
                    Step::Done((round, is_carried)) => {
                        outcome.amended += round.amended;
                        outcome.deleted += round.deleted;
                        outcome.unchanged = late.len() - round.amended - round.deleted;
                        if is_carried {
                            return Ok(self.finish(outcome));
                        }
                    }
                }
            }
            if fresh.is_empty() && txn.is_none() {
                return Ok(self.finish(outcome));
            }
            if !late.is_empty() && self.has_any(&fresh)? {
                // Others were first while this amended: what they appended is late by this.
                continue;
            }
            // Nothing new and nothing changed still ends the epoch, with a commit of the txn
            // alone, so that a replay of it need not look again.
            let ids: HashSet<TraceId> = fresh.iter().map(|trace| trace.trace_id).collect();
            if written.as_ref().is_none_or(|(known, ..)| *known != ids) {
                written = self.write_data_file(&fresh)?.map(|(path, file)| (ids, path, file));
            }
            let file = written.as_ref().map(|(_, path, file)| (path.as_str(), file));
            match self.append(file, txn)? {
                Step::Lost => {}
                Step::Done(()) => {
                    if let Some((ids, path, _)) = written {
                        self.index.note(&path, ids.into_iter());
                    }
                    outcome.appended = fresh.len();
                    return Ok(self.finish(outcome));
                }
            }
        }
        Err(LakeError::CommitConflict {
            table: self.table.name(),
            version: self.snapshot.version() + 1,
        })
    }

    /// Whether one of `traces` has a row in the version that is known.
    fn has_any(&mut self, traces: &[&TraceDraft]) -> Result<bool, LakeError> {
        let wanted = traces.iter().map(|trace| trace.trace_id).collect();
        Ok(!self.find(&wanted)?.is_empty())
    }

    /// Amends in as many versions as memory asks for; the last one carries `txn`, unless there was
    /// nothing to change. Says so.
    fn amend_in_rounds(
        &mut self,
        late: &[&TraceDraft],
        found: &Found,
        age: Age,
        txn: Option<Action>,
    ) -> Result<Step<(RoundOutcome, bool)>, LakeError> {
        let rounds = self.rounds(late, found)?;
        let mut done = RoundOutcome::default();
        let mut found = found.clone();
        for (index, round) in rounds.iter().enumerate() {
            let is_last = index + 1 == rounds.len();
            let carried = txn.clone().filter(|_| is_last);
            let is_carried = carried.is_some();
            if 0 < index {
                // The round before changed the files.
                self.refresh()?;
                found = self.find(&round.iter().map(|trace| trace.trace_id).collect())?;
                if round.iter().any(|piece| !found.contains_key(&piece.trace_id)) {
                    // Its row went meanwhile: what came late is to be appended.
                    return Ok(Step::Lost);
                }
            }
            match self.amend(round, &found, age, carried)? {
                Step::Lost => return Ok(Step::Lost),
                Step::Done(RoundOutcome { amended, deleted }) => {
                    done.amended += amended;
                    done.deleted += deleted;
                    if is_last {
                        return Ok(Step::Done((done, is_carried && 0 < amended + deleted)));
                    }
                }
            }
        }
        Ok(Step::Done((done, false)))
    }

    /// Cuts `late` by the bytes that their rows may take in memory.
    fn rounds<'a>(
        &mut self,
        late: &[&'a TraceDraft],
        found: &Found,
    ) -> Result<Vec<Vec<&'a TraceDraft>>, LakeError> {
        let files = self.live_files()?;
        let row_bytes = |address: &RowAddress| {
            files.get(address.file).map_or(0, |file| {
                let rows = file.record_count.unwrap_or(1).max(1);
                (file.size_bytes / rows).saturating_mul(EXPANSION)
            })
        };
        let mut rounds = vec![Vec::new()];
        let mut bytes = 0;
        for piece in late {
            let rows = found.get(&piece.trace_id).map(Vec::as_slice).unwrap_or_default();
            let weight: u64 = rows.iter().map(row_bytes).sum();
            if self.round_bytes < bytes + weight
                && let Some(round) = rounds.last()
                && !round.is_empty()
            {
                rounds.push(Vec::new());
                bytes = 0;
            }
            bytes += weight;
            if let Some(round) = rounds.last_mut() {
                round.push(*piece);
            }
        }
        Ok(rounds)
    }

    fn finish(&mut self, mut outcome: EpochOutcome) -> EpochOutcome {
        if let Err(error) = self.refresh() {
            // The commit is in; the next epoch reads the log again.
            warn!(table = self.table.name(), %error, "snapshot after commit not read");
        }
        outcome.version = self.snapshot.version();
        info!(
            table = self.table.name(),
            version = outcome.version,
            appended = outcome.appended,
            amended = outcome.amended,
            deleted = outcome.deleted,
            "committed"
        );
        outcome
    }

    /// Reads the newest version. A table whose schema or protocol another writer changed is
    /// checked, and mended, as one that is accepted.
    fn refresh(&mut self) -> Result<(), LakeError> {
        self.snapshot = self.table.snapshot(Some(&self.snapshot))?;
        if self.checked != requirements(&self.snapshot) {
            self.snapshot = create_or_accept(&self.table, &*self.clock)?;
            self.checked = requirements(&self.snapshot);
        }
        Ok(())
    }

    fn live_files(&mut self) -> Result<Arc<Vec<LiveFile>>, LakeError> {
        let version = self.snapshot.version();
        if let Some((known, files)) = &self.files
            && *known == version
        {
            return Ok(Arc::clone(files));
        }
        let files = Arc::new(self.snapshot.live_files((None, None))?);
        self.files = Some((version, Arc::clone(&files)));
        Ok(files)
    }

    fn find(&mut self, traces: &HashSet<TraceId>) -> Result<Found, LakeError> {
        if traces.is_empty() {
            return Ok(Found::new());
        }
        let files = self.live_files()?;
        self.index.find(&self.snapshot, &files, traces)
    }

    fn txn(&self, epoch: i64) -> Action {
        Action::Txn(Txn {
            app_id: self.application_id.clone(),
            version: epoch,
            last_updated: self.clock.now_unix_micro() / 1_000,
        })
    }

    fn write_data_file(
        &self,
        traces: &[&TraceDraft],
    ) -> Result<Option<(String, EncodedFile)>, LakeError> {
        if traces.is_empty() {
            return Ok(None);
        }
        let path = data_file();
        let schema = traces_schema();
        let mut encoder = RowEncoder::default();
        let mut batches = chunks_by_bytes(traces).into_iter().map(|chunk| {
            chunk.iter().for_each(|trace| encoder.push(trace));
            encoder.finish().map_err(Into::into)
        });
        let encoded = encode_batches(&schema, traces.len(), &mut batches);
        let file = self.put_parquet(&path, encoded)?;
        Ok(Some((path, file)))
    }

    fn append(
        &mut self,
        file: Option<(&str, &EncodedFile)>,
        txn: Option<Action>,
    ) -> Result<Step<()>, LakeError> {
        let mut actions = vec![self.commit_info("WRITE", true)];
        actions.extend(txn);
        if let Some((path, file)) = file {
            actions.push(self.add(path, file));
        }
        self.write_version(&actions)
    }

    fn add(&self, path: &str, file: &EncodedFile) -> Action {
        Action::Add(Add {
            path: path.to_owned(),
            partition_values: BTreeMap::new(),
            size: file.size_bytes as u64,
            modification_time: self.clock.now_unix_micro() / 1_000,
            data_change: true,
            stats: Some(file.stats.clone()),
            tags: BTreeMap::new(),
            deletion_vector: None,
            clustering_provider: None,
        })
    }

    fn commit_info(&self, operation: &'static str, is_blind_append: bool) -> Action {
        Action::CommitInfo(CommitInfo {
            timestamp: self.clock.now_unix_micro() / 1_000,
            operation,
            operation_parameters: BTreeMap::new(),
            operation_metrics: BTreeMap::new(),
            is_blind_append,
            engine_info: ENGINE_INFO,
            txn_id: Uuid::new_v4().to_string(),
        })
    }

    /// Writes the version after the snapshot's; lost when another writer was first.
    fn write_version(&mut self, actions: &[Action]) -> Result<Step<()>, LakeError> {
        let version = self.snapshot.version() + 1;
        let lines = to_lines(actions).map_err(|error| LakeError::Row {
            path: self.table.name(),
            reason: error.to_string(),
        })?;
        match self.table.files.put_if_absent(&log_file(version), &lines)? {
            PutOutcome::Exists => {
                debug!(table = self.table.name(), version, "commit conflict, reloading");
                Ok(Step::Lost)
            }
            PutOutcome::Written => {
                self.snapshot = self.table.snapshot(Some(&self.snapshot))?;
                if version.is_multiple_of(CHECKPOINT_INTERVAL)
                    && let Err(error) = self.snapshot.checkpoint()
                {
                    // The log alone is enough; the next interval tries again.
                    warn!(table = self.table.name(), version, %error, "checkpoint not written");
                }
                Ok(Step::Done(()))
            }
        }
    }
}

/// What a version asks of its writers.
fn requirements(snapshot: &TableSnapshot) -> (KernelSchemaRef, KernelProtocol) {
    let protocol = snapshot.snapshot.table_configuration().protocol().clone();
    (snapshot.snapshot.schema(), protocol)
}

/// How an attempt to write a version went.
#[derive(Debug)]
enum Step<T> {
    /// The version is durable.
    Done(T),
    /// Another writer was first: decide again on what is there now.
    Lost,
}

/// Cuts `traces` so that no part has more than [`MAX_BATCH_BYTES`] of span bytes.
fn chunks_by_bytes<'a, 'b>(traces: &'b [&'a TraceDraft]) -> Vec<&'b [&'a TraceDraft]> {
    let mut chunks = Vec::new();
    let mut start = 0;
    let mut bytes = 0;
    for (index, trace) in traces.iter().enumerate() {
        let size: usize = trace.spans.iter().map(tracelake_decode::SpanRecord::weight_bytes).sum();
        if start < index && MAX_BATCH_BYTES < bytes + size {
            chunks.extend(traces.get(start..index));
            start = index;
            bytes = 0;
        }
        bytes += size;
    }
    chunks.extend(traces.get(start..));
    chunks
}

#[cfg(test)]
mod rebase_tests;
#[cfg(test)]
pub(crate) mod tests;
