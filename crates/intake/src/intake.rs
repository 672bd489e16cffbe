//! From a request's bytes to the journal: decode, route, append.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex, MutexGuard, OwnedMutexGuard, Semaphore};
use tracelake_decode::content_encoding::decompress;
use tracelake_decode::mlflow_json::{StartTrace, read_start_trace};
use tracelake_decode::{
    ContentEncoding, DecodeError, DecodedRecord, DecodedSpans, RecordContent, RecordHeader,
    RecordKind, Route, changes_body, decode_record,
};
use tracelake_journal::{Journal, RecordBytes};
use tracelake_model::{
    Admission, Clock, ExperimentId, Limits, Overload, TableName, TraceChanges, TraceId,
};
use tracelake_registry::{ExperimentRoute, LifecycleStage, Registry};

use crate::error::IntakeError;
use crate::plan::{Destinations, PlannedRecord, named_experiments, plan_records};
use crate::receive::admission::InFlightBytes;
use crate::trace_store::{TraceLocks, TraceStore};

/// Bodies up to this size are decoded where they arrive; that takes less than handing them over.
const INLINE_DECODE_BYTES: usize = 64 << 10;
/// Compressed ones may grow a thousandfold.
const INLINE_COMPRESSED_BYTES: usize = 4 << 10;
/// Large bodies decoded at once: bounds the memory that decompression takes.
const MAX_LARGE_DECODES: usize = 4;
/// Experiments that one request may name.
const MAX_NAMED_EXPERIMENTS: usize = 1_000;
/// Reasons for refused spans that an answer lists.
const MAX_LISTED_REASONS: usize = 3;
const MAX_MESSAGE_CHARS: usize = 1_000;
/// How long a request waits for room at the door, and again for room in the journal's queue, before it is refused:
/// together less than what senders wait for an answer (10 s in OpenTelemetry's exporters).
const ADMISSION_PATIENCE: Duration = Duration::from_secs(4);
/// How often it looks.
const ADMISSION_PAUSE: Duration = Duration::from_millis(5);

/// Where spans go that nothing says anything about, and how much is let in.
#[derive(Clone, Debug)]
pub struct IntakeSettings {
    /// Experiment of spans that name none.
    pub default_experiment: ExperimentId,
    /// Table of experiments without a binding.
    pub default_table: TableName,
    /// Experiment by `service.name`, for spans that name none. One that does not exist or is
    /// deleted counts as not listed.
    pub services: BTreeMap<String, ExperimentId>,
    /// Bytes of all requests in work. Past it: HTTP 429, gRPC `RESOURCE_EXHAUSTED`.
    pub max_in_flight_bytes: u64,
    /// What a client is told to wait when too much is in work.
    pub retry_after: Duration,
}

impl IntakeSettings {
    /// 192 MiB in work, 1 s to wait, experiment 0, no services.
    #[must_use]
    pub fn new(default_table: TableName) -> Self {
        Self {
            default_experiment: ExperimentId::default_experiment(),
            default_table,
            services: BTreeMap::new(),
            max_in_flight_bytes: 192 << 20,
            retry_after: Duration::from_secs(1),
        }
    }
}

/// What an [`Intake`] is made of.
#[derive(Debug)]
pub struct IntakeParts {
    /// Where requests become durable.
    pub journal: Arc<Journal<DecodedRecord>>,
    /// Which experiments exist and where they go.
    pub registry: Arc<Registry>,
    /// Time of arrival.
    pub clock: Arc<dyn Clock>,
    /// Size limits.
    pub limits: Limits,
    /// Defaults.
    pub settings: IntakeSettings,
    /// Asked for every request beside the journal's own limits.
    pub admission: Option<Arc<dyn Admission>>,
    /// The traces that clients read and change.
    pub traces: Arc<dyn TraceStore>,
}

/// Takes requests in. Shared by all ways in.
#[derive(Debug)]
pub struct Intake {
    parts: IntakeParts,
    in_flight: Arc<InFlightBytes>,
    large_decodes: Arc<Semaphore>,
    trace_locks: TraceLocks,
    /// Held while records are put into the journal's queue.
    turns: Mutex<()>,
}

/// A request, read but not decoded.
#[derive(Clone, Debug)]
pub struct Submission {
    /// How to read the payload.
    pub kind: RecordKind,
    /// Compression of the payload.
    pub encoding: ContentEncoding,
    /// Experiment that header or path name; it then holds for all spans.
    pub experiment: Option<ExperimentId>,
    /// MLflow run that the request names.
    pub run_id: Option<String>,
    /// The trace, where the payload does not say.
    pub trace_id: Option<TraceId>,
    /// The body as received.
    pub payload: Bytes,
}

