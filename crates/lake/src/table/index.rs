//! Which traces a table holds, and where: a bounded index with the table as its truth.
//!
//! The index maps 64-bit fingerprints of trace ids to data files. A fingerprint that is absent
//! proves that the trace is not there; one that is present is verified against the file. Past the
//! bound the index gives up its memory, and every lookup reads the `trace_id` columns instead.
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
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

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
pub(crate) struct TraceIndex {
    /// Most fingerprints held; 16 bytes each at the most.
    limit: usize,
    fingerprints: Option<Fingerprints>,
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
        Self {
            limit,
            fingerprints: Some(Fingerprints::new()),
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
        let mut found: HashMap<TraceId, Vec<RowAddress>> = HashMap::new();
        for index in candidates {
            let Some(file) = files.get(index) else { continue };
            let deleted = snapshot.deleted_rows(file)?;
            self.read(snapshot, file, |row, trace| {
                if traces.contains(&trace) && deleted.binary_search(&row).is_err() {
                    found.entry(trace).or_default().push(RowAddress { file: index, row });
                }
            })?;
        }
        Ok(found)
    }

    /// Which of `files` may have rows of `traces`, by their place; all files were learned.
    pub(crate) fn candidates(&self, files: &[LiveFile], traces: &HashSet<TraceId>) -> Vec<usize> {
        let Some(fingerprints) = &self.fingerprints else { return (0..files.len()).collect() };
        let mut wanted: HashSet<u32> = HashSet::new();
        for key in traces.iter().map(|trace| fingerprint(*trace)) {
            match self.several.get(&key) {
                Some(several) => wanted.extend(several),
                None => wanted.extend(fingerprints.get(key)),
            }
        }
        let is_wanted = |file: &LiveFile| {
            self.files.get(&file.path).is_some_and(|known| wanted.contains(&known.id))
        };
        (0..files.len()).filter(|index| files.get(*index).is_some_and(is_wanted)).collect()
    }

    /// Notes the traces of a file that this process committed: their rows are there and nowhere
    /// else, as an amendment deletes the row that it replaces.
    pub(crate) fn note(&mut self, path: &str, traces: impl Iterator<Item = TraceId>) {
        let id = self.known(path, None);
        for trace in traces {
            let Some(fingerprints) = &mut self.fingerprints else { return };
            let key = fingerprint(trace);
            fingerprints.insert(key, id);
            let several = self.several.remove(&key);
            self.several_files -= several.map_or(0, |several| several.len());
            self.keep_bound();
        }
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
            for trace in traces {
                self.add(trace, id, &is_live);
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
        }
    }

    /// Notes one more file that has a row of the trace, beside those that are live.
    fn add(&mut self, trace: TraceId, file: u32, is_live: &dyn Fn(u32) -> bool) {
        let Some(fingerprints) = &mut self.fingerprints else { return };
        let key = fingerprint(trace);
        let known = fingerprints.get(key);
        let several = self.several.remove(&key);
        self.several_files -= several.as_ref().map_or(0, Vec::len);
        let mut all = several.unwrap_or_else(|| known.into_iter().collect());
        all.retain(|known| *known != file && is_live(*known));
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
        let several = self.several.len().saturating_mul(SEVERAL_WEIGHT);
        if self.limit < held.saturating_add(several).saturating_add(self.several_files) {
            self.give_up();
        }
    }

    fn give_up(&mut self) {
        self.fingerprints = None;
        self.several = HashMap::new();
        self.several_files = 0;
        self.files = HashMap::new();
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

fn fingerprint(trace: TraceId) -> u64 {
    // A fixed hasher: the low bytes alone would collide for tracers with 64-bit ids.
    BuildHasherDefault::<DefaultHasher>::default().hash_one(trace.0)
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
            index.note(&format!("file {round}"), std::iter::once(trace(round % 7)));
            // Another archiver's file has it as well.
            let other = index.known(&format!("other {round}"), None);
            index.add(trace(round % 7), other, &|_| true);
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
            index.add(trace(1), file, &|_| true);
        }
        assert!(index.fingerprints.is_none() && index.files.is_empty());
    }
}
