//! The calls of the official API that are served, below its path.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tracelake_model::TableName;
use tracelake_model::names::printable;

use super::EmbeddedCatalog;
use super::answers::{Answer, deleted, ok, page, refusal};
use super::lists::PageRequest;
use crate::calls::UnityCatalog as _;
use crate::error::CatalogError;
use crate::names::{check_location, parse_schema_name};
use crate::wire::{
    CreateCatalog, CreateSchema, CreateTable, PathCredentialRequest, TableCredentialRequest,
    TemporaryCredentials, Update,
};

/// Bytes of a request's body: a table of some thousand columns fits.
const MAX_BODY_BYTES: usize = 4 << 20;

/// Longest piece of a decoder's message in an answer.
const MAX_REASON_CHARS: usize = 200;

type Catalog = State<Arc<EmbeddedCatalog>>;
type Name = Result<Path<String>, PathRejection>;
type Body = Result<Bytes, BytesRejection>;
type Parameters = Result<Query<ListParameters>, QueryRejection>;

pub(super) fn router(catalog: Arc<EmbeddedCatalog>) -> Router {
    Router::new()
        .route("/catalogs", get(list_catalogs).post(create_catalog))
        .route("/catalogs/{name}", get(get_catalog).patch(update_catalog).delete(delete_catalog))
        .route("/schemas", get(list_schemas).post(create_schema))
        .route("/schemas/{full_name}", get(get_schema).patch(update_schema).delete(delete_schema))
        .route("/tables", get(list_tables).post(create_table))
        .route("/tables/{full_name}", get(get_table).delete(delete_table))
        .route("/temporary-table-credentials", post(table_credentials))
        .route("/temporary-path-credentials", post(path_credentials))
        .fallback(no_such_call)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(catalog)
}

/// Parameters of the calls that list and delete. Numbers come as text, so that a wrong one is
/// answered in the API's own words.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ListParameters {
    catalog_name: Option<String>,
    schema_name: Option<String>,
    max_results: Option<String>,
    page_token: Option<String>,
    force: Option<String>,
}

impl ListParameters {
    fn page(&self) -> Result<PageRequest, CatalogError> {
        let max_results = match self.max_results.as_deref() {
            None | Some("") => None,
            Some(text) => Some(text.parse().map_err(|_| {
                CatalogError::invalid(
                    format!("max_results `{}`", printable(text)),
                    "expected a number",
                )
            })?),
        };
        let page_token = self.page_token.clone().filter(|token| !token.is_empty());
        Ok(PageRequest { max_results, page_token })
    }

    fn force(&self) -> Result<bool, CatalogError> {
        match self.force.as_deref() {
            None | Some("" | "false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(CatalogError::invalid(
                format!("force `{}`", printable(other)),
                "expected true or false",
            )),
        }
    }
}

async fn list_catalogs(State(catalog): Catalog, parameters: Parameters) -> Answer {
    page("catalogs", catalog.catalog_page(query(parameters)?.page()?).await?)
}

async fn create_catalog(State(catalog): Catalog, request: Body) -> Answer {
    ok(catalog.create_catalog(&body::<CreateCatalog>(request)?).await?)
}

async fn get_catalog(State(catalog): Catalog, name: Name) -> Answer {
    ok(catalog.catalog(&path(name)?).await?)
}

async fn update_catalog(State(catalog): Catalog, name: Name, request: Body) -> Answer {
    ok(catalog.changed_catalog(&path(name)?, body::<Update>(request)?).await?)
}

async fn delete_catalog(State(catalog): Catalog, name: Name, parameters: Parameters) -> Answer {
    catalog.remove_catalog(&path(name)?, query(parameters)?.force()?).await?;
    deleted()
}

async fn list_schemas(State(catalog): Catalog, parameters: Parameters) -> Answer {
    let parameters = query(parameters)?;
    let name = required("catalog_name", parameters.catalog_name.as_deref())?;
    page("schemas", catalog.schema_page(name, parameters.page()?).await?)
}

async fn create_schema(State(catalog): Catalog, request: Body) -> Answer {
    ok(catalog.create_schema(&body::<CreateSchema>(request)?).await?)
}

async fn get_schema(State(catalog): Catalog, name: Name) -> Answer {
    let (parent, schema) = parse_schema_name(&path(name)?)?;
    ok(catalog.schema(&parent, &schema).await?)
}

