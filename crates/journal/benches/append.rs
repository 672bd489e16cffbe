//! How long does an append take until it is durable, alone and among many?
//!
//! On the file system of the temporary folder: its `fdatasync` is most of what is measured for
//! lone appends, and is shared by all that wait in a group.
#![expect(clippy::unwrap_used, reason = "a benchmark has nothing better to do with an error")]
#![expect(missing_docs, reason = "the macro of criterion makes a public function")]

use std::sync::Arc;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tokio::task::JoinSet;
use tracelake_journal::{Journal, JournalOptions, RecordBytes};

const PAYLOAD_BYTES: [usize; 2] = [2 << 10, 64 << 10];
const AT_ONCE: [usize; 2] = [1, 64];
/// An epoch is settled whenever so much was appended, so that the disk does not fill up.
const EPOCH_BYTES: u64 = 256 << 20;

fn append(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut group = c.benchmark_group("append");
    for payload_bytes in PAYLOAD_BYTES {
        let payload = Bytes::from(vec![0x5a; payload_bytes]);
        let record = RecordBytes { header: Bytes::from_static(&[7; 64]), payload };
        for at_once in AT_ONCE {
            let dir = tempfile::tempdir().unwrap();
            let (journal, mut receiver, _) =
                Journal::<()>::open(JournalOptions::new(dir.path())).unwrap();
            let consumer = std::thread::spawn(move || while receiver.blocking_recv().is_some() {});
            let journal = Arc::new(journal);
            group.throughput(Throughput::Bytes(u64::try_from(payload_bytes * at_once).unwrap()));
            group.bench_function(
                BenchmarkId::new(format!("{at_once} at once"), payload_bytes),
                |b| {
                    b.iter(|| runtime.block_on(append_at_once(&journal, &record, at_once)));
                },
            );
            journal.close().unwrap();
            drop(journal);
            consumer.join().unwrap();
        }
    }
    group.finish();
}

async fn append_at_once(journal: &Arc<Journal<()>>, record: &RecordBytes, at_once: usize) {
    if EPOCH_BYTES < journal.usage_bytes() {
        let sealed = journal.rotate().await.unwrap();
        journal.delete_through(sealed).unwrap();
    }
    let mut appends = JoinSet::new();
    for _ in 0..at_once {
        let (journal, record) = (Arc::clone(journal), record.clone());
        appends.spawn(async move { journal.append(record, ()).await.unwrap() });
    }
    appends.join_all().await;
}

criterion_group!(benches, append);
criterion_main!(benches);
