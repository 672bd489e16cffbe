//! Traces as clients read them.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tracelake_decode::mlflow_json::write_trace_info;
use tracelake_model::names::printable;
use tracelake_model::{ExperimentId, TraceId};

use super::parameters::{Parameters, missing};
use super::reply::{Answer, JsonText, MlflowError, Reply};
use super::spans::write_spans;
use super::trace_info::{found_info, found_json, info_at, usual_location, version_2};
use super::trace_path::{TracePath, find, parse_trace_id, trace_id};
use crate::error::IntakeError;
use crate::intake::Intake;
use crate::receive::headers::parse_experiment;
use crate::trace_store::FoundTrace;

/// Traces that one call may ask for.
const MAX_TRACES: usize = 1_000;
/// Traces looked up at once.
const STEP: usize = 100;
/// Calls that hold spans at once; the others wait.
const MAX_SPAN_READS: usize = 4;
/// How long to wait for spans that were announced and are not there yet, as MLflow does.
const WAITS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];

/// Bounds the calls that hold whole traces, and so their memory.
#[derive(Clone, Debug)]
pub(super) struct SpanReads(Arc<Semaphore>);

impl SpanReads {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MAX_SPAN_READS)))
    }
}

/// `GET /3.0/mlflow/traces/{trace}`: what is known of the trace beside its spans.
pub(super) async fn get_info(
    State(intake): State<Arc<Intake>>,
    TracePath(trace_id): TracePath,
) -> Reply {
    let trace = find(&intake, trace_id).await?;
    Ok(Answer(json!({"trace": {"trace_info": found_json(&intake, &trace).await?}})))
}

/// `GET /2.0/mlflow/traces/{trace}/info`: the same for clients before MLflow 3.
pub(super) async fn get_info_version_2(
    State(intake): State<Arc<Intake>>,
    TracePath(trace_id): TracePath,
) -> Reply {
    let trace = find(&intake, trace_id).await?;
    let info = found_info(&intake, &trace).await?;
    Ok(Answer(json!({"trace_info": version_2(&info, &trace.route.experiment_id)})))
}

/// `GET /3.0/mlflow/traces/get?trace_id=&allow_partial=`: a trace with its spans. Unless a partial
/// one is allowed, spans that the client announced are waited for, for some seconds.
pub(super) async fn get_trace(
    State(intake): State<Arc<Intake>>,
    Extension(reads): Extension<SpanReads>,
    parameters: Parameters,
) -> Result<JsonText, MlflowError> {
    let text = parameters.required_text("trace_id")?;
    let allow_partial = parameters.flag("allow_partial")?;
    let id = trace_id(&text)?;
    let mut waits = WAITS.iter();
    loop {
        let reading = reads.0.acquire().await.map_err(|_| IntakeError::BrokenOff)?;
        let trace = find(&intake, id).await?;
        if allow_partial || is_complete(&trace) {
            let mut out = "{\"trace\":".to_owned();
            write_trace(&intake, &trace, &mut out).await?;
            out.push('}');
            return Ok(JsonText(out));
        }
        drop((trace, reading));
        let Some(wait) = waits.next() else {
            return Err(MlflowError::not_found(format!(
                "Trace with ID {} is not fully exported yet, please try again later.",
                printable(&text)
            )));
        };
        tokio::time::sleep(*wait).await;
    }
}

/// `GET /3.0/mlflow/traces/batchGet?trace_ids=&experiment_ids=`: the complete ones among these
/// traces, with their spans.
pub(super) async fn batch_get(
    State(intake): State<Arc<Intake>>,
    Extension(reads): Extension<SpanReads>,
    parameters: Parameters,
) -> Result<JsonText, MlflowError> {
    let wanted = Wanted::read(&parameters)?;
    let _reading = reads.0.acquire().await.map_err(|_| IntakeError::BrokenOff)?;
    let mut out = "{\"traces\":[".to_owned();
    let mut first = true;
    for step in wanted.traces.chunks(STEP) {
        for trace in wanted.find(&intake, step).await? {
            if is_complete(&trace) {
                if !first {
                    out.push(',');
                }
                first = false;
                write_trace(&intake, &trace, &mut out).await?;
            }
        }
    }
    out.push_str("]}");
    Ok(JsonText(out))
}

