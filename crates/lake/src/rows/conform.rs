//! Batches of older or other writers, made to fit a schema.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, ListArray, RecordBatch, RecordBatchOptions, StructArray,
    new_null_array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Fields, SchemaRef};
use arrow::error::ArrowError;

/// `batch` with the columns of `schema`, by name at every level: missing ones are null, others are
/// left out, other forms of the same values are cast.
///
/// # Errors
/// [`ArrowError`] for a value that the other type cannot hold, or a missing column that must not
/// be null.
pub fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
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
