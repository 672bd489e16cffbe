//! An amendment round: rows of archived traces replaced in one atomic commit.
//!
//! No data file is rewritten. The commit has the new rows in a file of their own, a deletion
//! vector on each old row, and a change data file with both images, as Delta writes an UPDATE.
//! A trace that a client deleted gets the vector and the image of a deletion alone.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::iter::once;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::{concat_batches, interleave_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use delta_kernel::actions::deletion_vector_writer::{
    KernelDeletionVector, StreamingDeletionVectorWriter,
};
use parquet::errors::ParquetError;
use tracelake_model::TraceId;

use super::batches::{take_rows, with_change_type, with_other_columns, without_ours};
use super::changed::Changed;
use super::merge::{Age, fold};
use super::old_rows::{Deletions, OldRows};
use super::parts::{LargeTrace, sum_beyond};
use super::{
    EpochOutcome, Found, MAX_ATTEMPTS, MAX_BATCH_BYTES, Step, TableWriter, fresh_rows, has_large,
};
use crate::data_file::Expected;
use crate::error::LakeError;
use crate::layout::{change_file, data_file, decode_action_path, deletion_vector_file};
use crate::log::actions::{Action, Add, Cdc, Remove};
use crate::rows::{LARGE_ROW_BYTES, RebuildError, TraceDraft, conform, encode, rebuild_traces};
use crate::table::{DeletionVector, EpochMark, LiveFile};

/// Images that are put in order in memory at a time.
const IMAGES_AT_A_TIME: usize = 256;

/// Rows that are not committed yet, against a version of the table.
#[derive(Clone, Debug)]
pub struct Preview {
    /// The version.
    pub version: u64,
    /// New rows, and amended ones as they will be.
    pub rows: RecordBatch,
    /// Rows of the version that amended ones replace, by data file.
    pub replaced: BTreeMap<String, BTreeSet<u64>>,
}

/// The rows that a version replaces and what replaces them.
pub(super) struct Plan {
    /// Old rows that get a successor, whole, in the table's schema.
    preimages: RecordBatch,
    /// New rows in the table's schema.
    postimages: RecordBatch,
    /// Of each preimage in order: the postimage that is its successor.
    successors: Vec<u32>,
    /// Old rows that go for good.
    deleted: RecordBatch,
    /// Traces that have new rows, for the index.
    traces: Vec<TraceId>,
    /// Further parts of large traces.
    further: Vec<TraceDraft>,
    /// Of large traces that have new rows: the files in which others stay.
    staying: HashMap<TraceId, BTreeSet<String>>,
    /// Of the deletions the rows that were not read: parts of traces that go for good.
    unread: Deletions,
    /// Traces whose rows go for good.
    deleted_traces: usize,
    pub(super) deletions: Deletions,
    /// Late traces that memory has no room for.
    pub(super) deferred: HashSet<TraceId>,
    /// The live files that the deletions are of.
    pub(super) files: Arc<Vec<LiveFile>>,
    /// Live files whose rows say that a piece is in already.
    pub(super) unchanged_in: BTreeSet<usize>,
    /// Late traces that have a change.
    changed: Vec<TraceId>,
}

impl Plan {
    /// True when no row changes.
    pub(super) fn is_empty(&self) -> bool {
        self.deletions.is_empty() && self.further.is_empty()
    }

    /// Leaves all rows as they are: the late pieces with something to say are deferred. Returns which ones
    /// these are.
    pub(super) fn leave_rows(&mut self) -> Vec<TraceId> {
        let kept = std::mem::take(&mut self.changed);
        self.deferred.extend(kept.iter().copied());
        self.traces.clear();
        self.deleted_traces = 0;
        self.deletions.clear();
        self.further.clear();
        self.unread.clear();
        kept
    }

