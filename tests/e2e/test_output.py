"""How results leave the binary: formats that others read, terminals, pagers, pipes."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import duckdb
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support import generate, otlp, table, terminal
from support.server import Cli, Server, binary, clean_environment

MANY = "select n from (select unnest(range(0, 50000)) as n)"
ESCAPE = "\x1b["


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cli, dict[str, str]]]:
    """Three archived traces, by name; the service is gone again."""
    server = Server(tmp_path_factory.mktemp("output") / "data")
    server.start()
    make = generate.Maker(33)
    good, failed, wide = make.trace_id(), make.trace_id(), make.trace_id()
    root = make.span_id()
    body = generate.request(
        make.span(good, "good", length=1_500_000, attributes={"mlflow.spanInputs": '{"a": 1}'}),
        make.span(
            failed, "root", span_id=root, length=100 * generate.MS, status=generate.status_error()
        ),
        make.span(
            failed, "step \x1b[31mred", 20 * generate.MS, parent_span_id=root,
            status=generate.status_error("it \x1b]0;owned\x07 broke"),
            attributes={"mlflow.spanInputs": "x" * 5000},
        ),
        *(make.span(wide, f"\u4f60\u597d {number}", number) for number in range(60)),
    )  # fmt: skip
    otlp.post(server.url, body)
    server.cli.ok("flush")
    server.stop()
    ids = {"good": good, "failed": failed, "wide": wide}
    yield server.cli, {name: f"tr-{trace_id.hex()}" for name, trace_id in ids.items()}
    server.close()


def raw(cli: Cli, *arguments: str) -> bytes:
    """Standard output as bytes."""
    done = subprocess.run(
        [str(binary()), *arguments, "--data-dir", str(cli.data_dir)],
        capture_output=True, timeout=60, env=clean_environment(), stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def by_id(rows: list[dict]) -> list[dict]:
    return sorted(rows, key=lambda row: row["trace_id"])


def test_binary_formats_read_back_equal(archive: tuple[Cli, dict], tmp_path: Path) -> None:
    """Whole rows as an Arrow stream and as Parquet are what deltalake reads from the table."""
    cli, ids = archive
    whole = ("sql", "select * from traces")
    truth = by_id(table.query(cli.data_dir / table_folder(cli), "select * from t"))
    assert {row["trace_id"] for row in truth} == set(ids.values())

    stream = pa.ipc.open_stream(io.BytesIO(raw(cli, *whole, "--format", "arrow"))).read_all()
    file = tmp_path / "traces.parquet"
    cli.ok(*whole, "--format", "parquet", "--output", str(file))
    parquet = pq.read_table(file)
    assert parquet.schema.equals(stream.schema)
    assert by_id(stream.to_pylist()) == truth
    assert by_id(parquet.to_pylist()) == truth
    codecs = {
        pq.ParquetFile(file).metadata.row_group(0).column(at).compression for at in range(5)
    }
    assert codecs == {"ZSTD"}


def table_folder(cli: Cli) -> Path:
    """Where the default table lies below the data folder."""
    (log,) = [path for path in cli.data_dir.rglob("_delta_log") if path.is_dir()]
    return log.parent.relative_to(cli.data_dir)


def test_other_readers_take_the_formats(archive: tuple[Cli, dict], tmp_path: Path) -> None:
    """DuckDB and Polars count the same spans in each format, straight from the command."""
    cli, _ = archive
    sql = ("sql", "select trace_id, s['name'] as name from (select trace_id, unnest(spans) s from traces)")
    files = {}
    for kind in ("arrow", "parquet", "csv", "json", "jsonl"):
        files[kind] = tmp_path / f"spans.{kind}"
        files[kind].write_bytes(raw(cli, *sql, "--format", kind))
    counts = {
        "polars arrow": polars.read_ipc_stream(files["arrow"]).height,
        "polars parquet": polars.read_parquet(files["parquet"]).height,
        "polars csv": polars.read_csv(files["csv"]).height,
        "polars jsonl": polars.read_ndjson(files["jsonl"]).height,
        "polars json": polars.read_json(files["json"]).height,
    }
    for kind, reader in (("parquet", "read_parquet"), ("csv", "read_csv")):
        found = duckdb.sql(f"select count(*) from {reader}('{files[kind]}')").fetchone()
        counts[f"duckdb {kind}"] = found[0] if found else 0
    arrow = pa.ipc.open_stream(files["arrow"].open("rb")).read_all()
    counts["duckdb arrow"] = duckdb.from_arrow(arrow).count("*").fetchone()[0]
    assert set(counts.values()) == {63}, counts


def test_a_terminal_gets_no_bytes(archive: tuple[Cli, dict], tmp_path: Path) -> None:
    """Binary formats are refused on a terminal, with a way out that works."""
    cli, _ = archive
    for kind in ("arrow", "parquet"):
        refused = terminal.run(cli, "sql", "select 1", "--format", kind)
        assert refused.code == 1
        assert "hint:" in refused.text and "--output" in refused.text
        file = tmp_path / kind
        written = terminal.run(cli, "sql", "select 1", "--format", kind, "--output", str(file))
        assert written.code == 0 and file.stat().st_size


def test_colour_is_for_terminals(archive: tuple[Cli, dict]) -> None:
    """On a terminal, unless forbidden; nothing of the traces' own escape codes, ever."""
    cli, ids = archive
    plain = cli.ok("errors")
    assert ESCAPE not in plain and "ERROR" in plain
    for command in (("errors",), ("show", ids["failed"])):
        colored = terminal.run(cli, *command, "--no-pager")
        assert f"{ESCAPE}31m" in colored.text or f"{ESCAPE}38;5;9m" in colored.text, colored.text
        assert "owned\x07" not in colored.text and f"{ESCAPE}31mred" not in colored.text
        for off in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
            assert ESCAPE not in terminal.run(cli, *command, "--no-pager", **off).text
        never = terminal.run(cli, *command, "--no-pager", "--color", "never", CLICOLOR_FORCE="1")
        assert ESCAPE not in never.text


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_nothing_is_wider_than_the_terminal(archive: tuple[Cli, dict], columns: int) -> None:
    """Tables of few and of many columns, and traces, wide characters included."""
    cli, ids = archive
    commands = (
        ("traces",), ("errors",), ("sql", "select * from traces"),
        ("show", ids["failed"]), ("show", ids["wide"]),
    )  # fmt: skip
    for command in commands:
        shown = terminal.run(cli, *command, "--no-pager", "--color", "never", columns=columns)
        assert shown.code == 0, shown.text
        for line in shown.lines:
            taken = sum(2 if "\u1100" <= character <= "\uffe6" else 1 for character in line)
            assert taken <= columns, f"{taken} of {columns}: {line}"


