//! The table's rows: from a row the spans can be rebuilt, whatever was accepted.

use bytes::Bytes;
use tracelake_decode::order::in_order;
use tracelake_decode::{SpanSource, decode_otlp};
use tracelake_model::Limits;

use crate::rows::{TraceDraft, encode, rebuild_traces};

/// Decode, encode, rebuild is the identity, but for the order of spans, which is the table's.
pub(crate) fn rows(data: &[u8]) {
    let body = Bytes::copy_from_slice(data);
    let limits = Limits { max_expanded_bytes: 1 << 20, ..Limits::default() };
    let Ok(decoded) = decode_otlp(&body, SpanSource::Otlp, &limits) else { return };
    let mut spans = decoded.spans;
    let Some(trace_id) = spans.first().map(|span| span.trace_id) else { return };
    spans.retain(|span| span.trace_id == trace_id);
    let draft = TraceDraft {
        spans,
        created_at_micros: 1,
        updated_at_micros: 2,
        revision: 3,
        ..TraceDraft::new(trace_id)
    };
    let batch = encode(std::slice::from_ref(&draft)).expect("no input breaks the builders");
    let rebuilt = rebuild_traces(&batch).expect("what was encoded can be rebuilt");
    assert_eq!(rebuilt.len(), 1);
    let rebuilt = &rebuilt[0];
    assert_eq!(rebuilt.trace_id, draft.trace_id);
    assert_eq!((rebuilt.created_at_micros, rebuilt.revision), (1, 3));
    assert_eq!(rebuilt.spans.len(), draft.spans.len());
    for (sent, back) in in_order(&draft.spans).into_iter().zip(&rebuilt.spans) {
        assert!(sent.same_content(back), "{:?}\n{:?}", sent.message, back.message);
    }
}
