//! The calls of tracelake for programs: the Python package is a thin layer over them.
//!
//! A [`Client`] works against a service, a data folder, or a single table's folder. Everything is
//! async and cancel safe: dropping a future stops the work, what was durable stays. Calls that
//! change something in this process take a token instead, so that they end in order.

mod answer;
mod embedded;
mod folder;
mod mlflow;
mod place;
mod remote;
mod statements;

pub use tracelake_model::TableName;

pub use answer::{Answer, Scope};
pub use embedded::{EmbeddedService, ServeOptions};
pub use folder::ImportRequest;
pub use mlflow::mlflow_traces;
pub use place::{Place, ServiceUrl, TableRef};
pub use statements::{local_sql, spark_sql};
pub use tokio_util::sync::CancellationToken;
pub use tracelake_query::QueryLimits;
pub use tracelake_query::analyses::{Question, TimeRange};

pub use crate::fault::{Fault, FaultKind};
pub use crate::folder::TableOutcome;
pub use crate::http::wire::{CheckLine, DisableOutcome, EnableOutcome, ExperimentOutcome};
pub use crate::operate::import::ImportReport;
pub use crate::operate::verify::{
    ArchivedLine, Figures, HourLine, MANIFEST_FORMAT, TraceLine, VerifyReport,
};

use crate::http::wire::{
    CheckRequest, DisableRequest, EnableRequest, ExperimentRequest, QuestionRequest, SqlRequest,
    VerifyTableRequest,
};
use folder::Folder;
use remote::Remote;

/// Asks and tells tracelake.
#[derive(Clone, Debug)]
pub struct Client {
    place: Place,
    limits: QueryLimits,
}

/// Who carries a call out.
enum Side {
    Folder(Folder),
    Remote(Remote),
}

impl Client {
    /// A client of `place`. `limits` are those of questions that are answered in this process.
    #[must_use]
    pub const fn new(place: Place, limits: QueryLimits) -> Self {
        Self { place, limits }
    }

    /// Answers a ready-made question about `table`; without one about the table of experiments
    /// that are archived nowhere else.
    ///
    /// # Errors
    /// [`FaultKind::TableNotFound`], [`FaultKind::QueryLimit`], and what may fail on the way.
    pub async fn ask(
        &self,
        question: Question,
        table: Option<&TableRef>,
        range: TimeRange,
        limit: Option<u64>,
    ) -> Result<Answer, Fault> {
        let request = QuestionRequest {
            table: None,
            since_unix_micro: range.since_micros,
            until_unix_micro: range.until_micros,
            limit,
        };
        let answer = match self.side(table)? {
            (Side::Folder(folder), table) => {
                folder.ask(question, QuestionRequest { table, ..request }).await?
            }
            (Side::Remote(remote), table) => {
                remote.ask(question, &QuestionRequest { table, ..request }).await?
            }
        };
        Ok(answer.with_scope(Scope { table: self.table_ref(table), range }))
    }

    /// Runs one read-only statement, in which `traces` stands for `table`.
    ///
    /// # Errors
    /// [`FaultKind::SqlSyntax`], [`FaultKind::ReadOnly`], [`FaultKind::QueryFailed`],
    /// [`FaultKind::QueryLimit`], and what may fail on the way.
    pub async fn sql(&self, statement: &str, table: Option<&TableRef>) -> Result<Answer, Fault> {
        let statement = statement.to_owned();
        match self.side(table)? {
            (Side::Folder(folder), table) => folder.sql(SqlRequest { statement, table }).await,
            (Side::Remote(remote), table) => remote.sql(&SqlRequest { statement, table }).await,
        }
    }

    /// The rows of one trace, by default from whatever table has it.
    ///
    /// # Errors
    /// [`FaultKind::TraceNotFound`], and what may fail on the way.
    pub async fn trace(&self, trace_id: &str, table: Option<&TableRef>) -> Result<Answer, Fault> {
        match self.side(table)? {
            (Side::Folder(folder), table) => folder.trace(trace_id, table).await,
            (Side::Remote(remote), table) => remote.trace(trace_id, table).await,
        }
    }

