//! Changes that a client makes to a trace beside its spans: tags, assessments, links, deletion.
//!
//! Each change says what holds afterwards, not how it differs from before. So a sequence that is
//! applied once more, to a trace that has it, changes nothing; replays rest on that.

use serde::{Deserialize, Serialize};

use crate::TraceId;
use crate::trace_info::{Assessment, ENTRY_BYTES, MAX_WORDS, MAX_WORDS_BYTES, TraceInfo};

/// One change to a trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TraceChange {
    /// The tag has this value.
    SetTag {
        /// Its key.
        key: String,
        /// Its value.
        value: String,
    },
    /// There is no tag of this key.
    DeleteTag {
        /// Its key.
        key: String,
    },
    /// The assessment of this id is this one.
    PutAssessment(Box<Assessment>),
    /// There is no assessment of this id.
    DeleteAssessment {
        /// Its id.
        assessment_id: String,
    },
    /// The trace is linked to this run.
    LinkRun {
        /// Its id.
        run_id: String,
    },
    /// The trace is gone, with all that was said of it before. What comes later is a trace anew.
    Delete,
}

/// Changes to one trace, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceChanges {
    /// The trace.
    #[serde(
        serialize_with = "crate::ids::write_trace_id",
        deserialize_with = "crate::ids::read_trace_id"
    )]
    pub trace_id: TraceId,
    /// What changes.
    pub changes: Vec<TraceChange>,
}

impl TraceChange {
    /// Applies the change to what is known. A deletion of the whole trace leaves nothing known.
    pub fn apply(self, info: &mut TraceInfo) {
        match self {
            Self::SetTag { key, value } => info.set_tag(key, value),
            Self::DeleteTag { key } => info.delete_tag(key),
            Self::PutAssessment(assessment) => info.put_assessment(*assessment),
            Self::DeleteAssessment { assessment_id } => info.delete_assessment(assessment_id),
            Self::LinkRun { run_id } => info.link_run(run_id),
            Self::Delete => *info = TraceInfo::new(info.trace_id),
        }
    }
}

impl TraceInfo {
    /// Whether calls may say `changes` besides: `None` when they may, or else what there is too much of.
    /// What takes away is always taken, and so is another value of what is there, within the bytes.
    #[must_use]
    pub fn overflow(&self, changes: &[TraceChange]) -> Option<String> {
        let (mut tags, mut assessments, mut runs, mut bytes) = (0, 0, 0, 0);
        for change in changes {
            match change {
                TraceChange::SetTag { key, value } => {
                    let is_known = self.tags.contains_key(key) || self.deleted_tags.contains(key);
                    tags += usize::from(!is_known);
                    bytes += key.len() + value.len() + 2 * ENTRY_BYTES;
                }
                TraceChange::PutAssessment(put) => {
                    let id = &put.assessment_id;
                    let is_known = self.assessments.iter().any(|known| known.assessment_id == *id)
                        || self.deleted_assessments.contains(id);
                    assessments += usize::from(!is_known);
                    bytes += put.weight_bytes();
                }
                TraceChange::LinkRun { run_id } => {
                    runs += usize::from(!self.linked_runs.contains(run_id));
                    bytes += run_id.len() + ENTRY_BYTES;
                }
                TraceChange::DeleteTag { .. }
                | TraceChange::DeleteAssessment { .. }
                | TraceChange::Delete => {}
            }
        }
        let there = [
            (tags, self.tags.len() + self.deleted_tags.len(), "tags"),
            (assessments, self.assessments.len() + self.deleted_assessments.len(), "assessments"),
            (runs, self.linked_runs.len(), "linked runs"),
        ];
        let past = |(more, known, _): &&(usize, usize, &str)| {
            0 < *more && MAX_WORDS < known.saturating_add(*more)
        };
        if let Some((_, _, name)) = there.iter().find(past) {
            return Some(format!("{MAX_WORDS} {name}, deleted ones included"));
        }
        (0 < bytes && MAX_WORDS_BYTES < self.weight_bytes().saturating_add(bytes))
            .then(|| format!("{} MiB of tags, metadata and assessments", MAX_WORDS_BYTES >> 20))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes() -> Vec<TraceChange> {
        let assessment = |id: &str| Assessment { assessment_id: id.into(), ..Default::default() };
        vec![
            TraceChange::SetTag { key: "a".into(), value: "1".into() },
            TraceChange::DeleteTag { key: "a".into() },
            TraceChange::SetTag { key: "b".into(), value: "2".into() },
            TraceChange::PutAssessment(Box::new(assessment("a-1"))),
            TraceChange::PutAssessment(Box::new(assessment("a-2"))),
            TraceChange::DeleteAssessment { assessment_id: "a-1".into() },
            TraceChange::LinkRun { run_id: "r".into() },
        ]
    }

    /// Scenario: a sequence of changes, applied twice.
    /// Guarantees: the second time changes nothing, and deleted keys stay known as deleted.
    #[test]
    fn a_sequence_applied_again_changes_nothing() {
        let mut info = TraceInfo::new(TraceId([1; 16]));
        changes().into_iter().for_each(|change| change.apply(&mut info));
        let once = info.clone();
        changes().into_iter().for_each(|change| change.apply(&mut info));
        assert_eq!(info, once);
        assert_eq!(info.tags.len(), 1);
        assert!(info.deleted_tags.contains("a") && info.deleted_assessments.contains("a-1"));
        assert_eq!(info.assessments.len(), 1);
    }

    /// Scenario: changes written as JSON and read again.
    /// Guarantees: the journal gives back what was put in.
    #[test]
    fn survives_json() {
        let whole = TraceChanges { trace_id: TraceId([7; 16]), changes: changes() };
        let text = serde_json::to_string(&whole).unwrap();
        assert_eq!(serde_json::from_str::<TraceChanges>(&text).unwrap(), whole);
        let hostile = text.replace("0707", "zz07");
        assert!(serde_json::from_str::<TraceChanges>(&hostile).is_err());
    }
}
