//! The files that the log names, in storage.

use std::path::{Component, Path};

use tracelake_lake::{LiveFile, TableSnapshot};
use tracelake_model::names::printable;

use super::{Finding, units};

/// Data files that are looked at, spread over all of them.
const MAX_FILES: usize = 10_000;

/// Deletion vectors that are read.
const MAX_VECTORS: usize = 1_000;

const HINT: &str = "bring it back from a backup; `DeltaTable(PATH).repair()` of deltalake takes \
                    missing files out of the log, and the traces in them with it";

/// Whether each data file is there with the size that the log says, and each deletion vector can
/// be read.
pub(super) fn judge(snapshot: &TableSnapshot) -> Finding {
    let files = match snapshot.live_files((None, None)) {
        Ok(files) => files,
        Err(error) => {
            return Finding::failed(
                error.to_string(),
                "bring the missing or damaged files of `_delta_log` back from a backup",
            );
        }
    };
    let looked_at = spread(&files, MAX_FILES);
    let mut faults: Vec<String> =
        looked_at.iter().filter_map(|file| fault_of(snapshot, file)).collect();
    let with_vector: Vec<&LiveFile> =
        files.iter().filter(|file| file.deletion_vector.is_some()).collect();
    let vectors = spread(&with_vector, MAX_VECTORS);
    faults.extend(vectors.iter().filter_map(|file| {
        let error = snapshot.deleted_rows(file).err()?;
        Some(format!("deletion vector of `{}`: {error}", printable(&file.path)))
    }));
    if let Some(first) = faults.first() {
        let more = match faults.len() {
            1 => String::new(),
            many => format!("; and {} more", units::count(many - 1, "fault")),
        };
        return Finding::failed(format!("{first}{more}"), HINT);
    }
    let size: u64 = files.iter().map(|file| file.size_bytes).sum();
    let seen = if looked_at.len() < files.len() {
        format!(", {} of them looked at", looked_at.len())
    } else {
        String::new()
    };
    Finding::ok(format!("{}, {}{seen}", units::count(files.len(), "file"), units::bytes(size)))
}

/// At most `most` of `all`, evenly spread.
fn spread<T>(all: &[T], most: usize) -> Vec<&T> {
    let step = all.len().div_ceil(most).max(1);
    all.iter().step_by(step).collect()
}

fn fault_of(snapshot: &TableSnapshot, file: &LiveFile) -> Option<String> {
    let shown = printable(&file.path);
    let path = Path::new(&file.path);
    if !path.components().all(|part| matches!(part, Component::Normal(_))) {
        return Some(format!("data file `{shown}` is not in the table's folder"));
    }
    match std::fs::metadata(snapshot.table().location().folder().join(path)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Some(format!("data file `{shown}` is missing"))
        }
        Err(error) => Some(format!("data file `{shown}`: {error}")),
        Ok(metadata) if !metadata.is_file() => Some(format!("data file `{shown}` is no file")),
        Ok(metadata) if metadata.len() != file.size_bytes => Some(format!(
            "data file `{shown}` has {} bytes, the log says {}",
            metadata.len(),
            file.size_bytes
        )),
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: fewer, as many and more than the limit.
    /// Guarantees: never more than the limit, all where they fit, the first always.
    #[test]
    fn samples_are_spread_and_bounded() {
        let all: Vec<usize> = (0..25).collect();
        assert_eq!(spread(&all, 25).len(), 25);
        assert_eq!(spread(&all, 10), [&0, &3, &6, &9, &12, &15, &18, &21, &24]);
        assert!(spread::<usize>(&[], 10).is_empty());
    }
}
