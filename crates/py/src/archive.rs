//! The calls to a service, a data folder or a table.

use std::ffi::{OsStr, OsString};
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use pyo3::prelude::*;
use tracelake_archive::Fault;
use tracelake_archive::client::{
    Answer, Client, ImportRequest, Place, QueryLimits, Question, TableRef, TimeRange, local_sql,
    spark_sql,
};

use crate::error::exception;
use crate::result::QueryResult;
use crate::runtime::{Ending, run};

/// Where calls go.
#[pyclass(frozen, module = "tracelake._tracelake")]
#[derive(Debug)]
pub(crate) struct Archive {
    client: Client,
    shown: OsString,
    /// As it was given, password included.
    given: OsString,
    is_service: bool,
}

/// Table, first and last microsecond since the Unix epoch.
type Scope = (Option<OsString>, Option<i64>, Option<i64>);

/// How to import, as a dict.
#[derive(Clone, Copy, Debug, FromPyObject)]
#[pyo3(from_item_all)]
struct ImportOptions {
    again: bool,
    flush: bool,
    progress: bool,
}

type CheckItem = (String, String, String, Option<String>);

#[pymethods]
impl Archive {
    /// `uri` is a service's address, a data folder or a table's folder; limits are those of
    /// questions that are answered in this process.
    #[new]
    fn new(py: Python<'_>, uri: OsString, memory_bytes: usize, seconds: f64) -> PyResult<Self> {
        let place = checked(py, Place::parse(&uri))?;
        let limits = QueryLimits {
            memory_bytes,
            time: Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX),
            partitions: std::thread::available_parallelism().map_or(2, NonZero::get),
        };
        Ok(Self {
            shown: place.to_os_string(),
            given: place_again(uri),
            is_service: matches!(place, Place::Service(_)),
            client: Client::new(place, limits),
        })
    }

    /// The place, without a password.
    #[getter]
    fn uri(&self) -> &OsStr {
        &self.shown
    }

    /// Whether it is a service's address.
    #[getter]
    const fn is_service(&self) -> bool {
        self.is_service
    }

    /// Version of the tracelake that carries calls out; fails where none answers.
    fn version(&self, py: Python<'_>) -> PyResult<String> {
        let client = self.client.clone();
        run(py, Ending::Dropped, move |_| async move { client.version().await })
    }

    /// Answers a ready-made question about a table and a range of `created_at`.
    fn ask(
        &self,
        py: Python<'_>,
        question: &str,
        scope: Scope,
        limit: Option<u64>,
    ) -> PyResult<QueryResult> {
        let question = parse_question(py, question)?;
        let (table, range) = parse_scope(py, scope)?;
        let client = self.client.clone();
        let answer = run(py, Ending::Dropped, move |_| async move {
            client.ask(question, table.as_ref(), range, limit).await
        })?;
        Ok(QueryResult::new(answer, &self.given))
    }

    /// Runs one read-only statement, in which `traces` stands for `table`.
    fn sql(
        &self,
        py: Python<'_>,
        statement: String,
        table: Option<OsString>,
    ) -> PyResult<QueryResult> {
        let (client, table) = (self.client.clone(), table_ref(py, table)?);
        let answer = run(py, Ending::Dropped, move |_| async move {
            client.sql(&statement, table.as_ref()).await
        })?;
        Ok(QueryResult::new(answer, &self.given))
    }

    /// The rows of one trace.
    fn trace(
        &self,
        py: Python<'_>,
        trace_id: String,
        table: Option<OsString>,
    ) -> PyResult<QueryResult> {
        let (client, table) = (self.client.clone(), table_ref(py, table)?);
        let answer = run(py, Ending::Dropped, move |_| async move {
            client.trace(&trace_id, table.as_ref()).await
        })?;
        Ok(QueryResult::new(answer, &self.given))
    }

    /// Creates or accepts a table; returns its location.
    fn create_table(&self, py: Python<'_>, table: &str) -> PyResult<String> {
        let (client, table) = (self.client.clone(), table_name(py, table)?);
        let made =
            run(py, self.ending(), move |_| async move { client.create_table(&table).await })?;
        Ok(made.location)
    }

    /// The id of the experiment of that name, and whether it was created.
    fn create_experiment(&self, py: Python<'_>, name: String) -> PyResult<(String, bool)> {
        let client = self.client.clone();
        let made =
            run(py, self.ending(), move |_| async move { client.create_experiment(&name).await })?;
        Ok((made.experiment_id.to_string(), made.created))
    }

    /// Sends an experiment's traces to a table; returns its id and name, and how many earlier
    /// traces were moved.
    fn enable(
        &self,
        py: Python<'_>,
        table: &str,
        experiment: String,
        from_now: bool,
    ) -> PyResult<(String, String, u64)> {
        let (client, table) = (self.client.clone(), table_name(py, table)?);
        let done = run(py, self.ending(), move |cancel| async move {
            client.enable(&table, &experiment, from_now, &cancel).await
        })?;
        Ok((done.experiment_id.to_string(), done.experiment, done.moved_traces))
    }

    /// Sends an experiment's traces to the default table again; returns its id and name, and the
    /// table that it was archived to.
    fn disable(
        &self,
        py: Python<'_>,
        experiment: String,
        table: Option<&str>,
    ) -> PyResult<(String, String, Option<String>)> {
        let client = self.client.clone();
        let table = table.map(|table| table_name(py, table)).transpose()?;
        let done = run(py, self.ending(), move |_| async move {
            client.disable(&experiment, table.as_ref()).await
        })?;
        let table = done.table.map(|table| table.to_string());
        Ok((done.experiment_id.to_string(), done.experiment, table))
    }

    /// The checklist of a table: item, result, what was found, hint.
    fn check(
        &self,
        py: Python<'_>,
        table: Option<&str>,
        experiment: Option<String>,
        write: bool,
    ) -> PyResult<Vec<CheckItem>> {
        let client = self.client.clone();
        let table = table.map(|table| table_name(py, table)).transpose()?;
        let lines = run(py, self.ending(), move |_| async move {
            client.check(table.as_ref(), experiment.as_deref(), write).await
        })?;
        let item = |line: tracelake_archive::client::CheckLine| {
            (line.item, line.result, line.found, line.hint)
        };
        Ok(lines.into_iter().map(item).collect())
    }

    /// Compares a table with what was acknowledged: the report as JSON, and as rows.
    fn verify(
        &self,
        py: Python<'_>,
        table: Option<&str>,
        range: (Option<i64>, Option<i64>),
        against: Option<String>,
    ) -> PyResult<(String, QueryResult)> {
        let client = self.client.clone();
        let table = table.map(|table| table_name(py, table)).transpose()?;
        let range = TimeRange { since_micros: range.0, until_micros: range.1 };
        let report = run(py, self.ending(), move |_| async move {
            client.verify(table.as_ref(), range, against.as_deref()).await
        })?;
        let rows = checked(py, Answer::try_from(&report))?;
        Ok((report.to_json(), QueryResult::new(rows, &self.given)))
    }

    /// Imports files and folders; returns the report as JSON.
    fn import_paths(
        &self,
        py: Python<'_>,
        paths: Vec<PathBuf>,
        experiment: Option<String>,
        options: ImportOptions,
    ) -> PyResult<String> {
        let ImportOptions { again, flush, progress } = options;
        let request = ImportRequest { paths, experiment, again, flush, progress };
        let client = self.client.clone();
        let report =
            run(
                py,
                self.ending(),
                move |cancel| async move { client.import(request, cancel).await },
            )?;
        Ok(report.to_json())
    }

    /// Settles and commits everything that was acknowledged.
    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        let client = self.client.clone();
        run(py, self.ending(), move |_| async move { client.flush().await })
    }
}

