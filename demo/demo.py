"""The demo: a fresh service, traces from a real MLflow client and from OTLP senders, the tables.

Started by `make demo`. Everything happens in a temporary folder on loopback and is removed at the
end, also after Ctrl-C. With KEEP=1 the folder stays.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
BINARY = Path(
    os.environ.get("TRACELAKE_BIN")
    or Path(os.environ.get("CARGO_TARGET_DIR") or HERE.parent / "target") / "debug" / "tracelake"
)
TABLE = "production.monitoring.agent_traces"
EXPERIMENT = "/Shared/health_monitor_agent/production"

COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ
BOLD, DIM, CYAN, RESET = (
    ("\033[1m", "\033[2m", "\033[36m", "\033[0m") if COLOUR else ("", "", "", "")
)


def title(text: str) -> None:
    print(f"\n{BOLD}{CYAN}==>{RESET}{BOLD} {text}{RESET}", flush=True)


def note(text: str) -> None:
    print(f"    {DIM}{text}{RESET}", flush=True)


def environment() -> dict[str, str]:
    """Without settings of the user's own that would lead the demo elsewhere."""
    foreign = ("TRACELAKE_", "MLFLOW_", "OTEL_")
    return {k: v for k, v in os.environ.items() if not k.startswith(foreign)}


def tracelake(data_dir: Path, *arguments: str, quiet: bool = False) -> None:
    """Shows a command and runs it. Its output goes straight to the terminal."""
    words = " ".join(f'"{a}"' if " " in a else a for a in arguments)
    if not quiet:
        print(f"{BOLD}$ tracelake {words}{RESET}", flush=True)
    output = subprocess.DEVNULL if quiet else None
    subprocess.run(
        [str(BINARY), *arguments, "--data-dir", str(data_dir)],
        check=True, stdout=output, env=environment(), stdin=subprocess.DEVNULL, timeout=120,
    )  # fmt: skip


@contextmanager
def service(folder: Path, data_dir: Path) -> Iterator[dict]:
    """Runs the service on free ports; gives where it listens. Stopped cleanly whatever happens."""
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [
                str(BINARY), "serve", "--data-dir", str(data_dir),
                "--listen", "127.0.0.1:0", "--otlp-grpc", "127.0.0.1:0",
            ],
            stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment(), cwd=folder,
            # Of its own group: Ctrl-C reaches this script, which then stops the service cleanly.
            start_new_session=True,
        )  # fmt: skip
    try:
        facts = data_dir / "server.json"
        deadline = time.monotonic() + 30
        while not facts.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the service did not start\n{(folder / 'serve.log').read_text()}")
            time.sleep(0.02)
        yield json.loads(facts.read_text())
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()


def log_with(script: str, folder: Path, *arguments: str) -> None:
    """Runs one of the two senders as a process of its own, as a user's program would be."""
    done = subprocess.run(
        [sys.executable, str(HERE / script), *arguments],
        env=environment() | {"HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}, cwd=folder,
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=180,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{script} failed\n{done.stderr}")


def show(folder: Path) -> None:
    """The demo itself."""
    data_dir = folder / "data"
    title("Start the service, bind an experiment to a table")
    with service(folder, data_dir) as facts:
        url = f"http://{facts['http']}"
        note(f"MLflow and OTLP/HTTP at {url}, OTLP/gRPC at {facts['grpc']}")
        tracelake(data_dir, "setup", TABLE, "--experiment", EXPERIMENT)

        title("Log traces: an unchanged MLflow client, then OTLP spans of two services")
        log_with("mlflow_agent.py", folder, url, EXPERIMENT)
        log_with("otlp_services.py", folder, url, facts["grpc"], EXPERIMENT)
        begun = time.monotonic()
        urllib.request.urlopen(
            urllib.request.Request(f"{url}/api/v1/flush", method="POST"), timeout=60
        ).read()
        note(f"all of it is in the Delta table ({time.monotonic() - begun:.1f} s for the flush)")

        title("The trace list")
        tracelake(data_dir, "traces", TABLE)
        title("What failed?")
        tracelake(data_dir, "errors", TABLE)
        title("What is slow?")
        tracelake(data_dir, "performance", TABLE)
        title("Any SQL")
        tracelake(
            data_dir,
            "sql",
            "select s['name'] as span, s['span_type'] as type, count(*) as calls, sum(s['total_tokens']) as tokens"
            f" from (select unnest(spans) as s from {TABLE}) group by 1, 2 order by calls desc, span limit 8",
        )
        title("The same table in another reader (deltalake)")
        read_elsewhere(data_dir.joinpath("tables", *TABLE.split(".")))
        where_to_look_next(data_dir)


def read_elsewhere(path: Path) -> None:
    from deltalake import DeltaTable, QueryBuilder

    print(f"{BOLD}>>> DeltaTable('.../{'/'.join(path.parts[-4:])}'){RESET}")
    delta = DeltaTable(str(path))
    query = "select count(*) as traces, sum(span_count) as spans, sum(error_span_count) as failed from t"
    import pyarrow as pa

    (row,) = pa.table(QueryBuilder().register("t", delta).execute(query)).to_pylist()
    counts = ", ".join(f"{value} {key}" for key, value in row.items())
    print(f"version {delta.version()}: {counts}")


def where_to_look_next(data_dir: Path) -> None:
    title("Where to look next")
    print(
        f"    make run              the service on 127.0.0.1:5000 with ./tracelake-data\n"
        f"    tracelake --help      all commands; each has --help and --format json|jsonl|csv\n"
        f"    {data_dir.name}/tables/...       one Delta table per name: open it with Spark, DuckDB, Polars\n"
        f"    ARCHITECTURE.md       the way of a trace through the rooms of the house\n"
        f"    make help             tests, benchmarks, the crash test"
    )


def main() -> int:
    if not os.access(BINARY, os.X_OK):
        print(f"no binary at {BINARY}\nhint: run make demo, which builds it", file=sys.stderr)
        return 1
    # A SIGTERM takes the same way out as Ctrl-C: through the cleaning up.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="tracelake-demo-"))
    try:
        show(folder)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    except subprocess.CalledProcessError as error:
        print(f"\ndemo failed: {error.cmd[1]} exited {error.returncode}", file=sys.stderr)
        print((folder / "serve.log").read_text()[-3000:], file=sys.stderr)
        return 1
    finally:
        if os.environ.get("KEEP"):
            note(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
            note("the demo's folder and service are gone again (KEEP=1 keeps the folder)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
