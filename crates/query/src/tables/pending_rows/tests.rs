//! Statements over files and pending rows together.

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Schema};
use serde_json::json;

use super::*;
use crate::fixture::{
    TestTable, ask, contract_schema, engine, engine_with, number, rows, schema, trace, traces,
};
use crate::session::{QueryLimits, QueryOptions};

const FAILED: &str =
    "select count(*) from traces where array_any_match(spans, s -> s['status'] = 'ERROR')";

/// Scenario: no file, only pending rows.
/// Guarantees: every form of query sees them.
#[tokio::test]
async fn pending_rows_alone_are_a_table() {
    let engine = engine(TestTable::new().with_pending_of(&schema(), &traces(0..40, 50)));
    assert_eq!(number(&engine, "select count(*) from traces").await, 40);
    assert_eq!(number(&engine, FAILED).await, 4);
    assert_eq!(number(&engine, "select sum(cardinality(spans)) from traces").await, 120);
    let output = ask(&engine, "select * from traces").await.unwrap();
    assert_eq!((rows(&output), output.schema.fields().len()), (40, schema().fields().len()));
    assert_eq!((output.metrics.bytes_scanned, output.metrics.table_bytes), (0, 0));
    assert_eq!(output.metrics.files_scanned, 0);
}

/// Scenario: files with heavy payloads, pending rows with the same, in one partition or many.
/// Guarantees: both are seen, narrow statements still read few bytes, and pending rows are not
/// counted as bytes or files.
#[tokio::test(flavor = "multi_thread")]
async fn files_and_pending_rows_are_one_table() {
    for partitions in [1, 3] {
        let table = TestTable::new()
            .with_file(&traces(0..600, 2_000), 200)
            .with_deletions(vec![0, 5], true)
            .with_file(&traces(600..1_200, 2_000), 200)
            .with_pending_of(&schema(), &traces(1_200..1_300, 2_000));
        let size = table.size_bytes();
        let engine = engine_with(table, QueryLimits { partitions, ..QueryLimits::default() });
        let cases = [
            (FAILED, 129),
            ("select count(*) from traces where trace_info.status = 'ERROR'", 129),
            ("select sum(cardinality(spans)) from traces", 3 * 1_298),
            (
                "select count(*) from (select unnest(spans) s from traces) \
                 where s['name'] = 'step 1'",
                1_298,
            ),
            ("select sum(error_span_count) from traces", 129),
            ("select count(*) from traces where tags['env'] = 'test'", 1_298),
            ("select count(*) from traces a join traces b using (trace_id)", 1_298),
        ];
        for (sql, expected) in cases {
            assert_eq!(number(&engine, sql).await, expected, "{sql}");
            let metrics = ask(&engine, sql).await.unwrap().metrics;
            assert!(metrics.bytes_scanned * 100 < size * 2, "{sql}: {metrics}");
            assert_eq!(metrics.files_scanned % 2, 0, "{sql}");
        }
        assert_eq!(number(&engine, "select count(*) from traces").await, 1_298);
        let all = ask(&engine, "select * from traces").await.unwrap();
        assert_eq!((rows(&all), all.metrics.table_bytes), (1_298, size));
        let explained = engine
            .explain(&FAILED.replace("traces", "production.monitoring.agent_traces"), &default())
            .await
            .unwrap();
        assert!(explained.contains(": spans.status\n"), "{explained}");
    }
}

fn default() -> QueryOptions {
    QueryOptions::default()
}

