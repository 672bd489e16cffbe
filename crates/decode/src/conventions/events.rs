//! Inputs and outputs that are told by events: Spring AI, GenAI messages, Claude Code's tools.
//!
//! Unlike attributes, event attributes reach MLflow's translators as plain values.

use super::json_text::{is_json, unquoted};
use super::span_type::ClaudeSpan;
use crate::any_value::{write_json, write_json_string};
use crate::otlp::view::{EventView, SpanView, ValueView};

/// What Claude Code writes in place of content that it may not record.
pub(super) const CLAUDE_REDACTED: &str = "<REDACTED>";

/// Inputs as JSON text.
pub(super) fn inputs(span: &SpanView<'_>) -> Option<String> {
    spring_ai(span, "gen_ai.content.prompt", "gen_ai.prompt").or_else(|| {
        messages(span, |name| match name {
            "gen_ai.system.message" => Some("system"),
            "gen_ai.user.message" => Some("user"),
            "gen_ai.assistant.message" => Some("assistant"),
            _ => None,
        })
    })
}

/// Outputs as JSON text.
pub(super) fn outputs(span: &SpanView<'_>, claude: Option<ClaudeSpan>) -> Option<String> {
    spring_ai(span, "gen_ai.content.completion", "gen_ai.completion")
        .or_else(|| messages(span, |name| (name == CHOICE).then_some("assistant")))
        .or_else(|| (claude == Some(ClaudeSpan::Tool)).then(|| claude_tool_output(span)).flatten())
}

/// A choice may name its role; the roles of the other messages are in their names.
const CHOICE: &str = "gen_ai.choice";

fn spring_ai(span: &SpanView<'_>, event_name: &str, key: &str) -> Option<String> {
    span.events()
        .filter(|event| event.name == event_name)
        .filter_map(|event| attribute(&event, key))
        .find(|value| is_truthy(*value))
        .map(decoded)
}

fn messages(span: &SpanView<'_>, role_of: impl Fn(&str) -> Option<&'static str>) -> Option<String> {
    let mut list = String::new();
    for event in span.events() {
        let Some(role) = role_of(event.name) else {
            continue;
        };
        let Some(content) = attribute(&event, "content").filter(|value| is_truthy(*value)) else {
            continue;
        };
        let role = (event.name == CHOICE)
            .then(|| attribute(&event, "role"))
            .flatten()
            .unwrap_or(ValueView::String(role));
        list.push_str(if list.is_empty() { "[" } else { "," });
        list.push_str("{\"role\":");
        list.push_str(&decoded(role));
        list.push_str(",\"content\":");
        list.push_str(&decoded(content));
        list.push('}');
    }
    list.push(']');
    (1 < list.len()).then_some(list)
}

fn claude_tool_output(span: &SpanView<'_>) -> Option<String> {
    span.events().filter(|event| event.name == "tool.output").find_map(|event| {
        ["output", "content", "diff"].into_iter().find_map(|key| {
            let value = attribute(&event, key).filter(|value| is_truthy(*value))?;
            let text = decoded(value);
            let empty = matches!(text.as_str(), "\"\"" | "0" | "null" | "false" | "[]" | "{}");
            let redacted = unquoted(&text).is_some_and(|text| text == CLAUDE_REDACTED);
            (!empty && !redacted).then_some(text)
        })
    })
}

/// The last attribute of that name, as in a map.
fn attribute<'a>(event: &EventView<'a>, key: &str) -> Option<ValueView<'a>> {
    event.attributes().filter(|attribute| attribute.key == key).last().map(|found| found.value())
}

fn is_truthy(value: ValueView<'_>) -> bool {
    match value {
        ValueView::Empty => false,
        ValueView::String(text) => !text.is_empty(),
        ValueView::Bool(value) => value,
        ValueView::Int(value) => value != 0,
        ValueView::Double(value) => value != 0.0,
        ValueView::Array(array) => array.iter().next().is_some(),
        ValueView::KeyValues(entries) => entries.iter().next().is_some(),
        ValueView::Bytes(bytes) => !bytes.is_empty(),
    }
}

/// The JSON text of a value; a string that holds JSON of any kind is that JSON.
fn decoded(value: ValueView<'_>) -> String {
    match value {
        ValueView::String(text) if is_json(text) => text.trim().to_owned(),
        ValueView::String(text) => {
            let mut out = String::with_capacity(text.len() + 2);
            write_json_string(text, &mut out);
            out
        }
        ValueView::Empty
        | ValueView::Bool(_)
        | ValueView::Int(_)
        | ValueView::Double(_)
        | ValueView::Array(_)
        | ValueView::KeyValues(_)
        | ValueView::Bytes(_) => {
            let mut out = String::new();
            write_json(value, &mut out);
            out
        }
    }
}
