//! Starts that end at one moment after another of a replay by parts, with two tables.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectStore as _, ObjectStoreExt as _};
use tracelake_decode::Route;
use tracelake_lake::{Lake, Table, TraceDraft};
use tracelake_model::{SpanId, TraceId};
use tracelake_testkit::FakeClock;

use super::archiver::{Archiver, Setting};
use super::clients::{Request, record};
use super::fault_kinds::Fault;
use super::ground::Ground;
use super::history::{Said, SpanKey};
use super::store::{Objects, SimulatedStore, store_root};
use crate::mutations::Broken;

/// Lets a process die at a PUT before it takes effect; the power stays on.
const ALONE: u64 = 2;

/// Starts within which a replay gets through, whatever ends some of them.
const STARTS: usize = 60;

/// The default table.
const DEFAULT: usize = 0;

/// The other one, to which an epoch comes first by its name.
const OTHER: usize = 1;

fn trace(number: u8) -> TraceId {
    let mut id = [0; 16];
    id[15] = number;
    TraceId(id)
}

/// Two archivers on two tables of an object store.
struct Bench<'a> {
    ground: &'a Ground,
    clock: Arc<FakeClock>,
    objects: Arc<Objects>,
    archivers: Vec<Archiver>,
}

impl<'a> Bench<'a> {
    fn new(ground: &'a Ground, segment_bytes: u64) -> Self {
        let (clock, objects) = (Arc::new(FakeClock::default()), Arc::new(Objects::default()));
        let archivers = ground.stores.iter().take(2).zip(1..).map(|(stores, seed)| {
            let setting = Setting {
                handle: ground.runtime.handle().clone(),
                stores: stores.clone(),
                default_table: ground.tables[DEFAULT].clone(),
                objects: Arc::clone(&objects),
                clock: Arc::clone(&clock),
                segment_bytes,
                index_limit: 1_000,
                max_open_bytes: 1 << 20,
                checkpoint_every: 1_000,
                broken: Broken::default(),
            };
            Archiver::new(setting, seed)
        });
        let archivers = archivers.collect();
        Self { ground, clock, objects, archivers }
    }

    /// Tells an archiver something of a trace, a minute after what it was told before.
    fn tell(&mut self, at: usize, table: usize, number: u8, said: Said) {
        self.clock.advance(Duration::from_secs(60));
        let request = Request { table, said: vec![(trace(number), said)] };
        let route = Route {
            experiment_id: self.ground.experiments[table].clone(),
            table: self.ground.tables[table].clone(),
        };
        let now = self.archivers[at].now_unix_nano();
        let record = record(&request, route, now, Broken::default()).unwrap();
        assert!(self.archivers[at].append(vec![record]).iter().all(Result::is_ok));
    }

    fn span(&mut self, at: usize, table: usize, number: u8) {
        let span = SpanKey { span: SpanId([0, 0, 0, 0, 0, 0, 0, 1]), name: "one".to_owned() };
        self.tell(at, table, number, Said::Span(span));
    }

    /// Starts an archiver, of which the first PUT after so many more is the last.
    fn start(&mut self, at: usize, last_put: Option<u64>) -> bool {
        let fault = last_put.map(|after| (Fault::KillAtPut, after, ALONE));
        self.archivers[at].start(None, fault, Vec::new()).is_ok()
    }

    fn is_flushed(&mut self, at: usize) -> bool {
        self.clock.advance(Duration::from_secs(60));
        self.archivers[at].flush().is_ok_and(|outcome| outcome.failed.is_empty())
    }

    /// The version of a table, and its rows by number of the trace.
    fn table(&self, table: usize) -> (u64, Vec<u8>) {
        let store = SimulatedStore::new(Arc::clone(&self.objects), None, Arc::clone(&self.clock));
        let runtime = self.ground.runtime.handle();
        let lake = Lake::over(Arc::new(store), store_root().unwrap(), runtime);
        let folder = self.ground.stores[0].folder.table(&self.ground.tables[table]);
        let snapshot = Table::at(&lake, folder).unwrap().snapshot(None).unwrap();
        let mut rows = Vec::new();
        let mut add = |row: TraceDraft| {
            rows.push(row.trace_id.0[15]);
            Ok(())
        };
        snapshot.for_each_trace(None, &mut add).unwrap();
        rows.sort_unstable();
        (snapshot.version(), rows)
    }

    /// The files of a table's log.
    fn log(&self, table: usize) -> Vec<Path> {
        let name = self.ground.tables[table].table();
        let listed: Vec<_> =
            self.ground.runtime.block_on(self.objects.memory().list(None).try_collect()).unwrap();
        let paths = listed.into_iter().map(|file: object_store::ObjectMeta| file.location);
        let is_log = |path: &Path| {
            let text = path.to_string();
            text.contains("_delta_log") && text.contains(&format!("/{name}/"))
        };
        paths.filter(is_log).collect()
    }

    /// What an archiver has set aside.
    fn parked(&self, at: usize) -> usize {
        self.archivers[at].parked().len()
    }
}

