//! Archive bindings and the tables that they name.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use tracelake_model::{ExperimentId, TableName};

use crate::error::{RegistryError, storage};
use crate::schema::table_name;
use crate::{EarlierTraces, ExperimentRoute, Registry};

/// An experiment whose traces go to a table of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The experiment.
    pub experiment_id: ExperimentId,
    /// Its table.
    pub table: TableName,
    /// When it was bound, microseconds since the Unix epoch.
    pub enabled_at_micros: i64,
    /// Its earlier traces, of the time without a binding, belong to this table too.
    pub moves_earlier: bool,
}

/// A table that this archiver knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredTable {
    /// Its full name.
    pub name: TableName,
    /// URL of its root.
    pub location_url: String,
}

impl Registry {
    /// What is known of an experiment, `None` when there is none of that id. Sees every change
    /// that was committed before the call, by whatever process.
    ///
    /// # Errors
    /// Storage.
    pub async fn experiment_route(
        &self,
        experiment_id: &ExperimentId,
    ) -> Result<Option<ExperimentRoute>, RegistryError> {
        self.routes.lock().await.look_up(experiment_id).await
    }

    /// The table that an experiment is bound to: [`Registry::binding`] through the cache.
    ///
    /// # Errors
    /// Storage.
    pub async fn route(
        &self,
        experiment_id: &ExperimentId,
    ) -> Result<Option<TableName>, RegistryError> {
        Ok(self.experiment_route(experiment_id).await?.and_then(|route| route.table))
    }

    /// Binds an experiment to a registered table, in place of an earlier binding. Takes effect for
    /// requests that arrive after it returned, in every process. With [`EarlierTraces::Move`] the
    /// traces that are in a default table are to be moved: see [`Registry::moves`].
    ///
    /// # Errors
    /// [`RegistryError::ExperimentNotFound`], [`RegistryError::TableNotFound`], or storage.
    pub async fn bind(
        &self,
        experiment_id: &ExperimentId,
        table: &TableName,
        enabled_at_micros: i64,
        earlier: EarlierTraces,
    ) -> Result<(), RegistryError> {
        let failed = storage("bind experiment");
        let mut transaction = self.begin("bind experiment").await?;
        crate::experiments::stage_of(&mut transaction, experiment_id).await?;
        let known = sqlx::query("SELECT 1 FROM archive_tables WHERE name = ?")
            .bind(table.to_string())
            .fetch_optional(&mut *transaction)
            .await
            .map_err(&failed)?;
        if known.is_none() {
            return Err(RegistryError::TableNotFound { table: table.clone() });
        }
        sqlx::query(
            "INSERT INTO bindings (experiment_id, table_name, enabled_at_micros, moves_earlier) \
             VALUES (?, ?, ?, ?) ON CONFLICT (experiment_id) DO UPDATE SET \
             table_name = excluded.table_name, enabled_at_micros = excluded.enabled_at_micros, \
             moves_earlier = excluded.moves_earlier",
        )
        .bind(experiment_id.number())
        .bind(table.to_string())
        .bind(enabled_at_micros)
        .bind(earlier == EarlierTraces::Move)
        .execute(&mut *transaction)
        .await
        .map_err(&failed)?;
        crate::moves::request(&mut transaction, experiment_id, table, earlier).await?;
        transaction.commit().await.map_err(&failed)?;
        self.changed();
        Ok(())
    }

    /// Removes the binding of an experiment and returns the table it named, if there was one.
    ///
    /// # Errors
    /// Storage.
    pub async fn unbind(
        &self,
        experiment_id: &ExperimentId,
    ) -> Result<Option<TableName>, RegistryError> {
        let failed = storage("unbind experiment");
        let mut transaction = self.begin("unbind experiment").await?;
        let row = sqlx::query("DELETE FROM bindings WHERE experiment_id = ? RETURNING table_name")
            .bind(experiment_id.number())
            .fetch_optional(&mut *transaction)
            .await
            .map_err(&failed)?;
        crate::moves::cancel(&mut transaction, experiment_id).await?;
        transaction.commit().await.map_err(&failed)?;
        self.changed();
        row.map(|row| table_name(&row, 0)).transpose()
    }

    /// The table that an experiment is bound to, read from the file.
    ///
    /// # Errors
    /// Storage.
    pub async fn binding(
        &self,
        experiment_id: &ExperimentId,
    ) -> Result<Option<TableName>, RegistryError> {
        let row = sqlx::query("SELECT table_name FROM bindings WHERE experiment_id = ?")
            .bind(experiment_id.number())
            .fetch_optional(&self.pool)
            .await
            .map_err(storage("read binding"))?;
        row.map(|row| table_name(&row, 0)).transpose()
    }

