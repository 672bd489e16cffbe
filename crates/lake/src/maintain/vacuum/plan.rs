//! Which files may go, how old they must be, and which of them are wanted. Pure: no I/O, no clock.

use std::collections::HashMap;
use std::time::Duration;

use super::ExpiredFile;
use crate::layout::{CHANGE_FOLDER, LOG_FOLDER, TEMPORARY_PREFIX, decode_action_path};

/// Property by which a table sets its own retention time; Delta's.
pub(super) const RETENTION_PROPERTY: &str = "delta.deletedFileRetentionDuration";

/// How long files stay that the newest version does not refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VacuumRules {
    /// Unless the table has a time of its own.
    pub after: Duration,
    /// No time is taken that is shorter than this.
    pub minimum: Duration,
}

impl VacuumRules {
    /// Delta's own retention time.
    pub const AFTER: Duration = Duration::from_secs(7 * 86_400);

    /// What no query and no commit takes, and more than the clocks of two machines differ by.
    pub const MINIMUM: Duration = Duration::from_secs(60 * 60);

    /// What no commit takes on a healthy disk. Readers may need longer.
    pub const FORCED_MINIMUM: Duration = Duration::from_secs(60);

    /// The time for a table with this property; `None` when it is not understood.
    pub(super) fn retention(&self, property: Option<&str>) -> Option<Duration> {
        let asked = match property {
            Some(text) => interval(text)?,
            None => self.after,
        };
        Some(asked.max(self.minimum))
    }
}

impl Default for VacuumRules {
    fn default() -> Self {
        Self { after: Self::AFTER, minimum: Self::MINIMUM }
    }
}

/// Spark's `interval 7 days`.
fn interval(text: &str) -> Option<Duration> {
    let text = text.trim().to_ascii_lowercase();
    let mut words = text.strip_prefix("interval").unwrap_or(&text).split_whitespace();
    let number: u64 = words.next()?.parse().ok()?;
    let seconds = match words.next()?.trim_end_matches('s') {
        "week" => 604_800,
        "day" => 86_400,
        "hour" => 3_600,
        "minute" => 60,
        "second" => 1,
        _ => return None,
    };
    words.next().is_none().then(|| Duration::from_secs(number.saturating_mul(seconds)))
}

/// Whether a file of this name, in a folder of the table (the table's own: empty), is of a kind
/// that writers leave behind: data, deletion vectors, change data, and what a crash leaves of them.
pub(super) fn may_go(folder: &str, name: &str) -> bool {
    if name.starts_with(TEMPORARY_PREFIX) || (folder == LOG_FOLDER && is_staged(name)) {
        return true;
    }
    // Checkpoints are data files by their names.
    if folder == LOG_FOLDER || name.starts_with(['_', '.']) {
        return false;
    }
    let is_vector = name.starts_with("deletion_vector_") && name.ends_with(".bin");
    name.ends_with(".parquet") || (is_vector && folder.is_empty())
}

/// Whether it is a file of the log that was not put in its place, such as `_last_checkpoint#1`: so
/// the object store that checkpoints are written with names it.
fn is_staged(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(name, number)| {
        !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
            && (name == "_last_checkpoint" || name.contains(".checkpoint."))
    })
}

/// The path of a file of a folder, both relative to the table's.
pub(super) fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// Files that go unless a version names them.
#[derive(Debug)]
pub(super) struct Candidates(HashMap<String, u64>);

