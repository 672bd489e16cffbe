//! One span with its events, links and status.

use super::document::Json;
use super::members::{Fault, Path, id_bytes, integer, list, object, text};
use super::rejects::Rejects;
use super::value::{attributes, count};
use crate::otlp::fields::{event, link, span, status};
use crate::writer::MessageWriter;

const SPAN_KINDS: [&str; 6] =
    ["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"];
const STATUS_CODES: [&str; 3] = ["UNSET", "OK", "ERROR"];
const TIME: &str = "nanoseconds since the Unix epoch";

/// A form in which senders write spans: what its members are called, and how ids and attributes are
/// written. The fields are the same in every form.
pub(crate) trait SpanForm {
    /// The field of `Span` that a member of this name is.
    fn span_field(name: &str) -> Option<u32>;

    /// The field of `Span.Event` that a member of this name is.
    fn event_field(name: &str) -> Option<u32>;

    /// The field of `Span.Link` that a member of this name is.
    fn link_field(name: &str) -> Option<u32>;

    /// The bytes of an id that has `length` of them.
    fn id_bytes(text: &str, length: usize) -> Option<Vec<u8>>;

    /// What a text should have been that is no such id.
    fn expected_id(length: usize) -> &'static str;

    /// Writes the attributes of a span as the repeated `KeyValue` field `number`.
    fn span_attributes(
        out: &mut MessageWriter,
        number: u32,
        value: &Json<'_>,
        path: Path<'_>,
    ) -> Result<(), Fault>;

    /// Writes those of an event or a link.
    fn attributes(
        out: &mut MessageWriter,
        number: u32,
        value: &Json<'_>,
        path: Path<'_>,
    ) -> Result<(), Fault>;
}

/// The form that OTLP defines, and what real senders write beside it.
struct OtlpForm;

impl SpanForm for OtlpForm {
    fn span_field(name: &str) -> Option<u32> {
        Some(match name {
            "traceId" | "trace_id" => span::TRACE_ID,
            "spanId" | "span_id" => span::SPAN_ID,
            "traceState" | "trace_state" => span::TRACE_STATE,
            "parentSpanId" | "parent_span_id" => span::PARENT_SPAN_ID,
            "name" => span::NAME,
            "kind" => span::KIND,
            "startTimeUnixNano" | "start_time_unix_nano" => span::START_TIME_UNIX_NANO,
            "endTimeUnixNano" | "end_time_unix_nano" => span::END_TIME_UNIX_NANO,
            "attributes" => span::ATTRIBUTES,
            "droppedAttributesCount" | "dropped_attributes_count" => span::DROPPED_ATTRIBUTES_COUNT,
            "events" => span::EVENTS,
            "droppedEventsCount" | "dropped_events_count" => span::DROPPED_EVENTS_COUNT,
            "links" => span::LINKS,
            "droppedLinksCount" | "dropped_links_count" => span::DROPPED_LINKS_COUNT,
            "status" => span::STATUS,
            "flags" => span::FLAGS,
            _ => return None,
        })
    }

    fn event_field(name: &str) -> Option<u32> {
        Some(match name {
            "timeUnixNano" | "time_unix_nano" => event::TIME_UNIX_NANO,
            "name" => event::NAME,
            "attributes" => event::ATTRIBUTES,
            "droppedAttributesCount" | "dropped_attributes_count" => {
                event::DROPPED_ATTRIBUTES_COUNT
            }
            _ => return None,
        })
    }

    fn link_field(name: &str) -> Option<u32> {
        Some(match name {
            "traceId" | "trace_id" => link::TRACE_ID,
            "spanId" | "span_id" => link::SPAN_ID,
            "traceState" | "trace_state" => link::TRACE_STATE,
            "attributes" => link::ATTRIBUTES,
            "droppedAttributesCount" | "dropped_attributes_count" => link::DROPPED_ATTRIBUTES_COUNT,
            "flags" => link::FLAGS,
            _ => return None,
        })
    }

    fn id_bytes(text: &str, length: usize) -> Option<Vec<u8>> {
        id_bytes(text, length)
    }

