"""From a table row the OTLP spans come back as they were sent, value for value."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from support import generate, otlp
from support.otlp import ExportTraceServiceRequest
from support.server import DEFAULT_TABLE, Server
from support.truth import differences, load_real, read_delimited, truth_of


def archived(server: Server, bodies: list[ExportTraceServiceRequest], content_type: str) -> None:
    """Sends all and waits until the table has them."""
    for body in bodies:
        answer = otlp.post(server.url, body, content_type, session=server.session)
        assert not answer.partial_success.rejected_spans, answer
    server.flush()


def rebuild(server: Server, tmp_path: Path) -> list[ExportTraceServiceRequest]:
    """Every trace of the default table as requests."""
    output = tmp_path / "rebuilt.bin"
    server.cli.ok("rebuild", DEFAULT_TABLE, "--output", str(output), timeout=240)
    return read_delimited(output.read_bytes())


@pytest.mark.parametrize("content_type", [otlp.PROTOBUF, otlp.JSON])
@pytest.mark.parametrize("case", sorted(generate.TRICKY))
def test_a_difficult_trace_comes_back_as_sent(
    shared_server: Server, case: str, content_type: str, tmp_path: Path
) -> None:
    """Each difficult trace alone, so that a failure names its kind."""
    seed = hash_of(case, content_type)
    bodies = generate.TRICKY[case](generate.Maker(seed))
    archived(shared_server, bodies, content_type)
    (trace_id,) = truth_of(bodies)
    output = tmp_path / "one.pb"
    shared_server.cli.ok(
        "rebuild", DEFAULT_TABLE, "--trace-id", f"tr-{trace_id}", "--output", str(output)
    )
    rebuilt = ExportTraceServiceRequest.FromString(output.read_bytes())
    wrong = differences(truth_of(bodies), truth_of([rebuilt]))
    assert not wrong, "\n".join(wrong)


def hash_of(*parts: str) -> int:
    """A number that is the same in every run, unlike `hash`."""
    return zlib.crc32("/".join(parts).encode())


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory):
    """One service for all the cases; they have trace ids of their own."""
    server = Server(tmp_path_factory.mktemp("rebuild") / "data")
    server.start()
    yield server
    server.close()


@pytest.mark.parametrize("content_type", [otlp.PROTOBUF, otlp.JSON])
def test_random_traces_come_back_as_sent(server: Server, content_type: str, tmp_path: Path) -> None:
    """Three hundred random traces at once: trees, values of every type, several resources."""
    bodies = generate.random_traces(seed=2026, count=300)
    archived(server, bodies, content_type)
    wrong = differences(truth_of(bodies), truth_of(rebuild(server, tmp_path)))
    assert not wrong, f"{len(wrong)} traces differ\n" + "\n".join(wrong[:5])


def test_real_traces_come_back_as_sent_after_amendments(
    make_server: Callable[..., Server], real_data: Path, tmp_path: Path
) -> None:
    """The bodies sent one by one with a flush between, so that split traces are amended."""
    server = make_server()
    server.start()
    named = load_real(real_data)
    first = [body for name, body in named if name.split(".")[1] == "000"]
    later = [body for name, body in named if name.split(".")[1] != "000"]
    assert later
    archived(server, first, otlp.PROTOBUF)
    for body in later:
        archived(server, [body], otlp.PROTOBUF)
    archived(server, first[:10], otlp.PROTOBUF)
    wrong = differences(truth_of(body for _, body in named), truth_of(rebuild(server, tmp_path)))
    assert not wrong, f"{len(wrong)} traces differ\n" + "\n".join(wrong[:5])


def test_rebuild_of_an_unknown_trace_is_a_clear_error(server: Server, tmp_path: Path) -> None:
    """Nothing is written, and the message names the trace."""
    archived(server, [body for _, body in generate.tricky()[:1]], otlp.PROTOBUF)
    unknown = "tr-" + "ab" * 16
    output = tmp_path / "none.pb"
    done = server.cli.run("rebuild", DEFAULT_TABLE, "--trace-id", unknown, "--output", str(output))
    assert done.returncode != 0
    assert unknown in done.stderr
    assert not output.exists() or not output.read_bytes()
