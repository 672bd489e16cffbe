//! A trace in the making.

use std::sync::Arc;
use std::time::Duration;

use tracelake_decode::record::{Route, Start};
use tracelake_decode::request::encode_request;
use tracelake_decode::{
    CarriedWords, ContentEncoding, RecordHeader, RecordKind, SpanGroup, SpanRecord, changes_body,
    words_body,
};
use tracelake_model::{
    ExperimentId, Limits, TableName, TraceChange, TraceChanges, TraceId, TraceInfo,
};

use super::{LATE_AT_ONCE_BYTES, SettleRules};
use crate::commit::merge::name_experiment;
use crate::commit::span_set::{Added, SpanSet};
use crate::rows::parts::{MAX_ROW_BYTES, MAX_ROW_SPANS};
use crate::rows::{ExperimentBy, TraceDraft};

/// A record of the journal that carries an unsettled trace over: header and payload.
pub type CarriedRecord = (RecordHeader, Vec<u8>);

/// Memory that a span takes beside its bytes.
const SPAN_OVERHEAD_BYTES: usize = 128;

/// A trace in the making, or a late piece of an archived one.
#[derive(Debug)]
pub(super) struct OpenTrace {
    /// The table that it is open for.
    pub(super) table: TableName,
    pub(super) experiment_id: ExperimentId,
    pub(super) experiment_by: ExperimentBy,
    pub(super) run_id: Option<String>,
    info: Option<TraceInfo>,
    /// The `start_trace` requests in `info`, when there are several.
    starts: Vec<Start>,
    spans: SpanSet,
    root_ended: bool,
    pub(super) first_seen_unix_nano: u64,
    pub(super) last_seen_unix_nano: u64,
    pub(super) bytes: usize,
    /// A late piece of a trace that has a row: waits for the next amendment round.
    pub(super) late: bool,
    /// Its table does not take such pieces: it waits for each round, however much it is.
    pub(super) refused: bool,
    /// The trace was deleted; all that is here came after that.
    replaces: bool,
}

impl OpenTrace {
    pub(super) fn new(table: TableName, experiment_id: ExperimentId) -> Self {
        Self {
            table,
            experiment_id,
            experiment_by: ExperimentBy::Nobody,
            run_id: None,
            info: None,
            starts: Vec::new(),
            spans: SpanSet::default(),
            root_ended: false,
            first_seen_unix_nano: 0,
            last_seen_unix_nano: 0,
            bytes: 0,
            late: false,
            refused: false,
            replaces: false,
        }
    }

    /// Adds a span. A copy changes nothing, and is no sign that the trace goes on.
    pub(super) fn add_span(&mut self, span: SpanRecord, now_unix_nano: u64) {
        let bytes = span.weight_bytes() + SPAN_OVERHEAD_BYTES;
        let root_ended = span.parent.is_none() && span.end_time_unix_nano != 0;
        match self.spans.add(span) {
            Added::New => {}
            Added::Richer { bytes: poorer, spans } => {
                self.bytes -= poorer + spans * SPAN_OVERHEAD_BYTES;
            }
            Added::Copy => return,
        }
        self.bytes += bytes;
        self.root_ended |= root_ended;
        self.last_seen_unix_nano = now_unix_nano;
    }

    /// Changes what clients said, and the memory it takes. Returns true when it changed.
    fn change_info(&mut self, change: impl FnOnce(&mut Option<TraceInfo>) -> bool) -> bool {
        self.bytes -= self.info.as_ref().map_or(0, TraceInfo::weight_bytes);
        let changed = change(&mut self.info);
        self.bytes += self.info.as_ref().map_or(0, TraceInfo::weight_bytes);
        changed
    }

    /// Takes in a `start_trace`. Returns false when it is in already.
    pub(super) fn start(&mut self, start: Start) -> bool {
        let known = self.info.as_ref().map_or(0, |info| info.starts.len());
        // Each is kept by itself from the second on: a row may have some of them.
        let first = self.info.as_ref().filter(|_| known == 1 && self.starts.is_empty());
        let first = first.map(|info| Start {
            experiment_id: self.experiment_id.clone(),
            info: info.start_alone(),
        });
        let trace_id = start.info.trace_id;
        if !self.change_info(|info| {
            info.get_or_insert(TraceInfo::new(trace_id)).take_start(&start.info)
        }) {
            return false;
        }
        self.experiment_id.clone_from(&start.experiment_id);
        self.experiment_by = ExperimentBy::Client;
        let apart = first.into_iter().chain((0 < known).then_some(start));
        for start in apart {
            self.bytes += start.info.weight_bytes();
            self.starts.push(start);
        }
        true
    }

