//! The grouped analyses over real Parquet files: right numbers, few leaves.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use serde_json::{Value, json};
use tracelake_model::schema::traces_schema;

use super::*;
use crate::fixture::{START_MICROS, TestTable, ask, contract_schema, engine, rows, table_name};
use crate::session::{QueryEngine, QueryOptions, QueryOutput};

const GROUPINGS: [Grouping; 5] =
    [Grouping::SpanName, Grouping::SpanType, Grouping::Model, Grouping::Experiment, Grouping::Hour];

/// A finished span with nanoseconds as tracelake writes it.
fn span(name: &str, start_nano: i64, duration_nano: i64) -> Value {
    let end_nano = start_nano + duration_nano;
    json!({
        "span_id": "00", "name": name, "status": "UNSET",
        "start_time": start_nano / 1_000, "end_time": end_nano / 1_000,
        "start_time_unix_nano": start_nano, "end_time_unix_nano": end_nano,
    })
}

fn with(mut value: Value, fields: Value) -> Value {
    for (key, field) in fields.as_object().unwrap() {
        value[key] = field.clone();
    }
    value
}

/// A row; summaries come from `fields`.
fn row(number: i64, request_micros: i64, status: &str, spans: Vec<Value>, fields: Value) -> Value {
    let row = json!({
        "trace_id": format!("tr-{number:032x}"),
        "experiment_id": "0",
        "trace_info": {"request_id": "r", "timestamp": request_micros, "status": status},
        "spans": spans,
        "created_at": START_MICROS + number,
    });
    with(row, fields)
}

/// The row's summaries as given: spans, failed spans, nanoseconds, milliseconds, tokens.
fn sums(spans: i64, errors: i64, total_ns: i64, duration_ms: i64, tokens: i64) -> Value {
    json!({
        "span_count": spans, "error_span_count": errors, "total_span_duration_ns": total_ns,
        "execution_duration_ms": duration_ms, "input_tokens": tokens, "total_tokens": tokens,
    })
}

async fn grouped(engine: &QueryEngine, grouping: Grouping) -> QueryOutput {
    let analysis = performance_by(&table_name(), grouping, TimeRange::default(), None);
    let output = ask(engine, &analysis.sql).await.unwrap();
    assert_columns(&output, analysis.columns);
    output
}

async fn error_grouped(engine: &QueryEngine) -> QueryOutput {
    let analysis = error_groups(&table_name(), TimeRange::default(), None);
    let output = ask(engine, &analysis.sql).await.unwrap();
    assert_columns(&output, analysis.columns);
    output
}

fn assert_columns(output: &QueryOutput, columns: &[AnalysisColumn]) {
    let expected: Vec<&str> = columns.iter().map(|column| column.name).collect();
    let found: Vec<&str> =
        output.schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(found, expected);
}

fn column_of(output: &QueryOutput, name: &str) -> arrow::array::ArrayRef {
    let arrays: Vec<&dyn Array> =
        output.batches.iter().map(|batch| batch.column_by_name(name).unwrap().as_ref()).collect();
    arrow::compute::concat(&arrays).unwrap()
}

fn texts(output: &QueryOutput, name: &str) -> Vec<Option<String>> {
    let column = column_of(output, name);
    column.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
}

fn longs(output: &QueryOutput, name: &str) -> Vec<Option<i64>> {
    let column = column_of(output, name);
    let column = arrow::compute::cast(&column, &DataType::Int64).unwrap();
    column.as_primitive::<Int64Type>().iter().collect()
}

fn doubles(output: &QueryOutput, name: &str) -> Vec<Option<f64>> {
    column_of(output, name).as_primitive::<Float64Type>().iter().collect()
}

fn some<T: ToOwned + ?Sized>(values: &[&T]) -> Vec<Option<T::Owned>> {
    values.iter().map(|value| Some((*value).to_owned())).collect()
}

