"""`tracelake verify`: a real load is all there, and a table that was broken by hand is told exactly."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
import tracelake
from deltalake import DeltaTable, QueryBuilder, write_deltalake

from support import generate, otlp
from support.generate import Maker
from support.server import DEFAULT_TABLE, Cli, Server


class Load:
    """A data folder with a load of every kind, and no service on it."""

    def __init__(self, folder: Path):
        self.server = Server(folder)
        self.make = Maker(11)
        self.whole: dict[str, int] = {}
        """Traces of three plain spans each."""

    def plain(self, count: int) -> list[otlp.ExportTraceServiceRequest]:
        """New traces of three spans, one request each."""
        bodies = []
        for _ in range(count):
            trace_id, root = self.make.trace_id(), self.make.span_id()
            spans = [self.make.span(trace_id, "root", span_id=root)]
            for name in ("model", "tool"):
                spans.append(
                    self.make.span(trace_id, name, parent_span_id=root, attributes={"answer": 42})
                )
            self.whole[f"tr-{trace_id.hex()}"] = 3
            bodies.append(generate.request(*spans))
        return bodies


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Load]:
    """Ways in, retries, late spans, tags, deletions and a kill, then a clean stop."""
    made = Load(tmp_path_factory.mktemp("verify") / "data")
    server = made.server
    server.start()
    try:
        fill(made)
        server.stop()
        yield made
    finally:
        server.close()


def fill(load: Load) -> None:
    """Every way in, and all that a client does later."""
    server = load.server
    for body in [*generate.random_traces(3, 15), *(body for _, body in generate.tricky())]:
        otlp.post(server.url, body, session=server.session)
    for body in generate.random_traces(4, 8):
        otlp.post(server.url, body, otlp.JSON, session=server.session)
    with otlp.GrpcClient(server.grpc) as client:
        for body in generate.random_traces(5, 5):
            client.export(body)
    bodies = load.plain(30)
    for body in bodies:
        otlp.post(server.url, body, session=server.session)
    for body in bodies[:5]:  # A retry of what is open.
        otlp.post(server.url, body, session=server.session)
    server.flush()
    for body in bodies[3:8]:  # A retry of what is archived.
        otlp.post(server.url, body, session=server.session)
    mlflow_ways(load)
    late_and_changed(load)
    for body in load.plain(10):
        otlp.post(server.url, body, session=server.session)
    server.kill()  # Some of it is in the journal alone.
    server.start()
    for body in bodies[:2]:
        otlp.post(server.url, body, session=server.session)
    time.sleep(1)
    server.kill()  # Perhaps within an epoch.
    server.start()
    for body in load.plain(10):
        otlp.post(server.url, body, session=server.session)


def mlflow_ways(load: Load) -> None:
    """A `start_trace` alone, and spans as `traces.json` beside the same ones by OTLP."""
    server, make = load.server, load.make
    trace_id = make.trace_id()
    alone = make.trace_id()
    for trace in (trace_id, alone):
        start_trace(server, trace)
    span = make.span(trace_id, "copied", attributes={"k": "v"})
    poor = {
        "name": "copied",
        "context": {"trace_id": f"0x{trace_id.hex()}", "span_id": f"0x{span.span_id.hex()}"},
        "parent_id": None,
        "start_time": span.start_time_unix_nano,
        "end_time": span.end_time_unix_nano,
        "status_code": "OK",
        "status_message": "",
        "attributes": {"mlflow.traceRequestId": json.dumps(f"tr-{trace_id.hex()}")},
        "events": [],
    }
    path = f"/api/2.0/mlflow-artifacts/artifacts/0/traces/tr-{trace_id.hex()}/artifacts/traces.json"
    answer = server.session.put(
        server.url + path, data=json.dumps({"spans": [poor]}), timeout=30
    )
    assert answer.status_code == 200, answer.text
    server.flush()
    otlp.post(server.url, generate.request(span), session=server.session)


def start_trace(server: Server, trace_id: bytes) -> None:
    """What the MLflow client says of a whole trace."""
    info = {
        "trace_id": f"tr-{trace_id.hex()}",
        "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}},
        "request_time": "2026-11-22T10:00:00Z",
        "state": "OK",
    }
    answer = server.session.post(
        f"{server.url}/api/3.0/mlflow/traces", json={"trace": {"trace_info": info}}, timeout=30
    )
    assert answer.status_code == 200, answer.text


def late_and_changed(load: Load) -> None:
    """Late spans, a tag, a deleted trace, and one that was sent anew after its deletion."""
    server, make = load.server, load.make
    late, gone, anew = (make.trace_id() for _ in range(3))
    bodies = {trace: generate.request(make.span(trace, "first")) for trace in (late, gone, anew)}
    for body in bodies.values():
        otlp.post(server.url, body, session=server.session)
    server.flush()
    otlp.post(server.url, generate.request(make.span(late, "late")), session=server.session)
    tag = {"trace_id": f"tr-{late.hex()}", "key": "team", "value": "search"}
    answer = server.session.patch(
        f"{server.url}/api/3.0/mlflow/traces/tr-{late.hex()}/tags", json=tag, timeout=30
    )
    assert answer.status_code == 200, answer.text
    ids = {"experiment_id": "0", "request_ids": [f"tr-{gone.hex()}", f"tr-{anew.hex()}"]}
    answer = server.session.post(
        f"{server.url}/api/2.0/mlflow/traces/delete-traces", json=ids, timeout=30
    )
    assert answer.json() == {"traces_deleted": 2}, answer.text
    otlp.post(server.url, bodies[anew], session=server.session)


@pytest.fixture
def copied(load: Load, tmp_path: Path) -> tuple[Cli, Path]:
    """A copy of the load that may be broken, wholly committed: commands on it, and its table."""
    folder = tmp_path / "data"
    shutil.copytree(load.server.data_dir, folder)
    cli = Cli(folder)
    cli.ok("flush")
    return cli, folder.joinpath("tables", *DEFAULT_TABLE.split("."))


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
    """Replaces the rows of a table, with another writer."""
    known = read(path)
    rows = pa.Table.from_pylist(change(known.to_pylist()), schema=known.schema)
    write_deltalake(str(path), rows, mode="overwrite")


def read(path: Path) -> pa.Table:
    """All rows, by deltalake."""
    reader = QueryBuilder().register("t", DeltaTable(str(path))).execute("select * from t")
    return pa.table(reader)


def test_a_real_load_is_all_there(load: Load, copied: tuple[Cli, Path]) -> None:
    """Each way in has its line, copies and deletions are counted, and nothing is amiss."""
    code, rows = verify(copied[0])
    assert (code, found(rows), faults(rows)) == (0, [], []), rows
    by_way: dict[str, dict[str, int]] = {}
    for row in rows:
        if row["kind"] == "hour":
            assert row["result"] == "ok" and row["hash"] == row["archived_hash"], row
            sums = by_way.setdefault(row["way_in"], {})
            for name in ("traces", "archived_traces", "spans", "archived_spans", "copies", "deleted", "replaced"):
                sums[name] = sums.get(name, 0) + row[name]
    assert set(by_way) == {"otlp_protobuf", "otlp_json", "mlflow_traces_json", "mlflow_start_trace"}
    protobuf = by_way["otlp_protobuf"]
    assert protobuf["spans"] == protobuf["archived_spans"] > 3 * len(load.whole)
    # 5 and 5 and 2 requests of three spans that were sent again, and the deleted one.
    assert protobuf["copies"] == 37, by_way
    assert protobuf["deleted"] == 1, by_way
    assert by_way["mlflow_traces_json"]["replaced"] == 1, by_way
    assert by_way["mlflow_start_trace"]["traces"] == 2, by_way
    assert by_way["otlp_json"]["traces"] == by_way["otlp_json"]["archived_traces"] > 0
    assert not [row for row in rows if row["kind"] == "note"], rows

    text = copied[0].ok("verify", DEFAULT_TABLE)
    assert text.endswith("everything acknowledged is there\n"), text
    code, none = verify(copied[0], "--until", "2020-01-01")
    assert (code, none) == (0, []), none


def test_what_was_broken_by_hand_is_named(load: Load, copied: tuple[Cli, Path]) -> None:
    """A row deleted, one doubled, an attribute altered, a span taken out, one renamed: each by name."""
    cli, path = copied
    gone, twice, altered, shorter, renamed = list(load.whole)[:5]

    def change(rows: list[dict]) -> list[dict]:
        kept = [row for row in rows if row["trace_id"] != gone]
        kept += [row for row in rows if row["trace_id"] == twice]
        for row in kept:
            spans = row["spans"]
            if row["trace_id"] == altered:
                spans[1]["metadata"] = [("answer", "43")]
            if row["trace_id"] == shorter:
                row["spans"] = spans[:2]
            if row["trace_id"] == renamed:
                spans[0]["name"] = "other"
        return kept

    cli.ok("verify", DEFAULT_TABLE, "--manifest", "kept.json")
    rewrite(path, change)
    code, rows = verify(cli)
    assert code == 1
    assert found(rows) == sorted([
        (gone, "missing", 3, 0),
        (twice, "doubled", 3, 2),
        (altered, "altered", 1, 1),
        (shorter, "missing", 1, 1),
        (renamed, "altered", 1, 1),
    ])  # fmt: skip
    assert faults(rows) == [], rows
    done = cli.run("verify", DEFAULT_TABLE)
    assert done.returncode == 1
    assert "2 traces missing, 1 trace doubled, 2 traces altered" in done.stderr, done.stderr
    assert "hint: " in done.stderr
    for trace in (gone, twice, altered, shorter, renamed):
        assert trace in done.stdout

    code, rows = verify(cli, "--against", "kept.json")
    assert code == 1
    assert any("no row says that it was changed" in text for text in faults(rows)), rows


def test_a_removed_file_costs_exactly_its_traces(load: Load, copied: tuple[Cli, Path]) -> None:
    """A data file taken out of the log by a commit, and one deleted from disk."""
    cli, path = copied
    table = DeltaTable(str(path))
    adds = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    by_file: dict[str, list[str]] = {}
    reader = read(path).select(["trace_id"]).to_pylist()
    live = {row["trace_id"] for row in reader}
    for add in adds:
        ids = pq.read_table(path / add["path"], columns=["trace_id"]).column(0).to_pylist()
        by_file[add["path"]] = ids
    plain = [name for name, ids in by_file.items() if set(ids) & set(load.whole)]
    logged, deleted = plain[:2]
    action = {"remove": {"path": logged, "deletionTimestamp": 0, "dataChange": True}}
    version = table.version() + 1
    log = path / "_delta_log" / f"{version:020}.json"
    log.write_text(json.dumps(action) + "\n")
    after = {row["trace_id"] for row in read(path).select(["trace_id"]).to_pylist()}
    lost = live - after
    code, rows = verify(cli)
    assert code == 1
    assert {trace for trace, result, *_ in found(rows) if result == "missing"} == lost, rows
    assert len(found(rows)) == len(lost) > 0

    (path / deleted).unlink()
    code, rows = verify(cli)
    assert code == 1 and len(found(rows)) > len(lost)
    assert any(deleted in text for text in faults(rows)), faults(rows)


def test_a_manifest_is_kept_and_compared(load: Load, make_server: Callable[..., Server]) -> None:
    """Growth and late spans since are no fault; what is gone is one. In Python, by service and folder."""
    server = make_server()
    server.start()
    make = Maker(3)
    first = [generate.request(make.span(make.trace_id(), "first")) for _ in range(4)]
    for body in first:
        otlp.post(server.url, body, session=server.session)
    report = tracelake.verify(DEFAULT_TABLE, uri=server.url, manifest=server.data_dir / "kept.json")
    assert report and report.ok and len(report) == 1, report
    assert report.hours[0].acknowledged.traces == report.hours[0].archived.traces == 4
    assert report.rows.to_pandas().iloc[0]["spans"] == 4

    trace_id = first[0].resource_spans[0].scope_spans[0].spans[0].trace_id
    otlp.post(server.url, generate.request(make.span(trace_id, "late")), session=server.session)
    otlp.post(server.url, generate.request(make.span(make.trace_id(), "more")), session=server.session)
    kept = server.data_dir / "kept.json"
    report = tracelake.verify(DEFAULT_TABLE, against=kept, uri=server.data_dir)
    assert report.ok, report
    assert any("late spans" in note for note in report.notes) or len(report.archived) > 1, report
    assert "everything acknowledged is there" in str(report)

    server.stop()
    path = server.table_path()
    DeltaTable(str(path)).delete(f"trace_id = 'tr-{trace_id.hex()}'")
    report = tracelake.verify(DEFAULT_TABLE, against=kept, uri=server.data_dir)
    assert not report and not report.ok
    assert [(t.trace_id, t.result, t.spans) for t in report.traces] == [
        (f"tr-{trace_id.hex()}", "missing", 2)
    ]
    assert any("gone" in fault for fault in report.faults), report
    with pytest.raises(tracelake.errors.InvalidArgumentError):
        tracelake.verify("other.b.c", against=kept, uri=server.data_dir)
    with pytest.raises(tracelake.errors.TableNotFoundError):
        tracelake.verify("other.b.c", uri=server.data_dir)


def test_traces_that_moved_with_their_experiment_are_found(
    make_server: Callable[..., Server],
) -> None:
    """`enable` moves earlier traces: the table they came for and the one they are in agree."""
    server = make_server()
    server.start()
    make = Maker(4)
    traces = [make.trace_id() for _ in range(3)]
    for trace in traces:
        otlp.post(server.url, generate.request(make.span(trace, "earlier")), session=server.session)
    server.flush()
    server.cli.ok("enable", "own.team.traces", "--experiment", "0")
    late = generate.request(make.span(traces[0], "late"))
    otlp.post(server.url, late, session=server.session)
    for name, here in (("own.team.traces", 4), (DEFAULT_TABLE, 0)):
        rows = server.cli.json("verify", name)
        hours = [row for row in rows if row["kind"] == "hour"]
        assert sum(row["archived_spans"] for row in hours) == here, rows
        assert {row["result"] for row in hours} == {"ok"}, rows
    DeltaTable(str(server.table_path("own.team.traces"))).delete(
        f"trace_id = 'tr-{traces[1].hex()}'"
    )
    for name in ("own.team.traces", DEFAULT_TABLE):
        done = server.cli.run("verify", name)
        assert done.returncode == 1 and f"tr-{traces[1].hex()}" in done.stdout, done.stdout
        assert "1 trace missing" in done.stderr, done.stderr
    answer = requests.get(f"{server.url}/api/v1/open-traces", timeout=30)
    assert answer.json() == []
