//! One schedule: archivers, clients and faults by a seed, and what the tables hold at the end.

mod takeover;

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt::Write as _;
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use tracelake_decode::{DecodedRecord, Route};
use tracelake_journal::RecordBytes;
use tracelake_lake::{Lake, Table, TableSnapshot, TraceDraft};
use tracelake_testkit::FakeClock;

use super::archiver::{Answer, Archiver, Setting};
use super::clients::{Request, Trace, compose, record, traces};
use super::faults::{Fault, FaultCounts};
use super::ground::{Ground, MAX_ARCHIVERS};
use super::history::History;
use super::random::Random;
use super::store::{Objects, SimulatedStore, store_root};
use crate::broken::Broken;

/// Starts, and flushes, that may fail once nothing goes wrong any more.
const PATIENCE: usize = 8;

/// What became of a schedule.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// How promises were broken; empty when they were not.
    pub(super) violations: String,
    pub(super) happened: FaultCounts,
    pub(super) archivers: usize,
    pub(super) acked_spans: u64,
    pub(super) unacked: u64,
    /// Changes that came through another archiver than all that was said before.
    pub(super) taken_over: u64,
    pub(super) versions: u64,
    pub(super) rows: u64,
    /// Rows that were replaced at least once.
    pub(super) amended: u64,
    /// Of all that happened: the same for the same seed.
    pub(super) digest: u64,
}

struct World<'a> {
    ground: &'a Ground,
    random: Random,
    clock: Arc<FakeClock>,
    objects: Arc<Objects>,
    archivers: Vec<Archiver>,
    traces: Vec<Trace>,
    histories: Vec<History>,
    /// Requests that were not acknowledged: clients send them again.
    unacked: Vec<(usize, Request)>,
    /// Kinds of fault that this schedule may meet.
    menu: Vec<Fault>,
    happened: FaultCounts,
    crash_armed: Vec<bool>,
    violations: String,
    taken_over: u64,
    digest: DefaultHasher,
}

/// Runs the schedule of `seed`.
pub(super) fn run_schedule(ground: &Ground, seed: u64, broken: Broken) -> Outcome {
    let mut world = World::new(ground, seed, broken);
    // Most schedules are short: starts and ends cost more than steps.
    let range = if world.random.chance(15) { 30 } else { 12 };
    let steps = 8 + world.random.below(range);
    for _ in 0..steps {
        world.step();
    }
    world.end()
}

impl<'a> World<'a> {
    fn new(ground: &'a Ground, seed: u64, broken: Broken) -> Self {
        let mut random = Random::new(seed);
        let clock = Arc::new(FakeClock::default());
        let objects = Arc::new(Objects::default());
        let archiver_count = random.pick(&[1, 2, 2, MAX_ARCHIVERS]).unwrap_or(1);
        let table_count = 1 + usize::from(random.chance(20));
        let segment_bytes = random.pick(&[600, 3_000, 1 << 20]).unwrap_or(3_000);
        let index_limit = random.pick(&[2, 1_000]).unwrap_or(2);
        let max_open_bytes = random.pick(&[400, 1 << 20, 1 << 20]).unwrap_or(400);
        let archivers = (0..archiver_count)
            .zip(&ground.archives)
            .map(|(_, archive)| {
                let setting = Setting {
                    handle: ground.runtime.handle().clone(),
                    archive: archive.clone(),
                    default_table: ground.tables[0].clone(),
                    objects: Arc::clone(&objects),
                    clock: Arc::clone(&clock),
                    segment_bytes,
                    index_limit,
                    max_open_bytes,
                    broken,
                };
                Archiver::new(setting, random.next())
            })
            .collect();
        let traces = traces(&mut random, archiver_count, table_count);
        let menu = (0..1 + random.below(4)).filter_map(|_| random.pick(&MENU)).collect();
        Self {
            ground,
            random,
            clock,
            objects,
            archivers,
            traces,
            histories: vec![History::default(), History::default()],
            unacked: Vec::new(),
            menu,
            happened: FaultCounts::default(),
            crash_armed: vec![false; archiver_count],
            violations: String::new(),
            taken_over: 0,
            digest: DefaultHasher::new(),
        }
    }

