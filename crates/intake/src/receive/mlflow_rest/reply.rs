//! MLflow's answers: JSON objects, and errors with `error_code` and `message`.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use tracelake_registry::RegistryError;

use crate::error::IntakeError;
use crate::receive::codes;

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

impl IntoResponse for MlflowError {
    fn into_response(self) -> Response {
        let body = json!({"error_code": self.error_code, "message": self.message});
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
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (status, headers, body.to_string()).into_response()
}
