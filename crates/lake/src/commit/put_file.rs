//! Rows as a file of the table, of which little is in memory at a time.

use std::io::{self, Write};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parquet::errors::ParquetError;

use super::TableWriter;
use crate::data_file::{EncodedFile, Expected, encode_batches};
use crate::error::LakeError;

impl TableWriter {
    /// Writes a file of rows of one schema.
    pub(super) fn put_parquet(
        &self,
        path: &str,
        schema: &SchemaRef,
        rows: Expected,
        batches: &mut dyn Iterator<Item = Result<RecordBatch, ParquetError>>,
    ) -> Result<EncodedFile, LakeError> {
        let mut encoded = None;
        let put = self.table.files.put_stream(path, &mut |out| {
            let mut sink = Sink { out, fault: None };
            let done = encode_batches(schema, rows, batches, &mut sink);
            if let Some(fault) = sink.fault {
                return Err(fault);
            }
            // Told below; this leaves no file.
            let is_whole = done.is_ok();
            encoded = Some(done);
            if is_whole { Ok(()) } else { Err(io::ErrorKind::Interrupted.into()) }
        });
        match encoded {
            Some(Ok(file)) => put.map(|_| file),
            Some(Err(source)) => {
                Err(LakeError::Parquet { action: "encode", path: path.to_owned(), source })
            }
            // It could not be begun, or the disk took no more.
            None => put.and(Err(LakeError::Storage {
                action: "write",
                path: path.to_owned(),
                source: io::ErrorKind::Interrupted.into(),
            })),
        }
    }
}

/// Where a file is written to. What a disk refuses is told apart from rows that cannot be encoded.
struct Sink<'a> {
    out: &'a mut (dyn Write + Send),
    fault: Option<io::Error>,
}

impl Sink<'_> {
    fn note<T>(&mut self, done: io::Result<T>) -> io::Result<T> {
        done.map_err(|fault| {
            let kind = fault.kind();
            // That is tried again.
            if kind != io::ErrorKind::Interrupted {
                self.fault.get_or_insert(fault);
            }
            kind.into()
        })
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let done = self.out.write(bytes);
        self.note(done)
    }

    fn flush(&mut self) -> io::Result<()> {
        let done = self.out.flush();
        self.note(done)
    }
}