    fn step(&mut self) {
        let at = self.random.below(self.archivers.len());
        if !self.archivers.get(at).is_some_and(Archiver::is_alive) {
            self.start(at);
            return;
        }
        match self.random.below(100) {
            0..6 => self.hand_over(),
            6..40 => self.send(at),
            40..65 => {
                let wait = 200 + self.random.below(2_500) as u64;
                self.clock.advance(Duration::from_millis(wait));
                self.with(at, Archiver::turn);
            }
            65..70 => self.with(at, |archiver| drop(archiver.flush())),
            _ => self.meet_fault(at),
        }
        self.look_after(at);
    }

    fn with(&mut self, at: usize, work: impl FnOnce(&mut Archiver)) {
        if let Some(archiver) = self.archivers.get_mut(at) {
            work(archiver);
        }
    }

    /// Notices that an archiver died at an operation.
    fn look_after(&mut self, at: usize) {
        let Some(archiver) = self.archivers.get_mut(at) else { return };
        archiver.machine.operations().hash(&mut self.digest);
        if archiver.bury()
            && let Some(armed) = self.crash_armed.get_mut(at)
            && std::mem::take(armed)
        {
            self.happened.note(Fault::KillAtFile, 1);
        }
    }

    fn start(&mut self, at: usize) {
        let mut crash_after = None;
        let mut fault = None;
        if self.menu.contains(&Fault::KillInRecovery) && self.random.chance(60) {
            if self.random.chance(50) {
                crash_after = Some(self.random.below(40) as u64);
            } else {
                fault = Some((Fault::KillAtPut, self.random.below(3) as u64, self.random.next()));
            }
        }
        let mut meanwhile = Vec::new();
        if self.random.chance(20) {
            meanwhile = self.requests(at);
        }
        let records = self.records(at, &meanwhile);
        let Some(archiver) = self.archivers.get_mut(at) else { return };
        let started = archiver.start(crash_after, fault, records);
        let died = crash_after.or(fault.map(|_| 0)).is_some() && started.is_err();
        self.happened.note(Fault::KillInRecovery, u64::from(died));
        archiver.heal();
        // Of an attempt that died nobody heard.
        let none = || meanwhile.iter().map(|_| Err(tracelake_journal::JournalError::Closed));
        let answers = started.unwrap_or_else(|_| none().collect());
        self.note(at, meanwhile, &answers);
        self.look_after(at);
    }

    fn requests(&mut self, at: usize) -> Vec<Request> {
        let mut requests = Vec::new();
        for _ in 0..1 + self.random.below(3) {
            if !self.unacked.is_empty() && self.random.chance(60) {
                let index = self.random.below(self.unacked.len());
                // A balancer sends a retry to any archiver, but for orders of changes.
                let may_go = |(to, request): &(usize, Request)| *to == at || self.is_free(request);
                if self.unacked.get(index).is_some_and(may_go) {
                    requests.push(self.unacked.swap_remove(index).1);
                    continue;
                }
            }
            requests.extend(compose(&mut self.random, at, &self.traces, &self.histories));
        }
        requests
    }

    /// Whether any archiver may be told it.
    fn is_free(&self, request: &Request) -> bool {
        let owned = |id| self.traces.iter().any(|trace| trace.id == id && trace.owner.is_some());
        !request.said.iter().any(|(id, _)| owned(*id))
    }

    fn records(&self, at: usize, requests: &[Request]) -> Vec<(RecordBytes, DecodedRecord)> {
        let now = self.archivers.get(at).map_or(0, Archiver::now_unix_nano);
        requests
            .iter()
            .filter_map(|request| {
                let route = Route {
                    experiment_id: self.ground.experiments.get(request.table)?.clone(),
                    table: self.ground.tables.get(request.table)?.clone(),
                };
                record(request, route, now).ok()
            })
            .collect()
    }

