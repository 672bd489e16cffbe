//! The two questions everybody asks, trace by trace and in groups, and the list of traces, as SQL.
//!
//! Every builder is a pure function of a table, a range and a limit. Names and numbers become SQL
//! only through types that quote themselves; no text of a caller is ever pasted in.
//!
//! Rows that another writer made have the contract's columns but none of the summaries. Each
//! analysis therefore has two branches: one over the summaries, and one that looks into the spans
//! of the rows without them. Where all rows have summaries, the second branch is ruled out by the
//! files' statistics and reads nothing. The parts of a large trace have no summaries either: what is
//! asked of traces leaves them out, as the row of the trace has the numbers of all its spans; what is asked
//! of spans looks into them.

mod error_groups;
mod older_traces;
mod performance_by;
mod question;
mod spark;

use tracelake_model::TableName;

pub use error_groups::error_groups;
pub use older_traces::older_traces;
pub use performance_by::{Grouping, performance_by};
pub use question::Question;
pub use spark::SparkTable;

/// Microseconds in a day.
const DAY_MICROS: i64 = 86_400_000_000;

/// A closed range of `created_at`; `None` is unbounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeRange {
    /// First microsecond since the epoch that is inside.
    pub since_micros: Option<i64>,
    /// Last microsecond since the epoch that is inside.
    pub until_micros: Option<i64>,
}

impl TimeRange {
    /// The 24 hours up to `now_micros`, with no end: what arrives meanwhile is inside.
    #[must_use]
    pub const fn last_24_hours(now_micros: i64) -> Self {
        Self { since_micros: Some(now_micros.saturating_sub(DAY_MICROS)), until_micros: None }
    }

    /// The range as a condition on `created_at`.
    fn to_sql(self) -> String {
        let mut sql = String::from("TRUE");
        if let Some(since) = self.since_micros {
            sql.push_str(&format!(" AND created_at >= {}", timestamp_literal(since)));
        }
        if let Some(until) = self.until_micros {
            sql.push_str(&format!(" AND created_at <= {}", timestamp_literal(until)));
        }
        sql
    }
}

/// One column of an analysis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnalysisColumn {
    /// Its name.
    pub name: &'static str,
    /// What it says, with its unit.
    pub meaning: &'static str,
}

/// A statement and what its columns mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Analysis {
    /// The statement.
    pub sql: String,
    /// Its columns, in order; empty where they are the table's own.
    pub columns: &'static [AnalysisColumn],
}

const fn column(name: &'static str, meaning: &'static str) -> AnalysisColumn {
    AnalysisColumn { name, meaning }
}

const TRACE_ID: AnalysisColumn = column("trace_id", "MLflow trace id");
const TIMESTAMP: AnalysisColumn = column("timestamp", "time of the request");

/// Columns of [`traces`].
const TRACES_COLUMNS: [AnalysisColumn; 10] = [
    TRACE_ID,
    TIMESTAMP,
    column("trace_name", "name of the root span"),
    column("status", "OK, ERROR or IN_PROGRESS"),
    column("span_count", "spans in the trace"),
    column("error_span_count", "spans with status ERROR"),
    column("execution_duration_ms", "duration of the trace in whole milliseconds"),
    column("experiment_id", "MLflow experiment id"),
    column("total_tokens", "tokens that the trace used, input and output"),
    column("created_at", "when the trace was archived"),
];

/// Columns of [`errors`].
const ERRORS_COLUMNS: [AnalysisColumn; 7] = [
    TRACE_ID,
    column("request_id", "client request id, or the trace id"),
    TIMESTAMP,
    column("status", "status of the trace; a trace may be OK though a span failed"),
    column("error_span_count", "spans with status ERROR"),
    column("error_span_name", "name of the first failed span"),
    column("error_message", "status message of the first failed span"),
];

/// Columns of [`performance`].
const PERFORMANCE_COLUMNS: [AnalysisColumn; 5] = [
    TRACE_ID,
    TIMESTAMP,
    column("span_count", "spans in the trace"),
    column("total_duration_ms", "sum of the spans' durations in milliseconds, with fractions"),
    column("avg_span_duration_ms", "mean duration of a span in milliseconds, with fractions"),
];

/// Whole rows of `range`, newest first by `created_at`: the columns are those of the table.
#[must_use]
pub fn archived_traces(table: &TableName, range: TimeRange, limit: Option<u64>) -> Analysis {
    let sql = format!(
        "SELECT * FROM {} WHERE {} ORDER BY created_at DESC, trace_id{}",
        table.to_sql(),
        range.to_sql(),
        limit_clause(limit),
    );
    Analysis { sql, columns: &[] }
}

