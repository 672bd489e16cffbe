use super::*;
use crate::otlp::fields::{any_value, array_value, key_value, resource, span};

fn request(span: impl FnOnce(&mut MessageWriter)) -> Bytes {
    let mut writer = MessageWriter::new();
    writer.message(export_request::RESOURCE_SPANS, |resource_spans| {
        resource_spans.message(resource_spans::RESOURCE, |resource| {
            resource.message(resource::ATTRIBUTES, |attribute| {
                attribute.bytes(key_value::KEY, b"service.name");
                attribute.message(key_value::VALUE, |value| {
                    value.bytes(any_value::STRING_VALUE, b"checkout")
                });
            });
        });
        resource_spans.message(resource_spans::SCOPE_SPANS, |scope_spans| {
            scope_spans.message(scope_spans::SPANS, span)
        });
    });
    writer.into_bytes().into()
}

fn decode(body: &Bytes) -> DecodedSpans {
    decode_otlp(body, SpanSource::Otlp, &Limits::default()).unwrap()
}

/// Scenario: a minimal span, and one with a short trace id.
/// Guarantees: the good one is taken as sent, the bad one is named and counted.
#[test]
fn takes_good_spans_and_names_bad_ones() {
    let good = decode(&request(|span| {
        span.bytes(span::TRACE_ID, &[1; 16]);
        span.bytes(span::SPAN_ID, &[2; 8]);
        span.bytes(span::NAME, b"root");
    }));
    assert_eq!((good.spans.len(), good.rejected_spans()), (1, 0));
    assert_eq!(good.spans[0].view().name, "root");
    assert!(!good.spans[0].beyond_columns);

    let bad = decode(&request(|span| {
        span.bytes(span::TRACE_ID, &[1; 15]);
        span.bytes(span::SPAN_ID, &[2; 8]);
    }));
    assert_eq!((bad.spans.len(), bad.rejected_spans()), (0, 1));
    assert!(bad.rejects[0].reason.contains("trace id is not 16 bytes"), "{:?}", bad.rejects);
}

/// Scenario: text that is not UTF-8, a field of a later protocol, an all-zero parent.
/// Guarantees: the text is replaced, the span is kept and marked as beyond the columns.
#[test]
fn mends_text_and_marks_what_columns_cannot_hold() {
    let spans = decode(&request(|span| {
        span.bytes(span::TRACE_ID, &[1; 16]);
        span.bytes(span::SPAN_ID, &[2; 8]);
        span.bytes(span::PARENT_SPAN_ID, &[0; 8]);
        span.bytes(span::NAME, b"caf\xe9");
        span.number(99, 7);
    }));
    assert_eq!(spans.spans[0].view().name, "caf\u{fffd}");
    assert_eq!(spans.spans[0].parent, None);
    assert!(spans.spans[0].beyond_columns);
}

/// Scenario: the same span with fields in another order and defaults written out.
/// Guarantees: it is the same content; another attribute value is not.
#[test]
fn content_is_compared_not_encoding() {
    let attribute = |span: &mut MessageWriter, text: &[u8]| {
        span.message(span::ATTRIBUTES, |kv| {
            kv.bytes(key_value::KEY, b"k");
            kv.message(key_value::VALUE, |value| value.bytes(any_value::STRING_VALUE, text));
        });
    };
    let one = decode(&request(|span| {
        span.bytes(span::TRACE_ID, &[1; 16]);
        span.bytes(span::SPAN_ID, &[2; 8]);
        attribute(span, b"");
        span.fixed64(span::START_TIME_UNIX_NANO, 5);
    }));
    let two = decode(&request(|span| {
        span.fixed64(span::START_TIME_UNIX_NANO, 5);
        span.number(span::KIND, 0);
        span.bytes(span::STATUS, b"");
        attribute(span, b"");
        span.bytes(span::SPAN_ID, &[2; 8]);
        span.bytes(span::TRACE_ID, &[1; 16]);
    }));
    let three = decode(&request(|span| {
        span.bytes(span::TRACE_ID, &[1; 16]);
        span.bytes(span::SPAN_ID, &[2; 8]);
        attribute(span, b"x");
        span.fixed64(span::START_TIME_UNIX_NANO, 5);
    }));
    assert!(one.spans[0].same_content(&two.spans[0]));
    assert!(!one.spans[0].same_content(&three.spans[0]));
}

