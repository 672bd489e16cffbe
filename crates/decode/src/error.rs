//! Errors of the decode room: a request that cannot be read at all.

/// Why a whole request was refused. A single bad span is a [`crate::Reject`] instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The protobuf framing is broken, so that it is unknown where spans begin and end.
    #[error("protobuf at byte {offset}: {reason}")]
    Protobuf {
        /// Position in the (decompressed) body.
        offset: usize,
        /// What is wrong there.
        reason: &'static str,
    },
    /// The body is not JSON.
    #[error("json: {reason}")]
    Json {
        /// The parser's words, with line and column.
        reason: String,
    },
    /// The body is JSON of another shape.
    #[error("json: `{path}`: expected {expected}")]
    Shape {
        /// Where in the document.
        path: String,
        /// What belongs there.
        expected: &'static str,
    },
    /// The body does not decompress.
    #[error("content encoding {encoding}: {reason}")]
    Compression {
        /// The encoding.
        encoding: &'static str,
        /// The decoder's words.
        reason: String,
    },
    /// The decompressed body is larger than allowed.
    #[error("the decompressed body is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// Nothing to store: no resource spans at all.
    #[error("the request has no resource spans")]
    Empty,
}
