//! What failed, by message and exception, as Spark SQL.

use super::super::error_groups::COLUMNS;
use super::{Analysis, Scope};

/// The type of a span's last exception event. `reverse` makes it the first that is found.
const EXCEPTION_TYPE: &str = "nullif(btrim(get(span.events.attributes, array_size(span.events) \
     - CAST(array_position(reverse(span.events.name), 'exception') AS INT))['exception.type'], \
     '\"'), '')";

/// What makes a group; `failed_spans` tells traces without a failed span from the rest.
const GROUP: &str = "message, exception_type, failed_spans";

pub(super) fn error_groups(scope: &Scope) -> Analysis {
    let limit = &scope.limit;
    let sql = format!(
        "SELECT message AS error_message, exception_type,\n\
         max(CASE WHEN name_place = 1 THEN name END) AS span_name,\n\
         count(DISTINCT trace_id) AS trace_count, sum(times) AS span_count,\n\
         min(timestamp) AS first_seen, max(timestamp) AS last_seen,\n\
         max(CASE WHEN trace_place = 1 THEN trace_id END) AS example_trace_id\n\
         FROM ({})\n\
         GROUP BY {GROUP}\n\
         ORDER BY trace_count DESC NULLS LAST, span_count DESC NULLS LAST, \
         last_seen DESC NULLS LAST, error_message ASC NULLS LAST, \
         exception_type ASC NULLS LAST{limit}",
        placed(scope),
    );
    Analysis { sql, columns: &COLUMNS }
}

/// One row for each group, span name and trace, with its place by name and by trace in the group.
fn placed(scope: &Scope) -> String {
    let per_trace = format!(
        "SELECT {GROUP}, name, trace_id, timestamp, sum(failed_spans) AS times\n\
         FROM ({}\nUNION ALL\n{})\n\
         GROUP BY {GROUP}, name, trace_id, timestamp",
        failed_spans(scope),
        failed_traces(scope),
    );
    format!(
        "SELECT *,\n\
         row_number() OVER (PARTITION BY {GROUP} \
         ORDER BY times_of_name DESC NULLS LAST, name ASC NULLS LAST) AS name_place,\n\
         row_number() OVER (PARTITION BY {GROUP} \
         ORDER BY timestamp DESC NULLS LAST, trace_id DESC NULLS LAST) AS trace_place\n\
         FROM (SELECT *,\n\
         sum(times) OVER (PARTITION BY {GROUP}, name) AS times_of_name\n\
         FROM ({per_trace}))"
    )
}

fn failed_spans(Scope { table, within, .. }: &Scope) -> String {
    format!(
        "SELECT trace_id, timestamp, span.name AS name, span.status_message AS message,\n\
         {EXCEPTION_TYPE} AS exception_type, 1 AS failed_spans\n\
         FROM (SELECT trace_id, trace_info.timestamp AS timestamp, explode(spans) AS span\n\
         FROM {table}\n\
         WHERE {within} AND (error_span_count IS NULL OR 0 < error_span_count))\n\
         WHERE span.status = 'ERROR'"
    )
}

/// Traces that failed although none of their spans did.
fn failed_traces(Scope { table, within, .. }: &Scope) -> String {
    format!(
        "SELECT trace_id, trace_info.timestamp AS timestamp, CAST(NULL AS STRING) AS name,\n\
         CAST(NULL AS STRING) AS message, CAST(NULL AS STRING) AS exception_type, \
         0 AS failed_spans\n\
         FROM {table}\n\
         WHERE {within} AND part IS NULL AND trace_info.status = 'ERROR' AND CASE WHEN error_span_count IS NULL \
         THEN NOT coalesce(array_contains(spans.status, 'ERROR'), FALSE) \
         ELSE error_span_count = 0 END"
    )
}
