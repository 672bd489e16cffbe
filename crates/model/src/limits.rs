//! How much of anything is accepted. Each limit names what happens at it.

/// Size limits on what comes from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body_bytes: 64 << 20,
            max_decompressed_bytes: 256 << 20,
            max_attributes: 10_000,
            max_nesting_depth: 64,
            max_events: 100_000,
        }
    }
}
