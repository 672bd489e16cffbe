//! How much is let in at once: body caps and the bytes in work.
//!
//! A body is read piece by piece and never held beyond its limit. Every byte held is counted from
//! its arrival until the request is answered, so that many large bodies at once meet 429 and not
//! the end of memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tracelake_model::Overload;

use crate::error::IntakeError;

/// Bytes past the limit that are read and thrown away, so that a client that sends first and
/// listens after gets the answer instead of a reset connection.
const MAX_DRAINED_BYTES: u64 = 64 << 20;
const MAX_DRAIN_TIME: Duration = Duration::from_secs(10);

/// Counts the bytes of all requests in work against one limit.
#[derive(Debug)]
pub struct InFlightBytes {
    limit: u64,
    held: AtomicU64,
}

impl InFlightBytes {
    /// Nothing in work, at most `limit` bytes.
    #[must_use]
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, held: AtomicU64::new(0) })
    }

    /// Bytes in work.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.held.load(Ordering::SeqCst)
    }

    /// Starts to count for one request.
    #[must_use]
    pub fn reserve(self: &Arc<Self>) -> Reservation {
        Reservation { gauge: Arc::clone(self), bytes: 0 }
    }
}

/// The bytes of one request in work; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    gauge: Arc<InFlightBytes>,
    bytes: u64,
}

impl Reservation {
    /// Counts `bytes` more. A request that is alone is never refused.
    fn grow(&mut self, bytes: u64, retry_after: Duration) -> Result<(), Overload> {
        let held = self.gauge.held.fetch_add(bytes, Ordering::SeqCst).saturating_add(bytes);
        self.bytes += bytes;
        if self.gauge.limit < held && self.bytes < held {
            return Err(Overload { retry_after });
        }
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.gauge.held.fetch_sub(self.bytes, Ordering::SeqCst);
    }
}

/// Reads a body of at most `limit_bytes`.
///
/// # Errors
/// [`IntakeError::BodyTooLarge`], [`IntakeError::BodyBroken`], [`IntakeError::Overloaded`].
pub(crate) async fn read_body(
    mut body: Body,
    declared_bytes: Option<u64>,
    limit_bytes: u64,
    reservation: &mut Reservation,
    retry_after: Duration,
) -> Result<Bytes, IntakeError> {
    if declared_bytes.is_some_and(|bytes| limit_bytes.saturating_add(MAX_DRAINED_BYTES) < bytes) {
        return Err(IntakeError::BodyTooLarge { limit_bytes });
    }
    let mut pieces = Pieces::of_declared(declared_bytes);
    let mut received_bytes = 0_u64;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Err(IntakeError::BodyBroken { received_bytes }) };
        let Ok(piece) = frame.into_data() else { continue };
        let length = piece.len() as u64;
        received_bytes += length;
        if limit_bytes < received_bytes {
            drop(pieces);
            drain(body).await;
            return Err(IntakeError::BodyTooLarge { limit_bytes });
        }
        if let Err(Overload { retry_after }) = reservation.grow(length, retry_after) {
            drop(pieces);
            drain(body).await;
            return Err(IntakeError::Overloaded { retry_after });
        }
        pieces.push(piece);
    }
    Ok(pieces.finish())
}

/// Reads on without keeping anything, up to a bound.
pub(super) async fn drain(mut body: Body) {
    let mut drained = 0_u64;
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            drained += frame.data_ref().map_or(0, Bytes::len) as u64;
            if MAX_DRAINED_BYTES < drained {
                return;
            }
        }
    };
    // Past the time the connection is simply closed.
    tokio::time::timeout(MAX_DRAIN_TIME, reading).await.unwrap_or_default();
}

/// Pieces of a body; one alone is not copied.
#[derive(Default)]
struct Pieces {
    declared_bytes: usize,
    first: Bytes,
    joined: BytesMut,
}

/// What a declared length makes room for at once; a longer body has to come before it takes memory.
const MAX_ROOM_AT_ONCE: usize = 4 << 20;

impl Pieces {
    fn of_declared(bytes: Option<u64>) -> Self {
        let declared = bytes.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or_default();
        Self { declared_bytes: declared.min(MAX_ROOM_AT_ONCE), ..Self::default() }
    }

    fn push(&mut self, piece: Bytes) {
        if self.first.is_empty() && self.joined.is_empty() {
            self.first = piece;
            return;
        }
        if self.joined.is_empty() {
            let room = self.declared_bytes.max(2 * (self.first.len() + piece.len()));
            self.joined = BytesMut::with_capacity(room);
            self.joined.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.joined.extend_from_slice(&piece);
    }

    fn finish(self) -> Bytes {
        if self.joined.is_empty() { self.first } else { self.joined.freeze() }
    }
}
