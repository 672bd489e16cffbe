//! Compaction: many small data files become few, which compress far better.
//!
//! An agent's calls repeat the whole conversation, so pages large enough to hold several of them
//! shrink to a fraction (`docs/compression.md`). Intake has neither the rows nor the time for that.
//!
//! A group of files is read in bounded memory and written as one file; then one commit removes the
//! files and adds the other, with `dataChange` false: no reader of the change feed sees it. Rows
//! that deletion vectors hide are left out, so the vectors go.
//!
//! Beside writers: the commit is put-if-absent. After losing, and before the first try as well,
//! the files are looked at again. Rows that others deleted or replaced meanwhile get a deletion
//! vector on the compacted file in the same commit. When one of the files is gone, or had rows
//! restored, the group is given up: the next round plans anew. An amendment that loses to a
//! compaction finds its rows through the index of traces, as after any other commit.

mod commit;
mod format;
mod plan;
mod rewrite;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;

use tracelake_model::Clock;
use tracing::{debug, info};

pub use plan::{CompactionGroup, CompactionRules, plan_compaction};

use crate::error::LakeError;
use crate::table::{Table, TableSnapshot};

/// Told how many bytes of input files were worked off since the last call; says whether to go on.
/// It may take its time: nothing is locked meanwhile.
pub type Pace<'a> = &'a mut dyn FnMut(u64) -> ControlFlow<()>;

/// What a round of compaction did to a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactionReport {
    /// Data files that were replaced.
    pub files_before: u64,
    /// Data files that took their place.
    pub files_after: u64,
    /// Their bytes.
    pub bytes_before: u64,
    /// Their bytes.
    pub bytes_after: u64,
    /// Rows that were written.
    pub rows: u64,
    /// Deleted rows that were left out.
    pub purged_rows: u64,
    /// Groups that others changed too much meanwhile; the next round plans them anew.
    pub given_up: u64,
    /// True when it was told to stop before the end.
    pub stopped: bool,
    /// Version of the table afterwards.
    pub version: u64,
}

/// What [`compact`] would do at this version.
///
/// # Errors
/// [`LakeError::Kernel`] when the log cannot be read, [`LakeError::UnsupportedFeature`] for a table
/// that is not to be written by us.
pub fn planned(table: &Table, rules: &CompactionRules) -> Result<Vec<CompactionGroup>, LakeError> {
    let snapshot = table.snapshot(None)?;
    check_writable(&snapshot)?;
    Ok(plan_compaction(snapshot.live_files((None, None))?, rules))
}

/// Refuses a table that asks of its writers what our commits would not honour.
pub(super) fn check_writable(snapshot: &TableSnapshot) -> Result<(), LakeError> {
    let partitions = snapshot.snapshot.table_configuration().logical_partition_columns();
    let feature = match snapshot.features()?.unsupported {
        None if partitions.is_empty() => return Ok(()),
        None => "partition columns".to_owned(),
        Some(feature) => feature,
    };
    Err(LakeError::UnsupportedFeature { table: snapshot.table().name(), feature })
}

/// One round of compaction; groups that are done stay done whatever happens to later ones.
///
/// # Errors
/// As [`planned`], or [`LakeError`] when a file cannot be read or written.
pub fn compact(
    table: &Table,
    clock: &dyn Clock,
    rules: &CompactionRules,
    pace: Pace<'_>,
) -> Result<CompactionReport, LakeError> {
    let mut snapshot = table.durable_snapshot(None)?;
    check_writable(&snapshot)?;
    let groups = plan_compaction(snapshot.live_files((None, None))?, rules);
    let mut report = CompactionReport::default();
    for group in &groups {
        let Some(rewritten) = rewrite::rewrite(&snapshot, group, pace)? else {
            report.stopped = true;
            break;
        };
        match commit::replace(table, clock, &snapshot, group, &rewritten)? {
            None => {
                debug!(table = table.name(), files = group.files.len(), "compaction given up");
                report.given_up += 1;
            }
            Some(newer) => {
                snapshot = newer;
                report.files_before += group.files.len() as u64;
                report.bytes_before += group.input_bytes;
                report.files_after += u64::from(0 < rewritten.rows);
                report.bytes_after += rewritten.size_bytes;
                report.rows += rewritten.rows;
                report.purged_rows += rewritten.purged_rows;
            }
        }
    }
    report.version = snapshot.version();
    if 0 < report.files_before {
        info!(
            table = table.name(),
            version = report.version,
            files_before = report.files_before,
            files_after = report.files_after,
            bytes_before = report.bytes_before,
            bytes_after = report.bytes_after,
            "compacted"
        );
    }
    Ok(report)
}
