//! Traces that are too large for one row, through real tables.

use std::collections::{BTreeMap, BTreeSet};

use tracelake_decode::SpanRecord;
use tracelake_decode::otlp::fields::{any_value, key_value, span};
use tracelake_decode::writer::MessageWriter;
use tracelake_model::trace_info::INFO_FINALIZED;
use tracelake_model::{ExperimentId, SpanId, TraceChange, TraceInfo};

use super::tests::{Fixture, changes, draft};
use super::*;
use crate::rows::ExperimentBy;

/// Bytes of text in each span of a test: a row holds 31 of them, and five make a large one.
const TEXT: usize = 2 << 20;

/// `draft` with a long text in each span but the root, which is the first one.
pub(crate) fn long_spans(trace: u128, range: Range<u64>) -> TraceDraft {
    let mut large = draft(trace, range.clone());
    for (span, number) in large.spans.iter_mut().zip(range).filter(|(_, number)| 0 < *number) {
        let text = format!("\"{}\"", digits(number));
        let mut attribute = MessageWriter::new();
        attribute.message(span::ATTRIBUTES, |pair| {
            pair.bytes(key_value::KEY, b"text");
            pair.message(key_value::VALUE, |value| {
                value.bytes(any_value::STRING_VALUE, text.as_bytes())
            });
        });
        span.message = [&span.message[..], attribute.as_bytes()].concat().into();
        span.is_canonical = false;
    }
    large
}

/// Digits that compress to half of their length.
fn digits(seed: u64) -> String {
    let mut state = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut text = String::with_capacity(TEXT);
    while text.len() < TEXT {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.push_str(&format!("{state:016x}"));
    }
    text
}

/// The live rows of each trace, those without a part first.
fn rows(fixture: &Fixture) -> BTreeMap<TraceId, Vec<TraceDraft>> {
    let snapshot = fixture.table.snapshot(None).unwrap();
    let mut rows: BTreeMap<TraceId, Vec<TraceDraft>> = BTreeMap::new();
    snapshot
        .for_each_trace(None, &mut |row| {
            rows.entry(row.trace_id).or_default().push(row);
            Ok(())
        })
        .unwrap();
    rows.values_mut().for_each(|rows| rows.sort_by_key(|row| row.part));
    rows
}

fn ids(spans: &[SpanRecord]) -> Vec<SpanId> {
    spans.iter().map(|span| span.span_id).collect()
}

/// Bytes of the files below the table's folder.
fn table_bytes(fixture: &Fixture) -> u64 {
    let folder = fixture.table.location().folder().to_path_buf();
    let sizes = |folder: std::path::PathBuf| {
        let files = std::fs::read_dir(folder).into_iter().flatten();
        files.map(|file| file.unwrap().metadata().unwrap()).filter(|m| m.is_file()).map(|m| m.len())
    };
    sizes(folder.clone()).chain(sizes(folder.join("_change_data"))).sum()
}

/// All spans of a trace's rows, each once, and what its head says of them.
fn assert_whole(rows: &[TraceDraft], whole: &TraceDraft) {
    let (head, parts) = rows.split_first().unwrap();
    assert_eq!(head.part, None);
    assert_eq!(
        parts.iter().map(|row| row.part).collect::<Vec<_>>(),
        (1..=parts.len()).map(|part| i32::try_from(part).ok()).collect::<Vec<_>>()
    );
    let found: Vec<SpanId> = rows.iter().flat_map(|row| ids(&row.spans)).collect();
    let expected = ids(&whole.spans);
    assert_eq!(found.len(), expected.len());
    assert_eq!(found.iter().collect::<BTreeSet<_>>(), expected.iter().collect::<BTreeSet<_>>());
    assert_eq!(head.all_spans(), expected.len() as u64);
    let (said, of_all) = (head.full_info(), whole.full_info());
    assert_eq!(said.state, of_all.state);
    assert_eq!(said.request_time_micros, of_all.request_time_micros);
    assert_eq!(said.execution_duration_ms, of_all.execution_duration_ms);
    assert_eq!(said.request_preview, of_all.request_preview);
    assert_eq!(said.tags, of_all.tags);
}

