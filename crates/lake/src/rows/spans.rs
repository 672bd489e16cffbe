//! The `spans` column: OTLP spans walked once, straight into leaf builders.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, Float64Builder, Int32Builder, Int64Builder, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow::error::ArrowError;
use tracelake_decode::any_value::{to_json, write_json, write_json_string};
use tracelake_decode::conventions::{Meaning, Payload, PayloadForm};
use tracelake_decode::request::{SpanGroup, encode_request};
use tracelake_decode::{KeyValueView, ResourceView, ScopeView, SpanRecord, SpanView, ValueView};
use tracelake_model::ids::{hex, hex_in};
use tracelake_model::schema::span_fields;

use super::columns::{
    Finish, Finished, MapColumn, Offsets, SeenKeys, element_fields, field_of, struct_array,
    struct_fields,
};

/// Builders of the `spans` column.
#[derive(Debug, Default)]
pub(crate) struct SpanColumns {
    list: Offsets,
    rows: usize,
    text: [StringBuilder; TEXT.len()],
    micros: [TimestampMicrosecondBuilder; 2],
    nanos: [Int64Builder; 2],
    counts: [Int32Builder; COUNTS.len()],
    tokens: [Int64Builder; TOKENS.len()],
    total_cost: Float64Builder,
    tags: MapColumn,
    metadata: MapColumn,
    events: EventColumns,
    links: LinkColumns,
    scope: ScopeColumns,
    resource: ResourceColumns,
    otlp: BinaryBuilder,
    /// Of the last span: the next one often has the same.
    group: Option<GroupCells>,
}

/// What the spans of a group have in the columns of their resource.
#[derive(Debug)]
struct GroupCells {
    group: Arc<SpanGroup>,
    tags: Vec<(String, String)>,
    /// Positions of the tags that are JSON, not text.
    json_positions: String,
    resource_dropped: u32,
    /// No key of the resource came twice.
    unique_keys: bool,
}

impl GroupCells {
    fn new(group: &Arc<SpanGroup>) -> Self {
        let resource = ResourceView::new(&group.resource);
        let mut seen = SeenKeys::default();
        let mut cells = Self {
            group: Arc::clone(group),
            tags: Vec::new(),
            json_positions: String::new(),
            resource_dropped: resource.dropped_attributes_count,
            unique_keys: true,
        };
        for (position, attribute) in resource.attributes().enumerate() {
            if !seen.insert(attribute.key) {
                cells.unique_keys = false;
                continue;
            }
            let value = match attribute.value() {
                ValueView::String(text) => text.to_owned(),
                value => {
                    if !cells.json_positions.is_empty() {
                        cells.json_positions.push(',');
                    }
                    cells.json_positions.push_str(&position.to_string());
                    to_json(value)
                }
            };
            cells.tags.push((attribute.key.to_owned(), value));
        }
        cells
    }
}

const TEXT: [&str; 15] = [
    "span_id",
    "name",
    "span_type",
    "status",
    "inputs",
    "outputs",
    "parent_span_id",
    "kind",
    "status_message",
    "trace_state",
    "model",
    "model_provider",
    "inputs_attribute",
    "outputs_attribute",
    "source",
];
const COUNTS: [&str; 4] =
    ["dropped_events_count", "dropped_links_count", "flags", "dropped_attributes_count"];
const TOKENS: [&str; 5] = [
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
];

#[derive(Debug, Default)]
struct EventColumns {
    list: Offsets,
    time: Int64Builder,
    name: StringBuilder,
    attributes: MapColumn,
    dropped: Int32Builder,
    rows: usize,
}

#[derive(Debug, Default)]
struct LinkColumns {
    list: Offsets,
    text: [StringBuilder; 3],
    attributes: MapColumn,
    dropped: Int32Builder,
    flags: Int32Builder,
    rows: usize,
}

#[derive(Debug, Default)]
struct ScopeColumns {
    text: [StringBuilder; 3],
    attributes: MapColumn,
    dropped: Int32Builder,
}

#[derive(Debug, Default)]
struct ResourceColumns {
    text: [StringBuilder; 2],
    dropped: Int32Builder,
}