    fn send(&mut self, at: usize) {
        let requests = self.requests(at);
        let records = self.records(at, &requests);
        if requests.len() != records.len() {
            writeln!(self.violations, "a request was generated that cannot be read").ok();
        }
        let Some(archiver) = self.archivers.get_mut(at) else { return };
        let fails_sync = self.menu.contains(&Fault::SyncError) && self.random.chance(30);
        if fails_sync {
            archiver.machine.fail_syncs(1);
        }
        let failed_before = archiver.machine.accidents().failed_syncs;
        let answers = archiver.append(records);
        let failed = failed_before < archiver.machine.accidents().failed_syncs;
        if fails_sync && failed && answers.iter().any(Answer::is_ok) {
            writeln!(self.violations, "acknowledged after a sync that failed").ok();
        }
        self.note(at, requests, &answers);
    }

    fn note(&mut self, at: usize, requests: Vec<Request>, answers: &[Answer]) {
        for (index, request) in requests.into_iter().enumerate() {
            let acked = answers.get(index).is_some_and(Answer::is_ok);
            acked.hash(&mut self.digest);
            let Some(history) = self.histories.get_mut(request.table) else { continue };
            for (trace, said) in &request.said {
                history.note(*trace, said.clone(), acked);
            }
            if !acked {
                self.unacked.push((at, request));
            }
        }
    }

    fn meet_fault(&mut self, at: usize) {
        let Some(fault) = self.random.pick(&self.menu) else { return };
        let (after, choice) = (self.random.below(4) as u64, self.random.next());
        let Some(archiver) = self.archivers.get_mut(at) else { return };
        match fault {
            Fault::Kill | Fault::KillInRecovery => {
                archiver.kill();
                self.happened.note(Fault::Kill, 1);
            }
            Fault::KillAtFile => {
                self.arm_crash(at, choice % 14);
            }
            Fault::Restart => {
                archiver.stop();
                self.happened.note(Fault::Restart, 1);
            }
            Fault::NoRoom if choice % 3 == 0 => archiver.machine.set_room(None),
            Fault::NoRoom => {
                let room = archiver.machine.used_bytes() + self.random.below(400);
                archiver.machine.set_room(Some(room));
            }
            Fault::SyncError => archiver.machine.fail_syncs(1 + u32::from(choice % 4 == 0)),
            Fault::CreateError => archiver.machine.fail_creates(1 + u32::from(choice % 4 == 0)),
            Fault::GetError | Fault::Slow => archiver.arm(fault, (choice >> 8) % 10, choice),
            _ => archiver.arm(fault, after, choice),
        }
    }

    /// Lets the machine stop after so many more operations of its file system.
    fn arm_crash(&mut self, at: usize, operations: u64) {
        self.with(at, |archiver| archiver.machine.crash_after(operations));
        if let Some(armed) = self.crash_armed.get_mut(at) {
            *armed = true;
        }
    }

    /// Lets nothing more go wrong, commits everything, and compares.
    fn end(mut self) -> Outcome {
        for at in 0..self.archivers.len() {
            if self.random.chance(40) {
                self.with(at, Archiver::kill);
            }
            self.with(at, |archiver| archiver.heal());
        }
        self.settle();
        let mut outcome = self.compare();
        if self.random.chance(8) {
            // Once more from the journals: what is in stays as it is.
            for at in 0..self.archivers.len() {
                self.with(at, Archiver::kill);
            }
            self.settle();
            outcome = self.compare();
        }
        outcome.archivers = self.archivers.len();
        outcome.happened = self.happened;
        for archiver in &self.archivers {
            outcome.happened.add(&archiver.happened());
        }
        for history in &self.histories {
            outcome.acked_spans += history.acked_spans;
            outcome.unacked += history.unacked;
        }
        outcome.taken_over = self.taken_over;
        outcome.violations = self.violations;
        (outcome.versions, outcome.rows, outcome.amended).hash(&mut self.digest);
        outcome.digest = self.digest.finish();
        outcome
    }

