//! Starts that end at what they replay, over real folders. A record that ends the process ends the
//! thread of the pipeline here.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    reason = "helpers of tests"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tracelake_decode::{ContentEncoding, RecordHeader, RecordKind, Route};
use tracelake_journal::{Journal, JournalFs, JournalOptions, RealFs, RecordBytes, SegmentNumber};
use tracelake_lake::assemble::SettleRules;
use tracelake_lake::{DataFolder, Lake, Table};
use tracelake_model::{ExperimentId, Limits, TableName};

use super::batches::Care;
use super::epoch_file::read_epoch;
use super::origin::Origin;
use super::pulse::Pulse;
use super::replay_mark::{At, Deaths, LastWords, PartDone, Position, Records, ReplayMark, Stage};
use super::test_service::{Service, Settings};
use crate::failpoints::poison_of_tests;
use crate::parked;

/// A request of one trace that has one span of this name.
fn record(table: &TableName, trace: u8, name: &str) -> RecordBytes {
    let payload = format!(
        r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"traceId":"{trace:032x}","spanId":"{trace:016x}",
        "name":"{name}","startTimeUnixNano":"1795305600000000000","endTimeUnixNano":"1795305600000000001"}}]}}]}}]}}"#
    );
    let header = RecordHeader {
        kind: RecordKind::OtlpJson,
        encoding: ContentEncoding::Identity,
        received_at_unix_nano: 1_795_305_600_000_000_000,
        routes: vec![Route {
            experiment_id: ExperimentId::default_experiment(),
            table: table.clone(),
        }],
        run_id: None,
        trace_id: None,
        limits: Limits::default(),
        source: None,
    };
    RecordBytes { header: header.to_bytes(), payload: payload.into() }
}

/// What an earlier process left: requests that were acknowledged, each in a segment of its own where
/// a list has one only.
async fn leave(folder: &DataFolder, segments: &[&[RecordBytes]]) {
    let (journal, _events, _) = Journal::<()>::open(JournalOptions::new(folder.journal())).unwrap();
    for records in segments {
        for record in *records {
            journal.append(record.clone(), ()).await.unwrap();
        }
        journal.rotate().await.unwrap();
    }
    journal.close().unwrap();
}

/// Settings under which nothing settles unless it is flushed, or at once.
fn settings(settle: bool) -> Settings {
    let wait = if settle { Duration::ZERO } else { Duration::from_secs(3600) };
    Settings {
        default_table: "tracelake.default.traces".parse().unwrap(),
        settle: SettleRules { settle_after: wait, idle_after: wait, ..SettleRules::default() },
        accept_lost_carry: None,
    }
}

/// Starts the service until it lives, at most thirty times. Returns it and how many starts ended.
async fn start_until_it_lives(data_dir: &Path, settings: &Settings) -> (Service, u32) {
    for deaths in 0..30 {
        let service = Service::start(data_dir, settings).await.unwrap();
        // It answers once it has replayed, or its thread has ended.
        match service.pipeline.status().await {
            Ok(_) => return (service, deaths),
            Err(_) => assert!(service.stop().await.is_err(), "it ended by itself"),
        }
    }
    panic!("each of thirty starts ended");
}

fn rows(folder: &DataFolder, table: &TableName) -> u64 {
    let table = Table::at(&Lake::new().unwrap(), folder.table(table)).unwrap();
    let files = table.snapshot(None).unwrap().live_files((None, None)).unwrap();
    files.iter().filter_map(|file| file.record_count).sum()
}

fn names_of_parked(folder: &DataFolder) -> Vec<String> {
    parked::list(&folder.parked()).unwrap().into_iter().map(|entry| entry.name).collect()
}

