//! The journal's files: whatever stands in them, whole records come out and the rest is named.

use std::path::{Path, PathBuf};

use tracelake_journal::{
    Journal, JournalError, JournalOptions, SegmentNumber, read_carry, read_segment,
};

/// Lengths as the crate's documentation has them: a file header of version 1 and one of version 2.
const FILE_HEADER: usize = 40;
const LONGER_FILE_HEADER: usize = 60;
const FRAME: usize = 32;

/// The lowest bit of the first byte says what the rest is: the file as it stands, or records, which
/// are framed as the format says and then damaged. The file is read as a segment and as a carry;
/// with the next bit a journal is opened on it, which takes longer.
pub(crate) fn journal(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else { return };
    let folder = Folder::new();
    if mode % 2 == 0 {
        read_all(folder.path(), rest, mode & 2 != 0);
        return;
    }
    let (file, intact) = framed(rest);
    let records = read_all(folder.path(), &file, mode & 2 != 0);
    if intact {
        assert_eq!(Some(records), expected(rest), "an undamaged file gives every record");
    }
}

/// Header and payload of each record.
type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// Reads `file` as segment 1 and carry 1, and may open a journal on both.
fn read_all(folder: &Path, file: &[u8], open: bool) -> Records {
    for name in ["segment", "carry"] {
        let path = folder.join(format!("{name}-{:020}.journal", 1));
        std::fs::write(path, file).expect("the temporary folder can be written");
    }
    let one = SegmentNumber::new(1);
    for record in read_carry(folder, one).into_iter().flatten() {
        record.expect("the file can be read");
    }
    let before = read(folder, file);
    if !open {
        return before;
    }
    let options = JournalOptions::new(folder);
    match Journal::<()>::open(options) {
        Ok((journal, _receiver, recovered)) => {
            assert!(one < journal.active_segment());
            assert_eq!(recovered.segments, [one]);
            let after: Records = journal
                .read_segment(one)
                .expect("a recovered segment can be opened")
                .map(|record| record.expect("the file can be read"))
                .map(|record| (record.header.to_vec(), record.payload.to_vec()))
                .collect();
            assert_eq!(after, before, "opening cuts no record off");
            journal.close().expect("nothing failed");
        }
        Err(
            JournalError::UnsupportedVersion { .. }
            | JournalError::Mislabelled { .. }
            | JournalError::OutOfNumbers { .. },
        ) => {}
        Err(error) => panic!("{error}"),
    }
    before
}

/// The records of segment 1; checks that records and damage make up the file.
fn read(folder: &Path, file: &[u8]) -> Records {
    let mut reader = match read_segment(folder, SegmentNumber::new(1)) {
        Ok(reader) => reader,
        Err(JournalError::UnsupportedVersion { .. } | JournalError::Mislabelled { .. }) => {
            return Vec::new();
        }
        Err(error) => panic!("{error}"),
    };
    let mut records = Vec::new();
    let mut bytes = 0;
    let mut last = None;
    while let Some(record) = reader.next() {
        let record = record.expect("the file can be read");
        let body = [&record.header[..], &record.payload[..]].concat();
        bytes += FRAME + body.len();
        assert!(body.is_empty() || file.windows(body.len()).any(|window| window == body));
        assert!(last < reader.last_sequence(), "sequence numbers ascend");
        last = reader.last_sequence();
        records.push((record.header.to_vec(), record.payload.to_vec()));
    }
    let damaged: u64 = reader.damage().iter().map(|damage| damage.bytes).sum();
    let explained = bytes as u64 + damaged;
    let length = file.len() as u64;
    assert!(
        [0, FILE_HEADER, LONGER_FILE_HEADER]
            .iter()
            .any(|header| explained + *header as u64 == length),
        "{bytes} bytes of records and {damaged} of damage in a file of {length}"
    );
    records
}

/// Splits the input: a count of damages, the damages (offset and mask), then records of a length
/// byte each.
fn split(data: &[u8]) -> Option<(Vec<(usize, u8)>, Records)> {
    let (count, mut rest) = data.split_first()?;
    let mut damages = Vec::new();
    for _ in 0..count % 4 {
        let (damage, tail) = rest.split_first_chunk::<3>()?;
        damages.push((usize::from(u16::from_le_bytes([damage[0], damage[1]])), damage[2]));
        rest = tail;
    }
    let mut records = Vec::new();
    while let Some((length, tail)) = rest.split_first() {
        let (body, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        let (header, payload) = body.split_at(body.len() / 2);
        records.push((header.to_vec(), payload.to_vec()));
        rest = tail;
    }
    Some((damages, records))
}

fn expected(data: &[u8]) -> Option<Records> {
    split(data).map(|(_, records)| records)
}

/// The file, written from the format's description, and whether it was left undamaged. A mask of
/// zero cuts the file there.
fn framed(data: &[u8]) -> (Vec<u8>, bool) {
    let Some((damages, records)) = split(data) else { return (Vec::new(), false) };
    let base = 1_000_u64;
    let mut file = Vec::new();
    file.extend_from_slice(b"TLSEGMNT");
    file.extend_from_slice(&1_u32.to_le_bytes());
    file.extend_from_slice(&(1_u32 << 20).to_le_bytes());
    file.extend_from_slice(&1_u64.to_le_bytes());
    file.extend_from_slice(&base.to_le_bytes());
    file.extend_from_slice(&[0; 4]);
    file.extend_from_slice(&crc32c::crc32c(&file).to_le_bytes());
    for (header, payload) in &records {
        let mut frame = vec![0xf7, b'T', b'L', 0xa9];
        frame.extend_from_slice(&1_u32.to_le_bytes());
        frame.extend_from_slice(&length(header).to_le_bytes());
        frame.extend_from_slice(&length(payload).to_le_bytes());
        frame.extend_from_slice(&(base + file.len() as u64).to_le_bytes());
        let body = [&header[..], &payload[..]].concat();
        frame.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        frame.extend_from_slice(&crc32c::crc32c(&frame).to_le_bytes());
        file.extend_from_slice(&frame);
        file.extend_from_slice(&body);
    }
    let intact = damages.is_empty();
    for (offset, mask) in damages {
        let at = offset.min(file.len());
        match file.get_mut(at) {
            Some(byte) if mask != 0 => *byte ^= mask,
            _ => file.truncate(at),
        }
    }
    (file, intact)
}

fn length(part: &[u8]) -> u32 {
    u32::try_from(part.len()).expect("an input is short")
}

/// A folder in memory where the system has one, emptied for each input.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder = root.join(format!("tracelake-fuzz-{}", std::process::id()));
        std::fs::remove_dir_all(&folder).ok();
        std::fs::create_dir_all(&folder).expect("a temporary folder can be made");
        Self(folder)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}
