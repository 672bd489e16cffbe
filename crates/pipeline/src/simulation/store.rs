//! An object store in memory that refuses, forgets to answer, answers late and lies, by order; or
//! folders of the archivers' machine, as [`super::folders`] has them.
//!
//! All archivers of a schedule share its objects. Each has a [`SimulatedStore`] of its own, whose
//! faults hit that archiver alone, and which is dead once the archiver is.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tracelake_journal::SimulatedFs;
use tracelake_testkit::FakeClock;

use super::fault_kinds::{Fault, FaultCounts};
use super::folders::Folders;

/// Operations, of any archiver, after which a late PUT takes effect at the latest.
const LATE_BY: u64 = 30;

/// URL of the store's root.
///
/// # Errors
/// Never.
pub(super) fn store_root() -> std::result::Result<url::Url, url::ParseError> {
    url::Url::parse("memory:///")
}

/// The objects that all archivers share.
#[derive(Debug, Default)]
pub(super) struct Objects {
    memory: Arc<InMemory>,
    late: Mutex<Late>,
    /// Where they are files of a machine.
    folders: Option<Arc<Folders>>,
}

#[derive(Debug, Default)]
struct Late {
    operations: u64,
    puts: Vec<(u64, Path, PutPayload)>,
}

impl Objects {
    /// Files of a machine below `folder`, whose power cuts follow from `seed`.
    pub(super) fn in_folder(folder: &std::path::Path, seed: u64) -> Self {
        let memory = Arc::new(InMemory::new());
        let mounted = Path::from_absolute_path(folder).unwrap_or_default();
        let folders = Some(Arc::new(Folders::new(Arc::clone(&memory), mounted, seed)));
        Self { memory, late: Mutex::default(), folders }
    }

    /// Every object, as it is.
    pub(super) const fn memory(&self) -> &Arc<InMemory> {
        &self.memory
    }

    /// The machine's folders, where the objects are files there.
    pub(super) const fn folders(&self) -> Option<&Arc<Folders>> {
        self.folders.as_ref()
    }

    /// Counts an operation; lets take effect what is due, or everything.
    async fn let_land(&self, everything: bool) {
        let due: Vec<_> = {
            let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
            late.operations += 1;
            let now = late.operations;
            let (due, rest) = std::mem::take(&mut late.puts)
                .into_iter()
                .partition(|put| everything || put.0 <= now);
            late.puts = rest;
            due
        };
        for (_, location, payload) in due {
            // A name that is taken stays as it is.
            self.memory.put_opts(&location, payload, PutMode::Create.into()).await.ok();
        }
    }

    fn put_late(&self, after: u64, location: &Path, payload: PutPayload) {
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        let due = late.operations + after;
        late.puts.push((due, location.clone(), payload));
    }
}

/// What requests an armed fault waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    Put,
    /// A PUT of a version.
    PutVersion,
    Get,
    List,
    FolderSync,
}

impl Request {
    /// A PUT of this.
    pub(super) fn put(location: &Path) -> Self {
        let is_json = location.filename().is_some_and(|name| name.ends_with(".json"));
        let is_log = location.parts().any(|part| part.as_ref() == "_delta_log");
        if is_log && is_json { Self::PutVersion } else { Self::Put }
    }
}

#[derive(Debug, Default)]
struct State {
    /// Faults, each with the number of fitting requests until it happens, and a free choice.
    armed: Vec<(Fault, u64, u64)>,
    /// Requests that are still refused.
    throttled: u64,
    happened: FaultCounts,
}

/// One archiver's way to the objects.
#[derive(Debug)]
pub(super) struct SimulatedStore {
    objects: Arc<Objects>,
    /// Dead when its process is.
    machine: Option<SimulatedFs>,
    dead: AtomicBool,
    clock: Arc<FakeClock>,
    state: Mutex<State>,
}

impl SimulatedStore {
    /// The store as `machine` sees it; without one it never fails.
    pub(super) fn new(
        objects: Arc<Objects>,
        machine: Option<SimulatedFs>,
        clock: Arc<FakeClock>,
    ) -> Self {
        Self { objects, machine, dead: AtomicBool::new(false), clock, state: Mutex::default() }
    }

    /// Lets `fault` happen at the request after `after` more that it can befall.
    pub(super) fn arm(&self, fault: Fault, after: u64, choice: u64) {
        self.state().armed.push((fault, after, choice));
    }

    /// Takes back what is armed and has not happened.
    pub(super) fn disarm(&self) {
        let mut state = self.state();
        state.armed.clear();
        state.throttled = 0;
    }

    /// What happened here so far.
    pub(super) fn happened(&self) -> FaultCounts {
        self.state().happened
    }

