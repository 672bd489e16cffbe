//! What clients send: spans of a few traces, split over requests and archivers, retries of what was
//! not acknowledged, late spans, tags, assessments, deletions.

use bytes::Bytes;
use tracelake_decode::otlp::fields::{export_request, resource_spans, scope_spans, span};
use tracelake_decode::writer::MessageWriter;
use tracelake_decode::{
    ContentEncoding, DecodeError, DecodedRecord, RecordHeader, RecordKind, Route, changes_body,
    decode_record,
};
use tracelake_journal::RecordBytes;
use tracelake_model::{Assessment, Limits, SpanId, TraceChange, TraceChanges, TraceId};
use tracelake_testkit::Random;

use super::history::{History, Said, SpanKey};
use crate::mutations::{Broken, Step};

/// Spans of a trace that any archiver is told of: so few that many come twice.
const SPANS: usize = 4;

/// Spans of a trace of one archiver: so many that few come twice.
const OWN_SPANS: usize = 60;

/// A trace that clients tell of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trace {
    pub(super) id: TraceId,
    /// Which table it is for.
    pub(super) table: usize,
    /// The archiver that is told all of it; of a trace without one any archiver is told spans.
    pub(super) owner: Option<usize>,
}

/// One request, all of it for one table.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) table: usize,
    pub(super) said: Vec<(TraceId, Said)>,
}

/// The traces of a schedule.
pub(super) fn traces(random: &mut Random, archivers: usize, tables: usize) -> Vec<Trace> {
    let count = 2 + random.below(4);
    (0..count)
        .map(|number| {
            let mut id = [0; 16];
            id[15] = u8::try_from(number + 1).unwrap_or(u8::MAX);
            let owner = random.chance(60).then(|| random.below(archivers));
            Trace { id: TraceId(id), table: random.below(tables), owner }
        })
        .collect()
}

/// A request that an archiver may be sent, unless there is none.
pub(super) fn compose(
    random: &mut Random,
    archiver: usize,
    traces: &[Trace],
    histories: &[History],
) -> Option<Request> {
    let fitting: Vec<Trace> = traces
        .iter()
        .filter(|trace| trace.owner.is_none_or(|owner| owner == archiver))
        .copied()
        .collect();
    let first = random.pick(&fitting)?;
    let history = histories.get(first.table)?;
    let is_known = first.owner.is_some() && history.has_acked_span(first.id);
    // Told once, and told again, as a client does that heard no answer.
    if is_known && random.chance(if history.was_started(first.id) { 15 } else { 8 }) {
        let said = Said::Start(tag(0), "when it ended".to_owned());
        return Some(Request { table: first.table, said: vec![(first.id, said)] });
    }
    if is_known && random.chance(40) {
        let said = change(random, history.was_deleted(first.id));
        return Some(Request { table: first.table, said: vec![(first.id, said)] });
    }
    let mut said = Vec::new();
    for _ in 0..1 + random.below(4) {
        let same_table: Vec<Trace> =
            fitting.iter().filter(|trace| trace.table == first.table).copied().collect();
        let trace = if random.chance(60) { first } else { random.pick(&same_table)? };
        let spans = if trace.owner.is_some() { OWN_SPANS } else { SPANS };
        // The root first: a trace without one settles late.
        let is_first = !history.knows(trace.id) && said.iter().all(|(id, _)| *id != trace.id);
        said.push((trace.id, Said::Span(span(random, if is_first { 1 } else { spans }))));
    }
    Some(Request { table: first.table, said })
}

fn span(random: &mut Random, spans: usize) -> SpanKey {
    let number = 1 + random.below(spans);
    let mut id = [0; 8];
    id[7] = u8::try_from(number).unwrap_or(u8::MAX);
    // Now and then another span under the same id.
    let name = if random.chance(10) { format!("other-{number}") } else { format!("step-{number}") };
    SpanKey { span: SpanId(id), name }
}

pub(super) fn change(random: &mut Random, was_deleted: bool) -> Said {
    let value = format!("{:08x}", random.bits() >> 32);
    match random.below(10) {
        0..3 => Said::Deleted,
        // Of a trace that was deleted nobody can say whether it is there to be changed.
        _ if was_deleted => Said::Span(span(random, OWN_SPANS)),
        3..6 => Said::Tag(tag(random.below(2)), Some(value)),
        6 => Said::Tag(tag(random.below(2)), None),
        _ => Said::Assessment(format!("a-{}", random.below(2)), value),
    }
}

