//! The pipeline room: what was acknowledged gets into the tables, once.
//!
//! Comes in: the records of a journal, live and at a replay, and the bindings of the registry. Goes out:
//! versions of Delta tables, the ledger of what was acknowledged, carries and plans in the journal's folder;
//! beside that it keeps the tables small. This room refuses to know how a request came in, how it is
//! answered, and what is asked of the tables: it takes a folder, a registry, a lake and a clock ([`Stores`]), is
//! told and asked through a [`PipelineHandle`], and says what is wrong in a [`Health`].
//!
//! | module | question it answers |
//! |---|---|
//! | `drain` | When does a trace settle, where does it go, how is it there once? |
//! | [`ledger`] | What was acknowledged? |
//! | [`parked`] | What was set aside, and how does it come back? |
//! | [`maintenance`] | When are tables compacted and vacuumed? |
//! | `device`, `failpoints`, `mutations` | What do builds with debug assertions do to a disk? |
//! | `simulation` | Does it hold, whatever fails when? |

mod device;
mod drain;
mod durable_file;
#[cfg(debug_assertions)]
mod failpoints;
pub mod ledger;
pub mod maintenance;
mod mutations;
mod open_bytes;
pub mod parked;
#[cfg(all(test, debug_assertions))]
mod simulation;
mod stores;

pub use device::{journal_device, table_device};
pub use drain::{
    Commands, FlushOutcome, Found, Health, Identity, LostCarry, Pipeline, PipelineHandle,
    PipelineParts, PipelineStatus, Schedule, Stopper, TableStatus, check_carry, clock_of,
};
pub use mutations::Broken;
pub use open_bytes::OpenBytes;
pub use stores::Stores;
