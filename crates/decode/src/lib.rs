//! The decode room: bytes in, spans and rejects out. Pure: no I/O, no clock, no state.
//!
//! Comes in: request bodies (OTLP protobuf, OTLP JSON, MLflow JSON) and what the journal kept of
//! them. Goes out: [`SpanRecord`]s that point into the received bytes, rejects with reasons, and
//! [`conventions`]: what a span is called, took in and gave out. Every JSON form is first
//! transcoded to OTLP protobuf, so that there is one decoder. This room refuses to know HTTP,
//! files, tables and Arrow.
//!
//! Decoding never fails for one bad span: it returns the good spans and the rejected ones.

pub mod any_value;
pub mod content_encoding;
pub mod conventions;
pub mod error;
pub mod fingerprint;
pub mod mlflow_json;
pub mod mlflow_keys;
pub mod order;
pub mod otlp;
pub mod otlp_json;
pub mod record;
pub mod request;
pub mod wire;
pub mod writer;

pub use content_encoding::ContentEncoding;
pub use error::DecodeError;
pub use fingerprint::{
    Fingerprint, Fingerprinter, SpanDigest, assessment_fingerprint, start_fingerprint,
};
pub use otlp::view::{
    AttributeList, EventView, KeyValueView, LinkView, ResourceView, ScopeView, SpanView, ValueView,
};
pub use record::{
    CarriedWords, DecodedRecord, RecordContent, RecordHeader, RecordKind, Route, Start,
    changes_body, decode_record, words_body,
};
pub use request::{DecodedSpans, Reject, SpanGroup, SpanRecord, SpanSource, decode_otlp};
