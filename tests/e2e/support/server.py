"""The real binary as a child process: start, wait, kill, stop, and its commands."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import requests

REPOSITORY = Path(__file__).resolve().parents[3]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"
DEFAULT_TABLE = "tracelake.default.traces"

# Settings under which a test need not wait: traces settle, commit and amend at once.
QUICK = (
    "--settle-after", "200ms",
    "--idle-after", "2s",
    "--commit-every", "300ms",
    "--amend-every", "500ms",
)  # fmt: skip


def binary() -> Path:
    """The binary under test; `TRACELAKE_BIN` or the dev profile's output."""
    if path := os.environ.get("TRACELAKE_BIN"):
        return Path(path)
    target = os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target"
    return Path(target) / "debug" / "tracelake"


def clean_environment(**extra: str) -> dict[str, str]:
    """This process's environment without settings that would change the service's behaviour."""
    dropped = ("TRACELAKE_", "MLFLOW_", "OTEL_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
    return kept | {"NO_COLOR": "1"} | extra


class Cli:
    """The commands of the binary on one data folder, with or without a server beside."""

    def __init__(self, data_dir: Path):
        self.data_dir = data_dir

    def run(
        self, *arguments: str, timeout: float = 120, **extra: str
    ) -> subprocess.CompletedProcess:
        """Runs one command to its end, whatever its exit code."""
        command = [str(binary()), *map(str, arguments), "--data-dir", str(self.data_dir)]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            env=clean_environment(**extra),
            cwd=self.data_dir.parent,
        )

    def ok(self, *arguments: str, timeout: float = 120, **extra: str) -> str:
        """Runs one command that must succeed; gives its standard output."""
        done = self.run(*arguments, timeout=timeout, **extra)
        assert done.returncode == 0, (
            f"{' '.join(map(str, arguments))} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        return done.stdout

    def json(self, *arguments: str, timeout: float = 120) -> list[dict]:
        """The rows of a command with `--format json`."""
        return json.loads(self.ok(*arguments, "--format", "json", timeout=timeout))

    def sql(self, query: str, timeout: float = 120) -> list[dict]:
        """The rows of one query."""
        return self.json("sql", query, timeout=timeout)

    def scalar(self, query: str) -> object:
        """The one value of a query that gives one row with one column."""
        (row,) = self.sql(query)
        (value,) = row.values()
        return value


class Server:
    """One `tracelake serve` on a folder of its own; survives kills and restarts."""

    def __init__(
        self, data_dir: Path, *flags: str, quick: bool = True, env: dict[str, str] | None = None
    ):
        self.data_dir = data_dir
        self.flags = (*(QUICK if quick else ()), *flags)
        self.env = env or {}
        self.log_path = data_dir.parent / f"{data_dir.name}.log"
        self.process: subprocess.Popen | None = None
        self.http = ""
        self.grpc = ""
        self.session = requests.Session()

    @property
    def cli(self) -> Cli:
        """Commands on this server's folder."""
        return Cli(self.data_dir)

    @property
    def url(self) -> str:
        """Base URL of the HTTP port."""
        return f"http://{self.http}"

    def spawn(self) -> subprocess.Popen:
        """Starts the process without waiting for it."""
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    str(binary()), "serve", "--data-dir", str(self.data_dir),
                    "--listen", "127.0.0.1:0", "--otlp-grpc", "127.0.0.1:0", *self.flags,
                ],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                env=clean_environment(**self.env), cwd=self.data_dir.parent,
            )  # fmt: skip
        return self.process

    def start(self, timeout: float = 30) -> float:
        """Starts and waits until the service accepts; gives the seconds that took."""
        begun = time.monotonic()
        process = self.spawn()
        while time.monotonic() - begun < timeout:
            if process.poll() is not None:
                raise AssertionError(
                    f"serve exited {process.returncode} at start\n{self.log_tail()}"
                )
            if self.read_server_file(process.pid):
                return time.monotonic() - begun
            time.sleep(0.01)
        raise AssertionError(
            f"no server.json of pid {process.pid} after {timeout} s\n{self.log_tail()}"
        )

    def read_server_file(self, pid: int) -> bool:
        """Takes the ports from server.json if it is this process's and not one left by a kill."""
        try:
            facts = json.loads((self.data_dir / "server.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return False
        if facts["pid"] != pid:
            return False
        self.http, self.grpc = facts["http"], facts["grpc"]
        return True

    def kill(self) -> None:
        """kill -9, as a power cut would for the process."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait(timeout=30)

    def stop(self, signal_number: int = signal.SIGTERM, timeout: float = 60) -> None:
        """Asks for a clean stop and checks that it was one."""
        assert self.process is not None
        self.process.send_signal(signal_number)
        code = self.process.wait(timeout=timeout)
        assert code == 0, f"exit code {code} after signal {signal_number}\n{self.log_tail()}"
        assert not (self.data_dir / "server.json").exists(), (
            "server.json left behind by a clean stop"
        )

    def restart(self) -> float:
        """Clean stop, then start on the same folder."""
        self.stop()
        return self.start()

    def flush(self, timeout: float = 120) -> None:
        """Settles and commits all that is acknowledged."""
        answer = self.session.post(f"{self.url}/api/v1/flush", timeout=timeout)
        assert answer.status_code == 200, (
            f"flush: {answer.status_code} {answer.text}\n{self.log_tail()}"
        )
        answer.json()

    def assert_alive(self) -> None:
        """The process runs and answers."""
        assert self.process is not None and self.process.poll() is None, f"died\n{self.log_tail()}"
        answer = self.session.get(f"{self.url}/health", timeout=10)
        assert answer.status_code == 200, f"health: {answer.status_code} {answer.text}"

    def table_path(self, table: str = DEFAULT_TABLE) -> Path:
        """Where a table lies on disk."""
        return self.data_dir.joinpath("tables", *table.split("."))

    def log_tail(self, lines: int = 60) -> str:
        """The last lines that the service wrote."""
        if not self.log_path.exists():
            return "(no log)"
        text = self.log_path.read_text(errors="replace").splitlines()
        return "\n".join(["--- log of the service ---", *text[-lines:]])

    def close(self) -> None:
        """Ends the process if it still runs, and forgets the connections."""
        self.session.close()
        self.kill()

    def remove(self) -> None:
        """Ends the process and deletes its folder."""
        self.close()
        shutil.rmtree(self.data_dir, ignore_errors=True)
