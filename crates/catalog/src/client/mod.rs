//! A client for Unity Catalog servers: the calls that this product needs.
//!
//! The server is not trusted: answers are bounded in bytes and time, and a redirect is never
//! followed, so that the token goes nowhere else. Names are put into paths by the URL's own
//! encoder. Reads tolerate what servers do differently (`crate::wire`).

mod transport;

use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;
use tracelake_model::TableName;
use url::Url;

use crate::calls::UnityCatalog;
use crate::error::CatalogError;
use crate::names::check_name;
use crate::wire::{
    CatalogInfo, CreateCatalog, CreateSchema, CreateTable, Page, SchemaInfo,
    TableCredentialRequest, TableInfo, TemporaryCredentials,
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

    /// Takes a catalog away, which must be empty.
    ///
    /// # Errors
    /// Of kind `NotFound` when there is none.
    pub async fn delete_catalog(&self, name: &str) -> Result<(), CatalogError> {
        check_name(name)?;
        let call =
            Call::new(Method::DELETE, format!("delete catalog `{name}`"), &["catalogs", name]);
        self.send::<Value>(call).await.map(|_| ())
    }

    /// Credentials for the files of a table, by its id; none for local files.
    ///
    /// # Errors
    /// Of kind `NotFound` for an unknown id, `Unsupported` when the server has no credential.
    pub async fn table_credentials(
        &self,
        table_id: &str,
        write: bool,
    ) -> Result<TemporaryCredentials, CatalogError> {
        let operation = if write { "READ_WRITE" } else { "READ" };
        let request = TableCredentialRequest {
            table_id: table_id.to_owned(),
            operation: operation.to_owned(),
        };
        let shown = tracelake_model::names::printable(table_id);
        let call = Call::new(
            Method::POST,
            format!("get credentials of table `{shown}`"),
            &["temporary-table-credentials"],
        );
        self.send(call.body(&request)?).await
    }
}

#[async_trait]
impl UnityCatalog for UnityClient {
    async fn catalog(&self, name: &str) -> Result<CatalogInfo, CatalogError> {
        check_name(name)?;
        let call = Call::new(Method::GET, format!("get catalog `{name}`"), &["catalogs", name]);
        self.send(call).await
    }

    async fn create_catalog(&self, new: &CreateCatalog) -> Result<CatalogInfo, CatalogError> {
        check_name(&new.name)?;
        let what = format!("create catalog `{}`", new.name);
        self.send(Call::new(Method::POST, what, &["catalogs"]).body(new)?).await
    }

    async fn catalogs(&self, page_token: Option<&str>) -> Result<Page<CatalogInfo>, CatalogError> {
        let call = Call::new(Method::GET, "list catalogs".to_owned(), &["catalogs"]);
        Ok(self.send::<Listed<_>>(call.page(page_token)).await?.into())
    }

    async fn schema(&self, catalog: &str, name: &str) -> Result<SchemaInfo, CatalogError> {
        check_name(catalog)?;
        check_name(name)?;
        let full_name = format!("{catalog}.{name}");
        let what = format!("get schema `{full_name}`");
        self.send(Call::new(Method::GET, what, &["schemas", &full_name])).await
    }

    async fn create_schema(&self, new: &CreateSchema) -> Result<SchemaInfo, CatalogError> {
        check_name(&new.catalog_name)?;
        check_name(&new.name)?;
        let what = format!("create schema `{}.{}`", new.catalog_name, new.name);
        self.send(Call::new(Method::POST, what, &["schemas"]).body(new)?).await
    }

    async fn schemas(
        &self,
        catalog: &str,
        page_token: Option<&str>,
    ) -> Result<Page<SchemaInfo>, CatalogError> {
        check_name(catalog)?;
        let what = format!("list schemas of `{catalog}`");
        let call = Call::new(Method::GET, what, &["schemas"]).parameter("catalog_name", catalog);
        Ok(self.send::<Listed<_>>(call.page(page_token)).await?.into())
    }

    async fn table(&self, name: &TableName) -> Result<TableInfo, CatalogError> {
        let full_name = name.to_string();
        let what = format!("get table `{full_name}`");
        self.send(Call::new(Method::GET, what, &["tables", &full_name])).await
    }

    async fn create_table(&self, new: &CreateTable) -> Result<TableInfo, CatalogError> {
        let name = TableName::new(&new.catalog_name, &new.schema_name, &new.name)?;
        let what = format!("create table `{name}`");
        self.send(Call::new(Method::POST, what, &["tables"]).body(new)?).await
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
        let call =
            Call::new(Method::GET, format!("list tables of `{catalog}.{schema}`"), &["tables"])
                .parameter("catalog_name", catalog)
                .parameter("schema_name", schema);
        Ok(self.send::<Listed<_>>(call.page(page_token)).await?.into())
    }

    async fn delete_table(&self, name: &TableName) -> Result<(), CatalogError> {
        let full_name = name.to_string();
        let what = format!("delete table `{full_name}`");
        let call = Call::new(Method::DELETE, what, &["tables", &full_name]);
        self.send::<Value>(call).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests;
