//! Whether the service can do its work: `/health` for who restarts it, `/readyz` for who sends to it
//! and for people.
//!
//! `/health` answers 503 when nothing can be acknowledged, or nothing that is acknowledged can get
//! into a table: the journal takes no records, or the pipeline has ended. `/readyz` also names what
//! stands still while the rest goes on. Both have one line for each reason, or JSON for a client that
//! accepts it.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use serde_json::json;
use tracelake_decode::DecodedRecord;
use tracelake_journal::Journal;
use tracelake_model::names::printable_lines;
use tracelake_pipeline::{Health, PipelineHandle};
use tracelake_registry::Registry;

use crate::service::Service;

/// How long the registry may take to answer.
const REGISTRY_TIMEOUT: Duration = Duration::from_secs(2);

/// A request that the journal should have room for.
const SMALL_RECORD_BYTES: u64 = 64 << 10;

/// A part that does not do its work, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Reason {
    part: String,
    reason: String,
}

/// Whom the answers are asked of.
#[derive(Clone, Debug)]
struct HealthParts {
    health: Arc<Health>,
    journal: Arc<Journal<DecodedRecord>>,
    pipeline: PipelineHandle,
    registry: Arc<Registry>,
}

impl HealthParts {
    /// Why the service cannot do its work at all.
    fn fatal(&self) -> Vec<Reason> {
        let mut reasons = Vec::new();
        if let Some(failure) = self.journal.failure() {
            let reason = format!("{:#}", anyhow::Error::new(failure));
            reasons.push(Reason { part: "journal".to_owned(), reason });
        }
        if self.pipeline.has_ended() {
            let reason = "has ended; the process ends too".to_owned();
            reasons.push(Reason { part: "pipeline".to_owned(), reason });
        }
        reasons
    }

    /// Why some of what is sent now is refused, or does not get on.
    async fn all(&self) -> Vec<Reason> {
        let mut reasons = self.fatal();
        if !self.journal.has_capacity(SMALL_RECORD_BYTES) {
            let (used, budget) = (self.journal.usage_bytes(), self.journal.budget_bytes());
            let reason = format!("{used} of {budget} bytes used: requests are refused with 429");
            reasons.push(Reason { part: "journal".to_owned(), reason });
        }
        let asked = tokio::time::timeout(REGISTRY_TIMEOUT, self.registry.tables()).await;
        let fault = match asked {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {REGISTRY_TIMEOUT:?}")),
        };
        if let Some(reason) = fault {
            reasons.push(Reason { part: "registry".to_owned(), reason });
        }
        let told = self.health.reasons().into_iter();
        reasons.extend(told.map(|(part, reason)| Reason { part, reason }));
        reasons
    }
}

/// The routes.
pub(crate) fn router(service: &Service) -> Router {
    let parts = HealthParts {
        health: Arc::clone(&service.health),
        journal: Arc::clone(&service.journal),
        pipeline: service.pipeline.clone(),
        registry: Arc::clone(&service.archive.registry),
    };
    Router::new().route("/health", get(health)).route("/readyz", get(ready)).with_state(parts)
}

async fn health(State(parts): State<HealthParts>, headers: HeaderMap) -> Response {
    answer(&headers, &parts.fatal())
}

async fn ready(State(parts): State<HealthParts>, headers: HeaderMap) -> Response {
    answer(&headers, &parts.all().await)
}

