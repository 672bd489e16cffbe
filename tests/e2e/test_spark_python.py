"""Python's queries and analyses, answered here and by Spark Connect on Sail, over 20,000 traces."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import tracelake
from opentelemetry.proto.trace.v1 import trace_pb2

from support import generate, otlp, spark, table
from support.generate import MS, Maker
from support.otlp import ExportTraceServiceRequest
from support.server import Server
from support.unity import API

TRACES = 20_000
WORKERS = 4
NAME = "production.monitoring.agent_traces"
EXPERIMENTS = ("/Shared/agent", "/Shared/\u00e4gent `two`", "/Shared/three")
# Long before any row is archived, so that the same question is asked twice.
SINCE = datetime(2020, 1, 1, tzinfo=UTC)

Ask = Callable[..., object]

# Every ready-made question there is.
QUESTIONS: dict[str, Ask] = {
    "archived_traces": lambda **more: tracelake.query_archived_traces(limit=2_000, **more),
    "archived_traces_without_payloads": lambda **more: tracelake.query_archived_traces(
        payloads=False, limit=5_000, **more
    ),
    "traces": tracelake.list_traces,
    "errors": tracelake.analyze_trace_errors,
    "error_groups": lambda **more: tracelake.analyze_trace_errors(group=True, **more),
    "performance": tracelake.analyze_trace_performance,
    "performance_by_span_name": lambda **more: tracelake.analyze_trace_performance(
        by="span_name", **more
    ),
    "performance_by_span_type": lambda **more: tracelake.analyze_trace_performance(
        by="span_type", **more
    ),
    "performance_by_model": lambda **more: tracelake.analyze_trace_performance(by="model", **more),
    "performance_by_experiment": lambda **more: tracelake.analyze_trace_performance(
        by="experiment", **more
    ),
    "performance_by_hour": lambda **more: tracelake.analyze_trace_performance(by="hour", **more),
}
# Those that answer with whole tables of traces are limited above; the rest must not be empty or cut.
ROWS = {"traces": TRACES, "performance": TRACES, "performance_by_experiment": len(EXPERIMENTS)}


# --- the traces ---------------------------------------------------------------------------------


def requests() -> Iterator[tuple[str, ExportTraceServiceRequest]]:
    """Experiments and their traces, in several requests each, so that there are several files."""
    make = Maker(41)
    per_request = 2_500
    for first in range(0, TRACES, per_request):
        body = ExportTraceServiceRequest()
        for part in range(10):
            resource = body.resource_spans.add()
            resource.resource.attributes.extend(
                generate.attributes({"service.name": f"service-{part % 3}"})
            )
            scope = resource.scope_spans.add()
            for number in range(first + part, first + per_request, 10):
                scope.spans.extend(spans(make, number))
        yield EXPERIMENTS[first // per_request % len(EXPERIMENTS)], body


def spans(make: Maker, number: int) -> list[trace_pb2.Span]:
    """One trace: an agent, a model call, some tools; now and then something odd."""
    pick = make.random
    trace_id, root = make.trace_id(), make.span_id()
    start = number * 7_000 * MS + pick.randrange(MS)
    length = pick.randrange(1, 9_000 * MS)
    values = {
        "mlflow.spanType": '"LLM"',
        "mlflow.spanInputs": f'{{"n": {number}}}',
        "mlflow.spanOutputs": '"\u00e9\u4e2d\U0001f600 `x` \'y\' \\"z\\""',
        "session.id": f"session-{number % 500}",
    }
    if number % 11:
        values["gen_ai.request.model"] = ("m-small", "m-large", "m`odd`\u00fc")[number % 3]
    if number % 13:
        values["gen_ai.usage.input_tokens"] = pick.randrange(10**6)
        values["gen_ai.usage.output_tokens"] = pick.randrange(10**4)
    made = [
        make.span(
            trace_id, f"agent {number % 5}", start, length, span_id=root,
            attributes={"mlflow.spanType": '"AGENT"'},
        ),
        make.span(
            trace_id, ("chat", "chat `two`", "\u00fcber")[number % 3], start + 1, length // 2,
            parent_span_id=root, attributes=values,
        ),
    ]  # fmt: skip
    for tool in range(number % 3):
        made.append(
            make.span(
                trace_id, "tool", start + 2, pick.randrange(50 * MS), parent_span_id=root,
                attributes={"mlflow.spanType": '"TOOL"'} if tool else {},
            )
        )  # fmt: skip
    break_something(number, made)
    return made


def break_something(number: int, made: list[trace_pb2.Span]) -> None:
    """Failures in various words, times that are not, statuses that disagree."""
    last = made[-1]
    match number % 40:
        case 1 | 2:
            last.status.CopyFrom(generate.status_error(f"overloaded {number % 4}"))
        case 3:
            made[0].status.CopyFrom(generate.status_error("it broke `so`\n\u00fc"))
            last.status.CopyFrom(generate.status_error(""))
        case 4:
            last.status.CopyFrom(generate.status_error("no such \"city\"\\n'x'"))
            for kind in ("FirstError", f"app.LastError{number % 3}"):
                event = last.events.add(time_unix_nano=generate.BASE_NS, name="exception")
                event.attributes.extend(generate.attributes({"exception.type": kind, "n": 1}))
        case 5:
            last.end_time_unix_nano = 0
        case 6:
            last.start_time_unix_nano = 0
        case 7:
            last.end_time_unix_nano = last.start_time_unix_nano - 5 * MS - 1
        case 8:
            for span in made:
                span.start_time_unix_nano = span.end_time_unix_nano = 0
        case 9:
            made[0].parent_span_id = b"\x09" * 8
        case 10:
            last.end_time_unix_nano = last.start_time_unix_nano


@dataclass(frozen=True)
class Archive:
    """A service with all traces in one table."""

    server: Server

    @property
    def path(self) -> Path:
        return self.server.table_path(NAME)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """Imported by file; some rows are written anew afterwards, so that the table deletes rows."""
    folder = tmp_path_factory.mktemp("spark-python")
    server = Server(folder / "data")
    try:
        server.start()
        for name in EXPERIMENTS:
            tracelake.setup_trace_archival(*NAME.split("."), name, uri=server.url)
        bodies = list(requests())
        for number, (experiment, body) in enumerate(bodies):
            file = folder / f"{number}.pb"
            file.write_bytes(body.SerializeToString())
            tracelake.import_traces(file, experiment=experiment, flush=False, uri=server.url)
        tracelake.flush(uri=server.url)
        late = Maker(43)
        for _, body in bodies[:2]:
            known = body.resource_spans[0].scope_spans[0].spans[0].trace_id
            request = generate.request(late.span(known, "late", status=generate.status_error()))
            otlp.post(server.url, request)
        tracelake.flush(uri=server.url)
        made = Archive(server)
        assert table.counts_deltalake(made.path)[0] == TRACES
        yield made
        server.stop()
    finally:
        server.close()


@pytest.fixture(scope="module")
def session(archive: Archive, request: pytest.FixtureRequest) -> Iterator:
    """A session for which the service is the Unity Catalog; `request.param` is its workers."""
    uri = f"{archive.server.url}{API}"
    catalogs = f'[{{name="production", type="unity", default_catalog="production", uri="{uri}"}}]'
    settings = {"SAIL_CATALOG__LIST": catalogs, "SAIL_CATALOG__DEFAULT_CATALOG": "production"}
    with spark.sail(workers=request.param, **settings) as made:
        yield made


@pytest.fixture(scope="module")
def local(archive: Archive) -> dict[str, spark.Frame]:
    """Every question, answered by the service."""
    found = {
        name: spark.of_arrow(ask(trace_table=NAME, start_time=SINCE, uri=archive.server.url))
        for name, ask in QUESTIONS.items()
    }
    counts = {name: len(frame.rows) for name, frame in found.items()}
    assert all(counts.values()), counts
    assert {name: counts[name] for name in ROWS} == ROWS
    assert TRACES // 20 < counts["errors"] < TRACES // 5, counts
    return found


either = pytest.mark.parametrize(
    "session", [0, WORKERS], ids=["single", f"{WORKERS} workers"], indirect=True, scope="module"
)
single = pytest.mark.parametrize("session", [0], ids=["single"], indirect=True, scope="module")


# --- the same answers ---------------------------------------------------------------------------


@either
@pytest.mark.parametrize("question", QUESTIONS)
def test_spark_answers_as_we_do(
    question: str, session, local: dict[str, spark.Frame], archive: Archive
) -> None:
    """Equal columns, types, rows and order, by the table's path."""
    frame = QUESTIONS[question](trace_table=archive.path, start_time=SINCE, spark=session)
    spark.assert_same(spark.of_spark(frame), local[question])


