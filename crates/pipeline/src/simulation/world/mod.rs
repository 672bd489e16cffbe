//! One schedule: archivers, clients and faults by a seed, and what the tables hold at the end.

mod ending;
mod moving;
mod takeover;
mod trouble;

use std::collections::hash_map::DefaultHasher;
use std::fmt::Write as _;
use std::hash::Hash as _;
use std::sync::Arc;
use std::time::Duration;

use tracelake_decode::{DecodedRecord, Route};
use tracelake_journal::RecordBytes;
use tracelake_lake::{Lake, Table, TableSnapshot, TraceDraft};
use tracelake_testkit::FakeClock;
use tracelake_testkit::Random;

use super::archiver::{Answer, Archiver, Setting};
use super::clients::{Request, Trace, compose, record, traces};
use super::fault_kinds::{Fault, FaultCounts};
use super::ground::{Ground, MAX_ARCHIVERS};
use super::history::History;
use super::store::{Objects, SimulatedStore, store_root};
use crate::mutations::Broken;
use crate::stores::Stores;
use moving::Moving;
use trouble::{MENU, MENU_OF_FOLDERS};

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
    /// Archivers that are to die at an operation.
    death_armed: Vec<bool>,
    /// The experiment of the traces, where it is bound in the course of the schedule.
    moving: Option<Moving>,
    /// Whether the wall clock was set.
    stepped: bool,
    broken: Broken,
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
        // In folders, all archivers are processes of one machine; with an object store each has its own.
        let in_folders = random.chance(45);
        let seed = random.bits();
        let tables = ground.stores.first().map(|stores| stores.folder.tables_folder());
        let objects = match tables.filter(|_| in_folders) {
            Some(tables) => Objects::in_folder(&tables, seed),
            None => Objects::default(),
        };
        let objects = Arc::new(objects);
        let archiver_count = random.pick(&[1, 2, 2, MAX_ARCHIVERS]).unwrap_or(1);
        let table_count = 1 + usize::from(random.chance(20));
        let segment_bytes = random.pick(&[600, 3_000, 1 << 20]).unwrap_or(3_000);
        let index_limit = random.pick(&[2, 1_000]).unwrap_or(2);
        let max_open_bytes = random.pick(&[400, 1 << 20, 1 << 20]).unwrap_or(400);
        let checkpoint_every = random.pick(&[2, 3, 50]).unwrap_or(3);
        let moves = archiver_count == 1 && table_count == 1 && random.chance(40);
        let moving = if moves { Moving::new(ground) } else { None };
        let archivers = (0..archiver_count)
            .zip(&ground.stores)
            .map(|(_, stores)| {
                let shared = Arc::clone(&stores.registry);
                let registry = moving.as_ref().map_or(shared, Moving::registry);
                let setting = Setting {
                    handle: ground.runtime.handle().clone(),
                    stores: Stores { registry, ..stores.clone() },
                    default_table: ground.tables[0].clone(),
                    objects: Arc::clone(&objects),
                    clock: Arc::clone(&clock),
                    segment_bytes,
                    index_limit,
                    max_open_bytes,
                    checkpoint_every,
                    broken,
                };
                Archiver::new(setting, random.bits())
            })
            .collect();
        let traces = traces(&mut random, archiver_count, table_count);
        let menu = if in_folders { MENU_OF_FOLDERS.as_slice() } else { MENU.as_slice() };
        let menu = (0..1 + random.below(4)).filter_map(|_| random.pick(menu)).collect();
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
            death_armed: vec![false; archiver_count],
            moving,
            stepped: false,
            broken,
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
            0..8 => self.hand_over(),
            8..14 if self.objects.folders().is_some() => self.leave_in_doubt(at),
            14..22 if self.can_bind() => match self.objects.folders() {
                Some(_) => self.move_in_doubt(at),
                None => self.bind(),
            },
            22..24 if self.can_bind() => self.bind(),
            24..27 if self.objects.folders().is_some() => self.commit_elsewhere(),
            27..30 => self.step_clock(),
            30..32 => self.end_starts(at),
            8..40 => self.send(at),
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

    /// Notices that an archiver died at an operation, and that the power went with it.
    fn look_after(&mut self, at: usize) {
        let Some(archiver) = self.archivers.get_mut(at) else { return };
        archiver.machine.operations().hash(&mut self.digest);
        if archiver.bury()
            && let Some(armed) = self.death_armed.get_mut(at)
            && std::mem::take(armed)
        {
            self.happened.note(Fault::KillAtFile, 1);
        }
        if archiver.take_power_went() {
            self.cut_power(at);
        }
    }

    fn start(&mut self, at: usize) {
        let mut death = None;
        let mut fault = None;
        if self.menu.contains(&Fault::KillInRecovery) && self.random.chance(60) {
            if self.random.chance(50) {
                death = Some((self.random.below(40) as u64, self.random.chance(50)));
            } else {
                fault = Some((Fault::KillAtPut, self.random.below(3) as u64, self.random.bits()));
            }
        }
        let mut meanwhile = Vec::new();
        if self.random.chance(20) {
            meanwhile = self.requests(at);
        }
        let records = self.records(at, &meanwhile);
        let Some(archiver) = self.archivers.get_mut(at) else { return };
        let started = archiver.start(death, fault, records);
        let died = (death.is_some() || fault.is_some()) && started.is_err();
        self.happened.note(Fault::KillInRecovery, u64::from(died));
        archiver.heal();
        // Of an attempt that died nobody heard.
        let none = || meanwhile.iter().map(|_| Err(tracelake_journal::JournalError::Closed));
        let answers = started.unwrap_or_else(|_| none().collect());
        self.note(at, meanwhile, &answers);
        self.note_parked(at);
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
                record(request, self.route(request.table)?, now, self.broken).ok()
            })
            .collect()
    }

    fn route(&self, table: usize) -> Option<Route> {
        if let Some(moving) = &self.moving {
            return Some(moving.route(self.ground));
        }
        Some(Route {
            experiment_id: self.ground.experiments.get(table)?.clone(),
            table: self.ground.tables.get(table)?.clone(),
        })
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

    fn read(&self, table: usize) -> anyhow::Result<Option<(TableSnapshot, Vec<TraceDraft>)>> {
        let store = SimulatedStore::new(Arc::clone(&self.objects), None, Arc::clone(&self.clock));
        let lake = Lake::over(Arc::new(store), store_root()?, self.ground.runtime.handle());
        let (Some(name), Some(stores)) =
            (self.ground.tables.get(table), self.ground.stores.first())
        else {
            return Ok(None);
        };
        let table = Table::at(&lake, stores.folder.table(name))?;
        if !table.exists()? {
            return Ok(None);
        }
        let snapshot = table.snapshot(None)?;
        Ok(Some((snapshot.clone(), rows(&snapshot)?)))
    }
}

fn rows(snapshot: &TableSnapshot) -> anyhow::Result<Vec<TraceDraft>> {
    let mut rows = Vec::new();
    snapshot.for_each_trace(None, &mut |row| {
        rows.push(row);
        Ok(())
    })?;
    Ok(rows)
}
