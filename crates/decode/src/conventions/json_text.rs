//! Questions about JSON text, answered in one pass without building a tree.
//!
//! Payloads reach hundreds of kilobytes, and most of them are asked only: is this JSON, is it
//! empty, does it name a model? Nothing here recurses, so nesting depth costs nothing.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// What a JSON string, array or object is, as far as the conventions ask.
#[derive(Clone, Debug, Default)]
pub(super) struct Document<'a> {
    /// False for `""`, `[]` and `{}`.
    pub(super) truthy: bool,
    /// Members of an object that conventions look for.
    pub(super) members: Members<'a>,
}

/// Members of a JSON object that conventions look for.
#[derive(Clone, Debug, Default)]
pub(super) struct Members<'a> {
    /// The member `model`.
    pub(super) model: Model<'a>,
}

impl Members<'_> {
    /// The same, without the text that it came from.
    pub(super) fn into_owned<'b>(self) -> Members<'b> {
        let model = match self.model {
            Model::Absent => Model::Absent,
            Model::Name(name) => Model::Name(Cow::Owned(name.into_owned())),
            Model::Other => Model::Other,
        };
        Members { model }
    }
}

/// The member `model` of inputs or outputs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Model<'a> {
    /// Not there, or empty.
    #[default]
    Absent,
    /// A name.
    Name(Cow<'a, str>),
    /// Something that is no name; it ends the search all the same.
    Other,
}

/// Reads `text` if it is a JSON string, array or object; numbers and literals do not count.
pub(super) fn document(text: &str) -> Option<Document<'_>> {
    let text = trim(text);
    match (text.as_bytes().first()?, text.as_bytes().last()?) {
        (b'"', b'"') => {
            is_json(text).then(|| Document { truthy: 2 < text.len(), ..Document::default() })
        }
        (b'[', b']') => {
            let empty = text.len() == 2 || trim(text.get(1..text.len() - 1)?).is_empty();
            is_json(text).then(|| Document { truthy: !empty, ..Document::default() })
        }
        (b'{', b'}') => match serde_json::from_str(text) {
            Ok(Object { truthy, members }) => Some(Document { truthy, members }),
            // A lone surrogate in a member's name stops the reading of names; it is JSON still.
            Err(_) => is_json(text).then(|| Document { truthy: true, members: Members::default() }),
        },
        _ => None,
    }
}

/// True for any JSON text, scalars included.
pub(super) fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// The text of a JSON string, `None` when `text` is anything else.
pub(super) fn unquoted(text: &str) -> Option<Cow<'_, str>> {
    let trimmed = trim(text);
    if !trimmed.starts_with('"') {
        return None;
    }
    // Without escapes the text is borrowed.
    serde_json::from_str::<&str>(trimmed)
        .map(Cow::Borrowed)
        .or_else(|_| serde_json::from_str::<String>(trimmed).map(Cow::Owned))
        .ok()
}

/// The texts of the elements of an array, or of the names and values of an object in turn.
///
/// `text` must be JSON; of anything else some slices come out, never a panic.
pub(super) fn items(text: &str) -> impl Iterator<Item = &str> {
    let bytes = text.as_bytes();
    let mut at = bytes.iter().position(|b| !is_space(*b)).unwrap_or_default() + 1;
    std::iter::from_fn(move || {
        while bytes.get(at).is_some_and(|b| is_space(*b) || matches!(b, b',' | b':')) {
            at += 1;
        }
        let start = at;
        at = value_end(bytes, start);
        (start < at).then(|| text.get(start..at)).flatten()
    })
}

fn value_end(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = start;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = string_end(bytes, at);
                if depth == 0 {
                    return at;
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 0 => return at,
            b'}' | b']' if depth == 1 => return at + 1,
            b'}' | b']' => depth -= 1,
            b',' | b':' if depth == 0 => return at,
            _ if depth == 0 && is_space(byte) => return at,
            _ => {}
        }
        at += 1;
    }
    at
}

fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'"' => return at,
            b'\\' => at += 1,
            _ => {}
        }
    }
    bytes.len()
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\n', '\r'])
}

struct Object<'a> {
    truthy: bool,
    members: Members<'a>,
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;
        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Object<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut object = Object { truthy: false, members: Members::default() };
                while let Some(name) = map.next_key::<Name>()? {
                    object.truthy = true;
                    match name {
                        Name::Model => object.members.model = map.next_value()?,
                        Name::Other => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(object)
            }
        }
        deserializer.deserialize_map(ObjectVisitor)
    }
}

