"""The Python package as a guest in a process: services, signals, threads, forks, kills.

Each scenario has a process of its own, which imports tracelake and nothing that has threads.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import generate, table
from support.generate import Maker
from support.otlp import ExportTraceServiceRequest
from support.server import DEFAULT_TABLE, clean_environment

# What the programs below share.
PRELUDE = """
import json, os, signal, sys, threading, time, urllib.request
import tracelake
from tracelake import errors

QUICK = {"settle_after": "200ms", "commit_every": "300ms", "amend_every": "500ms"}

def send(service, *names):
    for name in names:
        span = {"traceId": os.urandom(16).hex(), "spanId": os.urandom(8).hex(), "name": name,
                "startTimeUnixNano": "1795352400000000000", "endTimeUnixNano": "1795352400093000000"}
        body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()
        headers = {"content-type": "application/json", "connection": "close"}
        with urllib.request.urlopen(urllib.request.Request(service.uri + "/v1/traces", body, headers)) as answer:
            assert answer.status == 200

def threads():
    "Names of this process's threads; one may end between the list and the reading of its name."
    names = []
    for task in os.listdir("/proc/self/task"):
        try:
            names.append(open(f"/proc/self/task/{task}/comm").read().strip())
        except (FileNotFoundError, ProcessLookupError):
            pass
    return sorted(names)

def settled(look, expected):
    "What `look` gives once it is as expected; threads that end take a moment."
    until = time.monotonic() + 5
    while look() != expected and time.monotonic() < until:
        time.sleep(0.02)
    return look()

def interrupted(after, call):
    "Seconds between Ctrl-C and the KeyboardInterrupt that a call ends with."
    timer = threading.Timer(after, os.kill, (os.getpid(), signal.SIGINT))
    begun = time.monotonic()
    timer.start()
    try:
        call()
    except KeyboardInterrupt:
        took = time.monotonic() - begun - after
        timer.join()
        return took
    timer.cancel()
    raise AssertionError("it was done before the signal")
"""


def start(script: str, cwd: Path, **environment: str) -> subprocess.Popen:
    """A program that goes on."""
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + script],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd,
        stdin=subprocess.PIPE, env=clean_environment(**environment),
    )  # fmt: skip


def python(script: str, cwd: Path, **environment: str) -> str:
    """What a program printed; it must end well."""
    program = start(script, cwd, **environment)
    printed, complaints = program.communicate(timeout=150)
    assert program.returncode == 0, f"{printed}\n{complaints}"
    assert "panicked" not in complaints, complaints
    return printed


def names(data_dir: Path) -> list[str]:
    """Names of the traces in the default table, by deltalake."""
    path = data_dir.joinpath("tables", *DEFAULT_TABLE.split("."))
    return sorted(row["trace_name"] for row in table.rows(path).values())


# --- services -----------------------------------------------------------------------------------


def test_nothing_is_left_of_a_service(tmp_path: Path) -> None:
    """No thread, no open file, no socket, no file but the data; nor of calls on the folder."""
    script = """
def open_files():
    found = []
    for number in os.listdir("/proc/self/fd"):
        try: found.append(os.readlink(f"/proc/self/fd/{number}"))
        except OSError: pass
    return sorted(found)

alone = threads()
# The runtime keeps two sockets per process for signals, whoever runs.
tracelake.serve("first").stop()
assert settled(threads, alone) == alone
time.sleep(0.5)
before = (alone, open_files())
for _ in range(2):
    service = tracelake.serve("data", **QUICK)
    send(service, "one")
    tracelake.setup_trace_archival("a", "b", "c", "/an/experiment")
    tracelake.flush()
    assert len(tracelake.query_archived_traces(trace_table="tracelake.default.traces")) > 0
    tracelake.check("tracelake.default.traces")
    service.stop()
    service.stop()
    assert not service.is_running and "stopped" in repr(service)
    now = settled(lambda: (threads(), open_files()), before); assert now == before, (before, now)
tracelake.set_uri("data")
assert len(tracelake.list_traces(trace_table="tracelake.default.traces")) == 2
tracelake.sql("SELECT count(*) FROM tracelake.default.traces")
tracelake.enable_trace_archival("a", "b", "d", experiment="/an/experiment")
tracelake.flush()
tracelake.check("tracelake.default.traces")
try: tracelake.get_trace("f" * 32)
except errors.TraceNotFoundError: pass
now = settled(lambda: (threads(), open_files()), before); assert now == before, (before, now)
"""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    python(script, tmp_path, TMPDIR=str(temporary))
    assert list(temporary.iterdir()) == []
    left = {path.name for path in (tmp_path / "data").iterdir()}
    beside = {"registry.db.backup", "registry.ids"}
    assert left - beside == {"catalog.db", "journal", "ledger", "registry.db", "tables"}
    assert names(tmp_path / "data") == ["one"] * 2


def test_services_side_by_side(tmp_path: Path) -> None:
    """Two in one process; a folder in use is refused; the end of a with block ends one."""
    script = """
