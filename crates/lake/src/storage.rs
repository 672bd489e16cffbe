//! Writing the files of a table so that they survive a power cut.
//!
//! A file exists under its name only when all its bytes are on disk: it is written under a
//! temporary name, synced, linked to its name (which fails if the name is taken: put-if-absent),
//! and its folder is synced. What a crash leaves behind before the link is an unreferenced file.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::error::LakeError;

/// Whether a file was written or its name was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PutOutcome {
    /// The file is durable under its name.
    Written,
    /// A file of that name was there; it was not touched.
    Exists,
}

/// The files below one folder.
#[derive(Clone, Debug)]
pub(crate) struct LocalFiles {
    root: PathBuf,
}

impl LocalFiles {
    pub(crate) const fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The file system's path of `path`, which is relative to the root.
    pub(crate) fn full_path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Writes `bytes` to `path` unless it exists; durable when this returns.
    pub(crate) fn put_if_absent(&self, path: &str, bytes: &[u8]) -> Result<PutOutcome, LakeError> {
        let target = self.full_path(path);
        put(&target, bytes).map_err(|source| LakeError::Storage {
            action: "write",
            path: target.display().to_string(),
            source,
        })
    }

    pub(crate) fn open(&self, path: &str) -> Result<File, LakeError> {
        let target = self.full_path(path);
        File::open(&target).map_err(|source| LakeError::Storage {
            action: "open",
            path: target.display().to_string(),
            source,
        })
    }
}

fn put(target: &Path, bytes: &[u8]) -> io::Result<PutOutcome> {
    let folder = target.parent().ok_or(io::ErrorKind::InvalidInput)?;
    create_folder(folder)?;
    let temporary = folder.join(format!(".tmp-{}", Uuid::new_v4()));
    let written = (|| {
        let mut file = File::create_new(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::hard_link(&temporary, target)
    })();
    // A temporary file that stays behind is unreferenced; vacuum may take it.
    let removed = std::fs::remove_file(&temporary);
    match written {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(PutOutcome::Exists),
        Err(error) => Err(error),
        Ok(()) => {
            removed?;
            File::open(folder)?.sync_all()?;
            Ok(PutOutcome::Written)
        }
    }
}

/// Creates `folder` and its missing parents, each durable in its own parent.
fn create_folder(folder: &Path) -> io::Result<()> {
    if folder.try_exists()? {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        create_folder(parent)?;
        match std::fs::create_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => File::open(parent)?.sync_all()?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: the same name written twice, in a folder that does not exist yet.
    /// Guarantees: the first content stays, the second is told, nothing temporary remains.
    #[test]
    fn a_name_is_written_once() {
        let folder = tempfile::tempdir().unwrap();
        let files = LocalFiles::new(folder.path().join("a/b"));
        assert_eq!(files.put_if_absent("c/d.json", b"one").unwrap(), PutOutcome::Written);
        assert_eq!(files.put_if_absent("c/d.json", b"two").unwrap(), PutOutcome::Exists);
        assert_eq!(std::fs::read(files.full_path("c/d.json")).unwrap(), b"one");
        assert_eq!(std::fs::read_dir(folder.path().join("a/b/c")).unwrap().count(), 1);
    }
}
