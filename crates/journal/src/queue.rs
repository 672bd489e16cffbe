//! What waits for the writer thread.

use tokio::sync::oneshot;

use crate::error::JournalError;
use crate::segment::{RecordBytes, SegmentNumber, Sequence};

/// A record that waits for its group.
#[derive(Debug)]
pub(crate) struct Pending<T> {
    pub(crate) record: RecordBytes,
    pub(crate) body_crc: u32,
    pub(crate) attachment: T,
    pub(crate) reply: oneshot::Sender<Result<Sequence, JournalError>>,
}

#[derive(Debug)]
pub(crate) enum Request<T> {
    Append(Pending<T>),
    Rotate(oneshot::Sender<Result<SegmentNumber, JournalError>>),
    Heal(oneshot::Sender<Result<(), JournalError>>),
}

#[derive(Debug)]
pub(crate) struct Queue<T> {
    pub(crate) requests: Vec<Request<T>>,
    pub(crate) closed: bool,
    /// Why no records are taken, while that is so.
    pub(crate) failed: Option<JournalError>,
    /// Whether the writer waits, having touched the file system for the last time.
    #[cfg(debug_assertions)]
    pub(crate) idle: bool,
}

impl<T> Queue<T> {
    /// Why the journal takes no work, once it does not.
    pub(crate) fn stopped(&self) -> JournalError {
        self.failed.clone().unwrap_or(JournalError::Closed)
    }
}
