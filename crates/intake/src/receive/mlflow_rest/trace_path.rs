//! The trace, and the assessment, that a path names; and the trace itself.

use axum::extract::{FromRequestParts, Path};
use http::request::Parts;
use tracelake_model::names::printable;
use tracelake_model::{TraceChange, TraceChanges, TraceId};

use super::reply::MlflowError;
use crate::intake::Intake;
use crate::trace_store::FoundTrace;

/// The trace of `/traces/{trace}/...`. A text that is no trace id names no trace.
#[derive(Clone, Copy, Debug)]
pub(super) struct TracePath(pub(super) TraceId);

/// The assessment of `/traces/{trace}/assessments/{assessment}`.
#[derive(Clone, Debug)]
pub(super) struct AssessmentPath {
    pub(super) trace_id: TraceId,
    pub(super) assessment_id: String,
}

impl<S: Send + Sync> FromRequestParts<S> for TracePath {
    type Rejection = MlflowError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, MlflowError> {
        let Path(text) =
            Path::<String>::from_request_parts(parts, state).await.map_err(|_| invalid_path())?;
        Ok(Self(trace_id(&text)?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for AssessmentPath {
    type Rejection = MlflowError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, MlflowError> {
        let Path((trace, assessment_id)) =
            Path::<(String, String)>::from_request_parts(parts, state)
                .await
                .map_err(|_| invalid_path())?;
        Ok(Self { trace_id: trace_id(&trace)?, assessment_id })
    }
}

fn invalid_path() -> MlflowError {
    MlflowError::invalid("Invalid path".to_owned())
}

/// The trace id that a client wrote, with or without `tr-`.
pub(super) fn parse_trace_id(text: &str) -> Option<TraceId> {
    TraceId::parse(text).filter(|id| id.is_valid())
}

/// The same where it must name a trace.
pub(super) fn trace_id(text: &str) -> Result<TraceId, MlflowError> {
    parse_trace_id(text).ok_or_else(|| unknown(text))
}

/// The answer for a trace that is not there.
pub(super) fn unknown(id: &str) -> MlflowError {
    MlflowError::not_found(format!("Trace with ID '{}' not found.", printable(id)))
}

/// The trace as it is.
pub(super) async fn find(intake: &Intake, id: TraceId) -> Result<FoundTrace, MlflowError> {
    let found = intake.traces().find(&[id]).await?;
    found
        .into_iter()
        .find(|trace| trace.info.trace_id == id)
        .ok_or_else(|| unknown(&id.to_mlflow()))
}

/// Refuses to change a trace that its table keeps as it is: what could never be done is not acknowledged.
pub(super) fn check_changeable(trace: &FoundTrace) -> Result<(), MlflowError> {
    match &trace.fixed {
        None => Ok(()),
        Some(reason) => Err(MlflowError::permission_denied(format!(
            "Trace with ID '{}' cannot be changed: {}.",
            trace.info.trace_id.to_mlflow(),
            printable(reason)
        ))),
    }
}

/// Refuses what would make a trace say more than one may: each change of it writes all of that anew.
pub(super) fn check_room(trace: &FoundTrace, changes: &[TraceChange]) -> Result<(), MlflowError> {
    match trace.info.overflow(changes) {
        None => Ok(()),
        Some(limit) => Err(MlflowError::invalid(format!(
            "Trace with ID '{}' is full: a trace may have at most {limit}.",
            trace.info.trace_id.to_mlflow()
        ))),
    }
}

/// Makes changes to one trace durable.
pub(super) async fn change(
    intake: &Intake,
    trace: &FoundTrace,
    changes: Vec<TraceChange>,
) -> Result<(), MlflowError> {
    check_changeable(trace)?;
    check_room(trace, &changes)?;
    let changes = TraceChanges { trace_id: trace.info.trace_id, changes };
    intake.submit_changes(vec![(trace.route.clone(), changes)]).await?;
    Ok(())
}
