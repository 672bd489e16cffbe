//! Commits: settled traces become table versions, each exactly once.
//!
//! The journal hands traces over in **epochs**: numbered, ever larger. An epoch is one version of
//! the table: rows of traces that had none, and of late pieces the new rows, a deletion vector on
//! each old row, and the change data. It carries a Delta `txn` action (this archiver, the epoch),
//! so rows and number are in the table together or not at all.
//!
//! An epoch may leave late pieces out that memory has no room for. It says so before the version is
//! written ([`Defer`]), so that whoever hands traces over knows at each moment which ones a `txn`
//! stands for. After an error [`TableWriter::is_in_doubt`] tells whether the version may be in all
//! the same. How no crash makes a piece count twice or not at all is proved in
//! `docs/exactly-once.md`.
//!
//! A version is written with put-if-absent, so of two writers one wins; the other reads what the
//! winner did and decides anew. Every decision is made against the version right before the one
//! that is written: a trace that another archiver has appended meanwhile is amended, not appended.
//! So no version has two rows for a trace, however many archivers got parts of it. What an amendment
//! merged stands when the winner left its traces alone (`rebase`).
//!
//! Merging a piece that is in changes nothing (`merge`): it says what holds, never how that differs
//! from before. So a client's retry is stored once, through whichever archiver it comes. Moves
//! ([`TableWriter::absorb`], [`TableWriter::delete_located`]) are in no epoch and rest on this.

mod amendment;
mod batches;
mod changed;
pub(crate) mod merge;
mod old_rows;
mod outcome;
mod parts;
mod put_file;
mod readable;
mod rebase;
mod relocation;
pub(crate) mod span_set;

pub use amendment::Preview;
pub(crate) use amendment::loose_bounds;
use amendment::{Amendment, Plan};
use merge::Age;
pub use outcome::{Defer, EpochOutcome};
use parts::{Rows, arrange};
use readable::Readable;
pub use relocation::{FoundRows, LargeMove, LocatedTraces, NextRow};

/// The trace as it is, from its rows, older ones first, and what is open of it; `None` when it was
/// deleted, or there is nothing of it but changes.
#[must_use]
pub fn current_trace(rows: Vec<TraceDraft>, piece: Option<TraceDraft>) -> Option<TraceDraft> {
    merge::current(rows, piece)
}

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use delta_kernel::actions::{Metadata as KernelMetadata, Protocol as KernelProtocol};
use tracelake_model::schema::traces_schema;
use tracelake_model::{Clock, TraceId};
use tracing::{debug, info, warn};

use crate::data_file::{EncodedFile, Expected};
use crate::error::LakeError;
use crate::layout::data_file;
use crate::log::actions::{Action, Add, CommitInfo};
use crate::log::{checkpoint_if_due, put_version};
use crate::rows::parts::{fits_a_row, spans_bytes};
use crate::rows::{LARGE_ROW_BYTES, RowEncoder, TraceDraft};
use crate::storage::PutOutcome;
use crate::table::{
    EpochMark, LiveFile, RowAddress, Table, TableSnapshot, TraceIndex, create_or_accept,
};

/// Times that a commit is tried again after another writer won.
pub(crate) const MAX_ATTEMPTS: usize = 50;

/// Bytes of spans that are encoded into one batch at the most, one trace at the least: so little that what
/// a batch takes beside its traces hardly counts, and that it is still in the cache when it is compressed.
const MAX_BATCH_BYTES: usize = 4 << 20;

/// `round_bytes` of every writer but those of tests.
const MAX_ROUND_BYTES: usize = 48 << 20;

/// Files that are known as durable; past it all are forgotten, and synced once more when it comes to that.
const MAX_SYNCED: usize = 100_000;

/// Traces whose places are kept for as long as a version is the newest.
const MAX_LOOKED_UP: usize = 100_000;

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
    /// What the table asked of its writers when it was found fit to be written to.
    checked: Requirements,
    /// Bytes of rows, as they are in memory, that one amendment reads.
    round_bytes: usize,
    looked_up: LookedUp,
    /// Files of the table that were made durable because something rests on their rows.
    synced: HashSet<String>,
    in_doubt: bool,
}

