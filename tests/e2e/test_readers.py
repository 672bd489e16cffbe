"""Any Delta reader gives the counts that tracelake gives, before and after late spans."""

from __future__ import annotations

from collections import defaultdict

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from support import generate, otlp, spark, table
from support.otlp import ExportTraceServiceRequest
from support.server import DEFAULT_TABLE, Server
from support.truth import ERROR, records, truth_of

SQL_COUNTS = f"""
select (select count(*) from {DEFAULT_TABLE}) as traces,
       (select sum(cardinality(spans)) from {DEFAULT_TABLE}) as spans,
       (select count(*) from {DEFAULT_TABLE}
        where trace_info['status'] = 'ERROR' or error_span_count > 0) as error_traces
"""
LATE = 40


@pytest.fixture(scope="module")
def sail():
    """One Spark Connect session for the module."""
    with spark.sail() as session:
        yield session


def expected_counts(bodies: list[ExportTraceServiceRequest]) -> tuple[int, int, int]:
    """From the requests alone: traces, spans, traces with an error span."""
    truth = truth_of(bodies)
    kept = [trace.kept for trace in truth.values()]
    errors = sum(any(record.span.status.code == ERROR for record in spans) for spans in kept)
    return len(truth), sum(map(len, kept)), errors


def send(server: Server, bodies: list[ExportTraceServiceRequest]) -> None:
    """Sends and waits for the table."""
    for body in bodies:
        otlp.post(server.url, body, session=server.session)
    server.flush()


def assert_all_readers_agree(server: Server, sail, expected: tuple[int, int, int]) -> None:
    """tracelake's own SQL and four readers from outside."""
    path = server.table_path()
    (row,) = server.cli.sql(SQL_COUNTS)
    found = {
        "tracelake sql": tuple(int(row[name]) for name in table.COUNTS),
        "deltalake": table.counts_deltalake(path),
        "duckdb": table.counts_duckdb(path),
        "polars": table.counts_polars(path),
        "sail": table.counts_sail(sail, path),
    }
    assert found == dict.fromkeys(found, expected)


def late_spans(bodies: list[ExportTraceServiceRequest]) -> list[ExportTraceServiceRequest]:
    """One more failed span for each of some traces that are archived already."""
    make = generate.Maker(99)
    roots = [
        record.span for body in bodies for record in records(body) if not record.span.parent_span_id
    ]
    return [
        generate.request(
            make.span(
                root.trace_id, "late", parent_span_id=root.span_id, status=generate.status_error()
            ),
            service="late",
        )
        for root in roots[:LATE]
    ]


def test_readers_agree_also_after_late_spans(server: Server, sail) -> None:
    """Counts, then amendments, then counts again and the change data feed between them."""
    bodies = [body for _, body in generate.tricky()] + list(generate.bulk(300, 100, 400, 10))
    send(server, bodies)
    assert_all_readers_agree(server, sail, expected_counts(bodies))
    before = DeltaTable(str(server.table_path())).version()

    later = late_spans(list(generate.bulk(300, 100, 400, 10)))
    send(server, later)
    assert_all_readers_agree(server, sail, expected_counts(bodies + later))
    assert_feed_shows_updates(
        server, before, {record.span.trace_id.hex() for b in later for record in records(b)}
    )

    send(server, later)
    assert_all_readers_agree(server, sail, expected_counts(bodies + later))
    assert_inserts_only_once(server)


def assert_feed_shows_updates(server: Server, since: int, amended: set[str]) -> None:
    """Each amended trace once before and once after, the span more in the latter; nothing else."""
    feed = DeltaTable(str(server.table_path())).load_cdf(starting_version=since + 1)
    changes: dict[str, dict[str, dict]] = defaultdict(dict)
    for row in pa.table(feed.read_all()).to_pylist():
        images = changes[row["trace_id"].removeprefix("tr-")]
        assert row["_change_type"] not in images, (
            f"{row['_change_type']} twice for {row['trace_id']}"
        )
        images[row["_change_type"]] = row
    assert changes.keys() == amended
    for images in changes.values():
        assert images.keys() == {"update_preimage", "update_postimage"}
        old, new = images["update_preimage"], images["update_postimage"]
        old_ids, new_ids = ({span["span_id"] for span in row["spans"]} for row in (old, new))
        assert old_ids < new_ids and len(new_ids - old_ids) == 1
        assert new["error_span_count"] == old["error_span_count"] + 1
        assert new["created_at"] == old["created_at"], (
            "created_at is when the row was first archived"
        )


def assert_inserts_only_once(server: Server) -> None:
    """Over the whole life of the table the feed inserts each trace once and deletes none."""
    feed = DeltaTable(str(server.table_path())).load_cdf(starting_version=0)
    rows = pa.table(feed.read_all()).select(["trace_id", "_change_type"]).to_pylist()
    inserted = [row["trace_id"] for row in rows if row["_change_type"] == "insert"]
    assert len(inserted) == len(set(inserted)) == len(table.rows(server.table_path()))
    assert not [row for row in rows if row["_change_type"] == "delete"]
