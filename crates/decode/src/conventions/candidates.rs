//! One pass over a span's attributes: what the conventions may ask for, by key.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::json_text::{self, Members, Model};
use super::keys::Key;
use super::{Payload, PayloadForm};
use crate::any_value::to_json;
use crate::otlp::view::{KeyValueView, ValueView};

/// An attribute and its position among the attributes of its span.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    position: usize,
    attribute: KeyValueView<'a>,
}

/// The attributes of a span that conventions ask for. Of a repeated name the last one counts, as
/// in MLflow, where attributes are a map.
#[derive(Debug)]
pub(super) struct Candidates<'a> {
    /// Keys that are there, a bit each: most questions are about keys that are not.
    present: u128,
    by_key: SmallVec<[(Key, Candidate<'a>); 16]>,
    /// The first `gen_ai.prompt.<n>.content` that is not empty.
    pub(super) prompt_content: Option<Candidate<'a>>,
    /// The first `gen_ai.completion.<n>.content` that is not empty.
    pub(super) completion_content: Option<Candidate<'a>>,
    /// The first `gen_ai.completion.<n>.tool_calls.<n>.arguments` that is not empty.
    pub(super) tool_call_arguments: Option<Candidate<'a>>,
    /// The span type that the first telling `lk.*` name stands for.
    pub(super) live_kit_type: Option<&'static str>,
}

impl<'a> Candidates<'a> {
    /// Sorts the attributes of a span.
    pub(super) fn collect(attributes: &[KeyValueView<'a>]) -> Self {
        let mut found = Self {
            present: 0,
            by_key: SmallVec::new(),
            prompt_content: None,
            completion_content: None,
            tool_call_arguments: None,
            live_kit_type: None,
        };
        for (position, attribute) in attributes.iter().copied().enumerate() {
            let candidate = Candidate { position, attribute };
            if let Some(key) = Key::of(attribute.key) {
                found.put(key, candidate);
            } else if let Some(rest) = attribute.key.strip_prefix("gen_ai.") {
                found.take_numbered(rest, candidate);
            }
            if found.live_kit_type.is_none() && attribute.key.starts_with("lk.") {
                found.live_kit_type = live_kit_type(attribute.key);
            }
        }
        found
    }

    fn put(&mut self, key: Key, candidate: Candidate<'a>) {
        if self.present & bit(key) == 0 {
            self.present |= bit(key);
            self.by_key.push((key, candidate));
        } else if let Some((_, known)) = self.by_key.iter_mut().find(|(known, _)| *known == key) {
            *known = candidate;
        }
    }

    /// The attribute of `key`.
    #[inline]
    pub(super) fn get(&self, key: Key) -> Option<Candidate<'a>> {
        if self.present & bit(key) == 0 {
            return None;
        }
        self.by_key.iter().find(|(known, _)| *known == key).map(|(_, candidate)| *candidate)
    }

    /// The value of `key`.
    #[inline]
    pub(super) fn value(&self, key: Key) -> Option<ValueView<'a>> {
        self.get(key).map(|candidate| candidate.attribute.value())
    }

    /// The string of `key`, out of its JSON quotes if it has them.
    pub(super) fn text(&self, key: Key) -> Option<Cow<'a, str>> {
        loose_text(self.value(key)?)
    }

    /// The first of `keys` whose value is not empty.
    pub(super) fn first(&self, keys: &[Key]) -> Option<Reading<'a>> {
        keys.iter()
            .filter_map(|key| self.get(*key).map(Candidate::read))
            .find(|reading| reading.truthy)
    }

    fn take_numbered(&mut self, name: &str, candidate: Candidate<'a>) {
        let slot = if let Some(tail) = after_number("prompt.", name) {
            // As in MLflow, what follows `content` does not matter.
            tail.starts_with(".content").then_some(&mut self.prompt_content)
        } else if let Some(tail) = after_number("completion.", name) {
            if tail.starts_with(".content") {
                Some(&mut self.completion_content)
            } else {
                after_number(".tool_calls.", tail)
                    .filter(|tail| tail.starts_with(".arguments"))
                    .map(|_| &mut self.tool_call_arguments)
            }
        } else {
            None
        };
        if let Some(slot) = slot
            && slot.is_none()
            && candidate.read().truthy
        {
            *slot = Some(candidate);
        }
    }
}

/// The bit of `key` among all keys.
#[inline]
const fn bit(key: Key) -> u128 {
    const { assert!(Key::COUNT <= 128) };
    1 << key.index()
}

