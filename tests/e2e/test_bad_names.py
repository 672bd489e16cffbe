"""Names made to harm, in every place that takes a name; and text made to harm, in every output.

A name is accepted and kept exactly as it is, or refused in words that are safe to show. It never
becomes a path, SQL or a control code.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import grpc
import pytest

from support import generate, otlp, table
from support.server import DEFAULT_TABLE, Cli, Server, binary, clean_environment

# What a terminal or an editor acts on instead of showing it, besides control codes.
UNSEEN = re.compile(
    "[\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)

# One part of a name.
NAMES: dict[str, str] = {
    "empty": "",
    "space": " ",
    "spaces": "   ",
    "leading space": " a",
    "trailing space": "a ",
    "dot": ".",
    "dots": "..",
    "slash": "a/b",
    "backslash": "a\\b",
    "traversal": "../../etc/passwd",
    "traversal back": "..\\..\\windows\\win.ini",
    "traversal encoded": "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "traversal encoded twice": "%252e%252e%252fetc%252fpasswd",
    "traversal overlong": "..%c0%af..%c0%afetc",
    "traversal full-width": "\uff0e\uff0e\uff0fetc\uff0fpasswd",
    "absolute": "/etc/passwd",
    "drive": "C:\\Windows",
    "share": "\\\\host\\share",
    "file url": "file:///etc/passwd",
    "http url": "http://127.0.0.1:9/x",
    "s3 url": "s3://bucket/key",
    "percent": "100%",
    "percent zero": "a%00b",
    "quote": "a'b",
    "double quote": 'a"b',
    "backtick": "a`b",
    "semicolon": "a;b",
    "comment": "a--b",
    "comment block": "a/*b*/",
    "sql": "a; DROP TABLE traces; --",
    "sql quoted": "x' OR '1'='1",
    "sql closing": "a`; DROP TABLE t; `",
    "select": "select",
    "table": "table",
    "con": "con",
    "nul": "nul",
    "aux.txt": "aux.txt",
    "log folder": "_delta_log",
    "format": "%s%n%x{0}{}",
    "shell": "$(touch pwned)`touch pwned`|touch pwned&",
    "template": "${jndi:ldap://127.0.0.1/a}{{7*7}}<%= 7*7 %>",
    "option": "--help",
    "html": "<script>alert(1)</script>",
    "zero": "a\0b",
    "newline": "a\nb",
    "carriage return": "a\r\nSet-Cookie: x=1",
    "tab": "a\tb",
    "bell": "a\x07b",
    "delete": "a\x7fb",
    "escape colour": "a\x1b[31mb",
    "escape title": "a\x1b]0;owned\x07b",
    "c1": "a\x9b31mb",
    "bidi": "a\u202egpj.exe",
    "isolate": "a\u2066b\u2069",
    "zero width": "a\u200bb",
    "joiner": "a\u200db",
    "line separator": "a\u2028b",
    "byte order mark": "\ufeffa",
    "tags": "a\U000e0041",
    "full-width": "\uff41\uff42",
    "cyrillic": "\u0430bc",
    "composed": "caf\u00e9",
    "decomposed": "cafe\u0301",
    "emoji": "\U0001f468\u200d\U0001f469",
    "private": "\ue000",
    "not a character": "\uffff",
    "longest": "x" * 255,
    "too long": "x" * 256,
    "far too long": "x" * 1000,
    "long in bytes": "\u4e2d" * 255,
}
PLAIN = re.compile(r"[A-Za-z0-9]{2,20}")
TABLES = [name for name, text in NAMES.items() if "\0" not in text]
# For surfaces where each name costs a process.
NASTY = [
    "empty", "dots", "traversal", "traversal encoded", "backslash", "file url", "backtick", "sql",
    "shell", "newline", "escape title", "c1", "bidi", "too long", "format", "option", "zero width",
]  # fmt: skip


def has_controls(text: str) -> bool:
    return any(unicodedata.category(character) == "Cc" for character in text)


def tables_take(part: str) -> bool:
    """Whether a part of a table's name is allowed: Unity Catalog's rules, and nothing unseen."""
    return (
        0 < len(part) <= 255
        and not re.search(r"[./\\ ]", part)
        and not has_controls(part)
        and not UNSEEN.search(part)
        and not re.search("[\u200b-\u200f]", part)
    )


# --- what is seen from outside ---


def safe_to_show(text: str) -> bool:
    """Line ends apart, nothing in it that a terminal acts on."""
    return not has_controls(text.replace("\n", "")) and not UNSEEN.search(text)


def tree(root: Path) -> set[str]:
    """Every file and folder below `root`, relative to it."""
    return {str(path.relative_to(root)) for path in root.rglob("*")}


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with another one around it, so that a name that climbs is caught."""
    folder = tmp_path_factory.mktemp("outer") / "middle" / "sandbox"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def shared(sandbox: Path) -> Iterator[Server]:
    """One service for all names."""
    server = Server(sandbox / "data")
    server.log_path = sandbox / "service.log"
    server.start()
    yield server
    server.flush()
    server.stop()
    server.close()


