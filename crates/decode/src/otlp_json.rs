//! OTLP JSON, transcoded to OTLP protobuf.

use crate::error::DecodeError;
use crate::request::Reject;

/// Transcodes an `ExportTraceServiceRequest` in JSON.
///
/// # Errors
/// [`DecodeError`] when the document as a whole cannot be read.
pub fn to_protobuf(_body: &[u8]) -> Result<(Vec<u8>, Vec<Reject>), DecodeError> {
    Err(DecodeError::Empty)
}
