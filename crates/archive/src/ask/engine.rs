//! The query engine over a data folder: its tables, and what a running service has yet to commit.

use std::path::Path;
use std::sync::Arc;

use tracelake_lake::{DataFolder, Lake, Table, TableLocation};
use tracelake_model::TableName;
use tracelake_query::{LakeTables, QueryEngine, QueryError, QueryLimits};

use crate::ask::uncommitted::RunningService;
use crate::discovery::ServerFile;
use crate::fault::{Fault, FaultKind};
use crate::folder::{check_tables, data_folder};
use crate::settings::{Overrides, Settings};

/// The table named, or the one that the settings name for experiments without a binding.
///
/// # Errors
/// When the settings cannot be read that name it.
pub fn default_table(named: Option<&TableName>) -> anyhow::Result<TableName> {
    match named {
        Some(table) => Ok(table.clone()),
        None => Ok(Settings::load(None, Overrides::default())?.default_table),
    }
}

/// The engine with the limits of a command or service.
///
/// # Errors
/// When there is no data folder, or its tables are out of reach.
pub fn engine(data_dir: &Path) -> anyhow::Result<QueryEngine> {
    engine_with(data_dir, QueryLimits::default())
}

pub(crate) fn engine_with(data_dir: &Path, limits: QueryLimits) -> anyhow::Result<QueryEngine> {
    let folder = existing_folder(data_dir)?;
    let service = ServerFile::running(&folder.server_file());
    let mut tables = LakeTables::new(Lake::new()?, folder);
    if let Some(service) = service {
        tables = tables.with_pending(Arc::new(RunningService(service)));
    }
    QueryEngine::new(Arc::new(tables), limits).map_err(with_hint)
}

/// The data folder at a path, which must be there: a question must not make one.
///
/// # Errors
/// [`FaultKind::InvalidParameterValue`] when there is none.
pub fn existing_folder(data_dir: &Path) -> anyhow::Result<DataFolder> {
    let folder = data_folder(data_dir)?;
    if !folder.root().try_exists()? {
        let fault = Fault::new(
            FaultKind::InvalidParameterValue,
            format!("no data folder at `{}`", folder.root().display()),
        );
        return Err(fault.with_hint("name it with --data-dir, or start `tracelake serve`").into());
    }
    check_tables(&folder)?;
    Ok(folder)
}

/// The engine over one table, wherever it lies, which is called `name` in statements.
pub(crate) fn engine_of_table(
    name: &TableName,
    folder: &Path,
    limits: QueryLimits,
) -> anyhow::Result<QueryEngine> {
    let place = TableLocation::new(std::path::absolute(folder)?);
    let lake = Lake::new()?;
    if !Table::at(&lake, place.clone())?.exists()? {
        let fault =
            Fault::new(FaultKind::TableNotFound, format!("no table at `{}`", folder.display()));
        return Err(fault.with_hint("name the folder that has `_delta_log` in it").into());
    }
    let tables = LakeTables::single(lake, name.clone(), place);
    QueryEngine::new(Arc::new(tables), limits).map_err(with_hint)
}

/// The error with its hint, still of its kind.
#[must_use]
pub fn with_hint(error: QueryError) -> anyhow::Error {
    Fault::from(error).into()
}
