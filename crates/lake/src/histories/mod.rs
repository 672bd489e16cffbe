//! A row is a function of what was sent: the same requests, cut, repeated, flushed, carried over and
//! put back by chance, end in the same row. A history follows from its seed.

mod requests;

use std::collections::{BTreeMap, HashMap, HashSet};

use arrow::array::{Array, RecordBatch};
use tracelake_decode::{DecodedRecord, decode_record};
use tracelake_model::schema::traces_schema;
use tracelake_model::{TraceChange, TraceId};
use tracelake_testkit::Random;

use self::requests::{Request, TestSpan, records, requests, table};
use crate::assemble::{Assembler, SettleRules, Take};
use crate::commit::merge::{Age, Amended, amend};
use crate::commit::tests::Fixture;
use crate::rows::{TraceDraft, conform, encode, rebuild_traces};

/// Columns that say when and how often a row was written.
const OF_WRITING: [&str; 3] = ["created_at", "updated_at", "revision"];

/// Columns that depend on the order of first arrival, by `docs/table.md`.
const OF_ARRIVAL: [&str; 3] = ["run_id", "experiment_id", "said"];

/// Where settled pieces of traces go.
trait Rows {
    fn commit(&mut self, pieces: Vec<TraceDraft>);
    /// A process that starts anew.
    fn restart(&mut self);
    /// The rows, by trace.
    fn rows(&mut self) -> BTreeMap<TraceId, RecordBatch>;
}

/// Rows in memory, written and read back each time.
#[derive(Default)]
struct EncodedRows(BTreeMap<TraceId, RecordBatch>);

impl Rows for EncodedRows {
    fn commit(&mut self, pieces: Vec<TraceDraft>) {
        for piece in pieces {
            let id = piece.trace_id;
            let row = match self.0.get(&id) {
                None if piece.is_blank() => continue,
                None => piece,
                Some(row) => match amend(rebuild_traces(row).unwrap(), &piece, Age::Younger, 9) {
                    Amended::Unchanged => continue,
                    Amended::Row(row) => *row,
                    Amended::Deleted => {
                        self.0.remove(&id);
                        continue;
                    }
                },
            };
            self.0.insert(id, encode([&row]).unwrap());
        }
    }

    fn restart(&mut self) {}

    fn rows(&mut self) -> BTreeMap<TraceId, RecordBatch> {
        self.0.clone()
    }
}

/// Rows of a real table.
struct TableRows {
    fixture: Fixture,
    writer: crate::TableWriter,
    epoch: i64,
}

impl TableRows {
    fn new() -> Self {
        let fixture = Fixture::new();
        let writer = fixture.writer("one");
        Self { fixture, writer, epoch: 0 }
    }
}

impl Rows for TableRows {
    fn commit(&mut self, pieces: Vec<TraceDraft>) {
        self.epoch += 1;
        self.writer.commit_epoch(self.epoch, &pieces).unwrap();
    }

    fn restart(&mut self) {
        self.writer = self.fixture.writer("one");
    }

    fn rows(&mut self) -> BTreeMap<TraceId, RecordBatch> {
        let mut rows = BTreeMap::new();
        for batch in self.fixture.batches() {
            let batch = conform(&batch, &traces_schema()).unwrap();
            for (row, draft) in rebuild_traces(&batch).unwrap().into_iter().enumerate() {
                let before = rows.insert(draft.trace_id, batch.slice(row, 1));
                assert!(before.is_none(), "{} has two rows", draft.trace_id);
            }
        }
        rows
    }
}

/// One trace and what is sent of it.
struct History {
    seed: u64,
    trace: TraceId,
    requests: Vec<Request>,
}

impl History {
    fn new(seed: u64) -> Self {
        let trace = TraceId((u128::from(seed) + 1).to_be_bytes());
        Self { seed, trace, requests: requests(&mut Random::new(seed)) }
    }
}

fn take_out(assembler: &mut Assembler, trace: TraceId) -> Option<TraceDraft> {
    assembler.take_out(&[trace]).pop()
}

/// The row of the requests as they are, at once.
fn plain(histories: &[History], order: &dyn Fn(&History) -> Vec<Request>) -> EncodedRows {
    let mut rows = EncodedRows::default();
    for history in histories {
        let mut assembler = Assembler::default();
        for request in order(history) {
            for record in records(history.trace, &request, &mut || false) {
                assembler.push(record, 1);
            }
        }
        rows.commit(take_out(&mut assembler, history.trace).into_iter().collect());
    }
    rows
}

/// Sends the requests of all histories with all that may happen between.
fn disturbed(histories: &[History], rows: &mut dyn Rows, salt: u64) {
    let mut assembler = Assembler::default();
    let mut random = Random::new(salt ^ histories[0].seed);
    let steps = histories.iter().map(|history| history.requests.len()).max().unwrap_or_default();
    let mut sent: HashMap<TraceId, Vec<DecodedRecord>> = HashMap::new();
    for step in 0..steps {
        let mut flushed = Vec::new();
        for history in histories {
            let Some(request) = history.requests.get(step) else { continue };
            let sent = sent.entry(history.trace).or_default();
            for record in records(history.trace, request, &mut || random.chance(50)) {
                match request {
                    Request::Change(change) => {
                        // A call that is sent again comes before any other one.
                        for _ in 0..random.below(2) {
                            assembler.push(record.clone(), 1);
                        }
                        if *change == TraceChange::Delete {
                            sent.clear();
                        }
                    }
                    Request::Spans { .. } | Request::Start(_) => sent.push(record.clone()),
                }
                assembler.push(record, 1);
                while !sent.is_empty() && random.chance(35) {
                    assembler.push(sent[random.below(sent.len())].clone(), 1);
                }
            }
            if random.chance(30) {
                flushed.extend(take_out(&mut assembler, history.trace));
            }
        }
        // Some of it is open again, with what came since.
        flushed.retain(|piece| {
            let fails = random.chance(30);
            if fails {
                for record in sent.get(&piece.trace_id).into_iter().flatten() {
                    if random.chance(30) {
                        assembler.push(record.clone(), 1);
                    }
                }
                assembler.put_back(&table(), piece.clone(), random.chance(50));
            }
            !fails
        });
        if !flushed.is_empty() {
            rows.commit(flushed);
        }
        if random.chance(15) {
            rows.restart();
        }
        if random.chance(30) {
            let mut again = Assembler::default();
            for (header, payload) in assembler.carry() {
                again.push(decode_record(header, &payload.into()).unwrap(), 1);
            }
            assembler = again;
        }
    }
    let everything = Take { everything: true, late: true, ready: &|_| true };
    let rest = assembler.settle(&SettleRules::default(), u64::MAX, &everything);
    rows.commit(rest.into_values().flatten().collect());
}

