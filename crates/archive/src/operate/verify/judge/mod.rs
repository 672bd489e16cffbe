//! Judges trace by trace, and sums up by hour and way in. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use tracelake_decode::Fingerprint;
use tracelake_model::TraceId;
use tracelake_pipeline::ledger::{Subject, Way};

use super::acknowledged::{Acknowledged, AcknowledgedSpan};
use super::archived::Archived;
use super::changes::result_of;
use super::report::{HourLine, TraceLine, hour_text};

/// What of a trace is not in its own table and yet not missing.
#[derive(Debug, Default)]
pub(super) struct Excused {
    /// Traces that are not wholly in their table yet.
    pub(super) open: HashSet<TraceId>,
    /// Spans, by their place, that another table has.
    pub(super) elsewhere: HashSet<usize>,
    /// Traces that have a row in another table.
    pub(super) rows_elsewhere: HashSet<TraceId>,
    /// Changes of clients that the row in another table does not show.
    pub(super) unmet_elsewhere: HashMap<TraceId, Vec<Subject>>,
    /// Spans, by their place, that were in a row that another writer deleted.
    pub(super) deleted_spans: HashSet<usize>,
    /// Traces of which another writer deleted a row.
    pub(super) deleted_rows: HashSet<TraceId>,
    /// Changes of clients that a row showed until another writer replaced or deleted it.
    pub(super) overridden: HashMap<TraceId, HashSet<Subject>>,
    /// Traces that came before the first change of the table that is known: what of them is not
    /// there may have been deleted, by whom is not known.
    pub(super) unknown: HashSet<TraceId>,
    /// Changes of clients that came before it: another writer may have changed the same since.
    pub(super) unknown_changes: HashMap<TraceId, HashSet<Subject>>,
}

/// The outcome, but for what is about the table as a whole.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    pub(super) hours: Vec<HourLine>,
    pub(super) traces: Vec<TraceLine>,
    /// Spans of acknowledged traces that came from elsewhere.
    pub(super) others: u64,
    /// Changes of clients that another writer changed since.
    pub(super) overridden: u64,
    /// Changes of clients that rows do not show, and by whom they were changed is not known.
    pub(super) unknown_changes: u64,
}

/// What became of one span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Archived,
    Doubled,
    Altered(u64),
    Missing,
    Replaced,
    Elsewhere,
    Open,
    /// Another writer deleted its row.
    DeletedByOthers,
    /// Not there, and whether it was deleted is not known.
    Gone,
    Deleted,
    /// Deleted, and there.
    Undeleted,
}

/// Hour of arrival and way in.
type Line = (u64, Way);

#[derive(Debug, Default)]
struct Summing {
    line: HourLine,
    results: BTreeMap<&'static str, ()>,
}

/// Compares what was acknowledged with what was found.
pub(super) fn judge(
    acknowledged: &Acknowledged,
    archived: &Archived,
    excused: &Excused,
) -> Judgement {
    let mut judgement = Judgement::default();
    let mut lines: BTreeMap<Line, Summing> = BTreeMap::new();
    for known in acknowledged.cells.iter().filter(|known| known.in_scope) {
        if known.cell.way != Way::Changes {
            let summing = lines.entry((known.cell.hour, known.cell.way)).or_default();
            summing.line.copies += known.sent;
        }
    }
    for trace in 0..acknowledged.ids.len() {
        let fates = fates(acknowledged, archived, excused, trace);
        judgement.others += fates.others;
        judgement.overridden += fates.overridden;
        judgement.unknown_changes += fates.unknown_changes;
        judgement.traces.extend(trace_lines(acknowledged, archived, trace, &fates));
        sum_up(acknowledged, archived, trace, &fates, &mut lines);
    }
    judgement.traces.sort_by(|left, right| {
        (&left.hour, &left.trace_id, &left.result).cmp(&(
            &right.hour,
            &right.trace_id,
            &right.result,
        ))
    });
    judgement.hours = lines.into_iter().map(|(line, summing)| finish(line, summing)).collect();
    judgement
}