/// Names of members, without keeping their text.
enum Name {
    Model,
    Other,
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl Visitor<'_> for NameVisitor {
            type Value = Name;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a name")
            }

            fn visit_str<E>(self, name: &str) -> Result<Name, E> {
                Ok(if name == "model" { Name::Model } else { Name::Other })
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}

impl<'de> Deserialize<'de> for Model<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ModelVisitor)
    }
}

struct ModelVisitor;

impl ModelVisitor {
    const fn truth<'de, E>(truthy: bool) -> Result<Model<'de>, E> {
        Ok(if truthy { Model::Other } else { Model::Absent })
    }
}

impl<'de> Visitor<'de> for ModelVisitor {
    type Value = Model<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Model<'de>, E> {
        Ok(if text.is_empty() { Model::Absent } else { Model::Name(Cow::Borrowed(text)) })
    }

    fn visit_str<E>(self, text: &str) -> Result<Model<'de>, E> {
        Ok(if text.is_empty() { Model::Absent } else { Model::Name(Cow::Owned(text.to_owned())) })
    }

    fn visit_unit<E>(self) -> Result<Model<'de>, E> {
        Self::truth(false)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Model<'de>, E> {
        Self::truth(value)
    }

    fn visit_i64<E>(self, value: i64) -> Result<Model<'de>, E> {
        Self::truth(value != 0)
    }

    fn visit_u64<E>(self, value: u64) -> Result<Model<'de>, E> {
        Self::truth(value != 0)
    }

    fn visit_f64<E>(self, value: f64) -> Result<Model<'de>, E> {
        Self::truth(value != 0.0)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Model<'de>, A::Error> {
        let mut truthy = false;
        while elements.next_element::<IgnoredAny>()?.is_some() {
            truthy = true;
        }
        Self::truth(truthy)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Model<'de>, A::Error> {
        let mut truthy = false;
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            truthy = true;
        }
        Self::truth(truthy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: texts that are and are not JSON documents.
    /// Guarantees: only strings, arrays and objects count, and empty ones are told apart.
    #[test]
    fn tells_documents_from_other_text() {
        for text in ["\"a\"", " [1, 2] ", "{\"a\": {\"b\": []}}", "[ [] ]", r#""\ud83d""#] {
            assert!(document(text).is_some_and(|d| d.truthy), "{text}");
        }
        for text in ["\"\"", "[]", "{}", " [ ] ", "{ }"] {
            assert!(document(text).is_some_and(|d| !d.truthy), "{text}");
        }
        for text in ["", " ", "5", "null", "true", "hello", "[x]", "{a}", "\"a", "[1]]", "\""] {
            assert!(document(text).is_none(), "{text}");
        }
        let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
        assert!(document(&deep).is_some());
        let deep = format!("{{\"a\":{deep}}}");
        assert!(document(&deep).is_some());
    }

    /// Scenario: objects with a model of each kind, nested, repeated and escaped.
    /// Guarantees: only a member of the object itself counts, the last one, and emptiness is seen.
    #[test]
    fn finds_the_model_of_an_object() {
        let model = |text| document(text).map(|d| d.members.model).unwrap_or_default();
        assert_eq!(model(r#"{"a":{"model":"x"},"model":"gpt"}"#), Model::Name("gpt".into()));
        assert_eq!(model(r#"{"mod\u0065l":"g\u0070t"}"#), Model::Name("gpt".into()));
        assert_eq!(model(r#"{"model":"a","model":""}"#), Model::Absent);
        assert_eq!(model(r#"{"model":{"name":"a"}}"#), Model::Other);
        assert_eq!(model(r#"{"model":[]}"#), Model::Absent);
        assert_eq!(model(r#"{"a":{"model":"x"}}"#), Model::Absent);
    }

    /// Scenario: arrays and objects with brackets and commas inside of strings.
    /// Guarantees: each element, name and value comes out as its own text.
    #[test]
    fn cuts_arrays_and_objects_into_items() {
        let cut = |text| items(text).collect::<Vec<_>>();
        assert_eq!(
            cut(r#" [1, "a,]\"", {"b": [2]} ,null]"#),
            ["1", r#""a,]\"""#, r#"{"b": [2]}"#, "null"]
        );
        assert_eq!(cut(r#"{"a":1,"b" : {"c":[]}}"#), ["\"a\"", "1", "\"b\"", r#"{"c":[]}"#]);
        assert!(cut("[]").is_empty());
        assert!(cut("").is_empty());
    }
}
