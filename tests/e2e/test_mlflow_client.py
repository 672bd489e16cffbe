"""An unchanged MLflow client logs traces; another reader finds them in the table."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from support import table
from support.otlp import ExportTraceServiceRequest
from support.proxy import RecordingProxy
from support.server import Server, clean_environment
from support.truth import records

CLIENTS = Path(__file__).parent / "clients"
FRESH_SECONDS = 5.0


def run_client(script: str, url: str, cwd: Path) -> str:
    """Runs a client script in a process of its own, as a user would."""
    done = subprocess.run(
        [sys.executable, str(CLIENTS / script), url],
        capture_output=True, text=True, timeout=180, cwd=cwd,
        env=clean_environment(MLFLOW_HTTP_REQUEST_MAX_RETRIES="2", HOME=str(cwd)),
    )  # fmt: skip
    assert done.returncode == 0, (
        f"{script} exited {done.returncode}\n{done.stdout}\n{done.stderr[-6000:]}"
    )
    return done.stdout


@pytest.fixture
def logged(make_server: Callable[..., Server], tmp_path: Path):
    """The service with its defaults, a recording proxy before it, and what the client said."""
    server = make_server(quick=False)
    server.start()
    proxy = RecordingProxy(server.url)
    try:
        said = json.loads(run_client("log_traces.py", proxy.url, tmp_path).splitlines()[-1])
        yield server, proxy, said
    finally:
        proxy.close()


def test_rows_are_readable_soon_after_the_clients_flush_and_nothing_is_sent_twice(logged) -> None:
    """One test, since a client's start takes seconds: freshness, single writing, content."""
    server, proxy, said = logged
    wanted = {trace_id.removeprefix("tr-") for trace_id in said["ok"] + said["failed"]}
    rows = wait_for_rows(server, wanted, said["flushed_at"] + FRESH_SECONDS)
    assert_nothing_twice(proxy, wanted)
    for trace_id in said["ok"]:
        assert_good_row(rows[trace_id.removeprefix("tr-")], said["experiment_id"])
    (failed,) = said["failed"]
    assert_failed_row(rows[failed.removeprefix("tr-")])

    server.flush()
    later = table.rows(server.table_path())
    assert later.keys() == wanted
    for trace_id, row in later.items():
        assert len(row["spans"]) == len(rows[trace_id]["spans"]), "spans came twice"


def wait_for_rows(server: Server, wanted: set[str], deadline: float) -> dict[str, dict]:
    """Polls the table by deltalake until the rows are there with all their spans."""
    found: dict[str, dict] = {}
    while True:
        if table.exists(server.table_path()):
            found = table.rows(server.table_path())
            if wanted <= {t for t, row in found.items() if row["span_count"] == 3}:
                print(
                    f"rows were readable {time.time() - (deadline - FRESH_SECONDS):.2f} s after the flush"
                )
                return found
        spans = {trace_id: row["span_count"] for trace_id, row in found.items()}
        assert time.time() < deadline, (
            f"not readable {FRESH_SECONDS} s after the flush: {spans} of {wanted}"
        )
        time.sleep(0.1)


def assert_nothing_twice(proxy: RecordingProxy, wanted: set[str]) -> None:
    """Each span by one OTLP request, each trace by one start_trace, no artifact, no failed call."""
    spans: Counter[tuple[str, str]] = Counter()
    starts: Counter[str] = Counter()
    for call in proxy.calls:
        assert call.method != "PUT", f"uploaded as an artifact as well: {call.path}"
        assert call.status < 400 or "get-by-name" in call.path, (
            f"{call.method} {call.path} -> {call.status}"
        )
        if call.path == "/v1/traces":
            for record in records(ExportTraceServiceRequest.FromString(call.body)):
                spans[record.span.trace_id.hex(), record.span.span_id.hex()] += 1
        if call.path == "/api/3.0/mlflow/traces":
            starts[
                json.loads(call.body)["trace"]["trace_info"]["trace_id"].removeprefix("tr-")
            ] += 1
    assert {trace_id for trace_id, _ in spans} == wanted == starts.keys()
    assert set(spans.values()) == {1} == set(starts.values()), (spans, starts)


def assert_good_row(row: dict, experiment_id: str) -> None:
    """Types, inputs, outputs, tokens and what the client set on the trace."""
    assert row["experiment_id"] == experiment_id
    assert row["trace_info"]["status"] == "OK"
    assert (row["trace_name"], row["session_id"], row["user_id"]) == (
        "agent",
        "session-1",
        "user-1",
    )
    assert dict(row["tags"])["team"] == "search"
    assert (row["input_tokens"], row["output_tokens"], row["total_tokens"]) == (11, 7, 18)
    spans = {span["name"]: span for span in row["spans"]}
    assert {name: span["span_type"] for name, span in spans.items()} == {
        "agent": "AGENT", "search": "RETRIEVER", "model": "CHAT_MODEL",
    }  # fmt: skip
    agent, model = spans["agent"], spans["model"]
    assert json.loads(agent["inputs"])["question"].startswith("question ")
    assert json.loads(agent["outputs"]) == "42"
    assert json.loads(model["inputs"])["messages"][0]["role"] == "user"
    assert json.loads(model["outputs"])["choices"][0]["message"]["content"] == "42 \U0001f4a1"
    assert (model["model"], model["input_tokens"], model["output_tokens"]) == ("gpt-test", 11, 7)
    assert agent["parent_span_id"] is None
    assert spans["search"]["parent_span_id"] == model["parent_span_id"] == agent["span_id"]


def assert_failed_row(row: dict) -> None:
    """The error is in the state, the statuses and the exception event."""
    assert row["trace_info"]["status"] == "ERROR"
    assert row["error_span_count"] == 2
    spans = {span["name"]: span for span in row["spans"]}
    assert spans["divide"]["status"] == spans["agent"]["status"] == "ERROR"
    assert spans["search"]["status"] == "OK"
    events = [event for event in spans["divide"]["events"] if event["name"] == "exception"]
    assert "ZeroDivisionError" in str(events)


def test_experiments_work_as_in_mlflow(server: Server, tmp_path: Path) -> None:
    """Create, get, search, pages, rename, tags, delete, restore, and the errors that clients rely on."""
    assert "all as MLflow does it" in run_client("use_experiments.py", server.url, tmp_path)


def test_experiments_survive_a_kill(server: Server) -> None:
    """What was answered is on disk."""
    base = f"{server.url}/api/2.0/mlflow/experiments"
    made = server.session.post(f"{base}/create", json={"name": "kept"}, timeout=10).json()[
        "experiment_id"
    ]
    server.kill()
    server.start()
    answer = server.session.get(
        f"{server.url}/api/2.0/mlflow/experiments/get", params={"experiment_id": made}, timeout=10
    )
    assert answer.json()["experiment"]["name"] == "kept"
