//! Moves of an experiment's earlier traces from a default table to the table it was bound to.

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, Sqlite, Transaction};
use tracelake_model::{ExperimentId, TableName};

use crate::Registry;
use crate::error::{RegistryError, storage};
use crate::schema::table_name;

/// What becomes of the traces that an experiment has in the default table when it is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EarlierTraces {
    /// They go to the table too.
    Move,
    /// They stay where they are.
    Stay,
}

/// How a move stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoveState {
    /// Traces may be left in the source.
    Pending,
    /// It was called off. Traces that were on the way when it was are to be settled: those that
    /// are in the target leave the source. Then it is forgotten.
    Cancelled,
    /// Nothing was left in the source.
    Done,
}

impl MoveState {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Cancelled => "cancelled",
            Self::Done => "done",
        }
    }
}

/// Traces of one experiment that are to go from one table to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The experiment.
    pub experiment_id: ExperimentId,
    /// Where its traces are.
    pub source: TableName,
    /// Where they belong.
    pub target: TableName,
    /// How it stands.
    pub state: MoveState,
    /// Traces moved so far.
    pub moved_traces: u64,
    /// Why it does not go on, if it does not.
    pub fault: Option<String>,
}

impl Move {
    /// True for the same way of the same traces, however it stands.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.experiment_id, &self.source, &self.target)
            == (&other.experiment_id, &other.source, &other.target)
    }
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
            "INSERT INTO moves (experiment_id, source_table, target_table, state) \
             SELECT ?1, name, ?2, 'pending' FROM archive_tables \
             WHERE was_default = 1 AND name != ?2 \
             ON CONFLICT DO UPDATE SET state = 'pending', moved_traces = 0, fault = NULL",
        )
        .bind(experiment_id.number())
        .bind(target.to_string())
        .execute(&mut **transaction)
        .await
        .map_err(&failed)?;
    }
    Ok(())
}

/// Calls the moves of an experiment off: what was moved stays where it is.
pub(crate) async fn cancel(
    transaction: &mut Transaction<'_, Sqlite>,
    experiment_id: &ExperimentId,
) -> Result<(), RegistryError> {
    for statement in [
        "DELETE FROM moves WHERE experiment_id = ? AND state = 'done'",
        "UPDATE moves SET state = 'cancelled' WHERE experiment_id = ?",
    ] {
        sqlx::query(statement)
            .bind(experiment_id.number())
            .execute(&mut **transaction)
            .await
            .map_err(storage("cancel moves"))?;
    }
    Ok(())
}

impl Registry {
    /// The moves of an experiment, or of all, cancelled ones first.
    ///
    /// # Errors
    /// Storage.
    pub async fn moves(
        &self,
        experiment_id: Option<&ExperimentId>,
    ) -> Result<Vec<Move>, RegistryError> {
        let rows = sqlx::query(
            "SELECT experiment_id, source_table, target_table, state, moved_traces, fault \
             FROM moves WHERE ?1 IS NULL OR experiment_id = ?1 \
             ORDER BY state = 'cancelled' DESC, experiment_id, source_table",
        )
        .bind(experiment_id.map(ExperimentId::number))
        .fetch_all(&self.pool)
        .await
        .map_err(storage("read moves"))?;
        rows.iter().map(read_move).collect()
    }

    /// Notes progress of a move.
    ///
    /// # Errors
    /// Storage.
    pub async fn note_moved(&self, one: &Move, traces: u64) -> Result<(), RegistryError> {
        let statement = "UPDATE moves SET moved_traces = moved_traces + ?1, fault = NULL \
             WHERE experiment_id = ?2 AND source_table = ?3 AND target_table = ?4";
        self.change_move(one, statement, i64::try_from(traces).unwrap_or(i64::MAX)).await
    }

    /// Notes why a move does not go on; it is tried again.
    ///
    /// # Errors
    /// Storage.
    pub async fn note_move_fault(&self, one: &Move, fault: &str) -> Result<(), RegistryError> {
        let statement = "UPDATE moves SET fault = ?1 \
             WHERE experiment_id = ?2 AND source_table = ?3 AND target_table = ?4";
        self.change_move(one, statement, fault).await
    }

    /// Ends a move that found nothing more, if it still stands as it did: a pending one is done, a
    /// cancelled one is forgotten.
    ///
    /// # Errors
    /// Storage.
    pub async fn end_move(&self, one: &Move) -> Result<(), RegistryError> {
        let statement = match one.state {
            MoveState::Cancelled => {
                "DELETE FROM moves WHERE state = ?1 \
                 AND experiment_id = ?2 AND source_table = ?3 AND target_table = ?4"
            }
            MoveState::Pending | MoveState::Done => {
                "UPDATE moves SET state = 'done', fault = NULL WHERE state = ?1 \
                 AND experiment_id = ?2 AND source_table = ?3 AND target_table = ?4"
            }
        };
        self.change_move(one, statement, one.state.as_str()).await
    }

    /// Runs a statement whose parameters are `value` and the key of a move.
    async fn change_move<'q, T>(
        &self,
        one: &Move,
        statement: &'static str,
        value: T,
    ) -> Result<(), RegistryError>
    where
        T: sqlx::Encode<'q, Sqlite> + sqlx::Type<Sqlite> + Send + 'q,
    {
        sqlx::query(statement)
            .bind(value)
            .bind(one.experiment_id.number())
            .bind(one.source.to_string())
            .bind(one.target.to_string())
            .execute(&self.pool)
            .await
            .map_err(storage("change move"))?;
        self.changed();
        Ok(())
    }
}

fn read_move(row: &SqliteRow) -> Result<Move, RegistryError> {
    let failed = storage("read moves");
    let moved: i64 = row.try_get(4).map_err(&failed)?;
    Ok(Move {
        experiment_id: row.try_get::<i64, _>(0).map_err(&failed)?.into(),
        source: table_name(row, 1)?,
        target: table_name(row, 2)?,
        state: match row.try_get::<&str, _>(3).map_err(&failed)? {
            "pending" => MoveState::Pending,
            "done" => MoveState::Done,
            _ => MoveState::Cancelled,
        },
        moved_traces: u64::try_from(moved).unwrap_or_default(),
        fault: row.try_get(5).map_err(&failed)?,
    })
}
