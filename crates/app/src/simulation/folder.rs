//! Tables in folders of a machine, in place of an object store: what of them the device has.
//!
//! What readers see is in the store's memory, as with objects. Beside it stands what a power cut
//! may undo: names whose folder was not synced since, folders that are not durable in theirs, bytes
//! of files that were not synced. A file of a table is written as the service does it: synced under
//! another name, linked or renamed, its folder synced, any of which may fail or be the last thing
//! that a process does. Another engine syncs nothing.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::TryStreamExt as _;
use futures::executor::block_on;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{Error, ObjectStore as _, ObjectStoreExt as _, PutMode, PutPayload};
use tracelake_lake::{Fill, LakeError, OpenedFile, PutOutcome, TableFiles};
use tracelake_testkit::Random;
use url::Url;

use super::faults::{Fault, FaultCounts};
use super::store::{Request, SimulatedStore, failed};
use crate::broken::{Broken, Step};

/// Folders that the service itself makes above a table, as `TableFiles::create` syncs them.
const FOLDERS_ABOVE: usize = 4;

/// In the place of a moment to die at: the sync of the folder fails.
const NOT_SYNCED: u64 = u64::MAX;

const LOG_FOLDER: &str = "_delta_log";

const CHANGE_FOLDER: &str = "_change_data";

/// What the device does not have yet.
#[derive(Debug)]
pub(super) struct Disk {
    random: Random,
    folders: Vec<Path>,
    /// Changes of entries, the oldest first.
    unsynced: Vec<Change>,
    /// Files with bytes that were not synced.
    volatile: Vec<Path>,
    happened: FaultCounts,
}

/// A change of the entries of a folder.
#[derive(Debug)]
struct Change {
    folder: Path,
    path: Path,
    undo: Undo,
}

/// How a change is taken back.
#[derive(Debug)]
enum Undo {
    Remove,
    PutBack(Bytes),
    RenameTo(Path),
    RemoveFolder,
}

/// The tables' disk of a machine.
#[derive(Debug)]
pub(super) struct Folders {
    memory: Arc<InMemory>,
    /// A folder that is there, durably, with those above it.
    mounted: Path,
    disk: Mutex<Disk>,
}

