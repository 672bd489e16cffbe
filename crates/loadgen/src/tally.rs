//! What was acknowledged, and the report of it.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::error::LoadError;
use crate::histogram::Histogram;
use crate::options::Options;
use crate::request::Shape;

/// What one connection, or all of them, came to.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Requests that were acknowledged.
    pub(crate) requests: u64,
    /// Spans in them, without those that a partial success rejects.
    pub(crate) spans: u64,
    /// Body bytes of them.
    pub(crate) bytes: u64,
    /// Spans that a partial success rejected.
    pub(crate) rejected: u64,
    /// Answers that said to come back later.
    pub(crate) told_to_wait: u64,
    /// Connections that broke.
    pub(crate) broken: u64,
    /// Spans of which nobody knows whether they were taken: the connection broke and stayed away.
    pub(crate) unresolved: u64,
    /// Requests of the schedule that were sent more than 100 ms late.
    pub(crate) late: u64,
    /// From when a request was due to its ack.
    pub(crate) latency: Histogram,
    /// Acknowledged traces.
    pub(crate) acked: Vec<AckedTrace>,
}

/// A trace of which spans were acknowledged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AckedTrace {
    /// First half of its id.
    pub(crate) high: u64,
    /// Second half of its id.
    pub(crate) low: u64,
    /// Acknowledged spans.
    pub(crate) spans: u64,
    /// When the last of them was acknowledged.
    pub(crate) acked_unix_nano: u64,
}

/// What all connections and the progress line see.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Acknowledged spans.
    pub(crate) acked: AtomicU64,
    /// Spans that were asked to be sent.
    pub(crate) taken: AtomicU64,
    /// Requests of the schedule that were taken.
    pub(crate) slots: AtomicU64,
    /// Whether a connection met an error that ends the run.
    pub(crate) over: AtomicBool,
}

impl Progress {
    /// Whether the run ends early.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

impl Tally {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            requests: 0,
            spans: 0,
            bytes: 0,
            rejected: 0,
            told_to_wait: 0,
            broken: 0,
            unresolved: 0,
            late: 0,
            latency: Histogram::new(),
            acked: Vec::new(),
        }
    }

    /// What another came to as well.
    pub(crate) fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.spans += other.spans;
        self.bytes += other.bytes;
        self.rejected += other.rejected;
        self.told_to_wait += other.told_to_wait;
        self.broken += other.broken;
        self.unresolved += other.unresolved;
        self.late += other.late;
        self.latency.add(&other.latency);
        self.acked.extend(other.acked);
    }

    /// The report. `cpu` is this process's own time.
    pub(crate) fn report(
        &self,
        options: &Options,
        shape: &Shape,
        begun_unix_nano: u64,
        took: Duration,
        cpu: Option<Duration>,
    ) -> Value {
        let seconds = took.as_secs_f64();
        let per = |value: f64, count: f64| if count > 0.0 { value / count } else { 0.0 };
        let (spans, bytes) = (number(self.spans), number(self.bytes));
        let cpu = cpu.map(|cpu| cpu.as_secs_f64());
        let millis = |micros: u64| number(micros) / 1000.0;
        json!({
            "load": shape.load.name(),
            "loop": if options.rate.is_some() { "open" } else { "closed" },
            "rate_spans_per_second": options.rate,
            "connections": options.connections,
            "spans_per_request": shape.traces() * shape.trace_spans / shape.parts,
            "spans_per_trace": shape.trace_spans,
            "parts": shape.parts,
            "begun_unix_nano": begun_unix_nano,
            "seconds": seconds,
            "requests_acked": self.requests,
            "spans_acked": self.spans,
            "traces_acked": self.acked.len(),
            "bytes_acked": self.bytes,
            "bytes_per_span": per(bytes, spans),
            "spans_per_second": per(spans, seconds),
            "megabytes_per_second": per(bytes / 1e6, seconds),
            "spans_rejected": self.rejected,
            "spans_unresolved": self.unresolved,
            "told_to_wait": self.told_to_wait,
            "broken_connections": self.broken,
            "late_requests": self.late,
            "latency_ms": {
                "p50": millis(self.latency.permille_micros(500)),
                "p90": millis(self.latency.permille_micros(900)),
                "p99": millis(self.latency.permille_micros(990)),
                "p999": millis(self.latency.permille_micros(999)),
                "max": millis(self.latency.max_micros()),
            },
            "generator_cpu_seconds": cpu,
            "generator_cpu_seconds_per_million_spans": cpu.map(|cpu| per(cpu * 1e6, spans)),
        })
    }

    /// Writes what was acknowledged as CSV.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write_ids(&self, path: &Path) -> Result<(), LoadError> {
        let write = || -> io::Result<()> {
            let mut file = BufWriter::new(File::create(path)?);
            writeln!(file, "trace_id,span_count,acked_unix_nano")?;
            for AckedTrace { high, low, spans, acked_unix_nano } in &self.acked {
                writeln!(file, "{high:016x}{low:016x},{spans},{acked_unix_nano}")?;
            }
            file.flush()
        };
        write().map_err(|source| LoadError::File { path: path.to_owned(), source })
    }
}

/// A count as a double: exact below 2^53.
#[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^53")]
pub(crate) const fn number(count: u64) -> f64 {
    count as f64
}