    fn settle(&mut self) {
        let store = SimulatedStore::new(Arc::clone(&self.objects), None, Arc::clone(&self.clock));
        self.ground.runtime.block_on(store.let_all_land());
        for archiver in &mut self.archivers {
            archiver.heal();
            let mut reason = String::new();
            let flushed = (0..PATIENCE).any(|_| {
                self.clock.advance(Duration::from_secs(5));
                if !archiver.is_alive()
                    && let Err(error) = archiver.start(None, None, Vec::new())
                {
                    reason = format!("{error:#}");
                    return false;
                }
                let flushed = archiver.flush();
                archiver.bury();
                flushed.map_err(|error| reason = format!("{error:#}")).is_ok()
            });
            if !flushed {
                writeln!(self.violations, "does not come to rest: {reason}").ok();
            }
        }
    }

    fn compare(&mut self) -> Outcome {
        let mut outcome = Outcome::default();
        for at in 0..self.histories.len() {
            match self.read(at) {
                Ok(Some((snapshot, rows))) => {
                    let history = self.histories.get(at);
                    let faults = history.map(|history| history.check(&rows)).unwrap_or_default();
                    self.violations.push_str(&faults);
                    outcome.versions += snapshot.version();
                    outcome.rows += rows.len() as u64;
                    outcome.amended += rows.iter().filter(|row| 1 < row.revision).count() as u64;
                    if self.random.chance(6) {
                        self.check_versions(&snapshot);
                    }
                }
                Ok(None) => {
                    let faults = self.histories.get(at).map(|history| history.check(&[]));
                    self.violations.push_str(&faults.unwrap_or_default());
                }
                Err(error) => {
                    writeln!(self.violations, "table cannot be read: {error:#}").ok();
                }
            }
        }
        outcome
    }

    fn read(&self, table: usize) -> anyhow::Result<Option<(TableSnapshot, Vec<TraceDraft>)>> {
        let store = SimulatedStore::new(Arc::clone(&self.objects), None, Arc::clone(&self.clock));
        let lake = Lake::over(Arc::new(store), store_root()?, self.ground.runtime.handle());
        let (Some(name), Some(archive)) =
            (self.ground.tables.get(table), self.ground.archives.first())
        else {
            return Ok(None);
        };
        let table = Table::at(&lake, archive.folder.table(name))?;
        if !table.exists()? {
            return Ok(None);
        }
        let snapshot = table.snapshot(None)?;
        Ok(Some((snapshot.clone(), rows(&snapshot)?)))
    }

    /// One row per trace in each version that there was.
    fn check_versions(&mut self, newest: &TableSnapshot) {
        for version in 0..newest.version() {
            let read = newest.table().snapshot_at(version).map_err(anyhow::Error::from);
            match read.and_then(|snapshot| rows(&snapshot)) {
                Ok(rows) => {
                    let mut times: HashMap<_, usize> = HashMap::new();
                    rows.iter().for_each(|row| *times.entry(row.trace_id).or_default() += 1);
                    if times.values().any(|times| 1 < *times) {
                        writeln!(self.violations, "version {version}: two rows of a trace").ok();
                    }
                }
                Err(error) => {
                    writeln!(self.violations, "version {version}: {error:#}").ok();
                }
            }
        }
    }
}

/// Kinds of fault that are met by choice; torn writes and lost names follow from kills.
const MENU: [Fault; 20] = [
    // The more likely ones twice.
    Fault::KillAtFile,
    Fault::KillAtPut,
    Fault::Kill,
    Fault::KillAtFile,
    Fault::KillAtPut,
    Fault::KillInRecovery,
    Fault::Restart,
    Fault::NoRoom,
    Fault::SyncError,
    Fault::CreateError,
    Fault::PutRefused,
    Fault::PutConflict,
    Fault::PutMisreported,
    Fault::PutMetItself,
    Fault::AnswerLost,
    Fault::PutLate,
    Fault::GetError,
    Fault::ListError,
    Fault::Slow,
    Fault::Throttled,
];

fn rows(snapshot: &TableSnapshot) -> anyhow::Result<Vec<TraceDraft>> {
    let mut rows = Vec::new();
    snapshot.for_each_trace(None, &mut |row| {
        rows.push(row);
        Ok(())
    })?;
    Ok(rows)
}
