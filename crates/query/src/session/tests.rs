//! Statements over real Parquet files: right answers, few bytes, refusals, limits.

use std::time::Instant;

use arrow::array::{Array, AsArray};
use arrow::util::pretty::pretty_format_batches;
use serde_json::Value;
use tracelake_model::{Clock, SystemClock};

use super::*;
use crate::analyses;
use crate::fixture::{
    START_MICROS, TestTable, ask, contract_schema, engine, engine_with, number, rows, schema,
    table_name, trace, traces,
};

const TABLE: &str = "production.monitoring.agent_traces";

fn text(output: &QueryOutput) -> String {
    pretty_format_batches(&output.batches).unwrap().to_string()
}

fn heavy_table() -> TestTable {
    TestTable::new()
        .with_file(&traces(0..600, 2_000), 200)
        .with_file(&traces(600..1_200, 2_000), 200)
}

/// Scenario: two files of three row groups each, payloads of 2 KB per span and side.
/// Guarantees: statements that name few leaves read a small share of what `SELECT *` reads, and
/// give the same answers as over whole columns.
#[tokio::test(flavor = "multi_thread")]
async fn narrow_statements_read_few_bytes() {
    let table = heavy_table();
    let size = table.size_bytes();
    let engine = engine(table);
    let all = ask(&engine, "select * from traces").await.unwrap();
    assert_eq!(rows(&all), 1_200);
    assert!(size * 9 / 10 < all.metrics.bytes_scanned, "{:?} of {size}", all.metrics);
    assert_eq!(all.metrics.table_bytes, size);

    let cases = [
        (
            "select count(*) from traces where array_any_match(spans, s -> s['status'] = 'ERROR')",
            120,
        ),
        ("select count(*) from traces where trace_info.status = 'ERROR'", 120),
        ("select sum(cardinality(spans)) from traces", 3_600),
        (
            "select count(*) from (select unnest(spans) s from traces) where s['name'] = 'step 1'",
            1_200,
        ),
        ("select sum(error_span_count) from traces", 120),
    ];
    for (sql, expected) in cases {
        assert_eq!(number(&engine, sql).await, expected, "{sql}");
        let metrics = ask(&engine, sql).await.unwrap().metrics;
        assert!(metrics.bytes_scanned * 100 < size, "{sql}: {metrics}");
    }
    // The log knows the row count.
    assert_eq!(number(&engine, "select count(*) from traces").await, 1_200);
    assert_eq!(ask(&engine, "select count(*) from traces").await.unwrap().metrics.bytes_scanned, 0);
}

/// Scenario: ranges of created_at, a trace id, a limit.
/// Guarantees: files are skipped by the log, row groups by statistics and bloom filters.
#[tokio::test(flavor = "multi_thread")]
async fn files_and_row_groups_are_skipped() {
    let engine = engine(heavy_table());
    let sql = "select count(*) from traces where created_at >= timestamp '2026-11-22T00:15:00Z'";
    assert_eq!(number(&engine, sql).await, 300);
    let metrics = ask(&engine, sql).await.unwrap().metrics;
    assert_eq!((metrics.files_scanned, metrics.files_skipped), (1, 1), "{metrics:?}");
    assert!(0 < metrics.row_groups_pruned, "{metrics:?}");

    let sql = format!(
        "select spans from traces where trace_id = '{}'",
        "tr-0000000000000000000000000000000b"
    );
    let output = ask(&engine, &sql).await.unwrap();
    assert_eq!(rows(&output), 1);
    assert_eq!(output.metrics.row_groups_pruned, 5, "{:?}", output.metrics);

    let output = ask(&engine, "select trace_id from traces limit 3").await.unwrap();
    assert_eq!(rows(&output), 3);
}