    /// Takes in all that clients said later: `starts` are the `start_trace` requests in `info` when
    /// there are several. `experiment_id` is that of the only one.
    pub(super) fn take_words(
        &mut self,
        info: &TraceInfo,
        starts: Vec<Start>,
        experiment_id: Option<&ExperimentId>,
    ) {
        if starts.is_empty() && (info.is_finalized() || !info.starts.is_empty()) {
            let experiment_id = experiment_id.unwrap_or(&self.experiment_id).clone();
            self.start(Start { experiment_id, info: info.start_alone() });
        }
        for start in starts {
            self.start(start);
        }
        self.change_info(|known| {
            known.get_or_insert(TraceInfo::new(info.trace_id)).take_calls(info);
            if known.as_ref().is_some_and(TraceInfo::is_empty) {
                *known = None;
            }
            true
        });
    }

    /// Takes in a change. Returns false when it is in already.
    pub(super) fn change(&mut self, trace_id: TraceId, change: TraceChange) -> bool {
        if change == TraceChange::Delete {
            let anew = Self::new(self.table.clone(), self.experiment_id.clone());
            let Self { first_seen_unix_nano, last_seen_unix_nano, late, .. } = *self;
            *self = Self { first_seen_unix_nano, last_seen_unix_nano, late, ..anew };
            self.replaces = true;
            return true;
        }
        self.change_info(|info| {
            let before = info.clone();
            change.apply(info.get_or_insert(TraceInfo::new(trace_id)));
            *info != before
        })
    }

    /// Takes back what had settled for `table`: it is older than what is here.
    pub(super) fn put_back(&mut self, table: &TableName, draft: TraceDraft) {
        if self.replaces {
            // Deleted since.
            return;
        }
        let anew = Self::new(self.table.clone(), self.experiment_id.clone());
        let younger = std::mem::replace(self, anew);
        self.first_seen_unix_nano = younger.first_seen_unix_nano;
        self.last_seen_unix_nano = younger.last_seen_unix_nano;
        self.late = younger.late;
        self.replaces = draft.replaces;
        self.run_id = draft.run_id.or(younger.run_id);
        let by = draft.experiment_by;
        // The word of the first request, unless there was none.
        let (experiment, by) = match draft.experiment_id {
            Some(experiment) if by != ExperimentBy::Nobody => (experiment, by),
            _ => (younger.experiment_id.clone(), younger.experiment_by),
        };
        let younger_client =
            (younger.experiment_by == ExperimentBy::Client).then_some(&younger.experiment_id);
        (self.experiment_id, self.experiment_by) = (experiment, by);
        for span in draft.spans.into_iter().chain(younger.spans.into_spans()) {
            self.add_span(span, younger.last_seen_unix_nano);
        }
        if let Some(info) = draft.info {
            let experiment_id = self.experiment_id.clone();
            self.take_words(&info, draft.starts, Some(&experiment_id));
        }
        if !younger.info.as_ref().is_some_and(TraceInfo::is_finalized) {
            self.table.clone_from(table);
        }
        if let Some(info) = younger.info {
            self.take_words(&info, younger.starts, younger_client);
        }
    }

    /// True when a root has ended: only stray spans may come.
    pub(super) const fn has_ended(&self) -> bool {
        self.root_ended
    }

    fn is_finalized(&self) -> bool {
        self.info.as_ref().is_some_and(TraceInfo::is_finalized)
    }

    pub(super) fn settled(&self, rules: &SettleRules, now_unix_nano: u64) -> bool {
        let silent = Duration::from_nanos(now_unix_nano.saturating_sub(self.last_seen_unix_nano));
        let announced = self.info.as_ref().and_then(TraceInfo::announced_spans);
        // Changes alone are for a trace that is archived: nothing more is waited for.
        let changes_alone = self.spans.is_empty() && !self.is_finalized();
        announced.is_some_and(|spans| spans <= self.spans.ids())
            || ((self.root_ended || changes_alone) && rules.settle_after <= silent)
            || rules.idle_after <= silent
            || self.is_full()
    }

    /// True for so much of a late piece that it waits for no round.
    pub(super) const fn is_late_enough(&self) -> bool {
        self.late && !self.refused && LATE_AT_ONCE_BYTES <= self.bytes
    }

    /// True when a row holds no more: it is not waited for the rest.
    fn is_full(&self) -> bool {
        MAX_ROW_SPANS <= self.spans.len() || MAX_ROW_BYTES <= self.bytes
    }

    /// The trace as it is, taken out.
    pub(super) fn take_draft(&mut self, trace_id: TraceId) -> TraceDraft {
        let spans = std::mem::take(&mut self.spans).into_spans();
        self.draft_of(trace_id, spans)
    }

    /// The trace as it is.
    pub(super) fn draft(&self, trace_id: TraceId) -> TraceDraft {
        self.draft_of(trace_id, self.spans.iter().cloned().collect())
    }

