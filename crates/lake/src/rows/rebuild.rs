//! From a row back to the OTLP spans it was made of.
//!
//! The inverse of the span columns. A span whose bytes are kept (`otlp`) is read from those; every
//! other one is written from its columns.
//!
//! A row of another writer has the contract's columns alone: the others are missing or null, and
//! its spans are known by their `source`, which every span written here has. Such a span is as good
//! as the columns allow:
//! - `inputs`, `outputs` and `span_type` become MLflow's own attributes after those of `metadata`,
//!   unless `metadata` says the same under that name. Written again, the row has the text that it
//!   had; text that is not JSON is then a JSON string. `metadata` has `mlflow.spanType` then.
//! - A value of a map that is not JSON is a string. An entry without a value is left out.
//! - A span id that is null or malformed is zero, which names no span; a parent like that is none.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, StructArray};
use bytes::Bytes;
use tracelake_decode::any_value::{json_to_message, write_json_string};
use tracelake_decode::conventions::interpret;
use tracelake_decode::mlflow_keys;
use tracelake_decode::otlp::fields::{
    any_value, event, key_value, link, resource, scope, span, status,
};
use tracelake_decode::request::{SpanGroup, SpanSource, experiment_of};
use tracelake_decode::writer::MessageWriter;
use tracelake_decode::{SpanRecord, SpanView, decode_otlp};
use tracelake_model::{
    Assessment, ExperimentId, Limits, SpanId, TokenUsage, TraceCost, TraceId, TraceInfo, TraceState,
};

use super::parts::{Beyond, cost_beyond, usage_beyond};
use super::row::Row;
use super::said::Said;
use super::traces::{ExperimentBy, SpanDurations, TraceDraft, TraceFacts};

/// Why a row cannot be read back.
#[derive(Debug, thiserror::Error)]
#[error("row {row}: {reason}")]
pub struct RebuildError {
    /// Row within the batch.
    pub row: usize,
    /// What is wrong with it.
    pub reason: String,
}

/// Reads every row of `batch` back into the trace it was made of.
///
/// # Errors
/// [`RebuildError`] for a row without a trace id, and for one whose kept bytes are damaged.
pub fn rebuild_traces(batch: &RecordBatch) -> Result<Vec<TraceDraft>, RebuildError> {
    let whole = StructArray::from(batch.clone());
    (0..batch.num_rows())
        .map(|row| {
            trace(&Row { fields: &whole, row }).map_err(|reason| RebuildError { row, reason })
        })
        .collect()
}

fn trace(row: &Row<'_>) -> Result<TraceDraft, String> {
    let text = row.text("trace_id").ok_or("no trace id")?;
    let trace_id = TraceId::parse(text).ok_or_else(|| {
        format!("`{}` is not a trace id", tracelake_model::names::printable(text))
    })?;
    let said = Said::read(row.text("said"))?;
    let experiment_id: Option<ExperimentId> =
        row.text("experiment_id").and_then(|id| id.parse().ok());
    // Of experiments that resources name, the others were not known when the spans came.
    let by_spans = |experiment: &ExperimentId, position: usize| {
        Some(experiment) == experiment_id.as_ref()
            && said.as_ref().is_none_or(|said| said.names_experiment(position))
    };
    let mut spans: Vec<SpanRecord> = row
        .list("spans")
        .enumerate()
        .map(|(position, span)| span_record(trace_id, &span, &|named| by_spans(named, position)))
        .collect::<Result<_, _>>()?;
    let keeps_order = said.as_ref().is_none_or(Said::keeps_order);
    if let Some(part) = row.int("part") {
        return Ok(part_of(trace_id, part, row, spans));
    }
    let beyond = beyond(row, &spans, keeps_order, said.as_ref());
    let info = everything(trace_id, row);
    let created_at_micros = row.micros("created_at").unwrap_or_default();
    let experiment_by = match &said {
        Some(said) => said.experiment_by(),
        None if info.is_finalized() => ExperimentBy::Client,
        None if spans.iter().any(|span| span.group.experiment_id.is_some()) => ExperimentBy::Spans,
        None => ExperimentBy::Request,
    };
    let run_id = row.owned("run_id").filter(|run_id| match &said {
        Some(said) => said.has_run(),
        // A linked run stands in for a run that was never named.
        None => {
            info.linked_runs.first() != Some(run_id)
                && info.trace_metadata.get(mlflow_keys::SOURCE_RUN) != Some(run_id)
        }
    });
    let arrived_last = said.as_ref().and_then(Said::arrived_last);
    if let Some(position) = arrived_last.filter(|position| *position < spans.len()) {
        let last = spans.remove(position);
        spans.push(last);
    }
    let info = match said {
        None => otherwise_than(info, row, &spans, keeps_order),
        // What a head says otherwise than its own spans is of spans in parts.
        Some(said) if said.is_by_these_rules() && beyond.is_none() => {
            // What is there beside its word was written by one that does not know the column.
            let mut known = said.of_row(info.clone());
            let other = otherwise_than(info, row, &spans, keeps_order);
            known.take_others(&other);
            known
        }
        Some(said) => said.of_row(info),
    };
    Ok(TraceDraft {
        experiment_id,
        experiment_by,
        run_id,
        info: (!info.is_empty()).then_some(info),
        spans,
        keeps_order,
        created_at_micros,
        updated_at_micros: row.micros("updated_at").unwrap_or(created_at_micros),
        revision: row.int("revision").unwrap_or(1),
        part: None,
        beyond: beyond.map(Box::new),
        ..TraceDraft::new(trace_id)
    })
}

