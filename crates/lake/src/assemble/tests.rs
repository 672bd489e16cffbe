use std::sync::Arc;

use tracelake_decode::record::{Route, decode_record};
use tracelake_decode::{ContentEncoding, RecordKind, SpanGroup, SpanSource};
use tracelake_model::{Assessment, Clock, Limits, TraceChange};
use tracelake_testkit::{FakeClock, spans};

use super::*;

fn table() -> TableName {
    "a.b.c".parse().unwrap()
}

fn record(trace: u128, range: std::ops::Range<u64>) -> DecodedRecord {
    let header = RecordHeader {
        kind: RecordKind::OtlpProtobuf,
        encoding: ContentEncoding::Identity,
        received_at_unix_nano: 1,
        routes: vec![Route { experiment_id: ExperimentId::default_experiment(), table: table() }],
        run_id: None,
        trace_id: None,
        limits: Limits::default(),
        source: None,
    };
    decode_record(header, &spans::simple_request(trace, range)).unwrap()
}

fn take(everything: bool, late: bool) -> Take<'static> {
    Take { everything, late, ready: &|_| true }
}

fn rows(settled: HashMap<TableName, Vec<TraceDraft>>) -> Vec<usize> {
    settled.into_values().flatten().map(|trace| trace.spans.len()).collect()
}

/// Scenario: a root and a child in two requests, then silence.
/// Guarantees: the trace settles once, after the silence, with both spans; copies count once.
#[test]
fn settles_after_the_root_and_a_silence() {
    let clock = FakeClock::default();
    let rules = SettleRules::default();
    let mut assembler = Assembler::default();
    for range in [0..1, 1..2, 1..2] {
        assembler.push(record(7, range), clock.now_unix_nano());
    }
    assert!(!assembler.status(&rules, clock.now_unix_nano(), &|_| true).settled);
    clock.advance(rules.settle_after);
    assert!(assembler.status(&rules, clock.now_unix_nano(), &|_| true).settled);
    assert_eq!(rows(assembler.settle(&rules, clock.now_unix_nano(), &take(false, false))), [2]);
    assert_eq!((assembler.open_traces(), assembler.open_bytes()), (0, 0));
}

/// Scenario: a trace without a root, and a memory bound that is passed.
/// Guarantees: the first waits for `idle_after`, past the bound it settles at once.
#[test]
fn rootless_traces_wait_longer_but_not_past_the_memory_bound() {
    let clock = FakeClock::default();
    let mut rules = SettleRules::default();
    let mut assembler = Assembler::default();
    assembler.push(record(7, 1..3), clock.now_unix_nano());
    clock.advance(rules.settle_after);
    assert!(!assembler.status(&rules, clock.now_unix_nano(), &|_| true).settled);
    rules.max_open_bytes = 10;
    assert_eq!(rows(assembler.settle(&rules, clock.now_unix_nano(), &take(false, false))), [2]);
}

/// Scenario: an open trace is carried over and taken in again by another assembler.
/// Guarantees: it has the same spans.
#[test]
fn carried_traces_are_the_same_traces() {
    let mut first = Assembler::default();
    first.push(record(7, 0..4), 5);
    let mut second = Assembler::default();
    for (header, payload) in first.carry() {
        let decoded = decode_record(header, &payload.into()).unwrap();
        second.push(decoded, 6);
    }
    let rules = SettleRules::default();
    let again = second.settle(&rules, 7, &take(true, true)).remove(&table()).unwrap();
    let sent = first.settle(&rules, 7, &take(true, true)).remove(&table()).unwrap();
    assert_eq!(again.len(), 1);
    assert!(again[0].spans.iter().zip(&sent[0].spans).all(|(a, b)| a.same_content(b)));
    assert_eq!(again[0].spans.len(), 4);
}

