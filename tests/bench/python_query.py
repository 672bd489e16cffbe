"""How fast archived traces come into Python, and what that takes of memory.

Makes a table of traces with texts of some hundred bytes in each span, then asks for all of them without
payloads: `tracelake.query_archived_traces(payloads=False)`. Each consumer of the rows runs in a process
of its own, whose peak is set beside that of the query alone: what it takes beyond are its own copies.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tracelake

TABLE = "tracelake.default.traces"
MIB = 1 << 20
WORDS = [word.encode() for word in "the agent asks a tool for the weather in a city and gets an answer".split()]


# --- the table ----------------------------------------------------------------------------------


def varint(number: int) -> bytes:
    """A number as protobuf writes it."""
    out = bytearray()
    while 0x80 <= number:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number: int, value: bytes) -> bytes:
    """A field of bytes."""
    return varint(number << 3 | 2) + varint(len(value)) + value


def attribute(key: str, value: bytes) -> bytes:
    """A text attribute of a span."""
    return field(9, field(1, key.encode()) + field(2, field(1, value)))


def trace(rng: random.Random, number: int, spans: int, text_bytes: int) -> bytes:
    """One request with one trace."""
    trace_id, root = rng.randbytes(16), rng.randbytes(8)
    begin = 1_790_000_000_000_000_000 + number * 1_000_000
    written = []
    for index in range(spans):
        span_id = root if index == 0 else rng.randbytes(8)
        text = b" ".join(rng.choices(WORDS, k=text_bytes // 5))
        start = begin + index * 10_000
        written.append(field(2, b"".join([
            field(1, trace_id), field(2, span_id),
            b"" if index == 0 else field(4, root),
            field(5, b"agent" if index == 0 else b"chat %d" % (index % 3)),
            b"\x39" + start.to_bytes(8, "little"),
            b"\x41" + (start + rng.randrange(1_000_000_000)).to_bytes(8, "little"),
            attribute("mlflow.spanType", b'"LLM"'),
            attribute("mlflow.spanInputs", json.dumps(text.decode()).encode()),
            attribute("mlflow.spanOutputs", json.dumps(text[::-1].decode()).encode()),
            field(15, b"\x18\x02" if rng.random() < 0.01 else b""),
        ])))  # fmt: skip
    service = field(1, field(1, b"service.name") + field(2, field(1, b"bench")))
    return field(1, field(1, service) + field(2, b"".join(written)))


def make_table(folder: Path, arguments: argparse.Namespace) -> None:
    """Files of OTLP, imported."""
    rng = random.Random(arguments.seed)
    files = folder / "otlp"
    files.mkdir()
    made = 0
    for part in range(8):
        with (files / f"{part}.pb").open("wb") as file:
            for number in range(part, arguments.traces, 8):
                request = trace(rng, number, arguments.spans, arguments.text_bytes)
                made += len(request)
                file.write(varint(len(request)) + request)
    begun = time.monotonic()
    report = tracelake.import_traces(files, uri=folder / "data", progress=False)
    assert report.spans == arguments.traces * arguments.spans, report
    for file in files.iterdir():
        file.unlink()
    seconds = time.monotonic() - begun
    print(f"table: {report.spans:,} spans, {made / MIB:,.0f} MiB of OTLP, imported in {seconds:.1f} s")


# --- what is measured ---------------------------------------------------------------------------


def rss_mib() -> float:
    """Memory that the process has at present."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / MIB


def peak_mib() -> float:
    """The most that it ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def consume(consumer: str, result: tracelake.QueryResult) -> int:
    """Hands the rows over; returns how many spans the consumer sees."""
    if consumer == "pyarrow":
        import pyarrow

        return sum(len(chunk.flatten()) for chunk in pyarrow.table(result)["spans"].chunks)
    if consumer == "polars":
        return int(result.to_polars()["spans"].list.len().sum())
    if consumer == "duckdb":
        import duckdb

        (row,) = duckdb.sql("select sum(len(spans)) from result").fetchall()
        return int(row[0])
    if consumer == "pandas":
        return sum(map(len, result.to_pandas()["spans"]))
    return -1


def child(arguments: argparse.Namespace) -> None:
    """One query and one consumer, in this process."""
    if arguments.consumer in ("pyarrow", "polars", "duckdb", "pandas"):
        __import__(arguments.consumer)
    tracelake.sql("SELECT 1", uri=arguments.data)
    before = rss_mib()
    times = []
    for _ in range(arguments.rounds):
        begun, cpu = time.monotonic(), time.process_time()
        result = tracelake.query_archived_traces(trace_table=TABLE, payloads=False, uri=arguments.data)
        times.append((time.monotonic() - begun, time.process_time() - cpu))
        if arguments.rounds != 1:
            del result
            result = None
    held = rss_mib()
    seen = consume(arguments.consumer, result) if result is not None else -1
    print(json.dumps({
        "wall": min(wall for wall, _ in times), "cpu": min(cpu for _, cpu in times),
        "before": before, "held": held, "after": rss_mib(), "peak": peak_mib(), "spans": seen,
    }))  # fmt: skip


def measure(data: Path, consumer: str, rounds: int) -> dict[str, float]:
    """A child's answer."""
    command = [sys.executable, __file__, "--data", str(data), "--consumer", consumer, "--rounds", str(rounds)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ})
    return json.loads(answer.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--traces", type=int, default=100_000)
    parser.add_argument("--spans", type=int, default=10, help="of each trace")
    parser.add_argument("--text-bytes", type=int, default=400, help="of inputs, and of outputs, of each span")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--consumer", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.consumer:
        child(arguments)
        return
    spans = arguments.traces * arguments.spans
    with tempfile.TemporaryDirectory(prefix="tracelake-bench-") as text:
        folder = Path(text)
        make_table(folder, arguments)
        data = folder / "data"
        best = measure(data, "none", arguments.rounds)
        print(f"query_archived_traces(payloads=False), {spans:,} spans: best of {arguments.rounds}:"
              f" {best['wall']:.2f} s wall, {best['cpu']:.2f} CPU-s")  # fmt: skip
        alone = measure(data, "none", 1)
        size = alone["held"] - alone["before"]
        print(f"rows held: {size:,.0f} MiB; peak of the process {alone['peak']:,.0f} MiB")
        print(f"{'consumer':<10} {'peak MiB':>9} {'beyond the rows held, MiB':>26}")
        for consumer in ("pyarrow", "duckdb", "polars", "pandas"):
            told = measure(data, consumer, 1)
            assert told["spans"] == spans, (consumer, told)
            print(f"{consumer:<10} {told['peak']:>9,.0f} {told['after'] - told['held']:>26,.0f}")


if __name__ == "__main__":
    main()
