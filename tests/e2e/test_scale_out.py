"""Tables on shared storage: several archivers on one table, a share that goes away, Sail as a cluster."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import requests
import yaml
from deltalake import DeltaTable, QueryBuilder

from support import generate, otlp, spark, table
from support.otlp import ExportTraceServiceRequest
from support.server import DEFAULT_TABLE, REPOSITORY, Cli, Server

TABLE = "production.monitoring.agent_traces"
EXPERIMENT = "/Shared/agent"
BOUND = {"x-mlflow-experiment-id": "1"}
WORKERS = 4


def place(shared: Path, name: str = TABLE) -> Path:
    """Where a table lies on the share."""
    return shared.joinpath(*name.split("."))


def setup(cli: Cli, *flags: str) -> None:
    """Binds the experiment to the table, as each archiver's operator does."""
    cli.ok("setup", TABLE, "--experiment", EXPERIMENT, "--json", *flags)


# --- the folder of the tables ---


def test_the_tables_folder_is_noted_and_followed(tmp_path: Path) -> None:
    """Named once, by a relative path with difficult characters; every command and catalog has it."""
    shared = tmp_path / "part of a share" / "tables here"
    shared.mkdir(parents=True)
    clis = [Cli(tmp_path / name) for name in ("one", "two")]
    # The working folder of a command is the one above the data folder.
    told = json.loads(
        clis[0].ok(
            "setup", TABLE, "--experiment", EXPERIMENT, "--json",
            "--tables-dir", "part of a share/tables here",
        )
    )  # fmt: skip
    setup(clis[1], "--tables-dir", str(shared / ".." / "tables here"))
    assert told["location"] == shared.resolve().joinpath(*TABLE.split(".")).as_uri() + "/"
    assert (tmp_path / "one" / "tables").is_symlink()
    for cli in clis:
        setup(cli)
        status = json.loads(cli.ok("status", "--format", "json"))
        assert status["tables_dir"] == str(shared.resolve())
        assert str(shared.resolve()) in cli.ok("status")
        assert cli.scalar(f"select count(*) from {TABLE}") == 0
        assert cli.ok("check", TABLE, "--no-write").count("failed") == 1, "no service runs"
    assert DeltaTable(str(place(shared))).version() == 0, "the second archiver accepted it"
    other = tmp_path / "other%20place"
    other.mkdir()
    for name, words in (("one", "leads to"), ("three", "a percent sign in a path")):
        refused = Cli(tmp_path / name).run(
            "setup", TABLE, "--experiment", EXPERIMENT, "--tables-dir", str(other)
        )
        assert refused.returncode == 1 and words in refused.stderr
        assert "\nhint: " in refused.stderr
    assert list(other.iterdir()) == []


def test_tables_that_are_there_are_not_left_behind(tmp_path: Path) -> None:
    """A data folder with tables of its own keeps them; a folder that is missing is not made."""
    shared = tmp_path / "share"
    shared.mkdir()
    cli = Cli(tmp_path / "data")
    setup(cli)
    refused = cli.run("setup", TABLE, "--experiment", EXPERIMENT, "--tables-dir", str(shared))
    assert refused.returncode == 1
    assert re.search(r"has tables of its own\nhint: leave --tables-dir out", refused.stderr)
    assert list(shared.iterdir()) == [] and not cli.data_dir.joinpath("tables").is_symlink()

    fresh = Cli(tmp_path / "fresh")
    refused = fresh.run(
        "setup", TABLE, "--experiment", EXPERIMENT, TRACELAKE_TABLES_DIR=str(tmp_path / "missing")
    )
    assert refused.returncode == 1 and "hint: mount the share" in refused.stderr
    assert not (tmp_path / "missing").exists()
    setup(fresh)
    assert not fresh.data_dir.joinpath("tables").is_symlink()


