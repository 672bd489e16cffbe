"""What the analyses must answer, computed in plain Python from the requests that were sent.

Nothing here knows tracelake, its table or its SQL. Labels that need MLflow's reading of a span (its
type, model and tokens) come from the caller.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from support.truth import ERROR, Record, TraceTruth

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TOKENS = ("input_tokens", "output_tokens", "total_tokens")


@dataclass(frozen=True)
class Labels:
    """What MLflow's conventions make of a span."""

    span_type: str | None = None
    model: str | None = None
    tokens: tuple[int | None, int | None, int | None] = (None, None, None)


@dataclass(frozen=True)
class Span:
    """One span as the analyses see it."""

    name: str
    failed: bool
    start_ns: int
    end_ns: int
    message: str | None
    exception_type: str | None
    labels: Labels

    @property
    def duration_ns(self) -> int | None:
        """Signed; zero is a time that nobody knows."""
        return self.end_ns - self.start_ns if self.start_ns and self.end_ns else None


@dataclass
class Trace:
    """One trace as the analyses see it."""

    trace_id: str
    experiment_id: str
    state: str
    spans: list[Span]
    tokens: tuple[int | None, int | None, int | None] = (None, None, None)

    @property
    def failed_spans(self) -> list[Span]:
        return [span for span in self.spans if span.failed]

    @property
    def failed(self) -> bool:
        """Whether `errors` lists it."""
        return self.state == "ERROR" or bool(self.failed_spans)

    @property
    def total_ns(self) -> int:
        return sum(span.duration_ns or 0 for span in self.spans)

    @property
    def timestamp(self) -> datetime | None:
        """The earliest start that is known, in whole microseconds."""
        starts = [span.start_ns for span in self.spans if span.start_ns]
        return EPOCH + timedelta(microseconds=min(starts) // 1_000) if starts else None

    @property
    def duration_ms(self) -> int | None:
        """From the earliest start to the latest end, both in whole milliseconds."""
        starts = [span.start_ns for span in self.spans if span.start_ns]
        ends = [span.end_ns for span in self.spans if span.end_ns]
        return max(ends) // 1_000_000 - min(starts) // 1_000_000 if starts and ends else None


def trace_of(
    truth: TraceTruth,
    experiment_id: str,
    labels: Callable[[Record], Labels],
    state: str | None = None,
    tokens: tuple[int | None, int | None, int | None] = (None, None, None),
) -> Trace:
    """A trace from its records, identical copies once. `state` is the client's word, if it gave one."""
    spans = [span_of(record, labels(record)) for record in truth.kept]
    return Trace(
        f"tr-{truth.trace_id}", experiment_id, state or state_of(truth), spans, tokens
    )


def state_of(truth: TraceTruth) -> str:
    """MLflow's rule: the status of the earliest root; without a root the trace goes on."""
    spans = [record.span for record in truth.kept]
    roots = [span for span in spans if not span.parent_span_id.strip(b"\0")]
    if not roots:
        return "IN_PROGRESS"
    first = min(roots, key=lambda span: span.start_time_unix_nano)
    return "ERROR" if first.status.code == ERROR else "OK"


def span_of(record: Record, labels: Labels) -> Span:
    """The fields that the analyses use."""
    span = record.span
    exceptions = [event for event in span.events if event.name == "exception"]
    types = [
        attribute.value.string_value
        for event in exceptions[-1:]
        for attribute in event.attributes
        if attribute.key == "exception.type"
    ]
    return Span(
        span.name,
        span.status.code == ERROR,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        span.status.message or None,
        types[0] if types else None,
        labels,
    )


def errors(traces: Iterable[Trace]) -> dict[str, dict]:
    """Rows of `errors` by trace id."""
    return {
        trace.trace_id: {
            "timestamp": trace.timestamp,
            "status": trace.state,
            "error_span_count": len(trace.failed_spans),
        }
        for trace in traces
        if trace.failed
    }


def performance(traces: Iterable[Trace]) -> dict[str, dict]:
    """Rows of `performance` by trace id."""
    return {
        trace.trace_id: {
            "timestamp": trace.timestamp,
            "span_count": len(trace.spans),
            "total_duration_ms": trace.total_ns / 1e6,
            "avg_span_duration_ms": trace.total_ns / 1e6 / len(trace.spans),
        }
        for trace in traces
        if trace.spans
    }


def spans_by(
    key_name: str, key: Callable[[Span], str | None], traces: Iterable[Trace]
) -> list[dict]:
    """Rows of `performance --by` span-name, span-type or model."""
    groups: dict[str | None, list[Span]] = defaultdict(list)
    for trace in traces:
        for span in trace.spans:
            groups[key(span)].append(span)
    rows = []
    for value, spans in groups.items():
        known = sorted(span.duration_ns for span in spans if span.duration_ns is not None)
        total_ns = sum(known)
        rows.append(
            {
                key_name: value,
                "span_count": len(spans),
                "error_span_count": sum(span.failed for span in spans),
                "error_rate": sum(span.failed for span in spans) / len(spans),
                "total_duration_ns": total_ns,
                "total_duration_ms": total_ns / 1e6,
                "avg_span_duration_ms": total_ns / 1e6 / len(known) if known else None,
                **{
                    f"p{percent}_span_duration_ms": millis(nearest_rank(known, percent))
                    for percent in (50, 95, 99)
                },
                "max_span_duration_ms": millis(max(known, default=None)),
                **token_sums(span.labels.tokens for span in spans),
            }
        )
    return sorted(rows, key=lambda row: (-row["total_duration_ns"], *nulls_last(row[key_name])))


def traces_by(
    key_name: str, key: Callable[[Trace], object], traces: Iterable[Trace]
) -> list[dict]:
    """Rows of `performance --by` experiment or hour, in no order."""
    groups: dict[object, list[Trace]] = defaultdict(list)
    for trace in traces:
        groups[key(trace)].append(trace)
    rows = []
    for value, members in groups.items():
        known = sorted(t.duration_ms for t in members if t.duration_ms is not None)
        total_ns = sum(trace.total_ns for trace in members)
        rows.append(
            {
                key_name: value,
                "trace_count": len(members),
                "error_trace_count": sum(trace.failed for trace in members),
                "error_rate": sum(trace.failed for trace in members) / len(members),
                "span_count": sum(len(trace.spans) for trace in members),
                "error_span_count": sum(len(trace.failed_spans) for trace in members),
                "total_duration_ns": total_ns,
                "total_duration_ms": total_ns / 1e6,
                "avg_trace_duration_ms": sum(known) / len(known) if known else None,
                **{
                    f"p{percent}_trace_duration_ms": nearest_rank(known, percent)
                    for percent in (50, 95, 99)
                },
                "max_trace_duration_ms": max(known, default=None),
                **token_sums(trace.tokens for trace in members),
            }
        )
    return rows


def by_experiment(traces: Iterable[Trace]) -> list[dict]:
    """Most time first."""
    rows = traces_by("experiment_id", lambda trace: trace.experiment_id, traces)
    return sorted(rows, key=lambda row: (-row["total_duration_ns"], row["experiment_id"]))


def by_hour(traces: Iterable[Trace]) -> list[dict]:
    """Newest first, traces without a time last."""

    def hour(trace: Trace) -> datetime | None:
        at = trace.timestamp
        return at and at.replace(minute=0, second=0, microsecond=0)

    rows = traces_by("hour", hour, traces)
    return sorted(rows, key=lambda row: newest_first(row["hour"]))


def error_groups(traces: Iterable[Trace]) -> list[dict]:
    """Rows of `errors --group`."""
    groups: dict[tuple, list[tuple[Trace, Span | None]]] = defaultdict(list)
    for trace in traces:
        for span in trace.failed_spans:
            groups[(span.message, span.exception_type, True)].append((trace, span))
        if trace.state == "ERROR" and not trace.failed_spans:
            groups[(None, None, False)].append((trace, None))
    rows = []
    for (message, exception_type, _), members in groups.items():
        names = Counter(span.name for _, span in members if span)
        times = [trace.timestamp for trace, _ in members if trace.timestamp]
        latest = max(members, key=lambda m: (m[0].timestamp or EPOCH, m[0].trace_id))
        rows.append(
            {
                "error_message": message,
                "exception_type": exception_type,
                "span_name": min(names, key=lambda n: (-names[n], n)) if names else None,
                "trace_count": len({trace.trace_id for trace, _ in members}),
                "span_count": sum(span is not None for _, span in members),
                "first_seen": min(times, default=None),
                "last_seen": max(times, default=None),
                "example_trace_id": latest[0].trace_id,
            }
        )
    return sorted(
        rows,
        key=lambda row: (
            -row["trace_count"],
            -row["span_count"],
            *newest_first(row["last_seen"]),
            *nulls_last(row["error_message"]),
            *nulls_last(row["exception_type"]),
        ),
    )


def nearest_rank(values: list[int], percent: int) -> int | None:
    """The value at position ceil(n * percent / 100) of the sorted values."""
    return values[-(-len(values) * percent // 100) - 1] if values else None


def millis(nanos: int | None) -> float | None:
    """Milliseconds with fractions."""
    return None if nanos is None else nanos / 1e6


def token_sums(of: Iterable[tuple[int | None, ...]]) -> dict[str, int | None]:
    """Sums of what is known; unknown where nothing is."""
    columns = zip(*of, strict=True)
    known = [[count for count in column if count is not None] for column in columns]
    return {name: sum(counts) if counts else None for name, counts in zip(TOKENS, known)}


def nulls_last(value: str | None) -> tuple[bool, str]:
    """Sorts upwards, what is unknown at the end."""
    return (value is None, value or "")


def newest_first(value: datetime | None) -> tuple[bool, timedelta]:
    """Sorts downwards, what is unknown at the end."""
    return (value is None, EPOCH - (value or EPOCH))
