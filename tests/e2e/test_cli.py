"""The commands, beside a running service and without one; and the table they make, seen from outside."""

from __future__ import annotations

import csv
import io
import json
import signal
import time
from collections.abc import Callable

import pyarrow as pa
import pytest
from deltalake import DeltaTable, Field, Schema
from deltalake.schema import PrimitiveType, StructType

from support import generate, otlp, table
from support.server import DEFAULT_TABLE, QUICK, Server

TABLE = "production.monitoring.agent_traces"
EXPERIMENT = "/Shared/health_monitor_agent/production"

CONTRACT = [
    ("trace_id", "string", False, "MLflow trace ID"),
    ("experiment_id", "string", True, "MLflow experiment ID"),
    ("run_id", "string", True, "MLflow run ID"),
    ("trace_info", "struct", True, "Trace metadata"),
    ("spans", "array", True, "Trace spans"),
    ("created_at", "timestamp", False, "Archive timestamp"),
]
TRACE_INFO = [("request_id", "string"), ("timestamp", "timestamp"), ("status", "string")]
TEXT_MAP = {"type": "map", "keyType": "string", "valueType": "string"}
SPAN = [
    ("span_id", "string"), ("name", "string"), ("span_type", "string"), ("start_time", "timestamp"),
    ("end_time", "timestamp"), ("status", "string"), ("inputs", "string"), ("outputs", "string"),
    ("tags", TEXT_MAP), ("metadata", TEXT_MAP),
]  # fmt: skip
SPAN_ADDED = [
    "parent_span_id", "kind", "status_message", "start_time_unix_nano", "end_time_unix_nano", "events",
    "dropped_events_count", "links", "dropped_links_count", "trace_state", "flags",
    "dropped_attributes_count", "scope", "resource", "model", "model_provider", "input_tokens",
    "output_tokens", "total_tokens", "cache_read_input_tokens", "cache_creation_input_tokens",
]  # fmt: skip
TRACE_ADDED = [
    "trace_name", "execution_duration_ms", "request_preview", "response_preview", "client_request_id",
    "session_id", "user_id", "tags", "trace_metadata", "assessments", "input_tokens", "output_tokens",
    "total_tokens", "models", "span_count", "error_span_count", "total_span_duration_ns",
    "max_span_duration_ns", "updated_at", "revision",
]  # fmt: skip
FORMATS = ("json", "jsonl", "csv")


def three_traces(server: Server) -> dict[str, str]:
    """A good, a failed, and a nested trace; gives their ids by name."""
    make = generate.Maker(12)
    good, failed, nested = make.trace_id(), make.trace_id(), make.trace_id()
    root = make.span_id()
    ms = generate.MS
    body = generate.request(
        make.span(good, "good", length=1_500_000),
        make.span(
            failed, 'failed, "quoted"\n=1+1', status=generate.status_error("no, not \x1b[31mthis")
        ),
        make.span(nested, "=HYPERLINK(1)", span_id=root, length=10 * ms),
        make.span(
            nested, "inner", 1 * ms, 4 * ms, parent_span_id=root, status=generate.status_error()
        ),
    )
    otlp.post(server.url, body)
    return {
        "good": f"tr-{good.hex()}",
        "failed": f"tr-{failed.hex()}",
        "nested": f"tr-{nested.hex()}",
    }


def parse(text: str, output: str) -> list[dict]:
    """Rows of one of the machine-readable formats."""
    if output == "json":
        return json.loads(text)
    if output == "jsonl":
        return [json.loads(line) for line in text.splitlines()]
    return list(csv.DictReader(io.StringIO(text)))


# --- the commands ---


@pytest.mark.parametrize("running", [True, False], ids=["beside a service", "without a service"])
def test_the_three_questions_have_answers(server: Server, running: bool) -> None:
    """traces, errors, performance and sql, in each format."""
    ids = three_traces(server)
    server.cli.ok("flush")
    if not running:
        server.stop()
    for output in FORMATS:
        assert_answers(server, ids, output)
    readable = server.cli.ok("traces", DEFAULT_TABLE)
    assert ids["good"] in readable
    assert "\x1b" not in server.cli.ok("errors", DEFAULT_TABLE), (
        "control codes of a sender reach the terminal"
    )


