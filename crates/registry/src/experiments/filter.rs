//! The filter and order of `experiments/search`, parsed.
//!
//! Grammar: clauses joined by `AND`; a clause is `key comparator value`. A key is an attribute
//! (`name`, `experiment_id`, `creation_time`, `last_update_time`, each also with the prefix
//! `attribute.` or `attributes.`) or a tag (`tag.k`, `tags.k`), where `k` may be quoted with
//! back-ticks or double quotes. Pure.

use tracelake_model::ExperimentId;

use crate::error::RegistryError;

/// Longest filter in bytes, and most clauses in it: what SQLite is asked must stay small.
const MAX_FILTER_BYTES: usize = 16_384;
const MAX_CLAUSES: usize = 64;

/// Column of the experiments table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attribute {
    Name,
    ExperimentId,
    CreationTime,
    LastUpdateTime,
}

impl Attribute {
    pub(super) const fn column(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::ExperimentId => "experiment_id",
            Self::CreationTime => "creation_time_ms",
            Self::LastUpdateTime => "last_update_time_ms",
        }
    }

    fn parse(key: &str) -> Result<Self, RegistryError> {
        match key {
            "name" => Ok(Self::Name),
            "experiment_id" => Ok(Self::ExperimentId),
            "creation_time" => Ok(Self::CreationTime),
            "last_update_time" => Ok(Self::LastUpdateTime),
            _ => Err(invalid(format!(
                "Invalid attribute key '{key}' specified. Valid keys are '{{'name', \
                 'experiment_id', 'creation_time', 'last_update_time'}}'"
            ))),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextComparator {
    Equal,
    NotEqual,
    /// `%` and `_` are wildcards, case matters.
    Like,
    /// As `Like`, ASCII case does not matter.
    ILike,
}

/// One clause of a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Clause {
    Name(TextComparator, String),
    Tag {
        key: String,
        comparator: TextComparator,
        value: String,
    },
    TagPresent {
        key: String,
        present: bool,
    },
    /// The comparator is SQL as it stands.
    Number {
        attribute: Attribute,
        comparator: &'static str,
        value: i64,
    },
}

/// Parses a filter; an empty one has no clauses.
pub(super) fn parse_filter(filter: &str) -> Result<Vec<Clause>, RegistryError> {
    if MAX_FILTER_BYTES < filter.len() {
        return Err(RegistryError::TooLong { parameter: "filter", limit: MAX_FILTER_BYTES });
    }
    let mut words = tokenize(filter)?.into_iter().peekable();
    let mut clauses = Vec::new();
    while let Some(word) = words.next() {
        let Token::Word(key) = word else { return Err(unexpected(&word)) };
        let comparator = comparator(&mut words)?;
        clauses.push(if let Some(present) = comparator.strip_prefix("IS ") {
            presence(&key, present == "NOT NULL")?
        } else {
            let value = words.next().ok_or_else(|| {
                invalid(format!("Invalid clause(s) in filter string: {key} {comparator}"))
            })?;
            clause(&key, comparator, value)?
        });
        if MAX_CLAUSES < clauses.len() {
            return Err(invalid(format!("a filter has at most {MAX_CLAUSES} clauses")));
        }
        match words.next() {
            None => break,
            Some(Token::Word(and)) if and.eq_ignore_ascii_case("AND") && words.peek().is_some() => {
            }
            Some(other) => return Err(unexpected(&other)),
        }
    }
    Ok(clauses)
}

/// Parses one entry of `order_by` to an attribute and whether it ascends.
pub(super) fn parse_order(order_by: &str) -> Result<(Attribute, bool), RegistryError> {
    let words: Vec<&str> = order_by.split_whitespace().collect();
    let (key, ascending) = match words.as_slice() {
        [key] => (*key, true),
        [key, direction] if direction.eq_ignore_ascii_case("ASC") => (*key, true),
        [key, direction] if direction.eq_ignore_ascii_case("DESC") => (*key, false),
        [_, _] => {
            let reason = format!("Invalid ordering key in order_by clause '{order_by}'.");
            return Err(invalid(reason));
        }
        _ => {
            let reason = format!("Invalid order_by clause '{order_by}'. Could not be parsed.");
            return Err(invalid(reason));
        }
    };
    match identify(key)? {
        Key::Attribute(attribute) => Ok((attribute, ascending)),
        Key::Tag(_) => Err(invalid("Invalid order_by entity: tag".to_owned())),
    }
}

enum Key {
    Attribute(Attribute),
    Tag(String),
}

fn identify(word: &str) -> Result<Key, RegistryError> {
    let unquote = |text: &str| text.trim_matches(['`', '"']).to_owned();
    match word.split_once('.') {
        None => Attribute::parse(&unquote(word)).map(Key::Attribute),
        Some(("attribute" | "attributes", key)) => {
            Attribute::parse(&unquote(key)).map(Key::Attribute)
        }
        Some(("tag" | "tags", key)) => Ok(Key::Tag(unquote(key))),
        Some((entity, _)) => Err(invalid(format!(
            "Invalid entity type '{entity}'. Valid entity types are ('attribute', 'attributes', \
             'tag', 'tags')"
        ))),
    }
}

fn presence(key: &str, present: bool) -> Result<Clause, RegistryError> {
    match identify(key)? {
        Key::Tag(key) => Ok(Clause::TagPresent { key, present }),
        Key::Attribute(_) => Err(invalid(format!(
            "IS NULL / IS NOT NULL is only supported for tags, not for attribute '{key}'"
        ))),
    }
}

fn clause(key: &str, comparator: &'static str, value: Token) -> Result<Clause, RegistryError> {
    match (identify(key)?, value) {
        (Key::Tag(key), Token::Text(value)) => {
            let comparator = text_comparator(comparator)
                .ok_or_else(|| invalid(format!("Invalid comparator for tag: {comparator}")))?;
            Ok(Clause::Tag { key, comparator, value })
        }
        (Key::Tag(_), Token::Word(word) | Token::Symbol(word)) => Err(invalid(format!(
            "Expected a quoted string value for tag (e.g. 'my-value'). Got value {word}"
        ))),
        (Key::Attribute(Attribute::Name), Token::Text(value)) => {
            let comparator = text_comparator(comparator).ok_or_else(|| {
                invalid(format!("Invalid comparator for string attribute: {comparator}"))
            })?;
            Ok(Clause::Name(comparator, value))
        }
        (Key::Attribute(Attribute::ExperimentId), Token::Text(id)) => {
            if !matches!(comparator, "=" | "!=") {
                let reason = format!("Invalid comparator for experiment_id: {comparator}");
                return Err(invalid(reason));
            }
            let id: ExperimentId = id.parse().map_err(|_| {
                invalid(format!(
                    "Invalid experiment ID '{id}'. Experiment ID must be a valid integer."
                ))
            })?;
            let attribute = Attribute::ExperimentId;
            Ok(Clause::Number { attribute, comparator, value: id.number() })
        }
        (
            Key::Attribute(attribute @ (Attribute::CreationTime | Attribute::LastUpdateTime)),
            Token::Word(number),
        ) => {
            if text_comparator(comparator).is_some() && comparator.ends_with("LIKE") {
                let reason = format!("Invalid comparator for numeric attribute: {comparator}");
                return Err(invalid(reason));
            }
            let value = number.parse().map_err(|_| {
                invalid(format!("Invalid value for numeric attribute '{key}': '{number}'"))
            })?;
            Ok(Clause::Number { attribute, comparator, value })
        }
        (
            Key::Attribute(Attribute::CreationTime | Attribute::LastUpdateTime),
            Token::Text(word) | Token::Symbol(word),
        ) => Err(invalid(format!(
            "Expected numeric value type for numeric attribute: {key}. Found {word}"
        ))),
        (
            Key::Attribute(Attribute::Name | Attribute::ExperimentId),
            Token::Word(word) | Token::Symbol(word),
        ) => {
            Err(invalid(format!("Expected a quoted string value for attributes. Got value {word}")))
        }
    }
}

fn text_comparator(comparator: &str) -> Option<TextComparator> {
    match comparator {
        "=" => Some(TextComparator::Equal),
        "!=" => Some(TextComparator::NotEqual),
        "LIKE" => Some(TextComparator::Like),
        "ILIKE" => Some(TextComparator::ILike),
        _ => None,
    }
}

fn comparator(words: &mut impl Iterator<Item = Token>) -> Result<&'static str, RegistryError> {
    let mut next = || words.next().map(|token| token.to_string().to_ascii_uppercase());
    let first = next().unwrap_or_default();
    let found = match first.as_str() {
        "=" | "==" => "=",
        "!=" | "<>" => "!=",
        "<" => "<",
        "<=" => "<=",
        ">" => ">",
        ">=" => ">=",
        "LIKE" => "LIKE",
        "ILIKE" => "ILIKE",
        "IS" => match next().as_deref() {
            Some("NULL") => "IS NULL",
            Some("NOT") if next().as_deref() == Some("NULL") => "IS NOT NULL",
            _ => return Err(invalid("Invalid comparison clause: IS".to_owned())),
        },
        _ => {
            return Err(invalid(format!("Invalid clause(s) in filter string: {first}")));
        }
    };
    Ok(found)
}

