use std::ops::Range;

use tracelake_decode::{SpanSource, decode_otlp};
use tracelake_model::{ExperimentId, Limits};
use tracelake_testkit::{FakeClock, spans};

use super::*;
use crate::rows::rebuild_traces;
use crate::{Lake, TableLocation};

struct Fixture {
    _folder: tempfile::TempDir,
    table: Table,
    clock: Arc<FakeClock>,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::new().unwrap();
        let table = Table::at(&lake, TableLocation::new(folder.path().join("t"))).unwrap();
        Self { _folder: folder, table, clock: Arc::new(FakeClock::default()) }
    }

    fn writer(&self, application: &str) -> TableWriter {
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        TableWriter::open(self.table.clone(), application.to_owned(), clock, 1_000).unwrap()
    }

    /// Every live row, read back: trace, spans, revision.
    fn rows(&self) -> Vec<(u128, usize, i32)> {
        let snapshot = self.table.snapshot(None).unwrap();
        let mut rows = Vec::new();
        for file in snapshot.live_files((None, None)).unwrap() {
            let deleted = snapshot.deleted_rows(&file).unwrap();
            let live: Vec<u64> =
                (0..file.record_count.unwrap()).filter(|row| !deleted.contains(row)).collect();
            let opened = self.table.files.open(&file.path).unwrap();
            for batch in crate::data_file::read_rows(opened, &live).unwrap() {
                for draft in rebuild_traces(&batch).unwrap() {
                    let id = u128::from_be_bytes(draft.trace_id.0) - 1;
                    rows.push((id, draft.spans.len(), draft.revision));
                }
            }
        }
        rows.sort_unstable();
        rows
    }
}

fn draft(trace: u128, range: Range<u64>) -> TraceDraft {
    let body = spans::simple_request(trace, range);
    let decoded = decode_otlp(&body, SpanSource::Otlp, &Limits::default()).unwrap();
    TraceDraft {
        trace_id: decoded.spans[0].trace_id,
        experiment_id: Some(ExperimentId::default_experiment()),
        run_id: None,
        info: None,
        spans: decoded.spans,
        created_at_micros: 5,
        updated_at_micros: 5,
        revision: 1,
    }
}

/// Scenario: two epochs, the first of them committed twice, by one process and by a restarted one.
/// Guarantees: each trace has one row; the repeated epoch commits nothing.
#[test]
fn an_epoch_is_committed_once() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer("one");
    let epoch = [draft(1, 0..2), draft(2, 0..3)];
    assert_eq!(writer.commit_epoch(1, &epoch).unwrap().appended, 2);
    assert!(writer.commit_epoch(1, &epoch).unwrap().already_committed);
    let mut restarted = fixture.writer("one");
    assert!(restarted.commit_epoch(1, &epoch).unwrap().already_committed);
    assert_eq!(restarted.committed_epoch().unwrap(), Some(1));
    assert_eq!(restarted.commit_epoch(2, &[draft(3, 0..1)]).unwrap().appended, 1);
    assert_eq!(fixture.rows(), [(1, 2, 1), (2, 3, 1), (3, 1, 1)]);
}

/// Scenario: late spans for one archived trace, a copy for another, a new trace, in one epoch,
/// then the amended trace again.
/// Guarantees: one row per trace with all spans; the copy changes nothing; revisions count.
#[test]
fn late_spans_end_in_the_same_row() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer("one");
    writer.commit_epoch(1, &[draft(1, 0..2), draft(2, 0..2)]).unwrap();
    let outcome =
        writer.commit_epoch(2, &[draft(1, 1..4), draft(2, 0..1), draft(3, 0..1)]).unwrap();
    assert_eq!((outcome.appended, outcome.amended, outcome.unchanged), (1, 1, 1));
    assert_eq!(fixture.rows(), [(1, 4, 2), (2, 2, 1), (3, 1, 1)]);
    let outcome = fixture.writer("one").commit_epoch(3, &[draft(1, 4..5), draft(2, 7..8)]).unwrap();
    assert_eq!((outcome.appended, outcome.amended), (0, 2));
    assert_eq!(fixture.rows(), [(1, 5, 3), (2, 3, 2), (3, 1, 1)]);
}

/// Scenario: an epoch whose amendment was committed but whose append was not, as a crash between
/// the two leaves it.
/// Guarantees: the replay appends and does not amend again.
#[test]
fn a_crash_between_amendment_and_append_repeats_nothing() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer("one");
    writer.commit_epoch(1, &[draft(1, 0..1)]).unwrap();
    let late = draft(1, 1..2);
    let wanted = HashSet::from([late.trace_id]);
    let found = writer.find(&wanted).unwrap();
    assert!(matches!(writer.amend(&[&late], &found, None), Ok(Step::Done(1))));
    let outcome = fixture.writer("one").commit_epoch(2, &[late, draft(2, 0..1)]).unwrap();
    assert_eq!((outcome.appended, outcome.amended, outcome.unchanged), (1, 0, 1));
    assert_eq!(fixture.rows(), [(1, 2, 2), (2, 1, 1)]);
}

/// Scenario: two archivers append in turn to one table, each with a stale snapshot, and both get
/// spans of one trace.
/// Guarantees: no epoch is lost to the conflict, and the shared trace has one row.
#[test]
fn two_archivers_share_a_table() {
    let fixture = Fixture::new();
    let mut one = fixture.writer("one");
    let mut two = fixture.writer("two");
    one.commit_epoch(1, &[draft(1, 0..1)]).unwrap();
    two.commit_epoch(1, &[draft(2, 0..1)]).unwrap();
    one.commit_epoch(2, &[draft(3, 0..2)]).unwrap();
    two.commit_epoch(2, &[draft(3, 2..4)]).unwrap();
    assert_eq!(fixture.rows(), [(1, 1, 1), (2, 1, 1), (3, 4, 2)]);
}
