//! What can be asked for on the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::error::LoadError;
use crate::request::Shape;
use crate::spans::Load;

/// Sends spans over OTLP/HTTP and reports what was acknowledged, how fast, and after how long.
///
/// Without --rate each connection sends as fast as it is acknowledged (closed loop). With it requests go
/// out by a schedule and latency counts from the time that a request was due (open loop). Answers 429, 502,
/// 503 and 504 are obeyed: the same request is sent again after Retry-After. So is a broken connection.
///
/// The report is one JSON document on standard output, progress goes to standard error.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "tracelake-loadgen",
    after_help = "Examples:\n  \
        tracelake-loadgen http://127.0.0.1:5000 --seconds 10\n  \
        tracelake-loadgen http://127.0.0.1:5000 --load light --spans 5000000 --connections 16\n  \
        tracelake-loadgen http://127.0.0.1:5000 --rate 40000 --seconds 30 --ids acked.csv\n  \
        tracelake-loadgen http://127.0.0.1:5000 --parts 4 --header 'x-mlflow-experiment-id: 0'"
)]
pub(crate) struct Options {
    /// Address of the service, http://HOST:PORT[/PATH]; the path is /v1/traces unless it is given
    pub(crate) url: String,
    /// What the spans are
    #[arg(long, value_enum, default_value = "llm")]
    pub(crate) load: Load,
    /// Seconds to send for [default: 10, unless --spans is given]
    #[arg(long, value_name = "N")]
    pub(crate) seconds: Option<f64>,
    /// Spans to send, rounded up to whole requests
    #[arg(long, value_name = "N")]
    pub(crate) spans: Option<u64>,
    /// Spans per second, by a schedule; as fast as acknowledged without it
    #[arg(long, value_name = "N")]
    pub(crate) rate: Option<f64>,
    /// Connections, each with one request under way
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub(crate) connections: u64,
    /// Spans of one request, rounded down to whole traces [default: 200 llm, 1000 light]
    #[arg(long, value_name = "N")]
    pub(crate) spans_per_request: Option<usize>,
    /// Spans of one trace; the root is the last and has ended
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) spans_per_trace: usize,
    /// Requests that each trace is spread over
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) parts: usize,
    /// A header line of every request, such as 'x-mlflow-experiment-id: 0'
    #[arg(long, value_name = "LINE")]
    pub(crate) header: Vec<String>,
    /// Writes trace_id,span_count,acked_unix_nano of everything acknowledged to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) ids: Option<PathBuf>,
    /// Seconds to go on trying when the service is full or away
    #[arg(long, value_name = "N", default_value_t = 60)]
    pub(crate) patience: u64,
    /// Where ids and texts begin; drawn from time and process without it
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// No progress on standard error
    #[arg(long)]
    pub(crate) quiet: bool,
}

/// Seconds of a run for which neither time nor number was asked.
const USUAL_SECONDS: f64 = 10.0;

impl Options {
    /// How long to send; for ever when only a number is asked for.
    pub(crate) fn duration(&self) -> Option<Duration> {
        let seconds = self.seconds.or_else(|| self.spans.is_none().then_some(USUAL_SECONDS))?;
        Some(Duration::from_secs_f64(seconds))
    }

    /// How traces are put into requests.
    ///
    /// # Errors
    /// When the numbers contradict one another.
    pub(crate) fn shape(&self) -> Result<Shape, LoadError> {
        let wrong = |message| Err(LoadError::Options(message));
        if !(1..=100_000).contains(&self.spans_per_trace) {
            return wrong("--spans-per-trace must be 1 to 100000");
        }
        if !(1..=self.spans_per_trace).contains(&self.parts) {
            return wrong("--parts must be 1 to --spans-per-trace");
        }
        let request_spans = self.spans_per_request.unwrap_or(self.load.usual_batch());
        if !(1..=100_000).contains(&request_spans) {
            return wrong("--spans-per-request must be 1 to 100000");
        }
        let positive = |number: Option<f64>| number.is_none_or(|n| n > 0.0 && n < 1e9);
        if !positive(self.seconds) || !positive(self.rate) {
            return wrong("--seconds and --rate must be above zero and below 1e9");
        }
        if self.header.iter().any(|line| !line.contains(':') || line.contains(char::is_control)) {
            return wrong("--header must be a line of the form `name: value`");
        }
        Ok(Shape {
            load: self.load,
            trace_spans: self.spans_per_trace,
            request_spans,
            parts: self.parts,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn options(arguments: &[&str]) -> Options {
        let all = ["tracelake-loadgen", "http://127.0.0.1:1"].iter().chain(arguments);
        Options::try_parse_from(all).unwrap()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn a_run_without_an_end_is_not_asked_for_by_accident() {
        assert_eq!(options(&[]).duration(), Some(Duration::from_secs(10)));
        assert_eq!(options(&["--spans", "5"]).duration(), None);
    }

    #[test]
    fn contradictions_are_named() {
        assert!(options(&["--parts", "11"]).shape().is_err());
        assert!(options(&["--rate", "0"]).shape().is_err());
        assert!(options(&["--header", "a: b\r\nc: d"]).shape().is_err());
        assert!(options(&["--parts", "10"]).shape().is_ok());
    }
}
