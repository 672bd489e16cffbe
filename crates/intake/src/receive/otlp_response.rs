//! OTLP's answers, written by hand: `ExportTraceServiceResponse` and `google.rpc.Status`.
//!
//! Source: opentelemetry-proto `trace_service.proto`, googleapis `google/rpc/status.proto` and
//! `error_details.proto`.

use std::time::Duration;

use serde_json::{Map, Value, json};
use tracelake_decode::otlp::fields::{
    any, duration, export_response, partial_success, retry_info, rpc_status,
};
use tracelake_decode::writer::MessageWriter;

use crate::intake::Accepted;

const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// `ExportTraceServiceResponse` as protobuf: empty when all was kept.
pub(super) fn export_response(accepted: &Accepted) -> Vec<u8> {
    let mut response = MessageWriter::new();
    if !accepted.message.is_empty() {
        response.message(export_response::PARTIAL_SUCCESS, |partial| {
            partial.number_nonzero(partial_success::REJECTED_SPANS, accepted.rejected_spans as u64);
            partial.bytes(partial_success::ERROR_MESSAGE, accepted.message.as_bytes());
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
    status.number_nonzero(rpc_status::CODE, u64::try_from(code).unwrap_or_default());
    status.bytes_nonzero(rpc_status::MESSAGE, message.as_bytes());
    if let Some(delay) = retry_after {
        status.message(rpc_status::DETAILS, |any| {
            any.bytes(any::TYPE_URL, RETRY_INFO.as_bytes());
            any.message(any::VALUE, |retry_info| {
                retry_info.message(retry_info::RETRY_DELAY, |duration| {
                    duration.number_nonzero(duration::SECONDS, delay.as_secs());
                    duration.number_nonzero(duration::NANOS, u64::from(delay.subsec_nanos()));
                });
            });
        });
    }
    status.into_bytes()
}
