//! What a trace is as a whole: state, times, session, user, tags, sums and previews.
//!
//! Spans come in any number, order and shape: several roots, none, ids that repeat, parents in a
//! circle. Each span is looked at a fixed number of times.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use tracelake_model::{TokenUsage, TraceCost, TraceState};

use super::{Meaning, Payload, TraceMeaning, previews, rollup, tags};
use crate::otlp::view::ResourceView;
use crate::request::SpanRecord;

/// Characters of a session id; MLflow refuses longer ones.
const MAX_SESSION_CHARACTERS: usize = 250;

/// Reads the meaning of a trace from all its spans, in order, and theirs. The resource of `tags_of`
/// gives the tags.
pub(super) fn interpret_trace(
    spans: &[&SpanRecord],
    meanings: &[Meaning<'_>],
    tags_of: Option<&SpanRecord>,
) -> TraceMeaning {
    let mut resource_tags = BTreeMap::new();
    if let Some(span) = tags_of {
        tags::add_resource(&ResourceView::new(&span.group.resource), &mut resource_tags);
    }
    let mut meaning = TraceMeaning {
        state: state(spans),
        start_time_unix_nano: spans.iter().map(|s| s.start_time_unix_nano).min().unwrap_or(0),
        end_time_unix_nano: spans.iter().map(|s| s.end_time_unix_nano).max().unwrap_or(0),
        trace_name: None,
        session_id: None,
        user_id: None,
        usage: TokenUsage::default(),
        cost: TraceCost::default(),
        tags: resource_tags,
        services: services(spans),
        request_preview: None,
        response_preview: None,
    };
    for root in spans.iter().filter(|span| span.parent.is_none()) {
        tags::add_root(&root.view(), &mut meaning.tags, &mut meaning.trace_name);
    }
    meaning.session_id = meanings
        .iter()
        .find_map(|span| span.session_id.as_deref())
        .map(|session| session.chars().take(MAX_SESSION_CHARACTERS).collect());
    meaning.user_id = meanings.iter().find_map(|span| span.user_id.as_deref()).map(str::to_owned);
    add_previews(spans, meanings, &mut meaning);
    let has_usage = meanings.iter().any(|span| !span.usage.is_empty());
    let has_cost = meanings.iter().any(|span| span.cost != TraceCost::default());
    if has_usage || has_cost {
        let tree = rollup::Tree::new(spans);
        let usages = meanings.iter().map(|span| (!span.usage.is_empty()).then_some(span.usage));
        meaning.usage = rollup::sum_usage(&tree.topmost(&usages.collect::<Vec<_>>()));
        if has_cost {
            let costs = meanings
                .iter()
                .map(|span| (span.cost != TraceCost::default()).then_some(span.cost));
            meaning.cost = rollup::sum_cost(&tree.topmost(&costs.collect::<Vec<_>>()));
        }
    }
    meaning
}

/// The first root decides; while there is none, the trace goes on.
fn state(spans: &[&SpanRecord]) -> TraceState {
    match spans.iter().find(|span| span.parent.is_none()) {
        Some(root) if root.view().is_error() => TraceState::Error,
        Some(_) => TraceState::Ok,
        None => TraceState::InProgress,
    }
}

/// The names of all services.
fn services(spans: &[&SpanRecord]) -> Vec<String> {
    let mut services = Vec::new();
    let mut seen = HashSet::new();
    let mut previous = None;
    for span in spans {
        // Spans of one request share their group, so that most of them are skipped here.
        if previous.is_some_and(|previous| Arc::ptr_eq(previous, &span.group)) {
            continue;
        }
        previous = Some(&span.group);
        let resource = ResourceView::new(&span.group.resource);
        if let Some(service) = resource.attribute("service.name").and_then(|name| name.as_str())
            && !service.is_empty()
            && seen.insert(service)
        {
            services.push(service.to_owned());
        }
    }
    services
}

/// Of several roots MLflow takes the last one for the previews.
fn add_previews(spans: &[&SpanRecord], meanings: &[Meaning<'_>], meaning: &mut TraceMeaning) {
    let root = spans.iter().zip(meanings).rfind(|(span, _)| span.parent.is_none());
    let Some((_, root)) = root else { return };
    let preview = |payload: Option<&Payload<'_>>, role| {
        payload.map(|payload| previews::preview(&payload.text(), role))
    };
    meaning.request_preview = preview(root.inputs.as_ref(), "user");
    meaning.response_preview = preview(root.outputs.as_ref(), "assistant");
}
