//! Plans compaction: which data files are rewritten together.
//!
//! Planning is pure: no I/O, no clock, no failure. It depends on the set of files, not on their
//! order, so two planners that see the same version agree.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::table::LiveFile;

/// Tag of a file that compaction wrote, and the form in which it wrote it.
pub(super) const FORM_TAG: &str = "tracelake.compaction";
/// Another one makes compaction rewrite what was written in this.
pub(super) const FORM: &str = "1";

/// Most files of a group: as many deletion vectors and row addresses are held.
const MAX_FILES: usize = 4_096;

/// A file below this share of the target may be joined with others of its size once more.
const SMALL_SHARE: u64 = 4;

/// Sizes of one tier differ by this factor at most, so that a row is rewritten as often as the
/// target is this factor to some power, not once a round.
const TIER_FACTOR: u64 = 8;

/// Files that reach this share of the target together are worth a version, however few.
const WORTH_SHARE: u64 = 16;

/// Files that waited this long are worth a version, however few and small.
const PATIENCE_MILLI: i64 = 24 * 60 * 60 * 1_000;

/// What is worth a rewrite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionRules {
    /// Bytes of the input files of one output file, at the most, unless one alone has more.
    pub target_bytes: u64,
    /// Files that were written after this moment (milliseconds since the Unix epoch) are left
    /// alone: what is amended is mostly young.
    pub before_unix_milli: i64,
    /// Deleted rows, in percent, from which a compacted file is rewritten; at 0 one is enough.
    pub purge_percent: u64,
    /// Files that are worth a version, however small.
    pub worth_files: usize,
}

impl CompactionRules {
    /// Bytes of one output file unless set otherwise: large enough that a terabyte is a few
    /// thousand files, small enough that one is rewritten in a minute.
    pub const TARGET_BYTES: u64 = 256 << 20;

    /// For a job that runs every few minutes: leaves for later what may gather company.
    #[must_use]
    pub const fn patient(before_unix_milli: i64) -> Self {
        Self {
            target_bytes: Self::TARGET_BYTES,
            before_unix_milli,
            purge_percent: 10,
            worth_files: 8,
        }
    }

    /// For a job that someone asked for: all that makes the table smaller.
    #[must_use]
    pub const fn eager(before_unix_milli: i64) -> Self {
        Self { worth_files: 1, ..Self::patient(before_unix_milli) }
    }
}

/// Files to rewrite as one, in the order of their rows' age.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactionGroup {
    /// Files to replace.
    pub files: Vec<LiveFile>,
    /// Sum of their sizes.
    pub input_bytes: u64,
}

/// Why a file is rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reason {
    /// Compaction did not write it.
    Raw,
    /// Too many of its rows are deleted.
    Purge,
    /// It is small; with others of its tier it makes a larger one.
    Small(u32),
}

/// The groups of files that are worth a rewrite.
#[must_use]
pub fn plan_compaction(files: Vec<LiveFile>, rules: &CompactionRules) -> Vec<CompactionGroup> {
    let mut by_tier: BTreeMap<Option<u32>, Vec<(Reason, LiveFile)>> = BTreeMap::new();
    for file in files {
        let Some(reason) = reason(&file, rules) else { continue };
        let tier = if let Reason::Small(tier) = reason { Some(tier) } else { None };
        by_tier.entry(tier).or_default().push((reason, file));
    }
    let mut groups = Vec::new();
    for (tier, mut files) in by_tier {
        files.sort_by_cached_key(|(_, file)| {
            (oldest_row(file), file.modification_time, file.path.clone())
        });
        for group in cut(files, rules.target_bytes) {
            let worth = match tier {
                Some(_) => rules.worth_files.max(2) <= group.len(),
                None => is_worth(&group, rules),
            };
            if worth {
                let files: Vec<LiveFile> = group.into_iter().map(|(_, file)| file).collect();
                let input_bytes = files.iter().map(|file| file.size_bytes).sum();
                groups.push(CompactionGroup { files, input_bytes });
            }
        }
    }
    groups
}

fn reason(file: &LiveFile, rules: &CompactionRules) -> Option<Reason> {
    if rules.before_unix_milli < file.modification_time {
        return None;
    }
    let form = file.tags.get(FORM_TAG).and_then(Option::as_deref);
    // What another engine clustered is left as it is.
    if form != Some(FORM) && file.clustering_provider.is_none() {
        return Some(Reason::Raw);
    }
    if let Some(vector) = &file.deletion_vector {
        let deleted = u64::try_from(vector.cardinality).unwrap_or_default();
        let rows = file.record_count.unwrap_or(deleted);
        if rows.saturating_mul(rules.purge_percent) <= deleted.saturating_mul(100) {
            return Some(Reason::Purge);
        }
    }
    let is_small = file.size_bytes < rules.target_bytes / SMALL_SHARE;
    is_small.then(|| Reason::Small(file.size_bytes.max(1).ilog(TIER_FACTOR)))
}

/// When the oldest row was archived, as the statistics have it; an ISO text, so it sorts.
fn oldest_row(file: &LiveFile) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Stats {
        min_values: Option<Bounds>,
    }
    #[derive(Deserialize)]
    struct Bounds {
        created_at: Option<String>,
    }
    let stats = file.stats.as_deref().and_then(|stats| serde_json::from_str::<Stats>(stats).ok());
    stats.and_then(|stats| stats.min_values?.created_at).unwrap_or_default()
}

