//! The messages of OTLP: the numbers of their fields, what is well formed, and what they say.

pub mod fields;
pub(crate) mod shape;
pub mod view;
