//! Requests recorded from a real MLflow client and from real OTLP senders, where they are at hand.

use std::path::{Path, PathBuf};

use axum::body::Body;
use serde_json::Value;
use tracelake_decode::RecordContent;

use crate::support::{Harness, gzip, request};

/// A folder of recorded data, or a plain word that it is absent.
fn recorded(folder: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(folder);
    if path.is_dir() {
        return Some(path);
    }
    println!("skipped: no recorded data at {}", path.display());
    None
}

/// Scenario: the OTLP bodies of the MLflow SDK, its start_trace and its traces.json.
/// Guarantees: each is kept whole, none is rejected, start_trace is answered as MLflow answered
/// but for the tag that stops the second write.
#[tokio::test]
async fn takes_what_the_mlflow_client_sends() {
    let Some(folder) = recorded("mlflow_wire") else { return };
    let mut harness = Harness::new().await;
    harness.experiment("rec_async").await;
    for name in ["otlp_export_sdk_small.pb", "otlp_export_sdk_large.pb"] {
        let body = std::fs::read(folder.join(name)).unwrap();
        let answer = harness.post_otlp(&[("x-mlflow-experiment-id", "1")], body.clone()).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0), "{name}");
        let seen = harness.seen();
        assert!(0 < seen[0].spans());
        assert_eq!(seen[0].payload, body);
    }

    let body = std::fs::read(folder.join("start_trace_v3.request.json")).unwrap();
    let json = [("content-type", "application/json")];
    let answer = harness.post("/api/3.0/mlflow/traces", &json, body).await;
    let mut ours = answer.json();
    let recorded = std::fs::read(folder.join("start_trace_v3.response.json")).unwrap();
    let theirs: Value = serde_json::from_slice(&recorded).unwrap();
    let tags = ours["trace"]["trace_info"]["tags"].as_object_mut().unwrap();
    assert_eq!(tags.remove("mlflow.trace.spansLocation").unwrap(), "TRACKING_STORE");
    assert_eq!(ours, theirs);

    let body = std::fs::read(folder.join("artifact_traces.json")).unwrap();
    let path = "/api/2.0/mlflow-artifacts/artifacts/1/traces/\
                tr-647c3391b6b41d8f6e033e3bfb7a362f/artifacts/traces.json";
    let headers = [("content-type", "text/plain")];
    let answer = harness.send(request("PUT", path, &headers, Body::from(body))).await;
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"{}"[..]));
    let seen = harness.seen();
    assert_eq!(seen.len(), 2);
    let RecordContent::Spans(spans) = &seen[1].content else { panic!() };
    assert!(spans.rejects.is_empty() && !spans.spans.is_empty());
}

/// Scenario: the recorded experiment calls of `mlflow.set_experiment`.
/// Guarantees: the same status and error code, and the same members in the answer.
#[tokio::test]
async fn answers_experiment_calls_as_recorded() {
    let Some(folder) = recorded("mlflow_wire") else { return };
    let harness = Harness::new().await;
    let text = std::fs::read(folder.join("experiments_calls.json")).unwrap();
    let calls: Vec<Value> = serde_json::from_slice(&text).unwrap();
    for call in calls {
        let headers = [("content-type", "application/json")];
        let body = call["req"].as_str().unwrap().to_owned();
        let (method, path) = (call["m"].as_str().unwrap(), call["path"].as_str().unwrap());
        let answer = harness.send(request(method, path, &headers, body)).await;
        assert_eq!(Value::from(answer.status.as_u16()), call["status"], "{path}");
        let mut theirs: Value = serde_json::from_str(call["resp"].as_str().unwrap()).unwrap();
        let mut ours = answer.json();
        for json in [&mut theirs, &mut ours] {
            json.as_object_mut()
                .unwrap()
                .retain(|key, _| key != "sqlstate" && key != "error_class");
            if let Some(experiment) = json.get_mut("experiment") {
                experiment["creation_time"] = 0.into();
                experiment["last_update_time"] = 0.into();
            }
        }
        assert_eq!(ours, theirs, "{path}");
    }
}

/// Scenario: every OTLP test vector, as it is, compressed, cut in the middle, with flipped bytes.
/// Guarantees: an answer below 500 each time; an ack for the body as it is counts its spans.
#[tokio::test]
async fn survives_every_vector_and_its_mutations() {
    let Some(folder) = recorded("otlp_vectors") else { return };
    let mut harness = Harness::new().await;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let (Some(extension), true) = (path.extension(), path.is_file()) else { continue };
        let media_type =
            if extension == "json" { "application/json" } else { "application/x-protobuf" };
        let body = std::fs::read(&path).unwrap();
        let mut flipped = body.clone();
        for byte in flipped.iter_mut().step_by(97) {
            *byte ^= 0x55;
        }
        for (encoding, body) in [
            ("identity", body.clone().into()),
            ("gzip", gzip(&body)),
            ("identity", body.get(..body.len() / 2).unwrap_or_default().to_vec().into()),
            ("identity", flipped.into()),
        ] {
            let headers = [("content-type", media_type), ("content-encoding", encoding)];
            let answer = harness.post("/v1/traces", &headers, body).await;
            assert!(answer.status.as_u16() < 500, "{} {}", path.display(), answer.status);
            for seen in harness.seen() {
                assert!(0 < seen.spans() && answer.status == 200);
            }
        }
    }
}
