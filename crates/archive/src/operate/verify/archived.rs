//! What a table holds of the traces that were acknowledged, read row by row.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use tracelake_decode::Fingerprinter;
use tracelake_lake::{LakeError, LiveFile, TableSnapshot, TraceDraft};
use tracelake_model::TraceId;
use tracelake_pipeline::ledger::Subject;

use super::acknowledged::Acknowledged;
use super::changes::unmet;
use super::report::Figures;

const MICROS_PER_HOUR: i64 = 3_600_000_000;

/// What was found of each trace and span of an [`Acknowledged`], by their places there.
#[derive(Debug)]
pub(super) struct Archived {
    /// Rows of each trace.
    pub(super) rows: Vec<u8>,
    /// How often each span is there.
    pub(super) found: Vec<u8>,
    /// Spans of known traces that were not acknowledged.
    pub(super) others: HashMap<usize, Vec<u64>>,
    /// Changes of clients that no row of their trace shows.
    pub(super) unmet: HashMap<usize, Vec<Subject>>,
    /// Traces that were not acknowledged, each once a row.
    pub(super) unknown: Vec<TraceId>,
    /// Files and rows that cannot be read, and why.
    pub(super) unreadable: Vec<String>,
    /// All rows by the hour in which they were first archived.
    pub(super) by_hour: BTreeMap<i64, CreatedHour>,
}

/// Rows that were first archived in one hour.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CreatedHour {
    pub(super) all: Figures,
    /// Of these, those that were written after the time asked for.
    pub(super) changed: u64,
    /// Traces of it that were first archived after the manifest was made.
    pub(super) later: u64,
}

/// What to read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reading {
    /// Also rows of traces that were not acknowledged.
    pub(super) whole: bool,
    /// Count the rows that were written after this.
    pub(super) changed_since_micros: Option<i64>,
}

impl Archived {
    /// Nothing found yet.
    pub(super) fn new(acknowledged: &Acknowledged) -> Self {
        Self {
            rows: vec![0; acknowledged.ids.len()],
            found: vec![0; acknowledged.spans.len()],
            others: HashMap::new(),
            unmet: HashMap::new(),
            unknown: Vec::new(),
            unreadable: Vec::new(),
            by_hour: BTreeMap::new(),
        }
    }

    /// Reads every row of a version that is to be read, on all processors.
    ///
    /// # Errors
    /// [`LakeError`] when the log cannot be read; files that cannot be read are in the result.
    pub(super) fn read(
        acknowledged: &Acknowledged,
        snapshot: &TableSnapshot,
        reading: Reading,
    ) -> Result<Self, LakeError> {
        let archived = Mutex::new(Self::new(acknowledged));
        let files = snapshot.live_files((None, None))?;
        let visit = |file: &LiveFile| {
            let lock = || archived.lock().unwrap_or_else(PoisonError::into_inner);
            let wanted = |trace: Option<TraceId>, is_part: bool| {
                let is_known = trace.is_some_and(|trace| acknowledged.number(trace).is_some());
                if !is_known && !is_part {
                    lock().unknown.extend(trace);
                }
                is_known || reading.whole
            };
            let read = snapshot.for_each_row(file, &wanted, &mut |row| match row {
                Ok(draft) => {
                    let fingerprints = fingerprints(&draft);
                    lock().take(acknowledged, &draft, &fingerprints, reading);
                }
                Err(reason) => {
                    lock().unreadable.push(format!("a row of `{}`: {reason}", file.path));
                }
            });
            if let Err(error) = read {
                lock().unreadable.push(error.to_string());
            }
        };
        for_each_file(&files, &visit);
        Ok(archived.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn take(
        &mut self,
        acknowledged: &Acknowledged,
        draft: &TraceDraft,
        fingerprints: &[u64],
        reading: Reading,
    ) {
        let hour = self.by_hour.entry(draft.created_at_micros.div_euclid(MICROS_PER_HOUR));
        let hour = hour.or_default();
        hour.all.traces += u64::from(draft.part.is_none());
        fingerprints.iter().for_each(|fingerprint| hour.all.add(*fingerprint));
        let is_changed = |since: i64| since < draft.updated_at_micros;
        let is_head = draft.part.is_none();
        hour.changed += u64::from(is_head && reading.changed_since_micros.is_some_and(is_changed));
        let is_later = |since: i64| draft.part.is_none() && since < draft.created_at_micros;
        hour.later += u64::from(reading.changed_since_micros.is_some_and(is_later));
        if draft.part.is_none() {
            self.take_changes(acknowledged, draft);
        }
        self.take_row(acknowledged, (draft.trace_id, draft.part.is_some()), fingerprints);
    }

    /// Takes in what a row says beside its spans.
    pub(super) fn take_changes(&mut self, acknowledged: &Acknowledged, draft: &TraceDraft) {
        let Some(trace) = acknowledged.number(draft.trace_id) else { return };
        let number = u32::try_from(trace).ok();
        let Some(changes) = number.and_then(|number| acknowledged.changes.get(&number)) else {
            return;
        };
        let unmet = unmet(changes, draft);
        match self.unmet.entry(trace) {
            Entry::Occupied(mut known) => known.get_mut().retain(|one| unmet.contains(one)),
            Entry::Vacant(vacant) => {
                vacant.insert(unmet);
            }
        }
    }

    /// Takes in a row by its spans: of a trace, and whether it is a part of it.
    pub(super) fn take_row(
        &mut self,
        acknowledged: &Acknowledged,
        (trace, is_part): (TraceId, bool),
        fingerprints: &[u64],
    ) {
        let Some(trace) = acknowledged.number(trace) else { return };
        if let Some(rows) = self.rows.get_mut(trace).filter(|_| !is_part) {
            *rows = rows.saturating_add(1);
        }
        let range = acknowledged.range(trace);
        let known = acknowledged.spans.get(range.clone()).unwrap_or_default();
        for fingerprint in fingerprints {
            match known.binary_search_by_key(fingerprint, |span| span.fingerprint) {
                Ok(place) => {
                    if let Some(found) = self.found.get_mut(range.start + place) {
                        *found = found.saturating_add(1);
                    }
                }
                Err(_) => self.others.entry(trace).or_default().push(*fingerprint),
            }
        }
    }
}

fn fingerprints(draft: &TraceDraft) -> Vec<u64> {
    let mut fingerprinter = Fingerprinter::default();
    draft.spans.iter().map(|span| fingerprinter.span(span).0).collect()
}

/// Calls `visit` with each file, on as many threads as there are processors.
fn for_each_file(files: &[LiveFile], visit: &(dyn Fn(&LiveFile) + Sync)) {
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            visit(file);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 1..threads.min(files.len()) {
            scope.spawn(work);
        }
        work();
    });
}
