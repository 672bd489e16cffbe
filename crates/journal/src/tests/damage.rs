//! What recovery makes of files that a crash or the device has damaged.

use std::path::Path;

use super::*;
use crate::fs::JournalFs as _;
use crate::segment::{COMMON_HEADER_LEN, FILE_HEADER_LEN};
use crate::{Damage, DamageKind};

/// A journal that was stopped with records 1, 2, 3 in segment 1.
fn three_records() -> (SimulatedFs, Vec<u8>) {
    let fs = SimulatedFs::new(1);
    let (journal, _receiver, _) = open(&fs);
    append_ok(&journal, &[1, 2, 3]);
    journal.close().unwrap();
    let bytes = fs.contents(&segment_path(1)).unwrap();
    (fs, bytes)
}

/// Reopens with `bytes` as segment 1; what is left in it, and what was said about it.
fn reopen(fs: &SimulatedFs, bytes: &[u8]) -> (Vec<u64>, Vec<Damage>, usize) {
    fs.set_contents(&segment_path(1), bytes);
    let (journal, _receiver, recovered) = open(fs);
    assert_eq!(recovered.segments, [SegmentNumber::new(1)]);
    let ids = ids_in_segment(&journal, SegmentNumber::new(1));
    (ids, recovered.damage, fs.contents(&segment_path(1)).unwrap().len())
}

fn damage(offset: usize, bytes: usize, kind: DamageKind) -> Vec<Damage> {
    let path = segment_path(1);
    let (offset, bytes) = (u64::try_from(offset).unwrap(), u64::try_from(bytes).unwrap());
    vec![Damage { path, offset, bytes, kind }]
}

/// Where records 1, 2, 3 and the end of the file are.
fn offsets() -> [usize; 4] {
    let mut at = [FILE_HEADER_LEN; 4];
    for id in 1..4 {
        let len = usize::try_from(record(u64::try_from(id).unwrap()).stored_len()).unwrap();
        at[id] = at[id - 1] + len;
    }
    at
}

/// Scenario: the file ends at every possible byte.
/// Guarantees: the whole records are there, the rest is cut and reported.
#[test]
fn torn_tail_is_cut_at_every_length() {
    let (_, whole) = three_records();
    assert_eq!(whole.len(), offsets()[3]);
    for len in 0..=whole.len() {
        let (fs, _) = three_records();
        let (ids, found, left) = reopen(&fs, &whole[..len]);
        let count = offsets().iter().skip(1).filter(|end| **end <= len).count();
        assert_eq!(ids, [1, 2, 3][..count], "length {len}");
        let kept = if len < FILE_HEADER_LEN { 0 } else { offsets()[count] };
        assert_eq!(left, kept, "length {len}");
        if kept == len {
            assert_eq!(found, [], "length {len}");
        } else {
            assert_eq!(found, damage(kept, len - kept, DamageKind::TornTail), "length {len}");
        }
    }
}

/// Scenario: the file ends in zeros, from within a record or behind the last.
/// Guarantees: the zeros are cut, and called zeros only if nothing else is there.
#[test]
fn zero_tail_is_cut() {
    let (fs, mut bytes) = three_records();
    let end = bytes.len();
    bytes.resize(end + 9000, 0);
    assert_eq!(reopen(&fs, &bytes), (vec![1, 2, 3], damage(end, 9000, DamageKind::ZeroTail), end));

    let (fs, mut bytes) = three_records();
    let third = offsets()[2];
    bytes[third..].fill(0);
    let found = damage(third, end - third, DamageKind::ZeroTail);
    assert_eq!(reopen(&fs, &bytes), (vec![1, 2], found, third));

    let (fs, mut bytes) = three_records();
    bytes[third + 10..].fill(0);
    let found = damage(third, end - third, DamageKind::TornTail);
    assert_eq!(reopen(&fs, &bytes), (vec![1, 2], found, third));
}

