//! Data files: rows as Parquet, with the statistics that the log keeps of them.

mod encode;
mod format;
mod source;

use std::collections::HashSet;

use arrow::array::{Array, AsArray as _, RecordBatch, StructArray, new_null_array};
use arrow::datatypes::{DataType, Int32Type, Int64Type, Schema};
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
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use parquet::file::statistics::Statistics;

#[cfg(test)]
pub(crate) use encode::encode_file;
pub(crate) use encode::{Expected, encode_batches};
use source::Source;
pub(crate) use source::is_of_store;

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

/// What the log says of a Parquet file that was written.
#[derive(Debug)]
pub(crate) struct EncodedFile {
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
    let (file, noted) = Source::new(file);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)
        .map_err(|fault| noted.tell(fault))?;
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
    let at_a_time = if has_large_rows(builder.metadata()) { 1 } else { READ_ROWS };
    let reader = builder
        .with_row_selection(RowSelection::from(selectors))
        .with_batch_size(at_a_time)
        .build()
        .map_err(|fault| noted.tell(fault))?;
    Ok(reader.map(move |batch| batch.map_err(|fault| noted.tell(fault))))
}

/// True when some row of a file is large, by the bounds of its columns: then rows are read one at a time.
pub(crate) fn has_large_rows(metadata: &ParquetMetaData) -> bool {
    let columns = metadata.file_metadata().schema_descr().columns();
    let sizes = columns.iter().position(|column| column.path().string() == "spans_bytes");
    let Some(sizes) = sizes else { return false };
    metadata.row_groups().iter().any(|group| {
        let statistics = group.column(sizes).statistics();
        let nulls = statistics.and_then(Statistics::null_count_opt);
        nulls.and_then(|nulls| i64::try_from(nulls).ok()) != Some(group.num_rows())
    })
}

/// The rows of a data file that are parts of large traces.
pub(crate) fn read_parts(file: OpenedFile) -> Result<HashSet<u64>, ParquetError> {
    noting(file, parts_in)
}

/// Reads a file with `read`, and tells whether its store failed.
fn noting<T>(
    file: OpenedFile,
    read: impl FnOnce(Source) -> Result<T, ParquetError>,
) -> Result<T, ParquetError> {
    let (file, noted) = Source::new(file);
    read(file).map_err(|fault| noted.tell(fault))
}

fn parts_in(file: Source) -> Result<HashSet<u64>, ParquetError> {
    let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new())?;
    let mut parts = HashSet::new();
    if !has_large_rows(metadata.metadata()) {
        return Ok(parts);
    }
    let mask =
        ProjectionMask::columns(metadata.metadata().file_metadata().schema_descr(), ["part"]);
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata)
        .with_projection(mask)
        .with_batch_size(8192)
        .build()?;
    let mut row = 0_u64;
    for batch in reader {
        let batch = batch?;
        let Some(column) = batch.columns().first() else { return Ok(parts) };
        let column = arrow::compute::cast(column, &DataType::Int32)?;
        for part in column.as_primitive::<Int32Type>() {
            if part.is_some() {
                parts.insert(row);
            }
            row += 1;
        }
    }
    Ok(parts)
}

/// What a file says of a large row beside its contents.
#[derive(Debug)]
pub(crate) struct LargeRow<'a> {
    /// Row of the file.
    pub row: u64,
    /// Number of the part that it is of its trace.
    pub part: Option<i32>,
    /// Bytes of its spans.
    pub spans_bytes: usize,
    /// Digests of its spans.
    pub digests: &'a [u8],
}

