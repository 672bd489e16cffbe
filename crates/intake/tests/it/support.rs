//! A real intake in a temporary folder, and requests for it.

use std::io::{IoSlice, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tempfile::TempDir;
use tower::ServiceExt;
use tracelake_decode::otlp::fields::{
    any_value, export_request, export_response, key_value, partial_success, resource,
    resource_spans, rpc_status, scope_spans, span,
};
use tracelake_decode::wire::Fields;
use tracelake_decode::writer::MessageWriter;
use tracelake_decode::{DecodedRecord, RecordContent, RecordHeader};
use tracelake_intake::{Intake, IntakeParts, IntakeSettings, http_router};
use tracelake_journal::{
    Journal, JournalFile, JournalFs, JournalOptions, JournalRead, ListedFile, LockOutcome, RealFs,
};
use tracelake_model::{Admission, Limits, SystemClock, TableName};
use tracelake_registry::{EarlierTraces, NewExperiment, Registry};

use crate::memory_store::{Applied, MemoryStore};

/// What differs between tests.
pub(crate) struct Setup {
    pub(crate) limits: Limits,
    pub(crate) settings: IntakeSettings,
    pub(crate) admission: Option<Arc<dyn Admission>>,
    pub(crate) budget_bytes: u64,
    pub(crate) undelivered_bytes: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            settings: IntakeSettings::new(table("tracelake.default.traces")),
            admission: None,
            budget_bytes: 1 << 30,
            undelivered_bytes: 64 << 20,
        }
    }
}

pub(crate) fn table(name: &str) -> TableName {
    name.parse().unwrap()
}

/// A journal record as the consumer sees it.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) header: RecordHeader,
    pub(crate) payload: Bytes,
    pub(crate) content: RecordContent,
}

impl Seen {
    pub(crate) fn spans(&self) -> usize {
        match &self.content {
            RecordContent::Spans(spans) => spans.spans.len(),
            RecordContent::TraceInfo(_) | RecordContent::Changes(_) | RecordContent::Words(_) => 0,
        }
    }

    pub(crate) fn routes(&self) -> Vec<(String, String)> {
        let route =
            |r: &tracelake_decode::Route| (r.experiment_id.to_string(), r.table.to_string());
        self.header.routes.iter().map(route).collect()
    }
}

pub(crate) struct Harness {
    pub(crate) intake: Arc<Intake>,
    pub(crate) router: Router,
    pub(crate) registry: Arc<Registry>,
    pub(crate) journal: Arc<Journal<DecodedRecord>>,
    pub(crate) fail_sync: Arc<AtomicBool>,
    pub(crate) disk_full: Arc<AtomicBool>,
    applied: Arc<Mutex<Applied>>,
    _folder: TempDir,
}

impl Harness {
    pub(crate) async fn new() -> Self {
        Self::with(Setup::default()).await
    }

    pub(crate) async fn with(setup: Setup) -> Self {
        let folder = TempDir::new().unwrap();
        let registry =
            Arc::new(Registry::open(folder.path(), Arc::new(SystemClock)).await.unwrap());
        let fs = FaultyFs::default();
        let (fail_sync, disk_full) = (Arc::clone(&fs.fail_sync), Arc::clone(&fs.disk_full));
        let mut options = JournalOptions::new(folder.path().join("journal"));
        options.budget_bytes = setup.budget_bytes;
        options.undelivered_bytes = setup.undelivered_bytes;
        let (journal, events, _) = Journal::open_on(Arc::new(fs), options).unwrap();
        let journal = Arc::new(journal);
        let applied = Arc::new(Mutex::new(Applied::new(events)));
        let intake = Arc::new(Intake::new(IntakeParts {
            journal: Arc::clone(&journal),
            registry: Arc::clone(&registry),
            clock: Arc::new(SystemClock),
            limits: setup.limits,
            settings: setup.settings,
            admission: setup.admission,
            traces: Arc::new(MemoryStore(Arc::clone(&applied))),
        }));
        let router = http_router(Arc::clone(&intake));
        Self { intake, router, registry, journal, fail_sync, disk_full, applied, _folder: folder }
    }

