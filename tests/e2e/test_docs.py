"""Each example of the documentation runs as it is written, against the real binary.

A document is read from its top in a folder of its own, as a reader would in one terminal. Replaced are:
the ports, by free ones; `make build`, which made the binary under test; DuckDB's `INSTALL`, which
needs the network; and the Spark session, which is Sail's.
"""

from __future__ import annotations

import gzip
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.ipc as pa_ipc
import pyarrow.parquet as pa_parquet
import pytest

from support import generate, otlp, reference, spark, table
from support.documents import DocumentedServer, Example, Terminal, documents, examples
from support.otlp import ExportTraceServiceRequest
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
    "docs/scale-out.md": "tracelake serve --tables-dir share/tables\n",
}
# Drawings and pasted output; settings of the OpenTelemetry Collector, which test_scale_out.py reads.
NOT_RUN = ("", "text", "yaml")
SETTINGS = "toml"
# Documents whose pasted output is compared with what the example before it prints, but for numbers.
PICTURED = ("docs/quickstart.md", "docs/mapping.md")
# Documents in which an example asks the same twice, by a command and by SQL.
ASKED_TWICE = "docs/analyses.md"

# What an example must print: the document, words of the example, what its output shows.
SHOWS = [
    ("README.md", "/v1/traces", ["{"]),
    ("README.md", "--since 7d", ["POST /order", '"span_count"', "| traces | spans |"]),
    ("README.md", "tracelake show", ["POST /order", "1 span", ", 0 failed", "Journal"]),
    ("README.md", "tracelake import", ["already_imported"]),
    ("README.md", "set_uri", ["tr-5b8efff798038103d269b633813fc60c", "1 row"]),
    ("README.md", "QueryBuilder", ["tr-5b8efff798038103d269b633813fc60c"]),
    ("README.md", "scan_delta", ["POST /order"]),
    ("README.md", "delta_scan", ["('tr-5b8efff798038103d269b633813fc60c', 1)"]),
    ("README.md", "spark.sql", ["tr-5b8efff79803"]),
    ("docs/analyses.md", "`spark` is", ["chat|  11.0|", "agent|  20.0|"]),
    ("docs/quickstart.md", "setup", [AGENT_TABLE]),
    ("docs/quickstart.md", "tracelake flush", ["health_monitor", "2 rows", "1 row"]),
    ("docs/quickstart.md", "SHOW TABLES", ["TOOL", "AGENT", "agent_traces"]),
    ("docs/quickstart.md", "tracelake check", [AGENT_TABLE, ", 0 failed"]),
    ("docs/quickstart.md", "tracelake import", ["already_imported"]),
    ("docs/commands.md", "head -1", ['{"trace_id":"tr-']),
    ("docs/mlflow.md", "tracelake enable", [AGENT_TABLE, "Moved: 1 earlier traces"]),
    ("docs/mlflow.md", "get-by-name", ["tracelake.archive.enabledAt", AGENT_TABLE]),
    ("docs/mlflow.md", "delta_table_fullname", ["production.monitoring.support_traces"]),
    ("docs/mlflow.md", 'catalog="production"', ["bound to production.monitoring.support_traces"]),
    ("docs/mlflow.md", "link_traces_to_run", ["yes False 1"]),
    ("docs/mlflow.md", "linked_run_ids FROM", ["yes", '{"value":false}', "0123456789abcdef"]),
    ("docs/mlflow.md", "delete-traces", ['"traces_deleted":1']),
    ("docs/mlflow.md", "tracelake disable", ["was " + AGENT_TABLE]),
    ("docs/otlp.md", "hello", ["{"]),
    ("docs/unity-catalog.md", "tracelake setup", [AGENT_TABLE]),
    ("docs/unity-catalog.md", "curl -s", ['"catalogs":[', '"production.monitoring"', '"type_text"']),
    ("docs/unity-catalog.md", "TablesApi", ["file://", "4 spans array<struct<", "Trace spans"]),
    ("docs/unity-catalog.md", "DeltaTable", ["version 0 with "]),
    ("docs/table.md", "session_id", ["remember", "checkout", "mean_ms", "helpful"]),
    ("docs/table.md", "load_cdf", ["'_change_type': 'insert'", "'_change_type': 'update_postimage'"]),
    ("docs/scale-out.md", "tracelake status", [AGENT_TABLE, "share/tables"]),
    ("docs/scale-out.md", "--data-dir second --tables-dir", ["share/tables"]),
    ("docs/scale-out.md", "tracelake import", ["agent", '"span_count":2', '"revision":2']),
    ("docs/scale-out.md", "current_timestamp", ["agent", "3.0"]),
    ("docs/scale-out.md", "storage_location", ["share/tables/production/monitoring", "version 2"]),
    ("docs/python.md", "notebook-data", ["1 row", "2 rows", ", 0 failed"]),
    ("docs/python.md", "configure_trace", [f"Trace archival enabled: {AGENT_TABLE}"]),
    ("docs/python.md", "timedelta", ["1 ['trace_id'", "look up", "TOOL", "trace_id"]),
    ("docs/python.md", "import duckdb", ["span_count", "map<"]),
    ("docs/python.md", "as_mlflow", ["agent AGENT", "look up TOOL"]),
    ("docs/python.md", "`spark` is", ["SELECT", "look up", "AGENT"]),
    ("docs/python.md", "no.such.table", ["unknown table `no.such.table`"]),
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
    with spark.sail() as session:
        yield session


def test_every_example_is_known() -> None:
    """None of an unknown language, and the lists above are exact: neither stale nor incomplete."""
    every = [example for found in RUN.values() for example in found]
    known = ("sh", "python", "sql", SETTINGS, *NOT_RUN)
    assert [str(e) for e in every if e.language not in known] == []
    started = {(e.document, e.text) for e in every if e.starts_the_service}
    assert started == set(STARTS.items())
    makes = {e.text for e in every if e.language == "sh" and re.search(r"^make ", e.text, re.M)}
    assert makes == {*ELSEWHERE, *(text for text in STARTS.values() if text.startswith("make "))}
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


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as they are made on the usual sites."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", h.replace("`", "").lower()).replace(" ", "-") for h in headings}


