"""Data folders that were moved, copied, or restored from an older copy."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from support import generate, otlp, table
from support.server import DEFAULT_TABLE, Server

# Nothing is committed but by a flush.
SLOW = ("--settle-after", "1h", "--idle-after", "1h", "--commit-every", "1h", "--amend-every", "1h")


def send(server: Server, *spans) -> None:
    otlp.post(server.url, generate.request(*spans), session=server.session)


def names(row: dict) -> list[str]:
    return sorted(span["name"] for span in row["spans"])


def applications(path: Path) -> set[str]:
    """The names under which epochs were committed."""
    return {application for application, _ in table.epochs(path)}


@pytest.mark.parametrize("copied", ["clean", "with a journal", "after its commit"])
def test_two_services_on_copies_of_one_folder(
    copied: str, make_server: Callable[..., Server], tmp_path: Path
) -> None:
    """Each lands what it acknowledged, once; one of both takes another name and says so."""
    shared = tmp_path / "tables"
    shared.mkdir()
    flags = ("--tables-dir", str(shared), *SLOW)
    one, two = (make_server(*flags, name=name, quick=False) for name in ("one", "two"))
    path = shared.joinpath(*DEFAULT_TABLE.split("."))
    make = generate.Maker(3)
    before, waiting, first, second, both = (make.trace_id() for _ in range(5))
    one.start()
    send(one, make.span(before, "before"))
    one.flush()
    if copied == "clean":
        one.stop()
    else:
        send(one, make.span(waiting, "waiting"))
        if copied == "after its commit":
            obstacle = one.data_dir / "journal" / "EPOCH.new"
            obstacle.mkdir()
            answer = one.session.post(f"{one.url}/api/v1/flush", timeout=60)
            assert answer.status_code == 503, answer.text
            obstacle.rmdir()
        one.kill()
    shutil.copytree(one.data_dir, two.data_dir, symlinks=True)
    for server in (one, two):
        server.start()
    for _ in range(2):
        send(one, make.span(first, "of one"), make.span(both, "of one"))
        send(two, make.span(second, "of two"), make.span(both, "of two"), make.span(before, "late"))
        one.flush()
        two.flush()
    expected = {
        before.hex(): ["before", "late", "late"],
        first.hex(): ["of one", "of one"],
        second.hex(): ["of two", "of two"],
        both.hex(): ["of one", "of one", "of two", "of two"],
    }
    if copied != "clean":
        expected[waiting.hex()] = ["waiting"]
    assert {trace: names(row) for trace, row in table.rows(path).items()} == expected
    known = applications(path)
    assert len(known) == 2, known
    # Whoever came second under a number has another name.
    renamed = [
        server
        for server in (one, two)
        if "another data folder is a copy of this one" in server.cli.ok("status")
    ]
    assert len(renamed) == 1, [server.data_dir for server in renamed]

    # The name is kept.
    renamed[0].stop()
    renamed[0].start()
    send(renamed[0], make.span(second, "again"))
    renamed[0].flush()
    assert applications(path) == known
    assert names(table.rows(path)[second.hex()]) == ["again", "of two", "of two"]


def test_a_folder_that_is_restored_from_an_older_copy(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    """What the lost folder committed stays, and what the restored one acknowledges lands beside it."""
    shared = tmp_path / "tables"
    shared.mkdir()
    flags = ("--tables-dir", str(shared), *SLOW)
    server = make_server(*flags, quick=False)
    path = shared.joinpath(*DEFAULT_TABLE.split("."))
    make = generate.Maker(4)
    old, lost, later = (make.trace_id() for _ in range(3))
    server.start()
    send(server, make.span(old, "old"))
    server.kill()
    backup = tmp_path / "backup"
    shutil.copytree(server.data_dir, backup, symlinks=True)
    server.start()
    server.flush()
    for _ in range(3):
        send(server, make.span(lost, "lost"))
        server.flush()
    server.kill()
    shutil.rmtree(server.data_dir)
    backup.rename(server.data_dir)
    server.start()
    send(server, make.span(later, "later"))
    server.flush()
    assert {trace: names(row) for trace, row in table.rows(path).items()} == {
        old.hex(): ["old"],
        lost.hex(): ["lost"] * 3,
        later.hex(): ["later"],
    }


def test_a_folder_that_is_moved_goes_on(server: Server) -> None:
    """Its tables are read and written, by service and commands, and the catalog says where they are."""
    make = generate.Maker(6)
    one, two = make.trace_id(), make.trace_id()
    send(server, make.span(one, "one"))
    server.flush()
    server.stop()
    moved = server.data_dir.with_name("moved")
    server.data_dir.rename(moved)
    server.data_dir = moved
    assert server.cli.scalar("select count(*) from traces") == 1
    server.start()
    send(server, make.span(two, "two"), make.span(one, "late"))
    server.flush()
    rows = table.rows(server.table_path())
    assert {trace: names(row) for trace, row in rows.items()} == {
        one.hex(): ["late", "one"],
        two.hex(): ["two"],
    }
    entry = server.session.get(
        f"{server.url}/api/2.1/unity-catalog/tables/{DEFAULT_TABLE}", timeout=30
    ).json()
    assert entry["storage_location"] == f"file://{server.table_path()}", entry
    assert server.cli.scalar("select count(*) from traces") == 2
