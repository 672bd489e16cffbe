//! The service's own calls, `/api/v1`, and the file by which other processes find it.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::mpsc;

use crate::pipeline::Command;
use crate::service::Service;

/// How long a flush may take before the caller stops waiting for it.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(300);

/// How to reach a running service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ServerFile {
    pub pid: u32,
    pub http: SocketAddr,
    pub grpc: SocketAddr,
}

impl ServerFile {
    /// Writes the file whole or not at all.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let temporary = path.with_extension("json.tmp");
        let mut file = std::fs::File::create(&temporary)
            .with_context(|| format!("write `{}`", temporary.display()))?;
        writeln!(file, "{}", serde_json::to_string(self)?)?;
        std::fs::rename(&temporary, path).with_context(|| format!("write `{}`", path.display()))
    }

    /// Reads the file, `None` when no service says that it runs.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
    }
}

/// The routes of `/api/v1`.
pub(crate) fn router(commands: mpsc::UnboundedSender<Command>) -> Router {
    Router::new().route("/api/v1/flush", post(flush)).with_state(commands)
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

/// Asks a running service to flush. Blocks.
pub(crate) fn request_flush(server: &ServerFile) -> anyhow::Result<serde_json::Value> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(FLUSH_TIMEOUT))
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .build()
        .into();
    let url = format!("http://{}/api/v1/flush", server.http);
    let mut answer = agent.post(&url).send_empty().with_context(|| {
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
