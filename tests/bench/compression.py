"""How small the rows of agent traces get as Parquet, by order of rows, page, row group, level, encoding.

Imports OTLP files into a table of their own, then writes its rows anew under each setting and prints size,
the CPU that writing takes, and what one trace costs to read: the pages that hold its payloads. Without files
it makes conversations that repeat their history in each call, as agents do.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

KIB, MIB = 1 << 10, 1 << 20
SPAN = "spans.list.element."
PAYLOADS = (SPAN + "inputs", SPAN + "outputs")
PLAIN = {*PAYLOADS, SPAN + "metadata.key_value.value", SPAN + "span_id", SPAN + "otlp", "trace_id"}
NANOS = (SPAN + "start_time_unix_nano", SPAN + "end_time_unix_nano")
MICROS = (SPAN + "start_time", SPAN + "end_time")
WORDS = "agent asks tool weather city answer plan step error retry user system file line code test run".split()


# --- OTLP -----------------------------------------------------------------------------------------


def varint(number: int) -> bytes:
    """A number as protobuf writes it."""
    out = bytearray()
    while 0x80 <= number:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def message(number: int, value: bytes) -> bytes:
    """A field of bytes."""
    return varint(number << 3 | 2) + varint(len(value)) + value


def attribute(key: str, value: str) -> bytes:
    """A text attribute of a span."""
    return message(9, message(1, key.encode()) + message(2, message(1, value.encode())))


def words(rng: random.Random, count: int) -> str:
    """Text that does not repeat itself much."""
    return " ".join(f"{rng.choice(WORDS)}{rng.randrange(1000)}" for _ in range(count))


def conversation(rng: random.Random, number: int, system: str) -> bytes:
    """One request with one trace: each call of the model carries the whole history."""
    trace_id, root = rng.randbytes(16), rng.randbytes(8)
    begin = 1_790_000_000_000_000_000 + number * 1_000_000_000
    history = [{"role": "system", "content": system}]
    spans = []
    for turn in range(rng.randrange(4, 24)):
        history.append({"role": "user", "content": words(rng, rng.randrange(5, 80))})
        answer = {"role": "assistant", "content": words(rng, rng.randrange(10, 120))}
        start = begin + turn * 2_000_000_000
        spans.append(message(2, b"".join([
            message(1, trace_id), message(2, root if turn == 0 else rng.randbytes(8)),
            b"" if turn == 0 else message(4, root), message(5, b"chat"),
            b"\x39" + start.to_bytes(8, "little"),
            b"\x41" + (start + rng.randrange(2_000_000_000)).to_bytes(8, "little"),
            attribute("mlflow.spanType", '"CHAT_MODEL"'),
            attribute("session.id", f"session-{number // 4}"),
            attribute("mlflow.spanInputs", json.dumps({"messages": history})),
            attribute("mlflow.spanOutputs", json.dumps(answer)),
        ])))  # fmt: skip
        history.append(answer)
    service = message(1, message(1, b"service.name") + message(2, message(1, b"bench")))
    return message(1, message(1, service) + message(2, b"".join(spans)))


def make_files(folder: Path, traces: int, seed: int) -> Path:
    """A file of conversations, of three agents."""
    rng = random.Random(seed)
    systems = [words(rng, 600) for _ in range(3)]
    folder.mkdir()
    with (folder / "made.pb").open("wb") as file:
        for number in range(traces):
            request = conversation(rng, number, rng.choice(systems))
            file.write(varint(len(request)) + request)
    return folder


def rows_of(binary: str, files: Path) -> tuple[pa.Table, int]:
    """The rows that an archive makes of the files, and the bytes of OTLP."""
    with tempfile.TemporaryDirectory(prefix="tracelake-bench-") as data:
        command = [binary, "--data-dir", data, "import", str(files), "--quiet", "--format", "json"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        parts = sorted(Path(data, "tables").rglob("part-*.parquet"))
        rows = pa.concat_tables([pq.read_table(part) for part in parts])
    return rows, sum(path.stat().st_size for path in files.rglob("*.pb"))


# --- what is measured -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """How rows are written."""

    level: int = 6
    page: int = 4 * MIB
    group_rows: int = 16_384
    order: tuple[str, ...] = ()
    dictionary: frozenset[str] = frozenset()
    encoding: dict[str, str] = field(default_factory=dict)


def ordered(rows: pa.Table, keys: tuple[str, ...]) -> pa.Table:
    """The rows by these columns."""
    if not keys:
        return rows
    begun = pc.struct_field(rows["trace_info"], "timestamp")
    columns = {key: begun if key == "timestamp" else rows[key] for key in keys}
    return rows.take(pc.sort_indices(pa.table(columns), sort_keys=[(key, "ascending") for key in keys]))


def write(rows: pa.Table, setting: Setting, path: Path) -> float:
    """Writes the rows; the CPU-seconds that it took."""
    dictionary = [
        leaf for leaf in leaves_of(rows, path)
        if (leaf not in PLAIN or leaf in setting.dictionary) and leaf not in setting.encoding
    ]  # fmt: skip
    begun = time.process_time()
    pq.write_table(
        rows, path, compression="zstd", compression_level=setting.level, data_page_size=setting.page,
        write_batch_size=16, use_dictionary=dictionary, column_encoding=setting.encoding or None,
        row_group_size=setting.group_rows, write_page_index=True, max_rows_per_page=1 << 30,
    )  # fmt: skip
    return time.process_time() - begun


def leaves_of(rows: pa.Table, path: Path) -> list[str]:
    """The leaf columns, dotted as Parquet has them."""
    pq.write_table(rows.slice(0, 0), path)
    schema = pq.ParquetFile(path).schema
    return [schema.column(index).path for index in range(len(schema))]


def sizes(path: Path) -> dict[str, tuple[int, int]]:
    """Compressed and plain bytes by leaf column."""
    found: dict[str, tuple[int, int]] = {}
    metadata = pq.ParquetFile(path).metadata
    for group in range(metadata.num_row_groups):
        for index in range(metadata.num_columns):
            column = metadata.row_group(group).column(index)
            small, plain = found.get(column.path_in_schema, (0, 0))
            found[column.path_in_schema] = (
                small + column.total_compressed_size, plain + column.total_uncompressed_size,
            )  # fmt: skip
    return found


def read_cpu(path: Path) -> float:
    """CPU-seconds to read all inputs and outputs, for each 4 MiB of them in memory; best of 3."""
    plain = sum(sizes(path)[leaf][1] for leaf in PAYLOADS)
    best = float("inf")
    for _ in range(3):
        begun = time.process_time()
        pq.ParquetFile(path).read(columns=list(PAYLOADS), use_threads=False)
        best = min(best, time.process_time() - begun)
    return best / max(plain / (4 * MIB), 1e-9)


def line(name: str, rows: pa.Table, otlp: int, setting: Setting, path: Path) -> None:
    """One row of the table."""
    cpu = write(ordered(rows, setting.order), setting, path)
    by_leaf, size = sizes(path), path.stat().st_size
    payloads = [by_leaf[leaf][0] for leaf in PAYLOADS]
    others = size - sum(payloads)
    print(f"| {name} | {size:,} | {otlp / size:.1f} | {payloads[0]:,} | {payloads[1]:,} | {others:,} |"
          f" {cpu / (otlp / 1e9):.0f} | {1e3 * read_cpu(path):.1f} |", flush=True)  # fmt: skip


def measure(title: str, rows: pa.Table, otlp: int, folder: Path) -> None:
    """All settings over one set of rows."""
    spans = pc.sum(pc.list_value_length(rows["spans"])).as_py()
    print(f"\n## {title}: {rows.num_rows:,} traces, {spans:,} spans, {otlp / 1e6:.1f} MB of OTLP\n")
    print("| setting | bytes | OTLP / bytes | inputs | outputs | the rest | CPU-s per GB of OTLP | ms per 4 MiB read |")
    print("|---|---|---|---|---|---|---|---|")
    path = folder / "out.parquet"
    base = Setting()
    session = ("experiment_id", "session_id", "timestamp")

    def show(name: str, **changes: Any) -> None:
        line(name, rows, otlp, replace(base, **changes), path)

    for level in (1, 3, 6, 9, 12, 15, 19):
        show(f"level {level}, page 4 MiB, as archived", level=level)
    for page in (256 * KIB, MIB, 2 * MIB, 8 * MIB, 16 * MIB):
        show(f"level 9, page {page // KIB:,} KiB, as archived", level=9, page=page)
    for keys in (("trace_id",), ("timestamp",), session, ("trace_name", *session)):
        show(f"level 9, page 4 MiB, by {', '.join(keys)}", level=9, order=keys)
    for group in (1_000, 4_096):
        show(f"level 9, page 4 MiB, row groups of {group:,}", level=9, group_rows=group)
    show("level 9, dictionary on payloads too", level=9, dictionary=frozenset(PAYLOADS))
    for name in ("DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"):
        show(f"level 9, payloads {name}", level=9, encoding=dict.fromkeys(PAYLOADS, name))
    times = dict.fromkeys((*NANOS, *MICROS), "DELTA_BINARY_PACKED")
    show("level 9, times DELTA_BINARY_PACKED", level=9, encoding=times)
    times = dict.fromkeys((*NANOS, *MICROS), "BYTE_STREAM_SPLIT")
    show("level 9, times BYTE_STREAM_SPLIT", level=9, encoding=times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, help="folders of OTLP files")
    parser.add_argument("--traces", type=int, default=1_500, help="conversations that are made")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    binary = os.environ.get("TRACELAKE_BIN", "tracelake")
    with tempfile.TemporaryDirectory(prefix="tracelake-bench-") as text:
        folder = Path(text)
        for files in arguments.files:
            measure(files.name, *rows_of(binary, files), folder)
        if not arguments.files:
            made = make_files(folder / "otlp", arguments.traces, arguments.seed)
            measure("made conversations", *rows_of(binary, made), folder)


if __name__ == "__main__":
    main()
