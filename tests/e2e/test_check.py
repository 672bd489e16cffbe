"""`tracelake check` passes after `setup`, and names what is broken when one thing at a time is."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest
from deltalake import DeltaTable

from support import generate, otlp, table
from support.server import DEFAULT_TABLE, Cli, Server

TABLE = "production.monitoring.agent_traces"
EXPERIMENT = "/Shared/health_monitor_agent/production"
ITEMS = [
    "catalog entry",
    "catalog matches table",
    "table in storage",
    "data files",
    "columns",
    "added columns",
    "comments",
    "change data feed",
    "deletion vectors",
    "clustering",
    "protocol",
    "archival enabled",
    "experiment",
    "service",
    "commits",
    "trace arrives",
    "query pattern",
    "error pattern",
    "performance pattern",
    "disk space",
    "journal",
    "damaged files",
]
TRACES = 3


@dataclass
class Report:
    """One run of the command."""

    code: int
    rows: dict[str, dict]
    text: str

    def items(self, result: str) -> list[str]:
        return [item for item, row in self.rows.items() if row["result"] == result]

    def assert_passed(self) -> None:
        assert self.code == 0 and not self.items("failed"), self.text

    def assert_failed(self, item: str, *words: str) -> None:
        """This item alone, with these words; what was skipped because of it says so."""
        assert self.items("failed") == [item], self.text
        assert self.code == 1, self.text
        row = self.rows[item]
        for word in words:
            assert word in row["found"], row
        assert row["hint"], row
        for skipped in self.items("skipped"):
            found = self.rows[skipped]["found"]
            assert f"see `{item}`" in found or found == "no service runs", self.rows[skipped]
        assert "panicked" not in self.text


def check(cli: Cli, *flags: str, name: str = TABLE) -> Report:
    """Runs the command with JSON."""
    done = cli.run("check", name, *flags, "--format", "json")
    text = f"{done.stdout}\n{done.stderr}"
    assert done.stdout, text
    rows = {row["item"]: row for row in json.loads(done.stdout)}
    assert list(rows) == ITEMS, text
    return Report(done.returncode, rows, text)


@dataclass
class Archive:
    """A data folder whose table has a few traces; no service runs."""

    server: Server

    @property
    def cli(self) -> Cli:
        return self.server.cli

    @property
    def path(self) -> Path:
        return self.server.table_path(TABLE)

    def last(self, kind: str) -> dict:
        """The newest action of a kind."""
        return [action[kind] for _, action in table.log_actions(self.path) if kind in action][-1]

    def append(self, action: dict) -> Path:
        """One more version with this action, as another writer would make it."""
        versions = sorted((self.path / "_delta_log").glob("*.json"))
        log = versions[-1].with_name(f"{int(versions[-1].stem) + 1:020}.json")
        info = {"commitInfo": {"timestamp": 1_795_000_000_000, "operation": "SET TBLPROPERTIES"}}
        log.write_text(f"{json.dumps(info)}\n{json.dumps(action)}\n")
        return log

    def change_metadata(self, change: Callable[[dict, list], None]) -> dict:
        """Rewrites properties, comment and columns by a new version; gives the old action."""
        old = self.last("metaData")
        new = json.loads(json.dumps(old))
        schema = json.loads(new["schemaString"])
        change(new, schema["fields"])
        new["schemaString"] = json.dumps(schema)
        self.append({"metaData": new})
        return {"metaData": old}

    def data_file(self) -> Path:
        """One that is live."""
        adds = pa.table(DeltaTable(str(self.path)).get_add_actions(flatten=True)).to_pylist()
        return self.path / adds[0]["path"]

    def assert_mended(self) -> None:
        """Passes, and the table holds the traces that it held, no check's."""
        check(self.cli).assert_passed()
        assert len(table.rows(self.path)) == TRACES


