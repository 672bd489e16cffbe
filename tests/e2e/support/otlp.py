"""OTLP as senders send it: protobuf and JSON over HTTP, protobuf over gRPC, each compression."""

from __future__ import annotations

import base64
import gzip
import json
import zlib

import grpc
import requests
import zstandard
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as service_grpc

ExportTraceServiceRequest = service.ExportTraceServiceRequest
ExportTraceServiceResponse = service.ExportTraceServiceResponse

PROTOBUF = "application/x-protobuf"
JSON = "application/json"

COMPRESS = {
    "identity": lambda body: body,
    "gzip": lambda body: gzip.compress(body, 1),
    "deflate": lambda body: zlib.compress(body, 1),
    "zstd": lambda body: zstandard.ZstdCompressor(level=1).compress(body),
}


def to_json(request: ExportTraceServiceRequest) -> bytes:
    """OTLP/JSON: protobuf's JSON form, but ids as hex and enums as numbers."""
    document = json_format.MessageToDict(request, use_integers_for_enums=True)
    for resource_spans in document.get("resourceSpans", ()):
        for scope_spans in resource_spans.get("scopeSpans", ()):
            for span in scope_spans.get("spans", ()):
                ids_to_hex(span, "traceId", "spanId", "parentSpanId")
                for link in span.get("links", ()):
                    ids_to_hex(link, "traceId", "spanId")
    return json.dumps(document, ensure_ascii=False).encode()


def ids_to_hex(record: dict, *keys: str) -> None:
    """Replaces base64 by lower-case hex in place."""
    for key in keys:
        if key in record:
            record[key] = base64.b64decode(record[key]).hex()


def encode(request: ExportTraceServiceRequest, content_type: str) -> bytes:
    """The body of a request in the given encoding."""
    return to_json(request) if content_type == JSON else request.SerializeToString()


def post_bytes(
    url: str,
    body: bytes,
    content_type: str | None = PROTOBUF,
    encoding: str = "identity",
    headers: dict[str, str] | None = None,
    session: requests.Session | None = None,
    timeout: float = 60,
) -> requests.Response:
    """POSTs a body that is already encoded, compressing it as asked."""
    sent = dict(headers or {})
    if content_type is not None:
        sent["content-type"] = content_type
    if encoding != "identity":
        sent["content-encoding"] = encoding
    poster = session or requests
    return poster.post(
        f"{url}/v1/traces", data=COMPRESS[encoding](body), headers=sent, timeout=timeout
    )


def post(
    url: str,
    request: ExportTraceServiceRequest,
    content_type: str = PROTOBUF,
    encoding: str = "identity",
    **options,
) -> ExportTraceServiceResponse:
    """POSTs spans that must be taken in; gives the answer."""
    answer = post_bytes(url, encode(request, content_type), content_type, encoding, **options)
    assert answer.status_code == 200, f"{answer.status_code} {answer.text[:500]}"
    return read_answer(answer)


def read_answer(answer: requests.Response) -> ExportTraceServiceResponse:
    """The answer in the encoding of the request."""
    content_type = answer.headers.get("content-type", "").split(";")[0]
    if content_type == JSON:
        return json_format.Parse(answer.content or b"{}", ExportTraceServiceResponse())
    assert content_type == PROTOBUF, f"content type {content_type!r} of an answer"
    return ExportTraceServiceResponse.FromString(answer.content)


class GrpcClient:
    """One channel to the OTLP/gRPC port."""

    def __init__(self, address: str):
        self.channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.max_send_message_length", 256 * 1024 * 1024),
                ("grpc.enable_http_proxy", 0),
            ],
        )
        self.stub = service_grpc.TraceServiceStub(self.channel)

    def export(
        self,
        request: ExportTraceServiceRequest,
        compression: grpc.Compression | None = None,
        metadata: dict[str, str] | None = None,
        timeout: float = 60,
    ) -> ExportTraceServiceResponse:
        """One Export call; raises `grpc.RpcError` as the client library does."""
        return self.stub.Export(
            request,
            timeout=timeout,
            compression=compression,
            metadata=tuple((metadata or {}).items()),
        )

    def __enter__(self) -> GrpcClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()
