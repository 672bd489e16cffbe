//! What the place of a file says: MLflow's archive layout.

use std::path::{Component, Path};

use tracelake_model::{ExperimentId, TraceId};

/// `<root>/<experiment>/traces/<id>/artifacts/traces.pb` or `traces.json`, also compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ArchivePlace {
    pub experiment: ExperimentId,
    pub trace_id: TraceId,
}

impl ArchivePlace {
    /// Reads the place of a file; `None` when it is not of that form.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let mut names = path.components().rev().map(|component| match component {
            Component::Normal(name) => name.to_str(),
            Component::Prefix(_)
            | Component::RootDir
            | Component::CurDir
            | Component::ParentDir => None,
        });
        let mut next = || names.next().flatten();
        let file = next()?;
        let stem = file.strip_suffix(".gz").or_else(|| file.strip_suffix(".zst")).unwrap_or(file);
        let of_form = matches!(stem, "traces.pb" | "traces.json") && next()? == "artifacts";
        let trace_id = TraceId::parse(next()?).filter(|id| of_form && id.is_valid())?;
        if next()? != "traces" {
            return None;
        }
        Some(Self { experiment: next()?.parse().ok()?, trace_id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: paths of MLflow's archive layout, and others that come near.
    /// Guarantees: experiment and trace are read from the first, nothing from the others.
    #[test]
    fn reads_experiment_and_trace_from_the_place() {
        let id = "tr-0123456789abcdef0123456789abcdef";
        for file in ["traces.pb", "traces.json", "traces.pb.gz", "traces.json.zst"] {
            let place = ArchivePlace::of(format!("/a/17/traces/{id}/artifacts/{file}").as_ref());
            let place = place.unwrap();
            assert_eq!(
                (place.experiment.as_str(), place.trace_id.to_mlflow().as_str()),
                ("17", id)
            );
        }
        for path in [
            "traces.pb".to_owned(),
            format!("/a/17/traces/{id}/artifacts/spans.pb"),
            format!("/a/17/traces/{id}/traces.pb"),
            format!("/a/prod/traces/{id}/artifacts/traces.pb"),
            "/a/17/traces/tr-12/artifacts/traces.pb".to_owned(),
            format!("/a/17/models/{id}/artifacts/traces.pb"),
        ] {
            assert_eq!(ArchivePlace::of(path.as_ref()), None, "{path}");
        }
    }
}
