//! The intake room: takes requests in and answers only when their bytes are durable.
//!
//! Comes in: OTLP over HTTP and gRPC, and the MLflow REST calls that an unchanged MLflow client
//! makes to log traces. Goes out: journal records, each with the tables its spans go to, and the
//! decoded form of the same bytes for whoever consumes the journal. This room refuses to know
//! tables, files and queries.
//!
//! A request goes `admit -> read -> decode -> route -> append -> answer`. Until `append` resolves
//! nothing is acknowledged; what is refused is refused before it.

mod error;
mod intake;
mod plan;
pub mod receive;
mod trace_store;

pub use error::IntakeError;
pub use intake::{Accepted, Intake, IntakeParts, IntakeSettings, StartedTrace, Submission};
pub use receive::admission::{InFlightBytes, Reservation};
pub use receive::{MLFLOW_VERSION, grpc_service, http_router, mlflow_trace_json};
pub use trace_store::{FoundTrace, TraceStore, TraceStoreError};
