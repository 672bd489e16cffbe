//! Spans as OTLP JSON: the way back from protobuf.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tracelake_model::ids::hex;

use crate::any_value::write_json_string;
use crate::otlp::view::{KeyValueView, SpanView, ValueView};

/// Writes `Span` messages as `{"spans": [...]}`, each in the JSON form that OTLP defines.
///
/// [`crate::mlflow_json::traces_json_to_protobuf`] gives back the same spans: ids, times, values
/// of every type and their order. Fields that OTLP does not know are not written.
#[must_use]
pub fn write_spans<'a>(spans: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut out = Writer { text: String::from("{\"spans\":") };
    out.list(spans, |out, message| span(out, &SpanView::new(message)));
    out.text.push('}');
    out.text
}

struct Writer {
    text: String,
}

impl Writer {
    fn list<T>(&mut self, items: impl IntoIterator<Item = T>, write: impl Fn(&mut Self, T)) {
        self.text.push('[');
        for (index, item) in items.into_iter().enumerate() {
            if 0 < index {
                self.text.push(',');
            }
            write(self, item);
        }
        self.text.push(']');
    }

    /// The name of a member, after a comma unless it is the first of its object.
    fn name(&mut self, name: &str) {
        if !self.text.ends_with('{') {
            self.text.push(',');
        }
        write_json_string(name, &mut self.text);
        self.text.push(':');
    }

    fn string(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.name(name);
            write_json_string(value, &mut self.text);
        }
    }

    fn number(&mut self, name: &str, value: u64) {
        if value != 0 {
            self.name(name);
            // Writing to a String cannot fail. Integers of 64 bits are strings in OTLP JSON.
            write!(self.text, "\"{value}\"").ok();
        }
    }

    fn enumeration(&mut self, name: &str, value: i32) {
        if value != 0 {
            self.name(name);
            write!(self.text, "{value}").ok();
        }
    }

    fn attributes<'a>(&mut self, name: &str, entries: impl Iterator<Item = KeyValueView<'a>>) {
        let mut entries = entries.peekable();
        if entries.peek().is_some() {
            self.name(name);
            self.list(entries, |out, entry| key_value(out, &entry));
        }
    }
}

fn span(out: &mut Writer, span: &SpanView<'_>) {
    out.text.push('{');
    out.string("traceId", &hex(span.trace_id));
    out.string("spanId", &hex(span.span_id));
    out.string("traceState", span.trace_state);
    out.string("parentSpanId", &hex(span.parent_span_id));
    out.string("name", span.name);
    out.enumeration("kind", span.kind);
    out.number("startTimeUnixNano", span.start_time_unix_nano);
    out.number("endTimeUnixNano", span.end_time_unix_nano);
    // Also without attributes: it is by this list that a reader tells OTLP from MLflow's form.
    out.name("attributes");
    out.list(span.attributes(), |out, entry| key_value(out, &entry));
    out.number("droppedAttributesCount", u64::from(span.dropped_attributes_count));
    out.name("events");
    out.list(span.events(), |out, event| {
        out.text.push('{');
        out.number("timeUnixNano", event.time_unix_nano);
        out.string("name", event.name);
        out.attributes("attributes", event.attributes());
        out.number("droppedAttributesCount", u64::from(event.dropped_attributes_count));
        out.text.push('}');
    });
    out.number("droppedEventsCount", u64::from(span.dropped_events_count));
    out.name("links");
    out.list(span.links(), |out, link| {
        out.text.push('{');
        out.string("traceId", &hex(link.trace_id));
        out.string("spanId", &hex(link.span_id));
        out.string("traceState", link.trace_state);
        out.attributes("attributes", link.attributes());
        out.number("droppedAttributesCount", u64::from(link.dropped_attributes_count));
        out.number("flags", u64::from(link.flags));
        out.text.push('}');
    });
    out.number("droppedLinksCount", u64::from(span.dropped_links_count));
    if span.has_status {
        out.name("status");
        out.text.push('{');
        out.enumeration("code", span.status_code);
        out.string("message", span.status_message);
        out.text.push('}');
    }
    out.number("flags", u64::from(span.flags));
    out.text.push('}');
}

fn key_value(out: &mut Writer, entry: &KeyValueView<'_>) {
    out.text.push('{');
    out.name("key");
    write_json_string(entry.key, &mut out.text);
    out.name("value");
    any_value(out, entry.value());
    out.text.push('}');
}

