//! A JSON document as a tree that borrows from its text.
//!
//! A parser of its own, because what real senders write needs more than a strict one gives: object
//! members keep their order and repeat, numbers keep their digits (no way through `f64`), a lone
//! UTF-16 surrogate spoils one character instead of the document, `NaN` and `Infinity` are read as
//! Python writes them, and depth and size of the tree are bounded.
//!
//! Beyond RFC 8259 it takes a byte order mark, control characters within strings, and those three
//! number names.

use std::borrow::Cow;

use crate::any_value::write_json_string;

mod parser;

pub(crate) use parser::parse;

/// One JSON value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json<'a> {
    Null,
    Bool(bool),
    /// The digits as sent.
    Number(&'a str),
    Text(Cow<'a, str>),
    Array(Vec<Self>),
    /// Members in the order sent; names may repeat.
    Object(Vec<(Cow<'a, str>, Self)>),
}

impl<'a> Json<'a> {
    /// Appends the value as compact JSON text, numbers digit by digit as they came.
    pub(crate) fn write(&self, out: &mut String) {
        match self {
            Json::Null => out.push_str("null"),
            Json::Bool(true) => out.push_str("true"),
            Json::Bool(false) => out.push_str("false"),
            Json::Number(digits) => out.push_str(digits),
            Json::Text(text) => write_json_string(text, out),
            Json::Array(elements) => {
                out.push('[');
                for (index, element) in elements.iter().enumerate() {
                    if 0 < index {
                        out.push(',');
                    }
                    element.write(out);
                }
                out.push(']');
            }
            Json::Object(members) => {
                out.push('{');
                for (index, (name, value)) in members.iter().enumerate() {
                    if 0 < index {
                        out.push(',');
                    }
                    write_json_string(name, out);
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }

    /// The value as compact JSON text.
    pub(crate) fn to_text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    /// The last member with one of these names that is not null.
    pub(crate) fn member(&self, names: &[&str]) -> Option<&Self> {
        let Json::Object(members) = self else { return None };
        let found = members
            .iter()
            .rev()
            .find(|(name, value)| !matches!(value, Json::Null) && names.contains(&name.as_ref()));
        found.map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests;
