//! Which traces a table holds, and where: a bounded index with the table as its truth.
//!
//! The index maps 64-bit fingerprints of trace ids to data files. A fingerprint that is absent
//! proves that the trace is not there; one that is present is verified against the file. Past the
//! bound the index gives up its memory, and every lookup reads the `trace_id` columns instead.
//!
//! Fingerprints are keyed by a secret of the process, since trace ids are chosen by whoever sends
//! them. Two traces may still have the same one: then the files of both are kept, and a lookup tells
//! them apart by the ids in these files.
//!
//! When other archivers amend traces too, their rows turn up in further files; then each of the
//! files that had one is looked at, not the whole table.
//!
//! Rows come back as well: a `RESTORE` takes deletion vectors off and makes files live again. So a
//! file is read anew when its vector is another than it was, unless this process wrote it.
//!
//! Compaction puts all rows of some files into another one. What was known of files that are live
//! no longer gives way to what is read of those that are.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use tracelake_model::TraceId;

use super::TableSnapshot;
use super::files::{DeletionVector, LiveFile};
use super::fingerprints::Fingerprints;
use crate::data_file::read_trace_ids;
use crate::error::LakeError;

/// What a fingerprint in several files weighs beside these files, in fingerprints.
const SEVERAL_WEIGHT: usize = 3;

/// Files that are remembered beside the live ones.
const SPARE_FILES: usize = 1_000;

/// Where a trace's row lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RowAddress {
    /// Index into the live files that were given.
    pub file: usize,
    /// Row within the file.
    pub row: u64,
}

/// Fingerprints of the traces in the files that were read so far.
#[derive(Debug)]
pub(crate) struct TraceIndex<H = RandomState> {
    /// Most fingerprints held; 16 bytes each at the most.
    limit: usize,
    /// Makes fingerprints, with a key of this process.
    hasher: H,
    fingerprints: Option<Fingerprints>,
    /// Fingerprints that several traces of one file have: none of them can be told to have left it.
    shared: HashSet<u64>,
    /// All files of the fingerprints that were found in more than one.
    several: HashMap<u64, Vec<u32>>,
    /// Length of all lists in `several`.
    several_files: usize,
    /// Those that were live of late.
    files: HashMap<String, KnownFile>,
    /// The id of the next file that is read: none has that of another, also of one that went.
    next_id: u32,
    /// Counts the looks at the live files.
    look: u64,
}

/// A file that was read, or written by this process.
#[derive(Debug)]
struct KnownFile {
    id: u32,
    /// The vector beside which all live rows are known.
    deletion_vector: Option<DeletionVector>,
    /// The last look that had the file with that vector; `None` when the next must read it.
    seen: Option<u64>,
}

impl TraceIndex {
    pub(crate) fn new(limit: usize) -> Self {
        Self::with_hasher(limit, RandomState::new())
    }
}

impl<H: BuildHasher> TraceIndex<H> {
    fn with_hasher(limit: usize, hasher: H) -> Self {
        Self {
            limit,
            hasher,
            fingerprints: Some(Fingerprints::new()),
            shared: HashSet::new(),
            several: HashMap::new(),
            several_files: 0,
            files: HashMap::new(),
            next_id: 0,
            look: 0,
        }
    }

    /// Finds the live rows of `traces` among `files`, the live files of `snapshot`. A trace may
    /// have several rows when several archivers write.
    pub(crate) fn find(
        &mut self,
        snapshot: &TableSnapshot,
        files: &[LiveFile],
        traces: &HashSet<TraceId>,
    ) -> Result<HashMap<TraceId, Vec<RowAddress>>, LakeError> {
        self.learn(snapshot, files)?;
        let candidates = self.candidates(files, traces);
        let keys: HashSet<u64> = traces.iter().map(|trace| self.fingerprint(*trace)).collect();
        let mut found: HashMap<TraceId, Vec<RowAddress>> = HashMap::new();
        for index in candidates {
            let Some(file) = files.get(index) else { continue };
            let deleted = snapshot.deleted_rows(file)?;
            let mut left = keys.clone();
            self.read(snapshot, file, |row, trace| {
                if deleted.binary_search(&row).is_err() {
                    left.remove(&self.fingerprint(trace));
                    if traces.contains(&trace) {
                        found.entry(trace).or_default().push(RowAddress { file: index, row });
                    }
                }
            })?;
            self.note_absent(&file.path, &left);
        }
        Ok(found)
    }