    fn expected_id(_length: usize) -> &'static str {
        "an id in hex digits or base64"
    }

    fn span_attributes(
        out: &mut MessageWriter,
        number: u32,
        value: &Json<'_>,
        path: Path<'_>,
    ) -> Result<(), Fault> {
        attributes(out, number, value, path)
    }

    fn attributes(
        out: &mut MessageWriter,
        number: u32,
        value: &Json<'_>,
        path: Path<'_>,
    ) -> Result<(), Fault> {
        attributes(out, number, value, path)
    }
}

/// The message `Span`, of OTLP JSON. What is left out of it is named in `rejects`.
pub(crate) fn span(
    value: &Json<'_>,
    path: Path<'_>,
    rejects: &mut Rejects,
) -> Result<Vec<u8>, Fault> {
    let mut out = MessageWriter::new();
    for (name, value) in object(value, path)? {
        write_span_member::<OtlpForm>(&mut out, name, value, path, rejects)?;
    }
    Ok(out.into_bytes())
}

/// Writes what a member of a span says. What it does not say is null, what nobody knows is left out.
pub(crate) fn write_span_member<F: SpanForm>(
    out: &mut MessageWriter,
    name: &str,
    value: &Json<'_>,
    path: Path<'_>,
    rejects: &mut Rejects,
) -> Result<(), Fault> {
    let path = path.member(name);
    match F::span_field(name) {
        Some(field) if !matches!(value, Json::Null) => {
            write_span_field::<F>(out, field, value, path, rejects)
        }
        _ => Ok(()),
    }
}

/// Writes the field of a span of that number.
pub(crate) fn write_span_field<F: SpanForm>(
    out: &mut MessageWriter,
    field: u32,
    value: &Json<'_>,
    path: Path<'_>,
    rejects: &mut Rejects,
) -> Result<(), Fault> {
    match field {
        span::TRACE_ID => out.bytes_nonzero(field, &id::<F>(value, path, 16)?),
        span::SPAN_ID => out.bytes_nonzero(field, &id::<F>(value, path, 8)?),
        span::TRACE_STATE | span::NAME => out.bytes_nonzero(field, text(value, path)?.as_bytes()),
        span::PARENT_SPAN_ID => parent::<F>(out, value, path, rejects)?,
        span::KIND => {
            let kind = enumeration(value, path, "SPAN_KIND_", &SPAN_KINDS, rejects)?;
            out.number_nonzero(field, kind);
        }
        span::START_TIME_UNIX_NANO | span::END_TIME_UNIX_NANO => {
            out.fixed64_nonzero(field, integer(value, path, TIME)?);
        }
        span::ATTRIBUTES => F::span_attributes(out, field, value, path)?,
        span::DROPPED_ATTRIBUTES_COUNT | span::DROPPED_EVENTS_COUNT | span::DROPPED_LINKS_COUNT => {
            out.number_nonzero(field, count(value, path)?)
        }
        span::EVENTS => {
            for (index, event) in list(value, path)?.iter().enumerate() {
                out.bytes(field, &self::event::<F>(event, path.element(index))?);
            }
        }
        span::LINKS => {
            for (index, link) in list(value, path)?.iter().enumerate() {
                match self::link::<F>(link, path.element(index)) {
                    Ok(link) => out.bytes(field, &link),
                    Err(fault) => rejects.push(0, || format!("link left out: {fault}")),
                }
            }
        }
        span::STATUS => out.bytes(field, &status(value, path, rejects)?),
        span::FLAGS => out.fixed32_nonzero(field, flags(value, path)?),
        _ => {}
    }
    Ok(())
}

fn event<F: SpanForm>(value: &Json<'_>, path: Path<'_>) -> Result<Vec<u8>, Fault> {
    let mut out = MessageWriter::new();
    for (name, value) in object(value, path)? {
        let path = path.member(name);
        let Some(field) = F::event_field(name).filter(|_| !matches!(value, Json::Null)) else {
            continue;
        };
        match field {
            event::TIME_UNIX_NANO => out.fixed64_nonzero(field, integer(value, path, TIME)?),
            event::NAME => out.bytes_nonzero(field, text(value, path)?.as_bytes()),
            event::ATTRIBUTES => F::attributes(&mut out, field, value, path)?,
            event::DROPPED_ATTRIBUTES_COUNT => out.number_nonzero(field, count(value, path)?),
            _ => {}
        }
    }
    Ok(out.into_bytes())
}

