//! Fingerprints of spans against the comparison of their contents, however they are encoded.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;
use tracelake_decode::otlp::fields::span;
use tracelake_decode::wire::{Fields, WireValue};
use tracelake_decode::writer::MessageWriter;
use tracelake_decode::{Fingerprint, Fingerprinter, SpanRecord, SpanSource, decode_otlp};
use tracelake_model::Limits;
use tracelake_testkit::spans::{llm_request, request};

fn decoded(body: &Bytes) -> Vec<SpanRecord> {
    decode_otlp(body, SpanSource::Otlp, &Limits::default()).unwrap().spans
}

fn fingerprint(span: &SpanRecord) -> Fingerprint {
    Fingerprinter::default().span(span)
}

/// The fields of a message in the order of `key`; those of one number stay in their order. A
/// repeated field that is an attribute is turned round as well.
fn reordered(bytes: &[u8], attributes: u32, key: &dyn Fn(u32) -> u32) -> Vec<u8> {
    let mut all: Vec<(u32, WireValue<'_>)> = Vec::new();
    let mut fields = Fields::new(bytes);
    while let Some(field) = fields.next_field().unwrap() {
        all.push(field);
    }
    all.sort_by_key(|(number, _)| key(*number));
    let mut writer = MessageWriter::new();
    for (number, value) in all {
        match value {
            WireValue::Bytes(bytes) if number == attributes => {
                writer.bytes(number, &reordered(bytes, 0, &|number| 9 - number.min(9)));
            }
            value => writer.value(number, value),
        }
    }
    writer.into_bytes()
}

/// The same message with a default, a value that a later one replaces, and a number that is longer
/// than need be.
fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut writer = MessageWriter::new();
    writer.bytes(span::NAME, b"replaced by the name, if there is one");
    let mut all = writer.into_bytes();
    all.extend([0x2a, 0x80, 0x00]); // `name`, empty, its length in two bytes.
    all.extend([0x70, 0x00]); // `dropped_links_count`, zero.
    all.extend_from_slice(bytes);
    all
}

fn with_message(span: &SpanRecord, message: Vec<u8>) -> SpanRecord {
    SpanRecord { message: message.into(), is_canonical: false, ..span.clone() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Scenario: spans of every shape, written again in another order of fields, with defaults,
    /// replaced values and long numbers in them.
    /// Guarantees: the fingerprint is the same.
    #[test]
    fn encoding_does_not_matter(body in request(), turn in 1_u32..17) {
        for span in decoded(&body) {
            let known = fingerprint(&span);
            let other = with_message(&span, reordered(&span.message, span::ATTRIBUTES, &|n| n.wrapping_mul(turn) % 17));
            prop_assert!(span.same_content(&other));
            prop_assert_eq!(fingerprint(&other), known);
            let other = with_message(&span, padded(&span.message));
            prop_assert!(span.same_content(&other));
            prop_assert_eq!(fingerprint(&other), known);
        }
    }

    /// Scenario: all spans of two requests, whose ids collide, each with each other one.
    /// Guarantees: fingerprints are equal where contents are, and only there; also when one
    /// fingerprinter does them all.
    #[test]
    fn equal_fingerprints_are_equal_contents(left in request(), right in request()) {
        let spans: Vec<SpanRecord> = decoded(&left).into_iter().chain(decoded(&right)).collect();
        let mut one = Fingerprinter::default();
        let fingerprints: Vec<Fingerprint> = spans.iter().map(|span| one.span(span)).collect();
        for (a, known) in spans.iter().zip(&fingerprints) {
            prop_assert_eq!(*known, fingerprint(a));
            for (b, other) in spans.iter().zip(&fingerprints) {
                prop_assert_eq!(a.same_content(b), known == other);
            }
        }
    }

    /// Scenario: one bit of a request turns over.
    /// Guarantees: the fingerprints of the spans that can still be read change exactly where the
    /// contents do.
    #[test]
    fn every_bit_counts(body in request(), place in any::<Index>(), bit in 0_u8..8) {
        let mut changed = body.to_vec();
        prop_assume!(!changed.is_empty());
        let place = place.index(changed.len());
        changed[place] ^= 1 << bit;
        let Ok(after) = decode_otlp(&changed.into(), SpanSource::Otlp, &Limits::default()) else {
            return Ok(());
        };
        for before in decoded(&body) {
            for after in &after.spans {
                prop_assert_eq!(
                    before.same_content(after),
                    fingerprint(&before) == fingerprint(after)
                );
            }
        }
    }
}

/// Scenario: a span and MLflow's copy of it, which says less; one of another name, one of another
/// end.
/// Guarantees: the copy is known for the same span, the others are not.
#[test]
fn a_poorer_copy_is_the_same_span() {
    let span = decoded(&llm_request(1)).remove(0);
    let rewritten = |name: &[u8], end: u64| {
        let view = span.view();
        let mut copy = MessageWriter::new();
        copy.bytes(span::TRACE_ID, &span.trace_id.0);
        copy.bytes(span::SPAN_ID, &span.span_id.0);
        copy.bytes(span::NAME, name);
        copy.fixed64(span::START_TIME_UNIX_NANO, view.start_time_unix_nano);
        copy.fixed64(span::END_TIME_UNIX_NANO, end);
        let record = with_message(&span, copy.into_bytes());
        fingerprint(&SpanRecord { end_time_unix_nano: end, ..record })
    };
    let (name, end) = (span.view().name.as_bytes(), span.end_time_unix_nano);
    let known = fingerprint(&span);
    let copy = rewritten(name, end);
    assert!(copy != known && copy.is_same_span(known));
    assert!(!rewritten(b"other", end).is_same_span(known));
    assert!(!rewritten(name, end + 1).is_same_span(known));
}

/// Scenario: a span whose bytes are written out here.
/// Guarantees: its fingerprint is the one that ledgers on disk have.
#[test]
fn the_function_never_changes() {
    let span = decoded(&tracelake_testkit::spans::simple_request(6, 0..1)).remove(0);
    assert_eq!(format!("{:016x}", fingerprint(&span).0), "0cb971e10d7d415e");
}
