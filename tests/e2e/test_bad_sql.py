"""Statements made to harm: a clear error in bounded time and memory, exit code 1, never a signal."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import IO

import pytest

from support import generate, otlp, table
from support.server import DEFAULT_TABLE, Server, binary, clean_environment

# More than the time limit of one statement, so that what hangs is told from what is stopped.
TIMEOUT = 100
# The engine's limit is 256 MiB, and a program of the dev profile takes some itself.
MAX_RSS_MIB = 1536


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A folder with a small table and no service."""
    server = Server(tmp_path_factory.mktemp("sql") / "data")
    server.start()
    make = generate.Maker(51)
    for number in range(20):
        otlp.post(server.url, generate.request(make.span(make.trace_id(), f"n{number}")))
    server.flush()
    server.stop()
    yield server


class Outcome:
    """How a command ended, and what it took."""

    def __init__(self, server: Server, *arguments: str | bytes):
        begun = time.monotonic()
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = subprocess.Popen(
                [str(binary()), "--data-dir", str(server.data_dir), *arguments],
                stdout=out, stderr=err, stdin=subprocess.DEVNULL,
                env=clean_environment(), cwd=server.data_dir.parent,
            )  # fmt: skip
            killer = threading.Timer(TIMEOUT, process.kill)
            killer.start()
            # Unlike getrusage, this gives the peak of this child alone.
            _, status, usage = os.wait4(process.pid, 0)
            killer.cancel()
            process.returncode = self.code = os.waitstatus_to_exitcode(status)
            self.seconds = time.monotonic() - begun
            self.rss_mib = usage.ru_maxrss / 1024
            self.out, self.err = (read_whole(file) for file in (out, err))

    def __str__(self) -> str:
        return (
            f"exit {self.code} after {self.seconds:.1f} s, {self.rss_mib:.0f} MiB\n"
            f"{self.out[:300]}\n{self.err[:600]}"
        )


def read_whole(file: IO[bytes]) -> str:
    """What a command wrote."""
    file.seek(0)
    return file.read().decode(errors="replace")


def refused(server: Server, sql: str, *options: str) -> Outcome:
    """Runs a statement that must end with a clear error."""
    outcome = Outcome(server, "sql", *options, "--", sql)
    assert outcome.code == 1, outcome
    assert outcome.err.startswith("error: "), outcome
    assert "panicked" not in outcome.err and "overflowed its stack" not in outcome.err, outcome
    assert len(outcome.err) < 4000, outcome
    assert outcome.rss_mib < MAX_RSS_MIB, outcome
    return outcome


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file with its size and time of change."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


T = DEFAULT_TABLE

WRITES = [
    f"INSERT INTO {T} SELECT * FROM {T}",
    f"INSERT OVERWRITE {T} SELECT * FROM {T}",
    f"UPDATE {T} SET run_id = 'x'",
    f"DELETE FROM {T}",
    f"TRUNCATE TABLE {T}",
    f"MERGE INTO {T} t USING {T} s ON t.trace_id = s.trace_id WHEN MATCHED THEN DELETE",
    f"DROP TABLE {T}",
    "DROP SCHEMA tracelake.default CASCADE",
    "DROP DATABASE tracelake",
    f"ALTER TABLE {T} RENAME TO x",
    f"ALTER TABLE {T} DROP COLUMN spans",
    "CREATE TABLE x AS SELECT 1",
    "CREATE OR REPLACE VIEW v AS SELECT 1",
    "CREATE SCHEMA s",
    "CREATE DATABASE d",
    "CREATE FUNCTION f(a INT) RETURNS INT RETURN a",
    "CREATE EXTERNAL TABLE p STORED AS CSV LOCATION '/etc/passwd'",
    "CREATE UNBOUNDED EXTERNAL TABLE p STORED AS CSV LOCATION '/etc/passwd'",
    f"COPY {T} TO 'out.parquet'",
    f"COPY (SELECT * FROM {T}) TO 'out' STORED AS CSV",
    "COPY (SELECT 1) TO 'http://127.0.0.1:9/x' STORED AS CSV",
    "SET datafusion.execution.batch_size = 1",
    "SET TIME ZONE = 'UTC'",
    "RESET datafusion.execution.batch_size",
    f"EXPLAIN INSERT INTO {T} SELECT * FROM {T}",
    f"EXPLAIN ANALYZE INSERT INTO {T} SELECT * FROM {T}",
    f"EXPLAIN ANALYZE DELETE FROM {T}",
    f"EXPLAIN ANALYZE COPY {T} TO 'out.csv'",
    "EXPLAIN ANALYZE CREATE TABLE x AS SELECT 1",
    f"WITH x AS (SELECT * FROM {T}) INSERT INTO {T} SELECT * FROM x",
    f"WITH x AS (DELETE FROM {T}) SELECT * FROM x",
    f"SELECT * INTO y FROM {T}",
    f"SELECT * FROM (DELETE FROM {T}) x",
    f"SELECT 1; DROP TABLE {T}",
    f"SELECT 1;; DELETE FROM {T}",
    f"SELECT 1 -- \n; DROP TABLE {T}",
    f"/* SELECT */ DROP TABLE {T} /* */",
    f"--\nDELETE FROM {T}",
    f"/*! DELETE FROM {T} */ DELETE FROM {T}",
    f";DELETE FROM {T}",
    "BEGIN",
    "COMMIT",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "DEALLOCATE p",
    "USE other",
    f"VACUUM {T}",
    f"OPTIMIZE {T}",
    f"ANALYZE TABLE {T} COMPUTE STATISTICS",
    "GRANT ALL ON x TO y",
    "CALL system.rollback()",
    "LOAD DATA INPATH '/etc/passwd' INTO TABLE x",
    "ATTACH 'x.db' AS x",
    "PRAGMA database_list",
    "INSTALL httpfs",
    "KILL 1",
]


