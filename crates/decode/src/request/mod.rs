//! An OTLP export request, taken apart into spans that point into the received bytes.
//!
//! Accepted: an id pair of 16 and 8 bytes that are not all zero, well-formed protobuf, within the
//! limits. Everything else about a span is taken as it is: empty names, zero or reversed times,
//! parents that never come. A span that cannot be accepted is a [`Reject`]; the others are kept.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tracelake_model::{ExperimentId, Limits, SpanId, TraceId};

use crate::error::DecodeError;
use crate::mlflow_keys;
use crate::otlp::fields::{export_request, resource_spans, scope_spans};
use crate::otlp::shape::{Findings, Message, WalkLimits, canonical, check, replace_invalid_text};
use crate::otlp::view::{AttributeList, ResourceView, SpanView, ValueView};
use crate::wire::{Fields, WireError, WireValue};
use crate::writer::MessageWriter;

/// Takes experiments that resources name out of spans, of neighbours that share a group at once.
#[derive(Debug, Default)]
pub struct Unnaming {
    /// The last group, and what it became.
    last: Option<(Arc<SpanGroup>, Arc<SpanGroup>)>,
}

impl Unnaming {
    /// Lets `span` name no experiment.
    pub fn apply(&mut self, span: &mut SpanRecord) {
        let known = self.last.take().filter(|(group, _)| Arc::ptr_eq(group, &span.group));
        let (group, unnamed) =
            known.unwrap_or_else(|| (Arc::clone(&span.group), Arc::new(span.group.unnamed())));
        span.group = Arc::clone(&unnamed);
        self.last = Some((group, unnamed));
    }
}

/// Which form a span came in. MLflow's own copies lack kind, scope, resource and links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpanSource {
    /// OTLP, with all that the sender knew.
    Otlp,
    /// MLflow's span JSON.
    Mlflow,
}

impl SpanSource {
    /// The value of the table's `spans.source`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Otlp => "otlp",
            Self::Mlflow => "mlflow",
        }
    }

    /// Reads the table's value; anything unknown is `Otlp`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        if text == "mlflow" { Self::Mlflow } else { Self::Otlp }
    }
}

/// What the spans of one `ScopeSpans` have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanGroup {
    /// The message `Resource`; empty when there was none.
    pub resource: Bytes,
    /// Schema URL of the resource.
    pub resource_schema_url: String,
    /// The message `InstrumentationScope`; empty when there was none.
    pub scope: Bytes,
    /// Schema URL of the scope and its spans.
    pub scope_schema_url: String,
    /// Form in which the spans came.
    pub source: SpanSource,
    /// Experiment that the resource names.
    pub experiment_id: Option<ExperimentId>,
    /// Resource or scope say more than the table's columns can hold.
    pub beyond_columns: bool,
}

impl SpanGroup {
    /// The same without the experiment that the resource names: another one stands over it, or it was not known.
    #[must_use]
    pub fn unnamed(&self) -> Self {
        Self { experiment_id: None, ..self.clone() }
    }

    /// The experiment that the resource names and that does not count.
    #[must_use]
    pub fn hidden_experiment(&self) -> Option<ExperimentId> {
        if self.experiment_id.is_some() { None } else { experiment_of(&self.resource) }
    }

    /// True when both say the same of their spans, in the same bytes.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
            || (self.resource == other.resource
                && self.scope == other.scope
                && self.resource_schema_url == other.resource_schema_url
                && self.scope_schema_url == other.scope_schema_url)
    }
}

/// One accepted span. Cloning copies pointers only.
#[derive(Clone, Debug)]
pub struct SpanRecord {
    /// Trace that the span belongs to.
    pub trace_id: TraceId,
    /// The span.
    pub span_id: SpanId,
    /// The parent span; `None` for a root.
    pub parent: Option<SpanId>,
    /// Nanoseconds since the Unix epoch; zero when unknown.
    pub start_time_unix_nano: u64,
    /// Nanoseconds since the Unix epoch; zero when the span never ended.
    pub end_time_unix_nano: u64,
    /// The message `Span`.
    pub message: Bytes,
    /// Resource, scope and source.
    pub group: Arc<SpanGroup>,
    /// The span says more than the table's columns can hold: its bytes are kept beside the row.
    pub beyond_columns: bool,
    /// The message is known to be in canonical form, in which equal spans have equal bytes.
    pub is_canonical: bool,
}

