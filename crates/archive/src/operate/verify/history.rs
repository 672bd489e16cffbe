//! What others did to the rows of a table: why something that was acknowledged may be gone.
//!
//! The table's change data feed says what a row was before another writer deleted or replaced it.
//! Only what was there then is excused; what it does not reach back to is not known.

use std::collections::{HashMap, HashSet};

use tracelake_decode::Fingerprinter;
use tracelake_lake::{ChangedVersion, FeedReach, LakeError, RowChange, TableSnapshot, TraceDraft};
use tracelake_model::TraceId;

use super::acknowledged::Acknowledged;
use super::changes::unmet;
use super::judge::{Excused, Judgement};

const MILLIS_PER_HOUR: i64 = 3_600_000;

/// Goes back through the changes that a table had to the traces that are not as they should be, and
/// excuses what others did. The names of our own commits contain `own`. Returns how far the changes reach.
///
/// # Errors
/// [`LakeError`] when the changes cannot be read.
pub(super) fn excuse_others(
    snapshot: &TableSnapshot,
    own: &str,
    acknowledged: &Acknowledged,
    judged: &Judgement,
    excused: &mut Excused,
) -> Result<FeedReach, LakeError> {
    let suspects: HashSet<TraceId> =
        judged.traces.iter().filter_map(|line| TraceId::parse(&line.trace_id)).collect();
    let wanted = |trace: TraceId| suspects.contains(&trace);
    snapshot.for_each_change(&wanted, &mut |by, change, row| {
        if is_other(by, own) {
            take(acknowledged, excused, change, &row);
        }
    })
}

/// Notes the traces that are not as they should be and came before the changes that are known, and
/// what clients changed of them before.
pub(super) fn excuse_unknown(
    reach: FeedReach,
    acknowledged: &Acknowledged,
    judged: &Judgement,
    excused: &mut Excused,
) {
    if reach.from_version == 0 {
        return;
    }
    for line in &judged.traces {
        let Some(trace) = TraceId::parse(&line.trace_id) else { continue };
        let Some(number) = acknowledged.number(trace) else { continue };
        if is_before(acknowledged, number, reach) {
            excused.unknown.insert(trace);
        }
        let changes = u32::try_from(number).ok().and_then(|at| acknowledged.changes.get(&at));
        let old = changes.into_iter().flatten().filter(|(_, change)| {
            let known = acknowledged.cells.get(change.cell as usize);
            known.is_some_and(|known| is_old(known.cell.hour, reach))
        });
        let old = old.map(|(subject, _)| *subject);
        excused.unknown_changes.entry(trace).or_default().extend(old);
    }
}

/// True for a version that neither this archiver nor upkeep made.
fn is_other(by: &ChangedVersion, own: &str) -> bool {
    let is_own = |application: &String| application.contains(own);
    !by.is_upkeep && !by.applications.iter().any(is_own)
}

/// Takes in a row that another writer deleted or replaced, as it was before.
fn take(acknowledged: &Acknowledged, excused: &mut Excused, change: RowChange, row: &TraceDraft) {
    let Some(trace) = acknowledged.number(row.trace_id) else { return };
    if let Ok(number) = u32::try_from(trace)
        && let Some(changes) = acknowledged.changes.get(&number)
        && row.part.is_none()
    {
        let not_shown = unmet(changes, row);
        let shown = changes.keys().filter(|subject| !not_shown.contains(subject));
        excused.overridden.entry(row.trace_id).or_default().extend(shown);
    }
    if change != RowChange::Deleted {
        return;
    }
    excused.deleted_rows.insert(row.trace_id);
    let range = acknowledged.range(trace);
    let spans = acknowledged.spans.get(range.clone()).unwrap_or_default();
    let places: HashMap<u64, usize> =
        spans.iter().map(|span| span.fingerprint).zip(range).collect();
    let mut fingerprinter = Fingerprinter::default();
    let fingerprints = row.spans.iter().map(|span| fingerprinter.span(span).0);
    excused.deleted_spans.extend(fingerprints.filter_map(|one| places.get(&one).copied()));
}

/// Whether all that came of a trace came before the changes that are known.
fn is_before(acknowledged: &Acknowledged, trace: usize, reach: FeedReach) -> bool {
    let hour = |cell: usize| acknowledged.cells.get(cell).map(|known| known.cell.hour);
    let spans = acknowledged.spans.get(acknowledged.range(trace)).unwrap_or_default();
    let started = acknowledged.started.get(trace).copied().flatten();
    let cells = spans.iter().map(|span| span.cell()).chain(started.map(|cell| cell as usize));
    cells.filter_map(hour).max().is_none_or(|newest| is_old(newest, reach))
}

/// Whether an hour of arrival is not after the first change that is known.
fn is_old(hour: u64, reach: FeedReach) -> bool {
    let since = reach.since_unix_milli.map(|since| since.div_euclid(MILLIS_PER_HOUR));
    since.is_none_or(|since| i64::try_from(hour).unwrap_or(i64::MAX) <= since)
}
