//! `tracelake import`: files of traces, through the same intake as everything else.
//!
//! `find -> open -> cut into frames -> decode -> lanes -> intake -> ledger`
//!
//! One thread reads and decodes; a few lanes send. The spans of one trace go through one lane, in
//! the order of the files. A request that is answered is durable in the journal; only then does
//! the ledger say that its part of the file is imported (see the module `ledger` for what a crash
//! leaves at each step). Memory holds a few frames of a few MiB, or a few times the largest single
//! document, which `max_decompressed` bounds.

mod content;
mod experiment;
mod frames;
mod inputs;
mod layout;
mod ledger;
mod plan;
mod progress;
mod reading;
mod stream;
mod tracker;
mod transport;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracelake_model::ExperimentId;

use crate::discovery::ServerFile;
use crate::folder::data_folder;
use crate::service::Service;
use crate::settings::Settings;
use crate::tasks;
use content::LANES;
use ledger::Ledger;
use progress::Counters;
use reading::{Job, ReadOutcome, Reading};
use tracker::Pending;
use transport::{HttpTransport, SendFault, Transport};

pub use experiment::experiment;
pub use plan::{PlannedFile, plan};

/// Folder of the ledger in the data folder.
const LEDGER_FOLDER: &str = "imports";
/// Requests that wait in a lane beside the one in flight.
const LANE_QUEUE: usize = 2;
/// How often acknowledged frames are written to the ledger.
const RECORD_EVERY: Duration = Duration::from_millis(200);
/// How long a reader may take to notice that all ends, as one that waits for a terminal does not.
const READER_TIMEOUT: Duration = Duration::from_secs(1);

/// What to import, and how.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// Files and folders; `-` is standard input.
    pub paths: Vec<PathBuf>,
    /// Experiment of all traces, whatever the files say.
    pub experiment: Option<ExperimentId>,
    /// Read files again that were imported already.
    pub again: bool,
    /// No progress.
    pub quiet: bool,
    /// Wait until everything is in the tables.
    pub flush: bool,
}

/// What an import did.
#[derive(Debug, Default)]
pub struct ImportReport {
    /// Files that are wholly in.
    pub imported: u64,
    /// Files that were so before.
    pub already: u64,
    /// Passed over: (what, why).
    pub skipped: Vec<(String, String)>,
    /// Not or not wholly imported: (what, why).
    pub failed: Vec<(String, String)>,
    /// Files with rejected spans: (what, how many, why).
    pub rejected: Vec<(String, u64, String)>,
    /// Spans that were taken in.
    pub accepted_spans: u64,
    /// Spans that were not.
    pub rejected_spans: u64,
    /// Traces that these spans are of.
    pub traces: u64,
    /// There were more traces than are counted.
    pub more_traces: bool,
    /// Bytes that were read.
    pub read_bytes: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// It was cancelled.
    pub interrupted: bool,
    /// Nothing more could be taken in.
    pub stopped: Option<anyhow::Error>,
}

impl ImportReport {
    /// The report as a JSON object.
    #[must_use]
    pub fn to_json(&self) -> String {
        let files = |files: &[(String, String)]| -> serde_json::Value {
            files.iter().map(|(file, reason)| json!({"file": file, "reason": reason})).collect()
        };
        let rejected: serde_json::Value = self
            .rejected
            .iter()
            .map(|(file, spans, reason)| json!({"file": file, "spans": spans, "reason": reason}))
            .collect();
        json!({
            "imported": self.imported,
            "already_imported": self.already,
            "skipped": files(&self.skipped),
            "failed": files(&self.failed),
            "rejected": rejected,
            "spans": self.accepted_spans,
            "rejected_spans": self.rejected_spans,
            "traces": self.traces,
            "bytes": self.read_bytes,
            "seconds": self.elapsed.as_secs_f64(),
            "stopped": self.stopped.as_ref().map(|error| format!("{error:#}")),
        })
        .to_string()
    }
}

