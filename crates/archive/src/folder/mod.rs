//! A data folder, opened: what every command needs of it.

pub(crate) mod catalog;
mod relocation;
pub(crate) mod restored;

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tracelake_catalog::EmbeddedCatalog;
use tracelake_journal::{RealFs, create_folders};
use tracelake_lake::{
    DataFolder, Lake, LakeError, TABLES_MARKER, Table, TableSnapshot, create_or_accept,
};
use tracelake_model::names::printable;
use tracelake_model::{Clock, ExperimentId, SystemClock, TableName};
use tracelake_pipeline::{Stores, clock_of};
use tracelake_registry::{
    EarlierTraces, Experiment, LifecycleStage, NewExperiment, REGISTRY_FILE, Registry,
    RegistryError, RegistryErrorKind,
};
use tracing::error;

use crate::discovery::ServerFile;
use crate::fault::{Fault, FaultKind};
use crate::folder::restored::open_registry_or_restore;

/// The folder, its registry and the lake over its tables.
#[derive(Clone, Debug)]
pub struct Archive {
    /// The folder.
    pub folder: DataFolder,
    /// Experiments, bindings, moves.
    pub registry: Arc<Registry>,
    /// The Unity Catalog.
    pub catalog: Arc<EmbeddedCatalog>,
    /// The way to the tables.
    pub lake: Lake,
    /// What time it is there.
    pub clock: Arc<dyn Clock>,
}

impl Archive {
    /// Opens the folder, creating it when it is not there.
    ///
    /// # Errors
    /// When it cannot be made, or a file in it cannot be opened.
    pub async fn open(data_dir: &Path) -> anyhow::Result<Self> {
        Self::open_with_tables(data_dir, None).await
    }

    /// Opens the folder with its tables in `tables_dir`, which it leads to from then on.
    ///
    /// # Errors
    /// As [`Self::open`]; when the tables are elsewhere already, or cannot be there.
    pub async fn open_with_tables(
        data_dir: &Path,
        tables_dir: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let mut folder = data_folder(data_dir)?;
        create_folders(&RealFs, folder.root())
            .with_context(|| format!("create data folder `{}`", folder.root().display()))?;
        if let Some(tables_dir) = tables_dir {
            folder = folder.with_tables(tables_dir).map_err(|error| no_such_tables(&error))?;
        }
        let clock = clock_of(&folder);
        let server_file = folder.server_file();
        let running =
            tokio::task::spawn_blocking(move || ServerFile::running(&server_file).is_some());
        // A service has the files open: to put others in their place is its own business.
        let (registry, catalog) = if running.await? {
            let registry = Registry::open(folder.root(), Arc::clone(&clock)).await;
            let registry = registry.map_err(registry_fault)?;
            (registry, EmbeddedCatalog::open(&folder.catalog()).await?)
        } else {
            let registry = open_registry_or_restore(&folder, &clock).await;
            let registry = registry.map_err(registry_fault)?;
            if !folder.catalog().try_exists()? && !registry.tables().await?.is_empty() {
                error!(
                    file = %folder.catalog().display(),
                    "missing: made again, the service enters its tables; what clients entered themselves is lost"
                );
            }
            (registry, mended_catalog(&folder, clock.as_ref()).await?)
        };
        let archive = Self {
            folder,
            registry: Arc::new(registry),
            catalog: Arc::new(catalog),
            lake: Lake::new()?,
            clock,
        };
        if !archive.folder.server_file().try_exists()? {
            // A service that runs may know the folder by another path, and has the last word.
            archive.follow_folder().await?;
        }
        Ok(archive)
    }

    /// What of it the pipeline works on.
    pub(crate) fn stores(&self) -> Stores {
        Stores {
            folder: self.folder.clone(),
            registry: Arc::clone(&self.registry),
            lake: self.lake.clone(),
            clock: Arc::clone(&self.clock),
        }
    }

    /// Closes the files of registry and catalog.
    pub async fn close(&self) {
        self.registry.close().await;
        self.catalog.close().await;
    }