    /// Both images of each row that changes, one behind the other: most of it stays the same, so that
    /// the second takes hardly any room in the page, nor time. A few at a time.
    fn updates(&self) -> Result<impl Iterator<Item = Result<RecordBatch, ArrowError>>, ArrowError> {
        let before = with_change_type(&self.preimages, "update_preimage")?;
        let after = with_change_type(&self.postimages, "update_postimage")?;
        let mut order = Vec::with_capacity(before.num_rows() + after.num_rows());
        let mut preimages = self.successors.iter().enumerate().peekable();
        for postimage in 0..after.num_rows() {
            while let Some((preimage, _)) =
                preimages.next_if(|(_, successor)| usize::try_from(**successor) == Ok(postimage))
            {
                order.push((0, preimage));
            }
            order.push((1, postimage));
        }
        let bytes = before.get_array_memory_size().saturating_add(after.get_array_memory_size());
        let at_a_time =
            if MAX_BATCH_BYTES < bytes / order.len().max(1) { 1 } else { IMAGES_AT_A_TIME };
        let mut taken = 0;
        Ok(std::iter::from_fn(move || {
            let chunk = order.get(taken..order.len().min(taken + at_a_time))?;
            taken += chunk.len();
            match chunk {
                [] => None,
                // A large row is not copied.
                [(0, row)] => Some(Ok(before.slice(*row, 1))),
                [(_, row)] => Some(Ok(after.slice(*row, 1))),
                _ => Some(interleave_record_batch(&[&before, &after], chunk)),
            }
        }))
    }

    /// What a version of this plan and `fresh` traces does, of `late` ones that were asked for.
    pub(super) fn outcome(&self, late: usize, fresh: usize) -> EpochOutcome {
        let (amended, deleted) = (self.traces.len(), self.deleted_traces);
        let unchanged = late.saturating_sub(self.deferred.len() + amended + deleted);
        EpochOutcome { appended: fresh, amended, deleted, unchanged, ..EpochOutcome::default() }
    }
}

/// The rows of a trace as one, with the spans of the parts that are there.
fn whole_trace(rows: Vec<TraceDraft>) -> Option<TraceDraft> {
    let (mut parts, mut heads): (Vec<_>, Vec<_>) =
        rows.into_iter().partition(|row| row.part.is_some());
    let beyond = sum_beyond(&heads);
    heads.sort_by_key(|row| (row.updated_at_micros, row.revision));
    parts.sort_by_key(|row| row.part);
    let mut trace = fold(heads)?;
    trace.beyond = beyond;
    parts.into_iter().for_each(|part| trace.take_in(part));
    Some(trace)
}

/// A version that replaces rows, and appends those of traces that have none.
pub(super) struct Amendment<'a> {
    pub(super) plan: Plan,
    pub(super) late: Vec<&'a TraceDraft>,
    pub(super) fresh: Vec<&'a TraceDraft>,
    pub(super) found: Found,
    /// The epoch, and what the version says of it.
    pub(super) mark: Option<&'a EpochMark>,
    pub(super) txn: Vec<Action>,
}

