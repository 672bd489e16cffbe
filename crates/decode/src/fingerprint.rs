//! Fingerprints: what tells two spans apart in 64 bits, however they were encoded.
//!
//! Two spans have the same fingerprint when [`SpanRecord::same_content`] says that they are the
//! same, and otherwise different ones but for chance: that of two different spans is 2^-64, that of
//! two contents under the same ids, name and times 2^-32.
//!
//! A fingerprint has two halves. The upper one is of what MLflow's copy of a span shares with the
//! one that came by OTLP: span id, start, end, name. The lower one is of everything: the span's
//! canonical bytes, and those of its resource and scope with their schema URLs.
//!
//! Fingerprints are kept on disk: the function never changes. It is XXH3 with 64 bits
//! (<https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md>) of canonical bytes; numbers
//! are joined as little endian. Bytes that are canonical as received, which is what senders write,
//! are hashed in place: nothing is allocated.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracelake_model::{Assessment, ExperimentId, TraceId, TraceInfo};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::otlp::shape::{Message, canonical, is_canonical};
use crate::request::{SpanGroup, SpanRecord, SpanSource};

/// Bits of the half that says which span it is.
const IDENTITY_BITS: u64 = 0xffff_ffff_0000_0000;

/// What tells a span from every other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub u64);

impl Fingerprint {
    /// True when both are of one span by id, name, start and end, whatever else they say.
    #[must_use]
    pub const fn is_same_span(self, other: Self) -> bool {
        self.identity() == other.identity()
    }

    /// The half that says which span it is.
    #[must_use]
    pub const fn identity(self) -> u64 {
        self.0 & IDENTITY_BITS
    }
}

/// A fingerprint with both halves whole: two different spans of a trace have the same one by a chance of
/// 2^-127. Kept on disk, as the fingerprint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanDigest {
    /// Of span id, start, end and name; the lowest bit says that the span came in MLflow's form.
    pub span: u64,
    /// Of everything that the span says.
    pub content: u64,
}

impl SpanDigest {
    /// Bytes of a digest as it is kept.
    pub const BYTES: usize = 16;

    /// True when a span of this digest says nothing beside one of `other`: it is a copy of it, or
    /// MLflow's poorer form of it.
    #[must_use]
    pub const fn is_in(self, other: Self) -> bool {
        (self.span == other.span && self.content == other.content)
            || (self.span & 1 == 1 && self.span == other.span | 1 && other.span & 1 == 0)
    }

    /// As it is kept.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        ((u128::from(self.span) << 64) | u128::from(self.content)).to_be_bytes()
    }

    /// From the bytes that were kept.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Self {
            span: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            content: u64::from_be_bytes([i, j, k, l, m, n, o, p]),
        }
    }
}

/// Makes fingerprints of spans. What neighbours share is worked out once: use one for the spans of
/// a request, or of a row.
#[derive(Debug, Default)]
pub struct Fingerprinter {
    group: Option<(Arc<SpanGroup>, u64)>,
}

impl Fingerprinter {
    /// The fingerprint of `span`.
    pub fn span(&mut self, span: &SpanRecord) -> Fingerprint {
        // Spans that came over the wire were looked at when they were decoded.
        let message = if span.is_canonical || is_canonical(Message::Span, &span.message) {
            xxh3_64(&span.message)
        } else {
            xxh3_64(&canonical(Message::Span, &span.message))
        };
        let content = joined([message, self.group(&span.group)]);
        Fingerprint((identity(span) & IDENTITY_BITS) | (content & !IDENTITY_BITS))
    }

    /// The digest of `span`.
    pub fn digest(&mut self, span: &SpanRecord) -> SpanDigest {
        let message = part(Message::Span, &span.message);
        let content = joined([message, self.group(&span.group)]);
        let source = u64::from(span.group.source == SpanSource::Mlflow);
        SpanDigest { span: (identity(span) & !1) | source, content }
    }

