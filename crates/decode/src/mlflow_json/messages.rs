//! Reads members of MLflow's REST messages; the first fault refuses the whole message.

use std::collections::BTreeMap;

use super::time::{parse_duration_ms, parse_rfc3339_micros};
use crate::error::DecodeError;
use crate::otlp_json::document::Json;
use crate::otlp_json::members::{self, Fault, Path};

/// A fault in a message that is refused as a whole.
pub(super) fn shape(fault: Fault) -> DecodeError {
    DecodeError::Shape { path: fault.path, expected: fault.expected }
}

/// A message whose members are read by name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'j, 'a, 'p> {
    pub(super) value: &'j Json<'a>,
    pub(super) path: Path<'p>,
}

impl<'j, 'a, 'p> Message<'j, 'a, 'p> {
    pub(super) fn new(value: &'j Json<'a>, path: Path<'p>) -> Result<Self, Fault> {
        members::object(value, path)?;
        Ok(Self { value, path })
    }

    pub(super) fn text(&self, names: &[&'static str; 2]) -> Result<Option<String>, Fault> {
        self.read(names, |value, path| members::text(value, path).map(str::to_owned))
    }

    pub(super) fn boolean(&self, names: &[&'static str; 2]) -> Result<Option<bool>, Fault> {
        self.read(names, members::boolean)
    }

    /// An RFC 3339 time as microseconds since the Unix epoch.
    pub(super) fn time(&self, names: &[&'static str; 2]) -> Result<Option<i64>, Fault> {
        self.read(names, |value, path| {
            parse_rfc3339_micros(members::text(value, path)?)
                .ok_or_else(|| path.expected("an RFC 3339 time", value))
        })
    }

    /// A protobuf duration, `"0.093s"`, as milliseconds.
    pub(super) fn duration(&self, names: &[&'static str; 2]) -> Result<Option<i64>, Fault> {
        self.read(names, |value, path| {
            parse_duration_ms(members::text(value, path)?)
                .ok_or_else(|| path.expected("a duration in seconds such as 0.093s", value))
        })
    }

    pub(super) fn integer(&self, names: &[&'static str; 2]) -> Result<Option<i64>, Fault> {
        self.read(names, |value, path| members::integer(value, path, "an integer of 64 bits"))
    }

    /// A map of strings; values of another type count as their JSON text.
    pub(super) fn map(&self, names: &[&'static str; 2]) -> Result<BTreeMap<String, String>, Fault> {
        let map = self.read(names, |value, path| {
            let entries = members::object(value, path)?.iter().map(|(key, value)| {
                let text = match value {
                    Json::Text(text) => text.clone().into_owned(),
                    value => value.to_text(),
                };
                (key.clone().into_owned(), text)
            });
            Ok(entries.collect())
        })?;
        Ok(map.unwrap_or_default())
    }

    /// The compact JSON text of a member of any type.
    pub(super) fn json(&self, names: &[&'static str; 2]) -> Option<String> {
        self.value.member(names).map(Json::to_text)
    }

    /// Reads the member with one of these names, if it is there and not null.
    pub(super) fn read<T>(
        &self,
        names: &[&'static str; 2],
        read: impl FnOnce(&'j Json<'a>, Path<'_>) -> Result<T, Fault>,
    ) -> Result<Option<T>, Fault> {
        let [name, _] = names;
        self.value.member(names).map(|value| read(value, self.path.member(name))).transpose()
    }
}

/// Collects the members of an object to be written.
#[derive(Debug, Default)]
pub(super) struct MembersWriter<'a> {
    members: Vec<(std::borrow::Cow<'a, str>, Json<'a>)>,
}

impl<'a> MembersWriter<'a> {
    pub(super) fn json(&mut self, name: &'static str, value: Json<'a>) {
        self.members.push((name.into(), value));
    }

    pub(super) fn text(&mut self, name: &'static str, text: Option<&'a str>) {
        if let Some(text) = text {
            self.json(name, Json::Text(text.into()));
        }
    }

    pub(super) fn owned_text(&mut self, name: &'static str, text: Option<String>) {
        if let Some(text) = text {
            self.json(name, Json::Text(text.into()));
        }
    }

    /// A map, left out when empty as protobuf does.
    pub(super) fn map(&mut self, name: &'static str, map: &'a BTreeMap<String, String>) {
        if !map.is_empty() {
            let entries = map
                .iter()
                .map(|(key, value)| (key.as_str().into(), Json::Text(value.as_str().into())));
            self.json(name, Json::Object(entries.collect()));
        }
    }

    pub(super) fn into_object(self) -> Json<'a> {
        Json::Object(self.members)
    }
}

/// The same value in serde_json's terms: numbers of more than 64 bits become doubles.
pub(super) fn to_value(json: &Json<'_>) -> serde_json::Value {
    use serde_json::Value;
    match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(digits) => serde_json::from_str(digits)
            .unwrap_or_else(|_| members::double_of(digits).map_or(Value::Null, Value::from)),
        Json::Text(text) => Value::String(text.clone().into_owned()),
        Json::Array(elements) => Value::Array(elements.iter().map(to_value).collect()),
        Json::Object(members) => Value::Object(
            members.iter().map(|(name, value)| (name.to_string(), to_value(value))).collect(),
        ),
    }
}
