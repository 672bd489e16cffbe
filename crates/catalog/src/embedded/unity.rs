//! The embedded catalog as any other: the calls that registering tables needs.

use async_trait::async_trait;
use tracelake_model::TableName;
use unitycatalog_common::models::catalogs::v1::GetCatalogRequest;
use unitycatalog_common::models::schemas::v1::GetSchemaRequest;
use unitycatalog_common::models::tables::v1::GetTableRequest;
use unitycatalog_server::api::{CatalogHandler as _, SchemaHandler as _, TableHandler as _};

use super::convert::Subject;
use super::lists::PageRequest;
use super::{EmbeddedCatalog, context};
use crate::calls::UnityCatalog;
use crate::error::{CatalogError, Securable};
use crate::names::check_name;
use crate::wire::{
    CatalogInfo, CreateCatalog, CreateSchema, CreateTable, Page, SchemaInfo, TableInfo,
};

#[async_trait]
impl UnityCatalog for EmbeddedCatalog {
    async fn catalog(&self, name: &str) -> Result<CatalogInfo, CatalogError> {
        check_name(name)?;
        let request = GetCatalogRequest { name: name.to_owned(), ..Default::default() };
        let subject = Subject::new(Securable::Catalog, name);
        let found = self.library.get_catalog(request, context()).await;
        self.convert(&found.map_err(|error| self.library_error(&subject, &error))?)
    }

    async fn create_catalog(&self, new: &CreateCatalog) -> Result<CatalogInfo, CatalogError> {
        self.new_catalog(new).await
    }

    async fn catalogs(&self, page_token: Option<&str>) -> Result<Page<CatalogInfo>, CatalogError> {
        self.catalog_page(PageRequest::after(page_token)).await
    }

    async fn schema(&self, catalog: &str, name: &str) -> Result<SchemaInfo, CatalogError> {
        check_name(catalog)?;
        check_name(name)?;
        let full_name = format!("{catalog}.{name}");
        let subject = Subject::new(Securable::Schema, &full_name);
        let request = GetSchemaRequest { full_name, ..Default::default() };
        let found = self.library.get_schema(request, context()).await;
        self.convert(&found.map_err(|error| self.library_error(&subject, &error))?)
    }

    async fn create_schema(&self, new: &CreateSchema) -> Result<SchemaInfo, CatalogError> {
        self.new_schema(new).await
    }

    async fn schemas(
        &self,
        catalog: &str,
        page_token: Option<&str>,
    ) -> Result<Page<SchemaInfo>, CatalogError> {
        self.schema_page(catalog, PageRequest::after(page_token)).await
    }

    async fn table(&self, name: &TableName) -> Result<TableInfo, CatalogError> {
        let full_name = name.to_string();
        let subject = Subject::new(Securable::Table, &full_name);
        let request = GetTableRequest { full_name, ..Default::default() };
        let found = self.library.get_table(request, context()).await;
        self.convert(&found.map_err(|error| self.library_error(&subject, &error))?)
    }

    async fn create_table(&self, new: &CreateTable) -> Result<TableInfo, CatalogError> {
        self.new_table(new).await
    }

    async fn replace_table(
        &self,
        name: &TableName,
        new: &CreateTable,
    ) -> Result<TableInfo, CatalogError> {
        self.changed_table(name, new).await
    }

    async fn tables(
        &self,
        catalog: &str,
        schema: &str,
        page_token: Option<&str>,
    ) -> Result<Page<TableInfo>, CatalogError> {
        self.table_page(catalog, schema, PageRequest::after(page_token)).await
    }

    async fn delete_table(&self, name: &TableName) -> Result<(), CatalogError> {
        self.remove_table(&name.to_string()).await
    }
}
