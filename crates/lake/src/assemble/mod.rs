//! Assembly: spans gather per trace until the trace settles. Pure: time comes in as a number.
//!
//! A trace settles when its root has ended and no span came for [`SettleRules::settle_after`],
//! when its `start_trace` came together with all the spans that it announces, or when nothing came
//! for [`SettleRules::idle_after`]. What comes later is an amendment of its row.

mod open_trace;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tracelake_decode::record::{Route, Start};
use tracelake_decode::request::Unnaming;
use tracelake_decode::{
    CarriedWords, DecodedRecord, RecordContent, RecordHeader, SpanRecord, start_fingerprint,
};
use tracelake_model::trace_info::INFO_FINALIZED;
use tracelake_model::{ExperimentId, TableName, TraceChanges, TraceId};

use crate::rows::{ExperimentBy, LARGE_ROW_BYTES, TraceDraft};
use open_trace::{OpenTrace, complete_assessments};

pub use open_trace::CarriedRecord;

/// When a trace settles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettleRules {
    /// Silence after the root has ended.
    pub settle_after: Duration,
    /// Silence after which a trace without an ended root settles.
    pub idle_after: Duration,
    /// Bytes that open traces may hold; past it some settle early, those with an ended root first.
    pub max_open_bytes: usize,
}

impl Default for SettleRules {
    fn default() -> Self {
        Self {
            settle_after: Duration::from_secs(2),
            idle_after: Duration::from_secs(60),
            max_open_bytes: 48 << 20,
        }
    }
}

/// Bytes of a late piece that are worth an amendment of their own.
pub const LATE_AT_ONCE_BYTES: usize = LARGE_ROW_BYTES / 2;

/// Memory that an open trace takes beside what it holds.
const TRACE_OVERHEAD_BYTES: usize = 1 << 10;

/// Large traces that are remembered, so that what comes of them is known to be late.
const MAX_LARGE: usize = 10_000;

/// What the open traces of tables that can be written come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenStatus {
    /// Some trace would settle now.
    pub settled: bool,
    /// Late pieces wait for an amendment round.
    pub late: bool,
    /// Bytes of late pieces that no table refused.
    pub late_bytes: usize,
    /// Bytes of traces that are not late.
    pub bytes: usize,
}

/// What the open traces of one table come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenTraces {
    /// Their number.
    pub traces: usize,
    /// Of these, late pieces of archived traces.
    pub late: usize,
    /// Bytes that they hold.
    pub bytes: usize,
    /// When the first of them arrived, nanoseconds since the Unix epoch.
    pub oldest_unix_nano: Option<u64>,
}

/// What [`Assembler::settle`] takes out besides what has settled by the rules.
pub struct Take<'a> {
    /// Every trace.
    pub everything: bool,
    /// The late pieces of archived traces.
    pub late: bool,
    /// Tables that can be written now; the others keep their traces.
    pub ready: &'a dyn Fn(&TableName) -> bool,
}

impl std::fmt::Debug for Take<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Take")
            .field("everything", &self.everything)
            .field("late", &self.late)
            .finish_non_exhaustive()
    }
}

/// The traces in the making. A trace is one, whatever tables its pieces came for: so everything
/// that is said of it is applied in the order of arrival.
#[derive(Debug, Default)]
pub struct Assembler {
    open: HashMap<TraceId, OpenTrace>,
    bytes: usize,
    /// Traces whose row is large.
    large: HashSet<TraceId>,
}

