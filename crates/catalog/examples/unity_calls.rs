//! Makes every call of the client to a Unity Catalog server and says how each one ended.
//!
//! `unity_calls URL` prints one line per call and fails when any call did. The end-to-end tests run
//! it against a mock server that checks each request by the official API, and against tracelake's
//! own server.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;

use tracelake_catalog::{
    CatalogError, ClientOptions, Column, ColumnType, CreateCatalog, CreateSchema, ListType,
    MapType, TableSpec, UnityCatalog as _, UnityClient, ensure_table,
};
use tracelake_model::TableName;

/// How the calls ended so far.
#[derive(Default)]
struct Report {
    failed: usize,
}

impl Report {
    fn note<T>(&mut self, call: &str, outcome: Result<T, CatalogError>) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        match outcome {
            Ok(_) => writeln!(out, "{call}: ok"),
            Err(error) => {
                self.failed += 1;
                let cause = error.source().map(|source| format!(": {source}")).unwrap_or_default();
                writeln!(out, "{call}: {:?}: {error}{cause}", error.kind())
            }
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let url = std::env::args().nth(1).ok_or("usage: unity_calls URL")?;
    let client = UnityClient::new(&ClientOptions {
        token: Some("secret".into()),
        ..ClientOptions::new(url)
    })?;
    let spec = spec()?;
    let name = spec.name.clone();
    let mut report = Report::default();
    let (catalog, schema) = (name.catalog().to_owned(), name.schema().to_owned());
    let new = CreateCatalog {
        name: catalog.clone(),
        comment: Some("calls".into()),
        ..Default::default()
    };
    report.note("create catalog", client.create_catalog(&new).await)?;
    report.note("get catalog", client.catalog(&catalog).await)?;
    report.note("list catalogs", client.catalogs(None).await)?;
    let new =
        CreateSchema { name: schema.clone(), catalog_name: catalog.clone(), ..Default::default() };
    report.note("create schema", client.create_schema(&new).await)?;
    report.note("get schema", client.schema(&catalog, &schema).await)?;
    report.note("list schemas", client.schemas(&catalog, None).await)?;
    let wanted = spec.to_create()?;
    report.note("create table", client.create_table(&wanted).await)?;
    report.note("get table", client.table(&name).await)?;
    report.note("list tables", client.tables(&catalog, &schema, None).await)?;
    report.note("replace table", client.replace_table(&name, &wanted).await)?;
    report.note("get table again", client.table(&name).await)?;
    report.note("delete table", client.delete_table(&name).await)?;
    // A mock's table lies elsewhere, which is refused as it should be.
    let ensured = match ensure_table(&client, &spec).await {
        Err(CatalogError::OtherLocation { .. }) => Ok(()),
        other => other.map(|_| ()),
    };
    report.note("ensure table", ensured)?;
    Ok(if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn spec() -> Result<TableSpec, Box<dyn Error>> {
    let column = |name: &str, data_type: ColumnType| Column {
        name: name.to_owned(),
        data_type,
        nullable: true,
        comment: Some(format!("{name}: what \"it\" is")),
    };
    let tags =
        MapType { key: ColumnType::String, value: ColumnType::String, value_contains_null: true };
    let span = ColumnType::Struct(vec![
        column("span_id", ColumnType::String),
        column("start_time", ColumnType::Timestamp),
        column("tags", ColumnType::Map(Box::new(tags))),
    ]);
    Ok(TableSpec {
        name: TableName::new("calls", "of", "a_client")?,
        location: "file:///nowhere/calls/of/a_client/".to_owned(),
        comment: Some("A table that is nowhere".to_owned()),
        columns: vec![
            column("trace_id", ColumnType::String),
            column(
                "spans",
                ColumnType::Array(Box::new(ListType { element: span, contains_null: true })),
            ),
            column("cost", ColumnType::Decimal { precision: 12, scale: 4 }),
        ],
        properties: BTreeMap::from([("delta.enableChangeDataFeed".to_owned(), "true".to_owned())]),
    })
}