/// Scenario: one epoch with a trace of more bytes than a row holds, and a small one.
/// Guarantees: the large one has a row for the trace, which says of it what one row would, and parts with
/// the other spans; the small one has its row; what is read is the whole trace, or as much as was asked for.
#[test]
fn a_trace_too_large_for_a_row_has_parts() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer("one");
    let large = long_spans(1, 0..40);
    writer.commit_epoch(1, &[large.clone(), draft(2, 0..3)]).unwrap();
    let found = rows(&fixture);
    assert_whole(&found[&large.trace_id], &large);
    assert_eq!(found[&large.trace_id].len(), 7);
    assert_eq!(found[&draft(2, 0..1).trace_id].len(), 1);
    let wanted = HashSet::from([large.trace_id]);
    let whole = writer.read(&wanted, usize::MAX).unwrap().remove(&large.trace_id).unwrap();
    assert_eq!((whole.spans.len(), whole.all_spans()), (40, 40));
    let some = writer.read(&wanted, 0).unwrap().remove(&large.trace_id).unwrap();
    assert!(some.spans.len() < 20);
    assert_eq!(some.all_spans(), 40);
    assert_eq!(some.full_info().state, large.full_info().state);
}

/// Scenario: a large trace in one row; late spans, a retry of some from each row, a tag; then all at once
/// through a writer that knows nothing of it, and its deletion.
/// Guarantees: each span is there once and the head says what one row would; once the large row gave its
/// spans to a part, no amendment writes them again; a deletion takes all rows.
#[test]
fn late_spans_of_a_large_trace_are_written_once() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer("one");
    let mut whole = long_spans(1, 0..6);
    let trace_id = whole.trace_id;
    writer.commit_epoch(1, std::slice::from_ref(&whole)).unwrap();
    assert_eq!(rows(&fixture)[&trace_id].len(), 1);
    assert_eq!(writer.commit_epoch(2, &[draft(1, 6..8)]).unwrap().amended, 1);
    whole.spans.extend(draft(1, 6..8).spans);
    assert_whole(&rows(&fixture)[&trace_id], &whole);
    let before = table_bytes(&fixture);
    for epoch in 3_u32..8 {
        let first = u64::from(epoch) * 4;
        let piece = draft(1, first..first + 4);
        assert_eq!(
            writer.commit_epoch(epoch.into(), std::slice::from_ref(&piece)).unwrap().amended,
            1
        );
        whole.spans.extend(piece.spans);
    }
    assert_whole(&rows(&fixture)[&trace_id], &whole);
    let tag = TraceChange::SetTag { key: "k".to_owned(), value: "v".to_owned() };
    assert_eq!(writer.commit_epoch(8, &[changes(1, vec![tag])]).unwrap().amended, 1);
    let head = &rows(&fixture)[&trace_id][0];
    assert_eq!(head.full_info().tags.get("k").map(String::as_str), Some("v"));
    assert_eq!(head.all_spans(), whole.spans.len() as u64);
    // Its row would be 6 MiB each time. An amendment has two files of some 30 KB, mostly their footers.
    let written = table_bytes(&fixture) - before;
    assert!(written < 1 << 20, "{written} bytes for {} small spans", whole.spans.len() - 8);
    let mut other = fixture.writer("two");
    assert_eq!(other.commit_epoch(1, std::slice::from_ref(&whole)).unwrap().unchanged, 1);
    let gone = changes(1, vec![TraceChange::Delete]);
    assert_eq!(other.commit_epoch(2, &[gone]).unwrap().deleted, 1);
    assert!(rows(&fixture).is_empty());
    assert_eq!(writer.commit_epoch(9, &[draft(1, 0..1)]).unwrap().appended, 1);
}

/// Scenario: a large trace, then further pieces of it, one epoch after the other; the first of them moves what
/// is there to a part.
/// Guarantees: each span is there once, rows are bounded, and a piece costs what it weighs: files grow by as
/// much with the last piece as with the one before it.
#[test]
fn a_piece_costs_what_it_weighs() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer("one");
    let mut whole = TraceDraft { spans: Vec::new(), ..draft(1, 0..1) };
    let mut grown = Vec::new();
    for (epoch, spans) in (0_u32..).zip([0..6, 6..8, 8..10, 10..12]) {
        let piece = long_spans(1, spans);
        let before = table_bytes(&fixture);
        writer.commit_epoch((epoch + 1).into(), std::slice::from_ref(&piece)).unwrap();
        grown.push(table_bytes(&fixture) - before);
        whole.spans.extend(piece.spans);
    }
    let rows = &rows(&fixture)[&whole.trace_id];
    assert_whole(rows, &whole);
    assert!(rows.iter().all(|row| fits_a_row(&row.spans)));
    assert!(grown[3] < grown[2] * 5 / 4, "{grown:?}");
}