/// Cuts files so that none of the parts is larger than the target.
fn cut(files: Vec<(Reason, LiveFile)>, target_bytes: u64) -> Vec<Vec<(Reason, LiveFile)>> {
    let mut groups: Vec<Vec<(Reason, LiveFile)>> = Vec::new();
    let mut bytes = 0_u64;
    for file in files {
        let size = file.1.size_bytes;
        match groups.last_mut() {
            Some(group)
                if group.len() < MAX_FILES && bytes.saturating_add(size) <= target_bytes =>
            {
                bytes = bytes.saturating_add(size);
                group.push(file);
            }
            _ => {
                bytes = size;
                groups.push(vec![file]);
            }
        }
    }
    groups
}

fn is_worth(group: &[(Reason, LiveFile)], rules: &CompactionRules) -> bool {
    let bytes: u64 = group.iter().map(|(_, file)| file.size_bytes).sum();
    let oldest = group.iter().map(|(_, file)| file.modification_time).min();
    rules.worth_files <= group.len()
        || rules.target_bytes / WORTH_SHARE <= bytes
        || group.iter().any(|(reason, _)| *reason == Reason::Purge)
        || oldest
            .is_some_and(|oldest| oldest.saturating_add(PATIENCE_MILLI) <= rules.before_unix_milli)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::DeletionVector;

    const MIB: u64 = 1 << 20;

    fn file(path: &str, size_bytes: u64, minute: i64) -> LiveFile {
        LiveFile {
            action_path: path.to_owned(),
            path: path.to_owned(),
            size_bytes,
            modification_time: minute * 60_000,
            stats: Some(format!(
                r#"{{"numRecords":100,"minValues":{{"created_at":"2026-01-01T00:{minute:02}:00.000Z"}}}}"#
            )),
            record_count: Some(100),
            deletion_vector: None,
            tags: BTreeMap::new(),
            clustering_provider: None,
        }
    }

    fn compacted(path: &str, size_bytes: u64, minute: i64) -> LiveFile {
        let tags = BTreeMap::from([(FORM_TAG.to_owned(), Some(FORM.to_owned()))]);
        LiveFile { tags, ..file(path, size_bytes, minute) }
    }

    fn with_deleted(file: LiveFile, cardinality: i64) -> LiveFile {
        let deletion_vector = Some(DeletionVector {
            storage_type: "u".to_owned(),
            path_or_inline_dv: "x".to_owned(),
            offset: Some(1),
            size_in_bytes: 1,
            cardinality,
        });
        LiveFile { deletion_vector, ..file }
    }

    fn paths(groups: &[CompactionGroup]) -> Vec<Vec<&str>> {
        groups.iter().map(|group| group.files.iter().map(|f| f.path.as_str()).collect()).collect()
    }

    /// Scenario: raw files in no order, one of them young, one too large for the first group.
    /// Guarantees: groups by the age of rows and the target; the young one waits.
    #[test]
    fn raw_files_are_grouped_by_age_up_to_the_target() {
        let files = vec![
            file("c", 200 * MIB, 3),
            file("young", MIB, 50),
            file("a", 100 * MIB, 1),
            file("b", 100 * MIB, 2),
        ];
        let rules = CompactionRules::patient(10 * 60_000);
        assert_eq!(paths(&plan_compaction(files, &rules)), [vec!["a", "b"], vec!["c"]]);
    }

    /// Scenario: one small raw file, seen by a patient and by an eager job, and a day later.
    /// Guarantees: the patient one waits for company, but not for ever.
    #[test]
    fn a_lone_small_file_waits_for_a_day() {
        let files = || vec![file("a", 1_000, 1)];
        assert!(plan_compaction(files(), &CompactionRules::patient(10 * 60_000)).is_empty());
        assert_eq!(plan_compaction(files(), &CompactionRules::eager(10 * 60_000)).len(), 1);
        let day_later = CompactionRules::patient(60_000 + PATIENCE_MILLI);
        assert_eq!(plan_compaction(files(), &day_later).len(), 1);
    }

    /// Scenario: compacted files of two sizes, eight of the smaller one, and a large one.
    /// Guarantees: those of one tier are joined; what was joined is left alone until there are as
    /// many again, and what is large enough for good.
    #[test]
    fn compacted_files_are_joined_by_tier() {
        let mut files: Vec<LiveFile> =
            (0..8).map(|n| compacted(&format!("s{n}"), 100_000 + n, n.cast_signed())).collect();
        files.push(compacted("m", 10 * MIB, 0));
        files.push(compacted("l", 200 * MIB, 0));
        let rules = CompactionRules::patient(100 * 60_000);
        let groups = plan_compaction(files.clone(), &rules);
        assert_eq!(paths(&groups), [["s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7"].to_vec()]);
        files.remove(0);
        assert!(plan_compaction(files, &rules).is_empty());
    }

    /// Scenario: compacted files with few and with many deleted rows, and one of another engine's
    /// clustering.
    /// Guarantees: those with many are rewritten; at zero percent one deleted row is enough.
    #[test]
    fn deletion_vectors_are_purged_from_a_share() {
        let foreign = LiveFile {
            clustering_provider: Some("liquid".to_owned()),
            ..file("foreign", 100 * MIB, 1)
        };
        let files = vec![
            with_deleted(compacted("few", 100 * MIB, 1), 9),
            with_deleted(compacted("many", 100 * MIB, 2), 10),
            foreign,
        ];
        let rules = CompactionRules::patient(100 * 60_000);
        assert_eq!(paths(&plan_compaction(files.clone(), &rules)), [vec!["many"]]);
        let full = CompactionRules { purge_percent: 0, ..rules };
        assert_eq!(paths(&plan_compaction(files, &full)), [vec!["few", "many"]]);
    }
}
