//! Why the registry refused or failed.

use std::path::Path;

use tracelake_model::{ExperimentId, NameError, TableName};

/// What the caller may do about a [`RegistryError`]. Match on this, never on the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistryErrorKind {
    /// The thing named does not exist. Name another or create it.
    NotFound,
    /// A thing of that name exists already.
    AlreadyExists,
    /// The request itself is wrong. Retrying it cannot help.
    InvalidParameter,
    /// The thing is in a state that forbids the request.
    InvalidState,
    /// Another process holds the file. Try again soon.
    Busy,
    /// The file or the disk failed, or the file is not ours.
    Internal,
}

/// Why a registry operation failed.
///
/// The messages about experiments are MLflow's own, to the letter where MLflow has one: clients
/// show them, and some match on them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The name is taken, maybe by a deleted experiment.
    #[error("Experiment(name={name}) already exists.")]
    ExperimentExists {
        /// The name.
        name: String,
    },
    /// No experiment of that id in the stages asked for.
    #[error("No Experiment with id={id} exists")]
    ExperimentNotFound {
        /// The id.
        id: ExperimentId,
    },
    /// No experiment of that name.
    #[error("Could not find experiment with name '{name}'")]
    ExperimentNameNotFound {
        /// The name.
        name: String,
    },
    /// The experiment has no such tag.
    #[error("No tag with name: {key} in experiment with id {id}")]
    TagNotFound {
        /// The experiment.
        id: ExperimentId,
        /// The tag's key.
        key: String,
    },
    /// The experiment is deleted, so that its tags cannot change and nothing can be logged to it.
    #[error("The experiment {id} must be in the 'active' state. Current state is deleted.")]
    ExperimentDeleted {
        /// The experiment.
        id: ExperimentId,
    },
    /// Only an active experiment can be renamed. Restore it first.
    #[error("Cannot rename a non-active experiment.")]
    RenameDeleted {
        /// The experiment.
        id: ExperimentId,
    },
    /// A name that is empty or holds control characters.
    #[error("Invalid experiment name: '{name}'")]
    InvalidExperimentName {
        /// The name, control characters escaped.
        name: String,
    },
    /// A text is longer than MLflow allows.
    #[error("'{parameter}' exceeds the maximum length of {limit} characters")]
    TooLong {
        /// The parameter.
        parameter: &'static str,
        /// The limit in characters.
        limit: usize,
    },
    /// A value that the parameter does not take.
    #[error("Invalid value {value} for parameter '{parameter}' supplied{reason}")]
    InvalidValue {
        /// The parameter.
        parameter: &'static str,
        /// The value, as JSON where it is text.
        value: String,
        /// What is wrong, starting with punctuation.
        reason: &'static str,
    },
    /// A tag that shows the archive binding. `tracelake enable` and `tracelake disable` change it.
    #[error(
        "Tag '{key}' shows where traces are archived and cannot be set or deleted. Use \
         `tracelake enable` or `tracelake disable`."
    )]
    ReservedTag {
        /// The tag's key, control characters escaped.
        key: String,
    },
    /// A filter or an order that does not parse. The message says where.
    #[error("{reason}")]
    InvalidFilter {
        /// MLflow's words.
        reason: String,
    },
    /// A page token that this registry did not make.
    #[error("Invalid page token, {reason}")]
    InvalidPageToken {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The table is not registered. Register it first.
    #[error("table `{table}` is not registered")]
    TableNotFound {
        /// The table.
        table: TableName,
    },
    /// The table is registered at another place. A table never moves by registering it again.
    #[error("table `{table}` is already registered at `{location}`")]
    TableExists {
        /// The table.
        table: TableName,
        /// Where it is.
        location: String,
    },
    /// A newer program wrote the file. Use that one.
    #[error("registry `{path}` has schema version {found}, supported is {supported}")]
    SchemaTooNew {
        /// The file.
        path: String,
        /// The version it has.
        found: i64,
        /// The newest version that this program knows.
        supported: i64,
    },
    /// A row holds what this program never writes.
    #[error("registry holds an invalid table name")]
    Corrupt(#[from] NameError),
    /// The file is damaged and cannot be restored. Put a copy of your own in its place.
    #[error("registry `{path}` is damaged ({reason}), and {backup}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
        /// Why its backup does not help.
        backup: String,
    },
    /// The file is empty or gone and its backup is there, from which the service restores it at its start.
    #[error("registry `{path}` is empty, and was not restored from its backup yet")]
    Unrestored {
        /// The file.
        path: String,
    },
    /// The file and its backup do not belong together: a copy without its log, or another folder's.
    /// Move away the one of the two that is wrong.
    #[error("registry `{path}` {reason} its backup `{backup}`")]
    BackupDiffers {
        /// The file.
        path: String,
        /// How it differs, such as `is older than`.
        reason: &'static str,
        /// The backup.
        backup: String,
    },
    /// A file beside the registry could not be read or written.
    #[error("{action} `{path}`")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// SQLite failed while doing `action`.
    #[error("{action} in the registry")]
    Storage {
        /// What was tried, such as `create experiment`.
        action: &'static str,
        /// What SQLite said.
        source: sqlx::Error,
    },
}

