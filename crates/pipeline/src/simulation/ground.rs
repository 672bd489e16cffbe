//! What schedules share because nothing in them depends on it: threads, registries, folders.
//!
//! A registry is the real one, SQLite on a real file. It is on the archiver's disk, and what a call
//! of it changed outlives every cut, since it is durable when the call returns. What SQLite's files
//! look like when a cut meets them within a call is not simulated.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tracelake_journal::{RealFs, create_folders};
use tracelake_lake::{DataFolder, Lake};
use tracelake_model::{ExperimentId, SystemClock, TableName};
use tracelake_registry::{EarlierTraces, NewExperiment, Registry};

use crate::drain::clock_of;
use crate::stores::Stores;

/// Archivers of a schedule at the most.
pub(super) const MAX_ARCHIVERS: usize = 3;

/// How the names of a registry's files begin.
const REGISTRY: &str = "registry";

/// A place to run schedules on, one after the other.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) runtime: Runtime,
    /// One for each archiver, with its registry. Their lakes are replaced.
    pub(super) stores: Vec<Stores>,
    /// The default table, and one that an experiment is bound to.
    pub(super) tables: [TableName; 2],
    pub(super) experiments: [ExperimentId; 2],
    /// The files of a registry, with an experiment that nobody bound yet.
    unbound: (PathBuf, ExperimentId),
    _folder: TempDir,
}

/// An experiment that a schedule binds while its traces are in the default table, and the registry
/// of its archiver.
#[derive(Debug)]
pub(super) struct Unbound {
    pub(super) registry: Arc<Registry>,
    pub(super) experiment: ExperimentId,
    _folder: TempDir,
}

impl Ground {
    pub(super) fn new() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("start threads")?;
        let folder = tempfile::tempdir()?;
        let share = folder.path().join("share");
        std::fs::create_dir(&share)?;
        let tables = [TableName::new("c", "s", "default")?, TableName::new("c", "s", "bound")?];
        let mut stores = Vec::new();
        let mut bound = None;
        for number in 0..MAX_ARCHIVERS {
            let data = folder.path().join(format!("archiver-{number}"));
            let opened = open(&data, &share, &tables);
            let (one, experiment) = runtime.block_on(opened)?;
            stores.push(one);
            bound = Some(experiment);
        }
        let experiments = [ExperimentId::default_experiment(), bound.context("no archiver")?];
        let unbound = runtime.block_on(async {
            let data = folder.path().join("unbound");
            let (stores, _) = open(&data, &share, &tables).await?;
            let new = NewExperiment { name: "unbound".to_owned(), ..Default::default() };
            let experiment = stores.registry.create_experiment(&new).await?;
            // From here on nobody writes to its files.
            stores.registry.close().await;
            anyhow::Ok((data, experiment))
        })?;
        Ok(Self { runtime, stores, tables, experiments, unbound, _folder: folder })
    }

    /// A registry for one schedule alone.
    pub(super) fn unbound(&self) -> anyhow::Result<Unbound> {
        let folder = tempfile::tempdir()?;
        let (files, experiment) = &self.unbound;
        for entry in std::fs::read_dir(files)? {
            let name = entry?.file_name();
            if name.to_string_lossy().starts_with(REGISTRY) {
                std::fs::copy(files.join(&name), folder.path().join(&name))?;
            }
        }
        let opened = Registry::open(folder.path(), Arc::new(SystemClock));
        let registry = Arc::new(self.runtime.block_on(opened)?);
        Ok(Unbound { registry, experiment: experiment.clone(), _folder: folder })
    }
}

async fn open(
    data: &Path,
    share: &Path,
    tables: &[TableName; 2],
) -> anyhow::Result<(Stores, ExperimentId)> {
    let folder = DataFolder::new(data)?;
    create_folders(&RealFs, folder.root())?;
    let folder = folder.with_tables(share)?;
    let clock = clock_of(&folder);
    let (registry, _) = Registry::open_or_restore(folder.root(), Arc::clone(&clock)).await?;
    let stores = Stores { folder, registry: Arc::new(registry), lake: Lake::new()?, clock };
    let [default, bound] = tables;
    stores.register_default_table(default).await?;
    let experiment = NewExperiment { name: "bound".to_owned(), ..Default::default() };
    let experiment = stores.registry.create_experiment(&experiment).await?;
    let location = stores.folder.table(bound).url().context("relative folder")?;
    stores.registry.register_table(bound, location.as_str()).await?;
    stores.registry.bind(&experiment, bound, 0, EarlierTraces::Stay).await?;
    Ok((stores, experiment))
}
