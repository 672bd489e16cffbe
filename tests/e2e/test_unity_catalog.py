"""The embedded Unity Catalog, from outside: its official client, plain requests, Sail.

The measure is the official API text (`tests/contract/unity-catalog.yaml`): every answer of the server
is validated against its schemas, every call of our own client against a mock server of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
import requests
import unitycatalog.client
from deltalake import DeltaTable
from unitycatalog.client import ApiClient, CatalogsApi, Configuration, SchemasApi, TablesApi

from support import generate, otlp, spark, table
from support.server import DEFAULT_TABLE, Cli, Server
from support.unity import API, Api, client_calls, free_port, process, specification

TABLE = "production.monitoring.agent_traces"
TABLE_COMMENT = "Archived MLflow traces for production monitoring"
# The contract's columns: name, type, nullable, comment. The struct of a span has more fields behind.
CONTRACT = [
    ("trace_id", "string", False, "MLflow trace ID"),
    ("experiment_id", "string", True, "MLflow experiment ID"),
    ("run_id", "string", True, "MLflow run ID"),
    (
        "trace_info",
        "struct<request_id:string,timestamp:timestamp,status:string>",
        True,
        "Trace metadata",
    ),
    (
        "spans",
        "array<struct<span_id:string,name:string,span_type:string,start_time:timestamp,"
        "end_time:timestamp,status:string,inputs:string,outputs:string,tags:map<string,string>,"
        "metadata:map<string,string>",
        True,
        "Trace spans",
    ),
    ("created_at", "timestamp", False, "Archive timestamp"),
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service whose table was set up before it started, with some traces in it."""
    server = Server(tmp_path_factory.mktemp("unity") / "data")
    server.cli.ok("setup", TABLE, "--experiment", "/Shared/agent")
    server.start()
    experiment = server.session.get(
        f"{server.url}/api/2.0/mlflow/experiments/get-by-name",
        params={"experiment_name": "/Shared/agent"},
        timeout=20,
    ).json()["experiment"]["experiment_id"]
    for body in generate.bulk(40, 7, 20, 6):
        otlp.post(server.url, body, headers={"x-mlflow-experiment-id": experiment})
    server.flush()
    yield server
    server.close()


@pytest.fixture
def api(served: Server) -> Api:
    """Validated calls to that service."""
    return Api(served)


def wait_for_table(api: Api, name: str) -> dict:
    """The entry of a table that the service makes at its start."""
    deadline = time.monotonic() + 20
    while True:
        answer = api("GET", f"/tables/{name}")
        if answer.status_code == 200:
            return answer.json()
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.05)


def test_official_client_finds_the_table(served: Server) -> None:
    """Catalog, schema and table, with columns, types, comments and location."""

    async def look():
        host = f"{served.url}{API}"
        async with ApiClient(Configuration(host=host)) as client:
            catalogs = await CatalogsApi(client).list_catalogs()
            schemas = await SchemasApi(client).list_schemas(catalog_name="production")
            tables = await TablesApi(client).list_tables("production", "monitoring")
            return catalogs, schemas, tables, await TablesApi(client).get_table(TABLE)

    catalogs, schemas, tables, found = asyncio.run(look())
    assert "production" in [catalog.name for catalog in catalogs.catalogs]
    assert [schema.full_name for schema in schemas.schemas] == ["production.monitoring"]
    assert [entry.name for entry in tables.tables] == ["agent_traces"]
    assert (found.table_type.value, found.data_source_format.value) == ("EXTERNAL", "DELTA")
    assert found.comment == TABLE_COMMENT
    assert found.storage_location == served.table_path(TABLE).as_uri()
    assert found.properties["delta.enableChangeDataFeed"] == "true"
    assert [column.position for column in found.columns] == list(range(len(found.columns)))
    for column, (name, type_text, nullable, comment) in zip(found.columns, CONTRACT, strict=False):
        assert (column.name, column.nullable, column.comment) == (name, nullable, comment)
        assert column.type_text.startswith(type_text)


