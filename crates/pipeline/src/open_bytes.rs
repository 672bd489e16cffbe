//! How much there is to do, for those who bring more and for those who should give way.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tracelake_model::{Admission, Overload};

/// What a client is told to wait while open traces fill the memory.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Bytes of spans in open traces, as intake sees them: past the limit requests are refused until
/// tables can be written again, so that a broken table costs no memory without bound. What an epoch
/// is committing counts for nobody's refusal: it is bounded by what was open, and records that come
/// meanwhile by the journal's queue. Requests and commits so run side by side.
#[derive(Debug)]
pub struct OpenBytes {
    open: AtomicUsize,
    in_commit: AtomicUsize,
    limit: usize,
}

impl OpenBytes {
    /// Nothing to do yet; past `limit` bytes of open traces requests are refused.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self { open: AtomicUsize::new(0), in_commit: AtomicUsize::new(0), limit }
    }

    pub(crate) fn set(&self, open: usize, in_commit: usize) {
        self.in_commit.store(in_commit, Ordering::Relaxed);
        self.open.store(open, Ordering::Relaxed);
    }

    fn to_do(&self) -> usize {
        self.open.load(Ordering::Relaxed).saturating_add(self.in_commit.load(Ordering::Relaxed))
    }

    /// True when there is so much to do that other work should take a share only.
    pub(crate) fn is_busy(&self) -> bool {
        self.limit / 8 < self.to_do()
    }

    /// True when there is so much to do that other work should wait.
    pub(crate) fn is_full(&self) -> bool {
        self.limit / 2 < self.to_do()
    }
}

impl Admission for OpenBytes {
    fn admit(&self, _bytes: u64) -> Result<(), Overload> {
        if self.limit < self.open.load(Ordering::Relaxed) {
            Err(Overload { retry_after: RETRY_AFTER })
        } else {
            Ok(())
        }
    }
}
