//! What a trace is, as a list of labels and values.

use std::io::Write;

use arrow::array::{Array as _, RecordBatch};

use super::units::{count, dollars, duration};
use super::view::{boolean, entries, fields, float, integer, structs, text, texts, unquoted};
use super::{Layout, TraceContext};
use crate::error::PresentError;
use crate::style::Tone;

/// Nanoseconds in a millisecond.
const NANOS_PER_MILLI: i128 = 1_000_000;

/// Writes the list. What is null has no line.
pub(super) fn write_header(
    batch: &RecordBatch,
    row: usize,
    context: &TraceContext,
    layout: &Layout,
    out: &mut dyn Write,
) -> Result<(), PresentError> {
    let info = fields(batch, "trace_info", row);
    let of_info = |name: &str| info.and_then(|info| text(info, name, row));
    let column = |name: &str| text(batch, name, row);
    let trace_id = column("trace_id");
    // Without a client's id the request id repeats the trace id.
    let request_id = of_info("request_id").filter(|id| Some(id) != trace_id.as_ref());
    let client_request_id = column("client_request_id");
    let request_id = request_id.filter(|id| Some(id) != client_request_id.as_ref());
    let milliseconds = integer(batch, "execution_duration_ms", row);
    let labelled = [
        ("trace", trace_id),
        ("name", column("trace_name")),
        ("status", of_info("status")),
        ("experiment", experiment(column("experiment_id"), context)),
        ("run", column("run_id")),
        ("session", column("session_id")),
        ("user", column("user_id")),
        ("client id", client_request_id),
        ("request id", request_id),
        ("requested", of_info("timestamp")),
        ("duration", milliseconds.map(|ms| duration(i128::from(ms) * NANOS_PER_MILLI))),
        ("tokens", tokens(batch, row)),
        ("cost", float(batch, "total_cost", row).map(dollars)),
        ("models", Some(texts(batch, "models", row).join(", "))),
        ("table", Some(context.table.clone())),
        ("archived", archived(batch, row)),
    ];
    for (label, value) in labelled {
        let Some(value) = value.filter(|value| !value.is_empty()) else { continue };
        let tone = match label {
            "trace" | "name" => Tone::Strong,
            "status" => Tone::of_word(&value),
            _ => Tone::Plain,
        };
        layout.write_labelled(0, label, (tone, &value), out)?;
    }
    for (label, name) in [("tag", "tags"), ("metadata", "trace_metadata")] {
        for (key, value) in entries(batch, name, row) {
            layout.write_labelled(0, label, (Tone::Plain, &format!("{key} = {value}")), out)?;
        }
    }
    for assessment in assessments(batch, row) {
        layout.write_labelled(0, "assessment", (Tone::Plain, &assessment), out)?;
    }
    Ok(())
}

fn experiment(id: Option<String>, context: &TraceContext) -> Option<String> {
    let id = id?;
    Some(match &context.experiment_name {
        Some(name) => format!("{name} ({id})"),
        None => id,
    })
}

fn tokens(batch: &RecordBatch, row: usize) -> Option<String> {
    let named = [
        ("input_tokens", "in"),
        ("output_tokens", "out"),
        ("cache_read_input_tokens", "read from cache"),
        ("cache_creation_input_tokens", "written to cache"),
    ];
    let parts: Vec<String> = named
        .into_iter()
        .filter_map(|(column, name)| {
            integer(batch, column, row).map(|tokens| format!("{} {name}", count(tokens)))
        })
        .collect();
    match (integer(batch, "total_tokens", row), parts.is_empty()) {
        (Some(total), true) => Some(count(total)),
        (Some(total), false) => Some(format!("{} ({})", count(total), parts.join(", "))),
        (None, true) => None,
        (None, false) => Some(parts.join(", ")),
    }
}

fn archived(batch: &RecordBatch, row: usize) -> Option<String> {
    let created = text(batch, "created_at", row)?;
    Some(match (integer(batch, "revision", row), text(batch, "updated_at", row)) {
        (Some(revision), Some(updated)) if 1 < revision => {
            format!("{created}, revision {revision} at {updated}")
        }
        _ => created,
    })
}

/// One line an assessment: name, value, what it is about, who said so, why.
fn assessments(batch: &RecordBatch, row: usize) -> Vec<String> {
    let Some(list) = structs(batch, "assessments", row) else { return Vec::new() };
    (0..list.len())
        .map(|at| {
            let get = |name: &str| text(&list, name, at);
            let name = get("assessment_name").unwrap_or_else(|| "unnamed".to_owned());
            let value = [("feedback", ""), ("expectation", "expects "), ("issue", "issue ")]
                .into_iter()
                .find_map(|(kind, word)| {
                    get(kind).map(|json| format!("{word}{}", assessed_value(&json)))
                });
            let mut line = format!("{name} = {}", value.unwrap_or_else(|| "nothing".to_owned()));
            if let Some(span) = get("span_id") {
                line.push_str(&format!(", span {span}"));
            }
            let source = fields(&list, "source", at);
            let of_source = |name: &str| source.and_then(|source| text(source, name, at));
            let who: Vec<String> =
                [of_source("source_type"), of_source("source_id")].into_iter().flatten().collect();
            if !who.is_empty() {
                line.push_str(&format!(", by {}", who.join(" ")));
            }
            if boolean(&list, "valid", at) == Some(false) {
                line.push_str(", overridden");
            }
            if let Some(why) = get("rationale") {
                line.push_str(&format!(": {why}"));
            }
            line
        })
        .collect()
}

/// The `value` of an assessment's JSON where it has one, the JSON itself otherwise.
fn assessed_value(json: &str) -> String {
    let parsed: Option<serde_json::Value> = serde_json::from_str(json).ok();
    let found = parsed.as_ref().and_then(|whole| whole.get("value").or_else(|| whole.get("error")));
    found.map_or_else(|| unquoted(json), |value| unquoted(&value.to_string()))
}