/// Scenario: among requests in three segments one ends the process each time it is taken in; later it
/// would not, and is put back.
/// Guarantees: it is set aside by the third start, since the first one says at which record it died; all others are in the table, before and
/// behind it; nothing is there twice; put back it is in the table too, and nothing is set aside.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_ends_each_start_is_set_aside_and_the_others_get_through() {
    let poison = "ends-each-start-in-a-segment";
    let held = tempfile::tempdir().unwrap();
    let folder = DataFolder::new(held.path()).unwrap();
    let settings = settings(true);
    let table = settings.default_table.clone();
    let good = |trace: u8| record(&table, trace, "good");
    let bad = record(&table, 9, poison);
    leave(&folder, &[&[good(1)], &[good(2), good(3), bad, good(4)], &[good(5)]]).await;
    poison_of_tests::set(poison, true);
    let (service, deaths) = start_until_it_lives(held.path(), &settings).await;
    // Among all, and alone.
    assert_eq!(deaths, 2);
    let parked = names_of_parked(&folder);
    assert_eq!(parked.len(), 1, "{parked:?}");
    assert!(parked[0].starts_with("segment-00000000000000000002-"), "{parked:?}");
    service.pipeline.flush().await.unwrap();
    assert_eq!(rows(&folder, &table), 5);
    assert!(!folder.replay_mark().try_exists().unwrap(), "nothing is left to watch");
    service.stop().await.unwrap();

    poison_of_tests::set(poison, false);
    let (service, deaths) = start_until_it_lives(held.path(), &settings).await;
    assert_eq!(deaths, 0);
    service.put_back(&parked[0]).await.unwrap();
    assert!(service.put_back(&parked[0]).await.is_err(), "it is gone from there");
    service.pipeline.flush().await.unwrap();
    assert_eq!((rows(&folder, &table), names_of_parked(&folder).len()), (6, 0));
    service.stop().await.unwrap();
}

/// Scenario: one of several traces that an epoch carried over ends each start.
/// Guarantees: it is set aside, the others get into the table, and what came after them too.
#[tokio::test(flavor = "multi_thread")]
async fn a_carried_trace_that_ends_each_start_is_set_aside() {
    let poison = "ends-each-start-in-a-carry";
    let held = tempfile::tempdir().unwrap();
    let folder = DataFolder::new(held.path()).unwrap();
    let slow = settings(false);
    let table = slow.default_table.clone();
    let open: Vec<RecordBytes> = (1..=20)
        .map(|trace| record(&table, trace, if trace == 7 { poison } else { "good" }))
        .collect();
    leave(&folder, &[&open]).await;
    let (service, _) = start_until_it_lives(held.path(), &slow).await;
    service.stop().await.unwrap();
    let names = std::fs::read_dir(folder.journal()).unwrap();
    let names: Vec<String> =
        names.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().any(|name| name.starts_with("carry-")), "{names:?}");
    leave(&folder, &[&[record(&table, 21, "later")]]).await;

    poison_of_tests::set(poison, true);
    let (service, deaths) = start_until_it_lives(held.path(), &slow).await;
    poison_of_tests::set(poison, false);
    // Among all, and alone.
    assert_eq!(deaths, 2);
    let parked = names_of_parked(&folder);
    assert_eq!(parked.len(), 1, "{parked:?}");
    assert!(parked[0].starts_with("carry-"), "{parked:?}");
    service.pipeline.flush().await.unwrap();
    assert_eq!(rows(&folder, &table), 20);
    service.stop().await.unwrap();
}

/// Scenario: an earlier start took a good record in alone and was killed from outside; and so was the
/// one before it, while it replayed.
/// Guarantees: nothing is set aside, and all is in the table.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_from_outside_is_not_taken_for_poison() {
    let held = tempfile::tempdir().unwrap();
    let folder = DataFolder::new(held.path()).unwrap();
    let settings = settings(true);
    let table = settings.default_table.clone();
    let records: Vec<RecordBytes> = (1..=3).map(|trace| record(&table, trace, "good")).collect();
    leave(&folder, &[&records]).await;
    let fs: Arc<dyn JournalFs> = Arc::new(RealFs);
    let segment = SegmentNumber::new(1);
    let mut reader = tracelake_journal::read_segment(&folder.journal(), segment).unwrap();
    reader.by_ref().take(2).for_each(|record| drop(record.unwrap()));
    let second = reader.last_sequence().unwrap().get();
    let mark = ReplayMark::new(Arc::clone(&fs), &folder, None);
    let origin = Origin::Segment(1);
    let stage = Stage::AtWork;
    let alone = Records {
        origin,
        first: second,
        last: second,
        count: 1,
        deaths: Deaths::default(),
        stage,
        through: 1,
    };
    mark.take_on(At::Records(alone)).unwrap();
    let (service, deaths) = start_until_it_lives(held.path(), &settings).await;
    assert_eq!((deaths, names_of_parked(&folder).len()), (0, 0));
    service.pipeline.flush().await.unwrap();
    assert_eq!(rows(&folder, &table), 3);
    assert!(!folder.replay_mark().try_exists().unwrap());
    service.stop().await.unwrap();
}

