//! A JSON document of unknown kind, as files hold them: OTLP, MLflow's spans, MLflow's traces.
//!
//! The shape decides, never a name:
//! - OTLP: an object with `resourceSpans` (also `resource_spans`, `batches`)
//! - `traces.json`: an object with `spans` and nothing about the trace
//! - `Trace.to_json`: an object with `info` and `data.spans`; the answers of MLflow's server, with
//!   `trace_info` and `spans`; each also below `trace`, or several of them in a list or `traces`
//! - a trace info alone, of version 3 or 2

use tracelake_model::{TraceId, TraceInfo, TraceState};

use super::assessment::assessment;
use super::messages::{Message, shape};
use super::spans::spans_to_protobuf;
use super::trace_info::{StartTrace, read_start_trace};
use crate::error::DecodeError;
use crate::otlp_json::document::{self, Json};
use crate::otlp_json::document_to_protobuf;
use crate::otlp_json::members::{Fault, Path, list, text};
use crate::request::Reject;

/// Lists within lists of traces that are looked into.
const MAX_LIST_DEPTH: usize = 4;

/// What a JSON document holds.
#[derive(Debug)]
pub enum TraceFile {
    /// OTLP, transcoded to an `ExportTraceServiceRequest`, and what was refused of it.
    Otlp(Vec<u8>, Vec<Reject>),
    /// Traces in MLflow's form; one that cannot be read does not cost the others.
    Mlflow(Vec<Result<MlflowTrace, DecodeError>>),
    /// JSON, but no traces.
    Other,
}

/// One trace in MLflow's form.
#[derive(Debug)]
pub struct MlflowTrace {
    /// What is said of the whole trace; none in a `traces.json`.
    pub info: Option<StartTrace>,
    /// The spans as an `ExportTraceServiceRequest`; `None` for a trace info alone.
    pub protobuf: Option<Vec<u8>>,
    /// What was refused.
    pub rejects: Vec<Reject>,
}

/// Reads a JSON document of any of the kinds that the module lists.
///
/// `trace_id` is the trace that a file's place names: the one of spans that say none.
///
/// # Errors
/// [`DecodeError::Json`] when the body is not JSON, [`DecodeError::Shape`] when the list of spans
/// has another type.
pub fn read_trace_file(body: &[u8], trace_id: Option<TraceId>) -> Result<TraceFile, DecodeError> {
    let body = String::from_utf8_lossy(body);
    let document = document::parse(&body)?;
    if document.member(&["resourceSpans", "resource_spans", "batches"]).is_some() {
        let (protobuf, rejects) = document_to_protobuf(&document)?;
        return Ok(TraceFile::Otlp(protobuf, rejects));
    }
    let mut traces = Vec::new();
    collect(&document, trace_id, 0, &mut traces);
    if traces.is_empty() && !is_empty(&document) {
        return Ok(TraceFile::Other);
    }
    Ok(TraceFile::Mlflow(traces))
}

/// An empty document says that there are no traces, which is not the same as another kind of file.
fn is_empty(document: &Json<'_>) -> bool {
    match document {
        Json::Object(members) => {
            members.is_empty()
                || matches!(document.member(&["spans", "traces"]), Some(Json::Array(list)) if list.is_empty())
                || document.member(&["resourceSpans", "resource_spans", "batches"]).is_none()
                    && members.iter().any(|(name, _)| name == "resourceSpans")
        }
        Json::Array(elements) => elements.is_empty(),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Text(_) => false,
    }
}

fn collect(
    value: &Json<'_>,
    named: Option<TraceId>,
    depth: usize,
    out: &mut Vec<Result<MlflowTrace, DecodeError>>,
) {
    if MAX_LIST_DEPTH < depth {
        return;
    }
    let inner = match value {
        Json::Array(elements) => Some(elements),
        value => match value.member(&["traces"]) {
            Some(Json::Array(elements)) => Some(elements),
            _ => None,
        },
    };
    if let Some(elements) = inner {
        for element in elements {
            collect(element, named, depth + 1, out);
        }
        return;
    }
    if let Some(trace @ Json::Object(_)) = value.member(&["trace"]) {
        return collect(trace, named, depth + 1, out);
    }
    let info = value.member(&["info", "trace_info", "traceInfo"]);
    let holder = value.member(&["data"]).unwrap_or(value);
    match info {
        Some(info @ Json::Object(_)) if is_info(info) => {
            out.push(trace(Some(info), holder.member(&["spans"]).map(|_| holder), named));
        }
        _ if has_spans(value) => out.push(trace(None, Some(value), named)),
        _ if is_info(value) && value.member(&["spans"]).is_none() => {
            out.push(trace(Some(value), None, named));
        }
        _ => {}
    }
}

