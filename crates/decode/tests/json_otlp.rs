//! OTLP JSON as real senders write it, through `to_protobuf` and `decode_otlp`.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use tracelake_decode::otlp_json::to_protobuf;
use tracelake_decode::{DecodeError, DecodedSpans, SpanSource, ValueView, decode_otlp};
use tracelake_model::Limits;

const IDS: &str = r#""traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174""#;

fn decode(json: &str) -> Result<DecodedSpans, DecodeError> {
    let (protobuf, rejects) = to_protobuf(json.as_bytes())?;
    let mut decoded = decode_otlp(&protobuf.into(), SpanSource::Otlp, &Limits::default())?;
    decoded.rejects.extend(rejects);
    Ok(decoded)
}

fn spans(members: &[&str]) -> DecodedSpans {
    let spans: Vec<String> = members.iter().map(|m| format!("{{{IDS},{m}}}")).collect();
    decode(&format!(
        r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{}]}}]}}]}}"#,
        spans.join(",")
    ))
    .unwrap()
}

/// The value of one attribute, or why its span was refused.
fn value(json: &str) -> Result<String, String> {
    let decoded = spans(&[&format!(r#""attributes":[{{"key":"k","value":{json}}}]"#)]);
    match decoded.spans.first() {
        Some(span) => {
            let value = span.view().attribute("k").unwrap_or(ValueView::Empty);
            Ok(tracelake_decode::any_value::to_json(value))
        }
        None => Err(decoded.rejects[0].reason.clone()),
    }
}

/// Scenario: the same span in camelCase, snake_case, base64, names, strings, legacy envelopes.
/// Guarantees: all are one content.
#[test]
fn every_spelling_is_the_same_span() {
    let canonical = r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name",
        "value":{"stringValue":"s"}}]},"scopeSpans":[{"scope":{"name":"lib","version":"1"},
        "spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174",
        "parentSpanId":"eee19b7ec3c1b173","name":"n","kind":2,
        "startTimeUnixNano":"1544712660000000001","endTimeUnixNano":"1544712661000000000",
        "attributes":[{"key":"i","value":{"intValue":"9007199254740993"}}],
        "events":[{"timeUnixNano":"1544712660300000000","name":"e"}],
        "links":[{"traceId":"5b8efff798038103d269b633813fc60d","spanId":"eee19b7ec3c1b175"}],
        "status":{"code":2,"message":"m"},"flags":1,"droppedEventsCount":3}]}]}]}"#;
    let other = r#"{"batches":[{"schema_url":"","instrumentationLibrarySpans":[{"spans":[{
        "status":{"message":"m","code":"STATUS_CODE_ERROR"},"dropped_events_count":"3","flags":1,
        "trace_id":"W47/95gDgQPSabYzgT/GDA==","span_id":"7uGbfsPBsXQ=",
        "parent_span_id":"0xEEE19B7EC3C1B173","name":"n","kind":"SPAN_KIND_SERVER",
        "start_time_unix_nano":1544712660000000001,"end_time_unix_nano":1.544712661e18,
        "attributes":[{"value":{"int_value":9007199254740993},"key":"i"}],"traceState":null,
        "links":[{"trace_id":"5B8EFFF798038103D269B633813FC60D","span_id":"eee19b7ec3c1b175"}],
        "events":[{"time_unix_nano":1544712660300000000,"name":"e","attributes":[]}]}],
        "instrumentationLibrary":{"version":"1","name":"lib"}}],"resource":{"attributes":[
        {"key":"service.name","value":{"string_value":"s"}}]}}]}"#;
    let short = canonical
        .replace("\"kind\":2", "\"kind\":\"server\"")
        .replace("\"code\":2", "\"code\":\"ERROR\"")
        .replace("5b8efff798038103d269b633813fc60c", "5b8efff7-9803-8103-d269-b633813fc60c");
    let expected = decode(canonical).unwrap();
    assert_eq!((expected.spans.len(), expected.rejects.len()), (1, 0));
    assert!(!expected.spans[0].beyond_columns);
    for json in [other, &short] {
        let decoded = decode(json).unwrap();
        assert_eq!(decoded.rejects, []);
        assert!(decoded.spans[0].same_content(&expected.spans[0]), "{json}");
    }
}

