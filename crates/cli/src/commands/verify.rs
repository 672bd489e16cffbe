//! `tracelake verify`: what a table holds against what was acknowledged.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tracelake_archive::operate::check::units;
use tracelake_archive::operate::verify::{
    HourLine, TraceLine, VerifyReport, VerifyRequest, rows_of, verify_table,
};
use tracelake_archive::settings::{Overrides, Settings};
use tracelake_model::names::printable_lines;
use tracelake_model::{Clock as _, SystemClock, TableName};

use crate::output::{Format, OutputArgs, Replacement, print, print_text};
use crate::time::Instant;

/// Traces that a person is shown.
const SHOWN_TRACES: usize = 100;

/// Longest manifest that is read.
const MAX_MANIFEST_BYTES: u64 = 1 << 30;

/// Compares a table with what was acknowledged for it, by hour and way in, and names every trace
/// that is missing, doubled or altered.
///
/// Commits what was acknowledged first, then reads the ledger of this data folder and every row of
/// the table. Compared are the spans, with resource and scope, by count and by a hash in which
/// their order does not count, and the tags, assessments and runs that clients changed. What is in
/// the table beyond the ledger is a note: another archiver sent it, or it is older than the ledger;
/// what another writer deleted is counted apart. Damage of the ledger is a fault. Changes nothing
/// but by the commit.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tracelake verify production.monitoring.agent_traces\n  tracelake verify production.monitoring.agent_traces --since 24h --format json | jq '.[] | select(.kind == \"trace\")'\n  tracelake verify production.monitoring.agent_traces --manifest 2026-11-22.json\n  tracelake verify production.monitoring.agent_traces --against 2026-11-22.json\n\nExit codes:\n  0    everything acknowledged is in the table, once and as it came\n  1    it is not, or it cannot be told\n  2    wrong arguments"
)]
pub(crate) struct VerifyArgs {
    /// The table
    #[arg(value_name = "CATALOG.SCHEMA.TABLE")]
    table: TableName,
    /// Of what arrived in the hour of this time and later: 24h, 7d, 2026-11-22 [default: all]
    #[arg(long, value_name = "TIME")]
    since: Option<Instant>,
    /// Of what arrived in the hour of this time and before [default: all]
    #[arg(long, value_name = "TIME")]
    until: Option<Instant>,
    /// Write the report to this file as JSON, to be kept
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    manifest: Option<PathBuf>,
    /// Compare the table with this manifest as well
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, conflicts_with_all = ["since", "until"])]
    against: Option<PathBuf>,
    /// Settings file [default: tracelake.toml, if it is there]
    #[arg(long, env = "TRACELAKE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn run(data_dir: &Path, args: &VerifyArgs) -> anyhow::Result<()> {
    args.output.check()?;
    let now = SystemClock.now_unix_micro();
    let settings = Settings::load(args.config.as_deref(), Overrides::default())?;
    let request = VerifyRequest {
        table: args.table.clone(),
        since_unix_micro: args.since.map(|since| since.to_micros(now)),
        until_unix_micro: args.until.map(|until| until.to_micros(now)),
        against: args.against.as_deref().map(read_manifest).transpose()?.map(Box::new),
        max_traces: usize::MAX,
    };
    let report = verify_table(data_dir, &settings, request).await?;
    if let Some(path) = &args.manifest {
        let mut file = Replacement::create(path)?;
        writeln!(file, "{}", report.to_json())?;
        file.commit()?;
    }
    if args.output.format == Format::Table {
        print_report(&report, &args.output)?;
    } else {
        let batch = rows_of(&report)?;
        print(&batch.schema(), std::slice::from_ref(&batch), &args.output)?;
    }
    anyhow::ensure!(
        report.ok,
        "table `{}`: {}\nhint: {}",
        args.table,
        summary(&report),
        "the archive's history has older versions of the table; docs/operations.md says what to do"
    );
    Ok(())
}

fn read_manifest(path: &Path) -> anyhow::Result<VerifyReport> {
    let subject = || format!("read manifest `{}`", path.display());
    let length = std::fs::metadata(path).with_context(subject)?.len();
    anyhow::ensure!(length <= MAX_MANIFEST_BYTES, "manifest `{}` is too long", path.display());
    let text = std::fs::read_to_string(path).with_context(subject)?;
    serde_json::from_str(&text).with_context(|| {
        format!(
            "read manifest `{}`\nhint: name a file that `tracelake verify --manifest` wrote",
            path.display()
        )
    })
}

/// What is wrong, in a few words.
fn summary(report: &VerifyReport) -> String {
    let count = |result: &str| report.traces.iter().filter(|trace| trace.result == result).count();
    let kinds = ["missing", "gone", "doubled", "altered", "deleted", "tags", "assessments", "runs"];
    let mut parts: Vec<String> = kinds
        .into_iter()
        .filter(|kind| 0 < count(kind))
        .map(|kind| {
            let said = match kind {
                "deleted" => "deleted and still there",
                "gone" => "gone, by whom is not known",
                "tags" => "without a client's tags",
                "assessments" => "without a client's assessments",
                "runs" => "without a link to a run",
                kind => kind,
            };
            format!("{} {said}", units::count(count(kind), "trace"))
        })
        .collect();
    if !report.faults.is_empty() {
        parts.push(units::count(report.faults.len(), "other fault"));
    }
    parts.join(", ")
}

