//! Puts back what was set aside: the calls `/api/v1/parked` and `/api/v1/tables-apart`.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::json;
use tokio::sync::Mutex;
use tracelake_decode::DecodedRecord;
use tracelake_journal::{Journal, RealFs};
use tracelake_lake::DataFolder;
use tracelake_model::TableName;
use tracelake_pipeline::PipelineHandle;
use tracelake_pipeline::parked::{self, PutBackError};
use tracing::info;

use crate::fault::{Fault, FaultKind};
use crate::service::Service;

/// What the calls need of the service.
#[derive(Clone, Debug)]
struct ParkedParts {
    folder: DataFolder,
    journal: Arc<Journal<DecodedRecord>>,
    pipeline: PipelineHandle,
    /// One record at a time.
    one: Arc<Mutex<()>>,
}

/// The routes.
pub(crate) fn router(service: &Service) -> Router {
    let parts = ParkedParts {
        folder: service.archive.folder.clone(),
        journal: Arc::clone(&service.journal),
        pipeline: service.pipeline.clone(),
        one: Arc::default(),
    };
    Router::new()
        .route("/api/v1/parked/{name}/retry", post(retry))
        .route("/api/v1/tables-apart/{table}/retry", post(retry_table))
        .with_state(parts)
}

async fn retry(State(parts): State<ParkedParts>, Path(name): Path<String>) -> Response {
    match put_back(&parts, &name).await {
        Ok(()) => axum::Json(json!({ "name": name })).into_response(),
        Err(fault) => fault.into_response(),
    }
}

async fn put_back(parts: &ParkedParts, name: &str) -> Result<(), Fault> {
    let _one = parts.one.lock().await;
    parked::put_back(&RealFs, &parts.folder.parked(), name, &parts.journal).await?;
    info!(name, "parked record put back");
    Ok(())
}

impl From<PutBackError> for Fault {
    fn from(error: PutBackError) -> Self {
        let (kind, hint) = match error {
            PutBackError::Unknown { .. } => (
                FaultKind::InvalidParameterValue,
                Some("`tracelake parked list` names those that are"),
            ),
            PutBackError::Unreadable { .. } => {
                (FaultKind::Conflict, Some("keep it for a version of tracelake that can read it"))
            }
            PutBackError::Storage { .. } | PutBackError::Journal { .. } => {
                (FaultKind::TemporarilyUnavailable, None)
            }
        };
        let fault = Self::new(kind, format!("{:#}", anyhow::Error::new(error)));
        match hint {
            Some(hint) => fault.with_hint(hint),
            None => fault,
        }
    }
}

async fn retry_table(State(parts): State<ParkedParts>, Path(table): Path<String>) -> Response {
    let table: TableName = match table.parse() {
        Ok(table) => table,
        Err(error) => {
            let error: tracelake_model::NameError = error;
            let fault = Fault::new(FaultKind::InvalidParameterValue, error.to_string());
            return fault.into_response();
        }
    };
    match parts.pipeline.release_table(table.clone()).await {
        Ok(true) => axum::Json(json!({ "table": table })).into_response(),
        Ok(false) => {
            let message = format!("table `{table}` is not set apart");
            Fault::new(FaultKind::InvalidParameterValue, message).into_response()
        }
        Err(reason) => Fault::new(FaultKind::TemporarilyUnavailable, reason).into_response(),
    }
}
