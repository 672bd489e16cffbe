//! Spans as MLflow's answers have them: `opentelemetry.proto.trace.v1.Span` in protobuf's JSON
//! form, ids in base64, times and integers as numbers.
//!
//! MLflow's server gives attributes as it stored them, so the same is done here on the way out:
//! - a text that is itself JSON of a text, list or object is given as that value, one layer deep
//! - `mlflow.traceRequestId` is the trace's id, whatever the client sent
//! - what other conventions say is given under MLflow's names too: type, inputs, outputs, token
//!   counts, model and provider.
//!
//! Beyond MLflow there are kind, trace state, flags and dropped counts, where the sender set them.
//! Absent are `mlflow.message.format` and `mlflow.chat.tools`, which MLflow derives from other
//! conventions for its page, and costs that it computes from price lists.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use tracelake_decode::any_value::write_json_string;
use tracelake_decode::conventions::{Meaning, Payload, interpret};
use tracelake_decode::mlflow_keys;
use tracelake_decode::{EventView, KeyValueView, LinkView, SpanRecord, SpanView, ValueView};
use tracelake_model::TokenUsage;

/// Appends the JSON array of `spans`: roots first, then by start, as MLflow orders them.
pub(super) fn write_spans(spans: &[SpanRecord], out: &mut String) {
    let mut ordered: Vec<&SpanRecord> = spans.iter().collect();
    ordered.sort_by_key(|span| (span.parent.is_some(), span.start_time_unix_nano));
    list(out, ordered, write_span);
}

fn write_span(span: &SpanRecord, out: &mut String) {
    let view = span.view();
    let mut members = Members::open(out);
    members.base64("trace_id", view.trace_id);
    members.base64("span_id", view.span_id);
    if let Some(parent) = span.parent {
        members.base64("parent_span_id", &parent.0);
    }
    members.text("trace_state", view.trace_state);
    members.count("flags", u64::from(view.flags));
    members.text("name", view.name);
    if view.kind != 0 {
        members.value("kind", |out| print(out, format_args!("{}", view.kind)));
    }
    members.count("start_time_unix_nano", view.start_time_unix_nano);
    members.count("end_time_unix_nano", view.end_time_unix_nano);
    members.value("attributes", |out| write_attributes(span, &view, out));
    members.count("dropped_attributes_count", u64::from(view.dropped_attributes_count));
    let mut events = view.events().peekable();
    if events.peek().is_some() {
        members.value("events", |out| list(out, events, |event, out| write_event(&event, out)));
    }
    members.count("dropped_events_count", u64::from(view.dropped_events_count));
    let mut links = view.links().peekable();
    if links.peek().is_some() {
        members.value("links", |out| list(out, links, |link, out| write_link(&link, out)));
    }
    members.count("dropped_links_count", u64::from(view.dropped_links_count));
    members.value("status", |out| write_status(&view, out));
    members.close();
}

fn write_status(view: &SpanView<'_>, out: &mut String) {
    let mut members = Members::open(out);
    match view.status_code {
        1 => members.text("code", "STATUS_CODE_OK"),
        2 => members.text("code", "STATUS_CODE_ERROR"),
        _ => {}
    }
    members.text("message", view.status_message);
    members.close();
}

fn write_event(event: &EventView<'_>, out: &mut String) {
    let mut members = Members::open(out);
    members.count("time_unix_nano", event.time_unix_nano);
    members.text("name", event.name);
    members.value("attributes", |out| list(out, event.attributes(), write_plain));
    members.count("dropped_attributes_count", u64::from(event.dropped_attributes_count));
    members.close();
}

fn write_link(link: &LinkView<'_>, out: &mut String) {
    let mut members = Members::open(out);
    members.base64("trace_id", link.trace_id);
    members.base64("span_id", link.span_id);
    members.text("trace_state", link.trace_state);
    members.value("attributes", |out| list(out, link.attributes(), write_plain));
    members.count("dropped_attributes_count", u64::from(link.dropped_attributes_count));
    members.count("flags", u64::from(link.flags));
    members.close();
}

fn write_plain(attribute: KeyValueView<'_>, out: &mut String) {
    key_value(out, attribute.key, |out| write_value(attribute.value(), out));
}

fn write_attributes(span: &SpanRecord, view: &SpanView<'_>, out: &mut String) {
    let meaning = interpret(view);
    out.push('[');
    key_value(out, mlflow_keys::TRACE_REQUEST_ID, |out| {
        write_text(&span.trace_id.to_mlflow(), out)
    });
    for attribute in view.attributes() {
        let replaced = match attribute.key {
            mlflow_keys::TRACE_REQUEST_ID => true,
            mlflow_keys::SPAN_TYPE => meaning.span_type.is_some(),
            _ => false,
        };
        if !replaced {
            out.push(',');
            key_value(out, attribute.key, |out| write_stored(attribute.value(), out));
        }
    }
    write_meaning(view, &meaning, out);
    out.push(']');
}

