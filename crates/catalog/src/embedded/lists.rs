//! Lists, page by page, by the library's handlers.

use unitycatalog_common::models::catalogs::v1::ListCatalogsRequest;
use unitycatalog_common::models::schemas::v1::ListSchemasRequest;
use unitycatalog_common::models::tables::v1::ListTablesRequest;
use unitycatalog_server::api::{CatalogHandler as _, SchemaHandler as _, TableHandler as _};

use super::convert::Subject;
use super::{EmbeddedCatalog, context};
use crate::calls::UnityCatalog as _;
use crate::error::{CatalogError, Securable};
use crate::names::check_name;
use crate::wire::{CatalogInfo, Page, SchemaInfo, TableInfo};

/// Longest page of catalogs and schemas; also the page of a call that names no length.
const MAX_PAGE: i32 = 1000;

/// Longest page of tables, whose entries are larger.
const MAX_TABLE_PAGE: i32 = 50;

/// Which page of a list.
#[derive(Clone, Debug, Default)]
pub(super) struct PageRequest {
    /// Entries at most; `None` or 0 for the server's own length.
    pub(super) max_results: Option<i32>,
    /// The token of the page before.
    pub(super) page_token: Option<String>,
}

impl PageRequest {
    pub(super) fn after(page_token: Option<&str>) -> Self {
        Self { max_results: None, page_token: page_token.map(str::to_owned) }
    }

    fn length(&self, most: i32) -> Result<Option<i32>, CatalogError> {
        match self.max_results {
            Some(wrong) if wrong < 0 => {
                Err(CatalogError::invalid("max_results", "must not be negative"))
            }
            None | Some(0) => Ok(Some(most)),
            Some(length) => Ok(Some(length.min(most))),
        }
    }
}

impl EmbeddedCatalog {
    pub(super) async fn catalog_page(
        &self,
        page: PageRequest,
    ) -> Result<Page<CatalogInfo>, CatalogError> {
        let request = ListCatalogsRequest {
            max_results: page.length(MAX_PAGE)?,
            page_token: page.page_token,
            ..Default::default()
        };
        let subject = Subject::new(Securable::Catalog, "");
        let listed = self.library.list_catalogs(request, context()).await;
        let listed = listed.map_err(|error| self.library_error(&subject, &error))?;
        Ok(Page { items: self.convert(&listed.catalogs)?, next_page_token: listed.next_page_token })
    }

    pub(super) async fn schema_page(
        &self,
        catalog: &str,
        page: PageRequest,
    ) -> Result<Page<SchemaInfo>, CatalogError> {
        check_name(catalog)?;
        let max_results = page.length(MAX_PAGE)?;
        self.catalog(catalog).await?;
        let request = ListSchemasRequest {
            catalog_name: catalog.to_owned(),
            max_results,
            page_token: page.page_token,
            ..Default::default()
        };
        let subject = Subject::new(Securable::Schema, catalog);
        let listed = self.library.list_schemas(request, context()).await;
        let listed = listed.map_err(|error| self.library_error(&subject, &error))?;
        Ok(Page { items: self.convert(&listed.schemas)?, next_page_token: listed.next_page_token })
    }

    pub(super) async fn table_page(
        &self,
        catalog: &str,
        schema: &str,
        page: PageRequest,
    ) -> Result<Page<TableInfo>, CatalogError> {
        check_name(catalog)?;
        check_name(schema)?;
        let max_results = page.length(MAX_TABLE_PAGE)?;
        self.schema(catalog, schema).await?;
        let request = ListTablesRequest {
            catalog_name: catalog.to_owned(),
            schema_name: schema.to_owned(),
            max_results,
            page_token: page.page_token,
            ..Default::default()
        };
        let subject = Subject::new(Securable::Table, format!("{catalog}.{schema}"));
        let listed = self.library.list_tables(request, context()).await;
        let listed = listed.map_err(|error| self.library_error(&subject, &error))?;
        Ok(Page { items: self.convert(&listed.tables)?, next_page_token: listed.next_page_token })
    }
}
