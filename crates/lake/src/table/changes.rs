//! The change data feed, read back: which rows a version took out or replaced, and who made it.
//!
//! A version that has change data tells by it. One that has none tells by the files that it removes,
//! if it says that it changes data: their live rows are gone, or replaced when a file that it adds
//! has the trace. Rows that a version adds are not told.

use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead as _, BufReader, ErrorKind};

use arrow::array::{Array as _, AsArray as _};
use arrow::datatypes::DataType;
use parquet::file::reader::ChunkReader as _;
use serde::Deserialize;
use tracelake_model::TraceId;

use super::TableSnapshot;
use super::files::{DeletionVector, LiveFile};
use crate::data_file::{read_rows, read_trace_ids};
use crate::error::LakeError;
use crate::layout::{decode_action_path, log_file};
use crate::rows::{TraceDraft, conform, rebuild_traces};

/// How the commits of this program begin to name who made them.
const OWN_ENGINE: &str = "tracelake";

/// Who made a version, as far as it says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangedVersion {
    /// Its number.
    pub version: u64,
    /// The ids of the applications whose transactions it has.
    pub applications: Vec<String>,
    /// Made by this program, though not of an epoch, such as a move of traces.
    pub is_upkeep: bool,
}

/// What a version did to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowChange {
    /// The row is gone.
    Deleted,
    /// Another one took its place.
    Replaced,
}

