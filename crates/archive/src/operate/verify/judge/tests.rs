use tracelake_decode::{DecodedRecord, Fingerprinter, RecordContent, RecordKind};
use tracelake_journal::{RealFs, SegmentNumber};
use tracelake_lake::{DataFolder, TraceDraft};
use tracelake_pipeline::ledger::{Ledger, chain_check, newest_mark, text_hash};
use tracelake_testkit::records::{change, deletion, id, set_tag, spans, start};
use uuid::Uuid;

use super::*;

const DAY: u64 = 86_400_000_000_000;

/// What was acknowledged when these records came, each in an epoch of its own; epochs named in
/// `again` are replayed right after.
fn acknowledged(records: &[DecodedRecord], again: &[usize]) -> Acknowledged {
    let held = tempfile::tempdir().unwrap();
    let folder = DataFolder::new(held.path()).unwrap();
    std::fs::create_dir(folder.journal()).unwrap();
    let (fs, retention) = (std::sync::Arc::new(RealFs), std::time::Duration::from_nanos(2 * DAY));
    let mut writer = Ledger::of(fs, &folder, Uuid::from_u128(7), retention);
    for (epoch, record) in records.iter().enumerate() {
        for _ in 0..=usize::from(again.contains(&epoch)) {
            writer.note(record);
            writer.write(SegmentNumber::new(epoch as u64 + 1), DAY, DAY).unwrap();
        }
    }
    let until = newest_mark(&folder.ledger()).unwrap();
    let chain = chain_check(&folder).unwrap();
    Acknowledged::read(&folder.ledger(), until, chain, &mut |_| Ok(true)).unwrap()
}

fn fingerprints(record: &DecodedRecord) -> Vec<u64> {
    let RecordContent::Spans(decoded) = &record.content else { return Vec::new() };
    let mut fingerprinter = Fingerprinter::default();
    decoded.spans.iter().map(|span| fingerprinter.span(span).0).collect()
}

/// A table with these rows: trace and fingerprints.
fn archived(acknowledged: &Acknowledged, rows: &[(u128, Vec<u64>)]) -> Archived {
    let mut archived = Archived::new(acknowledged);
    for (trace, fingerprints) in rows {
        archived.take_row(acknowledged, (id(*trace), false), fingerprints);
    }
    archived
}

/// A trace, what was found of it, and the spans that came and that are missing.
type JudgedTrace = (TraceId, String, u64, u64);

fn judged(
    records: &[DecodedRecord],
    again: &[usize],
    rows: &[(u128, Vec<u64>)],
) -> (Vec<JudgedTrace>, Vec<HourLine>) {
    let acknowledged = acknowledged(records, again);
    let archived = archived(&acknowledged, rows);
    let judged = judge(&acknowledged, &archived, &Excused::default());
    let traces = judged.traces.into_iter();
    let traces = traces
        .map(|line| (TraceId::parse(&line.trace_id).unwrap(), line.result, line.spans, line.rows));
    (traces.collect(), judged.hours)
}

fn otlp(trace: u128, range: std::ops::Range<u64>) -> DecodedRecord {
    spans(trace, range, RecordKind::OtlpProtobuf)
}

/// Scenario: retries in later epochs, a late span, a replayed epoch; the row has each span once.
/// Guarantees: nothing is amiss, and copies are counted without those of the replay.
#[test]
fn retries_and_replays_change_nothing() {
    let records = [otlp(1, 0..2), otlp(1, 0..2), otlp(1, 1..3), start(1)];
    for again in [vec![], vec![0], vec![1, 2], vec![0, 1, 2, 3]] {
        let (traces, hours) = judged(&records, &again, &[(1, fingerprints(&otlp(1, 0..3)))]);
        assert_eq!(traces, []);
        let [protobuf, started] = hours.as_slice() else { panic!("{hours:?}") };
        assert_eq!((protobuf.result.as_str(), protobuf.copies), ("ok", 3), "{again:?}");
        assert_eq!(protobuf.acknowledged, protobuf.archived);
        assert_eq!((protobuf.acknowledged.traces, protobuf.acknowledged.spans), (1, 3));
        assert_eq!((started.acknowledged.traces, started.archived.traces), (1, 1));
    }
}