/// Scenario: a start took a record in alone twice, and was killed while the journal was written to, or
/// with the machine, or after it was asked to stop.
/// Guarantees: the first counts for itself, which takes eight; the others do not count.
#[test]
fn deaths_beside_a_record_do_not_count_against_it() {
    let held = tempfile::tempdir().unwrap();
    let folder = DataFolder::new(held.path()).unwrap();
    std::fs::create_dir(folder.journal()).unwrap();
    let origin = Origin::Segment(1);
    let stage = Stage::AtWork;
    let before = Deaths { at_work: 1, between: 6, own: 0 };
    let alone =
        Records { origin, first: 60, last: 60, count: 1, deaths: before, stage, through: 1 };
    let at_work = Some(Deaths { at_work: 2, between: 6, own: 0 });
    let between = Some(Deaths { at_work: 1, between: 7, own: 0 });
    let deaths = || {
        let words = ReplayMark::new(Arc::new(RealFs), &folder, None).read().unwrap();
        Care::after(words.at, None).map(|care| care.deaths_at(origin, 60))
    };
    let mark = ReplayMark::new(Arc::new(RealFs), &folder, None);
    mark.take_on(At::Records(alone.clone())).unwrap();
    assert_eq!(deaths(), at_work);
    mark.enter(Stage::Between).unwrap();
    assert_eq!(deaths(), between);
    mark.enter(Stage::AtWork).unwrap();
    assert_eq!(deaths(), at_work);
    let text = std::fs::read_to_string(folder.replay_mark()).unwrap();
    let boot = RealFs.boot();
    if !boot.is_empty() {
        let (_, json) = text.trim().split_once(' ').unwrap();
        let json = json.replace(&boot, "another");
        let crc = crc32c::crc32c(json.as_bytes());
        std::fs::write(folder.replay_mark(), format!("{crc:08x} {json}")).unwrap();
        assert_eq!(deaths(), Some(before), "the machine went down with it");
        std::fs::write(folder.replay_mark(), text).unwrap();
    }
    mark.stop().unwrap();
    assert_eq!(deaths(), None);
    mark.take_on(At::Records(alone)).unwrap();
    assert_eq!(deaths(), None, "it was asked to stop before it went on");
}

/// Scenario: a start took a record in alone, and died while it opened a table; the next one opens that
/// table too and dies later.
/// Guarantees: the first death is the table's alone, and the second one nobody's: no record is found that
/// was not taken on.
#[test]
fn a_death_at_a_table_is_not_one_at_the_record_as_well() {
    let held = tempfile::tempdir().unwrap();
    let folder = DataFolder::new(held.path()).unwrap();
    std::fs::create_dir(folder.journal()).unwrap();
    let table: TableName = "a.b.slow".parse().unwrap();
    let mark = || ReplayMark::new(Arc::new(RealFs), &folder, None);
    let deaths = Deaths { at_work: 2, between: 0, own: 0 };
    let (origin, stage) = (Origin::Segment(1), Stage::AtWork);
    let alone =
        At::Records(Records { origin, first: 60, last: 60, count: 1, deaths, stage, through: 1 });
    let first = mark();
    first.take_on(alone.clone()).unwrap();
    let died = || first.open_table::<()>(&table, || panic!("deadly"));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(died)).is_err());
    let second = mark();
    assert_eq!(second.read().unwrap().at, Some(alone));
    second.open_table(&table, || ());
    let third = mark();
    assert_eq!(third.read().unwrap().at, None);
    assert_eq!(third.set_apart(&table), None);
}

