//! Files of segments that are done with, kept to be written over.
//!
//! Pages that are there already cost a fraction of pages that must be found, and the sync of a file
//! whose blocks and length stay as they are has less to write. A spare has a temporary name, durably,
//! before it is known here, so a crash never brings its old one back; opening removes it.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// More are never kept.
const MAX_FILES: usize = 4;

/// A file to be written over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spare {
    pub(crate) path: PathBuf,
    pub(crate) len: u64,
}

/// The files that wait.
#[derive(Debug)]
pub(crate) struct Spares {
    max_bytes: u64,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    files: Vec<Spare>,
    closed: bool,
}

impl Spares {
    /// Room for `max_bytes`.
    pub(crate) fn new(max_bytes: u64) -> Self {
        Self { max_bytes, kept: Mutex::default() }
    }

    /// Whether a file of `len` bytes is worth keeping.
    pub(crate) fn has_room(&self, len: u64) -> bool {
        let kept = self.kept();
        let bytes: u64 = kept.files.iter().map(|spare| spare.len).sum();
        !kept.closed && kept.files.len() < MAX_FILES && bytes.saturating_add(len) <= self.max_bytes
    }

    /// Keeps a file whose temporary name is durable; gives it back when none are kept any more.
    #[must_use]
    pub(crate) fn put(&self, spare: Spare) -> Option<Spare> {
        let mut kept = self.kept();
        if kept.closed {
            return Some(spare);
        }
        kept.files.push(spare);
        None
    }

    /// The one that was written last, whose pages are the likeliest to be in memory.
    pub(crate) fn take(&self) -> Option<Spare> {
        self.kept().files.pop()
    }

    /// The oldest one, when there are more than `count`.
    pub(crate) fn take_beyond(&self, count: usize) -> Option<Spare> {
        let mut kept = self.kept();
        (count < kept.files.len()).then(|| kept.files.remove(0))
    }

    /// Keeps none any more.
    pub(crate) fn close(&self) {
        self.kept().closed = true;
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // No code that holds the lock leaves the list half changed.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
