//! Creating and changing entries, which the library does in other ways than the official API.

use tracelake_model::TableName;
use tracelake_model::names::printable;
use unitycatalog_common::models::catalogs::v1::Catalog;
use unitycatalog_common::models::schemas::v1::Schema;
use unitycatalog_common::models::tables::v1::Table;
use unitycatalog_common::models::{ResourceIdent, ResourceName};
use unitycatalog_server::store::{ResourceStore as _, ResourceStoreReader as _};

use super::EmbeddedCatalog;
use super::convert::{Subject, catalog_ident, schema_ident, table_ident};
use crate::calls::UnityCatalog as _;
use crate::error::{CatalogError, Securable};
use crate::names::{check_location, check_name, parse_schema_name, stored_location};
use crate::wire::{
    CatalogInfo, ColumnInfo, CreateCatalog, CreateSchema, CreateTable, SchemaInfo, TableInfo,
    Update,
};

/// `ColumnTypeName`.
const COLUMN_TYPE_NAMES: [&str; 22] = [
    "BOOLEAN",
    "BYTE",
    "SHORT",
    "INT",
    "LONG",
    "FLOAT",
    "DOUBLE",
    "DATE",
    "TIMESTAMP",
    "TIMESTAMP_NTZ",
    "STRING",
    "BINARY",
    "DECIMAL",
    "INTERVAL",
    "ARRAY",
    "STRUCT",
    "MAP",
    "VARIANT",
    "CHAR",
    "NULL",
    "USER_DEFINED_TYPE",
    "TABLE_TYPE",
];

/// `DataSourceFormat`.
const FORMATS: [&str; 8] = ["DELTA", "ICEBERG", "CSV", "JSON", "AVRO", "PARQUET", "ORC", "TEXT"];

impl EmbeddedCatalog {
    pub(super) async fn new_catalog(
        &self,
        new: &CreateCatalog,
    ) -> Result<CatalogInfo, CatalogError> {
        check_name(&new.name)?;
        let id = uuid::Uuid::new_v4().to_string();
        let info = CatalogInfo {
            name: Some(new.name.clone()),
            comment: new.comment.clone(),
            properties: new.properties.clone(),
            storage_root: checked_root(new.storage_root.as_deref())?,
            storage_location: location_below(new.storage_root.as_deref(), "catalogs", &id),
            id: Some(id),
            ..Default::default()
        };
        let subject = Subject::new(Securable::Catalog, &new.name);
        let entry: Catalog = self.convert(&info)?;
        let created = self.library.create(entry.into()).await;
        let entry = created.map_err(|error| self.store_error(&subject, &error))?.0;
        self.catalog_info(&subject, entry.try_into())
    }

    pub(super) async fn new_schema(&self, new: &CreateSchema) -> Result<SchemaInfo, CatalogError> {
        check_name(&new.catalog_name)?;
        check_name(&new.name)?;
        let _change = self.changes.lock().await;
        self.catalog(&new.catalog_name).await?;
        let id = uuid::Uuid::new_v4().to_string();
        let info = SchemaInfo {
            name: Some(new.name.clone()),
            catalog_name: Some(new.catalog_name.clone()),
            comment: new.comment.clone(),
            properties: new.properties.clone(),
            storage_root: checked_root(new.storage_root.as_deref())?,
            storage_location: location_below(new.storage_root.as_deref(), "schemas", &id),
            schema_id: Some(id),
            ..Default::default()
        };
        let full_name = format!("{}.{}", new.catalog_name, new.name);
        let subject = Subject::new(Securable::Schema, full_name);
        let entry: Schema = self.convert(&info)?;
        let created = self.library.create(entry.into()).await;
        let entry = created.map_err(|error| self.store_error(&subject, &error))?.0;
        self.schema_info(&subject, entry.try_into())
    }

    pub(super) async fn new_table(&self, new: &CreateTable) -> Result<TableInfo, CatalogError> {
        let name = TableName::new(&new.catalog_name, &new.schema_name, &new.name)?;
        let info = table_info(new)?;
        let _change = self.changes.lock().await;
        self.schema(name.catalog(), name.schema()).await?;
        let subject = Subject::new(Securable::Table, name.to_string());
        let entry: Table = self.convert(&info)?;
        let created = self.library.create(entry.into()).await;
        let entry = created.map_err(|error| self.store_error(&subject, &error))?.0;
        self.table_answer(&subject, entry.try_into())
    }

