//! Experiments as MLflow has them: folders of traces with a unique name and mutable tags.
//!
//! Rules and messages follow MLflow's SQL store; where it answers unclearly (a rename to a taken
//! name is a database error there) ours is the error that its other calls give.

mod filter;
mod search;
#[cfg(test)]
mod tests;
mod validate;

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use tracelake_model::ExperimentId;

use crate::error::{RegistryError, is_unique_violation, storage};
use crate::ids;
use crate::{LifecycleStage, Registry};
use validate::{check_artifact_location, check_name, check_not_reserved, check_tag};

pub use search::{ExperimentPage, ExperimentQuery, ViewType};
pub use validate::check_tag_key;

/// A tag of an experiment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag {
    /// Unique within its experiment.
    pub key: String,
    /// The value, maybe empty.
    pub value: String,
}

/// An experiment. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Experiment {
    /// Its id, never given twice.
    pub experiment_id: ExperimentId,
    /// Its name, unique among active and deleted ones.
    pub name: String,
    /// URI below which its artifacts lie.
    pub artifact_location: String,
    /// Active or deleted.
    pub lifecycle_stage: LifecycleStage,
    /// When it was created.
    pub creation_time_ms: i64,
    /// When it was last renamed, deleted or restored.
    pub last_update_time_ms: i64,
    /// By key. Those of a bound experiment have `tracelake.archive.table`, the full name of its
    /// table, and `tracelake.archive.enabledAt`, since when, RFC 3339. Nobody else can set these.
    pub tags: Vec<Tag>,
}

/// An experiment to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewExperiment {
    /// Its name.
    pub name: String,
    /// `mlflow-artifacts:/<id>` when absent or empty.
    pub artifact_location: Option<String>,
    /// Its first tags; of two with one key the later counts.
    pub tags: Vec<Tag>,
}

const COLUMNS: &str = "experiment_id, name, artifact_location, lifecycle_stage, \
     creation_time_ms, last_update_time_ms";

impl Registry {
    /// Makes an experiment and returns its id.
    ///
    /// # Errors
    /// [`RegistryError::ExperimentExists`], one of the invalid values, or storage.
    pub async fn create_experiment(
        &self,
        new: &NewExperiment,
    ) -> Result<ExperimentId, RegistryError> {
        check_name(&new.name)?;
        let artifact_location = new.artifact_location.as_deref().filter(|uri| !uri.is_empty());
        artifact_location.map_or(Ok(()), check_artifact_location)?;
        for tag in &new.tags {
            check_tag(&tag.key, &tag.value)?;
        }
        let failed = storage("create experiment");
        let mut transaction = self.begin("create experiment").await?;
        let inserted = sqlx::query(
            "INSERT INTO experiments (name, artifact_location, lifecycle_stage, \
             creation_time_ms, last_update_time_ms) VALUES (?1, ?2, 'active', ?3, ?3)",
        )
        .bind(&new.name)
        .bind(artifact_location.unwrap_or_default())
        .bind(self.now_ms())
        .execute(&mut *transaction)
        .await;
        let number = match inserted {
            Ok(done) => done.last_insert_rowid(),
            Err(error) if is_unique_violation(&error) => {
                return Err(RegistryError::ExperimentExists { name: new.name.clone() });
            }
            Err(error) => return Err(failed(error)),
        };
        if artifact_location.is_none() {
            sqlx::query("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?")
                .bind(format!("mlflow-artifacts:/{number}"))
                .bind(number)
                .execute(&mut *transaction)
                .await
                .map_err(&failed)?;
        }
        for tag in &new.tags {
            put_tag(&mut transaction, number, tag).await?;
        }
        let data_dir = self.data_dir.clone();
        let covered = tokio::task::spawn_blocking(move || ids::cover(&data_dir, number));
        covered.await.map_err(|error| failed(sqlx::Error::Io(std::io::Error::other(error))))??;
        transaction.commit().await.map_err(&failed)?;
        self.changed();
        Ok(number.into())
    }

