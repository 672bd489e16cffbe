//! The report of a verification, which is the manifest that can be kept as well.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tracelake_model::TableName;

/// Version of the manifest's form.
pub const MANIFEST_FORMAT: u32 = 1;

/// What a table holds against what was acknowledged for it. Written as JSON it is a manifest: kept,
/// it can be compared with the table later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// [`MANIFEST_FORMAT`].
    pub format: u32,
    /// The table.
    pub table: TableName,
    /// Its Delta version; `None` when there is no such table.
    pub version: Option<u64>,
    /// When it was looked at, microseconds since the Unix epoch.
    pub made_at_unix_micro: i64,
    /// First arrival that was asked for, microseconds since the Unix epoch.
    pub since_unix_micro: Option<i64>,
    /// Last arrival that was asked for, microseconds since the Unix epoch.
    pub until_unix_micro: Option<i64>,
    /// Everything acknowledged is there, once and as it came.
    pub ok: bool,
    /// What came in, by hour and way in.
    pub hours: Vec<HourLine>,
    /// Traces that are not as they should be.
    pub traces: Vec<TraceLine>,
    /// Further ones that are not listed.
    #[serde(default)]
    pub traces_left_out: u64,
    /// What else is wrong: files that cannot be read, a ledger that is damaged or not whole, records
    /// that were set aside, a manifest that does not agree.
    #[serde(default)]
    pub faults: Vec<String>,
    /// What is worth knowing.
    #[serde(default)]
    pub notes: Vec<String>,
    /// All rows by the hour of `created_at`; empty when a time was asked for.
    #[serde(default)]
    pub archived: Vec<ArchivedLine>,
}

impl VerifyReport {
    /// The report as the JSON that a manifest is.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

/// What came in during one hour by one way, and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HourLine {
    /// The hour of arrival in UTC, such as `2026-11-22T10:00Z`.
    pub hour: String,
    /// `otlp_protobuf`, `otlp_json`, `mlflow_traces_json` or `mlflow_start_trace`.
    pub way_in: String,
    /// `ok`, `open`, or what is wrong: `missing`, `doubled`, `altered`, `deleted`, `gone`; several
    /// with commas between them.
    pub result: String,
    /// Traces and different spans that should be in the table, and the sum of their hashes.
    pub acknowledged: Figures,
    /// Those of them that are, however often.
    pub archived: Figures,
    /// Spans that were sent more than once, counted from the second time on.
    pub copies: u64,
    /// Spans that a client deleted with their trace.
    pub deleted: u64,
    /// Spans of MLflow in whose place the one that came by OTLP stays.
    pub replaced: u64,
    /// Spans that are on their way to the table.
    pub open: u64,
    /// Spans that another table of the archive has.
    pub elsewhere: u64,
    /// Spans that another writer deleted with their row.
    #[serde(default)]
    pub deleted_by_others: u64,
}

/// Traces, spans, and the sum of the hashes of these spans, in which their order does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Traces.
    pub traces: u64,
    /// Spans.
    pub spans: u64,
    /// Sum of their fingerprints, wrapping; 16 hex digits in JSON.
    #[serde(serialize_with = "write_hash", deserialize_with = "read_hash")]
    pub hash: u64,
}

impl Figures {
    pub(super) const fn add(&mut self, fingerprint: u64) {
        self.spans += 1;
        self.hash = self.hash.wrapping_add(fingerprint);
    }

    /// The hash as text.
    #[must_use]
    pub fn hash_text(&self) -> String {
        format!("{:016x}", self.hash)
    }
}

/// A trace that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceLine {
    /// The trace.
    pub trace_id: String,
    /// `missing`, `doubled`, `altered`; `deleted`: a client deleted it, and it is there; `gone`: it
    /// is not there, and whether another writer deleted it is not known; `tags`, `assessments`,
    /// `runs`: the row does not show what a client changed last.
    pub result: String,
    /// Spans that are so.
    pub spans: u64,
    /// Changes of clients that are so.
    #[serde(default)]
    pub changes: u64,
    /// Spans that should be there.
    pub of_spans: u64,
    /// Rows that the trace has.
    pub rows: u64,
    /// Hour in which the first of these spans came, in UTC.
    pub hour: String,
    /// How it came.
    pub way_in: String,
}

/// Rows that were first archived in one hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchivedLine {
    /// The hour of `created_at` in UTC.
    pub hour: String,
    /// What they hold.
    pub figures: Figures,
}

fn write_hash<S: Serializer>(hash: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format!("{hash:016x}"))
}

fn read_hash<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    u64::from_str_radix(&text, 16).map_err(|_| serde::de::Error::custom("not 16 hex digits"))
}

/// An hour since the Unix epoch as people write it.
pub(super) fn hour_text(hour: i64) -> String {
    let time = chrono::DateTime::from_timestamp(hour.saturating_mul(3_600), 0).unwrap_or_default();
    time.format("%Y-%m-%dT%H:00Z").to_string()
}
