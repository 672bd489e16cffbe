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

/// The message `Span`. What is left out of it is named in `rejects`.
pub(crate) fn span(
    value: &Json<'_>,
    path: Path<'_>,
    rejects: &mut Rejects,
) -> Result<Vec<u8>, Fault> {
    let mut out = MessageWriter::new();
    for (name, value) in object(value, path)? {
        let path = path.member(name);
        match name.as_ref() {
            _ if matches!(value, Json::Null) => {}
            "traceId" | "trace_id" => out.bytes_nonzero(span::TRACE_ID, &id(value, path, 16)?),
            "spanId" | "span_id" => out.bytes_nonzero(span::SPAN_ID, &id(value, path, 8)?),
            "traceState" | "trace_state" => {
                out.bytes_nonzero(span::TRACE_STATE, text(value, path)?.as_bytes())
            }
            "parentSpanId" | "parent_span_id" => {
                parent(&mut out, value, path, |text| id_bytes(text, 8), rejects)?;
            }
            "name" => out.bytes_nonzero(span::NAME, text(value, path)?.as_bytes()),
            "kind" => {
                let kind = enumeration(value, path, "SPAN_KIND_", &SPAN_KINDS, rejects)?;
                out.number_nonzero(span::KIND, kind);
            }
            "startTimeUnixNano" | "start_time_unix_nano" => {
                out.fixed64_nonzero(span::START_TIME_UNIX_NANO, integer(value, path, TIME)?);
            }
            "endTimeUnixNano" | "end_time_unix_nano" => {
                out.fixed64_nonzero(span::END_TIME_UNIX_NANO, integer(value, path, TIME)?);
            }
            "attributes" => attributes(&mut out, span::ATTRIBUTES, value, path)?,
            "droppedAttributesCount" | "dropped_attributes_count" => {
                out.number_nonzero(span::DROPPED_ATTRIBUTES_COUNT, count(value, path)?);
            }
            "events" => {
                for (index, event) in list(value, path)?.iter().enumerate() {
                    out.bytes(span::EVENTS, &self::event(event, path.element(index))?);
                }
            }
            "droppedEventsCount" | "dropped_events_count" => {
                out.number_nonzero(span::DROPPED_EVENTS_COUNT, count(value, path)?);
            }
            "links" => {
                for (index, link) in list(value, path)?.iter().enumerate() {
                    match self::link(link, path.element(index)) {
                        Ok(link) => out.bytes(span::LINKS, &link),
                        Err(fault) => rejects.push(0, || format!("link left out: {fault}")),
                    }
                }
            }
            "droppedLinksCount" | "dropped_links_count" => {
                out.number_nonzero(span::DROPPED_LINKS_COUNT, count(value, path)?);
            }
            "status" => out.bytes(span::STATUS, &status(value, path, rejects)?),
            "flags" => out.fixed32_nonzero(span::FLAGS, flags(value, path)?),
            _ => {}
        }
    }
    Ok(out.into_bytes())
}

fn event(value: &Json<'_>, path: Path<'_>) -> Result<Vec<u8>, Fault> {
    let mut out = MessageWriter::new();
    for (name, value) in object(value, path)? {
        let path = path.member(name);
        match name.as_ref() {
            _ if matches!(value, Json::Null) => {}
            "timeUnixNano" | "time_unix_nano" => {
                out.fixed64_nonzero(event::TIME_UNIX_NANO, integer(value, path, TIME)?);
            }
            "name" => out.bytes_nonzero(event::NAME, text(value, path)?.as_bytes()),
            "attributes" => attributes(&mut out, event::ATTRIBUTES, value, path)?,
            "droppedAttributesCount" | "dropped_attributes_count" => {
                out.number_nonzero(event::DROPPED_ATTRIBUTES_COUNT, count(value, path)?);
            }
            _ => {}
        }
    }
    Ok(out.into_bytes())
}

fn link(value: &Json<'_>, path: Path<'_>) -> Result<Vec<u8>, Fault> {
    let mut out = MessageWriter::new();
    for (name, value) in object(value, path)? {
        let path = path.member(name);
        match name.as_ref() {
            _ if matches!(value, Json::Null) => {}
            "traceId" | "trace_id" => out.bytes_nonzero(link::TRACE_ID, &id(value, path, 16)?),
            "spanId" | "span_id" => out.bytes_nonzero(link::SPAN_ID, &id(value, path, 8)?),
            "traceState" | "trace_state" => {
                out.bytes_nonzero(link::TRACE_STATE, text(value, path)?.as_bytes())
            }
            "attributes" => attributes(&mut out, link::ATTRIBUTES, value, path)?,
            "droppedAttributesCount" | "dropped_attributes_count" => {
                out.number_nonzero(link::DROPPED_ATTRIBUTES_COUNT, count(value, path)?);
            }
            "flags" => out.fixed32_nonzero(link::FLAGS, flags(value, path)?),
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

fn id(value: &Json<'_>, path: Path<'_>, length: usize) -> Result<Vec<u8>, Fault> {
    id_bytes(text(value, path)?, length)
        .ok_or_else(|| path.expected("an id in hex digits or base64", value))
}

/// Writes the parent's id. One that `decode` cannot read does not cost the span: its text is
/// written in place of the id, which no reader takes for one.
pub(crate) fn parent(
    out: &mut MessageWriter,
    value: &Json<'_>,
    path: Path<'_>,
    decode: impl FnOnce(&str) -> Option<Vec<u8>>,
    rejects: &mut Rejects,
) -> Result<(), Fault> {
    let sent = text(value, path)?;
    if sent.is_empty() {
        return Ok(());
    }
    if let Some(bytes) = decode(sent) {
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