fn any_value(out: &mut Writer, value: ValueView<'_>) {
    out.text.push('{');
    match value {
        ValueView::Empty => {}
        ValueView::String(text) => {
            out.name("stringValue");
            write_json_string(text, &mut out.text);
        }
        ValueView::Bool(value) => {
            out.name("boolValue");
            write!(out.text, "{value}").ok();
        }
        ValueView::Int(value) => {
            out.name("intValue");
            write!(out.text, "\"{value}\"").ok();
        }
        ValueView::Double(value) => {
            out.name("doubleValue");
            double(&mut out.text, value);
        }
        ValueView::Array(array) => {
            out.name("arrayValue");
            out.text.push('{');
            out.name("values");
            out.list(array.iter(), any_value);
            out.text.push('}');
        }
        ValueView::KeyValues(entries) => {
            out.name("kvlistValue");
            out.text.push('{');
            out.name("values");
            out.list(entries.iter(), |out, entry| key_value(out, &entry));
            out.text.push('}');
        }
        ValueView::Bytes(bytes) => {
            out.name("bytesValue");
            write!(out.text, "\"{}\"", STANDARD.encode(bytes)).ok();
        }
    }
    out.text.push('}');
}

fn double(out: &mut String, value: f64) {
    if value.is_nan() {
        out.push_str("\"NaN\"");
    } else if value.is_infinite() {
        out.push_str(if value < 0.0 { "\"-Infinity\"" } else { "\"Infinity\"" });
    } else {
        // The shortest text that reads back as the same double.
        write!(out, "{value:?}").ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mlflow_json::traces_json_to_protobuf;
    use crate::request::{SpanSource, decode_otlp};
    use tracelake_model::Limits;

    /// Scenario: spans with values of every type, among them NaN, bytes and the largest integers,
    /// with events, links, dropped counts, flags and a status.
    /// Guarantees: written as JSON and read again they have the same content.
    #[test]
    fn spans_come_back_from_json_as_they_were() {
        let body = br#"{"resourceSpans":[{"scopeSpans":[{"spans":[
            {"traceId":"0123456789abcdef0123456789abcdef","spanId":"0123456789abcdef",
             "parentSpanId":"1123456789abcdef","traceState":"a=b","name":"na\"me\u0001","kind":3,
             "startTimeUnixNano":"18446744073709551615","endTimeUnixNano":"7","flags":259,
             "droppedAttributesCount":4294967295,"droppedEventsCount":2,"droppedLinksCount":3,
             "status":{"code":2,"message":"it broke"},
             "attributes":[
              {"key":"s","value":{"stringValue":""}},{"key":"none","value":{}},
              {"key":"i","value":{"intValue":"-9223372036854775808"}},
              {"key":"b","value":{"boolValue":false}},{"key":"d","value":{"doubleValue":1e300}},
              {"key":"z","value":{"doubleValue":-0.0}},{"key":"n","value":{"doubleValue":"NaN"}},
              {"key":"m","value":{"doubleValue":"-Infinity"}},
              {"key":"y","value":{"bytesValue":"AP8="}},
              {"key":"a","value":{"arrayValue":{"values":[{"intValue":1},{},{"arrayValue":{}}]}}},
              {"key":"k","value":{"kvlistValue":{"values":[{"key":"k","value":{"intValue":0}}]}}}],
             "events":[{"timeUnixNano":"5","name":"e","droppedAttributesCount":1,
                        "attributes":[{"key":"x","value":{"stringValue":"y"}}]},{}],
             "links":[{"traceId":"0123456789abcdef0123456789abcdee","spanId":"0123456789abcdee",
                       "traceState":"c=d","flags":1,"droppedAttributesCount":2,
                       "attributes":[{"key":"x","value":{"boolValue":true}}]}]},
            {"traceId":"0123456789abcdef0123456789abcdef","spanId":"0123456789abcdea"}]}]}]}"#;
        let (protobuf, rejects) = crate::otlp_json::to_protobuf(body).unwrap();
        assert_eq!(rejects, []);
        let limits = Limits::default();
        let sent = decode_otlp(&protobuf.into(), SpanSource::Mlflow, &limits).unwrap().spans;
        let text = write_spans(sent.iter().map(|span| &span.message[..]));
        let (protobuf, rejects) = traces_json_to_protobuf(text.as_bytes(), None).unwrap();
        assert_eq!(rejects, []);
        let read = decode_otlp(&protobuf.into(), SpanSource::Mlflow, &limits).unwrap().spans;
        assert_eq!(read.len(), sent.len());
        for (read, sent) in read.iter().zip(&sent) {
            assert!(read.same_content(sent), "{text}");
        }
    }
}
