//! A data folder, opened: what every command needs of it.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use tracelake_lake::{DataFolder, Lake, Table, TableSnapshot, create_or_accept};
use tracelake_model::{Clock, ExperimentId, SystemClock, TableName};
use tracelake_registry::{LifecycleStage, NewExperiment, Registry, RegistryErrorKind};

/// The folder, its registry and the lake over its tables.
#[derive(Clone, Debug)]
pub(crate) struct Archive {
    pub folder: DataFolder,
    pub registry: Arc<Registry>,
    pub lake: Lake,
    pub clock: Arc<dyn Clock>,
}

impl Archive {
    /// Opens the folder, creating it when it is not there.
    pub(crate) async fn open(data_dir: &Path) -> anyhow::Result<Self> {
        let folder = data_folder(data_dir)?;
        std::fs::create_dir_all(folder.root())
            .with_context(|| format!("create data folder `{}`", folder.root().display()))?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let registry = Registry::open(folder.root(), Arc::clone(&clock)).await?;
        Ok(Self { folder, registry: Arc::new(registry), lake: Lake::new()?, clock })
    }

    /// Creates or accepts the table and sends the experiment's traces to it.
    pub(crate) async fn setup(
        &self,
        name: &TableName,
        experiment: &str,
    ) -> anyhow::Result<SetupOutcome> {
        let table = Table::at(&self.lake, self.folder.table(name))?;
        let location = table.url().clone();
        let clock = Arc::clone(&self.clock);
        let snapshot: TableSnapshot =
            tokio::task::spawn_blocking(move || create_or_accept(&table, &*clock)).await??;
        self.registry.register_table(name, location.as_str()).await?;
        let (experiment_id, created) = self.experiment(experiment).await?;
        let now = self.clock.now_unix_micro();
        self.registry.bind(&experiment_id, name, now).await?;
        Ok(SetupOutcome {
            table: name.clone(),
            location: location.to_string(),
            version: snapshot.version(),
            experiment_id,
            experiment_created: created,
        })
    }

    /// The experiment of that name, created when there is none.
    async fn experiment(&self, name: &str) -> anyhow::Result<(ExperimentId, bool)> {
        match self.registry.experiment_by_name(name).await {
            Ok(found) if found.lifecycle_stage == LifecycleStage::Deleted => bail!(
                "experiment `{}` is deleted\nhint: restore it with the MLflow client, or choose \
                 another name",
                tracelake_model::names::printable(name)
            ),
            Ok(found) => Ok((found.experiment_id, false)),
            Err(error) if error.kind() == RegistryErrorKind::NotFound => {
                let new = NewExperiment { name: name.to_owned(), ..Default::default() };
                Ok((self.registry.create_experiment(&new).await?, true))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The data folder at a path, without touching it.
pub(crate) fn data_folder(path: &Path) -> anyhow::Result<DataFolder> {
    DataFolder::new(path).with_context(|| format!("data folder `{}`", path.display()))
}

/// What `setup` did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SetupOutcome {
    pub table: TableName,
    pub location: String,
    pub version: u64,
    pub experiment_id: ExperimentId,
    pub experiment_created: bool,
}
