"""Bindings, late spans, tags and deletions at random, with kills: the tables end as a model says."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from support import generate, otlp, table
from support.server import DEFAULT_TABLE, Server

TABLES = ("prod.monitoring.first", "prod.monitoring.second")
SEED = int(os.environ.get("STORM_SEED", random.randrange(1 << 30)))
STEPS = int(os.environ.get("STORM_STEPS", "60"))
TAG = "k"


@dataclass
class Expected:
    """What a trace must end with."""

    spans: list[str] = field(default_factory=list)
    tag: str | None = None


class Storm:
    """A service, one experiment, and what the answers so far promise."""

    def __init__(self, server: Server, seed: int):
        self.server, self.random = server, random.Random(seed)
        self.make = generate.Maker(seed)
        self.expected: dict[bytes, Expected] = {}
        self.deleted: set[bytes] = set()
        answer = self.call("post", "/api/2.0/mlflow/experiments/create", {"name": "/storm"})
        self.experiment = answer["experiment_id"]

    def call(self, method: str, path: str, body: dict) -> dict:
        answer = self.server.session.request(method, self.server.url + path, json=body)
        assert answer.status_code == 200, f"{method} {path} {body}: {answer.text}"
        return answer.json()

    def any(self) -> bytes:
        return self.random.choice(list(self.expected))

    def begin(self) -> None:
        self.send(self.make.trace_id())

    def late(self) -> None:
        if self.expected:
            self.send(self.any())

    def send(self, trace_id: bytes) -> None:
        span = self.make.span(trace_id, parent_span_id=self.random.choice([b"", b"12345678"]))
        headers = {"x-mlflow-experiment-id": self.experiment}
        otlp.post(self.server.url, generate.request(span), headers=headers)
        self.expected.setdefault(trace_id, Expected()).spans.append(span.span_id.hex())

    def tag(self) -> None:
        if self.expected:
            trace_id, value = self.any(), str(self.random.random())
            path = f"/api/3.0/mlflow/traces/tr-{trace_id.hex()}/tags"
            self.call("patch", path, {"key": TAG, "value": value})
            self.expected[trace_id].tag = value

    def untag(self) -> None:
        tagged = [trace for trace, expected in self.expected.items() if expected.tag]
        if tagged:
            trace_id = self.random.choice(tagged)
            path = f"/api/3.0/mlflow/traces/tr-{trace_id.hex()}/tags"
            self.call("delete", path, {"key": TAG})
            self.expected[trace_id].tag = None

    def delete(self) -> None:
        if self.expected:
            trace_id = self.any()
            body = {"experiment_id": self.experiment, "request_ids": [f"tr-{trace_id.hex()}"]}
            answer = self.call("post", "/api/2.0/mlflow/traces/delete-traces", body)
            assert answer == {"traces_deleted": 1}
            del self.expected[trace_id]
            self.deleted.add(trace_id)

    def enable(self) -> None:
        name = self.random.choice(TABLES)
        self.server.cli.ok("enable", name, "--experiment", "/storm", "--no-wait")

    def disable(self) -> None:
        self.server.cli.ok("disable", "--experiment", "/storm")

    def pause(self) -> None:
        time.sleep(self.random.random())

    def kill(self) -> None:
        self.server.kill()
        self.server.start()

    def step(self) -> None:
        weights = {
            self.begin: 6, self.late: 6, self.tag: 6, self.untag: 2, self.delete: 2,
            self.enable: 1.2, self.disable: 0.8, self.pause: 1, self.kill: 1, self.server.flush: 1,
        }  # fmt: skip
        (action,) = self.random.choices(list(weights), list(weights.values()))
        action()

    def found(self) -> dict[bytes, list[tuple[str, list[str], str | None]]]:
        """Rows of every table by trace: where, spans, tag; read by deltalake."""
        rows: dict[bytes, list[tuple[str, list[str], str | None]]] = {}
        for name in (*TABLES, DEFAULT_TABLE):
            path = self.server.table_path(name)
            if table.exists(path):
                for row in table.query(path, "select trace_id, spans, tags from t"):
                    spans = sorted(span["span_id"] for span in row["spans"])
                    value = (name, spans, dict(row["tags"]).get(TAG))
                    rows.setdefault(bytes.fromhex(row["trace_id"][3:]), []).append(value)
        return rows


@pytest.mark.timeout(300)
def test_a_storm_of_changes_ends_as_promised(make_server: Callable[..., Server]) -> None:
    """One row per trace that was not deleted, with all its spans and its tag as it was set last."""
    print(f"STORM_SEED={SEED}")
    server = make_server("--amend-every", "1s", "--settle-after", "1s", "--idle-after", "3s")
    server.start()
    storm = Storm(server, SEED)
    for _ in range(STEPS):
        storm.step()
    server.cli.ok("enable", TABLES[0], "--experiment", "/storm")
    server.flush()
    server.flush()
    found = storm.found()
    assert not storm.deleted & found.keys(), "deleted traces are back"
    assert found.keys() == storm.expected.keys()
    for trace_id, expected in storm.expected.items():
        ((_, spans, tag),) = found[trace_id]
        assert (spans, tag) == (sorted(expected.spans), expected.tag), trace_id.hex()
