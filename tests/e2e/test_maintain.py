"""Compaction: agent traces take a twentieth of their OTLP, and nothing else about the table changes.
Vacuum: what no version of the retention time refers to goes, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder

from support import generate, otlp, table
from support.otlp import ExportTraceServiceRequest
from support.server import DEFAULT_TABLE, SHARED_DATA, Server, binary, clean_environment
from support.truth import records

SHARE = 20
LATE = 12


def agent_requests() -> list[ExportTraceServiceRequest]:
    """Real agent content where it is at hand; else conversations that repeat their history as agents do."""
    folder = SHARED_DATA / "otlp_derived"
    if folder.is_dir():
        return [
            ExportTraceServiceRequest.FromString(path.read_bytes())
            for path in sorted(folder.glob("*.pb"))
        ]
    print("the recorded agent traces are not on this machine (../shared/data): conversations are made")
    make = generate.Maker(5)
    return [conversation(make, number) for number in range(60)]


def conversation(make: generate.Maker, number: int) -> ExportTraceServiceRequest:
    """One trace: each call of the model carries the whole history."""
    trace_id, spans, history = make.trace_id(), [], [make.text(3_000)]
    for turn in range(16):
        history.append(make.text(300))
        answer = make.text(300)
        spans.append(
            make.span(
                trace_id,
                "chat",
                parent_span_id=spans[0].span_id if spans else b"",
                attributes={
                    "mlflow.spanType": '"CHAT_MODEL"',
                    "session.id": f"session {number // 3}",
                    "mlflow.spanInputs": json.dumps({"messages": history}),
                    "mlflow.spanOutputs": json.dumps({"content": answer, "turn": turn}),
                },
            )
        )
        history.append(answer)
    return generate.request(*spans, service="agent")


def late_span(make: generate.Maker, body: ExportTraceServiceRequest) -> ExportTraceServiceRequest:
    """One more span for the trace of a request."""
    first = next(iter(records(body))).span
    return generate.request(make.span(first.trace_id, "late"), service="agent")


def whole(path: Path) -> dict[str, dict]:
    """All rows with all columns by trace id, read by deltalake."""
    return table.rows(path)


def rebuilt(server: Server, name: str) -> list[bytes]:
    """The OTLP of every trace, in no order."""
    file = server.data_dir.parent / name
    server.cli.ok("rebuild", DEFAULT_TABLE, "--output", str(file))
    body, traces = file.read_bytes(), []
    while body:
        length, shift, at = 0, 0, 0
        while True:
            length |= (body[at] & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if body[at - 1] < 0x80:
                break
        traces.append(body[at : at + length])
        body = body[at + length :]
    return sorted(traces)


def deletion_vectors(path: Path) -> int:
    """Live files with a deletion vector."""
    state: dict[str, dict] = {}
    for _, action in table.log_actions(path):
        if "remove" in action:
            state.pop(action["remove"]["path"], None)
        if "add" in action:
            state[action["add"]["path"]] = action["add"]
    return sum("deletionVector" in add for add in state.values())


def test_agent_traces_shrink_and_stay(make_server: Callable[..., Server]) -> None:
    """Many small commits and amendments, compacted once: a twentieth of the OTLP, the same rows for everyone."""
    server = make_server("--maintain-every", "0s")
    server.start()
    bodies = agent_requests()
    for start in range(0, len(bodies), 20):
        for body in bodies[start : start + 20]:
            otlp.post(server.url, body, session=server.session)
        server.flush()
    make = generate.Maker(6)
    late = [late_span(make, body) for body in bodies[:LATE]]
    for body in late:
        otlp.post(server.url, body, session=server.session)
    server.flush()
    path = server.table_path()
    before, otlp_before = whole(path), rebuilt(server, "before.pb")
    counts = table.counts_deltalake(path)
    assert 0 < deletion_vectors(path)
    version = DeltaTable(str(path)).version()
    (planned,) = server.cli.json("maintain", "--once", "--dry-run")
    assert (planned["table"], planned["deleted_rows"]) == (DEFAULT_TABLE, LATE)
    assert DeltaTable(str(path)).version() == version, "a dry run writes nothing"

    (report,) = server.cli.json("maintain", DEFAULT_TABLE, "--once")
    assert (report["files_after"], report["purged_rows"], report["given_up"]) == (1, LATE, 0)
    sent = sum(len(body.SerializeToString()) for body in bodies + late)
    size = table.data_bytes(path)
    print(f"{sent} bytes of OTLP, {report['bytes_before']} before, {size} after: {sent / size:.1f} : 1")
    assert size == report["bytes_after"] and size * SHARE <= sent

    assert whole(path) == before
    assert rebuilt(server, "after.pb") == otlp_before
    assert deletion_vectors(path) == 0
    readers = [table.counts_deltalake, table.counts_duckdb, table.counts_polars]
    assert [read(path) for read in readers] == [counts] * 3
    changes = pa.table(DeltaTable(str(path)).load_cdf(starting_version=version + 1).read_all())
    assert changes.num_rows == 0, "the change feed shows no compaction"
    (again,) = server.cli.json("maintain", "--once")
    assert (again["files_before"], again["version"]) == (0, version + 1)

    # Traces that lie in the compacted file are amended like any others.
    for body in bodies[:LATE]:
        otlp.post(server.url, late_span(make, body), session=server.session)
    server.flush()
    after = whole(path)
    assert after.keys() == before.keys()
    grown = [key for key in after if len(after[key]["spans"]) == len(before[key]["spans"]) + 1]
    assert len(grown) == LATE


def test_the_service_compacts_beside_load(make_server: Callable[..., Server]) -> None:
    """Rounds every second over files of any age, while traces and late spans come in: none lost, none doubled."""
    server = make_server("--maintain-every", "1s", "--compact-after", "0s")
    server.start()
    expected: dict[str, int] = {}
    make = generate.Maker(8)

    def load() -> None:
        until = time.monotonic() + 4
        sent: list[ExportTraceServiceRequest] = []
        while time.monotonic() < until:
            for _ in range(15):
                body = generate.request(make.span(make.trace_id(), "first"), service="load")
                otlp.post(server.url, body, session=server.session)
                sent.append(body)
                expected[next(iter(records(body))).span.trace_id.hex()] = 1
            for body in sent[-200::7]:
                otlp.post(server.url, late_span(make, body), session=server.session)
                expected[next(iter(records(body))).span.trace_id.hex()] += 1
            time.sleep(0.1)

    thread = threading.Thread(target=load)
    thread.start()
    thread.join()
    server.flush()
    path = server.table_path()

    def rounds() -> int:
        operations = [a["commitInfo"]["operation"] for _, a in table.log_actions(path) if "commitInfo" in a]
        return operations.count("OPTIMIZE")

    deadline = time.monotonic() + 20
    while rounds() == 0 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert 0 < rounds(), server.log_tail()
    found = {trace: len(row["spans"]) for trace, row in whole(path).items()}
    assert found == expected
    status = json.loads(server.cli.ok("status", "--format", "json"))["maintenance"]
    assert status["every_seconds"] == 1 and 0 < status["tables"][DEFAULT_TABLE]["files_before"]
    assert "Maintenance  every 1 s" in server.cli.ok("status")
    server.restart()
    assert {trace: len(row["spans"]) for trace, row in whole(path).items()} == expected


def test_a_compaction_that_is_killed_changes_nothing(make_server: Callable[..., Server]) -> None:
    """kill -9 at several moments, then Ctrl-C: the rows stay, and the next round does the work."""
    server = make_server("--maintain-every", "0s")
    server.start()
    for body in agent_requests()[:60]:
        otlp.post(server.url, body, session=server.session)
    server.flush()
    server.stop()
    path = server.table_path()
    before, version = whole(path), DeltaTable(str(path)).version()
    command = [str(binary()), "maintain", "--once", "--quiet", "--data-dir", str(server.data_dir)]
    killed = 0
    for milliseconds in (20, 60, 120, 250):
        process = subprocess.Popen(
            command, env=clean_environment(), stdout=subprocess.DEVNULL, cwd=server.data_dir.parent
        )
        time.sleep(milliseconds / 1000)
        killed += process.poll() is None
        process.kill()
        process.wait()
        assert whole(path) == before
    assert 0 < killed
    server.cli.ok("maintain", "--once")
    assert whole(path) == before
    assert DeltaTable(str(path)).version() == version + 1


def make_older(path: Path, hours: float) -> None:
    """As if every file of the table had been written so many hours earlier."""
    for file in path.rglob("*"):
        if file.is_file():
            moment = file.stat().st_mtime - hours * 3600
            os.utime(file, (moment, moment))


def files_on_disk(path: Path) -> set[str]:
    """Every file of the table but its log."""
    found = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
    return {name for name in found if not name.startswith("_delta_log/")}


def spans_at(path: Path, version: int) -> dict[str, int]:
    """Spans by trace of one version, by deltalake."""
    old = DeltaTable(str(path), version=version)
    rows = QueryBuilder().register("t", old).execute("select trace_id, cardinality(spans) n from t")
    return {row["trace_id"]: int(row["n"]) for row in pa.table(rows).to_pylist()}


def test_replaced_files_go_after_the_retention_time(make_server: Callable[..., Server]) -> None:
    """Compaction, then hours that pass: only what no version of the last hour refers to goes."""
    server = make_server("--maintain-every", "0s")
    server.start()
    make = generate.Maker(9)

    def send(bodies: list[ExportTraceServiceRequest]) -> None:
        for body in bodies:
            otlp.post(server.url, body, session=server.session)
        server.flush()

    bodies = [generate.request(make.span(make.trace_id(), "first"), service="agent") for _ in range(40)]
    send(bodies[:20])
    send(bodies[20:])
    send([late_span(make, body) for body in bodies[:5]])
    path = server.table_path()
    replaced = files_on_disk(path)
    assert {name.partition("-")[0].partition("_v")[0] for name in replaced} == {"part", "deletion", "_change_data/cdc"}
    (compacted,) = server.cli.json("maintain", "--once")
    make_older(path, 3)
    send([late_span(make, body) for body in bodies[5:10]])
    (again,) = server.cli.json("maintain", "--once", "--full")
    # The version that was the newest one an hour ago, and all since.
    readable = range(compacted["version"], again["version"] + 1)
    before = {version: spans_at(path, version) for version in readable}
    for name in ("young.parquet", "old.parquet", ".tmp-left", "_theirs.parquet", "theirs.txt"):
        (path / name).write_bytes(b"four")
        if name != "young.parquet":
            os.utime(path / name, (1, 1))

    refused = server.cli.run("maintain", "--once", "--vacuum-after", "5m")
    assert refused.returncode == 1 and "vacuum-after: at least 1h" in refused.stderr, refused.stderr
    all_files, log = files_on_disk(path), list(table.log_actions(path))
    (planned,) = server.cli.json("maintain", "--once", "--dry-run", "--vacuum-after", "1h")
    assert planned["action"] == "delete" and files_on_disk(path) == all_files
    (report,) = server.cli.json("maintain", "--once", "--vacuum-after", "1h")
    assert (report["deleted_files"], report["deleted_bytes"]) == (planned["files"], planned["bytes"])

    gone = all_files - files_on_disk(path)
    assert gone == replaced | {"old.parquet", ".tmp-left"}
    assert (report["deleted_files"], report["deleted_bytes"] > 0) == (len(gone), True)
    assert list(table.log_actions(path)) == log
    assert {version: spans_at(path, version) for version in readable} == before
    assert table.counts_duckdb(path) == table.counts_deltalake(path) == (40, 50, 0)

    # The service does it too. An hour later only the newest version is left.
    make_older(path, 3)
    server.stop()
    short = ("--maintain-every", "1s", "--vacuum-after", "1m", "--force-short-horizon")
    server.flags = (*server.flags[:-2], *short)
    server.start()
    live = {Path(file).name for file in DeltaTable(str(path)).file_uris()}
    kept = live | {"_theirs.parquet", "theirs.txt"}
    deadline = time.monotonic() + 20
    while files_on_disk(path) != kept and time.monotonic() < deadline:
        time.sleep(0.2)
    assert files_on_disk(path) == kept, server.log_tail()
    deadline = time.monotonic() + 10
    while "files deleted" not in server.cli.ok("status") and time.monotonic() < deadline:
        time.sleep(0.2)
    status = json.loads(server.cli.ok("status", "--format", "json"))["maintenance"]
    assert 0 < status["tables"][DEFAULT_TABLE]["vacuumed_files"]
    assert table.counts_duckdb(path) == table.counts_deltalake(path) == (40, 50, 0)
    send([late_span(make, body) for body in bodies[:5]])
    assert table.counts_deltalake(path) == (40, 55, 0)


def test_what_cannot_be_maintained_is_said(make_server: Callable[..., Server]) -> None:
    """A table that is not there, a folder that is not there."""
    server = make_server("--maintain-every", "0s")
    server.start()
    done = server.cli.run("maintain", "a.b.c", "--once")
    assert done.returncode == 1 and "no table `a.b.c`" in done.stderr and "hint:" in done.stderr
    done = server.cli.run("maintain", "not a name", "--once")
    assert done.returncode == 2