def send_traces(server: Server, count: int = TRACES) -> None:
    """Archived traces of the experiment."""
    make = generate.Maker(3)
    headers = {"x-mlflow-experiment-id": "1"}
    for _ in range(count):
        otlp.post(server.url, generate.request(make.span(make.trace_id())), headers=headers)
        server.flush()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """Set up once and filled by a service, and a copy of that to return to."""
    folder = tmp_path_factory.mktemp("check")
    server = Server(folder / "data")
    server.cli.ok("setup", TABLE, "--experiment", EXPERIMENT)
    server.start()
    send_traces(server)
    server.stop()
    shutil.copytree(server.data_dir, folder / "pristine")
    yield server, folder / "pristine"
    server.close()


@pytest.fixture
def archive(prepared: tuple[Server, Path]) -> Iterator[Archive]:
    """The prepared folder as it was made, at the place where it was made."""
    server, pristine = prepared
    shutil.rmtree(server.data_dir)
    shutil.copytree(pristine, server.data_dir)
    yield Archive(server)
    server.kill()


def catalog(archive: Archive, statement: str, *values: str) -> None:
    """Changes the catalog's file behind everybody's back."""
    with sqlite3.connect(archive.server.data_dir / "catalog.db") as connection:
        assert connection.execute(statement, values).rowcount == 1
    connection.close()


def setup(archive: Archive) -> None:
    archive.cli.ok("setup", TABLE, "--experiment", EXPERIMENT)


def test_passes_after_setup_with_and_without_a_service(make_server: Callable[..., Server]) -> None:
    """An empty table and one with traces; the check's own trace is gone afterwards."""
    server = make_server()
    server.cli.ok("setup", TABLE, "--experiment", EXPERIMENT)
    alone = check(server.cli)
    alone.assert_passed()
    assert alone.items("skipped") == ["commits"] and "service" in alone.items("note")
    assert "compared" in alone.rows["trace arrives"]["found"]

    server.start()
    send_traces(server)
    for flags in ((), ("--experiment", EXPERIMENT), ("--experiment", "1"), ("--no-write",)):
        beside = check(server.cli, *flags)
        beside.assert_passed()
        expected = ["trace arrives"] if "--no-write" in flags else []
        assert beside.items("skipped") == expected, beside.text
    rows = table.rows(server.table_path(TABLE))
    assert len(rows) == TRACES
    assert not any(span["name"] == "tracelake check" for row in rows.values() for span in row["spans"])
    check(server.cli, name=DEFAULT_TABLE).assert_passed()


def test_every_format_and_a_report_to_read(archive: Archive) -> None:
    """Programs get the same rows in each format; people one line an item, colour when asked."""
    flags = ("check", TABLE, "--no-write")
    expected = [(i, r["result"]) for i, r in check(archive.cli, "--no-write").rows.items()]
    jsonl = archive.cli.ok(*flags, "--format", "jsonl")
    assert [(r["item"], r["result"]) for r in map(json.loads, jsonl.splitlines())] == expected
    assert archive.cli.ok(*flags, "--format", "csv").startswith("item,result,found,hint\n")
    for name, read in (
        ("arrow", lambda path: pyarrow.ipc.open_stream(path).read_all()),
        ("parquet", pyarrow.parquet.read_table),
    ):
        path = archive.server.data_dir.parent / f"report.{name}"
        archive.cli.ok(*flags, "--format", name, "--output", str(path))
        assert [(r["item"], r["result"]) for r in read(path).to_pylist()] == expected

    text = archive.cli.ok(*flags)
    assert "\x1b" not in text
    for item, result in expected:
        assert re.search(rf"^{result} +{item}  ", text, re.MULTILINE), text
    assert "0 failed" in text
    assert "\x1b[32mok" in archive.cli.ok(*flags, "--color", "always")

    archive.change_metadata(lambda new, fields: new.update(description="\x1b[2Jhostile"))
    done = archive.cli.run(*flags)
    assert done.returncode == 1 and "\x1b" not in done.stdout + done.stderr
    assert re.search(r"^failed +comments ", done.stdout, re.MULTILINE), done.stdout
    assert "hint: " in done.stdout and "1 item failed: comments" in done.stderr


