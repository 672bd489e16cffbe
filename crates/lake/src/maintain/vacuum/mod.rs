//! Vacuum: files that no reader can want any more are deleted.
//!
//! Compaction and amendments leave the files that they replace, for readers of older versions and
//! of the change feed. The horizon lies a retention time ago, by time that two witnesses agree on
//! ([`Clock::proven_unix_nano`]): a clock that is ahead deletes nothing. A file goes when it was last written
//! before the horizon, so that one which a writer is about to commit stays, and when no version
//! that was the newest one at the horizon or after it refers to it, be it as data, as deletion
//! vector or as change data. A version is as old as its log file.
//!
//! Only files of the kinds that writers of Delta tables leave are looked at, in the table's own
//! folder and the folders of change data and log ([`plan`]). Links are not followed. Files are
//! compared by their last name alone: one that is named like a wanted one in another folder stays.
//!
//! Whatever happens in between, each file that is gone by then was of no use.

mod plan;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fs::Metadata;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::UNIX_EPOCH;

use tracelake_model::Clock;
use tracing::info;

pub use plan::VacuumRules;
use plan::{Candidates, RETENTION_PROPERTY, may_go};

use super::compact::{Pace, check_writable};
use crate::error::LakeError;
use crate::layout::{CHANGE_FOLDER, LOG_FOLDER, log_file};
use crate::log::{vector_path, version_lines};
use crate::table::{DeletionVector, Table, TableSnapshot};

/// Most files of one round; what is more goes in the next one.
const MAX_FILES: usize = 200_000;

/// Files and versions between two questions whether to go on.
const STEP: usize = 64;

/// What a round of vacuum did to a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VacuumReport {
    /// Files that were deleted.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// True when it was told to stop before the end.
    pub stopped: bool,
}

/// A file that no reader can want any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpiredFile {
    /// Relative to the table's folder.
    pub path: String,
    /// Size in bytes.
    pub size_bytes: u64,
}

/// Deletes what [`expired`] finds.
///
/// # Errors
/// As [`expired`], and then nothing was deleted, or when what it saw of the log cannot be made durable;
/// [`LakeError::Storage`] when a file cannot be deleted, and then all others were.
pub fn vacuum(
    table: &Table,
    clock: &dyn Clock,
    rules: &VacuumRules,
    pace: Pace<'_>,
) -> Result<VacuumReport, LakeError> {
    let mut report = VacuumReport::default();
    let Some(files) = expired(table, clock, rules, pace)? else {
        report.stopped = true;
        return Ok(report);
    };
    if !files.is_empty() {
        // A version that a power cut takes back must not be why a file goes.
        table.durable_snapshot(None)?;
    }
    let mut failed = None;
    for files in files.chunks(STEP) {
        if pace(0).is_break() {
            report.stopped = true;
            break;
        }
        for file in files {
            match std::fs::remove_file(table.location().folder().join(&file.path)) {
                Ok(()) => {
                    report.files += 1;
                    report.bytes += file.size_bytes;
                }
                // Another one's vacuum had it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => failed = Some(fault(table, "delete", &file.path, error)),
            }
        }
    }
    if 0 < report.files {
        info!(table = table.name(), files = report.files, bytes = report.bytes, "vacuumed");
    }
    failed.map_or(Ok(report), Err)
}

/// The files that [`vacuum`] would delete, in the order of their paths; `None` when told to stop.
///
/// # Errors
/// [`LakeError::Kernel`] or [`LakeError::Storage`] when the log since the horizon cannot be read,
/// [`LakeError::Row`] when it is not understood or the table's property is not,
/// [`LakeError::UnsupportedFeature`] for a table that is not to be written by us.
pub fn expired(
    table: &Table,
    clock: &dyn Clock,
    rules: &VacuumRules,
    pace: Pace<'_>,
) -> Result<Option<Vec<ExpiredFile>>, LakeError> {
    table.location().check()?;
    let known = table.snapshot(None)?;
    check_writable(&known)?;
    let property = known.properties().remove(RETENTION_PROPERTY);
    let Some(retention) = rules.retention(property.as_deref()) else {
        let text = property.unwrap_or_default();
        return Err(unclear(table, format!("{RETENTION_PROPERTY} `{text}` is not understood")));
    };
    let retention = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
    let now = i64::try_from(clock.proven_unix_nano() / 1_000_000).unwrap_or(i64::MAX);
    let horizon = now.saturating_sub(retention);
    // Before the log is read: what a version brings back in between is seen there.
    let mut candidates = old_files(&known, horizon)?;
    if candidates.is_empty() {
        return Ok(Some(Vec::new()));
    }
    let log = LogFiles::of(table, horizon)?;
    let newest = table.snapshot(Some(&known))?;
    let base = log.base(known.version());
    for snapshot in [&newest, &table.snapshot_at(base)?] {
        keep_live(snapshot, &mut candidates)?;
    }
    for version in log.first_young.unwrap_or(base + 1)..=newest.version() {
        if candidates.is_empty() {
            break;
        }
        if version.is_multiple_of(STEP as u64) && pace(0).is_break() {
            return Ok(None);
        }
        keep_named(table, version, base < version, &mut candidates)?;
    }
    Ok(Some(candidates.into_sorted()))
}