/// Where traces have rows at a version; nowhere when the list is empty.
#[derive(Debug, Default)]
struct LookedUp {
    version: u64,
    places: Found,
}

/// A data file of traces that have no row.
struct WrittenFile {
    traces: HashSet<TraceId>,
    path: String,
    file: EncodedFile,
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
            looked_up: LookedUp::default(),
            synced: HashSet::new(),
            in_doubt: false,
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

    /// The name that this writer's epochs have in the table.
    #[must_use]
    pub fn application_id(&self) -> &str {
        &self.application_id
    }

    /// The newest version this writer knows.
    #[must_use]
    pub const fn snapshot(&self) -> &TableSnapshot {
        &self.snapshot
    }

    /// Whether it is known without reading through the table which traces it has.
    #[must_use]
    pub const fn has_index(&self) -> bool {
        self.index.is_whole()
    }

    /// Which of `traces` have a row.
    ///
    /// # Errors
    /// [`LakeError`] when the table cannot be read.
    pub fn archived(&mut self, traces: &HashSet<TraceId>) -> Result<HashSet<TraceId>, LakeError> {
        self.refresh()?;
        Ok(self.find(traces)?.into_keys().collect())
    }

    /// Commits settled traces as one version, an epoch of this writer's own name that no plan tells
    /// of; returns when it is durable in the table.
    ///
    /// # Errors
    /// [`LakeError`]; the epoch is in the table whole or not at all, see [`Self::is_in_doubt`].
    pub fn commit_epoch(
        &mut self,
        epoch: i64,
        traces: &[TraceDraft],
    ) -> Result<EpochOutcome, LakeError> {
        let application = self.application_id.clone();
        self.commit_planned(&EpochMark { application, number: epoch, nonce: None }, traces, None)
    }

    /// Commits a planned epoch, within memory: late traces whose rows are too large together are
    /// left out and told to `defer`, to be handed over with the next epoch.
    ///
    /// # Errors
    /// As [`Self::commit_epoch`], or what `defer` answers; [`LakeError::EpochTaken`] when another data
    /// folder counts under the same name, and then nothing of it is in.
    pub fn commit_planned(
        &mut self,
        mark: &EpochMark,
        traces: &[TraceDraft],
        defer: Option<&mut Defer<'_>>,
    ) -> Result<EpochOutcome, LakeError> {
        self.in_doubt = false;
        self.refresh()?;
        if self.has_committed(mark)? {
            let version = self.snapshot.version();
            return Ok(EpochOutcome { already_committed: true, version, ..Default::default() });
        }
        self.commit(Some(mark), traces, Age::Younger, defer)
    }