/// A part of a large trace: spans, and whose they are.
fn part_of(trace_id: TraceId, part: i32, row: &Row<'_>, spans: Vec<SpanRecord>) -> TraceDraft {
    let created_at_micros = row.micros("created_at").unwrap_or_default();
    TraceDraft {
        experiment_id: row.text("experiment_id").and_then(|id| id.parse().ok()),
        experiment_by: ExperimentBy::Request,
        run_id: row.owned("run_id"),
        spans,
        created_at_micros,
        updated_at_micros: row.micros("updated_at").unwrap_or(created_at_micros),
        revision: row.int("revision").unwrap_or(1),
        part: Some(part),
        ..TraceDraft::new(trace_id)
    }
}

/// What the numbers of a head say beside its own spans; `None` of a row whose trace has no parts.
fn beyond(
    row: &Row<'_>,
    spans: &[SpanRecord],
    keeps_order: bool,
    said: Option<&Said>,
) -> Option<Beyond> {
    let spans_in_parts =
        u64::try_from(row.int("span_count")?).ok()?.checked_sub(spans.len() as u64)?;
    if spans_in_parts == 0 {
        return None;
    }
    let own = TraceFacts::of_spans(spans, keeps_order);
    let durations = SpanDurations::new(spans);
    let errors = spans.iter().filter(|span| span.view().is_error()).count() as u64;
    let usage = TokenUsage {
        input_tokens: row.long("input_tokens"),
        output_tokens: row.long("output_tokens"),
        total_tokens: row.long("total_tokens"),
        cache_read_input_tokens: row.long("cache_read_input_tokens"),
        cache_creation_input_tokens: row.long("cache_creation_input_tokens"),
    };
    let cost = TraceCost {
        input_cost: row.double("input_cost"),
        output_cost: row.double("output_cost"),
        total_cost: row.double("total_cost"),
    };
    let total_ns = row.long("total_span_duration_ns").unwrap_or_default();
    let (start_micros, end_millis) = times_beyond(row, &own, said);
    Some(Beyond {
        spans: spans_in_parts,
        errors: row.count("error_span_count").saturating_sub(errors),
        total_duration_ns: total_ns.saturating_sub(durations.total_ns),
        max_duration_ns: row.long("max_span_duration_ns"),
        usage: usage_beyond(&usage, own.usage()),
        cost: cost_beyond(&cost, own.cost()),
        models: row.texts("models"),
        start_micros,
        end_millis,
    })
}

