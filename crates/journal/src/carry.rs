//! Writes carry files: what is left of sealed segments when they are deleted.

use std::io::{self, BufWriter, IoSlice, Write};

use crate::error::JournalError;
use crate::fs::JournalFile;
use crate::segment::{
    FILE_HEADER_LEN, FOOTER_BODY_LEN, FRAME_LEN, FileHeader, FileKind, Footer, RecordBytes,
    SegmentNumber, frame_record, len_u64,
};
use crate::writer::Folder;

/// How much is gathered before it is written.
const BUFFER_BYTES: usize = 256 << 10;

/// A journal file as the standard library's writer.
struct Appender<'a>(&'a mut dyn JournalFile);

impl Write for Appender<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_vectored(&[IoSlice::new(bytes)])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes the carry file of `number`, durably and all at once, and replaces an older one.
pub(crate) fn write_carry(
    folder: &Folder,
    number: SegmentNumber,
    base_sequence: u64,
    records: &mut dyn Iterator<Item = RecordBytes>,
) -> Result<(), JournalError> {
    let temporary = FileKind::Carry.temporary_path(&folder.dir, number);
    let path = FileKind::Carry.path(&folder.dir, number);
    let fail = |action, error| JournalError::io(action, &temporary, error);
    match folder.fs.remove(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(fail("remove", error));
        }
        _ => {}
    }
    let header = FileHeader {
        kind: FileKind::Carry,
        number,
        base_sequence,
        max_body_bytes: u32::MAX,
        is_reused: false,
        predecessor: None,
    };
    let written = folder
        .fs
        .create(&temporary)
        .map_err(|error| fail("create", error))
        .and_then(|mut file| write_file(file.as_mut(), &header, records, &fail))
        .and_then(|len| {
            let replaced = folder.fs.len(&path).unwrap_or(0);
            folder.fs.rename(&temporary, &path).map_err(|error| fail("rename", error))?;
            folder.capacity.grow_disk(len);
            folder.capacity.shrink_disk(replaced);
            Ok(())
        });
    if let Err(error) = written {
        if let Err(kept) = folder.fs.remove(&temporary) {
            tracing::debug!(path = %temporary.display(), error = %kept, "carry not removed");
        }
        return Err(error);
    }
    let synced = folder.fs.sync_dir(&folder.dir);
    synced.map_err(|error| JournalError::io("sync", &folder.dir, error))
}

/// Returns the length of the file, which is durable then.
fn write_file(
    file: &mut dyn JournalFile,
    header: &FileHeader,
    records: &mut dyn Iterator<Item = RecordBytes>,
    fail: &dyn Fn(&'static str, io::Error) -> JournalError,
) -> Result<u64, JournalError> {
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, Appender(file));
    let write = |out: &mut BufWriter<Appender<'_>>, bytes: &[u8]| {
        out.write_all(bytes).map_err(|error| fail("write", error))
    };
    write(&mut out, &header.encode())?;
    let mut len = len_u64(FILE_HEADER_LEN);
    let mut footer = Footer { records: 0, body_bytes: 0 };
    for record in records {
        let sequence = header.base_sequence.saturating_add(len);
        let too_large = u64::from(u32::MAX) < record.body_len();
        let frame = frame_record(&record, record.body_crc(), sequence).filter(|_| !too_large);
        let Some(frame) = frame else {
            let (bytes, limit) = (record.body_len(), u64::from(u32::MAX));
            return Err(JournalError::RecordTooLarge { bytes, limit });
        };
        write(&mut out, &frame.encode())?;
        write(&mut out, &record.header)?;
        write(&mut out, &record.payload)?;
        len = len.saturating_add(record.stored_len());
        footer.records += 1;
        footer.body_bytes = footer.body_bytes.saturating_add(record.body_len());
    }
    write(&mut out, &footer.encode(header.base_sequence.saturating_add(len)))?;
    out.flush().map_err(|error| fail("write", error))?;
    drop(out);
    file.sync_data().map_err(|error| fail("sync", error))?;
    file.leave_memory();
    Ok(len.saturating_add(len_u64(FRAME_LEN + FOOTER_BODY_LEN)))
}