impl SpanRecord {
    /// The span's fields.
    #[must_use]
    pub fn view(&self) -> SpanView<'_> {
        SpanView::new(&self.message)
    }

    /// The span's fields, and its attributes in the order sent.
    #[must_use]
    pub fn view_with_attributes(&self) -> (SpanView<'_>, AttributeList<'_>) {
        SpanView::with_attributes(&self.message)
    }

    /// Bytes of the span with its resource and scope: about what its row takes, as every span has
    /// them in the table.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        self.message.len() + self.group.resource.len() + self.group.scope.len()
    }

    /// True when `other` is the same span sent again: same ids, and same content to the last
    /// attribute, resource and scope included, however it was encoded.
    #[must_use]
    pub fn same_content(&self, other: &Self) -> bool {
        let same = |message, left: &Bytes, right: &Bytes| {
            left == right || canonical(message, left) == canonical(message, right)
        };
        self.span_id == other.span_id
            && self.trace_id == other.trace_id
            && self.group.resource_schema_url == other.group.resource_schema_url
            && self.group.scope_schema_url == other.group.scope_schema_url
            && same(Message::Span, &self.message, &other.message)
            && same(Message::Resource, &self.group.resource, &other.group.resource)
            && same(Message::Scope, &self.group.scope, &other.group.scope)
    }

    /// True when `other` is MLflow's poorer or richer copy of this span: same ids, name and times.
    #[must_use]
    pub fn same_span_other_source(&self, other: &Self) -> bool {
        self.group.source != other.group.source
            && self.span_id == other.span_id
            && self.trace_id == other.trace_id
            && self.start_time_unix_nano == other.start_time_unix_nano
            && self.end_time_unix_nano == other.end_time_unix_nano
            && self.view().name == other.view().name
    }
}

/// A span, or a list of spans, that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Spans refused; one when it is unknown how many a broken entry held.
    pub spans: usize,
    /// Why, naming the span where it can be named.
    pub reason: String,
}

/// The good spans of a request, and what was refused.
#[derive(Clone, Debug, Default)]
pub struct DecodedSpans {
    /// Accepted, in the order sent.
    pub spans: Vec<SpanRecord>,
    /// Refused, with reasons.
    pub rejects: Vec<Reject>,
}

impl DecodedSpans {
    /// Number of spans refused.
    #[must_use]
    pub fn rejected_spans(&self) -> usize {
        self.rejects.iter().map(|reject| reject.spans).sum()
    }
}

/// Takes an `ExportTraceServiceRequest` apart.
///
/// # Errors
/// [`DecodeError::Protobuf`] when the framing outside of spans is broken, [`DecodeError::Empty`]
/// when there is no `resource_spans` at all.
pub fn decode_otlp(
    body: &Bytes,
    source: SpanSource,
    limits: &Limits,
) -> Result<DecodedSpans, DecodeError> {
    let mut decoder = Decoder {
        body,
        source,
        limits: walk_limits(limits),
        found: DecodedSpans::default(),
        room_bytes: limits.max_expanded_bytes,
        max_span_bytes: limits.max_span_bytes,
    };
    let mut fields = Fields::new(body);
    let mut any = false;
    while let Some((number, value)) = fields.next_field().map_err(|e| protobuf(body, body, e))? {
        if number == export_request::RESOURCE_SPANS {
            any = true;
            decoder.resource_spans(message(body, body, value)?)?;
        }
    }
    if any { Ok(decoder.found) } else { Err(DecodeError::Empty) }
}

const fn walk_limits(limits: &Limits) -> WalkLimits {
    WalkLimits {
        max_attributes: limits.max_attributes,
        max_nesting_depth: limits.max_nesting_depth,
        max_events: limits.max_events,
    }
}

struct Decoder<'a> {
    body: &'a Bytes,
    source: SpanSource,
    limits: WalkLimits,
    found: DecodedSpans,
    /// Bytes that accepted spans may still take, see [`Limits::max_expanded_bytes`].
    room_bytes: usize,
    max_span_bytes: usize,
}