/// Scenario: rows that lack a span, a whole trace, have one twice, another content, more, and a
/// second row.
/// Guarantees: each is named with its spans; what is more is none's fault.
#[test]
fn each_fault_is_named() {
    let records: Vec<DecodedRecord> = (1..7).map(|trace| otlp(trace, 0..3)).collect();
    let whole = |trace| fingerprints(&otlp(trace, 0..3));
    let mut altered = whole(3);
    altered[1] ^= 1;
    let mut doubled = whole(4);
    doubled.push(doubled[0]);
    let mut more = whole(5);
    more.push(99);
    let rows = [
        (1, whole(1)[..2].to_vec()),
        (3, altered),
        (4, doubled),
        (5, more),
        (6, whole(6)),
        (6, whole(6)),
    ];
    let (traces, hours) = judged(&records, &[], &rows);
    let expected = [
        (id(1), "missing".to_owned(), 1, 1),
        (id(2), "missing".to_owned(), 3, 0),
        (id(3), "altered".to_owned(), 1, 1),
        (id(4), "doubled".to_owned(), 1, 1),
        (id(6), "doubled".to_owned(), 3, 2),
    ];
    assert_eq!(traces, expected);
    let [line] = hours.as_slice() else { panic!("{hours:?}") };
    assert_eq!(line.result, "altered, doubled, missing");
    assert_eq!((line.acknowledged.traces, line.acknowledged.spans), (6, 18));
    assert_ne!(line.acknowledged.hash, line.archived.hash);
}

/// Scenario: a deleted trace that is gone, one that is still there, one that came again after.
/// Guarantees: only the second is a fault; deletions count, also when they are replayed.
#[test]
fn deletions_hold_for_what_came_before() {
    let records = [
        otlp(1, 0..2),
        otlp(2, 0..2),
        otlp(3, 0..2),
        deletion(1),
        deletion(2),
        deletion(3),
        otlp(3, 1..3),
    ];
    let rows = [(2, fingerprints(&otlp(2, 0..2))), (3, fingerprints(&otlp(3, 1..3)))];
    for again in [vec![], vec![3, 4, 5], vec![6]] {
        let (traces, hours) = judged(&records, &again, &rows);
        assert_eq!(traces, [(id(2), "deleted".to_owned(), 2, 1)], "{again:?}");
        let [line] = hours.as_slice() else { panic!("{hours:?}") };
        assert_eq!((line.acknowledged.spans, line.deleted), (2, 5));
    }
}

/// Scenario: MLflow's copy of a span, before and after the one that came by OTLP, and one that
/// came alone; the richer ones are in the row.
/// Guarantees: the copies count as replaced; without the richer span both are missing.
#[test]
fn a_poorer_copy_yields() {
    let mlflow = |range| spans(1, range, RecordKind::MlflowTracesJson);
    let poorer = |mut record: DecodedRecord| {
        if let RecordContent::Spans(decoded) = &mut record.content {
            for span in &mut decoded.spans {
                // Field 14, `dropped_links_count`: other content under the same id, name and times.
                span.message = [span.message.as_ref(), &[0x70, 0x01]].concat().into();
            }
        }
        record
    };
    let records = [poorer(mlflow(0..3)), otlp(1, 0..2)];
    let alone = fingerprints(&poorer(mlflow(2..3)));
    let row = [fingerprints(&otlp(1, 0..2)), alone.clone()].concat();
    let (traces, hours) = judged(&records, &[], &[(1, row)]);
    assert_eq!(traces, []);
    let replaced: Vec<u64> = hours.iter().map(|line| line.replaced).collect();
    assert_eq!(replaced, [0, 2]);
    let (traces, _) = judged(&records, &[], &[(1, alone)]);
    assert_eq!(traces, [(id(1), "missing".to_owned(), 2, 1)]);
}

