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

/// Most tags, assessments and linked runs of a trace, of each; deleted ones are remembered, so they count. Each
/// change of a trace rewrites them all.
pub const MAX_WORDS: usize = 10_000;

/// Most bytes of what clients said of a trace.
pub const MAX_WORDS_BYTES: usize = 16 << 20;

/// Memory that an entry of a map or set takes beside its text, about.
pub(crate) const ENTRY_BYTES: usize = 48;

impl Assessment {
    pub(crate) fn weight_bytes(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let entries = self.metadata.iter().map(|(key, value)| key.len() + value.len());
        256 + text(&self.feedback_json)
            + text(&self.expectation_json)
            + text(&self.issue_json)
            + text(&self.rationale)
            + entries.map(|bytes| bytes + ENTRY_BYTES).sum::<usize>()
    }
}

/// What clients said of a whole trace: by `start_trace`, and by calls that change it.
///
/// What calls said stands over what `start_trace` says, whichever comes first, so that neither a
/// `start_trace` that is late nor one that is sent again undoes a call. Of both, the later one stands
/// over the earlier one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceInfo {
    /// The trace.
    #[serde(
        serialize_with = "crate::ids::write_trace_id",
        deserialize_with = "crate::ids::read_trace_id"
    )]
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
    /// Keys of those of [`Self::tags`] that were set by a call.
    pub called_tags: BTreeSet<String>,
    /// Keys of tags that were deleted: they stand neither in an older row nor, as attributes of a
    /// resource, in the spans. A key is never here and in `tags`.
    pub deleted_tags: BTreeSet<String>,
    /// Feedback and expectations.
    pub assessments: Vec<Assessment>,
    /// Ids of those of [`Self::assessments`] that were put by a call.
    pub called_assessments: BTreeSet<String>,
    /// Ids of assessments that were deleted.
    pub deleted_assessments: BTreeSet<String>,
    /// Runs that the trace was linked to after the fact, in that order, each once.
    pub linked_runs: Vec<String>,
    /// Fingerprints of the `start_trace` requests that are in it: one of them that comes again says
    /// nothing.
    pub starts: BTreeSet<u64>,
}

/// Trace metadata that marks a trace whose client has said what it is: MLflow's servers set it.
pub const INFO_FINALIZED: &str = "mlflow.trace.infoFinalized";

