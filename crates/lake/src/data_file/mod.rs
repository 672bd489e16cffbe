//! Data files: rows as Parquet, with the statistics that the log keeps of them.

mod encode;
mod format;

use arrow::array::{Array, RecordBatch, StructArray};
use arrow::datatypes::{DataType, Schema};
use arrow::json::LineDelimitedWriter;
use delta_kernel::engine::arrow_conversion::TryFromArrow as _;
use delta_kernel::expressions::ColumnName;
use delta_kernel::schema::StructType;
use delta_kernel_default_engine::stats::FileStatsAccumulator;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
};
use parquet::arrow::{ProjectionMask, arrow_reader::ArrowReaderOptions};
use parquet::errors::ParquetError;
use parquet::file::metadata::PageIndexPolicy;

pub(crate) use encode::{encode_batches, encode_file};

use crate::storage::OpenedFile;

/// Rows that are read at a time where rows may be large.
const READ_ROWS: usize = 128;

/// Columns whose bounds the log keeps: those that queries filter by. Dotted paths.
const STATS_COLUMNS: [&[&str]; 12] = [
    &["trace_id"],
    &["experiment_id"],
    &["trace_info", "timestamp"],
    &["trace_info", "status"],
    &["created_at"],
    &["execution_duration_ms"],
    &["session_id"],
    &["user_id"],
    &["total_tokens"],
    &["span_count"],
    &["error_span_count"],
    &["updated_at"],
];

/// A Parquet file in memory and what the log says of it.
#[derive(Debug)]
pub(crate) struct EncodedFile {
    /// Taken out once the file is written.
    pub bytes: Vec<u8>,
    pub size_bytes: usize,
    /// Delta's per-file statistics as JSON text.
    pub stats: String,
}

/// Delta's statistics of a file, gathered batch by batch.
pub(crate) struct FileStats(FileStatsAccumulator);

impl FileStats {
    /// Of no rows yet, which will be of `schema`.
    pub(crate) fn new(schema: &Schema) -> Result<Self, ParquetError> {
        let kernel_schema = StructType::try_from_arrow(schema).map_err(fault)?;
        let columns: Vec<ColumnName> = STATS_COLUMNS
            .iter()
            .filter(|path| path.first().is_some_and(|name| schema.field_with_name(name).is_ok()))
            .map(|path| ColumnName::new(path.iter().copied()))
            .collect();
        Ok(Self(FileStatsAccumulator::new(&columns, &kernel_schema)))
    }

    pub(crate) fn add(&mut self, batch: &RecordBatch) -> Result<(), ParquetError> {
        self.0.merge(batch).map_err(fault)
    }

    /// As JSON text.
    pub(crate) fn finish(self) -> Result<String, ParquetError> {
        match self.0.finish().map_err(fault)? {
            Some(stats) => json_row(&stats).map_err(fault),
            None => Ok(r#"{"numRecords":0}"#.to_owned()),
        }
    }
}

fn fault(reason: impl std::fmt::Display) -> ParquetError {
    ParquetError::General(format!("statistics: {reason}"))
}

/// The first row of a struct array as a JSON object.
fn json_row(row: &StructArray) -> Result<String, arrow::error::ArrowError> {
    let batch = RecordBatch::from(row.slice(0, row.len().min(1)));
    let mut text = Vec::new();
    let mut writer = LineDelimitedWriter::new(&mut text);
    writer.write(&batch)?;
    writer.finish()?;
    Ok(String::from_utf8_lossy(&text).trim_end().to_owned())
}

/// Chosen rows of a data file, whole, in file order, a few at a time. `rows` ascend. Of each
/// column only the pages that have one of them are read.
pub(crate) fn read_rows(
    file: OpenedFile,
    rows: &[u64],
) -> Result<impl Iterator<Item = Result<RecordBatch, ParquetError>>, ParquetError> {
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)?;
    let total = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or_default();
    let mut selectors = Vec::new();
    let mut next = 0;
    let length = |rows: u64| usize::try_from(rows).unwrap_or(usize::MAX);
    for row in rows.iter().copied().filter(|row| *row < total) {
        selectors.push(RowSelector::skip(length(row - next)));
        selectors.push(RowSelector::select(1));
        next = row + 1;
    }
    selectors.push(RowSelector::skip(length(total - next)));
    let reader = builder
        .with_row_selection(RowSelection::from(selectors))
        .with_batch_size(READ_ROWS)
        .build()?;
    Ok(reader.map(|batch| batch.map_err(ParquetError::from)))
}

/// The `trace_id` column of a data file, in file order.
pub(crate) fn read_trace_ids(
    file: OpenedFile,
    mut found: impl FnMut(u64, &str),
) -> Result<(), ParquetError> {
    read_text_column(file, "trace_id", |row, text| {
        if let Some(text) = text {
            found(row, text);
        }
    })
}

/// A top-level text column of a data file, in file order; nothing when the file lacks it.
pub(crate) fn read_text_column(
    file: OpenedFile,
    name: &str,
    mut found: impl FnMut(u64, Option<&str>),
) -> Result<(), ParquetError> {
    let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new())?;
    let mask = ProjectionMask::columns(metadata.metadata().file_metadata().schema_descr(), [name]);
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata)
        .with_projection(mask)
        .with_batch_size(8192)
        .build()?;
    let mut row = 0_u64;
    for batch in reader {
        let batch = batch?;
        let Some(column) = batch.columns().first() else { return Ok(()) };
        let column = arrow::compute::cast(column, &DataType::Utf8)?;
        for text in arrow::array::AsArray::as_string::<i32>(&column) {
            found(row, text);
            row += 1;
        }
    }
    Ok(())
}