impl Folders {
    pub(super) fn new(memory: Arc<InMemory>, mounted: Path, seed: u64) -> Self {
        let disk = Disk {
            random: Random::new(seed),
            folders: Vec::new(),
            unsynced: Vec::new(),
            volatile: Vec::new(),
            happened: FaultCounts::default(),
        };
        Self { memory, mounted, disk: Mutex::new(disk) }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What power cuts undid.
    pub(super) fn happened(&self) -> FaultCounts {
        self.disk().happened
    }

    /// The bytes of a file, while there is one.
    fn bytes(&self, path: &Path) -> Option<Bytes> {
        block_on(async { self.memory.get(path).await.ok()?.bytes().await.ok() })
    }

    /// Makes one folder, which is durable once the one above it is synced.
    fn make_folder(&self, folder: &Path) {
        let mut disk = self.disk();
        if !self.mounted.prefix_matches(folder) && !disk.folders.contains(folder) {
            disk.folders.push(folder.clone());
            let change =
                Change { folder: parent(folder), path: folder.clone(), undo: Undo::RemoveFolder };
            disk.unsynced.push(change);
        }
    }

    /// Gives bytes that are synced a name that is free.
    fn link(&self, path: &Path, bytes: Bytes) -> Result<(), Error> {
        let put = self.memory.put_opts(path, PutPayload::from_bytes(bytes), PutMode::Create.into());
        block_on(put)?;
        self.note(path, Undo::Remove);
        Ok(())
    }

    /// Gives bytes that are synced a name in the place of what has it.
    fn replace(&self, path: &Path, bytes: Bytes) -> Result<(), Error> {
        let undo = self.bytes(path).map_or(Undo::Remove, Undo::PutBack);
        block_on(self.memory.put(path, PutPayload::from_bytes(bytes)))?;
        self.note(path, undo);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), Error> {
        block_on(self.memory.rename(from, to))?;
        self.note(to, Undo::RenameTo(from.clone()));
        Ok(())
    }

    fn note(&self, path: &Path, undo: Undo) {
        self.disk().unsynced.push(Change { folder: parent(path), path: path.clone(), undo });
    }

    /// Notes that the bytes of a file are not synced, whatever becomes of its name.
    fn note_volatile(&self, path: &Path) {
        let mut disk = self.disk();
        if !disk.volatile.contains(path) {
            disk.volatile.push(path.clone());
        }
    }

    /// Makes the bytes of a file durable.
    fn sync_file(&self, path: &Path) {
        self.disk().volatile.retain(|file| file != path);
    }

    /// Writes a file as an engine does that syncs nothing; false when the name is taken.
    pub(super) fn put_unsynced(&self, path: &Path, bytes: &str) -> bool {
        let is_written = self.link(path, Bytes::copy_from_slice(bytes.as_bytes())).is_ok();
        if is_written {
            self.note_volatile(path);
        }
        is_written
    }

    /// Whether the device has all names of a folder.
    pub(super) fn is_durable(&self, folder: &Path) -> bool {
        self.disk().unsynced.iter().all(|change| change.folder != *folder)
    }

    /// Names in a folder.
    pub(super) fn names(&self, folder: &Path) -> Vec<String> {
        let listed = block_on(self.memory.list(Some(folder)).try_collect::<Vec<_>>());
        let listed = listed.unwrap_or_default().into_iter().map(|file| file.location);
        let names = listed.filter(|path| parent(path) == *folder);
        names.filter_map(|path| path.filename().map(str::to_owned)).collect()
    }

    /// Notes that the kernel writes a file, or writes it over, without a sync.
    pub(super) fn note_unsynced_put(&self, path: &Path) {
        let undo = self.bytes(path).map_or(Undo::Remove, Undo::PutBack);
        self.note(path, undo);
        self.note_volatile(path);
    }

    /// Makes the entries of a folder durable.
    fn sync_folder(&self, folder: &Path) {
        self.disk().unsynced.retain(|change| change.folder != *folder);
    }

    /// Loses what the device does not have, or some of it. Bytes that were not synced are lost with
    /// their name, or whole with it, or torn where the name was durable before them. Returns which
    /// checkpoints were torn.
    pub(super) fn cut_power(&self) -> Vec<Path> {
        let mut torn_checkpoints = Vec::new();
        let mut guard = self.disk();
        let disk = &mut *guard;
        let changes = std::mem::take(&mut disk.unsynced);
        let unsynced: Vec<Path> = changes.iter().map(|change| change.path.clone()).collect();
        for change in changes.into_iter().rev() {
            if disk.random.chance(50) {
                continue;
            }
            let is_folder = matches!(change.undo, Undo::RemoveFolder);
            if is_folder {
                disk.folders.retain(|folder| !folder.prefix_matches(&change.path));
            }
            let lost = if is_folder { Fault::LostFolder } else { Fault::LostTableName };
            disk.happened.note(lost, 1);
            self.undo(change);
        }
        for path in std::mem::take(&mut disk.volatile) {
            let bytes = self.bytes(&path).filter(|_| !unsynced.contains(&path));
            let Some(bytes) = bytes else { continue };
            let torn = match disk.random.below(4) {
                0 => continue,
                1 => Bytes::new(),
                2 => bytes.slice(..disk.random.below(bytes.len())),
                _ => Bytes::from(vec![0; bytes.len()]),
            };
            block_on(async { self.memory.put(&path, PutPayload::from_bytes(torn)).await.ok() });
            if is_checkpoint(&path) {
                torn_checkpoints.push(path);
            }
        }
        torn_checkpoints
    }

    fn undo(&self, change: Change) {
        let Change { path, undo, .. } = change;
        let memory = &self.memory;
        // What is not there any more need not be taken back.
        match undo {
            Undo::Remove => drop(block_on(memory.delete(&path))),
            Undo::PutBack(bytes) => {
                drop(block_on(memory.put(&path, PutPayload::from_bytes(bytes))));
            }
            Undo::RenameTo(old) => drop(block_on(memory.rename(&path, &old))),
            Undo::RemoveFolder => self.remove_all(&path),
        }
    }

    fn remove_all(&self, folder: &Path) {
        block_on(async {
            let listed: Vec<_> = self.memory.list(Some(folder)).try_collect().await?;
            for file in listed {
                self.memory.delete(&file.location).await?;
            }
            Ok::<_, Error>(())
        })
        .ok();
    }
}

/// The folder that a path is in.
fn parent(path: &Path) -> Path {
    let mut parts: Vec<_> = path.parts().collect();
    parts.pop();
    parts.into_iter().collect()
}

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

fn is_checkpoint(path: &Path) -> bool {
    path.filename().is_some_and(|name| name.contains("checkpoint"))
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
