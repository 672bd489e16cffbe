use arrow::array::{Array, AsArray};
use proptest::prelude::*;
use tracelake_decode::{SpanSource, decode_otlp};
use tracelake_model::{Limits, TraceId};
use tracelake_testkit::spans;

use super::*;

fn draft(body: &bytes::Bytes) -> TraceDraft {
    let decoded = decode_otlp(body, SpanSource::Otlp, &Limits::default()).unwrap();
    assert_eq!(decoded.rejects, []);
    TraceDraft {
        trace_id: TraceId([1; 16]),
        experiment_id: None,
        run_id: None,
        info: None,
        spans: decoded.spans,
        created_at_micros: 1,
        updated_at_micros: 1,
        revision: 1,
        replaces: false,
    }
}

proptest! {
    /// Scenario: requests with every field, value type and slip that senders make.
    /// Guarantees: decode, encode, rebuild is the identity, span by span in order.
    #[test]
    fn encode_and_rebuild_is_the_identity(bodies in prop::collection::vec(spans::request(), 1..3)) {
        let drafts: Vec<TraceDraft> = bodies.iter().map(draft).collect();
        let batch = encode(&drafts).unwrap();
        let rebuilt = rebuild_traces(&batch).unwrap();
        prop_assert_eq!(rebuilt.len(), drafts.len());
        for (sent, back) in drafts.iter().zip(&rebuilt) {
            prop_assert_eq!(sent.spans.len(), back.spans.len());
            for (left, right) in sent.spans.iter().zip(&back.spans) {
                prop_assert!(left.same_content(right), "{:?}\n{:?}", left.message, right.message);
            }
        }
    }
}

/// Scenario: an ordinary span.
/// Guarantees: its bytes are not kept a second time.
#[test]
fn ordinary_spans_need_no_copy_of_their_bytes() {
    let batch = encode(&[draft(&spans::simple_request(0, 0..3))]).unwrap();
    let spans = batch.column_by_name("spans").unwrap();
    let spans = spans.as_list::<i32>().values().as_struct();
    assert_eq!(spans.len(), 3);
    assert_eq!(spans.column_by_name("otlp").unwrap().null_count(), 3);
}
