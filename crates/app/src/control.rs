//! The service's own calls, `/api/v1`, and the file by which other processes find it.

use std::collections::HashMap;
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use arrow::ipc::writer::StreamWriter;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::mpsc;
use tracelake_lake::Preview;
use tracelake_model::TableName;

use crate::pipeline::Command;
use crate::service::Service;

/// How long a flush may take before the caller stops waiting for it.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(300);

/// How long a service on this machine may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

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
    /// leaves its file behind, so it is asked for a connection.
    pub(crate) fn running(path: &std::path::Path) -> Option<Self> {
        let server: Self = serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()?;
        std::net::TcpStream::connect_timeout(&server.http, CONNECT_TIMEOUT).ok()?;
        Some(server)
    }
}

/// The routes of `/api/v1`.
pub(crate) fn router(commands: mpsc::UnboundedSender<Command>) -> Router {
    Router::new()
        .route("/api/v1/flush", post(flush))
        .route("/api/v1/status", get(status))
        .route("/api/v1/uncommitted/{table}", get(uncommitted))
        .with_state(commands)
}

/// The rows of a table that are not committed yet, as an Arrow stream whose schema metadata say
/// what they replace; 204 when there are none.
async fn uncommitted(
    State(commands): State<mpsc::UnboundedSender<Command>>,
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
    let preview = Service::preview(&commands, table).await;
    match preview.and_then(|preview| preview.map(|p| to_stream(&p)).transpose()) {
        Ok(Some(bytes)) => ([(CONTENT_TYPE, ARROW_STREAM)], bytes).into_response(),
        Ok(None) => StatusCode::NO_CONTENT.into_response(),
        Err(reason) => fault(StatusCode::SERVICE_UNAVAILABLE, "TEMPORARILY_UNAVAILABLE", reason),
    }
}

/// Media type of an Arrow IPC stream, as registered with IANA.
const ARROW_STREAM: &str = "application/vnd.apache.arrow.stream";

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

async fn flush(State(commands): State<mpsc::UnboundedSender<Command>>) -> Response {
    match Service::flush(&commands).await {
        Ok(outcome) => Json(json!(outcome)).into_response(),
        Err(reason) => {
            let body = json!({"error_code": "TEMPORARILY_UNAVAILABLE", "message": reason});
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
    }
}

async fn status(State(commands): State<mpsc::UnboundedSender<Command>>) -> Response {
    match Service::status(&commands).await {
        Ok(status) => Json(json!(status)).into_response(),
        Err(reason) => {
            let body = json!({"error_code": "TEMPORARILY_UNAVAILABLE", "message": reason});
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
    }
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
