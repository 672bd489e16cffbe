//! Full devices, failing syncs, limits, owners.

use super::*;
use crate::segment::FILE_HEADER_LEN;

/// Bytes of a segment without records.
fn header_len() -> u64 {
    u64::try_from(FILE_HEADER_LEN).unwrap()
}

/// What the simulated device says of a call that it fails.
const OS_REASON: &str = "simulated input/output error";

/// What an error says, and each of its sources.
fn sentences(error: &JournalError) -> Vec<String> {
    let sources = std::iter::successors(std::error::Error::source(error), |error| error.source());
    std::iter::once(error.to_string()).chain(sources.map(ToString::to_string)).collect()
}

/// Scenario: the device fills up within a group, and has room again later.
/// Guarantees: the group is refused as a whole and leaves nothing, later ones are kept.
#[test]
fn full_device_refuses_and_goes_on() {
    let fs = SimulatedFs::new(7);
    let (journal, mut receiver, _) = open(&fs);
    append_ok(&journal, &[1, 2]);
    let before = fs.used_bytes();
    for room in [0, 1, 40, 100] {
        fs.set_room(Some(before + room));
        for result in append_group(&journal, &[3, 4, 5]) {
            let error = result.unwrap_err();
            assert!(matches!(error, JournalError::DiskFull { .. }), "{error}");
            assert!(error.is_at_capacity());
        }
        assert_eq!(fs.used_bytes(), before);
    }
    fs.set_room(Some(before));
    assert!(matches!(rotate(&journal), Err(JournalError::DiskFull { .. })));
    assert_eq!(journal.active_segment(), SegmentNumber::new(1));
    fs.set_room(None);
    append_ok(&journal, &[6]);
    assert_eq!(journal.usage_bytes(), u64::try_from(fs.used_bytes()).unwrap());
    let sealed = rotate(&journal).unwrap();
    assert_eq!(ids_in_segment(&journal, sealed), [1, 2, 6]);
    assert_eq!(events(&mut receiver), [Ok(1), Ok(2), Ok(6), Err(sealed)]);
    assert_eq!(journal.usage_bytes(), u64::try_from(fs.used_bytes()).unwrap());
}

/// Scenario: one sync fails.
/// Guarantees: nobody in that group is acknowledged, its segment takes nothing more, and what
/// was acknowledged before and after is there after a crash. The error tells the reason of the device once.
#[test]
fn failed_sync_is_never_acknowledged() {
    let fs = SimulatedFs::new(7);
    let (journal, mut receiver, _) = open(&fs);
    append_ok(&journal, &[1]);
    fs.fail_syncs(1);
    for result in append_group(&journal, &[2, 3]) {
        let error = result.unwrap_err();
        assert!(matches!(error, JournalError::SyncFailed { segment, .. } if segment.get() == 1));
        assert!(!error.is_at_capacity());
        assert_eq!(sentences(&error), ["sync of segment 1 failed", OS_REASON]);
    }
    assert!(journal.failure().is_none());
    assert_eq!(journal.active_segment(), SegmentNumber::new(2));
    append_ok(&journal, &[4]);
    let sealed = rotate(&journal).unwrap();
    let poisoned = SegmentNumber::new(1);
    assert_eq!(events(&mut receiver), [Ok(1), Err(poisoned), Ok(4), Err(sealed)]);
    assert_eq!(journal.usage_bytes(), u64::try_from(fs.used_bytes()).unwrap());
    drop(journal);
    fs.restart();
    let (journal, _receiver, recovered) = open(&fs);
    let found: Vec<u64> =
        recovered.segments.iter().flat_map(|number| ids_in_segment(&journal, *number)).collect();
    let acknowledged: Vec<u64> = found.iter().copied().filter(|id| ![2, 3].contains(id)).collect();
    assert_eq!(acknowledged, [1, 4]);
}

