"""The load generator as a child process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]


def target() -> Path:
    """Where cargo builds."""
    return Path(os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target")


def generator() -> Path:
    """The release build of the generator."""
    path = Path(os.environ.get("TRACELAKE_LOADGEN") or target() / "release" / "tracelake-loadgen")
    if not path.is_file():
        raise SystemExit(f"no load generator at {path}\nhint: make bench-ingest builds it")
    return path


def release_binary() -> Path:
    """The release build of the service, unless TRACELAKE_BIN names one of another profile by hand."""
    path = Path(os.environ.get("TRACELAKE_BIN") or target() / "release" / "tracelake")
    if not path.is_file():
        raise SystemExit(f"no binary at {path}\nhint: cargo build --release -p tracelake-cli")
    os.environ["TRACELAKE_BIN"] = str(path)
    return path


def start(url: str, *options: str | Path | float) -> subprocess.Popen:
    """Starts the generator; its report comes on standard output."""
    command = [str(generator()), url, *map(str, options)]
    quiet = () if sys.stderr.isatty() else ("--quiet",)
    return subprocess.Popen([*command, *quiet], stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> dict:
    """Waits for the end of a generator; gives its report."""
    out, _ = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"the load generator exited {process.returncode}\n{out}")
    return json.loads(out)


def send(url: str, *options: str | Path | float) -> dict:
    """Sends to the end; gives the report."""
    return finish(start(url, *options))