    /// Puts another entry in the place of a table's; its id and time of creation stay.
    pub(super) async fn changed_table(
        &self,
        name: &TableName,
        new: &CreateTable,
    ) -> Result<TableInfo, CatalogError> {
        let mut info = table_info(new)?;
        let _change = self.changes.lock().await;
        let found = self.table(name).await?;
        info.table_id = found.table_id;
        info.owner = found.owner;
        info.created_by = found.created_by;
        info.created_at = found.created_at;
        let subject = Subject::new(Securable::Table, name.to_string());
        let entry: Table = self.convert(&info)?;
        let updated = self.library.update(&table_ident(name), entry.into()).await;
        let entry = updated.map_err(|error| self.store_error(&subject, &error))?.0;
        self.table_answer(&subject, entry.try_into())
    }

    pub(super) async fn changed_catalog(
        &self,
        name: &str,
        update: Update,
    ) -> Result<CatalogInfo, CatalogError> {
        let _change = self.changes.lock().await;
        let mut info = self.catalog(name).await?;
        let subject = Subject::new(Securable::Catalog, name);
        info.comment = update.comment.or(info.comment);
        info.properties = update.properties.or(info.properties);
        let mut ident = catalog_ident(name);
        if let Some(new_name) = update.new_name.filter(|new_name| new_name != name) {
            check_name(&new_name)?;
            if !self.schemas(name, None).await?.items.is_empty() {
                return Err(not_empty(&subject));
            }
            self.rename(&subject, &ident, &ResourceName::new([&new_name]), &new_name).await?;
            ident = catalog_ident(&new_name);
            info.name = Some(new_name);
        }
        let entry: Catalog = self.convert(&info)?;
        let updated = self.library.update(&ident, entry.into()).await;
        let entry = updated.map_err(|error| self.store_error(&subject, &error))?.0;
        self.catalog_info(&subject, entry.try_into())
    }

    pub(super) async fn changed_schema(
        &self,
        full_name: &str,
        update: Update,
    ) -> Result<SchemaInfo, CatalogError> {
        let (catalog, name) = parse_schema_name(full_name)?;
        let _change = self.changes.lock().await;
        let mut info = self.schema(&catalog, &name).await?;
        let subject = Subject::new(Securable::Schema, full_name);
        info.comment = update.comment.or(info.comment);
        info.properties = update.properties.or(info.properties);
        info.full_name = None;
        let mut ident = schema_ident(&catalog, &name);
        if let Some(new_name) = update.new_name.filter(|new_name| *new_name != name) {
            check_name(&new_name)?;
            if !self.tables(&catalog, &name, None).await?.items.is_empty() {
                return Err(not_empty(&subject));
            }
            let target = ResourceName::new([&catalog, &new_name]);
            self.rename(&subject, &ident, &target, &format!("{catalog}.{new_name}")).await?;
            ident = schema_ident(&catalog, &new_name);
            info.name = Some(new_name);
        }
        let entry: Schema = self.convert(&info)?;
        let updated = self.library.update(&ident, entry.into()).await;
        let entry = updated.map_err(|error| self.store_error(&subject, &error))?.0;
        self.schema_info(&subject, entry.try_into())
    }

    async fn rename(
        &self,
        subject: &Subject,
        ident: &ResourceIdent,
        target: &ResourceName,
        shown: &str,
    ) -> Result<(), CatalogError> {
        let any = unitycatalog_common::store::Precondition::Any;
        let taken = Subject::new(subject.kind, shown);
        let renamed = self.library.rename(ident, target, any).await;
        renamed.map(|_| ()).map_err(|error| match error {
            unitycatalog_common::Error::NotFound => self.store_error(subject, &error),
            other => self.store_error(&taken, &other),
        })
    }