impl TableWriter {
    /// Writes the version of an amendment.
    ///
    /// Readers of the change data feed look at nothing but its file in a version that has one, so
    /// appended rows are in there as well.
    pub(super) fn amend(&mut self, amendment: Amendment<'_>) -> Result<Step<()>, LakeError> {
        let Amendment { mut plan, late, fresh, mut found, mark, txn } = amendment;
        let schema = plan.postimages.schema();
        let further = std::mem::take(&mut plan.further);
        let inserted: Vec<&TraceDraft> = fresh.iter().copied().chain(&further).collect();
        let inserted = fresh_rows(&inserted);
        // Made twice, once for each file, so that both never have more than a few of them in memory.
        let batches = || {
            let conforming = |batch: Result<RecordBatch, ArrowError>| conform(&batch?, &schema);
            Self::encode_rows(&inserted).map(conforming)
        };
        let mut traces = std::mem::take(&mut plan.traces);
        traces.extend(fresh.iter().map(|trace| trace.trace_id));
        let has_postimages = 0 < plan.postimages.num_rows();
        let operation = match (has_postimages, inserted.is_empty()) {
            (false, true) => "DELETE",
            (true, true) => "UPDATE",
            (_, false) => "MERGE",
        };
        let has_large = has_large(&inserted)
            || [&plan.preimages, &plan.postimages].into_iter().any(has_large_row);
        let mut written = None;
        if has_postimages || !inserted.is_empty() {
            let path = data_file();
            let count = plan.postimages.num_rows() + inserted.len();
            let rows = Expected { count, has_large };
            let changed = has_postimages.then(|| Ok(plan.postimages.clone()));
            let mut all =
                changed.into_iter().chain(batches()).map(|b| b.map_err(ParquetError::from));
            let file = self.put_parquet(&path, &schema, rows, &mut all)?;
            written = Some((self.add(&path, &file), path));
        }
        let images = plan.updates().map_err(change_data)?;
        let deleted =
            (0 < plan.deleted.num_rows()).then(|| with_change_type(&plan.deleted, "delete"));
        let images = images.chain(deleted);
        let inserts = batches().map(|batch| with_change_type(&batch?, "insert"));
        let count = [&plan.preimages, &plan.postimages, &plan.deleted].map(RecordBatch::num_rows);
        let count = count.iter().sum::<usize>() + inserted.len();
        let rows = Expected { count, has_large };
        let mut changes = vec![self.write_images(&schema, rows, &mut images.chain(inserts))?];
        changes.extend(self.write_unread(&schema, &plan.files, &plan.unread)?);
        for _ in 0..MAX_ATTEMPTS {
            let mut actions = vec![self.commit_info(operation, false)];
            actions.extend(txn.clone());
            actions.extend(self.delete_rows(&plan.files, &plan.deletions)?);
            actions.extend(written.as_ref().map(|(add, _)| add.clone()));
            actions.extend(changes.iter().cloned());
            if let Step::Done(()) = self.write_version(&actions)? {
                self.note_deletions(&actions);
                if let Some((_, path)) = written {
                    for trace in traces {
                        let rows = found.get(&trace).into_iter().flatten();
                        let staying = plan.staying.get(&trace);
                        let left: Vec<&str> = rows
                            .filter_map(|row| Some(plan.files.get(row.file)?.path.as_str()))
                            .filter(|path| staying.is_none_or(|files| !files.contains(*path)))
                            .collect();
                        self.index.note(&path, trace, &left);
                    }
                }
                return Ok(Step::Done(()));
            }
            let Some(rebased) = self.rebase(&late, &fresh, &found, &plan)? else {
                return Ok(Step::Lost);
            };
            if let Some(mark) = mark
                && self.has_committed(mark)?
            {
                return Ok(Step::Lost);
            }
            // Addresses mean nothing without the files that they were found among.
            plan.files = rebased.files;
            found = rebased.found;
            plan.deletions = rebased.deletions;
        }
        Ok(Step::Lost)
    }

    /// Deletes rows for good, in one version.
    pub(super) fn delete(
        &mut self,
        files: &[LiveFile],
        deletions: &Deletions,
    ) -> Result<Step<()>, LakeError> {
        if self.snapshot.is_append_only() {
            return Err(LakeError::AppendOnly { table: self.table.name() });
        }
        let schema = self.snapshot.schema()?;
        let mut actions = vec![self.commit_info("DELETE", false)];
        actions.extend(self.delete_rows(files, deletions)?);
        let old = self.read_rows(deletions, files, &schema, self.round_bytes)?;
        if old.places.len() < deletions.values().map(BTreeSet::len).sum() {
            drop(old);
            actions.extend(self.write_unread(&schema, files, deletions)?);
        } else {
            let rows = Expected { count: old.rows.num_rows(), has_large: has_large_row(&old.rows) };
            let mut images = once(with_change_type(&old.rows, "delete"));
            actions.push(self.write_images(&schema, rows, &mut images)?);
        }
        let step = self.write_version(&actions)?;
        if matches!(step, Step::Done(())) {
            self.note_deletions(&actions);
        }
        Ok(step)
    }