@single
@pytest.mark.parametrize("question", ["traces", "errors", "performance_by_model"])
def test_the_unity_catalog_knows_the_table(
    question: str, session, local: dict[str, spark.Frame]
) -> None:
    """The same by its name, through the service's catalog."""
    frame = QUESTIONS[question](trace_table=NAME, start_time=SINCE, spark=session)
    spark.assert_same(spark.of_spark(frame), local[question])


@single
def test_a_frame_says_what_it_is_about(
    session, local: dict[str, spark.Frame], archive: Archive
) -> None:
    """Analyses of a DataFrame that tracelake returned: its table, its range, its session."""
    created = sorted(row["created_at"] for row in local["archived_traces"].rows)
    middle = created[len(created) // 2]
    here = tracelake.query_archived_traces(
        SINCE, middle, NAME, payloads=False, limit=1, uri=archive.server.url
    )
    there = tracelake.query_archived_traces(
        SINCE, middle, archive.path, payloads=False, limit=1, spark=session
    )
    for analyze in (
        tracelake.analyze_trace_errors,
        tracelake.analyze_trace_performance,
        lambda frame, **more: tracelake.analyze_trace_performance(frame, by="hour", **more),
    ):
        expected = spark.of_arrow(analyze(here, uri=archive.server.url))
        spark.assert_same(spark.of_spark(analyze(there)), expected)
        assert expected.rows
    # What is said by name goes before what the frame is about.
    later = middle + timedelta(microseconds=1)
    now = datetime.now(UTC)
    rest = tracelake.analyze_trace_performance(there, start_time=later, end_time=now)
    both = len(tracelake.analyze_trace_performance(here, uri=archive.server.url)) + rest.count()
    assert both == TRACES


@single
@pytest.mark.parametrize("question", QUESTIONS)
def test_explain_prints_the_statement_that_runs(
    question: str, session, archive: Archive, capsys: pytest.CaptureFixture[str]
) -> None:
    """Word for word what the session is given; here what `tracelake.sql` answers alike."""
    ran: list[str] = []

    class Listening:
        """The session, and what it is asked."""

        def sql(self, statement: str):
            ran.append(statement)
            return session.sql(statement)

    ask = QUESTIONS[question]
    ask(trace_table=archive.path, start_time=SINCE, spark=Listening(), explain=True)
    assert capsys.readouterr().out == f"{ran[0]}\n" and len(ran) == 1
    assert f"`{archive.path}`" in ran[0]

    answer = ask(trace_table=NAME, start_time=SINCE, explain=True, uri=archive.server.url)
    printed = capsys.readouterr().out
    if question != "archived_traces_without_payloads":  # Its statement is the same as with them.
        again = tracelake.sql(printed, uri=archive.server.url)
        spark.assert_same(spark.of_arrow(again), spark.of_arrow(answer))


@single
def test_a_range_means_the_same_there(session, archive: Archive) -> None:
    """To the microsecond at both ends, whatever the zone it is given in."""
    rows = spark.of_arrow(
        tracelake.sql(f"SELECT DISTINCT created_at FROM {NAME} ORDER BY 1", uri=archive.server.url)
    ).rows
    moments = [row["created_at"] for row in rows]
    assert len(moments) > 1
    step = timedelta(microseconds=1)
    naive = moments[-1].astimezone().replace(tzinfo=None)
    for since, until in (
        (moments[-1], None),
        (moments[-1] + step, None),
        (SINCE, moments[0]),
        (SINCE, moments[0] - step),
        (naive, naive),
    ):
        asked = {"start_time": since, "end_time": until}
        here = tracelake.list_traces(trace_table=NAME, uri=archive.server.url, **asked)
        there = tracelake.list_traces(trace_table=archive.path, spark=session, **asked)
        spark.assert_same(spark.of_spark(there), spark.of_arrow(here))


def test_the_traces_are_odd_enough(local: dict[str, spark.Frame]) -> None:
    """What was made to be difficult has come through to the answers."""
    performance = local["performance"].rows
    assert any(row["timestamp"] is None for row in performance)
    assert any(row["total_duration_ms"] < 0 for row in performance) or any(
        row["total_duration_ms"] == 0 for row in performance
    )
    assert not any(math.isnan(row["avg_span_duration_ms"]) for row in performance)
    groups = {row.get("exception_type") for row in local["error_groups"].rows}
    assert {None, "app.LastError0", "app.LastError1", "app.LastError2"} <= groups
    models = {row["model"] for row in local["performance_by_model"].rows}
    assert "m`odd`\u00fc" in models
    assert len(local["performance_by_hour"].rows) > 30
