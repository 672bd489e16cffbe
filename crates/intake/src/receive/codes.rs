//! What a client is told of an error: three small tables, one per protocol.

use std::time::Duration;

use http::StatusCode;
use tonic::Code;
use tracelake_decode::DecodeError;
use tracelake_journal::JournalError;
use tracelake_registry::{RegistryError, RegistryErrorKind};

use crate::error::IntakeError;

/// How long to wait after a failure of the disk.
const RETRY_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// What is wrong, seen from outside. Each protocol has a code for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The request is wrong. Sending it again cannot help.
    Invalid,
    /// What it names is there already.
    AlreadyExists,
    /// What it names is not there.
    NotFound,
    /// What it names is in the wrong state.
    InvalidState,
    /// Too large.
    TooLarge,
    /// A type or compression that is not known here.
    Unsupported,
    /// Come back later, the client sends too much.
    TooMuch,
    /// Come back later, the service cannot write now.
    Unavailable,
    /// A defect, or a state that an operator must mend.
    Internal,
}

/// Sorts an error.
pub(super) fn fault_of(error: &IntakeError) -> Fault {
    match error {
        IntakeError::UnsupportedType { .. } | IntakeError::UnsupportedEncoding { .. } => {
            Fault::Unsupported
        }
        IntakeError::BodyTooLarge { .. }
        | IntakeError::Unreadable(DecodeError::TooLarge { .. })
        | IntakeError::Journal(JournalError::RecordTooLarge { .. }) => Fault::TooLarge,
        IntakeError::BodyBroken { .. }
        | IntakeError::Framing { .. }
        | IntakeError::Unreadable(_)
        | IntakeError::AllRejected { .. }
        | IntakeError::InvalidExperiment { .. }
        | IntakeError::DeletedExperiment { .. }
        | IntakeError::TooManyExperiments { .. }
        | IntakeError::TooMuchSaid { .. }
        | IntakeError::InvalidParameter { .. } => Fault::Invalid,
        IntakeError::UnknownExperiment { .. } => Fault::NotFound,
        IntakeError::Overloaded { .. }
        | IntakeError::Journal(JournalError::OverBudget { .. } | JournalError::Busy { .. }) => {
            Fault::TooMuch
        }
        IntakeError::Journal(_) | IntakeError::Traces(_) | IntakeError::BrokenOff => {
            Fault::Unavailable
        }
        IntakeError::Registry(error) => registry_fault(error),
    }
}

fn registry_fault(error: &RegistryError) -> Fault {
    match error.kind() {
        RegistryErrorKind::NotFound => Fault::NotFound,
        RegistryErrorKind::AlreadyExists => Fault::AlreadyExists,
        RegistryErrorKind::InvalidParameter => Fault::Invalid,
        RegistryErrorKind::InvalidState => Fault::InvalidState,
        RegistryErrorKind::Busy => Fault::Unavailable,
        RegistryErrorKind::Internal => Fault::Internal,
    }
}

/// How long the client should wait before it sends the same again, if that can help.
pub(super) fn retry_after(error: &IntakeError) -> Option<Duration> {
    match (error, fault_of(error)) {
        (IntakeError::Overloaded { retry_after }, _) => Some(*retry_after),
        (_, Fault::TooMuch) => Some(Duration::from_secs(1)),
        (_, Fault::Unavailable) => Some(RETRY_AFTER_FAILURE),
        _ => None,
    }
}

impl Fault {
    /// HTTP. MLflow answers a wrong state with 500, and its clients expect that.
    pub(super) const fn http(self) -> StatusCode {
        match self {
            Self::Invalid | Self::AlreadyExists => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unsupported => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooMuch => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::InvalidState | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// MLflow's `error_code`.
    pub(super) const fn mlflow(self) -> &'static str {
        match self {
            Self::Invalid => "INVALID_PARAMETER_VALUE",
            Self::AlreadyExists => "RESOURCE_ALREADY_EXISTS",
            Self::NotFound => "RESOURCE_DOES_NOT_EXIST",
            Self::InvalidState => "INVALID_STATE",
            Self::TooLarge | Self::Unsupported => "BAD_REQUEST",
            Self::TooMuch => "RESOURCE_EXHAUSTED",
            Self::Unavailable => "TEMPORARILY_UNAVAILABLE",
            Self::Internal => "INTERNAL_ERROR",
        }
    }

    /// gRPC. A sender repeats `RESOURCE_EXHAUSTED` only when `RetryInfo` comes with it, so one
    /// code serves for too large and too much.
    pub(super) const fn grpc(self) -> Code {
        match self {
            Self::Invalid => Code::InvalidArgument,
            Self::AlreadyExists => Code::AlreadyExists,
            Self::NotFound => Code::NotFound,
            Self::InvalidState => Code::FailedPrecondition,
            Self::TooLarge | Self::TooMuch => Code::ResourceExhausted,
            Self::Unsupported => Code::Unimplemented,
            Self::Unavailable => Code::Unavailable,
            Self::Internal => Code::Internal,
        }
    }
}

/// What to tell the client in words. What only an operator can mend is logged, not told.
pub(super) fn message(error: &IntakeError) -> String {
    match fault_of(error) {
        Fault::Internal => {
            tracing::error!(error = error as &dyn std::error::Error, "request failed");
            "internal error, see the log of the service".to_owned()
        }
        Fault::Unavailable => {
            tracing::warn!(error = error as &dyn std::error::Error, "request refused");
            unavailable(error).to_owned()
        }
        Fault::Invalid
        | Fault::AlreadyExists
        | Fault::NotFound
        | Fault::InvalidState
        | Fault::TooLarge
        | Fault::Unsupported
        | Fault::TooMuch => error.to_string(),
    }
}

/// Says what is wrong without the names of files, which are nobody's business outside.
const fn unavailable(error: &IntakeError) -> &'static str {
    match error {
        IntakeError::Journal(JournalError::DiskFull { .. }) => {
            "the disk of the service is full, nothing was kept, try again later"
        }
        IntakeError::Traces(_) => "the table of the trace cannot be read now, try again later",
        IntakeError::Registry(_) => "the registry of the service is busy, try again later",
        _ => "the service cannot make requests durable now, try again later",
    }
}
