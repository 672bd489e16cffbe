"""What late spans of archived traces cost, beside a MERGE of the `deltalake` package.

A table of traces is made through the service. Then one late span is sent to each of some random traces,
and flushed: one version with deletion vectors and change data. The same new rows are merged into a plain
table with the same old rows by `deltalake`, which cannot write a clustered table. Of both, the CPU time of
the process and the bytes that it wrote are measured; for the service from the first late request on.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder, write_deltalake
from support import generate, otlp, table
from support.server import DEFAULT_TABLE, Server, binary

TICKS = os.sysconf("SC_CLK_TCK")
REQUEST_TRACES = 250
"""Traces in one request."""
CORPUS_BYTES = 4 << 20
"""Text that payloads are cut from."""


def usage(pid: int | str) -> tuple[float, int]:
    """CPU-seconds of a process, and bytes that it wrote to files."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    io = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return (int(fields[11]) + int(fields[12])) / TICKS, int(io["write_bytes"])


def requests(arguments: argparse.Namespace, ids: list[bytes]) -> Iterator[otlp.ExportTraceServiceRequest]:
    """Traces of `--spans` spans, with `--payload` bytes of text in each."""
    make = generate.Maker(arguments.seed + 1)
    corpus = make.text(CORPUS_BYTES)
    half = arguments.payload // 2

    def text() -> str:
        at = make.random.randrange(len(corpus) - half)
        return corpus[at : at + half]

    now = time.time_ns()
    for first in range(0, len(ids), REQUEST_TRACES):
        spans = []
        for trace in ids[first : first + REQUEST_TRACES]:
            root = make.span_id()
            at = {"start_time_unix_nano": now, "end_time_unix_nano": now + 9 * generate.MS}
            values = {"mlflow.spanInputs": text(), "mlflow.spanOutputs": text()}
            spans.append(make.span(trace, "agent", span_id=root, attributes=values, **at))
            for _ in range(arguments.spans - 1):
                values = {
                    "mlflow.spanInputs": text(),
                    "mlflow.spanOutputs": text(),
                    "gen_ai.request.model": "model-1",
                }
                spans.append(make.span(trace, "chat", parent_span_id=root, attributes=values, **at))
        yield generate.request(*spans)


def amend(server: Server, late: list[bytes]) -> dict:
    """Sends and flushes the late spans."""
    make = generate.Maker(99)
    path = server.table_path()
    version = DeltaTable(str(path)).version()
    known = {file for file in path.rglob("*") if file.is_file()}
    cpu, written = usage(server.process.pid)
    begun = time.monotonic()
    for first in range(0, len(late), REQUEST_TRACES):
        now = time.time_ns()
        spans = [
            make.span(
                trace, "late", start_time_unix_nano=now, end_time_unix_nano=now + generate.MS,
                parent_span_id=b"12345678", attributes={"mlflow.spanOutputs": "it came late"},
            )
            for trace in late[first : first + REQUEST_TRACES]
        ]  # fmt: skip
        otlp.post(server.url, generate.request(*spans), session=server.session)
    server.flush(timeout=600)
    seconds = time.monotonic() - begun
    cpu_after, written_after = usage(server.process.pid)
    files = [file for file in path.rglob("*") if file.is_file() and file not in known]
    return {
        "cpu": cpu_after - cpu,
        "written": written_after - written,
        "in_table": sum(file.stat().st_size for file in files),
        "seconds": seconds,
        "first_version": version + 1,
        "versions": DeltaTable(str(path)).version() - version,
    }


