//! Files of deleted segments that become segments again.

use super::*;
use crate::segment::{FILE_HEADER_LEN, FRAME_LEN, Frame, FrameKind};
use crate::{DamageKind, JournalFs};

/// Names in the folder that begin with `segment-`, in order.
fn segment_files(fs: &SimulatedFs) -> Vec<String> {
    let mut names: Vec<String> = fs
        .list(Path::new(DIR))
        .unwrap()
        .into_iter()
        .filter_map(|file| file.name.into_string().ok())
        .filter(|name| name.starts_with("segment-"))
        .collect();
    names.sort();
    names
}

/// A journal whose active segment, number 3, is written over the file of segment 1.
fn reused(fs: &SimulatedFs) -> (Journal<u64>, Receiver<u64>) {
    let (journal, receiver, _) = open(fs);
    append_ok(&journal, &[11, 12, 13, 14, 15, 16]);
    let first = rotate(&journal).unwrap();
    journal.delete_through(first).unwrap();
    rotate(&journal).unwrap();
    (journal, receiver)
}

/// Scenario: an epoch deletes a segment, and another one is begun.
/// Guarantees: it takes the file, whose bytes count once; what is appended is read back alone.
#[test]
fn a_deleted_segment_becomes_the_next_one() {
    let fs = SimulatedFs::new(7);
    let (journal, _receiver) = reused(&fs);
    let names: Vec<_> = (2..=3).map(|number| format!("segment-{number:020}.journal")).collect();
    assert_eq!(segment_files(&fs), names);
    let before = fs.used_bytes();
    append_ok(&journal, &[21]);
    assert_eq!(fs.used_bytes(), before, "written over");
    assert_eq!(journal.usage_bytes(), u64::try_from(before).unwrap());
    append_ok(&journal, &[20]);
    assert!(before < fs.used_bytes(), "beyond the old end");
    assert_eq!(journal.usage_bytes(), u64::try_from(fs.used_bytes()).unwrap());
    let sealed = rotate(&journal).unwrap();
    assert_eq!(ids_in_segment(&journal, sealed), [21, 20]);
}

/// Scenario: a sealed segment and the newest one both end in what their files held before; restart.
/// Guarantees: no record of then, and no damage; the newest is cut where its records end.
#[test]
fn what_a_file_held_before_is_neither_record_nor_damage() {
    let fs = SimulatedFs::new(7);
    let (journal, _receiver) = reused(&fs);
    append_ok(&journal, &[21]);
    let sealed = rotate(&journal).unwrap();
    journal.close().unwrap();
    fs.restart();
    let (journal, _receiver, recovered) = open(&fs);
    assert_eq!(recovered.damage, []);
    let mut reader = journal.read_segment(sealed).unwrap();
    let ids: Vec<u64> = reader.by_ref().map(|record| id_of(&record.unwrap())).collect();
    assert_eq!((ids, reader.damage()), (vec![21], &[][..]));
    drop(journal);

    let fs = SimulatedFs::new(8);
    let (journal, _receiver) = reused(&fs);
    append_ok(&journal, &[21]);
    fs.crash();
    drop(journal);
    fs.restart();
    let (journal, _receiver, recovered) = open(&fs);
    assert_eq!(recovered.damage, []);
    let cut = FILE_HEADER_LEN + usize::try_from(record(21).stored_len()).unwrap();
    assert_eq!(fs.contents(&segment_path(3)).unwrap().len(), cut);
    assert_eq!(ids_in_segment(&journal, SegmentNumber::new(3)), [21]);
    assert_eq!(journal.usage_bytes(), u64::try_from(fs.used_bytes()).unwrap());
}

/// Scenario: the last record of a file that was written over is altered in its body.
/// Guarantees: that is reported, as in any other file.
#[test]
fn an_altered_record_before_old_bytes_is_reported() {
    let fs = SimulatedFs::new(7);
    let (journal, _receiver) = reused(&fs);
    append_ok(&journal, &[21, 22]);
    fs.crash();
    drop(journal);
    fs.restart();
    let path = segment_path(3);
    let mut bytes = fs.contents(&path).unwrap();
    let second = FILE_HEADER_LEN + usize::try_from(record(21).stored_len()).unwrap();
    bytes[second + FRAME_LEN] ^= 1;
    fs.set_contents(&path, &bytes);
    let (journal, _receiver, recovered) = open(&fs);
    let kinds: Vec<_> = recovered.damage.iter().map(|damage| damage.kind).collect();
    assert_eq!(kinds, [DamageKind::TornTail]);
    assert_eq!(ids_in_segment(&journal, SegmentNumber::new(3)), [21]);
}

