//! One archiver on a machine of its own: journal and pipeline, started, driven and killed.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tracelake_decode::{DecodedRecord, RecordHeader, decode_record};
use tracelake_journal::{Journal, JournalError, JournalOptions, RecordBytes, SimulatedFs};
use tracelake_lake::assemble::SettleRules;
use tracelake_lake::{Lake, TableFiles};
use tracelake_model::{Clock, SteadyClock, TableName, Times};
use tracelake_testkit::FakeClock;

use super::fault_kinds::{Fault, FaultCounts};
use super::folder::FolderFiles;
use super::store::{Objects, SimulatedStore, store_root};
use crate::drain::{
    Command, FlushOutcome, Identity, Pipeline, PipelineHandle, PipelineParts, Schedule, Wake,
    read_epoch,
};
use crate::failpoints::broken_fs;
use crate::mutations::{Broken, Step};
use crate::open_bytes::OpenBytes;
use crate::parked::{self, HEADER, PAYLOAD};
use crate::stores::Stores;

/// Of the ledger, which a schedule never outlives.
const LEDGER_RETENTION: Duration = Duration::from_secs(7 * 86_400);

/// What stays the same over an archiver's lives.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) handle: Handle,
    pub(super) stores: Stores,
    pub(super) default_table: TableName,
    pub(super) objects: Arc<Objects>,
    pub(super) clock: Arc<FakeClock>,
    pub(super) segment_bytes: u64,
    pub(super) index_limit: usize,
    pub(super) max_open_bytes: usize,
    pub(super) checkpoint_every: u64,
    pub(super) broken: Broken,
}

/// An archiver, alive or dead.
#[derive(Debug)]
pub(super) struct Archiver {
    setting: Setting,
    pub(super) machine: SimulatedFs,
    alive: Option<Alive>,
    /// Whether the power went with it, and nobody noticed yet.
    power_went: bool,
    /// Faults of stores of earlier lives.
    past: FaultCounts,
}

#[derive(Debug)]
struct Alive {
    journal: Arc<Journal<DecodedRecord>>,
    pipeline: Pipeline,
    store: Arc<SimulatedStore>,
}

/// What became of a record: whether it was acknowledged.
pub(super) type Answer = Result<(), JournalError>;

impl Archiver {
    pub(super) fn new(setting: Setting, seed: u64) -> Self {
        let machine = SimulatedFs::new(seed);
        if let Some(above) = setting.stores.folder.root().parent() {
            machine.mount(above);
        }

        Self { setting, machine, alive: None, power_went: false, past: FaultCounts::default() }
    }

    pub(super) const fn is_alive(&self) -> bool {
        self.alive.is_some()
    }

    /// Starts the archiver, and lets it take in what an earlier life left. While that goes on
    /// `meanwhile` is appended, with what is told of it. `death` is after so many operations, and
    /// whether with the power; `fault` may befall the store. It may die in the attempt.
    pub(super) fn start(
        &mut self,
        death: Option<(u64, bool)>,
        fault: Option<(Fault, u64, u64)>,
        meanwhile: Vec<(RecordBytes, DecodedRecord)>,
    ) -> anyhow::Result<Vec<Answer>> {
        self.machine.restart();
        if let Some((operations, with_power)) = death {
            self.die_after(operations, with_power);
        }
        let started = self.try_start(fault, meanwhile);
        if started.is_err() {
            self.machine.end_process();
            self.bury();
        }
        started
    }

    /// Lets it die at the operation of its file system after so many more.
    pub(super) fn die_after(&self, operations: u64, with_power: bool) {
        if with_power {
            self.machine.crash_after(operations);
        } else {
            self.machine.end_process_after(operations);
        }
    }

