"""What it costs to take spans in: CPU, speed, latency, lag, memory, bytes in the table.

Each run has a service with default settings on a fresh data folder, a release build. LLM spans, then light
ones: as fast as they are acknowledged (closed loop), then at half of that rate by a schedule (open loop,
latency from when a request was due). The generator runs beside the service on the same cores; its own time
is printed. At the end `deltalake` reads the table and compares it with what was acknowledged.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

import numpy as np
from measure import figures, generator, growth
from support.server import DEFAULT_TABLE, SHARED_DATA, Server, clean_environment

GOALS = {"llm": (20.0, 80_000, 500), "light": (5.0, 300_000, 40)}
"""CPU-seconds per million spans, spans per second, bytes per span."""


@dataclass(frozen=True)
class Run:
    """What one run came to."""

    load: str
    loop: str
    spans: int
    cpu_per_million: float
    acked_per_second: float
    committed_per_second: float
    ack_ms: dict[str, float]
    lag_seconds: dict[str, float]
    bytes_per_span: float
    otlp_bytes_per_span: float
    idle_bytes: int
    peak_bytes: int
    bytes_after: int
    told_to_wait: int
    late_requests: int
    generator_cpu_per_million: float
    other_cores: float
    faults: dict[str, int]


def run(load: str, arguments: argparse.Namespace, rate: float | None) -> Run:
    """One load on a fresh service."""
    with tempfile.TemporaryDirectory(prefix="bench-ingest-", dir=arguments.folder) as folder:
        server = Server(Path(folder) / "data", *arguments.flags, quick=False)
        server.start()
        try:
            return measure(server, load, arguments, rate)
        except SystemExit:
            print(server.log_tail(), file=sys.stderr)
            raise
        finally:
            server.close()


def measure(server: Server, load: str, arguments: argparse.Namespace, rate: float | None) -> Run:
    """Sends, waits until all is in the table, compares."""
    assert server.process is not None
    pid = server.process.pid
    time.sleep(arguments.idle)
    idle = figures.memory_bytes(pid)
    others, ids = figures.Others.begin(), server.data_dir.parent / "acked.csv"
    before = figures.cpu_seconds(pid)
    options: list = ["--load", load, "--seconds", arguments.seconds, "--ids", ids]
    options += ["--connections", arguments.connections]
    if arguments.spans_per_request:
        options += ["--spans-per-request", arguments.spans_per_request]
    if rate:
        options += ["--rate", round(rate)]
    report = generator.send(server.url, *options)
    table = growth.Growth(server.table_path())
    table.wait_for_rows(report["traces_acked"], arguments.patience)
    # What is left to do after a commit, such as deleting the journal's segment, is part of the price.
    time.sleep(1)
    cpu = figures.cpu_seconds(pid) - before
    other_cores = others.cores(cpu + report["generator_cpu_seconds"])
    peak = figures.memory_bytes(pid, "VmHWM")
    time.sleep(arguments.idle)
    after = figures.memory_bytes(pid)
    acked = growth.read_acked(ids)
    lags = growth.lags(table, acked)
    last = max(seen for _, seen in table.arrived)
    spans = report["spans_acked"]
    return Run(
        load=load,
        loop=report["loop"],
        spans=spans,
        cpu_per_million=cpu * 1e6 / spans,
        acked_per_second=report["spans_per_second"],
        committed_per_second=spans * 1e9 / (last - report["begun_unix_nano"]),
        ack_ms=report["latency_ms"],
        lag_seconds={
            "p50": float(np.percentile(lags, 50)),
            "p99": float(np.percentile(lags, 99)),
            "max": float(lags.max()),
        },
        bytes_per_span=growth.live_bytes(table.path) / spans,
        otlp_bytes_per_span=report["bytes_per_span"],
        idle_bytes=idle,
        peak_bytes=peak,
        bytes_after=after,
        told_to_wait=report["told_to_wait"],
        late_requests=report["late_requests"],
        generator_cpu_per_million=report["generator_cpu_seconds_per_million_spans"],
        other_cores=other_cores,
        faults=faults(table.path, acked, spans),
    )


def faults(path: Path, acked: growth.Acked, spans: int) -> dict[str, int]:
    """Ways in which the table differs from what was acknowledged."""
    found = growth.differences(path, acked)
    total, distinct = growth.span_ids(path)
    return found | {"spans_missing": spans - distinct, "spans_doubled": total - distinct}


def agent_traces(arguments: argparse.Namespace) -> dict | None:
    """Real agent traces: bytes in the table beside their OTLP, as archived and compacted."""
    source = SHARED_DATA / "otlp_derived"
    if not source.is_dir():
        print(f"no {source}: bytes of real agent traces are not measured", file=sys.stderr)
        return None
    files = [file for file in source.iterdir() if file.suffix == ".pb"]
    otlp = sum(file.stat().st_size for file in files)
    with tempfile.TemporaryDirectory(prefix="bench-agents-", dir=arguments.folder) as folder:
        server = Server(Path(folder) / "data", *arguments.flags, quick=False)
        server.start()
        try:
            server.cli.ok("import", str(source))
            server.flush()
            path = server.table_path()
            archived = growth.live_bytes(path)
            server.stop()
            help_of = server.cli.run("maintain", "--help")
            compacted = None
            if help_of.returncode == 0:
                server.cli.ok("maintain", DEFAULT_TABLE, "--once", timeout=600)
                compacted = growth.live_bytes(path)
            else:
                print("this binary has no `maintain`: nothing is compacted", file=sys.stderr)
        finally:
            server.close()
    return {
        "files": len(files),
        "otlp_bytes": otlp,
        "archived_bytes": archived,
        "compacted_bytes": compacted,
    }


def show(runs: list[Run], agents: dict | None) -> None:
    """The figures as a table, each with its goal."""
    rows: list[tuple[str, str, list[str]]] = []

    def row(title: str, goal: str, values: list[str]) -> None:
        rows.append((title, goal, values))

    def goals(index: int, form: str) -> str:
        return " / ".join(form.format(GOALS[load][index]) for load in GOALS)

    row("spans", "", [f"{run.spans:,}" for run in runs])
    row("CPU-s per million spans", goals(0, "<= {:.0f}"), [f"{run.cpu_per_million:.1f}" for run in runs])
    row("spans/s acknowledged", goals(1, ">= {:,}"), [f"{run.acked_per_second:,.0f}" for run in runs])
    row("spans/s committed", goals(1, ">= {:,}"), [f"{run.committed_per_second:,.0f}" for run in runs])
    for key, goal in (("p50", "<= 5 at half load"), ("p90", ""), ("p99", "<= 50 at half load"), ("p999", ""), ("max", "")):
        row(f"ack {key} ms", goal, [f"{run.ack_ms[key]:.1f}" for run in runs])
    for key, goal in (("p50", ""), ("p99", ""), ("max", "<= 5")):
        row(f"ack to table {key} s", goal, [f"{run.lag_seconds[key]:.1f}" for run in runs])
    row("bytes per span in the table", goals(2, "<= {}"), [f"{run.bytes_per_span:.0f}" for run in runs])
    row("bytes per span as OTLP", "", [f"{run.otlp_bytes_per_span:.0f}" for run in runs])
    mega = 1 << 20
    row("idle MiB at start", "<= 80", [f"{run.idle_bytes / mega:.0f}" for run in runs])
    row("peak MiB", "<= 512", [f"{run.peak_bytes / mega:.0f}" for run in runs])
    row("MiB after", "", [f"{run.bytes_after / mega:.0f}" for run in runs])
    row("429 answers", "", [str(run.told_to_wait) for run in runs])
    row("requests sent late", "", [str(run.late_requests) for run in runs])
    row("generator CPU-s per million", "", [f"{run.generator_cpu_per_million:.1f}" for run in runs])
    row("cores in use by others", "0", [f"{run.other_cores:.2f}" for run in runs])
    row("lost or doubled", "0", [str(sum(map(abs, run.faults.values()))) for run in runs])
    print(f"{'':30}{'goal (llm / light)':>24}" + "".join(f"{run.load + ' ' + run.loop:>15}" for run in runs))
    for title, goal, values in rows:
        print(f"{title:30}{goal:>24}" + "".join(f"{value:>15}" for value in values))
    if agents:
        otlp = agents["otlp_bytes"]
        print(f"\nreal agent traces: {otlp / 1e6:.1f} MB of OTLP in {agents['files']} files")
        for name in ("archived", "compacted"):
            if size := agents[f"{name}_bytes"]:
                print(f"  {name:10} {size / 1e6:8.2f} MB = 1/{otlp / size:.1f} (goal after compaction: 1/20)")


def main() -> None:
    """Measures, prints, writes the JSON; fails when the table is not what was acknowledged."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15, help="of each run")
    parser.add_argument("--loads", nargs="+", choices=list(GOALS), default=list(GOALS))
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--spans-per-request", type=int, help="default: 200 llm, 1000 light")
    parser.add_argument("--rate", type=float, help="spans per second of the open loop [half of the closed]")
    parser.add_argument("--closed-only", action="store_true", help="no open loop")
    parser.add_argument("--no-agents", action="store_true", help="leave out ../shared/data/otlp_derived")
    parser.add_argument("--idle", type=float, default=3, help="seconds of rest before memory is read")
    parser.add_argument("--patience", type=float, default=300, help="seconds to wait for the table")
    parser.add_argument("--folder", help="where data folders are made [the system's temporary folder]")
    parser.add_argument("--json", type=Path, default=generator.target() / "bench" / "ingest.json")
    parser.add_argument("flags", nargs="*", help="for the service, after --")
    arguments = parser.parse_args()
    binary = generator.release_binary()
    generator.generator()
    version = subprocess.run(
        [binary, "--version"], capture_output=True, text=True, env=clean_environment(), check=True
    ).stdout.strip()
    about = figures.machine() | {"binary": str(binary), "version": version}
    free = shutil.disk_usage(arguments.folder or tempfile.gettempdir()).free
    print(f"{version}, {about['cores']} x {about['cpu']}, {about['system']}, {free >> 30} GiB free", flush=True)
    runs: list[Run] = []
    for load in arguments.loads:
        runs.append(run(load, arguments, None))
        if not arguments.closed_only:
            rate = arguments.rate or runs[-1].committed_per_second / 2
            runs.append(run(load, arguments, rate))
    agents = None if arguments.no_agents else agent_traces(arguments)
    show(runs, agents)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    document = {"machine": about, "runs": [asdict(run) for run in runs], "agent_traces": agents}
    arguments.json.write_text(json.dumps(document, indent=2) + "\n")
    print(f"\nas JSON: {arguments.json}")
    if any(value for run in runs for value in run.faults.values()):
        raise SystemExit("the table is not what was acknowledged: see `faults` in the JSON")


if __name__ == "__main__":
    main()
