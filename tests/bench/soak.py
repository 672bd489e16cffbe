"""An hour of mixed load: whether memory, handles, disk and lag stay flat.

LLM and light spans come at a steady rate by a schedule, and traces whose spans come in four requests. Beside
them small traces are begun, amended after they were archived (late spans, tags), some deleted; and questions
are asked. Every few seconds the process is looked at. At the end each curve gets a straight line through its
last two thirds: what it would add within them must stay within a bound that is printed. `deltalake` then
compares the table with what was acknowledged.
"""

from __future__ import annotations

import argparse
import csv
import random
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

import numpy as np
from measure import figures, generator, growth, plot
from support import generate, otlp
from support.server import REPOSITORY, Server

MEGA = 1 << 20


@dataclass(frozen=True)
class Curve:
    """One thing that is watched, and what it may add within the last two thirds of a soak."""

    key: str
    title: str
    unit: str
    share: float
    """Of its mean."""
    absolute: float
    """At least this much, in its unit."""

    def verdict(self, times: list[float], values: list[float]) -> tuple[bool, float, float]:
        """Whether it is flat, what the line through the last two thirds adds, and the bound."""
        begin = len(times) // 3
        x, y = np.array(times[begin:]), np.array(values[begin:])
        slope = float(np.polyfit(x, y, 1)[0])
        added = slope * float(x[-1] - x[0])
        bound = max(self.share * float(y.mean()), self.absolute)
        return added <= bound, added, bound


CURVES = [
    Curve("rss", "resident memory", "MiB", 0.10, 16),
    Curve("fds", "open file handles", "", 0.05, 8),
    Curve("threads", "threads", "", 0.10, 16),
    Curve("journal", "journal on disk", "MiB", 0.25, 32),
    Curve("other", "registry, catalog on disk", "MiB", 0.25, 16),
    # Table and ledger keep what they were given: flat is what a trace costs in them.
    Curve("ledger_bytes", "ledger per trace", "B", 0.10, 5),
    Curve("trace_bytes", "live bytes of the table per trace", "B", 0.10, 50),
    Curve("dead", "the table's log and dead files", "MiB", 0.25, 64),
    Curve("lag", "ack to table, 99th percentile", "s", 0.25, 1),
]


@dataclass
class Small:
    """Traces that are changed after they were archived, and what the answers promise of them."""

    server: Server
    stop: threading.Event
    random: random.Random = field(default_factory=lambda: random.Random(41))
    make: generate.Maker = field(default_factory=lambda: generate.Maker(41))
    spans: dict[bytes, int] = field(default_factory=dict)
    begun: dict[bytes, float] = field(default_factory=dict)
    tags: dict[bytes, str] = field(default_factory=dict)
    deleted: set[bytes] = field(default_factory=set)
    asked: int = 0
    fault: BaseException | None = None

    def run(self) -> None:
        """About ten steps a second until stopped."""
        try:
            while not self.stop.wait(0.1):
                self.step()
        except BaseException as fault:
            self.fault = fault

    def step(self) -> None:
        """One change, drawn by lot."""
        weights = {self.begin: 5, self.late: 2, self.tag: 2, self.delete: 0.3, self.ask: 0.1}
        (action,) = self.random.choices(list(weights), list(weights.values()))
        action()

    def archived(self) -> bytes | None:
        """A trace of the last minutes that has been in the table for a while."""
        old = time.monotonic() - 15
        recent = [trace for trace in list(self.begun)[-2000:] if self.begun[trace] < old]
        return self.random.choice(recent) if recent else None

    def begin(self) -> None:
        """A trace of three spans whose root has ended."""
        trace, root = self.make.trace_id(), self.make.span_id()
        spans = [self.make.span(trace, parent_span_id=root) for _ in range(2)]
        otlp.post(self.server.url, generate.request(*spans, self.make.span(trace, span_id=root)), session=self.server.session)
        self.spans[trace], self.begun[trace] = 3, time.monotonic()

    def late(self) -> None:
        """One more span of an archived trace."""
        if trace := self.archived():
            span = self.make.span(trace, parent_span_id=b"12345678")
            otlp.post(self.server.url, generate.request(span), session=self.server.session)
            self.spans[trace] += 1

    def tag(self) -> None:
        """A tag on an archived trace."""
        if trace := self.archived():
            value = str(self.random.random())
            self.call("patch", f"/api/3.0/mlflow/traces/tr-{trace.hex()}/tags", {"key": "soak", "value": value})
            self.tags[trace] = value

    def delete(self) -> None:
        """An archived trace goes."""
        if trace := self.archived():
            body = {"experiment_id": "0", "request_ids": [f"tr-{trace.hex()}"]}
            self.call("post", "/api/2.0/mlflow/traces/delete-traces", body)
            del self.spans[trace], self.begun[trace]
            self.tags.pop(trace, None)
            self.deleted.add(trace)

    def ask(self) -> None:
        """A question that the service answers."""
        statement = "select trace_info['status'], count(*), sum(span_count) from traces group by 1"
        self.call("post", "/api/v1/sql", {"statement": statement})
        self.call("post", "/api/v1/questions/errors", {"limit": 10})
        self.asked += 1

    def call(self, method: str, path: str, body: dict) -> None:
        """A call that must succeed."""
        answer = self.server.session.request(method, self.server.url + path, json=body, timeout=120)
        if answer.status_code != 200:
            raise SystemExit(f"{method} {path} {body}: {answer.status_code} {answer.text[:300]}")


