//! How long groups of spans or traces took: the statement behind `performance --by`.
//!
//! Two shapes of answer. By name, type or model the rows count spans and measure spans; by
//! experiment or hour they count traces and measure traces. `total_duration_ns` is the sum of span
//! durations in both, so that the groups of a table sum up to its `performance`.
//!
//! All sums are exact. Percentiles are nearest ranks, that is durations that were measured: of `n`
//! sorted values the one at position `ceil(n * percent / 100)`, computed in integers. Sorting a list
//! and taking an element means the same in every engine; interpolation in floats does not.

use tracelake_model::TableName;

use crate::functions::nearest_ranks::NAME as NEAREST_RANKS;

use super::{Analysis, AnalysisColumn, FAILED_COUNT, TimeRange, column, limit_clause};

/// What [`performance_by`] groups by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Grouping {
    /// The span's name.
    SpanName,
    /// The span's type as MLflow knows it, such as `LLM`; null for spans without one.
    SpanType,
    /// The model that answered; spans that name none are left out.
    Model,
    /// The experiment of the trace.
    Experiment,
    /// The hour of the request, in UTC.
    Hour,
}

const ERROR_RATE: &str = "share of the group that failed, 0 to 1";
const TOTAL_NS: AnalysisColumn = column(
    "total_duration_ns",
    "sum of span durations in nanoseconds, exact; signed: a span that ends before it starts \
     counts negative, one whose start or end is unknown not at all; null past 292 years",
);
const TOTAL_MS: AnalysisColumn =
    column("total_duration_ms", "the same in milliseconds, with fractions");

const fn span_columns(key: AnalysisColumn) -> [AnalysisColumn; 14] {
    [
        key,
        column("span_count", "spans in the group"),
        column("error_span_count", "those with status ERROR"),
        column("error_rate", ERROR_RATE),
        TOTAL_NS,
        TOTAL_MS,
        column(
            "avg_span_duration_ms",
            "mean duration of the spans whose duration is known, in milliseconds, with fractions",
        ),
        column("p50_span_duration_ms", "median duration of a span in milliseconds; nearest rank"),
        column("p95_span_duration_ms", "95th percentile, exact; nearest rank"),
        column("p99_span_duration_ms", "99th percentile, exact; nearest rank"),
        column("max_span_duration_ms", "longest duration of a span in milliseconds"),
        column(
            "input_tokens",
            "input tokens that the group's spans report; a span that repeats its children's \
             counts them again",
        ),
        column("output_tokens", "output tokens, likewise"),
        column("total_tokens", "all tokens, likewise"),
    ]
}

const fn trace_columns(key: AnalysisColumn) -> [AnalysisColumn; 16] {
    [
        key,
        column("trace_count", "traces in the group"),
        column("error_trace_count", "those that failed or have a failed span, as `errors` lists"),
        column("error_rate", ERROR_RATE),
        column("span_count", "spans of these traces"),
        column("error_span_count", "spans with status ERROR"),
        TOTAL_NS,
        TOTAL_MS,
        column("avg_trace_duration_ms", "mean duration of a trace in milliseconds, with fractions"),
        column(
            "p50_trace_duration_ms",
            "median duration of a trace in whole milliseconds; nearest rank",
        ),
        column("p95_trace_duration_ms", "95th percentile, exact; nearest rank"),
        column("p99_trace_duration_ms", "99th percentile, exact; nearest rank"),
        column("max_trace_duration_ms", "longest duration of a trace in milliseconds"),
        column("input_tokens", "input tokens of the traces, each use counted once"),
        column("output_tokens", "output tokens of the traces"),
        column("total_tokens", "all tokens of the traces"),
    ]
}

pub(super) const BY_SPAN_NAME: [AnalysisColumn; 14] =
    span_columns(column("span_name", "name of the spans"));
pub(super) const BY_SPAN_TYPE: [AnalysisColumn; 14] =
    span_columns(column("span_type", "type of the spans; null where they have none"));
pub(super) const BY_MODEL: [AnalysisColumn; 14] =
    span_columns(column("model", "model that answered"));
pub(super) const BY_EXPERIMENT: [AnalysisColumn; 16] =
    trace_columns(column("experiment_id", "MLflow experiment id"));