/// Scenario: a client knows all that it was told (its sequence numbers) and hides in a payload the frame
/// that would be right if the next segment of that file went on counting where the last one ended.
/// Guarantees: it does not, so the frame is no record.
#[test]
fn a_frame_that_was_hidden_for_later_is_no_record() {
    let fs = SimulatedFs::new(7);
    let (journal, _receiver, _) = open(&fs);
    // Two segments: the second begins where the first ends.
    append_ok(&journal, &[11]);
    let header = u64::try_from(FILE_HEADER_LEN).unwrap();
    let hidden = |base: u64| {
        let at = header + u64::try_from(FRAME_LEN).unwrap();
        let frame = Frame {
            kind: FrameKind::Record,
            header_bytes: 0,
            payload_bytes: 0,
            sequence: base + at,
            body_crc: 0,
        };
        RecordBytes { payload: frame.encode().to_vec().into(), ..RecordBytes::default() }
    };
    rotate(&journal).unwrap();
    let base = runtime().block_on(journal.append(record(0), 0)).unwrap().get() - header;
    let own = header + record(0).stored_len() + hidden(0).stored_len();
    let next = rotate(&journal).unwrap();
    let third = base + header + record(0).stored_len();
    runtime().block_on(journal.append(hidden(third + own), 0)).unwrap();
    let sealed = rotate(&journal).unwrap();
    assert!(next < sealed);
    journal.delete_through(sealed).unwrap();
    rotate(&journal).unwrap();
    let active = rotate(&journal).unwrap();
    let mut reader = journal.read_segment(active).unwrap();
    assert_eq!(reader.by_ref().count(), 0);
    let bytes = fs.contents(&segment_path(active.get())).unwrap();
    assert_eq!(bytes.get(32), Some(&1), "a file that held another segment");
}

/// Scenario: several segments are deleted at once, later fewer; a small budget; a failed sync; a close.
/// Guarantees: no more files wait than are worth it, and none in the end.
#[test]
fn files_wait_only_as_long_as_they_are_of_use() {
    let waiting =
        |fs: &SimulatedFs| segment_files(fs).iter().filter(|name| name.ends_with(".tmp")).count();
    let fs = SimulatedFs::new(7);
    let (journal, _receiver, _) = open(&fs);
    let mut last = None;
    for id in 0..7 {
        append_ok(&journal, &[id]);
        last = Some(rotate(&journal).unwrap());
    }
    journal.delete_through(last.unwrap()).unwrap();
    assert_eq!(waiting(&fs), 4, "of seven");
    let one = rotate(&journal).unwrap();
    journal.delete_through(one).unwrap();
    assert_eq!(waiting(&fs), 1, "as many as the last epoch had");
    fs.fail_syncs(1);
    assert!(append_group(&journal, &[8])[0].is_err());
    assert_eq!(waiting(&fs), 0, "a device that failed is not trusted to write over");
    let given_up = rotate(&journal).unwrap();
    journal.delete_through(given_up).unwrap();
    assert_eq!(waiting(&fs), 0);
    journal.close().unwrap();

    let fs = SimulatedFs::new(7);
    let options = JournalOptions { budget_bytes: 1000, ..JournalOptions::new(DIR) };
    let (journal, _receiver, _) = Journal::open_on(Arc::new(fs.clone()), options).unwrap();
    append_ok(&journal, &[1]);
    let sealed = rotate(&journal).unwrap();
    journal.delete_through(sealed).unwrap();
    assert_eq!(waiting(&fs), 0, "beyond a sixteenth of the budget");

    let fs = SimulatedFs::new(7);
    let (journal, _receiver, _) = open(&fs);
    let sealed = rotate(&journal).unwrap();
    journal.delete_through(sealed).unwrap();
    assert_eq!(waiting(&fs), 1);
    journal.close().unwrap();
    assert_eq!(waiting(&fs), 0, "closed");
}