@pytest.mark.parametrize("sql", WRITES)
def test_writing_is_refused_and_nothing_changes(archive: Server, sql: str) -> None:
    outer = archive.data_dir.parent
    before = files(outer)
    outcome = refused(archive, sql)
    assert outcome.seconds < 10, outcome
    assert files(outer) == before


def test_the_table_is_whole_after_all_that(archive: Server) -> None:
    assert len(table.rows(archive.table_path())) == 20


class Listener:
    """An address on this machine that notes who asks."""

    def __init__(self):
        asked = self.asked = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.path)
                self.send_response(200)
                self.end_headers()

            do_HEAD = do_PUT = do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


READS = [
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM \"/etc/passwd\"",
    "SELECT * FROM `/etc/passwd`",
    "SELECT * FROM 'secret.csv'",
    "SELECT * FROM './secret.csv'",
    "SELECT * FROM 'secret.parquet'",
    "SELECT * FROM 'file:///etc/passwd'",
    "SELECT * FROM 'data/registry.db'",
    "SELECT * FROM 'http://127.0.0.1:{port}/x.csv'",
    "SELECT * FROM 'https://127.0.0.1:{port}/x.parquet'",
    "SELECT * FROM 's3://127.0.0.1:{port}/x.parquet'",
    "SELECT * FROM read_csv('secret.csv')",
    "SELECT * FROM read_csv_auto('secret.csv')",
    "SELECT * FROM read_parquet('secret.parquet')",
    "SELECT * FROM read_json('secret.json')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM parquet_scan('secret.parquet')",
    "SELECT * FROM parquet_metadata('secret.parquet')",
    "SELECT * FROM parquet.`/etc/passwd`",
    "SELECT * FROM csv.`/etc/passwd`",
    "SELECT * FROM delta.`/etc`",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM metadata_cache()",
    "SELECT * FROM statistics_cache()",
    "SELECT * FROM list_files_cache()",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT load_file('/etc/passwd')",
    "SELECT read_text('/etc/passwd')",
    "SELECT getenv('HOME')",
    "SELECT current_setting('data_directory')",
    "SELECT * FROM pg_catalog.pg_settings",
]


@pytest.mark.parametrize("sql", READS)
def test_files_and_addresses_are_not_read(archive: Server, sql: str) -> None:
    outer = archive.data_dir.parent
    (outer / "secret.csv").write_text("a,b\nhidden,1\n")
    (outer / "secret.json").write_text('{"a": "hidden"}\n')
    listener = Listener()
    outcome = refused(archive, sql.replace("{port}", str(listener.port)))
    assert outcome.seconds < 10, outcome
    assert "hidden" not in outcome.out + outcome.err and "root:" not in outcome.out + outcome.err
    assert listener.asked == []
    listener.server.shutdown()


def test_the_catalog_tells_no_paths(archive: Server) -> None:
    """What can be asked about tables names tables and columns, and nothing of the machine."""
    outer = str(archive.data_dir.parent)
    asked = 0
    for view in ("tables", "columns", "views", "schemata", "df_settings", "routines", "parameters"):
        outcome = Outcome(archive, "sql", "--format", "csv", f"SELECT * FROM information_schema.{view}")
        assert outcome.code in (0, 1), outcome
        asked += outcome.code == 0
        assert outer not in outcome.out + outcome.err, outcome
    assert 3 < asked
    for sql in ("SHOW TABLES", "SHOW ALL", f"DESCRIBE {T}", f"SHOW COLUMNS FROM {T}", f"EXPLAIN SELECT * FROM {T}", f"SHOW CREATE TABLE {T}"):
        outcome = Outcome(archive, "sql", "--", sql)
        assert outcome.code in (0, 1), outcome
        assert outer not in outcome.out + outcome.err, outcome