/// Scenario: starts took a record in alone and ended while what it led to was written down: eight, or seven.
/// Guarantees: after the eighth it is set aside and the others get into the table; before that it gets there
/// too.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_written_down_is_set_aside() {
    for (between, parked) in [(7, 1), (6, 0)] {
        let held = tempfile::tempdir().unwrap();
        let folder = DataFolder::new(held.path()).unwrap();
        let settings = settings(true);
        let table = settings.default_table.clone();
        let records: Vec<RecordBytes> = (1..=3).map(|trace| record(&table, trace, "x")).collect();
        leave(&folder, &[&records]).await;
        let segment = SegmentNumber::new(1);
        let mut reader = tracelake_journal::read_segment(&folder.journal(), segment).unwrap();
        reader.by_ref().take(2).for_each(|record| drop(record.unwrap()));
        let second = reader.last_sequence().unwrap().get();
        let (origin, stage) = (Origin::Segment(1), Stage::Between);
        let deaths = Deaths { at_work: 0, between, own: 0 };
        let alone =
            Records { origin, first: second, last: second, count: 1, deaths, stage, through: 1 };
        ReplayMark::new(Arc::new(RealFs), &folder, None).take_on(At::Records(alone)).unwrap();
        let (service, deaths) = start_until_it_lives(held.path(), &settings).await;
        assert_eq!((deaths, names_of_parked(&folder).len()), (0, parked));
        service.pipeline.flush().await.unwrap();
        assert_eq!(rows(&folder, &table), 3 - parked as u64);
        service.stop().await.unwrap();
    }
}

/// Scenario: records of a carry are those of another file after each part that is noted; what a start
/// died at lies before, within and behind what is left.
/// Guarantees: it is found at its place in the other file, and no other record is taken for it.
#[test]
fn a_place_moves_with_its_record() {
    let (old, new) = (Origin::Carry(5), Origin::Carry(9));
    let stage = Stage::AtWork;
    let deaths = Deaths { at_work: 2, between: 0, own: 0 };
    let died = Records { origin: old, first: 3, last: 3, count: 1, deaths, stage, through: 1 };
    let together = vec![(old, 2), (old, 7), (Origin::Segment(4), 80)];
    let care = Care { died_at: Some(died), through: Some(1), together };
    let moved = care.moved(old, new, -3);
    assert_eq!(
        (moved.deaths_at(new, 0), moved.deaths_at(new, 1), moved.deaths_at(old, 3)),
        (deaths, Deaths::default(), Deaths::default())
    );
    assert_eq!(moved.together, [(new, 4), (Origin::Segment(4), 80)]);
    let moved = care.moved(old, new, -4);
    assert_eq!((moved.died_at.clone(), moved.deaths_at(new, 0)), (None, Deaths::default()));
    let moved = care.moved(old, new, 2);
    assert_eq!((moved.deaths_at(new, 5), moved.deaths_at(new, 3)), (deaths, Deaths::default()));
}

/// A start that ends while it opens a table, by its own doing or not.
fn die_at_table(folder: &DataFolder, table: &TableName, is_own: bool) {
    let pulse = Pulse::new(folder.pulse());
    let mark = ReplayMark::new(Arc::new(RealFs), folder, Some(pulse.clone()));
    mark.read().unwrap();
    mark.take_on(At::Settling).unwrap();
    let die = || {
        if is_own {
            pulse.note_panic();
        }
        panic!("deadly")
    };
    let open = || mark.open_table::<()>(table, die);
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(open)).is_err());
}