def test_columns_are_those_of_the_delta_log(served: Server, api: Api) -> None:
    """Every column, in the JSON form that Spark reads, equals the table's own schema."""
    entry = api("GET", f"/tables/{TABLE}").json()
    log = json.loads(DeltaTable(entry["storage_location"]).schema().to_json())
    assert [json.loads(column["type_json"]) for column in entry["columns"]] == log["fields"]
    kinds = {column["name"]: column["type_name"] for column in entry["columns"]}
    assert kinds["spans"] == "ARRAY" and kinds["tags"] == "MAP" and kinds["trace_info"] == "STRUCT"
    assert kinds["total_cost"] == "DOUBLE" and kinds["total_tokens"] == "LONG"
    assert kinds["span_count"] == "INT" and kinds["created_at"] == "TIMESTAMP"


def test_answers_are_as_the_official_text_has_them(api: Api) -> None:
    """Good and bad calls of every kind that the text has."""
    column = {"name": "x", "type_name": "INT", "type_text": "int"}
    new = {
        "name": "t", "catalog_name": "walk", "schema_name": "s", "table_type": "EXTERNAL",
        "columns": [column], "storage_location": "s3://bucket/walk/t",
    }  # fmt: skip

    def expect(status: int, method: str, path: str, body: object = None) -> dict:
        answer = api(method, path, json=body) if body is not None else api(method, path)
        assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    expect(404, "GET", "/catalogs/walk")
    expect(404, "POST", "/schemas", {"name": "s", "catalog_name": "walk"})
    expect(404, "GET", "/schemas?catalog_name=walk")
    made = expect(200, "POST", "/catalogs", {"name": "walk", "comment": "on foot"})
    assert isinstance(made["created_at"], int)
    expect(409, "POST", "/catalogs", {"name": "walk"})
    expect(400, "POST", "/catalogs", {"comment": "no name"})
    expect(200, "PATCH", "/catalogs/walk", {"properties": {"pace": "slow"}})
    assert expect(200, "GET", "/catalogs/walk")["comment"] == "on foot"
    expect(404, "PATCH", "/catalogs/none", {"comment": "x"})
    expect(404, "POST", "/tables", new)
    expect(200, "POST", "/schemas", {"name": "s", "catalog_name": "walk"})
    expect(409, "POST", "/schemas", {"name": "s", "catalog_name": "walk"})
    expect(200, "PATCH", "/schemas/walk.s", {"comment": "sights"})
    expect(200, "GET", "/schemas/walk.s")
    expect(404, "GET", "/schemas/walk.none")
    expect(400, "GET", "/schemas/walk")
    table_id = expect(200, "POST", "/tables", new)["table_id"]
    expect(409, "POST", "/tables", new)
    for wrong in (
        {"table_type": "MANAGED"}, {"table_type": 2}, {"columns": None}, {"columns": [{"name": "x"}]},
        {"storage_location": "nowhere"}, {"data_source_format": "XML"}, {"properties": {"a": 1}},
    ):  # fmt: skip
        expect(400, "POST", "/tables", new | {"name": "other"} | wrong)
    expect(200, "GET", "/tables/walk.s.t")
    expect(404, "GET", "/tables/walk.s.none")
    expect(400, "GET", "/tables?catalog_name=walk")
    expect(404, "GET", "/tables?catalog_name=walk&schema_name=none")
    expect(501, "POST", "/temporary-table-credentials", {"table_id": table_id, "operation": "READ"})
    expect(400, "POST", "/temporary-table-credentials", {"table_id": table_id, "operation": "EAT"})
    expect(400, "POST", "/temporary-table-credentials", {"table_id": "1", "operation": "READ"})
    ours = expect(200, "GET", f"/tables/{TABLE}")
    ask = {"table_id": ours["table_id"], "operation": "READ_WRITE"}
    assert expect(200, "POST", "/temporary-table-credentials", ask) == {
        "url": ours["storage_location"]
    }
    ask = {"url": ours["storage_location"], "operation": "PATH_READ"}
    expect(200, "POST", "/temporary-path-credentials", ask)
    expect(400, "POST", "/temporary-path-credentials", {"url": "x", "operation": "PATH_READ"})
    expect(400, "DELETE", "/catalogs/walk")
    expect(400, "DELETE", "/schemas/walk.s?force=perhaps")
    expect(200, "DELETE", "/tables/walk.s.t")
    expect(404, "DELETE", "/tables/walk.s.t")
    expect(200, "DELETE", "/schemas/walk.s")
    expect(404, "DELETE", "/schemas/walk.s")
    expect(200, "DELETE", "/catalogs/walk")
    expect(404, "DELETE", "/catalogs/walk")
    expect(404, "GET", "/volumes?catalog_name=a&schema_name=b")
    expect(405, "PUT", "/catalogs/walk", {})
    operations = {
        (method, path)
        for path, found in specification()["paths"].items()
        for method in found
        if method != "parameters"
    }
    walked = {(method, path) for method, path, status in api.walked if status == 200}
    assert operations - walked == {("get", "/catalogs"), ("get", "/schemas"), ("get", "/tables")}


