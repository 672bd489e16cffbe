"""A wall clock that a test sets, for a process; its monotonic clock goes on."""

from __future__ import annotations

import functools
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")


@functools.cache
def library() -> Path | None:
    """What stands before the process's calls, built once; `None` where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    built = Path(tempfile.mkdtemp(prefix="clock-")) / "clock.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", built, SOURCE], check=True)
    return built


class WallClock:
    """The wall clock of processes that have `environment`."""

    def __init__(self, folder: Path):
        self.path = folder / "clock"
        self.path.write_bytes(struct.pack("=q", 0))

    @property
    def environment(self) -> dict[str, str]:
        """For a process."""
        return {"LD_PRELOAD": str(library()), "TEST_CLOCK": str(self.path)}

    def set(self, ahead_seconds: int) -> None:
        """Sets it so far ahead of the true time, or behind."""
        with self.path.open("r+b") as file:
            file.write(struct.pack("=q", ahead_seconds))
