//! Lays out a group of records as it goes into a file, and writes it.

use std::io::{self, IoSlice};
use std::ops::Range;

use crate::error::JournalError;
use crate::fs::JournalFile;
use crate::queue::Pending;
use crate::segment::frame_record;

/// Parts shorter than this are copied beside their frames; longer ones are written from where
/// they are. About where one more slice per system call costs as much as the copy.
const COPY_BELOW_BYTES: usize = 4 << 10;

/// A stretch of bytes to write.
#[derive(Debug)]
pub(crate) enum Part<'a> {
    /// In the buffer of frames.
    Buffered(Range<usize>),
    /// Where the caller has it.
    InPlace(&'a [u8]),
}

impl Part<'_> {
    /// The bytes, of which those in the buffer lie in `frames`.
    pub(crate) fn bytes<'a>(&'a self, frames: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Buffered(range) => frames.get(range.clone()).unwrap_or_default(),
            Self::InPlace(bytes) => bytes,
        }
    }
}

/// Lays out `group` as it goes into the file, the first record at sequence number `first`.
pub(crate) fn plan_write<'a, T>(
    group: &'a [Pending<T>],
    first: u64,
    frames: &mut Vec<u8>,
) -> Result<Vec<Part<'a>>, JournalError> {
    let mut parts = Vec::new();
    let mut buffered_from = 0;
    let mut sequence = first;
    for Pending { record, body_crc, .. } in group {
        let Some(frame) = frame_record(record, *body_crc, sequence) else {
            // `append` refuses such records.
            let (bytes, limit) = (record.body_len(), u64::from(u32::MAX));
            return Err(JournalError::RecordTooLarge { bytes, limit });
        };
        frames.extend_from_slice(&frame.encode());
        for part in [&record.header, &record.payload] {
            if part.len() < COPY_BELOW_BYTES {
                frames.extend_from_slice(part);
                continue;
            }
            parts.push(Part::Buffered(buffered_from..frames.len()));
            parts.push(Part::InPlace(part));
            buffered_from = frames.len();
        }
        sequence = sequence.saturating_add(record.stored_len());
    }
    parts.push(Part::Buffered(buffered_from..frames.len()));
    parts.retain(|part| !part.bytes(frames).is_empty());
    Ok(parts)
}

/// Writes all of `slices`, none of which is empty, however little each call takes.
pub(crate) fn write_all(
    file: &mut dyn JournalFile,
    mut slices: &mut [IoSlice<'_>],
) -> io::Result<()> {
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(taken) => IoSlice::advance_slices(&mut slices, taken),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
