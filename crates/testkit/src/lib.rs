//! Test helpers that never ship: a clock that stands still, chance by a seed, and spans of every shape.

pub mod clock;
pub mod random;
pub mod records;
pub mod spans;

pub use clock::FakeClock;
pub use random::Random;
