//! `tracelake show`: one trace, as a tree of its spans.

use std::path::Path;

use arrow::array::RecordBatch;
use tracelake_archive::ask::engine::{default_table, engine};
use tracelake_archive::ask::lookup::{Found, find_trace, known_tables, parse_trace_id};
use tracelake_archive::folder::{data_folder, open_registry};
use tracelake_model::{ExperimentId, TableName};
use tracelake_present::{TraceContext, needed_span_fields, needed_trace_columns, render_trace};
use tracelake_registry::Registry;

use crate::output::{Format, OutputArgs, print, print_text};

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

pub(crate) async fn run(data_dir: &Path, args: &ShowArgs) -> anyhow::Result<()> {
    args.output.check()?;
    let trace_id = parse_trace_id(&args.trace_id)?;
    let engine = engine(data_dir)?;
    let folder = data_folder(data_dir)?;
    let registry = open_registry(&folder).await?;
    let tables = match &args.table {
        Some(table) => vec![table.clone()],
        None => known_tables(&folder, default_table(None)?, registry.as_ref()).await?,
    };
    let needed = needed_columns(args.full);
    // The leaves that are shown, or all of them for programs.
    let columns: &[&str] =
        if args.output.format == Format::Table { &[&needed, "*"] } else { &["*"] };
    let shown = match find_trace(&engine, trace_id, &tables, columns).await {
        Ok(found) => show(&found, registry.as_ref(), args).await,
        Err(error) => Err(error),
    };
    if let Some(registry) = registry {
        registry.close().await;
    }
    shown
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
