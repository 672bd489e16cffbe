//! Calls that are carried out in this process, on a data folder or a table's folder.

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;
use tracelake_model::TableName;
use tracelake_query::analyses::Question;
use tracelake_query::{QueryEngine, QueryLimits, QueryOptions};

use super::answer::Answer;
use crate::ask::engine::{engine_of_table, engine_with, existing_folder};
use crate::ask::lookup::{find_trace, known_tables, parse_trace_id};
use crate::discovery::{ServerFile, request_flush};
use crate::fault::Fault;
use crate::folder::{Archive, TableOutcome, data_folder, open_registry};
use crate::http::archival::{check_in, disable_in, enable_in, verify_in};
use crate::http::wire::{
    CheckLine, CheckRequest, DisableOutcome, DisableRequest, EnableOutcome, EnableRequest,
    ExperimentOutcome, ExperimentRequest, QuestionRequest, SqlRequest, VerifyTableRequest,
};
use crate::operate::import::{self, ImportOptions, ImportReport};
use crate::operate::moves::{Watch, finish_moves};
use crate::operate::verify::VerifyReport;
use crate::service::Service;
use crate::settings::{Overrides, Settings};

/// What to import.
#[derive(Clone, Debug, Default)]
pub struct ImportRequest {
    /// Files and folders.
    pub paths: Vec<PathBuf>,
    /// Experiment of all traces by name or id, whatever the files say; created if there is none of
    /// that name.
    pub experiment: Option<String>,
    /// Read files again that are in already; what the tables hold is not doubled.
    pub again: bool,
    /// Return when everything is in the tables, not when it is durable.
    pub flush: bool,
    /// Show progress on standard error.
    pub progress: bool,
}

/// A folder on this machine.
pub(super) enum Folder {
    Archive(PathBuf, QueryLimits),
    /// A single table goes by the name of the default table.
    Table(Box<QueryEngine>, TableName),
}

impl Folder {
    pub(super) const fn of_archive(path: PathBuf, limits: QueryLimits) -> Self {
        Self::Archive(path, limits)
    }

    pub(super) fn of_table(path: PathBuf, limits: QueryLimits) -> Result<Self, Fault> {
        let name = TableName::new("tracelake", "default", "traces").map_err(anyhow::Error::new)?;
        Ok(Self::Table(Box::new(engine_of_table(&name, &path, limits)?), name))
    }

    fn engine(&self) -> Result<QueryEngine, Fault> {
        match self {
            Self::Archive(path, limits) => Ok(engine_with(path, limits.clone())?),
            Self::Table(engine, _) => Ok(engine.as_ref().clone()),
        }
    }

    fn default_table(&self) -> Result<TableName, Fault> {
        match self {
            Self::Archive(..) => Ok(settings()?.default_table),
            Self::Table(_, name) => Ok(name.clone()),
        }
    }

    pub(super) async fn ask(
        &self,
        question: Question,
        request: QuestionRequest,
    ) -> Result<Answer, Fault> {
        let range = request.range();
        let table = request.table.map_or_else(|| self.default_table(), Ok)?;
        let analysis = question.analysis(&table, range, request.limit);
        Ok(self.engine()?.query(&analysis.sql, &question.options()).await?.into())
    }

    pub(super) async fn sql(&self, request: SqlRequest) -> Result<Answer, Fault> {
        let table = request.table.map_or_else(|| self.default_table(), Ok)?;
        let options = QueryOptions { default_table: Some(table), ..QueryOptions::default() };
        Ok(self.engine()?.query(&request.statement, &options).await?.into())
    }

    pub(super) async fn trace(
        &self,
        trace_id: &str,
        table: Option<TableName>,
    ) -> Result<Answer, Fault> {
        let trace_id = parse_trace_id(trace_id)?;
        let engine = self.engine()?;
        let tables = match (table, self) {
            (Some(table), _) => vec![table],
            (None, Self::Table(_, name)) => vec![name.clone()],
            (None, Self::Archive(path, _)) => {
                let folder = data_folder(path)?;
                let registry = open_registry(&folder).await?;
                let tables = known_tables(&folder, self.default_table()?, registry.as_ref()).await;
                if let Some(registry) = registry {
                    registry.close().await;
                }
                tables?
            }
        };
        Ok(find_trace(&engine, trace_id, &tables, &["*"]).await?.output.into())
    }

