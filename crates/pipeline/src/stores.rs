//! What the pipeline works on.

use std::sync::Arc;

use tracelake_lake::{DataFolder, Lake, Table};
use tracelake_model::{Clock, TableName};
use tracelake_registry::Registry;

/// A data folder, its registry, the tables and the time.
#[derive(Clone, Debug)]
pub struct Stores {
    /// The data folder.
    pub folder: DataFolder,
    /// Experiments, bindings, tables, moves.
    pub registry: Arc<Registry>,
    /// The way to the tables.
    pub lake: Lake,
    /// What time it is there.
    pub clock: Arc<dyn Clock>,
}

impl Stores {
    /// Notes the table of experiments without a binding, so that their traces are found there
    /// when another table takes its place or an experiment is bound.
    ///
    /// # Errors
    /// When the registry cannot be written.
    pub async fn register_default_table(&self, name: &TableName) -> anyhow::Result<()> {
        let table = Table::at(&self.lake, self.folder.table(name))?;
        self.registry.register_table(name, table.url().as_str()).await?;
        Ok(self.registry.note_default_table(name).await?)
    }
}
