//! The order of the spans of a trace: by start, span id and content, never by arrival.
//!
//! What a trace is as a whole follows from this order, so that it does not depend on how its spans
//! were cut into requests, repeated or mixed on the way. One thing is left to arrival: which of the
//! spans that share start and id gives the tags, see [`tags_span`].

use std::cmp::Ordering;

use bytes::Bytes;

use crate::otlp::shape::{Message, canonical, is_canonical};
use crate::otlp::view::ResourceView;
use crate::request::SpanRecord;

/// `spans` by start, span id and content. One of them that has no start is before all others.
///
/// Spans that came in this order, as most do, are compared once with their neighbour.
#[must_use]
pub fn in_order(spans: &[SpanRecord]) -> Vec<&SpanRecord> {
    let mut ordered: Vec<&SpanRecord> = spans.iter().collect();
    if spans.windows(2).all(|pair| place(&pair[0]) < place(&pair[1])) {
        return ordered;
    }
    ordered.sort_by_key(|span| place(span));
    for same in ordered.chunk_by_mut(|left, right| place(left) == place(right)) {
        if 1 < same.len() {
            same.sort_by_cached_key(|&span| Content::of(span));
        }
    }
    ordered
}

/// Position of the span whose resource gives the tags of a trace: the last one by start and span
/// id, and of those that share both the one that arrived last. `spans` are in the order of arrival.
/// Spans whose resource has no attributes are passed over; `None` when all are such.
#[must_use]
pub fn tags_span(spans: &[SpanRecord]) -> Option<usize> {
    let mut found: Option<(usize, &SpanRecord)> = None;
    // The last one is met first, so that the resource of most others is not looked at.
    for (position, span) in spans.iter().enumerate().rev() {
        if found.is_none_or(|(_, last)| place(last) < place(span))
            && ResourceView::new(&span.group.resource).attributes().next().is_some()
        {
            found = Some((position, span));
        }
    }
    found.map(|(position, _)| position)
}

/// Where a span stands but for its content.
const fn place(span: &SpanRecord) -> (u64, [u8; 8]) {
    (span.start_time_unix_nano, span.span_id.0)
}

/// What a span says, in an order that has no meaning but is always the same.
struct Content<'a> {
    span: &'a SpanRecord,
    parts: [Bytes; 3],
}

impl<'a> Content<'a> {
    fn of(span: &'a SpanRecord) -> Self {
        let part = |message, bytes: &Bytes| {
            if is_canonical(message, bytes) {
                bytes.clone()
            } else {
                canonical(message, bytes).into()
            }
        };
        let parts = [
            part(Message::Span, &span.message),
            part(Message::Resource, &span.group.resource),
            part(Message::Scope, &span.group.scope),
        ];
        Self { span, parts }
    }

    fn key(&self) -> (&[Bytes; 3], &str, &str, bool) {
        let group = &self.span.group;
        let is_poorer = group.source == crate::request::SpanSource::Mlflow;
        (&self.parts, &group.resource_schema_url, &group.scope_schema_url, is_poorer)
    }
}

impl PartialEq for Content<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Content<'_> {}

impl Ord for Content<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Content<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