# Counts to infinity. It runs beside all other tests of this file, since it takes the whole time limit.
ENDLESS = "WITH RECURSIVE r AS (SELECT 1 n UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r"


@pytest.fixture(scope="module", autouse=True)
def endless(archive: Server) -> Iterator[Callable[[], Outcome]]:
    """Starts the statement that never ends; gives what waits for how it ended."""
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(Outcome(archive, "sql", ENDLESS)))
    thread.start()

    def wait() -> Outcome:
        thread.join()
        return outcomes[0]

    yield wait
    thread.join()


# What makes much of little. Each is stopped by a limit, whichever comes first.
GREEDY = [
    "SELECT * FROM generate_series(1, 1000000000000)",
    "SELECT array_agg(value) FROM generate_series(1, 1000000000)",
    "SELECT value FROM generate_series(1, 1000000000) ORDER BY -value LIMIT 1 OFFSET 999999999",
    "SELECT a.value FROM generate_series(1, 100000000) a JOIN generate_series(1, 100000000) b ON a.value = b.value",
    "WITH RECURSIVE r AS (SELECT 'x' s UNION ALL SELECT s || s FROM r) SELECT max(length(s)) FROM r",
    "SELECT length(repeat('x', 2000000000))",
    "SELECT repeat('x', 2000000000)",
    "SELECT repeat(trace_id, 100000000) FROM traces",
    "SELECT lpad('x', 2000000000, 'y')",
    "SELECT rpad(trace_id, 2000000000, 'y') FROM traces",
    "SELECT array_repeat('x', 1000000000)",
    "SELECT array_resize([1], 1000000000, 1)",
    "SELECT range(0, 1000000000000)",
    "SELECT generate_series(1, 2000000000)",
    "SELECT replace(repeat('a', 30000), 'a', repeat('b', 100000))",
    "SELECT flatten(array_repeat(array_repeat(1, 100000), 100000))",
    "SELECT count(*) FROM (SELECT unnest(range(0, 1000000)) a), (SELECT unnest(range(0, 1000000)) b) WHERE a * b = 1",
]  # fmt: skip

@pytest.mark.parametrize("sql", GREEDY)
def test_memory_is_bounded(archive: Server, sql: str) -> None:
    outcome = refused(archive, sql)
    assert re.search("memory|too large|exceeds|limit", outcome.err), outcome
    assert "hint: " in outcome.err or "too large" in outcome.err or "exceeds" in outcome.err, outcome


def repeated(count: int, separator: str, part: str) -> str:
    return separator.join(part.replace("#", str(number)) for number in range(count))


