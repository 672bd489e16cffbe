use std::collections::BTreeMap;

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt as _;

use super::*;
use crate::columns::{Column, ColumnType};
use crate::error::CatalogErrorKind;
use crate::register::{Registration, TableSpec, ensure_table};

async fn open(folder: &TempDir) -> Arc<EmbeddedCatalog> {
    let path = folder.path().join("catalog.db");
    Arc::new(EmbeddedCatalog::open(&path).await.unwrap())
}

async fn call(
    catalog: &Arc<EmbeddedCatalog>,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> (StatusCode, Value) {
    let request = Request::builder().method(method).uri(format!("{API_PATH}{path}"));
    let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
    let answer = Arc::clone(catalog).router().oneshot(request.body(body).unwrap()).await.unwrap();
    let status = answer.status();
    let bytes = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

fn spec(location: &str, columns: &[&str]) -> TableSpec {
    let column = |name: &&str| Column {
        name: (*name).to_owned(),
        data_type: ColumnType::Long,
        nullable: false,
        comment: Some("how many".to_owned()),
    };
    TableSpec {
        name: "Production.monitoring.agent_traces".parse().unwrap(),
        location: location.to_owned(),
        comment: Some("words".to_owned()),
        columns: columns.iter().map(column).collect(),
        properties: BTreeMap::from([("delta.appendOnly".to_owned(), "false".to_owned())]),
    }
}

/// Scenario: a table is registered, again, with a column more, for another place, after a restart.
/// Guarantees: created once, then left alone, then replaced under its id; another place is refused
/// and changes nothing; all of it is in the file.
#[tokio::test]
async fn a_table_is_registered_once_and_follows_its_schema() {
    let folder = TempDir::new().unwrap();
    let catalog = open(&folder).await;
    let first = spec("file:///data/t/", &["a"]);
    assert_eq!(ensure_table(&*catalog, &first).await.unwrap(), Registration::Created);
    assert_eq!(ensure_table(&*catalog, &first).await.unwrap(), Registration::Unchanged);
    let before = catalog.table(&first.name).await.unwrap();
    let wider = spec("file:///data/t", &["a", "b"]);
    assert_eq!(ensure_table(&*catalog, &wider).await.unwrap(), Registration::Replaced);
    let elsewhere = ensure_table(&*catalog, &spec("file:///other", &["a"])).await.unwrap_err();
    assert_eq!(elsewhere.kind(), CatalogErrorKind::Precondition);
    catalog.close().await;

    let catalog = open(&folder).await;
    assert_eq!(ensure_table(&*catalog, &wider).await.unwrap(), Registration::Unchanged);
    let after = catalog.table(&wider.name).await.unwrap();
    assert_eq!((&after.table_id, after.created_at), (&before.table_id, before.created_at));
    assert_eq!(after.storage_location.as_deref(), Some("file:///data/t"));
    let names: Vec<_> = after.columns.unwrap().into_iter().filter_map(|c| c.name).collect();
    assert_eq!(names, ["a", "b"]);
}

/// Scenario: several processes open a file that is not there and register the same table.
/// Guarantees: all succeed, one entry stands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_openers_agree_on_one_entry() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("catalog.db");
    let one = async || {
        let catalog = EmbeddedCatalog::open(&path).await.unwrap();
        ensure_table(&catalog, &spec("file:///data/t", &["a"])).await.unwrap()
    };
    let (a, b, c) = tokio::join!(one(), one(), one());
    let created = [a, b, c].into_iter().filter(|done| *done == Registration::Created).count();
    assert_eq!(created, 1);
}

/// Scenario: what the library would let pass or lose: a schema without a catalog, a table without
/// a schema, a parent with children deleted, a comment changed.
/// Guarantees: 404, 404, refused unless forced, and the members that were not named stay.
#[tokio::test]
async fn parents_come_first_and_leave_last() {
    let folder = TempDir::new().unwrap();
    let catalog = open(&folder).await;
    let post = |path: &'static str, body: Value| {
        let catalog = Arc::clone(&catalog);
        async move { call(&catalog, Method::POST, path, Some(body)).await }
    };
    let schema = json!({"name": "s", "catalog_name": "c", "comment": "kept"});
    let table = json!({
        "name": "t", "catalog_name": "c", "schema_name": "s", "table_type": "EXTERNAL",
        "storage_location": "s3://b/t/", "columns": [{"name": "x", "type_name": "INT"}],
    });
    assert_eq!(post("/schemas", schema.clone()).await.0, StatusCode::NOT_FOUND);
    assert_eq!(post("/catalogs", json!({"name": "c"})).await.0, StatusCode::OK);
    assert_eq!(post("/tables", table.clone()).await.0, StatusCode::NOT_FOUND);
    assert_eq!(post("/schemas", schema.clone()).await.0, StatusCode::OK);
    let (status, created) = post("/tables", table.clone()).await;
    assert_eq!(status, StatusCode::OK, "{created}");
    assert!(created["created_at"].is_i64() && created["columns"][0]["position"] == 0);
    let (status, taken) = post("/tables", table).await;
    assert_eq!(
        (status, &taken["error_code"]),
        (StatusCode::CONFLICT, &json!("TABLE_ALREADY_EXISTS"))
    );

    let (_, changed) =
        call(&catalog, Method::PATCH, "/schemas/c.s", Some(json!({"properties": {"k": "v"}})))
            .await;
    assert_eq!((&changed["comment"], &changed["properties"]["k"]), (&json!("kept"), &json!("v")));
    let renamed =
        call(&catalog, Method::PATCH, "/schemas/c.s", Some(json!({"new_name": "z"}))).await;
    assert_eq!(renamed.0, StatusCode::BAD_REQUEST);

    let (status, _) = call(&catalog, Method::DELETE, "/catalogs/c", None).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, _) = call(&catalog, Method::DELETE, "/catalogs/c?force=true", None).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(call(&catalog, Method::GET, "/tables/c.s.t", None).await.0, StatusCode::NOT_FOUND);
    post("/catalogs", json!({"name": "c"})).await;
    let (_, listed) = call(&catalog, Method::GET, "/schemas?catalog_name=c", None).await;
    assert_eq!(listed, json!({"schemas": []}));
}