/// Scenario: each byte of the second record is altered in turn.
/// Guarantees: the others are there, the gap is reported exactly, nothing is cut.
#[test]
fn corrupt_middle_is_skipped_and_reported() {
    let (_, whole) = three_records();
    let [_, second, third, end] = offsets();
    for at in second..third {
        let (fs, mut bytes) = three_records();
        bytes[at] ^= 0x40;
        let found = damage(second, third - second, DamageKind::CorruptMiddle);
        assert_eq!(reopen(&fs, &bytes), (vec![1, 3], found, end), "byte {at}");
    }
    assert_eq!(whole.len(), end);
}

/// Scenario: each byte of the file header is altered in turn.
/// Guarantees: all records are there; sequence numbers go on above them.
#[test]
fn damaged_file_header_loses_no_record() {
    for at in 0..FILE_HEADER_LEN {
        let (fs, mut bytes) = three_records();
        bytes[at] ^= 1;
        let found = damage(0, FILE_HEADER_LEN, DamageKind::CorruptMiddle);
        let end = bytes.len();
        assert_eq!(reopen(&fs, &bytes), (vec![1, 2, 3], found, end), "byte {at}");
        let (journal, _receiver, _) = open(&fs);
        let next = append_group(&journal, &[4]).remove(0).unwrap();
        assert!(u64::try_from(end).unwrap() <= next.get(), "byte {at}");
    }
}

/// Scenario: a client's payload is a whole record as the journal would write it; the record
/// that holds it is damaged, or torn.
/// Guarantees: the hidden one is never taken for a record.
#[test]
fn record_hidden_in_a_payload_is_never_found() {
    for torn in [false, true] {
        let (_, source) = three_records();
        let fs = SimulatedFs::new(1);
        let (journal, _receiver, _) = open(&fs);
        let payload = Bytes::from(source[FILE_HEADER_LEN..].to_vec());
        let evil = RecordBytes { header: Bytes::from_static(b"evil"), payload };
        runtime().block_on(journal.append(evil, 0)).unwrap();
        append_ok(&journal, &[9]);
        journal.close().unwrap();
        let mut bytes = fs.contents(&segment_path(1)).unwrap();
        if torn {
            let len = bytes.len();
            bytes.truncate(len - usize::try_from(record(9).stored_len()).unwrap() - 1);
        } else {
            bytes[FILE_HEADER_LEN + 1] ^= 1;
        }
        let (ids, found, _) = reopen(&fs, &bytes);
        assert_eq!(ids, if torn { vec![] } else { vec![9] });
        assert_eq!(found.len(), 1);
    }
}

/// Scenario: a file of a later version, and one under another's name.
/// Guarantees: the journal is not opened, and nothing in it is touched.
#[test]
fn foreign_files_are_refused() {
    let (fs, mut bytes) = three_records();
    bytes[8] = 3;
    let crc = crc32c::crc32c(&bytes[..36]);
    bytes[36..40].copy_from_slice(&crc.to_le_bytes());
    fs.set_contents(&segment_path(1), &bytes);
    let refused = Journal::<u64>::open_on(Arc::new(fs.clone()), JournalOptions::new(DIR));
    assert!(matches!(refused, Err(JournalError::UnsupportedVersion { found: 3, .. })));
    assert_eq!(fs.contents(&segment_path(1)).unwrap(), bytes);

    let (fs, bytes) = three_records();
    fs.set_contents(&segment_path(7), &bytes);
    let refused = Journal::<u64>::open_on(Arc::new(fs.clone()), JournalOptions::new(DIR));
    assert!(matches!(refused, Err(JournalError::Mislabelled { found, .. }) if found.get() == 1));
}

/// The same file as version 1 of the format has it.
fn as_version_1(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes[..COMMON_HEADER_LEN].to_vec();
    out[8] = 1;
    // What was at offset 60 is at offset 40, with the same sequence numbers.
    let moved = u64::try_from(FILE_HEADER_LEN - COMMON_HEADER_LEN).unwrap();
    let base = u64::from_le_bytes(out[24..32].try_into().unwrap()) + moved;
    out[24..32].copy_from_slice(&base.to_le_bytes());
    let crc = crc32c::crc32c(&out[..36]);
    out[36..40].copy_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&bytes[FILE_HEADER_LEN..]);
    out
}

