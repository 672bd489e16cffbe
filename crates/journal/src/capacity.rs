//! Counts what the journal holds, on disk and in memory, against its limits.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters shared by the callers, the writer thread and the consumer.
///
/// Bytes are added to their new place before they leave the old one, so that a reader between the
/// two steps sees too much, never too little.
#[derive(Debug)]
pub(crate) struct Capacity {
    budget_bytes: u64,
    /// Bytes of all files in the folder, but for the lock file.
    on_disk: AtomicU64,
    /// Those of them that wait to be written over.
    spare: AtomicU64,
    /// Bytes that waiting records will take on disk.
    promised: AtomicU64,
    /// Bytes of durable records that the consumer has not taken yet.
    undelivered: AtomicU64,
}

impl Capacity {
    pub(crate) const fn new(budget_bytes: u64, on_disk: u64) -> Self {
        Self {
            budget_bytes,
            on_disk: AtomicU64::new(on_disk),
            spare: AtomicU64::new(0),
            promised: AtomicU64::new(0),
            undelivered: AtomicU64::new(0),
        }
    }

    pub(crate) const fn budget_bytes(&self) -> u64 {
        self.budget_bytes
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        load(&self.on_disk).saturating_add(load(&self.promised))
    }

    /// What waits to be written over stands in nobody's way.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        let used = self.used_bytes().saturating_sub(load(&self.spare));
        used.saturating_add(bytes) <= self.budget_bytes
    }

    pub(crate) fn promise(&self, bytes: u64) {
        add(&self.promised, bytes);
    }

    pub(crate) fn release_promise(&self, bytes: u64) {
        subtract(&self.promised, bytes);
    }

    pub(crate) fn promised_bytes(&self) -> u64 {
        load(&self.promised)
    }

    pub(crate) fn grow_disk(&self, bytes: u64) {
        add(&self.on_disk, bytes);
    }

    pub(crate) fn shrink_disk(&self, bytes: u64) {
        subtract(&self.on_disk, bytes);
    }

    pub(crate) fn grow_spare(&self, bytes: u64) {
        add(&self.spare, bytes);
    }

    pub(crate) fn shrink_spare(&self, bytes: u64) {
        subtract(&self.spare, bytes);
    }

    pub(crate) fn undelivered_bytes(&self) -> u64 {
        load(&self.undelivered)
    }

    pub(crate) fn add_undelivered(&self, bytes: u64) {
        add(&self.undelivered, bytes);
    }

    pub(crate) fn take_undelivered(&self, bytes: u64) {
        subtract(&self.undelivered, bytes);
    }

    /// Nobody takes events any more, so none of them occupies memory.
    pub(crate) fn forget_undelivered(&self) {
        self.undelivered.store(0, Ordering::SeqCst);
    }
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::SeqCst)
}

fn add(counter: &AtomicU64, bytes: u64) {
    counter.fetch_add(bytes, Ordering::SeqCst);
}

/// Never wraps: a counter that is too low for a moment must not turn into an endless one.
fn subtract(counter: &AtomicU64, bytes: u64) {
    counter.update(Ordering::SeqCst, Ordering::SeqCst, |value| value.saturating_sub(bytes));
}
