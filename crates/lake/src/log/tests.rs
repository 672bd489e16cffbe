use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tracelake_model::TraceChange;

use super::checkpoint::{Named, named};
use crate::commit::parts_tests::long_spans;
use crate::commit::tests::{Fixture, changes, draft};
use crate::error::LakeError;
use crate::layout::{DAMAGED_PREFIX, LAST_CHECKPOINT, checkpoint_name, in_log, log_file};
use crate::maintain::vacuum::{VacuumRules, expired, vacuum};
use crate::storage::{Fill, OpenedFile, PutOutcome, TableFiles};
use crate::table::{EpochMark, Table};
use crate::{Lake, create_or_accept};

/// Files of a table that note what is asked of them, and refuse what they are told to.
#[derive(Debug)]
struct Watched {
    files: Arc<dyn TableFiles>,
    calls: Mutex<Vec<String>>,
    /// Calls that fail, by how they begin.
    failing: Mutex<Option<&'static str>>,
}

impl Watched {
    /// Puts itself around the files of a table.
    fn around(table: &mut Table) -> Arc<Self> {
        let files = Arc::clone(&table.files);
        let watched = Arc::new(Self { files, calls: Mutex::default(), failing: Mutex::default() });
        table.files = Arc::clone(&watched) as Arc<dyn TableFiles>;
        watched
    }

    fn fail(&self, call: Option<&'static str>) {
        *self.failing.lock().unwrap() = call;
    }

    /// The calls since the last question.
    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    fn fails(&self, call: &str) -> bool {
        self.failing.lock().unwrap().is_some_and(|failing| call.starts_with(failing))
    }

    fn call(&self, call: String) -> Result<(), LakeError> {
        let fails = self.fails(&call);
        self.calls.lock().unwrap().push(call.clone());
        if !fails {
            return Ok(());
        }
        let source = std::io::Error::other("no");
        Err(LakeError::Storage { action: "sync", path: call, source })
    }
}

impl TableFiles for Watched {
    fn create(&self) -> Result<(), LakeError> {
        self.files.create()
    }

    /// Fails after the name was made, as when its folder cannot be synced.
    fn put_if_absent(&self, path: &str, bytes: &[u8]) -> Result<PutOutcome, LakeError> {
        let outcome = self.files.put_if_absent(path, bytes)?;
        self.call(format!("put {path}")).map(|()| outcome)
    }

    fn put_stream(&self, path: &str, fill: &mut Fill<'_>) -> Result<PutOutcome, LakeError> {
        let outcome = self.files.put_stream(path, fill)?;
        self.call(format!("put {path}")).map(|()| outcome)
    }

    fn replace(&self, path: &str, fill: &mut Fill<'_>) -> Result<(), LakeError> {
        self.call(format!("replace {path}"))?;
        self.files.replace(path, fill)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), LakeError> {
        self.files.rename(from, to)
    }

    fn shows_only_durable(&self) -> bool {
        false
    }

    fn sync_log(&self) -> Result<(), LakeError> {
        self.call("sync log".to_owned())
    }

    fn sync_folders(&self) -> Result<(), LakeError> {
        self.call("sync folders".to_owned())
    }

    fn sync_files(&self, paths: &[String]) -> Result<(), LakeError> {
        paths.iter().try_for_each(|path| self.call(format!("sync {path}")))
    }

    fn list_log(&self, visit: &mut dyn FnMut(&str)) -> Result<(), LakeError> {
        self.files.list_log(visit)
    }

    /// One that fails is open, and cannot be read.
    fn open(&self, path: &str) -> Result<OpenedFile, LakeError> {
        match self.fails(&format!("open {path}")) {
            false => self.files.open(path),
            true => Ok(OpenedFile::Local(std::fs::File::open("/").unwrap())),
        }
    }

    fn has_log(&self) -> Result<bool, LakeError> {
        self.files.has_log()
    }
}

fn syncs(watched: &Watched) -> Vec<String> {
    watched.calls().into_iter().filter(|call| call.starts_with("sync")).collect()
}

