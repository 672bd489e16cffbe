//! The lines of a Delta log: what a commit says, as JSON.
//!
//! Source: Delta transaction log protocol, "Actions"
//! <https://github.com/delta-io/delta/blob/master/PROTOCOL.md#actions>.

use std::collections::BTreeMap;

use serde::Serialize;
use uuid::Uuid;

use crate::table::DeletionVector;

/// One line of a commit.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Action {
    CommitInfo(CommitInfo),
    Protocol(ProtocolAction),
    MetaData(MetaData),
    DomainMetadata(DomainMetadata),
    Txn(Txn),
    Add(Add),
    Remove(Remove),
    Cdc(Cdc),
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CommitInfo {
    /// Milliseconds since the Unix epoch.
    pub timestamp: i64,
    pub operation: &'static str,
    pub operation_parameters: BTreeMap<String, String>,
    pub operation_metrics: BTreeMap<String, String>,
    pub is_blind_append: bool,
    pub engine_info: &'static str,
    pub txn_id: String,
}

impl CommitInfo {
    /// What a version says of itself, without parameters and metrics. `timestamp` is in milliseconds since the
    /// Unix epoch.
    pub(crate) fn new(operation: &'static str, is_blind_append: bool, timestamp: i64) -> Self {
        Self {
            timestamp,
            operation,
            operation_parameters: BTreeMap::new(),
            operation_metrics: BTreeMap::new(),
            is_blind_append,
            engine_info: ENGINE_INFO,
            txn_id: Uuid::new_v4().to_string(),
        }
    }
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProtocolAction {
    pub min_reader_version: i32,
    pub min_writer_version: i32,
    pub reader_features: Vec<String>,
    pub writer_features: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MetaData {
    pub id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    pub format: Format,
    pub schema_string: String,
    pub partition_columns: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_time: Option<i64>,
    pub configuration: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Format {
    pub provider: &'static str,
    pub options: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct DomainMetadata {
    pub domain: String,
    pub configuration: String,
    pub removed: bool,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Txn {
    pub app_id: String,
    pub version: i64,
    pub last_updated: i64,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Add {
    pub path: String,
    pub partition_values: BTreeMap<String, String>,
    pub size: u64,
    pub modification_time: i64,
    pub data_change: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stats: Option<String>,
    /// What writers noted of the file.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_vector: Option<DeletionVector>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clustering_provider: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Remove {
    pub path: String,
    pub deletion_timestamp: i64,
    pub data_change: bool,
    pub extended_file_metadata: bool,
    pub partition_values: BTreeMap<String, String>,
    pub size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_vector: Option<DeletionVector>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Cdc {
    pub path: String,
    pub partition_values: BTreeMap<String, String>,
    pub size: u64,
    pub data_change: bool,
}

/// The commit's bytes: one action a line.
pub(crate) fn to_lines(actions: &[Action]) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = Vec::new();
    for action in actions {
        serde_json::to_writer(&mut bytes, action)?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}

/// Who wrote a commit.
const ENGINE_INFO: &str = concat!("tracelake/", env!("CARGO_PKG_VERSION"));
