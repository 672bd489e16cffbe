//! Calls with which MLflow's clients change traces.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use tracelake_decode::{RecordContent, RecordKind};
use tracelake_model::TraceChange;
use tracelake_model::trace_info::MAX_WORDS;

use crate::support::{Answer, Group, Harness, otlp};

const TRACE: &str = "tr-07070707070707070707070707070707";
const UNKNOWN: &str = "tr-00000000000000000000000000000009";
const INVALID: &str = "INVALID_PARAMETER_VALUE";
const NOT_FOUND: &str = "RESOURCE_DOES_NOT_EXIST";

/// A service that has the trace [`TRACE`], of experiment 0, with one span.
async fn with_trace() -> Harness {
    let mut harness = Harness::new().await;
    let group = Group { attributes: &[("service.name", "shop")], spans: &[(16, 1)] };
    assert_eq!(harness.post_otlp(&[], otlp(&[group])).await.status, 200);
    assert_eq!(harness.seen().len(), 1);
    harness
}

fn tags_of(trace: &str) -> String {
    format!("/api/2.0/mlflow/traces/{trace}/tags")
}

fn assessments_of(trace: &str) -> String {
    format!("/api/3.0/mlflow/traces/{trace}/assessments")
}

async fn info(harness: &Harness) -> Value {
    let answer = harness.get(&format!("/api/3.0/mlflow/traces/{TRACE}")).await;
    answer.json()["trace"]["trace_info"].take()
}

async fn create(harness: &Harness, assessment: Value) -> Answer {
    let body = json!({"assessment": assessment});
    harness.call("POST", &assessments_of(TRACE), Some(&body)).await
}

fn feedback(name: &str) -> Value {
    json!({
        "assessment_name": name,
        "source": {"source_type": "HUMAN", "source_id": "alice"},
        "feedback": {"value": 0.847},
    })
}

/// Scenario: a tag set, overwritten and deleted, one of them the tag of a resource, through both
/// versions and prefixes.
/// Guarantees: each becomes one durable change that says what holds afterwards; answers are `{}`.
#[tokio::test]
async fn tags_are_set_and_deleted() {
    let mut harness = with_trace().await;
    for (key, value) in [("a", "1"), ("a", "2"), ("mlflow.traceName", "n"), ("empty", "")] {
        let body = json!({"key": key, "value": value});
        assert_eq!(harness.call("PATCH", &tags_of(TRACE), Some(&body)).await.body, "{}");
    }
    let path = format!("/ajax-api/3.0/mlflow/traces/{TRACE}/tags");
    for key in ["a", "service.name"] {
        let body = json!({"key": key});
        assert_eq!(harness.call("DELETE", &path, Some(&body)).await.body, "{}", "{key}");
    }
    let tags = &info(&harness).await["tags"];
    assert_eq!((&tags["mlflow.traceName"], &tags["empty"]), (&json!("n"), &json!("")));
    assert!(tags.get("a").is_none() && tags.get("service.name").is_none());
    let seen = harness.seen();
    assert_eq!(seen.len(), 6);
    assert!(seen.iter().all(|record| record.header.kind == RecordKind::TraceChanges));
    let RecordContent::Changes(changes) = &seen[5].content else { panic!() };
    assert_eq!(changes[0].trace_id.to_mlflow(), TRACE);
    assert_eq!(changes[0].changes, [TraceChange::DeleteTag { key: "service.name".into() }]);

    let long = json!({"key": "long", "value": "\u{e9}".repeat(8_001)});
    assert_eq!(harness.call("PATCH", &tags_of(TRACE), Some(&long)).await.body, "{}");
    assert_eq!(info(&harness).await["tags"]["long"], "\u{e9}".repeat(8_000));
}

