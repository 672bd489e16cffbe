//! Names from outside, decoded into types that know how to quote themselves.
//!
//! A name never becomes a path or SQL by formatting: paths are built in the lake room's layout,
//! SQL identifiers by [`TableName::to_sql`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name part in characters, as Unity Catalog has it.
const MAX_NAME_CHARS: usize = 255;

/// Why a name was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A table name has three parts.
    #[error("table name `{name}`: expected catalog.schema.table")]
    NotThreeParts {
        /// What was given, with control characters escaped.
        name: String,
    },
    /// A part is empty, too long or has a character that Unity Catalog refuses.
    #[error("name `{name}`: {reason}")]
    Invalid {
        /// What was given, with control characters escaped.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An experiment id is a decimal number of at most 18 digits.
    #[error("experiment id `{id}`: expected a decimal number")]
    ExperimentId {
        /// What was given, with control characters escaped.
        id: String,
    },
}

/// A table's full name, `catalog.schema.table`. Parts are case-preserving and non-empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TableName {
    catalog: String,
    schema: String,
    table: String,
}

impl TableName {
    /// Checks the three parts.
    ///
    /// # Errors
    /// [`NameError::Invalid`] for a part that Unity Catalog would refuse.
    pub fn new(catalog: &str, schema: &str, table: &str) -> Result<Self, NameError> {
        for part in [catalog, schema, table] {
            check_part(part)?;
        }
        Ok(Self { catalog: catalog.into(), schema: schema.into(), table: table.into() })
    }

    /// Catalog part.
    #[must_use]
    pub fn catalog(&self) -> &str {
        &self.catalog
    }

    /// Schema part.
    #[must_use]
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// Table part.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }

    /// The name as a quoted SQL identifier: `` `catalog`.`schema`.`table` ``.
    #[must_use]
    pub fn to_sql(&self) -> String {
        let quote = |part: &str| format!("`{}`", part.replace('`', "``"));
        format!("{}.{}.{}", quote(&self.catalog), quote(&self.schema), quote(&self.table))
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.{}", self.catalog, self.schema, self.table)
    }
}

impl FromStr for TableName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let parts: Vec<&str> = name.split('.').collect();
        match parts.as_slice() {
            [catalog, schema, table] => Self::new(catalog, schema, table),
            _ => Err(NameError::NotThreeParts { name: printable(name) }),
        }
    }
}

impl TryFrom<String> for TableName {
    type Error = NameError;

    fn try_from(name: String) -> Result<Self, NameError> {
        name.parse()
    }
}

impl From<TableName> for String {
    fn from(name: TableName) -> Self {
        name.to_string()
    }
}

/// An MLflow experiment id: a decimal number, `0` is `Default`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ExperimentId(String);

impl ExperimentId {
    /// The experiment that always exists.
    #[must_use]
    pub fn default_experiment() -> Self {
        Self("0".into())
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number; at most 18 digits fit.
    #[must_use]
    pub fn number(&self) -> i64 {
        self.0.parse().unwrap_or_default()
    }
}

impl From<i64> for ExperimentId {
    /// Negative numbers become `0`: ids are never negative.
    fn from(number: i64) -> Self {
        Self(number.max(0).to_string())
    }
}

impl FromStr for ExperimentId {
    type Err = NameError;

    fn from_str(id: &str) -> Result<Self, NameError> {
        let digits = !id.is_empty() && id.len() <= 18 && id.bytes().all(|b| b.is_ascii_digit());
        let canonical = id == "0" || !id.starts_with('0');
        if digits && canonical {
            Ok(Self(id.into()))
        } else {
            Err(NameError::ExperimentId { id: printable(id) })
        }
    }
}

impl TryFrom<String> for ExperimentId {
    type Error = NameError;

    fn try_from(id: String) -> Result<Self, NameError> {
        id.parse()
    }
}

impl From<ExperimentId> for String {
    fn from(id: ExperimentId) -> Self {
        id.0
    }
}

impl fmt::Display for ExperimentId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Checks one part of a table name by Unity Catalog's rules (no period, space, slash, control
/// character or DEL; at most 255 characters), and refuses what could pass for another name on a
/// terminal: bidirectional and zero-width format characters.
fn check_part(part: &str) -> Result<(), NameError> {
    let reason = if part.is_empty() {
        "a name must not be empty"
    } else if MAX_NAME_CHARS < part.chars().count() {
        "a name has at most 255 characters"
    } else if part.chars().any(|c| matches!(c, '.' | ' ' | '/' | '\\') || c.is_control()) {
        "a name has no period, space, slash or control character"
    } else if part.chars().any(is_invisible) {
        "a name has no invisible or direction-changing character"
    } else {
        return Ok(());
    };
    Err(NameError::Invalid { name: printable(part), reason })
}

/// Characters that show as nothing or reorder the text around them.
const fn is_invisible(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// `text` with control and invisible characters escaped and at most 80 characters, for messages.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut shown = String::new();
    for character in text.chars().take(80) {
        push_printable(&mut shown, character);
    }
    if 80 < text.chars().count() {
        shown.push_str("...");
    }
    shown
}

/// `text` of any length with control and invisible characters escaped, line ends kept: what may be
/// shown of a message that quotes what somebody typed.
#[must_use]
pub fn printable_lines(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character == '\n' {
            shown.push(character);
        } else {
            push_printable(&mut shown, character);
        }
    }
    shown
}

fn push_printable(shown: &mut String, character: char) {
    if character.is_control() || is_invisible(character) {
        shown.extend(character.escape_unicode());
    } else {
        shown.push(character);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: good names, and names that would be paths, SQL, control codes or look-alikes.
    /// Guarantees: only good ones are accepted; quoting doubles back-ticks.
    #[test]
    fn accepts_only_names_that_unity_catalog_accepts() {
        let name: TableName = "production.monitoring.agent_traces".parse().unwrap();
        assert_eq!(name.to_string(), "production.monitoring.agent_traces");
        let odd = TableName::new("a`b", "c-d", "t").unwrap();
        assert_eq!(odd.to_sql(), "`a``b`.`c-d`.`t`");
        let long = "x".repeat(256);
        for wrong in ["a.b", "a.b.c.d", "a..c", "a.b/../c.d", "a.b.c d", "a.b.\u{1b}[0m"] {
            assert!(wrong.parse::<TableName>().is_err(), "{wrong}");
        }
        assert!(TableName::new("a", "b", &long).is_err());
        assert!(TableName::new("a", "b", "c\u{202e}d").is_err());
    }

    /// Scenario: decimal ids and everything else.
    /// Guarantees: one spelling per number, nothing that is not a number.
    #[test]
    fn experiment_ids_are_canonical_numbers() {
        assert_eq!("42".parse::<ExperimentId>().unwrap().number(), 42);
        for wrong in ["", "-1", "01", "1e3", "x", "9999999999999999999"] {
            assert!(wrong.parse::<ExperimentId>().is_err(), "{wrong}");
        }
    }

    /// Scenario: escape codes, C1 codes, reordering and unseen characters, line ends.
    /// Guarantees: nothing that a terminal acts on is left; lines stay lines where they are kept.
    #[test]
    fn what_is_shown_cannot_act() {
        let text = "a\u{1b}[31mb\r\n\u{9b}2J\u{202e}c\u{200b}";
        assert_eq!(printable_lines(text), "a\\u{1b}[31mb\\u{d}\n\\u{9b}2J\\u{202e}c\\u{200b}");
        assert_eq!(printable("a\nb"), "a\\u{a}b");
        assert_eq!(printable(&"x".repeat(100)).chars().count(), 83);
    }
}
