//! Compaction of tables that archivers write meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray as _, Int64Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema};
use tracelake_model::{Clock, SystemClock};

use super::*;
use crate::commit::tests::{Fixture, changes, draft};
use crate::data_file::read_rows;
use crate::layout::log_file;
use tracelake_model::TraceChange;

const EVERYTHING: CompactionRules =
    CompactionRules { purge_percent: 0, ..CompactionRules::eager(i64::MAX) };

fn run(fixture: &Fixture) -> CompactionReport {
    run_beside(fixture, &mut || {})
}

/// Compacts; `act` happens after the rows are read and before they are committed.
fn run_beside(fixture: &Fixture, act: &mut dyn FnMut()) -> CompactionReport {
    let pace = &mut |_| {
        act();
        ControlFlow::Continue(())
    };
    compact(&fixture.table, &SystemClock, &EVERYTHING, pace).unwrap()
}

/// An act that happens once.
fn once(act: impl FnOnce()) -> impl FnMut() {
    let mut act = Some(act);
    move || {
        if let Some(act) = act.take() {
            act();
        }
    }
}

/// Every live row in the order of trace ids, whole.
fn whole_rows(fixture: &Fixture) -> RecordBatch {
    let snapshot = fixture.table.snapshot(None).unwrap();
    let schema = snapshot.schema().unwrap();
    let mut batches = Vec::new();
    for file in snapshot.live_files((None, None)).unwrap() {
        let deleted = snapshot.deleted_rows(&file).unwrap();
        let live: Vec<u64> =
            (0..file.record_count.unwrap()).filter(|row| !deleted.contains(row)).collect();
        let opened = fixture.table.files.open(&file.path).unwrap();
        for batch in read_rows(opened, &live).unwrap() {
            let batch = batch.unwrap();
            batches.push(crate::rows::conform(&batch, &schema).unwrap());
        }
    }
    let all = concat_batches(&schema, &batches).unwrap();
    let order = arrow::compute::sort_to_indices(all.column(0), None, None).unwrap();
    arrow::compute::take_record_batch(&all, &order).unwrap()
}

fn live(fixture: &Fixture) -> Vec<crate::LiveFile> {
    fixture.table.snapshot(None).unwrap().live_files((None, None)).unwrap()
}

fn actions(fixture: &Fixture, version: u64) -> Vec<serde_json::Value> {
    let log = fixture.table.location().folder().join(log_file(version));
    std::fs::read_to_string(log)
        .unwrap()
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

/// Scenario: appends of several epochs, an amendment, a deletion; compacted twice.
/// Guarantees: one file without deletion vectors, every row as it was, nothing that the change
/// feed would show; the second round finds nothing to do.
#[test]
fn files_become_one_and_rows_stay() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer("one");
    writer.commit_epoch(1, &[draft(1, 0..2), draft(2, 0..3)]).unwrap();
    writer.commit_epoch(2, &[draft(3, 0..1), draft(4, 0..1)]).unwrap();
    writer.commit_epoch(3, &[draft(2, 3..4), changes(3, vec![TraceChange::Delete])]).unwrap();
    let before = whole_rows(&fixture);
    let report = run(&fixture);
    assert_eq!((report.files_before, report.files_after, report.rows), (3, 1, 3));
    assert_eq!((report.purged_rows, report.given_up), (2, 0));
    assert_eq!(whole_rows(&fixture), before);
    let [file] = <[_; 1]>::try_from(live(&fixture)).unwrap();
    assert_eq!((file.deletion_vector, file.record_count), (None, Some(3)));
    for action in actions(&fixture, report.version) {
        let inner = action.as_object().unwrap().values().next().unwrap();
        assert!(inner.get("dataChange").is_none_or(|change| change == false), "{action}");
        assert!(action.get("cdc").is_none() && action.get("txn").is_none());
    }
    assert_eq!(run(&fixture).files_before, 0);
    assert_eq!(run(&fixture).version, report.version);
}

/// Scenario: late spans, a deletion and traces anew by an archiver that looked before the
/// compaction, and by one that begins after it.
/// Guarantees: rows are found where they are by then; each trace has one.
#[test]
fn rows_are_found_after_they_moved() {
    let fixture = Fixture::new();
    let mut one = fixture.writer("one");
    one.commit_epoch(1, &[draft(1, 0..2), draft(2, 0..3)]).unwrap();
    one.commit_epoch(2, &[draft(3, 0..1)]).unwrap();
    run(&fixture);
    one.commit_epoch(3, &[draft(1, 2..3), draft(3, 1..2), draft(4, 0..1)]).unwrap();
    let mut two = fixture.writer("two");
    two.commit_epoch(1, &[changes(2, vec![TraceChange::Delete]), draft(1, 3..4)]).unwrap();
    assert_eq!(fixture.rows(), [(1, 4, 3), (3, 2, 2), (4, 1, 1)]);
    run(&fixture);
    one.commit_epoch(4, &[draft(1, 4..5)]).unwrap();
    assert_eq!(fixture.rows(), [(1, 5, 4), (3, 2, 2), (4, 1, 1)]);
}