/// Scenario: starts in a row ended while they opened one table, by their own doing or why nobody knows; the next
/// ones find traces for it and for another one; then an operator has it opened again.
/// Guarantees: after two, or sixteen, that table alone is left alone, not before, and it says why over further
/// starts; then it gets its traces.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_ends_each_start_is_set_apart() {
    for (is_own, bound, word) in [(true, 2, "by their own doing"), (false, 16, "ten minutes")] {
        let held = tempfile::tempdir().unwrap();
        let folder = DataFolder::new(held.path()).unwrap();
        let settings = settings(true);
        let good = settings.default_table.clone();
        let bad: TableName = "a.b.deadly".parse().unwrap();
        leave(&folder, &[&[record(&good, 1, "x"), record(&bad, 2, "y")]]).await;
        for _ in 1..bound {
            die_at_table(&folder, &bad, is_own);
        }
        let next = ReplayMark::new(Arc::new(RealFs), &folder, Some(Pulse::new(folder.pulse())));
        next.read().unwrap();
        assert_eq!(next.set_apart(&bad), None);
        die_at_table(&folder, &bad, is_own);
        for _ in 0..2 {
            let (service, deaths) = start_until_it_lives(held.path(), &settings).await;
            assert_eq!(deaths, 0);
            let refused = service.pipeline.flush().await.unwrap_err();
            assert!(refused.contains("a.b.deadly") && refused.contains("set apart"), "{refused}");
            assert_eq!(rows(&folder, &good), 1);
            let status = service.pipeline.status().await.unwrap();
            let why = status.tables[&bad].blocked.as_ref().unwrap();
            assert!(why.contains("set apart") && why.contains(word), "{why}");
            service.stop().await.unwrap();
        }
        let (service, _) = start_until_it_lives(held.path(), &settings).await;
        assert!(service.pipeline.release_table(bad.clone()).await.unwrap());
        assert!(
            !service.pipeline.release_table(bad.clone()).await.unwrap(),
            "it is not apart any more"
        );
        service.pipeline.flush().await.unwrap();
        assert_eq!(rows(&folder, &bad), 1);
        service.stop().await.unwrap();
    }
}

/// Scenario: one table was set apart for unexplained deaths and one for deaths by their own doing; a process
/// lives; it dies at the first one, and the next process opens it.
/// Guarantees: after ten minutes the first one alone is opened again, once in a life, and a death then counts; once
/// it was opened nothing is held against it, also by the next start.
#[test]
fn a_table_set_apart_by_kills_is_tried_again() {
    let held = tempfile::tempdir().unwrap();
    let folder = DataFolder::new(held.path()).unwrap();
    std::fs::create_dir(folder.journal()).unwrap();
    let [killed, deadly]: [TableName; 2] =
        ["a.b.killed", "a.b.deadly"].map(|name| name.parse().unwrap());
    (0..2).for_each(|_| die_at_table(&folder, &deadly, true));
    (0..16).for_each(|_| die_at_table(&folder, &killed, false));
    let minutes = |minutes: u64| 5 + minutes * 60_000_000_000;
    let live = || {
        let mark = ReplayMark::new(Arc::new(RealFs), &folder, Some(Pulse::new(folder.pulse())));
        mark.read().unwrap();
        mark.lay_down().unwrap();
        assert_eq!(mark.try_again(minutes(0)), []);
        assert_eq!(mark.try_again(minutes(10) - 1), []);
        assert!(mark.set_apart(&killed).is_some_and(|why| why.contains("ten minutes")));
        assert_eq!(mark.try_again(minutes(10)), std::slice::from_ref(&killed));
        assert_eq!(mark.try_again(minutes(30)), []);
        assert_eq!(mark.set_apart(&killed), None);
        assert!(mark.set_apart(&deadly).is_some_and(|why| why.contains("by their own doing")));
        mark
    };
    let first = live();
    let open = || first.open_table::<()>(&killed, || panic!("killed"));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(open)).is_err());
    let second = live();
    second.open_table(&killed, || ());
    second.opened(&killed);
    let third = ReplayMark::new(Arc::new(RealFs), &folder, Some(Pulse::new(folder.pulse())));
    third.read().unwrap();
    let apart: Vec<TableName> = third.tables_apart().into_iter().map(|(table, _)| table).collect();
    assert_eq!(apart, [deadly]);
}

