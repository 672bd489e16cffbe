//! Generated OTLP requests: every field, every value type, and what senders get wrong.

use bytes::Bytes;
use proptest::prelude::*;
use tracelake_decode::otlp::fields::{
    any_value, array_value, event, export_request, key_value, key_value_list, link, resource,
    resource_spans, scope, scope_spans, span, status,
};
use tracelake_decode::writer::MessageWriter;
use tracelake_decode::{SpanGroup, SpanRecord, SpanSource, decode_otlp};
use tracelake_model::Limits;

/// Keys that mean something to a convention, and keys that mean nothing.
const KEYS: [&str; 16] = [
    "mlflow.spanType",
    "mlflow.spanInputs",
    "mlflow.spanOutputs",
    "input.value",
    "output.value",
    "openinference.span.kind",
    "gen_ai.operation.name",
    "gen_ai.input.messages",
    "gen_ai.usage.input_tokens",
    "gen_ai.request.model",
    "session.id",
    "http.status_code",
    "$odd",
    "",
    "k",
    "caf\u{e9}",
];

/// An `AnyValue` message, nested a few levels.
pub fn any_value() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        Just(Vec::new()),
        prop_oneof![
            any::<String>(),
            Just("{\"a\": [1, 2.50]}".to_owned()),
            Just("\"quoted\"".to_owned()),
            Just("{broken".to_owned()),
            Just("7".to_owned()),
        ]
        .prop_map(|text| message(|m| m.bytes(any_value::STRING_VALUE, text.as_bytes()))),
        any::<bool>()
            .prop_map(|value| message(|m| m.number(any_value::BOOL_VALUE, u64::from(value)))),
        any::<i64>()
            .prop_map(|value| message(|m| m.number(any_value::INT_VALUE, value.cast_unsigned()))),
        any::<f64>()
            .prop_filter("a NaN has one spelling", |value| !value.is_nan())
            .prop_map(|value| message(|m| m.fixed64(any_value::DOUBLE_VALUE, value.to_bits()))),
        Just(message(|m| m.fixed64(any_value::DOUBLE_VALUE, f64::NAN.to_bits()))),
        any::<Vec<u8>>().prop_map(|bytes| message(|m| m.bytes(any_value::BYTES_VALUE, &bytes))),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|elements| message(|m| {
                m.message(any_value::ARRAY_VALUE, |array| {
                    elements.iter().for_each(|e| array.bytes(array_value::VALUES, e))
                });
            })),
            attributes(inner).prop_map(|entries| message(|m| {
                m.message(any_value::KVLIST_VALUE, |list| {
                    entries.iter().for_each(|e| list.bytes(key_value_list::VALUES, e))
                });
            })),
        ]
    })
}

/// A list of `KeyValue` messages; keys may repeat.
pub fn attributes(
    value: impl Strategy<Value = Vec<u8>> + Clone,
) -> impl Strategy<Value = Vec<Vec<u8>>> {
    let key = prop_oneof![4 => prop::sample::select(&KEYS[..]).prop_map(str::to_owned), 1 => "[a-z.]{1,12}"];
    prop::collection::vec((key, value), 0..6).prop_map(|entries| {
        entries
            .into_iter()
            .map(|(key, value)| {
                message(|m| {
                    m.bytes(key_value::KEY, key.as_bytes());
                    m.bytes(key_value::VALUE, &value);
                })
            })
            .collect()
    })
}

