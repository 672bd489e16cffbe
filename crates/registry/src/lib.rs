//! The registry room: which experiments exist, and which table each one is archived to.
//!
//! Comes in: names and ids, already parsed into their types. Goes out: experiments as MLflow has
//! them, archive bindings, registered tables, this archiver's own id. Everything is kept in one
//! SQLite file, `registry.db`, that several processes may have open at once: the service and
//! commands beside it. It is backed up after changes, and restored when it is damaged. This room refuses to know HTTP, spans and Delta.

mod backup;
mod bindings;
mod error;
mod experiments;
mod file;
mod ids;
mod lifecycle_stage;
mod moves;
mod registry;
mod routes;
mod schema;

pub use backup::Restored;
pub use bindings::{Binding, RegisteredTable};
pub use error::{RegistryError, RegistryErrorKind};
pub use experiments::{
    Experiment, ExperimentPage, ExperimentQuery, NewExperiment, Tag, ViewType, check_tag_key,
};
pub use file::REGISTRY_FILE;
pub use lifecycle_stage::LifecycleStage;
pub use moves::{EarlierTraces, Move, MoveState};
pub use registry::Registry;
pub use routes::{ExperimentRoute, PastTable};
