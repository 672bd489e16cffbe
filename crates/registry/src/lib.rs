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
mod ids;
mod moves;
mod registry;
mod routes;
mod schema;

pub use backup::Restored;
pub use bindings::{Binding, EarlierTraces, RegisteredTable};
pub use error::{RegistryError, RegistryErrorKind};
pub use experiments::{
    Experiment, ExperimentPage, ExperimentQuery, LifecycleStage, NewExperiment, Tag, ViewType,
    check_tag_key,
};
pub use moves::{Move, MoveState};
pub use registry::{REGISTRY_FILE, Registry};
pub use routes::{ExperimentRoute, PastTable};
