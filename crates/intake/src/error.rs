//! Why a request was refused. What a client is told of it stands in `receive::codes`.

use std::time::Duration;

use tracelake_decode::DecodeError;
use tracelake_journal::JournalError;
use tracelake_model::ExperimentId;
use tracelake_registry::RegistryError;

use crate::trace_store::TraceStoreError;

/// Why a request was refused. After any of these nothing of it counts as acknowledged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IntakeError {
    /// The body is of a type that the endpoint does not take.
    #[error("content type `{content_type}` is not supported, expected {expected}")]
    UnsupportedType {
        /// What the client sent, shortened and escaped.
        content_type: String,
        /// What the endpoint takes.
        expected: &'static str,
    },
    /// The body is compressed in a way that the endpoint does not know.
    #[error(
        "content encoding `{encoding}` is not supported, expected gzip, deflate, zstd or identity"
    )]
    UnsupportedEncoding {
        /// What the client sent, shortened and escaped.
        encoding: String,
    },
    /// The body is longer than the limit. Split it.
    #[error("the request body is larger than {limit_bytes} bytes")]
    BodyTooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// The connection ended before the body did.
    #[error("the request body broke off after {received_bytes} bytes")]
    BodyBroken {
        /// Bytes that came.
        received_bytes: u64,
    },
    /// The framing around the message is wrong.
    #[error("grpc framing: {reason}")]
    Framing {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The body as a whole cannot be read.
    #[error("the request cannot be read: {0}")]
    Unreadable(#[from] DecodeError),
    /// Nothing in the body can be kept, and the call has no way to say so but to fail.
    #[error("{message}")]
    AllRejected {
        /// The first reasons.
        message: String,
    },
    /// An experiment id that is no number.
    #[error("Invalid experiment ID '{id}'. Experiment ID must be a valid integer.")]
    InvalidExperiment {
        /// What the client sent, shortened and escaped.
        id: String,
    },
    /// The experiment named by header, path or body does not exist.
    #[error("No Experiment with id={id} exists")]
    UnknownExperiment {
        /// The id.
        id: ExperimentId,
    },
    /// The experiment named by header, path or body is deleted. Restore it first.
    #[error("The experiment {id} must be in the 'active' state. Current state is deleted.")]
    DeletedExperiment {
        /// The id.
        id: ExperimentId,
    },
    /// More experiments in one request than are looked up for one.
    #[error("the request names more than {limit} experiments")]
    TooManyExperiments {
        /// The limit.
        limit: usize,
    },
    /// A `start_trace` that says more than a trace may: shorten its tags, metadata or assessments.
    #[error("a trace may have at most {limit}")]
    TooMuchSaid {
        /// Of what it has too much.
        limit: String,
    },
    /// A header, path parameter or member of the body has a value that cannot be taken.
    #[error("Invalid value \"{value}\" for parameter '{parameter}' supplied.")]
    InvalidParameter {
        /// Its name.
        parameter: &'static str,
        /// What the client sent, shortened and escaped.
        value: String,
    },
    /// Too much is in work or waits. Come back later.
    #[error("too much waits, try again in {} s", retry_after.as_secs().max(1))]
    Overloaded {
        /// When to come back.
        retry_after: Duration,
    },
    /// The journal could not make the request durable.
    #[error("the request could not be made durable: {0}")]
    Journal(#[from] JournalError),
    /// The registry could not say where the request belongs.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The traces could not be asked for the one that the call is about.
    #[error("the traces cannot be read: {0}")]
    Traces(#[from] TraceStoreError),
    /// The work on the request was broken off, at shutdown or by a defect.
    #[error("the work on the request was broken off")]
    BrokenOff,
}
