//! What a process dies of while it takes on what an earlier one left: the file `journal/PULSE`.
//!
//! [`super::replay_mark`] says what a start died at. This says whether it died by its own doing: by a
//! panic, by a signal of its own (a failed allocation, a stack that is full, a fault of memory), or of
//! memory. All other deaths are unexplained: `kill -9`, the end of a container. The file is
//! written without a sync, since it is to outlive the process alone: a death with the machine says nothing.
//!
//! # Format, version 1
//!
//! Numbers are little-endian. Each stretch is written by whom it is of, at one go; one that is damaged says nothing.
//!
//! | offset | bytes | holds |
//! |---|---|---|
//! | 0 | 8 | `TLPULSE` and the version |
//! | 8 | 4 | the checksum of the mark that this is about: beside any other mark, as in a copied folder, it says nothing |
//! | 12 | 8 | how often the kernel had killed for want of memory by then; all ones where it does not tell |
//! | 20 | 4 | CRC32C of the bytes before |
//! | 24 | 8 + 4 | resident memory at its highest since then, in bytes beyond what the process had when its pipeline was made; its CRC32C |
//! | 36 | 17 + 4 | the record that is taken in: 0 for none, 1 for one of a carry, 2 of a segment; number of the file, place; CRC32C |
//! | 57 | 2 | how the process ended: 0 for not known, 255 by a panic, else the signal; its complement |

mod memory;
mod signals;

use std::fmt::{self, Display};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::Thread;
use std::time::Duration;

use tracing::warn;

use super::origin::Origin;
use memory::{memory_bound_bytes, oom_kills, resident_bytes};

const MAGIC: &[u8; 8] = b"TLPULSE\x01";
const LEN: usize = 59;

/// Where stretches begin.
const GROWN: usize = 24;
const RECORD: usize = 36;
const ENDED: usize = 57;

/// The word of a panic, in the place of a signal.
const PANIC: u8 = u8::MAX;

/// How often the resident memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A death while the kernel kills for want of memory is that of a process which had this part of the memory at
/// which it counts anyway; of one with less the kill was another's.
const PART_OF_BOUND: u64 = 4;

/// Why a death was a process's own doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The pipeline panicked.
    Panic,
    /// It got this signal by what it did itself.
    Signal(u8),
    /// The kernel killed for want of memory while it had so many bytes.
    OutOfMemory(u64),
    /// It had so many bytes.
    Memory(u64),
}

impl Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panic => formatter.write_str("a panic"),
            Self::Signal(signal) => match signals::name(*signal) {
                Some(name) => formatter.write_str(name),
                None => write!(formatter, "signal {signal}"),
            },
            Self::OutOfMemory(bytes) => {
                write!(formatter, "want of memory, with {} MiB", bytes >> 20)
            }
            Self::Memory(bytes) => write!(formatter, "{} MiB of memory", bytes >> 20),
        }
    }
}

/// What a process left in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Left {
    mark: u32,
    oom_kills: Option<u64>,
    grown_bytes: u64,
    record: Option<(Origin, u64)>,
    ended: u8,
}

/// What the process that looks sees around it.
#[derive(Clone, Copy, Debug)]
struct Around {
    oom_kills: Option<u64>,
    bound_bytes: u64,
}

/// A death that was a process's own doing, and the record that it took in at that moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OwnDeath {
    pub(super) cause: Cause,
    pub(super) record: Option<(Origin, u64)>,
}

/// The pulse of one pipeline. Clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct Pulse(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    path: PathBuf,
    /// Stays open until [`signals::hush`] is through: a handler of signals may be about to write to it.
    file: Option<File>,
    is_on: bool,
    /// Resident memory when the pipeline was made: a program that the service runs in may have much of its own.
    base_bytes: u64,
    /// The most that came to it.
    grown_bytes: u64,
    /// Looks at the memory while it is on.
    watch: Option<Thread>,
}

impl Pulse {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(Arc::new(Mutex::new(State {
            path,
            file: None,
            is_on: false,
            base_bytes: resident_bytes(),
            grown_bytes: 0,
            watch: None,
        })))
    }

    /// How the process ended that left the mark of this checksum, where that was its own doing. Asked before
    /// [`Self::begin`].
    pub(super) fn own_death(&self, mark: u32) -> Option<OwnDeath> {
        let mut bytes = Vec::new();
        let file = File::open(&self.state().path);
        file.and_then(|file| file.take(LEN as u64).read_to_end(&mut bytes)).ok()?;
        let left = decode(&bytes).filter(|left| left.mark == mark)?;
        let around = Around { oom_kills: oom_kills(), bound_bytes: memory_bound_bytes() };
        Some(OwnDeath { cause: cause(&left, around)?, record: left.record })
    }

    /// What the mark of this checksum says is taken on from now on.
    pub(super) fn begin(&self, mark: u32) {
        let mut state = self.state();
        state.grown_bytes = state.look();
        let grown_bytes = state.grown_bytes;
        let left = Left { mark, oom_kills: oom_kills(), grown_bytes, ..Left::default() };
        if let Err(error) = state.write(0, &encode(&left)) {
            // A death is unexplained then.
            warn!(file = %state.path.display(), %error, "not noted what a death would be of");
            state.is_on = false;
            state.hush();
            return;
        }
        state.is_on = true;
        if let Some(file) = &state.file {
            signals::tell(file, ENDED as u64);
        }
        if state.watch.is_none() {
            let pulse = Arc::downgrade(&self.0);
            let watch = std::thread::Builder::new().name("pulse".to_owned());
            match watch.spawn(move || watch_memory(&pulse)) {
                Ok(started) => state.watch = Some(started.thread().clone()),
                Err(error) => warn!(%error, "a death of memory would not be told from a kill"),
            }
        }
    }

    /// Nothing is taken on any more.
    pub(super) fn rest(&self) {
        let mut state = self.state();
        if state.is_on {
            state.is_on = false;
            state.hush();
        }
    }

    /// The record that is taken in, or none any more.
    pub(super) fn note_record(&self, record: Option<(Origin, u64)>) {
        let mut state = self.state();
        if state.is_on {
            // Without it the death is that of all that the mark names.
            state.write(RECORD, &encode_record(record)).ok();
        }
    }

    /// The pipeline ends by a panic.
    pub(super) fn note_panic(&self) {
        let mut state = self.state();
        if state.is_on {
            state.write(ENDED, &encode_ended(PANIC)).ok();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // No code that holds the lock leaves the state half changed.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn write(&mut self, at: usize, bytes: &[u8]) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(open(&self.path)?),
        };
        file.write_all_at(bytes, at as u64)
    }

    /// Resident memory beyond that of the beginning.
    fn look(&self) -> u64 {
        resident_bytes().saturating_sub(self.base_bytes)
    }

    /// Nobody is to speak for this process any more.
    fn hush(&self) {
        if let Some(file) = &self.file {
            signals::hush(file);
        }
        if let Some(watch) = &self.watch {
            watch.unpark();
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.hush();
    }
}

