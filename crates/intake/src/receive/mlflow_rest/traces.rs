//! What the client writes of a trace beside its OTLP spans.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use http::{HeaderMap, header};
use serde_json::{Value, json};
use tracelake_decode::RecordKind;
use tracelake_decode::mlflow_json::write_trace_info;
use tracelake_model::TraceId;
use tracelake_model::names::printable;
use tracelake_model::trace_info::INFO_FINALIZED;

use super::parameters::{Parameters, missing, require_json, wrong_type};
use super::reply::{Answer, MlflowError, Reply};
use super::trace_info::with_bookkeeping;
use crate::error::IntakeError;
use crate::intake::{Intake, StartedTrace, Submission};
use crate::receive::{ReadBody, admit_and_read, headers};

/// `POST /api/3.0/mlflow/traces`, which the client sends when a trace ended.
///
/// The answer must say that spans are in the tracking store, or the client uploads them again.
pub(super) async fn start_trace(
    State(intake): State<Arc<Intake>>,
    request_headers: HeaderMap,
    body: Body,
) -> Reply {
    require_json(&request_headers)?;
    let encoding = headers::encoding(&request_headers, &header::CONTENT_ENCODING)?;
    let limit = intake.limits().max_body_bytes as u64;
    let ReadBody { bytes, reservation } =
        admit_and_read(&intake, &request_headers, body, limit).await?;
    let started = intake.submit_start_trace(encoding, bytes).await?;
    drop(reservation);
    Ok(Answer(json!({"trace": {"trace_info": answer_info(started)}})))
}

fn answer_info(started: StartedTrace) -> Value {
    let StartedTrace { start, experiment_id, artifact_location } = started;
    let mut info = with_bookkeeping(start.info, &artifact_location);
    info.trace_metadata.insert(INFO_FINALIZED.into(), "true".into());
    write_trace_info(&info, Some(&experiment_id))
}

/// `PUT .../traces.json`: the spans of one trace, from a client that does not send OTLP.
pub(super) async fn put_traces_json(
    State(intake): State<Arc<Intake>>,
    path: Result<Path<(String, String)>, PathRejection>,
    request_headers: HeaderMap,
    body: Body,
) -> Reply {
    let Path((experiment, trace)) =
        path.map_err(|_| MlflowError::invalid("Invalid path".to_owned()))?;
    let experiment = headers::parse_experiment(&experiment)?;
    let trace_id = trace_id("trace_id", &trace)?;
    let encoding = headers::encoding(&request_headers, &header::CONTENT_ENCODING)?;
    let limit = intake.limits().max_body_bytes as u64;
    let ReadBody { bytes, reservation } =
        admit_and_read(&intake, &request_headers, body, limit).await?;
    let accepted = intake
        .submit(Submission {
            kind: RecordKind::MlflowTracesJson,
            encoding,
            experiment: Some(experiment),
            run_id: None,
            trace_id: Some(trace_id),
            payload: bytes,
        })
        .await?;
    drop(reservation);
    // This call has no partial success: where nothing was kept it fails, otherwise it is logged.
    if 0 < accepted.rejected_spans {
        if accepted.accepted_spans == 0 {
            return Err(IntakeError::AllRejected { message: accepted.message }.into());
        }
        tracing::warn!(%trace_id, reasons = accepted.message, "spans of traces.json rejected");
    }
    Ok(Answer::empty())
}

/// `POST .../link-prompts`: checked and answered, not kept. The client has put the same links into
/// the tag `mlflow.linkedPrompts` of the `start_trace` that it sent before.
pub(super) async fn link_prompts(parameters: Parameters) -> Reply {
    trace_id("trace_id", &parameters.required_text("trace_id")?)?;
    let versions = parameters.list("prompt_versions")?;
    if versions.is_empty() {
        return Err(missing("prompt_versions"));
    }
    for version in versions {
        if version.get("name").and_then(Value::as_str).is_none() {
            return Err(wrong_type("prompt_versions", version));
        }
    }
    Ok(Answer::empty())
}

fn trace_id(parameter: &'static str, text: &str) -> Result<TraceId, IntakeError> {
    TraceId::parse(text)
        .filter(|id| id.is_valid())
        .ok_or_else(|| IntakeError::InvalidParameter { parameter, value: printable(text) })
}
