//! How requests reach the intake: by HTTP to the service that runs on the data folder, or in this
//! process when none does.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tracelake_decode::mlflow_json::start_trace_body;
use tracelake_decode::otlp::fields::{export_response, partial_success, rpc_status};
use tracelake_decode::otlp_json::write_spans;
use tracelake_decode::request::encode_request;
use tracelake_decode::wire::Fields;
use tracelake_decode::{ContentEncoding, RecordKind};
use tracelake_intake::{IntakeError, Submission};
use tracelake_model::names::printable;

use super::content::{Payload, Piece};
use crate::discovery::{ServerFile, agent, request_flush};
use crate::service::Service;

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(300);
/// How long a service may be gone, as at a restart, before the import gives up.
const GONE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a service may answer that it cannot take more.
const BUSY_TIMEOUT: Duration = Duration::from_secs(600);
/// Longest wait that an answer may ask for.
const MAX_WAIT: Duration = Duration::from_secs(30);
const GONE_POLL: Duration = Duration::from_millis(200);

/// The way to the intake.
#[derive(Debug)]
pub(super) enum Transport {
    Http(HttpTransport),
    Local(Box<Service>),
}

/// A request that is durable.
#[derive(Debug, Default)]
pub(super) struct Acked {
    pub rejected_spans: usize,
    pub message: String,
}

/// A request that is not known to be durable.
#[derive(Debug)]
pub(super) enum SendFault {
    /// This one can never be taken.
    Refused(String),
    /// Nothing can be taken any more.
    Stopped(anyhow::Error),
    /// The import was told to stop while this one waited.
    Cancelled,
}

impl Transport {
    /// Sends one request, waiting as long as it takes until it may come in.
    pub(super) async fn send(
        &self,
        piece: Piece,
        cancel: &CancellationToken,
    ) -> Result<Acked, SendFault> {
        let request = Request::of(piece);
        let begun = Instant::now();
        let mut gone_since = None;
        loop {
            let attempt = match self {
                Self::Http(http) => http.attempt(&request).await,
                Self::Local(service) => attempt_here(service, &request).await,
            };
            let (wait, reason) = match attempt {
                Attempt::Acked(acked) => return Ok(acked),
                Attempt::Refused(reason) => return Err(SendFault::Refused(reason)),
                Attempt::Stopped(error) => return Err(SendFault::Stopped(error)),
                Attempt::Busy(wait, reason) => {
                    gone_since = None;
                    if BUSY_TIMEOUT < begun.elapsed() {
                        return Err(SendFault::Stopped(anyhow::anyhow!(
                            "the service has been taking nothing for {} s: {reason}",
                            BUSY_TIMEOUT.as_secs()
                        )));
                    }
                    (wait.min(MAX_WAIT), reason)
                }
                Attempt::Gone(reason) => {
                    if GONE_TIMEOUT < gone_since.get_or_insert_with(Instant::now).elapsed() {
                        return Err(SendFault::Stopped(anyhow::anyhow!(
                            "the service is gone: {reason}"
                        )));
                    }
                    (GONE_POLL, reason)
                }
            };
            tracing::debug!(wait_ms = wait.as_millis(), reason, "request waits");
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = cancel.cancelled() => return Err(SendFault::Cancelled),
            }
        }
    }

    /// Waits until all that was sent is in the tables.
    pub(super) async fn flush(&self) -> anyhow::Result<()> {
        match self {
            Self::Local(service) => {
                service.pipeline.flush().await.map_err(anyhow::Error::msg)?;
            }
            Self::Http(http) => {
                let server = http.server();
                tokio::task::spawn_blocking(move || request_flush(&server)).await??;
            }
        }
        Ok(())
    }

    /// Ends the service if it is this process's own; the rest of its work stays in the journal.
    pub(super) async fn close(self) -> anyhow::Result<()> {
        match self {
            Self::Local(service) => service.stop().await,
            Self::Http(_) => Ok(()),
        }
    }
}

/// One request, encoded. Cloning copies pointers.
#[derive(Clone, Debug)]
struct Request {
    call: Call,
    experiment: Option<tracelake_model::ExperimentId>,
    body: Bytes,
}

