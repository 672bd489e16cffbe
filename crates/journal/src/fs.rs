//! The file operations that the journal needs, so that a simulation can stand in for the device.
//!
//! What the journal relies on: bytes survive a crash once [`JournalFile::sync_data`] returned
//! `Ok`; a name survives once [`JournalFs::sync_dir`] of its folder did. Nothing else is assumed:
//! unsynced bytes may be kept, lost, torn or zeroed in any mixture, unsynced names likewise.

use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::{File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, IoSlice, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// A readable, seekable file.
pub trait JournalRead: Read + Seek + Send {}
impl<F: Read + Seek + Send> JournalRead for F {}

/// A file open for writing from one end to the other.
pub trait JournalFile: Debug + Send {
    /// Writes `slices`, in order, behind what was written before, and returns how many bytes were
    /// taken (0 = no room).
    ///
    /// # Errors
    /// What the file system says. After an error any part may have been written.
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Makes all bytes written so far, and the length, durable.
    ///
    /// # Errors
    /// What the file system says. After an error the unsynced bytes must be taken for lost, also
    /// if a later call succeeds.
    fn sync_data(&mut self) -> io::Result<()>;

    /// Cuts the file to `len` bytes; the next write goes there.
    ///
    /// # Errors
    /// What the file system says.
    fn truncate(&mut self, len: u64) -> io::Result<()>;

    /// Says that what is durable will hardly be read: the memory that it was written through serves
    /// the next file better, as pages that were used a moment ago cost a quarter of others.
    fn leave_memory(&self) {}
}

/// Holds a folder for as long as it lives.
pub type LockGuard = Box<dyn Debug + Send + Sync>;

/// What became of an attempt to own a folder.
#[derive(Debug)]
pub enum LockOutcome {
    /// The folder is ours until the guard is dropped.
    Held(LockGuard),
    /// Someone else has it.
    InUse {
        /// That process, where it could be read.
        pid: Option<u32>,
    },
}

/// A plain file in the journal folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedFile {
    /// Name without folder.
    pub name: OsString,
    /// Length in bytes.
    pub len: u64,
}

/// The file system under a journal.
pub trait JournalFs: Debug + Send + Sync + 'static {
    /// Creates the folder `dir` unless it is there; true when it was made. Its name is durable
    /// after [`JournalFs::sync_dir`] of its parent.
    ///
    /// # Errors
    /// What the file system says, [`io::ErrorKind::NotFound`] when the parent is not there.
    fn create_dir(&self, dir: &Path) -> io::Result<bool>;

    /// Tries to own the lock file `path`, without waiting.
    ///
    /// # Errors
    /// What the file system says; a lock held by another is no error.
    fn lock(&self, path: &Path) -> io::Result<LockOutcome>;

    /// Creates `path` for writing. The name is durable after [`JournalFs::sync_dir`].
    ///
    /// # Errors
    /// What the file system says, also when the file is there already.
    fn create(&self, path: &Path) -> io::Result<Box<dyn JournalFile>>;

    /// Opens `path`, which is there, to be written over from its begin. Its length stays as it is
    /// until a write goes beyond it.
    ///
    /// # Errors
    /// What the file system says.
    fn reuse(&self, path: &Path) -> io::Result<Box<dyn JournalFile>>;

    /// Opens `path` for reading from its begin.
    ///
    /// # Errors
    /// What the file system says.
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn JournalRead>>;

    /// Length of `path` in bytes.
    ///
    /// # Errors
    /// What the file system says.
    fn len(&self, path: &Path) -> io::Result<u64>;

    /// Cuts the file `path` to `len` bytes, durably.
    ///
    /// # Errors
    /// What the file system says.
    fn truncate(&self, path: &Path, len: u64) -> io::Result<()>;

    /// Renames a file within its folder, atomically, replacing `to`.
    ///
    /// # Errors
    /// What the file system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the file system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes creations, renames and removals in `dir` durable.
    ///
    /// # Errors
    /// What the file system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// The plain files in `dir`, in no order.
    ///
    /// # Errors
    /// What the file system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<ListedFile>>;

    /// Which start of the machine this is; empty where the system does not say.
    fn boot(&self) -> String {
        let told = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        told.map(|text| text.trim().to_owned()).unwrap_or_default()
    }

    /// A number that nobody outside of this process can foresee.
    fn random(&self) -> u64 {
        // The keys of each are of their own, and come from the operating system.
        RandomState::new().build_hasher().finish()
    }
}