/// Scenario: segments and a carry as version 1 wrote them, the newest segment torn.
/// Guarantees: all is read, the torn end is cut, numbers go on above, an epoch deletes them.
#[test]
fn files_of_version_1_are_read() {
    let fs = SimulatedFs::new(1);
    let (journal, _receiver, _) = open(&fs);
    append_ok(&journal, &[1, 2, 3]);
    let first = rotate(&journal).unwrap();
    journal.write_carry(first, &mut [2, 3].map(record).into_iter()).unwrap();
    journal.delete_through(first).unwrap();
    append_ok(&journal, &[4]);
    let second = rotate(&journal).unwrap();
    let last = append_group(&journal, &[5, 6]).remove(1).unwrap();
    journal.close().unwrap();
    let carry = Path::new(DIR).join(format!("carry-{:020}.journal", 1));
    for path in [&carry, &segment_path(2), &segment_path(3)] {
        let mut bytes = as_version_1(&fs.contents(path).unwrap());
        if *path == segment_path(3) {
            bytes.extend_from_slice(&[7; 9]);
        }
        fs.set_contents(path, &bytes);
    }
    let (journal, _receiver, recovered) = open(&fs);
    assert_eq!(recovered.segments, [second, second.next()]);
    assert_eq!(recovered.base_carry(second), Some(first));
    assert_eq!(recovered.damage, [], "its file held another segment before");
    let carried = journal.read_carry(first).unwrap();
    assert_eq!(carried.map(|record| id_of(&record.unwrap())).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(ids_in_segment(&journal, second), [4]);
    assert_eq!(ids_in_segment(&journal, second.next()), [5, 6]);
    assert!(last < append_group(&journal, &[7]).remove(0).unwrap());
    let sealed = rotate(&journal).unwrap();
    journal.write_carry(sealed, &mut std::iter::empty()).unwrap();
    journal.delete_through(sealed).unwrap();
    assert_eq!(journal.usage_bytes(), u64::try_from(fs.used_bytes()).unwrap());
}

/// A journal with records 1, 2 in segment 1, which the next one follows, and what is on disk of it.
fn sealed_segment(reused: bool) -> (SimulatedFs, Vec<u8>, u64) {
    let fs = SimulatedFs::new(1);
    let (journal, _receiver, _) = open(&fs);
    if reused {
        append_ok(&journal, &[11, 12, 13, 14]);
        let first = rotate(&journal).unwrap();
        journal.delete_through(first).unwrap();
        rotate(&journal).unwrap();
    }
    append_ok(&journal, &[1, 2]);
    let sealed = rotate(&journal).unwrap();
    journal.close().unwrap();
    let bytes = fs.contents(&segment_path(sealed.get())).unwrap();
    (fs, bytes, sealed.get())
}

/// Scenario: a segment that another one followed, also one written over an older file, is altered at
/// each byte of its last record, or cut within it.
/// Guarantees: that is damage of exactly that stretch, since the next segment says where the records
/// end; what lies before is there; what a reused file held before is still neither.
#[test]
fn damage_before_the_stated_end_is_damage() {
    let len_of = |id| usize::try_from(record(id).stored_len()).unwrap();
    let last = FILE_HEADER_LEN + len_of(1);
    let end = last + len_of(2);
    for reused in [false, true] {
        let (_, whole, number) = sealed_segment(reused);
        assert_eq!(whole.len() > end, reused, "a reused file is longer than its records");
        let check = |bytes: &[u8], what: &str| {
            let (fs, ..) = sealed_segment(reused);
            fs.set_contents(&segment_path(number), bytes);
            let (journal, _receiver, _) = open(&fs);
            let mut reader = journal.read_segment(SegmentNumber::new(number)).unwrap();
            let ids: Vec<u64> = reader.by_ref().map(|record| id_of(&record.unwrap())).collect();
            let found: Vec<_> = reader
                .damage()
                .iter()
                .map(|damage| (damage.kind, damage.offset, damage.bytes))
                .collect();
            assert_eq!(ids, [1], "{what}");
            let (from, bytes) = (u64::try_from(last).unwrap(), u64::try_from(end - last).unwrap());
            assert_eq!(found, [(DamageKind::CorruptEnd, from, bytes)], "{what}");
        };
        for at in last..end {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x40;
            check(&bytes, &format!("byte {at}, reused {reused}"));
        }
        for len in last..end {
            check(&whole[..len], &format!("length {len}, reused {reused}"));
        }
    }
}

/// Scenario: a sync fails, so its segment is given up; the last record that was acknowledged in it is
/// altered later.
/// Guarantees: the segment after it says how far it was acknowledged.
#[test]
fn the_end_of_a_segment_that_was_given_up_is_stated() {
    let fs = SimulatedFs::new(3);
    let (journal, _receiver, _) = open(&fs);
    append_ok(&journal, &[1, 2]);
    fs.fail_syncs(1);
    assert!(append_group(&journal, &[3])[0].is_err());
    append_ok(&journal, &[4]);
    journal.close().unwrap();
    let mut bytes = fs.contents(&segment_path(1)).unwrap();
    let last = FILE_HEADER_LEN + usize::try_from(record(1).stored_len()).unwrap();
    bytes[last] ^= 1;
    fs.set_contents(&segment_path(1), &bytes);
    let (journal, _receiver, _) = open(&fs);
    let mut reader = journal.read_segment(SegmentNumber::new(1)).unwrap();
    assert_eq!(reader.by_ref().map(|record| id_of(&record.unwrap())).collect::<Vec<_>>(), [1]);
    let kinds: Vec<_> = reader.damage().iter().map(|damage| damage.kind).collect();
    assert_eq!(kinds, [DamageKind::CorruptEnd]);
    assert_eq!(ids_in_segment(&journal, SegmentNumber::new(2)), [4]);
}

/// Scenario: a process dies, which leaves a segment without a successor; the next start takes its
/// records in; then the power goes.
/// Guarantees: what was read at that start is there at the one after it.
#[test]
fn what_opening_found_is_durable() {
    for seed in 0..20 {
        let fs = SimulatedFs::new(seed);
        let (journal, _receiver, _) = open(&fs);
        append_ok(&journal, &[1, 2]);
        let whole = fs.contents(&segment_path(1)).unwrap();
        drop(journal);
        // The last record is in the file, but not on the device.
        let mut file = crate::JournalFs::reuse(&fs, &segment_path(1)).unwrap();
        crate::JournalFile::truncate(file.as_mut(), 0).unwrap();
        let mut rest = &whole[..];
        while !rest.is_empty() {
            let slice = std::io::IoSlice::new(rest);
            let taken = crate::JournalFile::write_vectored(file.as_mut(), &[slice]).unwrap();
            rest = &rest[taken..];
        }
        let (journal, ..) = open(&fs);
        assert_eq!(ids_in_segment(&journal, SegmentNumber::new(1)), [1, 2], "seed {seed}");
        drop(journal);
        fs.restart();
        let (journal, ..) = open(&fs);
        let mut reader = journal.read_segment(SegmentNumber::new(1)).unwrap();
        assert_eq!(reader.by_ref().count(), 2, "seed {seed}");
        assert_eq!(reader.damage(), [], "seed {seed}");
    }
}

/// Scenario: files whose numbers or positions leave none to go on with, checksums right.
/// Guarantees: the journal is not opened, says why, and alters nothing but its lock.
#[test]
fn positions_that_would_overflow_are_refused() {
    let far = u64::MAX - 1000;
    for (number, base) in [(1, far), (1, u64::MAX >> 1), (u64::MAX >> 2, 77)] {
        let (fs, mut bytes) = three_records();
        crate::JournalFs::remove(&fs, &segment_path(1)).unwrap();
        bytes[16..24].copy_from_slice(&u64::to_le_bytes(number));
        bytes[24..32].copy_from_slice(&base.to_le_bytes());
        bytes.truncate(FILE_HEADER_LEN);
        for (end, at) in [(36, 36), (56, 56)] {
            let crc = crc32c::crc32c(&bytes[..end]);
            bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
        }
        fs.set_contents(&segment_path(number), &bytes);
        let refused = Journal::<u64>::open_on(Arc::new(fs.clone()), JournalOptions::new(DIR));
        let refused = refused.map(|_| ()).unwrap_err();
        assert!(matches!(refused, JournalError::OutOfNumbers { .. }), "{number} {base}: {refused}");
        assert_eq!(fs.contents(&segment_path(number)).unwrap(), bytes);
    }
}

/// Scenario: a carry file is cut at every length, and altered at every byte.
/// Guarantees: a cut one is not offered, an altered one is offered only with the damage told.
#[test]
fn damaged_carry_is_told() {
    let fs = SimulatedFs::new(1);
    let (journal, _receiver, _) = open(&fs);
    append_ok(&journal, &[1, 2, 3]);
    let sealed = rotate(&journal).unwrap();
    journal.write_carry(sealed, &mut [2, 3].map(record).into_iter()).unwrap();
    journal.close().unwrap();
    let path = Path::new(DIR).join(format!("carry-{:020}.journal", 1));
    let whole = fs.contents(&path).unwrap();
    for len in 0..whole.len() {
        fs.set_contents(&path, &whole[..len]);
        let (_, _, recovered) = open(&fs);
        assert_eq!(recovered.carries, [], "length {len}");
        let kinds: Vec<_> = recovered.damage.iter().map(|damage| damage.kind).collect();
        assert_eq!(kinds, [DamageKind::IncompleteCarry], "length {len}");
    }
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs.set_contents(&path, &bytes);
        let (journal, _, recovered) = open(&fs);
        let mut reader = journal.read_carry(sealed).unwrap();
        let ids: Vec<u64> = reader.by_ref().map(|record| id_of(&record.unwrap())).collect();
        assert!(!reader.damage().is_empty() || !recovered.damage.is_empty(), "byte {at}");
        assert!([&[2, 3][..], &[2], &[3]].contains(&&ids[..]), "byte {at}: {ids:?}");
    }
}

