//! A Delta table of traces: opened through the Delta kernel, created or accepted by us.

mod changes;
mod create;
mod epochs;
mod facts;
mod files;
mod fingerprints;
mod index;
mod protocol;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use delta_kernel::Snapshot;
use delta_kernel::engine::arrow_conversion::TryIntoArrow as _;
use delta_kernel::snapshot::SnapshotRef;
use delta_kernel_default_engine::executor::tokio::TokioMultiThreadExecutor;
use delta_kernel_default_engine::{DefaultEngine, DefaultEngineBuilder};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use tokio::runtime::{Handle, Runtime};
use url::Url;

pub use changes::{ChangedVersion, FeedReach, RowChange};
pub use create::create_or_accept;
pub use epochs::EpochMark;
pub use facts::TableFeatures;
pub use files::{DeletionVector, LiveFile};
pub(crate) use index::{RowAddress, TraceIndex};

use crate::error::LakeError;
use crate::layout::TableLocation;
use crate::log::{CHECKPOINT_INTERVAL, DurableLogs, PassOver};
use crate::storage::{LocalFiles, ObjectFiles, TableFiles};

/// What all tables of a process share: the Delta kernel's engine and the store below it.
#[derive(Clone)]
pub struct Lake {
    engine: Arc<DefaultEngine<TokioMultiThreadExecutor>>,
    executor: Arc<TokioMultiThreadExecutor>,
    /// Passes over what is known to be damaged.
    store: Arc<PassOver>,
    /// What of the tables' logs is known to be durable.
    pub(crate) durable: Arc<DurableLogs>,
    /// URL of the store's root; none for folders.
    root: Option<Url>,
    #[cfg(debug_assertions)]
    around_files: Option<AroundFiles>,
    #[cfg(debug_assertions)]
    checkpoint_every: Option<u64>,
    _threads: Option<Arc<Threads>>,
}

/// Puts something around the files of the table at a URL, or others in their place.
#[cfg(debug_assertions)]
pub type AroundFiles = Arc<dyn Fn(&Url, Arc<dyn TableFiles>) -> Arc<dyn TableFiles> + Send + Sync>;

/// The property by which transaction ids expire.
const TRANSACTION_RETENTION: &str = "delta.setTransactionRetentionDuration";

/// Files that are read at once in a local folder: a read is a thread's work, and without a bound each of a
/// hundred log files would start one of its own. None of them waits for another.
const FILE_THREADS: usize = 8;

/// The kernel's threads. They end by themselves, so that a lake may be dropped anywhere, also
/// where blocking is not allowed.
struct Threads(Option<Runtime>);

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Lake {
    /// An engine with threads of its own, so that it can be called from anywhere but a single-threaded
    /// runtime.
    ///
    /// # Errors
    /// [`LakeError::Storage`] when threads cannot be started.
    pub fn new() -> Result<Self, LakeError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(FILE_THREADS)
            .thread_name("lake")
            .enable_all()
            .build()
            .map_err(|source| LakeError::Storage {
                action: "start threads of",
                path: "the Delta kernel".to_owned(),
                source,
            })?;
        let store = Arc::new(LocalFileSystem::new());
        let lake = Self::build(store, None, runtime.handle());
        Ok(Self { _threads: Some(Arc::new(Threads(Some(runtime)))), ..lake })
    }

    /// Tables in an object store whose root has the URL `root`, such as `s3://bucket/`, each below
    /// the path that its folder would have. Runs on the threads of `runtime`, a multi-threaded one.
    #[must_use]
    pub fn over(store: Arc<dyn ObjectStore>, root: Url, runtime: &Handle) -> Self {
        Self::build(store, Some(root), runtime)
    }

    fn build(store: Arc<dyn ObjectStore>, root: Option<Url>, runtime: &Handle) -> Self {
        let executor = Arc::new(TokioMultiThreadExecutor::new(runtime.clone()));
        let store = Arc::new(PassOver::new(store));
        let engine = DefaultEngineBuilder::new(Arc::clone(&store) as Arc<dyn ObjectStore>)
            .with_task_executor(Arc::clone(&executor))
            .build();
        Self {
            engine: Arc::new(engine),
            executor,
            store,
            durable: Arc::default(),
            root,
            #[cfg(debug_assertions)]
            around_files: None,
            #[cfg(debug_assertions)]
            checkpoint_every: None,
            _threads: None,
        }
    }

    /// The same tables with something around their files, such as the failpoints of the crash
    /// harness. Not in release builds.
    #[cfg(debug_assertions)]
    #[must_use]
    pub fn with_files(self, around: AroundFiles) -> Self {
        Self { around_files: Some(around), ..self }
    }

    /// The same tables with a checkpoint after so many versions, for harnesses whose tables have few. Not
    /// in release builds.
    #[cfg(debug_assertions)]
    #[must_use]
    pub fn with_checkpoint_every(self, versions: u64) -> Self {
        Self { checkpoint_every: Some(versions), ..self }
    }

    /// Versions between checkpoints of tables that do not say.
    pub(crate) fn checkpoint_every(&self) -> u64 {
        #[cfg(debug_assertions)]
        if let Some(versions) = self.checkpoint_every {
            return versions.max(1);
        }
        CHECKPOINT_INTERVAL
    }

    /// Where a table is, and its files; `None` for a relative folder.
    fn place(&self, location: &TableLocation) -> Option<(Url, Arc<dyn TableFiles>)> {
        let mut url = location.url()?;
        let files: Arc<dyn TableFiles> = if let Some(store_root) = &self.root {
            let folder = url;
            url = store_root.clone();
            url.set_path(folder.path());
            let root = ObjectPath::from_url_path(url.path()).ok()?;
            let (store, executor) = (self.store.whole(), Arc::clone(&self.executor));
            Arc::new(ObjectFiles::new(store, executor, root))
        } else {
            Arc::new(LocalFiles::new(location.clone()))
        };
        #[cfg(debug_assertions)]
        let files = match &self.around_files {
            Some(around) => around(&url, files),
            None => files,
        };
        Some((url, files))
    }
}