impl Archive {
    /// How a call ends that changes something, when it is broken off.
    const fn ending(&self) -> Ending {
        if self.is_service { Ending::AT_A_SERVICE } else { Ending::IN_A_FOLDER }
    }
}

/// Names of the ready-made questions.
#[pyfunction]
pub(crate) fn questions() -> Vec<&'static str> {
    Question::ALL.iter().map(|question| question.name()).collect()
}

/// The statement of a ready-made question: for this engine, or for Spark.
#[pyfunction]
pub(crate) fn question_sql(
    py: Python<'_>,
    question: &str,
    scope: Scope,
    limit: Option<u64>,
    spark: bool,
) -> PyResult<String> {
    let question = parse_question(py, question)?;
    let (table, range) = parse_scope(py, scope)?;
    let sql = if spark { spark_sql } else { local_sql };
    checked(py, sql(question, table.as_ref(), range, limit))
}

/// A place as it can be named again when the process has gone to another folder.
fn place_again(uri: OsString) -> OsString {
    if uri.to_string_lossy().contains("://") {
        return uri;
    }
    std::path::absolute(&uri).map_or(uri, PathBuf::into_os_string)
}

fn checked<T>(py: Python<'_>, outcome: Result<T, Fault>) -> PyResult<T> {
    outcome.map_err(|fault| exception(py, &fault))
}

fn parse_question(py: Python<'_>, name: &str) -> PyResult<Question> {
    checked(py, name.parse::<Question>().map_err(Fault::from))
}

fn parse_scope(
    py: Python<'_>,
    (table, since_micros, until_micros): Scope,
) -> PyResult<(Option<TableRef>, TimeRange)> {
    Ok((table_ref(py, table)?, TimeRange { since_micros, until_micros }))
}

fn table_ref(py: Python<'_>, text: Option<OsString>) -> PyResult<Option<TableRef>> {
    checked(py, text.map(|text| TableRef::parse(&text)).transpose())
}

/// A table that is to be written goes by its name.
fn table_name(py: Python<'_>, text: &str) -> PyResult<tracelake_archive::client::TableName> {
    checked(py, TableRef::parse_name(text))
}
