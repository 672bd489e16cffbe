"""One trace that grows without an end: memory, freshness of other traces, bytes written, and readers.

Two traces arrive in pieces, each on a service of its own: one of a million small spans, one of 4 GiB in spans of
one MiB that do not compress. Beside each, a small trace is sent every second, and it is looked when it is in the
Delta table. At the end everything is flushed; `tracelake show`, `tracelake.get_trace` and MLflow's `traces/get` ask
for the trace, and `tracelake verify` compares. Memory is the highest resident size of the service; bytes written are
those of its process, as the kernel counts them, against the bytes of the requests.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

import requests
from deltalake import DeltaTable
from measure import generator
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support import generate, otlp
from support.server import Server
from support.table import query

MEMORY_BYTES = 512 << 20
FRESH_SECONDS = 5
WRITTEN_FACTOR = 3


def status(pid: int, key: str) -> int:
    """A number of /proc/PID/status, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key + ":")) << 10


def written(pid: int) -> int:
    """Bytes that the process gave to files."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes:"))


class Others(threading.Thread):
    """Sends a small trace every second and looks when it is in the table."""

    def __init__(self, server: Server):
        super().__init__(daemon=True)
        self.server = server
        self.ending = threading.Event()
        self.latencies: list[float] = []
        self.refused = 0
        self.lost = 0

    def run(self) -> None:
        """Until it is told to end."""
        make = generate.Maker(5)
        waiting: dict[str, float] = {}
        sent = 0.0
        while not self.ending.is_set() or waiting:
            now = time.monotonic()
            if 1 <= now - sent and not self.ending.is_set():
                sent = now
                span = make.span(make.trace_id(), "beside")
                try:
                    otlp.post(self.server.url, generate.request(span))
                    waiting["tr-" + span.trace_id.hex()] = time.monotonic()
                except AssertionError:
                    self.refused += 1
            if waiting and self.server.table_path().is_dir():
                rows = query(self.server.table_path(), "select trace_id from t where part is null")
                for trace in {row["trace_id"] for row in rows} & waiting.keys():
                    self.latencies.append(time.monotonic() - waiting.pop(trace))
            late = [trace for trace, since in waiting.items() if 120 < time.monotonic() - since]
            self.lost += len(late)
            for trace in late:
                del waiting[trace]
            time.sleep(0.1)


def pieces(kind: str, spans: int, trace_id: bytes, make: generate.Maker):
    """Requests with the spans of one trace: the root first, and it ends last."""
    rng = random.Random(kind)
    per_request = 5_000 if kind == "many" else 16
    for first in range(0, spans, per_request):
        request = ExportTraceServiceRequest()
        group = request.resource_spans.add()
        group.resource.attributes.extend(generate.attributes({"service.name": "endless"}))
        out = group.scope_spans.add().spans
        for number in range(first, min(spans, first + per_request)):
            span = out.add()
            span.trace_id = trace_id
            span.span_id = (number + 1).to_bytes(8, "big")
            if number:
                span.parent_span_id = (1).to_bytes(8, "big")
            span.name = f"step {number % 50}"
            span.start_time_unix_nano = 1_800_000_000_000_000_000 + number * 1_000
            span.end_time_unix_nano = span.start_time_unix_nano + 500
            if kind == "bytes":
                text = rng.randbytes(512 << 10).hex()
                span.attributes.extend(generate.attributes({"mlflow.spanInputs": json.dumps(text)}))
            else:
                span.attributes.extend(generate.attributes({"step": number, "note": make.text(40)}))
        yield request.SerializeToString()


def run(kind: str, spans: int, folder: str) -> dict:
    """Sends one trace and asks for it."""
    server = Server(Path(folder) / kind, quick=False)
    server.start()
    make = generate.Maker(11)
    trace_id = make.trace_id()
    name = "tr-" + trace_id.hex()
    pid = server.process.pid
    others = Others(server)
    others.start()
    sent, refused, session, begun = 0, 0, requests.Session(), time.monotonic()
    try:
        for body in pieces(kind, spans, trace_id, make):
            while True:
                answer = session.post(
                    f"{server.url}/v1/traces", data=body,
                    headers={"Content-Type": "application/x-protobuf"}, timeout=120,
                )  # fmt: skip
                if answer.status_code != 429:
                    break
                refused += 1
                time.sleep(float(answer.headers.get("Retry-After", 1)))
            if answer.status_code != 200:
                raise SystemExit(f"{answer.status_code}: {answer.text[:300]}")
            sent += len(body)
        took = time.monotonic() - begun
        server.flush(timeout=600)
        others.ending.set()
        others.join()
        peak, bytes_written = status(pid, "VmHWM"), written(pid)
        Path(f"/proc/{pid}/clear_refs").write_text("5")
        counted = server.cli.json("traces", "--format", "json")
        row = next(line for line in counted if line["trace_id"] == name)
        shown = server.cli.ok("show", name, timeout=600)
        got = session.get(f"{server.url}/api/3.0/mlflow/traces/get", params={"trace_id": name}, timeout=600)
        got.raise_for_status()
        script = f"import tracelake; t = tracelake.get_trace({name!r}, uri={server.url!r}); print(len(t))"
        python = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600)
        readers = status(pid, "VmHWM")
        verified = server.cli.run("verify", "tracelake.default.traces", timeout=1800)
        latencies = sorted(others.latencies)
        return {
            "kind": kind,
            "spans": spans,
            "spans_in_table": row["span_count"],
            "mib_sent": sent >> 20,
            "seconds": round(took, 1),
            "answers_429": refused,
            "peak_mib": peak >> 20,
            "peak_mib_while_read": readers >> 20,
            "written_factor": round(bytes_written / sent, 2),
            "others": len(latencies),
            "others_refused": others.refused,
            "others_lost": others.lost,
            "others_max_seconds": round(max(latencies, default=0), 1),
            "show_bytes": len(shown),
            "get_bytes": len(got.content),
            "get_trace": python.stdout.strip() or python.stderr.strip()[-200:],
            "verify": "ok" if verified.returncode == 0 else verified.stdout[-500:],
        }
    finally:
        server.kill()
        server.close()


def faults(figures: dict) -> list[str]:
    """What is not as promised."""
    found = []
    if figures["spans_in_table"] != figures["spans"]:
        found.append("spans are missing or doubled")
    if MEMORY_BYTES >> 20 < max(figures["peak_mib"], figures["peak_mib_while_read"]):
        found.append("memory")
    if WRITTEN_FACTOR < figures["written_factor"]:
        found.append("bytes written")
    if FRESH_SECONDS < figures["others_max_seconds"] or figures["others_lost"]:
        found.append("freshness of other traces")
    if figures["get_trace"] != "1":
        found.append("get_trace")
    if figures["verify"] != "ok":
        found.append("verify")
    return found


def main() -> None:
    """Both traces; fails when a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spans", type=int, default=1_000_000, help="of the trace of small spans")
    parser.add_argument("--mebibytes", type=int, default=4096, help="of the trace of large spans")
    parser.add_argument("--folder", help="where the data folders are made [the system's temporary folder]")
    parser.add_argument("--json", type=Path, default=generator.target() / "bench" / "large_trace.json")
    arguments = parser.parse_args()
    generator.release_binary()
    results, broken = [], []
    with tempfile.TemporaryDirectory(prefix="bench-large-trace-", dir=arguments.folder) as folder:
        for kind, spans in (("many", arguments.spans), ("bytes", arguments.mebibytes)):
            if spans == 0:
                continue
            figures = run(kind, spans, folder)
            results.append(figures)
            print(json.dumps(figures, indent=1), flush=True)
            broken.extend(f"{kind}: {fault}" for fault in faults(figures))
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(results, indent=1))
    if broken:
        raise SystemExit("broken: " + ", ".join(broken))


if __name__ == "__main__":
    main()