/// Scenario: a settled trace is put back because its commit failed, more of it came meanwhile.
/// Guarantees: it settles again at once, whole; a late piece waits for its round.
#[test]
fn what_is_put_back_settles_again() {
    let rules = SettleRules::default();
    let mut assembler = Assembler::default();
    assembler.push(record(7, 0..2), 1);
    let mut settled = assembler.settle(&rules, u64::MAX, &take(false, false));
    let draft = settled.remove(&table()).unwrap().remove(0);
    assembler.put_back(&table(), draft, false);
    let now = rules.idle_after.as_nanos().try_into().unwrap();
    let mut settled = assembler.settle(&rules, now, &take(false, false));
    let draft = settled.remove(&table()).unwrap().remove(0);
    assert_eq!(draft.spans.len(), 2);
    assembler.push(record(7, 2..3), now);
    assembler.put_back(&table(), draft, true);
    assert!(assembler.status(&rules, now, &|_| true).late);
    assert!(assembler.settle(&rules, now, &take(false, false)).is_empty());
    assert_eq!(rows(assembler.settle(&rules, now, &take(false, true))), [3]);
    assert_eq!(assembler.open_bytes(), 0);
}

/// Scenario: a table that cannot be written, with everything asked for.
/// Guarantees: its traces stay; those of others would not wait for it.
#[test]
fn tables_that_are_not_ready_keep_their_traces() {
    let mut assembler = Assembler::default();
    assembler.push(record(7, 0..2), 1);
    let none = Take { everything: true, late: true, ready: &|_| false };
    assert!(assembler.settle(&SettleRules::default(), u64::MAX, &none).is_empty());
    assert!(!assembler.status(&SettleRules::default(), u64::MAX, &|_| false).settled);
    assert_eq!(assembler.open_traces(), 1);
}

fn changes(trace: u128, changes: Vec<TraceChange>) -> DecodedRecord {
    let trace_id = TraceId((trace + 1).to_be_bytes());
    let header = record(trace, 0..1).header;
    let content = RecordContent::Changes(vec![TraceChanges { trace_id, changes }]);
    DecodedRecord { header: RecordHeader { kind: RecordKind::TraceChanges, ..header }, content }
}

/// Scenario: tags set and deleted, an assessment, a link and a deletion of the trace in between
/// its spans, carried over and taken in again.
/// Guarantees: what was before the deletion is gone; the carried trace is the same.
#[test]
fn changes_are_applied_in_order_and_carried_over() {
    let set = |key: &str| TraceChange::SetTag { key: key.into(), value: "1".into() };
    let mut first = Assembler::default();
    first.push(record(7, 0..4), 5);
    first.push(changes(7, vec![set("before"), TraceChange::Delete, set("a"), set("b")]), 5);
    first.push(record(7, 4..5), 5);
    let assessment = Assessment { assessment_id: "a-1".into(), ..Default::default() };
    let more = vec![
        TraceChange::DeleteTag { key: "b".into() },
        TraceChange::PutAssessment(assessment.into()),
        TraceChange::DeleteAssessment { assessment_id: "a-0".into() },
        TraceChange::LinkRun { run_id: "r".into() },
    ];
    first.push(changes(7, more), 5);
    let mut second = Assembler::default();
    for (header, payload) in first.carry() {
        second.push(decode_record(header, &payload.into()).unwrap(), 6);
    }
    let mut drafts = [first, second].map(|mut assembler| {
        let everything = take(true, true);
        let mut settled = assembler.settle(&SettleRules::default(), 7, &everything);
        assert_eq!(assembler.open_bytes(), 0);
        settled.remove(&table()).unwrap().remove(0)
    });
    assert_eq!(drafts[0].info, drafts[1].info);
    for draft in &mut drafts {
        assert!(draft.replaces);
        assert_eq!(draft.spans.len(), 1);
        let info = draft.info.take().unwrap();
        assert_eq!(info.tags.into_keys().collect::<Vec<_>>(), ["a"]);
        assert!(info.deleted_tags.contains("b") && info.deleted_assessments.contains("a-0"));
        assert_eq!((info.assessments.len(), info.linked_runs.len()), (1, 1));
    }
}

