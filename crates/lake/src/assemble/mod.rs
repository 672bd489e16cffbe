//! Assembly: spans gather per trace until the trace settles. Pure: time comes in as a number.
//!
//! A trace settles when its root has ended and no span came for [`SettleRules::settle_after`],
//! when its `start_trace` came together with all the spans that it announces, or when nothing came
//! for [`SettleRules::idle_after`]. What comes later is an amendment of its row.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tracelake_decode::mlflow_json::start_trace_body;
use tracelake_decode::record::Route;
use tracelake_decode::request::encode_request;
use tracelake_decode::{
    ContentEncoding, DecodedRecord, RecordContent, RecordHeader, RecordKind, SpanRecord, SpanSource,
};
use tracelake_model::{ExperimentId, Limits, TableName, TraceId, TraceInfo};

use crate::commit::merge::{merge_info, merge_spans};
use crate::rows::TraceDraft;

/// Trace metadata that marks a trace whose client has said what it is: MLflow's servers set it.
pub const INFO_FINALIZED: &str = "mlflow.trace.infoFinalized";

/// When a trace settles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettleRules {
    /// Silence after the root has ended.
    pub settle_after: Duration,
    /// Silence after which a trace without an ended root settles.
    pub idle_after: Duration,
    /// Bytes that open traces may hold; past it the ones that are silent longest settle early.
    pub max_open_bytes: usize,
}

impl Default for SettleRules {
    fn default() -> Self {
        Self {
            settle_after: Duration::from_secs(2),
            idle_after: Duration::from_secs(60),
            max_open_bytes: 128 << 20,
        }
    }
}

/// Memory that a span takes beside its bytes.
const SPAN_OVERHEAD_BYTES: usize = 128;

/// Memory that what a client said of a trace takes, about.
fn info_bytes(info: &TraceInfo) -> usize {
    let map = |map: &std::collections::BTreeMap<String, String>| -> usize {
        map.iter().map(|(key, value)| key.len() + value.len() + 48).sum()
    };
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let assessments: usize = info
        .assessments
        .iter()
        .map(|a| {
            256 + text(&a.feedback_json)
                + text(&a.expectation_json)
                + text(&a.issue_json)
                + text(&a.rationale)
                + map(&a.metadata)
        })
        .sum();
    512 + map(&info.tags)
        + map(&info.trace_metadata)
        + text(&info.request_preview)
        + text(&info.response_preview)
        + assessments
}

/// What the open traces of tables that can be written come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenStatus {
    /// Some trace would settle now.
    pub settled: bool,
    /// Late pieces wait for an amendment round.
    pub late: bool,
    /// Bytes of traces that are not late.
    pub bytes: usize,
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

/// A trace in the making.
#[derive(Debug)]
struct OpenTrace {
    experiment_id: ExperimentId,
    run_id: Option<String>,
    info: Option<TraceInfo>,
    spans: Vec<SpanRecord>,
    /// Distinct span ids, to know when all announced spans are here.
    span_ids: HashSet<[u8; 8]>,
    root_ended: bool,
    first_seen_unix_nano: u64,
    last_seen_unix_nano: u64,
    bytes: usize,
    /// A late piece of a trace that has a row: waits for the next amendment round.
    late: bool,
}

/// The traces in the making, by table.
#[derive(Debug, Default)]
pub struct Assembler {
    open: HashMap<(TableName, TraceId), OpenTrace>,
    bytes: usize,
}

/// A record of the journal that carries an unsettled trace over: header and payload.
pub type CarriedRecord = (RecordHeader, Vec<u8>);

