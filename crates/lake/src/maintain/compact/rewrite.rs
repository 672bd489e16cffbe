//! The rows of several data files as one, in bounded memory.
//!
//! Files are read in the order of their rows' age. What fits into [`WINDOW_BYTES`] is sorted, so
//! that calls of one session lie in one page, and written: rows stay near those of their time.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray as _, RecordBatch, UInt32Array};
use arrow::compute::{SortColumn, concat, interleave_record_batch, lexsort_to_indices};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReaderBuilder, RowSelection, RowSelector};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;

use super::format::properties;
use super::{CompactionGroup, Pace};
use crate::data_file::{FileStats, has_large_rows};
use crate::error::LakeError;
use crate::layout::data_file;
use crate::rows::conform;
use crate::table::{LiveFile, TableSnapshot};

/// Bytes of rows that are sorted together.
const WINDOW_BYTES: usize = 16 << 20;

/// Bytes of rows that are read, or written, at a time.
const BATCH_BYTES: usize = 2 << 20;

/// Rows that are read at a time, at the most.
const BATCH_ROWS: usize = 1_024;

/// In place of an output row: the input row was deleted.
pub(super) const NOWHERE: u32 = u32::MAX;

/// A group's rows in their file. No version refers to it yet.
#[derive(Debug)]
pub(super) struct Rewritten {
    pub path: String,
    pub size_bytes: u64,
    pub rows: u64,
    /// Deleted rows of the group's files, which were left out.
    pub purged_rows: u64,
    /// Delta's statistics as JSON text.
    pub stats: String,
    /// For each file of the group and each of its rows, the row in this file, or [`NOWHERE`].
    pub places: Vec<Vec<u32>>,
}

/// Writes the live rows of a group; `None` when `pace` says to stop.
pub(super) fn rewrite(
    snapshot: &TableSnapshot,
    group: &CompactionGroup,
    pace: Pace<'_>,
) -> Result<Option<Rewritten>, LakeError> {
    let path = data_file();
    let mut outcome = Ok(None);
    let put = snapshot.table().files.put_stream(&path, &mut |out| {
        outcome = write_rows(snapshot, group, &path, out, pace);
        match &outcome {
            Ok(Some(_)) => Ok(()),
            // Told below; this leaves no file.
            Ok(None) | Err(_) => Err(io::ErrorKind::Interrupted.into()),
        }
    });
    if let Ok(Some(_)) = &outcome {
        put?;
    }
    outcome
}

fn write_rows(
    snapshot: &TableSnapshot,
    group: &CompactionGroup,
    path: &str,
    out: &mut (dyn Write + Send),
    pace: Pace<'_>,
) -> Result<Option<Rewritten>, LakeError> {
    let schema = snapshot.schema()?;
    let mut output = Output::new(path, &schema, out)?;
    let mut window = Window::default();
    let mut live_count = 0;
    for file in &group.files {
        let parquet =
            |source| LakeError::Parquet { action: "read", path: file.path.clone(), source };
        let deleted = snapshot.deleted_rows(file)?;
        let opened = snapshot.table().files.open(&file.path)?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(opened).map_err(parquet)?;
        let total = row_count(builder.metadata());
        let live = live_rows(total, &deleted);
        output.places.push(vec![NOWHERE; total]);
        live_count += live.len() as u64;
        output.purged_rows += (total - live.len()) as u64;
        let batch_rows = batch_rows(builder.metadata());
        let selection = RowSelection::from(selectors(total, &deleted));
        let reader = builder
            .with_row_selection(selection)
            .with_batch_size(batch_rows)
            .build()
            .map_err(parquet)?;
        let mut rows = live.into_iter();
        for batch in reader {
            let batch = batch.map_err(|source| parquet(source.into()))?;
            let batch = conform(&batch, &schema)
                .map_err(|source| LakeError::Arrow { action: "read rows to compact", source })?;
            let worked = share(file, batch.num_rows(), total);
            let index = output.places.len() - 1;
            window.origins.extend(rows.by_ref().take(batch.num_rows()).map(|row| (index, row)));
            window.bytes += batch.get_array_memory_size();
            window.batches.push(batch);
            if WINDOW_BYTES <= window.bytes {
                output.write(std::mem::take(&mut window))?;
            }
            if pace(worked) == ControlFlow::Break(()) {
                return Ok(None);
            }
        }
    }
    output.write(window)?;
    if u64::from(output.rows) != live_count {
        // A file says another number of rows than it gives: nothing may be replaced then.
        let reason = format!("{} rows read, {live_count} expected", output.rows);
        return Err(LakeError::Row { path: path.to_owned(), reason });
    }
    output.finish().map(Some)
}

