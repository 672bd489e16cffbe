//! Durable before believed: what writers see of a log is synced before they conclude anything.
//!
//! A version of a tracelake has its content, and all that it names, synced before it has its name; so
//! syncing the log's folder after it was listed makes it durable. Other engines need not sync anything:
//! the files that their versions name are synced first, then the versions, then the folder.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use url::Url;

use super::checkpoint::is_ours;
use super::read::{NamedFile, inside_table, vector_file, version_lines};
use super::{checkpoint, damage};
use crate::error::LakeError;
use crate::layout::{LAST_CHECKPOINT, decode_action_path, in_log, log_file};
use crate::table::{Table, TableSnapshot};

/// What of the logs of a process's tables is known to be durable.
#[derive(Debug, Default)]
pub(crate) struct DurableLogs {
    known: Mutex<HashMap<Url, Durable>>,
    /// Held while a table is seen for the first time: one thread at a time mends.
    first_sight: Mutex<()>,
}

/// What of a log is known to be durable.
#[derive(Clone, Debug)]
struct Durable {
    /// Of the table: one that was made anew in its place has a log of its own.
    table_id: String,
    /// Every version up to this one.
    version: u64,
    /// This checkpoint, and those before it.
    checkpoint: Option<u64>,
}

impl DurableLogs {
    fn all(&self) -> MutexGuard<'_, HashMap<Url, Durable>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn first_sight(&self) -> MutexGuard<'_, ()> {
        self.first_sight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, url: &Url, table_id: &str) -> Option<Durable> {
        self.all().get(url).filter(|known| known.table_id == table_id).cloned()
    }

    /// Notes that a version was written durably; it says so only of those up to it that are known.
    pub(super) fn note_written(&self, url: &Url, version: u64) {
        if let Some(known) = self.all().get_mut(url)
            && known.version.checked_add(1) == Some(version)
        {
            known.version = version;
        }
    }

    /// Notes that a checkpoint was written durably.
    pub(super) fn note_checkpoint(&self, url: &Url, version: u64) {
        if let Some(known) = self.all().get_mut(url) {
            known.checkpoint = known.checkpoint.max(Some(version));
        }
    }
}

impl Table {
    /// The newest version, as [`Self::snapshot`], durable when this returns: what it shows, and what
    /// it no longer shows, stays so after a power cut. At the first sight of a table in this process
    /// its folders and its checkpoint are made durable too, and damaged checkpoints are replaced.
    ///
    /// # Errors
    /// As [`Self::snapshot`]; [`LakeError::Storage`] when the log cannot be synced, and then nothing is
    /// to be concluded from what is seen.
    pub fn durable_snapshot(
        &self,
        known: Option<&TableSnapshot>,
    ) -> Result<TableSnapshot, LakeError> {
        let _alone = known.is_none().then(|| self.durable_logs().first_sight());
        let snapshot = self.snapshot(known)?;
        let durable = self.durable_logs().get(self.url(), snapshot.table_id());
        let is_first = durable.is_none();
        self.make_durable(&snapshot, durable)?;
        if is_first { damage::mend(snapshot) } else { Ok(snapshot) }
    }

    /// Whether there is a version. That there is none stays so after a power cut.
    ///
    /// # Errors
    /// As [`Self::exists`]; [`LakeError::Storage`] when the folders cannot be synced.
    pub fn durable_exists(&self) -> Result<bool, LakeError> {
        if self.exists()? {
            return Ok(true);
        }
        self.files.sync_folders()?;
        Ok(false)
    }

    /// Looks through the versions that `snapshot` was read from behind its checkpoint.
    ///
    /// # Errors
    /// [`LakeError::DamagedVersion`] for one that has lost its content.
    pub fn check_versions(&self, snapshot: &TableSnapshot) -> Result<(), LakeError> {
        let first = snapshot.checkpoint_version().map_or(0, |based_on| based_on + 1);
        (first..=snapshot.version())
            .try_for_each(|version| self.unsynced_by(version, &mut Vec::new()))
    }

    fn make_durable(
        &self,
        snapshot: &TableSnapshot,
        durable: Option<Durable>,
    ) -> Result<(), LakeError> {
        let version = snapshot.version();
        let based_on = snapshot.checkpoint_version();
        let is_known = |known: &Durable| version <= known.version && based_on <= known.checkpoint;
        if self.files.shows_only_durable() || durable.as_ref().is_some_and(is_known) {
            return Ok(());
        }
        let mut files = Vec::new();
        let from = match &durable {
            Some(known) => known.version + 1,
            None => based_on.map_or(0, |based_on| based_on + 1),
        };
        for version in from..=version {
            self.unsynced_by(version, &mut files)?;
        }
        if durable.as_ref().is_none_or(|known| known.checkpoint < based_on) {
            files.extend(snapshot.checkpoint_files());
        }
        if durable.is_none() {
            files.push(in_log(LAST_CHECKPOINT));
            self.files.sync_folders()?;
        }
        self.files.sync_files(&files)?;
        self.files.sync_log()?;
        let checkpoint = durable.and_then(|known| known.checkpoint).max(based_on);
        let table_id = snapshot.table_id().to_owned();
        let mut all = self.durable_logs().all();
        let newer = all.get(self.url()).is_some_and(|known| {
            known.table_id == table_id && version <= known.version && checkpoint <= known.checkpoint
        });
        if !newer {
            all.insert(self.url().clone(), Durable { table_id, version, checkpoint });
        }
        Ok(())
    }

    /// Adds what a version names, and its own file last, unless a tracelake wrote it. One without any
    /// content is no version to build on, though readers pass over it.
    fn unsynced_by(&self, version: u64, files: &mut Vec<String>) -> Result<(), LakeError> {
        let before = files.len();
        let mut ours = false;
        let mut is_empty = true;
        let mut vectors = Vec::new();
        let is_there = version_lines(self, version, &mut |line| {
            is_empty = false;
            let engine = line.commit_info.and_then(|info| info.engine_info);
            ours |= engine.is_some_and(|engine| is_ours(&engine));
            for NamedFile { path, deletion_vector } in line.add.into_iter().chain(line.cdc) {
                files.extend(inside_table(&decode_action_path(&path)));
                vectors.extend(deletion_vector);
            }
            Ok(!ours)
        })?;
        if is_there && is_empty {
            return Err(LakeError::DamagedVersion { table: self.name(), version });
        }
        if ours || !is_there {
            files.truncate(before);
            return Ok(());
        }
        for vector in vectors {
            files.extend(vector_file(self, &vector)?);
        }
        files.push(log_file(version));
        Ok(())
    }
}

impl TableSnapshot {
    /// The id that a table has from its creation on.
    fn table_id(&self) -> &str {
        self.snapshot.table_configuration().metadata().id()
    }

    /// The version of the checkpoint that this was read from.
    pub(super) fn checkpoint_version(&self) -> Option<u64> {
        self.snapshot.log_segment().checkpoint_version
    }

    /// The files of that checkpoint, relative to the table's folder.
    pub(super) fn checkpoint_files(&self) -> impl Iterator<Item = String> {
        let parts = &self.snapshot.log_segment().listed.checkpoint_parts;
        parts.iter().map(|part| in_log(&part.filename))
    }

    /// Writes a checkpoint of this version, so that readers need not replay the log before it.
    ///
    /// # Errors
    /// [`LakeError`] when it cannot be written; the table is as good as before.
    pub fn checkpoint(&self) -> Result<(), LakeError> {
        checkpoint::checkpoint(self)
    }
}
