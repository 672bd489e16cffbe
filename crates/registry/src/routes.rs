//! Where an experiment's traces go, cached so that intake can ask for every request.
//!
//! One connection only watches: `PRAGMA data_version` on it changes whenever any other connection
//! of any process committed, and costs no disk access. The version is read before the row, so a
//! cached row is never older than the version beside it.

use std::collections::HashMap;

use sqlx::{Connection as _, Row, SqliteConnection};
use tracelake_model::{ExperimentId, TableName};

use crate::LifecycleStage;
use crate::error::{RegistryError, storage};
use crate::schema::table_name;

/// Experiments remembered; past it all are forgotten and read again.
const MAX_ENTRIES: usize = 10_000;

/// What intake needs to know of an experiment that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExperimentRoute {
    /// Active or deleted.
    pub stage: LifecycleStage,
    /// The table it is bound to, if it is.
    pub table: Option<TableName>,
    /// Its earlier traces, of the time without a binding, belong to that table too.
    pub moves_earlier: bool,
    /// Other tables that may hold traces of it: those it was bound to before, and default tables.
    pub past: Vec<PastTable>,
    /// URI below which its artifacts lie.
    pub artifact_location: String,
}

/// A table that may hold traces of an experiment from before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastTable {
    /// Its name.
    pub name: TableName,
    /// True for a table of experiments without a binding.
    pub was_default: bool,
}

/// The watching connection and what was read since the last change.
#[derive(Debug)]
pub(crate) struct RouteCache {
    /// `None` once the registry is closed.
    watcher: Option<SqliteConnection>,
    data_version: i64,
    entries: HashMap<ExperimentId, ExperimentRoute>,
}

impl RouteCache {
    pub(crate) fn new(watcher: SqliteConnection) -> Self {
        Self { watcher: Some(watcher), data_version: -1, entries: HashMap::new() }
    }

    /// Closes the watching connection. A connection that is only dropped is closed by its own thread
    /// at some later time, and takes the file's log with it.
    pub(crate) async fn close(&mut self) -> Result<(), RegistryError> {
        match self.watcher.take() {
            Some(watcher) => watcher.close().await.map_err(storage("close file")),
            None => Ok(()),
        }
    }

    /// What is known of an experiment, as of the last change that was committed.
    pub(crate) async fn look_up(
        &mut self,
        experiment_id: &ExperimentId,
    ) -> Result<Option<ExperimentRoute>, RegistryError> {
        let closed = || storage("watch for changes")(sqlx::Error::PoolClosed);
        let watcher = self.watcher.as_mut().ok_or_else(closed)?;
        let data_version: i64 = sqlx::query("PRAGMA data_version")
            .fetch_one(&mut *watcher)
            .await
            .and_then(|row| row.try_get(0))
            .map_err(storage("watch for changes"))?;
        if data_version != self.data_version || MAX_ENTRIES <= self.entries.len() {
            self.entries.clear();
            self.data_version = data_version;
        }
        if let Some(route) = self.entries.get(experiment_id) {
            return Ok(Some(route.clone()));
        }
        // What does not exist is not remembered: ids come from outside and there are many.
        let Some(route) = read(watcher, experiment_id).await? else { return Ok(None) };
        self.entries.insert(experiment_id.clone(), route.clone());
        Ok(Some(route))
    }
}

async fn read(
    watcher: &mut SqliteConnection,
    experiment_id: &ExperimentId,
) -> Result<Option<ExperimentRoute>, RegistryError> {
    let failed = storage("read route");
    let row = sqlx::query(
        "SELECT lifecycle_stage, artifact_location, table_name, \
         coalesce(moves_earlier, 0) FROM experiments LEFT JOIN bindings USING (experiment_id) WHERE experiment_id = ?",
    )
    .bind(experiment_id.number())
    .fetch_optional(&mut *watcher)
    .await
    .map_err(&failed)?;
    let Some(row) = row else { return Ok(None) };
    let bound = row.try_get::<Option<&str>, _>(2).map_err(&failed)?.is_some();
    let table = if bound { Some(table_name(&row, 2)?) } else { None };
    let past = sqlx::query(
        "SELECT name, was_default FROM archive_tables WHERE was_default = 1 OR name IN \
         (SELECT table_name FROM past_bindings WHERE experiment_id = ?) ORDER BY name",
    )
    .bind(experiment_id.number())
    .fetch_all(&mut *watcher)
    .await
    .map_err(&failed)?
    .iter()
    .map(|row| {
        let was_default = row.try_get(1).map_err(&failed)?;
        Ok(PastTable { name: table_name(row, 0)?, was_default })
    })
    .filter(|past| past.as_ref().map_or(true, |past| Some(&past.name) != table.as_ref()))
    .collect::<Result<Vec<_>, RegistryError>>()?;
    Ok(Some(ExperimentRoute {
        stage: LifecycleStage::parse(row.try_get(0).map_err(&failed)?),
        artifact_location: row.try_get(1).map_err(&failed)?,
        moves_earlier: row.try_get(3).map_err(&failed)?,
        table,
        past,
    }))
}