def test_a_mistyped_name_makes_nothing(archive: Archive) -> None:
    """No folder, no row, no entry; the hint names the tables that there are."""
    tables = sorted((archive.server.data_dir / "tables").rglob("*"))
    report = check(archive.cli, name="production.monitoring.agent_trace")
    assert report.items("failed") == ["catalog entry", "table in storage"], report.text
    assert TABLE in report.rows["table in storage"]["hint"]
    assert report.rows["archival enabled"]["result"] == "skipped"
    assert sorted((archive.server.data_dir / "tables").rglob("*")) == tables
    with sqlite3.connect(archive.server.data_dir / "registry.db") as registry:
        (known,) = registry.execute("select count(*) from archive_tables").fetchone()
    registry.close()
    assert known == 2
    archive.assert_mended()

    nowhere = Cli(archive.server.data_dir.parent / "nowhere")
    done = nowhere.run("check", TABLE)
    assert done.returncode == 1 and "hint: " in done.stderr and not nowhere.data_dir.exists()


def test_catalog_entry_deleted(archive: Archive) -> None:
    catalog(archive, "delete from objects where label = 'table' and name = ?", TABLE)
    check(archive.cli).assert_failed("catalog entry", "is not in the catalog")
    setup(archive)
    archive.assert_mended()


def test_catalog_entry_with_another_location(archive: Archive) -> None:
    catalog(
        archive,
        "update objects set properties = json_set(properties, '$.storage_location', ?)"
        " where label = 'table' and name = ?",
        "file:///elsewhere/agent_traces",
        TABLE,
    )
    check(archive.cli).assert_failed("catalog matches table", "file:///elsewhere/agent_traces")
    catalog(archive, "delete from objects where label = 'table' and name = ?", TABLE)
    setup(archive)
    archive.assert_mended()


def test_catalog_entry_with_a_column_less(archive: Archive) -> None:
    catalog(
        archive,
        "update objects set properties = json_remove(properties, '$.columns[4]')"
        " where label = 'table' and name = ?",
        TABLE,
    )
    check(archive.cli).assert_failed("catalog matches table", "column `spans`")
    setup(archive)
    archive.assert_mended()


@pytest.mark.parametrize(
    ("name", "item"), [("catalog.db", "catalog entry"), ("registry.db", "archival enabled")]
)
def test_a_database_that_is_none(archive: Archive, name: str, item: str) -> None:
    """With its write-ahead log, from which SQLite would bring it back."""
    files = {f: f.read_bytes() for f in archive.server.data_dir.glob(f"{name}*")}
    for file in files:
        file.unlink()
    file = archive.server.data_dir / name
    file.write_bytes(b"not a database" * 1000)
    check(archive.cli).assert_failed(item)
    file.unlink()
    for file, kept in files.items():
        file.write_bytes(kept)
    archive.assert_mended()


def test_first_version_of_the_log_removed(archive: Archive) -> None:
    log = archive.path / "_delta_log" / f"{0:020}.json"
    kept = log.read_bytes()
    log.unlink()
    check(archive.cli).assert_failed("table in storage")
    log.write_bytes(kept)
    archive.assert_mended()


def test_data_file_deleted(archive: Archive) -> None:
    file = archive.data_file()
    kept = file.read_bytes()
    file.unlink()
    check(archive.cli).assert_failed("data files", file.name, "is missing")
    file.write_bytes(kept)
    archive.assert_mended()