/// Scenario: keys that MLflow refuses, keys of a server's books, traces that are not there, ids
/// that are none, and other shapes.
/// Guarantees: MLflow's status and code for each; nothing is kept.
#[tokio::test]
async fn tags_are_refused_as_in_mlflow() {
    let mut harness = with_trace().await;
    let key = |key: &str| json!({"key": key, "value": "v"});
    let long_name = json!({"key": "mlflow.traceName", "value": "x".repeat(4_097)});
    for (method, trace, body, expected) in [
        ("PATCH", TRACE, json!({"value": "v"}), (400, INVALID)),
        ("PATCH", TRACE, key(""), (400, INVALID)),
        ("PATCH", TRACE, key("../x"), (400, INVALID)),
        ("PATCH", TRACE, key("a\u{0}b"), (400, INVALID)),
        ("PATCH", TRACE, key(&"k".repeat(251)), (400, INVALID)),
        ("PATCH", TRACE, key("mlflow.trace.spansLocation"), (400, INVALID)),
        ("PATCH", TRACE, key("mlflow.artifactLocation"), (400, INVALID)),
        ("PATCH", TRACE, json!({"key": "a", "value": 5}), (400, INVALID)),
        ("PATCH", TRACE, long_name, (400, INVALID)),
        ("PATCH", UNKNOWN, key("a"), (404, NOT_FOUND)),
        ("PATCH", "..%2F..%2Fetc", key("a"), (404, NOT_FOUND)),
        ("PATCH", "%ff", key("a"), (400, INVALID)),
        ("DELETE", TRACE, key("a"), (404, NOT_FOUND)),
        ("DELETE", TRACE, json!({}), (400, INVALID)),
        ("DELETE", TRACE, key("mlflow.trace.spansLocation"), (400, INVALID)),
        ("DELETE", UNKNOWN, key("a"), (404, NOT_FOUND)),
    ] {
        let answer = harness.call(method, &tags_of(trace), Some(&body)).await;
        assert_eq!(answer.error(), (expected.0, expected.1.into()), "{method} {trace} {body}");
    }
    let answer = harness.call("PATCH", &tags_of(UNKNOWN), Some(&key("a"))).await;
    assert_eq!(answer.json()["message"], format!("Trace with ID '{UNKNOWN}' not found."));
    let answer = harness.call("DELETE", &tags_of(TRACE), Some(&key("a"))).await;
    let message = format!("No trace tag with key 'a' for trace with ID '{TRACE}'");
    assert_eq!(answer.json()["message"], message);
    assert_eq!(harness.call("DELETE", &tags_of(TRACE), None).await.error().0, 400);
    assert!(harness.seen().is_empty());
}

/// Scenario: an assessment created, read, updated by mask, overridden, and the override deleted.
/// Guarantees: ids and times are made here; a change keeps all that it does not name; the
/// overridden one is invalid as long as it is overridden, in one durable step.
#[tokio::test]
async fn assessments_live_as_in_mlflow() {
    let mut harness = with_trace().await;
    let mut sent = feedback("relevance");
    sent["metadata"] = json!({"k": "1", "z": "2"});
    sent["create_time"] = json!("2026-11-22T13:26:07.449Z");
    let first = create(&harness, sent).await.json()["assessment"].take();
    let id = first["assessment_id"].as_str().unwrap().to_owned();
    assert!(id.starts_with("a-") && id.len() == 34, "{id}");
    assert_eq!(first["create_time"], "2026-11-22T13:26:07.449Z");
    assert!(first["last_update_time"].is_string());
    assert_eq!((&first["valid"], &first["trace_id"]), (&json!(true), &json!(TRACE)));

    let path = format!("{}/{id}", assessments_of(TRACE));
    let body = json!({
        "assessment": {"feedback": {"value": "no"}, "rationale": "r", "metadata": {"k": "3"},
                       "assessment_name": "not in the mask"},
        "update_mask": "feedback,rationale,metadata",
    });
    let updated = harness.call("PATCH", &path, Some(&body)).await.json()["assessment"].take();
    assert_eq!(updated["feedback"], json!({"value": "no"}));
    assert_eq!(updated["metadata"], json!({"k": "3", "z": "2"}));
    assert_eq!(updated["assessment_name"], "relevance");
    assert_eq!(updated["create_time"], first["create_time"]);
    assert_eq!(harness.get(&path).await.json()["assessment"], updated);
    let renamed = json!({"assessment": {"assessment_name": "n"}, "update_mask": "assessmentName"});
    let renamed = harness.call("PATCH", &path, Some(&renamed)).await.json();
    assert_eq!(renamed["assessment"]["assessment_name"], "n");

    harness.seen();
    let mut other = feedback("n");
    other["overrides"] = json!(id);
    let other = create(&harness, other).await.json()["assessment"].take();
    let seen = harness.seen();
    let RecordContent::Changes(changes) = &seen[0].content else { panic!() };
    assert_eq!((seen.len(), changes.len(), changes[0].changes.len()), (1, 1, 2));
    assert_eq!(harness.get(&path).await.json()["assessment"]["valid"], false);
    let other_path =
        format!("{}/{}", assessments_of(TRACE), other["assessment_id"].as_str().unwrap());
    for _ in 0..2 {
        assert_eq!(harness.call("DELETE", &other_path, None).await.body, "{}");
    }
    assert_eq!(harness.get(&path).await.json()["assessment"]["valid"], true);
    assert_eq!(harness.get(&other_path).await.error(), (404, NOT_FOUND.into()));
    assert_eq!(info(&harness).await["assessments"].as_array().unwrap().len(), 1);
}

