//! One trace from several pieces: the copies that retries leave, the pieces that come late.
//!
//! Merging is idempotent: a piece that is in already changes nothing. Exactly-once commits rest on
//! that, see the module doc of `commit`.

use std::collections::HashMap;

use tracelake_decode::{SpanRecord, SpanSource};
use tracelake_model::{SpanId, TraceInfo, TraceState};

use crate::rows::TraceDraft;

/// Adds `incoming` to `spans`, leaving out copies: an identical span is a retry; MLflow's poorer
/// copy of a span yields to the one that came by OTLP; another span under the same id is kept.
/// Returns true when `spans` changed.
pub(crate) fn merge_spans(
    spans: &mut Vec<SpanRecord>,
    incoming: impl IntoIterator<Item = SpanRecord>,
) -> bool {
    let mut by_id: HashMap<SpanId, Vec<usize>> = HashMap::with_capacity(spans.len());
    for (index, span) in spans.iter().enumerate() {
        by_id.entry(span.span_id).or_default().push(index);
    }
    let mut changed = false;
    for span in incoming {
        let known = by_id.entry(span.span_id).or_default();
        let copy = known.iter().copied().find(|index| {
            spans.get(*index).is_some_and(|other| {
                other.same_content(&span) || other.same_span_other_source(&span)
            })
        });
        match copy.and_then(|index| spans.get_mut(index)) {
            Some(poorer)
                if poorer.group.source == SpanSource::Mlflow
                    && span.group.source == SpanSource::Otlp =>
            {
                *poorer = span;
                changed = true;
            }
            Some(_) => {}
            None => {
                known.push(spans.len());
                spans.push(span);
                changed = true;
            }
        }
    }
    changed
}

/// Merges what a later `start_trace` says into what is known. Returns true when that changed.
pub(crate) fn merge_info(known: &mut Option<TraceInfo>, incoming: Option<TraceInfo>) -> bool {
    let Some(incoming) = incoming else { return false };
    let Some(info) = known else {
        *known = Some(incoming);
        return true;
    };
    let before = info.clone();
    let later = |own: &mut Option<String>, said: Option<String>| {
        if said.is_some() {
            *own = said;
        }
    };
    later(&mut info.client_request_id, incoming.client_request_id);
    later(&mut info.request_preview, incoming.request_preview);
    later(&mut info.response_preview, incoming.response_preview);
    info.request_time_micros = incoming.request_time_micros.or(info.request_time_micros);
    info.execution_duration_ms = incoming.execution_duration_ms.or(info.execution_duration_ms);
    if incoming.state != TraceState::Unspecified {
        info.state = incoming.state;
    }
    info.trace_metadata.extend(incoming.trace_metadata);
    info.tags.extend(incoming.tags);
    for assessment in incoming.assessments {
        match info.assessments.iter_mut().find(|a| a.assessment_id == assessment.assessment_id) {
            Some(known) => *known = assessment,
            None => info.assessments.push(assessment),
        }
    }
    *info != before
}

/// One row from the archived ones of a trace and a late piece; `None` when the piece is in
/// already and there is one row.
pub(crate) fn amend(
    archived: Vec<TraceDraft>,
    late: &TraceDraft,
    now_micros: i64,
) -> Option<TraceDraft> {
    let rows = archived.len();
    let mut archived = archived.into_iter();
    let mut row = archived.next()?;
    let mut changed = 1 < rows;
    for other in archived.chain(std::iter::once(late.clone())) {
        // The client's word on the experiment stands over that of stray spans.
        if other.experiment_id != row.experiment_id
            && (other.info.is_some() || row.experiment_id.is_none())
        {
            row.experiment_id = other.experiment_id;
            changed = true;
        }
        changed |= merge_spans(&mut row.spans, other.spans);
        changed |= merge_info(&mut row.info, other.info);
        if row.run_id.is_none() && other.run_id.is_some() {
            row.run_id = other.run_id;
            changed = true;
        }
        row.created_at_micros = row.created_at_micros.min(other.created_at_micros);
        row.revision = row.revision.max(other.revision);
    }
    row.updated_at_micros = now_micros;
    row.revision = row.revision.saturating_add(1);
    changed.then_some(row)
}