/// Scenario: a sync fails, and so does making another segment, twice; then the device answers.
/// Guarantees: until then the journal says that it takes nothing and acknowledges nothing; then it goes
/// on in another segment, and all that was acknowledged is there after a restart. The error tells what was
/// tried, and the reason of the device once.
#[test]
fn a_journal_without_a_segment_heals_when_the_device_answers() {
    let fs = SimulatedFs::new(7);
    let (journal, mut receiver, _) = open(&fs);
    append_ok(&journal, &[1]);
    fs.fail_syncs(1);
    fs.fail_creates(2);
    let reasons = [
        "journal takes no records: no segment to follow 1, which was given up",
        "create segment `/journal/segment-00000000000000000002.journal`",
        OS_REASON,
    ];
    for result in append_group(&journal, &[2, 3]) {
        let error = result.unwrap_err();
        assert_eq!(sentences(&error), reasons);
    }
    assert_eq!(sentences(&journal.failure().unwrap()), reasons);
    assert!(matches!(append_group(&journal, &[4])[0], Err(JournalError::Failed { .. })));
    assert!(matches!(rotate(&journal), Err(JournalError::Failed { .. })));
    assert_eq!(events(&mut receiver), [Ok(1)]);
    let heal = || runtime().block_on(journal.heal());
    assert!(matches!(heal(), Err(JournalError::Failed { .. })));
    assert!(journal.failure().is_some());
    heal().unwrap();
    assert!(journal.failure().is_none());
    heal().unwrap();
    append_ok(&journal, &[5]);
    let sealed = rotate(&journal).unwrap();
    let given_up = SegmentNumber::new(1);
    assert_eq!(events(&mut receiver), [Err(given_up), Ok(5), Err(sealed)]);
    assert_eq!(journal.usage_bytes(), u64::try_from(fs.used_bytes()).unwrap());
    drop(journal);
    fs.restart();
    let (journal, _receiver, recovered) = open(&fs);
    let found: Vec<u64> =
        recovered.segments.iter().flat_map(|number| ids_in_segment(&journal, *number)).collect();
    let acknowledged: Vec<u64> = found.iter().copied().filter(|id| ![2, 3].contains(id)).collect();
    assert_eq!(acknowledged, [1, 5]);
    journal.close().unwrap();
    assert!(matches!(runtime().block_on(journal.heal()), Err(JournalError::Closed)));
}

/// Scenario: a journal that takes nothing is closed, and opened again.
/// Guarantees: closing says so; what was acknowledged is there.
#[test]
fn a_journal_that_failed_may_be_closed_and_opened() {
    let fs = SimulatedFs::new(7);
    let (journal, _receiver, _) = open(&fs);
    append_ok(&journal, &[1]);
    fs.fail_syncs(1);
    fs.fail_creates(1);
    assert!(append_group(&journal, &[2])[0].is_err());
    assert!(matches!(journal.close(), Err(JournalError::Failed { .. })));
    drop(journal);
    let (journal, _receiver, recovered) = open(&fs);
    assert_eq!(recovered.segments, [SegmentNumber::new(1)]);
    assert_eq!(ids_in_segment(&journal, SegmentNumber::new(1)), [1]);
}

/// Notes what becomes of folders on the operating system's files.
#[derive(Debug, Default)]
struct Watched {
    made: std::sync::Mutex<Vec<std::path::PathBuf>>,
    synced: std::sync::Mutex<Vec<std::path::PathBuf>>,
    refused: Option<std::path::PathBuf>,
}

impl crate::JournalFs for Watched {
    fn create_dir(&self, dir: &Path) -> std::io::Result<bool> {
        let made = crate::RealFs.create_dir(dir)?;
        if made {
            self.made.lock().unwrap().push(dir.to_path_buf());
        }
        Ok(made)
    }

    fn sync_dir(&self, dir: &Path) -> std::io::Result<()> {
        if self.refused.as_deref() == Some(dir) {
            return Err(std::io::ErrorKind::PermissionDenied.into());
        }
        self.synced.lock().unwrap().push(dir.to_path_buf());
        Ok(())
    }

    fn lock(&self, path: &Path) -> std::io::Result<crate::LockOutcome> {
        crate::RealFs.lock(path)
    }

    fn create(&self, path: &Path) -> std::io::Result<Box<dyn crate::JournalFile>> {
        crate::RealFs.create(path)
    }

