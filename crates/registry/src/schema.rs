//! The tables of `registry.db`, as migrations applied in order.
//!
//! A migration that has shipped never changes: a later one amends it.

use sqlx::sqlite::SqliteRow;
use sqlx::{Executor, Row, SqliteConnection};
use tracelake_model::TableName;
use uuid::Uuid;

use crate::error::{RegistryError, storage};

/// One entry per schema version, starting at version 1.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE experiments (
        experiment_id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL UNIQUE,
        artifact_location TEXT NOT NULL,
        lifecycle_stage TEXT NOT NULL CHECK (lifecycle_stage IN ('active', 'deleted')),
        creation_time_ms INTEGER NOT NULL,
        last_update_time_ms INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE experiment_tags (
        experiment_id INTEGER NOT NULL REFERENCES experiments (experiment_id),
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (experiment_id, key)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE archive_tables (
        name TEXT PRIMARY KEY,
        location_url TEXT NOT NULL,
        registered_at_ms INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE bindings (
        experiment_id INTEGER PRIMARY KEY REFERENCES experiments (experiment_id),
        table_name TEXT NOT NULL REFERENCES archive_tables (name),
        enabled_at_micros INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE identity (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        archiver_id TEXT NOT NULL
    ) STRICT;
",
    "
    ALTER TABLE archive_tables ADD COLUMN was_default INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE bindings ADD COLUMN moves_earlier INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE past_bindings (
        experiment_id INTEGER NOT NULL REFERENCES experiments (experiment_id),
        table_name TEXT NOT NULL REFERENCES archive_tables (name),
        PRIMARY KEY (experiment_id, table_name)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO past_bindings SELECT experiment_id, table_name FROM bindings;
    CREATE TABLE moves (
        experiment_id INTEGER NOT NULL REFERENCES experiments (experiment_id),
        source_table TEXT NOT NULL REFERENCES archive_tables (name),
        target_table TEXT NOT NULL REFERENCES archive_tables (name),
        state TEXT NOT NULL CHECK (state IN ('pending', 'cancelled', 'done')),
        moved_traces INTEGER NOT NULL DEFAULT 0,
        fault TEXT,
        PRIMARY KEY (experiment_id, source_table, target_table)
    ) STRICT, WITHOUT ROWID;
",
    "
    ALTER TABLE identity ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
    CREATE TRIGGER experiments_insert AFTER INSERT ON experiments
    BEGIN UPDATE identity SET revision = revision + 1; END;
    CREATE TRIGGER experiments_update AFTER UPDATE ON experiments
    BEGIN UPDATE identity SET revision = revision + 1; END;
    CREATE TRIGGER experiments_delete AFTER DELETE ON experiments
    BEGIN UPDATE identity SET revision = revision + 1; END;
    CREATE TRIGGER experiment_tags_insert AFTER INSERT ON experiment_tags
    BEGIN UPDATE identity SET revision = revision + 1; END;
    CREATE TRIGGER experiment_tags_update AFTER UPDATE ON experiment_tags
    BEGIN UPDATE identity SET revision = revision + 1; END;
    CREATE TRIGGER experiment_tags_delete AFTER DELETE ON experiment_tags
    BEGIN UPDATE identity SET revision = revision + 1; END;
    CREATE TRIGGER archive_tables_insert AFTER INSERT ON archive_tables
    BEGIN UPDATE identity SET revision = revision + 1; END;
    CREATE TRIGGER archive_tables_update AFTER UPDATE ON archive_tables
    BEGIN UPDATE identity SET revision = revision + 1; END;
    CREATE TRIGGER archive_tables_delete AFTER DELETE ON archive_tables
    BEGIN UPDATE identity SET revision = revision + 1; END;
    CREATE TRIGGER bindings_insert AFTER INSERT ON bindings
    BEGIN UPDATE identity SET revision = revision + 1; END;
    CREATE TRIGGER bindings_update AFTER UPDATE ON bindings
    BEGIN UPDATE identity SET revision = revision + 1; END;
    CREATE TRIGGER bindings_delete AFTER DELETE ON bindings
    BEGIN UPDATE identity SET revision = revision + 1; END;
    CREATE TRIGGER past_bindings_insert AFTER INSERT ON past_bindings
    BEGIN UPDATE identity SET revision = revision + 1; END;
    CREATE TRIGGER past_bindings_update AFTER UPDATE ON past_bindings
    BEGIN UPDATE identity SET revision = revision + 1; END;
    CREATE TRIGGER past_bindings_delete AFTER DELETE ON past_bindings
    BEGIN UPDATE identity SET revision = revision + 1; END;
    CREATE TRIGGER moves_insert AFTER INSERT ON moves
    BEGIN UPDATE identity SET revision = revision + 1; END;
    CREATE TRIGGER moves_update AFTER UPDATE ON moves
    BEGIN UPDATE identity SET revision = revision + 1; END;
    CREATE TRIGGER moves_delete AFTER DELETE ON moves
    BEGIN UPDATE identity SET revision = revision + 1; END;
",
];

/// The tables of a registry, each with the version that brought it.
pub(crate) const TABLES: [(i64, &str); 6] = [
    (1, "experiments"),
    (1, "experiment_tags"),
    (1, "archive_tables"),
    (1, "bindings"),
    (2, "past_bindings"),
    (2, "moves"),
];

/// The newest version that this program knows.
pub(crate) fn supported_version() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// Brings the file to the newest version, and makes what always exists: experiment 0, `Default`,
/// and the id of this archiver, which is returned.
///
/// Runs in the caller's write transaction, so that of two processes one waits for the other.
pub(crate) async fn migrate(
    connection: &mut SqliteConnection,
    path: &str,
    now_ms: i64,
) -> Result<Uuid, RegistryError> {
    let failed = storage("migrate schema");
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS schema_version \
         (version INTEGER PRIMARY KEY, applied_at_ms INTEGER NOT NULL) STRICT",
    )
    .execute(&mut *connection)
    .await
    .map_err(&failed)?;
    let found: i64 = sqlx::query("SELECT coalesce(max(version), 0) FROM schema_version")
        .fetch_one(&mut *connection)
        .await
        .and_then(|row| row.try_get(0))
        .map_err(&failed)?;
    let supported = supported_version();
    if supported < found {
        return Err(RegistryError::SchemaTooNew { path: path.to_owned(), found, supported });
    }
    for (version, migration) in (1_i64..).zip(MIGRATIONS) {
        if version <= found {
            continue;
        }
        connection.execute(*migration).await.map_err(&failed)?;
        sqlx::query("INSERT INTO schema_version (version, applied_at_ms) VALUES (?, ?)")
            .bind(version)
            .bind(now_ms)
            .execute(&mut *connection)
            .await
            .map_err(&failed)?;
    }
    ensure_default_experiment(connection, now_ms).await?;
    ensure_archiver_id(connection).await
}

async fn ensure_default_experiment(
    connection: &mut SqliteConnection,
    now_ms: i64,
) -> Result<(), RegistryError> {
    sqlx::query(
        "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, \
         creation_time_ms, last_update_time_ms) \
         VALUES (0, 'Default', 'mlflow-artifacts:/0', 'active', ?1, ?1) \
         ON CONFLICT (experiment_id) DO NOTHING",
    )
    .bind(now_ms)
    .execute(connection)
    .await
    .map_err(storage("create default experiment"))?;
    Ok(())
}

async fn ensure_archiver_id(connection: &mut SqliteConnection) -> Result<Uuid, RegistryError> {
    let failed = storage("read archiver id");
    sqlx::query("INSERT INTO identity (one, archiver_id) VALUES (1, ?) ON CONFLICT DO NOTHING")
        .bind(Uuid::new_v4().to_string())
        .execute(&mut *connection)
        .await
        .map_err(&failed)?;
    let text: String = sqlx::query("SELECT archiver_id FROM identity WHERE one = 1")
        .fetch_one(connection)
        .await
        .and_then(|row| row.try_get(0))
        .map_err(&failed)?;
    text.parse().map_err(|error| failed(sqlx::Error::Decode(Box::<uuid::Error>::new(error))))
}

/// The name of a table in a row.
pub(crate) fn table_name(row: &SqliteRow, column: usize) -> Result<TableName, RegistryError> {
    let text: String = row.try_get(column).map_err(storage("read table name"))?;
    Ok(text.parse()?)
}
