use std::io::Read as _;

use tracelake_decode::RecordKind;
use tracelake_journal::SimulatedFs;
use tracelake_model::{TraceChange, TraceId};
use tracelake_testkit::records::{change, deletion, id, set_tag, spans, start};

use super::*;

const DAY: u64 = NANOS_PER_DAY;

/// A ledger in `ledger` of the folder, whose link is noted in `LEDGER` there.
fn ledger(place: &Path) -> Ledger {
    let retention = Duration::from_secs(2 * 86_400);
    let fs = Arc::new(RealFs);
    Ledger::new(fs, place.join("ledger"), place.join("LEDGER"), Uuid::from_u128(7), retention)
}

/// A new folder for a ledger.
fn place() -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("ledger");
    (place, folder)
}

fn write(ledger: &mut Ledger, segment: u64, now: u64) {
    ledger.write(SegmentNumber::new(segment), now, now).unwrap();
}

fn say(ledger: &mut Ledger, trace: u128) {
    ledger.note(&spans(trace, 0..2, RecordKind::OtlpProtobuf));
}

fn read_all(folder: &Path) -> Vec<Block> {
    let mut blocks = Vec::new();
    read_blocks(folder, Mark::default(), None, &mut |block| {
        blocks.push(block);
        Ok(())
    })
    .unwrap();
    blocks
}

fn through(folder: &Path) -> Vec<u64> {
    read_all(folder).iter().map(|block| block.through).collect()
}

/// The chain of the ledger there, before it is followed.
fn chain(place: &Path) -> ChainCheck {
    let link = place.join("LEDGER");
    ChainCheck::new(LinkFile::read(&RealFs, &link).unwrap(), &link)
}

/// What `verify` finds of the ledger itself.
fn findings(place: &Path) -> ChainFindings {
    let mut chain = chain(place);
    read_ledger(&place.join("ledger"), Mark::default(), None, &mut |path, seen| {
        match seen {
            Seen::Block(offset, block) => chain.block(path, offset, &block),
            Seen::DamagedHeader => chain.damaged_header(path),
            Seen::Unreadable(seen) => chain.unreadable(path, &seen),
        }
        Ok(())
    })
    .unwrap();
    chain.finish()
}

/// A file as a version that does not chain its entries writes it: an entry for each trace.
fn unchained_file(traces: std::ops::Range<u128>) -> Vec<u8> {
    let mut bytes = b"TLLEDGER\x01\0\0\0\0\0\0\0".to_vec();
    for trace in traces {
        let mut told = Told::default();
        told.note(&spans(trace, 0..2, RecordKind::OtlpProtobuf));
        let (traces, through) = (told.by_trace(), u64::try_from(trace).unwrap());
        let journal = Uuid::from_u128(7);
        let entry =
            Entry { journal, through, begins_anew: false, cells: told.cells(), traces: &traces };
        let (chained, _) = encode_blocks(entry, Link::default());
        let body = &chained[64..];
        let crc = crc32c::crc32c_append(crc32c::crc32c(&chained[4..36]), body);
        bytes.extend_from_slice(b"TLBK");
        bytes.extend_from_slice(&chained[4..36]);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(body);
    }
    bytes
}