    /// Creates or accepts the table, creates the experiment when there is none of that name, and
    /// sends its traces to the table.
    ///
    /// # Errors
    /// [`FaultKind::Conflict`] when what is there cannot hold traces.
    pub async fn setup(
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
    ///
    /// # Errors
    /// As [`Self::setup`]; when there is no such experiment.
    pub async fn enable(
        &self,
        name: &TableName,
        experiment_id: &ExperimentId,
        earlier: EarlierTraces,
    ) -> anyhow::Result<SetupOutcome> {
        let made = self.ensure_table(name).await?;
        let now = self.clock.now_unix_micro();
        self.registry.bind(experiment_id, name, now, earlier).await?;
        Ok(SetupOutcome {
            table: made.table,
            location: made.location,
            version: made.version,
            experiment_id: experiment_id.clone(),
            experiment_created: false,
        })
    }

    /// Creates or accepts the table and enters it in the catalog.
    pub(crate) async fn ensure_table(&self, name: &TableName) -> anyhow::Result<TableOutcome> {
        check_tables(&self.folder)?;
        let table = Table::at(&self.lake, self.folder.table(name))?;
        let location = table.url().clone();
        let clock = Arc::clone(&self.clock);
        let snapshot: TableSnapshot =
            tokio::task::spawn_blocking(move || create_or_accept(&table, &*clock)).await??;
        self.registry.register_table(name, location.as_str()).await?;
        self.ensure_in_catalog(name, &snapshot).await?;
        Ok(TableOutcome {
            table: name.clone(),
            location: location.to_string(),
            version: snapshot.version(),
        })
    }

    /// Sends the experiment's traces to the default table again. Returns the experiment and the
    /// table that it was archived to, which must be `expected` if that is given.
    ///
    /// # Errors
    /// [`FaultKind::ExperimentNotFound`]; [`FaultKind::Conflict`] when it goes to another table.
    pub async fn disable(
        &self,
        experiment: &str,
        expected: Option<&TableName>,
    ) -> anyhow::Result<(Option<TableName>, Experiment)> {
        let experiment = self.existing_experiment(experiment).await?;
        let id = &experiment.experiment_id;
        if let Some(expected) = expected {
            let bound = self.registry.binding(id).await?;
            if let Some(bound) = bound.filter(|bound| bound != expected) {
                return Err(Fault::new(
                    FaultKind::Conflict,
                    format!(
                        "experiment `{}` is archived to `{bound}`, not to `{expected}`",
                        printable(&experiment.name)
                    ),
                )
                .with_hint("leave the table out to disable it wherever it goes")
                .into());
            }
        }
        Ok((self.registry.unbind(id).await?, experiment))
    }

    /// Notes the table of experiments without a binding, so that their traces are found there
    /// when another table takes its place or an experiment is bound.
    ///
    /// # Errors
    /// When the registry cannot be written.
    pub async fn register_default_table(&self, name: &TableName) -> anyhow::Result<()> {
        self.stores().register_default_table(name).await
    }

    /// The experiment of that name or, where there is no such name, of that id.
    ///
    /// # Errors
    /// [`FaultKind::ExperimentNotFound`].
    pub async fn existing_experiment(&self, text: &str) -> anyhow::Result<Experiment> {
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
            Err(error) if error.kind() == RegistryErrorKind::NotFound => Err(Fault::new(
                FaultKind::ExperimentNotFound,
                format!("no experiment `{}`", printable(text)),
            )
            .with_hint(
                "`tracelake setup TABLE --experiment NAME` creates one, as does \
                 mlflow.set_experiment(NAME)",
            )
            .into()),
            found => Ok(found?),
        }
    }

