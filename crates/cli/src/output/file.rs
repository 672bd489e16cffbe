//! A file that is written whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// A file in the making, beside the one that it will replace. Dropped without
/// [`Replacement::commit`] it vanishes, and what was there before stays.
#[derive(Debug)]
pub(crate) struct Replacement {
    target: PathBuf,
    /// None for devices and pipes, which can only be written to as they are.
    temporary: Option<PathBuf>,
    out: BufWriter<File>,
}

impl Replacement {
    /// Begins to replace `path`, or to make it. A link is followed.
    ///
    /// # Errors
    /// When no file can be made in its folder, or it is a folder itself.
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        let subject = || format!("write `{}`", path.display());
        let target = match path.canonicalize() {
            Ok(target) => target,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => path.to_owned(),
            Err(error) => return Err(error).with_context(subject),
        };
        let existing = target.metadata().ok();
        anyhow::ensure!(
            !existing.as_ref().is_some_and(std::fs::Metadata::is_dir),
            "`{}` is a folder\nhint: name a file in it",
            path.display()
        );
        if existing.as_ref().is_some_and(|metadata| !metadata.is_file()) {
            let device = OpenOptions::new().write(true).open(&target).with_context(subject)?;
            return Ok(Self { target, temporary: None, out: BufWriter::new(device) });
        }
        let name =
            target.file_name().with_context(|| format!("`{}` names no file", path.display()))?;
        let mut temporary_name = std::ffi::OsString::from(".");
        temporary_name.push(name);
        temporary_name.push(format!(".{}.tmp", uuid::Uuid::new_v4().simple()));
        let temporary = target.with_file_name(temporary_name);
        let file = File::create_new(&temporary).with_context(subject)?;
        let made = Self { target, temporary: Some(temporary), out: BufWriter::new(file) };
        if let Some(metadata) = existing {
            made.out.get_ref().set_permissions(metadata.permissions()).with_context(subject)?;
        }
        Ok(made)
    }

    /// Puts the file in its place, with all that was written on disk.
    ///
    /// # Errors
    /// When the rest cannot be written, synced or put in place; then nothing is changed.
    pub(crate) fn commit(mut self) -> anyhow::Result<()> {
        let target = self.target.clone();
        let subject = || format!("write `{}`", target.display());
        self.out.flush().with_context(subject)?;
        if let Some(temporary) = self.temporary.clone() {
            self.out.get_ref().sync_all().with_context(subject)?;
            std::fs::rename(&temporary, &self.target).with_context(subject)?;
            self.temporary = None;
        }
        Ok(())
    }
}

impl Write for Replacement {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // Nobody is left to tell; the name says what it is.
            std::fs::remove_file(temporary).ok();
        }
    }
}

/// Refuses a file whose folder is not there, before the work that would fill it.
pub(super) fn check_folder(path: &Path) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    anyhow::ensure!(
        folder.is_dir(),
        "no folder `{}` to write `{}` into\nhint: create it, or name another with --output",
        folder.display(),
        path.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Scenario: a file given up half-way, then one written to its end, over one that is there.
    /// Guarantees: until the commit the old content stands; afterwards the whole new one; no
    /// temporary file is left.
    #[test]
    fn a_file_is_replaced_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.csv");
        std::fs::write(&path, "old").unwrap();
        let mut given_up = Replacement::create(&path).unwrap();
        given_up.write_all(&[b'x'; 100_000]).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        drop(given_up);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        let mut whole = Replacement::create(&path).unwrap();
        whole.write_all(b"new").unwrap();
        whole.commit().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(names(folder.path()), ["out.csv"]);
    }

    /// Scenario: a link to a file, a folder, a device, a folder that is not there.
    /// Guarantees: the link stays and its file is replaced; folders are refused by name; a device
    /// is written to.
    #[cfg(unix)]
    #[test]
    fn links_folders_and_devices() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        std::fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let mut out = Replacement::create(&link).unwrap();
        out.write_all(b"new").unwrap();
        out.commit().unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "new");
        assert!(link.symlink_metadata().unwrap().is_symlink());

        let error = Replacement::create(folder.path()).unwrap_err();
        assert!(error.to_string().contains("is a folder"), "{error}");
        let mut device = Replacement::create(Path::new("/dev/null")).unwrap();
        device.write_all(b"gone").unwrap();
        device.commit().unwrap();
        let error = check_folder(&folder.path().join("no/file")).unwrap_err();
        assert!(error.to_string().contains("hint: "), "{error}");
        check_folder(Path::new("file-in-this-folder")).unwrap();
    }
}
