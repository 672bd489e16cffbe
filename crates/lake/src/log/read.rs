//! What commits say, line by line: for questions that no snapshot answers.

use std::io::{BufRead as _, BufReader};
use std::path::{Component, Path};

use delta_kernel::actions::deletion_vector::DeletionVectorDescriptor;
use parquet::file::reader::{ChunkReader as _, Length};
use serde::Deserialize;

use crate::error::LakeError;
use crate::layout::{decode_action_path, log_file};
use crate::table::{DeletionVector, Table, TableSnapshot};

/// Commits that are looked through for a transaction id that has expired.
const MAX_COMMITS: u64 = 200_000;

/// What of a line of a commit is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct VersionLine {
    pub(crate) add: Option<NamedFile>,
    pub(crate) remove: Option<NamedFile>,
    pub(crate) cdc: Option<NamedFile>,
    pub(crate) commit_info: Option<Writer>,
    pub(crate) txn: Option<LoggedTxn>,
}

/// A file that a commit names.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NamedFile {
    /// As the log has it: percent-encoded, relative to the table's folder or a URL.
    pub(crate) path: String,
    pub(crate) deletion_vector: Option<DeletionVector>,
}

/// Who wrote a commit.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Writer {
    pub(crate) engine_info: Option<String>,
}

/// A transaction id.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LoggedTxn {
    pub(crate) app_id: String,
    pub(crate) version: i64,
}

/// Visits the lines of the commit of a version until `visit` says false. Returns whether the commit
/// is there.
///
/// # Errors
/// [`LakeError::Storage`], or [`LakeError::Row`] for a line that is not understood.
pub(crate) fn version_lines(
    table: &Table,
    version: u64,
    visit: &mut dyn FnMut(VersionLine) -> Result<bool, LakeError>,
) -> Result<bool, LakeError> {
    let path = log_file(version);
    let file = match table.files.open(&path) {
        Err(LakeError::Storage { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(false);
        }
        file => file?,
    };
    let bytes = file.get_read(0).map_err(|source| LakeError::Parquet {
        action: "read",
        path: path.clone(),
        source,
    })?;
    for line in BufReader::new(bytes).lines() {
        let line = line.map_err(|source| LakeError::Storage {
            action: "read",
            path: format!("{}/{path}", table.name()),
            source,
        })?;
        if line.trim().is_empty() {
            continue;
        }
        let line = serde_json::from_str(&line).map_err(|error| LakeError::Row {
            path: table.name(),
            reason: format!("`{path}`: {error}"),
        })?;
        if !visit(line)? {
            break;
        }
    }
    Ok(true)
}

/// The path of a deletion vector's file, as a URL has it; `None` for one that is within the log.
pub(crate) fn vector_path(
    table: &Table,
    vector: &DeletionVector,
) -> Result<Option<String>, LakeError> {
    let fault = |source| table.kernel("find deletion vector", source);
    let descriptor = DeletionVectorDescriptor {
        storage_type: vector.storage_type.parse().map_err(fault)?,
        path_or_inline_dv: vector.path_or_inline_dv.clone(),
        offset: vector.offset,
        size_in_bytes: vector.size_in_bytes,
        cardinality: vector.cardinality,
    };
    let url = descriptor.absolute_path(table.url()).map_err(fault)?;
    Ok(url.map(|url| url.path().to_owned()))
}

/// The file of a deletion vector, relative to the table's folder; `None` for one that is within the log
/// or elsewhere.
pub(crate) fn vector_file(
    table: &Table,
    vector: &DeletionVector,
) -> Result<Option<String>, LakeError> {
    let folder = table.url().path();
    let path = vector_path(table, vector)?;
    let inside = path.as_deref().and_then(|path| path.strip_prefix(folder));
    Ok(inside.map(decode_action_path).and_then(|path| inside_table(&path)))
}

/// A path of an action below the table's folder; `None` for a URL or one that leads out.
pub(super) fn inside_table(path: &str) -> Option<String> {
    let is_inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    (is_inside && !path.contains("://")).then(|| path.to_owned())
}

/// The last epoch of `application` by the commits up to the snapshot's version that are still there,
/// whatever has expired.
pub(crate) fn epoch_in_commits(
    snapshot: &TableSnapshot,
    application: &str,
) -> Result<Option<i64>, LakeError> {
    let newest = snapshot.version();
    for version in (newest.saturating_sub(MAX_COMMITS)..=newest).rev() {
        let mut epoch = None;
        let is_there = version_lines(snapshot.table(), version, &mut |line| {
            if let Some(txn) = line.txn.filter(|txn| txn.app_id == application) {
                epoch = Some(txn.version);
            }
            Ok(true)
        })?;
        if epoch.is_some() || !is_there {
            return Ok(epoch);
        }
    }
    Ok(None)
}

/// A small file of the table; `None` when it is not there.
pub(super) fn whole(table: &Table, path: &str) -> Result<Option<Vec<u8>>, LakeError> {
    let file = match table.files.open(path) {
        Err(LakeError::Storage { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(None);
        }
        file => file?,
    };
    let length = usize::try_from(Length::len(&file)).unwrap_or(usize::MAX);
    let bytes = file.get_bytes(0, length).map_err(|source| LakeError::Parquet {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    Ok(Some(bytes.to_vec()))
}