impl Assembler {
    /// Takes a record in. `accept` says for which tables: a replay leaves out those that have it.
    pub fn push(
        &mut self,
        record: DecodedRecord,
        now_unix_nano: u64,
        accept: &dyn Fn(&TableName) -> bool,
    ) {
        let DecodedRecord { header, content } = record;
        match content {
            RecordContent::Spans(decoded) => {
                for span in decoded.spans {
                    let route = header.route(span.group.experiment_id.as_ref());
                    if let Some(route) = route
                        && accept(&route.table)
                    {
                        let key = (route.table.clone(), span.trace_id);
                        let trace = self.trace(key, route, &header, now_unix_nano);
                        let bytes = trace.add_span(span, now_unix_nano);
                        self.bytes += bytes;
                    }
                }
            }
            RecordContent::TraceInfo(mut info) => {
                if let Some(route) = header.route(None)
                    && accept(&route.table)
                {
                    info.trace_metadata.insert(INFO_FINALIZED.to_owned(), "true".to_owned());
                    let key = (route.table.clone(), info.trace_id);
                    let trace = self.trace(key, route, &header, now_unix_nano);
                    // The client's word on the experiment stands over that of stray spans.
                    trace.experiment_id = route.experiment_id.clone();
                    trace.run_id = info
                        .trace_metadata
                        .get("mlflow.sourceRun")
                        .cloned()
                        .or_else(|| trace.run_id.take());
                    trace.last_seen_unix_nano = now_unix_nano;
                    let before = trace.info.as_ref().map_or(0, info_bytes);
                    merge_info(&mut trace.info, Some(*info));
                    let grown = trace.info.as_ref().map_or(0, info_bytes).saturating_sub(before);
                    trace.bytes += grown;
                    self.bytes += grown;
                }
            }
        }
    }