    fn reuse(&self, path: &Path) -> std::io::Result<Box<dyn crate::JournalFile>> {
        crate::RealFs.reuse(path)
    }

    fn open_read(&self, path: &Path) -> std::io::Result<Box<dyn crate::JournalRead>> {
        crate::RealFs.open_read(path)
    }

    fn len(&self, path: &Path) -> std::io::Result<u64> {
        crate::RealFs.len(path)
    }

    fn truncate(&self, path: &Path, len: u64) -> std::io::Result<()> {
        crate::RealFs.truncate(path, len)
    }

    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        crate::RealFs.rename(from, to)
    }

    fn remove(&self, path: &Path) -> std::io::Result<()> {
        crate::RealFs.remove(path)
    }

    fn list(&self, dir: &Path) -> std::io::Result<Vec<crate::ListedFile>> {
        crate::RealFs.list(dir)
    }
}

/// Scenario: three folders of which none is there, then all of them, then all with one above that may
/// not be opened; a folder that was made below one that may not be opened.
/// Guarantees: each that is made or there is synced into the one above it, top to bottom of the path;
/// what belongs to others is passed over, but not where a folder was made.
#[test]
fn folders_are_durable_in_the_ones_above() {
    let held = tempfile::tempdir().unwrap();
    let top = held.path().to_path_buf();
    let [one, two, three] = ["one", "one/two", "one/two/three"].map(|part| top.join(part));
    let above: Vec<_> = three.ancestors().skip(1).map(Path::to_path_buf).collect();
    let fs = Watched::default();
    crate::create_folders(&fs, &three).unwrap();
    assert_eq!(*fs.made.lock().unwrap(), [one, two.clone(), three.clone()]);
    assert_eq!(*fs.synced.lock().unwrap(), above);

    let fs = Watched { refused: top.parent().map(Path::to_path_buf), ..Watched::default() };
    crate::create_folders(&fs, &three).unwrap();
    assert_eq!(*fs.made.lock().unwrap(), Vec::<std::path::PathBuf>::new());
    let others: Vec<_> = above.into_iter().filter(|dir| Some(dir) != fs.refused.as_ref()).collect();
    assert_eq!(*fs.synced.lock().unwrap(), others);

    let fs = Watched { refused: Some(three.clone()), ..Watched::default() };
    let refused = crate::create_folders(&fs, &three.join("four")).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
    assert!(crate::create_folder(&fs, &three.join("four")).is_err());
    crate::create_folder(&fs, &two.join("five")).unwrap();

    std::fs::write(top.join("file"), "").unwrap();
    let refused = crate::create_folders(&Watched::default(), &top.join("file")).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::NotADirectory);
}

/// Scenario: a second journal on the same real folder, while the first lives and after.
/// Guarantees: it is refused with the process that has it, then let in.
#[test]
fn second_owner_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let options = JournalOptions::new(dir.path().join("journal"));
    let (first, _receiver, _) = Journal::<u64>::open(options.clone()).unwrap();
    let refused = Journal::<u64>::open(options.clone()).unwrap_err();
    let JournalError::InUse { pid, .. } = &refused else { panic!("{refused}") };
    assert_eq!(*pid, Some(std::process::id()));
    first.close().unwrap();
    let closed = runtime().block_on(first.append(record(1), 1));
    assert!(matches!(closed, Err(JournalError::Closed)));
    let (_second, _receiver, recovered) = Journal::<u64>::open(options).unwrap();
    assert_eq!(recovered.segments, [SegmentNumber::new(1)]);
}

