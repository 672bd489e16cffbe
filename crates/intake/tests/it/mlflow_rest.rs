//! The MLflow REST calls.

use axum::body::Body;
use serde_json::{Value, json};
use tracelake_decode::{RecordContent, RecordKind};
use tracelake_intake::MLFLOW_VERSION;

use crate::support::{Harness, gzip, request};

const TRACE: &str = "tr-0123456789abcdef0123456789abcdef";

fn start_trace(experiment: &Value) -> Value {
    json!({"trace": {"trace_info": {
        "trace_id": TRACE,
        "client_request_id": "req-1",
        "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}},
        "request_time": "2026-11-22T13:25:50.663Z",
        "execution_duration": "0.093s",
        "state": "OK",
        "trace_metadata": {"mlflow.trace_schema.version": "3"},
        "tags": {"mlflow.traceName": "t", "mlflow.trace.spansLocation": "ARTIFACT_REPO"},
    }}})
}

fn traces_json(trace_id: &str, span_id: &str) -> String {
    json!({"spans": [{
        "trace_id": trace_id, "span_id": span_id, "parent_span_id": null, "name": "root",
        "start_time_unix_nano": 1_795_353_950_663_396_024_u64,
        "end_time_unix_nano": 1_795_353_950_754_177_558_u64,
        "events": [], "status": {"code": "STATUS_CODE_OK", "message": ""},
        "attributes": {"mlflow.spanType": "\"AGENT\""},
    }]})
    .to_string()
}

fn artifact(experiment: &str, trace: &str) -> String {
    format!("/api/2.0/mlflow-artifacts/artifacts/{experiment}/traces/{trace}/artifacts/traces.json")
}

/// Scenario: the questions that a client asks first, and unknown calls.
/// Guarantees: the version in plain text; unknown calls are told apart by MLflow's code.
#[tokio::test]
async fn says_who_it_is_and_what_it_lacks() {
    let harness = Harness::new().await;
    assert_eq!(harness.get("/version").await.body, MLFLOW_VERSION);
    let parts: Vec<u32> = MLFLOW_VERSION.split('.').map(|part| part.parse().unwrap()).collect();
    assert!((3, 4) <= (parts[0], parts[1]));
    for path in [
        "/api/2.0/mlflow/runs/create",
        "/api/3.0/mlflow/traces/search",
        "/ajax-api/2.0/mlflow/x/%00%1b[0m",
        "/api/9",
        "/api/2.0/mlflow-artifacts/artifacts/0/../../etc/passwd",
    ] {
        let answer = harness.post_json(path, &json!({})).await;
        assert_eq!(answer.error(), (404, "ENDPOINT_NOT_FOUND".into()), "{path}");
    }
    let answer = harness.get("/api/2.0/mlflow/experiments/create").await;
    assert_eq!(answer.error(), (405, "BAD_REQUEST".into()));
}

/// Scenario: what `mlflow.set_experiment` does with a new name, then with a known one.
/// Guarantees: the answers of the recorded session, field by field.
#[tokio::test]
async fn set_experiment_finds_or_makes_it() {
    let harness = Harness::new().await;
    let by_name = "/api/2.0/mlflow/experiments/get-by-name?experiment_name=my%20agents%2F1";
    let answer = harness.get(by_name).await;
    assert_eq!(answer.error(), (404, "RESOURCE_DOES_NOT_EXIST".into()));
    assert_eq!(answer.json()["message"], "Could not find experiment with name 'my agents/1'");
    let body = json!({"name": "my agents/1", "tags": [{"key": "a", "value": "b"}]});
    let answer = harness.post_json("/api/2.0/mlflow/experiments/create", &body).await;
    assert_eq!(answer.json(), json!({"experiment_id": "1"}));
    let answer = harness.post_json("/api/2.0/mlflow/experiments/create", &body).await;
    assert_eq!(answer.error(), (400, "RESOURCE_ALREADY_EXISTS".into()));
    for path in ["/api/2.0/mlflow/experiments/get?experiment_id=1", by_name] {
        let mut experiment = harness.get(path).await.json()["experiment"].take();
        let members = experiment.as_object_mut().unwrap();
        assert!(members.remove("creation_time").unwrap().is_i64());
        assert!(members.remove("last_update_time").unwrap().is_i64());
        assert_eq!(
            experiment,
            json!({
                "experiment_id": "1", "name": "my agents/1", "workspace": "default",
                "artifact_location": "mlflow-artifacts:/1", "lifecycle_stage": "active",
                "tags": [{"key": "a", "value": "b"}],
            })
        );
    }
}