/// Scenario: spans with odd times, tokens, models and types, in rows of tracelake and of another
/// writer.
/// Guarantees: counts, exact sums, means over known durations, tokens; most time first; spans of
/// another writer count with microseconds; spans without a model are no model's.
#[tokio::test(flavor = "multi_thread")]
async fn spans_are_grouped_with_exact_sums() {
    let at = START_MICROS * 1_000;
    let llm = json!({
        "span_type": "LLM", "model": "m", "input_tokens": 3, "output_tokens": 4, "total_tokens": 7,
    });
    let own = row(
        1,
        START_MICROS,
        "OK",
        vec![
            with(span("a", at, 1_000_000_001), llm.clone()),
            with(span("a", at + 7, 999_999_998), with(llm, json!({"status": "ERROR"}))),
            span("reversed", at, -5),
            with(span("no end", at, 1), json!({"end_time_unix_nano": 0, "end_time": null})),
            with(span("no start", at, 1), json!({"start_time_unix_nano": 0, "start_time": null})),
        ],
        sums(5, 1, 1_999_999_994, 1_000, 14),
    );
    let foreign = row(
        2,
        START_MICROS,
        "OK",
        vec![json!({
            "name": "a", "status": "OK", "span_type": "TOOL",
            "start_time": START_MICROS, "end_time": START_MICROS + 2,
        })],
        json!({}),
    );
    let table = TestTable::of(traces_schema()).with_file(&[own], 8).with_file_of(
        &contract_schema(),
        &[foreign],
        8,
    );
    let engine = engine(table);

    let names = grouped(&engine, Grouping::SpanName).await;
    assert_eq!(texts(&names, "span_name"), some(&["a", "no end", "no start", "reversed"]));
    assert_eq!(longs(&names, "span_count"), [3, 1, 1, 1].map(Some));
    assert_eq!(longs(&names, "error_span_count"), [1, 0, 0, 0].map(Some));
    assert_eq!(doubles(&names, "error_rate")[0], Some(1.0 / 3.0));
    assert_eq!(longs(&names, "total_duration_ns"), [2_000_001_999, 0, 0, -5].map(Some));
    assert_eq!(doubles(&names, "total_duration_ms")[0], Some(2_000_001_999.0 / 1e6));
    assert_eq!(
        doubles(&names, "avg_span_duration_ms"),
        [Some(2_000_001_999.0 / 1e6 / 3.0), None, None, Some(-5.0 / 1e6)]
    );
    assert_eq!(
        doubles(&names, "p50_span_duration_ms"),
        [Some(999_999_998.0 / 1e6), None, None, Some(-5.0 / 1e6)]
    );
    assert_eq!(doubles(&names, "max_span_duration_ms")[0], Some(1_000_000_001.0 / 1e6));
    assert_eq!(longs(&names, "total_tokens"), [Some(14), None, None, None]);

    let types = grouped(&engine, Grouping::SpanType).await;
    let expected = [Some("LLM"), Some("TOOL"), None].map(|text| text.map(str::to_owned));
    assert_eq!(texts(&types, "span_type"), expected);
    assert_eq!(longs(&types, "total_duration_ns"), [1_999_999_999, 2_000, -5].map(Some));

    let models = grouped(&engine, Grouping::Model).await;
    assert_eq!(texts(&models, "model"), some(&["m"]));
    assert_eq!(longs(&models, "input_tokens"), [Some(6)]);
    assert_eq!(longs(&models, "output_tokens"), [Some(8)]);
}

/// Scenario: groups of 1 to 150 spans whose durations are shuffled.
/// Guarantees: each percentile is the value that a sorted list has at the nearest rank.
#[tokio::test(flavor = "multi_thread")]
async fn percentiles_are_nearest_ranks() {
    let sizes = [1_i64, 2, 3, 19, 20, 21, 99, 100, 101, 150];
    let traces: Vec<Value> = sizes
        .iter()
        .map(|&size| {
            let duration = |index: i64| (index * 7_919 % size + 1) * 1_000_003;
            let name = format!("{size:03}");
            let spans =
                (0..size).map(|index| span(&name, 1_000, duration(index))).collect::<Vec<_>>();
            row(size, START_MICROS, "OK", spans, sums(size, 0, 0, 0, 0))
        })
        .collect();
    let output =
        grouped(&engine(TestTable::of(traces_schema()).with_file(&traces, 4)), Grouping::SpanName)
            .await;
    let names = texts(&output, "span_name");
    assert_eq!(names.len(), sizes.len());
    for (name, percent) in
        [("p50_span_duration_ms", 50), ("p95_span_duration_ms", 95), ("p99_span_duration_ms", 99)]
    {
        for (size, found) in names.iter().zip(doubles(&output, name)) {
            let size: i64 = size.as_ref().unwrap().parse().unwrap();
            // The durations of a group are 1 to `size` units, each once.
            let rank = u32::try_from((size * percent + 99) / 100).unwrap();
            assert_eq!(found, Some(f64::from(rank) * 1_000_003.0 / 1e6), "{name} of {size}");
        }
    }
}

