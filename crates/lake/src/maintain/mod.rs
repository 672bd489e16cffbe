//! Jobs that keep a table healthy: how its rows lie changes, what they say never does.
//!
//! Each job plans purely and applies after, beside writers that go on. What a crash leaves of one
//! is files that no version refers to.

pub mod compact;
pub mod vacuum;
