//! Why a call failed, in a form that survives the way over HTTP and into Python.

use std::fmt;

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use tracelake_catalog::{CatalogError, CatalogErrorKind};
use tracelake_lake::LakeError;
use tracelake_model::NameError;
use tracelake_query::QueryError;
use tracelake_registry::{RegistryError, RegistryErrorKind};

/// What begins the line of an error message that says what to do.
const HINT: &str = "\nhint: ";

/// What a caller may do about a [`Fault`]. Match on this, never on the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum FaultKind {
    /// An argument is wrong by itself. The same call again cannot help.
    InvalidParameterValue,
    /// No such table.
    TableNotFound,
    /// No such experiment, or it is deleted.
    ExperimentNotFound,
    /// No such trace in the tables that were looked into.
    TraceNotFound,
    /// The statement is no SQL.
    SqlSyntax,
    /// The statement would change something.
    ReadOnly,
    /// The statement is SQL, but cannot be answered: a column that is not there, types that do
    /// not match.
    QueryFailed,
    /// The statement needs more memory or time than it may have.
    QueryLimit,
    /// What is there forbids it: a table with other columns, a binding to another table, a folder
    /// in use.
    Conflict,
    /// The service cannot be reached or has no answer at this time. Try again later.
    TemporarilyUnavailable,
    /// Broken off by the caller; what was done stays.
    Interrupted,
    /// Storage, or a defect.
    Internal,
}

impl FaultKind {
    /// The status of an HTTP answer that says so.
    pub(crate) const fn status(self) -> StatusCode {
        match self {
            Self::InvalidParameterValue | Self::SqlSyntax | Self::ReadOnly | Self::QueryFailed => {
                StatusCode::BAD_REQUEST
            }
            Self::TableNotFound | Self::ExperimentNotFound | Self::TraceNotFound => {
                StatusCode::NOT_FOUND
            }
            Self::Conflict => StatusCode::CONFLICT,
            Self::QueryLimit => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TemporarilyUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Interrupted | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// Why a call failed: what, in one line that names the subject, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What the caller may do about it.
    #[serde(rename = "error_code")]
    pub kind: FaultKind,
    /// What failed.
    pub message: String,
    /// What to try next, if there is something to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Fault {
    /// A fault of a kind, told in a sentence.
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }

    /// The same fault with what one can do about it.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(formatter, "{HINT}{hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Fault {}

impl From<QueryError> for Fault {
    fn from(error: QueryError) -> Self {
        Self { kind: kind_of_query(&error), message: error.to_string(), hint: error.hint() }
    }
}

fn kind_of_query(error: &QueryError) -> FaultKind {
    match error {
        QueryError::ReadOnly { .. } => FaultKind::ReadOnly,
        QueryError::Syntax { .. } => FaultKind::SqlSyntax,
        QueryError::UnknownTable { .. } => FaultKind::TableNotFound,
        QueryError::MemoryLimit { .. } | QueryError::TimeLimit { .. } => FaultKind::QueryLimit,
        QueryError::Table { .. } | QueryError::BrokenOff | QueryError::Setup { .. } => {
            FaultKind::Internal
        }
        QueryError::UnknownQuestion { .. } => FaultKind::InvalidParameterValue,
        _ => FaultKind::QueryFailed,
    }
}

impl From<anyhow::Error> for Fault {
    /// Keeps the message of the whole chain; its hint is what follows `hint: ` on a line.
    fn from(error: anyhow::Error) -> Self {
        let kind = error.chain().find_map(kind_of).unwrap_or(FaultKind::Internal);
        let text = format!("{error:#}");
        match text.split_once(HINT) {
            Some((message, hint)) => Self::new(kind, message).with_hint(hint),
            None => Self::new(kind, text),
        }
    }
}

fn kind_of(cause: &(dyn std::error::Error + 'static)) -> Option<FaultKind> {
    if let Some(fault) = cause.downcast_ref::<Fault>() {
        return Some(fault.kind);
    }
    if let Some(error) = cause.downcast_ref::<QueryError>() {
        return Some(kind_of_query(error));
    }
    if let Some(error) = cause.downcast_ref::<RegistryError>() {
        return Some(match error.kind() {
            RegistryErrorKind::NotFound => FaultKind::ExperimentNotFound,
            RegistryErrorKind::InvalidParameter => FaultKind::InvalidParameterValue,
            RegistryErrorKind::AlreadyExists | RegistryErrorKind::InvalidState => {
                FaultKind::Conflict
            }
            RegistryErrorKind::Busy => FaultKind::TemporarilyUnavailable,
            RegistryErrorKind::Internal => FaultKind::Internal,
        });
    }
    if let Some(error) = cause.downcast_ref::<CatalogError>() {
        return Some(match error.kind() {
            CatalogErrorKind::Invalid => FaultKind::InvalidParameterValue,
            CatalogErrorKind::AlreadyExists | CatalogErrorKind::Precondition => FaultKind::Conflict,
            CatalogErrorKind::Unavailable => FaultKind::TemporarilyUnavailable,
            _ => FaultKind::Internal,
        });
    }
    if let Some(error) = cause.downcast_ref::<LakeError>() {
        return match error {
            LakeError::SchemaMismatch { .. }
            | LakeError::UnsupportedFeature { .. }
            | LakeError::AppendOnly { .. }
            | LakeError::TablesElsewhere { .. } => Some(FaultKind::Conflict),
            LakeError::NotMounted { .. } => Some(FaultKind::TemporarilyUnavailable),
            _ => None,
        };
    }
    cause.downcast_ref::<NameError>().map(|_| FaultKind::InvalidParameterValue)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: an error of a room under two contexts; one that was told with a hint.
    /// Guarantees: kind and hint are found wherever they stand; the message has no hint in it.
    #[test]
    fn kind_and_hint_survive_contexts() {
        let error = anyhow::Error::new("a..b".parse::<tracelake_model::TableName>().unwrap_err());
        let fault = Fault::from(error.context("table").context("enable"));
        assert_eq!(fault.kind, FaultKind::InvalidParameterValue);
        assert!(fault.message.starts_with("enable: table: "), "{fault}");
        let told = Fault::new(FaultKind::Conflict, "no").with_hint("do yes");
        let again = Fault::from(anyhow::Error::new(told.clone()).context("set up"));
        assert_eq!(again.kind, FaultKind::Conflict);
        assert_eq!(again.message, "set up: no");
        assert_eq!(again.hint, told.hint);
        assert_eq!(again.to_string(), "set up: no\nhint: do yes");
    }

    /// Scenario: a fault as an answer over HTTP and back.
    /// Guarantees: nothing is lost, and the code is the one of the documentation.
    #[test]
    fn a_fault_survives_the_way() {
        let fault = Fault::new(FaultKind::TableNotFound, "unknown table `a`").with_hint("b");
        let text = serde_json::to_string(&fault).unwrap();
        assert!(text.contains("\"error_code\":\"TABLE_NOT_FOUND\""), "{text}");
        assert_eq!(serde_json::from_str::<Fault>(&text).unwrap(), fault);
    }
}
