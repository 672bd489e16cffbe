//! Writing the files of a table so that they survive a power cut, and so that of two writers one
//! wins.
//!
//! A file exists under its name only when all its bytes are on disk: it is written under a
//! temporary name, synced, linked to its name (which fails if the name is taken: put-if-absent),
//! and its folder is synced. What a crash leaves behind before the link is an unreferenced file.
//!
//! The same holds for file systems that machines share. There `link` is atomic as well, but its
//! answer may be lost and the call sent again, which then finds the name taken by itself: so after
//! an error it is looked up whether the name is that of the temporary file itself. The number of
//! its links would not tell: a backup may link files too. That the temporary file is made in the
//! folder of its name also shows a client that caches the folder that others wrote to it.
//!
//! A table's folder is made when the table is, and never to write into a table that is known: a
//! folder that vanished is a share that is not mounted.
//!
//! What is seen in a folder need not be durable: whoever wrote it may have died before the sync, or
//! never syncs. So there are calls that make durable what was seen.

use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

use super::{Fill, OpenedFile, PutOutcome, TableFiles};
use crate::error::LakeError;
use crate::layout::{CHANGE_FOLDER, LOG_FOLDER, TEMPORARY_PREFIX, TableLocation, has_log};

/// Bytes from which on a file is large.
const LARGE_BYTES: u64 = 4 << 20;

/// Folders above that of a table which are made with it: schema, catalog, the folder of all tables;
/// and the one that has that.
const FOLDERS_ABOVE: usize = 4;

/// The files of one table in a folder.
#[derive(Clone, Debug)]
pub(crate) struct LocalFiles {
    location: TableLocation,
    /// Folders of the table that are durable in it.
    subfolders: Arc<Mutex<HashSet<PathBuf>>>,
}

impl LocalFiles {
    pub(crate) fn new(location: TableLocation) -> Self {
        Self { location, subfolders: Arc::default() }
    }

    /// Makes the folder of `target`, below the table's, durable in that, once: another process may have
    /// made it a moment ago and not synced it.
    fn prepare_folder(&self, target: &Path) -> io::Result<()> {
        let root = self.location.folder();
        let Some(folder) = target.parent().filter(|folder| *folder != root) else { return Ok(()) };
        let known = || self.subfolders.lock().unwrap_or_else(PoisonError::into_inner);
        if !known().contains(folder) {
            make_subfolder(folder)?;
            known().insert(folder.to_owned());
        }
        Ok(())
    }

    fn put(
        &self,
        path: &str,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
        name: impl FnOnce(&Path, &Path) -> io::Result<()>,
    ) -> Result<PutOutcome, LakeError> {
        self.location.check()?;
        let target = self.full_path(path);
        self.prepare_folder(&target)
            .and_then(|()| put(&target, fill, name))
            .map_err(|source| self.fault("write", &target, source))
    }

    /// The file system's path of `path`, which is relative to the table's folder.
    fn full_path(&self, path: &str) -> PathBuf {
        self.location.folder().join(path)
    }

    fn fault(&self, action: &'static str, path: &Path, source: io::Error) -> LakeError {
        match self.location.check() {
            Err(away) => away,
            Ok(()) => LakeError::Storage { action, path: path.display().to_string(), source },
        }
    }
}

impl TableFiles for LocalFiles {
    /// Makes the table's folder with its parents, and that of the log.
    fn create(&self) -> Result<(), LakeError> {
        self.location.check()?;
        let folder = self.location.folder();
        let log = folder.join(LOG_FOLDER);
        std::fs::create_dir_all(&log).map_err(|source| self.fault("create", folder, source))?;
        self.sync_folders()
    }

    /// The table's folder must be there, one below it is made.
    fn put_if_absent(&self, path: &str, bytes: &[u8]) -> Result<PutOutcome, LakeError> {
        self.put(path, |file| file.write_all(bytes), |from, to| std::fs::hard_link(from, to))
    }

    fn put_stream(&self, path: &str, fill: &mut Fill<'_>) -> Result<PutOutcome, LakeError> {
        self.put(path, |file| fill(file), |from, to| std::fs::hard_link(from, to))
    }

    fn replace(&self, path: &str, fill: &mut Fill<'_>) -> Result<(), LakeError> {
        self.put(path, |file| fill(file), |from, to| std::fs::rename(from, to)).map(|_| ())
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), LakeError> {
        self.location.check()?;
        let (from, to) = (self.full_path(from), self.full_path(to));
        let folder = to.parent().unwrap_or(&to);
        std::fs::rename(&from, &to)
            .and_then(|()| sync(folder))
            .map_err(|source| self.fault("rename", &from, source))
    }

    fn shows_only_durable(&self) -> bool {
        false
    }

