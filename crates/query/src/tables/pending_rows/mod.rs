//! Scans pending rows from memory, in the form that a table declares.

use std::sync::Arc;

use arrow::array::{RecordBatch, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_plan::ExecutionPlan;
use tracelake_lake::rows::conform;

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

#[cfg(test)]
mod tests;
