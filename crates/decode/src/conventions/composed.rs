//! Inputs and outputs that are put together: Gemini CLI's wrapping, Vercel's many attributes.
//!
//! Values are taken over as the text that was sent; only the object around them is ours.

use std::borrow::Cow;

use super::candidates::{Candidates, Reading, loose_text};
use super::json_text::{is_json, items, unquoted};
use super::keys::Key;
use crate::any_value::{write_json, write_json_string};
use crate::otlp::view::{SpanView, ValueView};

/// Gemini CLI's messages as the Gemini SDK has them, `{"contents": ...}`; `None` when they are an
/// object already.
pub(super) fn gemini_inputs(value: &Reading<'_>) -> Option<String> {
    let text = value.json();
    // MLflow means to rename the role in spans of the operation `system_prompt`, but compares
    // with the name inside its JSON quotes, so that it never does.
    text.trim_start().starts_with(['[', '"']).then(|| format!("{{\"contents\":{}}}", text.trim()))
}

/// Gemini CLI's chunks as one candidate; `None` when there are no parts to merge.
pub(super) fn gemini_outputs(value: &Reading<'_>) -> Option<String> {
    let text = value.json();
    if !text.trim_start().starts_with('[') {
        return None;
    }
    let mut parts = String::new();
    for item in items(&text).filter(|item| item.starts_with('{')) {
        let Some(list) = member(item, "parts").filter(|list| list.starts_with('[')) else {
            continue;
        };
        for part in items(list) {
            if !parts.is_empty() {
                parts.push(',');
            }
            parts.push_str(part);
        }
    }
    (!parts.is_empty()).then(|| {
        format!("{{\"candidates\":[{{\"content\":{{\"role\":\"model\",\"parts\":[{parts}]}}}}]}}")
    })
}

/// The text of a member of an object; the last one of a repeated name.
fn member<'t>(object: &'t str, name: &str) -> Option<&'t str> {
    let mut found = None;
    let mut rest = items(object);
    while let (Some(key), Some(value)) = (rest.next(), rest.next()) {
        if unquoted(key).is_some_and(|key| key == name) {
            found = Some(value);
        }
    }
    found
}

/// An object of the given members; `None` when there is none.
pub(super) fn object_of<'a>(
    members: impl Iterator<Item = (&'static str, Reading<'a>)>,
) -> Option<String> {
    let mut object = String::new();
    for (name, value) in members {
        begin_member(name, &mut object);
        object.push_str(value.json().trim());
    }
    end_object(object)
}

/// True for the spans of the Vercel AI SDK that are one call of a model.
pub(super) fn is_vercel_chat(found: &Candidates<'_>) -> bool {
    let Some(operation) = found.value(Key::VercelOperationId).and_then(loose_text) else {
        return false;
    };
    // MLflow takes off up to three layers of quotes, of which one is off already.
    let Peeled::Text(operation) = peel(operation, 2) else {
        return false;
    };
    matches!(&*operation, "ai.generateText.doGenerate" | "ai.streamText.doStream")
}

/// An object of all attributes whose names begin with `prefix`; `None` when there is none.
pub(super) fn vercel_object(span: &SpanView<'_>, prefix: &str) -> Option<String> {
    let mut object = String::new();
    for attribute in span.attributes() {
        let Some(name) = attribute.key.strip_prefix(prefix) else {
            continue;
        };
        begin_member(name, &mut object);
        let mut value = String::new();
        write_unfolded(attribute.value(), &mut value);
        if name == "tools" && value.starts_with('[') {
            write_tools(&value, &mut object);
        } else {
            object.push_str(&value);
        }
    }
    end_object(object)
}

fn begin_member(name: &str, object: &mut String) {
    object.push(if object.is_empty() { '{' } else { ',' });
    write_json_string(name, object);
    object.push(':');
}

fn end_object(mut object: String) -> Option<String> {
    object.push('}');
    (1 < object.len()).then_some(object)
}

/// Tools come as an array of strings that hold JSON.
fn write_tools(tools: &str, out: &mut String) {
    out.push('[');
    for (index, tool) in items(tools).enumerate() {
        if 0 < index {
            out.push(',');
        }
        match unquoted(tool) {
            Some(text) => write_peeled(text, 3, out),
            None => out.push_str(tool),
        }
    }
    out.push(']');
}

/// A value with strings that hold JSON replaced by that JSON, whatever its kind.
fn write_unfolded(value: ValueView<'_>, out: &mut String) {
    match value {
        ValueView::String(text) => {
            // A string in JSON quotes loses them first, without using up a layer.
            let inner = unquoted(text).unwrap_or(Cow::Borrowed(text));
            write_peeled(inner, 2, out);
        }
        ValueView::Empty
        | ValueView::Bool(_)
        | ValueView::Int(_)
        | ValueView::Double(_)
        | ValueView::Array(_)
        | ValueView::KeyValues(_)
        | ValueView::Bytes(_) => write_json(value, out),
    }
}

/// Takes off layers of JSON quotes.
fn peel(mut text: Cow<'_, str>, layers: usize) -> Peeled<'_> {
    for _ in 0..layers {
        match unquoted(&text) {
            Some(inner) => text = Cow::Owned(inner.into_owned()),
            None if is_json(&text) => return Peeled::Json(text),
            None => break,
        }
    }
    Peeled::Text(text)
}

/// What is left when the quotes are off.
enum Peeled<'a> {
    Json(Cow<'a, str>),
    Text(Cow<'a, str>),
}

fn write_peeled(text: Cow<'_, str>, layers: usize, out: &mut String) {
    match peel(text, layers) {
        Peeled::Json(json) => out.push_str(json.trim()),
        Peeled::Text(text) => write_json_string(&text, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peeled(text: &str) -> String {
        let mut out = String::new();
        write_peeled(text.into(), 2, &mut out);
        out
    }

    /// Scenario: strings that hold text, JSON of each kind, and JSON in several layers of quotes.
    /// Guarantees: JSON is taken over as sent; what stays a string is quoted once.
    #[test]
    fn peels_layers_of_quotes() {
        assert_eq!(peeled("hello"), r#""hello""#);
        assert_eq!(peeled(r#" {"a": 1} "#), r#"{"a": 1}"#);
        assert_eq!(peeled("5"), "5");
        assert_eq!(peeled(r#""x""#), r#""x""#);
        assert_eq!(peeled(r#""[1]""#), "[1]");
        assert_eq!(peeled(r#""\"\\\"x\\\"\"""#), r#""\"x\"""#);
    }
}