/// Scenario: an assessment without an id posted twice, with other words once, and again after it was
/// changed; the change sent twice.
/// Guarantees: the same words are one assessment, which a retry leaves as it is by then; other words
/// are another one; nothing is journaled for a retry.
#[tokio::test]
async fn an_assessment_that_is_posted_again_is_the_same_one() {
    let mut harness = with_trace().await;
    let mut sent = feedback("relevance");
    sent["create_time"] = json!("2026-11-22T13:26:07.449Z");
    let first = create(&harness, sent.clone()).await.json();
    assert_eq!(create(&harness, sent.clone()).await.json(), first);
    let mut other = sent.clone();
    other["create_time"] = json!("2026-11-22T13:26:07.450Z");
    let other = create(&harness, other).await.json();
    assert_ne!(other["assessment"]["assessment_id"], first["assessment"]["assessment_id"]);

    let id = first["assessment"]["assessment_id"].as_str().unwrap();
    let path = format!("{}/{id}", assessments_of(TRACE));
    let body = json!({"assessment": {"rationale": "r"}, "update_mask": "rationale"});
    let updated = harness.call("PATCH", &path, Some(&body)).await.json();
    harness.seen();
    assert_eq!(harness.call("PATCH", &path, Some(&body)).await.json(), updated);
    assert_eq!(create(&harness, sent).await.json(), updated);
    assert_eq!(harness.seen().len(), 0);
}

/// Scenario: bodies that MLflow refuses, and masks that do not fit the assessment.
/// Guarantees: MLflow's status and code for each; nothing is kept.
#[tokio::test]
async fn assessments_are_refused_as_in_mlflow() {
    let mut harness = with_trace().await;
    let with = |name: &str, value: Value| {
        let mut assessment = feedback("f");
        assessment[name] = value;
        assessment
    };
    for (assessment, status, code) in [
        (json!(null), 400, INVALID),
        (json!({}), 400, INVALID),
        (json!([]), 400, INVALID),
        (json!({"assessment_name": "a"}), 400, INVALID),
        (json!({"expectation": {}}), 400, INVALID),
        (json!({"feedback": 5}), 400, INVALID),
        (with("expectation", json!({"value": 1})), 400, INVALID),
        (with("source", json!({"source_type": "ORACLE"})), 400, INVALID),
        (with("metadata", json!([])), 400, INVALID),
        (with("create_time", json!("yesterday")), 400, INVALID),
        (with("assessment_id", json!("x".repeat(51))), 400, INVALID),
        (with("overrides", json!("a-none")), 404, NOT_FOUND),
    ] {
        let answer = create(&harness, assessment.clone()).await;
        assert_eq!(answer.error(), (status, code.into()), "{assessment}");
    }
    let deep = format!("{{\"assessment\":{{\"feedback\":{{\"value\":{}", "[".repeat(100_000));
    let json = [("content-type", "application/json")];
    assert_eq!(harness.post(&assessments_of(TRACE), &json, deep).await.error().0, 400);
    let unknown = json!({"assessment": feedback("f")});
    let answer = harness.call("POST", &assessments_of(UNKNOWN), Some(&unknown)).await;
    assert_eq!(answer.error(), (404, NOT_FOUND.into()));
    assert!(harness.seen().is_empty());

    let known = create(&harness, with("assessment_id", json!("a-mine"))).await;
    assert_eq!(known.json()["assessment"]["assessment_id"], "a-mine");
    let again = create(&harness, with("assessment_id", json!("a-mine"))).await;
    assert_eq!(again.error(), (400, "RESOURCE_ALREADY_EXISTS".into()));
    harness.seen();
    let path = format!("{}/a-mine", assessments_of(TRACE));
    for (body, status) in [
        (json!({"assessment": {"rationale": "r"}}), 400),
        (json!({"assessment": {"rationale": "r"}, "update_mask": ""}), 400),
        (json!({"assessment": {"rationale": "r"}, "update_mask": 5}), 400),
        (json!({"assessment": {"valid": false}, "update_mask": "valid"}), 400),
        (json!({"assessment": {"expectation": {"value": 1}}, "update_mask": "expectation"}), 400),
        (json!({"assessment": {}, "update_mask": "feedback"}), 400),
        (json!({"assessment": {}, "update_mask": "feedback,expectation"}), 400),
        (json!({"update_mask": "rationale"}), 400),
    ] {
        let answer = harness.call("PATCH", &path, Some(&body)).await;
        assert_eq!(answer.error().0, status, "{body}");
    }
    let body = json!({"assessment": {"rationale": "r"}, "update_mask": "rationale"});
    let answer = harness.call("PATCH", &format!("{path}x"), Some(&body)).await;
    assert_eq!(answer.error(), (404, NOT_FOUND.into()));
    assert!(harness.seen().is_empty());
}