/// Fails where two rows of a trace differ in a column that is not among `but`.
fn compare(
    history: &History,
    one: Option<&RecordBatch>,
    other: Option<&RecordBatch>,
    but: &[&str],
) {
    let shown = || format!("seed {}\n{:?}", history.seed, history.requests);
    let (Some(one), Some(other)) = (one, other) else {
        assert_eq!(one.is_some(), other.is_some(), "{}", shown());
        return;
    };
    for field in one.schema().fields() {
        let name = field.name().as_str();
        let [left, right] = [one, other].map(|row| row.column_by_name(name).unwrap());
        assert!(but.contains(&name) || left == right, "{name}:\n{left:?}\n{right:?}\n{}", shown());
    }
}

fn check(histories: &[History], rows: &mut dyn Rows, salt: u64) {
    let expected = plain(histories, &|history| history.requests.clone());
    disturbed(histories, rows, salt);
    let found = rows.rows();
    for history in histories {
        let [one, other] = [&expected.0, &found].map(|rows| rows.get(&history.trace));
        compare(history, one, other, &OF_WRITING);
    }
}

/// Scenario: spans of few ids, starts, contents, services and experiments, MLflow's copies of them, in requests
/// whose own experiment stands over those of resources and in others,
/// `start_trace` requests, tags, assessments, links and deletions, by chance; the same with requests
/// cut, sent again, flushed, put back and carried over in between, through rows in memory.
/// Guarantees: with the order of first arrival as it was, the row is the same.
#[test]
fn rows_do_not_depend_on_how_their_requests_came() {
    for seed in 0..10_000 {
        check(&[History::new(seed)], &mut EncodedRows::default(), 1);
    }
}

/// Scenario: the same through the versions of real tables, with writers that start anew.
/// Guarantees: the same.
#[test]
fn rows_of_tables_do_not_depend_on_how_their_requests_came() {
    const AT_A_TIME: u64 = 50;
    let wanted = std::env::var("TRACELAKE_ROW_HISTORIES").ok();
    let wanted: u64 = wanted.map_or(300, |count| count.parse().unwrap());
    for first in (0..wanted).step_by(usize::try_from(AT_A_TIME).unwrap()) {
        let histories: Vec<History> =
            (first..wanted.min(first + AT_A_TIME)).map(History::new).collect();
        check(&histories, &mut TableRows::new(), 2);
    }
}

/// Scenario: the requests with spans of a history, each cut into single spans, in another order.
/// Guarantees: nothing of the row differs but what is documented to depend on first arrival; tags
/// do where spans share id and start, and nowhere else.
#[test]
fn another_order_of_arrival_changes_nothing_but_what_is_named() {
    let mut differing_tags = 0;
    for seed in 0..3_000 {
        let mut history = History::new(seed);
        history.requests.retain(|request| matches!(request, Request::Spans { .. }));
        let shuffled = |history: &History| {
            let mut random = Random::new(seed ^ 3);
            let mut single: Vec<Request> = Vec::new();
            for request in &history.requests {
                let Request::Spans { spans, experiment, overrules, run } = request else {
                    continue;
                };
                single.extend(spans.iter().map(|span| Request::Spans {
                    spans: vec![*span],
                    experiment: *experiment,
                    overrules: *overrules,
                    run: *run,
                }));
            }
            for left in (1..single.len()).rev() {
                single.swap(left, random.below(left + 1));
            }
            single
        };
        let histories = [history];
        let expected = plain(&histories, &|history| history.requests.clone());
        let found = plain(&histories, &shuffled);
        let [one, other] = [&expected.0, &found.0].map(|rows| rows.get(&histories[0].trace));
        let mut but = [&OF_WRITING[..], &OF_ARRIVAL[..]].concat();
        if shares_a_place(&histories[0].requests) {
            but.push("tags");
            let tags = |row: Option<&RecordBatch>| Some(row?.column_by_name("tags")?.to_data());
            differing_tags += usize::from(tags(one) != tags(other));
        }
        compare(&histories[0], one, other, &but);
    }
    assert!(0 < differing_tags, "the last span of an id is told by its arrival");
}

fn shares_a_place(requests: &[Request]) -> bool {
    let mut spans: Vec<TestSpan> = Vec::new();
    for request in requests {
        let Request::Spans { spans: sent, .. } = request else { continue };
        for span in sent {
            if !spans.contains(span) {
                spans.push(*span);
            }
        }
    }
    let places: HashSet<(u8, u8)> = spans.iter().map(|span| span.place()).collect();
    places.len() < spans.len()
}
