//! Tables in folders of a machine, in place of an object store, on a disk as [`super::folders`] has it.
//!
//! A file of a table is written as the service does it: synced under another name, linked or renamed,
//! its folder synced, any of which may fail or be the last thing that a process does. Another engine
//! syncs nothing.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use object_store::Error;
use object_store::path::Path;
use tracelake_lake::{Fill, LakeError, OpenedFile, PutOutcome, TableFiles};
use url::Url;

use super::fault_kinds::Fault;
use super::folders::{Folders, is_checkpoint, parent};
use super::store::{Request, SimulatedStore, failed};
use crate::mutations::{Broken, Step};

/// Folders that the service itself makes above a table, as `TableFiles::create` syncs them.
const FOLDERS_ABOVE: usize = 4;

/// In the place of a moment to die at: the sync of the folder fails.
const NOT_SYNCED: u64 = u64::MAX;

const LOG_FOLDER: &str = "_delta_log";

const CHANGE_FOLDER: &str = "_change_data";

/// The files of one table on such a disk, for one process.
#[derive(Debug)]
pub(super) struct FolderFiles {
    store: Arc<SimulatedStore>,
    folders: Arc<Folders>,
    root: Path,
    broken: Broken,
    /// Folders of the table that this process knows as durable in it.
    known: Mutex<BTreeSet<Path>>,
}

impl FolderFiles {
    pub(super) fn new(
        store: Arc<SimulatedStore>,
        folders: Arc<Folders>,
        url: &Url,
        broken: Broken,
    ) -> Self {
        let root = Path::from_url_path(url.path()).unwrap_or_default();
        Self { store, folders, root, broken, known: Mutex::default() }
    }

    fn path(&self, path: &str) -> Path {
        path.split('/').fold(self.root.clone(), |folder, part| folder.join(part))
    }

    /// Makes the folder of a file, once durable in the table's.
    fn prepare_folder(&self, folder: &Path) -> Result<(), Error> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if *folder != self.root && !known().contains(folder) {
            self.folders.make_folder(folder);
            self.sync_folder(&self.root)?;
            known().insert(folder.clone());
        }
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> Result<(), Error> {
        if !self.broken.leaves_out(Step::TableSync) {
            self.store.befall(Request::FolderSync)?;
            self.folders.sync_folder(folder);
        }
        Ok(())
    }

    fn put(
        &self,
        path: &Path,
        name: impl FnOnce() -> Result<(), Error>,
    ) -> Result<PutOutcome, Error> {
        // When it dies, and whether with the power.
        let death = match self.store.befall(Request::put(path))? {
            Some((Fault::KillAtPut, choice)) => Some((choice % 3, choice / 3)),
            Some((Fault::KillAtVersion, choice)) => Some((1, choice)),
            Some((Fault::VersionSyncError, _)) => Some((NOT_SYNCED, 0)),
            _ => None,
        };
        let die_at = |moment: u64| match death {
            Some((at, choice)) if at == moment => Err(self.store.die(choice)),
            _ => Ok(()),
        };
        let folder = parent(path);
        self.prepare_folder(&folder)?;
        die_at(0)?;
        match name() {
            Err(Error::AlreadyExists { .. }) => return Ok(PutOutcome::Exists),
            named => named?,
        }
        if is_checkpoint(path) && self.broken.leaves_out(Step::CheckpointSync) {
            self.folders.note_volatile(path);
        }
        die_at(1)?;
        if death.is_some_and(|(at, _)| at == NOT_SYNCED) {
            return Err(failed("input/output error"));
        }
        self.sync_folder(&folder)?;
        die_at(2)?;
        Ok(PutOutcome::Written)
    }
}

impl FolderFiles {
    /// Whether this build believes what the newest version no longer has, without a sync.
    fn believes_absence(&self) -> bool {
        self.broken.leaves_out(Step::AbsenceSync) && self.ends_with_deletion()
    }

