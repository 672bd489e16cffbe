"""A long journal: how soon the service accepts after kill -9, and what memory the replay takes.

A service that is told to hold everything back fills its journal. It is killed with SIGKILL and started again
with default settings. Time counts from the start of the process to the first ack of a request. The replay goes
on behind; resident memory is sampled until everything is in the table, which `deltalake` then compares with
what was acknowledged.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

import requests
from measure import figures, generator, growth
from support import generate, otlp
from support.server import Server

HOLD = (
    "--settle-after", "7d", "--idle-after", "7d", "--commit-every", "7d",
    "--commit-bytes", "1000GiB", "--max-open", "1000GiB", "--journal-budget", "1000GiB",
)  # fmt: skip
"""Nothing settles and nothing is committed: what is acknowledged stays in the journal."""


def journal_bytes(server: Server) -> int:
    """Bytes of the journal's segments and carry files."""
    return sum(file.stat().st_size for file in (server.data_dir / "journal").glob("*.journal"))


def fill(data_dir: Path, ids: Path, arguments: argparse.Namespace) -> tuple[int, int]:
    """Fills the journal and kills the service; gives spans and bytes of the journal."""
    server = Server(data_dir, *HOLD, quick=False)
    server.start()
    spans = int(arguments.gigabytes * 1e9 / 2277)
    try:
        report = generator.send(server.url, "--spans", spans, "--ids", ids, "--connections", 8, "--patience", 600)
        size = journal_bytes(server)
    finally:
        server.kill()
        server.close()
    return report["spans_acked"], size


def first_ack(server: Server) -> tuple[float, bytes]:
    """Seconds from the start of the process to the ack of a request, and the trace that it brought."""
    make = generate.Maker(71)
    span = make.span(make.trace_id(), "first after the restart")
    begun = time.monotonic()
    server.start(timeout=600)
    while True:
        try:
            otlp.post(server.url, generate.request(span))
            return time.monotonic() - begun, span.trace_id
        except (requests.ConnectionError, AssertionError):
            if time.monotonic() - begun > 600:
                raise
            time.sleep(0.005)


def main() -> None:
    """Fills, kills, restarts, measures, compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=5, help="of the journal, at 10^9 bytes")
    parser.add_argument("--patience", type=float, default=1800, help="seconds for the replay")
    parser.add_argument("--folder", help="where the data folder is made [the system's temporary folder]")
    parser.add_argument("--json", type=Path, default=generator.target() / "bench" / "recovery.json")
    parser.add_argument("flags", nargs="*", help="for the service after the kill, after --")
    arguments = parser.parse_args()
    generator.release_binary()
    generator.generator()
    with tempfile.TemporaryDirectory(prefix="bench-recovery-", dir=arguments.folder) as folder:
        data_dir, ids = Path(folder) / "data", Path(folder) / "acked.csv"
        spans, size = fill(data_dir, ids, arguments)
        print(f"journal of {size / 1e9:.2f} GB with {spans:,} spans, killed", flush=True)
        if size < arguments.gigabytes * 0.9e9:
            raise SystemExit(f"the journal holds {size} bytes: it was not held back")
        # So that the restart reads the disk and not what the kernel still has in memory.
        os.sync()
        server = Server(data_dir, *arguments.flags, quick=False)
        try:
            result = measure(server, ids, size, arguments) | {"spans": spans, "journal_bytes": size}
        finally:
            server.close()
    print(f"accepting after {result['accepting_seconds']:.2f} s (goal: 1 s)")
    print(f"replayed and committed after {result['replay_seconds']:.0f} s")
    print(f"peak memory {result['peak_bytes'] / (1 << 20):.0f} MiB, {result['peak_share']:.1%} of the journal")
    print(f"missing, doubled, foreign: {result['faults']}")
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps({"machine": figures.machine()} | result, indent=2) + "\n")
    print(f"as JSON: {arguments.json}")
    if any(result["faults"].values()):
        raise SystemExit("the table is not what was acknowledged")


def measure(server: Server, ids: Path, size: int, arguments: argparse.Namespace) -> dict:
    """The restart and the replay behind it."""
    accepting, first = first_ack(server)
    assert server.process is not None
    pid, begun = server.process.pid, time.monotonic()
    acked = growth.read_acked(ids)
    table = growth.Growth(server.table_path())
    table.wait_for_rows(len(acked.traces) + 1, arguments.patience)
    replay = time.monotonic() - begun
    peak = figures.memory_bytes(pid, "VmHWM")
    faults = growth.differences(table.path, acked)
    # The request that was acknowledged first is no part of the generator's list.
    faults["traces_never_acked"] -= growth.holds(table.path, first.hex())
    total, distinct = growth.span_ids(table.path)
    faults["spans_missing"] = int(acked.spans.sum()) + 1 - distinct
    faults["spans_doubled"] = total - distinct
    return {
        "accepting_seconds": accepting,
        "replay_seconds": replay,
        "peak_bytes": peak,
        "peak_share": peak / size,
        "cpu_seconds": figures.cpu_seconds(pid),
        "faults": faults,
    }


if __name__ == "__main__":
    main()