/// What the span means, under MLflow's names, where it does not say so itself.
fn write_meaning(view: &SpanView<'_>, meaning: &Meaning<'_>, out: &mut String) {
    let mut add = |key: &str, write: &dyn Fn(&mut String)| {
        if key == mlflow_keys::SPAN_TYPE || view.attribute(key).is_none() {
            out.push(',');
            key_value(out, key, write);
        }
    };
    if let Some(span_type) = &meaning.span_type {
        add(mlflow_keys::SPAN_TYPE, &|out| write_text(span_type, out));
    }
    for (key, payload) in
        [(mlflow_keys::SPAN_INPUTS, &meaning.inputs), (mlflow_keys::SPAN_OUTPUTS, &meaning.outputs)]
    {
        match payload {
            Some(Payload::Attribute { value, .. }) => add(key, &|out| write_stored(*value, out)),
            Some(Payload::Composed(text)) => add(key, &|out| write_json_value(text, out)),
            None => {}
        }
    }
    if !meaning.usage.is_empty() {
        add(mlflow_keys::CHAT_TOKEN_USAGE, &|out| write_usage(&meaning.usage, out));
    }
    if let Some(model) = &meaning.model {
        add(mlflow_keys::LLM_MODEL, &|out| write_text(model, out));
    }
    if let Some(provider) = &meaning.model_provider {
        add(mlflow_keys::LLM_PROVIDER, &|out| write_text(provider, out));
    }
}

fn write_usage(usage: &TokenUsage, out: &mut String) {
    let counts = [
        ("input_tokens", usage.input_tokens),
        ("output_tokens", usage.output_tokens),
        ("total_tokens", usage.total_tokens),
        ("cache_read_input_tokens", usage.cache_read_input_tokens),
        ("cache_creation_input_tokens", usage.cache_creation_input_tokens),
    ];
    let known = counts.into_iter().filter_map(|(key, count)| Some((key, count?)));
    out.push_str("{\"kvlist_value\":{\"values\":");
    list(out, known, |(key, count), out| {
        key_value(out, key, |out| write_value(ValueView::Int(count), out));
    });
    out.push_str("}}");
}

/// An attribute's value as MLflow stores it: a text that is JSON of a text, list or object is that.
fn write_stored(value: ValueView<'_>, out: &mut String) {
    match value {
        ValueView::String(text) if text.trim_start().starts_with(['"', '[', '{']) => {
            write_json_value(text, out);
        }
        other => write_value(other, out),
    }
}

/// The value that `text` is the JSON of, or the text itself when it is not JSON.
fn write_json_value(text: &str, out: &mut String) {
    let start = out.len();
    let mut reader = serde_json::Deserializer::from_str(text);
    if JsonValue(out).deserialize(&mut reader).is_err() || reader.end().is_err() {
        out.truncate(start);
        write_text(text, out);
    }
}

fn write_text(text: &str, out: &mut String) {
    write_value(ValueView::String(text), out);
}

fn write_value(value: ValueView<'_>, out: &mut String) {
    match value {
        ValueView::Empty => out.push_str("{}"),
        ValueView::String(text) => {
            out.push_str("{\"string_value\":");
            write_json_string(text, out);
            out.push('}');
        }
        ValueView::Bool(value) => print(out, format_args!("{{\"bool_value\":{value}}}")),
        ValueView::Int(value) => print(out, format_args!("{{\"int_value\":{value}}}")),
        ValueView::Double(value) => write_double(value, out),
        ValueView::Array(array) => {
            out.push_str("{\"array_value\":{\"values\":");
            list(out, array.iter(), write_value);
            out.push_str("}}");
        }
        ValueView::KeyValues(entries) => {
            out.push_str("{\"kvlist_value\":{\"values\":");
            list(out, entries.iter(), write_plain);
            out.push_str("}}");
        }
        ValueView::Bytes(bytes) => {
            out.push_str("{\"bytes_value\":\"");
            STANDARD.encode_string(bytes, out);
            out.push_str("\"}");
        }
    }
}

/// `{:?}` is the shortest text that reads back as the same double. Protobuf's JSON has names for
/// what JSON cannot say.
fn write_double(value: f64, out: &mut String) {
    let name = if value.is_nan() {
        "\"NaN\""
    } else if value == f64::INFINITY {
        "\"Infinity\""
    } else if value == f64::NEG_INFINITY {
        "\"-Infinity\""
    } else {
        print(out, format_args!("{{\"double_value\":{value:?}}}"));
        return;
    };
    print(out, format_args!("{{\"double_value\":{name}}}"));
}

fn print(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    out.write_fmt(text).ok();
}

fn key_value(out: &mut String, key: &str, write: impl FnOnce(&mut String)) {
    out.push_str("{\"key\":");
    write_json_string(key, out);
    out.push_str(",\"value\":");
    write(out);
    out.push('}');
}