/// Imports until done or cancelled. What is wrong with single files is in the report.
///
/// # Errors
/// When nothing can be imported at all, or the ledger cannot be written.
pub async fn run(
    data_dir: &Path,
    settings: &Settings,
    options: ImportOptions,
    cancel: CancellationToken,
) -> anyhow::Result<ImportReport> {
    let begun = Instant::now();
    let folder = data_folder(data_dir)?;
    let ledger = Arc::new(Mutex::new(Ledger::open(&folder.root().join(LEDGER_FOLDER))?));
    let found = inputs::find(&options.paths, folder.root());
    let transport = match ServerFile::running(&folder.server_file()) {
        Some(server) => Transport::Http(HttpTransport::new(server, &folder.server_file())),
        None => Transport::Local(Box::new(Service::start(data_dir, settings).await?)),
    };
    let counters = Arc::new(Counters::default());
    let total = found.files.iter().map(|file| file.size_bytes).sum();
    counters.total_bytes.store(total, Ordering::Relaxed);
    let shown = CancellationToken::new();
    let progress = (!options.quiet)
        .then(|| tasks::spawn(progress::show(Arc::clone(&counters), shown.clone())));

    let transport = Arc::new(transport);
    let job = ImportJob {
        settings,
        options: &options,
        ledger,
        counters: Arc::clone(&counters),
        cancel: &cancel,
    };
    let carried = job.carry(&transport, found.files).await;
    let mut flushed = Ok(());
    if options.flush && !cancel.is_cancelled() {
        flushed = tokio::select! {
            outcome = transport.flush() => outcome,
            () = cancel.cancelled() => Ok(()),
        };
    }
    shown.cancel();
    if let Some(progress) = progress {
        progress.await.ok();
    }
    // All lanes have ended, so this is the last reference.
    let closed = match Arc::into_inner(transport) {
        Some(transport) => transport.close().await,
        None => Ok(()),
    };
    let interrupted = cancel.is_cancelled();
    let Carried { outcome, stopped } = carried?;
    let mut report = report_of(outcome, &counters);
    report.interrupted = interrupted && stopped.is_none();
    report.stopped = stopped;
    report.skipped.splice(0..0, found.skipped);
    report.failed.splice(0..0, found.failed);
    report.elapsed = begun.elapsed();
    if report.stopped.is_none() {
        flushed.context(
            "wait for the tables\nhint: what was imported is durable; `tracelake flush` tries again",
        )?;
        closed?;
    }
    Ok(report)
}

struct ImportJob<'a> {
    settings: &'a Settings,
    options: &'a ImportOptions,
    ledger: Arc<Mutex<Ledger>>,
    counters: Arc<Counters>,
    cancel: &'a CancellationToken,
}

struct Carried {
    outcome: ReadOutcome,
    stopped: Option<anyhow::Error>,
}

impl ImportJob<'_> {
    /// Reads the files and sends what they say; returns when all is acknowledged and recorded, or
    /// nothing more can be.
    async fn carry(
        &self,
        transport: &Arc<Transport>,
        files: Vec<inputs::Input>,
    ) -> anyhow::Result<Carried> {
        let pending = Arc::new(Pending::default());
        let stopped = Arc::new(Mutex::new(None));
        let (mut senders, mut lanes) = (Vec::new(), Vec::new());
        for _ in 0..LANES {
            let (sender, jobs) = mpsc::channel(LANE_QUEUE);
            senders.push(sender);
            let lane = Lane {
                transport: Arc::clone(transport),
                cancel: self.cancel.clone(),
                counters: Arc::clone(&self.counters),
                stopped: Arc::clone(&stopped),
            };
            lanes.push(tasks::spawn(lane.run(jobs)));
        }
        let reading = Reading {
            ledger: Arc::clone(&self.ledger),
            pending: Arc::clone(&pending),
            counters: Arc::clone(&self.counters),
            lanes: senders,
            cancel: self.cancel.clone(),
            experiment: self.options.experiment.clone(),
            default_experiment: self.settings.default_experiment.clone(),
            limits: self.settings.limits,
            again: self.options.again,
        };
        let recording = CancellationToken::new();
        let recorder = tasks::spawn(record(
            Arc::clone(&self.ledger),
            Arc::clone(&pending),
            recording.clone(),
            self.cancel.clone(),
        ));
        let mut reader = tokio::task::spawn_blocking(move || reading.run(files));
        let outcome = tokio::select! {
            outcome = &mut reader => outcome?,
            () = self.cancel.cancelled() => {
                match tokio::time::timeout(READER_TIMEOUT, reader).await {
                    Ok(outcome) => outcome?,
                    Err(_) => ReadOutcome::default(),
                }
            }
        };
        for lane in lanes {
            lane.await?;
        }
        recording.cancel();
        recorder.await??;
        let stopped = stopped.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(Carried { outcome, stopped })
    }
}