def assert_answers(server: Server, ids: dict[str, str], output: str) -> None:
    """The rows of every command in one format."""

    def rows(*command: str) -> list[dict]:
        return parse(server.cli.ok(*command, "--format", output), output)

    assert {row["trace_id"] for row in rows("traces", DEFAULT_TABLE)} == set(ids.values())
    failed = {row["trace_id"] for row in rows("errors", DEFAULT_TABLE)}
    assert failed == {ids["failed"], ids["nested"]}
    by_id = {row["trace_id"]: row for row in rows("performance", DEFAULT_TABLE)}
    assert by_id.keys() == set(ids.values())
    nested, good = by_id[ids["nested"]], by_id[ids["good"]]
    assert int(nested["span_count"]) == 2
    assert float(nested["total_duration_ms"]) == pytest.approx(14.0)
    assert float(nested["avg_span_duration_ms"]) == pytest.approx(7.0)
    assert float(good["total_duration_ms"]) == pytest.approx(1.5), "fractions are kept"
    counted = rows("sql", f"select count(*) as n from {DEFAULT_TABLE}")
    assert [int(row["n"]) for row in counted] == [3]
    assert len(rows("traces", DEFAULT_TABLE, "--limit", "2")) == 2
    assert rows("traces", DEFAULT_TABLE, "--until", "24h") == []
    if output == "csv":
        cells = [cell for row in rows("traces", DEFAULT_TABLE) for cell in row.values()]
        assert not [cell for cell in cells if cell.startswith("=")], "a spreadsheet would run it"


def test_own_queries_show_a_trace_within_a_second_of_the_ack(
    make_server: Callable[..., Server],
) -> None:
    """Also while its commit is far away; and data goes to stdout alone."""
    server = make_server(
        "--settle-after", "1h", "--idle-after", "1h", "--commit-every", "1h", quick=False
    )
    server.start()
    ids = three_traces(server)
    time.sleep(1)
    assert int(server.cli.scalar(f"select count(*) from {DEFAULT_TABLE}")) == len(ids)
    assert not table.exists(server.table_path()) or not table.rows(server.table_path())


def test_flush_without_a_service_commits_what_the_journal_holds(
    make_server: Callable[..., Server],
) -> None:
    """After a kill, before any restart."""
    server = make_server(
        "--settle-after", "1h", "--idle-after", "1h", "--commit-every", "1h", quick=False
    )
    server.start()
    ids = three_traces(server)
    server.kill()
    server.cli.ok("flush")
    assert {f"tr-{trace_id}" for trace_id in table.rows(server.table_path())} == set(ids.values())
    server.start()
    server.flush()
    assert len(table.rows(server.table_path())) == 3


@pytest.mark.parametrize("running", [True, False], ids=["beside a service", "without a service"])
def test_setup_makes_the_table_and_binds_the_experiment(
    make_server: Callable[..., Server], running: bool
) -> None:
    """Traces of the experiment land in its table, the others in the default one; setup again is no harm."""
    server = make_server()
    if running:
        server.start()
    server.cli.ok("setup", TABLE, "--experiment", EXPERIMENT)
    server.cli.ok("setup", TABLE, "--experiment", EXPERIMENT)
    if not running:
        server.start()
    answer = server.session.get(
        f"{server.url}/api/2.0/mlflow/experiments/get-by-name",
        params={"experiment_name": EXPERIMENT},
        timeout=10,
    )
    experiment = answer.json()["experiment"]["experiment_id"]
    make = generate.Maker(4)
    bound, other = make.trace_id(), make.trace_id()
    otlp.post(
        server.url,
        generate.request(make.span(bound)),
        headers={"x-mlflow-experiment-id": experiment},
    )
    otlp.post(server.url, generate.request(make.span(other)))
    server.flush()
    rows = table.rows(server.table_path(TABLE))
    assert rows.keys() == {bound.hex()}
    assert rows[bound.hex()]["experiment_id"] == experiment
    assert table.rows(server.table_path()).keys() == {other.hex()}
    assert [row["trace_id"] for row in server.cli.json("traces", TABLE)] == [f"tr-{bound.hex()}"]


