//! OTLP protobuf to JSON and back, and hostile JSON.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;

use base64::Engine as _;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use serde_json::{Value, json};
use tracelake_decode::otlp::fields::{
    any_value, array_value, event, export_request, key_value, key_value_list, link, resource,
    resource_spans, scope, scope_spans, span, status,
};
use tracelake_decode::otlp_json::to_protobuf;
use tracelake_decode::request::encode_request;
use tracelake_decode::writer::MessageWriter;
use tracelake_decode::{
    KeyValueView, ResourceView, ScopeView, SpanRecord, SpanSource, ValueView, decode_otlp,
};
use tracelake_model::Limits;
use tracelake_model::ids::hex;

fn bytes(write: impl FnOnce(&mut MessageWriter)) -> Vec<u8> {
    let mut writer = MessageWriter::new();
    write(&mut writer);
    writer.into_bytes()
}

fn any_value() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        Just(Vec::new()),
        any::<String>()
            .prop_map(|text| bytes(|w| w.bytes(any_value::STRING_VALUE, text.as_bytes()))),
        any::<bool>()
            .prop_map(|value| bytes(|w| w.number(any_value::BOOL_VALUE, u64::from(value)))),
        any::<i64>()
            .prop_map(|value| bytes(|w| w.number(any_value::INT_VALUE, value.cast_unsigned()))),
        any::<f64>()
            .prop_filter("JSON has one NaN", |value| !value.is_nan())
            .prop_map(|value| bytes(|w| w.fixed64(any_value::DOUBLE_VALUE, value.to_bits()))),
        Just(bytes(|w| w.fixed64(any_value::DOUBLE_VALUE, f64::NAN.to_bits()))),
        any::<Vec<u8>>().prop_map(|value| bytes(|w| w.bytes(any_value::BYTES_VALUE, &value))),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let elements = prop::collection::vec(inner.clone(), 0..4);
        let array = |w: &mut MessageWriter, elements: &[Vec<u8>]| {
            w.message(any_value::ARRAY_VALUE, |array| {
                elements.iter().for_each(|element| array.bytes(array_value::VALUES, element))
            });
        };
        prop_oneof![
            elements.prop_map(move |elements| bytes(|w| array(w, &elements))),
            attributes_of(inner).prop_map(|entries| bytes(|w| {
                w.message(any_value::KVLIST_VALUE, |list| {
                    entries.iter().for_each(|entry| list.bytes(key_value_list::VALUES, entry))
                });
            })),
        ]
    })
}