fn link<F: SpanForm>(value: &Json<'_>, path: Path<'_>) -> Result<Vec<u8>, Fault> {
    let mut out = MessageWriter::new();
    for (name, value) in object(value, path)? {
        let path = path.member(name);
        let Some(field) = F::link_field(name).filter(|_| !matches!(value, Json::Null)) else {
            continue;
        };
        match field {
            link::TRACE_ID => out.bytes_nonzero(field, &id::<F>(value, path, 16)?),
            link::SPAN_ID => out.bytes_nonzero(field, &id::<F>(value, path, 8)?),
            link::TRACE_STATE => out.bytes_nonzero(field, text(value, path)?.as_bytes()),
            link::ATTRIBUTES => F::attributes(&mut out, field, value, path)?,
            link::DROPPED_ATTRIBUTES_COUNT => out.number_nonzero(field, count(value, path)?),
            link::FLAGS => out.fixed32_nonzero(field, flags(value, path)?),
            _ => {}
        }
    }
    Ok(out.into_bytes())
}

/// The message `Status`.
pub(crate) fn status(
    value: &Json<'_>,
    path: Path<'_>,
    rejects: &mut Rejects,
) -> Result<Vec<u8>, Fault> {
    let mut out = MessageWriter::new();
    for (name, value) in object(value, path)? {
        let path = path.member(name);
        match name.as_ref() {
            _ if matches!(value, Json::Null) => {}
            "message" => out.bytes_nonzero(status::MESSAGE, text(value, path)?.as_bytes()),
            "code" => out.number_nonzero(status::CODE, status_code(value, path, rejects)?),
            _ => {}
        }
    }
    Ok(out.into_bytes())
}

/// A `StatusCode`.
pub(crate) fn status_code(
    value: &Json<'_>,
    path: Path<'_>,
    rejects: &mut Rejects,
) -> Result<u64, Fault> {
    enumeration(value, path, "STATUS_CODE_", &STATUS_CODES, rejects)
}

/// An enum as a number or by its long or short name. An unknown name is taken as zero and named
/// in `rejects`; an unknown number is kept.
fn enumeration(
    value: &Json<'_>,
    path: Path<'_>,
    prefix: &str,
    names: &[&str],
    rejects: &mut Rejects,
) -> Result<u64, Fault> {
    if let Json::Text(text) = value
        && !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
    {
        let short = text.strip_prefix(prefix).unwrap_or(text);
        let number = names.iter().zip(0..).find(|(name, _)| name.eq_ignore_ascii_case(short));
        return Ok(number.map_or_else(
            || {
                let fault = path.expected("a known name", value);
                rejects.push(0, || format!("taken as unset: {fault}"));
                0
            },
            |(_, number)| number,
        ));
    }
    let number: i32 = integer(value, path, "an enum's name or number")?;
    Ok(i64::from(number).cast_unsigned())
}

fn flags(value: &Json<'_>, path: Path<'_>) -> Result<u32, Fault> {
    integer(value, path, "an integer from 0 to 4294967295")
}

fn id<F: SpanForm>(value: &Json<'_>, path: Path<'_>, length: usize) -> Result<Vec<u8>, Fault> {
    F::id_bytes(text(value, path)?, length)
        .ok_or_else(|| path.expected(F::expected_id(length), value))
}

/// Writes the parent's id. One that cannot be read does not cost the span: its text is written in
/// place of the id, which no reader takes for one.
fn parent<F: SpanForm>(
    out: &mut MessageWriter,
    value: &Json<'_>,
    path: Path<'_>,
    rejects: &mut Rejects,
) -> Result<(), Fault> {
    let sent = text(value, path)?;
    if sent.is_empty() {
        return Ok(());
    }
    if let Some(bytes) = F::id_bytes(sent, 8) {
        out.bytes_nonzero(span::PARENT_SPAN_ID, &bytes);
        return Ok(());
    }
    let fault = path.expected("an id in hex digits or base64", value);
    rejects.push(0, || format!("span without parent: {fault}"));
    // Eight characters would pass for an id.
    let quoted = format!("\"{sent}\"");
    out.bytes(span::PARENT_SPAN_ID, if sent.len() == 8 { &quoted } else { sent }.as_bytes());
    Ok(())
}
