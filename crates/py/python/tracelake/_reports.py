"""What checks and imports say."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from dataclasses import dataclass

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
        """The items that are broken."""
        return [item for item in self.items if item.result == "failed"]

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
        width = max((len(item.item) for item in self.items), default=0)
        lines = []
        for item in self.items:
            lines.append(f"{item.result:<7}  {item.item:<{width}}  {item.found}")
            if item.hint is not None:
                lines.append(f"{'':<7}  {'':<{width}}  hint: {item.hint}")
        return "\n".join([*lines, "", self._counts()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(item.result)}</td><td>{html.escape(item.item)}</td>"
            f"<td>{html.escape(item.found)}</td><td>{html.escape(item.hint or '')}</td></tr>"
            for item in self.items
        )
        head = "".join(f"<th>{name}</th>" for name in ("result", "item", "found", "hint"))
        return (
            f"<div><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
            f"<p>{self._counts()}</p></div>"
        )

    def _counts(self) -> str:
        count = {"ok": 0, "note": 0, "skipped": 0, "failed": 0}
        for item in self.items:
            count[item.result] += 1
        return (
            f"{count['ok']} ok, {count['note']} to note, {count['skipped']} skipped,"
            f" {count['failed']} failed"
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
