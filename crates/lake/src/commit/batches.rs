//! Rows as amendments rearrange them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, StringArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;

use crate::rows::conform;

/// The number of a row that was read: memory holds fewer than 2^32.
pub(super) fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// The columns of `old` that are not among `ours`.
pub(super) fn without_ours(
    old: &RecordBatch,
    ours: &RecordBatch,
) -> Result<RecordBatch, ArrowError> {
    let schema = old.schema();
    let is_other = |index: &usize| ours.column_by_name(schema.field(*index).name()).is_none();
    old.project(&(0..old.num_columns()).filter(is_other).collect::<Vec<_>>())
}

/// Some rows of a batch.
pub(super) fn take_rows(batch: &RecordBatch, rows: &[u32]) -> Result<RecordBatch, ArrowError> {
    if rows.len() == batch.num_rows() && rows.iter().copied().eq(0..number(rows.len())) {
        // A large row is not copied.
        return Ok(batch.clone());
    }
    if batch.num_columns() == 0 {
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        return RecordBatch::try_new_with_options(batch.schema(), Vec::new(), &options);
    }
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