/// Scenario: spans of two traces mixed, a retry, a deletion between, a `start_trace`, changes, and
/// what the journal carries over.
/// Guarantees: each trace is there once, what was said of it in order, copies counted and left out,
/// of changes to one thing the last.
#[test]
fn an_entry_says_what_was_acknowledged() {
    let (place, folder) = place();
    let mut ledger = ledger(place.path());
    ledger.note(&spans(1, 0..2, RecordKind::OtlpProtobuf));
    ledger.note(&spans(0, 0..1, RecordKind::OtlpJson));
    ledger.note(&spans(1, 1..3, RecordKind::OtlpProtobuf));
    ledger.note(&spans(1, 0..9, RecordKind::CarriedTrace));
    ledger.note(&change(1, vec![set_tag("a", "1")]));
    ledger.note(&deletion(1));
    ledger.note(&spans(1, 0..1, RecordKind::OtlpProtobuf));
    ledger.note(&start(0));
    ledger.note(&start(0));
    let deleted = TraceChange::DeleteTag { key: "b".to_owned() };
    ledger.note(&change(0, vec![set_tag("a", "1"), set_tag("b", "2"), set_tag("a", "3"), deleted]));
    write(&mut ledger, 3, DAY);
    write(&mut ledger, 4, DAY);
    let blocks = read_all(&folder);
    let [Block { journal, through: 3, is_first: true, cells, traces, .. }] = blocks.as_slice()
    else {
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
                Said::Changed { cell, subject, value } => {
                    let name = |hash| ["a", "b"].into_iter().find(|name| text_hash(name) == hash);
                    let Subject::Tag(key) = subject else { panic!("{subject:?}") };
                    let value =
                        value.map(|value| (1..4).find(|n| text_hash(&n.to_string()) == value));
                    format!("{cell}: {} is {value:?}", name(*key).unwrap())
                }
            });
            let mut words: Vec<String> = words.collect();
            // Those on different subjects are in the order of their hashes.
            words.sort_by_key(|word| word.contains(" is ").then(|| word.clone()));
            (*trace, words)
        })
        .collect();
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let first = ["1: 1 sent, 1 different", "3: started", "2: a is Some(Some(3))", "2: b is None"];
    let second =
        ["0: 4 sent, 3 different", "2: deleted", "0: 1 sent, 1 different", "2: a is Some(Some(1))"];
    let expected: [(TraceId, Vec<String>); 2] = [(id(0), words(&first)), (id(1), words(&second))];
    assert_eq!(said, expected);
}

/// Scenario: the file at hand is cut at every length, as a crash leaves it that came before the link
/// of the last entry was noted; then a process starts, writes that entry again, and another one.
/// Guarantees: no finding, and nothing of what counts is lost.
#[test]
fn an_entry_that_was_being_written_is_no_finding() {
    let (place, folder) = place();
    let mut first = ledger(place.path());
    say(&mut first, 1);
    write(&mut first, 1, DAY);
    let path = read::files(&folder).unwrap().remove(0).path;
    let whole = usize::try_from(std::fs::metadata(&path).unwrap().len()).unwrap();
    let link = std::fs::read(place.path().join("LEDGER")).unwrap();
    say(&mut first, 2);
    write(&mut first, 2, DAY);
    drop(first);
    let bytes = std::fs::read(&path).unwrap();
    for length in whole..=bytes.len() {
        std::fs::remove_dir_all(&folder).unwrap();
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(&path, &bytes[..length]).unwrap();
        std::fs::write(place.path().join("LEDGER"), &link).unwrap();
        assert_eq!(findings(place.path()), ChainFindings::default(), "cut at {length}");
        let mut next = ledger(place.path());
        for trace in 2..4 {
            say(&mut next, trace);
            write(&mut next, u64::try_from(trace).unwrap(), DAY);
        }
        let expected: &[u64] = if length == bytes.len() { &[1, 2, 2, 3] } else { &[1, 2, 3] };
        assert_eq!(through(&folder), expected, "cut at {length}");
        assert_eq!(findings(place.path()), ChainFindings::default(), "cut at {length}");
    }
}

/// Scenario: each byte of a ledger of two files changes, one at a time; then a process goes on.
/// Guarantees: there is a finding that names the file, before and after, and every other entry is
/// read.
#[test]
fn each_changed_byte_is_found_and_hides_nothing_else() {
    let (place, folder) = place();
    let mut last = 0;
    for _ in 0..2 {
        let mut process = ledger(place.path());
        for _ in 0..2 {
            last += 1;
            say(&mut process, u128::from(last));
            write(&mut process, last, DAY);
        }
    }
    let good = read_all(&folder);
    let link = std::fs::read(place.path().join("LEDGER")).unwrap();
    for file in read::files(&folder).unwrap() {
        let bytes = std::fs::read(&file.path).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            std::fs::write(&file.path, &changed).unwrap();
            let found = findings(place.path()).faults;
            let name = file.path.display().to_string();
            assert!(found.iter().any(|fault| fault.contains(&name)), "byte {at}: {found:?}");
            let lost = usize::from(16 <= at);
            let read = read_all(&folder);
            assert_eq!(read.len(), good.len() - lost, "byte {at}");
            let all: Vec<_> = good.iter().map(|block| (block.through, &block.traces)).collect();
            assert!(read.iter().all(|block| all.contains(&(block.through, &block.traces))));
        }
        // What goes on behind the damage does not hide it.
        let mut changed = bytes.clone();
        changed[bytes.len() - 1] ^= 1;
        std::fs::write(&file.path, &changed).unwrap();
        let mut next = ledger(place.path());
        say(&mut next, 9);
        write(&mut next, 9, DAY);
        assert_eq!(findings(place.path()).faults.len(), 1);
        assert_eq!(through(&folder).last(), Some(&9));
        drop(next);
        std::fs::remove_file(read::files(&folder).unwrap().pop().unwrap().path).unwrap();
        std::fs::write(place.path().join("LEDGER"), &link).unwrap();
        std::fs::write(&file.path, &bytes).unwrap();
        assert_eq!(findings(place.path()), ChainFindings::default());
    }
}

