//! The calls that registering tables needs, whichever catalog answers them.

use async_trait::async_trait;
use tracelake_model::TableName;

use crate::error::CatalogError;
use crate::wire::{
    CatalogInfo, CreateCatalog, CreateSchema, CreateTable, Page, SchemaInfo, TableInfo,
};

/// A Unity Catalog: the one within this process, or a server.
///
/// Dropping a call's future leaves the change that it asked for done or not done.
#[async_trait]
pub trait UnityCatalog: Send + Sync {
    /// The catalog of that name.
    ///
    /// # Errors
    /// [`CatalogError::NotFound`] or a server's 404, and whatever keeps the catalog from answering.
    async fn catalog(&self, name: &str) -> Result<CatalogInfo, CatalogError>;

    /// Creates a catalog.
    ///
    /// # Errors
    /// Of kind `AlreadyExists` when the name is taken.
    async fn create_catalog(&self, new: &CreateCatalog) -> Result<CatalogInfo, CatalogError>;

    /// One page of the catalogs; `page_token` is the one that the page before gave.
    ///
    /// # Errors
    /// Of kind `Invalid` for a token that this list did not give.
    async fn catalogs(&self, page_token: Option<&str>) -> Result<Page<CatalogInfo>, CatalogError>;

    /// The schema `catalog.name`.
    ///
    /// # Errors
    /// Of kind `NotFound` when there is none.
    async fn schema(&self, catalog: &str, name: &str) -> Result<SchemaInfo, CatalogError>;

    /// Creates a schema.
    ///
    /// # Errors
    /// Of kind `NotFound` without its catalog, `AlreadyExists` when the name is taken.
    async fn create_schema(&self, new: &CreateSchema) -> Result<SchemaInfo, CatalogError>;

    /// One page of a catalog's schemas.
    ///
    /// # Errors
    /// Of kind `NotFound` without the catalog.
    async fn schemas(
        &self,
        catalog: &str,
        page_token: Option<&str>,
    ) -> Result<Page<SchemaInfo>, CatalogError>;

    /// The table of that name.
    ///
    /// # Errors
    /// Of kind `NotFound` when there is none.
    async fn table(&self, name: &TableName) -> Result<TableInfo, CatalogError>;

    /// Registers a table.
    ///
    /// # Errors
    /// Of kind `NotFound` without its schema, `AlreadyExists` when the name is taken.
    async fn create_table(&self, new: &CreateTable) -> Result<TableInfo, CatalogError>;

    /// Puts an entry in the place of one that is there. A server has no call for it, so there the
    /// entry is gone for a moment; the table itself is not touched.
    ///
    /// # Errors
    /// Of kind `NotFound` when there is none.
    async fn replace_table(
        &self,
        name: &TableName,
        new: &CreateTable,
    ) -> Result<TableInfo, CatalogError>;

    /// One page of a schema's tables.
    ///
    /// # Errors
    /// Of kind `NotFound` without the schema.
    async fn tables(
        &self,
        catalog: &str,
        schema: &str,
        page_token: Option<&str>,
    ) -> Result<Page<TableInfo>, CatalogError>;

    /// Takes a table out of the catalog. Its files stay.
    ///
    /// # Errors
    /// Of kind `NotFound` when there is none.
    async fn delete_table(&self, name: &TableName) -> Result<(), CatalogError>;
}
