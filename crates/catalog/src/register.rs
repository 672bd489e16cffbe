//! Registering a table: catalog, schema and table are there afterwards, as they should be.

use std::collections::BTreeMap;

use tracelake_model::TableName;

use crate::calls::UnityCatalog;
use crate::columns::Column;
use crate::error::{CatalogError, CatalogErrorKind};
use crate::names::{check_location, same_location, stored_location};
use crate::wire::{CreateCatalog, CreateSchema, CreateTable, TableInfo};

/// A Delta table as it should stand in a catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSpec {
    /// Its name.
    pub name: TableName,
    /// URL of its folder.
    pub location: String,
    /// The table's comment.
    pub comment: Option<String>,
    /// Its columns, in order.
    pub columns: Vec<Column>,
    /// Table properties, such as `delta.enableChangeDataFeed`.
    pub properties: BTreeMap<String, String>,
}

impl TableSpec {
    /// The call that enters the table.
    ///
    /// # Errors
    /// [`CatalogError::Invalid`] for a location that no catalog would take.
    pub fn to_create(&self) -> Result<CreateTable, CatalogError> {
        check_location("storage_location", &self.location)?;
        let columns = (0..).zip(&self.columns).map(|(position, column)| column.to_info(position));
        Ok(CreateTable {
            name: self.name.table().to_owned(),
            catalog_name: self.name.catalog().to_owned(),
            schema_name: self.name.schema().to_owned(),
            table_type: "EXTERNAL".to_owned(),
            data_source_format: Some("DELTA".to_owned()),
            columns: columns.collect(),
            storage_location: Some(stored_location(&self.location).to_owned()),
            comment: self.comment.clone(),
            properties: (!self.properties.is_empty()).then(|| self.properties.clone()),
        })
    }
}

impl TableInfo {
    /// The call that enters the same table at another place.
    #[must_use]
    pub fn at(&self, name: &TableName, location: &str) -> CreateTable {
        CreateTable {
            name: name.table().to_owned(),
            catalog_name: name.catalog().to_owned(),
            schema_name: name.schema().to_owned(),
            table_type: self.table_type.clone().unwrap_or_else(|| "EXTERNAL".to_owned()),
            data_source_format: self.data_source_format.clone(),
            columns: self.columns.clone().unwrap_or_default(),
            storage_location: Some(stored_location(location).to_owned()),
            comment: self.comment.clone(),
            properties: self.properties.clone(),
        }
    }
}

/// What registering a table did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// It was not there.
    Created,
    /// It was there, with other columns, comments or properties.
    Replaced,
    /// It was there as it should be.
    Unchanged,
}

/// Makes sure that the table stands in the catalog, and its catalog and schema before it. May be
/// repeated, also by several processes at once.
///
/// # Errors
/// [`CatalogError::OtherLocation`] when the name is registered for another place; nothing is
/// changed then. Otherwise what keeps the catalog from answering.
pub async fn ensure_table(
    catalog: &dyn UnityCatalog,
    spec: &TableSpec,
) -> Result<Registration, CatalogError> {
    let wanted = spec.to_create()?;
    ensure_schema(catalog, &spec.name).await?;
    // The second look is for the entry of another process that was faster.
    for _ in 0..2 {
        let found = none_if_missing(catalog.table(&spec.name).await)?;
        let outcome = match plan_registration(found.as_ref(), &wanted, &spec.name)? {
            Registration::Unchanged => return Ok(Registration::Unchanged),
            Registration::Created => {
                catalog.create_table(&wanted).await.map(|_| Registration::Created)
            }
            Registration::Replaced => {
                catalog.replace_table(&spec.name, &wanted).await.map(|_| Registration::Replaced)
            }
        };
        match outcome {
            Err(error) if error.kind() == CatalogErrorKind::AlreadyExists => {}
            other => return other,
        }
    }
    Err(CatalogError::already_exists(crate::error::Securable::Table, spec.name.to_string()))
}