/// Scenario: of a ledger are lost all files, the first, the middle or the last one, its end, the
/// noted link, or that is damaged; a process goes on after it.
/// Guarantees: each is a finding, and stays one; a ledger that never was is none.
#[test]
fn what_is_lost_is_told_and_stays_told() {
    let (place, folder) = place();
    let link = place.path().join("LEDGER");
    assert_eq!(findings(place.path()), ChainFindings::default());
    write(&mut ledger(place.path()), 1, DAY);
    assert_eq!(findings(place.path()), ChainFindings::default());
    for trace in 1..4 {
        let mut process = ledger(place.path());
        say(&mut process, trace);
        write(&mut process, u64::try_from(trace).unwrap(), DAY);
    }
    let kept: Vec<(PathBuf, Vec<u8>)> = read::files(&folder)
        .unwrap()
        .into_iter()
        .map(|file| file.path)
        .chain([link.clone()])
        .map(|path| (path.clone(), std::fs::read(&path).unwrap()))
        .collect();
    type Loss = fn(&[(PathBuf, Vec<u8>)]);
    let remove = |path: &PathBuf| std::fs::remove_file(path).unwrap();
    let losses: [(Loss, &str); 7] = [
        (
            |kept| kept[..3].iter().for_each(|(path, _)| std::fs::remove_file(path).unwrap()),
            "ends with block 0",
        ),
        (|kept| std::fs::remove_file(&kept[0].0).unwrap(), "block 1 of the ledger before it"),
        (|kept| std::fs::remove_file(&kept[1].0).unwrap(), "block 2 of the ledger before it"),
        (|kept| std::fs::remove_file(&kept[2].0).unwrap(), "ends with block 2"),
        (|kept| std::fs::write(&kept[2].0, &kept[2].1[..40]).unwrap(), "ends with block 2"),
        (|kept| std::fs::remove_file(&kept[3].0).unwrap(), "is missing"),
        (|kept| std::fs::write(&kept[3].0, "1 7").unwrap(), "is damaged"),
    ];
    for (number, (lose, expected)) in losses.into_iter().enumerate() {
        lose(&kept);
        let faults = findings(place.path()).faults;
        assert!(faults.iter().any(|fault| fault.contains(expected)), "{number}: {faults:?}");
        for trace in 4..6 {
            let mut next = ledger(place.path());
            say(&mut next, trace);
            write(&mut next, u64::try_from(trace).unwrap(), DAY);
            let faults = findings(place.path()).faults;
            assert!(!faults.is_empty(), "{number}: forgotten by the next process");
        }
        read::files(&folder).unwrap().iter().for_each(|file| remove(&file.path));
        kept.iter().for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
        assert_eq!(findings(place.path()), ChainFindings::default());
    }
}

