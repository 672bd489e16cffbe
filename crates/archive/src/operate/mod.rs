//! What is done to an archive, over the service that runs on it or without one: each operation once.

pub mod check;
pub mod import;
pub mod moves;
pub mod status;
pub mod verify;