fn row_count(metadata: &ParquetMetaData) -> usize {
    usize::try_from(metadata.file_metadata().num_rows()).unwrap_or_default()
}

/// Rows of about [`BATCH_BYTES`], by what the file says of its size; one when some row is large.
fn batch_rows(metadata: &ParquetMetaData) -> usize {
    if has_large_rows(metadata) {
        return 1;
    }
    let bytes: i64 = metadata.row_groups().iter().map(|group| group.total_byte_size()).sum();
    let bytes = usize::try_from(bytes).unwrap_or_default();
    let row_bytes = bytes / row_count(metadata).max(1);
    (BATCH_BYTES / row_bytes.max(1)).clamp(1, BATCH_ROWS)
}

/// The rows that are not among `deleted`, which ascend.
fn live_rows(total: usize, deleted: &[u64]) -> Vec<usize> {
    (0..total).filter(|row| deleted.binary_search(&(*row as u64)).is_err()).collect()
}

fn selectors(total: usize, deleted: &[u64]) -> Vec<RowSelector> {
    let mut selectors = Vec::new();
    let mut next = 0;
    for row in deleted.iter().filter_map(|row| usize::try_from(*row).ok()) {
        if row < total {
            selectors.push(RowSelector::select(row - next));
            selectors.push(RowSelector::skip(1));
            next = row + 1;
        }
    }
    selectors.push(RowSelector::select(total - next));
    selectors
}

/// Bytes of the file that `rows` of `total` stand for.
fn share(file: &LiveFile, rows: usize, total: usize) -> u64 {
    file.size_bytes.saturating_mul(rows as u64) / (total.max(1) as u64)
}

/// Bytes of a batch that has one row, as those of large rows have.
fn largest_row_bytes(batch: &RecordBatch) -> usize {
    if batch.num_rows() == 1 { batch.get_array_memory_size() } else { 0 }
}

/// Rows that are sorted together.
#[derive(Debug, Default)]
struct Window {
    batches: Vec<RecordBatch>,
    /// Where each row comes from: file of the group, row of the file.
    origins: Vec<(usize, usize)>,
    bytes: usize,
}

impl Window {
    /// The rows in the order to write them in: batch, row of the batch, and place in `origins`.
    fn sorted(&self) -> Result<Vec<(usize, usize, usize)>, ArrowError> {
        let mut places = Vec::with_capacity(self.origins.len());
        for (batch, rows) in self.batches.iter().enumerate() {
            let first = places.len();
            places.extend((0..rows.num_rows()).map(|row| (batch, row, first + row)));
        }
        let mut keys = vec![
            self.key(|batch| batch.column_by_name("experiment_id").cloned())?,
            self.key(|batch| batch.column_by_name("session_id").cloned())?,
            self.key(|batch| {
                let info = batch.column_by_name("trace_info")?.as_struct_opt()?;
                info.column_by_name("timestamp").cloned()
            })?,
        ];
        keys.retain(|key| key.len() == places.len());
        let arrival: UInt32Array = (0..u32::try_from(places.len()).unwrap_or(u32::MAX)).collect();
        keys.push(Arc::new(arrival));
        let columns: Vec<SortColumn> =
            keys.into_iter().map(|values| SortColumn { values, options: None }).collect();
        let order = lexsort_to_indices(&columns, None)?;
        let place = |index: &u32| places.get(usize::try_from(*index).ok()?).copied();
        Ok(order.values().iter().filter_map(place).collect())
    }

