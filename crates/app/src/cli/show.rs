//! `tracelake show`: one trace, as a tree of its spans.

use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use tracelake_lake::Lake;
use tracelake_model::names::printable;
use tracelake_model::{ExperimentId, SystemClock, TableName, TraceId};
use tracelake_present::{TraceContext, needed_span_fields, needed_trace_columns, render_trace};
use tracelake_query::{
    LakeTables, QueryEngine, QueryError, QueryOptions, QueryOutput, TableResolver as _,
};
use tracelake_registry::{REGISTRY_FILE, Registry};

use super::output::{Format, OutputArgs, print, print_text};
use crate::archive::data_folder;
use crate::engine::{default_table, engine, with_hint};

/// Shows one trace: what it is, and its spans as a tree with bars of time.
///
/// Looks into the default table first and then into all others, at what is archived and, beside
/// a running service, at what is on its way. Inputs and outputs are cut to one line each.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tracelake show tr-0123456789abcdef0123456789abcdef\n  tracelake show fedcba9876543210fedcba9876543210 production.monitoring.agent_traces --full\n  tracelake show tr-0123456789abcdef0123456789abcdef --format json | jq '.[0].spans[].name'"
)]
pub(crate) struct ShowArgs {
    /// The trace: 32 hex digits, with or without tr- before them
    #[arg(value_name = "TRACE_ID")]
    trace_id: String,
    /// The only table to look into
    #[arg(value_name = "CATALOG.SCHEMA.TABLE")]
    table: Option<TableName>,
    /// Show all text uncut, and attributes, resource, events and links
    #[arg(long)]
    full: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// A trace and where it was found.
struct Found {
    table: TableName,
    output: QueryOutput,
}

pub(crate) async fn run(data_dir: &Path, args: &ShowArgs) -> anyhow::Result<()> {
    args.output.check()?;
    let trace_id = parse_trace_id(&args.trace_id)?;
    let engine = engine(data_dir)?;
    let registry = open_registry(data_dir).await?;
    let tables = match &args.table {
        Some(table) => vec![table.clone()],
        None => known_tables(data_dir, registry.as_ref()).await?,
    };
    let found = find(&engine, trace_id, &tables, args).await;
    let shown = match &found {
        Ok(Some(found)) => show(found, registry.as_ref(), args).await,
        _ => Ok(()),
    };
    if let Some(registry) = registry {
        registry.close().await;
    }
    shown?;
    anyhow::ensure!(found?.is_some(), not_found(trace_id, &tables));
    Ok(())
}

/// The id in any of the ways in which people copy it.
fn parse_trace_id(text: &str) -> anyhow::Result<TraceId> {
    let lower = text.trim().to_ascii_lowercase();
    TraceId::parse(&lower).ok_or_else(|| {
        anyhow::anyhow!(
            "`{}` is not a trace id\nhint: write 32 hex digits, with or without tr- before them",
            printable(text)
        )
    })
}

/// The registry, if the folder has one. A question must not make one.
async fn open_registry(data_dir: &Path) -> anyhow::Result<Option<Registry>> {
    let folder = data_folder(data_dir)?;
    if !folder.root().join(REGISTRY_FILE).try_exists()? {
        return Ok(None);
    }
    Ok(Some(Registry::open(folder.root(), Arc::new(SystemClock)).await?))
}

/// Every table that there is or that traces are on their way to, the default one first.
async fn known_tables(
    data_dir: &Path,
    registry: Option<&Registry>,
) -> anyhow::Result<Vec<TableName>> {
    let mut tables = vec![default_table(None)?];
    let mut add = |name: TableName| {
        if !tables.contains(&name) {
            tables.push(name);
        }
    };
    if let Some(registry) = registry {
        registry.tables().await?.into_iter().for_each(|table| add(table.name));
    }
    LakeTables::new(Lake::new()?, data_folder(data_dir)?).names().into_iter().for_each(add);
    Ok(tables)
}

/// The trace in the first of `tables` that has it. A table that cannot be read is only an error
/// when no other one has the trace.
async fn find(
    engine: &QueryEngine,
    trace_id: TraceId,
    tables: &[TableName],
    args: &ShowArgs,
) -> anyhow::Result<Option<Found>> {
    let mut failed = None;
    for table in tables {
        match query(engine, trace_id, table, args).await {
            Ok(output) if output.batches.is_empty() => {}
            Ok(output) => return Ok(Some(Found { table: table.clone(), output })),
            Err(QueryError::UnknownTable { .. }) if args.table.is_none() => {}
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(None), |error| Err(with_hint(error)))
}

/// Reads the leaves that are shown, or all of them for programs.
async fn query(
    engine: &QueryEngine,
    trace_id: TraceId,
    table: &TableName,
    args: &ShowArgs,
) -> Result<QueryOutput, QueryError> {
    let whole = trace_sql("*", table, trace_id);
    let options = QueryOptions::default();
    if args.output.format != Format::Table {
        return engine.query(&whole, &options).await;
    }
    let needed = trace_sql(&needed_columns(args.full), table, trace_id);
    let answer = match engine.query(&needed, &options).await {
        // A table of another writer may lack columns.
        Err(QueryError::UnknownColumn { .. } | QueryError::Plan { .. }) => {
            engine.query(&whole, &options).await
        }
        answer => answer,
    }?;
    tracing::debug!(%table, bytes_scanned = answer.metrics.bytes_scanned, "looked for the trace");
    Ok(answer)
}

fn needed_columns(full: bool) -> String {
    let mut columns = needed_trace_columns(full).join(", ");
    let fields: Vec<String> = needed_span_fields(full)
        .into_iter()
        .map(|field| format!("'{field}', s['{field}']"))
        .collect();
    let spans =
        format!(", array_transform(spans, s -> named_struct({})) AS spans", fields.join(", "));
    columns.push_str(&spans);
    columns
}

/// Table names quote themselves, and an id is nothing but hex digits.
fn trace_sql(columns: &str, table: &TableName, trace_id: TraceId) -> String {
    let id = trace_id.to_mlflow();
    format!("SELECT {columns} FROM {} WHERE trace_id = '{id}'", table.to_sql())
}

async fn show(found: &Found, registry: Option<&Registry>, args: &ShowArgs) -> anyhow::Result<()> {
    if args.output.format != Format::Table {
        return print(&found.output.schema, &found.output.batches, &args.output);
    }
    let mut named = Vec::new();
    for batch in &found.output.batches {
        let context = TraceContext {
            table: found.table.to_string(),
            experiment_name: experiment_name(batch, registry).await,
            full: args.full,
        };
        named.push((batch, context));
    }
    print_text(&args.output, &mut |out, options| {
        for (number, (batch, context)) in named.iter().enumerate() {
            for row in 0..batch.num_rows() {
                // Two archivers may each have a part of a trace until the next amendment.
                if 0 < number + row {
                    writeln!(out)?;
                }
                render_trace(batch, row, context, out, options)?;
            }
        }
        Ok(())
    })
}

/// The name of the experiment that the trace belongs to, if the registry knows it.
async fn experiment_name(batch: &RecordBatch, registry: Option<&Registry>) -> Option<String> {
    use arrow::array::{Array as _, AsArray as _};

    let ids = batch.column_by_name("experiment_id")?.as_string_opt::<i32>()?;
    let id: ExperimentId = ids.is_valid(0).then(|| ids.value(0))?.parse().ok()?;
    registry?.experiment(&id).await.ok().map(|experiment| experiment.name)
}

fn not_found(trace_id: TraceId, tables: &[TableName]) -> String {
    let names: Vec<String> = tables.iter().map(|table| format!("`{table}`")).collect();
    format!(
        "no trace `{}` in {}\nhint: `tracelake traces --since 30d` lists what is archived; a trace \
         just sent is seen beside the running service, or after `tracelake flush`",
        trace_id.to_mlflow(),
        names.join(", ")
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