    fn try_start(
        &mut self,
        fault: Option<(Fault, u64, u64)>,
        meanwhile: Vec<(RecordBytes, DecodedRecord)>,
    ) -> anyhow::Result<Vec<Answer>> {
        let Setting { handle, stores, objects, clock, broken, .. } = &self.setting;
        let machine = Some(self.machine.clone());
        let store = SimulatedStore::new(Arc::clone(objects), machine, Arc::clone(clock));
        let store = Arc::new(store);
        if let Some((fault, after, choice)) = fault {
            store.arm(fault, after, choice);
        }
        let mut lake = Lake::over(Arc::<SimulatedStore>::clone(&store), store_root()?, handle)
            .with_checkpoint_every(self.setting.checkpoint_every);
        if let Some(folders) = objects.folders() {
            let (store, folders) = (Arc::clone(&store), Arc::clone(folders));
            let broken = *broken;
            lake = lake.with_files(Arc::new(move |url, _| {
                let files = FolderFiles::new(Arc::clone(&store), Arc::clone(&folders), url, broken);
                Arc::new(files) as Arc<dyn TableFiles>
            }));
        }
        let fs = broken_fs(Arc::new(self.machine.clone()), *broken);
        let mut options = JournalOptions::new(stores.folder.journal());
        options.segment_bytes = self.setting.segment_bytes;
        options.leave_out_sync = broken.leaves_out(Step::Sync);
        let (journal, events, recovered) =
            Journal::<DecodedRecord>::open_on(Arc::clone(&fs), options)?;
        let journal = Arc::new(journal);
        let floor = read_epoch(fs.as_ref(), &stores.folder)?.and_then(|done| done.times);
        let clock = life_clock(Arc::clone(clock), floor, *broken);
        let (_, commands) = PipelineHandle::channel();
        let parts = PipelineParts {
            journal: Arc::clone(&journal),
            events,
            commands,
            stores: Stores { lake, clock, ..stores.clone() },
            schedule: self.schedule(),
            index_limit: self.setting.index_limit,
            identity: Identity::load(Arc::clone(&fs), &stores.folder)?,
            fs,
            default_table: self.setting.default_table.clone(),
            open_bytes: Arc::new(OpenBytes::new(usize::MAX)),
            maintenance: Arc::default(),
            health: Arc::default(),
            ledger_retention: LEDGER_RETENTION,
            pulse: None,
            broken: *broken,
        };
        let pipeline = Pipeline::new(handle.clone(), parts);
        let alive = self.alive.insert(Alive { journal, pipeline, store });
        let answers = alive.append(handle, meanwhile);
        alive.pipeline.recover(&recovered)?;
        Ok(answers)
    }

    fn schedule(&self) -> Schedule {
        Schedule {
            settle: SettleRules {
                settle_after: Duration::from_secs(1),
                idle_after: Duration::from_secs(4),
                max_open_bytes: self.setting.max_open_bytes,
            },
            commit_every: Duration::from_secs(1),
            commit_bytes: 64 << 20,
            amend_every: Duration::from_secs(3),
        }
    }

    /// Cuts the power: what was not durable may be gone.
    pub(super) fn cut_power(&mut self) {
        self.machine.crash();
        self.bury();
    }

    /// Ends the process, and leaves the power on.
    pub(super) fn end_process(&mut self) {
        self.machine.end_process();
        self.bury();
    }

    /// Takes leave of a process that is dead. Says whether it did.
    pub(super) fn bury(&mut self) -> bool {
        if self.machine.is_crashed()
            && let Some(alive) = self.alive.take()
        {
            self.machine.end_process();
            self.past.add(&alive.store.happened());
            self.power_went |= self.machine.is_powerless();
            return true;
        }
        false
    }

    /// Whether it died by a power cut, asked once.
    pub(super) fn take_power_went(&mut self) -> bool {
        std::mem::take(&mut self.power_went)
    }

    /// Appends records in one group, and says of each whether it was acknowledged.
    pub(super) fn append(&mut self, records: Vec<(RecordBytes, DecodedRecord)>) -> Vec<Answer> {
        let handle = &self.setting.handle;
        self.alive.as_mut().map(|alive| alive.append(handle, records)).unwrap_or_default()
    }

    /// Lets the pipeline do what is due.
    pub(super) fn turn(&mut self) {
        if let Some(Alive { pipeline, .. }) = &mut self.alive {
            pipeline.take_waiting();
            pipeline.turn(Wake::Tick);
        }
    }

    /// How many traces are not wholly in their table.
    pub(super) fn open_traces(&mut self) -> usize {
        let Some(Alive { pipeline, .. }) = &mut self.alive else { return 0 };
        let (reply, mut answer) = oneshot::channel();
        pipeline.turn(Wake::Command(Some(Command::OpenTraces(reply))));
        answer.try_recv().map_or(0, |open| open.len())
    }

    /// Settles and commits everything.
    pub(super) fn flush(&mut self) -> anyhow::Result<FlushOutcome> {
        let alive = self.alive.as_mut().context("dead")?;
        let (reply, mut answer) = oneshot::channel();
        alive.pipeline.turn(Wake::Command(Some(Command::Flush(reply))));
        answer.try_recv()?.map_err(anyhow::Error::msg)
    }

    /// Ends the process as it ends when it is told to.
    pub(super) fn stop(&mut self) {
        if let Some(Alive { pipeline, journal, store }) = self.alive.take() {
            drop(journal);
            // What could not be committed is in the journal.
            pipeline.end().ok();
            self.machine.end_process();
            self.past.add(&store.happened());
        }
    }

