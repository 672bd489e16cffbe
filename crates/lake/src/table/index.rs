//! Which traces a table holds, and where: a bounded index with the table as its truth.
//!
//! The index maps 64-bit fingerprints of trace ids to data files. A fingerprint that is absent
//! proves that the trace is not there; one that is present is verified against the file. Past the
//! bound the index gives up its memory, and every lookup reads the `trace_id` columns instead.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use tracelake_model::TraceId;

use super::TableSnapshot;
use super::files::LiveFile;
use crate::data_file::read_trace_ids;
use crate::error::LakeError;

/// In place of a file: rows of this fingerprint are in more than one file, look everywhere.
const SEVERAL: u32 = u32::MAX;

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
    /// Most fingerprints held; 24 bytes each.
    limit: usize,
    fingerprints: Option<HashMap<u64, u32>>,
    files: HashMap<String, u32>,
}

impl TraceIndex {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, fingerprints: Some(HashMap::new()), files: HashMap::new() }
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
        let candidates: Vec<usize> = match &self.fingerprints {
            None => (0..files.len()).collect(),
            Some(fingerprints) => {
                let wanted: HashSet<u32> = traces
                    .iter()
                    .filter_map(|trace| fingerprints.get(&fingerprint(*trace)).copied())
                    .collect();
                let everywhere = wanted.contains(&SEVERAL);
                let named = |file: &LiveFile| self.files.get(&file.path);
                (0..files.len())
                    .filter(|index| {
                        everywhere
                            || files
                                .get(*index)
                                .and_then(named)
                                .is_some_and(|id| wanted.contains(id))
                    })
                    .collect()
            }
        };
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

    /// Notes the traces of a file that this process committed: their rows are there and nowhere
    /// else, as an amendment deletes the row that it replaces.
    pub(crate) fn note(&mut self, path: &str, traces: impl Iterator<Item = TraceId>) {
        let id = self.file_id(path);
        for trace in traces {
            self.insert(trace, |_| id);
        }
    }

    fn file_id(&mut self, path: &str) -> u32 {
        let next = u32::try_from(self.files.len()).unwrap_or(SEVERAL);
        *self.files.entry(path.to_owned()).or_insert(next)
    }

    /// Reads the files that are new since the last call, such as other archivers' ones.
    fn learn(&mut self, snapshot: &TableSnapshot, files: &[LiveFile]) -> Result<(), LakeError> {
        if self.fingerprints.is_none() {
            return Ok(());
        }
        for file in files {
            if !self.files.contains_key(&file.path) {
                let deleted = snapshot.deleted_rows(file)?;
                let mut traces = Vec::new();
                self.read(snapshot, file, |row, trace| {
                    if deleted.binary_search(&row).is_err() {
                        traces.push(trace);
                    }
                })?;
                let id = self.file_id(&file.path);
                for trace in traces {
                    self.insert(trace, |known| known.filter(|k| *k != id).map_or(id, |_| SEVERAL));
                }
            }
        }
        Ok(())
    }

    fn insert(&mut self, trace: TraceId, file: impl FnOnce(Option<u32>) -> u32) {
        let Some(fingerprints) = &mut self.fingerprints else { return };
        let key = fingerprint(trace);
        let file = file(fingerprints.get(&key).copied());
        fingerprints.insert(key, file);
        if self.limit < fingerprints.len() {
            self.fingerprints = None;
        }
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
