"""The Python package under test: the wheel that make built, and an environment with nothing else in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.server import clean_environment

LOCK = Path(__file__).resolve().parents[1] / "requirements.lock"


def wheel() -> Path:
    """The wheel under test, from `TRACELAKE_WHEEL`."""
    path = os.environ.get("TRACELAKE_WHEEL")
    if not path or not Path(path).is_file():
        pytest.fail(f"no wheel at {path!r}\nhint: run make e2e, or set TRACELAKE_WHEEL")
    return Path(path)


def package_environment(**extra: str) -> dict[str, str]:
    """This process's environment without the package that the tests themselves import."""
    kept = clean_environment(**extra)
    dropped = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    return {name: value for name, value in kept.items() if name not in dropped}


class Environment:
    """A virtual environment of its own."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.python = folder / "bin" / "python"
        # pip is that of the tests: an environment without one is made in a tenth of the time.
        self._run(sys.executable, "-m", "venv", "--without-pip", str(folder))

    def install(self, *requirements: str) -> None:
        """Installs with pip; versions are those of the lock."""
        self._run(
            sys.executable, "-m", "pip", "--python", str(self.python), "install", "--quiet",
            "--disable-pip-version-check", "--no-input", "--no-compile", "-c", str(LOCK),
            *requirements,
        )  # fmt: skip

    def run(self, script: str, cwd: Path, **extra: str) -> subprocess.CompletedProcess[str]:
        """Runs a script to its end, whatever its exit code."""
        return subprocess.run(
            [str(self.python), "-c", script],
            capture_output=True,
            text=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
            cwd=cwd,
            env=package_environment(**extra),
        )

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=240, env=package_environment()
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
