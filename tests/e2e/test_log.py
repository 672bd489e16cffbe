"""The table's log beside others: damaged checkpoints, and what other engines ask of writers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from support import generate, otlp, table
from support.server import DEFAULT_TABLE, Server

SLOW = ("--settle-after", "1h", "--idle-after", "1h", "--commit-every", "1h", "--amend-every", "1h")


def alter(path: Path, properties: dict[str, str]) -> None:
    """One more version that sets properties, as another engine writes it."""
    metadata = [action["metaData"] for _, action in table.log_actions(path) if "metaData" in action][-1]
    metadata["configuration"].update(properties)
    version = max(version for version, _ in table.log_actions(path)) + 1
    info = {"commitInfo": {"operation": "SET TBLPROPERTIES", "engineInfo": "Apache-Spark/4.0.1"}}
    log = path / "_delta_log" / f"{version:020}.json"
    log.write_text(f"{json.dumps(info)}\n{json.dumps({'metaData': metadata})}\n")


def properties(path: Path) -> dict[str, str]:
    """The table's properties by now."""
    return [action["metaData"] for _, action in table.log_actions(path) if "metaData" in action][-1][
        "configuration"
    ]


def send(server: Server, make: generate.Maker, trace_id: bytes) -> None:
    """A span of a trace."""
    otlp.post(server.url, generate.request(make.span(trace_id)))


def read_by_polars(path: Path) -> int:
    """Rows, by a process of its own: it keeps no state of the log."""
    code = f"import polars; print(polars.scan_delta({str(path)!r}).select(polars.len()).collect().item())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.parametrize("hint", ["whole", "empty"])
def test_a_damaged_checkpoint_is_replaced(make_server: Callable[..., Server], hint: str) -> None:
    """A checkpoint of which a part reached the disk, and what names it: questions pass it over, `check` tells,
    and after the next start and commit every reader reads the table."""
    server = make_server(*SLOW)
    server.start()
    path = server.table_path()
    make = generate.Maker(5)
    send(server, make, make.trace_id())
    server.flush()
    alter(path, {"delta.checkpointInterval": "3"})
    send(server, make, make.trace_id())
    server.flush()
    server.kill()
    (checkpoint,) = (path / "_delta_log").glob("*.checkpoint.parquet")
    checkpoint.write_bytes(checkpoint.read_bytes()[: checkpoint.stat().st_size // 2])
    if hint == "empty":
        (path / "_delta_log" / "_last_checkpoint").write_bytes(b"")
    assert server.cli.scalar("SELECT count(*) FROM traces") == 2
    done = server.cli.run("check", DEFAULT_TABLE, "--no-write")
    assert done.returncode != 0 and checkpoint.name in done.stdout + done.stderr
    with pytest.raises(DeltaError):
        DeltaTable(str(path)).file_uris()

    server.start()
    send(server, make, make.trace_id())
    server.flush()
    assert len(table.rows(path)) == 3 and read_by_polars(path) == 3
    assert (checkpoint.with_name(f".damaged-{checkpoint.name}")).is_file()
    done = server.cli.run("check", DEFAULT_TABLE, "--no-write")
    assert checkpoint.name not in done.stdout + done.stderr


def test_what_another_engine_asks_is_obeyed(make_server: Callable[..., Server]) -> None:
    """`delta.appendOnly` and a retention time, set while the service runs: new traces go in, what would change
    rows is refused or waits, other tables go on, nothing is set back by a restart, and all goes in at last."""
    server = make_server(*SLOW)
    other = "production.monitoring.agent_traces"
    server.cli.ok("setup", other, "--experiment", "/Shared/agent")
    server.start()
    path = server.table_path()
    make = generate.Maker(6)
    first, second = make.trace_id(), make.trace_id()
    send(server, make, first)
    send(server, make, second)
    server.flush()
    alter(path, {"delta.appendOnly": "true", "delta.logRetentionDuration": "interval 7 days"})
    asked = properties(path)

    send(server, make, first)
    send(server, make, make.trace_id())
    otlp.post(
        server.url,
        generate.request(make.span(make.trace_id())),
        headers={"x-mlflow-experiment-id": "1"},
    )
    answer = server.session.post(f"{server.url}/api/v1/flush", timeout=30)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["appended"], answer.json()["amended"], answer.json()["kept"]) == (2, 0, 1)
    body = {"experiment_id": "0", "request_ids": [f"tr-{second.hex()}"]}
    refused = server.session.post(f"{server.url}/api/3.0/mlflow/traces/delete-traces", json=body)
    assert refused.status_code == 403 and "delta.appendOnly" in refused.text
    tag = {"key": "reviewed", "value": "yes"}
    refused = server.session.patch(f"{server.url}/api/3.0/mlflow/traces/tr-{second.hex()}/tags", json=tag)
    assert refused.status_code == 403, refused.text
    (seen,) = [
        row
        for row in json.loads(server.cli.ok("status", "--format", "json"))["tables"]
        if row["table"] == DEFAULT_TABLE
    ]
    assert "delta.appendOnly" in seen["blocked"] and seen["late_traces"] == 1
    assert len(table.rows(path)) == 3 and len(table.rows(server.table_path(other))) == 1
    assert not any("remove" in action for _, action in table.log_actions(path))

    server.restart()
    send(server, make, make.trace_id())
    server.flush()
    assert len(table.rows(path)) == 4 and properties(path) == asked

    alter(path, {"delta.appendOnly": "false"})
    server.flush()
    assert len(table.rows(path)[first.hex()]["spans"]) == 2
    assert properties(path) == asked | {"delta.appendOnly": "false"}


def test_what_an_append_only_table_does_not_take_costs_no_other_table(
    make_server: Callable[..., Server],
) -> None:
    """More late spans for it than open traces may hold: requests go on for all, and what is beyond a part of the
    memory is set aside, not lost."""
    server = make_server("--settle-after", "1h", "--idle-after", "1h", "--max-open", "64KiB")
    server.start()
    path = server.table_path()
    make = generate.Maker(8)
    ids = [make.trace_id() for _ in range(40)]
    for trace_id in ids:
        send(server, make, trace_id)
    server.flush()
    alter(path, {"delta.appendOnly": "true"})
    text = "late words " * 300
    for first in range(0, len(ids), 4):
        for trace_id in ids[first : first + 4]:
            otlp.post(server.url, generate.request(make.span(trace_id, attributes={"text": text})))
        answer = server.session.post(f"{server.url}/api/v1/flush", timeout=30)
        assert answer.status_code == 200, answer.text
    (seen,) = json.loads(server.cli.ok("status", "--format", "json"))["tables"]
    assert seen["open_bytes"] <= 16 << 10 and seen["late_traces"] < len(ids) / 4
    aside = {p.name for p in (server.data_dir / "parked").glob("not-taken-*.payload")}
    assert len(aside) + seen["late_traces"] == len(ids)
    send(server, make, make.trace_id())
    server.flush()
    assert len(table.rows(path)) == len(ids) + 1
