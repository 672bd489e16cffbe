//! Data files: rows as Parquet, with the statistics that the log keeps of them.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use arrow::array::{Array, RecordBatch, StructArray};
use arrow::datatypes::{DataType, Fields, Schema, SchemaRef};
use arrow::json::LineDelimitedWriter;
use delta_kernel::engine::arrow_conversion::TryFromArrow as _;
use delta_kernel::expressions::ColumnName;
use delta_kernel::schema::StructType;
use delta_kernel_default_engine::stats::FileStatsAccumulator;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
};
use parquet::arrow::{ProjectionMask, arrow_reader::ArrowReaderOptions};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::PageIndexPolicy;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;
use tracelake_model::schema::traces_schema;

use crate::storage::OpenedFile;

/// Rows of one row group: small enough that one row can be read without much beside it.
const ROW_GROUP_ROWS: usize = 16_384;

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

/// Encodes `batches`, all of one schema, as one file with statistics.
pub(crate) fn encode_file(
    schema: &SchemaRef,
    batches: &[RecordBatch],
) -> Result<EncodedFile, ParquetError> {
    let rows = batches.iter().map(RecordBatch::num_rows).sum();
    encode_batches(schema, rows, &mut batches.iter().cloned().map(Ok))
}

/// Encodes `batches`, all of one schema, as one file with statistics; `rows` is about how many rows they
/// have together. Batches are taken one by one, so that no more than a few are in memory.
///
/// Making rows and encoding them is about the same work: each has a thread of its own.
pub(crate) fn encode_batches(
    schema: &SchemaRef,
    rows: usize,
    batches: &mut dyn Iterator<Item = Result<RecordBatch, ParquetError>>,
) -> Result<EncodedFile, ParquetError> {
    std::thread::scope(|scope| {
        let (hand_over, taken) = sync_channel(BATCHES_AHEAD);
        let encoder = std::thread::Builder::new()
            .name("encode".to_owned())
            .spawn_scoped(scope, move || encode_taken(schema, rows, &taken))?;
        for batch in batches {
            if hand_over.send(batch?).is_err() {
                // It ended with an error, which is read below.
                break;
            }
        }
        drop(hand_over);
        let encoded = encoder.join();
        encoded.map_err(|_| ParquetError::General("the encoder failed".to_owned()))?
    })
}

/// Batches that may wait for the thread that encodes them.
const BATCHES_AHEAD: usize = 1;

/// About what a file has beside its columns: bounds of pages, bloom filters, the footer.
const FOOTER_BYTES: usize = 256 << 10;

fn encode_taken(
    schema: &SchemaRef,
    rows: usize,
    batches: &Receiver<RecordBatch>,
) -> Result<EncodedFile, ParquetError> {
    let properties = writer_properties(rows)?;
    let mut file = ArrowWriter::try_new(Vec::new(), Arc::clone(schema), Some(properties))?;
    let mut stats = FileStats::new(schema)?;
    while let Ok(batch) = batches.recv() {
        stats.add(&batch)?;
        if ROW_GROUP_ROWS < file.in_progress_rows() + batch.num_rows() {
            flush(&mut file)?;
        }
        file.write(&batch)?;
    }
    flush(&mut file)?;
    let bytes = file.into_inner()?;
    Ok(EncodedFile { size_bytes: bytes.len(), bytes, stats: stats.finish()? })
}

/// Ends the row group. Room is made for it at once: doubling would copy the file, and touch fresh memory,
/// several times.
fn flush(file: &mut ArrowWriter<Vec<u8>>) -> Result<(), ParquetError> {
    let more = file.in_progress_size() + FOOTER_BYTES;
    file.inner_mut().reserve_exact(more);
    file.flush()
}

/// Zstd level of data files as they are committed; compaction takes more time over it. Level 2 makes LLM spans
/// 6 % smaller than level 1 at about 1 CPU-second more per million of them; level 3 gives nothing beyond.
const ZSTD_LEVEL: i32 = 2;

