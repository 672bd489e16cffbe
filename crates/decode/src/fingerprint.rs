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

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use crate::request::{SpanGroup, SpanRecord};
use crate::shape::{Message, canonical, is_canonical};

/// Bits of the half that says which span it is.
const IDENTITY_BITS: u64 = 0xffff_ffff_0000_0000;

/// What tells a span from every other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub u64);

impl Fingerprint {
    /// True when both are of one span by id, name, start and end, whatever else they say.
    #[must_use]
    pub const fn is_same_span(self, other: Self) -> bool {
        (self.0 ^ other.0) & IDENTITY_BITS == 0
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
        let identity = joined([
            u64::from_le_bytes(span.span_id.0),
            span.start_time_unix_nano,
            span.end_time_unix_nano,
            xxh3_64(span.view().name.as_bytes()),
        ]);
        Fingerprint((identity & IDENTITY_BITS) | (content & !IDENTITY_BITS))
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

fn part(message: Message, bytes: &[u8]) -> u64 {
    if is_canonical(message, bytes) { xxh3_64(bytes) } else { xxh3_64(&canonical(message, bytes)) }
}

/// One number of several.
fn joined<const N: usize>(numbers: [u64; N]) -> u64 {
    xxh3_64(numbers.map(u64::to_le_bytes).as_flattened())
}
