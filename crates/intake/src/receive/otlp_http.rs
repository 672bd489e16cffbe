//! OTLP over HTTP: `POST /v1/traces`, as protobuf or JSON, answered in the same.
//!
//! Status codes as the OTLP specification has them: 200 also when some or all spans are refused
//! (partial success), 400 for a body that cannot be read at all, 413, 415, 429 and 503 with
//! `Retry-After`. Beyond MLflow, the experiment header may be left out.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::json;
use tracelake_decode::RecordKind;

use super::admission::drain;
use super::headers::Address;
use super::otlp_response::{export_response, export_response_json, status};
use super::{ReadBody, admit_and_read, codes, headers};
use crate::error::IntakeError;
use crate::intake::{Accepted, Intake, Submission};

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const ENCODINGS: HeaderValue = HeaderValue::from_static("gzip, deflate, zstd, identity");

pub(super) fn router() -> Router<Arc<Intake>> {
    Router::new()
        .route("/v1/traces", post(export_traces))
        // Where Databricks has it; senders configured for that only change the host.
        .route("/api/2.0/otel/v1/traces", post(export_traces))
}

/// The encoding of request and answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Protobuf,
    Json,
}

impl Format {
    fn of(headers: &HeaderMap) -> Result<Self, IntakeError> {
        let media_type = headers::media_type(headers);
        match media_type.as_str() {
            "application/x-protobuf" | "application/protobuf" => Ok(Self::Protobuf),
            "application/json" => Ok(Self::Json),
            _ => Err(IntakeError::UnsupportedType {
                content_type: tracelake_model::names::printable(&media_type),
                expected: "application/x-protobuf or application/json",
            }),
        }
    }

    const fn kind(self) -> RecordKind {
        match self {
            Self::Protobuf => RecordKind::OtlpProtobuf,
            Self::Json => RecordKind::OtlpJson,
        }
    }
}

async fn export_traces(
    State(intake): State<Arc<Intake>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    match Format::of(&headers) {
        Ok(format) => match export(&intake, format, &headers, body).await {
            Ok(accepted) => success(format, &accepted),
            Err(error) => failure(format, &error),
        },
        Err(error) => {
            drain(body).await;
            failure(Format::Json, &error)
        }
    }
}

async fn export(
    intake: &Intake,
    format: Format,
    headers: &HeaderMap,
    body: Body,
) -> Result<Accepted, IntakeError> {
    let Address { encoding, experiment, run_id } =
        match headers::address(headers, &header::CONTENT_ENCODING) {
            Ok(address) => address,
            Err(refused) => {
                drain(body).await;
                return Err(refused);
            }
        };
    let limit = intake.limits().max_body_bytes as u64;
    let ReadBody { bytes, reservation } = admit_and_read(intake, headers, body, limit).await?;
    let accepted = intake
        .submit(Submission {
            kind: format.kind(),
            encoding,
            experiment,
            run_id,
            trace_id: None,
            payload: bytes,
        })
        .await?;
    drop(reservation);
    Ok(accepted)
}

fn success(format: Format, accepted: &Accepted) -> Response {
    match format {
        Format::Protobuf => {
            ([(header::CONTENT_TYPE, PROTOBUF)], export_response(accepted)).into_response()
        }
        Format::Json => {
            let body = export_response_json(accepted).to_string();
            ([(header::CONTENT_TYPE, JSON)], body).into_response()
        }
    }
}

fn failure(format: Format, error: &IntakeError) -> Response {
    let fault = codes::fault_of(error);
    let code = i32::from(fault.grpc());
    let message = codes::message(error);
    let retry_after = codes::retry_after(error);
    let mut response = match format {
        Format::Protobuf => {
            ([(header::CONTENT_TYPE, PROTOBUF)], status(code, &message, None)).into_response()
        }
        Format::Json => {
            let body = json!({"code": code, "message": message, "error_code": fault.mlflow()});
            ([(header::CONTENT_TYPE, JSON)], body.to_string()).into_response()
        }
    };
    *response.status_mut() = fault.http();
    if fault.http() == StatusCode::UNSUPPORTED_MEDIA_TYPE {
        response.headers_mut().insert(header::ACCEPT_ENCODING, ENCODINGS);
    }
    if let Some(delay) = retry_after {
        let seconds = HeaderValue::from(delay.as_secs().max(1));
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}
