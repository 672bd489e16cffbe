//! Rows that belong to another table: found, read, and deleted once they are there.
//!
//! A row says by its own experiment whether it moves, but for the parts of a large trace: they go with the
//! row of their trace, whatever experiment that had when they were written.
//!
//! A trace in one row is read, [`TableWriter::absorb`] on the target, [`TableWriter::delete_located`]
//! here. One in several rows is a [`LargeMove`]: the target takes in one row after the other, the row of the
//! trace last, and then one version takes all of them out of the source. The source is whole until
//! it has nothing of the trace. Dying in between leaves the trace in both tables; the move finds it again,
//! the target tells what it has already, and the deletion follows.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use tracelake_model::schema::traces_schema;
use tracelake_model::{ExperimentId, TraceId};

use super::old_rows::{Deletions, OldRows, by_file};
use super::{MAX_ATTEMPTS, Step, TableWriter};
use crate::data_file::{read_large_rows, read_parts, read_text_column, read_trace_ids};
use crate::error::LakeError;
use crate::rows::{ExperimentBy, TraceDraft, rebuild_traces};
use crate::table::RowAddress;

/// A data file and a row of it.
type Place = (String, u64);

/// Rows of an experiment in a data file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundRows {
    /// Rows of traces, and whose they are.
    pub rows: Vec<(u64, TraceId)>,
    /// Traces of which there are parts.
    pub parts_of: BTreeSet<TraceId>,
}

/// Traces as they are in their table, and where.
#[derive(Clone, Debug, Default)]
pub struct LocatedTraces {
    /// The traces that are in one row.
    pub traces: Vec<TraceDraft>,
    /// Traces that are in several rows and move by themselves.
    pub large: BTreeSet<TraceId>,
    /// All rows of each trace that is to be deleted.
    rows: BTreeMap<TraceId, BTreeSet<Place>>,
}

impl LocatedTraces {
    /// Adds others of the same table.
    pub fn extend(&mut self, others: Self) {
        self.traces.extend(others.traces);
        self.large.extend(others.large);
        for (trace_id, rows) in others.rows {
            self.rows.entry(trace_id).or_default().extend(rows);
        }
    }
}

/// A trace in several rows on its way to another table, row by row.
#[derive(Debug)]
pub struct LargeMove {
    trace_id: TraceId,
    experiment_id: ExperimentId,
    /// Parts in their order, then the row of the trace.
    places: Vec<(Place, Option<i32>)>,
    /// How many of them were handed over.
    done: usize,
}

