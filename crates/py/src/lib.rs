//! The Python package's native part: the module `tracelake._tracelake`.
//!
//! Comes in: calls from Python. Goes out: values and exceptions of Python, rows as Arrow streams.
//! This room decides nothing; it turns arguments into those of `tracelake_archive::client` and answers
//! into Python objects. Every call gives up the GIL while it works, and looks for `Ctrl-C`.

mod archive;
mod error;
mod result;
mod runtime;
mod service;

use pyo3::prelude::*;

/// What Python imports as `tracelake._tracelake`.
#[pymodule]
mod _tracelake {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::archive::{Archive, question_sql, questions};
    #[pymodule_export]
    use crate::result::QueryResult;
    #[pymodule_export]
    use crate::service::EmbeddedService;

    /// Version of the package, such as `0.1.0`.
    #[pyfunction]
    const fn version() -> &'static str {
        env!("CARGO_PKG_VERSION")
    }
}