/// Scenario: while files are compacted, a row is amended, one deleted, one appended.
/// Guarantees: the compaction stands, with a deletion vector on what was replaced; the next round
/// purges it.
#[test]
fn what_changes_meanwhile_is_carried_over() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer("one");
    writer.commit_epoch(1, &[draft(1, 0..2), draft(2, 0..3), draft(3, 0..1)]).unwrap();
    writer.commit_epoch(2, &[draft(3, 1..2), draft(4, 0..1), draft(6, 0..1)]).unwrap();
    let report = run_beside(
        &fixture,
        &mut once(|| {
            let delete = changes(1, vec![TraceChange::Delete]);
            writer.commit_epoch(3, &[draft(4, 1..2), delete, draft(5, 0..1)]).unwrap();
        }),
    );
    assert_eq!((report.given_up, report.files_after), (0, 1));
    let expected = [(2, 3, 1), (3, 2, 2), (4, 2, 2), (5, 1, 1), (6, 1, 1)];
    assert_eq!(fixture.rows(), expected);
    let vectors: Vec<i64> = live(&fixture)
        .iter()
        .filter_map(|f| Some(f.deletion_vector.as_ref()?.cardinality))
        .collect();
    assert_eq!(vectors, [2]);
    writer.commit_epoch(4, &[draft(2, 3..4), draft(4, 2..3)]).unwrap();
    let expected = [(2, 4, 2), (3, 2, 2), (4, 3, 3), (5, 1, 1), (6, 1, 1)];
    assert_eq!(fixture.rows(), expected);
    run(&fixture);
    assert_eq!(fixture.rows(), expected);
    assert!(live(&fixture).iter().all(|file| file.deletion_vector.is_none()));
}

/// Scenario: while a file is compacted, all its rows are deleted; or another process compacts it.
/// Guarantees: the compaction is given up and leaves nothing doubled.
#[test]
fn a_file_that_goes_meanwhile_is_given_up() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer("one");
    writer.commit_epoch(1, &[draft(1, 0..1)]).unwrap();
    writer.commit_epoch(2, &[draft(2, 0..1)]).unwrap();
    let delete = changes(1, vec![TraceChange::Delete]);
    let report = run_beside(
        &fixture,
        &mut once(|| {
            writer.commit_epoch(3, &[delete]).unwrap();
        }),
    );
    assert_eq!((report.given_up, report.files_before), (1, 0));
    assert_eq!(fixture.rows(), [(2, 1, 1)]);
    let report = run_beside(&fixture, &mut once(|| assert_eq!(run(&fixture).files_after, 1)));
    assert_eq!((report.given_up, report.files_before), (1, 0));
    assert_eq!(fixture.rows(), [(2, 1, 1)]);
}

/// Scenario: the archiver comes second: it has looked for the rows that it will amend when the
/// compaction commits.
/// Guarantees: it looks anew, and each trace has one row.
#[test]
fn an_amendment_that_loses_to_a_compaction_looks_again() {
    #[derive(Debug)]
    struct Meanwhile<'a>(std::sync::Mutex<usize>, usize, &'a std::path::Path);
    impl Clock for Meanwhile<'_> {
        fn now_unix_nano(&self) -> u64 {
            let mut calls = self.0.lock().unwrap();
            *calls += 1;
            if *calls == self.1 {
                let lake = crate::Lake::new().unwrap();
                let location = crate::TableLocation::new(self.2.to_owned());
                let table = Table::at(&lake, location).unwrap();
                compact(&table, &SystemClock, &EVERYTHING, &mut |_| ControlFlow::Continue(()))
                    .unwrap();
            }
            1_000_000_000_000_000
        }

        fn monotonic_nano(&self) -> u64 {
            0
        }
    }
    let mut optimised = 0;
    for moment in 1..=8 {
        let fixture = Fixture::new();
        fixture.writer("two").commit_epoch(1, &[draft(1, 0..1), draft(9, 0..1)]).unwrap();
        fixture.writer("two").commit_epoch(2, &[draft(2, 0..1)]).unwrap();
        let folder: &'static std::path::Path =
            Box::leak(fixture.table.location().folder().to_owned().into_boxed_path());
        let clock = Arc::new(Meanwhile(std::sync::Mutex::new(0), moment, folder));
        let mut one =
            crate::TableWriter::open(fixture.table.clone(), "one".into(), clock, 1_000).unwrap();
        one.commit_epoch(1, &[draft(1, 5..6), draft(2, 5..6), draft(3, 0..1)]).unwrap();
        assert_eq!(fixture.rows(), [(1, 2, 2), (2, 2, 2), (3, 1, 1), (9, 1, 1)], "{moment}");
        let versions = fixture.table.snapshot(None).unwrap().version();
        optimised += (1..=versions)
            .filter(|v| actions(&fixture, *v)[0]["commitInfo"]["operation"] == "OPTIMIZE")
            .count();
    }
    assert!(3 <= optimised, "{optimised}");
}

