"""The Python package's answers: from a service, a data folder or a table, into every library, and faults."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import deltalake
import duckdb
import pandas
import polars
import pyarrow as pa
import pytest
import tracelake
from tracelake import errors

from support import generate, otlp, spark, table
from support.generate import Maker
from support.server import DEFAULT_TABLE, Server, clean_environment
from test_bad_names import NAMES, NASTY, safe_to_show, tree

SINCE = datetime(2020, 1, 1, tzinfo=UTC)
NAME = "production.monitoring.agent_traces"
HOSTILE = '<script>alert(1)</script>\x1b[31m\u202e"\'`&\x00'


def python(script: str, cwd: Path, **environment: str) -> str:
    """What a program printed that ran in a process of its own; it must end well."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True, text=True, timeout=120, cwd=cwd, stdin=subprocess.DEVNULL,
        env=clean_environment(**environment),
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def fill(server: Server) -> None:
    """Odd traces in the default table, failed and hostile ones among them."""
    make = Maker(5)
    bodies = [body for _, body in generate.tricky()] + generate.random_traces(3, 20)
    failed = make.span(make.trace_id(), "fail", status=generate.status_error("it broke"))
    hostile = make.span(
        make.trace_id(), HOSTILE.replace("\0", ""),
        status=generate.status_error(HOSTILE.replace("\0", "")),
        attributes={"mlflow.spanInputs": HOSTILE.replace("\0", "")},
    )  # fmt: skip
    bodies += [generate.request(failed), generate.request(hostile)]
    for body in bodies:
        otlp.post(server.url, body, session=server.session)
    server.flush()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service with traces in its default table; no test of this module changes them."""
    started = Server(tmp_path_factory.mktemp("python") / "data")
    try:
        started.start()
        fill(started)
        yield started
        started.stop()
    finally:
        started.close()


@pytest.fixture(scope="module")
def alone(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the same traces, and no service."""
    folder = tmp_path_factory.mktemp("alone") / "data"
    other = Server(folder)
    try:
        other.start()
        fill(other)
        other.stop()
    finally:
        other.close()
    return folder


PLACES: dict[str, Callable[[Server, Path], dict]] = {
    "service": lambda server, _: {"uri": server.url},
    "service with a slash": lambda server, _: {"uri": f"{server.url}/"},
    "folder of a service": lambda server, _: {"uri": server.data_dir},
    "folder as a URL": lambda server, _: {"uri": server.data_dir.as_uri()},
    "folder alone": lambda _, alone: {"uri": str(alone)},
    "table": lambda server, _: {"uri": server.table_path()},
    "table of a call": lambda server, alone: {
        "uri": str(alone), "trace_table": server.table_path(),
    },
    "table of a call to a service": lambda server, _: {
        "uri": server.url, "trace_table": f"{server.table_path()}/",
    },
    "name": lambda server, _: {"uri": server.url, "trace_table": DEFAULT_TABLE},
}  # fmt: skip


def by_id(result: object) -> dict[str, dict]:
    """Rows of a result by trace id without the prefix."""
    rows = pa.table(result).to_pylist()
    found = {row["trace_id"].removeprefix("tr-"): row for row in rows}
    assert len(found) == len(rows)
    return found


# --- from everywhere ----------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
def test_every_place_has_the_rows(place: str, server: Server, alone: Path) -> None:
    """Each function, against what deltalake reads from the table."""
    where = PLACES[place](server, alone)
    truth = table.rows(alone_table(alone) if place == "folder alone" else server.table_path())
    rows = by_id(tracelake.query_archived_traces(**where))
    assert rows == truth
    created = [row["created_at"] for row in rows.values()]
    assert created == sorted(created, reverse=True)
    assert by_id(tracelake.list_traces(**where)).keys() == truth.keys()
    failed = {
        key for key, row in truth.items()
        if row["trace_info"]["status"] == "ERROR" or row["error_span_count"]
    }  # fmt: skip
    assert by_id(tracelake.analyze_trace_errors(**where)).keys() == failed
    assert len(failed) > 1
    performance = by_id(tracelake.analyze_trace_performance(**where))
    for key, row in truth.items():
        assert performance[key]["span_count"] == len(row["spans"])
        total = sum(
            span["end_time_unix_nano"] - span["start_time_unix_nano"]
            for span in row["spans"]
            if span["start_time_unix_nano"] and span["end_time_unix_nano"]
        )
        assert performance[key]["total_duration_ms"] == pytest.approx(total / 1e6, rel=1e-12)
    groups = tracelake.analyze_trace_errors(group=True, **where).to_dicts()
    assert "it broke" in {group["error_message"] for group in groups}
    by_name = tracelake.analyze_trace_performance(by="span_name", **where).to_dicts()
    assert sum(row["span_count"] for row in by_name) == sum(len(row["spans"]) for row in truth.values())
    (count,) = tracelake.sql("SELECT count(*) AS n FROM traces", **where).to_dicts()
    assert count["n"] == len(truth)
    some = next(iter(truth))
    assert by_id(tracelake.get_trace(some, **where)) == {some: truth[some]}


