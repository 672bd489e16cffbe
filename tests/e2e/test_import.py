"""`tracelake import`: every kind of file, broken off and gone on with, hostile files.

IMPORT_SEED repeats the moments of the kills.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import zstandard
from google.protobuf.internal.encoder import _VarintBytes

from support import generate, otlp, table
from support.otlp import ExportTraceServiceRequest
from support.server import DEFAULT_TABLE, SHARED_DATA, Cli, Server, binary, clean_environment
from support.truth import differences, read_delimited, truth_of

SEED = int(os.environ.get("IMPORT_SEED", "0")) or time.time_ns() % 10**9
WRITTEN_BY_THE_ARCHIVER = ("created_at", "updated_at", "revision")

Bodies = list[ExportTraceServiceRequest]


def delimited(bodies: Bodies) -> bytes:
    """As `tracelake rebuild` writes several messages."""
    parts = [body.SerializeToString() for body in bodies]
    return b"".join(_VarintBytes(len(part)) + part for part in parts)


def length_prefixed(bodies: Bodies) -> bytes:
    """As the Collector's file exporter writes protobuf."""
    parts = [body.SerializeToString() for body in bodies]
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def one_message(bodies: Bodies) -> bytes:
    """One message with all resource spans."""
    return b"".join(body.SerializeToString() for body in bodies)


def one_document(bodies: Bodies) -> bytes:
    """One JSON document over many lines."""
    resource_spans = [
        entry for body in bodies for entry in json.loads(otlp.to_json(body)).get("resourceSpans", ())
    ]
    return json.dumps({"resourceSpans": resource_spans}, indent=1).encode()


def lines(bodies: Bodies) -> bytes:
    """One JSON document a line."""
    return b"".join(otlp.to_json(body) + b"\n" for body in bodies)


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=1).compress(data)


FORMATS: dict[str, tuple[str, Callable[[Bodies], bytes]]] = {
    "pb": ("all.pb", one_message),
    "pb-gzip": ("all.pb.gz", lambda bodies: gzip.compress(one_message(bodies), 1)),
    "delimited": ("all.pb", delimited),
    "delimited-zstd": ("all.bin", lambda bodies: zstd(delimited(bodies))),
    "length-prefixed": ("all.pb", length_prefixed),
    "json": ("all.json", one_document),
    "jsonl": ("all.jsonl", lines),
    "jsonl-gzip-members": (
        "misnamed.pb",
        lambda bodies: b"".join(gzip.compress(lines([body]), 1) for body in bodies),
    ),
    "jsonl-zstd": ("all.jsonl.zst", lambda bodies: zstd(lines(bodies))),
}


def summary(cli: Cli, *arguments: object, code: int = 0, **options) -> dict:
    """Runs an import and gives the row that it prints."""
    done = cli.run("import", *map(str, arguments), "--format", "json", **options)
    assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    (row,) = json.loads(done.stdout)
    return row | {"stderr": done.stderr}


def comparable_rows(data_dir: Path) -> dict[str, dict]:
    """All rows of the default table, without what says when they were archived."""
    path = data_dir.joinpath("tables", *DEFAULT_TABLE.split("."))
    found = table.rows(path)
    for row in found.values():
        for column in WRITTEN_BY_THE_ARCHIVER:
            row.pop(column, None)
    return found


def assert_same_rows(expected: dict[str, dict], found: dict[str, dict]) -> None:
    """Row by row, column by column."""
    assert found.keys() == expected.keys()
    for trace_id, row in expected.items():
        for column, value in row.items():
            assert repr(found[trace_id][column]) == repr(value), f"{trace_id}: {column}"


