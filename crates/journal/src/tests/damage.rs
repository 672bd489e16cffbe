//! What recovery makes of files that a crash or the device has damaged.

use std::path::Path;

use super::*;
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
    let mut at = [40; 4];
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
        let kept = if len < 40 { 0 } else { offsets()[count] };
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
    for at in 0..40 {
        let (fs, mut bytes) = three_records();
        bytes[at] ^= 1;
        let found = damage(0, 40, DamageKind::CorruptMiddle);
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
        let payload = Bytes::from(source[40..].to_vec());
        let evil = RecordBytes { header: Bytes::from_static(b"evil"), payload };
        runtime().block_on(journal.append(evil, 0)).unwrap();
        append_ok(&journal, &[9]);
        journal.close().unwrap();
        let mut bytes = fs.contents(&segment_path(1)).unwrap();
        if torn {
            let len = bytes.len();
            bytes.truncate(len - usize::try_from(record(9).stored_len()).unwrap() - 1);
        } else {
            bytes[41] ^= 1;
        }
        let (ids, found, _) = reopen(&fs, &bytes);
        assert_eq!(ids, if torn { vec![] } else { vec![9] });
        assert_eq!(found.len(), 1);
    }
}

/// Scenario: a file of another version, and one under another's name.
/// Guarantees: the journal is not opened, and nothing in it is touched.
#[test]
fn foreign_files_are_refused() {
    let (fs, mut bytes) = three_records();
    bytes[8] = 2;
    let crc = crc32c::crc32c(&bytes[..36]);
    bytes[36..40].copy_from_slice(&crc.to_le_bytes());
    fs.set_contents(&segment_path(1), &bytes);
    let refused = Journal::<u64>::open_on(Arc::new(fs.clone()), JournalOptions::new(DIR));
    assert!(matches!(refused, Err(JournalError::UnsupportedVersion { found: 2, .. })));
    assert_eq!(fs.contents(&segment_path(1)).unwrap(), bytes);

    let (fs, bytes) = three_records();
    fs.set_contents(&segment_path(7), &bytes);
    let refused = Journal::<u64>::open_on(Arc::new(fs.clone()), JournalOptions::new(DIR));
    assert!(matches!(refused, Err(JournalError::Mislabelled { found, .. }) if found.get() == 1));
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