def alone_table(alone: Path) -> Path:
    return alone.joinpath("tables", *DEFAULT_TABLE.split("."))


def test_a_table_of_another_writer(tmp_path: Path) -> None:
    """Written by deltalake with the contract's columns alone, and read by its path."""
    now = datetime.now(UTC)
    span = {
        "span_id": "01", "name": "root", "span_type": "AGENT", "start_time": now - timedelta(seconds=2),
        "end_time": now, "status": "ERROR", "inputs": "{}", "outputs": None,
        "tags": [("k", "v")], "metadata": [("m", "1")],
    }  # fmt: skip
    info = {"request_id": "r", "timestamp": now, "status": "OK"}
    row = {
        "trace_id": "tr-" + "1" * 32, "experiment_id": "7", "run_id": None,
        "trace_info": info, "spans": [span], "created_at": now,
    }  # fmt: skip
    time, text = pa.timestamp("us", "UTC"), pa.string()
    texts = {name: text for name in ("span_id", "name", "span_type", "status", "inputs", "outputs")}
    maps = {"tags": pa.map_(text, text), "metadata": pa.map_(text, text)}
    order = (
        "span_id", "name", "span_type", "start_time", "end_time", "status", "inputs", "outputs",
        "tags", "metadata",
    )  # fmt: skip
    kinds = texts | maps | {"start_time": time, "end_time": time}
    schema = pa.schema(
        [
            pa.field("trace_id", text, nullable=False), ("experiment_id", text), ("run_id", text),
            ("trace_info", pa.struct([("request_id", text), ("timestamp", time), ("status", text)])),
            ("spans", pa.list_(pa.struct([(name, kinds[name]) for name in order]))),
            pa.field("created_at", time, nullable=False),
        ]
    )  # fmt: skip
    path = tmp_path / "theirs"
    deltalake.write_deltalake(str(path), pa.Table.from_pylist([row], schema))
    (read,) = pa.table(tracelake.query_archived_traces(uri=path)).to_pylist()
    assert set(row) < set(read) and read["span_count"] is None
    assert {name: read[name] for name in row} == row | {"spans": read["spans"]}
    (found,) = read["spans"]
    assert {name: found[name] for name in span} == span and found["parent_span_id"] is None
    (failed,) = tracelake.analyze_trace_errors(trace_table=path).to_dicts()
    assert (failed["status"], failed["error_span_count"]) == ("OK", 1)
    (slow,) = tracelake.analyze_trace_performance(trace_table=path).to_dicts()
    assert slow["total_duration_ms"] == pytest.approx(2000)
    assert len(tracelake.list_traces(uri=path)) == 1
    assert len(tracelake.analyze_trace_performance(by="span_type", uri=path)) == 1
    assert len(tracelake.get_trace("1" * 32, uri=path)) == 1


def test_uncommitted_rows_show(make_server: Callable[..., Server]) -> None:
    """By URI and beside the service; not in the table's folder, which has none of them yet."""
    server = make_server(
        "--settle-after", "1h", "--idle-after", "1h", "--commit-every", "1h", quick=False
    )
    server.start()
    make = Maker(1)
    ids = [make.trace_id() for _ in range(3)]
    for trace_id in ids:
        otlp.post(server.url, generate.request(make.span(trace_id)))
    expected = {trace_id.hex() for trace_id in ids}
    for uri in (server.url, server.data_dir):
        assert by_id(tracelake.query_archived_traces(uri=uri)).keys() == expected
        assert len(tracelake.get_trace(ids[0].hex(), uri=uri)) == 1
    assert not table.exists(server.table_path()) or table.rows(server.table_path()) == {}
    tracelake.flush(uri=server.data_dir)
    assert table.rows(server.table_path()).keys() == expected
    server.stop()