/// Scenario: all that is left of a journal is a carry file.
/// Guarantees: numbers and sequence numbers go on above it, and it is the base.
#[test]
fn numbering_survives_with_only_a_carry_left() {
    let fs = SimulatedFs::new(1);
    let (journal, _receiver, _) = open(&fs);
    append_ok(&journal, &[1, 2, 3]);
    rotate(&journal).unwrap();
    append_ok(&journal, &[4]);
    let sealed = rotate(&journal).unwrap();
    journal.write_carry(sealed, &mut std::iter::once(record(4))).unwrap();
    let last = append_group(&journal, &[5]).remove(0).unwrap();
    journal.close().unwrap();
    let used = fs.used_bytes();
    for number in 1..=3 {
        crate::JournalFs::remove(&fs, &segment_path(number)).unwrap();
    }
    assert!(fs.used_bytes() < used);
    let (journal, _receiver, recovered) = open(&fs);
    assert_eq!(recovered.segments, []);
    assert_eq!(journal.active_segment(), SegmentNumber::new(3));
    assert_eq!(recovered.base_carry(journal.active_segment()), Some(sealed));
    assert!(last <= append_group(&journal, &[6]).remove(0).unwrap());
}

/// Scenario: two carries, and of the segments only one above both; the journal is opened.
/// Guarantees: both carries are offered and stay: which one counts, the consumer's own note says.
#[test]
fn an_older_carry_is_the_consumers_to_delete() {
    let fs = SimulatedFs::new(1);
    let (journal, _receiver, _) = open(&fs);
    append_ok(&journal, &[1]);
    let first = rotate(&journal).unwrap();
    journal.write_carry(first, &mut [1].map(record).into_iter()).unwrap();
    append_ok(&journal, &[2]);
    let second = rotate(&journal).unwrap();
    journal.write_carry(second, &mut [2].map(record).into_iter()).unwrap();
    journal.close().unwrap();
    for number in [first, second] {
        fs.remove(&segment_path(number.get())).unwrap();
    }
    let (journal, _, recovered) = open(&fs);
    assert_eq!(recovered.carries, [first, second]);
    let mut kept = journal.read_carry(first).unwrap();
    assert_eq!(id_of(&kept.next().unwrap().unwrap()), 1);
    journal.delete_through(second).unwrap();
    assert!(journal.read_carry(first).is_err());
}
