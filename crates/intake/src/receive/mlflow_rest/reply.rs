//! MLflow's answers: JSON objects, and errors with `error_code` and `message`.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use tracelake_decode::DecodeError;
use tracelake_registry::RegistryError;

use crate::error::IntakeError;
use crate::receive::codes;
use crate::trace_store::TraceStoreError;

/// The outcome of a call.
pub(super) type Reply = Result<Answer, MlflowError>;

/// The body of an answer, status 200.
#[derive(Debug)]
pub(super) struct Answer(pub(super) Value);

impl Answer {
    /// `{}`.
    pub(super) fn empty() -> Self {
        Self(json!({}))
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        json_response(StatusCode::OK, &self.0)
    }
}

/// An answer that is JSON text already, status 200.
#[derive(Debug)]
pub(super) struct JsonText(pub(super) String);

impl IntoResponse for JsonText {
    fn into_response(self) -> Response {
        text_response(StatusCode::OK, self.0)
    }
}

/// An error in MLflow's form.
#[derive(Debug)]
pub(super) struct MlflowError {
    status: StatusCode,
    error_code: &'static str,
    message: String,
    retry_after: Option<Duration>,
}

impl MlflowError {
    /// A parameter that is missing, or has another type or value than it must.
    pub(super) fn invalid(message: String) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            error_code: "INVALID_PARAMETER_VALUE",
            message,
            retry_after: None,
        }
    }

    /// What the call names is not there.
    pub(super) fn not_found(message: String) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            error_code: "RESOURCE_DOES_NOT_EXIST",
            message,
            retry_after: None,
        }
    }

    /// What the call would change is not to be changed.
    pub(super) fn permission_denied(message: String) -> Self {
        Self {
            status: StatusCode::FORBIDDEN,
            error_code: "PERMISSION_DENIED",
            message,
            retry_after: None,
        }
    }

    /// What the call would make is there already.
    pub(super) fn already_exists(message: String) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            error_code: "RESOURCE_ALREADY_EXISTS",
            message,
            retry_after: None,
        }
    }
}

impl From<IntakeError> for MlflowError {
    fn from(error: IntakeError) -> Self {
        let fault = codes::fault_of(&error);
        Self {
            status: fault.http(),
            error_code: fault.mlflow(),
            message: codes::message(&error),
            retry_after: codes::retry_after(&error),
        }
    }
}

impl From<RegistryError> for MlflowError {
    fn from(error: RegistryError) -> Self {
        IntakeError::from(error).into()
    }
}

impl From<TraceStoreError> for MlflowError {
    fn from(error: TraceStoreError) -> Self {
        IntakeError::from(error).into()
    }
}

impl From<DecodeError> for MlflowError {
    fn from(error: DecodeError) -> Self {
        IntakeError::from(error).into()
    }
}

impl IntoResponse for MlflowError {
    fn into_response(self) -> Response {
        // Clients show the message on a terminal, and it quotes what they were given.
        let message = tracelake_model::names::printable_lines(&self.message);
        let body = json!({"error_code": self.error_code, "message": message});
        let mut response = json_response(self.status, &body);
        if let Some(delay) = self.retry_after {
            let seconds = HeaderValue::from(delay.as_secs().max(1));
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}

/// The answer for a path that is not known.
pub(super) async fn endpoint_not_found(uri: http::Uri) -> Response {
    let message = format!("no endpoint `{}`", tracelake_model::names::printable(uri.path()));
    let body = json!({"error_code": "ENDPOINT_NOT_FOUND", "message": message});
    json_response(StatusCode::NOT_FOUND, &body)
}

/// The answer for a known path asked with another method.
pub(super) async fn method_not_allowed(method: http::Method) -> Response {
    let message = format!("method {method} is not allowed here");
    let body = json!({"error_code": "BAD_REQUEST", "message": message});
    json_response(StatusCode::METHOD_NOT_ALLOWED, &body)
}

fn json_response(status: StatusCode, body: &Value) -> Response {
    text_response(status, body.to_string())
}

fn text_response(status: StatusCode, body: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (status, headers, body).into_response()
}
