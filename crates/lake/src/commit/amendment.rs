//! An amendment round: rows of archived traces replaced in one atomic commit.
//!
//! No data file is rewritten. The commit has the new rows in a file of their own, a deletion
//! vector on each old row, and a change data file with both images, as Delta writes an UPDATE.
//! A trace that a client deleted gets the vector and the image of a deletion alone.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{concat_batches, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use delta_kernel::actions::deletion_vector_writer::{
    KernelDeletionVector, StreamingDeletionVectorWriter,
};
use parquet::errors::ParquetError;
use tracelake_model::TraceId;

use super::actions::{Action, Add, Cdc, Remove};
use super::merge::{Age, Amended, amend, fold};
use super::{Found, MAX_ATTEMPTS, Step, TableWriter};
use crate::data_file::{EncodedFile, encode_file, read_rows};
use crate::error::LakeError;
use crate::layout::{change_file, data_file, decode_action_path, deletion_vector_file};
use crate::rows::{RebuildError, TraceDraft, conform, encode, rebuild_traces};
use crate::table::{DeletionVector, LiveFile, RowAddress};

/// Rows to delete, by live file.
pub(super) type Deletions = BTreeMap<usize, BTreeSet<u64>>;

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

/// The rows that a round replaces and what replaces them.
struct Plan {
    /// Old rows that get a successor, whole, in the table's schema.
    preimages: RecordBatch,
    /// New rows in the table's schema.
    postimages: RecordBatch,
    /// Old rows that go for good.
    deleted: RecordBatch,
    /// New rows of the traces, for the index.
    traces: Vec<TraceDraft>,
    /// Traces whose rows go for good.
    deleted_traces: usize,
    deletions: Deletions,
}

/// What an amendment round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RoundOutcome {
    /// Traces whose row was replaced.
    pub(super) amended: usize,
    /// Traces whose row is gone.
    pub(super) deleted: usize,
}

impl TableWriter {
    /// Replaces or deletes the rows of `late` traces where a piece is not in yet.
    pub(super) fn amend(
        &mut self,
        late: &[&TraceDraft],
        found: &Found,
        age: Age,
        txn: Option<Action>,
    ) -> Result<Step<RoundOutcome>, LakeError> {
        let mut files = self.live_files()?;
        let mut found = found.clone();
        let Some(mut plan) = self.plan_amendment(late, &found, age, &files)? else {
            return Ok(Step::Done(RoundOutcome::default()));
        };
        let operation = if plan.traces.is_empty() { "DELETE" } else { "UPDATE" };
        let mut written = None;
        if !plan.traces.is_empty() {
            let (path, file) = self.write_rows(&plan.postimages)?;
            written = Some((self.add(&path, &file), path));
        }
        let changes = self.write_changes(&plan)?;
        for _ in 0..MAX_ATTEMPTS {
            let mut actions = vec![self.commit_info(operation, false)];
            actions.extend(txn.clone());
            actions.extend(self.delete_rows(&files, &plan.deletions)?);
            actions.extend(written.as_ref().map(|(add, _)| add.clone()));
            actions.push(changes.clone());
            if let Step::Done(()) = self.write_version(&actions)? {
                self.note_deletions(&actions);
                if let Some((_, path)) = written {
                    self.index.note(&path, plan.traces.iter().map(|trace| trace.trace_id));
                }
                let (amended, deleted) = (plan.traces.len(), plan.deleted_traces);
                return Ok(Step::Done(RoundOutcome { amended, deleted }));
            }
            match self.rebase(late, &found, &files, &plan.deletions)? {
                // Addresses mean nothing without the files that they were found among.
                Some(rebased) => {
                    files = rebased.files;
                    found = rebased.found;
                    plan.deletions = rebased.deletions;
                }
                None => return Ok(Step::Lost),
            }
        }
        Ok(Step::Lost)
    }