/// Scenario: deletion vectors over row group borders, one file whose row count is not known.
/// Guarantees: deleted rows are not seen by any form of query, in one partition or in many.
#[tokio::test(flavor = "multi_thread")]
async fn deleted_rows_are_not_seen() {
    for (partitions, count_known) in [(1, true), (4, true), (4, false)] {
        let deleted: Vec<u64> = (0..10).chain([99, 100, 101, 350, 599]).collect();
        let table = TestTable::new()
            .with_file(&traces(0..600, 2_000), 100)
            .with_deletions(deleted.clone(), count_known)
            .with_file(&traces(600..700, 10), 100);
        let limits = QueryLimits { partitions, ..QueryLimits::default() };
        let engine = engine_with(table, limits);
        let gone = i64::try_from(deleted.len()).unwrap();
        assert_eq!(number(&engine, "select count(*) from traces").await, 700 - gone);
        assert_eq!(
            number(&engine, "select count(distinct trace_id) from traces").await,
            700 - gone
        );
        assert_eq!(
            number(&engine, "select sum(cardinality(spans)) from traces").await,
            3 * (700 - gone)
        );
        // Of the deleted, 0, 100 and 350 are failed ones.
        let sql =
            "select count(*) from traces where array_any_match(spans, s -> s['status']='ERROR')";
        assert_eq!(number(&engine, sql).await, 70 - 3);
        let sql = "select count(*) from traces where trace_info.status = 'ERROR' and error_span_count = 1";
        assert_eq!(number(&engine, sql).await, 70 - 3);
        let sql = format!("select * from traces where trace_id = 'tr-{:032x}'", 350);
        assert_eq!(rows(&ask(&engine, &sql).await.unwrap()), 0);
        let output = ask(&engine, "select trace_id from traces order by created_at limit 1").await;
        assert!(text(&output.unwrap()).contains("tr-0000000000000000000000000000000a"));
        let output = ask(&engine, "select trace_id from traces limit 695").await.unwrap();
        assert_eq!(i64::try_from(rows(&output)).unwrap(), 700 - gone);
    }
}

/// Scenario: a deletion vector that names rows the file does not have.
/// Guarantees: an error, not an answer.
#[tokio::test]
async fn a_foreign_deletion_vector_is_an_error() {
    let table = TestTable::new().with_file(&traces(0..10, 10), 10).with_deletions(vec![10], true);
    let error = ask(&engine(table), "select trace_id from traces").await.unwrap_err();
    assert!(error.to_string().contains("deletion vector"), "{error}");
}

/// Scenario: a file written before the added columns and span fields existed.
/// Guarantees: they read as null, also when a statement uses nothing but such fields.
#[tokio::test]
async fn files_without_the_added_columns_read_as_null() {
    let old = contract_schema();
    let seed_rows: Vec<Value> = (0..20).map(|number| trace(number, 50, false)).collect();
    let table =
        TestTable::new().with_file_of(&old, &seed_rows, 8).with_file(&traces(20..40, 50), 8);
    let engine = engine(table);
    let sql = "select count(*) from (select unnest(spans) s from traces) where s['kind'] is null";
    assert_eq!(number(&engine, sql).await, 60);
    let sql = "select count(*) from traces where array_any_match(spans, s -> s['kind'] = 'CLIENT')";
    assert_eq!(number(&engine, sql).await, 20);
    assert_eq!(number(&engine, "select count(*) from traces where span_count is null").await, 20);
    assert_eq!(rows(&ask(&engine, "select * from traces").await.unwrap()), 40);
}

/// Scenario: a table without files.
/// Guarantees: every form of query answers with the right columns and no rows.
#[tokio::test]
async fn an_empty_table_answers() {
    let engine = engine(TestTable::new());
    assert_eq!(number(&engine, "select count(*) from traces").await, 0);
    let output = ask(&engine, "select * from traces").await.unwrap();
    assert_eq!((rows(&output), output.schema.fields().len()), (0, schema().fields().len()));
    let sql = "select trace_info.status, spans[1]['name'] from traces where created_at > now()";
    assert_eq!(rows(&ask(&engine, sql).await.unwrap()), 0);
    let range = analyses::TimeRange::default();
    for analysis in [analyses::traces, analyses::errors, analyses::performance] {
        assert_eq!(
            rows(&ask(&engine, &analysis(&table_name(), range, None).sql).await.unwrap()),
            0
        );
    }
}

/// Scenario: traces of a table whose times are known, asked for by their age.
/// Guarantees: `now()` and its like work in a filter, a projection and below an aggregate, are the
/// time of this statement, and the same wherever the statement says them.
#[tokio::test]
async fn statements_may_ask_for_the_time() {
    let engine = engine(TestTable::new().with_file(&traces(0..40, 10), 10));
    let since = "select count(*) from traces where created_at > ";
    assert_eq!(number(&engine, &format!("{since}now() - interval '36500' day")).await, 40);
    assert_eq!(number(&engine, &format!("{since}now() + interval '36500' day")).await, 0);
    assert_eq!(
        number(&engine, &format!("{since}current_timestamp - interval '100' year")).await,
        40
    );
    assert_eq!(number(&engine, &format!("{since}current_date() - interval '100' year")).await, 40);
    let sql = "select count(*) from traces where now() = (select max(now()) from traces)";
    assert_eq!(number(&engine, sql).await, 40);

    let sql = "select cast(to_unixtime(now()) as bigint) from traces limit 1";
    let before = SystemClock.now_unix_nano() / 1_000_000_000;
    let said = u64::try_from(number(&engine, sql).await).unwrap();
    let after = SystemClock.now_unix_nano() / 1_000_000_000;
    assert!((before..=after).contains(&said), "{before} {said} {after}");
    let options = QueryOptions { default_table: Some(table_name()), ..QueryOptions::default() };
    let explained = engine.explain(&format!("{since}now()"), &options).await.unwrap();
    assert!(explained.contains("files scanned"), "{explained}");
}

