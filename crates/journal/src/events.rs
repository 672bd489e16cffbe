//! What the consumer sees, in journal order.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::capacity::Capacity;
use crate::segment::{RecordBytes, SegmentNumber, Sequence};

/// Something that happened in the journal, told to the consumer in journal order.
#[derive(Debug)]
pub enum Event<T> {
    /// A record is durable. Sent before its append is answered.
    Appended {
        /// The segment that holds it.
        segment: SegmentNumber,
        /// Its place in the journal.
        sequence: Sequence,
        /// The bytes.
        record: RecordBytes,
        /// What the appender passed along.
        attachment: T,
    },
    /// Every record of `segment` was sent before this; none follows.
    ///
    /// Also sent without a `rotate`: when a segment has grown to its limit, and when one was
    /// given up because it could not be synced. To the consumer both mean that the epoch ended
    /// early: it may settle it as it stands, or go on and settle it with the next one.
    Sealed {
        /// The segment that takes no more records.
        segment: SegmentNumber,
    },
}

impl<T> Event<T> {
    fn body_len(&self) -> u64 {
        match self {
            Self::Appended { record, .. } => record.body_len(),
            Self::Sealed { .. } => 0,
        }
    }
}

/// Gives the events of a journal to its one consumer.
///
/// The writer never waits for the consumer (it could not answer a `rotate` of that same consumer
/// if it did). Instead appends are refused while too many bytes wait here. Dropping the receiver
/// only ends the telling: appends stay durable, and are replayed when the journal is next opened.
#[derive(Debug)]
pub struct Receiver<T> {
    events: mpsc::UnboundedReceiver<Event<T>>,
    capacity: Arc<Capacity>,
}

impl<T> Receiver<T> {
    /// The next event, or `None` once the journal is closed and all events were taken.
    ///
    /// Cancel safe: an event is either returned or still there. Needs no particular runtime.
    pub async fn recv(&mut self) -> Option<Event<T>> {
        let event = self.events.recv().await;
        self.count(event)
    }

    /// As [`Receiver::recv`], waiting on the calling thread.
    ///
    /// # Panics
    /// When called from within an async runtime, which it would stop.
    pub fn blocking_recv(&mut self) -> Option<Event<T>> {
        let event = self.events.blocking_recv();
        self.count(event)
    }

    /// The next event if one is there already.
    pub fn try_recv(&mut self) -> Option<Event<T>> {
        let event = self.events.try_recv().ok();
        self.count(event)
    }

    fn count(&self, event: Option<Event<T>>) -> Option<Event<T>> {
        if let Some(event) = &event {
            self.capacity.take_undelivered(event.body_len());
        }
        event
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.events.close();
        self.capacity.forget_undelivered();
    }
}

/// The writer's end.
#[derive(Debug)]
pub(crate) struct Sender<T> {
    events: mpsc::UnboundedSender<Event<T>>,
    capacity: Arc<Capacity>,
}

impl<T> Sender<T> {
    pub(crate) fn send(&self, event: Event<T>) {
        let bytes = event.body_len();
        self.capacity.add_undelivered(bytes);
        if self.events.send(event).is_err() {
            self.capacity.take_undelivered(bytes);
        }
    }
}

pub(crate) fn channel<T>(capacity: &Arc<Capacity>) -> (Sender<T>, Receiver<T>) {
    // Bounded by `JournalOptions::undelivered_bytes`, at the door of `append`.
    let (sender, receiver) = mpsc::unbounded_channel();
    let sender = Sender { events: sender, capacity: Arc::clone(capacity) };
    (sender, Receiver { events: receiver, capacity: Arc::clone(capacity) })
}
