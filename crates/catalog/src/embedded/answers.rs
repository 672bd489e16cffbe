//! Answers as the official API has them: JSON without nulls, errors with a code and a subject.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tracing::error;

use crate::error::{CatalogError, CatalogErrorKind};
use crate::wire::{ErrorBody, ErrorDetail, Page};

/// A call's outcome on its way to the client.
pub(super) type Answer = Result<Response, Fault>;

/// A call that failed.
#[derive(Debug)]
pub(super) struct Fault(pub(super) CatalogError);

impl From<CatalogError> for Fault {
    fn from(error: CatalogError) -> Self {
        Self(error)
    }
}

pub(super) fn ok(value: impl Serialize) -> Answer {
    Ok(Json(value).into_response())
}

/// What the official server answers to a delete: an empty object.
pub(super) fn deleted() -> Answer {
    ok(json!({}))
}

pub(super) fn page<T: Serialize>(member: &str, page: Page<T>) -> Answer {
    let mut body = Map::new();
    body.insert(member.to_owned(), json!(page.items));
    if let Some(token) = page.next_page_token {
        body.insert("next_page_token".to_owned(), Value::String(token));
    }
    ok(body)
}

/// The official server's error body, with its codes.
pub(super) fn refusal(status: StatusCode, code: &str, message: String) -> Response {
    let details =
        vec![ErrorDetail { kind: "google.rpc.ErrorInfo".to_owned(), reason: code.to_owned() }];
    let body = ErrorBody { error_code: code.to_owned(), message, details };
    (status, Json(body)).into_response()
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let message = self.0.to_string();
        match self.0.kind() {
            CatalogErrorKind::NotFound => refusal(StatusCode::NOT_FOUND, "NOT_FOUND", message),
            CatalogErrorKind::AlreadyExists => {
                refusal(StatusCode::CONFLICT, taken_code(&self.0), message)
            }
            CatalogErrorKind::Invalid => {
                refusal(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", message)
            }
            CatalogErrorKind::Precondition => {
                refusal(StatusCode::BAD_REQUEST, "FAILED_PRECONDITION", message)
            }
            CatalogErrorKind::Unsupported => {
                refusal(StatusCode::NOT_IMPLEMENTED, "UNIMPLEMENTED", message)
            }
            CatalogErrorKind::Unavailable => {
                // The file's path and SQLite's words are for the operator, not for the client.
                error!(reason = %message, "unity catalog call failed");
                let message = "the catalog's file could not be used; see the service's log";
                refusal(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", message.to_owned())
            }
        }
    }
}

fn taken_code(error: &CatalogError) -> &'static str {
    match error {
        CatalogError::AlreadyExists { kind: "catalog", .. } => "CATALOG_ALREADY_EXISTS",
        CatalogError::AlreadyExists { kind: "schema", .. } => "SCHEMA_ALREADY_EXISTS",
        CatalogError::AlreadyExists { kind: "table", .. } => "TABLE_ALREADY_EXISTS",
        _ => "RESOURCE_ALREADY_EXISTS",
    }
}