    /// Creates a table or accepts the one that is there.
    ///
    /// # Errors
    /// [`FaultKind::Conflict`] when what is there cannot hold traces.
    pub async fn create_table(&self, table: &TableName) -> Result<TableOutcome, Fault> {
        match self.archive_side()? {
            Side::Folder(folder) => folder.create_table(table).await,
            Side::Remote(remote) => remote.create_table(table).await,
        }
    }

    /// The experiment of that name, created when there is none.
    ///
    /// # Errors
    /// [`FaultKind::ExperimentNotFound`] when it is deleted.
    pub async fn create_experiment(&self, name: &str) -> Result<ExperimentOutcome, Fault> {
        let request = ExperimentRequest { name: name.to_owned() };
        match self.archive_side()? {
            Side::Folder(folder) => folder.create_experiment(request).await,
            Side::Remote(remote) => remote.create_experiment(&request).await,
        }
    }

    /// Sends the traces of an experiment, named by name or id, to a table, and waits until its
    /// earlier traces are moved there, unless `from_now`.
    ///
    /// # Errors
    /// [`FaultKind::ExperimentNotFound`], [`FaultKind::Conflict`]; [`FaultKind::Interrupted`] when
    /// cancelled while traces are moved: the service goes on with it.
    pub async fn enable(
        &self,
        table: &TableName,
        experiment: &str,
        from_now: bool,
        cancel: &CancellationToken,
    ) -> Result<EnableOutcome, Fault> {
        let request =
            EnableRequest { table: table.clone(), experiment: experiment.to_owned(), from_now };
        match self.archive_side()? {
            Side::Folder(folder) => folder.enable(request, cancel).await,
            Side::Remote(remote) => remote.enable(request, cancel).await,
        }
    }

    /// Sends the traces of an experiment to the default table again. What is archived stays.
    ///
    /// # Errors
    /// [`FaultKind::ExperimentNotFound`]; [`FaultKind::Conflict`] when it is archived to another
    /// table than `table`.
    pub async fn disable(
        &self,
        experiment: &str,
        table: Option<&TableName>,
    ) -> Result<DisableOutcome, Fault> {
        let request = DisableRequest { experiment: experiment.to_owned(), table: table.cloned() };
        match self.archive_side()? {
            Side::Folder(folder) => folder.disable(request).await,
            Side::Remote(remote) => remote.disable(&request).await,
        }
    }

    /// The validation checklist of a table. A failed item is a line, not an error.
    ///
    /// # Errors
    /// When there is nothing to look at, or nobody to ask.
    pub async fn check(
        &self,
        table: Option<&TableName>,
        experiment: Option<&str>,
        write: bool,
    ) -> Result<Vec<CheckLine>, Fault> {
        let request = CheckRequest {
            table: table.cloned(),
            experiment: experiment.map(str::to_owned),
            write,
        };
        match self.archive_side()? {
            Side::Folder(folder) => folder.check(request).await,
            Side::Remote(remote) => remote.check(&request).await,
        }
    }

    /// Compares a table with what was acknowledged for it, of what arrived in the hours of `range`.
    /// `against` is an earlier report, as JSON, with which the table is compared as well. What is
    /// wrong with the table is in the report.
    ///
    /// # Errors
    /// [`FaultKind::TableNotFound`]; [`FaultKind::InvalidParameterValue`] when `against` is no
    /// report of this table; what may fail on the way.
    pub async fn verify(
        &self,
        table: Option<&TableName>,
        range: TimeRange,
        against: Option<&str>,
    ) -> Result<VerifyReport, Fault> {
        let against = against.map(serde_json::from_str::<VerifyReport>).transpose();
        let against = against.map_err(|error| {
            Fault::new(FaultKind::InvalidParameterValue, format!("the manifest: {error}"))
                .with_hint("name a file that a verification wrote")
        })?;
        // Of a manifest the rows of the table count.
        let rows = |known| VerifyReport { hours: Vec::new(), traces: Vec::new(), ..known };
        let request = VerifyTableRequest {
            table: table.cloned(),
            since_unix_micro: range.since_micros,
            until_unix_micro: range.until_micros,
            against: against.map(rows).map(Box::new),
        };
        match self.archive_side()? {
            Side::Folder(folder) => folder.verify(request).await,
            Side::Remote(remote) => remote.verify(&request).await,
        }
    }

