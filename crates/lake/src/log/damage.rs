//! Checkpoints that cannot be read, as a power cut leaves those that were not synced.
//!
//! They are passed over where the log before them is there, which says the same. A writer moves them
//! aside at its first sight of the table and writes one anew, so that other engines read the table
//! again. Where the log before one is gone nothing is touched: it may be all that there is.

use std::collections::BTreeMap;

use object_store::path::Path as ObjectPath;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use parquet::file::reader::Length;
use tracing::{info, warn};

use super::checkpoint::{Named, Written, checkpoint, named};
use super::read::whole;
use crate::error::LakeError;
use crate::layout::{
    DAMAGED_PREFIX, LAST_CHECKPOINT, LOG_FOLDER, LogName, checkpoint_name, in_log, log_name,
};
use crate::table::{Table, TableSnapshot};

/// A checkpoint that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedCheckpoint {
    /// Name of its file in the log.
    pub name: String,
    /// What is wrong with it.
    pub reason: String,
    /// True when the log before it is there, so that nothing is missing without it.
    pub is_replaceable: bool,
}

/// Reads a file of a checkpoint from end to end: its rows and bytes, or what is wrong with it.
pub(super) fn look(table: &Table, path: &str) -> Result<Result<Written, String>, LakeError> {
    if path.ends_with(".json") {
        let Some(text) = whole(table, path)? else { return Ok(Err("missing".to_owned())) };
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let read = lines.map(serde_json::from_slice::<serde::de::IgnoredAny>);
        let count = read.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string());
        let bytes = text.len() as u64;
        return Ok(count.map(|lines| Written { rows: lines.len() as u64, bytes }));
    }
    let file = match table.files.open(path) {
        Err(LakeError::Storage { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Err("missing".to_owned()));
        }
        file => file?,
    };
    let bytes = Length::len(&file);
    // One that stands alone must say what the table is; a part of one need not.
    let is_alone = path.ends_with(".checkpoint.parquet");
    let read = || -> Result<(u64, bool, bool), ParquetError> {
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)?;
        let (mut rows, mut protocol, mut metadata) = (0, false, false);
        for batch in builder.build()? {
            let batch = batch?;
            let has = |name| {
                let column = batch.column_by_name(name);
                column.is_some_and(|column| column.null_count() < column.len())
            };
            rows += batch.num_rows() as u64;
            protocol |= has("protocol");
            metadata |= has("metaData");
        }
        Ok((rows, protocol, metadata))
    };
    Ok(match read() {
        Err(error) => Err(format!("{error} ({bytes} bytes)")),
        Ok((_, protocol, metadata)) if is_alone && !(protocol && metadata) => {
            Err("it does not say what the table is".to_owned())
        }
        Ok((rows, ..)) => Ok(Written { rows, bytes }),
    })
}

/// What a look through a log finds.
#[derive(Debug, Default)]
struct Look {
    damaged: Vec<DamagedCheckpoint>,
    /// `_last_checkpoint` is no use to readers.
    is_misnamed: bool,
    /// The log is there from its beginning, or from a checkpoint that can be read, to the last one
    /// that is damaged or named.
    is_whole: bool,
}

/// Looks at the newest checkpoints, down to one that can be read, and at the name of the last one.
fn look_through(table: &Table) -> Result<Look, LakeError> {
    let mut checkpoints: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    table.files.list_log(&mut |name| {
        if let Some(LogName::Checkpoint(version)) = log_name(name) {
            checkpoints.entry(version).or_default().push(name.to_owned());
        }
    })?;
    let mut look = Look { is_whole: true, ..Look::default() };
    let (mut base, mut wanted) = (None, None);
    for (version, names) in checkpoints.iter().rev() {
        let before = look.damaged.len();
        for name in names {
            if let Err(reason) = self::look(table, &in_log(name))? {
                let name = name.clone();
                look.damaged.push(DamagedCheckpoint { name, reason, is_replaceable: false });
            }
        }
        if look.damaged.len() == before {
            base = Some(*version);
            break;
        }
        wanted = wanted.max(Some(*version));
    }
    match named(table)? {
        Named::Nothing => {}
        Named::Garbage => look.is_misnamed = true,
        Named::Checkpoint(version) => {
            let is_damaged = look.damaged.iter().any(|one| one.name == checkpoint_name(version));
            if is_damaged || !checkpoints.contains_key(&version) {
                look.is_misnamed = true;
                wanted = wanted.max(Some(version)).filter(|wanted| base < Some(*wanted));
            }
        }
    }
    if let Some(wanted) = wanted {
        let mut commits = 0;
        table.files.list_log(&mut |name| {
            if let Some(LogName::Commit(version)) = log_name(name) {
                commits += u64::from(base < Some(version) && version <= wanted);
            }
        })?;
        look.is_whole = commits == base.map_or(wanted + 1, |base| wanted - base);
    }
    for one in &mut look.damaged {
        one.is_replaceable = look.is_whole;
    }
    Ok(look)
}

