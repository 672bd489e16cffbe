//! The archive room: one library for shell, Python and HTTP.
//!
//! Comes in: a data folder or a service's address, settings, calls. Goes out: a service that runs, answers,
//! reports, typed faults. This is the one place that knows all rooms; it decides nothing about spans, rows or
//! commits, and it refuses to know arguments and terminals.
//!
//! | module | question it answers |
//! |---|---|
//! | [`client`] | What do programs call? |
//! | [`operate`] | What is done to an archive, over a service or without one? |
//! | `http` | What does a service answer under `/api/v1`? |
//! | [`serving`], [`service`] | How does it run, with and without a network? |
//! | [`ask`] | How are tables asked, with what is not committed yet? |
//! | [`folder`] | What is in a data folder? |
//! | [`discovery`] | Which service runs on a data folder? |
//! | [`settings`] | What may be set? |

pub mod ask;
pub mod client;
pub mod discovery;
mod fault;
pub mod folder;
mod http;
pub mod operate;
pub mod service;
pub mod serving;
pub mod settings;
mod tasks;

pub use fault::{Fault, FaultKind};
pub use folder::TableOutcome;
pub use http::connections::know_date;
pub use tasks::spawn;
