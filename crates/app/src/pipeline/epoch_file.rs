//! The last epoch that every table has: what the journal may forget.

use std::fs::File;
use std::io::{self, Write};

use anyhow::Context as _;
use tracelake_journal::SegmentNumber;
use tracelake_lake::DataFolder;

/// Notes `epoch` as done; durable when this returns.
pub(super) fn write_epoch(folder: &DataFolder, epoch: SegmentNumber) -> anyhow::Result<()> {
    let path = folder.epoch_file();
    let temporary = path.with_extension("tmp");
    (|| -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        writeln!(file, "{}", epoch.get())?;
        file.sync_all()?;
        std::fs::rename(&temporary, &path)?;
        File::open(folder.root())?.sync_all()
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