    /// Tells the index of the deletion vectors that a commit of this process made.
    fn note_deletions(&mut self, actions: &[Action]) {
        for action in actions {
            match action {
                Action::Remove(remove) => self.index.forget(&decode_action_path(&remove.path)),
                Action::Add(Add { path, deletion_vector: Some(vector), .. }) => {
                    self.index.note_deletions(&decode_action_path(path), vector);
                }
                _ => {}
            }
        }
    }

    /// The rows that `traces` will be, were they committed now, and the rows they replace.
    ///
    /// # Errors
    /// [`LakeError`] when the table cannot be read.
    pub fn preview(&mut self, traces: &[TraceDraft]) -> Result<Preview, LakeError> {
        self.look()?;
        let wanted = traces.iter().map(|trace| trace.trace_id).collect();
        let found = self.find(&wanted)?;
        let (late, fresh): (Vec<&TraceDraft>, Vec<&TraceDraft>) =
            traces.iter().partition(|trace| found.contains_key(&trace.trace_id));
        let fresh: Vec<TraceDraft> =
            fresh.into_iter().filter(|trace| !trace.is_blank()).cloned().collect();
        let arrow = |source| LakeError::Arrow { action: "encode rows", source };
        let schema = self.snapshot.schema()?;
        let fresh: Vec<&TraceDraft> = fresh.iter().collect();
        let mut rows = Vec::new();
        for batch in Self::encode_rows(&fresh_rows(&fresh)) {
            rows.push(batch.and_then(|rows| conform(&rows, &schema)).map_err(arrow)?);
        }
        let mut replaced: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
        let files = self.live_files()?;
        let large = self.large_traces(&late, &found, &files)?;
        // A large row is not read for this: spans that came of it are shown beside it.
        let (beside, late): (Vec<&TraceDraft>, Vec<&TraceDraft>) =
            late.into_iter().partition(|piece| {
                let large = large.get(&piece.trace_id);
                !piece.replaces && large.is_some_and(LargeTrace::has_large_head)
            });
        let beside: Vec<TraceDraft> = beside
            .into_iter()
            .filter_map(|piece| Some(large.get(&piece.trace_id)?.as_part(piece)))
            .filter(|part| !part.spans.is_empty())
            .collect();
        // What memory has no room for, or whose row cannot be read, is shown as it was.
        let plan = self.plan_readable(&late, &found, Age::Younger, self.round_bytes, true)?.plan;
        let further: Vec<&TraceDraft> = plan.further.iter().chain(&beside).collect();
        for batch in Self::encode_rows(&fresh_rows(&further)) {
            rows.push(batch.and_then(|rows| conform(&rows, &schema)).map_err(arrow)?);
        }
        rows.push(plan.postimages);
        for (index, deleted) in plan.deletions {
            if let Some(file) = plan.files.get(index) {
                replaced.entry(file.path.clone()).or_default().extend(deleted);
            }
        }
        let rows = concat_batches(&schema, &rows).map_err(arrow)?;
        Ok(Preview { version: self.snapshot.version(), rows, replaced })
    }

