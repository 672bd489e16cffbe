//! Calls with which MLflow's clients read traces.

use serde_json::{Value, json};
use tracelake_decode::otlp::fields::{
    any_value, event, export_request, key_value, resource_spans, scope_spans, span, status,
};
use tracelake_decode::writer::MessageWriter;

use crate::support::Harness;

const TRACE: &str = "tr-07070707070707070707070707070707";
const OTHER: &str = "tr-00000000000000000000000000000001";

fn string(any: &mut MessageWriter, text: &str) {
    any.bytes(any_value::STRING_VALUE, text.as_bytes());
}

fn attribute(span: &mut MessageWriter, key: &str, value: &str) {
    span.message(span::ATTRIBUTES, |attribute| {
        attribute.bytes(key_value::KEY, key.as_bytes());
        attribute.message(key_value::VALUE, |any| string(any, value));
    });
}

/// A child that comes before its root, as spans that end do.
fn two_spans() -> Vec<u8> {
    let mut request = MessageWriter::new();
    request.message(export_request::RESOURCE_SPANS, |resource_spans| {
        resource_spans.message(resource_spans::SCOPE_SPANS, |scope_spans| {
            scope_spans.message(scope_spans::SPANS, |span| {
                span.bytes(span::TRACE_ID, &[7; 16]);
                span.bytes(span::SPAN_ID, &[2; 8]);
                span.bytes(span::PARENT_SPAN_ID, &[1; 8]);
                span.bytes(span::NAME, b"child");
                span.number(span::KIND, 3);
                span.fixed64(span::START_TIME_UNIX_NANO, 1_700_000_000_000_000_000);
                span.fixed64(span::END_TIME_UNIX_NANO, 1_700_000_000_500_000_000);
                attribute(span, "openinference.span.kind", "LLM");
                attribute(span, "input.value", "{\"q\":[1]}");
                attribute(span, "note", "5");
                attribute(span, "session.id", "s-1");
                attribute(
                    span,
                    "mlflow.chat.tokenUsage",
                    "{\"input_tokens\": 3, \"output_tokens\": 4, \"total_tokens\": 7}",
                );
                span.message(span::EVENTS, |event| {
                    event.fixed64(event::TIME_UNIX_NANO, 1_700_000_000_100_000_000);
                    event.bytes(event::NAME, b"exception");
                    event.message(event::ATTRIBUTES, |attribute| {
                        attribute.bytes(key_value::KEY, b"exception.type");
                        attribute.message(key_value::VALUE, |any| string(any, "\"E\""));
                    });
                });
                span.message(span::STATUS, |status| {
                    status.bytes(status::MESSAGE, b"it broke");
                    status.number(status::CODE, 2);
                });
            });
            scope_spans.message(scope_spans::SPANS, |span| {
                span.bytes(span::TRACE_ID, &[7; 16]);
                span.bytes(span::SPAN_ID, &[1; 8]);
                span.bytes(span::NAME, b"root");
                span.fixed64(span::START_TIME_UNIX_NANO, 1_700_000_000_100_000_000);
                span.fixed64(span::END_TIME_UNIX_NANO, 1_700_000_001_000_000_000);
                attribute(span, "mlflow.traceRequestId", "\"tr-forged\"");
                attribute(span, "mlflow.spanType", "\"AGENT\"");
                attribute(span, "mlflow.spanInputs", "{\"b\": 1, \"a\": \"x\"}");
            });
        });
    });
    request.into_bytes()
}

fn start_trace(trace: &str, spans: usize) -> Value {
    json!({"trace": {"trace_info": {
        "trace_id": trace,
        "client_request_id": "req-1",
        "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}},
        "request_time": "2026-11-22T13:25:50.663Z",
        "execution_duration": "0.093s",
        "state": "ERROR",
        "trace_metadata": {"mlflow.trace.sizeStats": format!("{{\"num_spans\": {spans}}}")},
        "tags": {"t": "v"},
    }}})
}

async fn with_trace() -> Harness {
    let harness = Harness::new().await;
    assert_eq!(harness.post_otlp(&[], two_spans()).await.status, 200);
    let body = start_trace(TRACE, 2);
    assert_eq!(harness.post_json("/api/3.0/mlflow/traces", &body).await.status, 200);
    harness
}

/// Scenario: a trace's facts in version 3, in the batch, and in version 2; a trace that is not
/// there, and ids that are none.
/// Guarantees: MLflow's shapes, with the tags that its server keeps; 404 in MLflow's words.
#[tokio::test]
async fn facts_are_given_in_both_versions() {
    let harness = with_trace().await;
    let answer = harness.get(&format!("/api/3.0/mlflow/traces/{TRACE}")).await.json();
    let info = &answer["trace"]["trace_info"];
    assert_eq!(info["state"], "ERROR");
    assert_eq!(info["execution_duration"], "0.093s");
    assert_eq!(info["tags"]["t"], "v");
    assert_eq!(info["tags"]["mlflow.trace.spansLocation"], "TRACKING_STORE");
    let artifacts = format!("mlflow-artifacts:/0/traces/{TRACE}/artifacts");
    assert_eq!(info["tags"]["mlflow.artifactLocation"], artifacts);
    let metadata = &info["trace_metadata"];
    assert_eq!(metadata["mlflow.trace.session"], "s-1");
    assert_eq!(
        metadata["mlflow.trace.tokenUsage"],
        "{\"input_tokens\": 3, \"output_tokens\": 4, \"total_tokens\": 7}"
    );
    assert!(metadata.get("mlflow.trace.cost").is_none());
    let infos = "/api/3.0/mlflow/traces/batchGetInfos";
    let found = harness.post_json(infos, &json!({"trace_ids": [OTHER, TRACE, "x"]})).await.json();
    assert_eq!(found, json!({"trace_infos": [info]}));
    let elsewhere = json!({"trace_ids": [TRACE], "experiment_ids": ["5"]});
    assert_eq!(harness.post_json(infos, &elsewhere).await.json(), json!({"trace_infos": []}));
    let many = json!({"trace_ids": vec![TRACE; 1_001]});
    for body in [json!({}), json!({"trace_ids": "x"}), many] {
        assert_eq!(harness.post_json(infos, &body).await.error().0, 400);
    }
    let old = harness.get(&format!("/ajax-api/2.0/mlflow/traces/{TRACE}/info")).await.json();
    assert_eq!(old["trace_info"]["request_id"], TRACE);
    assert_eq!(old["trace_info"]["timestamp_ms"], 1_795_353_950_663_u64);
    assert_eq!(old["trace_info"]["execution_time_ms"], 93);
    assert_eq!(old["trace_info"]["status"], "ERROR");
    for id in [OTHER, "tr-x", "..%2f"] {
        let answer = harness.get(&format!("/api/3.0/mlflow/traces/{id}")).await;
        assert_eq!(answer.error(), (404, "RESOURCE_DOES_NOT_EXIST".into()), "{id}");
    }
}

