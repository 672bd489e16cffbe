"""Each example of the documentation runs as it is written, against the real binary.

A document is read from its top in a folder of its own, as a reader would in one terminal. Replaced are:
the ports, by free ones; `make build`, which made the binary under test; DuckDB's `INSTALL`, which
needs the network; and the Spark session, which is Sail's.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from support import generate, otlp, table
from support.documents import DocumentedServer, Example, Terminal, documents, examples
from support.server import DEFAULT_TABLE, REPOSITORY, Server

AGENT_TABLE = "production.monitoring.agent_traces"

# Not run here, by exact text: what covers them.
ELSEWHERE = {
    "make demo   # builds, starts the service, logs traces with a real MLflow client, shows the tables\n"
    "make test   # all tests: Rust, house rules, end to end against the real binary\n": (
        "these are the make targets themselves; `make test` runs this file"
    ),
}
# Run in the background until the document's last example is done, by exact text.
STARTS = {
    "README.md": "make build\ntarget/debug/tracelake serve\n",
    "docs/quickstart.md": "make build\ntarget/debug/tracelake serve\n",
}
# Drawings and pasted output.
NOT_RUN = ("", "text")
SETTINGS = "toml"

# What an example must print: the document, words of the example, what its output shows.
SHOWS = [
    ("README.md", "/v1/traces", ["{"]),
    ("README.md", "--since 7d", ["POST /order", '"span_count"', "| traces | spans |"]),
    ("README.md", "QueryBuilder", ["tr-5b8efff798038103d269b633813fc60c"]),
    ("README.md", "scan_delta", ["POST /order"]),
    ("README.md", "delta_scan", ["('tr-5b8efff798038103d269b633813fc60c', 1)"]),
    ("README.md", "spark.sql", ["tr-5b8efff79803"]),
    ("docs/quickstart.md", "setup", [AGENT_TABLE]),
    ("docs/quickstart.md", "tracelake flush", ["health_monitor", "2 rows", "1 row"]),
    ("docs/quickstart.md", "SHOW TABLES", ["TOOL", "AGENT", "agent_traces"]),
    ("docs/mlflow.md", "setup", [AGENT_TABLE]),
    ("docs/otlp.md", "hello", ["{"]),
    ("docs/unity-catalog.md", "tracelake setup", [AGENT_TABLE]),
    ("docs/unity-catalog.md", "curl -s", ['"catalogs":[', '"production.monitoring"', '"type_text"']),
    ("docs/unity-catalog.md", "TablesApi", ["file://", "4 spans array<struct<", "Trace spans"]),
    ("docs/unity-catalog.md", "DeltaTable", ["version 0 with "]),
    ("docs/table.md", "session_id", ["remember", "checkout", "mean_ms"]),
    ("docs/operations.md", "/health", ["OK"]),
    ("docs/operations.md", "du -sb", ["tracelake-data/journal"]),
    ("docs/operations.md", "max(created_at)", ["1 row"]),
]  # fmt: skip

RUN = {name: found for name in documents() if (found := examples(name))}
RUNNABLE = [
    name for name, found in RUN.items() if any(e.language in ("sh", "python", "sql") for e in found)
]
TOML = [example for found in RUN.values() for example in found if example.language == SETTINGS]


@pytest.fixture(scope="module")
def sail():
    """One Spark Connect session for the module."""
    with table.sail_session() as session:
        yield session


def test_every_example_is_known() -> None:
    """None of an unknown language, and the lists above are exact: neither stale nor incomplete."""
    every = [example for found in RUN.values() for example in found]
    known = ("sh", "python", "sql", SETTINGS, *NOT_RUN)
    assert [str(e) for e in every if e.language not in known] == []
    started = {(e.document, e.text) for e in every if e.starts_the_service}
    assert started == set(STARTS.items())
    makes = {e.text for e in every if e.language == "sh" and re.search(r"^make ", e.text, re.M)}
    assert makes == {*ELSEWHERE, *STARTS.values()}
    assert set(RUNNABLE) == AFTERWARDS.keys(), "a document whose tables nobody looks at"
    for document, words, _ in SHOWS:
        assert len(about(document, words)) == 1, f"{words!r} is not in one example of {document}"


def test_make_targets_that_documents_name_exist() -> None:
    """In examples and in sentences."""
    targets = set(re.findall(r"^([a-z0-9-]+):", (REPOSITORY / "Makefile").read_text(), re.M))
    for document in documents():
        content = (REPOSITORY / document).read_text()
        named = set(re.findall(r"(?:^|`)(?:[A-Z_]+=\S+ )?make ([a-z][a-z0-9-]*)", content, re.M))
        assert named <= targets, f"{document} names make targets that are not there"


def about(document: str, words: str) -> list[Example]:
    """The examples of a document that contain these words."""
    return [e for e in RUN[document] if e.language not in NOT_RUN and words in e.text]


@pytest.mark.parametrize("document", RUNNABLE)
def test_examples_run_as_written(
    document: str,
    make_server: Callable[..., Server],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    """From top to bottom; then the tables hold what the examples sent."""
    folder = tmp_path / "reader"
    folder.mkdir()
    terminal = Terminal(folder, installed=document not in STARTS)
    if about(document, "`spark` is your session"):
        terminal.spark = request.getfixturevalue("sail")
    if document not in STARTS:
        terminal.server = make_server(name="reader/tracelake-data", quick=False)
        terminal.server.start()
        BEFORE.get(document, lambda _: None)(terminal.server)
    try:
        for example in RUN[document]:
            run(terminal, example)
        AFTERWARDS[document](terminal)
        terminal.server.stop()
    finally:
        if terminal.server is not None:
            terminal.server.close()


def run(terminal: Terminal, example: Example) -> None:
    """Runs one example and looks at what it printed."""
    if example.language in (*NOT_RUN, SETTINGS) or example.text in ELSEWHERE:
        return
    if example.starts_the_service:
        terminal.server = DocumentedServer(terminal, example)
        terminal.server.start()
        return
    printed = terminal.run(example)
    for document, words, shown in SHOWS:
        if example in about(document, words):
            missing = [text for text in shown if text not in printed]
            assert missing == [], f"{example}printed\n{printed}"


# --- what a document takes for granted ---


def one_order(server: Server) -> None:
    """The trace of the README, whose id the operator asks for."""
    (example,) = about("README.md", "/v1/traces")
    body = example.text.split("-d '", 1)[1].rsplit("'", 1)[0].encode()
    answer = otlp.post_bytes(server.url, body, "application/json")
    assert answer.status_code == 200, answer.text
    server.flush()


def one_session(server: Server) -> None:
    """A failed trace of the session that the queries ask for."""
    make = generate.Maker(3)
    span = make.span(
        make.trace_id(), "remember",
        status=generate.status_error(), attributes={"session.id": "on-call-7"},
    )  # fmt: skip
    otlp.post(server.url, generate.request(span))
    server.flush()


BEFORE = {"docs/operations.md": one_order, "docs/table.md": one_session}


# --- what is in the tables when a document has been read ---


def names(terminal: Terminal, name: str) -> list[str]:
    """The traces of a table by name, as a reader from outside sees them after a flush."""
    terminal.server.flush()
    rows = table.rows(terminal.data_dir.joinpath("tables", *name.split(".")))
    return sorted(row["trace_name"] for row in rows.values())


def after_readme(terminal: Terminal) -> None:
    assert names(terminal, DEFAULT_TABLE) == ["POST /order", "agent"]


def after_quickstart(terminal: Terminal) -> None:
    assert names(terminal, AGENT_TABLE) == ["health_monitor", "health_monitor"]
    rebuilt = (terminal.folder / "all.pb").read_bytes()
    assert rebuilt.count(b"restart") >= 2, "the OTLP of both traces"


def after_mlflow(terminal: Terminal) -> None:
    assert names(terminal, DEFAULT_TABLE) == ["answer"]


# What auto-instrumentation does with the variables of the example.
SDK = """
from opentelemetry import trace
from opentelemetry.sdk._configuration import _OTelSDKConfigurator
_OTelSDKConfigurator()._configure(auto_instrumentation_version="")
with trace.get_tracer("docs").start_as_current_span("by variables"):
    pass
