//! What a pulse says, and what it is believed.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::time::Instant;

use super::*;

const BOUND: u64 = 1 << 30;

fn left() -> Left {
    Left {
        mark: 0xdead_beef,
        oom_kills: Some(3),
        grown_bytes: 12_345,
        record: Some((Origin::Segment(7), 77)),
        ended: 6,
    }
}

/// Scenario: processes that ended in every way, with much memory and little, while the kernel killed or not, or does
/// not tell.
/// Guarantees: a panic and a signal of its own are its own doing; so is much memory, and a quarter of that when the
/// kernel killed; all else is unexplained.
#[test]
fn what_is_a_process_own_doing() {
    let cases = [
        (PANIC, 0, Some(3), Some(Cause::Panic)),
        (6, 0, Some(3), Some(Cause::Signal(6))),
        (11, 2 * BOUND, Some(4), Some(Cause::Signal(11))),
        (0, 0, Some(3), None),
        (0, BOUND, Some(3), None),
        (0, BOUND + 1, Some(3), Some(Cause::Memory(BOUND + 1))),
        (0, BOUND + 1, None, Some(Cause::Memory(BOUND + 1))),
        (0, BOUND / 2, Some(4), Some(Cause::OutOfMemory(BOUND / 2))),
        (0, BOUND / 4, Some(4), None),
        (0, BOUND / 2, None, None),
        (0, BOUND / 2, Some(2), None),
    ];
    for (ended, grown_bytes, now, expected) in cases {
        let left = Left { ended, grown_bytes, ..left() };
        let around = Around { oom_kills: now, bound_bytes: BOUND };
        assert_eq!(cause(&left, around), expected, "{left:?} {around:?}");
    }
    let untold = Left { oom_kills: None, ended: 0, grown_bytes: BOUND / 2, ..left() };
    assert_eq!(cause(&untold, Around { oom_kills: Some(9), bound_bytes: BOUND }), None);
}

/// Scenario: a file as it was written; each of its bytes altered, cut off there; files of another kind and of a later
/// version.
/// Guarantees: what was noted is read back; a stretch that is damaged says nothing and makes no other say
/// anything else; one of which nobody knows what it is about says nothing at all.
#[test]
fn a_damaged_pulse_says_less_and_nothing_else() {
    let whole = encode(&left());
    assert_eq!((whole.len(), decode(&whole)), (LEN, Some(left())));
    let carried = Left { record: Some((Origin::Carry(1), 0)), oom_kills: None, ..left() };
    assert_eq!(decode(&encode(&carried)), Some(carried));
    let says_less = |at: usize, said: Option<Left>| match at {
        0..24 => said.is_none(),
        24..36 => said == Some(Left { grown_bytes: 0, ..left() }),
        36..57 => said == Some(Left { record: None, ..left() }),
        _ => said == Some(Left { ended: 0, ..left() }),
    };
    for at in 0..LEN {
        for bit in 0..8 {
            let mut altered = whole.clone();
            altered[at] ^= 1 << bit;
            assert!(says_less(at, decode(&altered)), "byte {at}: {:?}", decode(&altered));
        }
        let cut = decode(&whole[..at]);
        assert!(cut.is_none_or(|cut| cut.ended == 0 && cut.mark == left().mark), "{at}: {cut:?}");
    }
    let mut later = b"TLPULSE\x02".to_vec();
    later.extend_from_slice(&whole[8..20]);
    let mut later = sealed(&later);
    later.extend_from_slice(&whole[24..]);
    for foreign in [later, vec![0; LEN], vec![0xff; 4096], b"not a pulse".to_vec()] {
        assert_eq!(decode(&foreign), None);
    }
}