/// The traces of `range`, newest first by `created_at`.
#[must_use]
pub fn traces(table: &TableName, range: TimeRange, limit: Option<u64>) -> Analysis {
    let branch = |counts: &str, condition: &str| {
        format!(
            "SELECT trace_id, trace_info['timestamp'] AS timestamp, trace_name, \
             trace_info['status'] AS status, {counts}, execution_duration_ms, experiment_id, \
             total_tokens, created_at FROM {} WHERE {} AND {condition}",
            table.to_sql(),
            range.to_sql(),
        )
    };
    let sql = format!(
        "SELECT * FROM ({} UNION ALL {}) ORDER BY created_at DESC, trace_id{}",
        branch("span_count, error_span_count", "span_count IS NOT NULL"),
        branch(
            &format!(
                "CAST(cardinality(spans) AS INT) AS span_count, {FAILED_COUNT} AS error_span_count"
            ),
            "span_count IS NULL AND part IS NULL"
        ),
        limit_clause(limit),
    );
    Analysis { sql, columns: &TRACES_COLUMNS }
}

const FAILED_COUNT: &str =
    "CAST(cardinality(array_filter(spans, s -> s['status'] = 'ERROR')) AS INT)";

/// The traces of `range` that failed or have a failed span, newest first by request time.
#[must_use]
pub fn errors(table: &TableName, range: TimeRange, limit: Option<u64>) -> Analysis {
    let branch = |count: &str, condition: &str| {
        format!(
            "SELECT trace_id, trace_info['request_id'] AS request_id, \
             trace_info['timestamp'] AS timestamp, trace_info['status'] AS status, \
             {count} AS error_span_count, \
             array_first(spans, s -> s['status'] = 'ERROR')['name'] AS error_span_name, \
             array_first(spans, s -> s['status'] = 'ERROR')['status_message'] AS error_message \
             FROM {} WHERE {} AND {condition}",
            table.to_sql(),
            range.to_sql(),
        )
    };
    let sql = format!(
        "SELECT * FROM ({} UNION ALL {}) ORDER BY timestamp DESC, trace_id{}",
        branch(
            "error_span_count",
            "error_span_count IS NOT NULL AND \
             (trace_info['status'] = 'ERROR' OR error_span_count > 0)"
        ),
        branch(
            FAILED_COUNT,
            "error_span_count IS NULL AND part IS NULL AND (trace_info['status'] = 'ERROR' OR \
             array_any_match(spans, s -> s['status'] = 'ERROR'))"
        ),
        limit_clause(limit),
    );
    Analysis { sql, columns: &ERRORS_COLUMNS }
}

/// How long the traces of `range` took, newest first by request time. A trace without spans is
/// not listed, as in the pattern this follows.
#[must_use]
pub fn performance(table: &TableName, range: TimeRange, limit: Option<u64>) -> Analysis {
    let (name, within) = (table.to_sql(), range.to_sql());
    let summaries = format!(
        "SELECT trace_id, trace_info['timestamp'] AS timestamp, \
         CAST(span_count AS BIGINT) AS span_count, \
         CAST(total_span_duration_ns AS DOUBLE) / 1000000.0 AS total_duration_ms \
         FROM {name} WHERE {within} AND total_span_duration_ns IS NOT NULL AND span_count > 0"
    );
    let spans = format!(
        "SELECT trace_id, timestamp, count(*) AS span_count, \
         sum(CAST(arrow_cast(span['end_time'], 'Int64') - arrow_cast(span['start_time'], 'Int64') \
         AS DOUBLE)) / 1000.0 AS total_duration_ms FROM (\
         SELECT trace_id, trace_info['timestamp'] AS timestamp, unnest(spans) AS span \
         FROM {name} WHERE {within} AND \
         part IS NULL AND (total_span_duration_ns IS NULL OR span_count IS NULL)) GROUP BY trace_id, timestamp"
    );
    let sql = format!(
        "SELECT trace_id, timestamp, span_count, total_duration_ms, \
         total_duration_ms / span_count AS avg_span_duration_ms \
         FROM ({summaries} UNION ALL {spans}) ORDER BY timestamp DESC, trace_id{}",
        limit_clause(limit),
    );
    Analysis { sql, columns: &PERFORMANCE_COLUMNS }
}

/// A timestamp of exactly the table's type, so that comparing with it needs no cast.
fn timestamp_literal(micros: i64) -> String {
    format!("arrow_cast({micros}, 'Timestamp(Microsecond, Some(\"UTC\"))')")
}

fn limit_clause(limit: Option<u64>) -> String {
    limit.map(|limit| format!(" LIMIT {limit}")).unwrap_or_default()
}

#[cfg(test)]
mod grouped_tests;

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a table name with a backtick, a range before the epoch.
    /// Guarantees: the name stays one quoted identifier, the numbers stay numbers.
    #[test]
    fn names_and_numbers_quote_themselves() {
        let Ok(table) = TableName::new("c", "s", "t") else { return };
        let range = TimeRange { since_micros: Some(-1), until_micros: None };
        let sql = traces(&table, range, Some(5)).sql;
        assert!(sql.contains("FROM `c`.`s`.`t` WHERE TRUE AND created_at >= arrow_cast(-1, "));
        assert!(sql.ends_with(" LIMIT 5"));
    }

    /// Scenario: the default range.
    /// Guarantees: it starts a day before now and has no end.
    #[test]
    fn the_default_range_is_a_day() {
        let range = TimeRange::last_24_hours(DAY_MICROS + 5);
        assert_eq!(range, TimeRange { since_micros: Some(5), until_micros: None });
    }
}