impl Assembler {
    /// Takes a record in. What is in already changes nothing, nor when the trace settles.
    pub fn push(&mut self, record: DecodedRecord, now_unix_nano: u64) {
        let DecodedRecord { header, content } = record;
        match content {
            RecordContent::Spans(decoded) => {
                self.push_spans(&header, decoded.spans, now_unix_nano);
            }
            RecordContent::TraceInfo(mut info) => {
                let Some(route) = header.route(None) else { return };
                info.trace_metadata.insert(INFO_FINALIZED.to_owned(), "true".to_owned());
                complete_assessments(&mut info);
                info.starts = [start_fingerprint(&info, &route.experiment_id)].into();
                let start = Start { experiment_id: route.experiment_id.clone(), info: *info };
                let trace_id = start.info.trace_id;
                self.say(trace_id, route, &header, now_unix_nano, |trace| {
                    let is_new = trace.start(start);
                    if is_new {
                        trace.table.clone_from(&route.table);
                    }
                    is_new
                });
            }
            RecordContent::Words(words) => {
                let Some(route) = header.route(None) else { return };
                let CarriedWords { info, starts } = *words;
                self.say(info.trace_id, route, &header, now_unix_nano, |trace| {
                    trace.take_words(&info, starts, Some(&route.experiment_id));
                    true
                });
            }
            RecordContent::Changes(changes) => {
                let Some(route) = header.route(None) else { return };
                for TraceChanges { trace_id, changes } in changes {
                    self.say(trace_id, route, &header, now_unix_nano, |trace| {
                        let change = |changed, change| trace.change(trace_id, change) | changed;
                        changes.into_iter().fold(false, change)
                    });
                }
            }
        }
    }

    /// Changes what is known of a trace beside its spans; `change` says whether it was news.
    fn say(
        &mut self,
        trace_id: TraceId,
        route: &Route,
        header: &RecordHeader,
        now_unix_nano: u64,
        change: impl FnOnce(&mut OpenTrace) -> bool,
    ) {
        let trace = self.trace(trace_id, route, header, now_unix_nano);
        let before = trace.bytes;
        if change(trace) {
            trace.last_seen_unix_nano = now_unix_nano;
        }
        let after = trace.bytes;
        self.bytes = self.bytes - before + after;
    }

    fn push_spans(&mut self, header: &RecordHeader, spans: Vec<SpanRecord>, now_unix_nano: u64) {
        let mut unnaming = Unnaming::default();
        for mut span in spans {
            let trace_id = span.trace_id;
            let named = span.group.experiment_id.as_ref();
            let Some(route) = header.route(named) else { continue };
            if named.is_some_and(|named| *named != route.experiment_id) {
                // The request's stands over it, there is none, or it was not known when the request came.
                unnaming.apply(&mut span);
            }
            let trace = self.trace(trace_id, route, header, now_unix_nano);
            if trace.experiment_by == ExperimentBy::Nobody {
                trace.experiment_id.clone_from(&route.experiment_id);
                trace.experiment_by = ExperimentBy::Request;
            }
            let before = trace.bytes;
            trace.add_span(span, now_unix_nano);
            let after = trace.bytes;
            self.bytes = self.bytes - before + after;
        }
    }

    fn trace(
        &mut self,
        trace_id: TraceId,
        route: &Route,
        header: &RecordHeader,
        now_unix_nano: u64,
    ) -> &mut OpenTrace {
        let late = self.large.contains(&trace_id);
        let trace = self.open.entry(trace_id).or_insert_with(|| {
            let mut trace = OpenTrace::new(route.table.clone(), route.experiment_id.clone());
            trace.first_seen_unix_nano = header.received_at_unix_nano;
            trace.last_seen_unix_nano = now_unix_nano;
            trace.late = late;
            trace
        });
        if trace.run_id.is_none() {
            trace.run_id.clone_from(&header.run_id);
        }
        trace
    }

    /// Counts the silence of every open trace from now on.
    pub fn touch(&mut self, now_unix_nano: u64) {
        for trace in self.open.values_mut() {
            trace.last_seen_unix_nano = now_unix_nano;
        }
    }

    /// Bytes of spans that open traces hold.
    #[must_use]
    pub const fn open_bytes(&self) -> usize {
        self.bytes
    }

    /// Number of open traces.
    #[must_use]
    pub fn open_traces(&self) -> usize {
        self.open.len()
    }