    /// The experiment of that id, active or deleted.
    ///
    /// # Errors
    /// [`RegistryError::ExperimentNotFound`], or storage.
    pub async fn experiment(&self, id: &ExperimentId) -> Result<Experiment, RegistryError> {
        let query = format!("SELECT {COLUMNS} FROM experiments WHERE experiment_id = ?");
        let row = sqlx::query(&query)
            .bind(id.number())
            .fetch_optional(&self.pool)
            .await
            .map_err(storage("read experiment"))?
            .ok_or_else(|| RegistryError::ExperimentNotFound { id: id.clone() })?;
        self.with_tags(&row).await
    }

    /// The experiment of that name, active or deleted.
    ///
    /// # Errors
    /// [`RegistryError::ExperimentNameNotFound`], or storage.
    pub async fn experiment_by_name(&self, name: &str) -> Result<Experiment, RegistryError> {
        let query = format!("SELECT {COLUMNS} FROM experiments WHERE name = ?");
        let row = sqlx::query(&query)
            .bind(name)
            .fetch_optional(&self.pool)
            .await
            .map_err(storage("read experiment"))?
            .ok_or_else(|| RegistryError::ExperimentNameNotFound { name: name.to_owned() })?;
        self.with_tags(&row).await
    }

    /// Renames an active experiment.
    ///
    /// # Errors
    /// [`RegistryError::RenameDeleted`], [`RegistryError::ExperimentNotFound`],
    /// [`RegistryError::ExperimentExists`], an invalid name, or storage.
    pub async fn rename_experiment(
        &self,
        id: &ExperimentId,
        new_name: &str,
    ) -> Result<(), RegistryError> {
        check_name(new_name)?;
        let failed = storage("rename experiment");
        let mut transaction = self.begin("rename experiment").await?;
        if stage_of(&mut transaction, id).await? == LifecycleStage::Deleted {
            return Err(RegistryError::RenameDeleted { id: id.clone() });
        }
        let renamed = sqlx::query(
            "UPDATE experiments SET name = ?, last_update_time_ms = ? WHERE experiment_id = ?",
        )
        .bind(new_name)
        .bind(self.now_ms())
        .bind(id.number())
        .execute(&mut *transaction)
        .await;
        match renamed {
            Ok(_) => {
                transaction.commit().await.map_err(&failed)?;
                self.changed();
                Ok(())
            }
            Err(error) if is_unique_violation(&error) => {
                Err(RegistryError::ExperimentExists { name: new_name.to_owned() })
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Marks an active experiment as deleted. Its traces, tags and binding stay.
    ///
    /// # Errors
    /// [`RegistryError::ExperimentNotFound`] when there is no active one of that id, or storage.
    pub async fn delete_experiment(&self, id: &ExperimentId) -> Result<(), RegistryError> {
        self.move_experiment(id, LifecycleStage::Active, LifecycleStage::Deleted).await
    }

    /// Marks a deleted experiment as active again.
    ///
    /// # Errors
    /// [`RegistryError::ExperimentNotFound`] when there is no deleted one of that id, or storage.
    pub async fn restore_experiment(&self, id: &ExperimentId) -> Result<(), RegistryError> {
        self.move_experiment(id, LifecycleStage::Deleted, LifecycleStage::Active).await
    }

    async fn move_experiment(
        &self,
        id: &ExperimentId,
        from: LifecycleStage,
        to: LifecycleStage,
    ) -> Result<(), RegistryError> {
        let moved = sqlx::query(
            "UPDATE experiments SET lifecycle_stage = ?, last_update_time_ms = ? \
             WHERE experiment_id = ? AND lifecycle_stage = ?",
        )
        .bind(to.as_str())
        .bind(self.now_ms())
        .bind(id.number())
        .bind(from.as_str())
        .execute(&self.pool)
        .await
        .map_err(storage("delete or restore experiment"))?;
        if moved.rows_affected() == 0 {
            return Err(RegistryError::ExperimentNotFound { id: id.clone() });
        }
        self.changed();
        Ok(())
    }

    /// Sets a tag of an active experiment, in place of an earlier value.
    ///
    /// # Errors
    /// [`RegistryError::ReservedTag`], [`RegistryError::ExperimentDeleted`], [`RegistryError::ExperimentNotFound`], an invalid key
    /// or value, or storage.
    pub async fn set_experiment_tag(
        &self,
        id: &ExperimentId,
        tag: &Tag,
    ) -> Result<(), RegistryError> {
        check_tag(&tag.key, &tag.value)?;
        let mut transaction = self.begin("set experiment tag").await?;
        require_active(&mut transaction, id).await?;
        put_tag(&mut transaction, id.number(), tag).await?;
        transaction.commit().await.map_err(storage("set experiment tag"))?;
        self.changed();
        Ok(())
    }

    /// Removes a tag of an active experiment.
    ///
    /// # Errors
    /// [`RegistryError::TagNotFound`], [`RegistryError::ReservedTag`], [`RegistryError::ExperimentDeleted`],
    /// [`RegistryError::ExperimentNotFound`], or storage.
    pub async fn delete_experiment_tag(
        &self,
        id: &ExperimentId,
        key: &str,
    ) -> Result<(), RegistryError> {
        check_not_reserved(key)?;
        let failed = storage("delete experiment tag");
        let mut transaction = self.begin("delete experiment tag").await?;
        require_active(&mut transaction, id).await?;
        let deleted =
            sqlx::query("DELETE FROM experiment_tags WHERE experiment_id = ? AND key = ?")
                .bind(id.number())
                .bind(key)
                .execute(&mut *transaction)
                .await
                .map_err(&failed)?;
        if deleted.rows_affected() == 0 {
            return Err(RegistryError::TagNotFound { id: id.clone(), key: key.to_owned() });
        }
        transaction.commit().await.map_err(&failed)?;
        self.changed();
        Ok(())
    }

    async fn with_tags(&self, row: &SqliteRow) -> Result<Experiment, RegistryError> {
        let mut experiments = vec![experiment(row).map_err(storage("read experiment"))?];
        self.fill_tags(&mut experiments).await?;
        experiments.pop().ok_or_else(|| storage("read experiment")(sqlx::Error::RowNotFound))
    }
}

/// An experiment without its tags, from a row of [`COLUMNS`].
fn experiment(row: &SqliteRow) -> Result<Experiment, sqlx::Error> {
    Ok(Experiment {
        experiment_id: row.try_get::<i64, _>(0)?.into(),
        name: row.try_get(1)?,
        artifact_location: row.try_get(2)?,
        lifecycle_stage: LifecycleStage::parse(row.try_get(3)?),
        creation_time_ms: row.try_get(4)?,
        last_update_time_ms: row.try_get(5)?,
        tags: Vec::new(),
    })
}

/// The stage of an experiment, within a transaction.
pub(crate) async fn stage_of(
    connection: &mut SqliteConnection,
    id: &ExperimentId,
) -> Result<LifecycleStage, RegistryError> {
    let failed = storage("read experiment");
    let row = sqlx::query("SELECT lifecycle_stage FROM experiments WHERE experiment_id = ?")
        .bind(id.number())
        .fetch_optional(connection)
        .await
        .map_err(&failed)?
        .ok_or_else(|| RegistryError::ExperimentNotFound { id: id.clone() })?;
    Ok(LifecycleStage::parse(row.try_get(0).map_err(&failed)?))
}

async fn require_active(
    connection: &mut SqliteConnection,
    id: &ExperimentId,
) -> Result<(), RegistryError> {
    match stage_of(connection, id).await? {
        LifecycleStage::Active => Ok(()),
        LifecycleStage::Deleted => Err(RegistryError::ExperimentDeleted { id: id.clone() }),
    }
}

async fn put_tag(
    connection: &mut SqliteConnection,
    experiment: i64,
    tag: &Tag,
) -> Result<(), RegistryError> {
    sqlx::query(
        "INSERT INTO experiment_tags (experiment_id, key, value) VALUES (?, ?, ?) \
         ON CONFLICT (experiment_id, key) DO UPDATE SET value = excluded.value",
    )
    .bind(experiment)
    .bind(&tag.key)
    .bind(&tag.value)
    .execute(connection)
    .await
    .map_err(storage("set experiment tag"))?;
    Ok(())
}
