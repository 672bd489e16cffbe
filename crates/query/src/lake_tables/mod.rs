//! Tables of the lake room as sources of queries, with the rows that are on their way into them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use object_store::path::Path;
use tracelake_lake::{
    DataFolder, Lake, Preview, Table, TableLocation as FolderOfTable, TableSnapshot,
};
use tracelake_model::TableName;
use tracelake_model::schema::traces_schema;

use crate::source::{
    CreatedAtBounds, LiveFile, PendingRows, PendingSource, SourceError, TableLocation,
    TableResolver, TableSource,
};

/// Finds the tables below a data folder, or one table anywhere, each at its newest version when
/// asked.
#[derive(Clone, Debug)]
pub struct LakeTables {
    lake: Lake,
    places: Places,
    pending: Option<Arc<dyn PendingSource>>,
}

/// Where the tables are.
#[derive(Clone, Debug)]
enum Places {
    Folder(DataFolder),
    Single(TableName, FolderOfTable),
}

impl Places {
    fn names(&self) -> std::io::Result<Vec<TableName>> {
        match self {
            Self::Folder(folder) => folder.tables(),
            Self::Single(name, _) => Ok(vec![name.clone()]),
        }
    }

    fn of(&self, name: &TableName) -> FolderOfTable {
        match self {
            Self::Folder(folder) => folder.table(name),
            Self::Single(_, place) => place.clone(),
        }
    }
}

impl LakeTables {
    /// The tables of `folder`.
    #[must_use]
    pub const fn new(lake: Lake, folder: DataFolder) -> Self {
        Self { lake, places: Places::Folder(folder), pending: None }
    }

    /// The one table at `place`, under `name`.
    #[must_use]
    pub const fn single(lake: Lake, name: TableName, place: FolderOfTable) -> Self {
        Self { lake, places: Places::Single(name, place), pending: None }
    }

    /// The same tables and what `source` knows to be on its way into them.
    ///
    /// A table with pending rows is read at their version, so that a commit in the meantime
    /// neither hides a row nor shows it twice. A table that has nothing but pending rows is found
    /// as well.
    #[must_use]
    pub fn with_pending(self, source: Arc<dyn PendingSource>) -> Self {
        Self { pending: Some(source), ..self }
    }

    fn open(
        &self,
        wanted: &TableName,
        pending: Option<PendingRows>,
    ) -> Result<Option<LakeTable>, SourceError> {
        let written = wanted.to_string();
        let found = self
            .places
            .names()?
            .into_iter()
            .find(|table| table.to_string().eq_ignore_ascii_case(&written));
        let Some(found) = found else {
            let Some(pending) = pending else { return Ok(None) };
            let table = Table::at(&self.lake, self.places.of(wanted))?;
            return Ok(Some(LakeTable { table, snapshot: None, schema: traces_schema(), pending }));
        };
        let table = Table::at(&self.lake, self.places.of(&found))?;
        let snapshot = match &pending {
            Some(pending) => table.snapshot_at(pending.version)?,
            None => table.snapshot(None)?,
        };
        // A table of another writer, or of an earlier version, lacks columns of tracelake's: they are there
        // as nulls, as in such rows. A single table need not hold traces.
        let schema = snapshot.schema_of_traces().or_else(|_| snapshot.schema())?;
        let pending = pending.unwrap_or_default();
        Ok(Some(LakeTable { table, snapshot: Some(snapshot), schema, pending }))
    }
}

#[async_trait]
impl TableResolver for LakeTables {
    async fn resolve(&self, name: &TableName) -> Result<Option<Arc<dyn TableSource>>, SourceError> {
        // Before the table: what is committed after this answer is in the answer, and what was
        // committed before it is in the version that is opened next.
        let pending = match &self.pending {
            Some(source) => source.pending(name).await?,
            None => None,
        };
        let (tables, wanted) = (self.clone(), name.clone());
        let opened = tokio::task::spawn_blocking(move || tables.open(&wanted, pending)).await??;
        Ok(opened.map(|table| Arc::new(table) as Arc<dyn TableSource>))
    }

    fn names(&self) -> Vec<TableName> {
        // A folder that cannot be listed has no names to hint at; `resolve` reports the fault.
        self.places.names().unwrap_or_default()
    }
}

impl From<Preview> for PendingRows {
    fn from(preview: Preview) -> Self {
        let replaced = preview.replaced.into_iter();
        Self {
            version: preview.version,
            batches: vec![preview.rows],
            hidden_rows: replaced.map(|(path, rows)| (path, rows.into_iter().collect())).collect(),
        }
    }
}

/// One table at one version.
#[derive(Debug)]
struct LakeTable {
    table: Table,
    /// None while there are only pending rows.
    snapshot: Option<TableSnapshot>,
    schema: SchemaRef,
    pending: PendingRows,
}

impl TableSource for LakeTable {
    fn version(&self) -> u64 {
        self.snapshot.as_ref().map_or(self.pending.version, TableSnapshot::version)
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn location(&self) -> TableLocation {
        let root = Path::from_url_path(self.table.url().path()).unwrap_or_default();
        TableLocation { store: self.table.object_store(), root }
    }

    fn live_files(&self, bounds: CreatedAtBounds) -> Result<Vec<LiveFile>, SourceError> {
        let Some(snapshot) = &self.snapshot else { return Ok(Vec::new()) };
        let files = snapshot.live_files((bounds.from_micros, bounds.to_micros))?;
        files
            .into_iter()
            .map(|file| {
                let deleted = snapshot.deleted_rows(&file)?;
                Ok(LiveFile {
                    deleted_rows: with_hidden(deleted, &file.path, &self.pending.hidden_rows),
                    path: file.path,
                    size_bytes: file.size_bytes,
                    record_count: file.record_count,
                })
            })
            .collect()
    }

    fn pending(&self) -> &[RecordBatch] {
        &self.pending.batches
    }
}

/// The rows of a file that are not to be seen, ascending, each once.
fn with_hidden(
    mut deleted: Vec<u64>,
    path: &str,
    hidden_rows: &BTreeMap<String, Vec<u64>>,
) -> Vec<u64> {
    if let Some(hidden) = hidden_rows.get(path) {
        deleted.extend_from_slice(hidden);
        deleted.sort_unstable();
        deleted.dedup();
    }
    deleted
}

#[cfg(test)]
mod tests;
