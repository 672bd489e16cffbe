"""Senders that note what was acknowledged, and the comparison with what an outside reader finds."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import requests

from support import generate, otlp, table
from support.otlp import ExportTraceServiceRequest
from support.server import Server


@dataclass
class Client:
    """One sender that notes what was acknowledged. Its spans have names that count up."""

    number: int
    make: generate.Maker
    acked: dict[str, str] = field(default_factory=dict)
    """Span id to trace id, of every span whose request got a full success."""
    sent: set[str] = field(default_factory=set)
    unanswered: list[ExportTraceServiceRequest] = field(default_factory=list)
    open_traces: list[bytes] = field(default_factory=list)
    refused: Counter = field(default_factory=Counter)
    power_is_off: threading.Event = field(default_factory=threading.Event)
    """Set when the power of a file system goes while the machine stays on: an answer from then on could not have
    come from a machine without power, and the kernel may call a sync done that the cut undid."""
    late_answers: int = 0

    def run(self, server: Server, stop: threading.Event) -> None:
        """Sends until told to stop or until the service is gone."""
        with requests.Session() as session:
            while not stop.is_set():
                body = self.next_body()
                try:
                    answer = otlp.post_bytes(
                        server.url, body.SerializeToString(), session=session, timeout=30
                    )
                except requests.RequestException:
                    # Nobody knows whether this one was taken: a real client sends it again.
                    self.unanswered.append(body)
                    return
                if self.power_is_off.is_set():
                    self.late_answers += answer.status_code == 200
                    self.unanswered.append(body)
                elif (
                    answer.status_code == 200
                    and not otlp.read_answer(answer).partial_success.rejected_spans
                ):
                    self.note_acked(body)
                else:
                    self.refused[answer.status_code] += 1
                    self.unanswered.append(body)
                    time.sleep(0.05)

    def next_body(self) -> ExportTraceServiceRequest:
        """A retry, more spans for an earlier trace, or a few new traces."""
        pick = self.make.random
        if self.unanswered and pick.random() < 0.7:
            return self.unanswered.pop()
        spans = []
        for _ in range(pick.randrange(1, 4)):
            if self.open_traces and pick.random() < 0.3:
                trace_id = pick.choice(self.open_traces)
                spans.append(self.make.span(trace_id, "late", parent_span_id=self.make.span_id()))
                continue
            trace_id, root = self.make.trace_id(), self.make.span_id()
            spans.append(self.make.span(trace_id, "root", span_id=root))
            for _ in range(pick.randrange(4)):
                child = self.make.span(trace_id, "child", parent_span_id=root)
                child.attributes.extend(
                    generate.attributes({"text": self.make.text(pick.randrange(400))})
                )
                spans.append(child)
            self.open_traces = [*self.open_traces[-50:], trace_id]
        self.sent.update(span.span_id.hex() for span in spans)
        return generate.request(*spans, service=f"client-{self.number}")

    def note_acked(self, body: ExportTraceServiceRequest) -> None:
        """Every span of the body is now the service's responsibility."""
        for span in body.resource_spans[0].scope_spans[0].spans:
            self.acked[span.span_id.hex()] = span.trace_id.hex()


def flush_quietly(url: str, after: float) -> None:
    """A flush that the kill may cut off."""
    time.sleep(after)
    try:
        requests.post(f"{url}/api/v1/flush", timeout=60)
    except requests.RequestException:
        pass


def check_exactly_once(path: Path, clients: Iterable[Client], seed: int) -> None:
    """Acknowledged: exactly once, in its own trace. Not acknowledged: at most once. Else: not there."""
    found = [
        (span["span_id"], row["trace_id"].removeprefix("tr-"))
        for row in table.query(path, "select trace_id, spans from t")
        for span in row["spans"]
    ]
    trace_rows = Counter(row["trace_id"] for row in table.query(path, "select trace_id from t"))
    acked = {span: trace for client in clients for span, trace in client.acked.items()}
    sent = set().union(*(client.sent for client in clients))
    times = Counter(span for span, _ in found)
    print(f"{len(acked)} spans acknowledged, {len(found)} in the table, {len(trace_rows)} traces")
    lost = [span for span in acked if not times[span]]
    doubled = [span for span, count in times.items() if count > 1]
    strange = [span for span in times if span not in sent]
    moved = [span for span, trace in found if acked.get(span, trace) != trace]
    split = [trace for trace, count in trace_rows.items() if count > 1]
    assert not (lost or doubled or strange or moved or split), (
        f"CRASH_SEED={seed}: {len(lost)} lost {lost[:3]}, {len(doubled)} doubled {doubled[:3]}, "
        f"{len(strange)} never sent, {len(moved)} in another trace, {len(split)} traces with several rows {split[:3]}"
    )
