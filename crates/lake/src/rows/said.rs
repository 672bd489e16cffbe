//! The column `said`: which values of a row clients said, so that they are told from those that
//! follow from its spans, and calls from `start_trace`. The values themselves are in their columns.
//!
//! A row without it was written by an earlier version, or by another writer.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracelake_decode::conventions::RULES;
use tracelake_decode::mlflow_keys;
use tracelake_model::{TraceInfo, TraceState};

use super::ordered::Ordered;
use super::traces::{ExperimentBy, TraceDraft};

/// Version of the column's form where it says nothing that [`NAMED_VERSION`] has.
const VERSION: u32 = 1;

/// Version of the form that says [`Said::named_by`]; one that does not know it would take another span's word.
const NAMED_VERSION: u32 = 2;

/// The column `said`, as JSON.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Said {
    /// Version of this form.
    v: u32,
    /// [`RULES`] by which what clients did not say follows from the spans.
    rules: u32,
    /// Columns that hold a client's word.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    columns: BTreeSet<Column>,
    /// By whose word the trace belongs to its experiment.
    #[serde(skip_serializing_if = "is_by_request")]
    experiment: Experiment,
    /// Keys of tags that `start_trace` said.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    tags: BTreeSet<String>,
    /// Keys of tags that a call set.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    set_tags: BTreeSet<String>,
    /// Keys of tags that a call deleted.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    deleted_tags: BTreeSet<String>,
    /// Ids of assessments that a call put.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    set_assessments: BTreeSet<String>,
    /// Ids of assessments that a call deleted.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    deleted_assessments: BTreeSet<String>,
    /// Fingerprints of the `start_trace` requests, 16 hex digits each.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    starts: BTreeSet<String>,
    /// Position of the span that gives the tags, where arrival chose it.
    #[serde(skip_serializing_if = "Option::is_none")]
    arrived_last: Option<usize>,
    /// Position of the span whose resource gives the experiment, where one before it names the same and does not
    /// count: the experiment of its request stood over that, or there was none by that name.
    #[serde(skip_serializing_if = "Option::is_none")]
    named_by: Option<usize>,
    /// Earliest start of the spans in parts, microseconds since the Unix epoch, where a client's word takes
    /// the place of the time that follows from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    parts_start: Option<i64>,
    /// Latest end of the spans in parts, milliseconds since the Unix epoch, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    parts_end: Option<i64>,
    /// The spans stand in the order of arrival, and the trace is read in it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    keeps_order: bool,
}

/// A column that the spans or a client give a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Column {
    RunId,
    Timestamp,
    Status,
    ExecutionDurationMs,
    RequestPreview,
    ResponsePreview,
}

/// [`ExperimentBy`] in the column's form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Experiment {
    #[default]
    Request,
    Spans,
    Client,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
const fn is_by_request(experiment: &Experiment) -> bool {
    matches!(experiment, Experiment::Request)
}

impl Said {
    /// What clients said of `trace`.
    pub(super) fn of(trace: &TraceDraft, ordered: &Ordered<'_>) -> Self {
        let named_by = named_by(trace, ordered);
        let mut said = Self {
            v: if named_by.is_some() { NAMED_VERSION } else { VERSION },
            rules: RULES,
            named_by,
            experiment: match trace.experiment_by {
                ExperimentBy::Nobody | ExperimentBy::Request => Experiment::Request,
                ExperimentBy::Spans => Experiment::Spans,
                ExperimentBy::Client => Experiment::Client,
            },
            arrived_last: ordered.arrived_last().filter(|_| !trace.keeps_order),
            keeps_order: trace.keeps_order,
            ..Self::default()
        };
        let named =
            trace.info.as_ref().and_then(|info| info.trace_metadata.get(mlflow_keys::SOURCE_RUN));
        if trace.run_id.is_some() && named.is_none() {
            said.columns.insert(Column::RunId);
        }
        let Some(info) = &trace.info else { return said };
        for (is_said, column) in [
            (info.request_time_micros.is_some(), Column::Timestamp),
            (info.state != TraceState::Unspecified, Column::Status),
            (info.execution_duration_ms.is_some(), Column::ExecutionDurationMs),
            (info.request_preview.is_some(), Column::RequestPreview),
            (info.response_preview.is_some(), Column::ResponsePreview),
        ] {
            if is_said {
                said.columns.insert(column);
            }
        }
        let hides_times = said.hides_times();
        if let Some(beyond) = trace.beyond.as_ref().filter(|_| hides_times) {
            (said.parts_start, said.parts_end) = (beyond.start_micros, beyond.end_millis);
        }
        let of_start = info.tags.keys().filter(|key| !info.called_tags.contains(*key));
        said.tags = of_start.cloned().collect();
        said.set_tags.clone_from(&info.called_tags);
        said.deleted_tags.clone_from(&info.deleted_tags);
        said.set_assessments.clone_from(&info.called_assessments);
        said.deleted_assessments.clone_from(&info.deleted_assessments);
        said.starts = info.starts.iter().map(|start| format!("{start:016x}")).collect();
        said
    }

