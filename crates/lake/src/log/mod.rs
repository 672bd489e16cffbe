//! The table's log: the one place that writes it, and that says what of it may be relied on.
//!
//! What a process sees in a log need not be durable. A version is linked before its folder is synced,
//! and whoever made it may have died in between; others do not sync at all. A power cut then takes the
//! version back, together with all that was concluded from it. So writers get their snapshots by
//! [`Table::durable_snapshot`](crate::Table::durable_snapshot), which syncs what it shows, once for each version (`durable`); that
//! something is not there is concluded from such snapshots too. Questions that change nothing take
//! [`Table::snapshot`](crate::Table::snapshot).
//!
//! | written by | durable when |
//! |---|---|
//! | [`put_version`]: commits, compaction, creation | it returns [`PutOutcome::Written`](crate::PutOutcome::Written) |
//! | [`checkpoint_if_due`] | before `_last_checkpoint` names it |
//! | another process of ours | its content is; its name once the log was synced |
//! | other engines | each file that the version names, and then the log, was synced |

pub(crate) mod actions;
mod checkpoint;
mod damage;
mod durable;
mod pass_over;
mod read;

pub use damage::DamagedCheckpoint;

pub(crate) use checkpoint::{CHECKPOINT_INTERVAL, checkpoint_if_due};
pub(crate) use durable::DurableLogs;
pub(crate) use pass_over::PassOver;
pub(crate) use read::{LoggedTxn, epoch_in_commits, vector_file, vector_path, version_lines};

use actions::{Action, to_lines};

use crate::error::LakeError;
use crate::layout::log_file;
use crate::storage::PutOutcome;
use crate::table::Table;

/// Writes a version; durable when this returns [`PutOutcome::Written`]. All versions before it must be:
/// it was decided on a durable snapshot of the one before it.
///
/// # Errors
/// [`LakeError`]: the version is in doubt then. It may be there, be it durable or not, or come later;
/// [`Table::durable_snapshot`] tells.
pub(crate) fn put_version(
    table: &Table,
    version: u64,
    actions: &[Action],
) -> Result<PutOutcome, LakeError> {
    let lines = to_lines(actions)
        .map_err(|error| LakeError::Row { path: table.name(), reason: error.to_string() })?;
    let outcome = table.files.put_if_absent(&log_file(version), &lines)?;
    if outcome == PutOutcome::Written {
        table.durable_logs().note_written(table.url(), version);
    }
    Ok(outcome)
}

#[cfg(test)]
pub(crate) mod tests;