/// Makes `dir` and the folders above it that are missing. When this returns each of them, and each
/// that was there before, is durable under its name: a process that made one may have died before
/// it synced the folder above.
///
/// A folder above one that was there already may belong to somebody else: one that may not be
/// opened, or knows no sync, is passed over with a notice in the log.
///
/// # Errors
/// What the file system says.
pub fn create_folders(fs: &dyn JournalFs, dir: &Path) -> io::Result<()> {
    let mut missing = Vec::new();
    let mut at = dir;
    // The lowest one that is there, or that could be made.
    let lowest_made = loop {
        match (fs.create_dir(at), parent_of(at)) {
            (Err(error), Some(parent)) if error.kind() == io::ErrorKind::NotFound => {
                missing.push(at);
                at = parent;
            }
            (made, _) => break made?,
        }
    };
    let mut made: Vec<&Path> = if lowest_made { vec![at] } else { Vec::new() };
    for dir in missing.into_iter().rev() {
        if fs.create_dir(dir)? {
            made.push(dir);
        }
    }
    let mut folder = dir;
    while let Some(parent) = parent_of(folder) {
        match fs.sync_dir(parent) {
            Err(error) if !made.contains(&folder) && is_none_of_ours(&error) => {
                tracing::info!(folder = %parent.display(), %error, "folder above not synced");
            }
            synced => synced?,
        }
        folder = parent;
    }
    Ok(())
}

/// Makes the folder `dir` unless it is there, durably; the one above is there and durable itself.
///
/// # Errors
/// What the file system says.
pub fn create_folder(fs: &dyn JournalFs, dir: &Path) -> io::Result<()> {
    fs.create_dir(dir)?;
    match parent_of(dir) {
        Some(parent) => fs.sync_dir(parent),
        None => Ok(()),
    }
}

fn parent_of(dir: &Path) -> Option<&Path> {
    // The parent of a relative path of one part is the folder at hand.
    let here = Path::new(".");
    let parent = dir.parent().filter(|_| dir != here)?;
    Some(if parent.as_os_str().is_empty() { here } else { parent })
}

/// Whether a folder cannot be synced by whoever may only pass through it.
fn is_none_of_ours(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem, Unsupported};
    matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem | Unsupported | InvalidInput)
}

/// The operating system's files.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFs;

/// A lock that ends when it is dropped, though a forked child may still have the file.
#[derive(Debug)]
struct HeldLock {
    file: File,
    /// Who took it. A forked child has it as well, and must not give it back.
    pid: u32,
}

impl Drop for HeldLock {
    fn drop(&mut self) {
        if self.pid == std::process::id() {
            // Closing the file does the same, unless a child has it.
            self.file.unlock().ok();
        }
    }
}

impl JournalFile for File {
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Write::write_vectored(self, slices)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        Self::sync_data(self)
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)?;
        self.seek(SeekFrom::Start(len))?;
        Ok(())
    }

    fn leave_memory(&self) {
        #[cfg(target_os = "linux")]
        // Only a hint.
        rustix::fs::fadvise(self, 0, None, rustix::fs::Advice::DontNeed).ok();
    }
}

impl JournalFs for RealFs {
    fn create_dir(&self, dir: &Path) -> io::Result<bool> {
        match std::fs::create_dir(dir) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let is_folder = std::fs::metadata(dir)?.is_dir();
                if is_folder { Ok(false) } else { Err(io::ErrorKind::NotADirectory.into()) }
            }
            Err(error) => Err(error),
        }
    }

    fn lock(&self, path: &Path) -> io::Result<LockOutcome> {
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(LockOutcome::InUse { pid: read_pid(file) }),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // The number only helps a person: a full device must not keep the service from starting.
        let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        if let Err(error) = written {
            tracing::debug!(path = %path.display(), %error, "process id not noted in lock file");
        }
        Ok(LockOutcome::Held(Box::new(HeldLock { file, pid: std::process::id() })))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn JournalFile>> {
        Ok(Box::new(OpenOptions::new().write(true).create_new(true).open(path)?))
    }

    fn reuse(&self, path: &Path) -> io::Result<Box<dyn JournalFile>> {
        Ok(Box::new(OpenOptions::new().write(true).open(path)?))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn JournalRead>> {
        Ok(Box::new(File::open(path)?))
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        Ok(std::fs::metadata(path)?.len())
    }

    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(len)?;
        file.sync_data()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        // Only Unix lets a folder be opened and synced; elsewhere renames are durable on return.
        if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<ListedFile>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_file() {
                files.push(ListedFile { name: entry.file_name(), len: metadata.len() });
            }
        }
        Ok(files)
    }
}

/// The process id in a lock file, where it is one.
fn read_pid(mut file: File) -> Option<u32> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