/// What comes next of a [`LargeMove`].
#[derive(Debug)]
pub enum NextRow {
    /// The target is to take it in.
    Row(Box<TraceDraft>),
    /// The target has all rows: these are to be deleted.
    All(LocatedTraces),
    /// Another writer, or a client's deletion, was at a row of the trace: what is there now is another move.
    Changed,
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
    ) -> Result<FoundRows, LakeError> {
        self.refresh()?;
        let files = self.live_files()?;
        let Some(file) = files.iter().find(|file| file.path == path) else {
            return Ok(FoundRows::default());
        };
        let deleted = self.snapshot.deleted_rows(file)?;
        let fault = |source| unread("read experiments of", path, source);
        let mut rows = BTreeSet::new();
        read_text_column(self.table.files.open(path)?, "experiment_id", |row, text| {
            if text == Some(experiment_id.as_str()) && deleted.binary_search(&row).is_err() {
                rows.insert(row);
            }
        })
        .map_err(fault)?;
        let mut found = FoundRows::default();
        if !rows.is_empty() {
            let parts = read_parts(self.table.files.open(path)?).map_err(fault)?;
            read_trace_ids(self.table.files.open(path)?, |row, text| {
                match TraceId::parse(text).filter(|_| rows.contains(&row)) {
                    Some(trace_id) if parts.contains(&row) => {
                        found.parts_of.insert(trace_id);
                    }
                    Some(trace_id) => found.rows.push((row, trace_id)),
                    None => {}
                }
            })
            .map_err(fault)?;
        }
        Ok(found)
    }

    /// Reads rows of traces in a data file, until they take more than memory has room for: the others are
    /// found by the next pass. Those whose trace has parts are named alone.
    ///
    /// # Errors
    /// [`LakeError`] when the table cannot be read.
    pub fn locate(&mut self, path: &str, rows: &[u64]) -> Result<LocatedTraces, LakeError> {
        self.refresh()?;
        let files = self.live_files()?;
        let Some((index, file)) = files.iter().enumerate().find(|(_, file)| file.path == path)
        else {
            return Ok(LocatedTraces::default());
        };
        // They were found in an earlier version: one that is gone since would come back in the other table.
        let gone = self.snapshot.deleted_rows(file)?;
        let live = rows.iter().copied().filter(|row| gone.binary_search(row).is_err());
        let wanted = Deletions::from([(index, live.collect())]);
        let schema = self.snapshot.schema()?;
        let OldRows { rows, places, .. } =
            self.read_rows(&wanted, &files, &schema, self.round_bytes)?;
        let traces = rebuild_traces(&rows).map_err(|error| self.unreadable(&error))?;
        let mut located = LocatedTraces::default();
        for (trace, (_, row)) in traces.into_iter().zip(places) {
            if trace.beyond.is_some() || trace.part.is_some() {
                located.large.insert(trace.trace_id);
                continue;
            }
            located.rows.entry(trace.trace_id).or_default().insert((path.to_owned(), row));
            located.traces.push(trace);
        }
        Ok(located)
    }

    /// Begins to move a trace in several rows, wherever they lie; `None` when it is another experiment's, or
    /// not there. Parts alone, whose row another engine took, are those of their own experiment.
    ///
    /// # Errors
    /// [`LakeError`] when the table cannot be read.
    pub fn begin_move(
        &mut self,
        experiment_id: &ExperimentId,
        trace_id: TraceId,
    ) -> Result<Option<LargeMove>, LakeError> {
        self.refresh()?;
        let found = self.find(&HashSet::from([trace_id]))?;
        let files = self.live_files()?;
        let mut places = Vec::new();
        let (mut has_head, mut is_chosen, mut has_own_part) = (false, false, false);
        for (index, wanted) in by_file(&found) {
            let Some(file) = files.get(index) else { continue };
            let fault = |source| unread("read rows of", &file.path, source);
            let rows: Vec<u64> = wanted.iter().copied().collect();
            let mut parts: HashMap<u64, i32> = HashMap::new();
            read_large_rows(self.table.files.open(&file.path)?, &rows, &mut |row| {
                parts.extend(row.part.map(|part| (row.row, part)));
            })
            .map_err(fault)?;
            read_text_column(self.table.files.open(&file.path)?, "experiment_id", |row, text| {
                if !wanted.contains(&row) {
                    return;
                }
                let is_own = text == Some(experiment_id.as_str());
                match parts.contains_key(&row) {
                    true => has_own_part |= is_own,
                    false => {
                        has_head = true;
                        is_chosen |= is_own;
                    }
                }
            })
            .map_err(fault)?;
            places.extend(
                rows.iter().map(|row| ((file.path.clone(), *row), parts.get(row).copied())),
            );
        }
        if !is_chosen && (has_head || !has_own_part) {
            return Ok(None);
        }
        // Those without a number are the trace's own.
        places.sort_by_key(|(_, part)| (part.is_none(), *part));
        let experiment_id = experiment_id.clone();
        Ok(Some(LargeMove { trace_id, experiment_id, places, done: 0 }))
    }

    /// The next row of a trace that moves.
    ///
    /// # Errors
    /// [`LakeError`] when the table cannot be read.
    pub fn next_row(&mut self, large: &mut LargeMove) -> Result<NextRow, LakeError> {
        let LargeMove { trace_id, places, .. } = &*large;
        let Some(((path, row), part)) = places.get(large.done) else {
            let rows = places.iter().map(|(place, _)| place.clone()).collect();
            let rows = BTreeMap::from([(*trace_id, rows)]);
            return Ok(NextRow::All(LocatedTraces { rows, ..LocatedTraces::default() }));
        };
        self.refresh()?;
        let files = self.live_files()?;
        let Some(index) = files.iter().position(|file| file.path == *path) else {
            return Ok(NextRow::Changed);
        };
        if let Some(file) = files.get(index)
            && self.snapshot.deleted_rows(file)?.binary_search(row).is_ok()
        {
            return Ok(NextRow::Changed);
        }
        let schema = self.snapshot.schema()?;
        let wanted = BTreeMap::from([(index, BTreeSet::from([*row]))]);
        let rows = self.read_rows(&wanted, &files, &schema, usize::MAX)?.rows;
        let traces = rebuild_traces(&rows).map_err(|error| self.unreadable(&error))?;
        let Some(mut trace) = traces.into_iter().next() else { return Ok(NextRow::Changed) };
        if part.is_some() {
            trace.experiment_id = Some(large.experiment_id.clone());
            trace.experiment_by = ExperimentBy::Request;
        }
        large.done += 1;
        Ok(NextRow::Row(Box::new(trace)))
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

    /// Deletes the traces that were located and are still as they were. One of which another writer replaced
    /// a row meanwhile stays whole: it says more than what was read. Returns how many traces were deleted.
    ///
    /// # Errors
    /// [`LakeError`]; no row is deleted then, or all are.
    pub fn delete_located(&mut self, located: &LocatedTraces) -> Result<usize, LakeError> {
        for _ in 0..MAX_ATTEMPTS {
            self.refresh()?;
            let files = self.live_files()?;
            let mut wanted: BTreeMap<&str, Vec<(u64, TraceId)>> = BTreeMap::new();
            for (trace_id, places) in &located.rows {
                for (path, row) in places {
                    wanted.entry(path.as_str()).or_default().push((*row, *trace_id));
                }
            }
            let mut there: BTreeMap<TraceId, Vec<RowAddress>> = BTreeMap::new();
            for (index, file) in files.iter().enumerate() {
                let Some(rows) = wanted.get(file.path.as_str()) else { continue };
                let gone = self.snapshot.deleted_rows(file)?;
                for (row, trace_id) in rows {
                    if gone.binary_search(row).is_err() {
                        let address = RowAddress { file: index, row: *row };
                        there.entry(*trace_id).or_default().push(address);
                    }
                }
            }
            there.retain(|trace_id, rows| {
                located.rows.get(trace_id).is_some_and(|places| places.len() == rows.len())
            });
            let count = there.len();
            if count == 0 {
                return Ok(0);
            }
            let deletions = by_file(&there.into_iter().collect());
            match self.delete(&files, &deletions)? {
                Step::Done(()) => return Ok(count),
                Step::Lost => {}
            }
        }
        let version = self.snapshot.version() + 1;
        Err(LakeError::CommitConflict { table: self.table.name(), version })
    }
}

fn unread(action: &'static str, path: &str, source: parquet::errors::ParquetError) -> LakeError {
    LakeError::Parquet { action, path: path.to_owned(), source }
}