/// Earliest start and latest end of the spans in parts, as far as the row tells: the times that follow from
/// spans, where a client's word does not stand in their place; or else what was kept beside it. A row of a
/// version that kept nothing has the span that starts first in its head.
fn times_beyond(
    row: &Row<'_>,
    own: &TraceFacts,
    said: Option<&Said>,
) -> (Option<i64>, Option<i64>) {
    let is_hidden = said.is_some_and(Said::hides_times);
    if let Some((start, end)) = said.filter(|_| is_hidden).map(Said::parts_times)
        && (start.is_some() || end.is_some())
    {
        return (start, end);
    }
    let timestamp = row.child("trace_info").and_then(|info| info.micros("timestamp"));
    let start = if is_hidden { own.request_time_micros } else { timestamp };
    let duration =
        row.long("execution_duration_ms").filter(|_| !said.is_some_and(Said::has_duration));
    let end = start.zip(duration);
    (start, end.map(|(start, duration)| start.div_euclid(1_000).saturating_add(duration)))
}

/// All that the row says of the trace as a whole, whoever said it.
fn everything(trace_id: TraceId, row: &Row<'_>) -> TraceInfo {
    let info = row.child("trace_info");
    let said = |name: &str| info.and_then(|info| info.text(name));
    // Another writer's request id that is not the trace's is the client's.
    let request_id = said("request_id").filter(|id| *id != trace_id.to_mlflow());
    TraceInfo {
        client_request_id: row.owned("client_request_id").or(request_id.map(str::to_owned)),
        request_time_micros: info.and_then(|info| info.micros("timestamp")),
        execution_duration_ms: row.long("execution_duration_ms"),
        state: TraceState::parse(said("status").unwrap_or_default()),
        request_preview: row.owned("request_preview"),
        response_preview: row.owned("response_preview"),
        trace_metadata: row.owned_map("trace_metadata"),
        tags: row.owned_map("tags"),
        assessments: row.list("assessments").map(|row| assessment(&row)).collect(),
        linked_runs: row.texts("linked_run_ids"),
        ..TraceInfo::new(trace_id)
    }
}

/// What a row that does not tell who said what says otherwise than its spans: that was said by
/// somebody, and is kept as the word of calls, over which nothing stands that comes again.
fn otherwise_than(
    mut info: TraceInfo,
    row: &Row<'_>,
    spans: &[SpanRecord],
    keeps_order: bool,
) -> TraceInfo {
    let derived = TraceFacts::of_spans(spans, keeps_order);
    if info.state == derived.state {
        info.state = TraceState::Unspecified;
    }
    let forget = |said: &mut Option<i64>, derived: Option<i64>| {
        if *said == derived {
            *said = None;
        }
    };
    forget(&mut info.request_time_micros, derived.request_time_micros);
    forget(&mut info.execution_duration_ms, derived.execution_duration_ms);
    if info.request_preview == derived.request_preview {
        info.request_preview = None;
    }
    if info.response_preview == derived.response_preview {
        info.response_preview = None;
    }
    // A row without the column says nothing of tags.
    if row.column("tags").is_some() {
        let gone = derived.tags.keys().filter(|key| !info.tags.contains_key(*key));
        info.deleted_tags = gone.cloned().collect();
    }
    info.tags.retain(|key, value| derived.tags.get(key) != Some(value));
    info.called_tags = info.tags.keys().cloned().collect();
    info.called_assessments = info.assessments.iter().map(|a| a.assessment_id.clone()).collect();
    info
}

fn assessment(row: &Row<'_>) -> Assessment {
    let source = row.child("source");
    let source = |name: &str| source.and_then(|source| source.owned(name));
    Assessment {
        assessment_id: row.owned("assessment_id").unwrap_or_default(),
        assessment_name: row.owned("assessment_name"),
        span_id: row.owned("span_id"),
        source_type: source("source_type"),
        source_id: source("source_id"),
        create_time_micros: row.micros("create_time"),
        last_update_time_micros: row.micros("last_update_time"),
        feedback_json: row.owned("feedback"),
        expectation_json: row.owned("expectation"),
        issue_json: row.owned("issue"),
        rationale: row.owned("rationale"),
        metadata: row.owned_map("metadata"),
        overrides: row.owned("overrides"),
        valid: row.boolean("valid"),
    }
}

