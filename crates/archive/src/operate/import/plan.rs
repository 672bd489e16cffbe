//! What an import would do, for `--dry-run`. Nothing is sent or written.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracelake_model::ExperimentId;

use super::inputs::{Input, find};
use super::ledger;
use super::reading::{Known, known};
use super::stream::{Kind, Stream};
use crate::folder::data_folder;

/// One file, as it would be imported.
#[derive(Clone, Debug)]
pub struct PlannedFile {
    /// Its path, control characters escaped.
    pub file: String,
    /// How it is framed; empty for what would not be read.
    pub kind: &'static str,
    /// Bytes on the disk.
    pub size_bytes: u64,
    /// Experiment that the user or the file's place names.
    pub experiment: Option<String>,
    /// `import`, `resume`, `imported already`, or why not.
    pub action: String,
}

/// Lists what an import of `paths` would read.
///
/// # Errors
/// When the ledger cannot be read.
pub fn plan(
    data_dir: &Path,
    paths: &[PathBuf],
    experiment: Option<&ExperimentId>,
    again: bool,
) -> anyhow::Result<Vec<PlannedFile>> {
    let folder = data_folder(data_dir)?;
    let entries = ledger::entries(&folder.root().join(super::LEDGER_FOLDER))?;
    let found = find(paths, folder.root());
    let mut planned = Vec::new();
    for input in found.files {
        let entry = input
            .path
            .as_ref()
            .and_then(|path| entries.get(&ledger::key(path, experiment.map(ExperimentId::as_str))));
        let action = match known(&input, entry.filter(|_| !again)) {
            Known::Nothing => "import".to_owned(),
            Known::All => "imported already".to_owned(),
            Known::Part { entry, .. } => format!("resume at byte {}", entry.offset),
        };
        planned.push(look(&input, experiment, action));
    }
    for (file, why) in found.skipped.into_iter().chain(found.failed) {
        planned.push(PlannedFile { file, kind: "", size_bytes: 0, experiment: None, action: why });
    }
    Ok(planned)
}

fn look(input: &Input, experiment: Option<&ExperimentId>, action: String) -> PlannedFile {
    let named = experiment.or_else(|| input.place.as_ref().map(|place| &place.experiment));
    let mut planned = PlannedFile {
        file: input.shown.clone(),
        kind: "",
        size_bytes: input.size_bytes,
        experiment: named.map(|id| id.as_str().to_owned()),
        action,
    };
    let Some(path) = &input.path else { return planned };
    match Stream::open(path, &Arc::default()) {
        Ok((kind, _)) => {
            planned.kind = match kind {
                Kind::Empty => "empty",
                Kind::Json => "JSON",
                Kind::TracesData => "OTLP",
                Kind::Delimited | Kind::LengthPrefixed => "OTLP messages",
            };
        }
        Err(error) => planned.action = error.to_string(),
    }
    planned
}