impl SpanColumns {
    /// Ends the list of spans of one trace.
    pub(crate) fn end_trace(&mut self) {
        self.list.end(self.rows);
    }

    /// Appends one span.
    pub(crate) fn append(
        &mut self,
        record: &SpanRecord,
        span: &SpanView<'_>,
        attributes: &[KeyValueView<'_>],
        meaning: &Meaning<'_>,
    ) {
        self.rows += 1;
        let mut exact = !record.beyond_columns;
        self.append_text(record, span, meaning);
        exact &= self.append_times(span);
        exact &= self.append_counts(span);
        exact &= self.append_attributes(attributes, meaning);
        exact &= self.append_group(&record.group);
        exact &= self.events.append(span);
        exact &= self.links.append(span);
        let usage = &meaning.usage;
        for (builder, count) in self.tokens.iter_mut().zip([
            usage.input_tokens,
            usage.output_tokens,
            usage.total_tokens,
            usage.cache_read_input_tokens,
            usage.cache_creation_input_tokens,
        ]) {
            builder.append_option(count);
        }
        self.total_cost.append_option(meaning.cost.total_cost);
        if exact {
            self.otlp.append_null();
        } else {
            // What the columns cannot hold is kept as it came, beside what they can.
            self.otlp.append_value(encode_request(std::slice::from_ref(record)));
        }
    }

    fn append_text(&mut self, record: &SpanRecord, span: &SpanView<'_>, meaning: &Meaning<'_>) {
        let [
            span_id,
            name,
            span_type,
            status,
            _,
            _,
            parent,
            kind,
            message,
            state,
            model,
            provider,
            _,
            _,
            source,
        ] = &mut self.text;
        let mut digits = [0; 32];
        span_id.append_value(hex_in(span.span_id, &mut digits));
        name.append_value(span.name);
        span_type.append_option(meaning.span_type.as_deref());
        status.append_value(status_name(span.status_code));
        parent.append_option(record.parent.map(|id| hex_in(&id.0, &mut digits)));
        kind.append_value(kind_name(span.kind).as_ref());
        message.append_option(Some(span.status_message).filter(|text| !text.is_empty()));
        state.append_option(Some(span.trace_state).filter(|text| !text.is_empty()));
        model.append_option(meaning.model.as_deref());
        provider.append_option(meaning.model_provider.as_deref());
        source.append_value(record.group.source.as_str());
    }

    /// Zero means unknown to OpenTelemetry, so that a day never begins in 1970: the timestamps
    /// are null then, the nanoseconds are what was sent.
    fn append_times(&mut self, span: &SpanView<'_>) -> bool {
        let mut exact = true;
        for (index, time) in
            [span.start_time_unix_nano, span.end_time_unix_nano].into_iter().enumerate()
        {
            let nanos = i64::try_from(time).ok();
            exact &= nanos.is_some();
            self.nanos[index].append_option(nanos);
            self.micros[index].append_option(nanos.filter(|n| *n != 0).map(|n| n / 1_000));
        }
        exact
    }

    fn append_counts(&mut self, span: &SpanView<'_>) -> bool {
        let mut exact = (0..=2).contains(&span.status_code);
        for (builder, count) in self.counts.iter_mut().zip([
            span.dropped_events_count,
            span.dropped_links_count,
            span.flags,
            span.dropped_attributes_count,
        ]) {
            exact &= append_count(builder, count);
        }
        exact
    }

    fn append_attributes(
        &mut self,
        attributes: &[KeyValueView<'_>],
        meaning: &Meaning<'_>,
    ) -> bool {
        let lifted = [
            self.append_payload(4, 12, meaning.inputs.as_ref()),
            self.append_payload(5, 13, meaning.outputs.as_ref()),
        ];
        let mut seen = SeenKeys::default();
        let mut exact = true;
        for (position, attribute) in attributes.iter().enumerate() {
            let first = seen.insert(attribute.key);
            exact &= first;
            if first && !lifted.contains(&Some(position)) {
                self.metadata.json_entry(attribute.key, attribute.value());
            }
        }
        self.metadata.end();
        exact
    }

    /// Writes `inputs` or `outputs` and where it came from. Returns the lifted position.
    fn append_payload(
        &mut self,
        column: usize,
        origin: usize,
        payload: Option<&Payload<'_>>,
    ) -> Option<usize> {
        match payload {
            None => {
                self.text[column].append_null();
                self.text[origin].append_null();
                None
            }
            Some(Payload::Composed(text)) => {
                self.text[column].append_value(text);
                self.text[origin].append_null();
                None
            }
            Some(Payload::Attribute { position, key, value, form }) => {
                let builder = &mut self.text[column];
                match (form, value) {
                    (PayloadForm::Text, ValueView::String(text)) => builder.append_value(text),
                    (PayloadForm::Quoted, ValueView::String(text)) => {
                        write_json_string(text, builder);
                        builder.append_value("");
                    }
                    (_, value) => {
                        write_json(*value, builder);
                        builder.append_value("");
                    }
                }
                let form = match (form, value) {
                    (PayloadForm::Text, ValueView::String(_)) => 't',
                    (PayloadForm::Quoted, ValueView::String(_)) => 'q',
                    _ => 'v',
                };
                // Writing to a builder cannot fail.
                write!(self.text[origin], "{position}:{form}:{key}").ok();
                self.text[origin].append_value("");
                Some(*position)
            }
        }
    }

    /// Appends what the spans of a group share. Returns false when the columns cannot hold all of it.
    fn append_group(&mut self, group: &Arc<SpanGroup>) -> bool {
        let known = self.group.take().filter(|known| known.group.says_the_same(group));
        let cells = known.unwrap_or_else(|| GroupCells::new(group));
        cells.tags.iter().for_each(|(key, value)| self.tags.entry(key, value));
        self.tags.end();
        let [positions, schema_url] = &mut self.resource.text;
        positions.append_option(non_empty(&cells.json_positions));
        schema_url.append_option(non_empty(&group.resource_schema_url));
        let mut exact = cells.unique_keys;
        exact &= append_count(&mut self.resource.dropped, cells.resource_dropped);
        let scope = ScopeView::new(&group.scope);
        let [name, version, schema_url] = &mut self.scope.text;
        name.append_option(non_empty(scope.name));
        version.append_option(non_empty(scope.version));
        schema_url.append_option(non_empty(&group.scope_schema_url));
        exact &= self.scope.attributes.attributes(scope.attributes());
        exact &= append_count(&mut self.scope.dropped, scope.dropped_attributes_count);
        self.group = Some(cells);
        exact
    }

    /// The finished column.
    pub(crate) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let fields = span_fields();
        let mut done = Finished::default();
        for (name, builder) in TEXT.into_iter().zip(&mut self.text) {
            done.push(name, builder.array());
        }
        for (name, builder) in ["start_time", "end_time"].into_iter().zip(&mut self.micros) {
            done.push(name, builder.array());
        }
        let nanos = ["start_time_unix_nano", "end_time_unix_nano"];
        for (name, builder) in nanos.into_iter().zip(&mut self.nanos) {
            done.push(name, builder.array());
        }
        for (name, builder) in COUNTS.into_iter().zip(&mut self.counts) {
            done.push(name, builder.array());
        }
        for (name, builder) in TOKENS.into_iter().zip(&mut self.tokens) {
            done.push(name, builder.array());
        }
        done.push("total_cost", self.total_cost.array());
        done.push("tags", self.tags.finish()?);
        done.push("metadata", self.metadata.finish()?);
        done.push("events", self.events.finish(field_of(&fields, "events")?.data_type())?);
        done.push("links", self.links.finish(field_of(&fields, "links")?.data_type())?);
        done.push("scope", self.scope.finish(field_of(&fields, "scope")?.data_type())?);
        done.push("resource", self.resource.finish(field_of(&fields, "resource")?.data_type())?);
        done.push("otlp", self.otlp.array());
        let element = struct_array(&fields, done.in_order(&fields)?)?;
        self.rows = 0;
        self.list.finish_list(&tracelake_model::schema::list_of(fields), element)
    }
}

impl EventColumns {
    fn append(&mut self, span: &SpanView<'_>) -> bool {
        let mut exact = true;
        for event in span.events() {
            let time = i64::try_from(event.time_unix_nano).ok();
            exact &= time.is_some();
            self.time.append_option(time);
            self.name.append_value(event.name);
            exact &= self.attributes.attributes(event.attributes());
            exact &= append_count(&mut self.dropped, event.dropped_attributes_count);
            self.rows += 1;
        }
        self.list.end(self.rows);
        exact
    }

