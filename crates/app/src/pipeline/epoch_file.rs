//! The last epoch that is done, which the journal may forget, and the journal's own id.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context as _;
use tracelake_journal::SegmentNumber;
use tracelake_lake::DataFolder;
use uuid::Uuid;

/// Notes `epoch` as done; durable when this returns.
pub(super) fn write_epoch(folder: &DataFolder, epoch: SegmentNumber) -> anyhow::Result<()> {
    write_durably(&folder.epoch_file(), &epoch.get().to_string())
}

/// The id of the journal in `folder`, made when it has none.
pub(crate) fn journal_id(folder: &DataFolder) -> anyhow::Result<Uuid> {
    let path = folder.journal_id_file();
    match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let id = Uuid::new_v4();
            write_durably(&path, &id.to_string())?;
            Ok(id)
        }
        read => {
            let text = read.with_context(|| format!("read `{}`", path.display()))?;
            text.trim().parse().with_context(|| format!("read `{}`", path.display()))
        }
    }
}

/// Writes a line whole or not at all; durable when this returns.
pub(super) fn write_durably(path: &Path, line: &str) -> anyhow::Result<()> {
    let temporary = path.with_extension("new");
    (|| -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        writeln!(file, "{line}")?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        File::open(path.parent().ok_or(io::ErrorKind::InvalidInput)?)?.sync_all()
    })()
    .with_context(|| format!("write `{}`", path.display()))
}

/// The last epoch noted, `None` when there never was one.
pub(crate) fn read_epoch(folder: &DataFolder) -> anyhow::Result<Option<SegmentNumber>> {
    let path = folder.epoch_file();
    match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => {
            let text = read.with_context(|| format!("read `{}`", path.display()))?;
            let number: u64 = text.trim().parse().with_context(|| {
                format!("read `{}`: not a number\nhint: restore it from a backup", path.display())
            })?;
            Ok(Some(SegmentNumber::new(number)))
        }
    }
}
