//! Vacuum of tables that archivers write to.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use tracelake_model::{SteadyClock, SystemClock, Times};

use super::*;
use crate::commit::tests::{Fixture, draft};
use crate::maintain::compact::{CompactionRules, compact};

const DAY: Duration = Duration::from_secs(86_400);
const WEEK: Duration = VacuumRules::AFTER;

const fn go_on() -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Makes every file of the table so much older.
fn age(folder: &Path, by: Duration) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            age(&entry.path(), by);
        }
        if !kind.is_file() {
            continue;
        }
        let older = entry.metadata().unwrap().modified().unwrap() - by;
        let file = File::options().write(true).open(entry.path()).unwrap();
        file.set_modified(older).unwrap();
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn run(fixture: &Fixture) -> VacuumReport {
    vacuum(&fixture.table, &SystemClock, &VacuumRules::default(), &mut |_| go_on()).unwrap()
}

fn compact_all(fixture: &Fixture) {
    let rules = CompactionRules { purge_percent: 0, ..CompactionRules::eager(i64::MAX) };
    let pace = &mut |_| go_on();
    compact(&fixture.table, &SystemClock, &rules, pace).unwrap();
}

/// Scenario: files that were replaced a day ago and made long before; then a week passes.
/// Guarantees: they stay as long as a version of the last week has them, although they are
/// older themselves; then they go with vectors, change data and what a crash left; strangers
/// stay, and every row.
#[test]
fn replaced_files_go_after_the_retention_time() {
    let fixture = Fixture::new();
    let folder = fixture.table.location().folder().to_owned();
    let mut writer = fixture.writer("one");
    writer.commit_epoch(1, &[draft(1, 0..1), draft(2, 0..1)]).unwrap();
    writer.commit_epoch(2, &[draft(1, 1..2)]).unwrap();
    std::fs::write(folder.join(".tmp-left"), b"x").unwrap();
    std::fs::write(folder.join("_delta_log/.tmp-left"), b"x").unwrap();
    std::fs::write(folder.join("orphan.parquet"), b"x").unwrap();
    std::fs::write(folder.join("notes.txt"), b"x").unwrap();
    assert_eq!(run(&fixture), VacuumReport::default(), "all of it is young");
    age(&folder, 10 * DAY);
    compact_all(&fixture);
    age(&folder, DAY);
    // The version before the compaction was the newest one within the week.
    assert_eq!(run(&fixture).files, 4, "temporary files, the orphan, and the change data");
    let old = fixture.table.snapshot_at(2).unwrap();
    for file in old.live_files((None, None)).unwrap() {
        assert!(folder.join(&file.path).is_file());
        old.deleted_rows(&file).unwrap();
    }
    age(&folder, WEEK);
    let rows = fixture.rows();
    assert_eq!(run(&fixture).files, 3, "two data files and a vector");
    assert_eq!(fixture.rows(), rows);
    assert_eq!(names(&folder).len(), 4, "{:?}", names(&folder));
    writer.commit_epoch(3, &[draft(2, 1..2)]).unwrap();
    assert_eq!(fixture.rows(), [(1, 2, 2), (2, 2, 2)]);
    assert_eq!(run(&fixture), VacuumReport::default());
}

/// Scenario: a commit of the retention time is gone.
/// Guarantees: nothing is deleted then.
#[test]
fn what_is_not_known_is_not_deleted() {
    let fixture = Fixture::new();
    let folder = fixture.table.location().folder().to_owned();
    let mut writer = fixture.writer("one");
    writer.commit_epoch(1, &[draft(1, 0..1)]).unwrap();
    writer.commit_epoch(2, &[draft(2, 0..1)]).unwrap();
    fixture.table.snapshot(None).unwrap().checkpoint().unwrap();
    std::fs::write(folder.join("orphan.parquet"), b"x").unwrap();
    age(&folder, 10 * DAY);
    writer.commit_epoch(3, &[draft(3, 0..1)]).unwrap();
    writer.commit_epoch(4, &[draft(4, 0..1)]).unwrap();
    fixture.table.snapshot(None).unwrap().checkpoint().unwrap();
    std::fs::remove_file(folder.join(log_file(3))).unwrap();
    let rules = VacuumRules::default();
    assert!(vacuum(&fixture.table, &SystemClock, &rules, &mut |_| go_on()).is_err());
    assert!(folder.join("orphan.parquet").is_file());
}

/// Commits lines as another engine would.
fn commit_lines(fixture: &Fixture, lines: &[serde_json::Value]) {
    let version = fixture.table.snapshot(None).unwrap().version() + 1;
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fixture.table.files.put_if_absent(&log_file(version), text.as_bytes()).unwrap();
}

/// Scenario: a file that compaction replaced long ago is brought back, as by a `RESTORE`, and
/// removed again, both within the week.
/// Guarantees: it stays, although neither the first nor the last version of the week has it; a
/// week later it goes.
#[test]
fn a_file_that_was_back_for_a_while_stays() {
    let fixture = Fixture::new();
    let folder = fixture.table.location().folder().to_owned();
    fixture.writer("one").commit_epoch(1, &[draft(1, 0..1)]).unwrap();
    let file = fixture.table.snapshot(None).unwrap().live_files((None, None)).unwrap().remove(0);
    compact_all(&fixture);
    age(&folder, 10 * DAY);
    let add = serde_json::json!({
        "path": file.action_path, "partitionValues": {}, "size": file.size_bytes,
        "modificationTime": 1, "dataChange": true, "stats": file.stats,
    });
    let remove = serde_json::json!({ "path": file.action_path, "dataChange": true });
    commit_lines(&fixture, &[serde_json::json!({ "add": add })]);
    commit_lines(&fixture, &[serde_json::json!({ "remove": remove })]);
    assert_eq!(run(&fixture), VacuumReport::default());
    age(&folder, 8 * DAY);
    assert_eq!((run(&fixture).files, folder.join(&file.path).is_file()), (1, false));
    assert_eq!(fixture.rows(), [(1, 1, 1)]);
}