/// Scenario: a start ends by its own doing, or why nobody knows, at a carry and segments as a whole, at one of them, at
/// several records, at one of several, and at one alone; at one that the mark does not name; with another mark.
/// Guarantees: by its own doing, the record that it names is taken in alone next and is set aside after one death
/// more; several are taken in one by one; what nobody explains is divided and counted; what the mark does not name
/// counts for no record.
#[test]
fn what_a_start_died_of_decides_what_the_next_one_takes_in() {
    let held = tempfile::tempdir().unwrap();
    let folder = DataFolder::new(held.path()).unwrap();
    std::fs::create_dir(folder.journal()).unwrap();
    let (segment, stage) = (Origin::Segment(3), Stage::AtWork);
    let records = |first: u64, last: u64, deaths: Deaths| {
        let count = (last - first) / 10 + 1;
        Records { origin: segment, first, last, count, deaths, stage, through: 3 }
    };
    let deaths = |at_work, own| Deaths { at_work, between: 0, own };
    let none = Deaths::default();
    let carried = Records {
        origin: Origin::Carry(2),
        first: 7,
        last: 7,
        count: 1,
        ..records(0, 0, deaths(0, 1))
    };
    let whole = At::Segments { through: 3 };
    let alone = |at_work, own| At::Records(records(40, 40, deaths(at_work, own)));
    let many = |own| At::Records(records(20, 170, deaths(0, own)));
    // What was taken on, by its own doing at which record, and what the next one finds.
    let cases = [
        (whole.clone(), None, whole.clone()),
        (whole.clone(), Some(None), whole.clone()),
        (whole.clone(), Some(Some((segment, 40))), alone(0, 1)),
        (whole.clone(), Some(Some((Origin::Carry(2), 7))), At::Records(carried)),
        (At::Settling, Some(Some((segment, 40))), At::Settling),
        (many(0), None, many(0)),
        (many(0), Some(None), many(1)),
        (many(0), Some(Some((segment, 40))), alone(0, 1)),
        (many(0), Some(Some((segment, 10))), many(1)),
        (many(0), Some(Some((Origin::Segment(4), 40))), many(1)),
        (alone(0, 0), None, alone(1, 0)),
        (alone(0, 1), None, alone(1, 1)),
        (alone(0, 1), Some(None), alone(0, 2)),
        (alone(5, 0), Some(Some((segment, 40))), alone(5, 1)),
    ];
    for (at, died, found) in cases {
        let pulse = Pulse::new(folder.pulse());
        let mark = ReplayMark::new(Arc::new(RealFs), &folder, Some(pulse.clone()));
        mark.take_on(at.clone()).unwrap();
        if let Some(record) = died {
            pulse.note_record(record);
            pulse.note_panic();
        }
        drop((mark, pulse));
        let read = |pulse| ReplayMark::new(Arc::new(RealFs), &folder, pulse).read().unwrap().at;
        for _ in 0..2 {
            let found = Some(found.clone());
            assert_eq!(read(Some(Pulse::new(folder.pulse()))), found, "{at:?} {died:?}");
        }
        let other = ReplayMark::new(Arc::new(RealFs), &folder, None);
        other.take_on(at.clone()).unwrap();
        other.take_on(At::Segments { through: 9 }).unwrap();
        let unexplained = read(Some(Pulse::new(folder.pulse())));
        assert_eq!(unexplained, Some(At::Segments { through: 9 }), "the pulse of another mark");
    }
    let [one, two, eight] = [deaths(7, 1), deaths(0, 2), deaths(8, 0)].map(Deaths::are_its_own);
    assert_eq!((one, two, eight), (false, true, true));
    let care = |at| Care::after(Some(at), None).unwrap();
    assert_eq!(care(many(1)).deaths_at(segment, 90), deaths(0, 1));
    assert_eq!(care(many(0)).deaths_at(segment, 90), none);
    assert_eq!(care(many(1)).deaths_at(segment, 180), none);
}

/// Scenario: the carry of the last epoch is gone.
/// Guarantees: the service does not start and says which file and what to do; with the flag for just
/// that epoch it does.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_carry_stops_the_start() {
    let held = tempfile::tempdir().unwrap();
    let folder = DataFolder::new(held.path()).unwrap();
    let slow = settings(false);
    let table = slow.default_table.clone();
    leave(&folder, &[&[record(&table, 1, "x")]]).await;
    let (service, _) = start_until_it_lives(held.path(), &slow).await;
    service.stop().await.unwrap();
    let epoch = read_epoch(&RealFs, &folder).unwrap().unwrap().epoch.get();
    let carry = folder.journal().join(format!("carry-{epoch:020}.journal"));
    let whole = std::fs::read(&carry).unwrap();
    for damaged in [None, Some(&whole[..whole.len() - 1])] {
        match damaged {
            None => std::fs::remove_file(&carry).unwrap(),
            Some(part) => std::fs::write(&carry, part).unwrap(),
        }
        for accepted in [None, Some(epoch + 1)] {
            let settings = Settings { accept_lost_carry: accepted, ..slow.clone() };
            let refused = Service::start(held.path(), &settings).await.unwrap_err();
            let refused = format!("{refused:#}");
            let flag = format!("--accept-lost-carry {epoch}");
            assert!(refused.contains("carry-") && refused.contains(&flag), "{refused}");
        }
        let settings = Settings { accept_lost_carry: Some(epoch), ..slow.clone() };
        let refused_no_more = Service::start(held.path(), &settings).await;
        refused_no_more.unwrap().stop().await.unwrap();
        // The stop noted an epoch with a carry of its own.
        let (service, deaths) = start_until_it_lives(held.path(), &slow).await;
        assert_eq!(deaths, 0);
        service.stop().await.unwrap();
        std::fs::write(folder.epoch_file(), format!("{epoch}\n")).unwrap();
    }
}