def test_where_calls_go(server: Server, alone: Path, tmp_path: Path) -> None:
    """set_uri, then serve(), TRACELAKE_URI, TRACELAKE_DATA_DIR, ./tracelake-data."""
    script = """
import json, os, tracelake
seen = [tracelake.get_uri()]
del os.environ["TRACELAKE_URI"]; seen.append(tracelake.get_uri())
del os.environ["TRACELAKE_DATA_DIR"]; seen.append(tracelake.get_uri())
os.environ["TRACELAKE_URI"] = "http://127.0.0.1:1"
one = tracelake.serve("one"); two = tracelake.serve("two")
assert tracelake.get_uri() == two.uri != one.uri
tracelake.set_uri("http://me:secret@127.0.0.1:2/"); seen.append(tracelake.get_uri())
tracelake.set_uri(None); assert tracelake.get_uri() == two.uri
two.stop(); assert tracelake.get_uri() == one.uri
one.stop(); seen.append(tracelake.get_uri())
try: tracelake.set_uri("s3://bucket/x")
except tracelake.errors.InvalidArgumentError: seen.append(tracelake.get_uri())
print(json.dumps(seen))
"""
    printed = python(script, tmp_path, TRACELAKE_URI=server.url, TRACELAKE_DATA_DIR=str(alone))
    assert json.loads(printed) == [
        server.url, str(alone), "./tracelake-data", "http://127.0.0.1:2", "http://127.0.0.1:1",
        "http://127.0.0.1:1",
    ]  # fmt: skip


# --- what is asked ------------------------------------------------------------------------------


