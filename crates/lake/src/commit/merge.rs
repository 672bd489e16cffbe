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

/// How a piece stands to the rows of its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    /// It came after them.
    Younger,
    /// It is a row of another table, which says less where they differ.
    Older,
}

/// One row from the archived ones of a trace and a piece of it.
pub(crate) fn amend(
    mut archived: Vec<TraceDraft>,
    piece: &TraceDraft,
    age: Age,
    now_micros: i64,
) -> Amended {
    let rows = archived.len();
    archived.sort_by_key(|row| (row.updated_at_micros, row.revision));
    let Some(newest) = archived.last().cloned() else { return Amended::Unchanged };
    if piece.replaces && age == Age::Younger {
        return replace(&newest, piece, now_micros, rows);
    }
    if age == Age::Older && rows == 1 && holds(&newest, piece) {
        // It was taken in before; what was set or deleted since stands.
        return Amended::Unchanged;
    }
    let merged = match age {
        Age::Younger => fold(archived.into_iter().chain(std::iter::once(piece.clone()))),
        Age::Older => fold(std::iter::once(piece.clone()).chain(archived)),
    };
    let Some(mut row) = merged else { return Amended::Unchanged };
    if rows == 1 && same_content(&row, &newest) {
        return Amended::Unchanged;
    }
    row.updated_at_micros = now_micros;
    row.revision = row.revision.saturating_add(1);
    Amended::Row(Box::new(row))
}

/// Pieces of one trace as one, the later ones over the earlier ones. A piece that was deleted
/// before it came is not asked for here.
pub(crate) fn fold(pieces: impl IntoIterator<Item = TraceDraft>) -> Option<TraceDraft> {
    let mut pieces = pieces.into_iter();
    let mut row = pieces.next()?;
    for other in pieces {
        // The client's word on the experiment stands over that of stray spans.
        if other.is_finalized() || row.experiment_id.is_none() {
            row.experiment_id = other.experiment_id.or(row.experiment_id);
        }
        let known = row.spans.len();
        merge_spans(&mut row.spans, other.spans);
        let (known, added) = row.spans.split_at(known.min(row.spans.len()));
        override_tags(&mut row.info, row.trace_id, known, added);
        merge_info(&mut row.info, other.info);
        row.run_id = row.run_id.or(other.run_id);
        row.created_at_micros = row.created_at_micros.min(other.created_at_micros);
        row.updated_at_micros = row.updated_at_micros.max(other.updated_at_micros);
        row.revision = row.revision.max(other.revision);
    }
    row.info = row.info.and_then(|info| without_derived(info, &row.spans));
    Some(row)
}

/// The trace as it is, from its rows, older ones first, and what is open of it.
pub(crate) fn current(rows: Vec<TraceDraft>, piece: Option<TraceDraft>) -> Option<TraceDraft> {
    let rows = if piece.as_ref().is_some_and(|piece| piece.replaces) { Vec::new() } else { rows };
    let is_archived = !rows.is_empty();
    fold(rows.into_iter().chain(piece)).filter(|trace| is_archived || !trace.is_blank())
}

/// The trace was deleted; what `late` has came after that.
fn replace(row: &TraceDraft, late: &TraceDraft, now_micros: i64, rows: usize) -> Amended {
    if late.is_blank() {
        return Amended::Deleted;
    }
    let mut anew = TraceDraft { replaces: false, ..late.clone() };
    anew.info = anew.info.and_then(|info| without_derived(info, &anew.spans));
    if rows == 1 && same_content(&anew, row) {
        return Amended::Unchanged;
    }
    anew.updated_at_micros = now_micros;
    anew.revision = row.revision.saturating_add(1);
    Amended::Row(Box::new(anew))
}

/// True when `row` has all the spans of `piece` and, if that has one, a `start_trace`.
fn holds(row: &TraceDraft, piece: &TraceDraft) -> bool {
    (row.is_finalized() || !piece.is_finalized())
        && !merge_spans(&mut row.spans.clone(), piece.spans.iter().cloned())
}

/// True when a row of `merged` would say what `row` says.
fn same_content(merged: &TraceDraft, row: &TraceDraft) -> bool {
    merged.info == row.info
        && merged.experiment_id == row.experiment_id
        && merged.run_id == row.run_id
        && merged.spans.len() == row.spans.len()
        && !merge_spans(&mut row.spans.clone(), merged.spans.iter().cloned())
}
