"""tracelake beside other receivers of OTLP, under the same generator in the same minutes.

`mlflow server` and Phoenix store spans in SQLite, each with its defaults. rotel with its blackhole exporter
receives and decodes and stores nothing: the floor. Runs of tracelake and rotel alternate, so that a
machine that others use in between is unkind to both. Each peer gets the size of request that it can bear;
the CPU time is that of all its processes until what it acknowledged is stored.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import ingest
from measure import figures, generator
from support.server import clean_environment

ROTEL_GOAL = 2.1
"""tracelake takes at most this many times the CPU of rotel."""


@dataclass(frozen=True)
class Result:
    """One load on one receiver."""

    name: str
    load: str
    spans: int
    cpu_per_million: float
    acked_per_second: float
    stored_per_second: float | None
    ack_p50_ms: float
    ack_p99_ms: float
    bytes_per_span: float | None
    peak_bytes: int
    other_cores: float


@dataclass(frozen=True)
class Peer:
    """Another receiver: how it starts, where it stores, what it can bear."""

    name: str
    command: list[str]
    url: str
    environment: dict[str, str]
    options: tuple[str, ...] = ()
    database: str | None = None
    count: str = ""
    """Query for the number of spans in its database."""
    spans: int | None = None
    """Sent instead of what the time allows: it acknowledges what waits in its memory."""


def free_port() -> int:
    """A port of the loopback that nobody has."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def rotel(folder: Path, environment: Path) -> Peer:
    """Receives, decodes, drops."""
    http, grpc = free_port(), free_port()
    (program,) = environment.glob("lib/python*/site-packages/rotel/rotel-agent")
    command = [
        str(program), "start", "--exporter", "blackhole",
        "--otlp-http-endpoint", f"127.0.0.1:{http}", "--otlp-grpc-endpoint", f"127.0.0.1:{grpc}",
        "--pid-file", str(folder / "pid"), "--log-file", str(folder / "log"),
    ]  # fmt: skip
    program.chmod(0o755)
    return Peer("rotel", command, f"http://127.0.0.1:{http}", {})


def mlflow(folder: Path, _environment: Path) -> Peer:
    """The tracking server with its workers, on SQLite."""
    port = free_port()
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
        "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    return Peer(
        "mlflow", command, f"http://127.0.0.1:{port}", {},
        ("--header", "x-mlflow-experiment-id: 0", "--spans-per-request", "50", "--connections", "4"),
        "mlflow.db", "select count(*) from spans",
    )  # fmt: skip


def phoenix(folder: Path, environment: Path) -> Peer:
    """Phoenix on SQLite."""
    port, grpc = free_port(), free_port()
    settings = {
        "PHOENIX_WORKING_DIR": str(folder), "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port), "PHOENIX_GRPC_PORT": str(grpc), "PHOENIX_TELEMETRY_ENABLED": "false",
    }  # fmt: skip
    command = [str(environment / "bin" / "phoenix"), "serve"]
    options = ("--spans-per-request", "50", "--connections", "2")
    return Peer(
        "phoenix", command, f"http://127.0.0.1:{port}", settings, options,
        "phoenix.db", "select count(*) from spans", spans=2000,
    )  # fmt: skip


PEERS = {"rotel": rotel, "mlflow": mlflow, "phoenix": phoenix}


def wait_until_open(url: str, process: subprocess.Popen, log: Path, patience: float = 300) -> None:
    """Until somebody listens."""
    host, port = url.removeprefix("http://").split(":")
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        with closing(socket.socket()) as probe:
            if probe.connect_ex((host, int(port))) == 0:
                return
        time.sleep(0.2)
    raise SystemExit(f"{url} does not open\n{log.read_text(errors='replace')[-2000:]}")


def stored(peer: Peer, folder: Path) -> int:
    """Spans in the peer's database."""
    with closing(sqlite3.connect(f"file:{folder / peer.database}?mode=ro", uri=True, timeout=30)) as database:
        return database.execute(peer.count).fetchone()[0]


def wait_until_stored(peer: Peer, folder: Path, spans: int, patience: float) -> int:
    """Until the peer holds as many spans, or patience is out; gives what it holds."""
    end = time.monotonic() + patience
    while (held := stored(peer, folder)) < spans and time.monotonic() < end:
        time.sleep(0.2)
    return held


def wait_until_quiet(pid: int, patience: float = 180) -> None:
    """Until a peer and its workers have rested for two seconds."""
    end, before = time.monotonic() + patience, figures.family_cpu_seconds(pid)
    while time.monotonic() < end:
        time.sleep(2)
        after = figures.family_cpu_seconds(pid)
        if after - before < 0.2:
            return
        before = after
    print("a peer does not come to rest: its CPU time is too high", file=sys.stderr)


def database_bytes(peer: Peer, folder: Path) -> int:
    """Bytes of the peer's database with its log, once what is in it is on disk."""
    return sum(file.stat().st_size for file in folder.glob(f"{peer.database}*")) if peer.database else 0


def run_peer(name: str, load: str, arguments: argparse.Namespace) -> Result:
    """One load on a fresh peer."""
    with tempfile.TemporaryDirectory(prefix=f"bench-{name}-", dir=arguments.folder) as made:
        folder = Path(made)
        peer = PEERS[name](folder, arguments.peers)
        log = folder / "output.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                peer.command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=folder,
                env=clean_environment(**peer.environment), start_new_session=True,
            )  # fmt: skip
        try:
            wait_until_open(peer.url, process, log)
            return measure_peer(peer, load, process.pid, folder, arguments)
        finally:
            # The session is the peer's own: its workers end with it.
            try:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(timeout=10)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                pass
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()


