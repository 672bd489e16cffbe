"""A folder as a power cut leaves it: a shim before a process's calls notes which names are durable.

What POSIX promises and no more: a name is durable once its folder was synced after it was made, a file's
bytes once the file was. `Device.cut` takes everything else back, on any file system and without root. Bytes
that are written into a file that had been synced before are not in this account; for the journal
`TRACELAKE_POWER_CUT` keeps those back (see CONTRIBUTING.md).
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")
CALLS = ("create", "link", "mkdir", "rename", "sync", "unlink")


@functools.cache
def shim() -> Path | None:
    """The shim, built once; `None` where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    built = Path(tempfile.mkdtemp(prefix="shim-")) / "shim.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", built, SOURCE, "-lpthread"], check=True
    )
    return built


@dataclass(frozen=True)
class Point:
    """A call of a life: the `number`th one of its kind whose path matches, once `after` was made."""

    call: str
    pattern: str
    number: int
    after: Point | None = None

    def __str__(self) -> str:
        after = f" after {self.after}" if self.after else ""
        return f"{self.call} {self.pattern} #{self.number}{after}"

    def encoded(self) -> str:
        """As the shim reads it."""
        return f"{self.call}\t{self.pattern}\t{self.number}"


def sync_after_link(pattern: str, number: int) -> Point:
    """The sync of the folder that follows the `number`th link of a name that matches."""
    return Point("sync", os.path.dirname(pattern), 1, Point("link", pattern, number))


@dataclass
class Change:
    """A change of a folder's entries that is not durable."""

    call: str
    path: str
    old: str | None
    copy: str | None

    @property
    def folder(self) -> str:
        return os.path.dirname(self.path) or "."


class Device:
    """What is below `root`, of processes that have `environment`."""

    def __init__(self, root: Path, work: Path):
        self.root = root
        self.log = work / "calls.log"
        self.copies = work / "copies"
        self.forget()

    def forget(self) -> None:
        """Takes everything for durable."""
        shutil.rmtree(self.copies, ignore_errors=True)
        self.copies.mkdir(parents=True)
        self.log.write_text("")

    def environment(self, point: Point | None = None, what: str = "") -> dict[str, str]:
        """For a process; at `point` its call befalls `what`: fail, late, before or after."""
        found = {
            "LD_PRELOAD": str(shim()),
            "TRACELAKE_SHIM_LOG": str(self.log),
            "TRACELAKE_SHIM_ROOT": str(self.root),
            "TRACELAKE_SHIM_COPIES": str(self.copies),
        }
        if point:
            found["TRACELAKE_SHIM_POINT"] = f"{point.encoded()}\t{what}"
            if point.after:
                found["TRACELAKE_SHIM_AFTER"] = point.after.encoded()
        return found

    def events(self) -> list[list[str]]:
        """The calls since everything was durable, each with its paths."""
        return [line.split("\t") for line in self.log.read_text().splitlines()]

    def was_met(self) -> bool:
        """Whether a point was come to."""
        return any(event[0] == "point" for event in self.events())

    def points(self) -> list[Point]:
        """Every call that was made, as a later life makes it again."""
        seen: dict[tuple[str, str], int] = {}
        points = []
        for call, *paths in self.events():
            if call in CALLS:
                path = [path for path in paths if not path.startswith("#")][-1]
                key = (call, pattern(path))
                seen[key] = seen.get(key, 0) + 1
                points.append(Point(*key, seen[key]))
        return points

    def volatile(self) -> tuple[list[Change], set[str]]:
        """Changes that are not durable, the oldest first, and files whose bytes are not."""
        changes: list[Change] = []
        files: set[str] = set()
        folders = {"."}
        for call, *paths in self.events():
            copy = paths.pop()[1:] if paths[-1].startswith("#") else None
            path, old = paths[-1], paths[0] if len(paths) > 1 else None
            if call == "sync":
                if path in folders or (self.root / path).is_dir():
                    changes = [change for change in changes if change.folder != path]
                files.discard(path)
                continue
            if call == "mkdir":
                folders.add(path)
            elif call == "create":
                files.add(path)
            elif call in ("link", "rename"):
                if old in files:
                    files.add(path)
                else:
                    files.discard(path)
                if call == "rename":
                    files.discard(old)
            if call in CALLS:
                changes.append(Change(call, path, old, copy))
        return changes, files

    def cut(self, keeps: Callable[[], bool] = lambda: False) -> list[str]:
        """Takes back what is not durable, but what `keeps` lets stay; says what."""
        changes, files = self.volatile()
        undone = []
        for change in reversed(changes):
            if not keeps():
                undone.append(f"{change.call} {change.path}")
                self.undo(change)
        for path in files:
            if (self.root / path).is_file():
                undone.append(f"bytes of {path}")
                os.truncate(self.root / path, 0)
        self.forget()
        return undone

    def undo(self, change: Change) -> None:
        """Takes one change back; what it replaced or removed is in the copies."""
        path = self.root / change.path
        match change.call:
            case "create" | "link":
                path.unlink(missing_ok=True)
            case "mkdir":
                shutil.rmtree(path, ignore_errors=True)
            case "rename":
                if path.exists():
                    path.rename(self.root / change.old)
        if change.copy and not path.exists() and path.parent.is_dir():
            os.link(self.copies / change.copy, path)


def pattern(path: str) -> str:
    """A path as another life has it: without what is made up or counted on."""
    uuid = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    return re.sub(rf"{uuid}|\d{{6,}}|\d{{4}}-\d\d-\d\d", "*", path)
