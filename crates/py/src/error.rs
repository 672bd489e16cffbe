//! Faults as exceptions of `tracelake.errors`.

use pyo3::prelude::*;
use tracelake_archive::{Fault, FaultKind};

/// The exception class of each kind of fault.
const fn class_of(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::InvalidParameterValue => "InvalidArgumentError",
        FaultKind::TableNotFound => "TableNotFoundError",
        FaultKind::ExperimentNotFound => "ExperimentNotFoundError",
        FaultKind::TraceNotFound => "TraceNotFoundError",
        FaultKind::SqlSyntax => "SqlSyntaxError",
        FaultKind::ReadOnly => "ReadOnlyError",
        FaultKind::QueryFailed => "QueryError",
        FaultKind::QueryLimit => "QueryLimitError",
        FaultKind::Conflict => "ConflictError",
        FaultKind::TemporarilyUnavailable => "ServiceUnavailableError",
        FaultKind::Interrupted => "InterruptedCallError",
        _ => "TracelakeError",
    }
}

/// The exception that tells of `fault`.
pub(crate) fn exception(py: Python<'_>, fault: &Fault) -> PyErr {
    raised(py, class_of(fault.kind), &fault.message, fault.hint.as_deref())
}

/// The exception that tells of a Python package that is not installed.
pub(crate) fn missing_package(py: Python<'_>, name: &str) -> PyErr {
    let message = format!("this needs the package {name}, which is not installed");
    raised(py, "MissingPackageError", &message, Some(&format!("pip install {name}")))
}

fn raised(py: Python<'_>, class: &str, message: &str, hint: Option<&str>) -> PyErr {
    let made = py
        .import("tracelake.errors")
        .and_then(|errors| errors.getattr(class))
        .and_then(|class| class.call1((message, hint)));
    match made {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}