fn log_folder(fixture: &Fixture) -> PathBuf {
    fixture.table.location().folder().join("_delta_log")
}

/// Every action of a kind in the log, older ones first.
fn actions(fixture: &Fixture, kind: &str) -> Vec<Value> {
    let mut found = Vec::new();
    for version in 0..=fixture.table.snapshot(None).unwrap().version() {
        let path = fixture.table.location().folder().join(log_file(version));
        let text = std::fs::read_to_string(path).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        found.extend(lines.filter_map(|line| line.get(kind).cloned()));
    }
    found
}

/// Commits lines as another engine would, which syncs nothing.
fn commit_as_another(fixture: &Fixture, lines: &[Value]) {
    let version = fixture.table.snapshot(None).unwrap().version() + 1;
    let by = json!({ "commitInfo": { "engineInfo": "Apache-Spark/4.0.1 Delta-Lake/4.0.1" } });
    let text: String = std::iter::once(&by).chain(lines).map(|line| format!("{line}\n")).collect();
    let path = fixture.table.location().folder().join(log_file(version));
    std::fs::write(path, text).unwrap();
}

/// Changes the table's metadata as another engine would.
pub(crate) fn alter(fixture: &Fixture, change: impl Fn(&mut Value)) {
    let mut metadata = actions(fixture, "metaData").pop().unwrap();
    change(&mut metadata);
    commit_as_another(fixture, &[json!({ "metaData": metadata })]);
}

/// A handle on the same table in a process that has just started.
fn fresh(fixture: &Fixture) -> Table {
    Table::at(&Lake::new().unwrap(), fixture.table.location().clone()).unwrap()
}

fn fixture_at(versions: i64) -> Fixture {
    let fixture = Fixture::new();
    let mut writer = fixture.writer("one");
    for epoch in 1..=versions {
        writer.commit_epoch(epoch, &[draft(u128::try_from(epoch).unwrap(), 0..1)]).unwrap();
    }
    fixture
}

/// Scenario: a version has its name and the sync of its folder fails; the process asks again, while the
/// log cannot be synced and once it can.
/// Guarantees: the version is in doubt; nobody is told that it is in before it is durable.
#[test]
fn a_version_that_is_seen_is_synced_before_it_is_believed() {
    let mut fixture = fixture_at(1);
    fixture.table = fresh(&fixture);
    let watched = Watched::around(&mut fixture.table);
    let mut writer = fixture.writer("one");
    watched.fail(Some("put _delta_log"));
    assert!(writer.commit_epoch(2, &[draft(2, 0..1)]).is_err());
    assert!(writer.is_in_doubt());
    watched.fail(Some("sync log"));
    let table = fixture.table.clone();
    assert!(table.durable_snapshot(None).is_err());
    assert!(writer.committed_epoch().is_err());
    // A question may be answered.
    assert_eq!(table.snapshot(None).unwrap().committed_epoch("one").unwrap(), Some(2));
    watched.fail(None);
    watched.calls();
    assert_eq!(table.durable_snapshot(None).unwrap().committed_epoch("one").unwrap(), Some(2));
    assert_eq!(syncs(&watched), ["sync log"]);
    assert!(writer.commit_epoch(2, &[draft(2, 0..1)]).unwrap().already_committed);
    assert_eq!(fixture.rows().len(), 2);
}

/// Scenario: the file of a version has lost its content, of the newest one and of one below; a process starts.
/// Guarantees: it writes nothing on it, and names the version.
#[test]
fn nothing_is_written_on_an_empty_version() {
    for version in [2, 3] {
        let fixture = fixture_at(3);
        let path = fixture.table.location().folder().join(log_file(version));
        std::fs::write(path, "").unwrap();
        let table = fresh(&fixture);
        let snapshot = table.snapshot(None).unwrap();
        for refused in [table.durable_snapshot(None).map(drop), table.check_versions(&snapshot)] {
            let refused = refused.unwrap_err();
            let names = |named| matches!(refused, LakeError::DamagedVersion { version, .. } if version == named);
            assert!(names(version), "{refused}");
        }
    }
}

