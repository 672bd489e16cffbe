"""Death at each durable step, and as at a power cut; archivers on one table that die in turn; broken builds.

The binary of the dev profile dies where TRACELAKE_FAILPOINT says. With TRACELAKE_POWER_CUT it keeps what
it wrote to its journal and did not sync in its own memory, so that the kill of the process loses it, as
a power cut would. CRASH_SEED repeats a run, CRASH_ALL=1 takes every failpoint.
"""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from deltalake import DeltaTable

from support import generate, otlp, table
from support.crash import Client, check_exactly_once, flush_quietly
from support.server import DEFAULT_TABLE, Server

SEED = int(os.environ.get("CRASH_SEED", "0")) or time.time_ns() % 10**9
ALL = os.environ.get("CRASH_ALL") == "1"
SAMPLE = 4
BROKEN_LIVES = 5
BROKEN_ROUNDS = 6
QUICK = (
    "--settle-after", "100ms", "--idle-after", "400ms", "--commit-every", "150ms", "--amend-every", "250ms",
)  # fmt: skip
# Nothing is committed but by a flush.
SLOW = ("--settle-after", "1h", "--idle-after", "1h", "--commit-every", "1h", "--amend-every", "1h")
POWER_CUT = {"TRACELAKE_POWER_CUT": "1"}


def failpoints(server: Server) -> list[str]:
    """The names that the binary knows: it lists them when it is asked for another."""
    refused = server.cli.run(
        "serve", "--listen", "127.0.0.1:0", "--otlp-grpc", "127.0.0.1:0", TRACELAKE_FAILPOINT="which"
    )  # fmt: skip
    assert refused.returncode == 1, "a release build has no failpoints"
    return refused.stderr.split("one of ")[1].split()


def start_unless_it_dies(server: Server) -> bool:
    """Starts; false when the process died at a failpoint before it was up."""
    process = server.spawn()
    deadline = time.monotonic() + 30
    while not server.read_server_file(process.pid):
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline, server.log_tail()
        time.sleep(0.01)
    return True


def one_life(server: Server, clients: list[Client], seconds: float) -> bool:
    """Load until the process dies by itself, or is killed after `seconds`; true when it died by itself."""
    if not start_unless_it_dies(server):
        return True
    stop = threading.Event()
    threads = [threading.Thread(target=client.run, args=(server, stop)) for client in clients]
    threads.append(threading.Thread(target=flush_quietly, args=(server.url, min(seconds / 3, 1.5))))
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    while server.process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    by_itself = server.process.poll() is not None
    server.kill()
    stop.set()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive(), "a client hangs on a service that died"
    return by_itself


def last_life(server: Server) -> None:
    """Nothing goes wrong any more: what is acknowledged goes into the table."""
    server.env = {}
    server.start()
    server.flush(timeout=180)


def dies_at(server: Server, clients: list[Client], failpoint: str, seconds: float) -> bool:
    """A life that ends at a failpoint, or after so long."""
    server.env = {**POWER_CUT, "TRACELAKE_FAILPOINT": failpoint}
    return one_life(server, clients, seconds)


@pytest.mark.timeout(900)
def test_death_at_every_durable_step(make_server: Callable[..., Server]) -> None:
    """A life for each failpoint on one folder; then what an outside reader finds, and the service's own ledger."""
    chance = random.Random(SEED)
    server = make_server(*QUICK, quick=False)
    names = failpoints(server)
    assert len(names) > 30
    chosen = names if ALL else chance.sample(names, SAMPLE)
    print(f"\nCRASH_SEED={SEED}, {len(chosen)} of {len(names)} failpoints")
    clients = [Client(n, generate.Maker(SEED + n)) for n in range(3)]
    missed = []
    for name in chosen:
        # Some are met on the way up: a later time is more to the point. But not all are met again: a process
        # begins one file of the ledger, and makes few segments before it writes over earlier ones.
        times = chance.randrange(1, 4)
        reached = dies_at(server, clients, f"{name}:{times}", 4)
        if not reached:
            times = 1
            reached = dies_at(server, clients, f"{name}:{times}", 120)
        if not reached:
            missed.append(name)
        acked = sum(len(client.acked) for client in clients)
        print(f"{name}:{times}: {'died' if reached else 'not reached'}, {acked} acknowledged", flush=True)
    last_life(server)
    check_exactly_once(server.table_path(), clients, SEED)
    assert sum(len(client.acked) for client in clients) > len(chosen) * 5
    assert not missed, f"CRASH_SEED={SEED}: never reached {missed}"
    # The chain of the ledger holds over all these deaths.
    server.cli.ok("verify", DEFAULT_TABLE)
    server.stop()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("count", [2, 3])
