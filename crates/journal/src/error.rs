//! Why a journal operation failed, and what the caller may do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::SegmentNumber;

/// Why a journal operation failed, with what the operator needs to act.
///
/// Clonable, because one failed write answers every request of its group. A variant's own sentence
/// leaves out what its source says, which a reader takes from [`std::error::Error::source`].
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// Another process (or another journal of this one) owns the folder. Stop that one first.
    #[error("journal folder `{}` is in use by {}", dir.display(), describe_holder(*pid))]
    InUse {
        /// The folder that was to be opened.
        dir: PathBuf,
        /// The process that holds the lock, where it could be read.
        pid: Option<u32>,
    },
    /// The files of the journal take the whole budget. Try again once segments were deleted.
    #[error("journal is over budget: {used} bytes used, {requested} asked for, {budget} allowed")]
    OverBudget {
        /// Bytes on disk and promised to waiting records.
        used: u64,
        /// Bytes that the refused record would take.
        requested: u64,
        /// The limit, in bytes.
        budget: u64,
    },
    /// Too much waits to be written, or to be taken by the consumer. Try again soon.
    #[error("journal is busy: {requests} requests and {bytes} bytes wait")]
    Busy {
        /// Requests that wait to be written.
        requests: usize,
        /// Bytes that wait to be written or to be taken by the consumer.
        bytes: u64,
    },
    /// The record is longer than the journal accepts. Retrying it cannot help.
    #[error("record of {bytes} bytes is over the limit of {limit} bytes")]
    RecordTooLarge {
        /// Length of header and payload together.
        bytes: u64,
        /// The limit for both together.
        limit: u64,
    },
    /// The device has no room. Nothing of the record was kept; try again once there is room.
    #[error("no room on the device for `{}`", path.display())]
    DiskFull {
        /// The file that could not grow.
        path: PathBuf,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// `fdatasync` failed, so nobody knows what is on disk. The record is not acknowledged; the
    /// journal goes on in a new segment, where it may be sent again.
    #[error("sync of segment {segment} failed")]
    SyncFailed {
        /// The segment that was given up.
        segment: SegmentNumber,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// A write failed for another reason than a full device. As [`JournalError::SyncFailed`].
    #[error("write to segment {segment} failed")]
    WriteFailed {
        /// The segment that was given up.
        segment: SegmentNumber,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// The file system failed while doing `action`, such as `list`, on `path`.
    #[error("{action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder it was tried on.
        path: PathBuf,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// The file was written by a later version of the format. Use a program that knows it.
    #[error("`{}` has format version {found}, supported is {supported} at most", path.display())]
    UnsupportedVersion {
        /// The file.
        path: PathBuf,
        /// The version that its header names.
        found: u32,
        /// The highest version that this build reads.
        supported: u32,
    },
    /// Numbers or positions have run out, as a file with absurd ones makes them. Move that file
    /// away: nothing that the journal writes comes near.
    #[error("no numbers left after segment {segment} and position {position}")]
    OutOfNumbers {
        /// The segment that was to be made or written.
        segment: SegmentNumber,
        /// The sequence number that it was to go on with.
        position: u64,
    },
    /// A whole header names another number than the file name: somebody renamed or copied it.
    #[error("`{}` is by its header the file of segment {found}", path.display())]
    Mislabelled {
        /// The file.
        path: PathBuf,
        /// The number in its header.
        found: SegmentNumber,
    },
    /// The operation asks for a sealed segment and this one is not. A mistake of the caller.
    #[error("segment {segment} is not sealed, the active one is {active}")]
    NotSealed {
        /// The segment asked for.
        segment: SegmentNumber,
        /// The segment that takes records now.
        active: SegmentNumber,
    },
    /// The journal could not open a segment after it gave one up, so it takes no records until
    /// [`Journal::heal`](crate::Journal::heal) has made one.
    #[error("journal takes no records: no segment to follow {segment}, which was given up")]
    Failed {
        /// The segment that was given up.
        segment: SegmentNumber,
        /// Why none could be opened.
        source: Arc<Self>,
    },
    /// The thread that writes ended by a defect, so the journal takes no more work. Open it anew.
    #[error("writer thread of the journal stopped")]
    WriterStopped,
    /// The journal was closed, so it takes no more work.
    #[error("journal is closed")]
    Closed,
}

impl JournalError {
    /// Whether a limit was reached, so that senders should slow down (HTTP 429).
    #[must_use]
    pub const fn is_at_capacity(&self) -> bool {
        matches!(self, Self::OverBudget { .. } | Self::Busy { .. } | Self::DiskFull { .. })
    }

    /// Sorts a failure of `action` on `path`: a full device is told apart from all else.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        if is_disk_full(&source) {
            return Self::DiskFull { path, source: Arc::new(source) };
        }
        Self::Io { action, path, source: Arc::new(source) }
    }
}

/// Whether the device, a quota or a file size limit is what stopped the write.
pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull, WriteZero};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge | WriteZero)
}

fn describe_holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}