def test_links_lead_somewhere() -> None:
    """Files, folders and headings that a document links to are there; no page is without a link."""
    linked = set()
    for document in documents():
        here = REPOSITORY / document
        text = re.sub(r"^```.*?^```$", "", here.read_text(), flags=re.M | re.S)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            if link.startswith(("http://", "https://")):
                continue
            path, _, anchor = link.partition("#")
            target = (here.parent / path).resolve() if path else here
            assert target.exists(), f"{document} links to {link}"
            assert not anchor or anchor in anchors(target), f"{document} links to {link}"
            if document == "README.md":
                linked.add(str(target.relative_to(REPOSITORY)))
    pages = {d for d in documents() if not d.startswith("docs/adr/")}
    assert pages - linked <= {"README.md"}, "pages that the README does not list"


def test_every_attribute_that_means_something_is_mapped() -> None:
    """docs/mapping.md names every attribute that the decoder knows, whole or behind its prefix."""
    source = (REPOSITORY / "crates/decode/src/conventions/keys.rs").read_text()
    known = re.findall(r'^    \w+ = "([^"]+)",$', source, re.M)
    assert len(known) > 50
    named = set(re.findall(r"`([^`\n]+)`", (REPOSITORY / "docs/mapping.md").read_text()))
    prefixes = [name for name in named if name.endswith(".")]

    def is_named(name: str) -> bool:
        behind = (name.removeprefix(prefix) for prefix in prefixes if name.startswith(prefix))
        return name in named or any(rest in named for rest in behind)

    assert [name for name in known if not is_named(name)] == []


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
    terminal = Terminal(folder, installed=not STARTS.get(document, "").startswith("make "))
    if about(document, "`spark` is your session"):
        terminal.spark = request.getfixturevalue("sail")
    if document not in STARTS:
        terminal.server = make_server(name="reader/tracelake-data", quick=False)
        terminal.server.start()
        BEFORE.get(document, lambda _: None)(terminal.server)
    printed = ""
    try:
        for example in RUN[document]:
            if example.language == "text" and document in PICTURED:
                look_at(example, printed)
            else:
                printed = run(terminal, example) or printed
        AFTERWARDS[document](terminal)
        terminal.server.stop()
    finally:
        if terminal.server is not None:
            terminal.server.close()


