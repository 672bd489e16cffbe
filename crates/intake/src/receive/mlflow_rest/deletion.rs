//! `/mlflow/traces/delete-traces`.

use std::sync::Arc;

use axum::extract::State;
use serde_json::json;
use tracelake_model::{ExperimentId, TraceChange, TraceChanges, TraceId};

use super::parameters::Parameters;
use super::reply::{Answer, MlflowError, Reply};
use super::trace_path::{check_changeable, parse_trace_id};
use crate::intake::Intake;

/// Traces deleted in one step. Each step is durable by itself.
const STEP: usize = 100;

/// `POST`, `{"experiment_id", "request_ids"}` or `{"experiment_id", "max_timestamp_millis",
/// "max_traces"}`: these traces are gone, or the oldest up to that time, by their request time.
///
/// Traces of another experiment and those that are not there are passed over. The answer counts
/// the traces that were there. A call that fails on the way has deleted some; it can be repeated.
pub(super) async fn delete_traces(
    State(intake): State<Arc<Intake>>,
    parameters: Parameters,
) -> Reply {
    let experiment_id = parameters.experiment_id()?;
    let until_unix_milli = parameters.number("max_timestamp_millis")?;
    let max_traces = parameters.number("max_traces")?;
    let request_ids = parameters.texts("request_ids")?;
    let deleted = match until_unix_milli {
        None if request_ids.is_empty() => {
            Err(invalid("Either `max_timestamp_millis` or `trace_ids` must be specified."))
        }
        Some(_) if !request_ids.is_empty() => {
            Err(invalid("Only one of `max_timestamp_millis` and `trace_ids` can be specified."))
        }
        None if max_traces.is_some() => {
            Err(invalid("`max_traces` can't be specified if `trace_ids` is specified."))
        }
        None => by_id(&intake, &experiment_id, &request_ids).await,
        Some(until) => {
            let most = most_traces(max_traces)?;
            by_age(&intake, &experiment_id, until, most).await
        }
    }?;
    Ok(Answer(json!({"traces_deleted": deleted})))
}

fn invalid(message: &str) -> MlflowError {
    MlflowError::invalid(message.to_owned())
}

fn most_traces(max_traces: Option<i64>) -> Result<usize, MlflowError> {
    match max_traces {
        None => Ok(usize::MAX),
        Some(most) if most < 1 => Err(MlflowError::invalid(format!(
            "`max_traces` must be a positive integer, received {most}."
        ))),
        Some(most) => Ok(usize::try_from(most).unwrap_or(usize::MAX)),
    }
}

async fn by_id(
    intake: &Intake,
    experiment_id: &ExperimentId,
    request_ids: &[String],
) -> Result<usize, MlflowError> {
    let mut ids: Vec<TraceId> = request_ids.iter().filter_map(|id| parse_trace_id(id)).collect();
    ids.sort_unstable_by_key(|id| id.0);
    ids.dedup();
    let mut deleted = 0;
    for step in ids.chunks(STEP) {
        deleted += delete_step(intake, experiment_id, step).await?;
    }
    Ok(deleted)
}

async fn by_age(
    intake: &Intake,
    experiment_id: &ExperimentId,
    until_unix_milli: i64,
    most: usize,
) -> Result<usize, MlflowError> {
    let mut deleted = 0;
    while deleted < most {
        let limit = STEP.min(most - deleted);
        let ids = intake.traces().older_than(experiment_id, until_unix_milli, limit).await?;
        let gone = delete_step(intake, experiment_id, &ids).await?;
        // Nothing left, or another call is deleting the same ones at this moment.
        if gone == 0 {
            break;
        }
        deleted += gone;
    }
    Ok(deleted)
}

/// Deletes those of `ids` that are there and in the experiment; gives their number.
async fn delete_step(
    intake: &Intake,
    experiment_id: &ExperimentId,
    ids: &[TraceId],
) -> Result<usize, MlflowError> {
    if ids.is_empty() {
        return Ok(0);
    }
    let held = intake.lock_traces(ids).await;
    let mut found = intake.traces().find(ids).await?;
    found.retain(|trace| trace.route.experiment_id == *experiment_id);
    found.iter().try_for_each(check_changeable)?;
    let changes: Vec<_> = found
        .into_iter()
        .map(|trace| {
            let trace_id = trace.info.trace_id;
            (trace.route, TraceChanges { trace_id, changes: vec![TraceChange::Delete] })
        })
        .collect();
    let deleted = changes.len();
    intake.submit_changes(changes).await?;
    drop(held);
    Ok(deleted)
}