trace.get_tracer_provider().shutdown()
"""


def after_otlp(terminal: Terminal) -> None:
    terminal.environment |= {
        "OTEL_TRACES_EXPORTER": "otlp", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none",
    }  # fmt: skip
    terminal.run(Example("docs/otlp.md", 0, "python", SDK))
    assert names(terminal, DEFAULT_TABLE) == ["by variables", "hello"]


def after_table(terminal: Terminal) -> None:
    assert names(terminal, DEFAULT_TABLE) == ["remember"]


def after_unity_catalog(terminal: Terminal) -> None:
    assert names(terminal, AGENT_TABLE) == []


def after_operations(terminal: Terminal) -> None:
    assert names(terminal, DEFAULT_TABLE) == ["POST /order"]
    (row,) = table.rows(terminal.data_dir.joinpath("tables", *DEFAULT_TABLE.split("."))).values()
    assert (row["span_count"], row["revision"]) == (1, 1), "sent back, it changes nothing"
    sent = otlp.ExportTraceServiceRequest.FromString((terminal.folder / "trace.pb").read_bytes())
    assert sent.resource_spans[0].scope_spans[0].spans[0].name == "POST /order"


AFTERWARDS: dict[str, Callable[[Terminal], None]] = {
    "README.md": after_readme,
    "docs/mlflow.md": after_mlflow,
    "docs/operations.md": after_operations,
    "docs/otlp.md": after_otlp,
    "docs/quickstart.md": after_quickstart,
    "docs/table.md": after_table,
    "docs/unity-catalog.md": after_unity_catalog,
}


# --- settings ---


@pytest.mark.parametrize("example", TOML, ids=lambda e: f"{e.document}:{e.line}")
def test_settings_files_are_accepted(
    example: Example, make_server: Callable[..., Server], tmp_path: Path
) -> None:
    """The service starts with the file, and obeys it."""
    settings = tomllib.loads(example.text)
    file = tmp_path / "settings.toml"
    file.write_text(example.text)
    server = make_server("--config", str(file), quick=False)
    server.start()
    one_session(server)
    default_table = settings.get("default_table", DEFAULT_TABLE)
    assert len(table.rows(server.table_path(default_table))) == 1
    server.stop()