/// Scenario: 20 clients at once, each with a tag of its own and a key of one assessment's metadata.
/// Guarantees: nobody overwrites what another wrote.
#[tokio::test]
async fn changes_at_once_are_all_there() {
    let harness = with_trace().await;
    let mut assessment = feedback("f");
    assessment["assessment_id"] = json!("a-shared");
    assert_eq!(create(&harness, assessment).await.status, 200);
    let path = format!("{}/a-shared", assessments_of(TRACE));
    let clients = (0..20).map(|client| {
        let (harness, path) = (&harness, &path);
        async move {
            let tag = json!({"key": format!("t{client}"), "value": "v"});
            let tagged = harness.call("PATCH", &tags_of(TRACE), Some(&tag)).await;
            let metadata = json!({format!("m{client}"): "v"});
            let body = json!({"assessment": {"metadata": metadata}, "update_mask": "metadata"});
            let merged = harness.call("PATCH", path, Some(&body)).await;
            let created = create(harness, feedback(&format!("f{client}"))).await;
            (tagged.status, merged.status, created.status)
        }
    });
    for statuses in futures::future::join_all(clients).await {
        assert_eq!(statuses, (http::StatusCode::OK, http::StatusCode::OK, http::StatusCode::OK));
    }
    let info = info(&harness).await;
    let tags = info["tags"].as_object().unwrap();
    assert_eq!(tags.keys().filter(|key| key.starts_with('t')).count(), 20);
    let assessments = info["assessments"].as_array().unwrap();
    assert_eq!(assessments.len(), 21);
    let shared = assessments.iter().find(|a| a["assessment_id"] == "a-shared").unwrap();
    assert_eq!(shared["metadata"].as_object().unwrap().len(), 20);
}

/// Scenario: the disk fails while a tag is made durable.
/// Guarantees: no success, a time to come back, and the tag is not there.
#[tokio::test]
async fn a_change_that_is_not_durable_is_not_acknowledged() {
    let harness = with_trace().await;
    harness.fail_sync.store(true, Ordering::SeqCst);
    let body = json!({"key": "a", "value": "1"});
    let answer = harness.call("PATCH", &tags_of(TRACE), Some(&body)).await;
    assert_eq!(answer.error(), (503, "TEMPORARILY_UNAVAILABLE".into()));
    assert!(answer.retry_after().is_some());
    assert!(info(&harness).await["tags"].get("a").is_none());
}

