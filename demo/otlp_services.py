"""Two services that share one trace: the first sends OTLP over HTTP, the second over gRPC."""

import sys

import requests
from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind

url, grpc_address, experiment_name = sys.argv[1:]
found = requests.get(
    f"{url}/api/2.0/mlflow/experiments/get-by-name",
    params={"experiment_name": experiment_name},
    timeout=10,
)
header = {"x-mlflow-experiment-id": found.json()["experiment"]["experiment_id"]}


def service(name: str, exporter) -> trace.Tracer:
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("demo", "1.0")


storefront = service("storefront", HttpExporter(f"{url}/v1/traces", headers=header))
stock = service("stock", GrpcExporter(grpc_address, insecure=True, headers=header))

carrier: dict[str, str] = {}
with storefront.start_as_current_span("POST /order", kind=SpanKind.SERVER):
    with storefront.start_as_current_span("reserve", kind=SpanKind.CLIENT):
        propagate.inject(carrier)
        with stock.start_as_current_span(
            "reserve", propagate.extract(carrier), kind=SpanKind.SERVER
        ) as span:
            span.set_attribute("item.count", 3)

print("    OTLP: 1 trace over two services, storefront by HTTP and stock by gRPC")