/// `POST /3.0/mlflow/traces/batchGetInfos`, `{"trace_ids", "experiment_ids"}`: what is known of
/// these traces beside their spans.
pub(super) async fn batch_get_infos(
    State(intake): State<Arc<Intake>>,
    parameters: Parameters,
) -> Reply {
    let wanted = Wanted::read(&parameters)?;
    let mut infos = Vec::new();
    for step in wanted.traces.chunks(STEP) {
        for trace in wanted.find(&intake, step).await? {
            infos.push(found_json(&intake, &trace).await?);
        }
    }
    Ok(Answer(json!({"trace_infos": infos})))
}

async fn write_trace(
    intake: &Intake,
    trace: &FoundTrace,
    out: &mut String,
) -> Result<(), MlflowError> {
    write_parts(&found_json(intake, trace).await?, trace, out);
    Ok(())
}

fn write_parts(info: &Value, trace: &FoundTrace, out: &mut String) {
    out.push_str("{\"trace_info\":");
    out.push_str(&info.to_string());
    out.push_str(",\"spans\":");
    write_spans(&trace.spans, out);
    out.push('}');
}

/// A trace as the answers of MLflow's tracking server have it, for callers in this process:
/// `{"trace_info": ..., "spans": [...]}`.
#[must_use]
pub fn mlflow_trace_json(trace: &FoundTrace) -> String {
    let id = &trace.route.experiment_id;
    let info = write_trace_info(&info_at(trace, &usual_location(id)), Some(id));
    let mut out = String::new();
    write_parts(&info, trace, &mut out);
    out
}

/// True when all spans are there that the client announced, and at least one.
fn is_complete(trace: &FoundTrace) -> bool {
    let left_out = usize::try_from(trace.left_out).unwrap_or(usize::MAX);
    trace.info.announced_spans().unwrap_or(1).max(1) <= trace.spans.len().saturating_add(left_out)
}

/// The traces that a call asks for.
struct Wanted {
    /// Each once, in the order asked for.
    traces: Vec<TraceId>,
    /// Of these experiments; of any without.
    experiments: Option<Vec<ExperimentId>>,
}

impl Wanted {
    fn read(parameters: &Parameters) -> Result<Self, MlflowError> {
        if !parameters.has("trace_ids") {
            return Err(missing("trace_ids"));
        }
        let texts = parameters.texts("trace_ids")?;
        if MAX_TRACES < texts.len() {
            return Err(MlflowError::invalid(format!(
                "At most {MAX_TRACES} trace ids are allowed in one request, received {}.",
                texts.len()
            )));
        }
        let mut traces: Vec<TraceId> = Vec::with_capacity(texts.len());
        for id in texts.iter().filter_map(|text| parse_trace_id(text)) {
            if !traces.contains(&id) {
                traces.push(id);
            }
        }
        let experiments = if parameters.has("experiment_ids") {
            let texts = parameters.texts("experiment_ids")?;
            Some(texts.iter().map(|text| parse_experiment(text)).collect::<Result<_, _>>()?)
        } else {
            None
        };
        Ok(Self { traces, experiments })
    }

    /// Those of `ids` that are there and in the experiments, in that order.
    async fn find(&self, intake: &Intake, ids: &[TraceId]) -> Result<Vec<FoundTrace>, MlflowError> {
        let mut found = intake.traces().find(ids).await?;
        if let Some(experiments) = &self.experiments {
            found.retain(|trace| experiments.contains(&trace.route.experiment_id));
        }
        found.sort_by_key(|trace| ids.iter().position(|id| *id == trace.info.trace_id));
        Ok(found)
    }
}