/// Scenario: every statement that changes something, or reads what is not a table.
/// Guarantees: refused with a hint; queries and descriptions pass.
#[tokio::test]
async fn only_reading_is_allowed() {
    let engine = engine(TestTable::new().with_file(&traces(0..10, 10), 10));
    for sql in [
        "create table x as select 1",
        "create external table x stored as parquet location '/etc'",
        "create view v as select * from traces",
        "drop table production.monitoring.agent_traces",
        "insert into traces select * from traces",
        "update traces set run_id = 'x'",
        "delete from traces",
        "truncate table traces",
        "copy traces to '/tmp/x.parquet'",
        "copy (select 1) to 'x.csv'",
        "set datafusion.execution.batch_size = 1",
        "reset datafusion.execution.batch_size",
        "explain insert into traces select * from traces",
        "explain analyze delete from traces",
        "prepare p as select 1",
        "begin",
        "use other",
        "with x as (select 1) insert into traces select * from traces",
    ] {
        let error = ask(&engine, sql).await.unwrap_err();
        assert!(
            matches!(error, QueryError::ReadOnly { .. } | QueryError::Syntax { .. }),
            "{sql}: {error:?}"
        );
    }
    let error = ask(&engine, "select 1; select 2").await.unwrap_err();
    assert!(matches!(error, QueryError::Syntax { .. }), "{error:?}");
    for sql in [
        "select * from '/etc/passwd'",
        "select * from 'file:///etc/passwd.csv'",
        "select * from read_parquet('/x.parquet')",
        "select * into y from traces",
    ] {
        ask(&engine, sql).await.expect_err(sql);
    }
    for sql in [
        "values (1), (2)",
        "with x as (select 1 as a) select * from x",
        "explain select * from traces",
        "explain analyze select trace_id from traces",
        "show tables",
        "describe production.monitoring.agent_traces",
        "show columns from production.monitoring.agent_traces",
        "select * from generate_series(1, 3)",
    ] {
        ask(&engine, sql).await.expect(sql);
    }
    let columns = text(&ask(&engine, "describe traces").await.unwrap());
    assert!(columns.contains("inputs"), "{columns}");
    let listed = text(&ask(&engine, "show tables").await.unwrap());
    assert!(listed.contains("agent_traces"), "{listed}");
}

/// Scenario: names that do not exist.
/// Guarantees: the error names them, the hint what there is.
#[tokio::test]
async fn unknown_names_are_explained() {
    let engine = engine(TestTable::new().with_file(&traces(0..10, 10), 10));
    let error = ask(&engine, "select * from production.monitoring.agent_trace").await.unwrap_err();
    assert_eq!(error.to_string(), "unknown table `production.monitoring.agent_trace`");
    assert_eq!(error.hint().unwrap(), format!("tables that exist: {TABLE}"));
    let error = ask(&engine, "select trace_idd from traces").await.unwrap_err();
    assert_eq!(error.to_string(), "unknown column `trace_idd`");
    assert!(error.hint().unwrap().starts_with("did you mean: trace_id"), "{:?}", error.hint());
    let error = ask(&engine, "select * from '/etc/passwd'").await.unwrap_err();
    assert!(error.hint().unwrap().contains("files"), "{error:?}");
    let no_default = QueryOptions::default();
    assert!(engine.query("select * from traces", &no_default).await.is_err());
    let sql = format!("select count(*) from {TABLE}");
    assert!(engine.query(&sql, &no_default).await.is_ok());
    assert!(engine.query(&sql.replace("production", "Production"), &no_default).await.is_ok());
}

