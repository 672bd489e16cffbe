//! Why a statement gave no answer.

use std::time::Duration;

use datafusion::common::{DataFusionError, SchemaError};

use crate::source::SourceError;

/// Most names that a hint lists.
const HINT_NAMES: usize = 8;

/// Why a statement gave no answer, with what the caller needs to put it right.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The statement would change something. Only queries are run.
    #[error("statement `{statement}` is refused: queries are read-only")]
    ReadOnly {
        /// The statement's first word.
        statement: String,
    },
    /// The text is not SQL, or more than one statement.
    #[error("cannot parse the statement: {message}")]
    Syntax {
        /// What the parser says.
        message: String,
    },
    /// A table is named that does not exist.
    #[error("unknown table `{table}`")]
    UnknownTable {
        /// The name as the statement has it.
        table: String,
        /// The tables that exist.
        known: Vec<String>,
    },
    /// No ready-made question has this name.
    #[error("unknown question `{name}`")]
    UnknownQuestion {
        /// What was given, with control characters escaped.
        name: String,
        /// The names that there are.
        known: Vec<&'static str>,
    },
    /// A column is named that is not there.
    #[error("unknown column `{column}`")]
    UnknownColumn {
        /// The name as the statement has it.
        column: String,
        /// Columns in sight, the most similar first.
        similar: Vec<String>,
    },
    /// The statement is SQL but cannot be planned, such as a comparison of two types.
    #[error("cannot plan the statement: {message}")]
    Plan {
        /// What the planner says.
        message: String,
    },
    /// The statement is so long or so nested that planning it would take too much.
    #[error("the statement is too complex: it has more than {limit} {what}")]
    TooComplex {
        /// What there is too much of.
        what: &'static str,
        /// How much of it is allowed.
        limit: usize,
    },
    /// A table exists but cannot be read.
    #[error("cannot open table `{table}`: {source}")]
    Table {
        /// The table's full name.
        table: String,
        /// Why.
        source: SourceError,
    },
    /// The statement needs more memory than one engine may use.
    #[error("statement needs more than the memory limit of {limit_bytes} bytes")]
    MemoryLimit {
        /// The limit.
        limit_bytes: usize,
    },
    /// The statement ran longer than allowed and was cancelled.
    #[error("statement was cancelled after the time limit of {limit:?}")]
    TimeLimit {
        /// The limit.
        limit: Duration,
    },
    /// Reading or computing failed.
    #[error("cannot run the statement: {message}")]
    Execution {
        /// What the engine says.
        message: String,
    },
    /// A defect of the engine: the thread that ran the statement ended without an answer.
    #[error("the statement broke off")]
    BrokenOff,
    /// The engine itself could not be set up.
    #[error("cannot set up the query engine: {message}")]
    Setup {
        /// Why.
        message: String,
    },
}

impl QueryError {
    /// What the caller may try next, if there is something to say.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::ReadOnly { .. } => {
                Some("SELECT, WITH, VALUES, EXPLAIN, SHOW and DESCRIBE are allowed".into())
            }
            Self::UnknownTable { table, .. } if table.contains(['/', ':']) => Some(
                "files and addresses cannot be queried; name a table as catalog.schema.table"
                    .into(),
            ),
            Self::UnknownTable { known, .. } if known.is_empty() => {
                Some("there are no tables yet; create one with `tracelake setup`".into())
            }
            Self::UnknownTable { known, .. } => {
                Some(format!("tables that exist: {}", listed(known)))
            }
            Self::UnknownQuestion { known, .. } => Some(format!("questions: {}", known.join(", "))),
            Self::UnknownColumn { similar, .. } if !similar.is_empty() => {
                Some(format!("did you mean: {}", listed(similar)))
            }
            Self::MemoryLimit { .. } => Some(
                "aggregate or limit the result, narrow the time range, or raise the limit".into(),
            ),
            Self::TimeLimit { .. } => {
                Some("narrow the time range by created_at, or raise the limit".into())
            }
            Self::TooComplex { .. } => Some(
                "long lists of values belong into IN (...); split the rest into several statements"
                    .into(),
            ),
            Self::BrokenOff => Some(
                "the engine has a defect with this statement, try to write it in another way"
                    .into(),
            ),
            Self::Syntax { .. }
            | Self::UnknownColumn { .. }
            | Self::Plan { .. }
            | Self::Table { .. }
            | Self::Execution { .. }
            | Self::Setup { .. } => None,
        }
    }

    /// The error of a failed planning under a memory limit of `limit_bytes`: constants are computed
    /// by the planner.
    pub(crate) fn from_planning(error: &DataFusionError, limit_bytes: usize) -> Self {
        match error.find_root() {
            DataFusionError::ResourcesExhausted(_) => Self::MemoryLimit { limit_bytes },
            DataFusionError::SchemaError(schema_error, _) => match schema_error.as_ref() {
                SchemaError::FieldNotFound { field, valid_fields } => Self::UnknownColumn {
                    column: field.name().to_owned(),
                    similar: most_similar(
                        field.name(),
                        valid_fields.iter().map(|column| column.name().to_owned()).collect(),
                    ),
                },
                SchemaError::AmbiguousReference { .. }
                | SchemaError::DuplicateQualifiedField { .. }
                | SchemaError::DuplicateUnqualifiedField { .. } => {
                    Self::Plan { message: schema_error.to_string() }
                }
            },
            root => Self::Plan { message: plain_message(root) },
        }
    }

    /// The error of a failed run under a memory limit of `limit_bytes`.
    pub(crate) fn from_execution(error: &DataFusionError, limit_bytes: usize) -> Self {
        match error.find_root() {
            DataFusionError::ResourcesExhausted(_) => Self::MemoryLimit { limit_bytes },
            _ => Self::Execution { message: plain_message(error) },
        }
    }
}

/// The engine's message on one line, without its backtrace and without what it says of bugs.
pub(crate) fn plain_message(error: &DataFusionError) -> String {
    let message = error.strip_backtrace();
    message.lines().next().unwrap_or_default().trim().to_owned()
}

fn listed(names: &[String]) -> String {
    let mut text = names.iter().take(HINT_NAMES).cloned().collect::<Vec<_>>().join(", ");
    if HINT_NAMES < names.len() {
        text.push_str(", ...");
    }
    text
}

/// `names` by similarity to `wanted`, without those that have little in common with it.
fn most_similar(wanted: &str, mut names: Vec<String>) -> Vec<String> {
    names.sort_unstable();
    names.dedup();
    let wanted = wanted.to_lowercase();
    let mut scored: Vec<(usize, String)> = names
        .into_iter()
        .map(|name| (edit_distance(&wanted, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= wanted.len().max(name.len()) / 2)
        .collect();
    scored.sort();
    scored.into_iter().map(|(_, name)| name).take(HINT_NAMES).collect()
}

fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut next = vec![i + 1];
        for (j, b) in right.iter().enumerate() {
            let above = row.get(j + 1).copied().unwrap_or(usize::MAX).saturating_add(1);
            let before = next.last().copied().unwrap_or(usize::MAX).saturating_add(1);
            let across = row.get(j).copied().unwrap_or(usize::MAX);
            next.push(above.min(before).min(across.saturating_add(usize::from(a != *b))));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a misspelt column among others.
    /// Guarantees: the nearest comes first, what has nothing in common is left out.
    #[test]
    fn the_nearest_name_comes_first() {
        let names = ["trace_id", "created_at", "trace_info", "spans"].map(String::from).to_vec();
        assert_eq!(most_similar("trace_idd", names), ["trace_id", "trace_info"]);
    }
}
