//! A pipeline over a real folder, started and stopped as a service does it: for tests.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Handle;
use tracelake_decode::DecodedRecord;
use tracelake_journal::{Journal, JournalFs, JournalOptions, RealFs, create_folders};
use tracelake_lake::assemble::SettleRules;
use tracelake_lake::{DataFolder, Lake};
use tracelake_model::TableName;
use tracelake_registry::Registry;

use super::{
    Identity, Pipeline, PipelineHandle, PipelineParts, Schedule, Stopper, check_carry, clock_of,
};
use crate::mutations::Broken;
use crate::open_bytes::OpenBytes;
use crate::parked::{self, PutBackError};
use crate::stores::Stores;

/// How it runs; the rest is as by default.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) default_table: TableName,
    pub(super) settle: SettleRules,
    /// The carry that the operator gave up.
    pub(super) accept_lost_carry: Option<u64>,
}

/// One that runs.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) pipeline: PipelineHandle,
    folder: DataFolder,
    journal: Arc<Journal<DecodedRecord>>,
    registry: Arc<Registry>,
    stopper: Stopper,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Service {
    pub(super) async fn start(data_dir: &Path, settings: &Settings) -> anyhow::Result<Self> {
        let folder = DataFolder::new(data_dir)?;
        create_folders(&RealFs, folder.root())?;
        let clock = clock_of(&folder);
        let registry = Registry::open_or_restore(folder.root(), Arc::clone(&clock)).await?;
        let registry = Arc::new(registry.0);
        let stores = Stores {
            folder: folder.clone(),
            registry: Arc::clone(&registry),
            lake: Lake::new()?,
            clock,
        };
        let options = JournalOptions::new(folder.journal());
        let fs: Arc<dyn JournalFs> = Arc::new(RealFs);
        let of_journal = Arc::clone(&fs);
        let opened = tokio::task::spawn_blocking(move || {
            Journal::<DecodedRecord>::open_on(of_journal, options)
        });
        let (journal, events, recovered) = opened.await??;
        stores.register_default_table(&settings.default_table).await?;
        check_carry(fs.as_ref(), &folder, &recovered, settings.accept_lost_carry)?;
        let journal = Arc::new(journal);
        let (pipeline, commands) = PipelineHandle::channel();
        let pulse = folder.pulse();
        let parts = PipelineParts {
            journal: Arc::clone(&journal),
            events,
            commands,
            stores,
            schedule: Schedule {
                settle: settings.settle,
                commit_every: Duration::from_secs(2),
                commit_bytes: 48 << 20,
                amend_every: Duration::from_secs(30),
            },
            index_limit: 4_000_000,
            identity: Identity::load(Arc::clone(&fs), &folder)?,
            fs,
            default_table: settings.default_table.clone(),
            open_bytes: Arc::new(OpenBytes::new(usize::MAX)),
            maintenance: Arc::default(),
            health: Arc::default(),
            ledger_retention: Duration::from_secs(90 * 86_400),
            broken: Broken::default(),
            pulse: Some(pulse),
        };
        let runs = Pipeline::new(Handle::current(), parts);
        let stopper = runs.stopper();
        let thread = std::thread::Builder::new()
            .name("pipeline".to_owned())
            .spawn(move || runs.run(&recovered))?;
        Ok(Self { pipeline, folder, journal, registry, stopper, thread })
    }

    /// Puts a record back that was set aside.
    pub(super) async fn put_back(&self, name: &str) -> Result<(), PutBackError> {
        parked::put_back(&RealFs, &self.folder.parked(), name, &self.journal).await
    }

    pub(super) async fn stop(self) -> anyhow::Result<()> {
        let Self { pipeline, journal, registry, stopper, thread, .. } = self;
        if !pipeline.has_ended() {
            stopper.expect_stop();
        }
        drop(journal);
        pipeline.stop();
        let ended = tokio::task::spawn_blocking(move || thread.join()).await?;
        registry.close().await;
        ended.map_err(|_| anyhow::anyhow!("the pipeline panicked"))?
    }
}