fn answer(headers: &HeaderMap, reasons: &[Reason]) -> Response {
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let accepted = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accepted.contains("application/json") {
        let body = json!({"ok": reasons.is_empty(), "reasons": reasons});
        return (status, Json(body)).into_response();
    }
    let line = |Reason { part, reason }: &Reason| {
        let reason = printable_lines(&reason.lines().collect::<Vec<_>>().join("; "));
        format!("{part}: {reason}\n")
    };
    let text = match reasons {
        [] => "OK".to_owned(),
        reasons => reasons.iter().map(line).collect(),
    };
    (status, [(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    /// Scenario: nothing is wrong; a part and a table are, with line breaks and control codes in the
    /// reasons; asked by a person and by a program.
    /// Guarantees: `OK` with 200, or one line for each reason with 503; JSON says the same.
    #[tokio::test]
    async fn one_line_for_each_reason() {
        let text = HeaderMap::new();
        let answered = |response: Response| async move {
            let status = response.status().as_u16();
            let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
            (status, String::from_utf8(body.to_vec()).unwrap())
        };
        assert_eq!(answered(answer(&text, &[])).await, (200, "OK".to_owned()));
        let reasons = [
            Reason { part: "epoch".to_owned(), reason: "no room\nhint: \u{1b}[31m".to_owned() },
            Reason { part: "table a.b.c".to_owned(), reason: "gone".to_owned() },
        ];
        let (status, body) = answered(answer(&text, &reasons)).await;
        assert_eq!((status, body.lines().count()), (503, 2), "{body}");
        assert!(body.starts_with("epoch: no room; hint: ") && !body.contains('\u{1b}'), "{body}");
        let json = HeaderMap::from_iter([(ACCEPT, "application/json".parse().unwrap())]);
        let (status, body) = answered(answer(&json, &reasons)).await;
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (status, &body["ok"], &body["reasons"][1]["part"]),
            (503, &false.into(), &"table a.b.c".into())
        );
    }

    /// Scenario: a sync fails and no other journal file can be made; then the disk answers; then the
    /// pipeline ends.
    /// Guarantees: both calls say so as long as it is so, and no longer.
    #[cfg(debug_assertions)]
    #[tokio::test(flavor = "multi_thread")]
    async fn a_journal_that_takes_nothing_is_named_until_it_heals() {
        use tracelake_decode::{
            ContentEncoding, RecordHeader, RecordKind, Route, changes_body, decode_record,
        };
        use tracelake_journal::{JournalOptions, RecordBytes, SimulatedFs};
        use tracelake_model::{ExperimentId, Limits, SystemClock};

        let header = RecordHeader {
            kind: RecordKind::TraceChanges,
            encoding: ContentEncoding::Identity,
            received_at_unix_nano: 1,
            routes: vec![Route {
                experiment_id: ExperimentId::default_experiment(),
                table: "a.b.c".parse().unwrap(),
            }],
            run_id: None,
            trace_id: None,
            limits: Limits::default(),
            source: None,
        };
        let payload = changes_body(&[]).into();
        let record = RecordBytes { header: header.to_bytes(), payload };
        let decoded = decode_record(header, &record.payload).unwrap();
        let held = tempfile::tempdir().unwrap();
        let fs = SimulatedFs::new(1);
        let options = JournalOptions::new("/journal");
        let (journal, _events, _) = Journal::open_on(Arc::new(fs.clone()), options).unwrap();
        let registry = Registry::open(held.path(), Arc::new(SystemClock)).await.unwrap();
        let (pipeline, commands) = PipelineHandle::channel();
        let (journal, health) = (Arc::new(journal), Arc::default());
        let registry = Arc::new(registry);
        let parts = HealthParts { health, journal: Arc::clone(&journal), pipeline, registry };
        let wrong = async || {
            let fatal: Vec<String> = parts.fatal().into_iter().map(|reason| reason.part).collect();
            let all: Vec<String> =
                parts.all().await.into_iter().map(|reason| reason.part).collect();
            assert_eq!(fatal, all);
            fatal
        };
        assert_eq!(wrong().await, Vec::<String>::new());
        fs.fail_syncs(1);
        fs.fail_creates(1);
        assert!(journal.append(record, decoded).await.is_err());
        assert_eq!(wrong().await, ["journal"]);
        journal.heal().await.unwrap();
        assert_eq!(wrong().await, Vec::<String>::new());
        drop(commands);
        assert_eq!(wrong().await, ["pipeline"]);
    }
}
