//! The service on the data folder, seen from outside.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use tracelake_lake::DataFolder;
use tracelake_model::{Clock as _, SystemClock, TableName};
use tracelake_pipeline::PipelineStatus;

use super::{Finding, units};
use crate::discovery::{Asked, ServerFile};

/// How long the service may take to answer: it may be in the middle of a commit.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Whether a service runs on the folder.
#[derive(Clone, Debug)]
pub(crate) enum ServiceState {
    /// None, and none was killed.
    None,
    /// It answers.
    Running(Box<Running>),
    /// There should be one: it left its file, or it does not answer.
    Silent {
        /// What is wrong.
        reason: String,
    },
}

/// A service that answers.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub server: ServerFile,
    pub status: PipelineStatus,
    /// When it wrote its file, seconds since the Unix epoch.
    pub started_unix_seconds: u64,
}

impl Running {
    /// How long it has been running.
    pub(crate) fn uptime(&self) -> Duration {
        let now = SystemClock.now_unix_nano() / 1_000_000_000;
        Duration::from_secs(now.saturating_sub(self.started_unix_seconds))
    }
}

/// Reads the service's file and asks the service.
pub(crate) async fn look_for_service(folder: &DataFolder) -> ServiceState {
    let path = folder.server_file();
    let asked = tokio::task::spawn_blocking(move || ask(&path)).await;
    match asked {
        Ok(Ok(Some(running))) => ServiceState::Running(Box::new(running)),
        Ok(Ok(None)) => ServiceState::None,
        Ok(Err(error)) => ServiceState::Silent { reason: format!("{error:#}") },
        Err(error) => ServiceState::Silent { reason: error.to_string() },
    }
}

fn ask(path: &Path) -> anyhow::Result<Option<Running>> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text.context("read server.json")?,
    };
    let started = std::fs::metadata(path).and_then(|metadata| metadata.modified());
    let started = started.ok().and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    let server: ServerFile = serde_json::from_str(&text).context("read server.json")?;
    let status = match server.ask(ANSWER_TIMEOUT) {
        Asked::Status(status) => *status,
        Asked::Busy(error) | Asked::Other(error) => return Err(error),
    };
    let started_unix_seconds = started.map_or(0, |at| at.as_secs());
    Ok(Some(Running { server, status, started_unix_seconds }))
}

pub(super) fn judge(state: &ServiceState) -> Finding {
    match state {
        ServiceState::None => Finding::note(
            "none runs on this data folder",
            "`tracelake serve` takes traces in; without it this command writes its trace itself",
        ),
        ServiceState::Running(running) => Finding::ok(format!(
            "process {} at http://{}, up {}",
            running.server.pid,
            running.server.http,
            units::duration(running.uptime())
        )),
        ServiceState::Silent { reason } => Finding::failed(
            reason.clone(),
            "start it again with `tracelake serve`; if none should run, delete `server.json`",
        ),
    }
}

/// Whether the service can write the table.
pub(super) fn judge_commits(state: &ServiceState, table: &TableName) -> Finding {
    let running = match state {
        ServiceState::Running(running) => running,
        ServiceState::None => return Finding::skipped("no service runs"),
        ServiceState::Silent { .. } => return Finding::skipped("not judged: see `service`"),
    };
    let Some(waiting) = running.status.tables.get(table) else {
        return Finding::ok("nothing waits");
    };
    if let Some(reason) = &waiting.blocked {
        return Finding::failed(
            format!("the table could not be written: {reason}"),
            "mend what it says; the service tries again by itself, and what was acknowledged waits \
             in its journal",
        );
    }
    let age = waiting.oldest_unix_nano.map_or(Duration::ZERO, |oldest| {
        Duration::from_nanos(SystemClock.now_unix_nano().saturating_sub(oldest))
    });
    Finding::ok(format!(
        "{} on the way, the oldest for {}",
        units::count(waiting.open_traces, "trace"),
        units::duration(age)
    ))
}

/// Bytes that the journal's files take; 0 when there is none.
///
/// # Errors
/// When its folder cannot be read.
pub(crate) fn journal_use(folder: &DataFolder) -> std::io::Result<u64> {
    let entries = match std::fs::read_dir(folder.journal()) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let mut bytes = 0_u64;
    for entry in entries {
        match entry?.metadata() {
            Ok(metadata) if metadata.is_file() => bytes = bytes.saturating_add(metadata.len()),
            // A segment that was committed and deleted meanwhile.
            Ok(_) | Err(_) => {}
        }
    }
    Ok(bytes)
}
