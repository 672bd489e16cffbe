"""One trace that is larger than a row, and spans that are larger than a span may be."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import requests

from support import generate, otlp, table
from support.server import Server

MIB = 1 << 20


def long_request(make: generate.Maker, trace_id: bytes, numbers: range) -> otlp.ExportTraceServiceRequest:
    """Spans of one MiB each below a root, whose id is 1; the root has a word to find it by."""
    text = make.text(1000) * 1049
    spans = [
        make.span(
            trace_id, f"step {number}", start=number * generate.MS,
            span_id=number.to_bytes(8, "big"),
            parent_span_id=(1).to_bytes(8, "big") if number > 1 else b"",
            attributes={"mlflow.spanInputs": json.dumps("the question" if number == 1 else text[:MIB])},
        )
        for number in numbers
    ]  # fmt: skip
    return generate.request(*spans)


def test_a_span_past_the_bound_is_refused_by_name(make_server: Callable[..., Server]) -> None:
    """One span of 33 MiB among others: it is named in the partial success, the others are kept."""
    server = make_server()
    server.start()
    make = generate.Maker(31)
    trace_id = make.trace_id()
    huge = make.span(trace_id, "huge", attributes={"text": "x" * (33 * MIB)})
    answer = otlp.post(server.url, generate.request(make.span(trace_id, "root"), huge))
    assert answer.partial_success.rejected_spans == 1
    assert huge.span_id.hex() in answer.partial_success.error_message
    # The same record is read again after a kill, with the same outcome.
    server.kill()
    server.start()
    server.flush()
    assert [span["name"] for span in table.rows(server.table_path())[trace_id.hex()]["spans"]] == ["root"]


def test_a_trace_larger_than_a_row_is_one_trace_for_everybody(make_server: Callable[..., Server]) -> None:
    """72 MiB in pieces, with a retry, a kill and a tag: rows are bounded, each span is there once, the row of
    the trace counts all, and whoever asks for the trace gets one."""
    server = make_server("--amend-every", "1h")
    server.start()
    make = generate.Maker(32)
    trace_id = make.trace_id()
    name = f"tr-{trace_id.hex()}"
    for first in range(1, 72, 24):
        request = long_request(make, trace_id, range(first, first + 24))
        otlp.post(server.url, request)
        server.flush()
    otlp.post(server.url, request)
    beside = make.span(make.trace_id(), "beside")
    otlp.post(server.url, generate.request(beside))
    server.kill()
    server.start()
    server.flush()
    calls = f"{server.url}/api/3.0/mlflow/traces"
    tag = requests.patch(f"{calls}/{name}/tags", json={"key": "team", "value": "blue"}, timeout=60)
    assert tag.status_code == 200, tag.text
    server.flush()

    sizes = table.query(server.table_path(), "select part, spans_bytes, span_count from t where part is not null or spans_bytes is not null")
    assert all(row["spans_bytes"] <= 64 * MIB for row in sizes)
    assert [row["span_count"] for row in sizes if row["part"] is None] == [72]
    row = table.rows(server.table_path())[trace_id.hex()]
    assert sorted(int(span["span_id"], 16) for span in row["spans"]) == list(range(1, 73))
    assert dict(row["tags"])["team"] == "blue"
    assert row["request_preview"] == '"the question"'

    listed = {line["trace_id"]: line["span_count"] for line in server.cli.json("traces", "--format", "json")}
    assert listed == {name: 72, f"tr-{beside.trace_id.hex()}": 1}
    performance = server.cli.json("performance", "--format", "json")
    assert {line["trace_id"]: line["span_count"] for line in performance}[name] == 72
    names = server.cli.json("performance", "--by", "span-name", "--format", "json")
    assert sum(line["span_count"] for line in names) == 73
    shown = server.cli.ok("show", name)
    assert " of 72" in shown
    assert "step 1 " in shown
    (got,) = server.cli.json("show", name, "--format", "json")
    assert 20 <= len(got["spans"]) < got["span_count"] == 72
    answer = requests.get(f"{calls}/get", params={"trace_id": name}, timeout=60)
    assert answer.status_code == 200, answer.text[:300]
    trace = answer.json()["trace"]
    left_out = int(trace["trace_info"]["trace_metadata"]["tracelake.spansLeftOut"])
    assert len(trace["spans"]) + left_out == 72
    verified = server.cli.run("verify", "tracelake.default.traces")
    assert verified.returncode == 0, verified.stdout

    deleted = requests.post(
        f"{server.url}/api/2.0/mlflow/traces/delete-traces",
        json={"experiment_id": "0", "request_ids": [name]}, timeout=60,
    )  # fmt: skip
    assert deleted.status_code == 200, deleted.text
    server.flush()
    assert list(table.rows(server.table_path())) == [beside.trace_id.hex()]


def test_a_large_trace_moves_with_the_row_that_says_whose_it_is(make_server: Callable[..., Server]) -> None:
    """Its parts name the experiment that it had when they were written. The service dies at each version of the
    move: the trace is never in none of both tables, and in the end in one, with each span once."""
    server = make_server()
    server.start()
    first, second = (
        requests.post(f"{server.url}/api/2.0/mlflow/experiments/create", json={"name": name}, timeout=60)
        for name in ("/first", "/second")
    )
    headers = {"x-mlflow-experiment-id": first.json()["experiment_id"]}
    make = generate.Maker(33)
    trace_id, numbers = make.trace_id(), range(1, 14)
    stays = make.span(make.trace_id(), "stays")
    otlp.post(server.url, long_request(make, trace_id, range(1, 12)), headers=headers)
    otlp.post(server.url, generate.request(stays), headers=headers)
    server.flush()
    otlp.post(server.url, long_request(make, trace_id, range(12, 14)), headers=headers)
    server.flush()
    location = {
        "type": "MLFLOW_EXPERIMENT",
        "mlflow_experiment": {"experiment_id": second.json()["experiment_id"]},
    }
    info = {
        "trace_id": f"tr-{trace_id.hex()}", "trace_location": location, "state": "OK",
        "request_time": "2026-06-01T00:00:00Z", "tags": {"team": "blue"},
    }  # fmt: skip
    started = requests.post(
        f"{server.url}/api/3.0/mlflow/traces", json={"trace": {"trace_info": info}}, timeout=60
    )
    assert started.status_code == 200, started.text
    server.flush()
    source, target = server.table_path(), server.table_path("own.team.second")
    parts = "select experiment_id from t where part is not null"
    assert {row["experiment_id"] for row in table.query(source, parts)} == set(headers.values())
    server.stop()
    server.cli.ok("enable", "own.team.second", "--experiment", "/second", "--no-wait")

    def spans(path: Path) -> list[int]:
        row = table.rows(path).get(trace_id.hex()) if table.exists(path) else None
        return sorted(int(span["span_id"], 16) for span in row["spans"]) if row else []

    for deaths in range(10):
        assert list(numbers) in (spans(source), spans(target))
        server.env = {"TRACELAKE_FAILPOINT": "log.put.after"}
        process = server.spawn()
        until = time.monotonic() + 60
        while process.poll() is None and not (server.read_server_file(process.pid) and moved(server)):
            assert time.monotonic() < until, server.log_tail()
            time.sleep(0.05)
        if process.poll() is None:
            # After a part, the row of the trace, the deletion, and perhaps the table's first version.
            assert 3 <= deaths
            break
    server.kill()
    server.env = {}
    server.start()
    server.cli.ok("enable", "own.team.second", "--experiment", "/second")
    assert (spans(source), spans(target)) == ([], list(numbers))
    row = table.rows(target)[trace_id.hex()]
    assert (row["span_count"], dict(row["tags"])["team"]) == (13, "blue")
    assert row["experiment_id"] == second.json()["experiment_id"]
    assert list(table.rows(source)) == [stays.trace_id.hex()]
    assert server.cli.run("verify", "own.team.second").returncode == 0


def moved(server: Server) -> bool:
    """Whether no move is under way."""
    return not json.loads(server.cli.ok("status", "--format", "json"))["moves"]
