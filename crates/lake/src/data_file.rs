//! Data files: rows as Parquet, with the statistics that the log keeps of them.

use std::fs::File;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch, StructArray};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::json::LineDelimitedWriter;
use delta_kernel::expressions::ColumnName;
use delta_kernel::schema::StructType;
use delta_kernel_default_engine::stats::FileStatsAccumulator;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
};
use parquet::arrow::{ProjectionMask, arrow_reader::ArrowReaderOptions};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;

/// Rows of one row group: small enough that one row can be read without much beside it.
const ROW_GROUP_ROWS: usize = 16_384;

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

/// Encodes `batches`, all of one schema, as one file with statistics.
pub(crate) fn encode_file(
    schema: &SchemaRef,
    batches: &[RecordBatch],
) -> Result<EncodedFile, ParquetError> {
    let rows = batches.iter().map(RecordBatch::num_rows).sum();
    let properties = writer_properties(rows)?;
    let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(schema), Some(properties))?;
    for batch in batches {
        writer.write(batch)?;
    }
    let bytes = writer.into_inner()?;
    let stats = statistics(schema, batches)
        .map_err(|reason| ParquetError::General(format!("statistics: {reason}")))?;
    Ok(EncodedFile { size_bytes: bytes.len(), bytes, stats })
}

/// Measured choices: zstd 1 is within 5 % of zstd 3 at 1.6 times its speed; a dictionary on
/// payloads and ids costs and saves nothing; the bloom filter finds random trace ids, for which
/// bounds are useless. It is sized for the rows of a group, so that a small commit stays small.
fn writer_properties(rows: usize) -> Result<WriterProperties, ParquetError> {
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("tracelake ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_statistics_truncate_length(Some(64))
        .set_column_index_truncate_length(Some(64));
    let element = |path: &[&str]| {
        let mut parts = vec!["spans".to_owned(), "list".to_owned(), "element".to_owned()];
        parts.extend(path.iter().map(|part| (*part).to_owned()));
        ColumnPath::new(parts)
    };
    for payload in [
        element(&["inputs"]),
        element(&["outputs"]),
        element(&["metadata", "key_value", "value"]),
        element(&["span_id"]),
        element(&["parent_span_id"]),
        element(&["otlp"]),
        ColumnPath::new(vec!["trace_id".into()]),
    ] {
        properties = properties.set_column_dictionary_enabled(payload, false);
    }
    for payload in [element(&["inputs"]), element(&["outputs"]), element(&["otlp"])] {
        properties = properties.set_column_statistics_enabled(payload, EnabledStatistics::None);
    }
    let distinct = rows.clamp(1, ROW_GROUP_ROWS) as u64;
    let trace_id = ColumnPath::new(vec!["trace_id".into()]);
    Ok(properties
        .set_column_bloom_filter_enabled(trace_id.clone(), true)
        .set_column_bloom_filter_max_ndv(trace_id, distinct)
        .build())
}

/// Delta's statistics of the rows, as JSON text.
fn statistics(schema: &Schema, batches: &[RecordBatch]) -> Result<String, String> {
    use delta_kernel::engine::arrow_conversion::TryFromArrow as _;
    let kernel_schema = StructType::try_from_arrow(schema).map_err(|error| error.to_string())?;
    let columns: Vec<ColumnName> = STATS_COLUMNS
        .iter()
        .filter(|path| path.first().is_some_and(|name| schema.field_with_name(name).is_ok()))
        .map(|path| ColumnName::new(path.iter().copied()))
        .collect();
    let mut accumulator = FileStatsAccumulator::new(&columns, &kernel_schema);
    for batch in batches {
        accumulator.merge(batch).map_err(|error| error.to_string())?;
    }
    let Some(stats) = accumulator.finish().map_err(|error| error.to_string())? else {
        return Ok(r#"{"numRecords":0}"#.to_owned());
    };
    json_row(&stats).map_err(|error| error.to_string())
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

/// Reads chosen rows of a data file, whole, in file order. `rows` ascend.
pub(crate) fn read_rows(file: File, rows: &[u64]) -> Result<Vec<RecordBatch>, ParquetError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
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
    builder
        .with_row_selection(RowSelection::from(selectors))
        .with_batch_size(1024)
        .build()?
        .map(|batch| batch.map_err(ParquetError::from))
        .collect()
}

/// The `trace_id` column of a data file, in file order.
pub(crate) fn read_trace_ids(
    file: File,
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
    file: File,
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
        let column = arrow::compute::cast(column, &arrow::datatypes::DataType::Utf8)?;
        for text in arrow::array::AsArray::as_string::<i32>(&column) {
            found(row, text);
            row += 1;
        }
    }
    Ok(())
}
