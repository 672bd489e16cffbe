"""Verifications by the command, and tables that are changed by hand, past everybody."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, QueryBuilder

from support import table
from support.server import DEFAULT_TABLE, Cli


def verify(cli: Cli, *arguments: str) -> tuple[int, list[dict]]:
    """Exit code and rows of a verification."""
    done = cli.run("verify", DEFAULT_TABLE, "--format", "json", *arguments)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, json.loads(done.stdout)


def found(rows: list[dict]) -> list[tuple[str, str, int, int]]:
    """What is wrong: trace, result, spans, rows of the trace."""
    traces = [row for row in rows if row["kind"] == "trace"]
    return sorted((row["trace_id"], row["result"], row["spans"], row["rows"]) for row in traces)


def faults(rows: list[dict]) -> list[str]:
    """Other faults than traces."""
    return [row["text"] for row in rows if row["kind"] == "fault"]


def rewrite(path: Path, change: Callable[[list[dict]], list[dict]]) -> None:
    """Replaces the rows of a table, past everybody: a file by pyarrow, a commit by hand."""
    schema = pq.read_schema(path / next(iter(live(path))))
    rows = pa.Table.from_pylist(change(read(path).to_pylist()), schema=schema)
    name = f"by-hand-{rows.num_rows}.parquet"
    pq.write_table(rows, path / name)
    added = {
        "path": name,
        "partitionValues": {},
        "size": (path / name).stat().st_size,
        "modificationTime": 0,
        "dataChange": True,
    }
    commit(path, *(removal(add) for add in live(path).values()), {"add": added})


def live(path: Path) -> dict[str, dict]:
    """The `add` actions that stand, by path; the log has no checkpoint yet."""
    adds: dict[str, dict] = {}
    for _, action in table.log_actions(path):
        if "remove" in action:
            adds.pop(action["remove"]["path"], None)
        if "add" in action:
            adds[action["add"]["path"]] = action["add"]
    return adds


def removal(add: dict) -> dict:
    """The action that takes a file out."""
    vector = {"deletionVector": add["deletionVector"]} if add.get("deletionVector") else {}
    return {"remove": {"path": add["path"], "deletionTimestamp": 0, "dataChange": True, **vector}}


def commit(path: Path, *actions: dict) -> None:
    """Writes the next version of the log."""
    version = DeltaTable(str(path)).version() + 1
    lines = "".join(json.dumps(action) + "\n" for action in actions)
    (path / "_delta_log" / f"{version:020}.json").write_text(lines)


def delete(path: Path, trace_id: str) -> None:
    """Takes a row out by hand."""
    rewrite(path, lambda rows: [row for row in rows if row["trace_id"] != trace_id])


def read(path: Path) -> pa.Table:
    """All rows, by deltalake."""
    reader = QueryBuilder().register("t", DeltaTable(str(path))).execute("select * from t")
    return pa.table(reader)