/// Scenario: each kind of value, in each form that senders use, and wrong ones.
/// Guarantees: integers keep every digit, nothing passes for an empty value.
#[test]
fn values_keep_their_type_and_digits() {
    for (json, expected) in [
        (r#"{"intValue":"9007199254740993"}"#, "9007199254740993"),
        (r#"{"intValue":-9223372036854775808}"#, "-9223372036854775808"),
        (r#"{"intValue":1e3}"#, "1000"),
        (r#"{"intValue":12.50e1}"#, "125"),
        (r#"{"doubleValue":1}"#, "1.0"),
        (r#"{"doubleValue":"-Infinity"}"#, r#"{"$double":"-Infinity"}"#),
        (r#"{"doubleValue":NaN}"#, r#"{"$double":"NaN"}"#),
        (r#"{"doubleValue":"0.1"}"#, "0.1"),
        (r#"{"bytesValue":"-_8"}"#, r#"{"$bytes":"+/8="}"#),
        (r#"{"bytesValue":"+/8="}"#, r#"{"$bytes":"+/8="}"#),
        (r#"{"stringValue":"a\ud83db \ud83d\udca1"}"#, "\"a\u{fffd}b \u{1f4a1}\""),
        (r#"{"arrayValue":{}}"#, "[]"),
        (
            r#"{"kvlistValue":{"values":[{"key":"b","value":{"boolValue":true}},{"key":"a"}]}}"#,
            r#"{"b":true,"a":null}"#,
        ),
        ("{}", "null"),
        ("null", "null"),
    ] {
        assert_eq!(value(json).as_deref(), Ok(expected), "{json}");
    }
    for wrong in [
        r#"{"intValue":1.5}"#,
        r#"{"intValue":"9223372036854775808"}"#,
        r#"{"intValue":1e999}"#,
        r#"{"intValue":""}"#,
        r#"{"doubleValue":"nan"}"#,
        r#"{"boolValue":1}"#,
        r#"{"stringvalue":"x"}"#,
        r#"{"stringValue":1}"#,
        r#""x""#,
        r#"{"bytesValue":"*"}"#,
        r#"{"arrayValue":[1]}"#,
    ] {
        let reason = value(wrong).unwrap_err();
        let path = "resourceSpans[0].scopeSpans[0].spans[0].attributes[0].value";
        assert!(reason.contains(path), "{wrong}: {reason}");
    }
}

/// Scenario: one broken span, scope or resource between good ones.
/// Guarantees: the good ones are kept, the broken ones counted and named by their path.
#[test]
fn siblings_of_a_broken_entry_are_kept() {
    let good = format!("{{{IDS}}}");
    let decoded = decode(&format!(
        r#"{{"resourceSpans":[7,{{"scopeSpans":[{{"spans":[{good},{{"name":5}},null,{good}]}},
        {{"scope":[],"spans":[{good},{good},{good}]}}]}},{{"resource":"x","scopeSpans":[{{"spans":
        [{good},{good}]}}]}},{{"scopeSpans":[{{"spans":[{good}]}}]}}]}}"#
    ))
    .unwrap();
    assert_eq!((decoded.spans.len(), decoded.rejected_spans()), (3, 8));
    let reasons: Vec<&str> = decoded.rejects.iter().map(|reject| reject.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "resourceSpans[0]: expected an object, found 7",
            "span refused: resourceSpans[1].scopeSpans[0].spans[1].name: expected a string, found 5",
            "span refused: resourceSpans[1].scopeSpans[0].spans[2]: expected an object, found null",
            "resourceSpans[1].scopeSpans[1].scope: expected an object, found an array",
            "resourceSpans[2].resource: expected an object, found `x`",
        ]
    );
}

/// Scenario: links, parents, kinds and states that cannot be read.
/// Guarantees: the span is kept, what is left out is named, and a parent's text stays in its bytes.
#[test]
fn what_is_left_out_of_a_kept_span_is_named() {
    let decoded = spans(&[
        r#""links":[{"traceId":"xyz"},{"traceId":"00112233445566778899"}]"#,
        r#""parentSpanId":"no id""#,
        r#""parentSpanId":"eightchr""#,
        r#""kind":"SPAN_KIND_SIDEWAYS","status":{"code":"NOT_A_STATUS"}"#,
    ]);
    assert_eq!((decoded.spans.len(), decoded.rejected_spans(), decoded.rejects.len()), (4, 0, 5));
    let links: Vec<_> = decoded.spans[0].view().links().collect();
    assert_eq!((links.len(), links[0].trace_id.len()), (1, 10));
    assert_eq!(decoded.spans[1].view().parent_span_id, b"no id");
    assert_eq!(decoded.spans[2].view().parent_span_id, b"\"eightchr\"");
    for span in &decoded.spans[1..3] {
        assert!(span.parent.is_none() && span.beyond_columns);
    }
    let unset = decoded.spans[3].view();
    assert_eq!((unset.kind, unset.status_code), (0, 0));
}

/// Scenario: documents that are no trace request, and bodies of bad entries alone.
/// Guarantees: each has its own error; bad entries are rejects, not an empty request.
#[test]
fn each_wrong_document_has_its_error() {
    let shape = |json| match decode(json) {
        Err(DecodeError::Shape { path, expected }) => format!("{path}: {expected}"),
        other => format!("{other:?}"),
    };
    assert_eq!(shape("[]"), "$: an object");
    assert_eq!(shape(r#"{"resourceSpans":{}}"#), "resourceSpans: an array");
    for empty in ["{}", r#"{"resourceSpans":null}"#, r#"{"resourceSpans":[]}"#] {
        assert_eq!(decode(empty).unwrap_err(), DecodeError::Empty, "{empty}");
    }
    for broken in ["", "{", r#"{"resourceSpans":[]}x"#, &"[".repeat(100_000)] {
        assert!(matches!(decode(broken), Err(DecodeError::Json { .. })), "{broken:.30}");
    }
    assert_eq!(decode(r#"{"resourceSpans":[1,2]}"#).unwrap().rejected_spans(), 2);
}

/// Scenario: a body of bytes that are not UTF-8, a value nested past the limit, many bad entries.
/// Guarantees: text is replaced, the deep span alone is refused, the list of reasons is bounded.
#[test]
fn hostile_bodies_cost_what_they_break() {
    let mut body =
        format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{IDS},"name":""#).into_bytes();
    body.extend(b"caf\xe9\"}]}]}]}");
    let (protobuf, _) = to_protobuf(&body).unwrap();
    let decoded = decode_otlp(&protobuf.into(), SpanSource::Otlp, &Limits::default()).unwrap();
    assert_eq!(decoded.spans[0].view().name, "caf\u{fffd}");

    let open = r#"{"arrayValue":{"values":["#.repeat(100);
    let deep = format!(r#""attributes":[{{"key":"k","value":{open}{}}}]"#, "]}}".repeat(100));
    let decoded = spans(&[&deep, r#""name":"good""#]);
    assert_eq!((decoded.spans.len(), decoded.rejected_spans()), (1, 1));
    assert!(decoded.rejects[0].reason.contains("deeper"), "{:?}", decoded.rejects);

    let entries = vec!["1"; 5_000].join(",");
    let decoded = decode(&format!(r#"{{"resourceSpans":[{entries}]}}"#)).unwrap();
    assert_eq!((decoded.rejects.len(), decoded.rejected_spans()), (1_001, 5_000));
}
