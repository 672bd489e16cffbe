//! A file system in memory that crashes, tears, forgets and fails on demand.
//!
//! It promises no more than [`JournalFs`] does. At a crash each unsynced byte may be kept, lost,
//! zeroed or replaced, and each unsynced name may be kept or lost, a folder with all that is in it.
//! A name is durable once its own folder was synced, and with it the names of all folders above.
//! After a failed sync the unsynced bytes are lost, while later syncs of the file succeed, as Linux
//! does it. A process that dies while the power stays on loses nothing, and makes nothing durable.
//! One seed gives one history, as long as its users are deterministic.

use std::ffi::OsString;
use std::io::{self, Cursor, IoSlice};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::fs::{JournalFile, JournalFs, JournalRead, ListedFile, LockOutcome};
use crate::simulated_disk::{Accidents, End, Fate, FileState, State, crashed, io_error};

/// A simulated file system. Clones are the same one.
#[derive(Clone, Debug)]
pub struct SimulatedFs {
    state: Arc<Mutex<State>>,
}

impl SimulatedFs {
    /// An empty file system whose accidents follow from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: Arc::new(Mutex::new(State::new(seed))) }
    }

    /// Takes `folder`, and those above it, for ones that are there, durably.
    pub fn mount(&self, folder: &Path) {
        self.state().mount(folder);
    }

    /// Cuts the power at the operation after `operations` more.
    pub fn crash_after(&self, operations: u64) {
        self.end_after(operations, End::Power);
    }

    /// Cuts the power now, also of a machine whose process is dead already.
    pub fn crash(&self) {
        self.state().ended = Some(End::Power);
    }

    /// Ends the process at the operation after `operations` more; the power stays on.
    pub fn end_process_after(&self, operations: u64) {
        self.end_after(operations, End::Process);
    }

    /// Ends the process now; the power stays on.
    pub fn end_process(&self) {
        self.state().ended.get_or_insert(End::Process);
    }

    fn end_after(&self, operations: u64, end: End) {
        let mut state = self.state();
        state.end_at = Some((state.operations.saturating_add(operations), end));
    }

    /// What befell it so far.
    #[must_use]
    pub fn accidents(&self) -> Accidents {
        self.state().accidents
    }

    /// Operations so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Limits all files together to `bytes`; `None` is no limit.
    pub fn set_room(&self, bytes: Option<usize>) {
        self.state().room_bytes = bytes;
    }

    /// Bytes of all files.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.state().used_bytes()
    }

    /// Lets the next `count` syncs of files fail with EIO.
    pub fn fail_syncs(&self, count: u32) {
        self.state().failing_syncs = count;
    }

    /// Lets the next `count` creations of files fail with EIO.
    pub fn fail_creates(&self, count: u32) {
        self.state().failing_creates = count;
    }

    /// Lets the next `count` syncs of folders fail with EIO.
    pub fn fail_folder_syncs(&self, count: u32) {
        self.state().failing_folder_syncs = count;
    }

    /// Whether the process is dead.
    #[must_use]
    pub fn is_crashed(&self) -> bool {
        self.state().ended.is_some()
    }

    /// Whether the power is off.
    #[must_use]
    pub fn is_powerless(&self) -> bool {
        self.state().ended == Some(End::Power)
    }

    /// Starts the process again: after its end alone, or after a crash or instead of one. Every
    /// handle is dead.
    pub fn restart(&self) {
        self.state().restart();
    }

    /// What a reader sees of a file.
    #[must_use]
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        let file = *state.names.get(path)?;
        state.files.get(file).map(|file| file.cached.clone())
    }

    /// The names of the files of a folder, as a reader sees them.
    #[must_use]
    pub fn names(&self, folder: &Path) -> Vec<String> {
        let state = self.state();
        let files = state.names.keys().filter(|path| path.parent() == Some(folder));
        files.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect()
    }

    /// Replaces a file, durably: damage by hand.
    pub fn set_contents(&self, path: &Path, bytes: &[u8]) {
        let mut state = self.state();
        let file = match state.names.get(path) {
            Some(file) => *file,
            None => state.add_file(path),
        };
        state.sync_names();
        if let Some(file) = state.files.get_mut(file) {
            *file = FileState::durable(bytes.to_vec());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file of a [`SimulatedFs`] open for writing.
#[derive(Debug)]
struct SimulatedFile {
    fs: SimulatedFs,
    file: usize,
    boot: u64,
    /// Where the next write goes.
    position: usize,
}

impl SimulatedFile {
    /// Runs `change` on the file unless the process ends first.
    fn change<R>(&self, change: impl FnOnce(&mut State, usize) -> io::Result<R>) -> io::Result<R> {
        let mut state = self.fs.state();
        if state.boot != self.boot {
            return Err(crashed());
        }
        let fate = state.step()?;
        if fate == Fate::End {
            return Err(crashed());
        }
        let result = change(&mut state, self.file)?;
        if fate == Fate::Done { Ok(result) } else { Err(crashed()) }
    }
}

impl JournalFile for SimulatedFile {
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let position = self.position;
        let taken = self.change(|state, file| {
            let mut bytes: Vec<u8> =
                slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            // What is written over has its room.
            let ahead =
                state.files.get(file).map_or(0, |f| f.cached.len().saturating_sub(position));
            let room = state.room_bytes.map_or(usize::MAX, |room| {
                room.saturating_sub(state.used_bytes()).saturating_add(ahead)
            });
            if room == 0 && !bytes.is_empty() {
                state.accidents.refused_writes += 1;
                return Err(io::ErrorKind::StorageFull.into());
            }
            let short = state.below(4) == 0;
            let taken = if short { 1 + state.below(bytes.len()) } else { bytes.len() };
            bytes.truncate(taken.min(room));
            if let Some(file) = state.files.get_mut(file) {
                file.write(position, &bytes);
            }
            Ok(bytes.len())
        })?;
        self.position += taken;
        Ok(taken)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.change(|state, file| {
            let fails = 0 < state.failing_syncs;
            state.failing_syncs = state.failing_syncs.saturating_sub(1);
            let Some(file) = state.files.get_mut(file) else { return Err(crashed()) };
            let unsynced = file.unsynced.take();
            if fails {
                state.accidents.failed_syncs += 1;
                file.lost.extend(unsynced);
                return Err(io_error());
            }
            file.durable = file.cached.clone();
            for range in &file.lost {
                let end = range.end.min(file.durable.len());
                file.durable.get_mut(range.start.min(end)..end).unwrap_or_default().fill(0);
            }
            Ok(())
        })
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.change(|state, file| {
            let Some(file) = state.files.get_mut(file) else { return Err(crashed()) };
            file.truncate(usize::try_from(len).unwrap_or(usize::MAX));
            Ok(())
        })?;
        self.position = usize::try_from(len).unwrap_or(usize::MAX);
        Ok(())
    }
}

impl SimulatedFs {
    /// Runs `change` unless the process ends first.
    fn change<R>(&self, change: impl FnOnce(&mut State) -> io::Result<R>) -> io::Result<R> {
        let mut state = self.state();
        let fate = state.step()?;
        if fate == Fate::End {
            return Err(crashed());
        }
        let result = change(&mut state)?;
        // What is dropped may be a lock, which takes the state to give itself free.
        drop(state);
        if fate == Fate::Done { Ok(result) } else { Err(crashed()) }
    }
}

impl JournalFs for SimulatedFs {
    fn create_dir(&self, dir: &Path) -> io::Result<bool> {
        self.change(|state| state.add_folder(dir))
    }

    fn lock(&self, _path: &Path) -> io::Result<LockOutcome> {
        self.change(|state| {
            if state.locked {
                return Ok(LockOutcome::InUse { pid: None });
            }
            state.locked = true;
            let guard = SimulatedLock { fs: self.clone(), boot: state.boot };
            Ok(LockOutcome::Held(Box::new(guard)))
        })
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn JournalFile>> {
        self.change(|state| {
            if 0 < state.failing_creates {
                state.failing_creates -= 1;
                state.accidents.failed_creates += 1;
                return Err(io_error());
            }
            if state.names.contains_key(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let file = state.add_file(path);
            let file = SimulatedFile { fs: self.clone(), file, boot: state.boot, position: 0 };
            Ok(Box::new(file) as Box<dyn JournalFile>)
        })
    }

    fn reuse(&self, path: &Path) -> io::Result<Box<dyn JournalFile>> {
        self.change(|state| {
            let file = state.file_of(path)?;
            let file = SimulatedFile { fs: self.clone(), file, boot: state.boot, position: 0 };
            Ok(Box::new(file) as Box<dyn JournalFile>)
        })
    }

    /// The same while the power stays on.
    fn boot(&self) -> String {
        self.state().power_cuts.to_string()
    }

    fn random(&self) -> u64 {
        self.state().random()
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn JournalRead>> {
        self.change(|state| {
            let file = state.file_of(path)?;
            let bytes = state.files.get(file).map(|file| file.cached.clone()).unwrap_or_default();
            Ok(Box::new(Cursor::new(bytes)) as Box<dyn JournalRead>)
        })
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        self.change(|state| {
            let file = state.file_of(path)?;
            let len = state.files.get(file).map_or(0, |file| file.cached.len());
            Ok(u64::try_from(len).unwrap_or(u64::MAX))
        })
    }

    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        self.change(|state| {
            let file = state.file_of(path)?;
            if let Some(file) = state.files.get_mut(file) {
                file.truncate(usize::try_from(len).unwrap_or(usize::MAX));
                file.durable = file.cached.clone();
            }
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|state| state.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(|state| state.remove(path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.change(|state| state.sync_folder(dir))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<ListedFile>> {
        self.change(|state| {
            let listed = state.names.iter().filter(|(path, _)| path.parent() == Some(dir));
            Ok(listed
                .map(|(path, file)| ListedFile {
                    name: path.file_name().map(OsString::from).unwrap_or_default(),
                    len: state
                        .files
                        .get(*file)
                        .map_or(0, |file| u64::try_from(file.cached.len()).unwrap_or(u64::MAX)),
                })
                .collect())
        })
    }
}

/// Gives the folder free when dropped, unless the machine was restarted meanwhile.
#[derive(Debug)]
struct SimulatedLock {
    fs: SimulatedFs,
    boot: u64,
}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        let mut state = self.fs.state();
        if state.boot == self.boot {
            state.locked = false;
        }
    }
}
