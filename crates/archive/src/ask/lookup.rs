//! One trace by its id, wherever it is archived or on its way to.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray as _, ListArray, RecordBatch};
use arrow::buffer::OffsetBuffer;
use arrow::compute::concat;
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use arrow::error::ArrowError;
use tracelake_lake::{DataFolder, Lake};
use tracelake_model::names::printable;
use tracelake_model::{TableName, TraceId};
use tracelake_query::{
    LakeTables, QueryEngine, QueryError, QueryOptions, QueryOutput, TableResolver as _,
};
use tracelake_registry::Registry;

use crate::ask::engine::with_hint;
use crate::fault::{Fault, FaultKind};

/// A trace and where it was found.
#[derive(Debug)]
pub struct Found {
    /// The table that has it.
    pub table: TableName,
    /// Its row.
    pub output: QueryOutput,
}

/// The id in any of the ways in which people copy it.
///
/// # Errors
/// [`FaultKind::InvalidParameterValue`] for what is no id.
pub fn parse_trace_id(text: &str) -> Result<TraceId, Fault> {
    let lower = text.trim().to_ascii_lowercase();
    TraceId::parse(&lower).ok_or_else(|| {
        let message = format!("`{}` is not a trace id", printable(text));
        Fault::new(FaultKind::InvalidParameterValue, message)
            .with_hint("write 32 hex digits, with or without tr- before them")
    })
}

/// Bytes of spans up to which the parts of a trace are gathered, as in MLflow's answers.
const TRACE_BYTES: i64 = 32 << 20;

/// Table names quote themselves, and an id is nothing but hex digits.
fn trace_sql(columns: &str, table: &TableName, trace_id: TraceId, parts: &str) -> String {
    let id = trace_id.to_mlflow();
    format!("SELECT {columns} FROM {} WHERE trace_id = '{id}' AND {parts}", table.to_sql())
}

/// Every table that there is or that traces are on their way to, the default one first.
///
/// # Errors
/// When the registry cannot be read.
pub async fn known_tables(
    folder: &DataFolder,
    default_table: TableName,
    registry: Option<&Registry>,
) -> anyhow::Result<Vec<TableName>> {
    let mut tables = vec![default_table];
    let mut add = |name: TableName| {
        if !tables.contains(&name) {
            tables.push(name);
        }
    };
    if let Some(registry) = registry {
        registry.tables().await?.into_iter().for_each(|table| add(table.name));
    }
    LakeTables::new(Lake::new()?, folder.clone()).names().into_iter().for_each(add);
    Ok(tables)
}