/// Scenario: traces linked to a run, unknown ones and ids that are none among them; run ids that
/// MLflow does not have; too many.
/// Guarantees: those that are there are linked; MLflow's code for the rest.
#[tokio::test]
async fn traces_are_linked_to_runs() {
    let mut harness = with_trace().await;
    let path = "/api/2.0/mlflow/traces/link-to-run";
    let run = "0123456789abcdef0123456789abcdef";
    let body = json!({"trace_ids": [TRACE, UNKNOWN, "x", TRACE], "run_id": run});
    assert_eq!(harness.post_json(path, &body).await.body, "{}");
    let seen = harness.seen();
    let RecordContent::Changes(changes) = &seen[0].content else { panic!() };
    assert_eq!(changes[0].changes, [TraceChange::LinkRun { run_id: run.into() }]);
    for body in [
        json!({"trace_ids": [TRACE]}),
        json!({"run_id": run}),
        json!({"trace_ids": TRACE, "run_id": run}),
        json!({"trace_ids": [TRACE], "run_id": "../x"}),
        json!({"trace_ids": [TRACE], "run_id": "x".repeat(257)}),
        json!({"trace_ids": vec![TRACE; 101], "run_id": run}),
    ] {
        assert_eq!(harness.post_json(path, &body).await.error(), (400, INVALID.into()), "{body}");
    }
    let body = json!({"trace_ids": [], "run_id": run});
    assert_eq!(harness.post_json(path, &body).await.body, "{}");
    assert!(harness.seen().is_empty());
}

fn start_trace(number: u32) -> Value {
    json!({"trace": {"trace_info": {
        "trace_id": format!("tr-{number:032x}"),
        "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "1"}},
        "request_time": format!("2026-11-22T13:{:02}:{:02}Z", number / 60, number % 60),
        "state": "OK",
    }}})
}

/// Scenario: 250 traces of an experiment deleted by id, by age and by number, and traces of
/// another experiment named.
/// Guarantees: exactly those are gone, the oldest first, and the answer counts them.
#[tokio::test]
async fn traces_are_deleted() {
    let harness = with_trace().await;
    harness.experiment("e").await;
    for number in 1..=250 {
        let answer = harness.post_json("/api/3.0/mlflow/traces", &start_trace(number)).await;
        assert_eq!(answer.status, 200);
    }
    let exists = async |number: u32| {
        harness.get(&format!("/api/3.0/mlflow/traces/tr-{number:032x}")).await.status == 200
    };
    let delete = async |body: Value| {
        let answer = harness.post_json("/api/3.0/mlflow/traces/delete-traces", &body).await;
        answer.json()["traces_deleted"].as_u64().unwrap()
    };
    let id = |number: u32| format!("tr-{number:032x}");
    let ids = vec![id(250), id(250), id(249), TRACE.into(), UNKNOWN.into(), "x".into()];
    let body = json!({"experiment_id": "1", "request_ids": ids});
    // UNKNOWN is trace 9.
    assert_eq!(delete(body.clone()).await, 3);
    assert_eq!(delete(body).await, 0);
    assert!(!exists(250).await && !exists(9).await && exists(248).await);
    let until = 1_795_305_600_000_i64 + 13 * 3_600_000 + 200_000;
    let aged = json!({"experiment_id": "1", "max_timestamp_millis": until});
    let mut few = aged.clone();
    few["max_traces"] = json!(3);
    assert_eq!(delete(few).await, 3);
    assert!(!exists(3).await && exists(4).await);
    assert_eq!(delete(aged).await, 200 - 3 - 1);
    assert!(!exists(200).await && exists(201).await);
    let other = json!({"experiment_id": "0", "request_ids": [TRACE]});
    assert_eq!(delete(other).await, 1);
}

/// Scenario: delete calls that MLflow refuses.
/// Guarantees: MLflow's words, and nothing is deleted.
#[tokio::test]
async fn deletions_are_refused_as_in_mlflow() {
    let mut harness = with_trace().await;
    for (body, words) in [
        (json!({}), "experiment_id"),
        (json!({"experiment_id": "x", "request_ids": [TRACE]}), "x"),
        (json!({"experiment_id": "0"}), "Either `max_timestamp_millis` or `trace_ids`"),
        (json!({"experiment_id": "0", "request_ids": []}), "Either"),
        (
            json!({"experiment_id": "0", "request_ids": [TRACE], "max_timestamp_millis": 1}),
            "Only one of",
        ),
        (
            json!({"experiment_id": "0", "request_ids": [TRACE], "max_traces": 1}),
            "`max_traces` can't be specified",
        ),
        (
            json!({"experiment_id": "0", "max_timestamp_millis": 1, "max_traces": 0}),
            "`max_traces` must be a positive integer, received 0.",
        ),
        (json!({"experiment_id": "0", "max_timestamp_millis": "soon"}), "max_timestamp_millis"),
    ] {
        let answer = harness.post_json("/api/2.0/mlflow/traces/delete-traces", &body).await;
        assert_eq!(answer.error(), (400, INVALID.into()), "{body}");
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(words), "{message}");
    }
    assert!(harness.seen().is_empty());
}

