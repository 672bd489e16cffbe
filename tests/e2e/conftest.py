"""Fixtures: one service per test on a folder of its own, or one per module where tests only read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.server import SHARED_DATA, Server, binary

SERVERS = pytest.StashKey[list[Server]]()


def pytest_report_header() -> list[str]:
    """What is under test, for whoever reads the log later."""
    return [
        f"binary: {binary()}",
        f"real data: {SHARED_DATA if SHARED_DATA.is_dir() else 'absent'}",
    ]


def pytest_configure(config: pytest.Config) -> None:
    """A missing binary is one clear message, not a hundred failures."""
    if not config.option.collectonly and not os.access(binary(), os.X_OK):
        pytest.exit(
            f"no binary at {binary()}\nhint: run make build, or set TRACELAKE_BIN", returncode=4
        )


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    """Adds the logs of the services to the report of a failed test."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        used = [getattr(value, "server", value) for value in item.funcargs.values()]
        shared = [value for value in used if isinstance(value, Server)]
        for server in dict.fromkeys([*item.stash.get(SERVERS, []), *shared]):
            report.sections.append((f"service {server.data_dir.name}", server.log_tail()))


@pytest.fixture
def make_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Makes services that are not started yet; all are ended with the test."""
    made: list[Server] = []
    request.node.stash[SERVERS] = made

    def make(*flags: str, name: str = "data", **options) -> Server:
        server = Server(tmp_path / name, *flags, **options)
        made.append(server)
        return server

    yield make
    for server in made:
        server.close()


@pytest.fixture
def server(make_server: Callable[..., Server]) -> Server:
    """A running service on a fresh folder, with short waits."""
    started = make_server()
    started.start()
    return started


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of recorded real data; the test is skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the recorded real traces are not on this machine (../shared/data)")
    return SHARED_DATA
