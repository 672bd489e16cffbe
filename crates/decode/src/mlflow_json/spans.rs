//! MLflow's span JSON, transcoded to OTLP protobuf.

use tracelake_model::TraceId;

use super::attributes::{self, Encoding, decoded_text};
use super::messages::shape;
use crate::error::DecodeError;
use crate::mlflow_keys;
use crate::otlp::fields::{event, export_request, link, resource_spans, scope_spans, span, status};
use crate::otlp_json::document::{self, Json};
use crate::otlp_json::members::{Fault, Path, id_bytes, list, object, text};
use crate::otlp_json::rejects::Rejects;
use crate::otlp_json::span::{self as otlp_span, SpanForm, write_span_field, write_span_member};
use crate::request::Reject;
use crate::writer::MessageWriter;

/// Transcodes MLflow's `traces.json`, `{"spans": [...]}`, to an OTLP `ExportTraceServiceRequest`
/// without resource and scope, which MLflow does not keep.
///
/// Spans may have the current form (ids in base64), that of MLflow 3.5.0 (ids in hex, status `OK`),
/// that of version 2 (`context`, `parent_id`, `start_time`), and the OTLP JSON of `GetTrace`.
/// Attributes are written as MLflow's own OTLP export writes them: see the module `attributes`.
///
/// `trace_id` is the trace that the request names, `tr-<hex>` or hex. Spans without an id of their
/// own belong to it, spans of another trace are rejects. In version 2 the trace is the one named by
/// the attribute `mlflow.traceRequestId`; OpenTelemetry's id in `context` is used without it.
///
/// A link that cannot be read is left out and named in a [`Reject`] of no spans.
///
/// # Errors
/// [`DecodeError::Json`] when the body is not JSON, [`DecodeError::Shape`] when it is not an object
/// with an array `spans`, or `trace_id` is not a trace id.
pub fn traces_json_to_protobuf(
    body: &[u8],
    trace_id: Option<&str>,
) -> Result<(Vec<u8>, Vec<Reject>), DecodeError> {
    let named = trace_id.map(|text| {
        TraceId::parse(text).filter(|id| id.is_valid()).ok_or_else(|| DecodeError::Shape {
            path: "trace_id".into(),
            expected: "tr- and 32 hex digits",
        })
    });
    let named = named.transpose()?;
    let body = String::from_utf8_lossy(body);
    spans_to_protobuf(&document::parse(&body)?, named)
}

/// As [`traces_json_to_protobuf`], of a document that is parsed already.
pub(super) fn spans_to_protobuf(
    document: &Json<'_>,
    named: Option<TraceId>,
) -> Result<(Vec<u8>, Vec<Reject>), DecodeError> {
    object(document, Path::Root).map_err(shape)?;
    let path = Path::Root.member("spans");
    let spans = document.member(&["spans"]).unwrap_or(&Json::Null);
    let mut rejects = Rejects::default();
    let mut scope_spans = MessageWriter::new();
    if matches!(spans, Json::Null) {
        return Err(shape(path.expected("an array", spans)));
    }
    for (index, value) in list(spans, path).map_err(shape)?.iter().enumerate() {
        match span(value, path.element(index), named, &mut rejects) {
            Ok(span) => scope_spans.bytes(scope_spans::SPANS, &span),
            Err(fault) => rejects.push(1, || format!("span refused: {fault}")),
        }
    }
    let mut out = MessageWriter::new();
    out.message(export_request::RESOURCE_SPANS, |resource_spans| {
        resource_spans.bytes(resource_spans::SCOPE_SPANS, scope_spans.as_bytes())
    });
    Ok((out.into_bytes(), rejects.into_list()))
}

fn span(
    value: &Json<'_>,
    path: Path<'_>,
    named: Option<TraceId>,
    rejects: &mut Rejects,
) -> Result<Vec<u8>, Fault> {
    object(value, path)?;
    let sent = trace_of(value, path)?;
    let trace_id = match (sent, named) {
        (Some(sent), Some(named)) if sent != named => {
            let member = value.member(&["trace_id", "traceId"]).unwrap_or(value);
            return Err(path.member("trace_id").expected("the trace of the request", member));
        }
        (sent, named) => sent.or(named),
    };
    let mut out = MessageWriter::new();
    if matches!(value.member(&["attributes"]), Some(Json::Array(_))) {
        // OTLP JSON, which writes its own trace id if there is one.
        if let (None, Some(trace_id)) = (sent, trace_id) {
            out.bytes(span::TRACE_ID, &trace_id.0);
        }
        let mut bytes = out.into_bytes();
        bytes.extend(otlp_span::span(value, path, rejects)?);
        return Ok(bytes);
    }
    if let Some(trace_id) = trace_id {
        out.bytes(span::TRACE_ID, &trace_id.0);
    }
    write_span(&mut out, value, path, rejects)?;
    Ok(out.into_bytes())
}

