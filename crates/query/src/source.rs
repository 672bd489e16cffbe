//! What this room needs to know of a table: its schema, where its files lie, which are live.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use object_store::ObjectStore;
use object_store::path::Path;
use tracelake_model::TableName;

/// Why a table could not be opened or its files not be listed. The message of the cause, in full.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// One live data file of a table version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveFile {
    /// Object path relative to the table root, percent-decoded.
    pub path: String,
    /// Size of the object in bytes.
    pub size_bytes: u64,
    /// Rows in the file, deleted ones included, if the log says so.
    pub record_count: Option<u64>,
    /// Row indexes that a deletion vector removes, ascending, without duplicates.
    pub deleted_rows: Vec<u64>,
}

/// Rows that are on their way into a table: acknowledged, not committed yet.
///
/// With the version that they belong to they make one consistent view: each trace is in it once.
#[derive(Clone, Debug, Default)]
pub struct PendingRows {
    /// The table version that lacks these rows; read together with no other. 0 if there is no
    /// table yet: the version that creates one holds no rows.
    pub version: u64,
    /// Whole rows. Columns and nested fields are matched with the table's by name: what is
    /// missing reads as null, what the table does not have is left out.
    pub batches: Vec<RecordBatch>,
    /// Rows of the version that pending rows replace: ascending row indexes by data file, as
    /// [`LiveFile::path`] names it.
    pub hidden_rows: BTreeMap<String, Vec<u64>>,
}

/// Knows the rows that are on their way into tables.
#[async_trait]
pub trait PendingSource: Debug + Send + Sync {
    /// The pending rows of `table` as of now, or `None` if there are none. Every row that was
    /// acknowledged before the call must be in the answer or in the answer's version; without an
    /// answer, in the table. Names are to be compared without regard to case.
    ///
    /// # Errors
    /// If the rows cannot be told; the query then fails, rather than leave rows out.
    async fn pending(&self, table: &TableName) -> Result<Option<PendingRows>, SourceError>;
}

/// Inclusive bounds on `created_at` in microseconds since the epoch; `None` is unbounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CreatedAtBounds {
    /// Rows before this are not wanted.
    pub from_micros: Option<i64>,
    /// Rows after this are not wanted.
    pub to_micros: Option<i64>,
}

/// Where a table's files lie.
#[derive(Clone, Debug)]
pub struct TableLocation {
    /// The store that holds the table.
    pub store: Arc<dyn ObjectStore>,
    /// The table root inside the store.
    pub root: Path,
}

/// An immutable view of one table at one version.
pub trait TableSource: Debug + Send + Sync {
    /// The version that this view shows.
    fn version(&self) -> u64;

    /// The table's whole schema. List children are named `element`.
    fn schema(&self) -> SchemaRef;

    /// Where the files lie.
    fn location(&self) -> TableLocation;

    /// The live files, in any order. With bounds, files that cannot hold a row inside them may
    /// be left out; a file that might must not be.
    ///
    /// # Errors
    /// If the table's log cannot be read.
    fn live_files(&self, bounds: CreatedAtBounds) -> Result<Vec<LiveFile>, SourceError>;

    /// Rows of this view that are in no file. The rows that they replace are among the
    /// [`LiveFile::deleted_rows`] already.
    fn pending(&self) -> &[RecordBatch] {
        &[]
    }
}

/// Finds tables by name.
#[async_trait]
pub trait TableResolver: Debug + Send + Sync {
    /// The newest version of `name`, or `None` if there is no such table. Unquoted SQL names
    /// arrive in lower case, so names are to be compared without regard to case.
    ///
    /// # Errors
    /// If the table is there but cannot be opened.
    async fn resolve(&self, name: &TableName) -> Result<Option<Arc<dyn TableSource>>, SourceError>;

    /// Every table that [`Self::resolve`] would find, for listings and hints.
    fn names(&self) -> Vec<TableName>;
}
