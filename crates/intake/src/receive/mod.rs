//! The ways in: OTLP over HTTP and gRPC, MLflow REST.

pub mod admission;
mod codes;
mod headers;
mod mlflow_rest;
mod otlp_grpc;
mod otlp_http;
mod otlp_response;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;

use crate::error::IntakeError;
use crate::intake::Intake;
use admission::{Reservation, read_body};

pub use mlflow_rest::{MLFLOW_VERSION, mlflow_trace_json};
pub use otlp_grpc::grpc_service;

/// Every HTTP endpoint of this room: `/v1/traces`, `/health`, `/version`, `/api/...` and
/// `/ajax-api/...`. Unknown paths below the latter two answer as MLflow does; other paths are left
/// to whoever merges this router.
pub fn http_router(intake: Arc<Intake>) -> Router {
    otlp_http::router().merge(mlflow_rest::router()).with_state(intake)
}

/// A body, and what it counts for as long as the request is in work.
struct ReadBody {
    bytes: Bytes,
    reservation: Reservation,
}

/// Asks whether more may come in, then reads a body of at most `limit_bytes`.
async fn admit_and_read(
    intake: &Intake,
    headers: &http::HeaderMap,
    body: Body,
    limit_bytes: u64,
) -> Result<ReadBody, IntakeError> {
    let declared = headers::content_length(headers);
    if let Err(refused) = intake.admit_soon(declared.unwrap_or_default().min(limit_bytes)).await {
        admission::drain(body).await;
        return Err(refused);
    }
    let mut reservation = intake.in_flight().reserve();
    let retry_after = intake.settings().retry_after;
    let bytes = read_body(body, declared, limit_bytes, &mut reservation, retry_after).await?;
    Ok(ReadBody { bytes, reservation })
}