/// Scenario: requests for two tables wait in the journal; a start that takes them in together ends when one
/// of both tables has its part, and so does each later one that brings anything to the other table.
/// Guarantees: the starts come to an end; what ends them is set aside, one by one, and nothing else; the
/// first table gets nothing once more; what is put back arrives once.
#[test]
fn a_part_that_one_table_has_is_divided_for_the_other() {
    let ground = Ground::new().unwrap();
    let mut bench = Bench::new(&ground, 1 << 20);
    assert!(bench.start(0, None));
    for number in 1..=8 {
        bench.span(0, if number % 2 == 0 { DEFAULT } else { OTHER }, number);
    }
    assert!(bench.is_flushed(0));
    for number in 11..=18 {
        bench.span(0, if number % 2 == 0 { DEFAULT } else { OTHER }, number);
    }
    bench.archivers[0].end_process();
    // As a whole; then in one part, at the version of the first table, behind its file of data.
    assert!(!bench.start(0, Some(0)));
    assert!(!bench.start(0, Some(2)));
    let odd = vec![1, 3, 5, 7, 11, 13, 15, 17];
    let (version, rows) = bench.table(OTHER);
    assert_eq!(rows, odd);
    let starts = (1..=STARTS).find(|_| bench.start(0, Some(0)));
    // Eight for each of four that end it alone, one for each part that is left after three of them, and the one
    // that lives.
    assert_eq!((starts, bench.parked(0)), (Some(36), 4));
    bench.archivers[0].heal();
    assert!(bench.is_flushed(0));
    assert_eq!(bench.table(OTHER), (version, odd));
    assert_eq!(bench.table(DEFAULT).1, [2, 4, 6, 8]);
    assert_eq!(bench.archivers[0].put_back_parked().unwrap(), 4);
    assert!(bench.is_flushed(0));
    assert_eq!(bench.table(DEFAULT).1, [2, 4, 6, 8, 12, 14, 16, 18]);
    assert_eq!(bench.parked(0), 0);
}

/// Scenario: a start ends when a table has its part of a replay; the next one cannot read that table's log;
/// later it can be read again.
/// Guarantees: the replay goes on and the service answers; the other table gets what is for it; once it
/// can be read, the table has each trace once, in no version more than it takes for what it did not have.
#[test]
fn a_table_that_does_not_answer_does_not_hold_up_a_replay_by_parts() {
    let ground = Ground::new().unwrap();
    for is_in in [true, false] {
        let mut bench = Bench::new(&ground, 1 << 20);
        assert!(bench.start(0, None));
        bench.span(0, OTHER, 1);
        bench.span(0, DEFAULT, 2);
        assert!(bench.is_flushed(0));
        for number in 11..=14 {
            bench.span(0, if number % 2 == 0 { DEFAULT } else { OTHER }, number);
        }
        bench.archivers[0].end_process();
        assert!(!bench.start(0, Some(0)));
        assert!(!bench.start(0, Some(if is_in { 2 } else { 1 })));
        let (version, rows) = bench.table(OTHER);
        assert_eq!(rows.len(), if is_in { 3 } else { 1 });
        let newest = bench.log(OTHER).into_iter().max().unwrap();
        let memory = Arc::clone(bench.objects.memory());
        let runtime = bench.ground.runtime.handle();
        let whole = runtime.block_on(async { memory.get(&newest).await?.bytes().await }).unwrap();
        runtime.block_on(memory.put(&newest, "{".into())).unwrap();

        assert!(bench.start(0, None));
        assert!(!bench.is_flushed(0));
        assert_eq!(bench.table(DEFAULT).1, [2, 12, 14]);
        bench.span(0, DEFAULT, 16);
        assert!(!bench.is_flushed(0));
        assert_eq!(bench.table(DEFAULT).1, [2, 12, 14, 16]);
        // What is not noted is replayed once more.
        bench.archivers[0].end_process();
        assert!(bench.start(0, None));
        runtime.block_on(memory.put(&newest, whole.into())).unwrap();
        assert!(bench.is_flushed(0));
        // An empty one settles that what is not in does not come any more.
        let more = if is_in { 0 } else { 2 };
        assert_eq!(bench.table(OTHER), (version + more, vec![1, 11, 13]));
        assert_eq!(bench.table(DEFAULT).1, [2, 12, 14, 16]);
    }
}

/// Scenario: a replay by parts was noted; an ordinary epoch after it came into its table and was not noted;
/// another archiver deleted its traces; starts by parts end at operations of the file system, one in seven.
/// Guarantees: what that epoch brought is not brought again: what was deleted stays so.
#[test]
fn the_plan_of_an_ordinary_epoch_outlives_the_parts_before_it() {
    let ground = Ground::new().unwrap();
    let mut last = 0;
    for operations in (0..).step_by(7) {
        let mut bench = Bench::new(&ground, 600);
        assert!(bench.start(0, None) && bench.start(1, None));
        [1, 7].into_iter().for_each(|number| bench.span(0, DEFAULT, number));
        bench.archivers[0].end_process();
        // The whole of it, then in parts, of which the last is noted.
        assert!(!bench.start(0, Some(0)));
        assert!(bench.start(0, None));
        // Several segments of one epoch, which dies when its version is there.
        (2..=6).for_each(|number| bench.span(0, DEFAULT, number));
        bench.archivers[0].arm(Fault::KillAtVersion, 0, ALONE);
        bench.archivers[0].flush().ok();
        assert!(bench.archivers[0].bury());
        assert_eq!(bench.table(DEFAULT).1, [1, 2, 3, 4, 5, 6, 7]);
        (2..=6).for_each(|number| bench.tell(1, DEFAULT, number, Said::Deleted));
        assert!(bench.is_flushed(1));
        assert_eq!(bench.table(DEFAULT).1, [1, 7]);

        let started = bench.archivers[0].start(Some((operations, false)), None, Vec::new());
        bench.archivers[0].heal();
        if started.is_err() {
            assert!((0..STARTS).any(|_| bench.start(0, None)));
        }
        assert!(bench.is_flushed(0));
        assert_eq!(bench.table(DEFAULT).1, [1, 7], "it died after {operations}");
        last = operations;
        if started.is_ok() {
            break;
        }
    }
    assert!(20 < last, "{last} operations");
}