    /// Makes an experiment; ids count from 1.
    pub(crate) async fn experiment(&self, name: &str) {
        let new = NewExperiment { name: name.into(), ..NewExperiment::default() };
        self.registry.create_experiment(&new).await.unwrap();
    }

    /// Makes an experiment and binds it to a table.
    pub(crate) async fn bound(&self, name: &str, to: &str) {
        self.experiment(name).await;
        let id = self.registry.experiment_by_name(name).await.unwrap().experiment_id;
        self.registry.register_table(&table(to), &format!("file:///{to}")).await.unwrap();
        self.registry.bind(&id, &table(to), 1, EarlierTraces::Stay).await.unwrap();
    }

    /// Sends a request through the router.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        self.send(request("POST", path, headers, body)).await
    }

    /// Posts OTLP protobuf.
    pub(crate) async fn post_otlp(
        &self,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut all = vec![("content-type", "application/x-protobuf")];
        all.extend(headers);
        self.post("/v1/traces", &all, body).await
    }

    /// Posts a JSON object.
    pub(crate) async fn post_json(&self, path: &str, body: &Value) -> Answer {
        self.post(path, &[("content-type", "application/json")], body.to_string()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(request("GET", path, &[], Body::empty())).await
    }

    /// Takes what waits for the consumer, and forgets it; how many records.
    pub(crate) fn consume(&self) -> usize {
        self.applied.lock().unwrap().take_seen().len()
    }

    /// The records that became durable since the last call.
    pub(crate) fn seen(&mut self) -> Vec<Seen> {
        self.applied.lock().unwrap().take_seen()
    }

    /// Sends a JSON body, if there is one, by any method.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        match body {
            None => self.send(request(method, path, &[], Body::empty())).await,
            Some(body) => {
                let json = [("content-type", "application/json")];
                self.send(request(method, path, &json, body.to_string())).await
            }
        }
    }
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Status and MLflow's error code.
    pub(crate) fn error(&self) -> (u16, String) {
        let code = self.json()["error_code"].as_str().unwrap().to_owned();
        (self.status.as_u16(), code)
    }

    /// Status and the code of a `google.rpc.Status` in protobuf.
    pub(crate) fn rpc_error(&self) -> (u16, u64) {
        (self.status.as_u16(), field(&self.body, rpc_status::CODE).number())
    }

    pub(crate) fn retry_after(&self) -> Option<&str> {
        Some(self.headers.get("retry-after")?.to_str().unwrap())
    }
}

pub(crate) fn field(message: &[u8], wanted: u32) -> tracelake_decode::wire::WireValue<'_> {
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next_field().unwrap() {
        if number == wanted {
            return value;
        }
    }
    panic!("no field {wanted} in {message:?}")
}

/// The rejected count and message of a protobuf answer; nothing for an empty one.
pub(crate) fn partial_success(body: &[u8]) -> Option<(u64, String)> {
    if body.is_empty() {
        return None;
    }
    let partial = field(body, export_response::PARTIAL_SUCCESS).bytes();
    let message = field(partial, partial_success::ERROR_MESSAGE).bytes();
    let rejected = field(partial, partial_success::REJECTED_SPANS).number();
    Some((rejected, String::from_utf8(message.into()).unwrap()))
}

pub(crate) fn request(
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Body>,
) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.into()).unwrap()
}

/// Resource attributes, and the ids of spans: trace id length, span id byte.
pub(crate) struct Group<'a> {
    pub(crate) attributes: &'a [(&'a str, &'a str)],
    pub(crate) spans: &'a [(usize, u8)],
}