@pytest.mark.parametrize("mount_point", ["gone", "empty"])
def test_a_share_that_is_away_loses_nothing(
    mount_point: str, make_server: Callable[..., Server], tmp_path: Path
) -> None:
    """Traces are acknowledged while the share is away, also after a kill; then it comes back."""
    shared = tmp_path / "mount" / "tables"
    shared.mkdir(parents=True)
    server = make_server("--tables-dir", str(shared))
    server.start()
    make = generate.Maker(11)
    sent: list[bytes] = []

    def send(name: str) -> None:
        span = make.span(make.trace_id(), name)
        otlp.post(server.url, generate.request(span))
        sent.append(span.trace_id)

    send("before")
    server.flush()
    (tmp_path / "mount").rename(tmp_path / "away")
    if mount_point == "empty":
        shared.mkdir(parents=True)
    # A late span of an archived trace as well: what is missing is no other table.
    late = make.span(sent[0], "late")
    otlp.post(server.url, generate.request(late))
    send("while away")
    answer = server.session.post(f"{server.url}/api/v1/flush", timeout=30)
    assert answer.status_code == 503 and "not mounted?" in answer.text, answer.text
    server.kill()
    server.start()
    send("after the kill")
    for command in (["traces"], ["setup", "a.b.c", "--experiment", "x"], ["check", DEFAULT_TABLE]):
        refused = server.cli.run(*command)
        assert refused.returncode == 1, command
        assert "not mounted?" in refused.stdout + refused.stderr, refused
    (row,) = json.loads(server.cli.ok("status", "--format", "json"))["tables"]
    assert "not mounted?" in row["fault"]
    if mount_point == "empty":
        assert list(shared.iterdir()) == [], "nothing is made below a mount point"
        shutil.rmtree(tmp_path / "mount")
    assert not (tmp_path / "mount").exists()

    (tmp_path / "away").rename(tmp_path / "mount")
    server.flush()
    rows = table.rows(place(shared, DEFAULT_TABLE))
    assert rows.keys() == {trace.hex() for trace in sent}
    assert rows[sent[0].hex()]["span_count"] == 2
    server.stop()


# --- the Collector ---


