//! `POST /v1/traces`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use tracelake_decode::otlp::fields::rpc_status;
use tracelake_decode::{ContentEncoding, RecordKind};
use tracelake_intake::IntakeSettings;
use tracelake_model::{Admission, Limits, Overload};

use crate::support::{
    Group, Harness, Setup, field, gzip, one_span, otlp, partial_success, request, table, zlib, zstd,
};

const JSON_SPAN: &str = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{
    "traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","name":"a"}]}]}]}"#;

/// Scenario: one span as protobuf in every encoding, under both of its media types.
/// Guarantees: 200 with an empty protobuf answer; the journal holds the bytes as received and how
/// to read them, and the default route.
#[tokio::test]
async fn keeps_protobuf_in_every_encoding_as_received() {
    let mut harness = Harness::new().await;
    let plain = one_span();
    let cases: [(&str, ContentEncoding, Bytes); 5] = [
        ("identity", ContentEncoding::Identity, plain.clone()),
        ("gzip", ContentEncoding::Gzip, gzip(&plain)),
        ("GZIP", ContentEncoding::Gzip, gzip(&plain)),
        ("deflate", ContentEncoding::Deflate, zlib(&plain)),
        ("zstd", ContentEncoding::Zstd, zstd(&plain)),
    ];
    for (name, encoding, body) in cases {
        for media_type in ["application/x-protobuf", "application/protobuf; x=1"] {
            let headers = [("content-type", media_type), ("content-encoding", name)];
            let answer = harness.post("/v1/traces", &headers, body.clone()).await;
            assert_eq!(answer.status, 200, "{name}");
            assert_eq!(answer.headers["content-type"], "application/x-protobuf");
            assert!(answer.body.is_empty());
            let seen = harness.seen();
            assert_eq!((seen.len(), seen[0].spans()), (1, 1));
            assert_eq!(
                (seen[0].header.kind, seen[0].header.encoding),
                (RecordKind::OtlpProtobuf, encoding)
            );
            assert_eq!(seen[0].payload, body);
            assert_eq!(seen[0].routes(), [("0".into(), "tracelake.default.traces".into())]);
            assert!(0 < seen[0].header.received_at_unix_nano);
        }
    }
}

/// Scenario: one span as JSON, plain and compressed, with a charset.
/// Guarantees: 200 with `{}` in JSON.
#[tokio::test]
async fn answers_json_with_json() {
    let mut harness = Harness::new().await;
    let json = [("content-type", "application/json; charset=utf-8")];
    let answer = harness.post("/v1/traces", &json, JSON_SPAN).await;
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"{}"[..]));
    assert_eq!(answer.headers["content-type"], "application/json");
    let headers = [json[0], ("content-encoding", "gzip")];
    assert_eq!(harness.post("/v1/traces", &headers, gzip(JSON_SPAN.as_bytes())).await.status, 200);
    assert_eq!(harness.post("/api/2.0/otel/v1/traces", &json, JSON_SPAN).await.status, 200);
    let seen = harness.seen();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|seen| seen.spans() == 1 && seen.header.kind == RecordKind::OtlpJson));
}

/// Scenario: good and bad spans in one request, then only bad ones, in both encodings.
/// Guarantees: 200 with the count and reasons; good spans are kept; a request of bad ones alone is
/// not journaled.
#[tokio::test]
async fn partial_success_is_honest() {
    let mut harness = Harness::new().await;
    let mixed = otlp(&[Group { attributes: &[], spans: &[(16, 1), (3, 2), (16, 3), (0, 4)] }]);
    let answer = harness.post_otlp(&[], mixed).await;
    let (rejected, message) = partial_success(&answer.body).unwrap();
    assert_eq!((answer.status.as_u16(), rejected), (200, 2));
    assert!(message.contains("0202020202020202"), "{message}");
    let seen = harness.seen();
    assert_eq!((seen.len(), seen[0].spans()), (1, 2));

    let bad: Vec<(usize, u8)> = (1..=9).map(|id| (5, id)).collect();
    let answer = harness.post_otlp(&[], otlp(&[Group { attributes: &[], spans: &bad }])).await;
    assert_eq!((answer.status.as_u16(), partial_success(&answer.body).unwrap().0), (200, 9));
    let json = JSON_SPAN.replace("5b8efff798038103d269b633813fc60c", "5b8e");
    let answer = harness.post("/v1/traces", &[("content-type", "application/json")], json).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["partialSuccess"]["rejectedSpans"], "1");
    assert!(answer.json()["partialSuccess"]["errorMessage"].is_string());
    assert!(harness.seen().is_empty());
}

