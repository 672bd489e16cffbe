//! OTLP JSON, transcoded to OTLP protobuf, so that there is one decoder.
//!
//! Source: <https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>, and what real
//! senders write beside it:
//! - member names in lowerCamelCase or snake_case; null means absent; unknown members are not kept
//! - `batches` for `resourceSpans`, `instrumentationLibrarySpans` and `instrumentationLibrary` for
//!   `scopeSpans` and `scope`
//! - ids in hex of either case, base64 with its padding, hex behind `0x`, trace ids as UUIDs. An id
//!   of another length is handed on as it is, for the decoder to refuse the span by name
//! - enums as numbers or names, with or without `SPAN_KIND_` and `STATUS_CODE_`
//! - integers as numbers or strings, exact to the last digit; `1e3` is an integer, `1.5` is not
//! - doubles as numbers or strings, also `NaN`, `Infinity`, `-Infinity`
//! - bytes in base64, standard or for URLs, padded or not
//! - a lone UTF-16 surrogate, or bytes that are not UTF-8, become U+FFFD in their value alone.
//!
//! A span is taken whole or refused by its path in the document; its siblings are kept. Three
//! things do not cost the span and are named in a [`Reject`] of no spans:
//! - a link that cannot be read is left out
//! - the name of an unknown kind or status counts as unset, as in MLflow
//! - a parent id that is neither hex nor base64 makes the span a root. MLflow refuses the whole
//!   request; here the text as sent stays in the span's own bytes, where the id would be.

pub(crate) mod document;
pub(crate) mod members;
pub(crate) mod rejects;
pub(crate) mod span;
pub(crate) mod value;
mod write;

use crate::error::DecodeError;
use crate::otlp::fields::{export_request, resource_spans, scope_spans};
use crate::request::Reject;
use crate::writer::MessageWriter;
use document::Json;
use members::{Fault, Path, list, object, text};
use rejects::Rejects;

pub use write::write_spans;

/// Transcodes an `ExportTraceServiceRequest` in JSON. Never fails for one bad span.
///
/// Rejects of zero spans are warnings: something was left out of a span that was kept.
///
/// # Errors
/// [`DecodeError::Json`] when the body is not JSON or nested deeper than 500 levels,
/// [`DecodeError::Shape`] when the document or `resourceSpans` has another type,
/// [`DecodeError::Empty`] when there is no `resourceSpans`.
pub fn to_protobuf(body: &[u8]) -> Result<(Vec<u8>, Vec<Reject>), DecodeError> {
    let body = String::from_utf8_lossy(body);
    document_to_protobuf(&document::parse(&body)?)
}

/// As [`to_protobuf`], of a document that is parsed already.
pub(crate) fn document_to_protobuf(
    document: &Json<'_>,
) -> Result<(Vec<u8>, Vec<Reject>), DecodeError> {
    let Json::Object(members) = document else {
        return Err(DecodeError::Shape { path: "$".into(), expected: "an object" });
    };
    let mut transcoder = Transcoder::default();
    let mut found = false;
    for (name, value) in members {
        if matches!(name.as_ref(), "resourceSpans" | "resource_spans" | "batches") {
            match value {
                Json::Null => {}
                Json::Array(entries) => {
                    found = true;
                    transcoder.request(entries, Path::Root.member(name));
                }
                Json::Bool(_) | Json::Number(_) | Json::Text(_) | Json::Object(_) => {
                    return Err(DecodeError::Shape {
                        path: name.clone().into_owned(),
                        expected: "an array",
                    });
                }
            }
        }
    }
    if !found {
        return Err(DecodeError::Empty);
    }
    Ok((transcoder.out.into_bytes(), transcoder.rejects.into_list()))
}

#[derive(Default)]
struct Transcoder {
    out: MessageWriter,
    rejects: Rejects,
}