    /// Whether it knows the files of each trace.
    pub(crate) const fn is_whole(&self) -> bool {
        self.fingerprints.is_some()
    }

    /// Notes that a file has no live row with one of these fingerprints, as where another archiver moved it.
    fn note_absent(&mut self, path: &str, keys: &HashSet<u64>) {
        let Some(id) = self.files.get(path).map(|known| known.id) else { return };
        for key in keys {
            let Some(several) = self.several.get_mut(key) else { continue };
            let before = several.len();
            several.retain(|file| *file != id);
            self.several_files -= before - several.len();
            if let ([only], Some(fingerprints)) = (several.as_slice(), &mut self.fingerprints) {
                fingerprints.insert(*key, *only);
                self.several.remove(key);
                self.several_files -= 1;
            }
        }
    }

    /// Which of `files` may have rows of `traces`, by their place; all files were learned.
    pub(crate) fn candidates(&self, files: &[LiveFile], traces: &HashSet<TraceId>) -> Vec<usize> {
        if self.fingerprints.is_none() {
            return (0..files.len()).collect();
        }
        let mut wanted: HashSet<u32> = HashSet::new();
        for trace in traces {
            wanted.extend(self.files_of(self.fingerprint(*trace)));
        }
        let is_wanted = |file: &LiveFile| {
            self.files.get(&file.path).is_some_and(|known| wanted.contains(&known.id))
        };
        (0..files.len()).filter(|index| files.get(*index).is_some_and(is_wanted)).collect()
    }

    /// The files that are known for a fingerprint.
    fn files_of(&self, key: u64) -> Vec<u32> {
        match self.several.get(&key) {
            Some(several) => several.clone(),
            None => {
                self.fingerprints.as_ref().and_then(|known| known.get(key)).into_iter().collect()
            }
        }
    }

    /// Notes that a commit of this process brought a row of `trace` to the file at `path`, and took those
    /// away that the trace had in the files `left`. Whatever else is known of the fingerprint stays: the
    /// trace may have further rows, and another trace the same fingerprint.
    pub(crate) fn note(&mut self, path: &str, trace: TraceId, left: &[&str]) {
        let id = self.known(path, None);
        let key = self.fingerprint(trace);
        let left: Vec<u32> = match self.shared.contains(&key) {
            true => Vec::new(),
            false => left.iter().filter_map(|path| Some(self.files.get(*path)?.id)).collect(),
        };
        if self.files_of(key).contains(&id) {
            // Of another trace, or of another row of this one: the file is in no snapshot before this commit.
            self.shared.insert(key);
        }
        self.add(key, id, &|file| !left.contains(&file));
    }

    /// Notes that a commit of this process deleted rows of a file: it was read before, and what is
    /// live beside `vector` is known.
    pub(crate) fn note_deletions(&mut self, path: &str, vector: &DeletionVector) {
        self.known(path, Some(vector.clone()));
    }

    /// Notes that a commit of this process removed a file: should it come back, it is read anew.
    pub(crate) fn forget(&mut self, path: &str) {
        if let Some(known) = self.files.get_mut(path) {
            known.seen = None;
        }
    }

    /// Notes that all live rows of a file are known. Returns its id.
    fn known(&mut self, path: &str, deletion_vector: Option<DeletionVector>) -> u32 {
        let id = self.files.get(path).map_or(self.next_id, |known| known.id);
        if id == u32::MAX {
            // Ids cannot tell files apart any more.
            self.give_up();
        }
        if self.fingerprints.is_none() {
            return id;
        }
        self.next_id = self.next_id.max(id + 1);
        let known = KnownFile { id, deletion_vector, seen: Some(self.look) };
        self.files.insert(path.to_owned(), known);
        id
    }

