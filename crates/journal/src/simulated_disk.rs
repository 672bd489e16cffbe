//! What a simulated machine has in memory and what its device has, and what a crash makes of both.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

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
    /// Syncs of folders that failed.
    pub failed_folder_syncs: u64,
    /// Folders that a crash undid.
    pub lost_folders: u64,
}

/// How an operation that is told to ends the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The power goes: what is not durable may be gone.
    Power,
    /// The process dies and the machine goes on: what is not durable is so still.
    Process,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) random: u64,
    /// What a reader sees.
    pub(crate) names: BTreeMap<PathBuf, usize>,
    /// What a crash leaves at least.
    durable_names: BTreeMap<PathBuf, usize>,
    /// Folders that were made here. Others are taken for there, always.
    folders: BTreeSet<PathBuf>,
    durable_folders: BTreeSet<PathBuf>,
    unsynced: Vec<NameChange>,
    pub(crate) files: Vec<FileState>,
    /// Which life of a process: handles of an earlier one are dead.
    pub(crate) boot: u64,
    pub(crate) power_cuts: u64,
    pub(crate) locked: bool,
    pub(crate) operations: u64,
    pub(crate) end_at: Option<(u64, End)>,
    pub(crate) ended: Option<End>,
    pub(crate) room_bytes: Option<usize>,
    pub(crate) failing_syncs: u32,
    pub(crate) failing_creates: u32,
    pub(crate) failing_folder_syncs: u32,
    pub(crate) accidents: Accidents,
}

/// A change of a folder's entries.
#[derive(Clone, Debug)]
enum NameChange {
    Create(PathBuf, usize),
    Rename(PathBuf, PathBuf, usize),
    Remove(PathBuf),
    CreateFolder(PathBuf),
}

impl NameChange {
    /// The folder whose sync makes it durable.
    fn folder(&self) -> Option<&Path> {
        match self {
            Self::Create(path, _) | Self::Rename(_, path, _) => path.parent(),
            Self::Remove(path) | Self::CreateFolder(path) => path.parent(),
        }
    }
}

/// A file, as readers see it and as the device has it.
#[derive(Debug, Default)]
pub(crate) struct FileState {
    pub(crate) cached: Vec<u8>,
    pub(crate) durable: Vec<u8>,
    /// Where writes since the last sync went.
    pub(crate) unsynced: Option<Range<usize>>,
    /// What a failed sync lost although it is still readable.
    pub(crate) lost: Vec<Range<usize>>,
}

/// What becomes of an operation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Done,
    /// It ends the process after it took effect.
    DoneThenEnd,
    /// It ends the process before.
    End,
}

pub(crate) fn crashed() -> io::Error {
    io::Error::other("simulated crash")
}

pub(crate) fn io_error() -> io::Error {
    io::Error::other("simulated input/output error")
}

impl State {
    pub(crate) fn new(seed: u64) -> Self {
        let mut state = Self { random: seed, ..Self::default() };
        // Where paths begin, absolute and relative ones.
        ["/", "", "."].into_iter().for_each(|here| state.mount(Path::new(here)));
        state
    }