/// Scenario: a trace that is open lacks a span; a `start_trace` without a row.
/// Guarantees: the first is told as open, the second as missing, unless it is open as well.
#[test]
fn what_is_on_its_way_is_not_missing() {
    let acknowledged = acknowledged(&[otlp(1, 0..2), start(2)], &[]);
    let archived = archived(&acknowledged, &[(1, fingerprints(&otlp(1, 0..1)))]);
    let judged_with = |open: &[u128]| {
        let open = open.iter().map(|trace| id(*trace)).collect();
        judge(&acknowledged, &archived, &Excused { open, ..Excused::default() })
    };
    let judged = judged_with(&[1]);
    assert_eq!(judged.traces.len(), 1);
    assert_eq!(
        (judged.traces[0].trace_id.as_str(), judged.traces[0].spans),
        (id(2).to_mlflow().as_str(), 0)
    );
    let results: Vec<(&str, u64)> =
        judged.hours.iter().map(|line| (line.result.as_str(), line.open)).collect();
    assert_eq!(results, [("open", 1), ("missing", 0)]);
    assert_eq!(judged_with(&[1, 2]).traces, []);
}

/// Scenario: a client set tags on three traces; the row of the first shows them, that of the second
/// does not, that of the third did until another writer replaced it. Then the second is open, or was
/// deleted since.
/// Guarantees: only the second is named, with how many changes, and not while it is open or deleted.
#[test]
fn changes_that_a_row_does_not_show_are_named() {
    let changed = |trace| change(trace, vec![set_tag("a", "1"), set_tag("b", "2")]);
    let mut records = vec![otlp(1, 0..1), otlp(2, 0..1), otlp(3, 0..1)];
    records.extend([changed(1), changed(2), changed(3)]);
    let judged_with = |records: &[DecodedRecord], open: Option<u128>| {
        let acknowledged = acknowledged(records, &[]);
        let rows = [1, 2, 3].map(|trace| (trace, fingerprints(&otlp(trace, 0..1))));
        let mut archived = archived(&acknowledged, &rows);
        for trace in 1..4 {
            let mut row = TraceDraft::new(id(trace));
            let mut info = tracelake_model::TraceInfo::new(id(trace));
            info.set_tag("a".to_owned(), "1".to_owned());
            info.set_tag("b".to_owned(), if trace == 1 { "2" } else { "other" }.to_owned());
            row.info = Some(info);
            archived.take_changes(&acknowledged, &row);
        }
        let tag = Subject::Tag(text_hash("b"));
        let mut excused =
            Excused { open: open.map(id).into_iter().collect(), ..Excused::default() };
        excused.overridden.insert(id(3), [tag].into());
        let judged = judge(&acknowledged, &archived, &excused);
        let lines = judged.traces.into_iter();
        let lines =
            lines.map(|line| (TraceId::parse(&line.trace_id).unwrap(), line.result, line.changes));
        (lines.collect::<Vec<_>>(), judged.overridden)
    };
    assert_eq!(judged_with(&records, None), (vec![(id(2), "tags".to_owned(), 1)], 1));
    assert_eq!(judged_with(&records, Some(2)), (vec![], 1));
    let anew = [records, vec![deletion(2), otlp(2, 0..1)]].concat();
    assert_eq!(judged_with(&anew, None), (vec![], 1));
}

/// Scenario: two traces and a `start_trace` have no row: another writer deleted that of the first
/// with one of its two spans, the second came before the changes that are known, the third after.
/// Guarantees: what was in the deleted row is counted apart and no fault, the rest is missing; the
/// second is gone, and nobody knows by whom.
#[test]
fn what_others_deleted_is_told_apart() {
    let acknowledged = acknowledged(&[otlp(1, 0..2), otlp(2, 0..2), start(3)], &[]);
    let archived = archived(&acknowledged, &[]);
    let first = acknowledged.range(acknowledged.number(id(1)).unwrap()).start;
    let excused = Excused {
        deleted_spans: [first].into(),
        deleted_rows: [id(1)].into(),
        unknown: [id(2)].into(),
        ..Excused::default()
    };
    let judged = judge(&acknowledged, &archived, &excused);
    let lines: Vec<(TraceId, &str, u64)> = judged
        .traces
        .iter()
        .map(|line| (TraceId::parse(&line.trace_id).unwrap(), line.result.as_str(), line.spans))
        .collect();
    assert_eq!(lines, [(id(1), "missing", 1), (id(2), "gone", 2), (id(3), "missing", 0)]);
    let [spans, started] = judged.hours.as_slice() else { panic!("{:?}", judged.hours) };
    assert_eq!((spans.deleted_by_others, spans.acknowledged.spans), (1, 3));
    assert_eq!((spans.result.as_str(), started.result.as_str()), ("gone, missing", "missing"));
}