def rebuilt(cli: Cli, output: Path) -> Bodies:
    cli.ok("rebuild", DEFAULT_TABLE, "--output", str(output))
    return read_delimited(output.read_bytes())


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Commands on a fresh folder on which no service runs."""
    return Cli(tmp_path / "data")


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_each_kind_of_file_gives_the_spans_as_they_are(cli: Cli, form: str, tmp_path: Path) -> None:
    """The difficult traces and random ones; a second import changes nothing and reads nothing."""
    bodies = [body for _, body in generate.tricky()] + generate.random_traces(seed=7, count=40)
    name, write = FORMATS[form]
    source = tmp_path / name
    source.write_bytes(write(bodies))
    row = summary(cli, source)
    assert (row["files"], row["imported"], row["failed"]) == (1, 1, 0), row
    truth = truth_of(bodies)
    assert row["traces"] == len(truth)
    assert row["spans"] == sum(len(trace.sent) for trace in truth.values())
    wrong = differences(truth, truth_of(rebuilt(cli, tmp_path / "rebuilt.bin")))
    assert not wrong, "\n".join(wrong[:3])
    again = summary(cli, source)
    assert (again["already_imported"], again["spans"], again["bytes"]) == (1, 0, 0), again


def split_over_files(folder: Path, bodies: Bodies) -> int:
    """Writes each trace's spans to several files, of several kinds. Gives the number of files."""
    folder.mkdir()
    count = 0
    for number, body in enumerate(bodies):
        for resource_spans in body.resource_spans:
            part = ExportTraceServiceRequest(resource_spans=[resource_spans])
            suffix, write = (("pb", one_message), ("json.gz", lambda b: gzip.compress(one_document(b))),
                             ("jsonl", lines))[count % 3]  # fmt: skip
            # Parts of one trace lie far from each other in the order of names.
            name = f"{count % 7}-{number:05}-{count}.{suffix}"
            (folder / name).write_bytes(write([part]))
            count += 1
    return count