/// The trace that a span says it belongs to.
fn trace_of(span: &Json<'_>, path: Path<'_>) -> Result<Option<TraceId>, Fault> {
    let context = span.member(&["context"]);
    if context.is_some() {
        let request = decoded_text(span.member(&["attributes"]), mlflow_keys::TRACE_REQUEST_ID);
        if let Some(trace_id) = request.and_then(|text| TraceId::parse(&text)) {
            return Ok(Some(trace_id));
        }
    }
    let Some(value) = context.unwrap_or(span).member(&["trace_id", "traceId"]) else {
        return Ok(None);
    };
    let path = path.member("trace_id");
    let fault = || path.expected("a trace id in base64 or hex digits", value);
    let bytes = mlflow_id(text(value, path)?, 16).ok_or_else(fault)?;
    bytes.try_into().map(|id| Some(TraceId(id))).map_err(|_| fault())
}

/// MLflow's own form. Neither trace id nor status is among its fields: what says them depends on other
/// members.
struct MlflowForm;

impl SpanForm for MlflowForm {
    fn span_field(name: &str) -> Option<u32> {
        Some(match name {
            "span_id" | "spanId" => span::SPAN_ID,
            "parent_span_id" | "parentSpanId" | "parent_id" => span::PARENT_SPAN_ID,
            "name" => span::NAME,
            "start_time_unix_nano" | "startTimeUnixNano" | "start_time" => {
                span::START_TIME_UNIX_NANO
            }
            "end_time_unix_nano" | "endTimeUnixNano" | "end_time" => span::END_TIME_UNIX_NANO,
            "attributes" => span::ATTRIBUTES,
            "events" => span::EVENTS,
            "links" => span::LINKS,
            _ => return None,
        })
    }

    fn event_field(name: &str) -> Option<u32> {
        Some(match name {
            "time_unix_nano" | "timeUnixNano" | "timestamp" => event::TIME_UNIX_NANO,
            "name" => event::NAME,
            "attributes" => event::ATTRIBUTES,
            _ => return None,
        })
    }

    fn link_field(name: &str) -> Option<u32> {
        Some(match name {
            "trace_id" | "traceId" => link::TRACE_ID,
            "span_id" | "spanId" => link::SPAN_ID,
            "attributes" => link::ATTRIBUTES,
            _ => return None,
        })
    }

    fn id_bytes(text: &str, length: usize) -> Option<Vec<u8>> {
        mlflow_id(text, length)
    }

    fn expected_id(length: usize) -> &'static str {
        if length == 16 { "a trace id" } else { "a span id" }
    }

    fn span_attributes(
        out: &mut MessageWriter,
        number: u32,
        value: &Json<'_>,
        path: Path<'_>,
    ) -> Result<(), Fault> {
        attributes::write(out, number, value, path, Encoding::JsonText)
    }

    fn attributes(
        out: &mut MessageWriter,
        number: u32,
        value: &Json<'_>,
        path: Path<'_>,
    ) -> Result<(), Fault> {
        attributes::write(out, number, value, path, Encoding::Plain)
    }
}

/// Writes all but the trace id.
fn write_span(
    out: &mut MessageWriter,
    value: &Json<'_>,
    path: Path<'_>,
    rejects: &mut Rejects,
) -> Result<(), Fault> {
    for (name, value) in object(value, path)? {
        if name != "context" {
            write_span_member::<MlflowForm>(out, name, value, path, rejects)?;
        } else if let Some(id) = value.member(&["span_id", "spanId"]) {
            let path = path.member(name);
            let path = path.member("span_id");
            write_span_field::<MlflowForm>(out, span::SPAN_ID, id, path, rejects)?;
        }
    }
    if let Some(status) = status(value, path, rejects)? {
        out.bytes(span::STATUS, &status);
    }
    Ok(())
}

/// The message `Status`, `None` if nothing is said of it.
fn status(
    span: &Json<'_>,
    path: Path<'_>,
    rejects: &mut Rejects,
) -> Result<Option<Vec<u8>>, Fault> {
    let status = span.member(&["status"]);
    if let Some(status) = status.filter(|status| matches!(status, Json::Object(_))) {
        return otlp_span::status(status, path.member("status"), rejects).map(Some);
    }
    let code = status.or_else(|| span.member(&["status_code", "statusCode"]));
    let message = span.member(&["status_message", "statusMessage"]);
    if code.is_none() && message.is_none() {
        return Ok(None);
    }
    let mut out = MessageWriter::new();
    if let Some(message) = message {
        out.bytes_nonzero(
            status::MESSAGE,
            text(message, path.member("status_message"))?.as_bytes(),
        );
    }
    if let Some(code) = code {
        out.number_nonzero(
            status::CODE,
            otlp_span::status_code(code, path.member("status_code"), rejects)?,
        );
    }
    Ok(Some(out.into_bytes()))
}

/// The bytes of an id as MLflow writes it: base64; `tr-<hex>`; `trace:/<location>/<hex>`; or hex
/// of a number, with or without `0x` and leading zeros.
fn mlflow_id(text: &str, length: usize) -> Option<Vec<u8>> {
    let last = match text.strip_prefix("trace:/") {
        Some(rest) => rest.rsplit('/').next()?,
        None => text,
    };
    if last.ends_with('=') {
        return id_bytes(last, length).filter(|bytes| bytes.len() == length);
    }
    let digits = last.strip_prefix("tr-").unwrap_or(last);
    let digits = digits.strip_prefix("0x").unwrap_or(digits);
    let width = 2 * length;
    if digits.is_empty() || width < digits.len() {
        return None;
    }
    id_bytes(&format!("{digits:0>width$}"), length).filter(|bytes| bytes.len() == length)
}
