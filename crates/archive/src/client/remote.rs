//! Calls to a service. Its answers are not trusted: bounded, decoded into types, no redirects.

use std::path::Path;
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Client as Http, Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use tracelake_model::names::printable;
use tracelake_model::{ExperimentId, TableName};
use tracelake_query::QueryLimits;
use tracelake_query::analyses::Question;
use url::Url;

use super::answer::Answer;
use super::folder::Folder;
use super::place::ServiceUrl;
use crate::ask::arrow_stream::{ARROW_STREAM, ArrowStream};
use crate::discovery::ServerFile;
use crate::fault::{Fault, FaultKind};
use crate::folder::{TableOutcome, data_folder};
use crate::http::archival::PRODUCT;
use crate::http::wire::{
    About, CheckLine, CheckRequest, DisableOutcome, DisableRequest, EnableOutcome, EnableRequest,
    ExperimentOutcome, ExperimentRequest, QuestionRequest, SqlRequest, TableRequest,
    VerifyTableRequest,
};
use crate::operate::moves::{MoveProgress, Watch, watch_moves};
use crate::operate::verify::VerifyReport;

/// How long the service may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may be silent within an answer. A flush answers when all is committed.
const READ_TIMEOUT: Duration = Duration::from_secs(300);
/// Longest answer that is JSON.
const MAX_JSON_BYTES: usize = 16 << 20;
/// Most bytes of rows that are taken. A service of this product stays below by its own limit.
const MAX_ROWS_BYTES: usize = 8 << 30;

/// A service.
pub(super) struct Remote {
    url: ServiceUrl,
    http: Http,
}

impl Remote {
    pub(super) fn new(url: ServiceUrl) -> Result<Self, Fault> {
        let http = Http::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(anyhow::Error::new)?;
        Ok(Self { url, http })
    }

    pub(super) async fn ask(
        &self,
        question: Question,
        request: &QuestionRequest,
    ) -> Result<Answer, Fault> {
        let call = self.call(&["questions", question.name()]);
        self.rows(self.http.post(call).json(request)).await
    }

    pub(super) async fn sql(&self, request: &SqlRequest) -> Result<Answer, Fault> {
        self.rows(self.http.post(self.call(&["sql"])).json(request)).await
    }

    pub(super) async fn trace(
        &self,
        trace_id: &str,
        table: Option<TableName>,
    ) -> Result<Answer, Fault> {
        let mut call = self.call(&["traces", trace_id]);
        if let Some(table) = table {
            call.query_pairs_mut().append_pair("table", &table.to_string());
        }
        self.rows(self.http.get(call)).await
    }

    pub(super) async fn create_table(&self, table: &TableName) -> Result<TableOutcome, Fault> {
        self.post(&["tables"], &TableRequest { table: table.clone() }).await
    }

    pub(super) async fn create_experiment(
        &self,
        request: &ExperimentRequest,
    ) -> Result<ExperimentOutcome, Fault> {
        self.post(&["experiments"], request).await
    }

    pub(super) async fn enable(
        &self,
        request: EnableRequest,
        cancel: &CancellationToken,
    ) -> Result<EnableOutcome, Fault> {
        let mut enabled: EnableOutcome = self.post(&["archival", "enable"], &request).await?;
        if !request.from_now {
            let watch = Watch { cancel, progress: &|_| () };
            let id: &ExperimentId = &enabled.experiment_id;
            let look = async || Ok(self.moves(id).await?);
            enabled.moved_traces = watch_moves(look, watch).await?;
        }
        Ok(enabled)
    }

    async fn moves(&self, id: &ExperimentId) -> Result<MoveProgress, Fault> {
        self.json(self.http.get(self.call(&["archival", "moves", id.as_str()]))).await
    }

    pub(super) async fn disable(&self, request: &DisableRequest) -> Result<DisableOutcome, Fault> {
        self.post(&["archival", "disable"], request).await
    }

    pub(super) async fn check(&self, request: &CheckRequest) -> Result<Vec<CheckLine>, Fault> {
        self.post(&["check"], request).await
    }

    pub(super) async fn verify(&self, request: &VerifyTableRequest) -> Result<VerifyReport, Fault> {
        self.post(&["verify"], request).await
    }

    pub(super) async fn flush(&self) -> Result<(), Fault> {
        self.post::<serde_json::Value>(&["flush"], &serde_json::Value::Null).await.map(|_| ())
    }