/// What became of a trace.
#[derive(Debug)]
struct Fates {
    /// Of each of its spans.
    spans: Vec<Fate>,
    /// Its `start_trace` came, and there is no row.
    lost_start: bool,
    /// There is no row, and whether another writer deleted it is not known.
    is_gone: bool,
    /// Changes of clients that its row does not show.
    unmet: Vec<Subject>,
    /// Those that it showed until another writer changed it.
    overridden: u64,
    /// Those that another writer may have changed, which is not known.
    unknown_changes: u64,
    /// Spans from elsewhere.
    others: u64,
}

fn fates(
    acknowledged: &Acknowledged,
    archived: &Archived,
    excused: &Excused,
    trace: usize,
) -> Fates {
    let range = acknowledged.range(trace);
    let spans = acknowledged.spans.get(range.clone()).unwrap_or_default();
    let found = archived.found.get(range.clone()).unwrap_or_default();
    let is_open = acknowledged.ids.get(trace).is_some_and(|id| excused.open.contains(id));
    let mut others = archived.others.get(&trace).cloned().unwrap_or_default();
    let is_mlflow = |span: &AcknowledgedSpan| {
        acknowledged
            .cells
            .get(span.cell())
            .is_some_and(|known| known.cell.way == Way::MlflowTracesJson)
    };
    let richer = |span: &AcknowledgedSpan| {
        is_mlflow(span)
            && spans.iter().any(|other| {
                !is_mlflow(other) && !other.is_deleted() && is_same_span(other, span.fingerprint)
            })
    };
    let mut fates: Vec<Fate> = spans
        .iter()
        .zip(found)
        .enumerate()
        .map(|(place, (span, found))| match (span.is_deleted(), *found) {
            (true, 0) => Fate::Deleted,
            (true, _) if is_open => Fate::Deleted,
            (true, _) => Fate::Undeleted,
            (false, 1) => Fate::Archived,
            (false, 2..) => Fate::Doubled,
            (false, 0) if richer(span) => Fate::Replaced,
            (false, 0) if excused.elsewhere.contains(&(range.start + place)) => Fate::Elsewhere,
            (false, 0) if is_open => Fate::Open,
            (false, 0) if excused.deleted_spans.contains(&(range.start + place)) => {
                Fate::DeletedByOthers
            }
            (false, 0) => Fate::Missing,
        })
        .collect();
    find_altered(&mut fates, spans, &mut others);
    let started = acknowledged.started.get(trace).copied().flatten().is_some();
    let rows = archived.rows.get(trace).copied().unwrap_or_default();
    let id = acknowledged.ids.get(trace);
    let in_set = |set: &HashSet<TraceId>| id.is_some_and(|id| set.contains(id));
    let is_elsewhere = in_set(&excused.rows_elsewhere) || in_set(&excused.deleted_rows);
    let lost_start = started && rows == 0 && !is_open && !is_elsewhere;
    let is_gone = rows == 0 && in_set(&excused.unknown);
    if is_gone {
        fates.iter_mut().filter(|fate| **fate == Fate::Missing).for_each(|fate| *fate = Fate::Gone);
    }
    let unmet = match id {
        _ if is_open => None,
        Some(id) if rows == 0 => excused.unmet_elsewhere.get(id),
        _ => archived.unmet.get(&trace),
    };
    let is_in = |known: &HashMap<TraceId, HashSet<Subject>>, subject: &Subject| {
        id.and_then(|id| known.get(id)).is_some_and(|known| known.contains(subject))
    };
    let (overridden, unmet): (Vec<Subject>, Vec<Subject>) = unmet
        .into_iter()
        .flatten()
        .copied()
        .partition(|subject| is_in(&excused.overridden, subject));
    let (unknown_changes, unmet): (Vec<Subject>, Vec<Subject>) =
        unmet.into_iter().partition(|subject| is_in(&excused.unknown_changes, subject));
    Fates {
        spans: fates,
        lost_start,
        is_gone,
        unmet,
        overridden: overridden.len() as u64,
        unknown_changes: unknown_changes.len() as u64,
        others: others.len() as u64,
    }
}