def test_times_are_exact(server: Server) -> None:
    """To the microsecond, at both ends, in any zone; without a zone it is local time."""
    truth = table.rows(server.table_path())
    moment = sorted(row["created_at"] for row in truth.values())[len(truth) // 2]
    step = timedelta(microseconds=1)

    def count(since: datetime | None, until: datetime | None) -> int:
        return len(tracelake.list_traces(since, until, uri=server.url))

    def expected(since: datetime, until: datetime) -> int:
        return sum(since <= row["created_at"] <= until for row in truth.values())

    east = moment.astimezone(timezone(timedelta(hours=5, minutes=45)))
    local = moment.astimezone().replace(tzinfo=None)
    assert expected(moment, moment) > 0
    for since, until in ((moment, moment), (east, east), (local, local)):
        assert count(since, until) == expected(moment, moment)
        # pandas has times of its own, which are datetimes.
        assert count(pandas.Timestamp(since), pandas.Timestamp(until)) == expected(moment, moment)
    far = moment + timedelta(days=1)
    assert count(moment + step, far) == expected(moment + step, far)
    assert count(SINCE, moment - step) == expected(SINCE, moment - step)
    for first in (datetime.min, datetime.min.replace(tzinfo=UTC), SINCE, None):
        for last in (datetime.max, datetime.max.replace(tzinfo=UTC), None):
            assert count(first, last) == len(truth)
    for since, until in ((moment, moment - step), (None, moment - timedelta(days=2))):
        with pytest.raises(errors.InvalidArgumentError, match="ends before it begins"):
            count(since, until)


def test_an_analysis_asks_where_its_frame_was(
    server: Server, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its place, also when the process went on; its range, each bound unless it is said."""
    for name in ("TRACELAKE_URI", "TRACELAKE_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(alone.parent)
    secret = server.url.replace("//", "//me:secret@")
    for uri in (server.url, secret, str(alone), alone.name, Path(alone.name)):
        frame = tracelake.query_archived_traces(SINCE, uri=uri)
        expected = by_id(tracelake.analyze_trace_errors(uri=uri))
        with monkeypatch.context() as elsewhere:
            elsewhere.chdir(tmp_path)
            assert by_id(tracelake.analyze_trace_errors(frame)) == expected
            assert len(tracelake.analyze_trace_performance(frame)) == len(frame)
        assert "secret" not in repr(frame) + frame._repr_html_()
    middle = sorted(row["created_at"] for row in by_id(frame).values())[len(frame) // 2]
    until = tracelake.analyze_trace_performance(frame, end_time=middle)
    since = tracelake.analyze_trace_performance(until, start_time=middle)
    micros = [int(moment.timestamp()) * 10**6 + moment.microsecond for moment in (SINCE, middle)]
    assert until.scope is not None and list(until.scope[1:]) == micros
    assert since.scope is not None and since.scope[1:] == (micros[1], micros[1])
    with pytest.raises(errors.InvalidArgumentError, match="ends before it begins"):
        tracelake.analyze_trace_errors(since, start_time=middle + timedelta(microseconds=1))


def test_other_frames_need_a_table(server: Server) -> None:
    """What is no answer about a table and a range is analysed only where the table is named."""
    rows = tracelake.sql("SELECT * FROM traces LIMIT 1", uri=server.url)
    some = tracelake.get_trace(rows.to_dicts()[0]["trace_id"], uri=server.url)
    for frame in (rows, some):
        for analyze in (tracelake.analyze_trace_errors, tracelake.analyze_trace_performance):
            with pytest.raises(errors.InvalidArgumentError, match="traces_df does not say") as caught:
                analyze(frame, uri=server.url)
            assert "trace_table=" in (caught.value.hint or "")
            named = analyze(frame, DEFAULT_TABLE, uri=server.url)
            assert by_id(named) == by_id(analyze(uri=server.url))


def test_limits(server: Server) -> None:
    """The newest rows; more than any number of rows is no limit; nonsense is refused."""
    truth = len(table.rows(server.table_path()))
    newest = pa.table(tracelake.list_traces(uri=server.url))
    for limit in (0, 1, 3, truth, truth + 1, 2**63, 2**200, None):
        for uri in (server.url, server.data_dir):
            found = pa.table(tracelake.list_traces(limit=limit, uri=uri))
            assert found == newest.slice(0, limit if limit is not None and limit < truth else None)
    for limit in (-1, 1.5, "1"):
        with pytest.raises(errors.InvalidArgumentError, match="no number of rows"):
            tracelake.list_traces(limit=limit, uri=server.url)  # type: ignore[arg-type]


def test_payloads_can_be_left_out(server: Server) -> None:
    """The rest is the same, value for value."""
    whole = pa.table(tracelake.query_archived_traces(uri=server.url))
    light = pa.table(tracelake.query_archived_traces(uri=server.url, payloads=False))
    missing = set(whole.column_names) - set(light.column_names)
    assert missing == {"request_preview", "response_preview", "trace_metadata"}
    spans = {field.name for field in whole.schema.field("spans").type.value_type}
    kept = {field.name for field in light.schema.field("spans").type.value_type}
    assert {"inputs", "outputs", "tags", "metadata", "events", "links"} <= spans - kept
    rows = whole.to_pylist()
    for row in rows:
        row["spans"] = [{name: span[name] for name in span if name in kept} for span in row["spans"]]
    names = light.column_names
    assert [{name: row[name] for name in names} for row in rows] == light.to_pylist()


def test_mlflow_objects_are_those_of_its_client(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal to what MLflow reads from the service, trace by trace; its notebook viewer shows them."""
    import mlflow

    monkeypatch.setattr("mlflow.tracking._tracking_service.utils._tracking_uri", None)
    mlflow.set_tracking_uri(server.url)
    try:
        found = tracelake.query_archived_traces(as_mlflow=True, uri=server.data_dir)
        assert len(found) == len(table.rows(server.table_path()))
        for trace in found:
            theirs = mlflow.get_trace(trace.info.trace_id)
            assert trace.to_dict() == theirs.to_dict()
            one = tracelake.get_trace(trace.info.trace_id, as_mlflow=True, uri=server.url)
            assert one.to_json() == trace.to_json()
        bundle = found[0]._repr_mimebundle_()
        shown = bundle.get("application/databricks.mlflow.trace") or bundle["text/plain"]
        assert found[0].info.trace_id in shown
    finally:
        mlflow.set_tracking_uri(None)
    for wrong in ({"payloads": False}, {"spark": object()}):
        with pytest.raises(errors.InvalidArgumentError, match="whole rows"):
            tracelake.query_archived_traces(as_mlflow=True, uri=server.url, **wrong)
    rows = tracelake.sql("SELECT trace_id FROM traces", uri=server.url)
    with pytest.raises(errors.InvalidArgumentError, match="MLflow traces"):
        rows.mlflow_json()


# --- where rows go ------------------------------------------------------------------------------


def test_every_library_has_the_same_rows(server: Server) -> None:
    """Maps and nested lists included: pyarrow, pandas, Polars, DuckDB, each by its usual way."""
    result = tracelake.query_archived_traces(uri=server.url)
    expected = list(table.rows(server.table_path()).values())
    expected.sort(key=lambda row: row["trace_id"])

    def rows(found: pa.Table) -> list[dict]:
        plain = spark.of_arrow(found).rows
        return sorted(plain, key=lambda row: row["trace_id"])

    truth = rows(pa.Table.from_pylist(expected, pa.schema(pa.table(result).schema)))
    assert rows(result.to_arrow()) == rows(pa.table(result)) == truth
    for frame in (result.to_polars(), polars.DataFrame(result)):
        ours = frame.sort("trace_id").select("trace_id", "span_count", "tags", "spans")
        for row, expect in zip(ours.to_dicts(), truth, strict=True):
            assert (row["trace_id"], row["span_count"]) == (expect["trace_id"], expect["span_count"])
            assert as_dict(row["tags"]) == expect["tags"]
            assert [span["name"] for span in row["spans"]] == [s["name"] for s in expect["spans"]]
    frame = result.to_pandas(maps_as_pydicts="strict")
    assert isinstance(frame, pandas.DataFrame) and list(frame.columns) == result.column_names
    for row, expect in zip(frame.sort_values("trace_id").to_dict("records"), truth, strict=True):
        assert row["tags"] == expect["tags"]
        assert [dict(span)["inputs"] for span in row["spans"]] == [
            span["inputs"] for span in expect["spans"]
        ]
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        by_name = connection.sql("SELECT * FROM result ORDER BY trace_id")
        assert rows(by_name.to_arrow_table()) == truth
        by_arrow = connection.from_arrow(pa.table(result))
        assert rows(by_arrow.to_arrow_table()) == truth
        spans = connection.sql("SELECT sum(len(spans))::INT FROM result").fetchone()
    assert spans == (sum(len(row["spans"]) for row in truth),)
    assert [row["trace_id"] for row in result.to_dicts()] == [
        row["trace_id"] for row in pa.table(result).to_pylist()
    ]


def as_dict(tags: object) -> dict:
    """A map as Polars gives it: of its own type, or as a list of pairs."""
    return tags if isinstance(tags, dict) else {pair["key"]: pair["value"] for pair in tags}


def addresses(found: pa.Table) -> set[int]:
    chunks = [chunk for column in found.columns for chunk in column.chunks]
    return {buffer.address for chunk in chunks for buffer in chunk.buffers() if buffer is not None}


@pytest.mark.parametrize("place", ["service", "folder alone"])
def test_nothing_is_copied(place: str, server: Server, alone: Path) -> None:
    """Two exports have their buffers at the same addresses; they outlive the result."""
    result = tracelake.query_archived_traces(**PLACES[place](server, alone))
    first, second = pa.table(result), result.to_arrow()
    assert addresses(first) == addresses(second) and len(addresses(first)) > 50
    rows = first.to_pylist()
    del result, first
    assert second.to_pylist() == rows


def test_results_are_for_every_thread(server: Server) -> None:
    """One result, read by many at once."""
    result = tracelake.query_archived_traces(uri=server.url)
    ways = [pa.table, polars.DataFrame, repr, len, tracelake.QueryResult.to_dicts] * 8
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda way: way(result), ways))
    assert all(done[number].equals(done[number % 5]) for number in range(0, 40, 5))
    assert {done[number] for number in range(2, 40, 5)} == {repr(result)}