/// Scenario: nothing at all, and bodies with something else than spans.
/// Guarantees: nothing is a success, as OTLP says; something else is refused, never dropped.
#[tokio::test]
async fn tells_nothing_from_something_else() {
    let mut harness = Harness::new().await;
    assert_eq!(harness.post_otlp(&[], Body::empty()).await.status, 200);
    assert_eq!(harness.post_otlp(&[("content-encoding", "gzip")], gzip(b"")).await.status, 200);
    let json = [("content-type", "application/json")];
    for empty in ["{}", "{ \"resourceSpans\": [] }"] {
        assert_eq!(harness.post("/v1/traces", &json, empty).await.status, 200, "{empty}");
    }
    let answer = harness.post("/v1/traces", &json, r#"{"resourceMetrics":[{}]}"#).await;
    assert_eq!(answer.error(), (400, "INVALID_PARAMETER_VALUE".into()));
    assert_eq!(harness.post_otlp(&[], &b"\x78\x01"[..]).await.status, 400);
    assert!(harness.seen().is_empty());
}

/// Scenario: broken protobuf, JSON and gzip; wrong types and encodings; wrong method.
/// Guarantees: 400 and 415 with a body in the request's encoding; nothing is kept.
#[tokio::test]
async fn refuses_what_it_cannot_read() {
    let mut harness = Harness::new().await;
    let span = one_span();
    let cut = span.slice(..span.len() - 3);
    assert_eq!(harness.post_otlp(&[], cut).await.rpc_error(), (400, 3));
    assert_eq!(harness.post_otlp(&[], &b"\xff\xff\xff"[..]).await.rpc_error(), (400, 3));
    let answer = harness.post_otlp(&[("content-encoding", "gzip")], span.clone()).await;
    assert_eq!(answer.rpc_error(), (400, 3));
    assert!(!field(&answer.body, rpc_status::MESSAGE).bytes().is_empty());
    let json = [("content-type", "application/json")];
    for body in ["", "[]", "{\"resourceSpans\":", "null", &"[".repeat(100_000)] {
        let answer = harness.post("/v1/traces", &json, body.to_owned()).await;
        if !body.is_empty() {
            assert_eq!(answer.error(), (400, "INVALID_PARAMETER_VALUE".into()), "{:.20}", body);
            assert_eq!(answer.json()["code"], 3);
        }
    }
    for media_type in ["text/plain", "application/x-protobuf2", "", "\u{1}"] {
        if let Ok(value) = http::HeaderValue::from_str(media_type) {
            let mut request = request("POST", "/v1/traces", &[], span.clone());
            request.headers_mut().insert("content-type", value);
            assert_eq!(harness.send(request).await.error().0, 415, "{media_type}");
        }
    }
    assert_eq!(harness.post("/v1/traces", &[], span.clone()).await.status, 415);
    for encoding in ["br", "gzip, gzip", "x"] {
        let answer = harness.post_otlp(&[("content-encoding", encoding)], span.clone()).await;
        assert_eq!(answer.rpc_error(), (415, 12), "{encoding}");
        assert_eq!(answer.headers["accept-encoding"], "gzip, deflate, zstd, identity");
    }
    assert_eq!(harness.get("/v1/traces").await.status, 405);
    assert!(harness.seen().is_empty());
}

/// Scenario: bodies over the limit, announced and not, and bombs in every encoding.
/// Guarantees: 413, nothing kept, nothing held; the limit itself is accepted.
#[tokio::test]
async fn refuses_what_is_too_large() {
    let span = one_span();
    let limits =
        Limits { max_body_bytes: span.len(), max_decompressed_bytes: 1 << 20, ..Limits::default() };
    let mut harness = Harness::with(Setup { limits, ..Setup::default() }).await;
    assert_eq!(harness.post_otlp(&[], span.clone()).await.status, 200);
    let long = vec![0; span.len() + 1];
    assert_eq!(harness.post_otlp(&[], long.clone()).await.rpc_error(), (413, 8));
    let pieces = long.chunks(7).map(|piece| Ok::<_, std::io::Error>(Bytes::copy_from_slice(piece)));
    let streamed = Body::from_stream(futures::stream::iter(pieces.collect::<Vec<_>>()));
    assert_eq!(harness.post_otlp(&[], streamed).await.status, 413);
    let huge = [("content-length", "99999999999")];
    assert_eq!(harness.post_otlp(&huge, span.clone()).await.status, 413);
    assert_eq!(harness.intake.in_flight().held_bytes(), 0);

    let limits = Limits { max_decompressed_bytes: 1 << 20, ..Limits::default() };
    let mut roomy = Harness::with(Setup { limits, ..Setup::default() }).await;
    let bomb = vec![0; 32 << 20];
    for (encoding, body) in [("gzip", gzip(&bomb)), ("deflate", zlib(&bomb)), ("zstd", zstd(&bomb))]
    {
        let answer = roomy.post_otlp(&[("content-encoding", encoding)], body).await;
        assert_eq!(answer.rpc_error(), (413, 8), "{encoding}");
        assert_eq!(answer.retry_after(), None);
    }
    assert_eq!((harness.seen().len(), roomy.seen().len()), (1, 0));
}

/// Scenario: a body that breaks off.
/// Guarantees: 400 and nothing kept.
#[tokio::test]
async fn a_broken_body_is_not_kept() {
    let mut harness = Harness::new().await;
    let pieces = [Ok(one_span()), Err(std::io::Error::other("gone"))];
    let body = Body::from_stream(futures::stream::iter(pieces));
    assert_eq!(harness.post_otlp(&[], body).await.rpc_error(), (400, 3));
    assert!(harness.seen().is_empty());
    assert_eq!(harness.intake.in_flight().held_bytes(), 0);
}

/// Scenario: the experiment header with a bound, an unbound, an unknown, a deleted experiment and
/// with what is no number; a run id.
/// Guarantees: good ones are routed for all spans, whatever a resource says; the rest is refused
/// before the journal with MLflow's code.
#[tokio::test]
async fn the_header_decides_the_experiment() {
    let mut harness = Harness::new().await;
    harness.bound("bound", "a.b.c").await;
    harness.experiment("plain").await;
    harness.experiment("gone").await;
    harness.registry.delete_experiment(&"3".parse().unwrap()).await.unwrap();
    let body = otlp(&[Group { attributes: &[("mlflow.experimentId", "2")], spans: &[(16, 1)] }]);
    let headers = [("x-mlflow-experiment-id", "1"), ("x-mlflow-run-id", "0a1b2c")];
    assert_eq!(harness.post_otlp(&headers, body.clone()).await.status, 200);
    assert_eq!(
        harness.post_otlp(&[("x-mlflow-experiment-id", "2")], body.clone()).await.status,
        200
    );
    let seen = harness.seen();
    assert_eq!(seen[0].routes(), [("1".into(), "a.b.c".into())]);
    assert_eq!(seen[0].header.run_id.as_deref(), Some("0a1b2c"));
    assert_eq!(seen[1].routes(), [("2".into(), "tracelake.default.traces".into())]);

    let json = ("content-type", "application/json");
    for (id, status, code) in [
        ("77", 404, "RESOURCE_DOES_NOT_EXIST"),
        ("3", 400, "INVALID_PARAMETER_VALUE"),
        ("abc", 400, "INVALID_PARAMETER_VALUE"),
        ("-1", 400, "INVALID_PARAMETER_VALUE"),
        ("", 400, "INVALID_PARAMETER_VALUE"),
        ("99999999999999999999", 400, "INVALID_PARAMETER_VALUE"),
    ] {
        let headers = [json, ("x-mlflow-experiment-id", id)];
        let answer = harness.post("/v1/traces", &headers, JSON_SPAN).await;
        assert_eq!(answer.error(), (status, code.into()), "{id}");
    }
    let headers = [json, ("x-mlflow-run-id", "../../x")];
    assert_eq!(harness.post("/v1/traces", &headers, JSON_SPAN).await.error().0, 400);
    assert!(harness.seen().is_empty());
}

/// Scenario: no header; resources name bound, unknown and deleted experiments and no one, and
/// services are mapped, to one and to two experiments.
/// Guarantees: every span has a route to where it belongs, the rest goes to the default; only two
/// mapped services in one request make two records, which hold each span once.
#[tokio::test]
async fn resources_and_services_decide_without_header() {
    let mut settings = IntakeSettings::new(table("tracelake.default.traces"));
    settings.default_experiment = "4".parse().unwrap();
    settings.services = [("shop", "1"), ("bank", "2"), ("lost", "99")]
        .map(|(name, id)| (name.to_owned(), id.parse().unwrap()))
        .into();
    let mut harness = Harness::with(Setup { settings, ..Setup::default() }).await;
    harness.bound("one", "a.b.one").await;
    harness.bound("two", "a.b.two").await;
    harness.experiment("deleted").await;
    harness.bound("default here", "a.b.default").await;
    harness.registry.delete_experiment(&"3".parse().unwrap()).await.unwrap();
    let send = |groups: &[(&str, &str, u8)]| {
        let parts: Vec<_> = groups.iter().map(|(k, v, id)| ([(*k, *v)], [(16, *id)])).collect();
        let groups: Vec<_> =
            parts.iter().map(|(attributes, spans)| Group { attributes, spans }).collect();
        otlp(&groups)
    };
    let experiment = "mlflow.experimentId";
    let body = send(&[
        (experiment, "1", 1),
        (experiment, "2", 2),
        (experiment, "3", 3),
        (experiment, "99", 4),
        ("service.name", "lost", 5),
        ("service.name", "unmapped", 6),
    ]);
    assert_eq!(harness.post_otlp(&[], body).await.status, 200);
    let seen = harness.seen();
    assert_eq!((seen.len(), seen[0].spans()), (1, 6));
    let routes: Vec<String> = seen[0].routes().into_iter().map(|(_, table)| table).collect();
    assert_eq!(routes, ["a.b.default", "a.b.one", "a.b.two"]);

    let body = send(&[("service.name", "shop", 1), (experiment, "2", 2)]);
    assert_eq!(harness.post_otlp(&[], body.clone()).await.status, 200);
    let seen = harness.seen();
    assert_eq!((seen.len(), &seen[0].payload), (1, &body));
    assert_eq!(seen[0].routes()[0], ("1".into(), "a.b.one".into()));

    let body = send(&[
        ("service.name", "shop", 1),
        ("service.name", "bank", 2),
        ("service.name", "other", 3),
        (experiment, "1", 4),
    ]);
    assert_eq!(harness.post_otlp(&[], body).await.status, 200);
    let seen = harness.seen();
    let split: Vec<_> = seen.iter().map(|s| (s.routes()[0].1.clone(), s.spans())).collect();
    let expected = [("a.b.one", 2), ("a.b.two", 1), ("a.b.default", 1)];
    assert_eq!(split, expected.map(|(table, spans)| (table.to_owned(), spans)));
    for seen in seen {
        let again = tracelake_decode::decode_record(seen.header.clone(), &seen.payload);
        let tracelake_decode::RecordContent::Spans(spans) = again.unwrap().content else {
            panic!()
        };
        assert_eq!(spans.spans.len(), seen.spans());
    }
}

/// Scenario: 40 MiB of spans, compressed, of two mapped services.
/// Guarantees: the rewritten records are small enough for the journal and hold every span once.
#[tokio::test]
async fn large_rewritten_requests_are_cut() {
    let mut settings = IntakeSettings::new(table("tracelake.default.traces"));
    settings.services = [("shop", "1"), ("bank", "2")]
        .map(|(name, id)| (name.to_owned(), id.parse().unwrap()))
        .into();
    let mut harness = Harness::with(Setup { settings, ..Setup::default() }).await;
    harness.experiment("one").await;
    harness.experiment("two").await;
    let filler = "x".repeat(4 << 20);
    let services = ["shop", "bank", "shop", "bank", "shop", "bank", "shop", "bank", "shop", "shop"];
    let attributes = services.map(|name| [("service.name", name), ("filler", filler.as_str())]);
    let spans: Vec<_> = (1..=10).map(|id| [(16, id)]).collect();
    let groups: Vec<_> = attributes
        .iter()
        .zip(&spans)
        .map(|(attributes, spans)| Group { attributes, spans })
        .collect();
    let body = gzip(&otlp(&groups));
    assert_eq!(harness.post_otlp(&[("content-encoding", "gzip")], body).await.status, 200);
    let seen = harness.seen();
    assert!(seen.iter().all(|seen| seen.payload.len() < 13 << 20));
    assert!(4 <= seen.len());
    assert_eq!(seen.iter().map(crate::support::Seen::spans).sum::<usize>(), 10);
}

/// Scenario: a request that names more experiments than are looked up.
/// Guarantees: it is refused, not half routed.
#[tokio::test]
async fn a_request_names_a_bounded_number_of_experiments() {
    let mut harness = Harness::new().await;
    let names: Vec<String> = (0..1_001).map(|id| id.to_string()).collect();
    let attributes: Vec<_> =
        names.iter().map(|id| [("mlflow.experimentId", id.as_str())]).collect();
    let groups: Vec<_> =
        attributes.iter().map(|a| Group { attributes: a, spans: &[(16, 1)] }).collect();
    assert_eq!(harness.post_otlp(&[], otlp(&groups)).await.rpc_error(), (400, 3));
    assert!(harness.seen().is_empty());
}

#[derive(Debug)]
struct Closed;

impl Admission for Closed {
    fn admit(&self, _: u64) -> Result<(), Overload> {
        Err(Overload { retry_after: Duration::from_millis(6_500) })
    }
}

/// Scenario: a gauge that is closed, a journal over its budget, too many bytes in work.
/// Guarantees: 429 with `Retry-After`; nothing kept.
#[tokio::test]
async fn says_429_when_too_much_waits() {
    let setup = Setup { admission: Some(Arc::new(Closed)), ..Setup::default() };
    let mut harness = Harness::with(setup).await;
    let answer = harness.post_otlp(&[], one_span()).await;
    assert_eq!((answer.rpc_error(), answer.retry_after()), ((429, 8), Some("6")));
    assert!(harness.seen().is_empty());

    let harness = Harness::with(Setup { budget_bytes: 200, ..Setup::default() }).await;
    let answer = harness.post_otlp(&[("content-length", "3000")], vec![0; 3_000]).await;
    assert_eq!((answer.rpc_error(), answer.retry_after()), ((429, 8), Some("1")));
    let answer = harness.post_otlp(&[], one_span()).await;
    assert_eq!((answer.rpc_error(), answer.retry_after()), ((429, 8), Some("1")));

    let mut setup = Setup::default();
    setup.settings.max_in_flight_bytes = 10;
    let harness = Harness::with(setup).await;
    let waiting = futures::StreamExt::chain(
        futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"0123456789"))]),
        futures::stream::pending(),
    );
    let mut slow = Box::pin(harness.post_otlp(&[], Body::from_stream(waiting)));
    assert!(futures::poll!(&mut slow).is_pending());
    assert_eq!(harness.intake.in_flight().held_bytes(), 10);
    assert_eq!(harness.post_otlp(&[], one_span()).await.rpc_error(), (429, 8));
    drop(slow);
    assert_eq!(harness.post_otlp(&[], one_span()).await.status, 200);
}