fn print_report(report: &VerifyReport, args: &OutputArgs) -> anyhow::Result<()> {
    print_text(args, &mut |out, options| {
        match report.version {
            Some(version) => writeln!(out, "Table {} at version {version}", report.table)?,
            None => writeln!(out, "Table {} does not exist", report.table)?,
        }
        writeln!(out)?;
        let paint = |text: String, result: &str| match (options.color, result) {
            (false, _) => text,
            (true, "ok") => format!("\u{1b}[32m{text}\u{1b}[0m"),
            (true, "open") => format!("\u{1b}[33m{text}\u{1b}[0m"),
            (true, _) => format!("\u{1b}[31m{text}\u{1b}[0m"),
        };
        if !report.hours.is_empty() {
            let lines: Vec<[String; 7]> = report.hours.iter().map(hour_cells).collect();
            let head = ["hour", "way in", "traces", "archived", "spans", "archived", "hash"];
            write_aligned(out, &head, &lines, &|line, text| {
                let result = report.hours.get(line).map_or("", |hour| hour.result.as_str());
                format!("{text}  {}{}", paint(result.to_owned(), result), details(report, line))
            })?;
            writeln!(out)?;
        }
        for trace in report.traces.iter().take(SHOWN_TRACES) {
            writeln!(out, "{}", paint(trace_text(trace), &trace.result))?;
        }
        let more = report.traces.len().saturating_sub(SHOWN_TRACES);
        if 0 < more {
            writeln!(out, "and {more} more: --format jsonl names them all")?;
        }
        for fault in &report.faults {
            writeln!(out, "{}", paint(format!("fault: {}", printable_lines(fault)), "fault"))?;
        }
        for note in &report.notes {
            writeln!(out, "note: {}", printable_lines(note))?;
        }
        let verdict =
            if report.ok { "everything acknowledged is there".to_owned() } else { summary(report) };
        writeln!(out, "{verdict}")?;
        Ok(())
    })
}

fn hour_cells(line: &HourLine) -> [String; 7] {
    [
        line.hour.clone(),
        line.way_in.clone(),
        line.acknowledged.traces.to_string(),
        line.archived.traces.to_string(),
        line.acknowledged.spans.to_string(),
        line.archived.spans.to_string(),
        line.acknowledged.hash_text(),
    ]
}

/// The figures of a line that are mostly zero.
fn details(report: &VerifyReport, line: usize) -> String {
    let Some(line) = report.hours.get(line) else { return String::new() };
    let parts: Vec<String> = [
        (line.copies, "sent again"),
        (line.deleted, "deleted"),
        (line.replaced, "replaced"),
        (line.open, "open"),
        (line.elsewhere, "elsewhere"),
        (line.deleted_by_others, "deleted by others"),
    ]
    .into_iter()
    .filter(|(count, _)| 0 < *count)
    .map(|(count, what)| format!("{count} {what}"))
    .collect();
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
}

fn trace_text(trace: &TraceLine) -> String {
    let mut text = format!("{:<8} {}", trace.result, printable_lines(&trace.trace_id));
    if 0 < trace.changes {
        text.push_str(&format!("  {} changes", trace.changes));
    } else if 0 < trace.of_spans {
        text.push_str(&format!("  {} of {} spans", trace.spans, trace.of_spans));
    }
    if trace.rows != 1 {
        text.push_str(&format!("  {} rows", trace.rows));
    }
    if !trace.hour.is_empty() {
        text.push_str(&format!("  {} {}", trace.hour, trace.way_in));
    }
    text
}

/// Text to the left, numbers to the right.
fn write_aligned(
    out: &mut dyn Write,
    head: &[&str; 7],
    lines: &[[String; 7]],
    finish: &dyn Fn(usize, String) -> String,
) -> anyhow::Result<()> {
    let width = |column: usize| {
        let cells = lines.iter().map(|line| line[column].len());
        cells.chain([head[column].len()]).max().unwrap_or_default()
    };
    let widths: [usize; 7] = std::array::from_fn(width);
    let joined = |cells: [&str; 7]| {
        let mut text = String::new();
        for (column, (cell, width)) in cells.into_iter().zip(widths).enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            text.push_str(gap);
            if (2..6).contains(&column) {
                text.push_str(&format!("{cell:>width$}"));
            } else {
                text.push_str(&format!("{cell:<width$}"));
            }
        }
        text
    };
    writeln!(out, "{}  result", joined(*head))?;
    for (place, line) in lines.iter().enumerate() {
        let text = joined(std::array::from_fn(|column| line[column].as_str()));
        writeln!(out, "{}", finish(place, text))?;
    }
    Ok(())
}
