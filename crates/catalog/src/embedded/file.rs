//! Opens the catalog's file.

use std::fmt::Display;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
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
            Err(_) if attempt < OPEN_ATTEMPTS && !is_foreign(path) => attempt += 1,
            Err(reason) => return Err(storage("open", path, &reason)),
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

async fn open_once(path: &Path) -> Result<SqlitePool, String> {
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
        .map_err(|error| error.to_string())?;
    if let Err(error) = unified_migrator().run(&pool).await {
        pool.close().await;
        return Err(error.to_string());
    }
    Ok(pool)
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