    /// Whether, after an error of [`Self::commit_epoch`], the epoch may be in the table all the
    /// same: its version was tried, and how that went is not known. [`Self::committed_epoch`] of
    /// a writer that is opened anew tells.
    #[must_use]
    pub const fn is_in_doubt(&self) -> bool {
        self.in_doubt
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
            // Parts are pieces, and each brings what it adds to the numbers of its trace.
            let piece = TraceDraft { part: None, beyond: None, ..trace.clone() };
            by_trace.entry(trace.trace_id).or_default().push(piece);
        }
        let traces: Vec<TraceDraft> = by_trace
            .into_values()
            .filter_map(|mut rows| {
                rows.sort_by_key(|row| (row.updated_at_micros, row.revision));
                merge::fold(rows)
            })
            .collect();
        self.commit(None, &traces, Age::Older, None)
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
        self.commit(None, &gone, Age::Younger, None)
    }

    /// Writes one version that brings `traces`, deferred ones left out, and decides anew as often as
    /// another writer is first.
    fn commit(
        &mut self,
        mark: Option<&EpochMark>,
        traces: &[TraceDraft],
        age: Age,
        mut defer: Option<&mut Defer<'_>>,
    ) -> Result<EpochOutcome, LakeError> {
        self.in_doubt = false;
        let wanted: HashSet<TraceId> = traces.iter().map(|trace| trace.trace_id).collect();
        let limit = if defer.is_some() { self.round_bytes } else { usize::MAX };
        let mut deferred = HashSet::new();
        let mut written = None;
        for attempt in 0..MAX_ATTEMPTS {
            if 0 < attempt {
                self.refresh()?;
                if let Some(mark) = mark
                    && self.has_committed(mark)?
                {
                    // The version whose answer was lost.
                    return Ok(self.finish(EpochOutcome::default()));
                }
            }
            let found = self.find(&wanted)?;
            let (late, mut fresh): (Vec<&TraceDraft>, Vec<&TraceDraft>) =
                traces.iter().partition(|trace| found.contains_key(&trace.trace_id));
            // Changes to a trace that is nowhere: it was deleted, and they with it.
            fresh.retain(|trace| age == Age::Older || !trace.is_blank());
            let Readable { mut plan, late: readable, unreadable, fault } =
                self.plan_readable(&late, &found, age, limit, defer.is_some())?;
            self.sync_rows(&plan)?;
            let kept = if self.snapshot.is_append_only() { plan.leave_rows() } else { Vec::new() };
            let keeps = !(kept.is_empty() && unreadable.is_empty());
            if keeps && defer.is_none() {
                return Err(LakeError::AppendOnly { table: self.table.name() });
            }
            if let Some(defer) = &mut defer
                && deferred != plan.deferred
            {
                deferred.clone_from(&plan.deferred);
                defer(&deferred)?;
            }
            let counts = plan.outcome(late.len(), fresh.len());
            let outcome = EpochOutcome { kept, unreadable, fault, ..counts };
            let txn = mark.map(|mark| mark.actions(self.clock.now_unix_micro() / 1_000));
            let txn = txn.unwrap_or_default();
            // Pieces that wait for an operator must not make a version each time that they are tried. Others in
            // their round are let go for good, which the `txn` says: a replay would hand them over again, after
            // what another archiver may have said since.
            let waits = |trace: &TraceDraft| plan.deferred.contains(&trace.trace_id);
            let all_wait = keeps && traces.iter().all(waits);
            if plan.is_empty() && fresh.is_empty() && (txn.is_empty() || all_wait) {
                return Ok(self.finish(outcome));
            }
            let step = if plan.is_empty() {
                self.append(&fresh, txn, &mut written)?
            } else {
                self.amend(Amendment { plan, late: readable, fresh, found, mark, txn })?
            };
            if let Step::Done(()) = step {
                return Ok(self.finish(outcome));
            }
        }
        Err(LakeError::CommitConflict {
            table: self.table.name(),
            version: self.snapshot.version() + 1,
        })
    }

    /// Whether the version that is known has the epoch.
    ///
    /// # Errors
    /// [`LakeError::EpochTaken`] when its number belongs to another data folder's epoch.
    fn has_committed(&self, mark: &EpochMark) -> Result<bool, LakeError> {
        let taken = Some(mark.number) <= self.snapshot.committed_epoch(&mark.application)?;
        if taken && !self.snapshot.has_epoch(mark)? {
            let EpochMark { application, number, .. } = mark.clone();
            return Err(LakeError::EpochTaken { table: self.table.name(), application, number });
        }
        Ok(taken)
    }

    fn finish(&mut self, mut outcome: EpochOutcome) -> EpochOutcome {
        if let Err(error) = self.refresh() {
            // The commit is in; the next epoch reads the log again.
            warn!(table = self.table.name(), %error, "snapshot after commit not read");
        }
        self.in_doubt = false;
        outcome.version = self.snapshot.version();
        outcome.is_append_only = self.snapshot.is_append_only();
        info!(
            table = self.table.name(),
            version = outcome.version,
            appended = outcome.appended,
            amended = outcome.amended,
            deleted = outcome.deleted,
            kept = outcome.kept.len(),
            "committed"
        );
        outcome
    }

    /// Reads the newest version, durably, so that what is or is not in it may be relied on. A table whose
    /// columns, features or properties another writer changed is checked, and mended, as one that is accepted.
    fn refresh(&mut self) -> Result<(), LakeError> {
        self.snapshot = self.table.durable_snapshot(Some(&self.snapshot))?;
        if self.checked != requirements(&self.snapshot) {
            self.snapshot = create_or_accept(&self.table, &*self.clock)?;
            self.checked = requirements(&self.snapshot);
        }
        Ok(())
    }

    /// Reads the newest version for a question from which nothing is concluded.
    fn look(&mut self) -> Result<(), LakeError> {
        self.snapshot = self.table.snapshot(Some(&self.snapshot))?;
        Ok(())
    }

    /// Makes the rows durable that say that a late piece is in already: another engine may have put them
    /// where they are, and need not sync.
    fn sync_rows(&mut self, plan: &Plan) -> Result<(), LakeError> {
        let files = plan.unchanged_in.iter().filter_map(|index| plan.files.get(*index));
        let mut paths = Vec::new();
        for file in files {
            paths.push(file.path.clone());
            paths.extend(file.vector_file(&self.table)?);
        }
        paths.retain(|path| !self.synced.contains(path));
        if paths.is_empty() {
            return Ok(());
        }
        self.table.files.sync_files(&paths)?;
        if MAX_SYNCED < self.synced.len() {
            self.synced.clear();
        }
        self.synced.extend(paths);
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

    /// Where `traces` have rows in the version that is known. What was looked for in it before is
    /// not looked for again.
    fn find(&mut self, traces: &HashSet<TraceId>) -> Result<Found, LakeError> {
        if traces.is_empty() {
            return Ok(Found::new());
        }
        let version = self.snapshot.version();
        if self.looked_up.version != version || MAX_LOOKED_UP < self.looked_up.places.len() {
            self.looked_up = LookedUp { version, places: HashMap::new() };
        }
        let places = &self.looked_up.places;
        let unknown: HashSet<TraceId> =
            traces.iter().filter(|trace| !places.contains_key(trace)).copied().collect();
        if !unknown.is_empty() {
            let files = self.live_files()?;
            let mut found = self.index.find(&self.snapshot, &files, &unknown)?;
            let rows = unknown.into_iter().map(|trace| (trace, found.remove(&trace)));
            self.looked_up
                .places
                .extend(rows.map(|(trace, rows)| (trace, rows.unwrap_or_default())));
        }
        let known = |trace: &TraceId| {
            let rows = self.looked_up.places.get(trace).filter(|rows| !rows.is_empty())?;
            Some((*trace, rows.clone()))
        };
        Ok(traces.iter().filter_map(known).collect())
    }

    /// Rows batch by batch.
    fn encode_rows<'a>(
        rows: &'a [Cow<'_, TraceDraft>],
    ) -> impl Iterator<Item = Result<RecordBatch, ArrowError>> + use<'a> {
        let mut encoder = RowEncoder::default();
        chunks_by_bytes(rows).into_iter().map(move |chunk| {
            let rows = rows.get(chunk).unwrap_or_default();
            rows.iter().for_each(|row| encoder.push(row));
            encoder.finish()
        })
    }

    /// Appends `fresh`, whose file is written once, however many versions it comes second to.
    /// Nothing to append still ends the epoch, with a commit of the `txn` alone: it says that
    /// what came is in.
    fn append(
        &mut self,
        fresh: &[&TraceDraft],
        txn: Vec<Action>,
        written: &mut Option<WrittenFile>,
    ) -> Result<Step<()>, LakeError> {
        let traces: HashSet<TraceId> = fresh.iter().map(|trace| trace.trace_id).collect();
        if written.as_ref().is_none_or(|known| known.traces != traces) {
            *written = None;
            if !fresh.is_empty() {
                let path = data_file();
                let rows = fresh_rows(fresh);
                let mut batches = Self::encode_rows(&rows).map(|batch| batch.map_err(Into::into));
                let expected = Expected { count: rows.len(), has_large: has_large(&rows) };
                let file = self.put_parquet(&path, &traces_schema(), expected, &mut batches)?;
                *written = Some(WrittenFile { traces, path, file });
            }
        }
        let mut actions = vec![self.commit_info("WRITE", true)];
        actions.extend(txn);
        if let Some(WrittenFile { path, file, .. }) = written {
            actions.push(self.add(path, file));
        }
        let step = self.write_version(&actions)?;
        if let (Step::Done(()), Some(file)) = (&step, written) {
            for trace in &file.traces {
                self.index.note(&file.path, *trace, &[]);
            }
        }
        Ok(step)
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
        let timestamp = self.clock.now_unix_micro() / 1_000;
        Action::CommitInfo(CommitInfo::new(operation, is_blind_append, timestamp))
    }

    /// Writes the version after the snapshot's; lost when another writer was first.
    fn write_version(&mut self, actions: &[Action]) -> Result<Step<()>, LakeError> {
        let version = self.snapshot.version() + 1;
        self.in_doubt = true;
        match put_version(&self.table, version, actions)? {
            PutOutcome::Exists => {
                self.in_doubt = false;
                debug!(table = self.table.name(), version, "commit conflict, reloading");
                Ok(Step::Lost)
            }
            PutOutcome::Written => {
                self.snapshot = self.table.snapshot(Some(&self.snapshot))?;
                // A later one is another writer's, and need not be durable.
                if self.snapshot.version() == version {
                    checkpoint_if_due(&self.snapshot);
                }
                Ok(Step::Done(()))
            }
        }
    }
}