def test_experiment_may_come_from_the_resource(server: Server) -> None:
    """Without a header, the resource attribute `mlflow.experimentId` decides."""
    made = server.session.post(
        f"{server.url}/api/2.0/mlflow/experiments/create", json={"name": "by resource"}, timeout=10
    ).json()["experiment_id"]
    make = generate.Maker(6)
    trace_id = make.trace_id()
    otlp.post(server.url, generate.request(make.span(trace_id), **{"mlflow.experimentId": made}))
    server.flush()
    assert table.rows(server.table_path())[trace_id.hex()]["experiment_id"] == made


@pytest.mark.parametrize(
    "command",
    [
        ("sql", "select 1 +"),
        ("sql", "select nothing from tracelake.default.traces"),
        ("sql", "select * from no.such.table"),
        ("sql", "drop table tracelake.default.traces"),
        ("sql", "create external table x stored as csv location '/etc/passwd'"),
        ("sql", "copy (select 1) to '/tmp/tracelake-e2e-copied.csv'"),
        ("traces", "no.such.table"),
        ("traces", "not a name"),
        ("traces", DEFAULT_TABLE, "--since", "soon"),
        ("traces", DEFAULT_TABLE, "--format", "xml"),
        ("setup", TABLE),
        ("nonsense",),
    ],
    ids=lambda command: " ".join(command)[:40],
)
def test_mistakes_are_told_on_stderr_with_an_exit_code(
    server: Server, command: tuple[str, ...]
) -> None:
    """Nothing on stdout, no panic, something to read, and nothing harmed."""
    three_traces(server)
    server.flush()
    done = server.cli.run(*command)
    assert done.returncode != 0
    assert done.stdout == ""
    assert len(done.stderr) > 10 and "panicked" not in done.stderr, done.stderr
    assert len(table.rows(server.table_path())) == 3


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("serve",),
        ("setup",),
        ("traces",),
        ("errors",),
        ("performance",),
        ("sql",),
        ("flush",),
        ("rebuild",),
    ],
)
def test_every_command_explains_itself(
    make_server: Callable[..., Server], command: tuple[str, ...]
) -> None:
    server = make_server()
    done = server.cli.run(*command, "--help") if command else None
    if done is None:
        import subprocess

        from support.server import binary

        done = subprocess.run([str(binary()), "--help"], capture_output=True, text=True, timeout=20)
        for verb in ("serve", "setup", "traces", "errors", "performance", "sql", "flush"):
            assert verb in done.stdout
    assert done.returncode == 0 and len(done.stdout) > 40


# --- settings ---


def test_settings_come_from_file_then_environment_then_flags(
    make_server: Callable[..., Server], tmp_path
) -> None:
    """The later wins, seen by where traces go and how large a body may be."""
    (tmp_path / "tracelake.toml").write_text(
        'default_table = "from.toml.file"\nmax_body = "1MiB"\n'
    )
    server = make_server(
        *QUICK, quick=False, env={"TRACELAKE_DEFAULT_TABLE": "from.environment.variable"}
    )
    server.start()
    three_traces(server)
    server.flush()
    assert len(table.rows(server.table_path("from.environment.variable"))) == 3
    assert otlp.post_bytes(server.url, bytes(2 * 1024 * 1024)).status_code == 413
    server.stop()
    server.flags = (*server.flags, "--default-table", "from.a.flag")
    server.start()
    make = generate.Maker(44)
    otlp.post(server.url, generate.request(make.span(make.trace_id())))
    server.flush()
    assert len(table.rows(server.table_path("from.a.flag"))) == 1


def test_unknown_setting_in_the_file_is_refused(
    make_server: Callable[..., Server], tmp_path
) -> None:
    """A typing error must not silently mean the default."""
    (tmp_path / "tracelake.toml").write_text('commit_evry = "2s"\n')
    server = make_server()
    assert server.spawn().wait(timeout=20) != 0
    assert "commit_evry" in server.log_tail()