/// Scenario: traces over two hours and experiments, failed in either way, one without spans, one
/// without a time, some of another writer.
/// Guarantees: traces and spans are counted, failed as `errors` lists them, durations are the
/// traces', hours run from the newest.
#[tokio::test(flavor = "multi_thread")]
async fn traces_are_grouped_by_experiment_and_hour() {
    let hour = 3_600_000_000;
    let late = START_MICROS + hour + 5;
    let own = [
        row(1, START_MICROS, "OK", vec![], sums(2, 1, 5_000_001, 30, 10)),
        row(2, START_MICROS + hour - 1, "ERROR", vec![], sums(1, 0, 1, 10, 1)),
        row(3, late, "OK", vec![], sums(0, 0, 0, 20, 0)),
        with(
            row(4, late, "OK", vec![], sums(1, 0, 7_000_000, 40, 0)),
            json!({"experiment_id": "1"}),
        ),
    ];
    let seed_span = |status: &str, start: i64, end: i64| json!({"name": "s", "status": status, "start_time": start, "end_time": end});
    let foreign = [
        with(
            row(
                5,
                late,
                "OK",
                vec![
                    seed_span("ERROR", late, late + 999),
                    seed_span("OK", late + 500, late + 2_000),
                ],
                json!({}),
            ),
            json!({"experiment_id": "1"}),
        ),
        with(row(6, late, "OK", vec![], json!({})), json!({"trace_info": null})),
    ];
    let table = TestTable::of(traces_schema()).with_file(&own, 8).with_file_of(
        &contract_schema(),
        &foreign,
        8,
    );
    let engine = engine(table);

    let experiments = grouped(&engine, Grouping::Experiment).await;
    assert_eq!(texts(&experiments, "experiment_id"), some(&["1", "0"]));
    assert_eq!(longs(&experiments, "trace_count"), [2, 4].map(Some));
    assert_eq!(longs(&experiments, "error_trace_count"), [1, 2].map(Some));
    assert_eq!(doubles(&experiments, "error_rate"), [0.5, 0.5].map(Some));
    assert_eq!(longs(&experiments, "span_count"), [3, 3].map(Some));
    assert_eq!(longs(&experiments, "error_span_count"), [1, 1].map(Some));
    assert_eq!(longs(&experiments, "total_duration_ns"), [9_499_000, 5_000_002].map(Some));
    assert_eq!(doubles(&experiments, "avg_trace_duration_ms"), [21.0, 20.0].map(Some));
    assert_eq!(longs(&experiments, "p50_trace_duration_ms"), [2, 20].map(Some));
    assert_eq!(longs(&experiments, "p99_trace_duration_ms"), [40, 30].map(Some));
    assert_eq!(longs(&experiments, "max_trace_duration_ms"), [40, 30].map(Some));
    assert_eq!(longs(&experiments, "total_tokens"), [0, 11].map(Some));

    let hours = grouped(&engine, Grouping::Hour).await;
    let starts = [Some(START_MICROS + hour), Some(START_MICROS), None];
    assert_eq!(longs(&hours, "hour"), starts);
    assert_eq!(longs(&hours, "trace_count"), [3, 2, 1].map(Some));
}

/// Scenario: durations and tokens whose sum is past what a BIGINT holds.
/// Guarantees: no wrong sum and no failure: nothing where it does not fit, the milliseconds right.
#[tokio::test]
async fn sums_past_a_bigint_are_not_wrong() {
    let spans = || {
        let wide = json!({"total_tokens": i64::MAX});
        (0..3).map(|_| with(span("wide", 1, i64::MAX - 1), wide.clone())).collect::<Vec<_>>()
    };
    let table = TestTable::of(traces_schema()).with_file(
        &[
            row(1, START_MICROS, "OK", spans(), sums(3, 0, i64::MAX, i64::MAX, i64::MAX)),
            row(2, START_MICROS, "OK", vec![], sums(3, 0, i64::MAX, i64::MAX, i64::MAX)),
        ],
        8,
    );
    let engine = engine(table);
    for grouping in [Grouping::SpanName, Grouping::Experiment] {
        let output = grouped(&engine, grouping).await;
        assert_eq!(longs(&output, "total_duration_ns"), [None]);
        assert_eq!(longs(&output, "total_tokens"), [None]);
        assert!(doubles(&output, "total_duration_ms")[0].unwrap() > 1.8e13);
    }
}