/// A `Span` message of the trace `[1; 16]` with an id of a few, so that ids collide.
pub fn span() -> impl Strategy<Value = Vec<u8>> {
    let ids = (1_u8..20, prop::option::of(0_u8..20), any::<String>(), any::<u32>());
    let times = (nanos(), nanos(), 0_u64..8, 0_u64..4);
    let event = (nanos(), any::<String>(), attributes(any_value().boxed()), any::<u32>());
    let link =
        (prop::collection::vec(any::<u8>(), 0..20), "[a-z=]{0,8}", attributes(any_value().boxed()));
    let lists = (
        attributes(any_value().boxed()),
        prop::collection::vec(event, 0..3),
        prop::collection::vec(link, 0..3),
        any::<String>(),
    );
    (ids, times, lists).prop_map(|(ids, times, lists)| {
        message(|m| {
            m.bytes(span::TRACE_ID, &[1; 16]);
            m.bytes(span::SPAN_ID, &[ids.0; 8]);
            if let Some(parent) = ids.1 {
                m.bytes(span::PARENT_SPAN_ID, &[parent; 8]);
            }
            m.bytes(span::NAME, ids.2.as_bytes());
            m.number(span::KIND, times.2);
            m.fixed64(span::START_TIME_UNIX_NANO, times.0);
            m.fixed64(span::END_TIME_UNIX_NANO, times.1);
            lists.0.iter().for_each(|attribute| m.bytes(span::ATTRIBUTES, attribute));
            m.number(span::DROPPED_ATTRIBUTES_COUNT, u64::from(ids.3));
            for (time, name, attributes, dropped) in &lists.1 {
                m.message(span::EVENTS, |event| {
                    event.fixed64(event::TIME_UNIX_NANO, *time);
                    event.bytes(event::NAME, name.as_bytes());
                    attributes
                        .iter()
                        .for_each(|attribute| event.bytes(event::ATTRIBUTES, attribute));
                    event.number(event::DROPPED_ATTRIBUTES_COUNT, u64::from(*dropped));
                });
            }
            for (id, state, attributes) in &lists.2 {
                m.message(span::LINKS, |link| {
                    link.bytes(link::TRACE_ID, id);
                    link.bytes(link::SPAN_ID, &[7; 8]);
                    link.bytes(link::TRACE_STATE, state.as_bytes());
                    attributes.iter().for_each(|attribute| link.bytes(link::ATTRIBUTES, attribute));
                    link.fixed32_nonzero(link::FLAGS, ids.3 & 0x3ff);
                });
            }
            m.message(span::STATUS, |status| {
                status.bytes(status::MESSAGE, lists.3.as_bytes());
                status.number(status::CODE, times.3);
            });
            m.fixed32_nonzero(span::FLAGS, ids.3 >> 8);
        })
    })
}

/// An `ExportTraceServiceRequest` of up to two resources and scopes.
pub fn request() -> impl Strategy<Value = Bytes> {
    let scope = (any::<String>(), attributes(any_value().boxed()), "[a-z:/]{0,10}");
    let scope_spans = (scope, prop::collection::vec(span(), 0..5));
    let resource = (attributes(any_value().boxed()), any::<u32>(), "[a-z:/]{0,10}");
    let resource_spans = (resource, prop::collection::vec(scope_spans, 0..3));
    prop::collection::vec(resource_spans, 1..3).prop_map(|all| {
        message(|m| {
            for ((attributes, dropped, url), scopes) in &all {
                m.message(export_request::RESOURCE_SPANS, |resource_spans| {
                    resource_spans.message(resource_spans::RESOURCE, |resource| {
                        attributes
                            .iter()
                            .for_each(|attribute| resource.bytes(resource::ATTRIBUTES, attribute));
                        resource.number(resource::DROPPED_ATTRIBUTES_COUNT, u64::from(*dropped));
                    });
                    for ((name, attributes, url), spans) in scopes {
                        resource_spans.message(resource_spans::SCOPE_SPANS, |scope_spans| {
                            scope_spans.message(scope_spans::SCOPE, |scope| {
                                scope.bytes(scope::NAME, name.as_bytes());
                                attributes.iter().for_each(|attribute| {
                                    scope.bytes(scope::ATTRIBUTES, attribute)
                                });
                            });
                            spans
                                .iter()
                                .for_each(|span| scope_spans.bytes(scope_spans::SPANS, span));
                            scope_spans.bytes(scope_spans::SCHEMA_URL, url.as_bytes());
                        });
                    }
                    resource_spans.bytes(resource_spans::SCHEMA_URL, url.as_bytes());
                });
            }
        })
        .into()
    })
}

/// A plain span for tests that count: one name, one time, one attribute.
#[must_use]
pub fn simple_request(trace: u128, spans: std::ops::Range<u64>) -> Bytes {
    message(|m| {
        m.message(export_request::RESOURCE_SPANS, |resource_spans| {
            resource_spans.message(resource_spans::SCOPE_SPANS, |scope_spans| {
                for span in spans {
                    scope_spans.message(scope_spans::SPANS, |m| {
                        m.bytes(span::TRACE_ID, &(trace + 1).to_be_bytes());
                        m.bytes(span::SPAN_ID, &(span + 1).to_be_bytes());
                        if span != 0 {
                            m.bytes(span::PARENT_SPAN_ID, &1_u64.to_be_bytes());
                        }
                        m.bytes(span::NAME, b"step");
                        m.fixed64(
                            span::START_TIME_UNIX_NANO,
                            1_795_305_600_000_000_000 + span * 1_000_000,
                        );
                        m.fixed64(
                            span::END_TIME_UNIX_NANO,
                            1_795_305_600_500_000_000 + span * 1_000_000,
                        );
                    });
                }
            });
        });
    })
    .into()
}

