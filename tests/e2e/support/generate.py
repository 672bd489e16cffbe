"""Traces made up for the tests: difficult ones, and many plain ones. Seeded, so a failure repeats."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator

from opentelemetry.proto.common.v1 import common_pb2 as common
from opentelemetry.proto.trace.v1 import trace_pb2

from support.otlp import ExportTraceServiceRequest

# Fixed, and not a whole microsecond: Delta timestamps hold microseconds, OTLP nanoseconds.
BASE_NS = 1_795_000_000_123_456_789
MS = 1_000_000

WORDS = (
    "agent answer archive budget cache call chain chunk city claim context cost customer data date "
    "delay demand draft embed entry error event fact failure field find flight graph guide index "
    "input item join label ledger level limit list measure memory message model node note offer "
    "order page parse path plan policy price prompt query rank reason record refund region reply "
    "report result retry route rule sample schema score search service session signal source span "
    "state step store summary table task ticket token tool topic total trace train tree update user "
    "value vector version window word zone"
).split()


def any_value(value: object) -> common.AnyValue:
    """A Python value as AnyValue; `None` is the value that is not set."""
    match value:
        case None:
            return common.AnyValue()
        case bool():
            return common.AnyValue(bool_value=value)
        case int():
            return common.AnyValue(int_value=value)
        case float():
            return common.AnyValue(double_value=value)
        case str():
            return common.AnyValue(string_value=value)
        case bytes():
            return common.AnyValue(bytes_value=value)
        case list():
            return common.AnyValue(
                array_value=common.ArrayValue(values=[any_value(v) for v in value])
            )
        case dict():
            return common.AnyValue(kvlist_value=common.KeyValueList(values=attributes(value)))
    raise TypeError(type(value))


def attributes(values: dict[str, object]) -> list[common.KeyValue]:
    """Attributes in the order of the dictionary."""
    return [common.KeyValue(key=key, value=any_value(value)) for key, value in values.items()]


class Maker:
    """Makes ids and spans from one seed."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)

    def trace_id(self) -> bytes:
        return self.random.randbytes(16)

    def span_id(self) -> bytes:
        return self.random.randbytes(8)

    def text(self, size: int) -> str:
        """Words, about as compressible as prose."""
        words = self.random.choices(WORDS, k=size // 5 + 1)
        return " ".join(words)[:size]

    def span(
        self, trace_id: bytes, name: str = "step", start: int = 0, length: int = 5 * MS, **fields
    ) -> trace_pb2.Span:
        """A finished span; `start` counts from `BASE_NS`. `attributes` may be a dictionary."""
        if isinstance(fields.get("attributes"), dict):
            fields["attributes"] = attributes(fields["attributes"])
        fields.setdefault("span_id", self.span_id())
        fields.setdefault("kind", trace_pb2.Span.SPAN_KIND_INTERNAL)
        fields.setdefault("start_time_unix_nano", BASE_NS + start)
        fields.setdefault("end_time_unix_nano", BASE_NS + start + length)
        return trace_pb2.Span(trace_id=trace_id, name=name, **fields)


def request(
    *spans: trace_pb2.Span, service: str = "checkout", **resource: object
) -> ExportTraceServiceRequest:
    """One request with one resource and one scope."""
    return ExportTraceServiceRequest(resource_spans=[group(*spans, service=service, **resource)])


def group(
    *spans: trace_pb2.Span, service: str = "checkout", **resource: object
) -> trace_pb2.ResourceSpans:
    """Spans under one resource and one scope."""
    grouped = trace_pb2.ResourceSpans()
    grouped.resource.attributes.extend(attributes({"service.name": service, **resource}))
    scope = grouped.scope_spans.add()
    scope.scope.name, scope.scope.version = "e2e", "1.0"
    scope.spans.extend(spans)
    return grouped


def status_error(message: str = "it broke") -> trace_pb2.Status:
    """The status of a failed span."""
    return trace_pb2.Status(code=trace_pb2.Status.STATUS_CODE_ERROR, message=message)


def every_value_type(make: Maker) -> list[ExportTraceServiceRequest]:
    """Each AnyValue type, with the values at which conversions break."""
    deep: object = "bottom"
    for level in range(7):
        deep = {f"level{level}": deep, "list": [level, str(level), None]}
    span = make.span(
        make.trace_id(),
        attributes={
            "string": "plain",
            "string.empty": "",
            "string.json": '{"a": [1, 2, "\\ud83d\\udca1"]}',
            "string.number": "00123",
            "string.quoted": '"already quoted"',
            "string.unicode": "\U0001f4a1 \u00fc \u4e2d \u202e",
            "string.control": "a\x00b\x1b[31m\r\n\t",
            "bool.true": True,
            "bool.false": False,
            "int.max": 2**63 - 1,
            "int.min": -(2**63),
            "int.above.f64": 2**53 + 1,
            "int.zero": 0,
            "double.nan": float("nan"),
            "double.inf": float("inf"),
            "double.negative.inf": float("-inf"),
            "double.negative.zero": -0.0,
            "double.denormal": 5e-324,
            "double.whole": 3.0,
            "double.long": 0.1 + 0.2,
            "bytes": bytes(range(256)),
            "bytes.empty": b"",
            "unset": None,
            "array.empty": [],
            "array.mixed": [1, 1.0, "1", True, None, b"\xff", [], {}],
            "map.empty": {},
            "deep": deep,
            "": "empty key",
        },
    )
    return [
        request(span, **{"resource.int": 7, "resource.list": ["a", 1], "resource.bytes": b"\x00"})
    ]


def shared_ids(make: Maker) -> list[ExportTraceServiceRequest]:
    """Zipkin's way: client and server span under one id, in two services; and an exact copy."""
    trace_id, root, call = make.trace_id(), make.span_id(), make.span_id()
    client = make.span(trace_id, "get /items", 1 * MS, parent_span_id=root, span_id=call, kind=3)
    server = make.span(trace_id, "get /items", 2 * MS, parent_span_id=root, span_id=call, kind=2)
    first = request(
        make.span(trace_id, "page", span_id=root, length=20 * MS), client, service="front"
    )
    second = request(server, service="items")
    return [first, second, second]


def three_resources(make: Maker) -> list[ExportTraceServiceRequest]:
    """One request, one trace, three resources and scopes; what MLflow's own archive refuses."""
    trace_id = make.trace_id()
    plain = group(make.span(trace_id, "root", length=30 * MS), service="front")
    rich = group(make.span(trace_id, "rich"), service="items", **{"host.id": "h1"})
    rich.schema_url = "https://opentelemetry.io/schemas/1.30.0"
    rich.resource.dropped_attributes_count = 3
    rich.scope_spans[0].schema_url = "https://opentelemetry.io/schemas/1.31.0"
    rich.scope_spans[0].scope.attributes.extend(
        attributes({"library": {"language": "rust", "n": 1}})
    )
    rich.scope_spans[0].scope.dropped_attributes_count = 2
    bare = trace_pb2.ResourceSpans()
    bare.scope_spans.add().spans.append(make.span(trace_id, "no resource, no scope"))
    return [ExportTraceServiceRequest(resource_spans=[plain, rich, bare])]


def rootless(make: Maker) -> list[ExportTraceServiceRequest]:
    """Only children arrive, and their parents are not among them."""
    trace_id = make.trace_id()
    return [
        request(
            make.span(trace_id, "orphan", parent_span_id=make.span_id()),
            make.span(
                trace_id, "orphan too", 3 * MS, parent_span_id=make.span_id(), status=status_error()
            ),
        )
    ]


def many_roots(make: Maker) -> list[ExportTraceServiceRequest]:
    """Three spans without a parent, the earliest not first; one parent of eight zero bytes."""
    trace_id = make.trace_id()
    return [
        request(
            make.span(trace_id, "second", 9 * MS),
            make.span(trace_id, "first", 1 * MS),
            make.span(trace_id, "third", 12 * MS, status=status_error("late root")),
        )
    ]


def odd_times(make: Maker) -> list[ExportTraceServiceRequest]:
    """Times that are zero, reversed, equal, or outside their parent's."""
    trace_id, root = make.trace_id(), make.span_id()

    def child(name: str, start: int, end: int) -> trace_pb2.Span:
        times = {"start_time_unix_nano": start, "end_time_unix_nano": end}
        return make.span(trace_id, name, parent_span_id=root, **times)

    return [
        request(
            make.span(trace_id, "root", span_id=root, length=10 * MS),
            child("no start", 0, BASE_NS + 5),
            child("never ended", BASE_NS + 7, 0),
            child("no times", 0, 0),
            child("ends before it starts", BASE_NS + 9 * MS, BASE_NS + 8 * MS),
            child("takes no time", BASE_NS + 11, BASE_NS + 11),
            child("outlives its parent", BASE_NS + 1, BASE_NS + 60_000 * MS),
        )
    ]


def events_and_links(make: Maker) -> list[ExportTraceServiceRequest]:
    """Everything that a span can carry beside attributes, each field set."""
    trace_id = make.trace_id()
    span = make.span(
        trace_id,
        "",
        trace_state="vendor=1,other=a:b",
        flags=0x301,
        dropped_attributes_count=4,
        dropped_events_count=5,
        dropped_links_count=6,
        status=trace_pb2.Status(code=1, message="kept although ok"),
        attributes={"mlflow.spanType": '"TOOL"'},
    )
    span.events.add(
        time_unix_nano=BASE_NS + 1, name="exception", dropped_attributes_count=1
    ).attributes.extend(
        attributes(
            {"exception.type": "ValueError", "exception.message": "no", "n": 1, "list": [1, "x"]}
        )
    )
    span.events.add(time_unix_nano=BASE_NS + 1, name="exception")
    span.events.add(time_unix_nano=0, name="")
    span.links.add(
        trace_id=make.trace_id(),
        span_id=make.span_id(),
        trace_state="a=b",
        flags=1,
        dropped_attributes_count=2,
    ).attributes.extend(attributes({"why": "follows", "map": {"a": [None]}}))
    span.links.add(trace_id=trace_id, span_id=span.span_id)
    kinds = [
        make.span(trace_id, f"kind {kind}", kind * MS, kind=kind, parent_span_id=span.span_id)
        for kind in range(6)
    ]
    return [request(span, *kinds)]


def in_three_parts(make: Maker) -> list[ExportTraceServiceRequest]:
    """One trace over three requests, the root in the last."""
    trace_id, root = make.trace_id(), make.span_id()
    return [
        request(make.span(trace_id, "leaf", 2 * MS, parent_span_id=root)),
        request(make.span(trace_id, "leaf", 4 * MS, parent_span_id=root), service="items"),
        request(make.span(trace_id, "root", span_id=root, length=50 * MS)),
    ]


def large(make: Maker) -> list[ExportTraceServiceRequest]:
    """A value of 300 KB, a span with 143 attributes, a trace with 300 spans."""
    trace_id, root = make.trace_id(), make.span_id()
    wide = {f"llm.input_messages.{n}.message.content": make.text(40) for n in range(143)}
    spans = [make.span(trace_id, f"s{n}", n * MS, parent_span_id=root) for n in range(298)]
    return [
        request(
            make.span(
                trace_id, "root", span_id=root, attributes={"input.value": make.text(300_000)}
            ),
            make.span(trace_id, "wide", parent_span_id=root, attributes=wide),
            *spans,
        )
    ]


def conventions(make: Maker) -> list[ExportTraceServiceRequest]:
    """Spans whose inputs and outputs are lifted into columns; nothing of them may be lost."""
    trace_id, root = make.trace_id(), make.span_id()

    def llm(name: str, **values: object) -> trace_pb2.Span:
        return make.span(trace_id, name, parent_span_id=root, attributes=values)

    return [
        request(
            make.span(
                trace_id,
                "root",
                span_id=root,
                attributes={
                    "mlflow.spanInputs": '{"q": "caf\\u00e9"}',
                    "mlflow.spanOutputs": '"text"',
                    "mlflow.spanType": '"AGENT"',
                    "session.id": "s-1",
                    "user.id": "u-1",
                },
            ),
            llm("openinference", **{
                "openinference.span.kind": "LLM", "input.value": "hi", "output.value": '{"a":1}',
                "llm.model_name": "m", "llm.token_count.prompt": 3, "llm.token_count.completion": "4",
            }),
            llm("genai", **{
                "gen_ai.operation.name": "chat", "gen_ai.request.model": "m2",
                "gen_ai.input.messages": [{"role": "user", "parts": [{"content": "x"}]}],
                "gen_ai.output.messages": "[]", "gen_ai.usage.input_tokens": 5, "gen_ai.usage.output_tokens": 6,
            }),
            llm("vercel", **{"ai.operationId": "ai.toolCall", "ai.toolCall.args": "{}", "ai.toolCall.result": 1.5}),
        )
    ]  # fmt: skip


def small_ids(make: Maker) -> list[ExportTraceServiceRequest]:
    """A 64-bit trace id, its low half also the root's span id, and a span named as its parent."""
    low = make.span_id()
    trace_id = bytes(8) + low
    return [
        request(
            make.span(trace_id, "root", span_id=low),
            make.span(trace_id, "child", parent_span_id=low),
            make.span(trace_id, "own parent", span_id=b"\x01" * 8, parent_span_id=b"\x01" * 8),
        )
    ]


TRICKY: dict[str, Callable[[Maker], list[ExportTraceServiceRequest]]] = {
    case.__name__: case
    for case in (
        every_value_type, shared_ids, three_resources, rootless, many_roots, odd_times,
        events_and_links, in_three_parts, large, conventions, small_ids,
    )
}  # fmt: skip


def tricky(seed: int = 7) -> list[tuple[str, ExportTraceServiceRequest]]:
    """All the difficult traces as (name, request), in sending order."""
    make = Maker(seed)
    return [(name, body) for name, case in TRICKY.items() for body in case(make)]


def random_value(make: Maker, depth: int = 0) -> object:
    """Any attribute value, containers thinning out with depth."""
    pick = make.random
    kinds = ["text", "int", "float", "bool", "bytes", "none"] + (
        ["list", "dict"] if depth < 4 else []
    )
    match pick.choice(kinds):
        case "text":
            return "".join(
                chr(
                    pick.choice(
                        (
                            pick.randrange(32, 127),
                            pick.randrange(0xA0, 0xD7FF),
                            pick.randrange(0x10000, 0x1FFFF),
                        )
                    )
                )
                for _ in range(pick.randrange(12))
            )
        case "int":
            return pick.randrange(-(2**63), 2**63) >> pick.randrange(64)
        case "float":
            return pick.choice(
                (
                    pick.uniform(-1e6, 1e6),
                    float(pick.randrange(100)),
                    10.0 ** pick.randrange(-300, 300),
                )
            )
        case "bool":
            return pick.random() < 0.5
        case "bytes":
            return pick.randbytes(pick.randrange(20))
        case "list":
            return [random_value(make, depth + 1) for _ in range(pick.randrange(4))]
        case "dict":
            return {f"k{n}": random_value(make, depth + 1) for n in range(pick.randrange(4))}
    return None


def random_traces(seed: int, count: int) -> list[ExportTraceServiceRequest]:
    """Traces with random trees, values, events, links, resources; one request each."""
    make = Maker(seed)
    keys = (
        "a",
        "input.value",
        "output.value",
        "mlflow.spanInputs",
        "gen_ai.request.model",
        "session.id",
        "x.y",
        "llm.model_name",
        "gen_ai.usage.input_tokens",
        "gen_ai.input.messages",
    )

    def some(limit: int = 6) -> dict[str, object]:
        return {
            key: random_value(make)
            for key in make.random.sample(keys, make.random.randrange(limit))
        }

    bodies = []
    for _ in range(count):
        trace_id, ids, groups = make.trace_id(), [], []
        for number in range(make.random.randrange(1, 4)):
            spans = []
            for _ in range(make.random.randrange(1, 6)):
                span = make.span(
                    trace_id,
                    make.text(12),
                    make.random.randrange(10**9),
                    make.random.randrange(10**8),
                    parent_span_id=make.random.choice(ids) if ids else b"",
                    kind=make.random.randrange(6),
                    attributes=some(),
                    flags=make.random.choice((0, 1, 0x100)),
                    status=trace_pb2.Status(code=make.random.choice((0, 1, 2))),
                )
                for _ in range(make.random.randrange(3)):
                    span.events.add(time_unix_nano=BASE_NS, name="e").attributes.extend(
                        attributes(some(3))
                    )
                if make.random.random() < 0.2:
                    link = span.links.add(trace_id=make.trace_id(), span_id=make.span_id())
                    link.attributes.extend(attributes(some(3)))
                ids.append(span.span_id)
                spans.append(span)
            groups.append(group(*spans, service=f"service-{number}", extra=random_value(make)))
        bodies.append(ExportTraceServiceRequest(resource_spans=groups))
    return bodies


def bulk(
    count: int, per_request: int, payload_bytes: int, error_every: int, seed: int = 1
) -> Iterator[ExportTraceServiceRequest]:
    """Many plain traces: a root and an LLM call that share `payload_bytes` of text, some failed."""
    make = Maker(seed)
    now = time.time_ns()
    for first in range(0, count, per_request):
        body = trace_pb2.ResourceSpans()
        body.resource.attributes.extend(attributes({"service.name": "bulk"}))
        scope = body.scope_spans.add()
        for number in range(first, min(first + per_request, count)):
            trace_id, root = make.trace_id(), make.span_id()
            start = {
                "start_time_unix_nano": now + number,
                "end_time_unix_nano": now + number + 9 * MS,
            }
            failed = {"status": status_error()} if number % error_every == 0 else {}
            scope.spans.append(make.span(trace_id, "agent", span_id=root, **start, **failed))
            scope.spans.append(
                make.span(
                    trace_id,
                    "llm",
                    parent_span_id=root,
                    attributes={
                        "mlflow.spanInputs": make.text(payload_bytes // 2),
                        "mlflow.spanOutputs": make.text(payload_bytes // 2),
                        "mlflow.spanType": '"LLM"',
                    },
                    **start,
                )
            )
        yield ExportTraceServiceRequest(resource_spans=[body])