def test_collectors_of_the_documentation_hang_together() -> None:
    """Each pipeline has its parts; the front sends by trace id to the port that the other serves."""
    text = (REPOSITORY / "docs" / "scale-out.md").read_text()
    found = [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```$", text, re.M | re.S)]
    beside, front, resolver = found
    for collector in (beside, front):
        for pipeline in collector["service"]["pipelines"].values():
            for kind in ("receivers", "exporters"):
                assert pipeline[kind] and set(pipeline[kind]) <= collector[kind].keys()
    balancer = front["exporters"]["loadbalancing"]
    assert balancer["routing_key"] == "traceID"
    port = beside["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"].split(":")[1]
    places = balancer["resolver"]["static"]["hostnames"]
    assert [place.split(":")[1] for place in places] == [port] * 2
    assert resolver["resolver"]["dns"]["port"] == int(port)
    settings = (REPOSITORY / "docs" / "settings.md").read_text()
    assert f"`{beside['exporters']['otlp']['endpoint']}`" in settings, "where an archiver listens"


# --- several archivers on one table ---


class Sender(threading.Thread):
    """Sends pieces of traces to archivers, and notes what was acknowledged."""

    def __init__(self, seed: int, archivers: list[Server], stop: threading.Event):
        super().__init__()
        self.make = generate.Maker(seed)
        self.archivers, self.stop = archivers, stop
        self.acked: dict[str, set[str]] = defaultdict(set)
        self.retried = 0

    def run(self) -> None:
        while not self.stop.is_set():
            for target, piece in self.one_trace():
                self.send(target, piece)
            time.sleep(0.02)

    def one_trace(self) -> list[tuple[int, ExportTraceServiceRequest]]:
        """A trace of five spans: half of them whole to one archiver, half span by span."""
        pick = self.make.random
        trace, root = self.make.trace_id(), self.make.span_id()
        spans = [self.make.span(trace, "agent", span_id=root)]
        spans += [self.make.span(trace, "step", parent_span_id=root) for _ in range(4)]
        pick.shuffle(spans)
        if pick.random() < 0.5:
            return [(pick.randrange(len(self.archivers)), generate.request(*spans))]
        return [(pick.randrange(len(self.archivers)), generate.request(span)) for span in spans]

    def send(self, target: int, piece: ExportTraceServiceRequest) -> None:
        """Until some archiver has it: a retry goes to the next one, as a balancer would do."""
        while True:
            try:
                url = self.archivers[target].url
                answer = otlp.post_bytes(url, piece.SerializeToString(), headers=BOUND, timeout=20)
                if answer.status_code == 200:
                    break
            except requests.RequestException:
                pass
            self.retried += 1
            target = (target + 1) % len(self.archivers)
        for span in piece.resource_spans[0].scope_spans[0].spans:
            self.acked[span.trace_id.hex()].add(span.span_id.hex())


def counts(path: Path) -> tuple[int, int]:
    """Rows and spans by deltalake, of the newest version."""
    (row,) = table.query(path, "select count(*) a, coalesce(sum(span_count), 0) b from t")
    return int(row["a"]), int(row["b"])


def watch(session: object, path: Path, stop: threading.Event, seen: list) -> None:
    """Asks the cluster again and again while archivers write: never two rows for a trace, and no
    fewer or more than the versions before and after the question have."""
    while not stop.is_set():
        before = counts(path)
        session.read.format("delta").load(str(path)).createOrReplaceTempView("archived")
        (row,) = session.sql(
            "SELECT count(*), count(DISTINCT trace_id), coalesce(sum(size(spans)), 0) FROM archived"
        ).collect()
        seen.append((before, tuple(int(value) for value in row), counts(path)))


def test_archivers_share_a_table(make_server: Callable[..., Server], tmp_path: Path) -> None:
    """Three archivers, traces whole and in pieces, one of the three killed twice, Sail beside."""
    seed = int(os.environ.get("SCALE_OUT_SEED", "0")) or time.time_ns() % 10**9
    print(f"\nSCALE_OUT_SEED={seed}")
    shared = tmp_path / "share"
    shared.mkdir()
    archivers = [make_server(name=f"archiver-{n}") for n in range(3)]
    for archiver in archivers:
        setup(archiver.cli, "--tables-dir", str(shared))
        archiver.start()
    path = place(shared)
    stop, stop_watching = threading.Event(), threading.Event()
    senders = [Sender(seed + n, archivers, stop) for n in range(3)]
    seen: list = []
    with spark.sail(workers=WORKERS) as session:
        watcher = threading.Thread(target=watch, args=(session, path, stop_watching, seen))
        for thread in (*senders, watcher):
            thread.start()
        chance = random.Random(seed)
        for _ in range(2):
            time.sleep(chance.uniform(2, 4))
            archivers[2].kill()
            time.sleep(chance.uniform(0, 1))
            archivers[2].start()
        time.sleep(2)
        stop.set()
        for sender in senders:
            sender.join(timeout=60)
        for archiver in archivers:
            archiver.flush()
        stop_watching.set()
        watcher.join(timeout=60)
        session.read.format("delta").load(str(path)).createOrReplaceTempView("archived")
        (last,) = session.sql("SELECT count(*), sum(span_count) FROM archived").collect()

    acked: dict[str, set[str]] = defaultdict(set)
    for sender in senders:
        for trace, spans in sender.acked.items():
            acked[trace] |= spans
    rows = table.rows(path)
    assert rows.keys() == acked.keys()
    for trace, row in rows.items():
        assert sorted(span["span_id"] for span in row["spans"]) == sorted(acked[trace])
    assert tuple(last) == (len(acked), sum(map(len, acked.values())))
    assert len(acked) > 100 and sum(sender.retried for sender in senders) > 0
    check_what_readers_saw(seen)
    check_every_version(path)
    split = sum(1 for row in rows.values() if row["revision"] > 1)
    print(
        f"{len(rows)} traces, {split} of them amended, {DeltaTable(str(path)).version()} versions,"
        f" {sum(sender.retried for sender in senders)} retries, {len(seen)} answers of the cluster"
    )
    assert split > 10
    applications = {application for application, _ in table.epochs(path)}
    assert len(applications) == len(archivers)
    for archiver in archivers:
        assert archiver.cli.scalar(f"select count(*) from {TABLE}") == len(acked)
        archiver.stop()


def check_what_readers_saw(seen: list) -> None:
    """Of the cluster's answers, while the archivers wrote."""
    assert len(seen) > 3
    for before, (traces, distinct, spans), after in seen:
        assert traces == distinct, "a reader saw two rows for a trace"
        assert before[0] <= traces <= after[0] and before[1] <= spans <= after[1]


def check_every_version(path: Path) -> None:
    """One row per trace in each version that there was, not only at the end."""
    newest = DeltaTable(str(path)).version()
    for version in range(1, newest + 1, max(1, newest // 60)):
        reader = QueryBuilder().register("t", DeltaTable(str(path), version=version))
        sql = "select count(*) a, count(distinct trace_id) b from t"
        (row,) = pa.table(reader.execute(sql)).to_pylist()
        assert row["a"] == row["b"], f"version {version} has two rows for a trace"