async fn update_schema(State(catalog): Catalog, name: Name, request: Body) -> Answer {
    ok(catalog.changed_schema(&path(name)?, body::<Update>(request)?).await?)
}

async fn delete_schema(State(catalog): Catalog, name: Name, parameters: Parameters) -> Answer {
    catalog.remove_schema(&path(name)?, query(parameters)?.force()?).await?;
    deleted()
}

async fn list_tables(State(catalog): Catalog, parameters: Parameters) -> Answer {
    let parameters = query(parameters)?;
    let parent = required("catalog_name", parameters.catalog_name.as_deref())?;
    let schema = required("schema_name", parameters.schema_name.as_deref())?;
    page("tables", catalog.table_page(parent, schema, parameters.page()?).await?)
}

async fn create_table(State(catalog): Catalog, request: Body) -> Answer {
    ok(catalog.create_table(&body::<CreateTable>(request)?).await?)
}

async fn get_table(State(catalog): Catalog, name: Name) -> Answer {
    ok(catalog.table(&table_name(name)?).await?)
}

async fn delete_table(State(catalog): Catalog, name: Name) -> Answer {
    catalog.delete_table(&table_name(name)?).await?;
    deleted()
}

/// As the official server answers for local files: no credential, for none is needed. For other
/// storage none is kept here.
async fn table_credentials(State(catalog): Catalog, request: Body) -> Answer {
    let request: TableCredentialRequest = body(request)?;
    one_of("operation", &request.operation, &["READ", "READ_WRITE"])?;
    let table = catalog.table_by_id(&request.table_id).await?;
    credentials(&table.storage_location.unwrap_or_default())
}

async fn path_credentials(request: Body) -> Answer {
    let request: PathCredentialRequest = body(request)?;
    let operations = ["PATH_READ", "PATH_READ_WRITE", "PATH_CREATE_TABLE"];
    one_of("operation", &request.operation, &operations)?;
    check_location("url", &request.url)?;
    credentials(&request.url)
}

fn credentials(location: &str) -> Answer {
    if !location.starts_with("file:") {
        let subject = format!("a credential for `{}`", printable(location));
        return Err(CatalogError::Unsupported { subject }.into());
    }
    ok(TemporaryCredentials { url: location.to_owned() })
}

async fn no_such_call(uri: Uri) -> Response {
    let message = format!("`{}` is not served by the embedded catalog", printable(uri.path()));
    refusal(StatusCode::NOT_FOUND, "NOT_FOUND", message)
}

async fn no_such_method(uri: Uri) -> Response {
    let message = format!("`{}` has no such method", printable(uri.path()));
    refusal(StatusCode::METHOD_NOT_ALLOWED, "UNIMPLEMENTED", message)
}

fn path(name: Name) -> Result<String, CatalogError> {
    let Path(name) = name.map_err(|_| CatalogError::invalid("name", "expected UTF-8"))?;
    Ok(name)
}

fn table_name(name: Name) -> Result<TableName, CatalogError> {
    Ok(path(name)?.parse::<TableName>()?)
}

fn query(parameters: Parameters) -> Result<ListParameters, CatalogError> {
    let Query(parameters) = parameters
        .map_err(|_| CatalogError::invalid("query", "expected parameters, each at most once"))?;
    Ok(parameters)
}

fn required<'a>(member: &str, value: Option<&'a str>) -> Result<&'a str, CatalogError> {
    value.filter(|value| !value.is_empty()).ok_or_else(|| CatalogError::invalid(member, "missing"))
}

fn one_of(member: &str, value: &str, allowed: &[&str]) -> Result<(), CatalogError> {
    if allowed.contains(&value) {
        return Ok(());
    }
    let subject = format!("{member} `{}`", printable(value));
    Err(CatalogError::invalid(subject, format!("expected one of {}", allowed.join(", "))))
}

fn body<T: DeserializeOwned>(request: Body) -> Result<T, CatalogError> {
    let bytes = request.map_err(|_| {
        CatalogError::invalid(
            "body",
            format!("could not be read, or has over {MAX_BODY_BYTES} bytes"),
        )
    })?;
    serde_json::from_slice(&bytes).map_err(|error| {
        let reason: String = error.to_string().chars().take(MAX_REASON_CHARS).collect();
        let reason = reason.chars().flat_map(|c| {
            if c.is_control() { c.escape_unicode().collect::<Vec<_>>() } else { vec![c] }
        });
        CatalogError::invalid("body", reason.collect::<String>())
    })
}
