//! Tables of the lake room as sources of queries.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use object_store::path::Path;
use tracelake_lake::{DataFolder, Lake, Table, TableSnapshot};
use tracelake_model::TableName;

use crate::source::{
    CreatedAtBounds, LiveFile, SourceError, TableLocation, TableResolver, TableSource,
};

/// Finds the tables below a data folder, each at its newest version when asked.
#[derive(Clone, Debug)]
pub struct LakeTables {
    lake: Lake,
    folder: DataFolder,
}

impl LakeTables {
    /// The tables of `folder`.
    #[must_use]
    pub const fn new(lake: Lake, folder: DataFolder) -> Self {
        Self { lake, folder }
    }
}

#[async_trait]
impl TableResolver for LakeTables {
    async fn resolve(&self, name: &TableName) -> Result<Option<Arc<dyn TableSource>>, SourceError> {
        let tables = self.clone();
        let wanted = name.to_string();
        tokio::task::spawn_blocking(move || {
            let found = tables.folder.tables()?.into_iter().find(|table| {
                table.to_string().eq_ignore_ascii_case(&wanted)
            });
            let Some(found) = found else { return Ok(None) };
            let table = Table::at(&tables.lake, tables.folder.table(&found))?;
            let snapshot = table.snapshot(None)?;
            let source = LakeTable { schema: snapshot.schema()?, snapshot };
            Ok(Some(Arc::new(source) as Arc<dyn TableSource>))
        })
        .await?
    }

    fn names(&self) -> Vec<TableName> {
        // A folder that cannot be listed has no names to hint at; `resolve` reports the fault.
        self.folder.tables().unwrap_or_default()
    }
}

/// One table at one version.
#[derive(Debug)]
struct LakeTable {
    snapshot: TableSnapshot,
    schema: SchemaRef,
}

impl TableSource for LakeTable {
    fn version(&self) -> u64 {
        self.snapshot.version()
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn location(&self) -> TableLocation {
        let table = self.snapshot.table();
        let root = Path::from_url_path(table.url().path()).unwrap_or_default();
        TableLocation { store: table.object_store(), root }
    }

    fn live_files(&self, bounds: CreatedAtBounds) -> Result<Vec<LiveFile>, SourceError> {
        let files = self.snapshot.live_files((bounds.from_micros, bounds.to_micros))?;
        files
            .into_iter()
            .map(|file| {
                Ok(LiveFile {
                    deleted_rows: self.snapshot.deleted_rows(&file)?,
                    path: file.path,
                    size_bytes: file.size_bytes,
                    record_count: file.record_count,
                })
            })
            .collect()
    }
}
