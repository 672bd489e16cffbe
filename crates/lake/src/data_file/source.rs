//! A data file as it is read: a store that fails is told from a file that is damaged.
//!
//! What fails below the decoder comes out of it as text, like a page that cannot be decoded. So it is noted where
//! it happens.

use std::io::{self, Read};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

use crate::storage::OpenedFile;

/// The store failed while a file was read, which says nothing of the file: read it again later.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct StoreFault(Arc<io::Error>);

/// True when the file could not be read for now.
pub(crate) fn is_of_store(fault: &ParquetError) -> bool {
    matches!(fault, ParquetError::External(source) if source.is::<StoreFault>())
}

/// The first failure of the store while a file was read.
#[derive(Clone, Debug, Default)]
pub(super) struct Noted(Arc<OnceLock<StoreFault>>);

impl Noted {
    /// What `fault` is of: of the store, where that failed meanwhile.
    pub(super) fn tell(&self, fault: impl Into<ParquetError>) -> ParquetError {
        match self.0.get() {
            Some(noted) => ParquetError::External(Box::new(noted.clone())),
            None => fault.into(),
        }
    }

    fn note(&self, fault: io::Error) -> StoreFault {
        self.0.get_or_init(|| StoreFault(Arc::new(fault))).clone()
    }

    /// Notes a failure among what opening a place of the file can end in.
    fn note_opening(&self, fault: ParquetError) -> ParquetError {
        match fault {
            ParquetError::External(source) => match source.downcast::<io::Error>() {
                Ok(source) => ParquetError::External(Box::new(self.note(*source))),
                Err(source) => ParquetError::External(source),
            },
            other => other,
        }
    }
}

/// A file that notes when its store fails.
#[derive(Debug)]
pub(super) struct Source {
    file: OpenedFile,
    noted: Noted,
}

impl Source {
    pub(super) fn new(file: OpenedFile) -> (Self, Noted) {
        let noted = Noted::default();
        (Self { file, noted: noted.clone() }, noted)
    }
}

impl Length for Source {
    fn len(&self) -> u64 {
        match &self.file {
            OpenedFile::Local(file) => match file.metadata() {
                Ok(metadata) => metadata.len(),
                Err(fault) => {
                    self.noted.note(fault);
                    0
                }
            },
            OpenedFile::Fetched(bytes) => Length::len(bytes),
        }
    }
}

impl ChunkReader for Source {
    type T = Reading;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let from = self.file.get_read(start).map_err(|fault| self.noted.note_opening(fault))?;
        Ok(Reading { from, noted: self.noted.clone() })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        self.file.get_bytes(start, length).map_err(|fault| self.noted.note_opening(fault))
    }
}

/// Bytes of a file from a place on.
pub(super) struct Reading {
    from: Box<dyn Read>,
    noted: Noted,
}

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.from.read(buffer).map_err(|fault| match fault.kind() {
            io::ErrorKind::Interrupted => fault,
            kind => io::Error::new(kind, self.noted.note(fault)),
        })
    }
}

#[cfg(test)]
mod tests {
    use arrow::error::ArrowError;

    use super::*;

    /// Scenario: a file is open and a read of it fails, at its end, at once or behind a decoder that makes text
    /// of it; another one is read, and cannot be decoded.
    /// Guarantees: the first is told as a fault of the store, the second is not.
    #[test]
    fn a_read_that_fails_is_told_from_what_cannot_be_decoded() {
        let decoder = || ArrowError::ParquetError("no page".to_owned());
        let folder = || OpenedFile::Local(std::fs::File::open("/").unwrap());
        let (source, noted) = Source::new(folder());
        assert!(!is_of_store(&noted.tell(decoder())));
        assert!(is_of_store(&source.get_bytes(0, 1).unwrap_err()));
        assert!(is_of_store(&noted.tell(decoder())));
        let (source, noted) = Source::new(folder());
        let mut reading = source.get_read(0).unwrap();
        assert!(!is_of_store(&noted.tell(decoder())));
        reading.read_exact(&mut [0]).unwrap_err();
        assert!(is_of_store(&noted.tell(decoder())));
        let (source, noted) = Source::new(OpenedFile::Fetched(Bytes::from_static(b"short")));
        source.get_bytes(0, 9).unwrap_err();
        assert!(!is_of_store(&noted.tell(decoder())));
    }
}
