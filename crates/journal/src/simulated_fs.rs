//! A file system in memory that crashes, tears, forgets and fails on demand.
//!
//! It promises no more than [`JournalFs`] does. At a crash each unsynced byte may be kept, lost,
//! zeroed or replaced, and each unsynced name may be kept or lost. After a failed sync the
//! unsynced bytes are lost, while later syncs of the file succeed, as Linux does it. One seed
//! gives one history, as long as its users are deterministic.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{self, Cursor, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::fs::{JournalFile, JournalFs, JournalRead, ListedFile, LockOutcome};

/// Bytes that reach the device, or do not, together.
const SECTOR_BYTES: usize = 64;

/// What befell a simulated file system since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accidents {
    /// Syncs of files that failed.
    pub failed_syncs: u64,
    /// Creations of files that failed.
    pub failed_creates: u64,
    /// Writes that found no room.
    pub refused_writes: u64,
    /// Files of which a crash left another content than readers had seen.
    pub torn_files: u64,
    /// Creations, renames and removals that a crash undid.
    pub lost_names: u64,
}

/// A simulated file system. Clones are the same one.
#[derive(Clone, Debug)]
pub struct SimulatedFs {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    random: u64,
    /// What a reader sees.
    names: BTreeMap<PathBuf, usize>,
    /// Folders that were made.
    folders: BTreeSet<PathBuf>,
    /// What a crash leaves at least.
    durable_names: BTreeMap<PathBuf, usize>,
    unsynced: Vec<NameChange>,
    files: Vec<FileState>,
    /// Which boot of the machine: handles of an earlier one are dead.
    boot: u64,
    locked: bool,
    operations: u64,
    crash_at: Option<u64>,
    crashed: bool,
    room_bytes: Option<usize>,
    failing_syncs: u32,
    failing_creates: u32,
    accidents: Accidents,
}

#[derive(Clone, Debug)]
enum NameChange {
    Create(PathBuf, usize),
    Rename(PathBuf, PathBuf, usize),
    Remove(PathBuf),
}

#[derive(Debug, Default)]
struct FileState {
    cached: Vec<u8>,
    durable: Vec<u8>,
    /// Where writes since the last sync went.
    unsynced: Option<Range<usize>>,
    /// What a failed sync lost although it is still readable.
    lost: Vec<Range<usize>>,
}

/// What becomes of an operation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Done,
    /// The machine stops after it took effect.
    DoneThenCrash,
    /// The machine stops before.
    Crash,
}

impl SimulatedFs {
    /// An empty file system whose accidents follow from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State { random: seed, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Stops the machine at the operation after `operations` more.
    pub fn crash_after(&self, operations: u64) {
        let mut state = self.state();
        state.crash_at = Some(state.operations.saturating_add(operations));
    }

