//! The messages of OTLP: what is well formed, and what they say.

pub(crate) mod shape;
pub mod view;
