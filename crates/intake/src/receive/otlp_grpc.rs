//! OTLP over gRPC: `opentelemetry.proto.collector.trace.v1.TraceService/Export`.
//!
//! One unary call, so its framing (a flag, four bytes of length, the message) is read here and not
//! by tonic's codec: the message stays as received, compressed or not, for the journal, and is
//! decompressed once, by the same bounded code as over HTTP. The rest of gRPC is HTTP/2, which
//! tonic's server provides.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, Full};
use tonic::Status;
use tracelake_decode::{ContentEncoding, RecordKind};

use super::admission::drain;
use super::headers::Address;
use super::otlp_response::{export_response, status};
use super::{ReadBody, admit_and_read, codes, headers};
use crate::error::IntakeError;
use crate::intake::{Accepted, Intake, Submission};

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const ACCEPTED_ENCODINGS: HeaderValue = HeaderValue::from_static("identity,gzip,zstd,deflate");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
/// Bytes before the message: the compression flag and the length.
const FRAME_BYTES: usize = 5;

/// The gRPC service, for `tonic::transport::Server::add_routes`.
pub fn grpc_service(intake: Arc<Intake>) -> tonic::service::Routes {
    Router::new()
        .route(EXPORT, post(export))
        .fallback(unimplemented)
        .method_not_allowed_fallback(unimplemented)
        .with_state(intake)
        .into()
}

async fn unimplemented() -> Response {
    failure(Status::unimplemented("no such method"))
}

async fn export(State(intake): State<Arc<Intake>>, headers: HeaderMap, body: Body) -> Response {
    // HTTP clients that are not gRPC cannot read a gRPC status, so the protocol has 415 for them.
    if !headers::media_type(&headers).starts_with("application/grpc") {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
    }
    match take_in(&intake, &headers, body).await {
        Ok(accepted) => success(&accepted),
        Err(error) => {
            let code = codes::fault_of(&error).grpc();
            let message = codes::message(&error);
            let details = status(i32::from(code), &message, codes::retry_after(&error));
            failure(Status::with_details(code, message, details.into()))
        }
    }
}

async fn take_in(
    intake: &Intake,
    headers: &HeaderMap,
    body: Body,
) -> Result<Accepted, IntakeError> {
    let Address { encoding, experiment, run_id } = match headers::address(headers, &GRPC_ENCODING) {
        Ok(address) => address,
        Err(refused) => {
            drain(body).await;
            return Err(refused);
        }
    };
    let limit = intake.limits().max_body_bytes.saturating_add(FRAME_BYTES) as u64;
    let ReadBody { bytes, reservation } = admit_and_read(intake, headers, body, limit).await?;
    let (encoding, payload) = unframe(bytes, encoding)?;
    let accepted = intake
        .submit(Submission {
            kind: RecordKind::OtlpProtobuf,
            encoding,
            experiment,
            run_id,
            trace_id: None,
            payload,
        })
        .await?;
    drop(reservation);
    Ok(accepted)
}

/// Takes the one message out of its frame. The flag says whether `encoding` holds for it.
fn unframe(
    mut body: Bytes,
    encoding: ContentEncoding,
) -> Result<(ContentEncoding, Bytes), IntakeError> {
    let framing = |reason| IntakeError::Framing { reason };
    if body.len() < FRAME_BYTES {
        return Err(framing("the body is shorter than a frame"));
    }
    let encoding = match body.get_u8() {
        0 => ContentEncoding::Identity,
        1 if encoding.is_identity() => return Err(framing("compressed without grpc-encoding")),
        1 => encoding,
        _ => return Err(framing("unknown flags")),
    };
    let length = usize::try_from(body.get_u32()).unwrap_or(usize::MAX);
    if length != body.len() {
        return Err(framing("a call carries exactly one whole message"));
    }
    Ok((encoding, body))
}

fn success(accepted: &Accepted) -> Response {
    let message = export_response(accepted);
    let mut frame = Vec::with_capacity(FRAME_BYTES + message.len());
    frame.push(0);
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or_default().to_be_bytes());
    frame.extend_from_slice(&message);
    let trailers = HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from_static("0"))]);
    let body = Full::<Bytes>::new(frame.into()).with_trailers(async { Some(Ok(trailers)) });
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, GRPC);
    response.headers_mut().insert(GRPC_ACCEPT_ENCODING, ACCEPTED_ENCODINGS);
    response
}

fn failure(status: Status) -> Response {
    let mut response: Response<Body> = status.into_http();
    response.headers_mut().insert(GRPC_ACCEPT_ENCODING, ACCEPTED_ENCODINGS);
    response
}
