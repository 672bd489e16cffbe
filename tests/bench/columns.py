"""What the columns of a data file cost by setting: level, page, dictionary, encoding.

Spans of the load generator go into a table; its rows are then written anew by pyarrow, one setting changed at
a time. Printed are bytes per span, and CPU-seconds per million spans of writing beside those of the base: the
codec is the one that the service has, the code around it is another, so differences count, not sums.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from compression import KIB, MICROS, MIB, NANOS, PAYLOADS, SPAN, leaves_of
from measure import generator
from support.server import Server

SPANS = {"llm": 60_000, "light": 300_000}
IDS = (SPAN + "span_id", SPAN + "parent_span_id", "trace_id")
TOKENS = tuple(SPAN + f"{kind}_tokens" for kind in ("input", "output", "total"))
TEXTS = (
    *PAYLOADS, *IDS, SPAN + "metadata.key_value.value", SPAN + "otlp", "trace_info.request_id",
    "request_preview", "response_preview",
)  # fmt: skip
TIMES = (*NANOS, *MICROS)


@dataclass(frozen=True)
class Setting:
    """How rows are written; the defaults are those of `crates/lake/src/data_file/format.rs`."""

    codec: str = "zstd"
    level: int | None = 2
    page: int = 256 * KIB
    dictionary: tuple[str, ...] = ()
    """Columns that get one, against the rule."""
    plain: tuple[str, ...] = ()
    """Columns whose encoding is the plain one, against the rule."""


def committed(load: str, folder: Path) -> tuple[pa.Table, int]:
    """Rows of a data file as the service commits it under load, and their spans."""
    server = Server(folder / "data", quick=False)
    server.start()
    try:
        generator.send(server.url, "--load", load, "--spans", SPANS[load])
        server.flush(timeout=120)
        parts = sorted(server.table_path().rglob("part-*.parquet"), key=lambda part: part.stat().st_size)
        rows = pq.read_table(parts[-1], partitioning=None)
    finally:
        server.close()
    return rows, pc.sum(pc.list_value_length(rows["spans"])).as_py()


def write(rows: pa.Table, setting: Setting, path: Path) -> tuple[int, float]:
    """Bytes of the file, and CPU-seconds of writing it: the best of three."""
    encoding = dict.fromkeys(TEXTS, "DELTA_LENGTH_BYTE_ARRAY")
    encoding |= dict.fromkeys((*TIMES, *TOKENS), "DELTA_BINARY_PACKED")
    leaves = leaves_of(rows, path)
    encoding = {leaf: name for leaf, name in encoding.items() if leaf in leaves}
    for leaf in (*setting.dictionary, *setting.plain):
        encoding.pop(leaf)
    apart = (*encoding, *setting.plain)
    dictionary = [leaf for leaf in leaves if leaf not in apart]
    best = float("inf")
    for _ in range(3):
        begun = time.process_time()
        pq.write_table(
            rows, path, compression=setting.codec, compression_level=setting.level,
            data_page_size=setting.page, write_batch_size=64, use_dictionary=dictionary,
            column_encoding=encoding, row_group_size=16_384, write_page_index=True,
            write_statistics=["trace_id"], max_rows_per_page=1 << 30,
        )  # fmt: skip
        best = min(best, time.process_time() - begun)
    return path.stat().st_size, best


def measure(load: str, folder: Path) -> None:
    """All settings over the rows of one load."""
    rows, spans = committed(load, folder)
    print(f"\n{load}: {rows.num_rows:,} traces, {spans:,} spans\n")
    print("| setting | bytes per span | of the base | CPU-s per million spans, beside the base |")
    print("|---|---|---|---|")
    path = folder / "out.parquet"
    base = Setting()
    base_bytes, base_cpu = write(rows, base, path)
    settings = {"base": base}
    settings |= {f"zstd {level}": replace(base, level=level) for level in (1, 3, 6)}
    settings["lz4"] = replace(base, codec="lz4", level=None)
    settings |= {f"pages of {page // KIB} KiB": replace(base, page=page) for page in (64 * KIB, MIB)}
    settings["dictionary on payloads"] = replace(base, dictionary=PAYLOADS)
    settings["dictionary on ids"] = replace(base, dictionary=IDS)
    settings["dictionary on times"] = replace(base, dictionary=TIMES)
    settings["times plain"] = replace(base, plain=TIMES)
    settings["payloads and ids plain"] = replace(base, plain=(*PAYLOADS, *IDS))
    for name, setting in settings.items():
        size, cpu = write(rows, setting, path)
        print(
            f"| {name} | {size / spans:.1f} | {100 * (size / base_bytes - 1):+.1f} %"
            f" | {(cpu - base_cpu) * 1e6 / spans:+.1f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loads", nargs="+", choices=SPANS, default=list(SPANS))
    arguments = parser.parse_args()
    generator.release_binary()
    for load in arguments.loads:
        with tempfile.TemporaryDirectory(prefix="bench-columns-") as folder:
            measure(load, Path(folder))


if __name__ == "__main__":
    main()
