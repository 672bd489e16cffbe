//! The write-ahead log between ack and table.
//!
//! **In:** opaque records ([`RecordBytes`]: header bytes and payload bytes). **Out:** an
//! acknowledgement once a record is on the device, and the records in journal order: live as
//! [`Event`]s, after a restart through [`RecordReader`]s. The journal refuses to know what a
//! record means, when it is settled, and what a table is.
//!
//! # Epochs
//!
//! The consumer settles what it was told in epochs. For one epoch it
//!
//! 1. calls [`Journal::rotate`], which seals a segment `k`, and takes events up to `Sealed` of `k`;
//! 2. commits what is settled elsewhere, atomically with the number `k`;
//! 3. writes carry file `k` ([`Journal::write_carry`]): all work that is not committed after
//!    segments up to `k`, in place of those segments and of every carry before it;
//! 4. notes `k` durably, and calls [`Journal::delete_through`] with it.
//!
//! After a restart it reads what it noted, and calls `delete_through` with that `k`, which finishes
//! what a crash may have interrupted. Then with `m` the lowest segment left, it replays
//! [`Recovered::base_carry`] of `m` (the highest carry below `m`), and the segments from `m` on,
//! without what it committed of them. Why that is right at each crash point:
//!
//! - before step 4 is durable: all segments since the last noted one stand, and so does its carry,
//!   since `delete_through` takes only carries *below* its number. Carry `k` is not below `m <= k`,
//!   so it is not used; it is deleted or overwritten by a later epoch, or used by none;
//! - within 4: segments up to `k` may stand in part. `delete_through` of `k` removes the rest
//!   before it removes a carry, so no carry that was needed goes first.
//!
//! A segment may also be sealed without a `rotate` (see [`Event::Sealed`]). An epoch may span
//! several segments, so the consumer is free to ignore that.
//!
//! # Files
//!
//! A journal is a folder. `LOCK` is locked by its owner, and holds that process's id for people.
//! `segment-<20 digits>.journal` holds records in the order of appending.
//! `carry-<20 digits>.journal` holds what the consumer carried over when it settled segments up
//! to that number. `*.tmp` is a carry file being written, or a segment that was deleted and whose
//! file waits to become another one; opening removes both. Other names are let alone.
//!
//! Opening starts a new segment, whose number is above that of all files, and leaves the earlier
//! ones for replay. There is always at least the active segment, durable before anything is told
//! of it, so numbers are never given twice. They may have gaps. Each folder on the way to the
//! journal's is synced into the one above it when the journal is opened.
//!
//! All integers are little endian. CRC is CRC32C.
//!
//! | file header: offset | bytes | |
//! |---|---|---|
//! | 0 | 8 | `TLSEGMNT` or `TLCARRY1` |
//! | 8 | 4 | format version, 2 |
//! | 12 | 4 | no body in this file is longer than this |
//! | 16 | 8 | segment number, as in the name |
//! | 24 | 8 | base: the sequence number of offset 0 of this file |
//! | 32 | 4 | 1 if the file had another content before, else 0 |
//! | 36 | 4 | CRC of the 36 bytes before |
//! | 40 | 8 | number of the segment that took records before this one, 0 where none did |
//! | 48 | 8 | the end of that segment: its acknowledged records fill it up to here at the least |
//! | 56 | 4 | CRC of the 56 bytes before |
//!
//! The first 40 bytes are the same in every version, so a build names a version that it does not
//! know instead of taking the file for damaged. Version 1 has these alone; it is read as well.
//!
//! Records follow without gaps, each a frame and a body. The payload is stored raw: it is
//! compressed already, or will be when it becomes a table.
//!
//! | record: offset | bytes | |
//! |---|---|---|
//! | 0 | 4 | `F7 54 4C A9` |
//! | 4 | 4 | 1 record, 2 footer |
//! | 8 | 4 | length of the header bytes |
//! | 12 | 4 | length of the payload bytes |
//! | 16 | 8 | sequence number: base plus the offset of this record in the file |
//! | 24 | 4 | CRC of the body |
//! | 28 | 4 | CRC of the 28 bytes before |
//! | 32 | | body: header bytes, then payload bytes |
//!
//! A sequence number is a position, so numbers ascend across segments and restarts without being
//! stored anywhere else (the base of a segment is at or above base plus length of the one
//! before), and bytes that stand anywhere but where the journal wrote them are no record: neither
//! what a crash brings back from a reused block, nor a record that a client hid in its payload.
//!
//! # Files that are written over
//!
//! The file of a deleted segment may become a later one: it loses its name, durably, gets a new
//! header, is synced, and takes the new name. Its records replace the old bytes from the begin on,
//! so behind the last one stands what was there before. None of that is a record: each frame has
//! the sequence number of its position, and the base of the file is above all that was ever
//! given. A client could hide a frame in a payload with the number that it foresees, so this base is
//! also beyond the last one by a random distance below 2^36.
//!
//! # The end of a segment
//!
//! A segment has nothing at its end. The header of the next one states it: synced before that one
//! is known to anybody, so before anything in it is acknowledged, at no cost of its own. That holds
//! for a segment that was given up as well, and for the newest one when a journal is opened, after
//! its tail was cut and the rest synced. What is stated is what is durable at least: a segment goes
//! on when its successor could not be made, and of several that name it the furthest counts. Damage
//! before the stated end is [`DamageKind::CorruptEnd`] where no record follows it, also in a file
//! that was written over.
//!
//! A carry file ends with a footer, whose body is the count of records before it and the sum of
//! their body lengths, 8 bytes each. Its base only serves to go on numbering. It is written under
//! another name, synced, renamed, and the folder synced.
//!
//! # Appending
//!
//! One thread takes all that waits, writes it with as few calls as possible, calls `fdatasync`
//! once, sends the events, and answers. So a record is acknowledged only after a sync that
//! succeeded, and the length of a segment up to its last acknowledged record never shrinks.
//!
//! - No room: the segment is cut back to its durable length, the group is refused with
//!   [`JournalError::DiskFull`], and the journal goes on.
//! - Any error of a sync, or a write error of another kind: nobody in the group is acknowledged,
//!   the segment is sealed, and a new one is opened. No acknowledgement is ever based on a file
//!   whose sync has failed. While there cannot be a new one, the journal takes nothing; its consumer
//!   asks it from time to time to try again ([`Journal::heal`]).
//! - A position beyond 2^63 or a number beyond 2^62: refused, with
//!   [`JournalError::OutOfNumbers`].
//!
//! A record that was *not* acknowledged may turn up in a replay all the same, when the machine
//! stops before the device has forgotten it. So may a record whose acknowledgement was lost.
//! The consumer deals with both as with a client that retries.
//!
//! # Recovery
//!
//! A reader goes from frame to frame. A frame counts if magic, CRC and sequence number are right
//! and its lengths are within the limit of its file and the file itself; a record if its body's
//! CRC is right as well. Otherwise the reader searches on, behind the body if the frame was right
//! and else byte by byte, for the next whole record: what lies between is
//! [`DamageKind::CorruptMiddle`]. If there is none it is a tail, [`DamageKind::TornTail`] or
//! [`DamageKind::ZeroTail`], but no damage in a file that was written over. A frame that is right
//! and whose body would reach beyond the file is a torn tail without a search. All damage is logged and returned, and opening cuts the tail off
//! the newest segment. A file shorter than its header was never put to use.
//!
//! Opening reads only headers, the newest segment, and the footers of carries. So it is quick
//! however long the journal is, and replay needs memory for one record at a time.

mod segment;

mod error;
mod fs;

mod carry;
mod queue;
mod recover;
mod replay;

mod capacity;
mod events;
mod spares;
mod writer;
mod writing;

mod journal;

#[cfg(any(test, debug_assertions))]
mod simulated_disk;
#[cfg(any(test, debug_assertions))]
mod simulated_fs;
#[cfg(test)]
mod tests;

pub use error::JournalError;
pub use events::{Event, Receiver};
pub use fs::{
    JournalFile, JournalFs, JournalRead, ListedFile, LockGuard, LockOutcome, RealFs, create_folder,
    create_folders,
};
pub use journal::{Journal, JournalOptions};
pub use recover::{AbsentSegment, Recovered};
pub use replay::{Damage, DamageKind, RecordReader, read_carry, read_segment};
pub use segment::{RecordBytes, SegmentNumber, Sequence};
#[cfg(any(test, debug_assertions))]
pub use simulated_disk::Accidents;
#[cfg(any(test, debug_assertions))]
pub use simulated_fs::SimulatedFs;
