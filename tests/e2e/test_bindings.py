"""Archival switched on and off per experiment: each trace is where it belongs, once."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

from opentelemetry.proto.trace.v1 import trace_pb2

from support import generate, otlp, table
from support.server import DEFAULT_TABLE, Server

FIRST, SECOND = "prod.monitoring.first", "prod.monitoring.second"


class Archive:
    """A service, its experiments, and what was sent to each."""

    def __init__(self, server: Server):
        self.server = server
        self.make = generate.Maker(11)
        self.sent: dict[bytes, list[trace_pb2.Span]] = {}

    def experiment(self, name: str) -> str:
        answer = self.server.session.post(
            f"{self.server.url}/api/2.0/mlflow/experiments/create", json={"name": name}
        )
        answer.raise_for_status()
        return answer.json()["experiment_id"]

    def send(self, experiment: str, trace_id: bytes | None = None, parent: bytes = b"") -> bytes:
        """One span, of a trace of its own or of one that was begun before."""
        span = self.make.span(trace_id or self.make.trace_id(), f"of {experiment}")
        span.parent_span_id = parent
        self.sent.setdefault(span.trace_id, []).append(span)
        headers = {"x-mlflow-experiment-id": experiment}
        otlp.post(self.server.url, generate.request(span), headers=headers)
        return span.trace_id

    def tables(self) -> dict[str, dict[bytes, dict]]:
        """Rows by table and trace id, read by deltalake."""
        found = {}
        for name in (FIRST, SECOND, DEFAULT_TABLE):
            path = self.server.table_path(name)
            rows = table.rows(path) if table.exists(path) else {}
            found[name] = {bytes.fromhex(trace): row for trace, row in rows.items()}
        return found

    def check(self, expected: dict[str, set[bytes]]) -> None:
        """Each trace in its table alone, with every span that was sent, once."""
        tables = self.tables()
        for name, traces in expected.items():
            assert set(tables[name]) == traces, name
        for name, rows in tables.items():
            for trace_id, row in rows.items():
                sent = sorted(span.span_id.hex() for span in self.sent[trace_id])
                assert sorted(span["span_id"] for span in row["spans"]) == sent, name


def tags_of(server: Server, experiment: str) -> dict[str, str]:
    answer = server.session.get(
        f"{server.url}/api/2.0/mlflow/experiments/get", params={"experiment_id": experiment}
    )
    answer.raise_for_status()
    tags = answer.json()["experiment"].get("tags", [])
    return {tag["key"]: tag["value"] for tag in tags}


def test_each_trace_is_where_it_belongs(make_server: Callable[..., Server]) -> None:
    """Two experiments in two tables and one without a binding; disabled and enabled again."""
    server = make_server()
    server.start()
    archive = Archive(server)
    a, b, c = (archive.experiment(name) for name in ("/a", "/b", "/c"))
    before = {archive.send(x): x for x in (a, a, b, c)}
    server.flush()
    server.cli.ok("enable", FIRST, "--experiment", "/a")
    server.cli.ok("enable", SECOND, "--experiment", b)
    assert tags_of(server, a)["tracelake.archive.table"] == FIRST
    in_first = {t for t, x in before.items() if x == a} | {archive.send(a)}
    in_second = {t for t, x in before.items() if x == b} | {archive.send(b)}
    default = {t for t, x in before.items() if x == c} | {archive.send(c)}
    server.flush()
    archive.check({FIRST: in_first, SECOND: in_second, DEFAULT_TABLE: default})

    # Late spans follow their trace, wherever the experiment goes by then.
    server.cli.ok("disable", "--experiment", "/a")
    assert "tracelake.archive.table" not in tags_of(server, a)
    late = next(iter(in_first))
    archive.send(a, late, b"parent--")
    homeless = archive.send(a)
    server.flush()
    archive.check(
        {FIRST: in_first, SECOND: in_second, DEFAULT_TABLE: default | {homeless}}
    )

    # Restarted without a moment to tidy up, then enabled again: the homeless one comes over.
    server.kill()
    server.start()
    server.cli.ok("enable", FIRST, "--experiment", "/a")
    archive.send(a, homeless, b"parent--")
    in_first |= {homeless, archive.send(a)}
    server.flush()
    archive.check({FIRST: in_first, SECOND: in_second, DEFAULT_TABLE: default})
    assert tags_of(server, a)["tracelake.archive.table"] == FIRST


def test_from_now_leaves_earlier_traces_and_their_late_spans(
    make_server: Callable[..., Server],
) -> None:
    """`--from-now`: what is in the default table stays there, with its late spans."""
    server = make_server()
    server.start()
    archive = Archive(server)
    a = archive.experiment("/a")
    earlier = archive.send(a)
    server.flush()
    server.cli.ok("enable", FIRST, "--experiment", "/a", "--from-now")
    archive.send(a, earlier, b"parent--")
    later = archive.send(a)
    server.flush()
    archive.check({FIRST: {later}, DEFAULT_TABLE: {earlier}})

    # Bound to another table: what is archived in the first one stays in it.
    server.cli.ok("enable", SECOND, "--experiment", "/a", "--from-now")
    archive.send(a, later, b"parent--")
    newest = archive.send(a)
    server.flush()
    archive.check({FIRST: {later}, SECOND: {newest}, DEFAULT_TABLE: {earlier}})


def test_open_traces_over_a_change_of_binding_are_one_row(
    make_server: Callable[..., Server],
) -> None:
    """Spans of unsettled traces before and after `enable` and `disable`."""
    server = make_server("--settle-after", "1h", "--idle-after", "1h")
    server.start()
    archive = Archive(server)
    a = archive.experiment("/a")
    over = archive.send(a)
    server.cli.ok("enable", FIRST, "--experiment", "/a")
    archive.send(a, over, b"parent--")
    under = archive.send(a)
    server.cli.ok("disable", "--experiment", "/a")
    archive.send(a, under, b"parent--")
    server.flush()
    server.flush()
    rows = [(name, t) for name, rows in archive.tables().items() for t in rows]
    assert sorted(t for _, t in rows) == sorted([over, under]), rows
    archive.check({})


def test_a_trace_that_names_several_experiments_stays_in_one_table(
    make_server: Callable[..., Server],
) -> None:
    """Services that take part in one trace name different experiments, bound to different tables or to none."""
    server = make_server()
    server.start()
    archive = Archive(server)
    a, b, c = (archive.experiment(name) for name in ("/a", "/b", "/c"))
    server.cli.ok("enable", FIRST, "--experiment", "/a")
    server.cli.ok("enable", SECOND, "--experiment", "/b")
    pairs = [(x, y) for x in (a, b, c) for y in (a, b, c) if x != y]
    begun = {archive.send(x): (x, y) for x, y in pairs}
    server.flush()
    late = list(begun.items())
    for trace, (_, second) in late[::2]:
        archive.send(second, trace, b"parent--")
    server.flush()
    # A process that asks the tables for the first time.
    server.kill()
    server.start()
    for trace, (_, second) in late[1::2]:
        archive.send(second, trace, b"parent--")
    server.flush()
    archive.check({
        name: {trace for trace, (first, _) in begun.items() if first == experiment}
        for name, experiment in ((FIRST, a), (SECOND, b), (DEFAULT_TABLE, c))
    })  # fmt: skip


def test_a_move_that_is_killed_again_and_again_ends_with_one_row_each(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    """A thousand traces are moved while more arrive; the service is killed on the way."""
    server = make_server()
    server.start()
    archive = Archive(server)
    a, c = archive.experiment("/a"), archive.experiment("/c")
    chance = random.Random(3)
    traces = []
    for experiment in [a] * 30 + [c] * 5:
        spans = [archive.make.span(archive.make.trace_id(), "earlier") for _ in range(30)]
        for span in spans:
            archive.sent[span.trace_id] = [span]
        headers = {"x-mlflow-experiment-id": experiment}
        otlp.post(server.url, generate.request(*spans), headers=headers)
        traces += [(experiment, span.trace_id) for span in spans]
    server.flush()
    server.cli.ok("enable", FIRST, "--experiment", "/a", "--no-wait")
    for _ in range(4):
        archive.send(a, chance.choice([t for x, t in traces if x == a]), b"parent--")
        traces.append((a, archive.send(a)))
        time.sleep(chance.uniform(0.05, 0.6))
        server.kill()
        server.start()
    server.cli.ok("enable", FIRST, "--experiment", "/a")
    server.flush()
    server.cli.ok("enable", FIRST, "--experiment", "/a")
    archive.check(
        {
            FIRST: {t for x, t in traces if x == a},
            DEFAULT_TABLE: {t for x, t in traces if x == c},
        }
    )
