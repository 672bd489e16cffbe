//! What clients sent and were told, and whether a table keeps it.
//!
//! What is said of one trace is in an order: that in which it was sent to its one archiver. Orders
//! that were not acknowledged may have taken effect or not, at their place in it. Spans of traces
//! that nobody changes or deletes go to any archiver.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use tracelake_lake::TraceDraft;
use tracelake_model::{SpanId, TraceId};

/// A span by its content.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SpanKey {
    pub(super) span: SpanId,
    pub(super) name: String,
}

/// Something that a client said of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// A span.
    Span(SpanKey),
    /// A tag has this value, or there is none.
    Tag(String, Option<String>),
    /// An assessment has this rationale.
    Assessment(String, String),
    /// The trace ended, and had this tag unless somebody says otherwise; said once and again.
    Start(String, String),
    /// The trace is gone.
    Deleted,
}

/// What was said of one trace, in order, and whether it was acknowledged.
#[derive(Debug, Default)]
struct TraceHistory {
    said: Vec<(Said, bool)>,
    /// Whether something of it was set aside: what that says takes effect later than it was said.
    is_reordered: bool,
}

/// What was said of all traces of a table.
#[derive(Debug, Default)]
pub(super) struct History {
    traces: BTreeMap<TraceId, TraceHistory>,
    /// Acknowledged spans, copies included.
    pub(super) acked_spans: u64,
    /// What was not acknowledged.
    pub(super) unacked: u64,
}

impl History {
    pub(super) fn note(&mut self, trace: TraceId, said: Said, acked: bool) {
        self.acked_spans += u64::from(acked && matches!(said, Said::Span(_)));
        self.unacked += u64::from(!acked);
        self.traces.entry(trace).or_default().said.push((said, acked));
    }

    /// Something that was said of the trace takes effect at another place in the order.
    pub(super) fn reorder(&mut self, trace: TraceId) {
        self.traces.entry(trace).or_default().is_reordered = true;
    }

    /// Whether the trace was told to go, acknowledged or not.
    pub(super) fn was_deleted(&self, trace: TraceId) -> bool {
        self.traces
            .get(&trace)
            .is_some_and(|history| history.said.iter().any(|(said, _)| *said == Said::Deleted))
    }

    /// Whether the end of the trace was told, acknowledged or not.
    pub(super) fn was_started(&self, trace: TraceId) -> bool {
        self.traces.get(&trace).is_some_and(|history| {
            history.said.iter().any(|(said, _)| matches!(said, Said::Start(..)))
        })
    }

    /// Whether anything was said of the trace.
    pub(super) fn knows(&self, trace: TraceId) -> bool {
        self.traces.contains_key(&trace)
    }

    /// Whether a span of the trace was acknowledged.
    pub(super) fn has_acked_span(&self, trace: TraceId) -> bool {
        self.traces.get(&trace).is_some_and(|history| {
            history.said.iter().any(|(said, acked)| *acked && matches!(said, Said::Span(_)))
        })
    }

    /// Whether [`Self::is_all_in`] can hold: all was acknowledged, nothing was deleted, and no copy
    /// of a span can be on its way once more.
    pub(super) fn may_be_all_in(&self, trace: TraceId) -> bool {
        let Some(TraceHistory { said, is_reordered: false }) = self.traces.get(&trace) else {
            return false;
        };
        let mut spans = BTreeSet::new();
        said.iter().all(|(said, acked)| {
            *acked
                && *said != Said::Deleted
                && !matches!(said, Said::Span(key) if !spans.insert(key))
        })
    }

    /// Whether all that was ever said of the trace is in `rows` for sure, so that what another
    /// archiver is told of it now comes after all of it.
    pub(super) fn is_all_in(&self, trace: TraceId, rows: &[TraceDraft]) -> bool {
        let Some(history) = self.traces.get(&trace) else { return false };
        let of_trace: Vec<&TraceDraft> = rows.iter().filter(|row| row.trace_id == trace).collect();
        let [row] = of_trace.as_slice() else { return false };
        let mut faults = String::new();
        history.check_spans(trace, &of_trace, &mut faults);
        history.check_info(row, &mut faults);
        faults.is_empty() && self.may_be_all_in(trace)
    }

    /// How the rows of the table break what clients were told; empty when they do not.
    pub(super) fn check(&self, rows: &[TraceDraft]) -> String {
        let mut faults = String::new();
        let mut by_trace: BTreeMap<TraceId, Vec<&TraceDraft>> = BTreeMap::new();
        for row in rows {
            by_trace.entry(row.trace_id).or_default().push(row);
        }
        for (trace, rows) in &by_trace {
            if 1 < rows.len() {
                writeln!(faults, "{trace} has {} rows", rows.len()).ok();
            }
            if !self.traces.contains_key(trace) {
                writeln!(faults, "{trace} was never sent").ok();
            }
        }
        for (trace, history) in &self.traces {
            let rows = by_trace.get(trace).map(Vec::as_slice).unwrap_or_default();
            history.check_spans(*trace, rows, &mut faults);
            if let [row] = rows {
                history.check_info(row, &mut faults);
            }
        }
        faults
    }
}