/// Finds spans that are there with other content: first by what they are, then one for another.
fn find_altered(fates: &mut [Fate], spans: &[AcknowledgedSpan], others: &mut Vec<u64>) {
    for by_identity in [true, false] {
        for (fate, span) in fates.iter_mut().zip(spans).filter(|(fate, _)| **fate == Fate::Missing)
        {
            let same = |other: &u64| !by_identity || is_same_span(span, *other);
            if let Some(place) = others.iter().position(same) {
                *fate = Fate::Altered(others.swap_remove(place));
            }
        }
    }
}

fn is_same_span(span: &AcknowledgedSpan, other: u64) -> bool {
    Fingerprint(span.fingerprint).is_same_span(Fingerprint(other))
}

/// What is wrong with a trace, one line for each kind.
fn trace_lines(
    acknowledged: &Acknowledged,
    archived: &Archived,
    trace: usize,
    fates: &Fates,
) -> Vec<TraceLine> {
    let range = acknowledged.range(trace);
    let spans = acknowledged.spans.get(range).unwrap_or_default();
    let rows = archived.rows.get(trace).copied().unwrap_or_default();
    let stands = |fate: &&Fate| {
        !matches!(fate, Fate::Deleted | Fate::Undeleted | Fate::Replaced | Fate::DeletedByOthers)
    };
    let of_spans = fates.spans.iter().filter(stands).count() as u64;
    let mut lines: BTreeMap<&'static str, (u64, Option<usize>)> = BTreeMap::new();
    for (fate, span) in fates.spans.iter().zip(spans) {
        let Some(result) = fault_of(*fate) else { continue };
        let (count, cell) = lines.entry(result).or_default();
        *count += 1;
        let hour = |cell: &usize| acknowledged.cells.get(*cell).map(|known| known.cell.hour);
        *cell = [*cell, Some(span.cell())].into_iter().flatten().min_by_key(hour);
    }
    let started = acknowledged.started.get(trace).copied().flatten();
    let started = started.map(|cell| cell as usize);
    if fates.lost_start {
        let result = if fates.is_gone { "gone" } else { "missing" };
        lines.entry(result).or_insert((0, started));
    }
    let mut changes: BTreeMap<&'static str, u64> = BTreeMap::new();
    for subject in &fates.unmet {
        let result = result_of(*subject);
        *changes.entry(result).or_default() += 1;
        let known = u32::try_from(trace).ok().and_then(|trace| acknowledged.changes.get(&trace));
        let cell = known.and_then(|known| known.get(subject)).map(|change| change.cell as usize);
        lines.entry(result).or_insert((0, cell));
    }
    if 1 < rows && !lines.contains_key("doubled") {
        let first = spans.first().map(|span| span.cell()).or(started);
        lines.insert("doubled", (0, first));
    }
    let trace_id = acknowledged.ids.get(trace).map(|id| id.to_mlflow()).unwrap_or_default();
    let line = |(result, (spans, cell)): (&'static str, (u64, Option<usize>))| {
        let cell = cell.and_then(|cell| acknowledged.cells.get(cell)).map(|known| &known.cell);
        TraceLine {
            trace_id: trace_id.clone(),
            result: result.to_owned(),
            spans,
            changes: changes.get(result).copied().unwrap_or_default(),
            of_spans,
            rows: u64::from(rows),
            hour: cell.map(|cell| line_hour(cell.hour)).unwrap_or_default(),
            way_in: cell.map(|cell| cell.way.as_str().to_owned()).unwrap_or_default(),
        }
    };
    lines.into_iter().map(line).collect()
}

