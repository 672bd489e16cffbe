use std::ops::Range;

use arrow::array::RecordBatch;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use tracelake_decode::{SpanGroup, SpanSource, decode_otlp};
use tracelake_model::trace_info::INFO_FINALIZED;
use tracelake_model::{ExperimentId, Limits, TraceChange, TraceId, TraceInfo};
use tracelake_testkit::{FakeClock, spans};

use super::*;
use crate::rows::{ExperimentBy, rebuild_traces};
use crate::{Lake, TableLocation};

pub(crate) struct Fixture {
    _folder: tempfile::TempDir,
    pub(crate) table: Table,
    clock: Arc<FakeClock>,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::new().unwrap();
        let table = Table::at(&lake, TableLocation::new(folder.path().join("t"))).unwrap();
        Self { _folder: folder, table, clock: Arc::new(FakeClock::default()) }
    }

    pub(crate) fn writer(&self, application: &str) -> TableWriter {
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        TableWriter::open(self.table.clone(), application.to_owned(), clock, 1_000).unwrap()
    }

    /// Every live row.
    pub(crate) fn batches(&self) -> Vec<RecordBatch> {
        let snapshot = self.table.snapshot(None).unwrap();
        let mut batches = Vec::new();
        for file in snapshot.live_files((None, None)).unwrap() {
            let deleted = snapshot.deleted_rows(&file).unwrap();
            let live: Vec<u64> =
                (0..file.record_count.unwrap()).filter(|row| !deleted.contains(row)).collect();
            let opened = self.table.files.open(&file.path).unwrap();
            batches.extend(crate::data_file::read_rows(opened, &live).unwrap().map(Result::unwrap));
        }
        batches
    }

    /// The experiment of every live row.
    fn experiments(&self) -> Vec<ExperimentId> {
        let drafts = self.batches().into_iter().flat_map(|batch| rebuild_traces(&batch).unwrap());
        drafts.filter_map(|draft| draft.experiment_id).collect()
    }

    /// Every live row, read back: trace, spans, revision.
    pub(crate) fn rows(&self) -> Vec<(u128, usize, i32)> {
        let mut rows = Vec::new();
        for batch in self.batches() {
            for draft in rebuild_traces(&batch).unwrap() {
                let id = u128::from_be_bytes(draft.trace_id.0) - 1;
                rows.push((id, draft.spans.len(), draft.revision));
            }
        }
        rows.sort_unstable();
        rows
    }
}

pub(crate) fn draft(trace: u128, range: Range<u64>) -> TraceDraft {
    let body = spans::simple_request(trace, range);
    let decoded = decode_otlp(&body, SpanSource::Otlp, &Limits::default()).unwrap();
    let trace_id = decoded.spans[0].trace_id;
    TraceDraft {
        experiment_id: Some(ExperimentId::default_experiment()),
        spans: decoded.spans,
        created_at_micros: 5,
        updated_at_micros: 5,
        ..TraceDraft::new(trace_id)
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

/// Scenario: an epoch with late spans of two traces, a deletion and two traces that are nowhere.
/// Guarantees: it is one version, and its change data has every row that changed, the appended ones
/// too: readers of the feed look at nothing else in it. Both images of a row lie side by side.
#[test]
fn an_epoch_is_one_version() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer("one");
    writer.commit_epoch(1, &[draft(1, 0..1), draft(2, 0..1), draft(5, 0..2)]).unwrap();
    let before = writer.snapshot().version();
    let gone = changes(2, vec![TraceChange::Delete]);
    let traces = [draft(1, 1..2), gone, draft(5, 2..3), draft(3, 0..1), draft(4, 0..2)];
    let outcome = writer.commit_epoch(2, &traces).unwrap();
    assert_eq!((outcome.appended, outcome.amended, outcome.deleted), (2, 2, 1));
    assert_eq!(outcome.version, before + 1);
    assert_eq!(fixture.rows(), [(1, 2, 2), (3, 1, 1), (4, 2, 1), (5, 3, 2)]);
    let folder = fixture.table.location().folder().join("_change_data");
    let mut changed = Vec::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let file = std::fs::File::open(file.unwrap().path()).unwrap();
        crate::data_file::read_text_column(
            crate::storage::OpenedFile::Local(file),
            "_change_type",
            |_, text| {
                changed.extend(text.map(str::to_owned));
            },
        )
        .unwrap();
    }
    let [before, after] = ["update_preimage", "update_postimage"];
    assert_eq!(changed, [before, after, before, after, "delete", "insert", "insert"]);
}