@pytest.fixture(scope="module", params=["made-up", "real"])
def large_import(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    """Files enough to be killed on the way twice: made-up ones, and the real traces before them."""
    made_up = made_up_files(tmp_path_factory)
    if request.param == "made-up":
        return [made_up]
    if not SHARED_DATA.is_dir():
        pytest.skip("the recorded real traces are not on this machine (../shared/data)")
    return [SHARED_DATA / "otlp_real", SHARED_DATA / "otlp_derived", made_up]


def made_up_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made-up")
    split_over_files(folder / "small", generate.random_traces(seed=11, count=250))
    bulk = list(generate.bulk(count=4_000, per_request=50, payload_bytes=2_000, error_every=9))
    (folder / "bulk.jsonl").write_bytes(lines(bulk[:40]))
    (folder / "bulk.pb").write_bytes(one_message(bulk[40:]))
    return folder


@pytest.fixture(scope="module")
def clean_run(large_import: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """The rows of one import that nothing disturbed."""
    clean = Cli(tmp_path_factory.mktemp("clean") / "data")
    row = summary(clean, *large_import, timeout=300)
    assert row["failed"] == 0 and row["imported"] > 100 and row["spans"] > 5_000, row
    rows = comparable_rows(clean.data_dir)
    assert len(rows) == row["traces"]
    return rows


def start_import(cli: Cli, paths: Iterable[Path]) -> subprocess.Popen:
    cli.data_dir.parent.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        [str(binary()), "import", *map(str, paths), "--data-dir", str(cli.data_dir), "--quiet"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
        env=clean_environment(), cwd=cli.data_dir.parent,
    )  # fmt: skip


def ledger_bytes(cli: Cli) -> int:
    path = cli.data_dir / "imports" / "ledger.jsonl"
    return path.stat().st_size if path.exists() else 0


def ledger_entries(cli: Cli, begin: int = 0) -> list[dict]:
    """What the ledger says from a byte on, line by line; torn lines say nothing."""
    entries = []
    for line in (cli.data_dir / "imports" / "ledger.jsonl").read_bytes()[begin:].splitlines():
        with contextlib.suppress(ValueError):
            entries.append(json.loads(line))
    return entries


def wait_for_progress(cli: Cli, process: subprocess.Popen, more_than: int) -> None:
    """Until the ledger has grown, so that something is there to go on from."""
    deadline = time.monotonic() + 60
    while ledger_bytes(cli) <= more_than + 10 and process.poll() is None:
        assert time.monotonic() < deadline, "the import makes no progress"
        time.sleep(0.005)


@pytest.mark.timeout(300)
def test_an_import_killed_twice_gives_the_table_of_a_clean_run(
    cli: Cli, large_import: list[Path], clean_run: dict[str, dict]
) -> None:
    """kill -9 to the process that reads, journals and commits, once it has made some progress."""
    chance = random.Random(SEED)
    print(f"IMPORT_SEED={SEED}")
    landed, patience = 0, 0.03
    for _ in range(20):
        before = ledger_bytes(cli)
        process = start_import(cli, large_import)
        wait_for_progress(cli, process, before)
        time.sleep(chance.uniform(0, patience))
        if process.poll() is None:
            process.kill()
            landed += 1
        else:
            # It was through before the kill: from the beginning, less patiently.
            shutil.rmtree(cli.data_dir)
            landed, patience = 0, patience / 2
        process.communicate()
        if landed == 2:
            break
    assert landed == 2, "the import is too quick to be killed twice"
    before = ledger_bytes(cli)
    known = {entry["file"]: (entry["offset"], entry["done"]) for entry in ledger_entries(cli)}
    assert known, "nothing was there to go on from"
    row = summary(cli, *large_import, timeout=300)
    assert row["failed"] == 0, row
    assert row["already_imported"] == sum(done for _, done in known.values()), known
    again = [
        entry
        for entry in ledger_entries(cli, before)
        if (entry["offset"], entry["done"]) <= known.get(entry["file"], (0, False))
    ]
    assert again == [], "the last run did not go on where the ones before it were"
    assert_same_rows(clean_run, comparable_rows(cli.data_dir))


@pytest.mark.timeout(300)
def test_an_import_into_a_service_that_is_killed_gives_the_table_of_a_clean_run(
    make_server: Callable[..., Server], large_import: list[Path], clean_run: dict[str, dict]
) -> None:
    """First the service dies and comes back on another port, then the import, then both."""
    chance = random.Random(SEED)
    print(f"IMPORT_SEED={SEED}")
    server = make_server()
    server.start()
    process = start_import(server.cli, large_import)
    wait_for_progress(server.cli, process, 0)
    time.sleep(chance.uniform(0, 0.1))
    server.kill()
    server.start()
    before = ledger_bytes(server.cli)
    wait_for_progress(server.cli, process, before)
    process.kill()
    process.communicate()
    process = start_import(server.cli, large_import)
    time.sleep(chance.uniform(0, 0.4))
    server.kill()
    process.kill()
    process.communicate()
    server.start()
    row = summary(server.cli, *large_import, timeout=300)
    assert row["failed"] == 0, row
    assert_same_rows(clean_run, comparable_rows(server.data_dir))
    server.stop()


def test_traces_split_over_files_are_one_row_each(cli: Cli, tmp_path: Path) -> None:
    """Parts of a trace in files of several kinds far from each other; read twice with --again."""
    bodies = generate.random_traces(seed=23, count=60)
    count = split_over_files(tmp_path / "parts", bodies)
    row = summary(cli, tmp_path / "parts")
    assert (row["imported"], row["failed"]) == (count, 0), row
    first = comparable_rows(cli.data_dir)
    wrong = differences(truth_of(bodies), truth_of(rebuilt(cli, tmp_path / "rebuilt.bin")))
    assert not wrong, "\n".join(wrong[:3])
    again = summary(cli, tmp_path / "parts", "--again")
    assert again["imported"] == count
    assert_same_rows(first, comparable_rows(cli.data_dir))


def test_rebuild_and_import_is_a_round_trip(server: Server, tmp_path: Path) -> None:
    """From one folder's table to another's: the same rows."""
    for body in generate.random_traces(seed=31, count=80) + [b for _, b in generate.tricky()]:
        otlp.post(server.url, body, session=server.session)
    server.flush()
    output = tmp_path / "all.pb"
    server.cli.ok("rebuild", DEFAULT_TABLE, "--output", str(output))
    other = Cli(tmp_path / "other")
    assert summary(other, output)["failed"] == 0
    # When a trace without times arrived is all that the archiver knows of its time.
    assert_same_rows(comparable_rows(server.data_dir), comparable_rows(other.data_dir))


def test_a_growing_file_is_read_on(cli: Cli, tmp_path: Path) -> None:
    """Appended lines alone are read; an incomplete last line is told and read when it is whole."""
    bodies = generate.random_traces(seed=41, count=9)
    whole = [lines([body]) for body in bodies]
    source = tmp_path / "traces.jsonl"
    source.write_bytes(b"".join(whole[:3]))
    assert summary(cli, source)["traces"] == 3
    with source.open("ab") as out:
        out.write(whole[3] + whole[4][:-20])
    torn = summary(cli, source, code=1)
    assert torn["traces"] == 1 and "traces.jsonl" in torn["stderr"], torn
    with source.open("ab") as out:
        out.write(whole[4][-20:] + whole[5])
    rest = summary(cli, source)
    assert rest["traces"] <= 3 and rest["failed"] == 0, rest
    # Another file under the same name is read from its start.
    source.write_bytes(b"".join(whole[6:]) + b" " * 1_000_000)
    assert summary(cli, source)["traces"] == 3
    assert len(comparable_rows(cli.data_dir)) == 9


def test_hostile_files_are_named_and_the_rest_goes_on(cli: Cli, tmp_path: Path) -> None:
    """Garbage, bombs, depth, special files, links in circles, names with escape codes."""
    folder = tmp_path / "in"
    folder.mkdir()
    (good,) = generate.random_traces(seed=43, count=1)
    bad = {
        "garbage.pb": os.urandom(2_000),
        "cut.pb": one_message([good])[:-5],
        "torn.json": otlp.to_json(good)[:-5],
        "deep.json": b'{"resourceSpans":' + b"[" * 100_000,
        "claims.pb": b"\x0a\xff\xff\xff\xff\x7f" + b"x" * 100,
        "notgzip.jsonl.gz": b"\x1f\x8b" + b"\x00" * 50,
        "bomb.json.gz": gzip.compress(b'{"spans":[' + b" " * (40 << 20), 1),
        "evil\x1b[31m\n.json": b'{"spans": 3}x',
    }
    for name, content in bad.items():
        (folder / name).write_bytes(content)
    for name, content in {"README.md": b"# readme", "other.json": b'{"items": []}'}.items():
        (folder / name).write_bytes(content)
    (folder / "good.pb").write_bytes(one_message([good]))
    os.mkfifo(folder / "fifo.pb")
    (folder / "circle").symlink_to(folder)
    (folder / "self.pb").symlink_to(folder / "self.pb")
    settings = tmp_path / "settings.toml"
    settings.write_text('max_decompressed = "32MiB"\n')
    named = ("/dev/zero", tmp_path / "missing.pb")
    row = summary(cli, folder, *named, "--config", settings, code=1)
    assert row["imported"] == 1, row
    assert row["failed"] == len(bad) + 2, row["stderr"]
    assert row["skipped"] == 5, row["stderr"]
    assert "\x1b" not in row["stderr"]
    for name in bad:
        assert name.split("\x1b")[0] in row["stderr"]
    assert "hint:" in row["stderr"]
    wrong = differences(truth_of([good]), truth_of(rebuilt(cli, tmp_path / "rebuilt.bin")))
    assert not wrong, wrong


def test_one_bad_line_costs_only_itself(cli: Cli, tmp_path: Path) -> None:
    """A line that is no JSON, and a span without ids: told with the place, the others are in."""
    first, last = generate.random_traces(seed=47, count=2)
    nameless = {"resourceSpans": [{"scopeSpans": [{"spans": [{"name": "no ids"}]}]}]}
    source = tmp_path / "traces.jsonl"
    source.write_bytes(
        lines([first]) + b"{broken}\n" + json.dumps(nameless).encode() + b"\n" + lines([last])
    )
    row = summary(cli, source, code=1)
    assert (row["traces"], row["rejected_spans"], row["failed"]) == (2, 1, 1), row
    assert "line 2" in row["stderr"]
    assert len(comparable_rows(cli.data_dir)) == 2


def test_ctrl_c_says_how_to_go_on_and_loses_nothing(cli: Cli, tmp_path: Path) -> None:
    """Standard input that never ends: what was read is kept, exit code 130."""
    cli.data_dir.mkdir(parents=True)
    process = subprocess.Popen(
        [str(binary()), "import", "-", "--data-dir", str(cli.data_dir)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=clean_environment(), cwd=tmp_path,
    )  # fmt: skip
    bodies = list(generate.bulk(count=3_000, per_request=100, payload_bytes=2_000, error_every=9))
    process.stdin.write(lines(bodies))
    process.stdin.flush()
    deadline = time.monotonic() + 60
    journal = cli.data_dir / "journal"
    while sum(p.stat().st_size for p in journal.glob("*")) < 1_000_000:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, (out, err)
    assert b"again" in err and b"hint:" in err, err
    cli.ok("flush")
    assert len(comparable_rows(cli.data_dir)) > 100


def mlflow_trace(seed: int, experiment: str = "0") -> tuple[str, dict]:
    """A trace as `Trace.to_json` has it, and its id."""
    make = generate.Maker(seed)
    trace_id, root, child = make.trace_id(), make.span_id(), make.span_id()

    def span(span_id: bytes, parent: bytes | None, **attributes: object) -> dict:
        named = {"mlflow.traceRequestId": f"tr-{trace_id.hex()}"} | attributes
        return {
            "trace_id": base64.b64encode(trace_id).decode(),
            "span_id": base64.b64encode(span_id).decode(),
            "parent_span_id": parent and base64.b64encode(parent).decode(),
            "name": "step", "start_time_unix_nano": generate.BASE_NS,
            "end_time_unix_nano": generate.BASE_NS + 10**9, "events": [],
            "status": {"code": "STATUS_CODE_OK", "message": ""},
            "attributes": {key: json.dumps(value) for key, value in named.items()},
        }  # fmt: skip

    info = {
        "trace_id": f"tr-{trace_id.hex()}", "client_request_id": f"request-{seed}",
        "trace_location": {
            "type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment},
        },
        "request_time": "2026-11-22T10:00:00.123Z", "execution_duration_ms": 1_000, "state": "OK",
        "tags": {"team": "checkout"}, "trace_metadata": {"mlflow.trace.session": "s-1"},
        "assessments": [{
            "assessment_id": "a-1", "assessment_name": "good", "trace_id": f"tr-{trace_id.hex()}",
            "source": {"source_type": "HUMAN", "source_id": "me"},
            "create_time": "2026-11-22T10:00:01Z", "last_update_time": "2026-11-22T10:00:01Z",
            "feedback": {"value": True},
        }],
    }  # fmt: skip
    spans = [
        span(root, None, **{"mlflow.spanType": "AGENT", "mlflow.spanInputs": {"q": seed}}),
        span(child, root, **{"mlflow.spanType": "LLM", "deep": {"a": [1, 2.5, None, "x"]}}),
    ]
    return trace_id.hex(), {"info": info, "data": {"spans": spans}}


@pytest.mark.parametrize("with_service", [False, True])
def test_mlflow_traces_keep_what_is_said_of_them(
    make_server: Callable[..., Server], with_service: bool, tmp_path: Path
) -> None:
    """`Trace.to_json` alone, one a line, and in a list: tags, metadata, assessments, times."""
    server = make_server()
    if with_service:
        server.start()
    traces = dict(mlflow_trace(seed) for seed in range(5))
    documents = list(traces.values())
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "one.json").write_text(json.dumps(documents[0], indent=2))
    (folder / "lines.jsonl").write_text("".join(json.dumps(d) + "\n" for d in documents[1:3]))
    (folder / "list.json").write_text(json.dumps({"traces": documents[3:]}))
    row = summary(server.cli, folder)
    assert (row["imported"], row["traces"], row["spans"]) == (3, 5, 10), row
    rows = table.rows(server.table_path())
    assert rows.keys() == traces.keys()
    for trace_id, archived in rows.items():
        info = traces[trace_id]["info"]
        assert archived["client_request_id"] == info["client_request_id"]
        assert archived["execution_duration_ms"] == 1_000
        assert archived["session_id"] == "s-1"
        assert dict(archived["tags"])["team"] == "checkout"
        (assessment,) = archived["assessments"]
        assert assessment["assessment_name"] == "good"
        assert {span["source"] for span in archived["spans"]} == {"mlflow"}
        kinds = [span["span_type"] for span in archived["spans"]]
        assert sorted(kinds) == ["AGENT", "LLM"]


def test_mlflow_archive_layout_names_experiment_and_trace(cli: Cli, tmp_path: Path) -> None:
    """`<root>/<experiment>/traces/<id>/artifacts/`: spans without a trace id belong to that one."""
    cli.ok("setup", "lab.agents.traces", "--experiment", "lab")
    trace_id, document = mlflow_trace(99)
    spans = document["data"]["spans"]
    for span in spans:
        del span["trace_id"]
    place = tmp_path / "root" / "1" / "traces" / f"tr-{trace_id}" / "artifacts"
    place.mkdir(parents=True)
    (place / "traces.json").write_text(json.dumps({"spans": spans}))
    assert summary(cli, tmp_path / "root")["imported"] == 1
    path = cli.data_dir.joinpath("tables", "lab", "agents", "traces")
    (row,) = table.rows(path).values()
    assert (row["trace_id"], row["experiment_id"]) == (f"tr-{trace_id}", "1")
    # An experiment that is not here is told; one that the user names holds for all.
    nowhere = tmp_path / "root" / "77"
    (tmp_path / "root" / "1").rename(nowhere)
    failed = summary(cli, tmp_path / "root", code=1)
    assert "77" in failed["stderr"], failed
    assert summary(cli, tmp_path / "root", "--experiment", "lab")["imported"] == 1
    assert len(table.rows(path)) == 1


def test_mlflow_samples_are_read(cli: Cli, real_data: Path, tmp_path: Path) -> None:
    """What MLflow wrote: an archived traces.pb, a traces.json, and answers of its server."""
    wire = real_data / "mlflow_wire"
    archived = ExportTraceServiceRequest.FromString((wire / "archived_traces.pb").read_bytes())
    (trace_id,) = truth_of([archived])
    place = tmp_path / "root" / "0" / "traces" / f"tr-{trace_id}" / "artifacts"
    place.mkdir(parents=True)
    (place / "traces.pb").write_bytes((wire / "archived_traces.pb").read_bytes())
    row = summary(cli, tmp_path / "root", wire / "artifact_traces.json", "--experiment", "copied")
    assert (row["imported"], row["traces"], row["failed"]) == (2, 2, 0), row
    truth = truth_of([archived])
    found = truth_of(rebuilt(cli, tmp_path / "rebuilt.bin"))
    wrong = differences(truth, {trace_id: found[trace_id]})
    assert not wrong, "\n".join(wrong)
    answer = summary(cli, wire / "get_trace_v3.response.json", "--experiment", "copied")
    assert answer["traces"] == 1 and answer["spans"] > 5, answer
    # The same trace as its artifact: MLflow's two forms of one span are one span.
    artifact = summary(cli, wire / "get_trace_artifact.response.json", "--experiment", "copied")
    assert artifact["spans"] == answer["spans"]
    rows = table.rows(cli.data_dir.joinpath("tables", *DEFAULT_TABLE.split(".")))
    assert len(rows) == 3
    assert sorted(row["span_count"] for row in rows.values())[-1] == answer["spans"]


def test_dry_run_lists_and_does_nothing(cli: Cli, tmp_path: Path) -> None:
    """Kind, size and what would be done, before and after an import."""
    source = tmp_path / "a.jsonl"
    source.write_bytes(lines(generate.random_traces(seed=53, count=2)))
    arguments = ("import", str(source), "--dry-run", "--format", "json")
    (planned,) = json.loads(cli.ok(*arguments))
    assert (planned["kind"], planned["action"]) == ("JSON", "import")
    assert planned["bytes"] == source.stat().st_size
    assert not (cli.data_dir / "journal").exists()
    summary(cli, source)
    (planned,) = json.loads(cli.ok(*arguments))
    assert planned["action"] == "imported already"
