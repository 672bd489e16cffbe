//! A trace written now, as a client writes it: does it arrive as it was sent?
//!
//! It goes in by the running service's OTLP port, or through the same intake in this process, is
//! flushed, read back from the table by SQL and compared. Then it is deleted as a client deletes
//! traces, so that checks leave no rows behind.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use tracelake_decode::{ContentEncoding, RecordKind, Route};
use tracelake_intake::Submission;
use tracelake_model::{
    Clock as _, ExperimentId, SystemClock, TableName, TraceChange, TraceChanges, TraceId,
};
use tracelake_present::{OutputFormat, RenderOptions, render};
use tracelake_query::{LakeTables, QueryEngine, QueryLimits, QueryOptions};
use uuid::Uuid;

use super::{Checker, Finding, ServiceState, units};
use crate::discovery::{ServerFile, agent, request_flush};
use crate::service::Service;

/// Name of the span.
const SPAN_NAME: &str = "tracelake check";

/// Attribute of the span; its value is random.
const MARKER: &str = "tracelake.check";

/// How long the service may take to acknowledge.
const ACK_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the span says that it took.
const SPAN_NANOS: u64 = 1_234_567;

/// The trace as it is sent.
struct Probe {
    trace_id: TraceId,
    span_id: String,
    marker: String,
    start_unix_nano: u64,
    experiment_id: ExperimentId,
}

/// The way in.
enum Way {
    Service(ServerFile),
    Here(Box<Service>),
}

impl Checker<'_> {
    /// Writes a trace of `experiment`, reads it back, and takes it out again.
    pub(super) async fn trace(&self, state: &ServiceState, experiment: &ExperimentId) -> Finding {
        let hint = "look at the log of the service, or run this with -v; `tracelake status` shows \
                    what waits and why";
        let way = match state {
            ServiceState::Running(running) => Way::Service(running.server.clone()),
            ServiceState::None | ServiceState::Silent { .. } => {
                match Service::start(self.data_dir, &self.request.settings).await {
                    Ok(service) => Way::Here(Box::new(service)),
                    Err(error) => return Finding::failed(one_line(&error), hint),
                }
            }
        };
        let probe = Probe::new(experiment);
        let begun = Instant::now();
        let arrived = self.send_and_compare(&way, &probe).await;
        let took = units::duration(begun.elapsed());
        // Also when it did not arrive: it may be on its way.
        let removed = self.remove(&way, &probe).await;
        let stopped = match way {
            Way::Here(service) => service.stop().await,
            Way::Service(_) => Ok(()),
        };
        let id = probe.trace_id.to_mlflow();
        match (arrived, removed.and(stopped)) {
            (Err(error), _) => Finding::failed(one_line(&error), hint),
            (Ok(()), Err(error)) => Finding::failed(
                format!("{id} arrived and could not be removed: {}", one_line(&error)),
                format!(
                    "mlflow.MlflowClient().delete_traces(\"{experiment}\", trace_ids=[\"{id}\"])"
                ),
            ),
            (Ok(()), Ok(())) => Finding::ok(format!(
                "sent to experiment {experiment}, in the table and compared after {took}, removed"
            )),
        }
    }

    async fn send_and_compare(&self, way: &Way, probe: &Probe) -> anyhow::Result<()> {
        way.send(probe).await.context("send")?;
        // Another table may be what cannot be written, so the table itself decides.
        let flushed = way.flush().await;
        match (self.read_back(probe).await?, flushed) {
            (Some(row), _) => probe.compare(&row),
            (None, Err(error)) => Err(error.context("acknowledged, but not in the table")),
            (None, Ok(())) => bail!("acknowledged and flushed, but not in the table"),
        }
    }

    async fn remove(&self, way: &Way, probe: &Probe) -> anyhow::Result<()> {
        way.delete(probe, &self.request.table).await?;
        let flushed = way.flush().await;
        match (self.read_back(probe).await?, flushed) {
            (None, _) => Ok(()),
            (Some(_), Err(error)) => Err(error),
            (Some(_), Ok(())) => bail!("deleted and flushed, but still in the table"),
        }
    }

    /// The row of the trace, from the table alone.
    async fn read_back(&self, probe: &Probe) -> anyhow::Result<Option<Value>> {
        let tables = LakeTables::new(self.lake.clone(), self.folder.clone());
        let engine = QueryEngine::new(Arc::new(tables), QueryLimits::default())?;
        // Table names quote themselves, and an id is nothing but hex digits.
        let sql = format!(
            "SELECT trace_id, experiment_id, trace_info, spans FROM {} WHERE trace_id = '{}'",
            self.request.table.to_sql(),
            probe.trace_id.to_mlflow()
        );
        let output = engine.query(&sql, &QueryOptions::default()).await?;
        let mut text = Vec::new();
        let options = RenderOptions::default();
        render(&output.schema, &output.batches, OutputFormat::Json, &mut text, &options)?;
        let rows: Vec<Value> = serde_json::from_slice(&text).context("read the row")?;
        ensure!(rows.len() <= 1, "the trace has {} rows", rows.len());
        Ok(rows.into_iter().next())
    }
}

fn one_line(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    text.lines().next().unwrap_or_default().to_owned()
}