/// Scenario: marks are written and read; a byte of the file is altered; one of a later version.
/// Guarantees: what was noted is read back; a damaged one says that nothing is known; a later one is
/// refused and left as it is.
#[test]
fn a_mark_is_read_back_or_known_to_be_damaged() {
    let held = tempfile::tempdir().unwrap();
    let folder = DataFolder::new(held.path()).unwrap();
    std::fs::create_dir(folder.journal()).unwrap();
    let mark = || ReplayMark::new(Arc::new(RealFs), &folder, None);
    let nothing = LastWords { at: None, done: Some(Vec::new()) };
    assert_eq!(mark().read().unwrap(), nothing);
    let part = |epoch| PartDone {
        epoch,
        position: Position { segment: 3, after: 77 },
        carry_through: None,
    };
    let first = mark();
    first.take_on_part(At::Segments { through: 3 }, part(9)).unwrap();
    first.take_on_part(At::Settling, part(10)).unwrap();
    let words = mark().read().unwrap();
    assert_eq!(words.done, Some(vec![part(9), part(10)]));
    assert_eq!(words.at, Some(At::Settling));
    first.noted(SegmentNumber::new(10)).unwrap();
    first.take_on(At::Settling).unwrap();
    assert_eq!(mark().read().unwrap().done, Some(vec![part(10)]));

    let path = folder.replay_mark();
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() - 1 {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let words = mark().read().unwrap();
        assert_eq!((words.done, words.at), (None, None), "byte {at}");
    }
    let later = r#"{"version":4,"other":true}"#;
    let later = format!("{:08x} {later}\n", crc32c::crc32c(later.as_bytes()));
    std::fs::write(&path, &later).unwrap();
    let refused = mark().read().unwrap_err().to_string();
    assert!(refused.contains("version 4"), "{refused}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), later);

    std::fs::write(&path, &whole).unwrap();
    let last = mark();
    last.read().unwrap();
    last.noted(SegmentNumber::new(11)).unwrap();
    last.lay_down().unwrap();
    assert!(!path.try_exists().unwrap(), "a mark that says nothing is no file");
}

/// Scenario: bytes of a segment were altered that another segment follows; the service starts.
/// Guarantees: the records around them get into the table, and the bytes are set aside with the reason.
#[tokio::test(flavor = "multi_thread")]
async fn damaged_bytes_of_the_journal_are_set_aside() {
    let held = tempfile::tempdir().unwrap();
    let folder = DataFolder::new(held.path()).unwrap();
    let settings = settings(true);
    let table = settings.default_table.clone();
    let records: Vec<RecordBytes> = (1..=3).map(|trace| record(&table, trace, "x")).collect();
    leave(&folder, &[&records]).await;
    let path = folder.journal().join(format!("segment-{:020}.journal", 1));
    let mut bytes = std::fs::read(&path).unwrap();
    let end = bytes.len() - 5;
    bytes[end] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let (service, deaths) = start_until_it_lives(held.path(), &settings).await;
    assert_eq!(deaths, 0);
    service.pipeline.flush().await.unwrap();
    assert_eq!(rows(&folder, &table), 2);
    let parked = parked::list(&folder.parked()).unwrap();
    assert_eq!(parked.len(), 1);
    assert!(!parked[0].is_record && parked[0].bytes == 32 + records[2].body_len());
    service.stop().await.unwrap();
    let payload = std::fs::read(folder.parked().join(format!("{}.payload", parked[0].name)));
    assert_eq!(
        Bytes::from(payload.unwrap()),
        bytes[bytes.len() - 32 - records[2].body_len() as usize..]
    );
}

/// Scenario: the file that names the last epoch is gone: with the carry of that epoch there, and with
/// segments that came after it.
/// Guarantees: all that was acknowledged gets into the table, once.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_epoch_file_is_found_again_from_the_carry() {
    let held = tempfile::tempdir().unwrap();
    let folder = DataFolder::new(held.path()).unwrap();
    let slow = settings(false);
    let table = slow.default_table.clone();
    leave(&folder, &[&[record(&table, 1, "open"), record(&table, 2, "open")]]).await;
    for more in [None, Some(3)] {
        let (service, _) = start_until_it_lives(held.path(), &slow).await;
        service.stop().await.unwrap();
        if let Some(trace) = more {
            leave(&folder, &[&[record(&table, trace, "behind the carry")]]).await;
        }
        std::fs::remove_file(folder.epoch_file()).unwrap();
    }
    let (service, deaths) = start_until_it_lives(held.path(), &slow).await;
    assert_eq!(deaths, 0);
    service.pipeline.flush().await.unwrap();
    assert_eq!(rows(&folder, &table), 3);
    assert!(folder.epoch_file().exists());
    service.stop().await.unwrap();
}