fn span_record(
    trace_id: TraceId,
    row: &Row<'_>,
    by_spans: &dyn Fn(&ExperimentId) -> bool,
) -> Result<SpanRecord, String> {
    let source = SpanSource::parse(row.text("source").unwrap_or("otlp"));
    if let Some(kept) = row.column("otlp").and_then(|column| column.as_binary_opt::<i32>()) {
        let bytes = Bytes::copy_from_slice(kept.value(row.row));
        // The bytes were accepted once; later limits must not make an archived span unreadable.
        let mut decoded =
            decode_otlp(&bytes, source, &Limits::accepted()).map_err(|error| error.to_string())?;
        // None when the span has no id, which another writer's may have; its columns are as good.
        if let Some(mut span) = decoded.spans.pop() {
            if span.group.experiment_id.as_ref().is_some_and(|experiment| !by_spans(experiment)) {
                span.group = Arc::new(span.group.unnamed());
            }
            return Ok(span);
        }
    }
    let span_id = row.text("span_id").and_then(SpanId::parse).unwrap_or(SpanId([0; 8]));
    let parent = row.text("parent_span_id").and_then(SpanId::parse).filter(|id| id.is_valid());
    let nanos = |exact: &str, rounded: &str| {
        row.long(exact)
            .or_else(|| row.micros(rounded).and_then(|micros| micros.checked_mul(1_000)))
            .and_then(|nanos| u64::try_from(nanos).ok())
            .unwrap_or_default()
    };
    let start_time_unix_nano = nanos("start_time_unix_nano", "start_time");
    let end_time_unix_nano = nanos("end_time_unix_nano", "end_time");
    let mut span = MessageWriter::new();
    span.bytes(span::TRACE_ID, &trace_id.0);
    span.bytes(span::SPAN_ID, &span_id.0);
    span.bytes_nonzero(span::TRACE_STATE, row.text("trace_state").unwrap_or_default().as_bytes());
    if let Some(parent) = parent {
        span.bytes(span::PARENT_SPAN_ID, &parent.0);
    }
    span.bytes_nonzero(span::NAME, row.text("name").unwrap_or_default().as_bytes());
    span.number_nonzero(span::KIND, kind_number(row.text("kind").unwrap_or_default()));
    span.fixed64_nonzero(span::START_TIME_UNIX_NANO, start_time_unix_nano);
    span.fixed64_nonzero(span::END_TIME_UNIX_NANO, end_time_unix_nano);
    write_attributes(&mut span, row)?;
    if row.text("source").is_none() {
        write_contract_columns(&mut span, row);
    }
    span.number_nonzero(span::DROPPED_ATTRIBUTES_COUNT, row.count("dropped_attributes_count"));
    for event in row.list("events") {
        write_event(&mut span, &event)?;
    }
    span.number_nonzero(span::DROPPED_EVENTS_COUNT, row.count("dropped_events_count"));
    for link in row.list("links") {
        write_link(&mut span, &link)?;
    }
    span.number_nonzero(span::DROPPED_LINKS_COUNT, row.count("dropped_links_count"));
    write_status(&mut span, row);
    span.fixed32_nonzero(span::FLAGS, u32::try_from(row.count("flags")).unwrap_or_default());
    let mut message = span.into_bytes();
    // A long attribute doubled the buffer; a large trace is rebuilt with all its spans in memory.
    message.shrink_to_fit();
    Ok(SpanRecord {
        trace_id,
        span_id,
        parent,
        start_time_unix_nano,
        end_time_unix_nano,
        message: message.into(),
        group: Arc::new(span_group(row, source, by_spans)?),
        beyond_columns: false,
        is_canonical: false,
    })
}

