"""What it costs when the spans of a trace go to different archivers of one table.

The same spans in requests of the same size are sent twice to archivers with the settings that a service
has by default: first each trace whole to one of them, then each span to one that is drawn by lot.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

from deltalake import DeltaTable
from support import generate, otlp, table
from support.server import DEFAULT_TABLE, Server, binary

TICKS = os.sysconf("SC_CLK_TCK")
GROUP = 40
"""Traces that are under way at the same time."""


@dataclass(frozen=True)
class Cost:
    """What one way of sending came to."""

    versions: int
    files: int
    written_bytes: int
    live_bytes: int
    cpu_seconds: float
    whole_after_seconds: float


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def traces(arguments: argparse.Namespace) -> list[list]:
    """Traces as lists of spans, the root last as SDKs send it."""
    make = generate.Maker(arguments.seed)
    made = []
    for _ in range(arguments.traces):
        trace, root = make.trace_id(), make.span_id()
        spans = [
            make.span(
                trace, "chat", n * generate.MS, parent_span_id=root,
                attributes={"mlflow.spanInputs": make.text(1000), "mlflow.spanOutputs": make.text(1000)},
            )
            for n in range(arguments.spans - 1)
        ]  # fmt: skip
        made.append([*spans, make.span(trace, "agent", span_id=root, length=50 * generate.MS)])
    return made


def send(archivers: list[Server], made: list[list], split: bool, seconds: float) -> None:
    """All spans within the time, one request per archiver and group of traces."""
    chance = random.Random(7)
    begun = time.monotonic()
    for first in range(0, len(made), GROUP):
        parts: list[list] = [[] for _ in archivers]
        for number, spans in enumerate(made[first : first + GROUP]):
            for span in spans:
                target = chance.randrange(len(parts)) if split else number % len(parts)
                parts[target].append(span)
        for archiver, part in zip(archivers, parts, strict=True):
            if part:
                otlp.post(archiver.url, generate.request(*part), session=archiver.session)
        due = begun + seconds * (first + GROUP) / len(made)
        time.sleep(max(0.0, due - time.monotonic()))


def wait_until_whole(path: Path, wanted: tuple[int, int], patience: float) -> None:
    """Until a reader from outside sees one row per trace with every span."""
    sql = "select count(*) a, count(distinct trace_id) b, coalesce(sum(span_count), 0) c from t"
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if table.exists(path):
            (row,) = table.query(path, sql)
            assert row["a"] == row["b"], "two rows for a trace"
            if (row["a"], row["c"]) == wanted:
                return
        time.sleep(0.5)
    raise SystemExit(f"not whole after {patience:.0f} s")


def measure(arguments: argparse.Namespace, made: list[list], split: bool) -> Cost:
    """Archivers and a table of their own for one way of sending."""
    with tempfile.TemporaryDirectory(prefix="scale-out-") as folder:
        shared = Path(folder) / "tables"
        shared.mkdir()
        flags = ("--tables-dir", str(shared), *arguments.flags)
        archivers = [
            Server(Path(folder) / f"archiver-{n}", *flags, quick=False)
            for n in range(arguments.archivers)
        ]
        path = shared.joinpath(*DEFAULT_TABLE.split("."))
        try:
            for archiver in archivers:
                archiver.start()
            before = [cpu_seconds(archiver.process.pid) for archiver in archivers]
            send(archivers, made, split, arguments.seconds)
            sent = time.monotonic()
            wanted = (len(made), sum(map(len, made)))
            wait_until_whole(path, wanted, arguments.patience)
            whole = time.monotonic() - sent
            after = [cpu_seconds(archiver.process.pid) for archiver in archivers]
        finally:
            for archiver in archivers:
                archiver.close()
        files = [file for file in path.rglob("*") if file.is_file()]
        return Cost(
            DeltaTable(str(path)).version(),
            len(files),
            sum(file.stat().st_size for file in files),
            table.data_bytes(path),
            sum(after) - sum(before),
            whole,
        )


def main() -> None:
    """Measures both and prints them with their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archivers", type=int, default=2)
    parser.add_argument("--traces", type=int, default=2000)
    parser.add_argument("--spans", type=int, default=10, help="of each trace")
    parser.add_argument("--seconds", type=float, default=20, help="within which all are sent")
    parser.add_argument("--patience", type=float, default=300, help="seconds to wait for the table")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("flags", nargs="*", help="for the services, after --")
    arguments = parser.parse_args()
    print(
        f"{arguments.traces} traces x {arguments.spans} spans to {arguments.archivers} archivers"
        f" within {arguments.seconds:.0f} s, {binary()} {' '.join(arguments.flags)}",
        flush=True,
    )
    made = traces(arguments)
    whole, split = measure(arguments, made, False), measure(arguments, made, True)
    rows = [
        ("table versions", "versions", 1, ""),
        ("files written", "files", 1, ""),
        ("bytes written", "written_bytes", 1e6, " MB"),
        ("bytes of live data files", "live_bytes", 1e6, " MB"),
        ("CPU-seconds of the archivers", "cpu_seconds", 1, ""),
        ("seconds after the last request until every row is whole", "whole_after_seconds", 1, ""),
    ]
    print(f"{'':56}{'whole':>12}{'split':>12}{'ratio':>8}")
    for title, name, unit, suffix in rows:
        one, other = getattr(whole, name), getattr(split, name)
        shown = [f"{value / unit:.1f}{suffix}" if isinstance(value, float) or suffix else str(value) for value in (one, other)]
        print(f"{title:56}{shown[0]:>12}{shown[1]:>12}{other / one:8.1f}")


if __name__ == "__main__":
    main()
