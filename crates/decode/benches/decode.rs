//! How long it takes to take a request of LLM spans apart, and to read what its spans mean.
#![expect(missing_docs, reason = "criterion's macro makes a public function")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tracelake_decode::conventions::interpret;
use tracelake_decode::{Fingerprinter, SpanSource, decode_otlp};
use tracelake_model::Limits;
use tracelake_testkit::spans::{llm_request, simple_request};

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("llm spans");
    for spans in [10_u64, 1_000] {
        let body = llm_request(spans);
        group.throughput(Throughput::Elements(spans));
        group.bench_function(BenchmarkId::new("decode", spans), |bencher| {
            bencher.iter(|| decode_otlp(black_box(&body), SpanSource::Otlp, &Limits::default()));
        });
        let decoded = decode_otlp(&body, SpanSource::Otlp, &Limits::default());
        let decoded = decoded.map(|decoded| decoded.spans).unwrap_or_default();
        group.bench_function(BenchmarkId::new("interpret", spans), |bencher| {
            bencher.iter(|| {
                for span in &decoded {
                    black_box(interpret(&span.view()));
                }
            });
        });
    }
    group.finish();
}

fn fingerprint(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fingerprint");
    for (name, body) in [("llm", llm_request(1_000)), ("light", simple_request(0, 0..1_000))] {
        let decoded = decode_otlp(&body, SpanSource::Otlp, &Limits::default());
        let decoded = decoded.map(|decoded| decoded.spans).unwrap_or_default();
        let bytes: usize = decoded.iter().map(|span| span.message.len()).sum();
        group.throughput(Throughput::Elements(1_000));
        group.bench_function(BenchmarkId::new(name, bytes / 1_000), |bencher| {
            bencher.iter(|| {
                let mut fingerprinter = Fingerprinter::default();
                for span in black_box(&decoded) {
                    black_box(fingerprinter.span(span));
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, decode, fingerprint);
criterion_main!(benches);
