//! `trace_info` as answers have it: what is known, and what MLflow's server adds to it.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tracelake_decode::SpanRecord;
use tracelake_decode::conventions::interpret_trace;
use tracelake_decode::mlflow_json::write_trace_info;
use tracelake_decode::mlflow_keys;
use tracelake_model::{ExperimentId, TokenUsage, TraceCost, TraceInfo, TraceState};

use super::reply::MlflowError;
use crate::intake::Intake;
use crate::trace_store::FoundTrace;

/// Adds the tags that MLflow's server keeps on every trace. Without `TRACKING_STORE` the client
/// would upload the spans once more, and would not ask this service for them.
pub(super) fn with_bookkeeping(mut info: TraceInfo, artifact_location: &str) -> TraceInfo {
    let artifacts = format!(
        "{}/traces/{}/artifacts",
        artifact_location.trim_end_matches('/'),
        info.trace_id.to_mlflow()
    );
    info.tags.insert(mlflow_keys::ARTIFACT_LOCATION.into(), artifacts);
    info.tags.insert(mlflow_keys::SPANS_LOCATION.into(), "TRACKING_STORE".into());
    info
}

/// The same of a trace that was found, with where it belongs.
pub(super) async fn found_info(
    intake: &Intake,
    trace: &FoundTrace,
) -> Result<TraceInfo, MlflowError> {
    let id = &trace.route.experiment_id;
    let known = intake.registry().experiment_route(id).await?;
    // A table may come with traces of experiments that this registry has never had.
    let location = known.map_or_else(|| usual_location(id), |known| known.artifact_location);
    Ok(info_at(trace, &location))
}

/// Where the artifacts of an experiment are unless it says otherwise.
pub(super) fn usual_location(id: &ExperimentId) -> String {
    format!("mlflow-artifacts:/{id}")
}

/// All that is known of the trace, its artifacts being below those of its experiment.
pub(super) fn info_at(trace: &FoundTrace, artifact_location: &str) -> TraceInfo {
    let mut info = with_bookkeeping(trace.info.clone(), artifact_location);
    if !trace.spans.is_empty() {
        add_derived_metadata(&mut info.trace_metadata, &trace.spans);
    }
    info
}

/// MLflow shows what it reads from spans as metadata, where the client has not said the same
/// itself. The table has columns for it.
fn add_derived_metadata(metadata: &mut BTreeMap<String, String>, spans: &[SpanRecord]) {
    let meaning = interpret_trace(spans);
    let mut add = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            metadata.entry(key.to_owned()).or_insert(value);
        }
    };
    add(mlflow_keys::TRACE_SESSION, meaning.session_id);
    add(mlflow_keys::TRACE_USER, meaning.user_id);
    add(mlflow_keys::TRACE_TOKEN_USAGE, usage_text(&meaning.usage));
    add(mlflow_keys::TRACE_COST, cost_text(&meaning.cost));
}

fn usage_text(usage: &TokenUsage) -> Option<String> {
    object_text(&[
        ("input_tokens", usage.input_tokens.map(|count| count.to_string())),
        ("output_tokens", usage.output_tokens.map(|count| count.to_string())),
        ("total_tokens", usage.total_tokens.map(|count| count.to_string())),
        ("cache_read_input_tokens", usage.cache_read_input_tokens.map(|count| count.to_string())),
        (
            "cache_creation_input_tokens",
            usage.cache_creation_input_tokens.map(|count| count.to_string()),
        ),
    ])
}

fn cost_text(cost: &TraceCost) -> Option<String> {
    // JSON has no infinite numbers.
    let text = |cost: Option<f64>| cost.filter(|cost| cost.is_finite()).map(|c| format!("{c:?}"));
    object_text(&[
        ("input_cost", text(cost.input_cost)),
        ("output_cost", text(cost.output_cost)),
        ("total_cost", text(cost.total_cost)),
    ])
}

/// A JSON object of the numbers that are known, with blanks as Python writes it.
fn object_text(members: &[(&str, Option<String>)]) -> Option<String> {
    let known: Vec<String> = members
        .iter()
        .filter_map(|(name, number)| Some(format!("\"{name}\": {}", number.as_deref()?)))
        .collect();
    (!known.is_empty()).then(|| format!("{{{}}}", known.join(", ")))
}

/// `trace_info` of version 3.
pub(super) async fn found_json(intake: &Intake, trace: &FoundTrace) -> Result<Value, MlflowError> {
    let info = found_info(intake, trace).await?;
    Ok(write_trace_info(&info, Some(&trace.route.experiment_id)))
}

/// `trace_info` of version 2, for clients before MLflow 3.
pub(super) fn version_2(info: &TraceInfo, experiment_id: &ExperimentId) -> Value {
    let pairs = |map: &BTreeMap<String, String>| -> Value {
        map.iter().map(|(key, value)| json!({"key": key, "value": value})).collect()
    };
    let status = match info.state {
        TraceState::Unspecified => "TRACE_STATUS_UNSPECIFIED",
        state @ (TraceState::Ok | TraceState::Error | TraceState::InProgress) => state.as_str(),
    };
    json!({
        "request_id": info.trace_id.to_mlflow(),
        "experiment_id": experiment_id.as_str(),
        "timestamp_ms": info.request_time_micros.map_or(0, |micros| micros.div_euclid(1_000)),
        "execution_time_ms": info.execution_duration_ms.unwrap_or(0),
        "status": status,
        "request_metadata": pairs(&info.trace_metadata),
        "tags": pairs(&info.tags),
    })
}