impl<'a> Decoder<'a> {
    fn resource_spans(&mut self, bytes: &'a [u8]) -> Result<(), DecodeError> {
        let mut resource: &[u8] = &[];
        let mut schema_url: &[u8] = &[];
        let mut fields = Fields::new(bytes);
        while let Some((number, value)) = self.next(bytes, &mut fields)? {
            match number {
                resource_spans::RESOURCE => resource = message(self.body, bytes, value)?,
                resource_spans::SCHEMA_URL => schema_url = message(self.body, bytes, value)?,
                _ => {}
            }
        }
        let resource = self.checked(Message::Resource, resource);
        let experiment = resource.as_ref().ok().and_then(|(bytes, _)| experiment_of(bytes));
        let mut fields = Fields::new(bytes);
        while let Some((number, value)) = self.next(bytes, &mut fields)? {
            if matches!(
                number,
                resource_spans::SCOPE_SPANS | resource_spans::INSTRUMENTATION_LIBRARY_SPANS
            ) {
                let scope_spans = message(self.body, bytes, value)?;
                match &resource {
                    Ok((resource, findings)) => {
                        let group = SpanGroup {
                            resource: resource.clone(),
                            resource_schema_url: String::from_utf8_lossy(schema_url).into_owned(),
                            scope: Bytes::new(),
                            scope_schema_url: String::new(),
                            source: self.source,
                            experiment_id: experiment.clone(),
                            beyond_columns: findings.beyond_columns,
                        };
                        self.scope_spans(scope_spans, group)?;
                    }
                    Err(reason) => self.reject_all(scope_spans, &format!("resource: {reason}"))?,
                }
            }
        }
        Ok(())
    }

    fn scope_spans(&mut self, bytes: &'a [u8], mut group: SpanGroup) -> Result<(), DecodeError> {
        let mut scope: &[u8] = &[];
        let mut fields = Fields::new(bytes);
        while let Some((number, value)) = self.next(bytes, &mut fields)? {
            match number {
                scope_spans::SCOPE => scope = message(self.body, bytes, value)?,
                scope_spans::SCHEMA_URL => {
                    let url = message(self.body, bytes, value)?;
                    group.scope_schema_url = String::from_utf8_lossy(url).into_owned();
                }
                _ => {}
            }
        }
        match self.checked(Message::Scope, scope) {
            Ok((scope, findings)) => {
                group.scope = scope;
                group.beyond_columns |= findings.beyond_columns;
            }
            Err(reason) => return self.reject_all(bytes, &format!("scope: {reason}")),
        }
        let group = Arc::new(group);
        let mut fields = Fields::new(bytes);
        while let Some((number, value)) = self.next(bytes, &mut fields)? {
            if number == scope_spans::SPANS {
                let span = message(self.body, bytes, value)?;
                match self.span(span, &group).and_then(|record| self.fit(record)) {
                    Ok(record) => self.found.spans.push(record),
                    Err(reason) => self.found.rejects.push(Reject { spans: 1, reason }),
                }
            }
        }
        Ok(())
    }

    fn span(&self, bytes: &'a [u8], group: &Arc<SpanGroup>) -> Result<SpanRecord, String> {
        let view = SpanView::new(bytes);
        let (message, findings) = self
            .checked(Message::Span, bytes)
            .map_err(|reason| format!("span {}: {reason}", describe(&view)))?;
        let trace_id = view
            .valid_trace_id()
            .ok_or_else(|| format!("span {}: trace id is not 16 bytes", describe(&view)))?;
        let span_id = view
            .valid_span_id()
            .ok_or_else(|| format!("span {}: span id is not 8 bytes", describe(&view)))?;
        let parent = view.parent();
        Ok(SpanRecord {
            trace_id,
            span_id,
            parent,
            start_time_unix_nano: view.start_time_unix_nano,
            end_time_unix_nano: view.end_time_unix_nano,
            message,
            group: Arc::clone(group),
            beyond_columns: findings.beyond_columns
                || group.beyond_columns
                || (parent.is_none() && !view.parent_span_id.is_empty()),
            is_canonical: findings.canonical && !findings.invalid_text,
        })
    }

    /// Takes the span's share of what a request may become in the table.
    fn fit(&mut self, record: SpanRecord) -> Result<SpanRecord, String> {
        let bytes = record.weight_bytes();
        if self.max_span_bytes < bytes {
            return Err(format!(
                "span {}: it has {bytes} bytes with its resource and scope, {} are allowed",
                describe(&record.view()),
                self.max_span_bytes
            ));
        }
        match self.room_bytes.checked_sub(bytes) {
            Some(room) => {
                self.room_bytes = room;
                Ok(record)
            }
            None => Err(format!(
                "span {}: the spans of this request with their resources and scopes are too large",
                describe(&record.view())
            )),
        }
    }

    /// Counts the spans of a `ScopeSpans` that cannot be kept.
    fn reject_all(&mut self, bytes: &'a [u8], reason: &str) -> Result<(), DecodeError> {
        let mut spans = 0;
        let mut fields = Fields::new(bytes);
        while let Some((number, _)) = self.next(bytes, &mut fields)? {
            spans += usize::from(number == scope_spans::SPANS);
        }
        if 0 < spans {
            self.found.rejects.push(Reject { spans, reason: reason.to_owned() });
        }
        Ok(())
    }