fn attributes_of(value: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<Vec<u8>>> {
    let entry = (any::<String>(), value).prop_map(|(key, value)| {
        bytes(|w| {
            w.bytes(key_value::KEY, key.as_bytes());
            w.bytes(key_value::VALUE, &value);
        })
    });
    prop::collection::vec(entry, 0..4)
}

fn attributes() -> impl Strategy<Value = Vec<Vec<u8>>> {
    attributes_of(any_value())
}

fn put_all(writer: &mut MessageWriter, number: u32, messages: &[Vec<u8>]) {
    messages.iter().for_each(|message| writer.bytes(number, message));
}

fn span() -> impl Strategy<Value = Vec<u8>> {
    let event = (any::<u64>(), any::<String>(), attributes(), any::<u32>()).prop_map(|event| {
        bytes(|w| {
            w.fixed64_nonzero(event::TIME_UNIX_NANO, event.0);
            w.bytes_nonzero(event::NAME, event.1.as_bytes());
            put_all(w, event::ATTRIBUTES, &event.2);
            w.number_nonzero(event::DROPPED_ATTRIBUTES_COUNT, u64::from(event.3));
        })
    });
    let link = (any::<[u8; 16]>(), any::<[u8; 8]>(), any::<String>(), attributes(), any::<u32>())
        .prop_map(|link| {
            bytes(|w| {
                w.bytes(link::TRACE_ID, &link.0);
                w.bytes(link::SPAN_ID, &link.1);
                w.bytes_nonzero(link::TRACE_STATE, link.2.as_bytes());
                put_all(w, link::ATTRIBUTES, &link.3);
                w.number_nonzero(link::DROPPED_ATTRIBUTES_COUNT, u64::from(link.4));
                w.fixed32_nonzero(link::FLAGS, link.4);
            })
        });
    let ids = (any::<[u8; 16]>(), any::<[u8; 8]>(), prop::option::of(any::<[u8; 8]>()));
    let scalars = (any::<String>(), any::<i32>(), any::<u64>(), any::<u64>(), any::<u32>());
    let status = prop::option::of((any::<String>(), 0_u64..4));
    let lists =
        (attributes(), prop::collection::vec(event, 0..3), prop::collection::vec(link, 0..3));
    (ids, scalars, status, lists).prop_map(|(ids, scalars, status, lists)| {
        bytes(|w| {
            // An id of all zero bytes is none.
            w.bytes(span::TRACE_ID, &ids.0.map(|byte| byte | 1));
            w.bytes(span::SPAN_ID, &ids.1.map(|byte| byte | 1));
            w.bytes_nonzero(span::PARENT_SPAN_ID, &ids.2.map_or_else(Vec::new, Vec::from));
            w.bytes_nonzero(span::TRACE_STATE, scalars.0.as_bytes());
            w.bytes_nonzero(span::NAME, scalars.0.as_bytes());
            w.number_nonzero(span::KIND, i64::from(scalars.1).cast_unsigned());
            w.fixed64_nonzero(span::START_TIME_UNIX_NANO, scalars.2);
            w.fixed64_nonzero(span::END_TIME_UNIX_NANO, scalars.3);
            put_all(w, span::ATTRIBUTES, &lists.0);
            w.number_nonzero(span::DROPPED_ATTRIBUTES_COUNT, u64::from(scalars.4));
            put_all(w, span::EVENTS, &lists.1);
            w.number_nonzero(span::DROPPED_EVENTS_COUNT, u64::from(scalars.4 / 2));
            put_all(w, span::LINKS, &lists.2);
            w.number_nonzero(span::DROPPED_LINKS_COUNT, u64::from(scalars.4 / 3));
            if let Some((message, code)) = status {
                w.message(span::STATUS, |status| {
                    status.bytes_nonzero(status::MESSAGE, message.as_bytes());
                    status.number_nonzero(status::CODE, code);
                });
            }
            w.fixed32_nonzero(span::FLAGS, scalars.4);
        })
    })
}

fn request() -> impl Strategy<Value = Vec<u8>> {
    (attributes(), any::<String>(), attributes(), prop::collection::vec(span(), 1..3)).prop_map(
        |(resource, name, scope, spans)| {
            bytes(|w| {
                w.message(export_request::RESOURCE_SPANS, |entry| {
                    entry.message(resource_spans::RESOURCE, |out| {
                        put_all(out, resource::ATTRIBUTES, &resource);
                        out.number_nonzero(resource::DROPPED_ATTRIBUTES_COUNT, name.len() as u64);
                    });
                    entry.bytes_nonzero(resource_spans::SCHEMA_URL, name.to_uppercase().as_bytes());
                    entry.message(resource_spans::SCOPE_SPANS, |scope_spans| {
                        scope_spans.message(scope_spans::SCOPE, |out| {
                            out.bytes_nonzero(scope::NAME, name.as_bytes());
                            out.bytes_nonzero(scope::VERSION, name.to_lowercase().as_bytes());
                            put_all(out, scope::ATTRIBUTES, &scope);
                            out.number_nonzero(scope::DROPPED_ATTRIBUTES_COUNT, name.len() as u64);
                        });
                        put_all(scope_spans, scope_spans::SPANS, &spans);
                        scope_spans.bytes_nonzero(scope_spans::SCHEMA_URL, name.as_bytes());
                    });
                });
            })
        },
    )
}

fn value_json(value: ValueView<'_>) -> Value {
    match value {
        ValueView::Empty => json!({}),
        ValueView::String(text) => json!({"stringValue": text}),
        ValueView::Bool(value) => json!({"boolValue": value}),
        ValueView::Int(number) => json!({"intValue": number.to_string()}),
        ValueView::Double(number) if number.is_nan() => json!({"doubleValue": "NaN"}),
        ValueView::Double(f64::INFINITY) => json!({"doubleValue": "Infinity"}),
        ValueView::Double(f64::NEG_INFINITY) => json!({"doubleValue": "-Infinity"}),
        ValueView::Double(number) => json!({"doubleValue": number}),
        ValueView::Array(array) => {
            json!({"arrayValue": {"values": array.iter().map(value_json).collect::<Vec<_>>()}})
        }
        ValueView::KeyValues(entries) => {
            json!({"kvlistValue": {"values": attributes_json(entries.iter())}})
        }
        ValueView::Bytes(bytes) => {
            json!({"bytesValue": base64::engine::general_purpose::STANDARD.encode(bytes)})
        }
    }
}

fn attributes_json<'a>(attributes: impl Iterator<Item = KeyValueView<'a>>) -> Value {
    attributes.map(|entry| json!({"key": entry.key, "value": value_json(entry.value())})).collect()
}

