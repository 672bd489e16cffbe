//! What is done to an archive, over the service that runs on it or without one: each operation once.

pub(crate) mod check;
pub(crate) mod import;
pub(crate) mod moves;
pub(crate) mod status;
pub(crate) mod verify;
