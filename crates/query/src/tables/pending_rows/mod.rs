//! Scans pending rows from memory, in the form that a table declares.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, ListArray, RecordBatch, RecordBatchOptions, StructArray, UInt64Array,
    new_null_array,
};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Fields, SchemaRef};
use arrow::error::ArrowError;
use datafusion::common::Result;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_plan::ExecutionPlan;

/// A scan of `batches` in the form of `schema`, or `None` if there are no rows.
///
/// `schema` is the declared one after projection; nothing but its leaves is handed on. No batch
/// has more than `batch_rows` rows.
pub(crate) fn pending_scan(
    batches: &[RecordBatch],
    schema: &SchemaRef,
    limit: Option<usize>,
    batch_rows: usize,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let mut pending = Vec::with_capacity(batches.len());
    for batch in batches.iter().filter(|batch| 0 < batch.num_rows()) {
        cut(conform(batch, schema)?, batch_rows.max(1), &mut pending)?;
    }
    if pending.is_empty() {
        return Ok(None);
    }
    let source =
        MemorySourceConfig::try_new(&[pending], Arc::clone(schema), None)?.with_limit(limit);
    Ok(Some(DataSourceExec::from_data_source(source)))
}

/// Copies a long batch into pieces. Slices would do, but each of them counts as the whole batch
/// wherever memory is limited, because it keeps the whole batch's buffers.
fn cut(batch: RecordBatch, batch_rows: usize, pieces: &mut Vec<RecordBatch>) -> Result<()> {
    if batch.num_rows() <= batch_rows {
        pieces.push(batch);
        return Ok(());
    }
    for start in (0..batch.num_rows()).step_by(batch_rows) {
        let piece = batch.slice(start, batch_rows.min(batch.num_rows() - start));
        let rows = UInt64Array::from_iter_values((0_u64..).take(piece.num_rows()));
        pieces.push(take_record_batch(&piece, &rows)?);
    }
    Ok(())
}

/// `batch` with the columns of `schema`, by name at every level: missing ones are null, others are
/// left out, other forms of the same values are cast.
fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = schema
        .fields()
        .iter()
        .map(|field| match batch.column_by_name(field.name()) {
            Some(column) => conform_array(column, field.data_type()),
            None => Ok(new_null_array(field.data_type(), batch.num_rows())),
        })
        .collect::<Result<_, _>>()?;
    // Said apart from the columns, of which `count(*)` has none.
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

fn conform_array(column: &ArrayRef, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
    if column.data_type() == data_type {
        return Ok(Arc::clone(column));
    }
    match (column.data_type(), data_type) {
        (DataType::Struct(_), DataType::Struct(fields)) => {
            let from = column.as_struct();
            let children = conform_children(from, fields)?;
            let nulls = from.nulls().cloned();
            Ok(Arc::new(StructArray::try_new_with_length(
                fields.clone(),
                children,
                nulls,
                from.len(),
            )?))
        }
        (DataType::List(_), DataType::List(element)) => {
            let from = column.as_list::<i32>();
            let values = conform_array(from.values(), element.data_type())?;
            Ok(Arc::new(ListArray::try_new(
                Arc::clone(element),
                from.offsets().clone(),
                values,
                from.nulls().cloned(),
            )?))
        }
        _ => cast(column, data_type),
    }
}

fn conform_children(from: &StructArray, fields: &Fields) -> Result<Vec<ArrayRef>, ArrowError> {
    fields
        .iter()
        .map(|field| match from.column_by_name(field.name()) {
            Some(column) => conform_array(column, field.data_type()),
            None => Ok(new_null_array(field.data_type(), from.len())),
        })
        .collect()
}

#[cfg(test)]
mod tests;
