//! How long groups of spans or traces took, as Spark SQL.

use super::super::AnalysisColumn;
use super::super::performance_by::{
    BY_EXPERIMENT, BY_HOUR, BY_MODEL, BY_SPAN_NAME, BY_SPAN_TYPE, Grouping,
};
use super::{Analysis, FAILED_COUNT, Scope};

pub(super) fn performance_by(grouping: Grouping, scope: &Scope) -> Analysis {
    let most_time = "total_ns DESC NULLS LAST";
    match grouping {
        Grouping::SpanName => spans_by("name", "TRUE", &BY_SPAN_NAME, scope),
        Grouping::SpanType => spans_by("span_type", "TRUE", &BY_SPAN_TYPE, scope),
        Grouping::Model => spans_by("model", "span.model IS NOT NULL", &BY_MODEL, scope),
        Grouping::Experiment => traces_by("experiment_id", most_time, &BY_EXPERIMENT, scope),
        Grouping::Hour => traces_by(HOUR, "group_key DESC NULLS LAST", &BY_HOUR, scope),
    }
}

/// `date_trunc` would cut by the session's time zone, which may be half an hour off.
const HOUR: &str = "timestamp_micros(unix_micros(trace_info.timestamp) \
     - pmod(unix_micros(trace_info.timestamp), 3600000000))";

/// Nanoseconds between the timestamps of `span`, for rows of other writers.
const SPAN_MICROS_AS_NS: &str =
    "CAST(unix_micros(span.end_time) - unix_micros(span.start_time) AS DECIMAL(20, 0)) * 1000";

fn spans_by(
    key: &'static str,
    condition: &'static str,
    columns: &'static [AnalysisColumn; 14],
    Scope { table, within, limit }: &Scope,
) -> Analysis {
    let spans = format!(
        "SELECT span.{key} AS group_key, span.status = 'ERROR' AS failed,\n\
         coalesce(nullif(span.end_time_unix_nano, 0) - nullif(span.start_time_unix_nano, 0), \
         try_cast({SPAN_MICROS_AS_NS} AS BIGINT)) AS duration,\n\
         span.input_tokens AS input_tokens, span.output_tokens AS output_tokens, \
         span.total_tokens AS total_tokens\n\
         FROM (SELECT explode(spans) AS span\nFROM {table}\nWHERE {within})\n\
         WHERE {condition}"
    );
    let groups = format!(
        "SELECT group_key, count(*) AS span_count, \
         count(CASE WHEN failed THEN 1 END) AS error_span_count,\n\
         {},\n{}\n\
         FROM ({})\nGROUP BY group_key",
        exact_sum("duration", "total_ns"),
        measures(),
        placed(&spans),
    );
    let sql = format!(
        "SELECT group_key AS {}, span_count, error_span_count,\n\
         CAST(error_span_count AS DOUBLE) / span_count AS error_rate, {TOTALS},\n\
         CAST(total_ns AS DOUBLE) / 1e6 / nullif(known, 0) AS avg_span_duration_ms,\n\
         CAST(p50 AS DOUBLE) / 1e6 AS p50_span_duration_ms,\n\
         CAST(p95 AS DOUBLE) / 1e6 AS p95_span_duration_ms,\n\
         CAST(p99 AS DOUBLE) / 1e6 AS p99_span_duration_ms,\n\
         CAST(longest AS DOUBLE) / 1e6 AS max_span_duration_ms,\n\
         {TOKENS}\n\
         FROM ({groups})\n\
         ORDER BY total_ns DESC NULLS LAST, group_key ASC NULLS LAST{limit}",
        columns[0].name,
    );
    Analysis { sql, columns }
}

/// One row for each trace; and one for each span of the rows without summaries, which adds its
/// duration to the group and nothing else.
fn traces_by(
    key: &'static str,
    order: &'static str,
    columns: &'static [AnalysisColumn; 16],
    scope: &Scope,
) -> Analysis {
    let pieces = format!("{}\nUNION ALL\n{}", own_traces(key, scope), foreign_spans(key, scope));
    let groups = format!(
        "SELECT group_key, sum(traces) AS trace_count, \
         count(CASE WHEN failed OR 0 < errors_of THEN 1 END) AS error_trace_count,\n\
         coalesce(sum(spans_of), 0) AS span_count, \
         coalesce(sum(errors_of), 0) AS error_span_count,\n\
         {}, {},\n{}\n\
         FROM ({})\nGROUP BY group_key",
        exact_sum("spans_ns", "total_ns"),
        exact_sum("duration", "duration_sum"),
        measures(),
        placed(&pieces),
    );
    let sql = format!(
        "SELECT group_key AS {}, trace_count, error_trace_count,\n\
         CAST(error_trace_count AS DOUBLE) / trace_count AS error_rate, \
         span_count, error_span_count, {TOTALS},\n\
         CAST(duration_sum AS DOUBLE) / nullif(known, 0) AS avg_trace_duration_ms,\n\
         p50 AS p50_trace_duration_ms, p95 AS p95_trace_duration_ms, \
         p99 AS p99_trace_duration_ms, longest AS max_trace_duration_ms,\n\
         {TOKENS}\n\
         FROM ({groups})\n\
         ORDER BY {order}, group_key ASC NULLS LAST{}",
        columns[0].name, scope.limit,
    );
    Analysis { sql, columns }
}