    /// Deletes rows for good, in one version.
    pub(super) fn delete(
        &mut self,
        files: &[LiveFile],
        deletions: &Deletions,
    ) -> Result<Step<()>, LakeError> {
        let schema = self.snapshot.schema()?;
        let addresses = deletions
            .iter()
            .flat_map(|(file, rows)| rows.iter().map(|row| RowAddress { file: *file, row: *row }))
            .collect();
        let found = Found::from([(TraceId::default(), addresses)]);
        let (deleted, _) = self.read_old_rows(&found, files, &schema)?;
        let mut actions = vec![self.commit_info("DELETE", false)];
        actions.extend(self.delete_rows(files, deletions)?);
        actions.push(self.write_images(&[(&deleted, "delete")])?);
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
        self.refresh()?;
        let wanted = traces.iter().map(|trace| trace.trace_id).collect();
        let found = self.find(&wanted)?;
        let files = self.live_files()?;
        let (late, fresh): (Vec<&TraceDraft>, Vec<&TraceDraft>) =
            traces.iter().partition(|trace| found.contains_key(&trace.trace_id));
        let fresh: Vec<TraceDraft> =
            fresh.into_iter().filter(|trace| !trace.is_blank()).cloned().collect();
        let arrow = |source| LakeError::Arrow { action: "encode rows", source };
        let schema = self.snapshot.schema()?;
        let mut rows = vec![encode(&fresh).and_then(|r| conform(&r, &schema)).map_err(arrow)?];
        let mut replaced: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
        if let Some(plan) = self.plan_amendment(&late, &found, Age::Younger, &files)? {
            rows.push(plan.postimages);
            for (index, deleted) in plan.deletions {
                if let Some(file) = files.get(index) {
                    replaced.entry(file.path.clone()).or_default().extend(deleted);
                }
            }
        }
        let rows = concat_batches(&schema, &rows).map_err(arrow)?;
        Ok(Preview { version: self.snapshot.version(), rows, replaced })
    }

    fn plan_amendment(
        &self,
        late: &[&TraceDraft],
        found: &Found,
        age: Age,
        files: &[LiveFile],
    ) -> Result<Option<Plan>, LakeError> {
        let schema = self.snapshot.schema()?;
        let wanted: Found = late
            .iter()
            .filter_map(|piece| Some((piece.trace_id, found.get(&piece.trace_id)?.clone())))
            .collect();
        let (old, places) = self.read_old_rows(&wanted, files, &schema)?;
        let archived = rebuild_traces(&old).map_err(|error| self.unreadable(&error))?;
        let now = self.clock.now_unix_micro();
        let mut by_trace: HashMap<TraceId, Vec<usize>> = HashMap::new();
        for (row, trace) in archived.iter().enumerate() {
            by_trace.entry(trace.trace_id).or_default().push(row);
        }
        let mut traces = Vec::new();
        let mut deleted_traces = 0;
        let mut replaced: Vec<u32> = Vec::new();
        let mut removed: Vec<u32> = Vec::new();
        let mut first_rows: Vec<u32> = Vec::new();
        let mut deletions: Deletions = BTreeMap::new();
        for piece in late {
            let rows = by_trace.get(&piece.trace_id).map(Vec::as_slice).unwrap_or_default();
            let indexes = rows.iter().map(|row| u32::try_from(*row).unwrap_or(u32::MAX));
            let drafts = rows.iter().filter_map(|row| archived.get(*row).cloned()).collect();
            match amend(drafts, piece, age, now) {
                Amended::Unchanged => continue,
                Amended::Row(row) => {
                    traces.push(*row);
                    first_rows.extend(indexes.clone().next());
                    replaced.extend(indexes);
                }
                Amended::Deleted => {
                    deleted_traces += 1;
                    removed.extend(indexes);
                }
            }
            for (file, row) in rows.iter().filter_map(|row| places.get(*row)) {
                deletions.entry(*file).or_default().insert(*row);
            }
        }
        if deletions.is_empty() {
            return Ok(None);
        }
        let arrow = |source| LakeError::Arrow { action: "plan amendment", source };
        let preimages = take_rows(&old, &replaced).map_err(arrow)?;
        let deleted = take_rows(&old, &removed).map_err(arrow)?;
        let encoded = encode(&traces).map_err(arrow)?;
        let others = take_rows(&old, &first_rows).map_err(arrow)?;
        let postimages = with_other_columns(&encoded, &others, &schema).map_err(arrow)?;
        Ok(Some(Plan { preimages, postimages, deleted, traces, deleted_traces, deletions }))
    }

    /// The traces of `wanted` that have rows, each as one trace.
    ///
    /// # Errors
    /// [`LakeError`] when the table cannot be read.
    pub fn read(
        &mut self,
        wanted: &HashSet<TraceId>,
    ) -> Result<HashMap<TraceId, TraceDraft>, LakeError> {
        self.refresh()?;
        let found = self.find(wanted)?;
        let files = self.live_files()?;
        let schema = self.snapshot.schema()?;
        let (old, _) = self.read_old_rows(&found, &files, &schema)?;
        let mut rows: HashMap<TraceId, Vec<TraceDraft>> = HashMap::new();
        for row in rebuild_traces(&old).map_err(|error| self.unreadable(&error))? {
            rows.entry(row.trace_id).or_default().push(row);
        }
        Ok(rows
            .into_iter()
            .filter_map(|(trace_id, mut rows)| {
                rows.sort_by_key(|row| (row.updated_at_micros, row.revision));
                Some((trace_id, fold(rows)?))
            })
            .collect())
    }