    fn draft_of(&self, trace_id: TraceId, spans: Vec<SpanRecord>) -> TraceDraft {
        let mut draft = TraceDraft {
            experiment_id: Some(self.experiment_id.clone()),
            experiment_by: self.experiment_by,
            run_id: self.run_id.clone(),
            info: self.info.clone(),
            starts: self.starts.clone(),
            spans,
            replaces: self.replaces,
            ..TraceDraft::new(trace_id)
        };
        name_experiment(&mut draft);
        draft
    }

    /// The trace as records that give it back: the deletion before it, its spans, what was said.
    pub(super) fn carry(&self, trace_id: TraceId) -> Vec<CarriedRecord> {
        let routes = self.routes();
        let header = |kind, source| RecordHeader {
            kind,
            encoding: ContentEncoding::Identity,
            received_at_unix_nano: self.first_seen_unix_nano,
            routes: routes.clone(),
            run_id: self.run_id.clone(),
            trace_id: None,
            limits: Limits::accepted(),
            source,
        };
        let changes_record = |changes: Vec<TraceChange>| {
            let body = changes_body(&[TraceChanges { trace_id, changes }]);
            (header(RecordKind::TraceChanges, None), body)
        };
        let mut records = Vec::new();
        if self.replaces {
            records.push(changes_record(vec![TraceChange::Delete]));
        }
        let spans: Vec<SpanRecord> = self.spans.iter().cloned().collect();
        // In the order of arrival, whatever way each came in.
        // What a resource names and that does not count would count where it has a route.
        let is_hidden = |group: &SpanGroup| {
            let hidden = group.hidden_experiment();
            hidden.is_some_and(|hidden| routes.iter().any(|route| route.experiment_id == hidden))
        };
        let come_alike = |left: &SpanRecord, right: &SpanRecord| {
            Arc::ptr_eq(&left.group, &right.group)
                || (left.group.source == right.group.source
                    && is_hidden(&left.group) == is_hidden(&right.group))
        };
        for same in spans.chunk_by(come_alike) {
            let Some(group) = same.first().map(|span| &span.group) else { continue };
            let kind = match is_hidden(group) {
                true => RecordKind::CarriedUnnamed,
                false => RecordKind::CarriedTrace,
            };
            for part in parts_by_bytes(same) {
                records.push((header(kind, Some(group.source)), encode_request(part)));
            }
        }
        if let Some(info) = &self.info {
            let words = CarriedWords { info: info.clone(), starts: self.starts.clone() };
            records.push((header(RecordKind::CarriedWords, None), words_body(&words)));
        }
        records
    }
}

impl OpenTrace {
    /// The routes of its records: that of the trace first, then those of experiments that resources
    /// name and that were there when they came.
    fn routes(&self) -> Vec<Route> {
        let mut experiments = vec![&self.experiment_id];
        let mut previous = None;
        for span in self.spans.iter() {
            if previous.is_some_and(|previous| Arc::ptr_eq(previous, &span.group)) {
                continue;
            }
            previous = Some(&span.group);
            if let Some(named) = &span.group.experiment_id
                && !experiments.contains(&named)
            {
                experiments.push(named);
            }
        }
        let route = |experiment_id: &ExperimentId| Route {
            experiment_id: experiment_id.clone(),
            table: self.table.clone(),
        };
        experiments.into_iter().map(route).collect()
    }
}

/// Gives assessments that a `start_trace` brings without an id one that depends on nothing but
/// what they say, so that a retry or a replay gives the same; and says that they are valid.
pub(super) fn complete_assessments(info: &mut TraceInfo) {
    for (index, assessment) in info.assessments.iter_mut().enumerate() {
        assessment.valid.get_or_insert(true);
        if assessment.assessment_id.is_empty() {
            let name = assessment.assessment_name.as_deref().unwrap_or_default();
            let mut said = info.trace_id.0.to_vec();
            said.extend(index.to_le_bytes());
            said.extend(name.bytes());
            assessment.assessment_id = format!("a-{:032x}", fnv1a(&said));
        }
    }
}

/// Fowler-Noll-Vo hash of 128 bits, variant 1a (RFC 9923): the same in every version.
fn fnv1a(bytes: &[u8]) -> u128 {
    const OFFSET_BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(OFFSET_BASIS, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME))
}

/// Cuts a long trace so that no carried record outgrows the journal's records.
fn parts_by_bytes(spans: &[SpanRecord]) -> Vec<&[SpanRecord]> {
    const PART_BYTES: usize = 8 << 20;
    let mut parts = Vec::new();
    let mut rest = spans;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fitting = rest.iter().take_while(|span| {
            bytes += span.message.len() + span.group.resource.len() + span.group.scope.len();
            bytes <= PART_BYTES
        });
        let (part, tail) = rest.split_at(fitting.count().max(1));
        parts.push(part);
        rest = tail;
    }
    parts
}
