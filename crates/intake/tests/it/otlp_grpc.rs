//! gRPC over a real loopback port, with a client made of tonic and raw bytes.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Status};
use tracelake_decode::ContentEncoding;
use tracelake_decode::otlp::fields::{any, duration, retry_info, rpc_status};
use tracelake_intake::grpc_service;
use tracelake_model::Limits;

use crate::support::{Group, Harness, Setup, field, one_span, otlp, partial_success};

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

#[derive(Clone, Copy, Default)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// A server on a port of its own; it stops when this is dropped.
struct Served {
    client: tonic::client::Grpc<Channel>,
    address: String,
    _server: JoinSet<()>,
}

async fn serve(harness: &Harness) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let routes = grpc_service(Arc::clone(&harness.intake));
    let mut server = JoinSet::new();
    server.spawn(async move {
        let incoming = TcpListenerStream::new(listener);
        Server::builder().add_routes(routes).serve_with_incoming(incoming).await.unwrap();
    });
    let channel = Endpoint::from_shared(address.clone()).unwrap().connect().await.unwrap();
    Served { client: tonic::client::Grpc::new(channel), address, _server: server }
}

impl Served {
    async fn call(
        &mut self,
        path: &'static str,
        metadata: &[(&'static str, &str)],
        message: Bytes,
    ) -> Result<Bytes, Status> {
        self.client.ready().await.unwrap();
        let mut request = Request::new(message);
        for (key, value) in metadata {
            request.metadata_mut().insert(*key, value.parse().unwrap());
        }
        let path = PathAndQuery::from_static(path);
        Ok(self.client.unary(request, path, RawCodec).await?.into_inner())
    }

    async fn export(
        &mut self,
        metadata: &[(&'static str, &str)],
        message: Bytes,
    ) -> Result<Bytes, Status> {
        self.call(EXPORT, metadata, message).await
    }

    fn compressing(&self, encoding: CompressionEncoding) -> Self {
        Self {
            client: self.client.clone().send_compressed(encoding),
            address: self.address.clone(),
            _server: JoinSet::new(),
        }
    }
}

/// Scenario: a good span, plain, gzip and zstd, with experiment and run in the metadata.
/// Guarantees: an empty answer; the journal holds the message as it came over the wire.
#[tokio::test]
async fn keeps_messages_as_received() {
    let mut harness = Harness::new().await;
    harness.bound("bound", "a.b.c").await;
    let mut served = serve(&harness).await;
    let metadata = [("x-mlflow-experiment-id", "1"), ("x-mlflow-run-id", "r1")];
    assert!(served.export(&metadata, one_span()).await.unwrap().is_empty());
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let mut compressing = served.compressing(encoding);
        assert!(compressing.export(&metadata, one_span()).await.unwrap().is_empty());
    }
    let seen = harness.seen();
    let encodings: Vec<_> = seen.iter().map(|seen| seen.header.encoding).collect();
    let expected = [ContentEncoding::Identity, ContentEncoding::Gzip, ContentEncoding::Zstd];
    assert_eq!(encodings, expected);
    for seen in seen {
        assert_eq!((seen.spans(), seen.routes()), (1, vec![("1".into(), "a.b.c".into())]));
        assert_eq!(seen.header.run_id.as_deref(), Some("r1"));
    }
}

/// Scenario: a mixed request, an empty one, a broken one, an unknown method, experiments that do
/// not exist or are no number.
/// Guarantees: partial success is told; the codes are gRPC's; nothing refused is kept.
#[tokio::test]
async fn answers_with_the_codes_of_grpc() {
    let mut harness = Harness::new().await;
    let mut served = serve(&harness).await;
    let mixed = otlp(&[Group { attributes: &[], spans: &[(16, 1), (3, 2)] }]);
    let answer = served.export(&[], mixed).await.unwrap();
    assert_eq!(partial_success(&answer).unwrap().0, 1);
    assert_eq!(harness.seen().len(), 1);
    assert!(served.export(&[], Bytes::new()).await.unwrap().is_empty());

    let refused = served.export(&[], Bytes::from_static(b"\xff\xff")).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(field(refused.details(), rpc_status::CODE).number(), 3);
    let refused = served.call("/x.Y/Z", &[], one_span()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    for (id, code) in [("9", Code::NotFound), ("x", Code::InvalidArgument)] {
        let metadata = [("x-mlflow-experiment-id", id)];
        assert_eq!(served.export(&metadata, one_span()).await.unwrap_err().code(), code);
    }
    assert!(harness.seen().is_empty());
}

/// Scenario: a message over the limit, a bomb, an encoding that is not known.
/// Guarantees: `RESOURCE_EXHAUSTED` without `RetryInfo`, so that no sender repeats it;
/// `UNIMPLEMENTED` for the encoding.
#[tokio::test]
async fn refuses_what_is_too_large_for_good() {
    let limits =
        Limits { max_body_bytes: 100_000, max_decompressed_bytes: 200_000, ..Limits::default() };
    let mut harness = Harness::with(Setup { limits, ..Setup::default() }).await;
    let mut served = serve(&harness).await;
    let large = Bytes::from(vec![0; 100_001]);
    let refused = served.export(&[], large).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(!refused.details().windows(9).any(|bytes| bytes == b"RetryInfo"));
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let bomb = Bytes::from(vec![0; 300_000]);
        let refused = served.compressing(encoding).export(&[], bomb).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
    }
    let metadata = [("grpc-encoding", "snappy")];
    let refused = served.export(&metadata, one_span()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    assert!(refused.metadata().get("grpc-accept-encoding").is_some());
    assert!(harness.seen().is_empty());
}

/// Scenario: a journal over its budget, then a full disk.
/// Guarantees: `RESOURCE_EXHAUSTED` and `UNAVAILABLE`, both with `RetryInfo` and its delay.
#[tokio::test]
async fn tells_when_to_come_back() {
    let harness = Harness::with(Setup { budget_bytes: 200, ..Setup::default() }).await;
    let refused = serve(&harness).await.export(&[], one_span()).await.unwrap_err();
    assert_eq!((refused.code(), delay_seconds(&refused)), (Code::ResourceExhausted, 1));

    let harness = Harness::new().await;
    harness.disk_full.store(true, std::sync::atomic::Ordering::SeqCst);
    let refused = serve(&harness).await.export(&[], one_span()).await.unwrap_err();
    assert_eq!((refused.code(), delay_seconds(&refused)), (Code::Unavailable, 5));
}

fn delay_seconds(status: &Status) -> u64 {
    let any = field(status.details(), rpc_status::DETAILS).bytes();
    assert_eq!(field(any, any::TYPE_URL).bytes(), b"type.googleapis.com/google.rpc.RetryInfo");
    let retry_info = field(any, any::VALUE).bytes();
    field(field(retry_info, retry_info::RETRY_DELAY).bytes(), duration::SECONDS).number()
}

/// Scenario: frames that are cut, too long, doubled, compressed without saying how; no gRPC at all.
/// Guarantees: each is refused with a gRPC status, the last with 415.
#[tokio::test]
async fn refuses_broken_frames() {
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    let mut harness = Harness::new().await;
    let span = one_span();
    let frame = |flag: u8, length: usize, message: &[u8]| {
        let mut frame = vec![flag];
        frame.extend(u32::try_from(length).unwrap().to_be_bytes());
        frame.extend(message);
        frame
    };
    let good = frame(0, span.len(), &span);
    let cases = [
        (Vec::new(), "3"),
        (vec![0, 0], "3"),
        (frame(0, span.len() + 1, &span), "3"),
        (frame(0, usize::try_from(u32::MAX).unwrap(), &span), "3"),
        ([good.clone(), good.clone()].concat(), "3"),
        (frame(1, span.len(), &span), "3"),
        (frame(7, span.len(), &span), "3"),
    ];
    let service = grpc_service(Arc::clone(&harness.intake));
    let send = |content_type: &str, body: Vec<u8>| {
        let request = http::Request::post(EXPORT)
            .header("content-type", content_type)
            .body(axum::body::Body::from(body))
            .unwrap();
        service.clone().into_axum_router().oneshot(request)
    };
    for (body, code) in cases {
        let answer = send("application/grpc", body).await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), answer.headers()["grpc-status"].to_str().unwrap()),
            (200, code)
        );
    }
    assert_eq!(send("application/json", good.clone()).await.unwrap().status(), 415);
    assert!(harness.seen().is_empty());
    let answer = send("application/grpc+proto", good).await.unwrap();
    let collected = answer.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(harness.seen().len(), 1);
}