const fn fault_of(fate: Fate) -> Option<&'static str> {
    match fate {
        Fate::Missing => Some("missing"),
        Fate::Doubled => Some("doubled"),
        Fate::Altered(_) => Some("altered"),
        Fate::Undeleted => Some("deleted"),
        Fate::Gone => Some("gone"),
        Fate::Archived
        | Fate::Replaced
        | Fate::Elsewhere
        | Fate::Open
        | Fate::DeletedByOthers
        | Fate::Deleted => None,
    }
}

fn sum_up(
    acknowledged: &Acknowledged,
    archived: &Archived,
    trace: usize,
    fates: &Fates,
    lines: &mut BTreeMap<Line, Summing>,
) {
    let range = acknowledged.range(trace);
    let spans = acknowledged.spans.get(range.clone()).unwrap_or_default();
    let found = archived.found.get(range).unwrap_or_default();
    let has_row = 0 < archived.rows.get(trace).copied().unwrap_or_default();
    let line_of = |cell: usize| {
        let known = acknowledged.cells.get(cell).filter(|known| known.in_scope)?;
        Some((known.cell.hour, known.cell.way))
    };
    // Lines with spans of this trace that should be there, and whether one of them is.
    let mut touched: BTreeMap<Line, bool> = BTreeMap::new();
    for ((fate, span), found) in fates.spans.iter().zip(spans).zip(found) {
        let Some(line) = line_of(span.cell()) else { continue };
        let Summing { line: sums, results } = lines.entry(line).or_default();
        results.extend(fault_of(*fate).map(|fault| (fault, ())));
        // What is left of `sent` when each different span is taken off.
        sums.copies = sums.copies.saturating_sub(1);
        match fate {
            Fate::Replaced => sums.replaced += 1,
            Fate::Elsewhere => sums.elsewhere += 1,
            Fate::Open => sums.open += 1,
            Fate::Deleted => sums.deleted += 1,
            Fate::DeletedByOthers => sums.deleted_by_others += 1,
            Fate::Undeleted => {
                sums.deleted += 1;
                (0..*found).for_each(|_| sums.archived.add(span.fingerprint));
            }
            Fate::Archived | Fate::Doubled | Fate::Altered(_) | Fate::Missing | Fate::Gone => {
                sums.acknowledged.add(span.fingerprint);
                (0..*found).for_each(|_| sums.archived.add(span.fingerprint));
                if let Fate::Altered(other) = fate {
                    sums.archived.add(*other);
                }
                *touched.entry(line).or_default() |= !matches!(fate, Fate::Missing | Fate::Gone);
            }
        }
    }
    let started = acknowledged.started.get(trace).copied().flatten();
    if let Some(line) = started.and_then(|cell| line_of(cell as usize))
        && (has_row || fates.lost_start)
    {
        *touched.entry(line).or_default() |= has_row;
        if fates.lost_start {
            let result = if fates.is_gone { "gone" } else { "missing" };
            lines.entry(line).or_default().results.insert(result, ());
        }
    }
    for (line, is_there) in touched {
        let Summing { line: sums, results } = lines.entry(line).or_default();
        sums.acknowledged.traces += 1;
        if is_there {
            sums.archived.traces +=
                u64::from(archived.rows.get(trace).copied().unwrap_or(1).max(1));
        }
        if 1 < archived.rows.get(trace).copied().unwrap_or_default() {
            results.insert("doubled", ());
        }
    }
}

fn finish((hour, way): Line, Summing { mut line, results }: Summing) -> HourLine {
    line.hour = line_hour(hour);
    way.as_str().clone_into(&mut line.way_in);
    line.result = if !results.is_empty() {
        results.into_keys().collect::<Vec<_>>().join(", ")
    } else if 0 < line.open {
        "open".to_owned()
    } else {
        "ok".to_owned()
    };
    line
}

fn line_hour(hour: u64) -> String {
    hour_text(i64::try_from(hour).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
