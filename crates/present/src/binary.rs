//! Arrow and Parquet for programs.

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use crate::error::PresentError;

/// An Arrow IPC stream: the schema, then the batches.
pub(crate) fn write_arrow(
    schema: &Schema,
    batches: &[RecordBatch],
    out: &mut dyn Write,
) -> Result<(), PresentError> {
    let failed = |error| encode_error("arrow", error);
    let mut writer = StreamWriter::try_new(out, schema).map_err(failed)?;
    let schema = SchemaRef::new(schema.clone());
    for batch in batches {
        let batch = RecordBatch::try_new(SchemaRef::clone(&schema), batch.columns().to_vec());
        writer.write(&batch.map_err(failed)?).map_err(failed)?;
    }
    writer.finish().map_err(failed)
}

/// A Parquet file.
pub(crate) fn write_parquet(
    schema: &Schema,
    batches: &[RecordBatch],
    out: &mut dyn Write,
) -> Result<(), PresentError> {
    let failed = |error: ParquetError| encode_error("parquet", error.into());
    if let Some(field) = schema.fields().iter().find(|field| has_union(field.data_type())) {
        // The writer would panic.
        let text =
            format!("column `{}` has a union type, which Parquet does not have", field.name());
        return Err(encode_error("parquet", ArrowError::SchemaError(text)));
    }
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .build();
    let schema = SchemaRef::new(schema.clone());
    // The writer wants to own what it writes to; what it has written is handed on batch by batch.
    let mut writer = ArrowWriter::try_new(Vec::new(), SchemaRef::clone(&schema), Some(properties))
        .map_err(failed)?;
    for batch in batches {
        let batch = RecordBatch::try_new(SchemaRef::clone(&schema), batch.columns().to_vec())
            .map_err(|error| encode_error("parquet", error))?;
        writer.write(&batch).map_err(failed)?;
        out.write_all(&std::mem::take(writer.inner_mut()))?;
    }
    out.write_all(&writer.into_inner().map_err(failed)?)?;
    Ok(())
}

/// Whether there is a union anywhere in the type.
fn has_union(data_type: &DataType) -> bool {
    match data_type {
        DataType::Union(..) => true,
        DataType::Struct(fields) => fields.iter().any(|field| has_union(field.data_type())),
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _)
        | DataType::RunEndEncoded(_, field) => has_union(field.data_type()),
        DataType::Dictionary(_, value) => has_union(value),
        _ => false,
    }
}

/// A failure of `out` stays one: callers tell a closed pipe from a wrong type.
fn encode_error(format: &'static str, error: ArrowError) -> PresentError {
    match error {
        ArrowError::IoError(_, source) => PresentError::Write(source),
        source => PresentError::Encode { format, source },
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
    use arrow::datatypes::Field;
    use arrow::ipc::reader::StreamReader;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReader;

    use super::*;

    fn rows() -> (Schema, Vec<RecordBatch>) {
        let schema = Schema::new(vec![
            Field::new("text", DataType::Utf8, true),
            Field::new("number", DataType::Int64, false),
        ]);
        let batch = |texts: Vec<Option<&str>>, numbers: Vec<i64>| {
            let columns: Vec<ArrayRef> =
                vec![Arc::new(StringArray::from(texts)), Arc::new(Int64Array::from(numbers))];
            RecordBatch::try_new(Arc::new(schema.clone()), columns).unwrap()
        };
        let batches =
            vec![batch(vec![Some("a"), None], vec![i64::MAX, -1]), batch(vec![Some("")], vec![0])];
        (schema, batches)
    }

    /// Scenario: two batches with nulls, and no batch at all, in both formats.
    /// Guarantees: schema and rows read back equal.
    #[test]
    fn binary_formats_read_back() {
        let (schema, batches) = rows();
        for batches in [&batches[..], &[]] {
            let mut stream = Vec::new();
            write_arrow(&schema, batches, &mut stream).unwrap();
            let reader = StreamReader::try_new(Cursor::new(stream), None).unwrap();
            assert_eq!(reader.schema().as_ref(), &schema);
            let back: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
            assert_eq!(back, batches);

            let mut file = Vec::new();
            write_parquet(&schema, batches, &mut file).unwrap();
            let reader = ParquetRecordBatchReader::try_new(bytes::Bytes::from(file), 1024).unwrap();
            let numbers: Vec<i64> = reader
                .flat_map(|batch| {
                    let batch = batch.unwrap();
                    assert_eq!(batch.schema().as_ref(), &schema);
                    batch.column(1).as_primitive::<arrow::datatypes::Int64Type>().values().to_vec()
                })
                .collect();
            let expected: &[i64] = if batches.is_empty() { &[] } else { &[i64::MAX, -1, 0] };
            assert_eq!(numbers, expected);
        }
    }

    /// Scenario: a writer whose reader is gone; a type that cannot be encoded.
    /// Guarantees: the first is told as what it is, in both formats; the second names the format.
    #[test]
    fn a_closed_pipe_is_not_a_wrong_type() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let (schema, batches) = rows();
        for write in [write_arrow, write_parquet] {
            let error = write(&schema, &batches, &mut Closed).unwrap_err();
            let PresentError::Write(source) = &error else { panic!("{error:?}") };
            assert_eq!(source.kind(), std::io::ErrorKind::BrokenPipe);
        }
        let union = DataType::Union(
            [(0, Arc::new(Field::new("a", DataType::Int64, true)))].into_iter().collect(),
            arrow::datatypes::UnionMode::Sparse,
        );
        let odd = Schema::new(vec![Field::new("odd", union, true)]);
        let error = write_parquet(&odd, &[], &mut Vec::new()).unwrap_err();
        assert!(matches!(error, PresentError::Encode { format: "parquet", .. }), "{error:?}");
    }
}