/// Scenario: a real folder, many appenders at once, an epoch, a restart.
/// Guarantees: all is read back in order, deletion frees the space, numbers go on.
#[test]
fn real_folder_keeps_everything_across_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let options = JournalOptions::new(dir.path());
    let (journal, mut receiver, _) = Journal::open(options.clone()).unwrap();
    let ids: Vec<u64> = (0..500).collect();
    append_ok(&journal, &ids);
    let first = rotate(&journal).unwrap();
    assert_eq!(crate::read_segment(dir.path(), first).unwrap().count(), 500);
    journal.write_carry(first, &mut [7, 8].map(record).into_iter()).unwrap();
    journal.delete_through(first).unwrap();
    append_ok(&journal, &[500]);
    journal.close().unwrap();
    // Without the file that waited to be written over.
    let used = journal.usage_bytes();
    assert_eq!(events(&mut receiver).len(), 502);

    let (journal, _receiver, recovered) = Journal::<u64>::open(options).unwrap();
    assert_eq!(recovered.segments, [first.next()]);
    assert_eq!(recovered.damage, []);
    assert_eq!(recovered.base_carry(first.next()), Some(first));
    let carried = crate::read_carry(dir.path(), first).unwrap();
    assert_eq!(carried.map(|record| id_of(&record.unwrap())).collect::<Vec<_>>(), [7, 8]);
    assert_eq!(ids_in_segment(&journal, first.next()), [500]);
    assert_eq!(journal.usage_bytes(), used + header_len());
}

/// Scenario: appends until the budget is used up; then an epoch frees it.
/// Guarantees: the files never exceed the budget; there is room again after the deletion.
#[test]
fn budget_refuses_until_segments_are_deleted() {
    let fs = SimulatedFs::new(7);
    let options = JournalOptions { budget_bytes: 1000, ..JournalOptions::new(DIR) };
    let (journal, _receiver, _) = Journal::open_on(Arc::new(fs.clone()), options).unwrap();
    let refused = append_group(&journal, &[1; 30]).into_iter().filter_map(Result::err).last();
    let error = refused.unwrap();
    assert!(matches!(error, JournalError::OverBudget { budget: 1000, .. }), "{error}");
    assert!(error.is_at_capacity());
    assert!(fs.used_bytes() <= 1000 && !journal.has_capacity(100));
    let sealed = rotate(&journal).unwrap();
    journal.delete_through(sealed).unwrap();
    assert_eq!(journal.usage_bytes(), header_len());
    append_ok(&journal, &[2]);
}

/// Scenario: a consumer that takes nothing, a full queue, a record over the limit.
/// Guarantees: `Busy` before memory grows; a `rotate` still goes through; taking events frees.
#[test]
fn limits_refuse_and_the_consumer_can_still_rotate() {
    let fs = SimulatedFs::new(7);
    let options = JournalOptions {
        undelivered_bytes: 600,
        queue_requests: 8,
        max_record_bytes: 100,
        ..JournalOptions::new(DIR)
    };
    let (journal, mut receiver, _) = Journal::open_on(Arc::new(fs), options).unwrap();
    let busy = append_group(&journal, &[1; 30]).into_iter().filter(Result::is_err).count();
    assert!(22 <= busy);
    while append_group(&journal, &[1])[0].is_ok() {}
    assert!(matches!(append_group(&journal, &[1])[0], Err(JournalError::Busy { .. })));
    rotate(&journal).unwrap();
    assert!(!events(&mut receiver).is_empty());
    append_ok(&journal, &[1]);
    let long = runtime().block_on(journal.append(record(5 + 35 + 2), 0));
    assert!(long.is_ok());
    let long = runtime().block_on(journal.append(record(10), 0));
    assert!(matches!(long, Err(JournalError::RecordTooLarge { limit: 100, .. })));
}

/// Scenario: segments limited to a few records.
/// Guarantees: they are sealed by themselves, in order with their records.
#[test]
fn full_segment_is_sealed_by_itself() {
    let fs = SimulatedFs::new(7);
    let options = JournalOptions { segment_bytes: 170, ..JournalOptions::new(DIR) };
    let (journal, mut receiver, _) = Journal::open_on(Arc::new(fs), options).unwrap();
    append_ok(&journal, &[1]);
    append_ok(&journal, &[2]);
    append_ok(&journal, &[3]);
    let second = rotate(&journal).unwrap();
    let first = SegmentNumber::new(1);
    assert_eq!(events(&mut receiver), [Ok(1), Ok(2), Err(first), Ok(3), Err(second)]);
    let early = journal.delete_through(second.next());
    assert!(matches!(early, Err(JournalError::NotSealed { .. })));
    assert!(matches!(journal.read_segment(second.next()), Err(JournalError::NotSealed { .. })));
}