/// Scenario: of three segments that are not done the first or the second is gone; another folder has one gone
/// that was empty.
/// Guarantees: the others get into the table; the one that is gone is named among what is set aside, under
/// one name however often it is found; an empty one is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_is_gone_is_named() {
    for (gone, named) in [(1, true), (2, true), (3, false)] {
        let held = tempfile::tempdir().unwrap();
        let folder = DataFolder::new(held.path()).unwrap();
        let slow = settings(false);
        let table = slow.default_table.clone();
        let one = |trace| record(&table, trace, "one");
        leave(&folder, &[&[one(1)], &[one(2)], &[], &[one(4)]]).await;
        let file = format!("segment-{gone:020}.journal");
        std::fs::remove_file(folder.journal().join(&file)).unwrap();
        for _ in 0..2 {
            let (service, deaths) = start_until_it_lives(held.path(), &slow).await;
            assert_eq!(deaths, 0);
            let parked = names_of_parked(&folder);
            assert_eq!(parked.len(), usize::from(named), "segment {gone}: {parked:?}");
            service.stop().await.unwrap();
        }
        let (service, _) = start_until_it_lives(held.path(), &slow).await;
        service.pipeline.flush().await.unwrap();
        assert_eq!(rows(&folder, &table), if named { 2 } else { 3 }, "segment {gone}");
        service.stop().await.unwrap();
    }
}

/// Scenario: the segment that took requests when the process died is gone, or empty; in another folder it is as
/// it was.
/// Guarantees: one that an epoch proves to have been there is named; what is in order is not.
#[tokio::test(flavor = "multi_thread")]
async fn the_newest_segment_is_missed_too() {
    for damage in [None, Some("gone"), Some("empty")] {
        let held = tempfile::tempdir().unwrap();
        let folder = DataFolder::new(held.path()).unwrap();
        let slow = settings(false);
        let table = slow.default_table.clone();
        leave(&folder, &[&[record(&table, 1, "one")]]).await;
        let (service, _) = start_until_it_lives(held.path(), &slow).await;
        service.stop().await.unwrap();
        leave(&folder, &[]).await;
        let epoch = read_epoch(&RealFs, &folder).unwrap().unwrap().epoch;
        for file in std::fs::read_dir(folder.journal()).unwrap().map(Result::unwrap) {
            let name = file.file_name().to_string_lossy().into_owned();
            let number = name.strip_prefix("segment-").and_then(|rest| rest.get(..20));
            if number.is_none_or(|number| number.parse::<u64>().unwrap() <= epoch.get()) {
                continue;
            }
            match damage {
                Some("gone") => std::fs::remove_file(file.path()).unwrap(),
                Some(_) => std::fs::write(file.path(), "").unwrap(),
                None => {}
            }
        }
        let (service, _) = start_until_it_lives(held.path(), &slow).await;
        let parked = names_of_parked(&folder);
        assert_eq!(parked.len(), usize::from(damage.is_some()), "{damage:?}: {parked:?}");
        service.stop().await.unwrap();
    }
}