/// Scenario: failed spans with one message under two names, with and without exceptions; a failed
/// trace without a failed span; rows of another writer; an exception in a span that did not fail.
/// Guarantees: groups by message and type with counts, first and last request, the latest trace
/// as example, the commonest name.
#[tokio::test(flavor = "multi_thread")]
async fn errors_are_grouped_by_message_and_exception() {
    let at = START_MICROS * 1_000;
    let exception = |name: &str| json!({"name": "exception", "attributes": {"exception.type": format!("\"{name}\"")}});
    let failed = |name: &str, events: Value| {
        let fields = json!({"status": "ERROR", "status_message": "no room", "events": events});
        with(span(name, at, 1), fields)
    };
    let own = [
        row(
            1,
            START_MICROS + 10,
            "OK",
            vec![failed("b", json!([])), failed("a", json!([])), failed("b", json!([]))],
            sums(3, 3, 0, 0, 0),
        ),
        row(
            2,
            START_MICROS + 30,
            "ERROR",
            vec![failed("a", json!([{"name": "other"}]))],
            sums(1, 1, 0, 0, 0),
        ),
        row(
            3,
            START_MICROS + 20,
            "ERROR",
            vec![failed("a", json!([exception("First"), exception("Last"), {"name": "other"}]))],
            sums(1, 1, 0, 0, 0),
        ),
        row(
            4,
            START_MICROS + 5,
            "ERROR",
            vec![with(span("fine", at, 1), json!({"events": [exception("Caught")]}))],
            sums(1, 0, 0, 0, 0),
        ),
        row(5, START_MICROS + 6, "OK", vec![span("fine", at, 1)], sums(1, 0, 0, 0, 0)),
    ];
    let foreign = [
        row(
            6,
            START_MICROS + 40,
            "ERROR",
            vec![json!({"name": "x", "status": "ERROR"})],
            json!({}),
        ),
        row(7, START_MICROS + 50, "ERROR", vec![json!({"name": "x", "status": "OK"})], json!({})),
        row(8, START_MICROS + 60, "OK", vec![], json!({})),
    ];
    let table = TestTable::of(traces_schema()).with_file(&own, 8).with_file_of(
        &contract_schema(),
        &foreign,
        8,
    );
    let output = error_grouped(&engine(table)).await;

    let id = |number: i64| Some(format!("tr-{number:032x}"));
    let text = |text: &str| Some(text.to_owned());
    // Most traces first, then most spans, then the latest.
    assert_eq!(texts(&output, "error_message"), [text("no room"), None, None, text("no room")]);
    assert_eq!(texts(&output, "exception_type"), [None, None, None, text("Last")]);
    assert_eq!(texts(&output, "span_name"), [text("a"), None, text("x"), text("a")]);
    assert_eq!(longs(&output, "trace_count"), [2, 2, 1, 1].map(Some));
    assert_eq!(longs(&output, "span_count"), [4, 0, 1, 1].map(Some));
    assert_eq!(
        longs(&output, "first_seen"),
        [10, 5, 40, 20].map(|micros| Some(START_MICROS + micros))
    );
    assert_eq!(
        longs(&output, "last_seen"),
        [30, 50, 40, 20].map(|micros| Some(START_MICROS + micros))
    );
    assert_eq!(texts(&output, "example_trace_id"), [id(2), id(7), id(6), id(3)]);
}