/// Scenario: the other experiment calls, by GET and POST, under both prefixes, then bad ones.
/// Guarantees: each does its work; each bad one has MLflow's code and status.
#[tokio::test]
async fn experiments_can_be_searched_changed_and_deleted() {
    let harness = Harness::new().await;
    let call = async |verb: &str, body: Value| {
        harness.post_json(&format!("/ajax-api/2.0/mlflow/experiments/{verb}"), &body).await
    };
    for name in ["a", "b"] {
        assert_eq!(call("create", json!({"name": name})).await.status, 200);
    }
    assert_eq!(call("update", json!({"experiment_id": "1", "new_name": "c"})).await.body, "{}");
    let tag = json!({"experiment_id": "1", "key": "k", "value": "v"});
    assert_eq!(call("set-experiment-tag", tag).await.body, "{}");
    let found = call("search", json!({"filter": "tags.k = 'v'", "max_results": "5"})).await.json();
    assert_eq!(found["experiments"][0]["name"], "c");
    assert_eq!(
        call("delete-experiment-tag", json!({"experiment_id": "1", "key": "k"})).await.body,
        "{}"
    );
    assert_eq!(call("delete", json!({"experiment_id": "2"})).await.body, "{}");
    let path = "/api/2.0/mlflow/experiments/search?view_type=ALL&max_results=2&order_by=name%20ASC";
    let page = harness.get(path).await.json();
    assert_eq!(page["experiments"][1]["lifecycle_stage"], "deleted");
    let next = format!("{path}&page_token={}", page["next_page_token"].as_str().unwrap());
    assert_eq!(harness.get(&next).await.json()["experiments"][0]["name"], "c");
    let deleted = call("search", json!({"view_type": 2})).await.json();
    assert_eq!(deleted["experiments"].as_array().unwrap().len(), 1);
    assert_eq!(call("restore", json!({"experiment_id": "2"})).await.body, "{}");

    let bad = "INVALID_PARAMETER_VALUE";
    for (verb, body, status, code) in [
        ("create", json!({}), 400, bad),
        ("create", json!({"name": ""}), 400, bad),
        ("create", json!({"name": 5}), 400, bad),
        ("create", json!({"name": "x".repeat(501)}), 400, bad),
        ("create", json!({"name": "x", "tags": [1]}), 400, bad),
        ("update", json!({"experiment_id": "1"}), 400, bad),
        ("update", json!({"experiment_id": "88", "new_name": "x"}), 404, "RESOURCE_DOES_NOT_EXIST"),
        ("update", json!({"experiment_id": "1", "new_name": "b"}), 400, "RESOURCE_ALREADY_EXISTS"),
        ("delete", json!({"experiment_id": "x"}), 400, bad),
        ("delete", json!({"experiment_id": "88"}), 404, "RESOURCE_DOES_NOT_EXIST"),
        ("restore", json!({"experiment_id": "1"}), 404, "RESOURCE_DOES_NOT_EXIST"),
        ("set-experiment-tag", json!({"experiment_id": "1", "key": "../x"}), 400, bad),
        (
            "delete-experiment-tag",
            json!({"experiment_id": "1", "key": "no"}),
            404,
            "RESOURCE_DOES_NOT_EXIST",
        ),
        ("search", json!({"filter": "name = 'a' OR name = 'b'"}), 400, bad),
        ("search", json!({"max_results": 0}), 400, bad),
        ("search", json!({"max_results": "many"}), 400, bad),
        ("search", json!({"order_by": "name"}), 400, bad),
        ("search", json!({"view_type": 9}), 400, bad),
    ] {
        let answer = call(verb, body.clone()).await;
        assert_eq!(answer.error(), (status, code.into()), "{verb} {body}");
    }
    call("delete", json!({"experiment_id": "2"})).await;
    let answer = call("update", json!({"experiment_id": "2", "new_name": "z"})).await;
    assert_eq!(answer.error(), (500, "INVALID_STATE".into()));
}

