"""`tracelake verify`: a real load is all there, and a table that was broken by hand is told exactly."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import requests
import tracelake
from deltalake import DeltaTable

from support import generate, otlp
from support.generate import Maker
from support.server import DEFAULT_TABLE, Cli, Server
from support.verification import commit, delete, faults, found, live, read, removal, rewrite, verify


class Load:
    """A data folder with a load of every kind, and no service on it."""

    def __init__(self, folder: Path):
        self.server = Server(folder)
        self.make = Maker(11)
        self.whole: dict[str, int] = {}
        """Traces of three plain spans each."""
        self.sent = 0
        """Spans that came by OTLP as protobuf."""

    def post(self, *bodies: otlp.ExportTraceServiceRequest) -> None:
        """Sends spans as protobuf, and counts those that are acknowledged."""
        for body in bodies:
            answer = otlp.post(self.server.url, body, session=self.server.session)
            self.sent += spans_of(body) - answer.partial_success.rejected_spans

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


def spans_of(body: otlp.ExportTraceServiceRequest) -> int:
    """Spans of a request."""
    groups = (scope for resource in body.resource_spans for scope in resource.scope_spans)
    return sum(len(group.spans) for group in groups)


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
    load.post(*generate.random_traces(3, 15), *(body for _, body in generate.tricky()))
    for body in generate.random_traces(4, 8):
        otlp.post(server.url, body, otlp.JSON, session=server.session)
    with otlp.GrpcClient(server.grpc) as client:
        for body in generate.random_traces(5, 5):
            client.export(body)
            load.sent += spans_of(body)
    bodies = load.plain(30)
    load.post(*bodies)
    load.post(*bodies[:5])  # A retry of what is open.
    server.flush()
    load.post(*bodies[3:8])  # A retry of what is archived.
    mlflow_ways(load)
    late_and_changed(load)
    load.post(*load.plain(10))
    server.kill()  # Some of it is in the journal alone.
    server.start()
    load.post(*bodies[:2])
    time.sleep(1)
    server.kill()  # Perhaps within an epoch.
    server.start()
    load.post(*load.plain(10))


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
    load.post(generate.request(span))


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
    load.post(*bodies.values())
    server.flush()
    load.post(generate.request(make.span(late, "late")))
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
    load.post(bodies[anew])


@pytest.fixture
def copied(load: Load) -> tuple[Cli, Path]:
    """The load anew, to be broken, wholly committed: commands on it, and its table."""
    folder = load.server.data_dir
    kept = folder.with_name("kept")
    if kept.exists():
        # An archive knows where its tables are, so it is put back in its place.
        shutil.rmtree(folder)
        shutil.copytree(kept, folder)
    else:
        shutil.copytree(folder, kept)
    cli = Cli(folder)
    cli.ok("flush")
    return cli, folder.joinpath("tables", *DEFAULT_TABLE.split("."))


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
    # 5 and 5 and 2 requests of three spans were sent again, and what was deleted before.
    assert protobuf["copies"] >= 37, by_way
    assert protobuf["spans"] + protobuf["copies"] + protobuf["deleted"] == load.sent, by_way
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
    """A row doubled, an attribute altered, a span taken out, one renamed: each by name. One deleted: counted."""
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
        (twice, "doubled", 3, 2),
        (altered, "altered", 1, 1),
        (shorter, "missing", 1, 1),
        (renamed, "altered", 1, 1),
    ])  # fmt: skip
    assert faults(rows) == [], rows
    assert sum(row["deleted_by_others"] or 0 for row in rows) == 3, rows
    done = cli.run("verify", DEFAULT_TABLE)
    assert done.returncode == 1
    assert "1 trace missing, 1 trace doubled, 2 traces altered" in done.stderr, done.stderr
    assert "hint: " in done.stderr
    assert "3 deleted by others" in done.stdout and gone not in done.stdout, done.stdout
    for trace in (twice, altered, shorter, renamed):
        assert trace in done.stdout

    code, rows = verify(cli, "--against", "kept.json")
    assert code == 1
    assert any("no row says that it was changed" in text for text in faults(rows)), rows


def test_a_removed_file_costs_exactly_its_traces(load: Load, copied: tuple[Cli, Path]) -> None:
    """A data file taken out of the log by a commit is another writer's deletion; the version of a commit
    that is gone, and a data file deleted from disk, are losses."""
    cli, path = copied
    adds = live(path)
    before = {row["trace_id"] for row in read(path).select(["trace_id"]).to_pylist()}
    by_file = {
        name: pq.read_table(path / name, columns=["trace_id"]).column(0).to_pylist() for name in adds
    }
    logged, deleted = [name for name, ids in by_file.items() if set(ids) & set(load.whole)][:2]
    commit(path, removal(adds[logged]))
    after = {row["trace_id"] for row in read(path).select(["trace_id"]).to_pylist()}
    assert before - after
    code, rows = verify(cli)
    assert (code, found(rows), faults(rows)) == (0, [], []), rows
    assert sum(row["deleted_by_others"] or 0 for row in rows) >= 3, rows

    (path / deleted).unlink()
    code, rows = verify(cli)
    lost = {trace for trace, result, *_ in found(rows) if result == "missing"}
    assert code == 1 and lost and lost <= set(by_file[deleted]), rows
    assert any(deleted in text for text in faults(rows)), faults(rows)


def test_a_manifest_is_kept_and_compared(load: Load, make_server: Callable[..., Server]) -> None:
    """Growth and late spans since are no fault; what is gone is one for the manifest, also when another writer
    deleted it. In Python, by service and folder."""
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
    delete(path, f"tr-{trace_id.hex()}")
    report = tracelake.verify(DEFAULT_TABLE, against=kept, uri=server.data_dir)
    assert not report and not report.ok
    assert report.traces == () and sum(hour.deleted_by_others for hour in report.hours) == 2
    assert any("are gone" in fault for fault in report.faults), report
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
    own = server.table_path("own.team.traces")
    delete(own, f"tr-{traces[1].hex()}")
    for name in ("own.team.traces", DEFAULT_TABLE):
        assert "1 deleted by others" in server.cli.ok("verify", name)
    server.stop()
    # The versions of the deletion by hand and of the late span are lost.
    newest = DeltaTable(str(own)).version()
    for version in (newest, newest - 1):
        (own / "_delta_log" / f"{version:020}.json").unlink()
    server.start()
    for name in ("own.team.traces", DEFAULT_TABLE):
        done = server.cli.run("verify", name)
        assert done.returncode == 1 and "missing" in done.stdout, done.stdout
    answer = requests.get(f"{server.url}/api/v1/open-traces", timeout=30)
    assert answer.json() == []
