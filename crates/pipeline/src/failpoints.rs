//! Dying on purpose, for the crash harness: at a durable step, and as at a power cut.
//!
//! `TRACELAKE_FAILPOINT=NAME:COUNT` ends the process without a word, as `kill -9` does, at the `COUNT`th time
//! that it comes to the step. `TRACELAKE_POWER_CUT=1` keeps what was written to the journal and not synced
//! in this process, so that it is lost with it, as a power cut loses what is not on the device: the
//! kill of a process alone would lose nothing that was written. Release builds have none of this.

use std::ffi::OsStr;
use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use tracelake_journal::{JournalFile, JournalFs, JournalRead, ListedFile, LockOutcome};
use tracelake_lake::{Fill, LakeError, OpenedFile, PutOutcome, TableFiles};
use url::Url;

use crate::mutations::{Broken, Step};

/// A record whose bytes contain `TRACELAKE_POISON` ends whoever takes it in, as one does that makes the
/// process run out of memory; one with `TRACELAKE_PANIC` ends the thread alone, as a defect does. For the
/// tests of what becomes of such a record, and of the process.
pub(crate) fn die_of_poison(payload: &[u8]) {
    static POISON: OnceLock<[Option<String>; 2]> = OnceLock::new();
    let [abort, panic] = POISON.get_or_init(|| {
        ["TRACELAKE_POISON", "TRACELAKE_PANIC"].map(|name| std::env::var(name).ok())
    });
    let is_in = |text: &Option<String>| text.as_deref().is_some_and(|text| contains(payload, text));
    if is_in(abort) {
        std::process::abort();
    }
    assert!(!is_in(panic), "a record of TRACELAKE_PANIC");
    #[cfg(test)]
    poison_of_tests::panic_of(payload);
}

fn contains(payload: &[u8], poison: &str) -> bool {
    payload.windows(poison.len().max(1)).any(|window| window == poison.as_bytes())
}

/// A poison within a process of tests: it ends the thread that takes it in.
#[cfg(test)]
pub(crate) mod poison_of_tests {
    use std::sync::{Mutex, PoisonError};

    static POISONS: Mutex<Vec<String>> = Mutex::new(Vec::new());

    /// Records that contain `text`, which is that of one test alone, are poison from now on, or are
    /// not.
    pub(crate) fn set(text: &str, is_poison: bool) {
        let mut poisons = POISONS.lock().unwrap_or_else(PoisonError::into_inner);
        poisons.retain(|poison| poison != text);
        if is_poison {
            poisons.push(text.to_owned());
        }
    }

    pub(super) fn panic_of(payload: &[u8]) {
        let poisons = POISONS.lock().unwrap_or_else(PoisonError::into_inner).clone();
        assert!(!poisons.iter().any(|poison| super::contains(payload, poison)), "poison");
    }
}

/// Every step; `torn` leaves half of a write.
const FAILPOINTS: [&str; 89] = [
    "segment.create.before",
    "segment.create.after",
    "segment.write.before",
    "segment.write.torn",
    "segment.write.after",
    "segment.sync.before",
    "segment.sync.after",
    "segment.rename.before",
    "segment.rename.after",
    "segment.reuse.before",
    "segment.reuse.after",
    "carry.create.before",
    "carry.create.after",
    "carry.write.before",
    "carry.write.torn",
    "carry.write.after",
    "carry.sync.before",
    "carry.sync.after",
    "carry.rename.before",
    "carry.rename.after",
    "carry.remove.before",
    "carry.remove.after",
    "epoch.create.before",
    "epoch.create.after",
    "epoch.write.before",
    "epoch.write.torn",
    "epoch.write.after",
    "epoch.sync.before",
    "epoch.sync.after",
    "epoch.rename.before",
    "epoch.rename.after",
    "plan.create.before",
    "plan.create.after",
    "plan.write.before",
    "plan.write.torn",
    "plan.write.after",
    "plan.sync.before",
    "plan.sync.after",
    "plan.rename.before",
    "plan.rename.after",
    "plan.remove.before",
    "plan.remove.after",
    "mark.create.before",
    "mark.create.after",
    "mark.write.before",
    "mark.write.torn",
    "mark.write.after",
    "mark.sync.before",
    "mark.sync.after",
    "mark.rename.before",
    "mark.rename.after",
    "mark.remove.before",
    "mark.remove.after",
    "ledger.create.before",
    "ledger.create.after",
    "ledger.write.before",
    "ledger.write.torn",
    "ledger.write.after",
    "ledger.sync.before",
    "ledger.sync.after",
    "link.create.before",
    "link.create.after",
    "link.write.before",
    "link.write.torn",
    "link.write.after",
    "link.sync.before",
    "link.sync.after",
    "link.rename.before",
    "link.rename.after",
    "folder.create.before",
    "folder.create.after",
    "folder.sync.before",
    "folder.sync.after",
    "data.put.before",
    "data.put.after",
    "change.put.before",
    "change.put.after",
    "vector.put.before",
    "vector.put.after",
    "log.put.before",
    "log.put.after",
    "log.sync.before",
    "log.sync.after",
    "tables.sync.before",
    "tables.sync.after",
    "checkpoint.put.before",
    "checkpoint.put.after",
    "checkpoint.replace.before",
    "checkpoint.replace.after",
];

