//! `/mlflow/traces/link-to-run`.

use std::sync::Arc;

use axum::extract::State;
use tracelake_model::names::printable;
use tracelake_model::{TraceChange, TraceChanges, TraceId};

use super::parameters::{Parameters, missing};
use super::reply::{Answer, MlflowError, Reply};
use super::trace_path::{check_changeable, check_room, parse_trace_id};
use crate::intake::Intake;

const MAX_TRACES: usize = 100;
const MAX_RUN_ID_CHARS: usize = 256;

/// `POST`, `{"trace_ids", "run_id"}`: the traces are linked to the run.
///
/// This service keeps no runs. A run id is taken when it has the form that MLflow demands of one:
/// up to 256 letters, digits, `_` and `-`, the first a letter or digit. Traces that are not there
/// are passed over.
pub(super) async fn link_to_run(
    State(intake): State<Arc<Intake>>,
    parameters: Parameters,
) -> Reply {
    if !parameters.has("trace_ids") {
        return Err(missing("trace_ids"));
    }
    let traces = parameters.texts("trace_ids")?;
    let run_id = parameters.required_text("run_id")?;
    if MAX_TRACES < traces.len() {
        return Err(MlflowError::invalid(format!(
            "Cannot link more than {MAX_TRACES} traces to a run in a single request. Provided {} \
             traces.",
            traces.len()
        )));
    }
    if !is_run_id(&run_id) {
        return Err(MlflowError::invalid(format!(
            "Invalid value \"{}\" for parameter 'run_id' supplied.",
            printable(&run_id)
        )));
    }
    let ids: Vec<TraceId> = traces.iter().filter_map(|text| parse_trace_id(text)).collect();
    let held = intake.lock_traces(&ids).await;
    let link = |trace: crate::FoundTrace| {
        let changes = vec![TraceChange::LinkRun { run_id: run_id.clone() }];
        (trace.route, TraceChanges { trace_id: trace.info.trace_id, changes })
    };
    let found = intake.traces().find(&ids).await?;
    found.iter().try_for_each(check_changeable)?;
    let linked = [TraceChange::LinkRun { run_id: run_id.clone() }];
    found.iter().try_for_each(|trace| check_room(trace, &linked))?;
    let changes = found.into_iter().map(link).collect();
    intake.submit_changes(changes).await?;
    drop(held);
    Ok(Answer::empty())
}

fn is_run_id(text: &str) -> bool {
    text.chars().count() <= MAX_RUN_ID_CHARS
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-')
}