/// A request that is durable, or had nothing to keep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Spans kept.
    pub accepted_spans: usize,
    /// Spans refused.
    pub rejected_spans: usize,
    /// Why, naming the first ones; empty when nothing was refused or left out.
    pub message: String,
}

/// A `start_trace` that is durable.
#[derive(Clone, Debug)]
pub struct StartedTrace {
    /// What the client said.
    pub start: StartTrace,
    /// Experiment that the trace belongs to.
    pub experiment_id: ExperimentId,
    /// URI below which the experiment's artifacts lie.
    pub artifact_location: String,
}

impl Intake {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: IntakeParts) -> Self {
        let in_flight = InFlightBytes::new(parts.settings.max_in_flight_bytes);
        Self {
            parts,
            in_flight,
            large_decodes: Arc::new(Semaphore::new(MAX_LARGE_DECODES)),
            trace_locks: TraceLocks::new(),
            turns: Mutex::new(()),
        }
    }

    /// Which experiments exist and where they go.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.parts.registry
    }

    /// The traces that clients read and change.
    #[must_use]
    pub fn traces(&self) -> &dyn TraceStore {
        self.parts.traces.as_ref()
    }

    /// Time of arrival.
    #[must_use]
    pub fn clock(&self) -> &dyn Clock {
        self.parts.clock.as_ref()
    }

    /// Size limits.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.parts.limits
    }

    /// Defaults.
    #[must_use]
    pub const fn settings(&self) -> &IntakeSettings {
        &self.parts.settings
    }

    /// Bytes of the requests in work.
    #[must_use]
    pub const fn in_flight(&self) -> &Arc<InFlightBytes> {
        &self.in_flight
    }

    /// Whether a request of `bytes` (0 when unknown) may come in now.
    ///
    /// # Errors
    /// [`IntakeError::Overloaded`] when the journal is over its budget or a gauge says so.
    pub fn admit(&self, bytes: u64) -> Result<(), IntakeError> {
        let admitted = self.parts.admission.as_ref().map_or(Ok(()), |gauge| gauge.admit(bytes));
        if let Err(Overload { retry_after }) = admitted {
            return Err(IntakeError::Overloaded { retry_after });
        }
        if !self.parts.journal.has_capacity(bytes) {
            return Err(IntakeError::Overloaded { retry_after: self.parts.settings.retry_after });
        }
        Ok(())
    }

    /// As [`Self::admit`], but waits a moment when there is no room: while a commit is under way there is
    /// more to come than goes, and a client that is told to wait waits a second at least.
    ///
    /// # Errors
    /// As [`Self::admit`].
    pub async fn admit_soon(&self, bytes: u64) -> Result<(), IntakeError> {
        let until = tokio::time::Instant::now() + ADMISSION_PATIENCE;
        loop {
            match self.admit(bytes) {
                Err(_) if tokio::time::Instant::now() < until => {
                    tokio::time::sleep(ADMISSION_PAUSE).await;
                }
                admitted => return admitted,
            }
        }
    }

    /// Makes a request with spans durable. A request without any good span is not kept.
    ///
    /// Not cancel safe in the sense of undoing: dropped after the append began, the request may
    /// be kept without an answer, as with a connection that breaks.
    ///
    /// # Errors
    /// [`IntakeError`]; nothing is acknowledged then.
    pub async fn submit(&self, submission: Submission) -> Result<Accepted, IntakeError> {
        let fixed = match &submission.experiment {
            Some(id) => Some(self.route_of(id).await?.0),
            None => None,
        };
        let header = self.header(&submission, fixed.iter().cloned().collect());
        let payload = submission.payload;
        let Some(DecodedRecord { header, content }) = self.decode(header, &payload).await? else {
            return Ok(Accepted::default());
        };
        let RecordContent::Spans(spans) = content else { return Err(IntakeError::BrokenOff) };
        let accepted = describe(&spans);
        if spans.spans.is_empty() {
            return Ok(accepted);
        }
        let records = if fixed.is_some() {
            let record = DecodedRecord { header, content: RecordContent::Spans(spans) };
            vec![PlannedRecord { record, payload }]
        } else {
            let destinations = self.destinations(&spans).await?;
            plan_records(header, payload, spans, &destinations)
        };
        self.append(records).await?;
        Ok(accepted)
    }

    /// Makes a `start_trace` request durable. Its experiment is in its body; without one it goes
    /// to the default experiment.
    ///
    /// # Errors
    /// [`IntakeError`]; nothing is acknowledged then.
    pub async fn submit_start_trace(
        &self,
        encoding: ContentEncoding,
        payload: Bytes,
    ) -> Result<StartedTrace, IntakeError> {
        let limit = self.parts.limits.max_decompressed_bytes;
        let body = payload.clone();
        let start = self
            .run(is_large(encoding, &payload), move || {
                read_start_trace(&decompress(encoding, &body, limit)?)
            })
            .await??;
        if let Some(limit) = start.info.excess() {
            return Err(IntakeError::TooMuchSaid { limit });
        }
        let experiment_id = start
            .experiment_id
            .clone()
            .unwrap_or_else(|| self.parts.settings.default_experiment.clone());
        let (route, known) = self.route_of(&experiment_id).await?;
        let submission = Submission {
            kind: RecordKind::MlflowStartTrace,
            encoding,
            experiment: None,
            run_id: None,
            trace_id: None,
            payload: Bytes::new(),
        };
        let header = self.header(&submission, vec![route]);
        let content = RecordContent::TraceInfo(Box::new(start.info.clone()));
        let record = DecodedRecord { header, content };
        self.append(vec![PlannedRecord { record, payload }]).await?;
        Ok(StartedTrace { start, experiment_id, artifact_location: known.artifact_location })
    }

    /// Keeps others from changing `traces` until the guards are dropped: for calls that read a
    /// trace and then change it.
    pub(crate) async fn lock_traces(&self, traces: &[TraceId]) -> Vec<OwnedMutexGuard<()>> {
        self.trace_locks.lock(traces).await
    }

    /// Makes changes to traces durable, each for the table of its trace. They take effect in the
    /// order of these calls.
    ///
    /// # Errors
    /// [`IntakeError`]; nothing is acknowledged then.
    pub async fn submit_changes(
        &self,
        changes: Vec<(Route, TraceChanges)>,
    ) -> Result<(), IntakeError> {
        let mut by_route: Vec<(Route, Vec<TraceChanges>)> = Vec::new();
        for (route, change) in changes {
            match by_route.iter_mut().find(|(known, _)| *known == route) {
                Some((_, list)) => list.push(change),
                None => by_route.push((route, vec![change])),
            }
        }
        let records = by_route
            .into_iter()
            .map(|(route, changes)| {
                let submission = Submission {
                    kind: RecordKind::TraceChanges,
                    encoding: ContentEncoding::Identity,
                    experiment: None,
                    run_id: None,
                    trace_id: None,
                    payload: changes_body(&changes).into(),
                };
                let header = self.header(&submission, vec![route]);
                let content = RecordContent::Changes(changes);
                PlannedRecord {
                    record: DecodedRecord { header, content },
                    payload: submission.payload,
                }
            })
            .collect();
        self.append(records).await
    }

    fn header(&self, submission: &Submission, routes: Vec<Route>) -> RecordHeader {
        RecordHeader {
            kind: submission.kind,
            encoding: submission.encoding,
            received_at_unix_nano: self.parts.clock.now_unix_nano(),
            routes,
            run_id: submission.run_id.clone(),
            trace_id: submission.trace_id.map(TraceId::to_mlflow),
            limits: self.parts.limits,
            source: None,
        }
    }

    /// Decodes, `None` for a request that carries nothing at all: OTLP says to answer it with
    /// success. One that carries something else than spans is an error, or it would be lost
    /// without a word.
    async fn decode(
        &self,
        header: RecordHeader,
        payload: &Bytes,
    ) -> Result<Option<DecodedRecord>, IntakeError> {
        let encoding = header.encoding;
        let body = payload.clone();
        let decoded = self
            .run(is_large(header.encoding, payload), move || decode_record(header, &body))
            .await?;
        match decoded {
            Ok(record) => Ok(Some(record)),
            Err(DecodeError::Empty) if is_blank(encoding, payload) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Runs `work` here, or on a thread of its own when it may take long.
    async fn run<T: Send + 'static>(
        &self,
        large: bool,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, IntakeError> {
        if !large {
            return Ok(work());
        }
        let permit = Arc::clone(&self.large_decodes)
            .acquire_owned()
            .await
            .map_err(|_| IntakeError::BrokenOff)?;
        tokio::task::spawn_blocking(move || {
            let result = work();
            drop(permit);
            result
        })
        .await
        .map_err(|_| IntakeError::BrokenOff)
    }

    /// The route of an experiment that a client named, which must be there and active.
    async fn route_of(&self, id: &ExperimentId) -> Result<(Route, ExperimentRoute), IntakeError> {
        match self.parts.registry.experiment_route(id).await? {
            None => Err(IntakeError::UnknownExperiment { id: id.clone() }),
            Some(known) if known.stage == LifecycleStage::Deleted => {
                Err(IntakeError::DeletedExperiment { id: id.clone() })
            }
            Some(known) => Ok((self.route(id, known.table.clone()), known)),
        }
    }

    fn route(&self, id: &ExperimentId, bound: Option<TableName>) -> Route {
        let table = bound.unwrap_or_else(|| self.parts.settings.default_table.clone());
        Route { experiment_id: id.clone(), table }
    }

    /// Looks up the experiments that `spans` name. Those that are not there or deleted are left
    /// out: their spans go to the default experiment.
    async fn destinations(&self, spans: &DecodedSpans) -> Result<Destinations<'_>, IntakeError> {
        let settings = &self.parts.settings;
        let named = named_experiments(&spans.spans, &settings.services);
        if MAX_NAMED_EXPERIMENTS < named.len() {
            return Err(IntakeError::TooManyExperiments { limit: MAX_NAMED_EXPERIMENTS });
        }
        let mut known = HashMap::with_capacity(named.len());
        for id in named {
            if let Some(found) = self.parts.registry.experiment_route(&id).await?
                && found.stage == LifecycleStage::Active
            {
                let route = self.route(&id, found.table);
                known.insert(id, route);
            }
        }
        let id = &settings.default_experiment;
        let default = self.route(id, self.parts.registry.route(id).await?);
        Ok(Destinations { default, known, services: &settings.services })
    }

    async fn append(&self, records: Vec<PlannedRecord>) -> Result<(), IntakeError> {
        let mut bytes = 0;
        let appends = records.into_iter().map(|PlannedRecord { record, payload }| {
            let parts = RecordBytes { header: record.header.to_bytes(), payload };
            bytes += parts.stored_len();
            self.parts.journal.append(parts, record)
        });
        let mut appends = std::pin::pin!(futures::future::try_join_all(appends));
        let turn = self.room_in_queue(bytes).await;
        // Puts the records into the queue; they wait for the disk outside of their turn.
        let done = futures::poll!(&mut appends);
        drop(turn);
        match done {
            Poll::Ready(done) => done?,
            Poll::Pending => appends.await?,
        };
        Ok(())
    }

    /// Waits for the turn of a request whose records take `bytes`, and for room in the journal's queue: requests
    /// go in as they came. Without room in time the journal refuses them.
    async fn room_in_queue(&self, bytes: u64) -> Option<MutexGuard<'_, ()>> {
        let wait = async {
            let turn = self.turns.lock().await;
            while !self.parts.journal.has_room_in_queue(bytes) {
                tokio::time::sleep(ADMISSION_PAUSE).await;
            }
            turn
        };
        tokio::time::timeout(ADMISSION_PATIENCE, wait).await.ok()
    }
}