/// A piece of a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// A key, a keyword or a number.
    Word(String),
    /// A comparator.
    Symbol(String),
    /// A quoted value, without its quotes.
    Text(String),
}

impl std::fmt::Display for Token {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Word(text) | Self::Symbol(text) => formatter.write_str(text),
            Self::Text(text) => write!(formatter, "'{text}'"),
        }
    }
}

fn tokenize(filter: &str) -> Result<Vec<Token>, RegistryError> {
    let mut tokens = Vec::new();
    let mut characters = filter.chars().peekable();
    while let Some(&first) = characters.peek() {
        if first.is_whitespace() {
            characters.next();
        } else if matches!(first, '\'' | '"') {
            tokens.push(Token::Text(quoted(&mut characters)?));
        } else if "=!<>".contains(first) {
            let mut symbol = String::new();
            while let Some(c) = characters.next_if(|c| "=!<>".contains(*c)) {
                symbol.push(c);
            }
            tokens.push(Token::Symbol(symbol));
        } else if "();,".contains(first) {
            return Err(invalid(format!("Invalid clause(s) in filter string: {first}")));
        } else {
            tokens.push(Token::Word(word(&mut characters)?));
        }
    }
    Ok(tokens)
}

/// A word up to a space or comparator; a quoted part within it (`` tags.`a b` ``) is taken whole.
fn word(
    characters: &mut std::iter::Peekable<std::str::Chars<'_>>,
) -> Result<String, RegistryError> {
    let mut word = String::new();
    while let Some(&next) = characters.peek() {
        if next.is_whitespace() || "=!<>();,'".contains(next) {
            break;
        }
        if matches!(next, '`' | '"') {
            word.push(next);
            word.push_str(&quoted(characters)?);
            word.push(next);
        } else {
            word.push(next);
            characters.next();
        }
    }
    Ok(word)
}

/// What stands between a quote and its twin; a doubled quote within is one.
fn quoted(
    characters: &mut std::iter::Peekable<std::str::Chars<'_>>,
) -> Result<String, RegistryError> {
    let quote = characters.next();
    let mut text = String::new();
    while let Some(next) = characters.next() {
        if Some(next) == quote && characters.next_if(|c| Some(*c) == quote).is_none() {
            return Ok(text);
        }
        text.push(next);
    }
    Err(invalid(format!("Invalid clause(s) in filter string: {text}")))
}

fn unexpected(token: &Token) -> RegistryError {
    invalid(format!("Invalid clause(s) in filter string: {token}"))
}

fn invalid(reason: String) -> RegistryError {
    RegistryError::InvalidFilter { reason }
}
