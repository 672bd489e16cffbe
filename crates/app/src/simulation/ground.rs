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
use tracelake_model::{ExperimentId, SystemClock, TableName};
use tracelake_registry::{EarlierTraces, NewExperiment, Registry};

use crate::archive::Archive;

/// Archivers of a schedule at the most.
pub(super) const MAX_ARCHIVERS: usize = 3;

/// How the names of a registry's files begin.
const REGISTRY: &str = "registry";

/// A place to run schedules on, one after the other.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) runtime: Runtime,
    /// One for each archiver, with its registry. Their lakes are replaced.
    pub(super) archives: Vec<Archive>,
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
        let mut archives = Vec::new();
        let mut bound = None;
        for number in 0..MAX_ARCHIVERS {
            let data = folder.path().join(format!("archiver-{number}"));
            let opened = open(&data, &share, &tables);
            let (archive, experiment) = runtime.block_on(opened)?;
            archives.push(archive);
            bound = Some(experiment);
        }
        let experiments = [ExperimentId::default_experiment(), bound.context("no archiver")?];
        let unbound = runtime.block_on(async {
            let data = folder.path().join("unbound");
            let (archive, _) = open(&data, &share, &tables).await?;
            let new = NewExperiment { name: "unbound".to_owned(), ..Default::default() };
            let experiment = archive.registry.create_experiment(&new).await?;
            // From here on nobody writes to its files.
            archive.close().await;
            anyhow::Ok((data, experiment))
        })?;
        Ok(Self { runtime, archives, tables, experiments, unbound, _folder: folder })
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
) -> anyhow::Result<(Archive, ExperimentId)> {
    let archive = Archive::open_with_tables(data, Some(share)).await?;
    let [default, bound] = tables;
    archive.register_default_table(default).await?;
    let experiment = NewExperiment { name: "bound".to_owned(), ..Default::default() };
    let experiment = archive.registry.create_experiment(&experiment).await?;
    let location = archive.folder.table(bound).url().context("relative folder")?;
    archive.registry.register_table(bound, location.as_str()).await?;
    archive.registry.bind(&experiment, bound, 0, EarlierTraces::Stay).await?;
    Ok((archive, experiment))
}
