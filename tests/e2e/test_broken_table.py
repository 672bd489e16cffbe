"""A table that cannot be written for now: nothing is lost, nothing else waits, a stop is a stop."""

from __future__ import annotations

import json
from collections.abc import Callable

from support import generate, otlp, table
from support.server import Server

PROTOCOL = {
    "protocol": {
        "minReaderVersion": 3,
        "minWriterVersion": 7,
        "readerFeatures": ["deletionVectors"],
        "writerFeatures": [
            "changeDataFeed",
            "clustering",
            "deletionVectors",
            "domainMetadata",
            "invariants",
            "rowTracking",
        ],
    }
}


def test_a_broken_table_holds_up_no_other_and_keeps_its_traces(
    make_server: Callable[..., Server],
) -> None:
    """Another writer asks for a feature that tracelake does not have, then takes it back."""
    server = make_server("--settle-after", "100ms", "--commit-every", "200ms")
    server.cli.ok("setup", "broken.by.another", "--experiment", "e")
    experiment = "1"
    log = server.table_path("broken.by.another") / "_delta_log" / f"{1:020}.json"
    log.write_text(json.dumps(PROTOCOL) + "\n")
    server.start()
    make = generate.Maker(5)
    waiting = make.span(make.trace_id(), "waits")
    fine = make.span(make.trace_id(), "fine")
    headers = {"x-mlflow-experiment-id": experiment}
    otlp.post(server.url, generate.request(waiting), headers=headers)
    otlp.post(server.url, generate.request(fine))

    answer = server.session.post(f"{server.url}/api/v1/flush", timeout=30)
    assert answer.status_code == 503, answer.text
    assert "rowTracking" in answer.json()["message"]
    assert fine.trace_id.hex() in table.rows(server.table_path())

    server.stop()  # asserts exit code 0, within its time limit
    log.unlink()
    server.start()
    server.flush()
    rows = table.rows(server.table_path("broken.by.another"))
    assert list(rows) == [waiting.trace_id.hex()]
    assert len(table.rows(server.table_path())) == 1