/// Scenario: changes alone, for a trace that is archived.
/// Guarantees: they wait for nothing but the silence.
#[test]
fn changes_alone_settle_after_the_silence() {
    let rules = SettleRules::default();
    let mut assembler = Assembler::default();
    let change = TraceChange::SetTag { key: "k".into(), value: "v".into() };
    assembler.push(changes(7, vec![change]), 0);
    assert!(!assembler.status(&rules, 1, &|_| true).settled);
    let now = rules.settle_after.as_nanos().try_into().unwrap();
    assert!(assembler.status(&rules, now, &|_| true).settled);
    assert!(assembler.settle(&rules, now, &take(false, false))[&table()][0].is_blank());
}

/// Scenario: a thousand tags and spans for an archived trace, between two amendment rounds.
/// Guarantees: the round gets one piece of it, with the last word and every span.
#[test]
fn a_storm_of_changes_is_one_piece() {
    let clock = FakeClock::default();
    let rules = SettleRules::default();
    let mut assembler = Assembler::default();
    assembler.push(record(7, 0..1), clock.now_unix_nano());
    for first in assembler.settle(&rules, 0, &take(true, true)).into_values().flatten() {
        assembler.put_back(&table(), first, true);
    }
    for step in 1..=1_000 {
        let set = TraceChange::SetTag { key: "k".to_owned(), value: step.to_string() };
        assembler.push(changes(7, vec![set]), clock.now_unix_nano());
        assembler.push(record(7, step..step + 1), clock.now_unix_nano());
        assert!(rows(assembler.settle(&rules, u64::MAX, &take(false, false))).is_empty());
    }
    let settled = assembler.settle(&rules, clock.now_unix_nano(), &take(false, true));
    let pieces: Vec<TraceDraft> = settled.into_values().flatten().collect();
    assert_eq!((pieces.len(), assembler.open_bytes()), (1, 0));
    assert_eq!(pieces[0].spans.len(), 1_001);
    assert_eq!(pieces[0].info.as_ref().unwrap().tags["k"], "1000");
}

/// Scenario: two of three open traces are taken out by their ids, and one that is not there.
/// Guarantees: they come as they are, and what is left counts alone.
#[test]
fn traces_are_taken_out_by_id() {
    let mut assembler = Assembler::default();
    let ids: Vec<TraceId> = (1..=4_u128)
        .map(|trace| {
            let one = record(trace, 0..2);
            let RecordContent::Spans(decoded) = &one.content else { panic!("no spans") };
            let id = decoded.spans[0].trace_id;
            if trace < 4 {
                assembler.push(one, 1);
            }
            id
        })
        .collect();
    let all = assembler.open_bytes();
    let taken = assembler.take_out(&[ids[0], ids[1], ids[3]]);
    assert_eq!(taken.iter().map(|trace| trace.spans.len()).collect::<Vec<_>>(), [2, 2]);
    assert_eq!((assembler.open_traces(), assembler.open_bytes()), (1, all / 3));
}

/// Scenario: two resources in one request; a later span of a third service in a request of its own;
/// the first request again; a span of a fourth service that started before all of them.
/// Guarantees: the last span gives the tags, whenever it came, and a copy changes none; all of it is
/// carried over.
#[test]
fn tags_are_those_of_the_last_span() {
    let tags = |assembler: &Assembler| {
        let draft = assembler.peek(&table()).remove(0);
        draft.full_info().tags.get("service.name").cloned().unwrap()
    };
    let mut assembler = Assembler::default();
    let mut of_one = |range: std::ops::Range<u64>, name: &str| {
        let mut one = record(7, range);
        let RecordContent::Spans(decoded) = &mut one.content else { unreachable!() };
        decoded.spans[0].group = Arc::new(spans::group_of_service(name));
        assembler.push(one, 1);
        tags(&assembler)
    };
    assert_eq!(of_one(1..2, "items"), "items");
    assert_eq!(of_one(3..4, "last"), "last");
    assert_eq!(of_one(1..2, "items"), "last");
    assert_eq!(of_one(0..1, "front"), "last");
    assert_eq!(assembler.peek(&table())[0].spans.len(), 3);
    let mut again = Assembler::default();
    for (header, payload) in assembler.carry() {
        again.push(decode_record(header, &payload.into()).unwrap(), 6);
    }
    assert_eq!(tags(&again), "last");
}