# The operating system takes at most 128 KiB in one argument; longer ones are tested beside the engine.
DEEP = {
    "parentheses": "SELECT " + "(" * 20_000 + "1" + ")" * 20_000,
    "open parentheses": "SELECT " + "(" * 100_000,
    "subqueries": "SELECT " + "(SELECT " * 5_000 + "1" + ")" * 5_000,
    "minus": "SELECT " + "- " * 30_000 + "1",
    "not": "SELECT " + "NOT " * 20_000 + "true",
    "plus": "SELECT " + repeated(30_000, "+", "1"),
    "or": "SELECT 1 WHERE " + repeated(8_000, " OR ", "1=#"),
    "and": "SELECT 1 WHERE " + repeated(8_000, " AND ", "(1=#)"),
    "concat": "SELECT " + repeated(10_000, "||", "'a'"),
    "casts": "SELECT 1" + "::int" * 20_000,
    "is null": "SELECT 1" + " IS NULL" * 10_000,
    "between": "SELECT " + "(" * 45 + "1" + " BETWEEN 0 AND 1)" * 45,
    "case": "SELECT " + "CASE WHEN true THEN " * 3_000 + "1" + " END" * 3_000,
    "calls": "SELECT " + "abs(" * 10_000 + "1" + ")" * 10_000,
    "arrays": "SELECT " + "[" * 20_000 + "1" + "]" * 20_000,
    "union all": repeated(5_000, " UNION ALL ", "SELECT #"),
    "union": repeated(5_000, " UNION ", "(SELECT #)"),
    "cross joins": "SELECT 1 FROM " + repeated(3_000, ", ", "(VALUES (1)) t#"),
    "joins": "SELECT 1 FROM traces t " + repeated(2_000, " ", "JOIN traces t# ON t#.trace_id = t.trace_id"),
    "expressions in a row": "WITH c AS (SELECT 1 a), " + ", ".join(f"c{n} AS (SELECT a FROM {'c' if n == 0 else f'c{n - 1}'})" for n in range(2_000)) + " SELECT * FROM c1999",
    "expressions squared": "WITH c0 AS (SELECT 1 a), " + ", ".join(f"c{n} AS (SELECT x.a FROM c{n - 1} x, c{n - 1} y)" for n in range(1, 30)) + " SELECT count(*) FROM c29",
    "lambdas": "SELECT " + "array_any_match([1], x -> " * 1_000 + "true" + ")" * 1_000,
    "explain": "EXPLAIN " * 10_000 + "SELECT 1",
    "dots": "SELECT " + repeated(20_000, ".", "a") + " FROM traces",
    "subscripts": "SELECT spans" + "[1]" * 20_000 + " FROM traces",
    "intervals": "SELECT " + "interval " * 10_000 + "'1' day",
    "comments": "SELECT " + "/*" * 30_000 + "*/" * 30_000 + " x",
    "arrows": "SELECT 1" + " -> 1" * 10_000,
    "collate": "SELECT 'a'" + " COLLATE x" * 8_000,
    "time zones": "SELECT now()" + " AT TIME ZONE 'UTC'" * 5_000,
    "columns": "SELECT " + repeated(120, ", ", "repeat('x', 1000000000) c#"),
    "grouping sets": "SELECT count(*) FROM traces GROUP BY CUBE(" + repeated(40, ", ", "trace_id || '#'") + ")",
    "regular expression": "SELECT regexp_like('aaaa', '(((a{1,200}){1,200}){1,200}){1,200}$')",
    "regular expression, nested": "SELECT regexp_like('a', '" + "(" * 20_000 + "a" + ")" * 20_000 + "')",
    "quotes": "SELECT " + "'" * 100_001,
    "dollar quotes": "SELECT " + "$a$" * 30_001,
    "no statement": "",
    "spaces": " " * 100_000,
    "semicolons": ";" * 100_000,
}  # fmt: skip


@pytest.mark.parametrize("name", DEEP)
def test_deep_and_long_statements_are_refused(archive: Server, name: str) -> None:
    outcome = refused(archive, DEEP[name])
    assert outcome.seconds < 30, outcome


# Large, and of a kind that people and programs write. They must run.
LARGE = {
    "values in a list": "SELECT count(*) FROM traces WHERE trace_id IN (" + repeated(2_500, ", ", "'tr-0000000000000000000000000000#'") + ")",
    "columns": "SELECT " + repeated(2_000, ", ", "# AS c#") + " FROM traces",
    "rows": "SELECT count(*) FROM (VALUES " + repeated(5_000, ", ", "(#, 'x')") + ") v",
    "alternatives": "SELECT count(*) FROM traces WHERE " + repeated(150, " OR ", "trace_id = '#'"),
    "tables": "SELECT sum(n) FROM (" + repeated(40, " UNION ALL ", "SELECT count(*) n FROM traces") + ")",
    "nested regular expression": "SELECT count(*) FROM traces WHERE regexp_like(repeat('a', 100000), '(a*)*(a|a)*b') = false",
    "like": "SELECT count(*) FROM traces WHERE repeat('a', 10000) LIKE '" + "%a" * 200 + "b'",
}  # fmt: skip


@pytest.mark.parametrize("name", LARGE)
def test_large_ordinary_statements_run(archive: Server, name: str) -> None:
    outcome = Outcome(archive, "sql", "--format", "csv", "--", LARGE[name])
    assert outcome.code == 0, outcome
    assert outcome.rss_mib < MAX_RSS_MIB and outcome.seconds < 40, outcome


def test_a_statement_that_is_not_utf8_is_refused(archive: Server) -> None:
    for statement in (b"SELECT '\xff\xfe'", b"\xc3\x28", b"SELECT 1 \xed\xa0\x80"):
        outcome = Outcome(archive, "sql", statement)
        assert outcome.code in (1, 2) and outcome.err.startswith("error: "), outcome
        assert "\ufffd" not in outcome.err or "UTF-8" in outcome.err, outcome


def test_time_is_bounded(endless: Callable[[], Outcome]) -> None:
    """The last test of this file, so that most of the minute has passed with the others."""
    outcome = endless()
    assert outcome.code == 1 and outcome.err.startswith("error: "), outcome
    assert "time limit" in outcome.err and outcome.seconds < 80, outcome
    assert outcome.rss_mib < MAX_RSS_MIB, outcome
