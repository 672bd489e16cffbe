//! Rows of the table as they are, whole, as many as memory has room for.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use tracelake_model::TraceId;

use super::{Found, TableWriter};
use crate::data_file::read_rows;
use crate::error::LakeError;
use crate::rows::conform;
use crate::table::{LiveFile, RowAddress};

/// Rows to delete, by live file.
pub(super) type Deletions = BTreeMap<usize, BTreeSet<u64>>;

/// Rows of the table as they are.
pub(super) struct OldRows {
    /// The rows, whole, in the table's schema.
    pub(super) rows: RecordBatch,
    /// The live file and row of each.
    pub(super) places: Vec<(usize, u64)>,
    /// Traces whose rows were left out.
    pub(super) deferred: HashSet<TraceId>,
}

impl TableWriter {
    /// The rows found, whole. Once they take more than `limit` bytes, the traces whose rows were
    /// not all read are deferred; one trace at least is read.
    pub(super) fn read_old_rows(
        &self,
        found: &Found,
        files: &[LiveFile],
        schema: &SchemaRef,
        limit: usize,
    ) -> Result<OldRows, LakeError> {
        let wanted = by_file(found);
        let mut read = self.read_rows(&wanted, files, schema, limit)?;
        let count: usize = wanted.values().map(BTreeSet::len).sum();
        let mut deferred = HashSet::new();
        if read.places.len() < count {
            let have: HashSet<(usize, u64)> = read.places.iter().copied().collect();
            let is_whole = |rows: &[RowAddress]| {
                rows.iter().all(|address| have.contains(&(address.file, address.row)))
            };
            deferred =
                found.iter().filter(|(_, rows)| !is_whole(rows)).map(|(trace, _)| *trace).collect();
            if deferred.len() == found.len()
                && let Some((trace, rows)) = found.iter().next()
            {
                // The rows of one trace alone, far apart, are too large: they go by themselves.
                let mut alone: Deletions = BTreeMap::new();
                for address in rows {
                    alone.entry(address.file).or_default().insert(address.row);
                }
                deferred.remove(trace);
                read = self.read_rows(&alone, files, schema, usize::MAX)?;
            }
        }
        Ok(OldRows { deferred, ..read })
    }

    /// Rows of files, in order, until they take more than `limit` bytes.
    pub(super) fn read_rows(
        &self,
        wanted: &Deletions,
        files: &[LiveFile],
        schema: &SchemaRef,
        limit: usize,
    ) -> Result<OldRows, LakeError> {
        let arrow = |source| LakeError::Arrow { action: "read archived rows", source };
        let mut batches = Vec::new();
        let mut places = Vec::new();
        let mut bytes = 0_usize;
        'files: for (index, rows) in wanted {
            let Some(file) = files.get(*index) else { continue };
            let rows: Vec<u64> = rows.iter().copied().collect();
            let opened = self.table.files.open(&file.path)?;
            let parquet = |source| LakeError::Parquet {
                action: "read rows of",
                path: file.path.clone(),
                source,
            };
            let mut left = rows.iter();
            for batch in read_rows(opened, &rows).map_err(parquet)? {
                let batch = conform(&batch.map_err(parquet)?, schema).map_err(arrow)?;
                places.extend(left.by_ref().take(batch.num_rows()).map(|row| (*index, *row)));
                bytes = bytes.saturating_add(batch.get_array_memory_size());
                batches.push(batch);
                if limit < bytes {
                    break 'files;
                }
            }
        }
        let rows = match batches.as_slice() {
            // A large row is not copied.
            [only] => only.clone(),
            _ => concat_batches(schema, &batches).map_err(arrow)?,
        };
        Ok(OldRows { rows, places, deferred: HashSet::new() })
    }
}

/// The rows found, by live file.
pub(super) fn by_file(found: &Found) -> Deletions {
    let mut rows: Deletions = BTreeMap::new();
    for address in found.values().flatten() {
        rows.entry(address.file).or_default().insert(address.row);
    }
    rows
}
