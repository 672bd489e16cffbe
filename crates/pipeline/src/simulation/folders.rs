//! The disk of a machine with tables in folders: what of them the device has.
//!
//! What readers see is in the store's memory, as with objects. Beside it stands what a power cut
//! may undo: names whose folder was not synced since, folders that are not durable in theirs, bytes
//! of files that were not synced.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::TryStreamExt as _;
use futures::executor::block_on;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{Error, ObjectStore as _, ObjectStoreExt as _, PutMode, PutPayload};
use tracelake_testkit::Random;

use super::fault_kinds::{Fault, FaultCounts};

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
    pub(super) fn bytes(&self, path: &Path) -> Option<Bytes> {
        block_on(async { self.memory.get(path).await.ok()?.bytes().await.ok() })
    }

    /// Makes one folder, which is durable once the one above it is synced.
    pub(super) fn make_folder(&self, folder: &Path) {
        let mut disk = self.disk();
        if !self.mounted.prefix_matches(folder) && !disk.folders.contains(folder) {
            disk.folders.push(folder.clone());
            let change =
                Change { folder: parent(folder), path: folder.clone(), undo: Undo::RemoveFolder };
            disk.unsynced.push(change);
        }
    }

    /// Gives bytes that are synced a name that is free.
    pub(super) fn link(&self, path: &Path, bytes: Bytes) -> Result<(), Error> {
        let put = self.memory.put_opts(path, PutPayload::from_bytes(bytes), PutMode::Create.into());
        block_on(put)?;
        self.note(path, Undo::Remove);
        Ok(())
    }

    /// Gives bytes that are synced a name in the place of what has it.
    pub(super) fn replace(&self, path: &Path, bytes: Bytes) -> Result<(), Error> {
        let undo = self.bytes(path).map_or(Undo::Remove, Undo::PutBack);
        block_on(self.memory.put(path, PutPayload::from_bytes(bytes)))?;
        self.note(path, undo);
        Ok(())
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> Result<(), Error> {
        block_on(self.memory.rename(from, to))?;
        self.note(to, Undo::RenameTo(from.clone()));
        Ok(())
    }

    fn note(&self, path: &Path, undo: Undo) {
        self.disk().unsynced.push(Change { folder: parent(path), path: path.clone(), undo });
    }

    /// Notes that the bytes of a file are not synced, whatever becomes of its name.
    pub(super) fn note_volatile(&self, path: &Path) {
        let mut disk = self.disk();
        if !disk.volatile.contains(path) {
            disk.volatile.push(path.clone());
        }
    }

    /// Makes the bytes of a file durable.
    pub(super) fn sync_file(&self, path: &Path) {
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
    pub(super) fn sync_folder(&self, folder: &Path) {
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
pub(super) fn parent(path: &Path) -> Path {
    let mut parts: Vec<_> = path.parts().collect();
    parts.pop();
    parts.into_iter().collect()
}

pub(super) fn is_checkpoint(path: &Path) -> bool {
    path.filename().is_some_and(|name| name.contains("checkpoint"))
}