/// An `ExportTraceServiceRequest`.
pub(crate) fn otlp(groups: &[Group<'_>]) -> Bytes {
    let mut request = MessageWriter::new();
    for group in groups {
        request.message(export_request::RESOURCE_SPANS, |resource_spans| {
            resource_spans.message(resource_spans::RESOURCE, |resource| {
                for (key, value) in group.attributes {
                    resource.message(resource::ATTRIBUTES, |attribute| {
                        attribute.bytes(key_value::KEY, key.as_bytes());
                        attribute.message(key_value::VALUE, |any| {
                            any.bytes(any_value::STRING_VALUE, value.as_bytes())
                        });
                    });
                }
            });
            resource_spans.message(resource_spans::SCOPE_SPANS, |scope_spans| {
                for (trace_id_length, id) in group.spans {
                    scope_spans.message(scope_spans::SPANS, |span| {
                        span.bytes(span::TRACE_ID, &vec![7; *trace_id_length]);
                        span.bytes(span::SPAN_ID, &[*id; 8]);
                        span.bytes(span::NAME, b"work");
                        span.fixed64(span::START_TIME_UNIX_NANO, 1_700_000_000_000_000_000);
                        span.fixed64(span::END_TIME_UNIX_NANO, 1_700_000_001_000_000_000);
                    });
                }
            });
        });
    }
    request.into_bytes().into()
}

/// One good span without any resource attribute.
pub(crate) fn one_span() -> Bytes {
    otlp(&[Group { attributes: &[], spans: &[(16, 1)] }])
}

pub(crate) fn gzip(bytes: &[u8]) -> Bytes {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap().into()
}

pub(crate) fn zlib(bytes: &[u8]) -> Bytes {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap().into()
}

pub(crate) fn zstd(bytes: &[u8]) -> Bytes {
    ::zstd::encode_all(bytes, 1).unwrap().into()
}

/// The operating system's files, failing on demand.
#[derive(Debug, Default)]
struct FaultyFs {
    fail_sync: Arc<AtomicBool>,
    disk_full: Arc<AtomicBool>,
}

#[derive(Debug)]
struct FaultyFile {
    file: Box<dyn JournalFile>,
    fail_sync: Arc<AtomicBool>,
    disk_full: Arc<AtomicBool>,
}

impl JournalFile for FaultyFile {
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> std::io::Result<usize> {
        if self.disk_full.load(Ordering::SeqCst) {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.file.write_vectored(slices)
    }

    fn sync_data(&mut self) -> std::io::Result<()> {
        // Once: a device that never syncs again leaves no journal to go on with.
        if self.fail_sync.swap(false, Ordering::SeqCst) {
            return Err(std::io::Error::other("simulated"));
        }
        self.file.sync_data()
    }

    fn truncate(&mut self, len: u64) -> std::io::Result<()> {
        self.file.truncate(len)
    }
}

impl JournalFs for FaultyFs {
    fn create_dir(&self, dir: &Path) -> std::io::Result<bool> {
        RealFs.create_dir(dir)
    }

    fn lock(&self, path: &Path) -> std::io::Result<LockOutcome> {
        RealFs.lock(path)
    }

    fn create(&self, path: &Path) -> std::io::Result<Box<dyn JournalFile>> {
        Ok(Box::new(FaultyFile {
            file: RealFs.create(path)?,
            fail_sync: Arc::clone(&self.fail_sync),
            disk_full: Arc::clone(&self.disk_full),
        }))
    }

    fn reuse(&self, path: &Path) -> std::io::Result<Box<dyn JournalFile>> {
        Ok(Box::new(FaultyFile {
            file: RealFs.reuse(path)?,
            fail_sync: Arc::clone(&self.fail_sync),
            disk_full: Arc::clone(&self.disk_full),
        }))
    }

    fn open_read(&self, path: &Path) -> std::io::Result<Box<dyn JournalRead>> {
        RealFs.open_read(path)
    }

    fn len(&self, path: &Path) -> std::io::Result<u64> {
        RealFs.len(path)
    }

    fn truncate(&self, path: &Path, len: u64) -> std::io::Result<()> {
        RealFs.truncate(path, len)
    }

    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        RealFs.rename(from, to)
    }

    fn remove(&self, path: &Path) -> std::io::Result<()> {
        RealFs.remove(path)
    }

    fn list(&self, dir: &Path) -> std::io::Result<Vec<ListedFile>> {
        RealFs.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> std::io::Result<()> {
        RealFs.sync_dir(dir)
    }
}
