"""Files of the data folder that are damaged or lost: named by `verify`, mended where that can be, never silent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from deltalake import DeltaTable

from support import generate, otlp
from support.generate import Maker
from support.server import DEFAULT_TABLE, Server
from support.verification import faults, found, rewrite, verify


def filled(server: Server, make: Maker, traces: int) -> list[str]:
    """Starts the service and commits traces, each in an epoch of its own."""
    server.start()
    ids = []
    for _ in range(traces):
        trace_id = make.trace_id()
        otlp.post(server.url, generate.request(make.span(trace_id, "one")), session=server.session)
        server.flush()
        ids.append(f"tr-{trace_id.hex()}")
    return ids


def set_tag(server: Server, trace: str, key: str, value: str) -> None:
    """A tag by the MLflow client's call, committed."""
    url = f"{server.url}/api/3.0/mlflow/traces/{trace}/tags"
    body = {"trace_id": trace, "key": key, "value": value}
    answer = server.session.patch(url, json=body, timeout=30)
    assert answer.status_code == 200, answer.text
    server.flush()


def test_a_ledger_that_is_damaged_or_lost_is_named(make_server: Callable[..., Server]) -> None:
    """One byte flipped costs its entry and no other; a lost end and a lost ledger are told; it stays told."""
    server = make_server()
    filled(server, Maker(31), 5)
    server.stop()
    ledger = next((server.data_dir / "ledger").iterdir())
    good = ledger.read_bytes()
    assert verify(server.cli)[0] == 0
    flipped = bytearray(good)
    flipped[90] ^= 1
    ledger.write_bytes(flipped)
    for _ in range(2):
        code, rows = verify(server.cli)
        assert code == 1 and found(rows) == [], rows
        [fault] = faults(rows)
        assert str(ledger) in fault and "offset 16" in fault and "block 1" in fault, fault
        spans = [row["spans"] for row in rows if row["kind"] == "hour"]
        assert sum(spans) == 4, rows
        # The service goes on with the ledger, and the finding stays.
        filled(server, Maker(32), 0)
        server.stop()
    ledger.write_bytes(good[: len(good) - 100])
    assert any("says that it had 5" in fault for fault in faults(verify(server.cli)[1]))
    ledger.unlink()
    assert any("ends with block 0" in fault for fault in faults(verify(server.cli)[1]))
    ledger.write_bytes(good)
    assert verify(server.cli)[0] == 0


def test_databases_that_are_damaged_are_mended(make_server: Callable[..., Server]) -> None:
    """Garbage in catalog.db and registry.db: the service starts, says so, and has all that it had."""
    server = make_server()
    make = Maker(33)
    filled(server, make, 1)
    server.cli.ok("setup", "own.team.traces", "--experiment", "agents")
    server.stop()
    for name in ("catalog.db", "registry.db"):
        (server.data_dir / name).write_bytes(b"garbage" * 1000)
        (server.data_dir / f"{name}-wal").write_bytes(b"left behind")
    server.start()
    text = server.cli.ok("status", "--format", "json")
    assert "catalog.db.damaged-" in text and "registry.db.damaged-" in text, text
    assert '"own.team.traces"' in text and '"agents"' in text, text
    assert "moved aside" in server.cli.ok("status")
    server.cli.ok("setup", "own.team.traces", "--experiment", "agents")
    url = f"{server.url}/api/2.0/mlflow/experiments/create"
    created = server.session.post(url, json={"name": "later"}, timeout=30).json()
    assert int(created["experiment_id"]) > 1, created
    # The catalog has the tables again, the one that `setup` did not name as well.
    server.restart()
    checked = server.cli.json("check", DEFAULT_TABLE, "--no-write")
    (line,) = (line for line in checked if line["item"] == "damaged files")
    assert line["result"] == "note", line
    assert "catalog.db.damaged-" in line["found"] and "registry.db.damaged-" in line["found"], line
    assert "backup" in line["hint"], line
    assert verify(server.cli)[0] == 0


def test_changes_of_clients_are_compared(make_server: Callable[..., Server]) -> None:
    """A tag that another writer changed is none; one that is lost with its version is; so are parked records."""
    server = make_server()
    first, second = filled(server, Maker(34), 2)
    set_tag(server, first, "team", "search")
    set_tag(server, second, "team", "search")
    server.stop()
    path: Path = server.table_path()
    code, rows = verify(server.cli)
    assert (code, found(rows), faults(rows)) == (0, [], []), rows

    def change(rows: list[dict]) -> list[dict]:
        for row in rows:
            if row["trace_id"] == first:
                row["tags"] = [("team", "other")]
        return rows

    by_hand = DeltaTable(str(path)).version() + 1
    rewrite(path, change)
    code, rows = verify(server.cli)
    assert (code, found(rows), faults(rows)) == (0, [], []), rows
    assert any("another writer changed" in (row["text"] or "") for row in rows), rows

    for version in (by_hand, by_hand - 1):
        (path / "_delta_log" / f"{version:020}.json").unlink()
    code, rows = verify(server.cli)
    assert (code, found(rows)) == (1, [(second, "tags", 0, 1)]), rows

    parked = server.data_dir / "parked"
    parked.mkdir()
    (parked / "1.payload").write_bytes(b"")
    assert any("`parked/1`" in fault for fault in faults(verify(server.cli)[1]))


def test_what_another_archiver_did_is_no_loss(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    """Of one archiver's traces another one deletes one and changes a tag of one: told apart by the change feed."""
    shared = tmp_path / "tables"
    shared.mkdir()
    flags = ("--tables-dir", str(shared))
    one, two = (make_server(*flags, name=name) for name in ("one", "two"))
    deleted, tagged, kept = filled(one, Maker(35), 3)
    for trace in (deleted, tagged, kept):
        set_tag(one, trace, "team", "search")
    two.start()
    set_tag(two, tagged, "team", "other")
    url = f"{two.url}/api/3.0/mlflow/traces/delete-traces"
    body = {"experiment_id": "0", "request_ids": [deleted]}
    assert two.session.post(url, json=body, timeout=30).status_code == 200
    two.flush()
    code, rows = verify(one.cli)
    assert (code, found(rows), faults(rows)) == (0, [], []), rows
    assert sum(row["deleted_by_others"] or 0 for row in rows) == 1, rows
    assert any("another writer changed" in (row["text"] or "") for row in rows), rows
    assert verify(two.cli)[0] == 0

    # Beyond the change feed nobody knows who it was.
    for file in (shared.joinpath(*DEFAULT_TABLE.split("."))).glob("_change_data/*"):
        file.unlink()
    code, rows = verify(one.cli)
    assert code == 1, rows
    assert found(rows) == [(deleted, "gone", 1, 0)], rows
    assert any("by whom they were changed is not known" in (row["text"] or "") for row in rows), rows
