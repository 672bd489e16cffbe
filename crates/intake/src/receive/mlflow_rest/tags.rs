//! `/mlflow/traces/{trace}/tags`.

use std::sync::Arc;

use axum::extract::State;
use tracelake_decode::mlflow_keys::{
    ARCHIVAL_FAILURE, ARCHIVE_LOCATION, ARTIFACT_LOCATION, SPANS_LOCATION, TRACE_NAME,
};
use tracelake_model::TraceChange;
use tracelake_model::names::printable;
use tracelake_registry::check_tag_key;

use super::parameters::Parameters;
use super::reply::{Answer, MlflowError, Reply};
use super::trace_path::{TracePath, change, find};
use crate::intake::Intake;

/// Longest value; MLflow cuts a longer one, and so does this.
const MAX_VALUE_CHARS: usize = 8_000;
const MAX_NAME_CHARS: usize = 4_096;

/// `PATCH`, `{"key", "value"}`: the tag has this value.
///
/// Tags in which a server keeps its books cannot be set: MLflow's three, and
/// `mlflow.artifactLocation`, which MLflow's client does not set either.
pub(super) async fn set(
    State(intake): State<Arc<Intake>>,
    TracePath(trace_id): TracePath,
    parameters: Parameters,
) -> Reply {
    let key = parameters.required_text("key")?;
    let value = parameters.text("value")?.unwrap_or_default();
    if [SPANS_LOCATION, ARCHIVE_LOCATION, ARCHIVAL_FAILURE, ARTIFACT_LOCATION]
        .contains(&key.as_str())
    {
        return Err(immutable(&key, "set"));
    }
    check_tag_key(&key)?;
    let value: String = value.chars().take(MAX_VALUE_CHARS).collect();
    if key == TRACE_NAME && MAX_NAME_CHARS < value.chars().count() {
        return Err(MlflowError::invalid(format!(
            "'Trace name' exceeds the maximum length of {MAX_NAME_CHARS} characters"
        )));
    }
    let held = intake.lock_traces(&[trace_id]).await;
    let trace = find(&intake, trace_id).await?;
    change(&intake, &trace, vec![TraceChange::SetTag { key, value }]).await?;
    drop(held);
    Ok(Answer::empty())
}

/// `DELETE`, `{"key"}`: there is no tag of this key, wherever it came from.
pub(super) async fn delete(
    State(intake): State<Arc<Intake>>,
    TracePath(trace_id): TracePath,
    parameters: Parameters,
) -> Reply {
    let key = parameters.required_text("key")?;
    if [SPANS_LOCATION, ARCHIVE_LOCATION].contains(&key.as_str()) {
        return Err(immutable(&key, "deleted"));
    }
    let held = intake.lock_traces(&[trace_id]).await;
    let trace = find(&intake, trace_id).await?;
    if !trace.info.tags.contains_key(&key) {
        return Err(MlflowError::not_found(format!(
            "No trace tag with key '{}' for trace with ID '{}'",
            printable(&key),
            trace_id.to_mlflow()
        )));
    }
    change(&intake, &trace, vec![TraceChange::DeleteTag { key }]).await?;
    drop(held);
    Ok(Answer::empty())
}

fn immutable(key: &str, operation: &str) -> MlflowError {
    MlflowError::invalid(format!("Tag '{key}' is immutable and cannot be {operation} on a trace."))
}