    /// Reads the files that changed since the last call, such as other archivers' ones.
    fn learn(&mut self, snapshot: &TableSnapshot, files: &[LiveFile]) -> Result<(), LakeError> {
        if self.fingerprints.is_none() {
            return Ok(());
        }
        let last = self.look;
        self.look = last.saturating_add(1);
        let look = self.look;
        let mut unknown = Vec::new();
        for file in files {
            let is_known = self.files.get_mut(&file.path).is_some_and(|known| {
                // One that was not live for a while has rows that moved to other files and back.
                let same =
                    known.seen == Some(last) && known.deletion_vector == file.deletion_vector;
                known.seen = same.then_some(look);
                same
            });
            if !is_known {
                unknown.push(file);
            }
        }
        if unknown.is_empty() {
            if files.len().saturating_mul(2).saturating_add(SPARE_FILES) < self.files.len() {
                self.forget_dead_files();
            }
            return Ok(());
        }
        let live: HashSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
        self.files.retain(|path, _| live.contains(path.as_str()));
        let live: HashSet<u32> = self.files.values().map(|known| known.id).collect();
        let first_read = self.next_id;
        for file in unknown {
            let deleted = snapshot.deleted_rows(file)?;
            let mut traces = Vec::new();
            self.read(snapshot, file, |row, trace| {
                if deleted.binary_search(&row).is_err() {
                    traces.push(trace);
                }
            })?;
            let id = self.known(&file.path, file.deletion_vector.clone());
            let is_live = |known: u32| live.contains(&known) || first_read <= known;
            let mut keyed: Vec<(u64, [u8; 16])> =
                traces.into_iter().map(|trace| (self.fingerprint(trace), trace.0)).collect();
            keyed.sort_unstable();
            let same = |pair: &&[(u64, [u8; 16])]| matches!(pair, [one, other] if one.0 == other.0 && one.1 != other.1);
            self.shared
                .extend(keyed.windows(2).filter(same).filter_map(|pair| Some(pair.first()?.0)));
            for (key, _) in keyed {
                self.add(key, id, &is_live);
            }
        }
        Ok(())
    }

    /// Forgets the files that the last look did not have. Should one come back it is read anew.
    fn forget_dead_files(&mut self) {
        let look = self.look;
        self.files.retain(|_, known| known.seen == Some(look));
        let live: HashSet<u32> = self.files.values().map(|known| known.id).collect();
        self.several.retain(|key, several| {
            several.retain(|file| live.contains(file));
            if let ([only], Some(fingerprints)) = (several.as_slice(), &mut self.fingerprints) {
                fingerprints.insert(*key, *only);
            }
            1 < several.len()
        });
        self.several_files = self.several.values().map(Vec::len).sum();
        if let Some(fingerprints) = &mut self.fingerprints {
            fingerprints
                .retain(|key, file| live.contains(&file) || self.several.contains_key(&key));
            self.shared.retain(|key| fingerprints.get(*key).is_some());
        }
    }

    /// Notes one more file for a fingerprint, beside those that `keep` says yes to.
    fn add(&mut self, key: u64, file: u32, keep: &dyn Fn(u32) -> bool) {
        let Some(fingerprints) = &mut self.fingerprints else { return };
        let known = fingerprints.get(key);
        let several = self.several.remove(&key);
        self.several_files -= several.as_ref().map_or(0, Vec::len);
        let mut all = several.unwrap_or_else(|| known.into_iter().collect());
        all.retain(|known| *known != file && keep(*known));
        all.push(file);
        fingerprints.insert(key, all.first().copied().unwrap_or(file));
        if 1 < all.len() {
            self.several_files += all.len();
            self.several.insert(key, all);
        }
        self.keep_bound();
    }

    /// Gives the memory up when it is past the bound.
    fn keep_bound(&mut self) {
        let held = self.fingerprints.as_ref().map_or(0, Fingerprints::len);
        let several = (self.several.len() + self.shared.len()).saturating_mul(SEVERAL_WEIGHT);
        if self.limit < held.saturating_add(several).saturating_add(self.several_files) {
            self.give_up();
        }
    }

    fn give_up(&mut self) {
        self.fingerprints = None;
        self.shared = HashSet::new();
        self.several = HashMap::new();
        self.several_files = 0;
        self.files = HashMap::new();
    }

    fn fingerprint(&self, trace: TraceId) -> u64 {
        self.hasher.hash_one(trace.0)
    }