/// Scenario: a process starts, commits, and commits again; another tracelake commits; another engine
/// adds and deletes rows.
/// Guarantees: the folders, the log and the checkpoint are synced at the start; what the process wrote
/// itself is not synced again, another tracelake's version costs one sync of the log, and of another
/// engine's version each file that it names is synced before the log is.
#[test]
fn each_version_is_synced_once() {
    let mut fixture = fixture_at(2);
    fixture.table.snapshot(None).unwrap().checkpoint().unwrap();
    fixture.table = fresh(&fixture);
    let watched = Watched::around(&mut fixture.table);
    let mut writer = fixture.writer("two");
    let start = [
        "sync folders".to_owned(),
        format!("sync {}", in_log(&checkpoint_name(2))),
        format!("sync {}", in_log(LAST_CHECKPOINT)),
        "sync log".to_owned(),
    ];
    assert_eq!(syncs(&watched), start);
    writer.commit_epoch(1, &[draft(11, 0..1)]).unwrap();
    writer.commit_epoch(2, &[draft(12, 0..1)]).unwrap();
    assert_eq!(syncs(&watched), [] as [&str; 0]);

    let mut other = Fixture::new();
    other.table = fresh(&fixture);
    other.writer("three").commit_epoch(1, &[draft(13, 0..1)]).unwrap();
    assert_eq!(writer.committed_epoch().unwrap(), Some(2));
    assert_eq!(syncs(&watched), ["sync log"]);

    let file = fixture.table.snapshot(None).unwrap().live_files((None, None)).unwrap().remove(0);
    let vector = json!({
        "storageType": "u", "pathOrInlineDv": "ab^-aqEH.-t@S}K{vb[*k^", "offset": 4,
        "sizeInBytes": 40, "cardinality": 1,
    });
    let add = |path: &str, vector: Option<&Value>| {
        let mut add = json!({
            "path": path, "partitionValues": {}, "size": file.size_bytes, "modificationTime": 1,
            "dataChange": true, "stats": file.stats,
        });
        if let Some(vector) = vector {
            add["deletionVector"] = vector.clone();
        }
        json!({ "add": add })
    };
    let version = fixture.table.snapshot(None).unwrap().version() + 1;
    let lines = [add("theirs%20here.parquet", None), add("../outside.parquet", Some(&vector))];
    commit_as_another(&fixture, &lines);
    assert_eq!(writer.committed_epoch().unwrap(), Some(2));
    let expected = [
        "sync theirs here.parquet".to_owned(),
        "sync ab/deletion_vector_d2c639aa-8816-431a-aaf6-d3fe2512ff61.bin".to_owned(),
        format!("sync {}", log_file(version)),
        "sync log".to_owned(),
    ];
    assert_eq!(syncs(&watched), expected);
    assert_eq!(writer.committed_epoch().unwrap(), Some(2));
    assert_eq!(syncs(&watched), [] as [&str; 0]);
}