/// A root that says a tag, with about `bytes` of text.
fn tagging_root(number: u64, key: &str, value: &str, bytes: usize) -> SpanRecord {
    let mut span = draft(1, 0..1).spans.remove(0);
    let id = (number + 1).to_be_bytes();
    let start = span.start_time_unix_nano + number * 1_000_000;
    let mut message = MessageWriter::new();
    message.bytes(span::TRACE_ID, &span.trace_id.0);
    message.bytes(span::SPAN_ID, &id);
    message.bytes(span::NAME, b"step");
    message.fixed64(span::START_TIME_UNIX_NANO, start);
    message.fixed64(span::END_TIME_UNIX_NANO, start + 500_000_000);
    let text = "x".repeat(bytes);
    for (key, value) in [(format!("mlflow.traceTag.{key}").as_str(), value), ("text", &text)] {
        message.message(span::ATTRIBUTES, |pair| {
            pair.bytes(key_value::KEY, key.as_bytes());
            pair.message(key_value::VALUE, |any| {
                any.bytes(any_value::STRING_VALUE, value.as_bytes())
            });
        });
    }
    span.span_id = SpanId(id);
    span.start_time_unix_nano = start;
    span.end_time_unix_nano = start + 500_000_000;
    span.message = message.into_bytes().into();
    span.is_canonical = false;
    span
}

/// Scenario: a trace too large for a row, among whose spans roots in the middle say tags, two of them the same
/// one; then a later root says one of these again.
/// Guarantees: the row of the trace has every tag, with the value of the last root that says it.
#[test]
fn roots_in_parts_say_no_tag_of_their_own() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer("one");
    let mut whole = long_spans(1, 0..40);
    for (number, key, value) in [
        (5, "a", "1"),
        (11, "b", "1"),
        (12, "b", "2"),
        (17, "c", "1"),
        (18, "d", "1"),
        (31, "e", "1"),
    ] {
        whole.spans[usize::try_from(number).unwrap()] = tagging_root(number, key, value, 100);
    }
    writer.commit_epoch(1, std::slice::from_ref(&whole)).unwrap();
    let rows_of = rows(&fixture);
    assert_whole(&rows_of[&whole.trace_id], &whole);
    let tags = rows_of[&whole.trace_id][0].full_info().tags;
    let said: Vec<&str> = ["a", "b", "c", "d", "e"].map(|key| tags[key].as_str()).to_vec();
    assert_eq!(said, ["1", "2", "1", "1", "1"]);
    let late = TraceDraft { spans: vec![tagging_root(60, "c", "2", 100)], ..draft(1, 0..1) };
    writer.commit_epoch(2, std::slice::from_ref(&late)).unwrap();
    whole.spans.extend(late.spans);
    assert_whole(&rows(&fixture)[&whole.trace_id], &whole);
}

/// Scenario: a trace with parts whose client said when it began, and not how long it took; late spans, a tag.
/// Guarantees: the duration is that of the spans after each of them, and the time the client's.
#[test]
fn a_client_s_time_does_not_move_the_spans_of_parts() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer("one");
    let mut whole = long_spans(1, 0..40);
    let mut info = TraceInfo::new(whole.trace_id);
    info.request_time_micros = Some(1_795_305_600_000_000 - 7_000_000);
    info.trace_metadata.insert(INFO_FINALIZED.to_owned(), "true".to_owned());
    whole.info = Some(info);
    writer.commit_epoch(1, std::slice::from_ref(&whole)).unwrap();
    assert_whole(&rows(&fixture)[&whole.trace_id], &whole);
    let duration = whole.full_info().execution_duration_ms;
    for epoch in 2..5 {
        let tag = TraceChange::SetTag { key: "k".to_owned(), value: epoch.to_string() };
        writer.commit_epoch(epoch, &[changes(1, vec![tag])]).unwrap();
        let head = &rows(&fixture)[&whole.trace_id][0];
        assert_eq!(head.full_info().execution_duration_ms, duration);
        assert_eq!(head.full_info().request_time_micros, whole.full_info().request_time_micros);
    }
    let late = draft(1, 50..51);
    writer.commit_epoch(5, std::slice::from_ref(&late)).unwrap();
    whole.spans.extend(late.spans);
    let head = &rows(&fixture)[&whole.trace_id][0];
    assert_eq!(head.full_info().execution_duration_ms, whole.full_info().execution_duration_ms);
}