fn list<T>(
    out: &mut String,
    elements: impl IntoIterator<Item = T>,
    mut write: impl FnMut(T, &mut String),
) {
    out.push('[');
    for (index, element) in elements.into_iter().enumerate() {
        if 0 < index {
            out.push(',');
        }
        write(element, out);
    }
    out.push(']');
}

/// Writes the members of one object. Empty texts and zeros are left out, as protobuf does.
struct Members<'o> {
    out: &'o mut String,
    first: bool,
}

impl<'o> Members<'o> {
    fn open(out: &'o mut String) -> Self {
        out.push('{');
        Self { out, first: true }
    }

    fn close(self) {
        self.out.push('}');
    }

    fn value(&mut self, name: &str, write: impl FnOnce(&mut String)) {
        if !self.first {
            self.out.push(',');
        }
        self.first = false;
        write_json_string(name, self.out);
        self.out.push(':');
        write(self.out);
    }

    fn text(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            self.value(name, |out| write_json_string(text, out));
        }
    }

    fn base64(&mut self, name: &str, bytes: &[u8]) {
        self.value(name, |out| {
            out.push('"');
            STANDARD.encode_string(bytes, out);
            out.push('"');
        });
    }

    fn count(&mut self, name: &str, count: u64) {
        if count != 0 {
            self.value(name, |out| print(out, format_args!("{count}")));
        }
    }
}

/// Writes a JSON value as an `AnyValue` while it is read: in order, without a copy of it.
struct JsonValue<'o>(&'o mut String);

impl<'de> DeserializeSeed<'de> for JsonValue<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for JsonValue<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        write_value(ValueView::Empty, self.0);
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        write_value(ValueView::Bool(value), self.0);
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        write_value(ValueView::Int(value), self.0);
        Ok(())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        // OTLP cannot say a larger one, so the whole text is given as it is.
        let value = i64::try_from(value).map_err(E::custom)?;
        self.visit_i64(value)
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        write_double(value, self.0);
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        write_text(value, self.0);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        self.0.push_str("{\"array_value\":{\"values\":[");
        let mut first = true;
        loop {
            let start = self.0.len();
            if !first {
                self.0.push(',');
            }
            first = false;
            if elements.next_element_seed(JsonValue(self.0))?.is_none() {
                self.0.truncate(start);
                break;
            }
        }
        self.0.push_str("]}}");
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        self.0.push_str("{\"kvlist_value\":{\"values\":[");
        let mut first = true;
        while let Some(key) = entries.next_key::<String>()? {
            if !first {
                self.0.push(',');
            }
            first = false;
            self.0.push_str("{\"key\":");
            write_json_string(&key, self.0);
            self.0.push_str(",\"value\":");
            entries.next_value_seed(JsonValue(self.0))?;
            self.0.push('}');
        }
        self.0.push_str("]}}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn stored(text: &str) -> Value {
        let mut out = String::new();
        write_stored(ValueView::String(text), &mut out);
        serde_json::from_str(&out).unwrap()
    }

    /// Scenario: texts that are JSON of a text, list, object, number or nothing, and broken ones.
    /// Guarantees: one layer is taken off where MLflow's server does so, in order and exactly; all
    /// else is the text as sent.
    #[test]
    fn takes_one_layer_of_json_off() {
        assert_eq!(stored("\"TOOL\""), json!({"string_value": "TOOL"}));
        assert_eq!(stored("\"\\\"x\\\"\""), json!({"string_value": "\"x\""}));
        assert_eq!(
            stored(" {\"z\":[1,-2.50,null,true],\"a\":{}}"),
            json!({"kvlist_value": {"values": [
                {"key": "z", "value": {"array_value": {"values": [
                    {"int_value": 1}, {"double_value": -2.5}, {}, {"bool_value": true}]}}},
                {"key": "a", "value": {"kvlist_value": {"values": []}}},
            ]}})
        );
        for text in [
            "5",
            "true",
            "null",
            "",
            "plain",
            "{",
            "[1,]",
            "{\"a\":1} x",
            "\"open",
            "[18446744073709551615]",
        ] {
            assert_eq!(stored(text), json!({"string_value": text}), "{text}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(stored(&deep), json!({"string_value": deep}));
    }

    /// Scenario: doubles at the borders and the ones that JSON has no number for.
    /// Guarantees: protobuf's JSON forms.
    #[test]
    fn writes_doubles() {
        let mut out = String::new();
        for value in [1.0, 0.1, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            write_double(value, &mut out);
        }
        assert_eq!(
            out,
            "{\"double_value\":1.0}{\"double_value\":0.1}{\"double_value\":\"NaN\"}\
             {\"double_value\":\"Infinity\"}{\"double_value\":\"-Infinity\"}"
        );
    }
}