/// Scenario: a ledger of a version that did not chain, whose end is torn, whole but damaged, or
/// whole; then processes go on.
/// Guarantees: its entries are read; a torn end is cut off and no finding, damage is one; it is noted
/// that it proves nothing, and what comes behind it is chained.
#[test]
fn a_ledger_without_a_chain_goes_on_with_one() {
    let bytes = unchained_file(1..4);
    let two = unchained_file(1..3).len();
    let mut damaged = bytes.clone();
    damaged[two + 45] ^= 1;
    let zeros = [&bytes[..], &[0; 100]].concat();
    let cases: [(&[u8], usize, &[u64]); 4] = [
        (&bytes, 0, &[1, 2, 3]),
        (&bytes[..bytes.len() - 3], 0, &[1, 2]),
        (&zeros, 0, &[1, 2, 3]),
        (&damaged, 1, &[1, 2]),
    ];
    for (number, (bytes, faults, expected)) in cases.into_iter().enumerate() {
        let (place, folder) = place();
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("0000000001-19700102.ledger"), bytes).unwrap();
        for trace in 4..6 {
            let mut process = ledger(place.path());
            say(&mut process, trace);
            write(&mut process, u64::try_from(trace).unwrap(), DAY);
        }
        assert_eq!(through(&folder), [expected, &[4, 5]].concat(), "case {number}");
        let found = findings(place.path());
        assert_eq!((found.faults.len(), found.notes.len()), (faults, 1), "{number}: {found:?}");
        std::fs::remove_file(folder.join("0000000002-19700102.ledger")).unwrap();
        assert_eq!(findings(place.path()).faults.len(), faults + 1, "case {number}");
    }
}

/// Scenario: files and a noted link of a later format.
/// Guarantees: they are refused, and nothing is changed.
#[test]
fn a_newer_ledger_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let folder = DataFolder::new(place.path()).unwrap();
    std::fs::create_dir(folder.journal()).unwrap();
    refuse_newer(&folder).unwrap();
    let mut header = file_header();
    header[8] = 3;
    let crc = crc32c::crc32c(&header[..12]);
    header[12..].copy_from_slice(&crc.to_le_bytes());
    std::fs::create_dir(folder.ledger()).unwrap();
    let file = folder.ledger().join("0000000001-20241007.ledger");
    std::fs::write(&file, header).unwrap();
    let error = format!("{:#}", refuse_newer(&folder).unwrap_err());
    assert!(error.contains("has format 3"), "{error}");
    std::fs::remove_file(file).unwrap();
    let crc = crc32c::crc32c(b"2 what comes later");
    let link = format!("2 what comes later {crc:08x}\n");
    std::fs::write(folder.ledger_link_file(), &link).unwrap();
    let error = format!("{:#}", refuse_newer(&folder).unwrap_err());
    assert!(error.contains("newer program"), "{error}");
    assert_eq!(std::fs::read_to_string(folder.ledger_link_file()).unwrap(), link);
}

/// Scenario: entries on four days, with a retention of two; a reader that goes on where it was; a
/// crash between the note of the anchor and the deletion of what is past it.
/// Guarantees: a day has a file of its own, old ones go, the reader misses none and sees none twice,
/// and what the retention took is no finding, while what it did not take is.
#[test]
fn old_days_go_and_a_reader_goes_on() {
    let (place, folder) = place();
    let mut ledger = ledger(place.path());
    let mut mark = Mark::default();
    let mut seen = Vec::new();
    let mut oldest = None;
    for day in 20_000..20_004_u64 {
        for half in 0..2 {
            ledger.note(&spans(u128::from(day), half..half + 1, RecordKind::OtlpProtobuf));
            write(&mut ledger, day * 2 + half, day * DAY + half * DAY / 2);
            let until = newest_mark(&folder).unwrap();
            let read = read_blocks(&folder, mark, Some(until), &mut |block| {
                seen.push(block.through);
                Ok(())
            });
            mark = read.unwrap();
            assert_eq!(mark, until);
            assert_eq!(findings(place.path()), ChainFindings::default());
            let first = read::files(&folder).unwrap().remove(0).path;
            oldest.get_or_insert_with(|| (first.clone(), std::fs::read(&first).unwrap()));
        }
    }
    assert_eq!(seen, (40_000..40_008).collect::<Vec<u64>>());
    let files = read::files(&folder).unwrap();
    let days: Vec<u64> = files.iter().map(|file| file.day).collect();
    assert_eq!(days, [20_001, 20_002, 20_003]);
    assert!(files[2].path.ends_with("0000000004-20241007.ledger"), "{files:?}");
    let (path, bytes) = oldest.unwrap();
    std::fs::write(path, bytes).unwrap();
    assert_eq!(findings(place.path()), ChainFindings::default());
    std::fs::remove_file(&files[0].path).unwrap();
    assert_eq!(findings(place.path()).faults.len(), 1);
}