    /// A sort key of all rows; empty when the column is not there.
    fn key(&self, of: impl Fn(&RecordBatch) -> Option<ArrayRef>) -> Result<ArrayRef, ArrowError> {
        let parts: Vec<ArrayRef> = self.batches.iter().filter_map(of).collect();
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        if parts.len() < self.batches.len() || parts.is_empty() {
            return Ok(Arc::new(UInt32Array::from(Vec::<u32>::new())));
        }
        concat(&parts)
    }
}

/// The file that is written.
struct Output<'a> {
    path: &'a str,
    writer: ArrowWriter<Counted<'a>>,
    statistics: FileStats,
    places: Vec<Vec<u32>>,
    rows: u32,
    purged_rows: u64,
}

impl<'a> Output<'a> {
    fn new(
        path: &'a str,
        schema: &SchemaRef,
        out: &'a mut (dyn Write + Send),
    ) -> Result<Self, LakeError> {
        let fault = |source| encode_fault(path, source);
        let counted = Counted { inner: out, bytes: 0 };
        let properties = properties().map_err(fault)?;
        let writer = ArrowWriter::try_new(counted, Arc::clone(schema), Some(properties));
        let statistics = FileStats::new(schema).map_err(fault)?;
        Ok(Self {
            path,
            writer: writer.map_err(fault)?,
            statistics,
            places: Vec::new(),
            rows: 0,
            purged_rows: 0,
        })
    }

    /// Writes a window in its order, in parts, so that no second copy of it is made.
    fn write(&mut self, window: Window) -> Result<(), LakeError> {
        if window.origins.is_empty() {
            return Ok(());
        }
        let arrow = |source| LakeError::Arrow { action: "order rows to compact", source };
        let order = window.sorted().map_err(arrow)?;
        let batches: Vec<&RecordBatch> = window.batches.iter().collect();
        let largest = window.batches.iter().map(largest_row_bytes).max().unwrap_or_default();
        let row_bytes = (window.bytes / order.len().max(1)).max(largest / 8);
        let part_rows = (BATCH_BYTES / row_bytes.max(1)).max(1);
        for part in order.chunks(part_rows) {
            let wanted: Vec<(usize, usize)> =
                part.iter().map(|(batch, row, _)| (*batch, *row)).collect();
            let rows = interleave_record_batch(&batches, &wanted).map_err(arrow)?;
            self.statistics.add(&rows).map_err(|source| encode_fault(self.path, source))?;
            self.writer.write(&rows).map_err(|source| encode_fault(self.path, source))?;
            for (_, _, place) in part {
                let origin = window.origins.get(*place);
                let slot = origin.and_then(|(file, row)| {
                    self.places.get_mut(*file).and_then(|f| f.get_mut(*row))
                });
                if let Some(slot) = slot {
                    *slot = self.rows;
                }
                self.rows = self.rows.saturating_add(1);
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Rewritten, LakeError> {
        let fault = |source| encode_fault(self.path, source);
        let counted = self.writer.into_inner().map_err(fault)?;
        let stats = self.statistics.finish().map_err(fault)?;
        Ok(Rewritten {
            path: self.path.to_owned(),
            size_bytes: counted.bytes,
            rows: u64::from(self.rows),
            purged_rows: self.purged_rows,
            stats,
            places: self.places,
        })
    }
}

fn encode_fault(path: &str, source: ParquetError) -> LakeError {
    LakeError::Parquet { action: "write compacted rows to", path: path.to_owned(), source }
}

/// Counts what is written.
struct Counted<'a> {
    inner: &'a mut (dyn Write + Send),
    bytes: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