impl<'a> Candidate<'a> {
    /// Reads the value the way MLflow stores it: a string that holds a JSON string, array or
    /// object is that JSON, any other string is a string.
    pub(super) fn read(self) -> Reading<'a> {
        let value = self.attribute.value();
        let (form, truthy, members) = match value {
            ValueView::String(text) => match json_text::document(text) {
                Some(document) => (PayloadForm::Text, document.truthy, document.members),
                None => (PayloadForm::Quoted, !text.is_empty(), Members::default()),
            },
            ValueView::Empty => (PayloadForm::Value, false, Members::default()),
            ValueView::Bool(value) => (PayloadForm::Value, value, Members::default()),
            ValueView::Int(value) => (PayloadForm::Value, value != 0, Members::default()),
            ValueView::Double(value) => (PayloadForm::Value, value != 0.0, Members::default()),
            ValueView::Array(array) => {
                (PayloadForm::Value, array.iter().next().is_some(), Members::default())
            }
            ValueView::KeyValues(entries) => {
                let truthy = entries.iter().next().is_some();
                (PayloadForm::Value, truthy, members_of(entries.iter()))
            }
            ValueView::Bytes(_) => (PayloadForm::Value, true, Members::default()),
        };
        Reading { candidate: self, value, form, truthy, members }
    }
}

/// An attribute's value as inputs or outputs.
#[derive(Clone, Debug)]
pub(super) struct Reading<'a> {
    candidate: Candidate<'a>,
    value: ValueView<'a>,
    form: PayloadForm,
    /// False for what counts as absent: `""`, `[]`, `{}`, `0`, `false`, no value.
    pub(super) truthy: bool,
    /// What the value says, if it is an object.
    pub(super) members: Members<'a>,
}

impl<'a> Reading<'a> {
    /// The attribute as inputs or outputs.
    pub(super) fn payload(&self) -> Payload<'a> {
        Payload::Attribute {
            position: self.candidate.position,
            key: self.candidate.attribute.key,
            value: self.value,
            form: self.form,
        }
    }

    /// The value as JSON text.
    pub(super) fn json(&self) -> Cow<'a, str> {
        attribute_json(self.value, self.form)
    }

    /// The string, out of its JSON quotes if it has them; `None` for anything else.
    pub(super) fn text(&self) -> Option<Cow<'a, str>> {
        loose_text(self.value)
    }
}

/// The text of a string; MLflow's SDK sends strings as JSON, others send them bare.
///
/// `None` for a value that is no string, and for the JSON of an array or object.
pub(super) fn loose_text(value: ValueView<'_>) -> Option<Cow<'_, str>> {
    let text = value.as_str()?;
    if let Some(inner) = json_text::unquoted(text) {
        return Some(inner);
    }
    let structured =
        text.trim_start().starts_with(['{', '[']) && json_text::document(text).is_some();
    (!structured).then_some(Cow::Borrowed(text))
}

/// The JSON text that `form` makes of an attribute's value.
pub(super) fn attribute_json(value: ValueView<'_>, form: PayloadForm) -> Cow<'_, str> {
    match (form, value) {
        (PayloadForm::Text, ValueView::String(text)) => Cow::Borrowed(text),
        _ => Cow::Owned(to_json(value)),
    }
}

/// Any value as text: a string out of its JSON quotes, JSON as it is, other values as JSON.
pub(super) fn any_text(value: ValueView<'_>) -> Cow<'_, str> {
    match value {
        ValueView::String(text) => json_text::unquoted(text).unwrap_or(Cow::Borrowed(text)),
        ValueView::Empty
        | ValueView::Bool(_)
        | ValueView::Int(_)
        | ValueView::Double(_)
        | ValueView::Array(_)
        | ValueView::KeyValues(_)
        | ValueView::Bytes(_) => Cow::Owned(to_json(value)),
    }
}

/// What follows `prefix` and a number in `name`.
fn after_number<'n>(prefix: &str, name: &'n str) -> Option<&'n str> {
    let rest = name.strip_prefix(prefix)?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    rest.get(digits..).filter(|_| 0 < digits)
}

fn members_of<'a>(entries: impl Iterator<Item = KeyValueView<'a>>) -> Members<'a> {
    let mut members = Members::default();
    for entry in entries {
        if entry.key == "model" {
            members.model = match entry.value().as_str() {
                Some("") => Model::Absent,
                Some(name) => Model::Name(Cow::Borrowed(name)),
                None => Model::Other,
            };
        }
    }
    members
}

fn live_kit_type(name: &str) -> Option<&'static str> {
    match name {
        "lk.retry_count" => Some("LLM"),
        "lk.agent_name" | "lk.instructions" | "lk.generation_id" => Some("AGENT"),
        "lk.input_text" | "lk.user_transcript" => Some("UNKNOWN"),
        "lk.transcript_confidence" | "lk.transcription_delay" => Some("UNKNOWN"),
        _ if name.starts_with("lk.function_tool") => Some("TOOL"),
        _ if name.starts_with("lk.tts") => Some("UNKNOWN"),
        _ => None,
    }
}
