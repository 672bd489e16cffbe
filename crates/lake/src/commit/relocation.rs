//! Rows that belong to another table: found, read, and deleted once they are there.
//!
//! A move is read, [`TableWriter::absorb`] on the target, [`TableWriter::delete_located`] here.
//! Dying after the second step leaves the traces in both tables; the move finds them again, the
//! target has them already, and the third step follows.

use std::collections::{BTreeMap, BTreeSet};

use tracelake_model::schema::traces_schema;
use tracelake_model::{ExperimentId, TraceId};

use super::amendment::{OldRows, by_file};
use super::{Found, MAX_ATTEMPTS, Step, TableWriter};
use crate::data_file::{read_text_column, read_trace_ids};
use crate::error::LakeError;
use crate::rows::{TraceDraft, rebuild_traces};
use crate::table::RowAddress;

/// Traces as they are in their table, and where.
#[derive(Clone, Debug, Default)]
pub struct LocatedTraces {
    /// The traces.
    pub traces: Vec<TraceDraft>,
    /// Their rows, by path of the data file.
    rows: BTreeMap<String, BTreeSet<u64>>,
}

impl LocatedTraces {
    /// Adds others of the same table.
    pub fn extend(&mut self, others: Self) {
        self.traces.extend(others.traces);
        for (path, rows) in others.rows {
            self.rows.entry(path).or_default().extend(rows);
        }
    }
}

impl TableWriter {
    /// Paths of the live data files of the newest version.
    ///
    /// # Errors
    /// [`LakeError`] when the log cannot be read.
    pub fn data_files(&mut self) -> Result<Vec<String>, LakeError> {
        self.refresh()?;
        Ok(self.live_files()?.iter().map(|file| file.path.clone()).collect())
    }

    /// The live rows of an experiment in a data file, and their traces. Rows whose trace id is
    /// none are left out: no tracelake wrote them.
    ///
    /// # Errors
    /// [`LakeError`] when the table cannot be read.
    pub fn rows_of(
        &mut self,
        experiment_id: &ExperimentId,
        path: &str,
    ) -> Result<Vec<(u64, TraceId)>, LakeError> {
        self.refresh()?;
        let files = self.live_files()?;
        let Some(file) = files.iter().find(|file| file.path == path) else {
            return Ok(Vec::new());
        };
        let deleted = self.snapshot.deleted_rows(file)?;
        let fault = |source| LakeError::Parquet {
            action: "read experiments of",
            path: path.to_owned(),
            source,
        };
        let mut rows = BTreeSet::new();
        read_text_column(self.table.files.open(path)?, "experiment_id", |row, text| {
            if text == Some(experiment_id.as_str()) && deleted.binary_search(&row).is_err() {
                rows.insert(row);
            }
        })
        .map_err(fault)?;
        let mut found = Vec::with_capacity(rows.len());
        if !rows.is_empty() {
            read_trace_ids(self.table.files.open(path)?, |row, text| {
                if let Some(trace_id) = TraceId::parse(text).filter(|_| rows.contains(&row)) {
                    found.push((row, trace_id));
                }
            })
            .map_err(fault)?;
        }
        Ok(found)
    }

    /// Reads rows of a data file as traces, until they take more than memory has room for: the others are
    /// found by the next pass.
    ///
    /// # Errors
    /// [`LakeError`] when the table cannot be read.
    pub fn locate(&mut self, path: &str, rows: &[u64]) -> Result<LocatedTraces, LakeError> {
        self.refresh()?;
        let files = self.live_files()?;
        let Some(index) = files.iter().position(|file| file.path == path) else {
            return Ok(LocatedTraces::default());
        };
        let addresses = rows.iter().map(|row| RowAddress { file: index, row: *row }).collect();
        let found = Found::from([(TraceId::default(), addresses)]);
        let schema = self.snapshot.schema()?;
        let OldRows { rows, places, .. } =
            self.read_rows(&by_file(&found), &files, &schema, self.round_bytes)?;
        let traces = rebuild_traces(&rows).map_err(|error| self.unreadable(&error))?;
        let rows = places.into_iter().map(|(_, row)| row).collect();
        Ok(LocatedTraces { traces, rows: BTreeMap::from([(path.to_owned(), rows)]) })
    }

    /// Columns of the table that are not tracelake's: what they hold cannot be moved.
    ///
    /// # Errors
    /// [`LakeError`] when the table cannot be read.
    pub fn other_columns(&mut self) -> Result<Vec<String>, LakeError> {
        self.refresh()?;
        let ours = traces_schema();
        let schema = self.snapshot.schema()?;
        let names = schema.fields().iter().map(|field| field.name());
        Ok(names.filter(|name| ours.field_with_name(name).is_err()).cloned().collect())
    }

    /// Deletes the rows that were located and are still there. A row that another writer replaced
    /// meanwhile stays: it says more than what was read. Returns how many were deleted.
    ///
    /// # Errors
    /// [`LakeError`]; no row is deleted then, or all are.
    pub fn delete_located(&mut self, located: &LocatedTraces) -> Result<usize, LakeError> {
        for _ in 0..MAX_ATTEMPTS {
            self.refresh()?;
            let files = self.live_files()?;
            let mut deletions: BTreeMap<usize, BTreeSet<u64>> = BTreeMap::new();
            for (index, file) in files.iter().enumerate() {
                let Some(rows) = located.rows.get(&file.path) else { continue };
                let gone = self.snapshot.deleted_rows(file)?;
                let left: BTreeSet<u64> =
                    rows.iter().copied().filter(|row| gone.binary_search(row).is_err()).collect();
                if !left.is_empty() {
                    deletions.insert(index, left);
                }
            }
            let count = deletions.values().map(BTreeSet::len).sum();
            if count == 0 {
                return Ok(0);
            }
            match self.delete(&files, &deletions)? {
                Step::Done(()) => return Ok(count),
                Step::Lost => {}
            }
        }
        let version = self.snapshot.version() + 1;
        Err(LakeError::CommitConflict { table: self.table.name(), version })
    }
}
