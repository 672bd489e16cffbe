//! The MLflow REST calls that an unchanged MLflow client makes to log, change and read traces.
//!
//! Paths, shapes, error codes and words follow MLflow 3.17 (`mlflow/server/handlers.py`). A call
//! that is not here answers as MLflow does for one that it lacks: 404 `ENDPOINT_NOT_FOUND`.

mod assessments;
mod deletion;
mod experiments;
mod links;
mod parameters;
mod reads;
mod reply;
mod spans;
mod tags;
mod trace_info;
mod trace_path;
mod traces;

use std::sync::Arc;

use axum::routing::{get, patch, post, put};
use axum::{Extension, Router};

use crate::intake::Intake;
use reads::SpanReads;
use reply::{endpoint_not_found, method_not_allowed};

pub use reads::mlflow_trace_json;

/// The MLflow version whose calls are spoken here: the answer to `GET /version`.
///
/// Clients gate one thing on it: from 3.4 on they send spans by OTLP, below it, or without an
/// answer, they write `traces.json` as artifacts instead.
pub const MLFLOW_VERSION: &str = "3.17.2";

pub(super) fn router() -> Router<Arc<Intake>> {
    Router::new()
        .route("/version", get(|| async { MLFLOW_VERSION }))
        .nest("/api", api())
        .nest("/ajax-api", api())
}

/// Below `/api` and, for pages, below `/ajax-api`.
fn api() -> Router<Arc<Intake>> {
    Router::new()
        .nest("/2.0/mlflow", experiment_calls().merge(change_calls()))
        .nest("/3.0/mlflow", experiment_calls().merge(change_calls()).merge(read_calls()))
        .route("/3.0/mlflow/traces", post(traces::start_trace))
        .route("/2.0/mlflow/traces/{trace}/info", get(reads::get_info_version_2))
        .route(
            "/2.0/mlflow-artifacts/artifacts/{experiment}/traces/{trace}/artifacts/traces.json",
            put(traces::put_traces_json),
        )
        .fallback(endpoint_not_found)
        .method_not_allowed_fallback(method_not_allowed)
}

fn experiment_calls() -> Router<Arc<Intake>> {
    Router::new()
        .route("/experiments/create", post(experiments::create))
        .route("/experiments/get", get(experiments::get))
        .route("/experiments/get-by-name", get(experiments::get_by_name))
        .route("/experiments/search", get(experiments::search).post(experiments::search))
        .route("/experiments/list", get(experiments::search).post(experiments::search))
        .route("/experiments/update", post(experiments::update))
        .route("/experiments/delete", post(experiments::delete))
        .route("/experiments/restore", post(experiments::restore))
        .route("/experiments/set-experiment-tag", post(experiments::set_tag))
        .route("/experiments/delete-experiment-tag", post(experiments::delete_tag))
}

/// Calls that change traces. MLflow has some of them in one version only; here both have all.
fn change_calls() -> Router<Arc<Intake>> {
    Router::new()
        .route("/traces/{trace}/tags", patch(tags::set).delete(tags::delete))
        .route("/traces/{trace}/assessments", post(assessments::create))
        .route(
            "/traces/{trace}/assessments/{assessment}",
            get(assessments::get).patch(assessments::update).delete(assessments::delete),
        )
        .route("/traces/link-to-run", post(links::link_to_run))
        .route("/traces/link-prompts", post(traces::link_prompts))
        .route("/traces/delete-traces", post(deletion::delete_traces))
}

/// Calls that read traces.
fn read_calls() -> Router<Arc<Intake>> {
    Router::new()
        // Calls that are lacking, such as `POST traces/search`, must not look like this one: the
        // client then asks in an older way.
        .route("/traces/{trace}", get(reads::get_info).fallback(endpoint_not_found))
        .route("/traces/get", get(reads::get_trace))
        .route("/traces/batchGet", get(reads::batch_get))
        .route("/traces/batchGetInfos", post(reads::batch_get_infos))
        .layer(Extension(SpanReads::new()))
}