/// Scenario: sorting and returning more than the limit, an endless count, a row limit.
/// Guarantees: each ends with its own error, in time; the row limit cuts and says so.
#[tokio::test(flavor = "multi_thread")]
async fn limits_hold() {
    let limits =
        QueryLimits { memory_bytes: 1 << 20, time: Duration::from_millis(700), partitions: 2 };
    let engine = engine_with(TestTable::new().with_file(&traces(0..2_000, 500), 500), limits);
    let error = ask(&engine, "select * from traces order by spans[1]['inputs']").await.unwrap_err();
    assert!(matches!(error, QueryError::MemoryLimit { .. }), "{error:?}");
    let error = ask(&engine, "select * from traces").await.unwrap_err();
    assert!(matches!(error, QueryError::MemoryLimit { .. }), "{error:?}");

    let started = Instant::now();
    let sql = "select count(*) from generate_series(1, 100000000) a, generate_series(1, 100000000) b \
               where a.value + b.value = 3";
    let error = ask(&engine, sql).await.unwrap_err();
    assert!(
        matches!(error, QueryError::TimeLimit { .. } | QueryError::MemoryLimit { .. }),
        "{error:?}"
    );
    assert!(started.elapsed() < Duration::from_secs(20));
    let patient = QueryLimits { time: Duration::from_millis(300), ..QueryLimits::default() };
    let series = engine_with(TestTable::new(), patient);
    let error = ask(&series, "select sum(value) from generate_series(1, 1000000000000)").await;
    assert!(matches!(error, Err(QueryError::TimeLimit { .. })), "{error:?}");

    let options = QueryOptions {
        default_table: Some(table_name()),
        max_rows: Some(7),
        ..QueryOptions::default()
    };
    let output = engine.query("select trace_id from traces", &options).await.unwrap();
    assert_eq!((rows(&output), output.truncated), (7, true));
    let output = engine.query("select trace_id from traces limit 7", &options).await.unwrap();
    assert_eq!((rows(&output), output.truncated), (7, false));
}

/// Scenario: the explanation of an error count.
/// Guarantees: it names the leaves that were read and the share of the bytes.
#[tokio::test(flavor = "multi_thread")]
async fn the_explanation_names_leaves_and_bytes() {
    let engine = engine(heavy_table());
    let options = QueryOptions { default_table: Some(table_name()), ..QueryOptions::default() };
    let sql =
        "select count(*) from traces where array_any_match(spans, s -> s['status'] = 'ERROR')";
    let explained = engine.explain(sql, &options).await.unwrap();
    assert!(explained.contains(&format!("leaves of {TABLE}: spans.status\n")), "{explained}");
    assert!(explained.contains("bytes scanned: "), "{explained}");
    assert!(explained.contains("(0."), "{explained}");
}

/// Scenario: the ready-made analyses over rows with and without summary columns.
/// Guarantees: both kinds give the same columns and the same answers.
#[tokio::test(flavor = "multi_thread")]
async fn analyses_answer_with_and_without_summaries() {
    let seed_rows: Vec<Value> = (0..20).map(|number| trace(number, 50, false)).collect();
    let table = TestTable::new()
        .with_file_of(&contract_schema(), &seed_rows, 8)
        .with_file(&traces(20..40, 50), 8);
    let engine = engine(table);
    let range = analyses::TimeRange::default();

    let analysis = analyses::errors(&table_name(), range, None);
    let output = ask(&engine, &analysis.sql).await.unwrap();
    assert_columns(&output, analysis.columns);
    let errors = text(&output);
    assert_eq!(rows(&output), 4, "{errors}");
    assert!(errors.contains("| r30        |") && errors.contains("| r0         |"), "{errors}");
    assert!(errors.contains("step 1") && errors.contains("out of luck"), "{errors}");

    let analysis = analyses::performance(&table_name(), range, None);
    let output = ask(&engine, &analysis.sql).await.unwrap();
    assert_columns(&output, analysis.columns);
    let performance = text(&output);
    assert_eq!(rows(&output), 40, "{performance}");
    assert_eq!(
        performance.matches("| 3          | 1.5               | 0.5                  |").count(),
        40,
        "{performance}"
    );

    let newest = analyses::TimeRange {
        since_micros: Some(START_MICROS + 5_000_000),
        until_micros: Some(START_MICROS + 35_000_000),
    };
    let analysis = analyses::traces(&table_name(), newest, Some(25));
    let output = ask(&engine, &analysis.sql).await.unwrap();
    assert_columns(&output, analysis.columns);
    let listed = text(&output);
    assert_eq!(rows(&output), 25, "{listed}");
    let first = output.batches[0].column(0).as_string::<i32>().value(0).to_owned();
    assert_eq!(first, format!("tr-{:032x}", 35));
    let spans = output.batches[0].column_by_name("span_count").unwrap();
    assert_eq!(spans.null_count(), 0, "{listed}");
}

fn assert_columns(output: &QueryOutput, columns: &[analyses::AnalysisColumn]) {
    let expected: Vec<&str> = columns.iter().map(|column| column.name).collect();
    let found: Vec<&str> =
        output.schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(found, expected);
}

/// Scenario: names from Spark.
/// Guarantees: they give the same as DataFusion's own, and narrow as well.
#[tokio::test]
async fn names_from_spark_work() {
    let engine = engine(TestTable::new().with_file(&traces(0..20, 10), 10));
    let sql = "select count(*) from traces where cardinality(filter(spans, s -> s['status'] = 'ERROR')) > 0";
    assert_eq!(number(&engine, sql).await, 2);
    let sql = "select min(unix_timestamp(created_at)) from traces";
    assert_eq!(number(&engine, sql).await, START_MICROS / 1_000_000);
}
