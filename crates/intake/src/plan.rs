//! Decides which records a request becomes. Pure.
//!
//! A header names the tables of a record: the first route is for spans that name no experiment,
//! the others are looked up by the experiment that a resource names. One request is one record
//! with the bytes as received, but for one case: spans that name no experiment and whose services
//! are mapped to different ones. A header cannot tell those apart, so each experiment gets a
//! record of its own, written anew from the spans. Identical copies are stored once, so a client
//! that sends all of it again after a failure in between changes nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use tracelake_decode::request::encode_request;
use tracelake_decode::{
    ContentEncoding, DecodedRecord, DecodedSpans, RecordContent, RecordHeader, RecordKind,
    ResourceView, Route, SpanGroup, SpanRecord, ValueView,
};
use tracelake_model::{ExperimentId, Limits};

/// Bytes at which a rewritten record is closed, far below the longest that a journal takes.
const SPLIT_BYTES: usize = 8 << 20;

/// A record to be appended.
#[derive(Debug)]
pub(crate) struct PlannedRecord {
    pub(crate) record: DecodedRecord,
    pub(crate) payload: Bytes,
}

/// What is known of the experiments that a request may go to.
#[derive(Debug)]
pub(crate) struct Destinations<'a> {
    /// For spans that nothing else says anything about.
    pub(crate) default: Route,
    /// Active experiments among those named by resources or mapped from services.
    pub(crate) known: HashMap<ExperimentId, Route>,
    /// Experiment by `service.name`.
    pub(crate) services: &'a BTreeMap<String, ExperimentId>,
}

impl Destinations<'_> {
    fn named(&self, group: &SpanGroup) -> Option<&Route> {
        self.known.get(group.experiment_id.as_ref()?)
    }

    fn fallback(&self, group: &SpanGroup) -> &Route {
        service_experiment(group, self.services)
            .and_then(|id| self.known.get(id))
            .unwrap_or(&self.default)
    }

    fn target(&self, group: &SpanGroup) -> &Route {
        self.named(group).unwrap_or_else(|| self.fallback(group))
    }
}

/// Every experiment that must be looked up to plan the records of `spans`, each once.
pub(crate) fn named_experiments(
    spans: &[SpanRecord],
    services: &BTreeMap<String, ExperimentId>,
) -> Vec<ExperimentId> {
    let mut named: Vec<ExperimentId> = groups(spans)
        .flat_map(|group| {
            let mapped = service_experiment(group, services).cloned();
            [group.experiment_id.clone(), mapped]
        })
        .flatten()
        .collect();
    named.sort_unstable();
    named.dedup();
    named
}

/// Plans the records of a request whose experiment is not fixed by its sender.
pub(crate) fn plan_records(
    header: RecordHeader,
    payload: Bytes,
    spans: DecodedSpans,
    destinations: &Destinations<'_>,
) -> Vec<PlannedRecord> {
    let mut fallbacks: Vec<&Route> = Vec::new();
    let mut named: Vec<&Route> = Vec::new();
    for group in groups(&spans.spans) {
        let (list, route) = match destinations.named(group) {
            Some(route) => (&mut named, route),
            None => (&mut fallbacks, destinations.fallback(group)),
        };
        if !list.contains(&route) {
            list.push(route);
        }
    }
    if 1 < fallbacks.len() {
        return split(&header, spans, destinations);
    }
    let first = fallbacks.first().copied().unwrap_or(&destinations.default);
    let mut routes = vec![first.clone()];
    routes.extend(named.into_iter().filter(|route| *route != first).cloned());
    let header = RecordHeader { routes, ..header };
    vec![PlannedRecord {
        record: DecodedRecord { header, content: RecordContent::Spans(spans) },
        payload,
    }]
}

fn split(
    header: &RecordHeader,
    spans: DecodedSpans,
    destinations: &Destinations<'_>,
) -> Vec<PlannedRecord> {
    let mut parts: BTreeMap<&ExperimentId, (&Route, Vec<SpanRecord>)> = BTreeMap::new();
    for span in spans.spans {
        let route = destinations.target(&span.group);
        parts.entry(&route.experiment_id).or_insert_with(|| (route, Vec::new())).1.push(span);
    }
    let mut records = Vec::with_capacity(parts.len());
    for (route, spans) in parts.into_values() {
        for spans in pieces(spans) {
            records.push(rewritten(header, route, spans));
        }
    }
    records
}

/// Cuts `spans` where a piece reaches [`SPLIT_BYTES`]: the request may have come compressed.
fn pieces(spans: Vec<SpanRecord>) -> Vec<Vec<SpanRecord>> {
    let mut pieces: Vec<Vec<SpanRecord>> = Vec::new();
    let mut bytes = 0_usize;
    for span in spans {
        match pieces.last_mut() {
            Some(piece) if bytes < SPLIT_BYTES => {
                let same = piece.last().is_some_and(|last| Arc::ptr_eq(&last.group, &span.group));
                bytes += span.message.len() + if same { 0 } else { group_bytes(&span.group) };
                piece.push(span);
            }
            _ => {
                bytes = span.message.len() + group_bytes(&span.group);
                pieces.push(vec![span]);
            }
        }
    }
    pieces
}

fn group_bytes(group: &SpanGroup) -> usize {
    group.resource.len() + group.scope.len()
}

fn rewritten(header: &RecordHeader, route: &Route, spans: Vec<SpanRecord>) -> PlannedRecord {
    let payload = encode_request(&spans).into();
    let header = RecordHeader {
        kind: RecordKind::OtlpProtobuf,
        encoding: ContentEncoding::Identity,
        routes: vec![route.clone()],
        limits: Limits::accepted(),
        ..header.clone()
    };
    let content = RecordContent::Spans(DecodedSpans { spans, rejects: Vec::new() });
    PlannedRecord { record: DecodedRecord { header, content }, payload }
}

/// The groups of `spans` in the order sent; one that returns is yielded again.
fn groups(spans: &[SpanRecord]) -> impl Iterator<Item = &SpanGroup> {
    spans
        .chunk_by(|left, right| Arc::ptr_eq(&left.group, &right.group))
        .filter_map(|spans| Some(spans.first()?.group.as_ref()))
}

fn service_experiment<'a>(
    group: &SpanGroup,
    services: &'a BTreeMap<String, ExperimentId>,
) -> Option<&'a ExperimentId> {
    if services.is_empty() {
        return None;
    }
    match ResourceView::new(&group.resource).attribute("service.name")? {
        ValueView::String(name) => services.get(name),
        ValueView::Empty
        | ValueView::Bool(_)
        | ValueView::Int(_)
        | ValueView::Double(_)
        | ValueView::Array(_)
        | ValueView::KeyValues(_)
        | ValueView::Bytes(_) => None,
    }
}
