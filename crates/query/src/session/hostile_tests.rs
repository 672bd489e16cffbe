//! Statements made to harm: each ends with an error of its own, in little time and memory.

use std::time::Instant;

use super::*;
use crate::fixture::{TestTable, ask, engine_with, number, table_name, traces};

fn small_engine() -> QueryEngine {
    let limits =
        QueryLimits { memory_bytes: 64 << 20, time: Duration::from_secs(20), partitions: 2 };
    engine_with(TestTable::new().with_file(&traces(0..20, 10), 10), limits)
}

fn repeated(count: usize, separator: &str, part: impl Fn(usize) -> String) -> String {
    (0..count).map(part).collect::<Vec<_>>().join(separator)
}

/// A chain of common table expressions, each of which names the one before `names` times.
fn chain(count: usize, names: usize) -> String {
    let body = |index: usize| {
        if index == 0 {
            return "c0 as (select 1 a)".to_owned();
        }
        let from = repeated(names, ", ", |name| format!("c{} t{name}", index - 1));
        format!("c{index} as (select t0.a from {from})")
    };
    format!("with {} select count(*) from c{}", repeated(count, ", ", body), count - 1)
}

/// Scenario: operators, joins, unions, subqueries and common table expressions by the thousand.
/// Guarantees: refused before they are planned, whatever form the levels have.
#[tokio::test(flavor = "multi_thread")]
async fn deep_statements_are_refused() {
    let engine = small_engine();
    for count in [500, 4_000, 100_000] {
        for sql in [
            format!("select {}", repeated(count, " + ", |_| "1".into())),
            format!("select {}", repeated(count, " || ", |_| "'a'".into())),
            format!("select 1 where {}", repeated(count, " or ", |n| format!("1 = {n}"))),
            format!("select 1 where {}", repeated(count, " and ", |n| format!("(1 = {n})"))),
            format!("select 1{}", "::int".repeat(count)),
            format!("select 1{}", " is null".repeat(count)),
            format!("select {}", "not ".repeat(count)),
            format!("select {}1", "- ".repeat(count)),
            format!("select {}1{}", "(".repeat(count), ")".repeat(count)),
            format!("select {}1{}", "case when true then ".repeat(count), " end".repeat(count)),
            format!("select {}1{}", "abs(".repeat(count), ")".repeat(count)),
            format!("select {}1{}", "[".repeat(count), "]".repeat(count)),
            format!("select {}1{}", "(select ".repeat(count), ")".repeat(count)),
            repeated(count, " union all ", |_| "select 1".into()),
            repeated(count, " union ", |_| "(select 1)".into()),
            format!("select 1 from {}", repeated(count, ", ", |n| format!("(values (1)) t{n}"))),
            format!(
                "select 1 from {}",
                repeated(count, " cross join ", |n| format!("traces t{n}"))
            ),
            chain(count, 1),
            format!("{} select 1", "explain ".repeat(count)),
        ] {
            let error = ask(&engine, &sql).await.expect_err(sql.get(..80).unwrap_or(&sql));
            let is_refused = matches!(
                error,
                QueryError::TooComplex { .. } | QueryError::Syntax { .. } | QueryError::Plan { .. }
            );
            assert!(is_refused, "{count}: {error:?}: {:?}", sql.get(..80));
            assert!(error.to_string().len() < 1_000, "{error}");
        }
    }
}

/// Scenario: twenty table expressions, each naming the one before twice: a million tables; a cube
/// of twenty columns: a million groupings.
/// Guarantees: refused at once.
#[tokio::test(flavor = "multi_thread")]
async fn exponential_statements_are_refused() {
    let engine = small_engine();
    let started = Instant::now();
    let cube = repeated(20, ", ", |n| format!("trace_id || '{n}'"));
    let cube = format!("select count(*) from traces group by cube({cube})");
    for sql in [chain(20, 2), chain(100, 2), chain(8, 20), cube] {
        let error = ask(&engine, &sql).await.unwrap_err();
        assert!(matches!(error, QueryError::TooComplex { .. }), "{error:?}");
        assert!(error.hint().is_some());
    }
    assert!(started.elapsed() < Duration::from_secs(5));
}

/// Scenario: statements as people and programs write them, near the limits.
/// Guarantees: they run, on threads of any stack.
#[tokio::test(flavor = "multi_thread")]
async fn large_ordinary_statements_run() {
    let engine = small_engine();
    let ids = repeated(20_000, ", ", |n| format!("'tr-{n:032x}'"));
    let sql = format!("select count(*) from traces where trace_id in ({ids})");
    assert_eq!(number(&engine, &sql).await, 20);
    let ors = repeated(150, " or ", |n| format!("trace_id = 'tr-{n:032x}'"));
    assert_eq!(number(&engine, &format!("select count(*) from traces where {ors}")).await, 20);
    let sum = repeated(350, " + ", |_| "span_count".into());
    assert_eq!(number(&engine, &format!("select min({sum}) from traces")).await, 1_050);
    let columns = repeated(1_000, ", ", |n| format!("{n} as c{n}"));
    assert!(ask(&engine, &format!("select {columns} from traces")).await.is_ok());
    let rows = repeated(5_000, ", ", |n| format!("({n}, 'x')"));
    assert_eq!(number(&engine, &format!("select count(*) from (values {rows}) v")).await, 5_000);
    let union = repeated(50, " union all ", |_| "select count(*) n from traces".into());
    assert_eq!(number(&engine, &format!("select sum(n) from ({union})")).await, 1_000);
    assert_eq!(number(&engine, &chain(40, 1)).await, 1);
}