    /// `SplitMix64`.
    pub(crate) fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.random() % bound).unwrap_or(0)
    }

    pub(crate) fn step(&mut self) -> io::Result<Fate> {
        if self.ended.is_some() {
            return Err(crashed());
        }
        self.operations += 1;
        let Some((_, end)) = self.end_at.filter(|(at, _)| *at <= self.operations) else {
            return Ok(Fate::Done);
        };
        self.ended = Some(end);
        Ok(if self.below(2) == 0 { Fate::End } else { Fate::DoneThenEnd })
    }

    pub(crate) fn used_bytes(&self) -> usize {
        self.names.values().filter_map(|file| self.files.get(*file)).map(|f| f.cached.len()).sum()
    }

    pub(crate) fn file_of(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(crate) fn add_file(&mut self, path: &Path) -> usize {
        let file = self.files.len();
        self.files.push(FileState::default());
        self.names.insert(path.to_path_buf(), file);
        self.unsynced.push(NameChange::Create(path.to_path_buf(), file));
        file
    }

    pub(crate) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let file = self.file_of(from)?;
        self.names.remove(from);
        self.names.insert(to.to_path_buf(), file);
        self.unsynced.push(NameChange::Rename(from.to_path_buf(), to.to_path_buf(), file));
        Ok(())
    }

    pub(crate) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.file_of(path)?;
        self.names.remove(path);
        self.unsynced.push(NameChange::Remove(path.to_path_buf()));
        Ok(())
    }

    /// Makes one folder, in memory; false when it is there.
    pub(crate) fn add_folder(&mut self, path: &Path) -> io::Result<bool> {
        if self.folders.contains(path) {
            return Ok(false);
        }
        if path.parent().is_some_and(|parent| !self.folders.contains(parent)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.folders.insert(path.to_path_buf());
        self.unsynced.push(NameChange::CreateFolder(path.to_path_buf()));
        Ok(true)
    }

    /// Takes a folder for one that is there, durably.
    pub(crate) fn mount(&mut self, path: &Path) {
        for folder in path.ancestors() {
            self.folders.insert(folder.to_path_buf());
            self.durable_folders.insert(folder.to_path_buf());
        }
    }

    /// Makes the entries of one folder durable. They are lost all the same with a folder above that
    /// is not.
    pub(crate) fn sync_folder(&mut self, folder: &Path) -> io::Result<()> {
        // One folder has two names.
        let folder = if folder == Path::new(".") { Path::new("") } else { folder };
        if 0 < self.failing_folder_syncs {
            self.failing_folder_syncs -= 1;
            self.accidents.failed_folder_syncs += 1;
            return Err(io_error());
        }
        let (due, rest) = std::mem::take(&mut self.unsynced)
            .into_iter()
            .partition(|change| change.folder() == Some(folder));
        self.unsynced = rest;
        due.into_iter().for_each(|change| self.make_durable(change));
        Ok(())
    }

    /// Makes everything durable.
    pub(crate) fn sync_names(&mut self) {
        let changes: Vec<NameChange> = std::mem::take(&mut self.unsynced);
        changes.into_iter().for_each(|change| self.make_durable(change));
    }

    fn make_durable(&mut self, change: NameChange) {
        match change {
            NameChange::Create(path, file) => drop(self.durable_names.insert(path, file)),
            NameChange::Remove(path) => drop(self.durable_names.remove(&path)),
            NameChange::Rename(from, to, file) => {
                self.durable_names.remove(&from);
                self.durable_names.insert(to, file);
            }
            NameChange::CreateFolder(path) => drop(self.durable_folders.insert(path)),
        }
    }

    /// Whether a crash leaves the folder that `path` is in, and all above it.
    fn is_below_durable(&self, path: &Path) -> bool {
        path.ancestors()
            .skip(1)
            .all(|folder| !self.folders.contains(folder) || self.durable_folders.contains(folder))
    }

    /// Begins another life of the process. Unless only the process had ended, what was not durable
    /// may be gone.
    pub(crate) fn restart(&mut self) {
        if self.ended != Some(End::Process) {
            self.lose_power();
        }
        self.boot += 1;
        self.locked = false;
        self.ended = None;
        self.end_at = None;
        self.room_bytes = None;
        self.failing_syncs = 0;
        self.failing_creates = 0;
        self.failing_folder_syncs = 0;
    }

    fn lose_power(&mut self) {
        self.power_cuts += 1;
        for change in std::mem::take(&mut self.unsynced) {
            if self.below(2) == 0 {
                let is_folder = matches!(change, NameChange::CreateFolder(_));
                self.accidents.lost_folders += u64::from(is_folder);
                self.accidents.lost_names += u64::from(!is_folder);
            } else {
                self.make_durable(change);
            }
        }
        let kept = |path: &PathBuf| self.is_below_durable(path);
        let folders = self.durable_folders.iter().filter(|path| kept(path)).cloned().collect();
        let names = self.durable_names.iter().filter(|(path, _)| kept(path));
        self.names = names.map(|(path, file)| (path.clone(), *file)).collect();
        self.durable_names.clone_from(&self.names);
        self.durable_folders = folders;
        self.folders.clone_from(&self.durable_folders);
        for index in 0..self.files.len() {
            let survivor = self.survivor(index);
            if let Some(file) = self.files.get_mut(index) {
                *file = FileState::durable(survivor);
            }
        }
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

impl FileState {
    /// A file of which the device has all.
    pub(crate) fn durable(bytes: Vec<u8>) -> Self {
        Self { cached: bytes.clone(), durable: bytes, ..Self::default() }
    }

    pub(crate) fn write(&mut self, position: usize, bytes: &[u8]) {
        let end = position.saturating_add(bytes.len());
        if self.cached.len() < end {
            self.cached.resize(end, 0);
        }
        self.cached.get_mut(position..end).unwrap_or_default().copy_from_slice(bytes);
        let before = self.unsynced.take().unwrap_or(position..end);
        self.unsynced = Some(before.start.min(position)..before.end.max(end));
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        self.cached.truncate(len);
        for range in self.lost.iter_mut().chain(&mut self.unsynced) {
            *range = range.start.min(len)..range.end.min(len);
        }
    }
}
