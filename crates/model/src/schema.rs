//! The Arrow schema of the traces table: the contract's columns, then what tracelake adds.
//!
//! Names, order and types of the contract never change; added columns stand behind it, at the top
//! level and inside of a span. List children are named `element` and map entries `key_value`, as
//! Delta and Spark write them: per-column Parquet settings depend on these names.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};

/// Comment of the table itself.
pub const TABLE_COMMENT: &str = "Archived MLflow traces for production monitoring";

/// Top-level columns of the contract; the rest are tracelake's own.
pub const CONTRACT_COLUMNS: usize = 6;

/// Fields of a span in the contract; the rest are tracelake's own.
pub const CONTRACT_SPAN_FIELDS: usize = 10;

/// Columns by which new tables are clustered: what `CLUSTER BY AUTO` starts from.
pub const CLUSTERING_COLUMNS: [&str; 2] = ["created_at", "trace_id"];

/// The schema of the traces table.
#[must_use]
pub fn traces_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| Arc::new(build_schema()));
    Arc::clone(&SCHEMA)
}

/// The fields of one span, in order.
#[must_use]
pub fn span_fields() -> Fields {
    static FIELDS: LazyLock<Fields> = LazyLock::new(build_span_fields);
    FIELDS.clone()
}

/// Delta's `TIMESTAMP`: microseconds, UTC.
#[must_use]
pub fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// `MAP<STRING, STRING>`.
#[must_use]
pub fn string_map() -> DataType {
    let entries = Fields::from(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("value", DataType::Utf8, true),
    ]);
    DataType::Map(Arc::new(Field::new("key_value", DataType::Struct(entries), false)), false)
}

/// `ARRAY<STRUCT<fields>>`.
#[must_use]
pub fn list_of(fields: Fields) -> DataType {
    DataType::List(Arc::new(Field::new("element", DataType::Struct(fields), true)))
}

