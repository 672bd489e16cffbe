"""`tracelake status` shows what other readers of table, log and process see."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
from deltalake import DeltaTable

from support import generate, otlp, table
from support.server import DEFAULT_TABLE, Cli, Server

TABLE = "production.monitoring.agent_traces"
EXPERIMENT = "/Shared/agent"
PER_TABLE = [
    "table", "is_default", "version", "last_commit_at", "rows", "files", "bytes",
    "deletion_vectors", "deleted_rows", "disk_bytes", "open_traces", "late_traces", "open_bytes",
    "lag_ms", "blocked", "fault",
]  # fmt: skip


def status(cli: Cli) -> dict:
    """The one object of `--format json`."""
    return json.loads(cli.ok("status", "--format", "json"))


def by_name(seen: dict) -> dict[str, dict]:
    return {row["table"]: row for row in seen["tables"]}


def send(server: Server, make: generate.Maker, trace_id: bytes, experiment: str) -> None:
    headers = {"x-mlflow-experiment-id": experiment}
    otlp.post(server.url, generate.request(make.span(trace_id)), headers=headers)


def test_numbers_are_those_of_other_readers(make_server: Callable[..., Server]) -> None:
    """Two tables, one amended; then traces that wait; then no service."""
    server = make_server("--settle-after", "1h", "--idle-after", "1h", "--journal-budget", "64MiB")
    server.cli.ok("setup", TABLE, "--experiment", EXPERIMENT)
    server.start()
    make = generate.Maker(11)
    ids = [make.trace_id() for _ in range(5)]
    for trace_id in ids:
        send(server, make, trace_id, "1")
    send(server, make, make.trace_id(), "0")
    server.flush()
    send(server, make, ids[0], "1")
    server.flush()
    for _ in range(3):
        send(server, make, make.trace_id(), "1")

    seen = status(server.cli)
    assert server.process is not None
    assert seen["service"]["pid"] == server.process.pid
    assert (seen["service"]["http"], seen["service"]["grpc"]) == (server.http, server.grpc)
    assert seen["service"]["uptime_seconds"] < 600 and seen["service_fault"] is None
    assert seen["default_table"] == DEFAULT_TABLE
    assert 0 < seen["journal"]["bytes"] < seen["journal"]["budget_bytes"] == 64 << 20
    assert seen["disk"]["tables_bytes"] < seen["disk"]["total_bytes"]
    for name, row in by_name(seen).items():
        assert_as_deltalake(server, name, row)
    bound, default = by_name(seen)[TABLE], by_name(seen)[DEFAULT_TABLE]
    assert (bound["rows"], bound["deletion_vectors"], bound["deleted_rows"]) == (5, 1, 1)
    assert (default["rows"], default["is_default"], bound["is_default"]) == (1, True, False)
    assert bound["open_traces"] == 3 and bound["open_bytes"] > 0 and 0 <= bound["lag_ms"] < 60_000
    assert default["open_traces"] == 0 and default["lag_ms"] is None
    (binding,) = seen["bindings"]
    assert (binding["experiment"], binding["experiment_id"]) == (EXPERIMENT, "1")
    assert (binding["table"], binding["lifecycle_stage"]) == (TABLE, "active")
    assert binding["since"].endswith("Z") and seen["moves"] == []

    server.stop()
    alone = status(server.cli)
    assert alone["service"] is None and alone["service_fault"] is None
    assert alone["journal"]["bytes"] > 0
    assert by_name(alone)[TABLE] | dict.fromkeys(("open_traces", "late_traces", "open_bytes", "lag_ms")) == (
        bound | dict.fromkeys(("open_traces", "late_traces", "open_bytes", "lag_ms"))
    )


def assert_as_deltalake(server: Server, name: str, row: dict) -> None:
    """Version, rows, files, bytes and time, read from outside."""
    path = server.table_path(name)
    reader = DeltaTable(str(path))
    adds = pa.table(reader.get_add_actions(flatten=True)).to_pylist()
    assert row["version"] == reader.version()
    assert row["rows"] == len(table.rows(path))
    assert row["files"] == len(adds)
    assert row["bytes"] == sum(add["size_bytes"] for add in adds)
    assert row["disk_bytes"] == sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
    assert row["fault"] is None and row["blocked"] is None


def test_every_format(make_server: Callable[..., Server]) -> None:
    """One row a table for programs, a page for people without colour in a pipe."""
    server = make_server()
    server.cli.ok("setup", TABLE, "--experiment", EXPERIMENT)
    names = [DEFAULT_TABLE, TABLE]
    expected = sorted(names)
    rows = [json.loads(line) for line in server.cli.ok("status", "--format", "jsonl").splitlines()]
    assert sorted(row["table"] for row in rows) == expected
    read = list(csv.reader(io.StringIO(server.cli.ok("status", "--format", "csv"))))
    assert read[0] == PER_TABLE and sorted(row[0] for row in read[1:]) == expected
    for name, reader in (
        ("arrow", lambda path: pyarrow.ipc.open_stream(path).read_all()),
        ("parquet", pyarrow.parquet.read_table),
    ):
        path = server.data_dir.parent / f"status.{name}"
        server.cli.ok("status", "--format", name, "--output", str(path))
        found = reader(path)
        assert found.column_names == PER_TABLE
        assert found.schema.field("last_commit_at").type == pa.timestamp("ms", "UTC")
    (only,) = json.loads(server.cli.ok("status", TABLE, "--format", "json"))["tables"]
    assert only["table"] == TABLE
    missing = server.cli.run("status", "a.b.c")
    assert missing.returncode == 1 and "no table `a.b.c`\nhint: " in missing.stderr
    page = server.cli.ok("status")
    assert "\x1b" not in page
    for words in ("none runs", "of 10.0 GiB", TABLE, EXPERIMENT, "not made yet"):
        assert words in page, page


def test_faults_are_shown_and_nothing_is_made(make_server: Callable[..., Server]) -> None:
    """A killed service, a table whose log is broken, a folder that is not there."""
    server = make_server()
    server.cli.ok("setup", TABLE, "--experiment", EXPERIMENT)
    server.start()
    make = generate.Maker(12)
    send(server, make, make.trace_id(), "1")
    server.flush()
    server.kill()
    (server.table_path(TABLE) / "_delta_log" / f"{0:020}.json").unlink()
    seen = status(server.cli)
    assert seen["service"] is None and "does not answer" in seen["service_fault"]
    assert by_name(seen)[TABLE]["fault"] and by_name(seen)[TABLE]["rows"] is None
    assert by_name(seen)[DEFAULT_TABLE]["fault"] is None
    page = server.cli.ok("status")
    assert "does not answer" in page and f"{TABLE} is unreadable: " in page

    nowhere = Cli(server.data_dir.parent / "nowhere")
    done = nowhere.run("status")
    assert done.returncode == 1 and "hint: " in done.stderr and not nowhere.data_dir.exists()


def test_a_blocked_table_says_why(make_server: Callable[..., Server]) -> None:
    """Another writer asks for a feature that tracelake does not have."""
    server = make_server()
    server.cli.ok("setup", TABLE, "--experiment", EXPERIMENT)
    server.start()
    protocol = [a["protocol"] for _, a in table.log_actions(server.table_path(TABLE)) if "protocol" in a][-1]
    features = [*protocol["writerFeatures"], "rowTracking"]
    log = server.table_path(TABLE) / "_delta_log" / f"{1:020}.json"
    log.write_text(json.dumps({"protocol": protocol | {"writerFeatures": features}}) + "\n")
    make = generate.Maker(13)
    send(server, make, make.trace_id(), "1")
    assert server.session.post(f"{server.url}/api/v1/flush", timeout=30).status_code == 503
    row = by_name(status(server.cli))[TABLE]
    assert "rowTracking" in row["blocked"] and row["open_traces"] == 1
    assert f"{TABLE} is blocked: " in server.cli.ok("status")
    assert by_name(status(server.cli))[DEFAULT_TABLE]["blocked"] is None
