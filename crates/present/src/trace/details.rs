//! All that a span holds besides its inputs and outputs, for `--full`.

use std::io::Write;

use arrow::array::{Array as _, StructArray};

use super::Layout;
use super::units::{count, dollars, duration};
use super::view::{entries, fields, float, integer, structs, text, unquoted};
use crate::error::PresentError;
use crate::style::Tone;

/// Writes ids, times, attributes, resource, scope, events and links of the span at `at`.
/// `place` is the column where labels stand, and the span's start.
pub(super) fn write_details(
    spans: &StructArray,
    at: usize,
    place: (usize, Option<i64>),
    layout: &Layout,
    out: &mut dyn Write,
) -> Result<(), PresentError> {
    let (indent, start) = place;
    let mut write =
        |label: &str, value: &str| layout.write_labelled(indent, label, (Tone::Plain, value), out);
    let column = |name: &str| text(spans, name, at);
    let counted = |name: &str| integer(spans, name, at).filter(|dropped| *dropped != 0);
    let facts = [
        ("span", column("span_id")),
        ("parent", column("parent_span_id")),
        ("kind", column("kind")),
        ("start", column("start_time_unix_nano").or_else(|| column("start_time"))),
        ("end", column("end_time_unix_nano").or_else(|| column("end_time"))),
        ("model", model(spans, at)),
        ("cost", float(spans, "total_cost", at).map(dollars)),
        ("cache", cache(spans, at)),
        ("trace state", column("trace_state")),
        ("flags", counted("flags").map(|flags| format!("{flags:#x}"))),
        ("scope", scope(spans, at)),
        ("dropped", dropped(spans, at)),
    ];
    for (label, value) in facts {
        if let Some(value) = value {
            write(label, &value)?;
        }
    }
    for (key, value) in entries(spans, "metadata", at) {
        write("attribute", &format!("{key} = {}", unquoted(&value)))?;
    }
    // Strings among the resource attributes stand without quotes already.
    for (key, value) in entries(spans, "tags", at) {
        write("resource", &format!("{key} = {value}"))?;
    }
    write_events(spans, at, start, &mut write)?;
    write_links(spans, at, &mut write)
}

fn model(spans: &StructArray, at: usize) -> Option<String> {
    let model = text(spans, "model", at)?;
    let provider = text(spans, "model_provider", at);
    Some(provider.map_or_else(|| model.clone(), |provider| format!("{model} of {provider}")))
}

fn cache(spans: &StructArray, at: usize) -> Option<String> {
    let named = [("cache_read_input_tokens", "read"), ("cache_creation_input_tokens", "written")];
    let parts: Vec<String> = named
        .into_iter()
        .filter_map(|(column, name)| {
            integer(spans, column, at).map(|tokens| format!("{} tok {name}", count(tokens)))
        })
        .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn scope(spans: &StructArray, at: usize) -> Option<String> {
    let scope = fields(spans, "scope", at)?;
    let mut parts: Vec<String> = ["name", "version", "schema_url"]
        .into_iter()
        .filter_map(|name| text(scope, name, at))
        .collect();
    for (key, value) in entries(scope, "attributes", at) {
        parts.push(format!("{key} = {}", unquoted(&value)));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn dropped(spans: &StructArray, at: usize) -> Option<String> {
    let named = [
        ("dropped_attributes_count", "attributes"),
        ("dropped_events_count", "events"),
        ("dropped_links_count", "links"),
    ];
    let parts: Vec<String> = named
        .into_iter()
        .filter_map(|(column, name)| {
            let dropped = integer(spans, column, at).filter(|dropped| *dropped != 0)?;
            Some(format!("{dropped} {name}"))
        })
        .collect();
    (!parts.is_empty()).then(|| format!("{} by the sender", parts.join(", ")))
}

type WriteField<'a> = dyn FnMut(&str, &str) -> Result<(), PresentError> + 'a;

fn write_events(
    spans: &StructArray,
    at: usize,
    start: Option<i64>,
    write: &mut WriteField<'_>,
) -> Result<(), PresentError> {
    let Some(events) = structs(spans, "events", at) else { return Ok(()) };
    for event in 0..events.len() {
        let name = text(&events, "name", event).unwrap_or_else(|| "(no name)".to_owned());
        let time = integer(&events, "time_unix_nano", event).filter(|nanos| *nanos != 0);
        let after = start.zip(time).map(|(start, time)| i128::from(time) - i128::from(start));
        let after = after.map(|nanos| format!(" at {}", duration(nanos))).unwrap_or_default();
        write("event", &format!("{name}{after}"))?;
        for (key, value) in entries(&events, "attributes", event) {
            write("", &format!("{key} = {}", unquoted(&value)))?;
        }
    }
    Ok(())
}

fn write_links(
    spans: &StructArray,
    at: usize,
    write: &mut WriteField<'_>,
) -> Result<(), PresentError> {
    let Some(links) = structs(spans, "links", at) else { return Ok(()) };
    for link in 0..links.len() {
        let of = |name: &str| text(&links, name, link).unwrap_or_else(|| "?".to_owned());
        write("link", &format!("trace {} span {}", of("trace_id"), of("span_id")))?;
        for (key, value) in entries(&links, "attributes", link) {
            write("", &format!("{key} = {}", unquoted(&value)))?;
        }
    }
    Ok(())
}
