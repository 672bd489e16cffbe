//! The questions as Spark SQL: the same columns, types, values and order as this engine's own.
//!
//! Runs on Apache Spark from 3.5 on, Databricks, and Sail, whatever the session's time zone and
//! whether ANSI mode is on. What that takes:
//! - No lambdas: Sail knows columns in them in some places only, and Spark reads all leaves of an
//!   array that a lambda walks. Functions over one leaf, as in `array_position(spans.status, ..)`,
//!   read that leaf alone.
//! - No `element_at` and no arithmetic that may overflow: in ANSI mode they fail. `get` is null
//!   outside of the list.
//! - Integer division is `div`, doubles come from `1e6`, times from microseconds since the epoch.
//! - The order of nulls is always said: Spark's default is the opposite of this engine's.
//! - Percentiles and first values by window functions, which spill to disk. Collecting a group's
//!   values into a list would hold them all in one row.

mod error_groups;
mod performance_by;

use arrow::datatypes::{DataType, Field};
use tracelake_model::TableName;
use tracelake_model::schema::{child, traces_schema};

use super::{Analysis, ERRORS_COLUMNS, PERFORMANCE_COLUMNS, Question, TRACES_COLUMNS, TimeRange};
use crate::leaves::without_payloads;

/// How Spark finds a table. Quotes itself: whatever the name or path holds, it stays one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SparkTable {
    /// A table that the session's catalogs know.
    Named(TableName),
    /// A Delta table's folder or address, as the session's workers reach it.
    Path(String),
    /// A temporary view of the session.
    View(String),
}

impl SparkTable {
    /// The table as it stands behind `FROM`.
    #[must_use]
    pub fn to_sql(&self) -> String {
        match self {
            Self::Named(name) => name.to_sql(),
            Self::Path(path) => format!("delta.{}", quoted(path)),
            Self::View(view) => quoted(view),
        }
    }
}

fn quoted(identifier: &str) -> String {
    format!("`{}`", identifier.replace('`', "``"))
}

/// What every statement is about.
#[derive(Debug)]
struct Scope {
    /// The table, quoted.
    table: String,
    /// The condition on `created_at`.
    within: String,
    /// ` LIMIT n`, or nothing.
    limit: String,
}

impl Question {
    /// The question's statement for Spark: the same columns, values and order.
    ///
    /// The table needs all the columns that tracelake adds; rows of other writers may leave them
    /// null. Whole rows without payloads have tracelake's columns and not those that others added.
    /// A limit past 32 bits, which Spark does not have, is none.
    #[must_use]
    pub fn spark(self, table: &SparkTable, range: TimeRange, limit: Option<u64>) -> Analysis {
        statement(self, table, range, limit)
    }
}

/// The statement behind [`Question::spark`].
fn statement(
    question: Question,
    table: &SparkTable,
    range: TimeRange,
    limit: Option<u64>,
) -> Analysis {
    let scope = Scope { table: table.to_sql(), within: within(range), limit: limit_clause(limit) };
    match question {
        Question::ArchivedTraces { payloads } => archived_traces(payloads, &scope),
        Question::Traces => traces(&scope),
        Question::Errors => errors(&scope),
        Question::ErrorGroups => error_groups::error_groups(&scope),
        Question::Performance => performance(&scope),
        Question::PerformanceBy(grouping) => performance_by::performance_by(grouping, &scope),
    }
}

/// The range as a condition on `created_at`. Microseconds mean the same in every time zone.
fn within(range: TimeRange) -> String {
    let mut sql = String::from("TRUE");
    if let Some(since) = range.since_micros {
        sql.push_str(&format!(" AND created_at >= timestamp_micros({since})"));
    }
    if let Some(until) = range.until_micros {
        sql.push_str(&format!(" AND created_at <= timestamp_micros({until})"));
    }
    sql
}

/// Spark's limits are 32 bits wide. No answer has as many rows as a greater one allows.
fn limit_clause(limit: Option<u64>) -> String {
    let limit = limit.and_then(|limit| i32::try_from(limit).ok());
    limit.map(|limit| format!("\nLIMIT {limit}")).unwrap_or_default()
}

/// Failed spans of a row; null where the row has no spans.
const FAILED_COUNT: &str = "array_size(spans) - array_size(array_remove(spans.status, 'ERROR'))";

/// Position of a row's first failed span, counted from 0; -1 where none failed.
const FIRST_FAILED: &str = "CAST(array_position(spans.status, 'ERROR') AS INT) - 1";

/// The failed spans of a row, by its summary or else by its spans.
fn error_span_count() -> String {
    format!("CASE WHEN error_span_count IS NULL THEN {FAILED_COUNT} ELSE error_span_count END")
}

const NEWEST_ARCHIVED: &str = "ORDER BY created_at DESC NULLS FIRST, trace_id ASC NULLS LAST";
const NEWEST_REQUESTED: &str = "ORDER BY timestamp DESC NULLS FIRST, trace_id ASC NULLS LAST";

fn archived_traces(payloads: bool, scope: &Scope) -> Analysis {
    let Scope { table, within, limit } = scope;
    let columns = if payloads { "*".to_owned() } else { columns_without_payloads() };
    let sql = format!("SELECT {columns}\nFROM {table}\nWHERE {within}\n{NEWEST_ARCHIVED}{limit}");
    Analysis { sql, columns: &[] }
}

