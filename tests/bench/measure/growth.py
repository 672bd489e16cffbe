"""A Delta table as it grows, seen in its log: what is in it, and since when."""

from __future__ import annotations

import csv
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable, QueryBuilder


@dataclass
class Growth:
    """Follows the log's JSON commits. Reads each once, so it may be asked often."""

    path: Path
    next_version: int = 0
    live: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    arrived: list[tuple[str, int]] = field(default_factory=list)
    """Data files that brought rows, with the time in nanoseconds when their version was there."""
    remember: bool = False
    """Whether trace ids are read when a file appears: maintenance may delete it before the end."""
    ids: dict[str, np.ndarray] = field(default_factory=dict)

    def rows(self) -> int:
        """Rows of the newest version, by the statistics of the log."""
        while self.read_version():
            pass
        return sum(self.live.values())

    def live_bytes(self) -> int:
        """Bytes of the data files of the version that was read last."""
        return sum(self.sizes.values())

    def read_version(self) -> bool:
        """Takes in the next version if it is there."""
        commit = self.path / "_delta_log" / f"{self.next_version:020}.json"
        try:
            lines = commit.read_text().splitlines()
        except FileNotFoundError:
            return False
        # A version appears when it gets its name, which is the last change of its inode.
        seen = commit.stat().st_ctime_ns
        for line in lines:
            action = json.loads(line)
            if removed := action.get("remove"):
                self.live.pop(file_key(removed), None)
                self.sizes.pop(file_key(removed), None)
            if added := action.get("add"):
                deleted = (added.get("deletionVector") or {}).get("cardinality", 0)
                self.live[file_key(added)] = json.loads(added["stats"])["numRecords"] - deleted
                self.sizes[file_key(added)] = added["size"]
                if added["dataChange"]:
                    self.arrived.append((unquote(added["path"]), seen))
                    if self.remember:
                        self.ids[unquote(added["path"])] = self.trace_ids(unquote(added["path"]))
        self.next_version += 1
        return True

    def trace_ids(self, path: str) -> np.ndarray:
        """Of the rows of a data file."""
        known = self.ids.get(path)
        if known is not None:
            return known
        return bare_ids(pq.read_table(self.path / path, columns=["trace_id"]).column(0))

    def wait_for_rows(self, rows: int, patience: float) -> float:
        """Until there are as many; gives the seconds that took."""
        begun = time.monotonic()
        while self.rows() < rows:
            if time.monotonic() - begun > patience:
                raise SystemExit(f"{self.rows()} of {rows} traces are in after {patience:.0f} s")
            time.sleep(0.05)
        return time.monotonic() - begun


def file_key(action: dict) -> str:
    """A data file together with its deletion vector, as the log tells files apart."""
    vector = action.get("deletionVector") or {}
    return f"{action['path']} {vector.get('pathOrInlineDv', '')} {vector.get('offset', '')}"


@dataclass(frozen=True)
class Acked:
    """What the generator says was acknowledged."""

    traces: np.ndarray
    spans: np.ndarray
    times: np.ndarray


def read_acked(*files: Path) -> Acked:
    """The traces of the generator's lists, in the order of their ids."""
    ids, spans, times = [], [], []
    for file in files:
        with file.open() as lines:
            for row in csv.reader(line for line in lines if not line.startswith("trace_id")):
                ids.append(row[0])
                spans.append(int(row[1]))
                times.append(int(row[2]))
    traces = np.array(ids, dtype="S32")
    order = np.argsort(traces, kind="stable")
    return Acked(traces[order], np.array(spans)[order], np.array(times)[order])


def together(one: Acked, other: Acked) -> Acked:
    """What either says; no trace is in both."""
    traces = np.concatenate([one.traces, other.traces])
    order = np.argsort(traces, kind="stable")
    spans = np.concatenate([one.spans, other.spans])[order]
    return Acked(traces[order], spans, np.concatenate([one.times, other.times])[order])


def bare_ids(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Trace ids without their prefix."""
    return np.array(pc.utf8_slice_codeunits(column.cast(pa.string()), 3).to_pylist(), dtype="S32")


def lags(growth: Growth, acked: Acked) -> np.ndarray:
    """Seconds from the ack of each trace to the version that first held it."""
    return lags_by_time(growth, acked)[1]


def lags_by_time(growth: Growth, acked: Acked) -> tuple[np.ndarray, np.ndarray]:
    """The same, with the time of each ack."""
    growth.rows()
    first = np.full(len(acked.traces), np.iinfo(np.int64).max)
    for path, seen in growth.arrived:
        held = growth.trace_ids(path)
        at = np.searchsorted(acked.traces, held)
        at = at[(at < len(acked.traces)) & (acked.traces[np.minimum(at, len(acked.traces) - 1)] == held)]
        first[at] = np.minimum(first[at], seen)
    arrived = first < np.iinfo(np.int64).max
    return acked.times[arrived], (first[arrived] - acked.times[arrived]) / 1e9


def differences(path: Path, acked: Acked) -> dict[str, int]:
    """What the table holds beside what was acknowledged, by deltalake: all zero when each is in once."""
    rows = pa.table(QueryBuilder().register("t", DeltaTable(str(path))).execute(
        "select trace_id, span_count from t"
    ))  # fmt: skip
    ids = bare_ids(rows.column("trace_id"))
    spans = np.array(rows.column("span_count").to_pylist())
    order = np.argsort(ids, kind="stable")
    ids, spans = ids[order], spans[order]
    unique, first = np.unique(ids, return_index=True)
    both, held_at, acked_at = np.intersect1d(unique, acked.traces, return_indices=True)
    return {
        "traces_missing": len(acked.traces) - len(both),
        "traces_doubled": len(ids) - len(unique),
        "traces_never_acked": len(unique) - len(both),
        "traces_with_other_span_count": int(
            np.count_nonzero(spans[first][held_at] != acked.spans[acked_at])
        ),
    }


def span_ids(path: Path) -> tuple[int, int]:
    """Span ids in the live files, and how many of them differ; for a table without deletion vectors."""
    total, seen = 0, []
    for file in DeltaTable(str(path)).file_uris():
        leaf = "spans.list.element.span_id"
        column = pq.ParquetFile(unquote(file.removeprefix("file://"))).read(columns=[leaf]).column(0)
        ids = pc.struct_field(pc.list_flatten(column), [0])
        total += len(ids)
        seen.append(np.array(ids.to_pylist(), dtype="S16"))
    return total, len(np.unique(np.concatenate(seen))) if seen else 0


def live_bytes(path: Path) -> int:
    """Bytes of the live data files."""
    adds = pa.table(DeltaTable(str(path)).get_add_actions(flatten=True))
    return sum(adds.column("size_bytes").to_pylist())


def holds(path: Path, trace_id: str) -> int:
    """Rows of one trace."""
    rows = pa.table(QueryBuilder().register("t", DeltaTable(str(path))).execute(
        f"select trace_id from t where trace_id = 'tr-{trace_id}'"
    ))  # fmt: skip
    return rows.num_rows


def tags(path: Path, key: str) -> dict[str, str]:
    """Value of a tag by trace id without prefix, of the traces that have it."""
    rows = pa.table(QueryBuilder().register("t", DeltaTable(str(path))).execute(
        f"select trace_id, tags['{key}'] as value from t where tags['{key}'] is not null"
    ))  # fmt: skip
    return {row["trace_id"].removeprefix("tr-"): row["value"] for row in rows.to_pylist()}