def test_lists_come_in_pages(api: Api) -> None:
    """All entries, each once, whatever the page's length; wrong lengths and tokens are refused."""
    api("POST", "/catalogs", json={"name": "paged"})
    api("POST", "/schemas", json={"name": "s", "catalog_name": "paged"})
    names = [f"t{number:02}" for number in range(7)]
    for name in names:
        answer = api(
            "POST",
            "/tables",
            json={
                "name": name, "catalog_name": "paged", "schema_name": "s", "columns": [],
                "table_type": "EXTERNAL", "storage_location": f"file:///nowhere/{name}",
            },
        )  # fmt: skip
        assert answer.status_code == 200, answer.text
    for member, query in (
        ("tables", "/tables?catalog_name=paged&schema_name=s"),
        ("schemas", "/schemas?catalog_name=paged"),
        ("catalogs", "/catalogs?"),
    ):
        whole = [entry["name"] for entry in api("GET", query).json()[member]]
        for length in (1, 2, 3, 50):
            found, token = [], ""
            while True:
                page = api("GET", f"{query}&max_results={length}&page_token={token}").json()
                assert len(page[member]) <= length
                found += [entry["name"] for entry in page[member]]
                if not (token := page.get("next_page_token", "")):
                    break
            assert found == whole, f"{member} by {length}"
        for wrong in ("max_results=-1", "max_results=many", "page_token=%00", "page_token=AAAA"):
            assert api("GET", f"{query}&{wrong}").status_code == 400
    found = api("GET", "/tables?catalog_name=paged&schema_name=s").json()["tables"]
    assert [entry["name"] for entry in found] == names
    assert api("DELETE", "/catalogs/paged?force=true").status_code == 200


HOSTILE = [
    "..", "%2e%2e", "..%2f..%2fetc%2fpasswd", "a%2fb", "a%5cb", "a%00b", "a%0ab", "%1b%5b31m",
    "a%20b", "a'%20or%20'1'='1", "%22%3bdrop%20table%20objects%3b--", "x" * 256, "%ff%fe",
    "p%E2%80%AEroduction", "a%E2%80%8Bb", "%25%32%65", "a.b.c.d", "a..b", ".", "%F0%9F%92%A9" * 256,
]  # fmt: skip
# Odd, but names: no character of them means anything to a path or to SQL.
HARMLESS = {"\ufffd\ufffd", "%2e"}


def test_names_become_no_paths_and_no_sql(served: Server, api: Api) -> None:
    """Raw and encoded, in paths, parameters and bodies: a client's error, and nothing is made."""
    before = files(served.data_dir)
    for name in HOSTILE:
        for path in (f"/catalogs/{name}", f"/schemas/{name}", f"/tables/{name}",
                     f"/schemas/production.{name}", f"/tables/production.monitoring.{name}",
                     f"/schemas?catalog_name={name}",
                     f"/tables?catalog_name=production&schema_name={name}"):  # fmt: skip
            url = f"{served.url}{API}{path}"
            request = requests.Request("GET", url).prepare()
            # As it stands: the library would resolve `..`, and encode what is not.
            request.url = url
            answer = requests.Session().send(request, timeout=20)
            assert 400 <= answer.status_code < 500, f"{path}: {answer.status_code} {answer.text}"
            assert answer.json()["error_code"] in ("NOT_FOUND", "INVALID_ARGUMENT", "ENDPOINT_NOT_FOUND"), answer.text
            assert str(served.data_dir) not in answer.text
        text = unquote(name, errors="replace")
        if text in HARMLESS:
            continue
        for body in ({"name": text}, {"name": "fine", "storage_root": text}):
            assert api("POST", "/catalogs", json=body).status_code == 400, body
        body = {"name": text, "catalog_name": "production"}
        assert api("POST", "/schemas", json=body).status_code == 400, body
    assert files(served.data_dir) == before
    assert served.cli.ok("sql", "select 1")
    names = [entry["name"] for entry in api("GET", "/catalogs").json()["catalogs"]]
    assert "fine" not in names and "production" in names


