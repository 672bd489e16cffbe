"""What the table must hold for the requests that were sent, computed from the requests alone."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf import json_format
from google.protobuf.internal.decoder import _DecodeVarint32
from opentelemetry.proto.common.v1 import common_pb2 as common
from opentelemetry.proto.trace.v1 import trace_pb2

from support.otlp import ExportTraceServiceRequest

ERROR = trace_pb2.Status.STATUS_CODE_ERROR


@dataclass(frozen=True)
class Record:
    """One span as sent, with the resource and scope that it was sent under."""

    content: bytes
    """Canonical bytes: equal exactly when two records mean the same."""

    @property
    def resource_spans(self) -> trace_pb2.ResourceSpans:
        return trace_pb2.ResourceSpans.FromString(self.content)

    @property
    def span(self) -> trace_pb2.Span:
        return self.resource_spans.scope_spans[0].spans[0]

    def text(self) -> str:
        """For a person who compares two records."""
        return json.dumps(
            json_format.MessageToDict(self.resource_spans), indent=1, ensure_ascii=False
        )


def records(request: ExportTraceServiceRequest) -> Iterator[Record]:
    """Each span of a request, in the order sent."""
    for resource_spans in request.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield canonical(resource_spans, scope_spans, span)


def canonical(
    resource_spans: trace_pb2.ResourceSpans, scope_spans: trace_pb2.ScopeSpans, span: trace_pb2.Span
) -> Record:
    """One span alone in its resource and scope, absent messages spelled as empty ones.

    The order of attributes is kept. An absent resource, scope, status or value and an empty one
    mean the same in OTLP, so both become the empty message.
    """
    alone = trace_pb2.ResourceSpans(schema_url=resource_spans.schema_url)
    alone.resource.CopyFrom(resource_spans.resource)
    scope = alone.scope_spans.add(schema_url=scope_spans.schema_url)
    scope.scope.CopyFrom(scope_spans.scope)
    copy = scope.spans.add()
    copy.CopyFrom(span)
    copy.status.SetInParent()
    fill_values(alone.resource.attributes)
    fill_values(scope.scope.attributes)
    fill_values(copy.attributes)
    for event in copy.events:
        fill_values(event.attributes)
    for link in copy.links:
        fill_values(link.attributes)
    return Record(alone.SerializeToString(deterministic=True))


def fill_values(attributes: Iterable[common.KeyValue]) -> None:
    """An attribute without a value becomes one with the empty value, at any depth."""
    for attribute in attributes:
        attribute.value.SetInParent()
        fill_value(attribute.value)


def fill_value(value: common.AnyValue) -> None:
    """See `fill_values`."""
    kind = value.WhichOneof("value")
    if kind == "kvlist_value":
        fill_values(value.kvlist_value.values)
    elif kind == "array_value":
        for item in value.array_value.values:
            fill_value(item)


@dataclass
class TraceTruth:
    """One trace: every record sent, and those to keep after removing identical copies."""

    trace_id: str
    sent: list[Record] = field(default_factory=list)

    @property
    def kept(self) -> list[Record]:
        return list(dict.fromkeys(self.sent))

    def facts(self, of: list[Record] | None = None) -> dict[str, int]:
        """Counts and sums over the kept records, or those given."""
        spans = [record.span for record in (self.kept if of is None else of)]
        return {
            "span_count": len(spans),
            "unique_span_ids": len({span.span_id for span in spans}),
            "error_span_count": sum(span.status.code == ERROR for span in spans),
            "sum_duration_ns": sum(
                span.end_time_unix_nano - span.start_time_unix_nano for span in spans
            ),
            "min_start_ns": min(span.start_time_unix_nano for span in spans),
            "max_end_ns": max(span.end_time_unix_nano for span in spans),
            "event_count": sum(len(span.events) for span in spans),
            "link_count": sum(len(span.links) for span in spans),
            "attribute_count": sum(len(span.attributes) for span in spans),
        }


def truth_of(requests: Iterable[ExportTraceServiceRequest]) -> dict[str, TraceTruth]:
    """Truth per trace id (32 hex digits) over all requests, in the order sent."""
    traces: dict[str, TraceTruth] = {}
    for request in requests:
        for record in records(request):
            trace_id = record.span.trace_id.hex()
            traces.setdefault(trace_id, TraceTruth(trace_id)).sent.append(record)
    return traces


def read_delimited(body: bytes) -> list[ExportTraceServiceRequest]:
    """Length-delimited requests, as `tracelake rebuild` writes several of them."""
    requests, offset = [], 0
    while offset < len(body):
        size, offset = _DecodeVarint32(body, offset)
        assert offset + size <= len(body), "a length that points behind the end"
        requests.append(ExportTraceServiceRequest.FromString(body[offset : offset + size]))
        offset += size
    return requests


def differences(expected: dict[str, TraceTruth], found: dict[str, TraceTruth]) -> list[str]:
    """What `found` has too little or too much, span by span; empty when the two are equal."""
    lines = [f"trace {t}: missing" for t in expected.keys() - found.keys()]
    lines += [f"trace {t}: never sent" for t in found.keys() - expected.keys()]
    for trace_id in sorted(expected.keys() & found.keys()):
        wanted, got = Counter(expected[trace_id].kept), Counter(found[trace_id].sent)
        if wanted != got:
            lines.append(
                describe(trace_id, list((wanted - got).elements()), list((got - wanted).elements()))
            )
    return lines


def describe(trace_id: str, missing: list[Record], extra: list[Record]) -> str:
    """A short account of a trace's wrong spans, the first pair of them line by line."""
    text = f"trace {trace_id}: {len(missing)} spans missing, {len(extra)} not as sent"
    by_id = defaultdict(list)
    for record in extra:
        by_id[record.span.span_id].append(record)
    for record in missing:
        if twins := by_id[record.span.span_id]:
            wanted, got = record.text().splitlines(), twins[0].text().splitlines()
            pairs = [
                f"    sent {a.strip()!r} got {b.strip()!r}" for a, b in zip(wanted, got) if a != b
            ]
            text += (
                f"\n  span {record.span.span_id.hex()} ({len(wanted)} lines sent, {len(got)} got)\n"
            )
            return text + ("\n".join(pairs[:5]) or "    equal as JSON, different as bytes")
    return text


def load_real(shared_data: Path) -> list[tuple[str, ExportTraceServiceRequest]]:
    """The real bodies as (file name, request), in the order of their parts."""
    return [
        (path.name, ExportTraceServiceRequest.FromString(path.read_bytes()))
        for path in sorted((shared_data / "otlp_real").glob("*.pb"))
    ]
