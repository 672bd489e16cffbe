//! Puts back what was set aside: the calls `/api/v1/parked` and `/api/v1/tables-apart`.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::json;
use tokio::sync::{Mutex, mpsc};
use tracelake_decode::{DecodedRecord, RecordHeader, decode_record};
use tracelake_journal::{Journal, JournalFs, RealFs};
use tracelake_lake::DataFolder;
use tracelake_model::TableName;
use tracelake_model::names::printable;
use tracing::info;

use crate::fault::{Fault, FaultKind};
use crate::pipeline::Command;
use crate::service::Service;

/// What the calls need of the service.
#[derive(Clone, Debug)]
pub(crate) struct ParkedParts {
    pub folder: DataFolder,
    pub journal: Arc<Journal<DecodedRecord>>,
    pub commands: mpsc::UnboundedSender<Command>,
    /// One record at a time.
    pub one: Arc<Mutex<()>>,
}

/// The routes.
pub(crate) fn router(parts: ParkedParts) -> Router {
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

/// Appends the record to the journal, as if it came now, and deletes the entry once it is durable
/// there. A death between the two leaves both: taken in twice it adds nothing.
pub(crate) async fn put_back(parts: &ParkedParts, name: &str) -> Result<(), Fault> {
    let _one = parts.one.lock().await;
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        Fault::new(FaultKind::TemporarilyUnavailable, format!("{what}: {error}"))
    };
    let folder = parts.folder.parked();
    let fs: &dyn JournalFs = &RealFs;
    let found = super::read_record(fs, &folder, name);
    let record = found.map_err(|error| failed("read what is parked", &error))?;
    let Some(record) = record else {
        let message = format!("no record `{}` is parked", printable(name));
        return Err(Fault::new(FaultKind::InvalidParameterValue, message)
            .with_hint("`tracelake parked list` names those that are"));
    };
    let decoded = RecordHeader::from_bytes(&record.header)
        .and_then(|header| decode_record(header, &record.payload));
    let decoded = decoded.map_err(|error| {
        Fault::new(FaultKind::Conflict, format!("`{}`: {error}", printable(name)))
            .with_hint("keep it for a version of tracelake that can read it")
    })?;
    let appended = parts.journal.append(record, decoded).await;
    appended.map_err(|error| failed("put the record into the journal", &error))?;
    info!(name, "parked record put back");
    super::remove(fs, &folder, name)
        .map_err(|error| failed("the record is put back, delete it", &error))
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
    match Service::release_table(&parts.commands, &table).await {
        Ok(true) => axum::Json(json!({ "table": table })).into_response(),
        Ok(false) => {
            let message = format!("table `{table}` is not set apart");
            Fault::new(FaultKind::InvalidParameterValue, message).into_response()
        }
        Err(reason) => Fault::new(FaultKind::TemporarilyUnavailable, reason).into_response(),
    }
}