#[derive(Clone, Copy, Debug)]
enum Call {
    Otlp,
    TracesJson(tracelake_model::TraceId),
    StartTrace,
}

impl Request {
    fn of(piece: Piece) -> Self {
        let (call, body) = match piece.payload {
            Payload::Otlp(spans) => (Call::Otlp, encode_request(&spans)),
            Payload::Mlflow(trace_id, spans) => {
                let document = write_spans(spans.iter().map(|span| &span.message[..]));
                (Call::TracesJson(trace_id), document.into_bytes())
            }
            Payload::Info(start) => {
                (Call::StartTrace, start_trace_body(&start.info, start.experiment_id.as_ref()))
            }
        };
        Self { call, experiment: piece.experiment, body: body.into() }
    }
}

enum Attempt {
    Acked(Acked),
    Refused(String),
    Stopped(anyhow::Error),
    Busy(Duration, String),
    Gone(String),
}

async fn attempt_here(service: &Service, request: &Request) -> Attempt {
    let intake = &service.intake;
    if service.has_ended() {
        return Attempt::Stopped(anyhow::anyhow!("the pipeline has ended"));
    }
    let outcome = match intake.admit(request.body.len() as u64) {
        Err(error) => Err(error),
        Ok(()) => match request.call {
            Call::StartTrace => intake
                .submit_start_trace(ContentEncoding::Identity, request.body.clone())
                .await
                .map(|_| Acked::default()),
            Call::Otlp | Call::TracesJson(_) => {
                let (kind, trace_id) = match request.call {
                    Call::TracesJson(trace_id) => (RecordKind::MlflowTracesJson, Some(trace_id)),
                    Call::Otlp | Call::StartTrace => (RecordKind::OtlpProtobuf, None),
                };
                let submission = Submission {
                    kind,
                    encoding: ContentEncoding::Identity,
                    experiment: request.experiment.clone(),
                    run_id: None,
                    trace_id,
                    payload: request.body.clone(),
                };
                intake.submit(submission).await.map(|accepted| Acked {
                    rejected_spans: accepted.rejected_spans,
                    message: accepted.message,
                })
            }
        },
    };
    match outcome {
        Ok(acked) => Attempt::Acked(acked),
        Err(IntakeError::Overloaded { retry_after }) => {
            Attempt::Busy(retry_after, "too much waits".to_owned())
        }
        Err(IntakeError::Journal(error)) if error.is_at_capacity() => {
            Attempt::Busy(Duration::from_secs(1), format!("{:#}", anyhow::Error::new(error)))
        }
        Err(
            error @ (IntakeError::Journal(_) | IntakeError::Registry(_) | IntakeError::BrokenOff),
        ) => Attempt::Stopped(error.into()),
        Err(error) => Attempt::Refused(error.to_string()),
    }
}

/// The service on this machine.
#[derive(Debug)]
pub(super) struct HttpTransport {
    agent: ureq::Agent,
    server_file: PathBuf,
    /// Read anew when the service does not answer: it may have come back on another port.
    server: Mutex<ServerFile>,
}

impl HttpTransport {
    pub(super) fn new(server: ServerFile, server_file: &Path) -> Self {
        Self {
            agent: agent(REQUEST_TIMEOUT),
            server_file: server_file.to_owned(),
            server: Mutex::new(server),
        }
    }