fn tag(number: usize) -> String {
    format!("tag-{number}")
}

/// The request as the journal and the pipeline take it. A build that does not keep apart what a
/// trace had when it ended takes that for calls.
///
/// # Errors
/// Never for what is generated here.
pub(super) fn record(
    request: &Request,
    route: Route,
    received_at_unix_nano: u64,
    broken: Broken,
) -> Result<(RecordBytes, DecodedRecord), DecodeError> {
    let is_apart = !broken.leaves_out(Step::StartApart);
    let start = request.said.iter().find_map(|(trace, said)| match said {
        Said::Start(key, value) if is_apart => Some(start_body(*trace, &route, key, value)),
        _ => None,
    });
    let changes: Vec<TraceChanges> = request.said.iter().filter_map(trace_changes).collect();
    let (kind, payload) = if let Some(start) = start {
        (RecordKind::MlflowStartTrace, start)
    } else if changes.is_empty() {
        (RecordKind::OtlpProtobuf, spans_body(&request.said))
    } else {
        (RecordKind::TraceChanges, Bytes::from(changes_body(&changes)))
    };
    let header = RecordHeader {
        kind,
        encoding: ContentEncoding::Identity,
        received_at_unix_nano,
        routes: vec![route],
        run_id: None,
        trace_id: None,
        limits: Limits::default(),
        source: None,
    };
    let bytes = RecordBytes { header: header.to_bytes(), payload: payload.clone() };
    Ok((bytes, decode_record(header, &payload)?))
}

fn trace_changes((trace_id, said): &(TraceId, Said)) -> Option<TraceChanges> {
    let change = match said.clone() {
        Said::Span(_) => return None,
        Said::Tag(key, Some(value)) | Said::Start(key, value) => TraceChange::SetTag { key, value },
        Said::Tag(key, None) => TraceChange::DeleteTag { key },
        Said::Assessment(assessment_id, rationale) => {
            let rationale = Some(rationale);
            let assessment = Assessment { assessment_id, rationale, ..Default::default() };
            TraceChange::PutAssessment(Box::new(assessment))
        }
        Said::Deleted => TraceChange::Delete,
    };
    Some(TraceChanges { trace_id: *trace_id, changes: vec![change] })
}

fn start_body(trace: TraceId, route: &Route, key: &str, value: &str) -> Bytes {
    let body = serde_json::json!({"trace": {"trace_info": {
        "trace_id": trace.to_mlflow(),
        "trace_location": {
            "type": "MLFLOW_EXPERIMENT",
            "mlflow_experiment": {"experiment_id": route.experiment_id.to_string()},
        },
        "request_time": "2026-11-22T10:00:00Z",
        "state": "OK",
        "tags": {key: value},
    }}});
    body.to_string().into()
}

fn spans_body(said: &[(TraceId, Said)]) -> Bytes {
    let mut writer = MessageWriter::new();
    writer.message(export_request::RESOURCE_SPANS, |resource_spans| {
        resource_spans.message(resource_spans::SCOPE_SPANS, |scope_spans| {
            for (trace, said) in said {
                let Said::Span(key) = said else { continue };
                scope_spans.message(scope_spans::SPANS, |span| write_span(span, *trace, key));
            }
        });
    });
    writer.into_bytes().into()
}

fn write_span(writer: &mut MessageWriter, trace: TraceId, key: &SpanKey) {
    let number = u64::from_be_bytes(key.span.0);
    writer.bytes(span::TRACE_ID, &trace.0);
    writer.bytes(span::SPAN_ID, &key.span.0);
    if 1 < number {
        writer.bytes(span::PARENT_SPAN_ID, &1_u64.to_be_bytes());
    }
    writer.bytes(span::NAME, key.name.as_bytes());
    let start = 1_795_305_600_000_000_000 + number * 1_000_000;
    writer.fixed64(span::START_TIME_UNIX_NANO, start);
    writer.fixed64(span::END_TIME_UNIX_NANO, start + 500_000_000);
}