/// Scenario: late spans of four traces whose rows do not fit into memory together, and a new one.
/// Guarantees: what is left out is told before the version is written, with the new trace in it; if
/// that cannot be noted nothing is committed; handed over again and again all of it gets in.
#[test]
fn what_memory_has_no_room_for_is_deferred() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer("one");
    // Of two files, since the rows of one are read a few at a time.
    writer.commit_epoch(1, &[draft(1, 0..1), draft(2, 0..1)]).unwrap();
    writer.commit_epoch(2, &[draft(3, 0..1), draft(4, 0..1)]).unwrap();
    writer.round_bytes = 1;
    let mut left: Vec<TraceDraft> = (1..=5).map(|trace| draft(trace, 1..2)).collect();
    let application = writer.application_id().to_owned();
    let mark = |number| EpochMark { application: application.clone(), number, nonce: Some(9) };
    let version = writer.snapshot().version();
    let mut fails = |_: &HashSet<TraceId>| Err(writer_error());
    writer.commit_planned(&mark(3), &left, Some(&mut fails)).unwrap_err();
    assert!(!writer.is_in_doubt());
    assert_eq!(fixture.table.snapshot(None).unwrap().version(), version);
    let mut sizes = Vec::new();
    for epoch in 3.. {
        let mut deferred = HashSet::new();
        let table = fixture.table.clone();
        let mut note = |traces: &HashSet<TraceId>| {
            assert_eq!(
                table.snapshot(None).unwrap().committed_epoch("one").unwrap(),
                Some(epoch - 1)
            );
            deferred.clone_from(traces);
            Ok(())
        };
        writer.commit_planned(&mark(epoch), &left, Some(&mut note)).unwrap();
        left.retain(|trace| deferred.contains(&trace.trace_id));
        sizes.push(left.len());
        if left.is_empty() {
            break;
        }
    }
    assert_eq!(sizes, [2, 0]);
    assert_eq!(fixture.rows(), [(1, 2, 2), (2, 2, 2), (3, 2, 2), (4, 2, 2), (5, 1, 1)]);
}

/// Scenario: late spans of four traces, more than memory has room for, for a table that takes new rows alone.
/// Guarantees: all are left out; those that were not looked at are not said to be refused.
#[test]
fn what_was_not_looked_at_is_not_refused() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer("one");
    writer.commit_epoch(1, &[draft(1, 0..1), draft(2, 0..1)]).unwrap();
    writer.commit_epoch(2, &[draft(3, 0..1), draft(4, 0..1)]).unwrap();
    crate::log::tests::alter(&fixture, |metadata| {
        metadata["configuration"]["delta.appendOnly"] = serde_json::json!("true");
    });
    writer.round_bytes = 1;
    let left: Vec<TraceDraft> = (1..=4).map(|trace| draft(trace, 1..2)).collect();
    let mark = EpochMark { application: "one".to_owned(), number: 3, nonce: Some(9) };
    let mut deferred = HashSet::new();
    let mut note = |traces: &HashSet<TraceId>| {
        deferred.clone_from(traces);
        Ok(())
    };
    let outcome = writer.commit_planned(&mark, &left, Some(&mut note)).unwrap();
    assert_eq!((outcome.kept.len(), deferred.len()), (2, 4));
    assert!(outcome.kept.iter().all(|trace| deferred.contains(trace)));
}

/// Overwrites what a data file has of the names of spans.
fn damage_spans(path: &std::path::Path) {
    let file = std::fs::File::open(path).unwrap();
    let reader = SerializedFileReader::new(file).unwrap();
    let columns = reader.metadata().row_group(0).columns().iter();
    let names = |column: &&ColumnChunkMetaData| {
        let path = column.column_path().string();
        path.starts_with("spans.") && path.ends_with(".name")
    };
    let (start, length) = columns.into_iter().find(names).unwrap().byte_range();
    let [start, length] = [start, length].map(|number| usize::try_from(number).unwrap());
    let mut bytes = std::fs::read(path).unwrap();
    bytes[start..start + length].fill(0xff);
    std::fs::write(path, bytes).unwrap();
}