    /// The entry of a table by its id.
    pub(super) async fn table_by_id(&self, id: &str) -> Result<TableInfo, CatalogError> {
        let uuid = uuid::Uuid::parse_str(id).map_err(|_| {
            CatalogError::invalid(format!("table_id `{}`", printable(id)), "expected a UUID")
        })?;
        let subject = Subject::new(Securable::Table, uuid.to_string());
        let found = self.library.get(&ResourceIdent::table(uuid)).await;
        let entry = found.map_err(|error| self.store_error(&subject, &error))?.0;
        self.table_answer(&subject, entry.try_into())
    }

    pub(super) fn catalog_info(
        &self,
        subject: &Subject,
        entry: Result<Catalog, unitycatalog_common::Error>,
    ) -> Result<CatalogInfo, CatalogError> {
        self.convert(&entry.map_err(|error| self.store_error(subject, &error))?)
    }

    pub(super) fn schema_info(
        &self,
        subject: &Subject,
        entry: Result<Schema, unitycatalog_common::Error>,
    ) -> Result<SchemaInfo, CatalogError> {
        self.convert(&entry.map_err(|error| self.store_error(subject, &error))?)
    }

    fn table_answer(
        &self,
        subject: &Subject,
        entry: Result<Table, unitycatalog_common::Error>,
    ) -> Result<TableInfo, CatalogError> {
        self.convert(&entry.map_err(|error| self.store_error(subject, &error))?)
    }
}

pub(super) fn not_empty(subject: &Subject) -> CatalogError {
    CatalogError::NotEmpty { kind: subject.kind.as_str(), name: subject.name.clone() }
}

fn checked_root(root: Option<&str>) -> Result<Option<String>, CatalogError> {
    root.map(|root| check_location("storage_root", root).map(|()| root.to_owned())).transpose()
}

/// The official server's place for managed tables below a root; a name only, nothing is made.
fn location_below(root: Option<&str>, kind: &str, id: &str) -> Option<String> {
    root.map(|root| format!("{}/__unitystorage/{kind}/{id}", stored_location(root)))
}

/// The entry that a client's call asks for.
fn table_info(new: &CreateTable) -> Result<TableInfo, CatalogError> {
    if new.table_type != "EXTERNAL" {
        return Err(CatalogError::invalid(
            format!("table_type `{}`", printable(&new.table_type)),
            "only EXTERNAL tables are kept",
        ));
    }
    let format = new.data_source_format.as_deref().unwrap_or("DELTA");
    if !FORMATS.contains(&format) {
        let subject = format!("data_source_format `{}`", printable(format));
        return Err(CatalogError::invalid(
            subject,
            format!("expected one of {}", FORMATS.join(", ")),
        ));
    }
    let Some(location) = new.storage_location.as_deref() else {
        return Err(CatalogError::invalid("storage_location", "missing for an EXTERNAL table"));
    };
    check_location("storage_location", location)?;
    let columns =
        (0..).zip(&new.columns).map(|(position, column)| checked_column(position, column));
    Ok(TableInfo {
        name: Some(new.name.clone()),
        catalog_name: Some(new.catalog_name.clone()),
        schema_name: Some(new.schema_name.clone()),
        table_type: Some(new.table_type.clone()),
        data_source_format: Some(format.to_owned()),
        columns: Some(columns.collect::<Result<_, _>>()?),
        storage_location: Some(stored_location(location).to_owned()),
        comment: new.comment.clone(),
        properties: new.properties.clone(),
        ..Default::default()
    })
}

/// A client's column, completed by what the official server fills in.
fn checked_column(position: i32, column: &ColumnInfo) -> Result<ColumnInfo, CatalogError> {
    let subject = format!("column {position}");
    let name = column.name.as_deref().unwrap_or_default();
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err(CatalogError::invalid(subject, "has no name, or one with control characters"));
    }
    match column.type_name.as_deref() {
        Some(type_name) if COLUMN_TYPE_NAMES.contains(&type_name) => {}
        other => {
            let shown = printable(other.unwrap_or_default());
            return Err(CatalogError::invalid(subject, format!("type_name `{shown}` is no type")));
        }
    }
    Ok(ColumnInfo {
        position: Some(column.position.unwrap_or(position)),
        nullable: Some(column.nullable.unwrap_or(true)),
        ..column.clone()
    })
}
