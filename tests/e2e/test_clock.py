"""The system's wall clock is set while the service runs, and between two runs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
import requests

from support import generate, otlp, table
from support.clock import WallClock, library
from support.server import Server

HOUR = 3600
DAY = 24 * HOUR
NANOS = 1_000_000_000
PATIENCE_SECONDS = 20

pytestmark = pytest.mark.skipif(library() is None, reason="there is no C compiler")


class Sender:
    """Sends traces and waits until they are in the table, by nothing but time."""

    def __init__(self, server: Server):
        self.server = server
        self.make = generate.Maker(8)
        self.traces: list[str] = []

    def send(self, ended_unix_seconds: float | None = None) -> datetime:
        """Gives its `created_at`."""
        trace = self.make.trace_id()
        times = {}
        if ended_unix_seconds is not None:
            end = int(ended_unix_seconds * NANOS)
            times = {"start_time_unix_nano": end - 1_000, "end_time_unix_nano": end}
        span = self.make.span(trace, "step", **times)
        otlp.post(self.server.url, generate.request(span), session=self.server.session)
        self.traces.append(trace.hex())
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            path = self.server.table_path()
            rows = table.rows(path) if table.exists(path) else {}
            if trace.hex() in rows:
                assert set(rows) == set(self.traces)
                return rows[trace.hex()]["created_at"]
            time.sleep(0.1)
        raise AssertionError(f"not committed in {PATIENCE_SECONDS} s\n{self.server.log_tail()}")


def date_of(server: Server) -> datetime:
    """The date of an answer on a connection of its own."""
    answer = requests.get(f"{server.url}/health", timeout=PATIENCE_SECONDS)
    assert answer.status_code == 200
    return parsedate_to_datetime(answer.headers["date"])


def service(server: Server) -> dict:
    return server.session.get(f"{server.url}/api/v1/status", timeout=30).json()


def test_a_wall_clock_that_steps_stops_nothing_and_deletes_nothing(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    """Commits go on at any date, times never run back, a step ahead is followed when a sender confirms it."""
    clock = WallClock(tmp_path)
    server = make_server(env=clock.environment)
    server.start()
    sender = Sender(server)
    begun = datetime.now(UTC)
    created = [sender.send()]
    ledger = sorted((server.data_dir / "ledger").iterdir())
    now = int(time.time())
    for ahead in (-HOUR, 100 * DAY, 0, 5 - now, -now - DAY, 8_400_000_000 - now, 0):
        clock.set(ahead)
        # On connections that are there, and on others, one for each thread at the least.
        for _ in range(2 * (os.cpu_count() or 1) + 2):
            assert abs(date_of(server) - datetime.now(UTC)) < timedelta(minutes=1), ahead
        with otlp.GrpcClient(server.grpc) as client:
            client.export(otlp.ExportTraceServiceRequest())
        created.append(sender.send())
        # A clock that is before 1970 shows its begin.
        assert abs(service(server)["clock_ahead_seconds"] - max(ahead, -now)) < 60, ahead
    assert created == sorted(created)
    assert begun <= created[0] and created[-1] <= datetime.now(UTC)

    # Between two runs, either way.
    for ahead in (100 * DAY, 5 - now):
        clock.set(ahead)
        server.restart()
        created.append(sender.send())
    assert created == sorted(created)
    assert created[-1] <= datetime.now(UTC)
    assert set(ledger) <= set((server.data_dir / "ledger").iterdir())

    # Another witness.
    clock.set(100 * DAY)
    created.append(sender.send(ended_unix_seconds=time.time() + 100 * DAY))
    assert timedelta(days=99) < created[-1] - datetime.now(UTC) < timedelta(days=101)
    assert service(server)["clock_ahead_seconds"] == 0
    clock.set(0)
    created.append(sender.send())
    assert created == sorted(created)
    # A sender with the same wrong clock is no proof.
    assert set(ledger) <= set((server.data_dir / "ledger").iterdir())
    assert "panicked" not in server.log_path.read_text(errors="replace")


def test_a_service_that_starts_before_1970_answers_once_the_date_is_set(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    """It says what is wrong, and needs no restart."""
    clock = WallClock(tmp_path)
    clock.set(-int(time.time()) - DAY)
    server = make_server(env=clock.environment)
    server.start()
    assert "the system's date is before 1970" in server.log_path.read_text()
    begun = datetime.now(UTC)
    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(date_of, server) for _ in range(4)]
        make = generate.Maker(9)
        with otlp.GrpcClient(server.grpc) as client:
            client.export(generate.request(make.span(make.trace_id(), "over gRPC")))
        assert not any(one.done() for one in waiting), "hyper knows no date yet"
        clock.set(0)
        assert all(begun - timedelta(seconds=1) <= one.result() <= datetime.now(UTC) for one in waiting)
    server.flush()
    assert len(table.rows(server.table_path())) == 1
    assert "panicked" not in server.log_path.read_text(errors="replace")
