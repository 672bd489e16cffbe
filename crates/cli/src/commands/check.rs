//! `tracelake check`: the validation checklist of a table.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use tracelake_archive::operate::check::{CheckRequest, Line, Verdict, check_table, units};
use tracelake_archive::settings::{Overrides, Settings};
use tracelake_model::TableName;
use tracelake_model::names::printable_lines;

use crate::output::{Format, OutputArgs, print, print_text};

/// Checks a table and the way to it, item by item, and says how to mend what is broken.
///
/// Looks at catalog, log, files, columns, comments, properties, bindings, service, disk and
/// journal; sends one small trace, reads it back from the table and deletes it again; asks the
/// query, error and performance patterns. Mends nothing. An item is `ok`, `note` (worth knowing),
/// `skipped` (with the reason) or `failed`; one failed item makes the exit code 1.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tracelake check production.monitoring.agent_traces\n  tracelake check production.monitoring.agent_traces --experiment /Shared/agent --no-write\n  tracelake check production.monitoring.agent_traces --format json | jq '.[] | select(.result == \"failed\")'\n\nExit codes:\n  0    no item failed\n  1    an item failed, or there is no data folder\n  2    wrong arguments"
)]
pub(crate) struct CheckArgs {
    /// The table
    #[arg(value_name = "CATALOG.SCHEMA.TABLE")]
    table: TableName,
    /// The MLflow experiment that should be archived there [default: those that are]
    #[arg(long, value_name = "NAME|ID")]
    experiment: Option<String>,
    /// Write no trace
    #[arg(long)]
    no_write: bool,
    /// Settings file [default: tracelake.toml, if it is there]
    #[arg(long, env = "TRACELAKE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn run(data_dir: &Path, args: &CheckArgs) -> anyhow::Result<()> {
    args.output.check()?;
    let request = CheckRequest {
        table: args.table.clone(),
        experiment: args.experiment.clone(),
        write: !args.no_write,
        settings: Settings::load(args.config.as_deref(), Overrides::default())?,
    };
    let lines = check_table(data_dir, &request).await?;
    if args.output.format == Format::Table {
        print_report(&args.table, &lines, &args.output)?;
    } else {
        let batch = batch_of(&lines)?;
        print(&batch.schema(), std::slice::from_ref(&batch), &args.output)?;
    }
    let failed = items_with(&lines, Verdict::Failed);
    anyhow::ensure!(
        failed.is_empty(),
        "table `{}`: {} failed: {}\nhint: mend the first one first; each failed item says how",
        args.table,
        units::count(failed.len(), "item"),
        failed.join(", ")
    );
    Ok(())
}

fn items_with(lines: &[Line], verdict: Verdict) -> Vec<&'static str> {
    lines.iter().filter(|line| line.finding.verdict == verdict).map(|line| line.item).collect()
}

/// One line for an item, and one below it for the hint.
fn print_report(table: &TableName, lines: &[Line], args: &OutputArgs) -> anyhow::Result<()> {
    let width = lines.iter().map(|line| line.item.len()).max().unwrap_or_default();
    print_text(args, &mut |out, options| {
        writeln!(out, "Table {table}")?;
        writeln!(out)?;
        for Line { item, finding } in lines {
            let word = format!("{:<7}", finding.verdict.as_str());
            let word = if options.color { painted(finding.verdict, &word) } else { word };
            writeln!(out, "{word}  {item:<width$}  {}", on_one_line(&finding.found))?;
            if let Some(hint) = &finding.hint {
                writeln!(out, "{:<7}  {:<width$}  hint: {}", "", "", on_one_line(hint))?;
            }
        }
        let count = |verdict| items_with(lines, verdict).len();
        writeln!(out)?;
        writeln!(
            out,
            "{} ok, {} to note, {} skipped, {} failed",
            count(Verdict::Ok),
            count(Verdict::Note),
            count(Verdict::Skipped),
            count(Verdict::Failed)
        )?;
        Ok(())
    })
}

/// Messages quote names and files: no control code of theirs reaches the terminal.
fn on_one_line(text: &str) -> String {
    printable_lines(&text.lines().collect::<Vec<_>>().join("; "))
}

fn painted(verdict: Verdict, word: &str) -> String {
    let code = match verdict {
        Verdict::Ok => 32,
        Verdict::Note => 33,
        Verdict::Skipped => 2,
        Verdict::Failed => 31,
    };
    format!("\u{1b}[{code}m{word}\u{1b}[0m")
}

/// The report as rows: `item`, `result`, `found`, `hint`.
fn batch_of(lines: &[Line]) -> anyhow::Result<RecordBatch> {
    let column = |name: &str, nullable: bool| Field::new(name, DataType::Utf8, nullable);
    let schema = Schema::new(vec![
        column("item", false),
        column("result", false),
        column("found", false),
        column("hint", true),
    ]);
    let texts = |text: &dyn Fn(&Line) -> Option<String>| {
        Arc::new(lines.iter().map(text).collect::<StringArray>()) as ArrayRef
    };
    let columns = vec![
        texts(&|line| Some(line.item.to_owned())),
        texts(&|line| Some(line.finding.verdict.as_str().to_owned())),
        texts(&|line| Some(line.finding.found.clone())),
        texts(&|line| line.finding.hint.clone()),
    ];
    Ok(RecordBatch::try_new(Arc::new(schema), columns)?)
}