with tracelake.serve("one", **QUICK) as one, tracelake.serve("two", **QUICK) as two:
    send(one, "of one"); send(two, "of two", "of two")
    assert (one.uri, one.otlp_grpc) != (two.uri, two.otlp_grpc)
    assert len(tracelake.list_traces(uri=one.uri)) == 1 and len(tracelake.list_traces()) == 2
    for folder in ("one", one.data_dir, "../" + os.path.basename(os.getcwd()) + "/one"):
        try: tracelake.serve(folder)
        except errors.ConflictError as error: print(error)
        else: raise AssertionError("two services on one folder")
    assert one.is_running and len(tracelake.list_traces(uri=one.uri)) == 1
    tracelake.flush(uri=one.uri); tracelake.flush(uri=two.uri)
assert not one.is_running and not two.is_running
try:
    with tracelake.serve("one") as one:
        raise KeyError("mine")
except KeyError: pass
assert not one.is_running and not os.path.exists("one/server.json")
"""
    printed = python(script, tmp_path)
    assert printed.count("is in use") == 3 and printed.count("hint: ") == 3
    assert names(tmp_path / "one") == ["of one"] and names(tmp_path / "two") == ["of two"] * 2


def test_what_was_enabled_ends_with_its_service(tmp_path: Path) -> None:
    """The next service at the address is another archive; a folder stays the same everywhere."""
    script = """
first = tracelake.serve("first", **QUICK)
tracelake.setup_trace_archival("old", "b", "c", "/one")
first.stop()
second = tracelake.serve("second", listen=first.uri.removeprefix("http://"))
assert second.uri == first.uri
tracelake.configure_trace_archival_experiment("/two")
second.stop()
assert not os.path.exists("second/tables/old")

tracelake.set_uri("./first")
tracelake.enable_trace_archival("new", "b", "c", experiment="/one")
os.mkdir("elsewhere"); os.chdir("elsewhere")
assert tracelake.get_uri() == os.path.abspath("../first")
assert tracelake.list_traces().scope[0] == "new.b.c"
for same in ("../first", os.path.abspath("../first"), "file://" + os.path.abspath("../first")):
    assert tracelake.list_traces(uri=same).scope[0] == "new.b.c", same
assert os.listdir(".") == []
"""
    python(script, tmp_path)


@pytest.mark.parametrize("end", ["exit", "no end", "thread", "kill"])
def test_a_process_may_end_anyhow(end: str, tmp_path: Path) -> None:
    """What was acknowledged is there after the next start, whoever ended the process."""
    ends = {
        "exit": "sys.exit(0)",
        "no end": "",
        "thread": "threading.Thread(target=lambda: time.sleep(0.3)).start()",
        "kill": "os.kill(os.getpid(), signal.SIGKILL)",
    }
    script = f"""
service = tracelake.serve("data", settle_after="1h", idle_after="1h")
send(service, *["kept"] * 20)
{ends[end]}
"""
    program = start(script, tmp_path)
    _, complaints = program.communicate(timeout=60)
    assert program.returncode == (-signal.SIGKILL if end == "kill" else 0), complaints
    assert "panicked" not in complaints, complaints
    assert (tmp_path / "data" / "server.json").exists() == (end == "kill")
    python('with tracelake.serve("data"): tracelake.flush()', tmp_path)
    assert names(tmp_path / "data") == ["kept"] * 20


def test_a_forked_child_is_a_guest(tmp_path: Path) -> None:
    """It can ask, and its end is not the service's; the folder is free when the parent's ends."""
    script = """
import multiprocessing
service = tracelake.serve("data", **QUICK)
send(service, "one", "two")
child = os.fork()
if child == 0:
    code = 1
    try:
        assert len(tracelake.list_traces()) == 2 and tracelake.get_uri() == service.uri
        assert not service.is_running
        service.stop()
        code = 0
    finally:
        sys.stderr.flush(); os._exit(code)
assert os.waitpid(child, 0)[1] == 0
child = os.fork()
if child == 0:
    sys.exit(0)  # With all that Python does at its end.
assert os.waitpid(child, 0)[1] == 0

def ask(queue): queue.put(len(tracelake.list_traces()))
context = multiprocessing.get_context("fork")
queue = context.Queue()
worker = context.Process(target=ask, args=(queue,)); worker.start()
assert queue.get(timeout=30) == 2
worker.join(); assert worker.exitcode == 0

lasting = os.fork()
if lasting == 0:
    time.sleep(60); os._exit(0)