/// Scenario: names and paths that are no names, bodies that are no calls.
/// Guarantees: a client's error in the API's form, with a message, and never a success.
#[tokio::test]
async fn hostile_calls_are_refused() {
    let cases = [
        (Method::GET, "/tables/..%2f..%2fetc.b.c", None),
        (Method::GET, "/tables/a/b", None),
        (Method::GET, "/tables/a.b", None),
        (Method::GET, "/tables/a.b.c%00", None),
        (Method::GET, "/tables/a.b.%ff", None),
        (Method::GET, "/catalogs/%27%3B%20drop%20table%20objects", None),
        (Method::GET, "/catalogs/%E2%80%AEabc", None),
        (Method::GET, "/schemas?catalog_name=a&catalog_name=b", None),
        (Method::GET, "/catalogs?max_results=-1", None),
        (Method::GET, "/catalogs?max_results=9999999999", None),
        (Method::GET, "/catalogs?page_token=x", None),
        (Method::GET, "/tables?catalog_name=a", None),
        (Method::PUT, "/catalogs", None),
        (Method::GET, "/volumes", None),
        (Method::POST, "/catalogs", None),
        (Method::POST, "/catalogs", Some(json!([]))),
        (Method::POST, "/catalogs", Some(json!({"name": 1}))),
        (Method::POST, "/catalogs", Some(json!({"name": "a/b"}))),
        (Method::POST, "/catalogs", Some(json!({"name": "ok", "storage_root": "file:///a/../b"}))),
        (
            Method::POST,
            "/temporary-table-credentials",
            Some(json!({"table_id": "x", "operation": "READ"})),
        ),
        (
            Method::POST,
            "/temporary-path-credentials",
            Some(json!({"url": "file:///a", "operation": "X"})),
        ),
    ];
    let folder = TempDir::new().unwrap();
    let catalog = open(&folder).await;
    for (method, path, body) in cases {
        let call_text = format!("{method} {path}");
        let (status, answer) = call(&catalog, method, path, body).await;
        assert!(status.is_client_error(), "{call_text}: {status} {answer}");
        assert!(answer["error_code"].is_string(), "{call_text}: {answer}");
        assert!(!answer["message"].as_str().unwrap().is_empty(), "{call_text}: {answer}");
        let shown = answer.to_string();
        assert!(!shown.contains(&folder.path().display().to_string()), "{call_text}: {answer}");
    }
}

/// Scenario: three catalogs, listed two at a time.
/// Guarantees: each is on one page, and the last page leads nowhere.
#[tokio::test]
async fn lists_come_in_pages() {
    let folder = TempDir::new().unwrap();
    let catalog = open(&folder).await;
    for name in ["a", "b", "c"] {
        let (status, _) =
            call(&catalog, Method::POST, "/catalogs", Some(json!({"name": name}))).await;
        assert_eq!(status, StatusCode::OK);
    }
    let (_, first) = call(&catalog, Method::GET, "/catalogs?max_results=2", None).await;
    let token = first["next_page_token"].as_str().unwrap();
    let path = format!("/catalogs?max_results=2&page_token={token}");
    let (_, second) = call(&catalog, Method::GET, &path, None).await;
    let names = |page: &Value| -> Vec<String> {
        let items = page["catalogs"].as_array().unwrap().iter();
        items.map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    };
    let mut listed = [names(&first), names(&second)].concat();
    listed.sort_unstable();
    assert_eq!(listed, ["a", "b", "c"]);
    assert!(second.get("next_page_token").is_none());
}