pub(super) const BY_HOUR: [AnalysisColumn; 16] =
    trace_columns(column("hour", "start of the hour in which the requests were made, UTC"));

/// How long the spans or traces of `range` took by `grouping`: most time first, hours newest
/// first. The keys of equally long groups ascend.
#[must_use]
pub fn performance_by(
    table: &TableName,
    grouping: Grouping,
    range: TimeRange,
    limit: Option<u64>,
) -> Analysis {
    let most_time = "total_ns DESC";
    match grouping {
        Grouping::SpanName => spans_by("name", "TRUE", &BY_SPAN_NAME, table, range, limit),
        Grouping::SpanType => spans_by("span_type", "TRUE", &BY_SPAN_TYPE, table, range, limit),
        Grouping::Model => {
            spans_by("model", "span['model'] IS NOT NULL", &BY_MODEL, table, range, limit)
        }
        Grouping::Experiment => {
            traces_by("experiment_id", most_time, &BY_EXPERIMENT, table, range, limit)
        }
        Grouping::Hour => traces_by(
            "date_trunc('hour', trace_info['timestamp'])",
            "group_key DESC NULLS LAST",
            &BY_HOUR,
            table,
            range,
            limit,
        ),
    }
}

/// Nanoseconds between the ends of `span`, or null where one of them is unknown. Spans of other
/// writers have no nanoseconds but timestamps in microseconds, which may be further apart than an
/// integer has nanoseconds: that counts as unknown.
const SPAN_DURATION_NS: &str = "coalesce(\
     nullif(span['end_time_unix_nano'], 0) - nullif(span['start_time_unix_nano'], 0), \
     TRY_CAST(CAST(arrow_cast(span['end_time'], 'Int64') - arrow_cast(span['start_time'], 'Int64') \
     AS DECIMAL(20, 0)) * 1000 AS BIGINT))";

/// One scan that unnests the spans and groups them by their field `key`.
fn spans_by(
    key: &'static str,
    condition: &'static str,
    columns: &'static [AnalysisColumn; 14],
    table: &TableName,
    range: TimeRange,
    limit: Option<u64>,
) -> Analysis {
    let spans = format!(
        "SELECT span['{key}'] AS group_key, span['status'] = 'ERROR' AS failed, \
         {SPAN_DURATION_NS} AS duration, span['input_tokens'] AS input_tokens, \
         span['output_tokens'] AS output_tokens, span['total_tokens'] AS total_tokens \
         FROM (SELECT unnest(spans) AS span FROM {} WHERE {}) WHERE {condition}",
        table.to_sql(),
        range.to_sql(),
    );
    let groups = format!(
        "SELECT group_key, count(*) AS span_count, \
         count(*) FILTER (WHERE failed) AS error_span_count, {}, {} FROM ({spans}) \
         GROUP BY group_key",
        exact_sum("duration", "total_ns"),
        measures(),
    );
    let millis = |value: &str| format!("CAST({value} AS DOUBLE) / 1000000.0");
    let sql = format!(
        "SELECT group_key AS {}, span_count, error_span_count, \
         CAST(error_span_count AS DOUBLE) / span_count AS error_rate, {TOTALS}, \
         CAST(total_ns AS DOUBLE) / 1000000.0 / nullif(known, 0) AS avg_span_duration_ms, \
         {} AS p50_span_duration_ms, {} AS p95_span_duration_ms, {} AS p99_span_duration_ms, \
         {} AS max_span_duration_ms, {TOKENS} \
         FROM ({groups}) ORDER BY total_ns DESC, group_key{}",
        columns[0].name,
        millis(P50),
        millis(P95),
        millis(P99),
        millis("longest"),
        limit_clause(limit),
    );
    Analysis { sql, columns }
}