/// The trace in the first of `tables` that has it. A table that is not there is only an error when
/// it is the one that was asked for, and one that cannot be read only when no other one has the
/// trace.
///
/// A trace in several rows is one row with the spans of the others, as many as there is room for; its
/// `span_count` tells how many there are.
///
/// `columns` are select lists in the order of preference: a table of another writer may lack what
/// an earlier one names.
///
/// # Errors
/// [`FaultKind::TraceNotFound`], or why a table could not be asked.
pub async fn find_trace(
    engine: &QueryEngine,
    trace_id: TraceId,
    tables: &[TableName],
    columns: &[&str],
) -> anyhow::Result<Found> {
    let mut failed = None;
    for table in tables {
        match query(engine, trace_id, table, columns).await {
            Ok(output) if output.batches.is_empty() => {}
            Ok(output) => return Ok(Found { table: table.clone(), output }),
            Err(QueryError::UnknownTable { .. }) if 1 < tables.len() => {}
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    Err(failed.map_or_else(|| not_found(trace_id, tables).into(), with_hint))
}

async fn query(
    engine: &QueryEngine,
    trace_id: TraceId,
    table: &TableName,
    columns: &[&str],
) -> Result<QueryOutput, QueryError> {
    let mut lists = columns.iter().peekable();
    loop {
        let list = lists.next().copied().unwrap_or("*");
        let sql = trace_sql(list, table, trace_id, "part IS NULL");
        match engine.query(&sql, &QueryOptions::default()).await {
            Err(QueryError::UnknownColumn { .. } | QueryError::Plan { .. })
                if lists.peek().is_some() => {}
            Err(error) => return Err(error),
            Ok(output) => {
                let bytes_scanned = output.metrics.bytes_scanned;
                tracing::debug!(%table, bytes_scanned, "looked for the trace");
                return with_parts(engine, trace_id, table, list, output).await;
            }
        }
    }
}

/// `head` with the spans of the trace's parts.
async fn with_parts(
    engine: &QueryEngine,
    trace_id: TraceId,
    table: &TableName,
    list: &str,
    mut head: QueryOutput,
) -> Result<QueryOutput, QueryError> {
    let [row] = head.batches.as_slice() else { return Ok(head) };
    if row.num_rows() != 1 || !has_parts(row) {
        return Ok(head);
    }
    let options = QueryOptions::default();
    let sizes = trace_sql("part, spans_bytes", table, trace_id, "part IS NOT NULL ORDER BY part");
    let last = last_within(&engine.query(&sizes, &options).await?.batches, TRACE_BYTES);
    let Some(last) = last else { return Ok(head) };
    let parts = trace_sql(list, table, trace_id, &format!("part <= {last} ORDER BY part"));
    let parts = engine.query(&parts, &options).await?.batches;
    let whole = with_spans_of(row, &parts);
    head.batches = vec![
        whole
            .map_err(|source: ArrowError| QueryError::Execution { message: source.to_string() })?,
    ];
    Ok(head)
}

/// True when the trace has more spans than its row.
fn has_parts(row: &RecordBatch) -> bool {
    let count = row.column_by_name("span_count");
    let count = count.and_then(|column| column.as_primitive_opt::<Int32Type>());
    let spans = row.column_by_name("spans").and_then(|column| column.as_list_opt::<i32>());
    let (Some(count), Some(spans)) = (count, spans) else { return false };
    count.is_valid(0) && spans.is_valid(0) && spans.value_length(0) < count.value(0)
}

/// The last part up to which there are no more than `bytes`; `parts` ascend.
fn last_within(parts: &[RecordBatch], bytes: i64) -> Option<i32> {
    let mut last = None;
    let mut sum = 0_i64;
    for batch in parts {
        let number = batch.column_by_name("part")?.as_primitive_opt::<Int32Type>()?;
        let size = batch.column_by_name("spans_bytes")?.as_primitive_opt::<Int64Type>()?;
        for row in 0..batch.num_rows() {
            sum = sum.saturating_add(size.value(row));
            if bytes < sum {
                return last;
            }
            last = Some(number.value(row));
        }
    }
    last
}

/// The row with the spans of `parts` behind its own.
fn with_spans_of(row: &RecordBatch, parts: &[RecordBatch]) -> Result<RecordBatch, ArrowError> {
    let (place, field) = row.schema_ref().column_with_name("spans").ok_or_else(no_spans)?;
    let mut spans: Vec<ArrayRef> = Vec::new();
    for batch in std::iter::once(row).chain(parts) {
        let column = batch.column_by_name(field.name()).ok_or_else(no_spans)?;
        let list: &ListArray = column.as_list_opt::<i32>().ok_or_else(no_spans)?;
        spans.extend((0..list.len()).filter(|row| list.is_valid(*row)).map(|row| list.value(row)));
    }
    let spans: Vec<&dyn Array> = spans.iter().map(AsRef::as_ref).collect();
    let spans = concat(&spans)?;
    let DataType::List(element) = field.data_type() else {
        return Err(no_spans());
    };
    let offsets = OffsetBuffer::from_lengths([spans.len()]);
    let list = ListArray::try_new(Arc::clone(element), offsets, spans, None)?;
    let mut columns = row.columns().to_vec();
    if let Some(column) = columns.get_mut(place) {
        *column = Arc::new(list);
    }
    RecordBatch::try_new(row.schema(), columns)
}

fn no_spans() -> ArrowError {
    ArrowError::SchemaError("no list of spans".to_owned())
}

fn not_found(trace_id: TraceId, tables: &[TableName]) -> Fault {
    let names: Vec<String> = tables.iter().map(|table| format!("`{table}`")).collect();
    let message = format!("no trace `{}` in {}", trace_id.to_mlflow(), names.join(", "));
    Fault::new(FaultKind::TraceNotFound, message).with_hint(
        "`tracelake traces --since 30d` lists what is archived; a trace just sent is seen beside \
         the running service, or after `tracelake flush`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: an id with and without its prefix, in upper case, with space around, and text
    /// that is none.
    /// Guarantees: the same trace each time; the rest is refused, without control codes.
    #[test]
    fn ids_are_read_however_they_are_copied() {
        let id = "0123456789abcdef0123456789abcdef";
        let expected = format!("tr-{id}");
        for text in [id.to_owned(), expected.clone(), expected.to_uppercase(), format!(" {id}\n")] {
            assert_eq!(parse_trace_id(&text).unwrap().to_mlflow(), expected);
        }
        for text in ["", "tr-", "tr-01' OR 1=1 --", "\u{1b}[31m", "tr-tr-0123456789abcdef"] {
            let error = parse_trace_id(text).unwrap_err().to_string();
            assert!(error.contains("is not a trace id\nhint: "), "{error}");
            assert!(!error.contains('\u{1b}'), "{error}");
        }
    }
}
