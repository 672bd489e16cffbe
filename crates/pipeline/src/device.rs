//! The file systems of journal and tables, as this process sees them: in builds with debug assertions
//! with what the environment asks for, failpoints and steps that are left out.

use std::sync::Arc;

use tracelake_journal::{JournalFs, JournalOptions, RealFs};
use tracelake_lake::Lake;

use crate::mutations::Broken;

/// The file system of the journal, and what the test build leaves out.
///
/// # Errors
/// When the environment asks for what there is not.
#[cfg(debug_assertions)]
pub fn journal_device(
    options: &mut JournalOptions,
) -> anyhow::Result<(Arc<dyn JournalFs>, Broken)> {
    use crate::failpoints::{broken_fs, journal_fs};

    let broken = Broken::from_environment()?;
    options.leave_out_sync = broken.leaves_out(crate::mutations::Step::Sync);
    Ok((broken_fs(journal_fs(Arc::new(RealFs))?, broken), broken))
}

/// The file system of the journal.
///
/// # Errors
/// Never: in other builds it may.
#[cfg(not(debug_assertions))]
pub fn journal_device(_: &mut JournalOptions) -> anyhow::Result<(Arc<dyn JournalFs>, Broken)> {
    Ok((Arc::new(RealFs), Broken::default()))
}

/// The tables, with failpoints around their files.
#[cfg(debug_assertions)]
#[must_use]
pub fn table_device(lake: Lake) -> Lake {
    lake.with_files(Arc::new(crate::failpoints::table_files))
}

/// The tables as they are.
#[cfg(not(debug_assertions))]
#[must_use]
pub const fn table_device(lake: Lake) -> Lake {
    lake
}
