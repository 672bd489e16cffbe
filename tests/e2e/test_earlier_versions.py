"""A data folder that an earlier version left in the middle of its work opens, drains and verifies.

What is in the archives, and how they were made, is in `fixtures/make_folder_*.py`.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.folders import EXPERIMENT, TABLES, plain_rows, unpack
from support.server import DEFAULT_TABLE, Server

FIXTURES = Path(__file__).parent / "fixtures"

# When a row was written, and how often, is up to the version that wrote it.
OF_THE_WRITER = ("created_at", "updated_at", "revision")


def spans_by_id(row: dict) -> dict:
    """The row with its spans by their ids: their order is no fact of the trace."""
    spans = {(span["span_id"], span["name"]): span for span in row["spans"]}
    assert len(spans) == len(row["spans"]), row["trace_id"]
    return {**row, "spans": spans}


def facts(row: dict, columns: set[str]) -> dict:
    """The columns that the earlier version had and that say something of the trace."""
    kept = {key: row[key] for key in columns if key not in OF_THE_WRITER}
    return spans_by_id(kept)


@pytest.mark.parametrize("version", ["9cd2f0f"])
def test_a_folder_of_an_earlier_version_is_drained(
    version: str, make_server: Callable[..., Server], tmp_path: Path
) -> None:
    """An unclean end with an open carry, two plans, changes, late spans: nothing is lost, doubled or altered."""
    unpack(FIXTURES / f"folder_{version}.tar.gz", tmp_path)
    told = json.loads((tmp_path / "told.json").read_text())
    rows = json.loads((tmp_path / "rows.json").read_text())
    # The clock of the machine decides nothing: the ledger is not forgotten, nothing is rewritten.
    server = make_server("--maintain-every", "0s", "--ledger-retention", "36500d", quick=False)
    server.start()
    server.flush()

    found = plain_rows(server.data_dir)
    spans = {
        trace: sorted(span["span_id"] for span in row["spans"])
        for name in TABLES
        for trace, row in found[name].items()
    }
    assert spans == {trace: sorted(ids) for trace, ids in told["spans"].items()}
    for trace, tags in told["tags"].items():
        assert tags.items() <= dict(found[DEFAULT_TABLE][trace]["tags"]).items(), trace
    for trace, assessments in told["assessments"].items():
        archived = found[DEFAULT_TABLE][trace]["assessments"]
        assert {a["assessment_id"]: a["assessment_name"] for a in archived} == assessments

    for name in TABLES:
        assert found[name].keys() == rows["after"][name].keys()
        for trace, old in rows["after"][name].items():
            columns = old.keys()
            assert facts(found[name][trace], columns) == facts(old, columns), trace
        for trace in rows["before"][name].keys() & set(told["untouched"]):
            old = rows["before"][name][trace]
            assert {key: found[name][trace][key] for key in old} == old, "a row that nobody touched"

    for name in TABLES:
        done = server.cli.run("verify", name)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        assert "everything acknowledged is there" in done.stdout
    experiments = server.cli.sql("select distinct experiment_id from traces order by 1")
    assert [row["experiment_id"] for row in experiments] == ["0"]
    assert EXPERIMENT in server.cli.ok("status")
    server.stop()
    server.start()
    assert plain_rows(server.data_dir) == found, "a second start changes nothing"
    server.stop()


def test_the_archive_names_no_machine() -> None:
    """What was made anywhere is the same for everyone: no path but the one that is rewritten."""
    with tarfile.open(FIXTURES / "folder_9cd2f0f.tar.gz") as packed:
        for entry in packed:
            if entry.isfile():
                content = packed.extractfile(entry).read()
                for place in (b"/home/", b"/root/", b"/tmp/"):
                    assert place not in content, entry.name
    assert (FIXTURES / "folder_9cd2f0f.tar.gz").stat().st_size < 1 << 20