/// True for a list of spans: others than MLflow have a member of that name, too.
fn has_spans(value: &Json<'_>) -> bool {
    const TIMES: [&str; 3] = ["start_time_unix_nano", "startTimeUnixNano", "start_time"];
    let Some(Json::Array(spans)) = value.member(&["spans"]) else { return false };
    let is_span = |span: &Json<'_>| {
        span.member(&TIMES).is_some() && span.member(&["name", "attributes"]).is_some()
    };
    spans.iter().any(is_span)
}

fn is_info(value: &Json<'_>) -> bool {
    let v3 = value.member(&["trace_id", "traceId"]).is_some()
        && value.member(&["trace_location", "traceLocation"]).is_some();
    let v2 = value.member(&["request_id"]).is_some() && value.member(&["timestamp_ms"]).is_some();
    v3 || v2
}

fn trace(
    info: Option<&Json<'_>>,
    spans: Option<&Json<'_>>,
    named: Option<TraceId>,
) -> Result<MlflowTrace, DecodeError> {
    let info = info.map(read_info).transpose()?;
    let named = info.as_ref().map(|start| start.info.trace_id).or(named);
    let Some(spans) = spans else {
        return Ok(MlflowTrace { info, protobuf: None, rejects: Vec::new() });
    };
    let (protobuf, rejects) = spans_to_protobuf(spans, named)?;
    Ok(MlflowTrace { info, protobuf: Some(protobuf), rejects })
}

fn read_info(value: &Json<'_>) -> Result<StartTrace, DecodeError> {
    if value.member(&["request_id"]).is_some() {
        return read_info_v2(value).map_err(shape);
    }
    let inner = Json::Object(vec![("trace_info".into(), value.clone())]);
    let request = Json::Object(vec![("trace".into(), inner)]);
    read_start_trace(request.to_text().as_bytes())
}