impl Candidates {
    /// By path, with their sizes.
    pub(super) const fn new(files: HashMap<String, u64>) -> Self {
        Self(files)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keeps every file with the last name of a path or URL in the log, percent-encoded or not:
    /// other writers may name a file of the table by a path that is not relative to its folder.
    pub(super) fn keep(&mut self, action_path: &str) {
        for path in [action_path, &decode_action_path(action_path)] {
            let name = path.rsplit('/').next().unwrap_or(path);
            for folder in ["", CHANGE_FOLDER] {
                self.0.remove(&join(folder, name));
            }
        }
    }

    pub(super) fn into_sorted(self) -> Vec<ExpiredFile> {
        let files = self.0.into_iter();
        let mut files: Vec<ExpiredFile> =
            files.map(|(path, size_bytes)| ExpiredFile { path, size_bytes }).collect();
        files.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        files
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    /// Scenario: intervals as Spark writes them, and others.
    /// Guarantees: what is not understood is not taken for a short time.
    #[test]
    fn intervals_are_read() {
        assert_eq!(interval("interval 7 days"), Some(VacuumRules::AFTER));
        assert_eq!(interval("INTERVAL 1 week"), Some(VacuumRules::AFTER));
        assert_eq!(interval("interval 24 hours"), Some(24 * HOUR));
        for odd in ["", "interval", "interval 1 month", "7", "interval 1 day 2 hours", "-1 day"] {
            assert_eq!(interval(odd), None, "{odd}");
        }
    }

    /// Scenario: tables with and without a time of their own, a short one, and one not understood.
    /// Guarantees: the table's wins, whichever is longer; none is below the minimum.
    #[test]
    fn the_table_decides_above_the_minimum() {
        let rules = VacuumRules::default();
        assert_eq!(rules.retention(None), Some(VacuumRules::AFTER));
        assert_eq!(rules.retention(Some("interval 30 days")), Some(30 * 24 * HOUR));
        assert_eq!(rules.retention(Some("interval 2 hours")), Some(2 * HOUR));
        assert_eq!(rules.retention(Some("interval 0 seconds")), Some(HOUR));
        assert_eq!(rules.retention(Some("for ever")), None);
        let short = VacuumRules { after: Duration::ZERO, minimum: VacuumRules::FORCED_MINIMUM };
        assert_eq!(short.retention(None), Some(VacuumRules::FORCED_MINIMUM));
    }

    /// Scenario: names of each kind, in each folder.
    /// Guarantees: only what writers leave may go; the log and what is hidden stays.
    #[test]
    fn only_what_writers_leave_may_go() {
        for (folder, name) in [
            ("", "part-00000-1.c000.snappy.parquet"),
            ("", "deletion_vector_1.bin"),
            ("", ".tmp-1"),
            (CHANGE_FOLDER, "cdc-1.parquet"),
            (CHANGE_FOLDER, ".tmp-1"),
            (LOG_FOLDER, ".tmp-1"),
            (LOG_FOLDER, "_last_checkpoint#1"),
            (LOG_FOLDER, "00000000000000000010.checkpoint.parquet#12"),
        ] {
            assert!(may_go(folder, name), "{folder} {name}");
        }
        for (folder, name) in [
            ("", "_hidden.parquet"),
            ("", ".hidden.parquet"),
            ("", "notes.txt"),
            ("", "other.bin"),
            ("", ".part-1.parquet.crc"),
            (CHANGE_FOLDER, "notes.txt"),
            (LOG_FOLDER, "00000000000000000010.checkpoint.parquet"),
            (LOG_FOLDER, "00000000000000000010.json"),
            (LOG_FOLDER, "_last_checkpoint"),
            (LOG_FOLDER, "_last_checkpoint#"),
            (LOG_FOLDER, "00000000000000000010.json#1"),
        ] {
            assert!(!may_go(folder, name), "{folder} {name}");
        }
    }

    /// Scenario: files that the log names by relative, encoded and absolute paths.
    /// Guarantees: each of them stays; the others come in order.
    #[test]
    fn what_is_named_stays() {
        let names =
            ["b", "a", "a b.parquet", "100%25.parquet", "absolute.parquet", "_change_data/c"];
        let files = names.iter().map(|name| ((*name).to_owned(), 7)).collect();
        let mut candidates = Candidates::new(files);
        for named in [
            "a%20b.parquet",
            "100%2525.parquet",
            "file:///elsewhere/absolute.parquet",
            "_change_data/c",
            "unknown",
        ] {
            candidates.keep(named);
        }
        assert!(!candidates.is_empty());
        let left: Vec<String> = candidates.into_sorted().into_iter().map(|f| f.path).collect();
        assert_eq!(left, ["a", "b"]);
    }
}
