//! MLflow's own JSON: recorded samples and every form of its span JSON.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

use std::path::Path;

use serde_json::{Value, json};
use tracelake_decode::any_value::to_json;
use tracelake_decode::mlflow_json::{
    read_assessment, read_start_trace, traces_json_to_protobuf, write_assessment, write_trace_info,
};
use tracelake_decode::{DecodeError, DecodedSpans, SpanRecord, SpanSource, decode_otlp};
use tracelake_model::{Limits, TraceId, TraceState};

const TRACE: &str = "tr-647c3391b6b41d8f6e033e3bfb7a362f";

fn decode(json: &Value, trace_id: Option<&str>) -> DecodedSpans {
    decode_bytes(&serde_json::to_vec(json).unwrap(), trace_id)
}

fn decode_bytes(body: &[u8], trace_id: Option<&str>) -> DecodedSpans {
    let (protobuf, rejects) = traces_json_to_protobuf(body, trace_id).unwrap();
    let mut decoded =
        decode_otlp(&protobuf.into(), SpanSource::Mlflow, &Limits::default()).unwrap();
    decoded.rejects.extend(rejects);
    decoded
}

fn sample(name: &str) -> Option<Value> {
    sample_bytes(name).map(|bytes| serde_json::from_slice(&bytes).unwrap())
}

/// A recorded sample as it is, `None` where the folder is absent.
fn sample_bytes(name: &str) -> Option<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/mlflow_wire");
    let Ok(bytes) = std::fs::read(folder.join(name)) else {
        println!("skipped: {} is absent", folder.join(name).display());
        return None;
    };
    Some(bytes)
}

fn attribute(span: &SpanRecord, key: &str) -> Option<String> {
    span.view().attribute(key).map(to_json)
}

