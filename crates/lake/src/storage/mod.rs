//! The files of a table, wherever they lie: in a folder ([`LocalFiles`]) or in an object store
//! ([`ObjectFiles`]).
//!
//! What commits rely on, and all that they rely on: of several writers of one name one wins, and
//! what was written is whole and stays.

mod local;
mod objects;

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, Read, Write};

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

pub(crate) use local::LocalFiles;
pub(crate) use objects::ObjectFiles;

use crate::error::LakeError;

/// Whether a file was written or its name was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    /// The file is durable under its name.
    Written,
    /// A file of that name was there; it was not touched.
    Exists,
}

/// Writes the bytes of a file.
pub type Fill<'a> = dyn FnMut(&mut (dyn Write + Send)) -> io::Result<()> + 'a;

/// The files of one table. Paths are relative to its root.
pub trait TableFiles: Debug + Send + Sync {
    /// Makes the place of a table that is to be.
    ///
    /// # Errors
    /// [`LakeError::Storage`], or [`LakeError::NotMounted`].
    fn create(&self) -> Result<(), LakeError>;

    /// Writes `bytes` to `path` unless it exists; durable when this returns. After an error it may
    /// be written all the same, also later, and be there without being durable.
    ///
    /// # Errors
    /// [`LakeError::Storage`], or [`LakeError::NotMounted`].
    fn put_if_absent(&self, path: &str, bytes: &[u8]) -> Result<PutOutcome, LakeError>;

    /// As [`Self::put_if_absent`] with the bytes that `fill` writes, for large files. After an error
    /// of `fill` there is no such file.
    ///
    /// # Errors
    /// [`LakeError::Storage`], also when `fill` fails, or [`LakeError::NotMounted`].
    fn put_stream(&self, path: &str, fill: &mut Fill<'_>) -> Result<PutOutcome, LakeError>;

    /// Writes what `fill` writes to `path` in the place of what is there: whoever looks sees the
    /// one or the other, whole. Durable when this returns.
    ///
    /// # Errors
    /// [`LakeError::Storage`], also when `fill` fails, or [`LakeError::NotMounted`].
    fn replace(&self, path: &str, fill: &mut Fill<'_>) -> Result<(), LakeError>;

    /// Gives a file another name in its folder; durable when this returns.
    ///
    /// # Errors
    /// [`LakeError::Storage`], or [`LakeError::NotMounted`].
    fn rename(&self, from: &str, to: &str) -> Result<(), LakeError>;

    /// True when whatever is seen in the store is durable, as in an object store; then nothing needs
    /// a sync.
    fn shows_only_durable(&self) -> bool;

    /// Makes the names durable that the log's folder has, and those that it no longer has.
    ///
    /// # Errors
    /// [`LakeError::Storage`] when the folder cannot be synced: what was seen in it may be gone after
    /// a power cut. [`LakeError::NotMounted`].
    fn sync_log(&self) -> Result<(), LakeError>;

    /// Makes the table's folders durable, each in its parent, from the folder of all tables on; so too
    /// that they are not there.
    ///
    /// # Errors
    /// As [`Self::sync_log`].
    fn sync_folders(&self) -> Result<(), LakeError>;

    /// Makes files durable that others may have written without a sync, by content and name. One that
    /// is not there is passed over.
    ///
    /// # Errors
    /// As [`Self::sync_log`].
    fn sync_files(&self, paths: &[String]) -> Result<(), LakeError>;

    /// Visits the names in the log's folder, in no order; none when it is not there.
    ///
    /// # Errors
    /// [`LakeError::Storage`], or [`LakeError::NotMounted`].
    fn list_log(&self, visit: &mut dyn FnMut(&str)) -> Result<(), LakeError>;

    /// Opens a file for reading.
    ///
    /// # Errors
    /// [`LakeError::Storage`], or [`LakeError::NotMounted`].
    fn open(&self, path: &str) -> Result<OpenedFile, LakeError>;

    /// True when the table has a version.
    ///
    /// # Errors
    /// [`LakeError::Storage`], or [`LakeError::NotMounted`].
    fn has_log(&self) -> Result<bool, LakeError>;
}

/// A file of a table, open for reading at any place.
#[derive(Debug)]
pub enum OpenedFile {
    /// A file of the operating system.
    Local(File),
    /// An object that was fetched whole.
    Fetched(Bytes),
}

impl Length for OpenedFile {
    fn len(&self) -> u64 {
        match self {
            Self::Local(file) => Length::len(file),
            Self::Fetched(bytes) => Length::len(bytes),
        }
    }
}

impl ChunkReader for OpenedFile {
    type T = Box<dyn Read>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(match self {
            Self::Local(file) => Box::new(file.get_read(start)?),
            Self::Fetched(bytes) => Box::new(bytes.get_read(start)?),
        })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        match self {
            Self::Local(file) => file.get_bytes(start, length),
            Self::Fetched(bytes) => bytes.get_bytes(start, length),
        }
    }
}