    fn trace(
        &mut self,
        key: (TableName, TraceId),
        route: &Route,
        header: &RecordHeader,
        now_unix_nano: u64,
    ) -> &mut OpenTrace {
        let trace = self.open.entry(key).or_insert_with(|| OpenTrace {
            experiment_id: route.experiment_id.clone(),
            run_id: header.run_id.clone(),
            info: None,
            spans: Vec::new(),
            span_ids: HashSet::new(),
            root_ended: false,
            first_seen_unix_nano: header.received_at_unix_nano,
            last_seen_unix_nano: now_unix_nano,
            bytes: 0,
            late: false,
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

    /// What there is to do for the tables that are `ready`.
    #[must_use]
    pub fn status(
        &self,
        rules: &SettleRules,
        now_unix_nano: u64,
        ready: &dyn Fn(&TableName) -> bool,
    ) -> OpenStatus {
        let mut status = OpenStatus::default();
        for (_, trace) in self.open.iter().filter(|((table, _), _)| ready(table)) {
            if trace.late {
                status.late = true;
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
        self.open.retain(|key, trace| {
            let due = (take.ready)(&key.0)
                && (take.everything
                    || (trace.late && take.late)
                    || (!trace.late && trace.settled(rules, now_unix_nano))
                    || early.contains(key));
            if due {
                bytes -= trace.bytes;
                let draft = trace.take_draft(key.1);
                settled.entry(key.0.clone()).or_default().push(draft);
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
        let key = (table.clone(), draft.trace_id);
        let mut bytes: usize =
            draft.spans.iter().map(|span| span.weight_bytes() + SPAN_OVERHEAD_BYTES).sum();
        bytes += draft.info.as_ref().map_or(0, info_bytes);
        self.bytes += bytes;
        let trace = self.open.entry(key).or_insert_with(|| OpenTrace {
            experiment_id: draft
                .experiment_id
                .clone()
                .unwrap_or_else(ExperimentId::default_experiment),
            run_id: None,
            info: None,
            spans: Vec::new(),
            span_ids: HashSet::new(),
            root_ended: false,
            first_seen_unix_nano: 0,
            last_seen_unix_nano: 0,
            bytes: 0,
            late,
        });
        trace.late |= late;
        trace.bytes += bytes;
        if trace.info.is_none()
            && draft.info.is_some()
            && let Some(experiment_id) = draft.experiment_id
        {
            trace.experiment_id = experiment_id;
        }
        trace.run_id = trace.run_id.take().or(draft.run_id);
        // What came since is younger, so it is merged into what is put back.
        let mut info = draft.info;
        merge_info(&mut info, trace.info.take());
        trace.info = info;
        for span in &draft.spans {
            trace.root_ended |= span.parent.is_none() && span.end_time_unix_nano != 0;
            trace.span_ids.insert(span.span_id.0);
        }
        trace.spans.splice(0..0, draft.spans);
    }

    /// Past the memory bound: the traces that are silent longest, until the rest fits in half.
    fn early_settlers(
        &self,
        rules: &SettleRules,
        ready: &dyn Fn(&TableName) -> bool,
    ) -> HashSet<(TableName, TraceId)> {
        let mut early = HashSet::new();
        let mut oldest: Vec<_> =
            self.open.iter().filter(|(key, trace)| !trace.late && ready(&key.0)).collect();
        let mut bytes: usize = oldest.iter().map(|(_, trace)| trace.bytes).sum();
        if bytes <= rules.max_open_bytes {
            return early;
        }
        oldest.sort_unstable_by_key(|(_, trace)| trace.last_seen_unix_nano);
        for (key, trace) in oldest {
            if bytes <= rules.max_open_bytes / 2 {
                break;
            }
            bytes -= trace.bytes;
            early.insert(key.clone());
        }
        early
    }

    /// The table of that name that has open traces; SQL does not regard case.
    #[must_use]
    pub fn table_named(&self, name: &TableName) -> Option<TableName> {
        let name = name.to_string();
        let mut tables = self.open.keys().map(|(table, _)| table);
        tables.find(|table| table.to_string().eq_ignore_ascii_case(&name)).cloned()
    }

    /// The open traces of one table as they are now, without taking them out.
    #[must_use]
    pub fn peek(&self, table: &TableName) -> Vec<TraceDraft> {
        self.open
            .iter()
            .filter(|((name, _), _)| name == table)
            .map(|((_, trace_id), trace)| trace.draft(*trace_id, trace.spans.clone()))
            .collect()
    }

    /// Every open trace as records that [`Assembler::push`] takes in again: what is carried over
    /// when the segment that holds the originals is deleted.
    pub fn carry(&self) -> impl Iterator<Item = CarriedRecord> + '_ {
        self.open.iter().flat_map(|((table, _), trace)| trace.carry(table))
    }
}

impl OpenTrace {
    fn add_span(&mut self, span: SpanRecord, now_unix_nano: u64) -> usize {
        let bytes = span.weight_bytes() + SPAN_OVERHEAD_BYTES;
        self.root_ended |= span.parent.is_none() && span.end_time_unix_nano != 0;
        self.span_ids.insert(span.span_id.0);
        self.last_seen_unix_nano = now_unix_nano;
        self.bytes += bytes;
        self.spans.push(span);
        bytes
    }

    fn settled(&self, rules: &SettleRules, now_unix_nano: u64) -> bool {
        let silent = Duration::from_nanos(now_unix_nano.saturating_sub(self.last_seen_unix_nano));
        let announced = self.info.as_ref().and_then(TraceInfo::announced_spans);
        announced.is_some_and(|spans| spans <= self.span_ids.len())
            || (self.root_ended && rules.settle_after <= silent)
            || rules.idle_after <= silent
    }

    fn take_draft(&mut self, trace_id: TraceId) -> TraceDraft {
        let spans = std::mem::take(&mut self.spans);
        self.draft(trace_id, spans)
    }

    /// The trace with `spans`, copies left out.
    fn draft(&self, trace_id: TraceId, spans: Vec<SpanRecord>) -> TraceDraft {
        let mut distinct = Vec::with_capacity(spans.len());
        merge_spans(&mut distinct, spans);
        TraceDraft {
            trace_id,
            experiment_id: Some(self.experiment_id.clone()),
            run_id: self.run_id.clone(),
            info: self.info.clone(),
            spans: distinct,
            created_at_micros: 0,
            updated_at_micros: 0,
            revision: 1,
        }
    }

    fn carry(&self, table: &TableName) -> Vec<CarriedRecord> {
        let header = |kind, source| RecordHeader {
            kind,
            encoding: ContentEncoding::Identity,
            received_at_unix_nano: self.first_seen_unix_nano,
            routes: vec![Route { experiment_id: self.experiment_id.clone(), table: table.clone() }],
            run_id: self.run_id.clone(),
            trace_id: None,
            limits: Limits::accepted(),
            source,
        };
        let mut records = Vec::new();
        for source in [SpanSource::Otlp, SpanSource::Mlflow] {
            let spans: Vec<SpanRecord> =
                self.spans.iter().filter(|span| span.group.source == source).cloned().collect();
            for part in parts_by_bytes(&spans) {
                records
                    .push((header(RecordKind::CarriedTrace, Some(source)), encode_request(part)));
            }
        }
        if let Some(info) = &self.info {
            records.push((
                header(RecordKind::MlflowStartTrace, None),
                start_trace_body(info, Some(&self.experiment_id)),
            ));
        }
        records
    }
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

#[cfg(test)]
mod tests;