def files(folder: Path) -> set[str]:
    """What lies in a folder, but for what SQLite keeps beside its files."""
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {name for name in found if not name.endswith(("-wal", "-shm"))}


def test_locations_are_never_opened(api: Api, tmp_path: Path) -> None:
    """A client's locations are text: nothing is made, read or deleted there."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious.parquet").write_text("keep me")
    stamp = victim.stat().st_atime_ns
    location = victim.as_uri()
    api("POST", "/catalogs", json={"name": "rogue", "storage_root": (tmp_path / "made").as_uri()})
    api("POST", "/schemas", json={"name": "s", "catalog_name": "rogue"})
    new = {
        "name": "t", "catalog_name": "rogue", "schema_name": "s", "table_type": "EXTERNAL",
        "columns": [], "storage_location": location,
    }  # fmt: skip
    assert api("POST", "/tables", json=new).status_code == 200
    assert api("DELETE", "/catalogs/rogue?force=true").status_code == 200
    assert victim.stat().st_atime_ns == stamp
    assert files(tmp_path) == {"victim/precious.parquet"} and not (tmp_path / "made").exists()
    for wrong in ("file:///a/../../etc", "file:///a/%2e%2e/etc", "file://host/a", "http://127.0.0.1/"):
        assert api("POST", "/tables", json=new | {"storage_location": wrong}).status_code == 400


def test_a_body_without_end_is_refused(served: Server) -> None:
    """Longer than any table needs."""
    body = b'{"name": "' + b"x" * (5 << 20)
    answer = requests.post(f"{served.url}{API}/catalogs", data=body, timeout=20)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_ARGUMENT")


def test_entries_come_back_at_start(make_server: Callable[..., Server], tmp_path: Path) -> None:
    """The default table is entered; what the registry knows returns, also without the file."""
    server = make_server()
    Cli(server.data_dir).ok("setup", TABLE, "--experiment", "e")
    server.start()
    api = Api(server)
    entry = wait_for_table(api, DEFAULT_TABLE)
    assert entry["storage_location"] == server.table_path(DEFAULT_TABLE).as_uri()
    location = api("GET", f"/tables/{TABLE}").json()["storage_location"]
    assert api("DELETE", f"/tables/{TABLE}").status_code == 200
    assert DeltaTable(location).version() >= 0, "an entry's end is not the table's"
    server.restart()
    assert wait_for_table(api, TABLE)["storage_location"] == location
    server.stop()
    for path in server.data_dir.glob("catalog.db*"):
        path.unlink()
    server.start()
    assert wait_for_table(api, TABLE)["storage_location"] == location
    server.stop()


def test_setup_beside_a_running_service(server: Server) -> None:
    """Another process enters a table; the service shows it at once, and again changes nothing."""
    api = Api(server)
    entries = []
    for _ in range(2):
        server.cli.ok("setup", TABLE, "--experiment", "e")
        entries.append(api("GET", f"/tables/{TABLE}").json())
    assert entries[0] == entries[1]
    assert entries[0]["storage_location"] == server.table_path(TABLE).as_uri()


def test_setup_refuses_a_name_that_is_elsewhere(server: Server) -> None:
    """The entry of another place stays as it is, and the answer says what to do."""
    api = Api(server)
    api("POST", "/catalogs", json={"name": "production"})
    api("POST", "/schemas", json={"name": "monitoring", "catalog_name": "production"})
    new = {
        "name": "agent_traces", "catalog_name": "production", "schema_name": "monitoring",
        "table_type": "EXTERNAL", "columns": [], "storage_location": "s3://elsewhere/t",
    }  # fmt: skip
    assert api("POST", "/tables", json=new).status_code == 200
    done = server.cli.run("setup", TABLE, "--experiment", "e")
    assert done.returncode == 1 and "s3://elsewhere/t" in done.stderr, done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("hint: "), done.stderr
    assert api("GET", f"/tables/{TABLE}").json()["storage_location"] == "s3://elsewhere/t"


def test_sail_opens_the_table_by_its_name(served: Server) -> None:
    """Through the catalog, and counts what deltalake counts."""
    uri = f"{served.url}{API}"
    catalogs = f'[{{name="tracelake", type="unity", default_catalog="production", uri="{uri}"}}]'
    settings = {"SAIL_CATALOG__LIST": catalogs, "SAIL_CATALOG__DEFAULT_CATALOG": "tracelake"}
    with spark.sail(**settings) as session:
        (row,) = session.sql(
            "select count(*), sum(size(spans)), sum(case when trace_info.status = 'ERROR'"
            " or error_span_count > 0 then 1 else 0 end) from monitoring.agent_traces"
        ).collect()
        columns = [field.name for field in session.table("monitoring.agent_traces").schema]
    counted = tuple(int(value) for value in row)
    assert counted == table.counts_deltalake(served.table_path(TABLE))
    assert counted[0] > 0
    assert columns[:6] == [name for name, *_ in CONTRACT]


# --- our own client ---


def test_our_client_keeps_the_contract(tmp_path: Path) -> None:
    """Every call of it passes the mock server of the official text, which refuses wrong ones."""
    prism = os.environ.get("TRACELAKE_PRISM", "")
    assert os.access(prism, os.X_OK), f"no mock server at `{prism}`\nhint: make contract-tools"
    port = free_port()
    text = Path(__file__).resolve().parents[1] / "contract" / "unity-catalog.yaml"
    command = [prism, "mock", "-h", "127.0.0.1", "-p", str(port), str(text)]
    url = f"http://127.0.0.1:{port}"
    log = tmp_path / "prism.log"
    with process(command, port, log):
        wrong = requests.post(f"{url}/tables", json={"name": "t"}, timeout=20)
        assert wrong.status_code == 422, "the mock server lets wrong calls pass"
        code, calls = client_calls(url)
    assert set(calls.values()) == {"ok"} and code == 0, f"{calls}\n{log.read_text()}"
    assert len(calls) == 13


def test_our_client_and_our_server_agree(server: Server) -> None:
    """The same calls against the embedded catalog, which answers with what they made."""
    code, calls = client_calls(f"{server.url}{API}")
    assert set(calls.values()) == {"ok"} and code == 0, calls
    entry = Api(server)("GET", "/tables/calls.of.a_client").json()
    assert [column["type_text"] for column in entry["columns"]] == [
        "string",
        "array<struct<span_id:string,start_time:timestamp,tags:map<string,string>>>",
        "decimal(12,4)",
    ]


# --- the measure itself ---


def test_the_schemas_here_are_the_official_ones() -> None:
    """Those of `tests/contract` have the members of the official client's models, no more, no less."""
    schemas = specification()["components"]["schemas"]
    compared = 0
    for name, schema in schemas.items():
        model = getattr(unitycatalog.client, name, None)
        if name == "SecurablePropertiesMap":
            continue
        assert model is not None, f"{name} is unknown to the official client"
        if "enum" in schema:
            assert schema["enum"] == [member.value for member in model], name
            continue
        fields = {field.alias or key: field for key, field in model.model_fields.items()}
        assert list(schema["properties"]) == list(fields), name
        required = {key for key, field in fields.items() if field.is_required()}
        assert set(schema.get("required", [])) == required, name
        for key, field in fields.items():
            kind = schema["properties"][key].get("type")
            words = {"string": "str", "integer": "int", "boolean": "bool", "array": "List"}
            assert kind is None or words[kind].lower() in str(field.annotation).lower(), (name, key)
        compared += 1
    assert compared > 15