    pub(super) fn unreadable(&self, error: &RebuildError) -> LakeError {
        LakeError::Row { path: self.table.name(), reason: error.to_string() }
    }

    /// The rows found, whole, and for each its live file and row.
    pub(super) fn read_old_rows(
        &self,
        found: &Found,
        files: &[LiveFile],
        schema: &SchemaRef,
    ) -> Result<(RecordBatch, Vec<(usize, u64)>), LakeError> {
        let mut wanted: Deletions = BTreeMap::new();
        for address in found.values().flatten() {
            wanted.entry(address.file).or_default().insert(address.row);
        }
        let arrow = |source| LakeError::Arrow { action: "read archived rows", source };
        let mut batches = Vec::new();
        let mut places = Vec::new();
        for (index, rows) in wanted {
            let Some(file) = files.get(index) else { continue };
            let rows: Vec<u64> = rows.into_iter().collect();
            let opened = self.table.files.open(&file.path)?;
            let read = read_rows(opened, &rows).map_err(|source| LakeError::Parquet {
                action: "read rows of",
                path: file.path.clone(),
                source,
            })?;
            for batch in &read {
                batches.push(conform(batch, schema).map_err(arrow)?);
            }
            places.extend(rows.into_iter().map(|row| (index, row)));
        }
        let old = concat_batches(schema, &batches).map_err(arrow)?;
        Ok((old, places))
    }

    fn write_rows(&self, rows: &RecordBatch) -> Result<(String, EncodedFile), LakeError> {
        let path = data_file();
        let file = self.write_parquet(&path, &rows.schema(), std::slice::from_ref(rows))?;
        Ok((path, file))
    }

    fn write_changes(&self, plan: &Plan) -> Result<Action, LakeError> {
        self.write_images(&[
            (&plan.preimages, "update_preimage"),
            (&plan.postimages, "update_postimage"),
            (&plan.deleted, "delete"),
        ])
    }

    /// The change data file of rows before and after a change.
    fn write_images(&self, rows: &[(&RecordBatch, &str)]) -> Result<Action, LakeError> {
        let images = rows
            .iter()
            .map(|(batch, change)| with_change_type(batch, change))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| LakeError::Arrow { action: "write change data", source })?;
        let schema = images.first().map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
        let path = change_file();
        let file = self.write_parquet(&path, &schema, &images)?;
        Ok(Action::Cdc(Cdc {
            path,
            partition_values: BTreeMap::new(),
            size: file.size_bytes as u64,
            data_change: false,
        }))
    }

    pub(super) fn write_parquet(
        &self,
        path: &str,
        schema: &SchemaRef,
        batches: &[RecordBatch],
    ) -> Result<EncodedFile, LakeError> {
        self.put_parquet(path, encode_file(schema, batches))
    }

    /// Writes a file that was encoded.
    pub(super) fn put_parquet(
        &self,
        path: &str,
        encoded: Result<EncodedFile, ParquetError>,
    ) -> Result<EncodedFile, LakeError> {
        let mut file = encoded.map_err(|source| LakeError::Parquet {
            action: "encode",
            path: path.to_owned(),
            source,
        })?;
        self.table.files.put_if_absent(path, &file.bytes)?;
        file.bytes = Vec::new();
        Ok(file)
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

fn take_rows(batch: &RecordBatch, rows: &[u32]) -> Result<RecordBatch, arrow::error::ArrowError> {
    let indexes = UInt32Array::from(rows.to_vec());
    let columns = batch
        .columns()
        .iter()
        .map(|column| take(column, &indexes, None))
        .collect::<Result<Vec<ArrayRef>, _>>()?;
    RecordBatch::try_new(batch.schema(), columns)
}

/// `ours` in the table's schema: columns that are not ours keep the old rows' values.
fn with_other_columns(
    ours: &RecordBatch,
    old: &RecordBatch,
    schema: &SchemaRef,
) -> Result<RecordBatch, arrow::error::ArrowError> {
    let mut columns: Vec<ArrayRef> = ours.columns().to_vec();
    let mut fields: Vec<Arc<Field>> = ours.schema().fields().iter().cloned().collect();
    for (field, column) in old.schema().fields().iter().zip(old.columns()) {
        if ours.column_by_name(field.name()).is_none() {
            fields.push(Arc::clone(field));
            columns.push(Arc::clone(column));
        }
    }
    let whole = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
    conform(&whole, schema)
}

fn with_change_type(
    batch: &RecordBatch,
    change: &str,
) -> Result<RecordBatch, arrow::error::ArrowError> {
    let mut fields: Vec<Arc<Field>> = batch.schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("_change_type", DataType::Utf8, true)));
    let mut columns = batch.columns().to_vec();
    columns.push(Arc::new(StringArray::from(vec![change; batch.num_rows()])) as Arc<dyn Array>);
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}