fn nanos() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 1_795_305_600_000_000_000..1_795_305_700_000_000_000_u64,
        1 => Just(0),
        1 => any::<u64>(),
    ]
}

fn message(write: impl FnOnce(&mut MessageWriter)) -> Vec<u8> {
    let mut writer = MessageWriter::new();
    write(&mut writer);
    writer.into_bytes()
}

/// What spans of a service share: a resource with one attribute, `service.name`.
#[must_use]
pub fn group_of_service(name: &str) -> SpanGroup {
    let resource = message(|resource| {
        resource.message(resource::ATTRIBUTES, |attribute| {
            attribute.bytes(key_value::KEY, b"service.name");
            attribute.message(key_value::VALUE, |value| {
                value.bytes(any_value::STRING_VALUE, name.as_bytes())
            });
        });
    });
    SpanGroup {
        resource: resource.into(),
        resource_schema_url: String::new(),
        scope: Bytes::new(),
        scope_schema_url: String::new(),
        source: SpanSource::Otlp,
        experiment_id: None,
        beyond_columns: false,
    }
}

/// The spans of a request that was generated here; none if it cannot be read.
#[must_use]
pub fn decoded(request: &Bytes) -> Vec<SpanRecord> {
    decode_otlp(request, SpanSource::Otlp, &Limits::default())
        .map(|decoded| decoded.spans)
        .unwrap_or_default()
}

/// A batch of LLM spans as an agent sends them: about 2.3 KB each, ten to a trace.
#[must_use]
pub fn llm_request(spans: u64) -> Bytes {
    let prompt = |span: u64| {
        let words = ["the", "order", "was", "shipped", "refund", "agent", "tool", "answer"];
        let text: Vec<&str> = (0..180_u64)
            .filter_map(|word| {
                let pick = span.wrapping_mul(31).wrapping_add(word * word) % words.len() as u64;
                words.get(usize::try_from(pick).unwrap_or_default()).copied()
            })
            .collect();
        format!("{{\"messages\": [{{\"role\": \"user\", \"content\": \"{}\"}}]}}", text.join(" "))
    };
    message(|m| {
        m.message(export_request::RESOURCE_SPANS, |resource_spans| {
            resource_spans.message(resource_spans::RESOURCE, |resource| {
                resource.bytes(resource::ATTRIBUTES, &attribute("service.name", "agent"));
            });
            resource_spans.message(resource_spans::SCOPE_SPANS, |scope_spans| {
                for span in 0..spans {
                    scope_spans.message(scope_spans::SPANS, |m| {
                        let trace = u128::from(span / 10).wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
                        m.bytes(span::TRACE_ID, &trace.to_be_bytes());
                        m.bytes(span::SPAN_ID, &(span + 1).to_be_bytes());
                        if !span.is_multiple_of(10) {
                            m.bytes(span::PARENT_SPAN_ID, &(span / 10 * 10 + 1).to_be_bytes());
                        }
                        m.bytes(span::NAME, b"chat");
                        m.number(span::KIND, 1);
                        m.fixed64(span::START_TIME_UNIX_NANO, 1_795_305_600_000_000_000 + span);
                        m.fixed64(span::END_TIME_UNIX_NANO, 1_795_305_600_500_000_000 + span);
                        m.bytes(span::ATTRIBUTES, &attribute("mlflow.spanType", "\"CHAT_MODEL\""));
                        m.bytes(span::ATTRIBUTES, &attribute("mlflow.spanInputs", &prompt(span)));
                        m.bytes(
                            span::ATTRIBUTES,
                            &attribute("mlflow.spanOutputs", &prompt(span + 7)),
                        );
                        m.bytes(
                            span::ATTRIBUTES,
                            &attribute("gen_ai.request.model", "gpt-4o-mini"),
                        );
                    });
                }
            });
        });
    })
    .into()
}

fn attribute(key: &str, value: &str) -> Vec<u8> {
    message(|m| {
        m.bytes(key_value::KEY, key.as_bytes());
        m.message(key_value::VALUE, |any| any.bytes(any_value::STRING_VALUE, value.as_bytes()));
    })
}