/// One branch over the summaries, one that looks into the spans of rows without them.
fn traces_by(
    key: &'static str,
    order: &'static str,
    columns: &'static [AnalysisColumn; 16],
    table: &TableName,
    range: TimeRange,
    limit: Option<u64>,
) -> Analysis {
    let traces = |summaries: &str, condition: &str| {
        format!(
            "SELECT {key} AS group_key, trace_info['status'] = 'ERROR' AS failed, {summaries}, \
             input_tokens, output_tokens, total_tokens FROM {} WHERE {} AND {condition}",
            table.to_sql(),
            range.to_sql(),
        )
    };
    let own = traces(
        "CAST(span_count AS BIGINT) AS spans_of, CAST(error_span_count AS BIGINT) AS errors_of, \
         CAST(total_span_duration_ns AS DECIMAL(38, 0)) AS spans_ns, execution_duration_ms AS duration",
        "span_count IS NOT NULL",
    );
    let foreign = traces(&foreign_summaries(), "span_count IS NULL AND part IS NULL");
    let groups = format!(
        "SELECT group_key, count(*) AS trace_count, \
         count(*) FILTER (WHERE failed OR 0 < errors_of) AS error_trace_count, \
         coalesce(sum(spans_of), 0) AS span_count, \
         coalesce(sum(errors_of), 0) AS error_span_count, {}, {}, {} \
         FROM ({own} UNION ALL {foreign}) GROUP BY group_key",
        exact_sum("spans_ns", "total_ns"),
        exact_sum("duration", "duration_sum"),
        measures(),
    );
    let sql = format!(
        "SELECT group_key AS {}, trace_count, error_trace_count, \
         CAST(error_trace_count AS DOUBLE) / trace_count AS error_rate, span_count, \
         error_span_count, {TOTALS}, \
         CAST(duration_sum AS DOUBLE) / nullif(known, 0) AS avg_trace_duration_ms, \
         {P50} AS p50_trace_duration_ms, {P95} AS p95_trace_duration_ms, \
         {P99} AS p99_trace_duration_ms, \
         longest AS max_trace_duration_ms, {TOKENS} \
         FROM ({groups}) ORDER BY {order}, group_key{}",
        columns[0].name,
        limit_clause(limit),
    );
    Analysis { sql, columns }
}

/// What the summaries of a row would say, from its spans. A list is summed in floats, which is
/// exact for as many microseconds as three centuries have.
fn foreign_summaries() -> String {
    let micros = |time: &str| format!("arrow_cast(s['{time}'], 'Int64')");
    let (start, end) = (micros("start_time"), micros("end_time"));
    format!(
        "coalesce(CAST(cardinality(spans) AS BIGINT), 0) AS spans_of, \
         CAST({FAILED_COUNT} AS BIGINT) AS errors_of, \
         CAST(array_sum(array_transform(spans, s -> {end} - {start})) AS DECIMAL(20, 0)) * 1000 \
         AS spans_ns, \
         coalesce(execution_duration_ms, array_max(array_transform(spans, s -> {end})) / 1000 \
         - array_min(array_transform(spans, s -> {start})) / 1000) AS duration"
    )
}

const TOTALS: &str = "TRY_CAST(total_ns AS BIGINT) AS total_duration_ns, \
     CAST(total_ns AS DOUBLE) / 1000000.0 AS total_duration_ms";

const TOKENS: &str = "TRY_CAST(input_sum AS BIGINT) AS input_tokens, \
     TRY_CAST(output_sum AS BIGINT) AS output_tokens, \
     TRY_CAST(total_sum AS BIGINT) AS total_tokens";

/// Percentiles of a group in the order of [`crate::functions::nearest_ranks::PERCENTS`], null where
/// no duration is known.
const P50: &str = "ranks[1]";
const P95: &str = "ranks[2]";
const P99: &str = "ranks[3]";

/// The sum of `value` without overflow, whatever clients sent; 0 of nothing.
fn exact_sum(value: &str, name: &str) -> String {
    format!("coalesce(sum(CAST({value} AS DECIMAL(38, 0))), 0) AS {name}")
}

/// Aggregates over `duration` and the tokens that both shapes have.
fn measures() -> String {
    let tokens = |name: &str| format!("sum(CAST({name}_tokens AS DECIMAL(38, 0))) AS {name}_sum");
    format!(
        "count(duration) AS known, max(duration) AS longest, \
         {NEAREST_RANKS}(duration) AS ranks, {}, {}, {}",
        tokens("input"),
        tokens("output"),
        tokens("total"),
    )
}
