"""The power of a real file system goes: what was acknowledged is there, once.

A service writes to ext4 or xfs on a loop device, journal and tables, which is shut down without a flush of
its log: at chosen moments, and under load at random ones (`make power-cuts`). `POWER_CUTS` sets the rounds
under load, `POWER_CUT_KIND` the file system, `CRASH_SEED` repeats a run.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import generate, otlp, table
from support.crash import Client, check_exactly_once, flush_quietly
from support.device import Device, shim, sync_after_link
from support.loop import Loop, why_not
from support.server import DEFAULT_TABLE, Server

ROUNDS = int(os.environ.get("POWER_CUTS", "0"))
KIND = os.environ.get("POWER_CUT_KIND", "ext4")
SEED = int(os.environ.get("CRASH_SEED", "0")) or time.time_ns() % 10**9
QUICK = (
    "--settle-after", "50ms", "--idle-after", "400ms", "--commit-every", "60ms", "--amend-every", "150ms",
)  # fmt: skip
# Nothing is committed but by a flush.
SLOW = ("--settle-after", "1h", "--idle-after", "1h", "--commit-every", "1h", "--amend-every", "1h")
CLIENTS = 3
VERSIONS = "tracelake/default/traces/_delta_log/*.json"


@pytest.fixture
def loops(tmp_path: Path) -> Iterator[list[Loop]]:
    """Two file systems whose power can be cut; skipped, with the reason, where there is none."""
    if reason := why_not(KIND):
        pytest.skip(reason)
    made = [Loop(tmp_path, KIND, name) for name in ("first", "second")]
    for loop in made:
        loop.mount()
    yield made
    for loop in made:
        loop.close()


def cut(server: Server, loops: list[Loop]) -> None:
    """The power goes for all, and comes back."""
    for loop in loops:
        loop.cut()
    server.kill()
    for loop in loops:
        loop.unmount()
        loop.mount()


@pytest.mark.skipif(shim() is None, reason="there is no C compiler to build the shim with")
@pytest.mark.parametrize("moment", ["acknowledged", "committed", "dead in between", "sync failed"])
def test_the_power_goes_at_a_moment(moment: str, loops: list[Loop], tmp_path: Path) -> None:
    """After an ack; after a commit; and when a version has its name, of which the device was not told.

    Then another process, or the same one, finds the version, and may believe it only once the device has it.
    The tables are on a file system of their own: a sync of the journal's makes nothing durable there.
    """
    data, tables = (loop.folder for loop in loops)
    flags = (*SLOW, "--maintain-every", "0s", "--tables-dir", str(tables))
    server = Server(data / "above" / "data", *flags, quick=False)
    server.log_path = tmp_path / "service.log"
    device = Device(tables, tmp_path / "device")
    what = {"dead in between": "before", "sync failed": "fail"}.get(moment)
    make = generate.Maker(8)
    traces = [make.trace_id() for _ in range(2)]
    try:
        # The first version is the table's creation.
        point = sync_after_link(VERSIONS, 2) if what else None
        server.env = device.environment(point, what or "")
        server.start()
        otlp.post(server.url, generate.request(make.span(traces[0], "root")))
        flush_quietly(server.url, 0)
        if what == "before":
            server.process.wait(timeout=30)
            server.env = {}
            server.start()
        assert device.was_met() == bool(what)
        until_noted(server)
        otlp.post(server.url, generate.request(make.span(traces[1], "root")))
        if moment == "committed":
            server.flush()
        cut(server, loops)
        server.env = {}
        server.start()
        server.flush()
        found = table.rows(tables.joinpath(*DEFAULT_TABLE.split(".")))
        assert {trace: len(row["spans"]) for trace, row in found.items()} == {
            trace.hex(): 1 for trace in traces
        }
        done = server.cli.run("verify", DEFAULT_TABLE)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        server.stop()
    finally:
        server.close()


def until_noted(server: Server) -> None:
    """Waits until the service takes no epoch for one that may still fail."""
    deadline = time.monotonic() + 60
    while list((server.data_dir / "journal").glob("*.plan")):
        assert time.monotonic() < deadline, server.log_tail()
        flush_quietly(server.url, 0.02)


@pytest.mark.skipif(ROUNDS == 0, reason="moments at random: make power-cuts")
@pytest.mark.timeout(max(300, ROUNDS * 30))
def test_what_is_acknowledged_outlives_the_power(loops: list[Loop], tmp_path: Path) -> None:
    """Rounds of load and cut, each followed by a start, a flush, `verify` and an outside reader."""
    print(f"\nCRASH_SEED={SEED} POWER_CUTS={ROUNDS} on {KIND}")
    chance = random.Random(SEED)
    shared = chance.random() < 0.5
    data, tables = (loop.folder for loop in loops)
    # On one file system, or the tables on one of their own.
    flags = ("--tables-dir", str(tables)) if shared else ()
    server = Server(data / "above" / "data", *QUICK, *flags, quick=False)
    path = tables.joinpath(*DEFAULT_TABLE.split(".")) if shared else server.table_path()
    server.log_path = tmp_path / "service.log"
    clients = [Client(n, generate.Maker(SEED + n)) for n in range(CLIENTS)]
    try:
        for number in range(ROUNDS):
            server.start()
            load_until_cut(loops, server, clients, chance)
            acked = sum(len(client.acked) for client in clients)
            server.start()
            server.flush(timeout=180)
            check_exactly_once(path, clients, SEED)
            done = server.cli.run("verify", DEFAULT_TABLE)
            assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
            print(f"round {number + 1:3}: {acked} spans acknowledged", flush=True)
            # The next cut meets what is archived and believed, and a process that is dead already.
            if chance.random() < 0.5:
                server.kill()
                cut(server, loops)
            else:
                server.stop()
        late = sum(client.late_answers for client in clients)
        print(f"{late} answers came after the power had gone, and count for nothing")
        assert sum(len(client.acked) for client in clients) > ROUNDS * 10
    finally:
        server.close()


def load_until_cut(
    loops: list[Loop], server: Server, clients: list[Client], chance: random.Random
) -> None:
    """Load from all clients, perhaps a process that dies and comes back, then the power goes."""
    stop = threading.Event()
    for client in clients:
        client.power_is_off.clear()
    threads = [threading.Thread(target=client.run, args=(server, stop)) for client in clients]
    threads.append(threading.Thread(target=flush_quietly, args=(server.url, chance.uniform(0, 0.3))))
    for thread in threads:
        thread.start()
    time.sleep(chance.uniform(0.05, 1.0))
    dies_before = chance.random() < 0.4
    if dies_before:
        server.kill()
    else:
        for client in clients:
            client.power_is_off.set()
        cut(server, loops)
    stop.set()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive(), "a client hangs on a service that died"
    if dies_before:
        # What it left is taken up by another process; then the power goes.
        server.start()
        time.sleep(chance.uniform(0, 0.3))
        cut(server, loops)