    /// Merges `late` pieces into the rows found, as many as there are before the rows that were
    /// read take more than `limit` bytes; the others are deferred.
    pub(super) fn plan_amendment(
        &mut self,
        late: &[&TraceDraft],
        found: &Found,
        age: Age,
        limit: usize,
    ) -> Result<Plan, LakeError> {
        let schema = self.snapshot.schema()?;
        let files = self.live_files()?;
        let large = self.large_traces(late, found, &files)?;
        let wanted: Found = late
            .iter()
            .filter_map(|piece| {
                let rows = match large.get(&piece.trace_id) {
                    Some(large) => large.to_read(piece),
                    None => found.get(&piece.trace_id)?.clone(),
                };
                Some((piece.trace_id, rows))
            })
            .collect();
        let OldRows { rows: old, places, deferred } =
            self.read_old_rows(&wanted, &files, &schema, limit)?;
        let archived = rebuild_traces(&old).map_err(|error| self.unreadable(&error))?;
        let headless = self.headless(late, age, &large, &files)?;
        let mut changed =
            Changed { files: &files, places: &places, headless, ..Changed::default() };
        let mut by_trace: HashMap<TraceId, Vec<(usize, TraceDraft)>> = HashMap::new();
        for (row, trace) in archived.into_iter().enumerate() {
            by_trace.entry(trace.trace_id).or_default().push((row, trace));
        }
        let now = self.clock.now_unix_micro();
        for piece in late.iter().filter(|piece| !deferred.contains(&piece.trace_id)) {
            let rows = by_trace.remove(&piece.trace_id).unwrap_or_default();
            changed.amend(rows, piece, large.get(&piece.trace_id), age, now);
        }
        let Changed {
            rows,
            traces,
            further,
            staying,
            unread,
            deleted_traces,
            replaced,
            successors,
            removed,
            first_rows,
            deletions,
            unchanged_in,
            changed,
            ..
        } = changed;
        let arrow = |source| LakeError::Arrow { action: "plan amendment", source };
        let encoded = encode(&rows).map_err(arrow)?;
        drop(rows);
        let others = take_rows(&without_ours(&old, &encoded).map_err(arrow)?, &first_rows);
        let postimages =
            with_other_columns(&encoded, &others.map_err(arrow)?, &schema).map_err(arrow)?;
        let preimages = take_rows(&old, &replaced).map_err(arrow)?;
        let deleted = take_rows(&old, &removed).map_err(arrow)?;
        Ok(Plan {
            preimages,
            postimages,
            successors,
            deleted,
            traces,
            further,
            staying,
            unread,
            deleted_traces,
            deletions,
            deferred,
            files,
            unchanged_in,
            changed,
        })
    }

    /// The traces of `wanted` that have rows, each as one trace. Of the parts of a large one those that
    /// come first are read, as many as `bytes` allow; [`TraceDraft::all_spans`] tells how many spans there are.
    ///
    /// # Errors
    /// [`LakeError`] when the table cannot be read.
    pub fn read(
        &mut self,
        wanted: &HashSet<TraceId>,
        bytes: usize,
    ) -> Result<HashMap<TraceId, TraceDraft>, LakeError> {
        self.look()?;
        let mut found = self.find(wanted)?;
        let files = self.live_files()?;
        let schema = self.snapshot.schema()?;
        let blank: Vec<TraceDraft> = found.keys().map(|trace| TraceDraft::new(*trace)).collect();
        let blank: Vec<&TraceDraft> = blank.iter().collect();
        for (trace_id, large) in self.large_traces(&blank, &found, &files)? {
            found.insert(trace_id, large.within(bytes));
        }
        let old = self.read_old_rows(&found, &files, &schema, usize::MAX)?.rows;
        let mut rows: HashMap<TraceId, Vec<TraceDraft>> = HashMap::new();
        for row in rebuild_traces(&old).map_err(|error| self.unreadable(&error))? {
            rows.entry(row.trace_id).or_default().push(row);
        }
        Ok(rows
            .into_iter()
            .filter_map(|(trace_id, rows)| Some((trace_id, whole_trace(rows)?)))
            .collect())
    }

    pub(super) fn unreadable(&self, error: &RebuildError) -> LakeError {
        LakeError::Row { path: self.table.name(), reason: error.to_string() }
    }

    /// The change data file of rows before and after a change, each with its type. `schema` is the
    /// table's.
    fn write_images(
        &self,
        schema: &SchemaRef,
        rows: Expected,
        images: &mut dyn Iterator<Item = Result<RecordBatch, ArrowError>>,
    ) -> Result<Action, LakeError> {
        let none = RecordBatch::new_empty(Arc::clone(schema));
        let schema = with_change_type(&none, "").map_err(change_data)?.schema();
        let path = change_file();
        let mut images = images.map(|batch| batch.map_err(ParquetError::from));
        let file = self.put_parquet(&path, &schema, rows, &mut images)?;
        Ok(Action::Cdc(Cdc {
            path,
            partition_values: BTreeMap::new(),
            size: file.size_bytes as u64,
            data_change: false,
        }))
    }

