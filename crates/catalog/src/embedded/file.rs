//! Opens the catalog's file.

use std::fmt::Display;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use sqlx::migrate::MigrateError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row as _, SqlitePool};
use unitycatalog_common::services::encryption::{EnvelopeEncryptor, LocalKeyProvider};
use unitycatalog_common::store::ObjectStoreAdapter;
use unitycatalog_sqlite::{SqliteGraphStore, connect_graph, unified_migrator};

use crate::error::CatalogError;

/// How long a statement waits for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections of one process.
const MAX_CONNECTIONS: u32 = 4;

/// How often the first opening is tried when several processes make the file at once: SQLite
/// answers the losers of the switch to write-ahead logging, and of the migration, without waiting.
const OPEN_ATTEMPTS: u32 = 100;

/// Pause between two attempts.
const OPEN_PAUSE: Duration = Duration::from_millis(20);

pub(super) type Store = ObjectStoreAdapter<SqliteGraphStore>;

pub(super) async fn open(path: &Path) -> Result<(SqlitePool, Store), CatalogError> {
    let mut attempt = 1;
    let pool = loop {
        match open_once(path).await {
            Ok(pool) => break pool,
            Err(fault) if attempt < OPEN_ATTEMPTS && fault.may_pass() && !is_foreign(path) => {
                attempt += 1;
            }
            Err(fault) => return Err(fault.of(path)),
        }
        tokio::time::sleep(OPEN_PAUSE).await;
    };
    // The library seals credentials with it. None are kept here, so no key outlives the process.
    let mut key = Vec::with_capacity(32);
    key.extend_from_slice(uuid::Uuid::new_v4().as_bytes());
    key.extend_from_slice(uuid::Uuid::new_v4().as_bytes());
    let key =
        LocalKeyProvider::single("process", key).map_err(|error| storage("open", path, &error))?;
    let graph = connect_graph(pool.clone(), EnvelopeEncryptor::local(key));
    Ok((pool, ObjectStoreAdapter::new(graph)))
}

/// Why the file cannot be opened.
#[derive(Debug)]
enum OpenFault {
    /// SQLite says so: the disk, a lock, a race with another process.
    Sqlite(sqlx::Error),
    /// The tables are not what they should be.
    Schema(MigrateError),
    /// A page is damaged.
    Pages(String),
}

impl OpenFault {
    /// Whether another attempt may find it otherwise.
    fn may_pass(&self) -> bool {
        match self {
            Self::Sqlite(error) => !is_corrupt(error),
            Self::Schema(
                MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _),
            ) => !is_corrupt(error),
            Self::Schema(_) | Self::Pages(_) => false,
        }
    }

    fn of(self, path: &Path) -> CatalogError {
        let damaged =
            |reason: String| CatalogError::Damaged { path: path.display().to_string(), reason };
        match self {
            Self::Pages(reason) => damaged(reason),
            Self::Schema(MigrateError::VersionMissing(version)) => {
                CatalogError::TooNew { path: path.display().to_string(), version }
            }
            Self::Schema(error @ (MigrateError::VersionMismatch(_) | MigrateError::Dirty(_))) => {
                damaged(error.to_string())
            }
            Self::Sqlite(error)
            | Self::Schema(
                MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _),
            ) if is_corrupt(&error) || is_wrong(&error) => damaged(error.to_string()),
            Self::Sqlite(error) => storage("open", path, &error),
            Self::Schema(error) => storage("open", path, &error),
        }
    }
}

/// True when SQLite says that a file is damaged, or none of its own.
fn is_corrupt(error: &sqlx::Error) -> bool {
    matches!(sqlite_code(error), Some(11 | 26))
}

/// True when a statement does not fit the tables.
fn is_wrong(error: &sqlx::Error) -> bool {
    sqlite_code(error) == Some(1)
}

fn sqlite_code(error: &sqlx::Error) -> Option<i64> {
    let code: i64 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

async fn open_once(path: &Path) -> Result<SqlitePool, OpenFault> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .busy_timeout(BUSY_TIMEOUT)
        .foreign_keys(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let pool = SqlitePoolOptions::new()
        .max_connections(MAX_CONNECTIONS)
        .acquire_timeout(BUSY_TIMEOUT)
        .connect_with(options)
        .await
        .map_err(OpenFault::Sqlite)?;
    let looked = async {
        // Before anything is written to it.
        let checked: String = sqlx::query("PRAGMA quick_check(1)")
            .fetch_one(&pool)
            .await
            .and_then(|row| row.try_get(0))
            .map_err(OpenFault::Sqlite)?;
        if checked != "ok" {
            return Err(OpenFault::Pages(checked));
        }
        unified_migrator().run(&pool).await.map_err(OpenFault::Schema)
    };
    if let Err(fault) = looked.await {
        close(&pool).await;
        return Err(fault);
    }
    Ok(pool)
}

/// Closes all connections of a pool, also one that is on its way back, for which [`SqlitePool::close`]
/// does not always wait (sqlx 0.8.6): with the last connection SQLite removes the file's log by its
/// name, which may be that of another file by then.
pub(super) async fn close(pool: &SqlitePool) {
    let given_up = tokio::time::Instant::now() + BUSY_TIMEOUT;
    pool.close().await;
    while 0 < pool.size() && tokio::time::Instant::now() < given_up {
        tokio::time::sleep(Duration::from_millis(1)).await;
        pool.close().await;
    }
}

/// Renames the file and its log, so that another one can be made. The log goes first: it belongs to
/// the file.
pub(super) fn move_aside(path: &Path, aside: &Path) -> Result<(), CatalogError> {
    for suffix in ["-wal", "-shm", ""] {
        let name = |path: &Path| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            std::path::PathBuf::from(name)
        };
        match std::fs::rename(name(path), name(aside)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(storage("move aside", path, &error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// True for a file that is not SQLite's, or cannot be read: trying again cannot help.
fn is_foreign(path: &Path) -> bool {
    const MAGIC: &[u8; 16] = b"SQLite format 3\0";
    let mut start = [0; 16];
    match std::fs::File::open(path).and_then(|mut file| file.read(&mut start)) {
        Ok(0) => false,
        Ok(_) => start != *MAGIC,
        Err(_) => true,
    }
}

pub(super) fn storage(
    action: &'static str,
    path: &Path,
    reason: &(impl Display + ?Sized),
) -> CatalogError {
    let reason = reason.to_string();
    CatalogError::Storage { action, path: path.display().to_string(), reason }
}
