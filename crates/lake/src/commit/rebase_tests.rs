//! Commits beside another archiver that acts at a chosen moment.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tracelake_model::TraceChange;

use super::tests::{Fixture, changes, draft};
use super::*;
use crate::layout::log_file;

type Act = Box<dyn FnOnce() + Send>;

/// A clock that lets another archiver act at given calls, counted from when it is armed.
#[derive(Default)]
struct Intruder {
    is_armed: AtomicBool,
    calls: AtomicUsize,
    acts: Mutex<BTreeMap<usize, Act>>,
}

impl std::fmt::Debug for Intruder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Intruder")
    }
}

impl Clock for Intruder {
    fn now_unix_nano(&self) -> u64 {
        if self.is_armed.load(Ordering::SeqCst) {
            let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
            let act = self.acts.lock().unwrap().remove(&call);
            if let Some(act) = act {
                act();
            }
        }
        1_000_000_000_000_000
    }

    fn monotonic_nano(&self) -> u64 {
        0
    }
}

/// Another archiver, which commits one trace when it is its turn.
fn commits(other: &Arc<Mutex<TableWriter>>, trace: TraceDraft) -> Act {
    let other = Arc::clone(other);
    Box::new(move || {
        let mut other = other.lock().unwrap();
        let epoch = other.committed_epoch().unwrap().unwrap_or_default() + 1;
        other.commit_epoch(epoch, &[trace]).unwrap();
    })
}

fn deletion(trace: u128) -> TraceDraft {
    changes(trace, vec![TraceChange::Delete])
}

/// An archiver beside which `acts` happen. Checks at the end that all did.
fn disturbed(
    fixture: &Fixture,
    acts: impl IntoIterator<Item = (usize, Act)>,
    commit: impl FnOnce(&mut TableWriter),
) {
    let clock = Arc::new(Intruder::default());
    let table = fixture.table.clone();
    let shared = Arc::clone(&clock) as Arc<dyn Clock>;
    let mut writer = TableWriter::open(table, "one".to_owned(), shared, 1_000).unwrap();
    clock.acts.lock().unwrap().extend(acts);
    clock.is_armed.store(true, Ordering::SeqCst);
    commit(&mut writer);
    let left: Vec<usize> = clock.acts.lock().unwrap().keys().copied().collect();
    assert!(left.is_empty(), "{left:?} of {:?} calls", clock.calls);
}

fn other(fixture: &Fixture) -> Arc<Mutex<TableWriter>> {
    Arc::new(Mutex::new(fixture.writer("two")))
}

/// Scenario: a late span comes second to the deletion of another trace, whose file goes with it,
/// and then, at each later moment, to the deletion of its own trace.
/// Guarantees: the deletion stands, and what came late to it is there alone, once.
#[test]
fn an_amendment_that_loses_twice_is_compared_with_what_it_lost_to() {
    let mut states = HashSet::new();
    for moment in 2..=7 {
        let fixture = Fixture::new();
        let two = other(&fixture);
        two.lock().unwrap().commit_epoch(1, &[draft(1, 0..1), draft(9, 0..1)]).unwrap();
        two.lock().unwrap().commit_epoch(2, &[draft(2, 0..1)]).unwrap();
        let acts = [(1, commits(&two, deletion(2))), (moment, commits(&two, deletion(1)))];
        disturbed(&fixture, acts, |one| {
            one.commit_epoch(1, &[draft(1, 5..6)]).unwrap();
        });
        assert_eq!(fixture.rows(), [(1, 1, 1), (9, 1, 1)], "moment {moment}");
        states.insert(fixture.table.snapshot(None).unwrap().version());
    }
    assert_eq!(states, HashSet::from([5]));
}

/// Scenario: an amendment comes second twice, to appends of traces that are not its own.
/// Guarantees: it is merged and written once.
#[test]
fn an_amendment_that_loses_twice_to_others_is_planned_once() {
    let fixture = Fixture::new();
    let two = other(&fixture);
    two.lock().unwrap().commit_epoch(1, &[draft(1, 0..1), draft(9, 0..1)]).unwrap();
    let acts = [(1, commits(&two, draft(20, 0..1))), (6, commits(&two, draft(21, 0..1)))];
    disturbed(&fixture, acts, |one| {
        one.commit_epoch(1, &[draft(1, 5..6)]).unwrap();
    });
    let changes = fixture.table.location().folder().join("_change_data");
    assert_eq!(std::fs::read_dir(changes).unwrap().count(), 1);
    assert_eq!(fixture.rows(), [(1, 2, 2), (9, 1, 1), (20, 1, 1), (21, 1, 1)]);
}