@dataclass
class Watch:
    """Samples of the process and its folder."""

    server: Server
    table: growth.Growth
    begun: float
    rows: list[dict[str, float]] = field(default_factory=list)

    def look(self) -> None:
        """One sample."""
        assert self.server.process is not None
        pid, data = self.server.process.pid, self.server.data_dir
        journal = folder_bytes(data / "journal")
        tables, ledger = data / "tables", data / "ledger"
        self.table.rows()
        self.rows.append({
            "seconds": time.monotonic() - self.begun,
            "rss": figures.memory_bytes(pid) / MEGA,
            "fds": len(list(Path(f"/proc/{pid}/fd").iterdir())),
            "threads": len(list(Path(f"/proc/{pid}/task").iterdir())),
            "journal": journal / MEGA,
            "other": (folder_bytes(data, without=tables) - journal - folder_bytes(ledger)) / MEGA,
            "ledger": folder_bytes(ledger) / MEGA,
            "tables": folder_bytes(tables) / MEGA,
            "live_bytes": self.table.live_bytes(),
            "live_rows": float(sum(self.table.live.values())),
            "cpu": figures.cpu_seconds(pid),
        })  # fmt: skip


def folder_bytes(folder: Path, without: Path | None = None) -> int:
    """Bytes of the files below a folder; files that go while it looks do not count."""
    total = 0
    for file in folder.rglob("*"):
        if without and without in file.parents:
            continue
        try:
            if file.is_file():
                total += file.stat().st_size
        except FileNotFoundError:
            continue
    return total


def lag_curve(rows: list[dict[str, float]], begun_unix_nano: int, acked: growth.Acked, table: growth.Growth) -> None:
    """Adds to each sample the lag of the traces that were acknowledged since the one before."""
    at, lags = growth.lags_by_time(table, acked)
    since = (at - begun_unix_nano) / 1e9
    order = np.argsort(since)
    since, lags = since[order], lags[order]
    last, before = 0.0, 0
    for row in rows:
        upto = int(np.searchsorted(since, row["seconds"]))
        if upto > before:
            last = float(np.percentile(lags[before:upto], 99))
        row["lag"], before = last, upto


