//! Finds the blocks of a file, also behind damage.

use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;

use super::format::{Block, BlockHeader, FILE_HEADER_BYTES, FileFormat, file_format};

/// Bytes looked through at a time for the next block behind damage.
const SEARCH_BYTES: usize = 1 << 16;

/// A part of a file.
#[derive(Debug)]
pub(super) enum Part {
    /// A block, and where it begins.
    Block(u64, Box<Block>),
    /// Bytes that are no block.
    Unreadable(Range<u64>),
}

/// A file, from some place on, part by part.
#[derive(Debug)]
pub(super) struct Scan<R> {
    reader: BufReader<R>,
    /// Where the reader is.
    at: u64,
    /// Where the next part begins.
    pub(super) offset: u64,
    end: u64,
}

/// The format of a file of `length` bytes; damaged when it is shorter than its header.
pub(super) fn read_format(file: &mut impl Read, length: u64) -> io::Result<FileFormat> {
    let mut header = [0; 16];
    if length < FILE_HEADER_BYTES || !fill(file, &mut header)? {
        return Ok(FileFormat::Damaged);
    }
    Ok(file_format(header))
}

impl<R: Read + Seek> Scan<R> {
    /// The parts from `offset` up to `end`.
    pub(super) fn new(mut file: R, offset: u64, end: u64) -> io::Result<Self> {
        file.seek(SeekFrom::Start(offset))?;
        Ok(Self { reader: BufReader::with_capacity(1 << 18, file), at: offset, offset, end })
    }

    /// The next part, `None` at the end.
    pub(super) fn next_part(&mut self) -> io::Result<Option<Part>> {
        if self.end <= self.offset {
            return Ok(None);
        }
        let begin = self.offset;
        if let Some((block, end)) = self.block_at(begin)? {
            self.offset = end;
            return Ok(Some(Part::Block(begin, Box::new(block))));
        }
        self.offset = self.next_block_after(begin)?;
        Ok(Some(Part::Unreadable(begin..self.offset)))
    }

    /// Whether what stands from `offset` to the end was being written when the process died: a block
    /// that is not all there, or room that was not filled yet.
    pub(super) fn is_torn(&mut self, offset: u64) -> io::Result<bool> {
        let mut first = [0; BlockHeader::MIN_BYTES];
        if self.read_at(offset, &mut first)?
            && let Some(header) = BlockHeader::read(&first, &mut |_| Ok(true))?
        {
            let end = offset + header.length as u64 + u64::from(header.body_length);
            return Ok(self.end < end);
        }
        let mut rest = vec![0; usize::try_from(self.end - offset).unwrap_or(usize::MAX)];
        let is_zero = self.read_at(offset, &mut rest)? && rest.iter().all(|byte| *byte == 0);
        Ok(is_zero || rest.len() < BlockHeader::MIN_BYTES)
    }

    /// Where the next whole block begins, or the end.
    fn next_block_after(&mut self, offset: u64) -> io::Result<u64> {
        let mut from = offset + 1;
        let mut window = vec![0; SEARCH_BYTES];
        while from < self.end {
            let wanted = usize::try_from(self.end - from).unwrap_or(usize::MAX).min(SEARCH_BYTES);
            let Some(window) = window.get_mut(..wanted) else { break };
            if !self.read_at(from, window)? {
                break;
            }
            let begins: Vec<usize> = (0..wanted)
                .filter(|at| window.get(*at..).is_some_and(BlockHeader::is_begin))
                .collect();
            for begin in begins {
                let begin = from + begin as u64;
                if self.block_at(begin)?.is_some() {
                    return Ok(begin);
                }
            }
            // What begins with the last three bytes is looked at with what follows.
            from += if wanted < SEARCH_BYTES { wanted as u64 } else { wanted as u64 - 3 };
        }
        Ok(self.end)
    }

    /// The block that begins at `offset`, and where it ends.
    fn block_at(&mut self, offset: u64) -> io::Result<Option<(Block, u64)>> {
        let mut first = [0; BlockHeader::MIN_BYTES];
        if !self.read_at(offset, &mut first)? {
            return Ok(None);
        }
        let mut more = |bytes: &mut [u8]| self.read_at(offset + first.len() as u64, bytes);
        let Some(header) = BlockHeader::read(&first, &mut more)? else { return Ok(None) };
        let body = offset + header.length as u64;
        let end = body.saturating_add(u64::from(header.body_length));
        if self.end < end {
            return Ok(None);
        }
        let mut bytes = vec![0; usize::try_from(header.body_length).map_err(io::Error::other)?];
        if !self.read_at(body, &mut bytes)? {
            return Ok(None);
        }
        Ok(header.with_body(&bytes).map(|block| (block, end)))
    }

    /// Reads all of `buffer` from `offset` on, or says that there is not that much.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<bool> {
        if self.end.saturating_sub(offset) < buffer.len() as u64 {
            return Ok(false);
        }
        if self.at != offset {
            self.reader.seek(SeekFrom::Start(offset))?;
            self.at = offset;
        }
        let filled = fill(&mut self.reader, buffer)?;
        // After a short read the reader's place is not known.
        self.at = if filled { offset + buffer.len() as u64 } else { u64::MAX };
        Ok(filled)
    }
}

/// Reads all of `buffer`, or says that there is not that much left.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
