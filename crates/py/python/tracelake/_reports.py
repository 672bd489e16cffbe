"""What checks and imports say."""

from __future__ import annotations

import html
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tracelake._text import printable
from tracelake._tracelake import QueryResult

__all__ = [
    "CheckItem",
    "CheckReport",
    "Figures",
    "HourLine",
    "ImportReport",
    "TraceLine",
    "VerifyReport",
]


@dataclass(frozen=True)
class CheckItem:
    """One line of the checklist."""

    item: str
    """What was looked at."""
    result: str
    """``ok``, ``note``, ``skipped`` or ``failed``."""
    found: str
    """What was found."""
    hint: str | None
    """How to mend it."""


@dataclass(frozen=True)
class CheckReport:
    """The validation checklist of a table. True when nothing failed."""

    table: str | None
    items: tuple[CheckItem, ...]

    @property
    def failed(self) -> list[CheckItem]:
        """The items that are broken, or that have a result which this version does not know."""
        return [item for item in self.items if item.result not in ("ok", "note", "skipped")]

    @property
    def ok(self) -> bool:
        """Whether nothing is broken."""
        return not self.failed

    def __bool__(self) -> bool:
        return self.ok

    def __iter__(self) -> Iterator[CheckItem]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __str__(self) -> str:
        width = max((len(printable(item.item)) for item in self.items), default=0)
        lines = []
        for item in self.items:
            result, name = printable(item.result), printable(item.item)
            lines.append(f"{result:<7}  {name:<{width}}  {printable(item.found)}")
            if item.hint is not None:
                lines.append(f"{'':<7}  {'':<{width}}  hint: {printable(item.hint)}")
        return "\n".join([*lines, "", self._counts()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        texts = ((item.result, item.item, item.found, item.hint or "") for item in self.items)
        cells = (
            "".join(f"<td>{html.escape(printable(text))}</td>" for text in row) for row in texts
        )
        rows = "".join(f"<tr>{row}</tr>" for row in cells)
        head = "".join(f"<th>{name}</th>" for name in ("result", "item", "found", "hint"))
        return (
            f"<div><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
            f"<p>{self._counts()}</p></div>"
        )

    def _counts(self) -> str:
        count = Counter(item.result for item in self.items)
        return (
            f"{count['ok']} ok, {count['note']} to note, {count['skipped']} skipped,"
            f" {len(self.failed)} failed"
        )


@dataclass(frozen=True)
class ImportReport:
    """What an import did."""

    imported: int
    """Files that are wholly in."""
    already_imported: int
    """Files that were so before."""
    skipped: dict[str, str]
    """Files that were passed over, and why."""
    failed: dict[str, str]
    """Files that are not or not wholly in, and why."""
    rejected: dict[str, str]
    """Files with spans that were rejected, and why."""
    traces: int
    spans: int
    rejected_spans: int
    bytes: int
    seconds: float
    stopped: str | None
    """Why nothing more could be taken in."""


@dataclass(frozen=True)
class Figures:
    """Traces, spans, and the sum of the spans' hashes, in which their order does not count."""

    traces: int
    spans: int
    hash: str


@dataclass(frozen=True)
class HourLine:
    """What came in during one hour by one way, and what became of it."""

    hour: str
    """The hour of arrival in UTC, such as ``2026-11-22T10:00Z``."""
    way_in: str
    """``otlp_protobuf``, ``otlp_json``, ``mlflow_traces_json`` or ``mlflow_start_trace``."""
    result: str
    """``ok``, ``open``, or what is wrong."""
    acknowledged: Figures
    """What should be in the table."""
    archived: Figures
    """What of that is, however often."""
    copies: int
    """Spans that were sent more than once, counted from the second time on."""
    deleted: int
    """Spans that a client deleted with their trace."""
    replaced: int
    """Spans of MLflow in whose place the one that came by OTLP stays."""
    open: int
    """Spans that are on their way to the table."""
    elsewhere: int
    """Spans that another table of the archive has."""
    deleted_by_others: int
    """Spans that another writer deleted with their row."""


@dataclass(frozen=True)
class TraceLine:
    """A trace that is not as it should be."""

    trace_id: str
    result: str
    """``missing``, ``doubled``, ``altered``; ``deleted``: a client deleted it, and it is there; ``gone``: it
    is not there, and whether another writer deleted it is not known; ``tags``, ``assessments``, ``runs``: the
    row does not show what a client changed last."""
    spans: int
    """Spans that are so."""
    changes: int
    """Changes of clients that are so."""
    of_spans: int
    """Spans that should be there."""
    rows: int
    """Rows that the trace has."""
    hour: str
    way_in: str


@dataclass(frozen=True)
class VerifyReport:
    """What a table holds against what was acknowledged for it. True when everything is there."""

    table: str
    version: int | None
    """Delta version that was read; None when there is no such table."""
    ok: bool
    hours: tuple[HourLine, ...]
    traces: tuple[TraceLine, ...]
    """Traces that are not as they should be."""
    traces_left_out: int
    """Further ones that are not listed."""
    faults: tuple[str, ...]
    """What else is wrong."""
    notes: tuple[str, ...]
    """What is worth knowing."""
    archived: dict[str, Figures]
    """All rows by the hour of ``created_at``; empty when a time was asked for."""
    rows: QueryResult
    """The same as rows: ``rows.to_pandas()``."""

    def __bool__(self) -> bool:
        return self.ok

    def __iter__(self) -> Iterator[HourLine]:
        return iter(self.hours)

    def __len__(self) -> int:
        return len(self.hours)

    def __str__(self) -> str:
        lines = []
        for hour in self.hours:
            here, there = hour.acknowledged, hour.archived
            lines.append(
                f"{printable(hour.hour)}  {printable(hour.way_in):<18}  {there.traces} of"
                f" {here.traces} traces, {there.spans} of {here.spans} spans  {printable(hour.result)}"
            )
        for trace in self.traces:
            lines.append(
                f"{printable(trace.result):<8}  {printable(trace.trace_id)}  {trace.spans} of"
                f" {trace.of_spans} spans, rows: {trace.rows}"
            )
        if self.traces_left_out:
            lines.append(f"and {self.traces_left_out} more")
        lines.extend(f"fault: {printable(fault)}" for fault in self.faults)
        lines.extend(f"note: {printable(note)}" for note in self.notes)
        verdict = "everything acknowledged is there" if self.ok else "not everything is as it should be"
        return "\n".join([*lines, verdict])

    __repr__ = __str__


def verify_report(text: str, rows: QueryResult) -> VerifyReport:
    """The native report."""
    told = json.loads(text)

    def hour(line: dict[str, Any]) -> HourLine:
        here, there = Figures(**line["acknowledged"]), Figures(**line["archived"])
        fields: dict[str, Any] = {**line, "acknowledged": here, "archived": there}
        return HourLine(**fields)

    return VerifyReport(
        table=told["table"],
        version=told["version"],
        ok=told["ok"],
        hours=tuple(hour(line) for line in told["hours"]),
        traces=tuple(TraceLine(**line) for line in told["traces"]),
        traces_left_out=told["traces_left_out"],
        faults=tuple(told["faults"]),
        notes=tuple(told["notes"]),
        archived={line["hour"]: Figures(**line["figures"]) for line in told["archived"]},
        rows=rows,
    )


def import_report(text: str) -> ImportReport:
    """The native report."""
    told = json.loads(text)

    def reasons(name: str) -> dict[str, str]:
        return {entry["file"]: entry["reason"] for entry in told[name]}

    return ImportReport(
        imported=told["imported"],
        already_imported=told["already_imported"],
        skipped=reasons("skipped"),
        failed=reasons("failed"),
        rejected=reasons("rejected"),
        traces=told["traces"],
        spans=told["spans"],
        rejected_spans=told["rejected_spans"],
        bytes=told["bytes"],
        seconds=told["seconds"],
        stopped=told["stopped"],
    )