/// Where this process dies.
#[derive(Debug)]
struct Failpoint {
    name: String,
    left: AtomicU64,
}

static FAILPOINT: OnceLock<Option<Failpoint>> = OnceLock::new();

/// Reads the environment, once.
fn failpoint() -> anyhow::Result<Option<Failpoint>> {
    let Ok(text) = std::env::var("TRACELAKE_FAILPOINT") else { return Ok(None) };
    let (name, count) = text.split_once(':').unwrap_or((&text, "1"));
    anyhow::ensure!(
        FAILPOINTS.contains(&name),
        "TRACELAKE_FAILPOINT=`{name}`: one of {}",
        FAILPOINTS.join(" ")
    );
    let left = count.parse().with_context(|| format!("TRACELAKE_FAILPOINT=`{text}`"))?;
    Ok(Some(Failpoint { name: name.to_owned(), left: AtomicU64::new(left) }))
}

/// True when the process is to die at this step, now.
fn is_due(kind: &str, operation: &str, moment: &str) -> bool {
    let Some(Some(failpoint)) = FAILPOINT.get() else { return false };
    let mut parts = failpoint.name.split('.');
    let same = [kind, operation, moment].iter().all(|part| parts.next() == Some(part));
    same && failpoint.left.fetch_sub(1, Ordering::SeqCst) == 1
}

fn step(kind: &str, operation: &str, moment: &str) {
    if is_due(kind, operation, moment) {
        kill_this_process();
    }
}

/// A kill from outside: the process can say nothing of it.
#[expect(unsafe_code, reason = "no safe crate of the workspace has it")]
fn kill_this_process() -> ! {
    // SAFETY: the signal goes to this process and takes nothing.
    unsafe { libc::raise(libc::SIGKILL) };
    // Where the signal is not there yet.
    std::process::abort()
}

fn around<T>(kind: &str, operation: &str, work: impl FnOnce() -> T) -> T {
    step(kind, operation, "before");
    let done = work();
    step(kind, operation, "after");
    done
}

/// The file system of the journal, with what the environment asks for.
pub(crate) fn journal_fs(fs: Arc<dyn JournalFs>) -> anyhow::Result<Arc<dyn JournalFs>> {
    let failpoint = failpoint()?;
    let is_volatile = std::env::var_os("TRACELAKE_POWER_CUT").is_some();
    let wanted = is_volatile || failpoint.is_some();
    FAILPOINT.get_or_init(|| failpoint);
    if !wanted {
        return Ok(fs);
    }
    tracing::warn!(is_volatile, "this process may die on purpose");
    Ok(Arc::new(FaultyFs { fs, is_volatile, syncs_folders: true }))
}

/// The file system of the journal, as a build sees it that leaves a step out.
pub(crate) fn broken_fs(fs: Arc<dyn JournalFs>, broken: Broken) -> Arc<dyn JournalFs> {
    if broken.leaves_out(Step::FolderSync) {
        return Arc::new(FaultyFs { fs, is_volatile: false, syncs_folders: false });
    }
    fs
}

/// The files of a table, with what the environment asks for.
pub(crate) fn table_files(_: &Url, files: Arc<dyn TableFiles>) -> Arc<dyn TableFiles> {
    Arc::new(FaultyTable(files))
}

#[derive(Debug)]
struct FaultyFs {
    fs: Arc<dyn JournalFs>,
    is_volatile: bool,
    syncs_folders: bool,
}

/// What a file of the journal is, by its name.
fn kind(path: &Path) -> &'static str {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    match name {
        _ if name.starts_with("segment-") => "segment",
        _ if name.starts_with("carry-") => "carry",
        _ if name.starts_with("EPOCH") => "epoch",
        _ if name.starts_with("REPLAY") => "mark",
        _ if name.ends_with(".ledger") => "ledger",
        _ if name.starts_with("LEDGER") => "link",
        // Under another name first, as all that is renamed.
        _ if name.ends_with(".plan") || name.starts_with(|first: char| first.is_ascii_digit()) => {
            "plan"
        }
        _ => "other",
    }
}

impl JournalFs for FaultyFs {
    fn create_dir(&self, dir: &Path) -> io::Result<bool> {
        around("folder", "create", || self.fs.create_dir(dir))
    }

