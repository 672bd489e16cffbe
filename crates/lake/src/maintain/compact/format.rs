//! How compacted files are written. Measured: `docs/compression.md`.

use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;

/// Rows of one row group, and bytes of it when written: what a writer holds in memory.
const ROW_GROUP_ROWS: usize = 16_384;
const ROW_GROUP_BYTES: usize = 12 << 20;

/// Bytes of a page of payloads before compression. Zstd sees one page at a time, and an agent's
/// next call repeats the last one: with 1 MiB the table is 11 % larger. One trace is read by
/// unpacking a page of each column, some 2 ms.
const PAYLOAD_PAGE_BYTES: usize = 4 << 20;

/// Of payloads. Level 9 makes them 2 to 4 % smaller for nearly twice the CPU, level 3 makes them 5 to 12 % larger.
const PAYLOAD_ZSTD_LEVEL: i32 = 6;

/// Of everything else, which higher levels make 3 % smaller, by some MiB of memory for each of a hundred columns.
const ZSTD_LEVEL: i32 = 3;

/// The settings of a compacted file.
pub(super) fn properties() -> Result<WriterProperties, ParquetError> {
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("tracelake ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_statistics_truncate_length(Some(64))
        .set_column_index_truncate_length(Some(64));
    let payload_compression = Compression::ZSTD(ZstdLevel::try_new(PAYLOAD_ZSTD_LEVEL)?);
    let span = |path: &[&str]| {
        let parts = ["spans", "list", "element"].iter().chain(path).map(|part| (*part).to_owned());
        ColumnPath::new(parts.collect())
    };
    let trace_id = ColumnPath::new(vec!["trace_id".to_owned()]);
    for path in [
        span(&["inputs"]),
        span(&["outputs"]),
        span(&["metadata", "key_value", "value"]),
        span(&["events", "list", "element", "attributes", "key_value", "value"]),
        span(&["otlp"]),
    ] {
        properties = properties
            .set_column_compression(path.clone(), payload_compression)
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_statistics_enabled(path.clone(), EnabledStatistics::None)
            .set_column_data_page_size_limit(path, PAYLOAD_PAGE_BYTES);
    }
    for path in [span(&["span_id"]), span(&["parent_span_id"]), trace_id.clone()] {
        properties = properties.set_column_dictionary_enabled(path, false);
    }
    for name in ["start_time", "end_time", "start_time_unix_nano", "end_time_unix_nano"] {
        properties = properties
            .set_column_dictionary_enabled(span(&[name]), false)
            .set_column_encoding(span(&[name]), Encoding::DELTA_BINARY_PACKED);
    }
    Ok(properties
        .set_column_bloom_filter_enabled(trace_id.clone(), true)
        .set_column_bloom_filter_max_ndv(trace_id, ROW_GROUP_ROWS as u64)
        .build())
}
