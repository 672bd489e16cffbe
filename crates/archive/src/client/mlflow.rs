//! Rows of a traces table as MLflow's own traces.

use tracelake_intake::mlflow_trace_json;
use tracelake_lake::rows::rebuild_traces;
use tracelake_model::TableName;

use super::answer::Answer;
use crate::fault::{Fault, FaultKind};
use crate::service::trace_store::found_trace;

/// Columns without which rows tell of no trace. Tables of other writers may have no more.
const NEEDED: [&str; 4] = ["trace_id", "experiment_id", "trace_info", "spans"];

/// Each trace as the JSON of a `Trace` that MLflow's tracking server answers, in the order of the
/// rows: `{"trace_info": ..., "spans": [...]}`.
///
/// # Errors
/// [`FaultKind::InvalidParameterValue`] when the rows are not whole rows of a traces table.
pub fn mlflow_traces(answer: &Answer) -> Result<Vec<String>, Fault> {
    let wrong = |reason: &str| {
        let message = format!("rows as MLflow traces: {reason}");
        Fault::new(FaultKind::InvalidParameterValue, message)
            .with_hint("ask for whole rows: query_archived_traces(), get_trace(), SELECT *")
    };
    if let Some(name) = NEEDED.iter().find(|name| answer.schema.field_with_name(name).is_err()) {
        return Err(wrong(&format!("no column `{name}`")));
    }
    let table = TableName::new("tracelake", "default", "traces").map_err(anyhow::Error::new)?;
    let mut traces = Vec::new();
    for batch in &answer.batches {
        let drafts = rebuild_traces(batch).map_err(|error| wrong(&error.to_string()))?;
        // Parts have spans of a trace whose row stands for it.
        for draft in drafts.into_iter().filter(|draft| draft.part.is_none()) {
            traces.push(mlflow_trace_json(&found_trace(table.clone(), draft)));
        }
    }
    Ok(traces)
}
