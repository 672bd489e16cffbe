"""A command on a terminal of its own, as a person runs it."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
from dataclasses import dataclass

from support.server import Cli, binary, clean_environment


@dataclass
class Shown:
    """What a command left on its terminal."""

    text: str
    code: int

    @property
    def lines(self) -> list[str]:
        return self.text.replace("\r\n", "\n").splitlines()


def run(cli: Cli, *arguments: str, columns: int = 120, lines: int = 24, **extra: str) -> Shown:
    """Runs one command with a terminal of that size for all three streams."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    environment = clean_environment(**{"NO_COLOR": "", "TERM": "xterm", **extra})
    for name in ("COLUMNS", "LINES", "CLICOLOR", "CLICOLOR_FORCE", "PAGER", "LESS"):
        if name not in extra:
            environment.pop(name, None)
    process = subprocess.Popen(
        [str(binary()), *map(str, arguments), "--data-dir", str(cli.data_dir)],
        stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=cli.data_dir.parent,
    )  # fmt: skip
    os.close(theirs)
    shown = bytearray()
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:
        pass  # Linux says EIO when the last one to hold the terminal is gone.
    os.close(ours)
    return Shown(shown.decode(errors="replace"), process.wait(timeout=60))