/// Scenario: an epoch brings 60 MiB of late spans of a large trace.
/// Guarantees: none of the rows that they make is larger than a part may be, and each span is there once.
#[test]
fn parts_are_small() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer("one");
    let mut whole = long_spans(1, 0..6);
    writer.commit_epoch(1, std::slice::from_ref(&whole)).unwrap();
    let late = long_spans(1, 6..36);
    writer.commit_epoch(2, std::slice::from_ref(&late)).unwrap();
    whole.spans.extend(late.spans);
    let found = rows(&fixture);
    assert_whole(&found[&whole.trace_id], &whole);
    let parts: Vec<usize> =
        found[&whole.trace_id].iter().skip(1).map(TraceDraft::spans_bytes).collect();
    assert!(4 <= parts.len() && parts.iter().all(|bytes| *bytes <= 16 << 20), "{parts:?}");
}

/// Moves what an experiment has, trace by trace, as the pipeline does; dies after `steps` durable ones. Returns
/// how many traces were moved to the end.
fn move_all(
    from: &mut TableWriter,
    to: &mut TableWriter,
    experiment: &ExperimentId,
    mut steps: usize,
) -> usize {
    let mut moved = 0;
    let mut large = BTreeSet::new();
    for path in from.data_files().unwrap() {
        let found = from.rows_of(experiment, &path).unwrap();
        large.extend(found.parts_of);
        let rows: Vec<u64> = found.rows.into_iter().map(|(row, _)| row).collect();
        let located = from.locate(&path, &rows).unwrap();
        large.extend(located.large.iter().copied());
        assert!(located.traces.iter().all(|trace| !large.contains(&trace.trace_id)));
        if !located.traces.is_empty() {
            to.absorb(&located.traces).unwrap();
            moved += from.delete_located(&located).unwrap();
        }
    }
    for trace_id in large {
        let Some(mut one) = from.begin_move(experiment, trace_id).unwrap() else { continue };
        loop {
            if steps == 0 {
                return moved;
            }
            steps -= 1;
            match from.next_row(&mut one).unwrap() {
                NextRow::Row(row) => drop(to.absorb(&[*row]).unwrap()),
                NextRow::All(located) => {
                    moved += from.delete_located(&located).unwrap();
                    break;
                }
                NextRow::Changed => break,
            }
        }
    }
    moved
}

/// A client's `start_trace`, which says that the trace belongs to an experiment, and a tag that a call set.
fn placed_in(trace: u128, experiment: &ExperimentId) -> TraceDraft {
    let blank = changes(trace, Vec::new());
    let mut info = TraceInfo::new(blank.trace_id);
    info.trace_metadata.insert(INFO_FINALIZED.to_owned(), "true".to_owned());
    info.starts.insert(7);
    info.set_tag("by".to_owned(), "call".to_owned());
    TraceDraft {
        experiment_id: Some(experiment.clone()),
        experiment_by: ExperimentBy::Client,
        info: Some(info),
        ..blank
    }
}