/// Scenario: a pulse that begins, is told a record and a panic, begins anew for another mark, and rests; then it is
/// told more. The file of another is a folder.
/// Guarantees: the next process finds what was said since it began last, for that mark alone; what a process says
/// that takes nothing on is not written; one that cannot be written is as none.
#[test]
fn a_pulse_says_what_happened_since_it_began() {
    let held = tempfile::tempdir().unwrap();
    let path = held.path().join("PULSE");
    let record = Some((Origin::Carry(4), 2));
    let found = |mark: u32| Pulse::new(path.clone()).own_death(mark);
    assert_eq!(found(1), None);
    let pulse = Pulse::new(path.clone());
    pulse.note_panic();
    assert!(!path.try_exists().unwrap());
    pulse.begin(1);
    assert_eq!(found(1), None);
    assert_eq!(decode(&std::fs::read(&path).unwrap()).unwrap().ended, 0);
    pulse.note_record(record);
    pulse.note_panic();
    assert_eq!(found(1), Some(OwnDeath { cause: Cause::Panic, record }));
    assert_eq!(found(2), None);
    pulse.begin(2);
    assert_eq!((found(1), found(2)), (None, None));
    pulse.rest();
    pulse.note_panic();
    assert_eq!(found(2), None);

    std::fs::create_dir(held.path().join("folder")).unwrap();
    let unwritten = Pulse::new(held.path().join("folder"));
    unwritten.begin(3);
    unwritten.note_panic();
    assert_eq!(unwritten.own_death(3), None);
}

/// Scenario: a process takes more and more memory while its pulse is on.
/// Guarantees: the file says so, without another word of the process.
#[cfg(target_os = "linux")]
#[test]
fn a_pulse_says_how_much_memory_was_taken() {
    let held = tempfile::tempdir().unwrap();
    let path = held.path().join("PULSE");
    let pulse = Pulse::new(path.clone());
    pulse.begin(1);
    let said = || decode(&std::fs::read(&path).unwrap()).unwrap().grown_bytes;
    let before = said();
    let mut taken = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    while said() < before + (16 << 20) {
        assert!(Instant::now() < deadline, "{} MiB are not noticed", taken.len());
        if taken.len() < 256 {
            taken.push(vec![1_u8; 1 << 20]);
        }
        std::thread::yield_now();
    }
}

/// Where the child process of the test below has its pulse, and what it is to die of.
const CHILD: &str = "TRACELAKE_TEST_PULSE";

/// Scenario: within a process of its own: it aborts, its stack is full, an unmapped place is read; another process
/// sends it `SIGABRT`, or kills it.
/// Guarantees: it ends by that signal in each case; what it did itself is its own doing, what was sent is not.
#[cfg(target_os = "linux")]
#[test]
fn a_signal_of_its_own_is_told_from_one_that_was_sent() {
    const NAME: &str = "drain::pulse::tests::a_signal_of_its_own_is_told_from_one_that_was_sent";
    if let Ok(order) = std::env::var(CHILD) {
        let (how, path) = order.split_once(' ').unwrap();
        let pulse = Pulse::new(path.into());
        // Each time anew, as for one part after the other.
        (0..3).for_each(|mark| {
            pulse.begin(mark);
            pulse.rest();
        });
        pulse.begin(3);
        die(how);
    }
    let aborted = Some(Cause::Signal(6));
    let cases =
        [("abort", 6, aborted), ("overflow", 6, aborted), ("ABRT", 6, None), ("KILL", 9, None)];
    for (how, signal, expected) in cases {
        let held = tempfile::tempdir().unwrap();
        let path = held.path().join("PULSE");
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", NAME]).env(CHILD, format!("{how} {}", path.display()));
        let ended = child.current_dir(held.path()).output().unwrap();
        assert_eq!(ended.status.signal(), Some(signal), "{how}: {ended:?}");
        let found = Pulse::new(path).own_death(3).map(|own| own.cause);
        assert_eq!(found, expected, "{how}");
    }
}

fn die(how: &str) -> ! {
    match how {
        "abort" => std::process::abort(),
        "overflow" => {
            fill_stack(0);
        }
        signal => {
            let own = std::process::id().to_string();
            Command::new("kill").args([&format!("-{signal}"), &own]).status().unwrap();
        }
    }
    panic!("it lives");
}

#[expect(unconditional_recursion, reason = "the stack is to be full")]
fn fill_stack(depth: u64) -> u64 {
    let held = std::hint::black_box([depth; 512]);
    fill_stack(depth + 1) + held[7]
}
