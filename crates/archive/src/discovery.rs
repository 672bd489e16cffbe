//! The file by which other processes find a running service, and what they ask of it.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use serde::{Deserialize, Serialize};
use tracelake_model::TraceId;
use tracelake_model::names::printable;
use tracelake_pipeline::PipelineStatus;

/// How long a flush may take before the caller stops waiting for it.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(300);

/// How long a list of open traces may take: the pipeline answers between two commits.
const OPEN_TRACES_TIMEOUT: Duration = Duration::from_secs(120);

/// Longest list of open traces that is read.
const MAX_OPEN_TRACES_BYTES: u64 = 1 << 30;

/// How long a service on this machine may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long it may take to say who it is.
const IDENTITY_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest status that is read.
const MAX_STATUS_BYTES: u64 = 16 << 20;

/// Code of an answer that the pipeline did not give.
pub(crate) const UNAVAILABLE: &str = "TEMPORARILY_UNAVAILABLE";

/// How to reach a running service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServerFile {
    /// Its process.
    pub pid: u32,
    /// Where it answers HTTP.
    pub http: SocketAddr,
    /// Where it takes OTLP over gRPC.
    pub grpc: SocketAddr,
}

impl ServerFile {
    /// Writes the file whole or not at all.
    pub(crate) fn write(&self, path: &std::path::Path) -> anyhow::Result<()> {
        let temporary = path.with_extension("json.tmp");
        let mut file = std::fs::File::create(&temporary)
            .with_context(|| format!("write `{}`", temporary.display()))?;
        writeln!(file, "{}", serde_json::to_string(self)?)?;
        std::fs::rename(&temporary, path).with_context(|| format!("write `{}`", path.display()))
    }

    /// The service that runs on a data folder, `None` when none does. A service that was killed
    /// leaves its file behind, and another program may have its port: it is asked who it is. One
    /// that takes the connection but is late with its answer is busy, in a commit perhaps. Blocks.
    #[must_use]
    pub fn running(path: &std::path::Path) -> Option<Self> {
        let server: Self = serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()?;
        std::net::TcpStream::connect_timeout(&server.http, CONNECT_TIMEOUT).ok()?;
        match server.ask(IDENTITY_TIMEOUT) {
            Asked::Status(_) | Asked::Busy(_) => Some(server),
            Asked::Other(_) => None,
        }
    }

    /// Asks the service how it goes, for at most `patience`. Blocks.
    pub(crate) fn ask(&self, patience: Duration) -> Asked {
        let named = format!("process {} at {}", self.pid, self.http);
        let failed = |error: ureq::Error, what: String| {
            let late = matches!(error, ureq::Error::Timeout(_));
            let error = anyhow::Error::new(error).context(what);
            if late { Asked::Busy(error) } else { Asked::Other(error) }
        };
        let url = format!("http://{}/api/v1/status", self.http);
        let mut answer = match agent(patience).get(url).call() {
            Ok(answer) => answer,
            Err(error) => {
                return failed(error, format!("server.json names {named}, which does not answer"));
            }
        };
        let code = answer.status();
        let body = answer.body_mut().with_config().limit(MAX_STATUS_BYTES).read_to_string();
        let body = match body {
            Ok(body) => body,
            Err(error) => return failed(error, format!("{named} broke off its answer")),
        };
        if !code.is_success() {
            let said: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
            let error = anyhow!("{named} answers {}: {}", code.as_u16(), printable(&body));
            let ours = said["error_code"].as_str() == Some(UNAVAILABLE);
            return if ours { Asked::Busy(error) } else { Asked::Other(error) };
        }
        match serde_json::from_str::<PipelineStatus>(&body) {
            Ok(status) if status.pid == self.pid => Asked::Status(Box::new(status)),
            Ok(status) => Asked::Other(anyhow!(
                "server.json names {named}, where process {} answers",
                status.pid
            )),
            Err(error) => Asked::Other(
                anyhow::Error::new(error)
                    .context(format!("server.json names {named}, where another program answers")),
            ),
        }
    }
}

/// What came of asking the service that a file names how it goes.
#[derive(Debug)]
pub(crate) enum Asked {
    /// It answered.
    Status(Box<PipelineStatus>),
    /// It is there, but has no answer at this time.
    Busy(anyhow::Error),
    /// Nobody is there, or someone else.
    Other(anyhow::Error),
}

/// Asks a running service which traces are not wholly in their table yet. Blocks.
pub(crate) fn request_open_traces(server: &ServerFile) -> anyhow::Result<Vec<TraceId>> {
    let url = format!("http://{}/api/v1/open-traces", server.http);
    let named = format!("ask the service at {} for open traces", server.http);
    let mut answer = agent(OPEN_TRACES_TIMEOUT).get(&url).call().context(named.clone())?;
    let body = answer.body_mut().with_config().limit(MAX_OPEN_TRACES_BYTES).read_to_string();
    let body = body.context(named.clone())?;
    if !answer.status().is_success() {
        bail!("{named}: {}", printable(&body));
    }
    let ids: Vec<String> = serde_json::from_str(&body).context(named.clone())?;
    ids.iter().map(|id| TraceId::parse(id).with_context(|| named.clone())).collect()
}

/// A client for the service on this machine: no proxy, no redirects, bounded in time.
#[must_use]
pub fn agent(timeout: Duration) -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .build()
        .into()
}

/// Asks a running service to flush. Blocks.
///
/// # Errors
/// When nobody answers, or a table could not be written.
pub fn request_flush(server: &ServerFile) -> anyhow::Result<serde_json::Value> {
    let url = format!("http://{}/api/v1/flush", server.http);
    let mut answer = agent(FLUSH_TIMEOUT).post(&url).send_empty().with_context(|| {
        format!("ask the service at {}\nhint: is process {} still there?", server.http, server.pid)
    })?;
    let text = answer.body_mut().read_to_string().context("read the service's answer")?;
    let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    if !answer.status().is_success() {
        let message = value["message"].as_str().unwrap_or("no reason given").to_owned();
        bail!("flush: {message}");
    }
    Ok(value)
}