/// Scenario: an experiment that is bound to a table, read in every way; its tags tampered with.
/// Guarantees: the binding shows as two tags and can be searched for; only `enable` changes it.
#[tokio::test]
async fn a_binding_shows_as_tags() {
    let harness = Harness::new().await;
    harness.bound("bound", "a.b.c").await;
    harness.experiment("free").await;
    let expected = json!([
        {"key": "tracelake.archive.enabledAt", "value": "1970-01-01T00:00:00.000Z"},
        {"key": "tracelake.archive.table", "value": "a.b.c"},
    ]);
    let base = "/api/2.0/mlflow/experiments";
    for path in ["get?experiment_id=1", "get-by-name?experiment_name=bound"] {
        let experiment = harness.get(&format!("{base}/{path}")).await.json();
        assert_eq!(experiment["experiment"]["tags"], expected);
    }
    let free = harness.get(&format!("{base}/get?experiment_id=2")).await.json();
    assert!(free["experiment"].get("tags").is_none());
    let filter = json!({"filter": "tags.`tracelake.archive.table` = 'a.b.c'"});
    let found = harness.post_json(&format!("{base}/search"), &filter).await.json();
    assert_eq!(found["experiments"][0]["tags"], expected);
    assert_eq!(found["experiments"].as_array().unwrap().len(), 1);
    let key = "tracelake.archive.table";
    let tag = json!({"experiment_id": "1", "key": key, "value": "x"});
    let made = json!({"name": "n", "tags": [{"key": key, "value": "x"}]});
    for (verb, body) in
        [("set-experiment-tag", &tag), ("delete-experiment-tag", &tag), ("create", &made)]
    {
        let answer = harness.post_json(&format!("{base}/{verb}"), body).await;
        assert_eq!(answer.error(), (400, INVALID.into()), "{verb}");
        assert!(answer.json()["message"].as_str().unwrap().contains("tracelake enable"));
    }
}

/// Scenario: a trace has as many tags as one may have; a further one, another value of one that is there, a
/// deletion; a `start_trace` with more assessments than a trace may have.
/// Guarantees: what is past the limit is refused before it is acknowledged, and the answer names the limit;
/// the rest is taken.
#[tokio::test]
async fn what_clients_say_of_a_trace_is_bounded() {
    let harness = with_trace().await;
    let tags: serde_json::Map<String, Value> =
        (0..MAX_WORDS - 1).map(|n| (format!("t{n}"), json!("v"))).collect();
    let start = |assessments: Vec<Value>| {
        json!({"trace": {"trace_info": {
            "trace_id": TRACE,
            "trace_location": {
                "type": "MLFLOW_EXPERIMENT",
                "mlflow_experiment": {"experiment_id": "0"},
            },
            "request_time": "2026-11-22T00:00:00Z",
            "state": "OK",
            "tags": &tags,
            "assessments": assessments,
        }}})
    };
    let starts = "/api/3.0/mlflow/traces";
    let many = (0..=MAX_WORDS).map(|n| feedback(&n.to_string())).collect();
    let refused = harness.call("POST", starts, Some(&start(many))).await;
    assert_eq!(refused.status, 400);
    let message = refused.json()["message"].to_string();
    assert!(message.contains("10000 assessments"), "{message}");
    assert_eq!(harness.call("POST", starts, Some(&start(Vec::new()))).await.status, 200);
    let set = |key: &str| json!({"key": key, "value": "w"});
    // With the tag of its resource it has as many as it may.
    let full = harness.call("PATCH", &tags_of(TRACE), Some(&set("further"))).await;
    assert_eq!(full.status, 400);
    let message = full.json()["message"].to_string();
    assert!(message.contains("10000 tags") && message.contains(TRACE), "{message}");
    assert_eq!(harness.call("PATCH", &tags_of(TRACE), Some(&set("t5"))).await.status, 200);
    let gone = harness.call("DELETE", &tags_of(TRACE), Some(&json!({"key": "t5"}))).await;
    assert_eq!(gone.status, 200);
    let again = harness.call("PATCH", &tags_of(TRACE), Some(&set("t5"))).await;
    assert_eq!(again.status, 200, "{}", again.json());
}