fn span_group(
    row: &Row<'_>,
    source: SpanSource,
    by_spans: &dyn Fn(&ExperimentId) -> bool,
) -> Result<SpanGroup, String> {
    let resource = row.child("resource");
    let json: Vec<usize> = resource
        .and_then(|resource| resource.text("json_attributes"))
        .map(|text| text.split(',').filter_map(|position| position.parse().ok()).collect())
        .unwrap_or_default();
    let mut resource_message = MessageWriter::new();
    for (position, (key, value)) in row.map("tags").enumerate() {
        let value = if json.contains(&position) { json_value(value) } else { string_value(value) };
        write_attribute(&mut resource_message, resource::ATTRIBUTES, key, &value);
    }
    let dropped = resource.map_or(0, |resource| resource.count("dropped_attributes_count"));
    resource_message.number_nonzero(resource::DROPPED_ATTRIBUTES_COUNT, dropped);
    let scope = row.child("scope");
    let scope_text = |name: &str| scope.and_then(|scope| scope.text(name)).unwrap_or_default();
    let mut scope_message = MessageWriter::new();
    scope_message.bytes_nonzero(scope::NAME, scope_text("name").as_bytes());
    scope_message.bytes_nonzero(scope::VERSION, scope_text("version").as_bytes());
    if let Some(scope) = scope {
        write_map(&mut scope_message, scope::ATTRIBUTES, &scope, "attributes")?;
        scope_message.number_nonzero(
            scope::DROPPED_ATTRIBUTES_COUNT,
            scope.count("dropped_attributes_count"),
        );
    }
    let resource_message = resource_message.into_bytes();
    let experiment_id = experiment_of(&resource_message).filter(by_spans);
    Ok(SpanGroup {
        resource: resource_message.into(),
        resource_schema_url: resource
            .and_then(|resource| resource.owned("schema_url"))
            .unwrap_or_default(),
        scope: scope_message.into_bytes().into(),
        scope_schema_url: scope_text("schema_url").to_owned(),
        source,
        experiment_id,
        beyond_columns: false,
    })
}

/// Writes the span's attributes: the map, with inputs and outputs back in their places.
fn write_attributes(span: &mut MessageWriter, row: &Row<'_>) -> Result<(), String> {
    let mut lifted: BTreeMap<usize, (&str, Vec<u8>)> = BTreeMap::new();
    for (column, origin) in [("inputs", "inputs_attribute"), ("outputs", "outputs_attribute")] {
        if let (Some(text), Some(origin)) = (row.text(column), row.text(origin)) {
            let (position, key, value) = lifted_attribute(text, origin)
                .ok_or_else(|| format!("`{column}` was not lifted from `{origin}`"))?;
            lifted.insert(position, (key, value));
        }
    }
    let mut position = 0;
    let mut put_back = |span: &mut MessageWriter, position: &mut usize| {
        while let Some((key, value)) = lifted.remove(position) {
            write_attribute(span, span::ATTRIBUTES, key, &value);
            *position += 1;
        }
    };
    for (key, value) in row.map("metadata") {
        put_back(span, &mut position);
        write_attribute(span, span::ATTRIBUTES, key, &json_value(value));
        position += 1;
    }
    put_back(span, &mut position);
    Ok(())
}

/// Writes what a row of another writer says of a span in columns alone, as MLflow's SDK sends it.
fn write_contract_columns(span: &mut MessageWriter, row: &Row<'_>) {
    let said = span.as_bytes().to_vec();
    let said = interpret(&SpanView::new(&said));
    let in_metadata = |key: &str| row.map("metadata").any(|(name, _)| name == key);
    for (column, key, said) in [
        ("inputs", mlflow_keys::SPAN_INPUTS, said.inputs),
        ("outputs", mlflow_keys::SPAN_OUTPUTS, said.outputs),
    ] {
        let Some(text) = row.text(column) else { continue };
        // Said by another attribute, it would be taken out of the metadata on the way back.
        if !in_metadata(key) || said.is_none_or(|said| said.text() != text) {
            write_attribute(span, span::ATTRIBUTES, key, &payload_value(text));
        }
    }
    if let Some(span_type) = row.text("span_type")
        && said.span_type.as_deref() != Some(span_type)
    {
        let mut quoted = String::new();
        write_json_string(span_type, &mut quoted);
        write_attribute(span, span::ATTRIBUTES, mlflow_keys::SPAN_TYPE, &string_value(&quoted));
    }
}

/// The value that reads as `text` in the columns for inputs and outputs: MLflow takes strings,
/// arrays and objects for JSON text, but a string of digits for a string.
fn payload_value(text: &str) -> Vec<u8> {
    if text.trim_start().starts_with(['"', '[', '{']) {
        string_value(text)
    } else {
        json_value(text)
    }
}