    /// Lets every PUT land that is on its way.
    pub(super) async fn let_all_land(&self) {
        self.objects.let_land(true).await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_alive(&self) -> Result<()> {
        let stopped = self.machine.as_ref().is_some_and(SimulatedFs::is_crashed);
        if stopped || self.dead.load(Ordering::SeqCst) {
            self.dead.store(true, Ordering::SeqCst);
            return Err(failed("the process is dead"));
        }
        Ok(())
    }

    /// Ends the process; by a power cut or alone, as `choice` says.
    pub(super) fn die(&self, choice: u64) -> Error {
        self.dead.store(true, Ordering::SeqCst);
        if let Some(machine) = &self.machine {
            if choice.is_multiple_of(2) {
                machine.crash();
            } else {
                machine.end_process();
            }
        }
        failed("the process is dead")
    }

    /// The fault that befalls this request, if one does.
    pub(super) fn befall(&self, request: Request) -> Result<Option<(Fault, u64)>> {
        self.check_alive()?;
        let mut state = self.state();
        if 0 < state.throttled {
            state.throttled -= 1;
            return Err(failed("503 SlowDown"));
        }
        let mut due = None;
        for (index, (fault, left, choice)) in state.armed.iter_mut().enumerate() {
            if fits(*fault, request) {
                if *left == 0 && due.is_none() {
                    due = Some((index, *fault, *choice));
                }
                *left = left.saturating_sub(1);
            }
        }
        let Some((index, fault, choice)) = due else { return Ok(None) };
        state.armed.remove(index);
        state.happened.note(fault, 1);
        match fault {
            Fault::Slow => {
                drop(state);
                self.clock.advance(Duration::from_millis(100 + choice % 20_000));
                Ok(None)
            }
            Fault::Throttled => {
                state.throttled = choice % 12;
                Err(failed("503 SlowDown"))
            }
            Fault::GetError | Fault::ListError | Fault::PutRefused | Fault::TableSyncError => {
                Err(failed("503 ServiceUnavailable"))
            }
            Fault::PutConflict => Err(failed("409 ConditionalRequestConflict")),
            other => Ok(Some((other, choice))),
        }
    }

    async fn put_under(
        &self,
        fault: (Fault, u64),
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let (fault, choice) = fault;
        let taken = || Error::AlreadyExists {
            path: location.to_string(),
            source: "412 PreconditionFailed".into(),
        };
        match fault {
            Fault::PutMisreported => Err(taken()),
            Fault::PutLate => {
                self.objects.put_late(1 + choice % LATE_BY, location, payload);
                Err(failed("connection reset"))
            }
            Fault::KillAtPut if choice % 2 == 0 => Err(self.die(choice / 2)),
            _ => {
                let put = self.objects.memory.put_opts(location, payload, opts).await;
                match fault {
                    Fault::KillAtPut | Fault::KillAtVersion => Err(self.die(choice / 2)),
                    Fault::AnswerLost => Err(failed("500 InternalError")),
                    Fault::PutMetItself => Err(taken()),
                    _ => put,
                }
            }
        }
    }
}

fn fits(fault: Fault, request: Request) -> bool {
    match fault {
        Fault::Slow | Fault::Throttled => true,
        Fault::GetError => request == Request::Get,
        Fault::ListError => request == Request::List,
        Fault::TableSyncError => request == Request::FolderSync,
        Fault::KillAtVersion | Fault::VersionSyncError => request == Request::PutVersion,
        _ => matches!(request, Request::Put | Request::PutVersion),
    }
}

pub(super) fn failed(what: &'static str) -> Error {
    Error::Generic { store: "simulated", source: what.into() }
}

impl fmt::Display for SimulatedStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("simulated store")
    }
}

#[async_trait]
impl ObjectStore for SimulatedStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let fault = self.befall(Request::put(location))?;
        if let Some(folders) = self.objects.folders() {
            // So the kernel writes: renamed over what was there, nothing of it synced.
            folders.note_unsynced_put(location);
            return self.objects.memory.put_opts(location, payload, opts).await;
        }
        self.objects.let_land(false).await;
        match fault {
            None => self.objects.memory.put_opts(location, payload, opts).await,
            Some(fault) => self.put_under(fault, location, payload, opts).await,
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.befall(Request::Put)?;
        self.objects.memory.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.befall(Request::Get)?;
        self.objects.let_land(false).await;
        self.objects.memory.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.befall(Request::Get)?;
        self.objects.memory.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.objects.memory.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.befall(Request::List) {
            Ok(_) => self.objects.memory.list(prefix),
            Err(error) => futures::stream::once(async { Err(error) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.befall(Request::List)?;
        self.objects.memory.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.befall(Request::Put)?;
        self.objects.memory.copy_opts(from, to, options).await
    }
}
