"""A real `mlflow server` on a SQLite file, on loopback: what tracelake is compared with."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import requests

from support.server import clean_environment

START_SECONDS = 120


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class MlflowServer:
    """One `mlflow server` with one worker; its data vanish with the folder."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.log_path = folder / "mlflow.log"
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "mlflow", "server", "--workers", "1",
                    "--host", "127.0.0.1", "--port", str(port),
                    "--backend-store-uri", f"sqlite:///{folder}/mlflow.db",
                    "--artifacts-destination", str(folder / "artifacts"),
                ],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=folder,
                env=clean_environment(
                    HOME=str(folder), MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"
                ),
                start_new_session=True,
            )  # fmt: skip

    def wait(self) -> None:
        """Waits until it answers; making the database takes a while."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"mlflow server ended\n{self.log_tail()}"
            try:
                if requests.get(f"{self.url}/health", timeout=2).status_code == 200:
                    return
            except requests.RequestException:
                time.sleep(0.2)
        raise AssertionError(f"no answer after {START_SECONDS} s\n{self.log_tail()}")

    def log_tail(self) -> str:
        """The end of its log."""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-40:])

    def close(self) -> None:
        """Ends it with its workers."""
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(timeout=20)