impl Table {
    /// The newest checkpoints that cannot be read; none older than one that can.
    ///
    /// # Errors
    /// [`LakeError::Storage`] when the log cannot be looked at.
    pub fn damaged_checkpoints(&self) -> Result<Vec<DamagedCheckpoint>, LakeError> {
        Ok(look_through(self)?.damaged)
    }

    /// Does a read of the log; when that fails for a checkpoint, once more without it.
    pub(crate) fn passing_over<T>(
        &self,
        read: impl Fn() -> Result<T, LakeError>,
    ) -> Result<T, LakeError> {
        match read() {
            Err(LakeError::Kernel { .. }) => {
                // Another thread may have hidden or mended it since.
                hide_damage(self)?;
                read()
            }
            read => read,
        }
    }

    fn log_in_store(&self) -> Option<ObjectPath> {
        Some(self.store_path()?.join(LOG_FOLDER))
    }
}

/// Hides what is damaged from readers. Returns true when there was something to hide.
fn hide_damage(table: &Table) -> Result<bool, LakeError> {
    let Some(log) = table.log_in_store() else { return Ok(false) };
    let look = look_through(table)?;
    let is_damaged = look.is_misnamed || !look.damaged.is_empty();
    if is_damaged && !look.is_whole {
        let named = look.damaged.first().map_or(LAST_CHECKPOINT, |damaged| &damaged.name);
        return Err(LakeError::DamagedCheckpoint {
            table: table.name(),
            checkpoint: named.to_owned(),
        });
    }
    let mut is_hidden = false;
    for DamagedCheckpoint { name, reason, .. } in &look.damaged {
        if table.pass_over().hide(log.clone().join(name.as_str())) {
            warn!(table = table.name(), name, reason, "damaged checkpoint passed over");
            is_hidden = true;
        }
    }
    if is_damaged {
        // It names what is hidden, or nothing.
        is_hidden |= table.pass_over().hide(log.join(LAST_CHECKPOINT));
    }
    Ok(is_hidden)
}

/// Moves aside what is damaged and writes a checkpoint of the snapshot in its place, when there is
/// need. Returns the snapshot to go on with. What cannot be mended now is passed over by this process.
pub(super) fn mend(snapshot: TableSnapshot) -> Result<TableSnapshot, LakeError> {
    let table = snapshot.table().clone();
    let Some(log) = table.log_in_store() else { return Ok(snapshot) };
    let mut snapshot = snapshot;
    if !table.pass_over().hides_any_of(&log) {
        let mut is_damaged = false;
        for path in snapshot.checkpoint_files() {
            is_damaged |= look(&table, &path)?.is_err();
        }
        // A name of nothing the kernel has refused.
        if !is_damaged && named(&table)? != Named::Garbage {
            return Ok(snapshot);
        }
        if hide_damage(&table)? {
            snapshot = table.snapshot(None)?;
        }
    }
    match replace_damaged(&snapshot) {
        Ok(()) => {
            table.pass_over().show_all_of(&log);
            info!(table = table.name(), version = snapshot.version(), "checkpoint written anew");
            table.snapshot(None)
        }
        Err(error) => {
            warn!(table = table.name(), %error, "damaged checkpoint not replaced");
            Ok(snapshot)
        }
    }
}

fn replace_damaged(snapshot: &TableSnapshot) -> Result<(), LakeError> {
    let table = snapshot.table();
    for DamagedCheckpoint { name, .. } in look_through(table)?.damaged {
        let aside = in_log(&format!("{DAMAGED_PREFIX}{name}"));
        match table.files.rename(&in_log(&name), &aside) {
            // Another writer did it.
            Err(LakeError::Storage { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound => {}
            renamed => renamed?,
        }
    }
    checkpoint(snapshot)
}