/// Scenario: bodies of experiment calls that are no JSON object, too large, of another type.
/// Guarantees: a clear MLflow error for each.
#[tokio::test]
async fn experiment_calls_refuse_other_bodies() {
    let harness = Harness::new().await;
    let path = "/api/2.0/mlflow/experiments/create";
    let json = [("content-type", "application/json")];
    for body in ["[]", "{", "\u{0}", &"[".repeat(10_000)] {
        assert_eq!(harness.post(path, &json, body.to_owned()).await.error().0, 400);
    }
    assert_eq!(harness.post(path, &json, vec![b' '; 5 << 20]).await.error().0, 413);
    let form = [("content-type", "text/plain")];
    assert_eq!(harness.post(path, &form, "{\"name\":\"x\"}").await.error().0, 400);
    assert_eq!(harness.get("/api/2.0/mlflow/experiments/get").await.error().0, 400);
    let answer = harness.get("/api/2.0/mlflow/experiments/get-by-name?experiment_name=%ff").await;
    assert!(answer.status == 400 || answer.status == 404);
}

/// Scenario: start_trace for a bound experiment, plain and compressed.
/// Guarantees: the journal holds the body as received with its route; the answer repeats the
/// trace and says where the spans are, whatever the client said of that.
#[tokio::test]
async fn start_trace_is_kept_and_answered() {
    let mut harness = Harness::new().await;
    harness.bound("bound", "a.b.c").await;
    let body = start_trace(&json!("1"));
    let answer = harness.post_json("/api/3.0/mlflow/traces", &body).await;
    assert_eq!(answer.status, 200);
    let info = &answer.json()["trace"]["trace_info"];
    assert_eq!(info["trace_id"], TRACE);
    assert_eq!(info["client_request_id"], "req-1");
    assert_eq!(info["state"], "OK");
    assert_eq!(info["request_time"], "2026-11-22T13:25:50.663Z");
    assert_eq!(info["trace_location"]["mlflow_experiment"]["experiment_id"], "1");
    assert_eq!(info["tags"]["mlflow.traceName"], "t");
    assert_eq!(info["tags"]["mlflow.trace.spansLocation"], "TRACKING_STORE");
    let artifacts = format!("mlflow-artifacts:/1/traces/{TRACE}/artifacts");
    assert_eq!(info["tags"]["mlflow.artifactLocation"], artifacts);
    assert_eq!(info["trace_metadata"]["mlflow.trace.infoFinalized"], "true");
    let seen = harness.seen();
    assert_eq!(seen[0].header.kind, RecordKind::MlflowStartTrace);
    assert_eq!(seen[0].routes(), [("1".into(), "a.b.c".into())]);
    assert_eq!(seen[0].payload, body.to_string());
    let RecordContent::TraceInfo(info) = &seen[0].content else { panic!() };
    assert_eq!(info.trace_id.to_mlflow(), TRACE);

    let headers = [("content-type", "application/json"), ("content-encoding", "gzip")];
    let zipped = gzip(body.to_string().as_bytes());
    assert_eq!(harness.post("/ajax-api/3.0/mlflow/traces", &headers, zipped).await.status, 200);
    assert_eq!(harness.seen().len(), 1);
}