def test_archivers_on_one_table_die_in_turn(
    count: int, make_server: Callable[..., Server], tmp_path: Path
) -> None:
    """Spans of one trace go to several archivers; each in turn dies at a failpoint and comes back."""
    chance = random.Random(SEED + count)
    share = tmp_path / "share"
    share.mkdir()
    flags = (*QUICK, "--tables-dir", str(share))
    archivers = [make_server(*flags, name=f"archiver-{n}", quick=False) for n in range(count)]
    # Of another folder: to ask registers its table.
    names = failpoints(make_server(name="asked", quick=False))
    for archiver in archivers:
        archiver.env = POWER_CUT
        archiver.start()
    # All senders tell of the same traces, each to its archiver.
    traces = generate.Maker(SEED)
    shared_traces = [traces.trace_id() for _ in range(40)]
    clients = [Client(n, generate.Maker(SEED + n)) for n in range(count)]
    rounds = 4 * count if ALL else count
    print(f"\nCRASH_SEED={SEED}, {count} archivers, {rounds} deaths")
    for number in range(rounds):
        victim = number % count
        for client in clients:
            client.open_traces = list(shared_traces)
        archivers[victim].kill()
        others = [n for n in range(count) if n != victim]
        name = chance.choice(names)
        archivers[victim].env = {**POWER_CUT, "TRACELAKE_FAILPOINT": f"{name}:{chance.randrange(1, 4)}"}
        stop = threading.Event()
        threads = [
            threading.Thread(target=clients[n].run, args=(archivers[n], stop)) for n in others
        ]
        for thread in threads:
            thread.start()
        reached = one_life(archivers[victim], [clients[victim]], 1.5)
        stop.set()
        for thread in threads:
            thread.join(timeout=60)
        print(f"archiver {victim} at {name}: {'died' if reached else 'killed'}", flush=True)
        archivers[victim].env = POWER_CUT
        archivers[victim].start()
    for archiver in archivers:
        archiver.flush(timeout=180)
    path = share.joinpath("tracelake", "default", "traces")
    check_exactly_once(path, clients, SEED)
    pieces = [
        row for row in table.rows(path).values() if row["revision"] > 1
    ]
    assert pieces, "no trace was told to two archivers"
    applications = {application for application, _ in table.epochs(path)}
    assert len(applications) == count, "not each archiver has committed"
    assert DeltaTable(str(path)).version() >= count
    for archiver in archivers:
        archiver.stop()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("step", ["sync", "carry"])
def test_a_broken_build_is_caught(step: str, make_server: Callable[..., Server]) -> None:
    """The same lives with one step left out: the comparison finds what is lost.

    What a life loses depends on the moment of its death: a round that lost nothing is followed by another.
    """
    chance = random.Random(SEED)
    server = make_server(*QUICK, quick=False)
    clients = [Client(n, generate.Maker(SEED + n)) for n in range(3)]
    for number in range(BROKEN_ROUNDS):
        for _ in range(BROKEN_LIVES):
            server.env = {
                **POWER_CUT,
                "TRACELAKE_BREAK": step,
                "TRACELAKE_FAILPOINT": f"log.put.after:{chance.randrange(2, 5)}",
            }
            one_life(server, clients, chance.uniform(0.5, 1.2))
        server.env = {"TRACELAKE_BREAK": step}
        server.start()
        try:
            server.flush(timeout=60)
        except (AssertionError, requests.RequestException) as fault:
            pytest.fail(f"the broken build cannot even flush: {fault}")
        try:
            check_exactly_once(server.table_path(), clients, SEED)
        except AssertionError as caught:
            assert re.search(r"\b[1-9]\d* lost", str(caught)), caught
            print(f"\n{step} left out, round {number + 1}: {str(caught)[:200]}")
            return
        server.kill()
    pytest.fail(f"CRASH_SEED={SEED}: {step} left out, and nothing was lost in {BROKEN_ROUNDS} rounds")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("step", ["", "txn"])
def test_a_replay_that_does_not_look_at_the_txn_is_caught(
    step: str, make_server: Callable[..., Server], tmp_path: Path
) -> None:
    """One archiver dies between its commit and its note, another one deletes what it committed.

    Spans alone would not show it: handed over again they are known by their content.
    """
    share = tmp_path / "share"
    share.mkdir()
    flags = ("--tables-dir", str(share), *SLOW)
    one, two = (make_server(*flags, name=name, quick=False) for name in ("one", "two"))
    one.env = {**POWER_CUT, "TRACELAKE_FAILPOINT": "epoch.rename.before:1"}
    for server in (one, two):
        server.start()
    make = generate.Maker(SEED)
    kept, deleted = make.trace_id(), make.trace_id()
    otlp.post(one.url, generate.request(make.span(kept, "a"), make.span(deleted, "b")))
    flush_quietly(one.url, 0)
    one.kill()
    path = share.joinpath(*DEFAULT_TABLE.split("."))
    assert set(table.rows(path)) == {kept.hex(), deleted.hex()}, "committed before it died"
    answer = requests.post(
        f"{two.url}/api/3.0/mlflow/traces/delete-traces",
        json={"experiment_id": "0", "request_ids": [f"tr-{deleted.hex()}"]},
        timeout=30,
    )
    assert answer.status_code == 200, answer.text
    two.flush()
    one.env = {"TRACELAKE_BREAK": step}
    one.start()
    one.flush()
    came_back = {deleted.hex()} if step else set()
    assert set(table.rows(path)) == {kept.hex()} | came_back
    for server in (one, two):
        server.stop()