    /// The data folder. A single table never gets here: see `Client::archive_side`.
    fn path(&self) -> anyhow::Result<&PathBuf> {
        match self {
            Self::Archive(path, _) => Ok(path),
            Self::Table(..) => anyhow::bail!("a single table is no archive"),
        }
    }

    /// The archive, with its default table noted: bindings of experiments rest on it.
    async fn archive(&self) -> anyhow::Result<Archive> {
        let archive = Archive::open(self.path()?).await?;
        let noted = match Settings::load(None, Overrides::default()) {
            Ok(settings) => archive.register_default_table(&settings.default_table).await,
            Err(error) => Err(error),
        };
        if noted.is_err() {
            archive.close().await;
        }
        noted.map(|()| archive)
    }

    pub(super) async fn create_table(&self, table: &TableName) -> Result<TableOutcome, Fault> {
        let archive = self.archive().await?;
        let made = archive.ensure_table(table).await;
        archive.close().await;
        Ok(made?)
    }

    pub(super) async fn create_experiment(
        &self,
        request: ExperimentRequest,
    ) -> Result<ExperimentOutcome, Fault> {
        let archive = self.archive().await?;
        let found = archive.experiment(&request.name).await;
        archive.close().await;
        let (experiment_id, created) = found?;
        Ok(ExperimentOutcome { experiment_id, name: request.name, created })
    }

    pub(super) async fn enable(
        &self,
        request: EnableRequest,
        cancel: &CancellationToken,
    ) -> Result<EnableOutcome, Fault> {
        let archive = self.archive().await?;
        let enabled = enable_in(&archive, &request).await;
        archive.close().await;
        let mut enabled = enabled?;
        if !request.from_now {
            let watch = Watch { cancel, progress: &|_| () };
            let id = enabled.experiment_id.clone();
            enabled.moved_traces = finish_moves(self.path()?, &id, &settings()?, watch).await?;
        }
        Ok(enabled)
    }

    pub(super) async fn disable(&self, request: DisableRequest) -> Result<DisableOutcome, Fault> {
        existing_folder(self.path()?)?;
        let archive = self.archive().await?;
        let disabled = disable_in(&archive, &request).await;
        archive.close().await;
        Ok(disabled?)
    }

    pub(super) async fn check(&self, request: CheckRequest) -> Result<Vec<CheckLine>, Fault> {
        Ok(check_in(self.path()?, &settings()?, request).await?)
    }

    pub(super) async fn verify(&self, request: VerifyTableRequest) -> Result<VerifyReport, Fault> {
        Ok(verify_in(self.path()?, &settings()?, request).await?)
    }

    pub(super) async fn import(
        &self,
        request: ImportRequest,
        cancel: CancellationToken,
    ) -> Result<ImportReport, Fault> {
        let path = self.path()?;
        let experiment = match &request.experiment {
            Some(text) => import::experiment(path, text, false).await?,
            None => None,
        };
        let options = ImportOptions {
            paths: request.paths,
            experiment,
            again: request.again,
            quiet: !request.progress,
            flush: request.flush,
        };
        Ok(import::run(path, &settings()?, options, cancel).await?)
    }

    pub(super) async fn flush(&self) -> Result<(), Fault> {
        let path = self.path()?;
        let folder = existing_folder(path)?;
        if let Some(server) = ServerFile::running(&folder.server_file()) {
            let asked = tokio::task::spawn_blocking(move || request_flush(&server)).await;
            return Ok(asked.map_err(anyhow::Error::new)?.map(|_| ())?);
        }
        let service = Service::start(path, &settings()?).await?;
        let flushed = service.pipeline.flush().await;
        service.stop().await?;
        Ok(flushed.map(|_| ()).map_err(anyhow::Error::msg)?)
    }
}

fn settings() -> anyhow::Result<Settings> {
    Settings::load(None, Overrides::default())
}
