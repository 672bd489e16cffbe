//! Rows that belong to another table: found, read, and deleted once they are there.
//!
//! A move is read, [`TableWriter::absorb`] on the target, [`TableWriter::delete_located`] here.
//! Dying after the second step leaves the traces in both tables; the move finds them again, the
//! target has them already, and the third step follows.

use std::collections::{BTreeMap, BTreeSet};

use tracelake_model::ExperimentId;

use super::{Found, MAX_ATTEMPTS, Step, TableWriter};
use crate::data_file::read_text_column;
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

impl TableWriter {
    /// Paths of the live data files of the newest version.
    ///
    /// # Errors
    /// [`LakeError`] when the log cannot be read.
    pub fn data_files(&mut self) -> Result<Vec<String>, LakeError> {
        self.refresh()?;
        Ok(self.live_files()?.iter().map(|file| file.path.clone()).collect())
    }

    /// The first traces of an experiment in a data file, `limit` at the most.
    ///
    /// # Errors
    /// [`LakeError`] when the table cannot be read.
    pub fn locate(
        &mut self,
        experiment_id: &ExperimentId,
        path: &str,
        limit: usize,
    ) -> Result<LocatedTraces, LakeError> {
        self.refresh()?;
        let files = self.live_files()?;
        let Some(index) = files.iter().position(|file| file.path == path) else {
            return Ok(LocatedTraces::default());
        };
        let Some(file) = files.get(index) else { return Ok(LocatedTraces::default()) };
        let deleted = self.snapshot.deleted_rows(file)?;
        let mut rows = BTreeSet::new();
        read_text_column(self.table.files.open(path)?, "experiment_id", |row, text| {
            if rows.len() < limit
                && text == Some(experiment_id.as_str())
                && deleted.binary_search(&row).is_err()
            {
                rows.insert(row);
            }
        })
        .map_err(|source| LakeError::Parquet {
            action: "read experiments of",
            path: path.to_owned(),
            source,
        })?;
        if rows.is_empty() {
            return Ok(LocatedTraces::default());
        }
        let addresses = rows.iter().map(|row| RowAddress { file: index, row: *row }).collect();
        let found = Found::from([(tracelake_model::TraceId::default(), addresses)]);
        let (batch, _) = self.read_old_rows(&found, &files, &self.snapshot.schema()?)?;
        let traces = rebuild_traces(&batch).map_err(|error| self.unreadable(&error))?;
        Ok(LocatedTraces { traces, rows: BTreeMap::from([(path.to_owned(), rows)]) })
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
