//! A service in the process of Python.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use tokio::runtime::Runtime;
use tracelake_archive::client::{EmbeddedService as Service, ServeOptions};
use tracelake_archive::{Fault, FaultKind};

use crate::error::exception;
use crate::runtime::{Ending, run_on, runtime};

/// A running service.
#[pyclass(frozen, module = "tracelake._tracelake")]
#[derive(Debug)]
pub(crate) struct EmbeddedService {
    running: Mutex<Option<(Runtime, Service)>>,
    /// A forked child has this object, but not the service.
    pid: u32,
    http: String,
    otlp_grpc: String,
    data_dir: PathBuf,
}

#[pymethods]
impl EmbeddedService {
    /// Starts a service on a data folder; settings as the text of a `tracelake.toml`.
    #[new]
    #[pyo3(signature = (data_dir, listen, otlp_grpc, settings))]
    fn new(
        py: Python<'_>,
        data_dir: PathBuf,
        listen: &str,
        otlp_grpc: &str,
        settings: String,
    ) -> PyResult<Self> {
        let options = ServeOptions {
            listen: Some(address(py, listen)?),
            otlp_grpc: Some(address(py, otlp_grpc)?),
            settings,
        };
        tracelake_cli::log_warnings();
        let runtime = runtime()?;
        let started = py.detach(|| runtime.block_on(Service::start(&data_dir, options)));
        let service = started.map_err(|fault| exception(py, &fault))?;
        Ok(Self {
            pid: std::process::id(),
            http: service.http().to_string(),
            otlp_grpc: service.otlp_grpc().to_string(),
            data_dir: service.data_dir().to_owned(),
            running: Mutex::new(Some((runtime, service))),
        })
    }

    /// Address of HTTP as `HOST:PORT`.
    #[getter]
    fn http(&self) -> &str {
        &self.http
    }

    /// Address of OTLP over gRPC as `HOST:PORT`.
    #[getter]
    fn otlp_grpc(&self) -> &str {
        &self.otlp_grpc
    }

    /// The data folder.
    #[getter]
    fn data_dir(&self) -> PathBuf {
        self.data_dir.clone()
    }

    /// Whether it serves, in this process.
    #[getter]
    fn is_running(&self) -> bool {
        self.pid == std::process::id()
            && self.running.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Commits what has settled and ends the service with all its threads. Does nothing the second
    /// time, or in a forked child.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        let taken = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((runtime, service)) = taken else { return Ok(()) };
        if self.pid != std::process::id() {
            // The threads are the parent's; there is nothing here to wait for.
            std::mem::forget((runtime, service));
            return Ok(());
        }
        run_on(py, runtime, Ending::OF_A_SERVICE, move |_| service.stop())
    }
}

impl Drop for EmbeddedService {
    fn drop(&mut self) {
        // Not stopped, and nobody is left who could be told how it goes. What was acknowledged is
        // in the journal.
        if let Err(error) = Python::attach(|py| self.stop(py)) {
            drop(error);
        }
    }
}

fn address(py: Python<'_>, text: &str) -> PyResult<SocketAddr> {
    text.parse().map_err(|_| {
        let message = format!("`{}` is no address of the form HOST:PORT", text.escape_debug());
        let hint = Some("127.0.0.1:0 takes a free port".to_owned());
        exception(py, &Fault { kind: FaultKind::InvalidParameterValue, message, hint })
    })
}