# --- stopping ---


@pytest.mark.parametrize(
    "signal_number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"]
)
@pytest.mark.parametrize("settled", [True, False], ids=["settled", "open traces"])
def test_clean_stop_keeps_all_that_was_acknowledged(
    make_server: Callable[..., Server], signal_number: int, settled: bool
) -> None:
    """Exit code 0; what is not in the table yet is in the journal and comes after a start."""
    waits = () if settled else ("--settle-after", "1h", "--idle-after", "1h")
    server = make_server(*waits)
    server.start()
    ids = three_traces(server)
    server.stop(signal_number)
    server.start()
    server.flush()
    assert {f"tr-{trace_id}" for trace_id in table.rows(server.table_path())} == set(ids.values())
    assert all(row["revision"] is not None for row in table.rows(server.table_path()).values())


# --- the table, from outside ---


def test_table_is_the_contract_exactly(make_server: Callable[..., Server]) -> None:
    """Names, order, types, nullability, comments, properties, clustering: from the log's own JSON."""
    server = make_server()
    server.cli.ok("setup", TABLE, "--experiment", EXPERIMENT)
    actions = [action for _, action in table.log_actions(server.table_path(TABLE))]
    metadata = [a["metaData"] for a in actions if "metaData" in a][-1]
    protocol = [a["protocol"] for a in actions if "protocol" in a][-1]
    domains = {
        a["domainMetadata"]["domain"]: a["domainMetadata"] for a in actions if "domainMetadata" in a
    }

    fields = json.loads(metadata["schemaString"])["fields"]
    found = [
        (f["name"], kind(f["type"]), f["nullable"], f["metadata"].get("comment")) for f in fields
    ]
    assert found[: len(CONTRACT)] == CONTRACT
    assert [(f["name"], f["type"]) for f in fields[3]["type"]["fields"]] == TRACE_INFO
    span_fields = fields[4]["type"]["elementType"]["fields"]
    assert [(f["name"], without_nullability(f["type"])) for f in span_fields[: len(SPAN)]] == SPAN
    assert set(SPAN_ADDED) <= {f["name"] for f in span_fields[len(SPAN) :]}
    assert set(TRACE_ADDED) <= {f["name"] for f in fields[len(CONTRACT) :]}
    assert all(f["nullable"] for f in fields[len(CONTRACT) :]), (
        "a table without the added columns must stay valid"
    )

    assert metadata["description"] == "Archived MLflow traces for production monitoring"
    assert metadata["configuration"]["delta.enableChangeDataFeed"] == "true"
    assert metadata["configuration"]["delta.enableDeletionVectors"] == "true"
    assert {"clustering", "domainMetadata", "deletionVectors"} <= set(protocol["writerFeatures"])
    clustering = json.loads(domains["delta.clustering"]["configuration"])
    assert ["created_at"] in clustering["clusteringColumns"]


def kind(data_type: object) -> str:
    """A type's name, of structs and arrays too."""
    return data_type if isinstance(data_type, str) else data_type["type"]


def without_nullability(data_type: object) -> object:
    """Maps compared by their types only."""
    if isinstance(data_type, dict):
        return {key: value for key, value in data_type.items() if key in TEXT_MAP}
    return data_type


def test_data_files_are_written_for_readers(server: Server) -> None:
    """zstd, list child `element`, statistics for the columns that skipping uses, a bloom filter on the id."""
    import pyarrow.parquet as pq

    three_traces(server)
    server.flush()
    adds = [a["add"] for _, a in table.log_actions(server.table_path()) if "add" in a]
    assert adds
    for add in adds:
        stats = json.loads(add["stats"])
        assert stats["numRecords"] > 0
        assert {"created_at", "trace_info"} <= stats["minValues"].keys()
        assert (
            stats["minValues"]["trace_info"]["status"]
            and "timestamp" in stats["minValues"]["trace_info"]
        )
        file = pq.ParquetFile(server.table_path() / add["path"])
        group = file.metadata.row_group(0)
        columns = [group.column(n) for n in range(group.num_columns)]
        paths = {column.path_in_schema: column for column in columns}
        assert "spans.list.element.inputs" in paths
        assert {column.compression for column in columns} == {"ZSTD"}