/// Scenario: ten megabytes of statement, of each kind of token.
/// Guarantees: refused for its length, not parsed.
#[tokio::test(flavor = "multi_thread")]
async fn long_statements_are_refused() {
    let engine = small_engine();
    let filler = "x".repeat(10 << 20);
    for sql in [
        format!("select '{filler}'"),
        format!("select {filler}"),
        format!("-- {filler}\nselect 1"),
        format!("/* {filler} */ select 1"),
        "(".repeat(10 << 20),
        "1,".repeat(5 << 20),
    ] {
        let error = ask(&engine, &sql).await.unwrap_err();
        let expected =
            QueryError::TooComplex { what: "bytes", limit: complexity::MAX_STATEMENT_BYTES };
        assert_eq!(error.to_string(), expected.to_string());
    }
}

/// Scenario: one call that would make gigabytes, of constants, of columns, by each function that
/// can.
/// Guarantees: refused before it is made; reasonable sizes are made.
#[tokio::test(flavor = "multi_thread")]
async fn functions_that_make_much_of_little_are_bounded() {
    let engine = small_engine();
    for sql in [
        "select repeat('x', 2000000000)",
        "select length(repeat('x', 2000000000))",
        "select repeat(trace_id, 2000000000) from traces",
        "select length(lpad('x', 2000000000, 'y'))",
        "select rpad(trace_id, 1000000000) from traces",
        "select array_repeat('x', 1000000000)",
        "select array_repeat(spans, 100000000) from traces",
        "select array_resize([1], 1000000000, 1)",
        "select range(0, 1000000000000)",
        "select generate_series(-9223372036854775808, 9223372036854775807)",
        "select generate_series(0, 1000000000, 2)",
        "select range(timestamp '1970-01-01', timestamp '2100-01-01', interval '1' second)",
        "select replace(repeat('a', 30000), 'a', repeat('b', 100000))",
    ] {
        let started = Instant::now();
        let error = ask(&engine, sql).await.expect_err(sql);
        assert!(
            matches!(error, QueryError::MemoryLimit { .. } | QueryError::Execution { .. }),
            "{sql}: {error:?}"
        );
        assert!(started.elapsed() < Duration::from_secs(5), "{sql}");
    }
    for (sql, expected) in [
        ("select length(repeat('ab', 1000000))", 2_000_000),
        ("select sum(length(lpad(trace_id, 1000, '*'))) from traces", 20_000),
        ("select length(replace('a.b.c', '.', '--'))", 7),
        ("select cardinality(array_repeat(1, 1000))", 1_000),
        ("select cardinality(array_resize([1], 10, 0))", 10),
        ("select cardinality(range(0, 100000))", 100_000),
        ("select cardinality(generate_series(10, 1, -1))", 10),
        (
            "select cardinality(range(timestamp '2026-01-01', timestamp '2026-01-02', interval '1' minute))",
            1_440,
        ),
        ("select count(*) from (select unnest(range(0, 1000)) n)", 1_000),
        ("select count(*) from generate_series(1, 100000)", 100_000),
    ] {
        assert_eq!(number(&engine, sql).await, expected, "{sql}");
    }
}

/// Scenario: one step that takes hours, on constants and on rows.
/// Guarantees: the answer comes at the time limit, though the step goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_step_that_does_not_pause_meets_the_time_limit() {
    let limits = QueryLimits { time: Duration::from_millis(500), ..QueryLimits::default() };
    let engine = engine_with(TestTable::new().with_file(&traces(0..20, 10), 10), limits);
    let started = Instant::now();
    let sql = "select levenshtein(repeat('a', 150000), repeat('b', 150000))";
    let error = ask(&engine, sql).await.unwrap_err();
    assert!(matches!(error, QueryError::TimeLimit { .. }), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

/// Scenario: a statement whose future is dropped.
/// Guarantees: it stops, and gives its memory back.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_statement_stops() {
    let engine = small_engine();
    let options = QueryOptions { default_table: Some(table_name()), ..QueryOptions::default() };
    let sql =
        "select count(*) from (select value from generate_series(1, 100000000000) order by -value)";
    let begun = Instant::now();
    let query = engine.query(sql, &options);
    assert!(tokio::time::timeout(Duration::from_millis(50), query).await.is_err());
    while 0 < engine.runtime.memory_pool.reserved() {
        assert!(begun.elapsed() < Duration::from_secs(15), "memory is still held");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Scenario: a statement that occupies each of its threads for as long as it may run, asked on a
/// runtime with as few threads as it has partitions.
/// Guarantees: the caller's runtime goes on, since requests come in there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_statement_leaves_the_callers_runtime_alone() {
    let limits =
        QueryLimits { memory_bytes: 64 << 20, time: Duration::from_secs(3), partitions: 2 };
    let engine = engine_with(TestTable::new().with_file(&traces(0..20, 10), 10), limits);
    let sql = "select count(*) from generate_series(1, 200000) a, generate_series(1, 20000) b \
               where a.value * b.value = -3";
    #[expect(clippy::disallowed_methods, reason = "awaited below")]
    let asked = tokio::spawn(async move { ask(&engine, sql).await });
    let mut longest = Duration::ZERO;
    while !asked.is_finished() {
        let begun = Instant::now();
        tokio::time::sleep(Duration::from_millis(10)).await;
        longest = longest.max(begun.elapsed());
    }
    assert!(matches!(asked.await.unwrap(), Err(QueryError::TimeLimit { .. })));
    assert!(longest < Duration::from_secs(2), "{longest:?}");
}
