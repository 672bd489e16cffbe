//! The traces that the journal's records say, held in memory: what the tables and open traces of
//! the service are for real.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tracelake_decode::conventions::interpret_trace;
use tracelake_decode::{DecodedRecord, RecordContent, RecordHeader, Route, SpanRecord};
use tracelake_intake::{FoundTrace, TraceStore, TraceStoreError};
use tracelake_journal::{Event, Receiver};
use tracelake_model::{ExperimentId, TraceChange, TraceId, TraceInfo};

use crate::support::Seen;

/// The records that became durable, and what they say.
#[derive(Debug)]
pub(crate) struct Applied {
    events: Receiver<DecodedRecord>,
    seen: Vec<Seen>,
    traces: HashMap<TraceId, FoundTrace>,
}

impl Applied {
    pub(crate) fn new(events: Receiver<DecodedRecord>) -> Self {
        Self { events, seen: Vec::new(), traces: HashMap::new() }
    }

    /// The records since the last call.
    pub(crate) fn take_seen(&mut self) -> Vec<Seen> {
        self.catch_up();
        std::mem::take(&mut self.seen)
    }

    fn catch_up(&mut self) {
        while let Some(event) = self.events.try_recv() {
            if let Event::Appended { record, attachment, .. } = event {
                let header = RecordHeader::from_bytes(&record.header).unwrap();
                assert_eq!(header, attachment.header, "the journal says what the consumer sees");
                self.apply(&header, &attachment.content);
                let (payload, content) = (record.payload, attachment.content);
                self.seen.push(Seen { header, payload, content });
            }
        }
    }

    fn trace(&mut self, trace_id: TraceId, route: &Route) -> &mut FoundTrace {
        self.traces.entry(trace_id).or_insert_with(|| FoundTrace {
            route: route.clone(),
            info: TraceInfo::new(trace_id),
            spans: Vec::new(),
            left_out: 0,
            fixed: None,
        })
    }

    fn apply(&mut self, header: &RecordHeader, content: &RecordContent) {
        let route = header.route(None).unwrap();
        match content {
            RecordContent::Spans(spans) => {
                for span in &spans.spans {
                    self.trace(span.trace_id, route).spans.push(span.clone());
                }
            }
            RecordContent::TraceInfo(info) => {
                self.trace(info.trace_id, route).info = (**info).clone();
            }
            RecordContent::Words(_) => unreachable!("intake carries nothing over"),
            RecordContent::Changes(all) => {
                for changes in all {
                    for change in changes.changes.clone() {
                        if change == TraceChange::Delete {
                            self.traces.remove(&changes.trace_id);
                        } else {
                            change.apply(&mut self.trace(changes.trace_id, route).info);
                        }
                    }
                }
            }
        }
    }
}

/// Adds what the spans say by themselves.
fn with_spans(mut info: TraceInfo, spans: &[SpanRecord]) -> TraceInfo {
    if spans.is_empty() {
        return info;
    }
    let meaning = interpret_trace(spans);
    for (key, value) in meaning.tags {
        if !info.deleted_tags.contains(&key) {
            info.tags.entry(key).or_insert(value);
        }
    }
    let start = i64::try_from(meaning.start_time_unix_nano / 1_000).unwrap();
    info.request_time_micros.get_or_insert(start);
    info
}

/// A [`TraceStore`] over [`Applied`].
#[derive(Clone, Debug)]
pub(crate) struct MemoryStore(pub(crate) Arc<Mutex<Applied>>);

#[async_trait::async_trait]
impl TraceStore for MemoryStore {
    async fn find(&self, traces: &[TraceId]) -> Result<Vec<FoundTrace>, TraceStoreError> {
        let mut applied = self.0.lock().unwrap();
        applied.catch_up();
        let found = traces.iter().filter_map(|id| applied.traces.get(id)).cloned();
        Ok(found.map(|t| FoundTrace { info: with_spans(t.info, &t.spans), ..t }).collect())
    }

    async fn older_than(
        &self,
        experiment_id: &ExperimentId,
        until_unix_milli: i64,
        limit: usize,
    ) -> Result<Vec<TraceId>, TraceStoreError> {
        let mut applied = self.0.lock().unwrap();
        applied.catch_up();
        let mut aged: Vec<(i64, TraceId)> = applied
            .traces
            .values()
            .filter(|trace| trace.route.experiment_id == *experiment_id)
            .filter_map(|t| with_spans(t.info.clone(), &t.spans).request_time_micros.zip(Some(t)))
            .filter(|(micros, _)| micros.div_euclid(1_000) <= until_unix_milli)
            .map(|(micros, trace)| (micros, trace.info.trace_id))
            .collect();
        aged.sort_by_key(|(micros, id)| (*micros, id.0));
        Ok(aged.into_iter().take(limit).map(|(_, id)| id).collect())
    }
}