    /// The message as a slice of the body, or rewritten where text is not UTF-8.
    fn checked(&self, message: Message, bytes: &'a [u8]) -> Result<(Bytes, Findings), String> {
        let findings = check(message, bytes, &self.limits).map_err(|fault| fault.to_string())?;
        let bytes = if findings.invalid_text {
            Bytes::from(replace_invalid_text(message, bytes))
        } else if bytes.is_empty() {
            Bytes::new()
        } else {
            self.body.slice_ref(bytes)
        };
        Ok((bytes, findings))
    }

    fn next(
        &self,
        message: &'a [u8],
        fields: &mut Fields<'a>,
    ) -> Result<Option<(u32, WireValue<'a>)>, DecodeError> {
        fields.next_field().map_err(|error| protobuf(self.body, message, error))
    }
}

/// An embedded message or string, `Err` for a number in its place.
fn message<'a>(
    body: &Bytes,
    parent: &'a [u8],
    value: WireValue<'a>,
) -> Result<&'a [u8], DecodeError> {
    match value {
        WireValue::Bytes(bytes) => Ok(bytes),
        WireValue::Varint(_) | WireValue::Fixed64(_) | WireValue::Fixed32(_) => {
            Err(protobuf(body, parent, WireError { offset: 0, reason: "wrong wire type" }))
        }
    }
}

/// Places a fault inside of `message` at its offset in `body`.
fn protobuf(body: &Bytes, message: &[u8], error: WireError) -> DecodeError {
    let start = (message.as_ptr() as usize).saturating_sub(body.as_ptr() as usize);
    DecodeError::Protobuf { offset: start + error.offset, reason: error.reason }
}

/// The experiment that a resource names by [`mlflow_keys::EXPERIMENT_ID`].
#[must_use]
pub fn experiment_of(resource: &[u8]) -> Option<ExperimentId> {
    match ResourceView::new(resource).attribute(mlflow_keys::EXPERIMENT_ID)? {
        ValueView::String(text) => text.trim_matches('"').parse().ok(),
        ValueView::Int(number) => (0 <= number).then(|| number.into()),
        ValueView::Empty
        | ValueView::Bool(_)
        | ValueView::Double(_)
        | ValueView::Array(_)
        | ValueView::KeyValues(_)
        | ValueView::Bytes(_) => None,
    }
}

/// Names a span in a message: ids in hex, the name shortened and without control characters.
fn describe(view: &SpanView<'_>) -> String {
    let hex = |id: &[u8]| tracelake_model::ids::hex(id.get(..16.min(id.len())).unwrap_or_default());
    format!(
        "`{}` of trace `{}` (`{}`)",
        hex(view.span_id),
        hex(view.trace_id),
        tracelake_model::names::printable(view.name)
    )
}

/// Writes spans as one `ExportTraceServiceRequest`: neighbours that share resource and scope share
/// their entry. Used to carry spans over and to give them back.
#[must_use]
pub fn encode_request(spans: &[SpanRecord]) -> Vec<u8> {
    let mut request = MessageWriter::new();
    for same_resource in spans.chunk_by(|left, right| {
        left.group.resource == right.group.resource
            && left.group.resource_schema_url == right.group.resource_schema_url
    }) {
        let Some(first) = same_resource.first() else { continue };
        request.message(export_request::RESOURCE_SPANS, |resource_spans| {
            if !first.group.resource.is_empty() {
                resource_spans.bytes(resource_spans::RESOURCE, &first.group.resource);
            }
            for same_scope in same_resource.chunk_by(|left, right| {
                left.group.scope == right.group.scope
                    && left.group.scope_schema_url == right.group.scope_schema_url
            }) {
                write_scope_spans(resource_spans, same_scope);
            }
            resource_spans.bytes_nonzero(
                resource_spans::SCHEMA_URL,
                first.group.resource_schema_url.as_bytes(),
            );
        });
    }
    request.into_bytes()
}

fn write_scope_spans(resource_spans: &mut MessageWriter, spans: &[SpanRecord]) {
    let Some(first) = spans.first() else { return };
    resource_spans.message(resource_spans::SCOPE_SPANS, |scope_spans| {
        if !first.group.scope.is_empty() {
            scope_spans.bytes(scope_spans::SCOPE, &first.group.scope);
        }
        for span in spans {
            scope_spans.bytes(scope_spans::SPANS, &span.message);
        }
        scope_spans.bytes_nonzero(scope_spans::SCHEMA_URL, first.group.scope_schema_url.as_bytes());
    });
}

#[cfg(test)]
mod tests;
