"""The patterns that users come with, word for word: ../shared/seed/trace-archival-patterns.md.

Its Python blocks run against a service with traces and a Spark Connect session on Sail; the numbers are
held against the recorded truth. What no engine takes must fail with that reason, and its nearest valid
form must give the truth. Where the text is absent, `clients/patterns.md` of the same shape still runs.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pytest
from deltalake import DeltaTable

from support import generate, otlp, spark, table
from support.otlp import ExportTraceServiceRequest
from support.server import REPOSITORY, SHARED_DATA, Server, clean_environment
from support.truth import ERROR, Record, load_real, truth_of

SEED = REPOSITORY.parent / "shared" / "seed" / "trace-archival-patterns.md"
CLIENTS = Path(__file__).parent / "clients"
EXPERIMENT = "/Shared/health_monitor_agent/production"
# What its setup names, and what its queries ask when nothing is named.
NAMED, DEFAULT = "production.monitoring.agent_traces", "catalog.schema.agent_traces"
CONTRACT = ["trace_id", "experiment_id", "run_id", "trace_info", "spans", "created_at"]
OTHER_IDS = b"\xff" * 16


@dataclass(frozen=True)
class Facts:
    """What the analyses must say of one trace."""

    span_count: int
    has_error: bool
    seconds: list[int]
    """Of each span with known times, as a difference of whole seconds since the epoch."""
    nanoseconds: list[int]

    @classmethod
    def of(cls, records: list[Record]) -> Facts:
        spans = [record.span for record in records]
        known = [s for s in spans if s.start_time_unix_nano and s.end_time_unix_nano]
        return cls(
            len(spans),
            any(span.status.code == ERROR for span in spans),
            [s.end_time_unix_nano // 10**9 - s.start_time_unix_nano // 10**9 for s in known],
            [s.end_time_unix_nano - s.start_time_unix_nano for s in known],
        )

    def sums_in_seconds(self) -> tuple:
        """Total and mean as the document has them: whole seconds under the name of milliseconds."""
        if not self.seconds:
            return None, None
        return sum(self.seconds), sum(self.seconds) / len(self.seconds)

    def sums_in_milliseconds(self) -> tuple:
        """Total, and that divided by the number of spans."""
        total = sum(self.nanoseconds) / 1e6
        return total, total / self.span_count


@dataclass(frozen=True)
class Outcome:
    """What a run left behind."""

    server: Server
    facts: dict[str, Facts]
    """By trace id in the named table; in the default table all bits of the ids are inverted."""
    report: dict
    folder: Path
    refused: dict[str, str]
    """What Sail says of each form of the DDL that it does not take."""
    checked: dict[str, dict[str, str]]
    """The checklist of the table that Sail made, before and after tracelake accepted it."""

    def rows(self, name: str) -> list[dict]:
        assert name not in self.report["failed"], f"{name}: {self.report['failed'][name]}"
        return pyarrow.feather.read_table(self.folder / f"{name}.arrow").to_pylist()

    def columns(self, name: str) -> list[str]:
        return pyarrow.feather.read_table(self.folder / f"{name}.arrow").column_names

    def by_trace(self, name: str) -> dict[str, dict]:
        """Rows by the id that the trace has in the truth; each trace once."""
        invert = name.startswith(("default.", "verbatim.", "ours.default."))
        found = {}
        for row in self.rows(name):
            trace_id = row["trace_id"].removeprefix("tr-")
            trace_id = inverted(bytes.fromhex(trace_id)).hex() if invert else trace_id
            assert trace_id not in found, f"{name}: two rows of {trace_id}"
            found[trace_id] = row
        return found


def inverted(trace_id: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(trace_id, OTHER_IDS, strict=True))


def with_other_ids(body: ExportTraceServiceRequest) -> ExportTraceServiceRequest:
    """The same spans as traces of their own."""
    copy = ExportTraceServiceRequest.FromString(body.SerializeToString())
    for resource in copy.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                span.trace_id = inverted(span.trace_id)
    return copy


# --- the DDL ---


def forms_of(ddl: str, location: str) -> dict[str, str]:
    """The document's statement, and what is taken from it until Sail takes it."""
    keys = ddl.replace("CLUSTER BY AUTO", "CLUSTER BY (created_at, trace_id)")
    no_keys = ddl.replace("CLUSTER BY AUTO\n", "").rstrip().removesuffix(";")
    no_feed = re.sub(r"TBLPROPERTIES \(.*?\)", "", no_keys, flags=re.DOTALL)
    forms = {
        "as written": ddl,
        "explicit clustering keys": keys,
        "no clustering keys": f"{no_keys} LOCATION '{location}'",
        "no change data feed": f"{no_feed} LOCATION '{location}'",
    }
    assert len(set(forms.values())) == len(forms), "a clause that the document does not have"
    return forms