    /// All bindings, by experiment id.
    ///
    /// # Errors
    /// Storage.
    pub async fn bindings(&self) -> Result<Vec<Binding>, RegistryError> {
        let failed = storage("read bindings");
        let rows = sqlx::query(
            "SELECT experiment_id, table_name, enabled_at_micros, moves_earlier FROM bindings \
             ORDER BY experiment_id",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(&failed)?;
        let mut bindings = Vec::with_capacity(rows.len());
        for row in rows {
            bindings.push(Binding {
                experiment_id: row.try_get::<i64, _>(0).map_err(&failed)?.into(),
                table: table_name(&row, 1)?,
                enabled_at_micros: row.try_get(2).map_err(&failed)?,
                moves_earlier: row.try_get(3).map_err(&failed)?,
            });
        }
        Ok(bindings)
    }

    /// Makes a table known. The same name at the same place again changes nothing.
    ///
    /// # Errors
    /// [`RegistryError::TableExists`] when the name is registered at another place, or storage.
    pub async fn register_table(
        &self,
        name: &TableName,
        location_url: &str,
    ) -> Result<(), RegistryError> {
        let failed = storage("register table");
        let mut transaction = self.begin("register table").await?;
        sqlx::query(
            "INSERT INTO archive_tables (name, location_url, registered_at_ms) VALUES (?, ?, ?) \
             ON CONFLICT (name) DO NOTHING",
        )
        .bind(name.to_string())
        .bind(location_url)
        .bind(self.now_ms())
        .execute(&mut *transaction)
        .await
        .map_err(&failed)?;
        let location: String =
            sqlx::query("SELECT location_url FROM archive_tables WHERE name = ?")
                .bind(name.to_string())
                .fetch_one(&mut *transaction)
                .await
                .and_then(|row| row.try_get(0))
                .map_err(&failed)?;
        if location != location_url {
            return Err(RegistryError::TableExists { table: name.clone(), location });
        }
        transaction.commit().await.map_err(&failed)?;
        self.changed();
        Ok(())
    }

    /// Changes the places of all tables below the URL `before` to the same place below `now`.
    ///
    /// # Errors
    /// Storage.
    pub async fn relocate_tables(&self, before: &str, now: &str) -> Result<(), RegistryError> {
        sqlx::query(
            "UPDATE archive_tables SET location_url = ?2 || substr(location_url, length(?1) + 1) \
             WHERE substr(location_url, 1, length(?1)) = ?1",
        )
        .bind(before)
        .bind(now)
        .execute(&self.pool)
        .await
        .map_err(storage("relocate tables"))?;
        self.changed();
        Ok(())
    }

    /// Notes that traces of experiments without a binding go to this registered table.
    ///
    /// # Errors
    /// Storage.
    pub async fn note_default_table(&self, name: &TableName) -> Result<(), RegistryError> {
        sqlx::query("UPDATE archive_tables SET was_default = 1 WHERE name = ? AND was_default = 0")
            .bind(name.to_string())
            .execute(&self.pool)
            .await
            .map_err(storage("note default table"))?;
        self.changed();
        Ok(())
    }

    /// The table of that name, if it is known.
    ///
    /// # Errors
    /// Storage.
    pub async fn table(&self, name: &TableName) -> Result<Option<RegisteredTable>, RegistryError> {
        let row = sqlx::query("SELECT name, location_url FROM archive_tables WHERE name = ?")
            .bind(name.to_string())
            .fetch_optional(&self.pool)
            .await
            .map_err(storage("read table"))?;
        row.map(|row| registered_table(&row)).transpose()
    }

    /// All known tables, by name.
    ///
    /// # Errors
    /// Storage.
    pub async fn tables(&self) -> Result<Vec<RegisteredTable>, RegistryError> {
        let rows = sqlx::query("SELECT name, location_url FROM archive_tables ORDER BY name")
            .fetch_all(&self.pool)
            .await
            .map_err(storage("read tables"))?;
        rows.iter().map(registered_table).collect()
    }
}

fn registered_table(row: &SqliteRow) -> Result<RegisteredTable, RegistryError> {
    let location_url = row.try_get(1).map_err(storage("read table"))?;
    Ok(RegisteredTable { name: table_name(row, 0)?, location_url })
}
