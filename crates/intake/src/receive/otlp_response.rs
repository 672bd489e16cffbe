//! OTLP's answers, written by hand: `ExportTraceServiceResponse` and `google.rpc.Status`.
//!
//! Source: opentelemetry-proto `trace_service.proto`, googleapis `google/rpc/status.proto` and
//! `error_details.proto`.

use std::time::Duration;

use serde_json::{Map, Value, json};
use tracelake_decode::writer::MessageWriter;

use crate::intake::Accepted;

const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// `ExportTraceServiceResponse` as protobuf: empty when all was kept.
pub(super) fn export_response(accepted: &Accepted) -> Vec<u8> {
    let mut response = MessageWriter::new();
    if !accepted.message.is_empty() {
        response.message(1, |partial| {
            partial.number_nonzero(1, accepted.rejected_spans as u64);
            partial.bytes(2, accepted.message.as_bytes());
        });
    }
    response.into_bytes()
}

/// `ExportTraceServiceResponse` as JSON; 64-bit numbers are strings there.
pub(super) fn export_response_json(accepted: &Accepted) -> Value {
    if accepted.message.is_empty() {
        return Value::Object(Map::new());
    }
    json!({"partialSuccess": {
        "rejectedSpans": accepted.rejected_spans.to_string(),
        "errorMessage": accepted.message,
    }})
}

/// `google.rpc.Status` as protobuf, with `RetryInfo` where the sender should come back.
pub(super) fn status(code: i32, message: &str, retry_after: Option<Duration>) -> Vec<u8> {
    let mut status = MessageWriter::new();
    status.number_nonzero(1, u64::try_from(code).unwrap_or_default());
    status.bytes_nonzero(2, message.as_bytes());
    if let Some(delay) = retry_after {
        status.message(3, |any| {
            any.bytes(1, RETRY_INFO.as_bytes());
            any.message(2, |retry_info| {
                retry_info.message(1, |duration| {
                    duration.number_nonzero(1, delay.as_secs());
                    duration.number_nonzero(2, u64::from(delay.subsec_nanos()));
                });
            });
        });
    }
    status.into_bytes()
}