/// Bytes of a page before compression: an amendment or a look at one trace unpacks the page that the trace
/// is in, of each column. Pages of 1 MiB save 1.5 % of the bytes.
const PAGE_BYTES: usize = 256 << 10;

/// Values after which a column's writer looks whether its page is full: payloads are long.
const VALUES_PER_LOOK: usize = 256;

/// Columns of a span that are numbers of their own: a dictionary costs and saves nothing, differences from
/// one to the next are short.
const SPAN_NUMBERS: [&str; 7] = [
    "start_time",
    "end_time",
    "start_time_unix_nano",
    "end_time_unix_nano",
    "input_tokens",
    "output_tokens",
    "total_tokens",
];

/// Such columns of a trace.
const TRACE_NUMBERS: [&str; 6] = [
    "total_span_duration_ns",
    "max_span_duration_ns",
    "execution_duration_ms",
    "input_tokens",
    "output_tokens",
    "total_tokens",
];

/// Measured choices, the figures are in `docs/performance.md`: a dictionary on payloads and ids costs and saves
/// nothing; the bloom filter finds random trace ids, for which bounds are useless. It is sized for the rows of
/// a group, so that a small commit stays small.
fn writer_properties(rows: usize) -> Result<WriterProperties, ParquetError> {
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("tracelake ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_data_page_size_limit(PAGE_BYTES)
        .set_write_batch_size(VALUES_PER_LOOK)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_statistics_truncate_length(Some(64))
        .set_column_index_truncate_length(Some(64));
    let element = |path: &[&str]| {
        let mut parts = vec!["spans".to_owned(), "list".to_owned(), "element".to_owned()];
        parts.extend(path.iter().map(|part| (*part).to_owned()));
        ColumnPath::new(parts)
    };
    let top = |name: &str| ColumnPath::new(vec![name.to_owned()]);
    let numbers = SPAN_NUMBERS.iter().map(|name| element(&[*name]));
    for column in numbers.chain(TRACE_NUMBERS.iter().map(|name| top(name))) {
        properties = properties
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
    }
    for column in [
        element(&["inputs"]),
        element(&["outputs"]),
        element(&["metadata", "key_value", "value"]),
        element(&["span_id"]),
        element(&["parent_span_id"]),
        element(&["otlp"]),
        top("trace_id"),
        top("request_preview"),
        top("response_preview"),
        ColumnPath::new(vec!["trace_info".into(), "request_id".into()]),
    ] {
        // Lengths apart from the texts: ids are then nothing but digits, payloads nothing but text.
        properties = properties
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_encoding(column, Encoding::DELTA_LENGTH_BYTE_ARRAY);
    }
    for column in bounded_columns() {
        properties = properties.set_column_statistics_enabled(column, EnabledStatistics::Chunk);
    }
    let distinct = rows.clamp(1, ROW_GROUP_ROWS) as u64;
    let trace_id = ColumnPath::new(vec!["trace_id".into()]);
    Ok(properties
        .set_column_bloom_filter_enabled(trace_id.clone(), true)
        .set_column_bloom_filter_max_ndv(trace_id, distinct)
        .build())
}

/// Columns that have bounds in the file: those of the trace itself. Of what lies in lists and maps no reader can
/// use them, and each value would be compared twice.
fn bounded_columns() -> Vec<ColumnPath> {
    let schema = traces_schema();
    let scalars = |fields: &Fields, path: &[&str]| -> Vec<ColumnPath> {
        let scalars = fields.iter().filter(|field| !field.data_type().is_nested());
        let path_of =
            |name: &str| [path, &[name]].concat().into_iter().map(str::to_owned).collect();
        scalars.map(|field| ColumnPath::new(path_of(field.name()))).collect()
    };
    let mut columns = scalars(schema.fields(), &[]);
    for field in schema.fields() {
        if let DataType::Struct(fields) = field.data_type() {
            columns.extend(scalars(fields, &[field.name()]));
        }
    }
    columns
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