fn own_traces(key: &str, Scope { table, within, .. }: &Scope) -> String {
    format!(
        "SELECT {key} AS group_key, 1 AS traces, trace_info.status = 'ERROR' AS failed,\n\
         CAST(CASE WHEN span_count IS NULL THEN coalesce(array_size(spans), 0) \
         ELSE span_count END AS BIGINT) AS spans_of,\n\
         CAST(CASE WHEN span_count IS NULL THEN {FAILED_COUNT} ELSE error_span_count END \
         AS BIGINT) AS errors_of,\n\
         CAST(CASE WHEN span_count IS NOT NULL THEN total_span_duration_ns END \
         AS DECIMAL(38, 0)) AS spans_ns,\n\
         CASE WHEN span_count IS NULL THEN coalesce(execution_duration_ms, \
         unix_micros(array_max(spans.end_time)) div 1000 \
         - unix_micros(array_min(spans.start_time)) div 1000) \
         ELSE execution_duration_ms END AS duration,\n\
         input_tokens, output_tokens, total_tokens\n\
         FROM {table}\nWHERE {within} AND part IS NULL"
    )
}

fn foreign_spans(key: &str, Scope { table, within, .. }: &Scope) -> String {
    let none = "CAST(NULL AS BIGINT)";
    format!(
        "SELECT group_key, 0 AS traces, FALSE AS failed, {none} AS spans_of, \
         {none} AS errors_of,\n\
         CAST({SPAN_MICROS_AS_NS} AS DECIMAL(38, 0)) AS spans_ns, {none} AS duration,\n\
         {none} AS input_tokens, {none} AS output_tokens, {none} AS total_tokens\n\
         FROM (SELECT {key} AS group_key, explode(spans) AS span\n\
         FROM {table}\nWHERE {within} AND part IS NULL AND span_count IS NULL)"
    )
}

/// `rows` with the place of each duration in its group, from 1, and how many are known there.
fn placed(rows: &str) -> String {
    format!(
        "SELECT *,\n\
         row_number() OVER (PARTITION BY group_key ORDER BY duration ASC NULLS LAST) AS place,\n\
         count(duration) OVER (PARTITION BY group_key) AS known_of\n\
         FROM ({rows})"
    )
}

/// Aggregates over `duration` and the tokens that both shapes have. A percentile stands at
/// position `ceil(n * percent / 100)`; for `n` = 0 that is 0, where nothing stands.
fn measures() -> String {
    let rank = |percent: u8| {
        format!(
            "max(CASE WHEN place = (known_of * {percent} + 99) div 100 THEN duration END) \
             AS p{percent}"
        )
    };
    let tokens = |name: &str| format!("sum(CAST({name}_tokens AS DECIMAL(38, 0))) AS {name}_sum");
    format!(
        "count(duration) AS known, max(duration) AS longest,\n{},\n{},\n{},\n{},\n{},\n{}",
        rank(50),
        rank(95),
        rank(99),
        tokens("input"),
        tokens("output"),
        tokens("total"),
    )
}

/// The sum of `value` without overflow, whatever clients sent; 0 of nothing.
fn exact_sum(value: &str, name: &str) -> String {
    format!("coalesce(sum(CAST({value} AS DECIMAL(38, 0))), 0) AS {name}")
}

const TOTALS: &str = "try_cast(total_ns AS BIGINT) AS total_duration_ns, \
     CAST(total_ns AS DOUBLE) / 1e6 AS total_duration_ms";

const TOKENS: &str = "try_cast(input_sum AS BIGINT) AS input_tokens, \
     try_cast(output_sum AS BIGINT) AS output_tokens, \
     try_cast(total_sum AS BIGINT) AS total_tokens";