def merge(amended: Path, first_version: int, plain: Path) -> None:
    """In a process of its own: merges the new rows into a plain table with the old ones."""
    before = DeltaTable(str(amended), version=first_version - 1)
    write_deltalake(plain, QueryBuilder().register("t", before).execute("select * from t"))
    after = DeltaTable(str(amended))
    changed = "select * from t where revision > 1"
    rows = pa.table(QueryBuilder().register("t", after).execute(changed))
    target = DeltaTable(str(plain))
    cpu, written = usage("self")
    begun = time.monotonic()
    done = (
        target.merge(rows, "t.trace_id = s.trace_id", source_alias="s", target_alias="t")
        .when_matched_update_all()
        .execute()
    )
    seconds = time.monotonic() - begun
    cpu_after, written_after = usage("self")
    assert done["num_target_rows_updated"] == rows.num_rows, done
    print(
        json.dumps(
            {
                "cpu": cpu_after - cpu,
                "written": written_after - written,
                "in_table": done["num_target_files_added"] and sum(
                    size for size in pa.table(DeltaTable(str(plain)).get_add_actions())["size_bytes"].to_pylist()
                ),
                "seconds": seconds,
                "versions": 1,
            }
        )
    )


def check(path: Path, arguments: argparse.Namespace, first_version: int) -> None:
    """Readers see one row per trace with all spans, and the feed shows both images of each change."""
    spans = arguments.traces * arguments.spans + arguments.amendments
    for counts in (table.counts_deltalake, table.counts_duckdb, table.counts_polars):
        seen = counts(path)
        assert seen == (arguments.traces, spans, 0), (counts.__name__, seen)
    (row,) = table.query(path, "select count(distinct trace_id) a from t")
    assert row["a"] == arguments.traces, row
    feed = DeltaTable(str(path)).load_cdf(starting_version=first_version)
    counted = dict(Counter(pa.table(feed)["_change_type"].to_pylist()))
    assert counted == {
        "update_preimage": arguments.amendments,
        "update_postimage": arguments.amendments,
    }, counted
    print(f"deltalake, DuckDB and Polars see one row per trace; the change data feed: {counted}")


def main() -> None:
    """Measures both and prints them with their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traces", type=int, default=200_000)
    parser.add_argument("--spans", type=int, default=10, help="of each trace")
    parser.add_argument("--payload", type=int, default=400, help="bytes of text in each span")
    parser.add_argument("--amendments", type=int, default=2500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--merge", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--keep", type=Path, help="folder to work in, which is left as it is then")
    parser.add_argument("flags", nargs="*", help="for the service, after --")
    arguments = parser.parse_args()
    if arguments.merge:
        amended, version, plain = arguments.merge
        merge(Path(amended), int(version), Path(plain))
        return
    with tempfile.TemporaryDirectory(prefix="amend-") as made:
        folder = arguments.keep or Path(made)
        chance = random.Random(arguments.seed)
        ids = [chance.randbytes(16) for _ in range(arguments.traces)]
        # Nothing is amended but by the flush.
        server = Server(folder / "data", "--amend-every", "1h", *arguments.flags, quick=False)
        server.start()
        try:
            for request in requests(arguments, ids):
                while (answer := otlp.post_bytes(server.url, request.SerializeToString(), session=server.session)).status_code == 429:
                    time.sleep(float(answer.headers.get("retry-after", 1)))
                assert answer.status_code == 200, answer.text
            server.flush(timeout=600)
            path = server.table_path()
            files = len(DeltaTable(str(path)).file_uris())
            print(
                f"{arguments.traces} traces x {arguments.spans} spans, {table.data_bytes(path) / 1e6:.0f} MB in"
                f" {files} files; {arguments.amendments} late spans; {binary()}",
                flush=True,
            )
            ours = amend(server, chance.sample(ids, arguments.amendments))
        finally:
            server.close()
        check(path, arguments, ours["first_version"])
        command = [sys.executable, __file__, "--merge", str(path), str(ours["first_version"]), str(folder / "plain")]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        theirs = json.loads(done.stdout)
    rows = [
        ("CPU-seconds", "cpu", 1, 2),
        ("MB written by the process", "written", 1e6, 1),
        ("MB of these in the table", "in_table", 1e6, 1),
        ("seconds", "seconds", 1, 2),
        ("versions", "versions", 1, 0),
    ]
    print(f"{'':32}{'tracelake':>12}{'MERGE':>12}{'ratio':>8}")
    for title, name, unit, digits in rows:
        one, other = ours[name] / unit, theirs[name] / unit
        print(f"{title:32}{one:12.{digits}f}{other:12.{digits}f}{other / one:8.1f}")


if __name__ == "__main__":
    main()