/// Scenario: another process deletes a trace and dies before its version is durable. Here a change to
/// that trace comes, a deletion of it, and a copy of a row that is there; the log can or cannot be synced.
/// Guarantees: that there is nothing, or nothing more to do, is concluded from what is durable alone.
#[test]
fn absence_is_a_lookup_too() {
    let mut fixture = fixture_at(2);
    fixture.table = fresh(&fixture);
    let watched = Watched::around(&mut fixture.table);
    let mut writer = fixture.writer("one");
    let gone = std::collections::HashSet::from([draft(1, 0..1).trace_id]);
    let mut other = Fixture::new();
    other.table = fresh(&fixture);
    assert_eq!(other.writer("two").delete_traces(&gone).unwrap().deleted, 1);
    watched.fail(Some("sync log"));
    assert!(writer.archived(&gone).is_err());
    assert!(writer.delete_traces(&gone).is_err());
    let tag = changes(1, vec![TraceChange::DeleteTag { key: "k".to_owned() }]);
    assert!(writer.commit_epoch(3, std::slice::from_ref(&tag)).is_err());
    assert!(writer.data_files().is_err());
    watched.fail(None);
    assert_eq!(writer.delete_traces(&gone).unwrap().deleted, 0);
    assert_eq!(writer.commit_epoch(3, &[tag]).unwrap().appended, 0);

    watched.calls();
    watched.fail(Some("sync part-"));
    assert!(writer.absorb(&[draft(2, 0..1)]).is_err(), "the row may be another engine's");
    watched.fail(None);
    assert_eq!(writer.absorb(&[draft(2, 0..1)]).unwrap().unchanged, 1);
    assert!(syncs(&watched).iter().any(|call| call.starts_with("sync part-")));
    writer.absorb(&[draft(2, 0..1)]).unwrap();
    assert_eq!(syncs(&watched), [] as [&str; 0]);

    let nowhere = crate::TableLocation::new(fixture.table.location().folder().join("nowhere"));
    let mut nowhere = Table::at(&Lake::new().unwrap(), nowhere).unwrap();
    let watched = Watched::around(&mut nowhere);
    assert!(!nowhere.durable_exists().unwrap());
    watched.fail(Some("sync folders"));
    assert!(nowhere.durable_exists().is_err());
}

/// Scenario: to a large trace, by a process that has just started, comes a copy of a span in a part that is not
/// read for it, and a span that is not there; the part cannot be synced, then it can.
/// Guarantees: the copy is not let go before the row that has it is durable.
#[test]
fn a_copy_in_a_part_is_let_go_once_the_part_is_durable() {
    let mut fixture = Fixture::new();
    let mut writer = fixture.writer("one");
    writer.commit_epoch(1, &[long_spans(1, 0..6)]).unwrap();
    writer.commit_epoch(2, &[long_spans(1, 6..8)]).unwrap();
    let mut parts = Vec::new();
    let snapshot = fixture.table.snapshot(None).unwrap();
    for file in snapshot.live_files((None, None)).unwrap() {
        let rows = &|_, is_part| is_part;
        snapshot
            .for_each_row(&file, rows, &mut |row| parts.push((file.path.clone(), row.unwrap())))
            .unwrap();
    }
    let [(path, part)] = &parts[..] else { panic!("one part") };
    let mut piece = draft(1, 20..21);
    piece.spans.push(part.spans[0].clone());
    fixture.table = fresh(&fixture);
    let watched = Watched::around(&mut fixture.table);
    let mut writer = fixture.writer("one");
    watched.fail(Some("sync part-"));
    assert!(writer.commit_epoch(3, &[piece.clone()]).is_err());
    watched.fail(None);
    watched.calls();
    let outcome = writer.commit_epoch(3, &[piece]).unwrap();
    assert_eq!((outcome.amended, outcome.unchanged), (1, 0));
    let calls = watched.calls();
    let first = |call: &str| calls.iter().position(|made| made.starts_with(call));
    assert!(first(&format!("sync {path}")).unwrap() < first("put _delta_log").unwrap());
}

/// Scenario: the data file of an archived trace is there and cannot be read, as when the disk fails for a moment; late
/// spans of it and of another trace come, then again when it can be read.
/// Guarantees: nothing is refused or left out as damaged, the commit fails and may be tried again; then all is in.
#[test]
fn a_read_that_fails_is_no_damage() {
    let mut fixture = fixture_at(2);
    let watched = Watched::around(&mut fixture.table);
    let mut writer = fixture.writer("one");
    let late = [draft(1, 1..2), draft(2, 1..2)];
    let archived = late.iter().map(|trace| trace.trace_id).collect();
    let mark = EpochMark { application: "one".to_owned(), number: 3, nonce: Some(7) };
    for knows_where in [false, true] {
        if knows_where {
            assert_eq!(writer.archived(&archived).unwrap().len(), 2);
        }
        watched.fail(Some("open part-"));
        let fault = writer.commit_planned(&mark, &late, Some(&mut |_| Ok(()))).unwrap_err();
        assert_eq!(fault.retry(), crate::Retry::AfterBackoff, "{fault}");
        watched.fail(None);
    }
    assert_eq!(writer.commit_planned(&mark, &late, Some(&mut |_| Ok(()))).unwrap().amended, 2);
    assert_eq!(fixture.rows(), [(1, 2, 2), (2, 2, 2)]);
}