    /// Imports files and folders; what is in already is passed over. Returns when all is durable,
    /// or in the tables if so asked, or cancelled: then the same call again goes on.
    ///
    /// # Errors
    /// When nothing can be imported at all. What is wrong with single files is in the report.
    pub async fn import(
        &self,
        request: ImportRequest,
        cancel: CancellationToken,
    ) -> Result<ImportReport, Fault> {
        match self.archive_side()? {
            Side::Folder(folder) => folder.import(request, cancel).await,
            Side::Remote(remote) => {
                remote.folder(self.limits.clone()).await?.import(request, cancel).await
            }
        }
    }

    /// Settles and commits everything that was acknowledged; returns when it is in the tables.
    ///
    /// # Errors
    /// When a table cannot be written; nothing is lost.
    pub async fn flush(&self) -> Result<(), Fault> {
        match self.archive_side()? {
            Side::Folder(folder) => folder.flush().await,
            Side::Remote(remote) => remote.flush().await,
        }
    }

    /// Version of the tracelake that carries calls out.
    ///
    /// # Errors
    /// [`FaultKind::TemporarilyUnavailable`] when no tracelake answers at the service's address.
    pub async fn version(&self) -> Result<String, Fault> {
        match self.archive_side()? {
            Side::Folder(_) => Ok(env!("CARGO_PKG_VERSION").to_owned()),
            Side::Remote(remote) => Ok(remote.about().await?.version),
        }
    }

    /// Who answers a question about `table`, and the table's name for it. A table's folder is read
    /// in this process wherever the client works.
    fn side(&self, table: Option<&TableRef>) -> Result<(Side, Option<TableName>), Fault> {
        let folder = |folder: Folder| (Side::Folder(folder), None);
        match (table, &self.place) {
            (Some(TableRef::Folder(path)), _) | (None, Place::Table(path)) => {
                Ok(folder(Folder::of_table(path.clone(), self.limits.clone())?))
            }
            (Some(TableRef::Name(name)), Place::Table(path)) => Err(Fault::new(
                FaultKind::InvalidParameterValue,
                format!("table `{name}`: tracelake works on the one table at `{}`", path.display()),
            )
            .with_hint("leave the table out, or set the URI to a service or a data folder")),
            (Some(TableRef::Name(name)), _) => Ok((self.archive_side()?, Some(name.clone()))),
            (None, _) => Ok((self.archive_side()?, None)),
        }
    }

    /// Who carries out what is about an archive, not about one table.
    fn archive_side(&self) -> Result<Side, Fault> {
        match &self.place {
            Place::Folder(path) => {
                Ok(Side::Folder(Folder::of_archive(path.clone(), self.limits.clone())))
            }
            Place::Service(url) => Ok(Side::Remote(Remote::new(url.clone())?)),
            Place::Table(path) => Err(Fault::new(
                FaultKind::InvalidParameterValue,
                format!("`{}` is the folder of one table, which can only be asked", path.display()),
            )
            .with_hint("set the URI to a service or a data folder")),
        }
    }

    fn table_ref(&self, table: Option<&TableRef>) -> Option<TableRef> {
        match (table, &self.place) {
            (None, Place::Table(path)) => Some(TableRef::Folder(path.clone())),
            (table, _) => table.cloned(),
        }
    }
}
