//! A running service: journal, intake and pipeline put together.

pub(crate) mod trace_store;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::Context as _;
use tracelake_decode::DecodedRecord;
use tracelake_intake::{Intake, IntakeParts, IntakeSettings};
use tracelake_journal::{Journal, JournalError, JournalOptions};
use tracelake_lake::DataFolder;
use tracelake_model::{Admission, Limits};
use tracelake_pipeline::maintenance::{
    Ground, MaintenanceParts, MaintenanceState, MaintenanceThread,
};
use tracelake_pipeline::{
    Health, Identity, OpenBytes, Pipeline, PipelineHandle, PipelineParts, Schedule, Stopper,
    check_carry, journal_device, ledger, table_device,
};
use tracelake_registry::Registry;
use tracing::error;

use crate::fault::{Fault, FaultKind};
use crate::folder::Archive;
use crate::settings::Settings;
use crate::tasks;
use trace_store::ServiceTraces;

/// Bytes beyond the body that a journal record may need.
const RECORD_OVERHEAD_BYTES: u64 = 1 << 20;

/// A service that ended without being asked to. Start it again.
#[derive(Debug, thiserror::Error)]
#[error("the service ended by itself; what was acknowledged is in the journal: {reason}")]
pub struct EndedByItself {
    /// What its pipeline said.
    pub reason: String,
}

/// The parts of a service that run without a network.
#[derive(Debug)]
pub struct Service {
    /// The data folder that it has.
    pub archive: Archive,
    /// Where requests come in.
    pub intake: Arc<Intake>,
    /// What takes them into the tables.
    pub pipeline: PipelineHandle,
    /// Where they are durable.
    pub journal: Arc<Journal<DecodedRecord>>,
    /// What is wrong.
    pub health: Arc<Health>,
    stopping: Stopping,
    thread: JoinHandle<anyhow::Result<()>>,
    maintenance: Option<MaintenanceThread>,
    backups: tokio::task::JoinHandle<()>,
}
/// Tells the pipeline that whatever ends it from now on says nothing of what it is at: at the latest when the
/// service is dropped, as the runtime may be that it waits on.
#[derive(Debug)]
struct Stopping {
    pipeline: PipelineHandle,
    stopper: Stopper,
}

impl Stopping {
    fn expect_stop(&self) {
        // One that has ended by itself may have died of what it was at.
        if !self.pipeline.has_ended() {
            self.stopper.expect_stop();
        }
    }
}

impl Drop for Stopping {
    fn drop(&mut self) {
        self.expect_stop();
    }
}

impl Service {
    /// Takes the data folder and starts the pipeline; requests may come in when this returns,
    /// the replay of an earlier process's journal goes on behind.
    ///
    /// # Errors
    /// [`FaultKind::Conflict`] when another process has the folder; when a file in it cannot be read.
    pub async fn start(data_dir: &Path, settings: &Settings) -> anyhow::Result<Self> {
        let archive = Archive::open_with_tables(data_dir, settings.tables_dir.as_deref()).await?;
        let archive = Archive { lake: table_device(archive.lake), ..archive };
        if let Err(error) = archive.folder.check_tables() {
            // Requests are taken in all the same: the journal is here.
            error!(%error, "nothing can be committed until it is mounted");
        }
        let mut options = journal_options(&archive.folder, settings);
        ledger::refuse_newer(&archive.folder)?;
        let (fs, broken) = journal_device(&mut options)?;
        let journal_fs = Arc::clone(&fs);
        let open = move || Journal::<DecodedRecord>::open_on(journal_fs, options);
        let (journal, events, recovered) =
            tokio::task::spawn_blocking(open).await?.map_err(|error| in_use(data_dir, error))?;
        archive.follow_folder().await?;
        archive.register_default_table(&settings.default_table).await?;
        check_carry(fs.as_ref(), &archive.folder, &recovered, settings.accept_lost_carry)?;
        let journal = Arc::new(journal);
        let health = Arc::<Health>::default();
        let (handle, commands) = PipelineHandle::channel();
        // Half more than what settles early: traces wait there only while their table cannot be written.
        let max_open = settings.settle.max_open_bytes;
        let open_bytes = Arc::new(OpenBytes::new(max_open.saturating_add(max_open / 2)));
        let traces = ServiceTraces {
            folder: archive.folder.clone(),
            lake: archive.lake.clone(),
            registry: Arc::clone(&archive.registry),
            pipeline: handle.clone(),
        };
        let intake = Arc::new(Intake::new(IntakeParts {
            journal: Arc::clone(&journal),
            registry: Arc::clone(&archive.registry),
            clock: Arc::clone(&archive.clock),
            limits: settings.limits,
            settings: intake_settings(settings),
            admission: Some(Arc::clone(&open_bytes) as Arc<dyn Admission>),
            traces: Arc::new(traces),
        }));
        let maintenance = Arc::new(MaintenanceState::default());
        let parts = maintenance_parts(&archive, settings, &open_bytes, &maintenance);
        let pipeline = Pipeline::new(
            tokio::runtime::Handle::current(),
            PipelineParts {
                journal: Arc::clone(&journal),
                events,
                commands,
                stores: archive.stores(),
                schedule: schedule(settings),
                index_limit: settings.index_limit,
                identity: Identity::load(Arc::clone(&fs), &archive.folder)?,
                fs,
                default_table: settings.default_table.clone(),
                open_bytes,
                maintenance,
                health: Arc::clone(&health),
                ledger_retention: settings.ledger_retention,
                pulse: Some(archive.folder.pulse()),
                broken,
            },
        );
        let stopping = Stopping { pipeline: handle.clone(), stopper: pipeline.stopper() };
        let thread = std::thread::Builder::new()
            .name("pipeline".to_owned())
            .spawn(move || pipeline.run(&recovered))
            .context("start the pipeline")?;
        let maintenance = MaintenanceThread::start(parts).context("start maintenance")?;
        let backups = keep_backup(Arc::clone(&archive.registry));
        Ok(Self {
            archive,
            intake,
            pipeline: handle,
            journal,
            health,
            stopping,
            thread,
            maintenance,
            backups,
        })
    }

