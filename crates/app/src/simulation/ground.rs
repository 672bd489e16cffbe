//! What schedules share because nothing in them depends on it: threads, registries, folders.

use std::path::Path;

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tracelake_model::{ExperimentId, TableName};
use tracelake_registry::{EarlierTraces, NewExperiment};

use crate::archive::Archive;

/// Archivers of a schedule at the most.
pub(super) const MAX_ARCHIVERS: usize = 3;

/// A place to run schedules on, one after the other.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) runtime: Runtime,
    /// One for each archiver, with its registry. Their lakes are replaced.
    pub(super) archives: Vec<Archive>,
    /// The default table, and one that an experiment is bound to.
    pub(super) tables: [TableName; 2],
    pub(super) experiments: [ExperimentId; 2],
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
        Ok(Self { runtime, archives, tables, experiments, _folder: folder })
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
