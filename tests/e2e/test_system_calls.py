"""Each sync, link, rename, unlink, mkdir and creation of a file fails or is the last thing a process does.

A life of a service is run once to see the calls that it makes for its journal, ledger, registry and
tables. Then it is run again for a call, which fails, fails although it took effect, or ends the process
before or after it. Afterwards the power goes, with all that is not durable (`support/device.py`): at the
death, or once the client was answered, after the call that failed or by the next process, which has taken up
what the first one left. In the end an outside reader finds each acknowledged span, tag and deletion. `CRASH_ALL=1` takes every call, otherwise a few that told something.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests

from support import generate, otlp, table
from support.device import Device, Point, shim, sync_after_link
from support.server import Server

ALL = os.environ.get("CRASH_ALL") == "1"
PATIENCE_SECONDS = 3

# Nothing is committed but by a flush.
SLOW = ("--settle-after", "1h", "--idle-after", "1h", "--commit-every", "1h", "--amend-every", "1h")
FLAGS = (*SLOW, "--maintain-every", "0s")

# A call, what befalls it, whether the power goes at the death.
Case = tuple[Point, str, bool]

needs_compiler = pytest.mark.skipif(shim() is None, reason="there is no C compiler to build the shim with")


@dataclass
class Life:
    """What clients want, in order, until each was answered, whatever becomes of the service."""

    server: Server
    device: Device
    cuts_at_death: bool
    make: generate.Maker = field(default_factory=lambda: generate.Maker(3))
    spans: dict[str, set[str]] = field(default_factory=dict)
    undone: list[str] = field(default_factory=list)

    def begin(self, point: Point | None, what: str) -> None:
        """Starts with a point; one that is met on the way up ends that start."""
        self.server.env = {"TRACELAKE_POWER_CUT": "1", **self.device.environment(point, what)}
        try:
            self.server.start()
        except AssertionError:
            assert self.device.was_met(), self.server.log_tail()
            self.after_death()

    def after_death(self) -> None:
        """Starts again, perhaps after the power was gone."""
        self.server.kill()
        if self.cuts_at_death:
            self.undone += self.device.cut()
        self.start_again()

    def lose_power_once(self) -> None:
        """What was met is believed by now: the power goes."""
        if self.device.was_met():
            self.server.kill()
            self.undone += self.device.cut()
            self.start_again()

    def start_again(self) -> None:
        """Starts a process that nothing befalls."""
        self.server.env = {"TRACELAKE_POWER_CUT": "1", **self.device.environment()}
        self.server.start()

    def until_done(self, attempt: Callable[[], requests.Response]) -> requests.Response:
        """Tries as a client does: again after an error, and after the service was started again."""
        for _ in range(3):
            deadline = time.monotonic() + PATIENCE_SECONDS
            while self.server.process.poll() is None and time.monotonic() < deadline:
                try:
                    answer = attempt()
                except requests.ConnectionError:
                    self.server.process.wait(timeout=30)
                    break
                if answer.status_code == 200:
                    self.lose_power_once()
                    return answer
                time.sleep(0.02)
            self.after_death()
        raise AssertionError(f"never answered\n{self.server.log_tail()}")

    def send(self, trace: bytes, *names: str) -> None:
        spans = [self.make.span(trace, name, span_id=self.make.span_id()) for name in names]
        body = generate.request(*spans).SerializeToString()
        self.until_done(lambda: otlp.post_bytes(self.server.url, body, timeout=30))
        self.spans.setdefault(trace.hex(), set()).update(span.span_id.hex() for span in spans)

    def tag(self, trace: bytes, key: str, value: str) -> None:
        url = f"/api/3.0/mlflow/traces/tr-{trace.hex()}/tags"
        body = {"key": key, "value": value}
        self.until_done(lambda: requests.patch(self.server.url + url, json=body, timeout=30))

    def delete(self, trace: bytes) -> None:
        url = "/api/3.0/mlflow/traces/delete-traces"
        body = {"experiment_id": "0", "request_ids": [f"tr-{trace.hex()}"]}
        self.until_done(lambda: requests.post(self.server.url + url, json=body, timeout=30))
        del self.spans[trace.hex()]

    def flush(self) -> None:
        self.until_done(lambda: requests.post(f"{self.server.url}/api/v1/flush", timeout=60))

    def live(self) -> bytes:
        """New traces, late spans, a tag, a deletion; all but the last of it is committed. Gives the tagged one."""
        one, two, three, four, five = (self.make.trace_id() for _ in range(5))
        self.send(one, "root", "step")
        self.send(two, "root")
        self.flush()
        self.send(one, "late")
        self.tag(one, "stage", "checked")
        self.send(three, "root")
        self.flush()
        self.delete(two)
        self.flush()
        self.send(four, "root")
        self.flush()
        self.send(five, "root")
        return one


def run(server: Server, device: Device, point: Point | None, what: str, cuts_at_death: bool) -> Life:
    """A life with a call that something befalls, the power cut after it, and what is found then."""
    life = Life(server, device, cuts_at_death)
    life.begin(point, what)
    tagged = life.live()
    server.kill()
    life.undone += device.cut()
    server.env = {}
    server.start()
    server.flush()
    found = table.rows(server.table_path())
    spans = {trace: sorted(span["span_id"] for span in row["spans"]) for trace, row in found.items()}
    assert spans == {trace: sorted(ids) for trace, ids in life.spans.items()}
    assert dict(found[tagged.hex()]["tags"])["stage"] == "checked"
    done = server.cli.run("verify", "tracelake.default.traces")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    server.stop()
    return life


@needs_compiler
@pytest.mark.timeout(0 if ALL else 300)
def test_each_call_may_fail_or_be_the_last(make_server: Callable[..., Server], tmp_path: Path) -> None:
    """For each call: whatever becomes of it, what is acknowledged is there once, also after a power cut."""

    def lives(name: str) -> tuple[Server, Device]:
        server = make_server(*FLAGS, name=f"{name}/data", quick=False)
        server.data_dir.parent.mkdir()
        # All that is above the data folder is there, so that the way to it is in the account as well.
        return server, Device(server.data_dir.parent, tmp_path / f"{name}.device")

    server, device = lives("seen")
    seen = Life(server, device, cuts_at_death=False)
    seen.begin(None, "")
    seen.live()
    points = device.points()
    kinds = {point.call for point in points}
    assert kinds == {"create", "link", "mkdir", "rename", "sync", "unlink"}, kinds
    cases = [
        (point, what, cuts)
        for point in points
        for what in ("fail", "late", "before", "after")
        # A file that is open although its creation failed is nothing that happens.
        if (point.call, what) != ("create", "late")
        for cuts in ((False, True) if what in ("before", "after") else (False,))
    ]
    chosen = cases if ALL else telling(points)
    server.remove()
    print(f"\n{len(points)} calls, {len(chosen)} of {len(cases)} cases")
    failures = []
    for number, (point, what, cuts) in enumerate(chosen):
        server, device = lives(str(number))
        label = f"{point} {what}{' and the power with it' if cuts else ''}"
        try:
            life = run(server, device, point, what, cuts)
            print(f"{label}: held, {len(life.undone)} undone", flush=True)
        except (AssertionError, requests.RequestException) as error:
            failures.append(f"{label}: {error}\n{server.log_tail(15)}")
            print(f"{label}: BROKEN {str(error)[:300]}", flush=True)
        server.remove()
    assert not failures, "\n\n".join(failures)


def telling(points: list[Point]) -> list[Case]:
    """What is run each time."""
    log = "data/tables/tracelake/default/traces/_delta_log/*.json"
    versions = sum((point.call, point.pattern) == ("link", log) for point in points)
    first, last = (sync_after_link(log, number) for number in (2, versions))
    return [
        # A version has its name, and nobody knows whether the device has it.
        (first, "fail", False),
        (last, "before", False),
        # The way to the first acknowledgement.
        (Point("mkdir", "data/journal", 1), "after", False),
        # What was done is noted, and nobody knows whether the device has it.
        (Point("rename", "data/journal/EPOCH", 2), "after", False),
    ]


@needs_compiler
def test_a_plan_that_failed_once_it_had_its_name_is_no_plan(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    """The plan of an epoch gets its name and an error; a later epoch is committed, and cannot be noted.

    A replay that took the first plan's word would take out an open trace that is in no table.
    """
    server = make_server(
        "--settle-after", "0s", "--idle-after", "1h", "--commit-every", "1h", "--amend-every", "1h",
        quick=False,
    )  # fmt: skip
    device = Device(tmp_path, tmp_path.with_name(f"{tmp_path.name}.device"))
    server.env = device.environment(Point("rename", "data/journal/*.plan", 2), "late")
    server.start()
    make = generate.Maker(6)
    first, unsettled, ended = (make.trace_id() for _ in range(3))
    otlp.post(server.url, generate.request(make.span(first, "root")))
    server.flush()
    # Without a root it settles by a flush alone.
    parent = make.span_id()
    otlp.post(server.url, generate.request(make.span(unsettled, "one", parent_span_id=parent)))
    answer = requests.post(f"{server.url}/api/v1/flush", timeout=60)
    assert answer.status_code == 503 and device.was_met(), answer.text
    otlp.post(server.url, generate.request(make.span(unsettled, "two", parent_span_id=parent)))
    otlp.post(server.url, generate.request(make.span(ended, "root")))
    obstacle = server.data_dir / "journal" / "EPOCH.new"
    obstacle.mkdir()
    server.process.terminate()
    server.process.wait(timeout=60)
    assert ended.hex() in table.rows(server.table_path()), "what had settled is committed"
    obstacle.rmdir()
    server.env = {}
    server.start()
    server.flush()
    found = {trace: len(row["spans"]) for trace, row in table.rows(server.table_path()).items()}
    assert found == {first.hex(): 1, unsettled.hex(): 2, ended.hex(): 1}
    server.stop()


@needs_compiler
def test_what_is_not_synced_is_gone(make_server: Callable[..., Server], tmp_path: Path) -> None:
    """The account itself: without a sync of the journal's folder the first acknowledged span is lost."""
    server = make_server(*FLAGS, quick=False)
    device = Device(tmp_path, tmp_path.with_name(f"{tmp_path.name}.device"))
    server.env = {"TRACELAKE_BREAK": "folder-sync", **device.environment()}
    server.start()
    make = generate.Maker(4)
    otlp.post(server.url, generate.request(make.span(make.trace_id(), "root")))
    server.kill()
    undone = device.cut()
    assert any("segment-" in change for change in undone), undone
    assert not list((server.data_dir / "journal").glob("segment-*"))
