//! What others ask of the pipeline: flush, status, open traces, uncommitted rows.

use std::collections::HashMap;

use arrow::ipc::writer::StreamWriter;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;
use tracelake_lake::Preview;
use tracelake_model::{TableName, TraceId};
use tracelake_pipeline::PipelineHandle;

use crate::ask::arrow_stream::ARROW_STREAM;
use crate::ask::uncommitted::{REPLACED_KEY, VERSION_KEY};
use crate::discovery::UNAVAILABLE;

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

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};

    use tokio::net::TcpListener as AsyncListener;

    use super::*;
    use crate::discovery::ServerFile;
    use crate::service::Service;
    use crate::settings::{Overrides, Settings};

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