    /// The column's text.
    pub(super) fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads the column; `None` when there is none.
    ///
    /// # Errors
    /// When a later version wrote it: what it means is not known here.
    pub(super) fn read(text: Option<&str>) -> Result<Option<Self>, String> {
        let Some(text) = text else { return Ok(None) };
        let said: Self = serde_json::from_str(text)
            .map_err(|error| format!("`said` cannot be read: {error}"))?;
        if NAMED_VERSION < said.v {
            return Err(format!("`said` has version {}, written by a later tracelake", said.v));
        }
        Ok(Some(said))
    }

    /// True when the row's other values follow from its spans by the rules of this version.
    pub(super) const fn is_by_these_rules(&self) -> bool {
        self.rules == RULES
    }

    /// See [`TraceDraft::keeps_order`].
    pub(super) const fn keeps_order(&self) -> bool {
        self.keeps_order
    }

    /// Position of the span that gives the tags, where arrival chose it.
    pub(super) const fn arrived_last(&self) -> Option<usize> {
        self.arrived_last
    }

    /// True when the span at `position` names an experiment when its resource names that of the row.
    pub(super) fn names_experiment(&self, position: usize) -> bool {
        self.experiment == Experiment::Spans && self.named_by.is_none_or(|first| first <= position)
    }

    /// True when the row's times are not both those of its spans.
    pub(super) fn hides_times(&self) -> bool {
        [Column::Timestamp, Column::ExecutionDurationMs].iter().any(|c| self.columns.contains(c))
    }

    /// True when the row's duration is a client's word.
    pub(super) fn has_duration(&self) -> bool {
        self.columns.contains(&Column::ExecutionDurationMs)
    }

    /// Earliest start and latest end of the spans in parts, where the row's times do not tell.
    pub(super) const fn parts_times(&self) -> (Option<i64>, Option<i64>) {
        (self.parts_start, self.parts_end)
    }

    /// By whose word the trace belongs to its experiment.
    pub(super) const fn experiment_by(&self) -> ExperimentBy {
        match self.experiment {
            Experiment::Request => ExperimentBy::Request,
            Experiment::Spans => ExperimentBy::Spans,
            Experiment::Client => ExperimentBy::Client,
        }
    }

    /// True when a request named the run of the row.
    pub(super) fn has_run(&self) -> bool {
        self.columns.contains(&Column::RunId)
    }

    /// Of all that the row holds, `info`, what clients said.
    pub(super) fn of_row(self, mut info: TraceInfo) -> TraceInfo {
        let is_said = |column| self.columns.contains(&column);
        info.request_time_micros = info.request_time_micros.filter(|_| is_said(Column::Timestamp));
        info.execution_duration_ms =
            info.execution_duration_ms.filter(|_| is_said(Column::ExecutionDurationMs));
        info.request_preview = info.request_preview.filter(|_| is_said(Column::RequestPreview));
        info.response_preview = info.response_preview.filter(|_| is_said(Column::ResponsePreview));
        if !is_said(Column::Status) {
            info.state = TraceState::Unspecified;
        }
        info.tags.retain(|key, _| self.tags.contains(key) || self.set_tags.contains(key));
        info.called_tags = self.set_tags;
        info.called_assessments = self.set_assessments;
        info.deleted_tags = self.deleted_tags;
        info.deleted_assessments = self.deleted_assessments;
        info.starts =
            self.starts.iter().filter_map(|hex| u64::from_str_radix(hex, 16).ok()).collect();
        info
    }
}

/// See [`Said::named_by`].
fn named_by(trace: &TraceDraft, ordered: &Ordered<'_>) -> Option<usize> {
    // Of a row that keeps its order all spans count whose resource names its experiment.
    if trace.experiment_by != ExperimentBy::Spans || trace.keeps_order {
        return None;
    }
    let groups = || ordered.spans.iter().map(|span| &span.group);
    let first = groups().position(|group| group.experiment_id.is_some())?;
    let mut last = None;
    let is_hidden = groups().take(first).any(|group| {
        let is_next = last.replace(group).is_none_or(|last| !Arc::ptr_eq(last, group));
        is_next
            && group
                .hidden_experiment()
                .is_some_and(|hidden| Some(&hidden) == trace.experiment_id.as_ref())
    });
    is_hidden.then_some(first)
}