@pytest.fixture(autouse=True)
def contained(request: pytest.FixtureRequest, sandbox: Path) -> Iterator[None]:
    """After every test: the service lives, and files are only where they belong."""
    outer = sandbox.parent.parent
    before = {path for path in tree(outer) if not path.startswith("middle/sandbox/data")}
    temporary = set(os.listdir(tempfile.gettempdir()))
    yield
    if "shared" in request.fixturenames:
        server: Server = request.getfixturevalue("shared")
        server.assert_alive()
        assert "panicked" not in server.log_path.read_text(errors="replace")
    after = {path for path in tree(outer) if not path.startswith("middle/sandbox/data")}
    assert after - before <= {"middle/sandbox/service.log"}, after - before
    appeared = set(os.listdir(tempfile.gettempdir())) - temporary
    assert not {name for name in appeared if "pwned" in name or "passwd" in name}
    for path in (sandbox / "data").rglob("*"):
        for part in path.relative_to(sandbox / "data").parts:
            assert re.fullmatch(r"[A-Za-z0-9._%=-]{1,2800}", part), f"{part!r} of {path}"
    tables = sandbox / "data" / "tables"
    for depth in ("*", "*/*", "*/*/*"):
        for path in tables.glob(depth):
            assert re.fullmatch(r"(?:[A-Za-z0-9_-]|=[0-9A-F]{2})+", path.name), path


def check_process(done: subprocess.CompletedProcess, name: str, shown: str) -> list[str]:
    """What is wrong with the answer of a command that was given `name`."""
    faults = []
    if done.returncode not in (0, 1, 2):
        faults.append(f"{shown}: exit code {done.returncode}")
    for stream in (done.stdout, done.stderr):
        if not safe_to_show(stream):
            faults.append(f"{shown}: unsafe to show: {stream[:300]!r}")
        if "panicked" in stream:
            faults.append(f"{shown}: {stream[:300]!r}")
    if done.returncode != 0:
        if not re.search(r"(?m)^error: ", done.stderr):
            faults.append(f"{shown}: not an error in words: {done.stderr[:200]!r}")
        subject = PLAIN.search(name)
        if subject and subject.group()[:5] not in done.stderr and "'name'" not in done.stderr:
            faults.append(f"{shown}: does not name its subject: {done.stderr[:200]!r}")
    return faults


# --- the command line ---

# How to give each command a table. A command that takes one and is not here fails the test.
WITH_TABLE: dict[str, Callable[[str], list[str]]] = {
    "setup": lambda name: ["setup", "--experiment", "e", "--", name],
    "traces": lambda name: ["traces", "--", name],
    "errors": lambda name: ["errors", "--", name],
    "performance": lambda name: ["performance", "--", name],
    "sql": lambda name: ["sql", f"--table={name}", "select 1"],
    "rebuild": lambda name: ["rebuild", "--output", "data/out.pb", "--", name],
    "check": lambda name: ["check", "--", name],
    "enable": lambda name: ["enable", "--experiment", "e", "--", name],
    "disable": lambda name: ["disable", "--experiment", "e", "--", name],
    "show": lambda name: ["show", "--", "tr-" + "0" * 31 + "1", name],
    "status": lambda name: ["status", "--", name],
    "verify": lambda name: ["verify", "--", name],
    "maintain": lambda name: ["maintain", "--once", "--", name],
}