    fn finish(&mut self, data_type: &arrow::datatypes::DataType) -> Result<ArrayRef, ArrowError> {
        let fields = element_fields(data_type)?;
        let mut done = Finished::default();
        done.push("time_unix_nano", self.time.array());
        done.push("name", self.name.array());
        done.push("attributes", self.attributes.finish()?);
        done.push("dropped_attributes_count", self.dropped.array());
        self.rows = 0;
        self.list.finish_list(data_type, struct_array(fields, done.in_order(fields)?)?)
    }
}

impl LinkColumns {
    fn append(&mut self, span: &SpanView<'_>) -> bool {
        let mut exact = true;
        for link in span.links() {
            let [trace_id, span_id, trace_state] = &mut self.text;
            trace_id.append_value(hex(link.trace_id));
            span_id.append_value(hex(link.span_id));
            trace_state.append_option(non_empty(link.trace_state));
            exact &= self.attributes.attributes(link.attributes());
            exact &= append_count(&mut self.dropped, link.dropped_attributes_count);
            exact &= append_count(&mut self.flags, link.flags);
            self.rows += 1;
        }
        self.list.end(self.rows);
        exact
    }

    fn finish(&mut self, data_type: &arrow::datatypes::DataType) -> Result<ArrayRef, ArrowError> {
        let fields = element_fields(data_type)?;
        let mut done = Finished::default();
        for (name, builder) in
            ["trace_id", "span_id", "trace_state"].into_iter().zip(&mut self.text)
        {
            done.push(name, builder.array());
        }
        done.push("attributes", self.attributes.finish()?);
        done.push("dropped_attributes_count", self.dropped.array());
        done.push("flags", self.flags.array());
        self.rows = 0;
        self.list.finish_list(data_type, struct_array(fields, done.in_order(fields)?)?)
    }
}

impl ScopeColumns {
    fn finish(&mut self, data_type: &arrow::datatypes::DataType) -> Result<ArrayRef, ArrowError> {
        let fields = struct_fields(data_type)?;
        let mut done = Finished::default();
        for (name, builder) in ["name", "version", "schema_url"].into_iter().zip(&mut self.text) {
            done.push(name, builder.array());
        }
        done.push("attributes", self.attributes.finish()?);
        done.push("dropped_attributes_count", self.dropped.array());
        struct_array(fields, done.in_order(fields)?)
    }
}

impl ResourceColumns {
    fn finish(&mut self, data_type: &arrow::datatypes::DataType) -> Result<ArrayRef, ArrowError> {
        let fields = struct_fields(data_type)?;
        let mut done = Finished::default();
        for (name, builder) in ["json_attributes", "schema_url"].into_iter().zip(&mut self.text) {
            done.push(name, builder.array());
        }
        done.push("dropped_attributes_count", self.dropped.array());
        struct_array(fields, done.in_order(fields)?)
    }
}

/// Appends an unsigned count as Delta's signed `INT`; false when it does not fit.
fn append_count(builder: &mut Int32Builder, count: u32) -> bool {
    let count = i32::try_from(count).ok();
    builder.append_option(count);
    count.is_some()
}

fn non_empty(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// The contract's name of a status code; unknown codes read as unset, their bytes are kept.
const fn status_name(code: i32) -> &'static str {
    match code {
        1 => "OK",
        2 => "ERROR",
        _ => "UNSET",
    }
}

/// OTLP's name of a span kind; unknown ones keep their number.
fn kind_name(kind: i32) -> std::borrow::Cow<'static, str> {
    let name = match kind {
        0 => "SPAN_KIND_UNSPECIFIED",
        1 => "SPAN_KIND_INTERNAL",
        2 => "SPAN_KIND_SERVER",
        3 => "SPAN_KIND_CLIENT",
        4 => "SPAN_KIND_PRODUCER",
        5 => "SPAN_KIND_CONSUMER",
        other => return format!("SPAN_KIND_{other}").into(),
    };
    name.into()
}