/// The columns of a table that tracelake made, without payloads.
///
/// A struct in an array is made smaller by zipping the leaves that stay: each `spans.leaf` is an
/// array, so that nothing else is read. The cast gives the fields their names, which engines make
/// up in different ways; it goes by position.
fn columns_without_payloads() -> String {
    let schema = without_payloads(&traces_schema());
    let columns: Vec<String> = schema
        .fields()
        .iter()
        .map(|column| match column.data_type() {
            DataType::List(element) if column.name() == "spans" => zipped_spans(element),
            _ => column.name().clone(),
        })
        .collect();
    columns.join(",\n")
}

fn zipped_spans(element: &Field) -> String {
    let DataType::Struct(fields) = element.data_type() else { return "spans".to_owned() };
    let leaves: Vec<String> =
        fields.iter().map(|field| format!("spans.{}", field.name())).collect();
    let (leaves, spans) = (leaves.join(", "), spark_type(element.data_type()));
    format!("CAST(arrays_zip({leaves}) AS ARRAY<{spans}>) AS spans")
}

/// The name of a type of [`traces_schema`] in Spark.
fn spark_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "BOOLEAN".to_owned(),
        DataType::Int32 => "INT".to_owned(),
        DataType::Int64 => "BIGINT".to_owned(),
        DataType::Float64 => "DOUBLE".to_owned(),
        DataType::Timestamp(..) => "TIMESTAMP".to_owned(),
        DataType::Binary => "BINARY".to_owned(),
        DataType::List(element) => format!("ARRAY<{}>", spark_type(element.data_type())),
        DataType::Struct(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|field| format!("{}: {}", field.name(), spark_type(field.data_type())))
                .collect();
            format!("STRUCT<{}>", fields.join(", "))
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) => {
                let part = |name| child(pair, name).map(|field| spark_type(field.data_type()));
                let text = || "STRING".to_owned();
                format!(
                    "MAP<{}, {}>",
                    part("key").unwrap_or_else(text),
                    part("value").unwrap_or_else(text)
                )
            }
            _ => "MAP<STRING, STRING>".to_owned(),
        },
        _ => "STRING".to_owned(),
    }
}

fn traces(scope: &Scope) -> Analysis {
    let Scope { table, within, limit } = scope;
    let sql = format!(
        "SELECT trace_id, trace_info.timestamp AS timestamp, trace_name, \
         trace_info.status AS status,\n\
         CASE WHEN span_count IS NULL THEN array_size(spans) ELSE span_count END AS span_count,\n\
         CASE WHEN span_count IS NULL THEN {FAILED_COUNT} ELSE error_span_count END \
         AS error_span_count,\n\
         execution_duration_ms, experiment_id, total_tokens, created_at\n\
         FROM {table}\nWHERE {within} AND part IS NULL\n{NEWEST_ARCHIVED}{limit}"
    );
    Analysis { sql, columns: &TRACES_COLUMNS }
}

fn errors(scope: &Scope) -> Analysis {
    let Scope { table, within, limit } = scope;
    let sql = format!(
        "SELECT trace_id, trace_info.request_id AS request_id, \
         trace_info.timestamp AS timestamp, trace_info.status AS status,\n\
         {} AS error_span_count,\n\
         get(spans.name, {FIRST_FAILED}) AS error_span_name,\n\
         get(spans.status_message, {FIRST_FAILED}) AS error_message\n\
         FROM {table}\nWHERE {within} AND part IS NULL\n\
         AND (trace_info.status = 'ERROR' OR CASE WHEN error_span_count IS NULL \
         THEN array_contains(spans.status, 'ERROR') ELSE error_span_count > 0 END)\n\
         {NEWEST_REQUESTED}{limit}",
        error_span_count(),
    );
    Analysis { sql, columns: &ERRORS_COLUMNS }
}

fn performance(scope: &Scope) -> Analysis {
    let Scope { table, within, limit } = scope;
    let sql = format!(
        "SELECT trace_id, timestamp, span_count, total_duration_ms,\n\
         total_duration_ms / span_count AS avg_span_duration_ms\n\
         FROM (SELECT trace_id, trace_info.timestamp AS timestamp, \
         CAST(span_count AS BIGINT) AS span_count,\n\
         CAST(total_span_duration_ns AS DOUBLE) / 1e6 AS total_duration_ms\n\
         FROM {table}\n\
         WHERE {within} AND total_span_duration_ns IS NOT NULL AND span_count > 0\n\
         UNION ALL\n\
         SELECT trace_id, timestamp, count(*) AS span_count,\n\
         sum(CAST(unix_micros(span.end_time) - unix_micros(span.start_time) AS DOUBLE)) / 1e3 \
         AS total_duration_ms\n\
         FROM (SELECT trace_id, trace_info.timestamp AS timestamp, explode(spans) AS span\n\
         FROM {table}\n\
         WHERE {within} AND part IS NULL \
         AND (total_span_duration_ns IS NULL OR span_count IS NULL))\n\
         GROUP BY trace_id, timestamp)\n\
         {NEWEST_REQUESTED}{limit}"
    );
    Analysis { sql, columns: &PERFORMANCE_COLUMNS }
}

#[cfg(test)]
mod tests;
