//! Data files: rows as Parquet, with the statistics that the log keeps of them.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use arrow::array::{Array, RecordBatch, StructArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::json::LineDelimitedWriter;
use delta_kernel::engine::arrow_conversion::TryFromArrow as _;
use delta_kernel::expressions::ColumnName;
use delta_kernel::schema::StructType;
use delta_kernel_default_engine::stats::FileStatsAccumulator;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
};
use parquet::arrow::arrow_writer::{
    ArrowColumnChunk, ArrowColumnWriter, ArrowLeafColumn, compute_leaves,
};
use parquet::arrow::{ProjectionMask, arrow_reader::ArrowReaderOptions};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::PageIndexPolicy;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;

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
pub(crate) fn encode_batches(
    schema: &SchemaRef,
    rows: usize,
    batches: &mut dyn Iterator<Item = Result<RecordBatch, ParquetError>>,
) -> Result<EncodedFile, ParquetError> {
    let properties = writer_properties(rows)?;
    let (mut file, factory) =
        ArrowWriter::try_new(Vec::new(), Arc::clone(schema), Some(properties))?
            .into_serialized_writer()?;
    let mut stats = FileStats::new(schema)?;
    let mut next = batches.next().transpose()?;
    let mut groups = 0;
    while let Some(first) = next {
        let writers = factory.create_column_writers(groups)?;
        let (chunks, rest) = encode_row_group(schema, writers, first, batches, &mut stats)?;
        let mut group = file.next_row_group()?;
        for chunk in chunks {
            chunk.append_to_row_group(&mut group)?;
        }
        group.close()?;
        groups += 1;
        next = rest;
    }
    let bytes = file.into_inner()?;
    Ok(EncodedFile { size_bytes: bytes.len(), bytes, stats: stats.finish()? })
}

/// A leaf column of a batch, and its position among the leaves of the schema.
type Leaf = (usize, ArrowLeafColumn);

/// Writes one row group: `first` and as many of the following batches as it takes. Gives back the columns,
/// and the batch that begins the next group.
///
/// The payload columns, which take half of the work, are compressed on a thread of their own.
fn encode_row_group(
    schema: &SchemaRef,
    writers: Vec<ArrowColumnWriter>,
    first: RecordBatch,
    batches: &mut dyn Iterator<Item = Result<RecordBatch, ParquetError>>,
    stats: &mut FileStats,
) -> Result<(Vec<ArrowColumnChunk>, Option<RecordBatch>), ParquetError> {
    let heavy = payload_leaves(schema);
    let (theirs, mut own): (Vec<_>, Vec<_>) =
        writers.into_iter().enumerate().partition(|(leaf, _)| heavy.contains(leaf));
    std::thread::scope(|scope| {
        let (hand_over, leaves) = sync_channel::<Vec<Leaf>>(BATCHES_AHEAD);
        let compressor = std::thread::Builder::new()
            .name("compress".to_owned())
            .spawn_scoped(scope, move || compress(theirs, &leaves))?;
        let mut rows = 0;
        let mut next = Some(first);
        while let Some(batch) =
            next.take_if(|batch| rows == 0 || rows + batch.num_rows() <= ROW_GROUP_ROWS)
        {
            rows += batch.num_rows();
            stats.add(&batch)?;
            let (theirs, leaves): (Vec<Leaf>, Vec<Leaf>) =
                leaves_of(schema, &batch)?.into_iter().partition(|(leaf, _)| heavy.contains(leaf));
            if hand_over.send(theirs).is_err() {
                // It ended with an error, which is read below.
                break;
            }
            write_leaves(&mut own, &leaves)?;
            next = batches.next().transpose()?;
        }
        drop(hand_over);
        let done = compressor.join();
        let mut chunks =
            done.map_err(|_| ParquetError::General("a compressor failed".into()))??;
        chunks.extend(close(own)?);
        chunks.sort_unstable_by_key(|(leaf, _)| *leaf);
        Ok((chunks.into_iter().map(|(_, chunk)| chunk).collect(), next))
    })
}

/// Batches that may wait for the thread that compresses payloads.
const BATCHES_AHEAD: usize = 1;

fn compress(
    mut writers: Vec<(usize, ArrowColumnWriter)>,
    batches: &Receiver<Vec<Leaf>>,
) -> Result<Vec<(usize, ArrowColumnChunk)>, ParquetError> {
    while let Ok(leaves) = batches.recv() {
        write_leaves(&mut writers, &leaves)?;
    }
    close(writers)
}

/// Writes each leaf to its writer; both are in the order of the schema.
fn write_leaves(
    writers: &mut [(usize, ArrowColumnWriter)],
    leaves: &[Leaf],
) -> Result<(), ParquetError> {
    for ((position, writer), (leaf, column)) in writers.iter_mut().zip(leaves) {
        debug_assert_eq!(position, leaf, "writers and leaves are in one order");
        writer.write(column)?;
    }
    Ok(())
}

fn close(
    writers: Vec<(usize, ArrowColumnWriter)>,
) -> Result<Vec<(usize, ArrowColumnChunk)>, ParquetError> {
    writers.into_iter().map(|(leaf, writer)| Ok((leaf, writer.close()?))).collect()
}

fn leaves_of(schema: &Schema, batch: &RecordBatch) -> Result<Vec<Leaf>, ParquetError> {
    let mut leaves = Vec::new();
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        leaves.extend(compute_leaves(field, column)?);
    }
    Ok(leaves.into_iter().enumerate().collect())
}

/// Positions of the payload columns among the leaves of `schema`.
fn payload_leaves(schema: &Schema) -> Vec<usize> {
    fn walk(field: &Field, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
        path.push(field.name().clone());
        match field.data_type() {
            DataType::Struct(fields) => fields.iter().for_each(|field| walk(field, path, found)),
            DataType::List(inner) | DataType::Map(inner, _) => walk(inner, path, found),
            _ => found.push(path.clone()),
        }
        path.pop();
    }
    let mut leaves = Vec::new();
    schema.fields().iter().for_each(|field| walk(field, &mut Vec::new(), &mut leaves));
    let is_payload = |path: &[String]| {
        path.first().is_some_and(|name| name == "spans")
            && path.iter().any(|name| matches!(name.as_str(), "inputs" | "outputs" | "metadata"))
    };
    let payloads = leaves.iter().enumerate().filter(|(_, path)| is_payload(path));
    payloads.map(|(leaf, _)| leaf).collect()
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
        .set_statistics_enabled(EnabledStatistics::Chunk)
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
    for payload in [
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
