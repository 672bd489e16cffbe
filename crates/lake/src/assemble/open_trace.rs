//! A trace in the making.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use tracelake_decode::mlflow_json::start_trace_body;
use tracelake_decode::record::Route;
use tracelake_decode::request::encode_request;
use tracelake_decode::{
    ContentEncoding, RecordHeader, RecordKind, SpanRecord, SpanSource, changes_body,
};
use tracelake_model::{
    Assessment, ExperimentId, Limits, TableName, TraceChange, TraceChanges, TraceId, TraceInfo,
};

use super::SettleRules;
use crate::commit::merge::{merge_info, merge_spans, override_tags};
use crate::rows::TraceDraft;

/// A record of the journal that carries an unsettled trace over: header and payload.
pub type CarriedRecord = (RecordHeader, Vec<u8>);

/// Memory that a span takes beside its bytes.
const SPAN_OVERHEAD_BYTES: usize = 128;

/// Memory that what a client said of a trace takes, about.
fn info_bytes(info: &TraceInfo) -> usize {
    let map = |map: &BTreeMap<String, String>| -> usize {
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
    let keys: usize = info
        .deleted_tags
        .iter()
        .chain(&info.deleted_assessments)
        .chain(&info.linked_runs)
        .map(|key| key.len() + 48)
        .sum();
    512 + keys
        + map(&info.tags)
        + map(&info.trace_metadata)
        + text(&info.request_preview)
        + text(&info.response_preview)
        + assessments
}

/// A trace in the making, or a late piece of an archived one.
#[derive(Debug)]
pub(super) struct OpenTrace {
    /// The table that it is open for.
    pub(super) table: TableName,
    pub(super) experiment_id: ExperimentId,
    pub(super) run_id: Option<String>,
    info: Option<TraceInfo>,
    pub(super) spans: Vec<SpanRecord>,
    /// Distinct span ids, to know when all announced spans are here.
    pub(super) span_ids: HashSet<[u8; 8]>,
    root_ended: bool,
    pub(super) first_seen_unix_nano: u64,
    pub(super) last_seen_unix_nano: u64,
    pub(super) bytes: usize,
    /// A late piece of a trace that has a row: waits for the next amendment round.
    pub(super) late: bool,
    /// The trace was deleted; all that is here came after that.
    replaces: bool,
}

impl OpenTrace {
    pub(super) fn new(table: TableName, experiment_id: ExperimentId) -> Self {
        Self {
            table,
            experiment_id,
            run_id: None,
            info: None,
            spans: Vec::new(),
            span_ids: HashSet::new(),
            root_ended: false,
            first_seen_unix_nano: 0,
            last_seen_unix_nano: 0,
            bytes: 0,
            late: false,
            replaces: false,
        }
    }

    /// True when nothing of the trace is here.
    pub(super) const fn is_fresh(&self) -> bool {
        self.spans.is_empty() && self.info.is_none()
    }

    /// Adds a span and returns the memory that it takes.
    pub(super) fn add_span(&mut self, span: SpanRecord, now_unix_nano: u64) -> usize {
        let bytes = span.weight_bytes() + SPAN_OVERHEAD_BYTES;
        self.root_ended |= span.parent.is_none() && span.end_time_unix_nano != 0;
        self.span_ids.insert(span.span_id.0);
        self.last_seen_unix_nano = now_unix_nano;
        self.bytes += bytes;
        self.spans.push(span);
        bytes
    }

    /// The spans from `start` on stand over tags that were there before them.
    pub(super) fn override_tags(&mut self, trace_id: TraceId, start: usize) {
        let mut info = self.info.take();
        self.bytes -= info.as_ref().map_or(0, info_bytes);
        let (known, added) = self.spans.split_at(start.min(self.spans.len()));
        override_tags(&mut info, trace_id, known, added);
        self.bytes += info.as_ref().map_or(0, info_bytes);
        self.info = info;
    }

    /// Changes what clients said, and the memory it takes.
    pub(super) fn change_info(&mut self, change: impl FnOnce(&mut Option<TraceInfo>)) {
        self.bytes -= self.info.as_ref().map_or(0, info_bytes);
        change(&mut self.info);
        self.bytes += self.info.as_ref().map_or(0, info_bytes);
    }

    pub(super) fn change(&mut self, trace_id: TraceId, change: TraceChange) {
        if change == TraceChange::Delete {
            let anew = Self::new(self.table.clone(), self.experiment_id.clone());
            let Self { first_seen_unix_nano, last_seen_unix_nano, late, .. } = *self;
            *self = Self { first_seen_unix_nano, last_seen_unix_nano, late, ..anew };
            self.replaces = true;
        } else {
            self.change_info(|info| change.apply(info.get_or_insert(TraceInfo::new(trace_id))));
        }
    }

    /// Takes back what had settled for `table`: it is older than what is here.
    pub(super) fn put_back(&mut self, table: &TableName, draft: TraceDraft) {
        if self.replaces {
            // Deleted since.
            return;
        }
        if !self.is_finalized() {
            self.table.clone_from(table);
        }
        self.replaces = draft.replaces;
        if !self.is_finalized()
            && draft.is_finalized()
            && let Some(experiment_id) = draft.experiment_id
        {
            self.experiment_id = experiment_id;
        }
        self.run_id = self.run_id.take().or(draft.run_id);
        // What came since is younger, so it is merged into what is put back.
        let mut older = draft.info;
        override_tags(&mut older, draft.trace_id, &draft.spans, &self.spans);
        self.change_info(|info| {
            merge_info(&mut older, info.take());
            *info = older;
        });
        for span in &draft.spans {
            self.root_ended |= span.parent.is_none() && span.end_time_unix_nano != 0;
            self.span_ids.insert(span.span_id.0);
            self.bytes += span.weight_bytes() + SPAN_OVERHEAD_BYTES;
        }
        self.spans.splice(0..0, draft.spans);
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
        announced.is_some_and(|spans| spans <= self.span_ids.len())
            || ((self.root_ended || changes_alone) && rules.settle_after <= silent)
            || rules.idle_after <= silent
    }

    pub(super) fn take_draft(&mut self, trace_id: TraceId) -> TraceDraft {
        let spans = std::mem::take(&mut self.spans);
        self.draft(trace_id, spans)
    }

    /// The trace with `spans`, copies left out.
    pub(super) fn draft(&self, trace_id: TraceId, spans: Vec<SpanRecord>) -> TraceDraft {
        let mut distinct = Vec::with_capacity(spans.len());
        merge_spans(&mut distinct, spans);
        TraceDraft {
            experiment_id: Some(self.experiment_id.clone()),
            run_id: self.run_id.clone(),
            info: self.info.clone(),
            spans: distinct,
            replaces: self.replaces,
            ..TraceDraft::new(trace_id)
        }
    }

    /// The trace as records that give it back: the deletion before it, its spans, what was said.
    pub(super) fn carry(&self, trace_id: TraceId) -> Vec<CarriedRecord> {
        let header = |kind, source| RecordHeader {
            kind,
            encoding: ContentEncoding::Identity,
            received_at_unix_nano: self.first_seen_unix_nano,
            routes: vec![Route {
                experiment_id: self.experiment_id.clone(),
                table: self.table.clone(),
            }],
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
        for source in [SpanSource::Otlp, SpanSource::Mlflow] {
            let spans: Vec<SpanRecord> =
                self.spans.iter().filter(|span| span.group.source == source).cloned().collect();
            for part in parts_by_bytes(&spans) {
                records
                    .push((header(RecordKind::CarriedTrace, Some(source)), encode_request(part)));
            }
        }
        if let Some(info) = &self.info {
            if info.is_finalized() {
                records.push((
                    header(RecordKind::MlflowStartTrace, None),
                    start_trace_body(info, Some(&self.experiment_id)),
                ));
            }
            let changes = changes_of(info);
            if !changes.is_empty() {
                records.push(changes_record(changes));
            }
        }
        records
    }
}

/// What a `start_trace` body does not say of `info`, as changes.
fn changes_of(info: &TraceInfo) -> Vec<TraceChange> {
    let mut changes = Vec::new();
    if !info.is_finalized() {
        changes.extend(
            info.tags
                .iter()
                .map(|(key, value)| TraceChange::SetTag { key: key.clone(), value: value.clone() }),
        );
        let put = |assessment: &Assessment| TraceChange::PutAssessment(assessment.clone().into());
        changes.extend(info.assessments.iter().map(put));
    }
    changes.extend(info.deleted_tags.iter().map(|key| TraceChange::DeleteTag { key: key.clone() }));
    changes.extend(
        info.deleted_assessments
            .iter()
            .map(|id| TraceChange::DeleteAssessment { assessment_id: id.clone() }),
    );
    changes.extend(info.linked_runs.iter().map(|run| TraceChange::LinkRun { run_id: run.clone() }));
    changes
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
