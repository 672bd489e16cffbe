//! An amendment that came second: the same plan on the version of whoever came first.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use tracelake_model::TraceId;

use super::amendment::Plan;
use super::old_rows::Deletions;
use super::{Found, TableWriter};
use crate::error::LakeError;
use crate::rows::TraceDraft;
use crate::table::{LiveFile, RowAddress};

/// A plan's rows to delete, and where its traces are, both by the live files of a newer version.
pub(super) struct Rebased {
    pub(super) files: Arc<Vec<LiveFile>>,
    pub(super) deletions: Deletions,
    pub(super) found: Found,
}

impl TableWriter {
    /// The plan's rows to delete in the newest version, which another writer made; `None` when
    /// that one changed one of the late traces, or has one of the fresh ones, so that they must be
    /// merged anew.
    ///
    /// Most versions of others have other traces. Then what was merged and written stands, so that
    /// a large round is not begun again each time that it comes second.
    pub(super) fn rebase(
        &mut self,
        late: &[&TraceDraft],
        fresh: &[&TraceDraft],
        found: &Found,
        plan: &Plan,
    ) -> Result<Option<Rebased>, LakeError> {
        let checked = self.checked.clone();
        self.refresh()?;
        if checked != self.checked {
            return Ok(None);
        }
        let wanted: HashSet<TraceId> =
            late.iter().chain(fresh).map(|piece| piece.trace_id).collect();
        let found_anew = self.find(&wanted)?;
        let files_anew = self.live_files()?;
        let same = wanted.iter().all(|trace| {
            places(found.get(trace), &plan.files) == places(found_anew.get(trace), &files_anew)
        });
        if !same {
            return Ok(None);
        }
        let mut moved = Deletions::new();
        for (index, rows) in &plan.deletions {
            let path = plan.files.get(*index).map(|file| &file.path);
            match files_anew.iter().position(|file| Some(&file.path) == path) {
                Some(index) => moved.insert(index, rows.clone()),
                None => return Ok(None),
            };
        }
        Ok(Some(Rebased { files: files_anew, deletions: moved, found: found_anew }))
    }
}

/// Where rows are, by the path of their file.
fn places<'a>(rows: Option<&Vec<RowAddress>>, files: &'a [LiveFile]) -> BTreeSet<(&'a str, u64)> {
    let place = |row: &RowAddress| Some((files.get(row.file)?.path.as_str(), row.row));
    rows.into_iter().flatten().filter_map(place).collect()
}