    /// Who answers there.
    pub(super) async fn about(&self) -> Result<About, Fault> {
        let strange = |said: String| {
            Fault::new(
                FaultKind::TemporarilyUnavailable,
                format!("{} is no tracelake service: {said}", self.url),
            )
            .with_hint("start one with `tracelake serve`, or name its address")
        };
        match self.json::<About>(self.http.get(self.call(&["about"]))).await {
            Ok(about) if about.product == PRODUCT => Ok(about),
            Ok(about) => Err(strange(format!("it says that it is {}", printable(&about.product)))),
            Err(fault) if fault.kind == FaultKind::TemporarilyUnavailable => Err(fault),
            Err(fault) => Err(strange(fault.message)),
        }
    }

    /// The data folder of a service on this machine: files are read here, and what is imported
    /// already is noted there.
    pub(super) async fn folder(&self, limits: QueryLimits) -> Result<Folder, Fault> {
        let about = self.about().await?;
        let folder = data_folder(Path::new(&about.data_dir))?;
        let running = ServerFile::running(&folder.server_file());
        if running.is_some_and(|server| server.pid == about.pid) {
            return Ok(Folder::of_archive(folder.root().to_owned(), limits));
        }
        let message = format!(
            "the data folder of {}, `{}`, is not on this machine",
            self.url,
            printable(&about.data_dir)
        );
        Err(Fault::new(FaultKind::InvalidParameterValue, message)
            .with_hint("import the files where the service runs"))
    }

    fn call(&self, parts: &[&str]) -> Url {
        self.url.call(&[&["api", "v1"], parts].concat())
    }

    async fn post<T: DeserializeOwned>(
        &self,
        parts: &[&str],
        request: &impl Serialize,
    ) -> Result<T, Fault> {
        self.json(self.http.request(Method::POST, self.call(parts)).json(request)).await
    }

    async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Fault> {
        let answer = self.send(request).await?;
        let body = self.bounded(answer).await?;
        serde_json::from_slice(&body).map_err(|error| self.strange(&error.to_string()))
    }

    /// The rows of an Arrow stream, taken over as they come. Each column's buffers are parts of
    /// the message that they came in.
    async fn rows(&self, request: RequestBuilder) -> Result<Answer, Fault> {
        let mut answer = self.send(request).await?;
        let kind = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if kind != Some(ARROW_STREAM) {
            return Err(self.strange("no Arrow stream"));
        }
        let (mut stream, mut taken) = (ArrowStream::default(), 0_usize);
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.gone(&error))? {
            taken = taken.saturating_add(chunk.len());
            if MAX_ROWS_BYTES < taken {
                return Err(self.strange("more rows than fit into memory"));
            }
            stream.push(&chunk).map_err(|error| self.strange(&error.to_string()))?;
        }
        let whole = stream.finish();
        let (schema, batches) = whole.map_err(|error| self.strange(&error.to_string()))?;
        Ok(Answer::new(schema, batches))
    }

    /// The answer, if it is a good one.
    async fn send(&self, request: RequestBuilder) -> Result<Response, Fault> {
        let answer = request.send().await.map_err(|error| self.gone(&error))?;
        if answer.status() == StatusCode::OK {
            return Ok(answer);
        }
        let status = answer.status();
        let body = self.bounded(answer).await?;
        Err(serde_json::from_slice::<Fault>(&body).unwrap_or_else(|_| {
            let text: String = String::from_utf8_lossy(&body).chars().take(200).collect();
            self.strange(&format!("{status}: {}", printable(&text)))
        }))
    }

    async fn bounded(&self, mut answer: Response) -> Result<Vec<u8>, Fault> {
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.gone(&error))? {
            if MAX_JSON_BYTES < body.len() + chunk.len() {
                return Err(self.strange("an answer without an end"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn gone(&self, error: &reqwest::Error) -> Fault {
        let reason = if error.is_connect() {
            "nobody answers".to_owned()
        } else if error.is_timeout() {
            "it does not answer in time".to_owned()
        } else {
            let causes =
                std::iter::successors(std::error::Error::source(error), |cause| cause.source());
            causes.last().map_or_else(|| "it broke off".to_owned(), ToString::to_string)
        };
        Fault::new(FaultKind::TemporarilyUnavailable, format!("service at {}: {reason}", self.url))
            .with_hint("is it running? `tracelake serve` starts one; TRACELAKE_URI names it")
    }

    fn strange(&self, reason: &str) -> Fault {
        Fault::new(FaultKind::Internal, format!("{} answers strangely: {reason}", self.url))
            .with_hint("is it a tracelake service of this version?")
    }
}