/// Scenario: five traces in files of their own, of which two have damaged spans; then late spans of all five and a
/// trace that is not there come together, and once more after the files are mended.
/// Guarantees: the two are left out and named with what is wrong; the others get in, and the two too once their
/// rows can be read.
#[test]
fn a_row_that_cannot_be_read_keeps_nothing_else_out() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer("one");
    for trace in 1..=5 {
        writer.commit_epoch(trace, &[draft(u128::try_from(trace).unwrap(), 0..1)]).unwrap();
    }
    let folder = fixture.table.location().folder();
    let file_of = |trace: u128| {
        let snapshot = fixture.table.snapshot(None).unwrap();
        let found = snapshot.live_files((None, None)).unwrap().into_iter().find(|file| {
            let opened = fixture.table.files.open(&file.path).unwrap();
            crate::data_file::read_rows(opened, &[0]).unwrap().any(|batch| {
                rebuild_traces(&batch.unwrap()).unwrap()[0].trace_id == draft(trace, 0..1).trace_id
            })
        });
        folder.join(found.unwrap().path)
    };
    let damaged: Vec<_> = [2, 4].map(file_of).into_iter().collect();
    let kept: Vec<_> = damaged.iter().map(|path| std::fs::read(path).unwrap()).collect();
    damaged.iter().for_each(|path| damage_spans(path));
    let late: Vec<TraceDraft> =
        (1..=5).map(|trace| draft(trace, 1..2)).chain([draft(6, 0..1)]).collect();
    let mark = |number| EpochMark { application: "one".to_owned(), number, nonce: Some(9) };
    let mut deferred = HashSet::new();
    let mut note = |traces: &HashSet<TraceId>| {
        deferred.clone_from(traces);
        Ok(())
    };
    let outcome = writer.commit_planned(&mark(6), &late, Some(&mut note)).unwrap();
    assert_eq!((outcome.amended, outcome.appended, outcome.unreadable.len()), (3, 1, 2));
    assert!(outcome.fault.is_some());
    let left: HashSet<TraceId> = outcome.unreadable.into_iter().collect();
    assert_eq!((&left, &left), (&deferred, &HashSet::from([late[1].trace_id, late[3].trace_id])));
    assert!(writer.commit_epoch(7, &late[1..2]).is_err(), "who leaves nothing out is told");
    for (path, bytes) in damaged.iter().zip(kept) {
        std::fs::write(path, bytes).unwrap();
    }
    let outcome = writer.commit_planned(&mark(8), &late, Some(&mut |_| Ok(()))).unwrap();
    assert_eq!((outcome.amended, outcome.unreadable.len(), outcome.unchanged), (2, 0, 4));
    assert_eq!(fixture.rows().len(), 6);
}

fn writer_error() -> LakeError {
    LakeError::Row { path: "plan".to_owned(), reason: "no room".to_owned() }
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

/// Scenario: two archivers get the spans of one trace in turn, beside traces of their own.
/// Guarantees: the trace is looked for in the files that had it, not in all of the table, however
/// often the other archiver moved its row.
#[test]
fn a_shared_trace_is_looked_for_where_it_was() {
    let fixture = Fixture::new();
    let mut writers = [fixture.writer("one"), fixture.writer("two")];
    for epoch in 1..=8_u64 {
        for (writer, own) in writers.iter_mut().zip([100, 200]) {
            let spans = (2 * epoch + own / 200)..(2 * epoch + own / 200 + 1);
            let traces = [draft(u128::from(own + epoch), 0..1), draft(7, spans)];
            writer.commit_epoch(i64::try_from(epoch).unwrap(), &traces).unwrap();
        }
    }
    let rows = fixture.rows();
    assert_eq!(rows[0], (7, 16, 16));
    assert_eq!(rows.len(), 17);
    for writer in &mut writers {
        let shared = HashSet::from([TraceId(8_u128.to_be_bytes())]);
        writer.refresh().unwrap();
        assert_eq!(writer.find(&shared).unwrap().len(), 1);
        let files = writer.live_files().unwrap();
        let looked_at = writer.index.candidates(&files, &shared).len();
        assert!(looked_at <= 2 && 15 < files.len(), "{looked_at} of {}", files.len());
    }
}

fn plan<'a>(
    writer: &mut TableWriter,
    late: &'a TraceDraft,
    wanted: &HashSet<TraceId>,
) -> Amendment<'a> {
    let found = writer.find(wanted).unwrap();
    let plan = writer.plan_amendment(&[late], &found, Age::Younger, usize::MAX).unwrap();
    Amendment { plan, late: vec![late], fresh: Vec::new(), found, mark: None, txn: Vec::new() }
}

