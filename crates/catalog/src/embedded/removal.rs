//! Deleting: only what is empty, or with all that is below it. Files are never touched.

use unitycatalog_common::models::catalogs::v1::DeleteCatalogRequest;
use unitycatalog_common::models::schemas::v1::DeleteSchemaRequest;
use unitycatalog_common::models::tables::v1::DeleteTableRequest;
use unitycatalog_server::api::{CatalogHandler as _, SchemaHandler as _, TableHandler as _};

use super::convert::Subject;
use super::entries::not_empty;
use super::{EmbeddedCatalog, context};
use crate::calls::UnityCatalog as _;
use crate::error::{CatalogError, Securable};
use crate::names::parse_schema_name;

impl EmbeddedCatalog {
    pub(super) async fn remove_catalog(&self, name: &str, force: bool) -> Result<(), CatalogError> {
        let _change = self.changes.lock().await;
        self.catalog(name).await?;
        let subject = Subject::new(Securable::Catalog, name);
        loop {
            let page = self.schemas(name, None).await?;
            if page.items.is_empty() {
                break;
            }
            if !force {
                return Err(not_empty(&subject));
            }
            for schema in page.items {
                let full_name = format!("{name}.{}", schema.name.unwrap_or_default());
                self.remove_schema_unlocked(&full_name, true).await?;
            }
        }
        let request = DeleteCatalogRequest { name: name.to_owned(), ..Default::default() };
        let deleted = self.library.delete_catalog(request, context()).await;
        deleted.map_err(|error| self.library_error(&subject, &error))
    }

    pub(super) async fn remove_schema(
        &self,
        full_name: &str,
        force: bool,
    ) -> Result<(), CatalogError> {
        let _change = self.changes.lock().await;
        self.remove_schema_unlocked(full_name, force).await
    }

    async fn remove_schema_unlocked(
        &self,
        full_name: &str,
        force: bool,
    ) -> Result<(), CatalogError> {
        let (catalog, schema) = parse_schema_name(full_name)?;
        self.schema(&catalog, &schema).await?;
        let subject = Subject::new(Securable::Schema, full_name);
        loop {
            let page = self.tables(&catalog, &schema, None).await?;
            if page.items.is_empty() {
                break;
            }
            if !force {
                return Err(not_empty(&subject));
            }
            for table in page.items {
                self.remove_table(&format!("{full_name}.{}", table.name.unwrap_or_default()))
                    .await?;
            }
        }
        let request = DeleteSchemaRequest { full_name: full_name.to_owned(), ..Default::default() };
        let deleted = self.library.delete_schema(request, context()).await;
        deleted.map_err(|error| self.library_error(&subject, &error))
    }

    /// `full_name` must be a table's name already checked, or one that the store gave.
    pub(super) async fn remove_table(&self, full_name: &str) -> Result<(), CatalogError> {
        let subject = Subject::new(Securable::Table, full_name);
        let request = DeleteTableRequest { full_name: full_name.to_owned(), ..Default::default() };
        let deleted = self.library.delete_table(request, context()).await;
        deleted.map_err(|error| self.library_error(&subject, &error))
    }
}
