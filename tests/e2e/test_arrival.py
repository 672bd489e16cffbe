"""A row is a function of what was sent: real traces, cut, repeated, shuffled, with kills and commits between."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support import generate, otlp, table
from support.otlp import ExportTraceServiceRequest
from support.server import SHARED_DATA, Server
from support.truth import load_real

# Traces settle when they are flushed, or the process is killed with them open.
SLOW = ("--settle-after", "10m", "--idle-after", "10m", "--amend-every", "10m")
OF_WRITING = {"created_at", "updated_at", "revision"}
# What docs/table.md names beside: tags where spans share id and start.
OF_ARRIVAL = OF_WRITING | {"tags", "said"}
CLIENTS = 8
SEED = 4


@pytest.fixture(scope="module")
def whole() -> list[ExportTraceServiceRequest]:
    """The recorded bodies, each trace in one request; made-up ones where there are none."""
    real = SHARED_DATA.is_dir()
    if not real:
        print("the recorded real traces are not on this machine (../shared/data): made-up ones")
    bodies = [body for _, body in load_real(SHARED_DATA)] if real else [body for _, body in generate.tricky()]
    by_trace: dict[bytes, ExportTraceServiceRequest] = {}
    for single in cut(bodies):
        trace_id = single.resource_spans[0].scope_spans[0].spans[0].trace_id
        by_trace.setdefault(trace_id, ExportTraceServiceRequest()).MergeFrom(single)
    return list(by_trace.values())


def cut(bodies: list[ExportTraceServiceRequest]) -> Iterator[ExportTraceServiceRequest]:
    """Each span in a request of its own, with its resource and scope."""
    for body in bodies:
        for resource_spans in body.resource_spans:
            for scope_spans in resource_spans.scope_spans:
                for span in scope_spans.spans:
                    single = ExportTraceServiceRequest()
                    resource = single.resource_spans.add(
                        resource=resource_spans.resource, schema_url=resource_spans.schema_url
                    )
                    scope = resource.scope_spans.add(
                        scope=scope_spans.scope, schema_url=scope_spans.schema_url
                    )
                    scope.spans.append(span)
                    yield single


@pytest.fixture(scope="module")
def expected(whole: list[ExportTraceServiceRequest], tmp_path_factory: pytest.TempPathFactory):
    """The rows of the traces when each comes in one request."""
    server = Server(tmp_path_factory.mktemp("whole") / "data", *SLOW, quick=False)
    try:
        server.start()
        for body in whole:
            otlp.post(server.url, body, session=server.session)
        server.flush()
        return table.rows(server.table_path())
    finally:
        server.close()


def compare(expected: dict[str, dict], found: dict[str, dict], but: set[str]) -> None:
    """Fails with the columns in which any rows differ."""
    assert expected.keys() == found.keys()
    wrong = [
        f"{trace_id}: {column} is {found[trace_id][column]!r}, expected {value!r}"[:600]
        for trace_id, row in expected.items()
        for column, value in row.items()
        if column not in but and found[trace_id][column] != value
    ]
    assert not wrong, f"{len(wrong)} values differ\n" + "\n".join(wrong[:10])


def send_with_repeats(
    server: Server, singles: list[ExportTraceServiceRequest], flushes: bool
) -> None:
    """Every span by itself, a third of them again later; restarts and carries in between, with `flushes` kills
    and commits as well. A start after two kills commits what is open, part by part."""
    choose = random.Random(SEED)
    events = {len(singles) * part // 6: part for part in range(1, 6)}
    for position, single in enumerate(singles):
        otlp.post(server.url, single, session=server.session)
        if choose.random() < 1 / 3:
            again = singles[choose.randrange(position + 1)]
            otlp.post(server.url, again, session=server.session)
        match events.get(position):
            case 1 | 4 if flushes:
                server.kill()
                server.start()
            case 2 | 5 if flushes:
                server.flush()
            case 1 | 3 | 4:
                server.restart()
    server.flush()


def test_cut_and_repeated_traces_have_the_rows_of_whole_ones(
    whole: list[ExportTraceServiceRequest], expected: dict[str, dict], tmp_path: Path
) -> None:
    """All of it before the first commit, and with commits between: all but times and revision is equal."""
    singles = list(cut(whole))
    for flushes in (False, True):
        server = Server(tmp_path / f"flushes-{flushes}" / "data", *SLOW, quick=False)
        try:
            server.start()
            send_with_repeats(server, singles, flushes)
            found = table.rows(server.table_path())
            compare(expected, found, OF_WRITING if flushes else OF_WRITING - {"revision"})
            if flushes:
                before = {trace_id: row["revision"] for trace_id, row in found.items()}
                for body in whole:
                    otlp.post(server.url, body, session=server.session)
                server.flush()
                again = table.rows(server.table_path())
                assert {t: row["revision"] for t, row in again.items()} == before
        finally:
            server.close()


def test_shuffled_traces_differ_in_what_the_docs_name_alone(
    whole: list[ExportTraceServiceRequest], expected: dict[str, dict], tmp_path: Path
) -> None:
    """Eight clients at once, each with spans of every trace in any order, and commits meanwhile."""
    singles = list(cut(whole))
    random.Random(SEED).shuffle(singles)
    server = Server(tmp_path / "data", *SLOW, quick=False)
    try:
        server.start()

        def client(number: int) -> None:
            for position, single in enumerate(singles[number::CLIENTS]):
                otlp.post(server.url, single)
                if number == 0 and position % 40 == 20:
                    server.flush()

        with ThreadPoolExecutor(CLIENTS) as clients:
            list(clients.map(client, range(CLIENTS)))
        server.flush()
        compare(expected, table.rows(server.table_path()), OF_ARRIVAL)
    finally:
        server.close()