assert service.is_running and len(tracelake.list_traces()) == 2
service.stop()
tracelake.serve("data").stop()  # Though a child of the first one is still there.
os.kill(lasting, signal.SIGKILL); os.waitpid(lasting, 0)
"""
    python(script, tmp_path)
    assert names(tmp_path / "data") == ["one", "two"]


# --- work that takes long -----------------------------------------------------------------------

# Longer than any patience, and stopped within a batch of rows.
ENDLESS = "SELECT sum(value % 7) FROM generate_series(1, 1000000000000)"


@pytest.mark.parametrize("uri", ["service.uri", "service.data_dir"], ids=["service", "folder"])
def test_a_query_can_be_broken_off(uri: str, tmp_path: Path) -> None:
    """KeyboardInterrupt within a second, twice; the service and its rows are as before."""
    script = f"""
service = tracelake.serve("data", **QUICK)
send(service, "one")
for _ in range(2):
    print(interrupted(0.5, lambda: tracelake.sql({ENDLESS!r}, uri={uri})))
    assert len(tracelake.list_traces(uri={uri})) == 1
def late(*_): raise TimeoutError("too long")
signal.signal(signal.SIGALRM, late); signal.setitimer(signal.ITIMER_REAL, 0.3)
try: tracelake.sql({ENDLESS!r}, uri={uri})
except TimeoutError: pass
else: raise AssertionError("the handler's exception is lost")
service.stop()
"""
    for took in python(script, tmp_path).split():
        assert float(took) < 1


@pytest.mark.parametrize("uri", ["service.uri", '"data"'], ids=["service", "folder"])
def test_an_import_can_be_broken_off(uri: str, tmp_path: Path) -> None:
    """Within a second by URI; in this process when what is under way is committed. It goes on after."""
    make, files, per_file = Maker(3), 200, 20
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(files):
        body = ExportTraceServiceRequest()
        scope = body.resource_spans.add().scope_spans.add()
        values = {"mlflow.spanInputs": make.text(2_000)}
        for _ in range(per_file):
            scope.spans.append(make.span(make.trace_id(), attributes=values))
        (folder / f"{number:03}.pb").write_bytes(body.SerializeToString())
    script = f"""
service = tracelake.serve("data", **QUICK) if {uri!r} == "service.uri" else None
broken_off = 0
for after in (0.2, 0.4):
    try: print(interrupted(after, lambda: tracelake.import_traces("files", uri={uri})))
    except AssertionError: continue
    broken_off += 1
assert broken_off, "it is never long enough"
report = tracelake.import_traces("files", uri={uri})
assert report.imported + report.already_imported == {files} and not report.failed
if service: service.stop()
"""
    limit = 1 if uri == "service.uri" else 20
    for took in python(script, tmp_path).split():
        assert float(took) < limit
    assert len(names(tmp_path / "data")) == files * per_file


@pytest.mark.parametrize("uri", ["service.uri", '"data"'], ids=["service", "folder"])
def test_a_move_can_be_broken_off(uri: str, tmp_path: Path) -> None:
    """Earlier traces of an experiment are on their way to its table: each is in one of both."""
    make, traces = Maker(4), 600
    body = generate.request(*(make.span(make.trace_id(), "moved") for _ in range(traces)))
    (tmp_path / "traces.pb").write_bytes(body.SerializeToString())
    script = f"""
service = tracelake.serve("data", **QUICK)
tracelake.import_traces("traces.pb")
if {uri!r} != "service.uri": service.stop()
enable = lambda: tracelake.enable_trace_archival("a", "b", "c", experiment="0", uri={uri})
print(interrupted(0.3, enable), file=sys.stderr)
both = "SELECT (SELECT count(*) FROM a.b.c) AS there, (SELECT count(*) FROM tracelake.default.traces) AS here"
left = tracelake.sql("SELECT count(DISTINCT trace_id) AS n FROM (SELECT trace_id FROM a.b.c"
    " UNION ALL SELECT trace_id FROM tracelake.default.traces)", uri={uri}).to_dicts()
assert left == [{{"n": {traces}}}], left
enable()
print(json.dumps([list(row.values()) for row in tracelake.sql(both, uri={uri}).to_dicts()]))
service.stop()
"""
    printed = python(script, tmp_path).splitlines()
    assert json.loads(printed[-1]) == [[traces, 0]]


def test_other_threads_go_on(tmp_path: Path) -> None:
    """While one waits for its answer; and a call outside of the main thread is no other."""
    script = f"""
with tracelake.serve("data", **QUICK) as service:
    send(service, "one")
    for uri in (service.uri, service.data_dir):
        turns, ended = 0, []
        def ask():
            try: tracelake.sql("SELECT sum(value % 7) AS n FROM generate_series(1, 3000000)", uri=uri)
            finally: ended.append(time.monotonic())
        thread = threading.Thread(target=ask)
        begun = last = time.monotonic(); longest = 0.0
        thread.start()
        while not ended:
            time.sleep(0.001); turns += 1
            longest = max(longest, time.monotonic() - last); last = time.monotonic()
        thread.join()
        took = ended[0] - begun
        assert took > 0.05, took
        assert longest < max(0.2, took / 2) and turns > 5, (turns, longest, took)
"""
    python(script, tmp_path)
