//! The live data files of a version, as its log has them.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, RecordBatch, StructArray};
use arrow::datatypes::{Int32Type, Int64Type};
use delta_kernel::Engine as _;
use delta_kernel::actions::deletion_vector::DeletionVectorDescriptor;
use delta_kernel::engine::arrow_data::ArrowEngineData;
use delta_kernel::expressions::{Expression, Predicate, Scalar};
use serde::{Deserialize, Serialize};
use tracelake_model::TraceId;

use super::{Table, TableSnapshot};
use crate::data_file::{read_parts, read_rows, read_trace_ids};
use crate::error::LakeError;
use crate::layout::decode_action_path;
use crate::rows::{TraceDraft, conform, rebuild_traces};

/// A deletion vector as the log describes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeletionVector {
    /// `u` relative file, `p` absolute file, `i` inline.
    pub storage_type: String,
    /// Encoded file id, path or bytes.
    pub path_or_inline_dv: String,
    /// Where in the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<i32>,
    /// Size of the serialized vector in bytes.
    pub size_in_bytes: i32,
    /// Rows deleted.
    pub cardinality: i64,
}

/// A data file that a version refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveFile {
    /// Path as the log has it, percent-encoded.
    pub action_path: String,
    /// Path relative to the table's folder.
    pub path: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Milliseconds since the Unix epoch.
    pub modification_time: i64,
    /// Delta's statistics as JSON text.
    pub stats: Option<String>,
    /// Rows in the file, deleted ones included, if the statistics say.
    pub record_count: Option<u64>,
    /// Rows that are deleted.
    pub deletion_vector: Option<DeletionVector>,
    /// What writers noted of the file.
    pub tags: BTreeMap<String, Option<String>>,
    /// Who clustered it.
    pub clustering_provider: Option<String>,
}

impl LiveFile {
    /// The file of its deletion vector, relative to the table's folder; `None` for one that has none, or
    /// whose vector is within the log or elsewhere.
    pub(crate) fn vector_file(&self, table: &Table) -> Result<Option<String>, LakeError> {
        match &self.deletion_vector {
            Some(vector) => crate::log::vector_file(table, vector),
            None => Ok(None),
        }
    }
}

impl TableSnapshot {
    /// The live files that may hold rows with `created_at` in the bounds (microseconds since the
    /// Unix epoch, inclusive), by the log's statistics.
    ///
    /// # Errors
    /// [`LakeError::Kernel`] when the log cannot be read.
    pub fn live_files(
        &self,
        created_at_micros: (Option<i64>, Option<i64>),
    ) -> Result<Vec<LiveFile>, LakeError> {
        let fault = |source| self.table().kernel("list files", source);
        let bound = |micros| Expression::literal(Scalar::Timestamp(micros));
        let column = || Expression::column(["created_at"]);
        let from = created_at_micros.0.map(|micros| Predicate::ge(column(), bound(micros)));
        let to = created_at_micros.1.map(|micros| Predicate::le(column(), bound(micros)));
        let predicate = match (from, to) {
            (Some(from), Some(to)) => Some(Predicate::and(from, to)),
            (from, to) => from.or(to),
        };
        let scan = std::sync::Arc::clone(&self.snapshot)
            .scan_builder()
            .with_predicate(predicate.map(std::sync::Arc::new))
            .build()
            .map_err(fault)?;
        let mut files = Vec::new();
        for metadata in scan.scan_metadata(self.table().engine()).map_err(fault)? {
            let data =
                metadata.map_err(fault)?.scan_files.apply_selection_vector().map_err(fault)?;
            let data = ArrowEngineData::try_from_engine_data(data).map_err(fault)?;
            read_batch(data.record_batch(), &mut files);
        }
        Ok(files)
    }