    /// Whether the newest version only took rows away.
    fn ends_with_deletion(&self) -> bool {
        let log = self.path(LOG_FOLDER);
        let versions = self.folders.names(&log).into_iter().filter(|name| is_version(name));
        let newest = versions.max().and_then(|name| self.folders.bytes(&log.clone().join(name)));
        newest.is_some_and(|bytes| {
            String::from_utf8_lossy(&bytes).contains(r#""operation":"DELETE""#)
        })
    }
}

fn is_version(name: &str) -> bool {
    name.len() == 25 && name.ends_with(".json")
}

fn fault(action: &'static str, path: &Path, source: impl Into<io::Error>) -> LakeError {
    LakeError::Storage { action, path: path.to_string(), source: source.into() }
}

fn filled(path: &Path, fill: &mut Fill<'_>) -> Result<Bytes, LakeError> {
    let mut bytes = Vec::new();
    fill(&mut bytes).map_err(|source| fault("write", path, source))?;
    Ok(bytes.into())
}

impl TableFiles for FolderFiles {
    fn create(&self) -> Result<(), LakeError> {
        let log = self.path(LOG_FOLDER);
        let parts: Vec<_> = log.parts().collect();
        for depth in 1..=parts.len() {
            self.folders.make_folder(&parts.iter().take(depth).cloned().collect());
        }
        self.sync_folders()
    }

    fn put_if_absent(&self, path: &str, bytes: &[u8]) -> Result<PutOutcome, LakeError> {
        let path = self.path(path);
        let put = self.put(&path, || self.folders.link(&path, Bytes::copy_from_slice(bytes)));
        put.map_err(|source| fault("write", &path, source))
    }

    fn put_stream(&self, path: &str, fill: &mut Fill<'_>) -> Result<PutOutcome, LakeError> {
        self.put_if_absent(path, &filled(&self.path(path), fill)?)
    }

    fn replace(&self, path: &str, fill: &mut Fill<'_>) -> Result<(), LakeError> {
        let path = self.path(path);
        let bytes = filled(&path, fill)?;
        let put = self.put(&path, || self.folders.replace(&path, bytes));
        put.map(|_| ()).map_err(|source| fault("write", &path, source))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), LakeError> {
        let (from, to) = (self.path(from), self.path(to));
        let renamed = self.folders.rename(&from, &to).and_then(|()| self.sync_folder(&parent(&to)));
        renamed.map_err(|source| fault("rename", &from, source))
    }

    fn shows_only_durable(&self) -> bool {
        false
    }

    fn sync_log(&self) -> Result<(), LakeError> {
        if self.believes_absence() {
            return Ok(());
        }
        let log = self.path(LOG_FOLDER);
        self.sync_folder(&log).map_err(|source| fault("sync", &log, source))
    }

    fn sync_folders(&self) -> Result<(), LakeError> {
        let depth = self.root.parts().count();
        let above = (depth.saturating_sub(FOLDERS_ABOVE)..=depth)
            .map(|depth| self.root.parts().take(depth).collect::<Path>());
        for folder in above.chain([LOG_FOLDER, CHANGE_FOLDER].map(|name| self.path(name))) {
            self.sync_folder(&folder).map_err(|source| fault("sync", &folder, source))?;
        }
        Ok(())
    }

    fn sync_files(&self, paths: &[String]) -> Result<(), LakeError> {
        let mut folders = BTreeSet::new();
        for path in paths.iter().map(|path| self.path(path)) {
            self.folders.sync_file(&path);
            folders.insert(parent(&path));
        }
        for folder in folders {
            self.sync_folder(&folder).map_err(|source| fault("sync", &folder, source))?;
        }
        Ok(())
    }

    fn list_log(&self, visit: &mut dyn FnMut(&str)) -> Result<(), LakeError> {
        let log = self.path(LOG_FOLDER);
        let listed = self.store.befall(Request::List);
        listed.map_err(|source| fault("list", &log, source))?;
        self.folders.names(&log).iter().for_each(|name| visit(name));
        Ok(())
    }

    fn open(&self, path: &str) -> Result<OpenedFile, LakeError> {
        let path = self.path(path);
        let read = self.store.befall(Request::Get).map(|_| self.folders.bytes(&path));
        let bytes = read.map_err(|source| fault("open", &path, source))?;
        let missing = || fault("open", &path, io::ErrorKind::NotFound);
        bytes.map(OpenedFile::Fetched).ok_or_else(missing)
    }

    fn has_log(&self) -> Result<bool, LakeError> {
        let mut found = false;
        self.list_log(&mut |name| found |= is_version(name))?;
        Ok(found)
    }
}