def run(terminal: Terminal, example: Example) -> str:
    """Runs one example, looks at what it printed, and gives that."""
    if example.language in (*NOT_RUN, SETTINGS) or example.text in ELSEWHERE:
        return ""
    if example.starts_the_service:
        terminal.server = DocumentedServer(terminal, example)
        terminal.server.start()
        return ""
    printed = terminal.run(example)
    for document, words, shown in SHOWS:
        if example in about(document, words):
            missing = [text for text in shown if text not in printed]
            assert missing == [], f"{example}printed\n{printed}"
    if example.document == ASKED_TWICE and example.language == "sh":
        lines = printed.splitlines()
        half = len(lines) // 2
        assert half > 1, f"{example}printed\n{printed}"
        assert lines[:half] == lines[half:], f"{example}the SQL gives other rows"
    return printed


# What differs from run to run: ids, times, sizes, and how wide a table is for them.
CHANGING = [
    (r"\[=? *[= ]*\]", "[bar]"),
    (r"\b[0-9a-f]{8}-[0-9a-f-]{27}\b|\b[0-9a-f]{16,32}\b", "#id"),
    (r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "#time"),
    (r"\d[\d.]* (?:ns|us|ms|s|min|h|B|KiB|MiB|GiB|TiB)\b", "#"),
    (r"\d[\d.]*", "#"),
    (r"\S*/tracelake-data", "#folder"),
    (r"[-=+]{4,}", "--"),
    (r" +", " "),
]


def shape(line: str) -> str:
    """A line without what changes."""
    for pattern, placeholder in CHANGING:
        line = re.sub(pattern, placeholder, line)
    return line.strip()


def look_at(picture: Example, printed: str) -> None:
    """Each line of a picture is among those that were printed, but for what changes."""
    known = {shape(line) for line in printed.splitlines()} | {"..."}
    odd = [line for line in picture.text.splitlines() if shape(line) not in known]
    assert odd == [], f"{picture}was not printed so, but:\n{printed}"


# --- what a document takes for granted ---


def one_order(server: Server) -> None:
    """The trace of the README, whose id the operator asks for."""
    (example,) = about("README.md", "/v1/traces")
    body = example.text.split("-d '", 1)[1].rsplit("'", 1)[0].encode()
    answer = otlp.post_bytes(server.url, body, "application/json")
    assert answer.status_code == 200, answer.text
    server.flush()


def one_session(server: Server) -> bytes:
    """A failed trace of the session that the queries ask for; its id."""
    make = generate.Maker(3)
    span = make.span(
        make.trace_id(), "remember",
        status=generate.status_error(), attributes={"session.id": "on-call-7"},
    )  # fmt: skip
    otlp.post(server.url, generate.request(span))
    server.flush()
    return span.trace_id


def one_assessment(server: Server) -> None:
    """The same, with feedback that came after the trace was archived."""
    trace = f"tr-{one_session(server).hex()}"
    feedback = {"assessment_name": "helpful", "feedback": {"value": True}}
    answer = server.session.post(
        f"{server.url}/api/3.0/mlflow/traces/{trace}/assessments", json={"assessment": feedback}
    )
    answer.raise_for_status()
    server.flush()


