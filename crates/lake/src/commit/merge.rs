//! One trace from several pieces: the copies that retries leave, the pieces that come late.
//!
//! Merging is idempotent: a piece that is in already changes nothing. Exactly-once commits rest on
//! that, see the module doc of `commit`.

use std::collections::HashMap;

use tracelake_decode::conventions::trace_tags;
use tracelake_decode::{SpanRecord, SpanSource};
use tracelake_model::{SpanId, TraceId, TraceInfo, TraceState};

use crate::rows::{TraceDraft, without_derived};

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

/// Merges what a client said later into what is known. Returns true when that changed.
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
    incoming.tags.into_iter().for_each(|(key, value)| info.set_tag(key, value));
    incoming.deleted_tags.into_iter().for_each(|key| info.delete_tag(key));
    incoming.assessments.into_iter().for_each(|assessment| info.put_assessment(assessment));
    incoming.deleted_assessments.into_iter().for_each(|id| info.delete_assessment(id));
    incoming.linked_runs.into_iter().for_each(|run_id| info.link_run(run_id));
    *info != before
}

/// Tags that `added` spans bring stand over those that are there: of the `known` spans, and what
/// clients set or deleted before. MLflow writes the attributes of the first resource of each
/// request over the tags of the trace.
pub(crate) fn override_tags(
    info: &mut Option<TraceInfo>,
    trace_id: TraceId,
    known: &[SpanRecord],
    added: &[SpanRecord],
) {
    let is_tagged =
        info.as_ref().is_some_and(|info| !info.tags.is_empty() || !info.deleted_tags.is_empty());
    let resource = |spans: &[SpanRecord]| spans.first().map(|span| span.group.resource.clone());
    if added.is_empty() || (!is_tagged && (known.is_empty() || resource(known) == resource(added)))
    {
        return;
    }
    let derived = trace_tags(known);
    for (key, value) in trace_tags(added) {
        let said = info.as_mut().is_some_and(|info| {
            info.deleted_tags.remove(&key);
            info.tags.contains_key(&key)
        });
        if said || (!known.is_empty() && derived.get(&key) != Some(&value)) {
            info.get_or_insert(TraceInfo::new(trace_id)).set_tag(key, value);
        }
    }
}

/// What becomes of the archived rows of a trace.
#[derive(Debug)]
pub(crate) enum Amended {
    /// The piece is in already, and there is one row.
    Unchanged,
    /// This row takes their place.
    Row(Box<TraceDraft>),
    /// They go.
    Deleted,
}

/// One row from the archived ones of a trace and a late piece.
pub(crate) fn amend(archived: Vec<TraceDraft>, late: &TraceDraft, now_micros: i64) -> Amended {
    let rows = archived.len();
    let mut archived = archived.into_iter();
    let Some(mut row) = archived.next() else { return Amended::Unchanged };
    if late.replaces {
        return replace(&row, late, now_micros, rows);
    }
    let before = row.info.clone();
    let mut changed = 1 < rows;
    for other in archived.chain(std::iter::once(late.clone())) {
        // The client's word on the experiment stands over that of stray spans.
        if other.experiment_id != row.experiment_id
            && (other.is_finalized() || row.experiment_id.is_none())
        {
            row.experiment_id = other.experiment_id;
            changed = true;
        }
        let known = row.spans.len();
        changed |= merge_spans(&mut row.spans, other.spans);
        let (known, added) = row.spans.split_at(known.min(row.spans.len()));
        override_tags(&mut row.info, row.trace_id, known, added);
        merge_info(&mut row.info, other.info);
        if row.run_id.is_none() && other.run_id.is_some() {
            row.run_id = other.run_id;
            changed = true;
        }
        row.created_at_micros = row.created_at_micros.min(other.created_at_micros);
        row.revision = row.revision.max(other.revision);
    }
    row.info = row.info.and_then(|info| without_derived(info, &row.spans));
    if !changed && row.info == before {
        return Amended::Unchanged;
    }
    row.updated_at_micros = now_micros;
    row.revision = row.revision.saturating_add(1);
    Amended::Row(Box::new(row))
}

/// Several rows of one trace, which several archivers leave, as one.
pub(crate) fn merge_rows(rows: Vec<TraceDraft>) -> Option<TraceDraft> {
    let mut rows = rows.into_iter();
    let first = rows.next()?;
    Some(rows.fold(first, |row, other| {
        let now = row.updated_at_micros.max(other.updated_at_micros);
        match amend(vec![row.clone()], &other, now) {
            Amended::Row(merged) => *merged,
            Amended::Unchanged | Amended::Deleted => row,
        }
    }))
}

/// The trace was deleted; what `late` has came after that.
fn replace(row: &TraceDraft, late: &TraceDraft, now_micros: i64, rows: usize) -> Amended {
    if late.is_blank() {
        return Amended::Deleted;
    }
    let mut anew = TraceDraft { replaces: false, ..late.clone() };
    anew.info = anew.info.and_then(|info| without_derived(info, &anew.spans));
    let same = rows == 1
        && anew.info == row.info
        && anew.experiment_id == row.experiment_id
        && anew.spans.len() == row.spans.len()
        && !merge_spans(&mut row.spans.clone(), anew.spans.iter().cloned());
    if same {
        return Amended::Unchanged;
    }
    anew.updated_at_micros = now_micros;
    anew.revision = row.revision.saturating_add(1);
    Amended::Row(Box::new(anew))
}