impl std::fmt::Debug for Lake {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Lake").field("store", &self.store).finish_non_exhaustive()
    }
}

/// A handle on a table. Cheap to clone; holds no snapshot.
#[derive(Clone, Debug)]
pub struct Table {
    location: TableLocation,
    url: Url,
    lake: Lake,
    pub(crate) files: Arc<dyn TableFiles>,
}

impl Table {
    /// A handle on the table at `location`, whether it exists or not.
    ///
    /// # Errors
    /// [`LakeError::Storage`] when the location is no absolute path.
    pub fn at(lake: &Lake, location: TableLocation) -> Result<Self, LakeError> {
        let relative = || LakeError::Storage {
            action: "open",
            path: location.folder().display().to_string(),
            source: std::io::ErrorKind::InvalidInput.into(),
        };
        let (url, files) = lake.place(&location).ok_or_else(relative)?;
        Ok(Self { location, url, lake: lake.clone(), files })
    }

    /// Where the table lies.
    #[must_use]
    pub const fn location(&self) -> &TableLocation {
        &self.location
    }

    /// The table's folder as a URL.
    #[must_use]
    pub const fn url(&self) -> &Url {
        &self.url
    }

    /// The store that the table's files are read from.
    #[must_use]
    pub fn object_store(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.lake.store) as Arc<dyn ObjectStore>
    }

    /// The store that the kernel reads the table's files from.
    pub(crate) fn pass_over(&self) -> &PassOver {
        &self.lake.store
    }

    /// The table's folder in that store.
    pub(crate) fn store_path(&self) -> Option<ObjectPath> {
        ObjectPath::from_url_path(self.url.path()).ok()
    }

    pub(crate) const fn lake(&self) -> &Lake {
        &self.lake
    }

    /// What of the logs of this process's tables is known to be durable.
    pub(crate) fn durable_logs(&self) -> &DurableLogs {
        &self.lake.durable
    }

    /// True when there is a version.
    ///
    /// # Errors
    /// [`LakeError::Storage`] when the folder cannot be looked at, [`LakeError::NotMounted`] when
    /// the share that it is on is not there.
    pub fn exists(&self) -> Result<bool, LakeError> {
        self.files.has_log()
    }

    /// The newest version, for questions; reads only the log's end when `known` is given. What it shows
    /// may be gone after a power cut: writers take [`Self::durable_snapshot`]. A checkpoint that
    /// cannot be read is passed over where the log before it is there.
    ///
    /// # Errors
    /// [`LakeError::Kernel`] when there is no readable log, [`LakeError::DamagedCheckpoint`] when that
    /// is why.
    pub fn snapshot(&self, known: Option<&TableSnapshot>) -> Result<TableSnapshot, LakeError> {
        self.passing_over(|| {
            let snapshot = match known {
                Some(known) => {
                    Snapshot::builder_from(Arc::clone(&known.snapshot)).build(self.engine())
                }
                None => Snapshot::builder_for(self.url.as_str()).build(self.engine()),
            }
            .map_err(|source| self.kernel("read snapshot", source))?;
            Ok(TableSnapshot { table: self.clone(), snapshot })
        })
    }

    /// The table as it was at `version`.
    ///
    /// # Errors
    /// As [`Self::snapshot`], also when there is no such version, or no longer.
    pub fn snapshot_at(&self, version: u64) -> Result<TableSnapshot, LakeError> {
        self.passing_over(|| {
            let snapshot = Snapshot::builder_for(self.url.as_str())
                .at_version(version)
                .build(self.engine())
                .map_err(|source| self.kernel("read snapshot", source))?;
            Ok(TableSnapshot { table: self.clone(), snapshot })
        })
    }

    pub(crate) fn engine(&self) -> &DefaultEngine<TokioMultiThreadExecutor> {
        &self.lake.engine
    }

    pub(crate) fn name(&self) -> String {
        self.location.folder().display().to_string()
    }

    pub(crate) fn kernel(
        &self,
        action: &'static str,
        source: delta_kernel::KernelError,
    ) -> LakeError {
        match self.location.check() {
            Err(away) => away,
            Ok(()) => LakeError::Kernel { action, table: self.name(), source: Box::new(source) },
        }
    }
}