/// Scenario: between plan and commit of an amendment another archiver appends, and amends another
/// trace of the same file; then it amends the same trace.
/// Guarantees: the plan is committed on the version that came first, with all deletions of both;
/// where the trace changed it is not, and the next attempt has the spans of both.
#[test]
fn an_amendment_that_comes_second_stands_beside_other_traces() {
    let fixture = Fixture::new();
    let mut one = fixture.writer("one");
    let mut two = fixture.writer("two");
    one.commit_epoch(1, &[draft(1, 0..1), draft(2, 0..1), draft(3, 0..1)]).unwrap();
    let late = draft(1, 1..2);
    let wanted = HashSet::from([late.trace_id]);
    let planned = plan(&mut one, &late, &wanted);
    two.commit_epoch(1, &[draft(2, 1..3), draft(4, 0..1)]).unwrap();
    let done = one.amend(planned).unwrap();
    assert!(matches!(done, Step::Done(())), "{done:?}");
    assert_eq!(fixture.rows(), [(1, 2, 2), (2, 3, 2), (3, 1, 1), (4, 1, 1)]);

    let later = draft(1, 2..3);
    one.refresh().unwrap();
    let planned = plan(&mut one, &later, &wanted);
    two.commit_epoch(2, &[draft(1, 3..4)]).unwrap();
    let lost = one.amend(planned).unwrap();
    assert!(matches!(lost, Step::Lost), "{lost:?}");
    one.commit_epoch(2, &[later]).unwrap();
    assert_eq!(fixture.rows(), [(1, 4, 4), (2, 3, 2), (3, 1, 1), (4, 1, 1)]);
}

/// Scenario: three archivers at the same moment, each with spans of the same traces in another
/// order: late ones of traces that have a row, and the first ones of traces that have none.
/// Guarantees: each version leaves one row per trace, and at the end every span is in it.
#[test]
fn archivers_at_the_same_moment_leave_one_row() {
    const EPOCHS: u64 = 8;
    let fixture = Fixture::new();
    let start = std::sync::Barrier::new(3);
    std::thread::scope(|scope| {
        for archiver in 0..3_u64 {
            let mut writer = fixture.writer(&format!("archiver {archiver}"));
            let start = &start;
            scope.spawn(move || {
                for epoch in 0..EPOCHS {
                    let shared = 2 * (epoch + 1);
                    let traces: Vec<TraceDraft> = (0..shared)
                        .map(|step| (step + archiver) % shared)
                        .map(|trace| {
                            let span = archiver * EPOCHS + epoch;
                            draft(u128::from(trace), span..span + 1)
                        })
                        .collect();
                    start.wait();
                    writer.commit_epoch(i64::try_from(epoch).unwrap(), &traces).unwrap();
                }
            });
        }
    });
    let newest = fixture.table.snapshot(None).unwrap().version();
    for version in 0..=newest {
        let snapshot = fixture.table.snapshot_at(version).unwrap();
        let mut traces = HashSet::new();
        let mut rows = 0;
        snapshot
            .for_each_trace(None, &mut |trace| {
                rows += 1;
                traces.insert(trace.trace_id);
                Ok(())
            })
            .unwrap();
        assert_eq!(rows, traces.len(), "version {version}");
    }
    let rows: Vec<(u128, usize)> = fixture.rows().iter().map(|row| (row.0, row.1)).collect();
    let expected =
        |trace: u64| (u128::from(trace), 3 * usize::try_from(EPOCHS - trace / 2).unwrap());
    assert_eq!(rows, (0..2 * EPOCHS).map(expected).collect::<Vec<_>>());
}

