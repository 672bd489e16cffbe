//! How much of anything is accepted. Each limit names what happens at it.

use serde::{Deserialize, Serialize};

/// Size limits on what comes from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of one request body as received. Past it: HTTP 413, gRPC `RESOURCE_EXHAUSTED`.
    pub max_body_bytes: usize,
    /// Bytes of one request body after decompression. Past it: HTTP 413.
    pub max_decompressed_bytes: usize,
    /// Attributes of one span, event, link, resource or scope. Past it: the span is rejected.
    pub max_attributes: usize,
    /// Levels of arrays and maps within one attribute value. Past it: the span is rejected.
    pub max_nesting_depth: usize,
    /// Events or links of one span. Past it: the span is rejected.
    pub max_events: usize,
    /// Bytes of all spans of a request, each with its own copy of resource and scope, as the table
    /// holds them. Past it: further spans are rejected.
    pub max_expanded_bytes: usize,
    /// Bytes of one span with its resource and scope. Past it: the span is rejected. Limits that were
    /// written down before there was this one have none.
    #[serde(default = "unbounded")]
    pub max_span_bytes: usize,
}

/// Most bytes of a span with its resource and scope that are accepted: half of what a row may hold.
pub const MAX_SPAN_BYTES: usize = 32 << 20;

const fn unbounded() -> usize {
    usize::MAX
}

/// Deepest nesting that may be configured: reading a value takes stack for each level.
pub const MAX_NESTING_DEPTH: usize = 512;

impl Limits {
    /// For what was accepted before: nothing of it is refused now.
    #[must_use]
    pub const fn accepted() -> Self {
        Self {
            max_body_bytes: usize::MAX,
            max_decompressed_bytes: usize::MAX,
            max_attributes: usize::MAX,
            max_nesting_depth: MAX_NESTING_DEPTH,
            max_events: usize::MAX,
            max_expanded_bytes: usize::MAX,
            max_span_bytes: usize::MAX,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body_bytes: 64 << 20,
            max_decompressed_bytes: 256 << 20,
            max_attributes: 10_000,
            max_nesting_depth: 64,
            max_events: 100_000,
            max_expanded_bytes: 512 << 20,
            max_span_bytes: MAX_SPAN_BYTES,
        }
    }
}
