//! Rows as amendments rearrange them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;

use crate::rows::conform;

/// Some rows of a batch.
pub(super) fn take_rows(batch: &RecordBatch, rows: &[u32]) -> Result<RecordBatch, ArrowError> {
    let indexes = UInt32Array::from(rows.to_vec());
    let columns = batch
        .columns()
        .iter()
        .map(|column| take(column, &indexes, None))
        .collect::<Result<Vec<ArrayRef>, _>>()?;
    RecordBatch::try_new(batch.schema(), columns)
}

/// `ours` in the table's schema: columns that are not ours keep the old rows' values.
pub(super) fn with_other_columns(
    ours: &RecordBatch,
    old: &RecordBatch,
    schema: &SchemaRef,
) -> Result<RecordBatch, ArrowError> {
    let mut columns: Vec<ArrayRef> = ours.columns().to_vec();
    let mut fields: Vec<Arc<Field>> = ours.schema().fields().iter().cloned().collect();
    for (field, column) in old.schema().fields().iter().zip(old.columns()) {
        if ours.column_by_name(field.name()).is_none() {
            fields.push(Arc::clone(field));
            columns.push(Arc::clone(column));
        }
    }
    let whole = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
    conform(&whole, schema)
}

/// A batch as change data has it.
pub(super) fn with_change_type(
    batch: &RecordBatch,
    change: &str,
) -> Result<RecordBatch, ArrowError> {
    let mut fields: Vec<Arc<Field>> = batch.schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("_change_type", DataType::Utf8, true)));
    let mut columns = batch.columns().to_vec();
    columns.push(Arc::new(StringArray::from(vec![change; batch.num_rows()])) as Arc<dyn Array>);
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}
