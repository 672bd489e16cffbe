//! The query engine over a data folder: its tables, and what a running service has yet to commit.

use std::path::Path;
use std::sync::Arc;

use tracelake_lake::Lake;
use tracelake_model::TableName;
use tracelake_query::{LakeTables, QueryEngine, QueryError, QueryLimits};

use crate::archive::data_folder;
use crate::config::{Overrides, Settings};
use crate::control::ServerFile;
use crate::uncommitted::RunningService;

/// The table named, or the one that the settings name for experiments without a binding.
pub(crate) fn default_table(named: Option<&TableName>) -> anyhow::Result<TableName> {
    match named {
        Some(table) => Ok(table.clone()),
        None => Ok(Settings::load(None, Overrides::default())?.default_table),
    }
}

pub(crate) fn engine(data_dir: &Path) -> anyhow::Result<QueryEngine> {
    let folder = data_folder(data_dir)?;
    anyhow::ensure!(
        folder.root().try_exists()?,
        "no data folder at `{}`\nhint: name it with --data-dir, or start `tracelake serve`",
        folder.root().display()
    );
    let service = ServerFile::running(&folder.server_file());
    let mut tables = LakeTables::new(Lake::new()?, folder);
    if let Some(service) = service {
        tables = tables.with_pending(Arc::new(RunningService(service)));
    }
    QueryEngine::new(Arc::new(tables), QueryLimits::default()).map_err(with_hint)
}

pub(crate) fn with_hint(error: QueryError) -> anyhow::Error {
    match error.hint() {
        Some(hint) => anyhow::anyhow!("{error}\nhint: {hint}"),
        None => anyhow::anyhow!("{error}"),
    }
}