def some_failures(server: Server) -> None:
    """Traces of several hours, with models, tokens, exceptions, and spans without an end."""
    make = generate.Maker(5)
    for number in range(12):
        trace, start = make.trace_id(), number * 1_700_000 * generate.MS
        tokens = {"gen_ai.usage.input_tokens": 10 + number, "gen_ai.usage.output_tokens": 1}
        model = {"gen_ai.request.model": f"model-{number % 2}", "gen_ai.operation.name": "chat"}
        call = make.span(trace, "chat", start, number * generate.MS, attributes=tokens | model)
        tool = make.span(trace, "look up", start, 3 * generate.MS)
        if number % 3 == 0:
            tool.status.CopyFrom(generate.status_error(f"it broke in way {number % 2}"))
            kind = generate.attributes({"exception.type": "OSError"})
            tool.events.add(name="exception", attributes=kind)
        if number % 5 == 0:
            tool.end_time_unix_nano = 0
        call.parent_span_id = tool.parent_span_id = make.span_id()
        root = make.span(trace, "agent", start, 20 * generate.MS, span_id=call.parent_span_id)
        otlp.post(server.url, generate.request(root, call, tool))
    server.flush()


def some_files(server: Server) -> None:
    """A trace, and files of one, as the operator names them."""
    one_order(server)
    folder = server.data_dir.parent
    write_traces(folder / "traces.pb", 7)
    (folder / "more").mkdir()
    write_traces(folder / "more" / "traces.pb", 8)


def write_traces(path: Path, seed: int) -> ExportTraceServiceRequest:
    """A file with one trace."""
    make = generate.Maker(seed)
    request = generate.request(make.span(make.trace_id(), f"of {path.name}"))
    path.write_bytes(request.SerializeToString())
    return request


BEFORE: dict[str, Callable[[Server], object]] = {
    "docs/analyses.md": some_failures,
    "docs/commands.md": one_session,
    "docs/operations.md": some_files,
    "docs/table.md": one_assessment,
}


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
    assert names(terminal, AGENT_TABLE) == ["answer"], "moved"
    assert names(terminal, DEFAULT_TABLE) == [], "moved, and deleted"
    assert names(terminal, "production.monitoring.support_traces") == ["reply"]


def after_mapping(terminal: Terminal) -> None:
    assert names(terminal, DEFAULT_TABLE) == ["ask"]


def after_analyses(terminal: Terminal) -> None:
    assert len(names(terminal, DEFAULT_TABLE)) == 12


def after_commands(terminal: Terminal) -> None:
    read = pa_parquet.read_table(terminal.folder / "traces.parquet").to_pylist()
    with pa_ipc.open_stream((terminal.folder / "traces.arrow").read_bytes()) as stream:
        assert stream.read_all().to_pylist() == read
    assert [row["trace_name"] for row in read] == ["remember"]
    man = terminal.folder / ".local" / "share" / "man" / "man1"
    assert {page.name for page in man.iterdir()} >= {"tracelake.1", "tracelake-traces.1"}


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


def after_scale_out(terminal: Terminal) -> None:
    assert names(terminal, AGENT_TABLE) == ["agent"]
    shared = (terminal.folder / "share" / "tables").resolve()
    for data_dir in (terminal.data_dir, terminal.folder / "second"):
        assert (data_dir / "tables").resolve() == shared


def after_table(terminal: Terminal) -> None:
    assert names(terminal, DEFAULT_TABLE) == ["remember"]


def after_unity_catalog(terminal: Terminal) -> None:
    assert names(terminal, AGENT_TABLE) == []


def first_cells(document: str, section: str) -> list[str]:
    """What the first cells of the table of a section name, in order."""
    text = (REPOSITORY / document).read_text().split(f"\n## {section}\n")[1].split("\n## ")[0]
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    return [name.strip(" `") for row in rows for name in cells(row)[0].split(",")]


