//! Opens the registry's file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use sqlx::{ConnectOptions, Connection, Sqlite, Transaction};
use tokio::sync::{Mutex, watch};
use tracelake_model::Clock;
use uuid::Uuid;

use crate::error::{RegistryError, file_fault, storage};
use crate::file::{BUSY_TIMEOUT, REGISTRY_FILE, file_options, refuse_unrestored};
use crate::ids;
use crate::routes::RouteCache;
use crate::schema::migrate;

/// Connections for statements; one more watches for changes.
const MAX_CONNECTIONS: u32 = 4;

/// Experiments, archive bindings and tables, kept in one SQLite file.
///
/// Every change is durable when its call returns. Dropping a call's future before that leaves the
/// change either done or not done, never half done.
#[derive(Debug)]
pub struct Registry {
    pub(crate) pool: SqlitePool,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) routes: Mutex<RouteCache>,
    archiver_id: Uuid,
    pub(crate) data_dir: PathBuf,
    pub(crate) changes: watch::Sender<Changes>,
    /// Of [`Changes::count`], how many are in the backup.
    pub(crate) backed_up: Mutex<u64>,
}

/// What this process changed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Changes {
    pub count: u64,
    /// The registry is being closed.
    pub closing: bool,
}

impl Registry {
    /// Opens `registry.db` in `data_dir`, which must exist, and makes or migrates it as needed.
    ///
    /// # Errors
    /// [`RegistryError::SchemaTooNew`] for the file of a newer program, [`RegistryError::Storage`]
    /// when the file cannot be opened or is not a database, [`RegistryError::Unrestored`] when there is a
    /// backup of one that is gone.
    pub async fn open(data_dir: &Path, clock: Arc<dyn Clock>) -> Result<Self, RegistryError> {
        let path = data_dir.join(REGISTRY_FILE);
        let options = file_options(&path);
        refuse_unrestored(data_dir)?;
        let is_there = path.try_exists().map_err(file_fault("look at", &path))?;
        let failed = storage("open file");
        let mut watcher = open_watcher(&options).await?;
        let now_ms = now_ms(clock.as_ref());
        let mut transaction =
            watcher.begin_with("BEGIN IMMEDIATE").await.map_err(storage("lock file"))?;
        let archiver_id = migrate(&mut transaction, &path.to_string_lossy(), now_ms).await?;
        if !is_there {
            ids::go_on_behind(&mut transaction, data_dir).await?;
        }
        transaction.commit().await.map_err(storage("migrate schema"))?;
        let pool = SqlitePoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            .acquire_timeout(BUSY_TIMEOUT)
            .connect_with(options)
            .await
            .map_err(&failed)?;
        let routes = Mutex::new(RouteCache::new(watcher));
        Ok(Self {
            pool,
            clock,
            routes,
            archiver_id,
            data_dir: data_dir.to_owned(),
            changes: watch::Sender::default(),
            backed_up: Mutex::default(),
        })
    }

    /// Random id of this data folder, made once: the `appId` of its commits starts with it.
    #[must_use]
    pub const fn archiver_id(&self) -> Uuid {
        self.archiver_id
    }

    /// Backs up what this process changed and closes the connections: nothing of this process has the file
    /// open when it returns. Calls after this fail.
    pub async fn close(&self) {
        self.changes.send_modify(|changes| changes.closing = true);
        if let Err(error) = self.back_up().await {
            tracing::warn!(%error, "registry not backed up");
        }
        // So that a copy of the file alone is whole; one who reads meanwhile keeps it from that.
        let whole = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&self.pool).await;
        if let Err(error) = whole {
            tracing::debug!(%error, "log of the registry not taken in");
        }
        close(&self.pool).await;
        if let Err(error) = self.routes.lock().await.close().await {
            tracing::debug!(%error, "registry not closed cleanly");
        }
    }

    pub(crate) fn now_ms(&self) -> i64 {
        now_ms(self.clock.as_ref())
    }

    /// Starts a transaction that may write. Taking the lock at once, it waits for other writers
    /// instead of failing when it comes to write.
    pub(crate) async fn begin(
        &self,
        action: &'static str,
    ) -> Result<Transaction<'static, Sqlite>, RegistryError> {
        self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(storage(action))
    }
}

/// Closes all connections of a pool. One call of [`SqlitePool::close`] does not: each idle connection
/// that it closes gives back a permit that it never took, so that it does not wait for one that is on
/// its way back (sqlx 0.8.6, `pool/inner.rs`).
async fn close(pool: &SqlitePool) {
    let given_up = tokio::time::Instant::now() + BUSY_TIMEOUT;
    pool.close().await;
    while 0 < pool.size() && tokio::time::Instant::now() < given_up {
        tokio::time::sleep(Duration::from_millis(1)).await;
        pool.close().await;
    }
}

/// Several processes that open a new file at once race to switch it to write-ahead logging; SQLite
/// answers the losers "locked" without waiting, so they try again.
async fn open_watcher(
    options: &SqliteConnectOptions,
) -> Result<sqlx::SqliteConnection, RegistryError> {
    let mut attempts = 0_u32;
    loop {
        match options.connect().await.map_err(storage("open file")) {
            Ok(connection) => return Ok(connection),
            Err(error) if error.kind() == crate::RegistryErrorKind::Busy && attempts < 100 => {
                attempts += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

fn now_ms(clock: &dyn Clock) -> i64 {
    clock.now_unix_micro() / 1_000
}
