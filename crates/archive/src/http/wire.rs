//! Requests and answers of the service's calls, for both ends.

use serde::{Deserialize, Serialize};
use tracelake_model::{ExperimentId, TableName};
use tracelake_query::analyses::TimeRange;

use crate::operate::verify::VerifyReport;

/// `POST /api/v1/questions/{question}`: one of the ready-made questions.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct QuestionRequest {
    /// Without it the table of experiments without a binding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<TableName>,
    /// First microsecond of `created_at` since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_unix_micro: Option<i64>,
    /// Last microsecond of `created_at` since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_unix_micro: Option<i64>,
    /// Rows at the most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

impl QuestionRequest {
    pub(crate) const fn range(&self) -> TimeRange {
        TimeRange { since_micros: self.since_unix_micro, until_micros: self.until_unix_micro }
    }
}

/// `POST /api/v1/sql`: one read-only statement.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SqlRequest {
    pub statement: String,
    /// What the bare name `traces` stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<TableName>,
}

/// `POST /api/v1/tables`: makes or accepts a table.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TableRequest {
    pub table: TableName,
}

/// `POST /api/v1/experiments`: the experiment of that name, made if there is none.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExperimentRequest {
    pub name: String,
}

/// An experiment that is there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExperimentOutcome {
    /// Its MLflow id.
    pub experiment_id: ExperimentId,
    /// Its name.
    pub name: String,
    /// Whether this call made it.
    pub created: bool,
}

/// `POST /api/v1/archival/enable`: sends an experiment's traces to a table.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EnableRequest {
    pub table: TableName,
    /// Name or id.
    pub experiment: String,
    /// Leave earlier traces where they are.
    #[serde(default)]
    pub from_now: bool,
}

/// An experiment that is archived to a table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EnableOutcome {
    /// The table.
    pub table: TableName,
    /// URL of its folder.
    pub location: String,
    /// The experiment's MLflow id.
    pub experiment_id: ExperimentId,
    /// The experiment's name.
    pub experiment: String,
    /// Earlier traces that were moved to the table, as far as was waited for.
    #[serde(default)]
    pub moved_traces: u64,
}

/// `POST /api/v1/archival/disable`: sends an experiment's traces to the default table again.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DisableRequest {
    /// Name or id.
    pub experiment: String,
    /// The table that it is archived to; another one is an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<TableName>,
}

/// An experiment that is not archived to a table of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DisableOutcome {
    /// The experiment's MLflow id.
    pub experiment_id: ExperimentId,
    /// The experiment's name.
    pub experiment: String,
    /// The table that it was archived to, if there was one.
    pub table: Option<TableName>,
}

/// `POST /api/v1/check`: the validation checklist of a table.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CheckRequest {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<TableName>,
    /// Name or id; without it those that are bound to the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experiment: Option<String>,
    /// Whether a trace may be written, and deleted again.
    pub write: bool,
}

/// `POST /api/v1/verify`: a table against what was acknowledged for it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerifyTableRequest {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<TableName>,
    /// Of what arrived in this hour and later, microseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_unix_micro: Option<i64>,
    /// Of what arrived in this hour and before, microseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_unix_micro: Option<i64>,
    /// An earlier report to compare the table with as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against: Option<Box<VerifyReport>>,
}

/// One line of the checklist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckLine {
    /// What was looked at.
    pub item: String,
    /// `ok`, `note`, `skipped` or `failed`.
    pub result: String,
    /// What was found.
    pub found: String,
    /// How to mend it.
    pub hint: Option<String>,
}

/// `GET /api/v1/about`: what answers here, and where it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct About {
    /// `tracelake`.
    pub product: String,
    pub version: String,
    pub pid: u32,
    /// The data folder, on the service's machine.
    pub data_dir: String,
    /// Table of experiments without a binding.
    pub default_table: TableName,
}