    pub(super) fn arm(&self, fault: Fault, after: u64, choice: u64) {
        if let Some(alive) = &self.alive {
            alive.store.arm(fault, after, choice);
        }
    }

    /// Lets nothing more go wrong.
    pub(super) fn heal(&self) {
        self.machine.set_room(None);
        self.machine.fail_syncs(0);
        self.machine.fail_creates(0);
        self.machine.fail_folder_syncs(0);
        self.machine.crash_after(u64::MAX);
        if let Some(alive) = &self.alive {
            alive.store.disarm();
        }
    }

    /// What befell store and file system in all lives.
    pub(super) fn happened(&self) -> FaultCounts {
        let mut happened = self.past;
        if let Some(alive) = &self.alive {
            happened.add(&alive.store.happened());
        }
        let accidents = self.machine.accidents();
        happened.note(Fault::TornWrite, accidents.torn_files);
        happened.note(Fault::LostName, accidents.lost_names);
        happened.note(Fault::NoRoom, accidents.refused_writes);
        happened.note(Fault::SyncError, accidents.failed_syncs);
        happened.note(Fault::CreateError, accidents.failed_creates);
        happened.note(Fault::FolderSyncError, accidents.failed_folder_syncs);
        happened.note(Fault::LostFolder, accidents.lost_folders);
        happened
    }

    /// Has tables opened again that were set apart. Returns how many were.
    pub(super) fn release_tables(&mut self, tables: &[TableName]) -> u64 {
        let Some(Alive { pipeline, .. }) = &mut self.alive else { return 0 };
        let mut released = 0;
        for table in tables {
            let (reply, mut answer) = oneshot::channel();
            let command = Command::ReleaseTable(table.clone(), reply);
            pipeline.turn(Wake::Command(Some(command)));
            released += u64::from(matches!(answer.try_recv(), Ok(Ok(true))));
        }
        released
    }

    /// Records that are set aside, with the names of their entries.
    pub(super) fn parked(&self) -> Vec<(String, RecordBytes)> {
        let folder = self.setting.stores.folder.parked();
        let contents = |name: &str, extension: &str| {
            self.machine.contents(&folder.join(format!("{name}{extension}")))
        };
        let names = self.machine.names(&folder).into_iter();
        let names = names.filter_map(|name| Some(name.strip_suffix(HEADER)?.to_owned()));
        let record = |name: String| {
            let (header, payload) = (contents(&name, HEADER)?, contents(&name, PAYLOAD)?);
            Some((name, RecordBytes { header: header.into(), payload: payload.into() }))
        };
        names.filter_map(record).collect()
    }

    /// Puts back what is set aside, as the command does. Returns how many records there were, or why one is
    /// not back.
    pub(super) fn put_back_parked(&mut self) -> anyhow::Result<usize> {
        let parked = self.parked();
        let folder = self.setting.stores.folder.parked();
        for (name, record) in &parked {
            let header = RecordHeader::from_bytes(&record.header)?;
            let decoded = decode_record(header, &record.payload)?;
            for answer in self.append(vec![(record.clone(), decoded)]) {
                answer?;
            }
            parked::remove(&self.machine, &folder, name)?;
        }
        Ok(parked.len())
    }

    pub(super) fn now_unix_nano(&self) -> u64 {
        self.setting.clock.now_unix_nano()
    }
}

/// The clock of one life of an archiver, which goes on from where the one before ended.
fn life_clock(clock: Arc<FakeClock>, floor: Option<Times>, broken: Broken) -> Arc<dyn Clock> {
    if broken.leaves_out(Step::MonotonicWaits) {
        return Arc::new(WallAlone(clock));
    }
    Arc::new(SteadyClock::new(clock, floor))
}

/// A build that waits by the wall clock.
#[derive(Debug)]
struct WallAlone(Arc<FakeClock>);

impl Clock for WallAlone {
    fn now_unix_nano(&self) -> u64 {
        self.0.now_unix_nano()
    }

    fn monotonic_nano(&self) -> u64 {
        self.0.now_unix_nano()
    }
}

impl Alive {
    fn append(
        &mut self,
        handle: &Handle,
        records: Vec<(RecordBytes, DecodedRecord)>,
    ) -> Vec<Answer> {
        if records.is_empty() {
            return Vec::new();
        }
        let answers = handle.block_on(self.journal.append_together(records));
        self.journal.wait_idle();
        answers.into_iter().map(|answer| answer.map(|_| ())).collect()
    }
}
