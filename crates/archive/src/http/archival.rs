//! Tables, experiments and their bindings over HTTP, and the checklist.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use tracelake_model::ExperimentId;

use super::wire::{
    About, CheckLine, CheckRequest, DisableOutcome, DisableRequest, EnableOutcome, EnableRequest,
    ExperimentOutcome, ExperimentRequest, TableRequest, VerifyTableRequest,
};
use super::{Api, RequestBody, parse};
use crate::fault::Fault;
use crate::folder::{Archive, TableOutcome};
use crate::operate::check::{self, check_table};
use crate::operate::moves::MoveProgress;
use crate::operate::verify::{VerifyReport, VerifyRequest, verify_table};
use crate::settings::Settings;
use tracelake_registry::EarlierTraces;

/// What [`About::product`] says.
pub(crate) const PRODUCT: &str = "tracelake";

pub(super) async fn about(State(api): State<Api>) -> Json<About> {
    Json(About {
        product: PRODUCT.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        data_dir: api.archive.folder.root().display().to_string(),
        default_table: api.settings.default_table.clone(),
    })
}

pub(super) async fn create_table(
    State(api): State<Api>,
    headers: HeaderMap,
    body: RequestBody,
) -> Result<Json<TableOutcome>, Fault> {
    let request: TableRequest = parse(&headers, body)?;
    Ok(Json(api.archive.ensure_table(&request.table).await?))
}

pub(super) async fn create_experiment(
    State(api): State<Api>,
    headers: HeaderMap,
    body: RequestBody,
) -> Result<Json<ExperimentOutcome>, Fault> {
    let request: ExperimentRequest = parse(&headers, body)?;
    let (experiment_id, created) = api.archive.experiment(&request.name).await?;
    Ok(Json(ExperimentOutcome { experiment_id, name: request.name, created }))
}

pub(super) async fn enable(
    State(api): State<Api>,
    headers: HeaderMap,
    body: RequestBody,
) -> Result<Json<EnableOutcome>, Fault> {
    let request: EnableRequest = parse(&headers, body)?;
    Ok(Json(enable_in(&api.archive, &request).await?))
}

/// Binds; the service moves earlier traces behind.
pub(crate) async fn enable_in(
    archive: &Archive,
    request: &EnableRequest,
) -> anyhow::Result<EnableOutcome> {
    let experiment = archive.existing_experiment(&request.experiment).await?;
    let earlier = if request.from_now { EarlierTraces::Stay } else { EarlierTraces::Move };
    let done = archive.enable(&request.table, &experiment.experiment_id, earlier).await?;
    Ok(EnableOutcome {
        table: done.table,
        location: done.location,
        experiment_id: experiment.experiment_id,
        experiment: experiment.name,
        moved_traces: 0,
    })
}

pub(super) async fn disable(
    State(api): State<Api>,
    headers: HeaderMap,
    body: RequestBody,
) -> Result<Json<DisableOutcome>, Fault> {
    let request: DisableRequest = parse(&headers, body)?;
    Ok(Json(disable_in(&api.archive, &request).await?))
}

pub(crate) async fn disable_in(
    archive: &Archive,
    request: &DisableRequest,
) -> anyhow::Result<DisableOutcome> {
    let (table, experiment) = archive.disable(&request.experiment, request.table.as_ref()).await?;
    Ok(DisableOutcome {
        experiment_id: experiment.experiment_id,
        experiment: experiment.name,
        table,
    })
}

pub(super) async fn moves(
    State(api): State<Api>,
    Path(experiment_id): Path<String>,
) -> Result<Json<MoveProgress>, Fault> {
    let experiment_id: ExperimentId = experiment_id.parse().map_err(anyhow::Error::new)?;
    Ok(Json(MoveProgress::of(&api.archive.registry, &experiment_id).await?))
}

/// Traces that a report over HTTP lists at the most.
const MAX_LISTED_TRACES: usize = 50_000;

pub(super) async fn verify(
    State(api): State<Api>,
    headers: HeaderMap,
    body: RequestBody,
) -> Result<Json<VerifyReport>, Fault> {
    let request: VerifyTableRequest = parse(&headers, body)?;
    Ok(Json(verify_in(&api.data_dir, &api.settings, request).await?))
}

pub(crate) async fn verify_in(
    data_dir: &std::path::Path,
    settings: &Settings,
    request: VerifyTableRequest,
) -> anyhow::Result<VerifyReport> {
    let request = VerifyRequest {
        table: request.table.unwrap_or_else(|| settings.default_table.clone()),
        since_unix_micro: request.since_unix_micro,
        until_unix_micro: request.until_unix_micro,
        against: request.against,
        max_traces: MAX_LISTED_TRACES,
    };
    verify_table(data_dir, settings, request).await
}

pub(super) async fn check(
    State(api): State<Api>,
    headers: HeaderMap,
    body: RequestBody,
) -> Result<Json<Vec<CheckLine>>, Fault> {
    let request: CheckRequest = parse(&headers, body)?;
    Ok(Json(check_in(&api.data_dir, &api.settings, request).await?))
}

pub(crate) async fn check_in(
    data_dir: &std::path::Path,
    settings: &Settings,
    request: CheckRequest,
) -> anyhow::Result<Vec<CheckLine>> {
    let request = check::CheckRequest {
        table: request.table.unwrap_or_else(|| settings.default_table.clone()),
        experiment: request.experiment,
        write: request.write,
        settings: settings.clone(),
    };
    let lines = check_table(data_dir, &request).await?;
    Ok(lines
        .into_iter()
        .map(|line| CheckLine {
            item: line.item.to_owned(),
            result: line.finding.verdict.as_str().to_owned(),
            found: line.finding.found,
            hint: line.finding.hint,
        })
        .collect())
}