    /// Reads every live row back into its trace, or the rows of one trace, file by file.
    ///
    /// # Errors
    /// [`LakeError`] when a file cannot be read, or what `visit` returns.
    pub fn for_each_trace(
        &self,
        only: Option<TraceId>,
        visit: &mut dyn FnMut(TraceDraft) -> std::io::Result<()>,
    ) -> Result<(), LakeError> {
        let schema = self.schema()?;
        for file in self.live_files((None, None))? {
            let deleted = self.deleted_rows(&file)?;
            let parquet =
                |source| LakeError::Parquet { action: "read", path: file.path.clone(), source };
            let mut rows = Vec::new();
            read_trace_ids(self.table().files.open(&file.path)?, |row, text| {
                let wanted = only.is_none_or(|only| TraceId::parse(text) == Some(only));
                if wanted && deleted.binary_search(&row).is_err() {
                    rows.push(row);
                }
            })
            .map_err(parquet)?;
            for batch in read_rows(self.table().files.open(&file.path)?, &rows).map_err(parquet)? {
                let batch = conform(&batch.map_err(parquet)?, &schema)
                    .map_err(|source| LakeError::Arrow { action: "read rows", source })?;
                let traces = rebuild_traces(&batch).map_err(|error| LakeError::Row {
                    path: file.path.clone(),
                    reason: error.to_string(),
                })?;
                for trace in traces {
                    visit(trace).map_err(|source| LakeError::Storage {
                        action: "hand on rows of",
                        path: file.path.clone(),
                        source,
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Reads the live rows of `file` whose trace is `wanted` back into their traces; `wanted` is told
    /// whether a row is a part of a large trace. `visit` gets a trace, or the fault of a row that cannot be read back; one such row hides no other.
    ///
    /// # Errors
    /// [`LakeError`] when the file cannot be read: what came before was visited.
    pub fn for_each_row(
        &self,
        file: &LiveFile,
        wanted: &dyn Fn(Option<TraceId>, bool) -> bool,
        visit: &mut dyn FnMut(Result<TraceDraft, String>),
    ) -> Result<(), LakeError> {
        let schema = self.schema()?;
        let deleted = self.deleted_rows(file)?;
        let parquet =
            |source| LakeError::Parquet { action: "read", path: file.path.clone(), source };
        let mut rows = Vec::new();
        let parts = read_parts(self.table().files.open(&file.path)?).map_err(parquet)?;
        read_trace_ids(self.table().files.open(&file.path)?, |row, text| {
            if deleted.binary_search(&row).is_err()
                && wanted(TraceId::parse(text), parts.contains(&row))
            {
                rows.push(row);
            }
        })
        .map_err(parquet)?;
        for batch in read_rows(self.table().files.open(&file.path)?, &rows).map_err(parquet)? {
            let batch = conform(&batch.map_err(parquet)?, &schema)
                .map_err(|source| LakeError::Arrow { action: "read rows", source })?;
            match rebuild_traces(&batch) {
                Ok(traces) => traces.into_iter().for_each(|trace| visit(Ok(trace))),
                Err(_) => (0..batch.num_rows()).for_each(|row| {
                    let one = rebuild_traces(&batch.slice(row, 1));
                    let one = one.map_err(|error| error.reason);
                    match one {
                        Ok(traces) => traces.into_iter().for_each(|trace| visit(Ok(trace))),
                        Err(reason) => visit(Err(reason)),
                    }
                }),
            }
        }
        Ok(())
    }

    /// The deleted rows of a file, ascending; none when it has no deletion vector.
    ///
    /// # Errors
    /// [`LakeError::Kernel`] when the vector cannot be read.
    pub fn deleted_rows(&self, file: &LiveFile) -> Result<Vec<u64>, LakeError> {
        let fault = |source| self.table().kernel("read deletion vector", source);
        let Some(vector) = &file.deletion_vector else { return Ok(Vec::new()) };
        let storage_type = vector.storage_type.parse().map_err(fault)?;
        let descriptor = DeletionVectorDescriptor {
            storage_type,
            path_or_inline_dv: vector.path_or_inline_dv.clone(),
            offset: vector.offset,
            size_in_bytes: vector.size_in_bytes,
            cardinality: vector.cardinality,
        };
        let storage = self.table().engine().storage_handler();
        let mut rows = descriptor.row_indexes(storage, self.table().url()).map_err(fault)?;
        rows.sort_unstable();
        Ok(rows)
    }
}

fn read_batch(batch: &RecordBatch, files: &mut Vec<LiveFile>) {
    let whole = StructArray::from(batch.clone());
    let constants = whole.column_by_name("fileConstantValues");
    let constants = constants.and_then(|constants| constants.as_struct_opt());
    for row in 0..whole.len() {
        let Some(path) = text(&whole, "path", row) else { continue };
        let stats = text(&whole, "stats", row);
        let record_count = stats.as_deref().and_then(record_count);
        files.push(LiveFile {
            path: decode_action_path(&path),
            action_path: path,
            size_bytes: long(&whole, "size", row).and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
            modification_time: long(&whole, "modificationTime", row).unwrap_or_default(),
            stats,
            record_count,
            deletion_vector: deletion_vector(&whole, row),
            tags: constants.map(|constants| tags(constants, row)).unwrap_or_default(),
            clustering_provider: constants.and_then(|c| text(c, "clusteringProvider", row)),
        });
    }
}

fn tags(constants: &StructArray, row: usize) -> BTreeMap<String, Option<String>> {
    let tags = constants.column_by_name("tags").and_then(|tags| tags.as_map_opt());
    let Some(tags) = tags.filter(|tags| tags.is_valid(row)) else { return BTreeMap::new() };
    let entries = tags.value(row);
    let keys = (0..entries.len()).filter_map(|entry| text_at(&entries, 0, entry));
    keys.enumerate().map(|(entry, key)| (key, text_at(&entries, 1, entry))).collect()
}

fn text_at(entries: &StructArray, column: usize, row: usize) -> Option<String> {
    let column = entries.columns().get(column)?.as_string_opt::<i32>()?;
    column.is_valid(row).then(|| column.value(row).to_owned())
}

fn record_count(stats: &str) -> Option<u64> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Stats {
        num_records: Option<u64>,
    }
    serde_json::from_str::<Stats>(stats).ok()?.num_records
}

fn deletion_vector(whole: &StructArray, row: usize) -> Option<DeletionVector> {
    let vector = whole.column_by_name("deletionVector")?;
    let vector = vector.as_struct_opt().filter(|vector| vector.is_valid(row))?;
    let int = |name: &str| {
        let column = vector.column_by_name(name)?.as_primitive_opt::<Int32Type>()?;
        column.is_valid(row).then(|| column.value(row))
    };
    Some(DeletionVector {
        storage_type: text(vector, "storageType", row)?,
        path_or_inline_dv: text(vector, "pathOrInlineDv", row)?,
        offset: int("offset"),
        size_in_bytes: int("sizeInBytes")?,
        cardinality: long(vector, "cardinality", row)?,
    })
}

fn text(whole: &StructArray, name: &str, row: usize) -> Option<String> {
    let column = whole.column_by_name(name)?.as_string_opt::<i32>()?;
    column.is_valid(row).then(|| column.value(row).to_owned())
}

fn long(whole: &StructArray, name: &str, row: usize) -> Option<i64> {
    let column = whole.column_by_name(name)?.as_primitive_opt::<Int64Type>()?;
    column.is_valid(row).then(|| column.value(row))
}