def measure_peer(peer: Peer, load: str, pid: int, folder: Path, arguments: argparse.Namespace) -> Result:
    """Sends, waits until it is stored, counts."""
    warm = 0
    if peer.database:
        # What starts late, such as the imports of workers, is not part of the price.
        wait_until_quiet(pid)
        warm = generator.send(peer.url, "--load", load, *peer.options, "--spans", 400)["spans_acked"]
        wait_until_stored(peer, folder, warm, arguments.patience)
        wait_until_quiet(pid)
    before = figures.family_cpu_seconds(pid)
    empty = database_bytes(peer, folder)
    others = figures.Others.begin()
    begun = time.monotonic()
    until = ("--spans", peer.spans) if peer.spans else ("--seconds", arguments.seconds)
    report = generator.send(peer.url, "--load", load, *until, *peer.options)
    spans, size, speed = report["spans_acked"], None, None
    if peer.database:
        held = wait_until_stored(peer, folder, warm + spans, arguments.patience) - warm
        if held < spans:
            print(f"{peer.name} holds {held} of {spans} acknowledged spans", file=sys.stderr)
        size = (database_bytes(peer, folder) - empty) / held
        spans, speed = held, held / (time.monotonic() - begun)
    cpu = figures.family_cpu_seconds(pid) - before
    return Result(
        peer.name, load, spans, cpu * 1e6 / spans, report["spans_per_second"], speed,
        report["latency_ms"]["p50"], report["latency_ms"]["p99"], size,
        figures.family_memory_bytes(pid), others.cores(cpu + report["generator_cpu_seconds"]),
    )  # fmt: skip


def run_tracelake(load: str, arguments: argparse.Namespace) -> Result:
    """One load on a fresh tracelake."""
    run = ingest.run(load, arguments, None)
    if any(run.faults.values()):
        raise SystemExit(f"the table is not what was acknowledged: {run.faults}")
    return Result(
        "tracelake", load, run.spans, run.cpu_per_million, run.acked_per_second,
        run.committed_per_second, run.ack_ms["p50"], run.ack_ms["p99"], run.bytes_per_span, run.peak_bytes, run.other_cores,
    )  # fmt: skip


def show(results: list[Result]) -> dict[str, float]:
    """The table of ratios; gives tracelake's CPU beside rotel's, per load."""
    print(
        f"{'':8}{'':11}{'CPU-s/M':>10}{'ratio':>8}{'acked/s':>11}{'stored/s':>11}{'ratio':>8}{'p50 ms':>9}{'p99 ms':>9}"
        f"{'B/span':>8}{'peak MiB':>10}{'others':>8}"
    )
    ratios = {}
    for load in dict.fromkeys(result.load for result in results):
        ours = [result for result in results if (result.load, result.name) == (load, "tracelake")]
        cpu = statistics.mean(result.cpu_per_million for result in ours)
        speed = statistics.mean(result.stored_per_second or 0 for result in ours)
        for result in (result for result in results if result.load == load):
            size = "" if result.bytes_per_span is None else f"{result.bytes_per_span:.0f}"
            kept = "" if result.stored_per_second is None else f"{result.stored_per_second:,.0f}"
            share = "" if result.stored_per_second is None else f"{result.stored_per_second / speed:.3f}"
            print(
                f"{load:8}{result.name:11}{result.cpu_per_million:10.1f}{result.cpu_per_million / cpu:8.2f}"
                f"{result.acked_per_second:11,.0f}{kept:>11}{share:>8}"
                f"{result.ack_p50_ms:9.1f}{result.ack_p99_ms:9.1f}{size:>8}"
                f"{result.peak_bytes / (1 << 20):10.0f}{result.other_cores:8.2f}"
            )
        floor = [result.cpu_per_million for result in results if (result.load, result.name) == (load, "rotel")]
        if floor:
            ratios[load] = cpu / statistics.mean(floor)
            print(f"{load:8}tracelake takes {ratios[load]:.2f} times the CPU of rotel (goal: {ROTEL_GOAL})")
    print("ratio: to the mean of tracelake's runs; others: cores in use by processes that have no part in it")
    return ratios


def main() -> None:
    """Runs all in turn, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, required=True, help="Python environment with the peers")
    parser.add_argument("--seconds", type=float, default=10, help="of each run")
    parser.add_argument("--loads", nargs="+", choices=list(ingest.GOALS), default=list(ingest.GOALS))
    parser.add_argument(
        "--order", nargs="+", choices=["tracelake", *PEERS],
        default=["tracelake", "rotel", "mlflow", "tracelake", "rotel", "phoenix"],
    )  # fmt: skip
    parser.add_argument("--patience", type=float, default=300, help="seconds to wait until all is stored")
    parser.add_argument("--folder", help="where data folders are made [the system's temporary folder]")
    parser.add_argument("--json", type=Path, default=generator.target() / "bench" / "peers.json")
    parser.add_argument("flags", nargs="*", help="for tracelake, after --")
    arguments = parser.parse_args()
    if "tracelake" not in arguments.order:
        parser.error("--order must name tracelake: the ratios are to it")
    arguments.connections, arguments.spans_per_request, arguments.idle = 8, None, 1
    generator.release_binary()
    results = []
    for load in arguments.loads:
        for name in arguments.order:
            print(f"{load}: {name} ...", file=sys.stderr, flush=True)
            ours = name == "tracelake"
            results.append(run_tracelake(load, arguments) if ours else run_peer(name, load, arguments))
    ratios = show(results)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    document = {"machine": figures.machine(), "results": [asdict(result) for result in results], "to_rotel": ratios}
    arguments.json.write_text(json.dumps(document, indent=2) + "\n")
    print(f"as JSON: {arguments.json}")


if __name__ == "__main__":
    main()