    fn read(
        &self,
        snapshot: &TableSnapshot,
        file: &LiveFile,
        mut found: impl FnMut(u64, TraceId),
    ) -> Result<(), LakeError> {
        let opened = snapshot.table().files.open(&file.path)?;
        read_trace_ids(opened, |row, text| {
            if let Some(trace) = TraceId::parse(text) {
                found(row, trace);
            }
        })
        .map_err(|source| LakeError::Parquet {
            action: "read trace ids of",
            path: file.path.clone(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(number: usize) -> TraceId {
        TraceId((number as u128).to_be_bytes())
    }

    /// Scenario: a trace whose row moves to another file for each of many commits, as in an
    /// archiver that amends for months while a compaction takes the old files away.
    /// Guarantees: what is held is bounded by the live files and traces, and each is still found.
    #[test]
    fn what_is_held_follows_the_live_files() {
        let mut index = TraceIndex::new(100);
        for round in 0..5 * SPARE_FILES {
            index.look += 1;
            let before = round.saturating_sub(7);
            let left = [format!("file {before}"), format!("other {before}")];
            index.note(&format!("file {round}"), trace(round % 7), &[&left[0], &left[1]]);
            // Another archiver's file has it as well.
            let other = index.known(&format!("other {round}"), None);
            index.add(index.fingerprint(trace(round % 7)), other, &|_| true);
            if SPARE_FILES < index.files.len() {
                index.forget_dead_files();
            }
        }
        assert!(index.files.len() <= SPARE_FILES + 2, "{}", index.files.len());
        assert!(index.fingerprints.as_ref().is_some_and(|held| held.len() <= 7));
        assert!(index.several_files <= 14, "{}", index.several_files);
        assert_eq!(index.several_files, index.several.values().map(Vec::len).sum::<usize>());
    }

    /// Scenario: one trace in more files than the bound allows.
    /// Guarantees: the index gives its memory up.
    #[test]
    fn many_files_of_one_trace_count() {
        let mut index = TraceIndex::new(100);
        for round in 0..200 {
            let file = index.known(&format!("file {round}"), None);
            index.add(index.fingerprint(trace(1)), file, &|_| true);
        }
        assert!(index.fingerprints.is_none() && index.files.is_empty());
    }

    /// A hasher that gives every trace the same fingerprint.
    #[derive(Clone, Copy, Debug, Default)]
    struct Alike;

    impl std::hash::Hasher for Alike {
        fn finish(&self) -> u64 {
            7
        }

        fn write(&mut self, _: &[u8]) {}
    }

    fn live(path: &str) -> LiveFile {
        LiveFile {
            action_path: path.to_owned(),
            path: path.to_owned(),
            size_bytes: 0,
            modification_time: 0,
            stats: None,
            record_count: None,
            deletion_vector: None,
            tags: std::collections::BTreeMap::new(),
            clustering_provider: None,
        }
    }

    fn found<H: BuildHasher>(index: &TraceIndex<H>, files: &[&str], number: usize) -> Vec<usize> {
        let files: Vec<LiveFile> = files.iter().map(|path| live(path)).collect();
        index.candidates(&files, &HashSet::from([trace(number)]))
    }

    /// Scenario: traces of one fingerprint, appended to a file together and alone, then amended in turn.
    /// Guarantees: the files of each are looked at as long as it has a row there.
    #[test]
    fn traces_of_one_fingerprint_are_kept_beside_one_another() {
        let mut index =
            TraceIndex::with_hasher(100, std::hash::BuildHasherDefault::<Alike>::default());
        index.note("one", trace(1), &[]);
        index.note("two", trace(2), &[]);
        assert_eq!(found(&index, &["one", "two"], 1), [0, 1]);
        index.note("three", trace(1), &["one"]);
        assert_eq!(found(&index, &["one", "two", "three"], 2), [1, 2]);
        index.note("both", trace(3), &[]);
        index.note("both", trace(4), &[]);
        // Whether `both` has another trace of the fingerprint cannot be told: it stays.
        index.note("four", trace(3), &["both"]);
        assert_eq!(found(&index, &["two", "three", "both", "four"], 4), [0, 1, 2, 3]);
    }

    /// Scenario: two indexes of the same traces.
    /// Guarantees: their fingerprints differ, so that nobody outside can choose ids that share one.
    #[test]
    fn fingerprints_are_keyed() {
        let (one, other) = (TraceIndex::new(10), TraceIndex::new(10));
        assert!((0..10).any(|id| one.fingerprint(trace(id)) != other.fingerprint(trace(id))));
    }
}
