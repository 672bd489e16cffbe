//! Checkpoints: the state of a version as one file, and the file that names the newest one.
//!
//! The file is durable under its name before `_last_checkpoint` names it, and that is put in its place
//! whole. So no power cut leaves a name of something that cannot be read.

use std::io::{self, Write};
use std::sync::Arc;

use delta_kernel::engine::arrow_data::ArrowEngineData;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::damage::look;
use crate::error::LakeError;
use crate::layout::{LAST_CHECKPOINT, checkpoint_name, in_log};
use crate::storage::PutOutcome;
use crate::table::{Table, TableSnapshot};

/// Versions between checkpoints, unless the table says.
pub(crate) const CHECKPOINT_INTERVAL: u64 = 50;

/// The property by which a table says.
const INTERVAL_PROPERTY: &str = "delta.checkpointInterval";

/// How the name of a writer begins that is a tracelake.
const OUR_NAME: &str = "tracelake/";

/// What `_last_checkpoint` says, as far as it must.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LastCheckpoint {
    pub(super) version: u64,
    /// Actions in it.
    pub(super) size: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) size_in_bytes: Option<i64>,
}

/// Whether the writer of a commit, by the name that it gave, is a tracelake.
pub(super) fn is_ours(engine: &str) -> bool {
    engine.starts_with(OUR_NAME)
}

/// Writes the checkpoint of a version that was just committed when it is the turn of that. Without it
/// the log alone is enough; the next interval tries again.
pub(crate) fn checkpoint_if_due(snapshot: &TableSnapshot) {
    let asked = snapshot.property(INTERVAL_PROPERTY).and_then(|text| text.parse().ok());
    let interval = asked.filter(|interval| 0 < *interval);
    let interval = interval.unwrap_or_else(|| snapshot.table().lake().checkpoint_every());
    if snapshot.version().is_multiple_of(interval)
        && let Err(error) = checkpoint(snapshot)
    {
        let (table, version) = (snapshot.table().name(), snapshot.version());
        warn!(table, version, %error, "checkpoint not written");
    }
}

/// Writes the checkpoint of a version, durably, and then the name of it.
pub(crate) fn checkpoint(snapshot: &TableSnapshot) -> Result<(), LakeError> {
    let table = snapshot.table();
    let version = snapshot.version();
    let path = in_log(&checkpoint_name(version));
    let mut written = Written::default();
    let mut fill = |out: &mut (dyn Write + Send)| {
        written = encode(snapshot, out).map_err(io::Error::other)?;
        Ok(())
    };
    if table.files.put_stream(&path, &mut fill)? == PutOutcome::Exists {
        // Another writer's, which need not be durable, nor whole.
        match look(table, &path)? {
            Ok(found) => {
                table.files.sync_files(std::slice::from_ref(&path))?;
                written = found;
            }
            Err(reason) => {
                warn!(table = table.name(), version, reason, "damaged checkpoint is replaced");
                table.files.replace(&path, &mut fill)?;
            }
        }
    }
    table.durable_logs().note_checkpoint(table.url(), version);
    name_checkpoint(table, version, written)
}

/// Rows and bytes of a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

fn encode(
    snapshot: &TableSnapshot,
    out: &mut (dyn Write + Send),
) -> Result<Written, Box<dyn std::error::Error + Send + Sync>> {
    let engine = snapshot.table().engine();
    let writer = Arc::clone(&snapshot.snapshot).create_checkpoint_writer(engine)?;
    let mut file = None;
    let mut rows = 0;
    let mut out = Some(out);
    for data in writer.checkpoint_data(engine)? {
        let data = data?.apply_selection_vector()?;
        let batch = ArrowEngineData::try_from_engine_data(data)?;
        let batch = batch.record_batch();
        if let Some(out) = out.take() {
            let properties =
                WriterProperties::builder().set_compression(Compression::SNAPPY).build();
            let options = ArrowWriterOptions::new()
                .with_properties(properties)
                .with_skip_arrow_metadata(true);
            file = Some(ArrowWriter::try_new_with_options(out, batch.schema(), options)?);
        }
        rows += batch.num_rows() as u64;
        file.as_mut().map_or(Ok(()), |file| file.write(batch))?;
    }
    let mut file = file.ok_or("a version without actions")?;
    file.finish()?;
    Ok(Written { rows, bytes: file.bytes_written() as u64 })
}

/// Says which checkpoint to begin with, unless a newer one that is there is named.
fn name_checkpoint(table: &Table, version: u64, written: Written) -> Result<(), LakeError> {
    if let Named::Checkpoint(known) = named(table)?
        && version < known
        && look(table, &in_log(&checkpoint_name(known)))?.is_ok()
    {
        return Ok(());
    }
    let hint = LastCheckpoint {
        version,
        size: i64::try_from(written.rows).unwrap_or(i64::MAX),
        size_in_bytes: i64::try_from(written.bytes).ok(),
    };
    let text = serde_json::to_vec(&hint)
        .map_err(|error| LakeError::Row { path: table.name(), reason: error.to_string() })?;
    table.files.replace(&in_log(LAST_CHECKPOINT), &mut |out| out.write_all(&text))
}

/// What `_last_checkpoint` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// There is no such file.
    Nothing,
    /// It cannot be read.
    Garbage,
    /// The checkpoint of this version.
    Checkpoint(u64),
}

pub(super) fn named(table: &Table) -> Result<Named, LakeError> {
    /// Leaves the rest to other readers.
    #[derive(Deserialize)]
    struct Version {
        version: u64,
    }
    let Some(bytes) = super::read::whole(table, &in_log(LAST_CHECKPOINT))? else {
        return Ok(Named::Nothing);
    };
    let hint = serde_json::from_slice::<Version>(&bytes);
    Ok(hint.map_or(Named::Garbage, |hint| Named::Checkpoint(hint.version)))
}
