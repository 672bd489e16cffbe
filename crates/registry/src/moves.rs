//! Moves of an experiment's earlier traces from a default table to the table it was bound to.

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, Sqlite, Transaction};
use tracelake_model::{ExperimentId, TableName};

use crate::Registry;
use crate::bindings::{EarlierTraces, table_name};
use crate::error::{RegistryError, storage};

/// Traces of one experiment that are to go from one table to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The experiment.
    pub experiment_id: ExperimentId,
    /// Where its traces are.
    pub source: TableName,
    /// Where they belong.
    pub target: TableName,
    /// Traces moved so far.
    pub moved_traces: u64,
    /// True when nothing was left in the source.
    pub done: bool,
}

/// Replaces the moves of an experiment by those that its binding asks for.
pub(crate) async fn request(
    transaction: &mut Transaction<'_, Sqlite>,
    experiment_id: &ExperimentId,
    target: &TableName,
    earlier: EarlierTraces,
) -> Result<(), RegistryError> {
    let failed = storage("request move");
    cancel(transaction, experiment_id).await?;
    sqlx::query("INSERT OR IGNORE INTO past_bindings (experiment_id, table_name) VALUES (?, ?)")
        .bind(experiment_id.number())
        .bind(target.to_string())
        .execute(&mut **transaction)
        .await
        .map_err(&failed)?;
    if earlier == EarlierTraces::Move {
        sqlx::query(
            "INSERT INTO moves (experiment_id, source_table, target_table) \
             SELECT ?, name, ? FROM archive_tables WHERE was_default = 1 AND name != ?",
        )
        .bind(experiment_id.number())
        .bind(target.to_string())
        .bind(target.to_string())
        .execute(&mut **transaction)
        .await
        .map_err(&failed)?;
    }
    Ok(())
}

/// Forgets the moves of an experiment: what was moved stays where it is.
pub(crate) async fn cancel(
    transaction: &mut Transaction<'_, Sqlite>,
    experiment_id: &ExperimentId,
) -> Result<(), RegistryError> {
    sqlx::query("DELETE FROM moves WHERE experiment_id = ?")
        .bind(experiment_id.number())
        .execute(&mut **transaction)
        .await
        .map_err(storage("cancel moves"))?;
    Ok(())
}

impl Registry {
    /// The moves of an experiment, or of all; done ones too.
    ///
    /// # Errors
    /// Storage.
    pub async fn moves(
        &self,
        experiment_id: Option<&ExperimentId>,
    ) -> Result<Vec<Move>, RegistryError> {
        let rows = sqlx::query(
            "SELECT experiment_id, source_table, target_table, moved_traces, done FROM moves \
             WHERE ?1 IS NULL OR experiment_id = ?1 ORDER BY experiment_id, source_table",
        )
        .bind(experiment_id.map(ExperimentId::number))
        .fetch_all(&self.pool)
        .await
        .map_err(storage("read moves"))?;
        rows.iter().map(read_move).collect()
    }

    /// The moves that are not done.
    ///
    /// # Errors
    /// Storage.
    pub async fn pending_moves(&self) -> Result<Vec<Move>, RegistryError> {
        let mut moves = self.moves(None).await?;
        moves.retain(|pending| !pending.done);
        Ok(moves)
    }

    /// Notes progress of a move that was not cancelled or replaced meanwhile.
    ///
    /// # Errors
    /// Storage.
    pub async fn note_moved(
        &self,
        pending: &Move,
        traces: u64,
        done: bool,
    ) -> Result<(), RegistryError> {
        sqlx::query(
            "UPDATE moves SET moved_traces = moved_traces + ?, done = ? \
             WHERE experiment_id = ? AND source_table = ? AND target_table = ?",
        )
        .bind(i64::try_from(traces).unwrap_or(i64::MAX))
        .bind(done)
        .bind(pending.experiment_id.number())
        .bind(pending.source.to_string())
        .bind(pending.target.to_string())
        .execute(&self.pool)
        .await
        .map_err(storage("note move"))?;
        Ok(())
    }
}

fn read_move(row: &SqliteRow) -> Result<Move, RegistryError> {
    let failed = storage("read moves");
    let moved: i64 = row.try_get(3).map_err(&failed)?;
    Ok(Move {
        experiment_id: row.try_get::<i64, _>(0).map_err(&failed)?.into(),
        source: table_name(row, 1)?,
        target: table_name(row, 2)?,
        moved_traces: u64::try_from(moved).unwrap_or_default(),
        done: row.try_get(4).map_err(&failed)?,
    })
}