pub(crate) fn changes(trace: u128, changes: Vec<TraceChange>) -> TraceDraft {
    let mut info = TraceInfo::new(TraceId((trace + 1).to_be_bytes()));
    let replaces = changes.contains(&TraceChange::Delete);
    changes.into_iter().for_each(|change| change.apply(&mut info));
    TraceDraft {
        experiment_id: Some(ExperimentId::default_experiment()),
        info: Some(info),
        replaces,
        ..TraceDraft::new(TraceId((trace + 1).to_be_bytes()))
    }
}

fn set(key: &str, value: &str) -> TraceChange {
    TraceChange::SetTag { key: key.to_owned(), value: value.to_owned() }
}

/// Scenario: tags set and deleted on an archived trace, the same round again, and a change to a
/// trace that is nowhere.
/// Guarantees: each takes effect once, the second time changes nothing, no row without spans.
#[test]
fn changes_reach_the_row_once() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer("a");
    writer.commit_epoch(1, &[draft(1, 0..3), draft(2, 0..1)]).unwrap();
    let piece = changes(1, vec![set("k", "v"), set("gone", "1")]);
    assert_eq!(
        writer.commit_epoch(2, &[piece.clone(), changes(9, vec![set("k", "v")])]).unwrap().amended,
        1
    );
    let again = writer.commit_epoch(3, &[piece]).unwrap();
    assert_eq!((again.amended, again.unchanged), (0, 1));
    let delete = TraceChange::DeleteTag { key: "gone".to_owned() };
    assert_eq!(writer.commit_epoch(4, &[changes(1, vec![delete])]).unwrap().amended, 1);
    assert_eq!(fixture.rows(), [(1, 3, 3), (2, 1, 1)]);
    let read = writer.read(&HashSet::from([TraceId(2_u128.to_be_bytes())]), 0).unwrap();
    let tags = read.values().next().unwrap().full_info().tags;
    assert_eq!(tags.get("k").map(String::as_str), Some("v"));
    assert!(!tags.contains_key("gone"));
}

/// The trace as one of the service `mine`.
fn of_service(mut draft: TraceDraft) -> TraceDraft {
    let group = Arc::new(spans::group_of_service("mine"));
    draft.spans.iter_mut().for_each(|span| span.group = Arc::clone(&group));
    draft
}

/// Scenario: a tag that a resource brings is deleted; a copy of the spans comes again, then spans
/// of their own that bring it again.
/// Guarantees: neither brings the tag back: what a call said stands over spans.
#[test]
fn deleted_tags_of_a_resource_stay_deleted() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer("a");
    writer.commit_epoch(1, &[of_service(draft(1, 0..2))]).unwrap();
    let wanted = HashSet::from([TraceId(2_u128.to_be_bytes())]);
    let has_tag = |writer: &mut TableWriter| {
        let read = writer.read(&wanted, 0).unwrap();
        read.values().next().unwrap().full_info().tags.contains_key("service.name")
    };
    assert!(has_tag(&mut writer));
    let delete = TraceChange::DeleteTag { key: "service.name".to_owned() };
    writer.commit_epoch(2, &[changes(1, vec![delete])]).unwrap();
    assert!(!has_tag(&mut writer));
    let copy = of_service(draft(1, 0..2));
    assert_eq!(writer.commit_epoch(3, &[copy]).unwrap().unchanged, 1);
    assert!(!has_tag(&mut writer));
    writer.commit_epoch(4, &[of_service(draft(1, 2..3))]).unwrap();
    assert!(!has_tag(&mut writer));
}

