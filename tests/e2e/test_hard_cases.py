"""Cases in which a naive archive loses, doubles or bends something, or stops for good."""

from __future__ import annotations

import shutil
from collections.abc import Callable

from support import generate, otlp, table
from support.server import Server

NEVER = ("--settle-after", "1h", "--idle-after", "1h", "--commit-every", "1h")


def one_span(make: generate.Maker, **options) -> tuple:
    """A fresh trace of one root span, and the request that sends it."""
    span = make.span(make.trace_id(), "root", **options)
    return span, generate.request(span)


def test_a_resource_repeated_over_many_spans_does_not_fill_the_memory(
    make_server: Callable[..., Server],
) -> None:
    """1 MB of resource on 2,200 spans would be 2.2 GB of rows: refused past the limit, by number."""
    server = make_server("--max-expanded", "100MiB")
    server.start()
    make = generate.Maker(11)
    trace_id = make.trace_id()
    request = generate.request(*(make.span(trace_id, f"s{n}") for n in range(2_200)))
    resource = request.resource_spans[0].resource
    resource.attributes.extend(generate.attributes({"big": "x" * 1_000_000}))
    answer = otlp.post(server.url, request)
    rejected = answer.partial_success.rejected_spans
    assert 2_000 < rejected < 2_200
    assert "too large" in answer.partial_success.error_message
    server.flush()
    server.assert_alive()
    rows = table.rows(server.table_path())
    assert len(rows[trace_id.hex()]["spans"]) == 2_200 - rejected


def test_a_lost_journal_folder_costs_nothing_that_comes_after_it(
    make_server: Callable[..., Server],
) -> None:
    """Epochs begin anew with a journal; what is acknowledged then is kept through a kill."""
    server = make_server()
    server.start()
    make = generate.Maker(12)
    for _ in range(3):
        otlp.post(server.url, one_span(make)[1])
        server.flush()
    server.stop()
    shutil.rmtree(server.data_dir / "journal")
    server.start()
    span, request = one_span(make)
    otlp.post(server.url, request)
    server.kill()
    server.start()
    server.flush()
    rows = table.rows(server.table_path())
    assert span.trace_id.hex() in rows
    assert len(rows) == 4


def test_a_replay_accepts_what_was_accepted_whatever_limits_say_now(
    make_server: Callable[..., Server],
) -> None:
    """A span of many attributes is acknowledged; the service comes back with lower limits."""
    server = make_server("--max-attributes", "20000", *NEVER, quick=False)
    server.start()
    make = generate.Maker(13)
    span, request = one_span(make, attributes={f"k{n}": n for n in range(15_000)})
    otlp.post(server.url, request)
    server.kill()
    server.flags = [flag for flag in server.flags if flag not in ("--max-attributes", "20000")]
    server.start()
    server.flush()
    assert len(table.rows(server.table_path())[span.trace_id.hex()]["spans"]) == 1


def test_an_empty_log_folder_is_no_table_yet(make_server: Callable[..., Server]) -> None:
    """What a crash within the creation of a table leaves behind does not break it."""
    server = make_server()
    (server.table_path() / "_delta_log").mkdir(parents=True)
    server.start()
    span, request = one_span(generate.Maker(14))
    otlp.post(server.url, request)
    server.flush()
    assert list(table.rows(server.table_path())) == [span.trace_id.hex()]


def test_an_amended_row_says_what_the_same_input_says_in_one_go(
    make_server: Callable[..., Server],
) -> None:
    """A child and a bare start_trace are archived, then the failed root comes."""
    server = make_server()
    server.start()
    make = generate.Maker(15)
    for in_one_go in (True, False):
        trace_id, root_id = make.trace_id(), make.span_id()
        child = make.span(trace_id, "child", parent_span_id=root_id)
        root = make.span(trace_id, "root", span_id=root_id)
        root.start_time_unix_nano = child.start_time_unix_nano - 10_000_000_000
        root.end_time_unix_nano = root.start_time_unix_nano + 20_000_000_000
        root.status.code = 2
        info = {
            "trace_id": f"tr-{trace_id.hex()}",
            "trace_location": {
                "type": "MLFLOW_EXPERIMENT",
                "mlflow_experiment": {"experiment_id": "0"},
            },
            "tags": {"env": "test"},
        }
        otlp.post(server.url, generate.request(child))
        answer = server.session.post(
            f"{server.url}/api/3.0/mlflow/traces", json={"trace": {"trace_info": info}}, timeout=30
        )
        assert answer.status_code == 200, answer.text
        if not in_one_go:
            server.flush()
        otlp.post(server.url, generate.request(root))
        server.flush()
        row = table.rows(server.table_path())[trace_id.hex()]
        assert row["trace_info"]["status"] == "ERROR"
        assert row["execution_duration_ms"] == 20_000
        assert row["span_count"] == 2
        assert dict(row["tags"])["env"] == "test"
        assert row["revision"] == (1 if in_one_go else 2)