def test_data_file_truncated(archive: Archive) -> None:
    file = archive.data_file()
    kept = file.read_bytes()
    file.write_bytes(kept[: len(kept) // 2])
    check(archive.cli).assert_failed("data files", file.name, f"the log says {len(kept)}")
    file.write_bytes(kept)
    archive.assert_mended()


def set_type(fields: list, name: str, data_type: str) -> None:
    next(field for field in fields if field["name"] == name)["type"] = data_type


def set_comment(fields: list, name: str, comment: str) -> None:
    next(field for field in fields if field["name"] == name)["metadata"]["comment"] = comment


def rename_status(fields: list) -> None:
    info = next(field for field in fields if field["name"] == "trace_info")
    next(f for f in info["type"]["fields"] if f["name"] == "status")["name"] = "state"


# What `tracelake setup` mends, as its hint says.
BY_SETUP = {"added columns", "change data feed", "deletion vectors"}
METADATA = {
    "a contract column of another type": (
        lambda new, fields: set_type(fields, "run_id", "long"),
        "columns",
        ["`run_id` is bigint, expected string"],
    ),
    "a nested field renamed": (
        lambda new, fields: rename_status(fields),
        "columns",
        ["no column `trace_info.status`"],
    ),
    "a contract column nullable": (
        lambda new, fields: fields[0].update(nullable=True),
        "columns",
        ["`trace_id` is nullable, expected NOT NULL"],
    ),
    "an added column gone": (
        lambda new, fields: fields.pop([f["name"] for f in fields].index("session_id")),
        "added columns",
        ["lacks `session_id`"],
    ),
    "a column's comment": (
        lambda new, fields: set_comment(fields, "run_id", "the run"),
        "comments",
        ["`run_id` has `the run`, expected `MLflow run ID`"],
    ),
    "no table comment": (
        lambda new, fields: new.pop("description"),
        "comments",
        ["no comment"],
    ),
    "no change data feed": (
        lambda new, fields: new["configuration"].update({"delta.enableChangeDataFeed": "false"}),
        "change data feed",
        ["delta.enableChangeDataFeed: false"],
    ),
    "no deletion vectors": (
        lambda new, fields: new["configuration"].pop("delta.enableDeletionVectors"),
        "deletion vectors",
        ["not set"],
    ),
}


@pytest.mark.parametrize("broken", METADATA)
def test_table_changed_by_another_writer(archive: Archive, broken: str) -> None:
    """Judging does not mend: the table is as broken afterwards as it was before."""
    change, item, words = METADATA[broken]
    old = archive.change_metadata(change)
    wrong = archive.last("metaData")
    report = check(archive.cli)
    report.assert_failed(item, *words)
    assert archive.last("metaData") == wrong
    assert ("tracelake setup" in report.rows[item]["hint"]) == (item in BY_SETUP)
    if item in BY_SETUP:
        setup(archive)
    else:
        archive.append(old)
    archive.assert_mended()


def test_clustering_removed(archive: Archive) -> None:
    domain = archive.last("domainMetadata")
    archive.append({"domainMetadata": domain | {"removed": True}})
    check(archive.cli).assert_failed("clustering", "delta.clustering")
    archive.append({"domainMetadata": domain})
    archive.assert_mended()


def test_unknown_writer_feature(archive: Archive) -> None:
    protocol = archive.last("protocol")
    features = [*protocol["writerFeatures"], "rowTracking"]
    archive.append({"protocol": protocol | {"writerFeatures": features}})
    check(archive.cli).assert_failed("protocol", "rowTracking")
    archive.append({"protocol": protocol})
    archive.assert_mended()


def test_archival_disabled(archive: Archive) -> None:
    archive.cli.ok("disable", "--experiment", EXPERIMENT)
    check(archive.cli).assert_failed("archival enabled", "no experiment")
    named = check(archive.cli, "--experiment", EXPERIMENT)
    named.assert_failed("archival enabled", EXPERIMENT)
    assert named.rows["experiment"]["result"] == "ok"
    check(archive.cli, "--experiment", "nobody").assert_failed("experiment", "`nobody`")
    archive.cli.ok("enable", TABLE, "--experiment", EXPERIMENT)
    archive.assert_mended()


def test_experiment_deleted_and_service_killed(archive: Archive) -> None:
    """Beside a running service, by MLflow's API; then the service is gone and its file is not."""
    server = archive.server
    server.start()
    experiments = f"{server.url}/api/2.0/mlflow/experiments"
    body = {"experiment_id": "1"}
    assert server.session.post(f"{experiments}/delete", json=body, timeout=10).status_code == 200
    check(archive.cli).assert_failed("experiment", "is deleted")
    assert server.session.post(f"{experiments}/restore", json=body, timeout=10).status_code == 200
    check(archive.cli).assert_passed()

    server.kill()
    check(archive.cli).assert_failed("service", "does not answer")
    server.start()
    archive.assert_mended()
    server.kill()
    (server.data_dir / "server.json").unlink()
    archive.assert_mended()


def test_another_service_has_the_port(archive: Archive, make_server: Callable[..., Server]) -> None:
    """A stale file that names a service on another folder: nothing is written there."""
    other = make_server(name="other")
    other.start()
    stale = {"pid": 1, "http": other.http, "grpc": other.grpc}
    (archive.server.data_dir / "server.json").write_text(json.dumps(stale))
    report = check(archive.cli, "--experiment", "1")
    report.assert_failed("service", "server.json names process 1")
    assert not other.data_dir.joinpath("tables", "production").exists()
    (archive.server.data_dir / "server.json").unlink()
    archive.assert_mended()


def test_table_that_cannot_be_written(archive: Archive) -> None:
    """A folder lies where the next version belongs, which stops also root."""
    versions = sorted((archive.path / "_delta_log").glob("*.json"))
    wall = versions[-1].with_name(f"{int(versions[-1].stem) + 1:020}.json")
    wall.mkdir()
    (wall / "in the way").touch()
    check(archive.cli).assert_failed("trace arrives")
    shutil.rmtree(wall)
    archive.assert_mended()


def test_table_blocked_in_the_service(archive: Archive) -> None:
    """The service has met what it cannot write, and says so until the table is mended."""
    server = archive.server
    server.start()
    make = generate.Maker(4)
    protocol = archive.last("protocol")
    features = [*protocol["writerFeatures"], "rowTracking"]
    broken = archive.append({"protocol": protocol | {"writerFeatures": features}})
    otlp.post(
        server.url,
        generate.request(make.span(make.trace_id())),
        headers={"x-mlflow-experiment-id": "1"},
    )
    answer = server.session.post(f"{server.url}/api/v1/flush", timeout=30)
    assert answer.status_code == 503, answer.text
    report = check(archive.cli)
    assert report.items("failed") == ["protocol", "commits"], report.text
    assert "rowTracking" in report.rows["commits"]["found"]
    assert "see `commits`" in report.rows["error pattern"]["found"]
    broken.unlink()
    server.flush()
    check(archive.cli).assert_passed()


def test_journal_over_its_budget(archive: Archive) -> None:
    """Nothing settles, so the journal fills up until requests are refused."""
    server = archive.server
    usual = server.flags
    server.flags = (*usual, "--settle-after", "1h", "--idle-after", "1h", "--journal-budget", "96KiB")
    try:
        server.start()
        make = generate.Maker(6)
        for _ in range(1000):
            body = generate.request(make.span(make.trace_id(), attributes={"text": make.text(900)}))
            answer = otlp.post_bytes(server.url, body.SerializeToString(), session=server.session)
            if answer.status_code == 429:
                break
        assert answer.status_code == 429
        check(archive.cli).assert_failed("journal", "96.0 KiB", "429")
        server.flush()
        check(archive.cli).assert_passed()
    finally:
        server.flags = usual


def test_a_table_of_the_seeds_columns_alone(make_server: Callable[..., Server]) -> None:
    """As Spark makes it: the contract is there, what tracelake adds is not until `setup`."""
    from test_cli import make_seed_table

    server = make_server()
    server.data_dir.mkdir(parents=True)
    path = server.table_path(TABLE)
    path.mkdir(parents=True)
    make_seed_table(str(path))
    before = DeltaTable(str(path)).version()
    report = check(server.cli)
    assert {"catalog entry", "added columns", "clustering"} <= set(report.items("failed"))
    assert report.rows["columns"]["result"] == report.rows["change data feed"]["result"] == "ok"
    assert DeltaTable(str(path)).version() == before
    assert not (server.data_dir / "registry.db").exists()
    server.cli.ok("setup", TABLE, "--experiment", EXPERIMENT)
    check(server.cli).assert_passed()
    assert list(table.rows(path)) == ["seed"]
