//! Questions over HTTP: rows as an Arrow IPC stream.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::StreamWriter;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tracelake_model::TableName;
use tracelake_query::analyses::Question;
use tracelake_query::{QueryOptions, QueryOutput};

use super::wire::{QuestionRequest, SqlRequest};
use super::{Api, RequestBody, parse};
use crate::ask::arrow_stream::ARROW_STREAM;
use crate::ask::lookup::{find_trace, known_tables, parse_trace_id};
use crate::fault::{Fault, FaultKind};

/// Encoded batches that wait for a slow reader.
const QUEUED_BATCHES: usize = 2;

/// How long a client may take none of them.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a question waits until others are answered.
const TURN_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) async fn question(
    State(api): State<Api>,
    Path(question): Path<String>,
    headers: HeaderMap,
    body: RequestBody,
) -> Result<Response, Fault> {
    let question: Question = question.parse()?;
    let request: QuestionRequest = parse(&headers, body)?;
    let table = request.table.as_ref().unwrap_or(&api.settings.default_table);
    let analysis = question.analysis(table, request.range(), request.limit);
    answer(&api, &analysis.sql, &question.options()).await
}

pub(super) async fn sql(
    State(api): State<Api>,
    headers: HeaderMap,
    body: RequestBody,
) -> Result<Response, Fault> {
    let request: SqlRequest = parse(&headers, body)?;
    let table = request.table.unwrap_or_else(|| api.settings.default_table.clone());
    let options = QueryOptions { default_table: Some(table), ..QueryOptions::default() };
    answer(&api, &request.statement, &options).await
}

#[derive(Debug, Deserialize)]
pub(super) struct TraceParameters {
    table: Option<TableName>,
}

pub(super) async fn trace(
    State(api): State<Api>,
    Path(trace_id): Path<String>,
    Query(parameters): Query<TraceParameters>,
) -> Result<Response, Fault> {
    let trace_id = parse_trace_id(&trace_id)?;
    let tables = match parameters.table {
        Some(table) => vec![table],
        None => {
            let default_table = api.settings.default_table.clone();
            known_tables(&api.archive.folder, default_table, Some(&api.archive.registry)).await?
        }
    };
    let turn = turn(&api).await?;
    Ok(stream(find_trace(&api.engine, trace_id, &tables, &["*"]).await?.output, turn))
}

async fn answer(api: &Api, sql: &str, options: &QueryOptions) -> Result<Response, Fault> {
    let turn = turn(api).await?;
    Ok(stream(api.engine.query(sql, options).await?, turn))
}

/// One of the answers that may be held at once, until its last row is sent.
async fn turn(api: &Api) -> Result<OwnedSemaphorePermit, Fault> {
    let busy = |reason| Fault::new(FaultKind::TemporarilyUnavailable, reason);
    let turn = Arc::clone(&api.questions).acquire_owned();
    match tokio::time::timeout(TURN_TIMEOUT, turn).await {
        Ok(turn) => turn.map_err(|_| busy("the service stops")),
        Err(_) => Err(busy("the service answers other questions").with_hint("ask again later")),
    }
}

/// The rows, encoded batch by batch as the client takes them. A client that gets a stream without
/// its end knows that it is not whole. One that takes nothing for long is left.
fn stream(output: QueryOutput, turn: OwnedSemaphorePermit) -> Response {
    let (sender, receiver) = mpsc::channel(QUEUED_BATCHES);
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || {
        let mut out = Chunks { runtime, sender, pending: Vec::new() };
        if let Err(error) = encode(&output.schema, output.batches, &mut out) {
            // Nobody is left to tell when the client has gone.
            out.send(Err(std::io::Error::other(error))).ok();
        }
        drop(turn);
    });
    let chunks = ReceiverStream::new(receiver);
    ([(CONTENT_TYPE, ARROW_STREAM)], Body::from_stream(chunks)).into_response()
}

fn encode(
    schema: &SchemaRef,
    batches: Vec<RecordBatch>,
    out: &mut Chunks,
) -> Result<(), arrow::error::ArrowError> {
    let mut writer = StreamWriter::try_new(out, schema)?;
    for batch in batches {
        writer.write(&batch)?;
        writer.flush()?;
    }
    writer.finish()?;
    writer.flush()
}

/// Collects what is written and sends it on at each flush.
struct Chunks {
    runtime: Handle,
    sender: mpsc::Sender<std::io::Result<Bytes>>,
    pending: Vec<u8>,
}

impl std::io::Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.pending.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let chunk = Bytes::from(std::mem::take(&mut self.pending));
        self.send(Ok(chunk))
    }
}

impl Chunks {
    fn send(&self, chunk: std::io::Result<Bytes>) -> std::io::Result<()> {
        let sending = async { self.sender.send_timeout(chunk, SEND_TIMEOUT).await };
        self.runtime.block_on(sending).map_err(|error| match error {
            SendTimeoutError::Timeout(_) => std::io::Error::from(std::io::ErrorKind::TimedOut),
            SendTimeoutError::Closed(_) => std::io::Error::from(std::io::ErrorKind::BrokenPipe),
        })
    }
}