def after_operations(terminal: Terminal) -> None:
    cli = terminal.server.cli
    items = [line["item"] for line in cli.json("check", DEFAULT_TABLE, "--no-write")]
    assert first_cells("docs/operations.md", "Check") == items
    header = cli.ok("status", "--format", "csv").splitlines()[0].split(",")
    assert sorted(first_cells("docs/operations.md", "Status")) == sorted(header)
    assert names(terminal, DEFAULT_TABLE) == ["POST /order", "of traces.pb", "of traces.pb"]
    rows = table.rows(terminal.data_dir.joinpath("tables", *DEFAULT_TABLE.split(".")))
    (row,) = (row for row in rows.values() if row["trace_name"] == "POST /order")
    assert (row["span_count"], row["revision"]) == (1, 1), "sent back, it changes nothing"
    sent = otlp.ExportTraceServiceRequest.FromString((terminal.folder / "trace.pb").read_bytes())
    assert sent.resource_spans[0].scope_spans[0].spans[0].name == "POST /order"


def after_python(terminal: Terminal) -> None:
    assert names(terminal, AGENT_TABLE) == ["agent"]
    notebook = terminal.folder / "notebook-data"
    rows = table.rows(notebook.joinpath("tables", *AGENT_TABLE.split(".")))
    assert {row["trace_name"] for row in rows.values()} <= {"agent"}
    assert not (notebook / "server.json").exists()


AFTERWARDS: dict[str, Callable[[Terminal], None]] = {
    "README.md": after_readme,
    "docs/analyses.md": after_analyses,
    "docs/commands.md": after_commands,
    "docs/mapping.md": after_mapping,
    "docs/mlflow.md": after_mlflow,
    "docs/operations.md": after_operations,
    "docs/otlp.md": after_otlp,
    "docs/python.md": after_python,
    "docs/quickstart.md": after_quickstart,
    "docs/scale-out.md": after_scale_out,
    "docs/table.md": after_table,
    "docs/unity-catalog.md": after_unity_catalog,
}


# --- the table ---

TYPES = {
    "string": "STRING", "timestamp": "TIMESTAMP", "long": "BIGINT", "integer": "INT",
    "double": "DOUBLE", "boolean": "BOOLEAN", "binary": "BINARY",
}  # fmt: skip


def sql_type(kind: str | dict) -> str:
    """A type of the log as the document names it."""
    if isinstance(kind, str):
        return TYPES[kind]
    match kind["type"]:
        case "struct":
            return "STRUCT"
        case "array":
            return f"ARRAY<{sql_type(kind['elementType'])}>"
        case "map":
            return f"MAP<{sql_type(kind['keyType'])}, {sql_type(kind['valueType'])}>"
    raise AssertionError(kind)


