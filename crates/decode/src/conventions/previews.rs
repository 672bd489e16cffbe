//! The first characters of a trace's inputs and outputs, for lists.

use serde::Deserialize;
use serde_json::Value;

/// Characters of a preview, the ellipsis included.
const MAX_CHARACTERS: usize = 1000;

/// The preview of JSON text: of chat messages the text of the last one with `role`, or else of the
/// last one; of anything else its beginning.
pub(super) fn preview(json: &str, role: &str) -> String {
    let content = message_text(json, role).filter(|content| !content.is_empty());
    shorten(content.as_deref().unwrap_or(json))
}

/// At most [`MAX_CHARACTERS`], without NUL, which databases refuse.
fn shorten(text: &str) -> String {
    let cut = text.char_indices().nth(MAX_CHARACTERS).and_then(|_| {
        let (end, _) = text.char_indices().nth(MAX_CHARACTERS - 3)?;
        text.get(..end)
    });
    let mut preview = cut.unwrap_or(text).replace('\0', "\u{fffd}");
    if cut.is_some() {
        preview.push_str("...");
    }
    preview
}

/// Where chat requests and answers keep their messages; other members are skipped unread.
#[derive(Deserialize)]
struct Chat {
    #[serde(default)]
    messages: Value,
    #[serde(default)]
    choices: Value,
    #[serde(default)]
    input: Value,
    #[serde(default)]
    output: Value,
    request: Option<Value>,
}

fn message_text(json: &str, role: &str) -> Option<String> {
    if !json.trim_start().starts_with('{') {
        return None;
    }
    // Text that cannot be read this way (nested too deep, a name twice) is shown as it is.
    let chat: Chat = serde_json::from_str(json).ok()?;
    let mut messages = messages_of([&chat.messages, &chat.choices, &chat.input, &chat.output]);
    let mut request = chat.request.as_ref();
    while let (None, Some(Value::Object(object))) = (&messages, request) {
        let member = |name: &str| object.get(name).unwrap_or(&Value::Null);
        let members = ["messages", "choices", "input", "output"].map(member);
        messages = messages_of(members);
        request = object.get("request");
    }
    let messages = messages?;
    let of_role = |message: &&&Value| message.get("role").and_then(Value::as_str) == Some(role);
    let message = messages.iter().rev().find(of_role).or_else(|| messages.last())?;
    content_text(message.get("content")?)
}

/// The messages under the first member that has a list; `None` when there is none.
fn messages_of([messages, choices, input, output]: [&Value; 4]) -> Option<Vec<&Value>> {
    let list = |value: &'_ Value| value.as_array().is_some_and(|list| !list.is_empty());
    if list(messages) {
        return Some(messages.as_array()?.iter().filter(|item| is_message(item)).collect());
    }
    let choice = choices.get(0).and_then(|choice| choice.get("message"));
    if let Some(message) = choice.filter(|message| is_message(message)) {
        return Some(vec![message]);
    }
    [input, output]
        .into_iter()
        .find(|value| list(value))
        .and_then(Value::as_array)
        .map(|list| list.iter().filter(|item| is_message(item)).collect())
}

fn is_message(item: &Value) -> bool {
    item.get("role").is_some() && item.get("content").is_some()
}

/// A message's text: itself, or its first part that is text.
fn content_text(content: &Value) -> Option<String> {
    match content {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => parts.iter().find_map(|part| match part {
            Value::String(text) => Some(text.clone()),
            Value::Object(part) => {
                let kind = part.get("type").and_then(Value::as_str);
                let is_text = matches!(kind, Some("text" | "output_text"));
                part.get("text").filter(|_| is_text)?.as_str().map(str::to_owned)
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => None,
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: chat requests and answers in each known shape, and text in none of them.
    /// Guarantees: the last message of the role is shown, else the last, else the text itself.
    #[test]
    fn shows_the_message_that_matters() {
        let user = |json| preview(json, "user");
        assert_eq!(
            user(r#"{"messages":[{"role":"user","content":"a"},{"role":"tool","content":"b"}]}"#),
            "a"
        );
        assert_eq!(user(r#"{"messages":[{"role":"system","content":"s"}]}"#), "s");
        let answer = r#"{"choices":[{"message":{"role":"assistant","content":
            [{"type":"image"},{"type":"text","text":"hi"}]}}]}"#;
        assert_eq!(preview(answer, "assistant"), "hi");
        assert_eq!(user(r#"{"request":{"input":[{"role":"user","content":"q"}]}}"#), "q");
        for plain in [r#""text""#, r#"{"a":1}"#, r#"{"messages":[{"role":"user"}]}"#, "[1]"] {
            assert_eq!(user(plain), plain);
        }
    }

    /// Scenario: text at and past the limit, of wide characters, with a NUL.
    /// Guarantees: characters are counted, not bytes, and the limit holds with the ellipsis.
    #[test]
    fn shortens_by_characters() {
        let wide = "\u{1f600}".repeat(1000);
        assert_eq!(shorten(&wide), wide);
        let cut = shorten(&format!("{wide}x"));
        assert_eq!((cut.chars().count(), cut.ends_with("...")), (1000, true));
        assert_eq!(shorten("a\0b"), "a\u{fffd}b");
    }
}
