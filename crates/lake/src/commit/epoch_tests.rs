//! Epochs of data folders that are copies of each other: they count under one name.

use super::tests::{Fixture, draft};
use super::*;
use crate::layout::log_file;

fn mark(number: i64, nonce: i64) -> EpochMark {
    EpochMark { application: "one".to_owned(), number, nonce: Some(nonce) }
}

fn has(fixture: &Fixture, mark: &EpochMark) -> bool {
    fixture.table.snapshot(None).unwrap().has_epoch(mark).unwrap()
}

/// Scenario: an epoch, planned; the copy of the folder commits another one of the same number, with a new
/// trace and with a late piece, each of which is tried again.
/// Guarantees: the copy is told that the number is taken, and writes nothing; the original, asked once
/// more, is told that its epoch is in.
#[test]
fn the_number_of_a_copy_is_not_taken_for_its_own() {
    let fixture = Fixture::new();
    let mut original = fixture.writer("one");
    let mut copy = fixture.writer("one");
    original.commit_planned(&mark(1, 11), &[draft(1, 0..1)], None).unwrap();
    let version = original.snapshot().version();
    for traces in [[draft(2, 0..1)], [draft(1, 1..2)]] {
        for _ in 0..2 {
            let refused = copy.commit_planned(&mark(1, 12), &traces, None);
            assert!(matches!(refused, Err(LakeError::EpochTaken { number: 1, .. })), "{refused:?}");
            assert!(!copy.is_in_doubt());
        }
    }
    let again = original.commit_planned(&mark(1, 11), &[draft(1, 0..1)], None).unwrap();
    assert!(again.already_committed);
    assert_eq!((fixture.rows().len(), original.snapshot().version()), (1, version));
    assert!(has(&fixture, &mark(1, 11)) && !has(&fixture, &mark(1, 12)));
}

/// Scenario: the original commits epochs 1, 3 and 5 in 60 versions with a checkpoint between; a copy 7.
/// Guarantees: each is known by its nonce, also when later ones have its place in the `txn` and when the
/// newest is read from a checkpoint; numbers that nobody took, and those of a version whose
/// file is gone, are not said to be in; a mark without a nonce goes by the number.
#[test]
fn each_epoch_is_known_by_its_nonce_as_far_as_the_log_goes() {
    let fixture = Fixture::new();
    let mut original = fixture.writer("one");
    let mut other = fixture.writer("other");
    original.commit_planned(&mark(1, 11), &[draft(1, 0..1)], None).unwrap();
    for epoch in 1..60 {
        other.commit_epoch(epoch, &[]).unwrap();
    }
    original.commit_planned(&mark(3, 13), &[draft(3, 0..1)], None).unwrap();
    let third = original.snapshot().version();
    original.commit_planned(&mark(5, 15), &[draft(5, 0..1)], None).unwrap();
    original.snapshot().checkpoint().unwrap();
    assert!(has(&fixture, &mark(5, 15)) && !has(&fixture, &mark(5, 16)));
    fixture.writer("one").commit_planned(&mark(7, 27), &[draft(7, 0..1)], None).unwrap();
    for (number, nonce, is_in) in [
        (1, 11, true),
        (1, 12, false),
        (2, 11, false),
        (3, 13, true),
        (3, 11, false),
        (4, 13, false),
        (5, 15, true),
        (6, 15, false),
        (7, 27, true),
        (7, 17, false),
        (8, 27, false),
    ] {
        assert_eq!(has(&fixture, &mark(number, nonce)), is_in, "epoch {number}, nonce {nonce}");
    }
    let unplanned = EpochMark { nonce: None, ..mark(6, 0) };
    assert!(has(&fixture, &unplanned));
    assert!(!has(&fixture, &EpochMark { number: 8, ..unplanned }));
    let gone = fixture.table.location().folder().join(log_file(third));
    std::fs::remove_file(gone).unwrap();
    assert!(has(&fixture, &mark(5, 15)) && !has(&fixture, &mark(3, 13)));
}

/// Scenario: the copy's epoch of the same number comes first between what the original read and its
/// version, with a trace that the original has nothing to do with, so that its amendment could stand; once
/// with a new trace beside the late one, once without.
/// Guarantees: the original is told that the number is taken, and the copy's `txn` stays.
#[test]
fn a_number_that_is_taken_meanwhile_is_noticed() {
    let fixture = Fixture::new();
    let mut original = fixture.writer("one");
    original.commit_planned(&mark(1, 11), &[draft(1, 0..1)], None).unwrap();
    fixture.writer("two").commit_epoch(1, &[draft(2, 0..1)]).unwrap();
    // One late trace alone fits, so that the other is deferred, and told.
    original.round_bytes = 1;
    let late = [draft(1, 1..2), draft(2, 1..2)];
    let with_new = [draft(1, 2..3), draft(2, 2..3), draft(5, 0..1)];
    for (number, other, traces) in [(2, draft(7, 0..1), &late[..]), (3, draft(8, 0..1), &with_new)]
    {
        let mut copy = fixture.writer("one");
        let mut meanwhile = |_: &HashSet<TraceId>| {
            copy.commit_planned(&mark(number, 22), std::slice::from_ref(&other), None).map(|_| ())
        };
        let tried = original.commit_planned(&mark(number, 12), traces, Some(&mut meanwhile));
        assert!(matches!(tried, Err(LakeError::EpochTaken { .. })), "{tried:?}");
        assert!(has(&fixture, &mark(number, 22)) && !has(&fixture, &mark(number, 12)));
    }
    assert_eq!(fixture.rows(), [(1, 1, 1), (2, 1, 1), (7, 1, 1), (8, 1, 1)]);
}