def create_by_sail(ddl: str, location: Path) -> dict[str, str]:
    """Creates the table by the first form that Sail takes; gives what it says of those before."""
    refused = {}
    settings = {
        "SAIL_CATALOG__LIST": '[{name="catalog", type="memory", initial_database=["schema"]}]',
        "SAIL_CATALOG__DEFAULT_CATALOG": "catalog",
    }
    with spark.sail(**settings) as session:
        for form, statement in forms_of(ddl, location.as_uri()).items():
            try:
                session.sql(statement).collect()
            except Exception as error:
                refused[form] = str(error)
            else:
                print(f"Sail takes the DDL with {form}; not {refused}")
                return refused
    raise AssertionError(f"Sail takes no form of the DDL: {refused}")


def checklist(server: Server, *flags: str) -> dict[str, str]:
    """The result of each item of the default table's checklist."""
    done = server.cli.run("check", DEFAULT, "--format", "json", *flags)
    return {line["item"]: line["result"] for line in json.loads(done.stdout)}


# --- the run ---


@pytest.fixture(scope="module", params=["seed", "own patterns"])
def outcome(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """The document after it ran, once on real traces and once on made-up ones."""
    folder = tmp_path_factory.mktemp("seed")
    if request.param == "seed":
        if not SEED.is_file() or not SHARED_DATA.is_dir():
            pytest.skip("the seed's text or its traces are not on this machine (../shared)")
        document, bodies = SEED, [body for _, body in load_real(SHARED_DATA)]
    else:
        document, bodies = CLIENTS / "patterns.md", [body for _, body in generate.tricky()]
    server = Server(folder / "data")
    try:
        server.start()
        yield run(document, bodies, server, folder)
        server.stop()
    finally:
        server.close()


def run(
    document: Path, bodies: list[ExportTraceServiceRequest], server: Server, folder: Path
) -> Outcome:
    """Both tables are filled: the default one, which Sail made, through an experiment of its own."""
    (ddl,) = re.findall(r"^```sql\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL)
    refused = create_by_sail(ddl, server.table_path(DEFAULT))
    checked = {"made": checklist(server, "--no-write")}
    server.cli.ok("setup", DEFAULT, "--experiment", "/Shared/defaults")
    checked["accepted"] = checklist(server)
    files = folder / "traces"
    files.mkdir()
    for number, body in enumerate(bodies):
        (files / f"{number:03}.pb").write_bytes(body.SerializeToString())
        headers = {"x-mlflow-experiment-id": "1"}
        otlp.post(server.url, with_other_ids(body), headers=headers, session=server.session)
    create = f"{server.url}/api/2.0/mlflow/experiments/create"
    server.session.post(create, json={"name": EXPERIMENT}, timeout=20).raise_for_status()
    server.cli.ok("import", str(files), "--experiment", EXPERIMENT)
    server.flush()
    answers = folder / "answers"
    answers.mkdir()
    done = subprocess.run(
        [sys.executable, str(CLIENTS / "run_seed.py"), str(document), server.url, str(answers)],
        capture_output=True,
        text=True,
        timeout=240,
        stdin=subprocess.DEVNULL,
        cwd=folder,
        # The document compares local time with timestamps, so the session's zone must be this one.
        env=clean_environment(
            HOME=str(folder), TZ="UTC", PYTHONPATH=":".join([str(CLIENTS.parent), *sys.path])
        ),
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    report = json.loads((answers / "report.json").read_text())
    for name, (kind, message) in report["failed"].items():
        print(f"not valid as written: {name}: {kind}: {message.splitlines()[0][:200]}")
    facts = {trace_id: Facts.of(truth.kept) for trace_id, truth in truth_of(bodies).items()}
    return Outcome(server, facts, report, answers, refused, checked)


def test_the_truth_is_that_of_the_manifest(real_data: Path) -> None:
    """What the other tests compare with: counts, errors and durations of what was sent. Of identical
    copies one is kept."""
    truth = truth_of(body for _, body in load_real(real_data))
    items = json.loads((real_data / "otlp_real" / "manifest.json").read_text())["items"]
    assert truth.keys() == {item["trace_id"] for item in items}
    copies = 0
    for item in items:
        sent = truth[item["trace_id"]]
        copies += len(sent.sent) - len(sent.kept)
        facts = Facts.of(sent.sent)
        assert facts.span_count == item["span_count"]
        assert facts.has_error == (item["error_span_count"] > 0)
        if not item["zero_start_spans"] and not item["zero_end_spans"]:
            assert sum(facts.nanoseconds) == item["sum_duration_ns"]
    assert copies == 15, "sent twice in the recorded data"


def test_blocks_run_and_print_what_they_print(outcome: Outcome) -> None:
    """Every block; archival is enabled, and its binding follows with the experiment."""
    printed = outcome.report["printed"].splitlines()
    expected = [
        f"Trace archival enabled: {NAMED}",
        f"Trace archival configured for experiment: {EXPERIMENT}",
    ]
    notice, *printed = printed
    assert notice.startswith("No experiment is chosen") and NAMED in notice
    assert printed[:2] == expected
    assert outcome.report["bound"] == NAMED
    named = set(table.rows(outcome.server.table_path(NAMED)))
    assert named == outcome.facts.keys(), "all that the experiment had came over"


SLIPS = {
    "EXISTS over UNNEST is no Spark SQL": (
        "unknown table function: UNNEST",
        ["verbatim.error_traces", "default.errors", "named.errors"],
    ),
    "EXPLODE(spans) AS spans names a column that is there": (
        "ambiguous attribute",
        ["verbatim.performance_df", "default.performance", "named.performance"],
    ),
    "EXISTS with a lambda is Spark SQL that Sail lacks over columns": (
        "No field named",
        ["default.errors.lambda", "named.errors.lambda"],
    ),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_what_is_not_valid_as_written(outcome: Outcome, slip: str) -> None:
    """It fails, for this reason. The nearest valid form runs in the tests below."""
    reason, names = SLIPS[slip]
    for name in names:
        assert reason in outcome.report["failed"][name][1]


def test_nothing_else_fails(outcome: Outcome) -> None:
    """Neither of the document's statements, nor of their nearest forms, nor of ours."""
    known = {name for _, names in SLIPS.values() for name in names}
    assert outcome.report["failed"].keys() == known


@pytest.mark.parametrize("name", ["verbatim.traces_df", "default.traces", "named.traces"])
def test_query_returns_every_trace(outcome: Outcome, name: str) -> None:
    """Whole rows, newest first, as written."""
    found = outcome.by_trace(name)
    assert found.keys() == outcome.facts.keys()
    assert {k: len(row["spans"]) for k, row in found.items()} == {
        k: facts.span_count for k, facts in outcome.facts.items()
    }
    assert outcome.columns(name)[:6] == CONTRACT
    times = [row["created_at"] for row in outcome.rows(name)]
    assert times == sorted(times, reverse=True)


@pytest.mark.parametrize(
    "name",
    ["default.errors.nearest", "named.errors.nearest", "ours.errors.here", "ours.errors.spark"],
)
def test_errors_are_those_of_the_truth(outcome: Outcome, name: str) -> None:
    """Traces with an error of their own or of a span; ours by the document's calls as they stand."""
    found = outcome.by_trace(name)
    assert found.keys() == {key for key, facts in outcome.facts.items() if facts.has_error}
    assert outcome.columns(name)[:4] == ["trace_id", "request_id", "timestamp", "status"]
    assert {row["status"] for row in found.values()} <= {"OK", "ERROR", "IN_PROGRESS"}


@pytest.mark.parametrize("name", ["default.performance.nearest", "named.performance.nearest"])
def test_durations_are_whole_seconds_in_the_document(outcome: Outcome, name: str) -> None:
    """Its sums by its own arithmetic, over the spans that were sent."""
    assert_performance(outcome, name, Facts.sums_in_seconds)


@pytest.mark.parametrize(
    "name",
    ["ours.performance.here", "ours.performance.spark", "ours.default.here", "ours.default.spark"],
)
def test_durations_are_milliseconds_in_ours(outcome: Outcome, name: str) -> None:
    """By the same calls: what the document means."""
    assert_performance(outcome, name, Facts.sums_in_milliseconds)


def assert_performance(outcome: Outcome, name: str, sums) -> None:
    found = outcome.by_trace(name)
    assert found.keys() == outcome.facts.keys()
    assert outcome.columns(name)[:5] == [
        "trace_id", "timestamp", "span_count", "total_duration_ms", "avg_span_duration_ms",
    ]  # fmt: skip
    wrong = []
    for trace_id, facts in outcome.facts.items():
        row = found[trace_id]
        expected = (facts.span_count, *sums(facts))
        said = (row["span_count"], row["total_duration_ms"], row["avg_span_duration_ms"])
        if not all(map(close, said, expected)):
            wrong.append(f"{trace_id}: {said}, expected {expected}")
    assert wrong == []
    times = [row["timestamp"] for row in outcome.rows(name) if row["timestamp"] is not None]
    assert times == sorted(times, reverse=True)


def close(said: float | None, expected: float | None) -> bool:
    if said is None or expected is None:
        return said is expected
    return math.isclose(said, expected, rel_tol=1e-9)


def test_ours_give_whole_traces(outcome: Outcome) -> None:
    """By the document's calls, in this process, on Spark, and as pandas."""
    spans = sum(facts.span_count for facts in outcome.facts.values())
    for name in ("ours.traces.here", "ours.traces.spark"):
        found = outcome.by_trace(name)
        assert {key: len(row["spans"]) for key, row in found.items()} == {
            key: facts.span_count for key, facts in outcome.facts.items()
        }
    assert outcome.report["pandas"] == [len(outcome.facts), spans, spans]


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ("as written", "found AUTO"),
        ("explicit clustering keys", "CLUSTER BY in CREATE TABLE"),
        ("no clustering keys", "please specify: ChangeDataFeed"),
    ],
)
def test_forms_of_the_ddl_that_sail_does_not_take(
    outcome: Outcome, form: str, reason: str
) -> None:
    """Each by name. What it takes is the statement without the clustering and the change data feed."""
    assert reason in outcome.refused[form]
    assert len(outcome.refused) == 3


def test_the_table_of_the_ddl_is_accepted_and_filled(outcome: Outcome) -> None:
    """Sail made it without what Sail lacks; tracelake adds that, its columns, and the traces."""
    made, accepted = outcome.checked["made"], outcome.checked["accepted"]
    for item in ("table in storage", "columns", "comments"):
        assert made[item] == "ok", item
    for item in ("added columns", "change data feed", "clustering", "catalog entry"):
        assert made[item] != "ok", item
    # Room on the disk is the machine's.
    assert {accepted[item] for item in accepted.keys() - {"disk space"}} == {"ok"}, accepted
    path = outcome.server.table_path(DEFAULT)
    history = DeltaTable(str(path)).history()
    assert "sail" in history[-1]["engineInfo"] and history[-1]["operation"] == "CREATE TABLE"
    columns = pa.schema(DeltaTable(str(path)).schema().to_arrow()).names
    assert columns[:6] == CONTRACT and len(columns) > 20
    rows = table.rows(path)
    assert {inverted(bytes.fromhex(key)).hex() for key in rows} == outcome.facts.keys()
