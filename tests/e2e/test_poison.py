"""Records that end the process: each start takes them in again, until they are set aside.

The binary of the dev profile dies when it takes in a record that contains TRACELAKE_POISON.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import requests

from support import generate, otlp, table
from support.server import Server

QUICK = ("--settle-after", "100ms", "--idle-after", "400ms", "--commit-every", "150ms", "--amend-every", "250ms")
POISON = "span-that-ends-the-process"


def send(server: Server, make: generate.Maker, name: str) -> bool:
    """One span of a trace of its own; whether it was acknowledged."""
    body = otlp.encode(generate.request(make.span(make.trace_id(), name)), otlp.JSON)
    try:
        return otlp.post_bytes(server.url, body, otlp.JSON).ok
    except requests.exceptions.ConnectionError:
        return False


def span_names(server: Server) -> set[str]:
    """The names of all archived spans."""
    rows = table.rows(server.table_path()).values()
    return {span["name"] for row in rows for span in row["spans"]}


def dies(server: Server, within: float = 60) -> None:
    """Waits until the process has ended by itself."""
    deadline = time.monotonic() + within
    while server.process.poll() is None:
        assert time.monotonic() < deadline, f"it lives\n{server.log_tail()}"
        time.sleep(0.01)


def test_a_pipeline_that_panics_ends_the_process_with_its_code_and_loses_nothing(
    make_server: Callable[..., Server],
) -> None:
    """Requests are acknowledged before, with and after the one at which the thread panics; the process ends by
    itself, so that whoever supervises it starts it again, and the next one has all of them."""
    make = generate.Maker(6)
    server = make_server(*QUICK, quick=False)
    server.env = {"TRACELAKE_PANIC": POISON}
    server.start()
    sent = {name for name in ("before", POISON) if send(server, make, name)}
    assert sent == {"before", POISON}
    until = time.monotonic() + 60
    while server.process.poll() is None:
        assert time.monotonic() < until, f"it lives\n{server.log_tail()}"
        name = f"after {len(sent)}"
        if send(server, make, name):
            sent.add(name)
    assert server.process.returncode == 70
    assert "the service ended by itself" in server.log_path.read_text(errors="replace")
    server.env = {}
    server.start()
    server.flush()
    assert span_names(server) == sent
    assert len(table.rows(server.table_path())) == len(sent)


def test_a_record_that_ends_the_process_ends_two_starts(make_server: Callable[..., Server]) -> None:
    """The third one sets it aside, names it, and can put it back; spans of other clients get into the table without it."""
    make = generate.Maker(5)
    server = make_server(*QUICK, quick=False)
    server.env = {"TRACELAKE_POISON": POISON}
    server.start()
    assert send(server, make, "before")
    send(server, make, POISON)
    dies(server)
    parked = server.data_dir / "parked"
    starts = 0
    while not (parked.exists() and server.process.poll() is None):
        starts += 1
        assert starts <= 3, f"each start ends\n{server.log_tail()}"
        server.spawn()
        deadline = time.monotonic() + 60
        while server.process.poll() is None and not parked.exists():
            assert time.monotonic() < deadline, f"neither dead nor through\n{server.log_tail()}"
            time.sleep(0.01)
    while not server.read_server_file(server.process.pid):
        time.sleep(0.01)
    assert starts == 3
    assert "by its own doing cause=SIGABRT" in server.log_path.read_text(errors="replace")
    assert send(server, make, "after")
    server.flush()
    names = span_names(server)
    assert {"before", "after"} <= names and POISON not in names

    listed = json.loads(server.cli.ok("parked", "list", "--format", "json"))
    assert [entry["is_record"] for entry in listed] == [True], listed
    name = listed[0]["name"]
    assert name in server.cli.ok("status")
    status = json.loads(server.cli.ok("status", "--format", "json"))
    assert [entry["name"] for entry in status["journal"]["parked"]] == [name]
    checked = server.cli.run("check", "tracelake.default.traces", "--no-write")
    assert checked.returncode == 1 and name in checked.stdout, checked.stdout
    assert server.session.get(f"{server.url}/readyz", timeout=10).text == "OK"

    server.stop()
    server.env = {}
    server.start()
    assert "is put back" in server.cli.ok("parked", "retry", "--all")
    server.flush()
    names = span_names(server)
    assert POISON in names
    assert server.cli.ok("parked", "list") == "nothing is set aside\n"
    server.stop()


def test_kills_in_a_row_at_one_record_set_nothing_aside(make_server: Callable[..., Server]) -> None:
    """Six starts are killed where they write what the one record makes, four of them when it is taken in alone."""
    make = generate.Maker(7)
    at_once = ("--settle-after", "0s", "--idle-after", "0s", "--commit-every", "1ms", "--amend-every", "1ms")
    server = make_server(*at_once, quick=False)
    server.env = {"TRACELAKE_FAILPOINT": "data.put.before:1"}
    server.start()
    assert send(server, make, "one")
    dies(server)
    for _ in range(6):
        server.spawn()
        dies(server)
    mark = (server.data_dir / "journal" / "REPLAY").read_text()
    assert '"count":1,"deaths":{"at_work":4,"between":0,"own":0}' in mark, mark
    server.env = {}
    server.start()
    server.flush()
    assert span_names(server) == {"one"}
    assert not (server.data_dir / "parked").exists()
    server.stop()
