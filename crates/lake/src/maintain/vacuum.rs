//! Vacuum: files that no reader can want any more are deleted.
//!
//! Compaction and amendments leave the files that they replace, for readers of older versions and
//! of the change feed. A file goes when no version of the retention time refers to it and it is
//! older than that itself: so what a writer has written and not committed yet stays too.
//!
//! Only files of the kinds that writers of Delta tables leave are looked at, in the table's own
//! folder. Others, folders and links are not touched.

use std::collections::HashSet;
use std::fs::{DirEntry, Metadata};
use std::io;
use std::time::{Duration, UNIX_EPOCH};

use delta_kernel::actions::deletion_vector::DeletionVectorDescriptor;
use serde::Deserialize;
use tracelake_model::Clock;
use tracing::info;

use crate::error::LakeError;
use crate::layout::{CHANGE_FOLDER, LOG_FOLDER, decode_action_path, log_file};
use crate::table::{DeletionVector, Table, TableSnapshot};

/// Property by which a table asks for a longer time; Delta's own.
const RETENTION_PROPERTY: &str = "delta.deletedFileRetentionDuration";

/// What a round of vacuum did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VacuumReport {
    /// Files that were deleted.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Deletes the files that no version of the last `retention`, or of the table's own retention time
/// if that is longer, refers to.
///
/// # Errors
/// [`LakeError::Kernel`] when the log of that time cannot be read, [`LakeError::Row`] when a commit
/// of it is gone or the property is not understood, [`LakeError::Storage`] when a file cannot be
/// deleted. Nothing that is wanted is deleted before.
pub fn vacuum(
    table: &Table,
    clock: &dyn Clock,
    retention: Duration,
) -> Result<VacuumReport, LakeError> {
    table.location().check()?;
    let snapshot = table.snapshot(None)?;
    let retention = retention.max(own_retention(&snapshot)?);
    let retention = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
    let horizon = (clock.now_unix_micro() / 1_000).saturating_sub(retention);
    let wanted = wanted_since(table, &snapshot, horizon)?;
    let mut report = VacuumReport::default();
    for folder in ["", CHANGE_FOLDER, LOG_FOLDER] {
        for (path, size_bytes) in expired(table, folder, horizon)? {
            if wanted.contains(&path) {
                continue;
            }
            match std::fs::remove_file(table.location().folder().join(&path)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(fault(table, "delete", &path, error));
                }
                _ => {
                    report.files += 1;
                    report.bytes += size_bytes;
                }
            }
        }
    }
    if 0 < report.files {
        info!(table = table.name(), files = report.files, bytes = report.bytes, "vacuumed");
    }
    Ok(report)
}

fn fault(table: &Table, action: &'static str, path: &str, source: io::Error) -> LakeError {
    let path = table.location().folder().join(path).display().to_string();
    LakeError::Storage { action, path, source }
}

fn row(table: &Table, reason: String) -> LakeError {
    LakeError::Row { path: table.name(), reason }
}

/// The retention time that the table asks for; zero when it does not.
fn own_retention(snapshot: &TableSnapshot) -> Result<Duration, LakeError> {
    let Some(text) = snapshot.properties().get(RETENTION_PROPERTY).cloned() else {
        return Ok(Duration::ZERO);
    };
    interval(&text).ok_or_else(|| {
        row(snapshot.table(), format!("{RETENTION_PROPERTY} `{text}` is not understood"))
    })
}

/// Spark's `interval 7 days`.
fn interval(text: &str) -> Option<Duration> {
    let text = text.trim().to_ascii_lowercase();
    let mut words = text.strip_prefix("interval").unwrap_or(&text).split_whitespace();
    let number: u64 = words.next()?.parse().ok()?;
    let seconds = match words.next()?.trim_end_matches('s') {
        "week" => 604_800,
        "day" => 86_400,
        "hour" => 3_600,
        "minute" => 60,
        "second" => 1,
        _ => return None,
    };
    words.next().is_none().then(|| Duration::from_secs(number.saturating_mul(seconds)))
}

/// What of a commit names files.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Line {
    add: Option<Named>,
    remove: Option<Named>,
    cdc: Option<Named>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    path: String,
    deletion_vector: Option<DeletionVector>,
}

/// The files of every version that was the newest one at `horizon` or later.
fn wanted_since(
    table: &Table,
    newest: &TableSnapshot,
    horizon: i64,
) -> Result<HashSet<String>, LakeError> {
    let commits = young_commits(table, horizon)?;
    let base = commits.first().map_or(newest.version(), |first| first.saturating_sub(1));
    let mut wanted = HashSet::new();
    let mut want = |path: &str, vector: Option<&DeletionVector>| -> Result<(), LakeError> {
        wanted.insert(decode_action_path(path));
        if let Some(vector) = vector {
            wanted.extend(vector_file(table, vector)?);
        }
        Ok(())
    };
    for snapshot in [&table.snapshot_at(base)?, newest] {
        for file in snapshot.live_files((None, None))? {
            want(&file.action_path, file.deletion_vector.as_ref())?;
        }
    }
    for version in base.saturating_add(1)..=newest.version() {
        let text = std::fs::read_to_string(table.location().folder().join(log_file(version)))
            .map_err(|error| fault(table, "read", &log_file(version), error))?;
        for line in text.lines() {
            let line: Line = serde_json::from_str(line)
                .map_err(|error| row(table, format!("version {version}: {error}")))?;
            for named in [line.add, line.remove, line.cdc].into_iter().flatten() {
                want(&named.path, named.deletion_vector.as_ref())?;
            }
        }
    }
    Ok(wanted)
}