impl Transcoder {
    fn request(&mut self, entries: &[Json<'_>], path: Path<'_>) {
        for (index, entry) in entries.iter().enumerate() {
            let path = path.element(index);
            let mut out = MessageWriter::new();
            if let Err(fault) = self.resource_spans(entry, path, &mut out) {
                self.rejects.push(spans_below(entry), || fault.to_string());
                // An entry without spans, so that a request of bad entries is not an empty one.
                out = MessageWriter::new();
            }
            self.out.bytes(export_request::RESOURCE_SPANS, out.as_bytes());
        }
    }

    fn resource_spans(
        &mut self,
        entry: &Json<'_>,
        path: Path<'_>,
        out: &mut MessageWriter,
    ) -> Result<(), Fault> {
        let members = object(entry, path)?;
        // First what all spans need: without it they are refused together, and only once.
        for (name, value) in members {
            let path = path.member(name);
            match name.as_ref() {
                _ if matches!(value, Json::Null) => {}
                "resource" => out.bytes(resource_spans::RESOURCE, &value::resource(value, path)?),
                "schemaUrl" | "schema_url" => {
                    out.bytes_nonzero(resource_spans::SCHEMA_URL, text(value, path)?.as_bytes())
                }
                name if is_scope_spans(name) => {
                    list(value, path)?;
                }
                _ => {}
            }
        }
        for (name, value) in members.iter().filter(|(name, _)| is_scope_spans(name)) {
            let path = path.member(name);
            for (index, entry) in list(value, path)?.iter().enumerate() {
                let mut scope_spans = MessageWriter::new();
                match self.scope_spans(entry, path.element(index), &mut scope_spans) {
                    Ok(()) => out.bytes(resource_spans::SCOPE_SPANS, scope_spans.as_bytes()),
                    Err(fault) => self.rejects.push(scope_span_count(entry), || fault.to_string()),
                }
            }
        }
        Ok(())
    }

    fn scope_spans(
        &mut self,
        entry: &Json<'_>,
        path: Path<'_>,
        out: &mut MessageWriter,
    ) -> Result<(), Fault> {
        let members = object(entry, path)?;
        for (name, value) in members {
            let path = path.member(name);
            match name.as_ref() {
                _ if matches!(value, Json::Null) => {}
                "scope" | "instrumentationLibrary" | "instrumentation_library" => {
                    out.bytes(scope_spans::SCOPE, &value::scope(value, path)?);
                }
                "schemaUrl" | "schema_url" => {
                    out.bytes_nonzero(scope_spans::SCHEMA_URL, text(value, path)?.as_bytes())
                }
                "spans" => {
                    list(value, path)?;
                }
                _ => {}
            }
        }
        for (_, value) in members.iter().filter(|(name, _)| name == "spans") {
            let path = path.member("spans");
            for (index, entry) in list(value, path)?.iter().enumerate() {
                match span::span(entry, path.element(index), &mut self.rejects) {
                    Ok(span) => out.bytes(scope_spans::SPANS, &span),
                    Err(fault) => self.rejects.push(1, || format!("span refused: {fault}")),
                }
            }
        }
        Ok(())
    }
}

fn is_scope_spans(name: &str) -> bool {
    matches!(
        name,
        "scopeSpans"
            | "scope_spans"
            | "instrumentationLibrarySpans"
            | "instrumentation_library_spans"
    )
}

/// Spans in an entry of `resourceSpans` that is refused as a whole; at least one.
fn spans_below(entry: &Json<'_>) -> usize {
    let Json::Object(members) = entry else { return 1 };
    let mut spans = 0;
    for (_, value) in members.iter().filter(|(name, _)| is_scope_spans(name)) {
        if let Json::Array(entries) = value {
            spans += entries.iter().map(scope_span_count).sum::<usize>();
        }
    }
    spans.max(1)
}

/// Spans in an entry of `scopeSpans` that is refused as a whole; at least one.
fn scope_span_count(entry: &Json<'_>) -> usize {
    match entry.member(&["spans"]) {
        Some(Json::Array(spans)) => spans.len().max(1),
        _ => 1,
    }
}
