//! A small archive that is the same on every run, and the binary that is asked about it.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;
use tracelake_decode::{SpanSource, decode_otlp, otlp_json};
use tracelake_lake::{DataFolder, Lake, Table, TableWriter, TraceDraft};
use tracelake_model::{Clock, ExperimentId, Limits, TableName};
use tracelake_testkit::FakeClock;

/// An agent that failed at its second step, as its instrumentation sent it.
const FAILED: &str = r#"{"resourceSpans": [{
  "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "checkout"}}]},
  "scopeSpans": [{"scope": {"name": "agents", "version": "1.2"}, "spans": [
    {"traceId": "000000000000000000000000000000f1", "spanId": "00000000000000a1", "name": "agent",
     "startTimeUnixNano": "1795305600000000000", "endTimeUnixNano": "1795305602000000000",
     "status": {"code": 2, "message": "tool failed"}, "attributes": [
       {"key": "mlflow.spanType", "value": {"stringValue": "\"AGENT\""}},
       {"key": "session.id", "value": {"stringValue": "s-1"}},
       {"key": "mlflow.spanInputs", "value": {"stringValue": "{\"question\": \"Where is my order?\"}"}}]},
    {"traceId": "000000000000000000000000000000f1", "spanId": "00000000000000a2",
     "parentSpanId": "00000000000000a1", "name": "plan",
     "startTimeUnixNano": "1795305600100000000", "endTimeUnixNano": "1795305601100000000",
     "attributes": [
       {"key": "mlflow.spanType", "value": {"stringValue": "\"LLM\""}},
       {"key": "gen_ai.request.model", "value": {"stringValue": "small-1"}},
       {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "1200"}},
       {"key": "gen_ai.usage.output_tokens", "value": {"intValue": "34"}},
       {"key": "mlflow.spanOutputs", "value": {"stringValue": "\"look it up,\nthen answer\""}}]},
    {"traceId": "000000000000000000000000000000f1", "spanId": "00000000000000a3",
     "parentSpanId": "00000000000000a1", "name": "lookup \u001b[31mred", "kind": 3,
     "startTimeUnixNano": "1795305601200000000", "endTimeUnixNano": "1795305601900000000",
     "status": {"code": 2, "message": "no such order"},
     "links": [{"traceId": "000000000000000000000000000000e1", "spanId": "00000000000000e2"}],
     "events": [{"timeUnixNano": "1795305601850000000", "name": "exception", "attributes": [
       {"key": "exception.type", "value": {"stringValue": "KeyError"}},
       {"key": "exception.message", "value": {"stringValue": "'order'"}},
       {"key": "exception.stacktrace", "value": {"stringValue": "line 1\nline 2"}}]}],
     "attributes": [{"key": "mlflow.spanType", "value": {"stringValue": "\"TOOL\""}}]}]}]}]}"#;

/// One span that went well, with a formula for a name.
const GOOD: &str = r#"{"resourceSpans": [{"scopeSpans": [{"spans": [
    {"traceId": "000000000000000000000000000000f2", "spanId": "00000000000000b1",
     "name": "=HYPERLINK(\"x\")",
     "startTimeUnixNano": "1795305660000000000", "endTimeUnixNano": "1795305660001500000"}]}]}]}"#;

/// The tables and what is in them.
const TABLES: [(&str, &[&str]); 2] =
    [("tracelake.default.traces", &[FAILED]), ("production.monitoring.agents", &[GOOD])];

/// A folder with an archive in `archive`, and the binary run beside it.
pub(crate) struct Archive {
    folder: TempDir,
}

/// What a command left behind.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Archive {
    /// A fresh copy, committed by the writer that the service uses.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = DataFolder::new(folder.path().join("archive")).unwrap();
        let lake = Lake::new().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(FakeClock::default());
        for (name, bodies) in TABLES {
            let name: TableName = name.parse().unwrap();
            let table = Table::at(&lake, data.table(&name)).unwrap();
            let drafts: Vec<TraceDraft> = bodies.iter().map(|body| draft(body, &*clock)).collect();
            let mut writer =
                TableWriter::open(table, "test".to_owned(), Arc::clone(&clock), 100).unwrap();
            writer.commit_epoch(1, &drafts).unwrap();
        }
        Self { folder }
    }

    /// The folder in which commands run.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Runs one command with nothing of this process's environment.
    pub(crate) fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Ran {
        let output = Command::new(env!("CARGO_BIN_EXE_tracelake"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .env("TRACELAKE_DATA_DIR", "archive")
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        Ran {
            code: output.status.code().unwrap(),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs one command and writes down all that it did, the folder's own path as `FOLDER`.
    pub(crate) fn transcript(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments, &[]);
        let typed = arguments.join(" ").replace(char::is_control, "?");
        let mut text = format!("$ tracelake {typed}\n");
        text.push_str(&String::from_utf8(ran.stdout).unwrap());
        if !ran.stderr.is_empty() {
            text.push_str(&format!("--- stderr\n{}", ran.stderr));
        }
        text.push_str(&format!("--- exit code {}\n", ran.code));
        // The only thing that differs from run to run.
        text.replace(&self.folder.path().display().to_string(), "FOLDER")
    }
}

fn draft(body: &str, clock: &dyn Clock) -> TraceDraft {
    let (protobuf, rejects) = otlp_json::to_protobuf(body.as_bytes()).unwrap();
    assert!(rejects.is_empty(), "{rejects:?}");
    let decoded = decode_otlp(&protobuf.into(), SpanSource::Otlp, &Limits::default()).unwrap();
    let spans = decoded.spans;
    let now = clock.now_unix_micro();
    TraceDraft {
        experiment_id: Some(ExperimentId::default_experiment()),
        spans: spans.clone(),
        created_at_micros: now,
        updated_at_micros: now,
        ..TraceDraft::new(spans[0].trace_id)
    }
}