impl TraceHistory {
    fn check_spans(&self, trace: TraceId, rows: &[&TraceDraft], faults: &mut String) {
        let mut found: BTreeMap<SpanKey, usize> = BTreeMap::new();
        for span in rows.iter().flat_map(|row| &row.spans) {
            let key = SpanKey { span: span.span_id, name: span.view().name.to_owned() };
            *found.entry(key).or_default() += 1;
        }
        let sent: BTreeSet<&SpanKey> = self
            .said
            .iter()
            .filter_map(|(said, _)| if let Said::Span(key) = said { Some(key) } else { None })
            .collect();
        for key in found.keys().filter(|key| !sent.contains(key)) {
            writeln!(faults, "{trace}: {key:?} was never sent").ok();
        }
        for key in sent {
            let count = found.get(key).copied().unwrap_or_default();
            if 1 < count {
                writeln!(faults, "{trace}: {key:?} is there {count} times").ok();
            }
            let sends = self
                .said
                .iter()
                .enumerate()
                .filter(|(_, (said, _))| matches!(said, Said::Span(other) if other == key));
            let gone_after = |at: usize, surely: bool| {
                let from = if self.is_reordered { 0 } else { at + 1 };
                let later = self.said.iter().skip(from);
                let mut deleted = later.filter(|(said, _)| *said == Said::Deleted);
                // Of what was said in another order, nobody knows which comes last.
                deleted.any(|(_, acked)| !surely || (*acked && !self.is_reordered))
            };
            let (mut must, mut may) = (false, false);
            for (at, (_, acked)) in sends {
                must |= *acked && !gone_after(at, false);
                may |= !gone_after(at, true);
            }
            if must && count == 0 {
                writeln!(faults, "{trace}: {key:?} was acknowledged and is lost").ok();
            }
            if !may && 0 < count {
                writeln!(faults, "{trace}: {key:?} was deleted and is there").ok();
            }
        }
    }

    /// Tags and assessments of a trace that nobody deleted, and nothing of which was set aside.
    fn check_info(&self, row: &TraceDraft, faults: &mut String) {
        if self.is_reordered || self.said.iter().any(|(said, _)| *said == Said::Deleted) {
            return;
        }
        let info = row.full_info();
        // Of each key, what calls may have made of it: what the last acknowledged one did, or one of
        // the later ones that may have taken effect; none is that no call did.
        let mut calls: BTreeMap<(bool, &String), Vec<Option<Option<&String>>>> = BTreeMap::new();
        let mut starts: BTreeMap<&String, (&String, bool)> = BTreeMap::new();
        for (said, acked) in &self.said {
            let (key, value) = match said {
                Said::Tag(key, value) => ((false, key), value.as_ref()),
                Said::Assessment(id, rationale) => ((true, id), Some(rationale)),
                Said::Start(key, value) => {
                    starts.entry(key).or_insert((value, false)).1 |= *acked;
                    continue;
                }
                Said::Span(_) | Said::Deleted => continue,
            };
            let values = calls.entry(key).or_insert_with(|| vec![None]);
            if *acked {
                values.clear();
            }
            values.push(Some(value));
        }
        for key in starts.keys() {
            calls.entry((false, key)).or_insert_with(|| vec![None]);
        }
        // A call stands over what the trace had when it ended, whichever came first or came again.
        let allowed = calls.into_iter().map(|(key, values)| {
            let without_call = match starts.get(key.1).filter(|_| !key.0) {
                Some((value, true)) => vec![Some(*value)],
                Some((value, false)) => vec![None, Some(*value)],
                None => vec![None],
            };
            let of =
                |call: Option<_>| call.map_or_else(|| without_call.clone(), |value| vec![value]);
            (key, values.into_iter().flat_map(of).collect::<Vec<_>>())
        });
        for ((is_assessment, key), values) in allowed {
            let found = if is_assessment {
                let known = info.assessments.iter().find(|known| known.assessment_id == *key);
                known.and_then(|known| known.rationale.as_ref())
            } else {
                info.tags.get(key)
            };
            if !values.contains(&found) {
                let trace = row.trace_id;
                writeln!(faults, "{trace}: {key} is {found:?}, it may be {values:?}").ok();
            }
        }
    }
}