fn keep_live(snapshot: &TableSnapshot, candidates: &mut Candidates) -> Result<(), LakeError> {
    for file in snapshot.live_files((None, None))? {
        keep(snapshot.table(), &file.action_path, file.deletion_vector.as_ref(), candidates)?;
    }
    Ok(())
}

fn keep(
    table: &Table,
    action_path: &str,
    vector: Option<&DeletionVector>,
    candidates: &mut Candidates,
) -> Result<(), LakeError> {
    candidates.keep(action_path);
    if let Some(vector) = vector
        && let Some(path) = vector_path(table, vector)?
    {
        candidates.keep(&path);
    }
    Ok(())
}

/// Keeps what the commit of a version adds, removes or has as change data.
fn keep_named(
    table: &Table,
    version: u64,
    must_exist: bool,
    candidates: &mut Candidates,
) -> Result<(), LakeError> {
    let is_there = version_lines(table, version, &mut |line| {
        for named in [line.add, line.remove, line.cdc].into_iter().flatten() {
            keep(table, &named.path, named.deletion_vector.as_ref(), candidates)?;
        }
        Ok(true)
    })?;
    if must_exist && !is_there {
        return Err(fault(table, "open", &log_file(version), io::ErrorKind::NotFound.into()));
    }
    Ok(())
}

/// What the names and times of the log's files say.
#[derive(Debug, Default)]
struct LogFiles {
    /// The first version whose commit is not older than the horizon.
    first_young: Option<u64>,
    /// The first version that can still be read.
    earliest: Option<u64>,
}

impl LogFiles {
    fn of(table: &Table, horizon: i64) -> Result<Self, LakeError> {
        let mut log = Self::default();
        each_file(table, LOG_FOLDER, &mut |name, metadata| {
            let Some((version, rest)) = name.split_once('.') else {
                return ControlFlow::Continue(());
            };
            let Ok(version) = version.parse::<u64>() else { return ControlFlow::Continue(()) };
            let is_commit = rest == "json";
            let is_checkpoint = rest.starts_with("checkpoint.")
                && (rest.ends_with(".parquet") || rest.ends_with(".json"));
            if is_checkpoint || (is_commit && version == 0) {
                log.earliest = Some(log.earliest.map_or(version, |known| known.min(version)));
            }
            if is_commit && modified(metadata).is_none_or(|modified| horizon <= modified) {
                log.first_young = Some(log.first_young.map_or(version, |known| known.min(version)));
            }
            ControlFlow::Continue(())
        })?;
        Ok(log)
    }

    /// The version that was the newest one at the horizon, or the first one after it that can be
    /// read; `newest` when no younger one was there.
    fn base(&self, newest: u64) -> u64 {
        let base = self.first_young.map_or(newest, |first| first.saturating_sub(1));
        base.max(self.earliest.unwrap_or_default())
    }
}

/// Files that were last written before the horizon and are of a kind that vacuum may take. Those
/// that are live in `known` are left out, so that however many they are, others have room.
fn old_files(known: &TableSnapshot, horizon: i64) -> Result<Candidates, LakeError> {
    let files = known.live_files((None, None))?.into_iter();
    let live: HashSet<String> = files.map(|file| file.path).collect();
    let mut found = HashMap::new();
    for folder in ["", CHANGE_FOLDER, LOG_FOLDER] {
        each_file(known.table(), folder, &mut |name, metadata| {
            let is_old = modified(metadata).is_some_and(|time| time < horizon);
            let path = plan::join(folder, name);
            if is_old && may_go(folder, name) && !live.contains(&path) {
                found.insert(path, metadata.len());
            }
            if found.len() < MAX_FILES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
    }
    Ok(Candidates::new(found))
}

/// Visits the files of a folder of the table, but no links and no folders.
fn each_file(
    table: &Table,
    folder: &str,
    visit: &mut dyn FnMut(&str, &Metadata) -> ControlFlow<()>,
) -> Result<(), LakeError> {
    let place = table.location().folder().join(folder);
    if !folder.is_empty() && !is_folder(&place).map_err(|e| fault(table, "look at", folder, e))? {
        return Ok(());
    }
    let listed = |error| fault(table, "list", folder, error);
    for entry in std::fs::read_dir(place).map_err(listed)? {
        let entry = entry.map_err(listed)?;
        // What goes meanwhile is as good as deleted.
        let Ok(metadata) = entry.metadata() else { continue };
        if let (true, Some(name)) = (metadata.is_file(), entry.file_name().to_str())
            && visit(name, &metadata).is_break()
        {
            break;
        }
    }
    Ok(())
}

/// False for a link to a folder too.
fn is_folder(path: &Path) -> io::Result<bool> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        metadata => Ok(metadata?.is_dir()),
    }
}

/// Milliseconds since the Unix epoch.
fn modified(metadata: &Metadata) -> Option<i64> {
    let since = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok()
}

fn fault(table: &Table, action: &'static str, path: &str, source: io::Error) -> LakeError {
    let path = table.location().folder().join(path).display().to_string();
    LakeError::Storage { action, path, source }
}

fn unclear(table: &Table, reason: String) -> LakeError {
    LakeError::Row { path: table.name(), reason }
}