def test_hostile_text_is_only_shown(server: Server) -> None:
    """In notebooks it is no markup, in terminals no control code."""
    literal, name = HOSTILE.replace("'", "''"), HOSTILE.replace('"', "")
    for result in (
        tracelake.sql("SELECT * FROM traces WHERE trace_name LIKE '<script%'", uri=server.url),
        tracelake.analyze_trace_errors(uri=server.url),
        tracelake.analyze_trace_errors(group=True, uri=server.url),
        tracelake.sql(f"SELECT '{literal}' AS \"<b>{name}\"", uri=server.url),
    ):
        html = result._repr_html_()
        assert "<script" not in html and "<b>" not in html and "&lt;script&gt;" in html
        assert safe_to_show(html) and safe_to_show(repr(result))
    assert len(repr(tracelake.list_traces(uri=server.url)).splitlines()[0]) <= 160


def test_empty_results_keep_their_columns(server: Server) -> None:
    """Names and types are those of a full one, in every library."""
    long_ago = {"end_time": SINCE, "start_time": SINCE}
    for ask in (
        tracelake.query_archived_traces, tracelake.list_traces, tracelake.analyze_trace_errors,
        tracelake.analyze_trace_performance,
    ):  # fmt: skip
        for uri in (server.url, server.data_dir):
            empty, full = ask(uri=uri, **long_ago), ask(uri=uri)
            assert len(empty) == 0 and len(full) > 0
            assert pa.table(empty).schema == pa.table(full).schema
            assert polars.DataFrame(empty).schema == polars.DataFrame(full).schema
            assert list(empty.to_pandas().columns) == full.column_names
            assert empty.to_dicts() == [] and "0 rows" in repr(empty)


def test_rows_need_no_other_package(server: Server, tmp_path: Path) -> None:
    """Without pyarrow and the like there are dictionaries, text and HTML; the rest says what is missing."""
    script = """
import json, sys
for name in ("pyarrow", "pandas", "polars", "mlflow", "pyspark"):
    sys.modules[name] = None
import tracelake
rows = tracelake.query_archived_traces()
assert len(rows) == len(rows.to_dicts()) > 0 and repr(rows) and rows._repr_html_()
assert rows.to_dicts()[0]["created_at"].startswith("20")
for way in (rows.to_arrow, rows.to_pandas, rows.to_polars,
            lambda: tracelake.query_archived_traces(as_mlflow=True)):
    try: way()
    except tracelake.errors.MissingPackageError as error: print(error.hint)
"""
    printed = python(script, tmp_path, TRACELAKE_URI=server.url).splitlines()
    assert [line.split()[2].strip(",") for line in printed] == ["pyarrow", "pandas", "polars", "mlflow"]