    fn sync_log(&self) -> Result<(), LakeError> {
        self.location.check()?;
        let log = self.full_path(LOG_FOLDER);
        sync(&log).map_err(|source| self.fault("sync", &log, source))
    }

    /// A folder above the table's that may not be read was made by someone else.
    fn sync_folders(&self) -> Result<(), LakeError> {
        self.location.check()?;
        let folder = self.location.folder();
        let fault = |path: &Path, source| Err(self.fault("sync", path, source));
        let above = folder.ancestors().take(1 + FOLDERS_ABOVE).collect::<Vec<_>>();
        for (depth, path) in above.into_iter().enumerate().rev() {
            match sync(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if 0 < depth && error.kind() == io::ErrorKind::PermissionDenied => {}
                Err(error) => return fault(path, error),
                Ok(()) => {}
            }
        }
        for path in [LOG_FOLDER, CHANGE_FOLDER].map(|name| folder.join(name)) {
            match sync(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return fault(&path, error);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn sync_files(&self, paths: &[String]) -> Result<(), LakeError> {
        self.location.check()?;
        let mut folders = BTreeSet::new();
        for path in paths.iter().map(|path| self.full_path(path)) {
            match sync(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(self.fault("sync", &path, error)),
                Ok(()) => folders.extend(path.parent().map(Path::to_owned)),
            }
        }
        for folder in folders {
            sync(&folder).map_err(|source| self.fault("sync", &folder, source))?;
        }
        Ok(())
    }

    fn list_log(&self, visit: &mut dyn FnMut(&str)) -> Result<(), LakeError> {
        self.location.check()?;
        let log = self.full_path(LOG_FOLDER);
        let fault = |source| self.fault("list", &log, source);
        let entries = match std::fs::read_dir(&log) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(fault)?,
        };
        for entry in entries {
            if let Some(name) = entry.map_err(fault)?.file_name().to_str() {
                visit(name);
            }
        }
        Ok(())
    }

    fn open(&self, path: &str) -> Result<OpenedFile, LakeError> {
        let target = self.full_path(path);
        File::open(&target)
            .map(OpenedFile::Local)
            .map_err(|source| self.fault("open", &target, source))
    }

    fn has_log(&self) -> Result<bool, LakeError> {
        self.location.check()?;
        let folder = self.location.folder();
        has_log(folder).map_err(|source| self.fault("look for the log of", folder, source))
    }
}

/// Writes a file under a temporary name, and gives it its own by `name`: the system's link or rename,
/// or in tests one whose answer is lost.
fn put(
    target: &Path,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
    name: impl FnOnce(&Path, &Path) -> io::Result<()>,
) -> io::Result<PutOutcome> {
    let folder = target.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let temporary = folder.join(format!("{TEMPORARY_PREFIX}{}", Uuid::new_v4()));
    let written = (|| {
        let mut file = File::create_new(&temporary)?;
        fill(&mut file)?;
        file.sync_all()?;
        leave_memory(&file);
        name(&temporary, target)
            .or_else(|error| if is_same_file(&temporary, target) { Ok(()) } else { Err(error) })
    })();
    // A temporary file that stays behind is unreferenced; vacuum may take it.
    std::fs::remove_file(&temporary).ok();
    match written {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(PutOutcome::Exists),
        Err(error) => Err(error),
        Ok(()) => {
            sync(folder)?;
            Ok(PutOutcome::Written)
        }
    }
}

/// Makes a file's content durable, or the names in a folder.
fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Gives back the memory that the system holds a large file in, for the next one to be written through:
/// pages that were used a moment ago cost a quarter of others. Files of this size come so fast that
/// memory would not hold them until someone asks; smaller ones stay.
fn leave_memory(file: &File) {
    #[cfg(target_os = "linux")]
    if file.metadata().is_ok_and(|metadata| LARGE_BYTES <= metadata.len()) {
        // Only a hint.
        rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).ok();
    }
}

/// True when both names are there, of one file.
fn is_same_file(one: &Path, other: &Path) -> bool {
    let identity = |path| std::fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()));
    matches!((identity(one), identity(other)), (Ok(one), Ok(other)) if one == other)
}

