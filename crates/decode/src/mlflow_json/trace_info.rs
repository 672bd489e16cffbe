//! `TraceInfoV3`: what MLflow's client says of a whole trace, read and written.

use tracelake_model::{Assessment, ExperimentId, TraceId, TraceInfo, TraceState};

use super::assessment::{assessment, assessment_json};
use super::messages::{MembersWriter, Message, shape, to_value};
use super::time::{duration_of_ms, rfc3339_of_micros};
use crate::error::DecodeError;
use crate::otlp_json::document::{self, Json};
use crate::otlp_json::members::{Fault, Path, list, object, text};

/// A `start_trace` body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartTrace {
    /// Experiment that the trace belongs to.
    pub experiment_id: Option<ExperimentId>,
    /// What the client says of the trace.
    pub info: TraceInfo,
}

/// Reads the body of `POST /api/3.0/mlflow/traces`, `{"trace": {"trace_info": {...}}}`.
///
/// # Errors
/// [`DecodeError::Json`] when the body is not JSON, [`DecodeError::Shape`] when it is not a
/// `StartTraceV3` request: a member has another type, or the trace id is not `tr-` and 32 hex
/// digits.
pub fn read_start_trace(body: &[u8]) -> Result<StartTrace, DecodeError> {
    let body = String::from_utf8_lossy(body);
    let document = document::parse(&body)?;
    start_trace(&document).map_err(shape)
}

/// `info` as the `trace_info` JSON of MLflow's answers.
#[must_use]
pub fn write_trace_info(
    info: &TraceInfo,
    experiment_id: Option<&ExperimentId>,
) -> serde_json::Value {
    to_value(&trace_info_json(info, experiment_id))
}

/// A `start_trace` body that says what `info` says: [`read_start_trace`] gives back the same, to
/// the microsecond and digit. Times outside of the years 1 to 9999 are left out.
#[must_use]
pub fn start_trace_body(info: &TraceInfo, experiment_id: Option<&ExperimentId>) -> Vec<u8> {
    let trace_info = trace_info_json(info, experiment_id);
    let trace = Json::Object(vec![("trace_info".into(), trace_info)]);
    Json::Object(vec![("trace".into(), trace)]).to_text().into_bytes()
}

fn start_trace(document: &Json<'_>) -> Result<StartTrace, Fault> {
    object(document, Path::Root)?;
    let trace_path = Path::Root.member("trace");
    let trace = document.member(&["trace"]).unwrap_or(&Json::Null);
    object(trace, trace_path)?;
    let value = trace.member(&["trace_info", "traceInfo"]).unwrap_or(&Json::Null);
    let message = Message::new(value, trace_path.member("trace_info"))?;
    let trace_id = message.read(&["trace_id", "traceId"], |value, path| {
        let id = TraceId::parse(text(value, path)?).filter(|id| id.is_valid());
        id.ok_or_else(|| path.expected("tr- and 32 hex digits", value))
    })?;
    let execution_duration_ms =
        match message.duration(&["execution_duration", "executionDuration"])? {
            Some(millis) => Some(millis),
            // The form of MLflow's `Trace.to_json`.
            None => message.integer(&["execution_duration_ms", "executionDurationMs"])?,
        };
    let assessments = message.read(&["assessments", "assessments"], |value, path| {
        let assessments = list(value, path)?.iter().enumerate();
        assessments.map(|(index, value)| assessment(value, path.element(index))).collect()
    })?;
    let trace_id = trace_id.ok_or_else(|| {
        message.path.member("trace_id").expected("tr- and 32 hex digits", &Json::Null)
    })?;
    let info = TraceInfo {
        client_request_id: message.text(&["client_request_id", "clientRequestId"])?,
        request_time_micros: message.time(&["request_time", "requestTime"])?,
        execution_duration_ms,
        state: message.read(&["state", "state"], state)?.unwrap_or(TraceState::Unspecified),
        request_preview: message.text(&["request_preview", "requestPreview"])?,
        response_preview: message.text(&["response_preview", "responsePreview"])?,
        trace_metadata: message.map(&["trace_metadata", "traceMetadata"])?,
        tags: message.map(&["tags", "tags"])?,
        assessments: assessments.unwrap_or_default(),
        ..TraceInfo::new(trace_id)
    };
    Ok(StartTrace { experiment_id: experiment(&message)?, info })
}

/// The experiment named by `trace_location`; a location of another type names none.
fn experiment(message: &Message<'_, '_, '_>) -> Result<Option<ExperimentId>, Fault> {
    let found = message.read(&["trace_location", "traceLocation"], |location, path| {
        Message::new(location, path)?.read(
            &["mlflow_experiment", "mlflowExperiment"],
            |experiment, path| {
                Message::new(experiment, path)?.read(&["experiment_id", "experimentId"], id)
            },
        )
    })?;
    Ok(found.flatten().flatten())
}

fn id(value: &Json<'_>, path: Path<'_>) -> Result<ExperimentId, Fault> {
    let digits = match value {
        Json::Number(digits) => digits,
        value => text(value, path)?,
    };
    digits.parse().map_err(|_| path.expected("an experiment id, a decimal number", value))
}

fn state(value: &Json<'_>, path: Path<'_>) -> Result<TraceState, Fault> {
    match value {
        Json::Text(name) => Ok(TraceState::parse(name)),
        Json::Number("0") => Ok(TraceState::Unspecified),
        Json::Number("1") => Ok(TraceState::Ok),
        Json::Number("2") => Ok(TraceState::Error),
        Json::Number("3") => Ok(TraceState::InProgress),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_) => {
            Err(path.expected("OK, ERROR or IN_PROGRESS", value))
        }
    }
}

fn trace_info_json<'a>(info: &'a TraceInfo, experiment_id: Option<&'a ExperimentId>) -> Json<'a> {
    let mut out = MembersWriter::default();
    out.owned_text("trace_id", Some(info.trace_id.to_mlflow()));
    out.text("client_request_id", info.client_request_id.as_deref());
    if let Some(experiment_id) = experiment_id {
        let mut experiment = MembersWriter::default();
        experiment.text("experiment_id", Some(experiment_id.as_str()));
        let mut location = MembersWriter::default();
        location.text("type", Some("MLFLOW_EXPERIMENT"));
        location.json("mlflow_experiment", experiment.into_object());
        out.json("trace_location", location.into_object());
    }
    out.owned_text("request_time", info.request_time_micros.and_then(rfc3339_of_micros));
    out.owned_text("execution_duration", info.execution_duration_ms.map(duration_of_ms));
    out.text("state", Some(info.state.as_str()));
    out.map("trace_metadata", &info.trace_metadata);
    out.map("tags", &info.tags);
    out.text("request_preview", info.request_preview.as_deref());
    out.text("response_preview", info.response_preview.as_deref());
    if !info.assessments.is_empty() {
        let write = |assessment: &'a Assessment| assessment_json(assessment, Some(info.trace_id));
        out.json("assessments", Json::Array(info.assessments.iter().map(write).collect()));
    }
    out.into_object()
}
