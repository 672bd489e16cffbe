//! Test helpers that never ship: a clock that stands still, and spans of every shape.

pub mod clock;
pub mod spans;

pub use clock::FakeClock;