/// What a version asks of its writers: features, columns, partitions and properties.
pub(crate) type Requirements = (KernelProtocol, KernelMetadata);

pub(crate) fn requirements(snapshot: &TableSnapshot) -> Requirements {
    let configuration = snapshot.snapshot.table_configuration();
    (configuration.protocol().clone(), configuration.metadata().clone())
}

/// How an attempt to write a version went.
#[derive(Debug)]
enum Step<T> {
    /// The version is durable.
    Done(T),
    /// Another writer was first: decide again on what is there now.
    Lost,
}

/// The rows of traces that have none. Traces too large for a row have several.
fn fresh_rows<'a>(traces: &[&'a TraceDraft]) -> Vec<Cow<'a, TraceDraft>> {
    let mut rows = Vec::with_capacity(traces.len());
    for trace in traces {
        if trace.part.is_some() || fits_a_row(&trace.spans) {
            rows.push(Cow::Borrowed(*trace));
        } else {
            let Rows { head, further, .. } = arrange((*trace).clone(), None, 1, true);
            rows.extend(std::iter::once(head).chain(further).map(Cow::Owned));
        }
    }
    rows
}

/// True when some row is large.
fn has_large(rows: &[Cow<'_, TraceDraft>]) -> bool {
    rows.iter().any(|row| LARGE_ROW_BYTES <= spans_bytes(&row.spans))
}

/// Cuts `rows` so that no run has more than [`MAX_BATCH_BYTES`] of span bytes, or one row.
fn chunks_by_bytes(rows: &[Cow<'_, TraceDraft>]) -> Vec<Range<usize>> {
    let mut chunks = Vec::new();
    let mut start = 0;
    let mut bytes = 0;
    for (index, row) in rows.iter().enumerate() {
        let size = spans_bytes(&row.spans);
        if start < index && MAX_BATCH_BYTES < bytes + size {
            chunks.push(start..index);
            start = index;
            bytes = 0;
        }
        bytes += size;
    }
    if start < rows.len() {
        chunks.push(start..rows.len());
    }
    chunks
}

#[cfg(test)]
mod epoch_tests;
#[cfg(test)]
pub(crate) mod parts_tests;
#[cfg(test)]
mod rebase_tests;
#[cfg(test)]
pub(crate) mod tests;