fn open(path: &std::path::Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).open(path)
}

/// Notes how much comes to the resident memory, until nothing is taken on.
fn watch_memory(pulse: &Weak<Mutex<State>>) {
    loop {
        std::thread::park_timeout(LOOK_EVERY);
        let Some(pulse) = pulse.upgrade() else { return };
        let mut state = lock(&pulse);
        if !state.is_on {
            state.watch = None;
            return;
        }
        let grown = state.look();
        if state.grown_bytes < grown {
            state.grown_bytes = grown;
            state.write(GROWN, &sealed(&grown.to_le_bytes())).ok();
        }
    }
}

/// Whether a death was the process's own doing.
fn cause(left: &Left, around: Around) -> Option<Cause> {
    let Around { oom_kills, bound_bytes } = around;
    let grown = left.grown_bytes;
    let was_killed_for_memory = matches!(
        (left.oom_kills, oom_kills),
        (Some(before), Some(now)) if before < now
    );
    match left.ended {
        PANIC => Some(Cause::Panic),
        signal @ 1.. => Some(Cause::Signal(signal)),
        0 if was_killed_for_memory && bound_bytes / PART_OF_BOUND < grown => {
            Some(Cause::OutOfMemory(grown))
        }
        0 if bound_bytes < grown => Some(Cause::Memory(grown)),
        0 => None,
    }
}

/// The bytes and their checksum.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut sealed = bytes.to_vec();
    sealed.extend_from_slice(&crc32c::crc32c(bytes).to_le_bytes());
    sealed
}

fn encode_record(record: Option<(Origin, u64)>) -> Vec<u8> {
    let (kind, file, place) = match record {
        None => (0, 0, 0),
        Some((Origin::Carry(number), place)) => (1, number, place),
        Some((Origin::Segment(number), place)) => (2, number, place),
    };
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&u64::to_le_bytes(file));
    bytes.extend_from_slice(&place.to_le_bytes());
    sealed(&bytes)
}

const fn encode_ended(ended: u8) -> [u8; 2] {
    [ended, !ended]
}

fn encode(left: &Left) -> Vec<u8> {
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&left.mark.to_le_bytes());
    head.extend_from_slice(&left.oom_kills.unwrap_or(u64::MAX).to_le_bytes());
    let mut bytes = sealed(&head);
    bytes.extend(sealed(&left.grown_bytes.to_le_bytes()));
    bytes.extend(encode_record(left.record));
    bytes.extend(encode_ended(left.ended));
    bytes
}

/// What the file says, `None` where nobody knows which mark it is about.
fn decode(bytes: &[u8]) -> Option<Left> {
    let head = unseal::<20>(bytes, 0)?;
    if !head.starts_with(MAGIC) {
        return None;
    }
    let oom_kills = number(head, 12).filter(|kills| *kills != u64::MAX);
    let mark = u32::from_le_bytes(head.get(8..12)?.try_into().ok()?);
    let grown = unseal::<8>(bytes, GROWN).map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let record = unseal::<17>(bytes, RECORD).and_then(|record| {
        let origin = match record.first()? {
            1 => Origin::Carry(number(record, 1)?),
            2 => Origin::Segment(number(record, 1)?),
            _ => return None,
        };
        Some((origin, number(record, 9)?))
    });
    let ended = match bytes.get(ENDED..LEN) {
        Some(&[ended, complement]) if ended == !complement => ended,
        _ => 0,
    };
    Some(Left { mark, oom_kills, grown_bytes: grown, record, ended })
}

/// A stretch whose checksum follows it.
fn unseal<const LENGTH: usize>(bytes: &[u8], at: usize) -> Option<&[u8; LENGTH]> {
    let (stretch, rest) = bytes.get(at..)?.split_first_chunk::<LENGTH>()?;
    let checksum = u32::from_le_bytes(*rest.first_chunk()?);
    (crc32c::crc32c(stretch) == checksum).then_some(stretch)
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests;
