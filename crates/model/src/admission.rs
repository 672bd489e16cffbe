//! Whether more may come in, by the word of those who would have to hold it.

use std::time::Duration;

/// Says whether more may come in. Asked before a body is read.
pub trait Admission: std::fmt::Debug + Send + Sync {
    /// Whether a request of `bytes` (0 when unknown) may come in now.
    ///
    /// # Errors
    /// [`Overload`] when it may not, with the time after which to ask again.
    fn admit(&self, bytes: u64) -> Result<(), Overload>;
}

/// Too much is in work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overload {
    /// When to come back.
    pub retry_after: Duration,
}
