//! One trace by its id, wherever it is archived or on its way to.

use tracelake_lake::{DataFolder, Lake};
use tracelake_model::names::printable;
use tracelake_model::{TableName, TraceId};
use tracelake_query::{
    LakeTables, QueryEngine, QueryError, QueryOptions, QueryOutput, TableResolver as _,
};
use tracelake_registry::Registry;

use crate::engine::with_hint;
use crate::fault::{Fault, FaultKind};

/// A trace and where it was found.
#[derive(Debug)]
pub(crate) struct Found {
    pub table: TableName,
    pub output: QueryOutput,
}

/// The id in any of the ways in which people copy it.
pub(crate) fn parse_trace_id(text: &str) -> Result<TraceId, Fault> {
    let lower = text.trim().to_ascii_lowercase();
    TraceId::parse(&lower).ok_or_else(|| {
        let message = format!("`{}` is not a trace id", printable(text));
        Fault::new(FaultKind::InvalidParameterValue, message)
            .with_hint("write 32 hex digits, with or without tr- before them")
    })
}

/// Table names quote themselves, and an id is nothing but hex digits.
fn trace_sql(columns: &str, table: &TableName, trace_id: TraceId) -> String {
    let id = trace_id.to_mlflow();
    format!("SELECT {columns} FROM {} WHERE trace_id = '{id}'", table.to_sql())
}

/// Every table that there is or that traces are on their way to, the default one first.
pub(crate) async fn known_tables(
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
/// `columns` are select lists in the order of preference: a table of another writer may lack what
/// an earlier one names.
pub(crate) async fn find_trace(
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
        let sql = trace_sql(list, table, trace_id);
        match engine.query(&sql, &QueryOptions::default()).await {
            Err(QueryError::UnknownColumn { .. } | QueryError::Plan { .. })
                if lists.peek().is_some() => {}
            answer => {
                if let Ok(QueryOutput { metrics, .. }) = &answer {
                    tracing::debug!(%table, metrics.bytes_scanned, "looked for the trace");
                }
                return answer;
            }
        }
    }
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