impl Probe {
    fn new(experiment_id: &ExperimentId) -> Self {
        let random = Uuid::new_v4().simple().to_string();
        Self {
            trace_id: TraceId(*Uuid::new_v4().as_bytes()),
            span_id: random.chars().take(16).collect(),
            marker: Uuid::new_v4().to_string(),
            start_unix_nano: SystemClock.now_unix_nano().saturating_sub(SPAN_NANOS),
            experiment_id: experiment_id.clone(),
        }
    }

    fn trace_hex(&self) -> String {
        self.trace_id.to_mlflow().trim_start_matches("tr-").to_owned()
    }

    /// The request as OTLP's JSON.
    fn body(&self) -> Vec<u8> {
        let text = |value: &str| json!({"stringValue": value});
        let span = json!({
            "traceId": self.trace_hex(),
            "spanId": self.span_id,
            "name": SPAN_NAME,
            "kind": 1,
            "startTimeUnixNano": self.start_unix_nano.to_string(),
            "endTimeUnixNano": self.end_unix_nano().to_string(),
            "attributes": [{"key": MARKER, "value": text(&self.marker)}],
            "status": {"code": 1},
        });
        let scope = json!({"scope": {"name": MARKER}, "spans": [span]});
        let resource = json!({"attributes": [{"key": "service.name", "value": text("tracelake")}]});
        json!({"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]})
            .to_string()
            .into_bytes()
    }

    const fn end_unix_nano(&self) -> u64 {
        self.start_unix_nano.saturating_add(SPAN_NANOS)
    }

    /// Holds the row against what was sent.
    fn compare(&self, row: &Value) -> anyhow::Result<()> {
        let spans = row["spans"].as_array().map(Vec::as_slice).unwrap_or_default();
        let [span] = spans else { bail!("sent 1 span, the row has {}", spans.len()) };
        let nanos = |value: u64| json!(value);
        let marker = json!(json!(self.marker).to_string());
        let pairs = [
            ("experiment_id", &row["experiment_id"], json!(self.experiment_id.as_str())),
            ("trace_info.status", &row["trace_info"]["status"], json!("OK")),
            ("span_id", &span["span_id"], json!(self.span_id)),
            ("name", &span["name"], json!(SPAN_NAME)),
            ("status", &span["status"], json!("OK")),
            ("start_time_unix_nano", &span["start_time_unix_nano"], nanos(self.start_unix_nano)),
            ("end_time_unix_nano", &span["end_time_unix_nano"], nanos(self.end_unix_nano())),
            ("metadata", &span["metadata"][MARKER], marker),
        ];
        for (name, found, sent) in pairs {
            ensure!(*found == sent, "arrived altered: `{name}` is {found}, sent {sent}");
        }
        Ok(())
    }
}

impl Way {
    async fn send(&self, probe: &Probe) -> anyhow::Result<()> {
        let body = probe.body();
        match self {
            Self::Service(server) => {
                let url = format!("http://{}/v1/traces", server.http);
                let headers = [("x-mlflow-experiment-id", probe.experiment_id.to_string())];
                post(url, headers.into(), body).await.map(drop)
            }
            Self::Here(service) => {
                let submission = Submission {
                    kind: RecordKind::OtlpJson,
                    encoding: ContentEncoding::Identity,
                    experiment: Some(probe.experiment_id.clone()),
                    run_id: None,
                    trace_id: None,
                    payload: body.into(),
                };
                let accepted = service.intake.submit(submission).await?;
                ensure!(accepted.accepted_spans == 1, "refused: {}", accepted.message);
                Ok(())
            }
        }
    }

    async fn flush(&self) -> anyhow::Result<()> {
        match self {
            Self::Service(server) => {
                let server = server.clone();
                tokio::task::spawn_blocking(move || request_flush(&server)).await?.map(drop)
            }
            Self::Here(service) => {
                service.pipeline.flush().await.map(drop).map_err(anyhow::Error::msg)
            }
        }
    }

    async fn delete(&self, probe: &Probe, table: &TableName) -> anyhow::Result<()> {
        match self {
            Self::Service(server) => {
                let url = format!("http://{}/api/2.0/mlflow/traces/delete-traces", server.http);
                let body = json!({
                    "experiment_id": probe.experiment_id,
                    "request_ids": [probe.trace_id.to_mlflow()],
                });
                post(url, Vec::new(), body.to_string().into_bytes()).await.map(drop)
            }
            Self::Here(service) => {
                let route =
                    Route { experiment_id: probe.experiment_id.clone(), table: table.clone() };
                let changes =
                    TraceChanges { trace_id: probe.trace_id, changes: vec![TraceChange::Delete] };
                Ok(service.intake.submit_changes(vec![(route, changes)]).await?)
            }
        }
    }
}

/// Posts JSON; the answer must say success.
async fn post(
    url: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
) -> anyhow::Result<String> {
    tokio::task::spawn_blocking(move || {
        let mut request = agent(ACK_TIMEOUT).post(&url).content_type("application/json");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let mut answer = request.send(body.as_slice())?;
        let text = answer.body_mut().read_to_string().context("read the service's answer")?;
        let status = answer.status();
        ensure!(
            status.is_success(),
            "{} {}",
            status.as_u16(),
            tracelake_model::names::printable(&text)
        );
        Ok(text)
    })
    .await?
}
