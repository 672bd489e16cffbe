//! The registry's file, its name and its backup's, and how it is opened.

use std::path::Path;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

use crate::error::{RegistryError, file_fault};

/// Name of the registry's file within the data folder.
pub const REGISTRY_FILE: &str = "registry.db";

/// Name of the backup within the data folder.
pub(crate) const BACKUP_FILE: &str = "registry.db.backup";

/// How long a statement waits for another process that writes.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// How the file is opened.
pub(crate) fn file_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .busy_timeout(BUSY_TIMEOUT)
        .foreign_keys(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .disable_statement_logging()
}

/// Refuses to make a registry where there was one: whoever owns the data folder restores it.
pub(crate) fn refuse_unrestored(data_dir: &Path) -> Result<(), RegistryError> {
    let path = data_dir.join(REGISTRY_FILE);
    let backup = data_dir.join(BACKUP_FILE);
    let is_empty = length(&path)?.is_none_or(|length| length == 0);
    if is_empty && backup.try_exists().map_err(file_fault("look at", &backup))? {
        return Err(RegistryError::Unrestored { path: path.display().to_string() });
    }
    Ok(())
}

/// Bytes of a file; `None` when there is none.
pub(crate) fn length(path: &Path) -> Result<Option<u64>, RegistryError> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        metadata => Ok(Some(metadata.map_err(file_fault("look at", path))?.len())),
    }
}