/// Scenario: a whole trace, whose spans follow MLflow's and another convention.
/// Guarantees: protobuf's JSON as MLflow's server writes it: the root first, values as it stores
/// them, other conventions under MLflow's names, and the trace's own id whatever was sent.
#[tokio::test]
async fn whole_traces_have_spans_as_mlflow_stores_them() {
    let harness = with_trace().await;
    let answer = harness.get(&format!("/api/3.0/mlflow/traces/get?trace_id={TRACE}")).await.json();
    let text = |key: &str, text: &str| json!({"key": key, "value": {"string_value": text}});
    let root = json!({
        "trace_id": "BwcHBwcHBwcHBwcHBwcHBw==",
        "span_id": "AQEBAQEBAQE=",
        "name": "root",
        "start_time_unix_nano": 1_700_000_000_100_000_000_u64,
        "end_time_unix_nano": 1_700_000_001_000_000_000_u64,
        "attributes": [
            text("mlflow.traceRequestId", TRACE),
            {"key": "mlflow.spanInputs", "value": {"kvlist_value": {"values": [
                {"key": "b", "value": {"int_value": 1}}, text("a", "x")]}}},
            text("mlflow.spanType", "AGENT"),
        ],
        "status": {},
    });
    let question = json!({"kvlist_value": {"values": [
        {"key": "q", "value": {"array_value": {"values": [{"int_value": 1}]}}}]}});
    let child = json!({
        "trace_id": "BwcHBwcHBwcHBwcHBwcHBw==",
        "span_id": "AgICAgICAgI=",
        "parent_span_id": "AQEBAQEBAQE=",
        "name": "child",
        "kind": 3,
        "start_time_unix_nano": 1_700_000_000_000_000_000_u64,
        "end_time_unix_nano": 1_700_000_000_500_000_000_u64,
        "attributes": [
            text("mlflow.traceRequestId", TRACE),
            text("openinference.span.kind", "LLM"),
            {"key": "input.value", "value": question},
            text("note", "5"),
            text("session.id", "s-1"),
            {"key": "mlflow.chat.tokenUsage", "value": {"kvlist_value": {"values": [
                {"key": "input_tokens", "value": {"int_value": 3}},
                {"key": "output_tokens", "value": {"int_value": 4}},
                {"key": "total_tokens", "value": {"int_value": 7}}]}}},
            text("mlflow.spanType", "LLM"),
            {"key": "mlflow.spanInputs", "value": question},
        ],
        "events": [{
            "time_unix_nano": 1_700_000_000_100_000_000_u64,
            "name": "exception",
            "attributes": [text("exception.type", "\"E\"")],
        }],
        "status": {"code": "STATUS_CODE_ERROR", "message": "it broke"},
    });
    assert_eq!(answer["trace"]["spans"], json!([root, child]));
    assert_eq!(answer["trace"]["trace_info"]["trace_id"], TRACE);
    let batch = format!("/api/3.0/mlflow/traces/batchGet?trace_ids={OTHER}&trace_ids={TRACE}");
    assert_eq!(harness.get(&batch).await.json(), json!({"traces": [answer["trace"]]}));
}

/// Scenario: a trace of which fewer spans are there than were announced.
/// Guarantees: only who allows a partial one gets it; batches leave it out.
#[tokio::test]
async fn partial_traces_are_given_on_demand_only() {
    let harness = with_trace().await;
    let body = start_trace(OTHER, 2);
    assert_eq!(harness.post_json("/api/3.0/mlflow/traces", &body).await.status, 200);
    let path = format!("/api/3.0/mlflow/traces/get?trace_id={OTHER}");
    let answer = harness.get(&path).await;
    assert_eq!(answer.error(), (404, "RESOURCE_DOES_NOT_EXIST".into()));
    assert!(answer.json()["message"].as_str().unwrap().contains("not fully exported yet"));
    let partial = harness.get(&format!("{path}&allow_partial=True")).await.json();
    assert_eq!(partial["trace"]["spans"], json!([]));
    assert_eq!(harness.get(&format!("{path}&allow_partial=maybe")).await.error().0, 400);
    let batch = format!("/api/3.0/mlflow/traces/batchGet?trace_ids={OTHER}");
    assert_eq!(harness.get(&batch).await.json(), json!({"traces": []}));
    assert_eq!(harness.get("/api/3.0/mlflow/traces/get").await.error().0, 400);
}