impl RegistryError {
    /// What the caller may do.
    #[must_use]
    pub fn kind(&self) -> RegistryErrorKind {
        use RegistryErrorKind as Kind;
        match self {
            Self::ExperimentNotFound { .. }
            | Self::ExperimentNameNotFound { .. }
            | Self::TagNotFound { .. }
            | Self::TableNotFound { .. } => Kind::NotFound,
            Self::ExperimentExists { .. } | Self::TableExists { .. } => Kind::AlreadyExists,
            Self::ExperimentDeleted { .. }
            | Self::InvalidExperimentName { .. }
            | Self::TooLong { .. }
            | Self::InvalidValue { .. }
            | Self::ReservedTag { .. }
            | Self::InvalidFilter { .. }
            | Self::InvalidPageToken { .. } => Kind::InvalidParameter,
            Self::RenameDeleted { .. } => Kind::InvalidState,
            Self::Storage { source, .. } if is_busy(source) => Kind::Busy,
            Self::SchemaTooNew { .. }
            | Self::Corrupt(_)
            | Self::Damaged { .. }
            | Self::Unrestored { .. }
            | Self::BackupDiffers { .. }
            | Self::File { .. }
            | Self::Storage { .. } => Kind::Internal,
        }
    }
}

/// Names the action that failed: `.map_err(storage("create experiment"))`.
pub(crate) fn storage(action: &'static str) -> impl Fn(sqlx::Error) -> RegistryError {
    move |source| RegistryError::Storage { action, source }
}

/// Names the file that an action failed on.
pub(crate) fn file_fault(
    action: &'static str,
    path: &Path,
) -> impl Fn(std::io::Error) -> RegistryError {
    let path = path.display().to_string();
    move |source| RegistryError::File { action, path: path.clone(), source }
}

/// True when SQLite says that a file is no database, or not what it should be: no table, no column,
/// a value of another type. Not for a file that is busy or a disk that fails.
pub(crate) fn is_damage(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::RowNotFound
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::Decode(_) => true,
        error => error
            .as_database_error()
            .and_then(|error| error.code()?.parse::<i64>().ok())
            .is_some_and(|code| matches!(code & 0xff, 1 | 11 | 26)),
    }
}

/// `SQLITE_BUSY` and `SQLITE_LOCKED` with their extended codes, or no free connection in time.
fn is_busy(error: &sqlx::Error) -> bool {
    if matches!(error, sqlx::Error::PoolTimedOut) {
        return true;
    }
    error
        .as_database_error()
        .and_then(|error| error.code()?.parse::<i64>().ok())
        .is_some_and(|code| matches!(code & 0xff, 5 | 6))
}

/// True when a unique index refused the row.
pub(crate) fn is_unique_violation(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}
