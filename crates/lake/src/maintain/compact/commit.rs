//! The commit that puts a compacted file in the place of those that it was made of.

use std::collections::{BTreeMap, HashMap};

use delta_kernel::actions::deletion_vector_writer::{
    KernelDeletionVector, StreamingDeletionVectorWriter,
};
use tracelake_model::Clock;
use tracing::debug;

use super::CompactionGroup;
use super::plan::{FORM, FORM_TAG};
use super::rewrite::{NOWHERE, Rewritten};
use crate::commit::{MAX_ATTEMPTS, loose_bounds, requirements};
use crate::error::LakeError;
use crate::layout::deletion_vector_file;
use crate::log::actions::{Action, Add, CommitInfo, Remove};
use crate::log::{checkpoint_if_due, put_version};
use crate::storage::PutOutcome;
use crate::table::{DeletionVector, LiveFile, Table, TableSnapshot};

/// A group's files as a newer version has them.
struct Inputs {
    /// With the deletion vectors that they have by then.
    files: Vec<LiveFile>,
    /// Rows of the compacted file that were deleted since the group was planned; they ascend.
    deleted: Vec<u64>,
}

/// Commits; `None` when others changed the files too much, and the compacted one is of no use.
/// Returns the version with it.
pub(super) fn replace(
    table: &Table,
    clock: &dyn Clock,
    planned: &TableSnapshot,
    group: &CompactionGroup,
    rewritten: &Rewritten,
) -> Result<Option<TableSnapshot>, LakeError> {
    let mut snapshot = planned.clone();
    for _ in 0..MAX_ATTEMPTS {
        snapshot = table.durable_snapshot(Some(&snapshot))?;
        if !asks_the_same(planned, &snapshot) {
            return Ok(None);
        }
        let Some(inputs) = look_again(planned, &snapshot, group, rewritten)? else {
            return Ok(None);
        };
        let actions = actions(table, clock, &inputs, rewritten)?;
        let version = snapshot.version() + 1;
        if put_version(table, version, &actions)? == PutOutcome::Exists {
            debug!(table = table.name(), version, "compaction comes second, looking again");
            continue;
        }
        let snapshot = table.snapshot(Some(&snapshot))?;
        // A later one is another writer's, and need not be durable.
        if snapshot.version() == version {
            checkpoint_if_due(&snapshot);
        }
        return Ok(Some(snapshot));
    }
    Ok(None)
}

/// Whether the rows that were written for one version are fit for the other.
fn asks_the_same(planned: &TableSnapshot, snapshot: &TableSnapshot) -> bool {
    requirements(planned) == requirements(snapshot)
}

/// The group's files by now; `None` when one is gone, or has rows that were deleted before.
fn look_again(
    planned: &TableSnapshot,
    snapshot: &TableSnapshot,
    group: &CompactionGroup,
    rewritten: &Rewritten,
) -> Result<Option<Inputs>, LakeError> {
    let mut live: HashMap<String, LiveFile> = HashMap::new();
    for file in snapshot.live_files((None, None))? {
        live.insert(file.path.clone(), file);
    }
    let mut inputs = Inputs { files: Vec::new(), deleted: Vec::new() };
    for (before, places) in group.files.iter().zip(&rewritten.places) {
        let Some(file) = live.remove(&before.path) else { return Ok(None) };
        if file.deletion_vector != before.deletion_vector {
            let known = planned.deleted_rows(before)?;
            let deleted = snapshot.deleted_rows(&file)?;
            if known.iter().any(|row| deleted.binary_search(row).is_err()) {
                return Ok(None);
            }
            for row in deleted {
                let place = usize::try_from(row).ok().and_then(|row| places.get(row).copied());
                inputs.deleted.extend(place.filter(|place| *place != NOWHERE).map(u64::from));
            }
        }
        inputs.files.push(file);
    }
    inputs.deleted.sort_unstable();
    Ok(Some(inputs))
}

fn actions(
    table: &Table,
    clock: &dyn Clock,
    inputs: &Inputs,
    rewritten: &Rewritten,
) -> Result<Vec<Action>, LakeError> {
    let now = clock.now_unix_micro() / 1_000;
    let live_rows = rewritten.rows - inputs.deleted.len() as u64;
    let mut actions = vec![commit_info(now, inputs, rewritten)];
    actions.extend(inputs.files.iter().map(|file| {
        Action::Remove(Remove {
            path: file.action_path.clone(),
            deletion_timestamp: now,
            data_change: false,
            extended_file_metadata: true,
            partition_values: BTreeMap::new(),
            size: file.size_bytes,
            deletion_vector: file.deletion_vector.clone(),
        })
    }));
    if live_rows == 0 {
        return Ok(actions);
    }
    let vector =
        if inputs.deleted.is_empty() { None } else { Some(write_vector(table, &inputs.deleted)?) };
    let stats = &rewritten.stats;
    actions.push(Action::Add(Add {
        path: rewritten.path.clone(),
        partition_values: BTreeMap::new(),
        size: rewritten.size_bytes,
        modification_time: now,
        data_change: false,
        stats: Some(if vector.is_some() { loose_bounds(stats) } else { stats.clone() }),
        tags: BTreeMap::from([(FORM_TAG.to_owned(), Some(FORM.to_owned()))]),
        deletion_vector: vector,
        clustering_provider: None,
    }));
    Ok(actions)
}

fn commit_info(now: i64, inputs: &Inputs, rewritten: &Rewritten) -> Action {
    let removed: u64 = inputs.files.iter().map(|file| file.size_bytes).sum();
    let metrics = [
        ("numRemovedFiles", inputs.files.len() as u64),
        ("numRemovedBytes", removed),
        ("numAddedFiles", u64::from(0 < rewritten.rows)),
        ("numAddedBytes", rewritten.size_bytes),
    ];
    Action::CommitInfo(CommitInfo {
        operation_parameters: BTreeMap::from([("predicate".to_owned(), "[]".to_owned())]),
        operation_metrics: metrics
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_string()))
            .collect(),
        ..CommitInfo::new("OPTIMIZE", false, now)
    })
}

fn write_vector(table: &Table, deleted: &[u64]) -> Result<DeletionVector, LakeError> {
    let fault = |source| table.kernel("write deletion vector", source);
    let (path, encoded_id) = deletion_vector_file();
    let mut bytes = Vec::new();
    let mut writer = StreamingDeletionVectorWriter::new(&mut bytes);
    let mut vector = KernelDeletionVector::new();
    vector.add_deleted_row_indexes(deleted.iter().copied());
    let written = writer.write_deletion_vector(vector).map_err(fault)?;
    writer.finalize().map_err(fault)?;
    table.files.put_if_absent(&path, &bytes)?;
    Ok(DeletionVector {
        storage_type: "u".to_owned(),
        path_or_inline_dv: encoded_id,
        offset: Some(written.offset),
        size_in_bytes: written.size_in_bytes,
        cardinality: written.cardinality,
    })
}