async fn ensure_schema(catalog: &dyn UnityCatalog, name: &TableName) -> Result<(), CatalogError> {
    if none_if_missing(catalog.schema(name.catalog(), name.schema()).await)?.is_some() {
        return Ok(());
    }
    if none_if_missing(catalog.catalog(name.catalog()).await)?.is_none() {
        let new = CreateCatalog { name: name.catalog().to_owned(), ..Default::default() };
        there_is_fine(catalog.create_catalog(&new).await)?;
    }
    let new = CreateSchema {
        name: name.schema().to_owned(),
        catalog_name: name.catalog().to_owned(),
        ..Default::default()
    };
    there_is_fine(catalog.create_schema(&new).await)
}

fn none_if_missing<T>(answer: Result<T, CatalogError>) -> Result<Option<T>, CatalogError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == CatalogErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn there_is_fine<T>(answer: Result<T, CatalogError>) -> Result<(), CatalogError> {
    match answer {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == CatalogErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Decides what is to be done, from what the catalog has.
fn plan_registration(
    found: Option<&TableInfo>,
    wanted: &CreateTable,
    name: &TableName,
) -> Result<Registration, CatalogError> {
    let Some(found) = found else { return Ok(Registration::Created) };
    let place = found.storage_location.as_deref().unwrap_or_default();
    let wanted_place = wanted.storage_location.as_deref().unwrap_or_default();
    if !same_location(place, wanted_place) {
        return Err(CatalogError::OtherLocation {
            table: name.to_string(),
            found: tracelake_model::names::printable(place),
            wanted: wanted_place.to_owned(),
        });
    }
    let same = found.columns.as_deref().unwrap_or_default() == wanted.columns
        && found.comment == wanted.comment
        && found.properties.clone().unwrap_or_default()
            == wanted.properties.clone().unwrap_or_default()
        && found.table_type.as_deref() == Some(&wanted.table_type)
        && found.data_source_format == wanted.data_source_format;
    Ok(if same { Registration::Unchanged } else { Registration::Replaced })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::ColumnType;

    fn spec() -> TableSpec {
        let column = |name: &str| Column {
            name: name.to_owned(),
            data_type: ColumnType::String,
            nullable: true,
            comment: None,
        };
        TableSpec {
            name: "a.b.c".parse().unwrap(),
            location: "file:///data/a/b/c/".to_owned(),
            comment: Some("words".to_owned()),
            columns: vec![column("x"), column("y")],
            properties: BTreeMap::new(),
        }
    }

    fn found() -> TableInfo {
        let wanted = spec().to_create().unwrap();
        TableInfo {
            table_type: Some(wanted.table_type),
            data_source_format: wanted.data_source_format,
            columns: Some(wanted.columns),
            storage_location: Some("file:///data/a/b/c".to_owned()),
            comment: wanted.comment,
            properties: Some(BTreeMap::new()),
            ..Default::default()
        }
    }

    /// Scenario: no entry, the same entry, one with a column less, one for another place.
    /// Guarantees: created, left alone, replaced, refused.
    #[test]
    fn plans_from_what_is_there() {
        let name = spec().name;
        let wanted = spec().to_create().unwrap();
        let plan = |found: Option<&TableInfo>| plan_registration(found, &wanted, &name);
        assert_eq!(plan(None).unwrap(), Registration::Created);
        assert_eq!(plan(Some(&found())).unwrap(), Registration::Unchanged);
        let mut older = found();
        older.columns.as_mut().unwrap().pop();
        assert_eq!(plan(Some(&older)).unwrap(), Registration::Replaced);
        let elsewhere = TableInfo { storage_location: Some("file:///other".to_owned()), ..found() };
        assert_eq!(plan(Some(&elsewhere)).unwrap_err().kind(), CatalogErrorKind::Precondition);
    }
}