/// The versions whose commit is not older than `horizon`, ascending.
fn young_commits(table: &Table, horizon: i64) -> Result<Vec<u64>, LakeError> {
    let mut versions = Vec::new();
    each_file(table, LOG_FOLDER, &mut |name, metadata| {
        let version = name.strip_suffix(".json").and_then(|version| version.parse().ok());
        if let Some(version) = version
            && modified(metadata).is_none_or(|modified| horizon <= modified)
        {
            versions.push(version);
        }
    })?;
    versions.sort_unstable();
    Ok(versions)
}

/// The file of a deletion vector, relative to the table; none for one in the log itself.
fn vector_file(table: &Table, vector: &DeletionVector) -> Result<Option<String>, LakeError> {
    let fault = |source| table.kernel("find deletion vector", source);
    let descriptor = DeletionVectorDescriptor {
        storage_type: vector.storage_type.parse().map_err(fault)?,
        path_or_inline_dv: vector.path_or_inline_dv.clone(),
        offset: vector.offset,
        size_in_bytes: vector.size_in_bytes,
        cardinality: vector.cardinality,
    };
    let url = descriptor.absolute_path(table.url()).map_err(fault)?;
    let path = url.and_then(|url| url.to_file_path().ok());
    Ok(path.and_then(|path| {
        let relative = path.strip_prefix(table.location().folder()).ok()?;
        relative.to_str().map(str::to_owned)
    }))
}

/// Files of a folder that are older than `horizon` and of a kind that a table leaves behind.
fn expired(table: &Table, folder: &str, horizon: i64) -> Result<Vec<(String, u64)>, LakeError> {
    let mut found = Vec::new();
    each_file(table, folder, &mut |name, metadata| {
        let is_data = name.ends_with(".parquet")
            || (name.starts_with("deletion_vector_") && name.ends_with(".bin"));
        // The log's own files, checkpoints among them, are not ours to judge here.
        let is_ours = name.starts_with(".tmp-") || (is_data && folder != LOG_FOLDER);
        if is_ours && modified(metadata).is_some_and(|modified| modified < horizon) {
            let path = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            found.push((path, metadata.len()));
        }
    })?;
    Ok(found)
}

fn each_file(
    table: &Table,
    folder: &str,
    visit: &mut dyn FnMut(&str, &Metadata),
) -> Result<(), LakeError> {
    let entries = match std::fs::read_dir(table.location().folder().join(folder)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|error| fault(table, "list", folder, error))?,
    };
    for entry in entries {
        let entry: DirEntry = entry.map_err(|error| fault(table, "list", folder, error))?;
        // One that went meanwhile is as good as deleted.
        let Ok(metadata) = entry.metadata() else { continue };
        if let (true, Some(name)) = (metadata.is_file(), entry.file_name().to_str()) {
            visit(name, &metadata);
        }
    }
    Ok(())
}

/// Milliseconds since the Unix epoch.
fn modified(metadata: &Metadata) -> Option<i64> {
    let since = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;
    use std::path::Path;

    use tracelake_model::SystemClock;

    use super::*;
    use crate::commit::tests::{Fixture, draft};
    use crate::maintain::compact::{CompactionRules, compact};

    const DAY: Duration = Duration::from_secs(86_400);
    const WEEK: Duration = Duration::from_secs(7 * 86_400);

    /// Makes every file of the table so much older.
    fn age(folder: &Path, by: Duration) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                age(&entry.path(), by);
                continue;
            }
            let older = entry.metadata().unwrap().modified().unwrap() - by;
            let file = std::fs::File::options().write(true).open(entry.path()).unwrap();
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
        vacuum(&fixture.table, &SystemClock, WEEK).unwrap()
    }

    fn compact_all(fixture: &Fixture) {
        let rules = CompactionRules { purge_percent: 0, ..CompactionRules::eager(i64::MAX) };
        let pace = &mut |_| ControlFlow::Continue(());
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

    /// Scenario: a commit of the retention time is gone; a table asks for a longer time.
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
        assert!(vacuum(&fixture.table, &SystemClock, WEEK).is_err());
        assert!(folder.join("orphan.parquet").is_file());
    }

    /// Scenario: intervals as Spark writes them, and others.
    /// Guarantees: what is not understood is not taken for a short time.
    #[test]
    fn intervals_are_read() {
        assert_eq!(interval("interval 7 days"), Some(WEEK));
        assert_eq!(interval("INTERVAL 1 week"), Some(WEEK));
        assert_eq!(interval("interval 24 hours"), Some(DAY));
        for odd in ["", "interval", "interval 1 month", "7", "interval 1 day 2 hours"] {
            assert_eq!(interval(odd), None, "{odd}");
        }
    }
}
