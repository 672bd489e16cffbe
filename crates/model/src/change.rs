//! Changes that a client makes to a trace beside its spans: tags, assessments, links, deletion.
//!
//! Each change says what holds afterwards, not how it differs from before. So a sequence that is
//! applied once more, to a trace that has it, changes nothing; replays rest on that.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::TraceId;
use crate::trace_info::{Assessment, TraceInfo};

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
    #[serde(serialize_with = "write_trace_id", deserialize_with = "read_trace_id")]
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

pub(crate) fn write_trace_id<S: Serializer>(
    id: &TraceId,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

pub(crate) fn read_trace_id<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<TraceId, D::Error> {
    let text = String::deserialize(deserializer)?;
    TraceId::parse(&text).ok_or_else(|| serde::de::Error::custom("not a trace id"))
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
