//! A deterministic simulation: the journal, the assembler, the pipeline and the commits as they
//! are, on file systems and an object store that fail by a seed, with a clock that is told.
//!
//! One seed is one schedule: what clients send, which archiver is killed when, what the store
//! answers. At the end faults stop, everything is recovered and flushed, and a history checker
//! compares what clients were told with what the tables hold.
//!
//! `make simulate SCHEDULES=10000 SEED=1` runs many; one that fails prints its seed, which
//! `make simulate SCHEDULES=1 SEED=...` runs again.

mod archiver;
mod clients;
mod fault_kinds;
mod folder;
mod folders;
mod ground;
mod history;
mod runner;
mod store;
mod world;

mod replay_tests;
mod tests;