/// Scenario: one span in the current form, in that of 3.5.0, of version 2, and as OTLP JSON.
/// Guarantees: all are one content, attributes are what their JSON text means.
#[test]
fn every_form_of_a_span_is_the_same_span() {
    let attributes = json!({
        "mlflow.traceRequestId": format!("\"{TRACE}\""), "mlflow.spanType": "\"TOOL\"",
        "mlflow.spanInputs": "{\"z\": 1, \"a\": [1.0, 9007199254740993, NaN, null, \"\\ud83d\"]}",
        "plain": "not json", "wide": "[36893488147419103232]", "empty": "", "level": "20",
    });
    let events = json!([{"name": "exception", "time_unix_nano": 7,
        "attributes": {"exception.message": "{\"a\": 1}", "n": 3}}]);
    let links = json!([{"trace_id": "tr-00000000000000000000000000000001",
        "span_id": "0000000000000002", "attributes": null}]);
    let current = json!({"trace_id": "ZHwzkba0HY9uAz47+3o2Lw==", "span_id": "nmjiygJDxdA=",
        "parent_span_id": "7R7oDSGIcpU=", "name": "n", "attributes": attributes, "events": events,
        "start_time_unix_nano": 1_795_353_950_663_396_024_u64, "end_time_unix_nano": null,
        "status": {"code": "STATUS_CODE_ERROR", "message": "m"}, "links": links});
    let hex = json!({"trace_id": TRACE, "span_id": "9e68e2ca0243c5d0",
        "parent_span_id": "ed1ee80d21887295", "name": "n", "attributes": attributes,
        "start_time_unix_nano": "1795353950663396024", "events": events, "links": links,
        "status": {"code": "ERROR", "message": "m"}});
    let mut version_2 = json!({"context": {"trace_id": "0x123", "span_id": "0x9e68e2ca0243c5d0"},
        "parent_id": "0xed1ee80d21887295", "name": "n", "attributes": attributes, "links": links,
        "start_time": 1_795_353_950_663_396_024_u64, "end_time": null, "status_code": "ERROR",
        "status_message": "m", "events": [{"name": "exception", "timestamp": 7,
        "attributes": {"exception.message": "{\"a\": 1}", "n": 3}}]});
    version_2["attributes"]["level"] = json!(20);
    let expected = decode(&json!({"spans": [current]}), Some(TRACE));
    assert_eq!((expected.spans.len(), expected.rejects.len()), (1, 0));
    let span = &expected.spans[0];
    for (key, value) in [
        ("mlflow.spanType", "\"TOOL\""),
        (
            "mlflow.spanInputs",
            "{\"z\":1,\"a\":[1.0,9007199254740993,{\"$double\":\"NaN\"},null,\"\u{fffd}\"]}",
        ),
        ("plain", "\"not json\""),
        ("wide", "\"[36893488147419103232]\""),
        ("empty", "null"),
        ("level", "20"),
    ] {
        assert_eq!(attribute(span, key).as_deref(), Some(value), "{key}");
    }
    let message = span.view().events().next().unwrap().attributes().next().unwrap();
    assert_eq!(to_json(message.value()), r#""{\"a\": 1}""#);
    for other in [hex, version_2] {
        let decoded = decode(&json!({"spans": [other]}), None);
        assert_eq!(decoded.rejects, []);
        assert!(decoded.spans[0].same_content(span), "{other}");
    }
}

/// Scenario: spans without a trace id, of another trace, with broken members, beside good ones.
/// Guarantees: the trace of the path is used or agrees; the others are named; siblings are kept.
#[test]
fn the_trace_of_the_request_decides() {
    let spans = json!({"spans": [
        {"span_id": "0000000000000001", "name": "none"},
        {"trace_id": TRACE, "span_id": "0000000000000002", "name": "same"},
        {"trace_id": "tr-00000000000000000000000000000001", "span_id": "0000000000000003"},
        {"span_id": "0000000000000004", "attributes": [{"key": "k", "value": {"intValue": 1}}]},
        {"trace_id": "free text", "span_id": "0000000000000005"},
        {"span_id": "0000000000000006", "name": 6},
        {"span_id": "0000000000000007", "parent_span_id": "who", "links": [{"trace_id": "x"}]},
        "not a span",
    ]});
    let decoded = decode(&spans, Some(TRACE));
    assert_eq!((decoded.spans.len(), decoded.rejected_spans()), (4, 4));
    assert_eq!(decoded.rejects.len(), 6, "{:#?}", decoded.rejects);
    assert!(decoded.spans.iter().all(|span| span.trace_id.to_mlflow() == TRACE));
    assert_eq!(decoded.spans[3].view().parent_span_id, b"who");
    assert!(
        decoded.rejects.iter().any(|reject| reject.reason
            == "span refused: spans[2].trace_id: expected the trace of the request, \
            found `tr-00000000000000000000000000000001`"),
        "{:#?}",
        decoded.rejects
    );
    // Without a trace in the path, spans that name none are refused by the decoder.
    assert_eq!(decode(&spans, None).spans.len(), 2);
}

/// Scenario: documents that hold no spans.
/// Guarantees: each has its own error; an empty list is a request of no spans.
#[test]
fn wrong_documents_are_refused() {
    for body in ["[]", "{}", r#"{"spans": {}}"#, r#"{"spans": null}"#] {
        let error = traces_json_to_protobuf(body.as_bytes(), None).unwrap_err();
        assert!(matches!(error, DecodeError::Shape { .. }), "{body}: {error}");
    }
    assert!(matches!(traces_json_to_protobuf(b"{", None), Err(DecodeError::Json { .. })));
    assert!(traces_json_to_protobuf(b"{\"spans\":[]}", Some("tr-1")).is_err());
    assert!(decode(&json!({"spans": []}), Some(TRACE)).spans.is_empty());
}

/// Scenario: one trace as MLflow stores it, and as its `GetTrace` gives it in OTLP.
/// Guarantees: both copies are the same spans with the same attributes.
#[test]
fn stored_spans_mean_what_mlflow_exports() {
    let (Some(stored), Some(answer)) =
        (sample_bytes("get_trace_artifact.response.json"), sample("get_trace_v3.response.json"))
    else {
        return;
    };
    // As bytes: serde_json's map would sort the attributes.
    let stored = decode_bytes(&stored, None);
    let exported = decode(&json!({"spans": answer["trace"]["spans"]}), None);
    assert_eq!((stored.rejects, exported.rejects), (vec![], vec![]));
    assert_eq!((stored.spans.len(), exported.spans.len()), (17, 17));
    for left in &stored.spans {
        let right = exported.spans.iter().find(|right| right.span_id == left.span_id).unwrap();
        assert!(left.same_content(right), "{}", left.view().name);
    }
}

/// Scenario: the recorded `traces.json` of a client.
/// Guarantees: every span is taken, with type, parent and times.
#[test]
fn recorded_traces_json_is_taken_whole() {
    let Some(recorded) = sample("artifact_traces.json") else { return };
    let decoded = decode(&recorded, Some(TRACE));
    let sent = recorded["spans"].as_array().unwrap();
    assert_eq!((decoded.spans.len(), decoded.rejects.len()), (sent.len(), 0));
    for (span, sent) in decoded.spans.iter().zip(sent) {
        let view = span.view();
        assert_eq!((view.name, view.status_code), (sent["name"].as_str().unwrap(), 1));
        assert_eq!(Some(view.start_time_unix_nano), sent["start_time_unix_nano"].as_u64());
        assert_eq!(span.parent.is_none(), sent["parent_span_id"].is_null());
        let kind = sent["attributes"]["mlflow.spanType"].as_str();
        assert_eq!(attribute(span, "mlflow.spanType").as_deref(), kind);
        assert_eq!(view.attributes().count(), sent["attributes"].as_object().unwrap().len());
    }
}

/// Scenario: the recorded start_trace body of a client.
/// Guarantees: every member is read, and writing it gives the recorded JSON again.
#[test]
fn recorded_start_trace_reads_and_writes_back() {
    for name in ["start_trace_v3.request.json", "get_trace_info_v3.response.json"] {
        let Some(recorded) = sample(name) else { return };
        let start = read_start_trace(&serde_json::to_vec(&recorded).unwrap()).unwrap();
        let written = write_trace_info(&start.info, start.experiment_id.as_ref());
        assert_eq!(written, recorded["trace"]["trace_info"], "{name}");
        assert_eq!(start.info.state, TraceState::Ok);
        assert!(start.info.announced_spans().is_some() && start.info.request_time_micros.is_some());
    }
}

/// Scenario: a body in camelCase with numbers for names and other odd but clear members.
/// Guarantees: it means what it says.
#[test]
fn start_trace_is_read_leniently() {
    let start = read_start_trace(
        br#"{"trace": {"traceInfo": {"traceId": "tr-647C3391b6b41d8f6e033e3bfb7a362f", "state": 2,
        "requestTime": "2026-11-22T14:25:50.6634567+01:00", "executionDurationMs": "93",
        "traceLocation": {"mlflowExperiment": {"experimentId": 7}}, "requestPreview": null,
        "traceMetadata": {"n": 1, "s": "x", "o": {"b": 1e2, "a": []}}, "unknown": [{}],
        "assessments": [{"source": {"sourceType": 3}, "feedback": {"value": 1.50}}]}}}"#,
    )
    .unwrap();
    assert_eq!(start.experiment_id.unwrap().number(), 7);
    assert_eq!(start.info.trace_id.to_mlflow(), TRACE);
    assert_eq!(start.info.request_time_micros, Some(1_795_353_950_663_456));
    assert_eq!(start.info.execution_duration_ms, Some(93));
    assert_eq!((start.info.state, start.info.request_preview), (TraceState::Error, None));
    assert_eq!(start.info.trace_metadata["o"], r#"{"b":1e2,"a":[]}"#);
    let assessment = &start.info.assessments[0];
    assert_eq!(assessment.source_type.as_deref(), Some("CODE"));
    assert_eq!(assessment.feedback_json.as_deref(), Some(r#"{"value":1.50}"#));
}

/// Scenario: bodies that are no start_trace request.
/// Guarantees: each is refused with the place of its fault.
#[test]
fn wrong_start_trace_bodies_are_refused_with_their_place() {
    let with = |members: &str| {
        let body = format!(r#"{{"trace":{{"trace_info":{{"trace_id":"{TRACE}",{members}}}}}}}"#);
        read_start_trace(body.as_bytes()).unwrap_err().to_string()
    };
    let of = |body: &str| read_start_trace(body.as_bytes()).unwrap_err().to_string();
    assert_eq!(of("[]"), "json: `$`: expected an object");
    assert_eq!(of("{}"), "json: `trace`: expected an object");
    assert_eq!(of(r#"{"trace":{}}"#), "json: `trace.trace_info`: expected an object");
    let id = "json: `trace.trace_info.trace_id`: expected tr- and 32 hex digits";
    for wrong in [r#""trace_id":"tr-12""#, r#""trace_id":null"#, ""] {
        assert_eq!(of(&format!(r#"{{"trace":{{"trace_info":{{{wrong}}}}}}}"#)), id, "{wrong}");
    }
    for (members, path) in [
        (r#""request_time":1"#, "request_time"),
        (r#""request_time":"yesterday""#, "request_time"),
        (r#""execution_duration":"0.093""#, "execution_duration"),
        (r#""tags":[]"#, "tags"),
        (r#""assessments":[{},{"valid":1}]"#, "assessments[1].valid"),
        (
            r#""trace_location":{"mlflow_experiment":{"experiment_id":"x"}}"#,
            "trace_location.mlflow_experiment.experiment_id",
        ),
    ] {
        let error = with(members);
        assert!(error.starts_with(&format!("json: `trace.trace_info.{path}`: ")), "{error}");
    }
}

/// Scenario: the recorded assessments, as sent and as answered.
/// Guarantees: reading and writing is the identity.
#[test]
fn recorded_assessments_read_and_write_back() {
    for name in ["assessment_feedback", "assessment_expectation"] {
        for side in ["request", "response"] {
            let Some(recorded) = sample(&format!("{name}.{side}.json")) else { return };
            let trace_id = recorded["assessment"]["trace_id"].as_str().and_then(TraceId::parse);
            let read = read_assessment(&serde_json::to_vec(&recorded).unwrap()).unwrap();
            assert_eq!(write_assessment(&read, trace_id), recorded["assessment"]);
        }
    }
}
