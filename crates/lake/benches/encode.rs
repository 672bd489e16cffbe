//! How long it takes to gather LLM spans into traces, to write these as rows, and to read rows back as OTLP.
#![expect(missing_docs, reason = "criterion's macro makes a public function")]

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tracelake_decode::{
    ContentEncoding, RecordHeader, RecordKind, Route, SpanSource, decode_otlp, decode_record,
};
use tracelake_lake::assemble::{Assembler, SettleRules, Take};
use tracelake_lake::rows::{TraceDraft, encode, rebuild_traces};
use tracelake_model::{ExperimentId, Limits};
use tracelake_testkit::spans::llm_request;

fn drafts(spans: u64) -> Vec<TraceDraft> {
    let decoded = decode_otlp(&llm_request(spans), SpanSource::Otlp, &Limits::default());
    let decoded = decoded.map(|decoded| decoded.spans).unwrap_or_default();
    decoded
        .chunk_by(|left, right| left.trace_id == right.trace_id)
        .map(|spans| TraceDraft {
            spans: spans.to_vec(),
            created_at_micros: 1,
            updated_at_micros: 1,
            ..TraceDraft::new(spans[0].trace_id)
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

fn assembly(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("llm spans");
    let Ok(table) = "main.default.traces".parse() else { return };
    let header = RecordHeader {
        kind: RecordKind::OtlpProtobuf,
        encoding: ContentEncoding::Identity,
        received_at_unix_nano: 1,
        routes: vec![Route { experiment_id: ExperimentId::default_experiment(), table }],
        run_id: None,
        trace_id: None,
        limits: Limits::default(),
        source: None,
    };
    for spans in [100_u64, 5_000] {
        let Ok(record) = decode_record(header.clone(), &llm_request(spans)) else { return };
        group.throughput(Throughput::Elements(spans));
        group.bench_function(BenchmarkId::new("assemble", spans), |bencher| {
            bencher.iter_batched(
                || record.clone(),
                |record| {
                    let mut assembler = Assembler::default();
                    assembler.push(record, 1);
                    let take = Take { everything: true, late: true, ready: &|_| true };
                    assembler.settle(&SettleRules::default(), 2, &take)
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, assembly, rows);
criterion_main!(benches);