def columns(fields: list[dict], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every column of a schema, nested ones too, as path and type."""
    for field in fields:
        kind, path = field["type"], prefix + field["name"]
        yield path, sql_type(kind) + ("" if field["nullable"] else " NOT NULL")
        if isinstance(kind, dict) and kind["type"] == "array":
            kind, path = kind["elementType"], path + "[]"
        if isinstance(kind, dict) and kind["type"] == "struct":
            yield from columns(kind["fields"], path + ".")


def cells(row: str) -> list[str]:
    """The cells of a row of a document's table."""
    return [cell.strip() for cell in row.strip().removeprefix("|").removesuffix("|").split("|")]


def test_every_column_of_the_table_is_described(make_server: Callable[..., Server]) -> None:
    """The same columns in the same order with the same types as in a table that was just made."""
    server = make_server()
    server.start()
    server.cli.ok("setup", AGENT_TABLE, "--experiment", "/a")
    actions = [action for _, action in table.log_actions(server.table_path(AGENT_TABLE))]
    (metadata,) = (action["metaData"] for action in actions if "metaData" in action)
    made = list(columns(json.loads(metadata["schemaString"])["fields"]))
    found = columns_of_document()
    # The fields of a span have tables of their own, behind those of a trace.
    in_spans = [column for column in made if column[0].startswith("spans[].")]
    described = [column for column in found if column[0].startswith("spans[].")]
    assert described == in_spans
    assert [c for c in found if c not in described] == [c for c in made if c not in in_spans]


def columns_of_document() -> list[tuple[str, str]]:
    """Path and type of each column in docs/table.md; each has a null rule, a meaning or a source."""
    found = []
    for part in re.split(r"\n\n", (REPOSITORY / "docs/table.md").read_text()):
        header, *rows = part.splitlines()
        if not header.startswith("| column | type |"):
            continue
        assert cells(header) == ["column", "type", "unit", "null", "meaning", "source"]
        for row in rows[1:]:
            path, kind, _, null, meaning, source = cells(row)
            assert null and (meaning or source), row
            found.append((path.strip("`"), kind))
    return found


# --- commands ---


def test_command_reference() -> None:
    """docs/commands.md says what the binary says."""
    written = reference.DOCUMENT.read_text()
    assert reference.with_reference(written) == written, (
        "docs/commands.md is not what the binary says\nhint: run make docs"
    )


# Places of the examples in `--help` that are not the reader's own.
MOVED = {
    "/var/log/otel/": "",
    "/etc/bash_completion.d/": "",
    "/usr/local/share/man/man1": "man1",
}
# Run by other tests: what does not end by itself.
NOT_HERE = ("serve",)
# What takes away what others need comes last.
LAST = ("disable",)


def test_examples_of_help_run(make_server: Callable[..., Server], tmp_path: Path) -> None:
    """Each example of each command's help, beside a service that has what they name."""
    folder = tmp_path / "reader"
    folder.mkdir()
    terminal = Terminal(folder, installed=True)
    terminal.server = make_server(name="reader/tracelake-data")
    terminal.server.start()
    prepare(terminal)
    known = reference.commands()
    for command in sorted(known, key=lambda known: known.name in LAST):
        if command.name in NOT_HERE:
            continue
        script = command.examples
        for place, here in MOVED.items():
            script = script.replace(place, here)
        terminal.shell(script, f"the examples of {command.name}\n{script}")
    assert (folder / "man1" / "tracelake.1").exists()
    terminal.server.stop()


TRACE = bytes.fromhex("0123456789abcdef0123456789abcdef")
AGENT_TRACE = bytes.fromhex("fedcba9876543210fedcba9876543210")


def prepare(terminal: Terminal) -> None:
    """Experiments, traces and files of the names that the examples use."""
    server, folder = terminal.server, terminal.folder
    (folder / ".zfunc").mkdir()
    for name in ("/Shared/agent", "/b", "/c"):
        server.session.post(
            f"{server.url}/api/2.0/mlflow/experiments/create", json={"name": name}
        ).raise_for_status()
    server.cli.ok("setup", AGENT_TABLE, "--experiment", "/Shared/agent")
    for trace, headers in ((TRACE, {}), (AGENT_TRACE, {"x-mlflow-experiment-id": "1"})):
        span = generate.Maker(1).span(trace, "agent", status=generate.status_error())
        otlp.post(server.url, generate.request(span), headers=headers)
    server.flush()
    request = write_traces(folder / "traces.pb", 7)
    (folder / "more").mkdir()
    write_traces(folder / "more" / "traces.pb", 8)
    text = otlp.to_json(request) + b"\n"
    (folder / "traces.jsonl").write_bytes(text)
    (folder / "old.jsonl.gz").write_bytes(gzip.compress(text))
    place = folder / "mlflow-archive" / "0" / "traces" / f"tr-{TRACE.hex()}" / "artifacts"
    place.mkdir(parents=True)
    write_traces(place / "traces.pb", 9)


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