/// Scenario: a large trace in several rows, of which a client says later that it belongs to another
/// experiment, so that its parts name the earlier one; first that one's traces are moved to another table, then
/// those of the later one, by processes that die, each a step further on. The target has a span already.
/// Guarantees: the trace goes with its row and not with its parts; at each step the source has all of it or
/// nothing; in the end the target has each span once, counts them, and has what was said; a trace of several
/// rows is one trace that was moved.
#[test]
fn a_large_trace_moves_with_its_parts() {
    let (source, target) = (Fixture::new(), Fixture::new());
    let mut from = source.writer("one");
    let mut to = target.writer("one");
    let mut whole = long_spans(1, 0..6);
    let trace_id = whole.trace_id;
    from.commit_epoch(1, &[whole.clone(), draft(2, 0..2)]).unwrap();
    from.commit_epoch(2, &[draft(1, 6..8)]).unwrap();
    whole.spans.extend(draft(1, 6..8).spans);
    let (earlier, later) = (ExperimentId::default_experiment(), ExperimentId::from(7));
    from.commit_epoch(3, &[placed_in(1, &later)]).unwrap();
    let said = rows(&source)[&trace_id][0].info.clone();
    whole.info.clone_from(&said);
    let experiments: Vec<_> =
        rows(&source)[&trace_id].iter().map(|row| row.experiment_id.clone()).collect();
    assert_eq!(experiments, [Some(later.clone()), Some(earlier.clone())]);
    to.commit_epoch(1, &[draft(1, 7..8)]).unwrap();
    assert_eq!(move_all(&mut from, &mut to, &earlier, usize::MAX), 1);
    assert_whole(&rows(&source)[&trace_id], &whole);
    assert_eq!(rows(&target).len(), 2);
    let mut moved = 0;
    for steps in 0..10 {
        assert_whole(&rows(&source)[&trace_id], &whole);
        from = source.writer("one");
        to = target.writer("one");
        from.round_bytes = 1;
        moved += move_all(&mut from, &mut to, &later, steps);
        if 0 < moved {
            break;
        }
    }
    assert_eq!((moved, rows(&source).len()), (1, 0));
    let found = rows(&target);
    assert_whole(&found[&trace_id], &whole);
    let head = &found[&trace_id][0];
    assert_eq!((&head.experiment_id, &head.info), (&Some(later), &said));
}

/// Scenario: a large trace is on its way to another table when a client deletes it in both, and when a late
/// span comes to the source.
/// Guarantees: what was deleted is not taken in again; what came is not deleted, and moves with the rest.
#[test]
fn a_large_trace_that_changes_on_its_way_is_begun_anew() {
    let (source, target) = (Fixture::new(), Fixture::new());
    let (mut from, mut to) = (source.writer("one"), target.writer("one"));
    let mut whole = long_spans(1, 0..6);
    let experiment = whole.experiment_id.clone().unwrap();
    from.commit_epoch(1, std::slice::from_ref(&whole)).unwrap();
    from.commit_epoch(2, &[draft(1, 6..8)]).unwrap();
    let mut one = from.begin_move(&experiment, whole.trace_id).unwrap().unwrap();
    for _ in 0..2 {
        let NextRow::Row(row) = from.next_row(&mut one).unwrap() else { panic!("two rows") };
        to.absorb(&[*row]).unwrap();
    }
    let NextRow::All(located) = from.next_row(&mut one).unwrap() else { panic!("all rows") };
    from.commit_epoch(3, &[draft(1, 8..9)]).unwrap();
    assert_eq!(from.delete_located(&located).unwrap(), 0);
    whole.spans.extend(draft(1, 6..9).spans);
    assert_whole(&rows(&source)[&whole.trace_id], &whole);

    let mut one = from.begin_move(&experiment, whole.trace_id).unwrap().unwrap();
    assert!(matches!(from.next_row(&mut one).unwrap(), NextRow::Row(_)));
    let gone = HashSet::from([whole.trace_id]);
    from.delete_traces(&gone).unwrap();
    to.delete_traces(&gone).unwrap();
    assert!(matches!(from.next_row(&mut one).unwrap(), NextRow::Changed));
    assert!(from.begin_move(&experiment, whole.trace_id).unwrap().is_none());
    assert_eq!((rows(&source).len(), rows(&target).len()), (0, 0));
}