/// A table at one version: immutable.
#[derive(Clone, Debug)]
pub struct TableSnapshot {
    table: Table,
    pub(crate) snapshot: SnapshotRef,
}

impl TableSnapshot {
    /// The table.
    #[must_use]
    pub const fn table(&self) -> &Table {
        &self.table
    }

    /// Commit number.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.snapshot.version()
    }

    /// The table's columns as Arrow has them.
    ///
    /// # Errors
    /// [`LakeError::Arrow`] for a type that Arrow does not have.
    pub fn schema(&self) -> Result<SchemaRef, LakeError> {
        let schema: arrow::datatypes::Schema = self
            .snapshot
            .schema()
            .as_ref()
            .try_into_arrow()
            .map_err(|source| LakeError::Arrow { action: "convert schema", source })?;
        Ok(Arc::new(schema))
    }

    /// The table's columns, and behind them at each level those that it would have if tracelake
    /// wrote to it: they read as null.
    ///
    /// # Errors
    /// [`LakeError::SchemaMismatch`] when it cannot hold traces.
    pub fn schema_of_traces(&self) -> Result<SchemaRef, LakeError> {
        let ours = tracelake_model::schema::traces_schema();
        create::merge_schema(self.schema()?.as_ref(), &ours, &self.table().name())
    }

    /// The table's comment.
    #[must_use]
    pub fn comment(&self) -> Option<String> {
        self.snapshot.table_configuration().metadata().description().map(str::to_owned)
    }

    /// The table's properties, such as `delta.enableChangeDataFeed`.
    #[must_use]
    pub fn properties(&self) -> BTreeMap<String, String> {
        let metadata = self.snapshot.table_configuration().metadata();
        metadata.configuration().iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// The last epoch that `application` committed, if it ever did.
    ///
    /// An operator may let transaction ids expire (`delta.setTransactionRetentionDuration`): then what
    /// readers of the log are not told any more is looked up in the commits that are still there. One
    /// whose commit is gone as well is not known, and answered as none: whoever hands its traces over
    /// again finds them by their content.
    ///
    /// # Errors
    /// [`LakeError::Kernel`] when the log cannot be read.
    pub fn committed_epoch(&self, application: &str) -> Result<Option<i64>, LakeError> {
        let known = self
            .snapshot
            .get_app_id_version(application, self.table.engine())
            .map_err(|source| self.table.kernel("read transaction id", source))?;
        if known.is_some() || self.property(TRANSACTION_RETENTION).is_none() {
            return Ok(known);
        }
        crate::log::epoch_in_commits(self, application)
    }

    /// Whether the table takes new rows alone, as another engine may ask of all writers.
    #[must_use]
    pub fn is_append_only(&self) -> bool {
        self.property("delta.appendOnly").is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// A property of the table.
    pub(crate) fn property(&self, key: &str) -> Option<&str> {
        let metadata = self.snapshot.table_configuration().metadata();
        metadata.configuration().get(key).map(String::as_str)
    }
}
