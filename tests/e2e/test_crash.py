"""kill -9 at random moments under load: every acknowledged span is in the table exactly once.

CRASH_ROUNDS and CRASH_SEED set the length and repeat a run.
"""

from __future__ import annotations

import os
import random
import statistics
import threading
import time
from collections.abc import Callable

import pytest

from support import generate
from support.crash import Client, check_exactly_once, flush_quietly
from support.server import Server

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "20"))
SEED = int(os.environ.get("CRASH_SEED", "0")) or time.time_ns() % 10**9
CLIENTS = 4


@pytest.mark.timeout(max(300, ROUNDS * 20))
def test_every_acknowledged_span_is_there_exactly_once(make_server: Callable[..., Server]) -> None:
    """Rounds of load and kill on one folder, then one flush and a reader from outside."""
    print(f"\nCRASH_SEED={SEED} CRASH_ROUNDS={ROUNDS}")
    chance = random.Random(SEED)
    server = make_server(
        "--settle-after", "100ms", "--commit-every", "150ms", "--amend-every", "250ms", quick=False
    )
    clients = [Client(n, generate.Maker(SEED + n)) for n in range(CLIENTS)]
    ready_seconds = []
    for number in range(ROUNDS):
        ready_seconds.append(server.start())
        moment = chance.uniform(0.02, 1.2) if chance.random() < 0.8 else chance.uniform(0, 0.05)
        flush_at = chance.uniform(0, moment) if chance.random() < 0.3 else None
        one_round(server, clients, moment, flush_at)
        acked = sum(len(client.acked) for client in clients)
        print(
            f"round {number + 1:3}: killed after {moment:.3f} s, {acked} spans acknowledged so far",
            flush=True,
        )

    ready_seconds.append(server.start())
    print(
        f"accepting again after: median {statistics.median(ready_seconds):.2f} s, worst {max(ready_seconds):.2f} s"
    )
    server.flush(timeout=900)
    check_exactly_once(server.table_path(), clients, SEED)
    assert sum(len(client.acked) for client in clients) > ROUNDS * 20, [c.refused for c in clients]
    server.stop()
    assert statistics.median(ready_seconds) < 1.0, ready_seconds


def one_round(server: Server, clients: list[Client], moment: float, flush_at: float | None) -> None:
    """Load from all clients, perhaps a flush, then the kill."""
    stop = threading.Event()
    threads = [threading.Thread(target=client.run, args=(server, stop)) for client in clients]
    if flush_at is not None:
        threads.append(threading.Thread(target=flush_quietly, args=(server.url, flush_at)))
    for thread in threads:
        thread.start()
    time.sleep(moment)
    server.kill()
    stop.set()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive(), "a client hangs on a killed service"