def test_long_results_are_paged(archive: tuple[Cli, dict], tmp_path: Path) -> None:
    """More than a screen goes through the pager, on a terminal only; `--no-pager` does without."""
    cli, ids = archive
    paged = tmp_path / "paged"
    pager = {"TRACELAKE_PAGER": f"tee {shlex.quote(str(paged))}", "PAGER": "false"}

    def run(*arguments: str, **extra: str) -> bool:
        paged.unlink(missing_ok=True)
        shown = terminal.run(cli, *arguments, **{**pager, **extra})
        assert shown.code == 0, shown.text
        assert "\u4f60\u597d 59" in shown.text or "good" in shown.text
        return paged.exists()

    long, short = ("show", ids["wide"]), ("show", ids["good"])
    assert run(*long)
    assert "\u4f60\u597d 59" in paged.read_text()
    assert not run(*short)
    assert not run(*long, "--no-pager")
    assert not run(*long, TRACELAKE_PAGER="")
    assert not run(*long, TRACELAKE_PAGER="no-such-program-anywhere")
    paged.unlink(missing_ok=True)
    cli.ok(*long, **pager)
    assert not paged.exists(), "no terminal, no pager"


def test_a_pager_that_leaves_early_is_no_failure(archive: tuple[Cli, dict]) -> None:
    """Quitting in the middle ends quietly."""
    cli, _ = archive
    for pager in ("head -n 3", "true"):
        left = terminal.run(cli, "sql", MANY, TRACELAKE_PAGER=pager)
        assert left.code == 0, left.text
        assert "error" not in left.text and "panic" not in left.text


