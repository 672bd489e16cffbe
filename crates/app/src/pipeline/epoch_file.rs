//! The last epoch that is done, which the journal may forget, and the journal's own id.

use std::io::{self, IoSlice, Read as _};
use std::path::Path;

use anyhow::Context as _;
use tracelake_journal::{JournalFs, SegmentNumber};
use tracelake_lake::DataFolder;
use uuid::Uuid;

/// Notes `epoch` as done; durable when this returns.
pub(super) fn write_epoch(
    fs: &dyn JournalFs,
    folder: &DataFolder,
    epoch: SegmentNumber,
) -> anyhow::Result<()> {
    write_durably(fs, &folder.epoch_file(), &epoch.get().to_string())
}

/// The id of the journal in `folder`, made when it has none.
pub(crate) fn journal_id(fs: &dyn JournalFs, folder: &DataFolder) -> anyhow::Result<Uuid> {
    let path = folder.journal_id_file();
    match read(fs, &path)? {
        None => {
            let id = Uuid::new_v4();
            write_durably(fs, &path, &id.to_string())?;
            Ok(id)
        }
        Some(text) => text.trim().parse().with_context(|| format!("read `{}`", path.display())),
    }
}

/// The last epoch noted, `None` when there never was one.
pub(super) fn read_epoch(
    fs: &dyn JournalFs,
    folder: &DataFolder,
) -> anyhow::Result<Option<SegmentNumber>> {
    let path = folder.epoch_file();
    let Some(text) = read(fs, &path)? else { return Ok(None) };
    let number: u64 = text.trim().parse().with_context(|| {
        format!("read `{}`: not a number\nhint: restore it from a backup", path.display())
    })?;
    Ok(Some(SegmentNumber::new(number)))
}

/// Writes a line whole or not at all; durable when this returns.
pub(super) fn write_durably(fs: &dyn JournalFs, path: &Path, line: &str) -> anyhow::Result<()> {
    let temporary = path.with_extension("new");
    (|| -> io::Result<()> {
        // What a crash left of an earlier attempt.
        remove(fs, &temporary)?;
        write_file(fs, &temporary, format!("{line}\n").as_bytes())?;
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
pub(super) fn write_file(fs: &dyn JournalFs, path: &Path, bytes: &[u8]) -> io::Result<()> {
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
fn read(fs: &dyn JournalFs, path: &Path) -> anyhow::Result<Option<String>> {
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
