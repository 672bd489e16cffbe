//! `tracelake traces`, `errors`, `performance` and `sql`: questions to the tables.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use tracelake_lake::Lake;
use tracelake_model::{Clock, SystemClock, TableName};
use tracelake_present::{OutputFormat, RenderOptions, render};
use tracelake_query::analyses::{self, Analysis, TimeRange};
use tracelake_query::{
    LakeTables, QueryEngine, QueryError, QueryLimits, QueryOptions, QueryOutput,
};

use super::time::Instant;
use crate::archive::data_folder;
use crate::config::{Overrides, Settings};
use crate::control::ServerFile;
use crate::uncommitted::RunningService;

/// Which ready-made analysis.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Traces,
    Errors,
    Performance,
}

/// Shows archived traces: the list, what failed, or what is slow; newest first.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tracelake traces production.monitoring.agent_traces --since 7d\n  tracelake errors --format jsonl\n  tracelake performance --since 2026-11-22 --until 2026-11-23 --limit 100"
)]
pub(crate) struct AnalysisArgs {
    /// The table [default: tracelake.default.traces, or the setting]
    #[arg(env = "TRACELAKE_DEFAULT_TABLE", value_name = "CATALOG.SCHEMA.TABLE")]
    table: Option<TableName>,
    /// Archived at or after this time: 24h, 7d, 2026-11-22, 2026-11-22T10:00:00Z
    #[arg(long, default_value = "24h", value_name = "TIME")]
    since: Instant,
    /// Archived at or before this time
    #[arg(long, default_value = "now", value_name = "TIME")]
    until: Instant,
    /// Rows at the most [default: 100 on a terminal, all otherwise]
    #[arg(long, value_name = "ROWS")]
    limit: Option<u64>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs one read-only SQL statement over the tables.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tracelake sql \"SELECT count(*) FROM tracelake.default.traces\"\n  tracelake sql --explain \"SELECT count(*) FROM traces WHERE array_any_match(spans, s -> s['status'] = 'ERROR')\"\n  tracelake sql --format csv \"SELECT trace_id, s['name'] FROM (SELECT trace_id, unnest(spans) s FROM traces)\""
)]
pub(crate) struct SqlArgs {
    /// The statement; `traces` is the default table
    statement: String,
    /// Run it and say how: leaves read, plan with metrics, share of the table's bytes
    #[arg(long)]
    explain: bool,
    /// The table that the bare name `traces` stands for [default: tracelake.default.traces]
    #[arg(long, env = "TRACELAKE_DEFAULT_TABLE", value_name = "CATALOG.SCHEMA.TABLE")]
    table: Option<TableName>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, clap::Args)]
struct OutputArgs {
    /// How to print the rows
    #[arg(long, default_value = "table", value_enum)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For reading
    Table,
    /// One JSON array
    Json,
    /// One JSON object a line
    Jsonl,
    /// Comma-separated values
    Csv,
}

impl From<Format> for OutputFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Table => Self::Table,
            Format::Json => Self::Json,
            Format::Jsonl => Self::Jsonl,
            Format::Csv => Self::Csv,
        }
    }
}

/// Rows that fit on a terminal without being asked for more.
const TERMINAL_ROWS: u64 = 100;

pub(crate) async fn analysis(
    data_dir: &Path,
    kind: Kind,
    args: &AnalysisArgs,
) -> anyhow::Result<()> {
    let table = default_table(args.table.as_ref())?;
    let now = SystemClock.now_unix_micro();
    let range = TimeRange {
        since_micros: Some(args.since.to_micros(now)),
        until_micros: (args.until != Instant::Now).then(|| args.until.to_micros(now)),
    };
    let on_terminal = std::io::stdout().is_terminal() && args.output.format == Format::Table;
    let limit = args.limit.or_else(|| on_terminal.then_some(TERMINAL_ROWS));
    let Analysis { sql, .. } = match kind {
        Kind::Traces => analyses::traces(&table, range, limit),
        Kind::Errors => analyses::errors(&table, range, limit),
        Kind::Performance => analyses::performance(&table, range, limit),
    };
    let output =
        engine(data_dir)?.query(&sql, &QueryOptions::default()).await.map_err(with_hint)?;
    print(&output, &args.output)
}

pub(crate) async fn sql(data_dir: &Path, args: &SqlArgs) -> anyhow::Result<()> {
    let table = default_table(args.table.as_ref())?;
    let options = QueryOptions { default_table: Some(table), max_rows: None };
    let engine = engine(data_dir)?;
    if args.explain {
        let text = engine.explain(&args.statement, &options).await.map_err(with_hint)?;
        writeln!(std::io::stdout().lock(), "{}", text.trim_end())?;
        return Ok(());
    }
    let output = engine.query(&args.statement, &options).await.map_err(with_hint)?;
    print(&output, &args.output)
}

/// The table named, or the one that the settings name for experiments without a binding.
pub(super) fn default_table(named: Option<&TableName>) -> anyhow::Result<TableName> {
    match named {
        Some(table) => Ok(table.clone()),
        None => Ok(Settings::load(None, Overrides::default())?.default_table),
    }
}

fn engine(data_dir: &Path) -> anyhow::Result<QueryEngine> {
    let folder = data_folder(data_dir)?;
    anyhow::ensure!(
        folder.root().try_exists()?,
        "no data folder at `{}`\nhint: name it with --data-dir, or start `tracelake serve`",
        folder.root().display()
    );
    let service = ServerFile::running(&folder.server_file());
    let mut tables = LakeTables::new(Lake::new()?, folder);
    if let Some(service) = service {
        tables = tables.with_pending(Arc::new(RunningService(service)));
    }
    QueryEngine::new(Arc::new(tables), QueryLimits::default()).map_err(with_hint)
}

fn print(output: &QueryOutput, args: &OutputArgs) -> anyhow::Result<()> {
    let stdout = std::io::stdout();
    let options = RenderOptions {
        width: stdout.is_terminal().then(terminal_width).flatten(),
        ..RenderOptions::default()
    };
    let mut out = std::io::BufWriter::new(stdout.lock());
    render(&output.schema, &output.batches, args.format.into(), &mut out, &options)?;
    out.flush().context("write to standard output")
}

/// `COLUMNS` when set, the terminal's own width otherwise.
fn terminal_width() -> Option<usize> {
    std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok())
}

fn with_hint(error: QueryError) -> anyhow::Error {
    match error.hint() {
        Some(hint) => anyhow::anyhow!("{error}\nhint: {hint}"),
        None => anyhow::anyhow!("{error}"),
    }
}
