//! What MLflow knows of a trace besides its spans: TraceInfo version 3.
//!
//! Source: `mlflow.entities.TraceInfo` and the REST message `TraceInfoV3` of MLflow 3.17.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::TraceId;

/// State of a trace as MLflow names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TraceState {
    /// Ended without an error at the root.
    #[serde(rename = "OK")]
    Ok,
    /// The root ended with an error.
    #[serde(rename = "ERROR")]
    Error,
    /// No root has ended yet.
    #[serde(rename = "IN_PROGRESS")]
    InProgress,
    /// The sender did not say.
    #[serde(rename = "STATE_UNSPECIFIED")]
    Unspecified,
}

impl TraceState {
    /// MLflow's name of the state.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Error => "ERROR",
            Self::InProgress => "IN_PROGRESS",
            Self::Unspecified => "STATE_UNSPECIFIED",
        }
    }

    /// Reads MLflow's name; an unknown one is `Unspecified`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text {
            "OK" => Self::Ok,
            "ERROR" => Self::Error,
            "IN_PROGRESS" => Self::InProgress,
            _ => Self::Unspecified,
        }
    }
}

/// Token counts of one LLM call or of a whole trace. Absent is not zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUsage {
    /// Tokens of the prompt.
    pub input_tokens: Option<i64>,
    /// Tokens of the completion.
    pub output_tokens: Option<i64>,
    /// Sum as the sender gave it, or of the two above.
    pub total_tokens: Option<i64>,
    /// Prompt tokens served from a cache.
    pub cache_read_input_tokens: Option<i64>,
    /// Prompt tokens written to a cache.
    pub cache_creation_input_tokens: Option<i64>,
}

impl TokenUsage {
    /// True when nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Cost in US dollars as the sender gave it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TraceCost {
    /// Cost of the prompt.
    pub input_cost: Option<f64>,
    /// Cost of the completion.
    pub output_cost: Option<f64>,
    /// Sum.
    pub total_cost: Option<f64>,
}

/// Feedback or expectation on a trace or span, by a human, code or a judge.
///
/// `value_json` keeps the member `feedback`, `expectation` or `issue` as the JSON text that came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Assessment {
    /// `a-<32 hex>`.
    pub assessment_id: String,
    /// Name of the feedback or expectation.
    pub assessment_name: Option<String>,
    /// Span that it is about; the whole trace without it.
    pub span_id: Option<String>,
    /// `HUMAN`, `LLM_JUDGE` or `CODE`.
    pub source_type: Option<String>,
    /// Who or what judged.
    pub source_id: Option<String>,
    /// Microseconds since the Unix epoch.
    pub create_time_micros: Option<i64>,
    /// Microseconds since the Unix epoch.
    pub last_update_time_micros: Option<i64>,
    /// JSON text of the member `feedback`.
    pub feedback_json: Option<String>,
    /// JSON text of the member `expectation`.
    pub expectation_json: Option<String>,
    /// JSON text of the member `issue`.
    pub issue_json: Option<String>,
    /// Why.
    pub rationale: Option<String>,
    /// Free metadata.
    pub metadata: BTreeMap<String, String>,
    /// Id of the assessment that this one replaces.
    pub overrides: Option<String>,
    /// False once another one overrides it.
    pub valid: Option<bool>,
}

/// What a client said of a whole trace (`start_trace`), or what a table row holds of that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceInfo {
    /// The trace.
    pub trace_id: TraceId,
    /// Id that the client's own request has.
    pub client_request_id: Option<String>,
    /// Microseconds since the Unix epoch.
    pub request_time_micros: Option<i64>,
    /// Milliseconds.
    pub execution_duration_ms: Option<i64>,
    /// State as the client said.
    pub state: TraceState,
    /// First characters of the request.
    pub request_preview: Option<String>,
    /// First characters of the response.
    pub response_preview: Option<String>,
    /// Immutable facts, by convention.
    pub trace_metadata: BTreeMap<String, String>,
    /// Mutable tags.
    pub tags: BTreeMap<String, String>,
    /// Keys of tags that were deleted: they stand neither in an older row nor, as attributes of a
    /// resource, in the spans. A key is never here and in `tags`.
    pub deleted_tags: BTreeSet<String>,
    /// Feedback and expectations.
    pub assessments: Vec<Assessment>,
    /// Ids of assessments that were deleted.
    pub deleted_assessments: BTreeSet<String>,
    /// Runs that the trace was linked to after the fact, in that order, each once.
    pub linked_runs: Vec<String>,
}

/// Trace metadata that marks a trace whose client has said what it is: MLflow's servers set it.
pub const INFO_FINALIZED: &str = "mlflow.trace.infoFinalized";

impl TraceInfo {
    /// Says nothing of a trace.
    #[must_use]
    pub const fn new(trace_id: TraceId) -> Self {
        Self {
            trace_id,
            client_request_id: None,
            request_time_micros: None,
            execution_duration_ms: None,
            state: TraceState::Unspecified,
            request_preview: None,
            response_preview: None,
            trace_metadata: BTreeMap::new(),
            tags: BTreeMap::new(),
            deleted_tags: BTreeSet::new(),
            assessments: Vec::new(),
            deleted_assessments: BTreeSet::new(),
            linked_runs: Vec::new(),
        }
    }

    /// True when it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::new(self.trace_id)
    }

    /// True when a client's `start_trace` is in it.
    #[must_use]
    pub fn is_finalized(&self) -> bool {
        self.trace_metadata.contains_key(INFO_FINALIZED)
    }

    /// Sets a tag.
    pub fn set_tag(&mut self, key: String, value: String) {
        self.deleted_tags.remove(&key);
        self.tags.insert(key, value);
    }

    /// Deletes a tag, also one that older rows or spans hold.
    pub fn delete_tag(&mut self, key: String) {
        self.tags.remove(&key);
        self.deleted_tags.insert(key);
    }

    /// Adds an assessment, in place of the one with its id.
    pub fn put_assessment(&mut self, assessment: Assessment) {
        self.deleted_assessments.remove(&assessment.assessment_id);
        let id = &assessment.assessment_id;
        match self.assessments.iter_mut().find(|known| known.assessment_id == *id) {
            Some(known) => *known = assessment,
            None => self.assessments.push(assessment),
        }
    }

    /// Deletes an assessment, also one that older rows hold.
    pub fn delete_assessment(&mut self, assessment_id: String) {
        self.assessments.retain(|known| known.assessment_id != assessment_id);
        self.deleted_assessments.insert(assessment_id);
    }

    /// Links a run.
    pub fn link_run(&mut self, run_id: String) {
        if !self.linked_runs.contains(&run_id) {
            self.linked_runs.push(run_id);
        }
    }

    /// Number of spans that the client announced (`mlflow.trace.sizeStats`), if it did.
    #[must_use]
    pub fn announced_spans(&self) -> Option<usize> {
        let stats = self.trace_metadata.get("mlflow.trace.sizeStats")?;
        let (_, after) = stats.split_once("\"num_spans\"")?;
        let digits: String =
            after.trim_start_matches([':', ' ']).chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    }
}