/// Makes `folder` unless it is there, durable in its parent, which must be there.
fn make_subfolder(folder: &Path) -> io::Result<()> {
    let parent = folder.parent().ok_or(io::ErrorKind::InvalidInput)?;
    match std::fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => sync(parent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(folder: &Path) -> LocalFiles {
        let files = LocalFiles::new(TableLocation::new(folder.join("a/b")));
        files.create().unwrap();
        files
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Scenario: the same name written twice, in a folder that does not exist yet.
    /// Guarantees: the first content stays, the second is told, nothing temporary remains.
    #[test]
    fn a_name_is_written_once() {
        let folder = tempfile::tempdir().unwrap();
        let files = table(folder.path());
        assert_eq!(files.put_if_absent("c/d.json", b"one").unwrap(), PutOutcome::Written);
        assert_eq!(files.put_if_absent("c/d.json", b"two").unwrap(), PutOutcome::Exists);
        assert_eq!(std::fs::read(files.full_path("c/d.json")).unwrap(), b"one");
        assert_eq!(names(&files.full_path("c")), ["d.json"]);
    }

    /// Scenario: `link` succeeds on the server and its answer is lost: sent again it finds the name
    /// taken, or it fails otherwise. Then the same with a name that another writer took.
    /// Guarantees: what was linked is known as written, what was not as lost or failed.
    #[test]
    fn a_lost_answer_is_looked_up() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for (name, kind) in
            [("taken", io::ErrorKind::AlreadyExists), ("odd", io::ErrorKind::TimedOut)]
        {
            let target = root.join(name);
            let lost = |from: &Path, to: &Path| {
                std::fs::hard_link(from, to)?;
                Err(kind.into())
            };
            assert_eq!(
                put(&target, |file| file.write_all(b"mine"), lost).unwrap(),
                PutOutcome::Written
            );
            assert_eq!(std::fs::read(&target).unwrap(), b"mine");
            let again = put(
                &target,
                |file| file.write_all(b"other"),
                |from, to| std::fs::hard_link(from, to).or(Err(kind.into())),
            );
            match kind {
                io::ErrorKind::AlreadyExists => assert_eq!(again.unwrap(), PutOutcome::Exists),
                _ => assert_eq!(again.unwrap_err().kind(), kind),
            }
            assert_eq!(std::fs::read(&target).unwrap(), b"mine");
        }
        assert_eq!(names(root).len(), 2);
    }

    /// Scenario: the name is taken by another writer, and the temporary file has a second link, as
    /// a backup that links files makes; then the name is free and the call fails all the same.
    /// Guarantees: a further link of the temporary file is not taken for the name.
    #[test]
    fn a_link_of_another_name_is_no_success() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let target = root.join("taken");
        std::fs::write(&target, b"theirs").unwrap();
        let elsewhere = |name: &'static str, kind: io::ErrorKind| {
            move |from: &Path, _: &Path| {
                std::fs::hard_link(from, from.with_file_name(name))?;
                Err(kind.into())
            }
        };
        let lost = put(
            &target,
            |file| file.write_all(b"mine"),
            elsewhere("one", io::ErrorKind::AlreadyExists),
        );
        assert_eq!(lost.unwrap(), PutOutcome::Exists);
        assert_eq!(std::fs::read(&target).unwrap(), b"theirs");
        let free = root.join("free");
        let failed =
            put(&free, |file| file.write_all(b"mine"), elsewhere("two", io::ErrorKind::TimedOut));
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(!free.try_exists().unwrap());
    }

    /// Scenario: many threads write the same names, each its own content.
    /// Guarantees: of each name one writer wins, and the content is that writer's.
    #[test]
    fn of_several_writers_one_wins() {
        let folder = tempfile::tempdir().unwrap();
        let files = table(folder.path());
        let wins: Vec<Vec<bool>> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..8)
                .map(|writer: u8| {
                    let files = files.clone();
                    scope.spawn(move || {
                        let put =
                            |name: usize| files.put_if_absent(&format!("log/{name}"), &[writer]);
                        (0..40).map(|name| put(name).unwrap() == PutOutcome::Written).collect()
                    })
                })
                .collect();
            writers.into_iter().map(|writer| writer.join().unwrap()).collect()
        });
        for name in 0..40 {
            let won = wins.iter().map(|wins| wins[name]);
            let winners: Vec<usize> =
                won.enumerate().filter(|(_, won)| *won).map(|w| w.0).collect();
            let content = std::fs::read(files.full_path(&format!("log/{name}"))).unwrap();
            assert_eq!(winners, [usize::from(content[0])]);
        }
        assert_eq!(names(&files.full_path("log")).len(), 40);
    }

    /// Scenario: a table's folder vanishes, as with a share that is no longer mounted.
    /// Guarantees: nothing is written, and nothing is created in its place.
    #[test]
    fn a_table_that_vanished_is_not_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let files = table(folder.path());
        files.put_if_absent("_delta_log/0.json", b"one").unwrap();
        std::fs::rename(folder.path().join("a"), folder.path().join("away")).unwrap();
        assert!(files.put_if_absent("_delta_log/1.json", b"two").is_err());
        assert!(files.put_if_absent("part.parquet", b"two").is_err());
        assert_eq!(names(folder.path()), ["away"]);
    }
}