/// Scenario: the ledger's folder cannot be written, then the link cannot be noted, then both can.
/// Guarantees: what was told is in the next entry, and the chain has no finding.
#[test]
fn what_could_not_be_written_goes_with_the_next_entry() {
    let (place, folder) = place();
    let link = place.path().join("LEDGER");
    let mut ledger = ledger(place.path());
    write(&mut ledger, 1, DAY);
    std::fs::write(&folder, "in the way").unwrap();
    say(&mut ledger, 1);
    assert!(ledger.write(SegmentNumber::new(1), DAY, DAY).is_err());
    std::fs::remove_file(&folder).unwrap();
    say(&mut ledger, 2);
    std::fs::remove_file(&link).unwrap();
    std::fs::create_dir_all(link.join("in the way")).unwrap();
    assert!(ledger.write(SegmentNumber::new(2), DAY, DAY).is_err());
    std::fs::remove_dir_all(&link).unwrap();
    say(&mut ledger, 3);
    write(&mut ledger, 3, DAY);
    let blocks = read_all(&folder);
    let last = blocks.last().unwrap();
    let traces: Vec<TraceId> = last.traces.iter().map(|(trace, _)| *trace).collect();
    assert_eq!((last.through, traces), (3, vec![id(1), id(2), id(3)]));
    assert_eq!(findings(place.path()), ChainFindings::default());
}

/// What a machine's disk has of the ledger, in a folder of its own.
fn exported(machine: &SimulatedFs) -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    std::fs::create_dir(place.path().join("ledger")).unwrap();
    for (from, to) in [("/ledger", place.path().join("ledger")), ("/journal", place.path().into())]
    {
        for file in machine.list(Path::new(from)).unwrap() {
            let mut bytes = Vec::new();
            let mut opened = machine.open_read(&Path::new(from).join(&file.name)).unwrap();
            opened.read_to_end(&mut bytes).unwrap();
            std::fs::write(to.join(file.name), bytes).unwrap();
        }
    }
    place
}

/// Scenario: the power goes at each operation on the disk while entries are written, over the end of
/// a file; what was not synced is kept, lost or torn by chance. Then a process goes on, telling again
/// what the journal still has, and the power goes once more.
/// Guarantees: no finding at any moment, and every entry whose writing returned is there.
#[test]
fn a_power_cut_at_any_step_is_no_finding() {
    for seed in 0..4 {
        let mut operations = 0;
        loop {
            let machine = SimulatedFs::new(seed);
            let open = || {
                let fs: Arc<dyn JournalFs> = Arc::new(machine.clone());
                let (folder, link) = ("/ledger".into(), "/journal/LEDGER".into());
                Ledger::new(fs, folder, link, Uuid::from_u128(7), Duration::from_secs(2 * 86_400))
            };
            let mut written = 0;
            let mut cut = 0;
            for life in 0..3 {
                machine.restart();
                machine.crash_after(if life < 2 { operations } else { u64::MAX });
                let mut process = open();
                while written < 4 {
                    let next = written + 1;
                    say(&mut process, u128::from(next));
                    let now = DAY + next / 3 * DAY;
                    if process.write(SegmentNumber::new(next), now, now).is_err() {
                        cut += 1;
                        break;
                    }
                    written = next;
                }
                machine.crash();
                machine.restart();
                machine.crash_after(u64::MAX);
                let place = exported(&machine);
                let found = findings(place.path());
                assert_eq!(found, ChainFindings::default(), "{seed}, {operations}, life {life}");
                let there = through(&place.path().join("ledger"));
                assert!((1..=written).all(|one| there.contains(&one)), "{operations}: {there:?}");
            }
            assert_eq!(written, 4);
            operations += 1;
            if cut == 0 {
                break;
            }
        }
        assert!(20 < operations, "{operations}");
    }
}
