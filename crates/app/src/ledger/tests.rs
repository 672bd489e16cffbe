use tracelake_decode::{ContentEncoding, RecordKind, Route, SpanSource, decode_otlp};
use tracelake_model::{ExperimentId, Limits, TraceChanges, TraceInfo};
use tracelake_testkit::spans::simple_request;

use super::*;

const HOUR: u64 = NANOS_PER_HOUR;
const DAY: u64 = NANOS_PER_DAY;

fn header(kind: RecordKind, at: u64) -> RecordHeader {
    RecordHeader {
        kind,
        encoding: ContentEncoding::Identity,
        received_at_unix_nano: at,
        routes: vec![Route {
            experiment_id: ExperimentId::default_experiment(),
            table: "a.b.c".parse().unwrap(),
        }],
        run_id: None,
        trace_id: None,
        limits: Limits::default(),
        source: None,
    }
}

/// Spans of a trace that arrive.
pub(crate) fn spans(trace: u128, spans: std::ops::Range<u64>, kind: RecordKind) -> DecodedRecord {
    let body = simple_request(trace, spans);
    let spans = decode_otlp(&body, SpanSource::Otlp, &Limits::default()).unwrap();
    DecodedRecord { header: header(kind, 5 * HOUR), content: RecordContent::Spans(spans) }
}

/// A trace's `start_trace` that arrives.
pub(crate) fn start(trace: u128) -> DecodedRecord {
    let info = TraceInfo::new(id(trace));
    DecodedRecord {
        header: header(RecordKind::MlflowStartTrace, 6 * HOUR),
        content: RecordContent::TraceInfo(Box::new(info)),
    }
}

/// A client's deletion of a trace.
pub(crate) fn deletion(trace: u128) -> DecodedRecord {
    let changes = TraceChanges { trace_id: id(trace), changes: vec![TraceChange::Delete] };
    DecodedRecord {
        header: header(RecordKind::TraceChanges, 7 * HOUR),
        content: RecordContent::Changes(vec![changes]),
    }
}

/// The trace that requests of the kit have under this number.
pub(crate) fn id(trace: u128) -> TraceId {
    TraceId((trace + 1).to_be_bytes())
}

pub(crate) fn ledger(folder: &Path) -> Ledger {
    let fs = Arc::new(tracelake_journal::RealFs);
    Ledger::open(fs, folder.to_owned(), Uuid::from_u128(7), Duration::from_secs(2 * 86_400))
}

fn write(ledger: &mut Ledger, segment: u64, now: u64) {
    ledger.write(SegmentNumber::new(segment), now, now).unwrap();
}

fn read_all(folder: &Path) -> (Vec<Block>, ReadAll) {
    let mut blocks = Vec::new();
    let outcome = read_blocks(folder, Mark::default(), None, &mut |block| {
        blocks.push(block);
        Ok(())
    })
    .unwrap();
    let read = ReadAll { mark: outcome.mark, damaged: outcome.damaged.len() };
    (blocks, read)
}

#[derive(Debug, PartialEq, Eq)]
struct ReadAll {
    mark: Mark,
    damaged: usize,
}

/// Scenario: spans of two traces mixed, a retry, a deletion between, a `start_trace`, changes of
/// no account, and what the journal carries over.
/// Guarantees: each trace is there once, what was said of it in order, copies counted and left out.
#[test]
fn an_entry_says_what_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = ledger(folder.path());
    ledger.note(&spans(1, 0..2, RecordKind::OtlpProtobuf));
    ledger.note(&spans(0, 0..1, RecordKind::OtlpJson));
    ledger.note(&spans(1, 1..3, RecordKind::OtlpProtobuf));
    ledger.note(&spans(1, 0..9, RecordKind::CarriedTrace));
    ledger.note(&deletion(1));
    ledger.note(&spans(1, 0..1, RecordKind::OtlpProtobuf));
    ledger.note(&start(0));
    ledger.note(&start(0));
    write(&mut ledger, 3, DAY);
    write(&mut ledger, 4, DAY);
    let (blocks, _) = read_all(folder.path());
    let [Block { journal, through: 3, is_first: true, cells, traces }] = blocks.as_slice() else {
        panic!("{blocks:?}");
    };
    assert_eq!(*journal, Uuid::from_u128(7));
    let ways: Vec<(Way, u64)> = cells.iter().map(|cell| (cell.way, cell.hour)).collect();
    let expected =
        [(Way::OtlpProtobuf, 5), (Way::OtlpJson, 5), (Way::Changes, 7), (Way::MlflowStartTrace, 6)];
    assert_eq!(ways, expected);
    let said: Vec<(TraceId, Vec<String>)> = traces
        .iter()
        .map(|(trace, said)| {
            let words = said.iter().map(|said| match said {
                Said::Spans { cell, sent, fingerprints } => {
                    assert!(fingerprints.is_sorted_by(|left, right| left < right));
                    format!("{cell}: {sent} sent, {} different", fingerprints.len())
                }
                Said::Started { cell } => format!("{cell}: started"),
                Said::Deleted { cell } => format!("{cell}: deleted"),
            });
            (*trace, words.collect())
        })
        .collect();
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let expected: [(TraceId, Vec<String>); 2] = [
        (id(0), words(&["1: 1 sent, 1 different", "3: started"])),
        (id(1), words(&["0: 4 sent, 3 different", "2: deleted", "0: 1 sent, 1 different"])),
    ];
    assert_eq!(said, expected);
}

