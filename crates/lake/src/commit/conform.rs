//! Batches of older or other writers, made to fit the table's schema.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, StructArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Fields, SchemaRef};
use arrow::error::ArrowError;

/// `batch` with the columns of `schema`, by name at every level: missing ones are null, others are
/// left out, types are cast where an engine stores the same values in another form.
pub(crate) fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = conform_fields(&StructArray::from(batch.clone()), schema.fields())?;
    RecordBatch::try_new(Arc::clone(schema), columns)
}

fn conform_fields(from: &StructArray, fields: &Fields) -> Result<Vec<ArrayRef>, ArrowError> {
    fields
        .iter()
        .map(|field| match from.column_by_name(field.name()) {
            None => Ok(new_null_array(field.data_type(), from.len())),
            Some(column) => conform_array(column, field.data_type()),
        })
        .collect()
}

fn conform_array(column: &ArrayRef, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
    if column.data_type() == data_type {
        return Ok(Arc::clone(column));
    }
    match (column.data_type(), data_type) {
        (DataType::Struct(_), DataType::Struct(fields)) => {
            let from = column.as_struct();
            let children = conform_fields(from, fields)?;
            Ok(Arc::new(StructArray::try_new(fields.clone(), children, from.nulls().cloned())?))
        }
        (DataType::List(_), DataType::List(child)) => {
            let from = column.as_list::<i32>();
            let values = conform_array(from.values(), child.data_type())?;
            Ok(Arc::new(ListArray::try_new(
                Arc::clone(child),
                from.offsets().clone(),
                values,
                from.nulls().cloned(),
            )?))
        }
        _ => cast(column, data_type),
    }
}
