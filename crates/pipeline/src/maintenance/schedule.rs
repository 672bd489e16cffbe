//! Maintenance on a schedule, in a thread of its own that gives way to everything else.
//!
//! It works one table and one file at a time, in bounded memory. While intake is busy it takes a
//! share of one processor at the most; while open traces fill their memory it waits.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracelake_lake::maintain::compact::CompactionRules;
use tracelake_lake::maintain::vacuum::VacuumRules;
use tracelake_model::TableName;
use tracing::{debug, warn};

use super::Ground;
use super::state::MaintenanceState;
use crate::open_bytes::OpenBytes;

/// First round after the start, so that a service that is restarted often is maintained too.
const FIRST_ROUND: Duration = Duration::from_secs(60);

/// How long it waits at a time while intake is busy.
const PAUSE: Duration = Duration::from_millis(100);

/// Work takes one part of the time of so many while intake has traces open.
const BUSY_SHARE: u32 = 2;

/// Vacuum reads the log of its whole retention time, so it has its turn this often in that time;
/// files stay that part longer.
const VACUUMS: u32 = 64;

/// What the thread is made of.
#[derive(Debug)]
pub struct MaintenanceParts {
    /// The tables.
    pub ground: Ground,
    /// Time between rounds; zero switches maintenance off.
    pub every: Duration,
    /// Age from which files are compacted.
    pub compact_after: Duration,
    /// What is deleted; none switches that off.
    pub vacuum: Option<VacuumRules>,
    /// Bytes that the pipeline has to do.
    pub open_bytes: Arc<OpenBytes>,
    /// Told how it goes.
    pub state: Arc<MaintenanceState>,
}

/// A thread that runs rounds until it is stopped.
#[derive(Debug)]
pub struct MaintenanceThread {
    /// The thread ends when this goes.
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl MaintenanceThread {
    /// Starts the thread; `None` when maintenance is switched off.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(parts: MaintenanceParts) -> std::io::Result<Option<Self>> {
        parts.state.change(|status| status.every_seconds = parts.every.as_secs());
        if parts.every.is_zero() {
            return Ok(None);
        }
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new()
            .name("maintenance".to_owned())
            .spawn(move || run(&parts, &stopped))?;
        Ok(Some(Self { stop, thread }))
    }

    /// Breaks off what is under way, which leaves tables as they are, and waits for the end.
    pub fn stop(self) {
        let Self { stop, thread } = self;
        drop(stop);
        if thread.join().is_err() {
            warn!("maintenance panicked");
        }
    }
}

fn run(parts: &MaintenanceParts, stopped: &Receiver<()>) {
    let mut wait = FIRST_ROUND.min(parts.every);
    let mut vacuumed = BTreeMap::new();
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(wait) {
        wait = parts.every;
        if round(parts, stopped, &mut vacuumed) == ControlFlow::Break(()) {
            return;
        }
        let now = parts.ground.clock.now_unix_nano();
        parts.state.change(|status| status.last_round_unix_nano = Some(now));
    }
}

fn round(
    parts: &MaintenanceParts,
    stopped: &Receiver<()>,
    vacuumed: &mut BTreeMap<TableName, Instant>,
) -> ControlFlow<()> {
    let tables = match parts.ground.folder.tables() {
        Ok(tables) => tables,
        Err(error) => {
            // A share that is away is told by the pipeline.
            debug!(%error, "no tables to maintain");
            return ControlFlow::Continue(());
        }
    };
    vacuumed.retain(|table, _| tables.binary_search(table).is_ok());
    let rules = CompactionRules::patient(parts.ground.older_than(parts.compact_after));
    for table in tables {
        let mut pace = Pacer::new(&parts.open_bytes, stopped);
        pace.step()?;
        parts.state.change(|status| status.running = Some(table.clone()));
        let vacuum = parts.vacuum.as_ref().filter(|vacuum| {
            vacuumed.get(&table).is_none_or(|last| vacuum.after / VACUUMS <= last.elapsed())
        });
        let done = parts.ground.maintain(&table, &rules, vacuum, &mut |_| pace.step());
        if let Some(error) = done.fault() {
            warn!(%table, error, "table not maintained");
        }
        let now = parts.ground.clock.now_unix_nano();
        parts.state.note(&table, &done, now);
        if done.vacuum.is_some() {
            vacuumed.insert(table, Instant::now());
        }
    }
    ControlFlow::Continue(())
}

/// Holds work back while intake is busy.
struct Pacer<'a> {
    open_bytes: &'a OpenBytes,
    stopped: &'a Receiver<()>,
    since: Instant,
}

impl<'a> Pacer<'a> {
    fn new(open_bytes: &'a OpenBytes, stopped: &'a Receiver<()>) -> Self {
        Self { open_bytes, stopped, since: Instant::now() }
    }

    /// Called between two steps of work.
    fn step(&mut self) -> ControlFlow<()> {
        let worked = self.since.elapsed();
        if self.open_bytes.is_busy() {
            self.wait(worked.saturating_mul(BUSY_SHARE - 1))?;
        }
        while self.open_bytes.is_full() {
            self.wait(PAUSE)?;
        }
        self.since = Instant::now();
        self.wait(Duration::ZERO)
    }

    fn wait(&self, length: Duration) -> ControlFlow<()> {
        let go_on = if length.is_zero() {
            self.stopped.try_recv() == Err(TryRecvError::Empty)
        } else {
            self.stopped.recv_timeout(length) == Err(RecvTimeoutError::Timeout)
        };
        if go_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

#[cfg(test)]
mod tests {
    use tracelake_model::Admission as _;

    use super::*;

    /// Scenario: work beside an idle, a busy and a full pipeline, and a stop.
    /// Guarantees: idle does not wait; busy takes a share; full waits until it is not; a stop is
    /// heard in each.
    #[test]
    fn work_gives_way_to_intake() {
        let open = OpenBytes::new(1_000);
        let (stop, stopped) = channel();
        let mut pacer = Pacer::new(&open, &stopped);
        let timed = |pacer: &mut Pacer<'_>, worked: u64| {
            pacer.since = Instant::now().checked_sub(Duration::from_millis(worked)).unwrap();
            let begun = Instant::now();
            assert_eq!(pacer.step(), ControlFlow::Continue(()));
            begun.elapsed()
        };
        assert!(timed(&mut pacer, 400) < Duration::from_millis(400));
        open.set(300, 0);
        assert!(Duration::from_millis(20) <= timed(&mut pacer, 20));
        open.set(200, 700);
        assert_eq!(open.admit(1), Ok(()), "what is in commit refuses nobody");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(50));
                open.set(0, 0);
            });
            assert!(Duration::from_millis(50) <= timed(&mut pacer, 0));
        });
        open.set(900, 0);
        drop(stop);
        assert_eq!(pacer.step(), ControlFlow::Break(()));
    }
}
