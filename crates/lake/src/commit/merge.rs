//! One trace from several pieces: the copies that retries leave, the pieces that come late.
//!
//! Merging is idempotent: a piece that is in already changes nothing. And it is all the same how the
//! pieces were cut: spans are a set, in the order of their first arrival, which decides nothing but
//! what `docs/table.md` names; what clients said is kept apart from what spans say, and calls apart
//! from `start_trace`, so that nothing is undone by what comes late or again.

use tracelake_decode::SpanRecord;
use tracelake_decode::order::in_order;
use tracelake_model::TraceInfo;

use super::span_set::{Added, SpanSet};
use crate::rows::{ExperimentBy, TraceDraft};

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

/// Pieces of one trace as one, in the order of their arrival. A piece that was deleted before it
/// came is not asked for here.
pub(crate) fn fold(pieces: impl IntoIterator<Item = TraceDraft>) -> Option<TraceDraft> {
    let mut pieces = pieces.into_iter();
    let mut row = pieces.next()?;
    for other in pieces {
        take_words(&mut row, &other);
        let has_spans = !other.spans.is_empty();
        let added = add_spans(&mut row.spans, other.spans);
        if added {
            row.keeps_order = false;
        }
        // Copies name nothing, though their experiment may have been made since they first came.
        let are_copies = has_spans && !added && other.experiment_by <= ExperimentBy::Spans;
        // What resources name is told by the spans that are in: `other` may say it by a copy of one that named
        // nothing when it first came.
        let word = match other.experiment_by {
            ExperimentBy::Client => ExperimentBy::Spans,
            ExperimentBy::Spans | ExperimentBy::Request => ExperimentBy::Request,
            ExperimentBy::Nobody => ExperimentBy::Nobody,
        };
        let is_weaker = row.experiment_by < word;
        if (is_weaker && !are_copies) || row.experiment_id.is_none() {
            row.experiment_id = other.experiment_id.or(row.experiment_id);
            row.experiment_by = row.experiment_by.max(other.experiment_by);
        }
        row.run_id = row.run_id.or(other.run_id);
        row.created_at_micros = row.created_at_micros.min(other.created_at_micros);
        row.updated_at_micros = row.updated_at_micros.max(other.updated_at_micros);
        row.revision = row.revision.max(other.revision);
    }
    name_experiment(&mut row);
    Some(row)
}

/// Adds spans that arrived after those that are there. Returns true when any was no copy.
fn add_spans(spans: &mut Vec<SpanRecord>, others: Vec<SpanRecord>) -> bool {
    if others.is_empty() {
        return false;
    }
    let mut set = SpanSet::of(std::mem::take(spans));
    let mut changed = false;
    for span in others {
        changed |= set.add(span) != Added::Copy;
    }
    *spans = set.into_spans();
    changed
}

/// Takes in what clients said in `other`. Each `start_trace` counts once, by itself where there are
/// several: those that `row` has are passed over.
fn take_words(row: &mut TraceDraft, other: &TraceDraft) {
    let Some(said) = &other.info else { return };
    let info = row.info.get_or_insert(TraceInfo::new(row.trace_id));
    let archived = info.clone();
    let mut started = None;
    for start in &other.starts {
        // It would undo what calls changed since.
        if !archived.has_untold(&start.info) && info.take_start(&start.info) {
            started = Some(&start.experiment_id);
        }
    }
    let alone = other.starts.is_empty().then(|| said.start_alone());
    if let Some(start) = alone
        && !archived.has_untold(&start)
        && info.take_start(&start)
    {
        started = other.experiment_id.as_ref();
    }
    if other.experiment_by == ExperimentBy::Client && started.is_some() {
        row.experiment_id = started.cloned();
        row.experiment_by = ExperimentBy::Client;
    }
    info.take_calls(said);
    if info.is_empty() {
        row.info = None;
    }
}

/// The experiment that the first span in order names, unless a client said it of the whole trace.
pub(crate) fn name_experiment(trace: &mut TraceDraft) {
    if trace.experiment_by == ExperimentBy::Client
        || trace.spans.iter().all(|span| span.group.experiment_id.is_none())
    {
        return;
    }
    let named = in_order(&trace.spans).into_iter().find_map(|s| s.group.experiment_id.clone());
    trace.experiment_id = named.or(trace.experiment_id.take());
    trace.experiment_by = ExperimentBy::Spans;
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
    if rows == 1 && same_content(&anew, row) {
        return Amended::Unchanged;
    }
    anew.updated_at_micros = now_micros;
    anew.revision = row.revision.saturating_add(1);
    Amended::Row(Box::new(anew))
}

/// True when a row of `merged` would say what `row` says.
fn same_content(merged: &TraceDraft, row: &TraceDraft) -> bool {
    let mut info = merged.info.clone();
    if row.is_finalized()
        && row.info.as_ref().is_some_and(|info| info.starts.is_empty())
        && let Some(info) = &mut info
    {
        // A row of an earlier version does not say which requests it was told by.
        info.starts.clear();
    }
    // A row does not tell nobody's word from that of a request.
    let by = |trace: &TraceDraft| trace.experiment_by.max(ExperimentBy::Request);
    info == row.info
        && merged.experiment_id == row.experiment_id
        && by(merged) == by(row)
        && merged.named_run() == row.named_run()
        && merged.spans.len() == row.spans.len()
        && !add_spans(&mut row.spans.clone(), merged.spans.clone())
}
