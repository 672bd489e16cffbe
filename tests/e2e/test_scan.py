"""An error count reads the leaves it needs and nothing else."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import requests

from support import generate, otlp, table
from support.server import DEFAULT_TABLE, Server

TRACES = 20_000
PAYLOAD_BYTES = 2048
ERROR_EVERY = 50

QUERIES = {
    "by trace status": f"select count(*) as n from {DEFAULT_TABLE} where trace_info['status'] = 'ERROR'",
    "by summary": f"select count(*) as n from {DEFAULT_TABLE} where error_span_count > 0",
    "by span status": (
        f"select count(*) as n from {DEFAULT_TABLE} where array_any_match(spans, s -> s['status'] = 'ERROR')"
    ),
}


def test_an_error_count_reads_less_than_a_hundredth_of_the_table(server: Server) -> None:
    """20,000 traces with 2 KB of text each; the scan's own metrics against the files' sizes."""
    fill(server)
    table_bytes = table.data_bytes(server.table_path())
    assert table_bytes > TRACES * PAYLOAD_BYTES // 8, (
        f"{table_bytes} bytes: the payloads are not in the table"
    )
    everything = explain(server, f"select * from {DEFAULT_TABLE} limit 1000000 offset 19999")
    assert bytes_scanned(everything)[0] > table_bytes / 2, "the metric does not count what is read"
    for name, query in QUERIES.items():
        assert int(server.cli.scalar(query)) == TRACES // ERROR_EVERY, name
        explained = explain(server, query)
        read, of_bytes = bytes_scanned(explained)
        assert of_bytes == table_bytes, "tracelake and deltalake disagree on the table's size"
        print(f"{name}: {read} of {table_bytes} bytes read ({100 * read / table_bytes:.3f} %)")
        assert read < table_bytes / 100, f"{name}: {read} of {table_bytes} bytes\n{explained}"


def fill(server: Server) -> None:
    """Two connections, so that the service is kept busy."""
    with ThreadPoolExecutor(2) as pool, requests.Session() as session:
        for sent in pool.map(
            lambda body: otlp.post(server.url, body, session=session),
            generate.bulk(TRACES, 250, PAYLOAD_BYTES, ERROR_EVERY),
        ):
            assert not sent.partial_success.rejected_spans
    server.flush(timeout=240)


def explain(server: Server, query: str) -> str:
    """All that `sql --explain` prints."""
    done = server.cli.run("sql", query, "--explain")
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def bytes_scanned(explained: str) -> tuple[int, int]:
    """Bytes read, and bytes of the table's live files, as the command sums them up."""
    found = re.search(r"^bytes scanned: (\d+) of (\d+) ", explained, re.MULTILINE)
    assert found, f"no bytes scanned in\n{explained}"
    return int(found[1]), int(found[2])