/// Trace metadata by which a client announces how many spans it sends.
pub const SIZE_STATS: &str = "mlflow.trace.sizeStats";

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
            called_tags: BTreeSet::new(),
            deleted_tags: BTreeSet::new(),
            assessments: Vec::new(),
            called_assessments: BTreeSet::new(),
            deleted_assessments: BTreeSet::new(),
            linked_runs: Vec::new(),
            starts: BTreeSet::new(),
        }
    }

    /// Memory that it takes, about.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        let map = |map: &BTreeMap<String, String>| -> usize {
            map.iter().map(|(key, value)| key.len() + value.len() + ENTRY_BYTES).sum()
        };
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let keys = self.deleted_tags.iter().chain(&self.deleted_assessments);
        let keys = keys.chain(&self.called_tags).chain(&self.called_assessments);
        let keys = keys.chain(&self.linked_runs).map(|key| key.len() + ENTRY_BYTES);
        512 + keys.sum::<usize>()
            + self.starts.len() * 16
            + map(&self.tags)
            + map(&self.trace_metadata)
            + text(&self.request_preview)
            + text(&self.response_preview)
            + self.assessments.iter().map(Assessment::weight_bytes).sum::<usize>()
    }

    /// What there is too much of, of one request that says all of it; `None` when it may be taken.
    #[must_use]
    pub fn excess(&self) -> Option<String> {
        let there = [
            (self.tags.len(), "tags"),
            (self.assessments.len(), "assessments"),
            (self.trace_metadata.len(), "entries of metadata"),
        ];
        if let Some((_, name)) = there.iter().find(|(count, _)| MAX_WORDS < *count) {
            return Some(format!("{MAX_WORDS} {name}"));
        }
        (MAX_WORDS_BYTES < self.weight_bytes())
            .then(|| format!("{} MiB of tags, metadata and assessments", MAX_WORDS_BYTES >> 20))
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

    /// A call set a tag.
    pub fn set_tag(&mut self, key: String, value: String) {
        self.deleted_tags.remove(&key);
        self.called_tags.insert(key.clone());
        self.tags.insert(key, value);
    }

    /// A call deleted a tag, also one that older rows or spans hold.
    pub fn delete_tag(&mut self, key: String) {
        self.tags.remove(&key);
        self.called_tags.remove(&key);
        self.deleted_tags.insert(key);
    }

    /// A call put an assessment, in place of the one with its id.
    pub fn put_assessment(&mut self, assessment: Assessment) {
        self.deleted_assessments.remove(&assessment.assessment_id);
        self.called_assessments.insert(assessment.assessment_id.clone());
        self.place_assessment(assessment);
    }

    /// Assessments stand in the order in which they were made, then by id, however they came.
    fn place_assessment(&mut self, assessment: Assessment) {
        self.assessments.retain(|known| known.assessment_id != assessment.assessment_id);
        let is_before = |known: &Assessment| {
            let made = known.create_time_micros.cmp(&assessment.create_time_micros);
            made.then_with(|| known.assessment_id.cmp(&assessment.assessment_id)).is_lt()
        };
        let at = self.assessments.iter().take_while(|known| is_before(known)).count();
        self.assessments.insert(at, assessment);
    }

    /// A call deleted an assessment, also one that older rows hold.
    pub fn delete_assessment(&mut self, assessment_id: String) {
        self.assessments.retain(|known| known.assessment_id != assessment_id);
        self.called_assessments.remove(&assessment_id);
        self.deleted_assessments.insert(assessment_id);
    }

    /// Takes in what `start` says by `start_trace`: over what earlier ones said, below what calls
    /// said. Returns false, and takes nothing, when all that is in `start` is in already; of what has no
    /// fingerprint that is not known.
    pub fn take_start(&mut self, start: &Self) -> bool {
        if !start.starts.is_empty() && start.starts.is_subset(&self.starts) {
            return false;
        }
        self.starts.extend(&start.starts);
        let later = |own: &mut Option<String>, said: &Option<String>| {
            if said.is_some() {
                own.clone_from(said);
            }
        };
        later(&mut self.client_request_id, &start.client_request_id);
        later(&mut self.request_preview, &start.request_preview);
        later(&mut self.response_preview, &start.response_preview);
        self.request_time_micros = start.request_time_micros.or(self.request_time_micros);
        self.execution_duration_ms = start.execution_duration_ms.or(self.execution_duration_ms);
        if start.state != TraceState::Unspecified {
            self.state = start.state;
        }
        let pair = |(key, value): (&String, &String)| (key.clone(), value.clone());
        self.trace_metadata.extend(start.trace_metadata.iter().map(pair));
        for (key, value) in &start.tags {
            let is_called = self.called_tags.contains(key) || self.deleted_tags.contains(key);
            if !is_called && !start.called_tags.contains(key) {
                self.tags.insert(key.clone(), value.clone());
            }
        }
        for assessment in &start.assessments {
            let id = &assessment.assessment_id;
            let is_called =
                self.called_assessments.contains(id) || self.deleted_assessments.contains(id);
            if !is_called && !start.called_assessments.contains(id) {
                self.place_assessment(assessment.clone());
            }
        }
        true
    }

    /// True when this was told by `start_trace` requests that nobody noted, as in a row of an earlier version, and
    /// `start` says nothing else than it: then `start` is taken for one of them, come again.
    #[must_use]
    pub fn has_untold(&self, start: &Self) -> bool {
        let is_same = |own: &Option<String>, said: &Option<String>| said.is_none() || own == said;
        let own = |(key, value): (&String, &String)| self.trace_metadata.get(key) == Some(value);
        self.starts.is_empty()
            && self.is_finalized()
            && is_same(&self.client_request_id, &start.client_request_id)
            && is_same(&self.request_preview, &start.request_preview)
            && is_same(&self.response_preview, &start.response_preview)
            && self.request_time_micros == start.request_time_micros
            && start
                .execution_duration_ms
                .is_none_or(|said| Some(said) == self.execution_duration_ms)
            && self.state == start.state
            && start.trace_metadata.iter().all(own)
    }

    /// Takes in what `later` says by calls.
    pub fn take_calls(&mut self, later: &Self) {
        for key in &later.deleted_tags {
            self.delete_tag(key.clone());
        }
        for key in &later.called_tags {
            if let Some(value) = later.tags.get(key) {
                self.set_tag(key.clone(), value.clone());
            }
        }
        for id in &later.deleted_assessments {
            self.delete_assessment(id.clone());
        }
        for assessment in &later.assessments {
            if later.called_assessments.contains(&assessment.assessment_id) {
                self.put_assessment(assessment.clone());
            }
        }
        for run_id in &later.linked_runs {
            self.link_run(run_id.clone());
        }
    }

    /// Takes in what stands beside its own word, in a row that others wrote to: `other` is all that a
    /// row says and its spans do not, as the word of calls.
    pub fn take_others(&mut self, other: &Self) {
        let beside = |own: &mut Option<String>, said: &Option<String>| {
            if own.is_none() {
                own.clone_from(said);
            }
        };
        beside(&mut self.request_preview, &other.request_preview);
        beside(&mut self.response_preview, &other.response_preview);
        self.request_time_micros = self.request_time_micros.or(other.request_time_micros);
        self.execution_duration_ms = self.execution_duration_ms.or(other.execution_duration_ms);
        if self.state == TraceState::Unspecified {
            self.state = other.state;
        }
        for (key, value) in &other.tags {
            if !self.tags.contains_key(key) {
                self.set_tag(key.clone(), value.clone());
            }
        }
        for key in &other.deleted_tags {
            self.delete_tag(key.clone());
        }
    }

    /// What is in it by `start_trace`, without what calls said.
    #[must_use]
    pub fn start_alone(&self) -> Self {
        let mut start = Self {
            called_tags: BTreeSet::new(),
            deleted_tags: BTreeSet::new(),
            called_assessments: BTreeSet::new(),
            deleted_assessments: BTreeSet::new(),
            linked_runs: Vec::new(),
            ..self.clone()
        };
        start.tags.retain(|key, _| !self.called_tags.contains(key));
        start.assessments.retain(|a| !self.called_assessments.contains(&a.assessment_id));
        start
    }

    /// Links a run.
    pub fn link_run(&mut self, run_id: String) {
        if !self.linked_runs.contains(&run_id) {
            self.linked_runs.push(run_id);
        }
    }

    /// Number of spans that the client announced ([`SIZE_STATS`]), if it did.
    #[must_use]
    pub fn announced_spans(&self) -> Option<usize> {
        let stats = self.trace_metadata.get(SIZE_STATS)?;
        let (_, after) = stats.split_once("\"num_spans\"")?;
        let digits: String =
            after.trim_start_matches([':', ' ']).chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    }
}
