//! The statements behind the ready-made questions, for those who run or read them elsewhere.

use tracelake_model::TableName;
use tracelake_query::analyses::{Question, SparkTable, TimeRange};

use super::place::TableRef;
use crate::fault::{Fault, FaultKind};
use crate::settings::{Overrides, Settings};

/// The Spark SQL of a question. The table is one of the session's catalog, a view, or a path.
///
/// # Errors
/// [`FaultKind::InvalidParameterValue`] for a folder whose path is no text.
pub fn spark_sql(
    question: Question,
    table: Option<&TableRef>,
    range: TimeRange,
    limit: Option<u64>,
) -> Result<String, Fault> {
    let table = match table {
        Some(TableRef::Name(name)) => SparkTable::Named(name.clone()),
        Some(TableRef::Folder(path)) => {
            let path = std::path::absolute(path).map_err(anyhow::Error::new)?;
            let text = path.to_str().ok_or_else(|| {
                let message = format!("the path of table `{}` is no text", path.display());
                Fault::new(FaultKind::InvalidParameterValue, message)
            })?;
            SparkTable::Path(text.to_owned())
        }
        None => SparkTable::Named(default_table()?),
    };
    Ok(question.spark(&table, range, limit).sql)
}

/// The SQL of a question as `tracelake sql` understands it.
///
/// # Errors
/// When the settings cannot be read that name the default table.
pub fn local_sql(
    question: Question,
    table: Option<&TableRef>,
    range: TimeRange,
    limit: Option<u64>,
) -> Result<String, Fault> {
    let table = match table {
        Some(TableRef::Name(name)) => name.clone(),
        // A table's folder is the default table of its own engine.
        Some(TableRef::Folder(_)) | None => default_table()?,
    };
    Ok(question.analysis(&table, range, limit).sql)
}

fn default_table() -> Result<TableName, Fault> {
    Ok(Settings::load(None, Overrides::default())?.default_table)
}
