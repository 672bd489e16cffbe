//! The table's entry in the Unity Catalog.

use tracelake_catalog::{
    CatalogErrorKind, ColumnInfo, CreateTable, TableInfo, UnityCatalog as _, same_location,
};
use tracelake_lake::TableSnapshot;
use tracelake_model::TableName;
use tracelake_model::names::printable;

use super::{Checker, Finding, Line};
use crate::folder::catalog::table_spec;

/// The entry, if there is one.
pub(super) struct Entry {
    pub finding: Finding,
    pub info: Option<TableInfo>,
}

impl Checker<'_> {
    pub(super) async fn entry(&self) -> Entry {
        let name = &self.request.table;
        let failed = |found: String| Entry {
            finding: Finding::failed(
                found,
                format!("`tracelake setup {name} --experiment NAME` enters it"),
            ),
            info: None,
        };
        let catalog = match &self.catalog {
            Ok(Some(catalog)) => catalog,
            Ok(None) => return failed("this data folder has no catalog".to_owned()),
            Err(reason) => {
                let hint = "bring `catalog.db` back from a backup, or move it away: it is filled \
                            anew at the next start of the service";
                return Entry { finding: Finding::failed(reason.clone(), hint), info: None };
            }
        };
        match catalog.table(name).await {
            Ok(info) => {
                let kind = info.table_type.as_deref().unwrap_or("table");
                let format = info.data_source_format.as_deref().unwrap_or("DELTA");
                let finding = Finding::ok(format!("{name}, {kind}, {format}"));
                Entry { finding, info: Some(info) }
            }
            Err(error) if error.kind() == CatalogErrorKind::NotFound => {
                failed(format!("`{name}` is not in the catalog"))
            }
            Err(error) => Entry {
                finding: Finding::failed(
                    error.to_string(),
                    "look at the catalog's file `catalog.db`",
                ),
                info: None,
            },
        }
    }
}

/// Whether the entry says what the table's log says. Where `broken`, the table itself is at fault,
/// only the location can be judged.
pub(super) fn compare(
    info: &TableInfo,
    name: &TableName,
    snapshot: &TableSnapshot,
    broken: Option<&Line>,
) -> Finding {
    let wanted = match table_spec(name, snapshot).map(|spec| spec.to_create()) {
        Ok(Ok(wanted)) => wanted,
        Ok(Err(error)) => {
            return Finding::failed(error.to_string(), "choose another place for the data folder");
        }
        Err(error) => match broken {
            Some(line) => return Finding::skipped(format!("not judged: see `{}`", line.item)),
            None => return Finding::failed(format!("{error:#}"), "choose another table"),
        },
    };
    let place = info.storage_location.as_deref().unwrap_or_default();
    let wanted_place = wanted.storage_location.as_deref().unwrap_or_default();
    if !same_location(place, wanted_place) {
        return Finding::failed(
            format!("the catalog has `{}`, the table is at `{wanted_place}`", printable(place)),
            format!(
                "delete that entry (DELETE /api/2.1/unity-catalog/tables/{name}) and repeat \
                 `tracelake setup {name} --experiment NAME`"
            ),
        );
    }
    if let Some(line) = broken {
        return Finding::skipped(format!(
            "same location; the rest not judged: see `{}`",
            line.item
        ));
    }
    match difference(info, &wanted) {
        Some(difference) => Finding::failed(
            difference,
            format!("`tracelake setup {name} --experiment NAME` brings the entry up to date"),
        ),
        None => Finding::ok(format!(
            "same location, {} columns, comments, properties",
            wanted.columns.len()
        )),
    }
}

/// The first thing that differs.
fn difference(info: &TableInfo, wanted: &CreateTable) -> Option<String> {
    let found = info.columns.as_deref().unwrap_or_default();
    if let Some(column) = column_difference(found, &wanted.columns) {
        return Some(column);
    }
    if info.comment != wanted.comment {
        return Some("the catalog has another table comment".to_owned());
    }
    let properties =
        |of: &Option<std::collections::BTreeMap<String, String>>| of.clone().unwrap_or_default();
    if properties(&info.properties) != properties(&wanted.properties) {
        return Some("the catalog has other table properties".to_owned());
    }
    let same_kind = info.table_type.as_deref() == Some(wanted.table_type.as_str())
        && info.data_source_format == wanted.data_source_format;
    (!same_kind).then(|| "the catalog has another kind of table".to_owned())
}

fn column_difference(found: &[ColumnInfo], wanted: &[ColumnInfo]) -> Option<String> {
    for (index, column) in wanted.iter().enumerate() {
        let name = column.name.as_deref().unwrap_or_default();
        let Some(entry) = found.get(index) else {
            return Some(format!("the catalog lacks column `{}`", printable(name)));
        };
        if entry != column {
            return Some(format!("the catalog has another column `{}`", printable(name)));
        }
    }
    let extra = found.get(wanted.len())?;
    let name = extra.name.as_deref().unwrap_or_default();
    Some(format!("the catalog has a column `{}` that the table lacks", printable(name)))
}