def main() -> None:
    """Sends, changes, watches; then draws, judges and compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--llm", type=float, default=2000, help="LLM spans per second")
    parser.add_argument("--light", type=float, default=5000, help="light spans per second")
    parser.add_argument("--split", type=float, default=500, help="spans per second of traces in four requests")
    parser.add_argument("--every", type=float, default=5, help="seconds between samples")
    parser.add_argument("--folder", help="where the data folder is made [the system's temporary folder]")
    parser.add_argument("--csv", type=Path, default=generator.target() / "bench" / "soak.csv")
    parser.add_argument("--svg", type=Path, default=REPOSITORY / "docs" / "images" / "soak.svg")
    parser.add_argument("flags", nargs="*", help="for the service, after --")
    arguments = parser.parse_args()
    generator.release_binary()
    with tempfile.TemporaryDirectory(prefix="bench-soak-", dir=arguments.folder) as folder:
        server = Server(Path(folder) / "data", *arguments.flags, quick=False)
        server.start()
        try:
            ok = soak(server, arguments)
        except SystemExit:
            print(server.log_tail(), file=sys.stderr)
            raise
        finally:
            server.close()
    if not ok:
        raise SystemExit("not flat, or not what was acknowledged")


def soak(server: Server, arguments: argparse.Namespace) -> bool:
    """The load and what comes of it; whether all is well."""
    folder, seconds = server.data_dir.parent, arguments.minutes * 60
    loads = {
        "llm": ("--load", "llm", "--rate", arguments.llm),
        "light": ("--load", "light", "--rate", arguments.light),
        "split": ("--load", "llm", "--rate", arguments.split, "--parts", 4, "--connections", 2),
    }
    watch = Watch(server, growth.Growth(server.table_path(), remember=True), time.monotonic())
    begun_unix_nano = time.time_ns()
    small = Small(server, threading.Event())
    changes = threading.Thread(target=small.run, daemon=True)
    print(f"{arguments.minutes:.0f} minutes of load", file=sys.stderr, flush=True)
    senders = [
        generator.start(server.url, *load, "--seconds", seconds, "--ids", folder / f"{name}.csv")
        for name, load in loads.items()
    ]
    changes.start()
    with figures.Sampler(watch.look, arguments.every):
        reports = [generator.finish(sender) for sender in senders]
    small.stop.set()
    changes.join()
    if small.fault:
        raise small.fault
    server.flush(timeout=600)
    # What took an hour is kept before anything is made of it.
    write_csv(arguments.csv, watch.rows)
    acked = growth.read_acked(*(folder / f"{name}.csv" for name in loads))
    lag_curve(watch.rows, begun_unix_nano, acked, watch.table)
    for row in watch.rows:
        traces = max(row["live_rows"], 1)
        row["ledger_bytes"] = row["ledger"] * MEGA / traces
        row["trace_bytes"] = row["live_bytes"] / traces
        row["dead"] = max(row["tables"] - row["live_bytes"] / MEGA, 0)
    faults = compare(server, acked, small)
    write_csv(arguments.csv, watch.rows)
    flat = judge(watch.rows)
    draw(arguments, watch.rows, reports)
    spans = sum(report["spans_acked"] for report in reports)
    print(f"{spans:,} spans acknowledged, {len(small.spans):,} traces changed, {len(small.deleted)} deleted, {small.asked} questions")
    for name, report in zip(loads, reports, strict=True):
        latency = report["latency_ms"]
        print(f"{name}: ack p50 {latency['p50']:.1f} ms, p99 {latency['p99']:.1f} ms, max {latency['max']:.0f} ms")
    print(f"missing, doubled, foreign, other tags: {faults}")
    return flat and not any(faults.values())


def compare(server: Server, acked: growth.Acked, small: Small) -> dict[str, int]:
    """Ways in which the table differs from what was acknowledged."""
    ours = sorted((trace.hex(), spans) for trace, spans in small.spans.items())
    more = growth.Acked(
        np.array([trace for trace, _ in ours], dtype="S32"),
        np.array([spans for _, spans in ours], dtype=acked.spans.dtype),
        np.zeros(len(ours), dtype=acked.times.dtype),
    )
    faults = growth.differences(server.table_path(), growth.together(acked, more))
    tags = growth.tags(server.table_path(), "soak")
    faults["wrong_tags"] = sum(tags.get(trace.hex()) != tag for trace, tag in small.tags.items())
    return faults


def judge(rows: list[dict[str, float]]) -> bool:
    """Prints a verdict per curve; whether all are flat."""
    times, flat = [row["seconds"] for row in rows], True
    print(f"{'':36}{'median':>10}{'max':>10}{'added':>10}{'bound':>10}")
    for curve in CURVES:
        values = [row[curve.key] for row in rows]
        ok, added, bound = curve.verdict(times, values)
        flat &= ok
        title = f"{curve.title} ({curve.unit})" if curve.unit else curve.title
        print(
            f"{title:36}{statistics.median(values):10.1f}{max(values):10.1f}{added:10.1f}{bound:10.1f}"
            f"  {'flat' if ok else 'GROWS'}"
        )
    print("added: by a straight line through the last two thirds, over their length")
    return flat


def draw(arguments: argparse.Namespace, rows: list[dict[str, float]], reports: list[dict]) -> None:
    """The curves as small multiples."""
    times = [row["seconds"] / 60 for row in rows]
    rate = sum(report["spans_per_second"] for report in reports)
    panels = [plot.Panel(curve.title, curve.unit, [row[curve.key] for row in rows]) for curve in CURVES]
    title = f"{arguments.minutes:.0f} minutes of mixed load, {rate:,.0f} spans/s, with amendments and deletions"
    arguments.svg.parent.mkdir(parents=True, exist_ok=True)
    arguments.svg.write_text(plot.small_multiples(title, "minutes", times, panels))
    print(f"curves: {arguments.svg}, samples: {arguments.csv}")


def write_csv(path: Path, rows: list[dict[str, float]]) -> None:
    """The samples as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({key: round(value, 3) for key, value in row.items()} for row in rows)


if __name__ == "__main__":
    main()
