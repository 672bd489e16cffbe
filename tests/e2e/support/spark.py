"""Spark Connect sessions on Sail, and answers of several engines in one form that can be compared."""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from support.server import clean_environment
from support.unity import free_port, process

# Sums of doubles may be added up in any order.
RELATIVE = 1e-9


@contextmanager
def sail(workers: int = 0, **environment: str) -> Iterator:
    """A Spark Connect session on a Sail server of its own, on loopback.

    With `workers` the server is a cluster of that many workers, else it works alone. The rest
    goes into the server's environment, where it reads its settings from.
    """
    from pyspark.sql import SparkSession

    if workers:
        environment |= {
            "SAIL_MODE": "local-cluster",
            "SAIL_CLUSTER__WORKER_INITIAL_COUNT": str(workers),
            "SAIL_CLUSTER__WORKER_MAX_COUNT": str(workers),
        }
    port = free_port()
    command = [
        str(Path(sys.executable).parent / "sail"), "spark", "server", "--ip", "127.0.0.1",
        "--port", str(port),
    ]  # fmt: skip
    with (
        tempfile.TemporaryDirectory() as folder,
        process(command, port, Path(folder) / "sail.log", clean_environment(**environment)),
    ):
        session = SparkSession.builder.remote(f"sc://127.0.0.1:{port}").create()
        try:
            yield session
        finally:
            session.stop()


@dataclass(frozen=True)
class Frame:
    """An answer: names and types of the columns as Spark writes them, and the rows in order."""

    columns: list[tuple[str, str]]
    rows: list[dict]


def of_arrow(answer: object) -> Frame:
    """An Arrow table, or anything that gives an Arrow stream."""
    found = answer if isinstance(answer, pa.Table) else pa.table(answer)
    columns = [(field.name, type_name(field.type)) for field in found.schema]
    plain = [
        [plain_value(value, field.type) for value in column.to_pylist()]
        for field, column in zip(found.schema, found.columns, strict=True)
    ]
    names = found.column_names
    return Frame(columns, [dict(zip(names, row, strict=True)) for row in zip(*plain, strict=True)])


def of_spark(frame: object) -> Frame:
    """The rows of a Spark DataFrame, which are computed now."""
    return of_arrow(frame.toArrow())


def of_json(rows: list[dict], like: Frame) -> Frame:
    """Rows of `--format json`, whose columns have the types of `like`; times are text in them."""
    times = {name for name, kind in like.columns if kind == "timestamp"}
    read = [
        {
            name: datetime.fromisoformat(value).astimezone(UTC)
            if name in times and value is not None
            else value
            for name, value in row.items()
        }
        for row in rows
    ]
    return Frame(like.columns, read)


def assert_same(found: Frame, expected: Frame) -> None:
    """Equal names, types, rows and order; doubles to nine digits, all else exactly."""
    assert found.columns == expected.columns
    wrong = [
        f"row {number}: {changes(a, b)}"
        for number, (a, b) in enumerate(zip(found.rows, expected.rows, strict=False))
        if not same(a, b)
    ]
    assert not wrong, f"{len(wrong)} rows differ\n" + "\n".join(wrong[:5])
    assert len(found.rows) == len(expected.rows)


def changes(found: dict, expected: dict) -> dict[str, tuple]:
    """The columns in which two rows differ."""
    names = [*expected, *(name for name in found if name not in expected)]
    return {
        name: (found.get(name), expected.get(name))
        for name in names
        if name not in found
        or name not in expected
        or not same(found.get(name), expected.get(name))
    }


def same(found: object, expected: object) -> bool:
    """Equal, and of one type; doubles to nine digits."""
    match found, expected:
        case float(), float():
            return math.isclose(found, expected, rel_tol=RELATIVE) or found is expected
        case dict(), dict():
            return found.keys() == expected.keys() and all(
                same(found[key], expected[key]) for key in found
            )
        case list(), list():
            return len(found) == len(expected) and all(map(same, found, expected))
    return type(found) is type(expected) and found == expected


SCALARS = {
    pa.bool_(): "boolean",
    pa.int32(): "int",
    pa.int64(): "bigint",
    pa.float64(): "double",
    pa.string(): "string",
    pa.large_string(): "string",
    pa.string_view(): "string",
    pa.binary(): "binary",
    pa.large_binary(): "binary",
    pa.binary_view(): "binary",
}


def type_name(kind: pa.DataType) -> str:
    """A type as Spark writes it. The zone in which an engine shows its times is no part of it."""
    if kind in SCALARS:
        return SCALARS[kind]
    if pa.types.is_timestamp(kind):
        assert kind.unit == "us" and kind.tz is not None, kind
        return "timestamp"
    if pa.types.is_map(kind):
        return f"map<{type_name(kind.key_type)},{type_name(kind.item_type)}>"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"array<{type_name(kind.value_type)}>"
    if pa.types.is_struct(kind):
        return f"struct<{','.join(f'{field.name}:{type_name(field.type)}' for field in kind)}>"
    return str(kind)


def plain_value(value: object, kind: pa.DataType) -> object:
    """A value of Arrow as plain Python: times in UTC, maps as dictionaries."""
    if value is None:
        return None
    if pa.types.is_timestamp(kind):
        return value.astimezone(UTC)
    if pa.types.is_map(kind):
        return dict(value)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return [plain_value(item, kind.value_type) for item in value]
    if pa.types.is_struct(kind):
        return {field.name: plain_value(value[field.name], field.type) for field in kind}
    return value
