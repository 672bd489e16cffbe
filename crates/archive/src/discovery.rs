//! The service's own calls, `/api/v1`, and the file by which other processes find it.

use std::collections::HashMap;
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use arrow::ipc::writer::StreamWriter;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tracelake_lake::Preview;
use tracelake_model::names::printable;
use tracelake_model::{TableName, TraceId};
use tracelake_pipeline::{PipelineHandle, PipelineStatus};

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
const UNAVAILABLE: &str = "TEMPORARILY_UNAVAILABLE";

/// How to reach a running service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ServerFile {
    pub pid: u32,
    pub http: SocketAddr,
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
    pub(crate) fn running(path: &std::path::Path) -> Option<Self> {
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

/// The routes of `/api/v1`.
pub(crate) fn router(pipeline: PipelineHandle) -> Router {
    Router::new()
        .route("/api/v1/flush", post(flush))
        .route("/api/v1/status", get(status))
        .route("/api/v1/open-traces", get(open_traces))
        .route("/api/v1/uncommitted/{table}", get(uncommitted))
        .with_state(pipeline)
}

/// The rows of a table that are not committed yet, as an Arrow stream whose schema metadata say
/// what they replace; 204 when there are none.
async fn uncommitted(
    State(pipeline): State<PipelineHandle>,
    Path(table): Path<String>,
) -> Response {
    let fault = |status: StatusCode, code: &str, message: String| {
        (status, Json(json!({"error_code": code, "message": message}))).into_response()
    };
    let table: TableName = match table.parse() {
        Ok(table) => table,
        Err(error) => {
            return fault(StatusCode::BAD_REQUEST, "INVALID_PARAMETER_VALUE", error.to_string());
        }
    };
    let preview = pipeline.uncommitted(table).await;
    match preview.and_then(|preview| preview.map(|p| to_stream(&p)).transpose()) {
        Ok(Some(bytes)) => ([(CONTENT_TYPE, ARROW_STREAM)], bytes).into_response(),
        Ok(None) => StatusCode::NO_CONTENT.into_response(),
        Err(reason) => fault(StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, reason),
    }
}

/// Media type of an Arrow IPC stream, as registered with IANA.
pub(crate) const ARROW_STREAM: &str = "application/vnd.apache.arrow.stream";

/// Schema metadata of an uncommitted stream: table version, and replaced rows by data file.
pub(crate) const VERSION_KEY: &str = "tracelake.version";
pub(crate) const REPLACED_KEY: &str = "tracelake.replaced";

fn to_stream(preview: &Preview) -> Result<Vec<u8>, String> {
    let replaced = serde_json::to_string(&preview.replaced).map_err(|error| error.to_string())?;
    let metadata = HashMap::from([
        (VERSION_KEY.to_owned(), preview.version.to_string()),
        (REPLACED_KEY.to_owned(), replaced),
    ]);
    let schema = preview.rows.schema().as_ref().clone().with_metadata(metadata);
    let mut bytes = Vec::new();
    let mut writer =
        StreamWriter::try_new(&mut bytes, &schema).map_err(|error| error.to_string())?;
    writer
        .write(&preview.rows)
        .and_then(|()| writer.finish())
        .map_err(|error| error.to_string())?;
    drop(writer);
    Ok(bytes)
}

async fn flush(State(pipeline): State<PipelineHandle>) -> Response {
    match pipeline.flush().await {
        Ok(outcome) => Json(json!(outcome)).into_response(),
        Err(reason) => {
            let body = json!({"error_code": UNAVAILABLE, "message": reason});
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
    }
}

async fn status(State(pipeline): State<PipelineHandle>) -> Response {
    match pipeline.status().await {
        Ok(status) => Json(json!(status)).into_response(),
        Err(reason) => {
            let body = json!({"error_code": UNAVAILABLE, "message": reason});
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
    }
}

/// The ids of the traces that are not wholly in their table yet.
async fn open_traces(State(pipeline): State<PipelineHandle>) -> Response {
    match pipeline.open_traces().await {
        Ok(open) => {
            let ids: Vec<String> = open.into_iter().map(TraceId::to_mlflow).collect();
            Json(ids).into_response()
        }
        Err(reason) => {
            let body = json!({"error_code": UNAVAILABLE, "message": reason});
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
    }
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
pub(crate) fn agent(timeout: Duration) -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .build()
        .into()
}

/// Asks a running service to flush. Blocks.
pub(crate) fn request_flush(server: &ServerFile) -> anyhow::Result<serde_json::Value> {
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use tokio::net::TcpListener as AsyncListener;

    use super::*;
    use crate::config::{Overrides, Settings};
    use crate::service::Service;

    fn file_of(pid: u32, http: SocketAddr, folder: &std::path::Path) -> std::path::PathBuf {
        let path = folder.join("server.json");
        ServerFile { pid, http, grpc: http }.write(&path).unwrap();
        path
    }

    async fn runs(path: std::path::PathBuf) -> bool {
        tokio::task::spawn_blocking(move || ServerFile::running(&path).is_some()).await.unwrap()
    }

    async fn serve(router: Router) -> SocketAddr {
        let listener = AsyncListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        crate::tasks::spawn(async move { axum::serve(listener, router).await });
        address
    }

    /// Scenario: files that name a service with its own process and with another one, before and
    /// after its pipeline has ended.
    /// Guarantees: it runs only as the process that it is.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_service_runs_as_the_process_that_its_file_names() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings::load(None, Overrides::default()).unwrap();
        let service = Service::start(folder.path(), &settings).await.unwrap();
        let address = serve(router(service.pipeline.clone())).await;
        let pid = std::process::id();
        assert!(runs(file_of(pid, address, folder.path())).await);
        assert!(!runs(file_of(pid + 1, address, folder.path())).await);
        service.stop().await.unwrap();
        assert!(runs(file_of(pid, address, folder.path())).await, "it stops, it is not gone");
    }

    /// Scenario: the port of a service that was killed is free, has a program that knows no such
    /// call, has one that answers everything; or takes connections and is silent.
    /// Guarantees: only what is silent may be the service.
    #[tokio::test(flavor = "multi_thread")]
    async fn another_program_on_the_port_is_no_service() {
        let folder = tempfile::tempdir().unwrap();
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap();
        assert!(runs(file_of(1, address, folder.path())).await, "busy");
        drop(silent);
        assert!(!runs(file_of(1, address, folder.path())).await, "free");
        for stranger in [Router::new(), Router::new().fallback(|| async { "{\"pid\":1}" })] {
            let address = serve(stranger).await;
            assert!(!runs(file_of(1, address, folder.path())).await, "another program");
        }
        std::fs::write(folder.path().join("server.json"), "{").unwrap();
        assert!(!runs(folder.path().join("server.json")).await, "no file of ours");
    }
}