/// Scenario: a file that compaction replaced has expired, and the log cannot be synced; then it can.
/// Guarantees: it stays until the version that replaced it is durable; a list of what would go asks nothing.
#[test]
fn vacuum_deletes_nothing_for_a_version_that_may_go_back() {
    let fixture = fixture_at(2);
    let orphan = fixture.table.location().folder().join("orphan.parquet");
    std::fs::write(&orphan, b"x").unwrap();
    let file = std::fs::File::options().write(true).open(&orphan).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    let clock = tracelake_model::SystemClock;
    let mut table = fresh(&fixture);
    let watched = Watched::around(&mut table);
    watched.fail(Some("sync"));
    let rules = VacuumRules::default();
    let go_on = &mut |_| std::ops::ControlFlow::Continue(());
    assert_eq!(expired(&table, &clock, &rules, go_on).unwrap().unwrap().len(), 1);
    assert!(vacuum(&table, &clock, &rules, go_on).is_err());
    assert!(orphan.is_file());
    watched.fail(None);
    assert_eq!(vacuum(&table, &clock, &rules, go_on).unwrap().files, 1);
    assert!(!orphan.is_file());
}

/// Scenario: a checkpoint is due; before it, that its file or its name cannot be written.
/// Guarantees: the commit stands; the name follows the file, and is not written without it.
#[test]
fn a_checkpoint_is_durable_before_it_is_named() {
    let mut fixture = fixture_at(1);
    let lake = Lake::new().unwrap().with_checkpoint_every(1);
    fixture.table = Table::at(&lake, fixture.table.location().clone()).unwrap();
    let watched = Watched::around(&mut fixture.table);
    let mut writer = fixture.writer("one");
    let about_checkpoints = |watched: &Watched| -> Vec<String> {
        let written = |call: &String| call.contains("checkpoint") && !call.starts_with("sync");
        watched.calls().into_iter().filter(written).collect()
    };
    about_checkpoints(&watched);
    watched.fail(Some("put _delta_log/00000000000000000002.checkpoint"));
    writer.commit_epoch(2, &[draft(2, 0..1)]).unwrap();
    assert_eq!(about_checkpoints(&watched), [format!("put {}", in_log(&checkpoint_name(2)))]);
    assert_eq!(named(&fixture.table).unwrap(), Named::Nothing);
    watched.fail(None);
    writer.commit_epoch(3, &[draft(3, 0..1)]).unwrap();
    let both = [
        format!("put {}", in_log(&checkpoint_name(3))),
        format!("replace {}", in_log(LAST_CHECKPOINT)),
    ];
    assert_eq!(about_checkpoints(&watched), both);
    assert_eq!(named(&fixture.table).unwrap(), Named::Checkpoint(3));
    // Readers begin with it.
    for version in 0..3 {
        std::fs::remove_file(fixture.table.location().folder().join(log_file(version))).unwrap();
    }
    let snapshot = fresh(&fixture).snapshot(None).unwrap();
    assert_eq!(snapshot.committed_epoch("one").unwrap(), Some(3));
    assert_eq!(snapshot.live_files((None, None)).unwrap().len(), 3);
    // An older one does not take the place of its name.
    let older = fresh(&fixture).snapshot_at(3).unwrap();
    writer.commit_epoch(4, &[draft(4, 0..1)]).unwrap();
    older.checkpoint().unwrap();
    assert_eq!(named(&fixture.table).unwrap(), Named::Checkpoint(4));
}