/// Scenario: start_trace for experiments that are not there, and bodies of other shapes.
/// Guarantees: MLflow's codes; nothing is kept.
#[tokio::test]
async fn start_trace_refuses_what_has_no_home() {
    let mut harness = Harness::new().await;
    let path = "/api/3.0/mlflow/traces";
    let answer = harness.post_json(path, &start_trace(&json!("5"))).await;
    assert_eq!(answer.error(), (404, "RESOURCE_DOES_NOT_EXIST".into()));
    assert_eq!(answer.json()["message"], "No Experiment with id=5 exists");
    let answer = harness.post_json(path, &start_trace(&json!("abc"))).await;
    assert_eq!(answer.error(), (400, "INVALID_PARAMETER_VALUE".into()));
    let mut other = start_trace(&json!("0"));
    other["trace"]["trace_info"]["trace_id"] = json!("tr-xyz");
    for body in [json!({}), json!({"trace": {}}), json!([]), other] {
        let answer = harness.post_json(path, &body).await;
        assert_eq!(answer.error(), (400, "INVALID_PARAMETER_VALUE".into()), "{body}");
    }
    let answer = harness.post(path, &[("content-type", "text/plain")], "{}").await;
    assert_eq!(answer.error().0, 400);
    assert!(harness.seen().is_empty());
}

/// Scenario: `traces.json` as the client puts it; spans of another trace; hostile paths.
/// Guarantees: kept as received with its trace id; what cannot be kept at all is an error.
#[tokio::test]
async fn traces_json_is_kept() {
    let mut harness = Harness::new().await;
    let (trace_id, span_id) = ("ASNFZ4mrze8BI0VniavN7w==", "7R7oDSGIcpU=");
    let body = traces_json(trace_id, span_id);
    let put = |path: &str, body: &str| {
        harness.send(request(
            "PUT",
            path,
            &[("content-type", "text/plain")],
            Body::from(body.to_owned()),
        ))
    };
    assert_eq!(put(&artifact("0", TRACE), &body).await.body, "{}");
    let other = traces_json("//////////////////////==", span_id);
    assert_eq!(put(&artifact("0", TRACE), &other).await.error().0, 400);
    assert_eq!(put(&artifact("8", TRACE), &body).await.error().0, 404);
    for (experiment, trace) in
        [("..%2f..", TRACE), ("0", "..%2f.."), ("0", "tr-1"), ("0", "%ff"), ("%00", TRACE)]
    {
        let answer = put(&artifact(experiment, trace), &body).await;
        assert_eq!(answer.error(), (400, "INVALID_PARAMETER_VALUE".into()), "{experiment} {trace}");
    }
    assert_eq!(put(&artifact("0", TRACE), "not json").await.error().0, 400);
    assert_eq!(
        put(&artifact("0", TRACE).replace("traces.json", "a.png"), &body).await.error().0,
        404
    );
    let seen = harness.seen();
    assert_eq!((seen.len(), seen[0].spans()), (1, 1));
    assert_eq!(seen[0].header.kind, RecordKind::MlflowTracesJson);
    assert_eq!(seen[0].header.trace_id.as_deref(), Some(TRACE));
    assert_eq!(seen[0].payload, body);
}

/// Scenario: prompt links, good and bad.
/// Guarantees: answered with `{}` or an error.
#[tokio::test]
async fn prompt_links_are_answered() {
    let harness = Harness::new().await;
    let path = "/api/2.0/mlflow/traces/link-prompts";
    let body = json!({"trace_id": TRACE, "prompt_versions": [{"name": "p", "version": "1"}]});
    assert_eq!(harness.post_json(path, &body).await.body, "{}");
    let body = json!({"trace_id": TRACE, "prompt_versions": []});
    assert_eq!(harness.post_json(path, &body).await.error().0, 400);
    assert_eq!(harness.post_json(path, &json!({"trace_id": "x"})).await.error().0, 400);
}
