//! Rows for Python.

use std::ffi::{CStr, OsStr, OsString};
use std::sync::Arc;

use arrow::array::{RecordBatchIterator, RecordBatchReader};
use arrow::ffi::FFI_ArrowSchema;
use arrow::ffi_stream::FFI_ArrowArrayStream;
use pyo3::exceptions::{PyImportError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict};
use tracelake_archive::client::{Answer, TableRef, mlflow_traces};

use crate::error::{exception, missing_package};

/// Rows that a notebook shows.
const SHOWN_ROWS: usize = 20;

/// Columns of a text table, where nobody says how wide the screen is.
const TEXT_WIDTH: usize = 160;

/// The rows of an answer, in Arrow's memory layout.
#[pyclass(frozen, module = "tracelake")]
#[derive(Debug)]
pub(crate) struct QueryResult {
    answer: Answer,
    place: OsString,
}

impl QueryResult {
    pub(crate) fn new(answer: Answer, place: &OsStr) -> Self {
        Self { answer, place: place.to_owned() }
    }
}

#[pymethods]
impl QueryResult {
    /// Arrow PyCapsule interface: a stream of record batches that share this result's memory.
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        // A consumer casts by itself what it wants otherwise; the interface allows that.
        drop(requested_schema);
        let batches = self.answer.batches.clone().into_iter().map(Ok);
        let reader: Box<dyn RecordBatchReader + Send> =
            Box::new(RecordBatchIterator::new(batches, Arc::clone(&self.answer.schema)));
        capsule(py, FFI_ArrowArrayStream::new(reader), c"arrow_array_stream")
    }

    /// Arrow PyCapsule interface: names and types of the columns.
    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        let schema = FFI_ArrowSchema::try_from(self.answer.schema.as_ref())
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        capsule(py, schema, c"arrow_schema")
    }

    /// The URI that was asked, as it was given: a question about this result goes there as well.
    #[getter]
    fn place(&self) -> &OsStr {
        &self.place
    }

    /// Names of the columns.
    #[getter]
    fn column_names(&self) -> Vec<String> {
        self.answer.schema.fields().iter().map(|field| field.name().clone()).collect()
    }

    fn __len__(&self) -> usize {
        self.answer.num_rows()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let text = py.detach(|| self.answer.to_text(SHOWN_ROWS, TEXT_WIDTH));
        Ok(text.map_err(|fault| exception(py, &fault))?.trim_end().to_owned())
    }

    fn _repr_html_(&self, py: Python<'_>) -> PyResult<String> {
        let html = py.detach(|| self.answer.to_html(SHOWN_ROWS));
        html.map_err(|fault| exception(py, &fault))
    }

    /// Table and range of a ready-made question: `(table, since, until)`, times in microseconds
    /// since the Unix epoch. None for other answers.
    #[getter]
    fn scope(&self) -> Option<(Option<OsString>, Option<i64>, Option<i64>)> {
        let scope = self.answer.scope.as_ref()?;
        let table = scope.table.as_ref().map(TableRef::to_os_string);
        Some((table, scope.range.since_micros, scope.range.until_micros))
    }

    /// The rows as a `pyarrow.Table` that shares their memory.
    fn to_arrow<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        package(slf.py(), "pyarrow")?.call_method1("table", (slf,))
    }

    /// The rows as a pandas DataFrame; arguments are those of `pyarrow.Table.to_pandas`.
    #[pyo3(signature = (**kwargs))]
    fn to_pandas<'py>(
        slf: &Bound<'py, Self>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        package(slf.py(), "pandas")?;
        Self::to_arrow(slf)?.call_method("to_pandas", (), kwargs)
    }

    /// The rows as a Polars DataFrame.
    fn to_polars<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        package(slf.py(), "polars")?.call_method1("DataFrame", (slf,))
    }

    /// The rows as JSON has them: times are RFC 3339 text. Needs no other package.
    fn to_dicts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let json = py.detach(|| self.answer.to_json());
        let json = json.map_err(|fault| exception(py, &fault))?;
        py.import("json")?.call_method1("loads", (json,))
    }

    /// Each row as the JSON of a `Trace` of MLflow's tracking server.
    fn mlflow_json(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let traces = py.detach(|| mlflow_traces(&self.answer));
        traces.map_err(|fault| exception(py, &fault))
    }
}

/// A package that is needed for this alone.
fn package<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyModule>> {
    py.import(name).map_err(|error| {
        if !error.is_instance_of::<PyImportError>(py) {
            return error;
        }
        missing_package(py, name)
    })
}

fn capsule<'py, T: Send + 'static>(
    py: Python<'py>,
    value: T,
    name: &'static CStr,
) -> PyResult<Bound<'py, PyCapsule>> {
    PyCapsule::new_with_value(py, value, name)
}
