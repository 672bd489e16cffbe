//! What clients changed beside spans against what a row says. Pure.

use std::collections::BTreeMap;

use tracelake_lake::TraceDraft;
use tracelake_pipeline::ledger::{Subject, assessment_hash, text_hash};

use super::acknowledged::KnownChange;

/// Those of `changes` that the row does not show. What a call says of a tag stands over spans and
/// `start_trace`, whichever came first.
pub(super) fn unmet(changes: &BTreeMap<Subject, KnownChange>, row: &TraceDraft) -> Vec<Subject> {
    let info = row.full_info();
    let hash = |(key, value): (&String, &String)| (text_hash(key), text_hash(value));
    let tags: BTreeMap<u64, u64> = info.tags.iter().map(hash).collect();
    let said = info.assessments.iter();
    let assessments: BTreeMap<u64, u64> =
        said.map(|said| (text_hash(&said.assessment_id), assessment_hash(said))).collect();
    let is_linked = |id: u64| info.linked_runs.iter().any(|run| text_hash(run) == id);
    let is_met = |(subject, change): (&Subject, &KnownChange)| match subject {
        Subject::Tag(key) => tags.get(key).copied() == change.value,
        Subject::Assessment(id) => assessments.get(id).copied() == change.value,
        Subject::Run(id) => is_linked(*id),
    };
    changes.iter().filter(|change| !is_met(*change)).map(|(subject, _)| *subject).collect()
}

/// The word of reports for a change that a row does not show.
pub(super) const fn result_of(subject: Subject) -> &'static str {
    match subject {
        Subject::Tag(_) => "tags",
        Subject::Assessment(_) => "assessments",
        Subject::Run(_) => "runs",
    }
}

#[cfg(test)]
mod tests {
    use tracelake_model::{Assessment, TraceId, TraceInfo};

    use super::*;

    fn known(value: Option<u64>) -> KnownChange {
        KnownChange { value, cell: 0 }
    }

    /// Scenario: a row with a tag, an assessment and a run, and changes that it shows and does not.
    /// Guarantees: exactly those that it does not show are named.
    #[test]
    fn what_a_row_does_not_show_is_named() {
        let said = Assessment { assessment_id: "a-1".into(), ..Assessment::default() };
        let other = Assessment { rationale: Some("why".into()), ..said.clone() };
        let mut row = TraceDraft::new(TraceId([1; 16]));
        row.info = Some(TraceInfo {
            tags: [("a".to_owned(), "1".to_owned())].into(),
            assessments: vec![said.clone()],
            linked_runs: vec!["r".to_owned()],
            ..TraceInfo::new(row.trace_id)
        });
        let tag = |key: &str, value: Option<&str>| {
            (Subject::Tag(text_hash(key)), known(value.map(text_hash)))
        };
        let assessment = |value: Option<&Assessment>| {
            (Subject::Assessment(text_hash("a-1")), known(value.map(assessment_hash)))
        };
        let run = |id: &str| (Subject::Run(text_hash(id)), known(Some(0)));
        let shown = [tag("a", Some("1")), tag("b", None), assessment(Some(&said)), run("r")];
        assert_eq!(unmet(&shown.into(), &row), []);
        let not_shown = [
            tag("a", Some("2")),
            tag("a", None),
            tag("b", Some("1")),
            assessment(Some(&other)),
            assessment(None),
            run("s"),
        ];
        for (subject, change) in not_shown {
            assert_eq!(unmet(&[(subject, change)].into(), &row), [subject]);
        }
    }
}