/// Takes `position:form:key` apart and gives the attribute's value back.
fn lifted_attribute<'a>(text: &str, origin: &'a str) -> Option<(usize, &'a str, Vec<u8>)> {
    let (position, rest) = origin.split_once(':')?;
    let (form, key) = rest.split_once(':')?;
    let value = match form {
        "t" => string_value(text),
        "q" | "v" => json_value(text),
        _ => return None,
    };
    Some((position.parse().ok()?, key, value))
}

fn write_event(span: &mut MessageWriter, row: &Row<'_>) -> Result<(), String> {
    let mut event = MessageWriter::new();
    let time = row.long("time_unix_nano").and_then(|nanos| u64::try_from(nanos).ok());
    event.fixed64_nonzero(event::TIME_UNIX_NANO, time.unwrap_or_default());
    event.bytes_nonzero(event::NAME, row.text("name").unwrap_or_default().as_bytes());
    write_map(&mut event, event::ATTRIBUTES, row, "attributes")?;
    event.number_nonzero(event::DROPPED_ATTRIBUTES_COUNT, row.count("dropped_attributes_count"));
    span.bytes(span::EVENTS, event.as_bytes());
    Ok(())
}

fn write_link(span: &mut MessageWriter, row: &Row<'_>) -> Result<(), String> {
    let mut link = MessageWriter::new();
    link.bytes_nonzero(link::TRACE_ID, &unhex(row.text("trace_id").unwrap_or_default()));
    link.bytes_nonzero(link::SPAN_ID, &unhex(row.text("span_id").unwrap_or_default()));
    link.bytes_nonzero(link::TRACE_STATE, row.text("trace_state").unwrap_or_default().as_bytes());
    write_map(&mut link, link::ATTRIBUTES, row, "attributes")?;
    link.number_nonzero(link::DROPPED_ATTRIBUTES_COUNT, row.count("dropped_attributes_count"));
    link.fixed32_nonzero(link::FLAGS, u32::try_from(row.count("flags")).unwrap_or_default());
    span.bytes(span::LINKS, link.as_bytes());
    Ok(())
}

fn write_status(span: &mut MessageWriter, row: &Row<'_>) {
    let code = match row.text("status").unwrap_or_default() {
        "OK" => 1,
        "ERROR" => 2,
        _ => 0,
    };
    let message = row.text("status_message").unwrap_or_default();
    if code != 0 || !message.is_empty() {
        span.message(span::STATUS, |status| {
            status.bytes_nonzero(status::MESSAGE, message.as_bytes());
            status.number_nonzero(status::CODE, code);
        });
    }
}

fn write_map(
    message: &mut MessageWriter,
    number: u32,
    row: &Row<'_>,
    name: &str,
) -> Result<(), String> {
    for (key, value) in row.map(name) {
        write_attribute(message, number, key, &json_value(value));
    }
    Ok(())
}

fn write_attribute(message: &mut MessageWriter, number: u32, key: &str, value: &[u8]) {
    message.message(number, |attribute| {
        attribute.bytes_nonzero(key_value::KEY, key.as_bytes());
        attribute.bytes_nonzero(key_value::VALUE, value);
    });
}

/// The value of JSON text; other text, which only another writer can have put there, is a string.
fn json_value(text: &str) -> Vec<u8> {
    json_to_message(text).unwrap_or_else(|_| string_value(text))
}

fn string_value(text: &str) -> Vec<u8> {
    let mut value = MessageWriter::new();
    value.bytes(any_value::STRING_VALUE, text.as_bytes());
    value.into_bytes()
}

fn kind_number(name: &str) -> u64 {
    match name {
        "SPAN_KIND_INTERNAL" => 1,
        "SPAN_KIND_SERVER" => 2,
        "SPAN_KIND_CLIENT" => 3,
        "SPAN_KIND_PRODUCER" => 4,
        "SPAN_KIND_CONSUMER" => 5,
        other => other
            .strip_prefix("SPAN_KIND_")
            .and_then(|number| number.parse::<i32>().ok())
            .map_or(0, |number| i64::from(number).cast_unsigned()),
    }
}

/// Bytes of hex digits of any even number; links may have ids of any length.
fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks_exact(2)
        .map_while(|pair| {
            let high = tracelake_model::ids::hex_digit(pair[0])?;
            Some(high << 4 | tracelake_model::ids::hex_digit(pair[1])?)
        })
        .collect()
}