/// The large ones among chosen rows of a data file, which ascend.
pub(crate) fn read_large_rows(
    file: OpenedFile,
    rows: &[u64],
    found: &mut dyn FnMut(LargeRow<'_>),
) -> Result<(), ParquetError> {
    noting(file, |file| large_rows_in(file, rows, found))
}

fn large_rows_in(
    file: Source,
    rows: &[u64],
    found: &mut dyn FnMut(LargeRow<'_>),
) -> Result<(), ParquetError> {
    /// Digests of a row take up to 1.6 MB.
    const AT_A_TIME: usize = 8;
    let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new())?;
    if !has_large_rows(metadata.metadata()) {
        return Ok(());
    }
    let names = ["part", "spans_bytes", "span_digests"];
    let mask = ProjectionMask::columns(metadata.metadata().file_metadata().schema_descr(), names);
    let total = usize::try_from(metadata.metadata().file_metadata().num_rows()).unwrap_or_default();
    let mut selectors = Vec::new();
    let mut next = 0;
    let index = |row: &u64| usize::try_from(*row).ok().filter(|row| *row < total);
    for row in rows.iter().filter_map(index) {
        selectors.push(RowSelector::skip(row - next));
        selectors.push(RowSelector::select(1));
        next = row + 1;
    }
    selectors.push(RowSelector::skip(total - next));
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata)
        .with_projection(mask)
        .with_row_selection(RowSelection::from(selectors))
        .with_batch_size(AT_A_TIME)
        .build()?;
    let mut left = rows.iter();
    for batch in reader {
        let batch = batch?;
        // Other engines that wrote the file anew may have chosen other forms of the same values.
        let column = |name: &str, form: DataType| {
            let column = batch.column_by_name(name);
            column.map_or_else(
                || Ok(new_null_array(&form, batch.num_rows())),
                |column| arrow::compute::cast(column, &form),
            )
        };
        let parts = column("part", DataType::Int32)?;
        let sizes = column("spans_bytes", DataType::Int64)?;
        let digests = column("span_digests", DataType::Binary)?;
        let parts = parts.as_primitive::<Int32Type>();
        let sizes = sizes.as_primitive::<Int64Type>();
        let digests = digests.as_binary::<i32>();
        for (at, row) in left.by_ref().take(batch.num_rows()).enumerate() {
            if sizes.is_null(at) || digests.is_null(at) {
                continue;
            }
            found(LargeRow {
                row: *row,
                part: parts.is_valid(at).then(|| parts.value(at)),
                spans_bytes: usize::try_from(sizes.value(at)).unwrap_or_default(),
                digests: digests.value(at),
            });
        }
    }
    Ok(())
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
    found: impl FnMut(u64, Option<&str>),
) -> Result<(), ParquetError> {
    noting(file, |file| text_column_in(file, name, found))
}

fn text_column_in(
    file: Source,
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, BinaryArray, Int32Array, Int64Array};
    use arrow::compute::cast;

    use super::*;

    /// Scenario: large rows in files whose columns have the forms that other engines choose.
    /// Guarantees: what is read is the same.
    #[test]
    fn large_rows_are_read_in_every_form() {
        let digests: ArrayRef =
            Arc::new(BinaryArray::from_opt_vec(vec![None, Some(b"0123456789abcdef"), Some(b"")]));
        let parts: ArrayRef = Arc::new(Int32Array::from(vec![None, Some(3), None]));
        let sizes: ArrayRef = Arc::new(Int64Array::from(vec![None, Some(9 << 20), Some(1)]));
        for (binary, number) in [
            (DataType::Binary, DataType::Int32),
            (DataType::LargeBinary, DataType::Int64),
            (DataType::BinaryView, DataType::Int32),
        ] {
            let batch = RecordBatch::try_from_iter([
                ("part", cast(&parts, &number).unwrap()),
                ("spans_bytes", Arc::clone(&sizes)),
                ("span_digests", cast(&digests, &binary).unwrap()),
            ])
            .unwrap();
            let mut file = tempfile::tempfile().unwrap();
            let mut writer =
                parquet::arrow::ArrowWriter::try_new(&mut file, batch.schema(), None).unwrap();
            writer.write(&batch).unwrap();
            writer.close().unwrap();
            let opened = || OpenedFile::Local(file.try_clone().unwrap());
            let mut found = Vec::new();
            read_large_rows(opened(), &[0, 1, 2], &mut |row| {
                found.push((row.row, row.part, row.spans_bytes, row.digests.to_vec()));
            })
            .unwrap();
            let expected =
                [(1, Some(3), 9 << 20, b"0123456789abcdef".to_vec()), (2, None, 1, Vec::new())];
            assert_eq!(found, expected, "{binary}");
            assert_eq!(read_parts(opened()).unwrap(), HashSet::from([1]), "{number}");
        }
    }
}