    fn lock(&self, path: &Path) -> io::Result<LockOutcome> {
        self.fs.lock(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn JournalFile>> {
        let kind = kind(path);
        let file = around(kind, "create", || self.fs.create(path))?;
        let unsynced = self.is_volatile.then(Vec::new);
        Ok(Box::new(FaultyFile { file, kind, synced_bytes: 0, unsynced }))
    }

    fn reuse(&self, path: &Path) -> io::Result<Box<dyn JournalFile>> {
        let kind = kind(path);
        let file = around(kind, "reuse", || self.fs.reuse(path))?;
        let unsynced = self.is_volatile.then(Vec::new);
        Ok(Box::new(FaultyFile { file, kind, synced_bytes: 0, unsynced }))
    }

    fn boot(&self) -> String {
        self.fs.boot()
    }

    fn random(&self) -> u64 {
        self.fs.random()
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn JournalRead>> {
        self.fs.open_read(path)
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        self.fs.len(path)
    }

    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        self.fs.truncate(path, len)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        around(kind(to), "rename", || self.fs.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        around(kind(path), "remove", || self.fs.remove(path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if !self.syncs_folders {
            return Ok(());
        }
        around("folder", "sync", || self.fs.sync_dir(dir))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<ListedFile>> {
        self.fs.list(dir)
    }
}

#[derive(Debug)]
struct FaultyFile {
    file: Box<dyn JournalFile>,
    kind: &'static str,
    synced_bytes: u64,
    /// What a power cut would lose, where that is to be.
    unsynced: Option<Vec<u8>>,
}

fn write_all(file: &mut dyn JournalFile, bytes: &[u8]) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = file.write_vectored(&[IoSlice::new(rest)])?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        rest = rest.get(written..).unwrap_or_default();
    }
    Ok(())
}

impl JournalFile for FaultyFile {
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if is_due(self.kind, "write", "torn") {
            let mut bytes = self.unsynced.take().unwrap_or_default();
            slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
            let half = bytes.get(..bytes.len() / 2).unwrap_or_default();
            write_all(self.file.as_mut(), half).ok();
            kill_this_process();
        }
        around(self.kind, "write", || match &mut self.unsynced {
            Some(unsynced) => {
                slices.iter().for_each(|slice| unsynced.extend_from_slice(slice));
                Ok(slices.iter().map(|slice| slice.len()).sum())
            }
            None => self.file.write_vectored(slices),
        })
    }

    fn sync_data(&mut self) -> io::Result<()> {
        around(self.kind, "sync", || {
            if let Some(unsynced) = &mut self.unsynced {
                write_all(self.file.as_mut(), unsynced)?;
                self.synced_bytes += unsynced.len() as u64;
                unsynced.clear();
            }
            self.file.sync_data()
        })
    }

    fn leave_memory(&self) {
        self.file.leave_memory();
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let Some(unsynced) = &mut self.unsynced else { return self.file.truncate(len) };
        match len.checked_sub(self.synced_bytes) {
            Some(kept) => {
                unsynced.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
                // In a file that is written over more may stand behind.
                self.file.truncate(self.synced_bytes)
            }
            None => {
                unsynced.clear();
                self.synced_bytes = len;
                self.file.truncate(len)
            }
        }
    }
}

/// What a file of a table is, by its path.
fn table_kind(path: &str) -> &'static str {
    match path {
        _ if path.starts_with("_delta_log/") && path.contains("checkpoint") => "checkpoint",
        _ if path.starts_with("_delta_log/") => "log",
        _ if path.starts_with("_change_data/") => "change",
        _ if path.starts_with("deletion_vector") => "vector",
        _ => "data",
    }
}

#[derive(Debug)]
struct FaultyTable(Arc<dyn TableFiles>);

impl TableFiles for FaultyTable {
    fn create(&self) -> Result<(), LakeError> {
        self.0.create()
    }

    fn put_if_absent(&self, path: &str, bytes: &[u8]) -> Result<PutOutcome, LakeError> {
        around(table_kind(path), "put", || self.0.put_if_absent(path, bytes))
    }

    fn put_stream(&self, path: &str, fill: &mut Fill<'_>) -> Result<PutOutcome, LakeError> {
        around(table_kind(path), "put", || self.0.put_stream(path, fill))
    }

    fn replace(&self, path: &str, fill: &mut Fill<'_>) -> Result<(), LakeError> {
        around(table_kind(path), "replace", || self.0.replace(path, fill))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), LakeError> {
        self.0.rename(from, to)
    }

    fn shows_only_durable(&self) -> bool {
        self.0.shows_only_durable()
    }

    fn sync_log(&self) -> Result<(), LakeError> {
        around("log", "sync", || self.0.sync_log())
    }

    fn sync_folders(&self) -> Result<(), LakeError> {
        around("tables", "sync", || self.0.sync_folders())
    }

    fn sync_files(&self, paths: &[String]) -> Result<(), LakeError> {
        self.0.sync_files(paths)
    }

    fn list_log(&self, visit: &mut dyn FnMut(&str)) -> Result<(), LakeError> {
        self.0.list_log(visit)
    }

    fn open(&self, path: &str) -> Result<OpenedFile, LakeError> {
        self.0.open(path)
    }

    fn has_log(&self) -> Result<bool, LakeError> {
        self.0.has_log()
    }
}