/// Scenario: a value nested past the limit, and framing broken outside of spans.
/// Guarantees: the first is a reject, the second an error with the offset in the body.
#[test]
fn deep_values_are_rejects_and_broken_framing_is_an_error() {
    let mut value = vec![0x08_u8, 0x01];
    for _ in 0..200 {
        let mut array = MessageWriter::new();
        array.message(any_value::ARRAY_VALUE, |inner| inner.bytes(array_value::VALUES, &value));
        value = array.into_bytes();
    }
    let deep = decode(&request(|span| {
        span.bytes(span::TRACE_ID, &[1; 16]);
        span.bytes(span::SPAN_ID, &[2; 8]);
        span.message(span::ATTRIBUTES, |kv| kv.bytes(key_value::VALUE, &value));
    }));
    assert!(deep.rejects[0].reason.contains("deeper than 64"), "{:?}", deep.rejects);

    let body = Bytes::from_static(&[0x0a, 0x04, 0x12, 0x09, 1, 2]);
    let error = decode_otlp(&body, SpanSource::Otlp, &Limits::default()).unwrap_err();
    assert!(matches!(error, DecodeError::Protobuf { offset: 4, .. }), "{error:?}");
}

/// Scenario: spans of two resources written back as one request.
/// Guarantees: decoding it gives the same content.
#[test]
fn encoding_spans_and_decoding_is_the_identity() {
    let mut all = decode(&request(|span| {
        span.bytes(span::TRACE_ID, &[1; 16]);
        span.bytes(span::SPAN_ID, &[2; 8]);
    }))
    .spans;
    let mut bare = MessageWriter::new();
    bare.message(export_request::RESOURCE_SPANS, |rs| {
        rs.message(resource_spans::SCOPE_SPANS, |ss| {
            ss.message(scope_spans::SPANS, |span| {
                span.bytes(span::TRACE_ID, &[1; 16]);
                span.bytes(span::SPAN_ID, &[3; 8]);
            });
            ss.bytes(scope_spans::SCHEMA_URL, b"https://schema");
        });
    });
    all.extend(decode(&bare.into_bytes().into()).spans);
    let again = decode(&encode_request(&all).into()).spans;
    assert_eq!(again.len(), 2);
    assert!(all.iter().zip(&again).all(|(left, right)| left.same_content(right)));
}

/// Scenario: a double that is the usual not-a-number, and one with bits of its own.
/// Guarantees: the second is beyond the columns, whose JSON text knows one only.
#[test]
fn a_not_a_number_with_bits_of_its_own_is_beyond_the_columns() {
    for (bits, beyond) in [(f64::NAN.to_bits(), false), (0xffff_ffff_0000_0000, true)] {
        let spans = decode(&request(|span| {
            span.bytes(span::TRACE_ID, &[1; 16]);
            span.bytes(span::SPAN_ID, &[2; 8]);
            span.message(span::ATTRIBUTES, |attribute| {
                attribute.bytes(key_value::KEY, b"n");
                attribute.message(key_value::VALUE, |value| {
                    value.fixed64(any_value::DOUBLE_VALUE, bits)
                });
            });
        }));
        assert_eq!(spans.spans[0].beyond_columns, beyond, "{bits:x}");
    }
}

/// Scenario: a true that is written as 1, as 63, and a false.
/// Guarantees: both trues are the same content.
#[test]
fn every_true_is_the_same() {
    let [one, other, no] = [1, 63, 0].map(|number| {
        decode(&request(|span| {
            span.bytes(span::TRACE_ID, &[1; 16]);
            span.bytes(span::SPAN_ID, &[2; 8]);
            span.message(span::ATTRIBUTES, |attribute| {
                attribute.bytes(key_value::KEY, b"b");
                attribute
                    .message(key_value::VALUE, |value| value.number(any_value::BOOL_VALUE, number));
            });
        }))
    });
    assert!(one.spans[0].same_content(&other.spans[0]));
    assert!(!one.spans[0].same_content(&no.spans[0]));
}