    /// The change data of rows that go and were not read: a file for each, so that one is in memory.
    fn write_unread(
        &self,
        schema: &SchemaRef,
        files: &[LiveFile],
        unread: &Deletions,
    ) -> Result<Vec<Action>, LakeError> {
        let mut actions = Vec::new();
        for (file, rows) in unread {
            for row in rows {
                let one = Deletions::from([(*file, BTreeSet::from([*row]))]);
                let row = self.read_rows(&one, files, schema, usize::MAX)?.rows;
                let mut image = once(with_change_type(&row, "delete"));
                let rows = Expected { count: row.num_rows(), has_large: has_large_row(&row) };
                actions.push(self.write_images(schema, rows, &mut image)?);
            }
        }
        Ok(actions)
    }

    /// The `remove` and `add` of each file that loses rows, with all its vectors in one new file.
    fn delete_rows(
        &self,
        files: &[LiveFile],
        deletions: &Deletions,
    ) -> Result<Vec<Action>, LakeError> {
        let fault = |source| self.table.kernel("write deletion vector", source);
        let (path, encoded_id) = deletion_vector_file();
        let mut bytes = Vec::new();
        let mut writer = StreamingDeletionVectorWriter::new(&mut bytes);
        let mut actions = Vec::new();
        for (index, rows) in deletions {
            let Some(file) = files.get(*index) else { continue };
            let mut all = self.snapshot.deleted_rows(file)?;
            all.extend(rows.iter().copied());
            all.sort_unstable();
            all.dedup();
            actions.push(Action::Remove(Remove {
                path: file.action_path.clone(),
                deletion_timestamp: self.clock.now_unix_micro() / 1_000,
                data_change: true,
                extended_file_metadata: true,
                partition_values: BTreeMap::new(),
                size: file.size_bytes,
                deletion_vector: file.deletion_vector.clone(),
            }));
            if file.record_count == Some(all.len() as u64) {
                continue;
            }
            let mut vector = KernelDeletionVector::new();
            vector.add_deleted_row_indexes(all);
            let written = writer.write_deletion_vector(vector).map_err(fault)?;
            actions.push(Action::Add(Add {
                path: file.action_path.clone(),
                partition_values: BTreeMap::new(),
                size: file.size_bytes,
                modification_time: file.modification_time,
                data_change: true,
                stats: file.stats.as_deref().map(loose_bounds),
                tags: file.tags.clone(),
                clustering_provider: file.clustering_provider.clone(),
                deletion_vector: Some(DeletionVector {
                    storage_type: "u".to_owned(),
                    path_or_inline_dv: encoded_id.clone(),
                    offset: Some(written.offset),
                    size_in_bytes: written.size_in_bytes,
                    cardinality: written.cardinality,
                }),
            }));
        }
        writer.finalize().map_err(fault)?;
        if !bytes.is_empty() {
            self.table.files.put_if_absent(&path, &bytes)?;
        }
        Ok(actions)
    }
}

/// True when the rows of a batch are large.
fn has_large_row(batch: &RecordBatch) -> bool {
    LARGE_ROW_BYTES <= batch.get_array_memory_size() / batch.num_rows().max(1)
}

/// Statistics of a file that lost rows: the bounds still hold, but are no longer met.
pub(crate) fn loose_bounds(stats: &str) -> String {
    match serde_json::from_str::<serde_json::Value>(stats) {
        Ok(mut value) if value.is_object() => {
            value["tightBounds"] = false.into();
            value.to_string()
        }
        _ => stats.to_owned(),
    }
}

const fn change_data(source: ArrowError) -> LakeError {
    LakeError::Arrow { action: "write change data", source }
}