/// Scenario: a trace is deleted; deleted and sent again; and both once more.
/// Guarantees: the row goes, the new one has only what came after, repeating changes nothing.
#[test]
fn deletion_takes_the_row_and_what_came_before() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer("a");
    writer.commit_epoch(1, &[draft(1, 0..3), draft(2, 0..3)]).unwrap();
    let gone = changes(1, vec![TraceChange::Delete]);
    let outcome = writer.commit_epoch(2, std::slice::from_ref(&gone)).unwrap();
    assert_eq!((outcome.deleted, outcome.amended), (1, 0));
    assert_eq!(writer.commit_epoch(3, &[gone]).unwrap().deleted, 0);
    let anew = TraceDraft { replaces: true, ..draft(2, 5..6) };
    assert_eq!(writer.commit_epoch(4, std::slice::from_ref(&anew)).unwrap().amended, 1);
    assert_eq!(writer.commit_epoch(5, &[anew]).unwrap().unchanged, 1);
    assert_eq!(fixture.rows(), [(2, 1, 2)]);
}

/// Scenario: the traces of one experiment are moved to another table, with the process dying
/// before the deletion, and again.
/// Guarantees: each is in one table, once; traces of other experiments stay.
#[test]
fn traces_move_between_tables_once() {
    let (source, target) = (Fixture::new(), Fixture::new());
    let mut from = source.writer("a");
    let mut to = target.writer("a");
    let experiment = ExperimentId::from(7);
    let of = |trace, range| TraceDraft { experiment_id: Some(7.into()), ..draft(trace, range) };
    from.commit_epoch(1, &[of(1, 0..2), draft(2, 0..2), of(3, 0..2)]).unwrap();
    to.commit_epoch(1, &[of(3, 2..4)]).unwrap();
    for dies in [true, false] {
        for path in from.data_files().unwrap() {
            let rows = from.rows_of(&experiment, &path).unwrap();
            let rows: Vec<u64> = rows.rows.into_iter().map(|(row, _)| row).collect();
            let located = from.locate(&path, &rows).unwrap();
            to.absorb(&located.traces).unwrap();
            if !dies {
                assert_eq!(from.delete_located(&located).unwrap(), located.traces.len());
                assert_eq!(from.delete_located(&located).unwrap(), 0);
            }
        }
    }
    assert_eq!(source.rows(), [(2, 2, 1)]);
    assert_eq!(target.rows(), [(1, 2, 1), (3, 4, 2)]);
}

/// Scenario: a trace moves to a table that has its spans already, and a head without spans to one that has a
/// part's; both have tags and an assessment by calls. The move takes them in twice, and in between a client
/// deletes one tag there and the assessment, and sets the other tag anew.
/// Guarantees: what calls said comes along; the second time it undoes nothing of what was said in between.
#[test]
fn what_calls_said_moves_with_a_trace_whose_spans_are_there() {
    let (source, target) = (Fixture::new(), Fixture::new());
    let mut from = source.writer("a");
    let mut to = target.writer("a");
    from.commit_epoch(1, &[draft(1, 0..2)]).unwrap();
    let assessment = tracelake_model::Assessment {
        assessment_id: "a-1".to_owned(),
        ..tracelake_model::Assessment::default()
    };
    let said = vec![
        set("kept", "1"),
        set("gone", "1"),
        TraceChange::PutAssessment(Box::new(assessment)),
        TraceChange::LinkRun { run_id: "r".to_owned() },
    ];
    from.commit_epoch(2, &[changes(1, said.clone())]).unwrap();
    to.commit_epoch(1, &[draft(1, 0..2), draft(2, 0..2)]).unwrap();
    let path = from.data_files().unwrap().remove(0);
    let found = from.rows_of(&ExperimentId::default_experiment(), &path).unwrap();
    let rows: Vec<u64> = found.rows.into_iter().map(|(row, _)| row).collect();
    let mut moving = from.locate(&path, &rows).unwrap().traces;
    // As a head is whose spans are all in parts.
    moving.push(TraceDraft { spans: Vec::new(), ..changes(2, said) });
    let absorbed = to.absorb(&moving).unwrap();
    assert_eq!((absorbed.amended, absorbed.unchanged), (2, 0));
    let info = |trace: u128| {
        let rows: Vec<TraceDraft> =
            target.batches().iter().flat_map(|batch| rebuild_traces(batch).unwrap()).collect();
        let row = rows.into_iter().find(|row| row.trace_id == draft(trace, 0..1).trace_id).unwrap();
        assert_eq!(row.spans.len(), 2);
        row.info.unwrap()
    };
    for trace in 1..=2 {
        assert_eq!(info(trace), changes_of(&moving, trace));
    }
    let between = || {
        vec![
            set("kept", "2"),
            TraceChange::DeleteTag { key: "gone".to_owned() },
            TraceChange::DeleteAssessment { assessment_id: "a-1".to_owned() },
        ]
    };
    to.commit_epoch(2, &[changes(1, between()), changes(2, between())]).unwrap();
    let before = [info(1), info(2)];
    assert_eq!(to.absorb(&moving).unwrap().unchanged, 2);
    assert_eq!([info(1), info(2)], before);
    assert_eq!(before[0].tags.get("kept").map(String::as_str), Some("2"));
}

