//! MLflow's own JSON: `traces.json` and the bodies of its REST calls.

use tracelake_model::{ExperimentId, TraceInfo};

use crate::error::DecodeError;
use crate::request::Reject;

/// A `start_trace` body.
#[derive(Clone, Debug)]
pub struct StartTrace {
    /// Experiment that the trace belongs to.
    pub experiment_id: Option<ExperimentId>,
    /// What the client says of the trace.
    pub info: TraceInfo,
}

/// Transcodes MLflow's `traces.json` to OTLP protobuf.
///
/// # Errors
/// [`DecodeError`] when the document as a whole cannot be read.
pub fn traces_json_to_protobuf(
    _body: &[u8],
    _trace_id: Option<&str>,
) -> Result<(Vec<u8>, Vec<Reject>), DecodeError> {
    Err(DecodeError::Empty)
}

/// Reads the body of `POST /api/3.0/mlflow/traces`.
///
/// # Errors
/// [`DecodeError`] when the body is not a `StartTraceV3` request.
pub fn read_start_trace(_body: &[u8]) -> Result<StartTrace, DecodeError> {
    Err(DecodeError::Empty)
}
