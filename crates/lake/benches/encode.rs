//! How long it takes to write traces of LLM spans as rows, and to read rows back as OTLP.
#![expect(missing_docs, reason = "criterion's macro makes a public function")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tracelake_decode::{SpanSource, decode_otlp};
use tracelake_lake::rows::{TraceDraft, encode, rebuild_traces};
use tracelake_model::Limits;
use tracelake_testkit::spans::llm_request;

fn drafts(spans: u64) -> Vec<TraceDraft> {
    let decoded = decode_otlp(&llm_request(spans), SpanSource::Otlp, &Limits::default());
    let decoded = decoded.map(|decoded| decoded.spans).unwrap_or_default();
    decoded
        .chunk_by(|left, right| left.trace_id == right.trace_id)
        .map(|spans| TraceDraft {
            trace_id: spans[0].trace_id,
            experiment_id: None,
            run_id: None,
            info: None,
            spans: spans.to_vec(),
            created_at_micros: 1,
            updated_at_micros: 1,
            revision: 1,
            replaces: false,
        })
        .collect()
}

fn rows(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("llm spans");
    for spans in [100_u64, 5_000] {
        let drafts = drafts(spans);
        group.throughput(Throughput::Elements(spans));
        group.bench_function(BenchmarkId::new("encode", spans), |bencher| {
            bencher.iter(|| encode(black_box(&drafts)));
        });
        if let Ok(batch) = encode(&drafts) {
            group.bench_function(BenchmarkId::new("rebuild", spans), |bencher| {
                bencher.iter(|| rebuild_traces(black_box(&batch)));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, rows);
criterion_main!(benches);