# --- what goes wrong ----------------------------------------------------------------------------

FAULTS: dict[str, tuple[type, str, Callable[..., object]]] = {
    "no sql": (errors.SqlSyntaxError, "parse", lambda **u: tracelake.sql("selec", **u)),
    "empty sql": (errors.SqlSyntaxError, "No SQL", lambda **u: tracelake.sql("", **u)),
    "two statements": (
        errors.SqlSyntaxError, "single", lambda **u: tracelake.sql("SELECT 1; DROP TABLE traces", **u),
    ),
    "a change": (errors.ReadOnlyError, "`DROP`", lambda **u: tracelake.sql("DROP TABLE traces", **u)),
    "a copy": (
        errors.ReadOnlyError, "COPY", lambda **u: tracelake.sql("COPY traces TO '/tmp/stolen.csv'", **u),
    ),
    "a file": (
        errors.TableNotFoundError, "passwd", lambda **u: tracelake.sql("SELECT * FROM '/etc/passwd'", **u),
    ),
    "a column": (errors.QueryError, "`nope`", lambda **u: tracelake.sql("SELECT nope FROM traces", **u)),
    "a number": (errors.QueryError, "zero", lambda **u: tracelake.sql("SELECT 1/0", **u)),
    "a table": (errors.TableNotFoundError, "`a.b.c`", lambda **u: tracelake.list_traces(trace_table="a.b.c", **u)),
    "a table in sql": (errors.TableNotFoundError, "`a.b.c`", lambda **u: tracelake.sql("SELECT * FROM a.b.c", **u)),
    "a folder": (errors.TableNotFoundError, "`/no/table`", lambda **u: tracelake.list_traces(trace_table="/no/table", **u)),
    "a name": (errors.InvalidArgumentError, "`a.b`", lambda **u: tracelake.list_traces(trace_table="a.b", **u)),
    "a trace id": (errors.InvalidArgumentError, "`x`", lambda **u: tracelake.get_trace("x", **u)),
    "a trace": (errors.TraceNotFoundError, "f" * 32, lambda **u: tracelake.get_trace("f" * 32, **u)),
    "an experiment": (
        errors.ExperimentNotFoundError, "`nobody`",
        lambda **u: tracelake.disable_trace_archival(experiment="nobody", **u),
    ),
    "which experiment": (
        errors.InvalidArgumentError, "experiment", lambda **u: tracelake.disable_trace_archival(**u),
    ),
    "half a table": (
        errors.InvalidArgumentError, "three", lambda **u: tracelake.disable_trace_archival("a", **u),
    ),
    "a file that is not there": (
        errors.ImportFailedError, "/no/such.pb", lambda **u: tracelake.import_traces("/no/such.pb", **u),
    ),
    "a grouping": (
        errors.InvalidArgumentError, "'week'", lambda **u: tracelake.analyze_trace_performance(by="week", **u),
    ),
    "a frame": (
        errors.InvalidArgumentError, "list", lambda **u: tracelake.analyze_trace_errors([], **u),
    ),
    "no time": (errors.InvalidArgumentError, "NaT is no", lambda **u: tracelake.list_traces(pandas.NaT, **u)),
    "a time": (errors.InvalidArgumentError, "no datetime", lambda **u: tracelake.list_traces("today", **u)),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_the_same_everywhere(fault: str, server: Server) -> None:
    """By URI and beside it: class, message and hint; and they come through pickle whole."""
    kind, words, call = FAULTS[fault]
    told = []
    for uri in (server.url, server.data_dir):
        with pytest.raises(errors.TracelakeError) as caught:
            call(uri=uri)
        told.append(caught.value)
    by_uri, by_folder = told
    assert type(by_uri) is type(by_folder) is kind
    assert (by_uri.message, by_uri.hint) == (by_folder.message, by_folder.hint)
    assert words in by_uri.message and safe_to_show(str(by_uri))
    again = pickle.loads(pickle.dumps(by_uri))
    assert type(again) is kind and str(again) == str(by_uri) and again.hint == by_uri.hint
    assert getattr(again, "report", None) == getattr(by_uri, "report", None)


def test_every_error_is_in_the_tree() -> None:
    """Each with the builtin that a caller may catch as well, and picklable."""
    kinds = [getattr(errors, name) for name in errors.__all__]
    builtin = {
        errors.InvalidArgumentError: ValueError,
        errors.NotFoundError: LookupError,
        errors.MissingPackageError: ImportError,
        errors.ServiceUnavailableError: ConnectionError,
    }
    for kind in kinds:
        assert issubclass(kind, errors.TracelakeError)
        for hint in ("try that", None):
            made = kind("it broke", hint, None) if kind is errors.ImportFailedError else kind("it broke", hint)
            again = pickle.loads(pickle.dumps(made))
            assert type(again) is kind and (again.message, again.hint) == ("it broke", hint)
            assert str(again) == str(made) == ("it broke" if hint is None else "it broke\nhint: try that")
    for kind, base in builtin.items():
        assert issubclass(kind, base)


def test_what_is_shown_is_on_its_line() -> None:
    """Hostile words of others in errors and checklists; results that a later service has."""
    evil = "a\x1b]0;owned\x07\u202e\nhint: run this\ud800" + HOSTILE
    for hint in (None, evil):
        shown = str(errors.QueryError(evil, hint))
        assert safe_to_show(shown) and shown.count("\nhint: ") == (hint is not None)
        assert shown.startswith(r"a\x1b]0;owned\x07\u202e\nhint: run this\ud800")
    endless = errors.QueryError("x" * 10**7, "y" * 10**7)
    assert len(str(endless)) < 21_000 and len(endless.message) == 10**7
    items = [tracelake.CheckItem(evil, "ok", evil, evil), tracelake.CheckItem("b", "odd\n", "c", None)]
    report = tracelake.CheckReport("a.b.c", tuple(items))
    assert not report and not report.ok and report.failed == items[1:]
    for shown in (str(report), repr(report), report._repr_html_()):
        assert safe_to_show(shown)
        assert "1 ok, 0 to note, 0 skipped, 1 failed" in shown
    assert len(str(report).splitlines()) == 5 and "<script" not in report._repr_html_()
    assert tracelake.CheckReport("a.b.c", tuple(items[:1]))


def test_nobody_answers(tmp_path: Path) -> None:
    """No service, something else, no folder: named, without the password."""
    with pytest.raises(errors.ServiceUnavailableError) as caught:
        tracelake.list_traces(uri="http://me:secret@127.0.0.1:1/")
    assert "http://127.0.0.1:1" in caught.value.message and "secret" not in str(caught.value)
    with pytest.raises(errors.InvalidArgumentError, match="no data folder"):
        tracelake.list_traces(uri=tmp_path / "nothing")
    for wrong in ("", "s3://bucket/x", "http://", "http://127.0.0.1:99999"):
        with pytest.raises(errors.InvalidArgumentError):
            tracelake.list_traces(uri=wrong)
    assert not (tmp_path / "nothing").exists()


def test_settings_of_serve_are_looked_at(tmp_path: Path) -> None:
    """A wrong one is named, and nothing runs afterwards."""
    for wrong in (
        {"listen": "here"}, {"listen": "0.0.0.0:0"}, {"otlp_grpc": "127.0.0.1"}, {"nope": 1},
        {"settle_after": "soon"}, {"settle_after": None}, {"settle_after": 1.5},
        {"a = 1\nlisten": "127.0.0.1:0"},
    ):  # fmt: skip
        with pytest.raises(errors.InvalidArgumentError) as caught:
            tracelake.serve(tmp_path / "data", **wrong)
        assert caught.value.hint and safe_to_show(str(caught.value))
    assert not (tmp_path / "data" / "server.json").exists()


@pytest.mark.parametrize("name", NASTY)
def test_names_are_never_paths_or_sql(name: str, server: Server, tmp_path: Path) -> None:
    """As table, experiment and text of a statement: kept exactly, or refused in safe words."""
    text, before = NAMES[name], tree(server.data_dir.parent)
    for uri in (server.url, server.data_dir):
        for call in (
            lambda uri=uri: tracelake.list_traces(trace_table=f"a.{text}.c", uri=uri),
            lambda uri=uri: tracelake.sql("SELECT 1", trace_table=text or " ", uri=uri),
            lambda uri=uri: tracelake.get_trace(text, uri=uri),
            lambda uri=uri: tracelake.check(f"{text}.b.c", uri=uri),
            lambda uri=uri: tracelake.disable_trace_archival(experiment=f"no {text}", uri=uri),
            lambda uri=uri: tracelake.sql(f'SELECT "{text.replace(chr(34), "")}" FROM traces', uri=uri),
        ):
            try:
                call()
            except errors.TracelakeError as error:
                assert safe_to_show(str(error)), error
        literal = text.replace("'", "''")
        (row,) = tracelake.sql(f"SELECT '{literal}' AS said", uri=uri).to_dicts()
        assert row == {"said": text}
    assert tree(server.data_dir.parent) - before <= {"data/journal"}
    assert not tree(tmp_path)


# --- paths and files ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "\u00e4 `x' #?&"])
def test_paths_are_paths(name: str, alone: Path, tmp_path: Path) -> None:
    """Characters that have a meaning elsewhere; as text and as path, also relative."""
    folder = tmp_path / name
    shutil.copytree(alone_table(alone), folder / "table")
    expected = len(table.rows(alone_table(alone)))
    relative = os.path.relpath(folder / "table")
    for place in (folder / "table", str(folder / "table"), relative, Path(relative)):
        rows = tracelake.list_traces(trace_table=place, uri=alone)
        assert len(rows) == len(tracelake.list_traces(uri=place)) == expected
        assert len(tracelake.analyze_trace_performance(rows, uri=alone)) == expected
    data = alone_copy(folder / "data")
    assert import_one(folder / "file.pb", data) == 1
    assert len(tracelake.list_traces(uri=str(data))) == 1


def test_paths_that_are_no_text(tmp_path: Path) -> None:
    """Files are imported; folders of tables, which URLs name, are refused in words."""
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/no text \xff\xfe"))
    odd.mkdir()
    data = alone_copy(tmp_path / "data")
    assert import_one(odd / os.fsdecode(b"\xff.pb"), data) == 1
    report = tracelake.import_traces([str(odd)], uri=data)
    assert (report.imported, report.already_imported) == (0, 1)
    for call in (
        lambda: tracelake.list_traces(uri=odd),
        lambda: tracelake.list_traces(uri=os.fsencode(odd)),
        lambda: tracelake.list_traces(trace_table=odd, uri=data),
        lambda: tracelake.set_uri(odd),
        lambda: tracelake.serve(odd / "data"),
    ):
        with pytest.raises(errors.InvalidArgumentError, match="is no text"):
            call()


def import_one(file: Path, data: Path) -> int:
    """Imports a file with one trace; how many spans came in."""
    make = Maker(9)
    file.write_bytes(generate.request(make.span(make.trace_id())).SerializeToString())
    report = tracelake.import_traces(file, uri=data)
    assert report.imported == 1
    return report.spans


def alone_copy(folder: Path) -> Path:
    """A data folder of its own."""
    with tracelake.serve(folder):
        pass
    return folder


def test_a_relative_path_is_no_name(alone: Path, tmp_path: Path) -> None:
    """What is a path by its type is one, though a table might be called so."""
    shutil.copytree(alone_table(alone), tmp_path / "a.b.c")
    script = """
import tracelake; from pathlib import Path
by_call = tracelake.list_traces(trace_table=Path("a.b.c"))
tracelake.set_uri(Path("a.b.c"))
assert len(by_call) == len(tracelake.list_traces()) > 0
scope = tracelake.list_traces().scope
assert len(tracelake.list_traces(trace_table=scope[0])) == len(by_call)
assert len(tracelake.analyze_trace_performance(tracelake.query_archived_traces())) == len(by_call)
"""
    python(script, tmp_path)


def test_imports_say_what_is_wrong(make_server: Callable[..., Server], tmp_path: Path) -> None:
    """A broken file is named and the rest is in; once mended, the same call does what is left."""
    server = make_server()
    server.start()
    make, folder = Maker(2), tmp_path / "files"
    folder.mkdir()
    good = generate.request(make.span(make.trace_id())).SerializeToString()
    late = generate.request(make.span(make.trace_id())).SerializeToString()
    (folder / "good.pb").write_bytes(good)
    (folder / "late.pb").write_bytes(late[:-3])
    (folder / "note.txt").write_text("no traces")
    for uri in (server.url, server.data_dir):
        with pytest.raises(errors.ImportFailedError) as caught:
            tracelake.import_traces(folder, uri=uri)
        report = caught.value.report
        assert list(report.failed) == [str(folder / "late.pb")]
        assert report.imported + report.already_imported == 1
        assert str(folder / "late.pb") in str(caught.value) and caught.value.hint
    (folder / "late.pb").write_bytes(late)
    report = tracelake.import_traces([folder], uri=server.url)
    assert (report.imported, report.already_imported, report.failed) == (1, 1, {})
    again = tracelake.import_traces(folder, again=True, experiment="/a/new one", uri=server.url)
    assert again.imported == 2 and again.seconds > 0 and again.bytes > 0
    assert len(table.rows(server.table_path())) == 2
    server.stop()
