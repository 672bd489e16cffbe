//! How data files are written on the way in. Measured: `docs/performance.md`, `docs/compression.md`.

use arrow::datatypes::{DataType, Fields};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;
use tracelake_model::schema::traces_schema;

use super::Expected;

/// Rows of one row group: small enough that one row can be read without much beside it.
pub(super) const ROW_GROUP_ROWS: usize = 16_384;

/// Zstd level of data files as they are committed; compaction takes more time over it. Level 2 makes LLM spans
/// 6 % smaller than level 1 at about 1 CPU-second more per million of them; level 3 gives nothing beyond.
const ZSTD_LEVEL: i32 = 2;

/// Bytes of a page before compression: an amendment or a look at one trace unpacks the page that the trace
/// is in, of each column. Pages of 1 MiB save 1.5 % of the bytes.
const PAGE_BYTES: usize = 256 << 10;

/// Values after which a column's writer looks whether its page is full, so that pages of texts of 1 KB end at up
/// to twice the size.
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
pub(super) fn writer_properties(rows: Expected) -> Result<WriterProperties, ParquetError> {
    // A page has whole rows, so that of a large one it is in memory several times: lengths apart from the
    // texts would be one time more.
    let texts = match rows.has_large {
        true => Encoding::PLAIN,
        false => Encoding::DELTA_LENGTH_BYTE_ARRAY,
    };
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
            .set_column_encoding(column, texts);
    }
    for column in bounded_columns() {
        properties = properties.set_column_statistics_enabled(column, EnabledStatistics::Chunk);
    }
    let distinct = rows.count.clamp(1, ROW_GROUP_ROWS) as u64;
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