/// Scenario: the last file is cut at every length, as a crash may leave it; then a process starts
/// and writes on.
/// Guarantees: whole entries are kept, torn ones are gone, later ones are read, no damage is told.
#[test]
fn a_torn_end_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = ledger(folder.path());
    first.note(&spans(1, 0..2, RecordKind::OtlpProtobuf));
    write(&mut first, 1, DAY);
    let path = read::files(folder.path()).unwrap().remove(0).path;
    let whole = std::fs::metadata(&path).unwrap().len();
    first.note(&spans(2, 0..2, RecordKind::OtlpProtobuf));
    write(&mut first, 2, DAY);
    drop(first);
    let bytes = std::fs::read(&path).unwrap();
    for length in 0..=bytes.len() {
        for file in read::files(folder.path()).unwrap() {
            std::fs::remove_file(file.path).unwrap();
        }
        std::fs::write(&path, &bytes[..length]).unwrap();
        let mut next = ledger(folder.path());
        next.note(&spans(3, 0..1, RecordKind::OtlpProtobuf));
        write(&mut next, 3, DAY);
        let (blocks, read) = read_all(folder.path());
        let through: Vec<u64> = blocks.iter().map(|block| block.through).collect();
        let expected: &[u64] = match length {
            _ if length == bytes.len() => &[1, 2, 3],
            _ if (whole..).contains(&(length as u64)) => &[1, 3],
            _ => &[3],
        };
        assert_eq!((through.as_slice(), read.damaged), (expected, 0), "cut at {length}");
    }
}

/// Scenario: one byte of a file that is not the last changes.
/// Guarantees: nothing wrong is read from it, and the damage is told, unless it is in the header,
/// where all of the file is lost and told.
#[test]
fn a_changed_byte_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = ledger(folder.path());
    for trace in 1..4 {
        first.note(&spans(trace, 0..2, RecordKind::OtlpProtobuf));
        write(&mut first, u64::try_from(trace).unwrap(), DAY);
    }
    let path = read::files(folder.path()).unwrap().remove(0).path;
    let mut last = ledger(folder.path());
    last.note(&spans(9, 0..1, RecordKind::OtlpProtobuf));
    write(&mut last, 9, DAY);
    let bytes = std::fs::read(&path).unwrap();
    let (good, _) = read_all(folder.path());
    for place in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[place] ^= 0x10;
        std::fs::write(&path, &changed).unwrap();
        let (blocks, read) = read_all(folder.path());
        assert_eq!(read.damaged, 1, "byte {place}");
        let all: Vec<_> = good.iter().map(|block| &block.traces).collect();
        assert!(blocks.len() < good.len());
        assert!(blocks.iter().all(|block| all.contains(&&block.traces)), "byte {place}");
    }
}

/// Scenario: entries on four days, with a retention of two; a reader that goes on where it was.
/// Guarantees: a day has a file of its own, old ones go, the reader misses none and sees none twice.
#[test]
fn old_days_go_and_a_reader_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = ledger(folder.path());
    let mut mark = Mark::default();
    let mut seen = Vec::new();
    for day in 20_000..20_004_u64 {
        for half in 0..2 {
            ledger.note(&spans(u128::from(day), half..half + 1, RecordKind::OtlpProtobuf));
            write(&mut ledger, day * 2 + half, day * DAY + half * DAY / 2);
            let until = newest_mark(folder.path()).unwrap();
            let outcome = read_blocks(folder.path(), mark, Some(until), &mut |block| {
                seen.push(block.through);
                Ok(())
            });
            mark = outcome.unwrap().mark;
            assert_eq!(mark, until);
        }
    }
    assert_eq!(seen, (40_000..40_008).collect::<Vec<u64>>());
    let files = read::files(folder.path()).unwrap();
    let days: Vec<u64> = files.iter().map(|file| file.day).collect();
    assert_eq!(days, [20_001, 20_002, 20_003]);
    assert!(files[2].path.ends_with("0000000004-20241007.ledger"), "{files:?}");
}

/// Scenario: the folder cannot be written, then it can.
/// Guarantees: what was told is in the next entry.
#[test]
fn what_could_not_be_written_goes_with_the_next_entry() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("ledger");
    std::fs::write(&folder, "in the way").unwrap();
    let mut ledger = ledger(&folder);
    ledger.note(&spans(1, 0..2, RecordKind::OtlpProtobuf));
    assert!(ledger.write(SegmentNumber::new(1), DAY, DAY).is_err());
    std::fs::remove_file(&folder).unwrap();
    ledger.note(&spans(2, 0..2, RecordKind::OtlpProtobuf));
    write(&mut ledger, 2, DAY);
    let (blocks, _) = read_all(&folder);
    let traces: Vec<TraceId> = blocks[0].traces.iter().map(|(trace, _)| *trace).collect();
    assert_eq!((blocks.len(), traces), (1, vec![id(1), id(2)]));
}
