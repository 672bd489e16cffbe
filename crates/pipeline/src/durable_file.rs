//! Small files that are written whole or not at all.

use std::io::{self, IoSlice, Read as _};
use std::path::Path;

use anyhow::Context as _;
use tracelake_journal::JournalFs;

/// Writes text whole or not at all; durable when this returns.
pub(crate) fn write_durably(fs: &dyn JournalFs, path: &Path, text: &str) -> anyhow::Result<()> {
    let temporary = path.with_extension("new");
    (|| -> io::Result<()> {
        // What a crash left of an earlier attempt.
        remove(fs, &temporary)?;
        write_file(fs, &temporary, format!("{text}\n").as_bytes())?;
        fs.rename(&temporary, path)?;
        fs.sync_dir(path.parent().ok_or(io::ErrorKind::InvalidInput)?)
    })()
    .with_context(|| format!("write `{}`", path.display()))
}

fn remove(fs: &dyn JournalFs, path: &Path) -> io::Result<()> {
    match fs.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Creates a file of these bytes, which are durable when this returns; its name is not yet.
pub(crate) fn write_file(fs: &dyn JournalFs, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs.create(path)?;
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = file.write_vectored(&[IoSlice::new(rest)])?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        rest = rest.get(written..).unwrap_or_default();
    }
    file.sync_data()
}

/// The text of a file, `None` when there is no such file.
pub(crate) fn read_if_there(fs: &dyn JournalFs, path: &Path) -> anyhow::Result<Option<String>> {
    let mut text = String::new();
    let read = fs.open_read(path).and_then(|mut file| file.read_to_string(&mut text));
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => {
            read.with_context(|| format!("read `{}`", path.display()))?;
            Ok(Some(text))
        }
    }
}