fn field(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

fn text(name: &str) -> Field {
    field(name, DataType::Utf8)
}

fn list_of_text() -> DataType {
    DataType::List(Arc::new(Field::new("element", DataType::Utf8, true)))
}

fn commented(field: Field, comment: &str) -> Field {
    field.with_metadata(HashMap::from([("comment".to_owned(), comment.to_owned())]))
}

fn build_schema() -> Schema {
    let trace_info =
        Fields::from(vec![text("request_id"), field("timestamp", timestamp()), text("status")]);
    Schema::new(vec![
        commented(Field::new("trace_id", DataType::Utf8, false), "MLflow trace ID"),
        commented(text("experiment_id"), "MLflow experiment ID"),
        commented(text("run_id"), "MLflow run ID"),
        commented(field("trace_info", DataType::Struct(trace_info)), "Trace metadata"),
        commented(field("spans", list_of(span_fields())), "Trace spans"),
        commented(Field::new("created_at", timestamp(), false), "Archive timestamp"),
        commented(text("trace_name"), "Tag mlflow.traceName, or the root span's name"),
        commented(field("execution_duration_ms", DataType::Int64), "Duration in milliseconds"),
        commented(text("request_preview"), "First characters of the request"),
        commented(text("response_preview"), "First characters of the response"),
        commented(text("client_request_id"), "Request id that the client gave"),
        commented(text("session_id"), "Session or conversation"),
        commented(text("user_id"), "End user"),
        commented(field("tags", string_map()), "Mutable tags of the trace"),
        commented(field("trace_metadata", string_map()), "Immutable metadata of the trace"),
        commented(field("assessments", list_of(assessment_fields())), "Feedback and expectations"),
        commented(field("input_tokens", DataType::Int64), "Prompt tokens of the trace"),
        commented(field("output_tokens", DataType::Int64), "Completion tokens of the trace"),
        commented(field("total_tokens", DataType::Int64), "All tokens of the trace"),
        commented(field("cache_read_input_tokens", DataType::Int64), "Tokens read from a cache"),
        commented(
            field("cache_creation_input_tokens", DataType::Int64),
            "Tokens written to a cache",
        ),
        commented(field("input_cost", DataType::Float64), "Cost of the prompts in US dollars"),
        commented(field("output_cost", DataType::Float64), "Cost of the completions in US dollars"),
        commented(field("total_cost", DataType::Float64), "Cost in US dollars, as sent"),
        commented(field("models", list_of_text()), "Models that answered, in order of first use"),
        commented(field("span_count", DataType::Int32), "Number of spans"),
        commented(field("error_span_count", DataType::Int32), "Number of spans with status ERROR"),
        commented(
            field("total_span_duration_ns", DataType::Int64),
            "Sum of span durations in nanoseconds, signed, over spans with both times",
        ),
        commented(
            field("max_span_duration_ns", DataType::Int64),
            "Longest span duration in nanoseconds, over spans with both times",
        ),
        commented(field("updated_at", timestamp()), "When the row was last changed"),
        commented(field("revision", DataType::Int32), "1 at first archive, one more per change"),
        commented(
            field("linked_run_ids", list_of_text()),
            "MLflow runs that the trace was linked to, in that order",
        ),
        commented(text("said"), "Which values of the row clients said, as JSON"),
        commented(
            field("part", DataType::Int32),
            "Null for the row of a trace; 1 and up for further rows with more of its spans",
        ),
        commented(
            field("spans_bytes", DataType::Int64),
            "Bytes of the row's spans as sent, of large traces",
        ),
        commented(
            field("span_digests", DataType::Binary),
            "16 bytes for each of the row's spans, of large traces",
        ),
    ])
}

fn build_span_fields() -> Fields {
    let event = Fields::from(vec![
        field("time_unix_nano", DataType::Int64),
        text("name"),
        field("attributes", string_map()),
        field("dropped_attributes_count", DataType::Int32),
    ]);
    let link = Fields::from(vec![
        text("trace_id"),
        text("span_id"),
        text("trace_state"),
        field("attributes", string_map()),
        field("dropped_attributes_count", DataType::Int32),
        field("flags", DataType::Int32),
    ]);
    Fields::from(vec![
        text("span_id"),
        text("name"),
        text("span_type"),
        field("start_time", timestamp()),
        field("end_time", timestamp()),
        text("status"),
        text("inputs"),
        text("outputs"),
        field("tags", string_map()),
        field("metadata", string_map()),
        text("parent_span_id"),
        text("kind"),
        text("status_message"),
        field("start_time_unix_nano", DataType::Int64),
        field("end_time_unix_nano", DataType::Int64),
        field("events", list_of(event)),
        field("dropped_events_count", DataType::Int32),
        field("links", list_of(link)),
        field("dropped_links_count", DataType::Int32),
        text("trace_state"),
        field("flags", DataType::Int32),
        field("dropped_attributes_count", DataType::Int32),
        field("scope", DataType::Struct(scope_fields())),
        field("resource", DataType::Struct(resource_fields())),
        text("model"),
        text("model_provider"),
        field("input_tokens", DataType::Int64),
        field("output_tokens", DataType::Int64),
        field("total_tokens", DataType::Int64),
        field("cache_read_input_tokens", DataType::Int64),
        field("cache_creation_input_tokens", DataType::Int64),
        field("total_cost", DataType::Float64),
        text("inputs_attribute"),
        text("outputs_attribute"),
        text("source"),
        field("otlp", DataType::Binary),
    ])
}

fn scope_fields() -> Fields {
    Fields::from(vec![
        text("name"),
        text("version"),
        field("attributes", string_map()),
        field("dropped_attributes_count", DataType::Int32),
        text("schema_url"),
    ])
}

/// `json_attributes` lists the positions of the resource attributes whose text in `tags` is JSON.
fn resource_fields() -> Fields {
    Fields::from(vec![
        text("json_attributes"),
        field("dropped_attributes_count", DataType::Int32),
        text("schema_url"),
    ])
}

fn assessment_fields() -> Fields {
    let source = Fields::from(vec![text("source_type"), text("source_id")]);
    Fields::from(vec![
        text("assessment_id"),
        text("assessment_name"),
        text("span_id"),
        field("source", DataType::Struct(source)),
        field("create_time", timestamp()),
        field("last_update_time", timestamp()),
        text("feedback"),
        text("expectation"),
        text("issue"),
        text("rationale"),
        field("metadata", string_map()),
        text("overrides"),
        field("valid", DataType::Boolean),
    ])
}

/// The field named `name` in `fields`, for code that takes columns apart.
#[must_use]
pub fn child<'a>(fields: &'a Fields, name: &str) -> Option<&'a FieldRef> {
    fields.iter().find(|field| field.name() == name)
}