/// Sends requests one after the other.
struct Lane {
    transport: Arc<Transport>,
    cancel: CancellationToken,
    counters: Arc<Counters>,
    stopped: Arc<Mutex<Option<anyhow::Error>>>,
}

impl Lane {
    async fn run(self, mut jobs: mpsc::Receiver<Job>) {
        loop {
            let job = tokio::select! {
                biased;
                () = self.cancel.cancelled() => return,
                job = jobs.recv() => job,
            };
            let Some(Job { piece, file, frame }) = job else { return };
            let spans = piece.span_count();
            let outcome = match self.transport.send(piece, &self.cancel).await {
                Ok(acked) => {
                    self.counters.spans.fetch_add(spans as u64, Ordering::Relaxed);
                    Ok((acked.rejected_spans, acked.message))
                }
                Err(SendFault::Refused(reason)) => Err(reason),
                Err(SendFault::Cancelled) => return,
                Err(SendFault::Stopped(error)) => {
                    let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
                    stopped.get_or_insert(error);
                    self.cancel.cancel();
                    return;
                }
            };
            file.piece_done(frame, spans, outcome);
        }
    }
}

/// Writes what is acknowledged to the ledger, until told that all is.
async fn record(
    ledger: Arc<Mutex<Ledger>>,
    pending: Arc<Pending>,
    finished: CancellationToken,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    loop {
        let last = tokio::select! {
            () = tokio::time::sleep(RECORD_EVERY) => false,
            () = finished.cancelled() => true,
        };
        let entries = pending.take();
        if !entries.is_empty() {
            let ledger = Arc::clone(&ledger);
            let written = tokio::task::spawn_blocking(move || {
                ledger.lock().unwrap_or_else(PoisonError::into_inner).record(entries)
            });
            if let Err(error) = written.await? {
                cancel.cancel();
                return Err(error);
            }
        }
        if last {
            return Ok(());
        }
    }
}

fn report_of(outcome: ReadOutcome, counters: &Counters) -> ImportReport {
    let mut report = ImportReport {
        already: outcome.already,
        skipped: outcome.skipped,
        traces: outcome.traces.len() as u64,
        more_traces: outcome.more_traces,
        read_bytes: counters
            .raw_bytes
            .load(Ordering::Relaxed)
            .saturating_sub(counters.skipped_bytes.load(Ordering::Relaxed)),
        ..ImportReport::default()
    };
    if outcome.runs.is_empty() {
        // The reader was left behind, waiting for standard input.
        report.accepted_spans = counters.spans.load(Ordering::Relaxed);
    }
    for run in outcome.runs {
        let file = run.report();
        let shown = &run.input.shown;
        report.accepted_spans += file.accepted_spans;
        report.rejected_spans += file.rejected_spans;
        report.imported += u64::from(file.complete && file.faults.is_empty());
        if 0 < file.rejected_spans || !file.reject_reasons.is_empty() {
            let reasons = file.reject_reasons.join("; ");
            report.rejected.push((shown.clone(), file.rejected_spans, reasons));
        }
        if !file.faults.is_empty() {
            let mut reasons = file.faults.join("; ");
            if 0 < file.more_faults {
                reasons.push_str(&format!("; and {} more", file.more_faults));
            }
            report.failed.push((shown.clone(), reasons));
        }
    }
    report
}