/// Scenario: while an epoch with late spans of two traces and a new one is under way, another
/// archiver deletes one of the two, or appends the new one.
/// Guarantees: the late span of the deleted trace is appended, not taken for one that is in; the
/// other one is merged; all in one version.
#[test]
fn an_epoch_is_decided_anew_on_what_it_lost_to() {
    for deletes in [true, false] {
        let fixture = Fixture::new();
        let two = other(&fixture);
        two.lock().unwrap().commit_epoch(1, &[draft(1, 0..1), draft(2, 0..1)]).unwrap();
        let act = if deletes { deletion(2) } else { draft(3, 0..1) };
        disturbed(&fixture, [(1, commits(&two, act))], |one| {
            let outcome =
                one.commit_epoch(1, &[draft(1, 5..6), draft(2, 5..6), draft(3, 5..6)]).unwrap();
            assert_eq!((outcome.appended, outcome.amended), if deletes { (2, 1) } else { (0, 3) });
            assert_eq!(outcome.version, 3);
        });
        let expected = if deletes {
            [(1, 2, 2), (2, 1, 1), (3, 1, 1)]
        } else {
            [(1, 2, 2), (2, 2, 2), (3, 2, 2)]
        };
        assert_eq!(fixture.rows(), expected);
    }
}

/// The actions of a version that name files.
fn files_of(fixture: &Fixture, version: u64, action: &str) -> Vec<serde_json::Value> {
    let log = fixture.table.location().folder().join(log_file(version));
    let lines = std::fs::read_to_string(log).unwrap();
    let actions = lines.lines().map(|line| serde_json::from_str(line).unwrap());
    actions.filter_map(|whole: serde_json::Value| whole.get(action).cloned()).collect()
}

/// Commits what `RESTORE` to the version of `wanted` would: these files take the place of `live`.
fn restore(fixture: &Fixture, live: &[serde_json::Value], wanted: &[serde_json::Value]) {
    let mut lines = vec![serde_json::json!({"commitInfo": {"operation": "RESTORE"}})];
    for add in live {
        let mut remove = serde_json::json!({
            "path": add["path"], "deletionTimestamp": 1, "dataChange": true,
            "extendedFileMetadata": true, "partitionValues": {}, "size": add["size"],
        });
        if !add["deletionVector"].is_null() {
            remove["deletionVector"] = add["deletionVector"].clone();
        }
        lines.push(serde_json::json!({ "remove": remove }));
    }
    lines.extend(wanted.iter().map(|add| serde_json::json!({ "add": add })));
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let version = fixture.table.snapshot(None).unwrap().version() + 1;
    std::fs::write(fixture.table.location().folder().join(log_file(version)), text).unwrap();
}

/// Scenario: a trace is amended, which leaves its file with a deletion vector or takes it off
/// the table; another writer restores the version before that; the trace gets a span from the
/// archiver that amended it, and from one that began in between.
/// Guarantees: the restored row is found, so the trace keeps one row.
#[test]
fn rows_that_a_restore_brings_back_are_found() {
    for (first, began_before, looks_between) in
        [(2, true, false), (1, true, false), (2, false, true), (1, false, true), (1, true, true)]
    {
        let fixture = Fixture::new();
        let mut one = fixture.writer("one");
        let traces: Vec<TraceDraft> = (1..=first).map(|trace| draft(trace, 0..1)).collect();
        one.commit_epoch(1, &traces).unwrap();
        one.commit_epoch(2, &[draft(1, 1..2)]).unwrap();
        let mut two = fixture.writer("two");
        two.commit_epoch(1, &[draft(7, 0..1)]).unwrap();
        let mut live = files_of(&fixture, 2, "add");
        live.extend(files_of(&fixture, 3, "add"));
        if looks_between {
            one.commit_epoch(3, &[draft(7, 0..1)]).unwrap();
        }
        restore(&fixture, &live, &files_of(&fixture, 1, "add"));
        let expected = |spans, revision| {
            let others = (2..=first).map(|trace| (trace, 1, 1));
            std::iter::once((1, spans, revision)).chain(others).collect::<Vec<_>>()
        };
        assert_eq!(fixture.rows(), expected(1, 1));
        let writer = if began_before { &mut one } else { &mut two };
        writer.commit_epoch(9, &[draft(1, 2..3)]).unwrap();
        assert_eq!(fixture.rows(), expected(2, 2));
    }
}

/// Scenario: a row is restored, and another row of its file deleted by another writer, before this
/// archiver looks again: the file has a vector as large as before.
/// Guarantees: the restored row is found.
#[test]
fn a_vector_of_the_same_size_is_not_the_same() {
    let fixture = Fixture::new();
    let mut one = fixture.writer("one");
    one.commit_epoch(1, &[draft(1, 0..1), draft(2, 0..1)]).unwrap();
    one.commit_epoch(2, &[draft(1, 1..2)]).unwrap();
    restore(&fixture, &files_of(&fixture, 2, "add"), &files_of(&fixture, 1, "add"));
    fixture.writer("two").commit_epoch(1, &[deletion(2)]).unwrap();
    one.commit_epoch(3, &[draft(1, 2..3)]).unwrap();
    assert_eq!(fixture.rows(), [(1, 2, 2)]);
}
