//! Records as intake makes them of requests: spans, the start of a trace, changes.

use tracelake_decode::{
    ContentEncoding, DecodedRecord, RecordContent, RecordHeader, RecordKind, Route, SpanSource,
    decode_otlp,
};
use tracelake_model::{
    ExperimentId, Limits, TableName, TraceChange, TraceChanges, TraceId, TraceInfo,
};

use crate::spans::simple_request;

const HOUR: u64 = 3_600_000_000_000;

#[expect(clippy::unwrap_used, reason = "the text is a name")]
fn table() -> TableName {
    "a.b.c".parse().unwrap()
}

fn header(kind: RecordKind, at: u64) -> RecordHeader {
    RecordHeader {
        kind,
        encoding: ContentEncoding::Identity,
        received_at_unix_nano: at,
        routes: vec![Route { experiment_id: ExperimentId::default_experiment(), table: table() }],
        run_id: None,
        trace_id: None,
        limits: Limits::default(),
        source: None,
    }
}

/// Spans of a trace that arrive.
#[must_use]
pub fn spans(trace: u128, spans: std::ops::Range<u64>, kind: RecordKind) -> DecodedRecord {
    let body = simple_request(trace, spans);
    let spans = decode_otlp(&body, SpanSource::Otlp, &Limits::default()).unwrap_or_default();
    DecodedRecord { header: header(kind, 5 * HOUR), content: RecordContent::Spans(spans) }
}

/// A trace's `start_trace` that arrives.
#[must_use]
pub fn start(trace: u128) -> DecodedRecord {
    let info = TraceInfo::new(id(trace));
    DecodedRecord {
        header: header(RecordKind::MlflowStartTrace, 6 * HOUR),
        content: RecordContent::TraceInfo(Box::new(info)),
    }
}

/// A client's deletion of a trace.
#[must_use]
pub fn deletion(trace: u128) -> DecodedRecord {
    let changes = TraceChanges { trace_id: id(trace), changes: vec![TraceChange::Delete] };
    DecodedRecord {
        header: header(RecordKind::TraceChanges, 7 * HOUR),
        content: RecordContent::Changes(vec![changes]),
    }
}

/// A client's changes to a trace.
#[must_use]
pub fn change(trace: u128, changes: Vec<TraceChange>) -> DecodedRecord {
    let changes = TraceChanges { trace_id: id(trace), changes };
    DecodedRecord {
        header: header(RecordKind::TraceChanges, 7 * HOUR),
        content: RecordContent::Changes(vec![changes]),
    }
}

/// A tag that gets a value.
#[must_use]
pub fn set_tag(key: &str, value: &str) -> TraceChange {
    TraceChange::SetTag { key: key.to_owned(), value: value.to_owned() }
}

/// The trace that requests of the kit have under this number.
#[must_use]
pub fn id(trace: u128) -> TraceId {
    TraceId((trace + 1).to_be_bytes())
}
