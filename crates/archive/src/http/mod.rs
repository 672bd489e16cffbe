//! The service's answers to programs: questions, archival, the checklist.
//!
//! Requests and answers are JSON, rows an Arrow IPC stream. What fails answers a [`Fault`].

pub(crate) mod archival;
pub(crate) mod connections;
pub(crate) mod control;
pub(crate) mod guard;
pub(crate) mod health;
pub(crate) mod parked;
mod questions;
pub(crate) mod wire;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tracelake_query::{LakeTables, QueryEngine, QueryLimits};

use crate::ask::engine::with_hint;
use crate::ask::uncommitted::OwnPipeline;
use crate::fault::{Fault, FaultKind};
use crate::folder::Archive;
use crate::service::Service;
use crate::settings::Settings;

/// Questions that are answered at once; the others wait. They share the memory of the engine.
const MAX_QUESTIONS: usize = 4;

/// Longest request of these calls.
const MAX_REQUEST_BYTES: usize = 4 << 20;

/// What the calls need of the service.
#[derive(Clone, Debug)]
struct Api {
    archive: Archive,
    data_dir: PathBuf,
    settings: Arc<Settings>,
    engine: QueryEngine,
    questions: Arc<Semaphore>,
}

/// The routes of `/api/v1` that programs ask.
pub(crate) fn router(
    service: &Service,
    data_dir: &Path,
    settings: &Settings,
) -> anyhow::Result<Router> {
    let archive = service.archive.clone();
    let tables = LakeTables::new(archive.lake.clone(), archive.folder.clone())
        .with_pending(Arc::new(OwnPipeline(service.pipeline.clone())));
    let engine = QueryEngine::new(Arc::new(tables), QueryLimits::default()).map_err(with_hint)?;
    let api = Api {
        archive,
        data_dir: data_dir.to_owned(),
        settings: Arc::new(settings.clone()),
        engine,
        questions: Arc::new(Semaphore::new(MAX_QUESTIONS)),
    };
    Ok(Router::new()
        .route("/api/v1/about", get(archival::about))
        .route("/api/v1/questions/{question}", post(questions::question))
        .route("/api/v1/sql", post(questions::sql))
        .route("/api/v1/traces/{trace_id}", get(questions::trace))
        .route("/api/v1/tables", post(archival::create_table))
        .route("/api/v1/experiments", post(archival::create_experiment))
        .route("/api/v1/archival/enable", post(archival::enable))
        .route("/api/v1/archival/disable", post(archival::disable))
        .route("/api/v1/archival/moves/{experiment_id}", get(archival::moves))
        .route("/api/v1/check", post(archival::check))
        .route("/api/v1/verify", post(archival::verify))
        .layer(axum::extract::DefaultBodyLimit::max(MAX_REQUEST_BYTES))
        .with_state(api))
}

/// Media type of a request or answer in JSON.
const JSON: &str = "application/json";

/// A request's body, or why it was not read.
type RequestBody = Result<Bytes, BytesRejection>;

/// A request. Only JSON that says so is read: a page in a browser on this machine can send
/// other types to any service without asking first.
fn parse<T: DeserializeOwned>(headers: &HeaderMap, body: RequestBody) -> Result<T, Fault> {
    let wrong = |message: String| Fault::new(FaultKind::InvalidParameterValue, message);
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = media_type.and_then(|value| value.split(';').next()).unwrap_or_default();
    if !media_type.trim().eq_ignore_ascii_case(JSON) {
        return Err(wrong("the request is not JSON".to_owned())
            .with_hint("send it with the header `content-type: application/json`"));
    }
    let body = body.map_err(|error| {
        wrong(format!("the request: {}", error.body_text()))
            .with_hint(format!("it may have {} MiB", MAX_REQUEST_BYTES >> 20))
    })?;
    serde_json::from_slice(&body).map_err(|error| wrong(format!("the request's JSON: {error}")))
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let status = match serde_json::to_vec(&self) {
            Ok(body) => return (self.kind.status(), [(CONTENT_TYPE, JSON)], body).into_response(),
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        status.into_response()
    }
}