    /// Stops the machine now.
    pub fn crash(&self) {
        self.state().crashed = true;
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

    /// Whether the machine has stopped.
    #[must_use]
    pub fn is_crashed(&self) -> bool {
        self.state().crashed
    }

    /// Starts the machine again, after a crash or instead of one. Every handle is dead.
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

fn crashed() -> io::Error {
    io::Error::other("simulated crash")
}

fn io_error() -> io::Error {
    io::Error::other("simulated input/output error")
}

impl State {
    /// `SplitMix64`.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.random() % bound).unwrap_or(0)
    }

    fn step(&mut self) -> io::Result<Fate> {
        if self.crashed {
            return Err(crashed());
        }
        self.operations += 1;
        if self.crash_at.is_none_or(|at| self.operations < at) {
            return Ok(Fate::Done);
        }
        self.crashed = true;
        Ok(if self.below(2) == 0 { Fate::Crash } else { Fate::DoneThenCrash })
    }

    fn used_bytes(&self) -> usize {
        self.names.values().filter_map(|file| self.files.get(*file)).map(|f| f.cached.len()).sum()
    }

    fn file_of(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn add_file(&mut self, path: &Path) -> usize {
        let file = self.files.len();
        self.files.push(FileState::default());
        self.names.insert(path.to_path_buf(), file);
        self.unsynced.push(NameChange::Create(path.to_path_buf(), file));
        file
    }

    fn sync_names(&mut self) {
        self.unsynced.clear();
        self.durable_names = self.names.clone();
    }

    fn restart(&mut self) {
        for change in std::mem::take(&mut self.unsynced) {
            if self.below(2) == 0 {
                self.accidents.lost_names += 1;
                continue;
            }
            match change {
                NameChange::Create(path, file) => drop(self.durable_names.insert(path, file)),
                NameChange::Remove(path) => drop(self.durable_names.remove(&path)),
                NameChange::Rename(from, to, file) => {
                    self.durable_names.remove(&from);
                    self.durable_names.insert(to, file);
                }
            }
        }
        self.names = self.durable_names.clone();
        for index in 0..self.files.len() {
            let survivor = self.survivor(index);
            if let Some(file) = self.files.get_mut(index) {
                *file = FileState::durable(survivor);
            }
        }
        self.boot += 1;
        self.locked = false;
        self.crashed = false;
        self.crash_at = None;
        self.room_bytes = None;
        self.failing_syncs = 0;
        self.failing_creates = 0;
    }

    /// What the device holds of a file after a crash.
    fn survivor(&mut self, index: usize) -> Vec<u8> {
        let Some(file) = self.files.get_mut(index) else { return Vec::new() };
        let FileState { cached, durable, lost, .. } = std::mem::take(file);
        if cached == durable {
            return durable;
        }
        let (short, long) = (durable.len().min(cached.len()), durable.len().max(cached.len()));
        let len = short + self.below(long - short + 1);
        let same = durable.iter().zip(&cached).take_while(|(a, b)| a == b).count();
        let mut out = cached.get(..same.min(len)).unwrap_or_default().to_vec();
        self.accidents.torn_files += 1;
        while out.len() < len {
            let end = (out.len() + SECTOR_BYTES - out.len() % SECTOR_BYTES).min(len);
            let sector = out.len()..end;
            let choice = self.below(8);
            for at in sector {
                let synced = durable.get(at).copied();
                let cached = cached.get(at).copied();
                let settled = synced == cached || lost.iter().any(|range| range.contains(&at));
                let kept = cached.or(synced).unwrap_or(0);
                out.push(match choice {
                    _ if settled && synced.is_some() => synced.unwrap_or(0),
                    0 => 0,
                    1 => self.random().to_le_bytes()[0],
                    2 => synced.unwrap_or(0),
                    _ => kept,
                });
            }
        }
        out
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
    /// Runs `change` on the file unless the machine stops first.
    fn change<R>(&self, change: impl FnOnce(&mut State, usize) -> io::Result<R>) -> io::Result<R> {
        let mut state = self.fs.state();
        if state.boot != self.boot {
            return Err(crashed());
        }
        let fate = state.step()?;
        if fate == Fate::Crash {
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

impl FileState {
    /// A file of which the device has all.
    fn durable(bytes: Vec<u8>) -> Self {
        Self { cached: bytes.clone(), durable: bytes, ..Self::default() }
    }

    fn write(&mut self, position: usize, bytes: &[u8]) {
        let end = position.saturating_add(bytes.len());
        if self.cached.len() < end {
            self.cached.resize(end, 0);
        }
        self.cached.get_mut(position..end).unwrap_or_default().copy_from_slice(bytes);
        let before = self.unsynced.take().unwrap_or(position..end);
        self.unsynced = Some(before.start.min(position)..before.end.max(end));
    }

    fn truncate(&mut self, len: usize) {
        self.cached.truncate(len);
        for range in self.lost.iter_mut().chain(&mut self.unsynced) {
            *range = range.start.min(len)..range.end.min(len);
        }
    }
}

impl SimulatedFs {
    /// Runs `change` unless the machine stops first.
    fn change<R>(&self, change: impl FnOnce(&mut State) -> io::Result<R>) -> io::Result<R> {
        let mut state = self.state();
        let fate = state.step()?;
        if fate == Fate::Crash {
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
        self.change(|state| Ok(state.folders.insert(dir.to_path_buf())))
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

    fn boot(&self) -> String {
        self.state().boot.to_string()
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
        self.change(|state| {
            let file = state.file_of(from)?;
            state.names.remove(from);
            state.names.insert(to.to_path_buf(), file);
            let change = NameChange::Rename(from.to_path_buf(), to.to_path_buf(), file);
            state.unsynced.push(change);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(|state| {
            state.file_of(path)?;
            state.names.remove(path);
            state.unsynced.push(NameChange::Remove(path.to_path_buf()));
            Ok(())
        })
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        self.change(|state| {
            state.sync_names();
            Ok(())
        })
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