def test_commits_carry_a_transaction_id(server: Server) -> None:
    """Every commit with data names its archiver and a version that only rises."""
    for _ in range(3):
        three_traces(server)
        server.flush()
        make = generate.Maker(int(time.time_ns()))
        otlp.post(server.url, generate.request(make.span(make.trace_id())))
        server.flush()
    by_version: dict[int, list[dict]] = {}
    for version, action in table.log_actions(server.table_path()):
        by_version.setdefault(version, []).append(action)
    last: dict[str, int] = {}
    for actions in by_version.values():
        if any("add" in a and a["add"]["dataChange"] for a in actions):
            txns = [a["txn"] for a in actions if "txn" in a]
            assert txns, "data without a transaction id"
            for txn in txns:
                if txn["appId"].endswith("-plan"):
                    # The nonce of the epoch's plan.
                    continue
                assert txn["version"] > last.get(txn["appId"], -1)
                last[txn["appId"]] = txn["version"]


def test_a_table_made_by_the_seeds_ddl_is_taken_over(make_server: Callable[..., Server]) -> None:
    """The contract's columns alone, made elsewhere: columns are added behind them, old rows stay."""
    server = make_server()
    path = server.table_path(TABLE)
    path.mkdir(parents=True)
    make_seed_table(str(path))
    server.cli.ok("setup", TABLE, "--experiment", EXPERIMENT)
    server.start()
    experiment = server.session.get(
        f"{server.url}/api/2.0/mlflow/experiments/get-by-name",
        params={"experiment_name": EXPERIMENT},
        timeout=10,
    ).json()["experiment"]["experiment_id"]
    make = generate.Maker(8)
    trace_id = make.trace_id()
    otlp.post(
        server.url,
        generate.request(make.span(trace_id)),
        headers={"x-mlflow-experiment-id": experiment},
    )
    server.flush()
    rows = table.rows(path)
    assert rows.keys() == {trace_id.hex(), "seed"}
    assert rows["seed"]["span_count"] is None
    assert rows[trace_id.hex()]["span_count"] == 1
    assert [name for name, *_ in CONTRACT] == [
        f.name for f in DeltaTable(str(path)).schema().fields[:6]
    ]
    assert len(server.cli.json("traces", TABLE, "--since", "36500d")) == 2


def make_seed_table(path: str) -> None:
    """As Spark would run the seed's DDL, less the Databricks-only clustering clause; with one row."""
    from deltalake.schema import ArrayType, MapType

    text, when = PrimitiveType("string"), PrimitiveType("timestamp")
    types = {"string": text, "timestamp": when}
    as_map = MapType(text, text, True)
    info = StructType([Field(name, types[t], True) for name, t in TRACE_INFO])
    span = StructType(
        [Field(name, types[t] if isinstance(t, str) else as_map, True) for name, t in SPAN]
    )
    columns = {"struct": info, "array": ArrayType(span, True)} | types
    fields = [
        Field(n, columns[t], nullable, metadata={"comment": c}) for n, t, nullable, c in CONTRACT
    ]
    created = DeltaTable.create(
        path, Schema(fields), configuration={"delta.enableChangeDataFeed": "true"}
    )
    from datetime import UTC, datetime

    from deltalake import write_deltalake

    schema = pa.schema(created.schema().to_arrow())
    row = {"trace_id": "tr-seed", "experiment_id": "7", "run_id": None, "created_at": datetime(2026, 1, 1, tzinfo=UTC),
           "trace_info": {"request_id": "r", "timestamp": datetime(2026, 1, 1, tzinfo=UTC), "status": "OK"}, "spans": []}  # fmt: skip
    write_deltalake(created, pa.Table.from_pylist([row], schema=schema), mode="append")
