//! A data folder, opened: what every command needs of it.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use tracelake_catalog::EmbeddedCatalog;
use tracelake_lake::{DataFolder, Lake, Table, TableSnapshot, create_or_accept};
use tracelake_model::{Clock, ExperimentId, SystemClock, TableName};
use tracelake_registry::{
    EarlierTraces, Experiment, LifecycleStage, NewExperiment, Registry, RegistryErrorKind,
};

/// The folder, its registry and the lake over its tables.
#[derive(Clone, Debug)]
pub(crate) struct Archive {
    pub folder: DataFolder,
    pub registry: Arc<Registry>,
    pub catalog: Arc<EmbeddedCatalog>,
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
        let catalog = EmbeddedCatalog::open(&folder.catalog()).await?;
        Ok(Self {
            folder,
            registry: Arc::new(registry),
            catalog: Arc::new(catalog),
            lake: Lake::new()?,
            clock,
        })
    }

    /// Closes the files of registry and catalog.
    pub(crate) async fn close(&self) {
        self.registry.close().await;
        self.catalog.close().await;
    }

    /// Creates or accepts the table, creates the experiment when there is none of that name, and
    /// sends its traces to the table.
    pub(crate) async fn setup(
        &self,
        name: &TableName,
        experiment: &str,
        earlier: EarlierTraces,
    ) -> anyhow::Result<SetupOutcome> {
        let (experiment_id, created) = self.experiment(experiment).await?;
        let outcome = self.enable(name, &experiment_id, earlier).await?;
        Ok(SetupOutcome { experiment_created: created, ..outcome })
    }

    /// Creates or accepts the table and sends the experiment's traces to it.
    pub(crate) async fn enable(
        &self,
        name: &TableName,
        experiment_id: &ExperimentId,
        earlier: EarlierTraces,
    ) -> anyhow::Result<SetupOutcome> {
        let table = Table::at(&self.lake, self.folder.table(name))?;
        let location = table.url().clone();
        let clock = Arc::clone(&self.clock);
        let snapshot: TableSnapshot =
            tokio::task::spawn_blocking(move || create_or_accept(&table, &*clock)).await??;
        self.registry.register_table(name, location.as_str()).await?;
        self.ensure_in_catalog(name, &snapshot).await?;
        let now = self.clock.now_unix_micro();
        self.registry.bind(experiment_id, name, now, earlier).await?;
        Ok(SetupOutcome {
            table: name.clone(),
            location: location.to_string(),
            version: snapshot.version(),
            experiment_id: experiment_id.clone(),
            experiment_created: false,
        })
    }

    /// Notes the table of experiments without a binding, so that their traces are found there
    /// when another table takes its place or an experiment is bound.
    pub(crate) async fn register_default_table(&self, name: &TableName) -> anyhow::Result<()> {
        let table = Table::at(&self.lake, self.folder.table(name))?;
        self.registry.register_table(name, table.url().as_str()).await?;
        Ok(self.registry.note_default_table(name).await?)
    }

    /// The experiment of that name or, where there is no such name, of that id.
    pub(crate) async fn existing_experiment(&self, text: &str) -> anyhow::Result<Experiment> {
        let found = match self.registry.experiment_by_name(text).await {
            Err(error) if error.kind() == RegistryErrorKind::NotFound => {
                match text.parse::<ExperimentId>() {
                    Ok(id) => self.registry.experiment(&id).await,
                    Err(_) => Err(error),
                }
            }
            found => found,
        };
        match found {
            Err(error) if error.kind() == RegistryErrorKind::NotFound => bail!(
                "no experiment `{0}`\nhint: `tracelake setup TABLE --experiment NAME` creates one, \
                 as does mlflow.set_experiment(NAME)",
                tracelake_model::names::printable(text)
            ),
            found => Ok(found?),
        }
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
