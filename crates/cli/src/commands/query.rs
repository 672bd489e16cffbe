//! `tracelake traces`, `errors`, `performance` and `sql`: questions to the tables.

use std::path::Path;

use tracelake_archive::ask::engine::{default_table, engine, with_hint};
use tracelake_model::{Clock, SystemClock, TableName};
use tracelake_query::QueryOptions;
use tracelake_query::analyses::{Grouping, Question, TimeRange};

use crate::output::{OutputArgs, print, print_text};
use crate::time::Instant;

/// Shows archived traces, newest first.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tracelake traces production.monitoring.agent_traces --since 7d\n  tracelake traces --format jsonl"
)]
pub(crate) struct TracesArgs {
    #[command(flatten)]
    range: RangeArgs,
}

/// Shows what failed: trace by trace, newest first, or in groups.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tracelake errors --format jsonl\n  tracelake errors production.monitoring.agent_traces --group --since 7d"
)]
pub(crate) struct ErrorsArgs {
    /// One row for each message and exception type, those with most traces first
    #[arg(long)]
    group: bool,
    #[command(flatten)]
    range: RangeArgs,
}

/// Shows what is slow: trace by trace, newest first, or in groups.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tracelake performance --since 2026-11-22 --until 2026-11-23 --limit 100\n  tracelake performance production.monitoring.agent_traces --by model\n  tracelake performance --by hour --since 7d --format csv"
)]
pub(crate) struct PerformanceArgs {
    /// One row for each of these, most time first: errors, percentiles, tokens
    #[arg(long, value_enum, value_name = "GROUPING")]
    by: Option<By>,
    #[command(flatten)]
    range: RangeArgs,
}

/// What `performance --by` groups by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum By {
    /// Name of the spans
    SpanName,
    /// Type of the spans, such as LLM or TOOL
    SpanType,
    /// Model that answered; spans without one are left out
    Model,
    /// Experiment of the traces
    Experiment,
    /// Hour of the requests in UTC, newest first
    Hour,
}

impl From<By> for Grouping {
    fn from(by: By) -> Self {
        match by {
            By::SpanName => Self::SpanName,
            By::SpanType => Self::SpanType,
            By::Model => Self::Model,
            By::Experiment => Self::Experiment,
            By::Hour => Self::Hour,
        }
    }
}

// No doc comment: it would become the help of the commands that flatten this. They flatten it last:
// what follows would stand under the heading of the output.
#[derive(Debug, clap::Args)]
struct RangeArgs {
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
    after_help = "Examples:\n  tracelake sql \"SELECT count(*) FROM tracelake.default.traces WHERE part IS NULL\"\n  tracelake sql --explain \"SELECT count(DISTINCT trace_id) FROM traces WHERE array_any_match(spans, s -> s['status'] = 'ERROR')\"\n  tracelake sql --format csv \"SELECT trace_id, s['name'] FROM (SELECT trace_id, unnest(spans) s FROM traces)\""
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

/// Rows that fit on a terminal without being asked for more.
const TERMINAL_ROWS: u64 = 100;

pub(crate) async fn traces(data_dir: &Path, args: &TracesArgs) -> anyhow::Result<()> {
    answer(data_dir, &args.range, Question::Traces).await
}

pub(crate) async fn errors(data_dir: &Path, args: &ErrorsArgs) -> anyhow::Result<()> {
    let question = if args.group { Question::ErrorGroups } else { Question::Errors };
    answer(data_dir, &args.range, question).await
}

pub(crate) async fn performance(data_dir: &Path, args: &PerformanceArgs) -> anyhow::Result<()> {
    let question = args.by.map_or(Question::Performance, |by| Question::PerformanceBy(by.into()));
    answer(data_dir, &args.range, question).await
}

/// Asks `question` with the arguments and prints the rows.
async fn answer(data_dir: &Path, args: &RangeArgs, question: Question) -> anyhow::Result<()> {
    args.output.check()?;
    let table = default_table(args.table.as_ref())?;
    let now = SystemClock.now_unix_micro();
    let range = TimeRange {
        since_micros: Some(args.since.to_micros(now)),
        until_micros: (args.until != Instant::Now).then(|| args.until.to_micros(now)),
    };
    let limit = args.limit.or_else(|| args.output.for_a_person().then_some(TERMINAL_ROWS));
    let sql = question.analysis(&table, range, limit).sql;
    let output = engine(data_dir)?.query(&sql, &question.options()).await.map_err(with_hint)?;
    print(&output.schema, &output.batches, &args.output)
}

pub(crate) async fn sql(data_dir: &Path, args: &SqlArgs) -> anyhow::Result<()> {
    args.output.check()?;
    let table = default_table(args.table.as_ref())?;
    let options = QueryOptions { default_table: Some(table), ..QueryOptions::default() };
    let engine = engine(data_dir)?;
    if args.explain {
        let text = engine.explain(&args.statement, &options).await.map_err(with_hint)?;
        return print_text(&args.output, &mut |out, _| {
            writeln!(out, "{}", text.trim_end())?;
            Ok(())
        });
    }
    let output = engine.query(&args.statement, &options).await.map_err(with_hint)?;
    print(&output.schema, &output.batches, &args.output)
}
