//! Tests of the journal as a whole.

mod damage;
mod device;
mod faults;
mod model;
mod reuse;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::{
    Event, Journal, JournalError, JournalOptions, Receiver, RecordBytes, Recovered, SegmentNumber,
    Sequence, SimulatedFs,
};

const DIR: &str = "/journal";

fn runtime() -> Runtime {
    Builder::new_current_thread().build().unwrap()
}

fn open(fs: &SimulatedFs) -> (Journal<u64>, Receiver<u64>, Recovered) {
    Journal::open_on(Arc::new(fs.clone()), JournalOptions::new(DIR)).unwrap()
}

/// A record that says which one it is, and is as long as `id` asks for.
fn record(id: u64) -> RecordBytes {
    let long = if id.is_multiple_of(5) { 5000 } else { 10 };
    let payload: Vec<u8> = id
        .to_le_bytes()
        .into_iter()
        .cycle()
        .take(8 + usize::try_from(id % 7).unwrap() * long)
        .collect();
    RecordBytes { header: Bytes::from(format!("record {id}")), payload: payload.into() }
}

fn id_of(record: &RecordBytes) -> u64 {
    let text = std::str::from_utf8(&record.header).unwrap();
    let id = text.strip_prefix("record ").unwrap().parse().unwrap();
    assert_eq!(*record, self::record(id), "record {id} is altered");
    id
}

/// Appends all of `ids` as one group, so that tests do not depend on timing.
fn append_group(journal: &Journal<u64>, ids: &[u64]) -> Vec<Result<Sequence, JournalError>> {
    let shared = journal.shared();
    let replies: Vec<_> = {
        let mut queue = shared.queue();
        let submit = |id: &u64| {
            let record = record(*id);
            let crc = record.body_crc();
            journal.submit(&mut queue, record, crc, *id)
        };
        ids.iter().map(submit).collect()
    };
    shared.wake.notify_one();
    let wait = |reply: oneshot::Receiver<_>| {
        reply.blocking_recv().unwrap_or_else(|_| Err(shared.stopped()))
    };
    replies.into_iter().map(|reply| reply.and_then(wait)).collect()
}

fn append_ok(journal: &Journal<u64>, ids: &[u64]) {
    for result in append_group(journal, ids) {
        result.unwrap();
    }
}

fn rotate(journal: &Journal<u64>) -> Result<SegmentNumber, JournalError> {
    runtime().block_on(journal.rotate())
}

fn ids_in_segment(journal: &Journal<u64>, segment: SegmentNumber) -> Vec<u64> {
    let records = journal.read_segment(segment).unwrap();
    records.map(|record| id_of(&record.unwrap())).collect()
}

/// Takes the events that are there: `Ok` for a record's id, `Err` for a sealed segment.
fn events(receiver: &mut Receiver<u64>) -> Vec<Result<u64, SegmentNumber>> {
    let mut out = Vec::new();
    while let Some(event) = receiver.try_recv() {
        out.push(match event {
            Event::Appended { record, attachment, .. } => {
                assert_eq!(id_of(&record), attachment);
                Ok(attachment)
            }
            Event::Sealed { segment } => Err(segment),
        });
    }
    out
}

fn segment_path(number: u64) -> std::path::PathBuf {
    Path::new(DIR).join(format!("segment-{number:020}.journal"))
}