    /// The experiment of that name, created when there is none, and whether it was.
    pub(crate) async fn experiment(&self, name: &str) -> anyhow::Result<(ExperimentId, bool)> {
        match self.registry.experiment_by_name(name).await {
            Ok(found) if found.lifecycle_stage == LifecycleStage::Deleted => Err(Fault::new(
                FaultKind::ExperimentNotFound,
                format!("experiment `{}` is deleted", printable(name)),
            )
            .with_hint("restore it with the MLflow client, or choose another name")
            .into()),
            Ok(found) => Ok((found.experiment_id, false)),
            Err(error) if error.kind() == RegistryErrorKind::NotFound => {
                let new = NewExperiment { name: name.to_owned(), ..Default::default() };
                Ok((self.registry.create_experiment(&new).await?, true))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Opens the catalog; a damaged one is made again, and the service enters its tables.
async fn mended_catalog(folder: &DataFolder, clock: &dyn Clock) -> anyhow::Result<EmbeddedCatalog> {
    let path = folder.catalog();
    let now = chrono::DateTime::from_timestamp_micros(clock.now_unix_micro()).unwrap_or_default();
    let aside = path.with_extension(format!("db.damaged-{}", now.format("%Y%m%dT%H%M%SZ")));
    let (catalog, reason) = EmbeddedCatalog::open_or_rebuild(&path, &aside).await?;
    if let Some(reason) = reason {
        error!(
            reason,
            moved_to = %aside.display(),
            "catalog made again: the service enters its tables; what clients entered themselves is lost"
        );
    }
    Ok(catalog)
}

/// What to do about a registry that cannot be opened.
fn registry_fault(error: RegistryError) -> anyhow::Error {
    let hint = match &error {
        RegistryError::Damaged { .. } => {
            "put a copy of your own in its place; with no file there the next start makes an empty one, which gives no id again"
        }
        RegistryError::Unrestored { .. } => "start the service: it restores the file",
        RegistryError::BackupDiffers { .. } => {
            "move the wrong one of the two away: without its backup the file is used as it is, without the file the backup takes its place"
        }
        RegistryError::SchemaTooNew { .. } => "use the newer program",
        _ => return error.into(),
    };
    anyhow::anyhow!("{error}\nhint: {hint}")
}

/// Files of the service that were damaged and moved aside, by their place in the data folder.
pub(crate) fn moved_aside(folder: &DataFolder) -> std::io::Result<Vec<String>> {
    let journal = folder.journal();
    let mut names = Vec::new();
    for (place, within) in [(folder.root(), ""), (&journal, "journal/")] {
        let entries = match std::fs::read_dir(place) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let is_log = name.ends_with("-wal") || name.ends_with("-shm");
            if name.contains(".damaged") && !is_log {
                names.push(format!("{within}{}", printable(&name)));
            }
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The data folder at a path, without touching it.
///
/// # Errors
/// When the path cannot be one.
pub fn data_folder(path: &Path) -> anyhow::Result<DataFolder> {
    DataFolder::new(path).with_context(|| format!("data folder `{}`", path.display()))
}

/// The registry, if the folder has one: looking must not make one.
///
/// # Errors
/// When it is there and cannot be opened.
pub async fn open_registry(folder: &DataFolder) -> anyhow::Result<Option<Registry>> {
    if !folder.root().join(REGISTRY_FILE).try_exists()? {
        return Ok(None);
    }
    let opened = Registry::open(folder.root(), Arc::new(SystemClock)).await;
    Ok(Some(opened.map_err(registry_fault)?))
}

/// A table that is there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TableOutcome {
    /// Its name.
    pub table: TableName,
    /// URL of its folder.
    pub location: String,
    /// Its Delta version.
    pub version: u64,
}

/// Refuses to go on while the tables are on a share that is not there.
pub(crate) fn check_tables(folder: &DataFolder) -> anyhow::Result<()> {
    folder.check_tables().map_err(|error| {
        Fault::new(FaultKind::TemporarilyUnavailable, error.to_string())
            .with_hint(format!(
                "mount it; a mounted tables folder is known by its file `{TABLES_MARKER}`"
            ))
            .into()
    })
}

fn no_such_tables(error: &LakeError) -> anyhow::Error {
    let (kind, hint) = match error {
        LakeError::TablesElsewhere { .. } => (
            FaultKind::Conflict,
            "leave --tables-dir out to use those tables, or name another data folder with \
             --data-dir",
        ),
        LakeError::Storage { source, .. } if source.kind() == ErrorKind::NotFound => {
            (FaultKind::InvalidParameterValue, "mount the share, then make the folder in it")
        }
        LakeError::Storage { source, .. } if source.kind() == ErrorKind::InvalidFilename => {
            (FaultKind::InvalidParameterValue, "choose a folder without it")
        }
        LakeError::Storage { source, .. } if source.kind() == ErrorKind::InvalidInput => (
            FaultKind::InvalidParameterValue,
            "choose a folder beside the data folder, neither in it nor around it",
        ),
        _ => (
            FaultKind::InvalidParameterValue,
            "the tables need a file system with hard links that this process may write to",
        ),
    };
    Fault::new(kind, error.to_string()).with_hint(hint).into()
}

/// What `setup` did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SetupOutcome {
    /// The table.
    pub table: TableName,
    /// URL of its folder.
    pub location: String,
    /// Its Delta version.
    pub version: u64,
    /// The experiment's MLflow id.
    pub experiment_id: ExperimentId,
    /// Whether this call made the experiment.
    pub experiment_created: bool,
}