/// Scenario: credentials for a table on this machine and for one on a bucket.
/// Guarantees: none are needed for the first, none are there for the second.
#[tokio::test]
async fn local_files_need_no_credentials() {
    let folder = TempDir::new().unwrap();
    let catalog = open(&folder).await;
    let spec = spec("file:///data/t", &["a"]);
    ensure_table(&*catalog, &spec).await.unwrap();
    let id = catalog.table(&spec.name).await.unwrap().table_id.unwrap();
    let ask = |body: Value| {
        let catalog = Arc::clone(&catalog);
        async move { call(&catalog, Method::POST, "/temporary-table-credentials", Some(body)).await }
    };
    let (status, answer) = ask(json!({"table_id": id, "operation": "READ"})).await;
    assert_eq!((status, answer), (StatusCode::OK, json!({"url": "file:///data/t"})));
    let unknown = uuid::Uuid::nil().to_string();
    let (status, _) = ask(json!({"table_id": unknown, "operation": "READ"})).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let body = json!({"url": "s3://b/x", "operation": "PATH_READ"});
    let (status, _) = call(&catalog, Method::POST, "/temporary-path-credentials", Some(body)).await;
    assert_eq!(status, StatusCode::NOT_IMPLEMENTED);
}

/// Scenario: a file that is no database.
/// Guarantees: refused at once, with its path, and left as it is.
#[tokio::test]
async fn a_foreign_file_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("catalog.db");
    std::fs::write(&path, "not a database, but long enough to be taken for one ".repeat(4))
        .unwrap();
    let error = EmbeddedCatalog::open(&path).await.unwrap_err();
    assert!(error.to_string().contains("catalog.db"), "{error}");
}

/// Scenario: the file is garbage, cut, has a page of zeros, or tables of another program under the
/// names of its own; or a newer program migrated it.
/// Guarantees: a damaged one is moved aside as it was and another one works; a newer one is refused
/// and stays as it is.
#[tokio::test]
async fn a_damaged_file_is_made_again() {
    let origin = TempDir::new().unwrap();
    let catalog = open(&origin).await;
    let table = spec("file:///data/t/", &["a"]);
    ensure_table(&*catalog, &table).await.unwrap();
    catalog.close().await;
    let file = origin.path().join("catalog.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&file);
    let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
    // What is in the log beside the file.
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut connection).await.unwrap();
    sqlx::Connection::close(connection).await.unwrap();
    let good = std::fs::read(&file).unwrap();
    let changed = async |statements: &[&'static str]| {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("catalog.db");
        std::fs::write(&path, &good).unwrap();
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
        let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
        for statement in statements {
            sqlx::query(statement).execute(&mut connection).await.unwrap();
        }
        sqlx::Connection::close(connection).await.unwrap();
        std::fs::read(&path).unwrap()
    };
    let mut holed = good.clone();
    let end = holed.len();
    holed[4096..end].fill(0);
    let wrong = changed(&["UPDATE _sqlx_migrations SET checksum = x'00'"]).await;
    let cases = [
        b"garbage".repeat(1000),
        good[..good.len() / 2].to_vec(),
        holed,
        good[..50].to_vec(),
        wrong,
    ];
    for (number, bytes) in cases.into_iter().enumerate() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("catalog.db");
        let aside = folder.path().join("catalog.db.damaged-1");
        std::fs::write(&path, &bytes).unwrap();
        std::fs::write(folder.path().join("catalog.db-wal"), "left behind").unwrap();
        let (catalog, reason) = EmbeddedCatalog::open_or_rebuild(&path, &aside).await.unwrap();
        assert!(reason.is_some(), "case {number}");
        assert_eq!(std::fs::read(&aside).unwrap(), bytes, "case {number}");
        assert_eq!(ensure_table(&catalog, &table).await.unwrap(), Registration::Created);
        catalog.close().await;
        let (catalog, reason) = EmbeddedCatalog::open_or_rebuild(&path, &aside).await.unwrap();
        assert_eq!(reason, None, "case {number}");
        assert_eq!(ensure_table(&catalog, &table).await.unwrap(), Registration::Unchanged);
    }
    let newer = changed(&["INSERT INTO _sqlx_migrations SELECT 99991231, description, installed_on, success, checksum, execution_time FROM _sqlx_migrations LIMIT 1"]).await;
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("catalog.db");
    let aside = folder.path().join("aside");
    std::fs::write(&path, &newer).unwrap();
    let error = EmbeddedCatalog::open_or_rebuild(&path, &aside).await.unwrap_err();
    assert!(matches!(error, CatalogError::TooNew { version: 99_991_231, .. }), "{error}");
    assert_eq!((std::fs::read(&path).unwrap(), aside.try_exists().unwrap()), (newer, false));
}