def test_less_is_the_last_resort(archive: tuple[Cli, dict], tmp_path: Path) -> None:
    """Without variables it is less, told to leave when all fits and to pass colours on."""
    cli, ids = archive
    seen = tmp_path / "seen"
    less = tmp_path / "less"
    less.write_text(f'#!/bin/sh\necho "$LESS" > {shlex.quote(str(seen))}\nexec cat\n')
    less.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    shown = terminal.run(cli, "show", ids["wide"], PATH=path)
    assert shown.code == 0 and "\u4f60\u597d 59" in shown.text
    assert seen.read_text() == "FRX\n"
    terminal.run(cli, "show", ids["wide"], PATH=path, LESS="S")
    assert seen.read_text() == "S\n", "what the user set stays"


@pytest.mark.parametrize("kind", ["table", "json", "jsonl", "csv", "arrow", "parquet"])
def test_a_broken_pipe_ends_quietly(archive: tuple[Cli, dict], kind: str) -> None:
    """`| head` takes what it wants; exit code 0, nothing on standard error."""
    cli, _ = archive
    command = shlex.join(
        [str(binary()), "sql", MANY, "--format", kind, "--data-dir", str(cli.data_dir)]
    )
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -c 20 >/dev/null; echo ${{PIPESTATUS[0]}}"],
        capture_output=True, text=True, timeout=60, env=clean_environment(),
    )  # fmt: skip
    assert (done.stdout.strip(), done.stderr) == ("0", "")


def test_show_finds_what_is_not_committed_yet(tmp_path: Path) -> None:
    """Beside a service that holds a trace back, its id in any form, in a table that is not there."""
    server = Server(tmp_path / "data", "--settle-after", "1h", "--idle-after", "1h", quick=False)
    server.start()
    try:
        make = generate.Maker(34)
        trace_id = make.trace_id()
        otlp.post(server.url, generate.request(make.span(trace_id, "pending")))
        for form in (f"tr-{trace_id.hex()}", trace_id.hex().upper()):
            shown = server.cli.ok("show", form)
            assert re.search(r"^pending\b", shown, re.MULTILINE), shown
        assert server.cli.run("show", "0" * 31 + "1").returncode == 1
    finally:
        server.close()


def test_show_holds_up_against_ten_thousand_spans(tmp_path: Path) -> None:
    """A chain of 10,000 spans, a ring and a span with a missing parent: each is shown once."""
    server = Server(tmp_path / "data")
    server.start()
    try:
        make = generate.Maker(35)
        trace_id = make.trace_id()
        ids = [make.span_id() for _ in range(10_000)]
        parents = [b"", *ids]
        chain = [
            make.span(trace_id, f"n{at}", at, span_id=ids[at], parent_span_id=parents[at])
            for at in range(10_000)
        ]
        a, b = make.span_id(), make.span_id()
        odd = [
            make.span(trace_id, "ring-a", span_id=a, parent_span_id=b),
            make.span(trace_id, "ring-b", span_id=b, parent_span_id=a),
            make.span(trace_id, "orphan", parent_span_id=make.span_id()),
            make.span(trace_id, "twin", span_id=ids[0], parent_span_id=ids[0], length=-5),
        ]
        otlp.post(server.url, generate.request(*chain, *odd))
        server.cli.ok("flush")
        shown = server.cli.ok("show", f"tr-{trace_id.hex()}")
        bars = [line for line in shown.splitlines() if "  [" in line]
        assert len(bars) == 10_004
        assert sum("is not in this trace" in line for line in shown.splitlines()) == 1
        assert sum("lead back to itself" in line for line in shown.splitlines()) == 1
    finally:
        server.close()