    fn server(&self) -> ServerFile {
        self.server.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn attempt(&self, request: &Request) -> Attempt {
        let (agent, request, server) = (self.agent.clone(), request.clone(), self.server());
        let posted = tokio::task::spawn_blocking(move || post(&agent, &server, &request)).await;
        let attempt = match posted {
            Ok(attempt) => attempt,
            Err(error) => Attempt::Stopped(error.into()),
        };
        if let Attempt::Gone(_) = attempt {
            let path = self.server_file.clone();
            let found = tokio::task::spawn_blocking(move || ServerFile::running(&path)).await;
            if let Ok(Some(server)) = found {
                *self.server.lock().unwrap_or_else(PoisonError::into_inner) = server;
            }
        }
        attempt
    }
}

fn post(agent: &ureq::Agent, server: &ServerFile, request: &Request) -> Attempt {
    let base = format!("http://{}", server.http);
    let call = match request.call {
        Call::Otlp => {
            agent.post(format!("{base}/v1/traces")).header("content-type", "application/x-protobuf")
        }
        Call::StartTrace => agent
            .post(format!("{base}/api/3.0/mlflow/traces"))
            .header("content-type", "application/json"),
        Call::TracesJson(trace_id) => {
            let experiment = request.experiment.as_ref().map_or("0", |id| id.as_str());
            let trace = trace_id.to_mlflow();
            agent
                .put(format!(
                    "{base}/api/2.0/mlflow-artifacts/artifacts/{experiment}/traces/{trace}\
                     /artifacts/traces.json"
                ))
                .header("content-type", "application/json")
        }
    };
    let call = match (&request.experiment, request.call) {
        (Some(id), Call::Otlp) => call.header("x-mlflow-experiment-id", id.as_str()),
        _ => call,
    };
    let mut answer = match call.send(&request.body[..]) {
        Ok(answer) => answer,
        Err(error) => return Attempt::Gone(error.to_string()),
    };
    let retry_after = answer
        .headers()
        .get("retry-after")
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map_or(Duration::from_secs(1), Duration::from_secs);
    let status = answer.status().as_u16();
    // An answer that breaks off is no answer: the request may be durable or not, and is sent again.
    let body = match answer.body_mut().read_to_vec() {
        Ok(body) => body,
        Err(error) => return Attempt::Gone(error.to_string()),
    };
    match status {
        200..=299 => Attempt::Acked(match request.call {
            Call::Otlp => partial_success(&body),
            Call::TracesJson(_) | Call::StartTrace => Acked::default(),
        }),
        429 | 503 => Attempt::Busy(retry_after, message_of(&body)),
        status => Attempt::Refused(match message_of(&body) {
            empty if empty.is_empty() => format!("HTTP status {status}"),
            message => message,
        }),
    }
}

/// The `partial_success` of an `ExportTraceServiceResponse`.
fn partial_success(body: &[u8]) -> Acked {
    let mut acked = Acked::default();
    let mut fields = Fields::new(body);
    while let Ok(Some((number, value))) = fields.next_field() {
        if number != export_response::PARTIAL_SUCCESS {
            continue;
        }
        let mut fields = Fields::new(value.bytes());
        while let Ok(Some((number, value))) = fields.next_field() {
            match number {
                partial_success::REJECTED_SPANS => {
                    acked.rejected_spans = usize::try_from(value.number()).unwrap_or_default();
                }
                partial_success::ERROR_MESSAGE => {
                    acked.message = String::from_utf8_lossy(value.bytes()).into_owned()
                }
                _ => {}
            }
        }
    }
    acked
}

/// What an answer says: the member `message` of JSON, or the field of a `google.rpc.Status`.
fn message_of(body: &[u8]) -> String {
    let json = serde_json::from_slice::<serde_json::Value>(body).ok();
    if let Some(text) = json.as_ref().and_then(|value| value["message"].as_str()) {
        return text.to_owned();
    }
    let mut fields = Fields::new(body);
    while let Ok(Some((number, value))) = fields.next_field() {
        if number == rpc_status::MESSAGE {
            return String::from_utf8_lossy(value.bytes()).into_owned();
        }
    }
    printable(&String::from_utf8_lossy(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: the answers of the service, in protobuf and JSON, and none.
    /// Guarantees: counts and words are read from them.
    #[test]
    fn reads_the_answers_of_the_service() {
        let acked = partial_success(b"\x0a\x07\x08\x03\x12\x03why");
        assert_eq!((acked.rejected_spans, acked.message.as_str()), (3, "why"));
        assert_eq!(partial_success(b"").rejected_spans, 0);
        assert_eq!(message_of(b"\x08\x03\x12\x03why"), "why");
        assert_eq!(message_of(br#"{"error_code":"X","message":"why"}"#), "why");
        assert_eq!(message_of(b""), "");
    }
}