def help_of(*command: str) -> str:
    done = subprocess.run(
        [str(binary()), *command, "--help"],
        capture_output=True,
        text=True,
        timeout=30,
        env=clean_environment(),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def commands() -> list[str]:
    """Every command that `--help` lists."""
    listed = help_of().partition("Commands:")[2].partition("Options:")[0]
    return re.findall(r"^  (\S+)", listed, re.MULTILINE)


def test_every_command_that_takes_a_table_is_tested() -> None:
    """So that a command that comes later is not forgotten here."""
    asked = set(commands()) - {"serve", "help"}
    taking = {name for name in asked if "CATALOG.SCHEMA.TABLE" in help_of(name)}
    assert taking <= set(WITH_TABLE), "teach WITH_TABLE how to call it"
    assert {"setup", "traces", "sql", "rebuild"} <= taking


def run_all(server_cli: Cli, calls: list[tuple[str, list[str], dict[str, str]]]) -> list[str]:
    """Runs commands side by side; gives all that is wrong."""

    def one(call: tuple[str, list[str], dict[str, str]]) -> list[str]:
        name, arguments, environment = call
        full = [str(binary()), "--data-dir", str(server_cli.data_dir), *arguments]
        done = subprocess.run(
            full, capture_output=True, timeout=60, stdin=subprocess.DEVNULL,
            env=clean_environment(**environment), cwd=server_cli.data_dir.parent,
        )  # fmt: skip
        text = subprocess.CompletedProcess(
            full, done.returncode, done.stdout.decode(), done.stderr.decode()
        )
        return check_process(text, name, f"{arguments} {environment}")

    with ThreadPoolExecutor(4) as pool:
        return [fault for faults in pool.map(one, calls) for fault in faults]


@pytest.mark.parametrize("command", sorted(WITH_TABLE))
def test_table_of_a_command(shared: Server, command: str) -> None:
    """As catalog, as table, and alone; every name with the cheapest command, the worst with each."""
    assert command in commands()
    # So that it is the table that is wrong, and not the experiment.
    shared.cli.ok("setup", DEFAULT_TABLE, "--experiment", "e")
    names = TABLES if command == "traces" else NASTY
    forms = ("c.s.{}", "{}.s.t", "{}") if command == "traces" else ("c.s.{}",)
    calls = [
        (NAMES[name], WITH_TABLE[command](form.replace("{}", NAMES[name])), {})
        for name in names
        for form in forms
    ]
    assert run_all(shared.cli, calls) == []


def setup(cli: Cli, table_name: str) -> subprocess.CompletedProcess:
    """`setup` with a table whose name may look like an option."""
    return subprocess.run(
        [str(binary()), "--data-dir", str(cli.data_dir), "setup", "--experiment", "e", "--", table_name],
        capture_output=True, text=True, timeout=60, env=clean_environment(),
        cwd=cli.data_dir.parent,
    )  # fmt: skip


def test_table_names_are_taken_as_unity_catalog_takes_them(tmp_path: Path) -> None:
    """What is allowed makes a table of exactly that name, what is not makes nothing."""
    cli = Cli(tmp_path / "data")
    wanted = [name for name in NAMES.values() if "\0" not in name and tables_take(name)]
    long = [name for name in wanted if 255 < len(quote(name, safe=""))]
    chosen = [name for name in wanted if name not in long]
    for name in chosen:
        done = setup(cli, f"c.s.{name}")
        assert done.returncode == 0, f"{name!r}: {done.stderr}"
        assert f"Table: c.s.{name}\n" in done.stdout
    listed = {row["table_name"] for row in cli.sql("show tables") if row["table_schema"] == "s"}
    assert listed == set(chosen)
    for name in chosen:
        quoted = name.replace("`", "``")
        assert cli.scalar(f"select count(*) from c.s.`{quoted}`") == 0, name
    for name in long:
        done = setup(cli, f"c.s.{name}")
        assert done.returncode in (0, 1) and safe_to_show(done.stderr), done.stderr


def test_default_table_of_environment_flag_and_file(shared: Server, tmp_path: Path) -> None:
    """The three ways to set it."""
    calls = []
    for name in NASTY:
        text = NAMES[name]
        full = f"c.s.{text}"
        calls.append((text, ["traces"], {"TRACELAKE_DEFAULT_TABLE": full}))
        settings = tmp_path / f"{NASTY.index(name)}.toml"
        settings.write_text(f"default_table = {json.dumps(full)}\n")
        # A good name gets further: to the folder, which the service beside has.
        subject = "" if tables_take(text) else text
        serve = ["serve", "--listen=127.0.0.1:0", "--otlp-grpc=127.0.0.1:0"]
        calls.append((subject, [*serve, "--config", str(settings)], {}))
        calls.append((subject, [*serve, f"--default-table={full}"], {}))
    assert run_all(shared.cli, calls) == []


OTHERS = ["sql quoted", "html", "emoji", "decomposed", "composed", "full-width", "private", "tags"]


@pytest.mark.parametrize("name", [*NASTY, *OTHERS, "far too long", "leading space", "spaces"])
def test_experiment_of_setup_is_kept_exactly(shared: Server, name: str) -> None:
    """MLflow takes nearly any name; what is taken here is found by MLflow's call under that name."""
    text = NAMES[name]
    done = shared.cli.run("setup", "c.s.experiments", f"--experiment={text}")
    assert check_process(done, text, name) == []
    found = get(shared, "/api/2.0/mlflow/experiments/get-by-name", experiment_name=text)
    if done.returncode == 0:
        assert found[0] == 200 and json.loads(found[1])["experiment"]["name"] == text
    else:
        assert has_controls(text) or not text.strip() or 500 < len(text), done.stderr
        assert found[0] in (400, 404)


# How to give a command the experiment that it is about.
WITH_EXPERIMENT: dict[str, Callable[[str], list[str]]] = {
    "enable": lambda name: ["enable", DEFAULT_TABLE, f"--experiment={name}"],
    "disable": lambda name: ["disable", f"--experiment={name}"],
    "import": lambda name: ["import", "data", f"--experiment={name}"],
}


@pytest.mark.parametrize("command", sorted(WITH_EXPERIMENT))
def test_experiment_of_a_command(shared: Server, command: str) -> None:
    assert command in commands()
    calls = [("", WITH_EXPERIMENT[command](NAMES[name]), {}) for name in NASTY[:8]]
    assert run_all(shared.cli, calls) == []


@pytest.mark.parametrize("command", ["rebuild", "show"])
def test_trace_id_of_a_command(shared: Server, command: str) -> None:
    assert command in commands()
    shared.cli.ok("setup", DEFAULT_TABLE, "--experiment", "e")
    calls = []
    for name in NASTY:
        text = NAMES[name]
        arguments = ["rebuild", f"--trace-id={text}", "--output", "data/out.pb"]
        if command == "show":
            arguments = ["show", "--", text]
        calls.append((text, arguments, {}))
    assert run_all(shared.cli, calls) == []


def test_identifiers_of_sql(shared: Server) -> None:
    """As a table, a column, an alias and a function, quoted as SQL wants it; in every format."""
    calls = []
    for name in NASTY:
        text = NAMES[name]
        quoted = "`" + text.replace("`", "``") + "`"
        literal = "'" + text.replace("'", "''") + "'"
        for sql in (
            f"select * from {quoted}",
            f"select {quoted} from (values (1)) v(a)",
            f"select {quoted}(1)",
            f"select * from {literal}",
            f"select 1 from {text}",
        ):
            calls.append(("", ["sql", "--", sql], {}))
        for output in ("table", "csv", "json", "jsonl"):
            calls.append(("", ["sql", f"--format={output}", f"select 1 as {quoted}"], {}))
    faults = run_all(shared.cli, calls)
    # JSON and CSV are read by programs: there only control codes must not stand raw.
    faults = [fault for fault in faults if not ("unsafe" in fault and UNSEEN.search(eval_tail(fault)))]
    assert faults == []


def eval_tail(fault: str) -> str:
    """The text that a fault shows with `repr`."""
    return fault.encode().decode("unicode_escape", errors="replace")


# --- HTTP ---


def raw(
    server: Server, method: str, target: bytes, headers: dict[str, bytes] | None = None, body: bytes = b""
) -> tuple[int, bytes]:
    """One request byte for byte as given, which no client library would send."""
    host, port = server.http.rsplit(":", 1)
    lines = [method.encode() + b" " + target + b" HTTP/1.1", b"host: x", b"connection: close"]
    lines += [name.encode() + b": " + value for name, value in (headers or {}).items()]
    lines += [b"content-length: %d" % len(body), b"", body]
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(b"\r\n".join(lines))
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    head, _, content = answer.partition(b"\r\n\r\n")
    if re.search(rb"(?im)^transfer-encoding: *chunked", head):
        content = b"".join(re.findall(rb"[0-9a-f]+\r\n(.*?)\r\n", content, re.DOTALL))
    return int(head.split(b" ", 2)[1]), content


def get(server: Server, path: str, **query: str) -> tuple[int, bytes]:
    parameters = "&".join(f"{key}={quote(value, safe='')}" for key, value in query.items())
    return raw(server, "GET", f"{path}?{parameters}".encode())


def post(server: Server, path: str, document: object, method: str = "POST") -> tuple[int, bytes]:
    body = json.dumps(document).encode()
    return raw(server, method, path.encode(), {"content-type": b"application/json"}, body)


def check_answer(status: int, content: bytes, name: str, shown: str) -> list[str]:
    """What is wrong with an answer to a request that holds `name`."""
    faults = []
    if not (200 <= status < 300 or 400 <= status < 431):
        faults.append(f"{shown}: {status} {content[:200]!r}")
    if content.startswith(b"{") or content.startswith(b"["):
        text = content.decode()
        # JSON lets DEL and the codes above it stand raw, and an answer gives back what was sent.
        if re.search(r"[\x00-\x09\x0b-\x1f]", text):
            faults.append(f"{shown}: raw control codes in {content[:200]!r}")
        document = json.loads(text)
        message = document.get("message") if isinstance(document, dict) else None
        if 400 <= status and has_controls(str(message).replace("\n", "")):
            faults.append(f"{shown}: control codes in the message {message[:200]!r}")
        if 400 <= status and not message:
            faults.append(f"{shown}: a refusal without a word: {content[:200]!r}")
    return faults


def targets(prefix: str, text: str, suffix: str = "") -> list[bytes]:
    """A name in a path: encoded as it must be, and as it stands where that is a request at all."""
    encoded = (prefix + quote(text, safe="") + suffix).encode()
    bare = prefix.encode() + text.encode() + suffix.encode()
    if re.search(rb"[\x00-\x20\x7f]", bare):
        return [encoded]
    return [encoded, bare]


PATHS = {
    "uncommitted": ("GET", "/api/v1/uncommitted/", "", b""),
    "uncommitted table": ("GET", "/api/v1/uncommitted/c.s.", "", b""),
    "own calls": ("GET", "/api/v1/", "", b""),
    "own calls, post": ("POST", "/api/v1/", "", b"{}"),
    "artifacts, experiment": ("PUT", "/api/2.0/mlflow-artifacts/artifacts/", "/traces/tr-" + "a" * 32 + "/artifacts/traces.json", b'{"spans": []}'),
    "artifacts, trace": ("PUT", "/api/2.0/mlflow-artifacts/artifacts/0/traces/", "/artifacts/traces.json", b'{"spans": []}'),
    "artifacts, file": ("PUT", "/api/2.0/mlflow-artifacts/artifacts/0/traces/tr-" + "a" * 32 + "/artifacts/", "", b"{}"),
    "artifacts, read": ("GET", "/api/2.0/mlflow-artifacts/artifacts/", "", b""),
    "trace": ("GET", "/api/3.0/mlflow/traces/", "", b""),
    "trace info": ("GET", "/api/2.0/mlflow/traces/", "/info", b""),
    "trace tag": ("PATCH", "/api/2.0/mlflow/traces/", "/tags", b'{"key": "k", "value": "v"}'),
    "trace tag 3": ("PATCH", "/api/3.0/mlflow/traces/", "/tags", b'{"key": "k", "value": "v"}'),
    "trace tag deleted": ("DELETE", "/api/2.0/mlflow/traces/", "/tags?key=k", b""),
    "assessments": ("POST", "/api/3.0/mlflow/traces/", "/assessments", b'{"assessment": {"assessment_name": "a", "feedback": {"value": 1}}}'),
    "assessment": ("DELETE", "/api/3.0/mlflow/traces/tr-" + "a" * 32 + "/assessments/", "", b""),
    "below the root": ("GET", "/", "", b""),
    "uc catalog": ("GET", "/api/2.1/unity-catalog/catalogs/", "", b""),
    "uc catalog deleted": ("DELETE", "/api/2.1/unity-catalog/catalogs/", "?force=true", b""),
    "uc schema": ("GET", "/api/2.1/unity-catalog/schemas/", "", b""),
    "uc schema of": ("GET", "/api/2.1/unity-catalog/schemas/tracelake.", "", b""),
    "uc table": ("GET", "/api/2.1/unity-catalog/tables/", "", b""),
    "uc table of": ("GET", "/api/2.1/unity-catalog/tables/tracelake.default.", "", b""),
    "uc table deleted": ("DELETE", "/api/2.1/unity-catalog/tables/tracelake.default.x", "", b""),
    "uc schemas of": ("GET", "/api/2.1/unity-catalog/schemas?catalog_name=", "", b""),
    "uc tables of": ("GET", "/api/2.1/unity-catalog/tables?catalog_name=tracelake&schema_name=", "", b""),
    "uc page": ("GET", "/api/2.1/unity-catalog/catalogs?page_token=", "", b""),
}  # fmt: skip


@pytest.mark.parametrize("surface", sorted(PATHS))
def test_name_in_a_path(shared: Server, surface: str) -> None:
    method, prefix, suffix, body = PATHS[surface]
    faults = []
    for name, text in NAMES.items():
        for target in targets(prefix, text, suffix):
            headers = {"content-type": b"application/json"} if body else {}
            status, content = raw(shared, method, target, headers, body)
            faults += check_answer(status, content, text, f"{name} {target[:120]!r}")
            if b"root:" in content:
                faults.append(f"{name}: a file of the system came back")
    assert faults == []


@pytest.mark.parametrize("header", ["x-mlflow-experiment-id", "x-mlflow-run-id", "content-encoding", "content-type"])
def test_name_in_a_header_of_otlp(shared: Server, header: str) -> None:
    """Refused or taken; where it is taken the run is kept exactly."""
    faults = []
    make = generate.Maker(41)
    for name, text in NAMES.items():
        trace = make.trace_id()
        body = generate.request(make.span(trace, "named")).SerializeToString()
        headers = {"content-type": otlp.PROTOBUF.encode(), header: text.encode()}
        status, content = raw(shared, "POST", b"/v1/traces", headers, body)
        if not (status == 200 or 400 <= status < 431):
            faults.append(f"{name}: {status} {content[:200]!r}")
        # A line end in a header ends it: what follows is another header.
        if header == "x-mlflow-run-id" and status == 200 and text.strip() and "\n" not in text:
            shared.flush()
            row = table.rows(shared.table_path())[trace.hex()]
            if row["run_id"] != text.strip():
                faults.append(f"{name}: kept as {row['run_id']!r}")
    assert faults == []


@pytest.mark.parametrize("key", ["x-mlflow-experiment-id", "x-mlflow-run-id"])
def test_name_in_metadata_of_grpc(shared: Server, key: str) -> None:
    """What gRPC lets through is ASCII."""
    make = generate.Maker(42)
    with otlp.GrpcClient(shared.grpc) as client:
        for name, text in NAMES.items():
            if not re.fullmatch(r"[\x20-\x7e]*", text):
                continue
            body = generate.request(make.span(make.trace_id(), "named"))
            try:
                client.export(body, metadata={key: text})
            except grpc.RpcError as refused:
                assert refused.code() in (
                    grpc.StatusCode.INVALID_ARGUMENT,
                    grpc.StatusCode.NOT_FOUND,
                ), f"{name}: {refused}"
                assert safe_to_show(refused.details()), name


def test_name_in_resource_attributes(shared: Server) -> None:
    """Spans are kept whatever their resource is called, and its attributes to the letter."""
    make = generate.Maker(43)
    sent = {}
    for text in NAMES.values():
        trace = make.trace_id()
        resource = {"mlflow.experimentId": text, "service.namespace": text, text or "k": text}
        otlp.post(shared.url, generate.request(make.span(trace, text), service=text, **resource))
        sent[trace.hex()] = text
    shared.flush()
    rows = table.rows(shared.table_path())
    for trace, text in sent.items():
        row = rows[trace]
        assert row["experiment_id"] == "0", text
        (span,) = row["spans"]
        assert span["name"] == text
        tags = dict(span["tags"])
        assert tags["service.namespace"] == text and tags["service.name"] == text, tags


# --- MLflow's calls ---

EXPERIMENTS = "/api/2.0/mlflow/experiments"


@pytest.mark.parametrize("name", list(NAMES))
def test_experiment_of_mlflow_is_kept_exactly(shared: Server, name: str) -> None:
    """Created, found by name and by filter, tagged, renamed: the same letters each time."""
    text = NAMES[name] and f"mlflow {NAMES[name]}"
    status, content = post(shared, f"{EXPERIMENTS}/create", {"name": text})
    assert check_answer(status, content, text, name) == []
    if status != 200:
        assert not text.strip() or has_controls(text) or 500 < len(text), content
        return
    identifier = json.loads(content)["experiment_id"]
    status, content = get(shared, f"{EXPERIMENTS}/get-by-name", experiment_name=text)
    experiment = json.loads(content)["experiment"]
    assert (status, experiment["name"], experiment["experiment_id"]) == (200, text, identifier)
    quoted = text.replace("'", "''")
    status, content = post(shared, f"{EXPERIMENTS}/search", {"max_results": 5, "filter": f"name = '{quoted}'"})
    assert check_answer(status, content, text, name) == []
    assert [e["name"] for e in json.loads(content).get("experiments", [])] == [text]
    tag = {"experiment_id": identifier, "key": "note", "value": text}
    assert post(shared, f"{EXPERIMENTS}/set-experiment-tag", tag)[0] == 200
    tag = {"experiment_id": identifier, "key": text, "value": "v"}
    status, content = post(shared, f"{EXPERIMENTS}/set-experiment-tag", tag)
    assert check_answer(status, content, text, name) == []
    status, content = get(shared, f"{EXPERIMENTS}/get", experiment_id=identifier)
    tags = {t["key"]: t["value"] for t in json.loads(content)["experiment"]["tags"]}
    assert tags["note"] == text


def test_other_names_of_mlflow(shared: Server) -> None:
    """Ids, tags, pages, filters, orders, locations, and the body of start_trace."""
    faults = []
    for name, text in NAMES.items():
        info = {"trace_id": text, "trace_location": {"mlflow_experiment": {"experiment_id": text}}}
        good = {
            "trace_id": "tr-" + f"{abs(hash(name)):032x}"[-32:],
            "tags": {text: text},
            "trace_metadata": {"mlflow.trace.session": text, "mlflow.sourceRun": text},
            "client_request_id": text,
            "request_preview": text,
            "state": text,
        }
        calls = [
            get(shared, f"{EXPERIMENTS}/get", experiment_id=text),
            get(shared, f"{EXPERIMENTS}/get-by-name", experiment_name=text),
            post(shared, f"{EXPERIMENTS}/delete", {"experiment_id": text}),
            post(shared, f"{EXPERIMENTS}/update", {"experiment_id": "0", "new_name": "\x00" + text}),
            post(shared, f"{EXPERIMENTS}/create", {"name": f"at {name}", "artifact_location": text}),
            post(shared, f"{EXPERIMENTS}/create", {"name": f"tagged {name}", "tags": [{"key": text, "value": text}]}),
            post(shared, f"{EXPERIMENTS}/search", {"max_results": 1, "filter": text}),
            post(shared, f"{EXPERIMENTS}/search", {"max_results": 1, "filter": f"tags.`{text}` = '{text}'"}),
            post(shared, f"{EXPERIMENTS}/search", {"max_results": 1, "order_by": [text]}),
            post(shared, f"{EXPERIMENTS}/search", {"max_results": 1, "page_token": text}),
            post(shared, f"{EXPERIMENTS}/search", {"max_results": 1, "view_type": text}),
            post(shared, f"{EXPERIMENTS}/delete-experiment-tag", {"experiment_id": "0", "key": text}),
            post(shared, "/api/3.0/mlflow/traces", {"trace": {"trace_info": info}}),
            post(shared, "/api/3.0/mlflow/traces", {"trace": {"trace_info": good}}),
            post(shared, "/api/2.0/mlflow/traces/link-prompts", {"trace_id": text, "prompt_versions": [{"name": text, "version": "1"}]}),
            post(shared, "/api/2.0/mlflow/traces/delete-traces", {"experiment_id": text, "request_ids": [text]}),
            post(shared, "/api/3.0/mlflow/traces/search", {"locations": [{"mlflow_experiment": {"experiment_id": text}}], "filter": text}),
            post(shared, "/api/2.0/mlflow/traces/link-to-run", {"trace_ids": [text], "run_id": text}),
        ]  # fmt: skip
        for number, (status, content) in enumerate(calls):
            faults += check_answer(status, content, text, f"{name}, call {number}")
    assert faults == []


UC = "/api/2.1/unity-catalog"


def test_names_of_unity_catalog(shared: Server) -> None:
    """Catalogs, schemas and tables of any name are refused or kept exactly; no folder appears."""
    if get(shared, f"{UC}/catalogs")[0] != 200:
        pytest.skip("the binary serves no Unity Catalog")
    faults = []
    for name, text in NAMES.items():
        status, content = post(shared, f"{UC}/catalogs", {"name": text, "comment": text})
        faults += check_answer(status, content, text, f"catalog {name}")
        if 200 <= status < 300:
            status, content = raw(shared, "GET", f"{UC}/catalogs/{quote(text, safe='')}".encode())
            if status != 200 or json.loads(content)["name"] != text:
                faults.append(f"catalog {name}: {status} {content[:200]!r}")
            raw(shared, "DELETE", f"{UC}/catalogs/{quote(text, safe='')}?force=true".encode())
        schema = {"name": text, "catalog_name": "tracelake", "comment": text}
        faults += check_answer(*post(shared, f"{UC}/schemas", schema), text, f"schema {name}")
        made = {
            "name": text, "catalog_name": "tracelake", "schema_name": "default", "table_type": "EXTERNAL",
            "data_source_format": "DELTA", "columns": [], "storage_location": f"file:///{text}",
        }  # fmt: skip
        faults += check_answer(*post(shared, f"{UC}/tables", made), text, f"table {name}")
    assert faults == []


# --- what strangers wrote, shown ---

HOSTILE = {
    "title": "\x1b]0;owned\x07",
    "colour": "\x1b[31;5mred\x1b[0m",
    "clear": "\x1b[2J\x1b[H",
    "c1": "\x9b2J\x9d0;x\x9c",
    "answer back": "\x1b[c\x05",
    "bidi": "abc\u202egpj.exe\u2066",
    "backspaces": "safe\b\b\b\bevil",
    "formula": "=cmd|' /C calc'!A0",
    "plus": "+1",
    "minus": "-1+1",
    "at": "@SUM(1)",
    "tab formula": "\t=1+1",
    "return formula": "\r=1+1",
    "full-width formula": "\uff1d1+1",
    "quote formula": '"=1+1',
    "line formula": "a\n=1+1",
    "separator": "a;=1+1,=2",
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service with one failed trace for each text, which stands wherever text can stand."""
    server = Server(tmp_path_factory.mktemp("content") / "data")
    server.start()
    make = generate.Maker(44)
    for text in HOSTILE.values():
        body = generate.request(
            make.span(
                make.trace_id(), text, status=generate.status_error(text), trace_state=text,
                attributes={
                    "mlflow.spanInputs": text, "mlflow.spanOutputs": json.dumps(text), text: text,
                    "gen_ai.request.model": text, "session.id": text, "mlflow.spanType": text,
                    "gen_ai.provider.name": text,
                },
            ),
            service=text, **{text: text},
        )  # fmt: skip
        event = body.resource_spans[0].scope_spans[0].spans[0].events.add(name="exception")
        event.attributes.extend(generate.attributes({"exception.type": text, "exception.message": text}))
        otlp.post(server.url, body)
    server.flush()
    yield server
    server.close()


def analyses(server: Server) -> list[list[str]]:
    """Every command that shows what is in traces, in every form that this binary has."""
    found = [["traces"], ["errors"], ["performance"], ["sql", "select * from traces"]]
    found.append(["sql", "select s['name'], s['inputs'], s['status_message'], trace_state from (select unnest(spans) s, 1 as trace_state from traces)"])
    if "--group" in help_of("errors"):
        found.append(["errors", "--group"])
    if "--by" in help_of("performance"):
        found += [["performance", "--by", by] for by in ("span-name", "span-type", "model", "experiment")]
    if "show" in commands():
        ids = [row["trace_id"] for row in server.cli.sql("select trace_id from traces")]
        found += [["show", trace] for trace in ids]
        found += [["show", "--full", trace] for trace in ids] if "--full" in help_of("show") else []
    return found


def test_text_of_strangers_on_a_terminal(hostile: Server) -> None:
    """No control code but line ends, nothing unseen: as a table, and as a tree."""
    for arguments in analyses(hostile):
        done = hostile.cli.run(*arguments)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        for stream in (done.stdout, done.stderr):
            # The whole text of a trace keeps its tabs, which move the cursor and nothing else.
            seen = stream.replace("\t", "") if arguments[0] == "show" else stream
            bad = [line for line in seen.splitlines() if not safe_to_show(line)]
            assert not bad and safe_to_show(seen), f"{arguments}: {bad[:3]!r}"
        assert "owned" in done.stdout or arguments[0] in ("performance", "show"), arguments


def test_text_of_strangers_in_csv(hostile: Server) -> None:
    """No cell that a spreadsheet would run, no control code but those of a text of several lines."""
    import csv
    import io

    for arguments in analyses(hostile):
        if arguments[0] == "show" and "--format" not in help_of("show"):
            continue
        done = hostile.cli.run(*arguments, "--format", "csv")
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        for row in csv.reader(io.StringIO(done.stdout, newline="")):
            for cell in row:
                number = re.fullmatch(r"-?[0-9.]+(e[+-]?[0-9]+)?", cell)
                assert number or not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d")), f"{arguments}: {cell!r}"
                assert not has_controls(re.sub(r"[\t\r\n]", "", cell)), f"{arguments}: {cell!r}"


def test_text_of_strangers_in_json_is_exact(hostile: Server) -> None:
    """Programs get the text as it was sent, and no control code stands raw in what they read."""
    for output in ("json", "jsonl"):
        sql = "select s['name'] n, s['status_message'] m, s['inputs'] i from (select unnest(spans) s from traces)"
        text = hostile.cli.ok("sql", sql, "--format", output)
        assert not has_controls(text.replace("\n", ""))
        rows = json.loads(text) if output == "json" else [json.loads(line) for line in text.splitlines()]
        assert {row["n"] for row in rows} == {row["m"] for row in rows} == set(HOSTILE.values())
        assert {json.loads(row["i"]) for row in rows} == set(HOSTILE.values())


def test_log_of_the_service_has_no_control_codes(shared: Server) -> None:
    """What was refused above is in the log, safe to show."""
    deadline = time.monotonic() + 5
    while not shared.log_path.read_text(errors="replace") and time.monotonic() < deadline:
        time.sleep(0.05)
    for line in shared.log_path.read_text().splitlines():
        assert safe_to_show(line), repr(line)