/// Scenario: each grouped statement over the table's whole schema.
/// Guarantees: payloads and attributes are read by none, events by the error groups alone.
#[tokio::test]
async fn only_needed_leaves_are_read() {
    let rows = [row(1, START_MICROS, "OK", vec![span("a", 1, 1)], sums(1, 0, 1, 1, 1))];
    let engine = engine(TestTable::of(traces_schema()).with_file(&rows, 8));
    let times = "spans.start_time, spans.end_time, spans.status, \
                 spans.start_time_unix_nano, spans.end_time_unix_nano";
    let tokens = "spans.input_tokens, spans.output_tokens, spans.total_tokens";
    let by = |grouping| performance_by(&table_name(), grouping, TimeRange::default(), None).sql;
    let cases = [
        (by(Grouping::SpanName), format!("spans.name, {times}, {tokens}")),
        (by(Grouping::SpanType), format!("spans.span_type, {times}, {tokens}")),
        (by(Grouping::Model), format!("{times}, spans.model, {tokens}")),
        (
            error_groups(&table_name(), TimeRange::default(), None).sql,
            "trace_id, trace_info.timestamp, trace_info.status, spans.name, spans.status, \
             spans.status_message, spans.events.name, spans.events.attributes.*, error_span_count, \
             part"
                .to_owned(),
        ),
    ];
    for (sql, leaves) in cases {
        let explained = engine.explain(&sql, &QueryOptions::default()).await.unwrap();
        let line = explained.lines().next().unwrap();
        assert_eq!(line, format!("leaves of {}: {leaves}", table_name()), "{sql}");
    }
    for grouping in [Grouping::Experiment, Grouping::Hour] {
        let explained = engine.explain(&by(grouping), &QueryOptions::default()).await.unwrap();
        let line = explained.lines().next().unwrap();
        assert!(line.contains("spans.start_time, spans.end_time, spans.status, "), "{line}");
        assert!(!line.contains("inputs") && !line.contains("outputs"), "{line}");
    }
}

/// Scenario: a table without rows; one whose traces have no spans.
/// Guarantees: the right columns; no group of spans that are not there.
#[tokio::test]
async fn tables_without_spans_answer() {
    let empty = engine(TestTable::of(traces_schema()));
    let without_spans = [
        row(1, START_MICROS, "OK", vec![], sums(0, 0, 0, 5, 0)),
        with(row(2, START_MICROS, "OK", vec![], json!({})), json!({"spans": null})),
    ];
    let spanless = engine(TestTable::of(traces_schema()).with_file(&without_spans, 8));
    for grouping in GROUPINGS {
        assert_eq!(rows(&grouped(&empty, grouping).await), 0);
        let expected = usize::from(matches!(grouping, Grouping::Experiment | Grouping::Hour));
        assert_eq!(rows(&grouped(&spanless, grouping).await), expected, "{grouping:?}");
    }
    assert_eq!(rows(&error_grouped(&empty).await), 0);
    assert_eq!(rows(&error_grouped(&spanless).await), 0);
}

/// Scenario: a range and a limit.
/// Guarantees: both are in every grouped statement.
#[test]
fn ranges_and_limits_hold_for_every_grouping() {
    let range = TimeRange { since_micros: Some(5), until_micros: Some(6) };
    let mut statements: Vec<String> = GROUPINGS
        .iter()
        .map(|grouping| performance_by(&table_name(), *grouping, range, Some(7)).sql)
        .collect();
    statements.push(error_groups(&table_name(), range, Some(7)).sql);
    for sql in statements {
        let scans = sql.matches(&table_name().to_sql()).count();
        assert_eq!(sql.matches("created_at >= arrow_cast(5, ").count(), scans, "{sql}");
        assert_eq!(sql.matches("created_at <= arrow_cast(6, ").count(), scans, "{sql}");
        assert!(sql.ends_with(" LIMIT 7"), "{sql}");
    }
}

/// Scenario: a span of another writer that never ends, that is in the year 9999.
/// Guarantees: its nanoseconds, which no integer holds, are unknown and not some other number.
#[tokio::test(flavor = "multi_thread")]
async fn times_centuries_apart_do_not_wrap() {
    let endless = json!({
        "name": "a", "status": "OK",
        "start_time": START_MICROS, "end_time": 253_402_300_799_999_999_i64,
    });
    let row = row(1, START_MICROS, "OK", vec![endless], json!({}));
    let engine = engine(TestTable::of(traces_schema()).with_file(&[row], 8));
    let names = grouped(&engine, Grouping::SpanName).await;
    assert_eq!(longs(&names, "total_duration_ns"), [Some(0)]);
    assert_eq!(doubles(&names, "max_span_duration_ms"), [None]);
    let experiments = grouped(&engine, Grouping::Experiment).await;
    assert_eq!(longs(&experiments, "total_duration_ns"), [None]);
    assert_eq!(
        longs(&experiments, "max_trace_duration_ms"),
        [Some(253_402_300_799_999 - START_MICROS / 1_000)]
    );
}
