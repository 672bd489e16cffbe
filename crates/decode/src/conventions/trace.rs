//! What a trace is as a whole: state, times, session, user, tags, sums and previews.
//!
//! Spans come in any number, order and shape: several roots, none, ids that repeat, parents in a
//! circle. Each span is looked at a fixed number of times.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use tracelake_model::{TokenUsage, TraceCost, TraceState};

use super::candidates::{Candidates, any_text};
use super::keys::Key;
use super::{TraceMeaning, payloads, previews, rollup, tags, tokens};
use crate::request::SpanRecord;
use crate::view::ResourceView;

/// Characters of a session id; MLflow refuses longer ones.
const MAX_SESSION_CHARACTERS: usize = 250;

/// Reads the meaning of a trace from all its spans, in the order of arrival.
pub(super) fn interpret_trace(spans: &[SpanRecord]) -> TraceMeaning {
    let (resource_tags, services) = resources(spans);
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
        services,
        request_preview: None,
        response_preview: None,
    };
    let mut usages = Vec::with_capacity(spans.len());
    let mut costs = Vec::with_capacity(spans.len());
    for span in spans {
        let view = span.view();
        let found = Candidates::collect(&view);
        let usage = tokens::usage(&found);
        usages.push((!usage.is_empty()).then_some(usage));
        let cost = tokens::cost(&found);
        costs.push((cost != TraceCost::default()).then_some(cost));
        if meaning.session_id.is_none() {
            meaning.session_id = text(&found, Key::SessionId)
                .or_else(|| text(&found, Key::GenAiConversationId))
                .map(|session| session.chars().take(MAX_SESSION_CHARACTERS).collect());
        }
        if meaning.user_id.is_none() {
            meaning.user_id = text(&found, Key::UserId);
        }
        if span.parent.is_none() {
            tags::add_root(&view, &mut meaning.tags, &mut meaning.trace_name);
        }
    }
    add_previews(spans, &mut meaning);
    let tree = rollup::Tree::new(spans);
    meaning.usage = rollup::sum_usage(&tree.topmost(&usages));
    meaning.cost = rollup::sum_cost(&tree.topmost(&costs));
    meaning
}

/// Tags of the first resource that has attributes, then those of the roots.
pub(super) fn trace_tags(spans: &[SpanRecord]) -> BTreeMap<String, String> {
    let (mut found, _) = resources(spans);
    for root in spans.iter().filter(|span| span.parent.is_none()) {
        tags::add_root(&root.view(), &mut found, &mut None);
    }
    found
}

/// The first root decides; while there is none, the trace goes on.
fn state(spans: &[SpanRecord]) -> TraceState {
    match spans.iter().find(|span| span.parent.is_none()) {
        Some(root) if root.view().is_error() => TraceState::Error,
        Some(_) => TraceState::Ok,
        None => TraceState::InProgress,
    }
}

fn text(found: &Candidates<'_>, key: Key) -> Option<String> {
    found.value(key).map(any_text).filter(|text| !text.is_empty()).map(|text| text.into_owned())
}

/// Tags from the first resource that has attributes, and the names of all services.
fn resources(spans: &[SpanRecord]) -> (BTreeMap<String, String>, Vec<String>) {
    let mut tags = BTreeMap::new();
    let mut tagged = false;
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
        if !tagged && resource.attributes().next().is_some() {
            tags::add_resource(&resource, &mut tags);
            tagged = true;
        }
        if let Some(service) = resource.attribute("service.name").and_then(|name| name.as_str())
            && !service.is_empty()
            && seen.insert(service)
        {
            services.push(service.to_owned());
        }
    }
    (tags, services)
}

/// Of several roots MLflow takes the last one for the previews.
fn add_previews(spans: &[SpanRecord], meaning: &mut TraceMeaning) {
    let Some(root) = spans.iter().rfind(|span| span.parent.is_none()) else {
        return;
    };
    let view = root.view();
    let found = Candidates::collect(&view);
    meaning.request_preview = payloads::inputs(&view, &found)
        .map(|inputs| previews::preview(&inputs.payload.text(), "user"));
    meaning.response_preview = payloads::outputs(&view, &found)
        .map(|outputs| previews::preview(&outputs.payload.text(), "assistant"));
}
