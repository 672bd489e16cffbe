//! A client for Unity Catalog servers: the calls that this product needs.
//!
//! The server is not trusted: answers are bounded in bytes and time, and a redirect is never
//! followed, so that the token goes nowhere else. Names are put into paths by the URL's own
//! encoder. Reads tolerate what servers do differently (`crate::wire`).

mod transport;

use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tracelake_model::TableName;
use url::Url;

use crate::calls::UnityCatalog;
use crate::error::{CatalogError, Securable};
use crate::names::check_name;
use crate::wire::{
    CatalogInfo, CreateCatalog, CreateSchema, CreateTable, Page, SchemaInfo, TableInfo,
};

use transport::Call;

/// How to reach a server.
#[derive(Clone)]
pub struct ClientOptions {
    /// URL of the API, such as `https://host/api/2.1/unity-catalog`.
    pub url: String,
    /// Bearer token. Never shown.
    pub token: Option<String>,
    /// How long one call may take, its answer included.
    pub timeout: Duration,
    /// Longest answer in bytes.
    pub max_answer_bytes: usize,
}

impl ClientOptions {
    /// A server without authentication; 30 s and 16 MiB per call.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            token: None,
            timeout: Duration::from_secs(30),
            max_answer_bytes: 16 << 20,
        }
    }
}

impl std::fmt::Debug for ClientOptions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ClientOptions")
            .field("url", &self.url)
            .field("has_token", &self.token.is_some())
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// A Unity Catalog server. Cheap to clone.
#[derive(Clone)]
pub struct UnityClient {
    http: reqwest::Client,
    base: Url,
    server: String,
    max_answer_bytes: usize,
}

impl std::fmt::Debug for UnityClient {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("UnityClient").field("server", &self.server).finish_non_exhaustive()
    }
}

/// What lists answer, whatever their items' member is called.
#[derive(Deserialize)]
struct Listed<T> {
    #[serde(alias = "catalogs", alias = "schemas", alias = "tables", default = "Vec::new")]
    items: Vec<T>,
    #[serde(default)]
    next_page_token: Option<String>,
}

impl<T> From<Listed<T>> for Page<T> {
    fn from(listed: Listed<T>) -> Self {
        let next_page_token = listed.next_page_token.filter(|token| !token.is_empty());
        Self { items: listed.items, next_page_token }
    }
}

impl UnityClient {
    /// A client; nothing is sent yet.
    ///
    /// # Errors
    /// [`CatalogError::Url`] for a URL that is not `http` or `https`, or a token that cannot be a
    /// header.
    pub fn new(options: &ClientOptions) -> Result<Self, CatalogError> {
        transport::connect(options)
    }

    async fn page<T: DeserializeOwned>(&self, call: Call) -> Result<Page<T>, CatalogError> {
        Ok(self.send::<Listed<T>>(call).await?.into())
    }
}

#[async_trait]
impl UnityCatalog for UnityClient {
    async fn catalog(&self, name: &str) -> Result<CatalogInfo, CatalogError> {
        check_name(name)?;
        self.send(Call::get(Securable::Catalog, name)).await
    }

    async fn create_catalog(&self, new: &CreateCatalog) -> Result<CatalogInfo, CatalogError> {
        check_name(&new.name)?;
        self.send(Call::create(Securable::Catalog, &new.name, new)?).await
    }

    async fn catalogs(&self, page_token: Option<&str>) -> Result<Page<CatalogInfo>, CatalogError> {
        self.page(Call::list(Securable::Catalog, &[], page_token)).await
    }

    async fn schema(&self, catalog: &str, name: &str) -> Result<SchemaInfo, CatalogError> {
        self.send(Call::get(Securable::Schema, &schema_name(catalog, name)?)).await
    }

    async fn create_schema(&self, new: &CreateSchema) -> Result<SchemaInfo, CatalogError> {
        let name = schema_name(&new.catalog_name, &new.name)?;
        self.send(Call::create(Securable::Schema, &name, new)?).await
    }

    async fn schemas(
        &self,
        catalog: &str,
        page_token: Option<&str>,
    ) -> Result<Page<SchemaInfo>, CatalogError> {
        check_name(catalog)?;
        self.page(Call::list(Securable::Schema, &[catalog], page_token)).await
    }

    async fn table(&self, name: &TableName) -> Result<TableInfo, CatalogError> {
        self.send(Call::get(Securable::Table, &name.to_string())).await
    }

    async fn create_table(&self, new: &CreateTable) -> Result<TableInfo, CatalogError> {
        let name = TableName::new(&new.catalog_name, &new.schema_name, &new.name)?;
        self.send(Call::create(Securable::Table, &name.to_string(), new)?).await
    }

    async fn replace_table(
        &self,
        name: &TableName,
        new: &CreateTable,
    ) -> Result<TableInfo, CatalogError> {
        self.delete_table(name).await?;
        self.create_table(new).await
    }

    async fn tables(
        &self,
        catalog: &str,
        schema: &str,
        page_token: Option<&str>,
    ) -> Result<Page<TableInfo>, CatalogError> {
        check_name(catalog)?;
        check_name(schema)?;
        self.page(Call::list(Securable::Table, &[catalog, schema], page_token)).await
    }

    async fn delete_table(&self, name: &TableName) -> Result<(), CatalogError> {
        let call = Call::delete(Securable::Table, &name.to_string());
        self.send::<Value>(call).await.map(|_| ())
    }
}

/// The full name of a schema whose parts are names.
fn schema_name(catalog: &str, name: &str) -> Result<String, CatalogError> {
    check_name(catalog)?;
    check_name(name)?;
    Ok(format!("{catalog}.{name}"))
}

#[cfg(test)]
mod tests;