/// `TraceInfoV2.to_dict`: the same facts under other names.
fn read_info_v2(value: &Json<'_>) -> Result<StartTrace, Fault> {
    let message = Message::new(value, Path::Root.member("info"))?;
    let id = message.read(&["request_id", "requestId"], |value, path| {
        let id = TraceId::parse(text(value, path)?).filter(|id| id.is_valid());
        id.ok_or_else(|| path.expected("tr- and 32 hex digits", value))
    })?;
    let trace_id = id.ok_or_else(|| {
        message.path.member("request_id").expected("tr- and 32 hex digits", &Json::Null)
    })?;
    let millis = message.integer(&["timestamp_ms", "timestampMs"])?;
    let state = message.text(&["status", "status"])?;
    let assessments = message.read(&["assessments", "assessments"], |value, path| {
        let assessments = list(value, path)?.iter().enumerate();
        assessments.map(|(index, value)| assessment(value, path.element(index))).collect()
    })?;
    let info = TraceInfo {
        request_time_micros: millis.and_then(|millis| millis.checked_mul(1_000)),
        execution_duration_ms: message.integer(&["execution_time_ms", "executionTimeMs"])?,
        state: state.map_or(TraceState::Unspecified, |name| TraceState::parse(&name)),
        trace_metadata: message.map(&["request_metadata", "requestMetadata"])?,
        tags: message.map(&["tags", "tags"])?,
        assessments: assessments.unwrap_or_default(),
        ..TraceInfo::new(trace_id)
    };
    let experiment_id = message.read(&["experiment_id", "experimentId"], |value, path| {
        let digits = match value {
            Json::Number(digits) => digits,
            value => text(value, path)?,
        };
        digits.parse().map_err(|_| path.expected("an experiment id, a decimal number", value))
    })?;
    Ok(StartTrace { experiment_id, info })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: &str = r#"{"name":"s","start_time_unix_nano":1,"end_time_unix_nano":2,
        "trace_id":"ASNFZ4mrze8BI0VniavN7w==","span_id":"ASNFZ4mrze8=","attributes":{}}"#;
    const INFO: &str = r#"{"trace_id":"tr-0123456789abcdef0123456789abcdef","state":"OK",
        "trace_location":{"type":"MLFLOW_EXPERIMENT","mlflow_experiment":{"experiment_id":"7"}},
        "request_time":"2026-11-22T10:00:00Z","execution_duration_ms":5,"tags":{"a":"b"}}"#;

    fn read(text: &str) -> TraceFile {
        read_trace_file(text.as_bytes(), None).unwrap()
    }

    fn traces(text: &str) -> Vec<MlflowTrace> {
        match read(text) {
            TraceFile::Mlflow(traces) => traces.into_iter().map(Result::unwrap).collect(),
            other => panic!("{text}: {other:?}"),
        }
    }

    /// Scenario: one trace in each of the forms that MLflow writes, alone and in lists.
    /// Guarantees: each gives its spans and its info, with experiment and duration.
    #[test]
    fn reads_every_form_of_an_mlflow_trace() {
        let whole = format!(r#"{{"info":{INFO},"data":{{"spans":[{SPAN}]}}}}"#);
        let answer = format!(r#"{{"trace":{{"trace_info":{INFO},"spans":[{SPAN}]}}}}"#);
        for text in [
            whole.clone(),
            answer,
            format!(r#"{{"traces":[{whole}],"next_page_token":null}}"#),
            format!("[{whole}]"),
        ] {
            let traces = traces(&text);
            let [trace] = &traces[..] else { panic!("{text}") };
            let start = trace.info.as_ref().unwrap();
            assert_eq!(start.experiment_id.as_ref().map(|id| id.number()), Some(7));
            assert_eq!(start.info.execution_duration_ms, Some(5));
            assert!(trace.protobuf.is_some());
        }
        let spans_only = traces(&format!(r#"{{"spans":[{SPAN}]}}"#));
        assert!(spans_only[0].info.is_none() && spans_only[0].protobuf.is_some());
        let info_only = traces(INFO);
        assert!(info_only[0].info.is_some() && info_only[0].protobuf.is_none());
    }

    /// Scenario: a trace info of version 2, with the names that it had then.
    /// Guarantees: the same facts.
    #[test]
    fn reads_a_trace_info_of_version_2() {
        let found = traces(
            r#"{"info":{"request_id":"tr-0123456789abcdef0123456789abcdef","experiment_id":"3",
            "timestamp_ms":1700000000123,"execution_time_ms":42,"status":"ERROR",
            "request_metadata":{"k":"v"},"tags":{"t":"u"}},"data":{"spans":[]}}"#,
        );
        let start = found[0].info.as_ref().unwrap();
        assert_eq!(start.experiment_id.as_ref().map(|id| id.number()), Some(3));
        assert_eq!(start.info.request_time_micros, Some(1_700_000_000_123_000));
        assert_eq!(start.info.execution_duration_ms, Some(42));
        assert_eq!(start.info.state, TraceState::Error);
        assert_eq!(start.info.trace_metadata["k"], "v");
    }

    /// Scenario: JSON that has members of the same names but holds no traces, and a bad trace
    /// beside a good one.
    /// Guarantees: it is another kind of file; the good trace is read.
    #[test]
    fn tells_other_json_from_traces() {
        for text in [
            r#"{"trace_id":"00","state":"OK","spans":[{"span_id":"01","type":null}]}"#,
            r#"{"items":[1,2]}"#,
            "3",
            "[1]",
        ] {
            assert!(matches!(read(text), TraceFile::Other), "{text}");
        }
        for text in ["{}", "[]", r#"{"spans":[]}"#, r#"{"resourceSpans":null}"#] {
            assert!(matches!(read(text), TraceFile::Mlflow(found) if found.is_empty()), "{text}");
        }
        assert!(matches!(read(r#"{"resourceSpans":[]}"#), TraceFile::Otlp(..)));
        let bad = INFO.replace("tr-0123", "zz-");
        let both = format!(r#"[{{"info":{bad},"data":{{"spans":[]}}}},{INFO}]"#);
        let TraceFile::Mlflow(found) = read(&both) else { panic!("{both}") };
        assert!(found[0].is_err() && found[1].is_ok());
    }
}