    /// The open traces.
    pub fn open_trace_ids(&self) -> impl Iterator<Item = TraceId> + '_ {
        self.open.keys().copied()
    }

    /// What the open traces of each table come to.
    #[must_use]
    pub fn by_table(&self) -> HashMap<TableName, OpenTraces> {
        let mut tables: HashMap<TableName, OpenTraces> = HashMap::new();
        for trace in self.open.values() {
            let open = tables.entry(trace.table.clone()).or_default();
            open.traces += 1;
            open.late += usize::from(trace.late);
            open.bytes += trace.bytes;
            let first = trace.first_seen_unix_nano;
            if 0 < first && open.oldest_unix_nano.is_none_or(|oldest| first < oldest) {
                open.oldest_unix_nano = Some(first);
            }
        }
        tables
    }

    /// What there is to do for the tables that are `ready`.
    #[must_use]
    pub fn status(
        &self,
        rules: &SettleRules,
        now_unix_nano: u64,
        ready: &dyn Fn(&TableName) -> bool,
    ) -> OpenStatus {
        let mut status = OpenStatus::default();
        for trace in self.open.values().filter(|trace| ready(&trace.table)) {
            if trace.late {
                status.late = true;
                status.late_bytes += if trace.refused { 0 } else { trace.bytes };
                status.settled |= trace.is_late_enough();
            } else {
                status.bytes += trace.bytes;
                status.settled |= trace.settled(rules, now_unix_nano);
            }
        }
        status.settled |= rules.max_open_bytes < status.bytes;
        status
    }

    /// Takes out the traces that have settled, by table. When they are archived is the committer's
    /// to say: both times are zero.
    pub fn settle(
        &mut self,
        rules: &SettleRules,
        now_unix_nano: u64,
        take: &Take<'_>,
    ) -> HashMap<TableName, Vec<TraceDraft>> {
        let mut settled: HashMap<TableName, Vec<TraceDraft>> = HashMap::new();
        let mut bytes = self.bytes;
        let early = self.early_settlers(rules, take.ready);
        self.open.retain(|trace_id, trace| {
            let due = (take.ready)(&trace.table)
                && (take.everything
                    || (trace.late && take.late)
                    || trace.is_late_enough()
                    || (!trace.late && trace.settled(rules, now_unix_nano))
                    || early.contains(trace_id));
            if due {
                bytes -= trace.bytes;
                let draft = trace.take_draft(*trace_id);
                settled.entry(trace.table.clone()).or_default().push(draft);
            }
            !due
        });
        self.bytes = bytes;
        for traces in settled.values_mut() {
            // The same order on every run: replays write the same files.
            traces.sort_unstable_by_key(|trace| trace.trace_id);
        }
        settled
    }

    /// Puts a settled trace back. With `late` it is a piece of an archived trace that waits for the
    /// next amendment round; without, a commit failed and it settles again at once.
    pub fn put_back(&mut self, table: &TableName, draft: TraceDraft, late: bool) {
        let experiment_id =
            draft.experiment_id.clone().unwrap_or_else(ExperimentId::default_experiment);
        let trace = self
            .open
            .entry(draft.trace_id)
            .or_insert_with(|| OpenTrace::new(table.clone(), experiment_id));
        let before = trace.bytes;
        trace.late |= late;
        trace.put_back(table, draft);
        let after = trace.bytes;
        self.bytes = self.bytes - before + after;
    }

    /// Puts back a late piece that its table refused: it waits for the next amendment round, and brings no
    /// epoch about before.
    pub fn put_back_refused(&mut self, table: &TableName, draft: TraceDraft) {
        let trace_id = draft.trace_id;
        self.put_back(table, draft, true);
        if let Some(trace) = self.open.get_mut(&trace_id) {
            trace.refused = true;
        }
    }

    /// Memory that an open trace takes.
    #[must_use]
    pub fn bytes_of(&self, trace_id: TraceId) -> usize {
        self.open.get(&trace_id).map_or(0, |trace| trace.bytes + TRACE_OVERHEAD_BYTES)
    }

    /// Memory that late pieces take which tables refused.
    #[must_use]
    pub fn refused_bytes(&self) -> usize {
        let refused = self.open.values().filter(|trace| trace.refused);
        refused.map(|trace| trace.bytes + TRACE_OVERHEAD_BYTES).sum()
    }

    /// Notes that the trace has a large row: what comes of it is late, and is not held until it is silent.
    pub fn note_large(&mut self, trace_id: TraceId) {
        if self.large.len() < MAX_LARGE {
            self.large.insert(trace_id);
        }
    }

    /// Bytes of late pieces that no table refused.
    #[must_use]
    pub fn late_bytes(&self) -> usize {
        let late = self.open.values().filter(|trace| trace.late && !trace.refused);
        late.map(|trace| trace.bytes).sum()
    }

    /// Takes out these traces, as they are.
    pub fn take_out(&mut self, traces: &[TraceId]) -> Vec<TraceDraft> {
        let mut taken = Vec::new();
        for trace_id in traces {
            if let Some(mut trace) = self.open.remove(trace_id) {
                self.bytes -= trace.bytes;
                taken.push(trace.take_draft(*trace_id));
            }
        }
        taken
    }

    /// Past the memory bound: the traces whose root has ended, the ones silent longest first, until the rest
    /// fits in a quarter; if these are too few, the others as well, until it fits in half. What stays open is
    /// carried over, byte by byte, so little should stay; but a trace that goes on costs an amendment.
    fn early_settlers(
        &self,
        rules: &SettleRules,
        ready: &dyn Fn(&TableName) -> bool,
    ) -> HashSet<TraceId> {
        let mut early = HashSet::new();
        let mut oldest: Vec<_> =
            self.open.iter().filter(|(_, trace)| !trace.late && ready(&trace.table)).collect();
        let mut bytes: usize = oldest.iter().map(|(_, trace)| trace.bytes).sum();
        if bytes <= rules.max_open_bytes {
            return early;
        }
        oldest.sort_unstable_by_key(|(_, trace)| (!trace.has_ended(), trace.last_seen_unix_nano));
        for (trace_id, trace) in oldest {
            let enough = if trace.has_ended() { 4 } else { 2 };
            if bytes <= rules.max_open_bytes / enough {
                break;
            }
            bytes -= trace.bytes;
            early.insert(*trace_id);
        }
        early
    }

    /// The table of that name that has open traces; SQL does not regard case.
    #[must_use]
    pub fn table_named(&self, name: &TableName) -> Option<TableName> {
        let name = name.to_string();
        let mut tables = self.open.values().map(|trace| &trace.table);
        tables.find(|table| table.to_string().eq_ignore_ascii_case(&name)).cloned()
    }

    /// What is open of `traces` as it is now, and the table it is open for, without taking it out.
    #[must_use]
    pub fn pieces(&self, traces: &HashSet<TraceId>) -> HashMap<TraceId, (TableName, TraceDraft)> {
        let piece = |trace_id: &TraceId| {
            let trace = self.open.get(trace_id)?;
            Some((*trace_id, (trace.table.clone(), trace.draft(*trace_id))))
        };
        traces.iter().filter_map(piece).collect()
    }

    /// The open traces of one table as they are now, without taking them out.
    #[must_use]
    pub fn peek(&self, table: &TableName) -> Vec<TraceDraft> {
        self.open
            .iter()
            .filter(|(_, trace)| trace.table == *table)
            .map(|(trace_id, trace)| trace.draft(*trace_id))
            .collect()
    }

    /// Every open trace as records that [`Assembler::push`] takes in again: what is carried over
    /// when the segment that holds the originals is deleted. In the same order on every run.
    pub fn carry(&self) -> impl Iterator<Item = CarriedRecord> + '_ {
        let mut open: Vec<(&TraceId, &OpenTrace)> = self.open.iter().collect();
        open.sort_unstable_by_key(|(trace_id, _)| **trace_id);
        open.into_iter().flat_map(|(trace_id, trace)| trace.carry(*trace_id))
    }

    /// What is open of some traces, as [`Self::carry`], in their order.
    pub fn carry_of<'a>(
        &'a self,
        traces: &'a [TraceId],
    ) -> impl Iterator<Item = CarriedRecord> + 'a {
        let open = traces.iter().filter_map(|trace_id| Some((trace_id, self.open.get(trace_id)?)));
        open.flat_map(|(trace_id, trace)| trace.carry(*trace_id))
    }
}

#[cfg(test)]
mod tests;
