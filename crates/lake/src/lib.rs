//! The lake room: turns settled traces into committed Delta versions and keeps tables healthy.
//!
//! Comes in: decoded spans. Goes out: table versions, and traces read back from rows. This room
//! owns the Delta kernel and every path name; it never sees HTTP, SQL or the journal.

pub mod rows;
