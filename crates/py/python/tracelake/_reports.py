"""What checks and imports say."""

from __future__ import annotations

import html
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from tracelake._text import printable

__all__ = ["CheckItem", "CheckReport", "ImportReport"]


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