/// What was said of a trace among `traces`.
fn changes_of(traces: &[TraceDraft], trace: u128) -> TraceInfo {
    let trace_id = draft(trace, 0..1).trace_id;
    traces.iter().find(|one| one.trace_id == trace_id).unwrap().info.clone().unwrap()
}

/// Scenario: one archiver appends traces; another amends one and deletes one; a file is taken out by
/// a version of somebody else, which adds another one with a trace of it; then the log's begin, or a
/// change file, is gone.
/// Guarantees: each row that went is told with what it was, newest first, by whom, and whether its
/// trace stays; what is gone ends the reach.
#[test]
fn changes_are_told_back_to_where_they_are_known() {
    let fixture = Fixture::new();
    let mut one = fixture.writer("one");
    one.commit_epoch(1, &[draft(1, 0..1), draft(2, 0..2)]).unwrap();
    let base = one.snapshot().version();
    let gone = changes(2, vec![TraceChange::Delete]);
    fixture.writer("two").commit_epoch(7, &[draft(1, 1..2), gone]).unwrap();
    one.commit_epoch(2, &[draft(3, 0..1), draft(4, 0..1)]).unwrap();
    one.commit_epoch(3, &[draft(5, 0..1)]).unwrap();
    let snapshot = fixture.table.snapshot(None).unwrap();
    let files = snapshot.live_files((None, None)).unwrap();
    let holds = |file: &&LiveFile, trace: u128| {
        let mut found = false;
        let opened = fixture.table.files.open(&file.path).unwrap();
        crate::data_file::read_trace_ids(opened, |_, text| {
            found |= TraceId::parse(text) == Some(draft(trace, 0..1).trace_id);
        })
        .unwrap();
        found
    };
    let removed = files.iter().find(|file| holds(file, 3)).unwrap();
    let root = fixture.table.location().folder();
    let log = |version: u64| root.join(crate::layout::log_file(version));
    // A copy of the removed file stands for a rewritten one that keeps both its traces; then it goes.
    std::fs::copy(root.join(&removed.path), root.join("copy.parquet")).unwrap();
    let version = snapshot.version();
    let size = removed.size_bytes;
    let add = |path: &str| {
        format!(
            "{{\"add\":{{\"path\":\"{path}\",\"partitionValues\":{{}},\"size\":{size},\"modificationTime\":0,\"dataChange\":true}}}}\n"
        )
    };
    let remove = |path: &str| {
        format!(
            "{{\"remove\":{{\"path\":\"{path}\",\"dataChange\":true,\"deletionTimestamp\":0}}}}\n"
        )
    };
    let rewrite = remove(&removed.action_path) + &add("copy.parquet");
    std::fs::write(log(version + 1), rewrite).unwrap();
    std::fs::write(log(version + 2), remove("copy.parquet")).unwrap();
    let told = || {
        let snapshot = fixture.table.snapshot(None).unwrap();
        let mut told = Vec::new();
        let reach = snapshot.for_each_change(&|_| true, &mut |by, change, row| {
            let trace = u128::from_be_bytes(row.trace_id.0) - 1;
            told.push((by.version, by.applications.join(","), change, trace, row.spans.len()));
        });
        (told, reach.unwrap().from_version)
    };
    let (deleted, replaced) = (crate::RowChange::Deleted, crate::RowChange::Replaced);
    let two = "two".to_owned();
    let none = String::new();
    let mut expected = vec![
        (version + 2, none.clone(), deleted, 3, 1),
        (version + 2, none.clone(), deleted, 4, 1),
        (version + 1, none.clone(), replaced, 3, 1),
        (version + 1, none, replaced, 4, 1),
        (base + 1, two.clone(), replaced, 1, 1),
        (base + 1, two, deleted, 2, 2),
    ];
    assert_eq!(told(), (expected.clone(), 0));
    let change_file =
        std::fs::read_dir(root.join("_change_data")).unwrap().next().unwrap().unwrap();
    std::fs::remove_file(change_file.path()).unwrap();
    expected.truncate(4);
    assert_eq!(told(), (expected, base + 2));
}