const fn is_large(encoding: ContentEncoding, payload: &Bytes) -> bool {
    let limit = match encoding {
        ContentEncoding::Identity => INLINE_DECODE_BYTES,
        ContentEncoding::Gzip | ContentEncoding::Deflate | ContentEncoding::Zstd => {
            INLINE_COMPRESSED_BYTES
        }
    };
    limit < payload.len()
}

/// True for an empty message, in protobuf or in one of the JSON forms.
fn is_blank(encoding: ContentEncoding, payload: &Bytes) -> bool {
    const BLANK: [&[u8]; 4] = [b"", b"{}", b"{\"resourceSpans\":[]}", b"{\"spans\":[]}"];
    decompress(encoding, payload, 64).is_ok_and(|body| {
        let bare: Vec<u8> = body.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
        BLANK.contains(&bare.as_slice())
    })
}

fn describe(spans: &DecodedSpans) -> Accepted {
    let rejected_spans = spans.rejected_spans();
    let mut message = String::new();
    if !spans.rejects.is_empty() {
        message = format!("{rejected_spans} spans rejected");
        for (place, reject) in spans.rejects.iter().take(MAX_LISTED_REASONS).enumerate() {
            message.push_str(if place == 0 { ": " } else { "; " });
            message.push_str(&reject.reason);
        }
        if MAX_LISTED_REASONS < spans.rejects.len() {
            message.push_str("; and others");
        }
    }
    if let Some((cut, _)) = message.char_indices().nth(MAX_MESSAGE_CHARS) {
        message.truncate(cut);
    }
    Accepted { accepted_spans: spans.spans.len(), rejected_spans, message }
}