/// How far back changes were told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedReach {
    /// The first version of those that were told without a gap up to the newest one.
    pub from_version: u64,
    /// When that one was made, milliseconds since the Unix epoch, if it says.
    pub since_unix_milli: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Line {
    txn: Option<Transaction>,
    cdc: Option<ChangeFile>,
    remove: Option<Changed>,
    add: Option<Changed>,
    commit_info: Option<CommitInfo>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Transaction {
    app_id: String,
}

#[derive(Debug, Deserialize)]
struct ChangeFile {
    path: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Changed {
    path: String,
    #[serde(default)]
    data_change: bool,
    deletion_vector: Option<DeletionVector>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct CommitInfo {
    timestamp: Option<i64>,
    in_commit_timestamp: Option<i64>,
    engine_info: Option<String>,
}

/// What a version's log file says of changes.
#[derive(Debug, Default)]
struct Said {
    by: ChangedVersion,
    time: Option<i64>,
    change_files: Vec<String>,
    removed: Vec<Changed>,
    added: Vec<Changed>,
}

type Visit<'a> = dyn FnMut(&ChangedVersion, RowChange, TraceDraft) + 'a;

impl TableSnapshot {
    /// Goes back from this version, newest first, and tells of each row of a `wanted` trace that is
    /// deleted or replaced what it was before. Ends where the log ends, or a file that a version
    /// tells by is gone.
    ///
    /// # Errors
    /// [`LakeError`] when a file that is there cannot be read.
    pub fn for_each_change(
        &self,
        wanted: &dyn Fn(TraceId) -> bool,
        visit: &mut Visit<'_>,
    ) -> Result<FeedReach, LakeError> {
        let mut reach =
            FeedReach { from_version: self.version().saturating_add(1), since_unix_milli: None };
        while let Some(version) = reach.from_version.checked_sub(1) {
            let Some(said) = there(self.said(version))? else { break };
            let mut rows = Vec::new();
            let mut take = |change, row| rows.push((change, row));
            if there(self.changes_of(&said, wanted, &mut take))?.is_none() {
                break;
            }
            rows.into_iter().for_each(|(change, row)| visit(&said.by, change, row));
            reach = FeedReach { from_version: version, since_unix_milli: said.time };
        }
        Ok(reach)
    }

    fn said(&self, version: u64) -> Result<Said, LakeError> {
        let path = log_file(version);
        let fault = |source| LakeError::Storage { action: "read", path: path.clone(), source };
        let opened = self.table().files.open(&path)?;
        let reader = opened.get_read(0).map_err(|error| fault(std::io::Error::other(error)))?;
        let mut said = Said::default();
        said.by.version = version;
        for line in BufReader::new(reader).lines() {
            let line: Line = serde_json::from_str(&line.map_err(fault)?)
                .map_err(|error| fault(std::io::Error::new(ErrorKind::InvalidData, error)))?;
            said.by.applications.extend(line.txn.map(|transaction| transaction.app_id));
            said.change_files.extend(line.cdc.map(|file| decode_action_path(&file.path)));
            said.removed.extend(line.remove.filter(|removed| removed.data_change));
            said.added.extend(line.add.filter(|added| added.data_change));
            if let Some(info) = line.commit_info {
                said.time = info.in_commit_timestamp.or(info.timestamp);
                let engine = info.engine_info.unwrap_or_default();
                said.by.is_upkeep = engine.to_ascii_lowercase().starts_with(OWN_ENGINE);
            }
        }
        said.by.is_upkeep &= said.by.applications.is_empty();
        Ok(said)
    }

    fn changes_of(
        &self,
        said: &Said,
        wanted: &dyn Fn(TraceId) -> bool,
        take: &mut dyn FnMut(RowChange, TraceDraft),
    ) -> Result<(), LakeError> {
        for path in &said.change_files {
            self.change_file(path, wanted, take)?;
        }
        if !said.change_files.is_empty() || said.removed.is_empty() {
            return Ok(());
        }
        let mut stays = HashSet::new();
        for added in &said.added {
            let path = decode_action_path(&added.path);
            let opened = self.table().files.open(&path)?;
            read_trace_ids(opened, |_, text| stays.extend(TraceId::parse(text)))
                .map_err(|source| LakeError::Parquet { action: "read", path, source })?;
        }
        for removed in &said.removed {
            let is_wanted = |trace: Option<TraceId>, _: bool| trace.is_some_and(wanted);
            self.for_each_row(&removed.file(), &is_wanted, &mut |row| {
                if let Ok(row) = row {
                    let stays = stays.contains(&row.trace_id);
                    take(if stays { RowChange::Replaced } else { RowChange::Deleted }, row);
                }
            })?;
        }
        Ok(())
    }

    fn change_file(
        &self,
        path: &str,
        wanted: &dyn Fn(TraceId) -> bool,
        take: &mut dyn FnMut(RowChange, TraceDraft),
    ) -> Result<(), LakeError> {
        let schema = self.schema()?;
        let parquet = |source| LakeError::Parquet { action: "read", path: path.to_owned(), source };
        let arrow = |source| LakeError::Arrow { action: "read changes", source };
        let mut rows = Vec::new();
        read_trace_ids(self.table().files.open(path)?, |row, text| {
            if TraceId::parse(text).is_some_and(wanted) {
                rows.push(row);
            }
        })
        .map_err(parquet)?;
        if rows.is_empty() {
            return Ok(());
        }
        for batch in read_rows(self.table().files.open(path)?, &rows).map_err(parquet)? {
            let batch = batch.map_err(parquet)?;
            let Some(kinds) = batch.column_by_name("_change_type") else { continue };
            let kinds = arrow::compute::cast(kinds, &DataType::Utf8).map_err(arrow)?;
            let kinds = kinds.as_string::<i32>();
            let conformed = conform(&batch, &schema).map_err(arrow)?;
            for row in 0..conformed.num_rows() {
                let change = match kinds.is_valid(row).then(|| kinds.value(row)) {
                    Some("delete") => RowChange::Deleted,
                    Some("update_preimage") => RowChange::Replaced,
                    _ => continue,
                };
                let traces = rebuild_traces(&conformed.slice(row, 1));
                traces.into_iter().flatten().for_each(|trace| take(change, trace));
            }
        }
        Ok(())
    }
}

impl Changed {
    /// The file, as far as reading its rows needs it.
    fn file(&self) -> LiveFile {
        LiveFile {
            action_path: self.path.clone(),
            path: decode_action_path(&self.path),
            size_bytes: 0,
            modification_time: 0,
            stats: None,
            record_count: None,
            deletion_vector: self.deletion_vector.clone(),
            tags: BTreeMap::new(),
            clustering_provider: None,
        }
    }
}

/// `None` when a file is not there.
fn there<T>(read: Result<T, LakeError>) -> Result<Option<T>, LakeError> {
    match read {
        Err(LakeError::Storage { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}