/// Scenario: links to files and folders elsewhere, hidden files, folders: all of them old.
/// Guarantees: nothing outside of the table's folder is touched, and none of them goes.
#[test]
fn links_and_strangers_stay() {
    let fixture = Fixture::new();
    let folder = fixture.table.location().folder().to_owned();
    fixture.writer("one").commit_epoch(1, &[draft(1, 0..1)]).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let outside = elsewhere.path().join("outside.parquet");
    std::fs::write(&outside, b"x").unwrap();
    std::os::unix::fs::symlink(&outside, folder.join("link.parquet")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), folder.join(CHANGE_FOLDER)).unwrap();
    std::fs::create_dir(folder.join("folder.parquet")).unwrap();
    for name in ["_hidden.parquet", ".hidden.parquet", "folder.parquet/inner.parquet"] {
        std::fs::write(folder.join(name), b"x").unwrap();
    }
    age(&folder, 10 * DAY);
    age(elsewhere.path(), DAY);
    let before = names(&folder);
    assert_eq!(run(&fixture), VacuumReport::default());
    assert_eq!((names(&folder), outside.is_file()), (before, true));
    assert!(folder.join("folder.parquet/inner.parquet").is_file());
}

/// Scenario: the versions before a checkpoint were cleaned away within the retention time.
/// Guarantees: what cannot be read holds nothing back; what the others refer to stays.
#[test]
fn a_log_that_was_cleaned_is_read_from_its_checkpoint() {
    let fixture = Fixture::new();
    let folder = fixture.table.location().folder().to_owned();
    let mut writer = fixture.writer("one");
    writer.commit_epoch(1, &[draft(1, 0..1)]).unwrap();
    writer.commit_epoch(2, &[draft(2, 0..1)]).unwrap();
    fixture.table.snapshot(None).unwrap().checkpoint().unwrap();
    std::fs::write(folder.join("orphan.parquet"), b"x").unwrap();
    age(&folder, 10 * DAY);
    compact_all(&fixture);
    for version in 0..=3 {
        let path = folder.join(log_file(version));
        if version == 0 {
            std::fs::remove_file(path).unwrap();
        } else {
            let file = File::options().write(true).open(path).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_nanos(SystemClock.now_unix_nano()))
                .unwrap();
        }
    }
    assert_eq!(run(&fixture).files, 1);
    assert!(!folder.join("orphan.parquet").is_file());
    assert_eq!(fixture.table.snapshot_at(2).unwrap().live_files((None, None)).unwrap().len(), 2);
    let (rows, old) = (fixture.rows(), fixture.table.snapshot_at(2).unwrap());
    assert_eq!(rows, [(1, 1, 1), (2, 1, 1)]);
    for file in old.live_files((None, None)).unwrap() {
        assert!(folder.join(&file.path).is_file());
    }
}

/// Scenario: vacuum is told to stop at its first question, then goes on.
/// Guarantees: nothing was deleted before, all of it after; a list deletes nothing.
#[test]
fn a_stop_and_a_list_delete_nothing() {
    let fixture = Fixture::new();
    let folder = fixture.table.location().folder().to_owned();
    fixture.writer("one").commit_epoch(1, &[draft(1, 0..1)]).unwrap();
    std::fs::write(folder.join("orphan.parquet"), b"four").unwrap();
    age(&folder, 10 * DAY);
    let rules = VacuumRules::default();
    let stop = &mut |_| ControlFlow::Break(());
    let report = vacuum(&fixture.table, &SystemClock, &rules, stop).unwrap();
    assert_eq!(report, VacuumReport { stopped: true, ..VacuumReport::default() });
    let listed = expired(&fixture.table, &SystemClock, &rules, &mut |_| go_on()).unwrap();
    let orphan = ExpiredFile { path: "orphan.parquet".to_owned(), size_bytes: 4 };
    assert_eq!(listed, Some(vec![orphan]));
    assert_eq!(run(&fixture), VacuumReport { files: 1, bytes: 4, stopped: false });
}

/// Scenario: a file that is seven and a half days old by the wall clock, which is most of a day ahead of what
/// was proven before; then a sender confirms the date.
/// Guarantees: it stays until then.
#[test]
fn a_clock_that_is_ahead_deletes_nothing() {
    let fixture = Fixture::new();
    let folder = fixture.table.location().folder().to_owned();
    fixture.writer("one").commit_epoch(1, &[draft(1, 0..1)]).unwrap();
    std::fs::write(folder.join("orphan.parquet"), b"x").unwrap();
    age(&folder, 15 * DAY / 2);
    let now = SystemClock.now_unix_nano();
    let before = now - u64::try_from((9 * DAY / 10).as_nanos()).unwrap();
    let floor = Times { given_unix_nano: now, proven_unix_nano: before };
    let clock = SteadyClock::new(Arc::new(SystemClock), Some(floor));
    let rules = VacuumRules::default();
    let run = || vacuum(&fixture.table, &clock, &rules, &mut |_| go_on()).unwrap().files;
    assert_eq!(run(), 0);
    clock.witness(now);
    assert_eq!(run(), 1);
}