/// Scenario: spans came when no experiment of the name in their resource existed; it is made, and they come
/// again, in one request and with a span more.
/// Guarantees: copies change nothing in the row; a span that is no copy names the experiment.
#[test]
fn copies_name_no_experiment() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer("one");
    let first = TraceDraft { experiment_by: ExperimentBy::Request, ..draft(1, 0..2) };
    writer.commit_epoch(1, std::slice::from_ref(&first)).unwrap();
    let named = |range| {
        let mut retry = draft(1, range);
        for span in &mut retry.spans {
            let group =
                SpanGroup { experiment_id: Some(ExperimentId::from(2)), ..(*span.group).clone() };
            span.group = Arc::new(group);
        }
        let experiment_id = Some(ExperimentId::from(2));
        TraceDraft { experiment_id, experiment_by: ExperimentBy::Spans, ..retry }
    };
    writer.commit_epoch(2, &[named(0..2)]).unwrap();
    assert_eq!(fixture.rows(), [(1, 2, 1)]);
    assert_eq!(fixture.experiments(), [ExperimentId::default_experiment()]);
    writer.commit_epoch(3, &[named(0..3)]).unwrap();
    assert_eq!(fixture.experiments(), [ExperimentId::from(2)]);
}

/// Scenario: spans came with a header that names a run, a `start_trace` named the same or another one; the spans
/// come again.
/// Guarantees: the row stays as it is, for the header says nothing in it.
#[test]
fn a_retry_with_a_run_that_is_named_already_changes_nothing() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer("one");
    let mut info = TraceInfo::new(draft(1, 0..2).trace_id);
    info.trace_metadata.insert("mlflow.sourceRun".to_owned(), "said".to_owned());
    writer.commit_epoch(1, &[TraceDraft { info: Some(info), ..draft(1, 0..2) }]).unwrap();
    for (epoch, run) in [(2, "said"), (3, "other")] {
        let run_id = Some(run.to_owned());
        let done = writer.commit_epoch(epoch, &[TraceDraft { run_id, ..draft(1, 0..2) }]).unwrap();
        assert_eq!((done.amended, done.unchanged), (0, 1), "{run}");
    }
    assert_eq!(fixture.rows(), [(1, 2, 1)]);
}

/// Scenario: a row of an earlier version, which does not tell what its `start_trace` said, lost a tag by a call;
/// the same `start_trace` comes again, and another one with an end.
/// Guarantees: the first one brings nothing back; the other one says what it says.
#[test]
fn a_start_that_nobody_noted_brings_nothing_back() {
    let mut told = TraceInfo::new(TraceId([1; 16]));
    told.trace_metadata.insert(INFO_FINALIZED.to_owned(), "true".to_owned());
    told.request_time_micros = Some(5);
    let row = TraceDraft { info: Some(told.clone()), ..TraceDraft::new(told.trace_id) };
    let mut again = told.clone();
    again.starts = [7].into();
    again.tags.insert("x".to_owned(), "1".to_owned());
    for (duration, tags) in [(None, 0), (Some(3), 1)] {
        let info = TraceInfo { execution_duration_ms: duration, ..again.clone() };
        let piece = TraceDraft { info: Some(info), ..TraceDraft::new(told.trace_id) };
        let merged = merge::fold([row.clone(), piece]).unwrap().info.unwrap();
        assert_eq!(merged.tags.len(), tags, "{duration:?}");
    }
}