    /// Notes that the process was asked to stop, so that a kill from now on says nothing of what it is
    /// at. Blocks for a write to the disk.
    pub(crate) fn expect_stop(&self) {
        self.stopping.expect_stop();
    }

    /// True when the pipeline has ended by itself: by a defect, or because the journal cannot be read
    /// or has no writer.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends the pipeline: what has settled is committed, the rest stays in the journal.
    ///
    /// # Errors
    /// When the pipeline had ended by itself.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.expect_stop();
        let Self { archive, intake, pipeline, journal, thread, maintenance, backups, .. } = self;
        drop((intake, journal));
        // One that has ended already tells why when it is joined.
        pipeline.stop();
        let ended = tokio::task::spawn_blocking(move || {
            if let Some(maintenance) = maintenance {
                maintenance.stop();
            }
            thread.join()
        });
        let ended = ended.await?;
        archive.registry.close().await;
        backups.await?;
        archive.catalog.close().await;
        ended.map_err(|_| anyhow::anyhow!("the pipeline panicked"))?
    }
}

/// What maintenance beside the pipeline needs.
fn maintenance_parts(
    archive: &Archive,
    settings: &Settings,
    open_bytes: &Arc<OpenBytes>,
    state: &Arc<MaintenanceState>,
) -> MaintenanceParts {
    MaintenanceParts {
        ground: Ground {
            folder: archive.folder.clone(),
            lake: archive.lake.clone(),
            clock: Arc::clone(&archive.clock),
        },
        every: settings.maintain_every,
        compact_after: settings.compact_after,
        vacuum: settings.vacuum,
        open_bytes: Arc::clone(open_bytes),
        state: Arc::clone(state),
    }
}

/// Keeps the registry's backup up to date until the registry is closed.
fn keep_backup(registry: Arc<Registry>) -> tokio::task::JoinHandle<()> {
    tasks::spawn(async move { registry.keep_backup().await })
}

fn journal_options(folder: &DataFolder, settings: &Settings) -> JournalOptions {
    let Limits { max_decompressed_bytes, max_body_bytes, .. } = settings.limits;
    let mut options = JournalOptions::new(folder.journal());
    options.budget_bytes = settings.journal_budget_bytes;
    options.max_record_bytes =
        (max_decompressed_bytes as u64).max(max_body_bytes as u64) + RECORD_OVERHEAD_BYTES;
    options
}

fn intake_settings(settings: &Settings) -> IntakeSettings {
    let mut intake = IntakeSettings::new(settings.default_table.clone());
    intake.default_experiment.clone_from(&settings.default_experiment);
    intake.services.clone_from(&settings.services);
    intake
}

fn schedule(settings: &Settings) -> Schedule {
    Schedule {
        settle: settings.settle,
        commit_every: settings.commit_every,
        commit_bytes: settings.commit_bytes,
        amend_every: settings.amend_every,
    }
}

fn in_use(data_dir: &Path, error: JournalError) -> anyhow::Error {
    match error {
        JournalError::InUse { pid, .. } => {
            let by = pid.map_or_else(String::new, |pid| format!(" by process {pid}"));
            let message = format!("data folder `{}` is in use{by}", data_dir.display());
            Fault::new(FaultKind::Conflict, message)
                .with_hint("stop that service, or choose another folder with --data-dir")
                .into()
        }
        other => anyhow::Error::new(other).context("open the journal"),
    }
}