/// Scenario: copies of a span, and of a `start_trace`, come for an open trace for longer than it
/// waits for more; MLflow's copies of a span before and after the span itself.
/// Guarantees: the trace settles as if they had not come; one span is left of all of them.
#[test]
fn copies_do_not_keep_a_trace_open() {
    let clock = FakeClock::default();
    let rules = SettleRules::default();
    let mut assembler = Assembler::default();
    let copy = |range| {
        let mut copy = record(7, range);
        let RecordContent::Spans(decoded) = &mut copy.content else { unreachable!() };
        let group = SpanGroup { source: SpanSource::Mlflow, ..(*decoded.spans[0].group).clone() };
        decoded.spans[0].group = Arc::new(group);
        copy
    };
    for one in [copy(0..1), record(7, 0..1), copy(0..1), record(7, 0..1)] {
        assembler.push(one, clock.now_unix_nano());
    }
    let bytes = assembler.open_bytes();
    for _ in 0..4 {
        assert!(!assembler.status(&rules, clock.now_unix_nano(), &|_| true).settled);
        clock.advance(rules.settle_after / 4);
        for one in [record(7, 0..1), copy(0..1)] {
            assembler.push(one, clock.now_unix_nano());
        }
    }
    assert!(assembler.status(&rules, clock.now_unix_nano(), &|_| true).settled);
    assert_eq!(assembler.open_bytes(), bytes);
    let settled = assembler.settle(&rules, clock.now_unix_nano(), &take(false, false));
    let spans = &settled[&table()][0].spans;
    assert_eq!((spans.len(), spans[0].group.source), (1, SpanSource::Otlp));
    assert_eq!(assembler.open_bytes(), 0);
}

/// Scenario: a late piece that is large enough to be amended at once is refused by its table; more of it comes.
/// Guarantees: it brings no epoch about and is in none before the next amendment round; its memory is told by
/// itself, and no more once it is taken.
#[test]
fn a_refused_piece_waits_for_its_round_however_large() {
    const MANY: u64 = 80_000;
    let rules = SettleRules::default();
    let mut assembler = Assembler::default();
    assembler.push(record(7, 0..MANY), 1);
    let whole = |trace: Take<'_>, assembler: &mut Assembler| {
        assembler.settle(&rules, 1, &trace).remove(&table()).map(|mut drafts| drafts.remove(0))
    };
    let draft = whole(take(true, true), &mut assembler).unwrap();
    assert!(LATE_AT_ONCE_BYTES <= draft.spans_bytes());
    assembler.put_back(&table(), draft, true);
    assert!(assembler.status(&rules, 1, &|_| true).settled, "a large piece waits for no round");
    let draft = whole(take(false, false), &mut assembler).unwrap();
    let trace_id = draft.trace_id;
    assembler.put_back_refused(&table(), draft);
    assembler.push(record(7, MANY..MANY + 1), 2);
    let status = assembler.status(&rules, 2, &|_| true);
    assert!(status.late && !status.settled && status.late_bytes == 0, "{status:?}");
    assert_eq!(assembler.late_bytes(), 0);
    assert_eq!(assembler.refused_bytes(), assembler.bytes_of(trace_id));
    assert!(LATE_AT_ONCE_BYTES < assembler.refused_bytes());
    assert!(whole(take(false, false), &mut assembler).is_none());
    assert_eq!(whole(take(false, true), &mut assembler).unwrap().spans.len() as u64, MANY + 1);
    assert_eq!((assembler.refused_bytes(), assembler.open_bytes()), (0, 0));
}
