//! What failed, by message and exception: the statement behind `errors --group`.

use tracelake_model::TableName;

use super::{Analysis, AnalysisColumn, TimeRange, column, limit_clause};

/// Columns of [`error_groups`].
pub(super) const COLUMNS: [AnalysisColumn; 8] = [
    column(
        "error_message",
        "status message of the failed spans, as sent; null where they have none",
    ),
    column(
        "exception_type",
        "attribute exception.type of a span's last exception event; null where there is none",
    ),
    column("span_name", "name of most of these spans; of equally many the first by name"),
    column("trace_count", "traces with such a span"),
    column(
        "span_count",
        "failed spans; 0 for the group of traces that failed without a failed span",
    ),
    column("first_seen", "time of the earliest request among these traces"),
    column("last_seen", "time of the latest request among these traces"),
    column("example_trace_id", "trace of the latest request; of equally late the greatest id"),
];

/// The failed spans of `range` by message and exception type, most traces first.
///
/// A span failed if its own status is ERROR; an exception event alone makes no error. Messages are
/// compared whole. Traces with status ERROR of which no span failed are a group of their own,
/// without message, type and span name.
#[must_use]
pub fn error_groups(table: &TableName, range: TimeRange, limit: Option<u64>) -> Analysis {
    let (name, within) = (table.to_sql(), range.to_sql());
    let spans = format!(
        "SELECT trace_id, timestamp, span['name'] AS name, span['status_message'] AS message, \
         {EXCEPTION_TYPE} AS exception_type, 1 AS spans FROM (\
         SELECT trace_id, trace_info['timestamp'] AS timestamp, \
         unnest(array_filter(spans, s -> s['status'] = 'ERROR')) AS span \
         FROM {name} WHERE {within} AND (error_span_count IS NULL OR 0 < error_span_count))"
    );
    let traces = |condition: &str| {
        format!(
            "SELECT trace_id, trace_info['timestamp'] AS timestamp, CAST(NULL AS STRING) AS name, \
             CAST(NULL AS STRING) AS message, CAST(NULL AS STRING) AS exception_type, \
             0 AS spans FROM {name} WHERE {within} AND trace_info['status'] = 'ERROR' \
             AND {condition}"
        )
    };
    // Apart, so that the spans are read only for rows of other writers, which have no count.
    let own = traces("error_span_count = 0");
    let foreign = traces(
        "error_span_count IS NULL AND part IS NULL AND \
         NOT coalesce(array_any_match(spans, s -> s['status'] = 'ERROR'), false)",
    );
    let per_trace = format!(
        "SELECT message, exception_type, spans, name, trace_id, timestamp, sum(spans) AS times \
         FROM ({spans} UNION ALL {own} UNION ALL {foreign}) \
         GROUP BY message, exception_type, spans, name, trace_id, timestamp"
    );
    let sql = format!(
        "SELECT message AS error_message, exception_type, \
         first_value(name ORDER BY times_of_name DESC, name) AS span_name, \
         count(DISTINCT trace_id) AS trace_count, sum(times) AS span_count, \
         min(timestamp) AS first_seen, max(timestamp) AS last_seen, \
         first_value(trace_id ORDER BY timestamp DESC NULLS LAST, trace_id DESC) \
         AS example_trace_id FROM (\
         SELECT *, sum(times) OVER (PARTITION BY message, exception_type, spans, name) \
         AS times_of_name FROM ({per_trace})) GROUP BY message, exception_type, spans \
         ORDER BY trace_count DESC, span_count DESC, last_seen DESC NULLS LAST, error_message, \
         exception_type{}",
        limit_clause(limit),
    );
    Analysis { sql, columns: &COLUMNS }
}

/// The last of several exceptions is the one that a span ended with. Attribute values are JSON
/// text, so the type stands in quotes.
const EXCEPTION_TYPE: &str = "nullif(btrim(\
     array_filter(span['events'], e -> e['name'] = 'exception')[-1]['attributes']\
     ['exception.type'], '\"'), '')";