/// Scenario: a table with a column of others, whose values only some files have; it is amended.
/// Guarantees: the column keeps its values, null where a file lacks it.
#[test]
fn columns_of_others_are_kept() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer("one");
    writer.commit_epoch(1, &[draft(1, 0..2)]).unwrap();
    add_column(&fixture);
    writer.commit_epoch(2, &[draft(2, 0..1)]).unwrap();
    let before = whole_rows(&fixture);
    let own = |rows: &RecordBatch| {
        let column = rows.column_by_name("theirs").unwrap();
        column.as_primitive::<arrow::datatypes::Int64Type>().iter().collect::<Vec<_>>()
    };
    assert_eq!(own(&before), [None, None, Some(7)]);
    assert_eq!(run(&fixture).files_before, 3);
    assert_eq!(whole_rows(&fixture), before);
}

/// What another writer does that adds a column and a row of its own.
fn add_column(fixture: &Fixture) {
    use crate::data_file::encode_file;
    let rows = whole_rows(fixture);
    let mut fields: Vec<Arc<Field>> = rows.schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("theirs", DataType::Int64, true)));
    let schema = Arc::new(Schema::new(fields));
    let mut columns = rows.columns().to_vec();
    columns[0] = Arc::new(arrow::array::StringArray::from(vec!["tr-theirs"]));
    columns.push(Arc::new(Int64Array::from(vec![7])));
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
    let (file, bytes) = encode_file(&schema, &[batch]).unwrap();
    fixture.table.files.put_if_absent("theirs.parquet", &bytes).unwrap();
    let snapshot = fixture.table.snapshot(None).unwrap();
    let mut metadata =
        actions(fixture, 0).into_iter().find_map(|action| action.get("metaData").cloned()).unwrap();
    let mut text: serde_json::Value =
        serde_json::from_str(metadata["schemaString"].as_str().unwrap()).unwrap();
    text["fields"].as_array_mut().unwrap().push(serde_json::json!(
        {"name": "theirs", "type": "long", "nullable": true, "metadata": {}}
    ));
    metadata["schemaString"] = text.to_string().into();
    let add = serde_json::json!({
        "path": "theirs.parquet", "partitionValues": {}, "size": file.size_bytes,
        "modificationTime": 1, "dataChange": true, "stats": file.stats,
    });
    let lines = format!(
        "{}\n{}\n{}\n",
        serde_json::json!({"commitInfo": {"operation": "WRITE"}}),
        serde_json::json!({ "metaData": metadata }),
        serde_json::json!({ "add": add })
    );
    let log = log_file(snapshot.version() + 1);
    fixture.table.files.put_if_absent(&log, lines.as_bytes()).unwrap();
}

/// Scenario: a compaction is told to stop while it reads.
/// Guarantees: no file of it remains, the table is as it was.
#[test]
fn a_stop_leaves_nothing() {
    let fixture = Fixture::new();
    fixture.writer("one").commit_epoch(1, &[draft(1, 0..2)]).unwrap();
    let names = || -> BTreeMap<_, _> {
        let entries = std::fs::read_dir(fixture.table.location().folder()).unwrap();
        entries.map(|entry| (entry.unwrap().file_name(), ())).collect()
    };
    let before = names();
    let stop = &mut |_| ControlFlow::Break(());
    let report = compact(&fixture.table, &SystemClock, &EVERYTHING, stop).unwrap();
    assert!(report.stopped);
    assert_eq!(names(), before);
    assert_eq!(fixture.rows(), [(1, 2, 1)]);
}

/// Scenario: a compacted file whose rows are then amended, before and after a checkpoint.
/// Guarantees: it is still known as compacted, so that one amended row rewrites nothing.
#[test]
fn an_amended_file_is_still_known_as_compacted() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer("one");
    let traces: Vec<_> = (1..=20).map(|trace| draft(trace, 0..1)).collect();
    writer.commit_epoch(1, &traces).unwrap();
    run(&fixture);
    writer.commit_epoch(2, &[draft(1, 1..2)]).unwrap();
    fixture.table.snapshot(None).unwrap().checkpoint().unwrap();
    let fresh = fixture.table.snapshot(None).unwrap();
    let files = fresh.live_files((None, None)).unwrap();
    let rules = CompactionRules { worth_files: 100, ..CompactionRules::eager(i64::MAX) };
    assert_eq!(files.len(), 2);
    let raw: Vec<_> = files.iter().filter(|file| file.tags.is_empty()).collect();
    assert_eq!(raw.len(), 1);
    assert_eq!(raw[0].record_count, Some(1));
    let compacted: Vec<_> = files.iter().filter(|f| !f.tags.is_empty()).cloned().collect();
    assert!(plan_compaction(compacted, &rules).is_empty());
}
