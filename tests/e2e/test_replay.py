"""An archiver that is killed between its commit and its note of it, and what another one did meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support import generate, otlp, table
from support.server import DEFAULT_TABLE, Server

# Nothing is committed but by a flush.
SLOW = ("--settle-after", "1h", "--idle-after", "1h", "--commit-every", "1h", "--amend-every", "1h")


class Archiver:
    """One of the archivers, as a client sees it."""

    def __init__(self, server: Server):
        self.server = server

    def send(self, *spans) -> None:
        otlp.post(self.server.url, generate.request(*spans), session=self.server.session)

    def call(self, method: str, path: str, body: dict) -> None:
        url = f"{self.server.url}/api/3.0/mlflow/traces/{path}"
        answer = self.server.session.request(method, url, json=body, timeout=30)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"

    def tag(self, trace_id: bytes, key: str, value: str) -> None:
        self.call("PATCH", f"tr-{trace_id.hex()}/tags", {"key": key, "value": value})

    def delete(self, trace_id: bytes) -> None:
        body = {"experiment_id": "0", "request_ids": [f"tr-{trace_id.hex()}"]}
        self.call("POST", "delete-traces", body)

    @property
    def journal(self) -> Path:
        return self.server.data_dir / "journal"

    def commit_without_note(self) -> None:
        """Commits all that it has, and cannot note the epoch as done."""
        obstacle = self.journal / "EPOCH.new"
        obstacle.mkdir()
        answer = self.server.session.post(f"{self.server.url}/api/v1/flush", timeout=60)
        assert answer.status_code == 503 and "EPOCH" in answer.text, answer.text
        obstacle.rmdir()


def names(row: dict) -> list[str]:
    return sorted(span["name"] for span in row["spans"])


@pytest.mark.parametrize("start", ["at once", "killed again", "share away"])
def test_what_another_archiver_did_since_stands(
    start: str, make_server: Callable[..., Server], tmp_path: Path
) -> None:
    """Deletions, tags and spans that are younger than the commit are not undone by its replay."""
    shared = tmp_path / "mount" / "tables"
    shared.mkdir(parents=True)
    flags = ("--tables-dir", str(shared), *SLOW)
    servers = [make_server(*flags, name=name, quick=False) for name in ("one", "two")]
    for server in servers:
        server.start()
    one, two = map(Archiver, servers)
    path = shared.joinpath(*DEFAULT_TABLE.split("."))
    make = generate.Maker(5)
    fresh, shared_trace, tagged, emptied, lengthened, kept, unsettled = (
        make.trace_id() for _ in range(7)
    )
    late = [tagged, emptied, lengthened, kept]
    two.send(*(make.span(trace, "first") for trace in late))
    two.server.flush()

    # What the first archiver commits, and is killed before it can note.
    one.send(make.span(fresh, "mine"), make.span(shared_trace, "mine"))
    one.tag(tagged, "k", "old")
    one.delete(emptied)
    one.send(make.span(lengthened, "late"), make.span(kept, "late"))
    one.commit_without_note()
    rows = table.rows(path)
    assert emptied.hex() not in rows and names(rows[lengthened.hex()]) == ["first", "late"]
    assert dict(rows[tagged.hex()]["tags"])["k"] == "old"
    # What came to it after that is in no table.
    one.tag(tagged, "mine", "yes")
    one.send(make.span(unsettled, "mine"), make.span(kept, "later"))
    one.server.kill()
    # Until the epoch is noted, which may be as soon as it is up again.
    assert list(one.journal.glob("*.plan")), "the plan outlives the process"

    # What the second one does meanwhile.
    two.delete(fresh)
    two.delete(lengthened)
    two.tag(tagged, "k", "new")
    two.send(make.span(emptied, "anew"), make.span(shared_trace, "theirs"))
    two.server.flush()

    away = tmp_path / "away"
    if start == "share away":
        (tmp_path / "mount").rename(away)
    one.server.start()
    if start == "killed again":
        one.commit_without_note()
        one.server.kill()
        one.server.start()
    if start == "share away":
        # Whether the epoch is in cannot be told; what comes now waits, and is acknowledged.
        one.send(make.span(kept, "last"))
        for _ in range(2):
            answer = one.server.session.post(f"{one.server.url}/api/v1/flush", timeout=60)
            assert answer.status_code == 503 and "not mounted?" in answer.text, answer.text
        assert list(one.journal.glob("*.plan")), "in doubt the plan stands"
        away.rename(tmp_path / "mount")
    one.server.flush()
    two.server.flush()
    assert list(one.journal.glob("*.plan")) == []

    rows = table.rows(path)
    assert {trace: names(row) for trace, row in rows.items()} == {
        shared_trace.hex(): ["mine", "theirs"],
        tagged.hex(): ["first"],
        emptied.hex(): ["anew"],
        kept.hex(): sorted(["first", "late", "later", *(["last"] if start == "share away" else [])]),
        unsettled.hex(): ["mine"],
    }
    tags = dict(rows[tagged.hex()]["tags"])
    assert (tags["k"], tags["mine"]) == ("new", "yes")