/// Scenario: requests at once that the consumer has room for one of, while it takes what waits every now and
/// then; at last it takes nothing.
/// Guarantees: each waits for its turn and none is refused; without room in time the answer is 429.
#[tokio::test]
async fn requests_wait_for_room_in_the_queue() {
    let harness = Harness::with(Setup { undelivered_bytes: 1, ..Setup::default() }).await;
    let requests = futures::future::join_all((0..20).map(|_| harness.post_otlp(&[], one_span())));
    let consumer = async {
        let mut taken = 0;
        while taken < 20 {
            tokio::time::sleep(Duration::from_millis(2)).await;
            taken += harness.consume();
        }
    };
    let (answers, ()) = futures::join!(requests, consumer);
    assert!(answers.iter().all(|answer| answer.status == 200));

    assert_eq!(harness.post_otlp(&[], one_span()).await.status, 200);
    let refused = harness.post_otlp(&[], one_span()).await;
    assert_eq!((refused.rpc_error(), refused.retry_after()), ((429, 8), Some("1")));
    assert_eq!(harness.consume(), 1);
}

/// Scenario: a full disk, then a sync that fails, then room again; at last a closed journal.
/// Guarantees: 503 with `Retry-After` and no ack; then service goes on.
#[tokio::test]
async fn says_503_when_it_cannot_write() {
    let harness = Harness::new().await;
    for switch in [&harness.disk_full, &harness.fail_sync] {
        switch.store(true, Ordering::SeqCst);
        let answer = harness.post_otlp(&[], one_span()).await;
        assert_eq!((answer.rpc_error(), answer.retry_after()), ((503, 14), Some("5")));
        switch.store(false, Ordering::SeqCst);
        assert_eq!(harness.post_otlp(&[], one_span()).await.status, 200);
    }
    harness.journal.close().unwrap();
    assert_eq!(harness.post_otlp(&[], one_span()).await.rpc_error(), (503, 14));
}