    fn group(&mut self, group: &Arc<SpanGroup>) -> u64 {
        match &self.group {
            Some((known, hash)) if known.says_the_same(group) => *hash,
            _ => {
                let hash = joined([
                    part(Message::Resource, &group.resource),
                    xxh3_64(group.resource_schema_url.as_bytes()),
                    part(Message::Scope, &group.scope),
                    xxh3_64(group.scope_schema_url.as_bytes()),
                ]);
                self.group = Some((Arc::clone(group), hash));
                hash
            }
        }
    }
}

/// What MLflow's copy of a span shares with the one that came by OTLP.
fn identity(span: &SpanRecord) -> u64 {
    joined([
        u64::from_le_bytes(span.span_id.0),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        xxh3_64(span.view().name.as_bytes()),
    ])
}

fn part(message: Message, bytes: &[u8]) -> u64 {
    if is_canonical(message, bytes) { xxh3_64(bytes) } else { xxh3_64(&canonical(message, bytes)) }
}

/// What tells one `start_trace` from every other one of its trace: a hash of all that it says. Kept on
/// disk, as the fingerprints of spans are. Each text is joined behind its length, each list and map
/// behind the number of its entries, and what may be absent behind a byte that says so.
#[must_use]
pub fn start_fingerprint(info: &TraceInfo, experiment_id: &ExperimentId) -> u64 {
    let mut bytes = Vec::with_capacity(1_024);
    join_text(&mut bytes, Some(experiment_id.as_str()));
    for said in [&info.client_request_id, &info.request_preview, &info.response_preview] {
        join_text(&mut bytes, said.as_deref());
    }
    join_text(&mut bytes, Some(info.state.as_str()));
    join_number(&mut bytes, info.request_time_micros);
    join_number(&mut bytes, info.execution_duration_ms);
    join_map(&mut bytes, &info.trace_metadata);
    join_map(&mut bytes, &info.tags);
    join_count(&mut bytes, info.assessments.len());
    for assessment in &info.assessments {
        assessment_content(assessment, &mut bytes);
    }
    xxh3_64(&bytes)
}

/// What tells one assessment from every other one of its trace: a hash of all that it says. Kept on
/// disk in the ids of assessments that came without one.
#[must_use]
pub fn assessment_fingerprint(trace_id: TraceId, assessment: &Assessment) -> u128 {
    let mut bytes = trace_id.0.to_vec();
    assessment_content(assessment, &mut bytes);
    xxh3_128(&bytes)
}

/// Joins what an assessment says.
fn assessment_content(assessment: &Assessment, bytes: &mut Vec<u8>) {
    join_text(bytes, Some(&assessment.assessment_id));
    for said in [
        &assessment.assessment_name,
        &assessment.span_id,
        &assessment.source_type,
        &assessment.source_id,
        &assessment.feedback_json,
        &assessment.expectation_json,
        &assessment.issue_json,
        &assessment.rationale,
        &assessment.overrides,
    ] {
        join_text(bytes, said.as_deref());
    }
    join_number(bytes, assessment.create_time_micros);
    join_number(bytes, assessment.last_update_time_micros);
    join_number(bytes, assessment.valid.map(i64::from));
    join_map(bytes, &assessment.metadata);
}

fn join_count(bytes: &mut Vec<u8>, count: usize) {
    bytes.extend((count as u64).to_le_bytes());
}

fn join_text(bytes: &mut Vec<u8>, text: Option<&str>) {
    bytes.push(u8::from(text.is_some()));
    join_count(bytes, text.map_or(0, str::len));
    bytes.extend_from_slice(text.unwrap_or_default().as_bytes());
}

fn join_number(bytes: &mut Vec<u8>, number: Option<i64>) {
    bytes.push(u8::from(number.is_some()));
    bytes.extend(number.unwrap_or_default().to_le_bytes());
}

fn join_map(bytes: &mut Vec<u8>, map: &BTreeMap<String, String>) {
    join_count(bytes, map.len());
    for (key, value) in map {
        join_text(bytes, Some(key));
        join_text(bytes, Some(value));
    }
}

/// One number of several.
fn joined<const N: usize>(numbers: [u64; N]) -> u64 {
    xxh3_64(numbers.map(u64::to_le_bytes).as_flattened())
}
