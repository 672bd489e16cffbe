//! `tracelake import`: traces from files.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, UInt64Array};
use tokio_util::sync::CancellationToken;
use tracelake_archive::operate::import::{
    ImportOptions, ImportReport, PlannedFile, experiment, plan, run as run_import,
};
use tracelake_archive::settings::{Overrides, Settings};
use tracelake_archive::{Fault, FaultKind};

use crate::output::{OutputArgs, print};

/// Files that are named one by one on standard error.
const MAX_LISTED: usize = 20;

/// Imports traces from files and folders: OTLP, and what MLflow writes.
///
/// OTLP as protobuf (one message, or several after their lengths) and JSON (one document, or one a
/// line); MLflow's traces.json, its traces as JSON, and its archive of traces.pb; each also
/// compressed with gzip or zstd. The content decides what a file is, not its name. An import that
/// was broken off goes on where it was when the command is given again; files that are in already
/// are passed over. It goes through the service that runs on the data folder, or works by itself
/// when none does.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tracelake import traces.pb more/ --experiment checkout-agent\n  tracelake import /var/log/otel/traces.jsonl\n  tracelake import --dry-run mlflow-archive/\n  zcat old.jsonl.gz | tracelake import -\n\nExit code: 0 all is in, 1 some file could not be imported, 130 broken off by Ctrl-C."
)]
pub(crate) struct ImportArgs {
    /// Files and folders, which are searched to the bottom; - is standard input
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Experiment of all traces, by name (created if it is not there) or id, whatever the files say
    #[arg(long, value_name = "NAME|ID")]
    experiment: Option<String>,
    /// Read files again that are in already; what the tables hold is not doubled
    #[arg(long)]
    again: bool,
    /// List what would be imported, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Return when everything is durable, before it is in the tables
    #[arg(long)]
    no_flush: bool,
    /// No progress and no notes on standard error
    #[arg(long, short)]
    quiet: bool,
    /// Settings file [default: tracelake.toml, if it is there]
    #[arg(long, env = "TRACELAKE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn run(data_dir: &Path, args: ImportArgs) -> anyhow::Result<()> {
    args.output.check()?;
    let settings = Settings::load(args.config.as_deref(), Overrides::default())?;
    let experiment = match &args.experiment {
        Some(text) => experiment(data_dir, text, args.dry_run).await?,
        None => None,
    };
    if args.dry_run {
        let (data_dir, again) = (data_dir.to_owned(), args.again);
        let files = tokio::task::spawn_blocking(move || {
            plan(&data_dir, &args.paths, experiment.as_ref(), again)
        })
        .await??;
        let batch = plan_batch(&files)?;
        return print(&batch.schema(), std::slice::from_ref(&batch), &args.output);
    }
    let options = ImportOptions {
        paths: args.paths,
        experiment,
        again: args.again,
        quiet: args.quiet,
        flush: !args.no_flush,
    };
    let cancel = CancellationToken::new();
    let interrupt = tracelake_archive::spawn(wait_for_interrupt(cancel.clone()));
    let report = run_import(data_dir, &settings, options, cancel).await;
    interrupt.abort();
    let report = report?;
    tell(&report, args.quiet)?;
    let batch = report_batch(&report)?;
    print(&batch.schema(), std::slice::from_ref(&batch), &args.output)?;
    if let Some(error) = report.stopped {
        return Err(error.context(
            "the import stopped; what was imported stays\nhint: give the same command again to go on",
        ));
    }
    if report.interrupted {
        let fault = Fault::new(FaultKind::Interrupted, "broken off; what was imported stays");
        return Err(fault.with_hint("give the same command again to go on").into());
    }
    anyhow::ensure!(
        report.failed.is_empty(),
        "{} of {} files could not be imported wholly\nhint: they are named above; give the same \
         command again when they are mended, the others are passed over",
        report.failed.len(),
        file_count(&report)
    );
    Ok(())
}

/// Cancels on Ctrl-C or SIGTERM.
pub(super) async fn wait_for_interrupt(cancel: CancellationToken) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    cancel.cancel();
    Ok(())
}

/// Says on standard error what is odd about single files.
fn tell(report: &ImportReport, quiet: bool) -> anyhow::Result<()> {
    let mut out = std::io::stderr().lock();
    for (file, reason) in report.failed.iter().take(MAX_LISTED) {
        writeln!(out, "failed: {file}: {}", one_line(reason))?;
    }
    if MAX_LISTED < report.failed.len() {
        writeln!(out, "failed: and {} more", report.failed.len() - MAX_LISTED)?;
    }
    if quiet {
        return Ok(());
    }
    for (file, spans, reason) in report.rejected.iter().take(MAX_LISTED) {
        writeln!(out, "rejected: {file}: {spans} spans: {}", one_line(reason))?;
    }
    for (file, reason) in report.skipped.iter().take(MAX_LISTED) {
        writeln!(out, "skipped: {file}: {}", one_line(reason))?;
    }
    let unlisted = report.rejected.len().saturating_sub(MAX_LISTED)
        + report.skipped.len().saturating_sub(MAX_LISTED);
    if 0 < unlisted {
        writeln!(out, "and {unlisted} more files with rejected spans or skipped")?;
    }
    if report.more_traces {
        writeln!(out, "more traces than are counted: their number is a lower bound")?;
    }
    Ok(())
}

/// A reason may quote what a file or a service said.
fn one_line(reason: &str) -> String {
    reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn file_count(report: &ImportReport) -> u64 {
    report.imported + report.already + report.failed.len() as u64
}

fn report_batch(report: &ImportReport) -> anyhow::Result<RecordBatch> {
    let count = |number: u64| Arc::new(UInt64Array::from(vec![number])) as ArrayRef;
    let seconds = (report.elapsed.as_secs_f64() * 1e3).round() / 1e3;
    Ok(RecordBatch::try_from_iter([
        ("files", count(file_count(report))),
        ("imported", count(report.imported)),
        ("already_imported", count(report.already)),
        ("failed", count(report.failed.len() as u64)),
        ("skipped", count(report.skipped.len() as u64)),
        ("spans", count(report.accepted_spans)),
        ("rejected_spans", count(report.rejected_spans)),
        ("traces", count(report.traces)),
        ("bytes", count(report.read_bytes)),
        ("seconds", Arc::new(Float64Array::from(vec![seconds])) as ArrayRef),
    ])?)
}

fn plan_batch(files: &[PlannedFile]) -> anyhow::Result<RecordBatch> {
    let text = |of: &dyn Fn(&PlannedFile) -> String| {
        Arc::new(StringArray::from_iter_values(files.iter().map(of))) as ArrayRef
    };
    let experiments: StringArray = files.iter().map(|file| file.experiment.as_deref()).collect();
    let sizes: UInt64Array = files.iter().map(|file| Some(file.size_bytes)).collect();
    Ok(RecordBatch::try_from_iter([
        ("file", text(&|file| file.file.clone())),
        ("kind", text(&|file| file.kind.to_owned())),
        ("bytes", Arc::new(sizes) as ArrayRef),
        ("experiment_id", Arc::new(experiments) as ArrayRef),
        ("action", text(&|file| one_line(&file.action))),
    ])?)
}