/// The canonical OTLP JSON of spans, one entry of `resourceSpans` each.
fn write_json(spans: &[SpanRecord]) -> String {
    let entries: Value = spans
        .iter()
        .map(|record| {
            let span = record.view();
            let scope = ScopeView::new(&record.group.scope);
            let events: Value = span
                .events()
                .map(|event| {
                    json!({
                        "timeUnixNano": event.time_unix_nano.to_string(), "name": event.name,
                        "attributes": attributes_json(event.attributes()),
                        "droppedAttributesCount": event.dropped_attributes_count,
                    })
                })
                .collect();
            let links: Value = span
                .links()
                .map(|link| {
                    json!({
                        "traceId": hex(link.trace_id), "spanId": hex(link.span_id),
                        "traceState": link.trace_state, "flags": link.flags,
                        "attributes": attributes_json(link.attributes()),
                        "droppedAttributesCount": link.dropped_attributes_count,
                    })
                })
                .collect();
            let mut json = json!({
                "traceId": hex(span.trace_id), "spanId": hex(span.span_id),
                "parentSpanId": hex(span.parent_span_id), "traceState": span.trace_state,
                "name": span.name, "kind": span.kind, "flags": span.flags,
                "startTimeUnixNano": span.start_time_unix_nano.to_string(),
                "endTimeUnixNano": span.end_time_unix_nano.to_string(),
                "attributes": attributes_json(span.attributes()), "events": events, "links": links,
                "droppedAttributesCount": span.dropped_attributes_count,
                "droppedEventsCount": span.dropped_events_count,
                "droppedLinksCount": span.dropped_links_count,
            });
            if span.has_status {
                json["status"] = json!({"code": span.status_code, "message": span.status_message});
            }
            let resource = ResourceView::new(&record.group.resource);
            json!({
                "resource": {
                    "attributes": attributes_json(resource.attributes()),
                    "droppedAttributesCount": resource.dropped_attributes_count,
                },
                "schemaUrl": record.group.resource_schema_url,
                "scopeSpans": [{
                    "scope": {
                        "name": scope.name, "version": scope.version,
                        "attributes": attributes_json(scope.attributes()),
                        "droppedAttributesCount": scope.dropped_attributes_count,
                    },
                    "schemaUrl": record.group.scope_schema_url, "spans": [json],
                }],
            })
        })
        .collect();
    json!({"resourceSpans": entries}).to_string()
}

fn decode(protobuf: Vec<u8>) -> Vec<SpanRecord> {
    decode_otlp(&protobuf.into(), SpanSource::Otlp, &Limits::default()).unwrap().spans
}

/// Seeds of failures are kept beside this file.
fn config() -> ProptestConfig {
    let persistence = FileFailurePersistence::WithSource("regressions");
    ProptestConfig { failure_persistence: Some(Box::new(persistence)), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    /// Scenario: any spans, written as canonical OTLP JSON.
    /// Guarantees: reading them back gives the same content, to the nanosecond and last digit.
    #[test]
    fn protobuf_to_json_and_back_is_the_identity(request in request()) {
        let spans = decode(request);
        let (protobuf, rejects) = to_protobuf(write_json(&spans).as_bytes()).unwrap();
        prop_assert_eq!(rejects, []);
        let again = decode(protobuf);
        prop_assert_eq!(again.len(), spans.len());
        for (left, right) in spans.iter().zip(&again) {
            prop_assert!(left.same_content(right), "{}", write_json(&spans));
        }
        prop_assert!(!encode_request(&again).is_empty());
    }

    /// Scenario: a document with bytes cut, changed or doubled.
    /// Guarantees: no panic; what decodes is a list of spans and rejects.
    #[test]
    fn mutated_documents_never_panic(
        request in request(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0_u8..4), 1..8),
    ) {
        let mut body = write_json(&decode(request)).into_bytes();
        for (at, byte, edit) in edits {
            let at = at.index(body.len());
            match edit {
                0 => body[at] = byte,
                1 => body.insert(at, b"{}[]\",:0\\un"[usize::from(byte) % 11]),
                2 => { body.remove(at); }
                _ => body.truncate(at.max(1)),
            }
            if body.is_empty() { body.push(byte); }
        }
        if let Ok((protobuf, _)) = to_protobuf(&body) {
            // Empty is the one error: transcoded bytes are always well framed.
            let decoded = decode_otlp(&protobuf.into(), SpanSource::Otlp, &Limits::default());
            prop_assert!(decoded.is_ok() || decoded.is_err_and(|e| e == tracelake_decode::DecodeError::Empty));
        }
    }
}

/// Scenario: every real trace of the collection, written as JSON.
/// Guarantees: reading it back gives the same content as the protobuf body.
#[test]
fn real_traces_are_the_same_as_json() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/otlp_real");
    let Ok(files) = std::fs::read_dir(&folder) else {
        println!("skipped: {} is absent", folder.display());
        return;
    };
    let mut compared = 0;
    for file in files.map(|file| file.unwrap().path()) {
        if file.extension().is_none_or(|extension| extension != "pb") {
            continue;
        }
        let spans = decode(std::fs::read(&file).unwrap());
        let (protobuf, rejects) = to_protobuf(write_json(&spans).as_bytes()).unwrap();
        assert_eq!(rejects, [], "{}", file.display());
        let again = decode(protobuf);
        assert_eq!(again.len(), spans.len(), "{}", file.display());
        for (left, right) in spans.iter().zip(&again) {
            assert!(left.same_content(right), "{} {}", file.display(), left.span_id);
        }
        compared += spans.len();
    }
    println!("compared {compared} spans");
    assert!(0 < compared);
}