/// Scenario: another engine deletes the row of a large trace and leaves its part, twice; a late span and a
/// retry of one in the part come after the first time, a client's deletion after the second.
/// Guarantees: the late span gets a row that counts the part's spans too, the retry is known by the part, and nothing is left of what the client
/// deleted.
#[test]
fn parts_without_a_row_of_their_trace() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer("one");
    let whole = long_spans(1, 0..6);
    writer.commit_epoch(1, std::slice::from_ref(&whole)).unwrap();
    writer.commit_epoch(2, &[draft(1, 6..8)]).unwrap();
    delete_head(&mut writer, &whole);
    assert_eq!(rows(&fixture)[&whole.trace_id].len(), 1);
    writer.commit_epoch(3, &[draft(1, 8..9)]).unwrap();
    assert_eq!(rows(&fixture)[&whole.trace_id].len(), 2);
    let [head, part] = &rows(&fixture)[&whole.trace_id][..] else { panic!("two rows") };
    assert_eq!(head.all_spans(), (head.spans.len() + part.spans.len()) as u64);
    assert_eq!(head.beyond.as_ref().unwrap().spans(), part.spans.len() as u64);
    let inner = rows(&fixture)[&whole.trace_id][1].spans[0].clone();
    let retry = TraceDraft { spans: vec![inner], ..draft(1, 0..1) };
    assert_eq!(writer.commit_epoch(4, &[retry]).unwrap().unchanged, 1);
    delete_head(&mut writer, &whole);
    writer.commit_epoch(5, &[changes(1, vec![TraceChange::Delete])]).unwrap();
    assert!(rows(&fixture).is_empty());
}

/// Scenario: of a large trace another engine left the part; its experiment's traces are moved.
/// Guarantees: the part's spans move, as a row of the trace, and another experiment's move leaves them.
#[test]
fn parts_without_a_row_of_their_trace_move() {
    let (source, target) = (Fixture::new(), Fixture::new());
    let (mut from, mut to) = (source.writer("one"), target.writer("one"));
    let whole = long_spans(1, 0..6);
    from.commit_epoch(1, std::slice::from_ref(&whole)).unwrap();
    from.commit_epoch(2, &[draft(1, 6..8)]).unwrap();
    delete_head(&mut from, &whole);
    let part = rows(&source)[&whole.trace_id][0].clone();
    assert_eq!(move_all(&mut from, &mut to, &7.into(), usize::MAX), 0);
    let experiment = whole.experiment_id.clone().unwrap();
    assert_eq!(move_all(&mut from, &mut to, &experiment, usize::MAX), 1);
    assert!(rows(&source).is_empty());
    let found = rows(&target);
    assert_eq!(found[&whole.trace_id][0].part, None);
    assert_eq!(found[&whole.trace_id][0].all_spans(), part.spans.len() as u64);
}

/// Scenario: rows are found, to be moved; before they are read, another archiver deletes one of them and amends another.
/// Guarantees: neither is read as it was: what is deleted does not come back in the other table.
#[test]
fn rows_that_went_since_they_were_found_do_not_move() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer("one");
    writer.commit_epoch(1, &[draft(1, 0..1), draft(2, 0..1), draft(3, 0..1)]).unwrap();
    let experiment = ExperimentId::default_experiment();
    let path = writer.data_files().unwrap().remove(0);
    let found: Vec<u64> =
        writer.rows_of(&experiment, &path).unwrap().rows.iter().map(|(row, _)| *row).collect();
    assert_eq!(found.len(), 3);
    let later = [changes(1, vec![TraceChange::Delete]), draft(2, 1..2)];
    fixture.writer("two").commit_epoch(1, &later).unwrap();
    let located = writer.locate(&path, &found).unwrap();
    let read: Vec<TraceId> = located.traces.iter().map(|trace| trace.trace_id).collect();
    assert_eq!(read, [draft(3, 0..1).trace_id]);
}

/// Takes the row of a trace away, and leaves its parts.
fn delete_head(writer: &mut TableWriter, whole: &TraceDraft) {
    let experiment = whole.experiment_id.clone().unwrap();
    for (index, path) in writer.data_files().unwrap().into_iter().enumerate() {
        if let [(row, _)] = writer.rows_of(&experiment, &path).unwrap().rows[..] {
            let files = writer.live_files().unwrap();
            let row = BTreeMap::from([(index, BTreeSet::from([row]))]);
            assert!(matches!(writer.delete(&files, &row).unwrap(), Step::Done(())));
            writer.refresh().unwrap();
            return;
        }
    }
    panic!("no such row");
}