/// Scenario: limits, orders and ranges that files, pending rows or both can satisfy.
/// Guarantees: the right rows; ranges skip files and never pending rows.
#[tokio::test(flavor = "multi_thread")]
async fn limits_orders_and_ranges_span_both() {
    let table = TestTable::new()
        .with_file(&traces(0..100, 10), 50)
        .with_file(&traces(200..300, 10), 50)
        .with_pending_of(&schema(), &traces(100..200, 10));
    let engine = engine(table);
    for limit in [1, 99, 150, 299, 1_000] {
        let output = ask(&engine, &format!("select spans from traces limit {limit}")).await;
        assert_eq!(rows(&output.unwrap()), limit.min(300));
    }
    let sql = "select trace_id from traces order by created_at limit 20 offset 90";
    let output = ask(&engine, sql).await.unwrap();
    let ids: Vec<String> = output
        .batches
        .iter()
        .flat_map(|batch| {
            batch
                .column(0)
                .as_string::<i32>()
                .iter()
                .flatten()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect();
    let expected: Vec<String> = (90..110).map(|number| format!("tr-{number:032x}")).collect();
    assert_eq!(ids, expected);

    // Rows 150 to 199 are pending, 200 to 249 in the second file; the first file is skipped.
    let sql = "select count(*) from traces where created_at between \
               timestamp '2026-11-22T00:02:30Z' and timestamp '2026-11-22T00:04:09Z'";
    assert_eq!(number(&engine, sql).await, 100);
    let metrics = ask(&engine, sql).await.unwrap().metrics;
    assert_eq!((metrics.files_scanned, metrics.files_skipped), (1, 1), "{metrics:?}");
    // In no file at all.
    let sql = "select count(*) from traces where created_at between \
               timestamp '2026-11-22T00:02:30Z' and timestamp '2026-11-22T00:03:19Z'";
    assert_eq!(number(&engine, sql).await, 50);
    let sql = format!("select spans from traces where trace_id = 'tr-{:032x}'", 150);
    assert_eq!(rows(&ask(&engine, &sql).await.unwrap()), 1);
}

/// Scenario: pending rows without the added columns, and ones with a column more and a list
/// whose child has another name.
/// Guarantees: what is missing is null, what is too much is left out, the rest is matched by name.
#[tokio::test]
async fn pending_rows_of_other_schemas_fit() {
    let old_rows: Vec<_> = (20..40).map(|number| trace(number, 50, false)).collect();
    let mut odd_rows = traces(40..60, 50);
    for row in &mut odd_rows {
        row["extra"] = json!("never seen");
    }
    let table = TestTable::new()
        .with_file(&traces(0..20, 50), 8)
        .with_pending_of(&contract_schema(), &old_rows)
        .with_pending_of(&odd_schema(), &odd_rows);
    let engine = engine(table);
    assert_eq!(number(&engine, "select count(*) from traces").await, 60);
    let sql = "select count(*) from (select unnest(spans) s from traces) where s['kind'] is null";
    assert_eq!(number(&engine, sql).await, 60);
    let sql = "select count(*) from traces where array_any_match(spans, s -> s['kind'] = 'CLIENT')";
    assert_eq!(number(&engine, sql).await, 40);
    assert_eq!(number(&engine, "select count(*) from traces where span_count is null").await, 20);
    assert_eq!(number(&engine, FAILED).await, 6);
    let output = ask(&engine, "select * from traces").await.unwrap();
    assert_eq!((rows(&output), output.schema.fields()), (60, schema().fields()));
    ask(&engine, "select extra from traces").await.expect_err("not a column of the table");
}

/// The whole schema turned around, with another name for list children and a column more.
fn odd_schema() -> SchemaRef {
    let full = schema();
    let mut fields: Vec<Field> = full
        .fields()
        .iter()
        .rev()
        .map(|field| match field.data_type() {
            DataType::List(element) => {
                let item = Arc::new(element.as_ref().clone().with_name("item"));
                field.as_ref().clone().with_data_type(DataType::List(item))
            }
            _ => field.as_ref().clone(),
        })
        .collect();
    fields.insert(0, Field::new("extra", DataType::Utf8, true));
    Arc::new(Schema::new(fields))
}

/// Scenario: many pending rows in one batch, twice as heavy as the memory that a statement may use.
/// Guarantees: a few rows of them can be had, sorting a light column does not count the heavy ones.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_pending_batch_is_read_in_pieces() {
    let table = TestTable::new().with_pending_of(&schema(), &traces(0..20_000, 100));
    let limits = QueryLimits { memory_bytes: 8 << 20, ..QueryLimits::default() };
    let engine = engine_with(table, limits);
    assert_eq!(rows(&ask(&engine, "select * from traces limit 10").await.unwrap()), 10);
    assert_eq!(number(&engine, "select count(distinct trace_id) from traces").await, 20_000);
    let sql = "select trace_id from traces order by created_at desc";
    assert_eq!(rows(&ask(&engine, sql).await.unwrap()), 20_000);
    assert_eq!(number(&engine, FAILED).await, 2_000);
    ask(&engine, "select * from traces").await.expect_err("more than memory holds");
}
