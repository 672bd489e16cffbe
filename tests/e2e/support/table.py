"""The table as readers from outside see it. Nothing here knows tracelake."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder


def query(path: Path, sql: str) -> list[dict]:
    """Rows of a query over the table `t`, by deltalake (which honours deletion vectors)."""
    reader = QueryBuilder().register("t", DeltaTable(str(path))).execute(sql)
    return pa.table(reader).to_pylist()


def rows(path: Path) -> dict[str, dict]:
    """All traces by id without the prefix, those of several rows with the spans of all; fails when an id
    has two rows, or two of one part."""
    found: dict[str, dict] = {}
    parts: dict[tuple[str, int], dict] = {}
    for row in query(path, "select * from t"):
        trace_id = row["trace_id"].removeprefix("tr-")
        if row.get("part") is not None:
            assert (trace_id, row["part"]) not in parts, f"two rows for a part of {row['trace_id']}"
            parts[trace_id, row["part"]] = row
            continue
        assert trace_id not in found, f"two rows for {row['trace_id']}"
        found[trace_id] = row
    for (trace_id, _), row in sorted(parts.items()):
        found[trace_id]["spans"].extend(row["spans"])
    return found


def exists(path: Path) -> bool:
    """Whether a Delta table lies there."""
    return DeltaTable.is_deltatable(str(path))


def epochs(path: Path) -> list[tuple[str, int]]:
    """The epochs of the JSON commits, in order: who committed, and its number."""
    transactions = [action["txn"] for _, action in log_actions(path) if "txn" in action]
    # Beside each epoch is the nonce of its plan.
    return [(t["appId"], t["version"]) for t in transactions if not t["appId"].endswith("-plan")]


def log_actions(path: Path) -> Iterator[tuple[int, dict]]:
    """Every action of the JSON commits as (version, action)."""
    for commit in sorted((path / "_delta_log").glob("*.json")):
        for line in commit.read_text().splitlines():
            yield int(commit.stem), json.loads(line)


def data_bytes(path: Path) -> int:
    """Bytes of the live data files."""
    adds = pa.table(DeltaTable(str(path)).get_add_actions(flatten=True))
    return sum(adds.column("size_bytes").to_pylist())


COUNTS = ("traces", "spans", "error_traces")


def counts_deltalake(path: Path) -> tuple[int, int, int]:
    """Traces, spans, traces with an error, by deltalake."""
    (row,) = query(
        path,
        "select count(*) a, sum(cardinality(spans)) b,"
        " sum(case when trace_info['status'] = 'ERROR' or error_span_count > 0 then 1 else 0 end) c from t",
    )
    return int(row["a"]), int(row["b"]), int(row["c"])


@contextmanager
def duckdb_connection():
    """DuckDB with its Delta extension loaded, which is a Python package here and not a download."""
    import duckdb
    import duckdb_ext

    base = Path(duckdb_ext.__path__[0])
    (extension,) = base.glob(f"extensions/v{duckdb.__version__}/*/delta.duckdb_extension")
    with duckdb.connect(config={"allow_unsigned_extensions": "true"}) as connection:
        connection.execute(f"load '{extension}'")
        yield connection


def counts_duckdb(path: Path) -> tuple[int, int, int]:
    """The same by DuckDB's Delta extension."""
    with duckdb_connection() as connection:
        row = connection.execute(
            "select count(*), sum(len(spans)),"
            " count(*) filter (trace_info.status = 'ERROR'"
            " or len(list_filter(spans, lambda s: s.status = 'ERROR')) > 0)"
            " from delta_scan(?)",
            [str(path)],
        ).fetchone()
    return int(row[0]), int(row[1]), int(row[2])


def counts_polars(path: Path) -> tuple[int, int, int]:
    """The same by Polars."""
    import polars as pl

    statuses = pl.col("spans").list.eval(pl.element().struct.field("status") == "ERROR")
    failed = (pl.col("trace_info").struct.field("status") == "ERROR") | statuses.list.any()
    row = (
        pl.scan_delta(str(path))
        .select(
            pl.len().alias("a"),
            pl.col("spans").list.len().sum().alias("b"),
            failed.sum().alias("c"),
        )
        .collect()
        .row(0)
    )
    return int(row[0]), int(row[1]), int(row[2])


def counts_sail(session, path: Path) -> tuple[int, int, int]:
    """The same by Sail through Spark Connect."""
    session.read.format("delta").load(str(path)).createOrReplaceTempView("archived")
    row = session.sql(
        "select count(*), sum(size(spans)), sum(case when trace_info.status = 'ERROR'"
        " or array_contains(spans.status, 'ERROR') then 1 else 0 end) from archived"
    ).collect()[0]
    return int(row[0]), int(row[1]), int(row[2])