/// Scenario: the newest checkpoint is empty, cut, overwritten in its middle or gone, and what names it
/// is whole, empty or garbage.
/// Guarantees: questions pass it over; a writer that opens the table leaves a log that a reader without
/// such care reads, with the same rows; the damaged file is kept beside.
#[test]
fn a_damaged_checkpoint_is_passed_over_and_replaced() {
    type Damage = fn(&std::path::Path);
    let empty: Damage = |path| std::fs::write(path, b"").unwrap();
    let cut: Damage = |path| {
        let bytes = std::fs::read(path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    };
    let overwritten: Damage = |path| {
        let mut bytes = std::fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[4..middle].fill(0);
        std::fs::write(path, bytes).unwrap();
    };
    let gone: Damage = |path| std::fs::remove_file(path).unwrap();
    let whole: Damage = |_| {};
    let garbage: Damage = |path| std::fs::write(path, b"\0\0\0\0").unwrap();
    for (name, file, hint) in [
        ("empty", empty, whole),
        ("cut", cut, whole),
        ("cut, not named", cut, gone),
        ("cut, named by nothing", cut, empty),
        ("overwritten", overwritten, garbage),
        ("gone", gone, whole),
        ("whole, named by garbage", whole, garbage),
    ] {
        let fixture = fixture_at(3);
        fixture.table.snapshot(None).unwrap().checkpoint().unwrap();
        let checkpoint = log_folder(&fixture).join(checkpoint_name(3));
        file(&checkpoint);
        hint(&log_folder(&fixture).join(LAST_CHECKPOINT));
        let asked = fresh(&fixture);
        let before = std::fs::read_dir(log_folder(&fixture)).unwrap().count();
        if name != "overwritten" {
            let snapshot = asked.snapshot(None).unwrap();
            assert_eq!(snapshot.live_files((None, None)).unwrap().len(), 3, "{name}");
        }
        assert_eq!(std::fs::read_dir(log_folder(&fixture)).unwrap().count(), before, "{name}");
        let damaged = asked.damaged_checkpoints().unwrap();
        assert!(damaged.iter().all(|one| one.is_replaceable), "{name}: {damaged:?}");
        assert_eq!(damaged.is_empty(), name.starts_with("gone") || name.starts_with("whole"));

        let mut opened = fixture;
        opened.table = fresh(&opened);
        let mut writer = opened.writer("one");
        assert_eq!(writer.committed_epoch().unwrap(), Some(3), "{name}");
        assert_eq!(named(&opened.table).unwrap(), Named::Checkpoint(3), "{name}");
        assert!(opened.table.damaged_checkpoints().unwrap().is_empty(), "{name}");
        let aside = log_folder(&opened).join(format!("{DAMAGED_PREFIX}{}", checkpoint_name(3)));
        assert_eq!(aside.is_file(), !damaged.is_empty(), "{name}");
        writer.commit_epoch(4, &[draft(4, 0..1)]).unwrap();
        assert_eq!(opened.rows().len(), 4, "{name}");
        let without_care = delta_kernel::Snapshot::builder_for(opened.table.url().as_str())
            .build(fresh(&opened).engine())
            .unwrap();
        assert_eq!(
            (without_care.version(), without_care.log_segment().checkpoint_version),
            (4, Some(3))
        );
    }
}

/// Scenario: a damaged checkpoint whose log before it was cleaned, wholly or in the middle.
/// Guarantees: readers and writers are told which file is damaged; nothing is moved or written.
#[test]
fn a_damaged_checkpoint_that_is_all_there_is_stays() {
    for missing in [0, 2] {
        let mut fixture = fixture_at(3);
        fixture.table.snapshot(None).unwrap().checkpoint().unwrap();
        let log = log_folder(&fixture);
        std::fs::write(log.join(checkpoint_name(3)), b"").unwrap();
        std::fs::remove_file(fixture.table.location().folder().join(log_file(missing))).unwrap();
        let names = || {
            let entries = std::fs::read_dir(&log).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let before = names();
        fixture.table = fresh(&fixture);
        let refused = fixture.table.snapshot(None).unwrap_err();
        assert!(matches!(refused, LakeError::DamagedCheckpoint { .. }), "{refused}");
        let clock = tracelake_testkit::FakeClock::default();
        let refused = create_or_accept(&fixture.table, &clock).unwrap_err();
        assert!(matches!(refused, LakeError::DamagedCheckpoint { .. }), "{refused}");
        let damaged = fixture.table.damaged_checkpoints().unwrap();
        assert_eq!(damaged.len(), 1);
        assert!(!damaged[0].is_replaceable);
        assert_eq!(names(), before);
    }
}

/// Scenario: an older checkpoint that can be read, below one that cannot, and the log between them.
/// Guarantees: the older one is the beginning; the versions before it are not asked for.
#[test]
fn an_older_checkpoint_is_good_enough() {
    let mut fixture = fixture_at(4);
    fixture.table.snapshot_at(2).unwrap().checkpoint().unwrap();
    fixture.table.snapshot(None).unwrap().checkpoint().unwrap();
    std::fs::write(log_folder(&fixture).join(checkpoint_name(4)), b"").unwrap();
    for version in 0..2 {
        std::fs::remove_file(fixture.table.location().folder().join(log_file(version))).unwrap();
    }
    assert_eq!(fresh(&fixture).snapshot(None).unwrap().version(), 4);
    fixture.table = fresh(&fixture);
    let mut writer = fixture.writer("one");
    writer.commit_epoch(5, &[draft(5, 0..1)]).unwrap();
    assert_eq!(fixture.rows().len(), 5);
}

/// Scenario: another engine sets `delta.appendOnly`; then come late spans, a copy, a new trace, a deletion
/// and a move; then it is taken back.
/// Guarantees: new traces go in; no row is changed or deleted; what is kept is told before the version is
/// written, and alone makes none, but a copy beside it that is let go does; all of it goes in afterwards.
#[test]
fn an_append_only_table_takes_new_traces_alone() {
    let fixture = fixture_at(2);
    let mut writer = fixture.writer("one");
    alter(&fixture, |metadata| metadata["configuration"]["delta.appendOnly"] = json!("true"));
    let late = [draft(1, 1..3), draft(2, 0..1), draft(3, 0..1)];
    let mut kept = std::collections::HashSet::new();
    let mark = EpochMark { application: "one".to_owned(), number: 3, nonce: Some(77) };
    let outcome = writer
        .commit_planned(
            &mark,
            &late,
            Some(&mut |left| {
                kept.clone_from(left);
                Ok(())
            }),
        )
        .unwrap();
    assert_eq!((outcome.appended, outcome.amended, outcome.unchanged), (1, 0, 1));
    assert_eq!(outcome.kept, [draft(1, 0..1).trace_id]);
    assert_eq!(kept, std::collections::HashSet::from([draft(1, 0..1).trace_id]));
    assert_eq!(fixture.rows(), [(1, 1, 1), (2, 1, 1), (3, 1, 1)]);
    let before = fixture.table.snapshot(None).unwrap().version();
    let again = EpochMark { number: 4, nonce: Some(78), ..mark };
    let table_has =
        |fixture: &Fixture, mark| fixture.table.snapshot(None).unwrap().has_epoch(mark).unwrap();
    let outcome = writer.commit_planned(&again, &late[..1], Some(&mut |_| Ok(()))).unwrap();
    assert_eq!((outcome.kept.len(), outcome.version), (1, before), "nothing to say, no version");
    for refused in [
        writer.delete_traces(&kept).unwrap_err(),
        writer.absorb(&[draft(1, 1..3)]).unwrap_err(),
        writer.commit_epoch(5, &[changes(1, vec![TraceChange::Delete])]).unwrap_err(),
    ] {
        assert!(matches!(refused, LakeError::AppendOnly { .. }), "{refused}");
    }
    let both = [draft(1, 1..3), draft(2, 0..1)];
    let outcome = writer.commit_planned(&again, &both, Some(&mut |_| Ok(()))).unwrap();
    assert_eq!((outcome.kept.len(), outcome.unchanged), (1, 1));
    assert!(outcome.version == before + 1 && table_has(&fixture, &again), "one is let go");
    let before = outcome.version;
    let path = writer.data_files().unwrap().remove(0);
    let located = writer.locate(&path, &[0]).unwrap();
    assert!(matches!(writer.delete_located(&located), Err(LakeError::AppendOnly { .. })));
    assert_eq!(fixture.table.snapshot(None).unwrap().version(), before);

    alter(&fixture, |metadata| metadata["configuration"]["delta.appendOnly"] = json!("false"));
    assert_eq!(writer.commit_epoch(5, &[draft(1, 1..3)]).unwrap().amended, 1);
    assert_eq!(fixture.rows(), [(1, 3, 2), (2, 1, 1), (3, 1, 1)]);
}

/// Scenario: an operator sets properties, ours too, while a writer runs; it commits, and starts again.
/// Guarantees: what was set stays as it is.
#[test]
fn what_an_operator_set_is_not_set_back() {
    let fixture = fixture_at(1);
    let mut writer = fixture.writer("one");
    alter(&fixture, |metadata| {
        metadata["configuration"]["delta.logRetentionDuration"] = json!("interval 7 days");
        metadata["configuration"]["delta.checkpointInterval"] = json!("2");
        metadata["configuration"]["theirs"] = json!("kept");
    });
    let set = actions(&fixture, "metaData").pop().unwrap();
    writer.commit_epoch(2, &[draft(2, 0..1)]).unwrap();
    fixture.writer("one").commit_epoch(3, &[draft(3, 0..1), draft(2, 1..2)]).unwrap();
    assert_eq!(actions(&fixture, "metaData").len(), 2);
    assert_eq!(actions(&fixture, "metaData").pop().unwrap(), set);
    assert_eq!(named(&fixture.table).unwrap(), Named::Checkpoint(4), "every other version");
}

/// Scenario: partition columns appear in a table that is written to.
/// Guarantees: nothing is written to it any more, and why is said.
#[test]
fn a_table_that_gets_partitions_is_left_alone() {
    let fixture = fixture_at(1);
    let mut writer = fixture.writer("one");
    alter(&fixture, |metadata| metadata["partitionColumns"] = json!(["experiment_id"]));
    let before = fixture.table.snapshot(None).unwrap().version();
    let refused = writer.commit_epoch(2, &[draft(2, 0..1)]).unwrap_err();
    assert!(refused.to_string().contains("partition columns"), "{refused}");
    assert_eq!(fixture.table.snapshot(None).unwrap().version(), before);
}

/// Scenario: transaction ids expire, and one has: its commit is there, or is gone behind a checkpoint.
/// Guarantees: it is found in the commits; one that is nowhere is answered as none.
#[test]
fn an_expired_epoch_is_found_in_the_commits() {
    let fixture = fixture_at(1);
    let txn = |epoch: i64| {
        let txn = json!({ "appId": "theirs", "version": epoch, "lastUpdated": 1 });
        commit_as_another(&fixture, &[json!({ "txn": txn })]);
    };
    txn(7);
    txn(8);
    let property = "delta.setTransactionRetentionDuration";
    alter(&fixture, |metadata| metadata["configuration"][property] = json!("interval 1 day"));
    let epoch = |application: &str| {
        fresh(&fixture).snapshot(None).unwrap().committed_epoch(application).unwrap()
    };
    assert_eq!(epoch("theirs"), Some(8));
    assert_eq!(epoch("nobody"), None);
    fixture.table.snapshot(None).unwrap().checkpoint().unwrap();
    assert_eq!(epoch("theirs"), Some(8));
    for version in 0..=3 {
        std::fs::remove_file(fixture.table.location().folder().join(log_file(version))).unwrap();
    }
    assert_eq!(epoch("theirs"), None);
}
